//! Where work comes from and how it begins here: sources, discoveries, submissions, checkouts.
//!
//! Everything that waits for git runs in a task of its own and comes back as a [`Found`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Daemon;
use super::chronicle::wall_ms;
use crate::control::{Answer, Refusal, SubmitQuery, proto};
use crate::forge::git::{self, History, LocalRepository, Resolved};
use crate::forge::{Findings, GitSource, Spec};
use crate::kernel::id::TaskId;
use crate::kernel::io::{Input, Report, SourceKey};
use crate::kernel::task::{Fence, Workload};
use crate::runner::{Order, Plan, PlannedJob};
use crate::wire;
use crate::workflow::{self, Job};

/// Between two looks at which repositories the sources hold.
const RESOLVE: Duration = Duration::from_secs(30);

/// What a helper task has found.
pub(super) enum Found {
    /// The repositories behind each source, or why they cannot be told.
    Repositories(Vec<(GitSource, Result<Resolved, String>)>),
    Discovered {
        source: SourceKey,
        found: Result<Findings, String>,
    },
    Submission {
        workload: Box<Result<Workload, String>>,
        answer: Answer<TaskId>,
    },
}

/// A repository that a source of this host holds.
struct Listed {
    source: GitSource,
    repository: LocalRepository,
    /// Tagged workflows at the last good discovery by this node.
    workflows: usize,
    problem: Option<String>,
}

/// The sources that this host lists.
pub(super) struct Sources {
    sources: Vec<GitSource>,
    listed: BTreeMap<SourceKey, Listed>,
    problems: BTreeMap<String, String>,
    next_resolve: Instant,
    /// What has been reported already, so that it is said once.
    said: BTreeSet<String>,
}

impl Sources {
    pub(super) fn new(sources: &[GitSource]) -> Self {
        Self {
            sources: sources.to_vec(),
            listed: BTreeMap::new(),
            problems: BTreeMap::new(),
            next_resolve: Instant::now(),
            said: BTreeSet::new(),
        }
    }

    pub(super) fn keys(&self) -> BTreeSet<SourceKey> {
        self.listed.keys().cloned().collect()
    }

    pub(super) const fn next_resolve(&self) -> Instant {
        self.next_resolve
    }

    fn repository(&self, workload: &Workload) -> Option<&LocalRepository> {
        let mut keys = workload.repository.sources().into_iter();
        keys.find_map(|key| self.listed.get(&key)).map(|listed| &listed.repository)
    }
}

impl Daemon {
    /// Looks anew which repositories the sources hold.
    pub(super) fn resolve_sources(&mut self) {
        self.sources.next_resolve = Instant::now() + RESOLVE;
        let (sources, find) = (self.sources.sources.clone(), self.find.clone());
        tokio::spawn(async move {
            let mut found = Vec::new();
            for source in sources {
                let resolved = git::resolve(&source).await.map_err(|error| error.to_string());
                found.push((source, resolved));
            }
            let _ = find.send(Found::Repositories(found)).await;
        });
    }

    pub(super) fn on_found(&mut self, found: Found) {
        match found {
            Found::Repositories(found) => self.on_repositories(found),
            Found::Discovered { source, found } => self.on_discovered(source, found),
            Found::Submission { workload, answer } => match workload.and_then(|workload| {
                wire::entry::check_workload(&workload).map_err(|error| error.to_string())?;
                Ok(workload)
            }) {
                Ok(_) if self.unwritten.is_some() => {
                    let why = "the disk takes nothing now: try again".to_owned();
                    answer.send(Err(self.disk_refuses().unwrap_or(Refusal::Unavailable(why))));
                }
                Ok(workload) => {
                    let token = self.token();
                    self.commands.insert(token, answer);
                    self.feed(Input::Submit { token, workload: Box::new(workload) });
                }
                Err(why) => answer.send(Err(Refusal::Invalid(why))),
            },
        }
    }

