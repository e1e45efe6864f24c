//! What is simulated, as data. All times are milliseconds of virtual time, all shares are in a thousand.

use super::chance::Chance;

/// The shape of a mesh, its work and its misfortunes.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) nodes: usize,
    /// Each host may connect to so many others; 0 is all.
    pub(crate) links: usize,
    /// Slots of a host, from and to.
    pub(crate) slots: (u64, u64),
    pub(crate) work: Work,
    pub(crate) network: Network,
    pub(crate) hosts: Hosts,
    pub(crate) faults: Faults,
    /// How long the mesh may take after the last fault and the last new task until it rests.
    pub(crate) rest_within: u64,
    /// The nodes share what they can: a thousand do not fit into memory otherwise.
    pub(crate) shares: bool,
    /// So many threads let the processes take in what has come, all those of a millisecond together; 0 is one after the
    /// other. How many there are changes nothing, but one after the other is another order.
    pub(crate) threads: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) tasks: usize,
    /// When the first and the last task come up.
    pub(crate) between: (u64, u64),
    /// How long a task runs.
    pub(crate) takes: (u64, u64),
    /// How many tasks are found in a source; the others are submitted.
    pub(crate) discovered: u64,
    /// How many need a label that only some hosts have.
    pub(crate) labelled: u64,
    /// How many are `p2p-eligible`.
    pub(crate) eligible: u64,
    /// How many are submitted to two hosts at once.
    pub(crate) twice: u64,
    /// How many somebody cancels.
    pub(crate) cancelled: u64,
    /// How many starts fail before the workflow's first step.
    pub(crate) not_started: u64,
    /// How many of the hosts that could run a task by its labels find out that they cannot.
    pub(crate) unable: u64,
    /// How many first attempts never end, and their hosts never say so. Tasks have a time limit of so many seconds then.
    pub(crate) hangs: Option<(u64, u32)>,
    /// Tasks belong to so many concurrency groups, 0 for none; of those so many cancel what of their group runs.
    pub(crate) groups: (usize, u64),
    /// Tasks that no host can run: the first is for the mesh alone and must wait, the second must be left to GitHub.
    pub(crate) impossible: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) delay: (u64, u64),
    /// How many messages take twenty times that.
    pub(crate) late: u64,
    /// How many messages are lost, at every hop and once more before they are read.
    pub(crate) lost: u64,
    /// How many of the gossiped ones besides, which nobody sends again.
    pub(crate) unheard: u64,
    /// How many gossip messages come twice.
    pub(crate) doubled: u64,
    /// How many peers each host passes gossip on to.
    pub(crate) fan: usize,
    /// How many discoveries of a source fail.
    pub(crate) undiscovered: u64,
    /// When a request without an answer is given up.
    pub(crate) give_up: u64,
    /// How long it takes to find out that a peer is silent.
    pub(crate) silence: (u64, u64),
    /// The most entries in one page.
    pub(crate) page: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    /// How long a write takes.
    pub(crate) disk: (u64, u64),
    /// By how much a wall clock may be wrong, either way.
    pub(crate) skew: u64,
    /// By how much the forward clock may be fast or slow, in millionths.
    pub(crate) drift: u64,
    /// Within what time all hosts are switched on.
    pub(crate) boot: u64,
    /// Tasks are claimed and kept only while most members are heard.
    pub(crate) careful: bool,
    /// How long a process gathers what comes before it takes it in.
    pub(crate) pace: u64,
}

impl Network {
    /// What a message takes from one host to the next on average, in milliseconds.
    pub(crate) fn hop(&self) -> f64 {
        (self.delay.0 + self.delay.1) as f64 / 2.0
    }
}

