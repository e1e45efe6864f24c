//! The rules of folding, one by one: what a set of entries says of a task (DESIGN.md section 4), whatever the order in
//! which the entries came.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use runmesh::kernel::clock::{Clock, Placing, Refusal};
use runmesh::kernel::election::{Place, Seed};
use runmesh::kernel::entry::{
    Admit, Body, Cancel, Claim, Declare, Decline, Entry, Event, FORMAT, Finish, Hlc, Introduce, Leave, Lose, Pause,
    Release, Resume, Right, Ticket, Withdraw,
};
use runmesh::kernel::id::{Author, Cid, Incarnation, MeshId, PeerId, TaskId};
use runmesh::kernel::ledger::{Folded, Ledger, Paused};
use runmesh::kernel::rules::{GROUPS, RULES};
use runmesh::kernel::task::{
    Conclusion, Fence, Priority, Products, ReleaseReason, Repository, RunEvent, State, Tag, Trigger, Workload,
};

/// Writes entries with chosen parents, as honest and as dishonest authors would.
struct World {
    mesh_key: SigningKey,
    entries: Vec<Arc<Entry>>,
    sequences: BTreeMap<u8, u64>,
}

const FOUNDER: u8 = 1;

impl World {
    /// A mesh of the founder and three more members; the last entry is the base that all tests build on.
    fn new() -> (Self, Cid) {
        let mut world =
            Self { mesh_key: SigningKey::from_bytes(&[99; 32]), entries: Vec::new(), sequences: BTreeMap::new() };
        let right = Right::founder(&world.mesh_key, &peer(FOUNDER));
        let mut base = world.write(FOUNDER, &[], Event::Admit(Admit { peer: peer(FOUNDER), right }));
        for n in 2..=4 {
            let ticket = Ticket::sign(&world.mesh_key, n.into(), 0);
            base =
                world.write(FOUNDER, &[base], Event::Admit(Admit { peer: peer(n), right: Right::Ticket { ticket } }));
        }
        (world, base)
    }

    /// The same, and all members have declared the rules of this version.
    fn declared() -> (Self, Cid) {
        let (mut world, mut base) = Self::new();
        for n in 1..=4 {
            base = world.declare(n, &[base], RULES);
        }
        (world, base)
    }

    fn declare(&mut self, author: u8, parents: &[Cid], rules: u32) -> Cid {
        self.write(author, parents, Event::Declare(Declare { rules }))
    }

    fn write(&mut self, author: u8, parents: &[Cid], event: Event) -> Cid {
        let sequence = self.sequences.get(&author).copied().unwrap_or(0) + 1;
        self.sequences.insert(author, sequence);
        self.write_at(author, sequence, parents, event)
    }

    fn write_all(&mut self, author: u8, parents: &[Cid], events: Vec<Event>) -> Cid {
        let sequence = self.sequences.get(&author).copied().unwrap_or(0) + 1;
        self.sequences.insert(author, sequence);
        self.write_events(author, sequence, parents, events)
    }

    fn write_at(&mut self, author: u8, sequence: u64, parents: &[Cid], event: Event) -> Cid {
        self.write_events(author, sequence, parents, vec![event])
    }

    fn write_events(&mut self, author: u8, sequence: u64, parents: &[Cid], events: Vec<Event>) -> Cid {
        let mut parents = parents.to_vec();
        parents.sort();
        let author_id = Author { peer: peer(author), incarnation: Incarnation(1) };
        let mesh = MeshId(self.mesh_key.verifying_key().to_bytes());
        let body = Body { format: FORMAT, mesh, author: author_id, sequence, parents, time: Hlc::default(), events };
        let entry = Arc::new(Entry::seal(body, &key(author)));
        let cid = entry.cid();
        self.entries.push(entry);
        cid
    }

    fn introduce(&mut self, author: u8, parents: &[Cid]) -> Cid {
        self.write(author, parents, Event::Introduce(Introduce { workload: Arc::new(workload()) }))
    }

    fn claim(&mut self, author: u8, parents: &[Cid], attempt: u32, anchor: Cid) -> Fence {
        let claim = self.write(author, parents, Event::Claim(Claim { task: task(), attempt, anchor }));
        Fence { attempt, claim }
    }

