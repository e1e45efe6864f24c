//! This node's part in keeping the history bounded: the rules it declares, the checkpoints it proposes, compares and
//! acknowledges, and what it drops.
//!
//! A checkpoint stands when every member has acknowledged it, in knowledge of nothing that is neither above nor beneath
//! its cut: whether it does is read from entries, so that all nodes drop the same. Who acknowledges has folded the state
//! at the cut for itself and found the same snapshot.

mod proposals;
mod retire;

use std::collections::{BTreeSet, VecDeque};

use self::proposals::{Place, Proposal, Proposals, Weighed};
use super::{Node, Timings};
use crate::kernel::clock::Division;
use crate::kernel::entry::{Acknowledge, Checkpoint, Declare, Entry, Event};
use crate::kernel::id::{Author, Cid, Digest, PeerId};
use crate::kernel::io::{Notice, Output};
use crate::kernel::rules::{HISTORY, RULES};
use crate::kernel::snapshot::{MAX_BYTES, Sealed};

/// The fewest entries that are worth a checkpoint: this many, and two for each member, since each writes one for it.
const LEAST: usize = 32;
/// The parts of the time between checkpoints that each further rank waits before it proposes one.
const RANK_PARTS: u64 = 16;
/// The parts of the retention time after which it is noted what was here.
const SAMPLES: u64 = 64;

#[derive(Debug)]
pub(super) struct History {
    proposals: Proposals,
    /// What stands for what was dropped.
    sealed: Option<Sealed>,
    /// When this node looks whether a checkpoint is due.
    next_look: u64,
    /// Since when a checkpoint is due and whose turn it is is waited for.
    turn: Option<u64>,
    /// Since when somebody is away for so long that it may be retired.
    away_since: Option<u64>,
    /// When there were how many entries: what is old whatever its label says.
    samples: VecDeque<(u64, u64)>,
    /// When this node began to listen.
    started: u64,
    alarm: Option<String>,
    dirty: bool,
    /// The rules of this version are declared.
    declared: bool,
}

impl History {
    pub(super) fn new(now: u64, timings: &Timings) -> Self {
        Self {
            proposals: Proposals::default(),
            sealed: None,
            // A node that is often started again looks too.
            next_look: now + timings.checkpoint / 8,
            turn: None,
            away_since: None,
            samples: VecDeque::new(),
            started: now,
            alarm: None,
            dirty: false,
            declared: false,
        }
    }

    pub(super) const fn next_wake(&self) -> u64 {
        self.next_look
    }

    /// The snapshot that stands for what was dropped.
    pub(super) const fn sealed(&self) -> Option<&Sealed> {
        self.sealed.as_ref()
    }

    /// Everything is fetched again from others: nothing of what was here has an age any more.
    pub(super) fn begin_anew(&mut self) {
        self.proposals = Proposals::default();
        self.samples.clear();
    }

    /// Other entries count than before, this node's own perhaps.
    pub(super) fn may_have_to_declare(&mut self) {
        self.declared = false;
        self.proposals.look_again();
        self.dirty = true;
    }

    pub(super) fn alarm(&self) -> Option<&str> {
        self.alarm.as_deref()
    }

    /// Whether this node has promised not to build on this entry: it has acknowledged a checkpoint, and the entry, or
    /// one below it, would have a parent missing if that came to stand.
    pub(super) fn avoids(&self, me: &PeerId, head: &Cid) -> bool {
        let promised = |one: &&Weighed| one.proposal.acknowledged.contains_key(me) && !one.hopeless;
        self.proposals.weighed.values().filter(promised).any(|one| one.division.astray.contains(head))
    }
}

impl Node {
    /// Declares the rules that this version knows, once.
    pub(super) fn declare_rules(&mut self) {
        let mine = self.me.peer();
        if self.history.declared || !self.may_write() || !self.clock.members().contains(&mine) {
            return;
        }
        self.history.declared = self.clock.members().declared(&mine) >= RULES;
        if !self.history.declared {
            self.events.push(Event::Declare(Declare { rules: RULES }));
        }
    }

    /// Whether entries here were, or are about to be, written under rules that this version does not know: it then
    /// decides nothing, since what it makes of them may be wrong.
    pub(super) fn is_behind_rules(&self) -> bool {
        // Asked at every input: where nobody has declared more, what all have declared need not be found out.
        self.clock.rules_beyond() > RULES
            || (self.clock.members().highest_rules() > RULES && self.clock.rules() > RULES)
    }

