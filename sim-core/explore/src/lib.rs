//! Exploration of every interleaving, breadth-first by levels, so that the first way found to reach a goal is a
//! shortest one.
//!
//! States are packed words, and what is stored gives the state back bit by bit: there is no hash collision to argue
//! about. From which state each was first reached is kept in about two bytes, so that a story costs no second search.
#![forbid(unsafe_code)]

mod checkpoint;
mod decisions;
mod dictionary;
mod ends;
mod expand;
mod frozen;
mod pages;
mod ranks;
mod search;
mod space;
mod table;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use space::States;
use table::{SHARDS, id};

/// What is explored, in states of `W` words: the width is known when the search is compiled, for a state is
/// copied, hashed and compared more often than anything else is done.
pub trait Model<const W: usize>: Send {
    /// The initial state.
    fn initial(&self) -> [u64; W];
    /// Calls `emit` for each transition out of a state, in a fixed order, with the successor and the goals
    /// that the transition reaches (a bit each). Returns the goals that the state itself reaches.
    fn expand(&mut self, state: &[u64; W], emit: impl FnMut(&[u64; W], u64)) -> u64;
    /// How many actors there are, if a state's transitions are those of one actor after the other, each as
    /// [`Model::ways`] says; 0 if there is more to them. Then the search learns what the actors do and asks less.
    fn actors(&self) -> usize {
        0
    }
    /// Whether what the actors do may be learned, rather than asked for every state.
    fn is_learned(&self) -> bool {
        true
    }
    /// Every way in which an actor can go on from a state, in the order of [`Model::expand`].
    fn ways(&mut self, actor: usize, state: &[u64; W]) -> Ways<'_, W> {
        let _ = (actor, state);
        Ways { outcomes: &[], read: &[0; W], order: &[] }
    }
    /// Whether an actor's transitions count as progress.
    fn is_progress(&self, actor: usize) -> bool {
        let _ = actor;
        true
    }
    /// Whether an actor's steps are the most likely to lead to an end ([`Model::is_end`]). It decides nothing but how soon a
    /// way there is found.
    fn is_towards_end(&self, actor: usize) -> bool {
        let _ = actor;
        true
    }
    /// The goals that a state reaches in which nobody made progress.
    fn stuck(&self, state: &[u64; W]) -> u64 {
        let _ = state;
        0
    }
    /// Whether a state is one that the search should always be able to come to ([`Search::ends`]).
    fn is_end(&self, state: &[u64; W]) -> bool {
        let _ = state;
        true
    }
    /// Told, before the search, how many bytes of tables it may keep for its own use.
    fn keep_within(&mut self, bytes: u64) {
        let _ = bytes;
    }
}

/// Every way in which an actor can go on from a state.
#[derive(Clone, Copy, Debug)]
pub struct Ways<'m, const W: usize> {
    /// What each does.
    pub outcomes: &'m [Outcome<W>],
    /// The bits that decide what the ways are. From states alike in these the ways are the same.
    pub read: &'m [u64; W],
    /// The half word of some of these bits (the low one of the first word is 0) and the bits in it, in the order in
    /// which they were read, as far as that is known.
    pub order: &'m [(u8, u32)],
}

/// What one way of a step does.
#[derive(Clone, Debug)]
pub struct Outcome<const W: usize> {
    /// The bits that it does not write.
    pub keep: [u64; W],
    /// Those that it sets.
    pub set: [u64; W],
    /// The goals that it reaches, a bit each.
    pub goals: u64,
}

impl<const W: usize> Outcome<W> {
    /// The state that it leads to.
    #[expect(clippy::needless_range_loop, reason = "three arrays of one length: no iterator is as fast")]
    #[inline]
    #[must_use]
    pub fn of(&self, state: &[u64; W]) -> [u64; W] {
        let mut next = *state;
        for w in 0..W {
            next[w] = next[w] & self.keep[w] | self.set[w];
        }
        next
    }
}

