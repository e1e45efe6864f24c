//! What is on this host against what should be: finding and taking away what no order owns.
//!
//! Everything that an order makes outside of this process bears its name: its directory, its control group, and its things
//! at the container engine; its processes have their home in that directory. So the directory is the ledger: it is made
//! before anything is started, and it is the last to go. A round lists what bears a name, then takes away what bears one
//! that no order has; a first one is made before any order is taken.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use super::run::Host;
use super::{places, procfs};

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
        let marks = engine.marks(&begin).await;
        names.extend(marks.into_iter().filter_map(|mark| mark.strip_prefix(&begin).map(str::to_owned)));
    }
    names
}

/// Takes away all that bears these names.
pub(crate) async fn clear(host: Arc<Host>, names: BTreeSet<String>) {
    for name in names {
        tracing::warn!(%name, "taking away what a task has left on this host");
        if let Ok(engine) = &host.capabilities.engine {
            for stuck in engine.sweep(&format!("{}-{name}", host.mark)).await {
                tracing::warn!("it stays, and is tried again: {stuck}");
            }
        }
        let host = host.clone();
        let cleared = spawn_blocking(move || {
            if let Some(groups) = &host.cgroups {
                groups.end(&name);
            }
            let directory = host.settings.work_root.join(&name);
            kill_at_home(&directory);
            places::remove(&directory)
        });
        if let Err(error) = cleared.await.map_err(std::io::Error::other).flatten() {
            tracing::warn!(%error, "removing a work directory: it is tried again");
        }
    }
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
