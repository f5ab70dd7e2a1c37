//! All caches of one level: sets of equal shape, an epoch and a summary of dirty sets for each cache.

use super::directory::PHYS_BITS;
use super::pages::{Pages, Table};
use super::set::{self, Pushed, Rule, Set, State, Victim, bits};
use crate::part::CacheShape;

/// The caches of one level, numbered by core (L1, L2) or by CCX (L3). Sets of `W` words have room for `K` ways; only
/// with `GROUPS` there may be three times a power of two of them.
#[derive(Clone, Debug)]
pub(super) struct Bank<const W: usize, const K: usize, const GROUPS: bool, B = Pages<[u64; W]>> {
    blocks: B,
    shape: CacheShape,
    /// Sets of one cache, a multiple of 64: those of a cache with fewer are followed by empty ones.
    sets: usize,
    shift: u32,
    /// The low bits of a line's address that say its set; one of three groups of sets, where there are three.
    mask: u32,
    log2: u32,
    thirds: bool,
    rule: Rule,
    caches: Vec<Cache>,
    /// One bit a set, `words` words a cache: set when a line of the set becomes dirty. May be set in vain.
    dirty_sets: Vec<u64>,
    words: usize,
}

/// What is kept for a cache as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cache {
    /// Counts flushes that invalidate; a set of an older epoch is empty.
    epoch: u64,
    valid: u64,
    ghosts: u64,
}

impl<const W: usize, const K: usize, const GROUPS: bool> Bank<W, K, GROUPS> {
    pub(super) fn new(shape: CacheShape, caches: u16) -> Bank<W, K, GROUPS> {
        let thirds = !shape.sets.is_power_of_two();
        let group = if thirds { shape.sets / 3 } else { shape.sets };
        assert!(GROUPS || !thirds, "{shape:?}: three groups of sets");
        assert!(set::has_room::<W, K>(shape) && group.is_power_of_two(), "{shape:?} in {W} words, {K} ways");
        let sets = (shape.sets as usize).next_multiple_of(64);
        let words = sets / 64;
        let caches = usize::from(caches);
        Bank {
            blocks: Pages::new(sets * caches),
            shape,
            sets,
            shift: sets.trailing_zeros(),
            mask: group - 1,
            log2: group.trailing_zeros(),
            thirds,
            rule: Rule::of(shape),
            caches: vec![Cache::default(); caches],
            dirty_sets: vec![0; words * caches],
            words,
        }
    }

    /// The same caches, their sets cheaper to reach. To be given back.
    pub(super) fn lend(&mut self) -> Bank<W, K, GROUPS, &mut [[u64; W]]> {
        Bank {
            blocks: self.blocks.get_mut(),
            shape: self.shape,
            sets: self.sets,
            shift: self.shift,
            mask: self.mask,
            log2: self.log2,
            thirds: self.thirds,
            rule: self.rule,
            caches: std::mem::take(&mut self.caches),
            dirty_sets: std::mem::take(&mut self.dirty_sets),
            words: self.words,
        }
    }

    /// Takes back what was lent beside the sets.
    pub(super) fn give_back(&mut self, (caches, dirty_sets): (Vec<Cache>, Vec<u64>)) {
        self.caches = caches;
        self.dirty_sets = dirty_sets;
    }
}

impl<const W: usize, const K: usize, const GROUPS: bool, B: Table<[u64; W]>> Bank<W, K, GROUPS, B> {
    /// What goes back with [`Bank::give_back`].
    pub(super) fn into_parts(self) -> (Vec<Cache>, Vec<u64>) {
        (self.caches, self.dirty_sets)
    }

    pub(super) fn shape(&self) -> CacheShape {
        self.shape
    }

    pub(super) fn caches(&self) -> usize {
        self.caches.len()
    }

    pub(super) fn valid(&self, cache: usize) -> u64 {
        self.caches[cache].valid
    }

    /// Whether a flush has ever invalidated this cache and not all it took has been replaced.
    pub(super) fn has_ghosts(&self, cache: usize) -> bool {
        self.caches[cache].ghosts != 0
    }

    #[inline(always)]
    fn index(&self, cache: usize, key: u32) -> usize {
        let first = if GROUPS { cache * self.sets } else { cache << (self.shift & 31) };
        first + self.set_of(key)
    }

    #[inline(always)]
    fn set_of(&self, key: u32) -> usize {
        let low = key & self.mask;
        if !GROUPS || !self.thirds {
            return low as usize;
        }
        let group = ((key & ((1 << PHYS_BITS) - 1)) >> self.log2) % 3;
        (group << self.log2 | low) as usize
    }

