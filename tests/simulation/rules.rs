//! Rules of election and custody, each in a situation that comes out otherwise without it.

use runmesh::kernel::task::{Priority, State, Tag};

use super::checks;
use super::host::Command;
use super::scenario::{Hosts, Network, Scenario, Work};
use super::work::Job;
use super::world::{RunEnd, RunRecord, Sabotage, World};

/// A mesh of so many that is formed, and in which each task is submitted by the test itself; each takes so long.
pub(super) fn quiet(name: &'static str, nodes: usize, tasks: usize, takes: u64) -> Scenario {
    let roomy = Scenario::roomy(name, nodes, tasks.max(4));
    // So late that the tasks come up only when the test says so.
    let work = Work {
        tasks,
        between: (1_000_000, 1_000_000),
        takes: (takes, takes),
        discovered: 0,
        labelled: 0,
        eligible: 0,
        impossible: false,
        ..roomy.work
    };
    Scenario { work, ..roomy }
}

pub(super) const FORMED: u64 = 6_000;

pub(super) fn begin(scenario: &Scenario, seed: u64) -> World<'_> {
    let mut world = World::new(scenario, seed);
    world.run_until(FORMED);
    assert!(world.kernels().all(|(_, kernel)| kernel.is_active()), "the mesh is formed");
    world
}

pub(super) fn runs_of<'a>(world: &'a World<'_>, job: usize) -> Vec<&'a RunRecord> {
    world.runs.iter().filter(|run| run.task == world.jobs[job].id).collect()
}

fn states(world: &World<'_>, job: usize) -> Vec<State> {
    let id = &world.jobs[job].id;
    world.kernels().map(|(_, kernel)| kernel.task(id).expect("known").state.clone()).collect()
}

/// A host that hears a holder no more while all others do is wrong about it, and takes nothing over.
#[test]
fn one_alone_that_hears_a_holder_no_more_takes_nothing_over() {
    let scenario = quiet("one_alone_that_hears_a_holder_no_more_takes_nothing_over", 5, 24, 30_000);
    for seed in 0..3 {
        let mut world = begin(&scenario, seed);
        (0..24).for_each(|job| world.command_at(job % 5, Command::Submit(job)));
        world.run_until(FORMED + 3_000);
        assert!(world.runs.iter().any(|run| run.host == 0), "host 0 holds something");
        world.sabotage = Some(Sabotage::MissOne);
        world.run_until(FORMED + 25_000);
        assert_eq!(world.violations, Vec::<String>::new());
        assert_eq!(world.runs.len(), 24, "a task was taken over whose holder most of the others hear");
    }
}

/// A host that vanishes closes no connection; that it is silent is enough, long before the transport gives up.
#[test]
fn a_silent_holder_is_taken_over_within_the_failure_time() {
    let scenario = quiet("a_silent_holder_is_taken_over_within_the_failure_time", 5, 10, 60_000);
    for seed in 0..3 {
        let mut world = begin(&scenario, seed);
        (0..10).for_each(|job| world.command_at(job % 5, Command::Submit(job)));
        world.run_until(FORMED + 3_000);
        let host = world.runs[0].host;
        let held = world.runs.iter().filter(|run| run.host == host).count();
        world.kill(host, super::host::Death::Vanished);
        world.run_until(FORMED + 3_000 + 4_500);
        assert_eq!(world.violations, Vec::<String>::new());
        assert_eq!(world.runs.len(), 10 + held, "what it held is taken over");
    }
}

/// What no attempt brings to its first step is given up after the last.
#[test]
fn after_the_last_attempt_a_task_is_lost() {
    let calm = Scenario::calm("after_the_last_attempt_a_task_is_lost", 5, 10);
    let scenario = Scenario { work: Work { not_started: 1000, ..calm.work }, ..calm };
    for seed in 0..3 {
        let (outcome, _) = checks::run(&scenario, seed).expect("each task ends");
        assert_eq!(outcome.lost, 10);
        assert_eq!(outcome.starts, 30, "each of three attempts is made");
    }
}

