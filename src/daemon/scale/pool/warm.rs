//! Runners that wait for jobs which nobody has queued yet.
//!
//! Promises that as many are started, and as many give their slots up, as the allocation says; that only one without a job
//! ever goes, GitHub being asked first as for all others; that one which has waited for its whole age is replaced; and that
//! one which ends by itself before it had a job is not started again at once. A runner that nothing is meant for any more
//! counts as one of them where it would do.

use std::collections::BTreeSet;

use super::{Deed, Hand, Pool, Stage};
use crate::daemon::scale::WarmSet;
use crate::forge::github::Scope;
use crate::kernel::allocation::Warming;
use crate::kernel::id::{Cid, Digest, TaskId};
use crate::kernel::task::Fence;

/// Before another is started where one has ended without a job, or was refused, in milliseconds.
const REST: u64 = 60_000;

impl Pool {
    /// Brings those that wait into line with what is wanted: so many of each set, of which so many more may be started now
    /// and so many have to go. `age` is how long one may wait, in milliseconds.
    pub(in crate::daemon::scale) fn tend(
        &mut self,
        now: u64,
        sets: &[WarmSet],
        warming: Warming,
        age: u64,
    ) -> Vec<Deed> {
        let mut lacking = Vec::new();
        for hand in self.hands.values_mut() {
            hand.kept = false;
        }
        for set in sets {
            let mut fit: Vec<&mut Hand> =
                self.hands.values_mut().filter(|hand| hand.is_spare() && !hand.kept && set.is_met_by(hand)).collect();
            // The youngest stay.
            fit.sort_unstable_by_key(|hand| std::cmp::Reverse(hand.since));
            let mut there = 0;
            for hand in fit.into_iter().take(set.runners as usize) {
                let is_old = hand.stage == Stage::Alive && now.saturating_sub(hand.since) >= age;
                (hand.kept, hand.tired) = (!is_old, is_old);
                there += u32::from(!is_old);
            }
            lacking.extend((there..set.runners).map(|_| set));
        }
        let mut spare: Vec<&mut Hand> = self.hands.values_mut().filter(|hand| hand.is_spare()).collect();
        // Those first that are not wanted, and then the oldest.
        spare.sort_unstable_by_key(|hand| (hand.kept, hand.since));
        for hand in spare.into_iter().take(warming.retire as usize) {
            (hand.kept, hand.tired) = (false, true);
        }
        if now < self.rest_until {
            return Vec::new();
        }
        lacking.into_iter().take(warming.start as usize).map(|set| self.wait_for_jobs(now, set)).collect()
    }

    fn wait_for_jobs(&mut self, now: u64, set: &WarmSet) -> Deed {
        let claim = Cid::of(format!("{}{} {now}", self.prefix, self.named).as_bytes());
        let fence = Fence { attempt: 1, claim };
        let name = self.name(&fence);
        let order = (TaskId(Digest::of(&[b"runmesh warm runner", name.as_bytes(), claim.digest()]).0), fence);
        let hand = Hand { kept: true, ..Hand::new(now, set.scope.clone(), set.labels.clone(), order) };
        self.hands.insert(name.clone(), hand);
        Deed::Configure { name, scope: set.scope.clone(), labels: set.labels.clone() }
    }

    /// No other is started to wait for a while.
    pub(super) const fn rest(&mut self, now: u64) {
        self.rest_until = now + REST;
    }

    /// What a runner that was started to wait is registered with; nothing for one that was started for a task.
    pub(in crate::daemon::scale) fn waits_at(&self, name: &str) -> Option<(&Scope, &BTreeSet<String>)> {
        self.hands.get(name).filter(|hand| hand.repository.is_none()).map(|hand| (&hand.scope, &hand.labels))
    }

    /// Of a runner that was started to wait for jobs, what it works for by now: nothing as long as it waits. `None` for
    /// all others.
    pub(in crate::daemon::scale) fn work_of(&self, order: (TaskId, Fence)) -> Option<Option<(TaskId, Fence)>> {
        let hand = self.hands.values().find(|hand| hand.order == order && hand.repository.is_none())?;
        Some(hand.meant.and_then(|task| Some((task, self.held.get(&task)?.fence))))
    }

    /// A runner's hook says that it begins a job of that repository.
    pub(in crate::daemon::scale) fn begins(&mut self, order: (TaskId, Fence), repository: &str) {
        if let Some(hand) = self.hands.values_mut().find(|hand| hand.order == order) {
            hand.begun = Some(repository.to_owned());
        }
    }

    /// The names of repositories of which runners here may have been given jobs, though they were started for none of
    /// them: as their hooks say, and with `all` also those that runners wait at.
    pub(in crate::daemon::scale) fn waited_at(&self, all: bool) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for hand in self.hands.values().filter(|hand| hand.serves.is_none() && hand.repository.is_none()) {
            match (&hand.scope, &hand.begun) {
                (Scope::Repository(name), begun) if all || begun.is_some() => names.insert(name.clone()),
                (Scope::Organization(_), Some(begun)) if hand.serves_jobs_of(&Scope::Repository(begun.clone())) => {
                    names.insert(begun.clone())
                }
                _ => continue,
            };
        }
        names
    }
}

impl WarmSet {
    fn is_met_by(&self, hand: &Hand) -> bool {
        hand.scope == self.scope && hand.labels == self.labels
    }
}
