//! The peers that are connected now.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::Multiaddr;
use libp2p::swarm::ConnectionId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::client::{Direction, PeerInfo};
use super::crowd::Place;
use super::event::{Share, Topic};
use super::names::{is_of_this_host, is_relayed};
use crate::kernel::id::PeerId;
use crate::wire::limits::MAX_RESPONSE;

/// The most gossiped messages of one peer that wait for a verdict, so that one cannot fill the owner's queue.
const GOSSIP_OF_PEER: usize = 512;
/// The most bytes of gossiped messages that wait for a verdict.
const GOSSIP_BYTES: usize = 32 * 1024 * 1024;
/// The most requests of one peer that wait for an answer, and of all.
const REQUESTS_OF_PEER: usize = 32;
const REQUESTS: usize = 256;
/// The most bytes of answers that one peer has asked for and not read yet: two of the largest. An honest peer asks for
/// one page at a time; one that never reads would have each of its requests keep one here.
const ANSWERS_OF_PEER: usize = 2 * MAX_RESPONSE;
/// How much of one peer is taken on in a second, and how much at once after a quiet time. Checking that many gossiped
/// entries takes a quarter of a core.
const GOSSIP_RATE: f64 = 4096.0;
const GOSSIP_BURST: f64 = 8192.0;
/// So many bytes of a gossiped message cost as much as a further message: about three entries.
const COSTS: usize = 1024;
/// The least time before it is told again that a peer says more than its share.
const TELL_FLOODS: Duration = Duration::from_secs(5);
const REQUEST_RATE: f64 = 256.0;
const REQUEST_BURST: f64 = 512.0;
/// How often one peer may show its papers in a second, and how often at once.
const DOOR_RATE: f64 = 1.0;
const DOOR_BURST: f64 = 4.0;
/// Pings in a row that are told to be lost; libp2p keeps the first to itself.
const MISSED_PINGS: u32 = 2;
/// The least time between two questions of one peer for peers.
const EXCHANGE_AT_MOST: Duration = Duration::from_millis(100);

/// Those who wait for a peer to prove itself.
pub(super) type Waiting = Vec<oneshot::Sender<Result<PeerId, String>>>;

pub(super) struct Roster {
    peers: BTreeMap<PeerId, Peer>,
    gossip_bytes: Arc<Semaphore>,
    requests: Arc<Semaphore>,
}

/// A peer with at least one connection.
pub(super) struct Peer {
    /// Oldest first.
    connections: Vec<Connection>,
    /// Whether it listens to entries and to presence.
    entries: bool,
    presence: bool,
    /// Whether it has shown that it belongs to this mesh.
    proven: bool,
    since: Instant,
    rtt: Option<Duration>,
    exchanged: Option<Instant>,
    /// Those who wait for it to prove itself.
    waiting: Waiting,
    /// Why it is being turned away.
    turned_away: Option<String>,
    gossip: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    gossip_rate: Rate,
    request_rate: Rate,
    door_rate: Rate,
    /// What was dropped because it was beyond its share, since that was told last.
    flooded: u64,
    told_flood: Option<Instant>,
    /// This node has shown it its papers, or wants to and has none.
    introduced: bool,
    wants_papers: bool,
    /// It lets this node in.
    accepts: bool,
}

/// A token bucket.
pub(super) struct Rate {
    each_second: f64,
    most: f64,
    left: f64,
    since: Instant,
}

struct Connection {
    id: ConnectionId,
    address: Multiaddr,
    direction: Direction,
    /// It carries all protocols, as far as this end goes.
    open: bool,
    since: Instant,
    /// This host's own address that it uses, where that is known.
    here: Option<IpAddr>,
    missed: u32,
}

/// How a peer left.
pub(super) struct Left {
    pub(super) proven: bool,
    pub(super) turned_away: Option<String>,
    pub(super) waiting: Waiting,
}

impl Roster {
    pub(super) fn new() -> Self {
        Self {
            peers: BTreeMap::new(),
            gossip_bytes: Arc::new(Semaphore::new(GOSSIP_BYTES)),
            requests: Arc::new(Semaphore::new(REQUESTS)),
        }
    }

    pub(super) fn opened(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        address: Multiaddr,
        direction: Direction,
        open: bool,
        now: Instant,
    ) {
        let peer = self.peers.entry(peer).or_insert_with(|| Peer::new(now));
        peer.connections.push(Connection { id, address, direction, open, since: now, here: None, missed: 0 });
    }

