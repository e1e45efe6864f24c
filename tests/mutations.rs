//! Everything that reads bytes of others, fed with what is almost right: a committed corpus of well-formed messages,
//! changed at random for some seconds each. Nothing may panic, nothing may take memory out of proportion, and whatever
//! is still taken is within the limits and reads back the same.
//!
//! The changes follow from a number that a failure prints. `RUNMESH_WRITE_CORPUS=1` writes the corpus anew. scripts/fuzz
//! tries entries, admissions, pages and tickets harder, guided by what each change reaches.

#[expect(unreachable_pub, reason = "in tests/fuzz it is a part of a library")]
#[path = "mutations/formats.rs"]
mod formats;

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use formats::{corpora, corpus, key, mesh, mesh_key, peer};
use runmesh::kernel::clock::{ChainBase, MemberBase};
use runmesh::kernel::entry::{
    Acknowledge, Admit, Body, Cancel, Claim, Declare, Entry, Event, FORMAT, Hlc, MAX_PARENTS, Revoke, Right, Ticket,
};
use runmesh::kernel::id::{Author, Cid, Digest, Incarnation, PeerId, TaskId};
use runmesh::kernel::io::{Offer, Presence, Request};
use runmesh::kernel::ledger::Paused;
use runmesh::kernel::snapshot::{self, Snapshot};
use runmesh::kernel::task::Fence;
use runmesh::wire::limits::MAX_RUNNING;
use runmesh::wire::revocation::Revocation;
use runmesh::wire::ticket::Invitation;
use runmesh::wire::{gossip, presence, request, response};

/// How long each format is tried that scripts/fuzz tries too, and each other.
const TIME: Duration = Duration::from_secs(5);
const TIME_ALONE: Duration = Duration::from_secs(30);
/// The most that the process may grow by while it reads.
const GROWTH_KIB: u64 = 256 * 1024;

fn cids(count: usize) -> Vec<Cid> {
    let set: BTreeSet<Cid> = (0..count).map(|n| Cid::of(&n.to_be_bytes())).collect();
    set.into_iter().collect()
}

fn sealed(parents: usize, events: Vec<Event>) -> Arc<Entry> {
    let author = Author { peer: peer(), incarnation: Incarnation(7) };
    let time = Hlc { ms: 1_767_225_600_000, count: 1 };
    let body = Body { format: FORMAT, mesh: mesh(), author, sequence: 9, parents: cids(parents), time, events };
    Arc::new(Entry::seal(body, &key()))
}

fn admission() -> Arc<Entry> {
    let labels = Some(BTreeSet::from(["gpu".to_owned(), "linux".to_owned()]));
    let ticket = Ticket::sign_for(&mesh_key(), 5, 1_900_000_000_000, labels);
    sealed(2, vec![Event::Admit(Admit { peer: PeerId::from_public_key([6; 32]), right: Right::Ticket { ticket } })])
}

fn founder() -> Arc<Entry> {
    sealed(0, vec![Event::Admit(Admit { peer: peer(), right: Right::founder(&mesh_key(), &peer()) })])
}

fn revocation() -> Arc<Entry> {
    let last = vec![(Incarnation(1), 7), (Incarnation(2), 9)];
    sealed(1, vec![Event::Revoke(Revoke::sign(&mesh_key(), PeerId::from_public_key([6; 32]), last))])
}

fn entries() -> Vec<Arc<Entry>> {
    let task = TaskId([4; 32]);
    let cancel = || Event::Cancel(Cancel { task, why: "w".repeat(100) });
    vec![
        sealed(1, vec![cancel()]),
        sealed(MAX_PARENTS, vec![cancel(); 20]),
        sealed(
            3,
            vec![
                Event::Claim(Claim { task, attempt: 2, anchor: cids(1)[0] }),
                Event::Declare(Declare { rules: 1 }),
                Event::Acknowledge(Acknowledge { proposal: cids(1)[0] }),
            ],
        ),
        admission(),
        founder(),
        revocation(),
    ]
}

