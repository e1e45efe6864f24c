//! The tasks, as the entries tell of them.
//!
//! For every task the ledger keeps the events that name it, each with the mark of its entry, and folds them into one
//! state. The folding reads nothing but that set, so that any order of arrival gives the same state.

mod fold;
mod pause;
mod submitted;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

pub use fold::{Folded, HeldClaim, Kept};
pub use pause::Paused;
pub use submitted::{Last, Slot, Submitted};

use super::clock::Mark;
use super::entry::{Body, Entry, Event, Hlc};
use super::id::{Author, Cid, Digest, TaskId};
use super::rules;
use super::snapshot::Snapshot;
use super::task::Workload;

/// One event of a task, and where it stands in the clock.
#[derive(Debug, Clone)]
struct Fact {
    mark: Arc<Mark>,
    body: Arc<Body>,
    /// Which of the body's events it is.
    at: usize,
}

impl Fact {
    fn author(&self) -> Author {
        self.body.author
    }

    fn time(&self) -> Hlc {
        self.body.time
    }

    fn event(&self) -> &Event {
        &self.body.events[self.at]
    }

    /// Whether it counts, where that is known of its entry by its id and the number of the rules that it needs.
    fn counts(&self, counts: impl Fn(&Cid, u32) -> bool) -> bool {
        counts(&self.mark.cid, rules::since(self.event()))
    }
}

/// A task and everything said of it.
#[derive(Debug, Default)]
struct Record {
    /// What the checkpoint has of it.
    kept: Option<Box<Kept>>,
    facts: Vec<Fact>,
    folded: Option<Box<Shown>>,
}

/// A folded task, and its digest once somebody has asked for it.
#[derive(Debug)]
struct Shown {
    folded: Folded,
    digest: OnceLock<Digest>,
}

/// All tasks.
#[derive(Debug, Default)]
pub struct Ledger {
    records: BTreeMap<TaskId, Record>,
    open: BTreeSet<TaskId>,
    /// The hash of the checkpoint's snapshot.
    base: Option<Digest>,
    /// Tasks that had ended at the checkpoint, and at which height: nothing that is said of them counts before a later
    /// checkpoint has forgotten them. It is kept until then: that checkpoint may come to stand only after it was said.
    closed: BTreeMap<TaskId, u64>,
    /// By repository host and id, and path.
    submitted: BTreeMap<(String, String, String), Submitted>,
    /// What was said of pausing the mesh, and how it stood at the checkpoint.
    pauses: Vec<Fact>,
    kept_pause: Option<Paused>,
    /// The hash of the state as it is now, once somebody has asked for it.
    hash: OnceLock<Digest>,
}

/// For how many heights beneath a cut the ids of ended tasks are kept. Heights, not times: no clock can shorten it.
const CLOSED_HEIGHTS: u64 = 1024;

impl Ledger {
    /// Takes the events of an entry. Returns the tasks whose state must be folded again by [`Self::fold`].
    pub fn add(&mut self, entry: &Entry, mark: &Arc<Mark>) -> BTreeSet<TaskId> {
        let mut touched = BTreeSet::new();
        for (at, event) in entry.body().events.iter().enumerate() {
            let fact = || Fact { mark: mark.clone(), body: entry.shared_body().clone(), at };
            if matches!(event, Event::Pause(_) | Event::Resume(_)) {
                self.pauses.push(fact());
            }
            let Some(task) = task_of(event) else { continue };
            let facts = &mut self.records.entry(task).or_default().facts;
            // Most tasks have three: introduced, claimed, finished.
            facts.reserve_exact(1);
            facts.push(fact());
            if !self.closed.contains_key(&task) {
                touched.insert(task);
            }
        }
        touched
    }

