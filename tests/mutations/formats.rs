//! What must hold of any bytes that are taken for an entry, an admission, an answer with entries, a ticket or another
//! message: they are read or refused, and what is read is within the limits and is what was written. Whatever is asked
//! answers whether the bytes were taken.
//!
//! tests/mutations.rs feeds it with changes of a corpus, tests/fuzz with what libFuzzer makes of the same corpus.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use ed25519_dalek::{Signer as _, SigningKey};
use runmesh::kernel::clock::{Clock, Placing, Shelf};
use runmesh::kernel::entry::{Admit, Body, Entry, Event, FORMAT, Hlc, MAX_EVENTS, MAX_PARENTS, Right};
use runmesh::kernel::id::{Author, Cid, Incarnation, MeshId, PeerId};
use runmesh::kernel::io::{Request, Response};
use runmesh::kernel::ledger::Ledger;
use runmesh::kernel::snapshot::Sealed;
use runmesh::wire::limits::{MAX_ENTRY, MAX_HEADS, MAX_PAGE, MAX_PAGE_ENTRIES, MAX_PROOF, MAX_REQUEST, MAX_RUNNING};
use runmesh::wire::request::Ask;
use runmesh::wire::response::Told;
use runmesh::wire::revocation::Revocation;
use runmesh::wire::ticket::Invitation;
use runmesh::wire::{entry as entries, gossip, presence as presences, request as requests, response};

pub fn mesh_key() -> SigningKey {
    SigningKey::from_bytes(&[8; 32])
}

pub fn mesh() -> MeshId {
    MeshId(mesh_key().verifying_key().to_bytes())
}

pub fn key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

pub fn peer() -> PeerId {
    PeerId::from_public_key(key().verifying_key().to_bytes())
}

/// The entry by which the author of the corpus is a member.
pub fn founder() -> Arc<Entry> {
    let author = Author { peer: peer(), incarnation: Incarnation(1) };
    let right = Right::founder(&mesh_key(), &peer());
    let events = vec![Event::Admit(Admit { peer: peer(), right })];
    let body =
        Body { format: FORMAT, mesh: mesh(), author, sequence: 1, parents: Vec::new(), time: Hlc::default(), events };
    Arc::new(Entry::seal(body, &key()))
}

/// Where the committed corpora are, seen from whichever package this is a part of.
pub fn corpora() -> PathBuf {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let found = above.map(|folder| folder.join("tests/fixtures/corpus")).find(|folder| folder.is_dir());
    found.expect("tests/fixtures/corpus")
}

/// The committed corpus of a format: first what is well formed, by number, then what was once found to do harm.
pub fn corpus(format: &str) -> Vec<Vec<u8>> {
    let mut names: Vec<PathBuf> =
        fs::read_dir(corpora().join(format)).expect("the corpus").map(|one| one.expect("read").path()).collect();
    names.sort();
    names.iter().map(|name| fs::read(name).expect("read")).collect()
}

/// An entry, and what becomes of it when a member has signed it.
pub fn entry(bytes: &[u8]) -> bool {
    let opened = entries::open(bytes, &mesh());
    if let Ok(entry) = &opened {
        check(entry, bytes);
    }
    // So that what comes behind the signature is reached too.
    if let Some(signed) = signed_again(bytes)
        && let Ok(entry) = entries::open(&signed, &mesh())
    {
        check(&entry, &signed);
        place(&entry);
    }
    opened.is_ok()
}

fn check(entry: &Arc<Entry>, bytes: &[u8]) {
    assert!(bytes.len() <= MAX_ENTRY && entry.bytes()[..] == *bytes && entry.cid() == Cid::of(bytes));
    let body = entry.body();
    assert!(body.parents.len() <= MAX_PARENTS && (1..=MAX_EVENTS).contains(&body.events.len()) && body.sequence > 0);
}

/// The same body under the signature of the corpus's author.
fn signed_again(bytes: &[u8]) -> Option<Vec<u8>> {
    static KEY: LazyLock<SigningKey> = LazyLock::new(key);
    let body = bytes.get(1..bytes.len().checked_sub(66)?)?;
    let signature = KEY.sign(body).to_bytes();
    Some([&[0x82], body, &[0x58, 64], &signature].concat())
}

/// A clock and a ledger take it, whatever it says.
fn place(entry: &Arc<Entry>) {
    static FOUNDER: LazyLock<Arc<Entry>> = LazyLock::new(founder);
    let (mut clock, mut ledger) = (Clock::new(mesh()), Ledger::default());
    for entry in [&*FOUNDER, entry] {
        if let (Placing::Placed { .. }, _) = clock.place(entry, true) {
            let mark = clock.mark(&entry.cid()).expect("placed").clone();
            for task in ledger.add(entry, &mark) {
                ledger.fold(&task, |cid, rules| clock.counts_under(cid, rules));
            }
        }
    }
    let _ = (ledger.state_hash(), clock.rules(), clock.vector());
}

