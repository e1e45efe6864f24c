//! The checkpoint that the entries of a clock stand above: what is still known of those that were dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::retire::Retired;
use super::revoke::Revocations;
use super::{Chain, Clock, Division, Judged, Mark, Members, Placed, Reach, Shelf};
use crate::kernel::entry::{Body, FORMAT, Hlc};
use crate::kernel::id::{Author, Cid, Digest};
use crate::kernel::io::Vector;
use crate::kernel::snapshot::{self, Snapshot};

/// A chain as it was at the cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainBase {
    pub author: Author,
    /// How many of its entries lie beneath.
    pub entries: u64,
    /// How many of those count; they are its beginning.
    pub counting: u64,
    /// Entries with this number or a later one do not count.
    pub void: Option<u64>,
}

#[derive(Debug, Clone)]
pub(super) struct Base {
    /// The entry that divides what was dropped from what is here. It is here still, without its parents.
    pub(super) cut: Cid,
    /// The hash of the snapshot.
    pub(super) hash: Digest,
    /// The members at the cut.
    pub(super) members: Members,
    /// Those of them that had been retired.
    pub(super) retired: Vec<Retired>,
    /// The label of time of the cut.
    pub(super) time: Hlc,
    /// The greatest number of rules that an entry beneath stood under, if it is beyond [`Snapshot::RULES_UNNAMED`].
    pub(super) rules: u32,
}

impl Clock {
    /// A clock that holds nothing but what a snapshot tells.
    pub fn above(snapshot: &Snapshot, hash: Digest, shelf: Shelf) -> Self {
        let mut clock = Self::beside(snapshot.mesh, shelf);
        let mut reach = Reach::default();
        for base in &snapshot.chains {
            let number = clock.number(base.author);
            reach = reach.with(number, base.entries);
            let counting = base.counting;
            clock.is_cut_anywhere |= base.void.is_some();
            let chain = &mut clock.chains[number as usize];
            *chain = Chain {
                base: base.entries,
                base_counting: counting,
                counting,
                void: base.void,
                cut: base.void,
                ..Chain::new(base.author)
            };
        }
        let author = clock.number(snapshot.author);
        let sequence = reach.get(author);
        let mark = Mark { cid: snapshot.cut, author, sequence, height: snapshot.height, reach };
        clock.stand_on(snapshot, hash, Arc::new(mark));
        clock.heads = [snapshot.cut].into();
        clock
    }

    /// Forgets every entry but the cut and those that stand above it. Answers which are gone from here. What the clock
    /// says of the rest is afterwards what the snapshot and they alone say.
    pub fn drop_beneath(&mut self, snapshot: &Snapshot, hash: Digest, division: &Division) -> Vec<Cid> {
        let Some(cut) = self.placed.get(&snapshot.cut).map(|placed| placed.mark.clone()) else { return Vec::new() };
        let former = self.base.as_ref().map(|base| base.cut);
        let stays = |cid: &Cid| !division.beneath.contains(cid) && !division.astray.contains(cid);
        let gone: Vec<Cid> = self.placed.keys().filter(|cid| !stays(cid)).copied().collect();
        for cid in &gone {
            self.placed.remove(cid);
        }
        self.recent = super::recent::Recent::default();
        self.order.retain(|mark| self.placed.contains_key(&mark.cid));
        let bases = snapshot.chains.iter().map(|base| (base.author, base)).collect::<BTreeMap<_, _>>();
        for chain in &mut self.chains {
            let base = bases.get(&chain.author);
            chain.base = base.map_or(0, |base| base.entries);
            chain.base_counting = base.map_or(0, |base| base.counting);
            chain.entries.clear();
            let void = base.and_then(|base| base.void);
            // A fork is proven by what is here, or agreed on in the checkpoint; any other proof is gone everywhere.
            let proven = |fork: &super::Fork| [fork.first, fork.second].iter().all(|cid| self.placed.contains_key(cid));
            chain.fork = chain.fork.filter(|fork| void == Some(fork.sequence) || proven(fork));
            chain.void = void;
        }
        for mark in &self.order {
            let chain = &mut self.chains[mark.author as usize];
            if chain.written() + 1 == mark.sequence {
                chain.entries.push(mark.clone());
            }
        }
        self.endorsed.retain(|cid, _| self.placed.contains_key(cid));
        self.stand_on(snapshot, hash, cut);
        self.recount();
        // The former cut was not on disk any more, this one is.
        gone.into_iter().filter(|cid| Some(*cid) != former).collect()
    }