    fn finish(&mut self, author: u8, parents: &[Cid], fence: Fence) -> Cid {
        let conclusion = Conclusion::Success;
        let finish = Finish {
            task: task(),
            fence,
            conclusion,
            duration_ms: 1,
            note: author.to_string(),
            products: Products::default(),
        };
        self.write(author, parents, Event::Finish(finish))
    }

    fn release(&mut self, author: u8, parents: &[Cid], fence: Fence) -> Cid {
        let release = Release { task: task(), fence, reason: ReleaseReason::NotRunning, note: String::new() };
        self.write(author, parents, Event::Release(release))
    }

    /// The task as the entries say, and proof that every order of arrival says the same.
    fn fold(&self) -> Option<Folded> {
        let (_, ledger) = self.arrive(&(0..self.entries.len()).collect::<Vec<_>>());
        let folded = ledger.get(&task()).cloned();
        let backwards: Vec<usize> = (0..self.entries.len()).rev().collect();
        assert_eq!(self.arrive(&backwards).1.get(&task()).cloned(), folded, "the order of arrival matters");
        folded
    }

    /// Whether the mesh is paused, and proof that every order of arrival says the same.
    fn paused(&self) -> Option<Paused> {
        let told = |order: &[usize]| {
            let (clock, ledger) = self.arrive(order);
            ledger.paused(|cid, rules| clock.counts_under(cid, rules))
        };
        let paused = told(&(0..self.entries.len()).collect::<Vec<_>>());
        assert_eq!(told(&(0..self.entries.len()).rev().collect::<Vec<_>>()), paused, "the order of arrival matters");
        paused
    }

    /// Clock and ledger after the entries came in this order, each again and again until its parents were there.
    fn arrive(&self, order: &[usize]) -> (Clock, Ledger) {
        let mut clock = Clock::new(MeshId(self.mesh_key.verifying_key().to_bytes()));
        let mut ledger = Ledger::default();
        loop {
            let mut placed = false;
            for at in order {
                let entry = &self.entries[*at];
                let wanted = self.entries.iter().any(|other| other.body().parents.contains(&entry.cid()));
                let (placing, effects) = clock.place(entry, wanted);
                if let Placing::Placed { .. } = placing {
                    placed = true;
                    let mark = clock.mark(&entry.cid()).expect("it was placed").clone();
                    let mut tasks = ledger.add(entry, &mark);
                    if effects.recounted {
                        tasks.extend(ledger.named());
                    }
                    for task in tasks {
                        ledger.fold(&task, |cid, rules| clock.counts_under(cid, rules));
                    }
                }
            }
            if !placed {
                return (clock, ledger);
            }
        }
    }
}

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn peer(n: u8) -> PeerId {
    PeerId::from_public_key(key(n).verifying_key().to_bytes())
}

fn workload() -> Workload {
    Workload {
        repository: Repository { host: "git".into(), id: "r".into(), name: "r".into() },
        path: ".github/workflows/w.yml".into(),
        trigger: Trigger::Revision { blob: "b".into() },
        commit: "c".into(),
        r#ref: "refs/heads/main".into(),
        event: RunEvent::Push,
        name: "w".into(),
        tags: BTreeSet::from([Tag::P2pEligible]),
        priority: Priority::MOST,
        labels: BTreeSet::new(),
        inputs: BTreeMap::new(),
        time_limit_s: 60,
        fallback_s: 60,
        concurrency: None,
    }
}

fn task() -> TaskId {
    workload().id()
}

fn holder(folded: &Folded) -> Option<(PeerId, Fence)> {
    match folded.state {
        State::Claimed { holder, fence } => Some((holder, fence)),
        _ => None,
    }
}

/// Two members, the nearer to the seed of this anchor first.
fn by_distance(anchor: Cid, a: u8, b: u8) -> (u8, u8) {
    let order = Seed::of(&anchor, &task()).compare(&Place::of(peer(a)), &Place::of(peer(b)));
    if order.is_lt() { (a, b) } else { (b, a) }
}

#[test]
fn the_anchor_is_the_least_of_concurrent_introductions_and_later_ones_are_void() {
    let (mut world, base) = World::new();
    let (a, b) = (world.introduce(2, &[base]), world.introduce(3, &[base]));
    world.introduce(4, &[a, b]);
    assert_eq!(world.fold().expect("introduced").anchor, a.min(b));
}

