//! What the one who listens knows of a set's jobs, and the tasks that it makes of them.
//!
//! A job is called by GitHub's name for it, in few bits: messages carry no number of the REST API, so these tasks stand
//! apart from those that are polled for, and polling leaves such jobs alone. How many runners are wanted is what GitHub's
//! statistics say, not how many jobs were named: messages name fifty at a time and may leave some out. What was not named
//! becomes a task without a name, which is taken for the job that its runner is given.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{QUIET, SURPLUS, Set};
use crate::daemon::Daemon;
use crate::forge::github::{JobState, JobWord, LONGEST_JOB_S, LONGEST_WAIT_S, Scope, Word};
use crate::kernel::id::{Digest, TaskId};
use crate::kernel::io::{Input, SourceKey};
use crate::kernel::ledger::Folded;
use crate::kernel::scale_set;
use crate::kernel::task::{GITHUB_RUNNER, Priority, Repository, RunEvent, State, Trigger, Workload};
use crate::wire::scale_set::{JobTold, Stands};

/// The most jobs that are remembered; those that are over go first.
const MOST: usize = 8_192;
/// The most tasks that are made up at once for what was not named.
const AT_ONCE: usize = 256;

/// The jobs that messages have told of in this node's time.
#[derive(Default)]
pub(super) struct Table {
    jobs: BTreeMap<u64, Known>,
    /// Jobs that were not named before a runner had them, and the tasks that stand for them.
    names: BTreeMap<u64, u64>,
    made_up: u64,
}

struct Known {
    stands: Stands,
    runner: Option<String>,
    since: Instant,
}

impl Table {
    pub(super) fn told(&self, job: u64) -> Option<JobTold> {
        let known = self.jobs.get(&job)?;
        Some(JobTold { job, stands: known.stands, runner: known.runner.clone() })
    }

    /// How these jobs stand as far as is known, and what runners have whose names begin so.
    pub(super) fn answer(&self, jobs: &BTreeSet<u64>, prefix: &str) -> Vec<JobTold> {
        let has = |known: &Known| known.runner.as_ref().is_some_and(|runner| runner.starts_with(prefix));
        let theirs = self.jobs.iter().filter(|(_, known)| known.stands == Stands::Running && has(known));
        let theirs = theirs.map(|(job, _)| *job).filter(|_| !prefix.is_empty());
        let all: BTreeSet<u64> = theirs.chain(jobs.iter().copied()).collect();
        all.into_iter().filter_map(|job| self.told(job)).collect()
    }

    /// What GitHub's lists say of a job whose end no message has told.
    pub(super) fn learn(&mut self, job: u64, runner: &str, state: JobState) {
        let stands = match state {
            JobState::InProgress => Stands::Running,
            JobState::Completed { conclusion, duration_ms } => Stands::Over { conclusion, duration_ms },
            JobState::Queued | JobState::Held => return,
        };
        if !self.is_over(job) {
            self.jobs.insert(job, Known { stands, runner: Some(runner.to_owned()), since: Instant::now() });
        }
    }

    /// What somebody else knows of a job, unless more is known here.
    pub(super) fn take_over(&mut self, told: JobTold) {
        let rank = |stands: Stands| match stands {
            Stands::Waiting => 0,
            Stands::Running => 1,
            Stands::Over { .. } => 2,
        };
        if self.jobs.get(&told.job).is_none_or(|known| rank(known.stands) < rank(told.stands)) {
            self.jobs.insert(told.job, Known { stands: told.stands, runner: told.runner, since: Instant::now() });
        }
    }

    /// Whether the job is over, or the runner has had another.
    pub(super) fn is_known(&self, job: u64, runner: &str) -> bool {
        let of_other = |(other, known): (&u64, &Known)| *other != job && known.runner.as_deref() == Some(runner);
        self.is_over(job) || self.jobs.iter().any(of_other)
    }

    pub(super) fn is_over(&self, job: u64) -> bool {
        self.jobs.get(&job).is_some_and(|known| matches!(known.stands, Stands::Over { .. }))
    }

