//! After a loss: whether a job that was taken over needs a runner, or may still have that of the host which is gone.
//!
//! Only whoever listens can tell, from what GitHub has told of jobs and of their number. Promises that nobody registers a
//! runner for such a job before that is known, and that no claim waits longer than [`MOST`] for anything but GitHub's word
//! that all jobs have runners: a runner too many retires by itself, a job without one waits for a person.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::runners::candidates;
use super::table::job_number;
use super::{MOST_GIVEN, Set};
use crate::daemon::Daemon;
use crate::kernel::id::{Cid, PeerId, TaskId};
use crate::kernel::io::SourceKey;
use crate::kernel::ledger::Folded;
use crate::kernel::task::{Fence, State, Trigger};
use crate::wire::scale_set::Stands;

/// The longest that a claim waits for somebody to listen, and for what GitHub tells then. Less than asking goes on.
const MOST: Duration = Duration::from_secs(20);
/// The longest that it waits for a runner that is registered and has no job: GitHub gives it one as soon as it listens.
const IDLE: Duration = Duration::from_secs(5);
/// After a session is opened: by then the first message is here, and what others know of jobs.
const SETTLED: Duration = Duration::from_secs(2);

/// What a job needs that this node, or a member, holds.
pub(in crate::daemon) enum Need {
    Runner,
    /// One too, unless a member says otherwise: it has waited for as long as it may.
    Perhaps,
    /// That runner has it.
    Taken {
        runner: String,
    },
    /// It is not known yet.
    Unsure {
        why: String,
        /// Nobody listens here: another may know.
        elsewhere: bool,
    },
}

/// Claims that wait, and since when.
#[derive(Default)]
pub(super) struct Doubts(BTreeMap<(Cid, TaskId), Instant>);

impl Doubts {
    /// Whether this one has waited for so long.
    fn is_over(&mut self, claim: (Cid, TaskId), most: Duration, now: Instant) -> bool {
        if self.0.len() >= MOST_GIVEN && !self.0.contains_key(&claim) {
            let oldest = self.0.iter().min_by_key(|(_, since)| **since).map(|(claim, _)| *claim);
            oldest.map(|oldest| self.0.remove(&oldest));
        }
        now.duration_since(*self.0.entry(claim).or_insert(now)) >= most
    }
}

impl Set {
    /// Whether there are as many runners without a job as jobs without a runner.
    fn has_idle_runners(&self) -> bool {
        let told = self.statistics.unwrap_or_default();
        let without = told.total_assigned_jobs.saturating_sub(told.total_running_jobs);
        told.total_registered_runners.saturating_sub(told.total_busy_runners) >= without
    }

    /// How many jobs have no runner, of those of which nothing was told here, and of which none is on its way; these are the
    /// other open tasks.
    fn lacks(&self, others: &[(TaskId, Folded)]) -> usize {
        let Some(told) = self.statistics else { return 0 };
        let without = told.total_assigned_jobs.saturating_sub(told.total_running_jobs);
        let has_its_own = |(task, folded): &&(TaskId, Folded)| match self.table.told(job_number(&folded.workload)) {
            Some(told) => told.stands == Stands::Waiting,
            None => matches!(&folded.state, State::Claimed { fence, .. }
                if self.given.contains(&(fence.claim, *task)) || fence.attempt == 1),
        };
        usize::try_from(without).unwrap_or(usize::MAX).saturating_sub(others.iter().filter(has_its_own).count())
    }
}

