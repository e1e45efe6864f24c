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

/// Entries that wait for parents.
#[derive(Debug, Default)]
pub struct Quarantine {
    waiting: BTreeMap<Cid, (Arc<Entry>, PeerId, BTreeSet<Cid>)>,
    by_missing: BTreeMap<Cid, BTreeSet<Cid>>,
    of_one: BTreeMap<PeerId, usize>,
    bytes: usize,
}

impl Quarantine {
    /// Keeps an entry until all of `missing` are here. `false` when there is no room for it.
    pub fn keep(&mut self, entry: Arc<Entry>, from: PeerId, missing: Vec<Cid>) -> bool {
        if self.waiting.contains_key(&entry.cid()) {
            return true;
        }
        let size = entry.bytes().len();
        let of_one = self.of_one.get(&from).copied().unwrap_or(0);
        if self.waiting.len() >= MAX_WAITING || of_one >= MAX_WAITING_OF_ONE || self.bytes + size > MAX_WAITING_BYTES {
            return false;
        }
        self.bytes += size;
        *self.of_one.entry(from).or_default() += 1;
        for cid in &missing {
            self.by_missing.entry(*cid).or_default().insert(entry.cid());
        }
        self.waiting.insert(entry.cid(), (entry, from, missing.into_iter().collect()));
        true
    }

    /// An entry is here: gives back those that waited for nothing else.
    pub fn arrived(&mut self, cid: &Cid) -> Vec<(Arc<Entry>, PeerId)> {
        let mut free = Vec::new();
        for child in self.by_missing.remove(cid).unwrap_or_default() {
            let ready = self.waiting.get_mut(&child).is_some_and(|(_, _, missing)| {
                missing.remove(cid);
                missing.is_empty()
            });
            if ready && let Some((entry, from, _)) = self.take(&child) {
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
                if self.take(&child).is_some() {
                    gone.push(child);
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

    fn take(&mut self, cid: &Cid) -> Option<(Arc<Entry>, PeerId, BTreeSet<Cid>)> {
        let (entry, from, missing) = self.waiting.remove(cid)?;
        self.bytes -= entry.bytes().len();
        if let Some(count) = self.of_one.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                self.of_one.remove(&from);
            }
        }
        for parent in &missing {
            if let Some(children) = self.by_missing.get_mut(parent) {
                children.remove(cid);
                if children.is_empty() {
                    self.by_missing.remove(parent);
                }
            }
        }
        Some((entry, from, missing))
    }
}