    fn note(&mut self, job: u64, word: &Word) {
        let since = self.jobs.get(&job).map_or_else(Instant::now, |known| known.since);
        let (stands, runner, since) = match word {
            Word::Available => return,
            Word::Assigned if self.jobs.contains_key(&job) && !self.is_over(job) => return,
            Word::Assigned => (Stands::Waiting, None, Instant::now()),
            Word::Started { .. } if self.is_over(job) => return,
            Word::Started { runner } => (Stands::Running, Some(runner.clone()), Instant::now()),
            Word::Completed { runner, conclusion } => {
                let duration_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
                (Stands::Over { conclusion: *conclusion, duration_ms }, runner.clone(), since)
            }
        };
        self.jobs.insert(job, Known { stands, runner, since });
        if self.jobs.len() > MOST {
            let oldest = |over: bool| {
                let of = self.jobs.iter().filter(|(_, known)| matches!(known.stands, Stands::Over { .. }) == over);
                of.min_by_key(|(_, known)| known.since).map(|(job, _)| *job)
            };
            if let Some(job) = oldest(true).or_else(|| oldest(false)) {
                self.jobs.remove(&job);
                self.names.retain(|_, of| *of != job);
            }
        }
    }
}

/// Fifty-three bits of a job's name, so that every program that reads JSON reads them right.
fn number(set: &str, job: &str) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = Digest::of(&[b"runmesh scale set job", set.as_bytes(), b"#", job.as_bytes()]).0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 11
}

pub(super) fn job_number(workload: &Workload) -> u64 {
    if let Trigger::GithubJob { job, .. } = workload.trigger { job } else { 0 }
}

/// Whether it stands for a job that was not named.
fn is_made_up(workload: &Workload) -> bool {
    workload.path.is_empty()
}

impl Set {
    /// How many runners GitHub wants.
    fn wanted(&self) -> u32 {
        self.statistics.map_or(0, |told| told.total_assigned_jobs)
    }

    /// The task of a job.
    fn workload(&self, job: u64, run_attempt: u32, word: &JobWord) -> Workload {
        let (file, branch) = word.workflow.split_once('@').unwrap_or((&word.workflow, ""));
        let path = file.splitn(3, '/').nth(2).unwrap_or(".github/workflows");
        let mut labels: BTreeSet<String> = word.labels.iter().cloned().collect();
        labels.remove(&self.name.to_lowercase());
        let name = if word.name.is_empty() { path } else { &word.name };
        self.task(job, run_attempt, &word.repository, (path, branch, name), labels)
    }

    /// The task of a job that nobody has named.
    fn made_up(&mut self, session: &str) -> Workload {
        self.table.made_up += 1;
        let job = number(session, &format!("made up {}", self.table.made_up));
        let repository = match &self.of {
            Scope::Organization(owner) => format!("{owner}/*"),
            other => other.to_string(),
        };
        let name = format!("a job of the scale set {}", self.name);
        self.task(job, 1, &repository, ("", "", &name), BTreeSet::new())
    }

    fn task(
        &self,
        job: u64,
        run_attempt: u32,
        repository: &str,
        (path, branch, name): (&str, &str, &str),
        mut labels: BTreeSet<String>,
    ) -> Workload {
        labels.extend([GITHUB_RUNNER.to_owned(), scale_set::label(&self.name)]);
        // The numeric id is nowhere in the messages.
        let id = repository.to_ascii_lowercase();
        Workload {
            repository: Repository { host: self.host.clone(), id, name: repository.to_owned() },
            path: path.to_owned(),
            trigger: Trigger::GithubJob { job, run_attempt },
            commit: String::new(),
            r#ref: branch.to_owned(),
            event: RunEvent::WorkflowDispatch,
            name: name.to_owned(),
            tags: BTreeSet::new(),
            priority: Priority::of(&BTreeSet::new()),
            labels,
            inputs: BTreeMap::new(),
            time_limit_s: LONGEST_JOB_S,
            fallback_s: LONGEST_WAIT_S,
            concurrency: None,
        }
    }
}

impl Daemon {
    /// The tasks of a set that are not over, by what the ledger and the messages say.
    pub(super) fn open_tasks_of(&self, key: &str) -> Vec<(TaskId, Folded)> {
        let Some(set) = self.scale.sets.all.get(key) else { return Vec::new() };
        let open = self.node.tasks().filter(|(_, folded)| folded.state.is_open());
        let of_it = open.filter(|(_, folded)| self.scale.sets.of(&folded.workload).is_some_and(|(of, _)| of == key));
        let going = of_it.filter(|(_, folded)| !set.table.is_over(job_number(&folded.workload)));
        going.map(|(task, folded)| (*task, folded.clone())).collect()
    }

