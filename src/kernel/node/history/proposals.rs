//! Checkpoints that have neither come to stand nor been overtaken, and when this node folds the state at their cuts.
//!
//! An entry that proposes one is cheap. Folding what it proposes is as much work as reading all that is beneath, and what
//! is kept of it names every entry. So by itself a node folds one proposal of each member, the latest, and another of that
//! member only after a while. Any other is folded once it may stand: when all that it waits for have acknowledged it.
//! Whether it stands is read from entries; this says only when a node looks, and for whom it speaks.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Node, Timings};
use crate::kernel::clock::{Division, Order};
use crate::kernel::entry::Checkpoint;
use crate::kernel::id::{Cid, PeerId};
use crate::kernel::snapshot::Sealed;

/// A proposal's place in the order of entries, and who made it.
pub(super) type Place = (Order, PeerId);

#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) checkpoint: Checkpoint,
    /// Who has acknowledged it, and by which entries.
    pub(super) acknowledged: BTreeMap<PeerId, BTreeSet<Cid>>,
    /// When it came here.
    pub(super) since: u64,
    /// This node has acknowledged it in this life.
    pub(super) agreed: bool,
    /// It was folded, and another of the same member has taken its place.
    tried: bool,
}

impl Proposal {
    pub(super) const fn new(checkpoint: Checkpoint, since: u64) -> Self {
        Self { checkpoint, acknowledged: BTreeMap::new(), since, agreed: false, tried: false }
    }
}

/// A proposal of which this node makes the same snapshot of the same entries.
#[derive(Debug)]
pub(super) struct Weighed {
    pub(super) place: Place,
    pub(super) proposal: Proposal,
    pub(super) sealed: Sealed,
    pub(super) division: Division,
    /// Who has to acknowledge it.
    pub(super) asked: BTreeSet<PeerId>,
    /// Somebody who has to acknowledge it cannot any more, as far as one can tell: another may be proposed.
    pub(super) hopeless: bool,
}

impl Weighed {
    /// Whether this node has acknowledged it, and so may not build on what stands beside it.
    fn is_promised(&self, me: &PeerId) -> bool {
        self.proposal.agreed || self.proposal.acknowledged.contains_key(me)
    }
}

#[derive(Debug, Default)]
pub(super) struct Proposals {
    /// Those that are not folded, by who made them.
    waiting: BTreeMap<PeerId, BTreeMap<Order, Proposal>>,
    /// Those among them that somebody has acknowledged since they were looked at.
    heard: BTreeSet<Place>,
    /// Those that are, by the entries that propose them.
    pub(super) weighed: BTreeMap<Cid, Weighed>,
    /// When one of a member's was folded by itself.
    folded: BTreeMap<PeerId, u64>,
}

impl Proposals {
    /// Takes a new one, which its author has acknowledged by the same entry.
    pub(super) fn add(&mut self, place: Place, checkpoint: Checkpoint, now: u64) {
        // Of several in one entry the first is meant.
        let proposal = self.waiting.entry(place.1).or_default().entry(place.0);
        proposal.or_insert_with(|| Proposal::new(checkpoint, now));
        self.acknowledge(place, place.1, place.0.1);
    }

    /// Takes note that somebody agrees to one, by an entry. `false` when it is not known.
    pub(super) fn acknowledge(&mut self, place: Place, by: PeerId, entry: Cid) -> bool {
        let proposal = match self.weighed.get_mut(&place.0.1) {
            Some(weighed) => Some(&mut weighed.proposal),
            None => self.waiting.get_mut(&place.1).and_then(|theirs| theirs.get_mut(&place.0)),
        };
        let Some(proposal) = proposal else { return false };
        self.heard.insert(place);
        proposal.acknowledged.entry(by).or_default().insert(entry)
    }

