//! Bounded history: months of steady load in virtual time, members that stay away, liars, restarts, newcomers.

mod history {
    pub(crate) mod fold;
    pub(crate) mod kept;
    pub(crate) mod members;
    pub(crate) mod mesh;
    pub(crate) mod retired;
}

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use runmesh::kernel::entry::{Acknowledge, Body, Checkpoint, Declare, Entry, Event, FORMAT, Hlc};
use runmesh::kernel::id::{Author, Digest};
use runmesh::kernel::io::Input;
use runmesh::kernel::node::{Entrance, Node};
use runmesh::kernel::rules::RULES;
use runmesh::kernel::snapshot::{Sealed, Snapshot};
use runmesh::kernel::task::Workload;
use runmesh::store::{DataDir, Owner, Store};

use history::mesh::{self, DAY, HOUR, Kept, Lie, Mesh, firmware};
use history::retired::cancel;

/// What a node holds at the end of a day.
#[derive(Debug, Clone, Copy)]
struct Size {
    entries: usize,
    facts: usize,
    tasks: usize,
    bytes: usize,
}

fn size(mesh: &Mesh, number: usize) -> Size {
    let (status, disk) = (mesh.node(number).status(), &mesh.hosts[number].disk);
    let bytes: usize = disk.entries.iter().map(|entry| entry.bytes().len()).sum();
    assert_eq!(status.entries, disk.entries.len() + usize::from(status.cut.is_some()), "memory and disk");
    Size {
        entries: status.entries,
        facts: status.facts,
        tasks: status.tasks.values().sum(),
        bytes: bytes + disk.snapshot.as_ref().map_or(0, |snapshot| snapshot.len()),
    }
}

fn introductions(mesh: &Mesh, workload: &Workload) -> usize {
    let introduces = |event: &&Event| matches!(event, Event::Introduce(one) if one.workload.id() == workload.id());
    mesh.written.values().flat_map(|entry| &entry.body().events).filter(introduces).count()
}

#[test]
fn a_steady_load_takes_steady_room() {
    let mut mesh = Mesh::of(4);
    let mut sizes = Vec::new();
    mesh.days(45, 24, |mesh| sizes.push(size(mesh, 2)));
    mesh.run(HOUR);
    mesh.agrees();
    let most = |days: &[Size], of: fn(&Size) -> usize| days.iter().map(of).max().expect("days");
    let measures: [fn(&Size) -> usize; 4] = [|s| s.entries, |s| s.facts, |s| s.tasks, |s| s.bytes];
    for of in measures {
        // The same number of tasks a day; a few entries more or less by who was admitted or raced when.
        assert!(most(&sizes[34..], of) * 100 <= most(&sizes[9..20], of) * 105, "{sizes:#?}");
    }
    assert!(sizes[44].tasks < 10 * 24, "tasks are forgotten: {sizes:#?}");
    assert!(mesh.is_done(0));
    assert_eq!(introductions(&mesh, &firmware(7)), 1, "a revision is submitted once, though it was found every day");
    for number in 0..4 {
        assert_eq!(mesh.warnings(number), Vec::<&String>::new());
    }
}

/// How many entries a node holds at most, at so many tasks a day, once the retention time is over: a task takes an
/// introduction, a claim and a result; a checkpoint takes an entry of each member.
const fn steady(tasks_a_day: usize) -> usize {
    9 * (3 * tasks_a_day + 8)
}

#[test]
fn while_a_member_is_cut_off_nothing_is_dropped_and_when_it_is_back_all_agree() {
    let mut mesh = Mesh::of(4);
    mesh.days(10, 12, |_| {});
    mesh.cut_off(3);
    // It works on, alone, for three weeks: its entries and those of the others know nothing of each other.
    mesh.days(21, 12, |_| {});
    let apart = mesh.node(0).status();
    assert!(apart.entries > 2 * steady(12), "{apart:?}");
    mesh.connect(3);
    mesh.run(DAY);
    mesh.agrees();
    assert!(mesh.is_done(3));
    // Six tasks of every day's twelve or so were submitted at each side; none is lost.
    let completed = mesh.node(3).status().tasks["completed"];
    assert!(completed >= 21 * 12, "{completed}");
    mesh.days(10, 12, |_| {});
    mesh.run(HOUR);
    mesh.agrees();
    assert!(mesh.node(3).status().entries < steady(12), "{:?}", mesh.node(3).status());
}

