//! The database file: making it, opening it, and saying whose it is.
//!
//! Promises: a file that is not this node's intact database is refused and its bytes stay as they are. The one repair
//! there is, is the engine's own after a crash: back to the last commit that was synced.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use redb::{
    Builder, CompactionError, Database, ReadTransaction, ReadableDatabase as _, RepairSession, TableDefinition,
    TableHandle as _,
};

use crate::kernel::id::{MeshId, PeerId};

use super::dir::{HeldDir, remove_leftover};
use super::error::StoreError;

/// The entries' bytes by their place in the kept order.
pub(super) const ENTRIES: TableDefinition<u64, &[u8]> = TableDefinition::new("entries");
/// An entry's place by the digest in its CID.
pub(super) const PLACES: TableDefinition<&[u8; 32], u64> = TableDefinition::new("places");
/// What stands for entries that were forgotten.
pub(super) const SNAPSHOT: TableDefinition<(), &[u8]> = TableDefinition::new("snapshot");
/// Whose database this is.
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("runmesh");

/// The database, in the data directory.
pub const DATABASE: &str = "runmesh.redb";
/// A database that is being made; it gets its name when it is whole.
const UNFINISHED: &str = "runmesh.redb.new";
/// How the tables are laid out. A change that older versions would misread raises it.
const LAYOUT: u32 = 1;
/// The engine's page cache, in bytes. An idle node may take 40 MiB in all (DESIGN.md section 10), and entries are read
/// in whole only at the start.
const CACHE: usize = 8 * 1024 * 1024;
/// The least free room that is worth shortening the file for, in bytes. Own choice.
const LEAST_FREE: u64 = 4 * 1024 * 1024;

/// Whose database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub mesh: MeshId,
    pub peer: PeerId,
}

pub(super) fn path_in(dir: &HeldDir) -> PathBuf {
    dir.path().join(DATABASE)
}

/// Opens the directory's database, or makes it where there is none.
pub(super) fn open_or_make(dir: &HeldDir, owner: &Owner) -> Result<Database, StoreError> {
    let path = path_in(dir);
    let looked = path.try_exists().map_err(|error| StoreError::file("looking for", &path, error))?;
    if looked { open(&path, owner) } else { make(dir, &path, owner) }
}

/// Opens a database that was made before.
pub(super) fn open(path: &Path, owner: &Owner) -> Result<Database, StoreError> {
    let metadata = fs::metadata(path).map_err(|error| StoreError::file("opening", path, error))?;
    let foreign = |why: &str| StoreError::Foreign { path: path.to_owned(), why: why.to_owned() };
    if !metadata.is_file() {
        return Err(foreign("not a regular file"));
    }
    if metadata.len() == 0 {
        return Err(foreign("it is empty"));
    }
    // First without writing a byte, so that somebody else's database is not even marked as opened. A database that
    // was not closed cannot be read so, and is looked at after the engine has brought it to its last commit.
    let only_read = contained(path, || {
        let database = builder().open_read_only(path)?;
        Ok(check(path, &database.begin_read()?, owner))
    });
    match only_read {
        Ok(checked) => checked?,
        Err(redb::Error::RepairAborted) => recover(path, owner)?,
        Err(error) => return Err(StoreError::database("opening the database", path, error)),
    }
    open_checked(path, path, owner)
}

/// Opens the file `at`, which is, or is a copy of, the database `path`.
fn open_checked(at: &Path, path: &Path, owner: &Owner) -> Result<Database, StoreError> {
    let opened = contained(path, || {
        let database = builder().set_check_integrity_on_open(true).set_repair_callback(rolled_back).open(at)?;
        let checked = check(path, &database.begin_read()?, owner);
        Ok((database, checked))
    });
    let (database, checked) = opened.map_err(|error| StoreError::database("opening the database", path, error))?;
    checked?;
    Ok(database)
}

/// Gives free room back to the file system, where there is much of it: the engine uses it again by itself, but a file
/// never gets shorter by that.
pub(super) fn give_back(database: &mut Database, path: &Path) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    let stats = transaction.stats()?;
    transaction.abort()?;
    let used = stats.allocated_pages() * stats.page_size() as u64;
    let size = fs::metadata(path).map_err(redb::Error::Io)?.len();
    if size < 2 * used + LEAST_FREE {
        return Ok(());
    }
    match database.compact() {
        // Somebody is reading: next time.
        Ok(_) | Err(CompactionError::TransactionInProgress) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Brings a database that was not closed to its last commit: a copy of it, which then takes its place, since the engine
/// writes before it knows whether it can. Where there is no room for a copy, the file itself.
fn recover(path: &Path, owner: &Owner) -> Result<(), StoreError> {
    let copy = path.with_extension("redb.recovering");
    let failed = |error| StoreError::file("recovering the database", path, error);
    remove_leftover(&copy).map_err(failed)?;
    if let Err(error) = fs::copy(path, &copy) {
        // Already without a copy; what is there of it is in the way.
        let _ = fs::remove_file(&copy);
        let full = matches!(failed(error), StoreError::Full { .. });
        tracing::warn!(
            "the database is recovered in its place{}",
            if full { ": there is no room for a copy" } else { "" }
        );
        return Ok(());
    }
    let recovered = open_checked(&copy, path, owner).and_then(|database| {
        contained(path, || Ok(database.close()?))
            .map_err(|error| StoreError::database("recovering the database", path, error))?;
        fs::File::open(&copy)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&copy, path))
            .map_err(failed)?;
        // Else a power cut brings the file back that was recovered, without what was written since.
        path.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all()).map_err(failed)
    });
    if recovered.is_err() {
        let _ = fs::remove_file(&copy);
    }
    recovered
}

