//! A workflow file's bytes into everything the rest of the house needs.
//!
//! Owns all reading of YAML. Promises: any bytes have an answer, never an error and never a panic, at a cost in
//! proportion to their length; what is odd about a file is told in [`Workflow::warnings`]. Pure. Leaves finding files to
//! `forge` and running them to `runner`.

mod concurrency;
mod cron;
mod expression;
mod glob;
mod job;
mod matrix;
mod scan;
mod scripts;
mod secrets;
mod tags;
mod trigger;
mod yaml;

use std::collections::BTreeSet;
use std::ops::Range;

use crate::kernel::task::{CONTAINER_ENGINE, Tag};

pub use concurrency::{MAX_GROUP, Occasion, Written};
pub use cron::Cron;
pub use glob::Patterns;
pub use job::{DEFAULT_JOB_TIMEOUT_S, Job, Labels, MAX_TIME_LIMIT_S, RunsOn};
pub use matrix::{Leg, Legs, MAX_LEGS};
pub use secrets::secrets;
pub use tags::{Dropped, MAX_DROPPED, Tags};
pub use trigger::{InputKind, InputSpec, PushFilter, Triggers};

use scan::Seen;
use scripts::Scripts;
use tags::{Gathered, legible};
use yaml::{Document, Map, Node};

/// The largest workflow file that is read, in bytes. GitHub's own limit is not documented; the largest in use are some
/// hundred kilobytes.
pub const MAX_BYTES: usize = 1 << 20;
/// The most characters of a workflow's name.
const MAX_NAME: usize = 200;

/// A workflow file, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Workflow {
    /// Its `name:`, else its path.
    pub name: String,
    pub tags: BTreeSet<Tag>,
    /// Words where tags belong that are none: in the order of the file, at most [`MAX_DROPPED`].
    pub dropped: Vec<Dropped>,
    pub triggers: Triggers,
    /// Its own `concurrency:`; [`Self::concurrency`] says what it comes to.
    pub concurrency: Option<Written>,
    /// In the order of the file.
    pub jobs: Vec<Job>,
    /// What a person should know of it.
    pub warnings: Vec<String>,
    /// Why it is no workflow: not YAML, not a mapping, or beyond a limit. Then it has no triggers and no jobs; tags in
    /// comments are read all the same, unless the file is too large.
    pub error: Option<String>,
}

impl Workflow {
    /// The labels of all jobs.
    pub fn labels(&self) -> Labels {
        let mut labels = Labels::default();
        self.jobs.iter().for_each(|job| labels.extend(job.labels()));
        labels
    }

    /// What a host must offer to run it: the labels of all jobs, and [`CONTAINER_ENGINE`] where a job asks for
    /// `container:` or `services:`.
    pub fn needs(&self) -> BTreeSet<String> {
        let mut needs = self.labels().labels;
        if self.jobs.iter().any(|job| job.container || job.services) {
            needs.insert(CONTAINER_ENGINE.to_owned());
        }
        needs
    }

    /// How long it may run, in seconds, 1 to [`MAX_TIME_LIMIT_S`]: the largest sum of the timeouts of jobs that wait
    /// for each other, a job without one counting as [`DEFAULT_JOB_TIMEOUT_S`].
    pub fn time_limit_s(&self) -> u32 {
        job::time_limit_s(&self.jobs)
    }
}

/// The tags of a workflow file, and nothing else: the same as [`read`] finds, at a small part of its cost. A file that
/// cannot hold a tag is not parsed, so that odd YAML without tags goes unnoticed here.
pub fn tags(bytes: &[u8]) -> Tags {
    let mut gathered = Gathered::default();
    if let Some(error) = too_large(bytes) {
        gathered.warn(error);
    } else if tags::may_hold_tags(bytes) {
        let lexed = lex(bytes, &mut gathered);
        if tags::may_hold_variables(bytes) {
            match yaml::parse(bytes, lexed.flow_depth, &lexed.scripts) {
                Ok(document) => variables(bytes, &document, &mut gathered),
                Err(error) => gathered.warn(error),
            }
        }
    }
    gathered.finish()
}