    fn on_repositories(&mut self, found: Vec<(GitSource, Result<Resolved, String>)>) {
        let before = self.sources.keys();
        let mut all = Resolved::default();
        let mut listed = BTreeMap::new();
        self.sources.problems.clear();
        for (source, resolved) in found {
            match resolved {
                Ok(resolved) => {
                    for repository in &resolved.repositories {
                        listed.entry(repository.path.clone()).or_insert_with(|| source.clone());
                    }
                    all.extend(resolved);
                }
                Err(why) => {
                    let spec = Spec::Git(source).to_string();
                    self.say_once(format!("source {spec}: {why}"));
                    self.sources.problems.insert(spec, why);
                }
            }
        }
        for warning in all.warnings {
            self.say_once(warning);
        }
        let mut kept = std::mem::take(&mut self.sources.listed);
        for repository in all.repositories {
            let (workflows, problem) = kept.remove(&repository.key).map_or((0, None), |k| (k.workflows, k.problem));
            if let Some(source) = listed.get(&repository.path).cloned() {
                let listed = Listed { source, repository, workflows, problem };
                self.sources.listed.insert(listed.repository.key.clone(), listed);
            }
        }
        let careful = |listed: &&Listed| self.settings.stop_when_cut_off.contains(&listed.source);
        let careful = self.sources.listed.values().filter(careful).map(|listed| listed.repository.key.clone());
        let careful = Input::Careful(careful.collect());
        self.feed(careful);
        if self.sources.keys() != before {
            self.feed(Input::Offer(self.offer()));
        }
    }

    fn say_once(&mut self, text: String) {
        if self.sources.said.insert(text.clone()) {
            self.chronicle.warn(text);
        }
    }

    /// Looks in a source for what should run.
    pub(super) fn discover(&mut self, source: SourceKey) {
        let Some(listed) = self.sources.listed.get(&source) else {
            self.inputs.push_back(Input::Undiscovered { source });
            return;
        };
        let (repository, find) = (listed.repository.clone(), self.find.clone());
        let submitted = self.node.pushed(&repository.repository);
        tokio::spawn(async move {
            let found = git::discover(&repository, &submitted).await.map_err(|error| error.to_string());
            let _ = find.send(Found::Discovered { source, found }).await;
        });
    }

    fn on_discovered(&mut self, source: SourceKey, found: Result<Findings, String>) {
        match found {
            Ok(findings) => {
                if let Some(listed) = self.sources.listed.get_mut(&source) {
                    listed.workflows = findings.workflows.iter().filter(|found| !found.tags.is_empty()).count();
                    listed.problem = None;
                }
                for found in &findings.workflows {
                    for dropped in &found.dropped {
                        self.say_once(format!(
                            "{} {} line {}: `{}` is not a tag and was dropped",
                            found.repository, found.path, dropped.line, dropped.word
                        ));
                    }
                    if let Some(why) = &found.why_not {
                        tracing::debug!("{} {} is not run: {why}", found.repository, found.path);
                    }
                }
                for warning in &findings.warnings {
                    self.say_once(warning.clone());
                }
                let workloads = findings.workloads.into_iter().filter_map(|workload| self.fit_for_the_wire(workload));
                let workloads: Vec<Workload> = workloads.collect();
                self.feed(Input::Discovered { source, workloads });
            }
            Err(why) => {
                if let Some(listed) = self.sources.listed.get_mut(&source) {
                    listed.problem = Some(why.clone());
                }
                self.say_once(format!("looking for workflows in {source}: {why}"));
                self.feed(Input::Undiscovered { source });
            }
        }
    }

    /// A task that other nodes would not take from this one is not introduced.
    fn fit_for_the_wire(&mut self, workload: Workload) -> Option<Workload> {
        match wire::entry::check_workload(&workload) {
            Ok(()) => Some(workload),
            Err(error) => {
                self.say_once(format!("{} {} is not run: {error}", workload.repository.name, workload.path));
                None
            }
        }
    }

    pub(super) fn source_list(&self) -> Vec<proto::Source> {
        let duties = self.node.duties();
        let now = self.now().mono;
        let listed = self.sources.listed.iter().map(|(key, listed)| proto::Source {
            spec: Spec::Git(listed.source.clone()).to_string(),
            key: key.clone(),
            duty: duties.get(key).map(ToString::to_string),
            discovered_ago_ms: self.node.discovered_ago(key, now),
            workflows: u32::try_from(listed.workflows).unwrap_or(u32::MAX),
            when_cut_off: if self.settings.stop_when_cut_off.contains(&listed.source) { "stop" } else { "keep" }
                .to_owned(),
            problem: listed.problem.clone(),
        });
        let failed = self.sources.problems.iter().map(|(spec, problem)| proto::Source {
            spec: spec.clone(),
            problem: Some(problem.clone()),
            ..proto::Source::default()
        });
        listed.chain(failed).collect()
    }

