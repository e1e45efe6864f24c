//! The kernel, simulated: whole meshes in virtual time, driven by nothing but `handle` and `next_wake`.
//!
//! A seed decides everything that happens, so a failure is found again by its seed:
//! `RUNMESH_SIM_SEED=17 cargo nextest run --test simulation NAME --no-capture`, with `RUNMESH_SIM_TRACE=1` for
//! everything that each node does. `RUNMESH_SIM_SEEDS=5000` runs more seeds than usual, and
//! `RUNMESH_SIM_NODES=300 RUNMESH_SIM_TASKS=3000 cargo nextest run --release --test simulation at_large` larger meshes.

mod simulation {
    pub(crate) mod adapter;
    pub(crate) mod chance;
    pub(crate) mod checks;
    pub(crate) mod effects;
    pub(crate) mod groups;
    pub(crate) mod host;
    pub(crate) mod network;
    pub(crate) mod replay;
    mod room;
    mod rules;
    pub(crate) mod scenario;
    mod slots;
    pub(crate) mod turns;
    pub(crate) mod work;
    pub(crate) mod world;
}

use simulation::chance::Chance;
use simulation::checks::{self, Outcome};
use simulation::replay;
use simulation::scenario::{Faults, Hosts, Network, Scenario, Work};
use simulation::world::{Sabotage, World};

/// Within so many virtual milliseconds a mesh of seven that start at once is formed.
const FORMED: u64 = 4_000;

/// A number that whoever runs this may give.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// The seeds to run: one that is asked for, else so many.
fn seeds(usual: u64) -> Vec<u64> {
    match number("RUNMESH_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("RUNMESH_SIM_SEEDS").unwrap_or(usual)).collect(),
    }
}

/// Says which seed it was when the kernel panics.
struct Seed<'a>(&'a str, u64);

impl Drop for Seed<'_> {
    #[expect(clippy::print_stderr, reason = "whoever reads a panic needs the seed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("scenario {}, seed {}: run it again with RUNMESH_SIM_SEED={}", self.0, self.1, self.1);
        }
    }
}

/// Runs a scenario by many seeds, on all processors, and says of all that failed how.
fn run_all(scenario: &Scenario, seeds: &[u64]) -> Vec<Outcome> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(seed) = seeds.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            let _seed = Seed(scenario.name, *seed);
            done.push((*seed, checks::run(scenario, *seed).map(|(outcome, _)| outcome)));
        }
        done
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(seeds.len());
    let mut done: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("the seed is said above")).collect()
    });
    done.sort_by_key(|(seed, _)| *seed);
    let failed: Vec<String> = done
        .iter()
        .filter_map(|(seed, result)| {
            Some(format!("RUNMESH_SIM_SEED={seed} ({}): {}", scenario.name, result.as_ref().err()?))
        })
        .collect();
    assert!(failed.is_empty(), "{} of {} seeds fail\n{}", failed.len(), seeds.len(), failed.join("\n\n"));
    done.into_iter().filter_map(|(_, result)| result.ok()).collect()
}

#[expect(clippy::print_stderr, reason = "the numbers of a run, for whoever asks with --no-capture")]
fn tell(scenario: &Scenario, outcomes: &[Outcome]) {
    for outcome in outcomes.iter().take(3) {
        eprintln!("{}: {outcome:?}", scenario.name);
    }
    let longest = outcomes.iter().enumerate().max_by_key(|(_, outcome)| outcome.converged.all);
    if let Some((number, outcome)) = longest {
        eprintln!("{}: run {number} took longest to converge: {:?}", scenario.name, outcome.converged);
    }
    let sum = |of: fn(&Outcome) -> usize| outcomes.iter().map(of).sum::<usize>();
    eprintln!(
        "{}: {} runs, {} starts, {} again, {} doubled, {} kept alone, {} lost, {} cancelled, {} beside, formed after at most {:?} ms, rest after at most {} ms, converged after at most {:.0} hops",
        scenario.name,
        outcomes.len(),
        sum(|outcome| outcome.starts),
        sum(|outcome| outcome.again),
        sum(|outcome| outcome.doubled),
        sum(|outcome| outcome.kept_alone),
        sum(|outcome| outcome.lost),
        sum(|outcome| outcome.cancelled),
        sum(|outcome| outcome.groups.beside),
        outcomes.iter().map(|outcome| outcome.formed_at).max().flatten(),
        outcomes.iter().map(|outcome| outcome.rested_after).max().unwrap_or(0),
        // A hop is what a message takes on average from one host to the next.
        outcomes.iter().map(|outcome| outcome.converged.all).max().unwrap_or(0) as f64 / scenario.network.hop(),
    );
}