    /// The greatest number of rules that entries here may be under.
    pub(super) fn rules_in_force(&self) -> u32 {
        self.clock.rules().max(self.clock.rules_beyond())
    }

    /// Takes from a newly placed entry what it says of checkpoints.
    pub(super) fn note_history(&mut self, entry: &Entry) {
        let (cid, by) = (entry.cid(), entry.author().peer);
        for Weighed { proposal, division, .. } in self.history.proposals.weighed.values_mut() {
            if self.clock.goes_astray(&cid, &proposal.checkpoint.cut, division) {
                division.astray.insert(cid);
                self.history.dirty = true;
            }
        }
        for event in &entry.body().events {
            match event {
                Event::Checkpoint(checkpoint) => {
                    if let Some(mark) = self.clock.mark(&cid) {
                        self.history.proposals.add((mark.order(), by), checkpoint.clone(), self.now.mono);
                        self.history.dirty = true;
                    }
                }
                Event::Acknowledge(acknowledge) => {
                    if let Some(mark) = self.clock.mark(&cid)
                        && let Some(proposed) = self.clock.mark(&acknowledge.proposal).filter(|it| mark.knows(it))
                        && let Some(author) = self.clock.author_of(&acknowledge.proposal)
                    {
                        let place = (proposed.order(), author.peer);
                        self.history.dirty |= self.history.proposals.acknowledge(place, by, cid);
                    }
                }
                _ => {}
            }
        }
    }

    /// Compares what is new, drops what may be dropped, and acknowledges or proposes what is this node's turn.
    pub(super) fn take_history(&mut self) {
        self.sample();
        if self.is_behind_rules() {
            // It would find another state than the others, who are right.
            self.history.next_look = self.now.mono + self.settings.timings.checkpoint;
            return;
        }
        if std::mem::take(&mut self.history.dirty) || self.now.mono >= self.history.next_look {
            self.examine_all();
        }
        if !self.may_write() {
            return;
        }
        self.acknowledge();
        if self.now.mono >= self.history.next_look {
            self.consider_retirements();
            self.propose();
        }
    }

    /// Compares proposals, and drops as soon as one stands, the lowest first: what is proposed above may rest on that.
    fn examine_all(&mut self) {
        loop {
            let standing = self.history.proposals.weighed.iter().filter(|(proposed, one)| self.stands(proposed, one));
            let height = |one: &Weighed| self.clock.mark(&one.proposal.checkpoint.cut).map(|mark| mark.height);
            let lowest = standing.min_by_key(|(_, one)| height(one)).map(|(proposed, _)| *proposed);
            if let Some(lowest) = lowest {
                self.condense(&lowest);
            } else if let Some((place, proposal)) = self.next_to_weigh() {
                self.examine(place, proposal);
            } else {
                break;
            }
        }
        self.give_up_the_dead();
    }

    fn sample(&mut self) {
        let (now, timings) = (self.now.mono, &self.settings.timings);
        let samples = &mut self.history.samples;
        if samples.back().is_none_or(|(at, _)| at + timings.retention / SAMPLES <= now) {
            samples.push_back((now, self.clock.placings()));
        }
        // The first but one is old enough: the first is not needed any more.
        while samples.get(1).is_some_and(|(at, _)| at + timings.retention <= now) {
            samples.pop_front();
        }
    }

    /// Folds the state at a proposed cut and compares. For one of which it makes another snapshot, or of which there is none
    /// to be made, this node drops nothing: that is final.
    fn examine(&mut self, place: Place, proposal: Proposal) {
        let ((_, cid), by) = place;
        let Some((sealed, division, asked)) = self.weigh(&cid, &proposal.checkpoint) else { return };
        if sealed.hash == proposal.checkpoint.hash {
            let weighed = Weighed { place, proposal, sealed, division, asked, hopeless: false };
            self.history.proposals.keep(cid, weighed, &self.me.peer());
            return;
        }
        let text = format!(
            "the checkpoint that {by} proposes names another state ({}) than this node makes of the same entries ({}): \
             nothing is dropped; compare the versions of both, and revoke the peer if it lies",
            proposal.checkpoint.hash, sealed.hash
        );
        self.history.alarm = Some(text.clone());
        self.notice(Notice::Warning { text });
    }

