//! The libp2p swarm: bytes and peers in, bytes and peers out.
