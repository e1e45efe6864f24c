//! The queue of tasks that wait for a slot: the most urgent first, and waiting makes urgent.
//!
//! Owns the order in which a node looks at runnable tasks. Promises that two nodes with the same tasks put them in the
//! same order whatever the time is on either, and that no task waits for ever behind more urgent ones. Leaves to others
//! which tasks are runnable and who takes them.
//!
//! Ageing without a clock: a task of priority `p`, introduced at `t`, stands at `t - p * STEP` ([`Key`]), and the least
//! stands first. That number never changes, and yet it is ageing: of two tasks one level apart, the less urgent one goes
//! first exactly when it has waited [`STEP_MS`] longer. So nothing is touched as time goes by, and the heap's
//! decrease-key is left for what really changes: a task that a person makes more urgent, or an earlier introduction
//! that became known.

mod heap;

use std::collections::BTreeMap;

pub use heap::{Handle, Heap, NotAhead};

use super::entry::Hlc;
use super::id::TaskId;
use super::task::Priority;

/// Waiting this long makes a task one level more urgent, in milliseconds: 10 minutes. Own choice: from the default 5
/// to the most urgent in 50 minutes, from the least in an hour and a half.
pub const STEP_MS: u64 = 10 * 60 * 1000;

/// Where a task stands among those that wait; the least goes first. The same on all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Milliseconds: the time of introduction, less one [`STEP_MS`] for each level of priority.
    due: i128,
    introduced: Hlc,
    task: TaskId,
}

impl Key {
    /// The place of a task of that priority whose anchor bears that time.
    pub fn of(priority: Priority, introduced: Hlc, task: TaskId) -> Self {
        let head_start = i128::from(priority.number()) * i128::from(STEP_MS);
        Self { due: i128::from(introduced.ms) - head_start, introduced, task }
    }

    pub const fn task(&self) -> TaskId {
        self.task
    }

    /// The priority that the task has reached by its waiting, for people: at most [`Priority::MOST`].
    pub fn aged(&self, wall_ms: u64) -> Priority {
        let level = (i128::from(wall_ms.max(self.introduced.ms)) - self.due) / i128::from(STEP_MS);
        let within = level.clamp(Priority::LEAST.number().into(), Priority::MOST.number().into());
        u8::try_from(within).ok().and_then(|number| Priority::new(number).ok()).unwrap_or(Priority::MOST)
    }
}

/// The waiting tasks of a node, each once.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    heap: Heap<Key, ()>,
    handles: BTreeMap<TaskId, Handle>,
}

