//! Whose log tells of a task: that of the runner which had its job, whatever that runner was started for.

use std::collections::{BTreeMap, VecDeque};

use super::{Deed, Pool};
use crate::forge::github::{Job, JobState};
use crate::kernel::id::TaskId;
use crate::kernel::task::Fence;

/// How many runners are remembered that have ended. GitHub tells what they had within minutes.
const MOST: usize = 1_024;

/// The last runners that have ended: their names, and what the runner room knew them by.
#[derive(Default)]
pub(super) struct Past(VecDeque<(String, (TaskId, Fence))>);

impl Past {
    pub(super) fn push(&mut self, name: String, order: (TaskId, Fence)) {
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back((name, order));
    }

    fn find(&self, name: &str) -> Option<(TaskId, Fence)> {
        self.0.iter().rev().find(|(past, _)| past == name).map(|(_, order)| *order)
    }
}

impl Pool {
    /// Of the held tasks whose jobs runners of other orders have or had, which those are; each is said once.
    pub(super) fn written_elsewhere(&mut self, jobs: &BTreeMap<u64, Job>) -> Vec<Deed> {
        let mut deeds = Vec::new();
        for (task, held) in &mut self.held {
            let job = jobs.get(&held.job).filter(|job| !matches!(job.state, JobState::Queued | JobState::Held));
            let Some(runner) = job.and_then(|job| job.runner.as_ref()) else { continue };
            let order = self.hands.get(runner).map(|hand| hand.order).or_else(|| self.past.find(runner));
            let of = (*task, held.fence);
            if let Some(order) = order.filter(|order| *order != of && held.told_by != Some(*order)) {
                held.told_by = Some(order);
                deeds.push(Deed::Tells { order, of });
            }
        }
        deeds
    }
}
