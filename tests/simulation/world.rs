//! The world of one run: virtual time, what is due when, and the hosts.
//!
//! Everything that happens is an event in one queue, taken in the order (time, number). Nothing but the seed decides
//! what happens: the same seed gives the same run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use runmesh::kernel::clock::Shelf;
use runmesh::kernel::entry::Entry;
use runmesh::kernel::id::{Author, Cid, PeerId, TaskId};
use runmesh::kernel::io::{Input, Report, Request, Response, Signed, Token};
use runmesh::kernel::task::{Conclusion, Fence};

use super::adapter::Kernel;
use super::chance::Chance;
use super::host::{self, Command, Death, Host, Leaving, Process};
use super::network::{Flood, Overlay};
use super::scenario::{Fault, Scenario};
use super::work::{self, Job, Origin};

/// How long a node that was asked to go may take.
const GOING: u64 = 10_000;
/// More wakes than this in a second are a loop that turns without end: nothing in a node is due so often.
const MAX_WAKES: u64 = 200;
/// After how long a person without an answer asks another node.
const PATIENCE: u64 = 5_000;

pub(crate) struct World<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) seed: u64,
    pub(crate) chance: Chance,
    pub(crate) now: u64,
    due: BinaryHeap<Reverse<Due>>,
    numbered: u64,
    pub(crate) hosts: Vec<Host>,
    pub(crate) by_peer: BTreeMap<PeerId, usize>,
    /// Which hosts each may connect to.
    pub(crate) links: Vec<Vec<usize>>,
    pub(crate) overlay: Overlay,
    /// What the nodes share, in a large mesh.
    pub(crate) shelf: Shelf,
    /// Whether messages suffer at all: not any more in the calm at the end.
    pub(crate) is_rough: bool,
    pub(crate) jobs: Vec<Job>,
    pub(crate) acknowledged: BTreeSet<usize>,
    /// No fault and no new task comes after this time.
    pub(crate) last_trouble: u64,
    /// When all nodes first took part.
    pub(crate) formed_at: Option<u64>,
    /// Every entry that ever was on a disk, by its author's numbering.
    pub(crate) written: BTreeMap<(Author, u64), Arc<Entry>>,
    pub(crate) runs: Vec<RunRecord>,
    pub(crate) cuts: Vec<Cut>,
    pub(crate) counts: Counts,
    /// What is done wrong on purpose, to see that it is found.
    pub(crate) sabotage: Option<Sabotage>,
    /// What must never happen and did.
    pub(crate) violations: Vec<String>,
    /// A number that differs when anything differs between two runs.
    pub(crate) fingerprint: u64,
    pub(crate) telling: bool,
}

/// Something done wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// Host 1 does not put its entries on disk.
    ForgetToPersist,
    /// Host 1 is told of its tasks' results by nobody.
    SwallowReports,
    /// Host 1 is never given an entry or an answer.
    Deafen,
    /// Host 1 is given nothing that is gossiped.
    MissGossip,
    /// Host 1 is given no presence of host 0.
    MissOne,
    /// Host 1 tells its node that each run came to another end.
    TwistReports,
    /// Host 1 starts from an old copy of its disk.
    RestoreOldDisk,
}

/// A partition that was.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    pub(crate) from: u64,
    pub(crate) to: u64,
    parts: Vec<u8>,
}

impl Cut {
    /// Whether the host is among half of the hosts or fewer.
    pub(crate) fn isolates(&self, host: usize) -> bool {
        let with = self.parts.iter().filter(|part| **part == self.parts[host]).count();
        with * 2 <= self.parts.len()
    }
}

/// A start of a task and its end.
#[derive(Debug, Clone)]
pub(crate) struct RunRecord {
    pub(crate) task: TaskId,
    pub(crate) fence: Fence,
    pub(crate) host: usize,
    pub(crate) since: u64,
    pub(crate) end: Option<(u64, RunEnd)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunEnd {
    Finished(Conclusion),
    NotStarted,
    Declined,
    Stopped,
    /// The host went down with it.
    Killed,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) inputs: u64,
    pub(crate) wakes: u64,
    pub(crate) gossiped: u64,
    pub(crate) requests: u64,
    pub(crate) deaths: u64,
}