fn presences() -> Vec<Vec<u8>> {
    let of = |count: usize| Presence {
        peer: peer(),
        life: 3,
        beat: 4,
        every: 1000,
        attentive: true,
        heads: cids(count).into_iter().collect(),
        offer: Offer { slots: 4, labels: ["linux".to_owned()].into(), sources: ["git:sample".to_owned()].into() },
        free: 2,
        draining: false,
        cordoned: false,
        running: cids(count)
            .into_iter()
            .take(MAX_RUNNING)
            .map(|cid| (TaskId(*cid.digest()), Fence { attempt: 1, claim: cid }))
            .collect(),
        unheard: BTreeSet::from([PeerId::from_public_key([6; 32])]),
        discovered: [("git:sample".to_owned(), 1234)].into(),
        covers: Default::default(),
        version: "0.1.0".to_owned(),
    };
    vec![presence::seal(&of(1), &key(), &mesh()), presence::seal(&of(100), &key(), &mesh())]
}

fn snapshots() -> Vec<Vec<u8>> {
    let author = Author { peer: peer(), incarnation: Incarnation(7) };
    let gone = Author { peer: PeerId::from_public_key([6; 32]), incarnation: Incarnation(1) };
    let mut chains = vec![
        ChainBase { author, entries: 9, counting: 9, void: None },
        ChainBase { author: gone, entries: 4, counting: 2, void: Some(3) },
    ];
    chains.sort_by_key(|chain| chain.author);
    let member = MemberBase {
        peer: peer(),
        by: peer(),
        since_ms: 7,
        rights: vec![Right::founder(&mesh_key(), &peer())],
        rules: 2,
        retired: false,
    };
    let time = Hlc { ms: 1_767_225_600_000, count: 1 };
    let paused = Paused { by: peer(), since: time, entry: cids(1)[0], why: "because".to_owned() };
    let least = Snapshot {
        format: snapshot::FORMAT,
        mesh: mesh(),
        cut: cids(1)[0],
        author,
        height: 12,
        time,
        chains,
        members: vec![member],
        open: Vec::new(),
        closed: vec![(TaskId([4; 32]), 5), (TaskId([5; 32]), 6)],
        submitted: Vec::new(),
        paused: None,
        revoked: Vec::new(),
        rules: 0,
    };
    let revoked = vec![Revoke::sign(&mesh_key(), gone.peer, vec![(Incarnation(1), 2)])];
    let more = Snapshot { paused: Some(paused), revoked, rules: Snapshot::RULES_UNNAMED + 1, ..least.clone() };
    [least, more].into_iter().map(|snapshot| snapshot.seal().bytes.to_vec()).collect()
}

