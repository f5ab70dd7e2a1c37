//! The states of a search: dictionary, shards, and which were expanded when.

use std::borrow::Cow;
use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use crate::dictionary::{Dictionary, Plan, low, turn};
use crate::frozen::Frozen;
use crate::table::{Round, SHARDS, Shard, ShardNumber, id, index_of, shard, shard_of};

/// A shard is read from end to end before a round's states are inserted if these are at least this part of its own.
const WARM: u32 = 16;

/// The states found so far.
#[derive(Debug)]
pub(crate) struct Space<const W: usize> {
    pub(crate) dictionary: Dictionary<W>,
    pub(crate) plan: Plan<W>,
    /// How many plans there were before this one.
    pub(crate) plans: u32,
    pub(crate) shards: Vec<Shard>,
    /// States on the disk, in the order in which they were put there.
    pub(crate) frozen: Vec<Frozen<W>>,
    /// The states of each shard that are surely not on the disk as well: those before this one.
    pub(crate) settled: Vec<u32>,
    /// The levels that were expanded, or are being: for each the number of states expanded before it, and the place
    /// in each shard at which it begins.
    pub(crate) levels: Vec<(u64, Vec<u32>)>,
    /// The states from which no step leads to the next level, if that was noted from the beginning.
    pub(crate) dead_ends: Option<Vec<u32>>,
}

/// A state with a half word of a value that had no number yet, on its way into a shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unknown<const W: usize> {
    /// Which it is of the states found.
    pub(crate) at: usize,
    pub(crate) state: [u64; W],
    /// The half words whose values had no number that fits, a bit each.
    pub(crate) missing: u128,
}

/// The places of the bits that are set.
fn bits(mut set: u128) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(at)
    })
}

/// What the expansion of a chunk found, as it was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Keys.
    pub(crate) keys: Vec<u64>,
    /// Which state of the chunk each was found from.
    pub(crate) ranks: Vec<u16>,
    pub(crate) shards: Vec<ShardNumber>,
}

impl Found {
    /// Adds a state: its key, the state of the chunk that it was found from, and its shard.
    #[inline]
    pub(crate) fn push(&mut self, key: &[u64], rank: u32, shard: usize) {
        self.keys.extend_from_slice(key);
        self.ranks.push(u16::try_from(rank).unwrap_or(u16::MAX));
        self.shards.push(ShardNumber::try_from(shard % SHARDS).unwrap_or(0));
    }

    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.ranks.clear();
        self.shards.clear();
    }
}

/// What the expansion of a chunk found, shard by shard.
#[derive(Debug)]
pub(crate) struct Batch<const W: usize> {
    keys: Vec<u64>,
    ranks: Vec<u16>,
    /// The states that the round expands before those of the chunk.
    pub(crate) first: u32,
    /// Where each shard's states end.
    ends: [u32; SHARDS],
    pub(crate) unknown: Vec<Unknown<W>>,
    /// Goals reached: state, transition that reached it (none for the state itself), goals.
    pub(crate) goals: Vec<(u32, Option<u32>, u64)>,
    pub(crate) transitions: u64,
    /// Goals that need not be told again.
    pub(crate) noted: u64,
    /// The disk failed.
    pub(crate) error: Option<io::Error>,
}

