//! Members that stayed away: which retirements hold, and which entries do not count for them.
//!
//! A retirement holds once more than half of the members that its entry knows have agreed to it by entries, the author
//! by that entry itself. From then on a chain of the retired peer counts as far as that entry knows it; a chain that it
//! does not know at all counts only if its first entry knows the retirement. So whoever comes back begins a new
//! incarnation, and whatever it wrote meanwhile counts for nothing, on every node, whenever it came.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Clock, Mark, Members, Said, Tally};
use crate::kernel::id::{Cid, PeerId};
use crate::kernel::rules::HISTORY;

/// A retirement that holds.
#[derive(Debug, Clone)]
pub(super) struct Retired {
    pub(super) peer: PeerId,
    /// The entry that proposed it, or the checkpoint's cut that it lies beneath.
    pub(super) mark: Arc<Mark>,
}

impl Clock {
    /// The members that an entry is to be acknowledged by, as far as its ancestors and those that hold them say: all
    /// that it knows but the retired, and whether they have all declared the rules of this. The tally is of `within`.
    pub fn asked_by(&self, cid: &Cid, within: &BTreeSet<Cid>, tally: &Tally) -> Option<BTreeSet<PeerId>> {
        let mark = self.mark(cid)?;
        let known = self.awaited(mark, &self.judge(Some(within), tally), &tally.members, &tally.lengths);
        known.iter().all(|peer| tally.members.declared_below(peer, mark) >= HISTORY).then_some(known)
    }

    /// The same by what counts now, in no more time than there are members and chains: but for what was found to be void
    /// meanwhile it is the same.
    pub fn awaited_by(&self, cid: &Cid) -> Option<BTreeSet<PeerId>> {
        let lengths: Vec<u64> = self.chains.iter().map(|chain| chain.counting).collect();
        Some(self.awaited(self.mark(cid)?, &self.retired, &self.members, &lengths))
    }

    /// Whether the peer was retired and has not come back.
    pub fn is_retired(&self, peer: &PeerId) -> bool {
        let of_it = self.retired.iter().rev().find(|retired| retired.peer == *peer);
        of_it.is_some_and(|retired| {
            let chains = self.chains.iter().zip(0..).filter(|(chain, _)| chain.author.peer == *peer);
            chains.into_iter().all(|(chain, number)| chain.counting <= retired.mark.reach.get(number))
        })
    }

    /// The retirements that are proposed and do not hold yet: by which entry, of whom, and who has agreed.
    pub fn proposed_retirements(&self) -> Vec<(Cid, PeerId, BTreeSet<PeerId>)> {
        let mut proposed = Vec::new();
        for (cid, votes) in &self.endorsed {
            let Some(placed) = self.placed.get(cid).filter(|placed| placed.counts) else { continue };
            for said in &placed.said() {
                let Said::Retire(peer) = said else { continue };
                let holds = self.retired.iter().any(|held| held.mark.cid == *cid && held.peer == *peer);
                // What the peer has written in knowledge of it answers it.
                let chains = self.chains.iter().filter(|chain| chain.author.peer == *peer);
                let last = chains.filter_map(|chain| chain.entries.last());
                if !holds && !last.into_iter().any(|mark| mark.knows(&placed.mark)) {
                    let voters = votes.iter().chain([cid]).filter_map(|cid| self.author_of(cid));
                    proposed.push((*cid, *peer, voters.map(|author| author.peer).collect()));
                }
            }
        }
        proposed
    }

    /// The latest label of time by which the peer is known to have written, milliseconds since 1970.
    pub fn last_written(&self, peer: &PeerId) -> u64 {
        let chains = self.chains.iter().filter(|chain| chain.author.peer == *peer && chain.is_met());
        let times = chains.filter_map(|chain| match chain.entries.last() {
            Some(mark) => Some(self.placed.get(&mark.cid)?.time().ms),
            None => Some(self.base.as_ref()?.time.ms),
        });
        let since = self.members.all().find(|member| member.peer == *peer).map(|member| member.since_ms);
        times.chain(since).max().unwrap_or(0)
    }

