//! When waiting tasks may have to be ended: one time for each.

use std::collections::{BTreeMap, BTreeSet};

use crate::kernel::id::TaskId;

#[derive(Debug, Default)]
pub(super) struct Ends {
    by_time: BTreeSet<(u64, TaskId)>,
    times: BTreeMap<TaskId, u64>,
}

impl Ends {
    /// Looks at a task at that time, or sooner where it was to be looked at sooner.
    pub(super) fn put(&mut self, at: u64, task: TaskId) {
        let sooner = self.times.get(&task).copied().filter(|due| *due <= at);
        if sooner.is_some() {
            return;
        }
        if let Some(later) = self.times.insert(task, at) {
            self.by_time.remove(&(later, task));
        }
        self.by_time.insert((at, task));
    }

    /// Takes out the first whose time has come.
    pub(super) fn pop_due(&mut self, now: u64) -> Option<TaskId> {
        let first = self.by_time.first().copied().filter(|(at, _)| *at <= now)?;
        self.by_time.remove(&first);
        self.times.remove(&first.1);
        Some(first.1)
    }

    /// When the first is to be looked at, if any is.
    pub(super) fn next(&self) -> u64 {
        self.by_time.first().map_or(u64::MAX, |(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_has_one_time_and_the_sooner_counts() {
        let (mut ends, [a, b]) = (Ends::default(), [1, 2].map(|n| TaskId([n; 32])));
        for (at, task) in [(5, a), (7, a), (3, a), (9, b)] {
            ends.put(at, task);
        }
        assert_eq!((ends.next(), ends.pop_due(2)), (3, None));
        assert_eq!((ends.pop_due(8), ends.pop_due(8), ends.next()), (Some(a), None, 9));
        ends.put(10, a);
        assert_eq!((ends.pop_due(10), ends.pop_due(10), ends.pop_due(10)), (Some(b), Some(a), None));
        assert_eq!(ends.next(), u64::MAX);
    }
}
