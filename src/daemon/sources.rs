//! Where work comes from: which repositories the sources hold, who looks into them, what a person submits.
//!
//! Everything that waits for git or GitHub runs in a task of its own and comes back as a [`Found`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::Daemon;
use super::chronicle::wall_ms;
use super::found::Found;
use crate::control::{Answer, Refusal, SubmitQuery, proto};
use crate::forge::git::{self, LocalRepository, Resolved};
use crate::forge::github::{Cycle, Github, GithubError, Limits, Looked, Memory, Tally, Target, Terms};
use crate::forge::{Asked, Findings, FirstScan, GitSource, Spec};
use crate::kernel::id::TaskId;
use crate::kernel::io::{Discovery, Input, RepositoryMark, SourceKey};
use crate::kernel::scale_set;
use crate::kernel::task::Workload;
use crate::wire;

/// Between two looks at which repositories the sources hold.
const RESOLVE: Duration = Duration::from_secs(30);
/// Between two questions which owners `github:*` stands for; it costs calls.
const OWNERS: Duration = Duration::from_secs(600);
/// The most that is kept of a source from one look to the next, in bytes: that of ten thousand tagged files.
const MAX_MEMORY: usize = 64 << 20;
/// The most repositories that a refusal names.
const MOST_NAMED: usize = 5;

/// Why a look has failed.
pub(super) struct Failed {
    why: String,
    /// Until when another will fail too, in seconds since 1970, where GitHub has told.
    until: Option<u64>,
}

impl From<GithubError> for Failed {
    fn from(error: GithubError) -> Self {
        Self { why: error.to_string(), until: error.until() }
    }
}

impl From<git::GitError> for Failed {
    fn from(error: git::GitError) -> Self {
        Self { why: error.to_string(), until: None }
    }
}

/// What the sources hold, or why that cannot be told.
pub(super) struct Resolution {
    local: Vec<(GitSource, Result<Resolved, String>)>,
    github: Result<Option<Github>, String>,
    /// Of `github:*`, when it was asked.
    owners: Option<Result<Vec<String>, String>>,
}

/// Where a source's workflows are.
#[derive(Clone)]
pub(super) enum Place {
    Local(LocalRepository),
    Github(Github, Target),
}

/// A source of this host: a local repository, or an owner's or one repository at GitHub.
struct Listed {
    spec: Spec,
    place: Place,
    /// Tagged workflows at the last good discovery by this node.
    workflows: usize,
    problem: Option<String>,
    /// Of the last look at GitHub by this node.
    cycle: Option<Cycle>,
}

/// Somebody waits for the end of looks that he asked for.
struct Awaited {
    answer: Answer<proto::DiscoverResponse>,
    left: BTreeSet<SourceKey>,
    sum: proto::DiscoverResponse,
}

/// The sources that this host lists.
pub(super) struct Sources {
    specs: Vec<Spec>,
    listed: BTreeMap<SourceKey, Listed>,
    problems: BTreeMap<String, String>,
    next_resolve: Instant,
    github: Option<Github>,
    /// What `github:*` stands for, and when to ask again.
    owners: Vec<String>,
    next_owners: Instant,
    memories: BTreeMap<SourceKey, Memory>,
    awaited: Vec<Awaited>,
    /// Looks under way.
    busy: BTreeSet<SourceKey>,
    /// What has been reported already, so that it is said once.
    said: BTreeSet<String>,
}

impl Sources {
    pub(super) fn new(specs: &[Spec]) -> Self {
        Self {
            specs: specs.to_vec(),
            listed: BTreeMap::new(),
            problems: BTreeMap::new(),
            next_resolve: Instant::now(),
            github: None,
            owners: Vec::new(),
            next_owners: Instant::now(),
            memories: BTreeMap::new(),
            awaited: Vec::new(),
            busy: BTreeSet::new(),
            said: BTreeSet::new(),
        }
    }

    pub(super) fn keys(&self) -> BTreeSet<SourceKey> {
        self.listed.keys().cloned().collect()
    }

