//! From the loss of a task's holder to the next claim, beside serf's news of a lost member.

use std::time::Instant;

use super::Outcome;
use super::measure::median;
use super::processes::Mesh;
use super::report::{Goal, Row};
use super::serf::{Serf, wait};

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
        rows.push(match Serf::of(NODES, &dir.path().join(name)).and_then(|mut serf| losses(&mut serf, loss)) {
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

/// How long it took until the first other agent said so, in seconds.
fn losses(serf: &mut Serf, loss: Loss) -> Outcome<Vec<f64>> {
    let mut taken = Vec::new();
    for n in 0..TIMES_SERF {
        let lost = 1 + n % (NODES - 1);
        let before = serf.failures_of(lost);
        let began = Instant::now();
        serf.agents[lost].process.signal(loss.signal())?;
        wait("serf's news", || {
            serf.failures_of(lost).iter().zip(&before).any(|(now, before)| now > before).then_some(())
        })?;
        taken.push(began.elapsed().as_secs_f64());
        match loss {
            Loss::Close => serf.start_again(lost)?,
            Loss::Silence => serf.agents[lost].process.signal("CONT")?,
        }
        serf.whole()?;
    }
    Ok(taken)
}
