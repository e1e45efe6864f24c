//! A handful of nodes over months of virtual time: messages take 20 ms, disks nothing, work a minute.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use runmesh::kernel::entry::{Entry, Revoke, Right, Ticket};
use runmesh::kernel::id::{Cid, Digest, MeshId, PeerId};
use runmesh::kernel::io::{
    Discovery, Input, Notice, Now, Offer, Output, Reply, Report, Request, Response, Signed, Token,
};
use runmesh::kernel::node::{Entrance, Node, Settings, Timings};
use runmesh::kernel::snapshot::{self, Sealed, Snapshot};
use runmesh::kernel::task::{Conclusion, Priority, Products, Repository, RunEvent, Tag, Trigger, Workload};

pub(crate) const MINUTE: u64 = 60_000;
pub(crate) const HOUR: u64 = 60 * MINUTE;
pub(crate) const DAY: u64 = 24 * HOUR;
const EPOCH: u64 = 1_767_225_600_000;
const HOP: u64 = 20;
pub(crate) const SOURCE: &str = "git:sample";

/// Beats and rounds are slow, so that months are short.
pub(crate) fn timings() -> Timings {
    Timings {
        beat: 20 * MINUTE,
        failure: 70 * MINUTE,
        close_grace: 5 * MINUTE,
        held_grace: DAY,
        round: 2 * HOUR,
        discovery: DAY,
        ..Timings::default()
    }
}

#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) snapshot: Option<Arc<[u8]>>,
}

pub(crate) struct Host {
    pub(crate) key: SigningKey,
    pub(crate) peer: PeerId,
    entrance: Entrance,
    pub(crate) node: Option<Node>,
    pub(crate) online: bool,
    pub(crate) disk: Disk,
    pub(crate) notices: Vec<Notice>,
    /// What it answers about snapshots, where it lies.
    pub(crate) lie: Option<Lie>,
    /// A snapshot of long ago, to lie with.
    pub(crate) old: Option<Arc<[u8]>>,
    /// It is killed before it forgets anything the next time.
    pub(crate) dies_dropping: bool,
    /// What was done to its disk since somebody has begun to ask.
    pub(crate) journal: Option<Vec<Kept>>,
    boots: u64,
}

/// What was done to a disk.
pub(crate) enum Kept {
    Persist(Vec<Arc<Entry>>),
    Condense { snapshot: Arc<[u8]>, dropped: Vec<Cid> },
}

/// How a host lies about its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// It names another.
    Name,
    /// It names the true one and sends other bytes.
    Bytes,
    /// It says that there is more than anybody would fetch.
    Size,
    /// It names and sends one of long ago.
    Old,
    /// The same, also to who lacks nothing.
    Always,
    /// It names the true one and sends one that leaves out what was ever submitted.
    Forgery,
}

pub(crate) struct Mesh {
    pub(crate) now: u64,
    pub(crate) id: MeshId,
    mesh_key: SigningKey,
    pub(crate) hosts: Vec<Host>,
    due: BinaryHeap<Reverse<(u64, u64)>>,
    inputs: BTreeMap<u64, (usize, u64, Input)>,
    asked: BTreeMap<u64, (usize, Token)>,
    next: u64,
    /// Who does not reach whom.
    apart: BTreeSet<(usize, usize)>,
    /// Everything that was ever on a disk.
    pub(crate) written: BTreeMap<Cid, Arc<Entry>>,
    pub(crate) submitted: u64,
    /// What whoever looks through the source finds there.
    pub(crate) found: Vec<Workload>,
}

impl Mesh {
    pub(crate) fn of(count: usize) -> Self {
        let mesh_key = SigningKey::from_bytes(&[99; 32]);
        let id = MeshId(mesh_key.verifying_key().to_bytes());
        let mut mesh = Self {
            now: 0,
            id,
            mesh_key,
            hosts: Vec::new(),
            due: BinaryHeap::new(),
            inputs: BTreeMap::new(),
            asked: BTreeMap::new(),
            next: 0,
            apart: BTreeSet::new(),
            written: BTreeMap::new(),
            submitted: 0,
            found: vec![firmware(7)],
        };
        for _ in 0..count {
            mesh.add();
        }
        mesh.run(HOUR);
        mesh
    }