    pub(super) const fn next_resolve(&self) -> Instant {
        self.next_resolve
    }

    /// Where a task's repository is, as seen from here.
    pub(super) fn place_of(&self, workload: &Workload) -> Option<&Place> {
        let mut keys = workload.repository.sources().into_iter();
        keys.find_map(|key| self.listed.get(&key)).map(|listed| &listed.place)
    }

    /// The way to GitHub, if some source is there.
    pub(super) fn github(&self) -> Option<Github> {
        self.github.clone()
    }

    /// The sources at GitHub that are known to be there.
    pub(super) fn github_sources(&self) -> impl Iterator<Item = (SourceKey, Target)> {
        self.listed.iter().filter_map(|(key, listed)| match &listed.place {
            Place::Github(_, target) => Some((key.clone(), target.clone())),
            Place::Local(_) => None,
        })
    }

    /// The sources at GitHub, as far as it is known what they are.
    fn targets(&self) -> Vec<(Spec, Target)> {
        let mut targets = Vec::new();
        for spec in &self.specs {
            match (spec, Target::of(spec)) {
                (Spec::GithubAll, _) => {
                    let owner = |owner: &String| Target { owner: owner.clone(), repository: None };
                    targets.extend(self.owners.iter().map(|one| (spec.clone(), owner(one))));
                }
                (_, Some(target)) => targets.push((spec.clone(), target)),
                _ => {}
            }
        }
        targets
    }
}

impl Daemon {
    /// Looks anew which repositories the sources hold.
    pub(super) fn resolve_sources(&mut self) {
        let now = Instant::now();
        self.sources.next_resolve = now + RESOLVE;
        let specs = self.sources.specs.clone();
        let at_github = specs.iter().any(|spec| !matches!(spec, Spec::Git(_)));
        let all = specs.contains(&Spec::GithubAll) && self.sources.next_owners <= now;
        if all {
            self.sources.next_owners = now + OWNERS;
        }
        let (github, settings, find) = (self.sources.github.clone(), self.settings.github.clone(), self.find.clone());
        tokio::spawn(async move {
            let mut local = Vec::new();
            for spec in specs {
                if let Spec::Git(source) = spec {
                    let resolved = git::resolve(&source).await.map_err(|error| error.to_string());
                    local.push((source, resolved));
                }
            }
            let github = match (github, at_github) {
                (Some(github), _) => Ok(Some(github)),
                (None, false) => Ok(None),
                (None, true) => settings.open().await.map(Some).map_err(|error| error.to_string()),
            };
            let owners = match &github {
                Ok(Some(github)) if all => {
                    let owners = github.owners(&mut Memory::default(), &Tally::default()).await;
                    Some(owners.map_err(|error| error.to_string()))
                }
                _ => None,
            };
            let _ = find.send(Found::Places(Box::new(Resolution { local, github, owners }))).await;
        });
    }

