//! What a node asks for, carried out as the daemon does it, and what must never be asked for.

use std::sync::Arc;

use runmesh::kernel::entry::{self, Entry};
use runmesh::kernel::id::{Cid, PeerId, TaskId};
use runmesh::kernel::io::{Discovery, Input, Output, Presence, Reply, Report, Response, Signed, SourceKey, Token};
use runmesh::kernel::task::{Fence, Products, Workload};

use super::host::{Process, Run};
use super::work::{self, Course, Origin, SOURCE};
use super::world::{Event, Message, RunEnd, RunRecord, Sabotage, World};

/// How long it takes to look through a source.
const LOOKING: (u64, u64) = (50, 500);
/// How long it takes to stop a run and all it started.
const STOPPING: (u64, u64) = (5, 300);
/// How long entries of others wait for a sync of the disk that they share, as in the daemon.
const POSTPONE: u64 = 100;

/// Whether it may be done before the entries of others that came before it are on disk, as in the daemon.
const fn may_precede(output: &Output) -> bool {
    matches!(
        output,
        Output::Notice(_)
            | Output::Announce(_)
            | Output::Request { .. }
            | Output::Discover { .. }
            | Output::Stop { .. }
            | Output::Reply { reply: Reply::Turn { .. } | Reply::Refused { .. }, .. }
    )
}

/// Whether none of it has to wait until something is on disk.
pub(crate) fn may_wait(outputs: &[Output], me: &PeerId) -> bool {
    outputs.iter().all(|output| match output {
        Output::Persist(entries) => entries.iter().all(|entry| entry.author().peer != *me),
        other => may_precede(other),
    })
}

/// Nobody forges anything here.
fn unsigned(presence: Presence) -> Arc<Signed> {
    Arc::new(Signed { presence, bytes: Box::default() })
}

