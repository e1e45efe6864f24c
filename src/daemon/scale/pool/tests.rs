use proptest::prelude::*;

use super::ends::{LOOSE, UNLISTED};
use super::*;
use crate::daemon::scale::WarmSet;
use crate::forge::github::{Registered, Removal};
use crate::kernel::allocation::Warming;
use crate::kernel::id::Cid;

const PATIENCE: u64 = 300_000;
/// More than any of these needs.
const MOST: u32 = 100;

fn repository() -> Repository {
    Repository { host: "h".to_owned(), id: "1".to_owned(), name: "octo/one".to_owned() }
}

fn job(id: u64) -> Job {
    Job {
        id,
        run_attempt: 1,
        repository: repository(),
        path: "ci.yml".to_owned(),
        name: format!("job {id}"),
        commit: "c".repeat(40),
        branch: "main".to_owned(),
        labels: BTreeSet::from(["self-hosted".to_owned()]),
        state: JobState::Queued,
        runner: None,
    }
}

fn on(id: u64, state: JobState, runner: &str) -> Job {
    Job { state, runner: Some(runner.to_owned()), ..job(id) }
}

const DONE: JobState = JobState::Completed { conclusion: Conclusion::Success, duration_ms: 1_000 };

fn jobs(all: impl IntoIterator<Item = Job>) -> BTreeMap<u64, Job> {
    all.into_iter().map(|job| (job.id, job)).collect()
}

fn task(id: u64) -> TaskId {
    job(id).workload().id()
}

fn fence(id: u64) -> Fence {
    Fence { attempt: 1, claim: Cid::of(&id.to_be_bytes()) }
}

fn scope() -> Scope {
    Scope::Repository("octo/one".to_owned())
}

fn pool() -> Pool {
    Pool::new("12D3KooWabcdefghij", PATIENCE)
}

/// Takes a job's task and starts its runner; gives the runner's name.
fn start(pool: &mut Pool, now: u64, id: u64) -> String {
    let deeds = pool.take(now, (task(id), fence(id)), Arc::new(job(id).workload()), scope(), false, MOST);
    let [Deed::Configure { name, .. }] = deeds.as_slice() else { panic!("{deeds:?}") };
    pool.configured(now, name, id).expect("it is to be started");
    name.clone()
}

fn reports(deeds: &[Deed]) -> Vec<(TaskId, &Report)> {
    let mut reports = Vec::new();
    for deed in deeds {
        if let Deed::Report { task, report, .. } = deed {
            reports.push((*task, report));
        }
    }
    reports
}

#[test]
fn names_say_whose_a_runner_is() {
    let mut pool = pool();
    let name = start(&mut pool, 1, 1);
    assert!(name.starts_with("runmesh-abcdefghij-") && name.len() <= 64, "{name}");
    assert!(Pool::is_of_a_mesh(&name) && !Pool::is_of_a_mesh("lab-1"));
}

#[test]
fn a_task_ends_by_what_github_says_of_its_job() {
    let mut pool = pool();
    let name = start(&mut pool, 1, 1);
    assert_eq!(pool.slots(2), 2);
    assert_eq!(pool.see(2, 2, &repository(), &jobs([on(1, JobState::InProgress, &name)]), false), []);
    assert!(pool.is_busy() && pool.thin_out(1_000_000, true).is_empty(), "a busy runner is left alone");
    // Its end alone says nothing.
    pool.ended(3, (task(1), fence(1)), "done");
    assert!(pool.is_unsettled());
    let deeds = pool.see(5, 4, &repository(), &jobs([on(1, DONE, &name)]), false);
    let [(ended, Report::Finished { conclusion: Conclusion::Success, duration_ms: 1_000, .. })] = reports(&deeds)[..]
    else {
        panic!("{deeds:?}")
    };
    assert_eq!(ended, task(1));
    assert!(pool.is_idle());
}

