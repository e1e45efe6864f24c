//! Jobs that come by the long poll of a runner scale set, in meshes of real processes, against the fake GitHub, with a stub
//! in the place of its runner. All that is said to the service and by it is held against `tests/scaleset/schema.json`.
//!
//! Needs bubblewrap; `scripts/test` installs it.

#[path = "github"]
mod github {
    pub(crate) mod fake;
}
#[path = "scaleset/description.rs"]
mod description;
#[allow(dead_code, reason = "tests/adversary.rs uses the rest")]
#[path = "adversary/peer.rs"]
mod peer;
#[allow(dead_code, reason = "tests/mesh.rs uses the rest")]
#[path = "mesh/rig.rs"]
mod rig;

use std::time::{Duration, Instant};

use description::faults;
use github::fake::jobs::Status;
use github::fake::limits::{Fault, Token};
use github::fake::world::Kind;
use github::fake::{Fake, World};
use peer::Peer;
use rig::{Mesh, Node};
use runmesh::kernel::entry::Event;
use runmesh::kernel::io::Response;
use runmesh::kernel::scale_set;
use runmesh::kernel::task::Fence;
use runmesh::wire::scale_set::{SetAsk, SetQuestion, seal_ask};
use runmesh::wire::ticket::Invitation;
use serde_json::Value;

/// In the place of GitHub's runner.
const RUNNER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/github/runner");
/// What `runs-on` says, which is the scale set's name.
const LAB: [&str; 1] = ["Lab"];
const SETS: &str = "/tenant/_apis/runtime/runnerscalesets";
const QUEUE: &str = "/tenant/queue/";

fn fake() -> Fake {
    let mut world = World::new();
    world.account("octo", Kind::Organization);
    world.repository("octo/one", &[("README.md", "one")]);
    world.repository("octo/two", &[("README.md", "two")]);
    Fake::start(world)
}

/// A mesh whose nodes serve the scale set `Lab` of octo; those of the list have no token.
fn mesh(fake: &Fake, count: usize, without: &[usize]) -> Mesh {
    mesh_with(fake, count, without, &[])
}

/// The same with more variables.
fn mesh_with(fake: &Fake, count: usize, without: &[usize], more: &[(&str, &str)]) -> Mesh {
    let environment = |node: usize| {
        let mut pairs = vec![
            ("RUNMESH_GITHUB_API", fake.api()),
            ("RUNMESH_AUTOSCALER_SCALE_SET", "Lab".to_owned()),
            ("RUNMESH_AUTOSCALER_INTERVAL", "1".to_owned()),
            ("RUNMESH_ACTIONS_RUNNER", RUNNER.to_owned()),
            ("RUNMESH_LOG", "info,runmesh=debug".to_owned()),
        ];
        if !without.contains(&node) {
            let token = token(node);
            fake.state().limits.tokens.entry(token.clone()).or_insert_with(|| Token::of("octo"));
            pairs.push(("GITHUB_TOKEN", token));
        }
        pairs.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    };
    let usual = ["--source", "github:octo", "--autoscaler", "--interval", "3600", "--max-runners", "4"];
    Mesh::at_github(count, &usual, environment)
}

