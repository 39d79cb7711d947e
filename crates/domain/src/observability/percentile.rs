//! Exact percentiles.

/// Three percentiles of the same samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentiles {
    /// Half of the samples are at most this.
    pub p50: f64,
    /// 95 of 100 are.
    pub p95: f64,
    /// 99 of 100 are.
    pub p99: f64,
}

/// The percentiles of `values`, which are reordered; `None` of none.
///
/// Between closest ranks they are interpolated linearly: definition 7 of Hyndman and Fan, "Sample Quantiles in
/// Statistical Packages", The American Statistician 50 (1996), which spreadsheets call `PERCENTILE.INC` and `PostgreSQL`
/// `percentile_cont`. Values must be finite. Takes time in proportion to their number.
///
/// ```
/// use domain::observability::percentiles;
///
/// let found = percentiles(&mut [50.0, 10.0, 30.0, 20.0, 40.0]).unwrap();
/// assert_eq!((found.p50, found.p95), (30.0, 48.0));
/// assert!(percentiles(&mut []).is_none());
/// ```
#[must_use]
pub fn percentiles(values: &mut [f64]) -> Option<Percentiles> {
    let last = values.len().checked_sub(1)?;
    // Each is looked for only in what is above the one before.
    let (p50, above, rest) = select(values, 0, Rank::of(50, last));
    let (p95, above, rest) = select(rest, above, Rank::of(95, last));
    let (p99, ..) = select(rest, above, Rank::of(99, last));
    Some(Percentiles { p50, p95, p99 })
}

/// Where a percentile is: so much of the way from one place to the next.
#[derive(Clone, Copy)]
pub(super) struct Rank {
    /// The place of the value below, from 0.
    pub(super) below: usize,
    /// The part of the way, from 0 to less than 1.
    pub(super) part: f64,
}

impl Rank {
    /// The rank of a percentile among values of which `last` is the place of the greatest. Whole numbers keep it exact.
    pub(super) fn of(percent: u8, last: usize) -> Self {
        let hundredths = last * usize::from(percent);
        let part = u8::try_from(hundredths % 100).unwrap_or_default();
        Self { below: hundredths / 100, part: f64::from(part) / 100.0 }
    }

    /// A value between its neighbours.
    pub(super) fn between(self, below: f64, above: f64) -> f64 {
        (above - below).mul_add(self.part, below)
    }
}

/// The value at a rank, of values of which so many lower ones were taken off; and what is left to look for higher ones.
fn select(values: &mut [f64], taken: usize, rank: Rank) -> (f64, usize, &mut [f64]) {
    let place = (rank.below - taken).min(values.len() - 1);
    let (_, below, above) = values.select_nth_unstable_by(place, f64::total_cmp);
    let below = *below;
    let next = if rank.part > 0.0 { above.iter().copied().min_by(f64::total_cmp) } else { None };
    let value = next.map_or(below, |next| rank.between(below, next));
    // The one at the rank itself stays, for the next one may be between it and its neighbour.
    let rest = values.get_mut(place..).unwrap_or_default();
    (value, taken + place, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(values: &[f64], expected: [f64; 3]) {
        let found = percentiles(&mut values.to_vec()).unwrap();
        for (found, expected) in [found.p50, found.p95, found.p99].into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{values:?}: {found} is not {expected}");
        }
    }

    #[test]
    fn fc_16_few_samples_have_exact_percentiles() {
        check(&[42.0], [42.0; 3]);
        check(&[1.0, 2.0], [1.5, 1.95, 1.99]);
        check(&[10.0, 20.0, 30.0, 40.0, 50.0], [30.0, 48.0, 49.6]);
        check(&[20.0, 21.0, 16.0, 56.0, 13.0, 20.0, 16.0, 47.0, 18.0, 12.0], [19.0, 51.95, 55.19]);
        assert_eq!(percentiles(&mut []), None);
    }

    #[test]
    fn equal_samples_are_their_own_percentiles() {
        for count in 1..300 {
            check(&vec![7.25; count], [7.25; 3]);
        }
    }

    proptest! {
        #[test]
        fn they_are_what_sorting_finds(values in prop::collection::vec(-1e6..1e6_f64, 1..400)) {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let expected = [0.50, 0.95, 0.99].map(|part: f64| {
                let place = part * f64::from(u32::try_from(sorted.len() - 1).unwrap());
                let at = |place: f64| sorted.iter().zip(0_u32..).find(|(_, n)| f64::from(*n) >= place).unwrap().0;
                let (below, above) = (at(place.floor()), at(place.ceil()));
                below + (above - below) * (place - place.floor())
            });
            let found = percentiles(&mut values.clone()).unwrap();
            for (found, expected) in [found.p50, found.p95, found.p99].into_iter().zip(expected) {
                prop_assert!((found - expected).abs() <= 1e-6, "{found} is not {expected}");
            }
            prop_assert!(found.p50 <= found.p95 && found.p95 <= found.p99);
        }
    }
}