/// A `p2p-eligible` task that nobody can take is GitHub's after its time, and not before.
#[test]
fn an_eligible_task_that_nobody_takes_is_left_to_github_in_time() {
    let mut scenario = quiet("an_eligible_task_that_nobody_takes_is_left_to_github_in_time", 3, 1, 1_000);
    scenario.work.eligible = 1000;
    let mut world = begin(&scenario, 1);
    change(&mut world.jobs[0], |workload| {
        workload.labels = ["quantum".to_owned()].into();
        workload.fallback_s = 10;
    });
    world.command_at(0, Command::Submit(0));
    world.run_until(FORMED + 9_000);
    assert!(states(&world, 0).iter().all(|state| *state == State::Pending));
    world.run_until(FORMED + 12_000);
    assert!(states(&world, 0).iter().all(|state| *state == State::LeftToGithub), "{:?}", states(&world, 0));
    assert!(world.runs.is_empty());
}

/// What GitHub alone is to run is neither introduced by discovery nor taken from a person.
#[test]
fn what_is_githubs_alone_is_never_taken() {
    let mut scenario = quiet("what_is_githubs_alone_is_never_taken", 3, 2, 1_000);
    scenario.work.between = (FORMED + 1_000, FORMED + 1_000);
    let mut world = begin(&scenario, 1);
    for job in &mut world.jobs {
        change(job, |workload| workload.tags = [Tag::UnitTest].into());
    }
    world.jobs[1].origin = super::work::Origin::Discovered;
    world.command_at(0, Command::Submit(0));
    world.run_until(FORMED + 20_000);
    assert_eq!(world.violations, Vec::<String>::new());
    assert!(world.runs.is_empty());
    assert!(!world.acknowledged.contains(&0), "the person is told no");
    assert!(world.kernels().all(|(_, kernel)| kernel.task_ids().next().is_none()));
}

/// A result and a cancel that know nothing of each other: the result counts, on all nodes.
#[test]
fn a_result_counts_before_a_concurrent_cancel() {
    let scenario = quiet("a_result_counts_before_a_concurrent_cancel", 5, 1, 3_000);
    for seed in 0..3 {
        let mut world = begin(&scenario, seed);
        world.command_at(0, Command::Submit(0));
        world.run_until(FORMED + 1_500);
        let holder = world.runs[0].host;
        world.repart(|host| u8::from(host == holder));
        world.command_at((holder + 1) % 5, Command::Cancel(0));
        world.run_until(FORMED + 6_000);
        assert!(matches!(world.runs[0].end, Some((_, RunEnd::Finished(_)))), "it ran to its end: {:?}", world.runs);
        world.repart(|_| 0);
        world.run_until(FORMED + 20_000);
        assert_eq!(world.violations, Vec::<String>::new());
        let states = states(&world, 0);
        assert!(states.iter().all(|state| matches!(state, State::Completed { .. })), "{states:?}");
    }
}

/// Both sides of a partition take the same task; once they hear of each other, one of them stops.
#[test]
fn who_loses_an_attempt_to_another_stops() {
    let scenario = quiet("who_loses_an_attempt_to_another_stops", 6, 1, 60_000);
    for seed in 0..3 {
        let mut world = begin(&scenario, seed);
        world.repart(|host| (host % 2) as u8);
        world.run_until(FORMED + 20_000);
        world.command_at(0, Command::Submit(0));
        world.command_at(1, Command::Submit(0));
        world.run_until(FORMED + 26_000);
        assert_eq!(runs_of(&world, 0).len(), 2, "each side runs it: {:?}", world.runs);
        world.repart(|_| 0);
        world.run_until(FORMED + 40_000);
        assert_eq!(world.violations, Vec::<String>::new());
        let left = runs_of(&world, 0).into_iter().filter(|run| run.end.is_none()).count();
        assert_eq!(left, 1, "{:?}", world.runs);
    }
}

