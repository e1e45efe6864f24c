//! What runs here, and whether what others hold still lives.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::peers::News;
use super::{Node, claimed_by};
use crate::kernel::entry::{Decline, Entry, Event, Finish, MAX_NOTE, Release};
use crate::kernel::id::{Cid, PeerId, TaskId};
use crate::kernel::io::{Notice, Output, Presence, Report, SourceKey, StopReason};
use crate::kernel::task::{Fence, Products, ReleaseReason, State, Workload};

#[derive(Debug)]
struct Running {
    fence: Fence,
    workload: Arc<Workload>,
    stopping: Option<StopReason>,
}

/// A task that another node holds.
#[derive(Debug, Clone, Copy)]
struct Watch {
    holder: PeerId,
    fence: Fence,
    since: u64,
    /// When its life was last seen in its holder's presence; at first when the claim was learnt.
    alive: u64,
    /// It was not heard of for too long when it was looked at last; whether it is missed is for others to say too.
    silent: bool,
    missed: bool,
    /// When it is to be looked at again.
    due: u64,
}

/// What another peer holds.
#[derive(Debug, Default)]
struct Held {
    tasks: BTreeSet<TaskId>,
    /// Those of them that are silent.
    silent: BTreeSet<TaskId>,
    /// Since when it holds any.
    since: u64,
}

#[derive(Debug, Default)]
pub(super) struct Custody {
    running: BTreeMap<TaskId, Running>,
    /// Claims that this node has made in this life and not started yet: only these may start anything.
    fresh: BTreeSet<(TaskId, Cid)>,
    watched: BTreeMap<TaskId, Watch>,
    /// What each other peer holds.
    held: BTreeMap<PeerId, Held>,
    /// When the watched tasks are to be looked at, the first first.
    dues: BTreeSet<(u64, TaskId)>,
    /// Those that are to be looked at now.
    look: BTreeSet<TaskId>,
    draining: bool,
    cordoned: bool,
    handing_over: bool,
    /// When a slot last came free of which there was none before, or this node began to offer more.
    slots_since: Option<u64>,
    /// When slots came free, the latest last; no more of them than there are slots.
    freed: VecDeque<u64>,
    /// What this node has declined in this life: it does not try that again.
    declined: BTreeSet<TaskId>,
    /// Sources whose tasks are stopped when this node is cut off.
    careful: BTreeSet<SourceKey>,
    /// Until when this node is sure to hear a majority, while that matters.
    majority_until: Option<u64>,
}

impl Custody {
    pub(super) fn next_wake(&self) -> u64 {
        let watch = if self.look.is_empty() { self.dues.first().map_or(u64::MAX, |(at, _)| *at) } else { 0 };
        watch.min(self.majority_until.unwrap_or(u64::MAX))
    }

    /// Remembers this node's own claims.
    pub(super) fn wrote(&mut self, entry: &Entry) {
        for event in &entry.body().events {
            if let Event::Claim(claim) = event {
                self.fresh.insert((claim.task, entry.cid()));
            }
        }
    }

    pub(super) fn fences(&self) -> BTreeMap<TaskId, Fence> {
        self.running.iter().map(|(task, running)| (*task, running.fence)).collect()
    }

    pub(super) fn runs(&self, task: &TaskId) -> bool {
        self.running.contains_key(task)
    }

    pub(super) fn slots_have_grown(&mut self, now: u64) {
        self.slots_since = Some(now);
    }

    fn slot_came_free(&mut self, now: u64, slots: u32) {
        self.freed.push_back(now);
        while self.freed.len() > slots as usize {
            self.freed.pop_front();
        }
    }

    /// When the newest of so many free slots came, where all of them came within that time: others may know of none.
    pub(super) fn slots_since(&self, free: usize, now: u64, within: u64) -> Option<u64> {
        let young = |since: &u64| now < since + within;
        let freed = self.freed.iter().copied().filter(young);
        let last = freed.clone().max().filter(|_| freed.count() >= free);
        self.slots_since.filter(young).max(last)
    }

    pub(super) fn has_declined(&self, task: &TaskId) -> bool {
        self.declined.contains(task)
    }

