//! What the swarm reports, one function for each kind of report.

use std::io;
use std::time::Instant;

use libp2p::core::ConnectedPoint;
use libp2p::gossipsub::{self, MessageAcceptance};
use libp2p::request_response::{Event as AskEvent, InboundRequestId, Message, OutboundFailure, ResponseChannel};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, identify, ping};

use super::Task;
use super::dials::root_cause;
use crate::kernel::id::PeerId;
use crate::net::behaviour::{BehaviourEvent, InsideEvent};
use crate::net::client::Direction;
use crate::net::event::{Event, GossipToken, ReplyToken, Why};
use crate::net::names::{ip_of, is_of_this_host, is_relayed, kernel_peer, strip_peer, swarm_peer, with_peer};
use crate::wire::limits::{MAX_GOSSIP, MAX_KNOWN};
use crate::wire::peers;

pub(super) type Asking = AskEvent<Vec<u8>, Vec<u8>>;

impl Task {
    pub(super) fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Door(event)) => self.on_door(event),
            SwarmEvent::Behaviour(BehaviourEvent::Neighbours(event)) => self.on_neighbours(event),
            SwarmEvent::Behaviour(BehaviourEvent::Inside(event)) => match event {
                InsideEvent::Gossip(event) => self.on_gossip(event),
                InsideEvent::Ask(event) => self.on_ask(event),
                InsideEvent::Exchange(event) => self.on_exchange(event),
                InsideEvent::Identify(event) => self.on_identify(event),
                InsideEvent::Ping(event) => self.on_ping(event),
                InsideEvent::Relay(event) => self.on_relaying(&event),
                InsideEvent::Relayed(event) => self.on_relayed(&event),
                InsideEvent::Punch(event) => self.on_punched(&event),
            },
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_opened(peer_id, connection_id, endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                let why = cause.map_or_else(|| "it was closed".to_owned(), |cause| root_cause(&cause));
                self.on_closed(peer_id, connection_id, &why);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.on_dial_failed(connection_id, &error);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(from = %send_back_addr, error = %root_cause(&error), "an incoming connection failed");
            }
            // A relayed one is told of once its relay has agreed.
            SwarmEvent::NewListenAddr { address, .. } if !is_relayed(&address) => {
                self.outbox.must(Event::Listening(with_peer(&address, &self.me)));
                self.on_address(&address);
            }
            SwarmEvent::ExpiredListenAddr { address, .. } if !is_relayed(&address) => self.on_address_gone(&address),
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                self.on_place_closed(listener_id);
                if let Err(error) = reason {
                    self.on_deaf(addresses, &error);
                }
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "accepting a connection failed"),
            _ => {}
        }
    }

    fn on_opened(&mut self, peer: libp2p::PeerId, id: ConnectionId, endpoint: ConnectedPoint) {
        let Some(peer) = kernel_peer(&peer) else {
            tracing::debug!(%peer, "turned away: its key is not Ed25519");
            self.tallies.turned_away.add(1);
            self.swarm.close_connection(id);
            return self.on_dial_failed(id, &DialError::Aborted);
        };
        let now = Instant::now();
        let open = self.swarm.behaviour().inside.is_open(&swarm_peer(&peer), id);
        let relayed = endpoint.is_relayed();
        let (address, direction, here) = match endpoint {
            ConnectedPoint::Dialer { address, .. } => (address, Direction::Outbound, None),
            // What a relay brings comes from nowhere; where it came in tells by whom.
            ConnectedPoint::Listener { local_addr, .. } if relayed => {
                (with_peer(&local_addr, &peer), Direction::Inbound, None)
            }
            ConnectedPoint::Listener { local_addr, send_back_addr } => {
                let here = ip_of(&local_addr);
                if open {
                    self.came(&send_back_addr, local_addr);
                    self.leave_behind(&peer, now);
                }
                (send_back_addr, Direction::Inbound, here)
            }
        };
        let dialed = direction == Direction::Outbound;
        self.book.connected(peer, dialed.then(|| address.clone()), now);
        // Not one that was made by both ends at once: others cannot reach it there.
        if dialed && !relayed && self.dials.contains_key(&id) {
            self.relays.reached(peer, strip_peer(&address).0, now);
        }
        self.roster.opened(peer, id, address, direction, open, now);
        if let Some(here) = here {
            self.roster.stands_at(&peer, id, here);
        }
        self.dial_succeeded(id, peer);
        self.knock(&peer, direction, open);
        self.tick_soon();
    }

    fn on_closed(&mut self, peer: libp2p::PeerId, id: ConnectionId, why: &str) {
        let Some(peer) = kernel_peer(&peer) else { return };
        let Some(left) = self.roster.closed(&peer, id) else { return };
        self.relays.lost(&peer);
        let now = Instant::now();
        let why = left.turned_away.as_deref().unwrap_or(why);
        if left.proven {
            tracing::debug!(%peer, why, "disconnected");
            self.outbox.must(Event::Disconnected(peer));
        }
        for answer in left.waiting {
            // Whoever asked may have gone.
            let _ = answer.send(Err(why.to_owned()));
        }
        if self.dial_again(&peer) {
            return self.tick_soon();
        }
        self.book.disconnected(&peer, now, &mut self.jitter, &self.timings);
        if left.turned_away.is_some() {
            self.book.remove(&peer);
        }
        let notices = self.bootstrap.lost(&peer, why, now, &mut self.jitter, &self.timings);
        self.tell(notices);
        self.tick_soon();
    }

    fn on_deaf(&mut self, addresses: Vec<Multiaddr>, error: &io::Error) {
        for address in addresses.into_iter().filter(|address| !is_relayed(address)) {
            tracing::error!(%address, %error, "no longer listening");
            self.outbox.must(Event::Deaf { address, error: error.to_string() });
        }
    }

    /// The peer has shown that it belongs to this mesh.
    fn prove(&mut self, peer: &PeerId) {
        let Some(waiting) = self.roster.prove(peer) else { return };
        tracing::debug!(%peer, "connected");
        self.outbox.must(Event::Connected(*peer));
        for answer in waiting {
            // Whoever asked may have gone.
            let _ = answer.send(Ok(*peer));
        }
        let notices = self.bootstrap.proven(peer);
        self.tell(notices);
        self.exchange_with(peer);
    }

    /// Closes the connections with a peer that is none of this mesh.
    pub(super) fn turn_away(&mut self, peer: &PeerId, why: String) {
        tracing::debug!(%peer, why, "turned away");
        if self.roster.turn_away(peer, why) {
            self.tallies.turned_away.add(1);
        }
        // It may have left just now.
        let _ = self.swarm.disconnect_peer_id(swarm_peer(peer));
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                self.on_message(propagation_source, message_id, message);
            }
            gossipsub::Event::Subscribed { peer_id, topic } => {
                let (Some(peer), Some(topic)) = (kernel_peer(&peer_id), self.names.which(&topic)) else { return };
                if self.roster.subscribed(&peer, topic) {
                    self.prove(&peer);
                }
            }
            gossipsub::Event::SlowPeer { peer_id, failed_messages } => {
                let lost = failed_messages.priority + failed_messages.non_priority;
                self.tallies.slow_peers.add(lost);
                tracing::info!(peer = %peer_id, lost, "a peer is too slow: gossip for it was dropped");
            }
            gossipsub::Event::GossipsubNotSupported { peer_id } => {
                if let Some(peer) = kernel_peer(&peer_id) {
                    // It does not let this node in yet, or is of another mesh: the door tells.
                    self.introduce(&peer);
                }
            }
            gossipsub::Event::Unsubscribed { .. } => {}
        }
    }

    fn on_message(&mut self, source: libp2p::PeerId, id: gossipsub::MessageId, message: gossipsub::Message) {
        let token = |share| GossipToken { message: id.clone(), from: source, _share: share };
        let verdict = match (kernel_peer(&source), self.names.which(&message.topic)) {
            (Some(from), Some(topic)) if message.data.len() <= MAX_GOSSIP => {
                self.prove(&from);
                let share = self.roster.gossip_share(&from, message.data.len(), Instant::now());
                let event = share.map(|share| Event::Gossip { topic, from, bytes: message.data, token: token(share) });
                if event.is_some_and(|event| self.outbox.may(event).is_ok()) {
                    self.tallies.gossip_in.add(1);
                    return;
                }
                self.tallies.gossip_dropped.add(1);
                MessageAcceptance::Ignore
            }
            _ => {
                self.tallies.gossip_rejected.add(1);
                MessageAcceptance::Reject
            }
        };
        self.swarm.behaviour_mut().inside.inner.gossip.report_message_validation_result(&id, &source, verdict);
    }

    fn on_ask(&mut self, event: Asking) {
        match event {
            AskEvent::Message { peer, message: Message::Request { request_id, request, channel }, .. } => {
                self.on_request(peer, request_id, request, channel);
            }
            AskEvent::Message { message: Message::Response { request_id, response }, .. } => {
                match self.asked.ended(request_id) {
                    Some((id, from)) => self.outbox.must(Event::Response { id, from, bytes: response }),
                    None => self.tallies.responses_late.add(1),
                }
            }
            AskEvent::OutboundFailure { request_id, error, .. } => {
                if let Some((id, from)) = self.asked.ended(request_id) {
                    self.outbox.must(Event::Unanswered { id, from, why: why(error) });
                }
            }
            AskEvent::InboundFailure { peer, request_id, error, .. } => {
                tracing::debug!(%peer, %error, "a peer's request was not answered");
                self.answers.ended(request_id);
            }
            AskEvent::ResponseSent { request_id, .. } => self.answers.ended(request_id),
        }
    }

    fn on_request(
        &mut self,
        peer: libp2p::PeerId,
        number: InboundRequestId,
        bytes: Vec<u8>,
        channel: ResponseChannel<Vec<u8>>,
    ) {
        let Some(from) = kernel_peer(&peer) else { return };
        self.prove(&from);
        let share = self.roster.request_share(&from, Instant::now());
        let event = share.map(|share| Event::Request {
            from,
            bytes,
            token: ReplyToken { channel, at_door: false, from, number, share },
        });
        // Dropping the channel refuses.
        if event.is_none_or(|event| self.outbox.may(event).is_err()) {
            self.tallies.requests_refused.add(1);
        }
    }

    fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { peer_id, connection_id, info } = event else { return };
        let Some(peer) = kernel_peer(&peer_id) else { return };
        if info.protocols.contains(&self.names.ask) {
            let addresses = self.seen_from_here(&peer, info.listen_addrs);
            self.book.told_by_itself(peer, addresses, Instant::now());
            if self.roster.is_dialed(&peer, connection_id) {
                self.on_seen(&peer, connection_id, info.observed_addr);
            }
        } else {
            self.turn_away(&peer, "it is a node of another mesh, or of another version".to_owned());
        }
    }

    fn on_ping(&mut self, event: ping::Event) {
        let Some(peer) = kernel_peer(&event.peer) else { return };
        match event.result {
            Ok(rtt) => {
                self.roster.ponged(&peer, event.connection, rtt);
                // A measurement may be lost.
                let _ = self.outbox.may(Event::Rtt { peer, rtt });
            }
            Err(ping::Failure::Timeout) => {
                if self.roster.missed(&peer, event.connection) {
                    tracing::debug!(%peer, "a connection is given up: nothing comes back");
                    self.swarm.close_connection(event.connection);
                }
            }
            // A stream that broke says nothing about the connection; if that is gone too, it shows by itself.
            Err(error) => tracing::debug!(%peer, %error, "a ping failed"),
        }
    }

    /// Tells a peer where this node is, and asks it whom it knows.
    pub(super) fn exchange_with(&mut self, peer: &PeerId) {
        let own = self.own_addresses().iter().map(Multiaddr::to_vec).collect::<Vec<_>>();
        self.swarm.behaviour_mut().inside.inner.exchange.send_request(&swarm_peer(peer), peers::seal_question(own));
    }

    /// The same with one of the connected peers, if connections are wanted.
    pub(super) fn exchange_with_anybody(&mut self) {
        let proven: Vec<_> = self.roster.proven().collect();
        if proven.len() < self.connections
            && let Some(peer) = proven.get(self.jitter.below(proven.len()))
        {
            self.exchange_with(peer);
        }
    }

    fn on_exchange(&mut self, event: Asking) {
        let AskEvent::Message { peer, message, .. } = event else { return };
        let Some(peer) = kernel_peer(&peer) else { return };
        match message {
            Message::Request { request, channel, .. } => self.on_who_is_there(peer, &request, channel),
            Message::Response { response, .. } => match peers::open_answer(&response) {
                Ok(known) => self.on_peers(&peer, known),
                Err(error) => tracing::debug!(%peer, %error, "an answer with peers was not understood"),
            },
        }
    }

    fn on_who_is_there(&mut self, asker: PeerId, question: &[u8], channel: ResponseChannel<Vec<u8>>) {
        let now = Instant::now();
        match peers::open_question(question) {
            // Dropping the channel refuses.
            Ok(_) if !self.roster.may_exchange(&asker, now) => return,
            // Known before its own report arrives, so that of two newcomers the later learns of the earlier.
            Ok(own) => {
                let addresses = self.seen_from_here(&asker, multiaddrs(own));
                self.book.told_by_itself(asker, addresses, now);
            }
            Err(error) => return tracing::debug!(peer = %asker, %error, "a question for peers was not understood"),
        }
        let mut there: Vec<_> = self.roster.proven().filter(|peer| *peer != asker).collect();
        self.jitter.shuffle(&mut there);
        let known = there.into_iter().take(MAX_KNOWN).map(|peer| {
            let addresses = self.book.addresses(&peer);
            (peer, addresses.iter().map(Multiaddr::to_vec).collect())
        });
        let answer = peers::seal_answer(known);
        // The asker may have left just now.
        let _ = self.swarm.behaviour_mut().inside.inner.exchange.send_response(channel, answer);
    }

    fn on_peers(&mut self, teller: &PeerId, known: Vec<peers::Known>) {
        let now = Instant::now();
        for (peer, addresses) in known {
            let addresses = self.seen_from_here(teller, multiaddrs(addresses));
            self.book.told(peer, addresses, now, &self.timings);
        }
        self.dial_known(now);
        self.tick_soon();
    }

    /// The addresses without those that mean another host when another host says them.
    fn seen_from_here(&self, teller: &PeerId, mut addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
        let near = self.roster.is_near(teller);
        addresses.retain(|address| near || !is_of_this_host(address));
        addresses
    }
}

/// Those that are addresses.
fn multiaddrs(addresses: Vec<Vec<u8>>) -> Vec<Multiaddr> {
    addresses.into_iter().filter_map(|address| Multiaddr::try_from(address).ok()).collect()
}

fn why(failure: OutboundFailure) -> Why {
    match failure {
        OutboundFailure::DialFailure => Why::NotConnected,
        OutboundFailure::Timeout => Why::Timeout,
        OutboundFailure::ConnectionClosed => Why::Lost,
        OutboundFailure::UnsupportedProtocols => Why::Refused,
        OutboundFailure::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => Why::Refused,
        OutboundFailure::Io(error) => Why::Broken(error.to_string()),
    }
}
