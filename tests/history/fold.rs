//! What a snapshot and the entries above its cut give is what all entries give: tried on made-up histories with
//! concurrent entries, forks and new incarnations.

use std::collections::BTreeMap;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use runmesh::kernel::clock::{Clock, Division, Member, Placing, Shelf};
use runmesh::kernel::entry::{
    Admit, Cancel, Claim, Decline, Entry, Event, Finish, Introduce, Leave, Lose, Pause, Release, Resume, Revoke, Right,
    Ticket,
};
use runmesh::kernel::id::{Author, Cid, Incarnation, MeshId, PeerId, TaskId};
use runmesh::kernel::ledger::{Folded, Ledger, Paused};
use runmesh::kernel::snapshot::Sealed;
use runmesh::kernel::task::{Conclusion, Fence, Products, ReleaseReason, Tag, Trigger, Workload};

use super::mesh::firmware;

const PEERS: usize = 4;
const TASKS: u64 = 4;

/// One thing that happens in a made-up mesh.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// An author says something of a task.
    Say { by: usize, what: u8, task: u64 },
    /// An author learns all that another knows.
    Learn { from: usize, to: usize },
    /// All learn everything: what is written next divides the history.
    Meet,
    /// An author goes on under a new incarnation.
    Renew { by: usize },
    /// The mesh key puts a peer out, as an author knows it.
    Revoke { by: usize, peer: usize },
    /// An author signs a second entry in the place of its latest one.
    Fork { by: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let peer = || 0..PEERS;
    let step = prop_oneof![
        20 => (peer(), 0..11_u8, 0..TASKS).prop_map(|(by, what, task)| Step::Say { by, what, task }),
        8 => (peer(), peer()).prop_map(|(from, to)| Step::Learn { from, to }),
        5 => Just(Step::Meet),
        1 => peer().prop_map(|by| Step::Renew { by }),
        1 => peer().prop_map(|by| Step::Fork { by }),
        1 => (peer(), peer()).prop_map(|(by, peer)| Step::Revoke { by, peer }),
    ];
    prop::collection::vec(step, 1..60)
}

/// What is known of some entries.
struct View {
    clock: Clock,
    ledger: Ledger,
}

impl View {
    fn paused(&self) -> Option<Paused> {
        self.ledger.paused(|cid, rules| self.clock.counts_under(cid, rules))
    }

    fn take(&mut self, entry: &Entry) {
        let (placing, effects) = self.clock.place(entry, true);
        if !matches!(placing, Placing::Placed { .. }) {
            return;
        }
        let mark = self.clock.mark(&entry.cid()).expect("placed").clone();
        let mut tasks = self.ledger.add(entry, &mark);
        if effects.recounted {
            tasks.extend(self.ledger.named());
        }
        for task in tasks {
            self.ledger.fold(&task, |cid, rules| self.clock.counts_under(cid, rules));
        }
    }

    fn fold_all(&mut self) {
        for task in self.ledger.named() {
            self.ledger.fold(&task, |cid, rules| self.clock.counts_under(cid, rules));
        }
    }

    fn of<'a>(mesh: MeshId, entries: impl IntoIterator<Item = &'a Arc<Entry>>) -> Self {
        let mut view = Self { clock: Clock::new(mesh), ledger: Ledger::default() };
        entries.into_iter().for_each(|entry| view.take(entry));
        view
    }

    fn above<'a>(sealed: &Sealed, entries: impl IntoIterator<Item = &'a Arc<Entry>>) -> Self {
        let mut view =
            Self { clock: Clock::above(&sealed.snapshot, sealed.hash, Shelf::default()), ledger: Ledger::default() };
        view.ledger.stand_on(&sealed.snapshot, sealed.hash, |_| false);
        view.fold_all();
        entries.into_iter().for_each(|entry| view.take(entry));
        view
    }

    /// Whether a node with this view may propose a cut.
    fn may_cut(&self, cut: &Cid, division: &Division) -> bool {
        let heads = self.clock.with_ancestors(self.clock.heads().iter().copied()).expect("heads are here");
        heads.contains(cut) && division.astray.is_disjoint(&heads)
    }

    /// The snapshot at a cut.
    fn snapshot(&self, cut: &Cid, void: &[(Author, u64)]) -> Option<(Sealed, Division)> {
        let division = self.clock.divide(cut)?;
        let (mut snapshot, judged) = self.clock.condense(cut, &division, void)?;
        self.ledger.condense(|cid, rules| self.clock.counted_under(&judged, cid, rules), &mut snapshot);
        Some((snapshot.seal(), division))
    }

    /// Drops what lies beneath a cut. Returns what stands in its place.
    fn condense(&mut self, cut: &Cid) -> Sealed {
        let (sealed, division) = self.snapshot(cut, &[]).expect("a cut");
        self.clock.drop_beneath(&sealed.snapshot, sealed.hash, &division);
        self.ledger.stand_on(&sealed.snapshot, sealed.hash, |cid| self.clock.holds(cid));
        self.fold_all();
        sealed
    }

    fn members(&self) -> Vec<Member> {
        self.clock.members().all().collect()
    }

    fn tasks(&self) -> BTreeMap<TaskId, Folded> {
        self.ledger.all().map(|(task, folded)| (*task, folded.clone())).collect()
    }
}