#[test]
fn a_runner_that_took_another_job_brings_its_task_and_gives_its_own_back() {
    let mut pool = pool();
    let name = start(&mut pool, 1, 1);
    let deeds = pool.see(2, 2, &repository(), &jobs([job(1), on(2, JobState::InProgress, &name)]), false);
    let [(given, Report::GivenBack { reason: ReleaseReason::Draining, .. })] = reports(&deeds)[..] else {
        panic!("{deeds:?}")
    };
    assert_eq!(given, task(1));
    assert!(deeds.contains(&Deed::Serves(Box::new(job(2).workload()))), "{deeds:?}");
    // The claim follows: no second runner.
    let workload = Arc::new(job(2).workload());
    assert_eq!(pool.take(3, (task(2), fence(2)), workload, scope(), true, MOST), []);
    assert_eq!(pool.slots(1), 1);
    let deeds = pool.see(4, 4, &repository(), &jobs([on(2, DONE, &name)]), false);
    assert!(matches!(reports(&deeds)[..], [(done, Report::Finished { .. })] if done == task(2)), "{deeds:?}");
}

#[test]
fn a_runner_whose_task_is_another_hosts_by_now_is_asked_about() {
    let mut pool = pool();
    let name = start(&mut pool, 1, 1);
    pool.lose(2, task(1), fence(1));
    assert_eq!(pool.jobs(), BTreeMap::from([(repository(), BTreeSet::new())]));
    let told = jobs([on(1, JobState::InProgress, "runmesh-other-1"), on(2, JobState::InProgress, &name)]);
    let deeds = pool.see(3, 3, &repository(), &told, false);
    assert_eq!(deeds, [Deed::Serves(Box::new(job(2).workload()))]);
}

#[test]
fn a_runner_that_nothing_is_meant_for_serves_the_next_task_also_before_it_is_configured() {
    let mut pool = pool();
    let deeds = pool.take(1, (task(1), fence(1)), Arc::new(job(1).workload()), scope(), false, MOST);
    let [Deed::Configure { name, .. }] = deeds.as_slice() else { panic!("{deeds:?}") };
    pool.lose(2, task(1), fence(1));
    assert_eq!((pool.spare(), pool.slots(1)), (1, 0), "for a job there is room, for a task of the mesh there is none");
    assert_eq!(pool.take(3, (task(2), fence(2)), Arc::new(job(2).workload()), scope(), false, MOST), []);
    assert_eq!((pool.spare(), pool.slots(1)), (0, 1));
    assert_eq!(pool.configured(4, name, 7), Ok((task(1), fence(1))), "it is started after all");
}

#[test]
fn two_runners_of_one_host_may_change_places() {
    let mut pool = pool();
    let (one, two) = (start(&mut pool, 1, 1), start(&mut pool, 1, 2));
    let crossed = jobs([on(1, JobState::InProgress, &two), on(2, JobState::InProgress, &one)]);
    let orders = [1, 2].map(|id| (task(id), fence(id)));
    let mut told = pool.see(2, 2, &repository(), &crossed, false);
    told.sort_by_key(|deed| *deed != Deed::Tells { order: orders[0], of: orders[1] });
    let [one_tells_of_two, two_tells_of_one] =
        [(0, 1), (1, 0)].map(|(order, of)| Deed::Tells { order: orders[order], of: orders[of] });
    assert_eq!(told, [one_tells_of_two, two_tells_of_one]);
    assert_eq!(pool.see(3, 3, &repository(), &crossed, false), []);
    pool.ended(4, (task(1), fence(1)), "done");
    let ended = jobs([on(1, JobState::InProgress, &two), on(2, DONE, &one)]);
    let deeds = pool.see(6, 5, &repository(), &ended, false);
    assert!(matches!(reports(&deeds)[..], [(done, Report::Finished { .. })] if done == task(2)), "{deeds:?}");
}

#[test]
fn what_was_asked_before_a_runner_went_is_old_news() {
    let mut pool = pool();
    start(&mut pool, 1, 1);
    pool.ended(10, (task(1), fence(1)), "it crashed");
    assert_eq!(pool.see(11, 9, &repository(), &jobs([job(1)]), false), []);
    let deeds = pool.see(12, 11, &repository(), &jobs([job(1)]), false);
    let [(_, Report::GivenBack { reason: ReleaseReason::NotRunning, why })] = reports(&deeds)[..] else {
        panic!("{deeds:?}")
    };
    assert_eq!(why, "it crashed");
}