#[test]
fn a_node_that_is_down_for_weeks_holds_up_dropping_and_catches_up() {
    let mut mesh = Mesh::of(3);
    mesh.days(10, 12, |_| {});
    mesh.stop(2);
    mesh.days(20, 12, |_| {});
    assert!(mesh.node(0).status().entries > 2 * steady(12), "{:?}", mesh.node(0).status());
    mesh.start(2);
    mesh.run(DAY);
    mesh.agrees();
    mesh.days(3, 12, |_| {});
    mesh.run(HOUR);
    mesh.agrees();
    assert!(mesh.node(2).status().entries < steady(12), "{:?}", mesh.node(2).status());
    assert_eq!(mesh.warnings(2), Vec::<&String>::new(), "it goes on under its incarnation");
}

#[test]
fn a_restart_after_a_drop_goes_on_from_the_snapshot() {
    let mut mesh = Mesh::of(3);
    mesh.days(12, 12, |_| {});
    for number in 0..3 {
        let (hash, heads) = (mesh.node(number).state_hash(), mesh.node(number).heads().copied().collect::<Vec<_>>());
        let author = mesh.node(number).status().author;
        mesh.stop(number);
        mesh.start(number);
        assert_eq!(mesh.node(number).state_hash(), hash);
        assert_eq!(mesh.node(number).heads().copied().collect::<Vec<_>>(), heads);
        mesh.run(HOUR);
        assert_eq!(mesh.node(number).status().author, author);
    }
    // The snapshot got to disk and the entries were not forgotten: they are next time.
    let stale: Vec<_> = mesh.written.values().cloned().collect();
    mesh.stop(1);
    let kept = mesh.hosts[1].disk.entries.len();
    mesh.hosts[1].disk.entries.splice(0..0, stale.into_iter().filter(|entry| entry.sequence() == 1));
    mesh.start(1);
    assert_eq!(mesh.hosts[1].disk.entries.len(), kept);
    mesh.days(3, 12, |_| {});
    mesh.run(HOUR);
    mesh.agrees();
    assert!(mesh.node(1).status().entries < steady(12));
}

/// An entry that a member whose node is down signs, on all that another knows.
fn forge(mesh: &Mesh, liar: usize, seen_by: usize, event: Event) -> Arc<Entry> {
    forge_at(mesh, liar, mesh.node(liar).status().author, seen_by, mesh.now_of().wall, event)
}

/// The same as an author, with a label of time.
fn forge_at(mesh: &Mesh, liar: usize, author: Author, seen_by: usize, label: u64, event: Event) -> Arc<Entry> {
    let seen = mesh.node(seen_by);
    let sequence = seen.vector()[&author] + 1;
    let parents = seen.heads().copied().collect();
    let time = Hlc { ms: label, count: 0 };
    let body = Body { format: FORMAT, mesh: mesh.id, author, sequence, parents, time, events: vec![event] };
    Arc::new(Entry::seal(body, &mesh.hosts[liar].key))
}

