//! Who is retired by which entries, what of its entries counts, and what labels of time entries get.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use runmesh::kernel::clock::{Clock, Placing, Refusal, Shelf};
use runmesh::kernel::entry::{Acknowledge, Admit, Cancel, Declare, Entry, Event, Hlc, Retire, Right, Ticket};
use runmesh::kernel::id::{Author, Cid, Digest, Incarnation, MeshId, PeerId, TaskId};
use runmesh::kernel::rules::RULES;

use super::mesh::DAY;

/// A mesh of a few members, three by default, that know each other and the rules, and what they have written so far.
struct Three {
    id: MeshId,
    keys: Vec<SigningKey>,
    peers: Vec<PeerId>,
    all: Vec<Arc<Entry>>,
}

impl Three {
    fn new() -> Self {
        Self::of(3)
    }

    fn of(count: u8) -> Self {
        let mesh_key = SigningKey::from_bytes(&[99; 32]);
        let keys: Vec<SigningKey> = (1..=count).map(|n| SigningKey::from_bytes(&[n; 32])).collect();
        let peers = keys.iter().map(|key| PeerId::from_public_key(key.verifying_key().to_bytes())).collect();
        let mut three = Self { id: MeshId(mesh_key.verifying_key().to_bytes()), keys, peers, all: Vec::new() };
        let declare = Event::Declare(Declare { rules: RULES });
        let founder = Event::Admit(Admit { peer: three.peers[0], right: Right::founder(&mesh_key, &three.peers[0]) });
        three.write(0, 1, vec![founder, declare.clone()]);
        for n in 1..usize::from(count) {
            let right = Right::Ticket { ticket: Ticket::sign(&mesh_key, n as u64, u64::MAX) };
            three.write(0, 1, vec![Event::Admit(Admit { peer: three.peers[n], right })]);
            three.write(n, 1, vec![declare.clone()]);
        }
        three
    }

    fn clock_of(&self, entries: &[Arc<Entry>]) -> Clock {
        let mut clock = Clock::new(self.id);
        for entry in entries {
            assert!(matches!(clock.place(entry, true).0, Placing::Placed { .. }), "{entry:?}");
        }
        clock
    }

    /// An entry that stands on all that was written so far, and is not counted among it.
    fn sign(&self, by: usize, incarnation: u64, events: Vec<Event>) -> Arc<Entry> {
        self.sign_on(&self.all, by, incarnation, events)
    }

    /// The same on some of it.
    fn sign_on(&self, known: &[Arc<Entry>], by: usize, incarnation: u64, events: Vec<Event>) -> Arc<Entry> {
        let author = Author { peer: self.peers[by], incarnation: Incarnation(incarnation) };
        let body = self.clock_of(known).next_body(author, 1, events, |_| false);
        Arc::new(Entry::seal(body, &self.keys[by]))
    }

    fn write(&mut self, by: usize, incarnation: u64, events: Vec<Event>) -> Arc<Entry> {
        let entry = self.sign(by, incarnation, events);
        self.all.push(entry.clone());
        entry
    }

    /// The first proposes that the third is waited for no longer; the second agrees.
    fn retire_the_third(&mut self) -> [Arc<Entry>; 2] {
        let retire = self.write(0, 1, vec![Event::Retire(Retire { peer: self.peers[2] })]);
        assert!(!self.clock_of(&self.all).is_retired(&self.peers[2]), "one of three is not more than half");
        let agreed = self.write(1, 1, vec![Event::Acknowledge(Acknowledge { proposal: retire.cid() })]);
        assert!(self.clock_of(&self.all).is_retired(&self.peers[2]));
        [retire, agreed]
    }
}

pub(crate) fn cancel(n: u8) -> Vec<Event> {
    vec![Event::Cancel(Cancel { task: TaskId([n; 32]), why: String::new() })]
}

