//! Workers outside the node: programs on this host that ask for the next task and execute it themselves.
//!
//! A node that runs no tasks itself offers the mesh one slot for each worker that waits, and one for each task that a
//! worker has; so its claims go through election like all others. A claim is on disk before a worker hears of it. A
//! worker holds its task for a lease, which it renews; when the lease ends, or the ledger says that another claim holds,
//! the task is its no more, and what it then says of it is refused. Nothing here survives the node: after a restart it
//! gives back what its workers had, since the others have long heard that it does not run here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::chronicle::wall_ms;
use super::{Asker, Daemon};
use crate::control::{Answer, CompleteQuery, NextQuery, Refusal, TaskName, proto};
use crate::kernel::id::{Cid, TaskId};
use crate::kernel::io::{Input, Output, Report};
use crate::kernel::node::Standing;
use crate::kernel::task::{Fence, Products, ReleaseReason, State, Workload};

/// The most workers that wait at once, and the most tasks that workers have.
const MOST: usize = 1024;
/// Between two looks at which of the waiting workers are still there.
const LOOK: Duration = Duration::from_secs(1);

/// A worker that waits for a task.
struct Waiting {
    answer: Answer<proto::Assignment>,
    until: Instant,
    lease: Option<Duration>,
}

/// A task that a worker has.
struct Held {
    fence: Fence,
    workload: Arc<Workload>,
    since: Instant,
    since_ms: u64,
    lease: Duration,
    until: Instant,
}

#[derive(Default)]
pub(super) struct Workers {
    waiting: VecDeque<Waiting>,
    held: BTreeMap<TaskId, Held>,
    /// When it was last looked which of the waiting are still there.
    looked: Option<Instant>,
}

impl Workers {
    /// The slots that they make.
    pub(super) fn slots(&self) -> u32 {
        u32::try_from(self.waiting.len() + self.held.len()).unwrap_or(u32::MAX)
    }

    /// When to look at them again.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let look = self.looked.map(|looked| looked + LOOK);
        let waiting = self.waiting.iter().map(|waiting| look.map_or(waiting.until, |look| look.min(waiting.until)));
        waiting.chain(self.held.values().map(|held| held.until)).min()
    }
}

impl Daemon {
    /// Whether this node leaves execution to workers.
    pub(super) fn leaves_work_to_workers(&self) -> bool {
        self.settings.max_runners == 0
    }

    pub(super) fn on_next(&mut self, next: NextQuery, answer: Answer<proto::Assignment>) {
        let refusal = if !self.leaves_work_to_workers() {
            Some(Refusal::NotNow(
                "this node runs tasks itself; workers ask a node that was started with `--executor none`".to_owned(),
            ))
        } else if self.node.standing() != Standing::Active {
            Some(Refusal::NotNow(
                "this node takes no tasks now; `runmesh inspect status` says how it stands".to_owned(),
            ))
        } else if self.cordon.is_some() {
            Some(Refusal::NotNow("this node is cordoned: `runmesh node uncordon` lets it take tasks again".to_owned()))
        } else if self.workers.waiting.len() + self.workers.held.len() >= MOST {
            Some(Refusal::Unavailable(format!("{MOST} workers wait or work here already")))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            answer.send(Err(refusal));
            return;
        }
        let now = Instant::now();
        self.workers.looked.get_or_insert(now);
        self.workers.waiting.push_back(Waiting { answer, until: now + next.wait, lease: next.lease });
        self.feed(Input::Offer(self.offer()));
    }

    /// Gives a task that this node has claimed to the worker that has waited longest.
    pub(super) fn give_to_worker(&mut self, task: TaskId, fence: Fence, workload: Arc<Workload>) {
        while let Some(Waiting { answer, lease, .. }) = self.workers.waiting.pop_front() {
            if !answer.is_wanted() {
                continue;
            }
            let limit = Duration::from_secs(workload.time_limit_s.into());
            let lease = lease.map_or(limit, |lease| lease.min(limit));
            let (now, now_ms) = (Instant::now(), wall_ms());
            let held =
                Held { fence, workload: workload.clone(), since: now, since_ms: now_ms, lease, until: now + lease };
            self.workers.held.insert(task, held);
            answer.send(Ok(proto::Assignment {
                task: self.node.task(&task).map(|folded| self.task(&task, folded)),
                claim: fence.claim.to_string(),
                lease_until_ms: now_ms.saturating_add(ms(lease)),
                lease_for_ms: ms(lease),
            }));
            return;
        }
        let why = "the worker that it was for has gone".to_owned();
        self.slot_goes_with(task, fence, Report::GivenBack { reason: ReleaseReason::Draining, why });
    }

    /// Takes a task away from its worker, who hears of it when it next says something. `false` when none has it.
    pub(super) fn take_from_worker(&mut self, task: TaskId, fence: Fence) -> bool {
        let has = self.workers.held.get(&task).is_some_and(|held| held.fence == fence);
        if has {
            self.workers.held.remove(&task);
            self.slot_goes_with(task, fence, Report::Stopped);
        }
        has
    }

