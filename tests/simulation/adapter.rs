//! The one place where the simulation meets the node's own names.

use std::collections::BTreeSet;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use runmesh::kernel::clock::Shelf;
use runmesh::kernel::entry::Entry;
use runmesh::kernel::id::{Cid, Digest, MeshId, PeerId, TaskId};
use runmesh::kernel::io::{Input, Now, Output};
use runmesh::kernel::ledger::Folded;
use runmesh::kernel::node::{Entrance, Node, Settings, Standing, Timings};
use runmesh::kernel::snapshot::Sealed;

/// Attempts that may be lost before a task counts as lost, as in the daemon.
pub(crate) const ATTEMPTS: u32 = 3;

pub(crate) struct Kernel(Node);

impl Kernel {
    /// A node that starts with what its disk has.
    pub(crate) fn open(
        now: Now,
        (key, mesh, entrance): (SigningKey, MeshId, Entrance),
        seed: u64,
        (snapshot, kept): (Option<Arc<[u8]>>, Vec<Arc<Entry>>),
        shelf: &Shelf,
    ) -> (Self, Vec<Output>) {
        // Sources are looked at more often than in earnest, so that runs are short.
        let timings = Timings { discovery: 5_000, ..Timings::default() };
        let settings =
            Settings { key, mesh, entrance, seed, timings, attempts: ATTEMPTS, version: "simulated".to_owned() };
        let snapshot = snapshot.map(|bytes| Sealed::open(bytes, &mesh).expect("it was kept"));
        let (node, outputs) = Node::restore_beside(now, settings, snapshot, kept, shelf.clone());
        (Self(node), outputs)
    }

    pub(crate) fn handle(&mut self, now: Now, input: Input) -> Vec<Output> {
        self.0.handle(now, input)
    }

    /// Gives it entries as gossip would.
    pub(crate) fn take(&mut self, now: Now, from: PeerId, entries: Vec<Arc<Entry>>) -> Vec<Output> {
        self.handle(now, Input::Entries { from, entries })
    }

    /// When it wants to be woken, by its forward clock.
    pub(crate) fn next_wake(&self) -> Option<u64> {
        Some(self.0.next_wake()).filter(|at| *at < u64::MAX)
    }

    pub(crate) fn heads(&self) -> BTreeSet<Cid> {
        self.0.heads().copied().collect()
    }

    pub(crate) fn state_hash(&self) -> Digest {
        self.0.state_hash()
    }

    pub(crate) fn task_ids(&self) -> impl Iterator<Item = TaskId> {
        self.0.tasks().map(|(task, _)| *task)
    }

    pub(crate) fn task(&self, task: &TaskId) -> Option<&Folded> {
        self.0.task(task)
    }

    pub(crate) fn ranking(&self, task: &TaskId) -> Vec<(PeerId, u32)> {
        self.0.ranking(task)
    }

    pub(crate) fn is_active(&self) -> bool {
        self.0.standing() == Standing::Active
    }

    /// For the report of a run that failed.
    pub(crate) fn status(&self) -> String {
        let status = self.0.status();
        format!(
            "{:?}, {} entries, {} waiting, {} heads missing, {} heads, state {:.8}",
            status.standing,
            status.entries,
            status.waiting_entries,
            status.missing_heads,
            status.heads.len(),
            status.state_hash.to_string()
        )
    }
}
