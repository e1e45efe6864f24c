//! Getting what is missing: one question at a time, to a peer that is known to have more.
//!
//! Gossip is a hint, this is the truth. A node asks whoever it has just met, whoever named a head that is not here, and
//! whoever brought an entry whose parents are missing.

mod told;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use self::told::{MAX_ASKED, Told};
use super::{Entrance, Node, Stage};
use crate::kernel::clock::{Placing, Refusal};
use crate::kernel::entry::Entry;
use crate::kernel::id::{Cid, Digest, PeerId};
use crate::kernel::io::{Notice, Output, Presence, Reply, Request, Response, Token};

/// The most entries that one answer names; the daemon cuts a page by its bytes besides.
const MAX_LISTED: usize = 4096;
/// The most entries asked for by name at once.
const MAX_WANTED: usize = 256;
/// How many peers that have just connected wait to be asked at most.
const GREETED: usize = 3;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    Sync,
    Snapshot,
    Join,
    Turn,
    Presences,
}

#[derive(Debug, Default)]
pub(super) struct Sync {
    /// Questions whose answers are awaited, and when they were put.
    open: BTreeMap<Token, (PeerId, Asked, u64)>,
    syncing: Option<Token>,
    /// When somebody else is asked although that one has not answered yet.
    patience: u64,
    /// The one before was not answered in time, nor any since.
    is_slow: bool,
    /// Whom to ask next.
    next: VecDeque<PeerId>,
    /// Whom it asked in vain since the last pause.
    tried: BTreeSet<PeerId>,
    /// Heads that peers named and that are not here.
    told: Told,
    retry_at: Option<u64>,
    /// When those are asked who named heads that have not come meanwhile.
    ask_tellers_at: Option<u64>,
    /// When the first question of turn that is open has waited too long.
    overdue_at: Option<u64>,
    /// When some peer is asked although nothing seems to be missing.
    next_round: u64,
    rounds: u64,
    /// A member has said that this node is one now.
    admitted: bool,
    /// Whether some peer has given everything it had since this node started.
    complete: bool,
    /// How many peers have given all they have while what the quarantine waits for did not come.
    fruitless: u32,
    /// The smoothed round trip of questions, in milliseconds, and how far they are from it on average.
    round_trip: Option<(u64, u64)>,
}

impl Sync {
    pub(super) fn next_wake(&self) -> u64 {
        // An open question is answered or given up by the transport; nothing is asked before that.
        let tellers = self.ask_tellers_at.unwrap_or(u64::MAX).max(self.retry_at.unwrap_or(0));
        let asks =
            if self.syncing.is_some() { self.patience } else { self.retry_at.unwrap_or(self.next_round).min(tellers) };
        asks.min(self.overdue_at.unwrap_or(u64::MAX))
    }

    pub(super) const fn complete(&self) -> bool {
        self.complete
    }

    /// Whether everything that peers said they have is here, but for what they could not deliver.
    pub(super) const fn has_all_it_was_told_of(&self) -> bool {
        !self.told.awaits_any()
    }

    /// The same but for what was told of within so many milliseconds, which is on its way.
    pub(super) fn has_all_but_the_newest(&self, now: u64, age: u64) -> bool {
        !self.told.awaits_any_since(now, age)
    }

    pub(super) fn told(&self) -> usize {
        self.told.len()
    }

    /// A peer has given all it has: most of those that were to be asked only because they connected need not be.
    fn ask_no_more_than_needed(&mut self) {
        if self.complete && self.next.len() > GREETED && self.told.is_empty() {
            self.next.truncate(GREETED);
        }
    }

    pub(super) fn round_trip(&self) -> Option<u64> {
        self.round_trip.map(|(smooth, _)| smooth)
    }

    /// How long a question may take before somebody else is asked too, in milliseconds: RFC 6298's wait. Twice that where
    /// the one before has taken longer, so that a slow link is not filled with the same pages; no more than twice, or who
    /// was cut off for a while would wait long for one lost message when it is back.
    fn patience_for_one(&self, least: u64) -> u64 {
        let usual = self.round_trip.map_or(0, |(smooth, off)| smooth + 4 * off).max(least);
        if self.is_slow { 2 * usual } else { usual }
    }