/// An entry that says who may take part. Nobody's key is known but those that signed the corpus, so nothing passes for
/// signed by the mesh but what is.
pub fn admission(bytes: &[u8]) -> bool {
    static COMMITTED: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| corpus("admission"));
    static WORDS: LazyLock<Vec<Event>> = LazyLock::new(|| {
        let opened = COMMITTED.iter().filter_map(|bytes| entries::open(bytes, &mesh()).ok());
        opened.flat_map(|entry| entry.body().events.clone()).collect()
    });
    let holds = |entry: &Entry| {
        entry.body().events.iter().all(|event| match event {
            Event::Admit(admit) => admit.right.admits(&mesh(), &admit.peer),
            Event::Revoke(revoke) => revoke.is_of(&mesh()),
            _ => true,
        })
    };
    if let Some(signed) = signed_again(bytes)
        && let Ok(entry) = entries::open(&signed, &mesh())
    {
        // A member may say it. Whom a ticket admits is not signed: whoever holds it.
        let is_known = |event: &Event| match event {
            Event::Admit(admit) => {
                WORDS.iter().any(|word| matches!(word, Event::Admit(one) if one.right == admit.right))
            }
            Event::Revoke(_) => WORDS.contains(event),
            _ => true,
        };
        if holds(&entry) {
            assert!(entry.body().events.iter().all(is_known), "a change that passes for the mesh's word");
        }
        place(&entry);
    }
    let Ok(entry) = entries::open(bytes, &mesh()) else { return false };
    assert!(COMMITTED.iter().any(|one| one == bytes), "a change that passes for signed");
    holds(&entry)
}

/// A page of entries, or another answer, or a gossiped batch.
pub fn page(bytes: &[u8]) -> bool {
    let told = response::open(bytes, &mesh());
    if let Ok(Told::Kernel(Response::Page { entries, .. })) = &told {
        let size: usize = entries.iter().map(|entry| entry.bytes().len()).sum();
        assert!(entries.len() <= MAX_PAGE_ENTRIES && size <= MAX_PAGE);
    }
    let gossiped = gossip::open_entries(bytes, &mesh());
    told.is_ok() || gossiped.is_ok()
}

pub fn request(bytes: &[u8]) -> bool {
    let opened = requests::open(bytes, &mesh());
    if let Ok(Ask::Kernel(asked)) = &opened {
        let again = requests::seal(asked).expect("seals");
        assert!(
            again.len() <= MAX_REQUEST && requests::open(&again, &mesh()).as_ref() == Ok(&Ask::Kernel(asked.clone()))
        );
        if let Request::Prove { chain } = asked {
            assert!(chain.iter().map(|entry| entry.bytes().len()).sum::<usize>() <= MAX_PROOF);
        }
    }
    opened.is_ok()
}

/// A ticket's text, or a revocation's.
pub fn ticket(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let (ticket, revocation) = (text.parse::<Invitation>(), text.parse::<Revocation>());
    if let Ok(ticket) = &ticket {
        assert!(ticket.ticket.is_of(&ticket.mesh) && ticket.to_string().parse().as_ref() == Ok(ticket));
    }
    if let Ok(revocation) = &revocation {
        assert!(!revocation.is_signed() || revocation.revoke().is_ok());
    }
    ticket.is_ok() || revocation.is_ok()
}

pub fn presence(bytes: &[u8]) -> bool {
    let opened = presences::open(bytes, &mesh());
    if let Ok(presence) = &opened {
        assert!(presence.heads.len() <= MAX_HEADS && presence.running.len() <= MAX_RUNNING);
        assert_eq!(presence.peer, peer());
    }
    opened.is_ok()
}

/// A snapshot of dropped history, as a peer sends it to a newcomer.
pub fn snapshot(bytes: &[u8]) -> bool {
    let opened = Sealed::open(bytes.into(), &mesh());
    if let Ok(sealed) = &opened {
        assert!(sealed.snapshot.as_ref().clone().seal().bytes[..] == *bytes);
        let clock = Clock::above(&sealed.snapshot, sealed.hash, Shelf::default());
        let mut ledger = Ledger::default();
        ledger.stand_on(&sealed.snapshot, sealed.hash, |_| false);
        let _ = (clock.vector(), clock.rules(), ledger.state_hash());
    }
    opened.is_ok()
}
