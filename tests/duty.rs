//! GitHub sources in a mesh of real processes: who looks, what it costs, who takes over, and what runs of it. Each node
//! has a token of its own, whose calls the fake GitHub counts.
//!
//! Needs git, act (on PATH, or named by RUNMESH_ACT) and bubblewrap; `scripts/test` installs them.

mod github {
    pub(crate) mod fake;
}
#[allow(dead_code, reason = "tests/mesh.rs uses the rest")]
#[path = "mesh/rig.rs"]
mod rig;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use github::fake::limits::Token;
use github::fake::{Call, Fake, World};
use rig::Mesh;

const FILE: &str = ".github/workflows/ci.yml";

fn workflow(name: &str, on: &str) -> String {
    format!(
        "name: {name}\non: {on}\nenv:\n  WORKFLOW_TAGS: p2p-only\njobs:\n  a:\n    runs-on: self-hosted\n    steps:\n      - uses: actions/checkout@v4\n      - run: cat greeting; echo ran {name}\n"
    )
}

fn fake(repositories: usize) -> Fake {
    let mut world = World::new();
    for n in 0..repositories {
        let text = workflow(&format!("ci {n}"), "push");
        world.repository(&format!("octo/r{n}"), &[(FILE, &text), ("greeting", "hello from the checkout\n")]).private =
            true;
    }
    Fake::start(world)
}

/// The environment of the node of this number.
fn environment(fake: &Fake, node: usize) -> Vec<(String, String)> {
    let token = format!("token-{node}");
    let sees = Some(vec!["octo".to_owned()]);
    fake.state().limits.tokens.insert(token.clone(), Token { sees, ..Token::of("octo") });
    vec![("RUNMESH_GITHUB_API".to_owned(), fake.api()), ("GITHUB_TOKEN".to_owned(), token)]
}

/// The tokens that were used from now on, for so long.
fn used(fake: &Fake, time: Duration) -> BTreeSet<String> {
    fake.take_calls();
    std::thread::sleep(time);
    fake.take_calls().into_iter().map(|call| call.token).collect()
}

