//! No isolation: the job is a process of the node's user, with a home and an environment of its own.

use std::ffi::OsString;
use std::path::Path;

use super::{Backend, Inside, Invocation, Places, Settings, environment};

pub(super) struct Bare;

impl Backend for Bare {
    fn inside(&self, places: &Places, act: &Path) -> Inside {
        Inside {
            act: act.to_owned(),
            checkout: places.checkout.clone(),
            event: places.event.clone(),
            empty: places.empty.clone(),
        }
    }

    fn confine(&self, settings: &Settings, places: &Places, act: &Path, arguments: Vec<OsString>) -> Invocation {
        Invocation {
            program: act.to_owned(),
            arguments,
            environment: environment(settings, &places.home, &places.tmp),
            directory: places.home.clone(),
        }
    }
}
