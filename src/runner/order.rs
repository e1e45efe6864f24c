//! What the daemon asks for: one thing to run now.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::{Isolation, Plan, Secret};
use crate::kernel::id::TaskId;
use crate::kernel::task::{Fence, Workload};

/// Something to run now. Task and fence are its name here: they are in every word of what becomes of it.
pub struct Order {
    pub task: TaskId,
    pub fence: Fence,
    /// For people: the repository or owner that it is for, and the workflow's path or the job in it.
    pub repository: String,
    pub path: String,
    pub isolation: Isolation,
    /// Where its output goes; an earlier file there is overwritten.
    pub log: PathBuf,
    /// How long it may run from now on, preparations included.
    pub time_limit: Duration,
    pub work: Work,
}

/// What is to run.
pub enum Work {
    /// A workflow file, by act. Ends with [`Outcome::Task`](super::Outcome::Task).
    Workflow(Workflow),
    /// GitHub's own runner, for one job. Ends with [`Outcome::Runner`](super::Outcome::Runner).
    GithubRunner(GithubRunner),
    /// The operator's own program. Ends with [`Outcome::Task`](super::Outcome::Task).
    Command(Command),
}

/// A workflow of the mesh.
pub struct Workflow {
    pub workload: Arc<Workload>,
    pub checkout: Checkout,
    /// By their names, upper case; of one that this host cannot read, why. They reach act by a file, and are masked in
    /// the log.
    pub secrets: BTreeMap<String, Result<Secret, String>>,
    /// The directory that its artifacts are moved to when it has finished, each as a file of its name; what is there is
    /// replaced. It is made where there are any, and must be of the work directory's file system.
    pub artifacts: PathBuf,
}

/// A task for the operator's own program.
pub struct Command {
    pub workload: Arc<Workload>,
    /// What it finds on its standard input.
    pub task: serde_json::Value,
    /// The program and its arguments. A program without a path is looked for in [`Settings::path`](super::Settings::path).
    pub program: Vec<String>,
    pub checkout: Checkout,
}

/// A runner that GitHub was told of with a just-in-time configuration: ephemeral, it takes one job and ends.
#[derive(Debug, Clone)]
pub struct GithubRunner {
    /// As GitHub knows it.
    pub name: String,
    /// GitHub's `encoded_jit_config`. It reaches the runner by its environment, never by an argument.
    pub jit: Secret,
    /// How long it may wait for a job before it is retired.
    pub idle: Duration,
    /// Whether a sandbox shows it the host's devices (its labels offer `gpu`, `cuda` or `rocm`).
    pub devices: bool,
}

/// Puts the task's commit into the given directory, which exists and is empty, and says which jobs to expect. An error
/// is a sentence of what failed; the attempt is then reported as not started. The future is dropped when the task is
/// stopped meanwhile, and must not leave a process running then.
pub type Checkout = Box<dyn FnOnce(PathBuf) -> BoxFuture<'static, Result<Plan, String>> + Send>;

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.work.word();
        write!(f, "Order({:?} {:?} {what} {} {})", self.task, self.fence, self.repository, self.path)
    }
}

impl Work {
    /// The name of GitHub's runner, where it is one.
    pub(crate) fn runner(&self) -> Option<String> {
        match self {
            Self::GithubRunner(runner) => Some(runner.name.clone()),
            Self::Workflow(_) | Self::Command(_) => None,
        }
    }

    /// What executes it, in a word.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Workflow(_) => "act",
            Self::GithubRunner(_) => "actions-runner",
            Self::Command(_) => "command",
        }
    }
}
