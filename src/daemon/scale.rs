//! The autoscaler: runners for the jobs that GitHub queues.
//!
//! Owns when GitHub is asked, and carrying out what [`pool`] decides. A job that waits becomes a task of the mesh, so one
//! host starts a runner for it: where that task is claimed, the claim is on disk and told before GitHub is asked for a
//! configuration, and each registration is in the ledger before that ([`ledger`]). After a crash nothing runs here any more,
//! and the first look removes every registration in this host's name wherever the ledger says that there may be one. Leaves
//! who takes a task to the kernel, and the runner's process to the runner room.

mod asking;
mod ledger;
mod listener;
mod pool;
mod sets;
mod warm;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

pub(super) use self::asking::Asker;
use self::ledger::Registrations;
use self::pool::{Deed, Pool};
pub use self::sets::NO_SCALE_SET;
use self::sets::{News, Sets};
pub use self::warm::WarmSet;
use super::Daemon;
use super::demand::{self, Known, Round, Seen};
use super::found::Found;
use super::sources::Place;
use crate::forge::Spec;
use crate::forge::github::{
    Github, GithubError, Jit, Job, JobState, LONGEST_JOB_S, Removal, RunnerError, Scope, Target,
};
use crate::kernel::id::TaskId;
use crate::kernel::io::{Input, Report, SourceKey};
use crate::kernel::node::{Split, Standing};
use crate::kernel::scale_set;
use crate::kernel::task::{Fence, GITHUB_RUNNER, Products, Repository, State, Trigger, Workload};
use crate::net;
use crate::runner::{GithubRunner, Order, RunnerEnd, Secret, Work};

/// Configurations that are asked for at once.
const AT_ONCE: usize = 8;
/// How long GitHub is asked for a configuration before the task is given back.
const ASKING: Duration = Duration::from_secs(180);
/// Before it is asked again, at first; it doubles.
const AGAIN: Duration = Duration::from_secs(1);
/// How soon after news of a runner GitHub is asked about its job, and after how long again while it has not heard.
const SOON: Duration = Duration::from_millis(100);
const NOT_YET: Duration = Duration::from_secs(1);
/// How long taking back registrations may hold up the end of the node.
const FAREWELL: Duration = Duration::from_secs(5);

/// What the operator says of the autoscaler.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Between two looks which jobs wait.
    pub interval: Duration,
    /// How long a runner may wait for a job before it is retired.
    pub idle: Duration,
    /// The name of an organisation's runner group; runners are then registered with the organisation, else with the
    /// job's repository.
    pub group: Option<String>,
    /// The name of a runner scale set of each source at GitHub.
    pub scale_set: Option<String>,
    pub split: Split,
    /// Jobs for other processor architectures too.
    pub any_arch: bool,
    /// Runners that are to wait for jobs before there are any.
    pub warm: Vec<WarmSet>,
    /// How long one of those waits before another takes its place.
    pub warm_age: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(20),
            idle: Duration::from_secs(300),
            group: None,
            scale_set: None,
            split: Split::default(),
            any_arch: false,
            warm: Vec::new(),
            // GitHub forgets a runner that has not connected for a day; so it is never near that.
            warm_age: Duration::from_secs(6 * 3600),
        }
    }
}

/// What a helper of the autoscaler comes back with.
pub(super) enum Heard {
    Seen(Box<Seen>),
    Configured {
        name: String,
        answer: Result<Jit, RunnerError>,
    },
    Removed {
        name: String,
        answer: Result<Removal, GithubError>,
    },
    /// Of scale sets.
    Set(News),
}

pub(super) struct Scale {
    settings: Option<Settings>,
    pool: Pool,
    /// Away while a look is under way.
    known: Option<Known>,
    /// What GitHub may know of this host, as the database has it.
    registrations: Registrations,
    next_full: Instant,
    next: Instant,
    /// When it is looked next whether as many runners wait as should.
    next_tend: Option<Instant>,
    /// Jobs that some runner had at the last look, by repository id.
    taken: BTreeMap<String, BTreeSet<u64>>,
    asking: Arc<Semaphore>,
    helpers: JoinSet<()>,
    said: String,
    pub(super) sets: Sets,
    pub(super) asker: Asker,
    /// Members' questions that are being answered.
    answers: JoinSet<()>,
}

