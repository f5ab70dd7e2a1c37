//! The visited states, in shards by their hash, each found by open addressing.
//!
//! A state's number is its place in its shard and the shard's number: states get their numbers in an order that
//! does not depend on who inserts which shard when.

/// Bits of a state's number that name its shard. How many shards there are is part of the order of states, and so
/// never depends on the machine.
const SHARD_BITS: u32 = 6;
pub(crate) const SHARDS: usize = 1 << SHARD_BITS;

/// States of a shard, at most.
const MOST: usize = 1 << (32 - SHARD_BITS);

/// The number of a state.
pub(crate) const fn id(shard: u32, index: u32) -> u32 {
    index << SHARD_BITS | shard
}

/// The shard of a state's number.
pub(crate) const fn shard_of(id: u32) -> usize {
    id as usize % SHARDS
}

/// Its place in the shard.
pub(crate) const fn index_of(id: u32) -> usize {
    (id >> SHARD_BITS) as usize
}

pub(crate) fn length<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

/// Shard and tag of a state: the tag finds it in the shard.
pub(crate) fn hash<const W: usize>(state: &[u64; W]) -> (usize, u32) {
    let mut h = 0x9e37_79b9_7f4a_7c15u64;
    for w in state {
        h = (h ^ w).wrapping_mul(0xd6e8_feb8_6659_fd93);
        h ^= h >> 32;
    }
    h = h.wrapping_mul(0xd6e8_feb8_6659_fd93);
    (low(h >> (32 - SHARD_BITS)) as usize % SHARDS, high(h))
}

/// The low half of a word.
#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
const fn low(word: u64) -> u32 {
    word as u32
}

/// The high half of a word.
const fn high(word: u64) -> u32 {
    low(word >> 32)
}

/// A successor on its way into a shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<const W: usize> {
    pub(crate) state: [u64; W],
    pub(crate) tag: u32,
    /// The state that it was found from, and the number of the transition.
    pub(crate) from: (u32, u32),
}

/// One shard. A slot holds a state's index below and its tag above; its place comes from the top of the tag, so
/// that a table that grows needs no state to be read: its slots move in order.
#[derive(Debug)]
pub(crate) struct Shard<const W: usize> {
    pub(crate) states: Vec<[u64; W]>,
    pub(crate) came_from: Vec<(u32, u32)>,
    slots: Vec<u64>,
    /// The states of the level that is being expanded.
    pub(crate) level: std::ops::Range<u32>,
    ahead: Vec<u64>,
}

const EMPTY: u64 = u64::MAX;

/// Whether a table with so many slots is too small for so many states.
const fn crowded(states: usize, slots: usize) -> bool {
    states * 3 >= slots * 2
}

/// The capacity of a list that is to hold so many states.
fn room_for(capacity: usize, states: usize) -> usize {
    if states <= capacity { capacity } else { states.max(capacity + capacity / 16 + 16) }
}

impl<const W: usize> Shard<W> {
    pub(crate) fn new() -> Self {
        Shard {
            states: Vec::new(),
            came_from: Vec::new(),
            slots: vec![EMPTY; 1 << 6],
            level: 0..0,
            ahead: Vec::new(),
        }
    }

    fn slot_of(&self, tag: u32) -> usize {
        let bits = self.slots.len().trailing_zeros();
        usize::try_from(u64::from(tag) << bits >> 32).unwrap_or(0)
    }

    /// Stores those states that are new, in order.
    pub(crate) fn insert(&mut self, found: &[Found<W>]) {
        self.reserve(found.len());
        self.read_ahead(found);
        for found in found {
            self.insert_one(found);
        }
    }

    /// Whether it can take no more.
    pub(crate) fn full(&self) -> bool {
        self.states.len() >= MOST - (1 << 20)
    }

    /// Makes room for so many more states. A search may end at any number of bytes, so the states' room grows by
    /// little; moving them costs next to nothing, for the system moves large pieces by their addresses.
    fn reserve(&mut self, more: usize) {
        let (room, len) = (room_for(self.states.capacity(), self.states.len() + more), self.states.len());
        self.states.reserve_exact(room - len);
        self.came_from.reserve_exact(room - len);
        while crowded(self.states.len() + more, self.slots.len()) {
            let size = self.slots.len() * 2;
            let old = std::mem::replace(&mut self.slots, vec![EMPTY; size]);
            for slot in old.into_iter().filter(|s| *s != EMPTY) {
                let mut at = self.slot_of(high(slot));
                while self.slots[at] != EMPTY {
                    at = (at + 1) & (size - 1);
                }
                self.slots[at] = slot;
            }
        }
    }

    fn insert_one(&mut self, found: &Found<W>) {
        let mask = self.slots.len() - 1;
        let mut at = self.slot_of(found.tag);
        loop {
            let slot = self.slots[at];
            if slot == EMPTY {
                break;
            }
            if high(slot) == found.tag && self.states[low(slot) as usize] == found.state {
                return;
            }
            at = (at + 1) & mask;
        }
        self.slots[at] = u64::from(found.tag) << 32 | u64::from(length(&self.states));
        self.states.push(found.state);
        self.came_from.push(found.from);
    }

    /// Touches what the insertions will need: independent loads, whose misses overlap.
    fn read_ahead(&mut self, found: &[Found<W>]) {
        let mut ahead = std::mem::take(&mut self.ahead);
        ahead.clear();
        ahead.extend(found.iter().map(|f| self.slots[self.slot_of(f.tag)]));
        let mut sum = 0u64;
        for (slot, found) in ahead.iter().zip(found) {
            if *slot != EMPTY && high(*slot) == found.tag {
                sum = sum.wrapping_add(self.states[low(*slot) as usize][0]);
            }
        }
        std::hint::black_box(sum);
        self.ahead = ahead;
    }

    /// Bytes that it takes once it has room for so many more states.
    pub(crate) fn bytes_with(&self, more: usize) -> u64 {
        let states = room_for(self.states.capacity(), self.states.len() + more);
        let mut slots = self.slots.len();
        while crowded(self.states.len() + more, slots) {
            slots *= 2;
        }
        (states * (W * 8 + 8) + slots * 8) as u64
    }

    pub(crate) fn bytes(&self) -> u64 {
        (self.states.capacity() * W * 8 + (self.slots.capacity() + self.came_from.capacity()) * 8) as u64
    }
}
