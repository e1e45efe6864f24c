//! Who runs here: one actor that owns every task's future, takes orders and passes reports on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinError, JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::cgroup::{self, Cgroups};
use super::engine;
use super::images::Images;
use super::ledger::{Book, Ledger, Start};
use super::run::{self, Ended, Host, Phase, Progress, Strings, wall_ms};
use super::{Capabilities, Isolation, Order, Outcome, Ran, Retire, Settings, places, reconcile};
use crate::kernel::id::TaskId;
use crate::kernel::io::Report;
use crate::kernel::task::Fence;

/// Orders that wait to be taken.
const ORDERS: usize = 64;
/// Reports that wait for the daemon.
const REPORTS: usize = 64;
/// Reports that wait for room in that channel; no news of what runs is taken while there are more. Words are always
/// taken: who gives them may wait for an answer before it reads reports again. Their ends are as many as the orders
/// that the daemon has given, which has a slot for each.
const BACKLOG: usize = 256;

/// The runner room could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("making the work directory {0}: {1}; give the node one that it can write (data_dir, work_dir)")]
    Make(PathBuf, #[source] io::Error),
    #[error("clearing the work directory {0} of what an earlier node left: {1}")]
    Clear(PathBuf, #[source] io::Error),
    #[error("reading what an earlier node had started here: {0}")]
    Ledger(String),
}

/// What an earlier life of the node had started and not ended, as its ledger says, and what of it cannot be taken away
/// yet, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    pub start: Start,
    pub left: Vec<String>,
}

/// The supervisor is gone: the node shuts down.
#[derive(Debug, thiserror::Error)]
#[error("telling the runner: it has shut down")]
pub struct Closed;

/// A task that is here now.
#[derive(Debug, Clone)]
pub struct Running {
    pub task: TaskId,
    pub fence: Fence,
    /// What people call the repository, and the workflow's path in it.
    pub repository: String,
    pub path: String,
    /// What executes it: `act`, `actions-runner` or `command`.
    pub executor: String,
    pub isolation: Isolation,
    pub elapsed: Duration,
    pub phase: Phase,
    /// `job/step` that was heard of last.
    pub step: Option<String>,
    /// What cannot be taken away of it, and why; for [`Phase::Left`].
    pub left: Vec<String>,
}

/// Gives orders; clones speak to the same supervisor.
#[derive(Debug, Clone)]
pub struct Handle {
    orders: mpsc::Sender<Word>,
    capabilities: Arc<Capabilities>,
}

enum Word {
    Start(Box<Order>),
    Stop(TaskId, Fence),
    Retire(TaskId, Fence, oneshot::Sender<Retire>),
    Running(oneshot::Sender<Vec<Running>>),
    Shutdown,
}

impl Handle {
    /// Starts a task; its report follows. An order for a task and fence that is here already is ignored.
    ///
    /// # Errors
    /// [`Closed`] after a shutdown.
    pub async fn start(&self, order: Order) -> Result<(), Closed> {
        self.send(Word::Start(Box::new(order))).await
    }

    /// Stops a task, whatever it does; its end follows when nothing of it is left: that it was stopped, or an end that
    /// came first. Where nothing is here, [`Report::Stopped`] follows at once.
    ///
    /// # Errors
    /// [`Closed`] after a shutdown.
    pub async fn stop(&self, task: TaskId, fence: Fence) -> Result<(), Closed> {
        self.send(Word::Stop(task, fence)).await
    }

    /// Stops GitHub's runner unless it has a job; its end follows. Delete its registration first: GitHub refuses that
    /// while a job is on its way to it.
    ///
    /// # Errors
    /// [`Closed`] after a shutdown.
    pub async fn retire(&self, task: TaskId, fence: Fence) -> Result<Retire, Closed> {
        let (answer, answered) = oneshot::channel();
        self.send(Word::Retire(task, fence, answer)).await?;
        // Nobody answers for one that has ended meanwhile.
        Ok(answered.await.unwrap_or(Retire::Unknown))
    }

    /// What is here now, in the order of task ids.
    ///
    /// # Errors
    /// [`Closed`] after a shutdown.
    pub async fn running(&self) -> Result<Vec<Running>, Closed> {
        let (answer, answered) = oneshot::channel();
        self.send(Word::Running(answer)).await?;
        answered.await.map_err(|_| Closed)
    }

    /// What this host can run, as found when the supervisor was opened.
    pub fn capabilities(&self) -> &Arc<Capabilities> {
        &self.capabilities
    }