    pub(super) fn all(&self) -> Vec<PeerId> {
        self.peers.keys().copied().collect()
    }

    /// A connection uses that address of this host.
    pub(super) fn stands_at(&mut self, peer: &PeerId, id: ConnectionId, here: IpAddr) {
        let connections = self.peers.get_mut(peer).into_iter().flat_map(|peer| &mut peer.connections);
        connections.filter(|one| one.id == id).for_each(|one| one.here = Some(here));
    }

    /// The connections that use that address of this host.
    pub(super) fn standing_at(&self, here: &IpAddr) -> Vec<ConnectionId> {
        let connections = self.peers.values().flat_map(|peer| &peer.connections);
        connections.filter(|one| one.here.as_ref() == Some(here)).map(|one| one.id).collect()
    }

    /// Whether this node has made that connection, by itself.
    pub(super) fn is_dialed(&self, peer: &PeerId, id: ConnectionId) -> bool {
        let connections = self.peers.get(peer).into_iter().flat_map(|peer| &peer.connections);
        connections
            .filter(|one| one.id == id)
            .any(|one| one.direction == Direction::Outbound && !is_relayed(&one.address))
    }

    /// The direct connections with a peer that stood already so long ago.
    pub(super) fn older(&self, peer: &PeerId, now: Instant, age: Duration) -> Vec<ConnectionId> {
        let connections = self.peers.get(peer).into_iter().flat_map(|peer| &peer.connections);
        let older = |one: &&Connection| !is_relayed(&one.address) && now.duration_since(one.since) >= age;
        connections.filter(older).map(|one| one.id).collect()
    }

    /// The relayed connections of members beside which a direct one has stood for so long.
    pub(super) fn needless(&self, now: Instant, settled: Duration) -> Vec<ConnectionId> {
        let stands = |one: &Connection| {
            one.open && !is_relayed(&one.address) && one.missed == 0 && now.duration_since(one.since) >= settled
        };
        let direct = self.peers.values().filter(|peer| peer.proven && peer.connections.iter().any(stands));
        let relayed = direct.flat_map(|peer| &peer.connections).filter(|one| is_relayed(&one.address));
        relayed.map(|one| one.id).collect()
    }

    /// Whether it was let in when one of its connections came about.
    pub(super) fn is_inside(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(Peer::is_inside)
    }

    /// How many came by themselves and have not been let in.
    pub(super) fn strangers(&self) -> usize {
        let stranger =
            |peer: &&Peer| !peer.is_inside() && peer.connections.iter().any(|one| one.direction == Direction::Inbound);
        self.peers.values().filter(stranger).count()
    }

    /// Where the peer's oldest connection comes from.
    pub(super) fn place(&self, peer: &PeerId) -> Option<Place> {
        Some(Place::of(&self.peers.get(peer)?.connections.first()?.address))
    }

    /// Of the place from which most strangers have come, the one who has had the longest time to show who it is.
    pub(super) fn crowding(&self) -> Option<PeerId> {
        let mut places: BTreeMap<Place, (usize, Option<(Instant, PeerId)>)> = BTreeMap::new();
        for (id, peer) in &self.peers {
            if let Some(connection) = peer.connections.first()
                && !peer.is_inside()
                && peer.turned_away.is_none()
                && connection.direction == Direction::Inbound
            {
                let (count, first) = places.entry(Place::of(&connection.address)).or_default();
                *count += 1;
                let since = (peer.since, *id);
                *first = Some(first.map_or(since, |first| first.min(since)));
            }
        }
        let (_, first) = places.into_values().max_by_key(|(count, _)| *count)?;
        first.map(|(_, peer)| peer)
    }

    /// What is to be shown to the peer, unless that was done; without papers it is remembered that some are wanted.
    pub(super) fn introduce(&mut self, peer: &PeerId, papers: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let peer = self.peers.get_mut(peer).filter(|peer| !peer.introduced)?;
        peer.introduced = papers.is_some();
        peer.wants_papers = papers.is_none();
        papers
    }

    /// Those that this node would have shown its papers to.
    pub(super) fn awaiting_papers(&self) -> Vec<PeerId> {
        self.peers.iter().filter(|(_, peer)| peer.wants_papers && !peer.proven).map(|(id, _)| *id).collect()
    }

