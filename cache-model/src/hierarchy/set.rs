//! One set of a cache: its ways never move; an order word says which was used when, bit planes say what they are.

use wide::i32x4;

use crate::part::{CacheShape, Replacement};

/// Every nibble one.
const ONES: u64 = 0x1111_1111_1111_1111;

/// The order word of a set nobody has touched; stored as the difference to it, so that a set of zeros is empty.
const UNTOUCHED: u64 = 0xFEDC_BA98_7654_3210;

const DIRTY: u32 = 16;
const WRITABLE: u32 = 32;
const GHOST: u32 = 48;

/// A set of up to `W` ways (8 or 16): 64 or 128 bytes, one or two lines of the host's cache.
///
/// The words of a block: keys, two a word; the order (nibbles: way numbers, most recently used lowest; with
/// pseudo-LRU a bit for each way used); the planes valid, dirty, writable and ghost (whose line a flush took and nothing has replaced yet), a bit for each
/// way; the epoch of the cache that the planes are of; in an inclusive L3, which cores hold each way's line; last,
/// where the pseudo-random sequence of [`Replacement::OldHalf`] stands.
#[derive(Debug)]
pub(super) struct Set<'a, const W: usize> {
    block: &'a mut [u64; W],
    rule: Rule,
}

/// What all sets of a cache have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// A bit for each way there is.
    full: u16,
    ways: u16,
    replacement: Replacement,
}

impl Rule {
    pub(super) fn of(shape: CacheShape) -> Rule {
        Rule { full: u16::MAX >> (16 - shape.ways), ways: shape.ways, replacement: shape.replacement }
    }

    /// An order whose last way has become the first.
    #[inline(always)]
    fn rotated(self, order: u64) -> u64 {
        let bits = 4 * u32::from(self.ways);
        let last = order >> (bits - 4) & 15;
        let used = u64::MAX >> (64 - bits);
        (order & !used) | (order << 4 & used) | last
    }
}

/// A valid line that has to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Victim {
    pub(super) key: u32,
    pub(super) state: State,
}

/// The state of a valid copy. (dirty, writable): M = both, O = dirty only, E = writable only, S = neither.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct State(
    /// The bits of a way's planes, as they are for way 0.
    u64,
);

impl State {
    pub(super) const EXCLUSIVE: State = State(1 << WRITABLE);
    pub(super) const SHARED: State = State(0);
    pub(super) const OWNED: State = State(1 << DIRTY);
    pub(super) const MODIFIED: State = State(1 << DIRTY | 1 << WRITABLE);

    #[inline(always)]
    pub(super) fn dirty(self) -> bool {
        self.0 & Self::OWNED.0 != 0
    }

    #[inline(always)]
    pub(super) fn writable(self) -> bool {
        self.0 & Self::EXCLUSIVE.0 != 0
    }

    /// What two copies of a line amount to.
    #[inline(always)]
    pub(super) fn and(self, other: State) -> State {
        State(self.0 | other.0)
    }

    /// With the dirtiness of an inner copy.
    #[inline(always)]
    pub(super) fn soiled_by(self, inner: State) -> State {
        State(self.0 | inner.0 & Self::OWNED.0)
    }

    /// The same right to write, and dirty or not.
    #[inline(always)]
    pub(super) fn with_dirty(self, dirty: bool) -> State {
        State(self.0 & Self::EXCLUSIVE.0 | u64::from(dirty) << DIRTY)
    }
}

