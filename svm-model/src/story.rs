//! Tells a schedule as a story: one line a step, with the kernel line and what it did to each line's copies.

use cache_model::event::{Event, EventKind};
use cache_model::lattice::{Copy, Held, MoveKind, Place};
use sev_arch::Access;
use sim_core::choice::Scripted;
use sim_core::state::{Class, Domain, Plain};
use svm_policy::Pc;

use crate::explore::ScheduledStep;
use crate::label::{Actor, NewOwner, Notes, What};
use crate::machine::{Machine, Owner};
use crate::run::Stepped;

/// One line of a story.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoryStep {
    /// From 1.
    pub step: usize,
    /// Who.
    pub actor: String,
    /// On which pCPU, if on any.
    pub pcpu: Option<u16>,
    /// File of the statement, if it is one of the texts'.
    pub file: Option<String>,
    /// Its line, from 1.
    pub line: Option<u32>,
    /// The statement, or what the hardware did.
    pub text: String,
    /// What it changed: shared variables, copies of lines, memory.
    pub effect: String,
    /// Events, each in words.
    pub events: Vec<(Event, String)>,
}

/// Why a schedule could not be followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplayError {
    /// The step, from 1.
    pub step: usize,
    /// What was wrong.
    pub message: String,
}

/// A copy in words.
fn held(copy: Copy) -> &'static str {
    match (copy.held, copy.old) {
        (Held::Absent, _) => "-",
        (Held::Clean, false) => "clean",
        (Held::Clean, true) => "clean but old",
        (Held::Dirty, false) => "dirty",
        (Held::Dirty, true) => "dirty and old",
    }
}

fn place_name(place: Place) -> String {
    match place {
        Place::Private(c) => format!("{c}"),
        Place::L3(x) => format!("L3 of {x}"),
        Place::Flight(x) => format!("leaving {x}"),
    }
}

impl Machine {
    /// Replays a schedule over shadow caches and tells it.
    ///
    /// # Errors
    ///
    /// The first step that cannot be made as the schedule says.
    pub fn tell(&self, schedule: &[ScheduledStep]) -> Result<Vec<StoryStep>, ReplayError> {
        let mut words = self.layout.initial();
        let Some(mut memory) = self.shadow() else {
            return Err(ReplayError { step: 0, message: "the machine has no shadow caches".to_owned() });
        };
        let mut story = Vec::new();
        let mut notes = Notes::default();
        for (i, step) in schedule.iter().enumerate() {
            let before = words.clone();
            let pcpu_before = self.pcpu_of(&Plain { words: &mut words }, step.actor);
            let mut chooser = Scripted::new(&step.answers);
            let mut store = Plain { words: &mut words };
            let done = self.step(&mut store, &mut memory, step.actor, &mut chooser, &mut notes);
            let name = self.actor_name(step.actor);
            let fail = |message: String| ReplayError { step: i + 1, message };
            match done {
                Stepped::Done if chooser.fitted() => {}
                Stepped::Done => {
                    return Err(fail(format!("{name} has other choices here than the schedule says")));
                }
                Stepped::Blocked(slot) => {
                    let slot = &self.layout.slots()[slot.0 as usize].name;
                    return Err(fail(format!("{name} cannot go on: it waits for {slot}")));
                }
                Stepped::Idle => return Err(fail(format!("{name} has nothing to do"))),
            }
            let pcpu = pcpu_before.or_else(|| self.pcpu_of(&Plain { words: &mut words }, step.actor));
            let (file, line, text) = self.in_words(step.actor, notes.what);
            let events = notes.events.iter().map(|e| (*e, self.event_text(*e, &before))).collect();
            story.push(StoryStep {
                step: i + 1,
                actor: name,
                pcpu: pcpu.map(|p| p.0),
                file,
                line,
                text,
                effect: self.changes(&before, &words),
                events,
            });
        }
        Ok(story)
    }

