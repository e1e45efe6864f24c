//! Taking tasks: who stands where, and when it is this node's turn.
//!
//! The first in rank claims at once, each further one a delay later and only after asking those ahead of it ([`turns`]).
//! A node claims nothing while it lacks a head that it was told of: it might not know that the task is taken. In a large mesh
//! one that was told of just now may be lacking.

mod ends;
mod turns;

use std::collections::{BTreeMap, BTreeSet};

use self::ends::Ends;
use self::turns::{Asked, Turns};

use super::groups::Turn;
use super::jobs::{kind, of};
use super::{Node, claimed_by};
use crate::kernel::allocation::Kind;
use crate::kernel::election::{Place, Rank, Seed};
use crate::kernel::entry::{Claim, Event, Leave, Lose};
use crate::kernel::id::{PeerId, TaskId};
use crate::kernel::io::{Notice, Offer, Presence};
use crate::kernel::ledger::Folded;
use crate::kernel::queue::{Key, Queue};
use crate::kernel::requests::{Amounts, serve_all};
use crate::kernel::scale_set;
use crate::kernel::task::{Policy, Repository, State, Workload};

/// How many of the waiting tasks are looked at for a free slot, or as many as there are peers. Own choice: nodes look at the
/// same ones, so that a mesh takes no more at a time; more than a few for each free slot do not change who takes which.
const WINDOW: usize = 64;
/// Among how many times as many those that this host has room for are looked for. Own choice: a queue full of what asks for
/// its one GPU does not keep it from other work, and is not read to its end each time.
const REACH: usize = 16;
/// The most classes of tasks that are remembered, before all of which nothing waits are forgotten.
const MAX_CLASSES: usize = 2 * WINDOW;
/// With more peers than these a head is lacking only when it was told of so many claim delays ago. Own choice, by simulation:
/// with 250 nodes a mesh is at rest 24 s after the last fault instead of 48 s, and starts 12 of 2,655 runs twice, not 6.
const LARGE: usize = 64;
const ON_ITS_WAY: u64 = 2;

/// A task that nobody holds, or whose holder is heard of no more.
#[derive(Debug, Clone)]
struct Waiting {
    /// Since when it may be claimed, as far as this node knows.
    since: u64,
    /// The state of its claims when it was put here.
    version: (u32, usize),
    /// What others were asked of it; `None` before they are.
    asked: Option<Asked>,
    /// When somebody last said that it takes it.
    told: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Claims {
    waiting: BTreeMap<TaskId, Waiting>,
    turns: Turns,
    look: bool,
    next_claim: Option<u64>,
    ends: Ends,
    /// The first of the waiting tasks that this host has room for, in their order, and where this node stands.
    window: Vec<Standing>,
    /// Whether they may be others by now.
    is_stale: bool,
    /// Some are left out because too little is free of what they ask for.
    lacks_room: bool,
    /// Who could take them.
    classes: Vec<Class>,
}

/// Where this node stands for a task.
#[derive(Debug, Clone)]
struct Standing {
    task: TaskId,
    kind: Kind,
    seed: Seed,
    rank: Rank,
    class: usize,
    /// Who holds it still by the ledger: no candidate.
    holder: Option<PeerId>,
    /// Before this time it is not this node's turn.
    due: u64,
    /// Others are asked whether it is.
    asks: bool,
}

/// What came of looking at a task that this node has a slot for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It is not its turn.
    Waits,
    /// Others are asked whether it is.
    Asks,
    Claims,
}

/// Tasks of the same labels and repository, and who could take them.
#[derive(Debug)]
pub(super) struct Class {
    labels: BTreeSet<String>,
    repository: Repository,
    /// By peer id.
    able: Vec<Place>,
}

impl Class {
    fn is_of(&self, workload: &Workload) -> bool {
        self.labels == workload.labels && self.repository == workload.repository
    }

    /// Whether a host with this offer may run them.
    pub(super) fn may_run_at(&self, offer: &Offer) -> bool {
        may_run(&self.labels, &self.repository, offer)
    }
}

/// Whether a host with this offer may run what asks for these labels, of this repository.
pub(super) fn may_run(labels: &BTreeSet<String>, repository: &Repository, offer: &Offer) -> bool {
    serve_all(&offer.labels, labels)
        && offer.sources.iter().any(|source| scale_set::reaches(source, labels, repository))
}

