//! The answers to requests. Pages are made of stored bytes as they are, without opening them.

use prost::Message as _;

use super::field::{clip, decode, digest, set, task, text};
use super::gossip::open_all;
use super::limits::{
    MAX_LOG_PIECE, MAX_PAGE, MAX_PAGE_ENTRIES, MAX_PARTS, MAX_PRESENCES, MAX_RESPONSE, MAX_TURN, MAX_WHY, PART,
};
use super::scale_set::{self, SetTold};
use super::{WireError, presence, proto};
use crate::kernel::id::{Digest, MeshId, TaskId};
use crate::kernel::io::Response;
use proto::response::Answer;

/// What a node can be answered: something for its kernel, or something else that it asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    Kernel(Response),
    Log(LogPiece),
    ScaleSet(SetTold),
}

/// What stands in a log from the byte that was asked for, as far as it goes now; at most [`MAX_LOG_PIECE`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPiece {
    pub bytes: Vec<u8>,
    /// No more will be written, and nothing stands behind these bytes.
    pub ended: bool,
}

/// A page of entries, sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// What to send.
    pub bytes: Vec<u8>,
    /// How many of the entries are in it, counted from the first.
    pub entries: usize,
    /// Whether it says that there is more.
    pub more: bool,
}

/// Seals as many of the entries as a page holds, in their order. It says `more` when told to, and when it had to cut.
/// Reading stops with the first entry that does not fit. One entry always fits.
pub fn seal_page(entries: impl IntoIterator<Item = impl AsRef<[u8]>>, more: bool) -> Page {
    let mut page = proto::Page { entry: Vec::new(), more };
    let mut size = 0;
    for entry in entries {
        let entry = entry.as_ref();
        if page.entry.len() == MAX_PAGE_ENTRIES || size + entry.len() > MAX_PAGE {
            page.more = true;
            break;
        }
        size += entry.len();
        page.entry.push(entry.to_vec());
    }
    let (entries, more) = (page.entry.len(), page.more);
    Page { bytes: seal(Answer::Page(page)), entries, more }
}

/// The answer to a question of turn. Of more tasks than can have been asked for, the first are named.
pub fn seal_turn<'a>(mine: impl IntoIterator<Item = &'a TaskId>) -> Vec<u8> {
    seal(Answer::Turn(proto::Tasks { task: mine.into_iter().take(MAX_TURN).map(|task| task.0.to_vec()).collect() }))
}

/// The asker is a member now.
pub fn seal_admitted() -> Vec<u8> {
    seal(Answer::Admitted(proto::Admitted {}))
}

/// What the asker lacks was dropped; the snapshot of this hash stands for it.
pub fn seal_beneath(hash: &Digest, parts: u32) -> Vec<u8> {
    seal(Answer::Beneath(proto::Beneath { hash: hash.0.to_vec(), parts }))
}

/// A part of a snapshot, of so many. At most [`PART`] bytes.
pub fn seal_part(bytes: Vec<u8>, parts: u32) -> Vec<u8> {
    seal(Answer::Part(proto::Part { bytes, parts }))
}

/// A piece of a log.
pub fn seal_log(piece: LogPiece) -> Vec<u8> {
    seal(Answer::Log(proto::LogPiece { bytes: piece.bytes, ended: piece.ended }))
}

/// Presences as their peers signed them, each with how many milliseconds ago it was heard: as many as a page holds, in
/// their order.
pub fn seal_presences<'a>(heard: impl IntoIterator<Item = (&'a [u8], u64)>) -> Vec<u8> {
    let mut size = 0;
    let fits = |(bytes, _): &(&[u8], u64)| {
        size += bytes.len();
        size <= MAX_PAGE
    };
    let heard = heard.into_iter().take(MAX_PRESENCES).take_while(fits);
    let heard = heard.map(|(bytes, ago_ms)| proto::HeardPresence { signed: bytes.to_vec(), ago_ms });
    seal(Answer::Presences(proto::Presences { heard: heard.collect() }))
}

