//! Exploration of every interleaving, breadth-first by levels, so that the first way found to reach a goal is a
//! shortest one.
//!
//! States are packed words and the state itself is stored: there is no hash collision to argue about. Each
//! state keeps its predecessor and the number of the transition that first reached it, so that a story costs
//! no second search.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

/// What is explored, in states of `W` words: the width is known when the search is compiled, for a state is
/// copied, hashed and compared more often than anything else is done.
pub trait Model<const W: usize> {
    /// The initial state.
    fn initial(&self) -> [u64; W];
    /// Calls `emit` for each transition out of a state, in a fixed order, with the successor and the goals
    /// that the transition reaches (a bit each). Returns the goals that the state itself reaches.
    fn expand(&mut self, state: &[u64; W], emit: impl FnMut(&[u64; W], u64)) -> u64;
}

/// Every bound of a search. A search that met one says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// States stored.
    pub states: u32,
    /// Levels expanded.
    pub depth: u32,
    /// Bytes of the table and the states.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { states: 100_000_000, depth: u32::MAX, memory: 8 << 30 }
    }
}

/// Which bound ended a search before the space did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// [`Limits::states`].
    States(u32),
    /// [`Limits::depth`].
    Depth(u32),
    /// [`Limits::memory`].
    Memory(u64),
    /// Somebody asked it to stop.
    Interrupted,
}

/// The first time a goal was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Bit of the goal.
    pub goal: u32,
    /// The state whose transition reached it, or that is it.
    pub state: u32,
    /// The transition; `None` if the state itself is the goal.
    pub transition: Option<u32>,
    /// Steps from the initial state, this transition included.
    pub depth: u32,
}

/// What a search came to.
#[derive(Debug)]
pub struct Explored {
    words: usize,
    states: Vec<u64>,
    came_from: Vec<(u32, u32)>,
    /// Transitions made.
    pub transitions: u64,
    /// Levels of the search: the length of the longest shortest path.
    pub depth: u32,
    /// Which bound ended it; `None` if every reachable state was expanded.
    pub bound: Option<Bound>,
    /// Each goal's first time.
    pub reached: Vec<Reached>,
}

/// Progress of a search, told now and then.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// States stored.
    pub states: u32,
    /// States expanded.
    pub expanded: u32,
    /// Level.
    pub depth: u32,
    /// Bytes in use.
    pub memory: u64,
}

impl Explored {
    /// States stored.
    #[must_use]
    pub fn states(&self) -> u32 {
        u32::try_from(self.came_from.len()).unwrap_or(u32::MAX)
    }

    /// A stored state.
    #[must_use]
    pub fn state(&self, index: u32) -> &[u64] {
        &self.states[index as usize * self.words..][..self.words]
    }

    /// The transitions' numbers from the initial state to a goal, each with the state it leaves.
    #[must_use]
    pub fn path(&self, reached: &Reached) -> Vec<(u32, u32)> {
        let mut path = Vec::new();
        path.extend(reached.transition.map(|t| (reached.state, t)));
        let mut at = reached.state;
        while at != 0 {
            let (parent, transition) = self.came_from[at as usize];
            path.push((parent, transition));
            at = parent;
        }
        path.reverse();
        path
    }
}

/// The visited states, found by open addressing. A slot holds a state's number below and 32 bits of its hash
/// above. Its place comes from the top of those bits, so that a table that grows needs no state to be read: its
/// slots move in order.
struct Table<const W: usize> {
    states: Vec<[u64; W]>,
    slots: Vec<u64>,
}

const EMPTY: u64 = u64::MAX;