#[test]
fn of_concurrent_claims_the_nearest_holds() {
    let (mut world, base) = World::new();
    let anchor = world.introduce(2, &[base]);
    let (near, far) = by_distance(anchor, 2, 3);
    world.claim(far, &[anchor], 1, anchor);
    let fence = world.claim(near, &[anchor], 1, anchor);
    assert_eq!(holder(&world.fold().expect("introduced")), Some((peer(near), fence)));
}

#[test]
fn a_claim_that_knows_one_of_its_attempt_is_void_and_the_next_attempt_holds() {
    let (mut world, base) = World::new();
    let anchor = world.introduce(2, &[base]);
    let first = world.claim(2, &[anchor], 1, anchor);
    world.claim(3, &[first.claim], 1, anchor);
    assert_eq!(holder(&world.fold().expect("introduced")), Some((peer(2), first)));
    let second = world.claim(4, &[first.claim], 2, anchor);
    assert_eq!(holder(&world.fold().expect("introduced")), Some((peer(4), second)));
    // An attempt that skips a number, or an anchor that is none.
    let (mut world, base) = World::new();
    let anchor = world.introduce(2, &[base]);
    world.claim(3, &[anchor], 2, anchor);
    world.claim(4, &[anchor], 1, base);
    assert_eq!(world.fold().expect("introduced").state, State::Pending);
}

#[test]
fn a_released_task_waits_for_its_next_attempt_and_its_former_holder_ranks_last() {
    let (mut world, base) = World::new();
    let anchor = world.introduce(2, &[base]);
    let first = world.claim(2, &[anchor], 1, anchor);
    // Only its own author releases a claim.
    let stranger = world.release(3, &[first.claim], first);
    assert_eq!(holder(&world.fold().expect("introduced")), Some((peer(2), first)));
    let released = world.release(2, &[first.claim, stranger], first);
    let folded = world.fold().expect("introduced");
    assert_eq!((folded.state.clone(), folded.spent), (State::Pending, 1));
    assert_eq!(folded.last, BTreeSet::from([peer(2)]));
    let second = world.claim(3, &[released], 2, anchor);
    assert_eq!(holder(&world.fold().expect("introduced")), Some((peer(3), second)));
}

#[test]
fn when_the_nearest_of_concurrent_claims_is_released_the_other_holds() {
    let (mut world, base) = World::new();
    let anchor = world.introduce(2, &[base]);
    let (near, far) = by_distance(anchor, 2, 3);
    let nearest = world.claim(near, &[anchor], 1, anchor);
    let other = world.claim(far, &[anchor], 1, anchor);
    world.release(near, &[nearest.claim], nearest);
    assert_eq!(holder(&world.fold().expect("introduced")), Some((peer(far), other)));
}

#[test]
fn a_result_counts_only_from_the_author_of_a_standing_claim() {
    let (mut world, base) = World::new();
    let anchor = world.introduce(2, &[base]);
    let fence = world.claim(2, &[anchor], 1, anchor);
    world.finish(3, &[fence.claim], fence);
    assert_eq!(holder(&world.fold().expect("introduced")), Some((peer(2), fence)));
    let result = world.finish(2, &[fence.claim], fence);
    let folded = world.fold().expect("introduced");
    assert_eq!(folded.ended_by, Some(result));
    assert!(matches!(folded.state, State::Completed { holder, .. } if holder == peer(2)));
}

#[test]
fn of_concurrent_endings_results_come_first_the_lowest_attempt_before_all() {
    let (mut world, base) = World::new();
    let anchor = world.introduce(2, &[base]);
    let first = world.claim(2, &[anchor], 1, anchor);
    let second = world.claim(3, &[first.claim], 2, anchor);
    let cancel = world.write(4, &[second.claim], Event::Cancel(Cancel { task: task(), why: String::new() }));
    assert_eq!(world.fold().expect("introduced").state, State::Cancelled);
    let late = world.finish(3, &[second.claim], second);
    assert_eq!(world.fold().expect("introduced").ended_by, Some(late));
    let early = world.finish(2, &[first.claim], first);
    let folded = world.fold().expect("introduced");
    assert_eq!(folded.ended_by, Some(early));
    assert!(folded.contested);
    // An ending, and a claim, made in knowledge of a counting ending are void.
    let again = world.finish(3, &[late, early], second);
    world.claim(4, &[cancel, again], 3, anchor);
    assert_eq!(world.fold().expect("introduced"), folded);
}

