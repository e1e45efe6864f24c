//! Single fields of messages: bytes of fixed length, limited text and lists, lists of distinct things.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use super::WireError;
use super::limits::{MAX_LABEL, MAX_LABELS};
use super::proto;
use crate::kernel::entry::{Signature, Ticket};
use crate::kernel::id::{Author, Cid, Digest, Incarnation, PeerId, TaskId};
use crate::kernel::io::Vector;

/// Decodes a message of at most `limit` bytes.
pub(super) fn decode<M: Message + Default>(bytes: &[u8], what: &'static str, limit: usize) -> Result<M, WireError> {
    size(bytes.len(), what, limit)?;
    M::decode(bytes).map_err(|error| WireError::Malformed { what, why: error.to_string() })
}

/// Refuses more than `limit` bytes.
pub(super) const fn size(bytes: usize, what: &'static str, limit: usize) -> Result<(), WireError> {
    if bytes > limit { Err(WireError::TooLarge { what, bytes, limit }) } else { Ok(()) }
}

/// Refuses more than `limit` things.
pub(super) const fn count(count: usize, what: &'static str, limit: usize) -> Result<(), WireError> {
    if count > limit { Err(WireError::TooMany { what, count, limit }) } else { Ok(()) }
}

/// An array of exactly `N` bytes.
pub(super) fn array<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u8; N], WireError> {
    bytes
        .try_into()
        .map_err(|_| WireError::Malformed { what, why: format!("it has {} bytes instead of {N}", bytes.len()) })
}

pub(super) fn peer(bytes: &[u8]) -> Result<PeerId, WireError> {
    array(bytes, "a peer").map(PeerId::from_public_key)
}

pub(super) fn task(bytes: &[u8]) -> Result<TaskId, WireError> {
    array(bytes, "a task").map(TaskId)
}

pub(super) fn digest(bytes: &[u8]) -> Result<Digest, WireError> {
    array(bytes, "a hash").map(Digest)
}

pub(super) fn cid(bytes: &[u8]) -> Result<Cid, WireError> {
    array(bytes, "an entry's id").map(Cid::from_digest)
}

/// A list of at most `limit` distinct things.
pub(super) fn set<T: Ord, M>(
    list: Vec<M>,
    what: &'static str,
    limit: usize,
    read: impl Fn(M) -> Result<T, WireError>,
) -> Result<BTreeSet<T>, WireError> {
    let length = list.len();
    count(length, what, limit)?;
    let set = list.into_iter().map(read).collect::<Result<BTreeSet<T>, _>>()?;
    if set.len() == length { Ok(set) } else { Err(WireError::Repeated { what }) }
}

/// A list of at most `limit` pairs with distinct keys.
pub(super) fn map<K: Ord, V, M>(
    list: Vec<M>,
    what: &'static str,
    limit: usize,
    read: impl Fn(M) -> Result<(K, V), WireError>,
) -> Result<BTreeMap<K, V>, WireError> {
    let length = list.len();
    count(length, what, limit)?;
    let map = list.into_iter().map(read).collect::<Result<BTreeMap<K, V>, _>>()?;
    if map.len() == length { Ok(map) } else { Err(WireError::Repeated { what }) }
}

/// Text of at most `limit` bytes.
pub(super) fn text(text: String, what: &'static str, limit: usize) -> Result<String, WireError> {
    size(text.len(), what, limit).map(|()| text)
}

/// The longest beginning of the text that has at most `limit` bytes.
pub(super) fn clip(text: &str, limit: usize) -> String {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

pub(super) fn vector(list: Vec<proto::Count>, limit: usize) -> Result<Vector, WireError> {
    map(list, "authors in the vector", limit, |one| {
        let author = Author { peer: peer(&one.peer)?, incarnation: Incarnation(one.incarnation) };
        Ok((author, one.sequence))
    })
}

pub(super) fn counts(vector: &Vector) -> impl Iterator<Item = proto::Count> {
    vector.iter().map(|(author, sequence)| proto::Count {
        peer: author.peer.public_key().to_vec(),
        incarnation: author.incarnation.0,
        sequence: *sequence,
    })
}

pub(super) fn ticket(ticket: &proto::Ticket) -> Result<Ticket, WireError> {
    let signature = Signature(array(&ticket.signature, "a ticket's signature")?);
    let labels = match &ticket.labels {
        Some(labels) => Some(set(labels.label.clone(), "labels in a ticket", MAX_LABELS, |label| {
            text(label, "a label", MAX_LABEL)
        })?),
        None => None,
    };
    Ok(Ticket { id: ticket.id, expires_ms: ticket.expires_ms, labels, signature })
}

pub(super) fn ticket_message(ticket: &Ticket) -> proto::Ticket {
    let labels = ticket.labels.as_ref().map(|labels| proto::Labels { label: labels.iter().cloned().collect() });
    proto::Ticket { id: ticket.id, expires_ms: ticket.expires_ms, signature: ticket.signature.0.to_vec(), labels }
}

/// What the messages' round trips are tried with.
#[cfg(test)]
pub(super) mod arbitrary {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::wire) fn peer() -> impl Strategy<Value = PeerId> {
        any::<[u8; 32]>().prop_map(PeerId::from_public_key)
    }

    pub(in crate::wire) fn cid() -> impl Strategy<Value = Cid> {
        any::<[u8; 32]>().prop_map(Cid::from_digest)
    }

    pub(in crate::wire) fn task() -> impl Strategy<Value = TaskId> {
        any::<[u8; 32]>().prop_map(TaskId)
    }

    pub(in crate::wire) fn vector() -> impl Strategy<Value = Vector> {
        let author =
            (peer(), any::<u64>()).prop_map(|(peer, number)| Author { peer, incarnation: Incarnation(number) });
        proptest::collection::btree_map(author, any::<u64>(), 0..8)
    }
}