    pub(super) fn on_places(&mut self, resolution: Resolution) {
        let before = self.sources.keys();
        let mut places: Vec<(SourceKey, Spec, Place)> = Vec::new();
        self.sources.problems.clear();
        let mut all = Resolved::default();
        let mut specs = BTreeMap::new();
        for (source, resolved) in resolution.local {
            match resolved {
                Ok(resolved) => {
                    for repository in &resolved.repositories {
                        specs.entry(repository.path.clone()).or_insert_with(|| Spec::Git(source.clone()));
                    }
                    all.extend(resolved);
                }
                Err(why) => self.source_problem(Spec::Git(source).to_string(), why),
            }
        }
        for warning in all.warnings {
            self.say_once(warning);
        }
        for repository in all.repositories {
            if let Some(spec) = specs.get(&repository.path) {
                places.push((repository.key.clone(), spec.clone(), Place::Local(repository)));
            }
        }
        match resolution.owners {
            Some(Ok(owners)) => self.sources.owners = owners,
            Some(Err(why)) => {
                self.sources.next_owners = Instant::now() + RESOLVE;
                self.source_problem(Spec::GithubAll.to_string(), why);
            }
            None => {}
        }
        match resolution.github {
            Ok(Some(github)) => {
                for (spec, target) in self.sources.targets() {
                    places.push((github.key(&target), spec, Place::Github(github.clone(), target)));
                }
                self.sources.github = Some(github);
            }
            Ok(None) => {}
            Err(why) => {
                let specs: Vec<String> = self
                    .sources
                    .specs
                    .iter()
                    .filter(|spec| !matches!(spec, Spec::Git(_)))
                    .map(Spec::to_string)
                    .collect();
                specs.into_iter().for_each(|spec| self.source_problem(spec, why.clone()));
            }
        }
        let mut kept = std::mem::take(&mut self.sources.listed);
        for (key, spec, place) in places {
            let (workflows, problem, cycle) =
                kept.remove(&key).map_or((0, None, None), |kept| (kept.workflows, kept.problem, kept.cycle));
            let listed = Listed { spec, place, workflows, problem, cycle };
            self.sources.listed.entry(key).or_insert(listed);
        }
        self.feed(Input::Careful(self.careful_sources()));
        if self.sources.keys() != before {
            self.feed(Input::Offer(self.offer()));
        }
    }

    /// The listed sources whose tasks are stopped when this node is cut off.
    pub(super) fn careful_sources(&self) -> BTreeSet<SourceKey> {
        let careful = |listed: &Listed| self.settings.stop_when_cut_off.contains(&listed.spec);
        self.sources.listed.iter().filter(|(_, listed)| careful(listed)).map(|(key, _)| key.clone()).collect()
    }

    fn source_problem(&mut self, spec: String, why: String) {
        self.say_once(format!("source {spec}: {why}"));
        self.sources.problems.insert(spec, why);
    }

    pub(super) fn say_once(&mut self, text: String) {
        if self.sources.said.insert(text.clone()) {
            self.chronicle.warn(text);
        }
    }

    /// Looks in a source for what should run.
    pub(super) fn discover(&mut self, source: SourceKey, except: BTreeSet<RepositoryMark>) {
        if scale_set::is_source(&source) {
            return self.on_set_discover(source);
        }
        let Some(listed) = self.sources.listed.get(&source) else {
            self.inputs.push_back(Input::Undiscovered { source, wait_ms: None });
            return;
        };
        let manner = self.settings.manners.get(&listed.spec).copied().unwrap_or_default();
        if !self.sources.busy.insert(source.clone()) {
            // A person has asked for the same just now; its end serves both.
            return;
        }
        let (place, find, minute) = (listed.place.clone(), self.find.clone(), wall_ms() / 60_000);
        match place {
            Place::Local(repository) => {
                let known = self.node.known(git::HOST).remove(&repository.repository.id).unwrap_or_default();
                tokio::spawn(async move {
                    let mut found = git::discover(&repository, &known, minute).await.map_err(Failed::from);
                    if let (Ok(found), FirstScan::Record, true) =
                        (&mut found, manner.first_scan, known.workflows.is_empty())
                    {
                        found.record(&repository.repository.name);
                    }
                    let _ = find.send(Found::Looked { source, found: Box::new(found), remembered: None }).await;
                });
            }
            Place::Github(github, target) => {
                let known = self.node.known(github.host());
                let memory = self.memory(&source);
                tokio::spawn(async move {
                    let terms = Terms { known: &known, minute, except: &except, manner, progress: &|_, _| () };
                    let Looked { memory, cycle, outcome } = github.discover(&target, memory, terms).await;
                    let found = outcome.map_err(Failed::from);
                    let remembered = Some((Box::new(memory), cycle));
                    let _ = find.send(Found::Looked { source, found: Box::new(found), remembered }).await;
                });
            }
        }
    }