#[test]
fn what_a_retired_member_writes_unaware_counts_for_nothing_in_whatever_order() {
    let mut three = Three::new();
    let known = three.all.clone();
    // The third writes on while the others retire it, under its old name and under a new one.
    let (late, unaware) = (three.sign(2, 1, cancel(1)), three.sign(2, 2, cancel(2)));
    let [retire, agreed] = three.retire_the_third();
    let aware = three.sign(2, 3, cancel(3));
    let rest = [retire, agreed, aware.clone(), late.clone(), unaware.clone()];
    // Every order that puts no entry before its parents: the last two go anywhere.
    for at in 0..=3 {
        for other in 0..=4 {
            let mut order: Vec<Arc<Entry>> = rest[..3].to_vec();
            order.insert(at, late.clone());
            order.insert(other, unaware.clone());
            let clock = three.clock_of(&[&known[..], &order].concat());
            let counts: Vec<bool> = rest.iter().map(|entry| clock.counts(&entry.cid())).collect();
            assert_eq!(counts, [true, true, true, false, false], "late at {at}, unaware at {other}");
            assert!(!clock.is_retired(&three.peers[2]), "it has come back");
            assert_eq!(clock.heads().iter().collect::<Vec<_>>(), [&aware.cid()]);
            assert!(clock.is_cut(&late.author()) && clock.is_cut(&unaware.author()) && !clock.is_cut(&aware.author()));
        }
    }
}

/// A retirement beneath a checkpoint holds by what the checkpoint says of it, that nobody waits for the peer; which of its
/// entries count beneath is settled. What it writes above counts, by whichever way one came to stand on the checkpoint:
/// from the snapshot alone, or by dropping what lies beneath, before that entry came or after.
#[test]
fn what_a_retired_member_writes_above_a_checkpoint_counts_by_whichever_way_one_came_there() {
    let mut three = Three::new();
    three.write(2, 1, cancel(1));
    three.retire_the_third();
    let cut = three.write(0, 1, cancel(2)).cid();
    let old = three.sign(2, 1, cancel(3));
    let dropping = || {
        let clock = three.clock_of(&three.all);
        let division = clock.divide(&cut).expect("here");
        let (snapshot, _) = clock.condense(&cut, &division, &clock.void_here()).expect("it counts");
        (clock, division, snapshot.seal())
    };
    let (mut before, division, sealed) = dropping();
    assert_eq!(before.place(&old, false).0, Placing::Refused(Refusal::Void), "its old chain ends with its retirement");
    assert_eq!(before.place(&old, true).0, Placing::Placed { counts: false }, "as what an entry stands on it is kept");
    before.drop_beneath(&sealed.snapshot, sealed.hash, &division);
    let (mut after, ..) = dropping();
    after.drop_beneath(&sealed.snapshot, sealed.hash, &division);
    let snapshot_alone = Clock::above(&sealed.snapshot, sealed.hash, Shelf::default());
    assert!(after.is_retired(&three.peers[2]) && snapshot_alone.is_retired(&three.peers[2]));
    let mut clocks = [before, after, snapshot_alone];
    for clock in &mut clocks[1..] {
        assert_eq!(clock.place(&old, false).0, Placing::Placed { counts: true });
    }
    for clock in &clocks {
        assert!(clock.counts(&old.cid()) && !clock.is_cut(&old.author()) && !clock.is_retired(&three.peers[2]));
        assert_eq!(clock.heads().iter().collect::<Vec<_>>(), [&old.cid()]);
        assert_eq!(clock.vector(), clocks[0].vector());
    }
}

#[test]
fn only_an_agreement_that_may_decide_a_retirement_makes_everything_count_again() {
    let mut three = Three::new();
    let retire = three.write(0, 1, vec![Event::Retire(Retire { peer: three.peers[2] })]).cid();
    let mut clock = three.clock_of(&three.all);
    let mut recounts = |by: usize| {
        let agreed = three.write(by, 1, vec![Event::Acknowledge(Acknowledge { proposal: retire })]);
        clock.place(&agreed, false).1.recounted
    };
    assert_eq!([recounts(0), recounts(0)], [false, false], "its author has agreed by the proposal itself");
    assert!(recounts(1), "it holds");
    assert_eq!([recounts(1), recounts(0)], [false, false], "it holds already");
    assert!(clock.is_retired(&three.peers[2]));
}

