//! How work is executed on this host: the backends and their supervisor.
//!
//! Owns the work directories, the processes of every task that runs here, and their logs while they are written.
//!
//! Promises
//! - Each [`Order`] is answered by exactly one end, after nothing of the task runs any more and its work directory is
//!   gone. "Nothing" includes processes that made their own session: see [`reaper`].
//! - That holds as well when the node is killed with SIGKILL: each task hangs on a pipe that the node holds, and what an
//!   order makes is in the [`Ledger`] before it is made.
//! - A workflow counts as successful only if every job that its [`Plan`] expects, matrix legs included, reported so.
//! - A job sees none of the node's environment and, inside bubblewrap, none of its files but the system's programs.
//!
//! Leaves to others: what to run (kernel), what GitHub knows of its runners and their registrations (forge, through the
//! daemon), the repository's content (the order's [`Checkout`]), reading workflow files
//! (the workflow room, from which the daemon fills a [`Plan`]), how many tasks run at once (the kernel counts slots).
//!
//! What a workflow finds here
//! - It is run by `act` in host mode (0.2.89 is what this was built against), so `act` must be on PATH or be named in
//!   [`Settings::act`]. Of the host, act itself needs nothing: it carries git, and `actions/checkout` of the repository
//!   itself is a copy of the checkout. A step needs its shell (`bash`, else `sh`), a JavaScript action needs `node`, and
//!   a remote action the network. All are looked for in [`Settings::path`].
//! - `runs-on` is honoured by the labels of [`Settings::labels`]: by default `self-hosted`, the system (`linux`), the
//!   architecture (`x64`, `arm64`), `gpu` with `cuda` or `rocm` where such devices are, and on Linux also `ubuntu-latest`, because that is what nearly every workflow says and
//!   almost none depends on. Whoever wants other words (`ubuntu-24.04`, `gpu`), or not that one, says so in the settings.
//! - The network is the host's ([`Network::Host`]), loopback included: most workflows fetch something. What listens on
//!   this host's loopback without authentication can be reached by jobs; [`Network::None`] shuts them in.
//! - Nothing is kept between tasks but images, not even downloaded actions and tools: act's cache is in the task's own home,
//!   or a volume of the task's own, and goes with it. In a shared folder one repository's job could change the action that
//!   another's runs next. Of images those that were fetched for tasks have a quota and an age ([`ImageKeeping`]).
//! - `actions/upload-artifact` and `download-artifact` of version 4 work within the run; the uploads are moved to
//!   [`Workflow::artifacts`] when it has finished.
//! - With [`Isolation::None`] a job runs as the node's user and can read and kill whatever that user can. Only for
//!   sources that the operator trusts as herself.

pub mod reaper;

mod act;
mod artifacts;
mod backend;
mod capabilities;
mod cgroup;
mod command;
mod devices;
mod disk;
mod engine;
mod follow;
mod github;
mod images;
mod install;
mod ledger;
mod lines;
mod log;
mod order;
mod outcome;
mod payload;
mod places;
mod plan;
mod process;
mod procfs;
mod reconcile;
mod run;
mod secret;
mod supervisor;
mod tally;
mod workflow;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

pub use self::artifacts::ArtifactLimits;
pub use self::capabilities::{Act, ActionsRunner, Capabilities};
pub use self::devices::Devices;
pub use self::disk::Disk;
pub use self::engine::{Engine, Limits};
pub use self::images::ImageKeeping;
pub use self::ledger::{AtEngine, Book, InMemory, Ledger, Start};
pub use self::order::{Checkout, Command, GithubRunner, Order, Work, Workflow};
pub use self::outcome::{Outcome, Ran, Retire, RunnerEnd, RunnerEnding, RunnerExit, RunnerNews, SeenJob};
pub use self::plan::{Plan, PlannedJob, refuse};
pub use self::run::Phase;
pub use self::secret::{Secret, SecretSource};
pub use self::supervisor::{Closed, Earlier, Handle, OpenError, Running, Supervisor};

/// The image that act's authors made to resemble GitHub's hosted runners, in its middle size.
pub const DEFAULT_IMAGE: &str = "docker.io/catthehacker/ubuntu:act-latest";

