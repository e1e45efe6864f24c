//! Nodes as processes of this machine, and the programs that are measured beside them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use runmesh::control::{Client, proto};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::Outcome;

/// The longest anything may take to come about.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// The workflow that the meshes here run.
pub(crate) const WORKFLOW: &str = ".github/workflows/bench.yml";
/// Events that wait to be read.
const EVENTS: usize = 4096;

/// A process that ends with its owner.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(program: impl AsRef<OsStr>, arguments: &[&str], log: &Path) -> Outcome<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self(command.spawn()?))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends it a signal by name, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) -> Outcome<()> {
        let status = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status()?;
        if status.success() { Ok(()) } else { Err(format!("kill -{name}: {status}").into()) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port of the loopback interface that was free just now.
pub(crate) fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Looks again and again until there is something.
pub(crate) async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> Outcome<T> {
    until_every(Duration::from_millis(20), what, look).await
}

/// The same, looking so often.
pub(crate) async fn until_every<T>(
    pause: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Outcome<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if began.elapsed() > PATIENCE {
            return Err(format!("{what} did not come about within {} s", PATIENCE.as_secs()).into());
        }
        sleep(pause).await;
    }
}

/// The program that is measured: the one built beside this one.
pub(crate) fn program() -> Outcome<PathBuf> {
    let mut path = std::env::current_exe()?;
    path.pop();
    path.pop();
    Ok(path.join("runmesh"))
}

/// One node.
pub(crate) struct Node {
    pub(crate) peer: String,
    pub(crate) client: Client,
    pub(crate) data_dir: PathBuf,
    process: Process,
    log: PathBuf,
    arguments: Vec<String>,
    events: Option<JoinHandle<()>>,
}

impl Node {
    /// Starts a node in its directory and waits until it answers.
    pub(crate) async fn start(data_dir: PathBuf, arguments: Vec<String>) -> Outcome<Self> {
        let log = data_dir.with_extension("log");
        let process = Self::spawn(&data_dir, &arguments, &log)?;
        let client = Self::connect(&data_dir).await?;
        let peer = client.status().await?.peer_id;
        Ok(Self { peer, client, data_dir, process, log, arguments, events: None })
    }

    fn spawn(data_dir: &Path, arguments: &[String], log: &Path) -> Outcome<Process> {
        let data_dir = data_dir.to_string_lossy();
        let mut all = vec!["node", "run", "--data-dir", &data_dir, "--listen", "/ip4/127.0.0.1/tcp/0"];
        all.extend(arguments.iter().map(String::as_str));
        Process::start(program()?, &all, log)
    }

    async fn connect(data_dir: &Path) -> Outcome<Client> {
        until("a node's answer", async || Client::connect(data_dir).await.ok()).await
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) async fn start_again(&mut self) -> Outcome<()> {
        self.process = Self::spawn(&self.data_dir, &self.arguments, &self.log)?;
        self.client = Self::connect(&self.data_dir).await?;
        Ok(())
    }

