//! The jobs of a workflow, as far as a host needs to know them before it runs one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::concurrency::Written;
use super::matrix::{Leg, Legs, is_expression};
use super::tags::legible;
use super::yaml::Node;

/// How long a job may run that does not say, in seconds: GitHub's 360 minutes.
pub const DEFAULT_JOB_TIMEOUT_S: u32 = 360 * 60;
/// The longest that a workflow may run, in seconds: a week.
pub const MAX_TIME_LIMIT_S: u32 = 604_800;

/// The most labels read of a job; GitHub allows 100 for a runner.
const MAX_LABELS: usize = 100;

/// One job.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its key in `jobs:`.
    pub id: String,
    pub name: Option<String>,
    /// The ids of the jobs it waits for.
    pub needs: Vec<String>,
    /// Its `if:`, as text.
    pub condition: Option<String>,
    pub runs_on: RunsOn,
    pub legs: Legs,
    pub concurrency: Option<Written>,
    /// Its `timeout-minutes`, in seconds, rounded up, 1 to [`MAX_TIME_LIMIT_S`]; none where it has none or an
    /// expression. (GitHub counts whole minutes only.)
    pub timeout_s: Option<u32>,
    /// Whether it wants to run in a container.
    pub container: bool,
    /// Whether it wants service containers.
    pub services: bool,
    /// The reusable workflow that it calls instead of having steps.
    pub uses: Option<String>,
    /// How many steps it has.
    pub steps: usize,
    /// The `uses:` of its steps, in their order; one that begins with `docker://` needs an engine.
    pub actions: Vec<String>,
}

/// Where a job wants to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunsOn {
    pub group: Option<String>,
    /// The first 100 labels as they stand there; some may be expressions. Empty where the job does not say.
    pub labels: Vec<String>,
}

/// The labels that a workflow's or a job's host must offer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// Lower case.
    pub labels: BTreeSet<String>,
    /// What stands where a label should and is known only when it runs.
    pub expressions: BTreeSet<String>,
}

impl Job {
    /// Reads a job; `left` is what is left of the workflow's budget for matrices.
    pub(super) fn read(id: &str, node: &Node, left: &mut usize) -> Self {
        let has = |key: &str| node.get(key).is_some_and(|value| *value != Node::Null);
        let steps = match node.get("steps") {
            Some(Node::List(steps)) => steps.as_slice(),
            _ => &[],
        };
        Self {
            id: id.to_owned(),
            name: node.get("name").and_then(Node::text),
            needs: node.get("needs").map(Node::texts).unwrap_or_default(),
            condition: node.get("if").and_then(Node::text),
            runs_on: RunsOn::read(node.get("runs-on")),
            legs: Legs::read(node.get("strategy"), left),
            concurrency: Written::read(node.get("concurrency")),
            timeout_s: node.get("timeout-minutes").and_then(timeout_s),
            container: has("container"),
            services: has("services"),
            uses: node.get("uses").and_then(Node::text),
            steps: steps.len(),
            actions: steps.iter().filter_map(|step| step.get("uses")?.text()).collect(),
        }
    }

    /// The labels of all its legs.
    pub fn labels(&self) -> Labels {
        let mut labels = Labels::default();
        let nothing = Leg::new();
        let legs: Vec<&Leg> = match &self.legs {
            Legs::Matrix(legs) => legs.iter().collect(),
            Legs::Single | Legs::Unknown(_) => vec![&nothing],
        };
        legs.iter().for_each(|leg| labels.extend(self.runs_on.labels(leg)));
        labels
    }
}

