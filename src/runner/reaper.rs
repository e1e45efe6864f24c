//! The small process that stands between the node and each task, `runmesh reap [--group DIR]
//! [--input FILE] -- PROGRAM ARGUMENTS`, and its promise:
//! when it is gone, everything that the program ever started is gone.
//!
//! - It adopts orphans (a child subreaper), so a process that makes its own session and lets its parent die is still its
//!   descendant. At the end it kills until it has no child left, and all that is in the program's control group, if it
//!   was given one.
//! - Standard input is a pipe that the node holds. A byte or the pipe's end, which also comes when the node is killed with
//!   SIGKILL, means: kill everything. So do SIGTERM, SIGINT, SIGHUP and SIGQUIT.
//! - It has a session of its own: ^C in the node's terminal does not reach it, and the task has no terminal.
//! - Should it be killed itself, the kernel kills the program (a parent-death signal, which follows the spawning thread:
//!   hence a process with one thread). bubblewrap dies of that with all that is inside; act's steps get SIGHUP.
//!
//! Exit status: the program's; 128 and the signal's number when a signal ended it; [`STOPPED`] when told to stop;
//! [`UNABLE`] when the program could not be started or something could not be killed, with a sentence on standard error.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal as Kill, WaitOptions, WaitStatus};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};

use super::{cgroup, procfs};

/// Told to stop, by a signal or by its standard input.
pub const STOPPED: u8 = 124;
/// Could not start the program, or could not end what it started.
pub const UNABLE: u8 = 125;

/// How long killed processes may take to be gone; one that waits for a disk can take a while.
const END: Duration = Duration::from_secs(10);
/// How long after a kill to look for processes that were forked meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// The word by which the reaper asks this program to start the task's program tied to it.
const TIE: &str = "--tie";
/// The word before the control group that the program shall run in.
pub(crate) const GROUP: &str = "--group";
/// The word before the file that the program finds on its standard input.
pub(crate) const INPUT: &str = "--input";
/// What stands for no control group.
const NONE: &str = "-";

/// The whole subcommand, given what follows `reap` on the command line.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let done = match arguments.split_first() {
        Some((word, program)) if word == TIE => Err(tie(program)),
        _ => Given::read(&arguments).and_then(|given| reap(&given)),
    };
    done.map_or_else(
        |why| {
            // Nobody reads it when the node is gone.
            let _ = writeln!(io::stderr(), "runmesh reap: {why}");
            ExitCode::from(UNABLE)
        },
        ExitCode::from,
    )
}

/// What is to be run, and with what.
struct Given<'a> {
    group: Option<&'a Path>,
    input: Option<&'a Path>,
    program: &'a [OsString],
}

impl<'a> Given<'a> {
    fn read(arguments: &'a [OsString]) -> Result<Self, String> {
        let (mut rest, mut group, mut input) = (arguments, None, None);
        loop {
            match rest {
                [word, program @ ..] if word == "--" && !program.is_empty() => {
                    return Ok(Self { group, input, program });
                }
                [word, path, more @ ..] if word == GROUP => (rest, group) = (more, Some(Path::new(path))),
                [word, path, more @ ..] if word == INPUT => (rest, input) = (more, Some(Path::new(path))),
                _ => return Err("started without `-- PROGRAM ARGUMENTS…`; only a node starts this".to_owned()),
            }
        }
    }
}

/// Becomes the program, to be killed when the parent dies. Returns only when that fails.
fn tie(arguments: &[OsString]) -> String {
    let [parent, group, program, rest @ ..] = arguments else {
        return "tying lacks its program".to_owned();
    };
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Kill::KILL)) {
        return format!("asking for a parent-death signal: {error}");
    }
    // The parent may have died before the kernel knew of it.
    let alive = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().to_string());
    if alive.as_deref() != parent.to_str() {
        return "the parent is gone".to_owned();
    }
    if group != NONE
        && let Err(error) = cgroup::enter(Path::new(group))
    {
        return format!("entering the control group {}: {error}", group.display());
    }
    let error = Command::new(program).args(rest).exec();
    format!("starting {}: {error}", program.display())
}

