//! A node under test: a swarm, and a pump that judges and answers by simple rules.

use std::collections::BTreeSet;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use runmesh::kernel::id::{MeshId, PeerId};
use runmesh::net::{
    self, Client, Event, Events, Multiaddr, RequestId, Settings, Timings, Topic, Transport, Verdict, Why,
};
use runmesh::wire::limits::MAX_RESPONSE;
use runmesh::wire::response;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long anything may take on a busy machine before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const MESH: MeshId = MeshId([7; 32]);

/// What a node has seen, without what it had to give back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Connected(PeerId),
    Disconnected(PeerId),
    Gossip {
        topic: Topic,
        from: PeerId,
        bytes: Vec<u8>,
    },
    Response {
        id: RequestId,
        bytes: Vec<u8>,
    },
    Unanswered {
        id: RequestId,
        why: Why,
    },
    Listening(Multiaddr),
    Bootstrap {
        address: Multiaddr,
        error: Option<String>,
    },
    Rtt(PeerId),
    Denied {
        peer: PeerId,
        bytes: Vec<u8>,
    },
    /// A stranger shows its papers; these are what it says.
    Papers {
        from: PeerId,
        bytes: Vec<u8>,
    },
}

pub(crate) struct Node {
    pub(crate) client: Client,
    seen: mpsc::Receiver<Seen>,
    pump: JoinHandle<()>,
}

/// Ends the node as a crash would: the swarm is dropped, and nobody is told.
impl Drop for Node {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

pub(crate) fn timings() -> Timings {
    Timings {
        dial: Duration::from_secs(5),
        prove: Duration::from_secs(2),
        request: Duration::from_secs(2),
        retry_first: Duration::from_millis(20),
        retry_most: Duration::from_millis(200),
        yield_to: Duration::from_millis(20),
        exchange: Duration::from_millis(500),
        ping: Duration::from_millis(500),
        heartbeat: Duration::from_millis(200),
        linger: Duration::from_millis(50),
        ..Timings::default()
    }
}

/// A node over TCP that chooses its port.
pub(crate) fn settings(seed: u8) -> Settings {
    Settings { listen: vec![any_tcp()], timings: timings(), welcome: members(), ..Settings::new([seed; 32], MESH) }
}

/// Those whom all nodes here take for members.
pub(crate) fn members() -> BTreeSet<PeerId> {
    (1..60).map(peer).collect()
}

/// The peer of that seed.
pub(crate) fn peer(seed: u8) -> PeerId {
    PeerId::from_public_key(SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes())
}

pub(crate) fn any_tcp() -> Multiaddr {
    "/ip4/127.0.0.1/tcp/0".parse().expect("an address")
}

pub(crate) fn any_quic() -> Multiaddr {
    "/ip4/127.0.0.1/udp/0/quic-v1".parse().expect("an address")
}

/// A node within the process.
pub(crate) fn memory(seed: u8) -> Settings {
    let listen = vec!["/memory/0".parse().expect("an address")];
    Settings { transport: Transport::Memory, listen, ..settings(seed) }
}

impl Node {
    pub(crate) fn start(settings: Settings) -> Self {
        let (client, events) = net::start(settings).expect("starts");
        let (sender, seen) = mpsc::channel(100_000);
        let pump = tokio::spawn(pump(client.clone(), events, sender));
        Self { client, seen, pump }
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.client.peer()
    }

    /// Waits until something is seen; what was seen before it is gone.
    pub(crate) async fn until<T>(&mut self, what: &str, mut pick: impl FnMut(&Seen) -> Option<T>) -> T {
        let search = async {
            let mut others = Vec::new();
            loop {
                let seen = self.seen.recv().await.unwrap_or_else(|| panic!("ended before {what}; seen: {others:?}"));
                if let Some(found) = pick(&seen) {
                    return found;
                }
                others.push(seen);
            }
        };
        tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("no {what}"))
    }

    pub(crate) async fn connected(&mut self, peer: PeerId) {
        self.until("connection", |seen| (*seen == Seen::Connected(peer)).then_some(())).await;
    }

    pub(crate) async fn disconnected(&mut self, peer: PeerId) {
        self.until("disconnection", |seen| (*seen == Seen::Disconnected(peer)).then_some(())).await;
    }

    /// Where it listens.
    pub(crate) async fn address(&mut self) -> Multiaddr {
        let listening = |seen: &Seen| match seen {
            Seen::Listening(address) => Some(address.clone()),
            _ => None,
        };
        self.until("listening address", listening).await
    }