impl<'a, const W: usize> Set<'a, W> {
    #[inline(always)]
    pub(super) fn new(block: &'a mut [u64; W], rule: Rule) -> Set<'a, W> {
        Set { block, rule }
    }

    #[inline(always)]
    fn set_key(&mut self, bit: u16, key: u32) {
        let keys: &mut [u32] = bytemuck::cast_slice_mut(&mut self.block[..]);
        keys[bit.trailing_zeros() as usize & (W - 1)] = key;
    }

    #[inline(always)]
    fn order(&self) -> u64 {
        self.block[W / 2] ^ UNTOUCHED
    }

    #[inline(always)]
    fn planes(&self) -> u64 {
        self.block[W / 2 + 1]
    }

    #[inline(always)]
    fn planes_mut(&mut self) -> &mut u64 {
        &mut self.block[W / 2 + 1]
    }

    #[inline(always)]
    pub(super) fn epoch(&self) -> u64 {
        self.block[W / 2 + 2]
    }

    #[inline(always)]
    pub(super) fn valid(&self) -> u16 {
        self.planes() as u16
    }

    pub(super) fn dirty(&self) -> u16 {
        (self.planes() >> DIRTY) as u16
    }

    #[inline(always)]
    pub(super) fn ghost(&self) -> u16 {
        (self.planes() >> GHOST) as u16
    }

    pub(super) fn soil(&mut self, bits: u16) {
        *self.planes_mut() |= u64::from(bits) << DIRTY;
    }

    pub(super) fn clean(&mut self, bits: u16) {
        *self.planes_mut() &= !(u64::from(bits) << DIRTY);
    }

    pub(super) fn grant(&mut self, bits: u16) {
        *self.planes_mut() |= u64::from(bits) << WRITABLE;
    }

    pub(super) fn share(&mut self, bits: u16) {
        *self.planes_mut() &= !(u64::from(bits) << WRITABLE);
    }

    pub(super) fn forget(&mut self, bits: u16) {
        *self.planes_mut() &= !(u64::from(bits) << GHOST);
    }

    /// Invalidates every way, leaving no ghosts.
    pub(super) fn wipe(&mut self) {
        *self.planes_mut() = 0;
    }

    /// The ways whose key is this one, valid or not.
    #[inline(always)]
    pub(super) fn matching(&self, key: u32) -> u16 {
        matching(self.block, key)
    }

    /// The bit of the valid way that holds a key; 0 if none does.
    #[inline(always)]
    pub(super) fn find(&self, key: u32) -> u16 {
        self.matching(key) & self.valid()
    }

    #[inline(always)]
    pub(super) fn key(&self, way: u32) -> u32 {
        let keys: &[u32] = bytemuck::cast_slice(&self.block[..]);
        keys[way as usize & (W - 1)]
    }

    #[inline(always)]
    pub(super) fn state(&self, bit: u16) -> State {
        debug_assert_ne!(bit, 0, "the state of no way");
        State(self.planes() >> (bit.trailing_zeros() & 15) & State::MODIFIED.0)
    }

    /// Makes a way the most recently used.
    #[inline(always)]
    pub(super) fn touch(&mut self, bit: u16) {
        if self.rule.replacement == Replacement::PseudoLru {
            let used = self.block[W / 2] as u16 | bit;
            self.block[W / 2] = u64::from(if used == self.rule.full { bit } else { used });
            return;
        }
        let way = u64::from(bit.trailing_zeros());
        let order = self.order();
        if order & 15 == way {
            return;
        }
        // the lowest zero nibble of the difference is the way's place; a borrow can only spoil higher ones
        let difference = order ^ way.wrapping_mul(ONES);
        let zero = difference.wrapping_sub(ONES) & !difference & (ONES << 3);
        let place = zero.trailing_zeros() & 60;
        let upto = u64::MAX >> (60 - place);
        self.block[W / 2] = UNTOUCHED ^ ((order & !upto) | ((order << 4) & upto) | way);
    }

    /// The bit of the way that makes room in a full set.
    #[inline(always)]
    fn last(&mut self, key: u32) -> u16 {
        let ways = u64::from(self.rule.ways);
        let place = match self.rule.replacement {
            Replacement::Lru => ways - 1,
            Replacement::PseudoLru => {
                let unused = self.rule.full & !(self.block[W / 2] as u16);
                return if unused == 0 { 1 } else { unused & unused.wrapping_neg() };
            }
            Replacement::OldHalf => {
                let old = ways.div_ceil(2);
                let seed = (self.block[W - 1] ^ u64::from(key)).wrapping_mul(0x5851_F42D_4C95_7F2D) + 1;
                self.block[W - 1] = seed;
                ways - 1 - (((seed >> 33) * old) >> 31)
            }
        };
        1 << ((self.order() >> (4 * place)) & 15)
    }

    /// Takes the set to the cache's epoch: what was valid is a ghost now.
    #[cold]
    pub(super) fn age(&mut self, epoch: u64) {
        debug_assert_eq!(self.dirty(), 0, "a flush leaves nothing dirty");
        *self.planes_mut() = u64::from(self.ghost() | self.valid()) << GHOST;
        self.block[W / 2 + 2] = epoch;
    }

    pub(super) fn invalidate(&mut self, bit: u16) {
        let bit = u64::from(bit);
        *self.planes_mut() &= !(bit | bit << DIRTY | bit << WRITABLE);
    }

    /// Puts a line in as the most recently used: into an empty way, else a ghost's, else the oldest line's.
    /// Also tells the way.
    #[inline(always)]
    pub(super) fn fill(&mut self, key: u32, state: State) -> (Pushed, u16) {
        let free = self.rule.full & !self.valid();
        let bit = if free == 0 {
            self.last(key)
        } else if free & !self.ghost() != 0 {
            let empty = free & !self.ghost();
            empty & empty.wrapping_neg()
        } else {
            self.oldest_ghost()
        };
        let way = bit.trailing_zeros() & 15;
        let old = self.key(way);
        let pushed = if free == 0 {
            Pushed::Line(Victim { key: old, state: self.state(bit) })
        } else if self.ghost() & bit != 0 {
            Pushed::Ghost(old)
        } else {
            Pushed::Nothing
        };
        self.set_key(bit, key);
        let planes = self.planes() & !((State::MODIFIED.0 | 1 << GHOST) << way);
        *self.planes_mut() = planes | (state.0 | 1) << way;
        if free == 0 && self.rule.replacement == Replacement::Lru {
            // the last becomes the first, the others keep their order
            self.block[W / 2] = UNTOUCHED ^ self.rule.rotated(self.order());
        } else {
            self.touch(bit);
        }
        (pushed, bit)
    }

    /// The bit of the ghost used longest ago; 0 if there is none.
    #[cold]
    fn oldest_ghost(&self) -> u16 {
        if self.rule.replacement == Replacement::PseudoLru {
            return self.ghost() & self.ghost().wrapping_neg();
        }
        let mut used =
            (0..u32::from(self.rule.ways)).rev().map(|place| 1u16 << ((self.order() >> (4 * place)) & 15));
        used.find(|bit| self.ghost() & bit != 0).unwrap_or(0)
    }

    /// Remembers a line that a flush took out of an inner cache, as a ghost of this one, if there is room beside
    /// the valid lines. How many ghosts that adds.
    #[cold]
    pub(super) fn remember(&mut self, key: u32) -> u64 {
        if self.matching(key) & (self.valid() | self.ghost()) != 0 {
            return 0;
        }
        let empty = self.rule.full & !self.valid() & !self.ghost();
        let bit = if empty != 0 { empty & empty.wrapping_neg() } else { self.oldest_ghost() };
        if bit == 0 {
            return 0;
        }
        self.set_key(bit, key);
        *self.planes_mut() |= u64::from(bit) << GHOST;
        u64::from(empty != 0)
    }

    /// The valid ways with these address bits, whatever their tag.
    pub(super) fn of_phys(&self, phys: u32, mask: u32) -> u16 {
        bits(self.valid()).fold(0, |same, way| same | u16::from(self.key(way) & mask == phys) << way)
    }
}

impl Set<'_, 16> {
    /// The cores that may hold the line of a way, kept by an inclusive L3. In the words that sixteen ways leave.
    #[inline(always)]
    pub(super) fn sharers(&self, bit: u16) -> u16 {
        let words: &[u16] = bytemuck::cast_slice(&self.block[..]);
        words[44 + (bit.trailing_zeros() as usize & 15)]
    }

