//! The verdict: what came of every task, whether that is what should have, and whether the nodes agree.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::failure::Failure;
use super::super::screen::{Cell, Paint, Screen, count, paint_of, short_entry, short_hash, short_task, span, workflow};
use super::samples::{Expected, SAMPLES};
use super::story::letter;
use crate::control::proto::{Status, Task};

/// What came of the tasks.
pub(super) struct Verdict {
    tasks: Vec<Task>,
    /// The nodes by their peer ids.
    nodes: BTreeMap<String, usize>,
    /// What should have come of each workflow file, where somebody knows it.
    expected: Option<BTreeMap<(String, String), Expected>>,
}

impl Verdict {
    pub(super) fn new(tasks: Vec<Task>, nodes: BTreeMap<String, usize>, samples: bool) -> Self {
        let by_file = || {
            let of = |sample: &super::samples::Sample| ((sample.repository.to_owned(), sample.path()), sample.expected);
            SAMPLES.iter().map(of).collect()
        };
        Self { tasks, nodes, expected: samples.then(by_file) }
    }

    /// Every task with its holder, attempt, conclusion and duration, then what was rightly left alone.
    pub(super) fn table(&self, screen: Screen) -> String {
        let mut tasks: Vec<&Task> = self.tasks.iter().collect();
        tasks.sort_by_key(|task| (&task.repository, &task.path));
        let row = |task: &&Task| {
            let wrong = self.wrong(task);
            let remark = match (&wrong, self.of(task)) {
                (Some(wrong), _) => Cell::painted(Paint::Bad, wrong),
                (None, Some(Expected::Conclusion(_, remark))) => Cell::painted(Paint::Faint, remark),
                (None, _) => Cell::from(""),
            };
            let node = task.holder.as_ref().and_then(|holder| self.nodes.get(holder));
            let word = task.conclusion.as_deref().unwrap_or(&task.state);
            [
                Cell::from(short_task(&task.id)),
                workflow(&task.repository, &task.path).into(),
                node.map_or_else(|| Cell::from("-"), |node| Cell::painted(Paint::Actor(*node), letter(*node))),
                task.attempt.into(),
                Cell::painted(paint_of(word), word),
                task.duration_ms.map_or_else(|| "-".to_owned(), span).into(),
                remark,
            ]
        };
        let columns = ["task", "workflow", "node", "attempt", "conclusion", "took", ""];
        let keep = ["task", "workflow", "node", "attempt", "conclusion", "took"];
        indented(&screen.table(columns, tasks.iter().map(row).collect(), &keep))
    }

    /// The workflow files that were rightly left alone, and why.
    pub(super) fn left_alone(&self, screen: Screen) -> String {
        let Some(expected) = &self.expected else { return String::new() };
        let row = |((repository, path), expected): (&(String, String), &Expected)| match expected {
            Expected::NoTask(why) => Some([Cell::from(workflow(repository, path)), Cell::painted(Paint::Faint, why)]),
            Expected::Conclusion(..) => None,
        };
        indented(&screen.table(["left alone", "because"], expected.iter().filter_map(row).collect(), &["left alone"]))
    }

    /// What is not as it should be, a sentence each.
    fn faults(&self) -> Vec<String> {
        let name = |task: &Task| workflow(&task.repository, &task.path);
        let mut faults: Vec<String> =
            self.tasks.iter().filter_map(|task| Some(format!("{}: {}", name(task), self.wrong(task)?))).collect();
        let mut seen = BTreeSet::new();
        for task in &self.tasks {
            if self.expected.is_some() && !seen.insert((&task.repository, &task.path)) {
                faults.push(format!("{}: it became two tasks", name(task)));
            }
        }
        for ((repository, path), expected) in self.expected.iter().flatten() {
            if matches!(expected, Expected::Conclusion(..)) && !seen.contains(&(repository, path)) {
                faults.push(format!("{}: it never became a task", workflow(repository, path)));
            }
        }
        faults
    }

    /// # Errors
    /// Exit status 1 when there is any fault.
    pub(super) fn holds(&self) -> Result<(), Failure> {
        let faults = self.faults();
        if faults.is_empty() {
            return Ok(());
        }
        let what = format!("{} not as it should be: {}", count(faults.len(), "thing"), faults.join("; "));
        Err(Failure::failed(what).hint("`runmesh demo --keep` leaves the nodes' logs to read"))
    }