    /// Folds one task from those of its events that count, by their entry and the number of the rules that they need;
    /// one that had ended at the checkpoint is not folded. `true` when its state is another than before.
    pub fn fold(&mut self, task: &TaskId, counts: impl Fn(&Cid, u32) -> bool) -> bool {
        let Some(record) = self.records.get_mut(task).filter(|_| !self.closed.contains_key(task)) else { return false };
        let facts = record.facts.iter().filter(|fact| fact.counts(&counts));
        let folded = fold::fold(task, record.kept.as_deref(), facts).map(|outcome| outcome.folded);
        if folded.as_ref() == record.folded.as_ref().map(|shown| &shown.folded) {
            return false;
        }
        self.hash.take();
        if folded.as_ref().is_some_and(|folded| folded.state.is_open()) {
            self.open.insert(*task);
        } else {
            self.open.remove(task);
        }
        record.folded = folded.map(|folded| Box::new(Shown { folded, digest: OnceLock::new() }));
        true
    }

    /// All tasks that events name, introduced or not: what is to be folded again after a recount.
    pub fn named(&self) -> Vec<TaskId> {
        self.records.keys().copied().collect()
    }

    /// What is known of a task that has been introduced.
    pub fn get(&self, task: &TaskId) -> Option<&Folded> {
        Some(&self.records.get(task)?.folded.as_ref()?.folded)
    }

    /// All introduced tasks, by id.
    pub fn all(&self) -> impl Iterator<Item = (&TaskId, &Folded)> {
        self.records.iter().filter_map(|(task, record)| Some((task, &record.folded.as_ref()?.folded)))
    }

    /// The tasks that may still change hands, by id.
    pub const fn open(&self) -> &BTreeSet<TaskId> {
        &self.open
    }

    /// Whether the mesh is paused, as those entries say that count.
    pub fn paused(&self, counts: impl Fn(&Cid, u32) -> bool) -> Option<Paused> {
        pause::fold(self.kept_pause.as_ref(), self.pauses.iter().filter(|fact| fact.counts(&counts)))
    }

    /// A hash of the state of all tasks: equal on two nodes exactly when they agree.
    pub fn state_hash(&self) -> Digest {
        *self.hash.get_or_init(|| {
            let mut all = self.base.map(|base| base.0.to_vec()).unwrap_or_default();
            for (task, record) in &self.records {
                let Some(Shown { folded, digest }) = record.folded.as_deref() else { continue };
                all.extend_from_slice(&task.0);
                all.extend_from_slice(&digest.get_or_init(|| folded.digest(task)).0);
            }
            Digest::of(&[&all])
        })
    }
}

/// What a checkpoint keeps of the tasks.
impl Ledger {
    /// The state that the counting entries beneath a cut give, put into a snapshot.
    pub fn condense(&self, counts: impl Fn(&Cid, u32) -> bool + Copy, snapshot: &mut Snapshot) {
        let floor = snapshot.height.saturating_sub(CLOSED_HEIGHTS);
        let mut closed = self.closed.clone();
        let mut submitted = self.submitted.clone();
        for (task, record) in self.records.iter().filter(|(task, _)| !self.closed.contains_key(task)) {
            let facts = record.facts.iter().filter(|fact| fact.counts(counts));
            let Some(outcome) = fold::fold(task, record.kept.as_deref(), facts) else { continue };
            if let (Some(height), Some((slot, value))) =
                (outcome.introduced_at, Slot::of(&outcome.folded.workload.trigger))
            {
                let key = Submitted::key(&outcome.folded.workload);
                let of_it =
                    submitted.entry(key.clone()).or_insert_with(|| Submitted { workflow: key, last: Vec::new() });
                of_it.note(slot, value, (height, outcome.folded.anchor));
            }
            match outcome.ended_at {
                Some(height) => drop(closed.insert(*task, height)),
                None => snapshot.open.push((*task, outcome.kept)),
            }
        }
        snapshot.paused = self.paused(counts);
        closed.retain(|_, height| *height >= floor);
        snapshot.closed = closed.into_iter().collect();
        snapshot.submitted = submitted.into_values().collect();
    }

