//! Nodes as processes, and what one can do to them.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The longest any condition may take to come about, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(100);
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_runmesh");

/// Waits for a condition, and tells that much more if it does not come about.
fn until(what: &str, condition: impl Fn() -> bool, tell: impl Fn() -> String) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "{what} did not come about\n{}", tell());
        std::thread::sleep(LOOK);
    }
}

/// A git repository with workflow files.
pub(crate) struct Repository {
    dir: TempDir,
}

impl Repository {
    pub(crate) fn with(workflows: &[(&str, &str)]) -> Self {
        let repository = Self { dir: tempfile::tempdir().expect("a directory") };
        repository.git(&["init", "-q", "-b", "trunk"]);
        for (name, text) in workflows {
            repository.commit(name, text);
        }
        repository
    }

    pub(crate) fn commit(&self, name: &str, text: &str) {
        let folder = self.dir.path().join(".github/workflows");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(name), text).expect("a file");
        self.git(&["add", "."]);
        self.git(&["-c", "user.name=T", "-c", "user.email=t@example.org", "commit", "-q", "-m", name]);
    }

    pub(crate) fn path(&self) -> &str {
        self.dir.path().to_str().expect("UTF-8")
    }

    fn git(&self, arguments: &[&str]) {
        let status = Command::new("git").arg("-C").arg(self.dir.path()).args(arguments).status().expect("git runs");
        assert!(status.success(), "git {arguments:?}");
    }
}

/// Where a node listens at first.
const ANY_PORT: &str = "/ip4/127.0.0.1/tcp/0";

/// What a command printed and how it ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A node's data directory, and its process while it runs.
pub(crate) struct Node {
    pub(crate) peer: String,
    dir: TempDir,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// A signal that its processes are not to die of.
    ignored: Option<&'static str>,
    /// Which build of runmesh it is.
    program: PathBuf,
    process: Option<Child>,
    since: Instant,
}

impl Node {
    fn new(arguments: Vec<String>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self {
            peer: String::new(),
            dir,
            arguments,
            environment: Vec::new(),
            ignored: None,
            program: PathBuf::from(PROGRAM),
            process: None,
            since: Instant::now(),
        }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.ignored {
            None => Command::new(&self.program),
            Some(signal) => {
                let mut command = Command::new("sh");
                command.args(["-c", &format!("trap '' {signal}; exec \"$0\" \"$@\"")]).arg(&self.program);
                command
            }
        };
        command.args(arguments).arg("--data-dir").arg(self.data_dir());
        // Settings of whoever runs the tests are none of theirs.
        command.env("XDG_CONFIG_HOME", self.dir.path()).stdin(Stdio::null());
        command.env_remove("GITHUB_TOKEN").env_remove("GH_TOKEN").envs(self.environment.iter().cloned());
        command
    }

    fn start(&mut self) {
        self.spawn_node();
        self.wait_for("the node's answer", |node| node.run(&["inspect", "status"]).status == 0);
        let status = self.json(&["inspect", "status"]);
        self.peer = status["peer_id"].as_str().expect("a peer id").to_owned();
        // The next life listens where this one does: the others look for it there.
        let listens = status["listen"][0].as_str().and_then(|address| address.split("/p2p/").next());
        let chosen = self.arguments.iter_mut().filter(|word| word.as_str() == ANY_PORT);
        chosen.zip(listens).for_each(|(word, address)| *word = address.to_owned());
    }

    /// Starts it; what it has said if it ends instead of answering.
    fn try_to_start(&mut self) -> Result<(), String> {
        let said_before = self.log().len();
        self.spawn_node();
        let began = Instant::now();
        loop {
            if self.run(&["inspect", "status"]).status == 0 {
                return Ok(());
            }
            if self.process.as_mut().expect("started").try_wait().expect("it can be waited for").is_some() {
                self.process = None;
                return Err(self.log()[said_before..].to_owned());
            }
            assert!(began.elapsed() < PATIENCE, "the node neither answers nor ends\n{}", self.log());
            std::thread::sleep(LOOK);
        }
    }

    fn spawn_node(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log")).expect("a log");
        let mut command = self.command(&["node", "run"]);
        command.args(&self.arguments).stdout(log.try_clone().expect("a log")).stderr(log);
        self.process = Some(command.spawn().expect("a node starts"));
        self.since = Instant::now();
    }

    /// Starts a command beside the node.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs")
    }

    /// Runs a command beside the node.
    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        let output = self.command(arguments).output().expect("the program runs");
        Done {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let done = self.run(&[arguments, &["--output", "json"]].concat());
        assert_eq!(done.status, 0, "{arguments:?}: {done:?}\n{}", self.log());
        serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {done:?}"))
    }

    pub(crate) fn wait_for(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        until(what, || condition(self), || self.log());
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Child::id)
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.since.elapsed()
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.pid().to_string()]).status().expect("kill runs");
        assert!(status.success());
    }

    fn wait_for_exit(&mut self) -> i32 {
        let Some(mut process) = self.process.take() else { return 0 };
        let began = Instant::now();
        loop {
            if let Some(status) = process.try_wait().expect("it can be waited for") {
                return status.code().unwrap_or(-1);
            }
            if began.elapsed() > PATIENCE {
                let _ = process.kill();
                let _ = process.wait();
                panic!("the node did not end\n{}", self.log());
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "why a test fails")]
            {
                eprintln!("--- log of {}\n{}", self.peer, self.log());
            }
        }
    }
}

