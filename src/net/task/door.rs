//! The door: how a connection comes to carry more than the door itself.
//!
//! The transport has proven whose key the other end has. Who is welcome by that name needs no more. Anybody else has the
//! door alone, where it shows its papers (a ticket, or its chain of admissions) within the time for proving. Whoever
//! dialed shows its chain first, since it chose whom to call; its ticket it shows only to whom it knows already, since
//! a ticket is good for whoever holds it. The other end shows its own to whom it has let in. Once both are let in, who
//! dialed connects once more.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use libp2p::Multiaddr;
use libp2p::request_response::{InboundRequestId, Message, OutboundFailure, ResponseChannel};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};

use super::Task;
use super::dials::Dial;
use super::heard::Asking;
use crate::kernel::id::PeerId;
use crate::kernel::io::Response;
use crate::net::client::{Direction, Papers};
use crate::net::event::{Event, ReplyToken};
use crate::net::names::{kernel_peer, swarm_peer};
use crate::net::roster::Waiting;
use crate::wire::response;

/// The most connections of strangers that others made, at once.
const MAX_STRANGERS: usize = 64;

/// The least time between two such connections with one peer.
const AGAIN: Duration = Duration::from_secs(2);

/// A connection that is made once more, now that both ends are let in.
pub(super) struct Again {
    pub(super) address: Multiaddr,
    pub(super) waiting: Waiting,
}

impl Task {
    /// A connection stands: whoever dialed shows its papers. Which of the two knows the other is not known yet.
    pub(super) fn knock(&mut self, peer: &PeerId, direction: Direction, open: bool) {
        if direction == Direction::Outbound {
            self.introduce(peer);
        } else if !open
            && self.roster.strangers() > MAX_STRANGERS
            && let Some(one) = self.roster.crowding()
        {
            self.turn_away(&one, "too many others have not shown yet that they belong to this mesh".to_owned());
        }
    }

    /// Closes all connections with a peer and lets none come about for this time.
    pub(super) fn keep_away(&mut self, peer: &PeerId, time: Duration) {
        let until = Instant::now() + time;
        self.swarm.behaviour_mut().away.keep(swarm_peer(peer), until);
        self.turn_away(peer, "it is kept away for a while".to_owned());
    }

    /// Who is let in has changed.
    pub(super) fn welcome(&mut self, peers: BTreeSet<PeerId>) {
        let gate = &mut self.swarm.behaviour_mut().inside;
        gate.let_in(peers.iter().map(swarm_peer).collect());
        self.meet_neighbours();
        for peer in self.roster.all() {
            if !peers.contains(&peer) {
                if self.roster.is_inside(&peer) {
                    self.turn_away(&peer, "it is no member of this mesh any more".to_owned());
                }
            } else if !self.roster.is_inside(&peer) {
                self.introduce(&peer);
                self.meet_again(&peer);
            }
        }
    }

    /// What this node shows has changed.
    pub(super) fn take_papers(&mut self, papers: Papers) {
        self.papers = papers;
        for peer in self.roster.awaiting_papers() {
            self.introduce(&peer);
        }
    }

    /// Shows this node's papers to a peer, once for each time that it comes.
    pub(super) fn introduce(&mut self, peer: &PeerId) {
        let known = self.swarm.behaviour().inside.is_welcome(&swarm_peer(peer));
        let ticket = self.papers.ticket.as_ref().filter(|_| known);
        let shown = self.papers.chain.as_ref().or(ticket).cloned();
        if let Some(bytes) = self.roster.introduce(peer, shown) {
            let sent = self.swarm.behaviour_mut().door.send_request(&swarm_peer(peer), bytes);
            self.shown.insert(sent, *peer);
        }
    }

