//! GitHub's queued jobs in meshes of real processes, against the fake GitHub, with a stub in the place of its runner.
//!
//! Needs bubblewrap; `scripts/test` installs it.

mod github {
    pub(crate) mod fake;
}
#[allow(dead_code, reason = "tests/mesh.rs uses the rest")]
#[path = "mesh/rig.rs"]
mod rig;

use std::time::{Duration, Instant};

use github::fake::jobs::Status;
use github::fake::limits::{Fault, Token};
use github::fake::world::Kind;
use github::fake::{Fake, World};
use rig::Mesh;
use serde_json::Value;

/// In the place of GitHub's runner.
const RUNNER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/github/runner");
const LABELS: [&str; 2] = ["self-hosted", "Linux"];

fn fake() -> Fake {
    let mut world = World::new();
    world.account("octo", Kind::Organization);
    world.repository("octo/one", &[("README.md", "one")]);
    world.repository("octo/two", &[("README.md", "two")]);
    Fake::start(world)
}

/// A mesh whose nodes start runners for octo's jobs.
fn mesh(fake: &Fake, count: usize, more: &[&str]) -> Mesh {
    mesh_of(fake, count, 4, more)
}

/// The same with so many slots on each.
fn mesh_of(fake: &Fake, count: usize, slots: u32, more: &[&str]) -> Mesh {
    let environment = |node: usize| {
        let token = format!("token-{node}");
        fake.state().limits.tokens.entry(token.clone()).or_insert_with(|| Token::of("octo"));
        let pairs = [
            ("RUNMESH_GITHUB_API", fake.api()),
            ("GITHUB_TOKEN", token),
            ("RUNMESH_AUTOSCALER_INTERVAL", "1".to_owned()),
            ("RUNMESH_ACTIONS_RUNNER", RUNNER.to_owned()),
            ("RUNMESH_LOG", "info,runmesh=debug".to_owned()),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).to_vec()
    };
    let usual = ["--source", "github:octo", "--autoscaler", "--interval", "3600"];
    let slots = ["--max-runners".to_owned(), slots.to_string()];
    let slots: Vec<&str> = slots.iter().map(String::as_str).collect();
    Mesh::at_github(count, &[&usual, slots.as_slice(), more].concat(), environment)
}

