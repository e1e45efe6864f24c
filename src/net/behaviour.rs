//! The protocols a node speaks and how they are set.
//!
//! Facts about libp2p 0.57 that shaped this:
//! - gossipsub's first heartbeat comes after 5 s unless set, and its mesh forms only then;
//! - without `validate_messages` everything is forwarded before anybody has looked at it;
//! - signed messages are verified before duplicates are dropped; so messages here are anonymous, named by their contents,
//!   and prove their author themselves;
//! - its decoder counts everything it has buffered against the size limit, one frame and up to 8 KiB of the next, so
//!   the limit must be that much greater than the largest message, or a busy stream is cut;
//! - it sends up to 5,000 message ids in one control message and accepts 16 KiB of them;
//! - it queues 5,000 messages for a slow peer, whatever their size;
//! - peer scoring's defaults punish many peers on one address and topics with little traffic;
//! - a relay addresses its messages for one connection with the other end's name, so only the connection may be looked at;
//! - a relay panics when a place that it keeps is renewed in the moment in which its time ends, so it ends with its
//!   connection and not by time; and a client panics when it gives a place up before the relay has answered.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use libp2p::core::upgrade::Version as Negotiation;
use libp2p::gossipsub::{
    self, ConfigBuilder, MessageAuthenticity, MessageId, PeerScoreParams, PeerScoreThresholds, TopicScoreParams,
    ValidationMode, Version,
};
use libp2p::identity::Keypair;
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{Config as SwarmConfig, NetworkBehaviour};
use libp2p::{StreamProtocol, connection_limits, dcutr, identify, mdns, ping, relay};

use super::arrivals::Arrivals;
use super::away::Away;
use super::codec::Limited;
use super::gate::Gate;
use super::names::{Names, swarm_peer};
use super::{NetError, Settings, Timings};
use crate::kernel::id::Digest;
use crate::wire::limits::{MAX_GOSSIP, MAX_PEERS, MAX_PROOF, MAX_REQUEST, MAX_RESPONSE};

/// The most connections that others made. A large mesh's bootstrap peer has the most.
const MAX_INCOMING: u32 = 384;
/// The most connections in all; the rest are for one's own dials, so that strangers cannot shut a node off.
const MAX_CONNECTIONS: u32 = 512;
/// The most connections with one peer: both may dial at once, and a stale one may stand beside its successor.
const MAX_PER_PEER: u32 = 4;
/// The most connections whose handshake has not ended, each way.
const MAX_PENDING: u32 = 128;
/// The same of those that come from one place: three more places have room beside it.
const MAX_PENDING_OF_PLACE: usize = MAX_PENDING as usize / 4;
/// The most requests of one connection at once, both ways together.
const MAX_ASKING: usize = 64;
/// The same for what is shown at the door.
const MAX_KNOCKING: usize = 4;
/// The same for peer exchange.
const MAX_EXCHANGING: usize = 8;
/// The most streams of one connection that are being negotiated.
const MAX_NEGOTIATING: usize = 64;
/// Room for a gossip message's frame, and for what gossipsub reads beyond it.
const FRAME: usize = 16 * 1024;
/// The most messages that wait for one slow peer.
const MAX_QUEUED: usize = 2048;
/// The most bytes and ids (22 bytes each) of gossipsub's own control messages.
const MAX_CONTROL: usize = 32 * 1024;
const MAX_CONTROL_IDS: usize = 1024;
/// How long a connection may be idle: for ever, since a member is meant to be heard of.
const IDLE: Duration = Duration::from_secs(365 * 24 * 3600);
/// The most members for which this node keeps a place, and connections that it relays at once: in all, and of one member.
const MAX_PLACES: usize = 128;
const MAX_CIRCUITS: usize = 512;
const MAX_CIRCUITS_OF_PEER: usize = 64;
/// How often a member may ask for one or the other at once, and again after that. Many may stand behind one address.
const RELAYING: NonZeroU32 = NonZeroU32::new(64).expect("is not 0");
const RELAYING_AGAIN: Duration = Duration::from_secs(1);
/// The longest that a place is kept; it ends with its connection.
const PLACE: Duration = Duration::from_secs(365 * 24 * 3600);
/// A relayed connection is closed after so long, or so many bytes, and may be made anew: a lasting one is not meant to be
/// one member's burden for ever.
const CIRCUIT: Duration = Duration::from_secs(7 * 24 * 3600);
const CIRCUIT_BYTES: u64 = 8 << 30;
/// On a LAN, neighbours are asked for so often: who comes later makes itself known.
const NEIGHBOURS: Duration = Duration::from_secs(60);

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    // First, because it turns connections away before the others know of them.
    pub(super) limits: connection_limits::Behaviour,
    pub(super) arrivals: Arrivals,
    pub(super) away: Away,
    /// Where whoever is not let in yet shows that it belongs to this mesh.
    pub(super) door: request_response::Behaviour<Limited>,
    pub(super) inside: Gate<Inside>,
    /// Says on the LAN that this node is here, and who else is.
    pub(super) neighbours: Toggle<mdns::tokio::Behaviour>,
}

