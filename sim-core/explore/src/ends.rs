//! From which states an end can still be reached, once every state is known.
//!
//! A state is good if it is an end or if some step leads from it to a good one. From nearly every state some step leads to
//! the next level, and so, step by step, to one from which none does: a dead end of the search, most often an end. The
//! search notes these. If all of them are good, all states are, and few had to be looked at.
//!
//! Otherwise each state is: the levels are gone through from the last to the first, what a good state was first reached
//! from is good, and of what is left steps are tried until one leads to a good state. What is then left is gone through
//! again until nothing changes. Which states are good depends neither on that order nor on the threads.

use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::expand::Worker;
use crate::space::{Batch, Space};
use crate::table::{SHARDS, Shard, id, index_of, shard_of};
use crate::{Bound, Model, Reached};

/// States that a thread takes at a time.
const PIECE: usize = 1 << 10;

/// The good states, a bit each.
pub(crate) struct Good {
    shards: Vec<Vec<AtomicU64>>,
}

impl Good {
    fn new(shards: &[Shard]) -> Self {
        let bits = |shard: &Shard| (0..shard.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Good { shards: shards.iter().map(bits).collect() }
    }

    #[inline]
    pub(crate) fn has(&self, shard: usize, index: u32) -> bool {
        self.shards[shard][index as usize / 64].load(Ordering::Relaxed) >> (index % 64) & 1 == 1
    }

    #[inline]
    pub(crate) fn add(&self, shard: usize, index: u32) {
        self.shards[shard][index as usize / 64].fetch_or(1 << (index % 64), Ordering::Relaxed);
    }
}

/// A state: its shard, and its place there.
type Place = (usize, u32);

/// Some states of a shard.
type Piece = (usize, Vec<u32>);

/// The first state, in the order of the search, from which no end can be reached; all of whose states are in memory.
///
/// # Errors
///
/// What `late` says, if it ended the question.
pub(crate) fn first_without<const W: usize, M: Model<W>>(
    workers: &mut [Worker<'_, M>],
    space: &Space<W>,
    goal: u32,
    late: &(impl Fn() -> Result<(), Bound> + Sync),
) -> Result<Option<Reached>, Bound> {
    if let (Some(worker), Some(dead_ends)) = (workers.first_mut(), &space.dead_ends)
        && are_good(worker, space, dead_ends, late)?
    {
        return Ok(None);
    }
    let good = Good::new(&space.shards);
    let shards: Vec<usize> = (0..SHARDS).collect();
    each(workers, &shards, |worker, shard| {
        for (index, key) in (0u32..).zip(space.shards[*shard].keys.records()) {
            if worker.model.is_end(&space.plan.decode(&space.dictionary, key)) {
                good.add(*shard, index);
            }
        }
    });
    let mut left: Vec<(usize, Vec<Piece>)> = Vec::new();
    for level in (0..space.levels.len()).rev() {
        late()?;
        let open = pieces((0..SHARDS).map(|shard| (shard, space.level_of(level, shard))), &good);
        let open = lead(workers, space, open, &good);
        if !open.is_empty() {
            left.push((level, open));
        }
        let Some(before) = level.checked_sub(1).map(|before| space.level(before)) else { continue };
        space.shards.par_iter().enumerate().for_each(|(number, shard)| {
            let range = space.level_of(level, number);
            for (index, rank) in range.clone().zip(shard.ranks.from(range.start)) {
                if good.has(number, index) {
                    let (parent, at) = before.ranked(rank);
                    good.add(parent, at);
                }
            }
        });
    }
    loop {
        let count = |left: &[(usize, Vec<Piece>)]| -> usize {
            left.iter().flat_map(|(_, open)| open).map(|(_, states)| states.len()).sum()
        };
        let before = count(&left);
        for (_, open) in &mut left {
            late()?;
            *open = lead(workers, space, std::mem::take(open), &good);
        }
        left.retain(|(_, open)| !open.is_empty());
        if count(&left) == before {
            break;
        }
    }
    let first = left.last().and_then(|(level, open)| {
        let (shard, states) = open.first()?;
        let state = id(u32::try_from(*shard).ok()?, *states.first()?);
        Some(Reached { goal, state, transition: None, depth: u32::try_from(*level).unwrap_or(u32::MAX) })
    });
    Ok(first)
}

/// Dead ends are asked about one by one if they are this part of the states at most; else memory would go to them.
const FEW: u32 = 32;
/// Of the states on the ways from them this part of all is remembered.
const ON_WAYS: u32 = 32;
/// Fewer states than that are always few.
const ALWAYS_FEW: u32 = 1 << 16;

/// Whether all of the search's dead ends are good, as far as one way on from each of their next states tells: it goes on
/// level by level until an end or another dead end, which is good if that one is.
fn are_good<const W: usize, M: Model<W>>(
    worker: &mut Worker<'_, M>,
    space: &Space<W>,
    dead_ends: &[u32],
    late: &impl Fn() -> Result<(), Bound>,
) -> Result<bool, Bound> {
    if dead_ends.len() > (space.len() / FEW).max(ALWAYS_FEW) as usize {
        return Ok(false);
    }
    let mut ways = Ways {
        space,
        worker,
        batch: Batch::new(),
        ends_at: dead_ends.iter().zip(0u32..).map(|(state, number)| (*state, number)).collect(),
        most: dead_ends.len() + (space.len() / ON_WAYS).max(ALWAYS_FEW) as usize,
    };
    // The dead ends from which a way leads to one, and the good ones that are still to be followed back.
    let mut from: Vec<Vec<u32>> = vec![Vec::new(); dead_ends.len()];
    let (mut good, mut open) = (vec![false; dead_ends.len()], Vec::new());
    for (number, state) in (0u32..).zip(dead_ends) {
        late()?;
        let place = (shard_of(*state), index_of(*state));
        let mut next: Vec<Place> = Vec::new();
        let mut reaches_end = ways.is_end(place);
        if !reaches_end {
            ways.batch.next_of(ways.worker, space, place, |place| {
                next.push(place);
                false
            });
        }
        for place in next {
            match ways.follow(place) {
                AN_END => reaches_end = true,
                dead_end => from.get_mut(dead_end as usize).into_iter().for_each(|from| from.push(number)),
            }
        }
        if reaches_end {
            good[number as usize] = true;
            open.push(number);
        }
    }
    while let Some(number) = open.pop() {
        for before in std::mem::take(&mut from[number as usize]) {
            if !std::mem::replace(&mut good[before as usize], true) {
                open.push(before);
            }
        }
    }
    Ok(!good.contains(&false))
}

/// In the place of a dead end's number: an end.
const AN_END: u32 = u32::MAX;

/// One way on from each state that was asked about.
struct Ways<'w, 'm, const W: usize, M> {
    space: &'w Space<W>,
    worker: &'w mut Worker<'m, M>,
    batch: Batch<W>,
    /// Where the ways of states end, those of the dead ends in themselves: the dead end's number, or [`AN_END`].
    ends_at: FxHashMap<u32, u32>,
    /// How many of these are remembered.
    most: usize,
}

impl<const W: usize, M: Model<W>> Ways<'_, '_, W, M> {
    fn is_end(&self, (shard, index): Place) -> bool {
        let Space { plan, dictionary, shards, .. } = self.space;
        self.worker.model.is_end(&plan.decode(dictionary, shards[shard].key(index)))
    }

    /// The number of the dead end at which the way from a state ends, or [`AN_END`].
    fn follow(&mut self, from: Place) -> u32 {
        let space = self.space;
        let (mut at, mut way) = (from, Vec::new());
        let end = loop {
            let (shard, index) = at;
            let state = id(u32::try_from(shard).unwrap_or(0), index);
            if let Some(end) = self.ends_at.get(&state) {
                break *end;
            }
            way.push(state);
            if self.is_end(at) {
                break AN_END;
            }
            let level = space.levels.partition_point(|(_, starts)| starts[shard] <= index);
            let is_next =
                |(shard, index): Place| space.levels.get(level).is_some_and(|(_, s)| s[shard] <= index);
            match self.batch.next_of(self.worker, space, at, is_next) {
                Some(next) => at = next,
                // Never: a state that is no dead end leads on. If it did not, nothing would be claimed of it.
                None => break AN_END - 1,
            }
        };
        let room = self.most.saturating_sub(self.ends_at.len());
        self.ends_at.extend(way.into_iter().take(room).map(|state| (state, end)));
        end
    }
}

/// Gives each item to some worker.
fn each<M: Send, T: Sync>(
    workers: &mut [Worker<'_, M>],
    items: &[T],
    work: impl Fn(&mut Worker<'_, M>, &T) + Sync,
) {
    let next = AtomicUsize::new(0);
    workers.par_iter_mut().for_each(|worker| {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(worker, item);
        }
    });
}

/// The states of some ranges that are not known to be good.
fn pieces(ranges: impl Iterator<Item = (usize, std::ops::Range<u32>)>, good: &Good) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (shard, range) in ranges {
        let states: Vec<u32> = range.filter(|index| !good.has(shard, *index)).collect();
        pieces.extend(states.chunks(PIECE).map(|states| (shard, states.to_vec())));
    }
    pieces
}

/// Finds those of some states that a step leads to a good one from, and gives the others.
fn lead<const W: usize, M: Model<W>>(
    workers: &mut [Worker<'_, M>],
    space: &Space<W>,
    open: Vec<Piece>,
    good: &Good,
) -> Vec<Piece> {
    each(workers, &open, |worker, (shard, states)| {
        Batch::new().lead(worker, space, (*shard, states), good);
    });
    let still = open.into_iter().map(|(shard, mut states)| {
        states.retain(|index| !good.has(shard, *index));
        (shard, states)
    });
    still.filter(|(_, states)| !states.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet, VecDeque};
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;

    use super::*;
    use crate::{Ends, Outcome, Search, Ways};

    /// A graph: where each actor leads from each node, if it can go on; the nodes below `ends` are ends.
    #[derive(Clone, Debug)]
    struct Graph {
        next: Vec<Vec<Option<u64>>>,
        ends: u64,
        /// Whether the search is told of actors.
        told: bool,
        outcomes: Vec<Outcome<1>>,
    }

    impl Model<1> for Graph {
        fn initial(&self) -> [u64; 1] {
            [self.next.len() as u64 - 1]
        }
        fn expand(&mut self, [node]: &[u64; 1], mut emit: impl FnMut(&[u64; 1], u64)) -> u64 {
            self.next[*node as usize].iter().flatten().for_each(|next| emit(&[*next], 0));
            0
        }
        fn actors(&self) -> usize {
            if self.told { self.next[0].len() } else { 0 }
        }
        fn ways(&mut self, actor: usize, [node]: &[u64; 1]) -> Ways<'_, 1> {
            let outcome =
                self.next[*node as usize][actor].map(|next| Outcome { keep: [0], set: [next], goals: 0 });
            self.outcomes = outcome.into_iter().collect();
            Ways { outcomes: &self.outcomes, read: &[u64::MAX], order: &[] }
        }
        fn is_end(&self, [node]: &[u64; 1]) -> bool {
            *node < self.ends
        }
    }

    impl Graph {
        /// The levels of the nodes from which no end can be reached, by trying every path.
        fn without(&self) -> BTreeMap<u64, u32> {
            let mut levels = BTreeMap::new();
            let mut queue = VecDeque::from([(self.next.len() as u64 - 1, 0)]);
            while let Some((node, level)) = queue.pop_front() {
                if levels.contains_key(&node) {
                    continue;
                }
                levels.insert(node, level);
                queue.extend(self.next[node as usize].iter().flatten().map(|next| (*next, level + 1)));
            }
            levels.retain(|node, _| {
                let (mut seen, mut open) = (BTreeSet::new(), vec![*node]);
                while let Some(node) = open.pop() {
                    if seen.insert(node) {
                        open.extend(self.next[node as usize].iter().flatten());
                    }
                }
                seen.iter().all(|node| *node >= self.ends)
            });
            levels
        }
    }

    fn graphs() -> impl Strategy<Value = Graph> {
        (2u64..400, 1usize..4).prop_flat_map(|(nodes, actors)| {
            let edge = prop::option::weighted(0.7, 0..nodes);
            let next = prop::collection::vec(prop::collection::vec(edge, actors), nodes as usize);
            (next, 0..nodes.min(9), any::<bool>()).prop_map(|(next, ends, told)| Graph {
                next,
                ends,
                told,
                outcomes: Vec::new(),
            })
        })
    }

    proptest! {
        #[test]
        fn the_first_state_without_a_way_to_an_end_is_found(graph in graphs(), threads in 1usize..4) {
            let without = graph.without();
            let ends = Some(Ends { goal: 7, unless: 0 });
            let explored = Search { ends, ..Search::default() }.run(&mut vec![graph; threads]);
            prop_assert!(explored.asked_ends);
            let found = explored.reached.first().map(|r| (r.goal, r.transition, r.depth));
            prop_assert_eq!(found, without.values().min().map(|level| (7, None, *level)));
            if let Some(reached) = explored.reached.first() {
                prop_assert!(without.contains_key(&explored.state(reached.state)[0]));
                prop_assert_eq!(explored.path(reached.state).len(), reached.depth as usize + 1);
            }
        }
    }

    /// A line of nodes, the last of which leads to the one before it, or else to an end beside the line.
    fn line(nodes: u64, last: u64, told: bool) -> Graph {
        let mut next: Vec<_> = (0..nodes).map(|node| vec![Some(node.saturating_sub(1))]).collect();
        (next[0], next[1]) = (vec![None], vec![Some(last)]);
        Graph { next, ends: 1, told, outcomes: Vec::new() }
    }

    #[test]
    fn a_dead_end_of_the_search_may_lead_back_to_where_an_end_is_near() {
        for told in [false, true] {
            let ends = Some(Ends { goal: 7, unless: 0 });
            // The line ends in a round of two nodes, and no end is ever reached.
            let bad = Search { ends, ..Search::default() }.run(&mut [line(9, 2, told)]);
            assert_eq!(bad.reached.iter().map(|r| r.depth).collect::<Vec<_>>(), [0]);
            // The same, but from the middle of the line a step leads to the end.
            let mut graph = line(9, 2, told);
            graph.next.iter_mut().for_each(|next| next.push(None));
            graph.next[5][1] = Some(0);
            let good = Search { ends, ..Search::default() }.run(&mut [graph]);
            assert_eq!(good.reached.iter().map(|r| r.depth).collect::<Vec<_>>(), [4]);
            let mut graph = line(9, 8, told);
            graph.next.iter_mut().for_each(|next| next.push(None));
            graph.next[5][1] = Some(0);
            let good = Search { ends, ..Search::default() }.run(&mut [graph]);
            assert!(good.asked_ends && good.reached.is_empty());
        }
    }

    /// A graph in which somebody interrupts the search once it is asked what an end is.
    struct Interrupting<'f>(Graph, &'f AtomicBool);

    impl Model<1> for Interrupting<'_> {
        fn initial(&self) -> [u64; 1] {
            self.0.initial()
        }
        fn expand(&mut self, state: &[u64; 1], emit: impl FnMut(&[u64; 1], u64)) -> u64 {
            self.0.expand(state, emit)
        }
        fn is_end(&self, state: &[u64; 1]) -> bool {
            self.1.store(true, Ordering::Relaxed);
            self.0.is_end(state)
        }
    }

    #[test]
    fn the_question_ends_when_it_is_interrupted() {
        let flag = AtomicBool::new(false);
        let search =
            Search { ends: Some(Ends { goal: 7, unless: 0 }), interrupted: Some(&flag), ..Search::default() };
        let explored = search.run(&mut [Interrupting(line(9, 2, false), &flag)]);
        assert_eq!((explored.bound, explored.asked_ends), (Some(Bound::Interrupted), false));
        assert!(explored.whole && explored.reached.is_empty());
    }

    #[test]
    fn a_search_that_ended_early_or_reached_what_matters_more_does_not_ask() {
        let graph =
            Graph { next: vec![vec![None], vec![Some(0)]], ends: 0, told: false, outcomes: Vec::new() };
        let ends = Some(Ends { goal: 7, unless: 0 });
        let whole = Search { ends, ..Search::default() }.run(&mut [graph.clone()]);
        assert!(whole.asked_ends && whole.reached.len() == 1);
        let limits = crate::Limits { depth: 1, ..Default::default() };
        let early = Search { ends, limits, ..Search::default() }.run(&mut [graph]);
        assert!(!early.asked_ends && early.reached.is_empty());
    }
}
