//! What the daemon hears: how things go, and how they ended.

use std::fmt;

use crate::kernel::id::TaskId;
use crate::kernel::io::Report;
use crate::kernel::task::Fence;

/// A word about an order: news as they come, then exactly one end.
pub type Ran = (TaskId, Fence, Outcome);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The end of a workflow: what the kernel is told.
    Task(Report),
    /// GitHub's runner goes on.
    News(RunnerNews),
    /// The end of GitHub's runner: nothing of it is left on this host.
    Runner(RunnerEnd),
}

/// What GitHub's runner does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunnerNews {
    /// Its process was started. It then registers its session and waits.
    Started,
    /// It begins a job, as its hook says.
    JobStarted(SeenJob),
    /// It has ended its job, as its hook says. What came of the job GitHub knows.
    JobCompleted,
}

/// A job by the words that GitHub's runner has for it. A hint: a step can forge them, so ask GitHub.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenJob {
    /// `owner/name`.
    pub repository: String,
    /// 0 where the hook did not say.
    pub run_id: u64,
    pub run_attempt: u32,
    /// The job's key in its workflow file.
    pub job: String,
}

/// How GitHub's runner ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerEnd {
    /// As GitHub knows it: its registration may still be listed there.
    pub name: String,
    pub how: RunnerEnding,
    /// The job it began, if its hook said so.
    pub job: Option<SeenJob>,
    /// Whether its hook said that the job's last step is done.
    pub job_completed: bool,
    /// Milliseconds from the order on.
    pub duration_ms: u64,
    /// More for people, empty where there is nothing to say.
    pub note: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunnerEnding {
    /// It could not be started; the note says why.
    NotStarted,
    /// It ended by itself.
    Exited(RunnerExit),
    /// It was told to stop.
    Stopped,
    /// It had no job: within its time, or when it was asked to retire.
    Retired,
    /// It met the order's time limit.
    TimedOut,
}

/// What the exit status of GitHub's runner means
/// (<https://github.com/actions/runner/blob/main/src/Runner.Common/Constants.cs>, `ReturnCode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunnerExit {
    /// 0. It does not prove that a job ran.
    Done,
    /// 1: something that another try would not help.
    Terminated,
    /// 2, also after it was started again: another try may help.
    Retryable,
    /// 3 and 4: GitHub wants a newer one, which it would have to download.
    Updating,
    /// 5: another runner has a session by this name.
    Conflict,
    /// 7: GitHub talks to this version no more.
    TooOld,
    /// Any other status.
    Status(u8),
    /// Somebody killed it.
    Killed,
}

impl RunnerExit {
    pub(crate) const fn of(status: u8) -> Self {
        match status {
            0 => Self::Done,
            1 => Self::Terminated,
            2 => Self::Retryable,
            3 | 4 => Self::Updating,
            5 => Self::Conflict,
            7 => Self::TooOld,
            other => Self::Status(other),
        }
    }
}

impl fmt::Display for RunnerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Terminated => f.write_str("terminated, and another try would not help"),
            Self::Retryable => f.write_str("failed, and another try may help"),
            Self::Updating => f.write_str("GitHub wants a newer runner: install it"),
            Self::Conflict => f.write_str("another runner has a session by this name"),
            Self::TooOld => f.write_str("GitHub talks to this runner's version no more: install a newer one"),
            Self::Status(status) => write!(f, "ended with status {status}"),
            Self::Killed => f.write_str("somebody killed it"),
        }
    }
}

/// What came of asking GitHub's runner to retire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retire {
    /// It goes; its end follows.
    Going,
    /// It has a job and stays.
    Busy,
    /// There is no such runner here.
    Unknown,
}
