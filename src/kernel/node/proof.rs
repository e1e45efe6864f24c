//! Proving membership to somebody who does not have the admission: by the entries that lead from it to the mesh key.
//!
//! Two members that were admitted in different parts of a mesh do not know of each other. Each shows its admission, the
//! admission of whoever wrote that, and so on, up to a founder, whom the mesh key named, or to a member that the other
//! knows. Who has proven itself so may ask for entries; it is a member here once its admission is here.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Node;
use crate::kernel::entry::{Entry, Event, Right};
use crate::kernel::id::{Cid, PeerId};
use crate::kernel::io::{MAX_CHAIN, Reply, Token};

/// The most peers that have proven themselves and whose admissions are not here yet.
const MAX_VOUCHED: usize = 256;

/// Those that have proven themselves before their admissions came.
#[derive(Debug, Default)]
pub(super) struct Vouched(BTreeSet<PeerId>);

impl Node {
    /// The entries by which this node proves its membership, its own admission first; those that are on its disk.
    pub fn proof(&self) -> Vec<Cid> {
        self.clock.chain_of(&self.me.peer(), MAX_CHAIN)
    }

    /// Who may be connected: the members, and those that have proven that they are.
    pub fn welcome(&self) -> BTreeSet<PeerId> {
        self.members().map(|member| member.peer).chain(self.vouched.0.iter().copied()).collect()
    }

    /// Whether entries are given to that peer.
    pub(super) fn may_ask(&self, peer: &PeerId) -> bool {
        self.is_member(peer) || self.vouched.0.contains(peer)
    }

    /// A stranger asks. Whoever was revoked hears it by an entry with the mesh key's own word.
    pub(super) fn turn_down(&mut self, from: PeerId, token: Token) {
        let reply = match self.clock.revoked_by(&from).into_iter().find(|cid| self.clock.holds(cid)) {
            Some(cid) => Reply::Page { cids: vec![cid], more: false },
            None => Reply::Refused { why: self.why_not(&from) },
        };
        self.reply(from, token, reply);
    }

    fn why_not(&self, peer: &PeerId) -> String {
        if self.clock.is_revoked(peer) {
            format!("the holder of the mesh key has revoked {peer}")
        } else if self.clock.members().was_refused(peer) {
            format!("the ticket of {peer} has admitted another peer; ask for another")
        } else {
            format!("{peer} is not a member as far as this node knows")
        }
    }

    /// Grows whenever [`Self::welcome`] may have changed.
    pub const fn welcome_changes(&self) -> u64 {
        self.clock.member_changes().wrapping_add(self.vouchings)
    }

    /// A peer proves itself.
    pub(super) fn on_prove(&mut self, from: PeerId, token: Token, chain: &[Arc<Entry>]) {
        let checked = if self.is_member(&from) { Ok(()) } else { self.check_chain(&from, chain) };
        let reply = match checked {
            Ok(()) => {
                if !self.is_member(&from) && self.vouched.0.insert(from) {
                    self.vouchings += 1;
                }
                Reply::Admitted
            }
            Err(_) if self.clock.is_revoked(&from) => return self.turn_down(from, token),
            Err(why) => Reply::Refused { why },
        };
        self.reply(from, token, reply);
    }

    /// Whether these entries lead from the peer to the mesh key, as far as this node knows.
    fn check_chain(&self, peer: &PeerId, chain: &[Arc<Entry>]) -> Result<(), String> {
        if self.clock.is_revoked(peer) {
            return Err("the holder of the mesh key has revoked it".to_owned());
        }
        if self.vouched.0.len() >= MAX_VOUCHED {
            return Err("too many others have proven themselves and are not known here yet; try again".to_owned());
        }
        let mut proven = *peer;
        for entry in chain.iter().take(MAX_CHAIN) {
            let author = entry.author();
            let right = entry.body().events.iter().find_map(|event| match event {
                Event::Admit(admit) if admit.peer == proven && admit.right.admits(&self.settings.mesh, &proven) => {
                    Some(&admit.right)
                }
                _ => None,
            });
            let other = |right: &Right| match right {
                Right::Ticket { ticket } => self.clock.members().user_of(ticket.id).is_some_and(|user| user != proven),
                Right::Founder { .. } => false,
            };
            match right {
                None => return Err(format!("it has not shown who admitted {proven}")),
                Some(right) if other(right) => return Err(format!("the ticket of {proven} has admitted another peer")),
                Some(_) if self.clock.is_void(&author, entry.sequence()) => {
                    return Err(format!("what admitted {proven} does not count"));
                }
                Some(Right::Founder { .. }) if author.peer == proven => return Ok(()),
                Some(_) if self.is_member(&author.peer) => return Ok(()),
                Some(_) => proven = author.peer,
            }
        }
        Err("it has not shown that it belongs to this mesh".to_owned())
    }

    /// Forgets those of whom more is known now: members, and revoked ones.
    pub(super) fn forget_vouched(&mut self) {
        let (members, clock) = (self.clock.members(), &self.clock);
        self.vouched.0.retain(|peer| !members.contains(peer) && !clock.is_revoked(peer));
    }
}
