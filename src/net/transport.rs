//! What carries the bytes: TCP with Noise and Yamux, QUIC, or channels within the process.

use std::io;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::time::Duration;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::transport::{Boxed, MemoryTransport};
use libp2p::core::upgrade::Version;
use libp2p::futures::future::Either;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, Transport as _, dns, noise, quic, tcp, yamux};

use super::{NetError, Transport};

/// The most streams of one connection; each kind of exchange limits its own further.
const MAX_STREAMS: usize = 128;
/// QUIC notices a dead peer by silence alone, so it asks this often and waits that long, in milliseconds.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(2);
const QUIC_SILENCE_MS: u32 = 6_000;

pub(super) type Carrier = Boxed<(PeerId, StreamMuxerBox)>;

/// A transport on which a connection must stand within `dial`.
pub(super) fn build(kind: Transport, key: &Keypair, dial: Duration) -> Result<Carrier, NetError> {
    match kind {
        Transport::Memory => {
            let (noise, yamux) = upgrades(key)?;
            let memory = MemoryTransport::new().upgrade(Version::V1Lazy).authenticate(noise).multiplex(yamux).boxed();
            Ok(TransportTimeout::new(memory, dial).boxed())
        }
        Transport::Network => {
            let named = match dns::tokio::Transport::system(tcp_and_quic(key)?) {
                Ok(named) => named,
                // Without them everything else must still work.
                Err(error) => {
                    tracing::warn!(%error, "no name service settings can be read: addresses with names are not found");
                    let nobody = dns::ResolverConfig::from_parts(None, Vec::new(), Vec::new());
                    dns::tokio::Transport::custom(tcp_and_quic(key)?, nobody, dns::ResolverOpts::default())
                }
            };
            Ok(TransportTimeout::new(named, dial).boxed())
        }
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
        Some(Protocol::Tcp(port)) if port != 0 => TcpListener::bind((ip, port)).map(drop),
        Some(Protocol::Udp(port)) if port != 0 => UdpSocket::bind((ip, port)).map(drop),
        _ => Ok(()),
    }
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
