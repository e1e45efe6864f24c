//! Who is a member, in meshes of virtual time: revocations, tickets used twice, admissions in different parts.

use runmesh::kernel::entry::Event;
use runmesh::kernel::io::Offer;
use runmesh::kernel::node::Standing;
use runmesh::kernel::task::State;

use super::mesh::{DAY, HOUR, MINUTE, Mesh, SOURCE};

fn is_member(mesh: &Mesh, at: usize, number: usize) -> bool {
    mesh.node(at).is_member(&mesh.hosts[number].peer)
}

/// Submits until a host of those claims a task, and stops right after it did. Returns who claimed.
fn claimed_by_one_of(mesh: &mut Mesh, wanted: &[usize]) -> usize {
    for _ in 0..50 {
        mesh.submit(0);
        let claim = mesh.run_to(HOUR, |entry| matches!(entry.body().events[0], Event::Claim(_))).expect("a claim");
        let holder = mesh.hosts.iter().position(|host| host.peer == claim.author().peer).expect("a host");
        // The others hear of it.
        mesh.run(100);
        if wanted.contains(&holder) {
            return holder;
        }
        mesh.run(HOUR);
    }
    panic!("none of {wanted:?} claimed anything");
}

#[test]
fn what_a_revoked_holder_runs_is_taken_over_at_once_and_its_result_counts_for_nothing() {
    let mut mesh = Mesh::of(4);
    let holder = claimed_by_one_of(&mut mesh, &[1, 2, 3]);
    let by = (1..4).find(|other| *other != holder).expect("another");
    // The holder is still connected with everybody, and does not obey: it is cut off from the news of it.
    let others: Vec<usize> = (0..4).filter(|other| *other != holder).collect();
    mesh.part(&[holder]);
    mesh.revoke(by, holder);
    mesh.run(10_000);
    for other in &others {
        assert!(!is_member(&mesh, *other, holder), "known at {other}");
        let node = mesh.node(*other);
        let taken = node.tasks().filter(|(_, folded)| folded.attempt == 2).count();
        assert_eq!(taken, 1, "the next attempt is taken within seconds, at {other}");
    }
    // It ends its task alone, and says so when it meets the others.
    mesh.run(10 * MINUTE);
    let vector = mesh.node(by).vector();
    mesh.heal();
    mesh.run(10 * MINUTE);
    for other in &others {
        let node = mesh.node(*other);
        let ended = node.tasks().filter(|(_, folded)| folded.attempt == 2);
        for (_, folded) in ended {
            assert!(matches!(folded.state, State::Completed { holder: by, .. } if by != mesh.hosts[holder].peer));
        }
        let of_it = |vector: &runmesh::kernel::io::Vector| {
            vector.iter().filter(|(author, _)| author.peer == mesh.hosts[holder].peer).map(|(_, n)| *n).sum::<u64>()
        };
        assert_eq!(of_it(&node.vector()), of_it(&vector), "nothing it wrote later counts");
    }
    assert_eq!(mesh.node(holder).standing(), Standing::Joining, "it takes no part");
    assert!(mesh.warnings(holder).iter().any(|text| text.contains("revoked")), "{:?}", mesh.warnings(holder));
    mesh.stop(holder);
    mesh.days(2, 12, |_| {});
    mesh.run(HOUR);
    mesh.agrees();
}

#[test]
fn who_was_away_learns_of_a_revocation_before_it_hears_the_revoked_one() {
    let mut mesh = Mesh::of(4);
    mesh.stop(3);
    mesh.revoke(0, 1);
    mesh.run(HOUR);
    mesh.start(3);
    mesh.run(2 * MINUTE);
    assert!(!is_member(&mesh, 3, 1));
    let heard: Vec<_> = mesh.node(3).presences().filter(|(_, _, heard)| *heard).map(|(one, _, _)| one.peer).collect();
    assert!(!heard.contains(&mesh.hosts[1].peer), "{heard:?}");
    mesh.stop(1);
    mesh.run(HOUR);
    mesh.agrees();
}

#[test]
fn of_two_members_one_that_is_dead_for_good_is_revoked_and_history_is_dropped_again() {
    let mut mesh = Mesh::of(2);
    mesh.days(10, 12, |_| {});
    mesh.stop(1);
    mesh.days(10, 12, |_| {});
    let held_up = mesh.node(0).status();
    mesh.revoke(0, 1);
    mesh.days(10, 12, |_| {});
    let status = mesh.node(0).status();
    assert!(status.cut.is_some() && status.cut != held_up.cut, "{status:?}");
    assert!(status.entries < held_up.entries, "{} {}", status.entries, held_up.entries);
    assert_eq!(mesh.node(0).members().count(), 1);
    // Beneath a checkpoint the revocation still holds: also after a restart, and for a newcomer.
    mesh.days(10, 12, |_| {});
    mesh.stop(0);
    mesh.start(0);
    mesh.run(HOUR);
    mesh.start(1);
    let newcomer = mesh.add();
    mesh.run(10 * MINUTE);
    for at in [0, newcomer] {
        assert!(!is_member(&mesh, at, 1), "at {at}");
    }
    assert!(is_member(&mesh, 0, newcomer));
    mesh.stop(1);
    mesh.run(HOUR);
    mesh.agrees();
}

