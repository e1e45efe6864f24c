//! The life of one task on this host: directory, checkout, act, conclusion, and everything gone again.

use std::collections::BTreeMap;
use std::future::pending;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use super::act::{self, JobLine, Leg, Said};
use super::lines::{Line, Lines};
use super::log::{self, Log};
use super::places::Places;
use super::plan::Plan;
use super::process::{Invocation, Supervised};
use super::tally::{Change, Tally, clip};
use super::{Capabilities, Devices, Order, Settings, backend, payload, reaper, refuse};
use crate::kernel::entry::MAX_NOTE;
use crate::kernel::io::Report;
use crate::kernel::task::{Conclusion, Workload};

/// How long a stopped family of processes may take before its reaper is killed too. The reaper gives up after 10 s.
const STOP: Duration = Duration::from_secs(15);
/// How long output may still come after the last process is gone.
const DRAIN: Duration = Duration::from_secs(5);

/// Where a task stands here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its directory and checkout are being made.
    Preparing,
    /// act runs.
    Running,
    /// Its processes are being ended, or its directory removed.
    Ending,
}

impl Phase {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Running => "running",
            Self::Ending => "stopping",
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
}

/// Runs a task to its end. When this returns, nothing of it runs any more and its directory is gone.
pub(crate) async fn run(
    host: Arc<Host>,
    order: Order,
    stop: watch::Receiver<bool>,
    progress: watch::Sender<Progress>,
) -> Report {
    let began = Instant::now();
    let mut log = match Log::create(&order.log, host.settings.log_cap).await {
        Ok(log) => log,
        Err(error) => return not_started(format!("opening the log {}: {error}", order.log.display())),
    };
    let workload = order.workload.clone();
    let (repository, path, commit) = (&workload.repository.name, &workload.path, &workload.commit);
    let attempt = order.fence.attempt;
    log.note(&format!("{path} of {repository} at {commit}, attempt {attempt}, isolation {}", order.isolation)).await;
    let (task, fence) = (order.task, order.fence);
    let host_too = host.clone();
    let made = spawn_blocking(move || Places::make(&host_too.settings.work_root, &task, &fence)).await;
    let report = match made.map_err(std::io::Error::other).flatten() {
        Err(error) => not_started(format!("making a directory to work in: {error}")),
        Ok(places) => {
            let mut life = Life { host, log, stop, progress, deadline: began + order.time_limit, began };
            let report = life.live(order, &places).await;
            life.progress.send_modify(|progress| progress.phase = Phase::Ending);
            log = life.log;
            remove(places).await;
            report
        }
    };
    log.note(&sentence(&report)).await;
    log.flush().await;
    report
}

fn not_started(why: impl AsRef<str>) -> Report {
    Report::NotStarted { why: clip(why.as_ref(), MAX_NOTE) }
}

fn sentence(report: &Report) -> String {
    match report {
        Report::Finished { conclusion, duration_ms, note } => {
            let (seconds, tenths) = (duration_ms / 1000, duration_ms % 1000 / 100);
            let note = if note.is_empty() { String::new() } else { format!(": {note}") };
            format!("{} after {seconds}.{tenths} s{note}", conclusion.word())
        }
        Report::NotStarted { why } => format!("not started: {why}"),
        Report::Stopped => "stopped".to_owned(),
        Report::Declined { why } => format!("declined: {why}"),
        Report::GivenBack { why, .. } => format!("given back: {why}"),
    }
}

async fn remove(places: Places) {
    let removed = spawn_blocking(move || places.remove()).await;
    if let Err(error) = removed.map_err(std::io::Error::other).flatten() {
        tracing::warn!(%error, "removing a work directory: the next start of the node tries again");
    }
}

struct Life {
    host: Arc<Host>,
    log: Log,
    stop: watch::Receiver<bool>,
    progress: watch::Sender<Progress>,
    began: Instant,
    deadline: Instant,
}

/// Why a run was ended before act did.
enum Cut {
    Stopped,
    TimedOut(String),
}

