//! Entries through the kernel: opened from bytes, folded at a start, merged as they come from peers.

use std::hint::black_box;

use runmesh::kernel::entry::Signature;
use runmesh::kernel::id::PeerId;
use runmesh::kernel::io::{Input, Now};
use runmesh::kernel::node::{Entrance, Node, Settings, Timings};
use runmesh::wire;

use super::Outcome;
use super::history::History;
use super::measure::{rate, side_by_side};
use super::report::{Goal, Row};

const MEMBERS: usize = 20;
const ENTRIES: usize = 20_000;
/// Entries that come together: the daemon takes at most so many happenings at once.
const TOGETHER: usize = 64;

pub(crate) fn speed() -> Outcome<Vec<Row>> {
    let history = History::of(MEMBERS, ENTRIES)?;
    let (entries, mesh) = (&history.entries, history.mesh());
    let message = vec![7; entries.iter().map(|entry| entry.bytes().len()).sum::<usize>() / entries.len()];
    let key = &history.keys[0];
    let signature = Signature(ed25519_dalek::Signer::sign(key, &message).to_bytes());
    let public = key.verifying_key().to_bytes();
    let mut at = 0;
    let open = || {
        Ok(rate(|| {
            for _ in 0..TOGETHER {
                at = (at + 1) % entries.len();
                black_box(wire::entry::open(entries[at].bytes(), &mesh).is_ok());
            }
            TOGETHER
        }))
    };
    let check = || {
        Ok(rate(|| {
            for _ in 0..TOGETHER {
                black_box(signature.is_by(&public, black_box(&message)));
            }
            TOGETHER
        }))
    };
    let (open, floor) =
        side_by_side(Box::new(open), vec![("one Ed25519 check an entry and nothing else", Box::new(check))])?;
    let fold = || {
        Ok(rate(|| {
            black_box(node(&history, entries.clone()));
            entries.len()
        }))
    };
    let (fold, _) = side_by_side(Box::new(fold), Vec::new())?;
    let merge = || {
        Ok(rate(|| {
            let mut node = node(&history, Vec::new());
            let from = PeerId::from_public_key(public);
            for (n, together) in entries.chunks(TOGETHER).enumerate() {
                let now = Now { mono: 10 + n as u64, wall: 1_700_000_000_000 };
                black_box(node.handle(now, Input::Entries { from, entries: together.to_vec() }));
            }
            entries.len()
        }))
    };
    let (merge, _) = side_by_side(Box::new(merge), Vec::new())?;
    let mut rows = Row::beside("open_entries_per_s", "/s", Goal::None, open, &floor);
    rows.push(Row::alone("fold_entries_per_s", "/s", Goal::None, fold));
    rows.push(Row::alone("merge_entries_per_s", "/s", Goal::None, merge));
    Ok(rows)
}

/// The last member's node, with these entries on its disk.
fn node(history: &History, kept: Vec<std::sync::Arc<runmesh::kernel::entry::Entry>>) -> Node {
    let settings = Settings {
        key: history.keys[MEMBERS - 1].clone(),
        mesh: history.mesh(),
        entrance: Entrance::None,
        seed: 1,
        timings: Timings::default(),
        attempts: 3,
        version: "bench".to_owned(),
    };
    Node::new(Now { mono: 1, wall: 1_700_000_000_000 }, settings, kept).0
}
