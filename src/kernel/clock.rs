//! The Merkle clock: which entries are here, which stand on which, and which of them count.
//!
//! It owns the graph, the members (whose admissions are entries themselves) and the forks. It promises that what it
//! says of a set of entries does not depend on the order in which they came. It leaves to the ledger what the counting
//! entries mean, to the quarantine the entries whose parents are missing, and to the store their bytes.

mod base;
mod cut;
mod members;
mod reach;
mod recent;
mod retire;
mod revoke;
mod rules;
mod shelf;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::{Arc, OnceLock};

pub use base::ChainBase;
pub use cut::{Division, Tally};
pub use members::{Member, MemberBase, Members};
pub use reach::{MAX_SEQUENCE, Reach};
pub use rules::Judged;
use shelf::Rights;
pub use shelf::Shelf;

use super::entry::{Admit, Body, Entry, Event, FORMAT, Hlc, MAX_PARENTS, Revoke};
use super::id::{Author, Cid, MeshId, PeerId};
use super::io::Vector;

/// By how many milliseconds a label may be ahead of a node's own wall clock for its next label to be greater still. Own
/// choice, a day: more than clocks are wrong that tell the time somehow, a wrong time zone included; little against the
/// days and weeks that labels are weighed in.
const MAX_AHEAD: u64 = 24 * 60 * 60 * 1000;

/// A place in the one order of entries that never puts a child before its parent: by height, then by id.
pub type Order = (u64, Cid);

/// Where an entry stands: all that is needed to say what it knew.
#[derive(Debug, Clone)]
pub struct Mark {
    pub cid: Cid,
    /// The clock's own number for the author.
    pub author: u32,
    pub sequence: u64,
    /// One more than the greatest height among its parents; 0 without parents.
    pub height: u64,
    pub reach: Reach,
}

impl Mark {
    /// Whether the other entry is an ancestor of this one. Exact for entries that count; of two branches of a fork it
    /// cannot tell one from the other, and neither counts.
    pub fn knows(&self, other: &Self) -> bool {
        self.cid != other.cid && self.reaches(other)
    }

    /// Whether the other entry is this one or an ancestor of it.
    pub fn reaches(&self, other: &Self) -> bool {
        self.reach.get(other.author) >= other.sequence
    }

    pub const fn order(&self) -> Order {
        (self.height, self.cid)
    }
}

/// What became of an entry that was offered to the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placing {
    /// It was here already.
    Known,
    /// It is here now.
    Placed { counts: bool },
    /// It cannot be placed before these are here.
    Missing(Vec<Cid>),
    /// It will never be placed: that follows from the entry and its ancestors alone.
    Refused(Refusal),
}

/// Why an entry can never count, nor be needed by one that does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the entry is of another mesh")]
    Mesh,
    #[error("its author is not a member as far as its ancestors say")]
    NotMember,
    #[error("its sequence number does not follow its author's last one")]
    Sequence,
    #[error("it is void and no counting entry stands on it")]
    Void,
    #[error("it does not stand above the checkpoint")]
    Past,
}

/// Proof that an author has written two entries with one sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    pub author: Author,
    pub sequence: u64,
    pub first: Cid,
    pub second: Cid,
}

/// What placing an entry changed beyond adding it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// A fork that was not known before.
    pub fork: Option<Fork>,
    /// Entries that counted do not any more, or the reverse: everything folded from entries is to be folded again.
    pub recounted: bool,
}

struct Placed {
    mark: Arc<Mark>,
    body: Arc<Body>,
    /// The order in which entries came here: a causal one.
    ordinal: u64,
    counts: bool,
}

impl Placed {
    fn parents(&self) -> &[Cid] {
        &self.body.parents
    }

    fn time(&self) -> Hlc {
        self.body.time
    }

    fn said(&self) -> Vec<Said> {
        Said::of(&self.body)
    }
}