impl Scale {
    pub(super) fn new(
        settings: Option<Settings>,
        peer: &str,
        (sources, host): (&[Spec], &str),
        net: net::Client,
    ) -> Self {
        let set = settings.as_ref().and_then(|settings| settings.scale_set.as_deref());
        let group = settings.as_ref().and_then(|settings| settings.group.as_deref());
        let sets = Sets::new(set, group, sources, host);
        let idle = settings.as_ref().map_or(Duration::ZERO, |settings| settings.idle);
        let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        let warm = settings.as_ref().is_some_and(|settings| !settings.warm.is_empty());
        Self {
            next_tend: warm.then(Instant::now),
            settings,
            pool: Pool::new(peer, idle),
            known: Some(Known::default()),
            registrations: Registrations::default(),
            next_full: Instant::now(),
            next: Instant::now(),
            taken: BTreeMap::new(),
            asking: Arc::new(Semaphore::new(AT_ONCE)),
            helpers: JoinSet::new(),
            said: String::new(),
            sets,
            asker: Asker::new(net),
            answers: JoinSet::new(),
        }
    }

    fn interval(&self) -> Duration {
        self.settings.as_ref().map_or(NOT_YET, |settings| settings.interval)
    }

    /// When to look; nothing while a look is under way.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let look = (self.settings.is_some() && self.known.is_some()).then(|| self.next.min(self.next_full));
        look.into_iter().chain(self.next_tend).min()
    }

    /// How many slots there are for the kernel, of so many.
    pub(super) fn slots(&self, most: u32) -> u32 {
        self.pool.slots(most)
    }

    /// Whether a job runs here.
    pub(super) fn is_busy(&self) -> bool {
        self.pool.is_busy()
    }

    fn soon(&mut self, after: Duration) {
        self.sets.soon();
        self.next = self.next.min(Instant::now() + after);
    }
}

/// Whether what asks for these labels is given the host's devices.
fn wants_devices(labels: &BTreeSet<String>) -> bool {
    ["gpu", "cuda", "rocm"].into_iter().any(|label| labels.contains(label))
}

/// Whether a task is a job that GitHub has queued.
pub(super) const fn is_job(workload: &Workload) -> bool {
    matches!(workload.trigger, Trigger::GithubJob { .. })
}

impl Daemon {
    /// Why this host starts no runners although it was told to.
    pub(super) fn no_runners(&self) -> Option<String> {
        self.scale.settings.as_ref()?;
        let capabilities = self.runner.capabilities();
        let missing = capabilities.runner.as_ref().err().cloned();
        missing.or_else(|| capabilities.walls(self.settings.isolation).map(str::to_owned))
    }

    /// Whether this host starts GitHub's runners.
    pub(super) fn starts_runners(&self) -> bool {
        self.scale.settings.is_some() && self.settings.max_runners > 0 && self.no_runners().is_none()
    }

    /// What this host offers besides its own labels.
    pub(super) fn scale_labels(&self) -> BTreeSet<String> {
        let mut labels = BTreeSet::new();
        if self.starts_runners() {
            labels.insert(GITHUB_RUNNER.to_owned());
            labels.extend(self.scale.sets.labels());
            if self.scale.settings.as_ref().is_some_and(|settings| settings.any_arch) {
                labels.extend(["x64", "x86", "arm64", "arm"].map(str::to_owned));
            }
        }
        labels
    }

    /// Takes up where an earlier life of this node has left registrations.
    pub(super) fn begin_to_scale(&mut self) {
        let Some(settings) = &self.scale.settings else { return };
        let split = Split { mesh: settings.split.mesh && self.impediments_of_act().is_empty(), ..settings.split };
        self.inputs.push_back(Input::Split(split));
    }

