//! Entries whose parents are missing, until those come.
//!
//! Bounded in all and for each peer that brought them: what falls out is fetched again by sync, which is the truth;
//! the quarantine only saves the round trip.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::entry::Entry;
use super::id::{Cid, PeerId};

/// The most entries that wait at once. Own choice: a few pages of sync.
pub const MAX_WAITING: usize = 4096;
/// The most entries of one bringer that wait at once, so that no peer can push out what others brought.
pub const MAX_WAITING_OF_ONE: usize = 1024;
/// The most bytes that wait at once.
pub const MAX_WAITING_BYTES: usize = 16 << 20;

/// An entry, who brought it, and how many of its parents are missing.
type Waiting = (Arc<Entry>, PeerId, usize);

/// Entries that wait for parents.
#[derive(Debug, Default)]
pub struct Quarantine {
    waiting: BTreeMap<Cid, Waiting>,
    /// What stands on each entry that is missing. In a large mesh most entries name many parents.
    by_missing: BTreeMap<Cid, Vec<Arc<Entry>>>,
    of_one: BTreeMap<PeerId, usize>,
    bytes: usize,
}

impl Quarantine {
    /// Keeps an entry until all of `missing`, which are parents of it, are here. `false` when there is no room for it; one that others wait for gets
    /// that of one which its bringer brought and nothing waits for.
    pub fn keep(&mut self, entry: Arc<Entry>, from: PeerId, missing: Vec<Cid>) -> bool {
        if self.waiting.contains_key(&entry.cid()) {
            return true;
        }
        let size = entry.bytes().len();
        if !self.has_room(size, &from) && self.wants(&entry.cid()) {
            let is_idle = |(cid, (_, by, _)): &(&Cid, &Waiting)| *by == from && !self.by_missing.contains_key(cid);
            let idle = self.waiting.iter().find(is_idle).map(|(cid, _)| *cid);
            idle.and_then(|cid| self.take(&cid));
        }
        if !self.has_room(size, &from) {
            return false;
        }
        self.bytes += size;
        *self.of_one.entry(from).or_default() += 1;
        for cid in &missing {
            self.by_missing.entry(*cid).or_default().push(entry.clone());
        }
        self.waiting.insert(entry.cid(), (entry, from, missing.len()));
        true
    }

    fn has_room(&self, size: usize, from: &PeerId) -> bool {
        let of_one = self.of_one.get(from).copied().unwrap_or(0);
        self.waiting.len() < MAX_WAITING && of_one < MAX_WAITING_OF_ONE && self.bytes + size <= MAX_WAITING_BYTES
    }

    /// An entry is here: gives back those that waited for nothing else.
    pub fn arrived(&mut self, cid: &Cid) -> Vec<(Arc<Entry>, PeerId)> {
        let mut free = Vec::new();
        for child in self.by_missing.remove(cid).unwrap_or_default() {
            let ready = self.waiting.get_mut(&child.cid()).is_some_and(|(_, _, missing)| {
                *missing -= 1;
                *missing == 0
            });
            if ready && let Some((entry, from, _)) = self.take(&child.cid()) {
                free.push((entry, from));
            }
        }
        free
    }

    /// An entry will never be here: everything that stands on it goes too.
    pub fn refused(&mut self, cid: &Cid) {
        let mut gone = vec![*cid];
        while let Some(cid) = gone.pop() {
            for child in self.by_missing.remove(&cid).unwrap_or_default() {
                if self.take(&child.cid()).is_some() {
                    gone.push(child.cid());
                }
            }
        }
    }

    /// Whether something waits for this entry.
    pub fn wants(&self, cid: &Cid) -> bool {
        self.by_missing.contains_key(cid)
    }

    /// The entries that are waited for and do not wait themselves: what to ask for by name. At most `limit`.
    pub fn missing(&self, limit: usize) -> BTreeSet<Cid> {
        self.by_missing.keys().filter(|cid| !self.waiting.contains_key(cid)).take(limit).copied().collect()
    }

    pub fn contains(&self, cid: &Cid) -> bool {
        self.waiting.contains_key(cid)
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn take(&mut self, cid: &Cid) -> Option<Waiting> {
        let (entry, from, missing) = self.waiting.remove(cid)?;
        let parents = if missing > 0 { entry.body().parents.as_slice() } else { &[] };
        self.bytes -= entry.bytes().len();
        if let Some(count) = self.of_one.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                self.of_one.remove(&from);
            }
        }
        for parent in parents {
            if let Some(children) = self.by_missing.get_mut(parent) {
                children.retain(|child| child.cid() != *cid);
                if children.is_empty() {
                    self.by_missing.remove(parent);
                }
            }
        }
        Some((entry, from, missing))
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::kernel::entry::{Body, Cancel, Event, FORMAT, Hlc};
    use crate::kernel::id::{Author, Incarnation, MeshId, TaskId};

