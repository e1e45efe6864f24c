//! This node's part in keeping the history bounded: the rules it declares, the checkpoints it proposes, compares and
//! acknowledges, and what it drops.
//!
//! A checkpoint stands when every member has acknowledged it, in knowledge of nothing that is neither above nor beneath
//! its cut: whether it does is read from entries, so that all nodes drop the same. Who acknowledges has folded the state
//! at the cut for itself and found the same snapshot.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Node, Timings};
use crate::kernel::clock::Division;
use crate::kernel::entry::{Acknowledge, Checkpoint, Declare, Entry, Event};
use crate::kernel::id::{Author, Cid, Digest, PeerId};
use crate::kernel::io::{Notice, Output};
use crate::kernel::rules::{HISTORY, RULES};
use crate::kernel::snapshot::Sealed;

/// The fewest entries that are worth a checkpoint: this many, and two for each member, since each writes one for it.
const LEAST: usize = 32;
/// The parts of the time between checkpoints that each further rank waits before it proposes one.
const RANK_PARTS: u64 = 16;
/// The parts of the retention time after which it is noted what was here.
const SAMPLES: u64 = 64;

#[derive(Debug)]
pub(super) struct History {
    /// Checkpoints that have neither come to stand nor been overtaken, by the entries that propose them.
    proposals: BTreeMap<Cid, Proposal>,
    /// What stands for what was dropped.
    sealed: Option<Sealed>,
    /// When this node looks whether a checkpoint is due.
    next_look: u64,
    /// Since when a checkpoint is due and whose turn it is is waited for.
    turn: Option<u64>,
    /// When there were how many entries: what is old whatever its label says.
    samples: VecDeque<(u64, u64)>,
    alarm: Option<String>,
    dirty: bool,
}

#[derive(Debug)]
struct Proposal {
    by: PeerId,
    checkpoint: Checkpoint,
    /// Who has acknowledged it, and by which entries.
    acknowledged: BTreeMap<PeerId, BTreeSet<Cid>>,
    /// When it came here.
    since: u64,
    verdict: Option<Verdict>,
}

#[derive(Debug)]
enum Verdict {
    /// This node makes the same snapshot of the same entries.
    Same { sealed: Sealed, division: Division, asked: BTreeSet<PeerId> },
    /// It can never come to stand, as far as this node knows.
    Void,
}

impl History {
    pub(super) const fn new(now: u64, timings: &Timings) -> Self {
        Self {
            proposals: BTreeMap::new(),
            sealed: None,
            // A node that is often started again looks too.
            next_look: now + timings.checkpoint / 8,
            turn: None,
            samples: VecDeque::new(),
            alarm: None,
            dirty: false,
        }
    }

    pub(super) const fn next_wake(&self) -> u64 {
        self.next_look
    }

    pub(super) fn alarm(&self) -> Option<&str> {
        self.alarm.as_deref()
    }

    /// Whether this node has promised not to build on this entry: it has acknowledged a checkpoint, and the entry, or
    /// one below it, would have a parent missing if that came to stand.
    pub(super) fn avoids(&self, me: &PeerId, head: &Cid) -> bool {
        self.proposals.values().filter(|proposal| proposal.acknowledged.contains_key(me)).any(|proposal| {
            matches!(&proposal.verdict, Some(Verdict::Same { division, .. }) if division.astray.contains(head))
        })
    }
}

impl Node {
    /// Declares the rules that this version knows, once.
    pub(super) fn declare_rules(&mut self) {
        let members = self.clock.members();
        let mine = self.me.peer();
        if self.may_write() && members.contains(&mine) && members.declared(&mine) < RULES {
            self.events.push(Event::Declare(Declare { rules: RULES }));
        }
    }

    /// Whether a member has declared rules that this version does not know: it then decides nothing.
    pub(super) fn is_behind_rules(&self) -> bool {
        self.clock.members().highest_rules() > RULES
    }

    /// Takes from a newly placed entry what it says of checkpoints.
    pub(super) fn note_history(&mut self, entry: &Entry) {
        let (cid, by) = (entry.cid(), entry.author().peer);
        for proposal in self.history.proposals.values_mut() {
            if let Some(Verdict::Same { division, .. }) = &mut proposal.verdict
                && self.clock.goes_astray(&cid, &proposal.checkpoint.cut, division)
            {
                division.astray.insert(cid);
                self.history.dirty = true;
            }
        }
        for event in &entry.body().events {
            match event {
                Event::Checkpoint(checkpoint) => {
                    let proposal = Proposal {
                        by,
                        checkpoint: checkpoint.clone(),
                        acknowledged: BTreeMap::from([(by, BTreeSet::from([cid]))]),
                        since: self.now.mono,
                        verdict: None,
                    };
                    // Of several in one entry the first is meant.
                    self.history.proposals.entry(cid).or_insert(proposal);
                    self.history.dirty = true;
                }
                Event::Acknowledge(acknowledge) => {
                    let above = self.clock.mark(&cid).zip(self.clock.mark(&acknowledge.checkpoint));
                    if above.is_some_and(|(mine, proposed)| mine.knows(proposed))
                        && let Some(proposal) = self.history.proposals.get_mut(&acknowledge.checkpoint)
                    {
                        proposal.acknowledged.entry(by).or_default().insert(cid);
                        self.history.dirty = true;
                    }
                }
                _ => {}
            }
        }
    }

