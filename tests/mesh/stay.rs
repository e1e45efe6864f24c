//! `runmesh node drain`, `cordon` and `uncordon`: nodes that take nothing new, and nodes that go in order.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::rig::{Mesh, Node, Repository};
use crate::{LONG, QUICK};

fn peer_of(value: &Value) -> String {
    value["holder"].as_str().expect("held").to_owned()
}

fn is_done(task: &Value) -> bool {
    task["state"] == "completed"
}

/// As the other node sees it.
fn sees(node: &Node, peer: &str, key: &str) -> bool {
    let peers = node.json(&["inspect", "peers"]);
    peers.as_array().is_some_and(|peers| peers.iter().any(|one| one["peer_id"] == peer && one[key] == true))
}

#[test]
fn a_cordoned_node_stays_and_takes_nothing_until_it_is_uncordoned_also_after_a_restart() {
    let repository = Repository::with(&[]);
    let mut mesh = Mesh::of(2, std::slice::from_ref(&repository));
    let [shut, open] = [0, 1].map(|n| mesh.node(n).peer.clone());
    let cordoned = mesh.node(0).run(&["node", "cordon", "--why", "a new disk"]);
    assert!(cordoned.status == 0 && cordoned.stdout.contains("node uncordon"), "{cordoned:?}");
    mesh.node(1).wait_for("the cordon", |node| sees(node, &shut, "cordoned"));
    let shown = mesh.node(1).run(&["inspect", "peers"]).stdout;
    assert!(shown.contains("cordoned"), "{shown}");
    for n in 0..6 {
        repository.commit(&format!("quick{n}.yml"), QUICK);
    }
    let done = mesh.wait_for_tasks(6, is_done);
    assert!(done.iter().all(|task| task["holder"] == open.as_str()), "{done:#?}");

    // It is on disk, and a new life says so from its first word on.
    let killed = mesh.kill(&shut);
    mesh.start_again(killed);
    assert_eq!(mesh.node(0).json(&["inspect", "status"])["cordoned"]["why"], "a new disk");
    let shown = mesh.node(0).run(&["inspect", "status"]).stdout;
    assert!(shown.contains("a new disk") && shown.contains("runmesh node uncordon"), "{shown}");
    let doctor = mesh.node(0).run(&["doctor"]).stdout;
    assert!(doctor.contains("cordoned (a new disk)"), "{doctor}");
    mesh.node(1).wait_for("the cordon again", |node| sees(node, &shut, "cordoned"));

    // With all of them shut the task waits and says why, and the one that opens takes it.
    assert_eq!(mesh.node(1).json(&["node", "cordon"])["cordoned"], true);
    mesh.node(0).wait_for("the other's cordon", |node| sees(node, &open, "cordoned"));
    repository.commit("last.yml", QUICK);
    let why = |task: &Value| {
        task["waits_for"].as_str().is_some_and(|why| why.contains("all 2 nodes that could are cordoned"))
    };
    let waits = mesh.wait_for_tasks(7, |task| is_done(task) || why(task));
    let last = waits.iter().find(|task| !is_done(task)).expect("one waits");
    let told = mesh.node(1).run(&["inspect", "tasks", last["id"].as_str().expect("an id")]).stdout;
    assert!(told.contains("runmesh node uncordon"), "{told}");
    let queue = mesh.node(0).run(&["inspect", "queue"]).stdout;
    assert!(queue.contains("1 task waits: all 2 nodes that could are cordoned"), "{queue}");
    assert_eq!(mesh.node(0).json(&["node", "uncordon"])["cordoned"], false);
    let done = mesh.wait_for_tasks(7, is_done);
    let taken = done.iter().find(|task| task["id"] == last["id"]).expect("it ran");
    assert_eq!(peer_of(taken), shut);
    let again = mesh.node(0).run(&["node", "uncordon"]);
    assert!(again.status == 1 && again.stderr.contains("this node is not cordoned"), "{again:?}");
    mesh.wait_for_agreement();
    mesh.stop();
}

