//! The product as people run it: real `runmesh` processes with data directories, sockets, git repositories, act and
//! bubblewrap of their own, killed and started again.
//!
//! Needs git, act (on PATH, or named by RUNMESH_ACT) and bubblewrap; `scripts/test` installs them.

#[path = "mesh/artifacts.rs"]
mod artifacts;
#[path = "mesh/durability.rs"]
mod durability;
#[path = "mesh/logs.rs"]
mod logs;
#[path = "mesh/rig.rs"]
mod rig;

#[path = "mesh/starts.rs"]
mod starts;
#[path = "mesh/stay.rs"]
mod stay;
#[path = "mesh/workers.rs"]
mod workers;

use std::time::Duration;

use rig::{Mesh, Repository};
use serde_json::Value;

const QUICK: &str = "name: quick\non: workflow_dispatch\nenv:\n  WORKFLOW_TAGS: p2p-only\njobs:\n  a:\n    runs-on: self-hosted\n    steps:\n      - run: echo the quick fox\n";
const FAILS: &str =
    "# P2P: p2p-eligible\non: push\njobs:\n  a:\n    runs-on: self-hosted\n    steps:\n      - run: exit 3\n";
const LONG: &str = "# Tags: p2p-only, data-processing\nname: long\non: workflow_dispatch\njobs:\n  a:\n    runs-on: self-hosted\n    steps:\n      - run: for i in $(seq 1 60); do echo tick $i; sleep 0.1; done\n";
const PLAIN: &str = "on: push\njobs:\n  a:\n    runs-on: self-hosted\n    steps:\n      - run: echo never\n";

#[test]
fn three_nodes_discover_run_and_agree() {
    let repositories =
        [Repository::with(&[("quick.yml", QUICK), ("plain.yml", PLAIN)]), Repository::with(&[("fails.yml", FAILS)])];
    let mesh = Mesh::of(3, &repositories);
    let tasks = mesh.wait_for_tasks(2, |task| task["state"] == "completed");
    let conclusions: Vec<&str> = tasks.iter().filter_map(|task| task["conclusion"].as_str()).collect();
    assert!(conclusions.contains(&"success") && conclusions.contains(&"failure"), "{tasks:#?}");
    let failed = tasks.iter().find(|task| task["conclusion"] == "failure").expect("one fails");
    assert_eq!((&failed["trigger"], &failed["attempt"]), (&"push".into(), &1.into()));
    mesh.wait_for_agreement();
    let quick = tasks.iter().find(|task| task["name"] == "quick").expect("it ran");
    let holder = mesh.node_of(quick["holder"].as_str().expect("held"));
    let log = holder.run(&["tasks", "logs", quick["id"].as_str().expect("an id")]);
    assert!(log.stdout.contains("the quick fox"), "{log:?}");
    mesh.stop();
}

#[test]
fn the_task_of_a_killed_holder_is_taken_over_and_the_killed_node_catches_up() {
    let repositories = [Repository::with(&[("long.yml", LONG)])];
    let mut mesh = Mesh::of(3, &repositories);
    let running = mesh.wait_for_tasks(1, |task| task["state"] == "running").remove(0);
    let holder = running["holder"].as_str().expect("held").to_owned();
    let killed = mesh.kill(&holder);
    let taken =
        mesh.wait_for_tasks(1, |task| task["state"] == "running" && task["holder"] != holder.as_str()).remove(0);
    assert_eq!(taken["attempt"], 2, "{taken:#?}");
    mesh.start_again(killed);
    let done = mesh.wait_for_tasks(1, |task| task["state"] == "completed").remove(0);
    assert_eq!((&done["conclusion"], &done["attempt"]), (&"success".into(), &2.into()), "{done:#?}");
    mesh.wait_for_agreement();
    mesh.stop();
}

#[test]
fn all_nodes_killed_go_on_with_their_history_and_identity() {
    let repositories = [Repository::with(&[("quick.yml", QUICK)])];
    let mut mesh = Mesh::of(3, &repositories);
    mesh.wait_for_tasks(1, |task| task["state"] == "completed");
    mesh.wait_for_agreement();
    let before: Vec<Value> = mesh.nodes().map(|node| node.json(&["inspect", "status"])).collect();
    let killed: Vec<usize> =
        mesh.nodes().map(|node| node.peer.clone()).collect::<Vec<_>>().iter().map(|p| mesh.kill(p)).collect();
    for node in killed {
        mesh.start_again(node);
    }
    mesh.wait_for_agreement();
    for (node, before) in mesh.nodes().zip(&before) {
        let after = node.json(&["inspect", "status"]);
        assert_eq!(after["peer_id"], before["peer_id"]);
        assert!(after["entries"].as_u64() >= before["entries"].as_u64(), "{after:#?}");
    }
    // New work is taken as before.
    repositories[0].commit("second.yml", QUICK);
    mesh.wait_for_tasks(2, |task| task["state"] == "completed");
    mesh.stop();
}