/// Where nothing goes wrong and slots are plenty, each task is started exactly once.
#[test]
fn nothing_goes_wrong() {
    let scenario = Scenario::roomy("nothing_goes_wrong", 7, 40);
    let outcomes = run_all(&scenario, &seeds(20));
    tell(&scenario, &outcomes);
    let more: Vec<_> = outcomes.iter().filter(|outcome| outcome.starts != scenario.work.tasks).collect();
    assert!(more.is_empty(), "tasks are started more than once: {more:?}");
    let slow: Vec<_> = outcomes.iter().filter(|outcome| outcome.formed_at.is_none_or(|at| at > FORMED)).collect();
    assert!(slow.is_empty(), "the mesh takes more than {FORMED} ms to form: {slow:?}");
}

/// The same with 50 nodes that all start and join at once, and 500 tasks.
#[test]
fn nothing_goes_wrong_at_large() {
    let scenario = Scenario::roomy("nothing_goes_wrong_at_large", 50, 500).within((3_000, 9_000), (200, 2_000));
    let outcomes = run_all(&scenario, &seeds(1));
    tell(&scenario, &outcomes);
    for outcome in outcomes {
        assert_eq!(outcome.starts, scenario.work.tasks, "tasks are started more than once: {outcome:?}");
        assert!(outcome.formed_at.is_some(), "the mesh is not formed when work ends: {outcome:?}");
    }
}

/// Loss, delay, doubling and reordering of messages, partitions, crashes in the middle of anything, hosts that vanish,
/// leave and return, stalls, wrong clocks: all of it, and still every task ends once, alike on all nodes.
#[test]
fn everything_goes_wrong() {
    let scenario = Scenario::rough("everything_goes_wrong", 7, 40);
    tell(&scenario, &run_all(&scenario, &seeds(200)));
}

/// With as many nodes and tasks as `RUNMESH_SIM_NODES` and `RUNMESH_SIM_TASKS` say, at some fifty tasks a second.
#[test]
fn everything_goes_wrong_at_large() {
    let (nodes, tasks) = (number("RUNMESH_SIM_NODES").unwrap_or(50), number("RUNMESH_SIM_TASKS").unwrap_or(500));
    let scenario = Scenario::at_large("everything_goes_wrong_at_large", nodes as usize, tasks as usize);
    tell(&scenario, &run_all(&scenario, &seeds(1)));
}

/// Many small meshes, each of another shape: of few nodes, few slots and short work, so that everything meets everything.
#[test]
fn a_thousand_small_meshes() {
    let (per_shape, mut all) = (250, Vec::new());
    for (nodes, links, page) in [(2, 0, 64), (3, 0, 8), (4, 0, 8), (6, 3, 8)] {
        let scenario = Scenario::rough("a_thousand_small_meshes", nodes, 8).within((2_000, 12_000), (100, 4_000));
        let network = Network { page, ..scenario.network.clone() };
        let faults = Faults { kills: nodes, vanishings: 1, leavings: 1, ..scenario.faults.clone() };
        let scenario = Scenario { links, network, faults, slots: (1, 2), ..scenario };
        let outcomes = run_all(&scenario, &seeds(per_shape));
        tell(&scenario, &outcomes);
        all.extend(outcomes);
    }
    assert!(all.iter().any(|outcome| outcome.again > 0) && all.iter().any(|outcome| outcome.cancelled > 0), "too tame");
}