/// Every bound of a search. A search that met one says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// States stored.
    pub states: u32,
    /// Levels expanded.
    pub depth: u32,
    /// Bytes of the table and the states, and of what is beside them.
    pub memory: u64,
    /// Bytes that the process takes without a search. At most a quarter of the memory is set aside for it.
    pub beside: u64,
    /// How long it may take; where such a search ends depends on the machine.
    pub time: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { states: 100_000_000, depth: u32::MAX, memory: 8 << 30, beside: 0, time: None }
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
    /// The disk failed ([`Explored::error`]).
    Disk,
    /// A bound of the model's own: what there is no more of in it.
    Model(&'static str),
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

/// Asks whether an end ([`Model::is_end`]) can be reached from every state.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The goal that the first state is from which none can be.
    pub goal: u32,
    /// It is not asked if one of these goals was reached.
    pub unless: u64,
}

/// What a search came to.
#[derive(Debug)]
pub struct Explored {
    states: Box<dyn States>,
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
    /// Whether every reachable state was expanded.
    pub whole: bool,
    /// Whether [`Search::ends`] was asked: not if the search ended early, and not if states are on the disk.
    pub asked_ends: bool,
    /// What the disk said, if it failed.
    pub error: Option<io::Error>,
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
    /// States found since this search began: fewer than all if it went on from a checkpoint.
    pub fresh: u32,
    /// States of the level before this one, and of this one.
    pub levels: [u32; 2],
}

impl Explored {
    /// A search that did not begin.
    fn failed(states: impl States + 'static, error: io::Error) -> Self {
        Explored {
            states: Box::new(states),
            transitions: 0,
            depth: 0,
            bound: Some(Bound::Disk),
            memory: 0,
            reached: Vec::new(),
            whole: false,
            asked_ends: false,
            error: Some(error),
        }
    }

    /// States stored.
    #[must_use]
    pub fn states(&self) -> u32 {
        self.states.len()
    }

    /// The numbers of the stored states, in no telling order.
    pub fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        let shards = u32::try_from(SHARDS).unwrap_or(0);
        (0..shards).flat_map(|shard| (0..self.states.of_shard(shard)).map(move |i| id(shard, i)))
    }

    /// A stored state; empty if it is on a disk that failed.
    #[must_use]
    pub fn state(&self, id: u32) -> Vec<u64> {
        self.states.state(id).unwrap_or_default()
    }

    /// The states on a shortest way to one, which is the last of them. Which transition leads from one to the next
    /// is not kept: it is the first that does.
    #[must_use]
    pub fn path(&self, id: u32) -> Vec<u32> {
        let mut path = vec![id];
        while let Some(parent) = path.last().and_then(|id| self.states.parent(*id)) {
            path.push(parent);
        }
        path.reverse();
        path
    }
}

/// A folder for states that have no room in memory and for checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The folder, which is this search's alone.
    pub dir: PathBuf,
    /// A checkpoint is written so often at most, and at the end of a search that met a bound.
    pub every: Duration,
    /// Tells searches apart: a checkpoint of another one is refused.
    pub fingerprint: u64,
    /// Whether the search goes on where the checkpoint was written, if there is one.
    pub resume: bool,
}