fn reap(given: &Given<'_>) -> Result<u8, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("preparing to wait: {error}"))?.block_on(async {
        // It is the leader of a group already when a shell with job control started it; the group is then its own too.
        let _ = rustix::process::setsid();
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| format!("asking to adopt orphans: {error}"))?;
        let deaf = |error| format!("listening for signals: {error}");
        let mut deaths = signal(SignalKind::child()).map_err(deaf)?;
        let mut stops = Stops::listen().map_err(deaf)?;
        let mut orders = orders().map_err(|error| format!("reading standard input, which must be a pipe: {error}"))?;
        let mut child = Child::start(given)?;
        let status = tokio::select! {
            status = child.ended(&mut deaths) => Some(status),
            () = stops.told() => None,
            _ = orders.read_u8() => None,
        };
        if !end_all(&mut deaths, given.group).await {
            return Err("some processes of the task could not be killed".to_owned());
        }
        Ok(status.map_or(STOPPED, exit_status))
    })
}

fn orders() -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)
}

/// The signals that mean: stop.
struct Stops([Signal; 4]);

impl Stops {
    fn listen() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let hangup = signal(SignalKind::hangup())?;
        let quit = signal(SignalKind::quit())?;
        Ok(Self([terminate, interrupt, hangup, quit]))
    }

    async fn told(&mut self) {
        let [terminate, interrupt, hangup, quit] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
            _ = hangup.recv() => (),
            _ = quit.recv() => (),
        }
    }
}

struct Child {
    pid: Pid,
}

impl Child {
    fn start(given: &Given<'_>) -> Result<Self, String> {
        let Given { group, input, program } = *given;
        let input = match input {
            None => Stdio::null(),
            Some(file) => File::open(file).map_err(|error| format!("opening {}: {error}", file.display()))?.into(),
        };
        // Through this program itself, because only the started process can ask to be tied to its parent.
        let own = rustix::process::getpid().as_raw_nonzero().to_string();
        let mut command = Command::new("/proc/self/exe");
        command.args(["reap", TIE, &own]).arg(group.unwrap_or(Path::new(NONE)));
        command.args(program).stdin(input);
        let child = command.spawn().map_err(|error| format!("starting {}: {error}", program[0].display()))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        Ok(Self { pid: pid.ok_or("the started process has no number")? })
    }

    async fn ended(&mut self, deaths: &mut Signal) -> WaitStatus {
        loop {
            if let Bury::Found(status) = bury(Some(self.pid)) {
                return status;
            }
            deaths.recv().await;
        }
    }
}

enum Bury {
    /// The one looked for has ended like this.
    Found(WaitStatus),
    /// Children are alive.
    Alive,
    /// There is no child left.
    Nobody,
}

/// Collects all children that have ended, orphans too, up to the one that is looked for.
fn bury(wanted: Option<Pid>) -> Bury {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if Some(pid) == wanted => return Bury::Found(status),
            Ok(Some(_)) | Err(Errno::INTR) => (),
            Ok(None) => return Bury::Alive,
            Err(_) => return Bury::Nobody,
        }
    }
}

/// Kills all descendants until there are none. Says whether that came true in time.
async fn end_all(deaths: &mut Signal, group: Option<&Path>) -> bool {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let deadline = Instant::now() + END;
    while !matches!(bury(None), Bury::Nobody) {
        if let Some(group) = group {
            cgroup::kill(group);
        }
        for process in procfs::descendants(own) {
            process.kill();
        }
        tokio::select! {
            _ = deaths.recv() => (),
            () = sleep(LOOK_AGAIN) => (),
            () = sleep_until(deadline) => return false,
        }
    }
    true
}

fn exit_status(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(UNABLE)
}
