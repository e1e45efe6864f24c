//! `runmesh node run`: the node itself, and what a person who starts one is told.

use std::io::Read as _;

use super::args::Output;
use super::failure::Failure;
use super::mesh::unusable;
use super::screen::{Paint, Screen, count, facts, say, say_json};
use super::settings::{Executor, Isolation, NodeSettings, Place};
use crate::daemon::{self, DaemonError, Home, Started};
use crate::net::Multiaddr;
use crate::runner;

/// Runs the node until a signal or the control API ends it.
pub(super) async fn run(place: &Place, settings: NodeSettings) -> Result<(), Failure> {
    let (greeted, settings) = (settings.clone(), daemon_settings(settings)?);
    let greet = |started: &Started| {
        // A node goes on when nobody reads what it says.
        let _ = match place.output {
            Output::Json => say_json(&greeting_json(started), true),
            Output::Table => say(&greeting(Screen::stdout(), place, &greeted, started)),
        };
    };
    begin(settings, greet).await
}

/// Runs a node. Where it fails to start, a mesh that it has made for that does not stay behind.
pub(super) async fn begin(settings: daemon::Settings, greet: impl FnOnce(&Started)) -> Result<(), Failure> {
    let data_dir = settings.data_dir.clone();
    let (would_found, mut has_started) = (Home::would_found(&data_dir), false);
    let started = |started: &Started| {
        has_started = true;
        greet(started);
    };
    let ended = daemon::run(settings, started).await;
    if would_found
        && !has_started
        && let Err(error) = &ended
        && !matches!(error, DaemonError::Home(_))
        && let Err(error) = Home::unfound(&data_dir)
    {
        tracing::warn!("taking away the mesh that was made for nothing: {error}");
    }
    ended.map_err(|error| match error {
        DaemonError::Home(error) => unusable(error),
        error => Failure::of(&error),
    })
}

/// Ends this process as SIGTERM does when its standard input ends.
pub(super) fn stop_at_end_of_input() -> Result<(), Failure> {
    let watch = || {
        let mut ignored = [0; 256];
        while matches!(std::io::stdin().read(&mut ignored), Ok(1..)) {}
        let me = rustix::process::getpid();
        // It can only fail for a process that does not exist.
        let _ = rustix::process::kill_process(me, rustix::process::Signal::TERM);
    };
    // Not joined: it ends with the process, for which it waits.
    let started = std::thread::Builder::new().name("end-of-input".to_owned()).spawn(watch);
    started.map(drop).map_err(|error| Failure::failed("cannot start a thread").because(&error))
}

pub(super) fn daemon_settings(settings: NodeSettings) -> Result<daemon::Settings, Failure> {
    let addresses = |texts: &[String]| -> Result<Vec<Multiaddr>, Failure> {
        let parse = |text: &String| text.parse::<Multiaddr>();
        texts
            .iter()
            .map(parse)
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::usage("not a multiaddr").because(&error))
    };
    Ok(daemon::Settings {
        listen: addresses(&settings.listen)?,
        bootstrap: addresses(&settings.bootstrap)?,
        reach: daemon::Reach {
            announce: addresses(&settings.reach.announce)?,
            swarm_key: settings.reach.swarm_key,
            mdns: settings.reach.mdns,
            relay: settings.reach.relay,
        },
        labels: settings.offered(runner::default_labels()),
        max_runners: match settings.executor {
            Executor::Act | Executor::Command => settings.max_runners,
            Executor::None => 0,
        },
        isolation: match settings.isolation {
            Isolation::Container => runner::Isolation::Container,
            Isolation::Bwrap => runner::Isolation::Bwrap,
            Isolation::None => runner::Isolation::None,
        },
        data_dir: settings.data_dir,
        sources: settings.sources,
        github: settings.github,
        manners: settings.manners,
        stop_when_cut_off: settings.stop_when_cut_off,
        act: settings.act,
        actions_runner: settings.actions_runner,
        work: settings.work.settings(settings.executor == Executor::Command),
        autoscaler: settings.autoscaler.settings(),
        drain: settings.drain,
        drain_limit: settings.drain_limit,
        discovery_interval: settings.interval,
        retention: settings.retention,
        keeping: settings.keeping,
    })
}

/// What a person who starts a node sees.
fn greeting(screen: Screen, place: &Place, settings: &NodeSettings, started: &Started) -> String {
    let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join("\n");
    let tasks = match (settings.executor, settings.max_runners, started.impediments.is_empty()) {
        (Executor::None, ..) | (_, 0, _) => {
            format!("no tasks itself, as it was told; workers ask with `runmesh p2p-workflow next{}`", place.flag())
        }
        (_, _, false) => screen.paint(Paint::Warn, &format!("no tasks: {}", started.impediments.join("; "))),
        (_, most, true) => {
            let labels: Vec<String> = settings.offered(runner::default_labels()).into_iter().collect();
            let isolation = match settings.isolation {
                Isolation::Container => "each in containers".to_owned(),
                Isolation::Bwrap => "each in a bubblewrap sandbox".to_owned(),
                Isolation::None => screen.paint(Paint::Warn, "without any isolation"),
            };
            format!("{} at once, {isolation}\nfor runs-on: {}", count(most, "task"), labels.join(", "))
        }
    };
    let sources = match settings.sources.is_empty() {
        true => "none of its own; name some with --source github:OWNER or git:PATH".to_owned(),
        false => list(&mut settings.sources.iter().map(|source| {
            let careful = settings.stop_when_cut_off.contains(source);
            let stops = if careful { "  stopped when this node is cut off" } else { "" };
            format!("{source}{stops}")
        })),
    };
    let mesh = match (started.founded, started.joining) {
        (true, _) => {
            let another = "not the mesh of the bootstrap addresses: for that, `runmesh mesh invite` there prints a \
                           ticket, and `runmesh mesh join TICKET` here takes it, with another --data-dir";
            let another = if settings.bootstrap.is_empty() { "" } else { another };
            let another = screen.paint(Paint::Warn, another);
            format!("{}  made just now, this node is its first member\n{another}", started.mesh)
        }
        (false, true) => format!("{}  waits for a member to admit it", started.mesh),
        (false, false) => started.mesh.to_string(),
    };
    let text = facts(
        screen,
        &[
            ("node", screen.paint(Paint::Strong, &started.peer)),
            ("mesh", mesh),
            ("listens", list(&mut started.listen.iter().map(ToString::to_string))),
            ("runs", tasks),
            ("sources", sources),
            ("data", place.data_dir.display().to_string()),
            ("invite", format!("runmesh mesh invite{}", place.flag())),
            ("look", format!("runmesh inspect status{}", place.flag())),
        ],
    );
    format!("{text}\n")
}

fn greeting_json(started: &Started) -> serde_json::Value {
    serde_json::json!({
        "peer_id": started.peer,
        "mesh_id": started.mesh.to_string(),
        "listen": started.listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "founded": started.founded,
        "joining": started.joining,
        "impediments": started.impediments,
    })
}
