//! What searches leave out, and how the way to a goal is found where they do.

use sim_explore::{Explored, Reached};

use super::{Explorer, ScheduledStep, goals_of};
use crate::symmetry::Symmetry;

/// What a search leaves out, because it is alike to what it looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reductions {
    /// States that differ only in the names of what is treated alike are one ([`crate::symmetry`]).
    pub symmetry: bool,
    /// A task whose step commutes with all that others can do goes alone. For *holds* only: the ways found are no
    /// shortest ones, and what was not met need not be unreachable but for events.
    pub partial_order: bool,
}

impl Reductions {
    /// None.
    pub const NONE: Reductions = Reductions { symmetry: false, partial_order: false };
}

impl Explorer<'_> {
    /// Lets searches use these reductions; without, they use none.
    pub fn reduce(&mut self, reductions: Reductions) {
        let found = reductions.symmetry.then(|| Symmetry::of(self.student.machine, &self.positions));
        self.symmetry = found.filter(|s| s.order() > 1);
        self.partial_order = reductions.partial_order;
    }

    /// How many permutations searches use: after a search, those that stood the check. 1 without symmetry.
    #[must_use]
    pub fn permutations(&self) -> usize {
        self.symmetry.as_ref().map_or(1, Symmetry::order)
    }

    /// The least image of a state: what a search with symmetry stores for it.
    #[must_use]
    pub fn least_image(&self, state: &[u64]) -> Vec<u64> {
        let least = self.symmetry.as_ref().and_then(|s| s.canonical_words(state));
        least.unwrap_or_else(|| state.to_vec())
    }

    /// The image of a state under each permutation, itself first.
    #[must_use]
    pub fn images(&self, state: &[u64]) -> Vec<Vec<u64>> {
        let others = self.symmetry.as_ref().map_or(Vec::new(), |s| s.images(state));
        std::iter::once(state.to_vec()).chain(others).collect()
    }

    /// The steps from the initial state to a goal that a search reached. Where the search took states for one, the steps
    /// are still those of one run of the machine: each is one whose outcome is alike to the state that the search went
    /// to. `None` if there is no such run, which would be an error of this program, and after a search with partial order,
    /// whose ways are not told.
    pub fn path(&mut self, explored: &Explored, reached: &Reached) -> Option<Vec<ScheduledStep>> {
        if self.partial_order {
            return None;
        }
        let states: Vec<Vec<u64>> =
            explored.path(reached.state).into_iter().map(|id| explored.state(id)).collect();
        let mut steps = Vec::new();
        let Some(symmetry) = self.symmetry.clone() else {
            for pair in states.windows(2) {
                steps.push(self.transitions(&pair[0])?.into_iter().find(|(_, next)| *next == pair[1])?.0);
            }
            if let Some(number) = reached.transition {
                steps.push(self.transition(states.last()?, number)?);
            }
            return Some(steps);
        };
        let mut state = self.start();
        for target in &states[1..] {
            let fits = |next: &[u64], _| {
                symmetry.canonical_words(next).is_some_and(|least| target.starts_with(&least))
            };
            let (step, next) = self.step_to(&state, fits)?;
            steps.push(step);
            state = next;
        }
        if reached.transition.is_some() {
            steps.push(self.step_to(&state, |_, goals| goals >> reached.goal & 1 == 1)?.0);
        }
        Some(steps)
    }

    /// The first step of a state that leads where it should.
    fn step_to(
        &mut self,
        state: &[u64],
        mut fits: impl FnMut(&[u64], u64) -> bool,
    ) -> Option<(ScheduledStep, Vec<u64>)> {
        let mut found = None;
        self.each(state, |actor, odometer, next, notes| {
            if found.is_none() && fits(next, goals_of(notes)) {
                let step = ScheduledStep { actor, answers: odometer.answers().collect() };
                found = Some((step, next.to_vec()));
            }
        });
        found
    }
}