    /// What a message says of jobs becomes tasks, and ends those that nobody holds.
    pub(super) fn take_words(&mut self, key: &SourceKey, words: &[JobWord]) {
        let before = self.open_tasks_of(key);
        let Some(wanted) = self.scale.sets.all.get(key).map(Set::wanted) else { return };
        let serves = self.starts_runners();
        let (mut queued, mut over, mut ran) = (Vec::new(), Vec::new(), Vec::new());
        let mut open = before.len();
        // Told of whole in one message, as after a while in which nobody listened: nothing is left to do.
        let is_done = |word: &&JobWord| matches!(word.word, Word::Completed { .. });
        let done: BTreeSet<&str> = words.iter().filter(is_done).map(|word| word.job.as_str()).collect();
        let mut fresh = BTreeSet::new();
        let has_made_up = before.iter().any(|(_, folded)| is_made_up(&folded.workload));
        for word in words.iter().filter(|word| word.word != Word::Available) {
            let mut job = number(key, &word.job);
            let known = self.workload_of_job(key, job);
            let is_open = |job: u64| before.iter().any(|(_, folded)| job_number(&folded.workload) == job);
            let enough = open >= usize::try_from(wanted).unwrap_or(usize::MAX);
            let attempt = known.as_ref().map_or(0, |known| match known.trigger {
                Trigger::GithubJob { run_attempt, .. } => run_attempt,
                _ => 0,
            });
            let Some(set) = self.scale.sets.all.get_mut(key) else { return };
            let runner = match &word.word {
                Word::Started { runner } => Some(runner),
                Word::Completed { runner, .. } => runner.as_ref(),
                _ => None,
            };
            if let Some(of) = set.table.names.get(&job) {
                job = *of;
            } else if let (None, Some(runner)) = (&known, runner) {
                // One that was not named: the task for which its runner was started stands for it.
                let stands_for = before.iter().find(|(_, folded)| {
                    let State::Claimed { fence, .. } = &folded.state else { return false };
                    let named: bool = set.table.names.values().any(|of| *of == job_number(&folded.workload));
                    is_made_up(&folded.workload) && !named && runner.contains(&fence.claim.short())
                });
                if let Some((_, folded)) = stands_for {
                    let of = job_number(&folded.workload);
                    set.table.names.insert(job, of);
                    job = of;
                }
            }
            let is_new = match &word.word {
                // Again: GitHub takes a job back that no runner had in time, and assigns it anew.
                Word::Assigned if known.is_some() => !is_open(job) && set.table.is_over(job) && !enough,
                Word::Assigned => !(has_made_up && enough),
                Word::Started { .. } => known.is_none() && !is_open(job) && !set.table.is_over(job),
                _ => false,
            };
            set.table.note(job, &word.word);
            if is_new && !done.contains(word.job.as_str()) && fresh.insert(job) {
                open += 1;
                queued.push(set.workload(job, attempt + 1, word));
            }
            if let Word::Completed { runner, conclusion } = &word.word {
                let pending = before
                    .iter()
                    .filter(|(_, folded)| folded.state == State::Pending && job_number(&folded.workload) == job);
                match runner {
                    // It ended before anybody took its task, on a runner that waited for any: this node takes it to say so.
                    Some(_) if serves => ran.extend(pending.map(|(_, folded)| folded.workload.as_ref().clone())),
                    _ => {
                        let why = format!("GitHub says of its job: {}", conclusion.word());
                        over.extend(pending.map(|(task, _)| (*task, why.clone())));
                    }
                }
            }
        }
        let queued: Vec<Workload> = queued.into_iter().filter_map(|one| self.fit_for_the_wire(one)).collect();
        if !queued.is_empty() || !over.is_empty() {
            self.feed(Input::Jobs { queued, over });
        }
        for workload in ran {
            self.feed(Input::Serves(Box::new(workload)));
        }
        // What runs here may have changed by it.
        self.scale.sets.soon();
    }