    fn in_words(&self, actor: Actor, what: Option<What>) -> (Option<String>, Option<u32>, String) {
        let at = |pc: Pc| {
            let (file, line) = self.place(pc);
            (Some(file.to_owned()), Some(line), self.statement(pc).to_owned())
        };
        let page = |p: u32| self.spec.pages[p as usize].0.clone();
        let verb = |a: Access| match a {
            Access::Read => "reads",
            Access::Write => "writes",
        };
        let plain = |text: String| (None, None, text);
        match what {
            None => plain(String::new()),
            Some(What::Text { pc }) => at(pc),
            Some(What::Guest { line, access, pc }) => {
                let text = format!("the guest {} {}", verb(access), self.line_name(line));
                match pc {
                    Some(pc) => {
                        let (file, row, _) = at(pc);
                        (file, row, text)
                    }
                    None => plain(text),
                }
            }
            Some(What::Fault { page: p }) => {
                plain(format!("#VMEXIT: nested page fault, {} is not mapped", page(p)))
            }
            Some(What::Exit) => plain("#VMEXIT: interrupt or intercept".to_owned()),
            Some(What::Halted) => plain("#VMEXIT: the guest halts".to_owned()),
            Some(What::Started { page: p }) => plain(format!("begins to reclaim {}", page(p))),
            Some(What::Placed { pcpu }) => plain(format!("the scheduler puts it on {pcpu}")),
            Some(What::Preempted) => plain("the scheduler takes its pCPU away".to_owned()),
            Some(What::Take { sender, callback }) => {
                let entry = usize::from(self.code.callbacks[usize::from(callback)]);
                let sender = &self.spec.tasks[usize::from(sender)].name;
                let function = &self.code.entries[entry].name;
                plain(format!("takes the IPI of {sender}: {function}()"))
            }
            Some(What::Move(m)) => {
                let line = self.line_name(m.line);
                let copy = format!("{}'s copy of {line}", m.tag);
                plain(match m.kind {
                    MoveKind::PrivateToL3(c) => format!("{c} evicts {copy} to the L3"),
                    MoveKind::PrivateDrop(c) => format!("{c} drops {copy}"),
                    MoveKind::L3ToFlight(x) => format!("the L3 of {x} evicts {copy}"),
                    MoveKind::L3Drop(x) => format!("the L3 of {x} drops {copy}"),
                    MoveKind::FlightToDram(_) => format!("{copy} arrives in memory"),
                })
            }
            Some(What::Reuse { page: p, by, access }) => {
                debug_assert_eq!(actor, Actor::World);
                let who = match by {
                    NewOwner::Host(p) => format!("the host, new owner, on {p},"),
                    NewOwner::Device => "a device, by DMA,".to_owned(),
                    NewOwner::Vm => return plain(format!("{} is given back to its VM", page(p))),
                };
                plain(format!("{who} {} {}", verb(access), page(p)))
            }
        }
    }

    /// An event in words, with the victim.
    fn event_text(&self, event: Event, before: &[i64]) -> String {
        let meaning = event.kind.meaning();
        let Some(line) = event.line else { return format!("{}: {meaning}", event.kind.name()) };
        let mut words = before.to_vec();
        let owner = self.owner(&Plain { words: &mut words }, self.page_of(line));
        let victim = match owner {
            Owner::Vm(vm) if event.tag == Some(sev_arch::Tag::of_vm(vm)) => format!("{vm} itself"),
            Owner::Vm(vm) => vm.to_string(),
            Owner::Free | Owner::Host => "the host".to_owned(),
            Owner::Device => "the host (device data)".to_owned(),
        };
        let victim =
            if event.kind == EventKind::Latent { "whoever owns the page next".to_owned() } else { victim };
        format!("{}: {meaning} ({}; victim: {victim})", event.kind.name(), self.line_name(line))
    }

    /// What changed between two states, apart from actors' own slots.
    fn changes(&self, before: &[i64], after: &[i64]) -> String {
        let mut parts = Vec::new();
        if let Some(lines) = &self.lines {
            for line in 0..lines.lines() {
                for tag in self.spec.shape.all_tags() {
                    for place in self.spec.shape.places() {
                        let slot = lines.cell(line, place, tag).0 as usize;
                        let (old, new) = (Copy::from_code(before[slot]), Copy::from_code(after[slot]));
                        if old != new {
                            let name = self.line_name(line);
                            let place = place_name(place);
                            parts.push(format!("{name}/{tag} {place}: {} -> {}", held(old), held(new)));
                        }
                    }
                }
            }
        }
        for (i, slot) in self.layout.slots().iter().enumerate() {
            if before[i] == after[i] || slot.class != Class::Shared {
                continue;
            }
            let show = |v: i64| match slot.domain {
                Domain::Mask { bits } => {
                    let set: Vec<String> =
                        (0..bits).filter(|b| v >> b & 1 == 1).map(|b| b.to_string()).collect();
                    format!("{{{}}}", set.join(","))
                }
                Domain::Range { .. } if slot.name.ends_with(".owner") => match self.owner_of_code(v) {
                    Owner::Vm(vm) => vm.to_string(),
                    Owner::Free => "free".to_owned(),
                    Owner::Host => "host".to_owned(),
                    Owner::Device => "device".to_owned(),
                },
                Domain::Range { .. } => v.to_string(),
            };
            let hidden = slot.name.contains(".call") || slot.name.ends_with(".read_back");
            if !hidden {
                parts.push(format!("{}: {} -> {}", slot.name, show(before[i]), show(after[i])));
            }
        }
        parts.join("; ")
    }
}