    /// The peer lets this node in.
    pub(super) fn accepted(&mut self, peer: &PeerId) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.accepts = true;
        }
    }

    /// Where the peer is to be dialed once more, and who waits for it: it lets this node in, and its connection, which
    /// this node has made, does not show that yet.
    pub(super) fn meet_again(&mut self, peer: &PeerId) -> Option<(Multiaddr, Waiting)> {
        let peer =
            self.peers.get_mut(peer).filter(|peer| peer.accepts && !peer.proven && peer.turned_away.is_none())?;
        let dialed = peer.connections.iter().find(|one| one.direction == Direction::Outbound)?;
        Some((dialed.address.clone(), std::mem::take(&mut peer.waiting)))
    }

    /// Room for what a peer shows at the door.
    pub(super) fn door_share(&mut self, peer: &PeerId, now: Instant) -> Option<Share> {
        let peer = self.peers.get_mut(peer).filter(|peer| peer.turned_away.is_none())?;
        if !peer.door_rate.take(now) {
            return None;
        }
        let of_peer = Arc::clone(&peer.requests).try_acquire_owned().ok()?;
        let of_all = Arc::clone(&self.requests).try_acquire_owned().ok()?;
        Some(Share { _of_peer: of_peer, _of_all: of_all })
    }

    /// How the peer left, when that was its last connection.
    pub(super) fn closed(&mut self, peer: &PeerId, id: ConnectionId) -> Option<Left> {
        let entry = self.peers.get_mut(peer)?;
        entry.connections.retain(|connection| connection.id != id);
        if !entry.connections.is_empty() {
            return None;
        }
        let Peer { proven, turned_away, waiting, .. } = self.peers.remove(peer)?;
        Some(Left { proven, turned_away, waiting })
    }

    /// The peer listens to a topic of this mesh. Returns whether it now listens to all.
    pub(super) fn subscribed(&mut self, peer: &PeerId, topic: Topic) -> bool {
        let Some(peer) = self.peers.get_mut(peer) else { return false };
        match topic {
            Topic::Entries => peer.entries = true,
            Topic::Presence => peer.presence = true,
        }
        peer.entries && peer.presence
    }

    /// The peer has shown that it belongs to this mesh. Returns those who waited for that, if it is news.
    pub(super) fn prove(&mut self, peer: &PeerId) -> Option<Waiting> {
        let peer = self.peers.get_mut(peer).filter(|peer| !peer.proven && peer.turned_away.is_none())?;
        peer.proven = true;
        Some(std::mem::take(&mut peer.waiting))
    }

    /// Whether it is connected and belongs to this mesh.
    pub(super) fn is_proven(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.proven)
    }

    /// Whether it runs on this host, as far as its connections show.
    pub(super) fn is_near(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.connections.iter().any(|one| is_of_this_host(&one.address)))
    }

    /// All that are connected and belong to this mesh.
    pub(super) fn proven(&self) -> impl Iterator<Item = PeerId> {
        self.peers.iter().filter(|(_, peer)| peer.proven).map(|(id, _)| *id)
    }

    /// How many connected peers were looked for: strangers who come by themselves do not keep a node from its own.
    pub(super) fn wanted(&self) -> usize {
        let ours = |peer: &Peer| peer.connections.iter().any(|one| one.direction == Direction::Outbound);
        self.peers.values().filter(|peer| peer.proven || ours(peer)).count()
    }

    /// When the time of the first of [`Roster::silent`] is over.
    pub(super) fn next(&self, prove: Duration) -> Option<Instant> {
        self.peers.values().filter(|peer| peer.is_silent()).map(|peer| peer.since + prove).min()
    }

    /// Those who have had long enough to show that they belong to this mesh and have not.
    pub(super) fn silent(&self, now: Instant, prove: Duration) -> Vec<PeerId> {
        let silent =
            |peer: &Peer| !peer.proven && peer.turned_away.is_none() && now.duration_since(peer.since) >= prove;
        self.peers.iter().filter(|(_, peer)| silent(peer)).map(|(id, _)| *id).collect()
    }

    /// Notes why a peer is turned away. Returns whether that is news.
    pub(super) fn turn_away(&mut self, peer: &PeerId, why: String) -> bool {
        self.peers.get_mut(peer).is_some_and(|peer| {
            let news = peer.turned_away.is_none();
            peer.turned_away.get_or_insert(why);
            news
        })
    }

    /// Answers when the peer has proven itself, or has left.
    pub(super) fn wait(&mut self, peer: &PeerId, answer: oneshot::Sender<Result<PeerId, String>>) {
        match self.peers.get_mut(peer) {
            Some(entry) if !entry.proven => entry.waiting.push(answer),
            // Whoever asked may have gone.
            Some(_) => drop(answer.send(Ok(*peer))),
            None => drop(answer.send(Err("the connection was closed at once".to_owned()))),
        }
    }

    /// A ping came back.
    pub(super) fn ponged(&mut self, peer: &PeerId, id: ConnectionId, rtt: Duration) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.rtt = Some(rtt);
            peer.connections.iter_mut().filter(|one| one.id == id).for_each(|one| one.missed = 0);
        }
    }

    /// A ping did not come back. Returns whether the connection is to be given up.
    pub(super) fn missed(&mut self, peer: &PeerId, id: ConnectionId) -> bool {
        let connections = self.peers.get_mut(peer).into_iter().flat_map(|peer| &mut peer.connections);
        connections.filter(|one| one.id == id).any(|one| {
            one.missed += 1;
            one.missed >= MISSED_PINGS
        })
    }

    /// Whether a peer may be told who is there, now.
    pub(super) fn may_exchange(&mut self, peer: &PeerId, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(peer) else { return false };
        let may = peer.exchanged.is_none_or(|last| now.duration_since(last) >= EXCHANGE_AT_MOST);
        if may {
            peer.exchanged = Some(now);
        }
        may
    }

    /// Room for a gossiped message to wait, if there is any and the peer has not said too much of late.
    pub(super) fn gossip_share(&mut self, peer: &PeerId, bytes: usize, now: Instant) -> Option<Share> {
        let peer = self.peers.get_mut(peer).filter(|peer| peer.proven)?;
        // Large messages hold much to check.
        if !peer.gossip_rate.take_some(1.0 + (bytes / COSTS) as f64, now) {
            peer.flooded += 1;
            return None;
        }
        let of_peer = Arc::clone(&peer.gossip).try_acquire_owned().ok()?;
        let bytes = u32::try_from(bytes).ok()?;
        let of_all = Arc::clone(&self.gossip_bytes).try_acquire_many_owned(bytes).ok()?;
        Some(Share { _of_peer: of_peer, _of_all: of_all })
    }

    /// Room for a request to wait, if there is any and the peer has not asked too much of late.
    pub(super) fn request_share(&mut self, peer: &PeerId, now: Instant) -> Option<Share> {
        let peer = self.peers.get_mut(peer).filter(|peer| peer.proven)?;
        if !peer.request_rate.take(now) {
            peer.flooded += 1;
            return None;
        }
        // No honest peer asks so much before it has been answered.
        let Ok(of_peer) = Arc::clone(&peer.requests).try_acquire_owned() else {
            peer.flooded += 1;
            return None;
        };
        let of_all = Arc::clone(&self.requests).try_acquire_owned().ok()?;
        Some(Share { _of_peer: of_peer, _of_all: of_all })
    }

    /// Room for an answer until the peer has read it; it has asked for too much where there is none.
    pub(super) fn answer_room(&mut self, peer: &PeerId, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let peer = self.peers.get_mut(peer)?;
        let bytes = u32::try_from(bytes).ok()?;
        let room = Arc::clone(&peer.answers).try_acquire_many_owned(bytes).ok();
        peer.flooded += u64::from(room.is_none());
        room
    }

    /// Who has said or asked more than its share since it was told of last, and how much; each seldom.
    pub(super) fn floods(&mut self, now: Instant) -> Vec<(PeerId, u64)> {
        let due =
            |peer: &Peer| peer.flooded > 0 && peer.told_flood.is_none_or(|at| now.duration_since(at) >= TELL_FLOODS);
        let floods = self.peers.iter_mut().filter(|(_, peer)| due(peer)).map(|(id, peer)| {
            peer.told_flood = Some(now);
            (*id, std::mem::take(&mut peer.flooded))
        });
        floods.collect()
    }

    /// For people: those who belong to the mesh.
    pub(super) fn snapshot(&self, now: Instant) -> Vec<PeerInfo> {
        let info = |(id, peer): (&PeerId, &Peer)| {
            let first = peer.connections.first().filter(|_| peer.proven)?;
            Some(PeerInfo {
                peer: *id,
                addresses: peer.connections.iter().map(|one| one.address.clone()).collect(),
                direction: first.direction,
                rtt: peer.rtt,
                since: now.duration_since(peer.since),
            })
        };
        self.peers.iter().filter_map(info).collect()
    }
}

