//! Where peers are: what they and others say of it, and when which of them is to be dialed.
//!
//! Pure bookkeeping: time comes in, dials go out as values.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::Multiaddr;

use super::Timings;
use super::backoff::Jitter;
use super::names::{farness, is_reachable, is_relayed, strip_peer};
use crate::kernel::id::PeerId;
use crate::wire::limits::MAX_ADDRESSES;

/// The most peers that are remembered. Then hearsay is not listened to, and who connects displaces who is gone longest.
const MAX_PEERS: usize = 1024;

/// How long somebody is left alone who can be reached nowhere as things are: the relays to it are not connected.
const NOWHERE: Duration = Duration::from_secs(2);

/// How long a peer that an earlier life of this node knew is tried.
const REMEMBERED: Duration = Duration::from_secs(86_400);

/// A peer to dial, and where.
pub(super) type Call = (PeerId, Vec<Multiaddr>);

pub(super) struct Book {
    me: PeerId,
    known: BTreeMap<PeerId, Known>,
}

struct Known {
    /// The address that was reached last, which the peer itself may not know of: it may stand behind a forwarded port.
    reached: Option<Multiaddr>,
    /// Those that were told, without `/p2p`.
    addresses: Vec<Multiaddr>,
    stage: Stage,
    /// Dials that failed since the last success.
    failures: u32,
    /// When somebody last knew of it.
    heard: Instant,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Apart { next: Instant },
    Dialing,
    Connected,
}

impl Book {
    pub(super) const fn new(me: PeerId) -> Self {
        Self { me, known: BTreeMap::new() }
    }

    /// Somebody connected says where a peer is.
    pub(super) fn told(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, now: Instant, timings: &Timings) {
        if peer == self.me || (self.known.len() >= MAX_PEERS && !self.known.contains_key(&peer)) {
            return;
        }
        let next = now + self.yielding(&peer, timings);
        let known = self.known.entry(peer).or_insert_with(|| Known::new(next, now));
        known.heard = now;
        let mut fresh: Vec<_> =
            clean(addresses).into_iter().filter(|address| !known.addresses.contains(address)).collect();
        // New addresses are a new chance: it has moved.
        if !fresh.is_empty() && matches!(known.stage, Stage::Apart { .. }) {
            known.failures = 0;
            known.stage = Stage::Apart { next };
        }
        // The newest hearsay displaces the oldest.
        fresh.append(&mut known.addresses);
        fresh.truncate(MAX_ADDRESSES);
        known.addresses = fresh;
    }

    /// An earlier life of this node has reached a peer there. It is tried for a day, unless it is reached again.
    pub(super) fn remembered(&mut self, peer: PeerId, address: &Multiaddr, now: Instant) {
        if peer == self.me || (self.known.len() >= MAX_PEERS && !self.known.contains_key(&peer)) {
            return;
        }
        let known = self.known.entry(peer).or_insert_with(|| Known::new(now, now + REMEMBERED));
        for address in clean(vec![address.clone()]) {
            if known.addresses.len() < MAX_ADDRESSES && !known.addresses.contains(&address) {
                known.addresses.push(address);
            }
        }
    }

    /// Everybody that is known, and where, those heard of last first.
    pub(super) fn all(&self) -> Vec<Call> {
        let mut all: Vec<_> = self.known.iter().filter(|(_, known)| known.places().next().is_some()).collect();
        all.sort_by_key(|(_, known)| (known.stage != Stage::Connected, std::cmp::Reverse(known.heard)));
        all.into_iter().map(|(peer, known)| (*peer, known.places().cloned().collect())).collect()
    }

    /// A connected peer says itself where it is.
    pub(super) fn told_by_itself(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, now: Instant) {
        self.make_room(&peer);
        let known = self.known.entry(peer).or_insert_with(|| Known::new(now, now));
        known.addresses = clean(addresses);
    }