/// What an entry says that the clock itself reads.
#[derive(Debug, Clone)]
enum Said {
    /// With the entry's label of time.
    Admit(Admit, u64),
    /// The author's version knows the rules up to this number.
    Declare(u32),
    /// The peer is to be waited for no longer.
    Retire(PeerId),
    /// The author agrees to what that entry proposes.
    Acknowledge(Cid),
    /// The mesh key puts a peer out. Its signature was checked.
    Revoke(Revoke),
}

impl Said {
    /// What stands in a body.
    fn of(body: &Body) -> Vec<Self> {
        let said = body.events.iter().filter_map(|event| match event {
            Event::Admit(admit) => Some(Self::Admit(admit.clone(), body.time.ms)),
            Event::Declare(declare) => Some(Self::Declare(declare.rules)),
            Event::Retire(retire) => Some(Self::Retire(retire.peer)),
            Event::Acknowledge(acknowledge) => Some(Self::Acknowledge(acknowledge.proposal)),
            Event::Revoke(revoke) if revoke.is_of(&body.mesh) => Some(Self::Revoke(revoke.clone())),
            _ => None,
        });
        said.collect()
    }

    /// Whether the founder's own admission is among what a peer said.
    fn founds(said: &[Self], mesh: &MeshId, peer: &PeerId) -> bool {
        said.iter().any(|said| matches!(said, Self::Admit(admit, _) if Members::founds(mesh, peer, admit)))
    }
}

struct Chain {
    author: Author,
    /// How many of its entries lie beneath the checkpoint and are not here any more.
    base: u64,
    /// How many of those count.
    base_counting: u64,
    /// The first entry seen of each sequence number after those.
    entries: Vec<Arc<Mark>>,
    /// Entries with this number or a later one do not count, by the checkpoint.
    void: Option<u64>,
    /// Entries with this number or a later one do not count: by the checkpoint, a fork, a retirement or a revocation.
    cut: Option<u64>,
    fork: Option<Fork>,
    /// How many of the chain's entries count; they are its beginning.
    counting: u64,
}

impl Chain {
    const fn new(author: Author) -> Self {
        Self { author, base: 0, base_counting: 0, entries: Vec::new(), void: None, cut: None, fork: None, counting: 0 }
    }

    /// Whether anything of it is or was here. With a [`Shelf`] there are chains that only others have met.
    const fn is_met(&self) -> bool {
        self.written() > 0
    }

    /// The number of its latest entry.
    const fn written(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// The entry with this number, if it is here.
    fn at(&self, sequence: u64) -> Option<&Arc<Mark>> {
        self.entries.get(usize::try_from(sequence.checked_sub(self.base + 1)?).ok()?)
    }
}

/// The graph of entries of one mesh.
pub struct Clock {
    mesh: MeshId,
    /// The checkpoint that all entries here stand above.
    base: Option<base::Base>,
    placed: BTreeMap<Cid, Placed>,
    /// The entries in the order in which they came here.
    order: Vec<Arc<Mark>>,
    chains: Vec<Chain>,
    numbers: BTreeMap<Author, u32>,
    heads: BTreeSet<Cid>,
    members: Members,
    /// Entries that propose retirements, and those that agree to them.
    endorsed: BTreeMap<Cid, BTreeSet<Cid>>,
    /// The retirements that hold, those of the checkpoint first.
    retired: Vec<retire::Retired>,
    revocations: revoke::Revocations,
    /// Grows whenever it may have changed who is a member.
    changes: u64,
    /// Grows whenever somebody may have ceased to be one.
    departures: u64,
    next_ordinal: u64,
    latest: Hlc,
    is_cut_anywhere: bool,
    /// Every entry here counts, as is usual: nothing has to be looked up to say so.
    all_count: bool,
    /// The greatest number of rules beyond this version's that an entry is, or was, under.
    rules_beyond: u32,
    /// What [`Self::rules`] found since whatever it hangs on changed last.
    rules: OnceLock<u32>,
    recent: recent::Recent,
    shelf: Shelf,
}

impl Clock {
    pub fn new(mesh: MeshId) -> Self {
        Self::beside(mesh, Shelf::default())
    }

