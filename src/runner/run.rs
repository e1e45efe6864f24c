//! The life of one order on this host: a directory, the work, and everything gone again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::cgroup::Cgroups;
use super::follow::Stage;
use super::images::Images;
use super::ledger::{AtEngine, Book, Start};
use super::log::Log;
use super::places::{self, Places};
use super::workflow::not_started;
use super::{
    Capabilities, Isolation, Order, Outcome, Ran, Retire, RunnerEnd, RunnerEnding, Settings, Work, Workflow, command,
    github, reconcile, workflow,
};
use crate::kernel::io::Report;

/// How long an order that has ended waits for the container engine to have taken away what it was told to. Own choice:
/// Podman takes a second at most; later the rounds see to it ([`reconcile`]).
const GO: Duration = Duration::from_secs(10);

/// Where something stands here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its directory and checkout are being made.
    Preparing,
    /// GitHub's runner is there and has no job yet.
    Waiting,
    /// A workflow or a job runs.
    Running,
    /// Its processes are being ended, or its directory removed.
    Ending,
    /// Its order has ended, and something of it cannot be taken away yet.
    Left,
}

impl Phase {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Ending => "stopping",
            Self::Left => "left",
        }
    }
}

/// What people can see of a task that runs.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    pub(crate) phase: Phase,
    /// `job/step` of the last line.
    pub(crate) step: Option<String>,
}

/// What all tasks of this host share.
pub(crate) struct Host {
    pub(crate) settings: Settings,
    pub(crate) capabilities: Capabilities,
    pub(crate) cgroups: Option<Cgroups>,
    pub(crate) images: Arc<Images>,
    /// What everything of this node at a container engine is known by.
    pub(crate) mark: String,
}

impl Host {
    /// What an order that is taken now will make here, by name.
    pub(crate) fn start(&self, order: &Order) -> Start {
        let name = places::name(&order.task, &order.fence);
        let engine = self.capabilities.engine.as_ref().ok().filter(|_| order.isolation == Isolation::Container);
        let at_engine =
            |engine: &super::Engine| AtEngine { socket: engine.socket.clone(), mark: format!("{}-{name}", self.mark) };
        Start {
            task: order.task,
            fence: order.fence,
            repository: order.repository.clone(),
            path: order.path.clone(),
            executor: order.work.word().to_owned(),
            isolation: order.isolation,
            at_ms: wall_ms(),
            directory: self.settings.work_root.join(&name),
            cgroup: self.cgroups.as_ref().map(|groups| groups.path(&name)),
            engine: engine.map(at_engine),
        }
    }
}

/// Milliseconds since 1970.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How the supervisor speaks with an order that runs.
pub(crate) struct Strings {
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) retire: mpsc::Receiver<oneshot::Sender<Retire>>,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) news: mpsc::Sender<Ran>,
}

/// How an order ended, and what could not be taken away of it, in words.
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) left: Vec<String>,
}

/// Runs an order to its end. When this returns, nothing of it runs any more, and its traces are gone or told of. It is in the
/// ledger, as `start`, before any is made.
pub(crate) async fn run(host: Arc<Host>, order: Order, start: Start, strings: Strings) -> Ended {
    let name = places::name(&order.task, &order.fence);
    let (ledger, record, name_too) = (host.settings.ledger.clone(), start.record(), name.clone());
    let entered = spawn_blocking(move || ledger.enter(Book::Starts, &name_too, &record?)).await;
    if let Err(why) = entered.map_err(|fault| fault.to_string()).flatten() {
        let outcome = not_begun(order.work.runner(), format!("noting what is to be started: {why}"));
        // It may be on disk nevertheless.
        return Ended { outcome, left: vec![why] };
    }
    let outcome = carry_out(host.clone(), order, strings).await;
    let left = reconcile::settle(&host.settings.ledger, &name, &start, &mut BTreeSet::new(), GO).await;
    Ended { outcome, left }
}

