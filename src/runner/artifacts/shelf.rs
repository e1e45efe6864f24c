//! What one task has uploaded, on disk, within its limits.
//!
//! Promises that what is here never has more bytes than the limits say, nor leaves the disk with less than its floor,
//! whatever is sent and however it ends; that an artifact is complete or is not given away. Everything here blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use super::ArtifactLimits;
use crate::kernel::task::is_artifact_name;
use crate::runner::disk::Disk;

/// The most blocks that wait to be put together: each is a file. The real action sends 8 MiB in one.
const BLOCKS: usize = 8192;
/// The most bytes of a block's name (Azure: 64 before base64).
const BLOCK_NAME: usize = 88;
/// How much of a file is hashed at a time.
const CHUNK: usize = 64 * 1024;

/// Why something is not taken, found or given.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "this is no name for an artifact: it has 1 to 255 bytes and none of \" : < > | * ? \\ / or control characters"
    )]
    Name,
    #[error("an artifact with this name already exists on the workflow run")]
    Exists,
    #[error("there is no such artifact on this workflow run")]
    Unknown,
    #[error("a run here may upload {0} artifacts and no more")]
    TooMany(usize),
    #[error("a run here may upload {0} bytes and no more")]
    TooLarge(u64),
    #[error("the disk of this host is too full for it")]
    NoRoom,
    #[error("the list does not name blocks that were uploaded, each once")]
    BlockList,
    #[error("what arrived is not what was sent: {0}")]
    Unequal(String),
    #[error("it is being read or put together just now")]
    Busy,
    #[error("keeping it on this host: {0}")]
    Io(#[from] io::Error),
}

/// A finished artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) bytes: u64,
    /// Lower case hexadecimal digits.
    pub(super) sha256: String,
    /// Milliseconds since 1970.
    pub(super) created_ms: u64,
}

pub(super) struct Shelf {
    dir: PathBuf,
    limits: ArtifactLimits,
    state: Mutex<State>,
    /// Rung when something is busy no more.
    settled: Condvar,
}

#[derive(Default)]
struct State {
    /// Bytes of everything here, also of what is half sent.
    used: u64,
    blocks: usize,
    /// The next number, of artifacts and files alike.
    next: u64,
    uploads: BTreeMap<u64, Upload>,
}

struct Upload {
    name: String,
    kind: String,
    created_ms: u64,
    blocks: BTreeMap<String, Block>,
    /// The bytes of the whole, once put together.
    whole: Option<u64>,
    /// Once finished.
    sha256: Option<String>,
    /// Being put together or hashed.
    busy: bool,
    readers: usize,
}

struct Block {
    file: PathBuf,
    bytes: u64,
}

impl Upload {
    fn bytes(&self) -> u64 {
        self.blocks.values().map(|block| block.bytes).sum::<u64>() + self.whole.unwrap_or(0)
    }

    fn is_still(&self) -> bool {
        !self.busy && self.readers == 0
    }
}