    /// What runs here.
    pub(super) fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.running.values().map(|running| &running.workload)
    }

    pub(super) fn occupied(&self) -> usize {
        self.running.len()
    }

    /// Whether some source's tasks are kept here only while most of the members are heard.
    pub(super) fn has_careful_sources(&self) -> bool {
        !self.careful.is_empty()
    }

    pub(super) const fn draining(&self) -> bool {
        self.draining
    }

    pub(super) const fn cordoned(&self) -> bool {
        self.cordoned
    }

    /// Whether nothing is claimed here, whatever waits.
    pub(super) const fn takes_nothing_new(&self) -> bool {
        self.draining || self.cordoned
    }

    /// How many tasks the ledger names this other peer as the holder of, and the peer has not said yet that it runs.
    pub(super) fn claimed_since(&self, presence: &Presence) -> usize {
        let held = self.held.get(&presence.peer).map(|held| &held.tasks);
        held.into_iter().flatten().filter(|task| !presence.running.contains_key(task)).count()
    }

    /// How many tasks the ledger names this other peer as the holder of.
    pub(super) fn held_by(&self, peer: &PeerId) -> usize {
        self.held.get(peer).map_or(0, |held| held.tasks.len())
    }

    /// Since when the ledger names this other peer as the holder of anything.
    pub(super) fn holds_since(&self, peer: &PeerId) -> Option<u64> {
        self.held.get(peer).map(|held| held.since)
    }

    /// The other peers that hold anything.
    pub(super) fn holders(&self) -> impl Iterator<Item = &PeerId> {
        self.held.keys()
    }

    /// Something has happened to a holder: its tasks are looked at.
    pub(super) fn look_at_those_of(&mut self, peer: &PeerId) {
        if let Some(held) = self.held.get(peer) {
            self.look.extend(&held.tasks);
        }
    }

    /// No task is taken to have been silent since before this time.
    pub(super) fn allow(&mut self, alive: u64) {
        for watch in self.watched.values_mut().filter(|watch| !watch.missed) {
            watch.alive = watch.alive.max(alive);
        }
    }

    /// Whether a task that another holds is heard of no more.
    pub(super) fn is_missed(&self, task: &TaskId) -> bool {
        self.watched.get(task).is_some_and(|watch| watch.missed)
    }

    /// Takes from a presence which tasks live.
    pub(super) fn heard(&mut self, presence: &Presence, now: u64) {
        if !self.held.contains_key(&presence.peer) {
            return;
        }
        // Whether it still runs the others.
        self.look_at_silent_ones_of(&presence.peer);
        for (task, fence) in &presence.running {
            if let Some(watch) = self.watched.get_mut(task)
                && watch.holder == presence.peer
                && watch.fence == *fence
            {
                watch.alive = watch.alive.max(now);
                if watch.silent || watch.missed {
                    self.look.insert(*task);
                }
            }
        }
    }

    fn look_at_silent_ones_of(&mut self, peer: &PeerId) {
        if let Some(held) = self.held.get(peer) {
            self.look.extend(&held.silent);
        }
    }

    fn is_silent_anywhere(&self, holder: &PeerId) -> bool {
        self.held.get(holder).is_some_and(|held| !held.silent.is_empty())
    }

    /// Watches a task that another holds, or none any more. Answers whose number of tasks is another now.
    fn watch(&mut self, task: TaskId, held: Option<(PeerId, Fence)>, now: u64) -> [Option<PeerId>; 2] {
        let before = self.watched.get(&task).copied();
        if before.map(|watch| (watch.holder, watch.fence)) == held {
            return [None, None];
        }
        if let Some(before) = before {
            self.watched.remove(&task);
            self.dues.remove(&(before.due, task));
            self.look.remove(&task);
            if let Some(held) = self.held.get_mut(&before.holder) {
                held.tasks.remove(&task);
                held.silent.remove(&task);
                if held.tasks.is_empty() {
                    self.held.remove(&before.holder);
                }
            }
        }
        if let Some((holder, fence)) = held {
            let watch = Watch { holder, fence, since: now, alive: now, silent: false, missed: false, due: u64::MAX };
            self.watched.insert(task, watch);
            self.held.entry(holder).or_insert_with(|| Held { since: now, ..Held::default() }).tasks.insert(task);
            self.look.insert(task);
        }
        [before.map(|before| before.holder), held.map(|(holder, _)| holder)]
    }
}

