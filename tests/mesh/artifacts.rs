//! What tasks upload: recorded for all, kept and given on the host that ran them.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::rig::{Mesh, Node, Repository};

const UPLOADS: &str = "name: uploads\non: workflow_dispatch\nenv:\n  WORKFLOW_TAGS: p2p-only\njobs:\n  a:\n    runs-on: self-hosted\n    steps:\n      - uses: actions/checkout@v4\n      - run: |\n          printf 'PK\\003\\004zipped' > site; echo words > notes\n          for name in site notes; do bash .github/artifact.sh upload $name $name; done\n";

/// A mesh of two in which the task has ended, with the task.
fn ended() -> (Mesh, Repository, Value) {
    let repository =
        Repository::with(&[("uploads.yml", UPLOADS), ("../artifact.sh", include_str!("../runner/artifact/client.sh"))]);
    let mesh = Mesh::of(2, std::slice::from_ref(&repository));
    let task = mesh.wait_for_tasks(1, |task| task["state"] == "completed").remove(0);
    mesh.wait_for_agreement();
    (mesh, repository, task)
}

fn files(folder: &Path) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    found.sort();
    found
}

#[test]
fn what_a_task_uploaded_is_listed_everywhere_and_given_by_the_host_that_ran_it() {
    let (mut mesh, _repository, task) = ended();
    let (id, holder) = (task["id"].as_str().expect("an id"), task["holder"].as_str().expect("held").to_owned());
    assert_eq!(task["conclusion"], "success", "{}", mesh.node_of(&holder).run(&["tasks", "logs", id]).stdout);
    let recorded = task["artifacts"].as_array().expect("a list");
    let names: Vec<&Value> = recorded.iter().map(|artifact| &artifact["name"]).collect();
    assert_eq!(names, ["notes", "site"]);
    let content = recorded[0]["blob"]["id"].as_str().expect("an id");
    assert!(content.starts_with("bafkrei"), "{task:#?}");

    let here = mesh.node_of(&holder);
    let scratch = tempfile::tempdir().expect("a directory");
    let folder = scratch.path().join("out");
    let to = ["--to", folder.to_str().expect("UTF-8")];
    let ask = |node: &Node, more: &[&str]| node.run(&[&["tasks", "artifacts", id], more].concat());
    let listed = ask(here, &[]);
    assert!(listed.stdout.contains(content) && listed.stdout.contains("on this host"), "{listed:?}");
    assert_eq!(here.json(&["tasks", "artifacts", id, "site"])[0], recorded[1]);
    assert!(here.run(&["inspect", "tasks", id]).stdout.contains(content));
    let written = ask(here, &to);
    assert_eq!((written.status, written.stdout.lines().count()), (0, 2), "{written:?}");
    assert_eq!(files(&folder), ["notes", "site.zip"]);
    assert_eq!(fs::read(folder.join("site.zip")).expect("reads"), b"PK\x03\x04zipped");
    let again = ask(here, &to);
    assert!(again.status == 1 && again.stderr.contains("is there already"), "{again:?}");
    let none = ask(here, &["else"]);
    assert!(none.status == 1 && none.stderr.contains("it uploaded: notes, site"), "{none:?}");

    let other = mesh.nodes().find(|node| node.peer != holder).expect("another");
    let listed = ask(other, &[]);
    assert!(listed.stdout.contains(content) && listed.stdout.contains(&holder), "{listed:?}");
    let there = ask(other, &to);
    assert!(there.status == 1 && there.stderr.contains(&holder), "{there:?}");

    // What is not what was recorded is not written.
    let kept = here.data_dir().join("artifacts").join(format!("{id}-1")).join("notes");
    fs::write(&kept, "swords\n").expect("writes");
    let wrong = ask(here, &["notes", "--to", scratch.path().to_str().expect("UTF-8")]);
    assert!(wrong.status == 1 && wrong.stderr.contains("is not what its run uploaded"), "{wrong:?}");
    assert_eq!(files(scratch.path()), ["out"]);

    // A node that comes back removes at once what has become too old.
    let data = here.data_dir();
    let number = mesh.kill(&holder);
    let old = SystemTime::now() - Duration::from_secs(31 * 86_400);
    for file in [kept.clone(), data.join("logs").join(format!("{id}-1.log"))] {
        File::options().append(true).open(file).expect("opens").set_modified(old).expect("dates");
    }
    mesh.start_again(number);
    let here = mesh.node(number);
    here.wait_for("the sweep", |_| !kept.exists() && files(&data.join("logs")).is_empty());
    let gone = ask(here, &["notes", "--to", scratch.path().to_str().expect("UTF-8")]);
    assert!(gone.status == 1 && gone.stderr.contains("which was removed since"), "{gone:?}");
    assert_eq!(ask(here, &["site", "--to", scratch.path().to_str().expect("UTF-8")]).status, 0);
    mesh.stop();
}