impl Shelf {
    /// An empty one in an empty directory.
    pub(super) fn new(dir: PathBuf, limits: ArtifactLimits) -> Self {
        Self { dir, limits, state: Mutex::default(), settled: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an artifact. One by that name that was never finished goes.
    pub(super) fn create(&self, name: &str, kind: &str) -> Result<u64, Refusal> {
        if !is_artifact_name(name) {
            return Err(Refusal::Name);
        }
        let mut state = self.state();
        let same = state.uploads.iter().find(|(_, upload)| upload.name == name);
        match same.map(|(id, upload)| (*id, upload)) {
            Some((_, upload)) if upload.sha256.is_some() => return Err(Refusal::Exists),
            Some((_, upload)) if !upload.is_still() => return Err(Refusal::Busy),
            Some((id, _)) => self.drop_upload(&mut state, id)?,
            None => (),
        }
        if state.uploads.len() >= self.limits.count {
            return Err(Refusal::TooMany(self.limits.count));
        }
        let id = state.number();
        fs::DirBuilder::new().mode(0o700).create(self.folder(id))?;
        let created_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let upload = Upload {
            name: name.to_owned(),
            kind: kind.to_owned(),
            created_ms: u64::try_from(created_ms).unwrap_or(u64::MAX),
            blocks: BTreeMap::new(),
            whole: None,
            sha256: None,
            busy: false,
            readers: 0,
        };
        state.uploads.insert(id, upload);
        Ok(id)
    }

    /// A place for bytes of it that are about to come.
    pub(super) fn draft(self: &Arc<Self>, id: u64) -> Result<Draft, Refusal> {
        let mut state = self.state();
        let upload = state.uploads.get(&id).ok_or(Refusal::Unknown)?;
        if upload.sha256.is_some() {
            return Err(Refusal::Exists);
        }
        if state.blocks >= BLOCKS {
            return Err(Refusal::BlockList);
        }
        state.blocks += 1;
        let file = self.folder(id).join(state.number().to_string());
        Ok(Draft { shelf: Arc::clone(self), id, file, bytes: 0, kept: false })
    }

    /// Takes so many bytes more into account, if they may come.
    fn grow(&self, bytes: u64) -> Result<(), Refusal> {
        let disk = Disk::of(&self.dir)?;
        if disk.free < disk.floor(self.limits.floor).saturating_add(bytes) {
            return Err(Refusal::NoRoom);
        }
        let mut state = self.state();
        let used = state.used.saturating_add(bytes);
        if used > self.limits.bytes {
            return Err(Refusal::TooLarge(self.limits.bytes));
        }
        state.used = used;
        Ok(())
    }

    /// Keeps what has come as a block of that name; an earlier one of that name goes.
    pub(super) fn keep(&self, mut draft: Draft, name: &str) -> Result<(), Refusal> {
        if name.is_empty() || name.len() > BLOCK_NAME {
            return Err(Refusal::BlockList);
        }
        let mut state = self.state();
        let upload = state.uploads.get_mut(&draft.id).ok_or(Refusal::Unknown)?;
        if upload.sha256.is_some() || upload.busy {
            return Err(Refusal::Busy);
        }
        let block = Block { file: draft.file.clone(), bytes: draft.bytes };
        draft.kept = true;
        if let Some(old) = upload.blocks.insert(name.to_owned(), block) {
            state.used -= old.bytes;
            state.blocks -= 1;
            // It is in nobody's way, and goes with the rest.
            let _ = fs::remove_file(old.file);
        }
        Ok(())
    }

    /// Puts the artifact together from these blocks, in this order; the others go.
    pub(super) fn commit(&self, id: u64, list: &[String]) -> Result<(), Refusal> {
        let once: BTreeSet<&String> = list.iter().collect();
        let blocks = {
            let mut state = self.state();
            let upload = state.uploads.get_mut(&id).ok_or(Refusal::Unknown)?;
            if upload.sha256.is_some() || !upload.is_still() {
                return Err(Refusal::Busy);
            }
            if once.len() < list.len() || !list.iter().all(|name| upload.blocks.contains_key(name)) {
                return Err(Refusal::BlockList);
            }
            upload.busy = true;
            std::mem::take(&mut upload.blocks)
        };
        // They stay in the account until they are one.
        let (count, all) = (blocks.len(), blocks.values().map(|block| block.bytes).sum::<u64>());
        let joined = self.join(id, blocks, list);
        let mut state = self.state();
        state.blocks -= count;
        let mut freed = all;
        if let Some(upload) = state.uploads.get_mut(&id) {
            upload.busy = false;
            freed += upload.whole.take().unwrap_or(0);
            if let Ok(bytes) = &joined {
                upload.whole = Some(*bytes);
                freed -= bytes;
            }
        }
        state.used -= freed;
        self.settled.notify_all();
        Ok(joined.map(drop)?)
    }

    /// The bytes of the whole. Needs no more room than one block.
    fn join(&self, id: u64, mut blocks: BTreeMap<String, Block>, list: &[String]) -> io::Result<u64> {
        let mut joined = || {
            let whole = self.whole(id);
            let mut bytes = 0;
            let mut into = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&whole)?;
            for block in list.iter().filter_map(|name| blocks.remove(name)) {
                bytes += io::copy(&mut File::open(&block.file)?, &mut into)?;
                fs::remove_file(&block.file)?;
            }
            Ok(bytes)
        };
        let joined = joined();
        for block in blocks.into_values() {
            let _ = fs::remove_file(block.file);
        }
        if joined.is_err() {
            let _ = fs::remove_file(self.whole(id));
        }
        joined
    }

    /// Ends an artifact, which must be what its sender says; gives its number. Saying it twice changes nothing.
    pub(super) fn finish(&self, name: &str, size: u64, sha256: Option<&str>) -> Result<u64, Refusal> {
        let (id, bytes) = {
            let mut state = self.state();
            let found = state.uploads.iter_mut().find(|(_, upload)| upload.name == name);
            let (id, upload) = found.ok_or(Refusal::Unknown)?;
            if upload.sha256.is_some() {
                return Ok(*id);
            }
            if !upload.is_still() {
                return Err(Refusal::Busy);
            }
            let bytes = upload.whole.ok_or_else(|| Refusal::Unequal("no content has been uploaded".to_owned()))?;
            upload.busy = true;
            (*id, bytes)
        };
        let checked = hash(&self.whole(id)).map_err(Refusal::from).and_then(|hashed| match sha256 {
            Some(said) if !said.eq_ignore_ascii_case(&hashed) => {
                Err(Refusal::Unequal(format!("its SHA-256 is {hashed}, not {said}")))
            }
            None if size != bytes => Err(Refusal::Unequal(format!("it has {bytes} bytes, not {size}"))),
            _ => Ok(hashed),
        });
        let mut state = self.state();
        if let Some(upload) = state.uploads.get_mut(&id) {
            upload.busy = false;
            upload.sha256 = checked.as_ref().ok().cloned();
        }
        self.settled.notify_all();
        checked.map(|_| id)
    }

    /// The finished ones, the oldest first.
    pub(super) fn list(&self) -> Vec<Listed> {
        let listed = |(id, upload): (&u64, &Upload)| {
            Some(Listed {
                id: *id,
                name: upload.name.clone(),
                bytes: upload.whole?,
                sha256: upload.sha256.clone()?,
                created_ms: upload.created_ms,
            })
        };
        self.state().uploads.iter().filter_map(listed).collect()
    }

    /// Takes a finished one away; gives its number.
    pub(super) fn delete(&self, name: &str) -> Result<u64, Refusal> {
        let mut state = self.state();
        let found = state.uploads.iter().find(|(_, upload)| upload.name == name && upload.sha256.is_some());
        let (id, upload) = found.ok_or(Refusal::Unknown)?;
        if !upload.is_still() {
            return Err(Refusal::Busy);
        }
        let id = *id;
        self.drop_upload(&mut state, id)?;
        Ok(id)
    }

    fn drop_upload(&self, state: &mut State, id: u64) -> io::Result<()> {
        fs::remove_dir_all(self.folder(id))?;
        if let Some(upload) = state.uploads.remove(&id) {
            state.used -= upload.bytes();
            state.blocks -= upload.blocks.len();
        }
        Ok(())
    }

    /// A finished one to be read.
    pub(super) fn read(self: &Arc<Self>, id: u64) -> Result<Reading, Refusal> {
        let mut state = self.state();
        let upload = state.uploads.get_mut(&id).filter(|upload| upload.sha256.is_some()).ok_or(Refusal::Unknown)?;
        upload.readers += 1;
        let (name, kind, bytes) = (upload.name.clone(), upload.kind.clone(), upload.whole.unwrap_or(0));
        Ok(Reading { shelf: Arc::clone(self), id, file: self.whole(id), name, kind, bytes })
    }

    /// Moves these of the finished ones into a new directory, each as a file of its name; says how many. Waits for what is
    /// being put together; nothing may come after it.
    pub(super) fn take(&self, into: &Path, names: &[String]) -> io::Result<usize> {
        let mut state = self.state();
        while state.uploads.values().any(|upload| upload.busy) {
            state = self.settled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let given = state.uploads.iter().filter(|(_, upload)| upload.sha256.is_some() && names.contains(&upload.name));
        let given: Vec<(u64, &str)> = given.map(|(id, upload)| (*id, upload.name.as_str())).collect();
        if given.is_empty() {
            return Ok(0);
        }
        let together = self.dir.join("together");
        fs::DirBuilder::new().mode(0o700).create(&together)?;
        for (id, name) in &given {
            fs::rename(self.whole(*id), together.join(*name))?;
        }
        match fs::remove_dir_all(into) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => (),
        }
        if let Some(above) = into.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(above)?;
        }
        // All at once: whoever sweeps there never sees an empty one.
        fs::rename(&together, into)?;
        Ok(given.len())
    }