#[test]
fn left_to_github_only_while_nobody_holds_it_and_lost_only_after_the_last_attempt() {
    let (mut world, base) = World::new();
    let anchor = world.introduce(2, &[base]);
    let fence = world.claim(2, &[anchor], 1, anchor);
    world.write(3, &[fence.claim], Event::Leave(Leave { task: task() }));
    world.write(4, &[anchor], Event::Lose(Lose { task: task(), attempt: 1 }));
    assert_eq!(holder(&world.fold().expect("introduced")), Some((peer(2), fence)));
    let released = world.release(2, &[fence.claim], fence);
    world.write(2, &[released], Event::Leave(Leave { task: task() }));
    assert_eq!(world.fold().expect("introduced").state, State::LeftToGithub);
    world.write(
        4,
        &[fence.claim, world.entries[world.entries.len() - 3].cid()],
        Event::Lose(Lose { task: task(), attempt: 1 }),
    );
    assert_eq!(world.fold().expect("introduced").state, State::LeftToGithub);
}

#[test]
fn who_declines_ranks_last_but_may_still_claim() {
    let (mut world, base) = World::new();
    let anchor = world.introduce(2, &[base]);
    let declined = world.write(3, &[anchor], Event::Decline(Decline { task: task(), why: "no engine".to_owned() }));
    let folded = world.fold().expect("introduced");
    assert_eq!((&folded.last, &folded.declined), (&BTreeSet::from([peer(3)]), &BTreeSet::from([peer(3)])));
    assert_eq!((folded.note.as_str(), folded.spent), ("no engine", 0));
    let fence = world.claim(3, &[declined], 1, anchor);
    assert_eq!(holder(&world.fold().expect("introduced")), Some((peer(3), fence)));
}

#[test]
fn a_withdrawal_ends_only_what_nobody_has_begun() {
    let withdraw = || Event::Withdraw(Withdraw { task: task(), why: "a newer one".into() });
    // Of what nobody held.
    let (mut world, base) = World::declared();
    let anchor = world.introduce(2, &[base]);
    let withdrawn = world.write(3, &[anchor], withdraw());
    let folded = world.fold().expect("introduced");
    assert_eq!((&folded.state, folded.note.as_str()), (&State::Cancelled, "a newer one"));
    // A claim made in knowledge of it is void.
    world.claim(4, &[withdrawn], 1, anchor);
    assert_eq!(world.fold().expect("introduced").state, State::Cancelled);

    // One that was made in ignorance of a claim is void, and so is one made in knowledge of a holding claim.
    let (mut world, base) = World::declared();
    let anchor = world.introduce(2, &[base]);
    let fence = world.claim(4, &[anchor], 1, anchor);
    let concurrent = world.write(3, &[anchor], withdraw());
    assert_eq!(holder(&world.fold().expect("introduced")), Some((peer(4), fence)));
    world.write(2, &[fence.claim], withdraw());
    assert_eq!(holder(&world.fold().expect("introduced")), Some((peer(4), fence)));
    // Its holder learns of them, and its result counts.
    world.finish(4, &[fence.claim, concurrent], fence);
    assert!(matches!(world.fold().expect("introduced").state, State::Completed { .. }));

    // In the entry of the introduction itself it holds: what is only taken note of is never anybody's.
    let (mut world, base) = World::declared();
    let introduce = Event::Introduce(Introduce { workload: Arc::new(workload()) });
    let noted = world.write_all(2, &[base], vec![introduce, withdraw()]);
    assert_eq!(world.fold().expect("introduced").state, State::Cancelled);
    world.claim(4, &[noted], 1, noted);
    assert_eq!(world.fold().expect("introduced").state, State::Cancelled);

    // What was given back may be withdrawn.
    let (mut world, base) = World::declared();
    let anchor = world.introduce(2, &[base]);
    let fence = world.claim(4, &[anchor], 1, anchor);
    let released = world.release(4, &[fence.claim], fence);
    world.write(3, &[released], withdraw());
    assert_eq!(world.fold().expect("introduced").state, State::Cancelled);
}