#[test]
fn a_node_that_is_told_to_go_hands_its_work_over() {
    let repositories = [Repository::with(&[("long.yml", LONG)])];
    let mut mesh = Mesh::of(2, &repositories);
    let running = mesh.wait_for_tasks(1, |task| task["state"] == "running").remove(0);
    let holder = running["holder"].as_str().expect("held").to_owned();
    mesh.terminate(&holder);
    let taken =
        mesh.wait_for_tasks(1, |task| task["state"] == "running" && task["holder"] != holder.as_str()).remove(0);
    assert_eq!(taken["attempt"], 2, "{taken:#?}");
    mesh.wait_for_tasks(1, |task| task["state"] == "completed" && task["conclusion"] == "success");
    mesh.stop();
}

#[test]
fn a_paused_mesh_starts_nothing_and_goes_on_with_what_runs() {
    let repository = Repository::with(&[("long.yml", LONG)]);
    let mut mesh = Mesh::of(2, std::slice::from_ref(&repository));
    mesh.wait_for_tasks(1, |task| task["state"] == "running");
    let paused = mesh.node(0).run(&["pause", "--why", "the lab floods"]);
    assert_eq!(paused.status, 0, "{paused:?}");
    mesh.node(1).wait_for("the pause", |node| node.json(&["inspect", "status"])["paused"]["why"] == "the lab floods");
    repository.commit("quick.yml", QUICK);
    let held_up = |task: &Value| task["waits_for"].as_str().is_some_and(|text| text.contains("the lab floods"));
    mesh.wait_for_tasks(2, |task| task["state"] == "completed" || (task["state"] == "pending" && held_up(task)));
    mesh.wait_for_tasks(2, |task| task["state"] == "completed" || task["attempt"] == 0);
    // It outlives them all.
    let all: Vec<String> = mesh.nodes().map(|node| node.peer.clone()).collect();
    let killed: Vec<usize> = all.iter().map(|peer| mesh.kill(peer)).collect();
    killed.into_iter().for_each(|node| mesh.start_again(node));
    mesh.wait_for_agreement();
    mesh.wait_for_tasks(2, |task| task["state"] == "completed" || (task["name"] == "quick" && held_up(task)));
    let shown = mesh.node(1).run(&["inspect", "status"]);
    assert!(shown.stdout.contains("the lab floods") && shown.stdout.contains("runmesh resume"), "{shown:?}");
    // Once it has learnt what the other has it may write.
    mesh.node(1).wait_for("the end of the pause", |node| node.run(&["resume"]).status == 0);
    mesh.wait_for_tasks(2, |task| task["state"] == "completed");
    let again = mesh.node(1).run(&["resume"]);
    assert!(again.status == 1 && again.stderr.contains("is not paused"), "{again:?}");
    mesh.stop();
}

#[test]
fn a_person_submits_follows_and_cancels() {
    let repository = Repository::with(&[
        ("plain.yml", PLAIN),
        ("long.yml", &LONG.replace("# Tags: p2p-only, data-processing\n", "")),
    ]);
    let mesh = Mesh::of(2, std::slice::from_ref(&repository));
    let node = mesh.nodes().next().expect("two");
    node.wait_for("the source", |node| {
        node.json(&["inspect", "sources"]).as_array().is_some_and(|sources| !sources.is_empty())
    });
    let path = repository.path();
    let submitted = node.run(&["tasks", "submit", path, ".github/workflows/long.yml", "--output", "json"]);
    assert_eq!(submitted.status, 0, "{submitted:?}");
    let running = mesh.wait_for_tasks(1, |task| task["state"] == "running" && task["trigger"] == "manual").remove(0);
    let id = running["id"].as_str().expect("an id");
    let holder = mesh.node_of(running["holder"].as_str().expect("held"));
    let other = mesh.nodes().find(|node| node.peer != holder.peer).expect("two");
    let followed = std::thread::scope(|scope| {
        let following = scope.spawn(|| holder.run(&["tasks", "logs", id, "--follow"]));
        holder.wait_for("the first line", |node| node.run(&["tasks", "logs", id]).stdout.contains("tick 2"));
        let cancelled = other.run(&["tasks", "cancel", &id[..8]]);
        assert_eq!(cancelled.status, 0, "{cancelled:?}");
        following.join().expect("the follower ends")
    });
    assert!(followed.stdout.contains("tick 1") && !followed.stdout.contains("tick 60"), "{followed:?}");
    mesh.wait_for_tasks(1, |task| task["state"] == "cancelled");
    holder.wait_for("nothing runs", |node| node.json(&["inspect", "runners"]).as_array().is_some_and(Vec::is_empty));
    mesh.stop();
}