impl Node {
    pub(super) fn free_slots(&self) -> u32 {
        self.offer.slots.saturating_sub(u32::try_from(self.custody.occupied()).unwrap_or(u32::MAX))
    }

    /// Brings what runs here into line with the ledger, for every task whose state has changed.
    pub(super) fn take_custody(&mut self) {
        for task in std::mem::take(&mut self.touched) {
            // What a node learns of the time before it took part is history, not news.
            if self.may_write() {
                self.tell_of(&task);
            }
            self.regroup(&task);
            let Some(folded) = self.ledger.get(&task) else {
                self.let_go(&task);
                continue;
            };
            let (held, open) = (claimed_by(&folded.state), folded.state.is_open());
            let mine = held.filter(|(holder, _)| *holder == self.me.peer()).map(|(_, fence)| fence);
            let workload = folded.workload.clone();
            match (mine, self.custody.running.get(&task).map(|running| running.fence)) {
                (Some(fence), Some(running)) if fence == running => {}
                (None, None) => {}
                (Some(fence), None) => self.take_or_release(task, fence, workload),
                (_, Some(_)) => self.stop(task, if open { StopReason::Lost } else { StopReason::Ended }),
            }
            if !open {
                self.custody.fresh.retain(|(claimed, _)| *claimed != task);
                self.custody.declined.remove(&task);
            }
            let others = held.filter(|(holder, _)| *holder != self.me.peer());
            self.watch(task, others);
            self.enqueue(&task);
        }
    }

    /// Nothing is known of a task any more: it had ended before a checkpoint, or its entries count for nothing.
    fn let_go(&mut self, task: &TaskId) {
        self.stop(*task, StopReason::Ended);
        self.custody.fresh.retain(|(claimed, _)| claimed != task);
        self.watch(*task, None);
        self.dequeue(task);
    }

    fn watch(&mut self, task: TaskId, held: Option<(PeerId, Fence)>) {
        let now = self.now.mono;
        let [before, after] = self.custody.watch(task, held, now);
        if let Some(holder) = after {
            // It beats by the shortest rhythm from now on.
            self.peers.expect(&holder, now, &self.settings.timings);
        }
        for holder in [before, after].into_iter().flatten() {
            self.peers.stir(holder);
        }
    }

    fn take_or_release(&mut self, task: TaskId, fence: Fence, workload: Arc<Workload>) {
        if !self.custody.handing_over && self.custody.fresh.remove(&(task, fence.claim)) {
            self.custody.running.insert(task, Running { fence, workload: workload.clone(), stopping: None });
            self.peers.changed(self.now.mono, &self.settings.timings);
            self.outbox.push(Output::Start { task, fence, workload });
        } else if self.may_write() {
            let reason = if self.custody.handing_over { ReleaseReason::Draining } else { ReleaseReason::NotRunning };
            self.release(task, fence, reason, "its holder does not run it");
        }
    }

    pub(super) fn on_careful(&mut self, sources: BTreeSet<SourceKey>) {
        self.custody.careful = sources;
        self.peers.changed(self.now.mono, &self.settings.timings);
        self.claims.look_again();
    }

    /// Whether the task may be held only while a majority is heard.
    pub(super) fn is_careful(&self, workload: &Workload) -> bool {
        !self.custody.careful.is_empty()
            && workload.repository.sources().iter().any(|source| self.custody.careful.contains(source))
    }

    /// Stops what may run only while a majority is heard, when none is.
    pub(super) fn mind_majority(&mut self) {
        self.custody.majority_until = None;
        if self.custody.careful.is_empty() {
            return;
        }
        let running = self.custody.running.iter();
        let careful = running.filter(|(_, run)| run.stopping.is_none() && self.is_careful(&run.workload));
        let careful: Vec<TaskId> = careful.map(|(task, _)| *task).collect();
        if careful.is_empty() {
            return;
        }
        match self.majority_until() {
            Some(until) => self.custody.majority_until = Some(until),
            None => careful.into_iter().for_each(|task| self.stop(task, StopReason::CutOff)),
        }
    }

