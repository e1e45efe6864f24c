//! What a checkpoint is relied on for: that what was submitted is remembered, and that what is written by those who have
//! acknowledged it stands above it.

use std::sync::Arc;

use runmesh::kernel::entry::{Entry, Event};
use runmesh::kernel::io::Input;
use runmesh::kernel::snapshot::Sealed;
use runmesh::kernel::task::{Trigger, Workload};

use super::mesh::{DAY, HOUR, Mesh, firmware};
use crate::introductions;

#[test]
fn what_was_submitted_is_remembered_for_good_by_whoever_is_on_duty() {
    let of = |path: &str, trigger| Workload { path: path.to_owned(), trigger, ..firmware(0) };
    let push = |branch: &str, commit: &str| {
        of("push.yml", Trigger::Push { r#ref: format!("refs/heads/{branch}"), commit: commit.repeat(40) })
    };
    let tick = |minute| of("tick.yml", Trigger::Schedule { cron: "0 3 * * *".to_owned(), minute });
    let mut mesh = Mesh::of(4);
    mesh.found = vec![firmware(7), push("main", "a"), push("side", "b"), tick(1_000)];
    let once = |mesh: &Mesh, workloads: &[Workload]| {
        for workload in workloads {
            assert_eq!(introductions(mesh, workload), 1, "{:?}", workload.trigger);
        }
    };
    // So long that nothing is left of them but what is remembered for good, not even their ids.
    mesh.days(24, 30, |_| {});
    let first = mesh.found.clone();
    once(&mesh, &first);
    let snapshot = mesh.hosts[0].disk.snapshot.clone().expect("a checkpoint stands");
    let snapshot = Sealed::open(snapshot, &mesh.id).expect("it was kept").snapshot;
    for task in first.iter().map(Workload::id) {
        let is_closed = snapshot.closed.iter().any(|(closed, _)| *closed == task);
        assert!(!is_closed && mesh.node(0).tasks().all(|(known, _)| *known != task), "it is still known");
    }
    // Each is on duty alone for a while, one of them a newcomer.
    let newcomer = mesh.add();
    mesh.run(DAY);
    for alone in [0, 1, 2, 3, newcomer] {
        for other in (0..5).filter(|other| *other != alone) {
            mesh.stop(other);
        }
        mesh.run(3 * DAY);
        for other in (0..5).filter(|other| *other != alone) {
            mesh.start(other);
        }
        mesh.run(HOUR);
    }
    once(&mesh, &first);
    // What is new is submitted, and a tick of before the last is not.
    let next = [push("main", "c"), tick(2_000)];
    mesh.found = [next.as_slice(), &[tick(500), push("side", "b")]].concat();
    mesh.run(3 * DAY);
    once(&mesh, &next);
    once(&mesh, &[push("side", "b")]);
    assert_eq!(introductions(&mesh, &tick(500)), 0);
}

#[test]
fn who_has_acknowledged_a_checkpoint_builds_on_nothing_that_stands_beside_it() {
    const LOSER: usize = 1;
    let mut mesh = Mesh::of(3);
    mesh.run(HOUR);
    // A host writes more than the others will in a week, and nobody hears of it: it loses its disk, and goes on as
    // another incarnation.
    mesh.cut_off(LOSER);
    let lost = mesh.node(LOSER).status().author;
    let known = mesh.node(0).vector()[&lost];
    for _ in 0..100 {
        mesh.submit(LOSER);
    }
    for _ in 0..20 {
        mesh.submit(0);
    }
    mesh.run(HOUR);
    let beside = mesh.written.values().filter(|entry| entry.author() == lost && entry.sequence() > known);
    let mut beside: Vec<Arc<Entry>> = beside.cloned().collect();
    beside.sort_by_key(|entry| entry.sequence());
    let last = beside.last().expect("it has written").cid();
    mesh.stop(LOSER);
    mesh.lose_disk(LOSER);
    mesh.run(DAY / 2);
    mesh.start(LOSER);
    mesh.run(HOUR);
    assert_ne!(mesh.node(LOSER).status().author, lost);
    // Somebody proposes a checkpoint, and so has acknowledged it. Only then the old copy of the disk turns up.
    let mut proposed = None;
    for _ in 0..20 * 3 {
        mesh.submit(0);
        let is_proposal = |entry: &Entry| entry.body().events.iter().any(|event| matches!(event, Event::Checkpoint(_)));
        proposed = mesh.run_to(8 * HOUR, is_proposal);
        if proposed.is_some() {
            break;
        }
    }
    let proposed = proposed.expect("a checkpoint is proposed");
    let proposer = mesh.hosts.iter().position(|host| host.peer == proposed.author().peer).expect("a host");
    assert_ne!(proposer, LOSER, "who has acknowledged it need not be waited for");
    let from = mesh.hosts[LOSER].peer;
    mesh.feed(proposer, Input::Entries { from, entries: beside });
    assert!(mesh.node(proposer).heads().any(|head| *head == last), "it is known there");
    // What is submitted there now would go with it once all the others have acknowledged.
    mesh.submit(proposer);
    mesh.run(2 * HOUR);
    mesh.agrees();
    assert!(mesh.node(0).status().cut.is_some(), "the checkpoint has come to stand");
    assert!(mesh.node(0).heads().all(|head| *head != last), "what stood beside it is gone");
    let request = mesh.submitted.to_string();
    let task = Workload { trigger: Trigger::Manual { request }, ..firmware(0) }.id();
    for number in 0..3 {
        assert!(mesh.node(number).tasks().any(|(known, _)| *known == task), "a task is lost at {number}");
        assert!(mesh.is_done(number));
    }
}