/// A mesh whose members say anything at all.
struct Made {
    mesh: MeshId,
    keys: Vec<SigningKey>,
    authors: Vec<Author>,
    views: Vec<View>,
    /// What each knew before its latest entry.
    before: Vec<Vec<Arc<Entry>>>,
    all: Vec<Arc<Entry>>,
}

impl Made {
    fn of(steps: &[Step]) -> Self {
        let mesh_key = mesh_key();
        let mesh = MeshId(mesh_key.verifying_key().to_bytes());
        let keys: Vec<SigningKey> = (0..PEERS).map(|n| SigningKey::from_bytes(&[n as u8 + 1; 32])).collect();
        let author = |key: &SigningKey| Author {
            peer: PeerId::from_public_key(key.verifying_key().to_bytes()),
            incarnation: Incarnation(1),
        };
        let authors: Vec<Author> = keys.iter().map(author).collect();
        let views = (0..PEERS).map(|_| View::of(mesh, [])).collect();
        let mut made = Self { mesh, keys, authors, views, before: vec![Vec::new(); PEERS], all: Vec::new() };
        let founder = made.authors[0].peer;
        made.write(0, vec![Event::Admit(Admit { peer: founder, right: Right::founder(&mesh_key, &founder) })]);
        for n in 1..PEERS {
            let right = Right::Ticket { ticket: Ticket::sign(&mesh_key, n as u64, u64::MAX) };
            made.write(0, vec![Event::Admit(Admit { peer: made.authors[n].peer, right })]);
        }
        made.meet();
        for step in steps {
            made.take(*step);
        }
        made.carry_on();
        made
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Say { by, what, task } => {
                if let Some(event) = self.event(by, what, task) {
                    self.write(by, vec![event]);
                }
            }
            Step::Learn { from, to } => self.learn(from, to),
            Step::Meet => self.meet(),
            Step::Renew { by } => self.authors[by].incarnation.0 += 1,
            Step::Revoke { by, peer } => {
                let peer = self.authors[peer].peer;
                let revoke = Revoke::sign(&mesh_key(), peer, self.views[by].clock.cut_of(&peer));
                self.write(by, vec![Event::Revoke(revoke)]);
            }
            Step::Fork { by } => {
                let view = View::of(self.mesh, &self.before[by]);
                let task = workload(0).id();
                let cancel = Event::Cancel(Cancel { task, why: format!("fork {}", self.all.len()) });
                if view.clock.members().contains(&self.authors[by].peer) {
                    let body = view.clock.next_body(self.authors[by], self.all.len() as u64, vec![cancel], |_| false);
                    self.all.push(Arc::new(Entry::seal(body, &self.keys[by])));
                    let entry = self.all[self.all.len() - 1].clone();
                    self.views[(by + 1) % PEERS].take(&entry);
                }
            }
        }
    }

    /// As nodes do: a revocation that no counting entry states is written again by a member that has met it.
    fn carry_on(&mut self) {
        let unstated = View::of(self.mesh, &self.all).clock.unstated();
        if unstated.is_empty() {
            return;
        }
        self.meet();
        let members = &self.views[0].clock;
        if let Some(by) = (0..PEERS).find(|by| members.members().contains(&self.authors[*by].peer)) {
            self.write(by, unstated.into_iter().map(Event::Revoke).collect());
        }
    }

    fn learn(&mut self, from: usize, to: usize) {
        let known: Vec<Arc<Entry>> =
            self.all.iter().filter(|entry| self.views[from].clock.contains(&entry.cid())).cloned().collect();
        known.iter().for_each(|entry| self.views[to].take(entry));
    }

    fn meet(&mut self) {
        for view in &mut self.views {
            self.all.iter().for_each(|entry| view.take(entry));
        }
    }

    fn write(&mut self, by: usize, events: Vec<Event>) {
        let author = &mut self.authors[by];
        if self.views[by].clock.is_cut(author) {
            author.incarnation.0 += 1;
        }
        let known = self.all.iter().filter(|entry| self.views[by].clock.contains(&entry.cid())).cloned().collect();
        self.before[by] = known;
        // Not all clocks go alike.
        let wall = self.all.len() as u64 * 10 + by as u64 * 1000;
        let body = self.views[by].clock.next_body(*author, wall, events, |_| false);
        let entry = Arc::new(Entry::seal(body, &self.keys[by]));
        self.views[by].take(&entry);
        self.all.push(entry);
    }

    fn event(&self, by: usize, what: u8, number: u64) -> Option<Event> {
        let workload = workload(number);
        let task = workload.id();
        match what {
            9 => return Some(Event::Pause(Pause { why: self.all.len().to_string() })),
            10 => return Some(Event::Resume(Resume {})),
            _ => {}
        }
        let folded = self.views[by].ledger.get(&task);
        if what == 0 || folded.is_none() {
            return Some(Event::Introduce(Introduce { workload: Arc::new(workload) }));
        }
        let folded = folded?;
        let last = folded.claims.last();
        let fence = last.map_or(Fence { attempt: 1, claim: folded.anchor }, |claim| claim.fence);
        let note = self.all.len().to_string();
        Some(match what {
            1 | 2 => Event::Claim(Claim { task, attempt: folded.attempt + 1, anchor: folded.anchor }),
            3 => Event::Release(Release { task, fence, reason: ReleaseReason::NotRunning, note }),
            4 => Event::Release(Release { task, fence, reason: ReleaseReason::Draining, note }),
            5 => Event::Finish(Finish {
                task,
                fence,
                conclusion: Conclusion::Failure,
                duration_ms: 7,
                note,
                products: Products::default(),
            }),
            6 => Event::Decline(Decline { task, why: note }),
            7 => Event::Leave(Leave { task }),
            // Rarely, so that tasks stay open for long.
            _ if self.all.len().is_multiple_of(3) => Event::Lose(Lose { task, attempt: folded.attempt }),
            _ => Event::Claim(Claim { task, attempt: folded.attempt + 1, anchor: folded.anchor }),
        })
    }
}