/// More than anybody should have to bear: a fifth of all messages lost, each host down several times.
#[test]
fn everything_goes_wrong_all_the_time() {
    let scenario = Scenario::hopeless("everything_goes_wrong_all_the_time", 7, 40);
    tell(&scenario, &run_all(&scenario, &seeds(40)));
}

/// Not every host can connect to every other: a ring with a few chords.
#[test]
fn everything_goes_wrong_on_a_ring() {
    let scenario = Scenario { links: 4, ..Scenario::rough("everything_goes_wrong_on_a_ring", 12, 40) };
    tell(&scenario, &run_all(&scenario, &seeds(20)));
}

/// How many starts of a task beside a running one each kind of misfortune costs. Without any there are none, however few
/// slots there are.
#[test]
fn doubled_runs_stay_rare() {
    let calm = Scenario { slots: (2, 6), ..Scenario::calm("calm", 7, 40) };
    let rough = Scenario::rough("rough", 7, 40);
    let faults =
        Faults { between: (20_000, 60_000), apart: (1_000, 20_000), down: (500, 20_000), ..calm.faults.clone() };
    let with = |name, faults: Faults| Scenario { name, faults, ..calm.clone() };
    // Of a thousand starts, so many may be doubled.
    let all = [
        (0, calm.clone()),
        (0, Scenario { name: "scarce slots", slots: (1, 2), ..calm.clone() }),
        (10, Scenario { name: "rough network", network: rough.network.clone(), ..calm.clone() }),
        (
            20,
            Scenario {
                name: "wrong clocks",
                hosts: rough.hosts.clone(),
                ..with("", Faults { jumps: 10, ..faults.clone() })
            },
        ),
        (20, Scenario { name: "failing starts", work: Work { not_started: 100, ..calm.work.clone() }, ..calm.clone() }),
        (20, with("kills", Faults { kills: 5, ..faults.clone() })),
        (20, with("vanishings", Faults { vanishings: 5, ..faults.clone() })),
        (20, with("leavings", Faults { leavings: 5, ..faults.clone() })),
        (20, with("short stalls", Faults { stalls: 10, stalled: (500, 1_900), ..faults.clone() })),
        // What nobody can tell from the loss of a host is met by a second run.
        (150, with("long stalls", Faults { stalls: 10, stalled: (500, 5_000), ..faults.clone() })),
        (300, with("partitions", Faults { partitions: 3, ..faults.clone() })),
        (300, Scenario { name: "submitted twice", work: Work { twice: 1000, ..calm.work.clone() }, ..calm.clone() }),
    ];
    for (permille, scenario) in all {
        let outcomes = run_all(&scenario, &seeds(10));
        tell(&scenario, &outcomes);
        let starts: usize = outcomes.iter().map(|outcome| outcome.starts).sum();
        let doubled: usize = outcomes.iter().map(|outcome| outcome.doubled).sum();
        assert!(doubled * 1000 <= starts * permille, "{}: {doubled} of {starts} starts are doubled", scenario.name);
    }
}

/// The first in rank may be too busy to take its task at once, and the news that it has may be lost: whoever stands behind
/// asks it before it claims out of turn. Without the question one start in six is doubled by either.
#[test]
fn who_stands_behind_asks_those_ahead_before_it_claims() {
    let roomy = Scenario::roomy("those ahead are busy", 7, 100);
    let faults = Faults { between: (4_000, 24_000), stalls: 200, stalled: (100, 400), ..roomy.faults.clone() };
    let busy = Scenario { faults, ..roomy.clone() };
    let network = Network { unheard: 500, ..roomy.network.clone() };
    let unheard = Scenario { name: "half of all gossip is lost", network, ..roomy };
    // Of a thousand starts, so many may be doubled: presences are gossiped too, and a holder whose own are lost is missed.
    for (permille, scenario) in [(5, busy), (40, unheard)] {
        let outcomes = run_all(&scenario, &seeds(8));
        tell(&scenario, &outcomes);
        let starts: usize = outcomes.iter().map(|outcome| outcome.starts).sum();
        let doubled: usize = outcomes.iter().map(|outcome| outcome.doubled).sum();
        assert!(doubled * 1000 <= starts * permille, "{}: {doubled} of {starts} starts are doubled", scenario.name);
    }
}