    /// A connection stands; `reached` is the address if this node made it.
    pub(super) fn connected(&mut self, peer: PeerId, reached: Option<Multiaddr>, now: Instant) {
        self.make_room(&peer);
        let known = self.known.entry(peer).or_insert_with(|| Known::new(now, now));
        known.stage = Stage::Connected;
        known.failures = 0;
        known.heard = now;
        if let Some(address) = reached {
            known.reached = Some(strip_peer(&address).0);
        }
    }

    /// The last connection to it is gone.
    pub(super) fn disconnected(&mut self, peer: &PeerId, now: Instant, jitter: &mut Jitter, timings: &Timings) {
        let wait = jitter.after(1, timings) + self.yielding(peer, timings);
        if let Some(known) = self.known.get_mut(peer) {
            known.stage = Stage::Apart { next: now + wait };
            known.heard = now;
        }
    }

    /// A dial that [`Book::due`] wanted has failed.
    pub(super) fn failed(&mut self, peer: &PeerId, now: Instant, jitter: &mut Jitter, timings: &Timings) {
        if let Some(known) = self.known.get_mut(peer)
            && known.stage == Stage::Dialing
        {
            known.failures += 1;
            known.stage = Stage::Apart { next: now + jitter.after(known.failures, timings) };
        }
    }

    /// A dial that [`Book::due`] wanted is not made now, because another one is under way.
    pub(super) fn postponed(&mut self, peer: &PeerId, now: Instant, timings: &Timings) {
        if let Some(known) = self.known.get_mut(peer)
            && known.stage == Stage::Dialing
        {
            known.stage = Stage::Apart { next: now + timings.retry_first };
        }
    }

    /// It is none of this mesh.
    pub(super) fn remove(&mut self, peer: &PeerId) {
        self.known.remove(peer);
    }

    /// Up to `wanted` peers, less those that are being dialed, chosen at random, where they `can` be dialed now. Each is
    /// reported by [`Book::connected`], [`Book::failed`] or [`Book::postponed`] afterwards.
    pub(super) fn due(
        &mut self,
        now: Instant,
        wanted: usize,
        can: impl Fn(&Multiaddr) -> bool,
        jitter: &mut Jitter,
    ) -> Vec<Call> {
        let dialing = self.known.values().filter(|known| known.stage == Stage::Dialing).count();
        let ready = |known: &Known| {
            matches!(known.stage, Stage::Apart { next } if next <= now) && known.places().next().is_some()
        };
        let mut ready: Vec<_> = self.known.iter_mut().filter(|(_, known)| ready(known)).collect();
        jitter.shuffle(&mut ready);
        let mut calls = Vec::new();
        for (peer, known) in ready {
            if calls.len() >= wanted.saturating_sub(dialing) {
                break;
            }
            let mut places: Vec<_> = known.places().filter(|place| can(place)).cloned().collect();
            if places.is_empty() {
                known.stage = Stage::Apart { next: now + NOWHERE };
                continue;
            }
            // Not all are dialed at once, and what has a relay is likely to be reached by no other way.
            places.sort_by_key(|place| !is_relayed(place));
            known.stage = Stage::Dialing;
            calls.push((*peer, places));
        }
        calls
    }

    /// Everybody that waits is due now: this host has moved.
    pub(super) fn hurry(&mut self, now: Instant) {
        for known in self.known.values_mut() {
            if matches!(known.stage, Stage::Apart { .. }) {
                known.stage = Stage::Apart { next: now };
                known.failures = 0;
            }
        }
    }

