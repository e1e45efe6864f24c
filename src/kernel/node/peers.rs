//! Who is there: connections, presences, and what this node says of itself.
//!
//! Who runs something, and who holds a task by the ledger, is expected to beat by the shortest rhythm; only a node that
//! has nothing to do beats more slowly the more members it hears. Its death shows later, then, which costs time and
//! nothing else: a task whose nearest candidate is a dead idle node waits until that one's turn is over and its answer
//! overdue (`sync`), a source's duty passes on later, a slot is thought free that is not there. Nothing that is decided
//! about a task somebody holds depends on it: life is the task in its holder's presence (`custody`). Only who has to
//! know at any time whether it hears most of the members (`quorum`) is heard by nodes that do not rest.

use std::collections::BTreeMap;

use super::{Node, Timings};
use crate::kernel::election::Place;
use crate::kernel::id::PeerId;
use crate::kernel::io::{Notice, Output, Presence};
use crate::kernel::requests::serve_all;
use crate::kernel::task::Workload;

/// The most peers of which a presence is remembered. Members only are, so this bounds a mesh, not an attacker.
const MAX_PEERS: usize = 4096;

/// Beats that a member with a fresh connection has for its first presence, before tasks are claimed without counting
/// it among the candidates.
const GREETING_BEATS: u64 = 2;

/// Beats that may be lost before their peer is taken to be lost: those that fit into the failure time.
const LOST_BEATS: u64 = 3;

/// Beats by the shortest rhythm that follow a change, so that one lost message does not keep it from anybody for long.
const BRISK_BEATS: u32 = 2;

/// How much more often than idle nodes beat they tell of what is new to them. Own choice: of 100 nodes each does so
/// every 2.5 s, and one that asks some peer every 5 s learns it anyway.
const TELLERS: u64 = 4;

/// How late this node may look before what it did not hear meanwhile is its own fault, in milliseconds. Own choice: a
/// loaded host lets nobody wait for so long, a stopped one does.
const LATE: u64 = 500;

/// How many former lives of a peer are remembered.
const MAX_PAST: usize = 16;

/// A member whose presence has been heard.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) place: Place,
    pub(super) presence: Presence,
    /// When the latest presence came.
    pub(super) last: u64,
    /// Since when it has been heard without a break.
    pub(super) since: u64,
    heard: bool,
    /// Former lives and the last beat heard of each, the latest last.
    past: Vec<(u64, u64)>,
}

impl Peer {
    /// How long it may be silent before it is taken to be lost.
    fn patience(&self, timings: &Timings) -> u64 {
        (LOST_BEATS * u64::from(self.presence.every).min(timings.idle_beat)).max(timings.failure)
    }

    fn misses(&self, of: &PeerId) -> bool {
        self.presence.unheard.contains(of)
    }

    /// Whether it has said how it stands with a peer that is doubted since then.
    fn has_spoken(&self, of: &PeerId, doubted: u64) -> bool {
        self.misses(of) || self.last >= doubted
    }

    fn last_beat_of(&self, life: u64) -> Option<u64> {
        self.past.iter().find(|(past, _)| *past == life).map(|(_, beat)| *beat)
    }
}

#[derive(Debug)]
pub(super) struct Peers {
    /// Peers with a connection, and since when.
    connected: BTreeMap<PeerId, u64>,
    /// When the last connection to a peer was closed, if nothing was heard of it since.
    closed: BTreeMap<PeerId, u64>,
    peers: BTreeMap<PeerId, Peer>,
    /// Holders whose tasks were missed of late, and since when they were doubted.
    doubts: BTreeMap<PeerId, u64>,
    beat: u64,
    next_beat: u64,
    /// Beats by the shortest rhythm that are still to come.
    brisk: u32,
    announce_at: Option<u64>,
    next_watch: u64,
}

impl Peers {
    pub(super) fn new(now: u64) -> Self {
        Self {
            connected: BTreeMap::new(),
            closed: BTreeMap::new(),
            peers: BTreeMap::new(),
            doubts: BTreeMap::new(),
            beat: 0,
            next_beat: now,
            brisk: 0,
            announce_at: None,
            next_watch: u64::MAX,
        }
    }

