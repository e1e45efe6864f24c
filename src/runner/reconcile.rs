//! What is on this host against what should be: finding and taking away what no order owns.
//!
//! The ledger says what may be here ([`super::ledger`]): a record is undone by what it names, wherever that is. A round looks
//! besides for what bears a name of this node - a directory in the work directory, a control group, things at the container
//! engine - and is in no record: it is taken away by its name. A first round is made before any order is taken. A record
//! whose traces cannot be taken away, as those at an engine that does not answer, stays until they can.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use super::engine::Engine;
use super::ledger::{AtEngine, Book, Ledger, Start};
use super::run::Host;
use super::{cgroup, places, procfs};

/// How long what is killed may take to die.
const DIE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The names that something on this host bears.
pub(crate) async fn look(host: Arc<Host>) -> BTreeSet<String> {
    let host_too = host.clone();
    let on_host = spawn_blocking(move || {
        let mut names = places::names(&host_too.settings.work_root);
        names.extend(host_too.cgroups.iter().flat_map(|groups| groups.names()));
        names
    });
    let mut names = on_host.await.unwrap_or_default();
    if let Ok(engine) = &host.capabilities.engine {
        let begin = format!("{}-", host.mark);
        // One that does not answer now is asked again in the next round.
        let marks = engine.marks(&begin).await.unwrap_or_default();
        names.extend(marks.into_iter().filter_map(|mark| mark.strip_prefix(&begin).map(str::to_owned)));
    }
    names
}

/// Takes away all that bears these names, or that their records tell of. What stays of each, in words.
pub(crate) async fn clear(host: Arc<Host>, names: BTreeMap<String, Option<Start>>) -> BTreeMap<String, Vec<String>> {
    let (mut left, mut silent) = (BTreeMap::new(), BTreeSet::new());
    for (name, start) in names {
        let stays = match start {
            Some(start) => settle(&host.settings.ledger, &name, &start, &mut silent, Duration::ZERO).await,
            None => clear_by_name(&host, &name).await,
        };
        left.insert(name, stays);
    }
    left
}

async fn clear_by_name(host: &Arc<Host>, name: &str) -> Vec<String> {
    tracing::warn!(%name, "taking away what is on this host and in no record");
    let mut stays = Vec::new();
    if let Ok(engine) = &host.capabilities.engine {
        stays.extend(engine.sweep(&format!("{}-{name}", host.mark)).await);
    }
    let cgroup = host.cgroups.as_ref().map(|groups| groups.path(name));
    stays.extend(undo_here(host.settings.work_root.join(name), cgroup).await);
    for stuck in &stays {
        tracing::warn!(%name, "it stays, and is tried again: {stuck}");
    }
    stays
}

/// Undoes a record, and strikes it out when nothing of it is left. What stays, in words, after `patience` with an engine
/// that has not done yet what it was told. Engines found `silent` are not asked again.
pub(crate) async fn settle(
    ledger: &Arc<dyn Ledger>,
    name: &str,
    start: &Start,
    silent: &mut BTreeSet<PathBuf>,
    patience: Duration,
) -> Vec<String> {
    let stays = undo(start, silent, patience).await;
    if !stays.is_empty() {
        return stays;
    }
    let (ledger, name) = (ledger.clone(), name.to_owned());
    let struck = spawn_blocking(move || ledger.strike(Book::Starts, &name)).await;
    let struck = struck.map_err(|fault| fault.to_string()).flatten();
    struck.err().into_iter().map(|why| format!("striking it out of the ledger: {why}")).collect()
}

/// Takes away what an order has made. What stays, in words.
async fn undo(start: &Start, silent: &mut BTreeSet<PathBuf>, patience: Duration) -> Vec<String> {
    let mut stays = Vec::new();
    if let Some(AtEngine { socket, mark }) = &start.engine {
        let engine = Engine { socket: socket.clone(), version: String::new() };
        let cleared = match silent.contains(socket) {
            true => Err("it did not just now".to_owned()),
            false => engine.clear(mark, patience).await,
        };
        match cleared {
            Ok(stuck) => stays.extend(stuck),
            Err(why) => {
                tracing::debug!("{why}");
                silent.insert(socket.clone());
                let at = socket.display();
                stays
                    .push(format!("the container engine at {at} does not answer; what it has of it goes once it does"));
            }
        }
    }
    stays.extend(undo_here(start.directory.clone(), start.cgroup.clone()).await);
    stays
}

/// The same of what is on this host itself.
async fn undo_here(directory: PathBuf, cgroup: Option<PathBuf>) -> Vec<String> {
    let undone = spawn_blocking(move || {
        let mut stays = Vec::new();
        if let Some(group) = cgroup.filter(|group| !cgroup::end(group)) {
            stays.push(format!("the control group {} does not end", group.display()));
        }
        // What lost its reaper, where there is no group.
        kill_at_home(&directory);
        // Whatever a record says, only what is named as these are is removed.
        let is_ours = directory.file_name().and_then(|name| name.to_str()).is_some_and(places::is_name);
        if is_ours && let Err(error) = places::remove(&directory) {
            stays.push(format!("removing {}: {error}", directory.display()));
        }
        stays
    });
    undone.await.unwrap_or_else(|fault| vec![fault.to_string()])
}

/// Kills all processes that were started with a home below this directory, and waits some seconds for them to be gone.
pub(crate) fn kill_at_home(directory: &Path) {
    let deadline = Instant::now() + DIE;
    loop {
        let left = procfs::at_home_below(directory);
        if left.is_empty() || Instant::now() > deadline {
            return;
        }
        left.into_iter().for_each(procfs::Process::kill);
        std::thread::sleep(LOOK_AGAIN);
    }
}