    /// Somebody is not heard any more who may owe an answer.
    pub(super) fn look_at_turns(&mut self, now: u64) {
        self.overdue_at = self.overdue_at.map(|_| now);
    }

    pub(super) fn greet(&mut self, peer: PeerId) {
        if !self.next.contains(&peer) {
            self.next.push_back(peer);
        }
    }

    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.next.retain(|next| next != peer);
    }

    /// Asks nobody before that time.
    pub(super) const fn pause(&mut self, until: u64) {
        self.retry_at = Some(until);
    }

    /// What peers said they have is asked for again.
    pub(super) fn begin_anew(&mut self) {
        self.told = Told::default();
        self.complete = false;
    }

    /// A number below `of`, another each time; 0 where there is none.
    fn draw(&mut self, seed: u64, of: usize) -> usize {
        self.rounds += 1;
        let draw = Digest::of(&[&seed.to_be_bytes(), &self.rounds.to_be_bytes()]);
        usize::from(u16::from_be_bytes([draw.0[0], draw.0[1]])) % of.max(1)
    }

    fn heard_answer(&mut self, asked_at: u64, now: u64) {
        let sample = now - asked_at;
        self.is_slow = false;
        // RFC 6298's smoothing, alpha = 1/8, beta = 1/4.
        self.round_trip = Some(self.round_trip.map_or((sample, sample / 2), |(smooth, off)| {
            ((7 * smooth + sample) / 8, (3 * off + smooth.abs_diff(sample)) / 4)
        }));
    }
}

impl Node {
    /// A peer that has just connected is asked what it has; in a large mesh only a few are, unless this node is still
    /// looking for somebody who admits it: what the others have, their presences tell.
    pub(super) fn greet_newcomer(&mut self, peer: PeerId) {
        if self.stage == Stage::Joining || self.sync.next.len() < GREETED {
            self.sync.greet(peer);
        }
    }

    /// Entries that came by gossip or on a page.
    pub(super) fn on_entries(&mut self, from: PeerId, entries: Vec<Arc<Entry>>) {
        self.take_entries(from, entries);
    }

    /// Places entries and all that waited for them. `true` when anything new was placed.
    fn take_entries(&mut self, from: PeerId, entries: Vec<Arc<Entry>>) -> bool {
        let mut any = false;
        let mut waiting: VecDeque<(Arc<Entry>, PeerId)> = entries.into_iter().map(|entry| (entry, from)).collect();
        while let Some((entry, from)) = waiting.pop_front() {
            let cid = entry.cid();
            self.heed_revocation(&entry);
            // An entry that a peer named as a head may be a void one that counting entries stand on.
            let wanted = self.quarantine.wants(&cid);
            let (placing, effects) = self.clock.place(&entry, wanted);
            match placing {
                Placing::Known => {
                    self.sync.told.remove(&cid);
                }
                Placing::Placed { .. } => {
                    any = true;
                    self.sync.told.remove(&cid);
                    self.added.push(entry.clone());
                    self.digest(&entry, &effects);
                    self.claims.look_again();
                    if let Some(fork) = effects.fork {
                        self.notice(Notice::Equivocation {
                            author: fork.author,
                            sequence: fork.sequence,
                            first: fork.first,
                            second: fork.second,
                        });
                    }
                    waiting.extend(self.quarantine.arrived(&cid));
                }
                Placing::Missing(missing) => {
                    if self.quarantine.keep(entry, from, missing) {
                        self.sync.greet(from);
                    }
                }
                Placing::Refused(refusal) => {
                    self.sync.told.remove(&cid);
                    // Claims may have waited for this one.
                    self.claims.look_again();
                    self.quarantine.refused(&cid);
                    self.keep_revocations_of(&entry);
                    if !matches!(refusal, Refusal::Void | Refusal::Past) {
                        self.notice(Notice::Refused { from, why: format!("{cid}: {refusal}") });
                    }
                }
            }
        }
        any
    }

