//! Jobs and runners: what is asked of GitHub, what that costs, and what its answers come to.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use runmesh::forge::github::{
    Github, GithubError, JobMemory, JobState, Memory, Removal, RunnerError, RunnerMemory, Scope, Selection, Tally,
};
use runmesh::kernel::task::{Conclusion, Repository};

use super::fake::runners::Group;
use super::fake::world::Kind;
use super::fake::{Fake, World};
use super::{description, github, octo};

const LABELS: [&str; 3] = ["self-hosted", "Linux", "gpu"];

fn fake() -> Fake {
    let mut world = World::new();
    world.account("octo", Kind::Organization);
    world.repository("octo/one", &[("a", "b")]);
    Fake::start(world)
}

async fn one(github: &Github) -> Repository {
    let found = github.repositories(&octo(), &mut Memory::default(), &Tally::default()).await.expect("a list");
    found.into_iter().find(|one| one.name == "octo/one").expect("it is listed")
}

fn scope() -> Scope {
    Scope::Repository("octo/one".to_owned())
}

fn labels() -> BTreeSet<String> {
    LABELS.iter().map(|label| label.to_lowercase()).collect()
}

#[tokio::test]
async fn jobs_are_counted_and_lists_that_are_as_they_were_cost_nothing() {
    let fake = fake();
    let (github, mut memory) = (github(&fake, "t"), JobMemory::default());
    let repository = one(&github).await;
    let ids = fake.queue("octo/one", &LABELS, 150);
    let two = fake.queue("octo/one", &["ubuntu-latest"], 1);
    let look = async |memory: &mut JobMemory, asked: &[u64]| {
        fake.take_calls();
        let asked = asked.iter().copied().collect();
        let jobs = github.active_jobs(&repository, &asked, memory, &Tally::default()).await.expect("jobs");
        (jobs, fake.take_calls())
    };
    let (jobs, calls) = look(&mut memory, &[]).await;
    assert_eq!((jobs.len(), calls.len()), (151, 2 + 2 + 1), "jobs, and the pages of lists: {calls:#?}");
    assert!(jobs[&ids[0]].is_for_own_runners() && !jobs[&two[0]].is_for_own_runners());
    assert!(jobs.values().all(|job| job.state == JobState::Queued && job.runner.is_none()));
    let (_, calls) = look(&mut memory, &[]).await;
    assert_eq!(calls.iter().map(|call| call.cost).sum::<u64>(), 0, "unchanged");
    {
        let actions = &mut fake.state().actions;
        actions.start(ids[0], (7, "lab-1".to_owned()));
        actions.cancel(ids[1]);
        actions.cancel(two[0]);
    }
    let (jobs, calls) = look(&mut memory, &[two[0], 12]).await;
    assert_eq!((jobs[&ids[0]].state, jobs[&ids[0]].runner.as_deref()), (JobState::InProgress, Some("lab-1")));
    let cancelled = |state| matches!(state, JobState::Completed { conclusion: Conclusion::Cancelled, .. });
    assert!(cancelled(jobs[&ids[1]].state) && cancelled(jobs[&two[0]].state), "also of a run that is over");
    assert!(!jobs.contains_key(&12), "what is not there is left out");
    assert!(calls.iter().map(|call| call.cost).sum::<u64>() <= 6, "{calls:#?}");
}

#[tokio::test]
async fn what_a_fork_asks_for_gets_no_runner_unless_a_setting_says_so() {
    let fake = fake();
    let repository = one(&github(&fake, "t")).await;
    let own = repository.id.parse::<u64>().expect("a number");
    // Pull requests of the repository's own branch, of a fork, and of one that is deleted; and a push.
    let heads = [Some(Some(own)), Some(Some(own + 1)), Some(None), None];
    let jobs: Vec<u64> = heads
        .iter()
        .map(|head| {
            let job = fake.queue("octo/one", &LABELS, 1)[0];
            let actions = &mut fake.state().actions;
            let run = actions.jobs[&job].run;
            actions.runs.get_mut(&run).expect("its run").pull_request = *head;
            job
        })
        .collect();
    for (allowed, states) in
        [(false, [JobState::Queued, JobState::Held, JobState::Held, JobState::Queued]), (true, [JobState::Queued; 4])]
    {
        let selection = Selection { fork_pull_requests: allowed, ..Selection::default() };
        let github = super::selecting(&fake, "t", selection);
        let found =
            github.active_jobs(&repository, &BTreeSet::new(), &mut JobMemory::default(), &Tally::default()).await;
        let found = found.expect("jobs");
        assert_eq!(jobs.iter().map(|job| found[job].state).collect::<Vec<_>>(), states);
    }
}

