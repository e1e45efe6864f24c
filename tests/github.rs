//! The GitHub half of the forge room, against the fake GitHub of tests/github/, and both against what GitHub publishes
//! of its API.

mod github {
    pub(crate) mod description;
    pub(crate) mod fake;
}
#[path = "github/jobs.rs"]
mod jobs;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use github::fake::limits::Token;
use github::fake::world::Kind;
use github::fake::{Call, Fake, Fault, World};
use github::{description, fake};
use runmesh::forge::github::{Credentials, Github, GithubError, Looked, Memory, Secret, Selection, Tally, Target};
use runmesh::forge::{Asked, Findings};
use runmesh::kernel::known::{Known, KnownWorkflow};
use runmesh::kernel::task::{Priority, RunEvent, Trigger, Workload};

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
    github.discover(target, memory, known, MINUTE, &|_, _| ()).await
}

fn good(looked: Looked) -> (Findings, Memory) {
    (looked.outcome.expect("a good look"), looked.memory)
}

fn tagged_paths(findings: &Findings) -> Vec<String> {
    let tagged = findings.workflows.iter().filter(|found| !found.tags.is_empty());
    tagged.map(|found| format!("{} {}", found.repository, found.path.trim_start_matches(W))).collect()
}

#[tokio::test]
async fn fifty_repositories_cost_two_calls_then_one_then_two() {
    let fake = Fake::start(world(50));
    let github = github(&fake, "t");
    let first = look(&github, &octo(), Memory::default()).await;
    assert_eq!(
        (first.cycle.calls, first.cycle.points),
        (2, 2),
        "{:?}",
        fake.calls().iter().map(|c| &c.path).collect::<Vec<_>>()
    );
    assert_eq!((first.cycle.repositories, first.cycle.new), (50, 150));
    let (findings, memory) = good(first);
    assert_eq!((findings.workflows.len(), findings.workloads.len()), (150, 50));

    let second = look(&github, &octo(), memory).await;
    assert_eq!((second.cycle.calls, second.cycle.new, second.cycle.changed), (1, 0, 0));
    let (again, memory) = good(second);
    assert_eq!(again.workloads, findings.workloads, "the same tasks");

    let head = fake.commit("octo/r0007", &[(format!("{W}ci.yml").as_str(), Some(&tagged("another")))]);
    let third = look(&github, &octo(), memory).await;
    assert_eq!((third.cycle.calls, third.cycle.changed), (2, 1));
    let (findings, memory) = good(third);
    assert!(findings.workloads.iter().any(|workload| workload.commit == head && workload.name == "another"));

    // A restart: only what was kept is known.
    let restarted = look(&github, &octo(), Memory::read(&memory.bytes())).await;
    assert_eq!((restarted.cycle.calls, restarted.cycle.new, restarted.cycle.changed), (1, 0, 0));
    assert_eq!(good(restarted).0.workloads, findings.workloads);
}

#[tokio::test]
async fn a_thousand_repositories_come_in_pages() {
    let fake = Fake::start(world(1_000));
    let github = github(&fake, "t");
    let first = look(&github, &octo(), Memory::default()).await;
    assert_eq!(first.cycle.repositories, 1_000);
    assert_eq!(first.cycle.calls, 10 + 3_000_u64.div_ceil(400), "pages, then files");
    let (_, memory) = good(first);
    assert_eq!(look(&github, &octo(), memory).await.cycle.calls, 10);
}