/// What members alone get.
#[derive(NetworkBehaviour)]
pub(super) struct Inside {
    pub(super) gossip: gossipsub::Behaviour,
    pub(super) ask: request_response::Behaviour<Limited>,
    pub(super) exchange: request_response::Behaviour<Limited>,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    /// Carries others' connections.
    pub(super) relay: relay::Behaviour,
    /// Has this node's connections carried.
    pub(super) relayed: relay::client::Behaviour,
    /// Makes direct ones of them.
    pub(super) punch: dcutr::Behaviour,
}

impl Behaviour {
    pub(super) fn new(
        settings: &Settings,
        names: &Names,
        key: &Keypair,
        relayed: relay::client::Behaviour,
    ) -> Result<Self, NetError> {
        let me = key.public().to_peer_id();
        let timings = &settings.timings;
        let limits = connection_limits::ConnectionLimits::default()
            .with_max_established_incoming(Some(MAX_INCOMING))
            .with_max_established(Some(MAX_CONNECTIONS))
            .with_max_established_per_peer(Some(MAX_PER_PEER))
            .with_max_pending_incoming(Some(MAX_PENDING))
            .with_max_pending_outgoing(Some(MAX_PENDING));
        let identify = identify::Config::new(names.identify.clone(), key.public())
            .with_agent_version(concat!("runmesh/", env!("CARGO_PKG_VERSION")).to_owned())
            .with_push_listen_addr_updates(true)
            .with_cache_size(0);
        let ping = ping::Config::new().with_interval(timings.ping).with_timeout(timings.ping);
        let inside = Inside {
            gossip: gossip(names, timings)?,
            ask: asking(&names.ask, MAX_REQUEST, MAX_RESPONSE, MAX_ASKING, timings),
            exchange: asking(&names.exchange, MAX_PEERS, MAX_PEERS, MAX_EXCHANGING, timings),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(ping),
            relay: relaying(me, settings),
            relayed,
            punch: dcutr::Behaviour::new(me),
        };
        let neighbours = if settings.mdns {
            let config = mdns::Config { query_interval: NEIGHBOURS, ..mdns::Config::default() };
            let found = mdns::tokio::Behaviour::new(config, me);
            Some(found.map_err(|error| NetError::Setup(format!("looking for neighbours (mdns): {error}")))?)
        } else {
            None
        };
        let welcome = settings.welcome.iter().map(swarm_peer).collect();
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits),
            arrivals: Arrivals::new(MAX_PENDING_OF_PLACE),
            away: Away::default(),
            door: asking(&names.door, MAX_PROOF + FRAME, MAX_PROOF + FRAME, MAX_KNOCKING, timings),
            inside: Gate::new(inside, welcome),
            neighbours: neighbours.into(),
        })
    }
}

/// How the swarm runs them.
pub(super) fn swarm_config() -> SwarmConfig {
    SwarmConfig::with_tokio_executor()
        .with_idle_connection_timeout(IDLE)
        .with_max_negotiating_inbound_streams(MAX_NEGOTIATING)
        // A stream's first message goes out together with its negotiation: one round trip a request instead of two.
        .with_substream_upgrade_protocol_override(Negotiation::V1Lazy)
}