#[test]
fn who_lies_about_the_state_moves_nobody_and_everybody_is_told() {
    let mut mesh = Mesh::of(4);
    mesh.days(9, 12, |_| {});
    let before = mesh.node(0).status();
    // Any entry that divides the history will do, and any hash but the right one.
    let cut = *mesh.node(0).heads().next().expect("a head");
    assert_eq!(mesh.node(0).heads().count(), 1);
    let lie = Checkpoint { cut, hash: Digest::of(&[b"a lie"]), void: Vec::new() };
    let entry = forge(&mesh, 3, 0, Event::Checkpoint(lie));
    mesh.stop(3);
    let from = mesh.hosts[3].peer;
    for number in 0..3 {
        mesh.feed(number, Input::Entries { from, entries: vec![entry.clone()] });
    }
    // It says that it agrees with itself, too.
    mesh.run(2 * HOUR);
    let acknowledge = Event::Acknowledge(Acknowledge { proposal: entry.cid() });
    let acknowledged = mesh.written.values().filter(|entry| entry.body().events.contains(&acknowledge)).count();
    assert_eq!(acknowledged, 0);
    for number in 0..3 {
        let status = mesh.node(number).status();
        assert_eq!(status.cut, before.cut, "nothing was dropped");
        assert!(status.alarm.is_some_and(|alarm| alarm.contains("names another state")));
        assert_eq!(mesh.warnings(number).len(), 1);
    }
}

fn proposes(entry: &Entry) -> bool {
    entry.body().events.iter().any(|event| matches!(event, Event::Checkpoint(_)))
}

#[test]
fn who_lies_about_the_state_over_and_over_is_looked_at_once() {
    let mut mesh = Mesh::of(4);
    mesh.days(9, 12, |_| {});
    let (from, author) = (mesh.hosts[3].peer, mesh.node(3).status().author);
    mesh.stop(3);
    for n in 0..40_u8 {
        let cut = *mesh.node(0).heads().next().expect("a head");
        let lie = Checkpoint { cut, hash: Digest::of(&[b"a lie", &[n]]), void: Vec::new() };
        let entry = forge_at(&mesh, 3, author, 0, mesh.now_of().wall, Event::Checkpoint(lie));
        for number in 0..3 {
            mesh.feed(number, Input::Entries { from, entries: vec![entry.clone()] });
        }
    }
    mesh.run(2 * HOUR);
    for number in 0..3 {
        assert_eq!(mesh.warnings(number).len(), 1);
    }
}

#[test]
fn of_many_true_proposals_of_one_member_few_are_agreed_to_and_one_comes_to_stand_all_the_same() {
    let mut mesh = Mesh::of(4);
    mesh.days(9, 12, |_| {});
    // Nothing can come to stand before it is back.
    mesh.stop(3);
    let mut first = None;
    for _ in 0..5 * 3 {
        mesh.submit(0);
        first = first.or_else(|| mesh.run_to(8 * HOUR, proposes));
    }
    let first = first.expect("somebody proposes a checkpoint");
    mesh.run(HOUR);
    let event =
        first.body().events.iter().find(|event| matches!(event, Event::Checkpoint(_))).expect("it does").clone();
    let flooder = (0..3).find(|number| mesh.hosts[*number].peer != first.author().peer).expect("another");
    let up: Vec<usize> = (0..3).filter(|number| *number != flooder).collect();
    let cut = mesh.node(up[0]).status().cut;
    let (from, author) = (mesh.hosts[flooder].peer, mesh.node(flooder).status().author);
    mesh.stop(flooder);
    let mut proposals = Vec::new();
    for _ in 0..40 {
        let entry = forge_at(&mesh, flooder, author, up[0], mesh.now_of().wall, event.clone());
        proposals.push(Event::Acknowledge(Acknowledge { proposal: entry.cid() }));
        for number in &up {
            mesh.feed(*number, Input::Entries { from, entries: vec![entry.clone()] });
        }
        mesh.run(1_000);
    }
    mesh.run(DAY);
    let agrees = |entry: &&Arc<Entry>| entry.body().events.iter().any(|event| proposals.contains(event));
    let agreed = mesh.written.values().filter(agrees).count();
    assert!((1..=2 * up.len()).contains(&agreed), "{agreed}");
    mesh.start(flooder);
    mesh.start(3);
    mesh.run(DAY);
    mesh.agrees();
    assert_ne!(mesh.node(3).status().cut, cut, "one has come to stand");
}