    /// The kernel has claimed a job's task.
    pub(super) fn start_job(&mut self, task: TaskId, fence: Fence, workload: Arc<Workload>) {
        let name = &workload.repository.name;
        let group = self.scale.settings.as_ref().and_then(|settings| settings.group.as_ref());
        let set = self.scale.sets.scope_of(&workload);
        let is_listed = set.is_some() || matches!(self.sources.place_of(&workload), Some(Place::Github(..)));
        let scope = match group {
            _ if let Some(set) = set => set,
            Some(_) => Scope::Organization(name.split('/').next().unwrap_or_default().to_owned()),
            None => Scope::Repository(name.clone()),
        };
        if !self.starts_runners() || !is_listed {
            let why = self.no_runners().unwrap_or_else(|| "this host does not list the job's repository".to_owned());
            self.on_kept(task, fence, Report::Declined { why }, Products::default());
            return;
        }
        let now = self.now().mono;
        let Trigger::GithubJob { job, .. } = workload.trigger else { return };
        let is_taken = self.scale.taken.get(&workload.repository.id).is_some_and(|taken| taken.contains(&job))
            || self.scale.sets.is_taken(&workload)
            || fence.attempt > 1 && self.scale.sets.may_be_taken(&workload);
        let of_the_mesh = self.node.running().filter(|(_, _, workload)| !is_job(workload)).count();
        let most = self.settings.max_runners.saturating_sub(u32::try_from(of_the_mesh).unwrap_or(u32::MAX));
        let deeds = self.scale.pool.take(now, (task, fence), workload, scope, is_taken, most);
        self.carry_out_deeds(deeds);
    }

    /// The kernel takes a task away. `false` when it is no job's, or not here.
    pub(super) fn stop_job(&mut self, task: TaskId, fence: Fence) -> bool {
        if !self.scale.pool.holds(&task) {
            return false;
        }
        let now = self.now().mono;
        let deeds = self.scale.pool.lose(now, task, fence);
        self.carry_out_deeds(deeds);
        self.scale.soon(SOON);
        true
    }

    fn carry_out_deeds(&mut self, deeds: Vec<Deed>) {
        while self.scale.helpers.try_join_next().is_some() {}
        let github = self.sources.github();
        for deed in deeds {
            let find = self.find.clone();
            match deed {
                Deed::Configure { name, scope: scope @ Scope::ScaleSet { .. }, .. } => {
                    if let Some(order) = self.scale.pool.order_of(&name) {
                        self.configure_in_set(name, &scope, order);
                    }
                }
                Deed::Retire { name, scope: scope @ Scope::ScaleSet { .. }, registration }
                | Deed::Remove { name, scope: scope @ Scope::ScaleSet { .. }, registration } => {
                    self.remove_in_set(name, &scope, registration);
                }
                Deed::Configure { name, scope, labels } => {
                    let Some(github) = github.clone() else {
                        self.scale.helpers.spawn(async move {
                            let what = format!("register a runner with {scope}");
                            let why = "no source at GitHub could be opened".to_owned();
                            let answer = Err(RunnerError::Github(GithubError::Unreachable { what, why }));
                            let _ = find.send(Found::Scale(Heard::Configured { name, answer })).await;
                        });
                        continue;
                    };
                    let group = self.scale.settings.as_ref().and_then(|settings| settings.group.clone());
                    let asking = self.scale.asking.clone();
                    let entry = self.enter_registration(&name, &scope);
                    self.scale.helpers.spawn(async move {
                        if let Err(why) = entry.await {
                            let what = format!("note a runner to be registered with {scope}");
                            let answer = Err(RunnerError::Github(GithubError::Unreachable { what, why }));
                            let _ = find.send(Found::Scale(Heard::Configured { name, answer })).await;
                            return;
                        }
                        let asked = configure(&github, &scope, &name, &labels, group.as_deref(), &asking);
                        let gives_up = Err(RunnerError::Github(GithubError::Unreachable {
                            what: format!("register a runner with {scope}"),
                            why: format!("no configuration within {} s", ASKING.as_secs()),
                        }));
                        let answer = timeout(ASKING, asked).await.unwrap_or(gives_up);
                        let _ = find.send(Found::Scale(Heard::Configured { name, answer })).await;
                    });
                }
                Deed::Retire { name, scope, registration } | Deed::Remove { scope, registration, name } => {
                    let Some(github) = github.clone() else { continue };
                    self.scale.helpers.spawn(async move {
                        let answer = github.remove_runner(&scope, registration).await;
                        let _ = find.send(Found::Scale(Heard::Removed { name, answer })).await;
                    });
                }
                Deed::Stop { order: (task, fence) } => {
                    let runner = self.runner.clone();
                    self.scale.helpers.spawn(async move {
                        let _ = runner.stop(task, fence).await;
                    });
                }
                Deed::Report { task, fence, report } => self.on_told_report(task, fence, report),
                Deed::Tells { order, of } => self.share_log(order, of),
                Deed::Serves(workload) => {
                    if let Some(workload) = self.fit_for_the_wire(*workload) {
                        self.feed(Input::Serves(Box::new(workload)));
                    }
                }
            }
        }
        self.tell_slots();
    }