/// Who comes back from a partition reads what the others did meanwhile page by page, introductions before claims and
/// results: it takes nothing of it before it has every head it was told of.
#[test]
fn who_comes_back_claims_nothing_before_it_has_all_it_was_told_of() {
    let roomy = Scenario::roomy("who_comes_back_claims_nothing_before_it_has_all_it_was_told_of", 5, 100);
    let network = Network { page: 4, delay: (10, 40), ..roomy.network.clone() };
    let work = Work { discovered: 0, labelled: 0, takes: (100, 400), impossible: false, ..roomy.work.clone() };
    let scenario = Scenario { network, work, ..roomy };
    for seed in seeds(5) {
        let _seed = Seed(scenario.name, seed);
        let mut world = World::new(&scenario, seed);
        world.run_until(4_000);
        world.repart(|host| u8::from(host == 4));
        world.run_until(26_000);
        world.repart(|_| 0);
        world.run_until(40_000);
        assert_eq!(world.violations, Vec::<String>::new());
        let tasks: std::collections::BTreeSet<_> = world.runs.iter().map(|run| run.task).collect();
        assert_eq!(tasks.len(), scenario.work.tasks, "each task runs");
        let again = world.runs.len() - tasks.len();
        assert_eq!(again, 0, "starts of tasks that were run elsewhere");
    }
}

/// A node that was asked to go takes nothing any more, however much waits and however many of its slots come free.
#[test]
fn a_draining_node_claims_nothing() {
    let calm = Scenario::calm("a_draining_node_claims_nothing", 7, 60);
    let faults = Faults { between: (5_000, 40_000), leavings: 14, down: (12_000, 20_000), ..calm.faults.clone() };
    let work = Work { takes: (1_000, 6_000), ..calm.work.clone() };
    let scenario = Scenario { slots: (1, 3), faults, work, ..calm };
    let outcomes = run_all(&scenario, &seeds(10));
    tell(&scenario, &outcomes);
    assert!(outcomes.iter().all(|outcome| outcome.counts.deaths > 3), "hardly anybody leaves: {outcomes:?}");
}

/// Half of a mesh whose idle nodes beat every few seconds is cut off: what it runs is taken over as fast as in a small
/// mesh, since those who hear a doubted holder say so, and those who say nothing are not waited for.
#[test]
fn idle_nodes_that_are_cut_off_hold_up_no_takeover() {
    const CUT: u64 = 40_000;
    const TAKEN: u64 = 4_500;
    let roomy = Scenario::roomy("idle_nodes_that_are_cut_off_hold_up_no_takeover", 20, 6);
    let work =
        Work { between: (20_000, 25_000), takes: (90_000, 90_000), labelled: 0, impossible: false, ..roomy.work };
    let scenario = Scenario { work, ..roomy };
    for seed in seeds(5) {
        let _seed = Seed(scenario.name, seed);
        let mut world = World::new(&scenario, seed);
        world.run_until(CUT);
        assert_eq!(world.runs.len(), 6, "each task runs once before the cut");
        world.repart(|host| (host % 2) as u8);
        world.run_until(CUT + TAKEN);
        assert_eq!(world.violations, Vec::<String>::new());
        for run in &world.runs[..6] {
            let again = world.runs[6..].iter().filter(|other| other.task == run.task).collect::<Vec<_>>();
            // Two may claim in the same few milliseconds, when those ahead of both are lost; one of them stops.
            let left = again.iter().filter(|other| other.end.is_none()).count();
            assert_eq!(left, 1, "{run:?} has {again:?}");
            assert!(again.iter().all(|other| other.host % 2 != run.host % 2), "{run:?} has {again:?}");
        }
    }
}

