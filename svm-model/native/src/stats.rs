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

/// Samples of one quantity, all in one unit. Disturbed ones are tagged, and count like the others.
#[derive(Clone, Default, Debug)]
pub struct Samples {
    values: Vec<u64>,
    tagged: usize,
}

impl Samples {
    /// Adds one; `disturbed` if another thread or an interrupt came between.
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

    /// Without tags: what they say is what was to be measured.
    #[must_use]
    pub fn untagged(mut self) -> Samples {
        self.tagged = 0;
        self
    }

    /// Adds those of another.
    pub fn extend(&mut self, other: &Samples) {
        self.values.extend(&other.values);
        self.tagged += other.tagged;
    }

    /// Each value changed; the tags stay.
    #[must_use]
    pub fn map(&self, f: impl Fn(u64) -> u64) -> Samples {
        Samples { values: self.values.iter().map(|v| f(*v)).collect(), tagged: self.tagged }
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

/// A line through points, by least squares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fit {
    /// At x = 0.
    pub fixed: i64,
    /// Standard error of that.
    pub fixed_error: i64,
    /// Per unit of x, in thousandths.
    pub slope_milli: i64,
    /// Standard error of the slope, in thousandths.
    pub slope_error_milli: i64,
}

impl Fit {
    /// By how much a point lies above the line.
    #[must_use]
    pub fn residual(&self, x: u64, y: u64) -> i64 {
        let line = i128::from(self.fixed) + i128::from(self.slope_milli) * i128::from(x) / 1000;
        i64::try_from(i128::from(y) - line).unwrap_or(i64::MAX)
    }
}

/// Fits `y = fixed + slope * x`; at least three points with two different x.
#[must_use]
pub fn fit(points: &[(u64, u64)]) -> Option<Fit> {
    let n = i128::try_from(points.len()).ok().filter(|n| *n >= 3)?;
    let wide = |(x, y): &(u64, u64)| (i128::from(*x), i128::from(*y));
    let sum = |f: &dyn Fn(i128, i128) -> i128| points.iter().map(wide).map(|(x, y)| f(x, y)).sum::<i128>();
    let (sx, sy) = (sum(&|x, _| x), sum(&|_, y| y));
    // n times the sums of squares about the mean.
    let sxx = n * sum(&|x, _| x * x) - sx * sx;
    let sxy = n * sum(&|x, y| x * y) - sx * sy;
    if sxx == 0 {
        return None;
    }
    let slope_milli = sxy * 1000 / sxx;
    let fixed = (sy * 1000 - slope_milli * sx) / (n * 1000);
    let off = |x: i128, y: i128| y - fixed - slope_milli * x / 1000;
    let squares = sum(&|x, y| off(x, y) * off(x, y));
    // With s2 = squares / (n - 2): the slope's variance is s2 / (sxx / n), that of the fixed part s2 * mean(x^2) / (sxx / n).
    let per_degree = |scale: i128| {
        // Two steps, because the product of all of it may not fit.
        let scaled = squares.checked_mul(scale).map(|s| s / (n - 2) / sxx);
        scaled.unwrap_or_else(|| squares / (n - 2) * (scale / sxx.max(1))).unsigned_abs().isqrt()
    };
    let narrow = |v: i128| i64::try_from(v).unwrap_or(i64::MAX);
    Some(Fit {
        fixed: narrow(fixed),
        fixed_error: i64::try_from(per_degree(sum(&|x, _| x * x))).unwrap_or(i64::MAX),
        slope_milli: narrow(slope_milli),
        slope_error_milli: i64::try_from(per_degree(n * 1_000_000)).unwrap_or(i64::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_and_its_error_is_zero_only_if_it_is_one() {
        let exact: Vec<(u64, u64)> = [1, 2, 5, 9].map(|x| (x, 40 + 7 * x)).to_vec();
        let line = Fit { fixed: 40, fixed_error: 0, slope_milli: 7000, slope_error_milli: 0 };
        assert_eq!(fit(&exact), Some(line));
        assert_eq!(fit(&exact[..2]), None);
        // By hand: x 0, 1, 2; y 0, 0, 3: slope 1.5, fixed -0.5, squares 0.25 + 1 + 0.25 over 1 degree; sum of squares about
        // the mean of x 2: error of the slope sqrt(1.5 / 2) = 0.866, of the fixed part sqrt(1.5 * (5 / 3) / 2) = 1.118.
        let points = [(0, 0), (1000, 0), (2000, 3000)];
        let bent = fit(&points).unwrap();
        assert_eq!((bent.slope_milli, bent.fixed), (1500, -500));
        assert_eq!((bent.slope_error_milli, bent.fixed_error), (866, 1118));
        assert_eq!(points.map(|(x, y)| bent.residual(x, y)), [500, -1000, 500]);
    }

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
