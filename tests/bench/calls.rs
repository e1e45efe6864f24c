//! What discovery costs at GitHub: calls and charged points of the first, an unchanged and a changed look, against the
//! fake GitHub.

use std::collections::{BTreeMap, BTreeSet};

use runmesh::forge::Manner;
use runmesh::forge::github::{Credentials, Github, Looked, Memory, Secret, Selection, Target, Terms};
use runmesh::kernel::io::{Discovery, RepositoryMark};

use super::github::fake::{Fake, World};
use super::report::{Goal, Row};
use super::{Outcome, agreement};

/// What the source system needs for 50 repositories of 3 workflow files: a list, then a call for each repository and for
/// each file (DESIGN.md section 10; about 50 of them where its cache serves).
const RIVAL: &str = "the source system, by its calls' number";

pub(crate) fn number() -> Outcome<Vec<Row>> {
    let fifty = [("first", 2.0, 200.0), ("unchanged", 1.0, 50.0), ("changed", 2.0, 51.0)];
    let thousand = [("first_1000", 20.0, 4_000.0), ("unchanged_1000", 10.0, 1_000.0), ("changed_1000", 11.0, 1_001.0)];
    let mut rows = Vec::new();
    for (repositories, goals) in [(50, fifty), (1_000, thousand)] {
        for ((name, goal, rival), look) in goals.into_iter().zip(three_looks(repositories)?) {
            let row = Row::alone(&format!("api_calls_{name}"), "calls", Goal::AtMost(goal), look.calls);
            rows.push(row.against(RIVAL, rival));
            rows.push(Row::alone(&format!("api_points_{name}"), "points", Goal::None, look.points));
        }
    }
    let [one, eight, hundred] = [1, 8, 100].map(looks);
    let one = one?;
    for (nodes, calls) in [(8, eight?), (100, hundred?)] {
        let row = Row::alone(&format!("api_calls_{nodes}_nodes"), "times one node's", Goal::AtMost(1.05), calls / one);
        rows.push(row.against("each node for itself", nodes as f64));
    }
    Ok(rows)
}

/// Looks at the usual interval: one census, which comes in thirty of them, is among them.
const LOOKS: u64 = 40;
/// Between two looks, in milliseconds of virtual time.
const INTERVAL: u64 = 60_000;

/// Calls of these looks by a mesh of so many nodes, each with a token of its own, that list one source of 50 repositories, one
/// of which changes. The nodes' kernels and time are in one process and virtual; their looks are real calls.
fn looks(nodes: usize) -> Outcome<f64> {
    let fake = std::sync::Arc::new(Fake::start(repositories(50)));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let entered = runtime.enter();
    let mut hosts = Vec::new();
    for n in 0..nodes {
        let credentials = Credentials::Token(Secret::new(format!("t{n}")));
        hosts.push((Github::new(fake.api().parse()?, credentials, Selection::default())?, Memory::default()));
    }
    drop(entered);
    let target = Target { owner: "octo".to_owned(), repository: None };
    let source = hosts[0].0.key(&target);
    let look = move |host: usize, except: &BTreeSet<RepositoryMark>| {
        let (github, memory) = &mut hosts[host];
        let (known, manner) = (BTreeMap::new(), Manner::default());
        let terms = Terms { known: &known, minute: 0, except, manner, progress: &|_, _| () };
        let looked = runtime.block_on(github.discover(&target, std::mem::take(memory), terms));
        *memory = looked.memory;
        let found = looked.outcome.unwrap_or_else(|error| panic!("the fake answers: {error}"));
        Discovery { workloads: found.workloads, seen: found.seen, ..Discovery::default() }
    };
    let mut world = agreement::World::looking(nodes, &source, INTERVAL, Box::new(look));
    world.run_until(LOOKS / 2 * INTERVAL);
    fake.commit("octo/r0007", &[(".github/workflows/0.yml", Some(&workflow(7, 99)))]);
    world.run_until(LOOKS * INTERVAL);
    Ok(fake.take_calls().len() as f64)
}

fn repositories(count: usize) -> World {
    let mut world = World::new();
    for n in 0..count {
        let files: Vec<(String, String)> =
            (0..3).map(|file| (format!(".github/workflows/{file}.yml"), workflow(n, file))).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        world.repository(&format!("octo/r{n:04}"), &files);
    }
    world
}

/// What a look has cost: its calls, and what GitHub charges for them of the 5,000 points an hour.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    calls: f64,
    points: f64,
}

/// The first look, an unchanged one, and one after a file has changed.
fn three_looks(repositories: usize) -> Outcome<[Cost; 3]> {
    let fake = Fake::start(self::repositories(repositories));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let credentials = Credentials::Token(Secret::new("t"));
        let github = Github::new(fake.api().parse()?, credentials, Selection::default())?;
        let target = Target { owner: "octo".to_owned(), repository: None };
        let (mut memory, mut costs) = (Memory::default(), [Cost::default(); 3]);
        for (look, cost) in costs.iter_mut().enumerate() {
            if look == 2 {
                fake.commit("octo/r0007", &[(".github/workflows/0.yml", Some(&workflow(7, 99)))]);
            }
            let (known, except) = (BTreeMap::new(), BTreeSet::new());
            let manner = Manner::default();
            let terms = Terms { known: &known, minute: 0, except: &except, manner, progress: &|_, _| () };
            let looked = github.discover(&target, memory, terms).await;
            let Looked { memory: kept, cycle, outcome } = looked;
            outcome?;
            // What the fake has counted is what counts.
            let counted = fake.take_calls().len();
            if counted as u64 != cycle.calls {
                return Err(format!("{counted} calls came in, {} were counted", cycle.calls).into());
            }
            (memory, *cost) = (kept, Cost { calls: counted as f64, points: cycle.points as f64 });
        }
        Ok(costs)
    })
}

fn workflow(repository: usize, file: usize) -> String {
    let tags = if file == 0 { "# P2P: p2p-only\n" } else { "" };
    format!("{tags}name: {repository} {file}\non: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: make\n")
}