/// A host that cannot run what its labels promise says so: the attempt does not count, the others get their turn, and
/// only when all have said so does the task end.
#[test]
fn who_cannot_run_a_task_declines_and_another_runs_it() {
    let calm = Scenario::calm("who_cannot_run_a_task_declines_and_another_runs_it", 7, 40);
    let scenario = Scenario { work: Work { unable: 700, ..calm.work.clone() }, ..calm };
    let outcomes = run_all(&scenario, &seeds(20));
    tell(&scenario, &outcomes);
    assert!(outcomes.iter().any(|outcome| outcome.again > 20), "hardly anybody declines: {outcomes:?}");
    let rough = Scenario::rough("who_cannot_run_a_task_declines_while_everything_goes_wrong", 7, 40);
    let scenario = Scenario { work: Work { unable: 300, ..rough.work.clone() }, ..rough };
    tell(&scenario, &run_all(&scenario, &seeds(20)));
}

/// A holder that says for ever that it runs a task does not keep it for ever: past its time limit and a grace another
/// takes it over.
#[test]
fn a_task_held_past_its_time_limit_is_taken_over() {
    let calm = Scenario::calm("a_task_held_past_its_time_limit_is_taken_over", 7, 20);
    let work = Work { hangs: Some((300, 10)), ..calm.work.clone() };
    let scenario = Scenario { slots: (20, 20), work, ..calm };
    let outcomes = run_all(&scenario, &seeds(10));
    tell(&scenario, &outcomes);
    assert!(outcomes.iter().any(|outcome| outcome.again > 0), "no task hangs: {outcomes:?}");
}

/// Where the sources say `stop`, a holder that is cut off from most of the members stops before the others take over.
#[test]
fn a_holder_that_is_cut_off_stops_where_the_source_says_so() {
    let calm = Scenario::calm("keep", 7, 40);
    let faults = Faults { between: (5_000, 40_000), partitions: 3, apart: (4_000, 15_000), ..calm.faults.clone() };
    let work = Work { takes: (2_000, 20_000), ..calm.work.clone() };
    let keep = Scenario { faults, work, ..calm };
    let stop = Scenario { name: "stop", hosts: Hosts { careful: true, ..keep.hosts.clone() }, ..keep.clone() };
    let [kept, stopped] = [&keep, &stop].map(|scenario| {
        let outcomes = run_all(scenario, &seeds(20));
        tell(scenario, &outcomes);
        outcomes
    });
    let sum = |outcomes: &[Outcome], of: fn(&Outcome) -> usize| outcomes.iter().map(of).sum::<usize>();
    assert!(sum(&kept, |outcome| outcome.kept_alone) > 0, "nobody is cut off while it works");
    assert_eq!(sum(&stopped, |outcome| outcome.kept_alone), 0);
    let doubled = [&kept, &stopped].map(|outcomes| sum(outcomes, |outcome| outcome.doubled));
    assert!(doubled[1] * 10 <= doubled[0], "`stop` does not narrow double execution: {doubled:?}");
}

/// Of a concurrency group one task runs at a time, and of those that wait the newest; what has begun goes on unless a newer
/// one says `cancel-in-progress`. The nodes that tasks are submitted to differ, so two of a group may be claimed at once
/// by nodes that do not know of each other: then the newer yields.
#[test]
fn of_a_concurrency_group_one_runs_at_a_time() {
    let roomy = Scenario::roomy("of_a_concurrency_group_one_runs_at_a_time", 7, 60);
    let work = Work { between: (8_000, 40_000), labelled: 0, groups: (5, 0), ..roomy.work.clone() };
    let scenario = Scenario { work, ..roomy };
    let outcomes = run_all(&scenario, &seeds(20));
    tell(&scenario, &outcomes);
    let sum = |outcomes: &[Outcome], of: fn(&Outcome) -> usize| outcomes.iter().map(of).sum::<usize>();
    let starts = sum(&outcomes, |outcome| outcome.starts);
    let beside = sum(&outcomes, |outcome| outcome.groups.beside);
    assert!(beside * 1000 <= starts * 5, "{beside} of {starts} starts are beside another of their group");
    assert!(sum(&outcomes, |outcome| outcome.groups.superseded) > 100, "hardly anything is superseded");
    assert_eq!(sum(&outcomes, |outcome| outcome.groups.interrupted), 0, "what had begun was cancelled");

    let work = Work { groups: (5, 500), ..scenario.work.clone() };
    let cancelling = Scenario { name: "with cancel-in-progress", work, ..scenario.clone() };
    let outcomes = run_all(&cancelling, &seeds(20));
    tell(&cancelling, &outcomes);
    assert!(sum(&outcomes, |outcome| outcome.groups.interrupted) > 50, "hardly anything is interrupted");
}