impl Life {
    async fn live(&mut self, order: Order, places: &Places) -> Report {
        let Order { task, fence, workload, isolation, time_limit, checkout, log: _ } = order;
        if let Some(missing) = self.host.capabilities.missing(isolation).first() {
            return not_started(missing);
        }
        let checkout = checkout(places.checkout.clone());
        let plan = tokio::select! {
            biased;
            () = told(&mut self.stop) => return Report::Stopped,
            () = sleep_until(self.deadline) => {
                return not_started(format!("the checkout took longer than the time limit of {time_limit:?}"));
            }
            made = checkout => match made {
                Ok(plan) => plan,
                Err(why) => return not_started(format!("checking out: {why}")),
            },
        };
        if let Some(why) = refuse(&plan, &self.host.capabilities) {
            return Report::Declined { why: clip(&why, MAX_NOTE) };
        }
        let Ok(act) = &self.host.capabilities.act else { return Report::Declined { why: "act is missing".to_owned() } };
        let event = payload::event(&workload).to_string();
        if let Err(error) = tokio::fs::write(&places.event, event).await {
            return not_started(format!("writing the event: {error}"));
        }
        let backend = backend::of(isolation);
        let inside = backend.inside(places, &act.path);
        let labels = &self.host.capabilities.labels;
        let arguments = act::arguments(&inside, &workload, &task, &fence, labels);
        let mut settings = self.host.settings.clone();
        if !Devices::are_asked_for(&workload.labels) {
            settings.devices.clear();
        }
        let invocation = backend.confine(&settings, places, &act.path, arguments);
        self.watch(&workload, &plan, &invocation, time_limit).await
    }

    async fn watch(&mut self, workload: &Workload, plan: &Plan, what: &Invocation, time_limit: Duration) -> Report {
        let (mut family, output, errors) = match Supervised::start(&self.host.settings.program, what) {
            Ok(started) => started,
            Err(error) => return not_started(format!("starting the reaper: {error}")),
        };
        self.progress.send_modify(|progress| progress.phase = Phase::Running);
        let mut run = Run {
            plan,
            tally: Tally::new(workload, plan),
            output: Some(Lines::new(output, act::LINE)),
            errors: Some(Lines::new(errors, act::LINE)),
            timers: BTreeMap::new(),
            last_words: String::new(),
        };
        let limit = format!("it ran longer than its time limit of {} s", time_limit.as_secs_f32());
        let (cut, status) = self.follow(&mut run, &mut family, limit).await;
        let status = match status {
            Ok(status) => status,
            Err(error) => return not_started(format!("waiting for the reaper: {error}")),
        };
        let duration_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match cut {
            Some(Cut::Stopped) => Report::Stopped,
            Some(Cut::TimedOut(note)) => Report::Finished { conclusion: Conclusion::TimedOut, duration_ms, note },
            None => run.conclude(status, duration_ms),
        }
    }

    /// Reads, watches the time and the order to stop, until everything is gone.
    async fn follow(
        &mut self,
        run: &mut Run<'_>,
        family: &mut Supervised,
        limit: String,
    ) -> (Option<Cut>, std::io::Result<ExitStatus>) {
        let mut cut = None;
        let mut give_up = None;
        let mut status = None;
        let mut drain = None;
        let mut flush = None;
        while status.is_none() || run.output.is_some() || run.errors.is_some() {
            let (next, why) = run.next_timeout(self.deadline, &limit);
            tokio::select! {
                biased;
                () = told(&mut self.stop), if cut.is_none() && status.is_none() => cut = Some(Cut::Stopped),
                () = sleep_until(next), if cut.is_none() && status.is_none() => cut = Some(Cut::TimedOut(why)),
                () = until(give_up), if status.is_none() => {
                    tracing::error!("a reaper did not end its task in time and is killed; processes may be left");
                    family.kill();
                    give_up = None;
                }
                () = until(drain) => break,
                () = until(flush) => {
                    self.log.flush().await;
                    flush = None;
                }
                ended = family.ended(), if status.is_none() => {
                    status = Some(ended);
                    drain = Some(Instant::now() + DRAIN);
                }
                line = next_line(&mut run.output) => match line {
                    Some(line) => self.hear(run, &line, Source::Output).await,
                    None => run.output = None,
                },
                line = next_line(&mut run.errors) => match line {
                    Some(line) => self.hear(run, &line, Source::Errors).await,
                    None => run.errors = None,
                },
            }
            if cut.is_some() && status.is_none() && give_up.is_none() && drain.is_none() {
                self.progress.send_modify(|progress| progress.phase = Phase::Ending);
                family.stop();
                give_up = Some(Instant::now() + STOP);
            }
            if flush.is_none() && self.log.is_dirty() {
                flush = Some(Instant::now() + log::FLUSH);
            }
        }
        (cut, status.unwrap_or_else(|| Err(std::io::Error::other("it ended unseen"))))
    }

