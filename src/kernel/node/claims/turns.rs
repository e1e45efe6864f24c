//! Whose turn it is, said between the nodes themselves: who stands ahead is asked before a claim out of turn, and so is
//! everybody who may not know yet of the slot that a claim is for.
//!
//! Promises that an answer binds: what a node says it takes it is about to take, and what it leaves to the asker it does not
//! claim, nor leave to a third, before the asker's claim has had the time to come. So of several that ask each other for one
//! task at the same moment the first in rank alone claims it. None of it is for long: a promise ends with a claim delay (who
//! has not made use of it by half of that asks anew), whoever is told that another takes a task asks again half a delay
//! later, and who asks for a task again and again and never claims it is not waited for.

use std::collections::{BTreeMap, BTreeSet};

use super::{Node, Standing};
use crate::kernel::election::{Place, Seed};
use crate::kernel::entry::Event;
use crate::kernel::id::{PeerId, TaskId};
use crate::kernel::io::{Output, Reply, Request, Token};
use crate::kernel::ledger::Folded;
use crate::kernel::task::{State, Workload};

/// The most peers that are asked before a claim.
const MAX_ASKED: usize = 8;
/// The most tasks that are remembered as left to others.
const MAX_LEFT: usize = 4096;
/// For how many claim delays a task is left to one that goes on asking for it, and as many more it is not. Own choice: who is
/// kept from claiming by a third asks three or four times.
const LONGEST_LEFT: u64 = 10;

/// What others were asked of a task.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) at: u64,
    /// The questions that are not answered yet.
    open: BTreeSet<Token>,
}

impl Asked {
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether what was answered binds for so long yet that a claim comes in time.
    pub(super) const fn is_fresh(&self, now: u64, delay: u64) -> bool {
        now <= self.at + delay / 2
    }
}

/// What was asked and what was promised.
#[derive(Debug, Default)]
pub(super) struct Turns {
    asked: BTreeMap<Token, BTreeSet<TaskId>>,
    /// What this node has left to others that asked.
    left: BTreeMap<TaskId, Left>,
}

/// A task that another node may claim.
#[derive(Debug, Clone, Copy)]
struct Left {
    to: PeerId,
    /// When it asked first.
    since: u64,
    until: u64,
}

impl Turns {
    /// Until when this node leaves the task to another.
    pub(super) fn left_until(&self, task: &TaskId) -> Option<u64> {
        self.left.get(task).map(|left| left.until)
    }

    fn is_left_to_another(&self, task: &TaskId, than: &PeerId, now: u64) -> bool {
        self.left.get(task).is_some_and(|left| left.to != *than && now < left.until)
    }

    /// Leaves the task to a peer for a claim delay, unless it has had its time.
    fn leave(&mut self, task: TaskId, to: PeerId, now: u64, delay: u64) {
        let before = self.left.get(&task).filter(|left| left.to == to && now < left.since + 2 * LONGEST_LEFT * delay);
        let since = before.map_or(now, |left| left.since);
        if now >= since + LONGEST_LEFT * delay {
            return;
        }
        if self.left.len() < MAX_LEFT || self.left.contains_key(&task) {
            self.left.insert(task, Left { to, since, until: now + delay });
        }
    }

    /// Forgets promises that bind nobody any more, once there are too many. Who is not waited for is known for no longer.
    fn make_room(&mut self, now: u64) {
        if self.left.len() >= MAX_LEFT {
            self.left.retain(|_, left| now < left.until);
        }
    }
}

/// A slot of this node that has come up just now, so that others may take it to have none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Youth {
    /// Who cannot be asked because there are too many has heard of it by then.
    pub(super) heard_of: u64,
    /// All have.
    pub(super) ends: u64,
}

impl Node {
    /// Whether this node's slots for such a task are so young that others have to be asked first: until they know of them
    /// each that has one is the only one in its own eyes.
    pub(super) fn youth_for(&self, workload: &Workload) -> Option<Youth> {
        let (now, delay) = (self.now.mono, self.claim_delay());
        // Those of this very round are taken too.
        let claimed = self.events.iter().filter(|event| matches!(event, Event::Claim(_))).count();
        let free = (self.free_slots() as usize).saturating_sub(claimed);
        let since = self.custody.slots_since(free, now, delay)?;
        let ends = since + delay;
        let able = self.peers.heard().filter(|peer| Self::can_run(&peer.presence().offer, workload));
        match able.take(MAX_ASKED + 1).count() {
            0 => None,
            1..=MAX_ASKED => Some(Youth { heard_of: 0, ends }),
            _ => Some(Youth { heard_of: since + delay / 2, ends }),
        }
    }

