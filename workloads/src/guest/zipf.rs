//! A sampler of Zipf's law in integers: rank r is drawn in proportion to 1 / r^s, the same on every machine.
//!
//! The weights come from base-2 logarithms taken bit by bit by squaring, and powers of two put together from
//! integer square roots; the draw is the alias method: one column, one comparison. No float anywhere.

use super::random::RandomStream;

/// How many ranks a table may have: 2^22 pages are 16 GiB of guest memory.
pub const RANKS_MAX: u32 = 1 << 22;

/// The largest exponent, in hundredths.
pub const EXPONENT_PERCENT_MAX: u32 = 400;

/// One column of the alias table: the rank itself below the threshold, else the alias.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Column {
    threshold: u32,
    alias: u32,
}

/// The table that ranks are drawn from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ZipfTable {
    columns: Vec<Column>,
}

/// log2 of `n` >= 1 with 32 bits after the point; each bit is found by squaring the mantissa.
fn log2_q32(n: u32) -> u64 {
    let whole = n.max(1).ilog2();
    // The mantissa in [1, 2), with 63 bits after the point.
    let mut mantissa = u128::from(n.max(1)) << (63 - whole);
    let mut log = u64::from(whole);
    for _ in 0..32 {
        mantissa = (mantissa * mantissa) >> 63;
        log <<= 1;
        if mantissa >= 1 << 64 {
            mantissa >>= 1;
            log |= 1;
        }
    }
    log
}

/// 2^(-2^-i) for i = 1..=32, with 64 bits after the point.
fn roots_of_half() -> [u128; 32] {
    let mut roots = [0; 32];
    let mut root: u128 = 1 << 63;
    for slot in &mut roots {
        root = (root << 64).isqrt();
        *slot = root;
    }
    roots
}

/// 2^-e with 62 bits after the point, for an `e` with 32 bits after the point; at least 1.
fn exp2_negative_q62(e: u64, roots: &[u128; 32]) -> u64 {
    let whole = e >> 32;
    if whole >= 62 {
        return 1;
    }
    let mut power: u128 = 1 << 64;
    for (i, root) in roots.iter().enumerate() {
        if e >> (31 - i) & 1 == 1 {
            power = (power * root) >> 64;
        }
    }
    u64::try_from(power >> (whole + 2)).unwrap_or(1).max(1)
}

impl ZipfTable {
    /// The table over `ranks` ranks with exponent `exponent_percent` / 100 (99 is the usual 0.99; 0 is uniform).
    ///
    /// `ranks` is taken as at least 1 and at most [`RANKS_MAX`], the exponent as at most
    /// [`EXPONENT_PERCENT_MAX`].
    #[must_use]
    pub fn new(ranks: u32, exponent_percent: u32) -> ZipfTable {
        let ranks = ranks.clamp(1, RANKS_MAX);
        let exponent = u64::from(exponent_percent.min(EXPONENT_PERCENT_MAX));
        let roots = roots_of_half();
        let weight = |rank| exp2_negative_q62(log2_q32(rank) * exponent / 100, &roots);
        let weights: Vec<u64> = (1..=ranks).map(weight).collect();
        ZipfTable { columns: columns(&weights) }
    }

    /// How many ranks there are.
    #[must_use]
    pub fn ranks(&self) -> u32 {
        u32::try_from(self.columns.len()).unwrap_or(u32::MAX)
    }

    /// Draws a rank, 0 the most popular, and gives 32 random bits that are left over.
    #[inline]
    pub fn draw(&self, random: &mut RandomStream) -> (u32, u32) {
        let (rank, toss) = random.below_and_bits(self.ranks());
        let column = self.columns[rank as usize];
        let rank = if toss < column.threshold { rank } else { column.alias };
        (rank, (random.bits() >> 32) as u32)
    }
}

