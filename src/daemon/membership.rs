//! Who may take part, as people ask and say it.

use std::collections::BTreeMap;

use super::Daemon;
use crate::control::{Answer, Refusal, proto};
use crate::kernel::id::PeerId;
use crate::kernel::io::{Input, Presence};
use crate::wire::revocation::Revocation;

impl Daemon {
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
    pub(super) fn cut_of(&self, peer: PeerId) -> String {
        Revocation::of(self.mesh, peer, self.node.cut_of(&peer)).to_string()
    }

    /// Takes a signed revocation.
    pub(super) fn revoke(&mut self, text: &str, answer: Answer<PeerId>) {
        let revoke = match text.parse::<Revocation>().and_then(|read| Ok((read.mesh, read.revoke()?))) {
            Ok((mesh, _)) if mesh != self.mesh => {
                return answer
                    .send(Err(Refusal::Invalid(format!("the revocation is for mesh {mesh}, not for this one"))));
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
