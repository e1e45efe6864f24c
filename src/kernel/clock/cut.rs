//! Cuts: entries that divide the history in two.
//!
//! An entry is a cut when every other one is its ancestor or its descendant. Once each member has written an entry
//! above it, in knowledge of nothing that is neither, no honest entry can ever be neither: what a member writes later
//! stands above its own entry, and who is admitted later is admitted by such an entry. So what lies beneath a cut can be
//! dropped whole, and what stands above it never has a parent that was dropped. In a mesh that is ever quiet for as long
//! as gossip takes, cuts are frequent: every entry that all know before anybody writes the next one is one.

use std::collections::{BTreeMap, BTreeSet};

use super::shelf::Rights;
use super::{Clock, Mark, Members, Order, Placed, Said};
use crate::kernel::id::{Author, Cid, PeerId};

/// The entries here, as seen from one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Division {
    /// The cut itself and all its ancestors.
    pub beneath: BTreeSet<Cid>,
    /// Neither beneath nor wholly above: they, or something that they stand on, would have a parent missing if all
    /// beneath the cut were dropped.
    pub astray: BTreeSet<Cid>,
}

/// Which of some entries count, and what follows from those.
#[derive(Debug, Default)]
pub struct Tally {
    pub counting: BTreeSet<Cid>,
    pub members: Members,
    /// How many entries of each chain count.
    pub(super) lengths: Vec<u64>,
}

impl Clock {
    /// Divides all entries here by one of them. `None` when it is not here.
    pub fn divide(&self, cut: &Cid) -> Option<Division> {
        let beneath = self.with_ancestors([*cut])?;
        let mut division = Division { beneath, astray: BTreeSet::new() };
        for cid in self.order.iter().map(|mark| mark.cid) {
            if !division.beneath.contains(&cid) && self.goes_astray(&cid, cut, &division) {
                division.astray.insert(cid);
            }
        }
        Some(division)
    }

    /// Whether an entry that is not beneath, and all of whose parents are divided already, is astray.
    pub fn goes_astray(&self, cid: &Cid, cut: &Cid, division: &Division) -> bool {
        let off =
            |parent: &Cid| parent != cut && (division.beneath.contains(parent) || division.astray.contains(parent));
        self.placed.get(cid).is_none_or(|placed| placed.parents().is_empty() || placed.parents().iter().any(off))
    }

    /// These entries and all their ancestors that are here. `None` when one of these is not here.
    pub fn with_ancestors(&self, of: impl IntoIterator<Item = Cid>) -> Option<BTreeSet<Cid>> {
        let mut open: Vec<Cid> = of.into_iter().collect();
        let mut found = BTreeSet::new();
        while let Some(cid) = open.pop() {
            let placed = self.placed.get(&cid)?;
            if found.insert(cid) {
                open.extend_from_slice(placed.parents());
            }
        }
        Some(found)
    }

    /// The latest cut among the entries that are old, with at least so many entries beneath it. Looks at each entry once,
    /// in time proportional to entries times authors: in a busy mesh cuts are rare, and none may be missed.
    pub fn find_cut(&self, least: usize, is_old: impl Fn(u64, u64) -> bool) -> Option<(Cid, Division)> {
        let heads = self.with_ancestors(self.heads.iter().copied())?;
        let order: Vec<&Placed> = self
            .order
            .iter()
            .filter(|mark| heads.contains(&mark.cid))
            .filter_map(|mark| self.placed.get(&mark.cid))
            .collect();
        // How far each chain gets before an entry comes, and, on the way back, what all that came later reach.
        let mut tops: Vec<u64> = vec![0; self.chains.len()];
        let former: Vec<u64> = order
            .iter()
            .map(|placed| {
                let top = &mut tops[placed.mark.author as usize];
                std::mem::replace(top, (*top).max(placed.mark.sequence))
            })
            .collect();
        let mut reached_by_all: Vec<u64> = vec![u64::MAX; self.chains.len()];
        for at in (least..order.len()).rev() {
            let mark = &order[at].mark;
            let author = mark.author as usize;
            tops[author] = former[at];
            if order[at].counts
                && is_old(order[at].ordinal, order[at].time().ms)
                && reached_by_all[author] >= mark.sequence
                && tops.iter().zip(0..).all(|(top, number)| mark.reach.get(number) >= *top)
                && let Some(division) = self.divide(&mark.cid)
                // Of the branches of a fork the marks cannot tell one from the other.
                && division.astray.is_disjoint(&heads)
            {
                return Some((mark.cid, division));
            }
            for (reached, number) in reached_by_all.iter_mut().zip(0..) {
                *reached = (*reached).min(mark.reach.get(number));
            }
        }
        None
    }

