//! GitHub's own runner as an operator has it: found, asked for its version, and laid out anew for each run.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{ActionsRunner, Settings};

/// The runner's program, below its directory.
pub(crate) const LISTENER: &str = "bin/Runner.Listener";
/// The directories that hold its programs: large, and never written by it.
pub(crate) const PROGRAMS: [&str; 2] = ["bin", "externals"];

/// How long it may take to say its version, and its archive to be unpacked.
const PROBE: Duration = Duration::from_secs(20);
const UNPACK: Duration = Duration::from_secs(300);
/// Where archives are unpacked, in the work directory.
const UNPACKED: &str = ".actions-runner";

/// Finds the runner that the settings name. An archive is unpacked once for all runs, and again when it has changed.
///
/// # Errors
/// A sentence that says what to do.
pub(crate) async fn probe(settings: &Settings) -> Result<ActionsRunner, String> {
    let Some(named) = &settings.actions_runner else {
        return Err("GitHub's own runner is not named in the settings: actions_runner = PATH, of its directory or \
                    archive (https://github.com/actions/runner/releases)"
            .to_owned());
    };
    let named = std::path::absolute(named).map_err(|error| format!("finding {}: {error}", named.display()))?;
    let root = if named.is_dir() { named.clone() } else { unpack(&named, &settings.work_root).await? };
    let fault = |what: String| format!("{}: {what}; name the runner as GitHub gives it away", named.display());
    let program = root.join(LISTENER);
    let mut command = Command::new(&program);
    command.arg("--version").env_clear().env("PATH", &settings.path).env("HOME", &settings.work_root);
    command.current_dir(&root).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PROBE, command.output()).await.unwrap_or_else(|late| Err(late.into()));
    let output = output.map_err(|error| fault(format!("starting {LISTENER} --version: {error}")))?;
    if !output.status.success() {
        return Err(fault(format!("{LISTENER} --version ended with {}", output.status)));
    }
    let version = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned();
    Ok(ActionsRunner { root, version })
}

/// Unpacks the archive with `tar`, under a name that a changed archive does not have.
async fn unpack(archive: &Path, work_root: &Path) -> Result<PathBuf, String> {
    let fault = |error: &dyn std::fmt::Display| format!("unpacking {}: {error}", archive.display());
    let meta = fs::metadata(archive).map_err(|error| fault(&error))?;
    let all = work_root.join(UNPACKED);
    let root = all.join(format!("{}-{}-{}", meta.ino(), meta.len(), meta.mtime()));
    if root.join(LISTENER).exists() {
        return Ok(root);
    }
    let making = root.with_extension("new");
    let mut private = fs::DirBuilder::new();
    private.recursive(true).mode(0o700);
    // What is there is of an earlier archive, or was not finished.
    let cleared = fs::remove_dir_all(&all).or_else(|error| match error.kind() {
        ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    });
    cleared.and_then(|()| private.create(&making)).map_err(|error| fault(&error))?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--no-same-owner", "--file"]).arg(archive).arg("--directory").arg(&making);
    tar.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(UNPACK, tar.output()).await.unwrap_or_else(|late| Err(late.into()));
    let output = output.map_err(|error| fault(&error))?;
    if !output.status.success() {
        return Err(fault(&String::from_utf8_lossy(&output.stderr).trim()));
    }
    let renamed = root.clone();
    let moved = spawn_blocking(move || fs::rename(making, renamed)).await;
    moved.map_err(io::Error::other).flatten().map_err(|error| fault(&error))?;
    Ok(root)
}

/// Fills a fresh directory from an installation: the files beside its programs are copied, except those whose name
/// begins with a dot (an operator's own registration). The programs themselves are shared by hard links, or copied
/// where that cannot be; where `programs` is false they are left to be mounted.
///
/// # Errors
/// What the file system says.
pub(crate) fn populate(from: &Path, to: &Path, programs: bool) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(b".") && entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(name))?;
        }
    }
    for part in PROGRAMS {
        let (from, to) = (from.join(part), to.join(part));
        if from.is_dir() {
            fs::create_dir(&to)?;
            if programs {
                share(&from, &to)?;
            }
        }
    }
    Ok(())
}

/// Lays out the same tree, with the same files where the file system allows it. Links are kept as they are.
fn share(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
        } else if kind.is_dir() {
            fs::create_dir(&target)?;
            share(&source, &target)?;
        } else if fs::hard_link(&source, &target).is_err() {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_directory_has_the_programs_and_nobodys_registration() {
        let scratch = tempfile::tempdir().unwrap();
        let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
        for folder in ["bin/deep", "externals/node", "_diag", "_work/job"] {
            fs::create_dir_all(from.join(folder)).unwrap();
        }
        for file in ["run.sh", ".runner", ".credentials", "bin/Runner.Listener", "bin/deep/a", "_work/job/left"] {
            fs::write(from.join(file), file).unwrap();
        }
        std::os::unix::fs::symlink("node", from.join("externals/latest")).unwrap();
        fs::create_dir(&to).unwrap();
        populate(&from, &to, true).unwrap();
        let mut names: Vec<_> = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["bin", "externals", "run.sh"]);
        assert_eq!(fs::read_to_string(to.join("bin/deep/a")).unwrap(), "bin/deep/a");
        assert_eq!(fs::read_link(to.join("externals/latest")).unwrap(), Path::new("node"));
    }
}