#[test]
fn two_that_are_revoked_by_each_others_entries_are_both_out() {
    let mut mesh = Mesh::of(4);
    mesh.part(&[0, 1]);
    mesh.run(HOUR);
    // The hosts that take the revocations are those that the other revokes; 1 and 3 only hear of it.
    mesh.revoke(0, 2);
    mesh.revoke(2, 0);
    mesh.run(HOUR);
    mesh.heal();
    mesh.run(HOUR);
    for at in [1, 3] {
        assert_eq!((is_member(&mesh, at, 0), is_member(&mesh, at, 2)), (false, false), "at {at}");
    }
    mesh.stop(0);
    mesh.stop(2);
    mesh.run(HOUR);
    mesh.agrees();
}

#[test]
fn of_two_that_used_one_ticket_in_different_parts_one_is_in_everywhere() {
    let mut mesh = Mesh::of(2);
    mesh.part(&[0]);
    let ticket = mesh.ticket(7777, &[]);
    let here = mesh.add_by(ticket.clone(), &[0]);
    mesh.part(&[0, here]);
    mesh.run(HOUR);
    let there = mesh.add_by(ticket, &[1]);
    mesh.part(&[0, here]);
    mesh.run(HOUR);
    assert!(is_member(&mesh, 0, here) && is_member(&mesh, 1, there), "each part admitted its own");
    mesh.heal();
    mesh.run(HOUR);
    let (winner, loser) = if is_member(&mesh, 0, here) { (here, there) } else { (there, here) };
    for at in [0, 1, winner] {
        assert!(is_member(&mesh, at, winner) && !is_member(&mesh, at, loser), "at {at}");
    }
    assert!(mesh.warnings(loser).iter().any(|text| text.contains("ticket")), "{:?}", mesh.warnings(loser));
    mesh.stop(loser);
    mesh.run(HOUR);
    mesh.agrees();
}

#[test]
fn members_admitted_in_different_parts_prove_themselves_to_each_other_when_nobody_else_is_left() {
    let mut mesh = Mesh::of(2);
    mesh.part(&[0]);
    let here = mesh.add_by(mesh.ticket(71, &[]), &[0]);
    mesh.part(&[0, here]);
    mesh.run(HOUR);
    let there = mesh.add_by(mesh.ticket(72, &[]), &[1]);
    mesh.part(&[0, here]);
    mesh.run(HOUR);
    mesh.stop(0);
    mesh.stop(1);
    mesh.heal();
    mesh.run(HOUR);
    // Neither has the other's admission, so neither answers.
    assert!(!is_member(&mesh, here, there) && !is_member(&mesh, there, here));
    assert!(mesh.prove(here, there) && mesh.prove(there, here));
    mesh.run(DAY);
    assert!(is_member(&mesh, here, there) && is_member(&mesh, there, here));
    mesh.agrees();
}

#[test]
fn a_proof_that_does_not_lead_to_the_mesh_key_is_none() {
    let mut mesh = Mesh::of(4);
    let chain = mesh.proof_of(3);
    assert!(mesh.shows(0, 3, &chain), "its own");
    mesh.stop(3);
    let newcomer = mesh.add_by(mesh.ticket(73, &[]), &[]);
    // It is none here, whatever of others it shows.
    assert!(!mesh.shows(newcomer, 3, &chain[..0]), "nothing");
    assert!(!mesh.shows(newcomer, 2, &chain), "another's");
    assert!(mesh.shows(newcomer, 3, &chain), "a newcomer that knows nobody reads the whole way");
    assert!(!mesh.shows(newcomer, 3, &chain[..chain.len() - 1]), "cut before the founder");
    mesh.revoke(0, 3);
    mesh.run(HOUR);
    assert!(!mesh.shows(0, 3, &chain), "revoked");
}

#[test]
fn labels_beyond_those_of_a_ticket_are_offered_in_vain() {
    let mut mesh = Mesh::of(2);
    let limited = mesh.add_by(mesh.ticket(74, &["gpu"]), &[0, 1]);
    mesh.run(HOUR);
    let offer = |labels: &[&str]| Offer {
        slots: 4,
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        sources: [SOURCE.to_owned()].into(),
    };
    for host in [1, limited] {
        mesh.feed(host, runmesh::kernel::io::Input::Offer(offer(&["gpu", "secrets"])));
    }
    mesh.run(HOUR);
    let shown = |of: usize| {
        let peer = mesh.hosts[of].peer;
        let (presence, ..) = mesh.node(0).presences().find(|(one, ..)| one.peer == peer).expect("heard");
        presence.offer.labels.iter().cloned().collect::<Vec<_>>()
    };
    assert_eq!(shown(1), ["gpu", "secrets"]);
    assert_eq!(shown(limited), ["gpu"]);
    assert_eq!(mesh.node(limited).status().offer.labels.into_iter().collect::<Vec<_>>(), ["gpu"]);
}
