//! What a node shows of itself: snapshots for people and programs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Node, Stage, claimed_by};
use crate::kernel::clock::Member;
use crate::kernel::election::Seed;
use crate::kernel::id::{Author, Cid, Digest, PeerId, TaskId};
use crate::kernel::io::{Offer, Presence, SourceKey, Vector};
use crate::kernel::known::Known;
use crate::kernel::ledger::Folded;
use crate::kernel::task::Workload;

/// How far a node is in taking part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not a member yet.
    Joining,
    /// A member that learns what the others have.
    Learning,
    /// Takes part.
    Active,
    /// Takes part, claims nothing new.
    Draining,
}

/// A node in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub standing: Standing,
    pub author: Author,
    pub heads: Vec<Cid>,
    pub entries: usize,
    pub waiting_entries: usize,
    /// Heads that peers have named and that are not here.
    pub missing_heads: usize,
    pub state_hash: Digest,
    /// Entries here are under rules of folding that this version does not know, up to this number: it claims nothing.
    pub behind_rules: Option<u32>,
    /// The entry beneath which everything was dropped.
    pub cut: Option<Cid>,
    /// The hash of the snapshot that stands for that, and the entry's label of time in milliseconds since 1970.
    pub checkpoint: Option<(Digest, u64)>,
    /// Events of tasks that are kept in memory.
    pub facts: usize,
    /// A checkpoint whose snapshot is not what this node makes of the same entries, in words.
    pub alarm: Option<String>,
    /// How many tasks are in each state, by DESIGN.md's words.
    pub tasks: BTreeMap<&'static str, usize>,
    pub offer: Offer,
    pub free: u32,
}

impl Node {
    pub const fn peer(&self) -> PeerId {
        self.me.peer()
    }

    pub fn status(&self) -> Status {
        let words = ["pending", "claimed", "running", "completed", "cancelled", "lost", "left-to-github"];
        let mut tasks: BTreeMap<&'static str, usize> = words.into_iter().map(|word| (word, 0)).collect();
        for (task, folded) in self.ledger.all() {
            *tasks.entry(self.word(task, folded)).or_default() += 1;
        }
        Status {
            standing: self.standing(),
            author: self.author,
            heads: self.clock.heads().iter().copied().collect(),
            entries: self.clock.len(),
            waiting_entries: self.quarantine.len(),
            missing_heads: self.sync.told(),
            state_hash: self.state_hash(),
            behind_rules: Some(self.rules_in_force()).filter(|_| self.is_behind_rules()),
            cut: self.clock.cut(),
            checkpoint: self.clock.base_hash().zip(self.clock.time_of_base()),
            facts: self.ledger.facts(),
            alarm: self.history.alarm().map(str::to_owned),
            tasks,
            offer: self.offer.clone(),
            free: self.free_slots(),
        }
    }

    /// The slots that this host said it has.
    pub const fn slots(&self) -> u32 {
        self.offer.slots
    }

    pub fn standing(&self) -> Standing {
        match self.stage {
            Stage::Joining => Standing::Joining,
            Stage::Learning { .. } => Standing::Learning,
            Stage::Active if self.custody.draining() => Standing::Draining,
            Stage::Active => Standing::Active,
        }
    }

    /// Whether its operator lets it claim nothing for now.
    pub const fn is_cordoned(&self) -> bool {
        self.custody.cordoned()
    }

    /// A hash of all that nodes agree on: members and tasks.
    pub fn state_hash(&self) -> Digest {
        let mut members = Vec::new();
        for member in self.members() {
            members.extend_from_slice(&member.peer.to_bytes());
        }
        Digest::of(&[&members, &self.ledger.state_hash().0])
    }

    pub fn heads(&self) -> impl Iterator<Item = &Cid> {
        self.clock.heads().iter()
    }

    /// The entries that came here last, the newest first, at most so many.
    pub fn latest(&self, most: usize) -> Vec<Cid> {
        self.clock.latest(most)
    }

    pub fn vector(&self) -> Vector {
        self.clock.vector()
    }

    /// All introduced tasks, by id.
    pub fn tasks(&self) -> impl Iterator<Item = (&TaskId, &Folded)> {
        self.ledger.all()
    }

    pub fn task(&self, task: &TaskId) -> Option<&Folded> {
        self.ledger.get(task)
    }

