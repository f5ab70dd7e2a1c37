//! The directory: for each line of memory, which caches may hold a copy, under which tag.
//!
//! One word for a line of memory covers what is common: copies under one tag, in one CCX. Anything wider is in
//! a table beside it. An entry never misses a holder; it may name one whose copy a flush has dropped since
//! (flushes cost no time per line, so they cannot tell the directory), and whoever asks such a cache finds out.

use rustc_hash::FxHashMap;

use super::pages::{Pages, Table};

/// Bits of a key that are the line's address; the tag is above them.
pub(super) const PHYS_BITS: u32 = 26;
/// Lines of memory that can be simulated: 4 GiB.
pub(super) const PHYS_LIMIT: u32 = 1 << PHYS_BITS;

const L3: u32 = 1 << 16;
const CCX_SHIFT: u32 = 17;
const TAG_SHIFT: u32 = 22;
const KIND: u32 = 3 << 28;
const NARROW: u32 = 1 << 28;
const WIDE: u32 = 2 << 28;
const MANY: u32 = 3 << 28;

/// The caches that may hold a line under one tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sharers {
    /// For each CCX, its cores that may hold it.
    pub(super) cores: [u16; 32],
    /// CCXs with a core set above.
    pub(super) ccxs: u32,
    /// CCXs whose L3 may hold it.
    pub(super) l3s: u32,
}

impl Sharers {
    pub(super) const NONE: Sharers = Sharers { cores: [0; 32], ccxs: 0, l3s: 0 };

    pub(super) fn set_cores(&mut self, ccx: usize, cores: u16) {
        self.cores[ccx] = cores;
        self.ccxs = (self.ccxs & !(1 << ccx)) | u32::from(cores != 0) << ccx;
    }

    pub(super) fn set_l3(&mut self, ccx: usize, on: bool) {
        self.l3s = (self.l3s & !(1 << ccx)) | u32::from(on) << ccx;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ccxs | self.l3s == 0
    }
}

/// What the directory says of a line, for one tag, at a glance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Glance {
    /// No cache holds it, under whatever tag.
    Nowhere,
    /// Under this tag only, in this CCX only.
    Here { cores: u16, l3: bool },
    /// Under this tag only, in more than this CCX.
    Spread,
    /// Other tags are involved.
    OtherTags,
}

/// The tables beside the words.
type Beside = (FxHashMap<u32, Sharers>, FxHashMap<u32, u64>);

/// The directory of a machine.
#[derive(Clone, Debug)]
pub(super) struct Directory<D = Pages<u32>> {
    words: D,
    /// By key: entries that do not fit a word. Never iterated.
    wide: FxHashMap<u32, Sharers>,
    /// By line: the tags of a line that has several, one bit each. Never iterated.
    tags: FxHashMap<u32, u64>,
}

fn phys_of(key: u32) -> u32 {
    key & (PHYS_LIMIT - 1)
}

fn tag_of(key: u32) -> u32 {
    key >> PHYS_BITS
}

fn narrow(tag: u32, ccx: usize, cores: u16, l3: bool) -> u32 {
    let ccx = u32::try_from(ccx).unwrap_or(0);
    NARROW | tag << TAG_SHIFT | ccx << CCX_SHIFT | u32::from(l3) << 16 | u32::from(cores)
}

fn cores_of(word: u32) -> u16 {
    (word & 0xFFFF) as u16
}

fn ccx_of(word: u32) -> usize {
    (word >> CCX_SHIFT & 31) as usize
}

fn tag_of_word(word: u32) -> u32 {
    word >> TAG_SHIFT & 63
}

fn expand(word: u32) -> Sharers {
    let mut sharers = Sharers::NONE;
    sharers.set_cores(ccx_of(word), cores_of(word));
    sharers.set_l3(ccx_of(word), word & L3 != 0);
    sharers
}

