//! The expansion of states, a chunk at a time: what follows them is laid into a list for each shard.

use std::io;

use crate::Model;
use crate::decisions::{Decisions, NOTHING, NOWHERE, WIDEST};
use crate::dictionary::Plan;
use crate::ends::Good;
use crate::ranks::BELOW;
use crate::space::{Batch, Found, Space, Unknown};
use crate::table::{id, index_of, moved, shard_of};

/// Who expands states: a model, and what was learned of it.
pub(crate) struct Worker<'m, M> {
    pub(crate) model: &'m mut M,
    pub(crate) decisions: Decisions,
    pub(crate) found: Found,
}

/// Where a state stands that is expanded.
#[derive(Clone, Copy)]
struct From {
    /// Its number.
    id: u32,
    /// Which it is of its chunk.
    rank: u32,
}

impl From {
    /// The state so many after it in its shard.
    #[inline]
    fn after(self, states: usize) -> From {
        let shard = u32::try_from(shard_of(self.id)).unwrap_or(0);
        let next = index_of(self.id) + u32::try_from(states).unwrap_or(0);
        From { id: id(shard, next), rank: self.rank + u32::try_from(states).unwrap_or(0) }
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
pub(crate) const BLOCK: usize = BELOW as usize;
/// A bit that no number of transitions has.
const PROGRESS: u32 = 1 << 31;

impl<const W: usize> Batch<W> {
    /// Expands the states of a chunk. Goals that are `noted` need not be told again.
    pub(crate) fn expand<M: Model<W>>(
        &mut self,
        worker: &mut Worker<'_, M>,
        space: &Space<W>,
        chunk: &Chunk,
        noted: u64,
    ) {
        self.clear();
        (self.noted, self.first) = (noted, chunk.first);
        let actors = worker.model.actors();
        worker.decisions.begin(actors, space.plans, &space.plan);
        let words = if space.plan.is_numbers() { space.plan.words } else { W };
        let told = match words {
            _ if actors == 0 => self.expand_states(worker, space, chunk),
            1 => self.expand_blocks::<1, M>(worker, space, chunk),
            2 => self.expand_blocks::<2, M>(worker, space, chunk),
            3 => self.expand_blocks::<3, M>(worker, space, chunk),
            WIDEST => self.expand_blocks::<WIDEST, M>(worker, space, chunk),
            // Too wide for trees: the model is asked.
            _ => self.expand_blocks::<W, M>(worker, space, chunk),
        };
        self.error = told.err();
        self.sort(&mut worker.found, space.plan.words);
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

    /// Finds those of some states of a shard that a step leads to a good one from, and adds them to these.
    pub(crate) fn lead<M: Model<W>>(
        &mut self,
        worker: &mut Worker<'_, M>,
        space: &Space<W>,
        (shard, states): (usize, &[u32]),
        good: &Good,
    ) {
        self.noted = u64::MAX;
        let actors = worker.model.actors();
        worker.decisions.begin(actors, space.plans, &space.plan);
        let words = if space.plan.is_numbers() { space.plan.words } else { W };
        for states in states.chunks(BLOCK) {
            match words {
                _ if actors == 0 => self.lead_by_states(worker, space, (shard, states), good),
                1 => self.lead_block::<1, M>(worker, space, (shard, states), good),
                2 => self.lead_block::<2, M>(worker, space, (shard, states), good),
                3 => self.lead_block::<3, M>(worker, space, (shard, states), good),
                WIDEST => self.lead_block::<WIDEST, M>(worker, space, (shard, states), good),
                _ => self.lead_block::<W, M>(worker, space, (shard, states), good),
            }
        }
    }

    fn lead_block<const K: usize, M: Model<W>>(
        &mut self,
        worker: &mut Worker<'_, M>,
        space: &Space<W>,
        (shard, states): (usize, &[u32]),
        good: &Good,
    ) {
        let from = From { id: id(u32::try_from(shard).unwrap_or(0), 0), rank: 0 };
        let mut block = Block::<K> {
            from,
            states: states.len(),
            keys: [[0; K]; BLOCK],
            may: [0; BLOCK],
            made: [0; BLOCK],
        };
        for (key, index) in block.keys.iter_mut().zip(states) {
            key[..space.plan.words].copy_from_slice(space.shards[shard].key(*index));
        }
        worker.decisions.may_step(&block.keys[..states.len()], &mut block.may[..states.len()]);
        for actor in 0..worker.model.actors() {
            self.step_all(worker, space, actor, &mut block);
            self.take_good(&mut worker.found, space, (shard, states), good, |at| block.may[at] = 0);
            if block.may[..states.len()].iter().all(|may| *may == 0) {
                break;
            }
        }
    }

    /// The first state that is accepted of those that a step leads to from one, by shard and place, in memory. Steps that
    /// lead towards an end come first.
    pub(crate) fn next_of<M: Model<W>>(
        &mut self,
        worker: &mut Worker<'_, M>,
        space: &Space<W>,
        (shard, index): (usize, u32),
        mut accept: impl FnMut((usize, u32)) -> bool,
    ) -> Option<(usize, u32)> {
        self.noted = u64::MAX;
        let actors = worker.model.actors();
        if actors == 0 {
            self.emit_all(worker, space, (shard, index), 0);
            return self.take_first(&mut worker.found, space, accept);
        }
        let key = Self::key_of(space, (shard, index));
        let state = space.plan.decode(&space.dictionary, &key);
        let from = From { id: id(u32::try_from(shard).unwrap_or(0), index), rank: 0 };
        for soon in [true, false] {
            for actor in 0..actors {
                if worker.model.is_towards_end(actor) != soon {
                    continue;
                }
                let Worker { model, found, .. } = &mut *worker;
                for outcome in model.ways(actor, &state).outcomes {
                    self.emit(found, space, (&state, &key), (from, 0), &outcome.of(&state), 0);
                }
                let taken = self.take_first(&mut worker.found, space, &mut accept);
                if taken.is_some() {
                    return taken;
                }
            }
        }
        None
    }

    /// Takes what was found: the first state in memory that is accepted.
    fn take_first(
        &mut self,
        found: &mut Found,
        space: &Space<W>,
        mut accept: impl FnMut((usize, u32)) -> bool,
    ) -> Option<(usize, u32)> {
        let places =
            found.keys.chunks_exact(space.plan.words).zip(&found.shards).filter_map(|(key, shard)| {
                let shard = usize::from(*shard);
                Some((shard, space.shards[shard].find(key)?))
            });
        let taken = { places }.find(|place| accept(*place));
        found.clear();
        self.unknown.clear();
        taken
    }

    /// The key of a state in memory, padded.
    fn key_of(space: &Space<W>, (shard, index): (usize, u32)) -> [u64; W] {
        let (mut key, stored) = ([0; W], space.shards[shard].key(index));
        key[..stored.len()].copy_from_slice(stored);
        key
    }

    fn lead_by_states<M: Model<W>>(
        &mut self,
        worker: &mut Worker<'_, M>,
        space: &Space<W>,
        (shard, states): (usize, &[u32]),
        good: &Good,
    ) {
        for (rank, index) in (0u32..).zip(states) {
            self.emit_all(worker, space, (shard, *index), rank);
        }
        self.take_good(&mut worker.found, space, (shard, states), good, |_| {});
    }

    /// Notes what follows a state.
    fn emit_all<M: Model<W>>(
        &mut self,
        Worker { model, found, .. }: &mut Worker<'_, M>,
        space: &Space<W>,
        (shard, index): (usize, u32),
        rank: u32,
    ) {
        let key = Self::key_of(space, (shard, index));
        let state = space.plan.decode(&space.dictionary, &key);
        let from = From { id: id(u32::try_from(shard).unwrap_or(0), index), rank };
        model.expand(&state, |next, _| self.emit(found, space, (&state, &key), (from, 0), next, 0));
    }

    /// Takes what was found from some states of a shard; those from which a good one was are good, and told.
    fn take_good(
        &mut self,
        found: &mut Found,
        space: &Space<W>,
        (shard, states): (usize, &[u32]),
        good: &Good,
        mut told: impl FnMut(usize),
    ) {
        let stride = space.plan.words;
        for ((key, rank), to) in found.keys.chunks_exact(stride).zip(&found.ranks).zip(&found.shards) {
            let to = usize::from(*to);
            if space.shards[to].find(key).is_some_and(|index| good.has(to, index)) {
                good.add(shard, states[*rank as usize]);
                told(*rank as usize);
            }
        }
        found.clear();
        self.unknown.clear();
    }

    /// Makes an actor's steps from each state of a block.
    #[inline]
    fn step_all<const K: usize, M: Model<W>>(
        &mut self,
        Worker { model, decisions, found }: &mut Worker<'_, M>,
        space: &Space<W>,
        actor: usize,
        Block { from: first, states, keys, may, made }: &mut Block<K>,
    ) {
        let (plan, own, first) = (&space.plan, shard_of(first.id), *first);
        let progress = if model.is_progress(actor) { PROGRESS } else { 0 };
        let learns = K <= WIDEST && plan.is_numbers() && model.is_learned();
        // Who may step, without a branch for each.
        let (mut these, mut count) = ([0u8; BLOCK], 0);
        for (at, may) in (0u8..).zip(&may[..*states]) {
            these[count] = at;
            count += if actor < 64 { usize::from(may >> actor & 1 == 1) } else { 1 };
        }
        let mut leaves = [0; BLOCK];
        decisions.find_all(actor, keys, &these[..count], &mut leaves);
        for at in &these[..count] {
            let at = usize::from(*at) % BLOCK;
            let (key, made) = (&keys[at], &mut made[at]);
            let leaf = match leaves[at] {
                NOWHERE => {
                    let state = plan.decode(&space.dictionary, key);
                    match decisions.find_anew(actor, (&state, key)) {
                        Some(found) => found,
                        None => {
                            let ways = model.ways(actor, &state);
                            if learns {
                                decisions.learn(actor, &state, &ways, plan);
                            }
                            for outcome in ways.outcomes {
                                let place = (first.after(at), *made & !PROGRESS);
                                let next = outcome.of(&state);
                                self.emit(found, space, (&state, key), place, &next, outcome.goals);
                                *made = (*made + 1) | progress;
                            }
                            continue;
                        }
                    }
                }
                leaf => leaf,
            };
            if leaf == NOTHING {
                continue;
            }
            for step in decisions.steps(leaf) {
                let step = decisions.step(step);
                if let Some((next, turned)) = decisions.make(step, key) {
                    found.push(&next, first.after(at).rank, own ^ turned);
                    if step.goals & !self.noted != 0 {
                        self.note(first.after(at), Some(*made & !PROGRESS), step.goals);
                    }
                } else {
                    let state = plan.decode(&space.dictionary, key);
                    let next = decisions.make_anew(step, (&state, key), plan, &space.dictionary);
                    let place = (first.after(at), *made & !PROGRESS);
                    self.emit(found, space, (&state, key), place, &next, step.goals);
                }
                *made = (*made + 1) | progress;
            }
        }
    }

    /// Expands states one by one.
    fn expand_states<M: Model<W>>(
        &mut self,
        Worker { model, found, .. }: &mut Worker<'_, M>,
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
                    self.emit(found, space, (&state, &key), (from, number), next, reached);
                    number += 1;
                });
                self.transitions += u64::from(number);
                self.note(from, None, own);
            }
        })
    }

    /// Notes a successor of a state.
    #[inline]
    fn emit(
        &mut self,
        found: &mut Found,
        space: &Space<W>,
        (state, own): (&[u64; W], &[u64]),
        (from, number): (From, u32),
        next: &[u64; W],
        goals: u64,
    ) {
        let Space { dictionary, plan, .. } = space;
        let mut key = [0; W];
        key[..plan.words].copy_from_slice(&own[..plan.words]);
        let to = moved(shard_of(from.id), state, next);
        let words = plan.words;
        let (key, missing) = plan.encode_from(dictionary, (state, &key), next);
        if missing != 0 {
            self.unknown.push(Unknown { at: found.ranks.len(), state: *next, missing });
        }
        found.push(&key[..words], from.rank, to);
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
pub(crate) struct Chunk {
    pub(crate) pieces: Vec<(u32, u32, u32)>,
    /// States of the round before it.
    pub(crate) first: u32,
}

impl Chunk {
    /// Calls `f` with the keys of states that lie together, the plan that these are of, where the first of the states
    /// stands, and the number of the last one of its piece.
    fn each_run<const W: usize>(
        &self,
        space: &Space<W>,
        mut f: impl FnMut(&[u64], &Plan<W>, From, u32),
    ) -> io::Result<()> {
        let mut rank = 0;
        for (shard, from, to) in &self.pieces {
            let mut at = *from;
            while at < *to {
                let (keys, plan) = space.keys(*shard as usize, at, *to)?;
                f(&keys, plan, From { id: id(*shard, at), rank }, id(*shard, to - 1));
                let count = u32::try_from(keys.len() / plan.words).unwrap_or(0);
                (at, rank) = (at + count, rank + count);
            }
        }
        Ok(())
    }
}
