//! Members that relay for this node, when others cannot reach it by themselves.
//!
//! Pure bookkeeping, as in [`super::book`]. What it goes by is what the members that this node has dialed see of it: where
//! one sees an address that is none of this host's, something on the way translates addresses, and nobody beyond it can
//! dial this node. It then asks members that it has dialed, so that they can be dialed, to keep a place for it: two, so
//! that one may leave. Nor does a public address alone mean that one can be reached there, for a firewall may stand before
//! it: there, and behind translation, it is enough that somebody has come from outside, or that the operator says so.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::Multiaddr;
use libp2p::core::transport::ListenerId;

use super::backoff::Jitter;
use super::names::{ip_of, is_private, relayed_by};
use crate::kernel::id::PeerId;

/// How many members relay for this node at once.
const WANTED: usize = 2;
/// The shortest and the longest wait before a member that did not keep a place is asked again.
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_MOST: Duration = Duration::from_secs(300);

/// A member to ask for a place, and where this node has reached it.
pub(super) type Call = (PeerId, Multiaddr);

pub(super) struct Relays {
    /// Members that this node has dialed, and is connected with.
    near: BTreeMap<PeerId, Near>,
    /// Others come by themselves: somebody did, or the operator says so.
    found: bool,
}

struct Near {
    address: Multiaddr,
    /// As what it sees this node, once it has said so.
    seen: Option<Multiaddr>,
    stage: Stage,
    failures: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Apart { next: Instant },
    Asked(ListenerId),
    Held(ListenerId),
}

impl Relays {
    /// `found` when the operator says where others reach this node.
    pub(super) const fn new(found: bool) -> Self {
        Self { near: BTreeMap::new(), found }
    }

    /// A member was dialed there, directly.
    pub(super) fn reached(&mut self, peer: PeerId, address: Multiaddr, now: Instant) {
        let fresh = || Near { address: address.clone(), seen: None, stage: Stage::Apart { next: now }, failures: 0 };
        self.near.entry(peer).or_insert_with(fresh).address = address.clone();
    }

    /// A member says as what it sees this node.
    pub(super) fn seen(&mut self, peer: &PeerId, address: Multiaddr) {
        if let Some(near) = self.near.get_mut(peer) {
            near.seen = Some(address);
        }
    }

    /// Somebody came from there by itself, directly.
    pub(super) fn came(&mut self, from: &Multiaddr) {
        self.found |= ip_of(from).is_some_and(|ip| !is_private(&ip));
    }

    /// The last connection with it is gone.
    pub(super) fn lost(&mut self, peer: &PeerId) {
        self.near.remove(peer);
    }

    /// Whom to ask for a place now, while this host has these addresses. Each is reported by [`Relays::asked`] or
    /// [`Relays::failed`] afterwards.
    pub(super) fn due(&self, own: &[Multiaddr], now: Instant, jitter: &mut Jitter) -> Vec<Call> {
        let busy = self.near.values().filter(|near| !matches!(near.stage, Stage::Apart { .. })).count();
        if self.found || busy >= WANTED {
            return Vec::new();
        }
        let due = |near: &Near| {
            matches!(near.stage, Stage::Apart { next } if next <= now)
                && near.seen.as_ref().is_some_and(|seen| is_hidden(seen, own))
        };
        let mut due: Vec<_> = self.near.iter().filter(|(_, near)| due(near)).collect();
        jitter.shuffle(&mut due);
        // What was reached at a public address can be reached by most.
        due.sort_by_key(|(_, near)| ip_of(&near.address).is_some_and(|ip| is_private(&ip)));
        due.into_iter().take(WANTED - busy).map(|(peer, near)| (*peer, near.address.clone())).collect()
    }

    /// It was asked for a place.
    pub(super) fn asked(&mut self, peer: &PeerId, place: ListenerId) {
        if let Some(near) = self.near.get_mut(peer) {
            near.stage = Stage::Asked(place);
        }
    }

    /// It keeps a place. Returns whether that is news.
    pub(super) fn held(&mut self, peer: &PeerId) -> bool {
        let Some(near) = self.near.get_mut(peer) else { return false };
        match near.stage {
            Stage::Asked(place) => {
                near.stage = Stage::Held(place);
                near.failures = 0;
                true
            }
            Stage::Held(_) | Stage::Apart { .. } => false,
        }
    }

    /// It could not be asked.
    pub(super) fn failed(&mut self, peer: &PeerId, now: Instant, jitter: &mut Jitter) {
        if let Some(near) = self.near.get_mut(peer) {
            near.fail(now, jitter);
        }
    }

    /// A place is no more, or was not given.
    pub(super) fn closed(&mut self, place: ListenerId, now: Instant, jitter: &mut Jitter) {
        let of_place = |near: &&mut Near| matches!(near.stage, Stage::Asked(id) | Stage::Held(id) if id == place);
        if let Some(near) = self.near.values_mut().find(of_place) {
            near.fail(now, jitter);
        }
    }

    /// Where others reach this node through those that keep a place for it, without this node's name.
    pub(super) fn addresses(&self) -> impl Iterator<Item = Multiaddr> {
        let held = |(peer, near): (&PeerId, &Near)| {
            matches!(near.stage, Stage::Held(_)).then(|| relayed_by(&near.address, peer))
        };
        self.near.iter().filter_map(held)
    }
}

