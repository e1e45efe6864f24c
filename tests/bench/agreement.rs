//! Whole meshes of kernels in one process, in virtual time: who takes a task, and whether any is lost.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use runmesh::kernel::entry::{Entry, Right, Ticket};
use runmesh::kernel::id::{Cid, Digest, MeshId, PeerId, TaskId};
use runmesh::kernel::io::{
    Discovery, Input, Now, Offer, Output, Reply, Report, RepositoryMark, Response, Signed, Token,
};
use runmesh::kernel::node::{Entrance, Node, Settings, Timings};
use runmesh::kernel::task::{Conclusion, Products, State};

use super::Outcome;
use super::history::workload;
use super::measure::source_system;
use super::report::{Goal, Row};

/// Slots of a node.
const SLOTS: u32 = 4;
/// How long a task runs, in milliseconds, from and to.
const TAKES: (u64, u64) = (50, 500);
/// How long a message takes, in milliseconds, from and to.
const DELAY: (u64, u64) = (1, 5);
/// The most entries on a page.
const PAGE: usize = 1_000;
/// When tasks begin to come, in milliseconds: by then all members know each other.
const BEGIN: u64 = 10_000;
/// How long a mesh may take for its tasks, in milliseconds of its own time.
const PATIENCE: u64 = 600_000;

/// The share of tasks of which all nodes name the same holder, and that started nowhere else.
pub(crate) fn owners() -> Outcome<Vec<Row>> {
    const TASKS: usize = 1_000;
    let ended = World::of(3, TASKS, 10).run()?;
    let source = source_system(&["agreement", "3"])? / 1_000.0;
    let row = Row::alone("owner_agreement", "of 1", Goal::AtLeast(1.0), ended.agreed as f64 / TASKS as f64);
    Ok(vec![row.against("the source system's rule, in Python", source)])
}

/// Tasks that did not end with a result on every node.
pub(crate) fn lost() -> Outcome<Vec<Row>> {
    const TASKS: usize = 20_000;
    let ended = World::of(20, TASKS, 100).run()?;
    let source = source_system(&["lost", "20", &TASKS.to_string()])?;
    let row = Row::alone("tasks_lost", "of 20,000", Goal::AtMost(0.0), (TASKS - ended.completed) as f64);
    Ok(vec![row.against("the source system's rule, in Python", source)])
}

struct Ended {
    /// Tasks of which all nodes name the same holder and that started once.
    agreed: usize,
    /// Tasks that every node knows a result of.
    completed: usize,
}

struct Host {
    node: Node,
    peer: PeerId,
    wake: u64,
    /// Whom the requests being answered came from, and under which token.
    serving: BTreeMap<Token, (usize, Token)>,
}

/// What comes of a host's look into the source, but for these repositories.
pub(crate) type Look = Box<dyn FnMut(usize, &BTreeSet<RepositoryMark>) -> Discovery>;

pub(crate) struct World {
    hosts: Vec<Host>,
    by_peer: BTreeMap<PeerId, usize>,
    entries: BTreeMap<Cid, Arc<Entry>>,
    /// What will happen: when, in which order among what happens then, to whom.
    ahead: BinaryHeap<Reverse<(u64, u64, usize)>>,
    inputs: BTreeMap<u64, Input>,
    planned: u64,
    now: u64,
    tasks: usize,
    starts: BTreeMap<TaskId, usize>,
    finished: BTreeSet<TaskId>,
    last_task_at: u64,
    look: Look,
}

impl World {
    /// A mesh of so many nodes that look into a source at this interval, in milliseconds, and run nothing of it.
    pub(crate) fn looking(nodes: usize, source: &str, interval: u64, look: Look) -> Self {
        let mut world = Self::made(nodes, source, interval, 0);
        world.look = look;
        world
    }

    /// A mesh of so many nodes to which so many tasks come, so many a second.
    fn of(nodes: usize, tasks: usize, a_second: u64) -> Self {
        let mut world = Self::made(nodes, "git:bench", 3_600_000, SLOTS);
        (world.tasks, world.last_task_at) = (tasks, BEGIN + tasks as u64 * 1_000 / a_second);
        for n in 0..tasks {
            let at = BEGIN + n as u64 * 1_000 / a_second;
            let host = world.draw(0, nodes as u64 - 1) as usize;
            world.plan(at, host, Input::Submit { token: Token(n as u64), workload: Box::new(workload(n)) });
        }
        world
    }

