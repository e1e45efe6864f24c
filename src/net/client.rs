//! What the owner and others who were given a [`Client`] can do.

use std::collections::BTreeSet;
use std::time::Duration;

use libp2p::Multiaddr;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::NetError;
use super::event::{Event, GossipToken, ReplyToken, RequestId, Topic, Verdict};
use super::outbox::{Counters, Tallies};
use crate::kernel::id::PeerId;
use crate::wire::limits::{MAX_GOSSIP, MAX_REQUEST, MAX_RESPONSE};

/// Commands that wait for the swarm. It never waits for their senders, so they may wait for it.
pub(super) const COMMANDS: usize = 256;

pub(super) enum Command {
    Publish { topic: Topic, bytes: Vec<u8> },
    Judge { token: GossipToken, verdict: Verdict },
    Ask { to: PeerId, id: RequestId, bytes: Vec<u8> },
    Respond { token: ReplyToken, bytes: Vec<u8> },
    Dial { address: Multiaddr, answer: oneshot::Sender<Result<PeerId, String>> },
    Remember { address: Multiaddr },
    Disconnect { peer: PeerId },
    KeepAway { peer: PeerId, time: Duration },
    Welcome { peers: BTreeSet<PeerId> },
    Papers { papers: Papers },
    Peers { answer: oneshot::Sender<Vec<PeerInfo>> },
    Addresses { answer: oneshot::Sender<Vec<Multiaddr>> },
    Known { answer: oneshot::Sender<Vec<Multiaddr>> },
    Shutdown,
}

/// What a node shows to a peer that does not let it in yet: the bytes of a request each.
#[derive(Clone, Default)]
pub struct Papers {
    /// Its way to the mesh key. Shown to whomever it dials.
    pub chain: Option<Vec<u8>>,
    /// A right that is good for whoever holds it. Shown to those alone that are let in here.
    pub ticket: Option<Vec<u8>>,
}

/// A connected peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    pub peer: PeerId,
    /// The far ends of its connections, oldest first.
    pub addresses: Vec<Multiaddr>,
    /// Who made the oldest connection.
    pub direction: Direction,
    /// The last round trip that was measured.
    pub rtt: Option<Duration>,
    /// How long it has been connected.
    pub since: Duration,
}

/// Who made a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The other node.
    Inbound,
    /// This node.
    Outbound,
}

/// Gives commands to the network. All of it may be called from anywhere and any number of clones; each call returns
/// as soon as the swarm has the command, and fails only with [`NetError::Stopped`] where nothing else is said.
#[derive(Clone)]
pub struct Client {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) tallies: Tallies,
    pub(super) peer: PeerId,
}

impl Client {
    /// This node.
    pub const fn peer(&self) -> PeerId {
        self.peer
    }

    /// Gossips a message. The same bytes are gossiped once a minute at most.
    ///
    /// # Errors
    /// [`NetError::TooLarge`] beyond [`MAX_GOSSIP`].
    pub async fn publish(&self, topic: Topic, bytes: Vec<u8>) -> Result<(), NetError> {
        within(&bytes, MAX_GOSSIP)?;
        self.command(Command::Publish { topic, bytes }).await
    }

    /// Says what to do about a gossiped message; to be called for every one, within seconds.
    ///
    /// # Errors
    /// [`NetError::Stopped`].
    pub async fn verdict(&self, token: GossipToken, verdict: Verdict) -> Result<(), NetError> {
        self.command(Command::Judge { token, verdict }).await
    }

    /// Asks a connected peer. [`Event::Response`] or [`Event::Unanswered`] with that number follows.
    ///
    /// # Errors
    /// [`NetError::TooLarge`] beyond [`MAX_REQUEST`]; no event follows then.
    pub async fn request(&self, to: PeerId, id: RequestId, bytes: Vec<u8>) -> Result<(), NetError> {
        within(&bytes, MAX_REQUEST)?;
        self.command(Command::Ask { to, id, bytes }).await
    }

    /// Answers a peer's request. When the peer no longer waits, nothing happens.
    ///
    /// # Errors
    /// [`NetError::TooLarge`] beyond [`MAX_RESPONSE`]; the request is refused then.
    pub async fn respond(&self, token: ReplyToken, bytes: Vec<u8>) -> Result<(), NetError> {
        within(&bytes, MAX_RESPONSE)?;
        self.command(Command::Respond { token, bytes }).await
    }

