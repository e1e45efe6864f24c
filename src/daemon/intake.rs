//! What the network brings, opened and handed to the kernel.

use tokio::time::Instant;

use super::{Daemon, REMEMBER};
use crate::kernel::id::PeerId;
use crate::kernel::io::{Input, Notice, Token};
use crate::net::{Event, Topic, Verdict};
use crate::wire::{WireError, gossip, presence, request, response};

impl Daemon {
    pub(super) async fn on_event(&mut self, event: Event) {
        match event {
            Event::Connected(peer) => {
                self.feed(Input::Connected(peer));
                let soon = Instant::now() + REMEMBER;
                self.keep_peers = Some(self.keep_peers.map_or(soon, |at| at.min(soon)));
            }
            Event::Disconnected(peer) => self.feed(Input::Disconnected(peer)),
            Event::Gossip { topic, from, bytes, token } => {
                let verdict = match topic {
                    Topic::Entries => self.on_entries(from, &bytes),
                    Topic::Presence => self.on_presence(from, &bytes),
                };
                if self.net.verdict(token, verdict).await.is_err() {
                    tracing::debug!("the network has ended");
                }
            }
            Event::Request { from, bytes, token } => match request::open(&bytes) {
                Ok(request) => {
                    let number = self.token();
                    self.asking.insert(number, token);
                    self.feed(Input::Request { from, token: number, request });
                }
                Err(error) => {
                    self.refused(from, format!("a request that cannot be read: {error}"));
                    let _ = self.net.respond(token, response::seal_refused(&error.to_string())).await;
                }
            },
            Event::Response { id, from, bytes } => {
                let token = Token(id.0);
                match response::open(&bytes, &self.mesh) {
                    Ok(response) => self.feed(Input::Response { from, token, response }),
                    Err(error) => {
                        self.refused(from, format!("an answer that cannot be read: {error}"));
                        self.feed(Input::Unanswered { from, token });
                    }
                }
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
        }
    }

    fn on_entries(&mut self, from: PeerId, bytes: &[u8]) -> Verdict {
        let entries = match gossip::open_entries(bytes, &self.mesh) {
            Ok(entries) => entries,
            Err(error) => return self.bad_gossip(from, &error),
        };
        let authors: Vec<PeerId> = entries.iter().map(|entry| entry.author().peer).collect();
        self.feed(Input::Entries { from, entries });
        // What strangers wrote goes no further; nobody is blamed, who passed it on may know more.
        if authors.iter().all(|author| self.node.is_member(author)) { Verdict::Accept } else { Verdict::Ignore }
    }

    fn on_presence(&mut self, from: PeerId, bytes: &[u8]) -> Verdict {
        match presence::open(bytes, &self.mesh) {
            Ok(presence) => {
                let member = self.node.is_member(&presence.peer);
                self.feed(Input::Presence(Box::new(presence)));
                if member { Verdict::Accept } else { Verdict::Ignore }
            }
            Err(error) => self.bad_gossip(from, &error),
        }
    }

    fn bad_gossip(&mut self, from: PeerId, error: &WireError) -> Verdict {
        self.refused(from, error.to_string());
        if error.is_provably_bad() { Verdict::Reject } else { Verdict::Ignore }
    }

    fn refused(&mut self, from: PeerId, why: String) {
        self.chronicle.note(&Notice::Refused { from, why });
    }
}