impl Queue {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.handles.len()
    }

    pub fn is_empty(&self) -> bool {
        self.handles.is_empty()
    }

    pub fn contains(&self, task: &TaskId) -> bool {
        self.handles.contains_key(task)
    }

    /// Puts the task where the key says, also when it waits already. O(1) amortised for a new task and for one that
    /// moves ahead, O(log n) for one that falls back; besides the O(log n) of finding it by its id.
    pub fn put(&mut self, key: Key) {
        match self.handles.get(&key.task) {
            Some(&handle) if self.heap.decrease(handle, key).is_ok() => {}
            Some(&handle) => {
                self.heap.remove(handle);
                self.handles.insert(key.task, self.heap.insert(key, ()));
            }
            None => {
                self.handles.insert(key.task, self.heap.insert(key, ()));
            }
        }
    }

    /// Takes the task out, if it waits. O(log n) amortised.
    pub fn remove(&mut self, task: &TaskId) -> Option<Key> {
        let handle = self.handles.remove(task)?;
        self.heap.remove(handle).map(|(key, ())| key)
    }

    /// The task that goes first.
    pub fn first(&self) -> Option<&Key> {
        self.heap.first().map(|(key, ())| key)
    }

    /// Takes out the task that goes first. O(log n) amortised.
    pub fn pop(&mut self) -> Option<Key> {
        let (key, ()) = self.heap.pop()?;
        self.handles.remove(&key.task);
        Some(key)
    }

    /// All waiting tasks, the first first; each step costs O(log n), so looking at a few is cheap.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.heap.iter().map(|(key, ())| key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn priority(number: u8) -> Priority {
        Priority::new(number).unwrap()
    }

    fn key(number: u8, ms: u64, task: u8) -> Key {
        Key::of(priority(number), Hlc { ms, count: 0 }, TaskId([task; 32]))
    }

    #[test]
    fn the_more_urgent_goes_first_until_the_other_has_waited_a_step_a_level() {
        let t = 1_700_000_000_000;
        assert!(key(8, t, 1) < key(6, t, 2));
        assert!(key(8, t + 2 * STEP_MS - 1, 1) < key(6, t, 2));
        assert!(key(8, t + 2 * STEP_MS + 1, 1) > key(6, t, 2));
        // Level at last: the older one goes first.
        assert!(key(8, t + 2 * STEP_MS, 1) > key(6, t, 2));
    }

    #[test]
    fn equals_go_in_the_clocks_order_then_by_id() {
        assert!(key(5, 10, 9) < key(5, 11, 1));
        assert!(key(5, 10, 1) < key(5, 10, 2));
        let later = Key::of(priority(5), Hlc { ms: 10, count: 1 }, TaskId([1; 32]));
        assert!(key(5, 10, 9) < later);
    }

    #[test]
    fn waiting_shows_as_priority() {
        let key = key(5, 1000 * STEP_MS, 1);
        assert_eq!(key.aged(0), priority(5));
        assert_eq!(key.aged(1000 * STEP_MS), priority(5));
        assert_eq!(key.aged(1001 * STEP_MS), priority(6));
        assert_eq!(key.aged(u64::MAX), Priority::MOST);
    }

    #[test]
    fn times_at_the_ends_of_the_range_keep_the_order() {
        assert!(key(10, 0, 1) < key(1, 0, 2));
        assert!(key(10, u64::MAX, 1) < key(1, u64::MAX, 2));
    }

    proptest! {
        #[test]
        fn a_queue_is_a_sorted_set_of_tasks(
            steps in prop::collection::vec((0u8..4, 1u8..=10, 0u64..4 * STEP_MS, 0u8..20), 1..300),
        ) {
            let (mut queue, mut model) = (Queue::new(), BTreeMap::new());
            for (step, number, ms, task) in steps {
                let new = key(number, ms, task);
                match step {
                    0 | 1 => {
                        queue.put(new);
                        model.insert(new.task, new);
                    }
                    2 => prop_assert_eq!(queue.remove(&new.task), model.remove(&new.task)),
                    _ => {
                        let first = model.values().min().copied();
                        prop_assert_eq!(queue.pop(), first);
                        first.map(|first| model.remove(&first.task));
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
                let sorted: BTreeSet<_> = model.values().copied().collect();
                prop_assert_eq!(queue.first(), sorted.first());
                prop_assert!(queue.iter().eq(sorted.iter()));
            }
        }

        #[test]
        fn order_does_not_depend_on_when_one_looks(
            a in (1u8..=10, 0u64..100 * STEP_MS), b in (1u8..=10, 0u64..100 * STEP_MS), later in 0u64..100 * STEP_MS,
        ) {
            // The order of the keys is that of exact, uncapped ageing at any time after both were introduced.
            let (first, second) = (key(a.0, a.1, 1), key(b.0, b.1, 2));
            let now = i128::from(a.1.max(b.1) + later);
            let urgency = |(number, ms): (u8, u64)| {
                i128::from(number) * i128::from(STEP_MS) + (now - i128::from(ms))
            };
            match urgency(a).cmp(&urgency(b)) {
                std::cmp::Ordering::Greater => prop_assert!(first < second),
                std::cmp::Ordering::Less => prop_assert!(first > second),
                std::cmp::Ordering::Equal => prop_assert_eq!(first < second, a.1 <= b.1),
            }
        }
    }
}