    /// One more host, with a ticket unless it is the first.
    pub(crate) fn add(&mut self) -> usize {
        let number = self.hosts.len();
        self.enlist(if number == 0 {
            Entrance::Founder(Right::founder(&self.mesh_key, &peer_of(&key_of(0))))
        } else {
            Entrance::Ticket(Ticket::sign(&self.mesh_key, number as u64, u64::MAX))
        })
    }

    fn enlist(&mut self, entrance: Entrance) -> usize {
        let number = self.hosts.len();
        let key = key_of(number);
        let peer = peer_of(&key);
        let (disk, notices) = (Disk::default(), Vec::new());
        self.hosts.push(Host {
            key,
            peer,
            entrance,
            node: None,
            online: false,
            disk,
            notices,
            lie: None,
            old: None,
            dies_dropping: false,
            journal: None,
            boots: 0,
        });
        self.start(number);
        number
    }

    pub(crate) fn now_of(&self) -> Now {
        Now { mono: self.now + 1, wall: EPOCH + self.now }
    }

    /// A host whose disk was lost: it starts as if it were new, under its old key and ticket.
    pub(crate) fn lose_disk(&mut self, number: usize) {
        self.hosts[number].disk = Disk::default();
    }

    pub(crate) fn start(&mut self, number: usize) {
        let now = self.now_of();
        let host = &mut self.hosts[number];
        host.boots += 1;
        let seed = number as u64 * 1000 + host.boots;
        let settings = settings(host.key.clone(), self.id, host.entrance.clone(), seed);
        let snapshot = host.disk.snapshot.clone().map(|bytes| Sealed::open(bytes, &self.id).expect("it was kept"));
        let (node, outputs) = Node::restore(now, settings, snapshot, host.disk.entries.clone());
        host.node = Some(node);
        self.carry_out(number, outputs);
        let offer = Offer { slots: 4, labels: BTreeSet::new(), sources: BTreeSet::from([SOURCE.to_owned()]) };
        self.feed(number, Input::Offer(offer));
        self.connect(number);
    }

    pub(crate) fn connect(&mut self, number: usize) {
        self.hosts[number].online = true;
        for other in self.others(number) {
            let (a, b) = (self.hosts[number].peer, self.hosts[other].peer);
            self.feed(number, Input::Connected(b));
            self.feed(other, Input::Connected(a));
        }
    }

    pub(crate) fn cut_off(&mut self, number: usize) {
        for other in self.others(number) {
            let (a, b) = (self.hosts[number].peer, self.hosts[other].peer);
            self.feed(number, Input::Disconnected(b));
            self.feed(other, Input::Disconnected(a));
        }
        self.hosts[number].online = false;
    }

    pub(crate) fn stop(&mut self, number: usize) {
        self.cut_off(number);
        self.hosts[number].node = None;
    }

    fn others(&self, number: usize) -> Vec<usize> {
        let up = |other: &usize| {
            let host = &self.hosts[*other];
            host.online && host.node.is_some() && !self.apart.contains(&(number, *other))
        };
        (0..self.hosts.len()).filter(|other| *other != number && up(other)).collect()
    }

    /// Lets time go on.
    pub(crate) fn run(&mut self, time: u64) {
        let until = self.now + time;
        while self.step(until) {}
        self.now = until;
    }

    /// Lets time go on until an entry like this is on some disk, not longer. What follows from it has not happened yet.
    pub(crate) fn run_to(&mut self, time: u64, is_wanted: impl Fn(&Entry) -> bool) -> Option<Arc<Entry>> {
        let (until, mut known) = (self.now + time, self.written.keys().copied().collect::<BTreeSet<_>>());
        while self.step(until) {
            if self.written.len() > known.len() {
                let mut new = self.written.values().filter(|entry| known.insert(entry.cid()));
                if let Some(wanted) = new.find(|entry| is_wanted(entry)) {
                    return Some(wanted.clone());
                }
            }
        }
        self.now = until;
        None
    }

    /// Lets the next thing happen. `false` when nothing is due by then.
    fn step(&mut self, until: u64) -> bool {
        let wakes = self.hosts.iter().enumerate();
        let wake = wakes.filter_map(|(n, host)| Some((host.node.as_ref()?.next_wake() - 1, n))).min();
        let input = self.due.peek().map(|Reverse(due)| due.0);
        let at = input.unwrap_or(u64::MAX).min(wake.map_or(u64::MAX, |(at, _)| at));
        if at > until {
            return false;
        }
        self.now = self.now.max(at);
        if input == Some(at) {
            if let Some(Reverse((_, number))) = self.due.pop()
                && let Some((host, boot, input)) = self.inputs.remove(&number)
                && self.hosts[host].boots == boot
            {
                self.feed(host, input);
            }
        } else if let Some((_, host)) = wake {
            self.feed(host, Input::Wake);
        }
        true
    }