impl Near {
    fn fail(&mut self, now: Instant, jitter: &mut Jitter) {
        let wait = RETRY_FIRST.saturating_mul(1 << self.failures.min(10)).min(RETRY_MOST);
        self.failures += 1;
        self.stage = Stage::Apart { next: now + jitter.around(wait) };
    }
}

/// Whether a host that is seen so by others, and has these addresses itself, may be one that they cannot dial.
fn is_hidden(seen: &Multiaddr, own: &[Multiaddr]) -> bool {
    match ip_of(seen) {
        Some(ip) if !ip.is_loopback() => !is_private(&ip) || !own.iter().any(|own| ip_of(own) == Some(ip)),
        // On one host, or within one process: whoever listens can be dialed.
        _ => own.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: PeerId = PeerId::from_public_key([1; 32]);
    const OWN: &str = "/ip4/10.0.0.5/tcp/1";

    fn address(text: &str) -> Multiaddr {
        text.parse().expect("an address")
    }

    struct Desk {
        relays: Relays,
        now: Instant,
        jitter: Jitter,
    }

    impl Desk {
        fn new(relays: &[PeerId], seen: &str) -> Self {
            let mut desk = Self { relays: Relays::new(false), now: Instant::now(), jitter: Jitter::seeded(1) };
            for relay in relays {
                desk.relays.reached(*relay, address("/ip4/203.0.113.1/tcp/1"), desk.now);
                desk.relays.seen(relay, address(seen));
            }
            desk
        }

        fn due(&mut self, own: &[&str]) -> Vec<PeerId> {
            let own: Vec<_> = own.iter().map(|text| address(text)).collect();
            self.relays.due(&own, self.now, &mut self.jitter).into_iter().map(|(peer, _)| peer).collect()
        }
    }

    #[test]
    fn who_is_seen_as_somebody_else_wants_a_place() {
        let own = ["/ip4/10.0.0.5/tcp/1", "/ip6/fd00::5/tcp/1"];
        for (seen, wanted) in [
            ("/ip4/203.0.113.9/tcp/50000", true),
            ("/ip4/192.168.1.7/udp/50000/quic-v1", true),
            ("/ip4/10.0.0.5/tcp/50000", false),
            ("/ip6/fd00::5/tcp/50000", false),
            ("/ip4/127.0.0.1/tcp/50000", false),
            ("/memory/7", false),
        ] {
            assert_eq!(!Desk::new(&[RELAY], seen).due(&own).is_empty(), wanted, "{seen}");
        }
        // A public address of its own, which a firewall may guard.
        let mut guarded = Desk::new(&[RELAY], "/ip6/2001:db9::5/tcp/50000");
        assert_eq!(guarded.due(&["/ip6/2001:db9::5/tcp/1"]), [RELAY]);
        guarded.relays.came(&address("/ip4/10.0.0.9/tcp/9"));
        assert_eq!(guarded.due(&["/ip6/2001:db9::5/tcp/1"]), [RELAY], "that was a neighbour");
        guarded.relays.came(&address("/ip6/2001:db9:1::9/tcp/9"));
        assert!(guarded.due(&["/ip6/2001:db9::5/tcp/1"]).is_empty(), "it was found");
        // Who listens nowhere is found by nobody, wherever it is.
        assert_eq!(Desk::new(&[RELAY], "/ip4/127.0.0.1/tcp/5").due(&[]), [RELAY]);
    }

    #[test]
    fn two_keep_a_place_and_another_one_is_asked_when_one_leaves() {
        let relays: Vec<_> = (1..=4).map(|n| PeerId::from_public_key([n; 32])).collect();
        let mut desk = Desk::new(&relays, "/ip4/203.0.113.9/tcp/5");
        let due = desk.due(&[OWN]);
        assert_eq!(due.len(), WANTED);
        let places = [ListenerId::next(), ListenerId::next()];
        for (relay, place) in due.iter().zip(places) {
            desk.relays.asked(relay, place);
        }
        assert!(desk.due(&[OWN]).is_empty());
        assert_eq!(desk.relays.addresses().count(), 0, "they have not said yes");
        assert!(desk.relays.held(&due[0]) && desk.relays.held(&due[1]) && !desk.relays.held(&due[1]));
        let expected: Vec<_> = {
            let mut sorted = due.clone();
            sorted.sort_unstable();
            sorted.iter().map(|relay| address(&format!("/ip4/203.0.113.1/tcp/1/p2p/{relay}/p2p-circuit"))).collect()
        };
        assert_eq!(desk.relays.addresses().collect::<Vec<_>>(), expected);
        desk.relays.closed(places[0], desk.now, &mut desk.jitter);
        let next = desk.due(&[OWN]);
        assert!(next.len() == 1 && !due.contains(&next[0]), "who gave the place up is not asked at once");
        desk.relays.lost(&due[1]);
        assert_eq!(desk.relays.addresses().count(), 0);
    }

    #[test]
    fn who_refuses_is_asked_again_ever_later() {
        let mut desk = Desk::new(&[RELAY], "/ip4/203.0.113.9/tcp/5");
        for _ in 0..20 {
            assert_eq!(desk.due(&[OWN]), [RELAY]);
            desk.relays.failed(&RELAY, desk.now, &mut desk.jitter);
            assert!(desk.due(&[OWN]).is_empty());
            desk.now += RETRY_MOST;
        }
    }
}
