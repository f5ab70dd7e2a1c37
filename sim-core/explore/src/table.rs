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

/// Whether two keys are the same.
#[inline]
fn alike(one: &[u64], other: &[u64]) -> bool {
    one.iter().zip(other).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
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

/// Slots of a group, which are compared with a hash together: a line of the processor's caches.
const LANES: usize = 16;
type Group = [u32; LANES];

/// One shard. A slot holds a state's place among the keys below and as many bits of its hash above as there is room
/// for. A state is in the group that its hash names, or, where that is full, in the next one that is not.
#[derive(Debug)]
pub(crate) struct Shard {
    /// Words of a key.
    stride: usize,
    /// Of the states in memory.
    pub(crate) keys: Pages<u64>,
    /// The first state in memory: those before it are on the disk.
    pub(crate) first: u32,
    /// Groups of slots; those of a group are taken from the first on.
    slots: Pages<u32>,
    /// From which state each was first reached.
    pub(crate) ranks: Ranks,
    /// The states of the level that is being expanded.
    pub(crate) level: std::ops::Range<u32>,
}

const EMPTY: u32 = u32::MAX;

/// States that are looked up together, so that one need not wait for what another one waits for.
const TOGETHER: usize = 64;

/// No place among the keys.
const NONE: u32 = u32::MAX;

/// Groups for so many states, of a table that has some: more than seven slots in eight are never taken. A table larger
/// than a page grows by an eighth, in whole pages.
fn groups_for(states: usize, groups: usize) -> usize {
    const PAGE: usize = PER / LANES;
    let mut size = groups;
    while states * 8 > size * LANES * 7 {
        size = if size < PAGE { size * 2 } else { (size / PAGE + (size / PAGE).div_ceil(8)) * PAGE };
    }
    size
}

/// Which bits of a slot are a place.
#[derive(Clone, Copy)]
struct Tags {
    /// The bits that are a place.
    index: u32,
    /// How many they are.
    bits: u32,
}

impl Tags {
    #[inline]
    fn of(self, hash: u32) -> u32 {
        low(u64::from(hash) << self.bits)
    }

    /// Whether a slot is of a hash's tag.
    #[inline]
    fn is(self, slot: u32, tag: u32) -> bool {
        (slot ^ tag) & !self.index == 0
    }

    /// The place in the slot of a group that has a tag; [`NONE`] if none has it. If several have, it is one that none
    /// of them need have, but not above all of theirs.
    #[inline]
    fn place_in(self, group: &Group, tag: u32) -> u32 {
        let found = group.iter().fold(0, |all, slot| all | if self.is(*slot, tag) { !slot } else { 0 });
        if found == 0 { NONE } else { !found & self.index }
    }
}

/// How many slots of a group are taken.
#[inline]
fn taken(group: &Group) -> usize {
    LANES - group.iter().map(|slot| u32::from(*slot == EMPTY)).sum::<u32>() as usize
}

impl Shard {
    pub(crate) fn new(stride: usize) -> Self {
        let mut shard = Shard {
            stride,
            keys: Pages::new(stride),
            first: 0,
            slots: Pages::new(LANES),
            ranks: Ranks::new(),
            level: 0..0,
        };
        shard.slots.fill(1, &[EMPTY; LANES]);
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
        (self.keys, self.slots) = (Pages::new(self.stride), Pages::new(LANES));
        self.slots.fill(1, &[EMPTY; LANES]);
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
        shard.fill_slots(groups_for(states, shard.slots.len()));
        shard
    }

    /// Stores those of some states that are new, in order: their keys, and which state each was found from of those that the
    /// round expands, of which so many come first.
    pub(crate) fn insert(&mut self, (keys, ranks): (&[u64], &[u16]), round: &Round, first: u32) {
        for (keys, ranks) in keys.chunks(TOGETHER * self.stride).zip(ranks.chunks(TOGETHER)) {
            match self.stride {
                1 => self.insert_some::<1>((keys, ranks), round, first),
                2 => self.insert_some::<2>((keys, ranks), round, first),
                _ => self.insert_some::<0>((keys, ranks), round, first),
            }
        }
    }

    /// `K` is the words of a key, or 0 if they are more than two.
    fn insert_some<const K: usize>(&mut self, (keys, ranks): (&[u64], &[u16]), round: &Round, first: u32) {
        let stride = if K == 0 { self.stride } else { K };
        self.grow(ranks.len());
        let tags = self.tags();
        // Independent loads first, whose misses overlap: the groups, then the keys that they lead to.
        let (mut hashes, mut places) = ([0; TOGETHER], [NONE; TOGETHER]);
        for (key, hash_of) in keys.chunks_exact(stride).zip(&mut hashes) {
            *hash_of = hash(key);
        }
        for (hash, place) in hashes[..ranks.len()].iter().zip(&mut places) {
            *place = tags.place_in(self.group(self.home(*hash)), tags.of(*hash));
        }
        // States of the next level lie behind those of this one.
        let next = self.level.end.saturating_sub(self.first);
        let found = keys.chunks_exact(stride).zip(ranks).zip(hashes.iter().zip(&places));
        for ((key, rank), (hash, place)) in found {
            let rank = first + u32::from(*rank);
            let is_known = *place != NONE && alike(self.keys.get_of(*place as usize, stride), key);
            let state = if is_known {
                *place
            } else {
                self.insert_one::<K>(key, *hash, round.before + u64::from(rank))
            };
            if state >= next {
                round.leads_on(rank);
            }
        }
    }

    /// Reads it from its beginning to its end, which brings it into the processor's caches sooner than what is asked for
    /// does: worth while for at least this many states that are to be inserted.
    pub(crate) fn warm(&self) -> u64 {
        let slots =
            self.slots.pages().flat_map(|page| page.as_chunks::<LANES>().0).fold(0, |all, g| all ^ g[0]);
        let keys =
            self.keys.pages().flat_map(|page| page.as_chunks::<8>().0).fold(0, |all, line| all ^ line[0]);
        keys ^ u64::from(slots)
    }

    /// The place of a key among the states in memory.
    pub(crate) fn find(&self, key: &[u64]) -> Option<u32> {
        match self.stride {
            1 => self.locate::<1>(key, hash(key)).ok(),
            _ => self.locate::<0>(key, hash(key)).ok(),
        }
    }

    #[inline]
    fn tags(&self) -> Tags {
        let bits = usize::BITS - (self.slots.len() * LANES).leading_zeros();
        Tags { index: low((1 << bits) - 1), bits }
    }

    /// The group that a hash names.
    #[inline]
    fn home(&self, hash: u32) -> usize {
        low((u64::from(hash) * self.slots.len() as u64) >> 32) as usize
    }

    #[inline]
    fn group(&self, at: usize) -> &Group {
        self.slots.get_of(at, LANES).first_chunk().unwrap_or(&[EMPTY; LANES])
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// The place of a key among the states in memory, or the group and the slot in it that it would have.
    fn locate<const K: usize>(&self, key: &[u64], hash: u32) -> Result<u32, (usize, usize)> {
        let stride = if K == 0 { self.stride } else { K };
        let (tags, mut at) = (self.tags(), self.home(hash));
        let tag = tags.of(hash);
        loop {
            let group = self.group(at);
            if tags.place_in(group, tag) != NONE {
                let places = group.iter().filter(|slot| tags.is(**slot, tag) && **slot != EMPTY);
                for place in places.map(|slot| slot & tags.index) {
                    if alike(self.keys.get_of(place as usize, stride), key) {
                        return Ok(place);
                    }
                }
            }
            let vacant = taken(group);
            if vacant < LANES {
                return Err((at, vacant));
            }
            at = self.next(at);
        }
    }

    /// Stores a state for which there is room if it is not there; its place.
    fn insert_one<const K: usize>(&mut self, key: &[u64], hash: u32, rank: u64) -> u32 {
        match self.locate::<K>(key, hash) {
            Ok(state) => state,
            Err((group, slot)) => {
                let state = self.len() - self.first;
                self.slots.get_mut_of(group, LANES)[slot] = self.tags().of(hash) | state;
                self.keys.push(key);
                self.ranks.push(rank);
                state
            }
        }
    }

    /// Makes room for so many more states.
    fn grow(&mut self, more: usize) {
        self.keys.reserve(more);
        self.ranks.reserve(more);
        let size = groups_for(self.keys.len() + more, self.slots.len());
        if size != self.slots.len() {
            self.fill_slots(size);
        }
    }

    /// Puts every state into so many groups.
    fn fill_slots(&mut self, groups: usize) {
        self.slots.fill(groups, &[EMPTY; LANES]);
        let tags = self.tags();
        for (index, key) in (0u32..).zip(self.keys.records()) {
            let hash = hash(key);
            let mut at = self.home(hash);
            let mut vacant = taken(self.group(at));
            while vacant == LANES {
                at = self.next(at);
                vacant = taken(self.group(at));
            }
            self.slots.get_mut_of(at, LANES)[vacant] = tags.of(hash) | index;
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
        let slots = groups_for(self.keys.len() + more, self.slots.len());
        self.keys.bytes_with(more)
            + self.slots.bytes_with(slots - self.slots.len())
            + self.ranks.bytes_with(more)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes_with(0)
    }
}