    fn later(&mut self, after: u64, host: usize, input: Input) {
        self.next += 1;
        self.due.push(Reverse((self.now + after, self.next)));
        self.inputs.insert(self.next, (host, self.hosts[host].boots, input));
    }

    pub(crate) fn feed(&mut self, number: usize, input: Input) {
        let now = self.now_of();
        let Some(node) = &mut self.hosts[number].node else { return };
        let outputs = node.handle(now, input);
        self.carry_out(number, outputs);
    }

    fn carry_out(&mut self, number: usize, outputs: Vec<Output>) {
        let me = self.hosts[number].peer;
        for output in outputs {
            match output {
                Output::Persist(entries) => {
                    self.written.extend(entries.iter().map(|entry| (entry.cid(), entry.clone())));
                    if let Some(journal) = &mut self.hosts[number].journal {
                        journal.push(Kept::Persist(entries.clone()));
                    }
                    self.hosts[number].disk.entries.extend(entries);
                }
                Output::Condense { .. } if self.hosts[number].dies_dropping => {
                    self.hosts[number].dies_dropping = false;
                    self.stop(number);
                    return;
                }
                Output::Condense { snapshot, dropped } => {
                    if let Some(journal) = &mut self.hosts[number].journal {
                        journal.push(Kept::Condense { snapshot: snapshot.clone(), dropped: dropped.clone() });
                    }
                    let disk = &mut self.hosts[number].disk;
                    let dropped: BTreeSet<Cid> = dropped.into_iter().collect();
                    let before = disk.entries.len();
                    disk.entries.retain(|entry| !dropped.contains(&entry.cid()));
                    assert_eq!(before - disk.entries.len(), dropped.len(), "it drops what it has");
                    disk.snapshot = Some(snapshot);
                }
                Output::Publish(entries) => {
                    self.flood(number, |_| Input::Entries { from: me, entries: entries.clone() });
                }
                Output::Announce(presence) => {
                    let said = Arc::new(Signed { presence: *presence, bytes: Box::default() });
                    self.flood(number, |_| Input::Presence(said.clone()));
                }
                Output::Request { to, token, request } => {
                    let other = self.others(number).into_iter().find(|other| self.hosts[*other].peer == to);
                    match other.filter(|_| self.hosts[number].online) {
                        Some(other) => {
                            self.next += 1;
                            self.asked.insert(self.next, (number, token));
                            let token = Token(self.next);
                            self.later(HOP, other, Input::Request { from: me, token, request });
                        }
                        None => self.later(1000, number, Input::Unanswered { from: to, token }),
                    }
                }
                Output::Reply { token, reply, .. } => self.reply(number, token, reply),
                Output::Start { task, fence, .. } => {
                    let conclusion = Conclusion::Success;
                    let report = Report::Finished { conclusion, duration_ms: MINUTE, note: String::new() };
                    self.later(MINUTE, number, Input::Ran { task, fence, report, products: Products::default() });
                }
                Output::Stop { task, fence, .. } => {
                    self.later(
                        HOP,
                        number,
                        Input::Ran { task, fence, report: Report::Stopped, products: Products::default() },
                    );
                }
                Output::Discover { source, .. } => {
                    let workloads = self.found.clone();
                    self.later(
                        HOP,
                        number,
                        Input::Discovered { source, found: Discovery { workloads, ..Discovery::default() } },
                    );
                }
                Output::Answer { answer, .. } => {
                    answer.expect("the node takes it");
                }
                Output::Revoked { answer, .. } => {
                    answer.expect("the node takes it");
                }
                Output::Notice(notice) => self.hosts[number].notices.push(notice),
            }
        }
    }

    fn flood(&mut self, number: usize, input: impl Fn(usize) -> Input) {
        if self.hosts[number].online {
            for other in self.others(number) {
                self.later(HOP, other, input(other));
            }
        }
    }

