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
        let mut deeds = self.written_elsewhere(jobs);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::kernel::id::Cid;
    use crate::kernel::task::Repository;

    const DONE: JobState = JobState::Completed { conclusion: Conclusion::Success, duration_ms: 1 };

    fn key() -> String {
        scale_set::source("h/octo", "lab")
    }

    fn scope() -> Scope {
        Scope::ScaleSet { of: Box::new(Scope::Organization("octo".to_owned())), name: "lab".to_owned() }
    }

    /// A job; one without a name has no path either.
    fn job(id: u64, path: &str, state: JobState, runner: Option<&str>) -> Job {
        let repository = Repository { host: "h".to_owned(), id: "octo/one".to_owned(), name: "octo/one".to_owned() };
        Job {
            id,
            run_attempt: 1,
            repository,
            path: path.to_owned(),
            name: String::new(),
            commit: String::new(),
            branch: String::new(),
            labels: BTreeSet::from([scale_set::label("lab")]),
            state,
            runner: runner.map(str::to_owned),
        }
    }

    fn start(pool: &mut Pool, now: u64, job: &Job) -> (TaskId, String) {
        let workload = Arc::new(job.workload());
        let (task, fence) = (workload.id(), Fence { attempt: 1, claim: Cid::of(&job.id.to_be_bytes()) });
        let deeds = pool.take(now, (task, fence), workload, scope(), false, u32::MAX);
        let [Deed::Configure { name, .. }] = deeds.as_slice() else { panic!("{deeds:?}") };
        pool.configured(now, name, job.id).expect("it is to be started");
        (task, name.clone())
    }

    fn told(pool: &mut Pool, now: u64, all: &[Job]) -> Vec<Deed> {
        let jobs = all.iter().map(|job| (job.id, job.clone())).collect();
        pool.told(now, now, &key(), &jobs, false)
    }

    #[test]
    fn what_is_not_told_of_is_not_gone_and_what_is_told_ends_its_task() {
        let mut pool = Pool::new("12D3KooWabcdefghij", 300_000);
        let one = job(1, "ci.yml", JobState::Queued, None);
        let (task, name) = start(&mut pool, 1, &one);
        assert_eq!(pool.jobs_of(&key(), &scope()), Some(BTreeSet::from([1])));
        assert!(pool.jobs().is_empty() && pool.registrations().is_empty(), "GitHub's list knows nothing of it");
        assert_eq!(told(&mut pool, 2, &[]), []);
        assert_eq!(told(&mut pool, 3, &[job(1, "ci.yml", JobState::InProgress, Some(&name))]), []);
        let deeds = told(&mut pool, 4, &[job(1, "ci.yml", DONE, Some(&name))]);
        assert!(
            matches!(deeds.as_slice(), [Deed::Report { task: of, report: Report::Finished { .. }, .. }] if *of == task)
        );
        assert_eq!(pool.jobs_of("scale-set:h/octo#other", &Scope::Organization("octo".to_owned())), None);
    }

    #[test]
    fn a_runner_brings_the_task_of_the_job_that_it_was_given() {
        let mut pool = Pool::new("12D3KooWabcdefghij", 300_000);
        let (task, name) = start(&mut pool, 1, &job(1, "ci.yml", JobState::Queued, None));
        let given = job(2, "ci.yml", JobState::InProgress, Some(&name));
        let deeds = told(&mut pool, 2, &[job(1, "ci.yml", JobState::Queued, None), given.clone()]);
        assert!(matches!(&deeds[0], Deed::Serves(workload) if workload.id() == given.workload().id()), "{deeds:?}");
        assert!(matches!(&deeds[1], Deed::Report { task: of, report: Report::GivenBack { .. }, .. } if *of == task));
    }

    #[test]
    fn what_stood_for_a_job_without_a_name_ends_with_its_runner() {
        let mut pool = Pool::new("12D3KooWabcdefghij", 300_000);
        let (task, name) = start(&mut pool, 1, &job(1, "", JobState::Queued, None));
        let order = pool.order_of(&name).expect("it is there");
        assert_eq!(pool.set_job_of(order), Some((scope(), 1)));
        pool.ended(2, order, "done");
        assert_eq!(told(&mut pool, 2 + USED_UP, &[]), []);
        let deeds = told(&mut pool, 3 + USED_UP, &[]);
        let [Deed::Report { task: of, report: Report::Finished { conclusion, .. }, .. }] = deeds.as_slice() else {
            panic!("{deeds:?}")
        };
        assert_eq!((*of, *conclusion), (task, Conclusion::Cancelled));
    }

    #[test]
    fn a_task_whose_job_another_runner_has_waits_without_one_but_not_for_ever() {
        let mut pool = Pool::new("12D3KooWabcdefghij", 300_000);
        let workload = Arc::new(job(1, "ci.yml", JobState::Queued, None).workload());
        let (task, fence) = (workload.id(), Fence { attempt: 2, claim: Cid::of(b"c") });
        let deeds = pool.take(1, (task, fence), workload, scope(), false, u32::MAX);
        let [Deed::Configure { name, .. }] = deeds.as_slice() else { panic!("{deeds:?}") };
        pool.taken(2, name);
        assert_eq!(told(&mut pool, 3, &[job(1, "ci.yml", JobState::InProgress, Some("theirs"))]), []);
        assert_eq!(told(&mut pool, 2 + FORSAKEN, &[]), []);
        let deeds = told(&mut pool, 3 + FORSAKEN, &[]);
        assert!(matches!(deeds.as_slice(), [Deed::Report { report: Report::GivenBack { .. }, .. }]), "{deeds:?}");
    }
}
