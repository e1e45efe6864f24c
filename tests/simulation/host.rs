//! One simulated host: its clocks, its disk, and the process on it while it is up.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use runmesh::kernel::entry::{Entry, Right, Ticket};
use runmesh::kernel::id::{Cid, MeshId, PeerId, TaskId};
use runmesh::kernel::io::{Input, Now, Offer, Token};
use runmesh::kernel::node::Entrance;
use runmesh::kernel::task::{Conclusion, Fence};

use super::adapter::Kernel;
use super::chance::Chance;
use super::scenario::{Hosts, Scenario};
use super::work;

/// What virtual time 0 is on a right clock.
const EPOCH_MS: u64 = 1_767_225_600_000;

pub(crate) struct Host {
    pub(crate) key: SigningKey,
    pub(crate) peer: PeerId,
    pub(crate) mesh: MeshId,
    pub(crate) entrance: Entrance,
    pub(crate) offer: Offer,
    pub(crate) clocks: Clocks,
    pub(crate) disk: Disk,
    /// The part of the network it is in; hosts in different parts cannot talk.
    pub(crate) part: u8,
    pub(crate) boots: u64,
    pub(crate) process: Option<Process>,
}

/// The hosts of a run, the founder first.
pub(crate) fn hosts(scenario: &Scenario, seed: u64) -> Vec<Host> {
    let mut chance = Chance::new(seed, "hosts");
    let mesh_key = SigningKey::from_bytes(&chance.bytes());
    let mesh = MeshId(mesh_key.verifying_key().to_bytes());
    let catalogue = Catalogue::default();
    let mut host = |number: usize| {
        let key = SigningKey::from_bytes(&chance.bytes());
        let peer = PeerId::from_public_key(key.verifying_key().to_bytes());
        let entrance = if number == 0 {
            Entrance::Founder(Right::founder(&mesh_key, &peer))
        } else {
            Entrance::Ticket(Ticket::sign(&mesh_key, number as u64, EPOCH_MS + 30 * 86_400_000))
        };
        let offer = work::offer(scenario, seed, number);
        let clocks = Clocks::new(&scenario.hosts, &mut chance);
        let disk = Disk::empty(&catalogue);
        Host { key, peer, mesh, entrance, offer, clocks, disk, part: 0, boots: 0, process: None }
    };
    (0..scenario.nodes).map(&mut host).collect()
}

/// A host's clocks, none of which is right.
#[derive(Debug, Clone)]
pub(crate) struct Clocks {
    /// When it was switched on, in virtual time; the forward clock starts anew there.
    on: u64,
    /// What the forward clock shows when it is switched on.
    start: u64,
    /// Millionths by which the forward clock is fast.
    drift: i64,
    /// How far the wall clock is ahead.
    pub(crate) ahead: i64,
}

impl Clocks {
    fn new(hosts: &Hosts, chance: &mut Chance) -> Self {
        let mut either_way = |most: u64| chance.within((0, 2 * most)) as i64 - most as i64;
        Self { on: 0, start: 0, drift: either_way(hosts.drift), ahead: either_way(hosts.skew) }
    }

    pub(crate) fn switch_on(&mut self, now: u64, start: u64) {
        (self.on, self.start) = (now, start);
    }

    pub(crate) fn read(&self, now: u64) -> Now {
        let up = (now - self.on) as i64;
        let mono = self.start + (up + up * self.drift / 1_000_000) as u64;
        Now { mono, wall: EPOCH_MS.saturating_add_signed(now as i64 + self.ahead) }
    }

    /// The first virtual time at which the forward clock shows this or more.
    pub(crate) fn when(&self, mono: u64) -> u64 {
        let wait = mono.saturating_sub(self.start) as i64;
        let mut at = (self.on as i64 + wait - wait * self.drift / 1_000_000 - 2).max(self.on as i64) as u64;
        while self.read(at).mono < mono {
            at += 1;
        }
        at
    }
}

/// What survives a crash.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    pub(crate) kept: Vec<Arc<Entry>>,
    pub(crate) snapshot: Option<Arc<[u8]>>,
    /// Which entries of the catalogue are here, a bit for each.
    held: Vec<u64>,
    catalogue: Catalogue,
}

/// All entries of a run, numbered: what the disks of a thousand hosts have in common.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalogue(Rc<RefCell<Numbered>>);

type Numbered = BTreeMap<Cid, (usize, Arc<Entry>)>;

impl Disk {
    fn empty(catalogue: &Catalogue) -> Self {
        Self { catalogue: catalogue.clone(), ..Self::default() }
    }

    /// The disk as it was when it had only the first so many of these entries.
    pub(crate) fn as_of(&self, entries: usize) -> Self {
        let mut old = Self::empty(&self.catalogue);
        for entry in &self.kept[..entries] {
            old.keep(entry.clone());
        }
        old
    }