    async fn send(&self, word: Word) -> Result<(), Closed> {
        self.orders.send(word).await.map_err(|_| Closed)
    }
}

/// Owns the runner's task. Dropping it stops everything without waiting.
#[derive(Debug)]
pub struct Supervisor {
    actor: JoinHandle<()>,
    handle: Handle,
    earlier: Vec<Earlier>,
}

impl Supervisor {
    /// Clears the work directory of what an earlier life left, processes first, tries what this host can run, and waits
    /// for orders. Only one node may use a work directory; who locks the data directory sees to that.
    ///
    /// # Errors
    /// When the work directory cannot be used.
    pub async fn open(settings: Settings) -> Result<(Self, mpsc::Receiver<Ran>), OpenError> {
        let mut settings = settings;
        let given = settings.work_root.clone();
        let cleared = spawn_blocking(move || clear(&given)).await;
        settings.work_root =
            cleared.map_err(|error| OpenError::Clear(settings.work_root.clone(), io::Error::other(error)))??;
        let earlier = settle_earlier(&settings.ledger).await?;
        let capabilities = Capabilities::probe(&settings).await;
        let cgroups = capabilities.cgroup.as_ref().ok().map(|base| Cgroups::new(base.clone(), &settings.work_root));
        let mark = engine::node_mark(&settings.work_root);
        if let Ok(engine) = &capabilities.engine {
            for stuck in engine.sweep(&format!("{mark}-")).await {
                tracing::warn!("taking away what an earlier node left at the container engine: {stuck}");
            }
        }
        let shared = Arc::new(capabilities.clone());
        let (orders, inbox) = mpsc::channel(ORDERS);
        let (reports, outbox) = mpsc::channel(REPORTS);
        let (herald, news) = mpsc::channel(REPORTS);
        let actor = Actor {
            host: Arc::new(Host {
                images: Images::new(settings.ledger.clone()),
                settings,
                capabilities,
                cgroups,
                mark,
            }),
            inbox,
            herald,
            news,
            reports,
            here: BTreeMap::new(),
            owed: earlier.iter().filter(|one| !one.left.is_empty()).map(Owed::of).collect(),
            tasks: JoinSet::new(),
            names: BTreeMap::new(),
            backlog: VecDeque::new(),
            rounds: JoinSet::new(),
        };
        let actor = tokio::spawn(actor.work());
        Ok((Self { actor, handle: Handle { orders, capabilities: shared }, earlier }, outbox))
    }

