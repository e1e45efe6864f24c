//! The demo's own directory, removed at the end, and the processes that work in it.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::super::failure::Failure;

/// How long processes may take to be gone once they have been ended.
const GONE: Duration = Duration::from_secs(5);

/// A directory that only this user can enter, removed when this is dropped.
#[derive(Debug)]
pub(super) struct Workplace {
    folder: PathBuf,
    keep: bool,
}

impl Workplace {
    /// Makes one below the system's directory for temporary files; with `keep` it stays in the end.
    pub(super) fn make(keep: bool) -> Result<Self, Failure> {
        let random = getrandom::u32().map_err(|error| Failure::failed("cannot get random bytes").because(&error))?;
        // A short name: the control sockets in it may have at most 108 bytes (unix(7)).
        let folder = std::env::temp_dir().join(format!("runmesh-demo-{random:08x}"));
        let made = fs::DirBuilder::new().mode(0o700).create(&folder).and_then(|()| folder.canonicalize());
        let folder =
            made.map_err(|error| Failure::failed(format!("cannot make {}", folder.display())).because(&error))?;
        Ok(Self { folder, keep })
    }

    pub(super) fn path(&self) -> &Path {
        &self.folder
    }

    /// Whether it stays.
    pub(super) const fn is_kept(&self) -> bool {
        self.keep
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::warn!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

/// Waits until no process works in the folder.
///
/// # Errors
/// Exit status 1, naming those that still do after some seconds.
pub(super) async fn deserted(folder: &Path) -> Result<(), Failure> {
    let deadline = Instant::now() + GONE;
    loop {
        let left = processes(folder);
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Failure::failed(format!("processes were left behind: {}", left.join("; "))));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The processes, apart from this one, that name the folder in their arguments or stand in it. None where the system has
/// no /proc.
fn processes(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let name = folder.display().to_string();
    let within = |process: &Path| {
        let words = fs::read(process.join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        let stands = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        (words.contains(&name) || (stands && !words.is_empty())).then_some(words)
    };
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let numbers = entries.flatten().filter_map(number).filter(|pid| *pid != std::process::id());
    numbers
        .filter_map(|pid| Some(format!("{pid} ({})", within(&Path::new("/proc").join(pid.to_string()))?.trim())))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn it_is_private_and_goes_away() {
        use std::os::unix::fs::PermissionsExt as _;
        let place = Workplace::make(false).unwrap();
        let folder = place.path().to_owned();
        fs::write(folder.join("file"), "x").unwrap();
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        drop(place);
        assert!(!folder.exists());
    }

    #[tokio::test]
    async fn a_process_that_stands_in_it_is_found() {
        let place = Workplace::make(false).unwrap();
        let mut sleeper =
            Command::new("sleep").arg("60").current_dir(place.path()).stdin(Stdio::null()).spawn().unwrap();
        // A process has no arguments yet at the moment in which its program begins.
        let deadline = Instant::now() + GONE;
        let mut found = processes(place.path());
        while found.is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
            found = processes(place.path());
        }
        assert!(found.len() == 1 && found[0].contains("sleep 60"), "{found:?}");
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        deserted(place.path()).await.unwrap();
    }
}