/// How the runner room works on this host. What is not said by the operator comes from [`Settings::new`].
#[derive(Debug, Clone)]
pub struct Settings {
    /// A directory that the runner room owns: each task has a directory in it while it runs.
    pub work_root: PathBuf,
    /// The `runmesh` program, for its `reap` subcommand. `/proc/self/exe`, which also works after an upgrade replaced
    /// the file, except in tests.
    pub program: PathBuf,
    /// The `act` program; looked for on the node's PATH when not given.
    pub act: Option<PathBuf>,
    /// GitHub's own runner as GitHub gives it away: the archive `actions-runner-….tar.gz`, or a directory that it was
    /// unpacked to.
    pub actions_runner: Option<PathBuf>,
    /// The labels that `runs-on` may ask for, lower case.
    pub labels: BTreeSet<String>,
    pub network: Network,
    /// PATH of the jobs.
    pub path: String,
    /// More variables for the jobs, such as `RUSTUP_HOME`.
    pub env: BTreeMap<String, String>,
    /// More paths that jobs in a sandbox see, read-only, under their own names. `/usr` and `/opt` are always seen.
    pub binds: Vec<PathBuf>,
    /// Device files that a job in a sandbox sees, if its `runs-on` asks for `gpu`, `cuda` or `rocm`.
    pub devices: Vec<PathBuf>,
    /// Paths that must stay invisible in a sandbox although they lie below one that is seen: the node's data directory.
    pub hidden: Vec<PathBuf>,
    /// The socket of a container engine, Docker or Podman; looked for where not given.
    pub engine: Option<PathBuf>,
    /// The image that jobs run in which name none, in a container.
    pub image: String,
    /// Whether images that are not on this host may be fetched.
    pub pull: bool,
    /// How much of what was fetched is kept.
    pub images: ImageKeeping,
    /// What a container gets of this host at most.
    pub limits: Limits,
    /// Whether a runner takes jobs of pull requests from forks; GitHub may give it one that was not meant for it.
    pub fork_pull_requests: bool,
    /// Whether each task gets a control group of its own, where one can be made.
    pub cgroups: bool,
    /// Between two looks for what no order owns.
    pub round: Duration,
    /// The most bytes of one task's log.
    pub log_cap: u64,
    /// Where it is on disk what was started here.
    pub ledger: Arc<dyn Ledger>,
    /// What one task may upload at most.
    pub artifacts: ArtifactLimits,
}

impl Settings {
    /// The defaults, with this directory for the work.
    pub fn new(work_root: PathBuf) -> Self {
        Self {
            work_root,
            program: PathBuf::from("/proc/self/exe"),
            act: None,
            actions_runner: None,
            labels: default_labels(),
            network: Network::Host,
            path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            env: BTreeMap::new(),
            binds: Vec::new(),
            devices: Devices::find(Path::new("/")).files,
            hidden: Vec::new(),
            engine: None,
            image: DEFAULT_IMAGE.to_owned(),
            pull: false,
            images: ImageKeeping::default(),
            limits: Limits::default(),
            fork_pull_requests: false,
            cgroups: true,
            round: Duration::from_secs(60),
            log_cap: 64 * 1024 * 1024,
            ledger: Arc::new(InMemory::default()),
            artifacts: ArtifactLimits::default(),
        }
    }
}

/// The labels that a host offers when its operator names none: what it is, and what devices it has.
pub fn default_labels() -> BTreeSet<String> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    };
    let ubuntu = cfg!(target_os = "linux").then_some("ubuntu-latest");
    let own = ["self-hosted", std::env::consts::OS, arch].into_iter().chain(ubuntu).map(str::to_owned);
    own.chain(Devices::find(Path::new("/")).labels).collect()
}

/// What stands between a job and the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isolation {
    /// Containers of an engine; act itself, which only asks for them, is in a bubblewrap sandbox where one can be made.
    Container,
    /// A bubblewrap sandbox.
    Bwrap,
    /// Nothing: the job runs as the node's user.
    None,
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Container => "container",
            Self::Bwrap => "bwrap",
            Self::None => "none",
        })
    }
}

impl FromStr for Isolation {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "container" => Ok(Self::Container),
            "bwrap" => Ok(Self::Bwrap),
            "none" => Ok(Self::None),
            _ => Err(format!("`{word}` is not an isolation: say `container`, `bwrap` or `none`")),
        }
    }
}

/// What a sandboxed job reaches over the network. Without a sandbox it is always the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    Host,
    None,
}
