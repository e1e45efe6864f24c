//! The data directory: who may use it, and the small private files in it.
//!
//! Promises: one process at a time holds it; what is written is there whole or not at all, also after a power cut, and
//! only this user reads it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::error::{Holder, StoreError};

/// Locked for as long as a process uses the directory; holds that process's number. Never deleted: a lock on a deleted
/// file excludes nobody.
pub const LOCK: &str = "node.lock";
/// The most bytes of a small file that are read, far above what any needs.
const SMALL: u64 = 256 * 1024;

/// A data directory that exists and that no other user can write to. Reading its keys needs no lock.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: PathBuf,
}

impl DataDir {
    /// The directory at a path.
    ///
    /// # Errors
    /// [`StoreError::NoDirectory`] when nothing is there, [`StoreError::Directory`] when it is none or others can
    /// write to it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let path = std::path::absolute(path).map_err(|error| StoreError::file("resolving", path, error))?;
        let unusable = |why: String| StoreError::Directory { path: path.clone(), why };
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::NoDirectory { path }),
            Err(error) => return Err(unusable(error.to_string())),
        };
        if !metadata.is_dir() {
            return Err(unusable("it is not a directory".to_owned()));
        }
        let me = rustix::process::geteuid();
        if !me.is_root() && metadata.uid() != me.as_raw() {
            return Err(unusable(format!("it belongs to user {}, this is user {}", metadata.uid(), me.as_raw())));
        }
        if metadata.mode() & 0o022 != 0 {
            let (mode, shown) = (metadata.mode() & 0o7777, path.display());
            return Err(unusable(format!("other users can write to it (mode {mode:o}): run `chmod go-w {shown}`")));
        }
        Ok(Self { path })
    }

    /// The directory at a path, made with mode 0700 when nothing is there.
    ///
    /// # Errors
    /// As [`Self::open`], and [`StoreError::File`] when it cannot be made.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        let missing: Vec<&Path> = path.ancestors().take_while(|above| !above.exists()).collect();
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path).and_then(|()| {
            // Their names are on disk before anything is kept below them.
            missing.iter().filter_map(|made| made.parent()).try_for_each(|above| {
                let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
                File::open(above)?.sync_all()
            })
        });
        made.map_err(|error| StoreError::file("making the data directory", path, error))?;
        Self::open(path)
    }

    /// Takes the directory for this process until the answer is dropped.
    ///
    /// # Errors
    /// [`StoreError::Held`] when a process has it, that names the process.
    pub fn hold(self) -> Result<HeldDir, StoreError> {
        let path = self.path.join(LOCK);
        let failed = |error| StoreError::file("locking", &path, error);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Held { path: self.path, holder: holder(&lock) });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // For the sentence above only, so that a full disk does not keep a node from starting.
        let noted = lock.set_len(0).and_then(|()| lock.write_all(format!("{}\n", std::process::id()).as_bytes()));
        if let Err(error) = noted {
            tracing::warn!("writing this process's number to {}: {error}", path.display());
        }
        Ok(HeldDir { dir: self, _lock: lock, writing: Mutex::new(()) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a small text file; `None` when there is none.
    pub(super) fn read_private(&self, name: &str) -> Result<Option<String>, StoreError> {
        read_private(&self.path.join(name))
    }
}

/// Reads a small text file that nobody else may read; `None` when there is none.
pub(super) fn read_private(path: &Path) -> Result<Option<String>, StoreError> {
    let failed = |error| StoreError::file("reading", path, error);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(SMALL).read_to_string(&mut text).map_err(failed)?;
    Ok(Some(text))
}

/// A data directory that this process alone uses.
#[derive(Debug)]
pub struct HeldDir {
    dir: DataDir,
    _lock: File,
    /// Held while a small file is replaced: the threads of this process share the temporary names.
    writing: Mutex<()>,
}

impl Deref for HeldDir {
    type Target = DataDir;

    fn deref(&self) -> &DataDir {
        &self.dir
    }
}

impl HeldDir {
    /// Replaces a small file of mode 0600: what was there stands until the new text is wholly on disk.
    pub(super) fn write_private(&self, name: &str, text: &str) -> Result<(), StoreError> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (path, new) = (self.path.join(name), self.path.join(format!("{name}.new")));
        let failed = |error| StoreError::file("writing", &path, error);
        remove_leftover(&new).map_err(failed)?;
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)
        })();
        if written.is_err() {
            // Already failing; a leftover is removed by the next write.
            let _ = fs::remove_file(&new);
        }
        written.map_err(failed)?;
        self.sync()
    }

    /// Puts on disk which names the directory holds.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let synced = File::open(&self.path).and_then(|dir| dir.sync_all());
        synced.map_err(|error| StoreError::file("writing to the directory", &self.path, error))
    }
}

/// Removes a half-written file that a killed process left.
pub(super) fn remove_leftover(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn holder(mut lock: &File) -> Holder {
    let mut text = String::new();
    let read = lock.rewind().and_then(|()| lock.take(32).read_to_string(&mut text));
    match (read, text.trim().parse()) {
        (Ok(_), Ok(pid)) => Holder::Process { pid, command: command(pid) },
        _ => Holder::Unknown,
    }
}

/// What a process was started as, at most 120 characters, where this host has /proc.
fn command(pid: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = String::from_utf8_lossy(&line).replace('\0', " ");
    let words: String = words.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(120).collect();
    (!words.is_empty()).then_some(words)
}