/// How many of each, spread at random over the time.
#[derive(Debug, Clone)]
pub(crate) struct Faults {
    pub(crate) between: (u64, u64),
    pub(crate) partitions: usize,
    /// How long a partition lasts.
    pub(crate) apart: (u64, u64),
    /// The process dies; its connections are closed by the system.
    pub(crate) kills: usize,
    /// The host vanishes; its peers find out by its silence.
    pub(crate) vanishings: usize,
    /// The node is asked to go, and goes once nothing runs.
    pub(crate) leavings: usize,
    /// How long until a host is back.
    pub(crate) down: (u64, u64),
    /// The host is too busy to do anything.
    pub(crate) stalls: usize,
    pub(crate) stalled: (u64, u64),
    /// A wall clock jumps by up to a day either way.
    pub(crate) jumps: usize,
}

/// One misfortune.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Hosts with different numbers cannot talk to each other.
    Partition(Vec<u8>),
    Heal,
    Kill(usize),
    Vanish(usize),
    Leave(usize),
    Stall(usize, u64),
    Jump(usize, i64),
    Boot(usize),
}

/// How long tasks are submitted at most in a large mesh, in milliseconds: each second of a thousand nodes costs a million
/// presences.
const LARGE_WORK: u64 = 20_000;

impl Scenario {
    /// Nothing goes wrong.
    pub(crate) const fn calm(name: &'static str, nodes: usize, tasks: usize) -> Self {
        Self {
            name,
            nodes,
            links: 0,
            slots: (1, 4),
            work: Work {
                tasks,
                between: (4_000, 24_000),
                takes: (200, 8_000),
                discovered: 300,
                labelled: 200,
                eligible: 300,
                twice: 0,
                cancelled: 0,
                not_started: 0,
                unable: 0,
                hangs: None,
                groups: (0, 0),
                impossible: true,
            },
            network: Network {
                delay: (1, 15),
                late: 0,
                lost: 0,
                unheard: 0,
                doubled: 0,
                fan: 4,
                undiscovered: 0,
                give_up: 5_000,
                silence: (8_000, 15_000),
                page: 64,
            },
            hosts: Hosts { disk: (0, 3), skew: 0, drift: 0, boot: 500, careful: false, pace: 0 },
            faults: Faults {
                between: (0, 0),
                partitions: 0,
                apart: (0, 0),
                kills: 0,
                vanishings: 0,
                leavings: 0,
                down: (0, 0),
                stalls: 0,
                stalled: (0, 0),
                jumps: 0,
            },
            rest_within: 180_000,
            shares: false,
            threads: 0,
        }
    }

    /// Nothing goes wrong, and no task ever waits for a slot.
    pub(crate) const fn roomy(name: &'static str, nodes: usize, tasks: usize) -> Self {
        Self { slots: (tasks as u64, tasks as u64), ..Self::calm(name, nodes, tasks) }
    }

    /// Everything goes wrong.
    pub(crate) const fn rough(name: &'static str, nodes: usize, tasks: usize) -> Self {
        let calm = Self::calm(name, nodes, tasks);
        Self {
            work: Work { twice: 100, cancelled: 40, not_started: 30, ..calm.work },
            network: Network { delay: (1, 60), late: 20, lost: 50, doubled: 50, undiscovered: 200, ..calm.network },
            hosts: Hosts { disk: (0, 12), skew: 3_600_000, drift: 500, boot: 2_000, careful: false, pace: 0 },
            faults: Faults {
                between: (2_000, 40_000),
                partitions: 2,
                apart: (1_000, 15_000),
                kills: nodes / 3,
                vanishings: nodes / 7,
                leavings: nodes / 7,
                down: (500, 12_000),
                stalls: nodes / 5,
                stalled: (500, 5_000),
                jumps: nodes / 3,
            },
            rest_within: 300_000,
            ..calm
        }
    }

    /// With so much time from the first task to the last, and so much for each; faults as long.
    pub(crate) const fn within(self, between: (u64, u64), takes: (u64, u64)) -> Self {
        Self {
            work: Work { between, takes, ..self.work },
            faults: Faults {
                between: (between.0 / 4, between.1),
                apart: (1_000, 6_000),
                down: (500, 6_000),
                ..self.faults
            },
            ..self
        }
    }