    pub(super) fn next_wake(&self) -> u64 {
        self.next_beat.min(self.announce_at.unwrap_or(u64::MAX)).min(self.next_watch)
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

    pub(super) fn hears(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.heard)
    }

    pub(super) fn is_connected(&self, peer: &PeerId) -> bool {
        self.connected.contains_key(peer)
    }

    pub(super) fn connected(&self) -> impl Iterator<Item = &PeerId> {
        self.connected.keys()
    }

    /// Until when a member with a fresh connection is waited for to say what it offers, if there is one.
    pub(super) fn awaited(&self, is_member: impl Fn(&PeerId) -> bool, now: u64, timings: &Timings) -> Option<u64> {
        let silent = self.connected.iter().filter(|(peer, _)| !self.hears(peer) && is_member(peer));
        silent.map(|(_, since)| since + GREETING_BEATS * timings.beat).filter(|until| now < *until).max()
    }

    /// When the connection to a peer of which nothing was heard since was closed.
    pub(super) fn closed_at(&self, peer: &PeerId) -> Option<u64> {
        self.closed.get(peer).copied()
    }

    /// Whether those heard agree that the peer is not there: more than half of them, where they are more than one.
    /// `doubted` is when it should have been heard here at the latest. An idle node says seldom whom it hears, so who
    /// hears a doubted one says so at once (`Node::on_presence`), and a beat later whoever has said nothing since is not
    /// counted: it is cut off as well, or nearly so.
    pub(super) fn others_agree_on_loss(&self, of: &PeerId, doubted: u64, now: u64, timings: &Timings) -> bool {
        let asked = now >= doubted + timings.beat;
        let (mut others, mut missing) = (0, 0);
        for other in self.heard().filter(|other| other.place.peer() != *of) {
            missing += usize::from(other.misses(of));
            others += usize::from(!asked || other.has_spoken(of, doubted));
        }
        others <= 1 || missing * 2 > others
    }

    /// Those who say nothing of a doubted holder within a beat, although they are asked, are not heard either: the task that
    /// it held shall not wait for their turn.
    pub(super) fn doubt_the_silent(&mut self, of: PeerId, doubted: u64, timings: &Timings) {
        self.doubts.insert(of, doubted);
        self.next_watch = self.next_watch.min(doubted + timings.beat);
    }

    fn take_doubts(&mut self, now: u64, timings: &Timings) {
        let (due, later) = std::mem::take(&mut self.doubts).into_iter().partition(|(_, at)| at + timings.beat <= now);
        self.doubts = later;
        let due: BTreeMap<PeerId, u64> = due;
        for other in self.peers.values_mut().filter(|other| other.heard) {
            if due.iter().any(|(of, doubted)| !other.has_spoken(of, *doubted)) {
                other.last = 0;
            }
        }
    }

    /// What this node offers or runs has changed.
    pub(super) fn changed(&mut self, now: u64, timings: &Timings) {
        self.announce_by(now + timings.announce);
    }

    /// Somebody has come or gone. In a large mesh many do at a time, and are told of together, well within the grace
    /// after a closed connection.
    fn met(&mut self, now: u64, timings: &Timings) {
        let share = self.heard().count() as u64 * timings.announce;
        self.announce_by(now + share.min(timings.close_grace / 2).max(timings.announce));
    }

    pub(super) fn heads_changed(&mut self, now: u64, timings: &Timings) {
        self.announce_by(now + timings.heads);
    }

    /// Looks again who is heard: it has changed by which rhythm somebody is expected to beat.
    pub(super) fn watch_now(&mut self, now: u64) {
        self.next_watch = self.next_watch.min(now);
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
        let share = self.heard().count() as u64 * timings.idle_share;
        let may_rest = idle && !self.heard().any(|peer| peer.presence.attentive);
        if may_rest { share.min(timings.idle_beat).max(timings.beat) } else { timings.beat }
    }

