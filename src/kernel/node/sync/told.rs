//! Heads that peers have named and that are not here.

use std::collections::{BTreeMap, BTreeSet};

use crate::kernel::id::{Cid, PeerId};

/// The most that are remembered.
const MAX_TOLD: usize = 4096;
/// A head that nobody could deliver after so many questions is not waited for any longer.
pub(super) const MAX_ASKED: u32 = 3;

#[derive(Debug, Clone, Copy)]
struct Head {
    by: PeerId,
    asked: u32,
    /// When it was told of first, in milliseconds.
    since: u64,
}

/// What peers have told of. Each head stands under the first that named it.
#[derive(Debug, Default)]
pub(super) struct Told {
    heads: BTreeMap<Cid, Head>,
    /// The same by who named them.
    tellers: BTreeMap<PeerId, BTreeSet<Cid>>,
    /// How many of them are still waited for.
    awaited: usize,
}

impl Told {
    /// A peer names a head that is not here, at that time. `true` when it is waited for.
    pub(super) fn note(&mut self, head: Cid, by: PeerId, now: u64) -> bool {
        if let Some(known) = self.heads.get(&head) {
            return known.asked < MAX_ASKED;
        }
        if self.is_full() {
            return false;
        }
        self.heads.insert(head, Head { by, asked: 0, since: now });
        self.tellers.entry(by).or_default().insert(head);
        self.awaited += 1;
        true
    }

    /// The head is here, or never will be.
    pub(super) fn remove(&mut self, head: &Cid) {
        let Some(Head { by, asked, .. }) = self.heads.remove(head) else { return };
        self.awaited -= usize::from(asked < MAX_ASKED);
        if let Some(of_it) = self.tellers.get_mut(&by) {
            of_it.remove(head);
            if of_it.is_empty() {
                self.tellers.remove(&by);
            }
        }
    }

    /// A peer has these heads now: what else it had named was not delivered and is not there any more. `true` when there
    /// was any such.
    pub(super) fn leave_out(&mut self, peer: &PeerId, heads: &BTreeSet<Cid>) -> bool {
        let Some(named) = self.tellers.get(peer) else { return false };
        let gone: Vec<Cid> = named.difference(heads).copied().collect();
        gone.iter().for_each(|head| self.remove(head));
        !gone.is_empty()
    }

    /// A peer has given all it has: those that are still not here have been asked for in vain once more.
    pub(super) fn ask_in_vain(&mut self) {
        for head in self.heads.values_mut() {
            head.asked += 1;
            self.awaited -= usize::from(head.asked == MAX_ASKED);
        }
    }

    /// Those that are still waited for.
    pub(super) fn awaited(&self) -> impl Iterator<Item = Cid> {
        self.heads.iter().filter(|(_, head)| head.asked < MAX_ASKED).map(|(cid, _)| *cid)
    }

    /// Whether any is still waited for.
    pub(super) const fn awaits_any(&self) -> bool {
        self.awaited > 0
    }

    /// Whether any is still waited for that was told of so long ago, in milliseconds.
    pub(super) fn awaits_any_since(&self, now: u64, age: u64) -> bool {
        self.awaits_any() && self.heads.values().any(|head| head.asked < MAX_ASKED && head.since + age <= now)
    }

    /// Who has named those that are still waited for.
    pub(super) fn tellers_of_awaited(&self) -> BTreeSet<PeerId> {
        self.heads.values().filter(|head| head.asked < MAX_ASKED).map(|head| head.by).collect()
    }

    /// Who has named any of them.
    pub(super) fn tellers(&self) -> impl Iterator<Item = &PeerId> {
        self.tellers.keys()
    }

    pub(super) fn is_teller(&self, peer: &PeerId) -> bool {
        self.tellers.contains_key(peer)
    }

    pub(super) fn is_full(&self) -> bool {
        self.heads.len() >= MAX_TOLD
    }

    pub(super) fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.heads.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_waited_for_until_they_come_or_were_asked_for_in_vain_too_often() {
        let (cids, peers) = ([1, 2, 3].map(|n: u8| Cid::of(&[n])), [1, 2].map(|n| PeerId::from_public_key([n; 32])));
        let mut told = Told::default();
        assert!(told.note(cids[0], peers[0], 1) && told.note(cids[0], peers[1], 2) && told.note(cids[1], peers[1], 3));
        assert_eq!(
            told.tellers().collect::<Vec<_>>(),
            peers.iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
        );
        assert!(told.awaits_any_since(11, 10) && !told.awaits_any_since(10, 10), "told of at 1 first");
        told.remove(&cids[0]);
        told.remove(&cids[0]);
        assert!(told.awaits_any_since(13, 10) && !told.awaits_any_since(12, 10));
        assert!(told.awaits_any() && !told.is_teller(&peers[0]) && told.len() == 1);
        (0..MAX_ASKED).for_each(|_| told.ask_in_vain());
        assert!(!told.awaits_any() && !told.note(cids[1], peers[1], 3) && told.awaited().count() == 0);
        assert!(told.tellers_of_awaited().is_empty() && told.is_teller(&peers[1]));
        assert!(told.note(cids[2], peers[1], 4) && told.awaits_any());
        assert!(!told.leave_out(&peers[0], &BTreeSet::new()) && !told.leave_out(&peers[1], &[cids[1], cids[2]].into()));
        assert!(told.leave_out(&peers[1], &[cids[1]].into()) && !told.awaits_any() && told.len() == 1);
        told.remove(&cids[1]);
        assert!(told.is_empty() && told.tellers().next().is_none());
    }

    #[test]
    fn no_more_are_remembered_than_so_many() {
        let (mut told, peer) = (Told::default(), PeerId::from_public_key([1; 32]));
        let noted = (0..2 * MAX_TOLD as u64).filter(|n| told.note(Cid::of(&n.to_be_bytes()), peer, 1)).count();
        assert_eq!((noted, told.len()), (MAX_TOLD, MAX_TOLD));
        assert!(told.is_full());
    }
}
