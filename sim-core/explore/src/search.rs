//! The search: level by level, each level in rounds, each round in two parts.
//!
//! First chunks of the level's states are expanded, by as many threads as there are models, and the successors of
//! each chunk are laid into a list per shard. Then each shard takes its lists in the order of the chunks. What a
//! chunk is does not depend on the threads, so neither do the states' numbers, the counts, the first way to each
//! goal, or the bound that is met.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rayon::prelude::*;

use crate::table::{Found, SHARDS, Shard, hash, id, length};
use crate::{Bound, Explored, Model, Progress, Reached, Search, Stored};

/// States of a chunk.
const CHUNK: u32 = 1024;
/// Chunks of a round.
const ROUND: u32 = 256;
/// States that a round expands at least: if the memory is too small for what they lead to, the search ends.
const FEWEST: u32 = 64;
/// The lists of a round take at most this part of the memory.
const LISTS: u64 = 16;
/// Chunks from which on a round is worth the threads.
const WORTH: usize = 3;

/// What the expansion of a chunk found.
struct Batch<const W: usize> {
    by_shard: Vec<Vec<Found<W>>>,
    /// Goals reached: state, transition that reached it (none for the state itself), goals.
    goals: Vec<(u32, Option<u32>, u64)>,
    transitions: u64,
}

impl<const W: usize> Batch<W> {
    fn new() -> Self {
        Batch { by_shard: vec![Vec::new(); SHARDS], goals: Vec::new(), transitions: 0 }
    }

    fn bytes(&self) -> u64 {
        let found: usize = self.by_shard.iter().map(Vec::capacity).sum();
        (found * size_of::<Found<W>>()) as u64
    }

    /// Expands states.
    fn expand<M: Model<W>>(&mut self, model: &mut M, shards: &[Shard<W>], pieces: &[(u32, u32, u32)]) {
        self.by_shard.iter_mut().for_each(Vec::clear);
        self.goals.clear();
        self.transitions = 0;
        for (shard, from, to) in pieces {
            for index in *from..*to {
                let state = id(*shard, index);
                let mut number = 0u32;
                let own = model.expand(&shards[*shard as usize].states[index as usize], |next, goals| {
                    let (to, tag) = hash(next);
                    self.by_shard[to].push(Found { state: *next, tag, from: (state, number) });
                    if goals != 0 {
                        self.goals.push((state, Some(number), goals));
                    }
                    number += 1;
                });
                self.transitions += u64::from(number);
                if own != 0 {
                    self.goals.push((state, None, own));
                }
            }
        }
    }
}

/// Cuts the next states of a level, at most `most` of them, into chunks: for each its pieces of shards.
struct Cutter {
    /// Shard, and the next state of it.
    at: (u32, u32),
}

impl Cutter {
    fn cut<const W: usize>(&mut self, shards: &[Shard<W>], most: u32) -> Vec<Vec<(u32, u32, u32)>> {
        let (mut chunks, mut chunk, mut room, mut left) = (Vec::new(), Vec::new(), CHUNK, most);
        while let Some(shard) = shards.get(self.at.0 as usize)
            && left > 0
        {
            let from = self.at.1.max(shard.level.start);
            let to = shard.level.end.min(from + room.min(left));
            if from < to {
                chunk.push((self.at.0, from, to));
                room -= to - from;
                left -= to - from;
            }
            self.at = if to == shard.level.end { (self.at.0 + 1, 0) } else { (self.at.0, to) };
            if room == 0 {
                chunks.push(std::mem::take(&mut chunk));
                room = CHUNK;
            }
        }
        if !chunk.is_empty() {
            chunks.push(chunk);
        }
        chunks
    }
}