    /// Ends the waits and leases whose time has come.
    pub(super) fn look_at_workers(&mut self) {
        let now = Instant::now();
        self.workers.looked = Some(now);
        let before = self.workers.slots();
        for waiting in std::mem::take(&mut self.workers.waiting) {
            if !waiting.answer.is_wanted() {
            } else if waiting.until <= now {
                let why = "no task came in time that this host may run: `runmesh inspect queue` shows what waits";
                waiting.answer.send(Err(Refusal::TooLate(why.to_owned())));
            } else {
                self.workers.waiting.push_back(waiting);
            }
        }
        let over = self.workers.held.iter().filter(|(_, held)| held.until <= now);
        let over: Vec<(TaskId, Fence, Duration)> = over.map(|(task, held)| (*task, held.fence, held.lease)).collect();
        for (task, fence, lease) in over {
            self.workers.held.remove(&task);
            let why = format!("its worker was not heard of for {} s", lease.as_secs());
            self.slot_goes_with(task, fence, Report::GivenBack { reason: ReleaseReason::NotRunning, why });
        }
        if self.workers.slots() != before {
            self.feed(Input::Offer(self.offer()));
        }
    }

    /// Tells the kernel of a task that no worker has any more. The slot goes first: it was that worker's, and no other
    /// task may be claimed for it.
    fn slot_goes_with(&mut self, task: TaskId, fence: Fence, report: Report) {
        self.feed(Input::Offer(self.offer()));
        self.feed(Input::Ran { task, fence, report, products: Products::default() });
    }

    pub(super) fn on_keep(&mut self, name: &TaskName, claim: Option<Cid>, answer: Answer<proto::Lease>) {
        let kept = self.workers_task(name, claim).map(|task| {
            let held = self.workers.held.get_mut(&task);
            let lease = held.map_or(Duration::ZERO, |held| {
                held.until = Instant::now() + held.lease;
                held.lease
            });
            proto::Lease { id: task.to_string(), until_ms: wall_ms().saturating_add(ms(lease)) }
        });
        answer.send(kept);
    }

    pub(super) fn on_complete(&mut self, complete: CompleteQuery, answer: Answer<TaskId>) {
        let CompleteQuery { task: name, claim, conclusion, note } = complete;
        let task = match self.workers_task(&name, claim) {
            Ok(task) => task,
            Err(refusal) => return answer.send(Err(refusal)),
        };
        let Some(Held { fence, since, .. }) = self.workers.held.remove(&task) else { return };
        let report = Report::Finished { conclusion, duration_ms: ms(since.elapsed()), note };
        self.slot_goes_with(task, fence, report);
        // Carried out like an answer of the kernel's: once the result is on disk.
        let token = self.token();
        self.commands.insert(token, Asker::Task(answer));
        self.outputs.push(Output::Answer { token, answer: Ok(Some(task)) });
    }

    /// The task that a worker means, if it has it under a claim that holds.
    fn workers_task(&self, name: &TaskName, claim: Option<Cid>) -> Result<TaskId, Refusal> {
        let held: Vec<TaskId> = self.workers.held.keys().filter(|task| name.means(task)).copied().collect();
        let task = if held.len() == 1 { held[0] } else { self.find(name)? };
        let mine = self.workers.held.get(&task);
        let Some(folded) = self.node.task(&task) else {
            return Err(Refusal::NotFound(format!("no task {task} is known here")));
        };
        let holds = |fence: &Fence| match &folded.state {
            State::Claimed { holder, fence: held } => *holder == self.node.peer() && held == fence,
            _ => false,
        };
        match mine {
            Some(held) if holds(&held.fence) && claim.is_none_or(|claim| claim == held.fence.claim) => Ok(task),
            Some(held) if claim.is_some_and(|claim| claim != held.fence.claim) => Err(Refusal::NotNow(format!(
                "task {} was given to another worker since, under attempt {}: this claim does not hold any more",
                task.short(),
                held.fence.attempt
            ))),
            _ => Err(Refusal::NotNow(format!("no worker of this node has task {}: {}", task.short(), stands(folded)))),
        }
    }

    /// What workers do, as runners.
    pub(super) fn workers_list(&self) -> impl Iterator<Item = proto::Runner> {
        self.workers.held.iter().map(|(task, held)| proto::Runner {
            task: task.to_string(),
            repository: held.workload.repository.name.clone(),
            path: held.workload.path.clone(),
            attempt: held.fence.attempt,
            executor: "worker".to_owned(),
            isolation: "own".to_owned(),
            pid: None,
            state: "running".to_owned(),
            started_ms: held.since_ms,
            log: String::new(),
            note: String::new(),
        })
    }
}

/// How a task stands that a worker wrongly takes for its own.
fn stands(folded: &crate::kernel::ledger::Folded) -> String {
    let note = if folded.note.is_empty() { String::new() } else { format!(" ({})", folded.note) };
    match &folded.state {
        State::Pending => format!("it waits to be claimed{note}"),
        State::Claimed { holder, fence } => format!("{holder} holds it, attempt {}{note}", fence.attempt),
        State::Completed { conclusion, .. } => format!("it is completed: {}{note}", conclusion.word()),
        ended => format!("it is {}{note}", ended.word()),
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
