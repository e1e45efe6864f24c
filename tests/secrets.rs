//! What must stay secret stays so: values are planted in every place that holds one, a mesh of real processes runs tasks
//! that look for them, and everything that anybody can read afterwards is searched.
//!
//! Needs git, act (on PATH, or named by RUNMESH_ACT) and bubblewrap; `scripts/test` installs them.

mod github {
    pub(crate) mod fake;
}
#[allow(dead_code, reason = "tests/mesh.rs uses the rest")]
#[path = "mesh/rig.rs"]
mod rig;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use github::fake::limits::Token;
use github::fake::{Fake, World};
use rig::{Mesh, Node, Repository};

/// A job that looks wherever it can.
fn prying(data_dirs: &[PathBuf]) -> String {
    let dirs: Vec<String> = data_dirs.iter().map(|dir| dir.display().to_string()).collect();
    let dirs = dirs.join(" ");
    format!(
        "name: pries\non: push\nenv:\n  WORKFLOW_TAGS: p2p-only\njobs:\n  a:\n    runs-on: self-hosted\n    steps:\n      \
         - uses: actions/checkout@v4\n      - run: |\n          env\n          cat .git/config || true\n          \
         cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n' || true\n          \
         find {dirs} -type f 2>/dev/null | while read -r f; do echo \"SEEN $f\"; cat \"$f\"; done || true\n          \
         ls -la ~ /tmp || true\n          echo has pried\n"
    )
}

/// All that a process of this host was given on its command line, as long as the test runs.
fn watch_command_lines(stop: &AtomicBool) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            if let Ok(line) = fs::read(process.path().join("cmdline")) {
                seen.insert(String::from_utf8_lossy(&line).replace('\0', " "));
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    seen
}

/// The files below a folder.
fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path(), into),
            Ok(kind) if kind.is_file() => into.push(entry.path()),
            _ => {}
        }
    }
}

/// Everything that a node's commands answer.
fn answers(node: &Node, task: &str) -> String {
    let asked: [&[&str]; 12] = [
        &["inspect", "status"],
        &["inspect", "peers"],
        &["inspect", "tasks"],
        &["inspect", "tasks", task],
        &["inspect", "queue"],
        &["inspect", "clock"],
        &["inspect", "runners"],
        &["inspect", "sources"],
        &["inspect", "events"],
        &["mesh", "members"],
        &["tasks", "logs", task],
        &["doctor"],
    ];
    let mut all = String::new();
    for arguments in asked {
        for form in ["table", "json"] {
            let done = node.run(&[arguments, &["--output", form]].concat());
            all.push_str(&done.stdout);
            all.push_str(&done.stderr);
        }
    }
    all
}

