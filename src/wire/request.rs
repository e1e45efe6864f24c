//! What one node asks another directly.

use prost::Message as _;

use super::field::{cid, count, counts, decode, digest, peer, set, task, ticket, ticket_message, vector};
use super::limits::{MAX_CHAIN, MAX_PRESENCES, MAX_PROOF, MAX_REQUEST, MAX_SYNC_AUTHORS, MAX_TURN, MAX_WANT};
use super::scale_set::{self, SetAsk};
use super::{WireError, proto};
use crate::kernel::id::{MeshId, TaskId};
use crate::kernel::io::Request;

/// What a node can be asked: something that its kernel answers, or something else.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    Kernel(Request),
    Log(LogPart),
    ScaleSet(SetAsk),
}

/// A part of what a task printed on the asked host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPart {
    pub task: TaskId,
    pub attempt: u32,
    /// The first byte that is wanted, counted from 0.
    pub offset: u64,
}

/// The bytes of a question about a log.
pub fn seal_log(part: &LogPart) -> Vec<u8> {
    let LogPart { task, attempt, offset } = *part;
    let log = proto::LogPart { task: task.0.to_vec(), attempt, offset };
    proto::Request { ask: Some(proto::request::Ask::Log(log)) }.encode_to_vec()
}

/// The bytes of a request. Of too many wanted entries, or tasks, the first are asked for.
///
/// # Errors
/// [`WireError::TooMany`] for a vector of more than [`MAX_SYNC_AUTHORS`]: a shorter one would ask again and again for
/// what is here already.
pub fn seal(request: &Request) -> Result<Vec<u8>, WireError> {
    use proto::request::Ask as Asked;
    let ask = match request {
        Request::Sync { vector, want } => {
            count(vector.len(), "authors in the vector", MAX_SYNC_AUTHORS)?;
            let want = want.iter().take(MAX_WANT).map(|cid| cid.digest().to_vec()).collect();
            Asked::Sync(proto::Sync { vector: counts(vector).collect(), want })
        }
        Request::Turn { tasks } => {
            Asked::Turn(proto::Tasks { task: tasks.iter().take(MAX_TURN).map(|task| task.0.to_vec()).collect() })
        }
        Request::Join { ticket } => Asked::Join(ticket_message(ticket)),
        Request::Prove { chain } => {
            Asked::Prove(proto::Proof { entry: chain.iter().map(|entry| entry.bytes().to_vec()).collect() })
        }
        Request::Presences { of } => {
            let peer = of.iter().take(MAX_PRESENCES).map(|peer| peer.public_key().to_vec()).collect();
            Asked::Presences(proto::Members { peer })
        }
        Request::Snapshot { hash, part } => Asked::Snapshot(proto::SnapshotPart { hash: hash.0.to_vec(), part: *part }),
    };
    Ok(proto::Request { ask: Some(ask) }.encode_to_vec())
}

