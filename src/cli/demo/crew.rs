//! The node processes: started, killed, stopped, and never left behind.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::super::failure::Failure;
use super::story::letter;

/// How long a node may take to stop in good order.
const STOP: Duration = Duration::from_secs(15);
/// How long a command such as `mesh invite` may take.
const COMMAND: Duration = Duration::from_secs(20);
/// How long to wait before looking again whether a process has ended.
const LOOK: Duration = Duration::from_millis(20);
/// How many of the last lines of a node's log are shown when it ends by itself.
const LAST_LINES: usize = 12;

/// What all nodes are started with.
#[derive(Debug)]
pub(super) struct Outfit {
    /// The `runmesh` program.
    pub(super) program: PathBuf,
    /// Where the data directories and logs go.
    pub(super) folder: PathBuf,
    /// More words for `node run`.
    pub(super) words: Vec<String>,
}

/// The node processes. Dropping it ends all of them.
#[derive(Debug)]
pub(super) struct Crew {
    outfit: Outfit,
    processes: Vec<Option<Child>>,
}

impl Crew {
    /// Nobody runs yet.
    pub(super) fn new(outfit: Outfit, nodes: usize) -> Self {
        Self { outfit, processes: (0..nodes).map(|_| None).collect() }
    }

    /// Where a node keeps its things.
    pub(super) fn data_dir(&self, node: usize) -> PathBuf {
        self.outfit.folder.join(format!("node-{}", letter(node).to_lowercase()))
    }

    /// Runs a `runmesh` command on a node's data directory and answers what it printed.
    ///
    /// # Errors
    /// Exit status 1 with what it said when it failed.
    pub(super) async fn command(&self, node: usize, words: &[&str]) -> Result<String, Failure> {
        let name = format!("runmesh {}", words.iter().take(2).copied().collect::<Vec<_>>().join(" "));
        let mut command = tokio::process::Command::from(self.runmesh(node));
        command.args(words).stdin(Stdio::null()).kill_on_drop(true);
        let output = match tokio::time::timeout(COMMAND, command.output()).await {
            Ok(output) => output.map_err(|error| Failure::failed(format!("cannot start `{name}`")).because(&error))?,
            Err(_) => return Err(Failure::failed(format!("`{name}` took longer than {} s", COMMAND.as_secs()))),
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failure::failed(format!("`{name}` of node {} failed: {}", letter(node), said.trim())))
    }

    /// Starts a node that listens there.
    pub(super) fn start(&mut self, node: usize, listen: &[String]) -> Result<(), Failure> {
        let cannot = || format!("cannot start node {}", letter(node));
        let failed = |error: std::io::Error| Failure::failed(cannot()).because(&error);
        let log = File::options().create(true).append(true).open(self.log(node)).map_err(failed)?;
        let mut command = self.runmesh(node);
        command.args(["node", "run", "--stop-with-parent"]).args(&self.outfit.words);
        for address in listen {
            command.args(["--listen", address]);
        }
        // ^C in the terminal is for the demo alone, which then stops the nodes one by one. A node sees the end of its
        // standard input should the demo be killed.
        command.process_group(0).stdin(Stdio::piped()).stdout(log.try_clone().map_err(failed)?).stderr(log);
        self.processes[node] = Some(command.spawn().map_err(failed)?);
        Ok(())
    }

    /// Kills a node with SIGKILL: it can do nothing about it.
    pub(super) fn kill(&mut self, node: usize) -> Result<(), Failure> {
        let Some(mut process) = self.processes[node].take() else { return Ok(()) };
        let killed = process.kill().and_then(|()| process.wait());
        killed.map(drop).map_err(|error| Failure::failed(format!("cannot kill node {}", letter(node))).because(&error))
    }

    /// That every node which should run does.
    ///
    /// # Errors
    /// Exit status 1 with the last lines of the log of one that has ended.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        for node in 0..self.processes.len() {
            let ended = match &mut self.processes[node] {
                Some(process) => process.try_wait().ok().flatten(),
                None => None,
            };
            if let Some(status) = ended {
                self.processes[node] = None;
                return Err(self.ended_badly(node, status));
            }
        }
        Ok(())
    }

    /// Stops all nodes with SIGTERM, as an operator would.
    ///
    /// # Errors
    /// Exit status 1 when one does not stop in time or ends with another status than 0.
    pub(super) async fn stop(&mut self) -> Result<(), Failure> {
        self.terminate();
        let deadline = Instant::now() + STOP;
        for node in 0..self.processes.len() {
            let Some(mut process) = self.processes[node].take() else { continue };
            let status = loop {
                let status = process.try_wait();
                match status.map_err(|error| Failure::failed("cannot wait for a node").because(&error))? {
                    Some(status) => break status,
                    None if Instant::now() < deadline => tokio::time::sleep(LOOK).await,
                    None => {
                        self.processes[node] = Some(process);
                        let late = format!("node {} has not stopped {} s after SIGTERM", letter(node), STOP.as_secs());
                        return Err(Failure::failed(late));
                    }
                }
            };
            if !status.success() {
                return Err(self.ended_badly(node, status));
            }
        }
        Ok(())
    }

    fn terminate(&self) {
        for process in self.processes.iter().flatten() {
            if let Some(pid) = i32::try_from(process.id()).ok().and_then(Pid::from_raw) {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
    }

    fn log(&self, node: usize) -> PathBuf {
        self.outfit.folder.join(format!("node-{}.log", letter(node).to_lowercase()))
    }

    fn ended_badly(&self, node: usize, status: ExitStatus) -> Failure {
        let log = fs::read_to_string(self.log(node)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n    ");
        Failure::failed(format!("node {} ended with {status}; the end of its log:\n    {last}", letter(node)))
    }

    /// This program on a node's data directory, with nothing of the person's own settings.
    fn runmesh(&self, node: usize) -> Command {
        let mut command = Command::new(&self.outfit.program);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("RUNMESH_") && name != "RUNMESH_LOG") {
                command.env_remove(name);
            }
        }
        command.arg("--config").arg(settings_file(&self.outfit.folder));
        command.arg("--data-dir").arg(self.data_dir(node)).current_dir(&self.outfit.folder);
        command
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.terminate();
        let deadline = Instant::now() + STOP;
        for process in self.processes.iter_mut().flatten() {
            while matches!(process.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(LOOK);
            }
            // Nothing can be done about one that survives this, and its own children end when it does.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// An empty settings file, in place of the person's own.
pub(super) fn settings_file(folder: &Path) -> PathBuf {
    folder.join("settings.toml")
}
