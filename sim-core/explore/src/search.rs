//! The search: level by level, each level in rounds, each round in two parts.
//!
//! First chunks of the level's states are expanded, by as many threads as there are models, and the successors of
//! each chunk are laid into a list per shard. Then each shard takes its lists in the order of the chunks. What a
//! chunk is does not depend on the threads, so neither do the states' numbers, the counts, the first way to each
//! goal, or the bound that is met.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::checkpoint::{self, Place};
use crate::decisions::Decisions;
use crate::dictionary::low;
use crate::ends::first_without;
use crate::expand::{Chunk, Worker};
use crate::ranks::BELOW;
use crate::space::{Batch, Found, Space};
use crate::table::{MOST, Round, SHARDS, Shard, id};
use crate::{Bound, Disk, Ends, Explored, Model, Progress, Reached, Search};

/// States of a chunk.
const CHUNK: u32 = 1024;
/// A round expands about this part of the states that are stored: what it finds takes little memory beside them, and
/// is enough for a shard's tables to be brought into the processor's caches for many at once.
const ROUNDS: u32 = 160;
/// Chunks of a round, at least. A search that stops at a goal makes no more than the round in which it is reached.
const LEAST: u32 = 4;
/// Chunks of a round, at most.
const MOST_CHUNKS: u32 = 1 << 10;
/// States that a round expands at least: if the memory is too small for what they lead to, the search ends.
const FEWEST: u32 = 64;
/// The lists of a round take at most this part of the memory.
const LISTS: u64 = 16;
/// The models' own tables take at most this part of the memory. It is set aside whether they need it or not, since
/// what they need depends on the threads; so a search ends by as little short of its memory.
const TABLES: u64 = 40;
/// What the allocator takes for itself: what is free between small blocks, as a part of the memory.
const SLACK: u64 = 128;
/// What the tables of a thread may take however little memory there is.
const LEAST_TABLES: u64 = 256 << 10;
/// Chunks from which on a round is worth the threads.
const WORTH: usize = 3;

/// Cuts the next states of a level, about `most` of them, into chunks, at the ends of blocks.
struct Cutter {
    /// Shard, and the next state of it.
    at: (u32, u32),
}