    /// A clock that shares what it can with the others that have this shelf.
    pub fn beside(mesh: MeshId, shelf: Shelf) -> Self {
        Self {
            mesh,
            base: None,
            placed: BTreeMap::new(),
            order: Vec::new(),
            chains: Vec::new(),
            numbers: BTreeMap::new(),
            heads: BTreeSet::new(),
            members: Members::default(),
            endorsed: BTreeMap::new(),
            retired: Vec::new(),
            revocations: revoke::Revocations::default(),
            changes: 0,
            departures: 0,
            next_ordinal: 0,
            latest: Hlc::default(),
            is_cut_anywhere: false,
            all_count: true,
            rules_beyond: 0,
            rules: OnceLock::new(),
            recent: recent::Recent::default(),
            shelf,
        }
    }

    /// Offers an entry. `wanted` says that an entry in quarantine stands on it, so that it is kept even if void.
    pub fn place(&mut self, entry: &Entry, wanted: bool) -> (Placing, Effects) {
        let nothing = Effects::default();
        if self.placed.contains_key(&entry.cid()) {
            return (Placing::Known, nothing);
        }
        let body = entry.body();
        if body.mesh != self.mesh {
            return (Placing::Refused(Refusal::Mesh), nothing);
        }
        if self.is_past(body) {
            return (Placing::Refused(Refusal::Past), nothing);
        }
        let is_here = |cid: &&Cid| self.contains(cid);
        let missing: Vec<Cid> = body.parents.iter().filter(|cid| !is_here(cid)).copied().collect();
        if !missing.is_empty() {
            return (Placing::Missing(missing), nothing);
        }
        let standing = match self.shelf.mark(&entry.cid()) {
            Some(mark) => mark,
            None => {
                let below = self.below(&body.parents);
                let known = self.numbers.get(&body.author).map_or(0, |number| below.reach.get(*number));
                if known + 1 != body.sequence || body.sequence > MAX_SEQUENCE {
                    return (Placing::Refused(Refusal::Sequence), nothing);
                }
                Arc::new(Mark { cid: entry.cid(), ..below })
            }
        };
        let said = Said::of(body);
        let founds = Said::founds(&said, &self.mesh, &body.author.peer);
        let admitted = founds || self.members.admitted(&body.author.peer, &standing);
        if !admitted && !wanted {
            return (Placing::Refused(Refusal::NotMember), nothing);
        }
        let fork = self.conflict(entry);
        let number = self.numbers.get(&body.author);
        let cut = number.and_then(|number| self.chains[*number as usize].cut);
        let cut = cut.into_iter().chain(self.revocations.from(&body.author)).min();
        let unaware = body.sequence == 1 && self.is_unaware(&body.author.peer, number.copied(), &standing);
        let void = unaware || cut.is_some_and(|cut| body.sequence >= cut);
        if void && !wanted && fork.is_none() {
            return (Placing::Refused(Refusal::Void), nothing);
        }
        self.insert(entry, standing, admitted && !void && fork.is_none(), said, fork)
    }

    fn insert(
        &mut self,
        entry: &Entry,
        standing: Arc<Mark>,
        counts: bool,
        said: Vec<Said>,
        fork: Option<Fork>,
    ) -> (Placing, Effects) {
        let body = entry.body();
        let author = self.number(body.author);
        // One from the shelf is complete already.
        let mark = if standing.sequence > 0 {
            standing
        } else {
            let reach = standing.reach.with(author, body.sequence);
            let mark = Mark { cid: entry.cid(), author, sequence: body.sequence, height: standing.height, reach };
            self.shelf.put(Arc::new(mark))
        };
        let chain = &mut self.chains[author as usize];
        if chain.written() + 1 == body.sequence {
            chain.entries.push(mark.clone());
        }
        let decides = self.note_retirement(&mark, &said, counts) | self.note_revocation(&mark, &said);
        self.latest = self.latest.max(body.time);
        self.order.push(mark.clone());
        self.recent.note(&mark.cid);
        let placed =
            Placed { mark: mark.clone(), body: entry.shared_body().clone(), ordinal: self.next_ordinal, counts };
        self.next_ordinal += 1;
        self.all_count &= counts;
        let mut effects = Effects { fork, recounted: false };
        if let Some(fork) = fork {
            self.chains[author as usize].fork = Some(fork);
            self.is_cut_anywhere = true;
            self.placed.insert(mark.cid, placed);
            self.recount();
            effects.recounted = true;
        } else if counts {
            self.placed.insert(mark.cid, placed);
            if self.count(&mark, body.author.peer, &said).is_err() || decides {
                self.recount();
                effects.recounted = true;
            } else {
                self.note_rules(&mark);
                self.raise(&mark, &body.parents);
            }
        } else {
            self.placed.insert(mark.cid, placed);
            self.cut_unaware(author);
            if decides {
                self.recount();
                effects.recounted = true;
            }
        }
        (Placing::Placed { counts: self.counts(&mark.cid) }, effects)
    }