#[test]
fn a_job_that_github_shows_no_more_is_over_if_it_was_asked_for() {
    let mut pool = pool();
    start(&mut pool, 10, 1);
    assert_eq!(pool.see(11, 9, &repository(), &jobs([]), false), []);
    let deeds = pool.see(12, 11, &repository(), &jobs([]), false);
    let [(_, Report::Finished { conclusion: Conclusion::Cancelled, .. })] = reports(&deeds)[..] else {
        panic!("{deeds:?}")
    };
}

#[test]
fn surplus_runners_retire_by_github_first() {
    let mut pool = pool();
    let name = start(&mut pool, 1, 1);
    let somebodys = jobs([on(1, JobState::InProgress, "somebody-elses")]);
    assert_eq!(pool.see(2, 2, &repository(), &somebodys, false), []);
    assert_eq!(pool.thin_out(3, false), [], "it may find a job yet");
    let deeds = pool.thin_out(2 + LOOSE, false);
    assert_eq!(deeds, [Deed::Retire { name: name.clone(), scope: scope(), registration: 1 }]);
    assert_eq!(pool.thin_out(3 + LOOSE, false), [], "once");
    // GitHub has just given it a job: it stays.
    assert_eq!(pool.removed(4 + LOOSE, &name, Some(Removal::Busy)), []);
    let told = jobs([on(1, JobState::InProgress, "somebody-elses"), on(3, JobState::InProgress, &name)]);
    let deeds = pool.see(5 + LOOSE, 5 + LOOSE, &repository(), &told, false);
    assert!(matches!(deeds[..], [Deed::Serves(_)]), "{deeds:?}");
    assert_eq!(pool.thin_out(9 * LOOSE, false), []);
}

#[test]
fn one_that_waits_too_long_goes_and_its_task_is_another_ones() {
    let mut pool = pool();
    let name = start(&mut pool, 1, 1);
    assert_eq!(pool.see(PATIENCE, PATIENCE, &repository(), &jobs([job(1)]), false), []);
    let late = PATIENCE + 1;
    let deeds = pool.see(late, late, &repository(), &jobs([job(1)]), false);
    assert!(matches!(reports(&deeds)[..], [(_, Report::GivenBack { .. })]), "{deeds:?}");
    // The same host may take the task again, with another runner.
    let again = start(&mut pool, late, 1);
    assert_ne!(again, name);
    assert!(matches!(pool.thin_out(late, false)[..], [Deed::Retire { .. }]));
    assert_eq!(pool.removed(late, &name, Some(Removal::Gone)), [Deed::Stop { order: (task(1), fence(1)) }]);
}

#[test]
fn ghosts_go_on_either_side() {
    let mut pool = pool();
    let name = start(&mut pool, 1, 1);
    let one = |id: u64, name: &str| Registered { id, name: name.to_owned(), busy: false, status: "offline".to_owned() };
    let ghost = "runmesh-abcdefghij-older-1";
    let deeds = pool.listed(2, &scope(), &[one(1, &name), one(9, ghost)]);
    assert_eq!(deeds, [Deed::Remove { scope: scope(), registration: 9, name: ghost.to_owned() }]);
    assert_eq!(pool.listed(2 + UNLISTED, &scope(), &[one(1, &name)]), []);
    assert_eq!(pool.listed(UNLISTED, &scope(), &[]), [], "GitHub may be slow to list it");
    assert_eq!(pool.listed(2 + UNLISTED, &scope(), &[]), [Deed::Stop { order: (task(1), fence(1)) }]);
}

#[test]
fn what_github_refuses_is_declined_or_given_back() {
    for is_final in [true, false] {
        let mut pool = pool();
        let deeds = pool.take(1, (task(1), fence(1)), Arc::new(job(1).workload()), scope(), false, MOST);
        let [Deed::Configure { name, .. }] = deeds.as_slice() else { panic!("{deeds:?}") };
        let deeds = pool.refused(2, name, "no".to_owned(), is_final);
        let [(_, report)] = reports(&deeds)[..] else { panic!("{deeds:?}") };
        assert_eq!(matches!(report, Report::Declined { .. }), is_final);
        assert!(pool.is_idle());
    }
}