impl Daemon {
    /// What a job of the set needs, whose task is held under this claim.
    pub(super) fn need_of(&mut self, key: &SourceKey, job: u64, task: TaskId, fence: Fence) -> Need {
        let now = Instant::now();
        let Some(set) = self.scale.sets.all.get(key) else {
            return Need::Unsure { why: "this node has no such scale set".to_owned(), elsewhere: true };
        };
        let told = set.table.told(job);
        if let Some(told) = told.as_ref().filter(|told| told.stands != Stands::Waiting) {
            return Need::Taken { runner: told.runner.clone().unwrap_or_default() };
        }
        if fence.attempt == 1 {
            return Need::Runner;
        }
        let is_settled = set.opened.is_some_and(|opened| now.duration_since(opened) >= SETTLED);
        let mut most = MOST;
        let (why, elsewhere) = if set.listener.is_none() {
            ("whoever listens for jobs of the scale set knows whether a runner has this one", true)
        } else if !is_settled {
            ("GitHub has not told yet whether some runner has its job", false)
        } else if set.all_have_runners() && told.is_none() {
            // GitHub's word, and it will tell when that changes.
            let why = "as far as GitHub has told, some runner has its job".to_owned();
            return Need::Unsure { why, elsewhere: false };
        } else if set.all_have_runners() {
            ("as far as GitHub has told, all jobs have runners", false)
        } else if told.is_none() && {
            let mut others = self.open_tasks_of(key);
            others.retain(|(other, _)| *other != task);
            set.lacks(&others) == 0
        } {
            ("as far as GitHub has told, other jobs are those without runners", false)
        } else if told.is_some() && set.has_idle_runners() {
            // Its own had another's job: that one's is there for it.
            most = IDLE;
            ("as far as GitHub has told, a runner is there that has no job yet", false)
        } else {
            return Need::Runner;
        };
        let claim = (fence.claim, task);
        let is_over = self.scale.sets.all.get_mut(key).is_some_and(|set| set.doubts.is_over(claim, most, now));
        if is_over {
            tracing::debug!("a runner is registered though {why}: its job has waited for {} s", most.as_secs());
            return Need::Runner;
        }
        Need::Unsure { why: why.to_owned(), elsewhere }
    }

    /// The same for a task that this node holds, and which members may know more, whoever is on duty first.
    pub(super) fn own_need_of(&mut self, key: &SourceKey, task: TaskId, fence: Fence) -> (Need, Vec<PeerId>) {
        let members = candidates(&self.node, key);
        let job = self.node.task(&task).and_then(|folded| match folded.workload.trigger {
            Trigger::GithubJob { job, .. } => Some(job),
            _ => None,
        });
        let Some(job) = job else {
            return (Need::Unsure { why: "its task is not known any more".to_owned(), elsewhere: false }, members);
        };
        let need = self.need_of(key, job, task, fence);
        let set = self.scale.sets.all.get_mut(key).filter(|_| matches!(need, Need::Runner));
        match set {
            Some(set) if set.listener.is_some() => {
                set.give((fence.claim, task));
                (need, members)
            }
            Some(_) => (Need::Perhaps, members),
            None => (need, members),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::github::{Scope, Statistics};

    #[test]
    fn a_claim_waits_for_so_long_and_no_more_are_remembered_than_may_be() {
        let (mut doubts, began) = (Doubts::default(), Instant::now());
        let claim = |number: usize| (Cid::of(&number.to_be_bytes()), TaskId([4; 32]));
        let mut at = |number: usize, after: Duration| doubts.is_over(claim(number), MOST, began + after);
        assert!(!at(0, Duration::ZERO) && !at(0, MOST / 2) && !at(1, MOST));
        assert!(at(0, MOST) && !at(1, MOST * 2 - Duration::from_millis(1)) && at(1, MOST * 2));
        for number in 2..MOST_GIVEN + 10 {
            assert!(!at(number, MOST * 3));
        }
        assert!(!at(0, MOST * 4), "the oldest is forgotten, and waits anew");
        assert_eq!(doubts.0.len(), MOST_GIVEN);
    }

    #[test]
    fn a_job_whose_runner_had_another_may_have_the_runner_of_that_one() {
        let of = Scope::Organization("octo".to_owned());
        let mut set = Set::new("lab", of.clone(), of, "h", None);
        let mut at = |assigned: u32, running: u32, registered: u32, busy: u32| {
            set.statistics = Some(Statistics {
                total_assigned_jobs: assigned,
                total_running_jobs: running,
                total_registered_runners: registered,
                total_busy_runners: busy,
                ..Statistics::default()
            });
            set.has_idle_runners()
        };
        assert!(at(8, 7, 8, 7) && at(8, 6, 9, 7));
        assert!(!at(8, 7, 7, 7) && !at(8, 6, 8, 7));
    }
}