#[derive(Debug)]
pub(crate) enum Event {
    Boot(usize),
    /// Something for a process, if it is still the same.
    Input(usize, u64, Box<Input>),
    /// The process is free again.
    Resume(usize, u64),
    Gossip(Box<Flood>),
    Request {
        to: usize,
        from: usize,
        boot: u64,
        token: Token,
        request: Request,
    },
    Response {
        to: usize,
        boot: u64,
        from: usize,
        token: Token,
        response: Response,
    },
    GiveUp(usize, u64, Token),
    /// A host finds out whether it is connected to another.
    Look(usize, usize),
    Wake(usize, u64, u64),
    Ends(usize, u64, TaskId, Fence),
    Stopped(usize, u64, TaskId, Fence),
    /// Entries that wait for the disk are written now at the latest.
    Sync(usize, u64),
    Found(usize, u64),
    Fault(Fault),
    /// A dying process that had nothing to do dies now; a leaving one goes.
    Dies(usize, u64),
    Submit(usize),
    Cancel(usize),
}

#[derive(Debug, Clone)]
pub(crate) enum Message {
    Entries(Arc<[Arc<Entry>]>),
    Presence(Arc<Signed>),
}

#[derive(Debug)]
struct Due {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<'a> World<'a> {
    pub(crate) fn new(scenario: &'a Scenario, seed: u64) -> Self {
        let hosts = host::hosts(scenario, seed);
        let jobs = work::jobs(scenario, seed);
        let mut world = Self {
            scenario,
            seed,
            chance: Chance::new(seed, "world"),
            now: 0,
            due: BinaryHeap::new(),
            numbered: 0,
            by_peer: hosts.iter().enumerate().map(|(number, host)| (host.peer, number)).collect(),
            links: super::network::links(scenario, seed),
            overlay: Overlay::of(scenario.nodes),
            shelf: if scenario.shares { Shelf::shared() } else { Shelf::default() },
            is_rough: true,
            hosts,
            jobs,
            acknowledged: BTreeSet::new(),
            last_trouble: 0,
            formed_at: None,
            written: BTreeMap::new(),
            runs: Vec::new(),
            cuts: Vec::new(),
            counts: Counts::default(),
            sabotage: None,
            violations: Vec::new(),
            fingerprint: seed,
            telling: std::env::var_os("RUNMESH_SIM_TRACE").is_some(),
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.plan(0, Event::Boot(0));
        for host in 1..self.hosts.len() {
            let at = self.chance.within((0, self.scenario.hosts.boot));
            self.plan(at, Event::Boot(host));
        }
        for (at, fault) in self.scenario.schedule(self.seed) {
            self.last_trouble = self.last_trouble.max(at);
            self.plan(at, Event::Fault(fault));
        }
        for number in 0..self.jobs.len() {
            let job = self.jobs[number].clone();
            self.last_trouble = self.last_trouble.max(job.at).max(job.cancel_at.unwrap_or(0));
            if job.origin == Origin::Submitted {
                self.plan(job.at, Event::Submit(number));
                if self.chance.permille(self.scenario.work.twice) {
                    self.plan(job.at, Event::Submit(number));
                }
            }
            if let Some(at) = job.cancel_at {
                self.plan(at, Event::Cancel(number));
            }
        }
    }

    /// Lets virtual time go on until this time, or until something happened that never must.
    pub(crate) fn run_until(&mut self, until: u64) {
        while self.violations.is_empty() && self.due.peek().is_some_and(|Reverse(due)| due.at <= until) {
            let Some(due) = self.next_due() else { break };
            match self.scenario.threads {
                0 => self.happen(due.event),
                threads => self.happen_together(due.event, threads),
            }
        }
        self.now = until;
    }

    fn next_due(&mut self) -> Option<Due> {
        let Reverse(due) = self.due.pop()?;
        self.now = due.at;
        self.note(due.at ^ due.number.rotate_left(32));
        Some(due)
    }

    /// Everything of this millisecond: processes whose time has come wait for the rest of it.
    fn happen_together(&mut self, first: Event, threads: usize) {
        let (mut ready, mut next) = (BTreeMap::new(), Some(first));
        while let Some(event) = next {
            match event {
                Event::Resume(host, boot) => drop(ready.insert((host, boot), ready.len())),
                other => self.happen(other),
            }
            let is_now = self.due.peek().is_some_and(|Reverse(due)| due.at == self.now);
            next = if is_now { self.next_due().map(|due| due.event) } else { None };
        }
        let mut ready: Vec<_> = ready.into_iter().collect();
        ready.sort_by_key(|(_, at)| *at);
        self.on_resume_together(ready.into_iter().map(|(process, _)| process).collect(), threads);
    }

    pub(crate) fn plan(&mut self, at: u64, event: Event) {
        self.numbered += 1;
        self.due.push(Reverse(Due { at: at.max(self.now), number: self.numbered, event }));
    }

    /// Takes a number into the fingerprint.
    pub(crate) fn note(&mut self, number: u64) {
        self.fingerprint = (self.fingerprint ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17);
    }

    pub(crate) fn violation(&mut self, what: String) {
        self.violations.push(format!("at {} ms: {what}", self.now));
    }

    /// Says what happens, when somebody wants to know.
    pub(crate) fn tell(&self, host: usize, what: impl FnOnce() -> String) {
        if self.telling {
            #[expect(clippy::print_stderr, reason = "asked for by RUNMESH_SIM_TRACE")]
            {
                eprintln!("{:>8} host {host:>3} {}", self.now, what());
            }
        }
    }

    /// The process on a host, if it is up in that boot.
    pub(crate) fn process(&mut self, host: usize, boot: u64) -> Option<&mut Process> {
        self.hosts[host].process.as_mut().filter(|process| process.boot == boot)
    }

    pub(crate) fn boot_of(&self, host: usize) -> Option<u64> {
        self.hosts[host].process.as_ref().map(|process| process.boot)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Boot(host) => self.on_boot(host),
            Event::Input(host, boot, input) => self.give(host, boot, *input),
            Event::Resume(host, boot) => self.on_resume(host, boot),
            Event::Gossip(flood) => self.on_arrival(*flood),
            Event::Request { to, from, boot, token, request } => self.on_request(to, (from, boot, token), request),
            Event::Response { to, boot, from, token, response } => self.on_response((to, boot, token), from, response),
            Event::GiveUp(host, boot, token) => self.on_give_up(host, boot, token),
            Event::Look(host, peer) => self.on_look(host, peer),
            Event::Wake(host, boot, mono) => self.on_wake(host, boot, mono),
            Event::Ends(host, boot, task, fence) => self.on_ends(host, boot, task, fence),
            Event::Stopped(host, boot, task, fence) => self.on_stopped(host, boot, task, fence),
            Event::Sync(host, boot) => self.on_sync(host, boot),
            Event::Found(host, boot) => self.on_found(host, boot),
            Event::Fault(fault) => self.on_fault(fault),
            Event::Dies(host, boot) => self.on_dies(host, boot),
            Event::Submit(job) => self.on_submit(job),
            Event::Cancel(job) => self.on_cancel(job),
        }
    }