/// Builds the alias columns (Vose): each column is filled to one unit, 2^32, by at most two ranks.
fn columns(weights: &[u64]) -> Vec<Column> {
    const UNIT: u64 = 1 << 32;
    let total: u128 = weights.iter().map(|&w| u128::from(w)).sum();
    let units = u128::from(UNIT) * weights.len() as u128;
    // Scaled so that the sum is exactly one unit a column; what rounding lost goes to the first rank. A weight
    // is below 2^63 and `units` at most 2^54, so the product fits.
    let scale = |&w: &u64| u64::try_from(u128::from(w) * units / total).unwrap_or(u64::MAX);
    let mut share: Vec<u64> = weights.iter().map(scale).collect();
    let lost = units - share.iter().map(|&s| u128::from(s)).sum::<u128>();
    if let Some(first) = share.first_mut() {
        *first += u64::try_from(lost).unwrap_or(0);
    }
    let index = |i: usize| u32::try_from(i).unwrap_or(u32::MAX);
    let mut columns: Vec<Column> =
        (0..share.len()).map(|i| Column { threshold: u32::MAX, alias: index(i) }).collect();
    let (mut poor, mut rich): (Vec<usize>, Vec<usize>) = (0..share.len()).partition(|&i| share[i] < UNIT);
    while let (Some(&from), Some(to)) = (rich.last(), poor.pop()) {
        columns[to] = Column { threshold: u32::try_from(share[to]).unwrap_or(u32::MAX), alias: index(from) };
        share[from] -= UNIT - share[to];
        if share[from] < UNIT {
            rich.pop();
            poor.push(from);
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::super::random::{Purpose, StreamKey};
    use super::*;

    #[test]
    fn logarithms_of_powers_of_two_are_exact_and_others_known() {
        assert_eq!(log2_q32(1), 0);
        assert_eq!(log2_q32(1024), 10 << 32);
        // log2(3) = 1.58496250072115618...; times 2^32 = 6807362105.7
        assert_eq!(log2_q32(3), 6_807_362_105);
    }

    #[test]
    fn powers_of_a_half_are_near_the_true_value() {
        let roots = roots_of_half();
        assert_eq!(exp2_negative_q62(0, &roots), 1 << 62);
        assert_eq!(exp2_negative_q62(5 << 32, &roots), 1 << 57);
        // 1 / 3, up to the 32 bits of the logarithm.
        let third = exp2_negative_q62(log2_q32(3), &roots);
        assert!(third.abs_diff((1 << 62) / 3) < 1 << 31, "{third}");
    }

    /// What each rank gets of all the columns: exact, no drawing.
    fn shares(table: &ZipfTable) -> Vec<u128> {
        let mut shares = vec![0u128; table.columns.len()];
        for (rank, column) in table.columns.iter().enumerate() {
            shares[rank] += u128::from(column.threshold);
            shares[column.alias as usize] += (1 << 32) - u128::from(column.threshold);
        }
        shares
    }

    #[test]
    fn with_exponent_one_rank_r_gets_an_rth_of_the_first() {
        let shares = shares(&ZipfTable::new(1000, 100));
        for (i, share) in shares.iter().enumerate() {
            let want = shares[0] / (i as u128 + 1);
            assert!(share.abs_diff(want) < 4096, "rank {i}: {share} instead of {want}");
        }
    }

    #[test]
    fn exponent_zero_is_uniform_and_one_rank_is_always_drawn() {
        let shares = shares(&ZipfTable::new(64, 0));
        assert!(shares.iter().all(|s| s.abs_diff(1 << 32) <= 1));
        let key = StreamKey { seed: 1, actor: 0, purpose: Purpose::Access };
        assert_eq!(ZipfTable::new(1, 99).draw(&mut RandomStream::new(key)).0, 0);
    }

    #[test]
    fn drawn_counts_follow_the_table() {
        let table = ZipfTable::new(100, 99);
        let mut random = RandomStream::new(StreamKey { seed: 5, actor: 0, purpose: Purpose::Access });
        let mut counts = [0u32; 100];
        for _ in 0..200_000 {
            counts[table.draw(&mut random).0 as usize] += 1;
        }
        // H(100, 0.99) = 5.3: the first rank gets 37.6 thousand, the tenth about a tenth of that.
        assert!((37_000..39_000).contains(&counts[0]), "{counts:?}");
        assert!((3_500..4_200).contains(&counts[9]), "{counts:?}");
        assert!(counts[99] > 250, "{counts:?}");
    }

    #[test]
    fn golden_table_and_draws() {
        let table = ZipfTable::new(8, 99);
        let thresholds: Vec<u32> = table.columns.iter().map(|c| c.threshold).collect();
        assert_eq!(
            thresholds,
            [
                4_294_967_295,
                3_618_538_427,
                4_225_885_696,
                3_178_545_236,
                2_548_516_699,
                2_127_639_528,
                1_826_504_423,
                1_600_326_883
            ]
        );
        let mut random = RandomStream::new(StreamKey { seed: 1, actor: 0, purpose: Purpose::Access });
        let drawn: Vec<u32> = (0..16).map(|_| table.draw(&mut random).0).collect();
        assert_eq!(drawn, [4, 2, 1, 4, 3, 0, 1, 3, 6, 6, 6, 0, 0, 0, 0, 6]);
    }
}