    /// Dials an address once, and returns when a peer of this mesh is connected there.
    ///
    /// # Errors
    /// [`NetError::Dial`] when there is none, at the latest after the times for dialing and proving.
    pub async fn dial(&self, address: Multiaddr) -> Result<PeerId, NetError> {
        let (answer, dialed) = oneshot::channel();
        self.command(Command::Dial { address: address.clone(), answer }).await?;
        dialed.await.map_err(|_| NetError::Stopped)?.map_err(|why| NetError::Dial { address, why })
    }

    /// Stays connected with that address from now on, as if it had been among the bootstrap addresses.
    ///
    /// # Errors
    /// [`NetError::Stopped`].
    pub async fn remember(&self, address: Multiaddr) -> Result<(), NetError> {
        self.command(Command::Remember { address }).await
    }

    /// Closes all connections with a peer. It may come back.
    ///
    /// # Errors
    /// [`NetError::Stopped`].
    pub async fn disconnect(&self, peer: PeerId) -> Result<(), NetError> {
        self.command(Command::Disconnect { peer }).await
    }

    /// Closes all connections with a peer and lets none come about for this time.
    ///
    /// # Errors
    /// [`NetError::Stopped`].
    pub async fn keep_away(&self, peer: PeerId, time: Duration) -> Result<(), NetError> {
        self.command(Command::KeepAway { peer, time }).await
    }

    /// Lets these in and nobody else; closes the connections with members that are not among them.
    ///
    /// # Errors
    /// [`NetError::Stopped`].
    pub async fn welcome(&self, peers: BTreeSet<PeerId>) -> Result<(), NetError> {
        self.command(Command::Welcome { peers }).await
    }

    /// Shows these papers from now on.
    ///
    /// # Errors
    /// [`NetError::Stopped`].
    pub async fn show(&self, papers: Papers) -> Result<(), NetError> {
        self.command(Command::Papers { papers }).await
    }

    /// The connected peers, by id.
    ///
    /// # Errors
    /// [`NetError::Stopped`].
    pub async fn peers(&self) -> Result<Vec<PeerInfo>, NetError> {
        let (answer, peers) = oneshot::channel();
        self.command(Command::Peers { answer }).await?;
        peers.await.map_err(|_| NetError::Stopped)
    }

    /// The addresses this node listens on or is announced at, with `/p2p/…`.
    ///
    /// # Errors
    /// [`NetError::Stopped`].
    pub async fn addresses(&self) -> Result<Vec<Multiaddr>, NetError> {
        let (answer, addresses) = oneshot::channel();
        self.command(Command::Addresses { answer }).await?;
        addresses.await.map_err(|_| NetError::Stopped)
    }

    /// Where other peers can be reached, as far as is known, each address with `/p2p/…`: for [`super::Settings::known`]
    /// of the next life.
    ///
    /// # Errors
    /// [`NetError::Stopped`].
    pub async fn known(&self) -> Result<Vec<Multiaddr>, NetError> {
        let (answer, known) = oneshot::channel();
        self.command(Command::Known { answer }).await?;
        known.await.map_err(|_| NetError::Stopped)
    }

    /// What has been counted so far.
    pub fn counters(&self) -> Counters {
        self.tallies.snapshot()
    }

    /// Lets what was said last leave, closes all connections, and ends: [`Events::recv`] returns `None` then.
    ///
    /// # Errors
    /// [`NetError::Stopped`] when that has happened already.
    pub async fn shutdown(&self) -> Result<(), NetError> {
        self.command(Command::Shutdown).await
    }

    async fn command(&self, command: Command) -> Result<(), NetError> {
        self.commands.send(command).await.map_err(|_| NetError::Stopped)
    }
}

const fn within(bytes: &[u8], limit: usize) -> Result<(), NetError> {
    if bytes.len() > limit { Err(NetError::TooLarge { bytes: bytes.len(), limit }) } else { Ok(()) }
}

/// The network's events, and the network itself: it ends when this is dropped.
pub struct Events {
    pub(super) receiver: mpsc::Receiver<Event>,
    pub(super) task: JoinHandle<()>,
}

impl Events {
    /// The next event; `None` once the network has ended. May be given up and called again without loss.
    pub async fn recv(&mut self) -> Option<Event> {
        self.receiver.recv().await
    }

    /// The next event if one is there already.
    pub fn try_recv(&mut self) -> Option<Event> {
        self.receiver.try_recv().ok()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}