/// Opens a request.
///
/// # Errors
/// [`WireError::Unknown`] for what a later version may ask; anything else is provably bad.
pub fn open(bytes: &[u8], mesh: &MeshId) -> Result<Ask, WireError> {
    use proto::request::Ask as Asked;
    let message: proto::Request = decode(bytes, "a request", MAX_REQUEST)?;
    Ok(Ask::Kernel(match message.ask.ok_or(WireError::Unknown)? {
        Asked::Sync(sync) => Request::Sync {
            vector: vector(sync.vector, MAX_SYNC_AUTHORS)?,
            want: set(sync.want, "entries wanted", MAX_WANT, |one| cid(&one))?,
        },
        Asked::Turn(turn) => Request::Turn { tasks: set(turn.task, "tasks", MAX_TURN, |one| task(&one))? },
        Asked::Prove(proof) => {
            let bytes = proof.entry.iter().map(Vec::len).sum();
            super::field::size(bytes, "a proof of membership", MAX_PROOF)?;
            Request::Prove { chain: super::gossip::open_all(&proof.entry, MAX_CHAIN, mesh)? }
        }
        Asked::Join(join) => Request::Join { ticket: ticket(&join)? },
        Asked::Presences(members) => {
            Request::Presences { of: set(members.peer, "members", MAX_PRESENCES, |one| peer(&one))? }
        }
        Asked::Snapshot(part) => Request::Snapshot { hash: digest(&part.hash)?, part: part.part },
        Asked::ScaleSet(ask) => return Ok(Ask::ScaleSet(scale_set::open_ask(ask)?)),
        Asked::Log(part) => {
            return Ok(Ask::Log(LogPart { task: task(&part.task)?, attempt: part.attempt, offset: part.offset }));
        }
    }))
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use std::sync::Arc;

    use super::*;
    use crate::kernel::entry::Entry;
    use crate::kernel::entry::{Signature, Ticket};
    use crate::kernel::id::{Author, Cid, Digest, Incarnation, PeerId};
    use crate::wire::field::arbitrary;
    use crate::wire::gossip::tests::{MESH, chain};

    fn opened(bytes: &[u8]) -> Result<Ask, WireError> {
        open(bytes, &MESH)
    }

    #[test]
    fn a_proof_is_read_back_and_limited() {
        let prove = |chain: &[Arc<Entry>]| Request::Prove { chain: chain.to_vec() };
        let entries = chain(&[1; MAX_CHAIN + 1]);
        let most = prove(&entries[..MAX_CHAIN]);
        assert!(opened(&seal(&most).expect("seals")) == Ok(Ask::Kernel(most)));
        let many = opened(&seal(&prove(&entries)).expect("seals"));
        assert!(matches!(many, Err(WireError::TooMany { .. })));
        let large = opened(&seal(&prove(&chain(&[60; 3]))).expect("seals"));
        assert!(matches!(large, Err(WireError::TooLarge { .. })));
    }

    fn sync(authors: usize, want: usize) -> Request {
        let digest = |n: usize| *Cid::of(&n.to_be_bytes()).digest();
        let author = |n| Author { peer: PeerId::from_public_key(digest(n)), incarnation: Incarnation(n as u64) };
        Request::Sync {
            vector: (0..authors).map(|n| (author(n), u64::MAX)).collect(),
            want: (0..want).map(|n| Cid::from_digest(digest(n))).collect(),
        }
    }

    #[test]
    fn the_largest_request_fits() {
        let largest = sync(MAX_SYNC_AUTHORS, MAX_WANT);
        let bytes = seal(&largest).expect("seals");
        assert!(bytes.len() <= MAX_REQUEST, "{}", bytes.len());
        assert_eq!(opened(&bytes), Ok(Ask::Kernel(largest)));
    }

    #[test]
    fn limits_hold() {
        assert!(matches!(seal(&sync(MAX_SYNC_AUTHORS + 1, 0)), Err(WireError::TooMany { .. })));
        let cut = opened(&seal(&sync(0, MAX_WANT + 1)).expect("seals")).expect("opens");
        assert!(matches!(cut, Ask::Kernel(Request::Sync { want, .. }) if want.len() == MAX_WANT));
        let ask = |ask| opened(&proto::Request { ask: Some(ask) }.encode_to_vec());
        let many = |count: usize| (0..count).map(|n| Cid::of(&n.to_be_bytes()).digest().to_vec()).collect::<Vec<_>>();
        let wanted = proto::Sync { vector: Vec::new(), want: many(MAX_WANT + 1) };
        assert!(matches!(ask(proto::request::Ask::Sync(wanted)), Err(WireError::TooMany { .. })));
        let turn = proto::Tasks { task: many(MAX_TURN + 1) };
        assert!(matches!(ask(proto::request::Ask::Turn(turn)), Err(WireError::TooMany { .. })));
        let twice = proto::Tasks { task: vec![vec![1; 32]; 2] };
        assert!(matches!(ask(proto::request::Ask::Turn(twice)), Err(WireError::Repeated { .. })));
        assert!(matches!(opened(&vec![0; MAX_REQUEST + 1]), Err(WireError::TooLarge { .. })));
        let members = proto::Members { peer: many(MAX_PRESENCES + 1) };
        assert!(matches!(ask(proto::request::Ask::Presences(members)), Err(WireError::TooMany { .. })));
        let vector = (0..=MAX_SYNC_AUTHORS as u64)
            .map(|n| proto::Count { peer: vec![1; 32], incarnation: n, sequence: 0 })
            .collect();
        let long = proto::Sync { vector, want: Vec::new() };
        assert!(matches!(ask(proto::request::Ask::Sync(long)), Err(WireError::TooMany { .. })));
    }

    #[test]
    fn what_a_later_version_asks_is_not_a_fault() {
        // Field 15, an empty message.
        assert_eq!(opened(&[0x7a, 0x00]), Err(WireError::Unknown));
        assert!(!WireError::Unknown.is_provably_bad());
    }

    fn any_request() -> impl Strategy<Value = Request> {
        let ticket = (any::<u64>(), any::<u64>(), any::<[u8; 32]>()).prop_map(|(id, expires_ms, half)| {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&half);
            Ticket { id, expires_ms, labels: None, signature: Signature(signature) }
        });
        prop_oneof![
            (arbitrary::vector(), btree_set(arbitrary::cid(), 0..9))
                .prop_map(|(vector, want)| Request::Sync { vector, want }),
            btree_set(arbitrary::task(), 0..9).prop_map(|tasks| Request::Turn { tasks }),
            btree_set(arbitrary::peer(), 0..9).prop_map(|of| Request::Presences { of }),
            ticket.prop_map(|ticket| Request::Join { ticket }),
            (any::<[u8; 32]>(), any::<u32>()).prop_map(|(hash, part)| Request::Snapshot { hash: Digest(hash), part }),
        ]
    }

    proptest! {
        #[test]
        fn every_request_is_read_back(request in any_request()) {
            prop_assert_eq!(opened(&seal(&request).expect("seals")), Ok(Ask::Kernel(request)));
        }

        #[test]
        fn every_question_about_a_log_is_read_back(task in arbitrary::task(), attempt: u32, offset: u64) {
            let part = LogPart { task, attempt, offset };
            prop_assert_eq!(opened(&seal_log(&part)), Ok(Ask::Log(part)));
        }

        #[test]
        fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..300)) {
            let _ = opened(&bytes);
        }
    }
}
