//! Who is there: connections, presences, and what this node says of itself.
//!
//! Who runs something, and who holds a task by the ledger, is expected to beat by the shortest rhythm; only a node that
//! has nothing to do beats more slowly the more members it hears. Its death shows later, then, which costs time and
//! nothing else: a task whose nearest candidate is a dead idle node waits until that one's turn is over and its answer
//! overdue (`sync`), a source's duty passes on later, a slot is thought free that is not there. Nothing that is decided
//! about a task somebody holds depends on it: life is the task in its holder's presence (`custody`). Only who has to
//! know at any time whether it hears most of the members (`quorum`) is heard by nodes that do not rest.

mod jury;
mod peer;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::jury::Juries;
pub(super) use self::peer::Peer;
use self::peer::{Rival, patience};
pub(super) use self::tally::News;
use self::tally::Tally;
use super::claims::{Class, may_run};
use super::{Node, Stage, Timings};
use crate::kernel::election::Place;
use crate::kernel::id::{PeerId, TaskId};
use crate::kernel::io::{Notice, Output, Presence, Signed};
use crate::kernel::task::Workload;

/// The most peers of which a presence is remembered. Members only are, so this bounds a mesh, not an attacker.
const MAX_PEERS: usize = 4096;

/// Beats that a member with a fresh connection has for its first presence, before tasks are claimed without counting
/// it among the candidates.
const GREETING_BEATS: u64 = 2;

/// Beats by the shortest rhythm that follow a change, so that one lost message does not keep it from anybody for long. Own
/// choice.
const BRISK_BEATS: u32 = 1;

/// A member that has just connected is waited for only where such are more than this part of those heard. Own choice: one
/// of many candidates makes hardly any task another's, and in a large mesh somebody connects all the time.
const AWAITED_SHARE: usize = 8;

/// Where so few are heard, one that hears this node no more may decide alone that it is lost.
const FEW: usize = 2;

/// What each member heard adds to the wait before a node says that it hears somebody no more, or again, in milliseconds:
/// in a large mesh many are lost at a time, and are told of together. Half of the grace after a closed connection at most.
const TOLD_TOGETHER: u64 = 2;

/// How many are asked for what others have said before the rest of it is waited for.
pub(super) const GREETING_TRIES: u32 = 3;

/// How late this node may look before what it did not hear meanwhile is its own fault, in milliseconds. Own choice: a
/// loaded host lets nobody wait for so long, a stopped one does.
const LATE: u64 = 500;

#[derive(Debug)]
pub(super) struct Peers {
    /// Peers with a connection, and since when.
    connected: BTreeMap<PeerId, u64>,
    /// Those of them that were not heard when they connected, nor since.
    fresh: BTreeMap<PeerId, u64>,
    /// When the last connection to a peer was closed, if nothing was heard of it since.
    closed: BTreeMap<PeerId, u64>,
    peers: BTreeMap<PeerId, Peer>,
    tally: Tally,
    juries: Juries,
    /// Peers of which something is another since the claims were looked at: what they say, or whether they are heard.
    stirred: BTreeSet<PeerId>,
    /// Holders whose tasks were missed of late, and since when they were doubted.
    doubts: BTreeMap<PeerId, u64>,
    /// When somebody is asked for the presences that are lacking, and how often that was tried.
    pub(super) ask_at: Option<u64>,
    pub(super) asked: u32,
    beat: u64,
    next_beat: u64,
    /// Beats by the shortest rhythm that are still to come.
    brisk: u32,
    announce_at: Option<u64>,
    /// What is announced next is to be said again soon.
    weighty: bool,
    next_watch: u64,
}

impl Peers {
    pub(super) fn new(now: u64) -> Self {
        Self {
            connected: BTreeMap::new(),
            fresh: BTreeMap::new(),
            closed: BTreeMap::new(),
            peers: BTreeMap::new(),
            tally: Tally::default(),
            juries: Juries::default(),
            stirred: BTreeSet::new(),
            doubts: BTreeMap::new(),
            ask_at: None,
            asked: 0,
            beat: 0,
            next_beat: now,
            brisk: 0,
            announce_at: None,
            weighty: false,
            next_watch: u64::MAX,
        }
    }

    pub(super) fn next_wake(&self) -> u64 {
        let soon = self.announce_at.unwrap_or(u64::MAX).min(self.ask_at.unwrap_or(u64::MAX));
        self.next_beat.min(soon).min(self.next_watch)
    }

    pub(super) fn get(&self, peer: &PeerId) -> Option<&Peer> {
        self.peers.get(peer)
    }

    /// All members ever heard.
    pub(super) fn all(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values()
    }

