//! The network room with real swarms: over TCP and QUIC on the loopback interface, and within the process.

mod asking;
mod door;
mod finding;
mod gossip;
mod hostile;
mod leaving;
mod node;
mod reaching;