#[tokio::test]
async fn tasks_are_named_by_host_and_number_and_say_what_to_run() {
    let mut world = World::new();
    world.repository(
        "Octo/One",
        &[
            (format!("{W}ci.yml").as_str(), &tagged("ci")),
            (format!("{W}by-hand.yml").as_str(), &on("hand", "workflow_dispatch")),
        ],
    );
    let fake = Fake::start(world);
    let github = github(&fake, "t");
    let (findings, _) = good(look(&github, &octo(), Memory::default()).await);
    let (id, head) = {
        let state = fake.state();
        let one = state.world.find("octo/one").expect("there");
        (one.id, one.head().expect("a commit").oid.clone())
    };
    let [hand, ci] = findings.workloads.as_slice() else { panic!("{findings:#?}") };
    assert_eq!((ci.repository.host.as_str(), ci.repository.id.clone()), (github.host(), id.to_string()));
    assert_eq!(ci.repository.name, "Octo/One");
    assert_eq!(ci.trigger, Trigger::Push { r#ref: "refs/heads/main".to_owned(), commit: head.clone() });
    assert_eq!((ci.commit.as_str(), ci.event, ci.priority.number()), (head.as_str(), RunEvent::Push, 8));
    assert!(matches!(&hand.trigger, Trigger::Revision { blob } if blob.len() == 40), "{hand:?}");
    // By the name of its owner and by its own it is the same source's.
    let one = Target { owner: "octo".to_owned(), repository: Some("ONE".to_owned()) };
    assert_eq!(github.key(&one), format!("{}/octo/one", github.host()));
    assert!(
        ci.repository.sources().contains(&github.key(&one)) && ci.repository.sources().contains(&github.key(&octo()))
    );
    let (by_name, _) = good(look(&github, &one, Memory::default()).await);
    assert_eq!(
        by_name.workloads.iter().map(Workload::id).collect::<Vec<_>>(),
        findings.workloads.iter().map(Workload::id).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn archived_disabled_and_forked_repositories_are_passed_over() {
    let mut world = world(1);
    let ci = tagged("x");
    for (name, spoil) in [
        ("octo/archived", (|one| one.archived = true) as fn(&mut fake::world::Repository)),
        ("octo/disabled", |one| one.disabled = true),
        ("octo/fork", |one| one.fork = true),
    ] {
        spoil(world.repository(name, &[(format!("{W}ci.yml").as_str(), &ci)]));
    }
    let fake = Fake::start(world);
    let paths = async |selection: Selection| {
        let looked = look(&selecting(&fake, "t", selection), &octo(), Memory::default()).await;
        tagged_paths(&good(looked).0)
    };
    for graphql in [true, false] {
        fake.state().limits.no_graphql = !graphql;
        assert_eq!(paths(Selection::default()).await, ["octo/r0000 ci.yml"]);
        assert_eq!(
            paths(Selection { forks: true, ..Selection::default() }).await,
            ["octo/fork ci.yml", "octo/r0000 ci.yml"]
        );
        assert!(paths(Selection { exclude: vec!["r*".to_owned()], ..Selection::default() }).await.is_empty());
        assert!(paths(Selection { since_days: Some(1), ..Selection::default() }).await.is_empty(), "pushed in 2024");
    }
}

#[tokio::test]
async fn rest_stands_in_for_graphql_and_unchanged_lists_cost_nothing() {
    let fake = Fake::start(world(5));
    let github = github(&fake, "t");
    let (by_graphql, _) = good(look(&github, &octo(), Memory::default()).await);
    fake.state().limits.no_graphql = true;
    let (by_rest, memory) = good(look(&github, &octo(), Memory::default()).await);
    assert_eq!(by_rest, by_graphql, "both ways find the same");
    fake.take_calls();
    let (again, memory) = good(look(&github, &octo(), memory).await);
    assert_eq!(again, by_graphql);
    let rest: Vec<Call> = fake.take_calls().into_iter().filter(|call| call.method == "GET").collect();
    assert!(rest.iter().filter(|call| call.status == 200).all(|call| call.cost <= 1));
    assert_eq!(
        rest.iter().filter(|call| call.status == 304).count(),
        2,
        "{:?}",
        rest.iter().map(|c| (&c.path, c.status)).collect::<Vec<_>>()
    );
    assert_eq!(rest.iter().map(|call| call.cost).sum::<u64>(), 1, "only the question whether octo is an organisation");
    // One push, and GraphQL is still away: its head, its folder, one file.
    let head = fake.commit("octo/r0002", &[(format!("{W}ci.yml").as_str(), Some(&tagged("other")))]);
    let (found, _) = good(look(&github, &octo(), memory).await);
    assert!(found.workloads.iter().any(|workload| workload.commit == head));
    let paths: Vec<String> =
        fake.take_calls().into_iter().filter(|call| call.path.contains("/repos/octo/")).map(|call| call.path).collect();
    assert_eq!(paths.len(), 3, "{paths:?}");
}

#[tokio::test]
async fn a_page_that_is_too_heavy_is_halved_and_then_left_to_rest() {
    let fake = Fake::start(world(30));
    let github = github(&fake, "t");
    fake.state().limits.heaviest_page = Some(12);
    let (findings, _) = good(look(&github, &octo(), Memory::default()).await);
    assert_eq!(findings.workloads.len(), 30);
    let pages: Vec<u64> =
        fake.take_calls().iter().filter_map(|call| call.request["variables"]["first"].as_u64()).collect();
    assert_eq!(pages, [100, 50, 25, 12, 12, 12]);
    fake.state().limits.heaviest_page = Some(0);
    let (findings, _) = good(look(&github, &octo(), Memory::default()).await);
    assert_eq!(findings.workloads.len(), 30, "by REST");
}

#[tokio::test]
async fn large_and_odd_files_are_read_whole() {
    let mut world = World::new();
    let mut long = "# P2P: p2p-eligible\non: push\njobs: {a: {runs-on: x, steps: [{run: y}]}}\n".to_owned();
    long += &"# a long comment\n".repeat(40_000);
    let huge = format!("# P2P: p2p-only\n{}", "#\n".repeat(600_000));
    world.repository(
        "octo/r",
        &[
            (format!("{W}long.yml").as_str(), long.as_str()),
            (format!("{W}huge.yml").as_str(), huge.as_str()),
            ("README.md", "x"),
            (format!("{W}notes.txt").as_str(), "# P2P: p2p-only"),
        ],
    );
    let mut odd = b"# P2P: p2p-only\n\xff\xfe\n".to_vec();
    odd.extend_from_slice(b"on: push\n");
    world.commit_bytes("octo/r", &[(format!("{W}odd.yml").as_str(), Some(&odd))]);
    let fake = Fake::start(world);
    let looked = look(&github(&fake, "t"), &octo(), Memory::default()).await;
    let (findings, memory) = good(looked);
    assert_eq!(tagged_paths(&findings), ["octo/r long.yml", "octo/r odd.yml"]);
    let of = |file: &str| {
        findings.workflows.iter().find(|found| found.path.ends_with(file)).and_then(|found| found.why_not.clone())
    };
    assert_eq!(of("long.yml"), None);
    assert!(of("huge.yml").is_some_and(|why| why.contains("1048576")), "{:?}", of("huge.yml"));
    assert!(of("odd.yml").is_some_and(|why| why.contains("UTF-8")), "{:?}", of("odd.yml"));
    assert_eq!(findings.workflows.len(), 3, "other files are none");
    let blobs = fake.take_calls().iter().filter(|call| call.path.contains("/git/blobs/")).count();
    assert_eq!(blobs, 2, "what GraphQL cuts, and what is no text");
    let (again, _) = good(look(&github(&fake, "t"), &octo(), Memory::read(&memory.bytes())).await);
    assert_eq!(again, findings);
}

#[tokio::test]
async fn a_revoked_token_and_a_missing_owner_say_so() {
    let fake = Fake::start(world(1));
    let github = github(&fake, "t");
    let missing = Target { owner: "nobody".to_owned(), repository: None };
    let looked = look(&github, &missing, Memory::default()).await;
    assert!(matches!(looked.outcome, Err(GithubError::NotFound { .. })), "{:?}", looked.outcome);
    fake.state().limits.token("t").revoked = true;
    fake.take_calls();
    let looked = look(&github, &octo(), Memory::default()).await;
    let error = looked.outcome.expect_err("refused");
    assert!(matches!(error, GithubError::Unauthorized { .. }), "{error}");
    assert!(error.to_string().contains("GITHUB_TOKEN"), "{error}");
    assert_eq!(fake.calls().len(), 1, "a refused token is not tried again");
}

#[tokio::test]
async fn a_used_up_limit_is_waited_out_and_a_fifth_is_never_touched() {
    let fake = Fake::start(world(3));
    let github = github(&fake, "t");
    let (_, memory) = good(look(&github, &octo(), Memory::default()).await);
    // GraphQL has nothing left: REST does it.
    fake.state().limits.token("t").graphql.leave(0, 600);
    let (_, memory) = good(look(&github, &octo(), memory).await);
    fake.take_calls();
    let (_, memory) = good(look(&github, &octo(), memory).await);
    assert!(fake.take_calls().iter().all(|call| call.method == "GET"), "GraphQL is not even asked before its time");
    // Neither has enough: nothing is sent.
    fake.state().limits.token("t").core.leave(1_000, 600);
    let (_, memory) = match look(&github, &octo(), memory).await {
        looked if looked.outcome.is_ok() => good(looked),
        looked => (Findings::default(), looked.memory),
    };
    fake.take_calls();
    let looked = look(&github, &octo(), memory).await;
    let error = looked.outcome.expect_err("no budget");
    assert!(matches!(error, GithubError::Limited { .. }) && error.until().is_some(), "{error}");
    assert_eq!(fake.calls().len(), 0, "a fifth is left to the token's owner");
    let limits = github.limits();
    assert_eq!(limits[0].rest.map(|quota| quota.limit), Some(5_000));
}

#[tokio::test]
async fn pauses_that_github_asks_for_are_made() {
    let fake = Fake::start(world(2));
    let github = github(&fake, "t");
    fake.fail("/graphql", 1, Fault::Secondary(1));
    let began = Instant::now();
    good(look(&github, &octo(), Memory::default()).await);
    assert!(began.elapsed() >= Duration::from_secs(1), "a short pause is waited out");
    fake.state().limits.heal();
    // A long one on both ways: the look fails, and nothing is sent until it is over.
    fake.fail("/graphql", 1, Fault::Secondary(120));
    fake.fail("/user/repos", 1, Fault::Secondary(90));
    let looked = look(&github, &octo(), Memory::default()).await;
    assert!(matches!(looked.outcome, Err(GithubError::Limited { .. })), "{:?}", looked.outcome);
    fake.take_calls();
    let looked = look(&github, &octo(), looked.memory).await;
    assert!(looked.outcome.is_err() && fake.calls().is_empty());
}

#[tokio::test]
async fn broken_answers_are_asked_for_again() {
    let fake = Fake::start(world(2));
    fake.state().limits.no_graphql = true;
    for fault in [Fault::Status(502), Fault::Cut, Fault::Status(500)] {
        fake.fail("/users/octo/repos", 2, fault.clone());
        let (findings, _) = good(look(&github(&fake, "t"), &octo(), Memory::default()).await);
        assert_eq!(findings.workloads.len(), 2, "{fault:?}");
    }
    fake.fail("/users/octo/repos", 9, Fault::Status(503));
    let looked = look(&github(&fake, "t"), &octo(), Memory::default()).await;
    assert!(matches!(looked.outcome, Err(GithubError::Server { status: 503, .. })), "{:?}", looked.outcome);
    fake.state().limits.heal();
    fake.state().limits.no_graphql = false;
    for fault in [Fault::Cut, Fault::GraphqlError("RATE_LIMITED".to_owned()), Fault::Status(403)] {
        fake.fail("/graphql", 1, fault.clone());
        let (findings, _) = good(look(&github(&fake, "t"), &octo(), Memory::default()).await);
        assert_eq!(findings.workloads.len(), 2, "{fault:?}: the other way, or less at once");
        fake.state().limits.heal();
    }
}

#[tokio::test]
async fn path_filters_ask_what_changed_once() {
    let mut world = World::new();
    let docs = on("docs", "{push: {paths: ['docs/**']}}");
    world.repository("octo/r", &[(format!("{W}docs.yml").as_str(), &docs), ("docs/a.md", "1"), ("src/a.rs", "1")]);
    let fake = Fake::start(world);
    let github = github(&fake, "t");
    let (findings, memory) = good(look(&github, &octo(), Memory::default()).await);
    let first = findings.workloads[0].clone();
    let knowing = |commit: &str| {
        let workflow = KnownWorkflow { pushed: Some(commit.to_owned()), ..KnownWorkflow::default() };
        let known = Known { workflows: BTreeMap::from([(format!("{W}docs.yml"), workflow)]) };
        BTreeMap::from([(first.repository.id.clone(), known)])
    };
    fake.commit("octo/r", &[("src/a.rs", Some("2"))]);
    fake.take_calls();
    let (findings, memory) = good(look_knowing(&github, &octo(), memory, &knowing(&first.commit)).await);
    assert!(findings.workloads.is_empty() && findings.workflows[0].why_not.is_some(), "{findings:#?}");
    let (findings, memory) = good(look_knowing(&github, &octo(), memory, &knowing(&first.commit)).await);
    assert!(findings.workloads.is_empty());
    let compared = fake.take_calls().iter().filter(|call| call.path.contains("/compare/")).count();
    assert_eq!(compared, 1, "the answer is remembered");
    let head = fake.commit("octo/r", &[("docs/b.md", Some("2"))]);
    let (findings, _) = good(look_knowing(&github, &octo(), memory, &knowing(&first.commit)).await);
    assert_eq!(findings.workloads[0].commit, head);
}

#[tokio::test]
async fn schedules_tick_and_what_is_deleted_or_untagged_is_gone() {
    let mut world = World::new();
    let nightly = on("nightly", "{schedule: [{cron: '30 * * * *'}, {cron: 'nonsense'}], workflow_dispatch: }");
    world.repository(
        "octo/r",
        &[
            (format!("{W}nightly.yml").as_str(), &nightly),
            (format!("{W}ci.yml").as_str(), &tagged("ci")),
            (format!("{W}old.yml").as_str(), &tagged("old")),
        ],
    );
    let fake = Fake::start(world);
    let github = github(&fake, "t");
    let (findings, memory) = good(look(&github, &octo(), Memory::default()).await);
    assert_eq!(findings.workloads.len(), 3, "no tick is made up of a workflow that was never seen");
    assert!(findings.warnings.iter().any(|warning| warning.contains("never ticks")), "{:?}", findings.warnings);
    let id = findings.workloads[0].repository.id.clone();
    let mut known = Known::default();
    for workload in &findings.workloads {
        let pending = [workload.commit.clone()].into();
        let workflow = KnownWorkflow { since: Some(MINUTE - 60), pending, ..KnownWorkflow::default() };
        known.workflows.insert(workload.path.clone(), workflow);
    }
    let known = BTreeMap::from([(id, known)]);
    let (findings, memory) = good(look_knowing(&github, &octo(), memory, &known).await);
    let ticks: Vec<u64> = findings
        .workloads
        .iter()
        .filter_map(|workload| match workload.trigger {
            Trigger::Schedule { minute, .. } => Some(minute),
            _ => None,
        })
        .collect();
    assert_eq!(ticks, [MINUTE - (MINUTE - 30) % 60]);
    assert!(findings.gone.is_empty());
    fake.commit(
        "octo/r",
        &[(format!("{W}old.yml").as_str(), None), (format!("{W}ci.yml").as_str(), Some("on: push\njobs: {}\n"))],
    );
    let (findings, _) = good(look_knowing(&github, &octo(), memory, &known).await);
    let gone: Vec<&str> = findings.gone.iter().map(|gone| gone.path.as_str()).collect();
    assert_eq!(gone, [format!("{W}ci.yml"), format!("{W}old.yml")]);
}

#[tokio::test]
async fn an_app_sees_what_it_is_installed_for_and_renews_its_tokens() {
    let mut world = World::new();
    world.repository("acme/secret", &[(format!("{W}ci.yml").as_str(), &tagged("ci"))]).private = true;
    world.repository("octo/hidden", &[(format!("{W}ci.yml").as_str(), &tagged("ci"))]).private = true;
    world.install(7, "acme");
    let fake = Fake::start(world);
    let credentials = Credentials::App { id: 7, key: rsa_key() };
    let github =
        Github::new(fake.api().parse().expect("an address"), credentials, Selection::default()).expect("a client");
    assert_eq!(github.owners(&mut Memory::default(), &Tally::default()).await.expect("owners"), ["acme"]);
    let acme = Target { owner: "acme".to_owned(), repository: None };
    let (findings, memory) = good(look(&github, &acme, Memory::default()).await);
    assert_eq!(tagged_paths(&findings), ["acme/secret ci.yml"]);
    let (none, _) = good(look(&github, &octo(), Memory::default()).await);
    assert!(none.workflows.is_empty(), "another account's private repositories stay unseen");
    assert_eq!(fake.state().limits.minted, 1);
    // A token that is about to end is not used any more.
    let github = Github::new(
        fake.api().parse().expect("an address"),
        Credentials::App { id: 7, key: rsa_key() },
        Selection::default(),
    )
    .expect("a client");
    fake.state().limits.token_life = Some(240);
    let (_, memory) = good(look(&github, &acme, memory).await);
    good(look(&github, &acme, memory).await);
    assert!(fake.state().limits.minted >= 3, "each look with a token that is good for long enough");
    // REST, for which an installation has a list of its own.
    fake.state().limits.no_graphql = true;
    let (findings, _) = good(look(&github, &acme, Memory::default()).await);
    assert_eq!(tagged_paths(&findings), ["acme/secret ci.yml"]);
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
async fn owners_are_all_that_the_token_reaches() {
    let mut world = world(2);
    world.repository("acme/x", &[]);
    let fake = Fake::start(world);
    let mine = Token { sees: Some(vec!["acme".to_owned(), "octo".to_owned()]), ..Token::of("octo") };
    fake.state().limits.tokens.insert("t".to_owned(), mine);
    let owners = github(&fake, "t").owners(&mut Memory::default(), &Tally::default()).await;
    assert_eq!(owners.expect("owners"), ["acme", "octo"]);
}

#[tokio::test]
async fn a_person_submits_with_inputs() {
    let mut world = World::new();
    let deploy =
        on("deploy", "{workflow_dispatch: {inputs: {where: {required: true, type: choice, options: [a, b]}}}}");
    world.repository("octo/r", &[(format!("{W}deploy.yml").as_str(), &deploy)]);
    let fake = Fake::start(world);
    let github = github(&fake, "t");
    let submit = async |path: &str, pairs: &[(&str, &str)]| {
        let inputs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let asked = Asked { inputs, request: "r1".to_owned(), priority: Some(Priority::MOST) };
        github.manual("octo/r", path, &asked).await
    };
    let workload = submit("deploy.yml", &[("where", "b")]).await.expect("a task");
    assert_eq!((workload.event, workload.priority), (RunEvent::WorkflowDispatch, Priority::MOST));
    assert_eq!(workload.inputs, BTreeMap::from([("where".to_owned(), "b".to_owned())]));
    for (path, inputs, word) in [
        ("deploy.yml", &[][..], "required"),
        ("deploy.yml", &[("where", "c")], "one of a, b"),
        ("deploy.yml", &[("where", "a"), ("x", "y")], "no input"),
        ("gone.yml", &[], "no such file"),
        ("../x", &[], "workflow files"),
    ] {
        let error = submit(path, inputs).await.expect_err("refused").to_string();
        assert!(error.contains(word), "{path}: {error}");
    }
}

#[tokio::test]
async fn a_commit_is_fetched_with_a_token_that_stays_nowhere() {
    let mut world = World::new();
    world.repository("octo/secret", &[(format!("{W}ci.yml").as_str(), &tagged("ci")), ("a/b.txt", "text")]).private =
        true;
    let fake = Fake::start(world);
    let mine = Token { sees: Some(vec!["octo".to_owned()]), ..Token::of("octo") };
    fake.state().limits.tokens.insert("t0p-secret".to_owned(), mine);
    fake.state().limits.tokens.insert("other".to_owned(), Token { sees: Some(Vec::new()), ..Token::of("other") });
    let github = github(&fake, "t0p-secret");
    let (findings, _) = good(look(&github, &octo(), Memory::default()).await);
    let workload = &findings.workloads[0];
    // A later commit does not disturb.
    fake.commit("octo/secret", &[("a/b.txt", Some("later"))]);
    let folder = tempfile::tempdir().expect("a folder");
    let into = folder.path().join("checkout");
    github.checkout(workload, &into).await.expect("fetched");
    assert_eq!(std::fs::read_to_string(into.join("a/b.txt")).expect("a file"), "text");
    let head = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(&into).output().expect("git runs");
    assert_eq!(String::from_utf8_lossy(&head.stdout).trim(), workload.commit);
    let config = std::fs::read_to_string(into.join(".git/config")).expect("settings");
    assert!(config.contains(&format!("{}/octo/secret.git", fake.api())), "{config}");
    assert!(!files_with(&into, "t0p-secret") && !files_with(&into, "x-access-token"));
    let refused = selecting(&fake, "other", Selection::default()).checkout(workload, &folder.path().join("2")).await;
    let error = refused.expect_err("refused").to_string();
    assert!(error.contains("fetch a commit") && !error.contains("other"), "{error}");
}

fn files_with(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).expect("a folder").flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            files_with(&path, text)
        } else {
            let bytes = std::fs::read(&path).unwrap_or_default();
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        }
    })
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
        "/repos/{owner}/{repo}/compare/{base}...{head}",
        "/repos/{owner}/{repo}/contents/{path}",
        "/repos/{owner}/{repo}/git/blobs/{file_sha}",
        "/repos/{owner}/{repo}/git/ref/{ref}",
        "/user/repos",
        "/users/{username}/repos",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected, "what was held against the description");
}