impl Directory {
    pub(super) fn new(memory_lines: u32) -> Directory {
        assert!(memory_lines <= PHYS_LIMIT, "{memory_lines} lines of memory: at most {PHYS_LIMIT}");
        Directory {
            words: Pages::new(memory_lines as usize),
            wide: FxHashMap::default(),
            tags: FxHashMap::default(),
        }
    }

    /// The same directory, cheaper to reach. To be given back.
    pub(super) fn lend(&mut self) -> Directory<&mut [u32]> {
        Directory {
            words: self.words.get_mut(),
            wide: std::mem::take(&mut self.wide),
            tags: std::mem::take(&mut self.tags),
        }
    }

    /// Takes back what was lent beside the words.
    pub(super) fn give_back(&mut self, (wide, tags): Beside) {
        self.wide = wide;
        self.tags = tags;
    }
}

impl<D: Table<u32>> Directory<D> {
    /// What goes back with [`Directory::give_back`].
    pub(super) fn into_parts(self) -> Beside {
        (self.wide, self.tags)
    }

    pub(super) fn memory_lines(&self) -> usize {
        self.words.get().len()
    }

    #[inline(always)]
    fn word(&self, key: u32) -> u32 {
        *self.words.at(phys_of(key) as usize)
    }

    #[inline(always)]
    fn set_word(&mut self, key: u32, word: u32) {
        *self.words.at_mut(phys_of(key) as usize) = word;
    }

    /// The word of a line: brings it into the host's caches.
    #[inline(always)]
    pub(super) fn glimpse(&self, key: u32) -> u64 {
        u64::from(self.word(key))
    }

    /// What there is to know for a request out of `ccx`.
    #[inline(always)]
    pub(super) fn glance(&self, key: u32, ccx: usize) -> Glance {
        let word = self.word(key);
        if word == 0 {
            return Glance::Nowhere;
        }
        if word & KIND == MANY || tag_of_word(word) != tag_of(key) {
            return Glance::OtherTags;
        }
        if word & KIND == NARROW && ccx_of(word) == ccx {
            return Glance::Here { cores: cores_of(word), l3: word & L3 != 0 };
        }
        Glance::Spread
    }

    /// Records a line that is in one CCX only, when no other tag or CCX has it.
    #[inline(always)]
    pub(super) fn set_here(&mut self, key: u32, ccx: usize, cores: u16, l3: bool) {
        debug_assert!(self.word(key) == 0 || self.word(key) & KIND == NARROW, "a wide entry would be lost");
        let word = if cores == 0 && !l3 { 0 } else { narrow(tag_of(key), ccx, cores, l3) };
        self.set_word(key, word);
    }

    /// A private copy has become an L3 copy of the same CCX (`to_l3`), or is gone.
    #[inline(always)]
    pub(super) fn leave_core(&mut self, key: u32, ccx: usize, core: u16, to_l3: bool) {
        let word = self.word(key);
        if word & KIND == NARROW && tag_of_word(word) == tag_of(key) && ccx_of(word) == ccx {
            let l3 = word & L3 != 0 || to_l3;
            self.set_here(key, ccx, cores_of(word) & !core, l3);
            return;
        }
        let mut sharers = self.load(key);
        sharers.set_cores(ccx, sharers.cores[ccx] & !core);
        if to_l3 {
            sharers.set_l3(ccx, true);
        }
        self.store(key, &sharers);
    }

    /// An L3 copy is gone.
    #[inline(always)]
    pub(super) fn leave_l3(&mut self, key: u32, ccx: usize) {
        let word = self.word(key);
        if word & KIND == NARROW && tag_of_word(word) == tag_of(key) && ccx_of(word) == ccx {
            self.set_here(key, ccx, cores_of(word), false);
            return;
        }
        let mut sharers = self.load(key);
        sharers.set_l3(ccx, false);
        self.store(key, &sharers);
    }

    /// The full entry of a key.
    pub(super) fn load(&self, key: u32) -> Sharers {
        let word = self.word(key);
        match word & KIND {
            NARROW if tag_of_word(word) == tag_of(key) => expand(word),
            WIDE if tag_of_word(word) == tag_of(key) => self.wide.get(&key).copied().unwrap_or(Sharers::NONE),
            MANY => self.wide.get(&key).copied().unwrap_or(Sharers::NONE),
            _ => Sharers::NONE,
        }
    }

