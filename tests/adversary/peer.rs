//! A hostile peer: its own key, real sockets, the mesh's own protocols, and no scruples.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use runmesh::kernel::clock::Clock;
use runmesh::kernel::entry::{Entry, Event as Said, Ticket};
use runmesh::kernel::id::{Author, Incarnation, PeerId};
use runmesh::kernel::io::{Request, Response};
use runmesh::net::{self, Client, Event, Events, Papers, RequestId, Settings, Timings, Topic, Verdict};
use runmesh::wire::response::{self, Told};
use runmesh::wire::ticket::Invitation;
use runmesh::wire::{gossip, request};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(60);
/// Before a busy node is asked again.
const AGAIN: Duration = Duration::from_millis(50);

/// What it has seen.
#[derive(Debug)]
pub(crate) enum Seen {
    Connected,
    Disconnected,
    /// What the other end says of its papers.
    Denied(Response),
    Answer(Response),
    Unanswered,
    /// It does not get there, or is turned away.
    Kept,
}

pub(crate) struct Peer {
    pub(crate) key: SigningKey,
    pub(crate) client: Client,
    pub(crate) target: PeerId,
    pub(crate) clock: Clock,
    pub(crate) entries: Vec<Arc<Entry>>,
    /// Those that it wrote itself.
    pub(crate) written: Vec<Arc<Entry>>,
    mesh: runmesh::kernel::id::MeshId,
    seen: mpsc::Receiver<Seen>,
    pump: JoinHandle<()>,
    asked: u64,
    /// It answers questions with garbage.
    pub(crate) rude: Arc<AtomicBool>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

pub(crate) fn peer_of(key: &SigningKey) -> PeerId {
    PeerId::from_public_key(key.verifying_key().to_bytes())
}

/// What a holder of this ticket shows.
pub(crate) fn by_ticket(ticket: &Ticket) -> Papers {
    Papers { chain: None, ticket: request::seal(&Request::Join { ticket: ticket.clone() }).ok() }
}

/// Any bytes, shown as if they were a proof.
pub(crate) fn by_bytes(bytes: Vec<u8>) -> Papers {
    Papers { chain: Some(bytes), ticket: None }
}

impl Peer {
    /// Goes to where the invitation leads, with these papers.
    pub(crate) fn start(seed: [u8; 32], invitation: &Invitation, papers: Papers) -> Self {
        let key = SigningKey::from_bytes(&seed);
        let bootstrap: Vec<net::Multiaddr> =
            invitation.addresses.iter().take(1).map(|address| address.parse().expect("an address")).collect();
        let target = net::peer_of(&bootstrap[0]).expect("a peer");
        let timings = Timings { retry_first: Duration::from_millis(100), ..Timings::default() };
        let welcome = BTreeSet::from([target]);
        let settings =
            Settings { bootstrap, papers, welcome, timings, connections: 0, ..Settings::new(seed, invitation.mesh) };
        let (client, events) = net::start(settings).expect("starts");
        let (sender, seen) = mpsc::channel(100_000);
        let rude = Arc::new(AtomicBool::new(false));
        let pump = tokio::spawn(pump(client.clone(), events, sender, invitation.mesh, rude.clone()));
        let (mesh, clock) = (invitation.mesh, Clock::new(invitation.mesh));
        Self { key, client, target, clock, entries: Vec::new(), written: Vec::new(), mesh, seen, pump, asked: 0, rude }
    }

    /// One that joins as the invitation lets it, and learns all entries.
    pub(crate) async fn join(seed: [u8; 32], invitation: &Invitation) -> Self {
        let mut peer = Self::start(seed, invitation, by_ticket(&invitation.ticket));
        peer.until("a connection", |seen| matches!(seen, Seen::Connected).then_some(())).await;
        peer.learn().await;
        peer
    }

    pub(crate) fn peer(&self) -> PeerId {
        peer_of(&self.key)
    }

