//! What carries the bytes: TCP with Noise and Yamux, QUIC, channels within the process, or another member.
//!
//! With a swarm key there is no QUIC: its packets would show what speaks there before any key is asked for. A relayed
//! connection is made of streams of such connections, so it is hidden as they are.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::transport::{Boxed, MemoryTransport};
use libp2p::core::upgrade::Version;
use libp2p::futures::future::Either;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::pnet::PnetConfig;
use libp2p::{Multiaddr, PeerId, Transport as _, dns, noise, quic, relay, tcp, yamux};
use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};

use super::names::is_quic;
use super::{NetError, SwarmKey, Transport};

/// The most streams of one connection; each kind of exchange limits its own further.
const MAX_STREAMS: usize = 128;
/// QUIC notices a dead peer by silence alone, so it asks this often and waits that long, in milliseconds.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(2);
const QUIC_SILENCE_MS: u32 = 6_000;

pub(super) type Carrier = Boxed<(PeerId, StreamMuxerBox)>;

/// A transport on which a connection must stand within `dial`, and what has connections relayed.
pub(super) fn build(
    kind: Transport,
    key: &Keypair,
    swarm_key: Option<SwarmKey>,
    dial: Duration,
) -> Result<(Carrier, relay::client::Behaviour), NetError> {
    let (relayed, client) = relay::client::new(key.public().to_peer_id());
    let (noise, yamux) = upgrades(key)?;
    let relayed = relayed.upgrade(Version::V1Lazy).authenticate(noise).multiplex(yamux);
    let both = relayed.or_transport(direct(kind, key, swarm_key)?).map(|either, _| match either {
        Either::Left((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
        Either::Right(carried) => carried,
    });
    Ok((TransportTimeout::new(both, dial).boxed(), client))
}

fn direct(kind: Transport, key: &Keypair, swarm_key: Option<SwarmKey>) -> Result<Carrier, NetError> {
    match (kind, swarm_key) {
        (Transport::Memory, _) => {
            let (noise, yamux) = upgrades(key)?;
            Ok(MemoryTransport::new().upgrade(Version::V1Lazy).authenticate(noise).multiplex(yamux).boxed())
        }
        (Transport::Network, Some(swarm_key)) => with_names(|| hidden_tcp(key, swarm_key)),
        (Transport::Network, None) => with_names(|| tcp_and_quic(key)),
    }
}

fn with_names(transport: impl Fn() -> Result<Carrier, NetError>) -> Result<Carrier, NetError> {
    let named = match dns::tokio::Transport::system(transport()?) {
        Ok(named) => named,
        // Without them everything else must still work.
        Err(error) => {
            tracing::warn!(%error, "no name service settings can be read: addresses with names are not found");
            let nobody = dns::ResolverConfig::from_parts(None, Vec::new(), Vec::new());
            dns::tokio::Transport::custom(transport()?, nobody, dns::ResolverOpts::default())
        }
    };
    Ok(named.boxed())
}

/// Whether this host speaks IPv6 at all; a kernel may be built or started without it.
pub fn has_ipv6() -> bool {
    socket(AddressFamily::INET6, SocketType::STREAM, None).is_ok()
}

/// What a person can do something about when that cannot be listened on.
pub(super) fn why_deaf(address: &Multiaddr, error: &io::Error) -> String {
    match address.iter().next() {
        Some(Protocol::Ip6(_)) if !has_ipv6() => "this host has no IPv6".to_owned(),
        _ => error.to_string(),
    }
}

/// Whether that can be listened on with a swarm key.
///
/// # Errors
/// Why not, and what to do.
pub(super) fn hides(address: &Multiaddr) -> Result<(), String> {
    match is_quic(address) {
        true => {
            Err("a swarm key covers TCP only, and QUIC would show that a node is there; leave this address out"
                .to_owned())
        }
        false => Ok(()),
    }
}

/// Whether nobody else listens there. libp2p shares its ports (SO_REUSEPORT), so a second node of the same user would be
/// given one, and half of the other's connections.
///
/// # Errors
/// What the host says about it.
pub(super) fn probe(address: &Multiaddr) -> io::Result<()> {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::from(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::from(ip),
        _ => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => probe_tcp(SocketAddr::new(ip, port)),
        Some(Protocol::Udp(port)) if port != 0 => probe_udp(SocketAddr::new(ip, port)),
        _ => Ok(()),
    }
}

/// As libp2p listens: what comes by IPv4 is no matter of an IPv6 socket.
fn probe_tcp(address: SocketAddr) -> io::Result<()> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::STREAM, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    Ok(rustix::net::listen(&socket, 1)?)
}

fn probe_udp(address: SocketAddr) -> io::Result<()> {
    if address.is_ipv4() {
        return UdpSocket::bind(address).map(drop);
    }
    let socket = socket(AddressFamily::INET6, SocketType::DGRAM, None)?;
    sockopt::set_ipv6_v6only(&socket, true)?;
    Ok(bind(&socket, &address)?)
}

fn hidden_tcp(key: &Keypair, swarm_key: SwarmKey) -> Result<Carrier, NetError> {
    let (noise, yamux) = upgrades(key)?;
    let hidden = PnetConfig::new(swarm_key.0);
    let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
        .and_then(move |socket, _| hidden.handshake(socket))
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux);
    Ok(tcp.boxed())
}

fn tcp_and_quic(key: &Keypair) -> Result<Carrier, NetError> {
    let (noise, yamux) = upgrades(key)?;
    let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux);
    let mut config = quic::Config::new(key);
    config.keep_alive_interval = QUIC_KEEP_ALIVE;
    config.max_idle_timeout = QUIC_SILENCE_MS;
    let both = quic::tokio::Transport::new(config).or_transport(tcp).map(|either, _| match either {
        Either::Left((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
        Either::Right((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
    });
    Ok(both.boxed())
}

fn upgrades(key: &Keypair) -> Result<(noise::Config, yamux::Config), NetError> {
    let noise = noise::Config::new(key).map_err(|error| NetError::Setup(format!("noise: {error}")))?;
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(MAX_STREAMS);
    Ok((noise, yamux))
}
