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
use crate::decisions::{Decisions, NOTHING, WIDEST};
use crate::dictionary::Plan;
use crate::ranks::BELOW;
use crate::space::{Batch, Space, Unknown};
use crate::table::{MOST, SHARDS, Shard, id, index_of, moved, record, shard_of};
use crate::{Bound, Disk, Explored, Model, Progress, Reached, Search};

/// States of a chunk.
const CHUNK: u32 = 1024;
/// A round expands about this part of the states that are stored: what it finds takes little memory beside them, and
/// is enough for a shard's tables to be brought into the processor's caches for many at once.
const ROUNDS: u32 = 64;
/// Chunks of a round, at least.
const LEAST: u32 = 32;
/// Chunks of a round, at most.
const MOST_CHUNKS: u32 = 1 << 10;
/// States that a round expands at least: if the memory is too small for what they lead to, the search ends.
const FEWEST: u32 = 64;
/// The lists of a round take at most this part of the memory.
const LISTS: u64 = 16;
/// The models' own tables take at most this part of the memory. It is set aside whether they need it or not, since
/// what they need depends on the threads; so a search ends by as little short of its memory.
const TABLES: u64 = 40;
/// What the allocator takes for itself: ends of pages, and what is free between small blocks. A part of the memory, from
/// measurements at 100 MiB; of more memory it is less.
const SLACK: u64 = 64;
/// What the tables of a thread may take however little memory there is.
const LEAST_TABLES: u64 = 256 << 10;
/// Chunks from which on a round is worth the threads.
const WORTH: usize = 3;

/// Who expands states: a model, and what was learned of it.
struct Worker<'m, M> {
    model: &'m mut M,
    decisions: Decisions,
}

/// Where a state stands that is expanded.
#[derive(Clone, Copy)]
struct From {
    /// Its number.
    id: u32,
    /// Which it is of those that its round expands.
    rank: u64,
}

impl From {
    /// The state so many after it in its shard.
    #[inline]
    fn after(self, states: usize) -> From {
        let shard = u32::try_from(shard_of(self.id)).unwrap_or(0);
        let next = index_of(self.id) + u32::try_from(states).unwrap_or(0);
        From { id: id(shard, next), rank: self.rank + states as u64 }
    }
}

/// States that are expanded together: first all steps of one actor, then those of the next, for what is known of an
/// actor lies together in the processor's caches.
struct Block<const K: usize> {
    /// The first, which the others follow in its shard.
    from: From,
    states: usize,
    keys: [[u64; K]; BLOCK],
    /// Which of the first 64 actors may step.
    may: [u64; BLOCK],
    /// Transitions, and [`PROGRESS`] if somebody made progress.
    made: [u32; BLOCK],
}

/// States of a block. Ranks go down by less than this.
const BLOCK: usize = BELOW as usize;
/// A bit that no number of transitions has.
const PROGRESS: u32 = 1 << 31;

impl<const W: usize> Batch<W> {
    /// Expands the states of a chunk. Goals that are `noted` need not be told again.
    fn expand<M: Model<W>>(
        &mut self,
        worker: &mut Worker<'_, M>,
        space: &Space<W>,
        chunk: &Chunk,
        noted: u64,
    ) {
        self.clear();
        self.noted = noted;
        let actors = worker.model.actors();
        worker.decisions.begin(actors, space.plans);
        let words = if space.plan.is_numbers() { space.plan.words } else { W };
        let told = match words {
            _ if actors == 0 => self.expand_states(worker.model, space, chunk),
            1 => self.expand_blocks::<1, M>(worker, space, chunk),
            2 => self.expand_blocks::<2, M>(worker, space, chunk),
            3 => self.expand_blocks::<3, M>(worker, space, chunk),
            WIDEST => self.expand_blocks::<WIDEST, M>(worker, space, chunk),
            // Too wide for trees: the model is asked.
            _ => self.expand_blocks::<W, M>(worker, space, chunk),
        };
        self.error = told.err();
    }