#[test]
fn a_node_alone_says_once_that_its_bootstrap_peer_is_silent_and_works() {
    let repositories = [Repository::with(&[("quick.yml", QUICK)])];
    // Port 9 (discard) is not listened on; nothing answers there.
    let mesh = Mesh::alone(&repositories, &["--bootstrap", "/ip4/127.0.0.1/tcp/9"]);
    mesh.wait_for_tasks(1, |task| task["state"] == "completed");
    let node = mesh.nodes().next().expect("one");
    node.wait_for("a second try", |node| node.uptime() > Duration::from_secs(3));
    assert_eq!(node.log().matches("does not answer").count(), 1, "{}", node.log());
    mesh.stop();
}

#[test]
fn what_no_host_can_run_waits_and_says_why() {
    let services = "# P2P: p2p-only\non: workflow_dispatch\njobs:\n  a:\n    runs-on: self-hosted\n    services: {db: {image: x}}\n    steps:\n      - run: echo\n";
    let repositories = [Repository::with(&[("services.yml", services)])];
    let both = [Repository::with(&[("services.yml", services), ("more.yml", services)])];
    let mesh = Mesh::of(2, &both);
    mesh.wait_for_tasks(2, |task| {
        task["state"] == "pending" && task["waits_for"].as_str().is_some_and(|why| !why.is_empty())
    });
    // Said once of all that wait for the same, and which host comes nearest.
    let queue = mesh.node(0).run(&["inspect", "queue"]).stdout;
    let said = "2 tasks wait: no live node that lists its repository offers `container-engine`; nearest comes ";
    assert!(queue.contains(said) && queue.contains("which lacks `container-engine`"), "{queue}");
    assert_eq!(queue.matches("container-engine").count(), 2, "{queue}");
    mesh.stop();
    let mesh = Mesh::of(2, &repositories);
    let waits = |task: &Value, why: &str| {
        task["state"] == "pending" && task["waits_for"].as_str().is_some_and(|text| text.contains(why))
    };
    let tasks = mesh.wait_for_tasks(1, |task| waits(task, "offers `container-engine`"));
    assert_eq!(tasks[0]["attempt"], 0, "{tasks:#?}");
    mesh.stop();
    // Hosts that promise what they cannot keep find out, say so, and do not try again.
    let mesh = Mesh::with(2, &repositories, &["--label", "container-engine"]);
    let tasks = mesh.wait_for_tasks(1, |task| waits(task, "have declined it"));
    assert_eq!(tasks[0]["attempt"], 2, "{tasks:#?}");
    let text = mesh.nodes().next().expect("two").run(&["inspect", "tasks", tasks[0]["id"].as_str().expect("an id")]);
    assert!(text.stdout.contains("this host runs no containers"), "{text:?}");
    mesh.stop();
}

#[test]
fn a_second_node_on_one_directory_is_refused_and_says_who_holds_it() {
    let mesh = Mesh::alone(&[], &[]);
    let node = mesh.nodes().next().expect("one");
    let second = node.run(&["node", "run", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    assert_eq!(second.status, 1, "{second:?}");
    assert!(second.stderr.contains(&node.pid().to_string()), "{second:?}");
    mesh.stop();
}

#[test]
fn a_foreign_or_damaged_database_is_refused_and_left_as_it_is() {
    let mut mesh = Mesh::alone(&[], &[]);
    let peer = mesh.nodes().next().expect("one").peer.clone();
    let killed = mesh.kill(&peer);
    let file = mesh.data_dir(killed).join("runmesh.redb");
    let good = std::fs::read(&file).expect("the database");
    for bad in [b"SQLite format 3\0 and so on".to_vec(), good[..good.len() / 2].to_vec()] {
        std::fs::write(&file, &bad).expect("written");
        let refused = mesh.run_in_vain(killed);
        assert!(refused.status == 1 || refused.status == 2, "{refused:?}");
        assert!(refused.stderr.contains("move it away"), "{refused:?}");
        assert!(std::fs::read(&file).expect("still there") == bad, "the file was changed");
    }
    std::fs::write(&file, good).expect("written");
    mesh.start_again(killed);
    mesh.stop();
}
