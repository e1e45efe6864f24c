//! Revocations: who was put out by the mesh key, and which entries count for nothing since.
//!
//! A revocation is the mesh key's own word, so it holds wherever it stands, also in an entry that does not count: two
//! that revoke each other's carriers both hold, in whatever order they come. So that all nodes come to know it, one that
//! meets a revocation which no counting entry states here writes it into an entry of its own ([`Clock::unstated`]).

use std::collections::{BTreeMap, BTreeSet};

use super::{Clock, Mark, Said};
use crate::kernel::entry::Revoke;
use crate::kernel::id::{Author, Cid, Incarnation, PeerId};

/// What was said of one peer.
#[derive(Debug, Clone, Default)]
pub(super) struct Revoked {
    /// The number of the last entry that counts; of an incarnation that is not here, none does.
    last: BTreeMap<Incarnation, u64>,
    /// Each revocation, and the entries that state it; none for what the checkpoint states.
    stated: Vec<(Revoke, BTreeSet<Cid>)>,
}

/// Everybody who was revoked.
#[derive(Debug, Clone, Default)]
pub(super) struct Revocations {
    peers: BTreeMap<PeerId, Revoked>,
}

impl Revocations {
    /// Those that a checkpoint states.
    pub(super) fn restored(revoked: &[Revoke], cut: Cid) -> Self {
        let mut restored = Self::default();
        for revoke in revoked {
            restored.add(revoke, cut);
        }
        restored
    }

    /// Takes note of one. Returns whether it was not known.
    fn add(&mut self, revoke: &Revoke, by: Cid) -> bool {
        let known = self.peers.contains_key(&revoke.peer);
        let of_peer = self.peers.entry(revoke.peer).or_default();
        if let Some((_, stating)) = of_peer.stated.iter_mut().find(|(stated, _)| stated == revoke) {
            stating.insert(by);
            return false;
        }
        let named: BTreeMap<Incarnation, u64> = revoke.last.iter().copied().collect();
        if known {
            // What any of them leaves out counts by none.
            of_peer.last.retain(|incarnation, last| {
                let other = named.get(incarnation).copied();
                *last = (*last).min(other.unwrap_or(0));
                other.is_some()
            });
        } else {
            of_peer.last = named;
        }
        of_peer.stated.push((revoke.clone(), BTreeSet::from([by])));
        true
    }

    /// Takes note of what an entry says. Returns whether any of it was not known.
    pub(super) fn note(&mut self, mark: &Mark, said: &[Said]) -> bool {
        let mut news = false;
        for said in said {
            if let Said::Revoke(revoke) = said {
                news |= self.add(revoke, mark.cid);
            }
        }
        news
    }

    /// From which number on an author's entries are void.
    pub(super) fn from(&self, author: &Author) -> Option<u64> {
        let revoked = self.peers.get(&author.peer)?;
        Some(revoked.last.get(&author.incarnation).map_or(1, |last| last.saturating_add(1)))
    }

    fn all(&self) -> impl Iterator<Item = &(Revoke, BTreeSet<Cid>)> {
        self.peers.values().flat_map(|revoked| &revoked.stated)
    }
}

impl Clock {
    /// The entries by which a member may prove its membership, its own admission first, each followed by the one that
    /// admits its author; those that are on this node's disk.
    pub fn chain_of(&self, peer: &PeerId, most: usize) -> Vec<Cid> {
        let mut chain = self.members.chain_of(peer, most);
        chain.retain(|cid| self.holds(cid));
        chain
    }

    /// Whether the mesh key has put the peer out.
    pub fn is_revoked(&self, peer: &PeerId) -> bool {
        self.revocations.peers.contains_key(peer)
    }

    /// The entries that revoke the peer.
    pub fn revoked_by(&self, peer: &PeerId) -> BTreeSet<Cid> {
        let stated = self.revocations.peers.get(peer).into_iter().flat_map(|revoked| &revoked.stated);
        stated.flat_map(|(_, stating)| stating).copied().collect()
    }

    /// Whether an entry of the author with this number counts for nothing.
    pub fn is_void(&self, author: &Author, sequence: u64) -> bool {
        let cut = self.numbers.get(author).and_then(|number| self.chains[*number as usize].cut);
        cut.into_iter().chain(self.revocations.from(author)).any(|cut| sequence >= cut)
    }

    /// Everybody whom it has put out.
    pub fn revoked(&self) -> impl Iterator<Item = PeerId> {
        self.revocations.peers.keys().copied()
    }

    /// Whether that revocation is known.
    pub fn knows_revocation(&self, revoke: &Revoke) -> bool {
        self.revocations.all().any(|(stated, _)| stated == revoke)
    }

    /// The revocations that no counting entry states here: others may not come to know them.
    pub fn unstated(&self) -> Vec<Revoke> {
        let is_stated = |stating: &BTreeSet<Cid>| stating.iter().any(|cid| self.counts(cid));
        self.revocations.all().filter(|(_, stating)| !is_stated(stating)).map(|(revoke, _)| revoke.clone()).collect()
    }

    /// How far each incarnation of the peer counts now: what a revocation made here would name.
    pub fn cut_of(&self, peer: &PeerId) -> Vec<(Incarnation, u64)> {
        let chains = self.chains.iter().filter(|chain| chain.author.peer == *peer && chain.counting > 0);
        let mut last: Vec<_> = chains.map(|chain| (chain.counting, chain.author.incarnation)).collect();
        last.sort_unstable_by(|a, b| b.cmp(a));
        last.truncate(crate::kernel::entry::MAX_CUTS);
        let mut last: Vec<_> = last.into_iter().map(|(counting, incarnation)| (incarnation, counting)).collect();
        last.sort_unstable();
        last
    }

    /// Takes note of what an entry says of revocations, whether or not it counts. `true` when any of it is news.
    pub(super) fn note_revocation(&mut self, mark: &Mark, said: &[Said]) -> bool {
        self.revocations.note(mark, said)
    }

    /// The revocations beneath a cut, as its checkpoint keeps them.
    pub(super) fn revocations_within(&self, within: &BTreeSet<Cid>) -> Vec<Revoke> {
        let stated = |stating: &BTreeSet<Cid>| stating.iter().any(|cid| within.contains(cid));
        let mut beneath: Vec<Revoke> =
            self.revocations.all().filter(|(_, stating)| stated(stating)).map(|(revoke, _)| revoke.clone()).collect();
        beneath.sort_by_key(|revoke| (revoke.peer, revoke.signature.0));
        beneath
    }
}