async fn carry_out(host: Arc<Host>, order: Order, strings: Strings) -> Outcome {
    let began = Instant::now();
    let Order { task, fence, repository, path, isolation, log: log_path, time_limit, work } = order;
    let Strings { stop, retire, progress, news } = strings;
    let runner = work.runner();
    let fail = |why: String| not_begun(runner, why);
    let mut log = match Log::create(&log_path, host.settings.log_cap).await {
        Ok(log) => log,
        Err(error) => return fail(format!("opening the log {}: {error}", log_path.display())),
    };
    let mark = format!("{}-{}", host.mark, places::name(&task, &fence));
    log.note(&match &work {
        Work::Workflow(Workflow { workload, .. }) => {
            let (commit, attempt) = (&workload.commit, fence.attempt);
            format!("{path} of {repository} at {commit}, attempt {attempt}, isolation {isolation}")
        }
        Work::Command(_) => format!("the operator's program for {path} of {repository}, isolation {isolation}"),
        Work::GithubRunner(runner) => {
            format!("GitHub's runner {} for {path} of {repository}, isolation {isolation}", runner.name)
        }
    })
    .await;
    let _used = match (&host.capabilities.engine, isolation) {
        (Ok(engine), Isolation::Container) => Some(host.images.using(engine, &host.settings.image).await),
        _ => None,
    };
    let host_too = host.clone();
    let made = spawn_blocking(move || Places::make(&host_too.settings.work_root, &task, &fence)).await;
    let outcome = match made.map_err(std::io::Error::other).flatten() {
        Err(error) => fail(format!("making a directory to work in: {error}")),
        Ok(places) => {
            let limit = format!("it ran longer than its time limit of {} s", time_limit.as_secs_f32());
            let deadline = began + time_limit;
            let cgroup = host.cgroups.as_ref().and_then(|groups| {
                let made = groups.make(&places::name(&task, &fence));
                made.inspect_err(|error| tracing::warn!(%error, "making a control group: it goes without")).ok()
            });
            let mut stage = Stage { host, log, stop, progress, began, deadline, cgroup, limit };
            let outcome = match work {
                Work::Workflow(work) => {
                    let run = workflow::run(&mut stage, (task, fence), isolation, work, &places, &mark);
                    Outcome::Task(run.await)
                }
                Work::Command(work) => Outcome::Task(command::run(&mut stage, isolation, work, &places, &mark).await),
                Work::GithubRunner(work) => {
                    let news = github::Herald::new((task, fence), news);
                    Outcome::Runner(github::run(&mut stage, isolation, work, &places, retire, news, &mark).await)
                }
            };
            stage.phase(Phase::Ending);
            log = stage.log;
            outcome
        }
    };
    let outcome = unsaid(outcome, &log);
    log.note(&sentence(&outcome)).await;
    log.flush().await;
    outcome
}

/// The end without the secrets that a program's own words may hold: it goes to all nodes.
fn unsaid(outcome: Outcome, log: &Log) -> Outcome {
    match outcome {
        Outcome::Task(Report::Finished { conclusion, duration_ms, note }) => {
            Outcome::Task(Report::Finished { conclusion, duration_ms, note: log.masked(&note) })
        }
        Outcome::Task(Report::NotStarted { why }) => Outcome::Task(Report::NotStarted { why: log.masked(&why) }),
        other => other,
    }
}

/// The end of an order that did not get as far as to start anything; `runner` is the name of GitHub's runner.
pub(crate) fn not_begun(runner: Option<String>, why: String) -> Outcome {
    let Some(name) = runner else { return Outcome::Task(not_started(why)) };
    let how = RunnerEnding::NotStarted;
    Outcome::Runner(RunnerEnd { name, how, job: None, job_completed: false, duration_ms: 0, note: why })
}

fn sentence(outcome: &Outcome) -> String {
    let seconds = |ms: &u64| format!("{}.{} s", ms / 1000, ms % 1000 / 100);
    let more = |note: &String| if note.is_empty() { String::new() } else { format!(": {note}") };
    match outcome {
        Outcome::Task(Report::Finished { conclusion, duration_ms, note }) => {
            format!("{} after {}{}", conclusion.word(), seconds(duration_ms), more(note))
        }
        Outcome::Task(Report::NotStarted { why }) => format!("not started: {why}"),
        Outcome::Task(Report::Stopped) => "stopped".to_owned(),
        Outcome::Task(Report::Declined { why }) => format!("declined: {why}"),
        Outcome::Task(Report::GivenBack { why, .. }) => format!("given back: {why}"),
        Outcome::News(news) => format!("{news:?}"),
        Outcome::Runner(RunnerEnd { how, duration_ms, note, .. }) => {
            let how = match how {
                RunnerEnding::NotStarted => "not started".to_owned(),
                RunnerEnding::Exited(exit) => format!("the runner ended ({exit})"),
                RunnerEnding::Stopped => "stopped".to_owned(),
                RunnerEnding::Retired => "retired".to_owned(),
                RunnerEnding::TimedOut => "timed out".to_owned(),
            };
            format!("{how} after {}{}", seconds(duration_ms), more(note))
        }
    }
}
