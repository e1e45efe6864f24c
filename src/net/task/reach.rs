//! Reaching whom one cannot dial: relays, holes in address translators, neighbours on the LAN, and addresses that change.
//!
//! A relay is a carrier and no more: the far end of a relayed connection comes through the gate and the door as any other.
//! Relays serve members alone, for their protocol stands behind the gate. What is relayed and could be direct is made
//! direct; then the relayed connection is closed.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p::core::transport::ListenerId;
use libp2p::{Multiaddr, dcutr, mdns, relay};

use super::Task;
use super::dials::root_cause;
use crate::kernel::id::PeerId;
use crate::net::event::Event;
use crate::net::names::{
    farness, ip_of, is_of_this_host, is_reachable, is_relayed, kernel_peer, relay_of, relayed_by, strip_peer,
    swarm_peer, with_peer,
};

/// How long a direct connection has stood before the relayed ones beside it are closed: what was asked by them is answered.
const SETTLED: Duration = Duration::from_secs(3);
/// Connections with one peer that came about within so long of each other may both be good.
const ANEW: Duration = Duration::from_secs(10);
/// The most of this host's addresses that relayed connections may come in by, and neighbours that are remembered.
const MAX_SERVED: usize = 8;
const MAX_NEIGHBOURS: usize = 256;
/// The least time between two rounds of trying everybody again because this host has got another address.
const HURRY: Duration = Duration::from_secs(1);

impl Task {
    /// Where others can reach this node, what most of them can reach first.
    pub(super) fn own_addresses(&self) -> Vec<Multiaddr> {
        let mut own: Vec<_> = self.direct_addresses().filter(is_reachable).chain(self.relays.addresses()).collect();
        own.sort_by_key(farness);
        own.retain(|address| !self.announce.contains(address));
        self.announce.iter().cloned().chain(own).collect()
    }

    fn direct_addresses(&self) -> impl Iterator<Item = Multiaddr> {
        self.swarm.listeners().filter(|address| !is_relayed(address)).cloned()
    }

    /// A member has come by itself, from there to that address of this node.
    pub(super) fn came(&mut self, from: &Multiaddr, to: Multiaddr) {
        self.relays.came(from);
        // What a relay tells those for whom it keeps a place; it keeps none without.
        if self.served.len() < MAX_SERVED && self.served.insert(to.clone()) {
            self.swarm.add_external_address(to);
        }
    }

    /// Asks members to relay for this node, where that is needed.
    pub(super) fn ask_relays(&mut self, now: Instant) {
        let own: Vec<_> = self.direct_addresses().collect();
        for (relay, address) in self.relays.due(&own, now, &mut self.jitter) {
            if !self.roster.is_proven(&relay) {
                continue;
            }
            match self.swarm.listen_on(relayed_by(&address, &relay)) {
                Ok(place) => self.relays.asked(&relay, place),
                Err(error) => {
                    tracing::debug!(%relay, error = %root_cause(&error), "a member cannot be asked to relay");
                    self.relays.failed(&relay, now, &mut self.jitter);
                }
            }
        }
    }

    pub(super) fn on_relayed(&mut self, event: &relay::client::Event) {
        let relay::client::Event::ReservationReqAccepted { relay_peer_id, .. } = event else { return };
        let Some(relay) = kernel_peer(relay_peer_id) else { return };
        if !self.relays.held(&relay) {
            return;
        }
        tracing::info!(%relay, "others reach this node through a member that relays");
        for address in self.relays.addresses().filter(|address| relay_of(address).is_some_and(|(_, of)| of == relay)) {
            self.outbox.must(Event::Listening(with_peer(&address, &self.me)));
        }
        // Of two that cannot dial each other, the later to get its place hears of the other's now.
        for peer in self.roster.proven().collect::<Vec<_>>() {
            self.exchange_with(&peer);
        }
    }

    pub(super) fn on_relaying(&self, event: &relay::Event) {
        match event {
            relay::Event::ReservationReqDenied { src_peer_id, status } => {
                tracing::warn!(peer = %src_peer_id, ?status, "a member was not given a place: as many as are kept are taken");
            }
            relay::Event::CircuitReqDenied { src_peer_id, dst_peer_id, status } => {
                tracing::debug!(from = %src_peer_id, to = %dst_peer_id, ?status, "a connection was not relayed");
            }
            relay::Event::ReservationReqAccepted { src_peer_id, renewed: false } => {
                tracing::debug!(peer = %src_peer_id, "a place is kept for a member");
            }
            relay::Event::CircuitReqAccepted { src_peer_id, dst_peer_id } => {
                tracing::debug!(from = %src_peer_id, to = %dst_peer_id, "a connection is relayed");
            }
            // That comes with every connection that ends.
            _ => {}
        }
    }