impl Cutter {
    fn cut(&mut self, shards: &[Shard], most: u32) -> Vec<Chunk> {
        let (mut chunks, mut chunk, mut room, mut left) = (Vec::new(), Chunk::default(), CHUNK, most);
        let mut states = 0;
        while let Some(shard) = shards.get(self.at.0 as usize)
            && left > 0
        {
            let from = self.at.1.max(shard.level.start);
            let whole = (from + room.min(left)).next_multiple_of(BELOW);
            let to = shard.level.end.min(whole);
            if from < to {
                chunk.pieces.push((self.at.0, from, to));
                room = room.saturating_sub(to - from);
                left = left.saturating_sub(to - from);
                states += to - from;
            }
            self.at = if to == shard.level.end { (self.at.0 + 1, 0) } else { (self.at.0, to) };
            if room == 0 {
                let next = Chunk { pieces: Vec::new(), first: states };
                chunks.push(std::mem::replace(&mut chunk, next));
                room = CHUNK;
            }
        }
        if !chunk.pieces.is_empty() {
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
    pub fn run<'m, const W: usize, M: Model<W>>(mut self, models: &'m mut [M]) -> Explored {
        let tables = (self.allowed() / TABLES / models.len() as u64).max(LEAST_TABLES);
        let work = |model: &'m mut M| {
            model.keep_within(tables / 2);
            Worker { model, decisions: Decisions::new(tables / 2), found: Found::default() }
        };
        let disk = self.disk.take();
        let initial = models[0].initial();
        let mut workers: Vec<Worker<'_, M>> = models.iter_mut().map(work).collect();
        let (mut space, mut place) = match begin(disk.as_ref(), &initial) {
            Ok(begun) => begun,
            Err(error) => return Explored::failed(Space::new(&initial), error),
        };
        if self.ends.is_some() && space.len() == 1 {
            space.dead_ends = Some(Vec::new());
        }
        let until = self.limits.time.map(|time| (Instant::now() + time, time));
        let mut goals = Goals::of(std::mem::take(&mut place.reached));
        let mut batches: Vec<Mutex<Batch<W>>> = Vec::new();
        let Place { mut transitions, mut depth, mut expanded, .. } = place;
        let (mut told, had) = (0u64, space.len() - 1);
        let mut cutter = Cutter { at: place.at };
        let (mut bound, mut error) = (None, None);
        let mut saved = Saved { at: Instant::now(), took: Duration::ZERO };
        let whole = loop {
            let states = space.len();
            bound = bound.or(self.bound_met(&space, &batches, states));
            if let (Some(Bound::Memory(_)), Some(disk)) = (bound, &disk)
                && space.can_freeze()
            {
                error = space.freeze(&disk.dir).err();
                bound = None;
                batches.clear();
            }
            if let Some(disk) = disk.as_ref().filter(|disk| saved.is_due(disk)) {
                let place =
                    Place { transitions, expanded, depth, at: cutter.at, reached: goals.reached.clone() };
                error = error.or(saved.save(disk, &space, &place).err());
            }
            bound = bound.or(error.as_ref().map(|_| Bound::Disk));
            if told == 0 || expanded - told >= 1 << 14 {
                told = expanded.max(1);
                if let Some(progress) = &mut self.progress {
                    let memory = in_use(&space, &batches);
                    let expanded = u32::try_from(expanded).unwrap_or(u32::MAX);
                    let (fresh, levels) = (states - had, space.last_levels());
                    progress(Progress { states, expanded, depth, memory, fresh, levels });
                }
            }
            let late = || until.filter(|(end, _)| Instant::now() >= *end).map(|(_, time)| Bound::Time(time));
            bound = bound.or_else(late);
            if bound.is_some() || self.stops(goals.seen) {
                break false;
            }
            // Near a bound the rounds get smaller, so that it is hardly passed.
            let room = self.limits.states.saturating_sub(states);
            let fan = transitions.checked_div(expanded).unwrap_or(1) + 1;
            let few = u32::try_from(u64::from(room) / fan).unwrap_or(u32::MAX);
            let round = (states / ROUNDS).clamp(CHUNK * LEAST, CHUNK * MOST_CHUNKS);
            let most = few.max(self.limits.states / 4096).clamp(1, round);
            let Some(most) = self.most_within(&space, &batches, most, fan) else {
                bound = Some(Bound::Memory(self.limits.memory));
                continue;
            };
            let chunks = cutter.cut(&space.shards, most);
            if chunks.is_empty() {
                if !space.frozen.is_empty()
                    && let Err(failed) = space.settle()
                {
                    error = Some(failed);
                    continue;
                }
                if !space.next_level(expanded) {
                    break true;
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
            let sizes = chunks.iter().flat_map(|c| &c.pieces).map(|(_, from, to)| to - from);
            let sizes: u32 = sizes.sum();
            let noted = if space.dead_ends.is_some() { sizes as usize } else { 0 };
            let round = Round::noting(expanded, noted);
            let parallel = chunks.len() >= WORTH && workers.len() > 1;
            expand(&mut workers, &space, &chunks, &batches, (goals.seen, parallel));
            for batch in &mut batches[..chunks.len()] {
                let Ok(batch) = batch.get_mut() else { continue };
                error = error.or(batch.error.take());
                transitions += batch.transitions;
                for (state, transition, reached) in &batch.goals {
                    goals.note(*reached, *state, *transition, depth + u32::from(transition.is_some()));
                }
            }
            if self.stops(goals.seen) && error.is_none() {
                break false;
            }
            let found = batches[..chunks.len()].iter_mut().filter_map(|batch| batch.get_mut().ok());
            space.take(&mut found.collect::<Vec<_>>(), &round, parallel);
            if let Some(dead_ends) = &mut space.dead_ends {
                dead_ends.extend(in_order(&chunks, round.dead_ends()));
            }
            expanded += u64::from(sizes);
        };
        let memory = in_use(&space, &batches);
        drop(batches);
        let ends = self.ends.filter(|ends| goals.seen & ends.unless == 0);
        let ends = ends.filter(|_| whole && error.is_none() && space.frozen.is_empty());
        let mut asked_ends = false;
        if let Some(Ends { goal, .. }) = ends {
            let interrupted = self.interrupted;
            let late = || match until {
                _ if interrupted.is_some_and(|i| i.load(Ordering::Relaxed)) => Err(Bound::Interrupted),
                Some((end, time)) if Instant::now() >= end => Err(Bound::Time(time)),
                _ => Ok(()),
            };
            match first_without(&mut workers, &space, goal, &late) {
                Ok(first) => {
                    asked_ends = true;
                    goals.reached.extend(first);
                }
                Err(met) => bound = Some(met),
            }
        }
        if let (Some(disk), None) = (&disk, &error) {
            let place = Place { transitions, expanded, depth, at: cutter.at, reached: goals.reached.clone() };
            error = match bound {
                Some(_) => saved.save(disk, &space, &place).err(),
                None => checkpoint::remove(&disk.dir, space.frozen.len()).err(),
            };
        }
        let reached = goals.reached;
        Explored {
            states: Box::new(space),
            transitions,
            depth,
            bound,
            memory,
            reached,
            whole,
            asked_ends,
            error,
        }
    }

    /// Whether it ends once these goals were reached.
    fn stops(&self, seen: u64) -> bool {
        seen & self.stop_at_any != 0 || self.stop_at != 0 && seen & self.stop_at == self.stop_at
    }

    /// What of the memory is for the states and the lists.
    fn memory(&self) -> u64 {
        self.allowed() - self.allowed() / TABLES - self.allowed() / SLACK
    }

    /// What the search may take of the memory.
    fn allowed(&self) -> u64 {
        self.limits.memory - self.limits.beside.min(self.limits.memory / 4)
    }

    /// How many states the next round may expand, at most `most`, so that what it finds keeps within the memory;
    /// none if not even a few do. A state has about `fan` successors.
    fn most_within<const W: usize>(
        &self,
        space: &Space<W>,
        batches: &[Mutex<Batch<W>>],
        most: u32,
        fan: u64,
    ) -> Option<u32> {
        let lists: u64 = batches.iter().filter_map(|b| b.lock().ok().map(|b| b.bytes())).sum();
        // What is found lies in lists first, which should be small beside what is stored.
        let found_bytes = Batch::<W>::bytes_of(space.plan.words);
        let successors = self.allowed() / LISTS / found_bytes;
        let fewest = u64::from(most.min(FEWEST));
        let mut most = u64::from(most).min(successors / fan).max(fewest);
        while most >= fewest {
            let found = most * fan;
            let more =
                usize::try_from(found / SHARDS as u64 + found / SHARDS as u64 / 4 + 4).unwrap_or(usize::MAX);
            let new = usize::try_from(found).unwrap_or(usize::MAX);
            let stored: u64 = space.shards.iter().map(|s| s.bytes_with(more)).sum::<u64>()
                + space.dictionary.bytes_with(new);
            if stored + lists.max(found * found_bytes) <= self.memory() {
                return u32::try_from(most).ok();
            }
            most /= 2;
        }
        None
    }

    fn bound_met<const W: usize>(
        &self,
        space: &Space<W>,
        batches: &[Mutex<Batch<W>>],
        states: u32,
    ) -> Option<Bound> {
        if self.interrupted.is_some_and(|i| i.load(Ordering::Relaxed)) {
            return Some(Bound::Interrupted);
        }
        if states >= self.limits.states || space.shards.iter().any(|s| s.len() >= MOST) {
            return Some(Bound::States(states.min(self.limits.states)));
        }
        (in_use(space, batches) > self.memory()).then_some(Bound::Memory(self.limits.memory))
    }
}

/// Bytes of what is stored and of the lists of a round.
fn in_use<const W: usize>(space: &Space<W>, batches: &[Mutex<Batch<W>>]) -> u64 {
    space.bytes() + batches.iter().filter_map(|b| b.lock().ok().map(|b| b.bytes())).sum::<u64>()
}

/// Expands chunks.
fn expand<const W: usize, M: Model<W>>(
    workers: &mut [Worker<'_, M>],
    space: &Space<W>,
    chunks: &[Chunk],
    batches: &[Mutex<Batch<W>>],
    (noted, parallel): (u64, bool),
) {
    let next = AtomicUsize::new(0);
    let work = |worker: &mut Worker<'_, M>| {
        while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < chunks.len()) {
            if let Ok(mut batch) = batches[at].lock() {
                batch.expand(worker, space, &chunks[at], noted);
            }
        }
    };
    if parallel {
        workers.par_iter_mut().for_each(work);
    } else {
        workers.iter_mut().take(1).for_each(work);
    }
}

/// The numbers of those states of chunks that stand at some places, which go up.
fn in_order(chunks: &[Chunk], places: impl Iterator<Item = usize>) -> impl Iterator<Item = u32> {
    let mut pieces = chunks.iter().flat_map(|chunk| &chunk.pieces);
    let (mut piece, mut before) = (&(0, 0, 0), 0);
    places.map(move |place| {
        loop {
            let at = piece.1 + low((place - before) as u64);
            if at < piece.2 {
                break id(piece.0, at);
            }
            before += (piece.2 - piece.1) as usize;
            match pieces.next() {
                Some(next) => piece = next,
                None => break 0,
            }
        }
    })
}

/// Where a search begins: at the initial state, or where it was when it was written.
fn begin<const W: usize>(disk: Option<&Disk>, initial: &[u64; W]) -> io::Result<(Space<W>, Place)> {
    if let Some(disk) = disk {
        std::fs::create_dir_all(&disk.dir)?;
        if disk.resume
            && let Some(begun) = checkpoint::read(&disk.dir, disk.fingerprint)?
        {
            return Ok(begun);
        }
    }
    Ok((Space::new(initial), Place::default()))
}

/// When the search was written to the disk, and how long that took.
struct Saved {
    at: Instant,
    took: Duration,
}

impl Saved {
    /// Whether it is time to write again: not so often that a search of many states does little else.
    fn is_due(&self, disk: &Disk) -> bool {
        self.at.elapsed() >= disk.every.max(self.took * 10)
    }

    fn save<const W: usize>(&mut self, disk: &Disk, space: &Space<W>, place: &Place) -> io::Result<()> {
        let begun = Instant::now();
        checkpoint::write(&disk.dir, disk.fingerprint, space, place)?;
        *self = Saved { at: Instant::now(), took: begun.elapsed() };
        Ok(())
    }
}

/// The goals reached so far.
#[derive(Default)]
struct Goals {
    seen: u64,
    reached: Vec<Reached>,
}

impl Goals {
    fn of(reached: Vec<Reached>) -> Self {
        Goals { seen: reached.iter().fold(0, |seen, r| seen | 1 << r.goal), reached }
    }

    fn note(&mut self, goals: u64, state: u32, transition: Option<u32>, depth: u32) {
        let mut fresh = goals & !self.seen;
        self.seen |= fresh;
        while fresh != 0 {
            self.reached.push(Reached { goal: fresh.trailing_zeros(), state, transition, depth });
            fresh &= fresh - 1;
        }
    }
}