/// Some nodes of one mesh.
pub(crate) struct Mesh {
    nodes: Vec<Node>,
}

impl Mesh {
    /// A mesh of so many running nodes that all list these repositories and hear each other.
    pub(crate) fn of(count: usize, repositories: &[Repository]) -> Self {
        Self::with(count, repositories, &[])
    }

    /// The same, with more arguments.
    pub(crate) fn with(count: usize, repositories: &[Repository], more: &[&str]) -> Self {
        Self::made(count, None, &arguments(repositories, more), |_| Vec::new())
    }

    /// The same, with a signal that its nodes do not die of.
    #[allow(dead_code, reason = "tests/mesh/durability.rs uses it")]
    pub(crate) fn with_signal_ignored(
        signal: &'static str,
        count: usize,
        repositories: &[Repository],
        more: &[&str],
    ) -> Self {
        Self::made(count, Some(signal), &arguments(repositories, more), |_| Vec::new())
    }

    /// The same with these arguments alone, and an environment for each node.
    #[allow(dead_code, reason = "tests/duty.rs uses it")]
    pub(crate) fn at_github(count: usize, more: &[&str], environment: impl Fn(usize) -> Vec<(String, String)>) -> Self {
        let listen = ["--listen", ANY_PORT, "--isolation", "bwrap"];
        let arguments: Vec<String> = listen.iter().chain(more).map(|word| (*word).to_owned()).collect();
        Self::made(count, None, &arguments, environment)
    }

    fn made(
        count: usize,
        ignored: Option<&'static str>,
        arguments: &[String],
        environment: impl Fn(usize) -> Vec<(String, String)>,
    ) -> Self {
        let mut mesh = Self { nodes: Vec::new() };
        for n in 0..count {
            let mut node = Node::new(arguments.to_vec());
            (node.environment, node.ignored) = (environment(n), ignored);
            if n > 0 {
                let invited = mesh.nodes[0].run(&["mesh", "invite"]);
                assert_eq!(invited.status, 0, "{invited:?}");
                let joined = node.run(&["mesh", "join", invited.stdout.trim()]);
                assert_eq!(joined.status, 0, "{joined:?}");
            }
            node.start();
            mesh.nodes.push(node);
        }
        for node in &mesh.nodes {
            node.wait_for("hearing the others", |node| node.json(&["inspect", "status"])["peers"] == count - 1);
        }
        mesh
    }

    /// One more node, as the first, but of another build. Answers its number.
    #[allow(dead_code, reason = "tests/versions.rs uses it")]
    pub(crate) fn join(&mut self, program: &Path) -> usize {
        let number = self.nodes.len();
        let mut arguments = self.nodes[0].arguments.clone();
        if let Some(at) = arguments.iter().position(|word| word == "--listen") {
            arguments[at + 1] = ANY_PORT.to_owned();
        }
        let mut node = Node::new(arguments);
        node.program = program.to_owned();
        let invited = self.nodes[0].run(&["mesh", "invite"]);
        let joined = node.run(&["mesh", "join", invited.stdout.trim()]);
        assert_eq!(joined.status, 0, "{invited:?} {joined:?}");
        node.start();
        self.nodes.push(node);
        for node in &self.nodes {
            node.wait_for("hearing the others", |node| node.json(&["inspect", "status"])["peers"] == number);
        }
        number
    }

    /// Ends a node in order and starts it again as another build.
    #[allow(dead_code, reason = "tests/versions.rs uses it")]
    pub(crate) fn rebuild(&mut self, number: usize, program: &Path) {
        let peer = self.nodes[number].peer.clone();
        self.terminate(&peer);
        self.nodes[number].program = program.to_owned();
        self.start_again(number);
    }

    /// A mesh of one, with more arguments.
    pub(crate) fn alone(repositories: &[Repository], more: &[&str]) -> Self {
        let mut node = Node::new(arguments(repositories, more));
        node.start();
        Self { nodes: vec![node] }
    }

    /// Starts a node that was killed; what it has said if it ends instead of answering.
    pub(crate) fn try_to_start(&mut self, node: usize) -> Result<(), String> {
        self.nodes[node].try_to_start()
    }