    /// Takes note of heads that a presence names and that are not here.
    pub(super) fn note_heads(&mut self, peer: PeerId, presence: &Presence) {
        // What the peer has left out since was not delivered and is not there any more.
        if self.sync.told.leave_out(&peer, &presence.heads) {
            self.claims.look_again();
        }
        let mut unknown = false;
        for head in &presence.heads {
            if !self.sync.told.is_full() && !self.clock.contains(head) {
                unknown |= self.sync.told.note(*head, peer, self.now.mono);
            }
        }
        if unknown {
            // Most are on their way: a presence may overtake the entries that it names.
            let at = self.now.mono + self.settings.timings.heads;
            self.sync.ask_tellers_at.get_or_insert(at);
        }
    }

    /// Heads that peers named have not come by themselves: a few of those peers are asked for them.
    fn ask_tellers(&mut self) {
        if self.sync.ask_tellers_at.is_none_or(|at| self.now.mono < at) {
            return;
        }
        self.sync.ask_tellers_at = None;
        let tellers = self.sync.told.tellers_of_awaited().into_iter().filter(|by| self.peers.is_connected(by));
        for peer in tellers.take(GREETED) {
            self.sync.greet(peer);
        }
    }

    /// Asks the next peer, unless a question is open that may still be answered soon.
    pub(super) fn pull(&mut self) {
        let now = self.now.mono;
        let mut silent = None;
        if let Some(token) = self.sync.syncing.filter(|_| now >= self.sync.patience) {
            // Its answer is taken when it comes after all. Whom one lost message, or one stopped peer, keeps from what it
            // lacks claims nothing meanwhile.
            self.sync.syncing = None;
            self.sync.is_slow = true;
            silent = self.sync.open.get(&token).map(|(peer, ..)| *peer);
        }
        if self.sync.syncing.is_some() || self.sync.retry_at.is_some_and(|at| now < at) {
            return;
        }
        self.sync.retry_at = None;
        self.ask_tellers();
        while let Some(peer) = self.sync.next.pop_front() {
            if !self.peers.is_connected(&peer) {
                continue;
            }
            match (&self.stage, &self.settings.entrance) {
                (Stage::Joining, Entrance::Ticket(ticket)) if !self.sync.admitted => {
                    let request = Request::Join { ticket: ticket.clone() };
                    self.ask(peer, request, Asked::Join);
                }
                _ => self.ask_for_more(peer),
            }
            self.sync.next_round = now + self.settings.timings.round;
            return;
        }
        // Nobody is left to ask, and something is still missing: ask again whoever is connected.
        let overdue = self.sync.ask_tellers_at.is_none() && !self.sync.has_all_it_was_told_of();
        let missing = !self.sync.complete || !self.quarantine.is_empty() || overdue;
        if missing && self.peers.connected().len() > 0 {
            let connected: Vec<PeerId> = self.peers.connected().copied().collect();
            let from = self.sync.draw(self.settings.seed, connected.len());
            let others =
                connected[from..].iter().chain(&connected[..from]).filter(|peer| !self.sync.told.is_teller(peer));
            let tellers = self.sync.told.tellers().filter(|peer| self.peers.is_connected(peer));
            let all = tellers.chain(others).filter(|peer| Some(**peer) != silent).chain(&silent);
            self.sync.next = all.take(3).copied().collect();
            if silent.is_some() {
                // That has been waited for long enough.
                return self.pull();
            }
            self.sync.retry_at = Some(now + self.settings.timings.retry);
        } else if now >= self.sync.next_round {
            // Gossip may have been lost without a trace: some peer is asked now and then.
            self.sync.next_round = now + self.settings.timings.round;
            let at = self.sync.draw(self.settings.seed, self.peers.connected().len());
            let drawn = self.peers.connected().nth(at).copied();
            if let Some(peer) = drawn {
                self.ask_for_more(peer);
            }
        }
    }

