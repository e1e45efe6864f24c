//! Learning who is there from one that knows.
//!
//! Who comes up, or comes back from a partition, hears nobody at first. Would everybody announce itself anew for each
//! newcomer, presences would be nearly all that a large mesh says. So the newcomer asks one peer for what it lacks, and
//! is given presences as their peers signed them: as trustworthy as over gossip, where anybody may repeat them too.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::peers::GREETING_TRIES;
use super::sync::Asked;
use super::{Node, Stage};
use crate::kernel::id::{Digest, PeerId};
use crate::kernel::io::{Reply, Request, Signed, Token};

impl Node {
    /// Asks somebody for what others have said, where some are connected and not heard.
    pub(super) fn ask_around(&mut self) {
        let (now, timings) = (self.now.mono, self.settings.timings);
        if self.peers.ask_at.is_none_or(|at| now < at) {
            return;
        }
        self.peers.ask_at = None;
        let members = self.clock.members();
        let lacks = self.peers.fresh().any(|peer| members.contains(peer));
        if self.stage == Stage::Joining || !lacks || self.peers.asked >= GREETING_TRIES {
            return;
        }
        self.peers.asked += 1;
        let draw = Digest::of(&[&self.settings.seed.to_be_bytes(), b"around", &self.token().0.to_be_bytes()]);
        let draw = usize::from(u16::from_be_bytes([draw.0[0], draw.0[1]]));
        let known = |peer: &&PeerId| self.clock.members().contains(peer);
        let mut able: Vec<PeerId> = self.peers.connected().filter(|peer| self.peers.hears(peer)).copied().collect();
        if able.is_empty() {
            able = self.peers.connected().filter(known).copied().collect();
        }
        let Some(to) = able.get(draw % able.len().max(1)).copied() else { return };
        let me = self.me.peer();
        let others = self.clock.members().peers().filter(|peer| **peer != me && !self.peers.hears(peer));
        let of: BTreeSet<PeerId> = others.copied().collect();
        self.ask(to, Request::Presences { of }, Asked::Presences);
        // Should no answer come, or not bring all.
        self.peers.ask_by(now + timings.beat);
    }

    /// A peer lacks the presences of these members.
    pub(super) fn on_presences_request(&mut self, from: PeerId, token: Token, of: &BTreeSet<PeerId>) {
        let now = self.now.mono;
        let own = if of.contains(&self.me.peer()) { self.next_presence().map(Box::new) } else { None };
        let heard = of.iter().filter(|peer| self.peers.hears(peer)).filter_map(|peer| self.peers.get(peer));
        let heard = heard.map(|peer| (peer.said().clone(), now - peer.last)).collect();
        self.reply(from, token, Reply::Presences { own, heard });
    }

    /// What others have said, from one that has heard it.
    pub(super) fn on_presences(&mut self, heard: Vec<(Arc<Signed>, u64)>) {
        for (said, ago) in heard {
            self.take_relayed(said, ago);
        }
        self.claims.look_again();
    }
}
