//! No isolation: the job is a process of the node's user, with a home and an environment of its own.

use std::path::PathBuf;

use super::{Backend, Confined, Invocation, Mount, Places, Settings, environment};

pub(super) struct Bare;

impl Backend for Bare {
    fn seen(&self, mount: &Mount) -> PathBuf {
        mount.outside.clone()
    }

    fn mounts(&self) -> bool {
        false
    }

    fn confine(&self, settings: &Settings, places: &Places, what: &Confined) -> Invocation {
        Invocation {
            program: what.program.clone(),
            arguments: what.arguments.clone(),
            environment: environment(settings, &places.home, &places.tmp, what),
            directory: what.directory.clone().unwrap_or_else(|| places.home.clone()),
            input: what.input.clone(),
        }
    }
}
