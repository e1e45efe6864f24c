//! The floor of free disk: below it this host claims nothing, and says so.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::{Daemon, WorkSettings};
use crate::kernel::io::Input;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(10);
/// The usual floor: this part of the disk, or so much where that is less.
const PART: u64 = 10;
const MOST: u64 = 5 << 30;

/// What is known of the disk.
pub(super) struct Disk {
    pub(super) look: Instant,
    /// What is wrong with it.
    pub(super) low: Option<String>,
}

impl Disk {
    pub(super) fn look(data_dir: &Path, work: &WorkSettings) -> Self {
        let low = |what: &str, path: &Path| {
            let found = rustix::fs::statvfs(path).ok()?;
            let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
            below(what, bytes(found.f_bavail), bytes(found.f_blocks), work.min_free)
        };
        let low = low("data directory", data_dir).or_else(|| low("work directory", work.work_dir.as_deref()?));
        Self { look: Instant::now() + LOOK, low }
    }
}

/// A sentence where too little is free.
fn below(what: &str, free: u64, all: u64, floor: Option<u64>) -> Option<String> {
    let floor = floor.unwrap_or_else(|| (all / PART).min(MOST));
    let mib = |bytes: u64| bytes >> 20;
    (free < floor).then(|| {
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
    fn the_floor_is_a_part_of_a_small_disk_and_a_number_of_a_large_one() {
        let gib = |gib: u64| gib << 30;
        let below = |free, all, floor| below("disk", free, all, floor);
        assert_eq!(below(gib(2), gib(10), None), None);
        assert!(below(gib(1) - 1, gib(10), None).is_some_and(|why| why.contains("less than 1024 MiB free")));
        assert_eq!(below(gib(5), gib(1000), None), None);
        assert!(below(gib(5) - 1, gib(1000), None).is_some());
        assert_eq!(below(1 << 20, gib(1000), Some(1 << 20)), None);
        assert!(below(gib(7), gib(1000), Some(gib(8))).is_some());
    }
}