    pub(super) fn stop(&mut self, task: TaskId, why: StopReason) {
        let Some(running) = self.custody.running.get_mut(&task) else { return };
        if running.stopping.is_none() {
            running.stopping = Some(why);
            let fence = running.fence;
            self.outbox.push(Output::Stop { task, fence, why });
        }
    }

    fn release(&mut self, task: TaskId, fence: Fence, reason: ReleaseReason, note: &str) {
        self.events.push(Event::Release(Release { task, fence, reason, note: shortened(note) }));
    }

    /// The runner room reports of something it was told to start.
    pub(super) fn on_ran(&mut self, task: TaskId, fence: Fence, report: Report, products: Products) {
        let was_full = self.free_slots() == 0;
        let Some(running) = self.custody.running.remove(&task) else { return };
        if running.fence != fence {
            self.custody.running.insert(task, running);
            return;
        }
        if was_full {
            self.custody.slots_have_grown(self.now.mono);
        }
        self.custody.slot_came_free(self.now.mono, self.offer.slots);
        self.peers.changed(self.now.mono, &self.settings.timings);
        self.claims.room_was_made();
        let Some(folded) = self.ledger.get(&task) else { return };
        let mine = claimed_by(&folded.state) == Some((self.me.peer(), fence));
        let counts = folded.state.is_open() && folded.claim(&fence).is_some_and(|claim| claim.released.is_none());
        match report {
            // A result is worth telling even when another node holds the task by now: the first result ends it.
            Report::Finished { conclusion, duration_ms, note } if counts => {
                let note = shortened(&note);
                self.events.push(Event::Finish(Finish { task, fence, conclusion, duration_ms, note, products }));
            }
            Report::NotStarted { why } if counts => self.release(task, fence, ReleaseReason::NotStarted, &why),
            Report::GivenBack { reason, why } if counts => self.release(task, fence, reason, &why),
            Report::Declined { why } if counts => {
                self.custody.declined.insert(task);
                self.release(task, fence, ReleaseReason::Draining, &why);
                self.events.push(Event::Decline(Decline { task, why: shortened(&why) }));
            }
            Report::Stopped if mine => {
                let (reason, note) = match running.stopping {
                    Some(StopReason::HandedOver) => (ReleaseReason::Draining, "its holder goes away"),
                    Some(StopReason::Yielded) => {
                        (ReleaseReason::Draining, "another task of its concurrency group runs")
                    }
                    Some(StopReason::CutOff) => {
                        (ReleaseReason::Draining, "its holder did not hear most of the members")
                    }
                    _ => (ReleaseReason::NotRunning, "its holder had stopped it"),
                };
                self.release(task, fence, reason, note);
            }
            _ => {
                // A claim under another fence may be waiting for this slot.
                self.touched.insert(task);
            }
        }
    }

    pub(super) fn on_drain(&mut self, hand_over: bool) {
        self.custody.draining = true;
        self.duty.rest();
        self.peers.changed(self.now.mono, &self.settings.timings);
        if hand_over {
            self.custody.handing_over = true;
            self.stop_everything(StopReason::HandedOver);
        }
    }

    pub(super) fn on_cordon(&mut self) {
        self.custody.cordoned = true;
        self.peers.changed(self.now.mono, &self.settings.timings);
    }

    pub(super) fn on_uncordon(&mut self) {
        if std::mem::take(&mut self.custody.cordoned) {
            // The others have to hear of it first, as of new slots.
            self.custody.slots_have_grown(self.now.mono);
            self.peers.changed(self.now.mono, &self.settings.timings);
            self.claims.look_again();
        }
    }

    pub(super) fn stop_everything(&mut self, why: StopReason) {
        let tasks: Vec<TaskId> = self.custody.running.keys().copied().collect();
        for task in tasks {
            self.stop(task, why);
        }
    }

