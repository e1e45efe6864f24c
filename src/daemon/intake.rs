//! What the network brings: read and checked beside the loop, then handed to the kernel.
//!
//! Owns the task between net and the loop. Promises that no signature is checked on the loop, that what one peer says
//! comes in its order but for answers, which overtake nothing they depend on, and that everything between is bounded:
//! so many opened events and so many pages at once, after which the network waits and drops what it may.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::effects::TOO_BUSY;
use super::logs::Fetcher;
use super::scale::Asker;
use super::{Daemon, REMEMBER};
use crate::kernel::entry::Entry;
use crate::kernel::id::{MeshId, PeerId};
use crate::kernel::io::{Input, Notice, Request, Response, Signed, Token};
use crate::net::{self, Event, GossipToken, ReplyToken, Topic, Verdict};
use crate::wire::request::{self, Ask};
use crate::wire::response::{self, Told};
use crate::wire::{WireError, gossip, presence};

/// Events that are opened and wait for the loop.
const OPENED: usize = 256;
/// Messages that are opened at once on threads of their own. This node asks one peer for a page at a time, so only
/// hostile or very busy neighbours fill it.
const OPENING: usize = 4;
/// From so many bytes on a message is opened on a thread of its own: checking it takes longer than the change of
/// threads.
const LARGE: usize = 4096;

/// What came, and what it means.
pub(super) enum Arrived {
    Entries {
        from: PeerId,
        opened: Result<Vec<Arc<Entry>>, WireError>,
        token: GossipToken,
    },
    Presence {
        from: PeerId,
        opened: Result<Arc<Signed>, WireError>,
        token: GossipToken,
    },
    Request {
        from: PeerId,
        opened: Result<Ask, WireError>,
        token: ReplyToken,
    },
    Response {
        from: PeerId,
        token: Token,
        opened: Result<Told, WireError>,
    },
    /// Nothing that had to be opened.
    Plain(Event),
}

/// The way from the network to the loop. The network ends with it.
pub(super) struct Intake {
    arrived: mpsc::Receiver<Arrived>,
    task: JoinHandle<()>,
}

impl Intake {
    pub(super) fn start(events: net::Events, mesh: MeshId) -> Self {
        let (send, arrived) = mpsc::channel(OPENED);
        Self { arrived, task: tokio::spawn(take_in(events, mesh, send)) }
    }

    /// The next thing that came; `None` once the network has ended. May be given up and called again without loss.
    pub(super) async fn recv(&mut self) -> Option<Arrived> {
        self.arrived.recv().await
    }

