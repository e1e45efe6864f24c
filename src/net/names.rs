//! What peers, protocols and topics are called.

use std::net::IpAddr;

use libp2p::gossipsub::{IdentTopic, TopicHash};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, StreamProtocol};

use super::NetError;
use super::event::Topic;
use crate::kernel::id::{MeshId, PeerId};

/// The names that the nodes of one mesh share.
pub(super) struct Names {
    pub(super) gossip: String,
    pub(super) ask: StreamProtocol,
    pub(super) exchange: StreamProtocol,
    pub(super) door: StreamProtocol,
    pub(super) identify: String,
    pub(super) entries: IdentTopic,
    pub(super) presence: IdentTopic,
}

impl Names {
    pub(super) fn of(mesh: &MeshId) -> Result<Self, NetError> {
        let name = |what: &str| format!("/runmesh/1/{}/{what}", mesh.short());
        let protocol =
            |what| StreamProtocol::try_from_owned(name(what)).map_err(|error| NetError::Setup(error.to_string()));
        Ok(Self {
            gossip: name("gossip"),
            ask: protocol("ask")?,
            exchange: protocol("peers")?,
            door: protocol("door")?,
            identify: format!("/runmesh/1/{}", mesh.short()),
            entries: IdentTopic::new(name("entries")),
            presence: IdentTopic::new(name("presence")),
        })
    }

    pub(super) const fn topic(&self, topic: Topic) -> &IdentTopic {
        match topic {
            Topic::Entries => &self.entries,
            Topic::Presence => &self.presence,
        }
    }

    pub(super) fn which(&self, hash: &TopicHash) -> Option<Topic> {
        [Topic::Entries, Topic::Presence].into_iter().find(|topic| self.topic(*topic).hash() == *hash)
    }
}

/// The kernel's name for a peer; only Ed25519 peers have one.
pub(super) fn kernel_peer(peer: &libp2p::PeerId) -> Option<PeerId> {
    PeerId::from_bytes(&peer.to_bytes()).ok()
}

/// libp2p's name for a peer.
pub(super) fn swarm_peer(peer: &PeerId) -> libp2p::PeerId {
    match libp2p::PeerId::from_bytes(&peer.to_bytes()) {
        Ok(peer) => peer,
        Err(error) => unreachable!("a kernel peer id is libp2p's binary form: {error}"),
    }
}

/// The address with the peer's name behind it.
pub fn with_peer(address: &Multiaddr, peer: &PeerId) -> Multiaddr {
    strip_peer(address).0.with(Protocol::P2p(swarm_peer(peer)))
}

/// The peer that the address names, where it ends with `/p2p/…`.
pub fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    strip_peer(address).1.as_ref().and_then(kernel_peer)
}

/// The address without the peer's name, and the name.
pub(super) fn strip_peer(address: &Multiaddr) -> (Multiaddr, Option<libp2p::PeerId>) {
    let mut bare = address.clone();
    match bare.pop() {
        Some(Protocol::P2p(peer)) => (bare, Some(peer)),
        _ => (address.clone(), None),
    }
}

/// Whether QUIC carries it. A peer that dies over TCP is noticed at once, because its host closes the connection; over
/// QUIC only silence tells. So TCP is tried first wherever there is a choice.
pub(super) fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::QuicV1))
}

/// Whether a relay carries it.
pub(super) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::P2pCircuit))
}

/// The address of somebody for whom that relay keeps a place, without its name.
pub(super) fn relayed_by(address: &Multiaddr, relay: &PeerId) -> Multiaddr {
    with_peer(address, relay).with(Protocol::P2pCircuit)
}

/// Of a relayed address, where the relay itself is, and who it is.
pub(super) fn relay_of(address: &Multiaddr) -> Option<(Multiaddr, PeerId)> {
    if !is_relayed(address) {
        return None;
    }
    let relay: Multiaddr = address.iter().take_while(|part| !matches!(part, Protocol::P2pCircuit)).collect();
    let (place, peer) = strip_peer(&relay);
    Some((place, kernel_peer(&peer?)?))
}

/// The address at which somebody who is no member yet gets into the mesh: relays carry members alone, so of a relayed
/// address that of the relay.
pub fn door_of(address: &Multiaddr) -> Multiaddr {
    match relay_of(address) {
        Some((place, relay)) => with_peer(&place, &relay),
        None => address.clone(),
    }
}

/// The address's IP address, where it begins with one.
pub(super) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(ip.into()),
        Some(Protocol::Ip6(ip)) => Some(ip.into()),
        _ => None,
    }
}

