//! The visited states of one shard: their keys in the order in which they were found, and slots that find them.
//!
//! A state's number is its place in its shard and the shard's number: states get their numbers in an order that
//! does not depend on who inserts which shard when.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::dictionary::{high, low, zobrist};
use crate::pages::{PER, Pages};
use crate::ranks::Ranks;

/// Bits of a state's number that name its shard. How many shards there are is part of the order of states, and so
/// never depends on the machine.
pub(crate) const SHARD_BITS: u32 = 8;
pub(crate) const SHARDS: usize = 1 << SHARD_BITS;
/// The number of a shard.
pub(crate) type ShardNumber = u8;
const _: () = assert!(SHARD_BITS == ShardNumber::BITS);

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

/// What is common to the states that a round found.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// States expanded before it.
    pub(crate) before: u64,
    /// Of the states that it expands, those from which a step leads to the next level; none are noted if the list is
    /// empty.
    leads_on: Vec<AtomicBool>,
}

impl Round {
    /// A round in which it is noted which of so many states lead on.
    pub(crate) fn noting(before: u64, states: usize) -> Self {
        Round { before, leads_on: (0..states).map(|_| AtomicBool::new(false)).collect() }
    }

    #[inline]
    fn leads_on(&self, rank: u32) {
        if let Some(noted) = self.leads_on.get(rank as usize) {
            noted.store(true, Ordering::Relaxed);
        }
    }

    /// Of the states that it expanded, those from which no step leads to the next level.
    pub(crate) fn dead_ends(&self) -> impl Iterator<Item = usize> {
        let leads_on = self.leads_on.iter().enumerate();
        leads_on.filter(|(_, noted)| !noted.load(Ordering::Relaxed)).map(|(rank, _)| rank)
    }
}

/// One shard. A slot holds a state's place among the keys below and as many bits of its hash above as there is room
/// for.
#[derive(Debug)]
pub(crate) struct Shard {
    /// Words of a key.
    stride: usize,
    /// Of the states in memory.
    pub(crate) keys: Pages<u64>,
    /// The first state in memory: those before it are on the disk.
    pub(crate) first: u32,
    slots: Pages<u32>,
    /// From which state each was first reached.
    pub(crate) ranks: Ranks,
    /// The states of the level that is being expanded.
    pub(crate) level: std::ops::Range<u32>,
}

const EMPTY: u32 = u32::MAX;

/// Slots of a table at first.
const FEWEST: usize = 1 << 4;

/// Slots for so many states, of a table that has some: more than five in six are never taken. A table larger than a page
/// grows by an eighth, in whole pages.
fn slots_for(states: usize, slots: usize) -> usize {
    let mut size = slots;
    while states * 6 > size * 5 {
        size = if size < PER { size * 2 } else { (size / PER + (size / PER).div_ceil(8)) * PER };
    }
    size
}

impl Shard {
    pub(crate) fn new(stride: usize) -> Self {
        let mut shard = Shard {
            stride,
            keys: Pages::new(stride),
            first: 0,
            slots: Pages::new(1),
            ranks: Ranks::new(),
            level: 0..0,
        };
        shard.slots.fill(FEWEST, &[EMPTY]);
        shard
    }

    /// States stored.
    #[inline]
    pub(crate) fn len(&self) -> u32 {
        self.ranks.len()
    }

    /// The key of a state in memory.
    #[inline]
    pub(crate) fn key(&self, index: u32) -> &[u64] {
        self.keys.get((index - self.first) as usize)
    }

    /// Forgets the states in memory, which were put on the disk.
    pub(crate) fn freeze(&mut self) {
        self.first = self.len();
        (self.keys, self.slots) = (Pages::new(self.stride), Pages::new(1));
        self.slots.fill(FEWEST, &[EMPTY]);
    }

    /// Takes out those states, from `from` on, that are marked.
    pub(crate) fn remove(&mut self, from: u32, marked: &[bool]) {
        let kept: Vec<u64> =
            self.ranks.from(from).zip(marked).filter(|m| !m.1).map(|(rank, _)| rank).collect();
        let start = (from - self.first) as usize;
        let mut end = start;
        for (at, _) in marked.iter().enumerate().filter(|m| !m.1) {
            self.keys.put_back(start + at, end);
            end += 1;
        }
        self.keys.truncate(end);
        self.ranks.truncate(from);
        kept.into_iter().for_each(|rank| self.ranks.push(rank));
        self.fill_slots(self.slots.len());
    }

    /// A shard with states that were written before: their keys, of those in memory, and their ranks.
    pub(crate) fn of(stride: usize, keys: &[u64], ranks: Ranks) -> Self {
        let mut shard = Shard::new(stride);
        let states = keys.len() / stride;
        shard.first = ranks.len().saturating_sub(u32::try_from(states).unwrap_or(u32::MAX));
        shard.keys.reserve(states);
        keys.chunks_exact(stride).for_each(|key| shard.keys.push(key));
        shard.ranks = ranks;
        shard.fill_slots(slots_for(states, shard.slots.len()));
        shard
    }

    /// Stores those of some states that are new, in order: their keys, and which state of those that the round expands
    /// each was found from. `hashes` is room for them.
    pub(crate) fn insert(&mut self, found: (&[u64], &[u32]), round: &Round, hashes: &mut Vec<u32>) {
        match self.stride {
            1 => self.insert_all::<1>(found, round, hashes),
            2 => self.insert_all::<2>(found, round, hashes),
            _ => self.insert_all::<0>(found, round, hashes),
        }
    }

