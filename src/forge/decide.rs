//! What a workflow file's tags and triggers come to: tasks, or why not. One set of rules for all kinds of sources.

use std::collections::{BTreeMap, BTreeSet};

use crate::kernel::known::KnownWorkflow;
use crate::kernel::task::{Priority, Repository, RunEvent, Trigger, Workload};
use crate::workflow::{Cron, PushFilter, Workflow};

use super::{Draft, Found, policy_forbids};

/// The commit that a repository stands at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The full name of its branch, or `HEAD` where no branch says what the default is.
    pub r#ref: String,
    pub commit: String,
}

/// Where a workflow file was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Site<'a> {
    pub(super) source: &'a str,
    pub(super) repository: &'a Repository,
    pub(super) head: &'a Head,
}

/// The files that differ between two commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Changed {
    Paths(Vec<String>),
    /// It cannot be told, or there are too many: it counts as matched, as at GitHub when a difference cannot be made.
    Unknown,
}

/// What came of a workflow file.
#[derive(Debug, Default)]
pub(super) struct Decision {
    pub(super) workloads: Vec<Workload>,
    /// Why its own trigger starts nothing now.
    pub(super) why_not: Option<String>,
    pub(super) warnings: Vec<String>,
}

/// Decides what of a workflow should run. `minute` is the present one, in minutes since 1970 UTC; ticks of its schedule
/// since the last known one are made up, the latest of each line only.
///
/// # Errors
/// The commit that the head must be compared with first, where a filter of paths has to know what changed since.
pub(super) fn decide(
    site: Site<'_>,
    path: &str,
    blob: &str,
    workflow: &Workflow,
    known: Option<&KnownWorkflow>,
    changed: Option<&Changed>,
    minute: u64,
) -> Result<Decision, String> {
    let refused = |why| Ok(Decision { why_not: Some(why), ..Decision::default() });
    if let Some(why) = policy_forbids(&workflow.tags) {
        return refused(why);
    }
    let event = match (&workflow.error, workflow.triggers.event()) {
        (None, Err(why)) => return refused(why),
        (_, event) => event.unwrap_or(RunEvent::Push),
    };
    let draft = site.draft(path, workflow);
    let mut decision = Decision::default();
    let trigger = match &workflow.triggers.push {
        None => Ok(Trigger::Revision { blob: blob.to_owned() }),
        Some(push) => match filtered(push, site.head, known, changed)? {
            Some(why) => Err(why),
            None => Ok(Trigger::Push { r#ref: site.head.r#ref.clone(), commit: site.head.commit.clone() }),
        },
    };
    let mut odd = BTreeSet::new();
    let mut tell = |text| {
        odd.insert(text);
    };
    match trigger.and_then(|trigger| draft.workload(trigger, event, BTreeMap::new(), &mut tell)) {
        Ok(workload) => decision.workloads.push(workload),
        Err(why) => decision.why_not = Some(why),
    }
    for line in &workflow.triggers.schedule {
        let tick = Cron::read(line).map(|cron| {
            let known = known?;
            let after = known.ticks.get(line).copied().or(known.since)?;
            cron.latest(after, minute)
        });
        match tick {
            Ok(Some(minute)) => {
                let trigger = Trigger::Schedule { cron: line.clone(), minute };
                decision.workloads.extend(draft.workload(trigger, RunEvent::Schedule, BTreeMap::new(), &mut tell));
            }
            Ok(None) => {}
            Err(why) => {
                decision.warnings.push(site.says(path, &format!("a line of `on: schedule` never ticks: {why}")))
            }
        }
    }
    decision.warnings.extend(odd.iter().map(|text| site.says(path, text)));
    if !decision.workloads.is_empty() {
        let unknown = workflow.labels().expressions;
        decision.warnings.extend(unknown.iter().map(|label| {
            let text = format!("the label `{label}` is known only when it runs, so it does not choose the host");
            site.says(path, &text)
        }));
    }
    Ok(decision)
}

/// Why a push of this head does not start a workflow, if so.
fn filtered(
    push: &PushFilter,
    head: &Head,
    known: Option<&KnownWorkflow>,
    changed: Option<&Changed>,
) -> Result<Option<String>, String> {
    if !push.matches_ref(&head.r#ref) {
        return Ok(Some(format!("the filters of its `on: push` leave {} out", head.r#ref)));
    }
    let before = known.and_then(|known| known.pushed.as_ref());
    let Some(before) = before.filter(|before| push.filters_paths() && **before != head.commit) else {
        return Ok(None);
    };
    let matches = match changed {
        None => return Err(before.clone()),
        Some(Changed::Unknown) => true,
        Some(Changed::Paths(paths)) => push.matches_paths(paths.iter().map(String::as_str)),
    };
    Ok((!matches).then(|| {
        format!("no file changed since {} that the paths of its `on: push` name", &before[..before.len().min(12)])
    }))
}

impl<'a> Site<'a> {
    pub(super) fn draft(self, path: &'a str, workflow: &'a Workflow) -> Draft<'a> {
        Draft { workflow, repository: self.repository, path, commit: &self.head.commit, r#ref: &self.head.r#ref }
    }

    /// A workflow file, for people; `workflow` is absent where it has no tags or was not read.
    pub(super) fn found(self, path: &str, workflow: Option<&Workflow>, why_not: Option<String>) -> Found {
        let tags = workflow.map(|workflow| workflow.tags.clone()).unwrap_or_default();
        Found {
            source: self.source.to_owned(),
            repository: self.repository.name.clone(),
            path: path.to_owned(),
            commit: self.head.commit.clone(),
            name: workflow.map_or(path, |workflow| &workflow.name).to_owned(),
            priority: Priority::of(&tags),
            tags,
            dropped: workflow.map(|workflow| workflow.dropped.clone()).unwrap_or_default(),
            why_not,
        }
    }

    /// A sentence about one of its workflow files.
    pub(super) fn says(self, path: &str, text: &str) -> String {
        format!("{}: {path}: {text}", self.repository.name)
    }

    /// The task of a person's or program's request to run a workflow file. Without `priority` the tags give it.
    ///
    /// # Errors
    /// Why it cannot run: no YAML, tags that leave it to GitHub, no trigger, or wrong inputs.
    pub(super) fn manual(self, path: &str, workflow: &Workflow, asked: &super::Asked) -> Result<Workload, String> {
        if !workflow.tags.is_empty()
            && let Some(why) = policy_forbids(&workflow.tags)
        {
            return Err(why);
        }
        let trigger = Trigger::Manual { request: asked.request.clone() };
        let tell = |text: String| tracing::warn!("{}", self.says(path, &text));
        // Why it is no workflow at all says more than that it has no trigger.
        let (event, inputs) = match workflow.error {
            Some(_) => (RunEvent::WorkflowDispatch, BTreeMap::new()),
            None => (workflow.triggers.manual_event()?, workflow.triggers.check_inputs(&asked.inputs)?),
        };
        let mut workload = self.draft(path, workflow).workload(trigger, event, inputs, tell)?;
        workload.priority = asked.priority.unwrap_or(workload.priority);
        Ok(workload)
    }
}