impl World<'_> {
    /// Carries out what a node asks for, in order. A dying process gets only so far.
    pub(crate) fn carry_out(&mut self, host: usize, outputs: Vec<Output>) {
        let dying = self.hosts[host].process.as_ref().and_then(|process| process.dying);
        let cut = dying
            .filter(|_| !outputs.is_empty())
            .map(|(part, death)| ((outputs.len() as u64 + 1) * part / 1001, death));
        let may_wait = may_wait(&outputs, &self.hosts[host].peer);
        if !may_wait && !outputs.iter().any(|output| matches!(output, Output::Persist(_))) {
            self.sync(host);
        }
        for (number, output) in outputs.into_iter().enumerate() {
            if cut.is_some_and(|(cut, _)| number as u64 >= cut) {
                break;
            }
            match output {
                Output::Persist(entries) if may_wait => self.postpone(host, entries),
                output => self.carry_out_one(host, output),
            }
        }
        if let Some((_, death)) = cut {
            self.kill(host, death);
        }
    }

    fn carry_out_one(&mut self, host: usize, output: Output) {
        // What waits for the disk leaves only then.
        let at = self.hosts[host].process.as_ref().map_or(self.now, |process| process.busy_until.max(self.now));
        match output {
            Output::Persist(entries) => self.persist(host, entries),
            Output::Publish(entries) => {
                self.tell(host, || format!("publishes {entries:?}"));
                self.must_be_on_disk(host, "published", entries.iter().map(|entry| entry.cid()));
                self.flood(host, at, Message::Entries(entries.into()));
            }
            Output::Announce(presence) => self.announce(host, at, *presence),
            Output::Request { to, token, request } => {
                self.tell(host, || format!("asks {to:?}: {request:.200?}"));
                self.ask(host, at, to, token, request);
            }
            Output::Reply { token, reply, .. } => self.reply(host, at, token, reply),
            Output::Start { task, fence, workload } => self.start(host, at, task, fence, &workload),
            Output::Stop { task, fence, why } => {
                self.tell(host, || format!("stops {task:?} ({why:?})"));
                self.stop(host, at, task, fence);
            }
            Output::Discover { source, .. } => self.discover(host, &source),
            Output::Answer { token, answer } => {
                self.tell(host, || format!("answers {answer:?}"));
                self.on_answer(host, token, answer);
            }
            Output::Revoked { .. } => {}
            Output::Condense { snapshot, dropped } => self.hosts[host].disk.condense(snapshot, &dropped),
            Output::Notice(notice) => self.tell(host, || format!("notes {notice:.300?}")),
        }
    }

    /// Entries of others wait until something of this node's own follows from them, or for a while.
    fn postpone(&mut self, host: usize, entries: Vec<Arc<Entry>>) {
        let at = self.now + POSTPONE;
        let Some(process) = &mut self.hosts[host].process else { return };
        let (boot, first) = (process.boot, process.postponed.is_empty());
        process.postponed.extend(entries);
        if first {
            self.plan(at, Event::Sync(host, boot));
        }
    }

    pub(crate) fn on_sync(&mut self, host: usize, boot: u64) {
        if self.boot_of(host) == Some(boot) {
            self.sync(host);
        }
    }

    /// Puts what waits on disk.
    fn sync(&mut self, host: usize) {
        if self.hosts[host].process.as_ref().is_some_and(|process| !process.postponed.is_empty()) {
            self.persist(host, Vec::new());
        }
    }

    fn persist(&mut self, host: usize, more: Vec<Arc<Entry>>) {
        let takes = self.chance.within(self.scenario.hosts.disk);
        let mut entries = Vec::new();
        if let Some(process) = &mut self.hosts[host].process {
            process.busy_until = process.busy_until.max(self.now) + takes;
            entries = std::mem::take(&mut process.postponed);
        }
        entries.extend(more);
        for entry in entries {
            self.must_not_claim_while_it_drains(host, &entry);
            self.note(u64::from_le_bytes(std::array::from_fn(|at| entry.cid().digest()[at])));
            let absent: Vec<Cid> =
                entry.body().parents.iter().filter(|cid| self.hosts[host].disk.get(cid).is_none()).copied().collect();
            if !absent.is_empty() && self.sabotage.is_none() {
                self.violation(format!("host {host} keeps {entry:?} before its parents {absent:?}"));
            }
            let first = self.written.entry((entry.author(), entry.sequence())).or_insert_with(|| entry.clone()).clone();
            if first.cid() != entry.cid() {
                self.violation(format!("an honest host forked: {first:?} and {entry:?}"));
            }
            if self.sabotage == Some(Sabotage::ForgetToPersist) && host == 1 {
                continue;
            }
            if !self.hosts[host].disk.keep(entry.clone()) {
                self.violation(format!("host {host} keeps {entry:?} twice"));
            }
        }
    }

    /// A node that was asked to go takes nothing any more: whoever it took it from would have to wait for its release.
    fn must_not_claim_while_it_drains(&mut self, host: usize, written: &Entry) {
        let drains = self.hosts[host].process.as_ref().is_some_and(|process| process.draining);
        let claims = written.body().events.iter().any(|event| matches!(event, entry::Event::Claim(_)));
        if drains && claims && written.author().peer == self.hosts[host].peer {
            self.violation(format!("host {host} claims in {written:?} although it drains"));
        }
    }

    fn must_be_on_disk(&mut self, host: usize, what: &str, cids: impl Iterator<Item = Cid>) {
        let absent: Vec<Cid> = cids.filter(|cid| self.hosts[host].disk.get(cid).is_none()).collect();
        if !absent.is_empty() {
            self.violation(format!("host {host} {what} {absent:?}, which its disk does not have"));
        }
    }

    fn announce(&mut self, host: usize, at: u64, presence: Presence) {
        let waits = |process: &Process, cid: &Cid| process.postponed.iter().any(|entry| entry.cid() == *cid);
        let process = self.hosts[host].process.as_ref();
        let heads = presence.heads.iter().filter(|head| !process.is_some_and(|process| waits(process, head)));
        let heads: Vec<Cid> = heads.copied().collect();
        self.must_be_on_disk(host, "announced", heads.into_iter());
        let slots = self.hosts[host].offer.slots;
        let Some(process) = &mut self.hosts[host].process else { return };
        let before = process.beat;
        process.beat = presence.beat;
        if presence.beat <= before {
            self.violation(format!("host {host} announces beat {} after {before}", presence.beat));
        }
        if presence.running.len() > slots as usize {
            self.violation(format!("host {host} says it runs {} tasks in {slots} slots", presence.running.len()));
        }
        self.flood(host, at, Message::Presence(unsigned(presence)));
    }

    fn reply(&mut self, host: usize, at: u64, token: Token, reply: Reply) {
        let process = self.hosts[host].process.as_mut();
        let Some(asker) = process.and_then(|process| process.serving.remove(&token)) else {
            return self.violation(format!("host {host} replies to {token:?}, which nobody asked"));
        };
        let response = match reply {
            Reply::Page { cids, more } => {
                self.must_be_on_disk(host, "replied with", cids.iter().copied());
                let page = self.scenario.network.page;
                let disk = &self.hosts[host].disk;
                let entries = cids.iter().take(page).filter_map(|cid| disk.get(cid)).collect();
                Response::Page { entries, more: more || cids.len() > page }
            }
            Reply::Turn { mine } => Response::Turn { mine },
            Reply::Admitted => Response::Admitted,
            Reply::Beneath { hash, parts } => Response::Beneath { hash, parts },
            Reply::Part { bytes, parts } => Response::Part { bytes, parts },
            Reply::Presences { own, heard } => {
                let own = own.map(|own| (unsigned(*own), 0));
                Response::Presences { heard: own.into_iter().chain(heard).collect() }
            }
            Reply::Refused { why } => {
                self.tell(host, || format!("refuses host {}: {why}", asker.0));
                Response::Refused { why }
            }
        };
        self.respond(host, at, asker, response);
    }

    fn start(&mut self, host: usize, at: u64, task: TaskId, fence: Fence, workload: &Workload) {
        self.must_be_on_disk(host, "starts a task under", [fence.claim].into_iter());
        let mut course = work::course(self.scenario, self.seed, &task, &fence);
        let declines = work::is_unable(self.scenario, self.seed, &task, host);
        if declines {
            course = Course { takes: 20, conclusion: None };
        }
        self.tell(host, || format!("starts {task:?} attempt {}, {} ms", fence.attempt, course.takes));
        let slots = self.hosts[host].offer.slots;
        let offers = workload.labels.is_subset(&self.hosts[host].offer.labels);
        let Some(process) = &mut self.hosts[host].process else { return };
        let run = Run { fence, since: at, conclusion: course.conclusion, declines, stopping: false };
        let boot = process.boot;
        let draining = process.draining;
        let twice = process.running.insert(task, run).is_some();
        let running = process.running.len();
        if draining {
            self.violation(format!("host {host} starts {task} although it drains"));
        }
        if twice {
            self.violation(format!("host {host} runs {task} twice at the same time"));
        }
        if running > slots as usize {
            self.violation(format!("host {host} runs {running} tasks in {slots} slots"));
        }
        if !offers {
            self.violation(format!("host {host} runs {task} without its labels {:?}", workload.labels));
        }
        if self.runs.iter().any(|run| run.fence == fence && run.task == task) {
            self.violation(format!("host {host} starts {task} under {fence:?} once more"));
        }
        self.runs.push(RunRecord { task, fence, host, since: at, end: None });
        self.plan(at + course.takes, Event::Ends(host, boot, task, fence));
    }

    pub(crate) fn on_ends(&mut self, host: usize, boot: u64, task: TaskId, fence: Fence) {
        let now = self.now;
        let Some(process) = self.process(host, boot) else { return };
        let Some(run) = process.running.get(&task).filter(|run| run.fence == fence && !run.stopping) else { return };
        let (conclusion, duration_ms, declines) = (run.conclusion, now - run.since, run.declines);
        process.running.remove(&task);
        let (end, report) = match conclusion {
            Some(conclusion) => {
                let note = String::new();
                (RunEnd::Finished(conclusion), Report::Finished { conclusion, duration_ms, note })
            }
            None if declines => (RunEnd::Declined, Report::Declined { why: "it has no engine".to_owned() }),
            None => (RunEnd::NotStarted, Report::NotStarted { why: "its checkout failed".to_owned() }),
        };
        self.end_run(host, task, fence, end);
        self.give(host, boot, Input::Ran { task, fence, report, products: Products::default() });
    }

    fn stop(&mut self, host: usize, at: u64, task: TaskId, fence: Fence) {
        let takes = self.chance.within(STOPPING);
        let Some(process) = &mut self.hosts[host].process else { return };
        let boot = process.boot;
        let reported = |input: &Input| matches!(input, Input::Ran { task: ran, fence: under, .. } if (*ran, *under) == (task, fence));
        // Its report waits in the inbox: it has come to its end by itself.
        let ended = process.inbox.iter().any(reported);
        match process.running.get_mut(&task).filter(|run| run.fence == fence && !run.stopping) {
            Some(run) => {
                run.stopping = true;
                self.plan(at + takes, Event::Stopped(host, boot, task, fence));
            }
            None if ended => {}
            None => self.violation(format!("host {host} stops {task} under {fence:?}, which does not run there")),
        }
    }

    pub(crate) fn on_stopped(&mut self, host: usize, boot: u64, task: TaskId, fence: Fence) {
        let Some(process) = self.process(host, boot) else { return };
        if process.running.remove(&task).is_some() {
            self.end_run(host, task, fence, RunEnd::Stopped);
            self.give(host, boot, Input::Ran { task, fence, report: Report::Stopped, products: Products::default() });
        }
    }

    fn discover(&mut self, host: usize, source: &SourceKey) {
        let offers = self.hosts[host].offer.sources.contains(source);
        let at = self.now + self.chance.within(LOOKING);
        let Some(process) = &self.hosts[host].process else { return };
        let boot = process.boot;
        if !offers {
            self.violation(format!("host {host} looks through {source}, which it does not list"));
        }
        self.plan(at, Event::Found(host, boot));
    }

    pub(crate) fn on_found(&mut self, host: usize, boot: u64) {
        let source = SOURCE.to_owned();
        if self.chance.permille(self.scenario.network.undiscovered) {
            return self.give(host, boot, Input::Undiscovered { source, wait_ms: None });
        }
        let there = self.jobs.iter().filter(|job| job.origin == Origin::Discovered && job.at <= self.now);
        let workloads = there.map(|job| job.workload.as_ref().clone()).collect();
        self.give(host, boot, Input::Discovered { source, found: Discovery { workloads, ..Discovery::default() } });
    }
}
