//! What a node keeps on its disk: its entries in an embedded database, its keys, and which mesh it belongs to.
//!
//! Promises: an entry whose [`Store::append`] has returned is there after any crash or power cut that the disk
//! honours syncs through; entries come back in the order they were appended in, so parents before children where the
//! caller appended them so; a data directory serves one process at a time; nothing that is not this node's own intact
//! file is ever overwritten; an append that fails (a full disk) changes nothing and leaves the store usable.
//!
//! Leaves to others: what bytes mean. The caller opens what it reads ([`crate::wire`], [`crate::kernel::entry`]),
//! which also proves that the disk gave back what was put there. Everything here blocks: an append waits for the disk.
//!
//! ```text
//! DATA_DIR/            0700
//!   node.lock          held while a process uses the directory; its number
//!   identity.key       0600, 64 hexadecimal digits: the seed of the node's Ed25519 key
//!   mesh.key           0600, the same of the mesh's key; only where the mesh was made
//!   peers.txt          0600, where other members were reached last
//!   mesh.toml          0600, which mesh, whom to reach first, the ticket not used yet
//!   runmesh.redb       0600, the entries, the ledger of what runs here, and notes that other rooms keep
//!   logs/ blobs/       what runs left behind, by task and by content; arriving/ logs of other hosts
//! ```

mod addresses;
mod blobs;
mod database;
mod dir;
mod error;
mod keys;
mod ledger;
mod membership;
mod notes;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use redb::{Database, Range, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _};

use crate::kernel::entry::Entry;
use crate::kernel::id::Cid;

pub use blobs::{Blobs, Keeping, Share, Swept};
pub use database::{DATABASE, Owner};
pub use dir::{DataDir, HeldDir, LOCK};
pub use error::{Holder, StoreError};
pub use keys::{MESH_KEY, Secret};
pub use ledger::Book;
pub use membership::{MEMBERSHIP, Membership};

use database::{ENTRIES, PLACES, SNAPSHOT};

/// The entries of one node on its disk.
pub struct Store {
    dir: HeldDir,
    owner: Owner,
    path: PathBuf,
    /// `None` after a failure of the disk, until the next use opens the file anew: the engine answers nothing more
    /// once a write has failed.
    database: RwLock<Option<Database>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.path.display())
    }
}

impl Store {
    /// Opens the directory's database, or makes it where there is none.
    ///
    /// After a crash this reads the whole file once; it checks every page in any case.
    ///
    /// # Errors
    /// [`StoreError::Foreign`], [`StoreError::Damaged`], [`StoreError::Layout`], [`StoreError::OtherMesh`] and
    /// [`StoreError::OtherPeer`] when there is another file than this node's own; it then stays as it was.
    pub fn open(dir: HeldDir, owner: Owner) -> Result<Self, StoreError> {
        let database = database::open_or_make(&dir, &owner)?;
        let path = database::path_in(&dir);
        Ok(Self { dir, owner, path, database: RwLock::new(Some(database)) })
    }

    /// The directory, for its small files.
    pub const fn dir(&self) -> &HeldDir {
        &self.dir
    }

    /// Puts entries on disk in this order, all of them or none; they are synced when this returns. Entries that are
    /// here already keep their place. Answers how many were new.
    ///
    /// One sync is the greater part of the cost, whatever the number of entries: give it all there are.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Database`]. Whether the entries are on disk is then unknown until they
    /// are appended again, which may be tried at any time.
    pub fn append(&self, entries: &[Arc<Entry>]) -> Result<usize, StoreError> {
        self.within("writing to the database", |database| {
            let transaction = database.begin_write()?;
            let mut new = 0;
            {
                let mut kept = transaction.open_table(ENTRIES)?;
                let mut places = transaction.open_table(PLACES)?;
                let mut next = kept.last()?.map_or(0, |(place, _)| place.value() + 1);
                for entry in entries {
                    let cid = entry.cid();
                    if places.get(cid.digest())?.is_none() {
                        places.insert(cid.digest(), next)?;
                        kept.insert(next, &entry.bytes()[..])?;
                        next += 1;
                        new += 1;
                    }
                }
            }
            if new == 0 {
                transaction.abort()?
            } else {
                transaction.commit()?
            }
            Ok(new)
        })
    }

    /// All entries' bytes in the kept order, as they stand now. Reads as it goes and holds little; while the iterator
    /// lives, the file cannot give the room of dropped entries to new ones.
    ///
    /// # Errors
    /// [`StoreError::Database`] when the file cannot be read.
    pub fn entries(&self) -> Result<Entries, StoreError> {
        let range = self.within("reading the database", |database| {
            Ok(database.begin_read()?.open_table(ENTRIES)?.range::<u64>(..)?)
        })?;
        Ok(Entries { range: Some(range), path: self.path.clone() })
    }

    /// How many entries there are.
    ///
    /// # Errors
    /// As [`Self::entries`].
    pub fn count(&self) -> Result<u64, StoreError> {
        self.within("reading the database", |database| Ok(database.begin_read()?.open_table(ENTRIES)?.len()?))
    }

