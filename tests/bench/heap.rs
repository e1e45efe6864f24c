//! The queue's heap beside what the standard library has.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::hint::black_box;

use runmesh::kernel::entry::Hlc;
use runmesh::kernel::id::{Digest, TaskId};
use runmesh::kernel::queue::{Heap, Key};
use runmesh::kernel::task::Priority;

use super::Outcome;
use super::measure::{rate, side_by_side};
use super::report::{Goal, Row};

/// Tasks that wait at once.
const WAITING: u64 = 10_000;

/// A waiting task, and the key it has once somebody has made it more urgent, if anybody does.
struct Waiting {
    key: Key,
    ahead: Option<Key>,
}

/// All are put in, half of them move ahead, all are taken out: an operation each.
pub(crate) fn speed() -> Outcome<Vec<Row>> {
    let waiting: Vec<Waiting> = (0..WAITING).map(|n| one(n)).collect::<Result<_, _>>()?;
    let operations = waiting.len() * 2 + waiting.iter().filter(|waiting| waiting.ahead.is_some()).count();
    let ours = || {
        Ok(rate(|| {
            let mut heap = Heap::new();
            let handles: Vec<_> = waiting.iter().map(|waiting| heap.insert(waiting.key, ())).collect();
            for (waiting, handle) in waiting.iter().zip(handles) {
                if let Some(ahead) = waiting.ahead {
                    black_box(heap.decrease(handle, ahead).is_ok());
                }
            }
            while let Some(first) = heap.pop() {
                black_box(first);
            }
            operations
        }))
    };
    let tree = || {
        Ok(rate(|| {
            let mut tree: BTreeSet<Key> = BTreeSet::new();
            for waiting in &waiting {
                tree.insert(waiting.key);
            }
            for waiting in &waiting {
                if let Some(ahead) = waiting.ahead {
                    tree.remove(&waiting.key);
                    tree.insert(ahead);
                }
            }
            while let Some(first) = tree.pop_first() {
                black_box(first);
            }
            operations
        }))
    };
    // It cannot move anything: the new key goes in beside the old one, which is passed over when it comes out.
    let binary = || {
        Ok(rate(|| {
            let mut heap = BinaryHeap::new();
            let mut present: Vec<Key> = waiting.iter().map(|waiting| waiting.key).collect();
            for (n, key) in present.iter().enumerate() {
                heap.push(Reverse((*key, n)));
            }
            for (n, waiting) in waiting.iter().enumerate() {
                if let Some(ahead) = waiting.ahead {
                    present[n] = ahead;
                    heap.push(Reverse((ahead, n)));
                }
            }
            while let Some(Reverse((key, n))) = heap.pop() {
                if present[n] == key {
                    black_box(key);
                }
            }
            operations
        }))
    };
    let rivals: Vec<(_, super::measure::Side<'_>)> =
        vec![("std BTreeSet", Box::new(tree)), ("std BinaryHeap, old keys passed over", Box::new(binary))];
    let (ours, rivals) = side_by_side(Box::new(ours), rivals)?;
    Ok(Row::beside("heap_ops_per_s", "/s", Goal::None, ours, &rivals))
}

fn one(n: u64) -> Result<Waiting, String> {
    let chance = Digest::of(&[&n.to_be_bytes()]).0;
    let introduced =
        Hlc { ms: 1_700_000_000_000 + u64::from(u32::from_be_bytes([0, chance[1], chance[2], chance[3]])), count: 0 };
    let (number, task) = (1 + chance[0] % 10, TaskId(chance));
    let key = Key::of(Priority::new(number)?, introduced, task);
    let ahead = if chance[4] % 2 == 0 && number < 10 { Some(Key::of(Priority::MOST, introduced, task)) } else { None };
    Ok(Waiting { key, ahead })
}