#[test]
fn a_task_that_is_lost_while_its_runner_is_configured_starts_none() {
    let mut pool = pool();
    let deeds = pool.take(1, (task(1), fence(1)), Arc::new(job(1).workload()), scope(), false, MOST);
    let [Deed::Configure { name, .. }] = deeds.as_slice() else { panic!("{deeds:?}") };
    let name = name.clone();
    assert!(matches!(reports(&pool.lose(2, task(1), fence(1)))[..], [(_, Report::GivenBack { .. })]));
    assert_eq!(pool.configured(3, &name, 7), Err(vec![Deed::Remove { scope: scope(), registration: 7, name }]));
    assert!(pool.is_idle());
}

fn set(runners: u32) -> WarmSet {
    WarmSet { scope: scope(), runners, labels: BTreeSet::from(["self-hosted".to_owned()]) }
}

const AGE: u64 = 1_000_000;

/// Has so many started to wait; gives their names.
fn wait(pool: &mut Pool, now: u64, runners: u32) -> Vec<String> {
    let deeds = pool.tend(now, &[set(runners)], Warming { start: runners, retire: 0 }, AGE);
    let name = |(at, deed): (usize, &Deed)| {
        let Deed::Configure { name, .. } = deed else { panic!("{deed:?}") };
        pool.configured(now, name, 100 + at as u64).expect("it is to be started");
        name.clone()
    };
    deeds.iter().enumerate().map(name).collect()
}

#[test]
fn runners_that_wait_are_left_alone_while_they_are_wanted() {
    let mut pool = pool();
    let names = wait(&mut pool, 1, 2);
    assert_eq!((names.len(), pool.spare(), pool.slots(4)), (2, 2, 2));
    assert_eq!(pool.tend(2, &[set(2)], Warming::default(), AGE), []);
    assert_eq!(pool.thin_out(5 * LOOSE, false), [], "though nothing is meant for them");
    // Fewer are wanted: one goes in its time.
    assert_eq!(pool.tend(6 * LOOSE, &[set(1)], Warming::default(), AGE), []);
    assert!(matches!(pool.thin_out(6 * LOOSE, false)[..], [Deed::Retire { .. }]));
    assert!(matches!(pool.thin_out(6 * LOOSE, true)[..], [Deed::Retire { .. }]), "and the other with the node");
}

#[test]
fn one_that_waits_gives_its_slot_up_unless_it_has_a_job() {
    let mut pool = pool();
    let names = wait(&mut pool, 1, 2);
    let orders: Vec<_> = names.iter().map(|name| pool.hands[name].order).collect();
    pool.begins(orders[0], "octo/one");
    assert_eq!((pool.spare(), pool.waited_at(false)), (1, BTreeSet::from(["octo/one".to_owned()])));
    assert_eq!(pool.tend(2, &[set(2)], Warming { start: 0, retire: 2 }, AGE), []);
    let deeds = pool.thin_out(3, false);
    assert_eq!(deeds, [Deed::Retire { name: names[1].clone(), scope: scope(), registration: 101 }]);
    // GitHub tells which job the busy one has: that is this host's now.
    let deeds = pool.see(4, 4, &repository(), &jobs([on(1, JobState::InProgress, &names[0])]), false);
    assert_eq!(deeds, [Deed::Serves(Box::new(job(1).workload()))]);
    assert_eq!(pool.take(5, (task(1), fence(1)), Arc::new(job(1).workload()), scope(), true, MOST), []);
    let deeds = pool.see(6, 6, &repository(), &jobs([on(1, DONE, &names[0])]), false);
    assert!(matches!(reports(&deeds)[..], [(done, Report::Finished { .. })] if done == task(1)), "{deeds:?}");
}