    /// The label of the first entry of `by` that knows all that counts of what the peer has written, of those up to a time;
    /// milliseconds since 1970.
    pub fn known_since(&self, peer: &PeerId, by: &PeerId, until: u64) -> Option<u64> {
        let written = |mark: &Mark| {
            let chains = self.chains.iter().zip(0..).filter(|(chain, _)| chain.author.peer == *peer);
            chains.into_iter().all(|(chain, number)| mark.reach.get(number) >= chain.counting)
        };
        let chains = self.chains.iter().filter(|chain| chain.author.peer == *by);
        let since = chains.filter_map(|chain| {
            let mut knowing = chain.entries.iter().filter(|mark| written(mark) && self.members.admitted(peer, mark));
            knowing.find_map(|mark| Some(self.placed.get(&mark.cid)?.time().ms).filter(|label| *label <= until))
        });
        since.min()
    }

    /// Takes note of what an entry says of retirements. `true` when one may hold now that did not.
    pub(super) fn note_retirement(&mut self, mark: &Mark, said: &[Said], counts: bool) -> bool {
        let mut decides = false;
        for said in said {
            match said {
                Said::Retire(_) => drop(self.endorsed.entry(mark.cid).or_default()),
                Said::Acknowledge(proposal) => {
                    let known = self.placed.get(proposal).is_some_and(|proposed| mark.knows(&proposed.mark));
                    if known && self.endorsed.contains_key(proposal) {
                        decides |= counts && self.may_decide(proposal, mark);
                        self.endorsed.entry(*proposal).or_default().insert(mark.cid);
                    }
                }
                Said::Admit(..) | Said::Declare(_) | Said::Revoke(_) => {}
            }
        }
        decides
    }

    /// Whether a retirement may come to hold by one more entry that counts and agrees to it: deciding that takes looking
    /// at all entries again, and agreeing twice, or where it changes nothing, must not be a way to make everybody do so.
    fn may_decide(&self, proposal: &Cid, vote: &Mark) -> bool {
        let (Some(placed), Some(agreed)) = (self.placed.get(proposal), self.endorsed.get(proposal)) else {
            return false;
        };
        let counting = agreed.iter().filter(|vote| self.counts(vote)).chain([proposal]);
        let mut voters: BTreeSet<PeerId> =
            counting.filter_map(|vote| self.author_of(vote)).map(|author| author.peer).collect();
        if !placed.counts || !voters.insert(self.chains[vote.author as usize].author.peer) {
            return false;
        }
        let held = self.base.as_ref().map_or(&[][..], |base| &base.retired);
        if self.retired.len() > held.len() {
            // Which retirements hold may hang on which came to hold first.
            return true;
        }
        let lengths: Vec<u64> = self.chains.iter().map(|chain| chain.counting).collect();
        let known = self.awaited(&placed.mark, held, &self.members, &lengths);
        placed.said().iter().any(|said| matches!(said, Said::Retire(peer) if is_agreed(&known, &voters, peer)))
    }

    /// The members that an entry knows and that are to be waited for, if those retirements hold.
    fn awaited(&self, mark: &Mark, held: &[Retired], members: &Members, lengths: &[u64]) -> BTreeSet<PeerId> {
        let mut known = members.known_to(mark);
        known.retain(|peer| !self.is_away(peer, mark, held, lengths));
        known
    }

    /// Which retirements hold and which entries count, one depending on the other: the first retirement in the order of
    /// entries that holds by what counts so far holds for good, then the next.
    pub(super) fn decide_retirements(&mut self) -> Tally {
        self.retired = self.base.as_ref().map(|base| base.retired.clone()).unwrap_or_default();
        loop {
            for number in 0..self.chains.len() as u32 {
                let chain = &self.chains[number as usize];
                let retired = self.retired.iter().filter(|retired| retired.peer == chain.author.peer);
                let retired = retired.filter_map(|retired| self.cut_by(retired, number)).min();
                let fork = chain.fork.map(|fork| fork.sequence);
                let revoked = self.revocations.from(&chain.author);
                let cut = [chain.void, fork, retired, revoked].into_iter().flatten().min();
                self.chains[number as usize].cut = cut;
                self.is_cut_anywhere |= cut.is_some();
            }
            let tally = self.tally(None, |author| self.chains[author as usize].cut);
            let judged = if self.endorsed.is_empty() { Vec::new() } else { self.judge(None, &tally) };
            let is_new =
                |one: &Retired| !self.retired.iter().any(|held| held.peer == one.peer && held.mark.cid == one.mark.cid);
            match judged.into_iter().find(is_new) {
                Some(one) => self.retired.push(one),
                None => return tally,
            }
        }
    }

