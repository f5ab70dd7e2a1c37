//! Counts of amounts, with percentiles: exact below 64, to within 1 in 32 above.
//!
//! *Promise*: integers only; the order in which amounts come changes nothing, and histograms add up: that of two
//! runs together is the sum of theirs.

use std::collections::BTreeMap;

/// Amounts up to here have a bucket each.
const EXACT: u64 = 64;
/// Buckets of each power of two above.
const STEPS: u32 = 32;

/// How many amounts of about which size there were.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Histogram {
    buckets: BTreeMap<u32, u64>,
    count: u64,
    sum: u64,
    max: u64,
}

/// The bucket of an amount.
fn bucket(amount: u64) -> u32 {
    if amount < EXACT {
        return u32::try_from(amount).unwrap_or(0);
    }
    let power = amount.ilog2();
    // The five bits below the highest one.
    let step = u32::try_from(amount >> (power - 5) & 31).unwrap_or(0);
    64 + (power - 6) * STEPS + step
}

/// The largest amount of a bucket.
fn top(bucket: u32) -> u64 {
    if bucket < 64 {
        return u64::from(bucket);
    }
    let (power, step) = ((bucket - 64) / STEPS + 6, u64::from((bucket - 64) % STEPS));
    let width = 1u64 << (power - 5);
    ((32 + step) * width).saturating_add(width - 1)
}

impl Histogram {
    /// Adds an amount.
    pub fn add(&mut self, amount: u64) {
        *self.buckets.entry(bucket(amount)).or_insert(0) += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(amount);
        self.max = self.max.max(amount);
    }

    /// Adds another histogram's amounts.
    pub fn merge(&mut self, other: &Histogram) {
        for (bucket, n) in &other.buckets {
            *self.buckets.entry(*bucket).or_insert(0) += n;
        }
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// Amounts added.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum, exactly.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The largest, exactly; 0 if there is none.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    /// An amount that so many of a thousand do not exceed, and never less than the true one: the top of its bucket,
    /// or the largest amount if that is less. 0 if there is none.
    #[must_use]
    pub fn per_mille(&self, per_mille: u64) -> u64 {
        let rank = (u128::from(self.count) * u128::from(per_mille)).div_ceil(1000).max(1);
        let mut seen = 0u128;
        for (bucket, n) in &self.buckets {
            seen += u128::from(*n);
            if seen >= rank {
                return top(*bucket).min(self.max);
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[test]
    fn buckets_follow_each_other_without_gap_or_overlap() {
        for b in 0..64 + 58 * STEPS {
            assert_eq!(bucket(top(b)), b);
            if let Some(next) = top(b).checked_add(1) {
                assert_eq!(bucket(next), b + 1, "{next}");
            }
        }
        assert_eq!(top(bucket(u64::MAX)), u64::MAX);
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_list_to_within_one_in_thirty_two() {
        let mut stream = Stream::new(1, 2, 3);
        for n in [1usize, 2, 10, 999, 1000, 5000] {
            let mut list: Vec<u64> = (0..n).map(|_| stream.bits() >> (20 + stream.below(44))).collect();
            let mut histogram = Histogram::default();
            let (mut left, mut right) = (Histogram::default(), Histogram::default());
            for (i, amount) in list.iter().enumerate() {
                histogram.add(*amount);
                if i % 3 == 0 { left.add(*amount) } else { right.add(*amount) }
            }
            left.merge(&right);
            assert_eq!(left, histogram);
            list.sort_unstable();
            for per_mille in [1, 500, 900, 990, 1000] {
                let index = (n as u64 * per_mille).div_ceil(1000).max(1) - 1;
                let exact = list[usize::try_from(index).unwrap()];
                let told = histogram.per_mille(per_mille);
                assert!(told >= exact && told - exact <= exact / 32, "{told} for {exact}");
            }
            assert_eq!(histogram.max(), list[n - 1]);
            assert_eq!(histogram.sum(), list.iter().sum::<u64>());
        }
        assert_eq!(Histogram::default().per_mille(500), 0);
    }
}