/// Each format and what is well formed in it.
fn seeds(format: &str) -> Vec<Vec<u8>> {
    let bytes = |entry: &Arc<Entry>| entry.bytes().to_vec();
    match format {
        "entry" => entries().iter().map(bytes).collect(),
        "admission" => vec![bytes(&admission()), bytes(&founder()), bytes(&revocation())],
        "page" => vec![
            response::seal_page(entries().iter().map(|entry| entry.bytes()), true).bytes,
            response::seal_page(std::iter::empty::<&[u8]>(), false).bytes,
            response::seal_beneath(&Digest([7; 32]), 3),
            response::seal_refused("because"),
            gossip::seal_entries(&entries()).remove(0),
        ],
        "request" => [
            Request::Prove { chain: vec![admission(), founder()] },
            Request::Join { ticket: Ticket::sign(&mesh_key(), 1, 2) },
            Request::Sync { vector: [(admission().author(), 9)].into(), want: cids(9).into_iter().collect() },
            Request::Turn { tasks: [TaskId([4; 32])].into() },
            Request::Snapshot { hash: Digest([7; 32]), part: 2 },
        ]
        .iter()
        .map(|asked| request::seal(asked).expect("seals"))
        .collect(),
        "ticket" => {
            let address = "/ip4/192.0.2.1/tcp/4477/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp".to_owned();
            let ticket = |labels| Ticket::sign_for(&mesh_key(), 7, 1_900_000_000_000, labels);
            let of = |labels| Invitation { mesh: mesh(), ticket: ticket(labels), addresses: vec![address.clone(); 2] };
            let signed = Revocation::of(mesh(), peer(), vec![(Incarnation(1), 7)]).sign(&mesh_key()).expect("signs");
            vec![
                of(None).to_string().into_bytes(),
                of(Some(BTreeSet::from(["gpu".to_owned()]))).to_string().into_bytes(),
                signed.to_string().into_bytes(),
                Revocation::of(mesh(), peer(), Vec::new()).to_string().into_bytes(),
            ]
        }
        "presence" => presences(),
        "snapshot" => snapshots(),
        other => panic!("{other}"),
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// One change or several: bits, bytes, lengths, cuts, repeats, and parts of others.
fn changed(bytes: &[u8], others: &[Vec<u8>], draws: &mut Draws) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=draws.below(4) {
        let at = draws.below(bytes.len());
        match draws.below(8) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << draws.below(8),
            1 if !bytes.is_empty() => bytes[at] = draws.next() as u8,
            2 if !bytes.is_empty() => bytes[at] = [0x00, 0x7f, 0x80, 0xff, 0x9b, 0xbb, 0x5b, 0x81][draws.below(8)],
            3 => bytes.truncate(at),
            4 => {
                let end = (at + draws.below(64)).min(bytes.len());
                let part = bytes[at.min(end)..end].to_vec();
                let times = draws.below(40);
                (0..times).for_each(|_| drop(bytes.splice(at..at, part.iter().copied())));
            }
            5 => {
                let other = &others[draws.below(others.len())];
                let from = draws.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            6 => drop(bytes.splice(at..at, (0..draws.below(9)).map(|_| draws.next() as u8).collect::<Vec<_>>())),
            _ => {
                let end = (at + draws.below(32)).min(bytes.len());
                bytes.drain(at.min(end)..end);
            }
        }
    }
    bytes
}

struct Tells(u64);

impl Drop for Tells {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "which case failed")]
            {
                eprintln!("case {}", self.0);
            }
        }
    }
}

fn rss_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a size");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

/// Reads the corpus, then what becomes of it, until the time is over. `open` answers whether it took the bytes.
fn hammer(format: &str, time: Duration, open: impl Fn(&[u8]) -> bool) {
    let seeds = seeds(format);
    if std::env::var_os("RUNMESH_WRITE_CORPUS").is_some() {
        let folder = corpora().join(format);
        fs::create_dir_all(&folder).expect("a folder");
        for (number, bytes) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("{number}")), bytes).expect("written");
        }
    }
    let corpus = corpus(format);
    assert!(corpus.starts_with(&seeds), "the committed corpus is of another format: see the top of this file");
    for (number, bytes) in seeds.iter().enumerate() {
        assert!(open(bytes), "{format} {number} is well formed");
    }
    for bytes in &corpus {
        open(bytes);
    }
    let (before, began, mut case) = (rss_kib(), Instant::now(), 0);
    while began.elapsed() < time {
        case += 1;
        let tells = Tells(case);
        let mut draws = Draws(case);
        let bytes = changed(&corpus[draws.below(corpus.len())], &corpus, &mut draws);
        open(&bytes);
        drop(tells);
    }
    let grown = rss_kib() - before;
    assert!(grown < GROWTH_KIB, "{grown} KiB more after {case} cases");
    assert!(case > 500, "only {case} cases");
}

#[test]
fn entries_are_read_or_refused() {
    hammer("entry", TIME, formats::entry);
}

#[test]
fn admissions_are_read_or_refused_and_no_change_makes_a_right() {
    hammer("admission", TIME, formats::admission);
}

#[test]
fn pages_and_other_answers_are_read_or_refused() {
    hammer("page", TIME, formats::page);
}

#[test]
fn requests_and_proofs_are_read_or_refused() {
    hammer("request", TIME_ALONE, formats::request);
}

#[test]
fn tickets_and_revocations_are_read_or_refused() {
    hammer("ticket", TIME, formats::ticket);
}

#[test]
fn presences_are_read_or_refused() {
    hammer("presence", TIME_ALONE, formats::presence);
}

#[test]
fn snapshots_are_read_or_refused() {
    hammer("snapshot", TIME_ALONE, formats::snapshot);
}
