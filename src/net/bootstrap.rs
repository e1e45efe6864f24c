//! Addresses to stay connected with, whoever is there, tried again for ever.
//!
//! Pure bookkeeping, as in [`super::book`].

use std::time::Instant;

use libp2p::Multiaddr;

use super::Timings;
use super::backoff::Jitter;
use super::names::{is_quic, kernel_peer, strip_peer};
use crate::kernel::id::PeerId;

/// What the operator is to be told of an address.
pub(super) type Notice = (Multiaddr, Option<String>);

pub(super) struct Bootstrap {
    places: Vec<Place>,
}

struct Place {
    /// As it was given.
    address: Multiaddr,
    /// Who must be there (`/p2p/…`), else who was there last.
    peer: Option<PeerId>,
    stage: Stage,
    /// Dials that failed since the last success.
    failures: u32,
    /// Whether the operator was told that it does not answer.
    said: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting {
        next: Instant,
    },
    Dialing,
    /// Its peer is connected and belongs to the mesh.
    Held,
    /// It is this node's own address.
    Own,
}

/// An address to dial now: its number here, the address, and who must be there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) place: usize,
    pub(super) address: Multiaddr,
    pub(super) peer: Option<PeerId>,
}

impl Bootstrap {
    pub(super) const fn new() -> Self {
        Self { places: Vec::new() }
    }

    /// Stays connected with the address from now on.
    pub(super) fn add(&mut self, address: Multiaddr, me: &PeerId, now: Instant) {
        if self.places.iter().any(|place| place.address == address) {
            return;
        }
        let peer = strip_peer(&address).1.as_ref().and_then(kernel_peer);
        let stage = if peer == Some(*me) { Stage::Own } else { Stage::Waiting { next: now } };
        self.places.push(Place { address, peer, stage, failures: 0, said: false });
    }

    /// The addresses to dial now. Those whose peer is connected already are held.
    pub(super) fn due(&mut self, now: Instant, connected: impl Fn(&PeerId) -> bool) -> (Vec<Call>, Vec<Notice>) {
        let (mut calls, mut notices) = (Vec::new(), Vec::new());
        // The same peers are likely among those that TCP reaches, and over QUIC their death is noticed late.
        let tcp_first = self.places.iter().any(Place::is_untried_tcp);
        for (index, place) in self.places.iter_mut().enumerate() {
            if !matches!(place.stage, Stage::Waiting { next } if next <= now) {
                continue;
            }
            if place.peer.as_ref().is_some_and(&connected) {
                notices.extend(place.hold());
            } else if !(tcp_first && is_quic(&place.address)) {
                place.stage = Stage::Dialing;
                let peer = place.required();
                calls.push(Call { place: index, address: place.address.clone(), peer });
            }
        }
        (calls, notices)
    }

