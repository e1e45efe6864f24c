//! The kernel, simulated: whole meshes in virtual time, driven by nothing but `handle` and `next_wake`.
//!
//! A seed decides everything that happens, so a failure is found again by its seed:
//! `RUNMESH_SIM_SEED=17 cargo nextest run --test simulation NAME --no-capture`, with `RUNMESH_SIM_TRACE=1` for
//! everything that each node does. `RUNMESH_SIM_SEEDS=5000` runs more seeds than usual.

mod simulation {
    pub(crate) mod adapter;
    pub(crate) mod chance;
    pub(crate) mod checks;
    pub(crate) mod effects;
    pub(crate) mod host;
    pub(crate) mod network;
    pub(crate) mod scenario;
    pub(crate) mod work;
    pub(crate) mod world;
}

use simulation::checks::{self, Outcome};
use simulation::scenario::Scenario;

/// The seeds to run: one that is asked for, else so many.
fn seeds(usual: u64) -> Vec<u64> {
    let number =
        |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number of a seed or of seeds"));
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
    let sum = |of: fn(&Outcome) -> usize| outcomes.iter().map(of).sum::<usize>();
    eprintln!(
        "{}: {} runs, {} starts, {} again, {} doubled, {} lost, {} cancelled, formed after at most {:?} ms, rest after at most {} ms",
        scenario.name,
        outcomes.len(),
        sum(|outcome| outcome.starts),
        sum(|outcome| outcome.again),
        sum(|outcome| outcome.doubled),
        sum(|outcome| outcome.lost),
        sum(|outcome| outcome.cancelled),
        outcomes.iter().map(|outcome| outcome.formed_at).max().flatten(),
        outcomes.iter().map(|outcome| outcome.rested_after).max().unwrap_or(0),
    );
}

/// Where nothing goes wrong, each task is started exactly once.
fn check_once(scenario: &Scenario, seeds: &[u64], outcomes: &[Outcome]) {
    let more = |(_, outcome): &(&u64, &Outcome)| outcome.starts != scenario.work.tasks;
    let more: Vec<_> = seeds.iter().zip(outcomes).filter(more).collect();
    assert!(more.is_empty(), "{}: with these seeds tasks are started more than once: {more:?}", scenario.name);
}

#[test]
fn calm_small() {
    let scenario = Scenario::calm("calm_small", 7, 40);
    let outcomes = run_all(&scenario, &seeds(20));
    tell(&scenario, &outcomes);
    check_once(&scenario, &seeds(20), &outcomes);
}

#[test]
fn rough_small() {
    let scenario = Scenario::rough("rough_small", 7, 40);
    let outcomes = run_all(&scenario, &seeds(200));
    tell(&scenario, &outcomes);
}

#[test]
fn hopeless_small() {
    let scenario = Scenario::hopeless("hopeless_small", 7, 40);
    let outcomes = run_all(&scenario, &seeds(50));
    tell(&scenario, &outcomes);
}

#[test]
fn rough_large() {
    let scenario = Scenario::rough("rough_large", 50, 500);
    let outcomes = run_all(&scenario, &seeds(1));
    tell(&scenario, &outcomes);
}

#[test]
fn calm_large() {
    let scenario = Scenario::calm("calm_large", 50, 500);
    let outcomes = run_all(&scenario, &seeds(1));
    tell(&scenario, &outcomes);
}

#[test]
fn zz_table() {
    use simulation::scenario::*;
    let calm = || Scenario { slots: (2, 6), ..Scenario::calm("calm", 7, 40) };
    let rough = Scenario::rough("rough", 7, 40);
    let f = |fun: fn(&mut Faults)| {
        let c = calm();
        let mut faults = Faults {
            between: (20_000, 60_000),
            apart: (1000, 25000),
            down: (500, 20000),
            stalled: (500, 5000),
            ..c.faults
        };
        fun(&mut faults);
        faults
    };
    let all = [
        ("calm", calm()),
        ("early", Scenario { work: Work { between: (1_000, 30_000), ..calm().work }, ..calm() }),
        ("scarce", Scenario { slots: (1, 3), ..calm() }),
        ("lost 5%", Scenario { network: Network { lost: 50, ..calm().network }, ..calm() }),
        ("late", Scenario { network: Network { late: 20, delay: (1, 60), ..calm().network }, ..calm() }),
        ("roughnet", Scenario { network: rough.network.clone(), ..calm() }),
        ("twice", Scenario { work: Work { twice: 1000, ..calm().work }, ..calm() }),
        ("hosts", Scenario { hosts: rough.hosts.clone(), ..calm() }),
        ("notstarted", Scenario { work: Work { not_started: 100, ..calm().work }, ..calm() }),
        ("partition", Scenario { faults: f(|f| f.partitions = 3), ..calm() }),
        ("kill", Scenario { faults: f(|f| f.kills = 5), ..calm() }),
        ("vanish", Scenario { faults: f(|f| f.vanishings = 5), ..calm() }),
        ("leave", Scenario { faults: f(|f| f.leavings = 5), ..calm() }),
        ("stall", Scenario { faults: f(|f| f.stalls = 10), ..calm() }),
        ("shortstall", Scenario { faults: Faults { stalled: (500, 1900), ..f(|f| f.stalls = 10) }, ..calm() }),
        ("jump", Scenario { faults: f(|f| f.jumps = 10), ..calm() }),
    ];
    for (name, scenario) in all {
        let scenario = Scenario { name, ..scenario };
        let outcomes = run_all(&scenario, &seeds(20));
        tell(&scenario, &outcomes);
        for (seed, o) in outcomes.iter().enumerate() {
            if o.lost + o.doubled > 0 {
                eprintln!("SEED={seed} lost {} doubled {}", o.lost, o.doubled);
            }
        }
    }
}
