//! The database and the data directory on a real disk: crashes, full disks, foreign files, second processes.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use runmesh::kernel::entry::{Body, Cancel, Entry, Event, FORMAT, Hlc};
use runmesh::kernel::id::{Author, Cid, Incarnation, MeshId, PeerId, TaskId};
use runmesh::store::{Book, DataDir, Holder, Owner, Secret, Store, StoreError};

/// The directory that a process started by a test works in; unset, those processes' tests have nothing to do.
const CHILD_DIR: &str = "RUNMESH_TEST_STORE_DIR";

fn key() -> SigningKey {
    Secret::from_seed([3; 32]).signing_key()
}

fn owner() -> Owner {
    Owner { mesh: MeshId([5; 32]), peer: PeerId::from_public_key(key().verifying_key().to_bytes()) }
}

/// The entry of that number; about 400 bytes, as a claim with a few parents is.
fn entry(number: u64) -> Arc<Entry> {
    entry_of(number, 80)
}

fn entry_of(number: u64, note: usize) -> Arc<Entry> {
    let event = Event::Cancel(Cancel { task: TaskId([4; 32]), why: "x".repeat(note) });
    let body = Body {
        format: FORMAT,
        mesh: owner().mesh,
        author: Author { peer: owner().peer, incarnation: Incarnation(1) },
        sequence: number + 1,
        parents: vec![Cid::of(&number.to_be_bytes())],
        time: Hlc { ms: number, count: 0 },
        events: vec![event],
    };
    Arc::new(Entry::seal(body, &key()))
}

fn open(dir: &Path) -> Result<Store, StoreError> {
    Store::open(DataDir::create(dir)?.hold()?, owner())
}

fn cids(store: &Store) -> Vec<Cid> {
    store.entries().expect("readable").map(|bytes| Cid::of(&bytes.expect("readable"))).collect()
}

fn numbered(numbers: impl IntoIterator<Item = u64>) -> Vec<Arc<Entry>> {
    numbers.into_iter().map(entry).collect()
}

#[test]
fn entries_come_back_in_the_order_they_were_kept_in_and_once() {
    let dir = tempfile::tempdir().expect("directory");
    // Not the order of digests, so that order by place and by digest differ.
    let all = numbered(0..100);
    let expected: Vec<Cid> = all.iter().map(|entry| entry.cid()).collect();
    {
        let store = open(dir.path()).expect("opens");
        assert_eq!(store.append(&all[..60]).expect("kept"), 60);
        assert_eq!(store.append(&all[30..100]).expect("kept"), 40);
        assert_eq!(store.append(&all[10..20]).expect("kept"), 0);
        assert_eq!(store.append(&[all[5].clone(), all[5].clone()]).expect("kept"), 0);
        assert_eq!(store.append(&[]).expect("kept"), 0);
        assert_eq!(cids(&store), expected);
    }
    let store = open(dir.path()).expect("opens again");
    assert_eq!(cids(&store), expected);
    assert_eq!(store.count().expect("counted"), 100);
    assert_eq!(store.bytes_of(expected[42]).expect("read").as_deref(), Some(&all[42].bytes()[..]));
    assert_eq!(store.bytes_of(Cid::of(b"none")).expect("read"), None);
}

#[test]
fn entries_are_read_while_others_are_appended() {
    let dir = tempfile::tempdir().expect("directory");
    let store = open(dir.path()).expect("opens");
    store.append(&numbered(0..10)).expect("kept");
    let mut reading = store.entries().expect("readable");
    assert!(reading.next().is_some());
    store.append(&numbered(10..20)).expect("kept");
    assert_eq!(reading.count(), 9, "as they stood when the reading began");
    assert_eq!(cids(&store).len(), 20);
}

#[test]
fn a_page_holds_what_was_asked_in_order_within_its_bytes() {
    let dir = tempfile::tempdir().expect("directory");
    let store = open(dir.path()).expect("opens");
    let all: Vec<_> = (0..10).map(|number| entry_of(number, number as usize * 40)).collect();
    store.append(&all).expect("kept");
    let asked: Vec<Cid> = all.iter().rev().map(|entry| entry.cid()).collect();
    let lengths: Vec<usize> = all.iter().rev().map(|entry| entry.bytes().len()).collect();
    for max in 0..=lengths.iter().sum::<usize>() + 1 {
        let page = store.page(&asked, max).expect("read");
        let fitting = (1..=10).take_while(|n| lengths[..*n].iter().sum::<usize>() <= max).count().max(1);
        assert_eq!(page.len(), fitting, "{max} bytes");
        assert!(page.iter().zip(&asked).all(|(bytes, cid)| Cid::of(bytes) == *cid));
    }
    let mut with_hole = asked.clone();
    with_hole.insert(3, Cid::of(b"none"));
    assert_eq!(store.page(&with_hole, usize::MAX).expect("read").len(), 3, "ends before what is not here");
    assert!(store.page(&[], 100).expect("read").is_empty());
}

