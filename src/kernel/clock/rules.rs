//! Under which rules of folding an entry stands ([`crate::kernel::rules`]): those that every member has declared among
//! its ancestors.

use std::sync::Arc;

use super::retire::Retired;
use super::{Clock, Mark, Members, Tally};
use crate::kernel::id::Cid;
use crate::kernel::rules::RULES;
use crate::kernel::snapshot::Snapshot;

/// Which entries beneath a cut count, and who was a member there.
#[derive(Debug)]
pub struct Judged {
    pub(super) tally: Tally,
    pub(super) retired: Vec<Retired>,
}

impl Clock {
    /// Whether an entry counts, and stands under rules of this number or a greater one.
    pub fn counts_under(&self, cid: &Cid, rules: u32) -> bool {
        self.placed.get(cid).is_some_and(|placed| placed.counts && (rules == 0 || self.rules_of(&placed.mark) >= rules))
    }

    /// The same of an entry beneath a cut, as it stands there.
    pub fn counted_under(&self, judged: &Judged, cid: &Cid, rules: u32) -> bool {
        let counts = judged.tally.counting.contains(cid);
        counts && (rules == 0 || self.mark(cid).is_some_and(|mark| self.rules_judged(mark, judged) >= rules))
    }

    /// The number of rules that every member has declared that has not been retired.
    pub fn rules(&self) -> u32 {
        *self.rules.get_or_init(|| {
            let members = self.members.all().filter(|member| !self.is_retired(&member.peer));
            members.map(|member| self.members.declared(&member.peer)).min().unwrap_or(0)
        })
    }

    /// The greatest number of rules that an entry which is or was here stands under, where this version does not know
    /// them; else 0.
    pub const fn rules_beyond(&self) -> u32 {
        self.rules_beyond
    }

    /// Takes note of the rules that a counting entry stands under.
    pub(super) fn note_rules(&mut self, mark: &Mark) {
        if self.members.highest_rules() > RULES {
            self.note_beyond(self.rules_of(mark));
        }
    }

    /// The same of all that are here, and of the checkpoint.
    pub(super) fn note_all_rules(&mut self) {
        self.rules_beyond = 0;
        self.note_beyond(self.rules_at_base());
        let counting: Vec<Arc<Mark>> = match self.members.highest_rules() > RULES {
            true => self.placed.values().filter(|placed| placed.counts).map(|placed| placed.mark.clone()).collect(),
            false => Vec::new(),
        };
        counting.iter().for_each(|mark| self.note_rules(mark));
    }

    const fn note_beyond(&mut self, rules: u32) {
        if rules > RULES && rules > self.rules_beyond {
            self.rules_beyond = rules;
        }
    }

    /// The greatest number of rules beneath a cut, as its snapshot names it.
    pub(super) fn rules_beneath(&self, judged: &Judged) -> u32 {
        if judged.tally.members.highest_rules() <= Snapshot::RULES_UNNAMED {
            return 0;
        }
        let counting = judged.tally.counting.iter().filter_map(|cid| self.mark(cid));
        let greatest = counting.map(|mark| self.rules_judged(mark, judged)).max().unwrap_or(0);
        // Up to that number nothing is said.
        Some(greatest.max(self.rules_at_base())).filter(|rules| *rules > Snapshot::RULES_UNNAMED).unwrap_or(0)
    }

    fn rules_at_base(&self) -> u32 {
        self.base.as_ref().map_or(0, |base| base.rules)
    }

    fn rules_of(&self, mark: &Mark) -> u32 {
        // Asked for only where somebody was retired.
        let lengths: Vec<u64> = match self.retired.is_empty() {
            true => Vec::new(),
            false => self.chains.iter().map(|chain| chain.counting).collect(),
        };
        self.declared_by_all(mark, &self.members, &self.retired, &lengths)
    }

    fn rules_judged(&self, mark: &Mark, judged: &Judged) -> u32 {
        self.declared_by_all(mark, &judged.tally.members, &judged.retired, &judged.tally.lengths)
    }

    /// What every member that an entry knows has declared as far as it knows, but for those that stay away.
    fn declared_by_all(&self, mark: &Mark, members: &Members, retired: &[Retired], lengths: &[u64]) -> u32 {
        let known = members.known_to(mark).into_iter().filter(|peer| !self.is_away(peer, mark, retired, lengths));
        known.map(|peer| members.declared_below(&peer, mark)).min().unwrap_or(0)
    }
}