#[test]
fn only_admitted_authors_count_and_a_ticket_admits_one_peer() {
    let (mut world, base) = World::new();
    world.introduce(9, &[base]);
    assert_eq!(world.fold(), None);
    let (clock, _) = world.arrive(&(0..world.entries.len()).collect::<Vec<_>>());
    assert!(!clock.contains(&world.entries.last().expect("written").cid()));
    // The same ticket used by two members at once: one of the two peers is in, the same on every node.
    let ticket = Ticket::sign(&world.mesh_key, 77, 0);
    let admit = |n| Event::Admit(Admit { peer: peer(n), right: Right::Ticket { ticket: ticket.clone() } });
    let (six, seven) = (admit(6), admit(7));
    let (a, b) = (world.write(2, &[base], six), world.write(3, &[base], seven));
    world.introduce(6, &[a]);
    world.introduce(7, &[b]);
    let orders = [(0..world.entries.len()).collect::<Vec<_>>(), (0..world.entries.len()).rev().collect()];
    let members =
        orders.map(|order| world.arrive(&order).0.members().all().map(|member| member.peer).collect::<Vec<_>>());
    assert_eq!(members[0], members[1]);
    assert_eq!(members[0].contains(&peer(6)), !members[0].contains(&peer(7)));
    assert!(world.fold().is_some());
}

#[test]
fn a_forked_author_counts_up_to_the_fork_and_honest_entries_above_it_stay() {
    let (mut world, base) = World::new();
    let anchor = world.introduce(2, &[base]);
    let claim = |attempt| Event::Claim(Claim { task: task(), attempt, anchor });
    let one = world.write_at(3, 1, &[anchor], claim(1));
    let built = world.write(4, &[one], Event::Decline(Decline { task: task(), why: String::new() }));
    let two = world.write_at(3, 1, &[anchor], Event::Cancel(Cancel { task: task(), why: String::new() }));
    let folded = world.fold().expect("introduced");
    assert_eq!(folded.state, State::Pending);
    assert_eq!(folded.last, BTreeSet::from([peer(4)]));
    let (clock, _) = world.arrive(&(0..world.entries.len()).collect::<Vec<_>>());
    let fork = clock.fork_of(&Author { peer: peer(3), incarnation: Incarnation(1) }).expect("the fork is known");
    assert_eq!(BTreeSet::from([fork.first, fork.second]), BTreeSet::from([one, two]));
    assert_eq!(clock.heads(), &BTreeSet::from([built]));
    assert!(clock.counts(&built) && !clock.counts(&one) && !clock.counts(&two));
    // Its later entries are refused unless somebody stands on them.
    let later = world.write_at(3, 2, &[one], claim(1));
    let (mut clock, _) = world.arrive(&(0..world.entries.len() - 1).collect::<Vec<_>>());
    let last = world.entries.last().expect("written").clone();
    assert_eq!(clock.place(&last, false).0, Placing::Refused(Refusal::Void));
    assert!(!clock.contains(&later));
}

#[test]
fn a_gap_or_a_repeat_in_an_authors_numbers_is_refused() {
    let (mut world, base) = World::new();
    world.write_at(2, 2, &[base], Event::Cancel(Cancel { task: task(), why: String::new() }));
    let (mut clock, _) = world.arrive(&[0, 1, 2, 3]);
    assert_eq!(clock.place(&world.entries[4], true).0, Placing::Refused(Refusal::Sequence));
}

#[test]
fn a_resume_ends_the_pauses_it_knows_and_no_other() {
    let (mut world, base) = World::new();
    let paused = |world: &World| world.paused().map(|paused| paused.by);
    let pause = |why: &str| Event::Pause(Pause { why: why.to_owned() });
    assert_eq!(paused(&world), None);
    let one = world.write(1, &[base], pause("first"));
    assert_eq!(paused(&world), Some(peer(1)));
    let resumed = world.write(2, &[one], Event::Resume(Resume {}));
    assert_eq!(paused(&world), None);
    // Pressed again by one who has not heard of its end.
    let again = world.write(1, &[one], pause("second"));
    assert_eq!(paused(&world), Some(peer(1)));
    world.write(2, &[resumed], Event::Resume(Resume {}));
    assert_eq!(paused(&world), Some(peer(1)));
    world.write(3, &[again, resumed], Event::Resume(Resume {}));
    assert_eq!(paused(&world), None);
}

