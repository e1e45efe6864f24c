//! The gate: what a connection carries before its other end has proven that it is a member.
//!
//! Whoever is not welcome when a connection comes about gets none of the inner protocols on it: its streams for them are
//! refused before a byte of them is read, and nothing is told to it. Only the door (`super::behaviour`) is there for
//! everybody. A connection stays what it was when it came about; who is let in meanwhile connects once more.

use std::collections::{BTreeSet, HashMap};
use std::task::{Context, Poll};

use either::Either;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

pub(super) struct Gate<B> {
    pub(super) inner: B,
    welcome: BTreeSet<PeerId>,
    /// The connections that carry the inner protocols.
    open: HashMap<PeerId, Vec<ConnectionId>>,
}

impl<B> Gate<B> {
    pub(super) fn new(inner: B, welcome: BTreeSet<PeerId>) -> Self {
        Self { inner, welcome, open: HashMap::new() }
    }

    /// Lets these in from now on and nobody else. Connections that stand are not touched.
    pub(super) fn let_in(&mut self, welcome: BTreeSet<PeerId>) {
        self.welcome = welcome;
    }

    pub(super) fn is_welcome(&self, peer: &PeerId) -> bool {
        self.welcome.contains(peer)
    }

    /// Whether the connection carries the inner protocols.
    pub(super) fn is_open(&self, peer: &PeerId, id: ConnectionId) -> bool {
        self.open.get(peer).is_some_and(|open| open.contains(&id))
    }

    fn opened(&mut self, peer: PeerId, id: ConnectionId) {
        self.open.entry(peer).or_default().push(id);
    }

    /// Forgets a connection. Returns how many open ones are left with that peer, if it was one.
    fn closed(&mut self, peer: &PeerId, id: ConnectionId) -> Option<usize> {
        let open = self.open.get_mut(peer)?;
        let before = open.len();
        open.retain(|other| *other != id);
        let left = open.len();
        if left == 0 {
            self.open.remove(peer);
        }
        (left < before).then_some(left)
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Gate<B> {
    type ConnectionHandler = Either<THandler<B>, dummy::ConnectionHandler>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.is_welcome(&peer) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        let handler = self.inner.handle_established_inbound_connection(id, peer, local, remote)?;
        self.opened(peer, id);
        Ok(Either::Left(handler))
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(id, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.is_welcome(&peer) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        let handler = self.inner.handle_established_outbound_connection(id, peer, address, role, port)?;
        self.opened(peer, id);
        Ok(Either::Left(handler))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => {
                // The inner protocols do not know of the others.
                if self.is_open(&event.peer_id, event.connection_id) {
                    let other_established = self.open.get(&event.peer_id).map_or(0, |open| open.len() - 1);
                    let event = ConnectionEstablished { other_established, ..event };
                    self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(event));
                }
            }
            FromSwarm::ConnectionClosed(event) => {
                if let Some(remaining_established) = self.closed(&event.peer_id, event.connection_id) {
                    let event = ConnectionClosed { remaining_established, ..event };
                    self.inner.on_swarm_event(FromSwarm::ConnectionClosed(event));
                }
            }
            FromSwarm::AddressChange(event) if !self.is_open(&event.peer_id, event.connection_id) => {}
            FromSwarm::DialFailure(event) => {
                // Another behaviour may have turned it away after this one had let it in.
                if let Some(peer) = event.peer_id {
                    self.closed(&peer, event.connection_id);
                }
                self.inner.on_swarm_event(FromSwarm::DialFailure(event));
            }
            FromSwarm::ListenFailure(event) => {
                if let Some(peer) = event.peer_id {
                    self.closed(&peer, event.connection_id);
                }
                self.inner.on_swarm_event(FromSwarm::ListenFailure(event));
            }
            other => self.inner.on_swarm_event(other),
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            Either::Left(event) => self.inner.on_connection_handler_event(peer, id, event),
            Either::Right(never) => match never {},
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            match std::task::ready!(self.inner.poll(context)) {
                ToSwarm::NotifyHandler { peer_id, handler, event } => {
                    let id = match handler {
                        // The relay names the other end of what it carries as the peer; the connection tells.
                        NotifyHandler::One(id) => self.open.values().flatten().find(|open| **open == id),
                        NotifyHandler::Any => self.open.get(&peer_id).and_then(|open| open.first()),
                    };
                    if let Some(id) = id {
                        let (handler, event) = (NotifyHandler::One(*id), Either::Left(event));
                        return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event });
                    }
                }
                other => return Poll::Ready(other.map_in(Either::Left)),
            }
        }
    }
}