    fn on_boot(&mut self, number: usize) {
        let now = self.now;
        let (start, seed) = (self.chance.within((1, 1 << 40)), self.chance.next());
        let host = &mut self.hosts[number];
        if let Some(process) = &mut host.process {
            // It is on its way out, or was never down.
            match (process.dying, process.leaving) {
                (_, Leaving::By(at)) => process.leaving = Leaving::ToReturn(at),
                (Some(_), _) => self.plan(now + 1_000, Event::Boot(number)),
                _ => {}
            }
            return;
        }
        if self.sabotage == Some(Sabotage::RestoreOldDisk) && number == 1 && host.boots > 0 {
            let third = host.disk.kept.len() / 3;
            host.disk = host.disk.as_of(third);
        }
        host.boots += 1;
        host.clocks.switch_on(now, start);
        let identity = (host.key.clone(), host.mesh, host.entrance.clone());
        let (kernel, outputs) = Kernel::open(
            host.clocks.read(now),
            identity,
            seed,
            (host.disk.snapshot.clone(), host.disk.kept.clone()),
            &self.shelf,
        );
        let (boot, offer) = (host.boots, host.offer.clone());
        host.process = Some(Process::new(boot, kernel, now));
        self.tell(number, || format!("boots for the {boot}. time"));
        self.carry_out(number, outputs);
        if self.scenario.hosts.careful {
            self.give(number, boot, Input::Careful([work::SOURCE.to_owned()].into()));
        }
        self.give(number, boot, Input::Offer(offer));
        self.reach_out(number);
    }

