//! `sim_converges`: whole large meshes in virtual time, in which everything goes wrong, by several seeds.
//!
//! `RUNMESH_SIM_NODES`, `RUNMESH_SIM_TASKS` and `RUNMESH_BENCH_SEEDS` ask for other sizes and more seeds.

use std::time::{Duration, Instant};

use super::Outcome;
use super::report::{Goal, Row};
use super::simulation::checks::{self, Converged};
use super::simulation::scenario::Scenario;
use super::simulation::world::World;

/// How often it is told how far a run is.
const TOLD: Duration = Duration::from_secs(20);

fn number(name: &str, usual: usize) -> Outcome<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|_| format!("{name}={text} is not a number").into()),
        Err(_) => Ok(usual),
    }
}

pub(crate) fn converges() -> Outcome<Vec<Row>> {
    let nodes = number("RUNMESH_SIM_NODES", 1_000)?;
    let (tasks, seeds) = (number("RUNMESH_SIM_TASKS", 10 * nodes)?, number("RUNMESH_BENCH_SEEDS", 1)?.max(1));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let scenario = Scenario { threads, ..Scenario::at_large("sim_converges", nodes, tasks) };
    let mut converged = 0;
    for seed in 0..seeds as u64 {
        let begun = Instant::now();
        let mut told = begun;
        let mut watch = |world: &World<'_>| {
            if told.elapsed() >= TOLD {
                told = Instant::now();
                eprintln!("{}", progress(world, begun));
            }
        };
        match checks::run_watched(&scenario, seed, None, &mut watch) {
            Ok((outcome, _)) => {
                converged += 1;
                let Converged { half, most, all } = outcome.converged;
                let hops = |ms: u64| ms as f64 / scenario.network.hop();
                eprintln!(
                    "seed {seed}: {nodes} nodes, {tasks} tasks, {} entries, {} starts, {} doubled, {} inputs, {} deaths, \
                     {} partitions; all hosts were up {} ms after the last fault; from then on half of them had all \
                     entries within {:.0} hops, 99 of 100 within {:.0}, all within {:.0} ({all} ms), and the mesh was at \
                     rest {} ms after the last fault; {} s, {}",
                    outcome.entries,
                    outcome.starts,
                    outcome.doubled,
                    outcome.counts.inputs,
                    outcome.counts.deaths,
                    scenario.faults.partitions,
                    outcome.whole_after,
                    hops(half),
                    hops(most),
                    hops(all),
                    outcome.rested_after,
                    begun.elapsed().as_secs(),
                    memory()
                );
            }
            Err(why) => eprintln!("seed {seed} does not converge ({} s): {why:.2000}", begun.elapsed().as_secs()),
        }
    }
    Ok(vec![Row::alone("sim_converges", "of all seeds", Goal::AtLeast(1.0), f64::from(converged) / seeds as f64)])
}

/// How far a run is, for whoever waits for it.
fn progress(world: &World<'_>, begun: Instant) -> String {
    let processes = || world.hosts.iter().filter_map(|host| host.process.as_ref());
    format!(
        "{:>5} s: {:.1} s of virtual time, trouble until {:.1} s; {} up, {} entries written, {} starts, {} inputs, {} \
         gossiped, {} asked; the busiest has {} inputs waiting; {}",
        begun.elapsed().as_secs(),
        world.now as f64 / 1000.0,
        world.last_trouble as f64 / 1000.0,
        processes().count(),
        world.written.len(),
        world.runs.len(),
        world.counts.inputs,
        world.counts.gossiped,
        world.counts.requests,
        processes().map(|process| process.inbox.len()).max().unwrap_or(0),
        memory()
    )
}

/// The most memory that this process has taken so far.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown");
    format!("{} of memory at most", peak.trim())
}
