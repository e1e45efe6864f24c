//! Who may take part: as people ask and say it, and as the network lets peers in.

use std::collections::{BTreeMap, BTreeSet};

use super::Daemon;
use crate::control::{Answer, Refusal, proto};
use crate::kernel::entry::{Event, Right, Ticket};
use crate::kernel::id::PeerId;
use crate::kernel::io::{Input, Presence, Request, Response};
use crate::kernel::node::{Node, Standing};
use crate::net::{Multiaddr, Papers, peer_of};
use crate::store::{Membership, Store, StoreError};
use crate::wire::limits::MAX_PROOF;
use crate::wire::response::{self, Told};
use crate::wire::revocation::Revocation;
use crate::wire::ticket::Invitation;
use crate::wire::{entry, request};

/// The proof of this node's membership, kept for when its entries have been dropped.
const PROOF: &str = "proof of membership";
/// That the mesh key has put this node out, for whoever would have it join again.
const REVOKED: &str = "revoked";

/// Whether it is on disk that this node was put out.
pub(super) fn was_revoked(store: &Store) -> Result<bool, StoreError> {
    Ok(store.note(REVOKED)?.is_some())
}

/// Whom the network lets in, and what it shows of this node.
pub(super) struct Gate {
    /// As long as this node knows no member, it trusts whom its ticket and its operator name.
    named: BTreeSet<PeerId>,
    ticket: Option<Ticket>,
    /// What it was told last.
    told: Option<(u64, bool)>,
}

impl Gate {
    pub(super) fn of(membership: &Membership, bootstrap: &[Multiaddr]) -> Self {
        let invitation = membership.ticket.as_ref().and_then(|text| text.parse::<Invitation>().ok());
        let kept = membership.bootstrap.iter().filter_map(|address| address.parse::<Multiaddr>().ok());
        let named = kept.chain(bootstrap.iter().cloned()).filter_map(|address| peer_of(&address)).collect();
        Self { named, ticket: invitation.map(|invitation| invitation.ticket), told: None }
    }

    pub(super) fn welcome(&self, node: &Node) -> BTreeSet<PeerId> {
        let mut welcome = node.welcome();
        if node.standing() == Standing::Joining {
            welcome.extend(&self.named);
        }
        welcome
    }

    /// What this node shows to whoever does not let it in.
    pub(super) fn papers(&self, node: &Node, store: &Store) -> Papers {
        let ticket = self.ticket.clone().map(|ticket| Request::Join { ticket });
        Papers { chain: chain(node, store), ticket: ticket.and_then(|join| request::seal(&join).ok()) }
    }
}

/// The way from this node's admission to the mesh key, as a request. Of a way whose further part has been dropped what
/// was kept of it is better.
fn chain(node: &Node, store: &Store) -> Option<Vec<u8>> {
    let warn = |error| tracing::warn!("the proof of this node's membership: {error}");
    let kept = store.note(PROOF).map_err(warn).ok().flatten();
    let cids = node.proof();
    let bytes = store.page(&cids, MAX_PROOF).map_err(warn).ok()?;
    let opened: Result<Vec<_>, _> = bytes.iter().map(|bytes| entry::open(bytes, &node.mesh())).collect();
    let Some(chain) = opened.ok().filter(|chain| !chain.is_empty() && chain.len() == cids.len()) else { return kept };
    let founds = |event: &Event| matches!(event, Event::Admit(admit) if matches!(admit.right, Right::Founder { .. }));
    let is_whole = chain.last().is_some_and(|last| last.body().events.iter().any(founds));
    if !is_whole && kept.is_some() {
        return kept;
    }
    let sealed = request::seal(&Request::Prove { chain }).ok()?;
    if kept.as_ref() != Some(&sealed)
        && let Err(error) = store.keep_note(PROOF, &sealed)
    {
        warn(error);
    }
    Some(sealed)
}

impl Daemon {
    /// Tells the network who is let in, and what to show, when that has changed.
    pub(super) async fn keep_gate(&mut self) {
        let now = (self.node.welcome_changes(), self.node.standing() == Standing::Joining);
        if self.gate.told == Some(now) {
            return;
        }
        if self.is_revoked()
            && let Err(error) = tokio::task::block_in_place(|| self.store.keep_note(REVOKED, &[]))
        {
            tracing::warn!("noting that this node is revoked: {error}");
        }
        let papers = tokio::task::block_in_place(|| self.gate.papers(&self.node, &self.store));
        // What is not on disk yet is looked for again.
        let waits = papers.chain.is_none() && !self.node.proof().is_empty();
        self.gate.told = Some(now).filter(|_| !waits);
        let welcome = self.gate.welcome(&self.node);
        if self.net.show(papers).await.is_err() || self.net.welcome(welcome).await.is_err() {
            tracing::debug!("the network has ended");
        }
    }

