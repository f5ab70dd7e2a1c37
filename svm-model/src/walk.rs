//! Random walks, for models whose states are too many to try them all. They find events; they prove nothing.
//!
//! *Uniform*: each step is made by an actor drawn among those that can go on, in one of its ways. *PCT*, after
//! "A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs" (Burckhardt et al., ASPLOS 2010): actors have random
//! priorities, the highest that can go on makes the step, and at d - 1 random places of the walk the one that is about to step
//! falls behind all others. An event that needs d ordering constraints among n actors and k steps is met by a walk with
//! probability 1 / (n k^(d-1)) at least. An actor that steps [`PATIENCE`] times in a row falls behind as well, lest it
//! wait for another for ever.
//!
//! A walk depends on the seed and its number alone, whichever thread walks it.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use sim_core::random::Stream;

use crate::explore::{Explorer, ScheduledStep};

/// Steps in a row after which an actor falls behind the others.
pub const PATIENCE: u32 = 200;

/// Walks between two looks at the clock, at what was found, and at whether to stop.
const ROUND: u64 = 512;

/// How the next step is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strategy {
    /// An actor with equal chances.
    Uniform,
    /// Priorities, with this bug depth: one more than the places where they change.
    Pct {
        /// 1 or more.
        depth: u32,
    },
}

/// What is walked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walks {
    /// How many.
    pub count: u64,
    /// Steps of one at most.
    pub steps: u32,
    /// Seed of all.
    pub seed: u64,
    /// How steps are drawn.
    pub strategy: Strategy,
    /// When to give up.
    pub time: Option<Duration>,
}

/// A goal that a walk met.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Met {
    /// Bit of the goal.
    pub goal: u32,
    /// The number of the walk, from 0.
    pub walk: u64,
    /// Of each state on the way, which of its transitions was made.
    pub numbers: Vec<u32>,
}

/// What walks came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Walked {
    /// Of each goal, the walk that met it soonest.
    pub met: Vec<Met>,
    /// Walks made.
    pub walks: u64,
    /// Those that went on until nobody could.
    pub ended: u64,
    /// Steps made.
    pub steps: u64,
    /// The longest walk.
    pub longest: u32,
    /// Whether the time was over, or somebody asked it to stop, before all were made.
    pub cut: Option<Cut>,
}

/// What ended the walks early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// [`Walks::time`].
    Time,
    /// Somebody asked.
    Interrupted,
}

/// One walk's result.
pub(crate) struct Walk {
    pub(crate) numbers: Vec<u32>,
    /// Goals met, each with the steps up to it.
    pub(crate) met: Vec<(u32, u32)>,
    pub(crate) ended: bool,
}

/// The next steps of a state, to be drawn from.
pub(crate) struct Draw {
    random: Stream,
    strategy: Strategy,
    /// By actor, the higher the sooner; empty for a uniform walk.
    priorities: Vec<u64>,
    /// Steps at which the actor about to step falls behind.
    changes: Vec<u32>,
    last: Option<usize>,
    in_a_row: u32,
    /// Below all priorities so far.
    lowest: u64,
}

impl Draw {
    /// For one walk; `length` is about how long a walk is.
    pub(crate) fn new(walks: &Walks, number: u64, actors: usize, length: u32) -> Draw {
        let mut random = Stream::new(walks.seed, number, 7);
        let (mut priorities, mut changes) = (Vec::new(), Vec::new());
        if let Strategy::Pct { depth } = walks.strategy {
            const MIDDLE: u64 = 1 << 32;
            priorities = (0..actors).map(|_| MIDDLE + random.below(MIDDLE)).collect();
            let place = |_| u32::try_from(random.below(u64::from(length.max(1)))).unwrap_or(0);
            changes = (1..depth).map(place).collect();
        }
        Draw {
            random,
            strategy: walks.strategy,
            priorities,
            changes,
            last: None,
            in_a_row: 0,
            lowest: 1 << 32,
        }
    }

    /// Which of the steps is made, each given by its actor; there is at least one, and those of an actor stand together.
    pub(crate) fn next(&mut self, at: u32, steps: &[usize]) -> usize {
        let actor = match self.strategy {
            Strategy::Uniform => {
                let actors = 1 + steps.windows(2).filter(|w| w[0] != w[1]).count();
                let nth = self.below(actors);
                let starts = (0..steps.len()).filter(|i| *i == 0 || steps[*i] != steps[*i - 1]);
                steps[starts.into_iter().nth(nth).unwrap_or(0)]
            }
            Strategy::Pct { .. } => {
                for _ in self.changes.iter().filter(|c| **c == at) {
                    let first = self.highest(steps);
                    self.lowest -= 1;
                    self.priorities[first] = self.lowest;
                }
                let mut first = self.highest(steps);
                if self.last == Some(first) && self.in_a_row >= PATIENCE {
                    self.lowest -= 1;
                    self.priorities[first] = self.lowest;
                    first = self.highest(steps);
                }
                first
            }
        };
        self.in_a_row = if self.last == Some(actor) { self.in_a_row + 1 } else { 1 };
        self.last = Some(actor);
        let from = steps.iter().position(|a| *a == actor).unwrap_or(0);
        let ways = steps[from..].iter().take_while(|a| **a == actor).count();
        from + self.below(ways)
    }

