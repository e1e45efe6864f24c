//! `runmesh p2p-workflow`: the scheduler's commands, for workers that execute tasks themselves, in the words of the
//! Python scheduler that runmesh replaces.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::args::{Output, P2pCommand};
use super::failure::Failure;
use super::link::connect;
use super::screen::{Paint, Screen, count, facts, say, say_json, short_entry, short_peer, short_task, span, workflow};
use super::settings::Place;
use super::tasks;
use crate::control::proto::{Assignment, Clock, CompleteRequest, Status};
use crate::kernel::task::{Conclusion, Policy, Priority};
use crate::workflow::{self, Dropped, Workflow};

/// Does what the command says.
pub(super) async fn run(place: &Place, command: &P2pCommand) -> Result<(), Failure> {
    match command {
        P2pCommand::Status => status(place).await,
        P2pCommand::Submit(submit) => tasks::submit(place, submit).await,
        P2pCommand::Next { wait, lease } => next(place, *wait, *lease).await,
        P2pCommand::Keep { id, claim } => keep(place, id, claim.as_deref()).await,
        P2pCommand::Complete { id, claim, conclusion, note } => {
            complete(place, id, claim.as_deref(), *conclusion, note.as_deref()).await
        }
        P2pCommand::CheckTags { files } => check_tags(place, files),
        P2pCommand::Clock => clock(place).await,
    }
}

/// The clock as the source system shows it, and what the mesh's own has besides.
#[derive(Serialize)]
struct ShownClock {
    node_id: String,
    /// Entries of each peer.
    vector: BTreeMap<String, u64>,
    merkle_root: String,
    heads: Vec<String>,
}

impl ShownClock {
    fn of(clock: Clock) -> Self {
        let mut vector = BTreeMap::new();
        for chain in clock.vector {
            *vector.entry(chain.peer_id).or_default() += chain.sequence;
        }
        Self { node_id: clock.node_id, vector, merkle_root: clock.merkle_root, heads: clock.heads }
    }
}

/// The scheduler's status as the source system shows it.
#[derive(Serialize)]
struct ShownStatus {
    peer_id: String,
    total_tasks: u64,
    pending_tasks: u64,
    assigned_tasks: u64,
    completed_tasks: u64,
    cancelled_tasks: u64,
    lost_tasks: u64,
    left_to_github_tasks: u64,
    queue_size: usize,
    known_peers: u32,
    merkle_clock: ShownClock,
}

impl ShownStatus {
    fn of(status: Status, queue: usize, clock: Clock) -> Self {
        let sum = |states: &[&str]| states.iter().filter_map(|state| status.tasks.get(*state)).sum();
        Self {
            total_tasks: status.tasks.values().sum(),
            pending_tasks: sum(&["pending"]),
            assigned_tasks: sum(&["claimed", "running"]),
            completed_tasks: sum(&["completed"]),
            cancelled_tasks: sum(&["cancelled"]),
            lost_tasks: sum(&["lost"]),
            left_to_github_tasks: sum(&["left-to-github"]),
            queue_size: queue,
            known_peers: status.peers,
            merkle_clock: ShownClock::of(clock),
            peer_id: status.peer_id,
        }
    }

    /// All states that tasks are in, so that the numbers add up.
    fn counts(&self) -> String {
        let seldom = [
            (self.cancelled_tasks, "cancelled"),
            (self.lost_tasks, "lost"),
            (self.left_to_github_tasks, "left to GitHub"),
        ];
        let seldom = seldom.into_iter().filter(|(number, _)| *number > 0);
        let seldom: String = seldom.map(|(number, word)| format!("{number} {word}, ")).collect();
        format!(
            "{} pending, {} assigned, {} completed, {seldom}{} in all",
            self.pending_tasks, self.assigned_tasks, self.completed_tasks, self.total_tasks
        )
    }
}