#[test]
fn dropped_entries_are_gone_and_their_room_is_used_again() {
    let dir = tempfile::tempdir().expect("directory");
    let store = open(dir.path()).expect("opens");
    let size = || fs::metadata(dir.path().join("runmesh.redb")).expect("there").len();
    let all = numbered(0..2000);
    store.append(&all).expect("kept");
    let full = size();
    for round in 1..6 {
        let old: Vec<Cid> = cids(&store).into_iter().take(1000).collect();
        assert_eq!(store.drop_entries(&old).expect("dropped"), 1000);
        assert_eq!(store.drop_entries(&old).expect("dropped"), 0);
        assert_eq!(store.bytes_of(old[7]).expect("read"), None);
        store.append(&numbered(1000 * (round + 1)..1000 * (round + 2))).expect("kept");
        assert_eq!(store.count().expect("counted"), 2000);
    }
    assert!(size() <= 2 * full, "{} bytes after five rounds, {full} before", size());
    let expected: Vec<Cid> = numbered(5000..7000).iter().map(|entry| entry.cid()).collect();
    assert_eq!(cids(&store), expected);
    assert_eq!(store.append(&all[..1]).expect("kept"), 1, "what was dropped may come again");
}

#[test]
fn a_snapshot_takes_the_place_of_entries() {
    let dir = tempfile::tempdir().expect("directory");
    let store = open(dir.path()).expect("opens");
    assert_eq!(store.snapshot().expect("read"), None);
    let all = numbered(0..10);
    store.append(&all).expect("kept");
    let dropped: Vec<Cid> = all[..6].iter().map(|entry| entry.cid()).collect();
    store.condense(b"first", &dropped).expect("condensed");
    // What is gone already is passed over.
    store.condense(b"second", &dropped[..1]).expect("condensed");
    drop(store);
    let store = open(dir.path()).expect("opens");
    assert_eq!(store.snapshot().expect("read").as_deref(), Some(b"second".as_slice()));
    assert_eq!(cids(&store), all[6..].iter().map(|entry| entry.cid()).collect::<Vec<_>>());
}

#[test]
fn the_ledgers_books_are_apart_and_what_is_struck_out_stays_away() {
    let dir = tempfile::tempdir().expect("directory");
    let record = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
    {
        let store = open(dir.path()).expect("opens");
        assert_eq!(store.records(Book::Starts).expect("read"), []);
        for (name, bytes) in [("b", b"1".as_slice()), ("a", b"2"), ("c", b"3"), ("a", b"4")] {
            store.enter(Book::Starts, name, bytes).expect("entered");
        }
        store.enter(Book::Images, "a", b"").expect("entered");
        store.strike(Book::Starts, &["c", "never"]).expect("struck");
        store.strike(Book::Registrations, &["a"]).expect("nothing to strike");
    }
    let store = open(dir.path()).expect("opens");
    assert_eq!(store.records(Book::Starts).expect("read"), [record("a", b"4"), record("b", b"1")]);
    assert_eq!(store.records(Book::Images).expect("read"), [record("a", b"")]);
    assert_eq!(store.records(Book::Registrations).expect("read"), []);
    assert_eq!(store.count().expect("read"), 0);
}

#[test]
fn a_directory_is_made_private_and_one_that_others_write_to_is_refused() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("a/b");
    assert!(matches!(DataDir::open(&path), Err(StoreError::NoDirectory { .. })));
    drop(open(&path).expect("opens"));
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("runmesh.redb")), 0o600);
    assert_eq!(mode(&path.join("node.lock")), 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("chmod");
    let sentence = open(&path).expect_err("others can write").to_string();
    assert!(sentence.contains(&format!("chmod go-w {}", path.display())), "{sentence}");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("written");
    assert!(matches!(DataDir::open(&file), Err(StoreError::Directory { .. })));
    assert!(matches!(DataDir::create(&file.join("below")), Err(StoreError::File { .. })));
}