    /// When the next address is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let next = |place: &Place| match place.stage {
            Stage::Waiting { next } => Some(next),
            Stage::Dialing | Stage::Held | Stage::Own => None,
        };
        self.places.iter().filter_map(next).min()
    }

    /// A dial has led to that peer; whether it belongs to the mesh is still to be seen.
    pub(super) fn reached(&mut self, place: usize, peer: PeerId) {
        if let Some(place) = self.places.get_mut(place) {
            place.peer = Some(peer);
        }
    }

    /// The peer is connected and belongs to the mesh.
    pub(super) fn proven(&mut self, peer: &PeerId) -> Vec<Notice> {
        let of_peer = |place: &&mut Place| place.peer.as_ref() == Some(peer) && place.stage != Stage::Own;
        self.places.iter_mut().filter(of_peer).filter_map(Place::hold).collect()
    }

    /// The last connection to the peer is gone. When it had not proven that it belongs to the mesh, that was a failure.
    pub(super) fn lost(
        &mut self,
        peer: &PeerId,
        why: &str,
        now: Instant,
        jitter: &mut Jitter,
        timings: &Timings,
    ) -> Vec<Notice> {
        let mut notices = Vec::new();
        for place in self.places.iter_mut().filter(|place| place.peer.as_ref() == Some(peer)) {
            match place.stage {
                Stage::Held => place.stage = Stage::Waiting { next: now + jitter.after(1, timings) },
                Stage::Dialing => notices.extend(place.fail(why, now, jitter, timings)),
                Stage::Waiting { .. } | Stage::Own => {}
            }
        }
        notices
    }

    /// A dial has failed.
    pub(super) fn failed(
        &mut self,
        place: usize,
        why: &str,
        now: Instant,
        jitter: &mut Jitter,
        timings: &Timings,
    ) -> Option<Notice> {
        self.places.get_mut(place)?.fail(why, now, jitter, timings)
    }

    /// A dial is not made now, because another one to the same peer is under way.
    pub(super) fn postponed(&mut self, place: usize, now: Instant, timings: &Timings) {
        if let Some(place) = self.places.get_mut(place) {
            place.stage = Stage::Waiting { next: now + timings.retry_first };
        }
    }

    /// Everything that waits is due now.
    pub(super) fn hurry(&mut self, now: Instant) {
        for place in &mut self.places {
            if matches!(place.stage, Stage::Waiting { .. }) {
                place.stage = Stage::Waiting { next: now };
                place.failures = 0;
            }
        }
    }

    /// The address is this node's own.
    pub(super) fn own(&mut self, place: usize) {
        if let Some(place) = self.places.get_mut(place) {
            place.stage = Stage::Own;
        }
    }
}

impl Place {
    /// Whether it is a TCP address that is still to be tried since it was last held, or being tried.
    fn is_untried_tcp(&self) -> bool {
        !is_quic(&self.address) && self.failures == 0 && !matches!(self.stage, Stage::Held | Stage::Own)
    }

    fn required(&self) -> Option<PeerId> {
        strip_peer(&self.address).1.as_ref().and_then(kernel_peer)
    }

    fn hold(&mut self) -> Option<Notice> {
        self.stage = Stage::Held;
        self.failures = 0;
        std::mem::take(&mut self.said).then(|| (self.address.clone(), None))
    }