    /// Hands something to a process, or puts it into its inbox while it is busy.
    pub(crate) fn give(&mut self, number: usize, boot: u64, input: Input) {
        let now = self.now;
        let pace = self.scenario.hosts.pace;
        let Some(input) = self.sabotaged(number, input) else { return };
        let Some(process) = self.process(number, boot) else { return };
        process.inbox.push_back(input);
        // What comes of an input that is being taken in queues behind it.
        if process.is_handling || process.inbox.len() > 1 {
            return;
        }
        let at = process.busy_until.max(now + pace);
        if at > now {
            self.plan(at, Event::Resume(number, boot));
        } else {
            self.on_resume(number, boot);
        }
    }

    fn sabotaged(&self, number: usize, input: Input) -> Option<Input> {
        match (self.sabotage.filter(|_| number == 1), input) {
            (Some(Sabotage::SwallowReports), Input::Ran { .. })
            | (Some(Sabotage::Deafen), Input::Entries { .. } | Input::Response { .. })
            | (Some(Sabotage::MissGossip), Input::Entries { .. } | Input::Presence(_)) => None,
            (Some(Sabotage::MissOne), Input::Presence(said)) if said.presence.peer == self.hosts[0].peer => None,
            (
                Some(Sabotage::TwistReports),
                Input::Ran { task, fence, report: Report::Finished { duration_ms, note, .. }, products },
            ) => {
                let report = Report::Finished { conclusion: Conclusion::Skipped, duration_ms, note };
                Some(Input::Ran { task, fence, report, products })
            }
            (_, input) => Some(input),
        }
    }

    fn on_wake(&mut self, number: usize, boot: u64, mono: u64) {
        let Some(process) = self.process(number, boot) else { return };
        if process.wake.map(|(due, _)| due) != Some(mono) {
            return;
        }
        process.wake = None;
        let second = mono / 1000;
        process.wakes = if process.wakes.0 == second { (second, process.wakes.1 + 1) } else { (second, 1) };
        if process.wakes.1 > MAX_WAKES {
            let status = process.kernel.status();
            self.violation(format!("host {number} wakes again and again for nothing: {status}"));
        }
        self.counts.wakes += 1;
        self.give(number, boot, Input::Wake);
    }

    fn on_fault(&mut self, fault: Fault) {
        self.tell(0, || format!("fault {fault:?}"));
        let now = self.now;
        match fault {
            Fault::Partition(parts) => {
                self.repart(|number| parts[number]);
                self.cuts.push(Cut { from: now, to: u64::MAX, parts });
            }
            Fault::Heal => {
                self.repart(|_| 0);
                if let Some(cut) = self.cuts.last_mut() {
                    cut.to = cut.to.min(now);
                }
            }
            Fault::Kill(host) => self.doom(host, Death::Killed),
            Fault::Vanish(host) => self.doom(host, Death::Vanished),
            Fault::Leave(host) => {
                let hand_over = self.chance.permille(700);
                let Some(boot) = self.boot_of(host) else { return };
                let by = now + GOING;
                if let Some(process) = self.process(host, boot)
                    && process.leaving == Leaving::No
                {
                    process.leaving = Leaving::By(by);
                    self.give(host, boot, Input::Drain { hand_over });
                    self.plan(now + 500, Event::Dies(host, boot));
                }
            }
            Fault::Stall(host, length) => {
                if let Some(process) = &mut self.hosts[host].process {
                    process.busy_until = process.busy_until.max(now + length);
                }
            }
            Fault::Jump(host, by) => self.hosts[host].clocks.ahead += by,
            Fault::Boot(host) => self.on_boot(host),
        }
    }

    /// Lets a process die in the middle of its next work.
    fn doom(&mut self, number: usize, death: Death) {
        let part = self.chance.within((0, 1000));
        let at = self.now + 300;
        let Some(process) = &mut self.hosts[number].process else { return };
        process.dying.get_or_insert((part, death));
        let boot = process.boot;
        self.plan(at, Event::Dies(number, boot));
    }

