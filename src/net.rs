//! The libp2p swarm: bytes and peers in, bytes and peers out.
//!
//! Owns every connection to other nodes: listening, dialing, finding the other members of the mesh and coming back to
//! them, gossip on two topics, requests and responses. Promises that one slow or hostile peer cannot hold up the
//! others, that a slow owner of [`Events`] costs gossip (counted in [`Counters`]) but never a connection, a response or
//! a deadlock, and that every request ends in [`Event::Response`] or [`Event::Unanswered`]. Leaves to its owner what the
//! bytes mean: which gossip is worth passing on (a [`Verdict`]), who is a member, what is answered. Whoever is no
//! member gets no further than the door (`task::door`): it shows its papers there within a time, and hears nothing else.
//!
//! Gossip is a hint, not a delivery: libp2p drops messages for peers that do not keep up. And `from` is only the
//! neighbour that passed a message on; who wrote it, the message itself must prove.

use std::collections::BTreeSet;
use std::time::Duration;

mod arrivals;
mod away;
mod backoff;
mod behaviour;
mod book;
mod bootstrap;
mod client;
mod codec;
mod crowd;
mod event;
mod gate;
mod names;
mod outbox;
mod relays;
mod roster;
mod swarm_key;
mod task;
mod transport;

pub use libp2p::Multiaddr;

pub use client::{Client, Direction, Events, Papers, PeerInfo};
pub use event::{Event, GossipToken, ReplyToken, RequestId, Topic, Verdict, Why};
pub use names::{door_of, peer_of, with_peer};
pub use outbox::Counters;
pub use swarm_key::{SwarmKey, SwarmKeyError};
pub use transport::has_ipv6;

use crate::kernel::id::{MeshId, PeerId};

/// What carries the bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transport {
    /// TCP and QUIC, with DNS.
    #[default]
    Network,
    /// Channels within this process, for tests and benchmarks: `/memory/N` addresses.
    Memory,
}

/// How a node stands in the network.
#[derive(Clone)]
pub struct Settings {
    /// The secret half of the node's Ed25519 identity.
    pub key: [u8; 32],
    /// Nodes of other meshes are turned away.
    pub mesh: MeshId,
    pub transport: Transport,
    /// Where to listen; port 0 lets the host choose.
    pub listen: Vec<Multiaddr>,
    /// Addresses that others can reach this node by besides those it listens on: a forwarded port, a DNS name.
    pub announce: Vec<Multiaddr>,
    /// Peers to stay connected with, tried again for ever. With or without `/p2p/…`.
    pub bootstrap: Vec<Multiaddr>,
    /// Addresses with `/p2p/…` at which an earlier life of this node has reached others. Tried quietly for a day.
    pub known: Vec<Multiaddr>,
    /// Who is let in: everybody else has to prove first that it belongs to this mesh.
    pub welcome: BTreeSet<PeerId>,
    /// What this node shows to whoever does not know it.
    pub papers: Papers,
    /// As long as fewer peers are connected, peers that others know are dialed. A smaller mesh is fully connected.
    pub connections: usize,
    /// Whoever does not have it, connects with nobody here. It covers TCP and what is carried by it; QUIC is not spoken then.
    pub swarm_key: Option<SwarmKey>,
    /// Makes this node known on the LAN, and looks for members there.
    pub mdns: bool,
    /// Carries connections between members that cannot reach each other.
    pub relay: bool,
    pub timings: Timings,
}

impl Settings {
    /// The settings of a node that listens nowhere and knows nobody.
    pub fn new(key: [u8; 32], mesh: MeshId) -> Self {
        Self {
            key,
            mesh,
            transport: Transport::Network,
            listen: Vec::new(),
            announce: Vec::new(),
            bootstrap: Vec::new(),
            known: Vec::new(),
            welcome: BTreeSet::new(),
            papers: Papers::default(),
            connections: 32,
            swarm_key: None,
            mdns: false,
            relay: true,
            timings: Timings::default(),
        }
    }
}

/// How long things take at most, or in between.
#[derive(Debug, Clone)]
pub struct Timings {
    /// A connection stands, encrypted, or is given up.
    pub dial: Duration,
    /// A connected peer has shown that it belongs to this mesh, or is turned away.
    pub prove: Duration,
    /// A request is answered, or is [`Event::Unanswered`].
    pub request: Duration,
    /// The first and the longest wait before a peer that cannot be reached is tried again.
    pub retry_first: Duration,
    pub retry_most: Duration,
    /// A peer that was not heard of for so long is not tried again, unless it is a bootstrap peer.
    pub forget: Duration,
    /// Of two peers that hear of each other, the one with the greater id lets the other dial first for so long.
    pub yield_to: Duration,
    /// Some connected peer is asked whom it knows so often, while connections are wanted.
    pub exchange: Duration,
    /// Round trips are measured so often. Three in a row that get no answer within this time close the connection.
    pub ping: Duration,
    /// Gossip links are mended so often.
    pub heartbeat: Duration,
    /// At shutdown, what was said last has so long to leave.
    pub linger: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(10),
            prove: Duration::from_secs(10),
            request: Duration::from_secs(10),
            retry_first: Duration::from_millis(250),
            retry_most: Duration::from_secs(30),
            forget: Duration::from_secs(600),
            yield_to: Duration::from_millis(250),
            exchange: Duration::from_secs(30),
            ping: Duration::from_secs(5),
            heartbeat: Duration::from_secs(1),
            linger: Duration::from_millis(200),
        }
    }
}

/// Why the network cannot be used as asked.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("setting up the network: {0}")]
    Setup(String),
    #[error("listening on {address}: {why}; choose another address with --listen")]
    Listen { address: Multiaddr, why: String },
    #[error("a message of {bytes} bytes is too large to send; at most {limit} are allowed")]
    TooLarge { bytes: usize, limit: usize },
    #[error("dialing {address}: {why}")]
    Dial { address: Multiaddr, why: String },
    #[error("the network has been shut down")]
    Stopped,
}

/// Starts the network in a task of its own. Must be called within a tokio runtime. The task ends when [`Events`] is
/// dropped, or after [`Client::shutdown`].
///
/// # Errors
/// [`NetError::Setup`] when the host has no entropy or name service settings that can be read, [`NetError::Listen`]
/// when an address cannot be listened on.
pub fn start(settings: Settings) -> Result<(Client, Events), NetError> {
    task::Task::start(settings)
}