#[test]
fn a_label_of_long_after_now_holds_up_nothing() {
    let mut mesh = Mesh::of(3);
    mesh.days(10, 12, |_| {});
    let author = mesh.node(2).status().author;
    mesh.stop(2);
    let entry = forge_at(&mesh, 2, author, 0, u64::MAX, cancel(1).remove(0));
    let from = mesh.hosts[2].peer;
    let (known, since) = (mesh.written.clone(), mesh.now_of().wall);
    for number in 0..2 {
        mesh.feed(number, Input::Entries { from, entries: vec![entry.clone()] });
    }
    mesh.days(50, 12, |_| {});
    let later = mesh.written.values().filter(|one| !known.contains_key(&one.cid()) && one.cid() != entry.cid());
    let labels: Vec<u64> = later.map(|entry| entry.body().time.ms).collect();
    assert!(!labels.is_empty() && labels.iter().all(|label| (since..=mesh.now_of().wall).contains(label)));
    assert!(mesh.node(0).status().entries < 2 * steady(12), "its author is retired: {:?}", mesh.node(0).status());
    mesh.start(2);
    mesh.run(DAY);
    mesh.agrees();
}

/// A host's version is a later one for a moment, which declares its rules, and this one again.
fn upgrade_and_set_back(mesh: &mut Mesh, number: usize) {
    let entry = forge(mesh, number, number, Event::Declare(Declare { rules: RULES + 1 }));
    mesh.stop(number);
    mesh.hosts[number].disk.entries.push(entry);
    mesh.start(number);
    mesh.run(HOUR);
}

#[test]
fn a_later_rule_stops_who_does_not_know_it_once_all_have_declared_it_and_not_before() {
    let mut mesh = Mesh::of(3);
    upgrade_and_set_back(&mut mesh, 2);
    mesh.days(9, 12, |_| {});
    mesh.run(HOUR);
    mesh.agrees();
    let status = mesh.node(1).status();
    assert_eq!((status.behind_rules, status.tasks["pending"]), (None, 0), "{status:?}");
    assert!(status.cut.is_some(), "checkpoints come to stand");
    upgrade_and_set_back(&mut mesh, 0);
    upgrade_and_set_back(&mut mesh, 1);
    let before = mesh.node(1).status().cut;
    mesh.submit(0);
    mesh.run(9 * DAY);
    for number in 0..3 {
        let status = mesh.node(number).status();
        assert_eq!((status.behind_rules, status.tasks["pending"]), (Some(RULES + 1), 1), "{status:?}");
        assert_eq!(status.cut, before, "nobody acknowledges a checkpoint");
        assert!(!mesh.warnings(number).iter().any(|text| text.contains("another state")), "nor takes it for a lie");
    }
}

#[test]
fn any_order_of_arrival_gives_the_same_state_checkpoints_included() {
    let mut mesh = Mesh::of(3);
    mesh.days(16, 6, |_| {});
    mesh.run(HOUR);
    mesh.agrees();
    let wanted = mesh.node(0);
    let all: Vec<Arc<Entry>> = mesh.written.values().cloned().collect();
    let stranger = SigningKey::from_bytes(&[77; 32]);
    for order in 0..12_u64 {
        let draw =
            |entry: &Arc<Entry>, n: u64| Digest::of(&[entry.cid().digest(), &order.to_be_bytes(), &n.to_be_bytes()]);
        let mut mixed = all.clone();
        mixed.sort_by_key(|entry| draw(entry, 0));
        if order % 2 == 0 {
            // Nearly in the order in which they were written, so that checkpoints come to stand on the way.
            mixed.sort_by_key(|entry| entry.body().time.ms / DAY + u64::from(draw(entry, 1).0[0] % 3));
        }
        let settings = mesh::settings(stranger.clone(), mesh.id, Entrance::None, order);
        let (mut node, _) = Node::new(mesh.now_of(), settings, Vec::new());
        for (at, entry) in mixed.iter().enumerate() {
            // Each bringer may leave only so much in quarantine.
            let from = mesh.hosts[at % 3].peer;
            node.handle(mesh.now_of(), Input::Entries { from, entries: vec![entry.clone()] });
        }
        assert_eq!(node.status().cut, wanted.status().cut, "order {order}: {:?}", node.status());
        assert_eq!(node.state_hash(), wanted.state_hash(), "order {order}");
        assert_eq!(node.heads().collect::<Vec<_>>(), wanted.heads().collect::<Vec<_>>());
        assert_eq!(node.vector(), wanted.vector());
    }
}

