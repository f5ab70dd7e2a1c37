//! The check of a timed run against the explorer's machine: each recorded step must be one that the machine over
//! shadow caches can make, with equal slots and equal events after it.

use std::collections::BTreeMap;

use cache_model::lattice::{Lines as _, Move};
use cache_model::shadow::Shadow;
use sim_core::choice::Scripted;
use sim_core::state::Plain;

use super::memory::TimedMemory;
use super::plan::Recorded;
use crate::label::{Actor, Notes};
use crate::machine::Machine;
use crate::memory::{Effects, Memory, ShadowMemory};
use crate::run::Stepped;

/// Why a recorded run was rejected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejected {
    /// The entry, from 0; the number of entries if the end states differ.
    pub entry: usize,
    /// What was wrong.
    pub reason: String,
}

/// Follows a recorded run over shadow caches.
///
/// `machine` must be the recorded one, built for shadow caches; `end` is the timed memory as the run left it.
///
/// # Errors
///
/// The first entry that the machine over shadow caches cannot make, or after which it differs.
pub fn accept(machine: &Machine, recorded: &[Recorded], end: &TimedMemory) -> Result<(), Rejected> {
    let reject = |entry: usize, reason: String| Rejected { entry, reason };
    let Some(mut memory) = machine.shadow() else {
        return Err(reject(0, "the machine has no shadow caches".to_owned()));
    };
    memory.shape.flushes_fly = true;
    let mut words = machine.layout().initial();
    let mut notes = Notes::default();
    let mut moved = 0;
    let mut counts = BTreeMap::new();
    for (i, entry) in recorded.iter().enumerate() {
        match entry {
            Recorded::Step { step, what, events, slots, copies, count, moves } => {
                let name = machine.actor_name(step.actor);
                let own = counts.entry(step.actor).or_insert(0u32);
                *own += 1;
                if own != count {
                    return Err(reject(
                        i,
                        format!("{name}'s step {count} comes where its step {own} should"),
                    ));
                }
                if std::mem::take(&mut moved) != *moves {
                    return Err(reject(i, format!("{moves} moves of copies came before this step in time")));
                }
                let mut chooser = Scripted::new(&step.answers);
                let mut store = Plain { words: &mut words };
                memory.handing_on = step.actor == Actor::World;
                let done = machine.step(&mut store, &mut memory, step.actor, &mut chooser, &mut notes);
                if done != Stepped::Done || !chooser.fitted() {
                    return Err(reject(i, format!("{name} cannot make this step: {done:?}")));
                }
                if notes.what != Some(*what) {
                    return Err(reject(i, format!("{name} did {:?}, not {what:?}", notes.what)));
                }
                if notes.events != *events {
                    return Err(reject(i, format!("events {:?}, not {events:?}", notes.events)));
                }
                let view = Shadow { slots: &memory.slots, store: &mut Plain { words: &mut words } };
                if memory.shape.digest(&view, memory.slots.lines()) != *copies {
                    return Err(reject(i, format!("after {name}'s step the lines' copies differ")));
                }
                if let Some(at) = (0..slots.len()).find(|s| slots[*s] != words[*s]) {
                    let slot = &machine.layout().slots()[at].name;
                    return Err(reject(i, format!("{slot} is {}, not {}", words[at], slots[at])));
                }
            }
            Recorded::Move(m, events) => {
                moved += 1;
                let seen = follow(machine, &mut memory, &mut words, *m);
                if seen.as_ref() != Some(events) {
                    return Err(reject(i, format!("{m:?}: {seen:?}, not {events:?}")));
                }
            }
        }
    }
    let mut store = Plain { words: &mut words };
    let view = Shadow { slots: &memory.slots, store: &mut store };
    for line in 0..memory.slots.lines() {
        for tag in memory.shape.all_tags() {
            for place in memory.shape.places() {
                let (a, b) = (view.copy(line, place, tag), end.copy(line, place, tag));
                if a != b {
                    let name = machine.line_name(line);
                    let reason = format!("{name}/{tag} in {place:?} ends as {a:?}, in time as {b:?}");
                    return Err(reject(recorded.len(), reason));
                }
            }
        }
        if (view.dram(line), view.truth(line)) != end.dram(line) {
            return Err(reject(recorded.len(), format!("memory of {} differs", machine.line_name(line))));
        }
        if !end.agrees(line) {
            let name = machine.line_name(line);
            return Err(reject(recorded.len(), format!("the timed caches and the lattice differ on {name}")));
        }
    }
    Ok(())
}

/// Makes a move if it is possible; its events.
fn follow(
    machine: &Machine,
    memory: &mut ShadowMemory,
    words: &mut [i64],
    m: Move,
) -> Option<Vec<cache_model::event::Event>> {
    let mut store = Plain { words };
    let possible = {
        let view = Shadow { slots: &memory.slots, store: &mut store };
        memory.shape.can_move(&view, m)
    };
    possible.then(|| {
        let mut fx = Effects::default();
        memory.make_move(&mut store, m, &mut fx);
        for event in &mut fx.events {
            machine.blame(&store, event);
        }
        fx.events
    })
}
