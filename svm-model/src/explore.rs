//! A machine as the explorer sees it: packed states, every actor, every choice.

use cache_model::event::EventKind;
use sim_core::choice::Odometer;
use sim_core::state::{Packed, Position, SlotId, Store as _};
use sim_explore::Model;
use svm_policy::Pc;

use crate::label::{Actor, Notes};
use crate::machine::Machine;
use crate::memory::ShadowMemory;
use crate::run::Stepped;

/// One step of a schedule: who, and the answers to what may go more than one way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScheduledStep {
    /// Who makes the step.
    pub actor: Actor,
    /// The chooser's answers, in order.
    pub answers: Vec<u32>,
}

/// The bit of an event kind among the goals of a search.
#[must_use]
pub fn goal_of(kind: EventKind) -> u32 {
    EventKind::ALL.iter().position(|k| *k == kind).and_then(|i| u32::try_from(i).ok()).unwrap_or(31)
}

/// A machine over shadow caches, ready to be explored.
#[derive(Debug)]
pub struct MachineModel<'a> {
    machine: &'a Machine,
    memory: ShadowMemory,
    positions: Vec<Position>,
    words: usize,
    actors: Vec<Actor>,
    next: Vec<u64>,
    notes: Notes,
    odometer: Odometer,
    /// A text that loops without an access, met while exploring.
    pub runaway: Option<Pc>,
}

impl<'a> MachineModel<'a> {
    /// Wraps a machine; `None` if it was built for the timed caches.
    #[must_use]
    pub fn new(machine: &'a Machine) -> Option<Self> {
        let (positions, words) = machine.layout().pack();
        Some(MachineModel {
            machine,
            memory: machine.shadow()?,
            positions,
            words,
            actors: machine.actors(),
            next: vec![0; words],
            notes: Notes::default(),
            odometer: Odometer::default(),
            runaway: None,
        })
    }

    /// Bytes of a packed state.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        self.words * 8
    }

    /// Enumerates the transitions of a state; whether a task or a handler can go on.
    fn each(&mut self, state: &[u64], mut f: impl FnMut(Actor, &Odometer, &[u64], &Notes)) -> bool {
        let mut progress = false;
        for i in 0..self.actors.len() {
            let actor = self.actors[i];
            self.odometer.reset();
            loop {
                self.next.copy_from_slice(state);
                let mut store = Packed { words: &mut self.next, layout: &self.positions };
                let done = self.machine.step(
                    &mut store,
                    &mut self.memory,
                    actor,
                    &mut self.odometer,
                    &mut self.notes,
                );
                if self.notes.runaway.is_some() {
                    self.runaway = self.notes.runaway;
                }
                if done == Stepped::Done {
                    // The caches count: a flush waits for what they have on its way.
                    progress |= actor != Actor::World;
                    f(actor, &self.odometer, &self.next, &self.notes);
                }
                if !self.odometer.advance() {
                    break;
                }
            }
        }
        progress
    }

    /// The step that transition `number` of a state is.
    pub fn transition(&mut self, state: &[u64], number: u32) -> Option<ScheduledStep> {
        let (mut at, mut found) = (0u32, None);
        self.each(state, |actor, odometer, _, _| {
            if at == number {
                found = Some(ScheduledStep { actor, answers: odometer.answers().collect() });
            }
            at += 1;
        });
        found
    }
}

impl Model for MachineModel<'_> {
    fn words(&self) -> usize {
        self.words
    }

    fn initial(&self, state: &mut [u64]) {
        let mut store = Packed { words: state, layout: &self.positions };
        for (id, value) in (0u32..).zip(self.machine.layout().initial()) {
            store.set(SlotId(id), value);
        }
    }

    fn expand(&mut self, state: &[u64], emit: &mut dyn FnMut(&[u64], u64)) -> u64 {
        let progress = self.each(state, |_, _, next, notes| {
            let goals = notes.events.iter().fold(0u64, |g, e| g | 1 << goal_of(e.kind));
            emit(next, goals);
        });
        if progress {
            return 0;
        }
        self.next.copy_from_slice(state);
        let store = Packed { words: &mut self.next, layout: &self.positions };
        if self.machine.finished(&store) { 0 } else { 1 << goal_of(EventKind::Deadlock) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_has_its_own_goal() {
        let mut seen = 0u64;
        for kind in EventKind::ALL {
            assert_eq!(seen & 1 << goal_of(kind), 0);
            seen |= 1 << goal_of(kind);
        }
    }
}
