//! How many runners the mesh has room for, as GitHub is told.

use std::time::Duration;

use tokio::time::Instant;

/// How long a number of free slots must have been so before GitHub is told of it, but for the first.
const STEADY: Duration = Duration::from_secs(1);
/// How many runners the mesh has room for. What one host starts and another has not told yet is no news.
#[derive(Default)]
pub(super) struct Capacity {
    told: u32,
    /// Another number, and since when it is so.
    next: Option<(u32, Instant)>,
}

impl Capacity {
    /// What is to be told, when that is the number now.
    pub(super) fn steady(&mut self, now_it_is: u32, now: Instant) -> u32 {
        match self.next {
            _ if now_it_is == self.told => self.next = None,
            Some((number, since)) if number == now_it_is && (self.told == 0 || now >= since + STEADY) => {
                (self.told, self.next) = (number, None);
            }
            Some((number, _)) if number == now_it_is => {}
            _ => self.next = Some((now_it_is, now)),
        }
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_of_slots_is_told_at_once_and_others_when_they_last() {
        let (mut capacity, began) = (Capacity::default(), Instant::now());
        let mut at = |number: u32, millis: u64| capacity.steady(number, began + Duration::from_millis(millis));
        assert_eq!([at(0, 0), at(4, 250), at(4, 500)], [0, 0, 4]);
        // A host has begun what another still thinks free.
        assert_eq!([at(6, 750), at(4, 1_000), at(6, 1_250), at(5, 1_500)], [4; 4]);
        assert_eq!([at(5, 2_000), at(5, 2_500), at(0, 2_750), at(0, 3_750)], [4, 5, 5, 0]);
    }
}
