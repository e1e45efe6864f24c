//! A cold node that fetches a long history from another process.

use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use runmesh::store::{DataDir, Membership, Owner, Secret, Store};

use super::Outcome;
use super::history::History;
use super::measure::median;
use super::processes::{Node, until_every};
use super::report::{Goal, Row};

const ENTRIES: usize = 100_000;
const MEMBERS: usize = 20;
/// How often a cold node is started.
const TIMES: usize = 3;
/// How often it is asked how far it is: each answer costs it a look at all tasks.
const LOOK: Duration = Duration::from_millis(250);

pub(crate) fn cold() -> Outcome<Vec<Row>> {
    let history = History::of(MEMBERS, ENTRIES)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let rate = runtime.block_on(fetch(&history))?;
    let row = Row::alone("sync_entries_per_s", "/s", Goal::AtLeast(10_000.0), rate);
    Ok(vec![row.without("go-ds-crdt 600, OrbitDB 80 (known numbers; not run here)")])
}

/// Entries a second, from the start of the cold node's process until it has all of them.
async fn fetch(history: &History) -> Outcome<f64> {
    let dir = tempfile::tempdir()?;
    let data_dir = |name: &str| dir.path().join(name);
    home(history, &data_dir("full"), &history.keys[0], Vec::new(), &history.entries)?;
    let idle = ["--max-runners", "0"].map(str::to_owned).to_vec();
    let full = Node::start(data_dir("full"), idle.clone()).await?;
    let wanted = full.client.status().await?;
    let mut rates = Vec::new();
    for n in 0..TIMES {
        let name = format!("cold-{n}");
        // Each time another member, which the full node has not met yet.
        home(history, &data_dir(&name), &history.keys[1 + n], wanted.listen.clone(), &[])?;
        let began = Instant::now();
        let cold = Node::start(data_dir(&name), idle.clone()).await?;
        until_every(LOOK, "the whole history", async || {
            let status = cold.client.status().await.ok()?;
            (status.state_hash == wanted.state_hash && status.entries >= wanted.entries).then_some(())
        })
        .await?;
        rates.push(wanted.entries as f64 / began.elapsed().as_secs_f64());
    }
    Ok(median(rates))
}

/// A member's data directory with these entries on disk.
fn home(
    history: &History,
    path: &std::path::Path,
    key: &SigningKey,
    bootstrap: Vec<String>,
    entries: &[std::sync::Arc<runmesh::kernel::entry::Entry>],
) -> Outcome<()> {
    let secret = Secret::from_seed(key.to_bytes());
    let dir = DataDir::create(path)?.hold()?;
    dir.keep_identity_key(&secret)?;
    dir.keep_membership(&Membership { mesh: history.mesh(), bootstrap, ticket: None })?;
    let store = Store::open(dir, Owner { mesh: history.mesh(), peer: secret.peer_id() })?;
    for some in entries.chunks(10_000) {
        store.append(some)?;
    }
    Ok(())
}