    /// The members heard now.
    pub(super) fn heard(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values().filter(|peer| peer.heard)
    }

    /// How many are known, heard or not.
    pub(super) fn known(&self) -> usize {
        self.peers.len()
    }

    pub(super) fn hears(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.heard)
    }

    pub(super) fn is_connected(&self, peer: &PeerId) -> bool {
        self.connected.contains_key(peer)
    }

    pub(super) fn connected(&self) -> impl ExactSizeIterator<Item = &PeerId> {
        self.connected.keys()
    }

    /// Peers with a connection of which nothing was heard since it stands.
    pub(super) fn fresh(&self) -> impl Iterator<Item = &PeerId> {
        self.fresh.keys()
    }

    /// Whether most of those with a connection are heard.
    fn hears_most(&self) -> bool {
        self.tally.heard * 2 >= self.connected.len()
    }

    /// Until when members with a fresh connection are waited for to say what they offer, if there are such.
    pub(super) fn awaited(&self, is_member: impl Fn(&PeerId) -> bool, now: u64, timings: &Timings) -> Option<u64> {
        if self.fresh.len() * AWAITED_SHARE <= self.tally.heard {
            return None;
        }
        let until = self.fresh.iter().map(|(peer, since)| (peer, since + GREETING_BEATS * timings.beat));
        let until: Vec<u64> =
            until.filter(|(peer, until)| now < *until && is_member(peer)).map(|(_, until)| until).collect();
        until.iter().max().copied().filter(|_| until.len() * AWAITED_SHARE > self.tally.heard)
    }

    /// When the connection to a peer of which nothing was heard since was closed.
    pub(super) fn closed_at(&self, peer: &PeerId) -> Option<u64> {
        self.closed.get(peer).copied()
    }

    /// Who says that it runs a task, and in which attempt.
    pub(super) fn said_to_run(&self, task: &TaskId) -> impl Iterator<Item = (&PeerId, u32)> {
        self.tally.running.get(task).into_iter().flatten().map(|(peer, attempt)| (peer, *attempt))
    }

    /// Something that matters to claims has changed about a peer.
    pub(super) fn stir(&mut self, peer: PeerId) {
        self.stirred.insert(peer);
    }

    pub(super) fn take_stirred(&mut self) -> BTreeSet<PeerId> {
        std::mem::take(&mut self.stirred)
    }

    /// What may have changed who agrees that somebody is lost, since this was asked last.
    pub(super) fn take_news(&mut self) -> News {
        std::mem::take(&mut self.tally.news)
    }

    fn put(&mut self, id: PeerId, peer: Peer) {
        let (after, place) = (peer.said.clone(), peer.place);
        let before = self.peers.insert(id, peer);
        if before.is_none() {
            self.juries.make_room_for(&place);
        }
        let before = before.filter(|before| before.heard);
        self.tally.count(id, before.as_ref().map(Peer::presence), Some(&after.presence));
        self.fresh.remove(&id);
    }

    /// The peer is not heard any more. Answers what another life of it has said.
    fn lose(&mut self, id: PeerId) -> Option<Rival> {
        let peer = self.peers.get_mut(&id).filter(|peer| peer.heard)?;
        peer.heard = false;
        self.tally.count(id, Some(&peer.said.presence), None);
        self.stirred.insert(id);
        peer.rival.take()
    }

    /// Nothing of the peer is remembered any more. Returns whether it was heard.
    pub(super) fn expel(&mut self, peer: &PeerId) -> bool {
        let heard = self.hears(peer);
        self.lose(*peer);
        self.doubts.remove(peer);
        self.peers.remove(peer);
        self.juries.forget(peer);
        heard
    }

    /// What this node offers or runs has changed.
    pub(super) fn changed(&mut self, now: u64, timings: &Timings) {
        self.weighty = true;
        self.announce_by(now + timings.announce);
    }

    /// Whom this node hears has changed, in a way that matters to others.
    fn hears_otherwise(&mut self, now: u64, timings: &Timings) {
        let share = self.tally.heard as u64 * TOLD_TOGETHER;
        self.announce_by(now + share.min(timings.close_grace / 2).max(timings.announce));
    }

    /// What this node has written is told of with the entries themselves, too.
    pub(super) fn heads_changed(&mut self, now: u64, timings: &Timings) {
        self.announce_by(now + timings.heads);
    }

    /// Looks when the peer, which holds a task from now on, will be lost if it says nothing more.
    pub(super) fn expect(&mut self, peer: &PeerId, now: u64, timings: &Timings) {
        if self.hears(peer) {
            self.next_watch = self.next_watch.min(now + timings.failure);
        }
    }

    /// Somebody is asked by this time for what others have said.
    pub(super) fn ask_by(&mut self, at: u64) {
        self.ask_at = Some(self.ask_at.map_or(at, |due| due.min(at)));
    }

    /// The peer owes an answer: it is not heard before it says something again.
    pub(super) fn doubt(&mut self, peer: &PeerId, now: u64) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.last = 0;
            self.next_watch = now;
        }
    }

    /// How often this node says something: as often as anybody when it runs something, else the less often the more it
    /// hears.
    fn every(&self, idle: bool, timings: &Timings) -> u64 {
        let share = self.tally.heard as u64 * timings.idle_share;
        let may_rest = idle && self.tally.attentive == 0;
        if may_rest { share.min(timings.idle_beat).max(timings.beat) } else { timings.beat }
    }

    fn announce_by(&mut self, at: u64) {
        self.announce_at = Some(self.announce_at.map_or(at, |due| due.min(at)));
    }
}

