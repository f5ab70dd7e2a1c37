//! One set of a cache: its ways never move; an order word says which was used when, bit planes say what they are.

use wide::{i32x4, u8x16, u16x8};

use super::directory::{PHYS_BITS, PHYS_LIMIT};
use super::order::Ways;
use crate::part::{CacheShape, Replacement};

const DIRTY: u32 = 16;
const WRITABLE: u32 = 32;
const GHOST: u32 = 48;

/// A set of up to `K` ways in `W` words, that is one or two lines of the host's cache.
///
/// The words of a block: keys, two a word; the order (`order.rs`; with pseudo-LRU a bit for each way used); the planes
/// valid, dirty, writable and ghost (whose line a flush took and nothing has replaced yet), a bit for each way; the
/// epoch of the cache that the planes are of; in an inclusive L3, which cores hold each way's line; last, where the
/// pseudo-random sequence of [`Replacement::OldHalf`] stands.
///
/// Eight words hold 8 ways, or 12 without what comes after the planes (an L1 is wiped, and needs no epoch). They hold
/// 16 ways *packed*: of a key, the 16 bits of the address above those that say the set, then the tags, a byte each; the
/// order of pseudo-LRU and the epoch share a word.
#[derive(Debug)]
pub(super) struct Set<'a, const W: usize, const K: usize> {
    block: &'a mut [u64; W],
    rule: Rule,
    /// Its low bits say which set it is; of use if it is packed.
    number: u32,
}

/// What all sets of a cache have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// A bit for each way there is.
    full: u16,
    ways: u16,
    replacement: Replacement,
    order: Ways,
    /// Bits of an address that say the set, if their number is a power of two.
    set_bits: u32,
}