    fn command(data_dir: &Path, words: &[&str]) -> Outcome<String> {
        let output = Command::new(program()?).args(words).arg("--data-dir").arg(data_dir).output()?;
        if !output.status.success() {
            return Err(format!("{words:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Passes on everything that this node sees, with the time at which it came here.
    async fn listen(&mut self, number: usize, to: mpsc::Sender<Seen>) -> Outcome<()> {
        if let Some(before) = self.events.take() {
            before.abort();
        }
        let mut events = self.client.events(0, true).await?;
        self.events = Some(tokio::spawn(async move {
            while let Some(Ok(event)) = events.next().await {
                if to.send(Seen { at: Instant::now(), node: number, event }).await.is_err() {
                    return;
                }
            }
        }));
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(events) = self.events.take() {
            events.abort();
        }
    }
}

/// What a node saw, and when it was told here.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    /// Which node.
    pub(crate) node: usize,
    pub(crate) event: proto::Event,
}

impl Seen {
    pub(crate) fn is(&self, kind: &str, task: &str) -> bool {
        self.event.kind == kind && self.event.task.as_deref() == Some(task)
    }
}

/// A mesh of processes on this machine.
pub(crate) struct Mesh {
    pub(crate) nodes: Vec<Node>,
    /// What all nodes see.
    pub(crate) seen: mpsc::Receiver<Seen>,
    see: mpsc::Sender<Seen>,
    pub(crate) repository: String,
    _dir: TempDir,
}

impl Mesh {
    /// A mesh of so many nodes that all list one repository and run its workflow by a program that takes so many
    /// seconds and says what act would: what is measured is the mesh, not the work. All hear each other when it is
    /// given back.
    pub(crate) async fn of(count: usize, task_s: u32) -> Outcome<Self> {
        let dir = tempfile::tempdir()?;
        let repository = repository(&dir.path().join("repository"))?;
        let act = act(&dir.path().join("act"), task_s)?;
        let arguments: Vec<String> = [
            ["--source", &format!("git:{repository}")],
            ["--isolation", "none"],
            ["--max-runners", "2"],
            ["--act", &act],
            ["--interval", "3600"],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
        let (see, seen) = mpsc::channel(EVENTS);
        let mut mesh = Self { nodes: Vec::new(), seen, see, repository, _dir: dir };
        for n in 0..count {
            let data_dir = mesh._dir.path().join(format!("node-{n}"));
            if let Some(first) = mesh.nodes.first() {
                let ticket = Node::command(&first.data_dir, &["mesh", "invite"])?;
                Node::command(&data_dir, &["mesh", "join", &ticket])?;
            }
            let mut node = Node::start(data_dir, arguments.clone()).await?;
            node.listen(n, mesh.see.clone()).await?;
            mesh.nodes.push(node);
        }
        mesh.whole().await?;
        Ok(mesh)
    }

    /// Waits until all hear each other and know the same.
    pub(crate) async fn whole(&self) -> Outcome<()> {
        let others = u32::try_from(self.nodes.len() - 1)?;
        until("a whole mesh", async || {
            let mut states = Vec::new();
            for node in &self.nodes {
                let status = node.client.status().await.ok()?;
                if status.peers != others {
                    return None;
                }
                states.push(status.state_hash);
            }
            states.iter().all(|state| *state == states[0]).then_some(())
        })
        .await
    }

    pub(crate) fn number_of(&self, peer: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.peer == peer)
    }

    /// Submits the workflow on a node, under a name of its own; answers the task's id.
    pub(crate) async fn submit(&self, node: usize, request: String) -> Outcome<String> {
        let request = proto::SubmitRequest {
            repository: self.repository.clone(),
            path: WORKFLOW.to_owned(),
            request,
            ..proto::SubmitRequest::default()
        };
        Ok(self.nodes[node].client.submit(request).await?)
    }

    /// The next thing that any node saw and that is meant.
    pub(crate) async fn next(&mut self, what: &str, mut is_meant: impl FnMut(&Seen) -> bool) -> Outcome<Seen> {
        let look = async {
            while let Some(seen) = self.seen.recv().await {
                if is_meant(&seen) {
                    return Ok(seen);
                }
            }
            Err("no node is listened to".into())
        };
        timeout(PATIENCE, look).await.map_err(|_| format!("{what} did not come about"))?
    }

    /// Starts a killed node again.
    pub(crate) async fn start_again(&mut self, number: usize) -> Outcome<()> {
        let see = self.see.clone();
        self.nodes[number].start_again().await?;
        self.nodes[number].listen(number, see).await?;
        self.whole().await
    }
}

fn repository(path: &Path) -> Outcome<String> {
    fs::create_dir_all(path.join(".github/workflows"))?;
    let text = "name: Bench\non: workflow_dispatch\njobs:\n  bench:\n    runs-on: self-hosted\n    steps:\n      - run: 'true'\n";
    fs::write(path.join(WORKFLOW), text)?;
    let git = |words: &[&str]| -> Outcome<()> {
        let status = Command::new("git").arg("-C").arg(path).args(words).status()?;
        if status.success() { Ok(()) } else { Err(format!("git {words:?}: {status}").into()) }
    };
    git(&["init", "-q", "-b", "main"])?;
    git(&["add", "."])?;
    git(&["-c", "user.name=Bench", "-c", "user.email=bench@example.org", "commit", "-q", "-m", "A workflow"])?;
    Ok(path.to_string_lossy().into_owned())
}

/// A program that says what act says of a job that succeeds, after some seconds.
fn act(path: &Path, seconds: u32) -> Outcome<String> {
    let line = |rest: &str| format!(r#"{{"job":"Bench/bench","jobID":"bench","level":"info","matrix":{{}},{rest}}}"#);
    let (runs, ends) =
        (line(r#""msg":"Run Main true","step":"true""#), line(r#""msg":"Job succeeded","jobResult":"success""#));
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec echo 'act version 0.0.0, of the benchmark'\necho '{runs}'\nsleep {seconds}\necho '{ends}'\n"
    );
    fs::write(path, script)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(path.to_string_lossy().into_owned())
}
