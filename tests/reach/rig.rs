//! A network of hosts in namespaces of their own, and nodes on them.
//!
//! All of it lives in one process namespace that ends with its first process, a shell, which ends with its standard
//! input: so nothing is left behind however a test ends, not even when it is killed. Its names are seen by nobody outside.
//! Who is not root gets a user namespace too; where the host allows none, the test fails and says so.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The longest any condition may take to come about, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(100);
const PROGRAM: &str = env!("CARGO_BIN_EXE_runmesh");

/// Reads commands, and says how each ended.
const SHELL: &str = "PATH=$PATH:/usr/sbin:/sbin; mount -t tmpfs tmpfs /run || exit 1; echo =0; \
    while IFS= read -r line; do eval \"$line\" </dev/null 2>&1; echo \"=$?\"; done";

pub(crate) struct Rig {
    shell: Child,
    commands: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    dir: TempDir,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        if !rustix::process::geteuid().is_root() {
            unshare.args(["--user", "--map-root-user"]);
        }
        unshare.args(["bash", "-c", SHELL]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = unshare.spawn().expect("unshare runs");
        let out = BufReader::new(shell.stdout.take().expect("piped"));
        let (sender, lines) = mpsc::channel();
        // Ends with the shell, and with it its output.
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let commands = shell.stdin.take();
        let rig = Self { shell, commands, lines, dir: tempfile::tempdir().expect("a directory") };
        let (status, said) = rig.answer();
        assert_eq!(status, Some(0), "this host gives no namespaces: run it as root or allow user namespaces; {said}");
        rig
    }

    /// Runs a command of the shell in the rig, and gives what it says.
    pub(crate) fn run(&mut self, command: &str) -> String {
        let commands = self.commands.as_mut().expect("open");
        writeln!(commands, "{command}").and_then(|()| commands.flush()).expect("the shell listens");
        let (status, said) = self.answer();
        assert_eq!(status, Some(0), "{command}: {said}");
        said
    }