    fn reply(&mut self, number: usize, token: Token, reply: Reply) {
        let Some((asker, token)) = self.asked.remove(&token.0) else { return };
        let response = match reply {
            Reply::Page { .. } if self.hosts[number].lie == Some(Lie::Always) => self.old_of(number),
            Reply::Page { cids, more } => {
                let disk = &self.hosts[number].disk;
                let by_cid: BTreeMap<Cid, &Arc<Entry>> = disk.entries.iter().map(|e| (e.cid(), e)).collect();
                let entries = cids.iter().map(|cid| by_cid[cid].clone()).collect();
                Response::Page { entries, more }
            }
            Reply::Turn { mine } => Response::Turn { mine },
            Reply::Admitted => Response::Admitted,
            Reply::Beneath { hash, parts } => match self.hosts[number].lie {
                Some(Lie::Name) => Response::Beneath { hash: Digest::of(&[b"another"]), parts },
                Some(Lie::Old | Lie::Always) => self.old_of(number),
                Some(Lie::Size) => Response::Beneath { hash, parts: u32::MAX },
                _ => Response::Beneath { hash, parts },
            },
            Reply::Part { bytes, parts } => match self.hosts[number].lie {
                Some(Lie::Bytes) => Response::Part { bytes: vec![7; bytes.len()], parts },
                Some(Lie::Forgery) => {
                    let true_one = Sealed::open(bytes.into(), &self.id).expect("it fits into one part");
                    let forgery = Snapshot { submitted: Vec::new(), ..true_one.snapshot.as_ref().clone() }.seal();
                    assert_ne!(forgery.hash, true_one.hash);
                    Response::Part { bytes: forgery.bytes.to_vec(), parts }
                }
                _ => Response::Part { bytes, parts },
            },
            Reply::Presences { own, heard } => {
                let own = own.map(|own| (Arc::new(Signed { presence: *own, bytes: Box::default() }), 0));
                Response::Presences { heard: own.into_iter().chain(heard).collect() }
            }
            Reply::Refused { why } => match &self.hosts[number].old {
                Some(old) => Response::Part { bytes: old.to_vec(), parts: 1 },
                None => Response::Refused { why },
            },
        };
        let from = self.hosts[number].peer;
        if self.hosts[number].online && self.hosts[asker].online && !self.apart.contains(&(number, asker)) {
            self.later(HOP, asker, Input::Response { from, token, response });
        } else {
            self.later(1000, asker, Input::Unanswered { from, token });
        }
    }

    fn old_of(&self, number: usize) -> Response {
        let hash = snapshot::hash(self.hosts[number].old.as_deref().unwrap_or_default());
        Response::Beneath { hash, parts: 1 }
    }

    /// The holder of the mesh key revokes a host, as another knows it.
    pub(crate) fn revoke(&mut self, by: usize, number: usize) {
        let peer = self.hosts[number].peer;
        let revoke = Revoke::sign(&self.mesh_key, peer, self.node(by).cut_of(&peer));
        self.feed(by, Input::Revoke { token: Token(u64::MAX), revoke: Box::new(revoke) });
    }

    /// The entries by which a host proves that it is a member.
    pub(crate) fn proof_of(&self, number: usize) -> Vec<Arc<Entry>> {
        self.node(number).proof().iter().map(|cid| self.written[cid].clone()).collect()
    }

    /// Whether a host is convinced when a peer shows these entries.
    pub(crate) fn shows(&mut self, to: usize, number: usize, chain: &[Arc<Entry>]) -> bool {
        let (now, from) = (self.now_of(), self.hosts[number].peer);
        let (token, request) = (Token(u64::MAX), Request::Prove { chain: chain.to_vec() });
        let Some(node) = &mut self.hosts[to].node else { return false };
        let outputs = node.handle(now, Input::Request { from, token, request });
        let convinced = outputs.iter().any(|output| matches!(output, Output::Reply { reply: Reply::Admitted, .. }));
        self.carry_out(to, outputs);
        convinced
    }

    /// One host proves itself to another.
    pub(crate) fn prove(&mut self, number: usize, to: usize) -> bool {
        let chain = self.proof_of(number);
        self.shows(to, number, &chain)
    }

    /// A ticket of this mesh, for a host to come.
    pub(crate) fn ticket(&self, id: u64, labels: &[&str]) -> Ticket {
        let labels: BTreeSet<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        Ticket::sign_for(&self.mesh_key, id, u64::MAX, Some(labels).filter(|labels| !labels.is_empty()))
    }