    /// Decides which entries count, of all or of some that hold their ancestors, where chains count only below a number.
    pub fn tally(&self, within: Option<&BTreeSet<Cid>>, void: impl Fn(u32) -> Option<u64>) -> Tally {
        let mut tally = Tally {
            members: self.base.as_ref().map(|base| base.members.clone()).unwrap_or_default(),
            lengths: self.chains.iter().map(|chain| chain.base_counting).collect(),
            counting: self.cut().into_iter().collect(),
        };
        let mut order: Vec<Order> = match within {
            Some(within) => within.iter().filter_map(|cid| Some(self.placed.get(cid)?.mark.order())).collect(),
            None => self.placed.values().map(|placed| placed.mark.order()).collect(),
        };
        order.sort_unstable();
        for (_, cid) in order {
            let Some(placed) = self.placed.get(&cid).filter(|_| self.cut() != Some(cid)) else { continue };
            let mark = &placed.mark;
            let peer = self.chains[mark.author as usize].author.peer;
            let said = placed.said();
            let founds = Said::founds(&said, &self.mesh, &peer);
            for said in &said {
                if let Said::Revoke(revoke) = said {
                    tally.members.revoke(revoke.peer, mark);
                }
            }
            if void(mark.author).is_none_or(|void| mark.sequence < void)
                && (founds || tally.members.admitted(&peer, mark))
            {
                tally.counting.insert(cid);
                tally.lengths[mark.author as usize] += 1;
                // In this order the first by a ticket is met first, so nothing can ask for another pass.
                let rights = Rights { mesh: &self.mesh, shelf: &self.shelf };
                let _first_holds = tally.members.hear(rights, mark, peer, &said);
            }
        }
        tally
    }

    /// The same where these chains are void from these numbers on.
    pub fn tally_with(&self, within: &BTreeSet<Cid>, void: &[(Author, u64)]) -> Tally {
        let void: BTreeMap<u32, u64> =
            void.iter().filter_map(|(author, from)| Some((*self.numbers.get(author)?, *from))).collect();
        self.tally(Some(within), |author| void.get(&author).copied())
    }

    /// The chains that are void from some number on, as far as that matters to an entry and its ancestors.
    pub fn void_below(&self, cid: &Cid) -> Vec<(Author, u64)> {
        let Some(placed) = self.placed.get(cid) else { return Vec::new() };
        self.void_where(|number, cut| placed.mark.reach.get(number) >= cut)
    }

    /// The same for an entry that would stand on all heads.
    pub fn void_here(&self) -> Vec<(Author, u64)> {
        let heads: Vec<&Placed> = self.heads.iter().filter_map(|head| self.placed.get(head)).collect();
        self.void_where(|number, cut| heads.iter().any(|head| head.mark.reach.get(number) >= cut))
    }

    /// Whoever an entry among the ancestors of some admits that is not among those of one.
    pub fn admitted_between(&self, below: &Cid, above: &[Cid]) -> BTreeSet<PeerId> {
        let marks: Vec<&Mark> = above.iter().filter_map(|cid| self.mark(cid)).map(AsRef::as_ref).collect();
        self.mark(below).map(|below| self.members.admitted_between(below, &marks)).unwrap_or_default()
    }

    fn void_where(&self, matters: impl Fn(u32, u64) -> bool) -> Vec<(Author, u64)> {
        let void = self.chains.iter().zip(0..).filter_map(|(chain, number)| Some((chain.author, number, chain.cut?)));
        let mut void: Vec<_> =
            void.filter(|(_, number, cut)| matters(*number, *cut)).map(|(author, _, cut)| (author, cut)).collect();
        void.sort_unstable();
        void
    }
}