#[test]
fn a_newcomer_after_several_drops_begins_from_the_snapshot() {
    let mut mesh = Mesh::of(3);
    mesh.days(20, 12, |_| {});
    assert!(mesh.node(0).status().cut.is_some());
    let newcomer = mesh.add();
    mesh.run(HOUR);
    mesh.agrees();
    let disk = &mesh.hosts[newcomer].disk;
    assert_eq!(disk.snapshot, mesh.hosts[0].disk.snapshot);
    assert!(disk.entries.len() < steady(12), "{}", disk.entries.len());
    assert_eq!(introductions(&mesh, &firmware(7)), 1, "it submits nothing again");
    mesh.days(10, 12, |_| {});
    mesh.run(HOUR);
    mesh.agrees();
    assert!(mesh.node(newcomer).status().entries < steady(12), "it acknowledges like the others");
    // One that lost its disk is the same.
    mesh.stop(1);
    mesh.lose_disk(1);
    mesh.start(1);
    mesh.days(10, 12, |_| {});
    mesh.run(HOUR);
    mesh.agrees();
    assert!(mesh.node(1).status().entries < steady(12));
}

#[test]
fn a_member_that_is_away_for_long_is_retired_and_comes_back_as_a_new_incarnation() {
    let mut mesh = Mesh::of(4);
    mesh.days(10, 12, |_| {});
    let before = mesh.node(3).status().author;
    mesh.cut_off(3);
    // It works on alone; what it writes meanwhile will count for nothing.
    mesh.days(45, 12, |_| {});
    mesh.run(HOUR);
    for number in 0..3 {
        let status = mesh.node(number).status();
        assert!(status.entries < 2 * steady(12), "they drop again: {status:?}");
    }
    assert!(mesh.node(3).status().entries > 45 * 3 * 3, "alone it retires nobody and drops nothing");
    mesh.connect(3);
    mesh.run(DAY);
    mesh.agrees();
    assert_ne!(mesh.node(3).status().author, before, "{:?}", mesh.warnings(3));
    mesh.days(10, 12, |_| {});
    mesh.run(HOUR);
    mesh.agrees();
    assert!(mesh.is_done(3));
    assert!(mesh.node(3).status().entries < steady(12), "it acknowledges again");
    let written = mesh.written.values().filter(|entry| entry.author() == mesh.node(3).status().author).count();
    assert!(written > 10, "it takes part: {written}");
}

#[test]
fn a_retired_member_that_was_down_comes_back() {
    let mut mesh = Mesh::of(3);
    mesh.days(10, 12, |_| {});
    mesh.stop(2);
    mesh.days(50, 12, |_| {});
    assert!(mesh.node(0).status().entries < 2 * steady(12), "{:?}", mesh.node(0).status());
    mesh.start(2);
    mesh.run(DAY);
    mesh.agrees();
    mesh.days(12, 12, |_| {});
    mesh.run(HOUR);
    mesh.agrees();
    assert!(mesh.node(2).status().entries < steady(12));
    for number in 0..3 {
        mesh.stop(number);
        mesh.start(number);
        mesh.run(HOUR);
    }
    mesh.agrees();
}

