//! Tasks as tables: all of them, one of them, and those that wait.

use std::collections::BTreeMap;

use super::super::artifacts;
use super::super::screen::{Cell, Paint, Screen, ago, facts, paint_of, short_peer, short_task, span, workflow};
use crate::control::proto::{Queued, Task};

/// Of how many waiting tasks it is told why they wait.
const MOST_WAITING: usize = 10;

/// All tasks, one a line.
pub(super) fn list(screen: Screen, tasks: &[Task]) -> String {
    if tasks.is_empty() {
        return "no tasks yet; `runmesh inspect sources` shows where they come from\n".to_owned();
    }
    let row = |task: &Task| {
        [
            Cell::from(short_task(&task.id)),
            workflow(&task.repository, &task.path).into(),
            task.trigger.as_str().into(),
            task.priority.into(),
            state(task),
            task.holder.as_deref().map_or("-", short_peer).into(),
            attempt(task).into(),
            task.duration_ms.map_or_else(|| "-".to_owned(), span).into(),
        ]
    };
    let columns = ["task", "workflow", "trigger", "prio", "state", "holder", "attempt", "took"];
    let table =
        screen.table(columns, tasks.iter().map(row).collect(), &["task", "prio", "state", "holder", "attempt", "took"]);
    table + &waiting(screen, tasks)
}

/// Why tasks wait, where something stands in their way.
fn waiting(screen: Screen, tasks: &[Task]) -> String {
    let held_up: Vec<&Task> = tasks.iter().filter(|task| !task.waits_for.is_empty()).collect();
    let mut text = String::new();
    for task in held_up.iter().take(MOST_WAITING) {
        let why = screen.folded(&task.waits_for, 17).join("\n                 ");
        text.push_str(&format!("\n{} waits: {}", short_task(&task.id), screen.paint(Paint::Warn, &why)));
    }
    let more = held_up.len().saturating_sub(MOST_WAITING);
    if more > 0 {
        text.push_str(&format!("\n{} more wait: `--output json` has all", more));
    }
    if text.is_empty() { text } else { text + "\n" }
}