    fn made(nodes: usize, source: &str, discovery: u64, slots: u32) -> Self {
        let mesh_key = SigningKey::from_bytes(&[9; 32]);
        let mesh = MeshId(mesh_key.verifying_key().to_bytes());
        let mut world = Self {
            hosts: Vec::new(),
            by_peer: BTreeMap::new(),
            entries: BTreeMap::new(),
            ahead: BinaryHeap::new(),
            inputs: BTreeMap::new(),
            planned: 0,
            now: 1,
            tasks: 0,
            starts: BTreeMap::new(),
            finished: BTreeSet::new(),
            last_task_at: 0,
            look: Box::new(|_, _| Discovery::default()),
        };
        for n in 0..nodes {
            let key = SigningKey::from_bytes(&Digest::of(&[b"host", &n.to_be_bytes()]).0);
            let peer = PeerId::from_public_key(key.verifying_key().to_bytes());
            let entrance = match n {
                0 => Entrance::Founder(Right::founder(&mesh_key, &peer)),
                n => Entrance::Ticket(Ticket::sign(&mesh_key, n as u64, u64::MAX)),
            };
            let timings = Timings { discovery, ..Timings::default() };
            let settings =
                Settings { key, mesh, entrance, seed: n as u64, timings, attempts: 3, version: String::new() };
            let (node, outputs) = Node::new(Now { mono: 1, wall: 1 }, settings, Vec::new());
            world.by_peer.insert(peer, n);
            world.hosts.push(Host { node, peer, wake: u64::MAX, serving: BTreeMap::new() });
            world.carry_out(n, outputs);
        }
        for host in 0..nodes {
            let offer = Offer {
                slots,
                labels: BTreeSet::from(["ubuntu-latest".to_owned()]),
                sources: BTreeSet::from([source.to_owned()]),
            };
            world.plan(1, host, Input::Offer(offer));
            for other in (0..nodes).filter(|other| *other != host) {
                world.plan(2, host, Input::Connected(world.hosts[other].peer));
            }
        }
        world
    }

    /// Lets time go on to there, in milliseconds.
    pub(crate) fn run_until(&mut self, until: u64) {
        while let Some(Reverse((at, ..))) = self.ahead.peek()
            && *at <= until
        {
            self.step();
        }
    }

    /// Lets happen what is next. `None` when nothing is.
    fn step(&mut self) -> Option<()> {
        let Reverse((at, number, host)) = self.ahead.pop()?;
        self.now = at;
        let input = match self.inputs.remove(&number) {
            Some(input) => input,
            // A wake that an earlier one has replaced.
            None if self.hosts[host].wake != at => return Some(()),
            None => Input::Wake,
        };
        if let Input::Ran { task, report: Report::Finished { .. }, .. } = &input {
            self.finished.insert(*task);
        }
        let outputs = self.hosts[host].node.handle(Now { mono: at, wall: at }, input);
        self.carry_out(host, outputs);
        Some(())
    }

    fn run(mut self) -> Outcome<Ended> {
        while self.now < self.last_task_at || self.finished.len() < self.tasks || !self.is_quiet() {
            if self.now > self.last_task_at + PATIENCE || self.step().is_none() {
                break;
            }
        }
        Ok(self.ended())
    }

    /// Whether all nodes have the same state; looked at only once all tasks have ended somewhere. A state's hash takes
    /// a look at each task, so it is made only where all have the same heads.
    fn is_quiet(&self) -> bool {
        let heads: Vec<&Cid> = self.hosts[0].node.heads().collect();
        if self.hosts.iter().any(|host| !host.node.heads().eq(heads.iter().copied())) {
            return false;
        }
        let first = self.hosts[0].node.state_hash();
        self.hosts.iter().all(|host| host.node.state_hash() == first)
    }

    fn ended(&self) -> Ended {
        let (mut agreed, mut completed) = (0, 0);
        for n in 0..self.tasks {
            let task = workload(n).id();
            let states: Vec<Option<&State>> =
                self.hosts.iter().map(|host| host.node.task(&task).map(|folded| &folded.state)).collect();
            let done = matches!(states[0], Some(State::Completed { .. }));
            let same = states.iter().all(|state| *state == states[0]);
            agreed += usize::from(done && same && self.starts.get(&task) == Some(&1));
            completed += usize::from(states.iter().all(|state| matches!(state, Some(State::Completed { .. }))));
        }
        Ended { agreed, completed }
    }