fn timeout_s(node: &Node) -> Option<u32> {
    let minutes = match node {
        Node::Number(minutes) => *minutes,
        Node::Text(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    let seconds = (minutes * 60.0).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range")]
    (seconds > 0.0).then(|| seconds.clamp(1.0, f64::from(MAX_TIME_LIMIT_S)) as u32)
}

impl RunsOn {
    fn read(node: Option<&Node>) -> Self {
        let (group, labels) = match node {
            Some(Node::Map(map)) => (map.get("group").and_then(Node::text), map.get("labels")),
            other => (None, other),
        };
        let mut labels = labels.map(Node::texts).unwrap_or_default();
        labels.truncate(MAX_LABELS);
        Self { group, labels }
    }

    /// The labels of one leg, its `${{ matrix.… }}` filled in; other expressions are told as they stand.
    pub fn labels(&self, leg: &Leg) -> Labels {
        let mut labels = Labels::default();
        for text in &self.labels {
            match fill_in(text, leg) {
                Some(filled) => labels.labels.extend(filled.iter().map(|label| label.trim().to_lowercase())),
                None => drop(labels.expressions.insert(legible(text, 200))),
            }
        }
        labels.labels.remove("");
        labels
    }
}

impl Labels {
    pub(super) fn extend(&mut self, other: Self) {
        self.labels.extend(other.labels);
        self.expressions.extend(other.expressions);
    }
}

/// A label with the values of its leg; several where the value is a list. Nothing where an expression is more than
/// `matrix.NAME`.
fn fill_in(text: &str, leg: &Leg) -> Option<Vec<String>> {
    let mut filled = String::new();
    let mut rest = text.trim();
    while let Some((before, after)) = rest.split_once("${{") {
        let (expression, after) = after.split_once("}}")?;
        let mut path = expression.trim().strip_prefix("matrix.")?.split('.');
        let value = path.next().and_then(|name| leg.get(name))?;
        let value = path.try_fold(value, |value, key| value.get(key))?;
        if let Value::Array(items) = value
            && filled.is_empty()
            && before.is_empty()
            && after.is_empty()
        {
            return items.iter().map(scalar).collect();
        }
        filled += before;
        filled += &scalar(value)?;
        rest = after;
    }
    filled += rest;
    Some(vec![filled])
}

/// A scalar as text, unless it is an expression in its turn.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => (!is_expression(text)).then(|| text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// How long a workflow may run, in seconds, 1 to [`MAX_TIME_LIMIT_S`]: the largest sum of the timeouts of jobs that
/// wait for each other, a job without one counting as [`DEFAULT_JOB_TIMEOUT_S`]. Jobs that wait in a circle, and
/// the legs of a matrix (which run side by side), count once.
pub(super) fn time_limit_s(jobs: &[Job]) -> u32 {
    let index: BTreeMap<&str, usize> = jobs.iter().enumerate().map(|(index, job)| (job.id.as_str(), index)).collect();
    let needs =
        |job: &Job| -> BTreeSet<usize> { job.needs.iter().filter_map(|id| index.get(id.as_str()).copied()).collect() };
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); jobs.len()];
    let mut waiting: Vec<usize> = Vec::new();
    for (at, job) in jobs.iter().enumerate() {
        let needs = needs(job);
        waiting.push(needs.len());
        needs.into_iter().for_each(|need| followers[need].push(at));
    }
    let own: Vec<u32> = jobs.iter().map(|job| job.timeout_s.unwrap_or(DEFAULT_JOB_TIMEOUT_S)).collect();
    // `begin[at]`: the longest sum before the job may begin.
    let mut begin = vec![0_u32; jobs.len()];
    let mut ready: Vec<usize> = (0..jobs.len()).filter(|at| waiting[*at] == 0).collect();
    while let Some(at) = ready.pop() {
        let end = begin[at].saturating_add(own[at]);
        for follower in std::mem::take(&mut followers[at]) {
            begin[follower] = begin[follower].max(end);
            waiting[follower] -= 1;
            if waiting[follower] == 0 {
                ready.push(follower);
            }
        }
    }
    let longest = begin.iter().zip(&own).map(|(begin, own)| begin.saturating_add(*own)).max();
    longest.unwrap_or(DEFAULT_JOB_TIMEOUT_S).clamp(1, MAX_TIME_LIMIT_S)
}

#[cfg(test)]
mod tests {
    use super::super::matrix::BUDGET;
    use super::super::yaml::{Map, parse};
    use super::*;

    fn jobs(text: &str) -> Vec<Job> {
        let document = parse(text.as_bytes(), 0, &[]).expect("is YAML");
        let Node::Map(Map(jobs)) = &document.root else { panic!("no mapping") };
        jobs.iter().map(|(id, node)| Job::read(id, node, &mut { BUDGET })).collect()
    }

    fn job(text: &str) -> Job {
        jobs(&format!("j: {{{text}}}")).remove(0)
    }