#[test]
fn what_runs_on_a_node_goes_on_when_it_is_cordoned() {
    let repositories = [Repository::with(&[("long.yml", LONG)])];
    let mesh = Mesh::of(2, &repositories);
    let holder = peer_of(&mesh.wait_for_tasks(1, |task| task["state"] == "running")[0]);
    let answer = mesh.node_of(&holder).json(&["node", "cordon"]);
    assert_eq!(answer["running"], 1, "{answer}");
    let done = mesh.wait_for_tasks(1, is_done).remove(0);
    assert_eq!(
        (peer_of(&done), &done["attempt"], &done["conclusion"]),
        (holder, &1.into(), &"success".into()),
        "{done:#}"
    );
    mesh.stop();
}

#[test]
fn a_drained_node_finishes_takes_nothing_new_and_ends() {
    let repository = Repository::with(&[("long.yml", LONG)]);
    let mut mesh = Mesh::of(2, std::slice::from_ref(&repository));
    let holder = peer_of(&mesh.wait_for_tasks(1, |task| task["state"] == "running")[0]);
    let draining = mesh.node_of(&holder).spawn(&["node", "drain", "--output", "json"]);
    let other = mesh.nodes().find(|node| node.peer != holder).expect("two").peer.clone();
    mesh.node_of(&other).wait_for("the drain", |node| sees(node, &holder, "draining"));
    repository.commit("quick.yml", QUICK);
    let said = draining.wait_with_output().expect("it ends");
    let answer: Value = serde_json::from_slice(&said.stdout).expect("JSON");
    assert!(said.status.success() && answer["ended"] == true && answer["running"] == 1, "{said:?}");
    assert_eq!(answer["limit_ms"], 3_600_000, "by the settings: {answer}");
    mesh.wait_for_the_end_of(&holder);
    let done = mesh.wait_for_tasks(2, is_done);
    let of = |name: &str| done.iter().find(|task| task["name"] == name).expect("it ran");
    assert_eq!((peer_of(of("long")), &of("long")["attempt"]), (holder, &1.into()), "{done:#?}");
    assert_eq!(peer_of(of("quick")), other);
    mesh.stop();
}

#[test]
fn what_still_runs_after_the_limit_is_handed_over() {
    let repositories = [Repository::with(&[("long.yml", LONG)])];
    let mut mesh = Mesh::of(2, &repositories);
    let holder = peer_of(&mesh.wait_for_tasks(1, |task| task["state"] == "running")[0]);
    let drained = mesh.node_of(&holder).run(&["node", "drain", "--limit", "1s"]);
    assert!(drained.status == 0 && drained.stdout.contains("1 task there may finish within 1.0 s"), "{drained:?}");
    mesh.wait_for_the_end_of(&holder);
    let done = mesh.wait_for_tasks(1, is_done).remove(0);
    assert_eq!((&done["attempt"], &done["conclusion"]), (&2.into(), &"success".into()), "{done:#}");
    assert_ne!(peer_of(&done), holder);
    mesh.stop();
}

#[test]
fn a_second_drain_ends_the_node_at_once() {
    let repositories = [Repository::with(&[("long.yml", &LONG.replace("seq 1 60", "seq 1 6000"))])];
    let mut mesh = Mesh::alone(&repositories, &[]);
    let peer = peer_of(&mesh.wait_for_tasks(1, |task| task["state"] == "running")[0]);
    let first = mesh.node(0).spawn(&["node", "drain"]);
    mesh.node(0).wait_for("the drain", |node| node.json(&["inspect", "status"])["draining"] == true);
    let began = Instant::now();
    let second = mesh.node(0).run(&["node", "drain"]);
    assert!(second.status == 0 && second.stdout.contains("it ends at once"), "{second:?}");
    mesh.wait_for_the_end_of(&peer);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let first = first.wait_with_output().expect("it ends");
    assert!(first.status.success(), "{first:?}");
    let nobody = mesh.node(0).run(&["node", "drain"]);
    assert_eq!(nobody.status, 3, "{nobody:?}");
    mesh.stop();
}