/// Everything about one task.
pub(super) fn whole(screen: Screen, task: &Task, now: u64) -> String {
    let word = task.conclusion.as_deref().map_or_else(|| task.state.clone(), |word| format!("{}: {word}", task.state));
    let started = task.started_ms.map(|at| ago(now.saturating_sub(at)));
    let inputs: Vec<String> = task.inputs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let artifacts: Vec<String> = task
        .artifacts
        .iter()
        .map(|artifact| {
            let (id, bytes) = artifact.blob.as_ref().map_or(("", 0), |blob| (&blob.id, blob.bytes));
            format!("{}  {id}  {bytes} bytes", artifacts::shown(&artifact.name))
        })
        .collect();
    let holder = task.holder.as_ref().map(|holder| format!("{holder}, attempt {}", task.attempt));
    let mut text = facts(
        screen,
        &[
            ("task", screen.paint(Paint::Strong, &task.id)),
            ("workflow", format!("{}  ({})", workflow(&task.repository, &task.path), task.name)),
            ("commit", format!("{} of {}", task.commit, task.r#ref)),
            ("trigger", format!("{} {}, as `{}`", task.trigger, task.occurrence, task.event)),
            ("tags", task.tags.join(", ")),
            ("priority", task.priority.to_string()),
            ("needs", task.labels.join(", ")),
            ("inputs", inputs.join("\n")),
            ("limit", span(u64::from(task.time_limit_s) * 1000)),
            ("state", screen.paint(paint(task), &word)),
            ("holder", holder.unwrap_or_default()),
            ("started", started.unwrap_or_default()),
            ("took", task.duration_ms.map(span).unwrap_or_default()),
            ("log", task.log.as_ref().map(|log| format!("{}  {} bytes", log.id, log.bytes)).unwrap_or_default()),
            ("artifacts", artifacts.join("\n")),
            ("waits", screen.paint(Paint::Warn, &task.waits_for)),
            ("note", task.note.clone()),
            ("anchor", task.anchor.clone()),
        ],
    );
    if !task.ranking.is_empty() {
        let row = |(place, rank): (usize, &crate::control::proto::Rank)| {
            let last = if rank.last { "put last: it declined or lost it" } else { "" };
            [
                Cell::from(place + 1),
                rank.peer_id.as_str().into(),
                format!("{} of 256 bits", rank.distance).into(),
                last.into(),
            ]
        };
        let rows = task.ranking.iter().enumerate().map(row).collect();
        text.push('\n');
        text.push_str(&screen.table(["rank", "candidate", "distance", ""], rows, &["rank", "candidate"]));
    }
    text
}

/// What waits, the next first.
pub(super) fn queue(screen: Screen, queue: &[Queued], pending: usize) -> String {
    let others = pending.saturating_sub(queue.len());
    let others = match others {
        0 => String::new(),
        _ => format!("{} that this host may not run; see `runmesh inspect tasks`\n", count_waiting(others)),
    };
    // What stands in the way of several is said once, also of those that have a place.
    let mut why: BTreeMap<&str, Vec<&Task>> = BTreeMap::new();
    for task in queue.iter().filter_map(|queued| queued.task.as_ref()).filter(|task| !task.waits_for.is_empty()) {
        why.entry(&task.waits_for).or_default().push(task);
    }
    let stuck = why.iter().map(|(why, tasks)| stuck(why, tasks)).collect::<String>();
    let others = stuck + &others;
    let queue: Vec<&Queued> = queue.iter().filter(|queued| queued.position > 0).collect();
    if queue.is_empty() {
        return if others.is_empty() { "nothing waits\n".to_owned() } else { others };
    }
    let row = |queued: &&Queued| {
        let task = queued.task.clone().unwrap_or_default();
        let nearest = task.ranking.first().map_or("-", |rank| short_peer(&rank.peer_id)).to_owned();
        [
            Cell::from(queued.position),
            short_task(&task.id).into(),
            workflow(&task.repository, &task.path).into(),
            task.priority.into(),
            format!("{:.1}", queued.urgency).into(),
            span(queued.waited_for_ms).into(),
            nearest.into(),
        ]
    };
    let columns = ["next", "task", "workflow", "prio", "urgency", "waits", "nearest"];
    screen.table(columns, queue.iter().map(row).collect(), &["next", "task", "prio", "urgency", "waits"]) + &others
}

/// Tasks that wait for the same, the first of them by name.
fn stuck(why: &str, tasks: &[&Task]) -> String {
    let mut text = format!("{}: {why}\n", count_waiting(tasks.len()));
    for task in tasks.iter().take(MOST_WAITING) {
        text.push_str(&format!("  {}  {}\n", short_task(&task.id), workflow(&task.repository, &task.path)));
    }
    let more = tasks.len().saturating_sub(MOST_WAITING);
    if more > 0 {
        text.push_str(&format!("  and {more} more: `--output json` has all\n"));
    }
    text
}

fn count_waiting(number: usize) -> String {
    if number == 1 { "1 task waits".to_owned() } else { format!("{number} tasks wait") }
}

fn state(task: &Task) -> Cell {
    Cell::painted(paint(task), task.conclusion.as_deref().unwrap_or(&task.state))
}

fn paint(task: &Task) -> Paint {
    paint_of(task.conclusion.as_deref().unwrap_or(&task.state))
}

fn attempt(task: &Task) -> String {
    if task.attempt == 0 { "-".to_owned() } else { task.attempt.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_the_same_is_told_once_and_named() {
        let waits = |id: &str| Queued {
            task: Some(Task {
                id: id.repeat(64),
                repository: "lab".to_owned(),
                path: ".github/workflows/ci.yml".to_owned(),
                waits_for: "no node offers `gpu`".to_owned(),
                ..Task::default()
            }),
            ..Queued::default()
        };
        let said = "2 tasks wait: no node offers `gpu`\n  aaaaaaaa  lab/ci.yml\n  bbbbbbbb  lab/ci.yml\n";
        assert_eq!(queue(Screen::PLAIN, &[waits("a"), waits("b")], 2), said);
        let many: Vec<Queued> = (0..12).map(|_| waits("c")).collect();
        assert!(queue(Screen::PLAIN, &many, 12).ends_with("  and 2 more: `--output json` has all\n"));
    }
}