fn mesh_key() -> SigningKey {
    SigningKey::from_bytes(&[99; 32])
}

fn workload(number: u64) -> Workload {
    let tags = if number.is_multiple_of(2) { [Tag::P2pOnly] } else { [Tag::P2pEligible] };
    Workload { tags: tags.into(), trigger: Trigger::Revision { blob: format!("{number:040x}") }, ..firmware(0) }
}

fn check(made: &Made) -> Result<usize, TestCaseError> {
    let all = View::of(made.mesh, &made.all);
    if !all.clock.unstated().is_empty() {
        // Nobody is left who could state it.
        return Ok(0);
    }
    let void = all.clock.void_here();
    let mut cuts: Vec<(Sealed, Division)> = Vec::new();
    for entry in &made.all {
        let Some((sealed, division)) = all.snapshot(&entry.cid(), &void) else { continue };
        if !all.may_cut(&entry.cid(), &division) {
            continue;
        }
        // What is neither beneath nor above counts for nothing, but for the forks that the checkpoint itself names.
        let stays = |entry: &&Arc<Entry>| {
            !division.astray.contains(&entry.cid()) || void.iter().any(|(author, _)| *author == entry.author())
        };
        let full = View::of(made.mesh, made.all.iter().filter(stays));
        let opened = Sealed::open(sealed.bytes.clone(), &made.mesh);
        prop_assert!(opened.as_ref() == Ok(&sealed), "it is read back: {:?}", opened.err());
        let is_above =
            |entry: &&Arc<Entry>| !division.beneath.contains(&entry.cid()) && !division.astray.contains(&entry.cid());
        let above: Vec<&Arc<Entry>> = made.all.iter().filter(is_above).collect();
        let rest = View::above(&sealed, above.iter().copied());
        prop_assert_eq!(rest.clock.heads(), full.clock.heads());
        prop_assert_eq!(rest.clock.vector(), full.clock.vector());
        prop_assert_eq!(rest.members(), full.members());
        prop_assert_eq!(rest.paused(), full.paused());
        for entry in &above {
            prop_assert_eq!(rest.clock.counts(&entry.cid()), full.clock.counts(&entry.cid()), "{:?}", entry);
        }
        let (rest_tasks, full_tasks) = (rest.tasks(), full.tasks());
        for (task, folded) in &rest_tasks {
            prop_assert_eq!(full_tasks.get(task), Some(folded));
        }
        for (task, folded) in full_tasks.iter().filter(|(task, _)| !rest_tasks.contains_key(task)) {
            prop_assert!(!folded.state.is_open(), "an open task is kept: {:?}", folded);
            prop_assert!(sealed.snapshot.closed.iter().any(|(closed, _)| closed == task), "it ended beneath");
            prop_assert!(rest.ledger.was_submitted(&folded.workload));
        }
        // Dropping in place gives the same as beginning from the snapshot.
        let mut dropped = View::of(made.mesh, &made.all);
        dropped.clock.drop_beneath(&sealed.snapshot, sealed.hash, &division);
        dropped.ledger.stand_on(&sealed.snapshot, sealed.hash, |cid| dropped.clock.holds(cid));
        dropped.fold_all();
        prop_assert_eq!(dropped.clock.heads(), rest.clock.heads());
        prop_assert_eq!(dropped.clock.vector(), rest.clock.vector());
        prop_assert_eq!(dropped.paused(), rest.paused());
        prop_assert_eq!(dropped.ledger.state_hash(), rest.ledger.state_hash());
        // And a later snapshot is the same by whichever way one came there.
        for (earlier, beneath) in &cuts {
            let is_above =
                |entry: &&Arc<Entry>| !beneath.beneath.contains(&entry.cid()) && !beneath.astray.contains(&entry.cid());
            let by_way = View::above(earlier, made.all.iter().filter(is_above));
            let again = by_way.snapshot(&sealed.snapshot.cut, &void).map(|(sealed, _)| sealed);
            prop_assert_eq!(again.map(|again| again.snapshot), Some(sealed.snapshot.clone()));
        }
        cuts.push((sealed, division));
    }
    Ok(cuts.len())
}

