//! GitHub's queued jobs as tasks, and how this host's slots are shared between them and the mesh's own tasks.
//!
//! Owns the claim that follows a fact: GitHub, not the mesh, decides which runner gets a job, so the node whose runner has
//! one takes its task, whoever holds it ([`Node::on_serves`]). Every other claim goes through election, as far as
//! [`Node::starts`] leaves a slot for its kind.

use std::collections::BTreeMap;

use super::{Node, claimed_by};
use crate::kernel::allocation::{Capacity, Demand, Idle, Kind, Share, Starts, Warm, Warming, allocate, keep_warm};
use crate::kernel::entry::{Cancel, Claim, Event};
use crate::kernel::id::{Digest, PeerId, TaskId};
use crate::kernel::io::{Offer, SourceKey};
use crate::kernel::ledger::Folded;
use crate::kernel::queue::{Key, Queue};
use crate::kernel::requests::Amounts;
use crate::kernel::task::{GITHUB_RUNNER, State, Trigger, Workload};

use super::custody::shortened;
use super::duty::NEVER;
use super::peers::Peer;

/// How this host shares its slots, as its operator says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    pub share: Share,
    pub idle: Idle,
    /// Whether the mesh's own tasks are taken at all.
    pub mesh: bool,
    /// Runners that wait here for jobs and that nothing is meant for: so many more jobs may be claimed.
    pub spare: u32,
}

impl Default for Split {
    fn default() -> Self {
        Self { share: Share::default(), idle: Idle::default(), mesh: true, spare: 0 }
    }
}

/// What waits of GitHub's jobs, and how the slots are shared.
#[derive(Default)]
pub(super) struct Jobs {
    pub(super) split: Split,
    /// Those that this host may take.
    pub(super) queue: Queue,
    /// Jobs that a runner of this host has, and whose tasks it does not hold yet.
    serving: BTreeMap<TaskId, u64>,
}

/// For how long a job that a runner is said to have is waited for in the ledger, in milliseconds.
const SERVING: u64 = 60_000;

/// How long work must have waited before runners that wait for jobs make room for it, in milliseconds: by then it would be
/// elsewhere, had another host a slot. Own choice: ten claim delays.
const NEEDS_ROOM: u64 = 1_000;
/// How many of the tasks that wait are looked at for that, and for what could start; no host has more slots.
const MOST_WAITING: usize = 1024;

/// Which kind of slot a task takes.
pub(super) const fn kind(workload: &Workload) -> Kind {
    if matches!(workload.trigger, Trigger::GithubJob { .. }) { Kind::Github } else { Kind::Mesh }
}

impl Node {
    pub(super) fn on_split(&mut self, split: Split) {
        self.peers.changed(self.now.mono, &self.settings.timings);
        if split.spare > self.jobs.split.spare {
            self.custody.slots_have_grown(self.now.mono);
        }
        self.jobs.split = split;
        self.claims.look_again();
    }

    /// Somebody has looked which jobs wait at GitHub: new ones become tasks, and those that nobody holds and that are
    /// over end.
    pub(super) fn on_jobs(&mut self, queued: Vec<Workload>, over: Vec<(TaskId, String)>) {
        if !self.may_write() {
            return;
        }
        for workload in queued {
            self.introduce(workload);
        }
        for (task, why) in over {
            if self.ledger.get(&task).is_some_and(|folded| folded.state == State::Pending) {
                self.events.push(Event::Cancel(Cancel { task, why: shortened(&why) }));
            }
        }
    }

    /// GitHub says that a runner of this host has the job: its task becomes this node's, whoever holds it.
    pub(super) fn on_serves(&mut self, workload: Workload) {
        let task = workload.id();
        if self.may_write() && self.ledger.get(&task).is_none() {
            self.introduce(workload);
        }
        self.jobs.serving.insert(task, self.now.mono + SERVING);
    }

    /// Claims the tasks of jobs that runners of this host have. An introduction of this round has to be there first.
    pub(super) fn claim_what_is_served(&mut self) {
        if self.jobs.serving.is_empty() || !self.may_write() || !self.sync.has_all_it_was_told_of() {
            return;
        }
        let now = self.now.mono;
        self.jobs.serving.retain(|_, until| now < *until);
        let known = |task: &TaskId| self.ledger.get(task).is_some();
        let ready: Vec<TaskId> = self.jobs.serving.keys().copied().filter(known).collect();
        for task in ready {
            self.jobs.serving.remove(&task);
            let Some(folded) = self.ledger.get(&task).filter(|folded| folded.state.is_open()) else { continue };
            let mine = claimed_by(&folded.state).is_some_and(|(holder, _)| holder == self.me.peer());
            if !mine {
                let (attempt, anchor) = (folded.attempt + 1, folded.anchor);
                self.dequeue(&task);
                self.events.push(Event::Claim(Claim { task, attempt, anchor }));
            }
        }
    }

    pub const fn split(&self) -> Split {
        self.jobs.split
    }

    /// How many tasks of each kind may be claimed now.
    pub(super) fn starts(&self) -> Starts {
        // What there is no room for is not to keep slots from what could start.
        let waiting = |queue: &Queue| {
            let has_room = |key: &&Key| self.has_room_for(&key.task(), &Amounts::default());
            let ready = match self.claims.lacks_room() {
                true => queue.iter().take(MOST_WAITING).filter(has_room).count(),
                false => queue.len(),
            };
            u32::try_from(ready).unwrap_or(u32::MAX)
        };
        let Starts { mesh, github } = self.running_kinds();
        let mesh = self.demand(&self.queue, mesh, waiting(&self.queue));
        let github = self.demand(&self.jobs.queue, github, waiting(&self.jobs.queue));
        allocate(self.capacity(self.offer.slots), self.wanted_mesh(mesh), github)
    }

