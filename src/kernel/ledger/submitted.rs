//! What was submitted last of each workflow: remembered for good, so that a node that begins to look through a source
//! does not submit again what was run and forgotten long ago.

use serde::{Deserialize, Serialize};

use crate::kernel::id::Cid;
use crate::kernel::task::{Trigger, Workload};

/// The most slots that are remembered of one workflow: branches come and go.
const MAX_SLOTS: usize = 64;

/// What was submitted last of one workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submitted {
    /// The repository's host and id, and the workflow's path.
    pub workflow: (String, String, String),
    /// By slot.
    pub last: Vec<Last>,
}

/// The last of one kind: the file's revision, a branch's head, a schedule's tick.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Last {
    pub slot: Slot,
    pub value: String,
    /// Where its introduction stands in the order of entries.
    pub at: (u64, Cid),
}

/// The kinds, as far as a trigger may come up again by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Slot {
    Revision,
    Push(String),
    Schedule(String),
}

impl Slot {
    /// The slot of a trigger and its value there. `None` for what nobody discovers again.
    pub fn of(trigger: &Trigger) -> Option<(Self, String)> {
        match trigger {
            Trigger::Revision { blob } => Some((Self::Revision, blob.clone())),
            Trigger::Push { r#ref, commit } => Some((Self::Push(r#ref.clone()), commit.clone())),
            Trigger::Schedule { cron, minute } => Some((Self::Schedule(cron.clone()), minute.to_string())),
            Trigger::Manual { .. } | Trigger::GithubJob { .. } => None,
        }
    }
}

impl Submitted {
    pub(super) fn key(workload: &Workload) -> (String, String, String) {
        let repository = &workload.repository;
        (repository.host.clone(), repository.id.clone(), workload.path.clone())
    }

    pub(super) fn last(&self, slot: &Slot) -> Option<&Last> {
        self.last.iter().find(|last| last.slot == *slot)
    }

    /// Takes note of a submission; of two of one slot the later in the order of entries is the last.
    pub(super) fn note(&mut self, slot: Slot, value: String, at: (u64, Cid)) {
        match self.last.iter_mut().find(|last| last.slot == slot) {
            Some(last) if last.at < at => (last.value, last.at) = (value, at),
            Some(_) => {}
            None => self.last.push(Last { slot, value, at }),
        }
        if self.last.len() > MAX_SLOTS
            && let Some(oldest) = (0..self.last.len()).min_by_key(|n| self.last[*n].at)
        {
            self.last.swap_remove(oldest);
        }
        self.last.sort_by(|a, b| a.slot.cmp(&b.slot));
    }
}
