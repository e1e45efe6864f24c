//! `runmesh doctor`: whether this host has what a node needs, found out by trying, and what to do where it has not.

mod github;
mod home;
mod work;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use tokio::process::Command;

use super::args::Output;
use super::failure::Failure;
use super::screen::{Cell, Paint, Screen, count, say, say_json};
use super::settings::{Executor, Isolation, NodeSettings, Place};
use crate::control::proto::Status;
use crate::control::{Client, ControlError};
use crate::forge::Spec;
use crate::runner::{Capabilities, Disk, Settings};

/// How long a program may take to say its version.
const PROBE: Duration = Duration::from_secs(10);

/// One thing that a node needs.
#[derive(Debug, Serialize)]
struct Check {
    what: &'static str,
    /// Why a node needs it.
    #[serde(rename = "for")]
    purpose: &'static str,
    ok: bool,
    /// What was found; else what is wrong and what to do.
    found: String,
}

impl Check {
    fn new(what: &'static str, purpose: &'static str, found: Result<String, String>) -> Self {
        Self { what, purpose, ok: found.is_ok(), found: found.unwrap_or_else(|wrong| wrong) }
    }
}

/// Checks this host. Exit status 1 when something is missing.
pub(super) async fn run(place: &Place, settings: &NodeSettings) -> Result<(), Failure> {
    let mut asked = Settings::new(std::env::temp_dir());
    asked.act.clone_from(&settings.act);
    asked.actions_runner.clone_from(&settings.actions_runner);
    let work = settings.work.settings(settings.executor == Executor::Command);
    asked.engine.clone_from(&work.engine);
    asked.labels = settings.offered(asked.labels);
    let runner = Capabilities::probe(&asked).await;
    let runs = settings.executor == Executor::Act && settings.max_runners > 0;
    let unless = |found: Result<String, String>, needed: bool| match found {
        Err(_) if !needed => Ok("not found, and not needed by these settings".to_owned()),
        found => found,
    };
    let act = runner.act.map(|act| format!("{}, {}", act.version, act.path.display()));
    let own = settings.executor == Executor::Command && settings.max_runners > 0;
    let engine = runner.engine.map(|engine| format!("{}, {}", engine.version, engine.socket.display()));
    let github = runner.runner.map(|runner| format!("version {}", runner.version));
    let scales = settings.autoscaler.settings().is_some() && settings.max_runners > 0;
    let mut checks = vec![
        Check::new("git", "reading repositories", git().await),
        Check::new("act", "running workflows", unless(act, runs)),
        Check::new(
            "bubblewrap",
            "keeping tasks away from this host",
            unless(runner.bwrap, (runs || own) && settings.isolation == Isolation::Bwrap),
        ),
        Check::new(
            "container engine",
            "jobs in containers, services",
            unless(engine, (runs || own) && settings.isolation == Isolation::Container),
        ),
        Check::new(
            "GitHub's runner",
            "jobs that GitHub queues",
            unless(github, scales || settings.actions_runner.is_some()),
        ),
    ];
    if own {
        let found = work::command(&work.command, settings.isolation, &asked.path);
        checks.push(Check::new("command", "executing tasks", found));
    }
    if runs && !work.secrets.is_empty() {
        checks.push(Check::new("secrets", "workflows that use them", work::secrets(&work.secrets)));
    }
    if settings.sources.iter().any(|spec| matches!(spec, Spec::Git(_))) {
        checks.push(Check::new("repositories", "sources on this host", work::repositories(&settings.sources).await));
    }
    checks.extend([
        Check::new("killing", "ending all that a task started", Ok(killing(&runner.cgroup))),
        Check::new("labels", "what runs-on may ask of it", Ok(labels(&runner.labels))),
        Check::new("data directory", "identity, database, logs", home::looked_at(&place.data_dir)),
        Check::new("disk", "room to work", room(place, work.work_dir.as_deref(), work.min_free)),
    ]);
    checks.extend(github::checks(settings).await);
    checks.push(Check::new("node", "everything else", node(place).await));
    match place.output {
        Output::Json => say_json(&checks, false)?,
        Output::Table => say(&table(Screen::stdout(), &checks))?,
    }
    match checks.iter().filter(|check| !check.ok).count() {
        0 => Ok(()),
        missing => Err(Failure::failed(format!("{} of {} not in order", missing, count(checks.len(), "check")))
            .hint("the table says what to do; with `executor = \"none\"` neither act nor bubblewrap is needed")),
    }
}