    /// What an earlier life had under way when it ended.
    pub fn earlier(&self) -> &[Earlier] {
        &self.earlier
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Stops all tasks and waits until they are gone, at most this long; says whether they were. Keep reading reports
    /// meanwhile, since those of the stopped tasks come, or drop what they come by: it waits until they are taken.
    pub async fn shutdown(mut self, patience: Duration) -> bool {
        let gone = async {
            let _ = self.handle.orders.send(Word::Shutdown).await;
            let _ = (&mut self.actor).await;
        };
        timeout(patience, gone).await.is_ok()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // The tasks' futures go with it, and with each the pipe that its reaper waits on.
        self.actor.abort();
    }
}

/// Makes the work directory, kills what still runs in it, and empties it. Gives its real path.
fn clear(work_root: &Path) -> Result<PathBuf, OpenError> {
    let make = |error| OpenError::Make(work_root.to_owned(), error);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(work_root).map_err(make)?;
    let work_root = std::fs::canonicalize(work_root).map_err(make)?;
    if let Some(base) = cgroup::base() {
        for stuck in Cgroups::new(base, &work_root).sweep() {
            tracing::warn!(%stuck, "ending what an earlier node left in a control group");
        }
    }
    reconcile::kill_at_home(&work_root);
    let stuck = places::sweep(&work_root).map_err(|error| OpenError::Clear(work_root.clone(), error))?;
    for (path, error) in stuck {
        tracing::warn!(path = %path.display(), %error, "removing what an earlier node left: remove it yourself");
    }
    Ok(work_root)
}

/// Undoes every record of the ledger: no order is here yet.
async fn settle_earlier(ledger: &Arc<dyn Ledger>) -> Result<Vec<Earlier>, OpenError> {
    let reading = ledger.clone();
    let records = spawn_blocking(move || reading.records(Book::Starts)).await;
    let records = records.map_err(|fault| fault.to_string()).flatten().map_err(OpenError::Ledger)?;
    let (mut earlier, mut silent) = (Vec::new(), BTreeSet::new());
    for (name, record) in records {
        match Start::read(&record) {
            Ok(start) => {
                let left = reconcile::settle(ledger, &name, &start, &mut silent, Duration::ZERO).await;
                earlier.push(Earlier { start, left });
            }
            // As of a later version: it is left for that one.
            Err(why) => tracing::warn!("the ledger's record {name} cannot be read: {why}"),
        }
    }
    Ok(earlier)
}

struct Actor {
    host: Arc<Host>,
    inbox: mpsc::Receiver<Word>,
    /// Between those who run and this actor.
    herald: mpsc::Sender<Ran>,
    news: mpsc::Receiver<Ran>,
    reports: mpsc::Sender<Ran>,
    here: BTreeMap<(TaskId, Fence), Here>,
    /// By their names: records of the ledger that no order here has. Those and `here` are all its records.
    owed: BTreeMap<String, Owed>,
    tasks: JoinSet<Ended>,
    names: BTreeMap<Id, (TaskId, Fence)>,
    backlog: VecDeque<Ran>,
    /// The present round: it looks, or it clears.
    rounds: JoinSet<Round>,
}

enum Round {
    /// The names that something on this host bears.
    Seen(BTreeSet<String>),
    /// What stays of those names, in words.
    Cleared(BTreeMap<String, Vec<String>>),
}

/// What is still to be taken away.
struct Owed {
    start: Start,
    left: Vec<String>,
}

impl Owed {
    fn of(earlier: &Earlier) -> (String, Self) {
        let Earlier { start, left } = earlier;
        (places::name(&start.task, &start.fence), Self { start: start.clone(), left: left.clone() })
    }
}

struct Here {
    start: Start,
    stop: watch::Sender<bool>,
    retire: mpsc::Sender<oneshot::Sender<Retire>>,
    /// What its end is called, should nobody else be able to say so.
    runner: Option<String>,
    progress: watch::Receiver<Progress>,
    began: Instant,
}

impl Actor {
    async fn work(mut self) {
        let reports = self.reports.clone();
        let mut closing = false;
        let mut round = interval(self.host.settings.round);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !closing || !self.tasks.is_empty() || !self.backlog.is_empty() {
            tokio::select! {
                word = self.inbox.recv(), if !closing => match word {
                    Some(Word::Start(order)) => self.on_start(*order),
                    Some(Word::Stop(task, fence)) => self.on_stop(task, fence),
                    Some(Word::Retire(task, fence, answer)) => self.on_retire(task, fence, answer),
                    Some(Word::Running(answer)) => drop(answer.send(self.snapshot())),
                    Some(Word::Shutdown) | None => closing = self.on_shutdown(),
                },
                Some(news) = self.news.recv(), if self.backlog.len() < BACKLOG => self.backlog.push_back(news),
                Some(done) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => self.on_done(done),
                _ = round.tick(), if !closing && self.rounds.is_empty() => {
                    let host = self.host.clone();
                    self.rounds.spawn(async move {
                        if let Ok(engine) = &host.capabilities.engine {
                            host.images.sweep(engine, &host.settings.images).await;
                        }
                        Round::Seen(reconcile::look(host).await)
                    });
                }
                Some(round) = self.rounds.join_next() => match round {
                    Ok(Round::Seen(seen)) => self.on_seen(seen),
                    Ok(Round::Cleared(left)) => self.on_cleared(left),
                    Err(fault) => tracing::warn!("a round was cut short: {fault}"),
                },
                permit = reports.reserve(), if !self.backlog.is_empty() => match permit {
                    Ok(permit) => if let Some(ran) = self.backlog.pop_front() { permit.send(ran) },
                    // Nobody wants to know any more.
                    Err(_) => {
                        self.backlog.clear();
                        closing = self.on_shutdown();
                    }
                },
            }
        }
    }

    fn on_start(&mut self, order: Order) {
        let name = (order.task, order.fence);
        if self.here.contains_key(&name) {
            tracing::warn!(?order, "an order for a task that is here already is ignored");
            return;
        }
        let (stop, stopped) = watch::channel(false);
        let (retire, asks) = mpsc::channel(1);
        let (progress, shown) = watch::channel(Progress { phase: Phase::Preparing, step: None });
        let runner = order.work.runner();
        let start = self.host.start(&order);
        let here = Here { start: start.clone(), stop, retire, runner, progress: shown, began: Instant::now() };
        self.here.insert(name, here);
        self.owed.remove(&places::name(&order.task, &order.fence));
        let strings = Strings { stop: stopped, retire: asks, progress, news: self.herald.clone() };
        let task = self.tasks.spawn(run::run(self.host.clone(), order, start, strings));
        self.names.insert(task.id(), name);
    }