    /// Expands states block by block, each by what each actor was seen to do.
    fn expand_blocks<const K: usize, M: Model<W>>(
        &mut self,
        worker: &mut Worker<'_, M>,
        space: &Space<W>,
        chunk: &Chunk,
    ) -> io::Result<()> {
        let (plan, words) = (&space.plan, space.plan.words);
        let mut block = Block::<K> {
            from: From { id: 0, rank: 0 },
            states: 0,
            keys: [[0; K]; BLOCK],
            may: [0; BLOCK],
            made: [0; BLOCK],
        };
        chunk.each_run(space, |keys, written, first, last| {
            for (at, stored) in keys.chunks_exact(written.words).enumerate() {
                let from = first.after(at);
                if block.states == 0 {
                    block.from = from;
                }
                let key = &mut block.keys[block.states];
                if written == plan {
                    key[..words].copy_from_slice(stored);
                } else {
                    let state = written.decode(&space.dictionary, stored);
                    key[..words]
                        .copy_from_slice(&plan.encode(&space.dictionary, &state).unwrap_or([0; W])[..words]);
                }
                block.states += 1;
                // Which states make a block depends on their places alone, for so does the order of what is found.
                if block.states == BLOCK || index_of(from.id) % BELOW == BELOW - 1 || from.id == last {
                    self.expand_block(worker, space, &mut block);
                    block.states = 0;
                }
            }
        })
    }

    fn expand_block<const K: usize, M: Model<W>>(
        &mut self,
        worker: &mut Worker<'_, M>,
        space: &Space<W>,
        block: &mut Block<K>,
    ) {
        let states = block.states;
        worker.decisions.may_step(&block.keys[..states], &mut block.may[..states]);
        block.made[..states].fill(0);
        for actor in 0..worker.model.actors() {
            self.step_all(worker, space, actor, block);
        }
        for (at, made) in block.made[..states].iter().enumerate() {
            self.transitions += u64::from(made & !PROGRESS);
            if made & PROGRESS == 0 {
                let own = worker.model.stuck(&space.plan.decode(&space.dictionary, &block.keys[at]));
                self.note(block.from.after(at), None, own);
            }
        }
    }

    /// Makes an actor's steps from each state of a block.
    #[inline]
    fn step_all<const K: usize, M: Model<W>>(
        &mut self,
        Worker { model, decisions }: &mut Worker<'_, M>,
        space: &Space<W>,
        actor: usize,
        Block { from: first, states, keys, may, made }: &mut Block<K>,
    ) {
        let (plan, own, first) = (&space.plan, shard_of(first.id), *first);
        let words = plan.words;
        let progress = if model.is_progress(actor) { PROGRESS } else { 0 };
        let learns = K <= WIDEST && plan.is_numbers() && model.is_learned();
        // Who may step, without a branch for each.
        let (mut these, mut count) = ([0u8; BLOCK], 0);
        for (at, may) in (0u8..).zip(&may[..*states]) {
            these[count] = at;
            count += if actor < 64 { usize::from(may >> actor & 1 == 1) } else { 1 };
        }
        for at in &these[..count] {
            let at = usize::from(*at) % BLOCK;
            let (key, made) = (&keys[at], &mut made[at]);
            let leaf = match decisions.find(actor, key) {
                Some(found) => found,
                None => {
                    let state = plan.decode(&space.dictionary, key);
                    match decisions.find_anew(actor, (&state, key)) {
                        Some(found) => found,
                        None => {
                            let ways = model.ways(actor, &state);
                            if learns {
                                decisions.learn(actor, &state, &ways, plan);
                            }
                            let mut wide = [0; W];
                            wide[..words].copy_from_slice(&key[..words]);
                            for outcome in ways.outcomes {
                                let place = (first.after(at), *made & !PROGRESS);
                                let next = outcome.of(&state);
                                self.emit(space, (&state, &wide), place, &next, outcome.goals);
                                *made = (*made + 1) | progress;
                            }
                            continue;
                        }
                    }
                }
            };
            if leaf == NOTHING {
                continue;
            }
            for step in decisions.steps(leaf) {
                let step = decisions.step(step);
                if let Some((next, turned)) = decisions.make(step, key) {
                    let rank = first.rank + at as u64;
                    let list = &mut self.lists[(own ^ turned) % SHARDS];
                    if K == 1 {
                        list.extend_from_slice(&[rank, next[0]]);
                    } else {
                        list.push(rank);
                        list.extend_from_slice(&next);
                    }
                    if step.goals & !self.noted != 0 {
                        self.note(first.after(at), Some(*made & !PROGRESS), step.goals);
                    }
                } else {
                    let state = plan.decode(&space.dictionary, key);
                    let next = decisions.make_anew(step, (&state, key), plan, &space.dictionary);
                    let mut wide = [0; W];
                    wide[..words].copy_from_slice(&key[..words]);
                    let place = (first.after(at), *made & !PROGRESS);
                    self.emit(space, (&state, &wide), place, &next, step.goals);
                }
                *made = (*made + 1) | progress;
            }
        }
    }