    /// A new counting entry is a head, and what it knows is none any more.
    fn raise(&mut self, mark: &Mark, parents: &[Cid]) {
        if self.all_count || parents.iter().all(|parent| self.counts(parent)) {
            // Whatever else it knows stands beneath one of these.
            parents.iter().for_each(|parent| {
                self.heads.remove(parent);
            });
        } else {
            self.heads.retain(|head| !self.placed.get(head).is_some_and(|placed| mark.knows(&placed.mark)));
        }
        self.heads.insert(mark.cid);
    }

    /// What stands below an entry with these parents, all of which are here.
    fn below(&self, parents: &[Cid]) -> Mark {
        let mut below =
            Mark { cid: Cid::from_digest([0; 32]), author: u32::MAX, sequence: 0, height: 0, reach: Reach::default() };
        for parent in parents {
            if let Some(parent) = self.placed.get(parent) {
                below.height = below.height.max(parent.mark.height + 1);
                below.reach = below.reach.join(&parent.mark.reach);
            }
        }
        below
    }

    fn number(&mut self, author: Author) -> u32 {
        if let Some(number) = self.numbers.get(&author) {
            return *number;
        }
        let number = self.shelf.number(author, self.chains.len() as u32);
        for other in self.chains.len() as u32..=number {
            let author = self.shelf.author(other).unwrap_or(author);
            self.chains.push(Chain { cut: self.revocations.from(&author), ..Chain::new(author) });
        }
        self.numbers.insert(author, number);
        number
    }

    /// The fork that this entry proves, unless its author has one at the same or an earlier place already.
    fn conflict(&self, entry: &Entry) -> Option<Fork> {
        let chain = &self.chains[*self.numbers.get(&entry.author())? as usize];
        let first = chain.at(entry.sequence())?.cid;
        let news = first != entry.cid() && chain.fork.is_none_or(|fork| entry.sequence() < fork.sequence);
        news.then(|| Fork { author: entry.author(), sequence: entry.sequence(), first, second: entry.cid() })
    }

    fn count(&mut self, mark: &Arc<Mark>, peer: PeerId, said: &[Said]) -> Result<(), ()> {
        self.chains[mark.author as usize].counting += 1;
        if said.iter().any(|said| matches!(said, Said::Admit(..))) {
            self.changes += 1;
        }
        // Whoever was retired is back with its next entry.
        if !self.retired.is_empty() || said.iter().any(|said| matches!(said, Said::Admit(..) | Said::Declare(_))) {
            self.rules.take();
        }
        self.members.hear(Rights { mesh: &self.mesh, shelf: &self.shelf }, mark, peer, said)
    }

    /// Decides anew which entries count, in the one order that all nodes share.
    fn recount(&mut self) {
        self.changes += 1;
        self.departures += 1;
        let tally = self.decide_retirements();
        for (cid, placed) in &mut self.placed {
            placed.counts = tally.counting.contains(cid);
        }
        self.all_count = self.placed.values().all(|placed| placed.counts);
        for (chain, counting) in self.chains.iter_mut().zip(tally.lengths) {
            chain.counting = counting;
        }
        self.members = tally.members;
        self.rules.take();
        self.note_all_rules();
        let last: Vec<Arc<Mark>> = (0..self.chains.len())
            .filter_map(|n| self.last_counting(n))
            .chain(self.base.as_ref().and_then(|base| self.placed.get(&base.cut)))
            .map(|placed| placed.mark.clone())
            .collect();
        let uncovered = last.iter().filter(|mark| !last.iter().any(|other| other.knows(mark)));
        self.heads = uncovered.map(|mark| mark.cid).collect();
    }