#[test]
fn no_secret_is_told_to_anybody() {
    let mut world = World::new();
    let local = Repository::with(&[]);
    world.repository("octo/prying", &[("README.md", "one\n")]).private = true;
    let fake = Fake::start(world);
    let token = |node: usize| format!("ghp_planted{node}Uq7Zr2TtWw");
    let environment = |node: usize| {
        let sees = Some(vec!["octo".to_owned()]);
        fake.state().limits.tokens.insert(token(node), Token { sees, ..Token::of("octo") });
        let pairs = [
            ("RUNMESH_GITHUB_API", fake.api()),
            ("GITHUB_TOKEN", token(node)),
            // Whatever anybody may turn on to look for a fault.
            ("RUNMESH_LOG", "trace".to_owned()),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).to_vec()
    };
    let git = format!("git:{}", local.path());
    let arguments = ["--source", "github:octo", "--source", &git, "--interval", "1", "--max-runners", "2"];
    let mesh = Mesh::at_github(2, &arguments, environment);
    let dirs: Vec<PathBuf> = mesh.nodes().map(Node::data_dir).collect();

    let stop = AtomicBool::new(false);
    let (tasks, lines) = thread::scope(|scope| {
        let watcher = scope.spawn(|| watch_command_lines(&stop));
        fake.commit("octo/prying", &[(".github/workflows/pries.yml", Some(&prying(&dirs)))]);
        local.commit("pries.yml", &prying(&dirs));
        let tasks = mesh.wait_for_tasks(2, |task| task["state"] == "completed");
        stop.store(true, Ordering::Relaxed);
        (tasks, watcher.join().expect("it watched"))
    });

    let mut planted: Vec<(&str, String)> = vec![("the first token", token(0)), ("the second token", token(1))];
    for dir in &dirs {
        let key = fs::read_to_string(dir.join("identity.key")).expect("a key");
        planted.push(("an identity", key.trim().to_owned()));
    }
    let mesh_key = fs::read_to_string(dirs[0].join("mesh.key")).expect("the founder has it");
    planted.push(("the mesh key", mesh_key.trim().to_owned()));

    let mut readable: Vec<(String, String)> = Vec::new();
    for node in mesh.nodes() {
        readable.push((format!("log of {}", node.peer), node.log()));
        for task in &tasks {
            let id = task["id"].as_str().expect("an id");
            let told = answers(node, id);
            assert!(told.contains("has pried"), "the job has run: {told}");
            assert!(!told.contains("SEEN "), "a job sees files of a node: {told}");
            readable.push((format!("answers of {}", node.peer), told));
        }
    }
    readable.extend(lines.into_iter().map(|line| ("a command line".to_owned(), line)));
    let keeps = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        matches!(name, "identity.key" | "mesh.key")
    };
    for dir in &dirs {
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(dir), 0o700);
        let mut all = Vec::new();
        files(dir, &mut all);
        for path in all {
            assert_eq!(mode(&path) & 0o077, 0, "{} is for its owner alone", path.display());
            if !keeps(&path) {
                let bytes = fs::read(&path).expect("readable");
                readable.push((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
            }
        }
    }
    assert!(readable.len() > 20, "there is something to search");
    for (place, text) in &readable {
        for (what, value) in &planted {
            let at = text.find(value.as_str());
            let around = at.map(|at| &text[text.floor_char_boundary(at.saturating_sub(200))..at]);
            assert_eq!(around, None, "{what} is in {place}");
        }
    }
    mesh.stop();
}

#[test]
fn a_node_that_crashes_leaves_no_core_dump() {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, Stdio};

    // With the limit lifted, so that only the node itself keeps one from being made.
    let place = tempfile::tempdir().expect("a directory");
    let crashed = |program: &str, arguments: &[&str], is_ready: &dyn Fn() -> bool| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -c unlimited 2>/dev/null; exec \"$0\" \"$@\"", program]).args(arguments);
        shell.current_dir(place.path()).env("XDG_CONFIG_HOME", place.path());
        let mut process =
            shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        let began = Instant::now();
        while !is_ready() {
            assert!(began.elapsed() < Duration::from_secs(90), "it does not answer");
            thread::sleep(Duration::from_millis(50));
        }
        let killed = Command::new("kill").args(["-ABRT", &process.id().to_string()]).status().expect("kill runs");
        assert!(killed.success());
        process.wait().expect("it ends")
    };
    let data = place.path().join("data");
    let data = data.to_str().expect("UTF-8");
    let node = ["node", "run", "--data-dir", data, "--listen", "/ip4/127.0.0.1/tcp/0", "--executor", "none"];
    let answers = || {
        let asked = Command::new(rig::PROGRAM).args(["inspect", "status", "--data-dir", data]).output();
        asked.expect("it runs").status.success()
    };
    let ended = crashed(rig::PROGRAM, &node, &answers);
    assert_eq!(ended.signal(), Some(6), "{ended:?}");
    assert!(!ended.core_dumped(), "{ended:?}");
    let dumps: Vec<_> = fs::read_dir(place.path()).expect("there").flatten().map(|one| one.file_name()).collect();
    assert!(dumps.iter().all(|name| !name.to_string_lossy().starts_with("core")), "{dumps:?}");
}