fn until(fake: &Fake, what: &str, condition: impl Fn(&Fake) -> bool) {
    let began = Instant::now();
    while !condition(fake) {
        assert!(began.elapsed() < Duration::from_secs(60), "{what} did not come about: {:#?}", fake.state().actions);
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_completed(task: &Value) -> bool {
    task["state"] == "completed"
}

/// The end of a node's name, as it stands in those of its runners.
fn tail(task: &Value) -> String {
    let holder = task["holder"].as_str().expect("a holder");
    holder[holder.len() - 10..].to_owned()
}

#[test]
fn queued_jobs_get_a_runner_each_and_their_tasks_end_as_github_says() {
    let fake = fake();
    let mesh = mesh(&fake, 1, &[]);
    let jobs = fake.queue("octo/one", &LABELS, 3);
    fake.state().actions.jobs.get_mut(&jobs[1]).expect("a job").ends = "failure".to_owned();
    let tasks = mesh.wait_for_tasks(3, is_completed);
    let of = |job: u64| {
        let task = tasks.iter().find(|task| task["occurrence"].to_string().contains(&job.to_string()));
        task.expect("a task of the job")["conclusion"].as_str().expect("an end").to_owned()
    };
    assert_eq!([of(jobs[0]), of(jobs[1]), of(jobs[2])], ["success", "failure", "success"]);
    assert_eq!(fake.state().actions.runners.configured, 3, "one runner a job");
    until(&fake, "no registration", |fake| fake.state().actions.runners.all.is_empty());
    // What asks for GitHub's own machines is none of the mesh's.
    fake.queue("octo/two", &["ubuntu-latest"], 1);
    fake.queue("octo/two", &LABELS, 1);
    mesh.wait_for_tasks(4, is_completed);
    mesh.stop();
}

#[test]
fn several_hosts_start_one_runner_a_job_whichever_runner_github_gives_it_to() {
    let fake = fake();
    let mesh = mesh(&fake, 3, &[]);
    // All runners are there before GitHub gives out a job, and it gives each to the wrong one.
    fake.state().actions.runners.held_back = true;
    let jobs = fake.queue("octo/one", &LABELS, 6);
    until(&fake, "six runners", |fake| fake.state().actions.runners.online() == 6);
    {
        let actions = &mut fake.state().actions;
        for job in &jobs {
            actions.jobs.get_mut(job).expect("a job").takes = Duration::from_secs(5);
        }
        actions.runners.held_back = false;
        actions.bind();
    }
    let tasks = mesh.wait_for_tasks(6, is_completed);
    for task in &tasks {
        let note = task["note"].as_str().unwrap_or_default();
        assert!(note.contains(&tail(task)), "held by the host whose runner had its job: {task:#}");
        assert_eq!(task["conclusion"], "success");
    }
    assert_eq!(fake.state().actions.runners.configured, 6, "one runner a job, on three hosts");
    mesh.wait_for_agreement();
    mesh.stop();
}

#[test]
fn what_is_cancelled_at_github_is_cancelled_here_and_its_runner_retires() {
    let fake = fake();
    let mesh = mesh_of(&fake, 1, 1, &[]);
    fake.state().actions.runners.held_back = true;
    let jobs = fake.queue("octo/one", &LABELS, 2);
    until(&fake, "a runner", |fake| fake.state().actions.runners.online() == 1);
    for job in &jobs {
        fake.state().actions.cancel(*job);
    }
    let tasks = mesh.wait_for_tasks(2, |task| is_completed(task) || task["state"] == "cancelled");
    assert!(tasks.iter().any(|task| task["state"] == "cancelled"), "the one that nobody held: {tasks:#?}");
    assert!(tasks.iter().any(|task| task["conclusion"] == "cancelled"), "{tasks:#?}");
    until(&fake, "no registration", |fake| fake.state().actions.runners.all.is_empty());
    assert_eq!(fake.state().actions.runners.configured, 1);
    mesh.stop();
}

#[test]
fn after_a_kill_no_registration_is_left_and_githubs_word_ends_the_task() {
    let fake = fake();
    let mut mesh = mesh(&fake, 1, &[]);
    let busy = fake.queue("octo/one", &LABELS, 1);
    fake.state().actions.jobs.get_mut(&busy[0]).expect("a job").takes = Duration::from_secs(600);
    until(&fake, "a busy runner", |fake| fake.job(busy[0]).status == Status::InProgress);
    fake.state().actions.runners.held_back = true;
    fake.queue("octo/two", &LABELS, 2);
    until(&fake, "idle runners", |fake| fake.state().actions.runners.online() == 3);
    let before: Vec<u64> = fake.state().actions.runners.all.keys().copied().collect();
    let peer = mesh.node(0).peer.clone();
    let node = mesh.kill(&peer);
    until(&fake, "their end", |fake| fake.state().actions.runners.online() == 0);
    mesh.start_again(node);
    until(&fake, "the end of what was registered before", |fake| {
        before.iter().all(|id| !fake.state().actions.runners.all.contains_key(id))
    });
    assert_eq!(fake.job(busy[0]).conclusion.as_deref(), Some("failure"), "as GitHub says of a lost runner");
    fake.state().actions.runners.held_back = false;
    fake.state().actions.bind();
    let tasks = mesh.wait_for_tasks(3, |task| is_completed(task) || task["state"] == "cancelled");
    let failed = tasks.iter().filter(|task| task["conclusion"] == "failure" || task["state"] == "cancelled").count();
    assert_eq!(failed, 1, "{tasks:#?}");
    until(&fake, "no registration", |fake| fake.state().actions.runners.all.is_empty());
    mesh.stop();
}

#[test]
fn what_was_registered_is_taken_back_also_where_the_settings_name_it_no_more() {
    let fake = fake();
    fake.state().actions.runners.held_back = true;
    let mut mesh = mesh(&fake, 1, &[]);
    fake.queue("octo/two", &LABELS, 2);
    until(&fake, "idle runners", |fake| fake.state().actions.runners.online() == 2);
    let peer = mesh.node(0).peer.clone();
    let node = mesh.kill(&peer);
    mesh.say_instead(node, "github:octo", "github:octo/one");
    mesh.start_again(node);
    until(&fake, "no registration", |fake| fake.state().actions.runners.all.is_empty());
    mesh.stop();
}

#[test]
fn a_registration_that_github_made_and_the_node_was_never_told_of_is_taken_back() {
    let fake = fake();
    let path = "/api/v3/repos/octo/one/actions/runners/generate-jitconfig";
    fake.state().limits.fail(path, 1, Fault::Slow(Duration::from_secs(60)));
    let mut mesh = mesh(&fake, 1, &[]);
    fake.queue("octo/one", &LABELS, 1);
    until(&fake, "a registration", |fake| fake.state().actions.runners.all.len() == 1);
    let untold = *fake.state().actions.runners.all.keys().next().expect("a runner");
    assert_eq!(fake.state().actions.runners.connected, 0);
    let peer = mesh.node(0).peer.clone();
    let node = mesh.kill(&peer);
    mesh.start_again(node);
    until(&fake, "its end", |fake| !fake.state().actions.runners.all.contains_key(&untold));
    let tasks = mesh.wait_for_tasks(1, is_completed);
    assert_eq!(tasks[0]["conclusion"], "success", "another runner had it: {tasks:#?}");
    until(&fake, "no registration", |fake| fake.state().actions.runners.all.is_empty());
    mesh.stop();
}

#[test]
fn a_cordoned_host_starts_no_runner_and_retires_those_that_wait() {
    let fake = fake();
    fake.state().actions.runners.held_back = true;
    let mesh = mesh(&fake, 1, &[]);
    let busy = fake.queue("octo/one", &LABELS, 1);
    until(&fake, "a runner", |fake| fake.state().actions.runners.online() == 1);
    fake.state().actions.jobs.get_mut(&busy[0]).expect("a job").takes = Duration::from_secs(600);
    fake.state().actions.runners.held_back = false;
    fake.state().actions.bind();
    until(&fake, "a busy runner", |fake| fake.job(busy[0]).status == Status::InProgress);
    fake.state().actions.runners.held_back = true;
    fake.queue("octo/two", &LABELS, 1);
    until(&fake, "an idle one", |fake| fake.state().actions.runners.online() == 2);
    let node = mesh.node(0);
    assert_eq!(node.run(&["node", "cordon"]).status, 0);
    until(&fake, "the idle one's end", |fake| fake.state().actions.runners.all.len() == 1);
    let why = |node: &rig::Node| node.run(&["inspect", "queue"]).stdout.contains("the one node that can is cordoned");
    node.wait_for("the reason", why);
    assert_eq!(fake.job(busy[0]).status, Status::InProgress, "the busy one goes on");
    assert_eq!(fake.state().actions.runners.configured, 2);
    assert_eq!(node.run(&["node", "uncordon"]).status, 0);
    until(&fake, "another runner", |fake| fake.state().actions.runners.configured == 3);
    fake.state().actions.complete(busy[0], "success");
    fake.state().actions.runners.held_back = false;
    fake.state().actions.bind();
    mesh.wait_for_tasks(2, is_completed);
    mesh.stop();
}

#[test]
fn a_runner_that_gets_no_job_in_its_time_is_retired_for_another() {
    let fake = fake();
    fake.state().actions.runners.held_back = true;
    let mesh = {
        // Its runners may wait two seconds.
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("config.toml");
        std::fs::write(&file, "[autoscaler]\nidle = \"2s\"\n").expect("a file");
        mesh(&fake, 1, &["--config", file.to_str().expect("UTF-8")])
    };
    fake.queue("octo/one", &LABELS, 1);
    until(&fake, "a runner", |fake| fake.state().actions.runners.online() == 1);
    let first = *fake.state().actions.runners.all.keys().next().expect("a runner");
    until(&fake, "its retirement", |fake| !fake.state().actions.runners.all.contains_key(&first));
    // Another is started for the job, which it then gets.
    until(&fake, "another runner", |fake| fake.state().actions.runners.online() == 1);
    fake.state().actions.runners.held_back = false;
    fake.state().actions.bind();
    let tasks = mesh.wait_for_tasks(1, |task| is_completed(task) || task["state"] == "lost");
    assert_eq!(tasks[0]["conclusion"], "success", "{tasks:#?}");
    mesh.stop();
}

#[test]
fn a_runner_of_somebody_elses_may_have_the_job() {
    let fake = fake();
    fake.state().actions.runners.held_back = true;
    let mesh = mesh(&fake, 1, &[]);
    let jobs = fake.queue("octo/one", &LABELS, 1);
    until(&fake, "a runner", |fake| fake.state().actions.runners.online() == 1);
    fake.state().actions.start(jobs[0], (1, "somebody-elses".to_owned()));
    until(&fake, "the end of the surplus runner", |fake| fake.state().actions.runners.all.is_empty());
    fake.state().actions.complete(jobs[0], "success");
    let tasks = mesh.wait_for_tasks(1, is_completed);
    assert!(tasks[0]["note"].as_str().unwrap_or_default().contains("somebody-elses"), "{tasks:#?}");
    assert_eq!(fake.state().actions.runners.configured, 1);
    mesh.stop();
}

#[test]
fn what_keeps_a_job_waiting_is_said() {
    let fake = fake();
    fake.state().limits.token("token-0").admin = false;
    let mesh = mesh(&fake, 1, &[]);
    fake.queue("octo/one", &["self-hosted", "quantum"], 1);
    fake.queue("octo/two", &LABELS, 1);
    let node = mesh.node(0);
    let says = |text: &'static str| move |node: &rig::Node| node.run(&["inspect", "queue"]).stdout.contains(text);
    node.wait_for("the label that nobody offers", says("offers `quantum`; nearest comes"));
    node.wait_for("the refusal", says("needs to administer octo/two"));
    let queue = node.json(&["inspect", "queue"]);
    assert_eq!(queue.as_array().map(Vec::len), Some(2), "{queue:#}");
    assert_eq!(fake.state().actions.runners.configured, 0);
    mesh.stop();
}

#[test]
fn a_runner_group_that_is_missing_is_said_and_one_that_is_there_is_used() {
    let fake = fake();
    let group = github::fake::runners::Group { id: 7, org: "octo".to_owned(), name: "Lab".to_owned() };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.toml");
    std::fs::write(&file, "[autoscaler]\nrunner_group = \"lab\"\n").expect("a file");
    let config = ["--config", file.to_str().expect("UTF-8")];
    let one = mesh(&fake, 1, &config);
    fake.queue("octo/one", &LABELS, 1);
    let says =
        |node: &rig::Node| node.run(&["inspect", "queue"]).stdout.contains("no runner group `lab`, only Default");
    one.node(0).wait_for("the missing group", says);
    one.stop();
    fake.state().actions.runners.groups.push(group);
    let two = mesh(&fake, 1, &config);
    two.wait_for_tasks(1, is_completed);
    assert!(fake.state().actions.runners.configured == 1);
    two.stop();
}

/// Queues a job that takes so long, and gives it to whichever runner waits for one.
fn queue_and_bind(fake: &Fake, takes: Duration) -> u64 {
    let state = &mut *fake.state();
    state.actions.runners.held_back = true;
    let job = state.actions.queue(&state.world, "octo/one", &LABELS, 1)[0];
    state.actions.jobs.get_mut(&job).expect("just made").takes = takes;
    state.actions.runners.held_back = false;
    state.actions.bind();
    job
}

#[test]
fn warm_runners_wait_for_jobs_and_make_room_for_work_of_the_mesh() {
    const WORKFLOW: &str =
        "on: workflow_dispatch\njobs:\n  a:\n    runs-on: self-hosted\n    steps:\n      - run: echo\n";
    let fake = fake();
    fake.state().actions.runners.groups.push(github::fake::runners::Group {
        id: 7,
        org: "octo".to_owned(),
        name: "Lab".to_owned(),
    });
    let repository = rig::Repository::with(&[("any.yml", WORKFLOW)]);
    for (scope, group) in [("octo/one", ""), ("octo", "runner_group = \"lab\"\n")] {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("config.toml");
        let settings = format!(
            "executor = \"command\"\ncommand = [\"sleep\", \"3\"]\n[autoscaler]\nwarm = [\"{scope}:2:self-hosted+linux\"]\n{group}"
        );
        std::fs::write(&file, settings).expect("a file");
        let source = format!("git:{}", repository.path());
        let more = ["--config", file.to_str().expect("UTF-8"), "--source", source.as_str()];
        let before = fake.state().actions.runners.configured;
        let mesh = mesh_of(&fake, 1, 3, &more);
        let node = mesh.node(0);
        until(&fake, "two runners that wait", |fake| fake.state().actions.runners.online() == 2);
        assert_eq!(node.json(&["inspect", "tasks"]).as_array().map(Vec::len), Some(0), "nobody has a task of them");
        let shown = node.json(&["inspect", "runners"]);
        let shown = shown.as_array().expect("a list");
        assert!(shown.len() == 2 && shown.iter().all(|one| one["task"] == ""), "{shown:#?}");
        assert!(node.run(&["inspect", "runners"]).stdout.contains(&format!("{scope}: waits for a job")));
        {
            let fake = fake.state();
            let runners = &fake.actions.runners;
            assert!(runners.all.values().all(|one| one.scope.ends_with(scope)), "{runners:#?}");
            assert!(group.is_empty() || runners.all.values().all(|one| one.group == 7), "{runners:#?}");
        }
        // One of them has the job before anybody here has heard of it; it is this host's task then, and another waits.
        let job = queue_and_bind(&fake, Duration::from_secs(6));
        assert_eq!(fake.job(job).status, Status::InProgress);
        let running = mesh.wait_for_tasks(1, |task| task["state"] == "running");
        assert!(running[0]["occurrence"].to_string().contains(&job.to_string()), "{running:#?}");
        // What that runner prints is what its task prints, though it was started for no task.
        let task = running[0]["id"].as_str().expect("an id").to_owned();
        let printed = || node.run(&["tasks", "logs", &task]);
        until(&fake, "what the job prints", |_| printed().stdout.contains("Running job:"));
        until(&fake, "another that waits", |fake| fake.state().actions.runners.online() == 3);
        assert_eq!(fake.state().actions.runners.configured - before, 3);
        // No slot is left: one that waits gives its own up for work of the mesh, the busy one does not.
        let submitted = node.run(&["tasks", "submit", repository.path(), "any.yml"]);
        assert_eq!(submitted.status, 0, "{submitted:?}");
        let tasks = mesh.wait_for_tasks(2, |task| task["state"] == "running" || is_completed(task));
        assert!(
            tasks.iter().any(|task| task["path"].as_str().is_some_and(|path| path.ends_with("any.yml"))),
            "{tasks:#?}"
        );
        assert!(fake.state().actions.runners.all.len() <= 2, "no more runners than there are slots");
        let tasks = mesh.wait_for_tasks(2, is_completed);
        assert!(tasks.iter().all(|task| task["conclusion"] == "success"), "{tasks:#?}");
        assert_eq!(fake.job(job).conclusion.as_deref(), Some("success"), "a busy runner is left alone");
        until(&fake, "all that the job printed", |_| printed().stdout.contains("completed with result"));
        until(&fake, "two that wait again", |fake| fake.state().actions.runners.online() == 2);
        // Who takes nothing new keeps nothing waiting.
        let configured = fake.state().actions.runners.configured;
        assert_eq!(node.run(&["node", "cordon", "--why", "a new disk"]).status, 0);
        until(&fake, "no registration", |fake| fake.state().actions.runners.all.is_empty());
        assert_eq!(fake.state().actions.runners.configured, configured, "none is started while it is cordoned");
        assert_eq!(node.run(&["node", "uncordon"]).status, 0);
        until(&fake, "two that wait again", |fake| fake.state().actions.runners.online() == 2);
        mesh.stop();
        until(&fake, "no registration", |fake| fake.state().actions.runners.all.is_empty());
    }
}

#[test]
fn alone_the_command_needs_no_mesh() {
    let fake = fake();
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_runmesh"));
    command.args(["github", "autoscaler", "--owner", "octo", "--interval", "1", "--max-runners", "2", "--no-p2p"]);
    command.args(["--since-days", "36500", "--actions-runner", RUNNER, "--data-dir"]).arg(folder.path().join("data"));
    command.env("XDG_CONFIG_HOME", folder.path()).env("RUNMESH_GITHUB_API", fake.api()).env("GITHUB_TOKEN", "t");
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    let log = std::fs::File::create(folder.path().join("log")).expect("a log");
    let mut process = command.stderr(log).spawn().expect("the program runs");
    let jobs = fake.queue("octo/two", &LABELS, 5);
    until(&fake, "the jobs' end", |fake| jobs.iter().all(|job| fake.job(*job).status == Status::Completed));
    until(&fake, "no registration", |fake| fake.state().actions.runners.all.is_empty());
    // It says what the source system's said, and ends in order.
    let ended = std::process::Command::new("kill").args(["-TERM", &process.id().to_string()]).status();
    assert!(ended.expect("kill runs").success());
    let status = process.wait().expect("it ends");
    let said = std::fs::read_to_string(folder.path().join("log")).expect("a log");
    assert!(status.success(), "{said}");
    for text in [
        "P2P workflows: 0 pending, 0 assigned",
        "Allocating 0 runners for P2P tasks, 2 for GitHub workflows",
        "P2P Summary: ",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
    assert_eq!(fake.state().actions.runners.configured, 5);
}