impl Claims {
    pub(super) fn next_wake(&self) -> u64 {
        self.next_claim.unwrap_or(u64::MAX).min(self.ends.next())
    }

    /// Where this node stands for the task is to be found out anew, or nowhere.
    fn forget_standing(&mut self, task: &TaskId) {
        self.window.retain(|standing| standing.task != *task);
        self.is_stale = true;
    }

    /// Something changed that may make it this node's turn.
    pub(super) fn look_again(&mut self) {
        self.look = true;
    }

    /// Whether there were waiting tasks of late that this host has too little free for.
    pub(super) const fn lacks_room(&self) -> bool {
        self.lacks_room
    }

    /// What ran here runs no more.
    pub(super) fn room_was_made(&mut self) {
        self.look = true;
        self.is_stale |= self.lacks_room;
    }
}

impl Node {
    /// Puts a task where it belongs after its state, or what is known of its holder, has changed.
    pub(super) fn enqueue(&mut self, task: &TaskId) {
        let Some(folded) = self.ledger.get(task) else { return };
        let claimable = match &folded.state {
            State::Pending => true,
            State::Claimed { holder, .. } => *holder != self.me.peer() && self.custody.is_missed(task),
            _ => false,
        };
        self.claims.look = true;
        let turn = self.turn(task);
        if !claimable || turn == Turn::Later {
            self.dequeue(task);
            return;
        }
        self.claims.forget_standing(task);
        let version = (folded.attempt, folded.claims.iter().filter(|claim| claim.released.is_some()).count());
        let now = self.now.mono;
        let fresh = Waiting { since: now, version, asked: None, told: None };
        let waiting = self.claims.waiting.entry(*task).or_insert_with(|| fresh.clone());
        if waiting.version != version {
            *waiting = fresh;
        }
        let since = waiting.since;
        if !folded.declined.is_empty() {
            self.claims.ends.put(since, *task);
        }
        if let Some((after, _)) = self.ending(task, folded) {
            self.claims.ends.put(since + after, *task);
        }
        let runnable = turn == Turn::Now
            && folded.workload.policy() != Policy::GithubOnly
            && folded.spent < self.settings.attempts
            && !self.custody.has_declined(task)
            && Self::can_run(&self.offer, &folded.workload);
        if runnable {
            let (key, kind) = (Key::of(folded.workload.priority, folded.introduced, *task), kind(&folded.workload));
            self.queue_of(kind).put(key);
        } else {
            self.unqueue(task);
        }
    }

    /// Takes a task out of all that waits to be claimed.
    pub(super) fn dequeue(&mut self, task: &TaskId) {
        self.claims.waiting.remove(task);
        if self.unqueue(task) {
            self.claims.forget_standing(task);
        }
    }

    /// Claims what it is this node's turn to claim, and ends what nobody will run.
    pub(super) fn consider_claims(&mut self) {
        if !self.may_write() {
            return;
        }
        self.end_what_nobody_runs();
        let due = self.claims.next_claim.is_some_and(|at| self.now.mono >= at);
        if !std::mem::take(&mut self.claims.look) && !due {
            return;
        }
        self.claims.next_claim = None;
        if self.paused.is_some() || self.custody.takes_nothing_new() || self.is_behind_rules() || self.lacks_heads() {
            return;
        }
        let members = self.clock.members();
        if let Some(until) = self.peers.awaited(|peer| members.contains(peer), self.now.mono, &self.settings.timings) {
            self.wake_for_claim(until);
            return;
        }
        if self.free_slots() + self.jobs.split.spare == 0 || self.queue.is_empty() && self.jobs.queue.is_empty() {
            return;
        }
        self.take_standings();
        let now = self.now.mono;
        let mut questions = BTreeMap::new();
        let (mut starts, mut spares, mut claimed) = (self.starts(), self.jobs.split.spare, Amounts::default());
        if self.claims.window.iter().any(|standing| standing.due <= now) {
            let mut window = std::mem::take(&mut self.claims.window);
            for standing in &mut window {
                let (task, kind) = (standing.task, standing.kind);
                // What others are asked about keeps a slot until they have answered.
                if standing.due > now && !standing.asks {
                    continue;
                }
                // A job may also go to a runner here that waits for any.
                let spare = kind == Kind::Github && spares > 0;
                if *of(&mut starts, kind) == 0 && !spare
                    || self.is_said_to_run(&task)
                    || self.custody.runs(&task)
                    || !self.has_room_for(&task, &claimed)
                {
                    continue;
                }
                let step = self.consider(standing, &mut questions);
                standing.asks = step == Step::Asks;
                if step == Step::Waits {
                    continue;
                }
                // What others are asked about has a slot put by, so that no more is asked for than can be taken.
                match of(&mut starts, kind) {
                    0 => {
                        spares -= 1;
                        self.jobs.split.spare -= u32::from(step == Step::Claims);
                    }
                    free => *free -= 1,
                }
                if let Some(folded) = self.ledger.get(&task) {
                    claimed = claimed.plus(Amounts::of(&folded.workload.labels));
                }
            }
            self.claims.window = window;
        }
        // What is due already waits for something else than time.
        let next = self.claims.window.iter().map(|standing| standing.due).filter(|due| *due > now).min();
        next.into_iter().for_each(|due| self.wake_for_claim(due));
        self.ask_for_turns(questions);
    }