    /// The running nodes.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.process.is_some())
    }

    pub(crate) fn node_of(&self, peer: &str) -> &Node {
        self.nodes.iter().find(|node| node.peer == peer).expect("a node of this mesh")
    }

    pub(crate) fn data_dir(&self, node: usize) -> PathBuf {
        self.nodes[node].data_dir()
    }

    /// Kills a node with SIGKILL; the number starts it again.
    pub(crate) fn kill(&mut self, peer: &str) -> usize {
        let at = self.nodes.iter().position(|node| node.peer == peer).expect("a node of this mesh");
        let mut process = self.nodes[at].process.take().expect("it runs");
        process.kill().expect("killed");
        process.wait().expect("gone");
        at
    }

    pub(crate) fn start_again(&mut self, node: usize) {
        let before = self.nodes[node].peer.clone();
        self.nodes[node].start();
        assert_eq!(self.nodes[node].peer, before, "its identity");
    }

    /// Starts it, and does not wait for its answer.
    #[allow(dead_code, reason = "tests/mesh/starts.rs uses it")]
    pub(crate) fn spawn_again(&mut self, node: usize) {
        self.nodes[node].spawn_node();
    }

    /// Lets the next life of a node be started with other words.
    #[allow(dead_code, reason = "some tests use it")]
    pub(crate) fn say_instead(&mut self, node: usize, before: &str, after: &str) {
        let words = self.nodes[node].arguments.iter_mut().filter(|word| word.as_str() == before);
        words.for_each(|word| *word = after.to_owned());
    }

    /// Starts a node that is to fail.
    pub(crate) fn run_in_vain(&self, node: usize) -> Done {
        let arguments: Vec<&str> = self.nodes[node].arguments.iter().map(String::as_str).collect();
        self.nodes[node].run(&[&["node", "run"], arguments.as_slice()].concat())
    }

    /// The node with that number, running or not.
    pub(crate) fn node(&self, number: usize) -> &Node {
        &self.nodes[number]
    }

    /// Waits for the end of a node that was told to go; it must exit with 0.
    #[allow(dead_code, reason = "tests/mesh/stay.rs uses it")]
    pub(crate) fn wait_for_the_end_of(&mut self, peer: &str) -> usize {
        let at = self.nodes.iter().position(|node| node.peer == peer).expect("a node of this mesh");
        assert_eq!(self.nodes[at].wait_for_exit(), 0, "{}", self.nodes[at].log());
        at
    }

    /// Ends a node with SIGTERM; it must exit with 0.
    pub(crate) fn terminate(&mut self, peer: &str) {
        let at = self.nodes.iter().position(|node| node.peer == peer).expect("a node of this mesh");
        self.nodes[at].signal("-TERM");
        assert_eq!(self.nodes[at].wait_for_exit(), 0, "{}", self.nodes[at].log());
    }

    /// Waits until every running node shows exactly so many tasks and the condition holds of each, and gives them.
    pub(crate) fn wait_for_tasks(&self, count: usize, condition: impl Fn(&Value) -> bool) -> Vec<Value> {
        let tasks = |node: &Node| match node.json(&["inspect", "tasks"]) {
            Value::Array(tasks) => tasks,
            other => panic!("not a list: {other}"),
        };
        for node in self.nodes() {
            let is_so = || {
                let tasks = tasks(node);
                tasks.len() == count && tasks.iter().all(&condition)
            };
            until("the tasks' state", is_so, || format!("{:#?}\n{}", tasks(node), self.logs()));
        }
        tasks(self.nodes().next().expect("a node runs"))
    }

    /// Waits until all running nodes have the same heads and the same state.
    pub(crate) fn wait_for_agreement(&self) {
        let views = || -> Vec<Value> { self.nodes().map(|node| node.json(&["inspect", "status"])).collect() };
        let agree = || {
            let views = views();
            let as_first =
                |view: &Value| view["heads"] == views[0]["heads"] && view["state_hash"] == views[0]["state_hash"];
            views.iter().all(as_first)
        };
        until("agreement", agree, || format!("{:#?}\n{}", views(), self.logs()));
    }

    fn logs(&self) -> String {
        self.nodes().map(Node::log).collect::<Vec<_>>().join("\n---\n")
    }

    /// Ends all nodes with SIGTERM: each exits with 0 and leaves no process that works for it.
    pub(crate) fn stop(mut self) {
        for node in &mut self.nodes {
            if node.process.is_some() {
                node.signal("-TERM");
            }
        }
        for node in &mut self.nodes {
            assert_eq!(node.wait_for_exit(), 0, "{}", node.log());
            assert_eq!(processes_naming(node.dir.path()), Vec::<String>::new());
        }
    }
}

fn arguments(repositories: &[Repository], more: &[&str]) -> Vec<String> {
    let mut arguments: Vec<String> = ["--listen", ANY_PORT, "--max-runners", "2"].map(str::to_owned).into();
    if !more.contains(&"--isolation") {
        arguments.extend(["--isolation", "bwrap"].map(str::to_owned));
    }
    arguments.extend(["--interval".to_owned(), "1".to_owned()]);
    for repository in repositories {
        arguments.extend(["--source".to_owned(), format!("git:{}", repository.path())]);
    }
    arguments.extend(more.iter().map(|word| (*word).to_owned()));
    arguments
}

/// The command lines of processes that name the path.
fn processes_naming(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let mut line = String::new();
        if let Ok(mut file) = fs::File::open(entry.path().join("cmdline"))
            && file.read_to_string(&mut line).is_ok()
            && line.contains(path.to_str().expect("UTF-8"))
        {
            found.push(line.replace('\0', " "));
        }
    }
    found
}
