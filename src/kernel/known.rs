//! What the ledger already has of a repository: what discovery needs in order to submit everything once.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::Hlc;
use super::ledger::{Folded, Slot, Submitted};
use super::task::{State, Trigger, Workload};

/// What the mesh knows of the workflows of one repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// For each workflow, by path.
    pub workflows: BTreeMap<String, KnownWorkflow>,
}

/// What the mesh knows of one workflow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownWorkflow {
    /// The head commit that its latest push task was made of.
    pub pushed: Option<String>,
    /// The commits of its tasks that nobody holds and that discovery introduced.
    pub pending: BTreeSet<String>,
    /// The latest tick that a task was made of, in minutes since 1970, by cron line.
    pub ticks: BTreeMap<String, u64>,
    /// When its first task was introduced, in minutes since 1970 by its author's clock: ticks before are not made up.
    pub since: Option<u64>,
    /// The revisions that tasks were made of, by blob id, as far as they are remembered.
    pub revisions: BTreeSet<String>,
    /// When the task of `pushed` was introduced.
    pub pushed_at: Option<Hlc>,
}

impl Known {
    /// Takes into account what a checkpoint remembers of one workflow, as of that minute. Whatever else is known of it
    /// came later.
    pub(super) fn recall(&mut self, submitted: &Submitted, minute: u64) {
        let workflow = self.workflows.entry(submitted.workflow.2.clone()).or_default();
        workflow.since = Some(minute);
        let pushed = submitted.last.iter().filter(|last| matches!(last.slot, Slot::Push(_)));
        workflow.pushed = pushed.max_by_key(|last| last.at).map(|last| last.value.clone());
        let revisions = submitted.last.iter().filter(|last| last.slot == Slot::Revision);
        workflow.revisions.extend(revisions.map(|last| last.value.clone()));
        for last in &submitted.last {
            if let (Slot::Schedule(cron), Ok(tick)) = (&last.slot, last.value.parse()) {
                workflow.ticks.insert(cron.clone(), tick);
            }
        }
    }

    /// Takes one of the repository's tasks into account.
    pub(super) fn add(&mut self, folded: &Folded) {
        let workload = &folded.workload;
        if matches!(workload.trigger, Trigger::GithubJob { .. }) {
            // It was GitHub that started it: discovery has not seen the workflow.
            return;
        }
        let workflow = self.workflows.entry(workload.path.clone()).or_default();
        let minute = folded.introduced.ms / 60_000;
        workflow.since = Some(workflow.since.map_or(minute, |since| since.min(minute)));
        match &workload.trigger {
            Trigger::Push { commit, .. } if workflow.pushed_at.is_none_or(|latest| latest < folded.introduced) => {
                workflow.pushed = Some(commit.clone());
                workflow.pushed_at = Some(folded.introduced);
            }
            Trigger::Revision { blob } => drop(workflow.revisions.insert(blob.clone())),
            Trigger::Schedule { cron, minute } => {
                let latest = workflow.ticks.entry(cron.clone()).or_insert(*minute);
                *latest = (*latest).max(*minute);
            }
            _ => {}
        }
        let by_hand = matches!(workload.trigger, Trigger::Manual { .. });
        if folded.state == State::Pending && !by_hand {
            workflow.pending.insert(workload.commit.clone());
        }
    }
}

impl KnownWorkflow {
    /// Whether a discovered task of it has been introduced before, as far as that is remembered.
    pub fn has(&self, workload: &Workload) -> bool {
        match &workload.trigger {
            Trigger::Revision { blob } => self.revisions.contains(blob),
            Trigger::Push { commit, .. } => self.pushed.as_ref() == Some(commit),
            Trigger::Schedule { cron, minute } => self.ticks.get(cron).is_some_and(|tick| tick >= minute),
            Trigger::Manual { .. } | Trigger::GithubJob { .. } => false,
        }
    }
}

/// A workflow that is no more, or has no tags any more, at a commit that stands on those of its pending tasks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gone {
    pub host: String,
    /// The repository's id.
    pub id: String,
    pub path: String,
    /// The commits whose pending tasks are for nothing.
    pub commits: BTreeSet<String>,
}