    /// Who is to be asked before this node claims: those ahead of it; where its slots are young all that could run the task,
    /// the free ones first, of which the nearest takes it without asking anybody.
    pub(super) fn whom_to_ask(&self, standing: &Standing, folded: &Folded, is_young: bool) -> Vec<PeerId> {
        let Standing { seed, rank, class, holder, .. } = standing;
        let free: Vec<&Place> =
            self.claims.classes[*class].able.iter().filter(|place| Some(place.peer()) != *holder).collect();
        let mut asked: Vec<PeerId>;
        if is_young {
            let is_free = |place: &Place| free.iter().any(|free| free.peer() == place.peer());
            let others = self.peers.heard().filter(|peer| {
                let presence = peer.presence();
                !presence.draining && Self::can_run(&presence.offer, &folded.workload) && !is_free(&peer.place)
            });
            let others = seed.ranking(others.map(|peer| &peer.place), &folded.last);
            let free = seed.ranking(free.iter().copied(), &folded.last);
            asked = free.into_iter().chain(others).map(|ranked| ranked.peer).collect();
        } else {
            let ahead = seed.ranking(free.iter().copied().chain([&self.me]), &folded.last);
            asked = ahead.into_iter().take(rank.rank as usize).map(|ranked| ranked.peer).collect();
        }
        asked.retain(|peer| self.peers.is_connected(peer));
        asked.truncate(MAX_ASKED);
        asked
    }

    pub(super) fn ask_for_turns(&mut self, questions: BTreeMap<PeerId, BTreeSet<TaskId>>) {
        for (peer, tasks) in questions {
            let token = self.ask_turn(peer, Request::Turn { tasks: tasks.clone() });
            for task in &tasks {
                if let Some(waiting) = self.claims.waiting.get_mut(task) {
                    // What was answered before binds nobody any more.
                    let asked = waiting.asked.take().filter(|asked| asked.at == self.now.mono);
                    let mut asked = asked.unwrap_or(Asked { at: self.now.mono, open: BTreeSet::new() });
                    asked.open.insert(token);
                    waiting.asked = Some(asked);
                }
            }
            self.claims.turns.asked.insert(token, tasks);
        }
    }

    /// Somebody has answered which of the tasks it takes, or never will.
    pub(in super::super) fn on_turn(&mut self, token: Token, mine: &BTreeSet<TaskId>) {
        let now = self.now.mono;
        let tasks = self.claims.turns.asked.remove(&token).unwrap_or_default();
        // An answer binds for a while only: it is not to wait for the time by which it was due.
        self.claims.window.iter_mut().filter(|standing| tasks.contains(&standing.task)).for_each(|one| one.due = 0);
        for task in tasks {
            let Some(waiting) = self.claims.waiting.get_mut(&task) else { continue };
            if mine.contains(&task) {
                // Its claim is on the way; should it not come, the wait begins anew.
                (waiting.since, waiting.asked, waiting.told) = (now, None, Some(now));
            } else if let Some(asked) = &mut waiting.asked {
                asked.open.remove(&token);
            }
        }
        self.claims.look = true;
    }

    /// One of those asked is not there any more: the wait for its tasks begins anew, without it. All who asked it find out
    /// at about the same time, and would all claim at once if they went on where they stand.
    pub(in super::super) fn begin_turn_anew(&mut self, token: Token) {
        let tasks = self.claims.turns.asked.get(&token).cloned().unwrap_or_default();
        self.on_turn(token, &tasks);
    }

    /// A peer asks whether this node takes these tasks: it does now what it would do anyway, and says so. What it does not
    /// take it leaves to the asker.
    pub(in super::super) fn on_turn_request(&mut self, from: PeerId, token: Token, tasks: &BTreeSet<TaskId>) {
        self.claims.look = true;
        self.settle();
        let (now, place, delay) = (self.now.mono, Place::of(from), self.claim_delay());
        self.claims.turns.make_room(now);
        let mut mine = BTreeSet::new();
        for task in tasks {
            if self.is_taken(task)
                || self.claims.turns.is_left_to_another(task, &from, now)
                || self.asks_before(task, &place)
            {
                mine.insert(*task);
                continue;
            }
            self.claims.turns.leave(*task, from, now, delay);
            if let Some(waiting) = self.claims.waiting.get_mut(task) {
                waiting.asked = None;
            }
        }
        self.outbox.push(Output::Reply { to: from, token, reply: Reply::Turn { mine } });
    }

    /// Whether the task is this node's, or somebody's, or has ended.
    fn is_taken(&self, task: &TaskId) -> bool {
        let state = self.ledger.get(task).map(|folded| &folded.state);
        let free = matches!(state, None | Some(State::Pending)) || self.custody.is_missed(task);
        self.custody.runs(task) || !free
    }

    /// Whether this node has just asked for the task itself, and stands before that peer. What it asked longer ago and did
    /// not make use of binds nobody: something else keeps it from claiming.
    fn asks_before(&self, task: &TaskId, other: &Place) -> bool {
        let (now, delay) = (self.now.mono, self.claim_delay());
        let is_new = |asked: &Asked| now < asked.at + delay;
        let asks = self.claims.waiting.get(task).is_some_and(|waiting| waiting.asked.as_ref().is_some_and(is_new));
        let folded = self.ledger.get(task).filter(|_| asks);
        folded.is_some_and(|folded| !Seed::of(&folded.anchor, task).stands_before(other, &self.me, &folded.last))
    }
}