/// Reads a workflow file as [`read`] does if it has tags, or words where tags belong, or comes close enough to be no
/// workflow at all; the many others cost a small part of that.
pub fn read_if_tagged(path: &str, bytes: &[u8]) -> Option<Workflow> {
    if bytes.len() <= MAX_BYTES && !tags::may_hold_tags(bytes) {
        return None;
    }
    let workflow = read(path, bytes);
    (!workflow.tags.is_empty() || !workflow.dropped.is_empty() || workflow.error.is_some()).then_some(workflow)
}

/// Reads a workflow file. `path` names it where it has no `name:`.
pub fn read(path: &str, bytes: &[u8]) -> Workflow {
    let mut gathered = Gathered::default();
    let document = match too_large(bytes) {
        Some(error) => Err(error),
        None => {
            let tagged = tags::may_hold_tags(bytes);
            let lexed = lex(bytes, &mut gathered);
            let document = yaml::parse(bytes, lexed.flow_depth, &lexed.scripts);
            if let (true, Ok(document)) = (tagged, &document) {
                variables(bytes, document, &mut gathered);
            }
            document
        }
    };
    let Tags { tags, dropped, mut warnings } = gathered.finish();
    let (root, error) = match document {
        Ok(Document { root: root @ Node::Map(_), odd_keys }) => {
            for key in odd_keys {
                let what = if key == "<<" { "merges another mapping" } else { "stands twice in one mapping" };
                warnings.push(format!("the key `{}` {what}, which GitHub refuses", legible(&key, 80)));
            }
            (root, None)
        }
        Ok(_) => (Node::Null, Some("not a workflow: no mapping of `on:` and `jobs:`".to_owned())),
        Err(error) => (Node::Null, Some(error)),
    };
    warnings.extend(error.clone());

    let name = root.get("name").and_then(Node::text).filter(|name| !name.trim().is_empty());
    // A reader of YAML 1.1 takes the key `on` for true, and writes that back.
    let triggers = Triggers::read(root.get("on").or_else(|| root.get("true")), &mut warnings);
    let mut left = matrix::BUDGET;
    let jobs = match root.get("jobs") {
        Some(Node::Map(Map(jobs))) => jobs.iter().map(|(id, node)| Job::read(id, node, &mut left)).collect(),
        _ => Vec::new(),
    };
    Workflow {
        name: legible(name.as_deref().unwrap_or(path).trim(), MAX_NAME),
        tags,
        dropped,
        triggers,
        concurrency: Written::read(root.get("concurrency")),
        jobs,
        warnings,
        error,
    }
}

fn too_large(bytes: &[u8]) -> Option<String> {
    let size = bytes.len();
    (size > MAX_BYTES)
        .then(|| format!("{size} bytes; a workflow file of more than {MAX_BYTES} is not read, its tags neither"))
}

/// What is known of a file before it is parsed.
struct Lexed {
    /// How deep the brackets nest.
    flow_depth: usize,
    /// Where the scripts of steps stand.
    scripts: Vec<Range<usize>>,
}

/// Gathers the tags in comments on the way.
fn lex(bytes: &[u8], gathered: &mut Gathered<'_>) -> Lexed {
    let mut scripts = Scripts::default();
    let shape = scan::scan(bytes, |seen| match seen {
        Seen::Comment { line, text } => gathered.comment(line, text),
        other => scripts.see(bytes, &other),
    });
    Lexed { flow_depth: shape.flow_depth, scripts: scripts.found() }
}

/// Gathers the tags in variables, of the workflow and of its jobs.
fn variables<'a>(bytes: &'a [u8], document: &Document, gathered: &mut Gathered<'a>) {
    gathered.env(bytes, &[], document.root.get("env"));
    if let Some(Node::Map(Map(jobs))) = document.root.get("jobs") {
        for (id, job) in jobs {
            gathered.env(bytes, &["jobs", id], job.get("env"));
        }
    }
}

#[cfg(test)]
mod tests;