    /// The closing sentence, for a verdict that holds.
    pub(super) fn sentence(&self, screen: Screen, nodes: usize, took: Duration) -> String {
        let reached = if self.expected.is_some() { "the conclusion they should" } else { "an end" };
        let (tasks, reached) = match self.tasks.len() {
            1 => ("The task".to_owned(), reached.replace("they", "it")),
            number => (format!("All {number} tasks"), reached.to_owned()),
        };
        let took = span(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        let text = format!("{tasks} reached {reached}, {nodes} nodes agree, and no process is left. It took {took}.");
        screen.paint(Paint::Good, &text)
    }

    /// Whether all tasks have ended, and none that should be there is missing.
    pub(super) fn is_final(&self) -> bool {
        let expected = self.expected.iter().flatten();
        let tasks = expected.filter(|(_, expected)| matches!(expected, Expected::Conclusion(..))).count();
        self.tasks.len() >= tasks && !self.tasks.iter().any(is_open)
    }

    /// Whether all that has not ended are tasks that no node can take.
    pub(super) fn is_stuck(&self) -> bool {
        self.tasks.iter().all(|task| !is_open(task) || nobody_can(task))
    }

    fn of(&self, task: &Task) -> Option<Expected> {
        self.expected.as_ref()?.get(&(task.repository.clone(), task.path.clone())).copied()
    }

    /// What is wrong with how a task stands.
    fn wrong(&self, task: &Task) -> Option<String> {
        let word = task.conclusion.as_deref().unwrap_or(&task.state);
        match (self.of(task), self.expected.is_some()) {
            (Some(Expected::Conclusion(expected, _)), _) if expected == word => None,
            (Some(Expected::Conclusion(expected, _)), _) => {
                Some(format!("{word}, should be {expected}: {}", task.note))
            }
            (Some(Expected::NoTask(why)), _) => Some(format!("should be no task: {why}")),
            (None, true) => Some("nobody knows this workflow".to_owned()),
            (None, false) => match task.state.as_str() {
                "completed" | "cancelled" | "left-to-github" => None,
                _ if nobody_can(task) => {
                    Some(format!("no node offers all labels that it runs on: {}", task.labels.join(", ")))
                }
                state => Some(format!("is {state}, without a conclusion: {}", task.note)),
            },
        }
    }
}

fn is_open(task: &Task) -> bool {
    matches!(task.state.as_str(), "pending" | "claimed" | "running")
}

/// Whether the task waits and has no candidate.
fn nobody_can(task: &Task) -> bool {
    task.state == "pending" && task.ranking.is_empty()
}

/// Whether all nodes hold the same entries and read the same state from them.
pub(super) fn agree(statuses: &[(usize, Status)]) -> bool {
    let same = |(_, status): &(usize, Status)| (status.heads.clone(), status.state_hash.clone(), status.entries);
    statuses.windows(2).all(|pair| same(&pair[0]) == same(&pair[1]))
}

/// Heads, entries and state hash of each node.
pub(super) fn proof(screen: Screen, statuses: &[(usize, Status)]) -> String {
    let row = |(node, status): &(usize, Status)| {
        let heads: Vec<&str> = status.heads.iter().map(|head| short_entry(head)).collect();
        [
            Cell::painted(Paint::Actor(*node), letter(*node)),
            status.entries.into(),
            heads.join(" ").into(),
            short_hash(&status.state_hash).into(),
        ]
    };
    indented(&screen.table(["node", "entries", "heads", "state hash"], statuses.iter().map(row).collect(), &[]))
}

fn indented(table: &str) -> String {
    table.lines().map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(repository: &str, file: &str, state: &str, conclusion: Option<&str>) -> Task {
        Task {
            id: "ab".repeat(32),
            repository: repository.to_owned(),
            path: format!(".github/workflows/{file}"),
            state: state.to_owned(),
            conclusion: conclusion.map(str::to_owned),
            attempt: 1,
            ..Task::default()
        }
    }

    fn as_expected() -> Vec<Task> {
        let made = |sample: &super::super::samples::Sample| match sample.expected {
            Expected::Conclusion(word, _) => Some(task(sample.repository, sample.file, "completed", Some(word))),
            Expected::NoTask(_) => None,
        };
        SAMPLES.iter().filter_map(made).collect()
    }

    #[test]
    fn what_is_as_expected_has_no_fault() {
        let verdict = Verdict::new(as_expected(), BTreeMap::new(), true);
        assert!(verdict.is_final());
        assert_eq!(verdict.faults(), [""; 0]);
    }

    #[test]
    fn every_way_to_go_wrong_is_a_fault() {
        let mut tasks = as_expected();
        let missing = tasks.remove(0);
        tasks[0].conclusion = Some("skipped".to_owned());
        tasks.push(task("api", "lint.yml", "completed", Some("success")));
        tasks.push(tasks[1].clone());
        tasks.push(task("api", "new.yml", "completed", Some("success")));
        let faults = Verdict::new(tasks, BTreeMap::new(), true).faults().join("\n");
        for part in ["skipped, should be", "lint.yml: should be no task", "two tasks", "nobody knows", "never became"] {
            assert!(faults.contains(part), "{part}: {faults}");
        }
        assert!(faults.contains(&workflow(&missing.repository, &missing.path)));
    }

    #[test]
    fn a_given_repository_may_fail_but_not_lose_tasks() {
        let failed = Verdict::new(vec![task("x", "a.yml", "completed", Some("failure"))], BTreeMap::new(), false);
        assert_eq!(failed.faults(), [""; 0]);
        let lost = Verdict::new(vec![task("x", "a.yml", "lost", None)], BTreeMap::new(), false);
        assert!(lost.is_final() && lost.faults()[0].contains("is lost"));
        assert!(!Verdict::new(vec![task("x", "a.yml", "running", None)], BTreeMap::new(), false).is_final());
        let stuck = Task { labels: vec!["windows-latest".into()], ..task("x", "a.yml", "pending", None) };
        let stuck = Verdict::new(vec![stuck], BTreeMap::new(), false);
        assert!(!stuck.is_final() && stuck.is_stuck() && stuck.faults()[0].contains("windows-latest"));
    }

    #[test]
    fn nodes_agree_only_with_equal_heads_and_states() {
        let status = |hash: &str| Status { heads: vec!["h".into()], state_hash: hash.into(), ..Status::default() };
        assert!(agree(&[(0, status("a")), (1, status("a")), (2, status("a"))]));
        assert!(!agree(&[(0, status("a")), (1, status("a")), (2, status("b"))]));
    }
}
