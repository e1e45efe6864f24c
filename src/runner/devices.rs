//! Graphics and compute devices of this host: the labels they give it, and the files that a job needs to use them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Labels that a job asks for devices with.
const LABELS: [&str; 3] = ["gpu", "cuda", "rocm"];

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Devices {
    /// Of `gpu`, `cuda` and `rocm` those that hold here.
    pub labels: BTreeSet<String>,
    /// Device files, absolute, ascending.
    pub files: Vec<PathBuf>,
}

impl Devices {
    /// Looks for devices on the host whose root directory this is. `cuda` wants one of NVIDIA's cards (/dev/nvidia0 and
    /// so on) and the driver's own file; `rocm` wants AMD's compute driver (/dev/kfd) and a card (/dev/dri/renderD…).
    /// Either is a `gpu`.
    pub fn find(root: &Path) -> Self {
        let names = |folder: &str| -> BTreeSet<String> {
            let entries = fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
        };
        let (dev, dri) = (names("dev"), names("dev/dri"));
        let numbered = |name: &str, stem: &str| {
            name.strip_prefix(stem).is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let mut found = Self::default();
        if dev.contains("nvidiactl") && dev.iter().any(|name| numbered(name, "nvidia")) {
            found.labels.extend(["gpu", "cuda"].map(str::to_owned));
            let files = dev.iter().filter(|name| name.starts_with("nvidia"));
            found.files.extend(files.map(|name| Path::new("/dev").join(name)));
        }
        let cards: Vec<&String> = dri.iter().filter(|name| numbered(name, "renderD")).collect();
        if dev.contains("kfd") && !cards.is_empty() {
            found.labels.extend(["gpu", "rocm"].map(str::to_owned));
            found.files.push("/dev/kfd".into());
            found.files.extend(cards.into_iter().map(|name| Path::new("/dev/dri").join(name)));
        }
        found.files.sort();
        found
    }

    /// Whether a task that asks for these labels is to see the devices.
    pub(super) fn are_asked_for(labels: &BTreeSet<String>) -> bool {
        LABELS.iter().any(|label| labels.contains(*label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[&str]) -> Devices {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        Devices::find(root.path())
    }

    fn labels(devices: &Devices) -> Vec<&str> {
        devices.labels.iter().map(String::as_str).collect()
    }

    #[test]
    fn cards_give_labels_and_their_files() {
        let found = host(&["dev/nvidia0", "dev/nvidiactl", "dev/nvidia-uvm", "dev/null"]);
        assert_eq!(labels(&found), ["cuda", "gpu"]);
        assert_eq!(found.files, ["/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidiactl"].map(PathBuf::from));
        let found = host(&["dev/kfd", "dev/dri/renderD128", "dev/dri/card0"]);
        assert_eq!(labels(&found), ["gpu", "rocm"]);
        assert_eq!(found.files, ["/dev/dri/renderD128", "/dev/kfd"].map(PathBuf::from));
    }

    #[test]
    fn half_of_a_driver_gives_none() {
        for files in [
            [].as_slice(),
            &["dev/nvidiactl"],
            &["dev/nvidia0"],
            &["dev/nvidia-caps", "dev/nvidiactl"],
            &["dev/kfd"],
            &["dev/dri/renderD128"],
            &["dev/kfd", "dev/dri/renderD"],
        ] {
            assert_eq!(host(files), Devices::default(), "{files:?}");
        }
    }
}