impl<const W: usize> Batch<W> {
    pub(crate) fn new() -> Self {
        Batch {
            keys: Vec::new(),
            ranks: Vec::new(),
            first: 0,
            ends: [0; SHARDS],
            unknown: Vec::new(),
            goals: Vec::new(),
            transitions: 0,
            noted: 0,
            error: None,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.ranks.clear();
        self.ends.fill(0);
        self.unknown.clear();
        self.goals.clear();
        self.transitions = 0;
        self.error = None;
    }

    /// Takes what was found, with keys of so many words, shard by shard, and in the order in which it was found.
    pub(crate) fn sort(&mut self, found: &mut Found, stride: usize) {
        match stride {
            1 => self.sort_all::<1>(found, stride),
            2 => self.sort_all::<2>(found, stride),
            _ => self.sort_all::<0>(found, stride),
        }
        found.clear();
    }

    /// `K` is the words of a key, or 0 if they are more than two.
    fn sort_all<const K: usize>(&mut self, found: &Found, stride: usize) {
        let stride = if K == 0 { stride } else { K };
        let mut next = [0u32; SHARDS];
        for shard in &found.shards {
            next[usize::from(*shard)] += 1;
        }
        let mut before = 0;
        for count in &mut next {
            (*count, before) = (before, before + *count);
        }
        // No more than what is found, since memory is counted.
        self.keys.reserve_exact(found.keys.len());
        self.keys.resize(found.keys.len(), 0);
        self.ranks.reserve_exact(found.ranks.len());
        self.ranks.resize(found.ranks.len(), 0);
        let mut unknown = self.unknown.iter_mut().peekable();
        let records = found.keys.chunks_exact(stride).zip(&found.ranks).zip(&found.shards);
        for (number, ((key, rank), shard)) in records.enumerate() {
            let next = &mut next[usize::from(*shard)];
            let at = *next as usize;
            *next += 1;
            self.keys[at * stride..][..stride].copy_from_slice(key);
            self.ranks[at] = *rank;
            if let Some(unknown) = unknown.next_if(|unknown| unknown.at == number) {
                unknown.at = at;
            }
        }
        self.ends = next;
    }

    /// How many states of a shard there are.
    fn count_of(&self, shard: usize) -> u32 {
        self.ends[shard] - shard.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// The keys and ranks of a shard's states.
    fn of_shard(&self, shard: usize, stride: usize) -> (&[u64], &[u16]) {
        let (end, count) = (self.ends[shard] as usize, self.count_of(shard) as usize);
        (&self.keys[(end - count) * stride..end * stride], &self.ranks[end - count..end])
    }

    pub(crate) fn bytes(&self) -> u64 {
        let lists = self.keys.capacity() * 8 + self.ranks.capacity() * 2;
        (lists + self.unknown.capacity() * size_of::<Unknown<W>>() + size_of::<Self>()) as u64
    }

    /// Bytes of a state on its way into a shard, with a key of so many words.
    pub(crate) const fn bytes_of(stride: usize) -> u64 {
        stride as u64 * 8 + 2
    }
}

impl<const W: usize> Space<W> {
    /// The space that has one state.
    pub(crate) fn new(initial: &[u64; W]) -> Self {
        let mut dictionary = Dictionary::new();
        dictionary.add(initial);
        let plan = Plan::of(&dictionary);
        let mut shards: Vec<Shard> = (0..SHARDS).map(|_| Shard::new(plan.words)).collect();
        let key = plan.encode(&dictionary, initial).unwrap_or(*initial);
        let shard = &mut shards[shard(initial)];
        shard.insert((&key[..plan.words], &[0]), &Round::default(), 0);
        shard.level = 0..1;
        let (frozen, settled) = (Vec::new(), vec![0; SHARDS]);
        Space {
            dictionary,
            plan,
            plans: 0,
            shards,
            frozen,
            settled,
            levels: vec![(0, vec![0; SHARDS])],
            dead_ends: None,
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.shards.iter().map(Shard::len).sum()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.shards.iter().map(Shard::bytes).sum::<u64>() + self.dictionary.bytes()
    }

    /// Stores what chunks found, in their order.
    pub(crate) fn take(&mut self, batches: &mut [&mut Batch<W>], round: &Round, parallel: bool) {
        self.number(batches);
        let (batches, stride): (&[&mut Batch<W>], _) = (batches, self.plan.words);
        let insert = |(at, shard): (usize, &mut Shard)| {
            let count: u32 = batches.iter().map(|batch| batch.count_of(at)).sum();
            if count > shard.len() / WARM {
                std::hint::black_box(shard.warm());
            }
            for batch in batches {
                shard.insert(batch.of_shard(at, stride), round, batch.first);
            }
        };
        if parallel {
            self.shards.par_iter_mut().enumerate().for_each(insert);
        } else {
            self.shards.iter_mut().enumerate().for_each(insert);
        }
    }

    /// Gives numbers to values that have none, and so each record its key.
    fn number(&mut self, batches: &mut [&mut Batch<W>]) {
        if batches.iter().all(|b| b.unknown.is_empty()) {
            return;
        }
        for unknown in batches.iter().flat_map(|b| &b.unknown) {
            bits(unknown.missing).for_each(|at| self.dictionary.add_half(at, &unknown.state));
        }
        if !self.plan.holds(&self.dictionary) {
            let plan = Plan::of(&self.dictionary);
            self.rewrite(&plan, batches);
            self.plan = plan;
            self.plans += 1;
        }
        let Space { dictionary, plan, .. } = self;
        for batch in batches {
            let Batch { keys, unknown, .. } = &mut **batch;
            for unknown in unknown {
                let key = &mut keys[unknown.at * plan.words..][..plan.words];
                if plan.is_numbers() {
                    for at in bits(unknown.missing) {
                        plan.put(dictionary, at, low(unknown.state[at / 2] >> (32 * (at % 2))), key);
                    }
                } else {
                    key.copy_from_slice(&unknown.state);
                }
            }
        }
    }

    /// Writes every key anew, as another plan says.
    fn rewrite(&mut self, plan: &Plan<W>, batches: &mut [&mut Batch<W>]) {
        let Space { dictionary, plan: old, shards, .. } = self;
        let (dictionary, old) = (&*dictionary, &*old);
        let turns = plan.turns_from(old);
        let renew = |key: &[u64], keys: &mut Vec<u64>| match &turns {
            Some(turns) => turn(turns, key, plan.words, keys),
            None => {
                let key = plan.encode(dictionary, &old.decode(dictionary, key)).unwrap_or([0; W]);
                keys.extend_from_slice(&key[..plan.words]);
            }
        };
        shards.par_iter_mut().for_each(|shard| shard.rewrite(plan.words, renew));
        batches.par_iter_mut().for_each(|batch| {
            let keys = std::mem::take(&mut batch.keys);
            keys.chunks_exact(old.words).for_each(|key| renew(key, &mut batch.keys));
        });
    }

    /// The states of the next level, which are those found since the last one began; whether there are any.
    pub(crate) fn next_level(&mut self, expanded: u64) -> bool {
        for shard in &mut self.shards {
            shard.level = shard.level.end..shard.len();
        }
        self.levels.push((expanded, self.shards.iter().map(|s| s.level.start).collect()));
        self.shards.iter().any(|s| !s.level.is_empty())
    }

    /// The keys of some states of a shard that lie together, at most those up to `to`, and how to read them.
    pub(crate) fn keys(&self, shard: usize, from: u32, to: u32) -> io::Result<(Cow<'_, [u64]>, &Plan<W>)> {
        let states = &self.shards[shard];
        if from >= states.first {
            let run = states.keys.run((from - states.first) as usize, (to - states.first) as usize);
            return Ok((Cow::Borrowed(run), &self.plan));
        }
        let holds = |f: &&Frozen<W>| f.shards[shard].first + f.shards[shard].count > from;
        let frozen = self.frozen.iter().find(holds).ok_or(io::ErrorKind::NotFound)?;
        let part = frozen.shards[shard];
        Ok((Cow::Owned(frozen.keys(shard, from, to.min(part.first + part.count))?), &frozen.plan))
    }

    /// States of the level before this one, and of this one.
    pub(crate) fn last_levels(&self) -> [u32; 2] {
        let begins = |back: usize| -> u32 {
            let level = self.levels.len().checked_sub(back).and_then(|at| self.levels.get(at));
            level.map_or(0, |(_, starts)| starts.iter().sum())
        };
        let end: u32 = self.shards.iter().map(|s| s.level.end).sum();
        [begins(1) - begins(2), end - begins(1)]
    }

    /// Takes out the states that are on the disk as well.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        let Space { dictionary, plan, shards, frozen, settled, .. } = self;
        let settle = |(number, (shard, settled)): (usize, (&mut Shard, &mut u32))| {
            let mut known = vec![false; (shard.len() - *settled) as usize];
            for frozen in &*frozen {
                frozen.mark_known(number, (plan, dictionary), (shard, *settled), &mut known)?;
            }
            if known.contains(&true) {
                shard.remove(*settled, &known);
            }
            *settled = shard.len();
            Ok(())
        };
        shards.par_iter_mut().zip(settled).enumerate().map(settle).collect()
    }

    /// Whether there are enough states in memory for putting them on the disk to help.
    pub(crate) fn can_freeze(&self) -> bool {
        self.shards.iter().map(|s| s.keys.len()).sum::<usize>() > SHARDS * 16
    }

    /// Puts all states that are in memory on the disk.
    pub(crate) fn freeze(&mut self, dir: &Path) -> io::Result<()> {
        self.settle()?;
        self.frozen.push(Frozen::write(dir, self.frozen.len(), &self.plan, &self.shards)?);
        self.shards.iter_mut().for_each(Shard::freeze);
        Ok(())
    }

    fn decoded(&self, id: u32) -> Option<[u64; W]> {
        let at = index_of(id);
        let (key, plan) = self.keys(shard_of(id), at, at + 1).ok()?;
        Some(plan.decode(&self.dictionary, &key))
    }

    /// The states of a level in a shard.
    pub(crate) fn level_of(&self, level: usize, shard: usize) -> Range<u32> {
        let end = self.levels.get(level + 1).map_or(self.shards[shard].len(), |(_, next)| next[shard]);
        self.levels[level].1[shard]..end
    }

    /// A level, to find states in by the order in which they were expanded.
    pub(crate) fn level(&self, level: usize) -> Level<'_> {
        let (before, starts) = &self.levels[level];
        let mut sum = 0;
        let sizes = (0..SHARDS).map(|shard| self.level_of(level, shard));
        let ends = sizes.map(|states| {
            sum += states.end - states.start;
            sum
        });
        Level { before: *before, starts, ends: ends.collect() }
    }

    /// The state that was expanded after so many others.
    fn ranked(&self, rank: u64) -> u32 {
        let level = self.levels.partition_point(|(before, _)| *before <= rank).saturating_sub(1);
        let (shard, index) = self.level(level).ranked(rank);
        id(u32::try_from(shard).unwrap_or(0), index)
    }
}

/// The states of a level, in the order in which they were expanded: shard after shard.
pub(crate) struct Level<'s> {
    /// States expanded before.
    before: u64,
    /// The first state of each shard.
    starts: &'s [u32],
    /// How many states there are up to the end of each shard.
    ends: Vec<u32>,
}