    /// The retirements that hold among some entries, where these of them count; in the order of entries.
    pub(super) fn judge(&self, within: Option<&BTreeSet<Cid>>, tally: &Tally) -> Vec<Retired> {
        let mut held = self.base.as_ref().map(|base| base.retired.clone()).unwrap_or_default();
        let counts = |cid: &Cid| tally.counting.contains(cid) && within.is_none_or(|within| within.contains(cid));
        let mut proposals: Vec<(&Cid, &BTreeSet<Cid>)> = self.endorsed.iter().filter(|(cid, _)| counts(cid)).collect();
        proposals.sort_by_key(|(cid, _)| self.mark(cid).map(|mark| mark.order()));
        for (cid, agreed) in proposals {
            let Some(placed) = self.placed.get(cid) else { continue };
            let mark = &placed.mark;
            for said in &placed.said() {
                let Said::Retire(peer) = said else { continue };
                let known = self.awaited(mark, &held, &tally.members, &tally.lengths);
                let ready = known.iter().all(|other| tally.members.declared_below(other, mark) >= HISTORY);
                let votes = agreed.iter().filter(|vote| counts(vote)).chain([cid]);
                let voters = votes.filter_map(|vote| self.author_of(vote)).map(|author| author.peer).collect();
                if ready && is_agreed(&known, &voters, peer) {
                    held.push(Retired { peer: *peer, mark: mark.clone() });
                }
            }
        }
        held
    }

    /// Whether the peer was retired and has not come back, as far as an entry knows. `lengths` says how much of each
    /// chain counts.
    pub(super) fn is_away(&self, peer: &PeerId, mark: &Mark, retired: &[Retired], lengths: &[u64]) -> bool {
        let of_it = retired.iter().rev().find(|retired| retired.peer == *peer && mark.reaches(&retired.mark));
        of_it.is_some_and(|retired| {
            let mut chains = self.chains.iter().zip(0_u32..).filter(|(chain, _)| chain.author.peer == *peer);
            chains.all(|(_, number)| {
                let counting = lengths.get(number as usize).copied().unwrap_or(0);
                counting.min(mark.reach.get(number)) <= retired.mark.reach.get(number)
            })
        })
    }

    /// Whether a first entry that stands so is by a retired peer that does not know of its retirement.
    pub(super) fn is_unaware(&self, peer: &PeerId, number: Option<u32>, standing: &Mark) -> bool {
        self.retired.iter().any(|retired| {
            let is_known = number.is_some_and(|number| retired.mark.reach.get(number) > 0);
            retired.peer == *peer && !is_known && !standing.reaches(&retired.mark)
        })
    }

    /// Cuts a chain off whose first entry does not know of its author's retirement.
    pub(super) fn cut_unaware(&mut self, number: u32) {
        let chain = &self.chains[number as usize];
        let retired = self.retired.iter().filter(|retired| retired.peer == chain.author.peer);
        if let Some(cut) = retired.filter_map(|retired| self.cut_by(retired, number)).min() {
            let chain = &mut self.chains[number as usize];
            chain.cut = Some(chain.cut.map_or(cut, |other| other.min(cut)));
            self.is_cut_anywhere = true;
        }
    }

    /// From which number on a retirement makes a chain of its peer void.
    fn cut_by(&self, retired: &Retired, number: u32) -> Option<u64> {
        let chain = &self.chains[number as usize];
        if self.base.as_ref().is_some_and(|base| base.cut == retired.mark.cid) {
            // What a retired peer wrote beneath the checkpoint and what it writes above it both count.
            return None;
        }
        match retired.mark.reach.get(number) {
            0 => {
                let first = chain.entries.first()?;
                (!first.reaches(&retired.mark)).then_some(1)
            }
            known => Some(known + 1),
        }
    }
}

/// Whether more than half of the members that are waited for agree to wait for one of them no longer.
fn is_agreed(known: &BTreeSet<PeerId>, voters: &BTreeSet<PeerId>, peer: &PeerId) -> bool {
    let agreeing = voters.iter().filter(|voter| *voter != peer && known.contains(voter)).count();
    known.contains(peer) && agreeing * 2 > known.len()
}
