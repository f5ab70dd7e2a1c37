//! The visited states of one shard: their keys in the order in which they were found, and slots that find them.
//!
//! A state's number is its place in its shard and the shard's number: states get their numbers in an order that
//! does not depend on who inserts which shard when.

use crate::dictionary::{high, low, zobrist};
use crate::ranks::Ranks;

/// Bits of a state's number that name its shard. How many shards there are is part of the order of states, and so
/// never depends on the machine.
pub(crate) const SHARD_BITS: u32 = 8;
pub(crate) const SHARDS: usize = 1 << SHARD_BITS;

/// States of a shard, at most.
pub(crate) const MOST: u32 = (1 << (32 - SHARD_BITS)) - (1 << 20);

/// The number of a state.
#[inline]
pub(crate) const fn id(shard: u32, index: u32) -> u32 {
    index << SHARD_BITS | shard
}

/// The shard of a state's number.
pub(crate) const fn shard_of(id: u32) -> usize {
    id as usize % SHARDS
}

/// Its place in the shard.
pub(crate) const fn index_of(id: u32) -> u32 {
    id >> SHARD_BITS
}

pub(crate) fn length<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

const MIX: u64 = 0xd6e8_feb8_6659_fd93;

/// The shard of a state.
pub(crate) fn shard<const W: usize>(state: &[u64; W]) -> usize {
    let halves = state
        .iter()
        .enumerate()
        .map(|(w, word)| zobrist(2 * w, low(*word)) ^ zobrist(2 * w + 1, high(*word)));
    halves.fold(0, |shard, half| shard ^ half)
}

/// The shard of a state that is reached from one whose shard is known.
#[inline]
pub(crate) fn moved<const W: usize>(mut shard: usize, from: &[u64; W], to: &[u64; W]) -> usize {
    for (w, (from, to)) in from.iter().zip(to).enumerate().filter(|(_, (from, to))| from != to) {
        shard ^= zobrist(2 * w, low(*from)) ^ zobrist(2 * w, low(*to));
        shard ^= zobrist(2 * w + 1, high(*from)) ^ zobrist(2 * w + 1, high(*to));
    }
    shard % SHARDS
}

/// Where a key is looked for: the high half is spread evenly, and so are the low bits.
#[inline]
fn hash(key: &[u64]) -> u32 {
    let mut h = 0x9e37_79b9_7f4a_7c15u64;
    for word in key {
        h = (h ^ word).wrapping_mul(MIX);
        h ^= h >> 32;
    }
    low(h.wrapping_mul(MIX) >> 32)
}

/// One shard. A slot holds a state's place among the keys below and as many bits of its hash above as there is room
/// for.
#[derive(Debug)]
pub(crate) struct Shard {
    /// Words of a key.
    stride: usize,
    /// Of the states in memory.
    pub(crate) keys: Vec<u64>,
    /// The first state in memory: those before it are on the disk.
    pub(crate) first: u32,
    slots: Vec<u32>,
    /// From which state each was first reached.
    pub(crate) ranks: Ranks,
    /// The states of the level that is being expanded.
    pub(crate) level: std::ops::Range<u32>,
    ahead: Vec<u32>,
}

const EMPTY: u32 = u32::MAX;

/// Slots of a table at first.
const FEWEST: usize = 1 << 4;

/// Slots from which on a table grows by less than double.
const LARGE: usize = 1 << 11;

/// Slots for so many states, of a table that has some.
fn slots_for(states: usize, slots: usize) -> usize {
    let mut size = slots;
    while states * 5 > size * 4 {
        size = if size < LARGE { size * 2 } else { size / 5 * 7 };
    }
    size
}

/// The capacity of a list that is to hold so many items.
fn room_for(capacity: usize, items: usize) -> usize {
    if items <= capacity { capacity } else { items.max(capacity + capacity / 16 + 16) }
}

/// A successor on its way into a shard lies in a list as the number of the state that it was found from, counted
/// within a round, and its key.
#[inline]
pub(crate) const fn record(stride: usize) -> usize {
    1 + stride
}

impl Shard {
    pub(crate) fn new(stride: usize) -> Self {
        Shard {
            stride,
            keys: Vec::new(),
            first: 0,
            slots: vec![EMPTY; FEWEST],
            ranks: Ranks::default(),
            level: 0..0,
            ahead: Vec::new(),
        }
    }

    /// States stored.
    #[inline]
    pub(crate) fn len(&self) -> u32 {
        self.ranks.len()
    }

    /// The key of a state in memory.
    #[inline]
    pub(crate) fn key(&self, index: u32) -> &[u64] {
        &self.keys[(index - self.first) as usize * self.stride..][..self.stride]
    }

    fn in_memory(&self) -> usize {
        (self.len() - self.first) as usize
    }

    /// Forgets the states in memory, which were put on the disk.
    pub(crate) fn freeze(&mut self) {
        self.first = self.len();
        (self.keys, self.slots) = (Vec::new(), vec![EMPTY; FEWEST]);
    }

    /// Takes out those states, from `from` on, that are marked.
    pub(crate) fn remove(&mut self, from: u32, marked: &[bool]) {
        let kept: Vec<u64> =
            self.ranks.from(from).zip(marked).filter(|m| !m.1).map(|(rank, _)| rank).collect();
        let start = (from - self.first) as usize * self.stride;
        let mut end = start;
        for (at, _) in marked.iter().enumerate().filter(|m| !m.1) {
            let key = start + at * self.stride;
            self.keys.copy_within(key..key + self.stride, end);
            end += self.stride;
        }
        self.keys.truncate(end);
        self.ranks.truncate(from);
        kept.into_iter().for_each(|rank| self.ranks.push(rank));
        self.slots.fill(EMPTY);
        self.fill();
    }

