//! When to try again.

use std::time::Duration;

use super::{NetError, Timings};

/// Random numbers for spreading attempts; nothing secret depends on them (SplitMix64, Steele et al. 2014).
#[derive(Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new() -> Result<Self, NetError> {
        getrandom::u64().map(Self).map_err(|error| NetError::Setup(format!("no entropy: {error}")))
    }

    #[cfg(test)]
    pub(super) const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..below`, or 0 when that is empty.
    pub(super) fn below(&mut self, below: usize) -> usize {
        ((u128::from(self.next()) * below as u128) >> 64) as usize
    }

    /// Half of the time to all of it.
    pub(super) fn around(&mut self, time: Duration) -> Duration {
        let half = time / 2;
        half + half.mul_f64((self.next() >> 11) as f64 / (1_u64 << 53) as f64)
    }

    /// The items in random order.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// How long to wait after so many failures, from 1: doubling up to the longest, and spread over half of that, so
    /// that many nodes do not come back to one at once.
    pub(super) fn after(&mut self, failures: u32, timings: &Timings) -> Duration {
        let doubled = timings.retry_first.saturating_mul(1_u32 << failures.saturating_sub(1).min(20));
        self.around(doubled.min(timings.retry_most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_are_spread() {
        let timings = Timings::default();
        let mut jitter = Jitter::seeded(1);
        for (failures, whole) in [(1, 250), (2, 500), (5, 4_000), (8, 30_000), (1_000, 30_000)] {
            let whole = Duration::from_millis(whole);
            let waits: Vec<_> = (0..100).map(|_| jitter.after(failures, &timings)).collect();
            assert!(waits.iter().all(|wait| (whole / 2..=whole).contains(wait)), "{failures}");
            assert!(waits.iter().max() > waits.iter().min());
        }
    }

    #[test]
    fn choices_stay_within_their_range() {
        let mut jitter = Jitter::seeded(2);
        assert_eq!(jitter.below(0), 0);
        assert!((0..100).all(|_| jitter.below(3) < 3));
        let mut items: Vec<_> = (0..50).collect();
        jitter.shuffle(&mut items);
        assert!(!items.is_sorted());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