    /// Makes a task of a person's request.
    pub(super) fn submit(&mut self, submit: SubmitQuery, answer: Answer<TaskId>) {
        let SubmitQuery { repository, path, inputs, priority, request } = submit;
        let asked = Path::new(&repository);
        let mut meant = self.sources.listed.values().map(|listed| &listed.repository).filter(|listed| {
            listed.repository.name == repository
                || listed.repository.id == repository
                || listed.key == repository
                || (asked.is_absolute() && listed.path == asked)
        });
        let repository = match (meant.next().cloned(), meant.next()) {
            (Some(one), None) => one,
            (Some(one), Some(other)) => {
                let (one, other) = (one.path.display().to_string(), other.path.display());
                answer.send(Err(Refusal::Invalid(format!("`{repository}` may mean {one} or {other}: give the path"))));
                return;
            }
            (None, _) => {
                answer.send(Err(Refusal::NotFound(format!(
                    "no source of this node holds a repository `{repository}`: `runmesh inspect sources` shows those it has"
                ))));
                return;
            }
        };
        let request = request.unwrap_or_else(|| format!("{}-{}", wall_ms(), self.token().0));
        let find = self.find.clone();
        tokio::spawn(async move {
            let made = git::manual(&repository, &path, &inputs, &request, priority).await;
            let workload = Box::new(made.map_err(|error| error.to_string()));
            let _ = find.send(Found::Submission { workload, answer }).await;
        });
    }

    pub(super) fn log_path(&self, task: &TaskId, attempt: u32) -> PathBuf {
        self.settings.data_dir.join("logs").join(format!("{task}-{attempt}.log"))
    }

    /// The log of the latest attempt that ran here.
    pub(super) fn latest_log(&self, task: &TaskId) -> Option<PathBuf> {
        let attempts = self.node.task(task)?.claims.iter().filter(|claim| claim.author.peer == self.node.peer());
        let mut attempts: Vec<u32> = attempts.map(|claim| claim.fence.attempt).collect();
        attempts.sort_unstable();
        let mut paths = attempts.iter().rev().map(|attempt| self.log_path(task, *attempt));
        paths.find(|path| path.exists() || self.logs.contains_key(task))
    }

    /// Gives a task to the runner room.
    pub(super) async fn start_work(
        &mut self,
        task: TaskId,
        fence: Fence,
        workload: Arc<Workload>,
    ) -> Result<(), String> {
        let repository = self.sources.repository(&workload).cloned();
        let repository = repository.ok_or("this host does not list the task's repository any more")?;
        let log = self.log_path(&task, fence.attempt);
        if let Some(folder) = log.parent() {
            tokio::fs::create_dir_all(folder).await.map_err(|error| format!("making {}: {error}", folder.display()))?;
        }
        let (commit, r#ref, path) = (workload.commit.clone(), workload.r#ref.clone(), workload.path.clone());
        let order = Order {
            task,
            fence,
            isolation: self.settings.isolation,
            log,
            time_limit: Duration::from_secs(workload.time_limit_s.into()),
            checkout: Box::new(move |into| {
                Box::pin(async move {
                    let copied = git::checkout(&repository, &commit, &r#ref, &into, History::Full).await;
                    copied.map_err(|error| error.to_string())?;
                    plan(&into, &path).await
                })
            }),
            workload,
        };
        self.logs.insert(task, watch::Sender::new(false));
        self.runner.start(order).await.map_err(|error| error.to_string())
    }

    pub(super) fn on_report(&mut self, task: TaskId, fence: Fence, report: Report) {
        if let Some(log) = self.logs.remove(&task) {
            log.send_replace(true);
        }
        self.feed(Input::Ran { task, fence, report });
    }
}

/// The jobs that the checked-out workflow file promises.
async fn plan(checkout: &Path, path: &str) -> Result<Plan, String> {
    let file = checkout.join(path);
    let bytes = tokio::fs::read(&file).await.map_err(|error| format!("reading {path} of the checkout: {error}"))?;
    let read = workflow::read(path, &bytes);
    Ok(Plan { jobs: read.jobs.iter().map(planned).collect() })
}

fn planned(job: &Job) -> PlannedJob {
    PlannedJob {
        id: job.id.clone(),
        name: job.name.clone().unwrap_or_else(|| job.id.clone()),
        legs: job.legs.count().and_then(|legs| u32::try_from(legs).ok()),
        labels: job.runs_on.labels.clone(),
        timeout: job.timeout_s.map(|seconds| Duration::from_secs(seconds.into())),
        container: job.container,
        services: job.services,
        uses: job.uses.clone(),
    }
}