#[test]
fn what_some_member_may_not_know_counts_only_once_all_have_declared_it() {
    let (mut world, base) = World::new();
    let anchor = world.introduce(2, &[base]);
    let withdraw = || Event::Withdraw(Withdraw { task: task(), why: String::new() });
    let pending = |world: &World| world.fold().expect("introduced").state == State::Pending;
    // Whoever writes it early, however many know it by then.
    let mut known = anchor;
    for n in 1..=3 {
        known = world.declare(n, &[known], GROUPS);
        world.write(3, &[known], withdraw());
        assert!(pending(&world), "{n} of 4 know it");
        known = world.entries.last().expect("written").cid();
    }
    // The last does, and the author has not heard of that; later that of another one.
    let all = world.declare(4, &[anchor], GROUPS + 1);
    world.write(2, &[known], withdraw());
    assert!(pending(&world));
    let one_more = world.write(
        1,
        &[known, all],
        Event::Admit(Admit { peer: peer(5), right: Right::Ticket { ticket: Ticket::sign(&world.mesh_key, 5, 0) } }),
    );
    world.write(3, &[one_more], withdraw());
    assert!(pending(&world), "the fifth does not");
    let last = world.declare(5, &[one_more], GROUPS);
    world.write(4, &[last], withdraw());
    assert_eq!(world.fold().expect("introduced").state, State::Cancelled);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Random histories of four members, some of them forked: every order of arrival gives the same heads, the same
    /// members, the same state.
    #[test]
    fn any_order_of_arrival_gives_the_same_state(
        steps in prop::collection::vec((1u8..=4, any::<u16>(), 0u8..11, any::<u8>(), prop::bool::weighted(0.05)), 1..40),
        shuffle in prop::collection::vec(any::<u32>(), 64),
    ) {
        let (mut world, base) = World::declared();
        let anchor = world.introduce(1, &[base]);
        let mut last: BTreeMap<u8, Cid> = (2..=4).map(|author| (author, base)).chain([(1, anchor)]).collect();
        let mut fences: Vec<(u8, Fence)> = Vec::new();
        for (author, pick, kind, other, fork) in steps {
            let any = world.entries[3 + usize::from(pick) % (world.entries.len() - 3)].cid();
            let mut parents: Vec<Cid> = vec![any];
            parents.extend(last.get(&author).filter(|own| **own != any));
            let chosen = fences.get(usize::from(other) % fences.len().max(1)).copied();
            let event = match (kind, chosen) {
                (0, _) => Event::Introduce(Introduce { workload: Arc::new(workload()) }),
                (1 | 2, _) => Event::Claim(Claim { task: task(), attempt: 1 + u32::from(other % 3), anchor }),
                (3, Some((_, fence))) => Event::Release(Release { task: task(), fence, reason: ReleaseReason::Draining, note: String::new() }),
                (4, Some((_, fence))) => Event::Finish(Finish { task: task(), fence, conclusion: Conclusion::Failure, duration_ms: 0, note: String::new() , products: Products::default() }),
                (5, _) => Event::Lose(Lose { task: task(), attempt: 1 + u32::from(other % 3) }),
                (6, _) => Event::Leave(Leave { task: task() }),
                (7, _) => Event::Pause(Pause { why: String::new() }),
                (8, _) => Event::Resume(Resume {}),
                (9, _) => Event::Withdraw(Withdraw { task: task(), why: String::new() }),
                _ => Event::Decline(Decline { task: task(), why: String::new() }),
            };
            let claims = matches!(event, Event::Claim(_)).then(|| 1 + u32::from(other % 3));
            let sequence = world.sequences.get(&author).copied().unwrap_or(0);
            let cid = if fork && sequence > 0 {
                world.write_at(author, sequence, &parents, event)
            } else {
                world.write(author, &parents, event)
            };
            last.insert(author, cid);
            fences.extend(claims.map(|attempt| (author, Fence { attempt, claim: cid })));
        }
        let plain: Vec<usize> = (0..world.entries.len()).collect();
        let mut mixed = plain.clone();
        mixed.sort_by_key(|at| (shuffle[at % shuffle.len()], *at));
        let (clock, ledger) = world.arrive(&plain);
        let (other_clock, other_ledger) = world.arrive(&mixed);
        prop_assert_eq!(ledger.get(&task()), other_ledger.get(&task()));
        prop_assert_eq!(ledger.state_hash(), other_ledger.state_hash());
        prop_assert_eq!(clock.heads(), other_clock.heads());
        prop_assert_eq!(clock.vector(), other_clock.vector());
    }
}