fn hash<const W: usize>(state: &[u64; W]) -> u32 {
    let mut h = 0x9e37_79b9_7f4a_7c15u64;
    for w in state {
        h = (h ^ w).wrapping_mul(0xd6e8_feb8_6659_fd93);
        h ^= h >> 32;
    }
    high(h.wrapping_mul(0xd6e8_feb8_6659_fd93))
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

impl<const W: usize> Table<W> {
    fn new() -> Table<W> {
        Table { states: Vec::new(), slots: vec![EMPTY; 1 << 12] }
    }

    fn count(&self) -> u32 {
        u32::try_from(self.states.len()).unwrap_or(u32::MAX)
    }

    fn slot_of(&self, hash: u32) -> usize {
        let bits = self.slots.len().trailing_zeros();
        usize::try_from(u64::from(hash) << bits >> 32).unwrap_or(0)
    }

    /// Makes room for so many more states.
    fn reserve(&mut self, more: usize) {
        while (self.states.len() + more) * 3 >= self.slots.len() * 2 {
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

    /// Stores a state if it is new. There must be room.
    fn insert(&mut self, state: &[u64; W], hash: u32) -> bool {
        let mask = self.slots.len() - 1;
        let mut at = self.slot_of(hash);
        loop {
            let slot = self.slots[at];
            if slot == EMPTY {
                break;
            }
            if high(slot) == hash && self.states[low(slot) as usize] == *state {
                return false;
            }
            at = (at + 1) & mask;
        }
        self.slots[at] = u64::from(hash) << 32 | u64::from(self.count());
        self.states.push(*state);
        true
    }

    /// Touches what the insertions of a batch will need: independent loads, whose misses overlap.
    fn read_ahead(&self, hashes: &[u32], ahead: &mut Vec<u64>) -> u64 {
        ahead.clear();
        ahead.extend(hashes.iter().map(|h| self.slots[self.slot_of(*h)]));
        let mut sum = 0u64;
        for (slot, hash) in ahead.iter().zip(hashes) {
            if *slot != EMPTY && high(*slot) == *hash {
                sum = sum.wrapping_add(self.states[low(*slot) as usize][0]);
            }
        }
        sum
    }

    fn bytes(&self) -> u64 {
        (self.states.capacity() * W * 8 + self.slots.capacity() * 8) as u64
    }
}

/// States expanded before their successors are looked up together.
const BATCH: u32 = 128;

/// Successors of a batch of states, in order.
struct Successors<const W: usize> {
    states: Vec<[u64; W]>,
    hashes: Vec<u32>,
    /// State that it leaves, number of the transition.
    from: Vec<(u32, u32)>,
    /// Goals reached: state, transition that reached it (none for the state itself), goals.
    goals: Vec<(u32, Option<u32>, u64)>,
}

impl<const W: usize> Successors<W> {
    fn new() -> Self {
        Successors { states: Vec::new(), hashes: Vec::new(), from: Vec::new(), goals: Vec::new() }
    }

    fn clear(&mut self) {
        self.states.clear();
        self.hashes.clear();
        self.from.clear();
        self.goals.clear();
    }
}

/// How a search is run.
#[derive(Default)]
pub struct Search<'a> {
    /// Bounds.
    pub limits: Limits,
    /// The search ends once each of these goals was reached; 0 lets it go on to the end of the space.
    pub stop_at: u64,
    /// Ends the search soon after it becomes true.
    pub interrupted: Option<&'a AtomicBool>,
    /// Told about every 65,536 states.
    pub progress: Option<&'a mut (dyn FnMut(Progress) + 'a)>,
}

impl std::fmt::Debug for Search<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Search").field("limits", &self.limits).field("stop_at", &self.stop_at).finish()
    }
}