    fn highest(&self, steps: &[usize]) -> usize {
        steps.iter().copied().max_by_key(|a| self.priorities[*a]).unwrap_or(0)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.random.below(n as u64)).unwrap_or(0)
    }
}

impl Explorer<'_> {
    /// The steps of a walk.
    #[must_use]
    pub fn steps_of(&mut self, numbers: &[u32]) -> Option<Vec<ScheduledStep>> {
        let mut state = self.start();
        let mut steps = Vec::new();
        for number in numbers {
            let step = self.transition(&state, *number)?;
            state = self.after(&state, std::slice::from_ref(&step))?.0;
            steps.push(step);
        }
        Some(steps)
    }

    /// A schedule without the steps that its last step's event does not need: no step of it alone, and no run of steps of
    /// a power of two, can be left out. Not a shortest one.
    #[must_use]
    pub fn shorten(&mut self, mut steps: Vec<ScheduledStep>, goal: u32) -> Vec<ScheduledStep> {
        let start = self.start();
        let mut block = steps.len().next_power_of_two() / 2;
        while block > 0 {
            let mut at = 0;
            let mut shorter = false;
            // The last step is the event.
            while at + block < steps.len() {
                let mut without = steps.clone();
                without.drain(at..at + block);
                if self.after(&start, &without).is_some_and(|(_, goals)| goals >> goal & 1 == 1) {
                    steps = without;
                    shorter = true;
                } else {
                    at += block;
                }
            }
            if !shorter {
                block /= 2;
            }
        }
        steps
    }
}

impl Walked {
    /// Makes walks round by round; `round` makes those of some numbers, about so long.
    pub(crate) fn of(
        walks: &Walks,
        stop_at: u64,
        interrupted: Option<&AtomicBool>,
        mut round: impl FnMut(Range<u64>, u32) -> Vec<Walk>,
    ) -> Walked {
        let begin = Instant::now();
        let mut walked = Walked::default();
        // PCT's changes are spread over about the length of a walk.
        let mut length = walks.steps.min(100);
        while walked.walks < walks.count {
            if interrupted.is_some_and(|i| i.load(Ordering::Relaxed)) {
                walked.cut = Some(Cut::Interrupted);
                break;
            }
            if walks.time.is_some_and(|limit| begin.elapsed() >= limit) {
                walked.cut = Some(Cut::Time);
                break;
            }
            let numbers = walked.walks..(walked.walks + ROUND).min(walks.count);
            for (number, walk) in numbers.clone().zip(round(numbers, length)) {
                walked.take(number, &walk);
            }
            length = u32::try_from(walked.steps / walked.walks.max(1)).unwrap_or(u32::MAX).max(1);
            let met = walked.met.iter().fold(0u64, |goals, m| goals | 1 << m.goal);
            if stop_at != 0 && met & stop_at == stop_at {
                break;
            }
        }
        walked.met.sort_by_key(|m| (m.numbers.len(), m.goal));
        walked
    }

    fn take(&mut self, number: u64, walk: &Walk) {
        self.walks += 1;
        self.ended += u64::from(walk.ended);
        self.steps += walk.numbers.len() as u64;
        self.longest = self.longest.max(u32::try_from(walk.numbers.len()).unwrap_or(u32::MAX));
        for (goal, steps) in &walk.met {
            let numbers = &walk.numbers[..*steps as usize];
            match self.met.iter_mut().find(|m| m.goal == *goal) {
                Some(known) if known.numbers.len() <= numbers.len() => {}
                Some(known) => *known = Met { goal: *goal, walk: number, numbers: numbers.to_vec() },
                None => self.met.push(Met { goal: *goal, walk: number, numbers: numbers.to_vec() }),
            }
        }
    }
}

/// Makes walks on all threads, each with tables of its own; the results in order.
pub(crate) fn spread<M: Send>(
    models: &mut [M],
    numbers: &Range<u64>,
    walk: impl Fn(&mut M, u64) -> Walk + Sync,
) -> Vec<Walk> {
    let threads = models.len().max(1) as u64;
    let lanes: Vec<Vec<(u64, Walk)>> = models
        .iter_mut()
        .zip(0u64..)
        .collect::<Vec<_>>()
        .into_par_iter()
        .map(|(model, lane)| {
            let own = numbers.clone().filter(|n| n % threads == lane);
            own.map(|n| (n, walk(model, n))).collect()
        })
        .collect();
    let mut all: Vec<(u64, Walk)> = lanes.into_iter().flatten().collect();
    all.sort_by_key(|w| w.0);
    all.into_iter().map(|w| w.1).collect()
}