/// The same while everything goes wrong: nothing that has begun ends by a newer one that does not ask for it, the newest
/// of each group runs, and all nodes agree.
#[test]
fn concurrency_groups_hold_while_everything_goes_wrong() {
    let rough = Scenario::rough("concurrency_groups_hold_while_everything_goes_wrong", 7, 60);
    let faults = Faults { between: (8_000, 50_000), ..rough.faults.clone() };
    let work = Work { between: (8_000, 50_000), twice: 0, cancelled: 0, groups: (5, 0), ..rough.work.clone() };
    let scenario = Scenario { work, faults, ..rough };
    let outcomes = run_all(&scenario, &seeds(60));
    tell(&scenario, &outcomes);
    assert!(outcomes.iter().any(|outcome| outcome.groups.beside > 0), "no two nodes ever claim at once: too tame");
    assert!(outcomes.iter().any(|outcome| outcome.groups.yielded > 0), "nobody ever yields");
    assert!(
        outcomes.iter().map(|outcome| outcome.groups.sure).sum::<usize>() > 60,
        "of few groups the newest is known"
    );
    let interrupted: Vec<_> = outcomes.iter().filter(|outcome| outcome.groups.interrupted > 0).collect();
    assert!(interrupted.is_empty(), "what had begun was cancelled: {interrupted:?}");
}

/// The same sources in a mesh whose idle nodes would beat more seldom than a holder may be without its majority: they do
/// not rest there, and nobody stops for nothing.
#[test]
fn a_careful_holder_hears_a_large_mesh_often_enough() {
    let roomy = Scenario::roomy("a_careful_holder_hears_a_large_mesh_often_enough", 20, 20);
    let scenario = Scenario { hosts: Hosts { careful: true, ..roomy.hosts.clone() }, ..roomy };
    for outcome in run_all(&scenario, &seeds(3)) {
        assert_eq!(outcome.starts, scenario.work.tasks, "a task is stopped or started twice: {outcome:?}");
    }
}

/// Gossip is a hint, and questions are the truth: a node that never hears any has each entry all the same, at most a round
/// and a few messages after the others.
#[test]
fn a_node_that_misses_all_gossip_is_seconds_behind() {
    const BEHIND: u64 = 5_000 + 500;
    let scenario = Scenario::roomy("a_node_that_misses_all_gossip_is_seconds_behind", 7, 40);
    for seed in seeds(5) {
        let _seed = Seed(scenario.name, seed);
        let mut world = World::new(&scenario, seed);
        world.sabotage = Some(Sabotage::MissGossip);
        let mut there: std::collections::VecDeque<(u64, usize)> = std::collections::VecDeque::new();
        while world.now < world.last_trouble + 20_000 {
            world.run_until(world.now + 100);
            assert_eq!(world.violations, Vec::<String>::new());
            there.push_back((world.now, world.hosts[0].disk.kept.len()));
            while there.front().is_some_and(|(at, _)| at + BEHIND <= world.now) {
                let (at, count) = there.pop_front().expect("looked at above");
                let here: std::collections::BTreeSet<_> =
                    world.hosts[1].disk.kept.iter().map(|entry| entry.cid()).collect();
                let lacks = world.hosts[0].disk.kept[..count].iter().filter(|entry| !here.contains(&entry.cid()));
                assert_eq!(lacks.count(), 0, "at {} ms host 1 lacks entries that host 0 had at {at} ms", world.now);
            }
        }
    }
}