    /// The next thing if it is there already.
    pub(super) fn try_recv(&mut self) -> Option<Arrived> {
        self.arrived.try_recv().ok()
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take_in(mut events: net::Events, mesh: MeshId, to: mpsc::Sender<Arrived>) {
    let mut opening = JoinSet::new();
    loop {
        let arrived = tokio::select! {
            Some(opened) = opening.join_next() => match opened {
                Ok(arrived) => arrived,
                Err(error) => {
                    tracing::error!("opening a message: {error}");
                    continue;
                }
            },
            event = events.recv(), if opening.len() < OPENING => match event {
                Some(event) if is_large(&event) => {
                    opening.spawn_blocking(move || open(event, &mesh));
                    continue;
                }
                Some(event) => open(event, &mesh),
                None => return,
            },
        };
        if to.send(arrived).await.is_err() {
            return;
        }
    }
}

const fn is_large(event: &Event) -> bool {
    match event {
        Event::Gossip { topic: Topic::Entries, bytes, .. } | Event::Response { bytes, .. } => bytes.len() >= LARGE,
        _ => false,
    }
}

fn open(event: Event, mesh: &MeshId) -> Arrived {
    match event {
        Event::Gossip { topic: Topic::Entries, from, bytes, token } => {
            Arrived::Entries { from, opened: gossip::open_entries(&bytes, mesh), token }
        }
        Event::Gossip { topic: Topic::Presence, from, bytes, token } => {
            Arrived::Presence { from, opened: presence::open_signed(&bytes, mesh), token }
        }
        Event::Request { from, bytes, token } => Arrived::Request { from, opened: request::open(&bytes, mesh), token },
        Event::Response { id, from, bytes } => {
            Arrived::Response { from, token: Token(id.0), opened: response::open(&bytes, mesh) }
        }
        other => Arrived::Plain(other),
    }
}

/// Whether it may be asked by somebody who has proven nothing yet.
const fn is_for_the_door(ask: &Ask) -> bool {
    matches!(ask, Ask::Kernel(Request::Join { .. } | Request::Prove { .. }))
}

impl Daemon {
    pub(super) async fn on_arrived(&mut self, arrived: Arrived) {
        match arrived {
            Arrived::Entries { from, opened, token } => {
                let verdict = self.on_entries(from, opened).await;
                self.judge(token, verdict).await;
            }
            Arrived::Presence { from, opened, token } => {
                let verdict = self.on_presence(from, opened).await;
                self.judge(token, verdict).await;
            }
            Arrived::Request { from, opened: Ok(ask), token } if token.at_door() && !is_for_the_door(&ask) => {
                self.refused(from, "it asks without having shown that it belongs to this mesh".to_owned());
                let why = "show first that you belong to this mesh";
                let _ = self.net.respond(token, response::seal_refused(why)).await;
            }
            Arrived::Request { from, opened: Ok(Ask::ScaleSet(ask)), token } => {
                self.on_set_ask(from, ask, token).await;
            }
            Arrived::Request { from, opened: Ok(Ask::Log(part)), token } => self.on_log_part(from, part, token).await,
            // Whom no page can be sent now, for him none is looked for.
            Arrived::Request { opened: Ok(Ask::Kernel(Request::Sync { .. })), token, .. } if self.is_too_busy() => {
                let _ = self.net.respond(token, response::seal_refused(TOO_BUSY)).await;
            }
            Arrived::Request { from, opened: Ok(Ask::Kernel(request)), token } => {
                let number = self.token();
                self.asking.insert(number, token);
                self.feed(Input::Request { from, token: number, request });
            }
            Arrived::Request { from, opened: Err(error), token } => {
                self.blame(from, "a request", &error).await;
                let _ = self.net.respond(token, response::seal_refused(&error.to_string())).await;
            }
            Arrived::Response { from: _, token, opened } if Asker::asked(token.0) => {
                let answer = match opened {
                    Ok(Told::ScaleSet(told)) => Ok(told),
                    Ok(Told::Kernel(Response::Refused { why })) => Err(why),
                    Ok(Told::Kernel(_) | Told::Log(_)) => Err("it answered something else".to_owned()),
                    Err(error) => Err(format!("its answer cannot be read: {error}")),
                };
                self.scale.asker.answered(token.0, answer);
            }
            Arrived::Response { from: _, token, opened } if Fetcher::asked(token.0) => {
                let answer = match opened {
                    Ok(Told::Log(piece)) => Ok(piece),
                    Ok(Told::Kernel(Response::Refused { why })) => Err(why),
                    Ok(Told::Kernel(_) | Told::ScaleSet(_)) => Err("it answered something else".to_owned()),
                    Err(error) => Err(format!("its answer cannot be read: {error}")),
                };
                self.fetcher.answered(token.0, answer);
            }
            Arrived::Response { from, token, opened: Ok(Told::Kernel(response)) } => {
                self.feed(Input::Response { from, token, response });
            }
            Arrived::Response { from, token, opened: Ok(Told::Log(_) | Told::ScaleSet(_)) } => {
                self.refused(from, "a piece of a log, or of a scale set, that was not asked for".to_owned());
                self.feed(Input::Unanswered { from, token });
            }
            Arrived::Response { from, token, opened: Err(error) } => {
                self.blame(from, "an answer", &error).await;
                self.feed(Input::Unanswered { from, token });
            }
            Arrived::Plain(event) => self.on_event(event),
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Connected(peer) => {
                self.feed(Input::Connected(peer));
                let soon = Instant::now() + REMEMBER;
                self.keep_peers = Some(self.keep_peers.map_or(soon, |at| at.min(soon)));
            }
            Event::Flood { peer, dropped } => self.on_flood(peer, dropped),
            Event::Denied { peer, bytes } => self.on_denied(peer, &bytes),
            Event::Disconnected(peer) => self.feed(Input::Disconnected(peer)),
            Event::Unanswered { id, from: _, why } if Asker::asked(id.0) => {
                self.scale.asker.answered(id.0, Err(format!("it does not answer: {why}")));
            }
            Event::Unanswered { id, from: _, why } if Fetcher::asked(id.0) => {
                self.fetcher.answered(id.0, Err(format!("it does not answer: {why}")));
            }
            Event::Unanswered { id, from, why } => {
                tracing::debug!("no answer from {}: {why}", from.short());
                self.feed(Input::Unanswered { from, token: Token(id.0) });
            }
            Event::Listening(address) => tracing::info!("listening on {address}"),
            Event::Deaf { address, error } => {
                self.chronicle.warn(format!("this node listens on {address} no longer: {error}"));
            }
            Event::Bootstrap { address, error: Some(error) } => {
                let text =
                    format!("the bootstrap peer {address} does not answer ({error}); it is tried again for ever");
                self.chronicle.warn(text);
            }
            Event::Bootstrap { address, error: None } => tracing::info!("the bootstrap peer {address} answers again"),
            Event::Rtt { .. } => {}
            Event::Gossip { .. } | Event::Request { .. } | Event::Response { .. } => {
                unreachable!("what holds bytes was opened")
            }
        }
    }

    async fn judge(&self, token: GossipToken, verdict: Verdict) {
        if self.net.verdict(token, verdict).await.is_err() {
            tracing::debug!("the network has ended");
        }
    }

    async fn on_entries(&mut self, from: PeerId, opened: Result<Vec<Arc<Entry>>, WireError>) -> Verdict {
        let entries = match opened {
            Ok(entries) => entries,
            Err(error) => return self.bad_gossip(from, &error).await,
        };
        let authors: Vec<PeerId> = entries.iter().map(|entry| entry.author().peer).collect();
        self.feed(Input::Entries { from, entries });
        // What strangers wrote goes no further; nobody is blamed, who passed it on may know more.
        if authors.iter().all(|author| self.node.is_member(author)) { Verdict::Accept } else { Verdict::Ignore }
    }

    async fn on_presence(&mut self, from: PeerId, opened: Result<Arc<Signed>, WireError>) -> Verdict {
        match opened {
            Ok(signed) => {
                let member = self.node.is_member(&signed.presence.peer);
                self.feed(Input::Presence(signed));
                if member { Verdict::Accept } else { Verdict::Ignore }
            }
            Err(error) => self.bad_gossip(from, &error).await,
        }
    }

    async fn bad_gossip(&mut self, from: PeerId, error: &WireError) -> Verdict {
        self.blame(from, "a message", error).await;
        if error.is_provably_bad() { Verdict::Reject } else { Verdict::Ignore }
    }

    /// What cannot be read is told, and held against its sender where everybody can see that it is bad.
    async fn blame(&mut self, from: PeerId, what: &str, error: &WireError) {
        self.refused(from, format!("{what} that cannot be read: {error}"));
        if error.is_provably_bad() {
            self.on_bad(from, format!("{what}: {error}")).await;
        }
    }

    pub(super) fn refused(&mut self, from: PeerId, why: String) {
        self.chronicle.note(&Notice::Refused { from, why });
    }
}