#[test]
fn a_second_holder_is_refused_and_told_who_the_first_is() {
    let dir = tempfile::tempdir().expect("directory");
    let first = open(dir.path()).expect("opens");
    match open(dir.path()) {
        Err(StoreError::Held { holder: Holder::Process { pid, .. }, .. }) => assert_eq!(pid, std::process::id()),
        other => panic!("{other:?}"),
    }
    drop(first);
    // A process that was killed leaves its number but not its lock.
    let mut child = child("child_appends", dir.path()).spawn().expect("started");
    let mut lines = BufReader::new(child.0.stdout.take().expect("piped")).lines();
    assert_eq!(acknowledged(&mut lines), Some(0));
    let sentence = open(dir.path()).expect_err("held").to_string();
    assert!(sentence.contains(&format!("process {} (`", child.0.id())), "{sentence}");
    assert!(sentence.contains("child_appends"), "names the command: {sentence}");
    child.0.kill().expect("killed");
    child.0.wait().expect("ended");
    drop(open(dir.path()).expect("the lock went with its process"));
}

#[test]
fn a_database_of_another_mesh_or_peer_is_refused() {
    let dir = tempfile::tempdir().expect("directory");
    open(dir.path()).expect("opens").append(&numbered(0..3)).expect("kept");
    let before = fs::read(dir.path().join("runmesh.redb")).expect("read");
    let try_as = |owner| DataDir::open(dir.path()).and_then(DataDir::hold).and_then(|dir| Store::open(dir, owner));
    let other_mesh = try_as(Owner { mesh: MeshId([6; 32]), ..owner() });
    assert!(matches!(other_mesh, Err(StoreError::OtherMesh { .. })), "{other_mesh:?}");
    let other_peer = try_as(Owner { peer: PeerId::from_public_key([1; 32]), ..owner() });
    assert!(matches!(other_peer, Err(StoreError::OtherPeer { .. })), "{other_peer:?}");
    assert!(fs::read(dir.path().join("runmesh.redb")).expect("read") == before, "not a byte is written");
    assert_eq!(cids(&open(dir.path()).expect("opens")).len(), 3);
}

/// A refusal, and the sentence, of a file that is no intact database; the file keeps its bytes.
fn refused(dir: &Path, bytes: &[u8], what: &str) -> StoreError {
    let path = dir.join("runmesh.redb");
    fs::write(&path, bytes).expect("written");
    let error = open(dir).expect_err(what);
    let sentence = error.to_string();
    assert!(sentence.contains(&path.display().to_string()) && sentence.contains("move it away"), "{what}: {sentence}");
    assert!(fs::read(&path).expect("read") == bytes, "{what}: the file was changed");
    error
}

#[test]
fn a_file_that_is_no_intact_database_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().expect("directory");
    {
        let store = open(dir.path()).expect("opens");
        store.append(&numbered(0..500)).expect("kept");
    }
    let good = fs::read(dir.path().join("runmesh.redb")).expect("read");

    let garbage: Vec<u8> = (0..50_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert!(matches!(refused(dir.path(), &garbage, "garbage"), StoreError::Foreign { .. }));
    assert!(matches!(refused(dir.path(), b"", "empty"), StoreError::Foreign { .. }));
    assert!(matches!(refused(dir.path(), b"SQLite format 3\0", "short"), StoreError::Foreign { .. }));
    for length in [9, 100, 4096, 8192, good.len() / 2, good.len() - 1] {
        let error = refused(dir.path(), &good[..length], &format!("cut to {length}"));
        assert!(matches!(error, StoreError::Foreign { .. } | StoreError::Damaged { .. }), "{error:?}");
    }

    let foreign = tempfile::tempdir().expect("directory");
    let path = foreign.path().join("other.redb");
    {
        let database = redb::Database::create(&path).expect("made");
        let transaction = database.begin_write().expect("begun");
        let table: redb::TableDefinition<&str, &[u8]> = redb::TableDefinition::new("somebody's");
        transaction.open_table(table).expect("opened").insert("a", b"b".as_slice()).expect("inserted");
        transaction.commit().expect("committed");
    }
    let other = fs::read(&path).expect("read");
    assert!(matches!(refused(dir.path(), &other, "another program's"), StoreError::Foreign { .. }));

    fs::write(dir.path().join("runmesh.redb"), &good).expect("written");
    assert_eq!(cids(&open(dir.path()).expect("opens")).len(), 500, "what was moved back is whole");
}