#[test]
fn a_task_goes_to_a_runner_that_waits_also_to_one_of_the_organisation() {
    let mut pool = pool();
    let all = WarmSet { scope: Scope::Organization("Octo".to_owned()), ..set(1) };
    let deeds = pool.tend(1, &[all], Warming { start: 1, retire: 0 }, AGE);
    let [Deed::Configure { name, .. }] = deeds.as_slice() else { panic!("{deeds:?}") };
    pool.configured(1, name, 7).expect("it is to be started");
    assert_eq!(pool.take(2, (task(1), fence(1)), Arc::new(job(1).workload()), scope(), false, MOST), []);
    assert_eq!((pool.spare(), pool.slots(1)), (0, 1));
}

#[test]
fn one_that_cannot_have_a_job_makes_room_for_one_that_can() {
    let mut pool = pool();
    let names = wait(&mut pool, 1, 1);
    let gpu = Job { labels: BTreeSet::from(["gpu".to_owned()]), ..job(1) };
    let workload = || Arc::new(gpu.workload());
    // There is another slot: nobody has to go.
    let deeds = pool.take(2, (task(1), fence(1)), workload(), scope(), false, 2);
    assert!(matches!(&deeds[..], [Deed::Configure { .. }]) && pool.spare() == 1, "{deeds:?}");
    let mut pool = self::pool();
    let waits = wait(&mut pool, 1, 1);
    assert_eq!(names, waits);
    let deeds = pool.take(2, (task(1), fence(1)), workload(), scope(), false, 1);
    assert_eq!(
        deeds,
        [Deed::Retire { name: waits[0].clone(), scope: scope(), registration: 100 }],
        "before it is gone none comes"
    );
    assert_eq!(pool.see(3, 3, &repository(), &jobs([gpu.clone()]), false), [], "it waits for its runner");
    let order = pool.hands[&waits[0]].order;
    assert_eq!(pool.removed(4, &waits[0], Some(Removal::Gone)), [Deed::Stop { order }]);
    assert_eq!(pool.thin_out(5, false), []);
    pool.ended(6, order, "retired");
    assert!(matches!(&pool.thin_out(7, false)[..], [Deed::Configure { .. }]));
    assert_eq!(pool.thin_out(8, false), [], "once");
    // It had a job after all: the task is somebody else's.
    let mut pool = self::pool();
    let waits = wait(&mut pool, 1, 1);
    pool.take(2, (task(1), fence(1)), workload(), scope(), false, 1);
    assert_eq!(pool.removed(3, &waits[0], Some(Removal::Busy)), []);
    pool.see(4, 4, &repository(), &jobs([gpu.clone(), on(2, JobState::InProgress, &waits[0])]), false);
    let deeds = pool.thin_out(5, false);
    assert!(matches!(reports(&deeds)[..], [(given, Report::GivenBack { .. })] if given == task(1)), "{deeds:?}");
}

#[test]
fn who_has_waited_for_its_age_is_replaced_and_who_ends_early_is_not_at_once() {
    let mut pool = pool();
    let names = wait(&mut pool, 1, 1);
    assert_eq!(pool.tend(AGE, &[set(1)], Warming::default(), AGE), []);
    assert_eq!(pool.thin_out(AGE, false), []);
    assert_eq!(pool.tend(AGE + 1, &[set(1)], Warming::default(), AGE), []);
    assert!(matches!(&pool.thin_out(AGE + 1, false)[..], [Deed::Retire { name, .. }] if *name == names[0]));
    let again = wait(&mut pool, AGE + 2, 1);
    assert_eq!(again.len(), 1);
    let order = pool.hands[&again[0]].order;
    pool.ended(AGE + 3, order, "it crashed");
    let more = Warming { start: 1, retire: 0 };
    assert_eq!(pool.tend(AGE + 4, &[set(1)], more, AGE), [], "that would go on for ever");
    assert_eq!(pool.tend(2 * AGE, &[set(1)], more, AGE).len(), 1);
}