impl Search<'_> {
    /// Explores, with a thread for each of the models, which must be alike.
    ///
    /// # Panics
    ///
    /// If there is no model.
    pub fn run<const W: usize, M: Model<W>>(mut self, models: &mut [M]) -> Explored {
        let mut shards: Vec<Shard<W>> = (0..SHARDS).map(|_| Shard::new()).collect();
        let initial = models[0].initial();
        let (shard, tag) = hash(&initial);
        let until = self.limits.time.map(|time| (Instant::now() + time, time));
        shards[shard].insert(&[Found { state: initial, tag, from: (0, 0) }]);
        shards[shard].level = 0..1;
        let root = id(u32::try_from(shard).unwrap_or(0), 0);
        let mut goals = Goals::default();
        let mut batches: Vec<Mutex<Batch<W>>> = Vec::new();
        let (mut transitions, mut depth, mut expanded, mut told) = (0u64, 0u32, 0u64, 0u64);
        let mut cutter = Cutter { at: (0, 0) };
        let mut bound = None;
        loop {
            let states: u32 = shards.iter().fold(0, |n, s| n + length(&s.states));
            bound = bound.or(self.bound_met(&shards, &batches, states));
            if told == 0 || expanded - told >= 1 << 14 {
                told = expanded.max(1);
                if let Some(progress) = &mut self.progress {
                    let memory = in_use(&shards, &batches);
                    let expanded = u32::try_from(expanded).unwrap_or(u32::MAX);
                    progress(Progress { states, expanded, depth, memory });
                }
            }
            let late = || until.filter(|(end, _)| Instant::now() >= *end).map(|(_, time)| Bound::Time(time));
            bound = bound.or_else(late);
            let any = goals.seen & self.stop_at_any != 0;
            if bound.is_some() || any || self.stop_at != 0 && goals.seen & self.stop_at == self.stop_at {
                break;
            }
            // Near a bound the rounds get smaller, so that it is hardly passed.
            let room = self.limits.states.saturating_sub(states);
            let fan = transitions.checked_div(expanded).unwrap_or(1) + 1;
            let few = u32::try_from(u64::from(room) / fan).unwrap_or(u32::MAX);
            let most = few.max(self.limits.states / 4096).clamp(1, CHUNK * ROUND);
            let Some(most) = self.most_within(&shards, &batches, most, fan) else {
                bound = Some(Bound::Memory(self.limits.memory));
                continue;
            };
            let chunks = cutter.cut(&shards, most);
            if chunks.is_empty() {
                let mut last = true;
                for shard in &mut shards {
                    shard.level = shard.level.end..length(&shard.states);
                    last &= shard.level.is_empty();
                }
                if last {
                    break;
                }
                depth += 1;
                cutter.at = (0, 0);
                if depth >= self.limits.depth {
                    bound = Some(Bound::Depth(self.limits.depth));
                }
                continue;
            }
            while batches.len() < chunks.len() {
                batches.push(Mutex::new(Batch::new()));
            }
            round(models, &mut shards, &chunks, &mut batches);
            for batch in &mut batches[..chunks.len()] {
                let Ok(batch) = batch.get_mut() else { continue };
                transitions += batch.transitions;
                for (state, transition, reached) in &batch.goals {
                    goals.note(*reached, *state, *transition, depth + u32::from(transition.is_some()));
                }
            }
            let sizes = chunks.iter().flatten().map(|(_, from, to)| u64::from(to - from));
            expanded += sizes.sum::<u64>();
        }
        let memory = in_use(&shards, &batches);
        let store = |s: Shard<W>| Stored { states: s.states.into_flattened(), came_from: s.came_from };
        Explored {
            shards: shards.into_iter().map(store).collect(),
            words: W,
            root,
            transitions,
            depth,
            bound,
            memory,
            reached: goals.reached,
        }
    }

    /// How many states the next round may expand, at most `most`, so that what it finds keeps within the memory;
    /// none if not even a few do. A state has about `fan` successors.
    fn most_within<const W: usize>(
        &self,
        shards: &[Shard<W>],
        batches: &[Mutex<Batch<W>>],
        most: u32,
        fan: u64,
    ) -> Option<u32> {
        let lists: u64 = batches.iter().filter_map(|b| b.lock().ok().map(|b| b.bytes())).sum();
        // What is found lies in lists first, which should be small beside what is stored.
        let successors = self.limits.memory / LISTS / size_of::<Found<W>>() as u64;
        let fewest = u64::from(most.min(FEWEST));
        let mut most = u64::from(most).min(successors / fan).max(fewest);
        while most >= fewest {
            let found = most * fan;
            let more =
                usize::try_from(found / SHARDS as u64 + found / SHARDS as u64 / 4 + 4).unwrap_or(usize::MAX);
            let stored: u64 = shards.iter().map(|s| s.bytes_with(more)).sum();
            if stored + lists.max(found * size_of::<Found<W>>() as u64) <= self.limits.memory {
                return u32::try_from(most).ok();
            }
            most /= 2;
        }
        None
    }

    fn bound_met<const W: usize>(
        &self,
        shards: &[Shard<W>],
        batches: &[Mutex<Batch<W>>],
        states: u32,
    ) -> Option<Bound> {
        if self.interrupted.is_some_and(|i| i.load(Ordering::Relaxed)) {
            return Some(Bound::Interrupted);
        }
        if states >= self.limits.states || shards.iter().any(Shard::full) {
            return Some(Bound::States(states.min(self.limits.states)));
        }
        let memory = in_use(shards, batches);
        (memory > self.limits.memory).then_some(Bound::Memory(self.limits.memory))
    }
}

/// Bytes of what is stored and of the lists of a round.
fn in_use<const W: usize>(shards: &[Shard<W>], batches: &[Mutex<Batch<W>>]) -> u64 {
    let lists = batches.iter().filter_map(|b| b.lock().ok().map(|b| b.bytes()));
    shards.iter().map(Shard::bytes).sum::<u64>() + lists.sum::<u64>()
}

/// Expands chunks and stores what they found.
fn round<const W: usize, M: Model<W>>(
    models: &mut [M],
    shards: &mut [Shard<W>],
    chunks: &[Vec<(u32, u32, u32)>],
    batches: &mut [Mutex<Batch<W>>],
) {
    if chunks.len() < WORTH || models.len() < 2 {
        for (pieces, batch) in chunks.iter().zip(batches) {
            let Ok(batch) = batch.get_mut() else { continue };
            batch.expand(&mut models[0], shards, pieces);
            for (shard, found) in shards.iter_mut().zip(&batch.by_shard) {
                shard.insert(found);
            }
        }
        return;
    }
    let next = AtomicUsize::new(0);
    let (told, shared) = (&*batches, &*shards);
    models.par_iter_mut().for_each(|model| {
        while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < chunks.len()) {
            if let Ok(mut batch) = told[at].lock() {
                batch.expand(model, shared, &chunks[at]);
            }
        }
    });
    let mut lists: Vec<&Batch<W>> = Vec::new();
    for batch in &mut batches[..chunks.len()] {
        lists.extend(batch.get_mut().ok().map(|b| &*b));
    }
    shards.par_iter_mut().enumerate().for_each(|(at, shard)| {
        for batch in &lists {
            shard.insert(&batch.by_shard[at]);
        }
    });
}

/// The goals reached so far.
#[derive(Default)]
struct Goals {
    seen: u64,
    reached: Vec<Reached>,
}

impl Goals {
    fn note(&mut self, goals: u64, state: u32, transition: Option<u32>, depth: u32) {
        let mut fresh = goals & !self.seen;
        self.seen |= fresh;
        while fresh != 0 {
            self.reached.push(Reached { goal: fresh.trailing_zeros(), state, transition, depth });
            fresh &= fresh - 1;
        }
    }
}
