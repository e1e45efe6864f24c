//! The work directory of one task: made, filled and taken away.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::kernel::id::TaskId;
use crate::kernel::task::Fence;

/// The directories and files of one task on this host.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    root: PathBuf,
    pub(crate) checkout: PathBuf,
    pub(crate) home: PathBuf,
    pub(crate) tmp: PathBuf,
    /// GitHub's runner, its hooks, and the pipe through which they speak.
    pub(crate) runner: PathBuf,
    pub(crate) hooks: PathBuf,
    pub(crate) news: PathBuf,
    /// The container engine as this task sees it.
    pub(crate) door: PathBuf,
    /// The event that the run sees.
    pub(crate) event: PathBuf,
    /// The secrets that act reads.
    pub(crate) secrets: PathBuf,
    /// Variables of the steps that nobody else may read.
    pub(crate) variables: PathBuf,
    /// What the run uploads; the run itself does not see it.
    pub(crate) artifacts: PathBuf,
    /// A file with nothing in it.
    pub(crate) empty: PathBuf,
    /// `passwd` and `group` for a sandbox.
    pub(crate) passwd: PathBuf,
    pub(crate) group: PathBuf,
}

impl Places {
    /// Makes the directories below `work_root`, anew if they were left from before.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn make(work_root: &Path, task: &TaskId, fence: &Fence) -> io::Result<Self> {
        let root = work_root.join(name(task, fence));
        remove(&root)?;
        let at = |part: &str| root.join(part);
        let places = Self {
            checkout: at("checkout"),
            home: at("home"),
            tmp: at("tmp"),
            runner: at("runner"),
            hooks: at("hooks"),
            news: at("news"),
            door: at("engine"),
            event: at("event.json"),
            secrets: at("secrets.yml"),
            variables: at("variables.yml"),
            artifacts: at("artifacts"),
            empty: at("empty"),
            passwd: at("passwd"),
            group: at("group"),
            root,
        };
        let mut private = DirBuilder::new();
        private.mode(0o700);
        let Self { root, checkout, home, tmp, runner, hooks, artifacts, .. } = &places;
        for directory in [root, checkout, home, tmp, runner, hooks, artifacts] {
            private.create(directory)?;
        }
        fs::write(&places.empty, "")?;
        for secret in [&places.secrets, &places.variables] {
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(secret)?;
        }
        fs::write(&places.passwd, PASSWD)?;
        fs::write(&places.group, GROUP)?;
        Ok(places)
    }
}

/// Who exists in a sandbox. Tools ask for the name of their user; git refuses to work without one.
const PASSWD: &str = "root:x:0:0:root:/root:/usr/sbin/nologin\n\
    runner:x:1000:1000:runner:/home/runner:/bin/bash\n\
    nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nrunner:x:1000:\nnogroup:x:65534:\n";

/// Removes what an earlier life left in `work_root`, and nothing that was not made here.
///
/// # Errors
/// When the directory cannot be listed. What cannot be removed is returned.
pub(crate) fn sweep(work_root: &Path) -> io::Result<Vec<(PathBuf, io::Error)>> {
    let mut stuck = Vec::new();
    for entry in fs::read_dir(work_root)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_name)
            && let Err(error) = remove(&entry.path())
        {
            stuck.push((entry.path(), error));
        }
    }
    Ok(stuck)
}

/// The names of the directories that were made here.
pub(crate) fn names(work_root: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(work_root).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_name(name)).collect()
}

/// Short, because the paths of sockets that a job makes may have 107 bytes at most.
pub(crate) fn name(task: &TaskId, fence: &Fence) -> String {
    let claim = fence.claim.to_string();
    format!("{}-{}-{}", &task.to_string()[..12], fence.attempt, &claim[claim.len() - 8..])
}

/// Whether a directory of that name was made here.
pub(crate) fn is_name(name: &str) -> bool {
    let parts: Vec<&str> = name.split('-').collect();
    let [task, attempt, claim] = parts[..] else { return false };
    task.len() == 12
        && task.bytes().all(|byte| byte.is_ascii_hexdigit())
        && !attempt.is_empty()
        && attempt.bytes().all(|byte| byte.is_ascii_digit())
        && claim.len() == 8
        && claim.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Removes a directory and what is in it, also what a job made read-only. Symbolic links are removed, not followed.
pub(crate) fn remove(root: &Path) -> io::Result<()> {
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(_) => {
            open_up(root)?;
            fs::remove_dir_all(root)
        }
        Ok(()) => Ok(()),
    }
}

/// Lets the owner list and change every directory below. Nothing of the task runs any more, so none can turn into a
/// link between the look and the change.
fn open_up(root: &Path) -> io::Result<()> {
    let mut next = vec![root.to_owned()];
    while let Some(path) = next.pop() {
        if fs::symlink_metadata(&path)?.is_dir() {
            fs::set_permissions(&path, Permissions::from_mode(0o700))?;
            for entry in fs::read_dir(&path)? {
                next.push(entry?.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::id::Cid;

    fn task() -> (TaskId, Fence) {
        (TaskId([7; 32]), Fence { attempt: 2, claim: Cid::of(b"claim") })
    }

    #[test]
    fn removes_read_only_trees_and_leaves_what_links_point_at() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("work");
        fs::create_dir(&root).unwrap();
        let outside = scratch.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        let (task, fence) = task();
        let places = Places::make(&root, &task, &fence).unwrap();
        let deep = places.home.join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), "").unwrap();
        std::os::unix::fs::symlink(&outside, deep.join("link")).unwrap();
        fs::set_permissions(&deep, Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(places.home.join("a"), Permissions::from_mode(0o500)).unwrap();
        remove(&places.root).unwrap();
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        assert!(outside.join("kept").exists());
        remove(&places.root).unwrap();
    }

    #[test]
    fn sweeps_its_own_directories_only() {
        let root = tempfile::tempdir().unwrap();
        let (task, fence) = task();
        Places::make(root.path(), &task, &fence).unwrap();
        assert!(is_name(&name(&task, &fence)));
        for other in ["thesis", "2024-01-01", "0123456789ab-1-tooshort1"] {
            fs::create_dir(root.path().join(other)).unwrap();
        }
        assert!(sweep(root.path()).unwrap().is_empty());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 3);
    }
}
