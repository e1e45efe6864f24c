//! Programs that execute tasks themselves, beside nodes that run none.

use serde_json::Value;

use crate::rig::{Done, Mesh, Node, Repository};

const ANY: &str =
    "# P2P: p2p-only\non: workflow_dispatch\njobs:\n  a:\n    runs-on: self-hosted\n    steps:\n      - run: echo\n";
const SHORT: &str = "# P2P: p2p-only\non: workflow_dispatch\njobs:\n  a:\n    runs-on: self-hosted\n    timeout-minutes: 1\n    steps:\n      - run: echo\n";

fn next(node: &Node, more: &[&str]) -> Value {
    node.json(&[&["p2p-workflow", "next", "--wait", "60s"], more].concat())
}

fn id_of(assignment: &Value) -> &str {
    assignment["task"]["id"].as_str().expect("an id")
}

fn refused(done: &Done, what: &str) {
    assert!(done.status == 1 && done.stderr.contains(what), "{done:?}");
}

#[test]
fn workers_are_given_each_task_once_the_most_urgent_first_and_end_it() {
    let repository = Repository::with(&[("any.yml", &ANY.replace("# P2P: p2p-only\n", ""))]);
    let mesh = Mesh::with(2, std::slice::from_ref(&repository), &["--executor", "none"]);
    let [one, two] = [0, 1].map(|number| mesh.nodes().nth(number).expect("two"));
    for node in [one, two] {
        node.wait_for("the source", |node| {
            node.json(&["inspect", "sources"]).as_array().is_some_and(|sources| !sources.is_empty())
        });
    }
    let mut submitted = Vec::new();
    for priority in ["2", "9", "5"] {
        let submit = ["p2p-workflow", "submit", repository.path(), "any.yml", "--priority", priority];
        submitted.push(two.json(&submit)["id"].as_str().expect("an id").to_owned());
    }
    mesh.wait_for_tasks(3, |task| {
        task["state"] == "pending" && task["waits_for"].as_str().is_some_and(|why| why.contains("no tasks now"))
    });
    // The node on which it was submitted is asked as little as the other.
    let first = next(one, &[]);
    assert_eq!((id_of(&first), &first["task"]["priority"]), (submitted[1].as_str(), &9.into()), "{first:#}");
    assert_eq!((&first["task"]["state"], &first["task"]["attempt"]), (&"running".into(), &1.into()));
    let second = next(two, &[]);
    assert_eq!(id_of(&second), submitted[2], "{second:#}");
    let runners = one.json(&["inspect", "runners"]);
    assert_eq!((&runners[0]["task"], &runners[0]["executor"]), (&first["task"]["id"], &"worker".into()), "{runners:#}");

    let claim = first["claim"].as_str().expect("a claim");
    let kept = one.json(&["p2p-workflow", "keep", id_of(&first), "--claim", claim]);
    assert_eq!(kept["id"], first["task"]["id"]);
    // Another claim's worker, another node's, and one that makes no sense.
    let foreign = second["claim"].as_str().expect("a claim");
    refused(&one.run(&["p2p-workflow", "complete", id_of(&first), "--claim", foreign]), "does not hold any more");
    refused(&one.run(&["p2p-workflow", "complete", id_of(&second)]), &two.peer);
    assert_eq!(one.run(&["p2p-workflow", "complete", id_of(&first), "--conclusion", "done"]).status, 2);

    let done = one.run(&["p2p-workflow", "complete", &id_of(&first)[..8], "--conclusion", "failure", "--note", "red"]);
    assert_eq!(done.status, 0, "{done:?}");
    refused(&one.run(&["p2p-workflow", "complete", id_of(&first)]), "it is completed: failure (red)");
    assert_eq!(two.run(&["p2p-workflow", "complete", id_of(&second)]).status, 0);
    let third = next(one, &[]);
    assert_eq!(id_of(&third), submitted[0]);
    assert_eq!(one.run(&["p2p-workflow", "complete", id_of(&third)]).status, 0);
    let tasks = mesh.wait_for_tasks(3, |task| task["state"] == "completed" && task["attempt"] == 1);
    let ended = tasks.iter().find(|task| task["id"] == first["task"]["id"]).expect("it is there");
    assert_eq!((&ended["conclusion"], &ended["note"]), (&"failure".into(), &"red".into()));
    mesh.wait_for_agreement();

    let status = one.json(&["p2p-workflow", "status"]);
    assert_eq!((&status["completed_tasks"], &status["pending_tasks"]), (&3.into(), &0.into()), "{status:#}");
    let clocks = [one, two].map(|node| node.json(&["p2p-workflow", "clock"]));
    assert_eq!(clocks[0]["node_id"], one.peer.as_str());
    for field in ["vector", "merkle_root", "heads"] {
        assert_eq!(clocks[0][field], clocks[1][field], "{field}");
    }
    assert!(clocks[0]["vector"][&two.peer].as_u64().is_some_and(|entries| entries > 0), "{:#}", clocks[0]);

    let late = one.run(&["p2p-workflow", "next", "--wait", "1s"]);
    refused(&late, "no task came in time");
    for node in [one, two] {
        refused(&node.run(&["tasks", "logs", id_of(&first)]), "an external worker ran");
    }
    mesh.stop();
}

