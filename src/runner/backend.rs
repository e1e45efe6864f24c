//! What stands between a job and the host: one file per backend behind one trait. `tests/runner.rs` holds each to the
//! same contract: exit statuses and output come through, the environment is the given one, the home and the directory
//! for temporary files can be written, and after a stop nothing is left.

mod bare;
mod bwrap;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

pub(crate) use self::bwrap::probe as probe_bwrap;
use super::act::Inside;
use super::places::Places;
use super::process::Invocation;
use super::{Isolation, Settings};

/// A way to run act for one task.
pub(crate) trait Backend: Send + Sync {
    /// The names by which act, once inside, knows its places.
    fn inside(&self, places: &Places, act: &Path) -> Inside;

    /// The invocation that runs act confined, with these arguments.
    fn confine(&self, settings: &Settings, places: &Places, act: &Path, arguments: Vec<OsString>) -> Invocation;
}

/// The backend of an isolation.
pub(crate) fn of(isolation: Isolation) -> &'static dyn Backend {
    match isolation {
        Isolation::Bwrap => &bwrap::Bwrap,
        Isolation::None => &bare::Bare,
    }
}

/// The whole environment of a job, in any backend, before act adds GitHub's variables.
fn environment(settings: &Settings, home: &Path, tmp: &Path) -> BTreeMap<OsString, OsString> {
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
    all
}
