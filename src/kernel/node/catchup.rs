//! Taking over what others have dropped: the snapshot in its place, for a newcomer and for who was away for long.
//!
//! A peer that has dropped what this node lacks names the hash of its snapshot. One peer's word is not enough where
//! there are several: this node asks on, and fetches what more than half name, and two at least. A newcomer counts those
//! that name one, since others may know as little as it does. A node that has a history to lose counts all whom it has
//! asked: who says that it lacks nothing speaks against. Who is asked is drawn, so that no choice of ids decides it.
//! What it fetches is hashed and read before anything is given up for it. A peer can make this node wait for an answer,
//! and keep [`MAX_BYTES`](crate::kernel::snapshot::MAX_BYTES) at most.

use std::collections::BTreeMap;

use super::sync::Asked;
use super::{Node, Stage};
use crate::kernel::clock::Clock;
use crate::kernel::id::{Digest, PeerId};
use crate::kernel::io::{Notice, Reply, Request, Token};
use crate::kernel::snapshot::{MAX_PARTS, PART, Sealed};

/// How many peers are asked which snapshot they have. Own choice: a majority of five is hard to lie together.
const MAX_NAMERS: usize = 5;

#[derive(Debug, Default)]
pub(super) struct CatchUp {
    /// What each peer asked so far has named; nothing where it named none.
    named: BTreeMap<PeerId, Option<(Digest, u32)>>,
    fetch: Option<Fetch>,
    /// It was said that one peer's word is not enough.
    told: bool,
}

#[derive(Debug)]
struct Fetch {
    from: PeerId,
    hash: Digest,
    parts: u32,
    bytes: Vec<u8>,
}

impl CatchUp {
    /// Whether something that was dropped elsewhere is still missing here.
    pub(super) fn is_under_way(&self) -> bool {
        self.named.values().any(Option::is_some)
    }

    /// A peer has given entries that were missing here: nothing else is needed.
    pub(super) fn found_entries(&mut self) {
        self.named.clear();
        self.fetch = None;
    }
}

impl Node {
    /// A peer that lacks what was dropped here is told so.
    pub(super) fn reply_beneath(&mut self) -> Option<Reply> {
        let sealed = self.history.sealed()?;
        Some(Reply::Beneath { hash: sealed.hash, parts: parts_of(&sealed.bytes) })
    }

    /// A peer fetches the snapshot.
    pub(super) fn on_snapshot_request(&mut self, from: PeerId, token: Token, hash: Digest, part: u32) {
        let sealed = self.history.sealed().filter(|sealed| sealed.hash == hash);
        let found = sealed.and_then(|sealed| Some((sealed.bytes.chunks(PART).nth(part as usize)?, sealed)));
        let reply = match found {
            Some((bytes, sealed)) => Reply::Part { bytes: bytes.to_vec(), parts: parts_of(&sealed.bytes) },
            None => Reply::Refused { why: "this node has another snapshot by now".to_owned() },
        };
        self.reply(from, token, reply);
    }

    /// A peer has dropped what this node lacks.
    pub(super) fn on_beneath(&mut self, from: PeerId, hash: Digest, parts: u32) {
        let known = self.clock.base_hash() == Some(hash) || !(1..=MAX_PARTS).contains(&parts);
        self.catchup.named.insert(from, Some((hash, parts)).filter(|_| !known));
        self.go_on_learning();
        self.decide_snapshot();
    }

    /// A peer has nothing to say of snapshots, or does not answer.
    pub(super) fn names_none(&mut self, peer: PeerId) {
        if self.catchup.fetch.as_ref().is_some_and(|fetch| fetch.from == peer) {
            self.catchup.fetch = None;
        }
        if self.catchup.is_under_way() {
            self.catchup.named.insert(peer, None);
            self.decide_snapshot();
        }
    }

