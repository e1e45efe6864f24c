//! How many from one place may be shaking hands at once.
//!
//! Whoever connects and says nothing holds one of the few connections whose handshake has not ended, for as long as a
//! handshake may take, and need not be a member for it. What all may is counted beside it; this sees to it that one
//! place leaves room for the others. What comes by a relay has no place, and comes from members alone.

use std::collections::HashMap;
use std::convert::Infallible;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};
use libp2p::{Multiaddr, PeerId};

use super::crowd::Place;
use super::names::ip_of;

/// Why a connection does not come about.
#[derive(Debug, thiserror::Error)]
#[error("too many connections from there have not shown yet who they are")]
struct TooMany;

pub(super) struct Arrivals {
    /// The most of one place.
    most: usize,
    pending: HashMap<ConnectionId, Place>,
}

impl Arrivals {
    pub(super) fn new(most: usize) -> Self {
        Self { most, pending: HashMap::new() }
    }

    fn arrives(&mut self, id: ConnectionId, from: &Multiaddr) -> Result<(), TooMany> {
        if ip_of(from).is_none() {
            return Ok(());
        }
        let place = Place::of(from);
        // There are few, as all pending ones together have a limit.
        if self.pending.values().filter(|other| **other == place).count() >= self.most {
            return Err(TooMany);
        }
        self.pending.insert(id, place);
        Ok(())
    }

    fn is_over(&mut self, id: ConnectionId) {
        self.pending.remove(&id);
    }
}

impl NetworkBehaviour for Arrivals {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.arrives(id, from).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.is_over(id);
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        // Also where another behaviour has refused it.
        if let FromSwarm::ListenFailure(failure) = event {
            self.is_over(failure.connection_id);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_leaves_room_for_others_until_its_handshakes_end() {
        let mut arrivals = Arrivals::new(3);
        let mut arrives = |number: usize, from: &str| {
            arrivals.arrives(ConnectionId::new_unchecked(number), &from.parse().expect("an address")).is_ok()
        };
        assert!((0..3).all(|n| arrives(n, &format!("/ip4/192.0.2.{n}/tcp/1"))));
        assert!(!arrives(3, "/ip4/192.0.2.7/tcp/1") && !arrives(4, "/ip6/::ffff:192.0.2.7/udp/1/quic-v1"));
        assert!(arrives(5, "/ip4/198.51.100.7/tcp/1"), "another place");
        let relayed = "/p2p/12D3KooWQtBm18bMKpooYXGJ1H1sS6FtanQnU19mHJN1rmhvh8bM";
        assert!((10..20).all(|n| arrives(n, relayed)), "what comes by a relay");
        arrivals.is_over(ConnectionId::new_unchecked(1));
        assert!(
            arrivals.arrives(ConnectionId::new_unchecked(6), &"/ip4/192.0.2.7/tcp/1".parse().expect("one")).is_ok()
        );
        assert_eq!(arrivals.pending.len(), 4);
    }
}