#[test]
fn which_retirements_hold_does_not_depend_on_the_order_in_which_agreements_come() {
    const COUNT: usize = 5;
    let mut held = 0;
    for case in 0..20_u64 {
        let draw = |what: &[u8], n: usize| u64::from(Digest::of(&[what, &case.to_be_bytes(), &n.to_be_bytes()]).0[0]);
        let mut mesh = Three::of(COUNT as u8);
        let first = mesh.all.clone();
        let (mut known, mut incarnations) = (vec![first.clone(); COUNT], [1; COUNT]);
        let mut proposals = Vec::new();
        for n in 0..24 {
            let by = draw(b"by", n) as usize % COUNT;
            if draw(b"learn", n) % 3 > 0 {
                known[by].clone_from(&mesh.all);
            }
            let event = if proposals.is_empty() || draw(b"what", n).is_multiple_of(4) {
                // Mostly one of two.
                Event::Retire(Retire { peer: mesh.peers[3 + draw(b"peer", n) as usize % 2] })
            } else {
                let proposal = proposals[draw(b"which", n) as usize % proposals.len()];
                Event::Acknowledge(Acknowledge { proposal })
            };
            let author = Author { peer: mesh.peers[by], incarnation: Incarnation(incarnations[by]) };
            incarnations[by] += u64::from(mesh.clock_of(&known[by]).is_cut(&author));
            let entry = mesh.sign_on(&known[by], by, incarnations[by], vec![event]);
            if matches!(entry.body().events[0], Event::Retire(_)) {
                proposals.push(entry.cid());
            }
            known[by].push(entry.clone());
            mesh.all.push(entry);
        }
        let all = mesh.clock_of(&mesh.all);
        held += mesh.peers.iter().filter(|peer| all.is_retired(peer)).count();
        for order in 0..3 {
            let (mut waiting, mut mixed) = (mesh.all[first.len()..].to_vec(), first.clone());
            while !waiting.is_empty() {
                let here = |cid: &Cid| mixed.iter().any(|entry: &Arc<Entry>| entry.cid() == *cid);
                let ready: Vec<usize> =
                    (0..waiting.len()).filter(|at| waiting[*at].body().parents.iter().all(here)).collect();
                mixed.push(waiting.remove(ready[draw(b"order", 1000 * order + mixed.len()) as usize % ready.len()]));
            }
            let other = mesh.clock_of(&mixed);
            for peer in &mesh.peers {
                assert_eq!(all.is_retired(peer), other.is_retired(peer), "case {case}, order {order}");
            }
            assert_eq!((all.vector(), all.heads()), (other.vector(), other.heads()), "case {case}, order {order}");
        }
    }
    assert!(held > 3, "{held}");
}

#[test]
fn a_label_is_later_than_all_that_are_known_but_for_those_of_a_clock_that_is_far_ahead() {
    const AHEAD: u64 = DAY / 2;
    let mut three = Three::new();
    let next = |three: &Three| {
        let author = Author { peer: three.peers[0], incarnation: Incarnation(1) };
        three.clock_of(&three.all).next_body(author, 1_000, cancel(1), |_| false).time
    };
    let write_at = |three: &mut Three, ms: u64| {
        let mut body = three.sign(1, 1, cancel(1)).body().clone();
        body.time = Hlc { ms, count: 3 };
        three.all.push(Arc::new(Entry::seal(body, &three.keys[1])));
    };
    write_at(&mut three, 1_000 + AHEAD);
    assert_eq!(next(&three), Hlc { ms: 1_000 + AHEAD, count: 4 });
    for far in [1_000 + 2 * DAY, u64::MAX] {
        write_at(&mut three, far);
        assert_eq!(next(&three), Hlc { ms: 1_000, count: 0 });
    }
}