/// Closes a database, if there is one. Nothing depends on it but how fast the next opening is.
pub(super) fn close(path: &Path, database: Option<Database>) {
    let Some(database) = database else { return };
    if let Err(error) = contained(path, || Ok(database.close()?)) {
        tracing::warn!("closing the database {}: {error}", path.display());
    }
}

/// Makes a database under another name first, so that one with its own name is always whole.
fn make(dir: &HeldDir, path: &Path, owner: &Owner) -> Result<Database, StoreError> {
    let unfinished = dir.path().join(UNFINISHED);
    let failed = |error| StoreError::file("making the database", path, error);
    remove_leftover(&unfinished).map_err(failed)?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished).map_err(failed)?;
    let made = (|| {
        let database = builder().create(&unfinished)?;
        let transaction = database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert("layout", LAYOUT.to_be_bytes().as_slice())?;
            meta.insert("mesh", owner.mesh.0.as_slice())?;
            meta.insert("peer", owner.peer.public_key().as_slice())?;
            transaction.open_table(ENTRIES)?;
            transaction.open_table(PLACES)?;
        }
        transaction.commit()?;
        Ok(database)
    })();
    let made = made
        .map_err(|error| StoreError::database("making the database", path, error))
        .and_then(|database| fs::rename(&unfinished, path).map_err(failed).map(|()| database));
    if made.is_err() {
        // Already failing; a leftover is removed by the next attempt.
        let _ = fs::remove_file(&unfinished);
    }
    let database = made?;
    dir.sync()?;
    Ok(database)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE);
    builder
}

/// Says so when the engine goes back to the commit before the last: that last one was cut off before it was synced,
/// so nobody was told of it.
fn rolled_back(repair: &mut RepairSession) {
    // Progress as the engine reports it at that one step (`Database::do_repair`).
    if repair.progress() == 0.3 {
        tracing::warn!("the database's last commit was cut off and is rolled back");
    }
}

/// Runs something with the file. Of damaged pages the engine reports many and panics at some; here both are errors.
pub(super) fn contained<T>(path: &Path, work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::debug!("the database engine gave up on {}", path.display());
        Err(redb::Error::Corrupted("the database engine gave up on it".to_owned()))
    })
}

/// Whether the database is of this program, layout, mesh and peer.
fn check(path: &Path, transaction: &ReadTransaction, owner: &Owner) -> Result<(), StoreError> {
    let failed = |error| StoreError::database("reading the database", path, error);
    let meta = transaction.open_table(META).map_err(|error| failed(error.into()))?;
    let read = |key: &str| -> Result<Vec<u8>, StoreError> {
        let value = meta.get(key).map_err(|error| failed(error.into()))?;
        Ok(value.map(|value| value.value().to_vec()).unwrap_or_default())
    };
    let unnamed = |what: &str| StoreError::Foreign { path: path.to_owned(), why: format!("it names no {what}") };
    let layout = u32::from_be_bytes(read("layout")?.try_into().map_err(|_| unnamed("layout"))?);
    if layout != LAYOUT {
        return Err(StoreError::Layout { path: path.to_owned(), found: layout, known: LAYOUT });
    }
    let mesh = MeshId(read("mesh")?.try_into().map_err(|_| unnamed("mesh"))?);
    if mesh != owner.mesh {
        let (found, wanted) = (Box::new(mesh), Box::new(owner.mesh));
        return Err(StoreError::OtherMesh { path: path.to_owned(), found, wanted });
    }
    let peer = PeerId::from_public_key(read("peer")?.try_into().map_err(|_| unnamed("peer"))?);
    if peer != owner.peer {
        let (found, wanted) = (Box::new(peer), Box::new(owner.peer));
        return Err(StoreError::OtherPeer { path: path.to_owned(), found, wanted });
    }
    let table = |error: redb::TableError, name: &str| match error {
        redb::TableError::TableDoesNotExist(_) => unnamed(&format!("table `{name}`")),
        error => failed(error.into()),
    };
    transaction.open_table(ENTRIES).map_err(|error| table(error, ENTRIES.name()))?;
    transaction.open_table(PLACES).map_err(|error| table(error, PLACES.name()))?;
    Ok(())
}
