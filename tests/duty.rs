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
use github::fake::{Fake, World};
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

/// Waits until somebody else than these has looked, and gives who.
fn wait_for_another(fake: &Fake, than: &BTreeSet<String>) -> String {
    let began = Instant::now();
    loop {
        let calls = fake.take_calls();
        if let Some(call) = calls.into_iter().find(|call| call.status == 200 && !than.contains(&call.token)) {
            return call.token;
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

    // One looks; of a steady cycle it is one call, whatever the number of nodes.
    let looking = used(&fake, interval * 3);
    assert_eq!(looking.len(), 1, "{looking:?}");
    fake.take_calls();
    std::thread::sleep(interval * 4);
    let calls = fake.take_calls().len();
    assert!((2..=5).contains(&calls), "{calls} calls in four intervals");

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
