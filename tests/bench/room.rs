//! What a node's history takes on disk over weeks: a mesh in virtual time, one of whose disks is a real database.

use std::path::Path;
use std::time::Instant;

use runmesh::kernel::snapshot::Sealed;
use runmesh::store::{DataDir, Owner, Store};

use super::Outcome;
use super::mesh::{HOUR, Kept, Mesh};
use super::report::{Goal, Row};

const MEMBERS: usize = 3;
const TASKS_A_DAY: u64 = 1_000;
/// By then the retention time of 7 days is over and checkpoints have come to stand.
const FILLING: u64 = 10;
/// How many days are measured after that, in two halves.
const STEADY: u64 = 14;
/// The member whose disk is real.
const MEASURED: usize = 1;
/// How many entries are put on disk at once: a sync for each would measure the disk.
const AT_ONCE: usize = 500;

/// The growth of the database a day, once history is as old as it gets; its size; and how long a start takes then.
pub(crate) fn steady() -> Outcome<Vec<Row>> {
    let mut mesh = Mesh::of(MEMBERS);
    let dir = tempfile::tempdir()?;
    let host = &mesh.hosts[MEASURED];
    let owner = Owner { mesh: mesh.id, peer: host.peer };
    let store = Store::open(DataDir::create(dir.path())?.hold()?, owner)?;
    store.append(&host.disk.entries)?;
    mesh.hosts[MEASURED].journal = Some(Vec::new());
    let mut sizes = Vec::new();
    for day in 0..FILLING + STEADY {
        mesh.days(1, TASKS_A_DAY, |_| {});
        keep(&store, mesh.hosts[MEASURED].journal.replace(Vec::new()).unwrap_or_default())?;
        if day >= FILLING {
            sizes.push(size(dir.path())?);
        }
    }
    mesh.run(HOUR);
    keep(&store, mesh.hosts[MEASURED].journal.take().unwrap_or_default())?;
    drop(store);
    let began = Instant::now();
    let store = Store::open(DataDir::open(dir.path())?.hold()?, owner)?;
    let snapshot = store.snapshot()?.ok_or("nothing was dropped")?;
    Sealed::open(snapshot.into(), &mesh.id)?;
    let mut entries = 0;
    for bytes in store.entries()? {
        runmesh::wire::entry::open(&bytes?, &mesh.id)?;
        entries += 1;
    }
    let start_ms = began.elapsed().as_secs_f64() * 1000.0;
    let (first, second) = sizes.split_at(sizes.len() / 2);
    let most = |half: &[u64]| half.iter().copied().max().unwrap_or(0) as f64;
    let growth = (most(second) - most(first)) * 2.0 / STEADY as f64;
    Ok(vec![
        Row::alone("history_bytes_steady", "B/day", Goal::AtMost(0.0), growth).without("all: grows for ever"),
        Row::alone("history_bytes", "B", Goal::None, most(second)),
        Row::alone("history_entries", "", Goal::None, f64::from(entries)),
        Row::alone("history_start_ms", "ms", Goal::None, start_ms),
    ])
}

/// Does on the real disk what the made-up one did.
fn keep(store: &Store, journal: Vec<Kept>) -> Outcome<()> {
    let mut waiting = Vec::new();
    for kept in journal {
        match kept {
            Kept::Persist(entries) => waiting.extend(entries),
            Kept::Condense { snapshot, dropped } => {
                store.append(&std::mem::take(&mut waiting))?;
                store.condense(&snapshot, &dropped)?;
            }
        }
        if waiting.len() >= AT_ONCE {
            store.append(&std::mem::take(&mut waiting))?;
        }
    }
    store.append(&waiting)?;
    Ok(())
}

fn size(dir: &Path) -> Outcome<u64> {
    Ok(std::fs::metadata(dir.join("runmesh.redb"))?.len())
}