    /// Puts a snapshot in the place of all events but those of entries that are still here. Answers which tasks may
    /// have another state now.
    pub fn stand_on(&mut self, snapshot: &Snapshot, hash: Digest, is_here: impl Fn(&Cid) -> bool) -> BTreeSet<TaskId> {
        let mut touched: BTreeSet<TaskId> = std::mem::take(&mut self.records)
            .into_iter()
            .map(|(task, mut record)| {
                record.facts.retain(|fact| is_here(&fact.mark.cid));
                record.kept = None;
                self.records.insert(task, record);
                task
            })
            .collect();
        self.base = Some(hash);
        self.pauses.retain(|fact| is_here(&fact.mark.cid));
        self.kept_pause.clone_from(&snapshot.paused);
        self.hash.take();
        self.closed = snapshot.closed.iter().copied().collect();
        self.submitted = snapshot.submitted.iter().map(|of_it| (of_it.workflow.clone(), of_it.clone())).collect();
        for (task, kept) in &snapshot.open {
            self.records.entry(*task).or_default().kept = Some(Box::new(kept.clone()));
            touched.insert(*task);
        }
        for (task, record) in &mut self.records {
            if self.closed.contains_key(task) {
                record.folded = None;
            }
        }
        self.records.retain(|_, record| record.kept.is_some() || !record.facts.is_empty());
        self.open.retain(|task| self.records.contains_key(task) && !self.closed.contains_key(task));
        touched
    }

    /// Whether a discovered task has been submitted before, as far as is known: it is here, or it had ended at the
    /// checkpoint, or it is the last of its workflow and kind that the checkpoint knows and nothing came since.
    pub fn was_submitted(&self, workload: &Workload) -> bool {
        let task = workload.id();
        if self.get(&task).is_some() || self.closed.contains_key(&task) {
            return true;
        }
        let Some((slot, value)) = Slot::of(&workload.trigger) else { return false };
        let key = Submitted::key(workload);
        let Some(last) = self.submitted.get(&key).and_then(|of_it| of_it.last(&slot)) else { return false };
        let minute = |value: &str| value.parse::<u64>().unwrap_or(0);
        match slot {
            Slot::Schedule(_) => minute(&value) <= minute(&last.value),
            _ if value != last.value => false,
            // Whatever was introduced since the checkpoint came later.
            _ => !self.records.values().filter(|record| record.kept.is_none()).any(|record| {
                record.folded.as_ref().is_some_and(|shown| {
                    let folded = &shown.folded;
                    Submitted::key(&folded.workload) == key
                        && Slot::of(&folded.workload.trigger).is_some_and(|(of, since)| of == slot && since != value)
                })
            }),
        }
    }

    /// What was submitted last of each workflow at the checkpoint.
    pub fn submitted(&self) -> impl Iterator<Item = &Submitted> {
        self.submitted.values()
    }

    /// How many events of tasks are kept here.
    pub fn facts(&self) -> usize {
        self.records.values().map(|record| record.facts.len()).sum()
    }
}

/// The task that an event is about.
fn task_of(event: &Event) -> Option<TaskId> {
    match event {
        Event::Introduce(introduce) => Some(introduce.workload.id()),
        Event::Claim(claim) => Some(claim.task),
        Event::Decline(decline) => Some(decline.task),
        Event::Release(release) => Some(release.task),
        Event::Finish(finish) => Some(finish.task),
        Event::Cancel(cancel) => Some(cancel.task),
        Event::Withdraw(withdraw) => Some(withdraw.task),
        #[cfg(feature = "later")]
        Event::CallOff(call_off) => Some(call_off.task),
        Event::Leave(leave) => Some(leave.task),
        Event::Lose(lose) => Some(lose.task),
        Event::Admit(_)
        | Event::Declare(_)
        | Event::Checkpoint(_)
        | Event::Acknowledge(_)
        | Event::Retire(_)
        | Event::Revoke(_)
        | Event::Pause(_)
        | Event::Resume(_)
        | Event::Unknown { .. } => None,
    }
}