    /// Expands states one by one.
    fn expand_states<M: Model<W>>(
        &mut self,
        model: &mut M,
        space: &Space<W>,
        chunk: &Chunk,
    ) -> io::Result<()> {
        let Space { dictionary, plan, .. } = space;
        chunk.each_run(space, |keys, written, first, _| {
            for (at, stored) in keys.chunks_exact(written.words).enumerate() {
                let from = first.after(at);
                let state = written.decode(dictionary, stored);
                let mut key = [0; W];
                if written == plan {
                    key[..plan.words].copy_from_slice(stored);
                } else if let Some(own) = plan.encode(dictionary, &state) {
                    key = own;
                }
                let mut number = 0u32;
                let own = model.expand(&state, |next, reached| {
                    self.emit(space, (&state, &key), (from, number), next, reached);
                    number += 1;
                });
                self.transitions += u64::from(number);
                self.note(from, None, own);
            }
        })
    }

    /// Lays a successor of a state into the list of its shard.
    #[inline]
    fn emit(
        &mut self,
        space: &Space<W>,
        (state, key): (&[u64; W], &[u64; W]),
        (from, number): (From, u32),
        next: &[u64; W],
        goals: u64,
    ) {
        let Space { dictionary, plan, .. } = space;
        let to = moved(shard_of(from.id), state, next);
        let list = &mut self.lists[to];
        match plan.encode_from(dictionary, (state, key), next) {
            Some(next) if plan.words == 1 => list.extend_from_slice(&[from.rank, next[0]]),
            Some(next) => {
                list.push(from.rank);
                list.extend_from_slice(&next[..plan.words]);
            }
            None => {
                self.unknown.push(Unknown { shard: to, at: list.len(), state: *next });
                list.push(from.rank);
                list.extend_from_slice(&key[..plan.words]);
            }
        }
        self.note(from, Some(number), goals);
    }

    /// Notes goals that are reached for the first time.
    #[inline]
    fn note(&mut self, from: From, transition: Option<u32>, goals: u64) {
        if goals & !self.noted != 0 {
            self.noted |= goals;
            self.goals.push((from.id, transition, goals));
        }
    }
}

/// Some states of a level: shard, first, end.
#[derive(Debug, Default)]
struct Chunk {
    pieces: Vec<(u32, u32, u32)>,
    /// States of the round before it.
    first: u32,
}