impl Peer {
    fn new(now: Instant) -> Self {
        Self {
            connections: Vec::new(),
            entries: false,
            presence: false,
            proven: false,
            since: now,
            rtt: None,
            exchanged: None,
            waiting: Vec::new(),
            turned_away: None,
            gossip: Arc::new(Semaphore::new(GOSSIP_OF_PEER)),
            requests: Arc::new(Semaphore::new(REQUESTS_OF_PEER)),
            answers: Arc::new(Semaphore::new(ANSWERS_OF_PEER)),
            gossip_rate: Rate::new(GOSSIP_RATE, GOSSIP_BURST, now),
            request_rate: Rate::new(REQUEST_RATE, REQUEST_BURST, now),
            door_rate: Rate::new(DOOR_RATE, DOOR_BURST, now),
            flooded: 0,
            told_flood: None,
            introduced: false,
            wants_papers: false,
            accepts: false,
        }
    }

    fn is_inside(&self) -> bool {
        self.connections.iter().any(|one| one.open)
    }

    const fn is_silent(&self) -> bool {
        !self.proven && self.turned_away.is_none()
    }
}

impl Rate {
    pub(super) const fn new(each_second: f64, most: f64, now: Instant) -> Self {
        Self { each_second, most, left: most, since: now }
    }

