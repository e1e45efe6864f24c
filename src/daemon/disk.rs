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
        let low = |what: &str, path: &Path| below(what, runner::Disk::of(path).ok()?, work.min_free);
        let low = low("data directory", data_dir).or_else(|| low("work directory", work.work_dir.as_deref()?));
        Self { look: Instant::now() + LOOK, low }
    }
}

/// A sentence where too little is free.
fn below(what: &str, disk: runner::Disk, floor: Option<u64>) -> Option<String> {
    let floor = disk.floor(floor);
    let mib = |bytes: u64| bytes >> 20;
    (disk.free < floor).then(|| {
        format!(
            "the disk of the {what} has less than {} MiB free: this host claims nothing until there is more (setting \
             min_free)",
            mib(floor)
        )
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_the_floor() {
        let gib = |free: u64, size: u64| runner::Disk { free: free << 30, size: size << 30 };
        let below = |disk, floor| below("disk", disk, floor);
        assert_eq!(below(gib(2, 10), None), None);
        assert!(below(gib(0, 10), None).is_some_and(|why| why.contains("less than 1024 MiB free")));
        assert_eq!(below(gib(1, 1000), Some(1 << 20)), None);
        assert!(below(gib(7, 1000), Some(8 << 30)).is_some());
    }
}