    /// Whether a head is lacking that this node was told of. In a large mesh one is always on its way, and whoever waited for
    /// all would hardly ever claim: more than nine of ten looks ended so in a simulation of 250 nodes in trouble.
    fn lacks_heads(&self) -> bool {
        let age = if self.peers.known() > LARGE { ON_ITS_WAY * self.claim_delay() } else { 0 };
        !self.sync.has_all_but_the_newest(self.now.mono, age)
    }

    /// Brings up to date for which tasks this node may have a turn, who could take them, and where it stands.
    fn take_standings(&mut self) {
        for id in self.peers.take_stirred() {
            for number in 0..self.claims.classes.len() {
                self.take_stirred(&id, number);
            }
        }
        if !std::mem::take(&mut self.claims.is_stale) {
            return;
        }
        let mut former: BTreeMap<TaskId, Standing> =
            std::mem::take(&mut self.claims.window).into_iter().map(|standing| (standing.task, standing)).collect();
        if self.claims.classes.len() > MAX_CLASSES {
            self.claims.classes.clear();
            former.clear();
        }
        let (window, mut lacks_room) = (WINDOW.max(self.peers.known()), false);
        // Each alone fits into a host that may run it.
        let takes_room = self.amounts_in_use() != Amounts::default();
        let mut has_room = |task: &TaskId| {
            let has_room = !takes_room || self.has_room_for(task, &Amounts::default());
            lacks_room |= !has_room;
            has_room
        };
        let mut first = |queue: &Queue| {
            queue.iter().take(REACH * window).map(Key::task).filter(&mut has_room).take(window).collect()
        };
        let tasks: [Vec<TaskId>; 2] = [first(&self.queue), first(&self.jobs.queue)];
        self.claims.lacks_room = lacks_room;
        let tasks = tasks.concat();
        let window = tasks.into_iter().filter_map(|task| former.remove(&task).or_else(|| self.standing_for(task)));
        let window: Vec<Standing> = window.collect();
        self.claims.window = window;
    }

    /// A peer may have become one that could take tasks of a class, or be one no more.
    fn take_stirred(&mut self, id: &PeerId, number: usize) {
        let class = &self.claims.classes[number];
        let at = class.able.binary_search_by_key(id, Place::peer);
        let able = self.peers.get(id).filter(|peer| self.is_free_candidate(peer, class)).map(|peer| peer.place);
        let (place, comes) = match (at, able) {
            (Ok(at), None) => (self.claims.classes[number].able.remove(at), false),
            (Err(at), Some(place)) => {
                self.claims.classes[number].able.insert(at, place);
                (place, true)
            }
            _ => return,
        };
        let mut window = std::mem::take(&mut self.claims.window);
        for standing in window.iter_mut().filter(|standing| standing.class == number && standing.holder != Some(*id)) {
            let Some(folded) = self.ledger.get(&standing.task) else { continue };
            let ahead = u32::from(standing.seed.stands_before(&place, &self.me, &folded.last));
            let rank = &mut standing.rank;
            if comes {
                rank.candidates += 1;
                rank.rank += ahead;
            } else {
                rank.candidates -= 1;
                rank.rank -= ahead;
            }
            // Found out when it is looked at.
            standing.due = if ahead > 0 && !comes { 0 } else { standing.due };
        }
        self.claims.window = window;
    }