    /// The same in a large mesh, at some fifty tasks a second, and at more where they would take longer than
    /// [`LARGE_WORK`]. Pages hold as much as real ones do.
    pub(crate) const fn at_large(name: &'static str, nodes: usize, tasks: usize) -> Self {
        let rough = Self::rough(name, nodes, tasks);
        // So many join at once as a mesh takes in; what comes within a moment is taken in together, as the daemon does.
        let boot = rough.hosts.boot + 10 * nodes as u64;
        let hosts = Hosts { boot, pace: 20, ..rough.hosts };
        let work = 18 * tasks as u64;
        let work = if work < LARGE_WORK { work } else { LARGE_WORK };
        let rough = Self { hosts, ..rough }.within((boot, boot + work), (200, 2_000));
        // Beyond that size the nodes' copies do not fit into memory.
        Self { network: Network { page: 1024, ..rough.network }, shares: nodes > 100, ..rough }
    }

    /// Everything goes wrong all the time.
    pub(crate) const fn hopeless(name: &'static str, nodes: usize, tasks: usize) -> Self {
        let rough = Self::rough(name, nodes, tasks);
        Self {
            work: Work { takes: (200, 20_000), ..rough.work },
            network: Network { lost: 200, late: 50, doubled: 200, page: 8, ..rough.network },
            hosts: Hosts { disk: (0, 80), drift: 20_000, ..rough.hosts },
            faults: Faults {
                between: (1_000, 70_000),
                partitions: 6,
                kills: nodes * 2,
                vanishings: nodes,
                leavings: nodes,
                stalls: nodes * 2,
                jumps: nodes * 2,
                ..rough.faults
            },
            ..rough
        }
    }

    /// The misfortunes of one run, by time.
    pub(crate) fn schedule(&self, seed: u64) -> Vec<(u64, Fault)> {
        let mut chance = Chance::new(seed, "faults");
        let faults = &self.faults;
        let mut all = Vec::new();
        // Partitions follow each other, so that each is healed before the next.
        let mut from = faults.between.0;
        for left in (1..=faults.partitions as u64).rev() {
            let at = chance.within((from, from + faults.between.1.saturating_sub(from) / left));
            let groups = 2 + u64::from(chance.permille(200));
            let members = (0..self.nodes).map(|_| chance.within((0, groups - 1)) as u8).collect();
            from = at + chance.within(faults.apart);
            all.extend([(at, Fault::Partition(members)), (from, Fault::Heal)]);
        }
        let counts = [faults.kills, faults.vanishings, faults.leavings];
        for (kind, count) in counts.into_iter().enumerate() {
            for _ in 0..count {
                let (at, host) = (chance.within(faults.between), chance.below(self.nodes));
                let fault = [Fault::Kill(host), Fault::Vanish(host), Fault::Leave(host)][kind].clone();
                all.extend([(at, fault), (at + chance.within(faults.down), Fault::Boot(host))]);
            }
        }
        for _ in 0..faults.stalls {
            let (at, host) = (chance.within(faults.between), chance.below(self.nodes));
            all.push((at, Fault::Stall(host, chance.within(faults.stalled))));
        }
        for _ in 0..faults.jumps {
            let (at, host) = (chance.within(faults.between), chance.below(self.nodes));
            let by = chance.within((0, 2 * 86_400_000)) as i64 - 86_400_000;
            all.push((at, Fault::Jump(host, by)));
        }
        all.sort_by_key(|(at, _)| *at);
        // In the end everybody is up and can talk.
        let last = all.last().map_or(0, |(at, _)| *at);
        if last > 0 {
            all.push((last, Fault::Heal));
            all.extend((0..self.nodes).map(|host| (last, Fault::Boot(host))));
        }
        all
    }
}
