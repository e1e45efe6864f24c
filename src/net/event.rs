//! What the network tells its owner.

use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::gossipsub::MessageId;
use libp2p::request_response::{InboundRequestId, ResponseChannel};
use tokio::sync::OwnedSemaphorePermit;

use crate::kernel::id::PeerId;

/// What is gossiped apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    Entries,
    Presence,
}

/// A request's number, chosen by who makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Something happened. [`Event::Connected`] comes before everything else that a peer does, and nothing but
/// [`Event::Unanswered`] after its [`Event::Disconnected`].
#[derive(Debug)]
pub enum Event {
    /// A peer of this mesh is connected that was not, and hears what is published.
    Connected(PeerId),
    /// The last connection to it is gone.
    Disconnected(PeerId),
    /// A message was gossiped. It is passed on to nobody before [`super::Client::verdict`].
    Gossip { topic: Topic, from: PeerId, bytes: Vec<u8>, token: GossipToken },
    /// A peer asks; to be answered by [`super::Client::respond`]. Dropping the token refuses.
    Request { from: PeerId, bytes: Vec<u8>, token: ReplyToken },
    /// The answer to a request.
    Response { id: RequestId, from: PeerId, bytes: Vec<u8> },
    /// No answer to a request will come.
    Unanswered { id: RequestId, from: PeerId, why: Why },
    /// A connected peer said or asked so much more than its share since this was told last; it was dropped.
    Flood { peer: PeerId, dropped: u64 },
    /// A peer does not let this node in; what it answered is a response.
    Denied { peer: PeerId, bytes: Vec<u8> },
    /// The node listens there; the address ends with `/p2p/…`.
    Listening(Multiaddr),
    /// The node listens there no longer, although it should.
    Deaf { address: Multiaddr, error: String },
    /// A bootstrap address does not answer (said once; it is tried again for ever), or `None`: now it does.
    Bootstrap { address: Multiaddr, error: Option<String> },
    /// The time to a peer and back.
    Rtt { peer: PeerId, rtt: Duration },
}

/// What to do about a gossiped message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Pass it on.
    Accept,
    /// Pass it on to nobody.
    Ignore,
    /// Nor that, and it was a fault to send it: a peer that goes on with it is not listened to for a while.
    Reject,
}

/// A gossiped message that waits for its verdict. While too many of one peer's wait, further ones are dropped.
#[derive(Debug)]
pub struct GossipToken {
    pub(super) message: MessageId,
    pub(super) from: libp2p::PeerId,
    pub(super) _share: Share,
}

/// A request that waits for its answer. While too many of one peer's wait, further ones are refused.
#[derive(Debug)]
pub struct ReplyToken {
    pub(super) channel: ResponseChannel<Vec<u8>>,
    pub(super) at_door: bool,
    pub(super) from: PeerId,
    pub(super) number: InboundRequestId,
    pub(super) share: Share,
}

impl ReplyToken {
    /// Whether whoever asks has proven nothing yet: it asks to be let in, and may ask nothing else.
    pub const fn at_door(&self) -> bool {
        self.at_door
    }
}

/// The part of the memory for unanswered messages that one takes; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) _of_peer: OwnedSemaphorePermit,
    pub(super) _of_all: OwnedSemaphorePermit,
}

/// Why no answer will come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    #[error("the peer is not connected")]
    NotConnected,
    #[error("the connection was lost before an answer came")]
    Lost,
    #[error("no answer came in time")]
    Timeout,
    #[error("the peer refused without an answer")]
    Refused,
    #[error("too many requests wait for answers")]
    Busy,
    #[error("the request or its answer broke off: {0}")]
    Broken(String),
}
