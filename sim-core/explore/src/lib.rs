//! Exploration of every interleaving, breadth-first by levels, so that the first way found to reach a goal is a
//! shortest one.
//!
//! States are packed words and the state itself is stored: there is no hash collision to argue about. Each
//! state keeps its predecessor and the number of the transition that first reached it, so that a story costs
//! no second search.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

/// What is explored.
pub trait Model {
    /// 64-bit words of a state.
    fn words(&self) -> usize;
    /// Writes the initial state.
    fn initial(&self, state: &mut [u64]);
    /// Calls `emit` for each transition out of a state, in a fixed order, with the successor and the goals
    /// that the transition reaches (a bit each). Returns the goals that the state itself reaches.
    fn expand(&mut self, state: &[u64], emit: &mut dyn FnMut(&[u64], u64)) -> u64;
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

/// The visited states: words in a row, found by open addressing over their numbers.
struct Table {
    words: usize,
    states: Vec<u64>,
    slots: Vec<u32>,
    count: u32,
}

const EMPTY: u32 = u32::MAX;

fn hash(state: &[u64]) -> u64 {
    let mut h = 0x9e37_79b9_7f4a_7c15u64;
    for w in state {
        h = (h ^ w).wrapping_mul(0xd6e8_feb8_6659_fd93);
        h ^= h >> 32;
    }
    h.wrapping_mul(0xd6e8_feb8_6659_fd93)
}

impl Table {
    fn new(words: usize) -> Table {
        Table { words, states: Vec::new(), slots: vec![EMPTY; 1 << 10], count: 0 }
    }

    fn state(&self, index: u32) -> &[u64] {
        &self.states[index as usize * self.words..][..self.words]
    }

    fn slot_of(&self, state: &[u64]) -> usize {
        let bits = self.slots.len().trailing_zeros();
        usize::try_from(hash(state) >> (64 - bits)).unwrap_or(0)
    }

    /// Stores a state if it is new.
    fn insert(&mut self, state: &[u64]) -> bool {
        if self.count as usize * 3 >= self.slots.len() * 2 {
            self.grow();
        }
        let mask = self.slots.len() - 1;
        let mut at = self.slot_of(state);
        while self.slots[at] != EMPTY {
            if self.state(self.slots[at]) == state {
                return false;
            }
            at = (at + 1) & mask;
        }
        self.slots[at] = self.count;
        self.states.extend_from_slice(state);
        self.count += 1;
        true
    }

    fn grow(&mut self) {
        let size = self.slots.len() * 2;
        self.slots.clear();
        self.slots.resize(size, EMPTY);
        let mask = size - 1;
        for index in 0..self.count {
            let mut at = self.slot_of(self.state(index));
            while self.slots[at] != EMPTY {
                at = (at + 1) & mask;
            }
            self.slots[at] = index;
        }
    }

    fn bytes(&self) -> u64 {
        (self.states.capacity() * 8 + self.slots.capacity() * 4) as u64
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
    pub fn run<M: Model>(mut self, model: &mut M) -> Explored {
        let words = model.words();
        let mut table = Table::new(words);
        let mut came_from: Vec<(u32, u32)> = vec![(0, 0)];
        let mut current = vec![0; words];
        model.initial(&mut current);
        table.insert(&current);
        let mut reached: Vec<Reached> = Vec::new();
        let mut seen = 0u64;
        let (mut transitions, mut depth, mut bound) = (0u64, 0u32, None);
        let mut level_end = 1u32;
        let mut at = 0u32;
        while at < table.count {
            if at == level_end {
                depth += 1;
                level_end = table.count;
                if depth >= self.limits.depth {
                    bound = Some(Bound::Depth(self.limits.depth));
                    break;
                }
            }
            if at & 0xffff == 0 {
                let memory = table.bytes() + came_from.capacity() as u64 * 8;
                if let Some(progress) = &mut self.progress {
                    progress(Progress { states: table.count, expanded: at, depth, memory });
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
            if table.count >= self.limits.states {
                bound = Some(Bound::States(self.limits.states));
                break;
            }
            current.copy_from_slice(table.state(at));
            let mut number = 0u32;
            let note = |goals: u64, transition: Option<u32>, seen: &mut u64, reached: &mut Vec<Reached>| {
                let mut fresh = goals & !*seen;
                *seen |= fresh;
                while fresh != 0 {
                    let steps = depth + u32::from(transition.is_some());
                    let goal = fresh.trailing_zeros();
                    reached.push(Reached { goal, state: at, transition, depth: steps });
                    fresh &= fresh - 1;
                }
            };
            let own = model.expand(&current, &mut |next, goals| {
                if table.insert(next) {
                    came_from.push((at, number));
                }
                if goals != 0 {
                    note(goals, Some(number), &mut seen, &mut reached);
                }
                number += 1;
            });
            note(own, None, &mut seen, &mut reached);
            transitions += u64::from(number);
            at += 1;
            if self.stop_at != 0 && seen & self.stop_at == self.stop_at {
                break;
            }
        }
        Explored { words, states: table.states, came_from, transitions, depth, bound, reached }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two counters from 0 to 3, each may go up by one: 16 states, 24 transitions, 6 levels.
    struct Grid;

    impl Model for Grid {
        fn words(&self) -> usize {
            1
        }
        fn initial(&self, state: &mut [u64]) {
            state[0] = 0;
        }
        fn expand(&mut self, state: &[u64], emit: &mut dyn FnMut(&[u64], u64)) -> u64 {
            let (x, y) = (state[0] & 3, state[0] >> 2);
            if x < 3 {
                emit(&[state[0] + 1], u64::from(x == 2 && y == 1));
            }
            if y < 3 {
                emit(&[state[0] + 4], 0);
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
