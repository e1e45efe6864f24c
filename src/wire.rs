//! Entries and peer messages to and from bytes, with every size and depth limit in one place.
//!
//! Owns the formats that nodes of one mesh speak (`proto/runmesh/v1/peer.proto` around DAG-CBOR entries), the text form
//! of a ticket, and [`limits`]. Promises that an `open` of any bytes neither panics nor allocates out of proportion to
//! them, that whatever it returns is within the limits, and that whatever a `seal` returns is opened by every node of
//! this version. Leaves to the kernel what messages mean and who may send them, and to net how bytes travel.

pub mod entry;
pub mod gossip;
pub mod limits;
pub mod peers;
pub mod presence;
pub mod request;
pub mod response;
pub mod revocation;
pub mod scale_set;
pub mod ticket;

mod base32;
mod cbor;
mod field;

use crate::kernel::entry::EntryError;
use crate::kernel::id::MeshId;

/// The generated messages.
#[expect(unreachable_pub, reason = "generated code makes everything public")]
mod proto {
    tonic::include_proto!("runmesh.peer.v1");
}

/// Why bytes are not the message they were taken for, or a message does not fit into one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("{what} takes {bytes} bytes; at most {limit} are allowed")]
    TooLarge { what: &'static str, bytes: usize, limit: usize },
    #[error("there are {count} {what}; at most {limit} are allowed")]
    TooMany { what: &'static str, count: usize, limit: usize },
    #[error("the entry is nested deeper than {limit} levels")]
    TooDeep { limit: usize },
    #[error("{what} is not readable: {why}")]
    Malformed { what: &'static str, why: String },
    #[error("{what} are repeated")]
    Repeated { what: &'static str },
    #[error("opening an entry: {0}")]
    Entry(EntryError),
    #[error("the presence's signature is not its peer's, or is of another mesh")]
    Signature,
    #[error("the entry is of mesh {0}, not of this one")]
    ForeignMesh(MeshId),
    #[error("the message is of a kind that this version does not know; a newer node may have sent it")]
    Unknown,
}

impl WireError {
    /// Whether the bytes themselves are a fault of whoever made them, which everybody who passed them on could have
    /// seen: reject them and let it count against the sender. What is merely foreign or of a later version is to be
    /// ignored instead.
    pub const fn is_provably_bad(&self) -> bool {
        match self {
            Self::ForeignMesh(_) | Self::Unknown | Self::Entry(EntryError::Format(_)) => false,
            Self::TooLarge { .. }
            | Self::TooMany { .. }
            | Self::TooDeep { .. }
            | Self::Malformed { .. }
            | Self::Repeated { .. }
            | Self::Entry(_)
            | Self::Signature => true,
        }
    }
}