    /// How far this node is in taking part, in the API's words.
    pub(super) fn standing(&self) -> &'static str {
        match self.node.standing() {
            Standing::Joining if self.is_revoked() => "revoked",
            Standing::Joining => "joining",
            Standing::Learning => "learning",
            Standing::Active => "active",
            Standing::Draining => "draining",
        }
    }

    /// Whether the mesh key has put this node out. Whoever waits to be admitted is no member, and has written nothing
    /// that counts; of whoever was put out one of both is not so, by how it has heard of that.
    fn is_revoked(&self) -> bool {
        let me = self.node.peer();
        let is_known = |node: &Node| node.is_member(&me) || !node.cut_of(&me).is_empty();
        self.node.standing() == Standing::Joining && (is_known(&self.node) || was_revoked(&self.store).unwrap_or(false))
    }

    /// A peer does not let this node in.
    pub(super) fn on_denied(&mut self, peer: PeerId, bytes: &[u8]) {
        match response::open(bytes, &self.mesh) {
            // The mesh key's own word against this node, or about it.
            Ok(Told::Kernel(Response::Page { entries, .. })) => self.feed(Input::Entries { from: peer, entries }),
            Ok(Told::Kernel(Response::Refused { why })) => {
                let text = format!("{peer} does not let this node in: {why}");
                if !self.chronicle.warnings().contains(&text) {
                    self.chronicle.warn(text);
                }
            }
            _ => self.refused(peer, "at its door it answers what was not asked".to_owned()),
        }
    }

    pub(super) fn members(&self) -> Vec<proto::Member> {
        let presences: BTreeMap<PeerId, (&Presence, u64, bool)> =
            self.node.presences().map(|(presence, last, heard)| (presence.peer, (presence, last, heard))).collect();
        let (me, now) = (self.node.peer(), self.now().mono);
        let members = self.node.members().map(|member| {
            let presence = presences.get(&member.peer);
            let is_me = member.peer == me;
            let version = presence.map(|(presence, ..)| presence.version.clone()).unwrap_or_default();
            let labels = self.node.labels_of(&member.peer);
            proto::Member {
                peer_id: member.peer.to_string(),
                admitted_by: member.by.to_string(),
                right: if member.founder { "founder" } else { "ticket" }.to_owned(),
                admitted_ms: member.since_ms,
                self_: is_me,
                heard: is_me || presence.is_some_and(|(_, _, heard)| *heard),
                heard_ago_ms: presence.map(|(_, last, _)| now.saturating_sub(*last)),
                written_ms: self.node.last_written(&member.peer),
                version: if is_me { env!("CARGO_PKG_VERSION").to_owned() } else { version },
                may_offer: labels.map(|labels| proto::LabelList { labels: labels.into_iter().cloned().collect() }),
            }
        });
        members.collect()
    }

    /// What the holder of the mesh key is to sign to revoke a peer.
    pub(super) fn cut_of(&self, peer: PeerId) -> Result<String, Refusal> {
        if !self.node.is_member(&peer) {
            return Err(Refusal::NotFound(format!(
                "{peer} is no member that this node knows: it never was one, or is revoked already; \
                 `runmesh mesh members` shows who is one"
            )));
        }
        Ok(Revocation::of(self.mesh, peer, self.node.cut_of(&peer)).to_string())
    }

    /// Takes a signed revocation.
    pub(super) fn revoke(&mut self, text: &str, answer: Answer<PeerId>) {
        let revoke = match text.parse::<Revocation>().and_then(|read| Ok((read.mesh, read.revoke()?))) {
            Ok((mesh, _)) if mesh != self.mesh => {
                return answer
                    .send(Err(Refusal::Invalid(format!("the revocation is for mesh {mesh}, not for this one"))));
            }
            // It would write that it is out, and then tell nobody.
            Ok((_, revoke)) if revoke.peer == self.node.peer() => {
                return answer.send(Err(Refusal::NotNow(
                    "a node cannot put itself out, since nobody would hear of it from there: end it with \
                     `runmesh node drain`, and revoke it at another node"
                        .to_owned(),
                )));
            }
            Ok((_, revoke)) => revoke,
            Err(error) => return answer.send(Err(Refusal::Invalid(error.to_string()))),
        };
        if let Some(refusal) = self.disk_refuses() {
            return answer.send(Err(refusal));
        }
        let token = self.token();
        self.revoking.insert(token, answer);
        self.feed(Input::Revoke { token, revoke: Box::new(revoke) });
    }
}
