//! Which runners this host has, which tasks it holds, and what follows from what GitHub says of both.
//!
//! Owns no process and asks nobody: what happens goes in, [`Deed`]s come out, times are milliseconds of the daemon's clock.
//! Promises
//! - GitHub binds a runner to a job, whichever it likes. A held task ends only by what GitHub reports of its job; the
//!   job that a runner here has becomes this host's ([`Deed::Serves`]), and what that runner was meant for is given back.
//! - A runner that GitHub calls busy is never ended from here, except at the end of the node.
//! - A registration in this host's name that no runner stands behind is removed, and a runner without registration ends.
//!
//! What waits for jobs that nobody has queued yet is [`warm`]'s; what ends a runner, and what it makes room for, [`ends`]'s.

mod ends;
mod told;
mod warm;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::forge::github::{Job, JobState, Scope};
use crate::kernel::id::TaskId;
use crate::kernel::io::Report;
use crate::kernel::scale_set;
use crate::kernel::task::{Conclusion, Fence, GITHUB_RUNNER, ReleaseReason, Repository, Trigger, Workload};

pub(super) use ends::word;
use written::Past;

/// What every runner of a mesh is called at its beginning.
const MARK: &str = "runmesh-";

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(super) enum Deed {
    /// Have GitHub register a runner, then start it.
    Configure { name: String, scope: Scope, labels: BTreeSet<String> },
    /// Take the registration back; the runner goes when it is gone.
    Retire { name: String, scope: Scope, registration: u64 },
    /// Stop the runner's process.
    Stop { order: (TaskId, Fence) },
    /// Take a registration back that nothing here stands behind.
    Remove { scope: Scope, registration: u64, name: String },
    /// Tell the kernel of a task's end here.
    Report { task: TaskId, fence: Fence, report: Report },
    /// Tell the kernel that a runner here has this job.
    Serves(Box<Workload>),
    /// What the runner of this order prints tells of this task.
    Tells { order: (TaskId, Fence), of: (TaskId, Fence) },
}

/// A task that this host holds.
#[derive(Debug)]
struct Held {
    fence: Fence,
    workload: Arc<Workload>,
    job: u64,
    since: u64,
    /// Since when no runner here is meant for it.
    bare: Option<u64>,
    /// Why its runner went.
    why: String,
    /// The runner of another order whose log tells of it.
    told_by: Option<(TaskId, Fence)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// GitHub is asked for its configuration.
    Configuring,
    /// It was started.
    Alive,
    /// GitHub is asked to forget it.
    Retiring,
    /// Its process is being ended.
    Ending,
}

/// A runner of this host.
#[derive(Debug)]
struct Hand {
    scope: Scope,
    /// That of the task it was started for, if it was for any.
    repository: Option<Repository>,
    labels: BTreeSet<String>,
    /// What the runner room knows it by.
    order: (TaskId, Fence),
    registration: Option<u64>,
    stage: Stage,
    /// The task that it was started for, or that was left to it.
    meant: Option<TaskId>,
    /// The job that GitHub has given it.
    serves: Option<u64>,
    since: u64,
    /// Since when it waits.
    idle: u64,
    /// Since when GitHub calls that job over.
    done: Option<u64>,
    /// It has waited for long enough.
    tired: bool,
    /// It is one of those that are to wait for jobs.
    kept: bool,
    /// The runner whose slot it gets: it is configured when that one is gone.
    after: Option<String>,
    /// The repository of the job that it says it has begun, as `OWNER/NAME`.
    begun: Option<String>,
}

pub(super) struct Pool {
    /// What the names of this host's runners begin with.
    prefix: String,
    /// How long a runner may wait for a job.
    patience: u64,
    held: BTreeMap<TaskId, Held>,
    hands: BTreeMap<String, Hand>,
    named: u64,
    /// No runner is started to wait before that time: one has ended without a job.
    rest_until: u64,
    past: Past,
}

