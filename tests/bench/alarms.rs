//! A machine whose cores are all taken: how often nodes that are merely slow are declared dead, beside serf's agents
//! under the same load at the same time.

use std::thread;
use std::time::{Duration, Instant};

use tokio::time::timeout_at;

use super::Outcome;
use super::processes::{Mesh, Process, until};
use super::report::{Goal, Row};
use super::serf::Serf;

const NODES: usize = 5;
/// Tasks that run meanwhile: half of the mesh's slots.
const TASKS: usize = 5;
/// Programs a core that do nothing but count.
const LOOPS: usize = 4;
/// How long the machine is busy.
const BUSY: Duration = Duration::from_secs(60);
/// How long a task would run, in seconds: longer than that.
const TASK_S: u32 = 600;

pub(crate) fn under_load() -> Outcome<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let dir = tempfile::tempdir()?;
    let serf = Serf::of(NODES, &dir.path().join("serf"));
    let (lost, missed) = runtime.block_on(ours(&dir.path().join("loops.log")))?;
    let row = Row::alone("false_alarms_under_load", "live nodes declared lost", Goal::AtMost(0.0), lost);
    let row = match serf {
        Ok(serf) => {
            let failures = (0..NODES).flat_map(|number| serf.failures_of(number)).sum::<usize>();
            row.against("serf, in the same minute", failures as f64)
        }
        Err(error) => row.without(&format!("serf: {error}")),
    };
    Ok(vec![row, Row::alone("false_takeovers_under_load", "tasks taken from a live holder", Goal::AtMost(0.0), missed)])
}

/// How often a node said that another is lost, and that a task is missed, although all ran.
async fn ours(log: &std::path::Path) -> Outcome<(f64, f64)> {
    let mut mesh = Mesh::of(NODES, TASK_S).await?;
    for n in 0..TASKS {
        mesh.submit(n % NODES, format!("alarms-{n}")).await?;
    }
    until("the runs", async || {
        let tasks = mesh.nodes[0].client.tasks("", &["running".to_owned()]).await.ok()?;
        (tasks.len() == TASKS).then_some(())
    })
    .await?;
    while mesh.seen.try_recv().is_ok() {}
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let loops: Outcome<Vec<Process>> =
        (0..cores * LOOPS).map(|_| Process::start("sh", &["-c", "while :; do :; done"], log)).collect();
    let loops = loops?;
    let end = Instant::now() + BUSY;
    let (mut lost, mut missed) = (0.0, 0.0);
    while let Ok(Some(seen)) = timeout_at(end.into(), mesh.seen.recv()).await {
        match seen.event.kind.as_str() {
            "peer-lost" => lost += 1.0,
            "missed" => missed += 1.0,
            _ => {}
        }
    }
    drop(loops);
    Ok((lost, missed))
}
