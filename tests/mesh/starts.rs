//! The ledger of starts in real nodes: killed at any moment, they leave nothing that their next life does not take away.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::time::Duration;

use runmesh::store::{Book, DataDir, Owner, Store};
use serde_json::Value;

use crate::rig::{Mesh, Node, Repository};

const SLEEPS: &str = "# P2P: p2p-only\nname: sleeps\non: workflow_dispatch\njobs:\n  a:\n    runs-on: self-hosted\n    steps:\n      - run: (setsid sleep 600 &); sleep 600\n";

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    // act and the probe of its version keep settings in the home they are given.
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| !name.starts_with('.')).collect()
}

/// The control groups of nodes, wherever.
fn groups(below: &Path, depth: usize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(below).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if depth > 0 && !name.starts_with("runmesh-") {
                found.extend(groups(&entry.path(), depth - 1));
            }
            found.extend(name.starts_with("runmesh-").then_some(name));
        }
    }
    found
}

/// The processes that were started with a home in one of these directories.
fn at_home(work: &Path, names: &BTreeSet<String>) -> Vec<String> {
    let homes: Vec<String> = names.iter().map(|name| format!("HOME={}", work.join(name).display())).collect();
    let all = fs::read_dir("/proc").expect("/proc").flatten();
    let environ = |entry: &fs::DirEntry| fs::read(entry.path().join("environ")).unwrap_or_default();
    let has = |bytes: &[u8], home: &String| bytes.windows(home.len()).any(|part| part == home.as_bytes());
    let ours = all.filter(|entry| {
        let environ = environ(entry);
        homes.iter().any(|home| has(&environ, home))
    });
    ours.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn random(below: u64) -> u64 {
    RandomState::new().hash_one(0_u8) % below
}

fn interrupted(node: &Node, task: &str) -> bool {
    let events = node.json(&["inspect", "events", "--last", "1000"]);
    let is_it = |event: &Value| event["kind"] == "interrupted" && event["task"] == task;
    events.as_array().is_some_and(|events| events.iter().any(is_it))
}

/// What the ledger of a node that has ended still says.
fn owed(data_dir: &Path, status: &Value) -> usize {
    let of = |key: &str| status[key].as_str().expect("an id").to_owned();
    let owner = Owner { mesh: of("mesh_id").parse().expect("a mesh"), peer: of("peer_id").parse().expect("a peer") };
    let store = Store::open(DataDir::open(data_dir).and_then(DataDir::hold).expect("held"), owner).expect("opened");
    [Book::Starts, Book::Registrations].map(|book| store.records(book).expect("read").len()).iter().sum()
}

#[test]
fn after_kills_at_random_moments_nothing_is_left_of_sandboxes() {
    ten_kills("bwrap");
}

#[test]
fn after_kills_at_random_moments_nothing_is_left_without_isolation() {
    ten_kills("none");
}

fn ten_kills(isolation: &str) {
    let files: Vec<String> = (0..24).map(|n| format!("sleeps{n}.yml")).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|name| (name.as_str(), SLEEPS)).collect();
    let repository = Repository::with(&files);
    let mut mesh = Mesh::alone(std::slice::from_ref(&repository), &["--isolation", isolation]);
    let (peer, status) = (mesh.node(0).peer.clone(), mesh.node(0).json(&["inspect", "status"]));
    let work = fs::canonicalize(mesh.data_dir(0)).expect("a folder").join("work");
    // The first at a moment at which something surely runs; the next life says what it was.
    mesh.node(0).wait_for("a start", |node| !node.json(&["inspect", "runners"]).as_array().is_none_or(Vec::is_empty));
    let runner = mesh.node(0).json(&["inspect", "runners"])[0].clone();
    let mut at_work = 0;
    for kill in 0..10 {
        let node = mesh.kill(&peer);
        if kill % 3 == 2 {
            // Also a life that has hardly begun.
            mesh.spawn_again(node);
            std::thread::sleep(Duration::from_millis(random(1500)));
            mesh.kill(&peer);
        }
        let left = names(&work);
        at_work += usize::from(!left.is_empty());
        mesh.start_again(node);
        let now = names(&work);
        assert!(left.is_disjoint(&now), "kill {kill}: {left:?} {now:?}");
        assert_eq!(at_home(&work, &left), [""; 0], "kill {kill}");
        let stray = |group: &String| left.iter().any(|name| group.ends_with(name.as_str()));
        let groups = groups(Path::new("/sys/fs/cgroup"), 8);
        assert!(!groups.iter().any(stray), "kill {kill}: {groups:?}");
        if kill == 0 {
            assert!(interrupted(mesh.node(0), runner["task"].as_str().expect("an id")), "{runner}");
        }
        std::thread::sleep(Duration::from_millis(random(2500)));
    }
    assert!(at_work >= 3, "most kills met something at work: {at_work}");
    mesh.terminate(&peer);
    assert_eq!((names(&work), owed(&mesh.data_dir(0), &status)), (BTreeSet::new(), 0));
    mesh.stop();
}

#[test]
fn with_another_work_directory_in_the_settings_the_old_one_is_cleared() {
    let scratch = tempfile::tempdir().expect("a folder");
    let file = scratch.path().join("config.toml");
    let set = |folder: &str| fs::write(&file, format!("work_dir = \"{folder}\"\n")).expect("a file");
    // The one directory below it that is the node's.
    let own = |folder: &str| -> PathBuf {
        let folder = scratch.path().join(folder);
        let names = names(&folder);
        assert!(names.len() == 1 && names.iter().all(|name| name.starts_with("runmesh-")), "{names:?}");
        folder.join(names.first().expect("one"))
    };
    set("first");
    let repository = Repository::with(&[("sleeps.yml", SLEEPS)]);
    let mut mesh = Mesh::alone(std::slice::from_ref(&repository), &["--config", file.to_str().expect("UTF-8")]);
    let peer = mesh.node(0).peer.clone();
    let running = |node: &Node| node.json(&["inspect", "runners"])[0]["state"] == "running";
    mesh.node(0).wait_for("a run", running);
    let first = own("first");
    let left = names(&first);
    assert_eq!(left.len(), 1, "{left:?}");
    let node = mesh.kill(&peer);
    set("second");
    mesh.start_again(node);
    assert_eq!((names(&first), at_home(&first, &left)), (BTreeSet::new(), Vec::new()));
    mesh.node(0).wait_for("a run elsewhere", running);
    assert_eq!(names(&own("second")).len(), 1);
    mesh.stop();
    assert_eq!(names(&first), BTreeSet::new());
}
