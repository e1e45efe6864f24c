//! Control groups: a second, surer way to end all that a task has started, where the kernel and the node's place allow it.
//!
//! A group (cgroup v2, <https://docs.kernel.org/admin-guide/cgroup-v2.html>) is made beside the node's own for each
//! order, the order's program enters it before it begins, and a word to `cgroup.kill` ends all that is in it at once,
//! whoever adopted it. Where none can be made the reaper alone does it, which finds descendants by their parents.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::process::{Invocation, Supervised};
use super::{Settings, reaper};
use crate::kernel::id::Digest;

/// How long killed processes may take to be gone.
const END: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How long the attempt to use one may take.
const PROBE: Duration = Duration::from_secs(10);

/// Where groups are made, and by which names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cgroups {
    base: PathBuf,
    prefix: String,
}

/// The group of one order. Dropping it ends what is in it, as far as that goes without waiting.
#[derive(Debug)]
pub(crate) struct Cgroup(PathBuf);

/// Really makes one and runs a program in it. The directory below which they are made.
///
/// # Errors
/// A sentence on why there can be none.
pub(crate) async fn probe(settings: &Settings) -> Result<PathBuf, String> {
    if !settings.cgroups {
        return Err("not wanted by the settings".to_owned());
    }
    let base = base().ok_or("this system has no cgroup v2 hierarchy that this process is in")?;
    let groups = Cgroups::new(base.clone(), &settings.work_root);
    let fault = |error: io::Error| format!("no control group can be made below {}: {error}", base.display());
    let group = groups.make(&format!("probe-{}", std::process::id())).map_err(fault)?;
    if !group.0.join("cgroup.kill").exists() {
        return Err("the kernel is older than 5.14, which brought cgroup.kill".to_owned());
    }
    let what = Invocation {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), "grep -q runmesh- /proc/self/cgroup".into()],
        environment: [("PATH".into(), settings.path.clone().into())].into(),
        directory: "/".into(),
        input: None,
    };
    let (mut family, ..) = Supervised::start(&settings.program, &what, Some(group.path())).map_err(fault)?;
    let ended = tokio::time::timeout(PROBE, family.ended()).await.unwrap_or_else(|late| Err(late.into()));
    match ended.map_err(fault)?.code() {
        Some(0) => Ok(base),
        Some(code) if code == i32::from(reaper::UNABLE) => Err(format!("{} cannot be entered", group.0.display())),
        _ => Err(format!("what enters {} is not found in it", group.0.display())),
    }
}

/// The directory of this process's own group.
pub(crate) fn base() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    base_of(&mounts, &groups)
}

/// The same, from what the files say (proc_pid_mountinfo(5), cgroups(7)).
fn base_of(mounts: &str, groups: &str) -> Option<PathBuf> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        (after.split(' ').next() == Some("cgroup2")).then_some(())?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        Some(Path::new(point).join(Path::new(own).strip_prefix(root).ok()?))
    })
}

impl Cgroups {
    /// Those of the node that works in this directory.
    pub(crate) fn new(base: PathBuf, work_root: &Path) -> Self {
        let node = Digest::of(&[work_root.as_os_str().as_encoded_bytes()]).to_string();
        Self { base, prefix: format!("runmesh-{}-", &node[..12]) }
    }

    /// # Errors
    /// What the kernel says.
    pub(crate) fn make(&self, name: &str) -> io::Result<Cgroup> {
        let path = self.path(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(Cgroup(path)),
        }
    }

    /// Where the group of this name is, or would be.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.base.join(format!("{}{name}", self.prefix))
    }

    /// The names that groups of this node bear.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.base).into_iter().flatten().flatten();
        let name = |entry: fs::DirEntry| Some(entry.file_name().to_str()?.strip_prefix(&self.prefix)?.to_owned());
        entries.filter_map(name).collect()
    }

    /// Ends the group of this name, if there is one. Waits until it is gone, at most some seconds; says whether it is.
    pub(crate) fn end(&self, name: &str) -> bool {
        end(&self.path(name))
    }

    /// Ends all groups of this node. Waits until they are gone, at most some seconds; says which are not.
    pub(crate) fn sweep(&self) -> Vec<String> {
        self.names().into_iter().filter(|name| !self.end(name)).collect()
    }
}

impl Cgroup {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if fs::remove_dir(&self.0).is_err() {
            kill(&self.0);
        }
    }
}

/// Ends all that is in a group, and does not wait.
pub(crate) fn kill(group: &Path) {
    // Gone already is what was wanted.
    let _ = fs::write(group.join("cgroup.kill"), "1");
}

/// Makes this process enter it.
pub(crate) fn enter(group: &Path) -> io::Result<()> {
    fs::write(group.join("cgroup.procs"), "0")
}

/// Ends a group and what is in it, waiting some seconds at most. Says whether it is gone.
pub(crate) fn end(group: &Path) -> bool {
    let deadline = Instant::now() + END;
    loop {
        kill(group);
        // A task may have made groups below its own.
        for below in fs::read_dir(group).into_iter().flatten().flatten() {
            if below.file_type().is_ok_and(|kind| kind.is_dir()) {
                let _ = fs::remove_dir(below.path());
            }
        }
        match fs::remove_dir(group) {
            Ok(()) => return true,
            Err(error) if error.kind() == ErrorKind::NotFound => return true,
            Err(_) if Instant::now() > deadline => return false,
            Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_below_its_mount() {
        let of = |mounts: &str, groups: &str| base_of(mounts, groups);
        let unified = "25 30 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(of(unified, "0::/user.slice/a\n"), Some("/sys/fs/cgroup/user.slice/a".into()));
        let hybrid = "11 32 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      20 41 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(of(hybrid, "1:cpu:/x\n0::/\n"), Some("/sys/fs/cgroup/unified/".into()));
        let inside = "25 30 0:22 /box /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(of(inside, "0::/box/a\n"), Some("/sys/fs/cgroup/a".into()));
        assert_eq!(of(inside, "0::/elsewhere\n"), None);
        assert_eq!(of("11 32 0:29 / /sys/fs/cgroup rw - cgroup cgroup rw,cpu\n", "1:cpu:/\n"), None);
    }
}
