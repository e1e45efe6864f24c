//! `runmesh github autoscaler`: runners for the jobs that GitHub queues, and the mesh's tasks beside them. Alone it is a
//! node of its own, of a mesh of one where the data directory knows no other; where a node runs already, that node does
//! it, and this shows how it goes.

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::args::{AutoscalerArguments, Global, Output, RunArguments};
use super::failure::Failure;
use super::node;
use super::screen::{say, say_json};
use super::settings::{self, NodeSettings, Place, World};
use crate::control::{Client, ControlError};
use crate::daemon::Started;
use crate::forge::Spec;
use crate::kernel::task::GITHUB_RUNNER;

/// Where it listens: nobody has to reach it, it reaches the others.
const LISTEN: &str = "/ip4/127.0.0.1/tcp/0";
/// Between two looks for tagged workflows with `--no-p2p`, which leaves them alone.
const SELDOM: std::time::Duration = std::time::Duration::from_secs(86_400);

/// The settings of a node that does it.
pub(super) fn settings(
    global: &Global,
    asked: &AutoscalerArguments,
    world: &World,
) -> Result<(Place, NodeSettings), Failure> {
    let owners = asked.owners.iter().map(|owner| Spec::GithubOwner { owner: owner.clone() });
    let run = RunArguments {
        listen: vec![LISTEN.to_owned()],
        sources: owners.chain(asked.sources.iter().cloned()).collect(),
        max_runners: asked.max_runners,
        isolation: asked.isolation,
        labels: asked.labels.clone(),
        actions_runner: asked.actions_runner.clone(),
        autoscaler: true,
        ..RunArguments::default()
    };
    let (place, mut node) = settings::node(global, &run, world)?;
    if node.sources.is_empty() {
        node.sources.push(Spec::GithubAll);
    }
    let scale = &mut node.autoscaler;
    scale.interval = asked.interval.or(scale.interval);
    scale.any_arch = asked.no_arch_filter.then_some(true).or(scale.any_arch);
    scale.no_mesh = asked.no_p2p.then_some(true);
    if asked.no_p2p {
        node.interval = SELDOM;
    }
    let selection = &mut node.github.selection;
    selection.since_days = asked.since_days.or(selection.since_days);
    Ok((place, node))
}

/// Runs until a signal ends it.
pub(super) async fn run(place: &Place, node: NodeSettings) -> Result<(), Failure> {
    match Client::connect(&place.data_dir).await {
        Ok(running) => return watch(place, &node, &running).await,
        Err(ControlError::NoNode { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    // What is wrong with the credentials is said before anything begins.
    node.github.open().await.map_err(|error| Failure::usage(error.to_string()))?;
    let (output, sources) = (place.output, node.sources.clone());
    let settings = node::daemon_settings(node)?;
    let greet = |started: &Started| {
        let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
        let most = settings.max_runners;
        // It goes on when nobody reads what it says.
        let _ = match output {
            Output::Json => say_json(
                &serde_json::json!({
                    "peer_id": started.peer, "sources": sources, "max_runners": most, "impediments": started.impediments,
                }),
                true,
            ),
            Output::Table => say(&format!(
                "Starting autoscaler: up to {most} runners, for jobs of {}\n{}",
                sources.join(", "),
                started.impediments.iter().map(|why| format!("  not now: {why}\n")).collect::<String>()
            )),
        };
    };
    node::begin(settings.clone(), greet).await
}

/// Shows how the running node does.
async fn watch(place: &Place, node: &NodeSettings, running: &Client) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::failed("cannot listen for signals").because(&error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let interval = node.autoscaler.settings().unwrap_or_default().interval;
    loop {
        let status = running.status().await?;
        if !status.labels.iter().any(|label| label == GITHUB_RUNNER) {
            let what = "the node that runs at this data directory starts no runners for GitHub's jobs";
            return Err(Failure::failed(what).hint(
                "start it with `runmesh node run --autoscaler --actions-runner PATH`, or name another --data-dir here",
            ));
        }
        let runners = running.runners().await?;
        let queue = running.queue().await?;
        let waits = |job: bool| queue.iter().filter(|queued| is_job(queued) == job).count();
        match place.output {
            Output::Json => say_json(
                &serde_json::json!({
                    "pending_p2p": waits(false), "pending_github": waits(true), "runners": runners.len(),
                    "max_runners": status.runners.map_or(0, |runners| runners.max),
                }),
                true,
            )?,
            Output::Table => say(&format!(
                "P2P workflows: {} pending; GitHub jobs: {} pending; {} runners\n",
                waits(false),
                waits(true),
                runners.len()
            ))?,
        }
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            () = sleep(interval) => {}
        }
    }
}

fn is_job(queued: &crate::control::proto::Queued) -> bool {
    queued.task.as_ref().is_some_and(|task| task.trigger == "github-job")
}
