//! Which processes there are, as /proc tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process, told apart from a later one with the same number by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    parent: i32,
    started: u64,
}

impl Process {
    /// Kills it, unless it is gone already.
    pub(crate) fn kill(self) {
        // The order matters: once the descriptor is open it means one process for good, and the start time says whether
        // that is the one that was seen.
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        if read(self.pid).is_some_and(|now| now.started == self.started) {
            // Gone meanwhile, or not ours to kill: the caller looks again anyway.
            let _ = pidfd_send_signal(descriptor, Signal::KILL);
        }
    }
}

/// All processes that descend from `root`, itself not among them, nearest first.
pub(crate) fn descendants(root: i32) -> Vec<Process> {
    let mut children: BTreeMap<i32, Vec<Process>> = BTreeMap::new();
    for process in all() {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        for process in children.remove(&parent).unwrap_or_default() {
            next.push(process.pid);
            found.push(process);
        }
    }
    found
}

/// All processes whose environment, as they were started with it, names a home below `directory`.
pub(crate) fn at_home_below(directory: &Path) -> BTreeSet<Process> {
    let mut prefix = b"HOME=".to_vec();
    prefix.extend_from_slice(directory.as_os_str().as_bytes());
    prefix.push(b'/');
    let below = |process: &Process| {
        let environ = std::fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|variable| variable.starts_with(&prefix))
    };
    all().filter(below).collect()
}

fn all() -> impl Iterator<Item = Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| read(entry.file_name().to_str()?.parse().ok()?))
}

fn read(pid: i32) -> Option<Process> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads a line of /proc/PID/stat (proc_pid_stat(5)): the name in parentheses may itself hold blanks and parentheses.
fn parse(stat: &str) -> Option<Process> {
    let pid = stat.split_once(' ')?.0.parse().ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    // After the name come state (field 3), parent (4) … and start time (22).
    let parent = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some(Process { pid, parent, started })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "71 (a) b (c) S 12 71 71 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 98765 2592768 1 18446744073709551615";
        assert_eq!(parse(stat), Some(Process { pid: 71, parent: 12, started: 98765 }));
        assert_eq!(parse("no stat"), None);
    }

    #[test]
    fn a_child_is_found_and_killed() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let found = descendants(own).into_iter().find(|process| process.pid == pid).unwrap();
        found.kill();
        assert!(!child.wait().unwrap().success());
    }
}
