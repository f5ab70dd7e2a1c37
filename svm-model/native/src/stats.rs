//! Samples, their percentiles, and the random numbers of the measurements. No floating point.

/// A small generator (xorshift), for orders that a prefetcher does not guess.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Random {
        Random(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end64 = u64::try_from(end).unwrap_or(u64::MAX);
        usize::try_from(self.next_u64() % end64).unwrap_or(0)
    }
}

/// Samples of one quantity, all in one unit. Disturbed ones are marked, and count like the others.
#[derive(Clone, Default, Debug)]
pub struct Samples {
    values: Vec<u64>,
    tagged: usize,
}

impl Samples {
    /// Adds one; `disturbed` if the thread was interrupted by another meanwhile.
    pub fn add(&mut self, value: u64, disturbed: bool) {
        self.values.push(value);
        self.tagged += usize::from(disturbed);
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// How many were disturbed.
    #[must_use]
    pub fn tagged(&self) -> usize {
        self.tagged
    }

    /// The values, sorted.
    #[must_use]
    pub fn sorted(mut self) -> Vec<u64> {
        self.values.sort_unstable();
        self.values
    }

    /// The percentiles 10, 50 and 90, if there is a sample.
    #[must_use]
    pub fn spread(&self) -> Option<Spread> {
        let sorted = self.clone().sorted();
        let at = |percent: usize| sorted.get(sorted.len().checked_sub(1)? * percent / 100).copied();
        Some(Spread { p10: at(10)?, p50: at(50)?, p90: at(90)?, p99: at(99)? })
    }
}

/// Percentiles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spread {
    /// A tenth is not above it.
    pub p10: u64,
    /// The median.
    pub p50: u64,
    /// Nine tenths are not above it.
    pub p90: u64,
    /// All but one in a hundred are not above it.
    pub p99: u64,
}

impl Spread {
    /// Each percentile changed by a function that grows.
    #[must_use]
    pub fn map(self, f: impl Fn(u64) -> u64) -> Spread {
        Spread { p10: f(self.p10), p50: f(self.p50), p90: f(self.p90), p99: f(self.p99) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_hundred_and_one() {
        let mut samples = Samples::default();
        assert_eq!(samples.spread(), None);
        for value in (0..=100).rev() {
            samples.add(value, value % 50 == 0);
        }
        assert_eq!(samples.spread(), Some(Spread { p10: 10, p50: 50, p90: 90, p99: 99 }));
        assert_eq!((samples.len(), samples.tagged()), (101, 3));
    }
}
