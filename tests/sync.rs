//! A newcomer fetches a history of many pages from other processes, one of which dies meanwhile.

#[path = "bench/history.rs"]
mod history;

use std::error::Error;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use history::History;
use runmesh::control::{Client, proto};
use runmesh::store::{DataDir, Membership, Owner, Secret, Store};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Several pages, each of which takes long enough to be met half-way.
const ENTRIES: usize = 8_000;
const PATIENCE: Duration = Duration::from_secs(90);

/// A node that is killed with its owner.
struct Node {
    process: Child,
    client: Client,
}

impl Node {
    async fn start(data_dir: &Path) -> Outcome<Self> {
        let process = Command::new(env!("CARGO_BIN_EXE_runmesh"))
            .args(["node", "run", "--max-runners", "0", "--listen", "/ip4/127.0.0.1/tcp/0", "--data-dir"])
            .arg(data_dir)
            .env("XDG_CONFIG_HOME", data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        // Ended below even if it never answers.
        let mut guard = Guard(Some(process));
        let began = Instant::now();
        let client = loop {
            match Client::connect(data_dir).await {
                Ok(client) => break client,
                Err(error) if began.elapsed() > PATIENCE => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let process = guard.0.take().ok_or("the process is there")?;
        Ok(Self { process, client })
    }

    fn signal(&self, name: &str) -> Outcome<()> {
        let status = Command::new("kill").args([name, &self.process.id().to_string()]).status()?;
        if status.success() { Ok(()) } else { Err(format!("kill {name}: {status}").into()) }
    }

    async fn until(&self, what: &str, is_so: impl Fn(&proto::Status) -> bool) -> Outcome<proto::Status> {
        let began = Instant::now();
        loop {
            let status = self.client.status().await?;
            if is_so(&status) {
                return Ok(status);
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("{what} did not come about: {} entries are here", status.entries).into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Guard(Option<Child>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(process) = &mut self.0 {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The data directory of a member with all entries on its disk, or none.
fn home(history: &History, path: &Path, member: usize, bootstrap: Vec<String>, full: bool) -> Outcome<()> {
    let secret = Secret::from_seed(history.keys[member].to_bytes());
    let dir = DataDir::create(path)?.hold()?;
    dir.keep_identity_key(&secret)?;
    dir.keep_membership(&Membership { mesh: history.mesh(), bootstrap, ticket: None })?;
    let store = Store::open(dir, Owner { mesh: history.mesh(), peer: secret.peer_id() })?;
    if full {
        store.append(&history.entries)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_serves_a_newcomer_dies_and_another_goes_on_where_it_stopped() -> Outcome<()> {
    let history = History::of(3, ENTRIES)?;
    let dir = tempfile::tempdir()?;
    let data_dir = |name: &str| dir.path().join(name);
    let mut listen = Vec::new();
    let mut full = Vec::new();
    for (member, name) in ["first", "second"].into_iter().enumerate() {
        home(&history, &data_dir(name), member, Vec::new(), true)?;
        let node = Node::start(&data_dir(name)).await?;
        listen.extend(node.client.status().await?.listen);
        full.push(node);
    }
    let wanted = full[0].client.status().await?;
    let (first, second) = (full.remove(0), full.remove(0));
    // The second is connected to, and says nothing, until the first is dead.
    second.signal("-STOP")?;
    home(&history, &data_dir("newcomer"), 2, listen, false)?;
    let newcomer = Node::start(&data_dir("newcomer")).await?;
    let half = newcomer.until("a first page", |status| status.entries > 0).await?;
    drop(first);
    second.signal("-CONT")?;
    assert!(half.entries < wanted.entries, "the whole history came at once: {half:?}");
    let whole = newcomer.until("the whole history", |status| status.state_hash == wanted.state_hash).await?;
    assert!(whole.entries >= wanted.entries, "{whole:?}, {wanted:?}");
    Ok(())
}