/// A quarter of the usual cases: each folds a history once for every cut in it.
fn quarter() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases / 4, failure_persistence: None, ..usual }
}

proptest! {
    #![proptest_config(quarter())]

    #[test]
    fn a_snapshot_and_what_stands_above_it_give_what_all_entries_give(steps in steps()) {
        check(&Made::of(&steps))?;
    }

    #[test]
    fn what_counts_does_not_depend_on_the_order_of_arrival(steps in steps(), draws in prop::collection::vec(any::<u16>(), 80)) {
        let made = Made::of(&steps);
        let first = View::of(made.mesh, &made.all);
        let (mut waiting, mut order, mut draws) = (made.all.clone(), Vec::<Arc<Entry>>::new(), draws.iter().cycle());
        while !waiting.is_empty() {
            let here = |cid: &Cid| order.iter().any(|entry| entry.cid() == *cid);
            let ready: Vec<usize> =
                (0..waiting.len()).filter(|at| waiting[*at].body().parents.iter().all(here)).collect();
            let at = ready[usize::from(*draws.next().expect("endless")) % ready.len()];
            order.push(waiting.remove(at));
        }
        let second = View::of(made.mesh, &order);
        prop_assert_eq!(first.clock.heads(), second.clock.heads());
        prop_assert_eq!(first.clock.vector(), second.clock.vector());
        prop_assert_eq!(first.members(), second.members());
        prop_assert_eq!(first.tasks(), second.tasks());
    }

    #[test]
    fn no_bytes_that_pass_for_a_snapshot_do_harm(steps in steps(), at in any::<prop::sample::Index>(), bits in 1..=255_u8) {
        let made = Made::of(&steps);
        let full = View::of(made.mesh, &made.all);
        let Some((cut, _)) = full.clock.find_cut(0, |_, _| true) else { return Ok(()) };
        let (sealed, _) = full.snapshot(&cut, &full.clock.void_here()).expect("a cut");
        let mut bytes = sealed.bytes.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= bits;
        if let Ok(other) = Sealed::open(bytes.into(), &made.mesh) {
            prop_assert_ne!(other.hash, sealed.hash);
            let mut view = View::above(&other, &made.all);
            view.fold_all();
            let _ = (view.clock.vector(), view.members(), view.clock.lacking(&Default::default(), 100));
        }
        prop_assert!(Sealed::open(sealed.bytes[..at].into(), &made.mesh).is_err());
    }

    #[test]
    fn the_latest_cut_is_found(steps in steps(), least in 0_usize..20, young in 2_u64..9) {
        let made = Made::of(&steps);
        let full = View::of(made.mesh, &made.all);
        let is_old = |label: u64| !(label / 10).is_multiple_of(young);
        let found = full.clock.find_cut(least, |_, label| is_old(label)).map(|(cut, _)| cut);
        prop_assert_eq!(found, plainly_found(&made, &full, least, is_old));
    }

    #[test]
    fn a_cut_that_is_found_divides_the_history(steps in steps(), least in 0_usize..20) {
        let made = Made::of(&steps);
        let full = View::of(made.mesh, &made.all);
        if let Some((cut, division)) = full.clock.find_cut(least, |_, _| true) {
            let mark = full.clock.mark(&cut).expect("here");
            prop_assert!(division.beneath.contains(&cut) && full.clock.counts(&cut));
            prop_assert!(full.clock.divide(&cut).as_ref() == Some(&division));
            let heads = full.clock.with_ancestors(full.clock.heads().iter().copied()).expect("here");
            for cid in &heads {
                let other = full.clock.mark(cid).expect("here");
                prop_assert!(division.beneath.contains(cid) != (other.knows(mark) && !division.beneath.contains(cid)));
            }
        }
    }
}