    pub(super) fn on_door(&mut self, event: Asking) {
        match event {
            Asking::Message { peer, message: Message::Request { request_id, request, channel }, .. } => {
                self.on_papers(&peer, request_id, request, channel);
            }
            Asking::Message { message: Message::Response { request_id, response }, .. } => {
                if let Some(peer) = self.shown.remove(&request_id) {
                    self.on_judged(&peer, response);
                }
            }
            Asking::OutboundFailure { request_id, error, .. } => {
                if let Some(peer) = self.shown.remove(&request_id)
                    && !self.roster.is_proven(&peer)
                {
                    // A protocol that the other end does not have shows as a stream that breaks off.
                    let why = match error {
                        OutboundFailure::UnsupportedProtocols | OutboundFailure::Io(_) => {
                            "it does not answer at its door: it is a node of another mesh, or of another version, or busy"
                                .to_owned()
                        }
                        error => format!("it does not say whether it lets this node in: {error}"),
                    };
                    self.turn_away(&peer, why);
                }
            }
            Asking::InboundFailure { .. } | Asking::ResponseSent { .. } => {}
        }
    }

    /// A peer shows its papers.
    fn on_papers(
        &mut self,
        peer: &libp2p::PeerId,
        number: InboundRequestId,
        bytes: Vec<u8>,
        channel: ResponseChannel<Vec<u8>>,
    ) {
        let Some(from) = kernel_peer(peer) else { return };
        if self.swarm.behaviour().inside.is_welcome(peer) && !self.roster.is_proven(&from) {
            self.introduce(&from);
        }
        let now = Instant::now();
        let place = self.roster.place(&from);
        let may = place.is_some_and(|place| self.shown_from.take(place, now)) && self.door_rate.take(now);
        let share = if may { self.roster.door_share(&from, now) } else { None };
        let event = share.map(|share| Event::Request {
            from,
            bytes,
            token: ReplyToken { channel, at_door: true, from, number, share },
        });
        // Dropping the channel refuses.
        if event.is_none_or(|event| self.outbox.may(event).is_err()) {
            self.tallies.requests_refused.add(1);
        }
    }

    /// A peer says whether it lets this node in.
    fn on_judged(&mut self, peer: &PeerId, bytes: Vec<u8>) {
        match response::open(&bytes, &self.mesh) {
            Ok(response::Told::Kernel(Response::Admitted)) => {
                self.roster.accepted(peer);
                self.meet_again(peer);
            }
            _ if self.roster.is_proven(peer) => {}
            other => {
                let why = match other {
                    Ok(response::Told::Kernel(Response::Refused { why })) => why,
                    _ => "it does not say why".to_owned(),
                };
                self.outbox.must(Event::Denied { peer: *peer, bytes });
                self.turn_away(peer, format!("it does not let this node in: {why}"));
            }
        }
    }

    /// Connects once more when both ends are let in, where this end dialed.
    pub(super) fn meet_again(&mut self, peer: &PeerId) {
        if !self.swarm.behaviour().inside.is_welcome(&swarm_peer(peer)) {
            return;
        }
        let now = Instant::now();
        if self.met.get(peer).is_some_and(|at| now.duration_since(*at) < AGAIN) {
            // It says that it lets this node in and does not: the time for proving ends that.
            return;
        }
        if let Some((address, waiting)) = self.roster.meet_again(peer) {
            self.met.retain(|_, at| now.duration_since(*at) < AGAIN);
            self.met.insert(*peer, now);
            self.again.insert(*peer, Again { address, waiting });
            // It may have left just now.
            let _ = self.swarm.disconnect_peer_id(swarm_peer(peer));
        }
    }

    /// The connection that was to be made anew is closed.
    pub(super) fn dial_again(&mut self, peer: &PeerId) -> bool {
        let Some(Again { address, waiting }) = self.again.remove(peer) else { return false };
        let opts = DialOpts::peer_id(swarm_peer(peer))
            .condition(PeerCondition::Always)
            .addresses(vec![address])
            .allocate_new_port()
            .build();
        self.dial(opts, Dial::Again { peer: *peer, waiting });
        true
    }
}
