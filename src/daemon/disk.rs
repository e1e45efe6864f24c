//! The floor of free disk: below it this host claims nothing, and says so.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::{Daemon, WorkSettings};
use crate::kernel::io::Input;
use crate::runner;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(10);
/// What is known of the disk.
pub(super) struct Disk {
    pub(super) look: Instant,
    /// What is wrong with it.
    pub(super) low: Option<String>,
}

impl Disk {
    pub(super) fn look(data_dir: &Path, work: &WorkSettings) -> Self {
        let low = |what: &str, path: &Path| runner::Disk::of(path).ok()?.shortage(what, work.min_free);
        let low = low("data directory", data_dir).or_else(|| low("work directory", work.work_dir.as_deref()?));
        Self { look: Instant::now() + LOOK, low }
    }
}

impl Daemon {
    /// Looks at the disk again, and tells the mesh if that changes what this host offers.
    pub(super) fn look_at_disk(&mut self) {
        let before = self.disk.low.take();
        self.disk = Disk::look(&self.settings.data_dir, &self.settings.work);
        if before == self.disk.low {
            return;
        }
        match (&before, &self.disk.low) {
            (_, Some(low)) => tracing::warn!("{low}"),
            (Some(_), None) => tracing::info!("the disk has room again"),
            (None, None) => (),
        }
        self.feed(Input::Offer(self.offer()));
    }
}
