//! From a job that is queued at GitHub to a runner that has started for it; how many hosts watching one queue start too
//! many, and what that costs in calls; and how long after a kill nothing of a runner is left. Against the fake GitHub, with a
//! stub in the place of GitHub's runner.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use runmesh::control::Client;

use super::Outcome;
use super::github::fake::jobs::Status;
use super::github::fake::world::Kind;
use super::github::fake::{Fake, World};
use super::measure::{median, quantile};
use super::processes::{PATIENCE, program, until};
use super::report::{Goal, Row};

/// In the place of GitHub's runner.
const RUNNER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/github/runner");
const LABELS: [&str; 2] = ["self-hosted", "linux"];
/// The scale set of those that wait by the long poll, whose jobs polling leaves alone.
const SET: &str = "lab";
/// Jobs that are timed one by one.
const TIMED: usize = 40;
/// Jobs that several hosts are to share.
const SHARED: usize = 24;
/// How often a host is killed.
const KILLS: usize = 5;
/// Between two looks of the hosts here, in seconds: the least that the setting allows.
const INTERVAL: &str = "1";

/// How hosts hear of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Polling,
    LongPoll,
}

impl By {
    /// What its jobs ask for.
    const fn labels(self) -> &'static [&'static str] {
        match self {
            Self::Polling => &LABELS,
            Self::LongPoll => &[SET],
        }
    }
}

/// A node that starts runners; its process ends with its owner.
pub(crate) struct Host {
    process: Child,
    data_dir: PathBuf,
    api: String,
    slots: u32,
    pub(crate) client: Client,
}

impl Host {
    async fn start(data_dir: PathBuf, api: String, slots: u32) -> Outcome<Self> {
        let process = Self::spawn(&data_dir, &api, slots)?;
        let client = until("a node's answer", async || Client::connect(&data_dir).await.ok()).await?;
        let host = Self { process, data_dir, api, slots, client };
        until("its runners", async || {
            let status = host.client.status().await.ok()?;
            status.labels.iter().any(|label| label == "runner:github").then_some(())
        })
        .await?;
        Ok(host)
    }

    fn command(data_dir: &Path, api: &str) -> Outcome<Command> {
        let mut command = Command::new(program()?);
        command.env("RUNMESH_GITHUB_API", api).env("GITHUB_TOKEN", "t").env("RUNMESH_ACTIONS_RUNNER", RUNNER);
        command.env("RUNMESH_AUTOSCALER_SCALE_SET", SET);
        command.env("RUNMESH_AUTOSCALER_INTERVAL", INTERVAL).env("XDG_CONFIG_HOME", data_dir.with_extension("config"));
        command.stdin(Stdio::null());
        Ok(command)
    }

    fn spawn(data_dir: &Path, api: &str, slots: u32) -> Outcome<Child> {
        let log = File::options().create(true).append(true).open(data_dir.with_extension("log"))?;
        let mut command = Self::command(data_dir, api)?;
        command.args(["node", "run", "--listen", "/ip4/127.0.0.1/tcp/0", "--source", "github:octo", "--autoscaler"]);
        command.args(["--isolation", "none", "--interval", "3600", "--max-runners", &slots.to_string(), "--data-dir"]);
        command.arg(data_dir).stdout(log.try_clone()?).stderr(log);
        Ok(command.spawn()?)
    }

