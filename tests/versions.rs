//! Two adjacent versions of runmesh in one mesh: this one, and a build that knows one event kind more (`call-off`, a
//! cancellation by another name, under rules of the next number). What only some know is kept back until all do, whoever
//! says it; nobody stops working or sees another state meanwhile; and a node that is set back to the older version says
//! what is wrong, damages nothing, and goes on once it is upgraded again.
//!
//! Needs git, and that other version: scripts/test builds it first, of this package alone.

#[allow(dead_code, reason = "tests/adversary.rs uses the rest")]
#[path = "adversary/peer.rs"]
mod peer;
#[allow(dead_code, reason = "tests/mesh.rs uses the rest")]
#[path = "mesh/rig.rs"]
mod rig;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use ipld_core::ipld::Ipld;
use runmesh::kernel::entry::{Body, Cancel, Declare, Entry, Event, FORMAT, Hlc};
use runmesh::kernel::id::{Author, Incarnation, TaskId};
use runmesh::kernel::rules::RULES;
use runmesh::store::{DataDir, Owner, Secret, Store};
use runmesh::wire::ticket::Invitation;
use serde_json::Value;

use peer::Peer;
use rig::{Mesh, Node, PROGRAM, Repository};

const ANY: &str = "on: workflow_dispatch\njobs:\n  a:\n    runs-on: self-hosted\n    steps:\n      - run: echo\n";
const PATIENCE: Duration = Duration::from_secs(60);

const BUILD: &str = "cargo build --locked --features later --example later";

/// The program of the later version. It is not built here: a cargo within a test's environment builds all anew.
fn later() -> &'static Path {
    static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
        let built = this().parent().expect("a folder").join("examples/later");
        let time = |path: &Path| fs::metadata(path).and_then(|there| there.modified()).ok();
        let made = time(&built).unwrap_or_else(|| panic!("{} is not there: {BUILD}", built.display()));
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        while let Some(folder) = folders.pop() {
            for one in fs::read_dir(&folder).expect("readable").flatten().map(|one| one.path()) {
                assert!(
                    one.is_dir() || time(&one) <= Some(made),
                    "{} is newer than that build: {BUILD}",
                    one.display()
                );
                folders.extend(Some(one).filter(|one| one.is_dir()));
            }
        }
        built
    });
    &BUILT
}

fn this() -> &'static Path {
    Path::new(PROGRAM)
}

fn repository() -> Repository {
    Repository::with(&[("any.yml", ANY)])
}

fn submit(node: &Node, repository: &Repository) -> String {
    node.wait_for("the source", |node| {
        node.json(&["inspect", "sources"]).as_array().is_some_and(|sources| !sources.is_empty())
    });
    node.json(&["p2p-workflow", "submit", repository.path(), "any.yml"])["id"].as_str().expect("an id").to_owned()
}

fn state(node: &Node, id: &str) -> String {
    let shown = node.run(&["inspect", "tasks", id, "--output", "json"]);
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap_or_default();
    shown["state"].as_str().unwrap_or_default().to_owned()
}

/// A worker at that node takes the task and ends it, and all hear of it.
fn work(mesh: &Mesh, node: &Node, id: &str) {
    let taken = node.json(&["p2p-workflow", "next", "--wait", "60s"]);
    assert_eq!(taken["task"]["id"], id, "{taken:#}");
    assert_eq!(node.run(&["p2p-workflow", "complete", id]).status, 0);
    all_say(mesh, id, "completed");
}

fn all_say(mesh: &Mesh, id: &str, word: &str) {
    for node in mesh.nodes() {
        node.wait_for(word, |node| state(node, id) == word);
    }
}

/// Somebody at that node cancels a new task of his. Answers whether it was said as only the later version says it.
fn cancel_one(mesh: &Mesh, number: usize, repository: &Repository) -> bool {
    let node = mesh.node(number);
    let id = submit(node, repository);
    assert_eq!(node.run(&["tasks", "cancel", &id]).status, 0);
    all_say(mesh, &id, "cancelled");
    is_called_off(node)
}

/// Whether the node itself has said so lately.
fn is_called_off(node: &Node) -> bool {
    let clock = node.json(&["inspect", "clock"]);
    let said =
        |entry: &&Value| entry["peer_id"] == node.peer.as_str() && entry["events"].to_string().contains("call-off");
    clock["latest"].as_array().expect("a list").iter().any(|entry| said(&entry))
}

fn warnings(node: &Node) -> String {
    node.json(&["inspect", "status"])["warnings"].to_string()
}

