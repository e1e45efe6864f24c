//! Hosts that have free slots, but not as much of something as a task asks for.

use runmesh::kernel::io::Input;

use super::host::Command;
use super::rules::{FORMED, begin, change, quiet, runs_of};
use super::scenario::Scenario;
use super::world::World;

/// Tasks of 60 s, and hosts with so many slots.
fn long(name: &'static str, nodes: usize, tasks: usize, slots: u64) -> Scenario {
    Scenario { slots: (slots, slots), ..quiet(name, nodes, tasks, 60_000) }
}

/// A host offers these labels besides its others, and reaches the source.
fn offer(world: &mut World<'_>, host: usize, labels: &[&str]) {
    let one = &mut world.hosts[host];
    one.offer.sources = [super::work::SOURCE.to_owned()].into();
    one.offer.labels.extend(labels.iter().map(|label| (*label).to_owned()));
    let (offer, boot) = (one.offer.clone(), one.boots);
    world.give(host, boot, Input::Offer(offer));
}

fn ask(world: &mut World<'_>, job: usize, label: &str) {
    change(&mut world.jobs[job], |workload| workload.labels = [label.to_owned()].into());
}

/// Who stands first for a task has free slots but no processors left, and says so when it is asked: the next takes it.
#[test]
fn who_stands_first_and_has_no_room_keeps_a_task_from_nobody() {
    let scenario = long("who_stands_first_and_has_no_room_keeps_a_task_from_nobody", 4, 4, 4);
    for seed in 0..6 {
        let mut world = begin(&scenario, seed);
        (0..4).for_each(|host| offer(&mut world, host, &["cpus-2"]));
        (0..4).for_each(|job| ask(&mut world, job, "cpus-2"));
        for job in 0..4 {
            world.run_until(FORMED + 1_000 + 2_000 * job as u64);
            world.command_at(job, Command::Submit(job));
        }
        world.run_until(FORMED + 9_000);
        assert_eq!(world.violations, Vec::<String>::new());
        let mut hosts: Vec<usize> = (0..4).filter_map(|job| Some(runs_of(&world, job).first()?.host)).collect();
        hosts.sort_unstable();
        assert_eq!(hosts, [0, 1, 2, 3], "seed {seed}: each host has room for one of them");
    }
}

/// More waits for a host's one GPU than it looks at, and none of it keeps its other slots from other work.
#[test]
fn what_waits_for_room_keeps_no_slot_from_other_work() {
    const TASKS: usize = 82;
    let scenario = long("what_waits_for_room_keeps_no_slot_from_other_work", 2, TASKS, 3);
    let mut world = begin(&scenario, 0);
    offer(&mut world, 0, &["gpus-1", "here"]);
    (0..TASKS - 1).for_each(|job| ask(&mut world, job, "gpus-1"));
    ask(&mut world, TASKS - 1, "here");
    world.run_until(FORMED + 1_000);
    (0..TASKS - 1).for_each(|job| world.command_at(1, Command::Submit(job)));
    world.run_until(FORMED + 4_000);
    assert_eq!(world.runs.len(), 1, "one has the GPU");
    world.command_at(1, Command::Submit(TASKS - 1));
    world.run_until(FORMED + 6_000);
    assert_eq!(world.violations, Vec::<String>::new());
    assert_eq!(runs_of(&world, TASKS - 1).len(), 1, "it waits behind those that there is no room for");
    // And when there is room again, the next of the others takes it.
    world.run_until(FORMED + 65_000);
    assert_eq!(world.runs.len(), 3, "{:?}", world.runs);
}