    fn stand_on(&mut self, snapshot: &Snapshot, hash: Digest, cut: Arc<Mark>) {
        let mut members = Members::restored(&snapshot.members, &cut);
        let mut revocations = Revocations::restored(&snapshot.revoked, cut.cid);
        snapshot.revoked.iter().for_each(|revoke| members.revoke(revoke.peer, &cut));
        for placed in self.placed.values() {
            revocations.note(&placed.mark, &placed.said());
        }
        self.revocations = revocations;
        self.changes += 1;
        self.departures += 1;
        self.members = members.clone();
        let away = snapshot.members.iter().filter(|member| member.retired);
        let retired: Vec<Retired> = away.map(|member| Retired { peer: member.peer, mark: cut.clone() }).collect();
        self.retired.clone_from(&retired);
        self.base = Some(Base { cut: cut.cid, hash, members, retired, time: snapshot.time, rules: snapshot.rules });
        self.rules.take();
        self.note_all_rules();
        self.latest = self.latest.max(snapshot.time);
        let (ordinal, cid) = (self.next_ordinal, cut.cid);
        self.next_ordinal += 1;
        // Nothing of the cut itself is read any more but its time.
        let body = Body {
            format: FORMAT,
            mesh: self.mesh,
            author: snapshot.author,
            sequence: cut.sequence,
            parents: Vec::new(),
            time: snapshot.time,
            events: Vec::new(),
        };
        let stub = Placed { mark: cut, body: Arc::new(body), ordinal, counts: true };
        self.placed.insert(cid, stub);
    }

    /// The snapshot at a cut, all but its tasks, and what was judged of the entries beneath. `None` when the cut itself does
    /// not, where chains are void from these numbers on.
    pub fn condense(&self, cut: &Cid, division: &Division, void: &[(Author, u64)]) -> Option<(Snapshot, Judged)> {
        let placed = self.placed.get(cut)?;
        let tally = self.tally_with(&division.beneath, void);
        if !tally.counting.contains(cut) {
            return None;
        }
        let retired = self.judge(Some(&division.beneath), &tally);
        let mut chains: BTreeMap<Author, ChainBase> = BTreeMap::new();
        for (chain, number) in self.chains.iter().zip(0..) {
            let entries = placed.mark.reach.get(number);
            if entries > 0 {
                let counting = tally.lengths.get(number as usize).copied().unwrap_or(0);
                chains.insert(chain.author, ChainBase { author: chain.author, entries, counting, void: None });
            }
        }
        for (author, from) in void {
            let unknown = ChainBase { author: *author, entries: 0, counting: 0, void: None };
            chains.entry(*author).or_insert(unknown).void = Some(*from);
        }
        let judged = Judged { tally, retired };
        let (tally, retired) = (&judged.tally, &judged.retired);
        let snapshot = Snapshot {
            format: snapshot::FORMAT,
            mesh: self.mesh,
            cut: *cut,
            author: self.chains[placed.mark.author as usize].author,
            height: placed.mark.height,
            time: placed.time(),
            chains: chains.into_values().collect(),
            members: tally.members.condensed(|peer| self.is_away(peer, &placed.mark, retired, &tally.lengths)),
            open: Vec::new(),
            closed: Vec::new(),
            submitted: Vec::new(),
            paused: None,
            revoked: self.revocations_within(&division.beneath),
            rules: self.rules_beneath(&judged),
        };
        Some((snapshot, judged))
    }

    /// Whether an entry can be no more than a part of what was dropped, or beside it.
    pub(super) fn is_past(&self, body: &Body) -> bool {
        let dropped = self.numbers.get(&body.author).map_or(0, |number| self.chains[*number as usize].base);
        self.base.is_some() && (body.sequence <= dropped || body.parents.is_empty())
    }

    /// Whether a peer with this vector lacks something that was dropped here.
    pub fn is_below_base(&self, vector: &Vector) -> bool {
        let lacks = |chain: &Chain| vector.get(&chain.author).copied().unwrap_or(0) < chain.base_counting;
        self.chains.iter().any(|chain| chain.base_counting > 0 && lacks(chain))
    }

    /// The entry that divides what was dropped here from what was not.
    pub fn cut(&self) -> Option<Cid> {
        self.base.as_ref().map(|base| base.cut)
    }

    /// The height of that entry; `None` before the first checkpoint.
    pub fn height_of_base(&self) -> Option<u64> {
        Some(self.mark(&self.base.as_ref()?.cut)?.height)
    }

    /// The label of time of that entry, milliseconds since 1970.
    pub fn time_of_base(&self) -> Option<u64> {
        self.base.as_ref().map(|base| base.time.ms)
    }

    /// All entries whose bytes are on this node's disk.
    pub fn held(&self) -> Vec<Cid> {
        self.placed.keys().copied().filter(|cid| self.holds(cid)).collect()
    }

    /// The hash of the snapshot that stands for what was dropped.
    pub fn base_hash(&self) -> Option<Digest> {
        self.base.as_ref().map(|base| base.hash)
    }

    /// Whether the entry's bytes are on this node's disk.
    pub fn holds(&self, cid: &Cid) -> bool {
        self.placed.contains_key(cid) && self.cut() != Some(*cid)
    }
}