/// Where the sources say `stop`, the lesser part of a mesh claims nothing, and stops what it holds.
#[test]
fn a_careful_minority_neither_claims_nor_keeps() {
    let quiet = quiet("a_careful_minority_neither_claims_nor_keeps", 5, 12, 30_000);
    let scenario = Scenario { hosts: Hosts { careful: true, ..quiet.hosts.clone() }, ..quiet };
    for seed in 0..3 {
        let mut world = begin(&scenario, seed);
        (0..10).for_each(|job| world.command_at(job % 5, Command::Submit(job)));
        world.run_until(FORMED + 3_000);
        assert!(world.runs.iter().any(|run| run.host < 2), "the lesser part holds something");
        world.repart(|host| u8::from(host < 2));
        let cut = world.now;
        // It is cut off after half of the failure time.
        world.run_until(cut + 3_000);
        assert!(world.runs.iter().all(|run| run.host >= 2 || run.end.is_some()), "it keeps: {:?}", world.runs);
        world.command_at(0, Command::Submit(10));
        world.command_at(1, Command::Submit(11));
        world.run_until(cut + 12_000);
        assert_eq!(world.violations, Vec::<String>::new());
        assert!(runs_of(&world, 10).is_empty() && runs_of(&world, 11).is_empty(), "it claims: {:?}", world.runs);
        assert!(world.runs.iter().all(|run| run.host >= 2 || run.since < cut + 3_000), "it claims: {:?}", world.runs);
    }
}

/// Nobody tries again what it has found out that it cannot run; when all have, the task ends after its time.
#[test]
fn who_has_declined_does_not_try_again_and_when_all_have_the_task_ends() {
    let quiet = quiet("who_has_declined_does_not_try_again_and_when_all_have_the_task_ends", 4, 3, 1_000);
    let scenario = Scenario { work: Work { unable: 1000, ..quiet.work.clone() }, ..quiet };
    for seed in 0..3 {
        let mut world = begin(&scenario, seed);
        (0..3).for_each(|job| change(&mut world.jobs[job], |workload| workload.fallback_s = 15));
        (0..3).for_each(|job| world.command_at(job, Command::Submit(job)));
        world.run_until(FORMED + 14_000);
        for job in 0..3 {
            let runs = runs_of(&world, job);
            let hosts: std::collections::BTreeSet<usize> = runs.iter().map(|run| run.host).collect();
            assert_eq!(hosts.len(), runs.len(), "a host tries twice: {runs:?}");
            assert!(!hosts.is_empty());
            assert!(states(&world, job).iter().all(|state| *state == State::Pending), "too early");
        }
        world.run_until(FORMED + 40_000);
        assert_eq!(world.violations, Vec::<String>::new());
        for job in 0..3 {
            assert!(states(&world, job).iter().all(|state| *state == State::Lost), "{:?}", states(&world, job));
        }
    }
}

/// In a large mesh in which many write and a third of the gossip is lost, some head is always on its way to each node:
/// who waited for all of them would claim only now and then.
#[test]
fn in_a_large_mesh_no_task_waits_until_every_head_is_there() {
    const TASKS: usize = 120;
    const PAUSE: u64 = 10;
    let quiet = quiet("in_a_large_mesh_no_task_waits_until_every_head_is_there", 66, TASKS, 1_000);
    let network = Network { delay: (1, 60), unheard: 300, ..quiet.network.clone() };
    let scenario = Scenario { network, ..quiet };
    let mut world = begin(&scenario, 0);
    let submitted = |job: usize| FORMED + PAUSE * job as u64;
    for job in 0..TASKS {
        world.run_until(submitted(job));
        world.command_at(job % 66, Command::Submit(job));
    }
    world.run_until(submitted(TASKS) + 5_000);
    assert_eq!(world.violations, Vec::<String>::new());
    let started = |job| runs_of(&world, job).first().expect("each is started").since;
    let mut waits: Vec<u64> = (0..TASKS).map(|job| started(job) - submitted(job)).collect();
    waits.sort_unstable();
    // With the rule of small meshes it is 1,300 ms.
    assert!(waits[TASKS * 9 / 10] < 500, "one in ten waits longer than half a second: {waits:?}");
}

/// Changes what a job asks for before anybody knows of it.
pub(super) fn change(job: &mut Job, how: impl FnOnce(&mut runmesh::kernel::task::Workload)) {
    let mut workload = job.workload.as_ref().clone();
    how(&mut workload);
    workload.priority = Priority::of(&workload.tags);
    (job.id, job.workload) = (workload.id(), std::sync::Arc::new(workload));
}