    fn on_dies(&mut self, number: usize, boot: u64) {
        let now = self.now;
        let Some(process) = self.process(number, boot) else { return };
        if let Some((_, death)) = process.dying {
            return self.kill(number, death);
        }
        let (Leaving::By(by) | Leaving::ToReturn(by)) = process.leaving else { return };
        if process.running.is_empty() || now >= by {
            let returns = process.leaving == Leaving::ToReturn(by);
            self.kill(number, Death::Killed);
            if returns {
                self.plan(now + 100, Event::Boot(number));
            }
        } else {
            self.plan(now + 500, Event::Dies(number, boot));
        }
    }

    pub(crate) fn kill(&mut self, number: usize, death: Death) {
        let Some(process) = self.hosts[number].process.take() else { return };
        self.tell(number, || format!("goes down ({death:?})"));
        self.counts.deaths += 1;
        for (task, run) in process.running {
            self.end_run(number, task, run.fence, RunEnd::Killed);
        }
        self.unlink(number);
        self.be_missed(number, death);
    }

    pub(crate) fn end_run(&mut self, host: usize, task: TaskId, fence: Fence, end: RunEnd) {
        let now = self.now;
        let run = self.runs.iter_mut().rev().find(|run| (run.host, run.task, run.fence) == (host, task, fence));
        if let Some(run) = run {
            run.end.get_or_insert((now, end));
        }
    }

    /// A host that is up, for a person to turn to.
    fn any_host(&mut self) -> Option<(usize, u64)> {
        let up: Vec<_> = (0..self.hosts.len()).filter_map(|host| Some((host, self.boot_of(host)?))).collect();
        self.chance.pick(&up).copied()
    }

    /// A person turns to one host.
    pub(crate) fn command_at(&mut self, host: usize, command: Command) {
        let (Command::Submit(job) | Command::Cancel(job)) = command;
        let Some(boot) = self.boot_of(host) else { return };
        let job = &self.jobs[job];
        let (workload, task) = (Box::new(job.workload.as_ref().clone()), job.id);
        let Some(process) = self.process(host, boot) else { return };
        process.next_token += 1;
        let token = Token(process.next_token);
        process.commands.insert(token, command);
        let input = match command {
            Command::Submit(_) => Input::Submit { token, workload },
            Command::Cancel(_) => Input::Cancel { token, task, why: "somebody changed their mind".to_owned() },
        };
        self.give(host, boot, input);
    }

    fn command(&mut self, command: Command, input: impl FnOnce(Token) -> Input) {
        let Some((host, boot)) = self.any_host() else { return };
        let Some(process) = self.process(host, boot) else { return };
        process.next_token += 1;
        let token = Token(process.next_token);
        process.commands.insert(token, command);
        self.give(host, boot, input(token));
    }

    fn on_submit(&mut self, job: usize) {
        if self.acknowledged.contains(&job) && self.now > self.jobs[job].at {
            return;
        }
        let workload = Box::new(self.jobs[job].workload.as_ref().clone());
        self.command(Command::Submit(job), |token| Input::Submit { token, workload });
        // Nobody may have heard: the node went down, or is not a member yet.
        self.plan(self.now + PATIENCE, Event::Submit(job));
    }

    fn on_cancel(&mut self, job: usize) {
        let task = self.jobs[job].id;
        let why = "somebody changed their mind".to_owned();
        self.command(Command::Cancel(job), |token| Input::Cancel { token, task, why });
    }

    pub(crate) fn on_answer(&mut self, host: usize, token: Token, answer: Result<Option<TaskId>, String>) {
        let process = self.hosts[host].process.as_mut();
        let Some(command) = process.and_then(|process| process.commands.remove(&token)) else {
            return self.violation(format!("host {host} answers {token:?}, which nobody waits for"));
        };
        match (command, answer) {
            (Command::Submit(job), Ok(task)) => {
                if task != Some(self.jobs[job].id) {
                    self.violation(format!("host {host} acknowledges {task:?} for {}", self.jobs[job].id));
                }
                self.acknowledged.insert(job);
            }
            // The one who asked tries again by and by.
            (Command::Submit(_) | Command::Cancel(_), _) => {}
        }
    }

    /// The entries on all disks, by id.
    pub(crate) fn entries(&self) -> BTreeMap<Cid, Arc<Entry>> {
        self.hosts.iter().flat_map(|host| &host.disk.kept).map(|entry| (entry.cid(), entry.clone())).collect()
    }
}
