//! From the loss of a task's holder to the next claim, beside serf's news of a lost member.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::Outcome;
use super::measure::median;
use super::processes::{Mesh, PATIENCE, Process, free_port};
use super::report::{Goal, Row};

const NODES: usize = 5;
/// How often each loss is tried.
const TIMES: usize = 5;
/// The same for serf, which takes longer.
const TIMES_SERF: usize = 3;
/// How long a task would run, in seconds: longer than anything here takes.
const TASK_S: u32 = 600;

/// How a holder is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// Killed: the system closes its connections.
    Close,
    /// Stopped: it says nothing any more.
    Silence,
}

impl Loss {
    fn signal(self) -> &'static str {
        match self {
            Self::Close => "KILL",
            Self::Silence => "STOP",
        }
    }
}

pub(crate) fn takeover() -> Outcome<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let dir = tempfile::tempdir()?;
    let mut rows = Vec::new();
    for (name, loss, goal) in [("failover_close_s", Loss::Close, 1.0), ("failover_silence_s", Loss::Silence, 4.0)] {
        let ours = median(runtime.block_on(ours(loss))?);
        let row = Row::alone(name, "s", Goal::AtMost(goal), ours);
        rows.push(match Serf::of(&dir.path().join(name)).and_then(|mut serf| serf.losses(loss)) {
            Ok(taken) => row.against("serf: the first member-failed, no claim", median(taken)),
            Err(error) => row.without(&format!("serf: {error}")),
        });
    }
    Ok(rows)
}

/// How long each takeover took, in seconds.
async fn ours(loss: Loss) -> Outcome<Vec<f64>> {
    let mut mesh = Mesh::of(NODES, TASK_S).await?;
    let mut taken = Vec::new();
    for n in 0..TIMES {
        let task = mesh.submit(n % NODES, format!("failover-{n}")).await?;
        let held = mesh.next("the claim", |seen| seen.is("held", &task)).await?;
        let holder = held.event.peer.clone().and_then(|peer| mesh.number_of(&peer)).ok_or("a strange holder")?;
        // All others have heard that it runs there.
        super::processes::until("the run", async || {
            for node in &mesh.nodes {
                let tasks = node.client.tasks(&task, &[]).await.ok()?;
                tasks.first().filter(|task| task.state == "running")?;
            }
            Some(())
        })
        .await?;
        let began = Instant::now();
        mesh.nodes[holder].process().signal(loss.signal())?;
        let again = mesh.next("the takeover", |seen| {
            seen.node != holder && seen.is("held", &task) && seen.event.attempt == Some(2)
        });
        taken.push((again.await?.at - began).as_secs_f64());
        match loss {
            Loss::Close => mesh.start_again(holder).await?,
            Loss::Silence => {
                mesh.nodes[holder].process().signal("CONT")?;
                mesh.whole().await?;
            }
        }
        mesh.nodes[(holder + 1) % NODES].client.cancel(&task, "measured").await?;
        mesh.next("the end", |seen| seen.node == holder && seen.is("ended", &task)).await?;
    }
    Ok(taken)
}

/// Agents of serf with its default settings for one network.
struct Serf {
    agents: Vec<Agent>,
}

struct Agent {
    process: Process,
    arguments: Vec<String>,
    rpc: String,
    log: PathBuf,
}

impl Serf {
    fn of(dir: &Path) -> Outcome<Self> {
        fs::create_dir_all(dir)?;
        let mut serf = Self { agents: Vec::new() };
        let mut first = None;
        for n in 0..NODES {
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
    fn whole(&self) -> Outcome<()> {
        wait("a whole serf cluster", || {
            let sees_all = |agent: &Agent| {
                let output = Command::new("serf")
                    .args(["members", "-status=alive", &format!("-rpc-addr={}", agent.rpc)])
                    .output();
                output.is_ok_and(|output| output.stdout.iter().filter(|byte| **byte == b'\n').count() == NODES)
            };
            self.agents.iter().all(sees_all).then_some(())
        })
    }

    /// How long it took until the first other agent said so, in seconds.
    fn losses(&mut self, loss: Loss) -> Outcome<Vec<f64>> {
        let mut taken = Vec::new();
        for n in 0..TIMES_SERF {
            let lost = 1 + n % (NODES - 1);
            let word = format!("EventMemberFailed: n{lost} ");
            let said = |agent: &Agent| fs::read_to_string(&agent.log).map_or(0, |log| log.matches(&word).count());
            let before: Vec<usize> = self.agents.iter().map(said).collect();
            let began = Instant::now();
            self.agents[lost].process.signal(loss.signal())?;
            wait("serf's news", || {
                self.agents.iter().zip(&before).any(|(agent, before)| said(agent) > *before).then_some(())
            })?;
            taken.push(began.elapsed().as_secs_f64());
            let agent = &mut self.agents[lost];
            match loss {
                Loss::Close => agent.process = Self::start(&agent.arguments, &agent.log)?,
                Loss::Silence => agent.process.signal("CONT")?,
            }
            self.whole()?;
        }
        Ok(taken)
    }
}

fn wait(what: &str, mut look: impl FnMut() -> Option<()>) -> Outcome<()> {
    let began = Instant::now();
    while look().is_none() {
        if began.elapsed() > PATIENCE {
            return Err(format!("{what} did not come about").into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
