//! A mergeable quantile sketch: that of Masson, Rim and Lee, "`DDSketch`: A Fast and Fully-Mergeable Quantile Sketch
//! with Relative-Error Guarantees", VLDB 12 (2019), with logarithmic bins that are never collapsed.

use super::percentile::{Percentiles, Rank};

/// Counts values by bins, each of which is so narrow that any value in it stands for all others.
///
/// It is our own because it is what is stored of each hour, and libraries tell their bins only in forms that take several
/// times the room. Values are finite; what is below [`Sketch::LEAST`] in size counts as nothing, and what is above
/// [`Sketch::MOST`] as that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sketch {
    /// The key of the first bin.
    first: i32,
    counts: Vec<u64>,
    total: u64,
}

impl Sketch {
    /// The most that a quantile differs from the exact one, as a part of that.
    pub const ERROR: f64 = 0.01;
    /// What is smaller counts as nothing.
    pub const LEAST: f64 = 1e-6;
    /// What is greater counts as this.
    pub const MOST: f64 = 1e12;

    /// How much wider each bin is than the one before.
    const GROWTH: f64 = (1.0 + Self::ERROR) / (1.0 - Self::ERROR);
    /// Keys of values above nothing begin after this, so that the order of keys is that of values.
    const SHIFT: i32 = 700;
    /// The farthest key on either side: that of [`Self::MOST`].
    const FARTHEST: i32 = Self::SHIFT + 1400;

    /// Counts a value.
    pub fn add(&mut self, value: f64) {
        self.add_bin(Self::key(value), 1);
    }

    /// Counts so many values of a bin.
    pub fn add_bin(&mut self, key: i32, count: u64) {
        let key = key.clamp(-Self::FARTHEST, Self::FARTHEST);
        if count == 0 {
            return;
        }
        self.make_room(key);
        let place = usize::try_from(key - self.first).unwrap_or_default();
        if let Some(bin) = self.counts.get_mut(place) {
            *bin = bin.saturating_add(count);
            self.total = self.total.saturating_add(count);
        }
    }

    /// Counts all that another one did.
    pub fn merge(&mut self, other: &Self) {
        for (key, count) in other.bins() {
            self.add_bin(key, count);
        }
    }

    /// How many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The bins that have values, in their order, with the number of those.
    pub fn bins(&self) -> impl Iterator<Item = (i32, u64)> {
        (self.first..).zip(&self.counts).filter(|(_, count)| **count > 0).map(|(key, count)| (key, *count))
    }

    /// The bin of a value.
    #[must_use]
    pub fn key(value: f64) -> i32 {
        let size = value.abs().min(Self::MOST);
        if size < Self::LEAST {
            return 0;
        }
        #[expect(
            clippy::as_conversions,
            clippy::cast_possible_truncation,
            reason = "the logarithm of what is between LEAST and MOST is small"
        )]
        let step = (size.ln() / Self::GROWTH.ln()).ceil() as i32;
        let key = step + Self::SHIFT;
        if value < 0.0 { -key } else { key }
    }

    /// What stands for the values of a bin.
    #[must_use]
    pub fn value(key: i32) -> f64 {
        if key == 0 {
            return 0.0;
        }
        let size = 2.0 * Self::GROWTH.powi(key.abs() - Self::SHIFT) / (1.0 + Self::GROWTH);
        if key < 0 { -size } else { size }
    }

    /// The percentiles of all values that were counted, each within [`Self::ERROR`]; `None` of none.
    #[must_use]
    pub fn percentiles(&self) -> Option<Percentiles> {
        let last = usize::try_from(self.total.checked_sub(1)?).ok()?;
        let at = |percent| {
            let rank = Rank::of(percent, last);
            let below = self.at(rank.below);
            if rank.part > 0.0 { rank.between(below, self.at(rank.below + 1)) } else { below }
        };
        Some(Percentiles { p50: at(50), p95: at(95), p99: at(99) })
    }

    /// What stands for the value at a place in the order of all, from 0.
    fn at(&self, place: usize) -> f64 {
        let mut left = u64::try_from(place).unwrap_or(u64::MAX);
        let found = self.bins().find(|(_, count)| {
            let is_here = left < *count;
            left = left.saturating_sub(*count);
            is_here
        });
        found.map_or(0.0, |(key, _)| Self::value(key))
    }

    fn make_room(&mut self, key: i32) {
        if self.counts.is_empty() {
            self.first = key;
        }
        let before = usize::try_from(self.first - key).unwrap_or_default();
        if before > 0 {
            self.counts.splice(0..0, std::iter::repeat_n(0, before));
            self.first = key;
        }
        let needed = usize::try_from(key - self.first).unwrap_or_default() + 1;
        if needed > self.counts.len() {
            self.counts.resize(needed, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observability::percentiles;
    use proptest::prelude::*;

    fn of(values: &[f64]) -> Sketch {
        let mut sketch = Sketch::default();
        for value in values {
            sketch.add(*value);
        }
        sketch
    }

    #[track_caller]
    fn check_close(found: Percentiles, exact: Percentiles) {
        for (found, exact) in [(found.p50, exact.p50), (found.p95, exact.p95), (found.p99, exact.p99)] {
            let most = exact.abs().mul_add(Sketch::ERROR, 1e-9);
            assert!((found - exact).abs() <= most, "{found} is too far from {exact}");
        }
    }

    #[test]
    fn nothing_has_no_percentiles() {
        assert_eq!(Sketch::default().percentiles(), None);
        assert_eq!(of(&[0.0, 1e-9]).percentiles(), Some(Percentiles { p50: 0.0, p95: 0.0, p99: 0.0 }));
    }

    #[test]
    fn the_smallest_and_the_greatest_are_kept_apart_from_nothing() {
        let keys = [-1e12, -1.0, -1e-6, 0.0, 1e-6, 1.0, 100.0, 1e12].map(Sketch::key);
        assert!(keys.is_sorted() && keys.iter().all(|key| key.abs() <= Sketch::FARTHEST), "{keys:?}");
        assert_eq!(Sketch::key(1e300), Sketch::key(1e12));
        assert!(Sketch::key(1e-6) > 0);
    }

    proptest! {
        #[test]
        fn percentiles_are_within_the_error(values in prop::collection::vec(0.0..100.0_f64, 1..500)) {
            check_close(of(&values).percentiles().unwrap(), percentiles(&mut values.clone()).unwrap());
        }

        #[test]
        fn merging_is_counting_together(a in prop::collection::vec(-50.0..1e5_f64, 0..100), b in prop::collection::vec(-1e3..5.0_f64, 0..100)) {
            let mut merged = of(&a);
            merged.merge(&of(&b));
            let together = of(&[a, b].concat());
            prop_assert_eq!(merged.bins().collect::<Vec<_>>(), together.bins().collect::<Vec<_>>());
            prop_assert_eq!(merged.count(), together.count());
        }

        #[test]
        fn a_bin_stands_for_itself(value in -1e6..1e6_f64) {
            let key = Sketch::key(value);
            prop_assert_eq!(Sketch::key(Sketch::value(key)), key);
            prop_assert!((Sketch::value(key) - value).abs() <= value.abs() * Sketch::ERROR + Sketch::LEAST);
        }
    }
}
