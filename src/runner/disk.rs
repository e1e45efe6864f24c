//! What a disk has left, and how much of it nobody here may use up.

use std::io;
use std::path::Path;

/// The usual floor: this part of the disk, or so much where that is less.
const PART: u64 = 10;
const MOST: u64 = 5 << 30;

/// A disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Free to this user.
    pub free: u64,
    pub size: u64,
}

impl Disk {
    /// That of a path.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(path: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Self { free: bytes(found.f_bavail), size: bytes(found.f_blocks) })
    }

    /// A sentence where less is free on the disk of `what` than must be.
    pub fn shortage(&self, what: &str, said: Option<u64>) -> Option<String> {
        let floor = self.floor(said);
        (self.free < floor).then(|| {
            format!(
                "the disk of the {what} has less than {} MiB free: this host claims nothing until there is more (setting \
                 min_free)",
                floor >> 20
            )
        })
    }

    /// How much of it must stay free: what the operator says, else a tenth, 5 GiB at most.
    pub fn floor(&self, said: Option<u64>) -> u64 {
        said.unwrap_or_else(|| (self.size / PART).min(MOST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_a_part_of_a_small_disk_and_a_number_of_a_large_one() {
        let of = |size: u64| Disk { free: 0, size: size << 30 };
        assert_eq!([of(10).floor(None), of(1000).floor(None), of(10).floor(Some(7))], [1 << 30, 5 << 30, 7]);
        let here = Disk::of(Path::new("/")).unwrap();
        assert!(here.size > 0 && here.free <= here.size);
        assert!(Disk::of(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn what_is_wrong_is_told_with_the_floor() {
        let of = |free: u64, size: u64, floor| Disk { free: free << 30, size: size << 30 }.shortage("disk", floor);
        assert_eq!(of(2, 10, None), None);
        assert!(of(0, 10, None).is_some_and(|why| why.contains("less than 1024 MiB free")));
        assert_eq!(of(1, 1000, Some(1 << 20)), None);
        assert!(of(7, 1000, Some(8 << 30)).is_some());
    }
}