    /// The bytes of one entry; `None` when it is not here.
    ///
    /// # Errors
    /// As [`Self::entries`].
    pub fn bytes_of(&self, cid: Cid) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.page(&[cid], usize::MAX)?.pop())
    }

    /// The bytes of these entries, in this order, as many as `max_bytes` hold together, and at least one so that who
    /// pages gets on. Ends before the first that is not here: what follows may stand on it.
    ///
    /// # Errors
    /// As [`Self::entries`].
    pub fn page(&self, cids: &[Cid], max_bytes: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.within("reading the database", |database| {
            let transaction = database.begin_read()?;
            let (kept, places) = (transaction.open_table(ENTRIES)?, transaction.open_table(PLACES)?);
            let (mut page, mut left) = (Vec::new(), max_bytes);
            for cid in cids {
                let Some(place) = places.get(cid.digest())? else { break };
                let Some(bytes) = kept.get(place.value())? else { break };
                let bytes = bytes.value();
                if bytes.len() > left && !page.is_empty() {
                    break;
                }
                left = left.saturating_sub(bytes.len());
                page.push(bytes.to_vec());
            }
            Ok(page)
        })
    }

    /// Forgets entries, all of these or none; their room is used again. Those that are not here are passed over.
    /// Answers how many were here.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn drop_entries(&self, cids: &[Cid]) -> Result<usize, StoreError> {
        self.within("writing to the database", |database| {
            let transaction = database.begin_write()?;
            let mut dropped = 0;
            {
                let mut kept = transaction.open_table(ENTRIES)?;
                let mut places = transaction.open_table(PLACES)?;
                for cid in cids {
                    let place = places.remove(cid.digest())?.map(|place| place.value());
                    if let Some(place) = place {
                        kept.remove(place)?;
                        dropped += 1;
                    }
                }
            }
            if dropped == 0 {
                transaction.abort()?
            } else {
                transaction.commit()?
            }
            Ok(dropped)
        })
    }

    /// Puts a snapshot in the place of the one before and forgets entries, all of it or nothing. Entries that are not
    /// here are passed over. Where more than half of the file is free then, it is shortened; that fails without harm.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn condense(&self, snapshot: &[u8], dropped: &[Cid]) -> Result<(), StoreError> {
        self.within("writing to the database", |database| {
            let transaction = database.begin_write()?;
            {
                let mut kept = transaction.open_table(ENTRIES)?;
                let mut places = transaction.open_table(PLACES)?;
                for cid in dropped {
                    let place = places.remove(cid.digest())?.map(|place| place.value());
                    if let Some(place) = place {
                        kept.remove(place)?;
                    }
                }
                transaction.open_table(SNAPSHOT)?.insert((), snapshot)?;
            }
            Ok(transaction.commit()?)
        })?;
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = database.as_mut()
            && let Err(error) = database::contained(&self.path, || database::give_back(open, &self.path))
        {
            // What was to be done is done; the next use opens the file anew.
            database::close(&self.path, database.take());
            return Err(StoreError::database("shortening the database", &self.path, error));
        }
        Ok(())
    }

    /// The snapshot that stands for entries that were forgotten.
    ///
    /// # Errors
    /// As [`Self::entries`].
    pub fn snapshot(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.within("reading the database", |database| match database.begin_read()?.open_table(SNAPSHOT) {
            Ok(table) => Ok(table.get(())?.map(|bytes| bytes.value().to_vec())),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        })
    }

    /// Runs one thing with the database. A failure of the disk closes the file, so that the next use opens it anew and
    /// finds what was synced. Who only meets what another's failure left behind does that at once and tries again.
    fn within<T>(
        &self,
        doing: &'static str,
        work: impl Fn(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let mut again = true;
        loop {
            let error = {
                let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
                match database.as_ref().map(|open| database::contained(&self.path, || work(open))) {
                    Some(Ok(done)) => return Ok(done),
                    Some(Err(error)) => Some(error),
                    None => None,
                }
            };
            let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
            match error {
                Some(error) => {
                    let others = matches!(error, redb::Error::PreviousIo | redb::Error::DatabaseClosed);
                    if others
                        || matches!(error, redb::Error::Io(_) | redb::Error::Backend(_) | redb::Error::Corrupted(_))
                    {
                        database::close(&self.path, database.take());
                    }
                    if !(others && std::mem::take(&mut again)) {
                        return Err(StoreError::database(doing, &self.path, error));
                    }
                }
                None if database.is_none() => *database = Some(database::open(&self.path, &self.owner)?),
                None => {}
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let database = self.database.get_mut().unwrap_or_else(PoisonError::into_inner);
        database::close(&self.path, database.take());
    }
}

/// The entries' bytes in the kept order. After an error it ends.
pub struct Entries {
    /// `None` after an error.
    range: Option<Range<'static, u64, &'static [u8]>>,
    path: PathBuf,
}

impl Iterator for Entries {
    type Item = Result<Vec<u8>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let range = self.range.as_mut()?;
        let read =
            database::contained(&self.path, || Ok(range.next().transpose()?.map(|(_, bytes)| bytes.value().to_vec())));
        match read {
            Ok(bytes) => bytes.map(Ok),
            Err(error) => {
                self.range = None;
                Some(Err(StoreError::database("reading the database", &self.path, error)))
            }
        }
    }
}