    /// The task's state in DESIGN.md's words: what the entries say, and `running` where its holder says that it does.
    pub fn word(&self, task: &TaskId, folded: &Folded) -> &'static str {
        let Some((holder, fence)) = claimed_by(&folded.state) else { return folded.state.word() };
        let runs = if holder == self.me.peer() {
            self.custody.runs(task)
        } else {
            self.peers.get(&holder).is_some_and(|peer| peer.presence().running.get(task) == Some(&fence))
        };
        if runs { "running" } else { folded.state.word() }
    }

    /// What the mesh knows of the repositories of a host, by their ids.
    pub fn known(&self, host: &str) -> BTreeMap<String, Known> {
        let mut known: BTreeMap<String, Known> = BTreeMap::new();
        // Of what was dropped the checkpoint has the last, and when at the latest it was first known.
        let minute = self.clock.time_of_base().unwrap_or_default() / 60_000;
        for submitted in self.ledger.submitted().filter(|submitted| submitted.workflow.0 == host) {
            known.entry(submitted.workflow.1.clone()).or_default().recall(submitted, minute);
        }
        for (_, folded) in self.ledger.all().filter(|(_, folded)| folded.workload.repository.host == host) {
            let id = &folded.workload.repository.id;
            match known.get_mut(id) {
                Some(repository) => repository.add(folded),
                None => known.entry(id.clone()).or_default().add(folded),
            }
        }
        known
    }

    pub const fn mesh(&self) -> crate::kernel::id::MeshId {
        self.settings.mesh
    }

    pub fn is_member(&self, peer: &PeerId) -> bool {
        self.clock.members().contains(peer)
    }

    pub fn members(&self) -> impl Iterator<Item = Member> {
        self.clock.members().all()
    }

    /// The latest label of time by which the peer is known to have written, milliseconds since 1970.
    pub fn last_written(&self, peer: &PeerId) -> u64 {
        self.clock.last_written(peer)
    }

    /// The only labels that a member may offer, by its ticket; `None` when it may offer all.
    pub fn labels_of(&self, peer: &PeerId) -> Option<BTreeSet<&String>> {
        self.clock.members().labels_of(peer)
    }

    /// The latest presence of each member heard of, when it came, and whether it is heard now.
    pub fn presences(&self) -> impl Iterator<Item = (&Presence, u64, bool)> {
        self.peers.all().map(|peer| (peer.presence(), peer.last, self.peers.hears(&peer.presence().peer)))
    }

    /// What runs here.
    pub fn running(&self) -> impl Iterator<Item = (TaskId, crate::kernel::task::Fence, Arc<Workload>)> {
        let fences = self.custody.fences();
        fences.into_iter().filter_map(|(task, fence)| Some((task, fence, self.workload_running(&task)?.clone())))
    }

    /// Whose duty each source that this host lists is.
    pub fn duties(&self) -> BTreeMap<SourceKey, PeerId> {
        self.offer.sources.iter().map(|key| (key.clone(), self.on_duty(key))).collect()
    }

    /// How long ago a source was last discovered well, by whomever, in milliseconds.
    pub fn discovered_ago(&self, key: &SourceKey, now: u64) -> Option<u64> {
        let mine = self.duty.ages(now).get(key).copied();
        let others = self
            .peers
            .all()
            .filter_map(|peer| Some(peer.presence().discovered.get(key)?.saturating_add(now - peer.last)));
        // What is told of a source that a node cannot read is no time.
        others.chain(mine).min().filter(|age| *age < super::duty::NEVER)
    }

    /// The heard candidates for a task, the first first, whether or not a slot is free: the same on all nodes that hear
    /// the same peers.
    pub fn ranking(&self, task: &TaskId) -> Vec<(PeerId, u32)> {
        let Some(folded) = self.ledger.get(task) else { return Vec::new() };
        let others = self.peers.heard().filter(|peer| Self::can_run(&peer.presence().offer, &folded.workload));
        let mut places: Vec<_> = others.map(|peer| peer.place).collect();
        if Self::can_run(&self.offer, &folded.workload) {
            places.push(self.me);
        }
        let ranking = Seed::of(&folded.anchor, task).ranking(&places, &folded.last);
        ranking.into_iter().map(|ranked| (ranked.peer, ranked.distance)).collect()
    }
}