    fn on_stop(&mut self, task: TaskId, fence: Fence) {
        match self.here.get(&(task, fence)) {
            Some(here) => drop(here.stop.send_replace(true)),
            None => self.backlog.push_back((task, fence, Outcome::Task(Report::Stopped))),
        }
    }

    fn on_retire(&self, task: TaskId, fence: Fence, answer: oneshot::Sender<Retire>) {
        let answer = match self.here.get(&(task, fence)) {
            Some(here) if here.runner.is_some() => match here.retire.try_send(answer) {
                Ok(()) => return,
                // Somebody has asked already and is about to be answered, or it is ending.
                Err(mpsc::error::TrySendError::Full(answer) | mpsc::error::TrySendError::Closed(answer)) => answer,
            },
            _ => answer,
        };
        // Who asked and went does not want to know.
        let _ = answer.send(Retire::Unknown);
    }

    fn on_shutdown(&mut self) -> bool {
        self.inbox.close();
        for here in self.here.values() {
            here.stop.send_replace(true);
        }
        true
    }

    fn on_done(&mut self, done: Result<(Id, Ended), JoinError>) {
        // What it said before its end comes before its end.
        while let Ok(news) = self.news.try_recv() {
            self.backlog.push_back(news);
        }
        let (id, ended) = match done {
            Ok((id, ended)) => (id, Some(ended)),
            Err(fault) => (fault.id(), None),
        };
        let Some((task, fence)) = self.names.remove(&id) else { return };
        let Some(here) = self.here.remove(&(task, fence)) else { return };
        let Ended { outcome, left } = ended.unwrap_or_else(|| {
            let why = "a fault in the runner; its log says more".to_owned();
            Ended { outcome: run::not_begun(here.runner, why.clone()), left: vec![why] }
        });
        if !left.is_empty() {
            let name = places::name(&task, &fence);
            tracing::warn!(%name, "what an order made stays, and is tried again: {}", left.join("; "));
            self.owed.insert(name, Owed { start: here.start, left });
        }
        self.backlog.push_back((task, fence, outcome));
    }

    /// Clears what bears a name that no order here has. What was listed before an order came cannot be that order's.
    fn on_seen(&mut self, seen: BTreeSet<String>) {
        let own: BTreeSet<String> = self.here.keys().map(|(task, fence)| places::name(task, fence)).collect();
        let named = seen.iter().chain(self.owed.keys()).filter(|name| !own.contains(*name));
        let record = |name: &String| (name.clone(), self.owed.get(name).map(|owed| owed.start.clone()));
        let nobodys: BTreeMap<String, Option<Start>> = named.map(record).collect();
        if !nobodys.is_empty() {
            let clear = reconcile::clear(self.host.clone(), nobodys);
            self.rounds.spawn(async { Round::Cleared(clear.await) });
        }
    }

    fn on_cleared(&mut self, cleared: BTreeMap<String, Vec<String>>) {
        for (name, left) in cleared {
            let Some(owed) = self.owed.get_mut(&name) else { continue };
            if left.is_empty() {
                tracing::info!(%name, "what an order had left is gone");
                self.owed.remove(&name);
            } else if owed.left != left {
                tracing::warn!(%name, "what an order made stays, and is tried again: {}", left.join("; "));
                owed.left = left;
            }
        }
    }

    fn snapshot(&self) -> Vec<Running> {
        let show = |here: &Here| {
            let progress = here.progress.borrow().clone();
            let elapsed = here.began.elapsed();
            running(&here.start, elapsed, progress)
        };
        let left = self.owed.values().map(|owed| {
            let elapsed = Duration::from_millis(wall_ms().saturating_sub(owed.start.at_ms));
            let progress = Progress { phase: Phase::Left, step: None };
            Running { left: owed.left.clone(), ..running(&owed.start, elapsed, progress) }
        });
        self.here.values().map(show).chain(left).collect()
    }
}

fn running(start: &Start, elapsed: Duration, progress: Progress) -> Running {
    Running {
        task: start.task,
        fence: start.fence,
        repository: start.repository.clone(),
        path: start.path.clone(),
        executor: start.executor.clone(),
        isolation: start.isolation,
        elapsed,
        phase: progress.phase,
        step: progress.step,
        left: Vec::new(),
    }
}