    /// The author of what has come tells of it at once; that it is here too is told within the shortest beat, for those
    /// who have missed both. In a large mesh there are many to tell it, and each does so the less often.
    pub(super) fn heads_learnt(&mut self, now: u64, timings: &Timings) {
        let beat = self.every(true, timings) / TELLERS;
        self.next_beat = self.next_beat.min(now + beat.max(timings.beat));
    }

    fn announce_by(&mut self, at: u64) {
        self.announce_at = Some(self.announce_at.map_or(at, |due| due.min(at)));
    }
}

impl Node {
    pub(super) fn on_connected(&mut self, peer: PeerId) {
        self.peers.connected.insert(peer, self.now.mono);
        self.sync.greet(peer);
        // A newcomer should not wait a beat to learn who is here.
        self.peers.met(self.now.mono, &self.settings.timings);
    }

    pub(super) fn on_disconnected(&mut self, peer: PeerId) {
        self.peers.connected.remove(&peer);
        self.peers.closed.insert(peer, self.now.mono);
        if self.peers.closed.len() > MAX_PEERS {
            self.peers.closed.pop_first();
        }
        self.peers.next_watch = self.peers.next_watch.min(self.now.mono + self.settings.timings.close_grace);
        self.custody.watch_by(self.now.mono + self.settings.timings.close_grace);
        self.sync.forget(&peer);
        // Whoever hears this node only over that connection shall hear it over others before it takes it to be lost.
        self.peers.met(self.now.mono, &self.settings.timings);
    }

