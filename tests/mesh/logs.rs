//! What tasks print, read on hosts that did not run them.

use std::fs;

use serde_json::Value;

use super::rig::{Mesh, Node, Repository};
use super::{LONG, QUICK};

/// A mesh in which the task has ended, with the task.
fn ended(count: usize) -> (Mesh, Repository, Value) {
    let repository = Repository::with(&[("quick.yml", QUICK)]);
    let mesh = Mesh::of(count, std::slice::from_ref(&repository));
    let task = mesh.wait_for_tasks(1, |task| task["state"] == "completed").remove(0);
    mesh.wait_for_agreement();
    (mesh, repository, task)
}

fn id(task: &Value) -> &str {
    task["id"].as_str().expect("an id")
}

fn others<'a>(mesh: &'a Mesh, task: &Value) -> Vec<&'a Node> {
    mesh.nodes().filter(|node| Some(node.peer.as_str()) != task["holder"].as_str()).collect()
}

#[test]
fn any_node_shows_what_a_task_printed_and_keeps_it() {
    let (mut mesh, _repository, task) = ended(3);
    let holder = task["holder"].as_str().expect("held").to_owned();
    let blob = task["log"]["id"].as_str().expect("the log has a name");
    assert!(blob.starts_with("bafkrei"), "{task:#?}");
    let there = mesh.node_of(&holder).run(&["tasks", "logs", id(&task)]);
    assert_eq!(task["log"]["bytes"], there.stdout.len(), "{there:?}");
    assert!(there.stdout.contains("the quick fox"), "{there:?}");
    for follow in [&[][..], &["--follow"]] {
        let here = others(&mesh, &task)[0].run(&[&["tasks", "logs", id(&task)], follow].concat());
        assert_eq!((here.status, &here.stdout), (0, &there.stdout), "{here:?}");
    }
    mesh.kill(&holder);
    let others = others(&mesh, &task);
    let again = others[0].run(&["tasks", "logs", id(&task)]);
    assert_eq!((again.status, &again.stdout), (0, &there.stdout), "fetched before: {again:?}");
    assert!(others[0].data_dir().join("blobs").join(blob).exists());
    let never = others[1].run(&["tasks", "logs", id(&task)]);
    assert_eq!(never.status, 1, "{never:?}");
    assert!(never.stderr.contains(&holder) && never.stderr.contains("cannot be reached"), "{never:?}");
    for node in mesh.nodes() {
        let arriving = fs::read_dir(node.data_dir().join("arriving")).expect("the folder").count();
        assert_eq!(arriving, 0, "nothing half-fetched stays");
    }
    mesh.stop();
}

#[test]
fn a_log_that_is_not_the_recorded_one_is_told_from_it() {
    let (mesh, _repository, task) = ended(2);
    let holder = mesh.node_of(task["holder"].as_str().expect("held"));
    let other = others(&mesh, &task)[0];
    let log = holder.data_dir().join("logs").join(format!("{}-1.log", id(&task)));
    let (said, wrong) = ("the quick fox", "the quiet fox");
    let text = fs::read_to_string(&log).expect("the log");
    fs::write(&log, text.replace(said, wrong)).expect("writes");
    let told = other.run(&["tasks", "logs", id(&task)]);
    assert_eq!(told.status, 1, "{told:?}");
    assert!(told.stderr.contains("is not what it recorded"), "{told:?}");
    fs::write(&log, format!("{text}{text}")).expect("writes");
    let told = other.run(&["tasks", "logs", id(&task)]);
    assert!(told.status == 1 && told.stderr.contains("longer than"), "{told:?}");
    fs::write(&log, &text).expect("writes");
    let told = other.run(&["tasks", "logs", id(&task)]);
    assert_eq!((told.status, &told.stdout), (0, &text), "{told:?}");
    fs::remove_file(&log).expect("removes");
    let gone = holder.run(&["tasks", "logs", id(&task)]);
    assert_eq!((gone.status, &gone.stdout), (0, &text), "by its content it is still here: {gone:?}");
    let none = other.run(&["tasks", "logs", id(&task), "--attempt", "7"]);
    assert!(none.status == 1 && none.stderr.contains("no host made attempt 7"), "{none:?}");
    mesh.stop();
}

#[test]
fn a_task_that_waits_is_followed_once_it_runs_and_one_that_never_ran_says_so() {
    let repository = Repository::with(&[]);
    let mesh = Mesh::alone(std::slice::from_ref(&repository), &[]);
    let node = mesh.node(0);
    assert_eq!(node.run(&["pause", "--why", "a flood"]).status, 0);
    repository.commit("quick.yml", QUICK);
    let task = mesh.wait_for_tasks(1, |task| task["state"] == "pending").remove(0);
    let following = node.spawn(&["tasks", "logs", id(&task), "--follow"]);
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(node.run(&["resume"]).status, 0);
    let followed = following.wait_with_output().expect("it ends");
    let (said, told) = (String::from_utf8_lossy(&followed.stdout), String::from_utf8_lossy(&followed.stderr));
    assert!(followed.status.success() && said.contains("the quick fox"), "{followed:?}");
    assert!(told.contains(" waits: ") && told.contains("a flood"), "{told}");

    assert_eq!(node.run(&["pause"]).status, 0);
    repository.commit("second.yml", QUICK);
    let second = mesh.wait_for_tasks(2, |_| true).into_iter().find(|one| one["id"] != task["id"]).expect("two");
    assert_eq!(node.run(&["tasks", "cancel", id(&second)]).status, 0);
    for more in [&[][..], &["--follow"]] {
        let told = node.run(&[&["tasks", "logs", id(&second)], more].concat());
        assert!(told.status == 1 && told.stderr.contains("it was cancelled before it ran"), "{told:?}");
    }
    mesh.stop();
}

#[test]
fn a_running_task_is_followed_from_afar() {
    let repository = Repository::with(&[("long.yml", LONG)]);
    let mesh = Mesh::of(2, std::slice::from_ref(&repository));
    let task = mesh.wait_for_tasks(1, |task| task["state"] == "running").remove(0);
    let other = others(&mesh, &task)[0];
    other.wait_for("a line", |node| node.run(&["tasks", "logs", id(&task)]).stdout.contains("tick 2"));
    let now = other.run(&["tasks", "logs", id(&task)]);
    assert!(now.status == 0 && !now.stdout.contains("tick 60"), "{now:?}");
    let followed = other.run(&["tasks", "logs", id(&task), "--follow"]);
    assert!(followed.status == 0 && followed.stdout.contains("tick 60"), "{followed:?}");
    mesh.wait_for_tasks(1, |task| task["state"] == "completed");
    mesh.stop();
}