    /// Tells the kernel how many slots there are, if that has changed.
    fn tell_slots(&mut self) {
        let split = Split { spare: self.scale.pool.spare(), ..self.node.split() };
        if split != self.node.split() {
            self.inputs.push_back(Input::Split(split));
        }
        let offer = self.offer();
        if offer.slots != self.node.slots() {
            self.inputs.push_back(Input::Offer(offer));
        }
    }

    pub(super) async fn on_heard(&mut self, heard: Heard) {
        let now = self.now().mono;
        match heard {
            Heard::Seen(seen) => self.on_seen(*seen),
            Heard::Configured { name, answer: Ok(jit) } => self.on_configured(name, jit).await,
            Heard::Configured { name, answer: Err(error) } => {
                let why = error.to_string();
                self.say_once(why.clone());
                if error.is_final() {
                    // GitHub knows nothing of it.
                    self.strike_registrations(&[&name]);
                }
                let deeds = self.scale.pool.refused(now, &name, why, error.is_final());
                self.carry_out_deeds(deeds);
            }
            Heard::Set(news) => self.on_set_news(news).await,
            Heard::Removed { name, answer } => {
                if let Err(error) = &answer {
                    tracing::debug!("{error}");
                }
                let deeds = self.scale.pool.removed(now, &name, answer.ok());
                self.carry_out_deeds(deeds);
                self.scale.soon(SOON);
            }
        }
    }

    /// GitHub has registered a runner.
    async fn on_configured(&mut self, name: String, jit: Jit) {
        let now = self.now().mono;
        match self.scale.pool.configured(now, &name, jit.registration) {
            Ok(order) => {
                if let Err(why) = self.start_runner(&name, order, jit).await {
                    self.scale.pool.ended(now, order, &why);
                    self.scale.soon(SOON);
                }
            }
            Err(deeds) => self.carry_out_deeds(deeds),
        }
    }

    async fn start_runner(&mut self, name: &str, (task, fence): (TaskId, Fence), jit: Jit) -> Result<(), String> {
        let Some(settings) = self.scale.settings.clone() else { return Err("the autoscaler is off".to_owned()) };
        // The pool retires it in order before that.
        let idle = settings.idle + settings.interval * 2 + Duration::from_secs(60);
        let (repository, path, time_limit, idle, devices) = match self.scale.pool.waits_at(name) {
            Some((scope, labels)) => {
                let limit = Duration::from_secs(LONGEST_JOB_S.into());
                let idle = idle + settings.warm_age;
                (scope.to_string(), "waits for a job".to_owned(), limit + idle, idle, wants_devices(labels))
            }
            None => {
                let folded = self.node.task(&task).map(|folded| folded.workload.clone());
                let workload = folded.ok_or("its task is not known any more")?;
                let path = format!("{} {}", workload.path, workload.name).trim().to_owned();
                let devices = wants_devices(&workload.labels);
                let limit = Duration::from_secs(workload.time_limit_s.into());
                (workload.repository.name.clone(), path, limit, idle, devices)
            }
        };
        let log = self.log_path(&task, fence.attempt);
        if let Some(folder) = log.parent() {
            tokio::fs::create_dir_all(folder).await.map_err(|error| format!("making {}: {error}", folder.display()))?;
        }
        let order = Order {
            task,
            fence,
            repository,
            path,
            isolation: self.settings.isolation,
            log,
            time_limit,
            work: Work::GithubRunner(GithubRunner {
                name: name.to_owned(),
                jit: Secret::new(jit.configuration.expose().to_owned()),
                idle,
                devices,
            }),
        };
        self.logs.begins(task, fence.attempt);
        self.runner.start(order).await.map_err(|error| error.to_string())
    }

    /// What runners are to do may be another thing now.
    pub(super) fn look_for_jobs_soon(&mut self) {
        self.scale.soon(SOON);
    }

    /// A runner's hook says that it begins a job: which one GitHub knows.
    pub(super) fn on_runner_begins(&mut self, task: TaskId, fence: Fence, repository: &str) {
        self.scale.pool.begins((task, fence), repository);
        self.tell_slots();
        self.scale.soon(SOON);
    }