proptest! {
    /// However GitHub deals its jobs out among this host's runners, and whenever one looks: each task ends once, by what
    /// GitHub says of its own job, no busy runner is ended, and in the end nothing is left.
    #[test]
    fn github_may_deal_as_it_likes(
        deal in prop::collection::vec(0usize..6, 6),
        looks in prop::collection::vec((0u8..4, any::<bool>()), 1..40),
    ) {
        let mut pool = pool();
        let ids: Vec<u64> = (1..=6).collect();
        let names: BTreeMap<u64, String> = ids.iter().map(|id| (*id, start(&mut pool, 1, *id))).collect();
        let mut order = ids.clone();
        for (at, to) in deal.iter().enumerate() {
            order.swap(at, *to);
        }
        // Job ids[n] goes to the runner that was started for order[n].
        let (mut begun, mut done, mut now) = (0, 0, 10);
        let mut finished: BTreeMap<TaskId, u32> = BTreeMap::new();
        let mut held: BTreeSet<TaskId> = ids.iter().map(|id| task(*id)).collect();
        let mut steps: Vec<(u8, bool)> = looks;
        steps.extend([(0, true); 12].into_iter().chain([(1, true); 12]));
        for (what, looks) in steps {
            now += 100;
            match what {
                0 if begun < 6 => begun += 1,
                1 if done < begun => {
                    let runner = order[done];
                    pool.ended(now, (task(runner), fence(runner)), "done");
                    done += 1;
                }
                _ => {}
            }
            if !looks {
                continue;
            }
            let state = |n: usize| match n {
                n if n < done => on(ids[n], DONE, &names[&order[n]]),
                n if n < begun => on(ids[n], JobState::InProgress, &names[&order[n]]),
                n => job(ids[n]),
            };
            let told = jobs((0..6).map(state));
            let mut deeds = pool.see(now, now, &repository(), &told, false);
            deeds.extend(pool.thin_out(now, false));
            for deed in deeds {
                match deed {
                    Deed::Report { task, report: Report::Finished { .. }, .. } => {
                        *finished.entry(task).or_default() += 1;
                        held.remove(&task);
                    }
                    Deed::Report { task: given, report: Report::GivenBack { .. }, .. } => {
                        held.remove(&given);
                        // As the kernel does for a mesh of one: it takes it again.
                        let id = *ids.iter().find(|id| task(**id) == given).expect("one of them");
                        let at = ids.iter().position(|one| *one == id).expect("one of them");
                        let deeds = pool.take(now, (given, fence(id + 100)), Arc::new(job(id).workload()), scope(), at < begun, MOST);
                        prop_assert!(deeds.is_empty() || at >= begun, "{deeds:?}");
                        held.insert(given);
                    }
                    Deed::Serves(workload) => {
                        let id = workload.id();
                        if held.insert(id) {
                            let Trigger::GithubJob { job, .. } = workload.trigger else { unreachable!() };
                            let deeds = pool.take(now, (id, fence(job + 200)), Arc::new(*workload), scope(), true, MOST);
                            prop_assert_eq!(deeds, []);
                        }
                    }
                    Deed::Stop { .. } | Deed::Retire { .. } => prop_assert!(false, "nothing here is surplus: {:?}", deed),
                    _ => {}
                }
            }
        }
        prop_assert_eq!(finished.len(), 6, "{:?}", finished);
        prop_assert!(finished.values().all(|times| *times == 1), "{:?}", finished);
        prop_assert!(held.is_empty());
    }
}

#[test]
fn the_log_of_the_runner_that_had_a_job_tells_of_its_task() {
    let mut pool = pool();
    let (one, two) = (start(&mut pool, 1, 1), start(&mut pool, 1, 2));
    let orders = [1, 2].map(|id| (task(id), fence(id)));
    let own = jobs([on(1, JobState::InProgress, &one), job(2)]);
    assert_eq!(pool.see(2, 2, &repository(), &own, false), [], "its own");
    // The other's runner ends before GitHub tells what it had.
    pool.ended(3, orders[1], "done");
    let third = (task(3), fence(3));
    pool.take(3, third, Arc::new(job(3).workload()), scope(), true, MOST);
    let told = jobs([on(1, JobState::InProgress, &one), job(2), on(3, DONE, &two)]);
    let deeds = pool.see(4, 4, &repository(), &told, false);
    assert_eq!(deeds[0], Deed::Tells { order: orders[1], of: third });
    assert!(deeds[1..].iter().all(|deed| !matches!(deed, Deed::Tells { .. })), "{deeds:?}");
}
