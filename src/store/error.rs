//! What can go wrong with a data directory, in words that say what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::kernel::id::{MeshId, PeerId};

/// Why something in the data directory could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("there is no data directory at {path}: `runmesh node run --data-dir {path}` makes one", path = path.display())]
    NoDirectory { path: PathBuf },
    #[error("the data directory {path} is not usable: {why}", path = path.display())]
    Directory { path: PathBuf, why: String },
    #[error("the data directory {path} is in use by {holder}: stop that first, or choose another with --data-dir", path = path.display())]
    Held { path: PathBuf, holder: Holder },
    #[error("{doing} {path}: {source}", path = path.display())]
    File { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} can be read by other users (mode {mode:o}): run `chmod 600 {path}`, and take a new key if others may have read it", path = path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{path} does not hold a key (64 hexadecimal digits): put it back from a copy, or move it away to begin with a new one", path = path.display())]
    NotAKey { path: PathBuf },
    #[error("{path} holds a key already and is not replaced: move it away first if it is not wanted any more", path = path.display())]
    KeyStands { path: PathBuf },
    #[error("reading the membership file {path}: {why}; correct it, or move it away and join again", path = path.display())]
    Membership { path: PathBuf, why: String },
    #[error("{path} is not a database of runmesh ({why}): it was left as it is; move it away, or choose another directory with --data-dir", path = path.display())]
    Foreign { path: PathBuf, why: String },
    #[error(
        "the database {path} is damaged ({why}): it was left as it is; put it back from a copy, or move it away and start again, and the node fetches its history from its peers",
        path = path.display()
    )]
    Damaged { path: PathBuf, why: String },
    #[error("the database {path} has layout {found}, this version reads {known}: run the version that wrote it, or a later one", path = path.display())]
    Layout { path: PathBuf, found: u32, known: u32 },
    #[error("the database {path} belongs to mesh {found}, not {wanted}: choose another directory with --data-dir, or move the database away", path = path.display())]
    OtherMesh { path: PathBuf, found: Box<MeshId>, wanted: Box<MeshId> },
    #[error("the database {path} belongs to peer {found}, but identity.key is that of {wanted}: put the right key back, or move the database away", path = path.display())]
    OtherPeer { path: PathBuf, found: Box<PeerId>, wanted: Box<PeerId> },
    #[error("{doing} {path}: no space is left there; free some, all that was kept before is intact", path = path.display())]
    Full { doing: &'static str, path: PathBuf },
    #[error("{doing} {path}: {why}", path = path.display())]
    Database { doing: &'static str, path: PathBuf, why: String },
    #[error("asking the system for random bytes: {0}")]
    Random(String),
}

impl StoreError {
    /// An error of the file system while `doing` something with `path`; a full disk keeps its own name.
    pub(super) fn file(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if is_full(&source) { Self::Full { doing, path } } else { Self::File { doing, path, source } }
    }

    /// An error of the database while `doing` something with it.
    pub(super) fn database(doing: &'static str, path: &Path, error: redb::Error) -> Self {
        let path = path.to_owned();
        match error {
            redb::Error::Io(error) if is_full(&error) => Self::Full { doing, path },
            redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                Self::Foreign { path, why: error.to_string() }
            }
            redb::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Damaged { path, why: "it ends too early".to_owned() }
            }
            redb::Error::Corrupted(why) => Self::Damaged { path, why },
            redb::Error::UpgradeRequired(version) => {
                Self::Foreign { path, why: format!("file format {version} of the database engine") }
            }
            redb::Error::TableDoesNotExist(table) => Self::Foreign { path, why: format!("it has no table `{table}`") },
            error @ (redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TableIsNotMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. }) => Self::Foreign { path, why: error.to_string() },
            redb::Error::DatabaseAlreadyOpen => Self::Held { path, holder: Holder::Unknown },
            error => Self::Database { doing, path, why: error.to_string() },
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Who holds a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A process, and what it was started as, where this host tells.
    Process { pid: u32, command: Option<String> },
    /// It did not leave its number.
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, command: Some(command) } => write!(f, "process {pid} (`{command}`)"),
            Self::Process { pid, command: None } => write!(f, "process {pid}"),
            Self::Unknown => f.write_str("another process"),
        }
    }
}