fn table(screen: Screen, checks: &[Check]) -> String {
    let row = |check: &Check| {
        let (paint, word) = if check.ok { (Paint::Good, "ok") } else { (Paint::Bad, "missing") };
        [Cell::painted(paint, word), check.what.into(), check.purpose.into(), check.found.as_str().into()]
    };
    screen.table(["", "what", "for", "found"], checks.iter().map(row).collect(), &["", "what"])
}

fn labels(own: &BTreeSet<String>) -> String {
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    format!("{}; more with --label", own.join(", "))
}

/// Both ways do; a control group also when a task's reaper was killed.
fn killing(cgroup: &Result<PathBuf, String>) -> String {
    match cgroup {
        Ok(base) => format!("by control group, below {}, and by subreaper", base.display()),
        Err(why) => format!("by subreaper; no control group: {why}"),
    }
}

async fn git() -> Result<String, String> {
    let mut command = Command::new("git");
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PROBE, command.output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        Ok(Ok(output)) => Err(format!("`git --version` ended with {}; install git anew", output.status)),
        Ok(Err(error)) => Err(format!("`git` does not start ({error}); install it, and see that it is on PATH")),
        Err(_) => Err(format!("`git --version` took longer than {} s", PROBE.as_secs())),
    }
}

/// Whether tasks have room: in the work directory, which is the data directory where none is named.
fn room(place: &Place, work_dir: Option<&Path>, floor: Option<u64>) -> Result<String, String> {
    let mut found = Vec::new();
    for (what, path) in [("data directory", Some(place.data_dir.as_path())), ("work directory", work_dir)] {
        let Some(path) = path else { continue };
        // It is made at the first start.
        let there = path.ancestors().find(|path| path.exists()).unwrap_or(path);
        if !there.is_dir() {
            return Err(format!("{} is no directory: name another {what}", there.display()));
        }
        if let Err(error) = rustix::fs::access(there, rustix::fs::Access::WRITE_OK) {
            return Err(format!("{} cannot be written: {error}; name another {what}", there.display()));
        }
        let disk = Disk::of(there).map_err(|error| format!("asking for the room in {}: {error}", there.display()))?;
        // As /proc: the system makes what is there, and nobody else does.
        if disk.size == 0 && there != path {
            return Err(format!("{} cannot be made in {}: name another {what}", path.display(), there.display()));
        }
        if let Some(shortage) = disk.shortage(what, floor) {
            return Err(shortage);
        }
        found.push(format!("{} MiB free in {}", disk.free >> 20, path.display()));
    }
    Ok(found.join(", "))
}

/// That none runs is in order: it can be started.
async fn node(place: &Place) -> Result<String, String> {
    let status = match Client::connect(&place.data_dir).await {
        Ok(client) => client.status().await,
        Err(ControlError::NoNode { .. }) => {
            return Ok(format!("not running; start it with `runmesh node run{}`", place.flag()));
        }
        Err(error) => Err(error),
    };
    let shown = |status: Status| {
        let running = format!("running as process {}, version {}", status.pid, status.version);
        match (status.draining, status.cordoned) {
            (true, _) => format!("{running}; draining: it takes nothing new and ends"),
            (false, Some(cordoned)) => {
                format!("{running}; cordoned ({}): `runmesh node uncordon` lets it take tasks", cordoned.why)
            }
            (false, None) => running,
        }
    };
    status.map(shown).map_err(|error| error.to_string())
}

/// Several answers to one question. All that is wrong is told, not the first alone.
#[derive(Default)]
struct Found {
    well: Vec<String>,
    wrong: Vec<String>,
}

impl Found {
    fn take(&mut self, answer: Result<String, impl Display>) {
        match answer {
            Ok(found) => self.well.push(found),
            Err(error) => self.wrong.push(error.to_string()),
        }
    }

    fn tell(self) -> Result<String, String> {
        if self.wrong.is_empty() { Ok(self.well.join(", ")) } else { Err(self.wrong.join("; ")) }
    }
}