    /// Keeps an entry; `false` when it was there already.
    pub(crate) fn keep(&mut self, entry: Arc<Entry>) -> bool {
        let number = self.catalogue.number(&entry);
        if self.held.len() <= number / 64 {
            self.held.resize(number / 64 + 1, 0);
        }
        let (word, bit) = (&mut self.held[number / 64], 1 << (number % 64));
        let fresh = *word & bit == 0;
        if fresh {
            *word |= bit;
            self.kept.push(entry);
        }
        fresh
    }

    /// Keeps a snapshot and forgets entries.
    pub(crate) fn condense(&mut self, snapshot: Arc<[u8]>, dropped: &[Cid]) {
        self.snapshot = Some(snapshot);
        self.kept.retain(|entry| !dropped.contains(&entry.cid()));
        for cid in dropped {
            if let Some((number, _)) = self.catalogue.0.borrow().get(cid) {
                self.held[number / 64] &= !(1 << (number % 64));
            }
        }
    }

    pub(crate) fn get(&self, cid: &Cid) -> Option<Arc<Entry>> {
        let catalogue = self.catalogue.0.borrow();
        let (number, entry) = catalogue.get(cid)?;
        let held = self.held.get(number / 64).is_some_and(|word| word & (1 << (number % 64)) != 0);
        held.then(|| entry.clone())
    }
}

impl Catalogue {
    fn number(&self, entry: &Arc<Entry>) -> usize {
        let mut all = self.0.borrow_mut();
        let next = all.len();
        all.entry(entry.cid()).or_insert_with(|| (next, entry.clone())).0
    }
}

/// What is lost in a crash.
pub(crate) struct Process {
    pub(crate) boot: u64,
    pub(crate) kernel: Kernel,
    /// Until when the disk or other work keeps it from taking anything in.
    pub(crate) busy_until: u64,
    pub(crate) inbox: VecDeque<Input>,
    /// Entries of others that wait for the next sync of the disk.
    pub(crate) postponed: Vec<Arc<Entry>>,
    /// Whether it is taking something in just now.
    pub(crate) is_handling: bool,
    /// When it is to be woken: what it asked for by its own clock, and when that is.
    pub(crate) wake: Option<(u64, u64)>,
    /// A second of its forward clock, and how often it was woken in it.
    pub(crate) wakes: (u64, u64),
    /// Which boot of each peer it is connected to.
    pub(crate) seen: BTreeMap<usize, u64>,
    /// Requests on their way, and to whom.
    pub(crate) asked: BTreeMap<Token, usize>,
    /// Requests it has to answer: who asked, in which boot, under what token.
    pub(crate) serving: BTreeMap<Token, (usize, u64, Token)>,
    pub(crate) next_token: u64,
    pub(crate) running: BTreeMap<TaskId, Run>,
    /// Commands that people wait for.
    pub(crate) commands: BTreeMap<Token, Command>,
    /// It dies at its next work, with only so many of the outputs carried out, in a thousand.
    pub(crate) dying: Option<(u64, Death)>,
    pub(crate) leaving: Leaving,
    /// Its node was told to claim nothing more.
    pub(crate) draining: bool,
    /// The latest beat it announced.
    pub(crate) beat: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// The system closes its connections.
    Killed,
    /// Nobody is told.
    Vanished,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaving {
    No,
    /// It goes once nothing runs, at this time at the latest.
    By(u64),
    /// The same, and it is to be started again then.
    ToReturn(u64),
}

/// A task that runs on a host.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) fence: Fence,
    pub(crate) since: u64,
    pub(crate) conclusion: Option<Conclusion>,
    /// The host finds out that it cannot run it.
    pub(crate) declines: bool,
    pub(crate) stopping: bool,
}

/// What a person asked a node for; the number is the job's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Submit(usize),
    Cancel(usize),
}

impl Process {
    /// Whether nothing keeps it from taking in what comes but a write that ends by that time, and it is to stay.
    pub(crate) fn is_well(&self, writes_until: u64) -> bool {
        self.dying.is_none() && self.leaving == Leaving::No && self.busy_until <= writes_until
    }

    pub(crate) fn new(boot: u64, kernel: Kernel, now: u64) -> Self {
        Self {
            boot,
            kernel,
            busy_until: now,
            inbox: VecDeque::new(),
            postponed: Vec::new(),
            is_handling: false,
            wake: None,
            wakes: (0, 0),
            seen: BTreeMap::new(),
            asked: BTreeMap::new(),
            serving: BTreeMap::new(),
            next_token: 0,
            running: BTreeMap::new(),
            commands: BTreeMap::new(),
            dying: None,
            leaving: Leaving::No,
            draining: false,
            beat: 0,
        }
    }
}
