//! What runs leave behind: logs and artifacts, each under the name of its content.
//!
//! Promises that a file below `blobs/` holds the bytes that its name says, as far as the disk keeps them, and that logs
//! and artifacts each stay within a quota and an age: the oldest go first. A file that is kept has two names, the one it
//! was written under and its content's; both go together.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use super::dir::{DataDir, remove_leftover};
use super::error::StoreError;
use crate::kernel::id::BlobId;
use crate::kernel::task::Blob;

/// Below the data directory: files by content.
const BLOBS: &str = "blobs";
/// Below the data directory: logs by task and attempt.
const LOGS: &str = "logs";
/// Below the data directory: artifacts, in a folder for each task and attempt.
const ARTIFACTS: &str = "artifacts";
/// Below the data directory: logs of other hosts, as they arrive.
const ARRIVING: &str = "arriving";
/// How much of a file is hashed at a time.
const CHUNK: usize = 64 * 1024;

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    pub logs: Share,
    pub artifacts: Share,
}

/// How much of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The most bytes of all together.
    pub quota: u64,
    /// What is older goes.
    pub age: Duration,
}

/// What a sweep took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    pub files: usize,
    pub bytes: u64,
}

/// The logs and artifacts of a data directory. Everything here blocks.
#[derive(Debug, Clone)]
pub struct Blobs {
    dir: PathBuf,
}

impl Blobs {
    /// Those of a directory that this process holds. What was arriving when an earlier process ended is removed.
    ///
    /// # Errors
    /// [`StoreError::File`] when the folders cannot be made.
    pub fn open(dir: &DataDir) -> Result<Self, StoreError> {
        let arriving = dir.path().join(ARRIVING);
        match fs::remove_dir_all(&arriving) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::file("clearing", &arriving, error));
            }
            _ => {}
        }
        for name in [BLOBS, LOGS, ARTIFACTS, ARRIVING] {
            let folder = dir.path().join(name);
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.map_err(|error| StoreError::file("making the folder", &folder, error))?;
        }
        Ok(Self { dir: dir.path().to_owned() })
    }

    /// Where the log of that name is written.
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join(LOGS).join(name)
    }

    /// The folder of the artifacts of that name; each is a file of it.
    pub fn artifacts(&self, name: &str) -> PathBuf {
        self.dir.join(ARTIFACTS).join(name)
    }

    /// Where a log of another host may be written while it arrives.
    pub fn arriving(&self, name: &str) -> PathBuf {
        self.dir.join(ARRIVING).join(name)
    }

    /// The file with this content, if it is here.
    pub fn find(&self, id: &BlobId) -> Option<PathBuf> {
        Some(self.place(id)).filter(|path| path.exists())
    }

    /// Keeps a complete file by its content too; its bytes are on disk when this returns.
    ///
    /// # Errors
    /// What the file system says.
    pub fn keep(&self, file: &Path) -> io::Result<Blob> {
        let blob = hash(file)?;
        self.link(file, &blob)?;
        Ok(blob)
    }

    /// Keeps all files of a folder by their content too, in the order of their names; none where there is no such folder.
    ///
    /// # Errors
    /// What the file system says.
    pub fn keep_all(&self, folder: &Path) -> io::Result<Vec<(String, Blob)>> {
        let found = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            found => found?,
        };
        let mut kept = Vec::new();
        for file in found {
            let file = file?;
            if let Ok(name) = file.file_name().into_string() {
                kept.push((name, self.keep(&file.path())?));
            }
        }
        kept.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(kept)
    }

    /// Keeps a file if it is that one; says whether it is.
    ///
    /// # Errors
    /// What the file system says.
    pub fn keep_if(&self, file: &Path, blob: &Blob) -> io::Result<bool> {
        let is_it = hash(file)? == *blob;
        if is_it {
            self.link(file, blob)?;
        }
        Ok(is_it)
    }

    fn link(&self, file: &Path, blob: &Blob) -> io::Result<()> {
        File::open(file)?.sync_all()?;
        let place = self.place(&blob.id);
        // A file of that name may be one that was not wholly on disk when the power went.
        remove_leftover(&place)?;
        fs::hard_link(file, &place)
    }

    /// Removes of either kind what is too old, then the oldest beyond the quota, except logs that are `written` now.
    ///
    /// # Errors
    /// What the file system says; what could be removed is.
    pub fn sweep(&self, keeping: &Keeping, written: &[PathBuf]) -> io::Result<Swept> {
        let mut files: BTreeMap<u64, Found> = BTreeMap::new();
        let folders = self.folders()?;
        let of_artifacts = folders.iter().map(|folder| (folder.clone(), Kind::Artifact));
        let named = of_artifacts.chain([(self.dir.join(LOGS), Kind::Log)]);
        // What only its content names came from another host, or its other name could not be removed.
        for (folder, kind) in named.chain([(self.dir.join(BLOBS), Kind::Log)]) {
            for file in entries(&folder)? {
                let metadata = match file.metadata() {
                    Ok(metadata) if metadata.is_file() => metadata,
                    Ok(_) => continue,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                let (changed, bytes) = (metadata.modified()?, metadata.len());
                let found = files.entry(metadata.ino()).or_insert(Found { changed, bytes, kind, names: vec![] });
                found.names.push(file.path());
            }
        }
        files.retain(|_, found| !found.names.iter().any(|name| written.contains(name)));
        let (logs, artifacts): (Vec<Found>, Vec<Found>) =
            files.into_values().partition(|found| found.kind == Kind::Log);
        let mut swept = Swept::default();
        for (found, share) in [(logs, keeping.logs), (artifacts, keeping.artifacts)] {
            remove(found, share, &mut swept)?;
        }
        for folder in folders {
            // One with anything in it stays.
            let _ = fs::remove_dir(folder);
        }
        Ok(swept)
    }

    /// The folders of artifacts.
    fn folders(&self) -> io::Result<Vec<PathBuf>> {
        Ok(entries(&self.dir.join(ARTIFACTS))?.into_iter().map(|entry| entry.path()).collect())
    }

    fn place(&self, id: &BlobId) -> PathBuf {
        self.dir.join(BLOBS).join(id.to_string())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Log,
    Artifact,
}

/// One file under all its names.
struct Found {
    changed: SystemTime,
    bytes: u64,
    kind: Kind,
    names: Vec<PathBuf>,
}

/// What is in a folder, if it is one that is there.
fn entries(folder: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => Ok(Vec::new()),
        found => found?.collect(),
    }
}

