//! What was acknowledged is kept, whatever happens to the process and to its disk; and no attempt runs twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use runmesh::control::{Client, ControlError, proto};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::rig::{Mesh, Node, Repository};

const PLAIN: &str =
    "name: plain\non: workflow_dispatch\njobs:\n  a:\n    runs-on: self-hosted\n    steps:\n      - run: echo\n";
/// How often the node is killed.
const KILLS: usize = 100;
/// The most tasks that are submitted in one life of it.
const SUBMISSIONS: usize = 3;
/// How long a node may take to acknowledge a task.
const PATIENCE: Duration = Duration::from_secs(60);

/// Numbers that look random and are the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most
    }
}

/// A stand-in for act that takes no time: it leaves a mark for each start, and says so when another run of the same
/// task is under way.
struct Marks {
    dir: tempfile::TempDir,
}

impl Marks {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let script = format!(
            r#"#!/bin/sh
if [ "$1" = --version ]; then echo act version 0.2.89; exit 0; fi
for word in "$@"; do case $word in */checkout) run=$(basename "$(dirname "$word")");; esac; done
echo "$run" >> "{marks}/starts"
exec 9> "{marks}/lock-${{run%%-*}}"
flock -n 9 || echo "$run" >> "{marks}/overlaps"
sleep 0.05
echo '{{"job":"plain/a","jobID":"a","level":"info","matrix":{{}},"msg":"done","jobResult":"success"}}'
"#,
            marks = dir.path().display()
        );
        let act = dir.path().join("act");
        fs::write(&act, script).expect("written");
        fs::set_permissions(&act, fs::Permissions::from_mode(0o755)).expect("made a program");
        Self { dir }
    }

    fn act(&self) -> PathBuf {
        self.dir.path().join("act")
    }

    /// What ran: the beginning of a task's id, the attempt, and the end of the claim's.
    fn starts(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("starts")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn check(&self) {
        let overlaps = fs::read_to_string(self.dir.path().join("overlaps")).unwrap_or_default();
        assert_eq!(overlaps, "", "a task runs while it runs already");
        let starts = self.starts();
        let once: BTreeSet<&String> = starts.iter().collect();
        assert_eq!(starts.len(), once.len(), "an attempt is started twice: {starts:#?}");
    }
}

fn submission(repository: &Repository, request: String) -> proto::SubmitRequest {
    proto::SubmitRequest {
        repository: repository.path().to_owned(),
        path: "plain.yml".to_owned(),
        request,
        ..Default::default()
    }
}