/// Waits until somebody else than these has looked twice, which no census does, and gives who.
fn wait_for_another(fake: &Fake, than: &BTreeSet<String>) -> String {
    let began = Instant::now();
    fake.take_calls();
    loop {
        let calls = fake.calls();
        let others = || calls.iter().filter(|call| call.status == 200 && !than.contains(&call.token));
        let again = |one: &&Call| others().filter(|call| call.token == one.token).count() > 1;
        if let Some(call) = others().find(again) {
            return call.token.clone();
        }
        assert!(began.elapsed() < Duration::from_secs(60), "nobody takes the duty over");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn one_of_eight_nodes_looks_and_another_takes_over() {
    let fake = fake(5);
    let interval = Duration::from_secs(2);
    let arguments = ["--source", "github:octo", "--executor", "none", "--interval", "2"];
    let mut mesh = Mesh::at_github(8, &arguments, |node| environment(&fake, node));
    mesh.wait_for_tasks(5, |task| task["repository"].as_str().is_some_and(|name| name.starts_with("octo/")));
    mesh.wait_for_agreement();
    let number = |token: &str| token.rsplit('-').next().and_then(|n| n.parse::<usize>().ok()).expect("a node's token");

    // One looks; of a steady cycle it is one call, whatever the number of nodes. Another one may take a census meanwhile.
    fake.take_calls();
    std::thread::sleep(interval * 7);
    let calls = fake.take_calls();
    assert!((5..=9).contains(&calls.len()), "{} calls in seven intervals", calls.len());
    let of = |token: &str| calls.iter().filter(|call| call.token == token).count();
    let looking: BTreeSet<String> = calls.iter().map(|call| call.token.clone()).filter(|one| of(one) > 2).collect();
    assert!(looking.len() == 1 && calls.len() - of(looking.first().expect("one")) <= 1, "{calls:#?}");

    // It dies.
    let mut out = looking;
    let dead = mesh.nodes().nth(number(out.first().expect("one"))).expect("it runs").peer.clone();
    mesh.kill(&dead);
    let second = wait_for_another(&fake, &out);
    out.insert(second.clone());

    // The next one's token is revoked.
    fake.state().limits.token(&second).revoked = true;
    let third = wait_for_another(&fake, &out);
    out.insert(third.clone());

    // The next one's limit is used up.
    {
        let mut state = fake.state();
        let token = state.limits.token(&third);
        token.core.leave(0, 3_600);
        token.graphql.leave(0, 3_600);
    }
    let fourth = wait_for_another(&fake, &out);

    // The work goes on, each thing once.
    fake.commit("octo/r1", &[(FILE, Some(&workflow("second", "push")))]);
    let tasks = mesh.wait_for_tasks(6, |_| true);
    assert_eq!(tasks.iter().filter(|task| task["name"] == "second").count(), 1, "{tasks:#?}");
    let cancelled: Vec<_> = tasks.iter().filter(|task| task["state"] == "cancelled").collect();
    assert_eq!(cancelled.len(), 1, "the older push of it, which nobody held: {cancelled:#?}");
    let looking = used(&fake, interval * 3);
    assert!(looking.contains(&fourth), "{looking:?}");
    mesh.wait_for_agreement();
    mesh.stop();
}

#[test]
fn a_commit_at_github_is_found_fetched_and_run() {
    let fake = fake(2);
    let sources = ["--source", "github:octo/r0", "--source", "github:octo/r1"];
    let arguments = [&sources[..], &["--interval", "1", "--max-runners", "2"]].concat();
    let mut mesh = Mesh::at_github(1, &arguments, |node| environment(&fake, node));
    let tasks = mesh.wait_for_tasks(2, |task| task["state"] == "completed");
    for task in &tasks {
        assert_eq!(task["conclusion"], "success", "{task:#?}");
        let holder = mesh.node_of(task["holder"].as_str().expect("held"));
        let log = holder.run(&["tasks", "logs", task["id"].as_str().expect("an id")]);
        assert!(log.stdout.contains("hello from the checkout"), "{log:?}");
        assert!(!log.stdout.contains("token-"), "{log:?}");
    }
    // What a person sees of it.
    let node = mesh.nodes().next().expect("one");
    let found = node.json(&["github", "p2p-discover", "once"]);
    assert_eq!((&found["discovered"], &found["submitted"]), (&2.into(), &0.into()), "{found:#}");
    assert_eq!(found["scheduler"]["completed_tasks"], 2, "{found:#}");
    let source = &node.json(&["inspect", "sources"])[0];
    assert_eq!((&source["spec"], &source["cycle"]["calls"]), (&"github:octo/r0".into(), &1.into()), "{source:#}");
    assert!(source["limits"][0]["remaining"].as_u64().is_some_and(|left| left > 4_000), "{source:#}");

    // A restart costs no more than a steady cycle.
    let peer = mesh.nodes().next().expect("one").peer.clone();
    let killed = mesh.kill(&peer);
    fake.take_calls();
    mesh.start_again(killed);
    let node = mesh.nodes().next().expect("one");
    node.wait_for("both sources' first looks", |_| {
        fake.calls().iter().filter(|call| call.path == "/graphql" && call.status == 200).count() >= 2
    });
    let asks_for_texts = |query: &str| query.starts_with("query Texts");
    let calls = fake.take_calls();
    assert!(!calls.iter().any(|call| call.request["query"].as_str().is_some_and(asks_for_texts)), "{calls:#?}");
    node.wait_for("taking part", |node| node.run(&["tasks", "submit", "octo/r1", "ci.yml"]).status == 0);
    mesh.wait_for_tasks(3, |task| task["state"] == "completed" && task["conclusion"] == "success");
    mesh.stop();
}

/// Two nodes, each with a repository that the other's token does not show: the one on duty looks into what it sees, the
/// other into the rest, and each repository into by one alone.
#[test]
fn what_the_one_on_duty_cannot_see_is_the_next_ones_duty() {
    let mut world = World::new();
    for name in ["both", "only-0", "only-1"] {
        let text = workflow(name, "push");
        world.repository(&format!("octo/{name}"), &[(FILE, &text)]).private = true;
    }
    let fake = Fake::start(world);
    let arguments = ["--source", "github:octo", "--executor", "none", "--interval", "1"];
    let mesh = Mesh::at_github(2, &arguments, |node| {
        let environment = environment(&fake, node);
        let sees = ["octo/both".to_owned(), format!("octo/only-{node}")];
        fake.state().limits.token(&format!("token-{node}")).sees = Some(sees.to_vec());
        environment
    });
    mesh.wait_for_tasks(3, |_| true);
    // From now on each is found as soon as it changes.
    for number in 0..2 {
        let name = format!("later in {number}");
        fake.commit(&format!("octo/only-{number}"), &[(FILE, Some(&workflow(&name, "push")))]);
        mesh.wait_for_tasks(4 + number, |_| true);
    }
    // One list an interval each, and the file that both see is read by one.
    fake.commit("octo/both", &[(FILE, Some(&workflow("both again", "push")))]);
    fake.take_calls();
    mesh.wait_for_tasks(6, |_| true);
    std::thread::sleep(Duration::from_secs(3));
    let is_text = |call: &&Call| call.request["query"].as_str().is_some_and(|query| query.starts_with("query Texts"));
    assert_eq!(fake.take_calls().iter().filter(is_text).count(), 1);
    mesh.wait_for_agreement();
    mesh.stop();
}

/// All eight nodes look in the very minute of a tick, and the one on duty is killed in it: one task comes of the tick.
#[test]
fn a_tick_is_one_task_also_when_the_duty_changes_hands_at_that_second() {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis();
    let minute = |at: u128| at / 60_000;
    // A line of one minute: of `* * * * *` GitHub takes only each fifth. The mesh has time to form before it.
    let next = (minute(now() + 20_000) + 1) * 60_000;
    let mut world = World::new();
    let line = format!("{{schedule: [{{cron: '{} * * * *'}}], workflow_dispatch: }}", minute(next) % 60);
    let text = workflow("once", &line);
    world.repository("octo/clock", &[(FILE, &text)]).private = true;
    let fake = Fake::start(world);
    let arguments = ["--source", "github:octo", "--executor", "none", "--interval", "1"];
    let mut mesh = Mesh::at_github(8, &arguments, |node| environment(&fake, node));
    mesh.wait_for_tasks(1, |_| true);
    let on_duty = |mesh: &Mesh| {
        let sources = mesh.nodes().last().expect("one").json(&["inspect", "sources"]);
        sources[0]["duty"].as_str().expect("somebody's duty").to_owned()
    };
    assert!(now() < next, "the mesh took too long to form");
    let mut duty = on_duty(&mesh);
    while now() < next {
        if next - now() > 1_500 {
            duty = on_duty(&mesh);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let looks: Vec<_> = mesh.nodes().map(|node| node.spawn(&["github", "p2p-discover", "once"])).collect();
    mesh.kill(&duty);
    for mut look in looks {
        // That of the node that was killed fails.
        let _ = look.wait();
    }
    let ticks = |node: &rig::Node| -> Vec<u128> {
        let tasks = node.json(&["inspect", "tasks"]);
        let tasks = tasks.as_array().expect("a list").iter().filter(|task| task["trigger"] == "schedule");
        let minute = |task: &serde_json::Value| task["occurrence"].as_str()?.rsplit(' ').next()?.parse().ok();
        tasks.map(|task| minute(task).unwrap_or_else(|| panic!("no minute: {task:#}"))).collect()
    };
    let expected = minute(next);
    mesh.nodes().next().expect("one").wait_for("the tick", |node| ticks(node).contains(&expected));
    // Whoever is on duty now looks a few times more.
    let heir = wait_for_another(&fake, &BTreeSet::new());
    mesh.wait_for_agreement();
    for node in mesh.nodes() {
        let all = ticks(node);
        let of_it = all.iter().filter(|tick| **tick == expected).count();
        assert_eq!(of_it, 1, "{heir} is on duty now: {all:?}");
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
    }
    mesh.stop();
}

/// Who is told to pause leaves its duty to another for as long as it was told: neither asks before, nor stays away much
/// longer. Without a time it would stay away for ten intervals.
#[test]
fn the_duty_comes_back_when_github_said_that_it_may() {
    const PAUSE: u64 = 5;
    let fake = fake(2);
    let arguments = ["--source", "github:octo", "--executor", "none", "--interval", "1"];
    let mesh = Mesh::at_github(2, &arguments, |node| environment(&fake, node));
    mesh.wait_for_tasks(2, |_| true);
    let first = wait_for_another(&fake, &BTreeSet::new());
    {
        let mut state = fake.state();
        let token = state.limits.token(&first);
        token.core.leave(0, PAUSE);
        token.graphql.leave(0, PAUSE);
    }
    let told = Instant::now();
    let second = wait_for_another(&fake, &BTreeSet::from([first.clone()]));
    fake.take_calls();
    let began = Instant::now();
    while fake.calls_of(&first) == 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not come back");
        std::thread::sleep(Duration::from_millis(20));
    }
    let away = told.elapsed();
    assert!(away >= Duration::from_secs(PAUSE - 1), "{first} asks after {away:?}, {second} looks meanwhile");
    assert!(away < Duration::from_secs(PAUSE + 4), "{first} is away for {away:?}");
    mesh.wait_for_agreement();
    mesh.stop();
}

/// What a repository holds at the first look may be only taken note of; what comes later is a task, and of a group of
/// tasks that nobody runs the newest stays.
#[test]
fn what_is_there_at_the_first_look_may_be_left_alone_and_of_a_group_the_newest_stays() {
    let mut world = World::new();
    let text = |name: &str| workflow(name, "push") + "concurrency: one\n";
    let other = ".github/workflows/other.yml";
    world.repository("octo/r", &[(FILE, &text("old")), (other, &text("other"))]).private = true;
    let fake = Fake::start(world);
    let folder = tempfile::tempdir().expect("a folder");
    let settings = folder.path().join("settings.toml");
    std::fs::write(&settings, "[[sources]]\nspec = \"github:octo\"\nfirst_scan = \"record\"\n").expect("written");
    let settings = settings.to_str().expect("UTF-8").to_owned();
    let arguments = ["--config", &settings, "--executor", "none", "--interval", "1"];
    let mesh = Mesh::at_github(2, &arguments, |node| environment(&fake, node));
    let is = |task: &serde_json::Value, name: &str, state: &str| task["name"] == name && task["state"] == state;
    mesh.wait_for_tasks(2, |task| task["state"] == "cancelled");
    // Both files are tasks of the new head, and of one group.
    fake.commit("octo/r", &[(FILE, Some(&text("new")))]);
    let tasks = mesh.wait_for_tasks(4, |task| task["state"] == "cancelled" || task["state"] == "pending");
    let pending = |tasks: &[serde_json::Value]| tasks.iter().filter(|task| task["state"] == "pending").count();
    let first = mesh.nodes().next().expect("one");
    first.wait_for("one that stays", |node| pending(node.json(&["inspect", "tasks"]).as_array().expect("a list")) == 1);
    assert!(tasks.iter().any(|task| is(task, "old", "cancelled")), "{tasks:#?}");
    mesh.wait_for_agreement();
    let tasks = first.json(&["inspect", "tasks"]);
    let superseded: Vec<&serde_json::Value> = tasks.as_array().expect("a list").iter().collect();
    let notes: Vec<String> = superseded
        .iter()
        .map(|task| first.json(&["inspect", "tasks", task["id"].as_str().expect("an id")])["note"].to_string())
        .collect();
    assert!(notes.iter().any(|note| note.contains("superseded in its concurrency group `one`")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("before the first look")), "{notes:?}");
    mesh.stop();
}