    fn plan(&mut self, at: u64, host: usize, input: Input) {
        self.planned += 1;
        self.inputs.insert(self.planned, input);
        self.ahead.push(Reverse((at, self.planned, host)));
    }

    fn send(&mut self, host: usize, input: Input) {
        let at = self.now + self.draw(DELAY.0, DELAY.1);
        self.plan(at, host, input);
    }

    /// A number of the range, the same in every run.
    fn draw(&mut self, least: u64, most: u64) -> u64 {
        self.planned += 1;
        let mut z = self.planned.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        least + (z ^ (z >> 31)) % (most - least + 1)
    }

    fn carry_out(&mut self, host: usize, outputs: Vec<Output>) {
        let from = self.hosts[host].peer;
        let others: Vec<usize> = (0..self.hosts.len()).filter(|other| *other != host).collect();
        for output in outputs {
            match output {
                Output::Persist(entries) => self.entries.extend(entries.into_iter().map(|entry| (entry.cid(), entry))),
                Output::Publish(entries) => {
                    for other in &others {
                        self.send(*other, Input::Entries { from, entries: entries.clone() });
                    }
                }
                Output::Announce(presence) => {
                    let said = Arc::new(Signed { presence: *presence, bytes: Box::default() });
                    for other in &others {
                        self.send(*other, Input::Presence(said.clone()));
                    }
                }
                Output::Request { to, token, request } => {
                    let to = self.by_peer[&to];
                    self.planned += 1;
                    let theirs = Token(self.planned);
                    self.hosts[to].serving.insert(theirs, (host, token));
                    self.send(to, Input::Request { from, token: theirs, request });
                }
                Output::Reply { token, reply, .. } => {
                    let Some((asker, token)) = self.hosts[host].serving.remove(&token) else { continue };
                    let response = self.response(reply);
                    self.send(asker, Input::Response { from, token, response });
                }
                Output::Start { task, fence, .. } => {
                    *self.starts.entry(task).or_default() += 1;
                    let duration_ms = self.draw(TAKES.0, TAKES.1);
                    let report = Report::Finished { conclusion: Conclusion::Success, duration_ms, note: String::new() };
                    self.plan(
                        self.now + duration_ms,
                        host,
                        Input::Ran { task, fence, report, products: Products::default() },
                    );
                }
                Output::Stop { task, fence, .. } => {
                    self.plan(
                        self.now + 1,
                        host,
                        Input::Ran { task, fence, report: Report::Stopped, products: Products::default() },
                    );
                }
                Output::Discover { source, except } => {
                    let found = (self.look)(host, &except);
                    self.plan(self.now + 1, host, Input::Discovered { source, found });
                }
                Output::Answer { .. } | Output::Revoked { .. } | Output::Condense { .. } | Output::Notice(_) => {}
            }
        }
        let wake = self.hosts[host].node.next_wake();
        if wake != self.hosts[host].wake && wake < u64::MAX {
            self.planned += 1;
            self.ahead.push(Reverse((wake.max(self.now + 1), self.planned, host)));
        }
        self.hosts[host].wake = wake.max(self.now + 1);
    }

    fn response(&self, reply: Reply) -> Response {
        match reply {
            Reply::Page { cids, more } => {
                let entries = cids.iter().take(PAGE).filter_map(|cid| self.entries.get(cid)).cloned().collect();
                Response::Page { entries, more: more || cids.len() > PAGE }
            }
            Reply::Turn { mine } => Response::Turn { mine },
            Reply::Admitted => Response::Admitted,
            Reply::Beneath { hash, parts } => Response::Beneath { hash, parts },
            Reply::Part { bytes, parts } => Response::Part { bytes, parts },
            Reply::Presences { own, heard } => {
                let own = own.map(|own| (Arc::new(Signed { presence: *own, bytes: Box::default() }), 0));
                Response::Presences { heard: own.into_iter().chain(heard).collect() }
            }
            Reply::Refused { why } => Response::Refused { why },
        }
    }
}