    pub(super) fn on_runner_end(&mut self, task: TaskId, fence: Fence, end: &RunnerEnd) {
        self.logs.ends(task, fence.attempt);
        let note = if end.note.is_empty() { String::new() } else { format!(": {}", end.note) };
        let why = format!("its runner {} ended without it ({}){note}", end.name, pool::word(&end.how));
        tracing::debug!("runner {} has ended: {:?}{note}", end.name, end.how);
        let now = self.now().mono;
        if let Some((scope, job)) = self.scale.pool.set_job_of((task, fence)) {
            self.runner_of_set_ended(&scope, job, end);
        }
        self.scale.pool.ended(now, (task, fence), &why);
        self.tell_slots();
        self.scale.soon(SOON);
    }

    /// Asks GitHub: of all that is this node's duty when that is due, else of what its runners do.
    pub(super) fn look_for_jobs(&mut self) {
        self.tend_warm();
        let (now, Some(settings)) = (Instant::now(), self.scale.settings.clone()) else { return };
        if self.scale.known.is_none() || now < self.scale.next.min(self.scale.next_full) {
            return;
        }
        let is_full = self.scale.next_full <= now;
        self.scale.next = now + settings.interval;
        if is_full {
            self.scale.next_full = now + settings.interval;
        }
        let active = matches!(self.node.standing(), Standing::Active | Standing::Draining);
        let Some(github) = self.sources.github().filter(|_| active) else {
            self.scale.next_full = now + NOT_YET;
            return;
        };
        let me = self.node.peer();
        let mine = |key: &SourceKey| self.node.on_duty_for_jobs(key) == Some(me);
        let sources: Vec<(SourceKey, Target)> =
            if is_full { self.sources.github_sources().filter(|(key, _)| mine(key)).collect() } else { Vec::new() };
        let (mut jobs, wide) = (self.scale.pool.jobs(), self.scale.pool.wide());
        if is_full || !wide.is_empty() {
            for (_, folded) in self.node.tasks().filter(|(_, folded)| folded.state.is_open()) {
                let workload = &folded.workload;
                let Trigger::GithubJob { job, .. } = workload.trigger else { continue };
                if scale_set::serves(workload) {
                    continue;
                }
                let repository = &workload.repository;
                let owner = repository.name.split('/').next().unwrap_or_default().to_ascii_lowercase();
                if folded.state == State::Pending && sources.iter().any(|(key, _)| repository.is_of(key)) {
                    jobs.entry(repository.clone()).or_default().insert(job);
                } else if repository.host == github.host() && wide.contains(&owner) {
                    jobs.entry(repository.clone()).or_default();
                }
            }
        }
        let scopes = if is_full { self.scale.registrations.scopes() } else { BTreeSet::new() };
        let waited_at = self.scale.pool.waited_at(is_full);
        if sources.is_empty() && jobs.is_empty() && scopes.is_empty() && waited_at.is_empty() {
            return;
        }
        let Some(known) = self.scale.known.take() else { return };
        let prefix = self.scale.pool.prefix().to_owned();
        let round = Round { github, asked: self.now().mono, sources, waited_at, jobs, scopes, prefix, known };
        let find = self.find.clone();
        self.scale.helpers.spawn(async move {
            let seen = round.look().await;
            let _ = find.send(Found::Scale(Heard::Seen(Box::new(seen)))).await;
        });
    }

    fn on_seen(&mut self, seen: Seen) {
        let Seen { asked, jobs, runners, problems, calls, known } = seen;
        self.scale.known = Some(known);
        for problem in problems {
            self.say_once(problem);
        }
        tracing::debug!("looking for jobs took {calls} calls");
        let (now, draining) = (self.now().mono, self.starts_nothing_new());
        let mut deeds = Vec::new();
        for (repository, on_duty, jobs) in jobs {
            let taken =
                jobs.values().filter(|job| matches!(job.state, JobState::InProgress | JobState::Completed { .. }));
            self.scale.taken.insert(repository.id.clone(), taken.map(|job| job.id).collect());
            if on_duty {
                self.tell_of_jobs(&repository, &jobs);
            }
            deeds.extend(self.scale.pool.see(now, asked, &repository, &jobs, draining));
        }
        self.strike_forgotten_registrations();
        for (scope, listed) in runners {
            deeds.extend(self.scale.pool.listed(asked, &scope, &listed));
            self.settle_registrations(now, asked, &scope, &listed);
        }
        deeds.extend(self.scale.pool.thin_out(now, draining));
        self.carry_out_deeds(deeds);
        if self.scale.pool.is_unsettled() || draining && !self.scale.pool.is_idle() {
            self.scale.soon(NOT_YET);
        }
        self.say_allocation();
    }