    fn say(data_dir: &Path, words: &[&str]) -> Outcome<String> {
        let output = Command::new(program()?).args(words).arg("--data-dir").arg(data_dir).output()?;
        if !output.status.success() {
            return Err(format!("{words:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    async fn kill_and_start(&mut self) -> Outcome<()> {
        self.process.kill()?;
        self.process.wait()?;
        self.process = Self::spawn(&self.data_dir, &self.api, self.slots)?;
        self.client = until("a node's answer", async || Client::connect(&self.data_dir).await.ok()).await?;
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A GitHub with one repository.
pub(crate) fn fake() -> Fake {
    let mut world = World::new();
    world.account("octo", Kind::Organization);
    world.repository("octo/one", &[("README.md", "one")]);
    Fake::start(world)
}

/// A mesh of so many hosts that all hear each other.
pub(crate) async fn hosts(dir: &Path, fake: &Fake, count: usize, slots: u32) -> Outcome<Vec<Host>> {
    let mut hosts: Vec<Host> = Vec::new();
    for n in 0..count {
        let data_dir = dir.join(format!("host-{n}"));
        if let Some(first) = hosts.first() {
            let ticket = Host::say(&first.data_dir, &["mesh", "invite"])?;
            Host::say(&data_dir, &["mesh", "join", &ticket])?;
        }
        hosts.push(Host::start(data_dir, fake.api(), slots).await?);
    }
    let others = u32::try_from(count - 1)?;
    until("a whole mesh", async || {
        for host in &hosts {
            host.client.status().await.ok().filter(|status| status.peers == others)?;
        }
        Some(())
    })
    .await?;
    Ok(hosts)
}

/// Waits until some host listens.
pub(crate) async fn listened(fake: &Fake) -> Outcome<()> {
    let is_open = || fake.state().actions.scale_sets.sets.values().any(|set| set.session.is_some() && set.capacity > 0);
    until("a session", async || is_open().then_some(())).await
}

/// Queues jobs that take so long.
pub(crate) fn queue(fake: &Fake, by: By, count: usize, takes: Duration) -> Vec<u64> {
    let state = &mut *fake.state();
    state.actions.runners.held_back = true;
    let jobs = state.actions.queue(&state.world, "octo/one", by.labels(), count);
    for job in &jobs {
        state.actions.jobs.get_mut(job).expect("just made").takes = takes;
    }
    state.actions.runners.held_back = false;
    state.actions.bind();
    state.actions.runners.bell.notify_waiters();
    jobs
}

pub(crate) fn count(fake: &Fake, jobs: &[u64], status: Status) -> usize {
    let state = fake.state();
    jobs.iter().filter(|job| state.actions.jobs[*job].status == status).count()
}

pub(crate) fn runtime() -> Outcome<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// By looking each second, the least that the setting allows.
pub(crate) fn starts_by_polling() -> Outcome<Vec<Row>> {
    starts(By::Polling, ["runner_start_poll_p50_s", "runner_start_poll_p95_s"], [Goal::None, Goal::None])
}

/// By the long poll of a scale set.
pub(crate) fn starts_by_long_poll() -> Outcome<Vec<Row>> {
    starts(By::LongPoll, ["runner_start_p50_s", "runner_start_p95_s"], [Goal::AtMost(0.2), Goal::AtMost(1.0)])
}

/// Queued -> a runner has it, one job after the other.
fn starts(by: By, names: [&str; 2], goals: [Goal; 2]) -> Outcome<Vec<Row>> {
    let dir = tempfile::tempdir()?;
    let fake = fake();
    let taken = runtime()?.block_on(async {
        let _hosts = hosts(dir.path(), &fake, 1, 4).await?;
        listened(&fake).await?;
        let mut taken = Vec::new();
        for n in 0..TIMED {
            // Not in step with the hosts' looks.
            tokio::time::sleep(Duration::from_millis(300 + (n as u64 * 137) % 1_000)).await;
            let job = queue(&fake, by, 1, Duration::ZERO)[0];
            let started = until("a runner", async || {
                let state = fake.state();
                let job = &state.actions.jobs[&job];
                job.started_at.map(|at| (at - job.queued_at).as_secs_f64())
            });
            taken.push(started.await?);
        }
        Ok::<_, Box<dyn std::error::Error>>(taken)
    })?;
    let rival = "garm, by its issues: up to 35; the source system polls each 120";
    Ok(vec![
        Row::alone(names[0], "s", goals[0], quantile(taken.clone(), 0.5)).against(rival, 35.0),
        Row::alone(names[1], "s", goals[1], quantile(taken, 0.95)).against(rival, 35.0),
    ])
}

/// Runners too many, and calls a minute, when so many hosts watch one queue.
pub(crate) fn surplus() -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    for number in [1, 2, 4, 8] {
        let dir = tempfile::tempdir()?;
        let fake = fake();
        let (surplus, idle, busy) = runtime()?.block_on(async {
            let _hosts = hosts(dir.path(), &fake, number, 4).await?;
            let calls = async |time: Duration| {
                fake.take_calls();
                tokio::time::sleep(time).await;
                fake.take_calls().len() as f64 * 60.0 / time.as_secs_f64()
            };
            let idle = calls(Duration::from_secs(5)).await;
            let before = fake.state().actions.runners.configured;
            fake.take_calls();
            let began = Instant::now();
            let jobs = queue(&fake, By::Polling, SHARED, Duration::from_secs(2));
            until("the jobs' end", async || (count(&fake, &jobs, Status::Completed) == SHARED).then_some(())).await?;
            let busy = fake.take_calls().len() as f64 * 60.0 / began.elapsed().as_secs_f64();
            let started = fake.state().actions.runners.configured - before;
            Ok::<_, Box<dyn std::error::Error>>((started as f64 - SHARED as f64, idle, busy))
        })?;
        let word = if number == 1 { "host" } else { "hosts" };
        let goal = if number == 8 { Goal::AtMost(0.0) } else { Goal::None };
        let independent = (number * SHARED - SHARED) as f64;
        rows.push(
            Row::alone(&format!("surplus_runners_{number}_{word}"), "runners", goal, surplus)
                .against("independent autoscalers: each starts one a job", independent),
        );
        rows.push(Row::alone(&format!("job_calls_idle_{number}_{word}"), "calls/min", Goal::None, idle));
        rows.push(Row::alone(&format!("job_calls_busy_{number}_{word}"), "calls/min", Goal::None, busy));
    }
    Ok(rows)
}

/// Killed with runners waiting -> none of their registrations is left.
pub(crate) fn recovery() -> Outcome<Vec<Row>> {
    let dir = tempfile::tempdir()?;
    let fake = fake();
    let taken = runtime()?.block_on(async {
        let mut hosts = hosts(dir.path(), &fake, 1, 4).await?;
        let mut taken = Vec::new();
        for _ in 0..KILLS {
            fake.state().actions.runners.held_back = true;
            let jobs = {
                let state = &mut *fake.state();
                state.actions.queue(&state.world, "octo/one", &LABELS, 4)
            };
            until("four runners", async || (fake.state().actions.runners.online() == 4).then_some(())).await?;
            let old: Vec<u64> = fake.state().actions.runners.all.keys().copied().collect();
            let began = Instant::now();
            hosts[0].kill_and_start().await?;
            until("the end of what was registered", async || {
                let state = fake.state();
                old.iter().all(|id| !state.actions.runners.all.contains_key(id)).then_some(())
            })
            .await?;
            taken.push(began.elapsed().as_secs_f64());
            {
                let state = &mut *fake.state();
                state.actions.runners.held_back = false;
                state.actions.bind();
            }
            until("the jobs' end", async || (count(&fake, &jobs, Status::Completed) == 4).then_some(())).await?;
            assert!(PATIENCE > began.elapsed(), "the jobs were served");
        }
        Ok::<_, Box<dyn std::error::Error>>(taken)
    })?;
    Ok(vec![Row::alone("runner_recovery_s", "s", Goal::None, median(taken))])
}
