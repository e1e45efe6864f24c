//! Groups of tasks of which one runs at a time (GitHub's `concurrency:`), across the mesh.
//!
//! Everything here is read from the ledger, so all nodes that know the same entries come to the same. The open tasks of
//! a group stand in the order of their introductions (label of time, id), and:
//!
//! - While one is held no other is claimed. One that had begun and lost its holder goes before those that had not.
//! - Of those that have not begun only the newest stays; the nearest live node withdraws the others. A withdrawal made in
//!   ignorance of a claim is void, so nothing that has begun ends by it.
//! - A newer one that says `cancel-in-progress` ends the older ones, begun or not: by their holder, or where they have
//!   none by the nearest live node.
//! - What runs anywhere as far as presences say is waited for too, also once it has ended for the ledger.
//! - Should two be held all the same, claimed by nodes that did not know of each other, the newer yields: its holder
//!   stops it and gives it back, and the attempt does not count. That a claim is on its way here is waited for before
//!   one is made in a group that was crowded just now.

use std::collections::{BTreeMap, BTreeSet};

use super::{Node, claimed_by};
use crate::kernel::entry::{Cancel, Event, Hlc, Withdraw};
use crate::kernel::id::TaskId;
use crate::kernel::io::StopReason;
use crate::kernel::ledger::Folded;
use crate::kernel::rules::GROUPS;
use crate::kernel::task::{State, Workload};

/// A group's name: its repository's host and id, and its own in lower case.
type Name = (String, String, String);

#[derive(Debug, Default)]
struct Group {
    /// Its open tasks, the oldest first.
    members: BTreeSet<(Hlc, TaskId)>,
    /// When it last had several.
    crowded: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: BTreeMap<Name, Group>,
    /// Where each open task stands.
    places: BTreeMap<TaskId, (Name, Hlc)>,
    /// Groups in which something has changed.
    changed: BTreeSet<Name>,
}

/// What a task's group means for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing is in its way.
    Now,
    /// Another one comes first.
    Later,
    /// A newer one takes its place.
    Never,
}

impl Groups {
    fn mates(&self, task: &TaskId) -> impl DoubleEndedIterator<Item = &(Hlc, TaskId)> {
        let group = self.places.get(task).and_then(|(name, _)| self.groups.get(name));
        group.into_iter().flat_map(|group| &group.members).filter(move |(_, mate)| mate != task)
    }

    fn is_newer(&self, mate: &(Hlc, TaskId), task: &TaskId) -> bool {
        self.places.get(task).is_some_and(|(_, time)| *mate > (*time, *task))
    }

    fn leave(&mut self, task: &TaskId, now: u64) {
        let Some((name, time)) = self.places.remove(task) else { return };
        if let Some(group) = self.groups.get_mut(&name) {
            group.members.remove(&(time, *task));
            group.crowded = Some(now);
            if group.members.is_empty() {
                self.groups.remove(&name);
            }
        }
        self.changed.insert(name);
    }

    /// When the task's group last had several members, this one among them.
    pub(super) fn crowded(&self, task: &TaskId) -> Option<u64> {
        self.groups.get(&self.places.get(task)?.0)?.crowded
    }
}

impl Node {
    /// Puts a task whose state has changed where it belongs in its group.
    pub(super) fn regroup(&mut self, task: &TaskId) {
        let now = self.now.mono;
        let folded = self.ledger.get(task).filter(|folded| folded.state.is_open());
        let place = folded.and_then(|folded| Some((name_of(&folded.workload)?, folded.introduced)));
        if self.groups.places.get(task) != place.as_ref() {
            self.groups.leave(task, now);
        }
        let Some((name, time)) = place else { return };
        let group = self.groups.groups.entry(name.clone()).or_default();
        group.members.insert((time, *task));
        if group.members.len() > 1 {
            group.crowded = Some(now);
        }
        self.groups.places.insert(*task, (name.clone(), time));
        self.groups.changed.insert(name);
    }

    /// Does what follows from changes in groups: looks at the other members again, and ends what runs here and must not.
    pub(super) fn mind_groups(&mut self) {
        for name in std::mem::take(&mut self.groups.changed) {
            let group = self.groups.groups.get(&name);
            let members: Vec<TaskId> = group.into_iter().flat_map(|group| &group.members).map(|(_, t)| *t).collect();
            if members.len() < 2 {
                members.iter().for_each(|task| self.enqueue(task));
                continue;
            }
            for task in members {
                let mine = self.ledger.get(&task).and_then(|folded| claimed_by(&folded.state));
                if mine.is_some_and(|(holder, _)| holder == self.me.peer()) && self.may_write() {
                    if self.turn(&task) == Turn::Never {
                        self.events.push(self.ending_of_older(&task));
                    } else if self.must_yield(&task) {
                        self.stop(task, StopReason::Yielded);
                    }
                }
                self.enqueue(&task);
            }
        }
    }