    /// What waits at GitHub becomes tasks, and the tasks of jobs that are over end.
    fn tell_of_jobs(&mut self, repository: &Repository, jobs: &BTreeMap<u64, Job>) {
        let waits = |job: &&Job| job.state == JobState::Queued && job.runner.is_none() && job.is_for_own_runners();
        let queued = jobs.values().filter(waits).map(Job::workload);
        let queued: Vec<Workload> = queued.filter(|one| !self.is_left_to_a_set(one)).collect();
        let queued: Vec<Workload> = queued.into_iter().filter_map(|one| self.fit_for_the_wire(one)).collect();
        let mut over = Vec::new();
        for (task, folded) in self.node.tasks().filter(|(_, folded)| folded.state == State::Pending) {
            let workload = &folded.workload;
            let Trigger::GithubJob { job, .. } = workload.trigger else { continue };
            if (&workload.repository.host, &workload.repository.id) == (&repository.host, &repository.id)
                && let Some(why) = demand::over(jobs.get(&job), Pool::is_of_a_mesh)
            {
                over.push((*task, why));
            }
        }
        if !queued.is_empty() || !over.is_empty() {
            // Before what follows frees a slot for one that is over.
            self.feed(Input::Jobs { queued, over });
        }
    }

    /// The source system's words.
    fn say_allocation(&mut self) {
        let now = self.node.allocation();
        let share = |running: u32, starts: u32| running + starts;
        let text = format!(
            "P2P workflows: {} pending, {} assigned\nAllocating {} runners for P2P tasks, {} for GitHub workflows\nP2P \
             Summary: {} pending and {} running of the mesh, {} pending and {} running of GitHub, {} slots",
            now.waiting.mesh,
            now.running.mesh,
            share(now.running.mesh, now.starts.mesh),
            share(now.running.github, now.starts.github),
            now.waiting.mesh,
            now.running.mesh,
            now.waiting.github,
            now.running.github,
            self.settings.max_runners,
        );
        if text != self.scale.said {
            text.lines().for_each(|line| tracing::info!("{line}"));
            self.scale.said = text;
        }
    }

    /// Takes all registrations back. What is busy GitHub keeps until it misses its runner.
    pub(super) async fn take_back_registrations(&mut self) {
        self.end_listeners(FAREWELL).await;
        self.take_back_in_sets(FAREWELL).await;
        let Some(github) = self.sources.github() else { return };
        self.scale.helpers.shutdown().await;
        let registrations = self.scale.pool.registrations();
        let mut removals: JoinSet<Option<String>> = JoinSet::new();
        let asking = Arc::new(Semaphore::new(AT_ONCE));
        for (name, scope, registration) in registrations {
            let (github, asking) = (github.clone(), asking.clone());
            removals.spawn(async move {
                let _turn = asking.acquire().await;
                match github.remove_runner(&scope, registration).await {
                    Ok(Removal::Gone) => Some(name),
                    Ok(Removal::Busy) => None,
                    Err(error) => {
                        tracing::warn!("{error}");
                        None
                    }
                }
            });
        }
        let mut gone = Vec::new();
        let all = async {
            while let Some(removed) = removals.join_next().await {
                gone.extend(removed.ok().flatten());
            }
        };
        if timeout(FAREWELL, all).await.is_err() {
            tracing::warn!("some runners' registrations could not be taken back; the next start does it");
        }
        self.strike_registrations(&gone.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// Asks for a configuration, again while that may help.
async fn configure(
    github: &Github,
    scope: &Scope,
    name: &str,
    labels: &BTreeSet<String>,
    group: Option<&str>,
    asking: &Semaphore,
) -> Result<Jit, RunnerError> {
    let mut pause = AGAIN;
    loop {
        let turn = asking.acquire().await;
        let answer = github.configure_runner(scope, name, labels, group).await;
        drop(turn);
        let wait = match &answer {
            Err(RunnerError::Github(GithubError::Limited { until, .. })) => {
                Duration::from_secs(until.saturating_sub(super::chronicle::wall_ms() / 1_000)).max(AGAIN)
            }
            Err(RunnerError::Github(GithubError::Unreachable { .. } | GithubError::Server { .. })) => {
                pause *= 2;
                pause
            }
            _ => return answer,
        };
        if let Err(error) = &answer {
            tracing::debug!("{error}");
        }
        sleep(wait).await;
    }
}