/// The latest cut by its plain definition: one that counts, is old, has so many before it, and every other entry that
/// heads stand on is its ancestor or its descendant.
fn plainly_found(made: &Made, full: &View, least: usize, is_old: impl Fn(u64) -> bool) -> Option<Cid> {
    let clock = &full.clock;
    let beneath = |cid: &Cid| clock.with_ancestors([*cid]).expect("here");
    let heads = clock.with_ancestors(clock.heads().iter().copied()).expect("here");
    let known: Vec<_> = made.all.iter().filter(|entry| heads.contains(&entry.cid())).collect();
    let ancestors: BTreeMap<Cid, _> = known.iter().map(|entry| (entry.cid(), beneath(&entry.cid()))).collect();
    let is_cut = |cut: &Cid| heads.iter().all(|other| ancestors[cut].contains(other) || ancestors[other].contains(cut));
    let old = known.iter().skip(least).rev().filter(|entry| is_old(entry.body().time.ms));
    old.map(|entry| entry.cid()).find(|cid| clock.counts(cid) && is_cut(cid))
}

#[test]
fn made_up_histories_have_cuts_forks_and_open_tasks() {
    let steps: Vec<Step> = (0..40)
        .map(|n| match n % 8 {
            7 => Step::Meet,
            5 if n == 21 => Step::Fork { by: 2 },
            _ => Step::Say { by: n % PEERS, what: (n % 7) as u8, task: n as u64 % TASKS },
        })
        .collect();
    let made = Made::of(&steps);
    let full = View::of(made.mesh, &made.all);
    assert!(full.clock.fork_of(&Author { incarnation: Incarnation(1), ..made.authors[2] }).is_some());
    assert!(full.tasks().values().any(|folded| folded.state.is_open()));
    let cuts = check(&made).expect("holds");
    assert!(cuts > 3, "{cuts}");
}

/// A page may bring the last acknowledgement of a checkpoint together with what was written in knowledge of it.
#[test]
fn what_is_said_of_a_task_before_the_checkpoint_that_forgets_it_came_to_stand_is_not_lost() {
    let mut made = Made::of(&[]);
    let (again, other) = (workload(0), workload(1).id());
    let (task, introduce) = (again.id(), Event::Introduce(Introduce { workload: Arc::new(again) }));
    let cancel = |task: TaskId| Event::Cancel(Cancel { task, why: String::new() });
    made.write(0, vec![introduce.clone()]);
    made.write(0, vec![cancel(task)]);
    let first = made.all.len();
    // As many heights as the ids of ended tasks are kept for.
    for _ in 0..=1024 {
        made.write(0, vec![cancel(other)]);
    }
    let second = made.all.len();
    made.write(0, vec![introduce]);
    made.write(0, vec![cancel(other)]);
    let (cut, next) = (made.all[first - 1].cid(), made.all[second - 1].cid());
    let closed = |sealed: &Sealed| sealed.snapshot.closed.iter().any(|(closed, _)| *closed == task);
    let mut views = [second, made.all.len()].map(|known| {
        let mut view = View::of(made.mesh, &made.all[..known]);
        assert!(closed(&view.condense(&cut)));
        assert!(!view.tasks().contains_key(&task), "it had ended");
        assert!(!closed(&view.condense(&next)), "it is forgotten");
        made.all[known..].iter().for_each(|entry| view.take(entry));
        view
    });
    let open: Vec<bool> =
        views.iter().map(|view| view.tasks().get(&task).is_some_and(|folded| folded.state.is_open())).collect();
    assert_eq!(open, [true, true]);
    assert_eq!(views[0].ledger.state_hash(), views[1].ledger.state_hash());
    let last = made.all[made.all.len() - 1].cid();
    let [one, other] = views.each_mut().map(|view| view.condense(&last).hash);
    assert_eq!(one, other, "and the next checkpoint is the same");
}
