//! A counterexample of the explorer over the timed caches.

use cache_model::event::Event;
use sim_core::choice::Scripted;

use super::memory::TimedMemory;
use super::store::Watched;
use crate::explore::ScheduledStep;
use crate::label::Notes;
use crate::machine::Machine;
use crate::run::Stepped;

/// Replays a schedule of the explorer over the timed caches, one step after the other, and returns the events of
/// each step.
///
/// # Errors
///
/// The first step, from 1, that could not be made as scheduled, and why; step 0 is the part, whose L3 is inclusive.
pub fn replay_timed(
    machine: &Machine,
    memory: &mut TimedMemory,
    schedule: &[ScheduledStep],
) -> Result<Vec<Vec<Event>>, (usize, String)> {
    if memory.caches.inclusive() {
        let why = "the part's L3 is inclusive; schedules replay over parts with victim L3s".to_owned();
        return Err((0, why));
    }
    memory.time_no_flights();
    let mut store = Watched::new(machine.layout().initial());
    let mut notes = Notes::default();
    let mut events = Vec::new();
    let mut now = 0u64;
    for (i, step) in schedule.iter().enumerate() {
        memory.now = now;
        let mut chooser = Scripted::new(&step.answers);
        let done = machine.step(&mut store, memory, step.actor, &mut chooser, &mut notes);
        if done != Stepped::Done || !chooser.fitted() {
            return Err((i + 1, format!("{} {done:?}", machine.actor_name(step.actor))));
        }
        if !memory.moved.is_empty() {
            return Err((i + 1, "the caches moved a line on their own".to_owned()));
        }
        now += 1 + notes.cycles;
        events.push(notes.events.clone());
    }
    Ok(events)
}