    fn peer(number: u8) -> PeerId {
        PeerId::from_public_key([number; 32])
    }

    /// An entry with that number and a text of so many bytes.
    fn entry(number: u64, bytes: usize) -> Arc<Entry> {
        let key = SigningKey::from_bytes(&[1; 32]);
        let cancel = Cancel { task: TaskId([0; 32]), why: "w".repeat(bytes) };
        let body = Body {
            format: FORMAT,
            mesh: MeshId([0; 32]),
            author: Author {
                peer: PeerId::from_public_key(key.verifying_key().to_bytes()),
                incarnation: Incarnation(1),
            },
            sequence: number,
            parents: vec![parent(number)],
            time: Hlc::default(),
            events: vec![Event::Cancel(cancel)],
        };
        Arc::new(Entry::seal(body, &key))
    }

    fn parent(number: u64) -> Cid {
        Cid::of(&number.to_be_bytes())
    }

    fn keep(quarantine: &mut Quarantine, number: u64, bytes: usize, from: u8) -> bool {
        quarantine.keep(entry(number, bytes), peer(from), vec![parent(number)])
    }

    #[test]
    fn one_bringer_fills_its_share_and_no_more_and_gets_room_as_its_entries_leave() {
        let (mut quarantine, share) = (Quarantine::default(), MAX_WAITING_OF_ONE as u64);
        for number in 0..share {
            assert!(keep(&mut quarantine, number, 0, 1));
        }
        assert!(!keep(&mut quarantine, share, 0, 1) && keep(&mut quarantine, share, 0, 2));
        // What waits already is kept whoever brings it again.
        assert!(keep(&mut quarantine, 0, 0, 1));
        assert_eq!(quarantine.arrived(&parent(3)).len(), 1);
        assert!(keep(&mut quarantine, share + 1, 0, 1) && !keep(&mut quarantine, share + 2, 0, 1));
        quarantine.refused(&parent(4));
        assert!(keep(&mut quarantine, share + 2, 0, 1) && !keep(&mut quarantine, share + 3, 0, 1));
    }

    #[test]
    fn one_that_others_wait_for_gets_the_room_of_one_that_nobody_waits_for() {
        let (mut quarantine, share) = (Quarantine::default(), MAX_WAITING_OF_ONE as u64);
        let wanted = entry(share, 0);
        for number in 0..share {
            assert!(quarantine.keep(entry(number, 0), peer(1), vec![wanted.cid()]));
        }
        assert!(!keep(&mut quarantine, share + 1, 0, 1), "its bringer's share is full");
        assert!(quarantine.keep(wanted.clone(), peer(1), vec![parent(share)]));
        assert!(quarantine.contains(&wanted.cid()) && quarantine.len() == MAX_WAITING_OF_ONE);
        assert_eq!(quarantine.missing(usize::MAX), [parent(share)].into(), "it is asked for what this one lacks");
        assert_eq!(quarantine.arrived(&parent(share)).len(), 1);
        assert_eq!(quarantine.arrived(&wanted.cid()).len(), MAX_WAITING_OF_ONE - 1);
    }

    #[test]
    fn all_bringers_together_fill_so_many_places_and_no_more() {
        let mut quarantine = Quarantine::default();
        for number in 0..MAX_WAITING as u64 {
            assert!(keep(&mut quarantine, number, 0, 1 + (number % 8) as u8));
        }
        assert!(!keep(&mut quarantine, MAX_WAITING as u64, 0, 9));
        assert_eq!((quarantine.len(), quarantine.missing(usize::MAX).len()), (MAX_WAITING, MAX_WAITING));
        quarantine.refused(&parent(0));
        assert!(keep(&mut quarantine, MAX_WAITING as u64, 0, 9) && quarantine.len() == MAX_WAITING);
    }

    #[test]
    fn so_many_bytes_wait_and_no_more() {
        let (mut quarantine, mut number, size) = (Quarantine::default(), 0, 60_000);
        while keep(&mut quarantine, number, size, 1 + (number % 8) as u8) {
            number += 1;
        }
        let held: usize = (0..number).map(|number| entry(number, size).bytes().len()).sum();
        assert!(held <= MAX_WAITING_BYTES && held + size + 1_000 > MAX_WAITING_BYTES, "{held}");
        quarantine.arrived(&parent(0));
        assert!(keep(&mut quarantine, number, size, 1));
    }
}
