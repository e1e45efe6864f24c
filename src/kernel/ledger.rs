//! The tasks, as the entries tell of them.
//!
//! For every task the ledger keeps the events that name it, each with the mark of its entry, and folds them into one
//! state. The folding reads nothing but that set, so that any order of arrival gives the same state.

mod fold;

use std::collections::{BTreeMap, BTreeSet};

pub use fold::{Folded, HeldClaim};

use super::clock::Mark;
use super::entry::{Entry, Event, Hlc};
use super::id::{Author, Cid, Digest, TaskId};

/// One event of a task, and where it stands in the clock.
#[derive(Debug, Clone)]
struct Fact {
    mark: Mark,
    author: Author,
    time: Hlc,
    event: Event,
}

/// A task and everything said of it.
#[derive(Debug, Default)]
struct Record {
    facts: Vec<Fact>,
    folded: Option<Folded>,
}

/// All tasks.
#[derive(Debug, Default)]
pub struct Ledger {
    records: BTreeMap<TaskId, Record>,
    open: BTreeSet<TaskId>,
}

impl Ledger {
    /// Takes the events of an entry. Returns the tasks whose state must be folded again by [`Self::fold`].
    pub fn add(&mut self, entry: &Entry, mark: &Mark) -> BTreeSet<TaskId> {
        let mut touched = BTreeSet::new();
        for event in &entry.body().events {
            let Some(task) = task_of(event) else { continue };
            let fact =
                Fact { mark: mark.clone(), author: entry.author(), time: entry.body().time, event: event.clone() };
            self.records.entry(task).or_default().facts.push(fact);
            touched.insert(task);
        }
        touched
    }

    /// Folds one task from those of its events whose entries count. `true` when its state is another than before.
    pub fn fold(&mut self, task: &TaskId, counts: impl Fn(&Cid) -> bool) -> bool {
        let Some(record) = self.records.get_mut(task) else { return false };
        let folded = fold::fold(task, record.facts.iter().filter(|fact| counts(&fact.mark.cid)));
        let changed = folded != record.folded;
        if folded.as_ref().is_some_and(|folded| folded.state.is_open()) {
            self.open.insert(*task);
        } else {
            self.open.remove(task);
        }
        record.folded = folded;
        changed
    }

    /// All tasks that events name, introduced or not: what is to be folded again after a recount.
    pub fn named(&self) -> Vec<TaskId> {
        self.records.keys().copied().collect()
    }

    /// What is known of a task that has been introduced.
    pub fn get(&self, task: &TaskId) -> Option<&Folded> {
        self.records.get(task)?.folded.as_ref()
    }

    /// All introduced tasks, by id.
    pub fn all(&self) -> impl Iterator<Item = (&TaskId, &Folded)> {
        self.records.iter().filter_map(|(task, record)| Some((task, record.folded.as_ref()?)))
    }

    /// The tasks that may still change hands, by id.
    pub const fn open(&self) -> &BTreeSet<TaskId> {
        &self.open
    }

    /// A hash of the state of all tasks: equal on two nodes exactly when they agree.
    pub fn state_hash(&self) -> Digest {
        let mut all = Vec::new();
        for (task, folded) in self.all() {
            all.extend_from_slice(&task.0);
            all.extend_from_slice(&folded.digest(task).0);
        }
        Digest::of(&[&all])
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
        Event::Leave(leave) => Some(leave.task),
        Event::Lose(lose) => Some(lose.task),
        Event::Admit(_) | Event::Declare(_) | Event::Checkpoint(_) | Event::Acknowledge(_) | Event::Unknown { .. } => {
            None
        }
    }
}