    async fn hear(&mut self, run: &mut Run<'_>, line: &Line, source: Source) {
        if line.cut {
            let limit = act::LINE;
            self.log.line(&format!("act: a line longer than {limit} bytes is not shown")).await;
            return;
        }
        match act::hear(&line.bytes) {
            Said::Debug => run.tally.own("", false),
            Said::Job(job) => {
                run.note(&job);
                if !job.debug || job.job_result.is_some() {
                    let step = job.step.as_deref().map(|step| format!("/{step}")).unwrap_or_default();
                    let at = format!("{}{step}", job.leg.short());
                    self.log.line(&format!("[{at}] {}", job.text)).await;
                    self.progress.send_if_modified(|progress| {
                        let changed = progress.step.as_ref() != Some(&at);
                        progress.step = Some(at);
                        changed
                    });
                }
            }
            Said::Own { text, severe } => {
                run.tally.own(&text, severe);
                // True of every run here, and no news: there is no engine, and what needs one was refused.
                if !text.starts_with("Couldn't get a valid docker connection") {
                    self.log.line(&format!("act: {text}")).await;
                }
            }
            Said::Plain(text) => {
                if source == Source::Errors {
                    run.tally.plain(&text);
                    run.last_words = clip(&text, MAX_NOTE);
                }
                self.log.line(&format!("act: {text}")).await;
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Output,
    Errors,
}

/// What is known of a running act.
struct Run<'a> {
    plan: &'a Plan,
    tally: Tally,
    /// `None` after its end.
    output: Option<Lines<ChildStdout>>,
    errors: Option<Lines<ChildStderr>>,
    /// When each running job with a `timeout-minutes` has had its time, and what to say then.
    timers: BTreeMap<Leg, (Instant, String)>,
    /// The last plain line on standard error: the reaper's or bwrap's, if act never spoke.
    last_words: String,
}

impl Run<'_> {
    /// act does not enforce a job's `timeout-minutes`, so the node does, from the moment the job begins.
    fn note(&mut self, line: &JobLine) {
        match self.tally.job(line) {
            Some(Change::Began(leg)) if self.tally.is_own(&leg) => {
                let timeout = self.plan.jobs.iter().find(|job| job.id == leg.id).and_then(|job| job.timeout);
                if let Some(timeout) = timeout {
                    let (name, seconds) = (leg.short(), timeout.as_secs_f32());
                    let why = format!("job `{name}` ran longer than its timeout-minutes ({seconds} s)");
                    self.timers.insert(leg, (Instant::now() + timeout, why));
                }
            }
            Some(Change::Ended(leg)) => drop(self.timers.remove(&leg)),
            Some(Change::Began(_)) | None => (),
        }
    }

    /// When the first limit is reached, and what to say then.
    fn next_timeout(&self, deadline: Instant, limit: &str) -> (Instant, String) {
        let first = self.timers.values().min_by_key(|(when, _)| *when);
        match first {
            Some((when, why)) if *when < deadline => (*when, why.clone()),
            _ => (deadline, limit.to_owned()),
        }
    }

    fn conclude(&self, status: ExitStatus, duration_ms: u64) -> Report {
        // Without a code the reaper itself was killed, and with it all that it held.
        let Some(code) = status.code().and_then(|code| u8::try_from(code).ok()) else {
            return not_started("somebody killed the task's reaper");
        };
        if code == reaper::STOPPED {
            return not_started("somebody told the task's reaper to stop");
        }
        if !self.tally.spoke() {
            let words = if self.last_words.is_empty() { "it did not say why" } else { &self.last_words };
            return not_started(format!("starting act: {words} (status {code})"));
        }
        let (conclusion, note) = self.tally.conclude(self.plan, code);
        Report::Finished { conclusion, duration_ms, note }
    }
}

async fn next_line<R: tokio::io::AsyncRead + Unpin>(lines: &mut Option<Lines<R>>) -> Option<Line> {
    match lines {
        Some(lines) => lines.next().await,
        None => pending().await,
    }
}

async fn until(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => pending().await,
    }
}

/// Comes when the task is to be stopped, also because nobody is left who could say so.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