#[test]
fn workers_of_several_nodes_that_ask_at_once_are_given_different_tasks() {
    let repository = Repository::with(&[("plain.yml", &ANY.replace("# P2P: p2p-only\n", ""))]);
    let mesh = Mesh::with(3, std::slice::from_ref(&repository), &["--executor", "none"]);
    for node in mesh.nodes() {
        node.wait_for("the source", |node| {
            node.json(&["inspect", "sources"]).as_array().is_some_and(|sources| !sources.is_empty())
        });
    }
    for node in mesh.nodes().chain(mesh.nodes()) {
        assert_eq!(node.run(&["tasks", "submit", repository.path(), "plain.yml"]).status, 0);
    }
    mesh.wait_for_tasks(6, |task| task["state"] == "pending");
    let ask = |node: &Node| node.spawn(&["p2p-workflow", "next", "--wait", "60s", "--output", "json"]);
    let asking: Vec<_> = mesh.nodes().chain(mesh.nodes()).map(ask).collect();
    let given: Vec<Value> = asking
        .into_iter()
        .map(|worker| {
            let output = worker.wait_with_output().expect("it ends");
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
        })
        .collect();
    let different: std::collections::BTreeSet<&str> = given.iter().map(id_of).collect();
    assert_eq!(different.len(), 6, "{given:#?}");
    let tasks = mesh.wait_for_tasks(6, |task| task["state"] == "running");
    assert!(tasks.iter().all(|task| task["attempt"] == 1), "{tasks:#?}");
    mesh.stop();
}

#[test]
fn the_task_of_a_silent_worker_goes_to_another_and_a_cancelled_one_is_its_no_more() {
    let repository = Repository::with(&[("any.yml", ANY)]);
    let mesh = Mesh::alone(std::slice::from_ref(&repository), &["--executor", "none"]);
    let node = mesh.nodes().next().expect("one");
    let first = next(node, &["--lease", "1s"]);
    // Nobody keeps it.
    let again = next(node, &[]);
    assert_eq!((id_of(&again), &again["task"]["attempt"]), (id_of(&first), &2.into()), "{again:#}");
    let late = node.run(&["p2p-workflow", "complete", id_of(&first), "--claim", first["claim"].as_str().expect("one")]);
    refused(&late, "given to another worker since, under attempt 2");
    assert_eq!(node.run(&["tasks", "cancel", id_of(&again)]).status, 0);
    node.wait_for("the end", |node| node.json(&["inspect", "runners"]).as_array().is_some_and(Vec::is_empty));
    refused(&node.run(&["p2p-workflow", "keep", id_of(&again)]), "it is cancelled");
    refused(&node.run(&["p2p-workflow", "complete", id_of(&again)]), "it is cancelled");

    // A lease is never longer than the task may run.
    repository.commit("short.yml", SHORT);
    let short = next(node, &["--lease", "2d"]);
    assert_eq!(short["lease_for_ms"], 60_000, "{short:#}");
    assert_eq!(node.run(&["p2p-workflow", "complete", id_of(&short)]).status, 0);
    mesh.stop();
}

#[test]
fn a_holder_that_hears_most_of_the_members_no_more_gives_up_what_must_not_run_twice() {
    let repository = Repository::with(&[("any.yml", ANY)]);
    let spec = format!("git:{}", repository.path());
    let more = ["--executor", "none", "--stop-when-cut-off", spec.as_str()];
    let mesh = Mesh::with(3, std::slice::from_ref(&repository), &more);
    let nodes: Vec<&Node> = mesh.nodes().collect();
    let given = next(nodes[0], &[]);
    // One of three may be silent.
    nodes[2].signal("-STOP");
    nodes[0].wait_for("silence", |node| node.json(&["inspect", "status"])["peers"] == 1);
    assert_eq!(nodes[0].run(&["p2p-workflow", "keep", id_of(&given)]).status, 0);
    nodes[1].signal("-STOP");
    nodes[0].wait_for("the end of its work", |node| {
        node.json(&["inspect", "runners"]).as_array().is_some_and(Vec::is_empty)
    });
    refused(&nodes[0].run(&["p2p-workflow", "complete", id_of(&given)]), "did not hear most of the members");
    let waits = nodes[0].json(&["inspect", "tasks", id_of(&given)]);
    assert_eq!(waits["state"], "pending", "{waits:#}");
    refused(&nodes[0].run(&["p2p-workflow", "next", "--wait", "1s"]), "no task came in time");
    nodes[1].signal("-CONT");
    nodes[2].signal("-CONT");
    let again = next(nodes[0], &[]);
    assert_eq!(id_of(&again), id_of(&given));
    assert_eq!(nodes[0].run(&["p2p-workflow", "complete", id_of(&again)]).status, 0);
    mesh.stop();
}

#[test]
fn a_worker_that_left_before_its_turn_takes_nothing() {
    let repository = Repository::with(&[("plain.yml", &ANY.replace("# P2P: p2p-only\n", ""))]);
    let mesh = Mesh::alone(std::slice::from_ref(&repository), &["--executor", "none"]);
    let node = mesh.nodes().next().expect("one");
    let free = |node: &Node| node.json(&["inspect", "status"])["runners"]["max"].as_u64();
    let mut waiting = node.spawn(&["p2p-workflow", "next", "--wait", "1h"]);
    node.wait_for("the worker's slot", |node| free(node) == Some(1));
    waiting.kill().expect("killed");
    waiting.wait().expect("gone");
    node.wait_for("no slot", |node| free(node) == Some(0));
    assert_eq!(node.run(&["tasks", "submit", repository.path(), "plain.yml"]).status, 0);
    let task = next(node, &[]);
    assert_eq!(task["task"]["attempt"], 1, "{task:#}");
    // A node that ends gives its workers' tasks back.
    mesh.stop();
}

#[test]
fn a_node_that_runs_tasks_itself_gives_none_to_workers() {
    let mesh = Mesh::alone(&[], &[]);
    let node = mesh.nodes().next().expect("one");
    refused(&node.run(&["p2p-workflow", "next", "--wait", "1s"]), "--executor none");
    mesh.stop();
}