impl Rule {
    pub(super) fn of(shape: CacheShape) -> Rule {
        Rule {
            full: u16::MAX >> (16 - shape.ways),
            ways: shape.ways,
            replacement: shape.replacement,
            order: Ways::new(shape.ways),
            set_bits: shape.sets.trailing_zeros(),
        }
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

impl<'a, const W: usize, const K: usize> Set<'a, W, K> {
    const PACKED: bool = packed(W, K);
    const ORDER: usize = order_word(W, K);
    const PLANES: usize = Self::ORDER + 1;
    const EPOCH: usize = Self::ORDER + 2;

    /// The block of a set, which any key that belongs there tells from others, or its number.
    #[inline(always)]
    pub(super) fn new(block: &'a mut [u64; W], rule: Rule, number: u32) -> Set<'a, W, K> {
        Set { block, rule, number }
    }

    #[inline(always)]
    fn set_key(&mut self, way: u32, key: u32) {
        let way = way as usize & 15;
        if Self::PACKED {
            let highs: &mut [u16] = bytemuck::cast_slice_mut(&mut self.block[..]);
            highs[way] = high(key, self.rule);
            let tags: &mut [u8] = bytemuck::cast_slice_mut(&mut self.block[..]);
            tags[TAGS + way] = tag(key);
            return;
        }
        let keys: &mut [u32] = bytemuck::cast_slice_mut(&mut self.block[..]);
        keys[way & (2 * W - 1)] = key;
    }

    #[inline(always)]
    fn order(&self) -> u64 {
        self.block[Self::ORDER]
    }

    #[inline(always)]
    fn planes(&self) -> u64 {
        self.block[Self::PLANES]
    }

    #[inline(always)]
    fn planes_mut(&mut self) -> &mut u64 {
        &mut self.block[Self::PLANES]
    }

    #[inline(always)]
    pub(super) fn epoch(&self) -> u64 {
        if Self::PACKED {
            self.block[Self::ORDER] >> 16
        } else if Self::EPOCH < W {
            self.block[Self::EPOCH]
        } else {
            0
        }
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

    /// Neither dirty nor to be written any more; whether one of the ways was dirty.
    #[inline(always)]
    pub(super) fn demote(&mut self, bits: u16) -> bool {
        let (planes, bits) = (self.planes(), u64::from(bits));
        *self.planes_mut() = planes & !(bits << DIRTY | bits << WRITABLE);
        planes & bits << DIRTY != 0
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
        matching::<W, K>(self.block, self.rule, key)
    }

    /// The bit of the valid way that holds a key; 0 if none does.
    #[inline(always)]
    pub(super) fn find(&self, key: u32) -> u16 {
        self.matching(key) & self.valid()
    }

    /// A read of a key, or (`write` all ones) a store to one that may be written: the bit of its way, now the
    /// most recently used, 0 if there is none; and whether that has become dirty. No branch asks which it is.
    #[inline(always)]
    pub(super) fn hit(&mut self, key: u32, write: u64) -> (u16, bool) {
        let planes = self.planes();
        let bit = self.matching(key) & (planes & (planes >> WRITABLE | !write)) as u16;
        if bit == 0 {
            return (0, false);
        }
        self.touch(bit);
        let next = planes | u64::from(bit) << DIRTY & write;
        *self.planes_mut() = next;
        (bit, next != planes)
    }

    #[inline(always)]
    pub(super) fn key(&self, way: u32) -> u32 {
        key_at::<W, K>(self.block, self.rule, self.number, way)
    }

    #[inline(always)]
    pub(super) fn state(&self, bit: u16) -> State {
        debug_assert_ne!(bit, 0, "the state of no way");
        State(self.planes() >> (bit.trailing_zeros() & 15) & State::MODIFIED.0)
    }

    /// Makes a way the most recently used.
    #[inline(always)]
    pub(super) fn touch(&mut self, bit: u16) {
        if Self::PACKED || self.rule.replacement == Replacement::PseudoLru {
            let used = self.used() | bit;
            let next = u64::from(if used == self.rule.full { bit } else { used });
            self.block[Self::ORDER] =
                if Self::PACKED { self.block[Self::ORDER] >> 16 << 16 | next } else { next };
            return;
        }
        self.block[Self::ORDER] = self.rule.order.used::<K>(self.order(), bit.trailing_zeros());
    }

    /// With pseudo-LRU, the ways used since all had been.
    #[inline(always)]
    fn used(&self) -> u16 {
        self.block[Self::ORDER] as u16
    }

    /// The bit of the way that makes room in a full set.
    #[inline(always)]
    fn last(&mut self, key: u32) -> u16 {
        let ways = u64::from(self.rule.ways);
        let place = match self.rule.replacement {
            Replacement::Lru => return 1 << self.rule.order.oldest::<K>(self.order()),
            Replacement::PseudoLru => {
                let unused = self.rule.full & !self.used();
                return if unused == 0 { 1 } else { unused & unused.wrapping_neg() };
            }
            Replacement::OldHalf => {
                let old = ways.div_ceil(2);
                let seed = (self.block[W - 1] ^ u64::from(key)).wrapping_mul(0x5851_F42D_4C95_7F2D) + 1;
                self.block[W - 1] = seed;
                ways - 1 - (((seed >> 33) * old) >> 31)
            }
        };
        1 << self.rule.order.at::<K>(self.order(), place as u32)
    }

    /// Takes the set to the cache's epoch: what was valid is a ghost now.
    #[cold]
    pub(super) fn age(&mut self, epoch: u64) {
        debug_assert_eq!(self.dirty(), 0, "a flush leaves nothing dirty");
        *self.planes_mut() = u64::from(self.ghost() | self.valid()) << GHOST;
        if Self::PACKED {
            self.block[Self::ORDER] = u64::from(self.used()) | epoch << 16;
        } else if Self::EPOCH < W {
            self.block[Self::EPOCH] = epoch;
        }
    }

    pub(super) fn invalidate(&mut self, bit: u16) {
        let bit = u64::from(bit);
        *self.planes_mut() &= !(bit | bit << DIRTY | bit << WRITABLE);
    }

    /// Puts a line in as the most recently used: into an empty way, else a ghost's, else the oldest line's.
    /// Also tells the way.
    #[inline(always)]
    pub(super) fn fill(&mut self, key: u32, state: State) -> (Pushed, u16) {
        if !Self::PACKED && self.valid() == self.rule.full && self.rule.replacement == Replacement::Lru {
            let way = self.rule.order.oldest::<K>(self.order());
            self.block[Self::ORDER] = self.rule.order.oldest_used::<K>(self.order(), way);
            let planes = self.planes();
            let old = Victim { key: self.key(way), state: State(planes >> way & State::MODIFIED.0) };
            *self.planes_mut() = planes & !(State::MODIFIED.0 << way) | state.0 << way;
            self.set_key(way, key);
            return (Pushed::Line(old), 1 << way);
        }
        let empty = self.rule.full & !self.valid() & !self.ghost();
        if empty == 0 {
            return self.fill_anywhere(key, state);
        }
        let bit = empty & empty.wrapping_neg();
        self.put(bit, key, state);
        (Pushed::Nothing, bit)
    }

    /// The same for a set without an empty way, whatever its rule.
    #[inline(never)]
    fn fill_anywhere(&mut self, key: u32, state: State) -> (Pushed, u16) {
        let full = self.valid() == self.rule.full;
        let bit = if full { self.last(key) } else { self.oldest_ghost() };
        let old = self.key(bit.trailing_zeros());
        let pushed =
            if full { Pushed::Line(Victim { key: old, state: self.state(bit) }) } else { Pushed::Ghost(old) };
        self.put(bit, key, state);
        (pushed, bit)
    }

    /// Puts a line into a way, as the most recently used.
    #[inline(always)]
    fn put(&mut self, bit: u16, key: u32, state: State) {
        let way = bit.trailing_zeros() & 15;
        self.set_key(way, key);
        let planes = self.planes() & !((State::MODIFIED.0 | 1 << GHOST) << way);
        *self.planes_mut() = planes | (state.0 | 1) << way;
        self.touch(bit);
    }

    /// The bit of the ghost used longest ago; 0 if there is none.
    #[cold]
    fn oldest_ghost(&self) -> u16 {
        if self.rule.replacement == Replacement::PseudoLru {
            return self.ghost() & self.ghost().wrapping_neg();
        }
        self.rule.order.oldest_of::<K>(self.order(), self.ghost()).map_or(0, |way| 1 << way)
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
        self.set_key(bit.trailing_zeros(), key);
        *self.planes_mut() |= u64::from(bit) << GHOST;
        u64::from(empty != 0)
    }

    /// The valid ways with these address bits, whatever their tag.
    pub(super) fn of_phys(&self, phys: u32, mask: u32) -> u16 {
        bits(self.valid()).fold(0, |same, way| same | u16::from(self.key(way) & mask == phys) << way)
    }
}

impl Set<'_, 16, 16> {
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

/// Whether blocks of `w` words with room for `k` ways are packed.
const fn packed(w: usize, k: usize) -> bool {
    w == 8 && k == 16
}

/// The word of the order in such blocks.
const fn order_word(w: usize, k: usize) -> usize {
    if packed(w, k) { 6 } else { k / 2 }
}

/// The byte of a packed block where its tags begin.
const TAGS: usize = 32;

/// What a packed block keeps of the address of a key.
#[inline(always)]
fn high(key: u32, rule: Rule) -> u16 {
    ((key & (PHYS_LIMIT - 1)) >> (rule.set_bits & 31)) as u16
}

/// And of its tag.
#[inline(always)]
fn tag(key: u32) -> u8 {
    (key >> PHYS_BITS) as u8
}

/// Whether sets of this shape fit blocks of `W` words with room for `K` ways.
pub(super) fn has_room<const W: usize, const K: usize>(shape: CacheShape) -> bool {
    if packed(W, K) {
        return usize::from(shape.ways) <= K
            && shape.replacement == Replacement::PseudoLru
            && shape.sets.is_power_of_two()
            && PHYS_BITS - shape.sets.trailing_zeros() <= u16::BITS;
    }
    // the sequence of the old half stands in the last word
    let words = K / 2 + if shape.replacement == Replacement::OldHalf { 4 } else { 2 };
    usize::from(shape.ways) <= K && words <= W
}

/// The ways of a block whose key is this one, all compared at once.
#[inline(always)]
fn matching<const W: usize, const K: usize>(block: &[u64; W], rule: Rule, key: u32) -> u16 {
    if packed(W, K) {
        let high = u16x8::splat(high(key, rule));
        let eight = |word: usize| {
            let highs: [u16; 8] = bytemuck::cast([block[word], block[word + 1]]);
            u16x8::new(highs).simd_eq(high).to_bitmask() as u16
        };
        let tags: [u8; 16] = bytemuck::cast([block[TAGS / 8], block[TAGS / 8 + 1]]);
        let tags = u8x16::new(tags).simd_eq(u8x16::splat(tag(key))).to_bitmask() as u16;
        return (eight(0) | eight(2) << 8) & tags;
    }
    let wanted = i32x4::splat(key.cast_signed());
    let four = |word: usize| {
        let keys: [i32; 4] = bytemuck::cast([block[word], block[word + 1]]);
        i32x4::new(keys).simd_eq(wanted).to_bitmask() as u16
    };
    let low = four(0) | four(2) << 4;
    match K {
        8 => low,
        12 => low | four(4) << 8,
        _ => low | four(4) << 8 | four(6) << 12,
    }
}

/// The key that stands at a way of the block of a set that this number, or any key of it, tells.
#[inline(always)]
fn key_at<const W: usize, const K: usize>(block: &[u64; W], rule: Rule, number: u32, way: u32) -> u32 {
    let way = way as usize & 15;
    if packed(W, K) {
        let highs: &[u16] = bytemuck::cast_slice(&block[..]);
        let tags: &[u8] = bytemuck::cast_slice(&block[..]);
        let set_bits = rule.set_bits & 31;
        let low = number & ((1 << set_bits) - 1);
        return u32::from(tags[TAGS + way]) << PHYS_BITS | u32::from(highs[way]) << set_bits | low;
    }
    let keys: &[u32] = bytemuck::cast_slice(&block[..]);
    keys[way & (2 * W - 1)]
}

/// Whether a key stands in a block, valid or not.
#[inline(always)]
pub(super) fn holds_key<const W: usize, const K: usize>(block: &[u64; W], rule: Rule, key: u32) -> bool {
    matching::<W, K>(block, rule, key) != 0
}

/// The key that would make room for this one in a block, if it is full; a guess, if that is left to chance.
#[inline(always)]
pub(super) fn victim_of<const W: usize, const K: usize>(
    block: &[u64; W],
    rule: Rule,
    key: u32,
) -> Option<u32> {
    let order = const { order_word(W, K) };
    if block[order + 1] as u16 != rule.full {
        return None;
    }
    let way = if packed(W, K) || rule.replacement == Replacement::PseudoLru {
        (block[order] as u16).trailing_ones()
    } else {
        rule.order.oldest::<K>(block[order])
    };
    Some(key_at::<W, K>(block, rule, key, way))
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fills_take_empty_ways_then_ghosts_then_the_oldest() {
        let (full, rule) = (0b1111, Rule::of(CacheShape::lru(1, 4)));
        let mut block = [0; 8];
        let mut set = Set::<8, 8>::new(&mut block, rule, 0);
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

    /// What a set of one layout does, told call by call.
    fn told<const W: usize, const K: usize>(shape: CacheShape, calls: &[(u8, u32, bool)]) -> Vec<String> {
        assert!(has_room::<W, K>(shape), "{shape:?} in {W} words, {K} ways");
        let (rule, number) = (Rule::of(shape), 5);
        let mut block = [0; W];
        let mut epoch = 0;
        let tell = |(what, line, store): &(u8, u32, bool)| {
            // keys of one set, some of them alike but for the tag or for the highest bits
            let key = (line & 3) << PHYS_BITS | (line >> 2) << 22 | number;
            let foreseen = victim_of::<W, K>(&block, rule, key);
            let stands = holds_key::<W, K>(&block, rule, key);
            let mut set = Set::<W, K>::new(&mut block, rule, number);
            let bit = set.find(key);
            assert!(stands || bit == 0, "what is found stands there");
            let state = if *store { State::MODIFIED } else { State::SHARED };
            let did = match what {
                0..=5 if bit == 0 => {
                    let pushed = set.fill(key, state).0;
                    if let Pushed::Line(victim) = pushed {
                        assert_eq!(foreseen, Some(victim.key), "the victim is foreseen");
                    }
                    format!("{pushed:?}")
                }
                0..=5 => format!("{:?}", set.hit(key, u64::from(*store).wrapping_neg())),
                6 => {
                    set.invalidate(bit);
                    format!("{}", set.remember(key ^ 1 << 22))
                }
                7 if *store => {
                    set.clean(u16::MAX);
                    epoch += 1 << 20;
                    set.age(epoch);
                    // twelve ways leave no room for it
                    assert!(set.epoch() == epoch || K == 12, "the epoch is kept");
                    String::new()
                }
                _ => {
                    set.share(bit);
                    String::new()
                }
            };
            let keys: Vec<u32> = bits(set.valid() | set.ghost()).map(|way| set.key(way)).collect();
            format!("{did} {bit:x} {:x} {keys:x?}", block[order_word(W, K) + 1])
        };
        calls.iter().map(tell).collect()
    }

    proptest! {
        /// A set does the same in every layout that has room for it.
        #[test]
        fn layouts_differ_in_nothing(calls in prop::collection::vec((0u8..9, 0u32..64, any::<bool>()), 1..400)) {
            for replacement in [Replacement::Lru, Replacement::PseudoLru] {
                for ways in [5, 8, 12, 16] {
                    let shape = CacheShape { sets: 1024, ways, replacement };
                    let wide = told::<16, 16>(shape, &calls);
                    if ways <= 12 {
                        prop_assert_eq!(&wide, &told::<8, 12>(shape, &calls));
                    }
                    if replacement == Replacement::PseudoLru {
                        prop_assert_eq!(&wide, &told::<8, 16>(shape, &calls));
                        // a matrix and a list of the order differ in what they say of ways that were never used
                        if ways <= 8 {
                            prop_assert_eq!(&wide, &told::<8, 8>(shape, &calls));
                        }
                    }
                }
            }
        }
    }
}