    fn folder(&self, id: u64) -> PathBuf {
        self.dir.join(id.to_string())
    }

    fn whole(&self, id: u64) -> PathBuf {
        self.folder(id).join("whole")
    }
}

impl State {
    const fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// Bytes on their way. What is not kept goes with this.
pub(super) struct Draft {
    shelf: Arc<Shelf>,
    id: u64,
    pub(super) file: PathBuf,
    bytes: u64,
    kept: bool,
}

impl Draft {
    /// So many bytes more are about to come.
    pub(super) fn grow(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.shelf.grow(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Whether so many may come in all.
    pub(super) fn may(&self, bytes: u64) -> Result<(), Refusal> {
        let limits = self.shelf.limits;
        let room = limits.bytes.saturating_sub(self.shelf.state().used);
        if bytes > room { Err(Refusal::TooLarge(limits.bytes)) } else { Ok(()) }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.file);
            let mut state = self.shelf.state();
            state.used -= self.bytes;
            state.blocks -= 1;
        }
    }
}

/// An artifact that is read; it stays until this goes.
pub(super) struct Reading {
    shelf: Arc<Shelf>,
    id: u64,
    pub(super) file: PathBuf,
    pub(super) name: String,
    /// Its media type.
    pub(super) kind: String,
    pub(super) bytes: u64,
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(upload) = self.shelf.state().uploads.get_mut(&self.id) {
            upload.readers -= 1;
        }
    }
}