#[test]
fn a_damaged_page_is_never_taken_for_history() {
    let dir = tempfile::tempdir().expect("directory");
    let expected: Vec<Cid> = numbered(0..300).iter().map(|entry| entry.cid()).collect();
    {
        let store = open(dir.path()).expect("opens");
        store.append(&numbered(0..300)).expect("kept");
    }
    let path = dir.path().join("runmesh.redb");
    let good = fs::read(&path).expect("read");
    let used: Vec<usize> =
        (0..good.len() / 4096).filter(|page| good[page * 4096..][..4096].iter().any(|b| *b != 0)).collect();
    let (mut refusals, mut whole) = (0, 0);
    for page in used {
        let mut bytes = good.clone();
        bytes[page * 4096 + 1000] ^= 0xff;
        fs::write(&path, &bytes).expect("written");
        match open(dir.path()) {
            Ok(store) => {
                assert_eq!(cids(&store), expected, "page {page}");
                whole += 1;
            }
            Err(StoreError::Damaged { .. } | StoreError::Foreign { .. }) => {
                assert!(fs::read(&path).expect("read") == bytes, "page {page}: the file was changed");
                refusals += 1;
            }
            Err(other) => panic!("page {page}: {other:?}"),
        }
    }
    assert!(refusals > 10, "{refusals} damaged pages refused, {whole} not in use");
}

/// A child that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Prepared(Command);

impl Prepared {
    fn spawn(mut self) -> std::io::Result<Running> {
        self.0.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().map(Running)
    }
}

/// This test binary again, to run one test of it as a process of its own.
fn child(test: &str, dir: &Path) -> Prepared {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD_DIR, dir);
    Prepared(command)
}