    /// When the next peer is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let next = |known: &Known| match known.stage {
            Stage::Apart { next } if known.places().next().is_some() => Some(next),
            Stage::Apart { .. } | Stage::Dialing | Stage::Connected => None,
        };
        self.known.values().filter_map(next).min()
    }

    /// Forgets whom nobody has known for long.
    pub(super) fn forget(&mut self, now: Instant, timings: &Timings) {
        self.known.retain(|_, known| {
            !matches!(known.stage, Stage::Apart { .. }) || now.duration_since(known.heard) < timings.forget
        });
    }

    /// Where a peer can be reached, as far as is known.
    pub(super) fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.known.get(peer).map_or_else(Vec::new, |known| known.places().cloned().collect())
    }

    fn make_room(&mut self, newcomer: &PeerId) {
        if self.known.len() < MAX_PEERS || self.known.contains_key(newcomer) {
            return;
        }
        let apart = self.known.iter().filter(|(_, known)| matches!(known.stage, Stage::Apart { .. }));
        if let Some(longest) = apart.min_by_key(|(_, known)| known.heard).map(|(peer, _)| *peer) {
            self.known.remove(&longest);
        }
    }

    /// How long to wait for the other one's dial: two that dial each other at once end with two connections.
    fn yielding(&self, peer: &PeerId, timings: &Timings) -> Duration {
        if self.me > *peer { timings.yield_to } else { Duration::ZERO }
    }
}

impl Known {
    /// Where it may be, the likeliest place first.
    fn places(&self) -> impl Iterator<Item = &Multiaddr> {
        let others = self.addresses.iter().filter(|address| Some(*address) != self.reached.as_ref());
        self.reached.iter().chain(others)
    }

    const fn new(next: Instant, now: Instant) -> Self {
        Self { reached: None, addresses: Vec::new(), stage: Stage::Apart { next }, failures: 0, heard: now }
    }
}