    /// `K` is the words of a key, or 0 if they are more than two.
    fn insert_all<const K: usize>(
        &mut self,
        (keys, ranks): (&[u64], &[u32]),
        round: &Round,
        hashes: &mut Vec<u32>,
    ) {
        let stride = if K == 0 { self.stride } else { K };
        self.grow(ranks.len());
        // Independent loads first, whose misses overlap: the slots, then the keys that they lead to.
        hashes.clear();
        let mut touched = 0u64;
        for key in keys.chunks_exact(stride) {
            let hash = hash(key);
            touched ^= u64::from(self.slot(self.place(hash)));
            hashes.push(hash);
        }
        let tags = self.tags();
        for hash in &*hashes {
            if let Ok((_, state)) = self.lookup(*hash, self.place(*hash), tags) {
                touched ^= self.keys.first_of(state, stride);
            }
        }
        std::hint::black_box(touched);
        // States of the next level lie behind those of this one.
        let next = self.level.end.saturating_sub(self.first);
        for ((key, rank), hash) in keys.chunks_exact(stride).zip(ranks).zip(&*hashes) {
            let state = self.insert_one(key, *hash, round.before + u64::from(*rank), (stride, tags));
            if state >= next {
                round.leads_on(*rank);
            }
        }
    }

    /// Reads it from its beginning to its end, which brings it into the processor's caches sooner than what is asked for
    /// does: worth while for at least this many states that are to be inserted.
    pub(crate) fn warm(&self) -> u64 {
        let slots =
            self.slots.pages().flat_map(|page| page.iter().step_by(16)).fold(0, |all, slot| all ^ slot);
        let keys = self.keys.pages().flat_map(|page| page.iter().step_by(8)).fold(0, |all, word| all ^ word);
        keys ^ u64::from(slots)
    }

    /// The place of a key among the states in memory.
    pub(crate) fn find(&self, key: &[u64]) -> Option<u32> {
        let (hash, tags) = (hash(key), self.tags());
        let mut from = self.place(hash);
        while let Ok((at, state)) = self.lookup(hash, from, tags) {
            if self.keys.get(state) == key {
                return u32::try_from(state).ok();
            }
            from = self.next(at);
        }
        None
    }

    /// The bits of a slot that are a place, and how far the bits of a hash lie above them.
    #[inline]
    fn tags(&self) -> (u32, u32) {
        let bits = usize::BITS - self.slots.len().leading_zeros();
        (low((1 << bits) - 1), bits)
    }

    #[inline]
    fn place(&self, hash: u32) -> usize {
        low((u64::from(hash) * self.slots.len() as u64) >> 32) as usize
    }

    #[inline]
    fn slot(&self, at: usize) -> u32 {
        self.slots.first_of(at, 1)
    }

    /// The first state of a hash's tag from a slot on, or the slot that is empty.
    #[inline]
    fn lookup(&self, hash: u32, mut at: usize, (index, bits): (u32, u32)) -> Result<(usize, usize), usize> {
        let tag = low(u64::from(hash) << bits);
        loop {
            let slot = self.slot(at);
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
    fn insert_one(
        &mut self,
        key: &[u64],
        hash: u32,
        rank: u64,
        (stride, (index, bits)): (usize, (u32, u32)),
    ) -> u32 {
        let mut from = self.place(hash);
        let vacant = loop {
            match self.lookup(hash, from, (index, bits)) {
                Ok((at, state)) => {
                    let stored = self.keys.get_of(state, stride);
                    if stored.iter().zip(key).fold(0, |d, (a, b)| d | (a ^ b)) == 0 {
                        return low(state as u64);
                    }
                    from = self.next(at);
                }
                Err(at) => break at,
            }
        };
        let state = self.len() - self.first;
        self.slots.get_mut(vacant)[0] = low(u64::from(hash) << bits) | state;
        self.keys.push(key);
        self.ranks.push(rank);
        state
    }

    /// Makes room for so many more states.
    fn grow(&mut self, more: usize) {
        self.keys.reserve(more);
        self.ranks.reserve(more);
        let size = slots_for(self.keys.len() + more, self.slots.len());
        if size != self.slots.len() {
            self.fill_slots(size);
        }
    }

    /// Puts every state into so many slots.
    fn fill_slots(&mut self, size: usize) {
        self.slots.fill(size, &[EMPTY]);
        let (_, bits) = self.tags();
        for (index, key) in (0u32..).zip(self.keys.records()) {
            let hash = hash(key);
            let mut at = self.place(hash);
            while self.slots.first_of(at, 1) != EMPTY {
                at += 1;
                if at == self.slots.len() {
                    at = 0;
                }
            }
            self.slots.get_mut(at)[0] = low(u64::from(hash) << bits) | index;
        }
    }

    /// Gives each state another key, of so many words.
    pub(crate) fn rewrite(&mut self, stride: usize, mut key_of: impl FnMut(&[u64], &mut Vec<u64>)) {
        let mut keys = Pages::new(stride);
        keys.reserve(self.keys.len());
        let mut renewed = Vec::new();
        for key in self.keys.records() {
            renewed.clear();
            key_of(key, &mut renewed);
            keys.push(&renewed);
        }
        (self.keys, self.stride) = (keys, stride);
        self.fill_slots(self.slots.len());
    }

    /// Bytes that it takes once it has room for so many more states.
    pub(crate) fn bytes_with(&self, more: usize) -> u64 {
        let slots = slots_for(self.keys.len() + more, self.slots.len());
        self.keys.bytes_with(more)
            + self.slots.bytes_with(slots - self.slots.len())
            + self.ranks.bytes_with(more)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes_with(0)
    }
}
