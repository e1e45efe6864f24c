//! Whether the data directory does for a node. What is in it is read, and nothing of it is changed.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::store::{DATABASE, DataDir, LOCK, Owner, Store, StoreError};

/// What was found there; else what is wrong and what to do.
pub(super) fn looked_at(data_dir: &Path) -> Result<String, String> {
    let told = |error: StoreError| error.to_string();
    let dir = match DataDir::open(data_dir) {
        Err(StoreError::NoDirectory { path }) => return Ok(format!("{}, made at the first start", path.display())),
        dir => dir.map_err(told)?,
    };
    let identity = dir.identity_key().map_err(told)?;
    dir.mesh_key().map_err(told)?;
    let membership = dir.membership().map_err(told)?;
    let (shown, file) = (data_dir.display(), data_dir.join(DATABASE));
    let found = match &membership {
        Some(membership) => format!("{shown}, of mesh {}", membership.mesh),
        None => format!("{shown}, of no mesh yet"),
    };
    if file.symlink_metadata().is_err() || is_in_use(data_dir) {
        return Ok(found);
    }
    let (Some(identity), Some(membership)) = (identity, membership) else {
        return Err(format!(
            "{} is there, and identity.key and mesh.toml, which tell whose it is, are not: put them back from a copy, \
             or move it away",
            file.display()
        ));
    };
    opens(&file, Owner { mesh: membership.mesh, peer: identity.peer_id() }).map(|()| found)
}

/// A node at work leaves its database unfinished at any moment, and says itself what is wrong with it.
fn is_in_use(data_dir: &Path) -> bool {
    let lock = File::open(data_dir.join(LOCK));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Whether a node could open the database. A copy of it is opened, since the engine writes to what it opens.
fn opens(file: &Path, owner: Owner) -> Result<(), String> {
    if !file.is_file() {
        return Err(format!("{} is no regular file: move it away", file.display()));
    }
    let random = getrandom::u64().map_err(|error| format!("asking the system for random bytes: {error}"))?;
    let scratch = Scratch(std::env::temp_dir().join(format!("runmesh-doctor-{random:016x}")));
    let copy = scratch.0.join(DATABASE);
    let told = |error: StoreError| error.to_string().replace(&copy.display().to_string(), &file.display().to_string());
    let dir = DataDir::create(&scratch.0).and_then(DataDir::hold).map_err(told)?;
    fs::copy(file, &copy)
        .map_err(|error| format!("copying {} to {}, to try it there: {error}", file.display(), scratch.0.display()))?;
    Store::open(dir, owner).map(drop).map_err(told)
}

/// A directory that goes with this value.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays of it is in the system's directory for what is temporary.
        let _ = fs::remove_dir_all(&self.0);
    }
}