/// The entries of a run, given to nodes that have not seen it: in any order, children before parents, in any portions,
/// some twice. The state is that of the run.
#[test]
fn entries_give_one_state_in_any_order() {
    let scenarios = [
        Scenario::rough("entries_give_one_state_in_any_order", 5, 20),
        Scenario::hopeless("entries_give_one_state_in_any_order", 5, 20),
    ];
    for (scenario, seed) in scenarios.iter().flat_map(|scenario| seeds(4).into_iter().map(move |seed| (scenario, seed)))
    {
        let _seed = Seed(scenario.name, seed);
        let (_, world) = checks::run(scenario, seed).expect("the run goes well");
        for order in 0..25 {
            replay::any_order(&world, Chance::new(seed ^ (order << 32), "order"));
            replay::causal_order(&world, Chance::new(seed ^ (order << 32), "causal order"));
        }
    }
}

/// What the nodes of a process share saves memory, and changes nothing.
#[test]
fn what_nodes_share_changes_nothing() {
    let apart = Scenario::hopeless("what_nodes_share_changes_nothing", 7, 30);
    let shared = Scenario { shares: true, ..apart.clone() };
    for seed in seeds(5) {
        let [apart, shared] = [&apart, &shared].map(|scenario| checks::run(scenario, seed).map(|(outcome, _)| outcome));
        assert_eq!(apart, shared);
        assert!(apart.is_ok(), "{apart:?}");
    }
}

/// Nor does it by how many threads the nodes of a large mesh are served.
#[test]
fn how_many_threads_there_are_changes_nothing() {
    let large = Scenario::at_large("how_many_threads_there_are_changes_nothing", 40, 200);
    // A small overlay that was parted stays so, once all have enough peers in their part (see `Overlay`).
    let large = Scenario { faults: Faults { partitions: 0, ..large.faults.clone() }, ..large };
    let [one, three] = [1, 3].map(|threads| Scenario { shares: true, threads, ..large.clone() });
    for seed in seeds(2) {
        let [one, three] = [&one, &three].map(|scenario| checks::run(scenario, seed).map(|(outcome, _)| outcome));
        assert_eq!(one, three);
        assert!(one.is_ok(), "{one:?}");
    }
}

/// Two runs by one seed are the same to the last event, or a failure could not be found again.
#[test]
fn a_seed_decides_everything() {
    let scenario = Scenario::rough("a_seed_decides_everything", 7, 40);
    for seed in seeds(3) {
        let [first, second] = [(); 2].map(|()| checks::run(&scenario, seed).map(|(outcome, _)| outcome));
        assert_eq!(first, second);
    }
    let [first, second] = [1, 2].map(|seed| checks::run(&scenario, seed).map(|(outcome, _)| outcome.fingerprint));
    assert_ne!(first, second);
}

/// The checks find what is done wrong on purpose.
#[test]
fn what_is_done_wrong_is_found() {
    let wrongs = [
        (Sabotage::ForgetToPersist, "which its disk does not have"),
        (Sabotage::SwallowReports, "no rest"),
        (Sabotage::Deafen, "no rest"),
        (Sabotage::TwistReports, "must end by"),
        (Sabotage::RestoreOldDisk, "forked"),
    ];
    let calm = Scenario::roomy("what_is_done_wrong_is_found", 4, 30);
    let faults = Faults { between: (4_000, 30_000), kills: 12, down: (500, 4_000), ..calm.faults.clone() };
    let scenario = Scenario { faults, rest_within: 30_000, ..calm };
    for (sabotage, expected) in wrongs {
        // Some need the moment: an old disk shows only if its host writes before it learns how far it had got.
        let mut others = Vec::new();
        let is_it = |found: String| {
            if found.contains(expected) {
                true
            } else {
                others.push(found);
                false
            }
        };
        let mut found = (0..100).filter_map(|seed| checks::run_with(&scenario, seed, Some(sabotage)).err());
        let is_found = found.any(is_it);
        assert!(is_found, "{sabotage:?} is not found, only {others:?}");
    }
}