    /// Compares what is new, drops what may be dropped, and acknowledges or proposes what is this node's turn.
    pub(super) fn take_history(&mut self) {
        self.sample();
        while std::mem::take(&mut self.history.dirty) {
            let unseen: Vec<Cid> =
                self.history.proposals.iter().filter(|(_, p)| p.verdict.is_none()).map(|(cid, _)| *cid).collect();
            for proposed in unseen {
                self.examine(&proposed);
            }
            self.give_up_the_dead();
            // The lowest first: what stands above one may rest on its standing.
            let standing: Vec<&Cid> = self.history.proposals.keys().filter(|cid| self.stands(cid)).collect();
            let height = |cid: &&&Cid| self.clock.mark(&self.history.proposals[**cid].checkpoint.cut).map(|m| m.height);
            let Some(lowest) = standing.iter().min_by_key(height).map(|cid| **cid) else { break };
            self.condense(&lowest);
        }
        if !self.may_write() {
            return;
        }
        if self.is_behind_rules() {
            self.history.next_look = self.now.mono + self.settings.timings.checkpoint;
            return;
        }
        self.acknowledge();
        self.propose();
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

    /// Folds the state at a proposed cut and compares.
    fn examine(&mut self, proposed: &Cid) {
        let Some(proposal) = self.history.proposals.get(proposed) else { return };
        let (by, checkpoint) = (proposal.by, proposal.checkpoint.clone());
        let verdict = match self.weigh(proposed, &checkpoint) {
            Some((sealed, _, _)) if sealed.hash != checkpoint.hash => {
                let text = format!(
                    "the checkpoint that {by} proposes names another state ({}) than this node makes of the same \
                     entries ({}): nothing is dropped; compare the versions of both, and revoke the peer if it lies",
                    checkpoint.hash, sealed.hash
                );
                self.history.alarm = Some(text.clone());
                self.notice(Notice::Warning { text });
                Verdict::Void
            }
            Some((sealed, division, asked)) => Verdict::Same { sealed, division, asked },
            None => Verdict::Void,
        };
        if let Some(proposal) = self.history.proposals.get_mut(proposed) {
            proposal.verdict = Some(verdict);
        }
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
        let known = self.clock.tally_with(&self.clock.with_ancestors([*proposed])?, &checkpoint.void).members;
        if known.rules() < HISTORY {
            return None;
        }
        let asked = known.all().map(|member| member.peer).collect();
        let sealed = self.snapshot_at(&checkpoint.cut, &division, &checkpoint.void)?;
        Some((sealed, division, asked))
    }

    fn snapshot_at(&self, cut: &Cid, division: &Division, void: &[(Author, u64)]) -> Option<Sealed> {
        let (mut snapshot, counting) = self.clock.condense(cut, division, void)?;
        self.ledger.condense(|cid| counting.contains(cid), &mut snapshot);
        Some(snapshot.seal())
    }

    /// Whether everybody has acknowledged a checkpoint. Once it is so, it stays so, whatever else comes.
    fn stands(&self, proposed: &Cid) -> bool {
        let Some(proposal) = self.history.proposals.get(proposed) else { return false };
        let Some(Verdict::Same { division, asked, .. }) = &proposal.verdict else { return false };
        let valid = |by: &PeerId| {
            let all = proposal.acknowledged.get(by).into_iter().flatten();
            all.copied().filter(|cid| !division.astray.contains(cid)).collect::<Vec<Cid>>()
        };
        if asked.iter().any(|peer| valid(peer).is_empty()) {
            return false;
        }
        let above: Vec<Cid> = proposal.acknowledged.keys().flat_map(valid).collect();
        // Who was admitted meanwhile by somebody who had not acknowledged it yet has to do so too.
        self.clock.admitted_between(proposed, &above).iter().all(|peer| !valid(peer).is_empty())
    }

    /// Proposals that somebody who has to acknowledge them never can: its own latest chain stands astray.
    fn give_up_the_dead(&mut self) {
        for proposal in self.history.proposals.values_mut() {
            let Some(Verdict::Same { division, asked, .. }) = &proposal.verdict else { continue };
            let dead = division.astray.iter().filter_map(|cid| self.clock.author_of(cid)).any(|author| {
                asked.contains(&author.peer)
                    && !proposal.acknowledged.contains_key(&author.peer)
                    && self.clock.last_incarnation(&author.peer) == Some(author)
            });
            if dead {
                proposal.verdict = Some(Verdict::Void);
            }
        }
    }

    /// Acknowledges what this node has found to be the same, knowing nothing that is astray.
    fn acknowledge(&mut self) {
        let me = self.me.peer();
        let mine = self.history.proposals.iter().filter(|(proposed, proposal)| {
            let Some(Verdict::Same { division, .. }) = &proposal.verdict else { return false };
            !proposal.acknowledged.contains_key(&me)
                && self.clock.heads().is_disjoint(&division.astray)
                && self.clock.void_below(proposed) == proposal.checkpoint.void
        });
        let mine: Vec<Cid> = mine.map(|(proposed, _)| *proposed).collect();
        for checkpoint in mine {
            self.events.push(Event::Acknowledge(Acknowledge { checkpoint }));
        }
    }

    /// Proposes a checkpoint when it is time and this node's turn.
    fn propose(&mut self) {
        let (now, timings) = (self.now.mono, self.settings.timings);
        if now < self.history.next_look {
            return;
        }
        let pending = self.history.proposals.values().any(|proposal| {
            matches!(proposal.verdict, Some(Verdict::Same { .. })) && now < proposal.since + timings.retention
        });
        if pending || self.clock.members().rules() < HISTORY {
            self.history.next_look = now + timings.checkpoint / RANK_PARTS;
            self.history.turn = None;
            return;
        }
        // The nearest proposes at once; who stands behind only if nobody ahead has.
        let name =
            Digest::of(&[b"runmesh checkpoint", self.clock.base_hash().map_or([0; 32], |hash| hash.0).as_slice()]);
        let mine = (name.hamming(&self.me.peer().place()), self.me.peer());
        let ahead = self.peers.heard().map(|peer| (name.hamming(&peer.place.peer().place()), peer.place.peer()));
        let rank = ahead.filter(|other| *other < mine).count() as u64;
        let due = *self.history.turn.get_or_insert(now) + rank * (timings.checkpoint / RANK_PARTS);
        if now < due {
            self.history.next_look = due;
            return;
        }
        self.history.next_look = now + timings.checkpoint;
        self.history.turn = None;
        let old = self.history.samples.front().filter(|(at, _)| at + timings.retention <= now).map_or(0, |(_, n)| *n);
        let wall = self.now.wall;
        let is_old = |placing: u64, label: u64| placing < old || label + timings.retention <= wall;
        let least = LEAST + 2 * self.clock.members().all().count();
        let Some((cut, division)) = self.clock.find_cut(least, is_old) else { return };
        let void = self.clock.void_here();
        if let Some(sealed) = self.snapshot_at(&cut, &division, &void) {
            self.events.push(Event::Checkpoint(Checkpoint { cut, hash: sealed.hash, void }));
        }
    }

    /// Drops what lies beneath a checkpoint that stands.
    fn condense(&mut self, proposed: &Cid) {
        let Some(Proposal { verdict: Some(Verdict::Same { sealed, division, .. }), .. }) =
            self.history.proposals.remove(proposed)
        else {
            return;
        };
        let dropped = self.clock.drop_beneath(&sealed.snapshot, sealed.hash, &division);
        let (bytes, count) = (sealed.bytes.clone(), dropped.len());
        self.take_over(sealed);
        self.outbox.push(Output::Condense { snapshot: bytes, dropped });
        self.notice(Notice::Condensed { dropped: count, kept: self.clock.len() });
        self.history.next_look = self.now.mono + self.settings.timings.checkpoint;
    }

    /// Starts from a snapshot that is on disk.
    pub(super) fn stand_on(&mut self, sealed: Sealed) {
        self.clock = crate::kernel::clock::Clock::above(&sealed.snapshot, sealed.hash);
        self.take_over(sealed);
    }

    /// Brings everything else into line with a clock that stands on this snapshot.
    fn take_over(&mut self, sealed: Sealed) {
        let mut tasks = self.ledger.stand_on(&sealed.snapshot, sealed.hash, |cid| self.clock.holds(cid));
        tasks.extend(self.ledger.named());
        for task in tasks {
            if self.ledger.fold(&task, |cid| self.clock.counts(cid)) {
                self.touched.insert(task);
            }
        }
        let clock = &self.clock;
        self.history.proposals.retain(|proposed, proposal| {
            proposal.verdict = None;
            clock.holds(proposed) && clock.holds(&proposal.checkpoint.cut)
        });
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