/// Submits until the node is gone, and says when something is acknowledged. The ids of what was.
async fn submit(data_dir: &Path, repository: &Repository, life: usize, told: Sender<()>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let Ok(client) = Client::connect(data_dir).await else { return acknowledged };
    let mut number = 0;
    while number < SUBMISSIONS {
        match client.submit(submission(repository, format!("{life}-{number}"))).await {
            Ok(id) => {
                acknowledged.push(id);
                number += 1;
                // Whoever has waited long enough listens no more.
                let _ = told.send(());
            }
            // The sources are not looked at yet.
            Err(ControlError::Refused { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(_) => break,
        }
    }
    acknowledged
}

fn tasks(node: &Node) -> BTreeMap<String, Value> {
    let Value::Array(tasks) = node.json(&["inspect", "tasks"]) else { panic!("a list") };
    tasks.into_iter().map(|task| (task["id"].as_str().expect("an id").to_owned(), task)).collect()
}

#[test]
fn a_hundred_kills_at_any_moment_lose_nothing_acknowledged_and_start_no_attempt_twice() {
    let (marks, repository) = (Marks::new(), Repository::with(&[("plain.yml", PLAIN)]));
    let act = marks.act();
    let more = ["--act", act.to_str().expect("UTF-8"), "--isolation", "none"];
    let mut mesh = Mesh::alone(std::slice::from_ref(&repository), &more);
    let runtime = Runtime::new().expect("a runtime");
    let (mut chance, mut acknowledged) = (Chance(1), BTreeSet::new());
    let peer = mesh.node(0).peer.clone();
    for life in 0..KILLS {
        let data_dir = mesh.data_dir(0);
        let (data_dir, repository, runtime) = (&data_dir, &repository, &runtime);
        std::thread::scope(|scope| {
            let (told, each) = channel();
            let submitting = scope.spawn(move || runtime.block_on(submit(data_dir, repository, life, told)));
            // Every other life lasts until two tasks or all three could be lost, however slow this machine is.
            let at_least = if life % 2 == 0 { SUBMISSIONS - life / 2 % 2 } else { 0 };
            for _ in 0..at_least {
                each.recv_timeout(PATIENCE).expect("a task is acknowledged");
            }
            std::thread::sleep(Duration::from_millis(chance.below(250)));
            mesh.kill(&peer);
            acknowledged.extend(submitting.join().expect("submitted"));
        });
        mesh.start_again(0);
        if life % 10 == 9 {
            let known = tasks(mesh.node(0));
            let lost: Vec<&String> = acknowledged.iter().filter(|id| !known.contains_key(*id)).collect();
            assert!(lost.is_empty(), "after {} kills these are lost: {lost:?}", life + 1);
        }
    }
    assert!(acknowledged.len() > KILLS, "only {} were acknowledged", acknowledged.len());
    let node = mesh.node(0);
    let open = |task: &Value| matches!(task["state"].as_str(), Some("pending" | "claimed" | "running"));
    node.wait_for("the end of all tasks", |node| !tasks(node).values().any(open));
    let known = tasks(node);
    assert!(acknowledged.iter().all(|id| known.contains_key(id)));
    for (id, task) in &known {
        let attempts =
            marks.starts().iter().filter(|start| id.starts_with(start.split('-').next().expect("an id"))).count();
        match task["state"].as_str() {
            Some("completed") => assert!(attempts >= 1, "{id} did not run: {task:#}"),
            // Its host went down three times while it ran.
            state => assert!(state == Some("lost") && task["attempt"].as_u64() >= Some(3), "{task:#}"),
        }
    }
    marks.check();
    mesh.stop();
}

#[test]
fn a_torn_end_of_the_database_is_recovered_or_refused_and_never_taken_for_less() {
    let repository = Repository::with(&[("plain.yml", PLAIN)]);
    let mut mesh = Mesh::alone(std::slice::from_ref(&repository), &["--executor", "none"]);
    let runtime = Runtime::new().expect("a runtime");
    let submitted = runtime.block_on(submit(&mesh.data_dir(0), &repository, 0, channel().0));
    assert_eq!(submitted.len(), SUBMISSIONS);
    let peer = mesh.node(0).peer.clone();
    mesh.kill(&peer);
    let file = mesh.data_dir(0).join("runmesh.redb");
    let good = fs::read(&file).expect("the database");
    // What the last commit wrote: from the last byte that is not 0 back.
    let used = good.iter().rposition(|byte| *byte != 0).expect("not empty") + 1;
    let (mut chance, mut refused, mut recovered) = (Chance(2), 0, 0);
    for turn in 0..24 {
        let mut torn = good.clone();
        let back = chance.below(20_000) as usize;
        let at = used.saturating_sub(back).max(4096);
        match turn % 3 {
            0 => torn.truncate(at),
            1 => torn[at..(at + 4096).min(good.len())].fill(0),
            _ => torn[at..(at + 512).min(good.len())].iter_mut().for_each(|byte| *byte ^= 0xa5),
        }
        fs::write(&file, &torn).expect("written");
        match mesh.try_to_start(0) {
            Ok(()) => {
                let known = tasks(mesh.node(0));
                let (last, others) = submitted.split_last().expect("some");
                assert!(others.iter().all(|id| known.contains_key(id)), "turn {turn}: what was intact is lost");
                // Of the last commit nobody can tell whether it was torn before or after it was acknowledged.
                let told = mesh.node(0).log().contains("the database's last commit was cut off and is rolled back");
                assert!(known.contains_key(last) || told, "turn {turn}: the last commit is lost in silence");
                recovered += 1;
                mesh.kill(&peer);
            }
            Err(said) => {
                assert!(said.contains("error: ") && said.contains("move it away"), "turn {turn}: {said}");
                assert!(fs::read(&file).expect("still there") == torn, "turn {turn}: the file was changed");
                refused += 1;
            }
        }
        fs::write(&file, &good).expect("written");
    }
    assert!(refused > 0 && recovered > 0, "{refused} refused, {recovered} recovered");
    mesh.start_again(0);
    let known = tasks(mesh.node(0));
    assert!(submitted.iter().all(|id| known.contains_key(id)));
    mesh.stop();
}

#[test]
fn a_full_disk_refuses_submissions_in_words_loses_nothing_and_is_got_over() {
    let repository = Repository::with(&[("plain.yml", PLAIN)]);
    let mut mesh = Mesh::with_signal_ignored("XFSZ", 1, std::slice::from_ref(&repository), &["--executor", "none"]);
    let runtime = Runtime::new().expect("a runtime");
    let submitted = runtime.block_on(submit(&mesh.data_dir(0), &repository, 0, channel().0));
    let client = runtime.block_on(Client::connect(&mesh.data_dir(0))).expect("connected");
    let ask = |request: &str| runtime.block_on(client.submit(submission(&repository, request.to_owned())));

    // No file may grow beyond its beginning: what the disk says to the process is that a file is too large, which it
    // takes like a full one.
    limit_files(mesh.node(0), "4096:");
    let began = Instant::now();
    for request in ["first", "second", "third"] {
        match ask(request) {
            Err(ControlError::Refused { sentence, .. }) => {
                assert!(sentence.contains("no space is left there; free some"), "{sentence}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(began.elapsed() < Duration::from_secs(20), "a refusal takes {:?}", began.elapsed());
    let status = mesh.node(0).json(&["inspect", "status"]);
    let warned = status["warnings"].as_array().expect("a list").iter();
    assert!(warned.filter_map(Value::as_str).any(|text| text.contains("tried again every second")), "{status:#}");
    let cancelled = mesh.node(0).run(&["tasks", "cancel", &submitted[0]]);
    assert!(cancelled.status == 1 && cancelled.stderr.contains("no space is left"), "{cancelled:?}");

    limit_files(mesh.node(0), "unlimited:");
    mesh.node(0).wait_for("room", |_| ask("fourth").is_ok());
    mesh.node(0).wait_for("no warning", |node| {
        node.json(&["inspect", "status"])["warnings"].as_array().is_some_and(Vec::is_empty)
    });
    let before = tasks(mesh.node(0));
    assert!(submitted.iter().all(|id| before.contains_key(id)));

    // Killed while it is full, it starts again once there is room.
    limit_files(mesh.node(0), "4096:");
    assert!(ask("fifth").is_err());
    let peer = mesh.node(0).peer.clone();
    mesh.kill(&peer);
    mesh.start_again(0);
    let after = tasks(mesh.node(0));
    assert!(before.keys().all(|id| after.contains_key(id)), "{before:#?} {after:#?}");
    mesh.stop();
}

/// A stand-in for act that never ends, and says under which number it runs.
struct Endless {
    dir: tempfile::TempDir,
}

impl Endless {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let said = dir.path().join("pid").display().to_string();
        let script = format!(
            "#!/bin/sh\nif [ \"$1\" = --version ]; then echo act version 0.2.89; exit 0; fi\n\
             echo $$ > {said}.new; mv {said}.new {said}; exec sleep 3600\n"
        );
        fs::write(dir.path().join("act"), script).expect("written");
        fs::set_permissions(dir.path().join("act"), fs::Permissions::from_mode(0o755)).expect("made a program");
        Self { dir }
    }

    /// Has one task run in that mesh, on a host whose disk then refuses. Answers which host, and what is there while it
    /// runs.
    fn begin(&self, mesh: &Mesh, repository: &Repository) -> (String, PathBuf) {
        let submit = |node: &Node| node.run(&["tasks", "submit", repository.path(), "plain.yml"]);
        mesh.node(0).wait_for("a task", |node| submit(node).status == 0);
        let said = || fs::read_to_string(self.dir.path().join("pid"));
        mesh.node(0).wait_for("its run", |_| said().is_ok());
        let runs = Path::new("/proc").join(said().expect("said").trim());
        let task = mesh.wait_for_tasks(1, |task| task["state"] == "running").remove(0);
        let holder = task["holder"].as_str().expect("a peer").to_owned();
        limit_files(mesh.node_of(&holder), "4096:");
        // Something has to be written for the disk to refuse it.
        let other = mesh.nodes().find(|node| node.peer != holder).unwrap_or(mesh.node_of(&holder));
        submit(other);
        mesh.node_of(&holder).wait_for("the disk's refusal", disk_refuses);
        (holder, runs)
    }
}

fn disk_refuses(node: &Node) -> bool {
    let status = node.json(&["inspect", "status"]);
    let mut warnings = status["warnings"].as_array().expect("a list").iter().filter_map(Value::as_str);
    warnings.any(|text| text.contains("tried again every second"))
}

#[test]
fn while_its_disk_refuses_a_node_still_stops_its_work_and_ends_when_it_is_told_to() {
    let (endless, repository) = (Endless::new(), Repository::with(&[("plain.yml", PLAIN)]));
    let act = endless.dir.path().join("act");
    let more = ["--act", act.to_str().expect("UTF-8"), "--isolation", "none"];
    let mut mesh = Mesh::with_signal_ignored("XFSZ", 1, std::slice::from_ref(&repository), &more);
    let (holder, runs) = endless.begin(&mesh, &repository);
    let node = mesh.node(0);
    assert!(runs.exists(), "what runs goes on");
    let drained = node.run(&["node", "drain", "--limit", "1s", "--no-wait"]);
    assert_eq!(drained.status, 0, "{drained:?}");
    node.wait_for("the end of the run", |_| !runs.exists());
    assert_eq!(node.run(&["inspect", "status"]).status, 0, "it is stopped before the node ends");
    mesh.wait_for_the_end_of(&holder);
}

#[test]
fn what_stops_when_cut_off_stops_when_the_disk_has_refused_for_a_while() {
    let (endless, repository) = (Endless::new(), Repository::with(&[("plain.yml", PLAIN)]));
    let (act, source) = (endless.dir.path().join("act"), format!("git:{}", repository.path()));
    let act = act.to_str().expect("UTF-8");
    let more = ["--act", act, "--isolation", "none", "--stop-when-cut-off", &source];
    let mesh = Mesh::with_signal_ignored("XFSZ", 2, std::slice::from_ref(&repository), &more);
    let (holder, runs) = endless.begin(&mesh, &repository);
    let node = mesh.node_of(&holder);
    node.wait_for("the end of the run", |_| !runs.exists());
    assert!(disk_refuses(node), "it was stopped although nothing can be kept");
    limit_files(node, "unlimited:");
    node.wait_for("the disk's room", |node| !disk_refuses(node));
    mesh.stop();
}

#[test]
fn below_its_floor_of_free_disk_a_host_claims_nothing_and_says_so() {
    let repository = Repository::with(&[("plain.yml", PLAIN)]);
    let scratch = tempfile::tempdir().expect("a directory");
    let config = scratch.path().join("config.toml");
    fs::write(&config, "min_free = \"1000000GiB\"\n").expect("writes");
    let config = ["--config", config.to_str().expect("UTF-8")];
    let mesh = Mesh::alone(std::slice::from_ref(&repository), &config);
    let node = mesh.node(0);
    let submitted = node.run(&["tasks", "submit", repository.path(), ".github/workflows/plain.yml"]);
    assert_eq!(submitted.status, 0, "{submitted:?}");
    mesh.wait_for_tasks(1, |task| task["waits_for"] != "" && task["attempt"] == 0);
    let status = node.json(&["inspect", "status"]);
    let told = "claims nothing until there is more (setting min_free)";
    let warned = status["warnings"].as_array().expect("a list").iter().filter_map(Value::as_str);
    assert!(warned.into_iter().any(|text| text.contains(told)), "{status:#}");
    assert!(status["runners"]["free"] == 0 && node.log().contains(told), "{status:#}");
    mesh.stop();
}

/// Sets the soft limit of the size of the node's files, in bytes.
fn limit_files(node: &Node, soft: &str) {
    let pid = node.pid().to_string();
    let status =
        Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={soft}")]).status().expect("prlimit runs");
    assert!(status.success());
}