    fn fail(&mut self, why: &str, now: Instant, jitter: &mut Jitter, timings: &Timings) -> Option<Notice> {
        self.failures += 1;
        self.stage = Stage::Waiting { next: now + jitter.after(self.failures, timings) };
        // Said once, then tried again quietly.
        (!std::mem::replace(&mut self.said, true)).then(|| (self.address.clone(), Some(why.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::super::with_peer;
    use super::*;

    const ME: PeerId = PeerId::from_public_key([5; 32]);
    const PEER: PeerId = PeerId::from_public_key([9; 32]);

    fn address(text: &str) -> Multiaddr {
        text.parse().expect("an address")
    }

    struct Desk {
        bootstrap: Bootstrap,
        now: Instant,
        jitter: Jitter,
        timings: Timings,
    }

    impl Desk {
        fn new(addresses: &[Multiaddr]) -> Self {
            let (now, timings) = (Instant::now(), Timings::default());
            let mut bootstrap = Bootstrap::new();
            for address in addresses {
                bootstrap.add(address.clone(), &ME, now);
            }
            Self { bootstrap, now, jitter: Jitter::seeded(1), timings }
        }

        fn due(&mut self) -> Vec<usize> {
            self.bootstrap.due(self.now, |_| false).0.into_iter().map(|call| call.place).collect()
        }

        fn fail(&mut self, place: usize) -> Option<Notice> {
            self.bootstrap.failed(place, "no", self.now, &mut self.jitter, &self.timings)
        }

        fn lose(&mut self) -> Vec<Notice> {
            self.bootstrap.lost(&PEER, "gone", self.now, &mut self.jitter, &self.timings)
        }
    }

    #[test]
    fn a_silent_address_is_said_once_and_tried_for_ever() {
        let place = address("/ip4/10.0.0.1/tcp/1");
        let mut desk = Desk::new(std::slice::from_ref(&place));
        for round in 0..100 {
            assert_eq!(desk.due(), [0]);
            assert!(desk.due().is_empty(), "it is being dialed");
            let notice = desk.fail(0);
            assert_eq!(notice, (round == 0).then(|| (place.clone(), Some("no".to_owned()))));
            desk.now += desk.timings.retry_most;
        }
        assert_eq!(desk.due(), [0]);
        desk.bootstrap.reached(0, PEER);
        assert_eq!(desk.bootstrap.proven(&PEER), [(place.clone(), None)]);
        assert!(desk.bootstrap.proven(&PEER).is_empty(), "said once");
        assert!(desk.due().is_empty());
        // Lost again: soon tried again, and said again.
        assert!(desk.lose().is_empty());
        desk.now += desk.timings.retry_first;
        assert_eq!(desk.due(), [0]);
        assert_eq!(desk.fail(0), Some((place, Some("no".to_owned()))));
    }

    #[test]
    fn a_peer_that_does_not_belong_to_the_mesh_is_a_failure() {
        let mut desk = Desk::new(&[address("/ip4/10.0.0.1/tcp/1")]);
        assert_eq!(desk.due(), [0]);
        desk.bootstrap.reached(0, PEER);
        assert_eq!(desk.lose().len(), 1);
        assert!(desk.due().is_empty());
    }

    #[test]
    fn a_peer_that_is_connected_already_is_not_dialed() {
        let place = with_peer(&address("/ip4/10.0.0.1/tcp/1"), &PEER);
        let mut desk = Desk::new(&[place]);
        let (calls, notices) = desk.bootstrap.due(desk.now, |peer| *peer == PEER);
        assert!(calls.is_empty() && notices.is_empty());
        assert!(desk.lose().is_empty());
        desk.now += desk.timings.retry_first;
        let call = desk.bootstrap.due(desk.now, |_| false).0.remove(0);
        assert_eq!(call.peer, Some(PEER));
    }

    #[test]
    fn quic_waits_for_the_first_try_by_tcp() {
        let places = ["/ip4/10.0.0.1/udp/1/quic-v1", "/ip4/10.0.0.1/tcp/1"].map(address);
        let mut desk = Desk::new(&places);
        assert_eq!(desk.due(), [1]);
        assert!(desk.due().is_empty(), "it is being tried");
        assert!(desk.fail(1).is_some());
        assert_eq!(desk.due(), [0]);
        assert_eq!(Desk::new(&places[..1]).due(), [0], "where there is no choice");
        // The same when a peer is to be found again.
        let mut desk = Desk::new(&places.map(|place| with_peer(&place, &PEER)));
        assert_eq!(desk.due(), [1]);
        desk.bootstrap.proven(&PEER);
        assert!(desk.lose().is_empty());
        desk.now += desk.timings.retry_first;
        assert_eq!(desk.due(), [1]);
    }

    #[test]
    fn a_host_that_has_moved_waits_for_nothing() {
        let mut desk = Desk::new(&[address("/ip4/10.0.0.1/tcp/1")]);
        for _ in 0..9 {
            assert_eq!(desk.due(), [0]);
            desk.fail(0);
            assert!(desk.due().is_empty());
            desk.bootstrap.hurry(desk.now);
        }
        assert_eq!(desk.due(), [0]);
        desk.bootstrap.hurry(desk.now);
        assert!(desk.due().is_empty(), "what is being dialed is not dialed twice");
    }

    #[test]
    fn nobody_dials_itself_or_one_address_twice() {
        let places = [
            with_peer(&address("/ip4/10.0.0.2/tcp/1"), &ME),
            address("/ip4/10.0.0.1/tcp/1"),
            address("/ip4/10.0.0.1/tcp/1"),
            address("/ip4/10.0.0.3/tcp/1"),
        ];
        let mut desk = Desk::new(&places);
        assert_eq!(desk.due(), [1, 2]);
        desk.bootstrap.own(1);
        desk.now += desk.timings.retry_most;
        assert!(desk.due().is_empty());
    }
}
