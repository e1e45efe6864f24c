//! What follows from what is told of a scale set's jobs: as from what GitHub lists, but that what is not known is not gone.

use std::collections::{BTreeMap, BTreeSet};

use super::{Deed, Hand, Held, Pool, Stage};
use crate::forge::github::{Job, JobState, Scope};
use crate::kernel::id::TaskId;
use crate::kernel::io::Report;
use crate::kernel::scale_set;
use crate::kernel::task::{Conclusion, Fence, ReleaseReason};

/// How long a task is held of whose job nothing is told and for which no runner is here: longer than the service takes to
/// miss a runner.
const FORSAKEN: u64 = 120_000;

/// How late it may be told that the runner of a task without a name has had its job.
const USED_UP: u64 = 5_000;

impl Held {
    fn is_of(&self, key: &str) -> bool {
        scale_set::serves(&self.workload) && scale_set::reaches(key, &self.workload.labels, &self.workload.repository)
    }
}

impl Pool {
    /// The jobs of the tasks held of a scale set; nothing where no runner of it is here either.
    pub(in crate::daemon::scale) fn jobs_of(&self, key: &str, scope: &Scope) -> Option<BTreeSet<u64>> {
        let jobs: BTreeSet<u64> = self.held.values().filter(|held| held.is_of(key)).map(|held| held.job).collect();
        let has_hands = self.hands.values().any(|hand| hand.scope == *scope);
        (has_hands || !jobs.is_empty()).then_some(jobs)
    }

    /// Whether a runner here is about to begin, has, or has just had a job of which nothing was told yet.
    pub(in crate::daemon::scale) fn is_curious(&self, scope: &Scope) -> bool {
        let of_hands = self.hands.values().any(|hand| hand.scope == *scope && hand.stage != Stage::Configuring);
        of_hands || self.is_unsettled()
    }

    /// Some runner that is not this host's has the job of what a runner was to be configured for: GitHub's word ends the
    /// task.
    pub(in crate::daemon::scale) fn taken(&mut self, now: u64, name: &str) {
        let task = self.hands.remove(name).and_then(|hand| hand.meant);
        if let Some(held) = task.and_then(|task| self.held.get_mut(&task)) {
            held.bare = Some(now);
        }
    }

    /// All registrations in scale sets that there may be.
    pub(in crate::daemon::scale) fn registrations_in_sets(&self) -> Vec<(Scope, u64, String)> {
        let hands = self.hands.iter().filter(|(_, hand)| hand.is_of_a_set());
        hands.filter_map(|(name, hand)| Some((hand.scope.clone(), hand.registration?, name.clone()))).collect()
    }

    /// Of a runner in a scale set: that set, and the job that it has or was meant for.
    pub(in crate::daemon::scale) fn set_job_of(&self, order: (TaskId, Fence)) -> Option<(Scope, u64)> {
        let hand = self.hands.values().find(|hand| hand.order == order && hand.is_of_a_set())?;
        let meant = || Some(self.held.get(&hand.meant?)?.job);
        Some((hand.scope.clone(), hand.serves.or_else(meant)?))
    }

    /// The order that a runner which is to be configured was made for.
    pub(in crate::daemon::scale) fn order_of(&self, name: &str) -> Option<(TaskId, Fence)> {
        self.hands.get(name).map(|hand| hand.order)
    }

    /// Whether a task that stands for a job without a name has had its runner, and it was not for that job.
    fn is_used_up(&self, task: &TaskId, now: u64) -> bool {
        let Some(held) = self.held.get(task).filter(|held| held.workload.path.is_empty()) else { return false };
        let serves = self.hands.values().find(|hand| hand.meant == Some(*task)).and_then(|hand| hand.serves);
        let is_gone = held.bare.is_some_and(|bare| now.saturating_sub(bare) > USED_UP);
        is_gone || serves.is_some_and(|serves| serves != held.job)
    }

    /// Whether nothing is meant for a held task, and has not been for long.
    fn is_forsaken(&self, task: &TaskId, now: u64) -> bool {
        self.held.get(task).and_then(|held| held.bare).is_some_and(|bare| now.saturating_sub(bare) > FORSAKEN)
    }

    /// How jobs of a scale set stand, as told to a question that was asked at `asked`.
    pub(in crate::daemon::scale) fn told(
        &mut self,
        now: u64,
        asked: u64,
        key: &str,
        jobs: &BTreeMap<u64, Job>,
        draining: bool,
    ) -> Vec<Deed> {
        let mut deeds = Vec::new();
        let is_set = |hand: &&mut Hand| matches!(hand.scope, Scope::ScaleSet { .. });
        for job in jobs.values().filter(|job| matches!(job.state, JobState::InProgress | JobState::Completed { .. })) {
            let runner = job.runner.as_ref().and_then(|runner| self.hands.get_mut(runner));
            if let Some(hand) = runner.filter(is_set) {
                hand.serves = Some(job.id);
                if job.state != JobState::InProgress {
                    hand.done.get_or_insert(now);
                }
            }
        }
        let mine: BTreeSet<u64> = self.held.values().map(|held| held.job).collect();
        let serving: BTreeSet<u64> = self.hands.values().filter_map(|hand| hand.serves).collect();
        for job in serving.iter().filter_map(|id| jobs.get(id)) {
            if job.state == JobState::InProgress && !mine.contains(&job.id) {
                deeds.push(Deed::Serves(Box::new(job.workload())));
            }
        }
        let held = self.held.iter().filter(|(_, held)| held.is_of(key));
        let held: Vec<(TaskId, u64)> = held.map(|(task, held)| (*task, held.job)).collect();
        for (task, job) in held {
            match jobs.get(&job) {
                Some(job) => deeds.extend(self.judge(now, asked, task, Some(job), draining)),
                None if self.is_used_up(&task, now) => {
                    let note = "its runner had some other job, or none that GitHub has told of".to_owned();
                    let report = Report::Finished { conclusion: Conclusion::Cancelled, duration_ms: 0, note };
                    deeds.extend(self.give_up(now, task, report));
                }
                None if self.is_forsaken(&task, now) => {
                    let why = "no runner is here for it, and nothing is told of its job".to_owned();
                    let report = Report::GivenBack { reason: ReleaseReason::Draining, why };
                    deeds.extend(self.give_up(now, task, report));
                }
                None => {}
            }
        }
        deeds
    }
}
