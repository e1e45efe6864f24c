//! `runmesh github p2p-discover`: find tagged workflows and submit them, through the node of the data directory where
//! one runs, else on its own. The words are those of the command that it replaces, so that scripts go on working.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Mutex;

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::args::{DiscoverCommand, LookArguments, Output};
use super::failure::Failure;
use super::screen::{Paint, Screen, now_ms, say, say_json};
use super::settings::{GithubPlace, Place};
use crate::control::proto::{DiscoverResponse, DiscoveredWorkflow, DroppedWord};
use crate::control::{Client, ControlError};
use crate::forge::github::{Github, GithubError, Looked, Memory, Tally, Target, Terms};
use crate::forge::{Findings, FirstScan, Found, Manner, Spec, git};
use crate::kernel::id::TaskId;
use crate::kernel::known::Known;
use crate::kernel::task::{Policy, Trigger, Workload};

/// Does what the command says.
pub(super) async fn run(place: GithubPlace, command: &DiscoverCommand) -> Result<(), Failure> {
    match command {
        DiscoverCommand::Once(look) => {
            let mut finder = Finder::open(&place, look).await?;
            let found = finder.look(&place).await?;
            found.show(&place.place, false)?;
            found.verdict()
        }
        DiscoverCommand::Monitor(look) => {
            let mut finder = Finder::open(&place, look).await?;
            let failed = |error: std::io::Error| Failure::failed("cannot listen for signals").because(&error);
            let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
            let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
            loop {
                tokio::select! {
                    _ = interrupt.recv() => return Ok(()),
                    _ = terminate.recv() => return Ok(()),
                    found = finder.look(&place) => found?.show(&place.place, true)?,
                }
                tokio::select! {
                    _ = interrupt.recv() => return Ok(()),
                    _ = terminate.recv() => return Ok(()),
                    () = tokio::time::sleep(place.interval) => {}
                }
            }
        }
    }
}

/// Who looks.
enum Finder {
    /// The running node; it looks into these of its sources, or all.
    Node(Box<Client>, Vec<String>),
    Alone(Box<Alone>),
}