impl Pool {
    /// `peer` is this node's name; its end is in those of its runners.
    pub(super) fn new(peer: &str, patience: u64) -> Self {
        let prefix = Self::prefix_of(peer);
        let (held, hands, past) = (BTreeMap::new(), BTreeMap::new(), Past::default());
        Self { prefix, patience, held, hands, named: 0, rest_until: 0, past }
    }

    /// What the names of all runners of a mesh begin with.
    pub(super) const fn mark() -> &'static str {
        MARK
    }

    /// What the names of a peer's runners begin with.
    pub(super) fn prefix_of(peer: &str) -> String {
        format!("{MARK}{}-", &peer[peer.len().saturating_sub(10)..])
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether a runner is of some host of a mesh.
    pub(super) fn is_of_a_mesh(runner: &str) -> bool {
        runner.starts_with(MARK)
    }

    /// How many slots there are for the kernel, which counts held tasks, of so many that there really are.
    pub(super) fn slots(&self, most: u32) -> u32 {
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        (most + count(self.held.len())).saturating_sub(count(self.hands.len()))
    }

    /// How many runners wait here that nothing is meant for: jobs may be claimed for them beside all slots.
    pub(super) fn spare(&self) -> u32 {
        u32::try_from(self.hands.values().filter(|hand| hand.is_spare()).count()).unwrap_or(u32::MAX)
    }

    pub(super) fn holds(&self, task: &TaskId) -> bool {
        self.held.contains_key(task)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty() && self.hands.is_empty()
    }

    /// The jobs of the held tasks, by repository; and repositories of which a runner may have been given some other job.
    pub(super) fn jobs(&self) -> BTreeMap<Repository, BTreeSet<u64>> {
        let mut jobs: BTreeMap<Repository, BTreeSet<u64>> = BTreeMap::new();
        for held in self.held.values().filter(|held| !scale_set::serves(&held.workload)) {
            jobs.entry(held.workload.repository.clone()).or_default().insert(held.job);
        }
        let loose = self.hands.values().filter(|hand| hand.is_loose() && !hand.is_of_a_set());
        for repository in loose.filter_map(|hand| hand.repository.as_ref()) {
            jobs.entry(repository.clone()).or_default();
        }
        jobs
    }

    /// Organisations of which a runner may have been given any job.
    pub(super) fn wide(&self) -> BTreeSet<String> {
        let owner = |hand: &Hand| match &hand.scope {
            Scope::Organization(name) if hand.serves.is_none() => Some(name.to_ascii_lowercase()),
            _ => None,
        };
        self.hands.values().filter_map(owner).collect()
    }

    /// Whether GitHub is to be asked again soon: it has not yet said what a runner did that has ended.
    pub(super) fn is_unsettled(&self) -> bool {
        self.held.values().any(|held| held.bare.is_some() && !held.why.is_empty())
    }

    /// Whether a runner here has a job.
    pub(super) fn is_busy(&self) -> bool {
        self.hands.values().any(|hand| hand.serves.is_some() && hand.done.is_none())
    }

    /// Whether a runner of that name is here, or is about to be.
    pub(super) fn has(&self, runner: &str) -> bool {
        self.hands.contains_key(runner)
    }

    /// The kernel says that this host has a task now. `is_taken`: at the last look some runner had its job already. `most` is
    /// how many runners there may be.
    pub(super) fn take(
        &mut self,
        now: u64,
        (task, fence): (TaskId, Fence),
        workload: Arc<Workload>,
        scope: Scope,
        is_taken: bool,
        most: u32,
    ) -> Vec<Deed> {
        let Trigger::GithubJob { job, .. } = workload.trigger else { return Vec::new() };
        let repository = workload.repository.clone();
        let mut labels = workload.labels.clone();
        labels.remove(GITHUB_RUNNER);
        let held = Held { fence, workload, job, since: now, bare: Some(now), why: String::new(), told_by: None };
        self.held.insert(task, held);
        let serves = |hand: &Hand| hand.serves == Some(job);
        let free = |hand: &Hand| hand.is_spare() && hand.serves_jobs_of(&scope) && labels.is_subset(&hand.labels);
        let is_served = self.hands.values().any(serves);
        if let Some(hand) = self.hands.values_mut().find(|hand| if is_served { serves(hand) } else { free(hand) }) {
            (hand.meant, hand.idle) = (Some(task), now);
            self.clothe(task);
            return Vec::new();
        }
        if is_taken {
            return Vec::new();
        }
        // Where there is no slot, one that waits and cannot have this job makes room for one that can.
        let is_full = self.hands.len() >= most as usize;
        let gives = self.hands.iter_mut().find(|(_, hand)| is_full && hand.is_spare() && hand.stage == Stage::Alive);
        let after = gives.map(|(name, hand)| {
            (hand.tired, hand.kept) = (true, false);
            name.clone()
        });
        let name = self.name(&fence);
        let hand = Hand {
            repository: Some(repository),
            meant: Some(task),
            after,
            ..Hand::new(now, scope.clone(), labels.clone(), (task, fence))
        };
        let waits = hand.after.is_some();
        self.hands.insert(name.clone(), hand);
        self.clothe(task);
        if waits { self.thin_out(now, false) } else { vec![Deed::Configure { name, scope, labels }] }
    }

    fn name(&mut self, fence: &Fence) -> String {
        self.named += 1;
        format!("{}{}-{}", self.prefix, fence.claim.short(), self.named)
    }

    /// A runner is meant for the task.
    fn clothe(&mut self, task: TaskId) {
        if let Some(held) = self.held.get_mut(&task) {
            held.bare = None;
        }
    }

    /// The kernel takes a task away: somebody else has it, or it ended. Its runner may still be given some job.
    pub(super) fn lose(&mut self, now: u64, task: TaskId, fence: Fence) -> Vec<Deed> {
        let report = match self.held.remove(&task) {
            Some(held) if held.fence == fence => {
                self.loosen(now, task);
                let why = "its job is another host's runner's".to_owned();
                Report::GivenBack { reason: ReleaseReason::Draining, why }
            }
            other => {
                self.held.extend(other.map(|held| (task, held)));
                Report::Stopped
            }
        };
        vec![Deed::Report { task, fence, report }]
    }

    /// Nothing is meant for the task any more.
    fn loosen(&mut self, now: u64, task: TaskId) {
        for hand in self.hands.values_mut().filter(|hand| hand.meant == Some(task)) {
            (hand.meant, hand.idle) = (None, now);
        }
        if let Some(held) = self.held.get_mut(&task) {
            held.bare = Some(now);
        }
    }

    /// GitHub has registered a runner: the order to start it under, unless nothing is meant for it any more.
    ///
    /// # Errors
    /// What to do instead.
    pub(super) fn configured(&mut self, now: u64, name: &str, registration: u64) -> Result<(TaskId, Fence), Vec<Deed>> {
        let Some(hand) = self.hands.get_mut(name) else { return Err(Vec::new()) };
        if hand.meant.is_none() && !hand.kept {
            let deed = Deed::Remove { scope: hand.scope.clone(), registration, name: name.to_owned() };
            self.hands.remove(name);
            return Err(vec![deed]);
        }
        hand.registration = Some(registration);
        (hand.stage, hand.since, hand.idle) = (Stage::Alive, now, now);
        Ok(hand.order)
    }

    /// GitHub has not registered it, and will not do so.
    pub(super) fn refused(&mut self, now: u64, name: &str, why: String, is_final: bool) -> Vec<Deed> {
        let Some(hand) = self.hands.remove(name) else { return Vec::new() };
        let Some(task) = hand.meant else {
            self.rest(now);
            return Vec::new();
        };
        let Some(held) = self.held.remove(&task) else { return Vec::new() };
        let report = match is_final {
            true => Report::Declined { why },
            false => Report::GivenBack { reason: ReleaseReason::Draining, why },
        };
        vec![Deed::Report { task, fence: held.fence, report }]
    }

    /// A runner's process has ended. GitHub says what of its job.
    pub(super) fn ended(&mut self, now: u64, order: (TaskId, Fence), why: &str) {
        let Some(name) = self.hands.iter().find(|(_, hand)| hand.order == order).map(|(name, _)| name.clone()) else {
            return;
        };
        let Some(hand) = self.hands.remove(&name) else { return };
        self.past.push(name, order);
        if hand.kept && hand.stage == Stage::Alive && hand.serves.is_none() && hand.begun.is_none() {
            self.rest(now);
        }
        if let Some(held) = hand.meant.and_then(|task| self.held.get_mut(&task)) {
            (held.bare, held.why) = (Some(now), why.to_owned());
        }
    }

    /// The jobs of a repository, as GitHub told them to a question that was asked at `asked`.
    pub(super) fn see(
        &mut self,
        now: u64,
        asked: u64,
        repository: &Repository,
        jobs: &BTreeMap<u64, Job>,
        draining: bool,
    ) -> Vec<Deed> {
        let mut deeds = self.written_elsewhere(jobs);
        for job in jobs.values().filter(|job| matches!(job.state, JobState::InProgress | JobState::Completed { .. })) {
            let hand = job.runner.as_ref().and_then(|runner| self.hands.get_mut(runner));
            // What those of scale sets have is told in other numbers.
            if let Some(hand) = hand.filter(|hand| !hand.is_of_a_set()) {
                hand.serves = Some(job.id);
                if job.state != JobState::InProgress {
                    hand.done.get_or_insert(now);
                }
            }
        }
        // Claimed before what its runner was meant for is given back.
        let mine: BTreeSet<u64> = self.held.values().map(|held| held.job).collect();
        let serving: BTreeSet<u64> = self.hands.values().filter_map(|hand| hand.serves).collect();
        for job in serving.iter().filter_map(|id| jobs.get(id)) {
            if job.state == JobState::InProgress && !mine.contains(&job.id) {
                deeds.push(Deed::Serves(Box::new(job.workload())));
            }
        }
        let of_it = |held: &&Held| same(&held.workload.repository, repository);
        let held: Vec<(TaskId, u64)> =
            self.held.iter().filter(|(_, held)| of_it(held)).map(|(task, held)| (*task, held.job)).collect();
        for (task, job) in held {
            deeds.extend(self.judge(now, asked, task, jobs.get(&job), draining));
        }
        deeds
    }

    /// What becomes of a held task, its job being so.
    fn judge(&mut self, now: u64, asked: u64, task: TaskId, job: Option<&Job>, draining: bool) -> Option<Deed> {
        let Some(job) = job else {
            // What was asked before it came here was not asked about it.
            self.held.get(&task).filter(|held| held.since <= asked)?;
            let report = Report::Finished {
                conclusion: Conclusion::Cancelled,
                duration_ms: 0,
                note: "GitHub shows its job no more".to_owned(),
            };
            return self.give_up(now, task, report);
        };
        match job.state {
            JobState::Completed { conclusion, duration_ms } => {
                let by = job.runner.as_ref().map_or_else(String::new, |runner| format!(" on {runner}"));
                let note = format!("GitHub says so of its job {}{by}", job.id);
                self.give_up(now, task, Report::Finished { conclusion, duration_ms, note })
            }
            JobState::InProgress => {
                let serving = self.hands.iter().find(|(_, hand)| hand.serves == Some(job.id));
                let serving = serving.map(|(name, _)| name.clone());
                let meant = self.hands.iter().find(|(_, hand)| hand.meant == Some(task)).map(|(name, _)| name.clone());
                if serving == meant {
                    return None;
                }
                self.loosen(now, task);
                if let Some(hand) = serving.and_then(|name| self.hands.get_mut(&name)) {
                    // What that one was meant for is left to the one that was meant for this.
                    let other = hand.meant.replace(task);
                    self.clothe(task);
                    if let Some(other) = other {
                        let spare = meant.and_then(|name| self.hands.get_mut(&name));
                        match spare.filter(|hand| hand.is_loose() && hand.stage == Stage::Alive) {
                            Some(spare) => spare.meant = Some(other),
                            None => self.loosen(now, other),
                        }
                    }
                }
                // Else another host's runner has it: that host takes the task, or GitHub's word ends it here.
                None
            }
            JobState::Queued | JobState::Held => self.judge_queued(now, asked, task, job.id, draining),
        }
    }

    fn judge_queued(&mut self, now: u64, asked: u64, task: TaskId, job: u64, draining: bool) -> Option<Deed> {
        let patience = self.patience;
        let given_back = |reason: ReleaseReason, why: &str| Report::GivenBack { reason, why: why.to_owned() };
        let Some((name, hand)) = self.hands.iter_mut().find(|(_, hand)| hand.meant == Some(task)) else {
            let held = self.held.get(&task)?;
            // What was asked before the runner went may be old news.
            if held.bare.is_none_or(|at| at > asked) {
                return None;
            }
            let why = if held.why.is_empty() { "its runner took another job".to_owned() } else { held.why.clone() };
            let reason = if held.why.is_empty() { ReleaseReason::Draining } else { ReleaseReason::NotRunning };
            return self.give_up(now, task, given_back(reason, &why));
        };
        if hand.serves.is_some_and(|serves| serves != job) {
            let report = given_back(ReleaseReason::Draining, "its runner took another job");
            return self.give_up(now, task, report);
        }
        if hand.stage == Stage::Alive && hand.serves.is_none() && (draining || now - hand.idle >= patience) {
            let why = if draining { "its host takes nothing new" } else { "GitHub gave its runner no job in time" };
            let reason = if draining { ReleaseReason::Draining } else { ReleaseReason::NotRunning };
            tracing::debug!("runner {name}: {why}");
            hand.tired = true;
            return self.give_up(now, task, given_back(reason, why));
        }
        None
    }

    fn give_up(&mut self, now: u64, task: TaskId, report: Report) -> Option<Deed> {
        self.loosen(now, task);
        let held = self.held.remove(&task)?;
        Some(Deed::Report { task, fence: held.fence, report })
    }

    /// All registrations that there may be, by the runners' names, for the end of the node; those in scale sets apart.
    pub(super) fn registrations(&self) -> Vec<(String, Scope, u64)> {
        let others = self.hands.iter().filter(|(_, hand)| !hand.is_of_a_set());
        others.filter_map(|(name, hand)| Some((name.clone(), hand.scope.clone(), hand.registration?))).collect()
    }
}