    /// Whether one more may come.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.take_some(1.0, now)
    }

    fn take_some(&mut self, cost: f64, now: Instant) -> bool {
        self.left += now.duration_since(self.since).as_secs_f64() * self.each_second;
        self.left = self.left.min(self.most);
        self.since = now;
        let may = self.left >= cost;
        if may {
            self.left -= cost;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::limits::MAX_GOSSIP;

    const PEER: PeerId = PeerId::from_public_key([1; 32]);
    const OTHER: PeerId = PeerId::from_public_key([2; 32]);

    fn roster(peers: &[PeerId]) -> (Roster, Vec<ConnectionId>) {
        let mut roster = Roster::new();
        let ids = peers.iter().enumerate().map(|(n, peer)| {
            let id = ConnectionId::new_unchecked(n);
            let address = "/ip4/10.0.0.1/tcp/1".parse().expect("an address");
            roster.opened(*peer, id, address, Direction::Inbound, true, Instant::now());
            id
        });
        let ids = ids.collect();
        (roster, ids)
    }

    #[test]
    fn one_peers_share_is_bounded_and_given_back() {
        let (mut roster, _) = roster(&[PEER, OTHER]);
        let now = Instant::now();
        assert!(roster.gossip_share(&PEER, 10, now).is_none(), "it has proven nothing");
        for peer in [PEER, OTHER] {
            roster.prove(&peer);
        }
        let held: Vec<_> = std::iter::from_fn(|| roster.gossip_share(&PEER, 10, now)).take(1_000).collect();
        assert_eq!(held.len(), GOSSIP_OF_PEER);
        assert!(roster.gossip_share(&OTHER, 10, now).is_some(), "others still have theirs");
        drop(held);
        assert!(roster.gossip_share(&PEER, 10, now).is_some());
        let held: Vec<_> = std::iter::from_fn(|| roster.request_share(&PEER, now)).take(1_000).collect();
        assert_eq!(held.len(), REQUESTS_OF_PEER);
        assert!(roster.request_share(&OTHER, now).is_some());
    }

    #[test]
    fn all_that_waits_is_bounded_in_bytes() {
        let peers: Vec<_> = (0..20).map(|n| PeerId::from_public_key([n; 32])).collect();
        let (mut roster, _) = roster(&peers);
        let mut held = Vec::new();
        for peer in &peers {
            roster.prove(peer);
            held.extend(std::iter::from_fn(|| roster.gossip_share(peer, MAX_GOSSIP, Instant::now())).take(1_000));
        }
        assert_eq!(held.len(), GOSSIP_BYTES / MAX_GOSSIP);
    }

    #[test]
    fn one_peers_rate_is_bounded() {
        let (mut roster, _) = roster(&[PEER]);
        roster.prove(&PEER);
        let now = Instant::now();
        let taken =
            |roster: &mut Roster, now| (0..20_000).filter(|_| roster.gossip_share(&PEER, 1, now).is_some()).count();
        assert_eq!(taken(&mut roster, now), GOSSIP_BURST as usize);
        assert_eq!(taken(&mut roster, now), 0);
        assert_eq!(taken(&mut roster, now + Duration::from_millis(500)), GOSSIP_RATE as usize / 2);
        let asked = (0..20_000).filter(|_| roster.request_share(&PEER, now).is_some()).count();
        assert_eq!(asked, REQUEST_BURST as usize);
    }

    #[test]
    fn a_peer_leaves_with_its_last_connection() {
        let (mut roster, ids) = roster(&[PEER, PEER]);
        assert!(roster.prove(&PEER).is_some());
        assert!(roster.prove(&PEER).is_none(), "no news");
        assert!(roster.closed(&PEER, ids[0]).is_none());
        assert!(roster.is_proven(&PEER));
        assert!(roster.closed(&PEER, ids[1]).is_some_and(|left| left.proven));
        assert!(!roster.is_proven(&PEER));
    }

    #[test]
    fn it_proves_itself_with_both_topics_in_time_or_is_turned_away() {
        let (mut roster, _) = roster(&[PEER]);
        let prove = Duration::from_secs(10);
        assert!(!roster.subscribed(&PEER, Topic::Entries));
        assert!(roster.silent(Instant::now(), prove).is_empty());
        assert_eq!(roster.silent(Instant::now() + prove, prove), [PEER]);
        assert!(roster.subscribed(&PEER, Topic::Presence));
        assert!(roster.turn_away(&PEER, "late".to_owned()));
        assert!(!roster.turn_away(&PEER, "again".to_owned()));
        assert!(roster.prove(&PEER).is_none(), "too late");
    }

    #[test]
    fn a_relayed_connection_is_needless_beside_a_direct_one_that_works() {
        let (mut roster, ids) = roster(&[PEER]);
        let (now, settled) = (Instant::now(), Duration::from_secs(3));
        let relayed = ConnectionId::new_unchecked(7);
        let way = super::super::names::relayed_by(&"/ip4/10.0.0.1/tcp/1".parse().expect("an address"), &OTHER);
        roster.opened(PEER, relayed, way, Direction::Outbound, true, now);
        assert!(roster.is_dialed(&PEER, ids[0]) == roster.is_dialed(&PEER, relayed), "neither was dialed directly");
        roster.prove(&PEER);
        assert_eq!(roster.older(&PEER, now, settled), []);
        assert_eq!(roster.older(&PEER, now + settled, settled), [ids[0]]);
        assert_eq!(roster.needless(now, settled), []);
        assert_eq!(roster.needless(now + settled, settled), [relayed]);
        assert!(!roster.missed(&PEER, ids[0]));
        assert_eq!(roster.needless(now + settled, settled), [], "it may be dead");
        roster.ponged(&PEER, ids[0], Duration::from_millis(1));
        roster.closed(&PEER, ids[0]);
        assert_eq!(roster.needless(now + settled, settled), [], "it is the only one");
    }

    #[test]
    fn a_crowd_from_one_place_makes_room_for_who_comes_from_another() {
        let (mut roster, now) = (Roster::new(), Instant::now());
        let mut come = |n: u8, address: &str| {
            let (id, peer) = (ConnectionId::new_unchecked(n.into()), PeerId::from_public_key([n; 32]));
            let address = address.parse().expect("an address");
            roster.opened(peer, id, address, Direction::Inbound, false, now + Duration::from_secs(n.into()));
            peer
        };
        let invited = come(0, "/ip4/198.51.100.7/tcp/1");
        let crowd: Vec<PeerId> = (1..6).map(|n| come(n, "/ip4/192.0.2.7/tcp/1")).collect();
        for one in &crowd[..4] {
            assert_eq!(roster.crowding(), Some(*one), "the oldest of the crowd first");
            roster.turn_away(one, String::new());
        }
        roster.turn_away(&crowd[4], String::new());
        assert_eq!(roster.crowding(), Some(invited));
    }

    #[test]
    fn connections_are_found_by_the_address_of_this_host_that_they_use() {
        let (mut roster, ids) = roster(&[PEER, PEER, OTHER]);
        let [here, there]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().expect("an address"));
        roster.stands_at(&PEER, ids[0], here);
        roster.stands_at(&PEER, ids[1], there);
        roster.stands_at(&OTHER, ids[2], here);
        assert_eq!(roster.standing_at(&here), [ids[0], ids[2]]);
        assert_eq!(roster.standing_at(&there), [ids[1]]);
    }

    #[test]
    fn lost_pings_in_a_row_give_a_connection_up() {
        let (mut roster, ids) = roster(&[PEER]);
        assert!(!roster.missed(&PEER, ids[0]));
        roster.ponged(&PEER, ids[0], Duration::from_millis(1));
        assert!(!roster.missed(&PEER, ids[0]));
        assert!(roster.missed(&PEER, ids[0]));
    }
}
