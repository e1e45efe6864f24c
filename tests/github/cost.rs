//! What a look costs, and what it reads.

use crate::*;

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
