//! Slots that come free while tasks wait, and tasks that come up while slots are few: nodes that learn of each other's
//! slots only when they take the same task start it twice.
//!
//! Nothing is lost on the way in these meshes, so each task is to be started once, and none may wait for long beside a slot
//! that could take it.

use runmesh::kernel::io::Input;

use super::host::Command;
use super::scenario::{Scenario, Work};
use super::world::World;
use crate::{run_all, seeds, tell};

/// A mesh whose every host can run every task, and no more tasks than are asked for.
fn plain(name: &'static str, nodes: usize, tasks: usize, slots: u64) -> Scenario {
    let calm = Scenario::calm(name, nodes, tasks);
    let work = Work { discovered: 0, labelled: 0, eligible: 0, impossible: false, ..calm.work };
    Scenario { slots: (slots, slots), work, ..calm }
}

/// Runs it by so many seeds; the starts, and those of them beside a running one.
fn starts(scenario: &Scenario, usual: u64) -> (usize, usize) {
    let outcomes = run_all(scenario, &seeds(usual));
    tell(scenario, &outcomes);
    (outcomes.iter().map(|outcome| outcome.starts).sum(), outcomes.iter().map(|outcome| outcome.doubled).sum())
}

/// More comes up than there is room for, and each slot that comes free is taken at once.
#[test]
fn slots_that_come_free_all_the_time_take_each_task_once() {
    for (nodes, slots) in [(3, 1), (7, 1), (7, 2), (12, 1)] {
        let plain = plain("slots_that_come_free_all_the_time_take_each_task_once", nodes, 240, slots);
        let scenario = Scenario { work: Work { takes: (200, 1_500), ..plain.work.clone() }, ..plain };
        let (starts, doubled) = starts(&scenario, 10);
        assert_eq!(doubled, 0, "of {starts} starts on {nodes} nodes with {slots} slots each");
    }
}

/// One look into a source finds more than fills most of the mesh: who stands first for many has no slot left for some, and
/// those go to whoever stands next.
#[test]
fn tasks_that_are_found_together_are_started_once() {
    for (nodes, slots, tasks) in [(8, 4, 24), (8, 2, 24), (4, 2, 24), (2, 4, 24)] {
        let plain = plain("tasks_that_are_found_together_are_started_once", nodes, tasks, slots);
        let work = Work { discovered: 1000, between: (8_000, 8_000), takes: (2_000, 2_000), ..plain.work.clone() };
        let scenario = Scenario { work, ..plain };
        let (starts, doubled) = starts(&scenario, 20);
        assert_eq!(doubled, 0, "of {starts} starts on {nodes} nodes with {slots} slots each");
    }
}

/// Hosts begin to offer slots within a few milliseconds of each other, as nodes do whose workers ask all at once: the tasks
/// that have waited for them are shared out, each once and all of them soon.
#[test]
fn slots_that_are_offered_at_once_take_different_tasks() {
    const BEGIN: u64 = 8_000;
    const SOON: u64 = 1_000;
    for (nodes, slots, apart) in [(3, 2, 1), (3, 2, 30), (3, 1, 60), (6, 1, 20)] {
        let tasks = nodes * slots;
        let plain = plain("slots_that_are_offered_at_once_take_different_tasks", nodes, tasks, 0);
        let work = Work { between: (1_000_000, 1_000_000), takes: (60_000, 60_000), ..plain.work.clone() };
        let scenario = Scenario { work, ..plain };
        for seed in seeds(20) {
            let mut world = World::new(&scenario, seed);
            world.run_until(BEGIN - 2_000);
            (0..tasks).for_each(|job| world.command_at(job % nodes, Command::Submit(job)));
            world.run_until(BEGIN);
            // One slot after the other, each at its own moment.
            let mut comes: Vec<_> = (0..tasks).map(|n| (world.chance.within((0, apart)), n % nodes)).collect();
            comes.sort_unstable();
            for (at, number) in comes {
                world.run_until(BEGIN + at);
                let host = &mut world.hosts[number];
                host.offer.sources = [super::work::SOURCE.to_owned()].into();
                host.offer.slots += 1;
                let (offer, boot) = (host.offer.clone(), host.boots);
                world.give(number, boot, Input::Offer(offer));
            }
            world.run_until(BEGIN + SOON);
            assert_eq!(world.violations, Vec::<String>::new());
            let different: std::collections::BTreeSet<_> = world.runs.iter().map(|run| run.task).collect();
            let starts = world.runs.len();
            assert_eq!(
                (different.len(), starts),
                (tasks, tasks),
                "seed {seed}, {nodes} nodes, {slots} slots, {apart} ms"
            );
        }
    }
}

/// A host that answers nothing keeps no slot from its work: after a claim delay the others know of the slot anyway.
#[test]
fn a_host_that_answers_nothing_holds_up_no_slot() {
    const BEGIN: u64 = 8_000;
    const SOON: u64 = 250;
    let plain = plain("a_host_that_answers_nothing_holds_up_no_slot", 4, 2, 0);
    let work = Work { between: (1_000_000, 1_000_000), takes: (60_000, 60_000), ..plain.work.clone() };
    let scenario = Scenario { work, ..plain };
    for seed in seeds(20) {
        let mut world = World::new(&scenario, seed);
        world.run_until(BEGIN - 2_000);
        (0..2).for_each(|job| world.command_at(job, Command::Submit(job)));
        world.run_until(BEGIN);
        world.hosts[3].process.as_mut().expect("it is up").busy_until = BEGIN + 60_000;
        let host = &mut world.hosts[0];
        host.offer.slots = 2;
        let (offer, boot) = (host.offer.clone(), host.boots);
        world.give(0, boot, Input::Offer(offer));
        world.run_until(BEGIN + SOON);
        assert_eq!(world.violations, Vec::<String>::new());
        assert_eq!(world.runs.len(), 2, "seed {seed}: a slot waits for an answer");
    }
}

/// Who has said that it takes a task and goes down before it does holds it up no longer than its silence would.
#[test]
fn a_promise_that_is_not_kept_costs_a_moment() {
    const BEGIN: u64 = 8_000;
    const SOON: u64 = 1_500;
    let plain = plain("a_promise_that_is_not_kept_costs_a_moment", 3, 1, 0);
    let work = Work { between: (1_000_000, 1_000_000), takes: (60_000, 60_000), ..plain.work.clone() };
    let scenario = Scenario { work, ..plain };
    for seed in seeds(40) {
        let mut world = World::new(&scenario, seed);
        world.run_until(BEGIN - 2_000);
        world.command_at(2, Command::Submit(0));
        world.run_until(BEGIN);
        for number in [0, 1] {
            let host = &mut world.hosts[number];
            host.offer.sources = [super::work::SOURCE.to_owned()].into();
            host.offer.slots = 1;
            let (offer, boot) = (host.offer.clone(), host.boots);
            world.give(number, boot, Input::Offer(offer));
        }
        // Each has asked the other by now, and one of the two says that it takes the task.
        world.run_until(BEGIN + 1 + seed % 20);
        world.kill((seed % 2) as usize, super::host::Death::Killed);
        world.run_until(BEGIN + SOON);
        assert_eq!(world.violations, Vec::<String>::new());
        let alive = |run: &&super::world::RunRecord| run.end.is_none();
        assert_eq!(world.runs.iter().filter(alive).count(), 1, "seed {seed}: {:?}", world.runs);
    }
}
