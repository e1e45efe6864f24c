//! `sim_converges`: whole large meshes in virtual time, in which everything goes wrong, by several seeds.
//!
//! `RUNMESH_SIM_NODES`, `RUNMESH_SIM_TASKS` and `RUNMESH_BENCH_SEEDS` ask for other sizes and more seeds.

use std::time::Instant;

use super::Outcome;
use super::report::{Goal, Row};
use super::simulation::checks;
use super::simulation::scenario::Scenario;

fn number(name: &str, usual: usize) -> Outcome<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|_| format!("{name}={text} is not a number").into()),
        Err(_) => Ok(usual),
    }
}

pub(crate) fn converges() -> Outcome<Vec<Row>> {
    let nodes = number("RUNMESH_SIM_NODES", 1_000)?;
    let (tasks, seeds) = (number("RUNMESH_SIM_TASKS", 10 * nodes)?, number("RUNMESH_BENCH_SEEDS", 1)?.max(1));
    let scenario = Scenario::at_large("sim_converges", nodes, tasks);
    let mut converged = 0;
    for seed in 0..seeds as u64 {
        let begun = Instant::now();
        match checks::run(&scenario, seed) {
            Ok((outcome, _)) => {
                converged += 1;
                eprintln!(
                    "seed {seed}: {nodes} nodes, {tasks} tasks, {} entries, {} inputs; after the last fault all had all \
                     entries within {} ms ({:.0} hops), and the mesh was at rest within {} ms; {} s",
                    outcome.entries,
                    outcome.counts.inputs,
                    outcome.converged_after,
                    outcome.converged_after as f64 / scenario.network.hop(),
                    outcome.rested_after,
                    begun.elapsed().as_secs()
                );
            }
            Err(why) => eprintln!("seed {seed} does not converge ({} s): {why:.2000}", begun.elapsed().as_secs()),
        }
    }
    Ok(vec![Row::alone("sim_converges", "of all seeds", Goal::AtLeast(1.0), f64::from(converged) / seeds as f64)])
}