    #[inline(always)]
    pub(super) fn set_sharers(&mut self, bit: u16, cores: u16) {
        let words: &mut [u16] = bytemuck::cast_slice_mut(&mut self.block[..]);
        words[44 + (bit.trailing_zeros() as usize & 15)] = cores;
    }
}

/// The ways of a block whose key is this one, all compared at once.
#[inline(always)]
fn matching<const W: usize>(block: &[u64; W], key: u32) -> u16 {
    let wanted = i32x4::splat(key.cast_signed());
    let four = |word: usize| {
        let keys: [i32; 4] = bytemuck::cast([block[word], block[word + 1]]);
        i32x4::new(keys).simd_eq(wanted).to_bitmask() as u16
    };
    let low = four(0) | four(2) << 4;
    if W == 8 { low } else { low | four(4) << 8 | four(6) << 12 }
}

/// Whether a key stands in a block, valid or not.
#[inline(always)]
pub(super) fn holds_key<const W: usize>(block: &[u64; W], key: u32) -> bool {
    matching(block, key) != 0
}

/// The key that would make room in a block, if it is full; a guess, if that is left to chance.
#[inline(always)]
pub(super) fn victim_of<const W: usize>(block: &[u64; W], rule: Rule) -> Option<u32> {
    if block[W / 2 + 1] as u16 != rule.full {
        return None;
    }
    let way = if rule.replacement == Replacement::PseudoLru {
        (block[W / 2] as u16).trailing_ones()
    } else {
        ((block[W / 2] ^ UNTOUCHED) >> (4 * (rule.ways - 1)) & 15) as u32
    };
    let keys: &[u32] = bytemuck::cast_slice(&block[..]);
    Some(keys[way as usize & (W - 1)])
}

