//! Batches of entries, as they are published on the entries topic.

use std::sync::Arc;

use prost::Message as _;
use prost::encoding::encoded_len_varint;

use super::field::{count, decode};
use super::limits::{MAX_GOSSIP, MAX_GOSSIP_ENTRIES};
use super::{WireError, entry, proto};
use crate::kernel::entry::Entry;
use crate::kernel::id::MeshId;

/// The entries in as few messages as hold them, in their order, each message within [`MAX_GOSSIP`].
pub fn seal_entries(entries: &[Arc<Entry>]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    let mut message = proto::Entries::default();
    let mut size = 0;
    for entry in entries {
        let bytes = entry.bytes();
        // A field's tag, its length, the bytes.
        let more = 1 + encoded_len_varint(bytes.len() as u64) + bytes.len();
        if !message.entry.is_empty() && (size + more > MAX_GOSSIP || message.entry.len() == MAX_GOSSIP_ENTRIES) {
            messages.push(std::mem::take(&mut message).encode_to_vec());
            size = 0;
        }
        message.entry.push(bytes.to_vec());
        size += more;
    }
    if !message.entry.is_empty() {
        messages.push(message.encode_to_vec());
    }
    messages
}

/// Opens a batch, in its order. Members all check all of a batch before they pass it on, so one bad entry condemns it.
///
/// # Errors
/// [`WireError`] of the first entry that is not to be taken, a provably bad one before all others.
pub fn open_entries(bytes: &[u8], mesh: &MeshId) -> Result<Vec<Arc<Entry>>, WireError> {
    let message: proto::Entries = decode(bytes, "a batch of entries", MAX_GOSSIP)?;
    if message.entry.is_empty() {
        return Err(WireError::Malformed { what: "a batch of entries", why: "it is empty".to_owned() });
    }
    open_all(&message.entry, MAX_GOSSIP_ENTRIES, mesh)
}

/// Opens each of at most `limit` entries, on several threads where there are many.
pub(super) fn open_all(list: &[Vec<u8>], limit: usize, mesh: &MeshId) -> Result<Vec<Arc<Entry>>, WireError> {
    count(list.len(), "entries", limit)?;
    let mut entries = Vec::with_capacity(list.len());
    let mut foreign = None;
    for opened in entry::open_many(list, mesh) {
        match opened {
            Ok(entry) => entries.push(entry),
            Err(error) if error.is_provably_bad() => return Err(error),
            Err(error) => {
                foreign.get_or_insert(error);
            }
        }
    }
    foreign.map_or(Ok(entries), Err)
}

#[cfg(test)]
pub(super) mod tests {
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::entry::{Body, Cancel, Event, FORMAT, Hlc};
    use crate::kernel::id::{Author, Cid, Incarnation, PeerId, TaskId};
    use crate::wire::limits::MAX_NOTE;

    pub(in crate::wire) const MESH: MeshId = MeshId([5; 32]);

    /// Entries of one chain with as many notes as told.
    pub(in crate::wire) fn chain(notes: &[usize]) -> Vec<Arc<Entry>> {
        chain_of(MESH, notes)
    }

    fn chain_of(mesh: MeshId, notes: &[usize]) -> Vec<Arc<Entry>> {
        let key = SigningKey::from_bytes(&[3; 32]);
        let peer = PeerId::from_public_key(key.verifying_key().to_bytes());
        let author = Author { peer, incarnation: Incarnation(1) };
        let mut parent: Option<Cid> = None;
        let mut sequence = 0;
        let entry = |notes: &usize| {
            sequence += 1;
            let cancel = Cancel { task: TaskId([4; 32]), why: "x".repeat(MAX_NOTE) };
            let events = vec![Event::Cancel(cancel); *notes];
            let parents = parent.into_iter().collect();
            let body = Body { format: FORMAT, mesh, author, sequence, parents, time: Hlc::default(), events };
            let entry = Entry::seal(body, &key);
            parent = Some(entry.cid());
            Arc::new(entry)
        };
        notes.iter().map(entry).collect()
    }

    #[test]
    fn a_long_batch_is_split_within_the_limit() {
        let entries = chain(&[60; 13]);
        let messages = seal_entries(&entries);
        assert_eq!(messages.len(), 3, "five of about 32 KiB fit into 192 KiB with what frames them");
        assert!(messages.iter().all(|message| message.len() <= MAX_GOSSIP));
        let opened: Vec<_> = messages.iter().flat_map(|message| open_entries(message, &MESH).expect("opens")).collect();
        assert_eq!(opened, entries);
    }

    #[test]
    fn one_bad_entry_condemns_its_batch_even_behind_a_foreign_one() {
        let foreign = chain_of(MeshId([6; 32]), &[1]);
        let bytes = |bad: &[u8]| {
            let list = vec![foreign[0].bytes().to_vec(), bad.to_vec()];
            proto::Entries { entry: list }.encode_to_vec()
        };
        let error = open_entries(&bytes(b"not an entry"), &MESH).expect_err("bad");
        assert!(error.is_provably_bad(), "{error}");
        let error = open_entries(&bytes(chain(&[1])[0].bytes()), &MESH).expect_err("foreign");
        assert_eq!(error, WireError::ForeignMesh(MeshId([6; 32])));
    }

    #[test]
    fn limits_hold() {
        assert!(matches!(open_entries(&vec![0; MAX_GOSSIP + 1], &MESH), Err(WireError::TooLarge { .. })));
        let many = proto::Entries { entry: vec![Vec::new(); MAX_GOSSIP_ENTRIES + 1] }.encode_to_vec();
        assert!(matches!(open_entries(&many, &MESH), Err(WireError::TooMany { .. })));
        assert!(matches!(open_entries(&[], &MESH), Err(WireError::Malformed { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(open_entries(&bytes, &MESH).is_err());
        }
    }
}