    /// The snapshot at the cut, how the cut divides the entries, and who has to acknowledge it.
    fn weigh(&self, proposed: &Cid, checkpoint: &Checkpoint) -> Option<(Sealed, Division, BTreeSet<PeerId>)> {
        if self.clock.cut() == Some(checkpoint.cut) {
            return None;
        }
        let division = self.clock.divide(&checkpoint.cut)?;
        if division.beneath.contains(proposed) || division.astray.contains(proposed) {
            return None;
        }
        let known = self.clock.with_ancestors([*proposed])?;
        let asked = self.clock.asked_by(proposed, &known, &self.clock.tally_with(&known, &checkpoint.void))?;
        let sealed = self.snapshot_at(&checkpoint.cut, &division, &checkpoint.void)?;
        Some((sealed, division, asked))
    }

    fn snapshot_at(&self, cut: &Cid, division: &Division, void: &[(Author, u64)]) -> Option<Sealed> {
        let (mut snapshot, judged) = self.clock.condense(cut, division, void)?;
        self.ledger.condense(|cid, rules| self.clock.counted_under(&judged, cid, rules), &mut snapshot);
        Some(snapshot.seal())
    }

    /// Whether everybody has acknowledged a checkpoint. Once it is so, it stays so, whatever else comes.
    fn stands(&self, proposed: &Cid, Weighed { proposal, division, asked, .. }: &Weighed) -> bool {
        let mut all = asked.clone();
        let mut open: Vec<PeerId> = all.iter().copied().collect();
        while let Some(peer) = open.pop() {
            let valid = proposal.acknowledged.get(&peer).into_iter().flatten();
            let valid = valid.filter(|cid| !division.astray.contains(*cid)).filter_map(|cid| self.clock.mark(cid));
            let Some(first) = valid.min_by_key(|mark| mark.order()) else { return false };
            // Who was admitted meanwhile by somebody who had not acknowledged it yet has to do so too.
            let meanwhile = self.clock.admitted_between(proposed, &[first.cid]);
            open.extend(meanwhile.into_iter().filter(|peer| all.insert(*peer)));
        }
        true
    }

    /// Marks proposals that somebody who has to acknowledge them cannot: its own latest chain stands astray.
    fn give_up_the_dead(&mut self) {
        for Weighed { proposal, division, asked, hopeless, .. } in self.history.proposals.weighed.values_mut() {
            let gone = |peer: &PeerId| self.clock.is_revoked(peer) && !proposal.acknowledged.contains_key(peer);
            *hopeless = asked.iter().any(gone)
                || division.astray.iter().filter_map(|cid| self.clock.author_of(cid)).any(|author| {
                    asked.contains(&author.peer)
                        && !proposal.acknowledged.contains_key(&author.peer)
                        && self.clock.last_incarnation(&author.peer) == Some(author)
                });
        }
    }

    /// Acknowledges what this node has found to be the same, knowing nothing that is astray.
    fn acknowledge(&mut self) {
        let me = self.me.peer();
        let mine =
            self.history.proposals.weighed.iter().filter(|(proposed, Weighed { proposal, division, hopeless, .. })| {
                !proposal.acknowledged.contains_key(&me)
                    && !hopeless
                    && !proposal.agreed
                    && !self.history.avoids(&me, proposed)
                    && self.clock.heads().is_disjoint(&division.astray)
                    && self.clock.void_below(proposed) == proposal.checkpoint.void
            });
        let mine: Vec<Cid> = mine.map(|(proposed, _)| *proposed).collect();
        for proposal in mine {
            if let Some(agreed) = self.history.proposals.weighed.get_mut(&proposal) {
                agreed.proposal.agreed = true;
            }
            self.events.push(Event::Acknowledge(Acknowledge { proposal }));
        }
    }