    /// When nothing was heard for a while: as many tasks as GitHub wants runners, no fewer and no more.
    pub(super) fn level_out(&mut self, key: &SourceKey) {
        let Some(set) = self.scale.sets.all.get(key).filter(|set| set.listener.is_some()) else { return };
        let (Some(_), quiet) = (set.statistics, set.heard.elapsed()) else { return };
        if quiet < QUIET || !set.is_well {
            return;
        }
        let wanted = usize::try_from(set.wanted()).unwrap_or(usize::MAX);
        let mut open = self.open_tasks_of(key);
        if open.len() < wanted {
            let missing = (wanted - open.len()).min(AT_ONCE);
            let session = format!("{key} {} {}", self.node.peer(), self.started_ms);
            let Some(set) = self.scale.sets.all.get_mut(key) else { return };
            let queued: Vec<Workload> = (0..missing).map(|_| set.made_up(&session)).collect();
            tracing::info!("GitHub wants {wanted} runners of the scale set {}, and has named fewer jobs", set.name);
            self.feed(Input::Jobs { queued, over: Vec::new() });
        } else if open.len() > wanted && quiet >= SURPLUS {
            let surplus = open.len() - wanted;
            open.retain(|(_, folded)| folded.state == State::Pending);
            open.sort_by_key(|(task, folded)| (!is_made_up(&folded.workload), *task));
            let why = "GitHub has no job for it any more".to_owned();
            let over: Vec<_> = open.into_iter().take(surplus).map(|(task, _)| (task, why.clone())).collect();
            if !over.is_empty() {
                self.feed(Input::Jobs { queued: Vec::new(), over });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::task::Conclusion;

    fn started(runner: &str) -> Word {
        Word::Started { runner: runner.to_owned() }
    }

    fn completed(runner: Option<&str>, conclusion: Conclusion) -> Word {
        Word::Completed { runner: runner.map(str::to_owned), conclusion }
    }

    #[test]
    fn words_may_repeat_and_an_end_is_one_until_the_job_is_assigned_anew() {
        let mut table = Table::default();
        for word in [Word::Assigned, started("r-1"), Word::Assigned, started("r-1")] {
            table.note(1, &word);
        }
        assert_eq!(
            table.told(1).map(|told| (told.stands, told.runner)),
            Some((Stands::Running, Some("r-1".to_owned())))
        );
        for word in [completed(Some("r-1"), Conclusion::Success), started("r-1")] {
            table.note(1, &word);
        }
        let over = |table: &Table| {
            matches!(table.told(1).map(|told| told.stands), Some(Stands::Over { conclusion: Conclusion::Success, .. }))
        };
        assert!(over(&table));
        // Who followed knows less.
        table.take_over(JobTold { job: 1, stands: Stands::Running, runner: Some("r-2".to_owned()) });
        table.learn(1, "r-2", JobState::InProgress);
        assert!(over(&table) && table.told(2).is_none());
        table.note(1, &Word::Assigned);
        assert_eq!(table.told(1).map(|told| told.stands), Some(Stands::Waiting));
    }

    #[test]
    fn who_asks_is_told_of_its_jobs_and_of_what_its_runners_have() {
        let mut table = Table::default();
        table.note(1, &started("a-1"));
        table.note(2, &started("b-1"));
        table.note(3, &Word::Assigned);
        let told = |jobs: &[u64], prefix: &str| -> Vec<u64> {
            table.answer(&jobs.iter().copied().collect(), prefix).into_iter().map(|told| told.job).collect()
        };
        assert_eq!((told(&[3, 9], "a-"), told(&[], ""), told(&[2], "")), (vec![1, 3], vec![], vec![2]));
        assert!(table.is_known(3, "a-1") && !table.is_known(1, "a-1"));
    }

    #[test]
    fn no_more_than_so_many_jobs_are_remembered_and_those_that_are_over_go_first() {
        let mut table = Table::default();
        table.note(0, &Word::Assigned);
        for job in 1..=MOST as u64 {
            table.note(job, &completed(None, Conclusion::Cancelled));
        }
        assert_eq!(table.jobs.len(), MOST);
        assert!(table.told(0).is_some() && table.told(1).is_none());
    }
}