/// What a fill pushed out of its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pushed {
    Nothing,
    /// A line that a flush had taken.
    Ghost(u32),
    Line(Victim),
}

/// The ways of a plane, lowest first.
pub(super) fn bits(mut mask: u16) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = (mask != 0).then(|| mask.trailing_zeros())?;
        mask &= mask - 1;
        Some(bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Touching ways in any order keeps the order word a list of the ways, most recent first.
    #[test]
    fn order_word_is_a_move_to_front_list() {
        let mut block = [0; 16];
        let mut set = Set::new(&mut block, Rule::of(CacheShape::lru(1, 16)));
        let mut list: Vec<u64> = (0..16).collect();
        let mut x = 1u64;
        for _ in 0..2000 {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let way = x >> 60;
            set.touch(1 << way);
            list.retain(|w| *w != way);
            list.insert(0, way);
            let word = list.iter().rev().fold(0, |word, w| word << 4 | w);
            assert_eq!(set.order(), word);
        }
    }

    #[test]
    fn fills_take_empty_ways_then_ghosts_then_the_oldest() {
        let (full, rule) = (0b1111, Rule::of(CacheShape::lru(1, 4)));
        let mut block = [0; 8];
        let mut set = Set::new(&mut block, rule);
        for key in 10..14 {
            assert_eq!(set.fill(key, State::EXCLUSIVE).0, Pushed::Nothing);
        }
        let pushed = set.fill(14, State::SHARED).0;
        assert_eq!(pushed, Pushed::Line(Victim { key: 10, state: State::EXCLUSIVE }));
        set.age(1);
        assert_eq!((set.valid(), set.ghost()), (0, full));
        assert_eq!(set.fill(20, State::MODIFIED).0, Pushed::Ghost(11));
        assert_eq!(set.matching(11), 0, "the oldest ghost went first");
        assert_ne!(set.matching(14) & set.ghost(), 0);
        assert_eq!(set.remember(30), 0, "in the place of the oldest ghost");
        assert_eq!((set.matching(12), set.ghost().count_ones()), (0, 3));
        set.invalidate(set.find(20));
        assert_eq!(set.remember(31), 1, "in an empty way");
        assert_eq!((set.remember(31), set.ghost()), (0, full));
    }
}