impl Level<'_> {
    /// The shard, and the place in it, of the state that was expanded after so many others.
    pub(crate) fn ranked(&self, rank: u64) -> (usize, u32) {
        let at = u32::try_from(rank - self.before).unwrap_or(u32::MAX);
        let shard = self.ends.partition_point(|end| *end <= at).min(SHARDS - 1);
        let first = shard.checked_sub(1).map_or(0, |before| self.ends[before]);
        (shard, self.starts[shard] + (at - first))
    }
}

/// The states of a search that is over, whatever their width.
pub(crate) trait States: Debug + Send + Sync {
    /// How many there are.
    fn len(&self) -> u32;
    /// How many each shard has.
    fn of_shard(&self, shard: u32) -> u32;
    /// One of them; none if the disk failed.
    fn state(&self, id: u32) -> Option<Vec<u64>>;
    /// The state from which one was first reached; the initial state has none.
    fn parent(&self, id: u32) -> Option<u32>;
}

impl<const W: usize> States for Space<W> {
    fn len(&self) -> u32 {
        Space::len(self)
    }

    fn of_shard(&self, shard: u32) -> u32 {
        self.shards[shard as usize].len()
    }

    fn state(&self, id: u32) -> Option<Vec<u64>> {
        Some(self.decoded(id)?.to_vec())
    }

    fn parent(&self, id: u32) -> Option<u32> {
        let (_, starts) = self.levels.get(1)?;
        let first = index_of(id) < starts[shard_of(id)];
        (!first).then(|| self.ranked(self.shards[shard_of(id)].ranks.get(index_of(id))))
    }
}
