//! The rival that detects failures: agents of serf on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::Outcome;
use super::processes::{PATIENCE, Process, free_port};

/// Agents of serf with its default settings for one network.
pub(crate) struct Serf {
    pub(crate) agents: Vec<Agent>,
}

pub(crate) struct Agent {
    pub(crate) process: Process,
    arguments: Vec<String>,
    rpc: String,
    log: PathBuf,
}

impl Serf {
    /// So many agents that all see each other.
    pub(crate) fn of(count: usize, dir: &Path) -> Outcome<Self> {
        fs::create_dir_all(dir)?;
        let mut serf = Self { agents: Vec::new() };
        let mut first = None;
        for n in 0..count {
            let (bind, rpc) = (format!("127.0.0.1:{}", free_port()?), format!("127.0.0.1:{}", free_port()?));
            let mut arguments =
                vec!["agent".to_owned(), format!("-node=n{n}"), format!("-bind={bind}"), format!("-rpc-addr={rpc}")];
            if let Some(first) = &first {
                arguments.push(format!("-retry-join={first}"));
            }
            first.get_or_insert(bind);
            let log = dir.join(format!("{n}.log"));
            serf.agents.push(Agent { process: Self::start(&arguments, &log)?, arguments, rpc, log });
        }
        serf.whole()?;
        Ok(serf)
    }

    fn start(arguments: &[String], log: &Path) -> Outcome<Process> {
        Process::start("serf", &arguments.iter().map(String::as_str).collect::<Vec<_>>(), log)
    }

    /// Waits until all agents see all alive.
    pub(crate) fn whole(&self) -> Outcome<()> {
        wait("a whole serf cluster", || {
            let sees_all = |agent: &Agent| {
                let output = Command::new("serf")
                    .args(["members", "-status=alive", &format!("-rpc-addr={}", agent.rpc)])
                    .output();
                output.is_ok_and(|output| {
                    output.stdout.iter().filter(|byte| **byte == b'\n').count() == self.agents.len()
                })
            };
            self.agents.iter().all(sees_all).then_some(())
        })
    }

    /// Starts a killed agent again.
    pub(crate) fn start_again(&mut self, number: usize) -> Outcome<()> {
        let agent = &mut self.agents[number];
        agent.process = Self::start(&agent.arguments, &agent.log)?;
        Ok(())
    }

    /// How often each agent has said that this one has failed.
    pub(crate) fn failures_of(&self, number: usize) -> Vec<usize> {
        let word = format!("EventMemberFailed: n{number} ");
        let said = |agent: &Agent| fs::read_to_string(&agent.log).map_or(0, |log| log.matches(&word).count());
        self.agents.iter().map(said).collect()
    }
}

/// Looks again and again until there is something.
pub(crate) fn wait(what: &str, mut look: impl FnMut() -> Option<()>) -> Outcome<()> {
    let began = Instant::now();
    while look().is_none() {
        if began.elapsed() > PATIENCE {
            return Err(format!("{what} did not come about").into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