    /// One more host by that ticket, connected with these alone.
    pub(crate) fn add_by(&mut self, ticket: Ticket, with: &[usize]) -> usize {
        let away: Vec<usize> = (0..self.hosts.len()).filter(|n| self.hosts[*n].online && !with.contains(n)).collect();
        away.iter().for_each(|n| self.hosts[*n].online = false);
        let number = self.enlist(Entrance::Ticket(ticket));
        away.iter().for_each(|n| self.hosts[*n].online = true);
        number
    }

    /// Cuts the mesh in two.
    pub(crate) fn part(&mut self, some: &[usize]) {
        for a in some {
            for b in (0..self.hosts.len()).filter(|b| !some.contains(b)) {
                self.apart.insert((*a, b));
                self.apart.insert((b, *a));
                let (x, y) = (self.hosts[*a].peer, self.hosts[b].peer);
                self.feed(*a, Input::Disconnected(y));
                self.feed(b, Input::Disconnected(x));
            }
        }
    }

    /// Makes it one again.
    pub(crate) fn heal(&mut self) {
        for (a, b) in std::mem::take(&mut self.apart) {
            let peer = self.hosts[b].peer;
            self.feed(a, Input::Connected(peer));
        }
    }

    /// Somebody submits a task at a host.
    pub(crate) fn submit(&mut self, number: usize) {
        self.submitted += 1;
        let request = self.submitted.to_string();
        let workload = Box::new(Workload { trigger: Trigger::Manual { request }, ..firmware(0) });
        self.feed(number, Input::Submit { token: Token(u64::MAX), workload });
    }

    /// Days with so many tasks each, submitted here and there among hosts that are up.
    pub(crate) fn days(&mut self, days: u64, tasks: u64, mut each: impl FnMut(&Self)) {
        for _ in 0..days {
            for _ in 0..tasks {
                let up: Vec<usize> = (0..self.hosts.len()).filter(|n| self.hosts[*n].node.is_some()).collect();
                let at = up[self.submitted as usize * 7 % up.len()];
                self.submit(at);
                self.run(DAY / tasks);
            }
            each(self);
        }
    }

    pub(crate) fn node(&self, number: usize) -> &Node {
        self.hosts[number].node.as_ref().expect("it is up")
    }

    /// Asserts that all nodes that are up hold the same.
    pub(crate) fn agrees(&self) {
        let up: Vec<usize> = (0..self.hosts.len()).filter(|n| self.hosts[*n].node.is_some()).collect();
        for n in &up {
            let (a, b) = (self.node(up[0]), self.node(*n));
            assert_eq!(a.status().cut, b.status().cut, "cut of {n}");
            assert_eq!(a.heads().collect::<Vec<_>>(), b.heads().collect::<Vec<_>>(), "heads of {n}");
            assert_eq!(a.state_hash(), b.state_hash(), "state of {n}");
        }
    }

    /// Whether a node knows of no task that is still open.
    pub(crate) fn is_done(&self, number: usize) -> bool {
        self.node(number).tasks().all(|(_, folded)| !folded.state.is_open())
    }

    pub(crate) fn warnings(&self, number: usize) -> Vec<&String> {
        let texts = self.hosts[number].notices.iter().filter_map(|notice| match notice {
            Notice::Warning { text } => Some(text),
            _ => None,
        });
        texts.collect()
    }
}

fn key_of(number: usize) -> SigningKey {
    SigningKey::from_bytes(&[number as u8 + 1; 32])
}

fn peer_of(key: &SigningKey) -> PeerId {
    PeerId::from_public_key(key.verifying_key().to_bytes())
}

pub(crate) fn settings(key: SigningKey, mesh: MeshId, entrance: Entrance, seed: u64) -> Settings {
    Settings { key, mesh, entrance, seed, timings: timings(), attempts: 3, version: "test".to_owned() }
}

/// A workflow at some revision.
pub(crate) fn firmware(revision: u64) -> Workload {
    Workload {
        repository: Repository { host: "git".to_owned(), id: "sample".to_owned(), name: "sample".to_owned() },
        path: ".github/workflows/firmware.yml".to_owned(),
        trigger: Trigger::Revision { blob: format!("{revision:040x}") },
        commit: "0".repeat(40),
        r#ref: "refs/heads/main".to_owned(),
        event: RunEvent::WorkflowDispatch,
        name: "firmware".to_owned(),
        tags: BTreeSet::from([Tag::P2pOnly]),
        priority: Priority::MOST,
        labels: BTreeSet::new(),
        inputs: BTreeMap::new(),
        time_limit_s: 3600,
        fallback_s: 60,
        concurrency: None,
    }
}