impl Node {
    pub(super) fn on_connected(&mut self, peer: PeerId) {
        let (now, timings) = (self.now.mono, self.settings.timings);
        self.peers.connected.insert(peer, now);
        self.greet_newcomer(peer);
        if !self.peers.hears(&peer) {
            self.peers.fresh.insert(peer, now);
            self.peers.asked = 0;
            // Who hears most of the others waits for the newcomer to say something; who does not is the newcomer.
            let wait = if self.peers.hears_most() { 2 * timings.beat } else { timings.announce };
            self.peers.ask_by(now + wait);
        }
    }

    pub(super) fn on_disconnected(&mut self, peer: PeerId) {
        let (now, timings) = (self.now.mono, self.settings.timings);
        self.peers.connected.remove(&peer);
        self.peers.fresh.remove(&peer);
        self.peers.closed.insert(peer, now);
        self.peers.stir(peer);
        if self.peers.closed.len() > MAX_PEERS {
            self.peers.closed.pop_first();
        }
        self.peers.next_watch = self.peers.next_watch.min(now + timings.close_grace);
        self.custody.look_at_those_of(&peer);
        self.sync.forget(&peer);
        // Whoever hears this node only over that connection shall hear it over others before it takes it to be lost.
        // Where there are more, those vouch for it, and it hears that it is doubted.
        if self.peers.tally.heard <= FEW {
            self.peers.changed(now, &timings);
        }
    }

    /// Takes a presence whose signature has been checked.
    pub(super) fn on_presence(&mut self, said: Arc<Signed>) {
        self.take_presence(said, self.now.mono);
    }