#[test]
fn half_of_the_members_retire_nobody() {
    let mut mesh = Mesh::of(4);
    mesh.days(10, 12, |_| {});
    mesh.stop(2);
    mesh.stop(3);
    mesh.days(40, 12, |_| {});
    assert!(mesh.node(0).status().entries > 3 * steady(12), "{:?}", mesh.node(0).status());
    mesh.start(2);
    mesh.start(3);
    mesh.days(3, 12, |_| {});
    mesh.run(HOUR);
    mesh.agrees();
    assert!(mesh.node(3).status().entries < steady(12), "{:?}", mesh.node(3).status());
}

#[test]
fn no_single_liar_gives_a_newcomer_its_snapshot() {
    for lie in [Lie::Name, Lie::Bytes, Lie::Size, Lie::Forgery] {
        for liar in 0..3 {
            let mut mesh = Mesh::of(3);
            mesh.days(10, 8, |_| {});
            mesh.hosts[liar].lie = Some(lie);
            let newcomer = mesh.add();
            mesh.run(HOUR);
            mesh.agrees();
            assert!(mesh.hosts[newcomer].disk.snapshot.is_some(), "{lie:?} by {liar}");
            assert_eq!(mesh.hosts[newcomer].disk.snapshot, mesh.hosts[0].disk.snapshot, "{lie:?} by {liar}");
        }
    }
}

#[test]
fn where_there_are_two_one_word_is_not_enough_and_where_there_is_one_it_is() {
    let mut mesh = Mesh::of(2);
    mesh.days(10, 8, |_| {});
    mesh.hosts[1].lie = Some(Lie::Name);
    let newcomer = mesh.add();
    mesh.run(HOUR);
    assert_eq!(mesh.hosts[newcomer].disk.snapshot, None);
    assert_eq!(mesh.warnings(newcomer).len(), 1, "it says what it waits for");
    mesh.hosts[1].lie = None;
    mesh.run(HOUR);
    mesh.agrees();
    let mut mesh = Mesh::of(1);
    mesh.days(20, 20, |_| {});
    let newcomer = mesh.add();
    mesh.run(HOUR);
    mesh.agrees();
    assert_eq!(mesh.hosts[newcomer].disk.snapshot, mesh.hosts[0].disk.snapshot);
    assert!(mesh.hosts[0].disk.snapshot.is_some());
}

#[test]
fn who_alone_names_a_snapshot_is_not_believed_where_there_are_others() {
    let mut mesh = Mesh::of(3);
    mesh.days(9, 8, |_| {});
    let old = mesh.hosts[2].disk.snapshot.clone();
    assert!(old.is_some());
    mesh.days(4, 8, |_| {});
    assert_ne!(mesh.hosts[2].disk.snapshot, old);
    // Two newcomers meet nobody but each other and one that has kept an old snapshot to deceive them with.
    mesh.stop(0);
    mesh.stop(1);
    mesh.hosts[2].lie = Some(Lie::Old);
    mesh.hosts[2].old = old;
    let newcomers = [mesh.add(), mesh.add()];
    mesh.run(HOUR);
    for newcomer in newcomers {
        assert!(mesh.hosts[newcomer].disk.snapshot.is_none());
    }
    mesh.start(0);
    mesh.start(1);
    mesh.run(HOUR);
    for newcomer in newcomers {
        assert!(mesh.hosts[newcomer].disk.snapshot == mesh.hosts[0].disk.snapshot);
    }
}

#[test]
fn two_that_say_that_something_is_missing_do_not_take_from_a_node_what_it_has() {
    let mut mesh = Mesh::of(6);
    mesh.days(9, 8, |_| {});
    let bytes = mesh.hosts[0].disk.snapshot.clone().expect("a checkpoint stands");
    let sealed = Sealed::open(bytes, &mesh.id).expect("it was kept");
    let height = sealed.snapshot.height + 10_000;
    let forged = Snapshot { height, submitted: Vec::new(), ..sealed.snapshot.as_ref().clone() }.seal();
    for liar in [4, 5] {
        mesh.hosts[liar].lie = Some(Lie::Always);
        mesh.hosts[liar].old = Some(forged.bytes.clone());
    }
    mesh.run(3 * DAY);
    for number in 0..4 {
        assert!(mesh.hosts[number].disk.snapshot.as_ref() != Some(&forged.bytes), "{number} believes it");
        assert_eq!(mesh.warnings(number).len(), 1, "it says that they do not agree");
    }
    for liar in [4, 5] {
        mesh.hosts[liar].lie = None;
    }
    mesh.days(1, 8, |_| {});
    mesh.run(HOUR);
    mesh.agrees();
    assert!(mesh.is_done(0));
}