impl Hand {
    /// One that is to be configured, and that nothing is meant for yet.
    const fn new(now: u64, scope: Scope, labels: BTreeSet<String>, order: (TaskId, Fence)) -> Self {
        Self {
            scope,
            repository: None,
            labels,
            order,
            registration: None,
            stage: Stage::Configuring,
            meant: None,
            serves: None,
            since: now,
            idle: now,
            done: None,
            tired: false,
            kept: false,
            after: None,
            begun: None,
        }
    }

    /// Whether it may be given the jobs for which a runner would be registered there.
    fn serves_jobs_of(&self, scope: &Scope) -> bool {
        match (&self.scope, scope) {
            (Scope::Organization(name), Scope::Repository(repository)) => {
                repository.split('/').next().is_some_and(|owner| owner.eq_ignore_ascii_case(name))
            }
            (mine, scope) => mine == scope,
        }
    }

    /// Whether some task may be left to it.
    const fn is_spare(&self) -> bool {
        self.is_loose()
            && self.begun.is_none()
            && !self.tired
            && matches!(self.stage, Stage::Alive | Stage::Configuring)
    }

    const fn is_of_a_set(&self) -> bool {
        matches!(self.scope, Scope::ScaleSet { .. })
    }

    const fn is_loose(&self) -> bool {
        self.meant.is_none() && self.serves.is_none()
    }
}

/// Names change, ids do not.
fn same(a: &Repository, b: &Repository) -> bool {
    (&a.host, &a.id) == (&b.host, &b.id)
}

#[cfg(test)]
mod tests;