    fn last_counting(&self, chain: usize) -> Option<&Placed> {
        let chain = &self.chains[chain];
        self.placed.get(&chain.at(chain.counting)?.cid)
    }

    /// What the author would sign next, on all heads but those that are not wanted. The author's own entries must all
    /// be here.
    pub fn next_body(&self, author: Author, wall_ms: u64, events: Vec<Event>, unwanted: impl Fn(&Cid) -> bool) -> Body {
        let mut parents: Vec<Cid> = self.heads.iter().filter(|head| !unwanted(head)).copied().collect();
        let number = self.numbers.get(&author).copied();
        let sequence = number.map_or(0, |number| self.chains[number as usize].written()) + 1;
        if parents.len() > MAX_PARENTS || parents.len() < self.heads.len() {
            parents.truncate(MAX_PARENTS);
            let own = number.and_then(|number| self.last_counting(number as usize)).map(|placed| placed.mark.clone());
            if let Some(own) = own
                && !parents.iter().any(|cid| self.placed.get(cid).is_some_and(|placed| placed.mark.reaches(&own)))
            {
                parents.truncate(MAX_PARENTS - 1);
                parents.push(own.cid);
                parents.sort_unstable();
            }
        }
        let latest = self.latest_within(wall_ms.saturating_add(MAX_AHEAD), &parents);
        let time = if wall_ms > latest.ms {
            Hlc { ms: wall_ms, count: 0 }
        } else {
            Hlc { ms: latest.ms, count: latest.count.saturating_add(1) }
        };
        Body { format: FORMAT, mesh: self.mesh, author, sequence, parents, time, events }
    }

    /// The latest label up to a time; where there are later ones, among the parents' own. One clock that is far ahead would
    /// else set the time of all entries for good.
    fn latest_within(&self, most: u64, parents: &[Cid]) -> Hlc {
        if self.latest.ms <= most {
            return self.latest;
        }
        let times = parents.iter().filter_map(|parent| self.placed.get(parent)).map(Placed::time);
        times.filter(|time| time.ms <= most).max().unwrap_or_default()
    }

    /// Entries that count and that the vector does not have, at most `limit`, parents before children.
    pub fn lacking(&self, vector: &Vector, limit: usize) -> Vec<Cid> {
        let mut cursors = BinaryHeap::new();
        let ordinal_at = |chain: &Chain, at: u64| {
            let cid = chain.at(at + 1)?.cid;
            Some((self.placed.get(&cid)?.ordinal, cid))
        };
        for (number, chain) in self.chains.iter().enumerate() {
            let from = vector.get(&chain.author).copied().unwrap_or(0).max(chain.base);
            if from < chain.counting
                && let Some((ordinal, cid)) = ordinal_at(chain, from)
            {
                cursors.push(Reverse((ordinal, cid, number, from)));
            }
        }
        let mut found = Vec::new();
        while let Some(Reverse((_, cid, number, at))) = cursors.pop() {
            if found.len() == limit {
                break;
            }
            found.push(cid);
            let chain = &self.chains[number];
            if at + 1 < chain.counting
                && let Some((ordinal, cid)) = ordinal_at(chain, at + 1)
            {
                cursors.push(Reverse((ordinal, cid, number, at + 1)));
            }
        }
        found
    }