    /// Proposes a checkpoint when it is time and this node's turn.
    fn propose(&mut self) {
        let (now, timings) = (self.now.mono, self.settings.timings);
        let pending = self.history.proposals.weighed.values();
        let pending = pending.filter(|one| !one.hopeless).any(|one| now < one.proposal.since + timings.retention);
        if pending || self.clock.rules() < HISTORY {
            self.history.next_look = now + timings.checkpoint / RANK_PARTS;
            self.history.turn = None;
            return;
        }
        let rank = self.rank_among_heard(b"runmesh checkpoint");
        let due = *self.history.turn.get_or_insert(now) + rank * (timings.checkpoint / RANK_PARTS);
        if now < due {
            self.history.next_look = due;
            return;
        }
        self.history.next_look = now + timings.checkpoint;
        self.history.turn = None;
        let old = self.history.samples.front().filter(|(at, _)| at + timings.retention <= now).map_or(0, |(_, n)| *n);
        let wall = self.now.wall;
        let is_old = |placing: u64, label: u64| placing < old || label.saturating_add(timings.retention) <= wall;
        let least = LEAST + 2 * self.clock.members().all().count();
        let Some((cut, division)) = self.clock.find_cut(least, is_old) else { return };
        let void = self.clock.void_here();
        if let Some(sealed) = self.snapshot_at(&cut, &division, &void).filter(|sealed| sealed.bytes.len() <= MAX_BYTES)
        {
            self.events.push(Event::Checkpoint(Checkpoint { cut, hash: sealed.hash, void }));
        }
    }

    /// The nearest to a thing and to the checkpoint does it at once; who stands behind only if nobody ahead has.
    fn rank_among_heard(&self, what: &[u8]) -> u64 {
        let base = self.clock.base_hash().map_or([0; 32], |hash| hash.0);
        let name = Digest::of(&[what, base.as_slice()]);
        let mine = (name.hamming(&self.me.peer().place()), self.me.peer());
        let ahead = self.peers.heard().map(|peer| (name.hamming(&peer.place.peer().place()), peer.place.peer()));
        ahead.filter(|other| *other < mine).count() as u64
    }

    /// Drops what lies beneath a checkpoint that stands.
    fn condense(&mut self, proposed: &Cid) {
        let Some(Weighed { sealed, division, .. }) = self.history.proposals.weighed.remove(proposed) else { return };
        let lost = division.astray.iter().any(|cid| self.clock.author_of(cid) == Some(self.author));
        let dropped = self.clock.drop_beneath(&sealed.snapshot, sealed.hash, &division);
        self.change_ground(sealed, dropped);
        if lost {
            self.renew_incarnation("a checkpoint has come to stand that its last entries stood beside");
        }
        self.history.next_look = self.now.mono + self.settings.timings.checkpoint;
    }

    /// Starts from a snapshot that is on disk.
    pub(super) fn stand_on(&mut self, sealed: Sealed) {
        self.clock = crate::kernel::clock::Clock::above(&sealed.snapshot, sealed.hash, self.shelf.clone());
        self.take_over(sealed);
    }

    /// Puts another snapshot beneath everything, the clock having done so already.
    pub(super) fn change_ground(&mut self, sealed: Sealed, dropped: Vec<Cid>) {
        let (snapshot, count) = (sealed.bytes.clone(), dropped.len());
        self.take_over(sealed);
        self.outbox.push(Output::Condense { snapshot, dropped });
        self.notice(Notice::Condensed { dropped: count, kept: self.clock.len() });
        self.peers.heads_changed(self.now.mono, &self.settings.timings);
    }

    /// Brings everything else into line with a clock that stands on this snapshot.
    fn take_over(&mut self, sealed: Sealed) {
        let mut tasks = self.ledger.stand_on(&sealed.snapshot, sealed.hash, |cid| self.clock.holds(cid));
        tasks.extend(self.ledger.named());
        for task in tasks {
            let changed = self.ledger.fold(&task, |cid, rules| self.clock.counts_under(cid, rules));
            // One of which nothing is known any more may still stand in a queue here.
            if changed || self.ledger.get(&task).is_none() {
                self.touched.insert(task);
            }
        }
        self.look_at_pause();
        let clock = &self.clock;
        let stays = |proposed: &Cid, checkpoint: &Checkpoint| clock.holds(proposed) && clock.holds(&checkpoint.cut);
        self.history.proposals.begin_again(stays);
        self.history.sealed = Some(sealed);
        self.history.alarm = None;
        self.history.dirty = true;
    }

    /// Forgets entries on disk that the snapshot stands for: an earlier attempt to forget them was cut off.
    pub(super) fn drop_stale(&mut self, dropped: Vec<Cid>) {
        if let Some(sealed) = &self.history.sealed
            && !dropped.is_empty()
        {
            self.outbox.push(Output::Condense { snapshot: sealed.bytes.clone(), dropped });
        }
    }
}