    /// Takes a presence whose signature has been checked.
    pub(super) fn on_presence(&mut self, presence: Presence) {
        let peer = presence.peer;
        let known = self.peers.peers.get(&peer);
        let stale = known.is_some_and(|known| {
            let again = known.presence.life == presence.life;
            // Another life shows once the former one is not heard any more. A replay shows nothing that was shown
            // before; one of a life that was not heard here at its time is found out when the true one beats on.
            let last = if again { Some(known.presence.beat) } else { known.last_beat_of(presence.life) };
            last.is_some_and(|last| last >= presence.beat) || (!again && known.heard)
        });
        let stranger = !self.clock.members().contains(&peer);
        if peer == self.me.peer() || stale || (known.is_none() && self.peers.peers.len() >= MAX_PEERS) {
            return;
        }
        self.note_heads(peer, &presence);
        if stranger {
            return;
        }
        let now = self.now.mono;
        let known = self.peers.peers.get(&peer);
        self.peers.closed.remove(&peer);
        // Whoever hears a holder that another doubts says so, and so does the doubted one.
        let doubted =
            presence.unheard.iter().filter(|one| known.is_none_or(|known| !known.presence.unheard.contains(one)));
        let hears = |one: &PeerId| self.peers.hears(one) && self.custody.held_by(one) > 0;
        let objects =
            doubted.into_iter().any(|one| hears(one) || (*one == self.me.peer() && self.custody.occupied() > 0));
        self.custody.heard(&presence, now);
        let heard = known.is_some_and(|known| known.heard);
        let matters = known.is_none_or(|known| {
            let (a, b) = (&known.presence, &presence);
            !heard
                || (&a.offer, a.free, a.draining, &a.running, &a.unheard)
                    != (&b.offer, b.free, b.draining, &b.running, &b.unheard)
        });
        // Whom somebody wants to hear often says at once that it will be.
        let rhythm = known.is_some_and(|known| known.presence.attentive != presence.attentive);
        let since = known.filter(|_| heard).map_or(now, |known| known.since);
        let place = known.map_or_else(|| Place::of(peer), |known| known.place);
        let mut past = known.map(|known| known.past.clone()).unwrap_or_default();
        if let Some(known) = known
            && known.presence.life != presence.life
        {
            past.retain(|(life, _)| *life != presence.life);
            past.push((known.presence.life, known.presence.beat));
            past.drain(..past.len().saturating_sub(MAX_PAST));
        }
        self.peers.peers.insert(peer, Peer { place, presence, last: now, since, heard: true, past });
        self.peers.next_watch = self.peers.next_watch.min(now + self.settings.timings.failure);
        if !heard {
            self.notice(Notice::PeerHeard { peer });
        }
        if !heard || objects || rhythm {
            self.peers.changed(now, &self.settings.timings);
        }
        if matters {
            self.claims.look_again();
            self.custody.watch_by(now);
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
            let beat = u64::from(peer.presence.every).clamp(timings.beat, timings.idle_beat);
            let heard = (now + beat + LATE).saturating_sub(peer.patience(&timings));
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
        self.peers.take_doubts(now, &timings);
        let doubted = self.peers.doubts.values().map(|at| at + timings.beat).min();
        let (mut lost, mut next) = (Vec::new(), doubted.unwrap_or(u64::MAX));
        for (id, peer) in &mut self.peers.peers {
            if !peer.heard {
                continue;
            }
            let closed = self.peers.closed.get(id).map(|at| at + timings.close_grace);
            let silent = match self.custody.holds_since(id) {
                Some(since) => peer.last.max(since) + timings.failure,
                None => peer.last + peer.patience(&timings),
            };
            let due = silent.min(closed.unwrap_or(u64::MAX));
            if due <= now {
                peer.heard = false;
                lost.push(*id);
            } else {
                next = next.min(due);
            }
        }
        self.peers.next_watch = next;
        if !lost.is_empty() {
            self.sync.look_at_turns(now);
            self.give_up_overdue_turns();
        }
        for peer in lost {
            self.notice(Notice::PeerLost { peer });
            self.peers.changed(now, &timings);
            self.claims.look_again();
            self.custody.watch_by(now);
        }
    }

    /// Says what there is to say of this node, when it is time.
    pub(super) fn announce(&mut self) {
        let now = self.now.mono;
        if now < self.peers.next_beat && self.peers.announce_at.is_none_or(|at| now < at) {
            return;
        }
        let timings = self.settings.timings;
        let every = self.peers.every(self.custody.occupied() == 0, &timings);
        let changed = self.peers.announce_at.take().is_some();
        self.peers.brisk = if changed { BRISK_BEATS } else { self.peers.brisk.saturating_sub(1) };
        self.peers.next_beat = now + if self.peers.brisk > 0 { timings.beat } else { every };
        self.peers.beat += 1;
        let members = self.clock.members();
        if !members.contains(&self.me.peer()) {
            return;
        }
        let others = members.all().map(|member| member.peer).filter(|peer| *peer != self.me.peer());
        let presence = Presence {
            peer: self.me.peer(),
            life: self.settings.seed,
            beat: self.peers.beat,
            every: u32::try_from(every).unwrap_or(u32::MAX),
            attentive: self.custody.has_careful_sources(),
            heads: self.clock.heads().clone(),
            offer: self.offer.clone(),
            free: self.free_slots() + self.jobs.split.spare,
            draining: self.custody.draining(),
            running: self.custody.fences(),
            unheard: others.filter(|peer| !self.peers.hears(peer)).collect(),
            discovered: self.duty.told(now, self.settings.timings.discovery),
            version: self.settings.version.clone(),
        };
        self.outbox.push(Output::Announce(Box::new(presence)));
    }

    /// Whether a host with this offer may run the workload.
    pub(super) fn can_run(offer: &super::Offer, workload: &Workload) -> bool {
        serve_all(&offer.labels, &workload.labels)
            && offer.sources.iter().any(|source| workload.repository.is_of(source))
    }

    /// The heard members that may run the workload and have a slot free, as far as one can tell from here.
    pub(super) fn free_candidates(&self, workload: &Workload) -> Vec<Place> {
        let may = |peer: &&Peer| {
            let presence = &peer.presence;
            !presence.draining
                && presence.free > 0
                && !self.peers.closed.contains_key(&presence.peer)
                && self.custody.held_by(&presence.peer) < presence.offer.slots as usize
                && Self::can_run(&presence.offer, workload)
        };
        self.peers.heard().filter(may).map(|peer| peer.place).collect()
    }
}

#[cfg(test)]
mod tests;