/// No, and why; what is beyond [`MAX_WHY`] is cut off.
pub fn seal_refused(why: &str) -> Vec<u8> {
    seal(Answer::Refused(proto::Refused { why: clip(why, MAX_WHY) }))
}

/// Opens a response. All entries of a page are opened, which takes about 60 µs each: not to be done between two
/// heartbeats of something that must not wait.
///
/// # Errors
/// [`WireError::Unknown`] for what a later version may answer, [`WireError::ForeignMesh`]; anything else is provably bad.
pub fn open(bytes: &[u8], mesh: &MeshId) -> Result<Told, WireError> {
    let message: proto::Response = decode(bytes, "a response", MAX_RESPONSE)?;
    Ok(Told::Kernel(match message.answer.ok_or(WireError::Unknown)? {
        Answer::Page(page) => {
            let bytes = page.entry.iter().map(Vec::len).sum();
            super::field::size(bytes, "a page", MAX_PAGE)?;
            Response::Page { entries: open_all(&page.entry, MAX_PAGE_ENTRIES, mesh)?, more: page.more }
        }
        Answer::Turn(turn) => Response::Turn { mine: set(turn.task, "tasks", MAX_TURN, |one| task(&one))? },
        Answer::Admitted(proto::Admitted {}) => Response::Admitted,
        Answer::Beneath(beneath) => Response::Beneath { hash: digest(&beneath.hash)?, parts: limited(beneath.parts)? },
        Answer::Part(part) => {
            super::field::size(part.bytes.len(), "a part of a snapshot", PART)?;
            Response::Part { bytes: part.bytes, parts: limited(part.parts)? }
        }
        Answer::Presences(presences) => {
            super::field::count(presences.heard.len(), "presences", MAX_PRESENCES)?;
            super::field::size(presences.heard.iter().map(|one| one.signed.len()).sum(), "presences", MAX_PAGE)?;
            let heard = presences.heard.iter().map(|one| Ok((presence::open_signed(&one.signed, mesh)?, one.ago_ms)));
            Response::Presences { heard: heard.collect::<Result<_, WireError>>()? }
        }
        Answer::Refused(refused) => Response::Refused { why: text(refused.why, "a reason", MAX_WHY)? },
        Answer::ScaleSet(told) => return Ok(Told::ScaleSet(scale_set::open_told(told)?)),
        Answer::Log(proto::LogPiece { bytes, ended }) => {
            super::field::size(bytes.len(), "a piece of a log", MAX_LOG_PIECE)?;
            return Ok(Told::Log(LogPiece { bytes, ended }));
        }
    }))
}

fn limited(parts: u32) -> Result<u32, WireError> {
    super::field::count(parts as usize, "parts of a snapshot", MAX_PARTS as usize).map(|()| parts)
}