/// The next number that a child acknowledges; `None` when it has ended.
fn acknowledged(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> Option<u64> {
    lines.map_while(Result::ok).find_map(|line| line.split_once("kept ")?.1.parse().ok())
}

/// Not a test of its own: the process that `what_was_acknowledged_survives_a_kill` kills.
#[test]
fn child_appends() {
    let Some(dir) = std::env::var_os(CHILD_DIR).map(PathBuf::from) else { return };
    let store = open(&dir).expect("opens");
    let first = store.count().expect("counted");
    let mut out = std::io::stdout().lock();
    for number in first.. {
        // Batches of one to four, so that a kill also falls between the entries of one append.
        let batch = number * 4..number * 4 + 1 + number % 4;
        store.append(&numbered(batch)).expect("kept");
        writeln!(out, "kept {}", number - first).and_then(|()| out.flush()).expect("told");
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().expect("directory");
    let mut kept: Vec<Cid> = Vec::new();
    for round in 0..20_u64 {
        let first = kept.len() as u64;
        let mut child = child("child_appends", dir.path()).spawn().expect("started");
        let mut lines = BufReader::new(child.0.stdout.take().expect("piped")).lines();
        // Killed after so many acknowledgements and then at a moment that differs from round to round.
        let wanted = 1 + round * 7 % 23;
        let mut last = None;
        while last.is_none_or(|last| last < wanted) {
            last = Some(acknowledged(&mut lines).expect("the child goes on until it is killed"));
        }
        let moment = Instant::now() + Duration::from_micros(round * 137 % 2000);
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        child.0.kill().expect("killed");
        child.0.wait().expect("ended");
        while let Some(number) = acknowledged(&mut lines) {
            last = Some(number);
        }
        let store = open(dir.path()).expect("opens after a kill");
        let now = cids(&store);
        assert_eq!(now[..kept.len()], kept, "round {round}: what was there before is there");
        let appends =
            |count: u64| (first..first + count).flat_map(|n| n * 4..n * 4 + 1 + n % 4).map(|n| entry(n).cid());
        let told: Vec<Cid> = appends(last.expect("some") + 1).collect();
        let one_more: Vec<Cid> = appends(last.expect("some") + 2).collect();
        let new = &now[kept.len()..];
        assert!(new == told || new == one_more, "round {round}: {} told, {} there", told.len(), new.len());
        kept = now;
    }
    assert_eq!(kept.iter().collect::<BTreeSet<_>>().len(), kept.len());
}

/// Not a test of its own: the process that `a_full_disk_takes_nothing_away` gives a small disk.
#[test]
fn child_fills_the_disk() {
    let Some(dir) = std::env::var_os(CHILD_DIR).map(PathBuf::from) else { return };
    let store = open(&dir.join("node")).expect("opens");
    let mut kept = 0;
    let failure = loop {
        match store.append(&[entry_of(kept, 400)]) {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 100_000, "the disk is never full");
    };
    assert!(matches!(failure, StoreError::Full { .. }), "{failure:?}");
    assert!(failure.to_string().contains("no space is left"), "{failure}");
    let expected: Vec<Cid> = (0..kept).map(|number| entry_of(number, 400).cid()).collect();
    // Usable at once: read, and refuse again in the same words.
    let may_have_been_kept = |now: &[Cid]| now.len() == expected.len() || now.len() == expected.len() + 1;
    let now = cids(&store);
    assert!(now.starts_with(&expected) && may_have_been_kept(&now), "{} kept, {} there", kept, now.len());
    let again = store.append(&(kept..kept + 2000).map(|number| entry_of(number, 400)).collect::<Vec<_>>());
    assert!(matches!(again, Err(StoreError::Full { .. })), "{again:?}");
    drop(store);
    let store = open(&dir.join("node")).expect("opens on a full disk");
    assert!(cids(&store).starts_with(&expected));
    // Usable again once there is room.
    if fs::remove_file(dir.join("ballast")).is_ok() {
        store.append(&[entry_of(kept, 400)]).expect("kept once there is room");
        drop(store);
        let now = cids(&open(&dir.join("node")).expect("opens"));
        assert_eq!(now[..expected.len()], expected);
        assert!(now.contains(&entry_of(kept, 400).cid()));
    }
    writeln!(std::io::stdout(), "kept {kept}").expect("told");
}

#[test]
fn a_full_disk_takes_nothing_away() {
    let dir = tempfile::tempdir().expect("directory");
    let binary = std::env::current_exe().expect("this binary");
    // A disk of its own in a mount namespace of its own: it goes with the process. Where this host allows none, a
    // limit on the size of files.
    let disk = "mount -t tmpfs -o size=3m none \"$0\" && head -c 1000000 /dev/zero > \"$0/ballast\" && exec \"$@\"";
    let limit = "trap '' XFSZ; ulimit -f 2048; exec \"$@\"";
    let own_disk = Command::new("unshare").args(["-Urm", "true"]).output().is_ok_and(|output| output.status.success());
    let mut command = if own_disk { Command::new("unshare") } else { Command::new("sh") };
    if own_disk {
        command.args(["-Urm", "sh", "-c", disk]);
    } else {
        command.args(["-c", limit]);
    }
    let output = command
        .arg(dir.path())
        .arg(binary)
        .args(["--exact", "child_fills_the_disk", "--nocapture"])
        .env(CHILD_DIR, dir.path())
        .output()
        .expect("ran");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    let kept: u64 = out.lines().find_map(|line| line.split_once("kept ")?.1.parse().ok()).expect("it says how many");
    assert!(kept > 100, "{kept}");
    assert_eq!(fs::read_dir(dir.path()).expect("there").count() > 0, !own_disk, "the disk went with its process");
}

#[test]
fn many_threads_append_and_read_at_once() {
    let dir = tempfile::tempdir().expect("directory");
    let store = open(dir.path()).expect("opens");
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..25 {
                    let entry = entry(thread * 25 + number);
                    store.append(std::slice::from_ref(&entry)).expect("kept");
                    assert_eq!(store.bytes_of(entry.cid()).expect("read").as_deref(), Some(&entry.bytes()[..]));
                }
            });
        }
    });
    assert_eq!(cids(&store).len(), 100);
}

#[test]
fn a_database_that_was_not_finished_being_made_is_made_anew() {
    let dir = tempfile::tempdir().expect("directory");
    fs::write(dir.path().join("runmesh.redb.new"), b"redb\x1a half").expect("written");
    let store = open(dir.path()).expect("opens");
    assert_eq!(store.count().expect("counted"), 0);
    assert!(!dir.path().join("runmesh.redb.new").exists());
}

#[test]
fn damage_that_comes_while_it_is_open_is_an_error_and_then_a_refusal() {
    let dir = tempfile::tempdir().expect("directory");
    // More than the engine's cache holds.
    let all: Vec<_> = (0..2_000).map(|number| entry_of(number, 10_000)).collect();
    open(dir.path()).expect("opens").append(&all).expect("kept");
    let store = open(dir.path()).expect("opens");
    let path = dir.path().join("runmesh.redb");
    let file = fs::OpenOptions::new().write(true).open(&path).expect("opens");
    let length = file.metadata().expect("there").len();
    for page in 2..length / 4096 {
        file.write_all_at(&[0xa5; 4096], page * 4096).expect("written");
    }
    let read: Result<Vec<_>, _> = store.entries().and_then(|entries| entries.collect());
    assert!(read.is_err(), "damaged pages are not read as entries");
    drop(store);
    assert!(matches!(open(dir.path()), Err(StoreError::Damaged { .. })));
}