    /// Who does not say within the failure time whether it takes a task is not heard, however lately it beat: an idle node
    /// beats seldom, and nobody waits longer for a dead one than for a dead holder. Who is not heard is not waited for.
    pub(super) fn give_up_overdue_turns(&mut self) {
        let (now, failure) = (self.now.mono, self.settings.timings.failure);
        if self.sync.overdue_at.is_none_or(|at| now < at) {
            return;
        }
        let turns = self.sync.open.iter().filter(|(_, (_, asked, _))| *asked == Asked::Turn);
        let (overdue, waiting): (Vec<_>, Vec<_>) = turns
            .map(|(token, (to, _, at))| (*token, *to, at + failure))
            .partition(|(_, to, due)| *due <= now || !self.peers.hears(to));
        self.sync.overdue_at = waiting.into_iter().map(|(_, _, due)| due).min();
        for (token, to, _) in overdue {
            self.sync.open.remove(&token);
            self.peers.doubt(&to, now);
            self.begin_turn_anew(token);
        }
    }

    pub(super) fn ask_for_more(&mut self, peer: PeerId) {
        let mut want = self.quarantine.missing(MAX_WANTED);
        want.extend(self.sync.told.awaited().take(MAX_WANTED - want.len()));
        let request = Request::Sync { vector: self.clock.vector(), want };
        self.ask(peer, request, Asked::Sync);
    }

    pub(super) fn ask(&mut self, to: PeerId, request: Request, asked: Asked) -> Token {
        let token = self.token();
        if !matches!(asked, Asked::Turn | Asked::Presences) {
            self.sync.syncing = Some(token);
            self.sync.patience = self.now.mono + self.sync.patience_for_one(self.settings.timings.retry);
        }
        self.sync.open.insert(token, (to, asked, self.now.mono));
        self.outbox.push(Output::Request { to, token, request });
        token
    }

    /// Asks a peer that stands ahead whether it takes these tasks.
    pub(super) fn ask_turn(&mut self, to: PeerId, request: Request) -> Token {
        let due = self.now.mono + self.settings.timings.failure;
        self.sync.overdue_at = Some(self.sync.overdue_at.map_or(due, |at| at.min(due)));
        self.ask(to, request, Asked::Turn)
    }

    pub(super) fn on_response(&mut self, from: PeerId, token: Token, response: Response) {
        let Some((peer, asked, at)) = self.sync.open.remove(&token) else { return };
        if peer != from {
            self.sync.open.insert(token, (peer, asked, at));
            return;
        }
        self.sync.heard_answer(at, self.now.mono);
        if self.sync.syncing == Some(token) {
            self.sync.syncing = None;
        }
        match (asked, response) {
            (Asked::Sync, Response::Page { entries, more }) => {
                self.refusals.remove(&from);
                let progress = self.take_entries(from, entries);
                if progress {
                    self.catchup.found_entries();
                }
                if more && progress {
                    self.go_on_learning();
                    if self.sync.syncing.is_none() {
                        self.ask_for_more(from);
                    }
                } else {
                    self.names_none(from);
                    // Who has nothing to give cannot tell that nothing is missing when others say that it is.
                    self.sync.complete |= !self.catchup.is_under_way();
                    self.count_undelivered(progress);
                    self.sync.ask_no_more_than_needed();
                }
            }
            (Asked::Sync, Response::Beneath { hash, parts }) => self.on_beneath(from, hash, parts),
            (Asked::Snapshot, Response::Part { bytes, parts }) => self.on_part(from, &bytes, parts),
            (Asked::Join, Response::Admitted) => {
                self.sync.admitted = true;
                // Others may not know of it yet.
                self.sync.next.retain(|next| *next != from);
                self.sync.next.push_front(from);
            }
            (Asked::Turn, Response::Turn { mine }) => self.on_turn(token, &mine),
            (Asked::Presences, Response::Presences { heard }) => self.on_presences(heard),
            // Somebody else is asked by and by.
            (Asked::Presences, _) => {}
            (asked, Response::Refused { why }) => {
                if asked == Asked::Turn {
                    self.on_turn(token, &BTreeSet::new());
                } else {
                    // Whoever admitted this node may have gone before telling anybody.
                    self.sync.admitted = false;
                    self.note_refusal(from, &why);
                    self.notice(Notice::Refused { from, why });
                    self.retry(from);
                }
            }
            (asked, other) => {
                self.notice(Notice::Refused { from, why: format!("an answer that was not asked for: {other:.60?}") });
                if asked == Asked::Turn {
                    self.on_turn(token, &BTreeSet::new());
                } else {
                    self.retry(from);
                }
            }
        }
    }

