//! What discovery costs at GitHub: calls of the first, an unchanged and a changed look, against the fake GitHub.

use std::collections::{BTreeMap, BTreeSet};

use runmesh::forge::Manner;
use runmesh::forge::github::{Credentials, Github, Looked, Memory, Secret, Selection, Target, Terms};

use super::Outcome;
use super::github::fake::{Fake, World};
use super::report::{Goal, Row};

/// What the source system needs for 50 repositories of 3 workflow files: a list, then a call for each repository and for
/// each file (DESIGN.md section 10; about 50 of them where its cache serves).
const RIVAL: &str = "the source system, by its calls' number";

pub(crate) fn number() -> Outcome<Vec<Row>> {
    let fifty = [("first", 2.0, 200.0), ("unchanged", 1.0, 50.0), ("changed", 2.0, 51.0)];
    let thousand = [("first_1000", 20.0, 4_000.0), ("unchanged_1000", 10.0, 1_000.0), ("changed_1000", 11.0, 1_001.0)];
    let mut rows = Vec::new();
    for (repositories, goals) in [(50, fifty), (1_000, thousand)] {
        let calls = calls(repositories)?;
        for ((name, goal, rival), calls) in goals.into_iter().zip(calls) {
            let row = Row::alone(&format!("api_calls_{name}"), "calls", Goal::AtMost(goal), calls);
            rows.push(row.against(RIVAL, rival));
        }
    }
    Ok(rows)
}

/// Calls of the three looks.
fn calls(repositories: usize) -> Outcome<[f64; 3]> {
    let mut world = World::new();
    for n in 0..repositories {
        let files: Vec<(String, String)> =
            (0..3).map(|file| (format!(".github/workflows/{file}.yml"), workflow(n, file))).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        world.repository(&format!("octo/r{n:04}"), &files);
    }
    let fake = Fake::start(world);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let credentials = Credentials::Token(Secret::new("t"));
        let github = Github::new(fake.api().parse()?, credentials, Selection::default())?;
        let target = Target { owner: "octo".to_owned(), repository: None };
        let (mut memory, mut calls) = (Memory::default(), [0.0; 3]);
        for (look, calls) in calls.iter_mut().enumerate() {
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
            (memory, *calls) = (kept, counted as f64);
        }
        Ok(calls)
    })
}

fn workflow(repository: usize, file: usize) -> String {
    let tags = if file == 0 { "# P2P: p2p-eligible\n" } else { "" };
    format!("{tags}name: {repository} {file}\non: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: make\n")
}
