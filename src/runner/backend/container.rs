//! A container of Docker or Podman: an image's files, limits, and of the host only what the task needs.
//!
//! The home is the task's own, and so are the places below `/runmesh`. Who runs in it is the image's to say, root mostly.
//! Devices are not shown: engines have their own ways for each kind.

use std::path::PathBuf;

use super::{Backend, Confined, Invocation, Mount, Places, Settings, environment};
use crate::runner::engine::{Boxed, Engine, bind, home};
use crate::runner::run::Host;

pub(super) struct Container;

impl Backend for Container {
    fn seen(&self, mount: &Mount) -> PathBuf {
        mount.inside.clone()
    }

    fn mounts(&self) -> bool {
        true
    }

    fn confine(&self, settings: &Settings, _: &Places, what: &Confined) -> Invocation {
        Invocation {
            program: what.program.clone(),
            arguments: what.arguments.clone(),
            environment: environment(settings, &home(), "/tmp".as_ref(), what),
            directory: what.directory.clone().unwrap_or_else(home),
            input: what.input.clone(),
        }
    }
}

/// What the container is made of.
pub(super) fn boxed(host: &Host, engine: &Engine, places: &Places, what: &Confined, mark: &str) -> Boxed {
    let own = [bind(&places.home, &home(), true)];
    let mounts = what.mounts.iter().map(|Mount { outside, inside, writable }| bind(outside, inside, *writable));
    Boxed {
        engine: engine.clone(),
        image: host.settings.image.clone(),
        node: host.mark.clone(),
        mark: mark.to_owned(),
        binds: own.into_iter().chain(mounts).collect(),
        limits: host.settings.limits,
        network: host.settings.network,
    }
}