/// How a search is run.
#[derive(Default)]
pub struct Search<'a> {
    /// Bounds.
    pub limits: Limits,
    /// Where states go when memory ends, and from where the search can go on later.
    pub disk: Option<Disk>,
    /// The search ends once each of these goals was reached; 0 lets it go on to the end of the space.
    pub stop_at: u64,
    /// The search ends once any of these goals was reached.
    pub stop_at_any: u64,
    /// If the search came to the end of the space: whether an end can be reached from every state.
    pub ends: Option<Ends>,
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
    use std::collections::BTreeSet;

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
        assert_eq!(explored.path(goal.state).len(), 4);
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
        assert_eq!(explored.states(), 10, "what the round of the goal found is not stored");
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
        for limit in [4 << 20, 10_000_000, 15_000_000] {
            let run = |mut models: Vec<Endless>| {
                let limits = Limits { memory: limit, ..Limits::default() };
                Search { limits, ..Search::default() }.run(&mut models)
            };
            let one = run(vec![Endless]);
            assert_eq!(one.bound, Some(Bound::Memory(limit)));
            assert!(one.memory <= limit + limit / 20, "{} of {limit}", one.memory);
            assert!(one.memory * 10 >= limit * 7, "{} of {limit}", one.memory);
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

    /// Three counters from 0 to 60 that go up and down and around: most steps lead to states of earlier levels.
    struct Torus;

    impl Model<2> for Torus {
        fn initial(&self) -> [u64; 2] {
            [0, 0]
        }
        fn expand(&mut self, [xy, z]: &[u64; 2], mut emit: impl FnMut(&[u64; 2], u64)) -> u64 {
            let (x, y) = (xy & 63, xy >> 6);
            for by in [1, 60] {
                emit(&[((x + by) % 61) | (y << 6), *z], u64::from(x == 18 && y == 18 && *z == 18));
                emit(&[x | (((y + by) % 61) << 6), *z], 0);
                emit(&[*xy, (z + by) % 61], 0);
            }
            0
        }
    }

    /// The torus as six actors, who read no more than they need; and one who has nothing to do but where all is 60, where
    /// he stands still, and whose steps are no progress.
    #[derive(Default)]
    struct Actors {
        outcomes: Vec<Outcome<2>>,
        read: [u64; 2],
        order: Vec<(u8, u32)>,
        asked: u64,
    }

    impl Model<2> for Actors {
        fn initial(&self) -> [u64; 2] {
            [0, 0]
        }
        fn expand(&mut self, _: &[u64; 2], _: impl FnMut(&[u64; 2], u64)) -> u64 {
            panic!("it need not be asked so");
        }
        fn actors(&self) -> usize {
            7
        }
        fn ways(&mut self, actor: usize, [xy, z]: &[u64; 2]) -> Ways<'_, 2> {
            self.asked += 1;
            self.outcomes.clear();
            let (x, y, by) = (xy & 63, xy >> 6, if actor < 3 { 1 } else { 60 });
            let mut outcome = Outcome { keep: [u64::MAX; 2], set: [0; 2], goals: 0 };
            match actor % 3 {
                _ if actor == 6 => {
                    self.read = [u64::MAX, if *xy == 60 << 6 | 60 { 63 } else { 0 }];
                    self.outcomes.extend((*xy == 60 << 6 | 60 && *z == 60).then_some(outcome));
                }
                0 => {
                    self.read =
                        [if x == 18 { u64::MAX } else { 63 }, if x == 18 && y == 18 { 63 } else { 0 }];
                    outcome.goals = u64::from(x == 18 && y == 18 && *z == 18);
                    (outcome.keep[0], outcome.set[0]) = (!63, (x + by) % 61);
                    self.outcomes.push(outcome);
                }
                1 => {
                    self.read = [!63, 0];
                    (outcome.keep[0], outcome.set[0]) = (63, ((y + by) % 61) << 6);
                    self.outcomes.push(outcome);
                }
                _ => {
                    self.read = [0, 63];
                    (outcome.keep[1], outcome.set[1]) = (0, (z + by) % 61);
                    self.outcomes.push(outcome);
                }
            }
            // Orders may be told in part.
            self.order = if self.read[1] != 0 && actor == 6 { vec![(2, 63)] } else { vec![] };
            Ways { outcomes: &self.outcomes, read: &self.read, order: &self.order }
        }
        fn is_progress(&self, actor: usize) -> bool {
            actor < 6
        }
    }

    #[test]
    fn what_actors_do_is_asked_once_and_what_is_found_is_the_same() {
        let whole = Search::default().run(&mut [Torus]);
        let all = |found: &Explored| found.ids().map(|id| found.state(id)).collect::<BTreeSet<_>>();
        let run = |threads, memory, dir: &std::path::Path| {
            let limits = Limits { memory, ..Limits::default() };
            let search = Search { limits, disk: disk(dir, false), ..Search::default() };
            let mut models: Vec<Actors> = (0..threads).map(|_| Actors::default()).collect();
            let found = search.run(&mut models);
            let asked: u64 = models.iter().map(|m| m.asked).sum();
            (found, asked)
        };
        let dir = folder("actors");
        let (alone, asked) = run(1, 1 << 30, &dir);
        assert!(asked * 100 < whole.transitions, "{asked} of {}", whole.transitions);
        let goal = |found: &Explored| found.reached.iter().map(|r| (r.goal, r.depth)).collect::<Vec<_>>();
        for (threads, memory) in [(1, 1 << 30), (2, 1 << 30), (2, 2_000_000)] {
            let (found, _) = run(threads, memory, &dir);
            same(&alone, &found);
            assert_eq!(
                (found.transitions, found.depth),
                (whole.transitions + 1, whole.depth),
                "one stands still"
            );
            assert_eq!(goal(&found), goal(&whole));
            assert!(all(&found) == all(&whole), "other states");
        }
        std::fs::remove_dir_all(&dir).expect("it is ours");
    }

    /// Two counters and a clock of their steps; once the clock says 10, a third actor may ring a bell, for the first time.
    #[derive(Default)]
    struct Bell {
        outcomes: Vec<Outcome<2>>,
        read: [u64; 2],
    }

    impl Model<2> for Bell {
        fn initial(&self) -> [u64; 2] {
            [0, 0]
        }
        fn expand(&mut self, _: &[u64; 2], _: impl FnMut(&[u64; 2], u64)) -> u64 {
            panic!("it need not be asked so");
        }
        fn actors(&self) -> usize {
            3
        }
        fn ways(&mut self, actor: usize, [counters, _]: &[u64; 2]) -> Ways<'_, 2> {
            self.outcomes.clear();
            let clock = counters >> 32;
            self.read = [u64::MAX << 32, 0];
            if actor == 2 && clock == 10 {
                self.outcomes.push(Outcome { keep: [u64::MAX, 0], set: [0, 1], goals: 0 });
            } else if actor < 2 && clock < 20 {
                let own = 0xff << (8 * actor);
                self.read[0] |= own;
                let next = ((counters & own) + (1 << (8 * actor))) | ((clock + 1) << 32);
                self.outcomes.push(Outcome { keep: [!own & 0xffff, u64::MAX], set: [next, 0], goals: 0 });
            }
            Ways { outcomes: &self.outcomes, read: &self.read, order: &[(1, u32::MAX)] }
        }
    }

    #[test]
    fn a_half_word_that_changes_late_changes_for_all() {
        let found = Search::default().run(&mut [Bell::default()]);
        // After n steps there are n + 1 states; and as many for each of those that rang when there were 11, or later.
        let before: u32 = (0..=20).map(|n| n + 1).sum();
        let after: u32 = (10..=20).map(|n| n + 1).sum();
        assert_eq!(found.states(), before + after);
    }

    /// A walk on a grid as actors, whose trees outgrow what room they have: what each does depends on all.
    #[derive(Default)]
    struct Entangled {
        outcomes: Vec<Outcome<2>>,
    }

    impl Model<2> for Entangled {
        fn initial(&self) -> [u64; 2] {
            [0, 0]
        }
        fn expand(&mut self, state: &[u64; 2], mut emit: impl FnMut(&[u64; 2], u64)) -> u64 {
            for actor in 0..2 {
                let next = self.ways(actor, state).outcomes[0].of(state);
                emit(&next, 0);
            }
            0
        }
        fn actors(&self) -> usize {
            2
        }
        fn ways(&mut self, actor: usize, [a, b]: &[u64; 2]) -> Ways<'_, 2> {
            let mixed = (a ^ b << 7 ^ actor as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.outcomes.clear();
            self.outcomes.push(Outcome { keep: [0; 2], set: [mixed >> 49, mixed >> 20 & 0x7fff], goals: 0 });
            Ways { outcomes: &self.outcomes, read: &[u64::MAX; 2], order: &[] }
        }
    }

    /// The same, asked state by state.
    #[derive(Default)]
    struct Asked(Entangled);

    impl Model<2> for Asked {
        fn initial(&self) -> [u64; 2] {
            self.0.initial()
        }
        fn expand(&mut self, state: &[u64; 2], emit: impl FnMut(&[u64; 2], u64)) -> u64 {
            self.0.expand(state, emit)
        }
    }

    #[test]
    fn actors_whose_steps_depend_on_everything_are_found_out_and_asked() {
        let limits = Limits { depth: 18, ..Limits::default() };
        let trees = Search { limits, ..Search::default() }.run(&mut [Entangled::default()]);
        let asked = Search { limits, ..Search::default() }.run(&mut [Asked::default()]);
        assert!(trees.states() > 100_000, "{}", trees.states());
        assert_eq!((trees.states(), trees.transitions), (asked.states(), asked.transitions));
        let limits = Limits { memory: 40 << 20, ..limits };
        let small = Search { limits, ..Search::default() }.run(&mut [Entangled::default()]);
        assert_eq!((small.states(), small.bound), (asked.states(), asked.bound));
    }

    fn same(one: &Explored, other: &Explored) {
        assert_eq!(
            (one.states(), one.transitions, one.depth, &one.reached),
            (other.states(), other.transitions, other.depth, &other.reached)
        );
        assert!(one.ids().eq(other.ids()));
        assert!(one.ids().step_by(97).all(|id| one.state(id) == other.state(id)));
        for goal in &one.reached {
            assert_eq!(one.path(goal.state), other.path(goal.state));
        }
    }

    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("sim-explore-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        dir
    }

    fn disk(dir: &std::path::Path, resume: bool) -> Option<Disk> {
        Some(Disk { dir: dir.to_owned(), every: Duration::from_secs(3600), fingerprint: 7, resume })
    }

    #[test]
    fn a_search_on_the_disk_is_the_search_in_memory() {
        let whole = Search::default().run(&mut [Torus, Torus]);
        assert_eq!((whole.states(), whole.depth), (61 * 61 * 61, 90));
        for memory in [1_500_000, 2_000_000, 2_500_000] {
            let dir = folder(&format!("small-{memory}"));
            let limits = Limits { memory, ..Limits::default() };
            let alone = Search { limits, ..Search::default() }.run(&mut [Torus]);
            assert_eq!(alone.bound, Some(Bound::Memory(memory)), "it would have had room");
            let search = Search { limits, disk: disk(&dir, false), ..Search::default() };
            let spilled = search.run(&mut [Torus, Torus]);
            assert_eq!(spilled.bound, None, "{:?}", spilled.error);
            same(&whole, &spilled);
            assert_eq!(std::fs::read_dir(&dir).expect("a folder").count(), 0, "files were left");
            std::fs::remove_dir_all(&dir).expect("it is ours");
        }
    }

    #[test]
    fn a_search_that_was_stopped_goes_on_where_it_was() {
        let whole = Search::default().run(&mut [Torus]);
        for memory in [2_000_000, 1 << 30] {
            let dir = folder(&format!("stopped-{memory}"));
            let limits = |states| Limits { states, memory, ..Limits::default() };
            for (resume, states) in [(false, 3_000), (true, 20_000), (true, 40_000)] {
                let search = Search { limits: limits(states), disk: disk(&dir, resume), ..Search::default() };
                let part = search.run(&mut [Torus, Torus]);
                assert_eq!(part.bound, Some(Bound::States(states)), "{:?}", part.error);
            }
            let other = Disk { fingerprint: 8, ..disk(&dir, true).expect("a disk") };
            let search = Search { disk: Some(other), ..Search::default() };
            assert_eq!(search.run(&mut [Torus]).bound, Some(Bound::Disk), "it is of another search");
            let file = dir.join("checkpoint");
            let bytes = std::fs::read(&file).expect("a checkpoint");
            for cut in [0, 7, 1000, bytes.len() / 2, bytes.len() - 1] {
                std::fs::write(&file, &bytes[..cut]).expect("it can be written");
                let search = Search { disk: disk(&dir, true), ..Search::default() };
                let error = search.run(&mut [Torus]).error.map_or_else(String::new, |e| e.to_string());
                assert!(error.contains("damaged"), "{cut} bytes of {}: {error}", bytes.len());
            }
            std::fs::write(&file, &bytes).expect("it can be written");
            let search = Search { limits: limits(1 << 30), disk: disk(&dir, true), ..Search::default() };
            let rest = search.run(&mut [Torus]);
            assert_eq!(rest.bound, None, "{:?}", rest.error);
            same(&whole, &rest);
            std::fs::remove_dir_all(&dir).expect("it is ours");
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
                assert_eq!(one.path(goal.state), four.path(goal.state));
                assert_eq!(one.path(goal.state).len(), 121);
            }
            match one.bound {
                None => assert_eq!((one.states(), one.depth), (51 * 51 * 51, 150)),
                Some(_) => assert!((120_000..121_000).contains(&one.states()), "{}", one.states()),
            }
        }
    }
}