    /// What is to become of the runners that wait here for jobs which nobody has queued yet: of so many, where so many are
    /// wanted. Their slots are not among those that this node was told it offers.
    pub fn warming(&self, warm: Warm) -> Warming {
        let waiting = |queue: &Queue| {
            let long = queue.iter().take(MOST_WAITING).filter(|key| self.has_waited(&key.task()) >= NEEDS_ROOM);
            u32::try_from(long.count()).unwrap_or(u32::MAX)
        };
        let Starts { mesh, github } = self.running_kinds();
        let mesh = self.demand(&self.queue, mesh, waiting(&self.queue));
        let github = self.demand(&self.jobs.queue, github, waiting(&self.jobs.queue));
        keep_warm(self.capacity(self.offer.slots.saturating_add(warm.idle)), self.wanted_mesh(mesh), github, warm)
    }

    const fn capacity(&self, max: u32) -> Capacity {
        let Split { share, idle, .. } = self.jobs.split;
        Capacity { max, share, idle }
    }

    fn demand(&self, queue: &Queue, running: u32, waiting: u32) -> Demand {
        let oldest = queue.first().and_then(|key| self.ledger.get(&key.task()));
        let oldest_ms = oldest.map_or(0, |folded: &Folded| self.now.wall.saturating_sub(folded.introduced.ms));
        Demand { running, waiting, oldest_ms }
    }

    /// The mesh's demand, as far as this host takes its tasks at all.
    const fn wanted_mesh(&self, mesh: Demand) -> Demand {
        if self.jobs.split.mesh { mesh } else { Demand { waiting: 0, ..mesh } }
    }

    pub(super) const fn queue_of(&mut self, kind: Kind) -> &mut Queue {
        match kind {
            Kind::Mesh => &mut self.queue,
            Kind::Github => &mut self.jobs.queue,
        }
    }

    /// Takes a task out of the queue in which it stands, if it stands in one.
    pub(super) fn unqueue(&mut self, task: &TaskId) -> bool {
        self.queue.remove(task).or_else(|| self.jobs.queue.remove(task)).is_some()
    }

    /// Whether what runs here, and what has just been claimed, leaves as much as the task asks for.
    pub(super) fn has_room_for(&self, task: &TaskId, claimed: &Amounts) -> bool {
        let Some(folded) = self.ledger.get(task) else { return false };
        let asked = Amounts::of(&folded.workload.labels);
        if asked == Amounts::default() {
            return true;
        }
        self.amounts_in_use().plus(*claimed).plus(asked).fits_in(&Amounts::of(&self.offer.labels))
    }

    /// What the tasks that run here have asked for.
    pub(super) fn amounts_in_use(&self) -> Amounts {
        let used = self.custody.workloads().map(|running| Amounts::of(&running.labels));
        used.fold(Amounts::default(), Amounts::plus)
    }

    /// The waiting tasks that this host may run, of either kind, the first first.
    pub fn queue(&self) -> impl Iterator<Item = TaskId> {
        let mut keys: Vec<&Key> = self.queue.iter().chain(self.jobs.queue.iter()).collect();
        keys.sort_unstable();
        keys.into_iter().map(Key::task)
    }

    /// The member whose duty it is to look for jobs of this source at GitHub, as far as this node can tell: of those that
    /// start GitHub's runners and can read the source, the nearest to its name.
    pub fn on_duty_for_jobs(&self, key: &SourceKey) -> Option<PeerId> {
        let serves = |offer: &Offer| offer.labels.contains(GITHUB_RUNNER) && offer.sources.contains(key);
        let reads = |peer: &&Peer| {
            !peer.presence().draining && peer.presence().discovered.get(key).is_none_or(|age| *age < NEVER)
        };
        let others =
            self.peers.heard().filter(reads).filter(|peer| serves(&peer.presence().offer)).map(|peer| peer.place);
        let me = (serves(&self.offer) && !self.custody.draining()).then_some(self.me);
        let name = Digest::of(&[b"jobs ", key.as_bytes()]);
        others.chain(me).map(|place| place.peer()).min_by_key(|peer| (name.hamming(&peer.place()), *peer))
    }

    /// What this host's share of slots comes to now: tasks of the mesh and jobs of GitHub that wait for it, and how many
    /// of each it may start.
    pub fn allocation(&self) -> Allocation {
        let length = |queue: &Queue| u32::try_from(queue.len()).unwrap_or(u32::MAX);
        let waiting = Starts { mesh: length(&self.queue), github: length(&self.jobs.queue) };
        Allocation { waiting, running: self.running_kinds(), starts: self.starts() }
    }

    fn running_kinds(&self) -> Starts {
        let mut running = Starts::default();
        for workload in self.custody.workloads() {
            *of(&mut running, kind(workload)) += 1;
        }
        running
    }
}

/// How this host's slots are shared now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocation {
    pub waiting: Starts,
    pub running: Starts,
    pub starts: Starts,
}

/// The number of a kind.
pub(super) const fn of(starts: &mut Starts, kind: Kind) -> &mut u32 {
    match kind {
        Kind::Mesh => &mut starts.mesh,
        Kind::Github => &mut starts.github,
    }
}