    /// The set of a key, of the present epoch.
    #[inline(always)]
    pub(super) fn set(&mut self, cache: usize, key: u32) -> Set<'_, W, K> {
        let at = self.index(cache, key);
        let epoch = self.caches[cache].epoch;
        let mut set = Set::<W, K>::new(self.blocks.at_mut(at), self.rule, key);
        if set.epoch() != epoch {
            set.age(epoch);
        }
        set
    }

    /// The set of a key as it is; [`Bank::peek`] knows about epochs.
    #[inline(always)]
    pub(super) fn set_unaged(&mut self, cache: usize, key: u32) -> Set<'_, W, K> {
        let at = self.index(cache, key);
        Set::<W, K>::new(self.blocks.at_mut(at), self.rule, key)
    }

    /// Whether a key stands in its set, valid or not.
    #[inline(always)]
    pub(super) fn peek_key(&self, cache: usize, key: u32) -> bool {
        set::holds_key::<W, K>(self.blocks.at(self.index(cache, key)), self.rule, key)
    }

    /// Some words of the set of a key: brings it into the host's caches.
    #[inline(always)]
    pub(super) fn glimpse(&self, cache: usize, key: u32) -> u64 {
        let block = self.blocks.at(self.index(cache, key));
        block[0] ^ block[W - 1]
    }

    /// The key of what a fill of this key would push out, if nothing changes first.
    #[inline(always)]
    pub(super) fn glimpse_victim(&self, cache: usize, key: u32) -> Option<u32> {
        set::victim_of::<W, K>(self.blocks.at(self.index(cache, key)), self.rule, key)
    }

    /// What may be asked of a set that stays as it is.
    pub(super) fn look<R>(&self, cache: usize, key: u32, f: impl FnOnce(&Set<'_, W, K>) -> R) -> R {
        let mut block = *self.blocks.at(self.index(cache, key));
        let mut set = Set::<W, K>::new(&mut block, self.rule, key);
        if set.epoch() != self.caches[cache].epoch {
            set.age(self.caches[cache].epoch);
        }
        f(&set)
    }

    /// The state of a line, without touching anything.
    pub(super) fn peek(&self, cache: usize, key: u32) -> Option<State> {
        self.look(cache, key, |set| {
            let bit = set.find(key);
            (bit != 0).then(|| set.state(bit))
        })
    }

    /// Whether using this line once more would leave its set as it is.
    pub(super) fn is_newest(&self, cache: usize, key: u32) -> bool {
        let mut block = *self.blocks.at(self.index(cache, key));
        let mut set = Set::<W, K>::new(&mut block, self.rule, key);
        let bit = set.find(key);
        set.touch(bit);
        block == *self.blocks.at(self.index(cache, key))
    }

    #[inline(always)]
    pub(super) fn mark_dirty(&mut self, cache: usize, key: u32) {
        let set = self.index(cache, key);
        self.dirty_sets[set / 64] |= 1 << (set % 64);
    }

    /// Puts a line in, as the most recently used. Tells what that pushed out, and the way.
    #[inline(always)]
    pub(super) fn fill(&mut self, cache: usize, key: u32, state: State) -> (Pushed, u16) {
        self.set(cache, key);
        self.fill_aged(cache, key, state)
    }

    /// The same, if the set is known to be of the present epoch.
    #[inline(always)]
    pub(super) fn fill_aged(&mut self, cache: usize, key: u32, state: State) -> (Pushed, u16) {
        let (pushed, bit) = self.set_unaged(cache, key).fill(key, state);
        self.count(cache, pushed);
        if state.dirty() {
            self.mark_dirty(cache, key);
        }
        (pushed, bit)
    }

    #[inline(always)]
    fn count(&mut self, cache: usize, pushed: Pushed) {
        let counts = &mut self.caches[cache];
        match pushed {
            Pushed::Line(_) => {}
            Pushed::Nothing => counts.valid += 1,
            Pushed::Ghost(_) => {
                counts.valid += 1;
                counts.ghosts -= 1;
            }
        }
    }

    /// Remembers a line that a flush took out of an inner cache.
    #[cold]
    pub(super) fn remember(&mut self, cache: usize, key: u32) {
        self.caches[cache].ghosts += self.set(cache, key).remember(key);
    }

    /// Removes a line; its state if it was there.
    pub(super) fn take(&mut self, cache: usize, key: u32) -> Option<State> {
        let mut set = self.set(cache, key);
        let bit = set.find(key);
        if bit == 0 {
            return None;
        }
        let state = set.state(bit);
        set.invalidate(bit);
        self.caches[cache].valid -= 1;
        Some(state)
    }

    /// Takes the right to write away from a line; the state it had, if it is there.
    pub(super) fn share(&mut self, cache: usize, key: u32) -> Option<State> {
        let mut set = self.set(cache, key);
        let bit = set.find(key);
        if bit == 0 {
            return None;
        }
        let state = set.state(bit);
        set.share(bit);
        Some(state)
    }

    /// Makes a line that is there dirty; whether it was there.
    #[inline]
    pub(super) fn soil(&mut self, cache: usize, key: u32) -> bool {
        let mut set = self.set(cache, key);
        let bit = set.find(key);
        set.soil(bit);
        if bit != 0 {
            self.mark_dirty(cache, key);
        }
        bit != 0
    }

    /// Whether a flush took this line and nothing replaced it since; forgets it.
    #[inline(always)]
    pub(super) fn forget_ghost(&mut self, cache: usize, key: u32) -> bool {
        let mut set = self.set(cache, key);
        let bits = set.matching(key) & set.ghost();
        if bits == 0 {
            return false;
        }
        set.forget(bits);
        self.caches[cache].ghosts -= u64::from(bits.count_ones());
        true
    }

    /// Makes a line clean if a cache holds it; whether it was dirty.
    pub(super) fn clean_line(&mut self, cache: usize, key: u32) -> bool {
        let mut set = self.set_unaged(cache, key);
        let bit = set.find(key);
        let dirty = bit != 0 && set.state(bit).dirty();
        if dirty {
            set.clean(bit);
        }
        dirty
    }

    /// Cleans every dirty line of a cache, handing each key to `f`. In time of the dirty sets.
    pub(super) fn clean(&mut self, cache: usize, mut f: impl FnMut(u32)) {
        let (first, rule) = (cache * self.sets, self.rule);
        for word in 0..self.words {
            let mut sets = std::mem::take(&mut self.dirty_sets[cache * self.words + word]);
            while sets != 0 {
                let index = word * 64 + sets.trailing_zeros() as usize;
                sets &= sets - 1;
                let mut set = Set::<W, K>::new(self.blocks.at_mut(first + index), rule, index as u32);
                let dirty = set.dirty();
                set.clean(dirty);
                for way in bits(dirty) {
                    f(set.key(way));
                }
            }
        }
    }

    /// Calls `f` with the key of each dirty line of a cache. In time of the dirty sets.
    pub(super) fn each_dirty(&self, cache: usize, mut f: impl FnMut(u32)) {
        for word in 0..self.words {
            let mut sets = self.dirty_sets[cache * self.words + word];
            while sets != 0 {
                let index = word * 64 + sets.trailing_zeros() as usize;
                sets &= sets - 1;
                let mut block = *self.blocks.at(cache * self.sets + index);
                let set = Set::<W, K>::new(&mut block, self.rule, index as u32);
                for way in bits(set.dirty()) {
                    f(set.key(way));
                }
            }
        }
    }

    /// Invalidates a cache that holds nothing dirty, in constant time; what was valid becomes a ghost. How many.
    pub(super) fn invalidate_clean(&mut self, cache: usize) -> u64 {
        let counts = &mut self.caches[cache];
        let invalidated = std::mem::take(&mut counts.valid);
        counts.ghosts += invalidated;
        counts.epoch += 1;
        invalidated
    }

    /// Invalidates a cache that holds nothing dirty, set by set, leaving no ghosts: for the small L1.
    pub(super) fn wipe(&mut self, cache: usize) {
        if self.caches[cache].valid == 0 {
            return;
        }
        let (own, rule) = (cache * self.sets..(cache + 1) * self.sets, self.rule);
        for block in &mut self.blocks.get_mut()[own] {
            Set::<W, K>::new(block, rule, 0).wipe();
        }
        self.caches[cache].valid = 0;
    }

    /// Every valid line of a cache: key, state, and whether its set is marked as holding dirty lines.
    pub(super) fn each_valid(&self, cache: usize, mut f: impl FnMut(u32, State, bool)) {
        let first = cache * self.sets;
        for (index, block) in self.blocks.get()[first..first + self.sets].iter().enumerate() {
            let mut block = *block;
            let set = Set::<W, K>::new(&mut block, self.rule, index as u32);
            if set.epoch() != self.caches[cache].epoch {
                continue;
            }
            let marked = self.dirty_sets[cache * self.words + index / 64] >> (index % 64) & 1 != 0;
            for way in bits(set.valid()) {
                f(set.key(way), set.state(1 << way), marked);
            }
        }
    }

    /// Ghosts of a cache, counted one by one.
    pub(super) fn count_ghosts(&self, cache: usize) -> (u64, u64) {
        let first = cache * self.sets;
        let counted = self.blocks.get()[first..first + self.sets]
            .iter()
            .map(|block| {
                let mut block = *block;
                let set = Set::<W, K>::new(&mut block, self.rule, 0);
                let stale = set.epoch() != self.caches[cache].epoch;
                let ghost = if stale { set.ghost() | set.valid() } else { set.ghost() };
                u64::from(ghost.count_ones())
            })
            .sum();
        (counted, self.caches[cache].ghosts)
    }
}

impl<B: Table<[u64; 16]>> Bank<16, 16, true, B> {
    /// Puts a line into an inclusive L3 whose set is of the present epoch, held by the cores given. The line
    /// pushed out, and the cores that held it.
    #[inline(always)]
    pub(super) fn fill_held(
        &mut self,
        cache: usize,
        key: u32,
        state: State,
        cores: u16,
    ) -> Option<(Victim, u16)> {
        let mut set = self.set_unaged(cache, key);
        let (pushed, bit) = set.fill(key, state);
        let before = set.sharers(bit);
        set.set_sharers(bit, cores);
        self.count(cache, pushed);
        match pushed {
            Pushed::Line(old) => Some((old, before)),
            Pushed::Ghost(_) | Pushed::Nothing => None,
        }
    }
}
