//! What stands between a job and the host: one file per backend behind one trait. `tests/runner.rs` holds each to the
//! same contract: exit statuses and output come through, the environment is the given one, the home and the directory
//! for temporary files can be written, and after a stop nothing is left.

mod bare;
mod bwrap;
mod container;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub(crate) use self::bwrap::probe as probe_bwrap;
use super::engine::Boxed;
use super::places::Places;
use super::process::Invocation;
use super::run::Host;
use super::{Isolation, Settings};

/// A program that is to run, as it sees itself.
#[derive(Debug, Clone)]
pub(crate) struct Confined {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// Besides what every job has. Not seen in any process's arguments.
    pub(crate) environment: BTreeMap<OsString, OsString>,
    /// What of the host it needs besides the system's programs.
    pub(crate) mounts: Vec<Mount>,
    /// Where it is started; its home where none is said.
    pub(crate) directory: Option<PathBuf>,
    /// Whether it sees the host's devices.
    pub(crate) devices: bool,
    /// A file of the host that it finds on its standard input.
    pub(crate) input: Option<PathBuf>,
}

/// A file or directory of the host that a confined program needs, and by which name.
#[derive(Debug, Clone)]
pub(crate) struct Mount {
    pub(crate) outside: PathBuf,
    pub(crate) inside: PathBuf,
    pub(crate) writable: bool,
}

impl Mount {
    pub(crate) fn read_only(outside: &Path, inside: impl Into<PathBuf>) -> Self {
        Self { outside: outside.to_owned(), inside: inside.into(), writable: false }
    }

    pub(crate) fn writable(outside: &Path, inside: impl Into<PathBuf>) -> Self {
        Self { outside: outside.to_owned(), inside: inside.into(), writable: true }
    }
}

/// A way to run a program for one task.
pub(crate) trait Backend: Send + Sync {
    /// The name by which the program, once inside, knows a mount.
    fn seen(&self, mount: &Mount) -> PathBuf;

    /// Whether a mount is really another's place, so that what it shows cannot be changed through it.
    fn mounts(&self) -> bool;

    /// The invocation that runs it confined.
    fn confine(&self, settings: &Settings, places: &Places, what: &Confined) -> Invocation;
}

/// The container that a program is to run in, if its isolation is one.
pub(crate) fn boxed(host: &Host, isolation: Isolation, places: &Places, what: &Confined, mark: &str) -> Option<Boxed> {
    let engine = host.capabilities.engine.as_ref().ok()?;
    (isolation == Isolation::Container).then(|| container::boxed(host, engine, places, what, mark))
}

/// The backend of an isolation.
pub(crate) fn of(isolation: Isolation) -> &'static dyn Backend {
    match isolation {
        Isolation::Container => &container::Container,
        Isolation::Bwrap => &bwrap::Bwrap,
        Isolation::None => &bare::Bare,
    }
}

/// The whole environment of a job, in any backend, before act or GitHub's runner adds GitHub's variables.
fn environment(settings: &Settings, home: &Path, tmp: &Path, what: &Confined) -> BTreeMap<OsString, OsString> {
    let mut all: BTreeMap<OsString, OsString> =
        settings.env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let fixed: [(&str, OsString); 6] = [
        ("PATH", settings.path.clone().into()),
        ("HOME", home.into()),
        ("TMPDIR", tmp.into()),
        ("LANG", "C.UTF-8".into()),
        // Steps have a terminal under act and many tools would paint it; GitHub's have none.
        ("TERM", "dumb".into()),
        ("ACT_DISABLE_VERSION_CHECK", "1".into()),
    ];
    all.extend(fixed.map(|(name, value)| (name.into(), value)));
    all.extend(what.environment.clone());
    all
}
