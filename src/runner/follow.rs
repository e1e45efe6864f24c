//! Following what runs: its lines, its time, the order to stop, until everything of it is gone.

use std::future::{Future, pending, ready};
use std::io;
use std::process::ExitStatus;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep_until};

use super::act;
use super::cgroup::Cgroup;
use super::engine::{Boxed, Contained};
use super::lines::{Line, Lines};
use super::log::{self, Log};
use super::process::{Invocation, Stream, Supervised};
use super::run::{Host, Phase, Progress};

/// How long a stopped family of processes may take before its reaper is killed too. The reaper gives up after 10 s.
const STOP: Duration = Duration::from_secs(15);
/// How long output may still come after the last process is gone.
const DRAIN: Duration = Duration::from_secs(5);

/// One order on its way: what everything that runs has.
pub(crate) struct Stage {
    pub(crate) host: Arc<Host>,
    pub(crate) log: Log,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) began: Instant,
    pub(crate) deadline: Instant,
    /// Where one can be made.
    pub(crate) cgroup: Option<Cgroup>,
    /// What to say when the deadline comes.
    pub(crate) limit: String,
}

impl Stage {
    /// Milliseconds since the order came.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn phase(&self, phase: Phase) {
        self.progress.send_modify(|progress| progress.phase = phase);
    }
}

/// Why something was ended before it ended itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cut {
    Stopped,
    /// With a sentence on which limit it met.
    TimedOut(String),
    /// With a sentence on why nothing was lost by it.
    Retired(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Output,
    Errors,
}

/// Who understands what a program says.
pub(crate) trait Ear: Send {
    /// What else can happen than lines.
    type Other: Send;

    /// It was started.
    fn begun(&mut self) -> impl Future<Output = ()> + Send {
        ready(())
    }

    /// A line of its output.
    fn hear(&mut self, stage: &mut Stage, line: Line, source: Source) -> impl Future<Output = ()> + Send;

    /// The first limit besides the order's own.
    fn limit(&self) -> Option<(Instant, Cut)>;

    /// Waits for something else than a line. Cancel safe.
    fn other(&mut self) -> impl Future<Output = Self::Other> + Send;

    /// Something else happened; perhaps it ends the run.
    fn on_other(&mut self, stage: &mut Stage, other: Self::Other) -> impl Future<Output = Option<Cut>> + Send;
}

/// A program and all that it starts.
enum Family {
    /// Below a reaper of this host.
    Processes(Supervised),
    /// In a container.
    Container(Contained),
}

impl Family {
    async fn start(stage: &Stage, what: &Invocation, boxed: Option<&Boxed>) -> io::Result<(Self, Stream, Stream)> {
        if let Some(boxed) = boxed {
            let (contained, output, errors) = Contained::start(what, boxed).await?;
            return Ok((Self::Container(contained), output, errors));
        }
        let group = stage.cgroup.as_ref().map(Cgroup::path);
        let (family, output, errors) = Supervised::start(&stage.host.settings.program, what, group)?;
        Ok((Self::Processes(family), output, errors))
    }

    async fn stop(&mut self) {
        match self {
            Self::Processes(family) => family.stop(),
            Self::Container(family) => family.stop().await,
        }
    }

    async fn kill(&mut self) {
        match self {
            Self::Processes(family) => family.kill(),
            Self::Container(family) => family.stop().await,
        }
    }

    async fn ended(&mut self) -> io::Result<ExitStatus> {
        match self {
            Self::Processes(family) => family.ended().await,
            Self::Container(family) => family.ended().await,
        }
    }
}

/// Starts it and stays with it until everything of it is gone. Why it was ended, if it was, and how it ended.
///
/// # Errors
/// The inner one when it was started and how it ended cannot be known, the outer one when it was not.
pub(crate) async fn start(
    stage: &mut Stage,
    ear: &mut impl Ear,
    what: &Invocation,
    boxed: Option<&Boxed>,
) -> io::Result<(Option<Cut>, io::Result<ExitStatus>)> {
    let (mut family, output, errors) = Family::start(stage, what, boxed).await?;
    ear.begun().await;
    let (mut output, mut errors) = (Some(Lines::new(output, act::LINE)), Some(Lines::new(errors, act::LINE)));
    let (mut cut, mut status) = (None, None);
    let (mut give_up, mut drain, mut flush) = (None, None, None);
    while status.is_none() || output.is_some() || errors.is_some() {
        let goes_on = cut.is_none() && status.is_none();
        let (next, why) = match ear.limit() {
            Some((when, why)) if when < stage.deadline => (when, why),
            _ => (stage.deadline, Cut::TimedOut(stage.limit.clone())),
        };
        tokio::select! {
            biased;
            () = told(&mut stage.stop), if goes_on => cut = Some(Cut::Stopped),
            other = ear.other(), if goes_on => cut = ear.on_other(stage, other).await,
            () = sleep_until(next), if goes_on => cut = Some(why),
            () = until(give_up), if status.is_none() => {
                tracing::error!("a reaper did not end its task in time and is killed; processes may be left");
                family.kill().await;
                give_up = None;
            }
            () = until(drain) => break,
            () = until(flush) => {
                stage.log.flush().await;
                flush = None;
            }
            ended = family.ended(), if status.is_none() => {
                status = Some(ended);
                drain = Some(Instant::now() + DRAIN);
            }
            line = next_line(&mut output) => match line {
                Some(line) => ear.hear(stage, line, Source::Output).await,
                None => output = None,
            },
            line = next_line(&mut errors) => match line {
                Some(line) => ear.hear(stage, line, Source::Errors).await,
                None => errors = None,
            },
        }
        if cut.is_some() && status.is_none() && give_up.is_none() && drain.is_none() {
            stage.phase(Phase::Ending);
            family.stop().await;
            give_up = Some(Instant::now() + STOP);
        }
        if flush.is_none() && stage.log.is_dirty() {
            flush = Some(Instant::now() + log::FLUSH);
        }
    }
    Ok((cut, status.unwrap_or_else(|| Err(io::Error::other("it ended unseen")))))
}

async fn next_line(lines: &mut Option<Lines<Stream>>) -> Option<Line> {
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
pub(crate) async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
