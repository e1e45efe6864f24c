//! The GitHub half of the forge room, against the fake GitHub of tests/github/, and both against what GitHub publishes
//! of its API.

mod github {
    mod access;
    mod cost;
    pub(crate) mod description;
    mod failing;
    pub(crate) mod fake;
    mod proxy;
    mod tasks;
}
#[path = "github/jobs.rs"]
mod jobs;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use github::fake::limits::Token;
use github::fake::runs::CommitRun;
use github::fake::world::Kind;
use github::fake::{Call, Fake, Fault, World};
use github::{description, fake};
use runmesh::forge::github::{
    Credentials, Github, GithubError, Looked, Memory, Proxy, Secret, Selection, Tally, Target, Terms,
};
use runmesh::forge::{Asked, Duplicate, Findings, FirstScan, Manner};
use runmesh::kernel::known::{Known, KnownWorkflow};
use runmesh::kernel::task::{Concurrency, Priority, RunEvent, Trigger, Workload};

const W: &str = ".github/workflows/";
const MINUTE: u64 = 28_400_000;

fn tagged(name: &str) -> String {
    on(name, "push")
}

fn on(name: &str, on: &str) -> String {
    format!(
        "name: {name}\non: {on}\nenv:\n  WORKFLOW_TAGS: p2p-only\njobs:\n  a:\n    runs-on: self-hosted\n    steps:\n      - run: echo {name}\n"
    )
}

/// So many repositories of `octo`'s, three workflow files each, one of them tagged.
fn world(repositories: usize) -> World {
    let mut world = World::new();
    for n in 0..repositories {
        let texts = [
            tagged(&format!("ci {n}")),
            format!("on: push\njobs: {{}}\n# {n}\n"),
            format!("on: push\nname: {n}\njobs: {{}}\n"),
        ];
        let paths = ["ci.yml", "lint.yml", "docs.yaml"].map(|file| format!("{W}{file}"));
        let files: Vec<(&str, &str)> =
            paths.iter().zip(&texts).map(|(path, text)| (path.as_str(), text.as_str())).collect();
        world.repository(&format!("octo/r{n:04}"), &files);
    }
    world
}

fn github(fake: &Fake, token: &str) -> Github {
    selecting(fake, token, Selection::default())
}

fn selecting(fake: &Fake, token: &str, selection: Selection) -> Github {
    let endpoint = fake.api().parse().expect("an address");
    Github::new(endpoint, Credentials::Token(Secret::new(token)), selection).expect("a client")
}

fn octo() -> Target {
    Target { owner: "octo".to_owned(), repository: None }
}

async fn look(github: &Github, target: &Target, memory: Memory) -> Looked {
    look_knowing(github, target, memory, &BTreeMap::new()).await
}

async fn look_knowing(github: &Github, target: &Target, memory: Memory, known: &BTreeMap<String, Known>) -> Looked {
    look_so(github, target, memory, known, Manner::default()).await
}

async fn look_so(
    github: &Github,
    target: &Target,
    memory: Memory,
    known: &BTreeMap<String, Known>,
    manner: Manner,
) -> Looked {
    let terms = Terms { known, minute: MINUTE, except: &BTreeSet::new(), manner, progress: &|_, _| () };
    github.discover(target, memory, terms).await
}

fn good(looked: Looked) -> (Findings, Memory) {
    (looked.outcome.expect("a good look"), looked.memory)
}

fn tagged_paths(findings: &Findings) -> Vec<String> {
    let tagged = findings.workflows.iter().filter(|found| !found.tags.is_empty());
    tagged.map(|found| format!("{} {}", found.repository, found.path.trim_start_matches(W))).collect()
}

/// A key as GitHub gives an app one.
fn rsa_key() -> Vec<u8> {
    use aws_lc_rs::encoding::AsDer as _;
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use base64::Engine as _;
    let key = KeyPair::generate(KeySize::Rsa2048).expect("a key");
    let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = key.as_der().expect("PKCS #8");
    let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n").into_bytes()
}

#[tokio::test]
async fn questions_and_answers_are_as_github_publishes_them() {
    let mut world = world(3);
    world.account("acme", Kind::Organization);
    world.repository("acme/x", &[(format!("{W}ci.yml").as_str(), &on("docs", "{push: {paths: ['docs/**']}}"))]);
    world.repository("acme/empty", &[]);
    world.install(7, "acme");
    let fake = Fake::start(world);
    let one = github(&fake, "t");
    let acme = Target { owner: "acme".to_owned(), repository: None };
    let single = Target { owner: "octo".to_owned(), repository: Some("r0001".to_owned()) };
    for graphql in [true, false] {
        fake.state().limits.no_graphql = !graphql;
        for target in [&octo(), &acme, &single] {
            let (findings, memory) = good(look(&one, target, Memory::default()).await);
            let before = findings.workloads.iter().find(|workload| workload.name == "docs");
            fake.commit("acme/x", &[("src/y", Some("z"))]);
            if let Some(before) = before {
                let workflow = KnownWorkflow { pushed: Some(before.commit.clone()), ..KnownWorkflow::default() };
                let known = Known { workflows: BTreeMap::from([(before.path.clone(), workflow)]) };
                let known = BTreeMap::from([(before.repository.id.clone(), known)]);
                good(look_knowing(&one, target, memory, &known).await);
            }
        }
        let missing = Target { owner: "nobody".to_owned(), repository: None };
        assert!(look(&one, &missing, Memory::default()).await.outcome.is_err());
        let app = Credentials::App { id: 7, key: rsa_key() };
        let app = Github::new(fake.api().parse().expect("an address"), app, Selection::default()).expect("a client");
        good(look(&app, &acme, Memory::default()).await);
    }
    let commit = fake.commit(
        "octo/r0001",
        &[(format!("{W}ci.yml").as_str(), Some("# P2P: p2p-eligible\non: push\njobs: {a: {runs-on: x}}\n"))],
    );
    let (repository, path) = ("octo/r0001".to_owned(), format!("{W}ci.yml"));
    fake.state().commit_runs.push(CommitRun {
        id: 5,
        repository,
        path,
        commit,
        status: "in_progress",
        conclusion: None,
    });
    fake.state().limits.no_graphql = false;
    good(look(&one, &single, Memory::default()).await);
    one.owners(&mut Memory::default(), &Tally::default()).await.expect("owners");
    one.manual("octo/r0000", "ci.yml", &Asked::default()).await.expect("a task");
    fake.state().limits.token("t").revoked = true;
    assert!(look(&one, &octo(), Memory::default()).await.outcome.is_err());
    let calls = fake.take_calls();
    let description = description::Description::read();
    let faults: Vec<String> = calls.iter().flat_map(|call| description.faults(call)).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    let seen = description.operations(&calls);
    let expected = [
        "/app/installations",
        "/app/installations/{installation_id}/access_tokens",
        "/installation/repositories",
        "/orgs/{org}/repos",
        "/repos/{owner}/{repo}",
        "/repos/{owner}/{repo}/actions/runs",
        "/repos/{owner}/{repo}/compare/{base}...{head}",
        "/repos/{owner}/{repo}/contents/{path}",
        "/repos/{owner}/{repo}/git/blobs/{file_sha}",
        "/repos/{owner}/{repo}/git/ref/{ref}",
        "/user/repos",
        "/users/{username}/repos",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected, "what was held against the description");
}