    /// Puts a folded one in the place of what else was folded of the same member, but for what this node has promised.
    pub(super) fn keep(&mut self, cid: Cid, weighed: Weighed, me: &PeerId) {
        let by = weighed.place.1;
        for (_, aside) in self.weighed.extract_if(.., |_, other| other.place.1 == by && !other.is_promised(me)) {
            let proposal = Proposal { tried: true, ..aside.proposal };
            self.waiting.entry(by).or_default().insert(aside.place.0, proposal);
        }
        self.weighed.insert(cid, weighed);
    }

    /// Other entries count than before: what did not stand may.
    pub(super) fn look_again(&mut self) {
        let all = self.waiting.iter().flat_map(|(by, theirs)| theirs.keys().map(|order| (*order, *by)));
        self.heard.extend(all);
    }

    /// Keeps those of which it is so, and folds them again: what lies beneath is another.
    pub(super) fn begin_again(&mut self, stays: impl Fn(&Cid, &Checkpoint) -> bool) {
        for Weighed { place: (order, by), proposal, .. } in std::mem::take(&mut self.weighed).into_values() {
            self.waiting.entry(by).or_default().insert(order, proposal);
        }
        self.waiting.retain(|_, theirs| {
            theirs.retain(|(_, cid), proposal| stays(cid, &proposal.checkpoint));
            !theirs.is_empty()
        });
        self.folded.clear();
        self.look_again();
    }

    /// Takes one out that is to be folded now.
    fn take(&mut self, place: &Place) -> Option<Proposal> {
        let theirs = self.waiting.get_mut(&place.1)?;
        let proposal = theirs.remove(&place.0);
        if theirs.is_empty() {
            self.waiting.remove(&place.1);
        }
        proposal
    }

    fn get(&self, place: &Place) -> Option<&Proposal> {
        self.waiting.get(&place.1)?.get(&place.0)
    }

    /// The first in the order of entries among the latest that each member made and that is not folded, of the members
    /// whose turn it is.
    fn next_by_itself(&mut self, me: &PeerId, now: u64, timings: &Timings) -> Option<Place> {
        let is_due = |by: &PeerId| self.folded.get(by).is_none_or(|at| at + self.pause(by, me, timings) <= now);
        let due = self.waiting.iter().filter(|(by, _)| is_due(by));
        let latest = due.filter_map(|(by, theirs)| {
            let (order, _) = theirs.iter().rev().find(|(_, proposal)| !proposal.tried)?;
            Some((*order, *by))
        });
        let next = latest.min()?;
        self.folded.insert(next.1, now);
        Some(next)
    }

    /// How long a member's next proposal waits for the one before. Own choice: whoever proposes as [`Node::propose`] does
    /// never makes another so soon, and what was promised is kept for as long as it takes.
    fn pause(&self, by: &PeerId, me: &PeerId, timings: &Timings) -> u64 {
        let is_bound = |weighed: &Weighed| weighed.place.1 == *by && weighed.is_promised(me) && !weighed.hopeless;
        if self.weighed.values().any(is_bound) {
            timings.retention.saturating_sub(timings.checkpoint)
        } else {
            timings.checkpoint / 2
        }
    }
}

impl Node {
    /// A proposal that is to be folded now, taken out from among those that wait.
    pub(super) fn next_to_weigh(&mut self) -> Option<(Place, Proposal)> {
        let me = self.me.peer();
        while let Some(place) = self.history.proposals.heard.pop_first() {
            let Some(proposal) = self.history.proposals.get(&place) else { continue };
            let agrees = |peer: &PeerId| proposal.acknowledged.contains_key(peer);
            // What this node has acknowledged in another life binds it still.
            if agrees(&me) || self.clock.awaited_by(&place.0.1).is_some_and(|awaited| awaited.iter().all(agrees)) {
                return Some((place, self.history.proposals.take(&place)?));
            }
        }
        let place = self.history.proposals.next_by_itself(&me, self.now.mono, &self.settings.timings)?;
        Some((place, self.history.proposals.take(&place)?))
    }
}