async fn status(place: &Place) -> Result<(), Failure> {
    let node = connect(place).await?;
    let (status, queue, clock) = (node.status().await?, node.queue().await?, node.clock(0).await?);
    let shown = ShownStatus::of(status, queue.len(), clock);
    match place.output {
        Output::Json => say_json(&shown, false),
        Output::Table => {
            let screen = Screen::stdout();
            say(&facts(
                screen,
                &[
                    ("peer", screen.paint(Paint::Strong, &shown.peer_id)),
                    ("tasks", shown.counts()),
                    ("queue", format!("{} that this host may run", count(shown.queue_size, "task"))),
                    ("peers", format!("{} heard", count(shown.known_peers, "other node"))),
                    ("clock", shown.merkle_clock.merkle_root),
                ],
            ))
        }
    }
}

async fn next(place: &Place, wait: Duration, lease: Option<Duration>) -> Result<(), Failure> {
    let assignment = connect(place).await?.next_task(wait, lease).await?;
    match place.output {
        Output::Json => say_json(&assignment, false),
        Output::Table => say(&assigned(Screen::stdout(), place, &assignment)),
    }
}

/// What a person needs who executes a task by hand.
fn assigned(screen: Screen, place: &Place, assignment: &Assignment) -> String {
    let task = assignment.task.clone().unwrap_or_default();
    let inputs: Vec<String> = task.inputs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let text = facts(
        screen,
        &[
            ("task", screen.paint(Paint::Strong, &task.id)),
            ("workflow", format!("{}  ({})", workflow(&task.repository, &task.path), task.name)),
            ("file", task.path.clone()),
            ("commit", format!("{} of {}", task.commit, task.r#ref)),
            ("event", task.event.clone()),
            ("tags", task.tags.join(", ")),
            ("priority", task.priority.to_string()),
            ("inputs", inputs.join("\n")),
            ("attempt", task.attempt.to_string()),
            ("claim", assignment.claim.clone()),
            ("lease", format!("{}; renew it with `runmesh p2p-workflow keep`", span(assignment.lease_for_ms))),
        ],
    );
    let (id, flag) = (short_task(&task.id), place.flag());
    format!("{text}\nwhen done: runmesh p2p-workflow complete {id} --conclusion success{flag}\n")
}

async fn keep(place: &Place, id: &str, claim: Option<&str>) -> Result<(), Failure> {
    let lease = connect(place).await?.keep(id, claim.unwrap_or_default()).await?;
    match place.output {
        Output::Json => say_json(&lease, false),
        Output::Table => {
            let left = span(lease.until_ms.saturating_sub(super::screen::now_ms()));
            say(&format!("task {} is yours for {left} more\n", short_task(&lease.id)))
        }
    }
}

async fn complete(
    place: &Place,
    id: &str,
    claim: Option<&str>,
    conclusion: Conclusion,
    note: Option<&str>,
) -> Result<(), Failure> {
    let request = CompleteRequest {
        id: id.to_owned(),
        claim: claim.unwrap_or_default().to_owned(),
        conclusion: conclusion.word().to_owned(),
        note: note.unwrap_or_default().to_owned(),
    };
    let id = connect(place).await?.complete(request).await?;
    match place.output {
        Output::Json => say_json(&serde_json::json!({ "id": id, "conclusion": conclusion.word() }), false),
        Output::Table => say(&format!("task {} is completed: {}\n", short_task(&id), conclusion.word())),
    }
}

async fn clock(place: &Place) -> Result<(), Failure> {
    let clock = connect(place).await?.clock(0).await?;
    match place.output {
        Output::Json => say_json(&ShownClock::of(clock), false),
        Output::Table => {
            let shown = ShownClock::of(clock);
            let vector: Vec<String> =
                shown.vector.iter().map(|(peer, entries)| format!("{} {entries}", short_peer(peer))).collect();
            let heads: Vec<&str> = shown.heads.iter().map(|head| short_entry(head)).collect();
            let facts_shown = [
                ("node", shown.node_id.clone()),
                ("vector", vector.join(", ")),
                ("merkle root", shown.merkle_root.clone()),
                ("heads", heads.join(" ")),
            ];
            say(&facts(Screen::stdout(), &facts_shown))
        }
    }
}

/// What one workflow file's tags mean.
#[derive(Debug, Serialize, PartialEq)]
struct Checked {
    path: String,
    name: String,
    tags: Vec<&'static str>,
    dropped: Vec<Dropped>,
    priority: u8,
    should_bypass_github: bool,
    p2p_only: bool,
    /// What a host must offer.
    labels: Vec<String>,
    time_limit_s: u32,
    /// One sentence.
    runs: String,
    /// Why it is no workflow, if it is none.
    error: Option<String>,
    warnings: Vec<String>,
}

fn check_tags(place: &Place, files: &[PathBuf]) -> Result<(), Failure> {
    let mut checked = Vec::new();
    for file in files {
        let cannot = || format!("cannot read the workflow file {}", file.display());
        let size = std::fs::metadata(file).map_err(|error| Failure::failed(cannot()).because(&error))?.len();
        if size > workflow::MAX_BYTES as u64 {
            let most = workflow::MAX_BYTES;
            return Err(Failure::failed(format!("{}: it has {size} bytes, more than {most}", cannot())));
        }
        let bytes = std::fs::read(file).map_err(|error| Failure::failed(cannot()).because(&error))?;
        checked.push(check(file, &bytes));
    }
    match place.output {
        Output::Json => say_json(&checked, false)?,
        Output::Table => {
            let screen = Screen::stdout();
            let texts: Vec<String> = checked.iter().map(|file| shown(screen, file)).collect();
            say(&texts.join("\n"))?;
        }
    }
    let broken: Vec<&str> = checked.iter().filter(|file| file.error.is_some()).map(|file| file.path.as_str()).collect();
    match broken.as_slice() {
        [] => Ok(()),
        broken => Err(Failure::failed(format!("no workflow can be read in {}", broken.join(", ")))),
    }
}

fn check(file: &Path, bytes: &[u8]) -> Checked {
    let path = file.display().to_string();
    let workflow = workflow::read(&path, bytes);
    let policy = Policy::of(&workflow.tags);
    let tagged = !workflow.tags.is_empty();
    Checked {
        runs: how_it_runs(&workflow, policy),
        name: workflow.name.clone(),
        tags: workflow.tags.iter().map(|tag| tag.word()).collect(),
        priority: Priority::of(&workflow.tags).number(),
        should_bypass_github: tagged && policy != Policy::GithubOnly,
        p2p_only: policy == Policy::MeshOnly,
        labels: workflow.needs().into_iter().collect(),
        time_limit_s: workflow.time_limit_s(),
        dropped: workflow.dropped,
        warnings: workflow.warnings,
        error: workflow.error,
        path,
    }
}

/// Whether, when and where a workflow runs.
fn how_it_runs(workflow: &Workflow, policy: Policy) -> String {
    if let Some(error) = &workflow.error {
        return format!("not at all: {error}");
    }
    if workflow.tags.is_empty() {
        return "not on the mesh: it has no tag".to_owned();
    }
    if policy == Policy::GithubOnly {
        return "not on the mesh: its tags alone leave it to GitHub; add p2p-only or p2p-eligible".to_owned();
    }
    let place = match policy {
        Policy::MeshOnly => "on the mesh or not at all",
        _ => "on the mesh first; left to GitHub when no node takes it in time",
    };
    match workflow.triggers.event() {
        Err(why) => format!("by hand alone, {place}: {why}"),
        Ok(event) => {
            let when = match &workflow.triggers.push {
                Some(_) => "for each new head commit that its filters let through",
                None => "once for each new version of the file",
            };
            format!("{when}, {place}; it sees the event `{}`", event.word())
        }
    }
}

fn shown(screen: Screen, file: &Checked) -> String {
    let dropped: Vec<String> =
        file.dropped.iter().map(|dropped| format!("line {}: `{}` is no tag", dropped.line, dropped.word)).collect();
    let tags = if file.tags.is_empty() { "none".to_owned() } else { file.tags.join(", ") };
    facts(
        screen,
        &[
            ("file", screen.paint(Paint::Strong, &file.path)),
            ("workflow", file.name.clone()),
            ("tags", tags),
            ("dropped", screen.paint(Paint::Warn, &dropped.join("\n"))),
            ("priority", file.priority.to_string()),
            ("needs", file.labels.join(", ")),
            ("limit", span(u64::from(file.time_limit_s) * 1000)),
            ("runs", file.runs.clone()),
            ("warnings", screen.paint(Paint::Warn, &file.warnings.join("\n"))),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_told_with_what_was_dropped_and_how_it_runs() {
        let text = "# P2P: p2p-only, fast\nname: CI\non: push\njobs:\n  a:\n    runs-on: [self-hosted, gpu]\n    \
            services: {db: {image: x}}\n    steps: [{run: x}]\n";
        let checked = check(Path::new("ci.yml"), text.as_bytes());
        assert_eq!((checked.tags.as_slice(), checked.priority), (["p2p-only"].as_slice(), 8));
        assert_eq!(checked.dropped, [Dropped { word: "fast".to_owned(), line: 1 }]);
        assert_eq!(checked.labels, ["container-engine", "gpu", "self-hosted"]);
        assert!(checked.should_bypass_github && checked.p2p_only);
        assert!(checked.runs.contains("on the mesh or not at all") && checked.runs.contains("`push`"), "{checked:?}");
        let text = shown(Screen::PLAIN, &checked);
        assert!(text.contains("line 1: `fast` is no tag"), "{text}");
    }

    #[test]
    fn what_does_not_run_says_why() {
        let runs = |text: &str| {
            let checked = check(Path::new("x.yml"), text.as_bytes());
            assert!(!checked.should_bypass_github || checked.runs.starts_with("by hand"), "{checked:?}");
            checked.runs
        };
        assert!(runs("on: push\njobs: {}\n").contains("no tag"));
        assert!(runs("# P2P: unit-test\non: push\njobs: {}\n").contains("leave it to GitHub"));
        assert!(runs("# P2P: p2p-only\non: release\njobs: {}\n").contains("by hand alone"));
        assert!(runs("# P2P: x\n- a\n").contains("not at all"));
    }

    #[test]
    fn the_states_of_tasks_add_up() {
        let tasks = [("pending", 1), ("running", 2), ("completed", 3), ("cancelled", 4), ("lost", 5)];
        let tasks = tasks.into_iter().map(|(state, number)| (state.to_owned(), number)).collect();
        let shown = ShownStatus::of(Status { tasks, ..Status::default() }, 1, Clock::default());
        assert_eq!(shown.counts(), "1 pending, 2 assigned, 3 completed, 4 cancelled, 5 lost, 15 in all");
        assert_eq!((shown.cancelled_tasks, shown.lost_tasks, shown.left_to_github_tasks), (4, 5, 0));
    }

    #[test]
    fn a_clock_counts_the_entries_of_each_peer() {
        let chain = |peer: &str, incarnation: &str, sequence| crate::control::proto::Chain {
            peer_id: peer.to_owned(),
            incarnation: incarnation.to_owned(),
            sequence,
        };
        let clock =
            Clock { vector: vec![chain("a", "1", 2), chain("a", "2", 3), chain("b", "1", 7)], ..Clock::default() };
        assert_eq!(ShownClock::of(clock).vector, BTreeMap::from([("a".to_owned(), 5), ("b".to_owned(), 7)]));
    }
}