/// Distinct addresses that can be dialed, without the peer's name, as many as are kept.
fn clean(addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
    let mut clean = Vec::new();
    for address in addresses {
        let (bare, _) = strip_peer(&address);
        if is_reachable(&bare) && !clean.contains(&bare) {
            clean.push(bare);
        }
    }
    clean.sort_by_key(farness);
    clean.truncate(MAX_ADDRESSES);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: PeerId = PeerId::from_public_key([1; 32]);
    const ME: PeerId = PeerId::from_public_key([5; 32]);
    const HIGH: PeerId = PeerId::from_public_key([9; 32]);

    fn at(port: u16) -> Multiaddr {
        format!("/ip4/10.0.0.1/tcp/{port}").parse().expect("an address")
    }

    struct Desk {
        book: Book,
        now: Instant,
        jitter: Jitter,
        timings: Timings,
    }

    impl Desk {
        fn new() -> Self {
            Self { book: Book::new(ME), now: Instant::now(), jitter: Jitter::seeded(1), timings: Timings::default() }
        }

        fn told(&mut self, peer: PeerId, port: u16) {
            self.book.told(peer, vec![at(port)], self.now, &self.timings);
        }

        fn due(&mut self, wanted: usize) -> Vec<PeerId> {
            self.book.due(self.now, wanted, |_| true, &mut self.jitter).into_iter().map(|(peer, _)| peer).collect()
        }

        fn fail(&mut self, peer: PeerId) {
            self.book.failed(&peer, self.now, &mut self.jitter, &self.timings);
        }
    }

    #[test]
    fn the_greater_id_lets_the_other_dial_first() {
        let mut desk = Desk::new();
        desk.told(LOW, 1);
        desk.told(HIGH, 2);
        desk.told(ME, 3);
        assert_eq!(desk.due(9), [HIGH]);
        desk.now += desk.timings.yield_to;
        assert_eq!(desk.due(9), [LOW]);
        assert!(desk.due(9).is_empty(), "both are being dialed");
    }

    #[test]
    fn no_more_are_dialed_than_wanted() {
        let mut desk = Desk::new();
        for n in 10..30 {
            desk.told(PeerId::from_public_key([n; 32]), u16::from(n));
        }
        assert_eq!(desk.due(3).len(), 3);
        assert_eq!(desk.due(3).len(), 0);
        assert_eq!(desk.due(5).len(), 2);
    }

    #[test]
    fn relayed_addresses_wait_for_their_relay_and_go_first() {
        let mut desk = Desk::new();
        let relayed = super::super::names::relayed_by(&at(7), &LOW);
        desk.book.told(HIGH, vec![relayed.clone()], desk.now, &desk.timings);
        let can = |open: bool| move |address: &Multiaddr| open || !is_relayed(address);
        assert!(desk.book.due(desk.now, 1, can(false), &mut desk.jitter).is_empty());
        assert!(desk.book.due(desk.now, 1, can(true), &mut desk.jitter).is_empty(), "it is looked at now and then");
        desk.now += NOWHERE;
        desk.book.told(HIGH, vec![at(8)], desk.now, &desk.timings);
        assert_eq!(desk.book.due(desk.now, 1, can(true), &mut desk.jitter), [(HIGH, vec![relayed, at(8)])]);
    }

    #[test]
    fn a_failed_dial_backs_off_and_new_addresses_are_a_new_chance() {
        let mut desk = Desk::new();
        desk.told(HIGH, 1);
        for _ in 0..12 {
            desk.now += desk.timings.retry_most;
            assert_eq!(desk.due(1), [HIGH]);
            desk.fail(HIGH);
        }
        desk.told(HIGH, 1);
        assert!(desk.due(1).is_empty(), "nothing new was said");
        desk.told(HIGH, 2);
        assert_eq!(desk.due(1), [HIGH]);
    }

    #[test]
    fn a_lost_peer_is_dialed_again_until_it_is_forgotten() {
        let mut desk = Desk::new();
        desk.book.connected(HIGH, Some(at(1)), desk.now);
        assert!(desk.due(1).is_empty());
        desk.book.disconnected(&HIGH, desk.now, &mut desk.jitter, &desk.timings);
        assert!(desk.due(1).is_empty(), "not at once");
        desk.now += desk.timings.retry_first;
        assert_eq!(desk.due(1), [HIGH]);
        desk.fail(HIGH);
        desk.now += desk.timings.forget;
        desk.book.forget(desk.now, &desk.timings);
        assert!(desk.due(1).is_empty());
        assert!(desk.book.addresses(&HIGH).is_empty());
    }

    #[test]
    fn what_a_peer_says_of_itself_replaces_hearsay() {
        let mut desk = Desk::new();
        desk.told(HIGH, 1);
        desk.book.connected(HIGH, Some(at(2)), desk.now);
        assert_eq!(desk.book.addresses(&HIGH), [at(2), at(1)]);
        let said = vec![at(3), super::super::with_peer(&at(2), &HIGH), "/ip4/0.0.0.0/tcp/1".parse().expect("address")];
        desk.book.told_by_itself(HIGH, said, desk.now);
        assert_eq!(desk.book.addresses(&HIGH), [at(2), at(3)]);
        desk.book.told_by_itself(HIGH, vec![at(4)], desk.now);
        assert_eq!(desk.book.addresses(&HIGH), [at(2), at(4)], "there it was reached, whatever it says");
    }

    #[test]
    fn hearsay_is_bounded() {
        let mut desk = Desk::new();
        for n in 0..2_000_u16 {
            let mut key = [7; 32];
            key[..2].copy_from_slice(&n.to_be_bytes());
            desk.told(PeerId::from_public_key(key), n);
            desk.told(HIGH, n);
        }
        assert_eq!(desk.book.known.len(), MAX_PEERS);
        for n in 0..2_000_u16 {
            let mut key = [8; 32];
            key[..2].copy_from_slice(&n.to_be_bytes());
            let peer = PeerId::from_public_key(key);
            desk.book.connected(peer, Some(at(n)), desk.now);
            desk.book.told_by_itself(peer, vec![at(n)], desk.now);
            desk.book.disconnected(&peer, desk.now, &mut desk.jitter, &desk.timings);
        }
        assert_eq!(desk.book.known.len(), MAX_PEERS);
        assert!(desk.book.known.values().all(|known| known.addresses.len() <= MAX_ADDRESSES));
    }
}