    pub(super) fn on_unanswered(&mut self, from: PeerId, token: Token) {
        let Some((_, asked, _)) = self.sync.open.remove(&token) else { return };
        if self.sync.syncing == Some(token) {
            self.sync.syncing = None;
        }
        match asked {
            Asked::Turn => self.on_turn(token, &BTreeSet::new()),
            Asked::Presences => {}
            _ => self.retry(from),
        }
    }

    /// Tries a peer again after the others; once all have been tried, after a while.
    fn retry(&mut self, peer: PeerId) {
        self.names_none(peer);
        if self.peers.is_connected(&peer) {
            self.sync.greet(peer);
        }
        self.sync.tried.insert(peer);
        if self.sync.next.iter().all(|next| self.sync.tried.contains(next)) {
            self.sync.tried.clear();
            self.sync.retry_at = Some(self.now.mono + self.settings.timings.retry);
        }
    }

    /// A peer has given all it has. Heads that are still not here have been asked for in vain once more.
    fn count_undelivered(&mut self, progress: bool) {
        self.sync.fruitless = if progress || self.quarantine.is_empty() { 0 } else { self.sync.fruitless + 1 };
        if self.sync.fruitless as usize > MAX_ASKED as usize * self.peers.connected().len().max(1) {
            // What these wait for is nowhere any more. Should they count after all, they are fetched with their parents.
            self.quarantine = super::Quarantine::default();
            self.sync.fruitless = 0;
        }
        // Those in quarantine too: what they stand on may be gone with its author's disk.
        self.sync.told.ask_in_vain();
        self.claims.look_again();
    }

    /// What a peer asks of this node's entries.
    pub(super) fn on_sync_request(
        &mut self,
        from: PeerId,
        token: Token,
        vector: &crate::kernel::io::Vector,
        want: &BTreeSet<Cid>,
    ) {
        if self.clock.is_below_base(vector)
            && let Some(beneath) = self.reply_beneath()
        {
            self.outbox.push(Output::Reply { to: from, token, reply: beneath });
            return;
        }
        let lacking = self.clock.lacking(vector, MAX_LISTED);
        let more = lacking.len() == MAX_LISTED;
        // What was asked for by name is void, or stands on what is lacking; and what is lacking may stand on it. A page holds
        // only the first of them, so each has to come after its own parents and before all that stand on it.
        let mut cids: BTreeSet<Cid> = lacking.into_iter().collect();
        for fork in self.clock.proofs(vector) {
            cids.extend([fork.first, fork.second].iter().filter(|cid| self.clock.holds(cid)));
        }
        cids.extend(want.iter().filter(|cid| self.clock.holds(cid)).take(MAX_WANTED));
        let cids = self.clock.in_order(cids);
        self.outbox.push(Output::Reply { to: from, token, reply: Reply::Page { cids, more } });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_waited_for_as_long_as_answers_usually_take() {
        let mut sync = Sync::default();
        assert_eq!(sync.patience_for_one(1_000), 1_000);
        sync.heard_answer(0, 600);
        assert_eq!(sync.patience_for_one(1_000), 600 + 4 * 300);
        (0..20).for_each(|_| sync.heard_answer(0, 600));
        assert_eq!(sync.patience_for_one(1_000), 1_000, "answers that take equally long leave no doubt");
        (0..20).for_each(|n| sync.heard_answer(0, if n % 2 == 0 { 200 } else { 4_200 }));
        let usual = sync.patience_for_one(1_000);
        assert!((6_000..12_000).contains(&usual), "{usual}");
        sync.is_slow = true;
        assert_eq!(sync.patience_for_one(1_000), 2 * usual);
        sync.heard_answer(0, 2_000);
        assert!(sync.patience_for_one(1_000) < usual, "any answer ends that");
    }
}