impl Finder {
    async fn open(place: &GithubPlace, look: &LookArguments) -> Result<Self, Failure> {
        match Client::connect(&place.place.data_dir).await {
            Ok(node) => {
                let selects = !look.include.is_empty() || !look.exclude.is_empty() || look.forks;
                if selects || look.since_days.is_some() {
                    return Err(Failure::usage("the running node selects repositories by its own settings").hint(
                        "leave --include, --exclude, --forks and --since-days out, or give them to `runmesh node run`",
                    ));
                }
                let owners = look.owners.iter().map(|owner| format!("github:{owner}"));
                let named = owners.chain(look.sources.iter().map(ToString::to_string)).collect();
                Ok(Self::Node(Box::new(node), named))
            }
            Err(ControlError::NoNode { .. }) => {
                let sources = if place.sources.is_empty() { vec![Spec::GithubAll] } else { place.sources.clone() };
                let at_github = sources.iter().any(|spec| !matches!(spec, Spec::Git(_)));
                let github = match at_github {
                    true => Some(place.github.open().await.map_err(failure)?),
                    false => None,
                };
                let manners = place.manners.clone();
                Ok(Self::Alone(Box::new(Alone { github, sources, manners, ..Alone::default() })))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn look(&mut self, place: &GithubPlace) -> Result<Report, Failure> {
        match self {
            Self::Node(node, named) => {
                let found = node.discover(named).await?;
                let status = node.status().await?;
                let count = |states: &[&str]| states.iter().filter_map(|state| status.tasks.get(*state)).sum();
                Ok(Report {
                    found,
                    pending: count(&["pending"]),
                    assigned: count(&["claimed", "running"]),
                    completed: count(&["completed"]),
                    peers: status.peers.into(),
                    node: Some(status.peer_id),
                })
            }
            Self::Alone(alone) => Ok(alone.look(place.place.output == Output::Table).await),
        }
    }
}

/// What a look without a node remembers until the next one.
#[derive(Default)]
struct Alone {
    github: Option<Github>,
    sources: Vec<Spec>,
    manners: BTreeMap<Spec, Manner>,
    memories: BTreeMap<String, Memory>,
    owners: Memory,
    /// By host and repository.
    known: BTreeMap<String, BTreeMap<String, Known>>,
    submitted: BTreeSet<TaskId>,
    /// Taken note of, and never submitted.
    recorded: BTreeSet<TaskId>,
}

impl Alone {
    async fn look(&mut self, shows: bool) -> Report {
        let mut found = DiscoverResponse::default();
        let bar = Bar::new(shows);
        for spec in self.sources.clone() {
            let manner = self.manners.get(&spec).copied().unwrap_or_default();
            match spec {
                Spec::Git(source) => match git::resolve(&source).await {
                    Ok(resolved) => {
                        found.warnings.extend(resolved.warnings);
                        for repository in resolved.repositories {
                            let known = self.known.get(git::HOST).and_then(|all| all.get(&repository.repository.id));
                            let known = known.cloned().unwrap_or_default();
                            let mut looked = git::discover(&repository, &known, minute()).await;
                            if let (Ok(found), FirstScan::Record) = (&mut looked, manner.first_scan)
                                && known.workflows.is_empty()
                            {
                                found.record(&repository.repository.name);
                            }
                            self.take(looked.map_err(|error| error.to_string()), &repository.key, &mut found);
                        }
                    }
                    Err(error) => found.problems.push(error.to_string()),
                },
                Spec::GithubAll => {
                    let Some(github) = self.github.clone() else { continue };
                    let tally = Tally::default();
                    let owners = github.owners(&mut self.owners, &tally).await;
                    let (calls, points, _) = tally.sums();
                    found.calls += calls;
                    found.points += points;
                    match owners {
                        Ok(owners) => {
                            for owner in owners {
                                let target = Target { owner, repository: None };
                                self.look_at(&github, &target, manner, &bar, &mut found).await;
                            }
                        }
                        Err(error) => found.problems.push(error.to_string()),
                    }
                }
                spec => {
                    if let (Some(github), Some(target)) = (self.github.clone(), Target::of(&spec)) {
                        self.look_at(&github, &target, manner, &bar, &mut found).await;
                    }
                }
            }
        }
        bar.clear();
        Report { found, pending: self.submitted.len() as u64, assigned: 0, completed: 0, peers: 0, node: None }
    }

    async fn look_at(
        &mut self,
        github: &Github,
        target: &Target,
        manner: Manner,
        bar: &Bar,
        found: &mut DiscoverResponse,
    ) {
        let key = github.key(target);
        let memory = self.memories.remove(&key).unwrap_or_default();
        let known = self.known.get(github.host()).cloned().unwrap_or_default();
        let progress = |done, of| bar.show(&key, done, of);
        let (minute, except) = (minute(), BTreeSet::new());
        let terms = Terms { known: &known, minute, except: &except, manner, progress: &progress };
        let Looked { memory, cycle, outcome } = github.discover(target, memory, terms).await;
        self.memories.insert(key.clone(), memory);
        found.calls += cycle.calls;
        found.points += cycle.points;
        self.take(outcome.map_err(|error| error.to_string()), &key, found);
    }

    fn take(&mut self, findings: Result<Findings, String>, key: &str, found: &mut DiscoverResponse) {
        let findings = match findings {
            Ok(findings) => findings,
            Err(why) => return found.problems.push(format!("{key}: {why}")),
        };
        let tagged = findings.workflows.iter().filter(|one| !one.tags.is_empty());
        found.workflows.extend(tagged.map(workflow));
        found.warnings.extend(findings.warnings);
        for workload in findings.recorded {
            if self.recorded.insert(workload.id()) {
                self.note(&workload);
            }
        }
        for workload in findings.workloads {
            let new = !self.recorded.contains(&workload.id());
            if new && workload.policy() != Policy::GithubOnly && self.submitted.insert(workload.id()) {
                found.submitted += 1;
                self.note(&workload);
            }
        }
    }

    /// As a ledger would know it.
    fn note(&mut self, workload: &Workload) {
        let repository = &workload.repository;
        let known = self.known.entry(repository.host.clone()).or_default().entry(repository.id.clone()).or_default();
        let of_it = known.workflows.entry(workload.path.clone()).or_default();
        of_it.since.get_or_insert_with(minute);
        match &workload.trigger {
            Trigger::Push { commit, .. } => of_it.pushed = Some(commit.clone()),
            Trigger::Schedule { cron, minute } => drop(of_it.ticks.insert(cron.clone(), *minute)),
            Trigger::Revision { blob } => drop(of_it.revisions.insert(blob.clone())),
            Trigger::Manual { .. } | Trigger::GithubJob { .. } => {}
        }
    }
}

fn minute() -> u64 {
    now_ms() / 60_000
}

fn failure(error: GithubError) -> Failure {
    match error {
        GithubError::Credentials(_) => Failure::usage(error.to_string()),
        error => Failure::of(&error),
    }
}

fn workflow(found: &Found) -> DiscoveredWorkflow {
    DiscoveredWorkflow {
        source: found.source.clone(),
        repository: found.repository.clone(),
        path: found.path.clone(),
        commit: found.commit.clone(),
        name: found.name.clone(),
        tags: found.tags.iter().map(ToString::to_string).collect(),
        dropped: found.dropped.iter().map(|one| DroppedWord { word: one.word.clone(), line: one.line }).collect(),
        priority: found.priority.number().into(),
        why_not: found.why_not.clone(),
    }
}

/// What a look came to.
struct Report {
    found: DiscoverResponse,
    pending: u64,
    assigned: u64,
    completed: u64,
    peers: u64,
    /// The peer that has the tasks now.
    node: Option<String>,
}

impl Report {
    fn show(&self, place: &Place, series: bool) -> Result<(), Failure> {
        match place.output {
            Output::Json => say_json(&self.json(), series),
            Output::Table => {
                let text = self.text(Screen::stdout(), place);
                say(&if series { format!("{text}\n") } else { text })
            }
        }
    }

    fn json(&self) -> Value {
        json!({
            "discovered": self.found.workflows.len(),
            "submitted": self.found.submitted,
            "workflows": self.found.workflows,
            "scheduler": {
                "pending_tasks": self.pending, "assigned_tasks": self.assigned, "completed_tasks": self.completed,
                "known_peers": self.peers, "peer_id": self.node,
            },
            "api": { "calls": self.found.calls, "points": self.found.points },
            "problems": self.found.problems,
            "warnings": self.found.warnings,
        })
    }

    fn text(&self, screen: Screen, place: &Place) -> String {
        let head = |text: &str| screen.paint(Paint::Strong, text);
        let mut text = format!(
            "{}\n  Workflows discovered: {}\n  Workflows submitted: {}\n\n",
            head("Discovery Results:"),
            self.found.workflows.len(),
            self.found.submitted
        );
        for one in &self.found.workflows {
            let why = one.why_not.as_ref().map(|why| screen.paint(Paint::Faint, &format!("  not now: {why}")));
            text += &format!(
                "  {} {} [{}] priority {}{}\n",
                one.repository,
                one.path,
                one.tags.join(", "),
                one.priority,
                why.unwrap_or_default()
            );
            for dropped in &one.dropped {
                let line = format!("    line {}: `{}` is not a tag and was dropped\n", dropped.line, dropped.word);
                text += &screen.paint(Paint::Warn, &line);
            }
        }
        if !self.found.workflows.is_empty() {
            text.push('\n');
        }
        text += &format!(
            "{}\n  Pending tasks: {}\n  Assigned tasks: {}\n  Completed tasks: {}\n  Known peers: {}\n",
            head("Scheduler Status:"),
            self.pending,
            self.assigned,
            self.completed,
            self.peers
        );
        for warning in &self.found.warnings {
            text += &format!("{} {warning}\n", screen.paint(Paint::Warn, "warning:"));
        }
        if self.node.is_none() {
            let start = format!("runmesh node run{}", place.flag());
            let note = format!(
                "no node runs at this data directory, so nothing of this is executed; start one with `{start}`"
            );
            text += &format!("{} {note}\n", screen.paint(Paint::Faint, "note:"));
        }
        text
    }

    /// Whether all sources could be read.
    fn verdict(&self) -> Result<(), Failure> {
        match self.found.problems.as_slice() {
            [] => Ok(()),
            problems => Err(Failure::failed(problems.join("\n"))),
        }
    }
}

/// How far reading is, on a terminal.
struct Bar {
    shows: bool,
    /// What stands there now, in tenths, so that it is drawn only when it changes.
    drawn: Mutex<usize>,
}

impl Bar {
    const WIDTH: usize = 30;

    fn new(wanted: bool) -> Self {
        Self { shows: wanted && Screen::stderr().is_terminal(), drawn: Mutex::new(usize::MAX) }
    }

    fn show(&self, source: &str, done: usize, of: usize) {
        if !self.shows || of < 2 {
            return;
        }
        let filled = (done * Self::WIDTH).checked_div(of).unwrap_or(Self::WIDTH).min(Self::WIDTH);
        let mut drawn = self.drawn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *drawn != filled {
            *drawn = filled;
            let line =
                format!("\r\x1b[K{source} [{}{}] {done}/{of}", "#".repeat(filled), " ".repeat(Self::WIDTH - filled));
            // Where nobody sees it nothing is lost.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    fn clear(&self) {
        let drawn = self.drawn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.shows && *drawn != usize::MAX {
            let _ = std::io::stderr().write_all(b"\r\x1b[K");
        }
    }
}
