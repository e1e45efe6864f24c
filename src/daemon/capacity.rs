//! What this host has of processors, memory, GPUs and disk, for tasks that ask for so much.

use std::collections::BTreeSet;
use std::path::Path;

use crate::kernel::requests::Amounts;
use crate::runner;

/// As the system says; what the operator's labels say instead counts.
pub(super) fn of_host(data_dir: &Path, labels: &BTreeSet<String>) -> Amounts {
    let said = Amounts::of(labels);
    let or = |said: u32, found: u32| if said > 0 { said } else { found };
    let cpus = std::thread::available_parallelism().map_or(0, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX));
    Amounts {
        cpus: or(said.cpus, cpus),
        memory: or(said.memory, memory(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default())),
        gpus: or(said.gpus, gpus(Path::new("/"))),
        disk: or(said.disk, disk(data_dir)),
    }
}

/// In gibibytes, rounded to the nearest: what the kernel keeps for itself is not missed.
fn memory(meminfo: &str) -> u32 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0);
    u32::try_from((kib + (1 << 19)) >> 20).unwrap_or(u32::MAX)
}

/// NVIDIA's numbered devices, else the compute nodes of others.
fn gpus(root: &Path) -> u32 {
    let count = |folder: &str, is_one: &dyn Fn(&str) -> bool| {
        let entries = std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
        let found = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_one)).count();
        u32::try_from(found).unwrap_or(u32::MAX)
    };
    let numbered = |name: &str| {
        name.strip_prefix("nvidia")
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let nvidia = count("dev", &numbered);
    if nvidia > 0 || !root.join("dev/kfd").exists() {
        nvidia
    } else {
        count("dev/dri", &|name| name.starts_with("renderD"))
    }
}

/// Gibibytes free to this user.
fn disk(data_dir: &Path) -> u32 {
    let free = runner::Disk::of(data_dir).map_or(0, |disk| disk.free);
    u32::try_from(free >> 30).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read() {
        assert_eq!(memory("MemTotal:       16318528 kB\nMemFree: 1 kB\n"), 16);
        assert_eq!(memory(""), 0);
    }

    #[test]
    fn gpus_are_counted() {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(root.path().join("dev/dri")).expect("a folder");
        assert_eq!(gpus(root.path()), 0);
        for name in ["dri/renderD128", "dri/card0", "kfd"] {
            std::fs::write(root.path().join("dev").join(name), "").expect("a file");
        }
        assert_eq!(gpus(root.path()), 1);
        for name in ["nvidia0", "nvidia1", "nvidiactl"] {
            std::fs::write(root.path().join("dev").join(name), "").expect("a file");
        }
        assert_eq!(gpus(root.path()), 2);
    }

    #[test]
    fn what_the_operator_says_counts() {
        let folder = tempfile::tempdir().expect("a directory");
        let has = of_host(folder.path(), &BTreeSet::from(["cpus-77".to_owned(), "big".to_owned()]));
        assert_eq!(has.cpus, 77);
        assert!(has.memory > 0 || !Path::new("/proc/meminfo").exists());
    }
}