fn seal(answer: Answer) -> Vec<u8> {
    proto::Response { answer: Some(answer) }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;
    use crate::wire::field::arbitrary;
    use crate::wire::gossip::tests::{MESH, chain};

    #[test]
    fn a_page_is_read_back() {
        let entries = chain(&[1, 2, 3]);
        for more in [false, true] {
            let page = seal_page(entries.iter().map(|entry| entry.bytes()), more);
            assert_eq!((page.entries, page.more), (3, more));
            assert_eq!(open(&page.bytes, &MESH), Ok(Told::Kernel(Response::Page { entries: entries.clone(), more })));
        }
        let empty = seal_page(std::iter::empty::<&[u8]>(), false);
        assert_eq!(open(&empty.bytes, &MESH), Ok(Told::Kernel(Response::Page { entries: Vec::new(), more: false })));
    }

    #[test]
    fn a_full_page_is_cut_and_says_so() {
        // 64 KiB, sixteen to a page.
        let page = seal_page((0..20).map(|_| vec![0; 64 * 1024]), false);
        assert_eq!((page.entries, page.more), (16, true));
        assert!(page.bytes.len() <= MAX_RESPONSE);
        let page = seal_page((0..=MAX_PAGE_ENTRIES).map(|_| [0; 10]), false);
        assert_eq!((page.entries, page.more), (MAX_PAGE_ENTRIES, true));
        let page = seal_page((0..MAX_PAGE_ENTRIES).map(|_| [0; 10]), false);
        assert_eq!((page.entries, page.more), (MAX_PAGE_ENTRIES, false));
    }

    #[test]
    fn a_snapshot_is_named_and_its_parts_are_read_back() {
        let hash = Digest([7; 32]);
        assert_eq!(open(&seal_beneath(&hash, 3), &MESH), Ok(Told::Kernel(Response::Beneath { hash, parts: 3 })));
        let bytes = vec![9; PART];
        let sealed = seal_part(bytes.clone(), MAX_PARTS);
        assert!(sealed.len() <= MAX_RESPONSE);
        assert!(open(&sealed, &MESH) == Ok(Told::Kernel(Response::Part { bytes, parts: MAX_PARTS })));
    }

    #[test]
    fn a_piece_of_a_log_is_read_back() {
        let piece = LogPiece { bytes: vec![7; MAX_LOG_PIECE], ended: true };
        assert!(open(&seal_log(piece.clone()), &MESH) == Ok(Told::Log(piece)));
        let long = LogPiece { bytes: vec![7; MAX_LOG_PIECE + 1], ended: false };
        assert!(matches!(open(&seal_log(long), &MESH), Err(WireError::TooLarge { .. })));
    }

    #[test]
    fn limits_hold() {
        assert!(matches!(open(&vec![0; MAX_RESPONSE + 1], &MESH), Err(WireError::TooLarge { .. })));
        let page = |entry| open(&seal(Answer::Page(proto::Page { entry, more: false })), &MESH);
        assert!(matches!(page(vec![vec![0; MAX_PAGE], vec![0]]), Err(WireError::TooLarge { .. })));
        assert!(matches!(page(vec![Vec::new(); MAX_PAGE_ENTRIES + 1]), Err(WireError::TooMany { .. })));
        assert!(page(vec![b"not an entry".to_vec()]).is_err_and(|error| error.is_provably_bad()));
        let why = "é".repeat(MAX_WHY);
        let Ok(Told::Kernel(Response::Refused { why: cut })) = open(&seal_refused(&why), &MESH) else {
            panic!("a refusal")
        };
        assert_eq!(cut.len(), MAX_WHY);
        let long = seal(Answer::Refused(proto::Refused { why }));
        assert!(matches!(open(&long, &MESH), Err(WireError::TooLarge { .. })));
        let many = (0..=MAX_TURN as u64).map(|n| [[0; 24].as_slice(), &n.to_be_bytes()].concat()).collect();
        let turn = seal(Answer::Turn(proto::Tasks { task: many }));
        assert!(matches!(open(&turn, &MESH), Err(WireError::TooMany { .. })));
        assert!(matches!(open(&seal_part(vec![0; PART + 1], 2), &MESH), Err(WireError::TooLarge { .. })));
        assert!(matches!(open(&seal_part(vec![0], MAX_PARTS + 1), &MESH), Err(WireError::TooMany { .. })));
        assert!(matches!(open(&seal_beneath(&Digest([1; 32]), u32::MAX), &MESH), Err(WireError::TooMany { .. })));
        let short = seal(Answer::Beneath(proto::Beneath { hash: vec![1; 31], parts: 1 }));
        assert!(open(&short, &MESH).is_err_and(|error| error.is_provably_bad()));
        assert_eq!(open(&[], &MESH), Err(WireError::Unknown));
    }

    proptest! {
        #[test]
        fn every_small_answer_is_read_back(mine in btree_set(arbitrary::task(), 0..9), why in "[a-zé ]{0,40}") {
            let mine: BTreeSet<TaskId> = mine;
            prop_assert_eq!(open(&seal_turn(&mine), &MESH), Ok(Told::Kernel(Response::Turn { mine })));
            prop_assert_eq!(open(&seal_refused(&why), &MESH), Ok(Told::Kernel(Response::Refused { why })));
            prop_assert_eq!(open(&seal_admitted(), &MESH), Ok(Told::Kernel(Response::Admitted)));
        }

        #[test]
        fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..300)) {
            let _ = open(&bytes, &MESH);
        }
    }
}