    /// Asks on, or begins to fetch what enough peers have named.
    fn decide_snapshot(&mut self) {
        if self.catchup.fetch.is_some() || !self.catchup.is_under_way() {
            return;
        }
        self.catchup.named.retain(|peer, _| self.peers.is_connected(peer));
        let connected = self.peers.connected().count();
        if self.catchup.named.len() < connected.min(MAX_NAMERS) {
            let mut left = self.connected_in_drawn_order();
            left.retain(|peer| !self.catchup.named.contains_key(peer));
            left.into_iter().take(MAX_NAMERS).for_each(|peer| self.sync.greet(peer));
            return;
        }
        let mut names: BTreeMap<(Digest, u32), Vec<PeerId>> = BTreeMap::new();
        for (peer, named) in &self.catchup.named {
            if let Some(named) = named {
                names.entry(*named).or_default().push(*peer);
            }
        }
        let all = match self.stage {
            Stage::Joining => names.values().map(Vec::len).sum(),
            Stage::Learning { .. } | Stage::Active => self.catchup.named.len(),
        };
        let others = self.clock.members().all().filter(|member| member.peer != self.me.peer()).count();
        let least = if connected > 1 || others > 1 { 2 } else { 1 };
        let chosen = names.iter().find(|(_, namers)| namers.len() >= least && namers.len() * 2 > all);
        if let Some(((hash, parts), namers)) = chosen {
            let fetch = Fetch { from: namers[0], hash: *hash, parts: *parts, bytes: Vec::new() };
            self.ask_part(&fetch, 0);
            self.catchup.fetch = Some(fetch);
            return;
        }
        if !std::mem::replace(&mut self.catchup.told, true) {
            let text =
                "the peers have dropped what this node lacks, and not enough of them name the same snapshot in its \
                        place: it goes on asking until two do, and more than half of those asked. If most of them were away \
                        as well, have this host join anew with another --data-dir"
                    .to_owned();
            self.notice(Notice::Warning { text });
        }
        self.catchup.named.clear();
        self.connected_in_drawn_order().into_iter().for_each(|peer| self.sync.greet(peer));
        self.sync.pause(self.now.mono + self.settings.timings.retry);
    }

    fn connected_in_drawn_order(&self) -> Vec<PeerId> {
        let (seed, now) = (self.settings.seed.to_be_bytes(), self.now.mono.to_be_bytes());
        let mut connected: Vec<PeerId> = self.peers.connected().copied().collect();
        connected.sort_by_cached_key(|peer| Digest::of(&[&seed, &now, &peer.to_bytes()]));
        connected
    }

    fn ask_part(&mut self, fetch: &Fetch, part: u32) {
        self.ask(fetch.from, Request::Snapshot { hash: fetch.hash, part }, Asked::Snapshot);
    }

    /// A part of the snapshot that was asked for.
    pub(super) fn on_part(&mut self, from: PeerId, bytes: &[u8], parts: u32) {
        let Some(mut fetch) = self.catchup.fetch.take() else { return };
        let at = (fetch.bytes.len() / PART) as u32;
        let is_last = at + 1 == fetch.parts;
        let fits = bytes.len() <= PART && !bytes.is_empty() && (is_last || bytes.len() == PART);
        if fetch.from != from || parts != fetch.parts || !fits {
            self.notice(Notice::Refused { from, why: "a part of a snapshot that is none".to_owned() });
            self.names_none(from);
            return;
        }
        fetch.bytes.extend_from_slice(bytes);
        self.go_on_learning();
        if !is_last {
            self.ask_part(&fetch, at + 1);
            self.catchup.fetch = Some(fetch);
            return;
        }
        match Sealed::open(fetch.bytes.into(), &self.settings.mesh) {
            Ok(sealed) if sealed.hash == fetch.hash && self.clock.height_of_base() < Some(sealed.snapshot.height) => {
                self.adopt(sealed);
                self.ask_for_more(from);
            }
            opened => {
                let why = opened.err().map_or_else(|| "not what its hash names".to_owned(), |error| error.to_string());
                self.notice(Notice::Refused { from, why: format!("a snapshot: {why}") });
                self.names_none(from);
            }
        }
    }

    /// Begins anew from a snapshot: what is here gives way to it, and what stands above it is fetched again.
    fn adopt(&mut self, sealed: Sealed) {
        let wrote = self.clock.written_by(&self.author) > 0;
        let dropped = self.clock.held();
        self.clock = Clock::above(&sealed.snapshot, sealed.hash, self.shelf.clone());
        self.catchup = CatchUp::default();
        self.quarantine = super::Quarantine::default();
        self.sync.begin_anew();
        self.history.begin_anew();
        self.change_ground(sealed, dropped);
        if wrote {
            self.renew_incarnation("the others have dropped what stood beneath its last entries");
        }
        let until = self.now.mono + self.settings.timings.start;
        self.stage =
            if self.clock.members().contains(&self.me.peer()) { Stage::Learning { until } } else { Stage::Joining };
    }
}

fn parts_of(bytes: &[u8]) -> u32 {
    bytes.len().div_ceil(PART) as u32
}