    /// Replaces the full entry of a key.
    pub(super) fn store(&mut self, key: u32, sharers: &Sharers) {
        let (phys, tag, word) = (phys_of(key), tag_of(key), self.word(key));
        let own = word == 0 || word & KIND != MANY && tag_of_word(word) == tag;
        if own {
            let next = self.sole(key, sharers);
            self.set_word(key, next);
            return;
        }
        if word & KIND != MANY {
            if sharers.is_empty() {
                return;
            }
            let other = tag_of_word(word);
            if word & KIND == NARROW {
                self.wide.insert(other << PHYS_BITS | phys, expand(word));
            }
            self.tags.insert(phys, 1 << other);
            self.set_word(key, MANY);
        }
        let mut tags = self.tags.get(&phys).copied().unwrap_or(0);
        if sharers.is_empty() {
            self.wide.remove(&key);
            tags &= !(1 << tag);
        } else {
            self.wide.insert(key, *sharers);
            tags |= 1 << tag;
        }
        if tags.count_ones() > 1 {
            self.tags.insert(phys, tags);
            return;
        }
        self.tags.remove(&phys);
        let last = tags.trailing_zeros() << PHYS_BITS | phys;
        let left = self.wide.get(&last).copied().unwrap_or(Sharers::NONE);
        let next = self.sole(last, &left);
        self.set_word(key, next);
    }

    /// The word of a line whose only tag is this key's; keeps the table beside it in step.
    fn sole(&mut self, key: u32, sharers: &Sharers) -> u32 {
        let ccxs = sharers.ccxs | sharers.l3s;
        if ccxs.count_ones() > 1 {
            self.wide.insert(key, *sharers);
            return WIDE | tag_of(key) << TAG_SHIFT;
        }
        if !self.wide.is_empty() {
            self.wide.remove(&key);
        }
        if ccxs == 0 {
            return 0;
        }
        let ccx = ccxs.trailing_zeros() as usize;
        narrow(tag_of(key), ccx, sharers.cores[ccx], sharers.l3s != 0)
    }

    /// The tags under which a line may be held, one bit each.
    pub(super) fn tags_of(&self, phys: u32) -> u64 {
        let word = self.word(phys);
        match word & KIND {
            0 => 0,
            MANY => self.tags.get(&phys).copied().unwrap_or(0),
            _ => 1 << tag_of_word(word),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The packed directory agrees with a plain map, whatever is stored in which order.
        #[test]
        fn packed_entries_equal_a_plain_map(
            steps in prop::collection::vec((0u32..4, 0u32..3, 0usize..3, 0u16..4, any::<bool>()), 1..200)
        ) {
            let mut packed = Directory::new(4);
            let mut plain: BTreeMap<u32, Sharers> = BTreeMap::new();
            for (phys, tag, ccx, cores, l3) in steps {
                let key = tag << PHYS_BITS | phys;
                let mut sharers = packed.load(key);
                sharers.set_cores(ccx, cores);
                sharers.set_l3(ccx, l3);
                packed.store(key, &sharers);
                plain.insert(key, sharers);
                if sharers.is_empty() {
                    plain.remove(&key);
                }
                for phys in 0..4 {
                    let mut tags = 0;
                    for tag in 0..3 {
                        let key = tag << PHYS_BITS | phys;
                        let want = plain.get(&key).copied().unwrap_or(Sharers::NONE);
                        prop_assert_eq!(packed.load(key), want);
                        tags |= u64::from(!want.is_empty()) << tag;
                    }
                    prop_assert_eq!(packed.tags_of(phys), tags);
                }
            }
            for key in plain.keys().copied().collect::<Vec<_>>() {
                packed.store(key, &Sharers::NONE);
            }
            prop_assert_eq!(packed.wide.len() + packed.tags.len(), 0);
        }
    }
}
