//! Elections: how many a second, and how evenly the tasks fall.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::hint::black_box;

use runmesh::kernel::election::{Place, Seed};
use runmesh::kernel::id::{Cid, Digest, PeerId, TaskId};

use super::Outcome;
use super::measure::{median, rate, side_by_side, source_system};
use super::report::{Goal, Row};

/// Tasks that are spread, as DESIGN.md section 10 has it.
const TASKS: u64 = 10_000;
const PEERS: u64 = 100;
/// Meshes of which the median balance counts.
const MESHES: u64 = 15;

pub(crate) fn speed() -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    for (peers, goal) in [(5, Goal::None), (20, Goal::None), (100, Goal::AtLeast(1_000_000.0)), (1000, Goal::None)] {
        let candidates: Vec<Peer> = (0..peers).map(Peer::new).collect();
        let places: Vec<Place> = candidates.iter().map(|peer| peer.place).collect();
        let tasks: Vec<(Cid, TaskId)> = (0..256).map(task).collect();
        let ours = || {
            Ok(rate(|| {
                for (anchor, task) in &tasks {
                    black_box(Seed::of(black_box(anchor), task).nearest(&places));
                }
                tasks.len()
            }))
        };
        let hashing = || {
            Ok(rate(|| {
                for (anchor, task) in &tasks[..16] {
                    black_box(rendezvous(&candidates, black_box(anchor), task));
                }
                16
            }))
        };
        let words = ["elections".to_owned(), peers.to_string()];
        let source = || source_system(&words.each_ref().map(String::as_str));
        let (ours, rivals) = side_by_side(
            Box::new(ours),
            vec![
                ("the source system's rule, in Python", Box::new(source)),
                ("rendezvous hashing, SHA-256 a candidate", Box::new(hashing)),
            ],
        )?;
        rows.extend(Row::beside(&format!("elections_per_s_{peers}"), "/s", goal, ours, &rivals));
    }
    Ok(rows)
}

/// Max/mean of the tasks a peer gets.
pub(crate) fn balance() -> Outcome<Vec<Row>> {
    let spread = |choose: fn(&[Peer], &Cid, &TaskId) -> usize| {
        let of_mesh = |mesh: u64| {
            let peers: Vec<Peer> = (0..PEERS).map(|n| Peer::new(mesh << 32 | n)).collect();
            let mut won = vec![0; peers.len()];
            for n in 0..TASKS {
                let (anchor, task) = task(mesh << 32 | n);
                won[choose(&peers, &anchor, &task)] += 1;
            }
            max_to_mean(&won)
        };
        median((0..MESHES).map(of_mesh).collect())
    };
    let ours = spread(hamming);
    let with_slots = |order: fn(&Peer, &Peer, &Cid, &TaskId) -> Ordering| {
        median((0..MESHES).map(|mesh| balance_with_slots(mesh, order)).collect())
    };
    let slots = with_slots(by_hamming);
    let row = |name: &str, goal: f64, ours: f64| Row::alone(name, "max/mean", Goal::AtMost(goal), ours);
    Ok(vec![
        row("election_balance_100", 1.27, ours).against("plain Hamming, ties by id", spread(hamming_by_id)),
        row("election_balance_100", 1.27, ours).against("rendezvous hashing", spread(rendezvous)),
        row("election_balance_100_slots", 1.05, slots)
            .against("rendezvous hashing, the same slots", with_slots(by_rendezvous)),
    ])
}

/// A candidate, with what each rule wants to know of it.
struct Peer {
    place: Place,
    digest: Digest,
    bytes: [u8; 38],
}

impl Peer {
    fn new(n: u64) -> Self {
        let peer = PeerId::from_public_key(Digest::of(&[b"peer", &n.to_be_bytes()]).0);
        Self { place: Place::of(peer), digest: peer.place(), bytes: peer.to_bytes() }
    }

    fn score(&self, anchor: &Cid, task: &TaskId) -> Digest {
        Digest::of(&[anchor.digest(), &task.0, &self.bytes])
    }
}

fn task(n: u64) -> (Cid, TaskId) {
    (Cid::of(&n.to_be_bytes()), TaskId(Digest::of(&[b"task", &n.to_be_bytes()]).0))
}

fn hamming(peers: &[Peer], anchor: &Cid, task: &TaskId) -> usize {
    let first = Seed::of(anchor, task).nearest(peers.iter().map(|peer| &peer.place));
    peers.iter().position(|peer| Some(peer.place.peer()) == first.map(|first| first.peer)).unwrap_or_default()
}

fn hamming_by_id(peers: &[Peer], anchor: &Cid, task: &TaskId) -> usize {
    let seed = Digest::of(&[anchor.digest(), &task.0]);
    let key = |n: &usize| (seed.hamming(&peers[*n].digest), peers[*n].bytes);
    (0..peers.len()).min_by_key(key).unwrap_or_default()
}

/// Highest random weight (Thaler and Ravishankar, 1998), the rule that meshes without a leader usually take.
fn rendezvous(peers: &[Peer], anchor: &Cid, task: &TaskId) -> usize {
    (0..peers.len()).max_by_key(|n| peers[*n].score(anchor, task)).unwrap_or_default()
}

fn by_hamming(a: &Peer, b: &Peer, anchor: &Cid, task: &TaskId) -> Ordering {
    Seed::of(anchor, task).compare(&a.place, &b.place)
}

fn by_rendezvous(a: &Peer, b: &Peer, anchor: &Cid, task: &TaskId) -> Ordering {
    b.score(anchor, task).cmp(&a.score(anchor, task))
}

/// A mesh with more work than slots: a task goes to the first of its ranking that has a slot free; when all are full it
/// waits, and whoever frees a slot takes the first that waits. Two slots a peer; a task takes 30 to 90 s.
fn balance_with_slots(mesh: u64, order: fn(&Peer, &Peer, &Cid, &TaskId) -> Ordering) -> f64 {
    const SLOTS: usize = 2;
    let peers: Vec<Peer> = (0..PEERS).map(|n| Peer::new(mesh << 32 | n)).collect();
    let (mut running, mut won) = (vec![0; peers.len()], vec![0; peers.len()]);
    let mut ends: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    let mut now = 0;
    for n in 0..TASKS {
        let (anchor, task) = task(mesh << 32 | n);
        while running.iter().all(|running| *running == SLOTS) {
            let Some(((at, _), peer)) = ends.pop_first() else { break };
            now = at;
            running[peer] -= 1;
        }
        let free = (0..peers.len()).filter(|peer| running[*peer] < SLOTS);
        let Some(winner) = free.min_by(|a, b| order(&peers[*a], &peers[*b], &anchor, &task)) else { break };
        won[winner] += 1;
        running[winner] += 1;
        let takes = 30_000 + u64::from(u16::from_be_bytes([task.0[0], task.0[1]])) * 60_000 / 65_536;
        ends.insert((now + takes, n), winner);
    }
    max_to_mean(&won)
}

fn max_to_mean(won: &[u32]) -> f64 {
    let most = won.iter().max().copied().unwrap_or_default();
    f64::from(most) * won.len() as f64 / f64::from(won.iter().sum::<u32>().max(1))
}