impl Chunk {
    /// Calls `f` with the keys of states that lie together, the plan that these are of, where the first of the states
    /// stands, and the number of the last one of its piece.
    fn each_run<const W: usize>(
        &self,
        space: &Space<W>,
        mut f: impl FnMut(&[u64], &Plan<W>, From, u32),
    ) -> io::Result<()> {
        let mut rank = u64::from(self.first);
        for (shard, from, to) in &self.pieces {
            let mut at = *from;
            while at < *to {
                let (keys, plan) = space.keys(*shard as usize, at, *to)?;
                f(&keys, plan, From { id: id(*shard, at), rank }, id(*shard, to - 1));
                let count = u32::try_from(keys.len() / plan.words).unwrap_or(0);
                (at, rank) = (at + count, rank + u64::from(count));
            }
        }
        Ok(())
    }
}

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
        let tables = (self.limits.memory / TABLES / models.len() as u64).max(LEAST_TABLES);
        let work = |model: &'m mut M| {
            model.keep_within(tables / 2);
            Worker { model, decisions: Decisions::new(tables / 2) }
        };
        let disk = self.disk.take();
        let initial = models[0].initial();
        let mut workers: Vec<Worker<'_, M>> = models.iter_mut().map(work).collect();
        let (mut space, mut place) = match begin(disk.as_ref(), &initial) {
            Ok(begun) => begun,
            Err(error) => return Explored::failed(Space::new(&initial), error),
        };
        let until = self.limits.time.map(|time| (Instant::now() + time, time));
        let mut goals = Goals::of(std::mem::take(&mut place.reached));
        let mut batches: Vec<Mutex<Batch<W>>> = Vec::new();
        let Place { mut transitions, mut depth, mut expanded, .. } = place;
        let (mut told, had) = (0u64, space.len() - 1);
        let mut cutter = Cutter { at: place.at };
        let (mut bound, mut error) = (None, None);
        let mut saved = Saved { at: Instant::now(), took: Duration::ZERO };
        loop {
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
            let any = goals.seen & self.stop_at_any != 0;
            if bound.is_some() || any || self.stop_at != 0 && goals.seen & self.stop_at == self.stop_at {
                break;
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
            round_of(&mut workers, &mut space, &chunks, &mut batches, (expanded, goals.seen));
            for batch in &mut batches[..chunks.len()] {
                let Ok(batch) = batch.get_mut() else { continue };
                error = error.or(batch.error.take());
                transitions += batch.transitions;
                for (state, transition, reached) in &batch.goals {
                    goals.note(*reached, *state, *transition, depth + u32::from(transition.is_some()));
                }
            }
            let sizes = chunks.iter().flat_map(|c| &c.pieces).map(|(_, from, to)| u64::from(to - from));
            expanded += sizes.sum::<u64>();
        }
        let memory = in_use(&space, &batches);
        if let (Some(disk), None) = (&disk, &error) {
            let place = Place { transitions, expanded, depth, at: cutter.at, reached: goals.reached.clone() };
            error = match bound {
                Some(_) => saved.save(disk, &space, &place).err(),
                None => checkpoint::remove(&disk.dir, space.frozen.len()).err(),
            };
        }
        Explored { states: Box::new(space), transitions, depth, bound, memory, reached: goals.reached, error }
    }

    /// What of the memory is for the states and the lists.
    fn memory(&self) -> u64 {
        self.limits.memory - self.limits.memory / TABLES - self.limits.memory / SLACK
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
        let found_bytes = (record(space.plan.words) * 8) as u64;
        let successors = self.limits.memory / LISTS / found_bytes;
        let fewest = u64::from(most.min(FEWEST));
        let mut most = u64::from(most).min(successors / fan).max(fewest);
        while most >= fewest {
            let found = most * fan;
            let more =
                usize::try_from(found / SHARDS as u64 + found / SHARDS as u64 / 4 + 4).unwrap_or(usize::MAX);
            let stored: u64 =
                space.shards.iter().map(|s| s.bytes_with(more)).sum::<u64>() + space.dictionary.bytes();
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

/// Expands chunks and stores what they found.
fn round_of<const W: usize, M: Model<W>>(
    workers: &mut [Worker<'_, M>],
    space: &mut Space<W>,
    chunks: &[Chunk],
    batches: &mut [Mutex<Batch<W>>],
    (base, noted): (u64, u64),
) {
    let parallel = chunks.len() >= WORTH && workers.len() > 1;
    if parallel {
        let next = AtomicUsize::new(0);
        let (told, shared) = (&*batches, &*space);
        workers.par_iter_mut().for_each(|worker| {
            while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < chunks.len()) {
                if let Ok(mut batch) = told[at].lock() {
                    batch.expand(worker, shared, &chunks[at], noted);
                }
            }
        });
    } else {
        for (chunk, batch) in chunks.iter().zip(&mut *batches) {
            let Ok(batch) = batch.get_mut() else { continue };
            batch.expand(&mut workers[0], space, chunk, noted);
        }
    }
    let mut found: Vec<&mut Batch<W>> = Vec::new();
    for batch in &mut batches[..chunks.len()] {
        found.extend(batch.get_mut().ok());
    }
    space.take(&mut found, base, parallel);
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
