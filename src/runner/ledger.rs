//! The ledger: what this host was about to make, on disk before it is made.
//!
//! One truth with the host: a record names everything that an order makes outside of this process by where it really is -
//! its work directory, its control group, the engine's socket and the mark that its things there bear - not by where the
//! present settings would look. It is entered before the first of these is made and struck out when the last is gone. So
//! what an earlier life left is found although the work directory, the engine or the node's own control group are others by
//! now, and it can be said what was under way when that life ended. What bears this node's marks and is in no record has no
//! right to be there either: see [`super::reconcile`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::Isolation;
use crate::kernel::id::{Cid, TaskId};
use crate::kernel::task::Fence;

/// Which of the ledger's books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Book {
    Starts,
    Images,
}

/// Where records are kept. Each call may take as long as the disk does.
pub trait Ledger: Send + Sync {
    /// Enters a record in place of the one of that name; it outlives any crash once this returns.
    ///
    /// # Errors
    /// A sentence.
    fn enter(&self, book: Book, name: &str, record: &[u8]) -> Result<(), String>;

    /// Strikes a record out, if it is there.
    ///
    /// # Errors
    /// A sentence.
    fn strike(&self, book: Book, name: &str) -> Result<(), String>;

    /// All records of a book.
    ///
    /// # Errors
    /// A sentence.
    fn records(&self, book: Book) -> Result<Vec<(String, Vec<u8>)>, String>;
}

impl fmt::Debug for dyn Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ledger")
    }
}

/// A ledger that goes with the process: for a runner room without a database.
#[derive(Debug, Default)]
pub struct InMemory(Mutex<BTreeMap<(Book, String), Vec<u8>>>);

impl Ledger for InMemory {
    fn enter(&self, book: Book, name: &str, record: &[u8]) -> Result<(), String> {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.insert((book, name.to_owned()), record.to_vec());
        Ok(())
    }

    fn strike(&self, book: Book, name: &str) -> Result<(), String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(book, name.to_owned()));
        Ok(())
    }

    fn records(&self, book: Book) -> Result<Vec<(String, Vec<u8>)>, String> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = records.iter().filter(|((of, _), _)| *of == book);
        Ok(of_it.map(|((_, name), record)| (name.clone(), record.clone())).collect())
    }
}

/// One order that was taken, and all that it makes on this host, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    pub task: TaskId,
    pub fence: Fence,
    /// For people, as in [`super::Order`].
    pub repository: String,
    pub path: String,
    /// What executes it: `act`, `actions-runner` or `command`.
    pub executor: String,
    pub isolation: Isolation,
    /// When the order was taken, in milliseconds since 1970.
    pub at_ms: u64,
    /// Absolute.
    pub directory: PathBuf,
    /// Absolute; none where no groups can be made.
    pub cgroup: Option<PathBuf>,
    pub engine: Option<AtEngine>,
}

/// What an order's things at a container engine are known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtEngine {
    /// The engine's, absolute.
    pub socket: PathBuf,
    pub mark: String,
}

/// As it is written. Paths may be any bytes.
#[derive(Serialize, Deserialize)]
struct Written {
    task: String,
    attempt: u32,
    claim: String,
    repository: String,
    path: String,
    executor: String,
    isolation: String,
    at_ms: u64,
    directory: OsString,
    cgroup: Option<OsString>,
    engine: Option<(OsString, String)>,
}

impl Start {
    pub(crate) fn record(&self) -> Result<Vec<u8>, String> {
        let Self { task, fence, repository, path, executor, isolation, at_ms, directory, cgroup, engine } = self;
        let written = Written {
            task: task.to_string(),
            attempt: fence.attempt,
            claim: fence.claim.to_string(),
            repository: repository.clone(),
            path: path.clone(),
            executor: executor.clone(),
            isolation: isolation.to_string(),
            at_ms: *at_ms,
            directory: directory.clone().into(),
            cgroup: cgroup.clone().map(Into::into),
            engine: engine.clone().map(|AtEngine { socket, mark }| (socket.into(), mark)),
        };
        serde_json::to_vec(&written).map_err(|error| error.to_string())
    }

    /// # Errors
    /// What is wrong with the record.
    pub fn read(record: &[u8]) -> Result<Self, String> {
        let written: Written = serde_json::from_slice(record).map_err(|error| error.to_string())?;
        let task: TaskId = written.task.parse().map_err(|_| "its task is no id".to_owned())?;
        let claim: Cid = written.claim.parse().map_err(|_| "its claim is no id".to_owned())?;
        Ok(Self {
            task,
            fence: Fence { attempt: written.attempt, claim },
            repository: written.repository,
            path: written.path,
            executor: written.executor,
            isolation: written.isolation.parse()?,
            at_ms: written.at_ms,
            directory: written.directory.into(),
            cgroup: written.cgroup.map(Into::into),
            engine: written.engine.map(|(socket, mark)| AtEngine { socket: socket.into(), mark }),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn a_record_is_read_back_whatever_bytes_are_in_its_paths() {
        let start = Start {
            task: TaskId([7; 32]),
            fence: Fence { attempt: 3, claim: Cid::of(b"claim") },
            repository: "lab/tools".to_owned(),
            path: "ci.yml".to_owned(),
            executor: "act".to_owned(),
            isolation: Isolation::Container,
            at_ms: 9,
            directory: OsString::from_vec(b"/w\xff/x".to_vec()).into(),
            cgroup: Some("/sys/fs/cgroup/runmesh-1-x".into()),
            engine: Some(AtEngine { socket: "/run/podman.sock".into(), mark: "rm1-x".to_owned() }),
        };
        assert_eq!(Start::read(&start.record().unwrap()), Ok(start));
        for bad in [b"{}".as_slice(), b"", b"[1]"] {
            assert!(Start::read(bad).is_err());
        }
    }
}
