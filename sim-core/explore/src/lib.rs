//! Exploration of every interleaving, breadth-first by levels, so that the first way found to reach a goal is a
//! shortest one.
//!
//! States are packed words and the state itself is stored: there is no hash collision to argue about. Each
//! state keeps its predecessor and the number of the transition that first reached it, so that a story costs
//! no second search.
#![forbid(unsafe_code)]

mod search;
mod table;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use table::{id, index_of, length, shard_of};

/// What is explored, in states of `W` words: the width is known when the search is compiled, for a state is
/// copied, hashed and compared more often than anything else is done.
pub trait Model<const W: usize>: Send {
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
    /// How long it may take; where such a search ends depends on the machine.
    pub time: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { states: 100_000_000, depth: u32::MAX, memory: 8 << 30, time: None }
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
    /// [`Limits::time`].
    Time(Duration),
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
    shards: Vec<Stored>,
    words: usize,
    root: u32,
    /// Transitions made.
    pub transitions: u64,
    /// Levels of the search: the length of the longest shortest path.
    pub depth: u32,
    /// Which bound ended it; `None` if every reachable state was expanded.
    pub bound: Option<Bound>,
    /// Bytes that the table, the states and the lists of successors took in the end, which is the most they took.
    pub memory: u64,
    /// Each goal's first time.
    pub reached: Vec<Reached>,
}

/// The states of a shard, and how each was first reached: the state that was left, and the number of the
/// transition.
#[derive(Debug)]
struct Stored {
    states: Vec<u64>,
    came_from: Vec<(u32, u32)>,
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
        self.shards.iter().fold(0, |n, s| n + length(&s.came_from))
    }

    /// The numbers of the stored states, in no telling order.
    pub fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        (0u32..).zip(&self.shards).flat_map(|(shard, s)| (0..length(&s.came_from)).map(move |i| id(shard, i)))
    }

    /// A stored state.
    #[must_use]
    pub fn state(&self, id: u32) -> &[u64] {
        &self.shards[shard_of(id)].states[index_of(id) * self.words..][..self.words]
    }

    /// The transitions' numbers from the initial state to a goal, each with the state it leaves.
    #[must_use]
    pub fn path(&self, reached: &Reached) -> Vec<(u32, u32)> {
        let mut path = Vec::new();
        path.extend(reached.transition.map(|t| (reached.state, t)));
        let mut at = reached.state;
        while at != self.root {
            let (parent, transition) = self.shards[shard_of(at)].came_from[index_of(at)];
            path.push((parent, transition));
            at = parent;
        }
        path.reverse();
        path
    }
}

/// How a search is run.
#[derive(Default)]
pub struct Search<'a> {
    /// Bounds.
    pub limits: Limits,
    /// The search ends once each of these goals was reached; 0 lets it go on to the end of the space.
    pub stop_at: u64,
    /// The search ends once any of these goals was reached.
    pub stop_at_any: u64,
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
        let explored = Search::default().run(&mut [Grid]);
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
        let explored = Search { limits, ..Search::default() }.run(&mut [Grid]);
        assert_eq!(explored.bound, Some(Bound::States(5)));
        let limits = Limits { depth: 2, ..Limits::default() };
        let explored = Search { limits, ..Search::default() }.run(&mut [Grid]);
        assert_eq!((explored.bound, explored.states()), (Some(Bound::Depth(2)), 6));
    }

    #[test]
    fn a_search_ends_at_the_first_of_some_goals_and_when_its_time_is_over() {
        let explored = Search { stop_at_any: 3, ..Search::default() }.run(&mut [Grid]);
        assert_eq!((explored.reached.len(), explored.reached[0].depth), (1, 4));
        assert!(explored.states() < 16, "it went on");
        let none = Duration::ZERO;
        let limits = Limits { time: Some(none), ..Limits::default() };
        let explored = Search { limits, ..Search::default() }.run(&mut [Endless]);
        assert_eq!((explored.bound, explored.depth), (Some(Bound::Time(none)), 0));
    }

    /// Three counters from 0 to 50: levels wide enough for several chunks.
    struct Cube;

    impl Model<2> for Cube {
        fn initial(&self) -> [u64; 2] {
            [0, 0]
        }
        fn expand(&mut self, [xy, z]: &[u64; 2], mut emit: impl FnMut(&[u64; 2], u64)) -> u64 {
            let (x, y) = (xy & 63, xy >> 6);
            for next in [[xy + 1, *z], [xy + 64, *z], [*xy, z + 1]] {
                if next[0] & 63 <= 50 && next[0] >> 6 <= 50 && next[1] <= 50 {
                    emit(&next, u64::from(x == 40 && y == 40 && *z == 40));
                }
            }
            0
        }
    }

    /// A walk on a grid without borders in six dimensions: its space never ends.
    struct Endless;

    impl Model<3> for Endless {
        fn initial(&self) -> [u64; 3] {
            [0; 3]
        }
        fn expand(&mut self, state: &[u64; 3], mut emit: impl FnMut(&[u64; 3], u64)) -> u64 {
            for axis in 0..3 {
                for half in [0, 32] {
                    let mut next = *state;
                    next[axis] += 1 << half;
                    emit(&next, 0);
                }
            }
            0
        }
    }

    #[test]
    fn a_space_that_never_ends_keeps_within_the_memory_and_uses_it() {
        for limit in [4 << 20, 10_000_000, 48 << 20, 70_000_000] {
            let run = |mut models: Vec<Endless>| {
                let limits = Limits { memory: limit, ..Limits::default() };
                Search { limits, ..Search::default() }.run(&mut models)
            };
            let one = run(vec![Endless]);
            assert_eq!(one.bound, Some(Bound::Memory(limit)));
            assert!(one.memory <= limit + limit / 20, "{} of {limit}", one.memory);
            assert!(one.memory * 10 >= limit * 8, "{} of {limit}", one.memory);
            let three = run(vec![Endless, Endless, Endless]);
            assert_eq!(
                (one.states(), one.transitions, one.depth),
                (three.states(), three.transitions, three.depth)
            );
        }
    }

    #[test]
    fn a_space_that_never_ends_keeps_within_the_number_of_states() {
        for limit in [1_000, 50_000, 300_000] {
            let limits = Limits { states: limit, ..Limits::default() };
            let explored = Search { limits, ..Search::default() }.run(&mut [Endless]);
            assert!((limit..=limit + limit / 20).contains(&explored.states()), "{}", explored.states());
        }
    }

    #[test]
    fn threads_change_nothing() {
        let limits = Limits { states: 120_000, ..Limits::default() };
        for limits in [Limits::default(), limits] {
            let run = |mut models: Vec<Cube>| Search { limits, ..Search::default() }.run(&mut models);
            let one = run(vec![Cube]);
            let four = run(vec![Cube, Cube, Cube, Cube]);
            assert_eq!(one.states(), four.states());
            assert_eq!((one.transitions, one.depth, one.bound), (four.transitions, four.depth, four.bound));
            assert_eq!(one.reached, four.reached);
            assert!(one.ids().eq(four.ids()));
            assert!(one.ids().all(|id| one.state(id) == four.state(id)));
            for goal in &one.reached {
                assert_eq!(one.path(goal), four.path(goal));
                assert_eq!(one.path(goal).len(), 121);
            }
            match one.bound {
                None => assert_eq!((one.states(), one.depth), (51 * 51 * 51, 150)),
                Some(_) => assert!((120_000..121_000).contains(&one.states()), "{}", one.states()),
            }
        }
    }
}