fn hash(file: &Path) -> io::Result<String> {
    let (mut file, mut hasher, mut chunk) = (File::open(file)?, Sha256::new(), vec![0; CHUNK]);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            length => hasher.update(&chunk[..length]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf(bytes: u64, count: usize) -> (tempfile::TempDir, Arc<Shelf>) {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("shelf");
        fs::create_dir(&inside).unwrap();
        let shelf = Shelf::new(inside, ArtifactLimits { bytes, count, floor: Some(0) });
        (dir, Arc::new(shelf))
    }

    fn put(shelf: &Arc<Shelf>, id: u64, block: &str, text: &str) -> Result<(), Refusal> {
        let mut draft = shelf.draft(id)?;
        draft.may(text.len() as u64)?;
        draft.grow(text.len() as u64)?;
        fs::write(&draft.file, text).unwrap();
        shelf.keep(draft, block)
    }

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn used(shelf: &Shelf) -> (u64, usize) {
        let state = shelf.state();
        (state.used, state.blocks)
    }

    #[test]
    fn blocks_become_an_artifact_in_the_order_of_the_list() {
        let (dir, shelf) = shelf(100, 2);
        let id = shelf.create("site", "application/zip").unwrap();
        for (block, text) in [("b", "world"), ("a", "hello "), ("b", "there"), ("c", "unlisted")] {
            put(&shelf, id, block, text).unwrap();
        }
        assert_eq!(used(&shelf), (19, 3));
        assert!(matches!(shelf.commit(id, &list(&["a", "x"])), Err(Refusal::BlockList)));
        assert!(matches!(shelf.commit(id, &list(&["a", "a"])), Err(Refusal::BlockList)));
        shelf.commit(id, &list(&["a", "b"])).unwrap();
        assert_eq!(used(&shelf), (11, 0));
        let sum = hex::encode(Sha256::digest(b"hello there"));
        assert!(matches!(shelf.finish("site", 11, Some(&"0".repeat(64))), Err(Refusal::Unequal(_))));
        assert!(matches!(shelf.finish("site", 12, None), Err(Refusal::Unequal(_))));
        assert!(shelf.read(id).is_err() && shelf.list().is_empty(), "not given away before its end");
        assert_eq!((shelf.finish("site", 0, Some(&sum)).unwrap(), shelf.finish("site", 11, None).unwrap()), (id, id));
        assert_eq!(shelf.list().iter().map(|found| (found.id, found.bytes)).collect::<Vec<_>>(), [(id, 11)]);
        let reading = shelf.read(id).unwrap();
        assert!(matches!(shelf.delete("site"), Err(Refusal::Busy)));
        drop(reading);
        for refused in [shelf.create("site", "").map(drop), put(&shelf, id, "z", "late")] {
            assert!(matches!(refused, Err(Refusal::Exists)));
        }
        let into = dir.path().join("kept/it");
        assert_eq!(shelf.take(&into, &list(&["site", "none"])).unwrap(), 1);
        assert_eq!(fs::read_to_string(into.join("site")).unwrap(), "hello there");
    }

    #[test]
    fn nothing_gets_beyond_the_limits_and_what_goes_makes_room() {
        let (dir, shelf) = shelf(10, 2);
        let one = shelf.create("one", "").unwrap();
        put(&shelf, one, "a", "12345678").unwrap();
        assert!(matches!(put(&shelf, one, "b", "901"), Err(Refusal::TooLarge(10))));
        let mut half = shelf.draft(one).unwrap();
        half.grow(2).unwrap();
        assert!(matches!(half.grow(1), Err(Refusal::TooLarge(10))));
        assert_eq!(used(&shelf), (10, 2));
        drop(half);
        assert_eq!(used(&shelf), (8, 1));
        shelf.create("two", "").unwrap();
        assert!(matches!(shelf.create("three", ""), Err(Refusal::TooMany(2))));
        // Begun anew, as after a step that was cut off.
        let again = shelf.create("one", "").unwrap();
        assert_eq!(used(&shelf), (0, 0));
        assert!(matches!(put(&shelf, one, "b", "x"), Err(Refusal::Unknown)));
        put(&shelf, again, "a", "1234567890").unwrap();
        shelf.commit(again, &list(&["a"])).unwrap();
        assert!(matches!(put(&shelf, again, "b", "1"), Err(Refusal::TooLarge(10))));
        shelf.finish("one", 10, None).unwrap();
        shelf.delete("one").unwrap();
        assert_eq!(used(&shelf), (0, 0));
        assert!(matches!(shelf.finish("two", 0, None), Err(Refusal::Unequal(_))));
        assert_eq!(shelf.take(&dir.path().join("kept"), &list(&["one", "two"])).unwrap(), 0);
        assert!(!dir.path().join("kept").exists());
    }

    #[test]
    fn a_full_disk_and_too_many_blocks_are_refused() {
        let (_dir, shelf) = shelf(u64::MAX, 2);
        let id = shelf.create("one", "").unwrap();
        for number in 0..BLOCKS {
            put(&shelf, id, &number.to_string(), "").unwrap();
        }
        assert!(matches!(put(&shelf, id, "more", ""), Err(Refusal::BlockList)));
        let full = Shelf::new(shelf.dir.clone(), ArtifactLimits { floor: Some(u64::MAX), ..shelf.limits });
        assert!(matches!(full.grow(1), Err(Refusal::NoRoom)));
    }

    #[test]
    fn names_stay_within_their_folder() {
        let (dir, shelf) = shelf(100, 8);
        for bad in ["", ".", "..", "a/b", "a\\b", "a\nb", "a\0b", "a:b", "x*", "\u{7f}", &"x".repeat(256)] {
            assert!(matches!(shelf.create(bad, ""), Err(Refusal::Name)), "{bad:?}");
        }
        for name in ["...", "-rf", "späte Blüte", &"x".repeat(255)] {
            let id = shelf.create(name, "").unwrap();
            put(&shelf, id, "a", name).unwrap();
            shelf.commit(id, &list(&["a"])).unwrap();
            shelf.finish(name, name.len() as u64, None).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let into = dir.path().join("kept");
        assert_eq!(shelf.take(&into, &list(&["...", "späte Blüte"])).unwrap(), 2);
        assert_eq!(fs::read_dir(&into).unwrap().count(), 2);
    }
}