    fn standing_for(&mut self, task: TaskId) -> Option<Standing> {
        let folded = self.ledger.get(&task)?;
        let class = match self.claims.classes.iter().position(|class| class.is_of(&folded.workload)) {
            Some(class) => class,
            None => {
                let Workload { labels, repository, .. } = folded.workload.as_ref();
                let mut class = Class { labels: labels.clone(), repository: repository.clone(), able: Vec::new() };
                class.able = self.free_candidates(&class);
                self.claims.classes.push(class);
                self.claims.classes.len() - 1
            }
        };
        let holder = claimed_by(&folded.state).map(|(holder, _)| holder);
        let candidates = self.claims.classes[class].able.iter().filter(|place| Some(place.peer()) != holder);
        let seed = Seed::of(&folded.anchor, &task);
        let rank = seed.rank(&self.me, candidates, &folded.last);
        Some(Standing { task, kind: kind(&folded.workload), seed, rank, class, holder, due: 0, asks: false })
    }

    /// Whether a heard peer says that it runs the task under a claim that has not come here yet.
    fn is_said_to_run(&self, task: &TaskId) -> bool {
        let attempt = self.ledger.get(task).map_or(0, |folded| folded.attempt);
        self.peers.said_to_run(task).any(|(_, said)| said > attempt)
    }

    /// Claims the task if it is this node's turn, or asks whether it is.
    fn consider(&mut self, standing: &mut Standing, questions: &mut BTreeMap<PeerId, BTreeSet<TaskId>>) -> Step {
        let (task, rank, now, delay) = (standing.task, standing.rank, self.now.mono, self.claim_delay());
        if self.group_still_runs(&task) {
            standing.due = self.wait_anew(&task);
            return Step::Waits;
        }
        let (Some(folded), Some(waiting)) = (self.ledger.get(&task), self.claims.waiting.get(&task)) else {
            return Step::Waits;
        };
        if self.is_careful(&folded.workload) && self.majority_until().is_none() {
            standing.due = now + self.settings.timings.beat;
            return Step::Waits;
        }
        // Who has declined or lost it waits a turn even where nobody stands ahead; and so does, for a job, whoever would
        // have to start a runner for it while another host's waits for any.
        let last = folded.last.contains(&self.me.peer());
        let waits_here = standing.kind == Kind::Github && self.jobs.split.spare > 0 && !last;
        let waits_there = standing.kind == Kind::Github && !waits_here && self.others_have_spare(standing);
        let turns = u64::from(rank.rank) + u64::from(last) + u64::from(waits_there);
        let mut due = waiting.since + if waits_here { 0 } else { turns * delay };
        // Its claim is on the way; should it not come, this node asks again.
        due = due.max(waiting.told.map_or(0, |told| told + delay / 2));
        due = due.max(self.claims.turns.left_until(&task).unwrap_or(0));
        due = due.max(self.groups.crowded(&task).map_or(0, |crowded| crowded + delay / 2));
        let youth = self.youth_for(&folded.workload);
        due = due.max(youth.map_or(0, |youth| youth.heard_of));
        standing.due = due;
        if now < due {
            return Step::Waits;
        }
        if rank.rank > 0 || youth.is_some() {
            match &waiting.asked {
                Some(asked) if asked.is_open() => {
                    let patience = asked.at + delay;
                    standing.due = youth.map_or(patience, |youth| patience.min(youth.ends));
                    return if now < patience { Step::Asks } else { Step::Waits };
                }
                Some(asked) if asked.is_fresh(now, delay) => {}
                _ => {
                    let asked = self.whom_to_ask(standing, folded, youth.is_some());
                    if !asked.is_empty() {
                        for peer in asked {
                            questions.entry(peer).or_default().insert(task);
                        }
                        standing.due = now + delay;
                        return Step::Asks;
                    }
                }
            }
        }
        let (attempt, anchor) = (folded.attempt + 1, folded.anchor);
        self.events.push(Event::Claim(Claim { task, attempt, anchor }));
        self.notice(Notice::Elected {
            task,
            attempt,
            rank: rank.rank,
            distance: rank.distance,
            candidates: rank.candidates,
        });
        Step::Claims
    }