    fn set(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn all_fields_are_read() {
        let job = job(
            "name: N, needs: [a, b], if: false, runs-on: X, timeout-minutes: 1.5, container: img, services: {db: {image: i}}, \
             steps: [{run: x}, {uses: 'docker://alpine'}, {uses: actions/checkout@v4, with: {a: b}}]",
        );
        let expected = Job {
            id: "j".to_owned(),
            name: Some("N".to_owned()),
            needs: vec!["a".to_owned(), "b".to_owned()],
            condition: Some("false".to_owned()),
            runs_on: RunsOn { group: None, labels: vec!["X".to_owned()] },
            legs: Legs::Single,
            concurrency: None,
            timeout_s: Some(90),
            container: true,
            services: true,
            uses: None,
            steps: 3,
            actions: vec!["docker://alpine".to_owned(), "actions/checkout@v4".to_owned()],
        };
        assert_eq!(job, expected);
    }

    #[test]
    fn odd_jobs_are_read_as_far_as_they_go() {
        assert_eq!(jobs("a: ~\nb: 5\nc: [x]\nd: {needs: a, uses: ./w.yml, container: ~}\n").len(), 4);
        let called = job("needs: a, uses: ./w.yml, container: ~, runs-on: ~");
        assert_eq!(
            (called.needs.as_slice(), called.uses.as_deref(), called.container),
            (&["a".to_owned()][..], Some("./w.yml"), false)
        );
        assert_eq!(called.runs_on, RunsOn::default());
        assert_eq!(job("timeout-minutes: '${{ x }}'").timeout_s, None);
        assert_eq!(job("timeout-minutes: '5'").timeout_s, Some(300));
        assert_eq!(job("timeout-minutes: 0").timeout_s, None);
        assert_eq!(job("timeout-minutes: 0.001").timeout_s, Some(1));
        assert_eq!(job("timeout-minutes: 1e300").timeout_s, Some(MAX_TIME_LIMIT_S));
        assert_eq!(job("timeout-minutes: .nan").timeout_s, None);
    }

    #[test]
    fn labels_are_lower_case_and_know_their_matrix() {
        let labels = |text: &str| job(text).labels();
        assert_eq!(labels("runs-on: [Self-Hosted, GPU, 22.04]").labels, set(&["self-hosted", "gpu", "22.04"]));
        assert_eq!(labels("runs-on: {group: big, labels: [X64]}").labels, set(&["x64"]));
        let all = labels(
            "runs-on: ['${{ matrix.os }}', 'r-${{matrix.c.v}}'], strategy: {matrix: {os: [A, B], c: [{v: 1}, {v: 2}]}}",
        );
        assert_eq!(all, Labels { labels: set(&["a", "b", "r-1", "r-2"]), expressions: BTreeSet::new() });
        assert_eq!(
            labels("runs-on: '${{ matrix.on }}', strategy: {matrix: {on: [[self-hosted, x], y]}}").labels,
            set(&["self-hosted", "x", "y"])
        );
        for unknown in [
            "${{ inputs.os }}",
            "${{ matrix.none }}",
            "${{ matrix.os || 'x' }}",
            "${{ matrix.os",
            "${{ matrix.list }}-x",
        ] {
            let labels = labels(&format!(
                "runs-on: ['{}', l], strategy: {{matrix: {{os: [a], list: [[b]]}}}}",
                unknown.replace('\'', "\'\'")
            ));
            assert_eq!(labels, Labels { labels: set(&["l"]), expressions: set(&[unknown]) });
        }
        assert_eq!(
            labels("runs-on: '${{ matrix.os }}', strategy: {matrix: {os: ['${{ x }}']}}").expressions,
            set(&["${{ matrix.os }}"])
        );
    }

    #[test]
    fn the_time_limit_is_the_longest_chain() {
        let limit = |text: &str| time_limit_s(&jobs(text));
        assert_eq!(limit("a: {timeout-minutes: 5}\nb: {timeout-minutes: 7}\n"), 7 * 60);
        assert_eq!(
            limit(
                "a: {timeout-minutes: 5}\nb: {timeout-minutes: 7, needs: a}\nc: {timeout-minutes: 1, needs: [a, b, b]}\n"
            ),
            13 * 60
        );
        assert_eq!(limit("a: {}\nb: {needs: [a, missing], timeout-minutes: 1}\n"), 361 * 60);
        assert_eq!(
            limit("a: {timeout-minutes: 1, needs: b}\nb: {timeout-minutes: 2, needs: a}\nc: {timeout-minutes: 1}\n"),
            120
        );
        assert_eq!(limit("{}"), DEFAULT_JOB_TIMEOUT_S);
        let chain: String = (0..40).map(|n| format!("j{}: {{needs: j{n}}}\n", n + 1)).collect();
        assert_eq!(limit(&chain), MAX_TIME_LIMIT_S);
    }
}