    /// What a task's group means for it now.
    pub(super) fn turn(&self, task: &TaskId) -> Turn {
        let Some(folded) = self.ledger.get(task).filter(|_| self.groups.places.contains_key(task)) else {
            return Turn::Now;
        };
        if self.is_replaced(task, folded) {
            return Turn::Never;
        }
        let comes_first = |mate: &(Hlc, TaskId)| {
            let Some(other) = self.ledger.get(&mate.1) else { return false };
            let goes_on = other.attempt > 0 && !self.is_replaced(&mate.1, other);
            let before = folded.attempt == 0 || !self.groups.is_newer(mate, task);
            matches!(other.state, State::Claimed { .. }) || goes_on && before
        };
        if self.groups.mates(task).any(comes_first) { Turn::Later } else { Turn::Now }
    }

    /// Whether a newer one of its group takes its place.
    fn is_replaced(&self, task: &TaskId, folded: &Folded) -> bool {
        let replaces = |mate: &&(Hlc, TaskId)| {
            let other = self.ledger.get(&mate.1).and_then(|other| other.workload.concurrency.as_ref());
            folded.attempt == 0 || other.is_some_and(|other| other.cancel_in_progress)
        };
        self.groups.mates(task).rev().take_while(|mate| self.groups.is_newer(mate, task)).any(|mate| replaces(&mate))
    }

    /// Whether a task that is held here gives way to an older one of its group that is held elsewhere.
    fn must_yield(&self, task: &TaskId) -> bool {
        let older = self.groups.mates(task).take_while(|mate| !self.groups.is_newer(mate, task));
        older.into_iter().any(|(_, mate)| {
            let Some(other) = self.ledger.get(mate) else { return false };
            let elsewhere = claimed_by(&other.state).is_some_and(|(holder, _)| holder != self.me.peer());
            elsewhere && !self.custody.is_missed(mate) && !self.is_replaced(mate, other)
        })
    }

    /// Whether another task of its group is said to run somewhere: its claim may be on its way here, or its end not have
    /// come to its processes yet.
    pub(super) fn group_still_runs(&self, task: &TaskId) -> bool {
        let Some((name, _)) = self.groups.places.get(task) else { return false };
        let of_it = |other: &TaskId| {
            let workload = self.ledger.get(other).map(|folded| &folded.workload);
            other != task && workload.is_some_and(|workload| name_of(workload).as_ref() == Some(name))
        };
        let elsewhere = self.peers.heard().any(|peer| peer.presence().running.keys().any(of_it));
        elsewhere || self.custody.fences().keys().any(of_it)
    }

    /// The event by which a task ends that a newer one of its group replaces.
    pub(super) fn ending_of_older(&self, task: &TaskId) -> Event {
        let group = self.groups.places.get(task).map_or("", |((_, _, group), _)| group.as_str());
        let newest = self.groups.mates(task).next_back().map(|(_, mate)| mate.short()).unwrap_or_default();
        let why = super::custody::shortened(&format!("superseded in its concurrency group `{group}` by {newest}"));
        match self.ledger.get(task) {
            Some(folded) if folded.attempt > 0 => Event::Cancel(Cancel { task: *task, why }),
            _ => self.withdrawal(*task, why),
        }
    }

    /// The event by which a task ends that has not begun: void where somebody has claimed it meanwhile, as soon as all
    /// members know such events.
    pub(super) fn withdrawal(&self, task: TaskId, why: String) -> Event {
        match self.clock.rules() >= GROUPS {
            true => Event::Withdraw(Withdraw { task, why }),
            false => Event::Cancel(Cancel { task, why }),
        }
    }

    /// Leaves out of a workload what a member would not understand that has declared so.
    pub(super) fn understood(&self, mut workload: Workload) -> Workload {
        let members = self.clock.members();
        // One that has not declared anything yet has been admitted just now.
        let knows = |rules: u32| rules == 0 || rules >= GROUPS;
        if workload.concurrency.is_some() && !members.all().all(|member| knows(members.declared(&member.peer))) {
            workload.concurrency = None;
        }
        workload
    }
}

fn name_of(workload: &Workload) -> Option<Name> {
    let repository = &workload.repository;
    let group = workload.concurrency.as_ref()?.group.to_lowercase();
    Some((repository.host.clone(), repository.id.clone(), group))
}