    /// Whether a runner waits for any job at another host that could take this one.
    fn others_have_spare(&self, standing: &Standing) -> bool {
        let able = self.claims.classes[standing.class].able.iter();
        let others = able.filter_map(|place| self.peers.get(&place.peer()));
        // What is free beyond the slots that nothing runs in.
        let spare = |presence: &Presence| {
            let slots = (presence.offer.slots as usize).saturating_sub(presence.running.len());
            presence.free as usize > slots
        };
        others.into_iter().any(|peer| spare(peer.presence()))
    }

    /// How long a task of the queues has waited here, in milliseconds.
    pub(super) fn has_waited(&self, task: &TaskId) -> u64 {
        self.claims.waiting.get(task).map_or(0, |waiting| self.now.mono.saturating_sub(waiting.since))
    }

    /// Something is in a task's way: everybody's turn is counted from when it is not any more. Answers when to look again.
    fn wait_anew(&mut self, task: &TaskId) -> u64 {
        if let Some(waiting) = self.claims.waiting.get_mut(task) {
            (waiting.since, waiting.asked) = (self.now.mono, None);
        }
        self.now.mono + (self.claim_delay() / 4).max(1)
    }

    fn wake_for_claim(&mut self, at: u64) {
        self.claims.next_claim = Some(self.claims.next_claim.map_or(at, |due| due.min(at)));
    }

    /// The wait of each further rank, in milliseconds.
    pub(super) fn claim_delay(&self) -> u64 {
        self.settings.timings.claim_delay.max(4 * self.sync.round_trip().unwrap_or(0))
    }

    /// Writes the ending of tasks whose attempts are used up, or that GitHub is to keep.
    fn end_what_nobody_runs(&mut self) {
        let now = self.now.mono;
        while let Some(task) = self.claims.ends.pop_due(now) {
            let (Some(waiting), Some(folded)) = (self.claims.waiting.get(&task), self.ledger.get(&task)) else {
                continue;
            };
            let Some((after, event)) = self.ending(&task, folded) else {
                // Who could still run it, and has not declined, may go away.
                if !folded.declined.is_empty() {
                    self.claims.ends.put(now + self.settings.timings.retry, task);
                }
                continue;
            };
            let live = self.peers.heard().map(|peer| &peer.place);
            let rank = Seed::of(&folded.anchor, &task).rank(&self.me, live, &BTreeSet::new());
            let due = waiting.since + after + u64::from(rank.rank) * self.claim_delay();
            if now < due {
                self.claims.ends.put(due, task);
                continue;
            }
            // Should the entry not end the task after all, it is looked at once more.
            self.claims.ends.put(now + self.settings.timings.retry, task);
            if self.sync.has_all_it_was_told_of() {
                self.events.push(event);
            }
        }
    }

    /// Whether somebody has declined the task, and nobody is heard who could run it and has not.
    fn all_have_declined(&self, folded: &Folded) -> bool {
        let could = |presence: &Presence| {
            presence.offer.slots > 0 && !presence.draining && Self::can_run(&presence.offer, &folded.workload)
        };
        let mine = self.offer.slots > 0 && !self.custody.draining() && Self::can_run(&self.offer, &folded.workload);
        let others = self.peers.heard().filter(|peer| could(peer.presence())).map(|peer| peer.place.peer());
        let mut candidates = others.chain(mine.then_some(self.me.peer()));
        !folded.declined.is_empty() && candidates.all(|peer| folded.declined.contains(&peer))
    }

    /// How an unclaimed task ends by itself, and after how many milliseconds.
    fn ending(&self, task: &TaskId, folded: &Folded) -> Option<(u64, Event)> {
        if self.turn(task) == Turn::Never {
            return Some((0, self.ending_of_older(task)));
        }
        if folded.spent >= self.settings.attempts {
            return Some((0, Event::Lose(Lose { task: *task, attempt: folded.attempt })));
        }
        let unheld = folded.state == State::Pending;
        let leaves = folded.workload.policy() == Policy::MeshFirst && unheld;
        let after = u64::from(folded.workload.fallback_s) * 1000;
        if leaves {
            return Some((after, Event::Leave(Leave { task: *task })));
        }
        // Not at once: a host that is away for a while may be the one that can.
        let declined = unheld && self.all_have_declined(folded);
        declined.then_some((after, Event::Lose(Lose { task: *task, attempt: folded.attempt })))
    }
}