    /// Waits for a gossiped message that begins so; returns who passed it on.
    pub(crate) async fn gossip(&mut self, beginning: &[u8]) -> PeerId {
        let gossip = |seen: &Seen| match seen {
            Seen::Gossip { from, bytes, .. } if bytes.starts_with(beginning) => Some(*from),
            _ => None,
        };
        self.until(&format!("gossip {beginning:?}"), gossip).await
    }

    pub(crate) async fn publish(&self, bytes: &[u8]) {
        self.client.publish(Topic::Entries, bytes.to_vec()).await.expect("runs");
    }

    /// Asks, and waits for the end of it.
    pub(crate) async fn ask(&mut self, to: PeerId, id: u64, bytes: &[u8]) -> Result<Vec<u8>, Why> {
        let id = RequestId(id);
        self.client.request(to, id, bytes.to_vec()).await.expect("runs");
        self.until("answer", |seen| match seen {
            Seen::Response { id: of, bytes } if *of == id => Some(Ok(bytes.clone())),
            Seen::Unanswered { id: of, why } if *of == id => Some(Err(why.clone())),
            _ => None,
        })
        .await
    }

    /// Those it is connected with.
    pub(crate) async fn peers(&self) -> Vec<PeerId> {
        self.client.peers().await.expect("runs").into_iter().map(|info| info.peer).collect()
    }

    /// Ends it as an orderly shutdown does.
    pub(crate) async fn shutdown(mut self) {
        self.client.shutdown().await.expect("runs");
        let ended = async { while self.seen.recv().await.is_some() {} };
        tokio::time::timeout(PATIENCE, ended).await.expect("ends");
    }
}

/// Judges gossip by how it begins, and answers requests by what they say.
async fn pump(client: Client, mut events: Events, sender: mpsc::Sender<Seen>) {
    let mut held = Vec::new();
    while let Some(event) = events.recv().await {
        let seen = match event {
            Event::Connected(peer) => Seen::Connected(peer),
            Event::Disconnected(peer) => Seen::Disconnected(peer),
            Event::Gossip { topic, from, bytes, token } => {
                let verdict = match () {
                    () if bytes.starts_with(b"bad") => Verdict::Reject,
                    () if bytes.starts_with(b"foreign") => Verdict::Ignore,
                    () => Verdict::Accept,
                };
                if client.verdict(token, verdict).await.is_err() {
                    return;
                }
                Seen::Gossip { topic, from, bytes }
            }
            Event::Request { from, bytes, token } if token.at_door() => {
                // Whoever shows `papers` is let in, with all others that are known here.
                let answer = if bytes.starts_with(b"papers") {
                    let mut welcome = members();
                    welcome.insert(from);
                    if client.welcome(welcome).await.is_err() {
                        return;
                    }
                    response::seal_admitted()
                } else {
                    response::seal_refused("these are no papers")
                };
                let _ = client.respond(token, answer).await;
                Seen::Papers { from, bytes }
            }
            Event::Request { bytes, token, .. } => {
                let answer = match bytes.as_slice() {
                    b"refuse" => continue,
                    b"wait" => {
                        held.push(token);
                        continue;
                    }
                    b"largest" => vec![7; MAX_RESPONSE],
                    b"too large" => vec![7; MAX_RESPONSE + 1],
                    _ => bytes,
                };
                // Too large an answer is an error here and a refusal there.
                let _ = client.respond(token, answer).await;
                continue;
            }
            Event::Response { id, bytes, .. } => Seen::Response { id, bytes },
            Event::Unanswered { id, why, .. } => Seen::Unanswered { id, why },
            Event::Listening(address) => Seen::Listening(address),
            Event::Bootstrap { address, error } => Seen::Bootstrap { address, error },
            Event::Rtt { peer, .. } => Seen::Rtt(peer),
            Event::Flood { .. } => continue,
            Event::Denied { peer, bytes } => Seen::Denied { peer, bytes },
            Event::Deaf { address, error } => panic!("{address}: {error}"),
        };
        if sender.send(seen).await.is_err() {
            return;
        }
    }
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "not in time: {what}");
}

/// Two connected nodes.
pub(crate) async fn pair() -> (Node, Node) {
    let mut first = Node::start(settings(1));
    let bootstrap = vec![first.address().await];
    let mut second = Node::start(Settings { bootstrap, ..settings(2) });
    first.connected(second.peer()).await;
    second.connected(first.peer()).await;
    (first, second)
}