fn relaying(me: libp2p::PeerId, settings: &Settings) -> relay::Behaviour {
    let config = relay::Config {
        max_reservations: MAX_PLACES,
        max_reservations_per_peer: MAX_PER_PEER as usize,
        reservation_duration: PLACE,
        reservation_rate_limiters: Vec::new(),
        max_circuits: MAX_CIRCUITS,
        max_circuits_per_peer: MAX_CIRCUITS_OF_PEER,
        max_circuit_duration: CIRCUIT,
        max_circuit_bytes: CIRCUIT_BYTES,
        circuit_src_rate_limiters: Vec::new(),
    };
    let config =
        config.reservation_rate_per_peer(RELAYING, RELAYING_AGAIN).circuit_src_per_peer(RELAYING, RELAYING_AGAIN);
    let mut relay = relay::Behaviour::new(me, config);
    // Who asks has dialed this node, so it can be dialed; whether by others too, they see.
    relay.set_status(Some(if settings.relay { relay::Status::Enable } else { relay::Status::Disable }));
    relay
}

fn asking(
    protocol: &StreamProtocol,
    request: usize,
    response: usize,
    streams: usize,
    timings: &Timings,
) -> request_response::Behaviour<Limited> {
    let config =
        request_response::Config::default().with_request_timeout(timings.request).with_max_concurrent_streams(streams);
    let protocols = [(protocol.clone(), ProtocolSupport::Full)];
    request_response::Behaviour::with_codec(Limited { request, response }, protocols, config)
}

fn gossip(names: &Names, timings: &Timings) -> Result<gossipsub::Behaviour, NetError> {
    let setup = |error: &dyn std::fmt::Display| NetError::Setup(format!("gossipsub: {error}"));
    let presence = names.presence.hash();
    let config = ConfigBuilder::default()
        .protocol_id(names.gossip.clone(), Version::V1_1)
        .heartbeat_initial_delay(timings.heartbeat.min(Duration::from_millis(100)))
        .heartbeat_interval(timings.heartbeat)
        .validate_messages()
        .validation_mode(ValidationMode::Anonymous)
        .message_id_fn(|message| {
            let digest = Digest::of(&[message.topic.as_str().as_bytes(), &message.data]).0;
            MessageId::new(&digest[..20])
        })
        // Whoever publishes tells all its neighbours itself: one hop in a small mesh.
        .flood_publish(true)
        // What is known by its name only is asked for by name; sync finds what even that has missed, so a few neighbours
        // are told the names of late messages, not all.
        .gossip_lazy(2)
        .gossip_factor(0.0)
        // Presence is frequent and soon stale; fewer copies of it suffice.
        .mesh_outbound_min_for_topic(1, presence.clone())
        .mesh_n_low_for_topic(2, presence.clone())
        .mesh_n_for_topic(3, presence.clone())
        .mesh_n_high_for_topic(5, presence)
        .max_transmit_size(MAX_GOSSIP + FRAME)
        .connection_handler_queue_len(MAX_QUEUED)
        .max_control_message_size(MAX_CONTROL)
        .max_control_messages_sent(MAX_CONTROL_IDS)
        .build()
        .map_err(|error| setup(&error))?;
    let mut gossip =
        gossipsub::Behaviour::new(MessageAuthenticity::Anonymous, config).map_err(|error| setup(&error))?;
    let (params, thresholds) = scores(names);
    gossip.with_peer_score(params, thresholds).map_err(|error| setup(&error))?;
    for topic in [&names.entries, &names.presence] {
        gossip.subscribe(topic).map_err(|error| setup(&error))?;
    }
    Ok(gossip)
}

/// Only provably bad messages count. One takes a peer out of the relays until it is forgiven (a tenth each second);
/// seven within a short time, and nothing it gossips is read any more for about a minute.
fn scores(names: &Names) -> (PeerScoreParams, PeerScoreThresholds) {
    let topic = || TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.0,
        first_message_deliveries_weight: 0.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -10.0,
        invalid_message_deliveries_decay: 0.9,
        ..TopicScoreParams::default()
    };
    let params = PeerScoreParams {
        topics: HashMap::from([(names.entries.hash(), topic()), (names.presence.hash(), topic())]),
        app_specific_weight: 0.0,
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_weight: 0.0,
        slow_peer_weight: 0.0,
        // While a peer is away its score does not change.
        retain_score: Duration::from_secs(60),
        ..PeerScoreParams::default()
    };
    let thresholds = PeerScoreThresholds {
        gossip_threshold: -100.0,
        publish_threshold: -200.0,
        graylist_threshold: -400.0,
        accept_px_threshold: 0.0,
        opportunistic_graft_threshold: 0.0,
    };
    (params, thresholds)
}
