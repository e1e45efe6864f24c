//! The node's end of a reaper: a program whose whole family ends when this value goes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::io::AsyncRead;
use tokio::process::{Child, ChildStdin, Command};

use super::reaper;

/// What a program writes.
pub(crate) type Stream = Box<dyn AsyncRead + Send + Unpin>;

/// A program with all that it is started with; nothing is inherited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invocation {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: BTreeMap<OsString, OsString>,
    pub(crate) directory: PathBuf,
    /// A file that it finds on its standard input; nothing where none is said.
    pub(crate) input: Option<PathBuf>,
}

/// A started [`Invocation`] under a reaper. Dropping it stops it too, without waiting.
pub(crate) struct Supervised {
    child: Child,
    /// While it is open the program may run.
    leash: Option<ChildStdin>,
}

impl Supervised {
    /// Starts it through the `reap` subcommand of the program `runmesh`, in a control group if one is given.
    ///
    /// # Errors
    /// When `runmesh` cannot be started. That the program itself cannot be shows in the exit status.
    pub(crate) fn start(runmesh: &Path, what: &Invocation, group: Option<&Path>) -> io::Result<(Self, Stream, Stream)> {
        let mut command = Command::new(runmesh);
        command.arg("reap");
        if let Some(group) = group {
            command.arg(reaper::GROUP).arg(group);
        }
        if let Some(input) = &what.input {
            command.arg(reaper::INPUT).arg(input);
        }
        command.arg("--").arg(&what.program).args(&what.arguments);
        command.env_clear().envs(&what.environment).current_dir(&what.directory);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let missing = || io::Error::other("a pipe to the reaper is missing");
        let leash = Some(child.stdin.take().ok_or_else(missing)?);
        let output = child.stdout.take().ok_or_else(missing)?;
        let errors = child.stderr.take().ok_or_else(missing)?;
        Ok((Self { child, leash }, Box::new(output), Box::new(errors)))
    }

    /// Tells the reaper to kill everything; [`Self::ended`] then comes.
    pub(crate) fn stop(&mut self) {
        self.leash = None;
    }

    /// Kills the reaper itself, for the case that it does not answer.
    pub(crate) fn kill(&mut self) {
        self.leash = None;
        // Gone already is what was wanted.
        let _ = self.child.start_kill();
    }

    /// Waits until the program and all that it started are gone. Cancel safe.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        // Not `Child::wait`, which closes standard input first: that is the leash, and it was taken out above.
        self.child.wait().await
    }
}