impl Search<'_> {
    /// Explores a model.
    ///
    /// States are expanded in batches within a level, and the successors of a batch looked up together; the
    /// order of states, and with it every number and story, is that of one after the other.
    pub fn run<const W: usize, M: Model<W>>(mut self, model: &mut M) -> Explored {
        let mut table = Table::<W>::new();
        let mut came_from: Vec<(u32, u32)> = vec![(0, 0)];
        let initial = model.initial();
        table.insert(&initial, hash(&initial));
        let mut goals = Goals::default();
        let (mut transitions, mut depth, mut bound) = (0u64, 0u32, None);
        let mut level_end = 1u32;
        let mut at = 0u32;
        let mut batch = Successors::<W>::new();
        let mut ahead = Vec::new();
        let mut told = 0u32;
        while at < table.count() {
            if at == level_end {
                depth += 1;
                level_end = table.count();
                if depth >= self.limits.depth {
                    bound = Some(Bound::Depth(self.limits.depth));
                    break;
                }
            }
            if at == 0 || at - told >= 1 << 14 {
                told = at;
                let memory = table.bytes() + came_from.capacity() as u64 * 8;
                if let Some(progress) = &mut self.progress {
                    progress(Progress { states: table.count(), expanded: at, depth, memory });
                }
                if self.interrupted.is_some_and(|i| i.load(Ordering::Relaxed)) {
                    bound = Some(Bound::Interrupted);
                    break;
                }
                if memory > self.limits.memory {
                    bound = Some(Bound::Memory(self.limits.memory));
                    break;
                }
            }
            if table.count() >= self.limits.states {
                bound = Some(Bound::States(self.limits.states));
                break;
            }
            let end = level_end.min(at.saturating_add(BATCH));
            batch.clear();
            for state in at..end {
                let current = table.states[state as usize];
                let mut number = 0u32;
                let own = model.expand(&current, |next, goals| {
                    batch.states.push(*next);
                    batch.hashes.push(hash(next));
                    batch.from.push((state, number));
                    if goals != 0 {
                        batch.goals.push((state, Some(number), goals));
                    }
                    number += 1;
                });
                if own != 0 {
                    batch.goals.push((state, None, own));
                }
            }
            table.reserve(batch.hashes.len());
            std::hint::black_box(table.read_ahead(&batch.hashes, &mut ahead));
            for (i, from) in batch.from.iter().enumerate() {
                if table.insert(&batch.states[i], batch.hashes[i]) {
                    came_from.push(*from);
                }
            }
            for (state, transition, reached) in &batch.goals {
                goals.note(*reached, *state, *transition, depth + u32::from(transition.is_some()));
            }
            transitions += batch.from.len() as u64;
            at = end;
            if self.stop_at != 0 && goals.seen & self.stop_at == self.stop_at {
                break;
            }
        }
        let reached = goals.reached;
        let states = table.states.into_flattened();
        Explored { words: W, states, came_from, transitions, depth, bound, reached }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Two counters from 0 to 3, each may go up by one: 16 states, 24 transitions, 6 levels.
    struct Grid;

    impl Model<1> for Grid {
        fn initial(&self) -> [u64; 1] {
            [0]
        }
        fn expand(&mut self, [state]: &[u64; 1], mut emit: impl FnMut(&[u64; 1], u64)) -> u64 {
            let (x, y) = (state & 3, state >> 2);
            if x < 3 {
                emit(&[state + 1], u64::from(x == 2 && y == 1));
            }
            if y < 3 {
                emit(&[state + 4], 0);
            }
            u64::from(x == 3 && y == 3) << 1
        }
    }

    #[test]
    fn every_state_is_found_once_and_goals_at_their_shortest() {
        let explored = Search::default().run(&mut Grid);
        assert_eq!((explored.states(), explored.transitions, explored.depth), (16, 24, 6));
        assert_eq!(explored.bound, None);
        let goal = explored.reached[0];
        assert_eq!((goal.goal, goal.depth), (0, 4));
        assert_eq!(explored.path(&goal).len(), 4);
        assert_eq!(explored.reached[1].depth, 6);
    }

    #[test]
    fn a_bound_that_is_met_is_named() {
        let limits = Limits { states: 5, ..Limits::default() };
        let explored = Search { limits, ..Search::default() }.run(&mut Grid);
        assert_eq!(explored.bound, Some(Bound::States(5)));
        let limits = Limits { depth: 2, ..Limits::default() };
        let explored = Search { limits, ..Search::default() }.run(&mut Grid);
        assert_eq!((explored.bound, explored.states()), (Some(Bound::Depth(2)), 6));
    }
}
