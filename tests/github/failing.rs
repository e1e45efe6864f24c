//! What a look does when GitHub refuses, limits or breaks off.

use runmesh::forge::github::JobMemory;

use crate::*;

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
async fn whatever_an_answer_holds_the_look_ends_and_the_next_good_one_is_complete() {
    let mut world = world(3);
    world.repository("octo/jobs", &[("a", "b")]);
    let fake = Fake::start(world);
    let repository = {
        let found = github(&fake, "t").repositories(&octo(), &mut Memory::default(), &Tally::default()).await;
        found.expect("a list").into_iter().find(|one| one.name == "octo/jobs").expect("listed")
    };
    fake.queue("octo/jobs", &["self-hosted"], 3);
    let (began, mut draw) = (Instant::now(), 0_u64);
    let (mut good_ones, mut memory) = (0, Memory::default());
    while began.elapsed() < Duration::from_secs(30) {
        draw += 1;
        fake.state().limits.no_graphql = draw % 2 == 0;
        fake.fail("/", 1 + draw as usize % 3, Fault::Garbled(draw));
        let looked = look(&github(&fake, "t"), &octo(), std::mem::take(&mut memory)).await;
        good_ones += usize::from(looked.outcome.is_ok());
        memory = looked.memory;
        fake.fail("/", 1 + draw as usize % 3, Fault::Garbled(draw + 1_000_000));
        let jobs = github(&fake, "t");
        let found = jobs.active_jobs(&repository, &[7].into(), &mut JobMemory::default(), &Tally::default()).await;
        good_ones += usize::from(found.is_ok());
        fake.state().limits.heal();
    }
    assert!(draw > 20 && good_ones > 0, "{good_ones} of {draw}");
    fake.state().limits.no_graphql = false;
    let (findings, _) = good(look(&github(&fake, "t"), &octo(), Memory::default()).await);
    assert_eq!(findings.workloads.len(), 3);
}