    /// Looks at the silent tasks of whom somebody says something else than before who is asked about that holder.
    fn look_at_what_others_say(&mut self) {
        let News { opinions, turned } = self.peers.take_news();
        let mut holders = BTreeSet::new();
        for (by, of) in opinions {
            if self.custody.is_silent_anywhere(&of) && self.peers.is_asked(&by, &of, &self.me) {
                holders.insert(of);
            }
        }
        if !turned.is_empty() {
            let silent = self.custody.held.iter().filter(|(_, held)| !held.silent.is_empty()).map(|(of, _)| of);
            let asked = |of: &&PeerId| turned.iter().any(|by| by == *of || self.peers.is_asked(by, of, &self.me));
            holders.extend(silent.filter(asked));
        }
        holders.iter().for_each(|holder| self.custody.look_at_silent_ones_of(holder));
    }

    /// Notices tasks of others that are heard of no more.
    pub(super) fn watch_tasks(&mut self) {
        let (now, timings) = (self.now.mono, self.settings.timings);
        self.look_at_what_others_say();
        let custody = &mut self.custody;
        while let Some((at, task)) = custody.dues.first().copied().filter(|(at, _)| *at <= now) {
            custody.dues.remove(&(at, task));
            custody.look.insert(task);
        }
        for task in std::mem::take(&mut self.custody.look) {
            let Some(watch) = self.custody.watched.get(&task).copied() else { continue };
            let limit = self.ledger.get(&task).map_or(0, |folded| u64::from(folded.workload.time_limit_s) * 1000);
            let overdue = watch.since + limit + timings.held_grace;
            let closed =
                self.peers.closed_at(&watch.holder).map_or(u64::MAX, |at| at.max(watch.since) + timings.close_grace);
            let doubted = (watch.alive + timings.failure).min(closed);
            let silent = now >= doubted;
            // A holder that is heard says itself that it does not run the task; of one that is not, others may know more.
            let agreed = silent
                && (self.peers.hears(&watch.holder)
                    || self.peers.others_agree_on_loss(&watch.holder, &self.me, doubted, now, &timings));
            // Who is a member no longer holds nothing.
            let gone = !self.clock.members().contains(&watch.holder);
            let missed = gone || now >= overdue || agreed;
            // Not agreed yet: whoever changes their mind announces it, and that looks here again.
            let waits = [doubted, doubted.saturating_add(timings.beat), overdue];
            let due = waits.into_iter().filter(|at| *at > now && !missed).min().unwrap_or(u64::MAX);
            if let Some(watch) = self.custody.watched.get_mut(&task) {
                self.custody.dues.remove(&(watch.due, task));
                (watch.silent, watch.missed, watch.due) = (silent, missed, due);
            }
            if let Some(held) = self.custody.held.get_mut(&watch.holder) {
                if silent {
                    held.silent.insert(task)
                } else {
                    held.silent.remove(&task)
                };
            }
            if due < u64::MAX {
                self.custody.dues.insert((due, task));
            }
            if missed == watch.missed {
                continue;
            }
            if missed {
                if self.clock.members().contains(&watch.holder) {
                    self.peers.doubt_the_silent(watch.holder, doubted, &timings);
                }
                self.notice(Notice::Missed { task, holder: watch.holder });
            }
            self.enqueue(&task);
        }
    }

    /// Tells people what became of a task.
    fn tell_of(&mut self, task: &TaskId) {
        let Some(folded) = self.ledger.get(task) else { return };
        let note = folded.note.clone();
        let notice = match &folded.state {
            State::Claimed { holder, fence } => Notice::Held { task: *task, holder: *holder, fence: *fence },
            State::Completed { holder, conclusion, .. } => Notice::Ended {
                task: *task,
                word: folded.state.word(),
                conclusion: Some(*conclusion),
                holder: Some(*holder),
                note,
            },
            State::Pending => match folded.claims.last() {
                Some(claim) => Notice::Released { task: *task, holder: claim.author.peer, note },
                None => return,
            },
            ended => Notice::Ended { task: *task, word: ended.word(), conclusion: None, holder: None, note },
        };
        self.notice(notice);
    }

    pub(super) fn workload_running(&self, task: &TaskId) -> Option<&Arc<Workload>> {
        self.custody.running.get(task).map(|running| &running.workload)
    }
}

/// Cut to what an entry may carry, at a character's border.
pub(super) fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_NOTE)].to_owned()
}