    /// A shard with states that were written before: their keys, of those in memory, and their ranks.
    pub(crate) fn of(stride: usize, keys: Vec<u64>, ranks: Ranks) -> Self {
        let mut shard = Shard::new(stride);
        let states = keys.len() / stride;
        shard.first = ranks.len().saturating_sub(u32::try_from(states).unwrap_or(u32::MAX));
        shard.slots = vec![EMPTY; slots_for(states, shard.slots.len())];
        (shard.keys, shard.ranks) = (keys, ranks);
        shard.fill();
        shard
    }

    /// Stores those of a list that are new, in order. The states that a round expands are counted from `base`.
    pub(crate) fn insert(&mut self, found: &[u64], base: u64) {
        match self.stride {
            1 => self.insert_all::<1>(found, base),
            2 => self.insert_all::<2>(found, base),
            _ => self.insert_all::<0>(found, base),
        }
    }

    /// `K` is the words of a key, or 0 if they are more than two.
    fn insert_all<const K: usize>(&mut self, found: &[u64], base: u64) {
        let stride = if K == 0 { self.stride } else { K };
        self.reserve(found.len() / record(stride));
        let mut ahead = std::mem::take(&mut self.ahead);
        // Independent loads first, whose misses overlap: the slots, then the keys that they lead to.
        ahead.clear();
        let mut touched = 0u64;
        for found in found.chunks_exact(record(stride)) {
            let hash = hash(&found[1..]);
            touched ^= u64::from(self.slots[self.place(hash)]);
            ahead.push(hash);
        }
        for hash in &ahead {
            if let Ok((_, state)) = self.lookup(*hash, self.place(*hash)) {
                touched ^= self.keys[state * stride];
            }
        }
        std::hint::black_box(touched);
        for (found, hash) in found.chunks_exact(record(stride)).zip(&ahead) {
            self.insert_one(&found[1..], *hash, base + found[0], stride);
        }
        self.ahead = ahead;
    }

    /// The bits of a slot that are a place, and how far the bits of a hash lie above them.
    #[inline]
    fn split(&self) -> (u32, u32) {
        let bits = usize::BITS - self.slots.len().leading_zeros();
        (low((1 << bits) - 1), bits)
    }

    #[inline]
    fn place(&self, hash: u32) -> usize {
        low((u64::from(hash) * self.slots.len() as u64) >> 32) as usize
    }

    /// The first state of a hash's tag from a slot on.
    #[inline]
    fn lookup(&self, hash: u32, mut at: usize) -> Result<(usize, usize), usize> {
        let (index, bits) = self.split();
        let tag = low(u64::from(hash) << bits);
        loop {
            let slot = self.slots[at];
            if slot == EMPTY {
                return Err(at);
            }
            if slot & !index == tag {
                return Ok((at, (slot & index) as usize));
            }
            at = self.next(at);
        }
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    #[inline]
    fn insert_one(&mut self, key: &[u64], hash: u32, rank: u64, stride: usize) {
        let mut from = self.place(hash);
        let vacant = loop {
            match self.lookup(hash, from) {
                Ok((at, state)) => {
                    let stored = &self.keys[state * stride..][..stride];
                    if stored.iter().zip(key).fold(0, |d, (a, b)| d | (a ^ b)) == 0 {
                        return;
                    }
                    from = self.next(at);
                }
                Err(at) => break at,
            }
        };
        let (_, bits) = self.split();
        self.slots[vacant] = low(u64::from(hash) << bits) | (self.len() - self.first);
        self.keys.extend_from_slice(key);
        self.ranks.push(rank);
    }

    /// Makes room for so many more states. A search may end at any number of bytes, so the room of the keys grows by
    /// little; moving them costs next to nothing, for the system moves large pieces by their addresses.
    fn reserve(&mut self, more: usize) {
        let states = self.in_memory() + more;
        let room = room_for(self.keys.capacity(), states * self.stride);
        self.keys.reserve_exact(room - self.keys.len());
        self.ranks.reserve(more);
        let size = slots_for(states, self.slots.len());
        if size != self.slots.len() {
            self.slots = vec![EMPTY; size];
            self.fill();
        }
    }

    /// Puts every state into the slots, which are empty.
    fn fill(&mut self) {
        let (_, bits) = self.split();
        for (index, key) in (0u32..).zip(self.keys.chunks_exact(self.stride)) {
            let hash = hash(key);
            let mut at = self.place(hash);
            while self.slots[at] != EMPTY {
                at += 1;
                if at == self.slots.len() {
                    at = 0;
                }
            }
            self.slots[at] = low(u64::from(hash) << bits) | index;
        }
    }

    /// Gives each state another key, of so many words.
    pub(crate) fn rewrite(&mut self, stride: usize, mut key_of: impl FnMut(&[u64], &mut Vec<u64>)) {
        let mut keys = Vec::with_capacity(self.in_memory() * stride);
        self.keys.chunks_exact(self.stride).for_each(|key| key_of(key, &mut keys));
        (self.keys, self.stride) = (keys, stride);
        self.slots.fill(EMPTY);
        self.fill();
    }

    /// Bytes that it takes once it has room for so many more states.
    pub(crate) fn bytes_with(&self, more: usize) -> u64 {
        let states = self.in_memory() + more;
        let keys = room_for(self.keys.capacity(), states * self.stride);
        (keys * 8 + slots_for(states, self.slots.len()) * 4) as u64 + self.ranks.bytes_with(more)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes_with(0)
    }
}