    fn answer(&self) -> (Option<i32>, String) {
        let mut said = String::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            match line.strip_prefix('=') {
                Some(status) => return (status.parse().ok(), said),
                None => said = said + &line + "\n",
            }
        }
        (None, said)
    }

    /// A network that carries what hosts say to each other, also to all.
    pub(crate) fn network(&mut self, name: &str) {
        self.run(&format!(
            "ip netns add {name} && ip -n {name} link add name bridge0 type bridge && ip -n {name} link set bridge0 up"
        ));
    }

    /// A host with an address in that network.
    pub(crate) fn host(&mut self, name: &str, network: &str, address: &str) {
        self.run(&format!("ip netns add {name} && ip -n {name} link set lo up"));
        self.plug(name, network, address);
    }

    fn plug(&mut self, host: &str, network: &str, address: &str) {
        self.run(&format!(
            "ip -n {host} link add name {network} type veth peer name {host} netns {network} && \
             ip -n {network} link set {host} master bridge0 up && \
             ip -n {host} addr add {address} dev {network} && ip -n {host} link set {network} up"
        ));
    }

    /// A host of a network of its own, behind a router that translates its address into one of `outside`, and drops
    /// whatever comes from there unasked. `ports` is how it chooses them: `` keeps them where it can, `random` never.
    pub(crate) fn behind(&mut self, host: &str, outside: &str, address: &str, ports: &str) {
        let (home, router) = (format!("{host}-home"), format!("{host}-router"));
        self.network(&home);
        self.host(&router, outside, address);
        self.plug(&router, &home, "192.168.1.1/24");
        self.host(host, &home, "192.168.1.10/24");
        self.run(&format!("ip -n {host} route add default via 192.168.1.1"));
        self.run(&format!("nsenter --net=/run/netns/{router} sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'"));
        let rules = format!(
            "table ip runmesh {{\n chain leaving {{\n type nat hook postrouting priority 100\n oifname \"{outside}\" \
             masquerade {ports}\n }}\n chain own {{\n type filter hook input priority 0\n iifname \"{outside}\" drop\n \
             }}\n chain passing {{\n type filter hook forward priority 0\n ct state established,related accept\n \
             iifname \"{outside}\" drop\n }}\n}}\n"
        );
        self.rules(&router, &rules);
    }

    /// Gives a host these rules of nftables.
    pub(crate) fn rules(&mut self, host: &str, rules: &str) {
        let path = self.dir.path().join("rules");
        fs::write(&path, rules).expect("written");
        self.run(&format!("nsenter --net=/run/netns/{host} nft -f {}", path.display()));
    }

    /// Nothing but what it says to itself comes to that host or leaves it.
    pub(crate) fn cut_off(&mut self, host: &str) {
        let chain = |name: &str, hook: &str, side: &str| {
            format!(" chain {name} {{\n type filter hook {hook} priority 0\n {side} != \"lo\" drop\n }}\n")
        };
        let rules = chain("comes", "input", "iifname") + &chain("goes", "output", "oifname");
        self.rules(host, &format!("table inet cut {{\n{rules}}}\n"));
    }

    /// Of what comes to that host, so many of a hundred packets are lost.
    pub(crate) fn lose(&mut self, host: &str, percent: u32) {
        let rules = format!(
            "table inet loss {{\n chain comes {{\n type filter hook input priority -10\n iifname != \"lo\" numgen random \
             mod 100 < {percent} drop\n }}\n}}\n"
        );
        self.rules(host, &rules);
    }

    pub(crate) fn reconnect(&mut self, host: &str) {
        self.rules(host, "delete table inet cut\n");
    }

    /// A node's data directory, whose host has that name.
    pub(crate) fn node(&self, host: &str) -> Node {
        let home = self.dir.path().join(host);
        fs::create_dir_all(&home).expect("a directory");
        Node { host: host.to_owned(), home, peer: String::new(), pid: String::new() }
    }

    /// Starts a node on its host, with variables and arguments.
    pub(crate) fn start(&mut self, node: &mut Node, more: &str) {
        let (host, home) = (&node.host, node.home.display());
        let pid = self.run(&format!(
            "env -i PATH=\"$PATH\" HOME={home} RUNMESH_LOG=${{RUNMESH_LOG:-info,runmesh=debug}} {} nsenter \
             --net=/run/netns/{host} {PROGRAM} node run --data-dir {home}/data --executor none --interval 1 {} \
             >>{home}/log 2>&1 & echo $!",
            more.split_once("--").map_or(more, |(variables, _)| variables),
            more.find("--").map_or("", |from| &more[from..]),
        ));
        node.pid = pid.trim().to_owned();
        node.wait_for("the node's answer", |node| node.run(&["inspect", "status"]).0 == 0);
        node.peer = node.json(&["inspect", "status"])["peer_id"].as_str().expect("a peer id").to_owned();
    }

    /// Sends a node a signal.
    pub(crate) fn signal(&mut self, node: &Node, signal: &str) {
        self.run(&format!("kill -{signal} {}", node.pid));
    }

    /// Ends a node and waits until it has gone.
    pub(crate) fn stop(&mut self, node: &Node) {
        self.run(&format!("kill -TERM {0}; timeout 30 tail --pid={0} -f /dev/null", node.pid));
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for host in fs::read_dir(self.dir.path()).into_iter().flatten().flatten() {
                if let Ok(log) = fs::read_to_string(host.path().join("log")) {
                    #[expect(clippy::print_stderr, reason = "why a test fails")]
                    {
                        eprintln!("--- log of {}\n{log}", host.file_name().display());
                    }
                }
            }
        }
        drop(self.commands.take());
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(10) {
            if matches!(self.shell.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(LOOK);
        }
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// A node's data directory. Its control socket can be reached from outside its host's network.
pub(crate) struct Node {
    pub(crate) peer: String,
    host: String,
    home: PathBuf,
    pid: String,
}

impl Node {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).arg("--data-dir").arg(self.home.join("data"));
        command.env("XDG_CONFIG_HOME", &self.home).env_remove("GITHUB_TOKEN").env_remove("GH_TOKEN");
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command beside the node: how it ended, and what it said.
    pub(crate) fn run(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.command(arguments).output().expect("the program runs");
        let said = if output.status.success() { output.stdout } else { output.stderr };
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).trim().to_owned())
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let (status, said) = self.run(&[arguments, &["--output", "json"]].concat());
        assert_eq!(status, 0, "{arguments:?}: {said}");
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {said}"))
    }

    pub(crate) fn wait_for(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !condition(self) {
            assert!(began.elapsed() < PATIENCE, "{what} did not come about at {}", self.host);
            std::thread::sleep(LOOK);
        }
    }

    pub(crate) fn host(&self) -> String {
        self.host.clone()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    pub(crate) fn mesh_key(&self) -> String {
        self.home.join("data/mesh.key").to_str().expect("UTF-8").to_owned()
    }

    /// Writes a file that nobody else may read beside its data, and gives its path.
    pub(crate) fn keep(&self, name: &str, text: &str) -> String {
        let path = self.home.join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// Makes this node one of that node's mesh.
    pub(crate) fn join(&self, other: &Self) {
        let (status, ticket) = other.run(&["mesh", "invite"]);
        assert_eq!(status, 0, "{ticket}");
        let (status, said) = self.run(&["mesh", "join", &ticket]);
        assert_eq!(status, 0, "{said}");
    }

    /// Waits until it hears exactly those.
    pub(crate) fn hears(&self, others: &[&Self]) {
        let mut expected: Vec<&str> = others.iter().map(|node| node.peer.as_str()).collect();
        expected.sort_unstable();
        self.wait_for(&format!("hearing {} others", expected.len()), |node| {
            let peers = node.json(&["inspect", "peers"]);
            let mut heard: Vec<&str> = peers.as_array().into_iter().flatten().filter_map(connected).collect();
            heard.sort_unstable();
            heard == expected
        });
    }

    /// The addresses by which it is connected with another one.
    pub(crate) fn ways_to(&self, other: &Self) -> Vec<String> {
        let peers = self.json(&["inspect", "peers"]);
        let peer = peers.as_array().into_iter().flatten().find(|peer| peer["peer_id"] == other.peer.as_str());
        let addresses = peer.and_then(|peer| peer["addresses"].as_array());
        addresses.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }
}

fn connected(peer: &Value) -> Option<&str> {
    peer["peer_id"].as_str().filter(|_| peer["connected"] == true)
}

/// A git repository with one workflow file, `any.yml`, that runs when it is asked for.
pub(crate) struct Repository(TempDir);

impl Repository {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let folder = dir.path().join(".github/workflows");
        fs::create_dir_all(&folder).expect("a folder");
        let text = "on: workflow_dispatch\njobs:\n  a:\n    runs-on: self-hosted\n    steps:\n      - run: echo\n";
        fs::write(folder.join("any.yml"), text).expect("a file");
        let author = ["-c", "user.name=T", "-c", "user.email=t@example.org"];
        for arguments in [&["init", "-q", "-b", "trunk"][..], &["add", "."], &["commit", "-q", "-m", "any"]] {
            let git = Command::new("git").arg("-C").arg(dir.path()).args(author).args(arguments).status();
            assert!(git.expect("git runs").success(), "git {arguments:?}");
        }
        Self(dir)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.path().to_str().expect("UTF-8")
    }
}