fn token(node: usize) -> String {
    format!("ghp_planted{node}Kx7Yt3")
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

/// Who has the session, and how many there have been.
fn session(fake: &Fake) -> Option<(String, u64)> {
    let state = fake.state();
    let set = state.actions.scale_sets.sets.values().next()?;
    Some((set.session.as_ref()?.owner.clone(), set.sessions))
}

/// What ends every test: nothing is left at GitHub, and all that was said is as described.
fn in_order(fake: &Fake, mesh: Mesh) {
    until(fake, "no registration", |fake| fake.state().actions.runners.all.is_empty());
    mesh.stop();
    assert_eq!(session(fake), None, "the session is closed");
    let faults: Vec<String> = fake.calls().iter().flat_map(faults).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_job_gets_one_runner_on_three_hosts_and_ends_as_github_says() {
    let fake = fake();
    let mesh = mesh(&fake, 3, &[]);
    until(&fake, "a session", |fake| session(fake).is_some());
    let jobs = fake.queue("octo/one", &LAB, 1);
    let failing = fake.queue("octo/two", &LAB, 1);
    fake.state().actions.jobs.get_mut(&failing[0]).expect("a job").ends = "failure".to_owned();
    let tasks = mesh.wait_for_tasks(2, is_completed);
    let of = |name: &str| tasks.iter().find(|task| task["repository"]["name"] == name || task["repository"] == name);
    assert_eq!(of("octo/one").expect("a task")["conclusion"], "success", "{tasks:#?}");
    assert_eq!(of("octo/two").expect("a task")["conclusion"], "failure", "{tasks:#?}");
    for job in jobs.iter().chain(&failing) {
        assert!(fake.job(*job).runner.is_some_and(|(_, name)| name.starts_with("runmesh-")));
    }
    assert_eq!(fake.state().actions.runners.configured, 2, "one runner a job");
    until(&fake, "all hosts' slots", |fake| {
        let state = fake.state();
        assert_eq!(state.actions.scale_sets.sets.len(), 1);
        state.actions.scale_sets.sets.values().all(|set| set.capacity == 12)
    });
    mesh.wait_for_agreement();
    in_order(&fake, mesh);
}

#[test]
fn what_a_host_needs_for_a_scale_set_is_told_before_it_starts() {
    let fake = fake();
    let on = [("RUNMESH_AUTOSCALER", "true"), ("RUNMESH_SOURCES", "github:octo")];
    let mesh = mesh_with(&fake, 2, &[1], &on);
    let of = |node: usize, what: &str| {
        let done = mesh.node(node).run(&["doctor", "--output", "json"]);
        let checks: Vec<Value> = serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"));
        let found = checks.iter().find(|check| check["what"] == what);
        found.map(|check| (check["ok"] == true, check["found"].as_str().unwrap_or_default().to_owned()))
    };
    until(&fake, "the scale set", |fake| session(fake).is_some());
    assert_eq!(of(0, "scale set"), Some((true, "Lab of octo".to_owned())));
    assert_eq!(of(0, "registrations"), Some((true, "0 of octo".to_owned())));
    let (ok, found) = of(0, "GitHub").expect("a line");
    assert!(ok && found.ends_with("reaches github:octo"), "{found}");
    let (ok, found) = of(1, "GitHub").expect("a line");
    assert!(!ok && found.contains("no credentials for GitHub: set GITHUB_TOKEN"), "{found}");
    assert_eq!(of(1, "scale set"), None, "without credentials nothing more is asked");
    // One that may not register runners learns that, and of the scale set too.
    fake.state().limits.tokens.get_mut(&token(0)).expect("its token").admin = false;
    for what in ["registrations", "scale set"] {
        let (ok, found) = of(0, what).expect("a line");
        assert!(!ok && found.contains("octo"), "{what}: {found}");
    }
    fake.state().limits.tokens.get_mut(&token(0)).expect("its token").admin = true;
    in_order(&fake, mesh);
}

#[test]
fn a_listener_that_is_killed_is_followed_by_another_and_no_job_is_lost_or_served_twice() {
    let fake = fake();
    // Longer than this test takes: the next one has to close the dead one's session.
    fake.state().actions.scale_sets.session_life = Duration::from_secs(600);
    let mut mesh = mesh(&fake, 3, &[]);
    until(&fake, "a session", |fake| session(fake).is_some());
    let jobs = fake.queue("octo/one", &LAB, 6);
    for job in &jobs {
        fake.state().actions.jobs.get_mut(job).expect("a job").takes = Duration::from_secs(600);
    }
    until(&fake, "six busy runners", |fake| jobs.iter().all(|job| fake.job(*job).status == Status::InProgress));
    // A nearer host may have followed just now: the others have to know its session.
    until(&fake, "a listener of which the others know", |fake| {
        let open = fake.state().actions.scale_sets.sets.values().find_map(|set| {
            let session = set.session.as_ref()?;
            Some((session.owner.clone(), session.id.clone()))
        });
        let knows = |node: &Node, id: &str| node.log().contains(&format!("in its session {id}"));
        open.is_some_and(|(owner, id)| mesh.nodes().all(|node| node.peer == owner || knows(node, &id)))
    });
    let (owner, before) = session(&fake).expect("a session");
    let tail = owner[owner.len() - 10..].to_owned();
    let killed = mesh.kill(&owner);
    // What comes while nobody listens is not lost.
    let later = fake.queue("octo/two", &LAB, 2);
    until(&fake, "another's session", |fake| {
        session(fake).is_some_and(|(now, number)| now != owner && number > before)
    });
    until(&fake, "the later jobs' runners", |fake| later.iter().all(|job| fake.job(*job).status != Status::Queued));
    mesh.wait_for_tasks(8, |_| true);
    let (lost, kept): (Vec<u64>, Vec<u64>) =
        jobs.iter().chain(&later).partition(|job| fake.job(**job).runner.is_some_and(|(_, name)| name.contains(&tail)));
    kept.iter().for_each(|job| fake.state().actions.complete(*job, "success"));
    let tasks = mesh.wait_for_tasks(8, is_completed);
    let failed = tasks.iter().filter(|task| task["conclusion"] == "failure").count();
    assert_eq!(failed, lost.len(), "those of the killed host, as GitHub says: {tasks:#?}");
    // All six runners were busy: those of the killed host end with their jobs at GitHub, and as a rule none is replaced. While
    // the later jobs lack runners too, one of them may be started for a job of the killed host as well, and retires.
    let started = usize::try_from(fake.state().actions.runners.configured).expect("few");
    assert!((8..=8 + lost.len()).contains(&started), "one runner a job: {started}, {lost:?}");
    mesh.start_again(killed);
    mesh.wait_for_agreement();
    in_order(&fake, mesh);
}

#[test]
fn a_host_without_a_token_serves_jobs_and_no_secret_is_told() {
    let fake = fake();
    let mesh = mesh_with(&fake, 2, &[1], &[("RUNMESH_LOG", "trace")]);
    until(&fake, "a session", |fake| session(fake).is_some());
    // As many as both have slots, at once.
    let jobs = fake.queue("octo/one", &LAB, 8);
    for job in &jobs {
        fake.state().actions.jobs.get_mut(job).expect("a job").takes = Duration::from_secs(4);
    }
    let tasks = mesh.wait_for_tasks(8, |task| task["conclusion"] == "success");
    let without = &mesh.node(1).peer;
    let held = tasks.iter().filter(|task| task["holder"] == without.as_str()).count();
    assert_eq!(held, 4, "{tasks:#?}");
    assert_eq!(fake.state().actions.runners.configured, 8, "one runner a job");
    let asked: Vec<_> = fake.calls().into_iter().filter(|call| call.path.contains("generatejitconfig")).collect();
    assert!(asked.iter().all(|call| call.token.starts_with("ey")) && asked.len() == 8);
    // Whatever GitHub has given out, and the token itself, is nowhere but where it has to be.
    let mut readable: Vec<(String, String)> = Vec::new();
    for node in mesh.nodes() {
        readable.push((format!("log of {}", node.peer), node.log()));
        let mut told = String::new();
        for words in [
            &["inspect", "status"][..],
            &["inspect", "tasks"],
            &["inspect", "queue"],
            &["inspect", "sources"],
            &["inspect", "runners"],
            &["inspect", "events"],
            &["inspect", "clock"],
            &["inspect", "peers"],
        ] {
            for form in ["table", "json"] {
                told.push_str(&node.run(&[words, &["--output", form]].concat()).stdout);
            }
        }
        assert!(told.contains("scale set Lab of octo"), "{told}");
        readable.push((format!("answers of {}", node.peer), told));
        let mut files = Vec::new();
        all_files(&node.data_dir(), &mut files);
        for file in files {
            let bytes = std::fs::read(&file).unwrap_or_default();
            readable.push((file.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    for (place, text) in &readable {
        for secret in ["ghp_planted", "reg-planted", "admin-planted", "queue-planted", "jit-planted"] {
            let at = text.find(secret).map(|at| &text[text.floor_char_boundary(at.saturating_sub(200))..at]);
            assert_eq!(at, None, "{secret} is in {place}");
        }
        for configuration in fake.calls().iter().filter_map(|call| call.answer["encodedJITConfig"].as_str()) {
            assert!(!text.contains(configuration), "a configuration is in {place}");
        }
    }
    in_order(&fake, mesh);
}

fn all_files(folder: &std::path::Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => all_files(&entry.path(), into),
            Ok(kind) if kind.is_file() => into.push(entry.path()),
            _ => {}
        }
    }
}

#[test]
fn whatever_the_service_answers_jobs_are_served() {
    let fake = fake();
    fake.state().actions.scale_sets.poll = Duration::from_millis(300);
    fake.state().actions.scale_sets.no_queue = 1;
    let mesh = mesh(&fake, 1, &[]);
    until(&fake, "a session", |fake| session(fake).is_some());
    let faults: [(&str, Fault); 9] = [
        (QUEUE, Fault::Status(401)),
        (QUEUE, Fault::Empty),
        (QUEUE, Fault::Cut),
        (QUEUE, Fault::Status(500)),
        (QUEUE, Fault::Slow(Duration::from_secs(1))),
        (QUEUE, Fault::Status(404)),
        (SETS, Fault::Status(500)),
        (SETS, Fault::Status(401)),
        ("/orgs/octo/actions/runners/registration-token", Fault::Status(502)),
    ];
    let count = faults.len();
    for (number, (path, fault)) in faults.into_iter().enumerate() {
        // Its token ends at once where the next question for one is to fail.
        fake.state().actions.scale_sets.admin_life = if number + 1 == count { 1 } else { 3_600 };
        fake.fail(path, 2, fault.clone());
        let job = fake.queue("octo/one", &LAB, 1)[0];
        until(&fake, &format!("a job's end after {fault:?} of {path}"), |fake| {
            fake.job(job).status == Status::Completed
        });
    }
    all_closed(&mesh);
    let calls = fake.calls();
    let of = |method: &str, path: &str| {
        calls.iter().filter(|call| call.method == method && call.path.starts_with(path) && call.status < 300).count()
    };
    assert!(of("PATCH", SETS) >= 1, "the session was renewed");
    assert!(session(&fake).expect("a session").1 >= 2, "and made anew");
    // Jobs that are only offered are taken on.
    fake.state().limits.heal();
    fake.state().actions.scale_sets.offers = true;
    let jobs = fake.queue("octo/two", &LAB, 2);
    until(&fake, "the offered jobs' end", |fake| jobs.iter().all(|job| fake.job(*job).status == Status::Completed));
    all_closed(&mesh);
    in_order(&fake, mesh);
}

/// Waits until nothing is open any more.
fn all_closed(mesh: &Mesh) {
    mesh.node(0).wait_for("the end of all tasks", |node| {
        let tasks = node.json(&["inspect", "tasks"]);
        tasks
            .as_array()
            .is_some_and(|tasks| tasks.iter().all(|task| is_completed(task) || task["state"] == "cancelled"))
    });
}

#[test]
fn while_another_has_the_session_it_is_waited_for() {
    let fake = fake();
    let first = mesh(&fake, 1, &[]);
    until(&fake, "a session", |fake| session(fake).is_some());
    // Of a mesh of its own: the set is the same.
    let second = mesh(&fake, 1, &[]);
    let conflicts = |fake: &Fake| {
        let state = fake.state();
        state.actions.scale_sets.sets.values().next().map_or(0, |set| set.conflicts)
    };
    until(&fake, "refusals", |fake| conflicts(fake) >= 3);
    second.node(0).wait_for("why it waits", |node| {
        node.run(&["inspect", "sources"]).stdout.contains("already has an active session")
    });
    let owner = session(&fake).expect("a session").0;
    assert_eq!(owner, first.node(0).peer);
    first.stop();
    until(&fake, "the second's session", |fake| session(fake).is_some_and(|(now, _)| now != owner));
    fake.queue("octo/one", &LAB, 1);
    second.wait_for_tasks(1, is_completed);
    in_order(&fake, second);
}

#[test]
fn as_many_runners_start_as_github_wants_though_it_names_few_jobs() {
    let fake = fake();
    fake.state().actions.scale_sets.forgets = true;
    fake.state().actions.scale_sets.named = 1;
    let mesh = mesh(&fake, 1, &[]);
    until(&fake, "a session", |fake| session(fake).is_some());
    let jobs = fake.queue("octo/one", &LAB, 4);
    until(&fake, "all jobs' end", |fake| jobs.iter().all(|job| fake.job(*job).status == Status::Completed));
    all_closed(&mesh);
    in_order(&fake, mesh);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_gets_no_configuration_for_what_another_holds_and_removes_no_runner_of_another() {
    let fake = fake();
    let mesh = mesh(&fake, 1, &[]);
    until(&fake, "a session", |fake| session(fake).is_some());
    let job = fake.queue("octo/one", &LAB, 1)[0];
    fake.state().actions.jobs.get_mut(&job).expect("a job").takes = Duration::from_secs(600);
    until(&fake, "a busy runner", |fake| fake.job(job).status == Status::InProgress);
    let node = mesh.node(0);
    let invited = node.json(&["mesh", "invite"])["ticket"].as_str().expect("a ticket").to_owned();
    let invitation: Invitation = invited.parse().expect("a ticket");
    let mut member = Peer::join([61; 32], &invitation).await;
    let claim = member.entries.iter().find_map(|entry| {
        let claim = entry.body().events.iter().find_map(|event| match event {
            Event::Claim(claim) => Some(claim.clone()),
            _ => None,
        })?;
        Some((claim.task, Fence { attempt: claim.attempt, claim: entry.cid() }))
    });
    let (task, fence) = claim.expect("the job's task is held");
    let (registration, runner) = fake.job(job).runner.expect("it has one");
    let host = fake.api().trim_start_matches("http://").to_owned();
    let set = scale_set::source(&format!("{host}/octo"), "Lab");
    let name = member.peer().to_string();
    let own = format!("runmesh-{}-{}-1", &name[name.len() - 10..], fence.claim.short());
    let questions = [
        (SetQuestion::Configure { task, fence, runner: own.clone() }, "does not hold that task"),
        (SetQuestion::Remove { registration, runner: runner.clone() }, "not the asker's"),
        (SetQuestion::Remove { registration, runner: own }, "another runner's"),
    ];
    for (what, why) in questions {
        let answer = member.ask_bytes(seal_ask(&SetAsk { set: set.clone(), what })).await;
        assert!(matches!(&answer, Some(Response::Refused { why: told }) if told.contains(why)), "{why}: {answer:?}");
    }
    let of_no_set = SetAsk { set: "scale-set:h/none#x".to_owned(), what: SetQuestion::Remove { registration, runner } };
    let answer = member.ask_bytes(seal_ask(&of_no_set)).await;
    assert!(matches!(&answer, Some(Response::Refused { why }) if why.contains("no such scale set")), "{answer:?}");
    assert_eq!(fake.state().actions.runners.configured, 1);
    drop(member);
    fake.state().actions.complete(job, "success");
    mesh.wait_for_tasks(1, is_completed);
    in_order(&fake, mesh);
}