/// Removes of these what a share does not allow.
fn remove(mut files: Vec<Found>, share: Share, swept: &mut Swept) -> io::Result<()> {
    let now = SystemTime::now();
    files.sort_by_key(|found| found.changed);
    let mut total: u64 = files.iter().map(|found| found.bytes).sum();
    for found in files {
        // A clock that was set back makes nothing old.
        let age = now.duration_since(found.changed).unwrap_or_default();
        if age <= share.age && total <= share.quota {
            continue;
        }
        found.names.iter().try_for_each(|name| remove_leftover(name))?;
        total -= found.bytes;
        swept.files += 1;
        swept.bytes += found.bytes;
    }
    Ok(())
}

fn hash(file: &Path) -> io::Result<Blob> {
    let (mut file, mut hasher) = (File::open(file)?, Sha256::new());
    let (mut chunk, mut bytes) = (vec![0; CHUNK], 0);
    loop {
        let length = file.read(&mut chunk)?;
        if length == 0 {
            return Ok(Blob { id: BlobId::from_digest(hasher.finalize().into()), bytes });
        }
        hasher.update(&chunk[..length]);
        bytes += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blobs() -> (tempfile::TempDir, Blobs) {
        let dir = tempfile::tempdir().expect("a directory");
        let blobs = Blobs::open(&DataDir::create(&dir.path().join("data")).expect("makes")).expect("opens");
        (dir, blobs)
    }

    fn written(blobs: &Blobs, name: &str, bytes: &[u8], old: Duration) -> PathBuf {
        let path = blobs.log(name);
        fs::write(&path, bytes).expect("writes");
        File::options().append(true).open(&path).expect("opens").set_modified(SystemTime::now() - old).expect("dates");
        path
    }

    #[test]
    fn a_file_is_found_by_its_content_once() {
        let (_dir, blobs) = blobs();
        let one = written(&blobs, "one", b"said", Duration::ZERO);
        let blob = blobs.keep(&one).expect("keeps");
        assert_eq!(blob, Blob { id: BlobId::of(b"said"), bytes: 4 });
        assert_eq!(blobs.keep(&written(&blobs, "two", b"said", Duration::ZERO)).expect("keeps"), blob);
        assert_eq!(fs::read(blobs.find(&blob.id).expect("is here")).expect("reads"), b"said");
        assert_eq!(blobs.find(&BlobId::of(b"unsaid")), None);
        assert!(blobs.keep(&blobs.log("none")).is_err());
        let other = written(&blobs, "three", b"else", Duration::ZERO);
        assert!(!blobs.keep_if(&other, &blob).expect("compares") && blobs.find(&BlobId::of(b"else")).is_none());
    }

    #[test]
    fn the_oldest_go_first_and_by_both_names() {
        let (_dir, blobs) = blobs();
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let files: Vec<PathBuf> =
            (1..=4).map(|n| written(&blobs, &n.to_string(), &[n as u8; 100], hours(10 - n))).collect();
        let kept: Vec<Blob> = files.iter().map(|file| blobs.keep(file).expect("keeps")).collect();
        let artifacts = Share { quota: 0, age: Duration::ZERO };
        let sweep = |quota, age, written| blobs.sweep(&Keeping { logs: Share { quota, age }, artifacts }, written);
        let swept = sweep(250, hours(100), &files[1..2]).expect("sweeps");
        // The second is written now: it neither counts nor goes.
        assert_eq!(swept, Swept { files: 1, bytes: 100 });
        let here = |n: usize| (files[n].exists(), blobs.find(&kept[n].id).is_some());
        assert_eq!([0, 1, 2, 3].map(here), [(false, false), (true, true), (true, true), (true, true)]);
        let swept = sweep(u64::MAX, hours(15) / 2, &[]).expect("sweeps");
        assert_eq!(swept, Swept { files: 1, bytes: 100 });
        assert_eq!([1, 2, 3].map(here), [(false, false), (true, true), (true, true)]);
    }

    #[test]
    fn artifacts_have_a_quota_and_an_age_of_their_own_and_their_folders_go_with_them() {
        let (_dir, blobs) = blobs();
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let log = written(&blobs, "log", &[7; 400], hours(50));
        blobs.keep(&log).expect("keeps");
        let mut kept = Vec::new();
        for (task, name, old) in [("a-1", "site", 9), ("a-1", "tests", 8), ("b-1", "site", 1)] {
            let folder = blobs.artifacts(task);
            fs::create_dir_all(&folder).expect("a folder");
            let path = folder.join(name);
            fs::write(&path, format!("{task} {name}").repeat(10)).expect("writes");
            let file = File::options().append(true).open(&path).expect("opens");
            file.set_modified(SystemTime::now() - hours(old)).expect("dates");
            kept.push(path);
        }
        let named =
            |found: Vec<(String, Blob)>| found.into_iter().map(|(name, blob)| (name, blob.bytes)).collect::<Vec<_>>();
        let all = blobs.keep_all(&blobs.artifacts("a-1")).expect("keeps");
        assert!(all.iter().all(|(_, blob)| blobs.find(&blob.id).is_some()));
        assert_eq!(named(all), [("site".to_owned(), 80), ("tests".to_owned(), 90)]);
        assert_eq!(blobs.keep_all(&blobs.artifacts("none-1")).expect("nothing"), []);
        blobs.keep_all(&blobs.artifacts("b-1")).expect("keeps");
        let logs = Share { quota: u64::MAX, age: hours(1000) };
        let sweep = |quota, age| blobs.sweep(&Keeping { logs, artifacts: Share { quota, age } }, &[]).expect("sweeps");
        assert_eq!(sweep(200, hours(1000)), Swept { files: 1, bytes: 80 }, "the oldest beyond the quota");
        assert_eq!(kept.iter().map(|path| path.exists()).collect::<Vec<_>>(), [false, true, true]);
        assert_eq!(sweep(u64::MAX, hours(2)), Swept { files: 1, bytes: 90 }, "what is too old");
        assert!(!blobs.artifacts("a-1").exists() && kept[2].exists() && log.exists());
        assert_eq!(fs::read_dir(blobs.dir.join(BLOBS)).expect("lists").count(), 2);
    }

    #[test]
    fn what_was_arriving_is_cleared_by_the_next_process() {
        let (dir, blobs) = blobs();
        fs::write(blobs.arriving("half"), b"ha").expect("writes");
        let again = Blobs::open(&DataDir::open(&dir.path().join("data")).expect("opens")).expect("opens");
        assert!(!again.arriving("half").exists() && again.arriving("").exists());
    }
}