/// Whether an address means different hosts in different networks: RFC 1918, RFC 6598 (carriers' address translation),
/// RFC 4193, and those of a host or a link alone.
pub(super) fn is_private(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let carrier = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || carrier
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified(),
    }
}

/// The order in which addresses are kept and told where there is no room for all: what most can reach first.
pub(super) fn farness(address: &Multiaddr) -> u8 {
    match ip_of(address) {
        _ if is_relayed(address) => 1,
        Some(ip) if ip.is_loopback() => 3,
        Some(ip) if is_private(&ip) => 2,
        _ => 0,
    }
}

/// Whether another node might reach somebody there. Addresses of one link alone mean nothing without its name, which
/// no other host knows.
pub(super) fn is_reachable(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => !ip.is_unspecified() && !ip.is_link_local(),
        Some(Protocol::Ip6(ip)) => !ip.is_unspecified() && !ip.is_unicast_link_local(),
        Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Memory(_)) => true,
        _ => false,
    }
}

/// Whether it leads to this host alone. Said by another host, it means that one.
pub(super) fn is_of_this_host(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        Some(Protocol::Memory(_)) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_peers_are_translated_both_ways() {
        let keypair = libp2p::identity::Keypair::ed25519_from_bytes([3; 32]).expect("a key");
        let theirs = keypair.public().to_peer_id();
        let ours = kernel_peer(&theirs).expect("ed25519");
        assert_eq!(ours.to_string(), theirs.to_string());
        assert_eq!(swarm_peer(&ours), theirs);
        assert_eq!(kernel_peer(&libp2p::PeerId::random()), None, "a hashed name hides its key");
    }

    #[test]
    fn addresses_are_told_apart() {
        let peer = PeerId::from_public_key([7; 32]);
        let tcp: Multiaddr = "/ip4/10.0.0.1/tcp/4001".parse().expect("an address");
        let full = with_peer(&tcp, &peer);
        assert_eq!(full.to_string(), format!("{tcp}/p2p/{peer}"));
        assert_eq!(with_peer(&full, &peer), full);
        assert_eq!(strip_peer(&full), (tcp.clone(), Some(swarm_peer(&peer))));
        assert_eq!(strip_peer(&tcp), (tcp.clone(), None));
        assert!(!is_quic(&tcp) && is_quic(&"/ip4/10.0.0.1/udp/1/quic-v1".parse().expect("an address")));
        assert!(!is_of_this_host(&tcp) && is_of_this_host(&"/ip6/::1/tcp/1".parse().expect("an address")));
        assert!(is_reachable(&tcp));
        for nowhere in ["/ip4/0.0.0.0/tcp/1", "/ip6/::/tcp/1", "/ip6/fe80::1/tcp/1", "/ip4/169.254.3.4/tcp/1"] {
            assert!(!is_reachable(&nowhere.parse().expect("an address")), "{nowhere}");
        }
    }

    #[test]
    fn relayed_addresses_name_their_relay() {
        let (relay, peer) = (PeerId::from_public_key([7; 32]), PeerId::from_public_key([8; 32]));
        let place: Multiaddr = "/dns4/a.example/tcp/4001".parse().expect("an address");
        let relayed = with_peer(&relayed_by(&with_peer(&place, &relay), &relay), &peer);
        assert_eq!(relayed.to_string(), format!("{place}/p2p/{relay}/p2p-circuit/p2p/{peer}"));
        assert_eq!(relay_of(&relayed), Some((place.clone(), relay)));
        assert_eq!(peer_of(&relayed), Some(peer));
        assert_eq!(door_of(&relayed), with_peer(&place, &relay));
        assert_eq!((relay_of(&place), door_of(&place)), (None, place));
        assert!(is_relayed(&relayed) && is_reachable(&relayed) && !is_of_this_host(&relayed));
        // As it is told to others, with the longest name that there is.
        let name = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
        let place: Multiaddr = format!("/dns4/{name}/udp/65535/quic-v1").parse().expect("an address");
        assert!(relayed_by(&place, &relay).to_vec().len() <= crate::wire::limits::MAX_ADDRESS);
    }

    #[test]
    fn what_most_can_reach_comes_first() {
        let order = [
            "/ip4/203.0.113.1/tcp/1",
            "/ip4/203.0.113.1/tcp/1/p2p/12D3KooWQtBm18bMKpooYXGJ1H1sS6FtanQnU19mHJN1rmhvh8bM/p2p-circuit",
            "/ip4/100.64.0.1/tcp/1",
            "/ip6/::1/tcp/1",
        ];
        let ranks = order.map(|address| farness(&address.parse().expect("an address")));
        assert_eq!(ranks, [0, 1, 2, 3]);
    }
}