#[test]
fn a_node_that_is_killed_while_it_drops_begins_again_where_the_others_are() {
    let mut mesh = Mesh::of(3);
    mesh.days(6, 12, |_| {});
    mesh.hosts[1].dies_dropping = true;
    mesh.days(3, 12, |_| {});
    assert!(mesh.hosts[1].node.is_none(), "it was killed");
    assert_eq!(mesh.hosts[1].disk.snapshot, None);
    let kept = mesh.hosts[1].disk.entries.len();
    let author = mesh.hosts[1].disk.entries.iter().map(|entry| entry.author()).find(|by| by.peer == mesh.hosts[1].peer);
    mesh.start(1);
    mesh.run(HOUR);
    mesh.agrees();
    assert!(mesh.hosts[1].disk.entries.len() < kept);
    assert_eq!(Some(mesh.node(1).status().author), author, "it goes on under its incarnation");
    mesh.days(4, 12, |_| {});
    mesh.run(HOUR);
    mesh.agrees();
}

#[test]
fn a_real_database_stops_growing_and_gives_back_the_same_node() {
    let mut mesh = Mesh::of(3);
    let dir = tempfile::tempdir().expect("directory");
    let owner = Owner { mesh: mesh.id, peer: mesh.hosts[1].peer };
    let open = || Store::open(DataDir::create(dir.path()).expect("made").hold().expect("held"), owner).expect("opens");
    let store = open();
    store.append(&mesh.hosts[1].disk.entries).expect("kept");
    mesh.hosts[1].journal = Some(Vec::new());
    let mut sizes = Vec::new();
    for _ in 0..24 {
        mesh.days(1, 60, |_| {});
        for kept in mesh.hosts[1].journal.replace(Vec::new()).expect("asked for") {
            match kept {
                Kept::Persist(entries) => drop(store.append(&entries).expect("kept")),
                Kept::Condense { snapshot, dropped } => store.condense(&snapshot, &dropped).expect("condensed"),
            }
        }
        sizes.push(std::fs::metadata(dir.path().join("runmesh.redb")).expect("there").len());
    }
    let most = |sizes: &[u64]| sizes.iter().copied().max().expect("days");
    assert!(most(&sizes[17..]) <= most(&sizes[10..17]), "{sizes:?}");
    drop(store);
    let store = open();
    let snapshot = store.snapshot().expect("read").expect("something was dropped");
    let entries: Vec<_> =
        store.entries().expect("read").map(|bytes| Entry::open(&bytes.expect("read")).expect("an entry")).collect();
    assert_eq!(snapshot[..], mesh.hosts[1].disk.snapshot.as_ref().expect("the same")[..]);
    let kept: Vec<_> = mesh.hosts[1].disk.entries.iter().map(|entry| entry.cid()).collect();
    assert_eq!(entries.iter().map(Entry::cid).collect::<Vec<_>>(), kept);
    let settings = mesh::settings(mesh.hosts[1].key.clone(), mesh.id, Entrance::None, 1);
    let sealed = Sealed::open(snapshot.into(), &mesh.id).expect("a snapshot");
    let entries = entries.into_iter().map(Arc::new).collect();
    let (again, _) = Node::restore(mesh.now_of(), settings, Some(sealed), entries);
    assert_eq!(again.state_hash(), mesh.node(1).state_hash());
}