#[tokio::test]
async fn runners_are_configured_listed_and_removed() {
    let fake = fake();
    let github = github(&fake, "t");
    let jit = github.configure_runner(&scope(), "runmesh-a-1", &labels(), None).await.expect("a configuration");
    assert!(!jit.configuration.expose().is_empty() && !format!("{jit:?}").contains(jit.configuration.expose()));
    let again = github.configure_runner(&scope(), "runmesh-a-1", &labels(), None).await;
    assert!(matches!(again, Err(RunnerError::NameTaken { .. })), "{again:?}");
    github.configure_runner(&scope(), "other", &labels(), None).await.expect("a configuration");
    let mut memory = RunnerMemory::default();
    for cost in [1, 0] {
        fake.take_calls();
        let listed = github.runners(&scope(), "runmesh-a-", &mut memory, &Tally::default()).await.expect("a list");
        assert_eq!(listed.iter().map(|one| one.id).collect::<Vec<_>>(), [jit.registration]);
        assert_eq!(fake.take_calls().iter().map(|call| call.cost).sum::<u64>(), cost);
    }
    let job = fake.queue("octo/one", &LABELS, 1)[0];
    fake.state().actions.give(job, jit.registration);
    let busy = github.remove_runner(&scope(), jit.registration).await;
    assert_eq!(busy.expect("an answer"), Removal::Busy);
    fake.state().actions.runners.all.get_mut(&jit.registration).expect("it is there").job = None;
    for _ in 0..2 {
        assert_eq!(github.remove_runner(&scope(), jit.registration).await.expect("an answer"), Removal::Gone);
    }
}

#[tokio::test]
async fn what_an_operator_has_to_change_is_said() {
    let fake = fake();
    let github = github(&fake, "t");
    let organization = Scope::Organization("octo".to_owned());
    let of = async |scope: &Scope, group| github.configure_runner(scope, "a", &labels(), group).await;
    let error = of(&organization, Some("lab")).await.expect_err("no group");
    assert!(error.is_final() && error.to_string().contains("no runner group `lab`, only Default"), "{error}");
    fake.state().actions.runners.groups.push(Group { id: 9, org: "octo".to_owned(), name: "Lab".to_owned() });
    of(&organization, Some("lab")).await.expect("a configuration");
    assert_eq!(fake.state().actions.runners.all.values().next().map(|one| one.group), Some(9));
    fake.state().limits.token("t").admin = false;
    for scope in [scope(), organization] {
        let error = of(&scope, None).await.expect_err("refused");
        assert!(error.is_final() && error.to_string().contains("administer octo"), "{error}");
    }
    fake.state().limits.token("t").revoked = true;
    assert!(of(&scope(), None).await.expect_err("refused").is_final());
}

#[tokio::test]
async fn githubs_limit_of_configurations_is_waited_out() {
    let fake = fake();
    let github = github(&fake, "t");
    fake.state().actions.runners.limit = Some((2.0, 60.0));
    let began = Instant::now();
    for n in 0..3 {
        github.configure_runner(&scope(), &format!("a-{n}"), &labels(), None).await.expect("a configuration");
    }
    assert!(began.elapsed() >= Duration::from_secs(1), "a second's pause was asked for");
    fake.state().actions.runners.limit = Some((0.0, 0.0));
    let error = github.configure_runner(&scope(), "b", &labels(), None).await.expect_err("no more");
    assert!(matches!(error, RunnerError::Github(GithubError::Limited { .. })) && !error.is_final(), "{error}");
}

#[tokio::test]
async fn questions_and_answers_about_jobs_are_as_github_publishes_them() {
    let fake = fake();
    let github = github(&fake, "t");
    let repository = one(&github).await;
    let ids = fake.queue("octo/one", &LABELS, 2);
    let over = fake.queue("octo/one", &LABELS, 1);
    let organization = Scope::Organization("octo".to_owned());
    for scope in [scope(), organization.clone()] {
        let jit = github.configure_runner(&scope, "runmesh-a-1", &labels(), None).await.expect("a configuration");
        assert!(github.configure_runner(&scope, "runmesh-a-1", &labels(), None).await.is_err());
        assert!(github.configure_runner(&scope, "b", &BTreeSet::new(), None).await.is_err());
        github.runners(&scope, "", &mut RunnerMemory::default(), &Tally::default()).await.expect("a list");
        if scope != organization {
            fake.state().actions.give(ids[0], jit.registration);
            fake.state().actions.complete(over[0], "success");
        }
        assert!(github.remove_runner(&scope, jit.registration).await.is_ok());
        assert_eq!(github.remove_runner(&scope, 3).await.expect("an answer"), Removal::Gone);
    }
    assert!(github.configure_runner(&organization, "c", &labels(), Some("nobody's")).await.is_err());
    let asked = BTreeSet::from([over[0], 12]);
    github.active_jobs(&repository, &asked, &mut JobMemory::default(), &Tally::default()).await.expect("jobs");
    let calls = fake.take_calls();
    let description = description::Description::read();
    let faults: Vec<String> = calls.iter().flat_map(|call| description.faults(call)).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    let seen: Vec<&str> =
        description.operations(&calls).into_iter().filter(|path| path.contains("/actions/")).collect();
    let expected = [
        "/orgs/{org}/actions/runner-groups",
        "/orgs/{org}/actions/runners",
        "/orgs/{org}/actions/runners/generate-jitconfig",
        "/orgs/{org}/actions/runners/{runner_id}",
        "/repos/{owner}/{repo}/actions/jobs/{job_id}",
        "/repos/{owner}/{repo}/actions/runners",
        "/repos/{owner}/{repo}/actions/runners/generate-jitconfig",
        "/repos/{owner}/{repo}/actions/runs",
        "/repos/{owner}/{repo}/actions/runs/{run_id}/jobs",
    ];
    assert_eq!(seen, expected, "what was held against the description");
}
