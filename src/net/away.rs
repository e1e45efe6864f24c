//! Who gets no connection at all for a while.
//!
//! It stands before all other behaviours but the limits: one that has let a connection in must not learn of its end by
//! another's refusal (request-response keeps such a connection for ever).

use std::collections::HashMap;
use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Instant;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};
use libp2p::{Multiaddr, PeerId};

/// Why a connection does not come about.
#[derive(Debug, thiserror::Error)]
#[error("the peer is kept away for a while")]
struct KeptAway;

#[derive(Default)]
pub(super) struct Away {
    until: HashMap<PeerId, Instant>,
}

impl Away {
    /// Lets no connection with that peer come about until then.
    pub(super) fn keep(&mut self, peer: PeerId, until: Instant) {
        let now = Instant::now();
        self.until.retain(|_, until| *until > now);
        self.until.insert(peer, until);
    }

    fn check(&self, peer: &PeerId) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        match self.until.get(peer) {
            Some(until) if *until > Instant::now() => Err(ConnectionDenied::new(KeptAway)),
            _ => Ok(dummy::ConnectionHandler),
        }
    }
}

impl NetworkBehaviour for Away {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(&peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(&peer)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}