    /// Takes what a peer said that was heard at that time, here or by somebody else.
    fn take_presence(&mut self, said: Arc<Signed>, at: u64) {
        let said = self.within_its_right(said);
        let presence = &said.presence;
        let peer = presence.peer;
        let known = self.peers.peers.get(&peer);
        let stale = known.is_some_and(|known| {
            let again = known.presence().life == presence.life;
            // Another life shows once the former one is not heard any more. A replay shows nothing that was shown
            // before; one of a life that was not heard here at its time is found out when the true one beats on.
            let last = if again { Some(known.presence().beat) } else { known.last_beat_of(presence.life) };
            last.is_some_and(|last| last >= presence.beat) || (!again && known.heard)
        });
        if stale {
            return self.take_rival(Rival { said, at });
        }
        if peer == self.me.peer() || (known.is_none() && self.peers.peers.len() >= MAX_PEERS) {
            return;
        }
        // Anybody with a connection can make up names of peers, and heads.
        let is_member = known.is_some() || self.clock.members().contains(&peer);
        if is_member || self.stage == Stage::Joining {
            self.note_heads(peer, presence);
        }
        let (now, timings) = (self.now.mono, self.settings.timings);
        let is_usual = |known: &&mut Peer| known.heard && known.says_nothing_new(presence);
        if let Some(known) = self.peers.peers.get_mut(&peer).filter(is_usual) {
            self.custody.heard(presence, at);
            known.beats_on(said, at);
            if self.peers.closed.remove(&peer).is_some() {
                self.peers.stir(peer);
                self.claims.look_again();
            }
            return;
        }
        if !is_member {
            return;
        }
        let known = self.peers.peers.get(&peer);
        // Who doubts somebody that it did not doubt before; a newcomer hears nobody yet.
        let same_life = |known: &&Peer| known.presence().life == presence.life;
        let former = known.filter(same_life).filter(|known| known.presence().unheard != presence.unheard);
        let doubts = |one: &PeerId| {
            presence.unheard.contains(one) && former.is_some_and(|known| !known.presence().unheard.contains(one))
        };
        // Whoever hears a holder that another doubts says so, and so does the doubted one, where both are asked: in a large
        // mesh somebody always doubts somebody, and would else be answered by all who hear it, all the time.
        let counts = |one: &PeerId| self.peers.is_asked(&peer, one, &self.me);
        let hears = |one: &PeerId| self.peers.hears(one) && self.peers.judges(one, &self.me) && counts(one);
        let me = self.me.peer();
        let objects = (doubts(&me) && counts(&me))
            || (former.is_some() && self.custody.holders().any(|one| doubts(one) && hears(one)));
        self.custody.heard(presence, at);
        let heard = known.is_some_and(|known| known.heard);
        let matters = known.is_none_or(|known| {
            let (a, b) = (known.presence(), presence);
            !heard
                || (&a.offer, a.free, a.draining, a.cordoned, &a.running)
                    != (&b.offer, b.free, b.draining, b.cordoned, &b.running)
        });
        // Whom somebody wants to hear often says at once that it will be.
        let rhythm = known.is_some_and(|known| known.presence().attentive != presence.attentive);
        let returns =
            known.is_some() && !heard && self.custody.held_by(&peer) > 0 && self.peers.judges(&peer, &self.me);
        let since = known.filter(|_| heard).map_or(now, |known| known.since);
        let place = known.map_or_else(|| Place::of(peer), |known| known.place);
        let past = known.map(|known| known.past_before(presence)).unwrap_or_default();
        let reopened = self.peers.closed.remove(&peer).is_some();
        self.peers.put(peer, Peer { place, said, last: at, since, heard: true, past, rival: None });
        self.peers.next_watch = self.peers.next_watch.min(now + timings.failure);
        if !heard {
            self.notice(Notice::PeerHeard { peer });
        }
        if rhythm {
            self.peers.changed(now, &timings);
        } else if objects || returns {
            self.peers.hears_otherwise(now, &timings);
        }
        if matters || reopened {
            self.peers.stir(peer);
            self.claims.look_again();
        }
    }

    /// Another life of a peer speaks while this one is heard, as far as one can tell: a replay does so, and so does one that
    /// was started again of whose end nothing was noticed here. Which it is shows when this one does not beat on.
    fn take_rival(&mut self, rival: Rival) {
        let known = self.peers.peers.get_mut(&rival.said.presence.peer);
        if let Some(known) = known.filter(|known| known.heard && known.may_be_over(&rival.said.presence)) {
            known.rival = Some(rival);
            let due = known.overtaken_at(&self.settings.timings);
            self.peers.next_watch = self.peers.next_watch.min(due);
        }
    }

    /// Takes what another node has heard so many milliseconds ago of a peer that is not heard here.
    pub(super) fn take_relayed(&mut self, said: Arc<Signed>, ago: u64) {
        let (now, timings, peer) = (self.now.mono, self.settings.timings, said.presence.peer);
        let at = now.saturating_sub(ago);
        let is_over = self.peers.closed_at(&peer).is_some_and(|closed| closed >= at);
        if self.peers.hears(&peer) || is_over || at + patience(&said.presence, &timings) <= now {
            return;
        }
        // Nothing new, but somebody has heard it since it was taken to be lost here.
        let again =
            |known: &&Peer| (known.presence().life, known.presence().beat) == (said.presence.life, said.presence.beat);
        match self.peers.peers.get(&peer).filter(again) {
            Some(known) => {
                let known = Peer { last: known.last.max(at), since: now, heard: true, ..known.clone() };
                self.custody.heard(&said.presence, at);
                self.peers.put(peer, known);
                self.peers.next_watch = now;
                self.peers.stir(peer);
                self.notice(Notice::PeerHeard { peer });
            }
            None => self.take_presence(said, at),
        }
    }

    /// This node itself was not there from `due` until now, stopped or starved: what it has not heard meanwhile is no
    /// sign of anybody's loss. Everybody gets a beat's time to be heard.
    pub(super) fn allow_for_lateness(&mut self, due: u64) {
        let (now, timings) = (self.now.mono, self.settings.timings);
        if now < due.saturating_add(LATE) {
            return;
        }
        for peer in self.peers.peers.values_mut().filter(|peer| peer.heard) {
            let heard = (now + peer.beat(&timings) + LATE).saturating_sub(peer.patience(&timings));
            peer.last = peer.last.max(heard.min(now));
        }
        self.custody.allow((now + timings.beat + LATE).saturating_sub(timings.failure));
    }

