//! What follows from a change of who is a member: revocations are carried on, whoever is none any more is not heard,
//! what it ran is lost at once, and a node that was put out itself takes no part.

use std::sync::Arc;

use super::{Node, Stage};
use crate::kernel::entry::{Entry, Event, Revoke};
use crate::kernel::id::{Incarnation, PeerId};
use crate::kernel::io::{Notice, Offer, Output, Presence, Signed, StopReason, Token};

/// The most peers of which it is remembered that they answer nothing.
const MAX_TOLD: usize = 256;
/// After so many refusals in a row the operator is told. Own choice: a newcomer is known everywhere after one or two.
const MANY_REFUSALS: u32 = 5;

impl Node {
    /// The holder of the mesh key puts a peer out.
    pub(super) fn on_revoke(&mut self, token: Token, revoke: Revoke) {
        let peer = revoke.peer;
        let answer = if !revoke.is_of(&self.settings.mesh) {
            Err("this revocation was not signed by this mesh's key".to_owned())
        } else if self.clock.knows_revocation(&revoke) {
            Ok(peer)
        } else {
            self.writes_now().map(|()| {
                self.events.push(Event::Revoke(revoke));
                peer
            })
        };
        self.outbox.push(Output::Revoked { token, answer });
    }

    /// How far each incarnation of the peer counts now: what a revocation names.
    pub fn cut_of(&self, peer: &PeerId) -> Vec<(Incarnation, u64)> {
        self.clock.cut_of(peer)
    }

    /// An entry that need not be taken yet may hold the mesh key's word against this node itself.
    pub(super) fn heed_revocation(&mut self, entry: &Entry) {
        let me = self.me.peer();
        let of_me = |event: &Event| matches!(event, Event::Revoke(revoke) if revoke.peer == me && revoke.is_of(&self.settings.mesh));
        if !self.revoked && entry.body().events.iter().any(of_me) {
            self.revoked = true;
            self.leave();
        }
    }

    /// A member answers this one nothing. A few times that is only because it has not heard of this node yet.
    pub(super) fn note_refusal(&mut self, from: PeerId, why: &str) {
        if self.stage == Stage::Joining || self.refusals.len() >= MAX_TOLD {
            return;
        }
        let times = self.refusals.entry(from).or_default();
        *times = times.saturating_add(1);
        if *times == MANY_REFUSALS {
            self.notice(Notice::Warning { text: format!("{from} answers this node nothing: {why}") });
        }
    }

    /// An entry that is not taken may still hold the mesh key's word, which nobody else here may have.
    pub(super) fn keep_revocations_of(&mut self, entry: &Entry) {
        for event in &entry.body().events {
            if let Event::Revoke(revoke) = event
                && self.may_write()
                && revoke.is_of(&self.settings.mesh)
                && !self.clock.knows_revocation(revoke)
                && !self.events.contains(event)
            {
                self.events.push(event.clone());
            }
        }
    }

    /// Brings everything into line with who is a member, when that may have changed.
    pub(super) fn mind_members(&mut self) {
        let changes = self.clock.member_changes();
        if std::mem::replace(&mut self.members_seen, changes) == changes {
            return;
        }
        if self.may_write() {
            let unstated = self.clock.unstated();
            self.events.extend(unstated.into_iter().map(Event::Revoke));
        }
        let revoked: Vec<PeerId> = self.clock.revoked().filter(|peer| !self.told_revoked.contains(peer)).collect();
        for peer in revoked {
            self.told_revoked.insert(peer);
            // What a node learns of the time before it took part is history, not news.
            if self.may_write() {
                self.notice(Notice::Revoked { peer });
            }
        }
        let departures = self.clock.departures();
        if std::mem::replace(&mut self.departures_seen, departures) != departures {
            self.forget_strangers();
        }
        self.forget_vouched();
        self.claims.look_again();
        if self.stage != Stage::Joining && !self.is_member(&self.me.peer()) {
            self.leave();
        }
        if self.within_rights(self.offered.clone()) != self.offer {
            self.on_offer(self.offered.clone());
        }
    }

    /// Whoever is a member no longer is not heard, and what it ran is lost.
    fn forget_strangers(&mut self) {
        let strangers: Vec<PeerId> =
            self.peers.all().map(|peer| peer.place.peer()).filter(|peer| !self.is_member(peer)).collect();
        for peer in strangers {
            if self.peers.expel(&peer) {
                self.notice(Notice::PeerLost { peer });
            }
            self.peers.changed(self.now.mono, &self.settings.timings);
        }
        // What they ran is lost, and others are asked about the rest than before.
        let holders: Vec<PeerId> = self.custody.holders().copied().collect();
        holders.iter().for_each(|holder| self.custody.look_at_those_of(holder));
    }

    /// This node is a member no longer: it stops what it runs, and writes nothing.
    fn leave(&mut self) {
        self.stage = Stage::Joining;
        self.events.clear();
        self.sync.begin_anew();
        self.stop_everything(StopReason::Lost);
        let text = if self.revoked || self.clock.is_revoked(&self.me.peer()) {
            "this node was revoked by the holder of the mesh key: it takes no part any more"
        } else {
            "this node is a member no longer: its ticket had admitted another peer before; ask for another ticket and run \
             `runmesh mesh join`"
        };
        self.notice(Notice::Warning { text: text.to_owned() });
    }

    /// The offer without the labels that the peer's ticket does not let it offer.
    pub(super) fn limited(&self, peer: &PeerId, mut offer: Offer) -> Offer {
        if let Some(labels) = self.clock.members().labels_of(peer) {
            offer.labels.retain(|label| labels.contains(label));
        }
        offer
    }

    /// What a peer says, without the labels that it may not offer. The signed bytes stay as they came.
    pub(super) fn within_its_right(&self, said: Arc<Signed>) -> Arc<Signed> {
        if self.clock.members().labels_of(&said.presence.peer).is_none() {
            return said;
        }
        let offer = self.limited(&said.presence.peer, said.presence.offer.clone());
        Arc::new(Signed { presence: Presence { offer, ..said.presence.clone() }, bytes: said.bytes.clone() })
    }

    pub(super) fn within_rights(&self, offer: Offer) -> Offer {
        if self.is_member(&self.me.peer()) { self.limited(&self.me.peer(), offer) } else { offer }
    }
}