fn faults(node: &Node) -> Vec<String> {
    let peers = node.json(&["inspect", "peers"]);
    peers
        .as_array()
        .expect("a list")
        .iter()
        .map(|peer| peer["faults"].to_string())
        .filter(|text| text.len() > 4)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_versions_work_together_and_what_only_one_knows_waits_until_all_do() {
    let (later, repository) = (later(), repository());
    let mut mesh = Mesh::with(2, std::slice::from_ref(&repository), &["--executor", "none"]);
    let third = mesh.join(later);
    // All of them take tasks of each other.
    for (at, by) in [(third, 0), (0, third), (third, 1)] {
        let id = submit(mesh.node(at), &repository);
        work(&mesh, mesh.node(by), &id);
    }
    assert!(!cancel_one(&mesh, third, &repository), "two do not know it");
    // A member that says it early, whatever it declares, is heard by nobody.
    let ticket = mesh.node(0).json(&["mesh", "invite"])["ticket"].as_str().expect("a ticket").to_owned();
    let mut hasty = Peer::join([90; 32], &ticket.parse::<Invitation>().expect("a ticket")).await;
    let early = submit(mesh.node(0), &repository);
    all_say(&mesh, &early, "pending");
    let task: TaskId = early.parse().expect("an id");
    hasty.learn().await;
    hasty.write(vec![Event::Declare(Declare { rules: RULES + 1 })]).await;
    let contents = Ipld::Map([("task".to_owned(), Ipld::Bytes(task.0.to_vec()))].into());
    let said = hasty.write(vec![Event::Unknown { kind: "call-off".to_owned(), contents }]).await.cid().to_string();
    for node in mesh.nodes() {
        node.wait_for("what it said", |node| node.json(&["inspect", "clock"])["latest"].to_string().contains(&said));
        assert_eq!(state(node, &early), "pending");
    }
    mesh.wait_for_agreement();
    // One is upgraded: the last keeps all from it.
    mesh.rebuild(0, later);
    assert!(!cancel_one(&mesh, 0, &repository), "one does not know it");
    let id = submit(mesh.node(0), &repository);
    // `early` waits longer and comes first.
    let taken = mesh.node(1).json(&["p2p-workflow", "next", "--wait", "60s"]);
    assert_eq!(taken["task"]["id"], early.as_str(), "{taken:#}");
    assert_eq!(mesh.node(1).run(&["p2p-workflow", "complete", &early]).status, 0);
    all_say(&mesh, &early, "completed");
    work(&mesh, mesh.node(1), &id);
    for node in mesh.nodes() {
        assert!(!warnings(node).contains("rules of folding"), "{}", warnings(node));
        assert_eq!(faults(node), Vec::<String>::new());
    }
    // With the last it counts everywhere.
    mesh.rebuild(1, later);
    let began = Instant::now();
    while !cancel_one(&mesh, third, &repository) {
        assert!(began.elapsed() < PATIENCE, "it is never said");
    }
    mesh.wait_for_agreement();
    let id = submit(mesh.node(third), &repository);
    work(&mesh, mesh.node(1), &id);
    drop(hasty);
    mesh.stop();
}

#[test]
fn a_node_that_is_set_back_says_so_decides_nothing_and_goes_on_once_it_is_upgraded() {
    let (later, repository) = (later(), repository());
    let mut mesh = Mesh::with(1, std::slice::from_ref(&repository), &["--executor", "none"]);
    mesh.rebuild(0, later);
    let second = mesh.join(later);
    let began = Instant::now();
    while !cancel_one(&mesh, 0, &repository) {
        assert!(began.elapsed() < PATIENCE, "it is never said");
    }
    mesh.rebuild(second, this());
    mesh.node(second).wait_for("its warning", |node| warnings(node).contains("rules of folding"));
    let id = submit(mesh.node(0), &repository);
    mesh.node(second).wait_for("the task", |node| state(node, &id) == "pending");
    let none = mesh.node(second).run(&["p2p-workflow", "next", "--wait", "3s"]);
    assert_eq!(none.status, 1, "{none:?}");
    // The others go on, and nobody blames anybody.
    work(&mesh, mesh.node(0), &id);
    for node in mesh.nodes() {
        assert_eq!(faults(node), Vec::<String>::new());
    }
    mesh.rebuild(second, later);
    mesh.wait_for_agreement();
    assert!(!warnings(mesh.node(second)).contains("rules of folding"));
    let id = submit(mesh.node(0), &repository);
    work(&mesh, mesh.node(second), &id);
    mesh.stop();
}

fn store(mesh: &Mesh) -> (Store, Secret) {
    let secret = Secret::read(&mesh.data_dir(0).join("identity.key")).expect("the node's");
    let id = Secret::read(&mesh.data_dir(0).join("mesh.key")).expect("the founder's").mesh_id();
    let dir = DataDir::create(&mesh.data_dir(0)).expect("there").hold().expect("nobody else");
    (Store::open(dir, Owner { mesh: id, peer: secret.peer_id() }).expect("opens"), secret)
}

/// Puts an entry on a node's disk as if a later version had written it, and notes the rules that it knew.
fn plant(mesh: &Mesh, format: u8, rules: u32) {
    let (store, secret) = store(mesh);
    let mesh = Secret::read(&mesh.data_dir(0).join("mesh.key")).expect("the founder's").mesh_id();
    let author = Author { peer: secret.peer_id(), incarnation: Incarnation(7) };
    // A note longer than this version takes stands for whatever it does not know.
    let events = vec![Event::Cancel(Cancel { task: TaskId([4; 32]), why: "w".repeat(1000) })];
    let body = Body { format, mesh, author, sequence: 1, parents: Vec::new(), time: Hlc::default(), events };
    store.append(&[Arc::new(Entry::seal(body, &secret.signing_key()))]).expect("on disk");
    store.keep_note("rules", &rules.to_be_bytes()).expect("on disk");
}

/// All entries' bytes, and the note.
fn held(mesh: &Mesh) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
    let (store, _) = store(mesh);
    let entries = store.entries().expect("read").collect::<Result<_, _>>().expect("read");
    (entries, store.note("rules").expect("read"))
}

#[test]
fn a_database_of_a_later_version_is_refused_with_the_reason_and_left_as_it_was() {
    for (format, rules) in [(FORMAT + 1, RULES), (FORMAT, RULES + 1)] {
        let mut mesh = Mesh::alone(&[], &["--executor", "none"]);
        let peer = mesh.node(0).peer.clone();
        mesh.terminate(&peer);
        plant(&mesh, format, rules);
        let before = held(&mesh);
        let done = mesh.run_in_vain(0);
        assert_eq!(done.status, 1, "{done:?}");
        assert!(done.stderr.contains("a later version of runmesh has written"), "{done:?}");
        assert_eq!(held(&mesh), before);
        mesh.stop();
    }
}
