//! When a process takes in what has come.
//!
//! In a large mesh those whose time has come in the same millisecond take it in together, on several processors: what a
//! node makes of its inputs follows from these alone, and what it asks for is carried out one after the other, so that
//! the number of processors changes nothing.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use runmesh::kernel::id::PeerId;
use runmesh::kernel::io::{Input, Now, Output};

use super::effects;
use super::host::Process;
use super::world::{Event, World};

/// One process and what it takes in before something of it has to be carried out.
struct Turn<'a> {
    process: &'a mut Process,
    time: Now,
    me: PeerId,
    done: Vec<Done>,
}

/// What came of one input.
struct Done {
    /// It was told to claim nothing more.
    drains: bool,
    outputs: Vec<Output>,
}

impl Turn<'_> {
    fn take(&mut self) {
        self.process.is_handling = true;
        while let Some(input) = self.process.inbox.pop_front() {
            let drains = matches!(input, Input::Drain { .. });
            let outputs = self.process.kernel.handle(self.time, input);
            // Then the disk may hold it up, or its death; and what is stopped may have ended, as a report says that waits.
            let is_last = !effects::may_wait(&outputs, &self.me)
                || self.process.dying.is_some()
                || outputs.iter().any(|output| matches!(output, Output::Stop { .. }));
            self.done.push(Done { drains, outputs });
            if is_last {
                break;
            }
        }
    }
}

impl World<'_> {
    /// The process takes in what has come, until the disk or a stall holds it up.
    pub(crate) fn on_resume(&mut self, number: usize, boot: u64) {
        while self.is_ready(number, boot) {
            let time = self.hosts[number].clocks.read(self.now);
            let Some(process) = self.process(number, boot) else { return };
            let Some(input) = process.inbox.pop_front() else { break };
            process.is_handling = true;
            let drains = matches!(input, Input::Drain { .. });
            let outputs = process.kernel.handle(time, input);
            self.carry_out_of(number, boot, Done { drains, outputs });
            self.rest(number, boot);
        }
        self.set_alarm(number, boot);
    }

    /// The same of several at once, each on one host.
    pub(crate) fn on_resume_together(&mut self, mut ready: Vec<(usize, u64)>, threads: usize) {
        while !ready.is_empty() {
            ready.retain(|(number, boot)| {
                let is_ready = self.is_ready(*number, *boot);
                if !is_ready {
                    self.set_alarm(*number, *boot);
                }
                is_ready
            });
            for ((number, boot), done) in ready.iter().zip(self.take_turns(&ready, threads)) {
                for done in done {
                    self.carry_out_of(*number, *boot, done);
                }
                self.rest(*number, *boot);
            }
        }
    }

    /// Lets each of these take in what it can, and answers in their order.
    fn take_turns(&mut self, ready: &[(usize, u64)], threads: usize) -> Vec<Vec<Done>> {
        let places: BTreeMap<usize, usize> = ready.iter().enumerate().map(|(at, (number, _))| (*number, at)).collect();
        let mut turns: Vec<(usize, Mutex<Turn<'_>>)> = Vec::with_capacity(ready.len());
        let mut hosts = self.hosts.as_mut_slice();
        let mut first = 0;
        for (number, at) in places {
            let (host, rest) = hosts[number - first..].split_first_mut().expect("it is one of the hosts");
            (hosts, first) = (rest, number + 1);
            let (time, me) = (host.clocks.read(self.now), host.peer);
            let process = host.process.as_mut().expect("it is ready");
            turns.push((at, Mutex::new(Turn { process, time, me, done: Vec::new() })));
        }
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some((_, turn)) = turns.get(next.fetch_add(1, Ordering::Relaxed)) {
                turn.lock().expect("nobody else has it").take();
            }
        };
        if threads > 1 && turns.len() > 1 {
            thread::scope(|scope| {
                (1..threads).for_each(|_| drop(scope.spawn(work)));
                work();
            });
        } else {
            work();
        }
        turns.sort_by_key(|(at, _)| *at);
        turns.into_iter().map(|(_, turn)| turn.into_inner().expect("all have ended").done).collect()
    }

    /// Whether the process is up, nothing holds it up, and something has come.
    fn is_ready(&mut self, number: usize, boot: u64) -> bool {
        let now = self.now;
        let Some(process) = self.process(number, boot).filter(|process| !process.inbox.is_empty()) else {
            return false;
        };
        let until = process.busy_until;
        if until > now {
            self.plan(until, Event::Resume(number, boot));
        }
        until <= now
    }

    fn carry_out_of(&mut self, number: usize, boot: u64, done: Done) {
        // It may have died of the one before.
        let Some(process) = self.process(number, boot) else { return };
        process.draining |= done.drains;
        self.counts.inputs += 1;
        self.carry_out(number, done.outputs);
    }

    fn rest(&mut self, number: usize, boot: u64) {
        if let Some(process) = self.process(number, boot) {
            process.is_handling = false;
        }
    }

    fn set_alarm(&mut self, number: usize, boot: u64) {
        let host = &mut self.hosts[number];
        let Some(process) = host.process.as_mut().filter(|process| process.boot == boot) else { return };
        let wanted = process.kernel.next_wake();
        if process.wake.map(|(mono, _)| mono) == wanted {
            return;
        }
        let at = wanted.map(|mono| (mono, host.clocks.when(mono)));
        process.wake = at;
        if let Some((mono, at)) = at {
            self.plan(at, Event::Wake(number, boot, mono));
        }
    }
}
