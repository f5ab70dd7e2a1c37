//! Which way of a set was used when: an order of up to `K` ways in one word.
//!
//! Up to eight ways, a matrix of bits, a byte for each way: bit `c` of byte `r` says that `r` was used after `c`. A
//! use sets the byte and clears the column; the way used longest ago is the one whose byte is zero. A matrix of zeros
//! is an order in which nobody was used, and the lowest way is the first to go.
//!
//! Up to sixteen (`K` is the room, not the ways there are), a list of way numbers, one a nibble, the most recently used lowest; stored as the difference to
//! the list of a set that nobody has touched, so that it too begins as zero.

/// Every nibble one.
const ONES: u64 = 0x1111_1111_1111_1111;
/// Every byte one.
const COLUMN: u64 = 0x0101_0101_0101_0101;
/// The list of a set nobody has touched.
const UNTOUCHED: u64 = 0xFEDC_BA98_7654_3210;

/// What depends on the number of ways only.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ways {
    ways: u32,
    /// Matrix: a byte of all ways there are, and the bytes of those there are not. List: the nibbles there are.
    row: u64,
    absent: u64,
    used: u64,
}

impl Ways {
    pub(super) fn new(ways: u16) -> Ways {
        let ways = u32::from(ways);
        Ways {
            ways,
            row: 0xFF >> (8 - ways.min(8)),
            absent: u64::MAX.checked_shl(8 * ways).unwrap_or(0),
            used: u64::MAX >> (64 - 4 * ways),
        }
    }

    /// The order once a way has been used.
    #[inline(always)]
    pub(super) fn used<const K: usize>(self, word: u64, way: u32) -> u64 {
        if K == 8 {
            let way = way & 7;
            return (word | self.row << (8 * way)) & !(COLUMN << way);
        }
        let (order, way) = (word ^ UNTOUCHED, u64::from(way & 15));
        if order & 15 == way {
            return word;
        }
        // the lowest zero nibble of the difference is the way's place; a borrow can only spoil higher ones
        let difference = order ^ way.wrapping_mul(ONES);
        let zero = difference.wrapping_sub(ONES) & !difference & (ONES << 3);
        let upto = u64::MAX >> (60 - (zero.trailing_zeros() & 60));
        UNTOUCHED ^ ((order & !upto) | ((order << 4) & upto) | way)
    }

    /// The way used longest ago.
    #[inline(always)]
    pub(super) fn oldest<const K: usize>(self, word: u64) -> u32 {
        if K == 8 {
            // the lowest zero byte; a borrow can only spoil higher ones
            let word = word | self.absent;
            let zero = word.wrapping_sub(COLUMN) & !word & (COLUMN << 7);
            return zero.trailing_zeros() >> 3 & 7;
        }
        ((word ^ UNTOUCHED) >> ((4 * self.ways - 4) & 63) & 15) as u32
    }

    /// The order once the way used longest ago has been used.
    #[inline(always)]
    pub(super) fn oldest_used<const K: usize>(self, word: u64, oldest: u32) -> u64 {
        if K == 8 {
            return self.used::<K>(word, oldest);
        }
        let order = word ^ UNTOUCHED;
        UNTOUCHED ^ ((order & !self.used) | (order << 4 & self.used) | u64::from(oldest))
    }

    /// How many ways were used after this one, if each has been used.
    fn place<const K: usize>(self, word: u64, way: u32) -> u32 {
        if K == 8 {
            let after = (word >> (8 * (way & 7)) & self.row).count_ones();
            return (self.ways - 1).saturating_sub(after);
        }
        let order = word ^ UNTOUCHED;
        (0..self.ways).find(|place| order >> (4 * place) & 15 == u64::from(way)).unwrap_or(0)
    }

    /// The way at a place of the order, 0 being the most recently used, if each has been used.
    #[inline]
    pub(super) fn at<const K: usize>(self, word: u64, place: u32) -> u32 {
        if K == 8 {
            return (0..self.ways).find(|way| self.place::<K>(word, *way) == place).unwrap_or(0);
        }
        ((word ^ UNTOUCHED) >> ((4 * place) & 63) & 15) as u32
    }

    /// Of some ways, a bit each, the one used longest ago.
    pub(super) fn oldest_of<const K: usize>(self, word: u64, ways: u16) -> Option<u32> {
        super::set::bits(ways).max_by_key(|way| (self.place::<K>(word, *way), u32::MAX - way))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agrees_with_a_list<const K: usize>(ways: u16) {
        let (rule, mut word) = (Ways::new(ways), 0);
        let mut list: Vec<u32> = Vec::new();
        let mut x = 1u64;
        let mut use_way = |word: &mut u64, way: u32| {
            *word = rule.used::<K>(*word, way);
            list.retain(|w| *w != way);
            list.insert(0, way);
            list.clone()
        };
        for way in 0..u32::from(ways) {
            use_way(&mut word, way);
        }
        for _ in 0..2000 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let way = (x >> 33) as u32 % u32::from(ways);
            let list = use_way(&mut word, way);
            let last = list[list.len() - 1];
            assert_eq!(rule.oldest::<K>(word), last);
            assert_eq!(rule.oldest_used::<K>(word, last), rule.used::<K>(word, last));
            for (place, way) in (0..).zip(&list) {
                assert_eq!(rule.at::<K>(word, place), *way);
                assert_eq!(rule.place::<K>(word, *way), place);
            }
            assert_eq!(rule.oldest_of::<K>(word, 1 << list[0] | 1 << list[1]), Some(list[1]));
        }
    }

    /// Using ways in any order keeps the word a list of the ways, most recent first.
    #[test]
    fn an_order_is_a_move_to_front_list() {
        agrees_with_a_list::<8>(8);
        agrees_with_a_list::<8>(3);
        agrees_with_a_list::<16>(16);
        agrees_with_a_list::<12>(12);
    }

    /// A set of zeros gives its ways up in order, each once.
    #[test]
    fn untouched_ways_go_first() {
        let rule = Ways::new(8);
        let mut word = 0;
        for way in 0..8 {
            assert_eq!(rule.oldest::<8>(word), way);
            word = rule.used::<8>(word, way);
        }
        assert_eq!(rule.oldest::<8>(word), 0);
    }
}