    pub(super) fn on_punched(&self, event: &dcutr::Event) {
        match &event.result {
            Ok(_) => tracing::debug!(peer = %event.remote_peer_id, "a relayed connection has become a direct one"),
            Err(error) => {
                let error = root_cause(error);
                tracing::debug!(peer = %event.remote_peer_id, error, "a connection stays relayed");
            }
        }
    }

    /// A place at a relay is no more.
    pub(super) fn on_place_closed(&mut self, place: ListenerId) {
        self.relays.closed(place, Instant::now(), &mut self.jitter);
        self.tick_soon();
    }

    /// Closes relayed connections beside which a direct one stands.
    pub(super) fn leave_relays(&mut self, now: Instant) {
        for id in self.roster.needless(now, SETTLED) {
            self.swarm.close_connection(id);
        }
    }

    pub(super) fn on_neighbours(&mut self, event: mdns::Event) {
        match event {
            mdns::Event::Discovered(found) => {
                for (peer, address) in found {
                    let Some(peer) = kernel_peer(&peer) else { continue };
                    let known = self.neighbours.contains_key(&peer) || self.neighbours.len() < MAX_NEIGHBOURS;
                    if known && !is_of_this_host(&address) && !is_relayed(&address) {
                        self.neighbours.entry(peer).or_default().insert(strip_peer(&address).0);
                    }
                }
                self.meet_neighbours();
            }
            mdns::Event::Expired(gone) => {
                for (peer, address) in gone {
                    let Some(peer) = kernel_peer(&peer) else { continue };
                    if let Some(addresses) = self.neighbours.get_mut(&peer) {
                        addresses.remove(&strip_peer(&address).0);
                    }
                }
                self.neighbours.retain(|_, addresses| !addresses.is_empty());
            }
        }
    }

    /// Takes note of where members are on the LAN. Whoever else says that it is there is not dialed.
    pub(super) fn meet_neighbours(&mut self) {
        let now = Instant::now();
        for (peer, addresses) in &self.neighbours {
            if self.swarm.behaviour().inside.is_welcome(&swarm_peer(peer)) {
                self.book.told(*peer, addresses.iter().cloned().collect(), now, &self.timings);
            }
        }
        self.tick_soon();
    }

    /// A peer comes anew. Nobody dials whom it is connected with, so what has stood for longer than two that dial each
    /// other at once is dead at its end: it has moved, slept or begun a new life. Here nothing else would tell for long.
    pub(super) fn leave_behind(&mut self, peer: &PeerId, now: Instant) {
        for id in self.roster.older(peer, now, ANEW) {
            self.swarm.close_connection(id);
        }
    }

    /// A peer says as what it sees this node, through a connection that this node has made.
    pub(super) fn on_seen(&mut self, peer: &PeerId, id: libp2p::swarm::ConnectionId, seen: Multiaddr) {
        let own: Vec<IpAddr> = self.direct_addresses().filter_map(|address| ip_of(&address)).collect();
        if let Some(ip) = ip_of(&seen).filter(|ip| own.contains(ip)) {
            self.roster.stands_at(peer, id, ip);
        }
        self.relays.seen(peer, seen);
        self.tick_soon();
    }

    /// This host has another address: what could not be reached may be reached now.
    pub(super) fn on_address(&mut self, address: &Multiaddr) {
        let now = Instant::now();
        if is_of_this_host(address) || now.duration_since(self.hurried) < HURRY {
            return;
        }
        self.hurried = now;
        self.bootstrap.hurry(now);
        self.book.hurry(now);
        self.tick_soon();
    }

    /// This host has an address no more: the connections that stood there are dead, and nothing else would tell for long.
    pub(super) fn on_address_gone(&mut self, address: &Multiaddr) {
        let Some(ip) = ip_of(address) else { return };
        if self.direct_addresses().any(|own| ip_of(&own) == Some(ip)) {
            // Another listener still has it, or the same one by another port.
            return;
        }
        for id in self.roster.standing_at(&ip) {
            self.swarm.close_connection(id);
        }
    }
}