    /// Notices who is not heard any more.
    pub(super) fn watch_peers(&mut self) {
        self.give_up_overdue_turns();
        let (now, timings) = (self.now.mono, self.settings.timings);
        if now < self.peers.next_watch {
            return;
        }
        self.peers.take_doubts(&self.me, now, &timings);
        let doubted = self.peers.doubts.values().map(|at| at + timings.beat).min();
        let (mut lost, mut next) = (Vec::new(), doubted.unwrap_or(u64::MAX));
        for (id, peer) in &self.peers.peers {
            if !peer.heard {
                continue;
            }
            let closed = self.peers.closed.get(id).map(|at| at + timings.close_grace);
            let silent = match self.custody.holds_since(id) {
                Some(since) => peer.last.max(since) + timings.failure,
                None => peer.last + peer.patience(&timings),
            };
            let due = silent.min(closed.unwrap_or(u64::MAX)).min(peer.overtaken_at(&timings));
            if due <= now {
                lost.push(*id);
            } else {
                next = next.min(due);
            }
        }
        self.peers.next_watch = next;
        let mut rivals = Vec::new();
        for peer in &lost {
            rivals.extend(self.peers.lose(*peer));
        }
        if !lost.is_empty() {
            self.sync.look_at_turns(now);
            self.give_up_overdue_turns();
        }
        for peer in lost {
            self.notice(Notice::PeerLost { peer });
            // Others want to know only of whom it matters to them: who holds something.
            if self.custody.held_by(&peer) > 0 && self.peers.judges(&peer, &self.me) {
                self.peers.hears_otherwise(now, &timings);
            }
            self.custody.look_at_those_of(&peer);
            self.claims.look_again();
        }
        for Rival { said, at } in rivals {
            self.take_presence(said, at);
        }
    }

    /// Says what there is to say of this node, when it is time.
    pub(super) fn announce(&mut self) {
        let now = self.now.mono;
        if now < self.peers.next_beat && self.peers.announce_at.is_none_or(|at| now < at) {
            return;
        }
        let timings = self.settings.timings;
        let every = self.every();
        self.peers.announce_at = None;
        let weighty = std::mem::take(&mut self.peers.weighty);
        self.peers.brisk = if weighty { BRISK_BEATS } else { self.peers.brisk.saturating_sub(1) };
        self.peers.next_beat = now + if self.peers.brisk > 0 { timings.beat } else { every };
        if let Some(presence) = self.next_presence() {
            self.outbox.push(Output::Announce(Box::new(presence)));
        }
    }

    fn every(&self) -> u64 {
        self.peers.every(self.custody.occupied() == 0, &self.settings.timings)
    }

    /// What this node says of itself now, if it is a member.
    pub(super) fn next_presence(&mut self) -> Option<Presence> {
        let me = self.me.peer();
        if !self.clock.members().contains(&me) {
            return None;
        }
        self.peers.beat += 1;
        let others = self.clock.members().peers().filter(|peer| **peer != me);
        Some(Presence {
            peer: me,
            life: self.settings.seed,
            beat: self.peers.beat,
            every: u32::try_from(self.every()).unwrap_or(u32::MAX),
            attentive: self.custody.has_careful_sources(),
            heads: self.clock.heads().clone(),
            offer: self.offer.clone(),
            // None for whom knows of no cordons.
            free: if self.custody.cordoned() { 0 } else { self.free_slots() + self.jobs.split.spare },
            draining: self.custody.draining(),
            cordoned: self.custody.cordoned(),
            running: self.custody.fences(),
            unheard: others.filter(|peer| !self.peers.hears(peer)).copied().collect(),
            discovered: self.duty.told(self.now.mono),
            covers: self.covers(),
            version: self.settings.version.clone(),
        })
    }

    /// Whether a host with this offer may run the workload.
    pub(super) fn can_run(offer: &super::Offer, workload: &Workload) -> bool {
        may_run(&workload.labels, &workload.repository, offer)
    }

    /// The members that may run what asks for these labels and that repository, and have a slot free, as far as one can
    /// tell from here.
    pub(super) fn free_candidates(&self, class: &Class) -> Vec<Place> {
        self.peers.heard().filter(|peer| self.is_free_candidate(peer, class)).map(|peer| peer.place).collect()
    }

    /// Whether a peer is one of them.
    pub(super) fn is_free_candidate(&self, peer: &Peer, class: &Class) -> bool {
        let presence = peer.presence();
        peer.heard
            && !presence.draining
            && !presence.cordoned
            && presence.free as usize > self.custody.claimed_since(presence)
            && !self.peers.closed.contains_key(&presence.peer)
            && class.may_run_at(&presence.offer)
    }
}

#[cfg(test)]
mod tests;