    /// Those of the entries that are here, counting or void, parents before children.
    pub fn in_order(&self, cids: impl IntoIterator<Item = Cid>) -> Vec<Cid> {
        let at = |cid: Cid| Some((self.placed.get(&cid)?.ordinal, cid));
        let mut found: Vec<(u64, Cid)> = cids.into_iter().filter_map(at).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, cid)| cid).collect()
    }

    /// How many counting entries of each author are here.
    pub fn vector(&self) -> Vector {
        self.chains.iter().filter(|chain| chain.counting > 0).map(|chain| (chain.author, chain.counting)).collect()
    }

    /// The proofs of forks that a peer with this vector has not met: it still counts beyond the fork.
    pub fn proofs(&self, vector: &Vector) -> Vec<Fork> {
        let beyond = |fork: &Fork| vector.get(&fork.author).is_some_and(|sequence| *sequence >= fork.sequence);
        self.chains.iter().filter_map(|chain| chain.fork).filter(beyond).collect()
    }

    /// Whether no chain is known that counts only up to some entry.
    pub const fn is_whole(&self) -> bool {
        !self.is_cut_anywhere
    }

    /// The known fork of this author.
    pub fn fork_of(&self, author: &Author) -> Option<Fork> {
        self.chains[*self.numbers.get(author)? as usize].fork
    }

    /// Grows whenever it may have changed who is a member.
    pub const fn member_changes(&self) -> u64 {
        self.changes
    }

    /// Grows whenever somebody may have ceased to be a member.
    pub const fn departures(&self) -> u64 {
        self.departures
    }

    /// Whether the author's later entries do not count, for a fork or because it was retired or revoked.
    pub fn is_cut(&self, author: &Author) -> bool {
        self.numbers.get(author).is_some_and(|number| self.chains[*number as usize].cut.is_some())
    }

    /// The author of an entry that is here.
    pub fn author_of(&self, cid: &Cid) -> Option<Author> {
        Some(self.chains[self.placed.get(cid)?.mark.author as usize].author)
    }

    /// How many entries the author's chain holds here, void ones included.
    pub fn written_by(&self, author: &Author) -> u64 {
        self.numbers.get(author).map_or(0, |number| self.chains[*number as usize].written())
    }

    /// The latest incarnation of a peer that has entries here: one that none of the others knows of, whatever came when.
    /// What was lost with a disk may turn up long after its author has gone on as another.
    pub fn last_incarnation(&self, peer: &PeerId) -> Option<Author> {
        let chains = self.chains.iter().zip(0_u32..).filter(|(chain, _)| chain.author.peer == *peer);
        let tops = chains.filter_map(|(chain, number)| Some((number, chain.entries.last()?.as_ref())));
        let tops: Vec<(u32, &Mark)> = tops.collect();
        let is_known = |(number, top): &(u32, &Mark)| {
            tops.iter()
                .any(|(other, later)| other != number && later.reach.get(*number) > 0 && top.reach.get(*other) == 0)
        };
        let last = tops.iter().max_by_key(|top| (!is_known(top), top.1.order()));
        last.map(|(number, _)| self.chains[*number as usize].author)
    }

    pub const fn heads(&self) -> &BTreeSet<Cid> {
        &self.heads
    }

    pub const fn members(&self) -> &Members {
        &self.members
    }

    pub fn contains(&self, cid: &Cid) -> bool {
        self.recent.has(cid) || self.placed.contains_key(cid)
    }

    pub fn counts(&self, cid: &Cid) -> bool {
        self.placed.get(cid).is_some_and(|placed| placed.counts)
    }

    /// The same of an entry that is known to be here.
    pub fn counts_here(&self, cid: &Cid) -> bool {
        self.all_count || self.counts(cid)
    }

    pub fn mark(&self, cid: &Cid) -> Option<&Arc<Mark>> {
        self.placed.get(cid).map(|placed| &placed.mark)
    }

    /// The entries that came here last, the newest first, at most so many.
    pub fn latest(&self, most: usize) -> Vec<Cid> {
        self.order.iter().rev().take(most).map(|mark| mark.cid).collect()
    }

    /// How many entries ever came here.
    pub const fn placings(&self) -> u64 {
        self.next_ordinal
    }

    /// How many entries are here, void ones included.
    pub fn len(&self) -> usize {
        self.placed.len()
    }

    pub fn is_empty(&self) -> bool {
        self.placed.is_empty()
    }
}