    pub(crate) async fn until<T>(&mut self, what: &str, mut pick: impl FnMut(Seen) -> Option<T>) -> T {
        let search = async {
            loop {
                let seen = self.seen.recv().await.unwrap_or_else(|| panic!("ended before {what}"));
                if let Some(found) = pick(seen) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("no {what}"))
    }

    /// Why it is not let in.
    pub(crate) async fn denied(&mut self) -> String {
        self.until("a refusal", |seen| match seen {
            Seen::Denied(Response::Refused { why }) => Some(why),
            Seen::Denied(other) => Some(format!("{other:?}")),
            Seen::Connected => panic!("it was let in"),
            _ => None,
        })
        .await
    }

    /// Learns what the mesh has. A node that is busy with others is asked again, as honest nodes do.
    pub(crate) async fn learn(&mut self) {
        let began = Instant::now();
        loop {
            let sync = Request::Sync { vector: self.clock.vector(), want: BTreeSet::new() };
            match self.ask(&sync).await {
                Some(Response::Page { entries, more }) => {
                    for entry in entries {
                        self.clock.place(&entry, true);
                        self.entries.push(entry);
                    }
                    if !more {
                        return;
                    }
                }
                Some(Response::Refused { why }) if why.contains("ask again") && began.elapsed() < PATIENCE => {
                    tokio::time::sleep(AGAIN).await;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) async fn ask(&mut self, asked: &Request) -> Option<Response> {
        self.ask_bytes(request::seal(asked).expect("seals")).await
    }

    /// The same with any bytes.
    pub(crate) async fn ask_bytes(&mut self, bytes: Vec<u8>) -> Option<Response> {
        self.asked += 1;
        self.client.request(self.target, RequestId(self.asked), bytes).await.expect("runs");
        self.until("an answer", |seen| match seen {
            Seen::Answer(response) => Some(Some(response)),
            Seen::Unanswered => Some(None),
            _ => None,
        })
        .await
    }

    /// An entry of its own on all that it knows, signed.
    pub(crate) fn sign(&mut self, events: Vec<Said>) -> Arc<Entry> {
        let author = Author { peer: self.peer(), incarnation: Incarnation(1) };
        let body = self.clock.next_body(author, 0, events, |_| false);
        Arc::new(Entry::seal(body, &self.key))
    }

    /// Writes an entry and tells all.
    pub(crate) async fn write(&mut self, events: Vec<Said>) -> Arc<Entry> {
        let entry = self.sign(events);
        self.clock.place(&entry, true);
        self.written.push(entry.clone());
        self.publish(&entry).await;
        entry
    }

    pub(crate) async fn publish(&self, entry: &Arc<Entry>) {
        for bytes in gossip::seal_entries(std::slice::from_ref(entry)) {
            self.say(Topic::Entries, bytes).await;
        }
    }

    pub(crate) async fn say(&self, topic: Topic, bytes: Vec<u8>) {
        self.client.publish(topic, bytes).await.expect("runs");
    }

    pub(crate) const fn mesh(&self) -> runmesh::kernel::id::MeshId {
        self.mesh
    }
}

/// Passes on nothing, and answers every question with a refusal or, when rude, with a page of garbage.
async fn pump(
    client: Client,
    mut events: Events,
    sender: mpsc::Sender<Seen>,
    mesh: runmesh::kernel::id::MeshId,
    rude: Arc<AtomicBool>,
) {
    while let Some(event) = events.recv().await {
        let seen = match event {
            Event::Connected(_) => Seen::Connected,
            Event::Disconnected(_) => Seen::Disconnected,
            Event::Gossip { token, .. } => {
                if client.verdict(token, Verdict::Ignore).await.is_err() {
                    return;
                }
                continue;
            }
            Event::Request { token, .. } if token.at_door() => {
                let _ = client.respond(token, response::seal_admitted()).await;
                continue;
            }
            Event::Request { token, .. } => {
                let garbage = rude.load(Ordering::Relaxed);
                let answer = if garbage { vec![0x0a; 1_000_000] } else { response::seal_refused("no") };
                let _ = client.respond(token, answer).await;
                continue;
            }
            Event::Response { bytes, .. } => match response::open(&bytes, &mesh) {
                Ok(Told::Kernel(response)) => Seen::Answer(response),
                other => panic!("{other:?}"),
            },
            Event::Denied { bytes, .. } => match response::open(&bytes, &mesh) {
                Ok(Told::Kernel(response)) => Seen::Denied(response),
                other => panic!("{other:?}"),
            },
            Event::Unanswered { .. } => Seen::Unanswered,
            Event::Bootstrap { error: Some(_), .. } => Seen::Kept,
            _ => continue,
        };
        if sender.try_send(seen).is_err() {
            return;
        }
    }
}