    /// What is remembered of a source at GitHub; after a restart, what the database has of it.
    fn memory(&mut self, source: &SourceKey) -> Memory {
        if let Some(memory) = self.sources.memories.get(source) {
            return memory.clone();
        }
        let noted = tokio::task::block_in_place(|| self.store.note(&note_name(source)));
        let memory = match noted {
            Ok(bytes) => bytes.map(|bytes| Memory::read(&bytes)).unwrap_or_default(),
            Err(error) => {
                tracing::warn!("{error}");
                Memory::default()
            }
        };
        self.sources.memories.insert(source.clone(), memory.clone());
        memory
    }

    fn remember(&mut self, source: &SourceKey, memory: Memory) {
        let same = self.sources.memories.get(source).is_some_and(|known| known.is_kept_like(&memory));
        if !same {
            let bytes = memory.bytes();
            if bytes.len() <= MAX_MEMORY {
                let noted = tokio::task::block_in_place(|| self.store.keep_note(&note_name(source), &bytes));
                if let Err(error) = noted {
                    tracing::warn!("{error}");
                }
            }
        }
        self.sources.memories.insert(source.clone(), memory);
    }

    pub(super) fn on_looked(
        &mut self,
        source: SourceKey,
        found: Result<Findings, Failed>,
        remembered: Option<(Box<Memory>, Cycle)>,
    ) {
        self.sources.busy.remove(&source);
        let cycle = remembered.map(|(memory, cycle)| {
            self.remember(&source, *memory);
            cycle
        });
        if let Some(listed) = self.sources.listed.get_mut(&source) {
            listed.problem = found.as_ref().err().map(|failed| failed.why.clone());
            listed.cycle = cycle.clone();
        }
        match found {
            Ok(findings) => {
                if let Some(listed) = self.sources.listed.get_mut(&source) {
                    listed.workflows = findings.workflows.iter().filter(|found| !found.tags.is_empty()).count();
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
                let [workloads, recorded] = [&findings.workloads, &findings.recorded].map(|workloads| {
                    let fit = workloads.iter().cloned().filter_map(|workload| self.fit_for_the_wire(workload));
                    fit.collect::<Vec<Workload>>()
                });
                let new = workloads.iter().filter(|workload| self.node.task(&workload.id()).is_none()).count();
                self.tell_awaiting(&source, Ok((&findings, new)), cycle.as_ref());
                let found = Discovery { workloads, recorded, gone: findings.gone, seen: findings.seen };
                self.feed(Input::Discovered { source, found });
            }
            Err(Failed { why, until }) => {
                self.say_once(format!("looking for workflows in {source}: {why}"));
                self.tell_awaiting(&source, Err(&why), cycle.as_ref());
                let wait_ms = until.map(|until| until.saturating_mul(1_000).saturating_sub(wall_ms()));
                self.feed(Input::Undiscovered { source, wait_ms });
            }
        }
    }

    /// A task that other nodes would not take from this one is not introduced.
    pub(super) fn fit_for_the_wire(&mut self, workload: Workload) -> Option<Workload> {
        match wire::entry::check_workload(&workload) {
            Ok(()) => Some(workload),
            Err(error) => {
                self.say_once(format!("{} {} is not run: {error}", workload.repository.name, workload.path));
                None
            }
        }
    }

    /// Looks into sources now because somebody asks: those named, else all. Answered when the last look has ended.
    pub(super) fn discover_now(&mut self, named: &[String], answer: Answer<proto::DiscoverResponse>) {
        let mut wanted = BTreeSet::new();
        for name in named {
            let of_it = self.sources.listed.iter().filter(|(key, listed)| {
                let target = match &listed.place {
                    Place::Github(_, target) => Some(target.owner.eq_ignore_ascii_case(name)),
                    Place::Local(_) => None,
                };
                listed.spec.to_string() == *name || **key == *name || target == Some(true)
            });
            let keys: Vec<SourceKey> = of_it.map(|(key, _)| key.clone()).collect();
            if keys.is_empty() {
                answer.send(Err(Refusal::NotFound(format!(
                    "`{name}` is no source of the running node: start it with `--source {name}`, or ask without a node \
                     by naming another --data-dir"
                ))));
                return;
            }
            wanted.extend(keys);
        }
        if named.is_empty() {
            wanted = self.sources.keys();
        }
        if wanted.is_empty() {
            let problems: Vec<&str> = self.sources.problems.values().map(String::as_str).collect();
            let why =
                if problems.is_empty() { "the running node has no sources".to_owned() } else { problems.join("; ") };
            answer.send(Err(Refusal::NotNow(why)));
            return;
        }
        let asked: Vec<SourceKey> = wanted.iter().cloned().collect();
        self.sources.awaited.push(Awaited { answer, left: wanted, sum: proto::DiscoverResponse::default() });
        asked.into_iter().for_each(|source| self.discover(source, BTreeSet::new()));
    }

    fn tell_awaiting(&mut self, source: &SourceKey, found: Result<(&Findings, usize), &String>, cycle: Option<&Cycle>) {
        let mut ended = Vec::new();
        for (at, awaited) in self.sources.awaited.iter_mut().enumerate() {
            if !awaited.left.remove(source) {
                continue;
            }
            let sum = &mut awaited.sum;
            match found {
                Ok((findings, new)) => {
                    sum.submitted = sum.submitted.saturating_add(u32::try_from(new).unwrap_or(u32::MAX));
                    sum.workflows
                        .extend(findings.workflows.iter().filter(|found| !found.tags.is_empty()).map(workflow));
                    sum.warnings.extend(findings.warnings.iter().cloned());
                }
                Err(why) => sum.problems.push(format!("{source}: {why}")),
            }
            if let Some(cycle) = cycle {
                sum.calls += cycle.calls;
                sum.points += cycle.points;
            }
            if awaited.left.is_empty() {
                ended.push(at);
            }
        }
        for at in ended.into_iter().rev() {
            let Awaited { answer, sum, .. } = self.sources.awaited.remove(at);
            answer.send(Ok(sum));
        }
    }

    pub(super) fn source_list(&self) -> Vec<proto::Source> {
        let duties = self.node.duties();
        let now = self.now().mono;
        let listed = self.sources.listed.iter().map(|(key, listed)| proto::Source {
            spec: listed.spec.to_string(),
            key: key.clone(),
            duty: duties.get(key).map(ToString::to_string),
            discovered_ago_ms: self.node.discovered_ago(key, now),
            workflows: u32::try_from(listed.workflows).unwrap_or(u32::MAX),
            when_cut_off: if self.settings.stop_when_cut_off.contains(&listed.spec) { "stop" } else { "keep" }
                .to_owned(),
            problem: listed.problem.clone(),
            cycle: listed.cycle.as_ref().map(cycle),
            limits: match &listed.place {
                Place::Github(github, _) => github.limits().iter().flat_map(quotas).collect(),
                Place::Local(_) => Vec::new(),
            },
        });
        let failed = self.sources.problems.iter().map(|(spec, problem)| proto::Source {
            spec: spec.clone(),
            problem: Some(problem.clone()),
            ..proto::Source::default()
        });
        listed.chain(failed).chain(self.set_list()).collect()
    }

    /// Which repositories the sources hold, the first of them by name.
    fn holds(&self) -> String {
        let mut names: Vec<String> = Vec::new();
        for listed in self.sources.listed.values() {
            names.push(match &listed.place {
                Place::Local(repository) => repository.repository.name.clone(),
                Place::Github(..) => format!("those of {}", listed.spec),
            });
        }
        let more = names.len().saturating_sub(MOST_NAMED);
        names.truncate(MOST_NAMED);
        match (names.is_empty(), more) {
            (true, _) => "it has none; name one with `runmesh node run --source`".to_owned(),
            (false, 0) => format!("it has {}", names.join(", ")),
            (false, more) => format!("it has {} and {more} more", names.join(", ")),
        }
    }

    /// Makes a task of a person's request.
    pub(super) fn submit(&mut self, submit: SubmitQuery, answer: Answer<TaskId>) {
        let SubmitQuery { repository, path, inputs, priority, request } = submit;
        let asked = Path::new(&repository);
        let locals = self.sources.listed.values().filter_map(|listed| match &listed.place {
            Place::Local(repository) => Some(repository),
            Place::Github(..) => None,
        });
        let mut meant = locals.filter(|listed| {
            listed.repository.name == repository
                || listed.repository.id == repository
                || listed.key == repository
                || (asked.is_absolute() && listed.path == asked)
        });
        let at_github = self.sources.listed.values().find_map(|listed| match &listed.place {
            Place::Github(github, target) => {
                let (owner, name) = repository.split_once('/')?;
                let whole = target.repository.as_ref().is_none_or(|own| own.eq_ignore_ascii_case(name));
                (whole && target.owner.eq_ignore_ascii_case(owner) && !name.contains('/')).then(|| github.clone())
            }
            Place::Local(_) => None,
        });
        let request = request.unwrap_or_default();
        let local = match (meant.next().cloned(), meant.next()) {
            (Some(one), None) => Some(one),
            (Some(one), Some(other)) => {
                let (one, other) = (one.path.display().to_string(), other.path.display());
                answer.send(Err(Refusal::Invalid(format!("`{repository}` may mean {one} or {other}: give the path"))));
                return;
            }
            (None, _) if at_github.is_some() => None,
            (None, _) => {
                let why = format!("no source of this node holds a repository `{repository}`: {}", self.holds());
                answer.send(Err(Refusal::NotFound(why)));
                return;
            }
        };
        let request = if request.is_empty() { format!("{}-{}", wall_ms(), self.token().0) } else { request };
        let (asked, find) = (Asked { inputs, request, priority }, self.find.clone());
        tokio::spawn(async move {
            let made = match (local, at_github) {
                (Some(local), _) => git::manual(&local, &path, &asked).await.map_err(|error| error.to_string()),
                (None, Some(github)) => {
                    github.manual(&repository, &path, &asked).await.map_err(|error| error.to_string())
                }
                (None, None) => Err(format!("no source holds `{repository}`")),
            };
            let _ = find.send(Found::Submission { workload: Box::new(made), answer }).await;
        });
    }
}

/// Under which name the database keeps what is remembered of a source.
fn note_name(source: &SourceKey) -> String {
    format!("github/{source}")
}

fn workflow(found: &crate::forge::Found) -> proto::DiscoveredWorkflow {
    proto::DiscoveredWorkflow {
        source: found.source.clone(),
        repository: found.repository.clone(),
        path: found.path.clone(),
        commit: found.commit.clone(),
        name: found.name.clone(),
        tags: found.tags.iter().map(ToString::to_string).collect(),
        dropped: found
            .dropped
            .iter()
            .map(|one| proto::DroppedWord { word: one.word.clone(), line: one.line })
            .collect(),
        priority: found.priority.number().into(),
        why_not: found.why_not.clone(),
    }
}

fn cycle(cycle: &Cycle) -> proto::SourceCycle {
    proto::SourceCycle {
        calls: cycle.calls,
        points: cycle.points,
        bytes: cycle.bytes,
        took_ms: cycle.milliseconds,
        repositories: cycle.repositories,
        new: cycle.new,
        changed: cycle.changed,
        gone: cycle.gone,
    }
}

fn quotas(limits: &Limits) -> impl Iterator<Item = proto::SourceLimit> {
    let both = [("rest", limits.rest), ("graphql", limits.graphql)];
    both.into_iter().filter_map(|(api, quota)| {
        let quota = quota?;
        Some(proto::SourceLimit {
            api: api.to_owned(),
            limit: quota.limit,
            remaining: quota.remaining,
            reset_ms: quota.reset.saturating_mul(1_000),
        })
    })
}
