//! Tells a schedule as a story: one line a step, with the kernel line and what it did to each line's copies.

use cache_model::event::{Event, EventKind};
use cache_model::lattice::{MoveKind, Place};
use sev_arch::{Access, CoreId, Tag, VmId};
use sim_core::choice::Scripted;
use sim_core::state::Plain;
use svm_lang::Role;
use svm_policy::Pc;

use crate::explore::{Explorer, ScheduledStep};
use crate::label::{Actor, NewOwner, Notes, What};
use crate::machine::{Machine, Owner};
use crate::run::Stepped;
use cause::Causes;
use effect::{Seen, Watched, place_name};

mod buffer;
mod cause;
mod effect;
mod general;

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
    /// Its column, from 1.
    pub column: Option<u32>,
    /// The function that the statement stands in.
    pub function: Option<String>,
    /// What its file is for.
    pub role: Option<Role>,
    /// The first pCPU of the caches, or the pCPU of the new owner, that a step is about which runs on none.
    pub near: Option<u16>,
    /// The statement, or what the hardware did.
    pub text: String,
    /// What it did: shared variables that it read or changed, copies of lines, memory. Empty if nothing can be said.
    pub effect: String,
    /// Events, each in words.
    pub events: Vec<(Event, String)>,
    /// What went wrong in general, where the steps so far show it; only at a step with an event.
    pub cause: Option<String>,
}

/// A step's statement and its place, or what the hardware did.
#[derive(Debug, Default)]
struct Said {
    place: Option<Pc>,
    text: String,
}

/// Why a schedule could not be followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplayError {
    /// The step, from 1.
    pub step: usize,
    /// What was wrong.
    pub message: String,
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
        let mut causes = Causes::default();
        let mut passed = Vec::new();
        for (i, step) in schedule.iter().enumerate() {
            let before = words.clone();
            let pcpu_before = self.pcpu_of(&Plain { words: &mut words }, step.actor);
            let mut chooser = Scripted::new(&step.answers);
            let mut store = Watched::new(&mut words);
            let done = self.step(&mut store, &mut memory, step.actor, &mut chooser, &mut notes);
            let touched = store.touched.into_inner();
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
            let said = self.in_words(step.actor, notes.what, &words);
            let seen = Seen {
                actor: step.actor,
                what: notes.what,
                before: &before,
                after: &words,
                status: notes.status,
                touched: &touched,
            };
            let events = notes.events.iter().map(|e| (*e, self.event_text(*e, &seen, &notes))).collect();
            causes.see(self, &seen, pcpu);
            let source = said.place.map(|pc| self.source(pc));
            story.push(StoryStep {
                step: i + 1,
                actor: name,
                pcpu: pcpu.map(|p| p.0),
                file: source.as_ref().map(|s| s.file.to_owned()),
                line: source.as_ref().map(|s| s.line),
                column: source.as_ref().map(|s| s.column),
                function: source.as_ref().map(|s| s.function.to_owned()),
                role: source.as_ref().map(|s| s.role),
                near: self.near(notes.what),
                text: said.text,
                effect: self.effect(&seen),
                cause: notes.events.iter().find_map(|e| causes.of(self, *e, &seen, &notes)).map(|c| c + "."),
                events,
            });
            passed.push(before);
        }
        if let Some(last) = story.last_mut().filter(|s| s.events.is_empty()) {
            last.cause = self.stuck(&causes, &words).or_else(|| self.hung(&passed, &words)).map(|c| c + ".");
        }
        Ok(story)
    }

    /// The same, of a schedule that leads to an event. Where it leads to a state in which a task can never end any more, the
    /// last of its steps is marked, and what then goes round and round is told behind it.
    ///
    /// # Errors
    ///
    /// As [`Machine::tell`].
    pub fn tell_of(
        &self,
        event: EventKind,
        schedule: &[ScheduledStep],
    ) -> Result<Vec<StoryStep>, ReplayError> {
        let hung = event == EventKind::HungTask;
        let round = hung.then(|| Explorer::new(self)?.round_and_round(schedule)).flatten();
        let Some(round) = round else { return self.tell(schedule) };
        let mut story = self.tell(&[schedule, &round].concat())?;
        if let Some(moment) = schedule.len().checked_sub(1).and_then(|last| story.get_mut(last)) {
            let text = "from here no order of steps leads to the end of every task";
            moment.events.push((Event::plain(event), text.to_owned()));
        }
        if let Some(last) = story.last_mut().filter(|s| s.cause.is_none()) {
            last.cause = Some("no order of steps leads to the end of every task.".to_owned());
        }
        Ok(story)
    }

    /// The pCPU that a step of the caches or of a page's next owner is about.
    fn near(&self, what: Option<What>) -> Option<u16> {
        let core_of = &self.spec.core_of;
        let first = |is: &dyn Fn(CoreId) -> bool| core_of.iter().position(|core| is(*core));
        let at = if let What::Reuse { by: NewOwner::Host(p), .. } = what? {
            Some(p.index())
        } else if let Some(What::Move(m)) = what {
            match m.kind {
                MoveKind::PrivateToL3(c) | MoveKind::PrivateToDram(c) | MoveKind::PrivateDrop(c) => {
                    first(&|core| core == c)
                }
                MoveKind::L3ToFlight(x) | MoveKind::L3Drop(x) | MoveKind::FlightToDram(x) => {
                    first(&|core| self.spec.shape.ccx_of_core[core.index()] == x)
                }
            }
        } else {
            None
        };
        u16::try_from(at?).ok()
    }

    fn in_words(&self, actor: Actor, what: Option<What>, words: &[i64]) -> Said {
        let at = |pc: Pc| Said { place: Some(pc), text: self.statement(pc).to_owned() };
        let page = |p: u32| self.spec.pages[p as usize].0.clone();
        let verb = |a: Access| match a {
            Access::Read => "reads",
            Access::Write => "writes",
        };
        let plain = |text: String| Said { place: None, text };
        match what {
            None => plain(String::new()),
            Some(What::Text { pc }) => at(pc),
            Some(What::Guest { line, access, plain, pc }) => {
                let through = if plain { " through C=0" } else { "" };
                let text = format!("the guest {} {}{through}", verb(access), self.line_name(line));
                Said { place: pc, text }
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
            Some(What::Drained { pcpu, slot }) => {
                let name = &self.layout.slots()[slot.0 as usize].name;
                plain(format!("pcpu{pcpu}'s store to {name} reaches memory"))
            }
            Some(What::Move(m)) => {
                let line = self.line_name(m.line);
                let copy = format!("{}'s copy of {line}", self.tag_name(m.tag));
                plain(match m.kind {
                    MoveKind::PrivateToL3(c) => format!("{c} evicts {copy} to the L3"),
                    MoveKind::PrivateToDram(c) => format!("{c} evicts {copy} to memory"),
                    MoveKind::PrivateDrop(c) => format!("{c} drops {copy}"),
                    MoveKind::L3ToFlight(x) => format!("the L3 of {x} evicts {copy}"),
                    MoveKind::L3Drop(x) => format!("the L3 of {x} drops {copy}"),
                    MoveKind::FlightToDram(_) => format!("{copy} arrives in memory"),
                })
            }
            Some(What::Reuse { page: p, by, access }) => {
                debug_assert_eq!(actor, Actor::World);
                let owner = self.owner_of_code(words[self.owners[p as usize].0 as usize]);
                let who = match by {
                    NewOwner::Host(p) if matches!(owner, Owner::User(_)) => format!("the VMM, on {p},"),
                    NewOwner::Device if matches!(owner, Owner::User(_)) => {
                        "a device, by DMA for the VMM,".to_owned()
                    }
                    NewOwner::Host(p) => format!("the host, new owner, on {p},"),
                    NewOwner::Device => "a device, by DMA,".to_owned(),
                    NewOwner::Vm => return plain(format!("{} is given back to its VM", page(p))),
                };
                plain(format!("{who} {} {}", verb(access), page(p)))
            }
        }
    }

    /// An event in one sentence: what it is about here, and why it is damage.
    fn event_text(&self, event: Event, seen: &Seen<'_>, notes: &Notes) -> String {
        let (Some(line), Some(tag)) = (event.line, event.tag) else {
            return match (event.kind, notes.broken, notes.status) {
                (EventKind::Tracking, Some((how, at)), _) => {
                    // What costs no step is told with the step around it.
                    let told = if let Some(What::Text { pc }) = seen.what { Some(pc) } else { None };
                    let statement = |pc: Pc| (self.source(pc).line, self.statement(pc));
                    let at = at.filter(|at| told.map(statement) != Some(statement(*at)));
                    let place = at.map(statement).map(|(line, text)| format!(", in line {line}: {text}"));
                    self.how_broken(how) + &place.unwrap_or_default()
                }
                (EventKind::Firmware, _, Some(status)) => format!("the firmware answered {}", status.name()),
                _ => event.kind.meaning().to_owned(),
            };
        };
        let name = self.line_name(line);
        let owner_in = |words: &[i64]| {
            let mut words = words.to_vec();
            self.owner(&Plain { words: &mut words }, self.page_of(line))
        };
        let (was, is) = (owner_in(seen.before), owner_in(seen.after));
        let whose = |owner: Owner| match owner {
            Owner::Vm(vm) => format!("{vm}'s"),
            Owner::Free => "nobody's".to_owned(),
            Owner::Host => "the host's".to_owned(),
            Owner::Device => "a device's".to_owned(),
            Owner::User(vm) => format!("{vm}'s VMM's"),
        };
        let own = |vm: VmId| {
            let mut words = seen.before.to_vec();
            tag == self.guest_tag(&Plain { words: &mut words }, vm, self.page_of(line))
        };
        let tagged = self.tag_name(tag);
        let data = match was {
            Owner::Vm(vm) if own(vm) => format!("newer data of {vm} itself"),
            Owner::Free => "data of the page's next owner".to_owned(),
            Owner::User(vm) => format!("newer data that {vm}'s VMM keeps there"),
            Owner::Vm(_) | Owner::Host | Owner::Device => format!("{} newer data", whose(was)),
        };
        match event.kind {
            EventKind::Latent => {
                let page = &self.spec.pages[self.page_of(line) as usize].0;
                let now = match is {
                    Owner::Free => "is free".to_owned(),
                    Owner::User(vm) => format!("is used by {vm}'s VMM itself now"),
                    Owner::Vm(_) | Owner::Host | Owner::Device => format!("is {} now", whose(is)),
                };
                let places = self.dirty_places(line, tag, seen.after);
                let at = |p: &Place| match p {
                    Place::Private(_) | Place::L3(_) => format!("in {}", place_name(*p)),
                    Place::Flight(_) => place_name(*p),
                };
                let places: Vec<String> = places.iter().map(at).collect();
                let victim = match (self.spec.shape.sme_coherent, is) {
                    (true, _) => "what a device writes there by DMA",
                    (false, Owner::Host | Owner::Device) => "what its new owner has stored there",
                    (false, Owner::User(_)) => "whatever the VMM stores there",
                    (false, Owner::Free | Owner::Vm(_)) => "whatever its next owner stores there",
                };
                format!(
                    "page {page} {now}, but {tagged}'s dirty line of it is still {}: its write-back will \
                     overwrite {victim}",
                    places.join(" and "),
                )
            }
            EventKind::Clobber => format!("{tagged}'s old dirty line of {name} was written back over {data}"),
            EventKind::HostDirty => format!("the host's dirty line of {name} was written back over {data}"),
            EventKind::Stale => {
                format!(
                    "{name} was read under {tagged}'s tag and gave data older than its owner's last write"
                )
            }
            EventKind::Garbage => {
                let named = |t: Tag| {
                    if t == Tag::HOST { "the host's".to_owned() } else { format!("{}'s", self.tag_name(t)) }
                };
                let key = self.dram(line, seen.after).map(|d| d.key).filter(|key| *key != tag);
                let key = key.map_or_else(|| "another".to_owned(), named);
                format!(
                    "{name} was read under {} key, but memory holds it under {key}: the reader gets garbage",
                    named(tag)
                )
            }
            EventKind::Leak => format!(
                "{name} was read under {tagged}'s tag and gave plaintext of a guest that had the ASID before"
            ),
            EventKind::RmpFault => {
                format!(
                    "{name} is assigned to a guest: the RMP check stopped the access, and nothing was written"
                )
            }
            EventKind::Tracking
            | EventKind::Firmware
            | EventKind::Deadlock
            | EventKind::SleepInAtomic
            | EventKind::SleepNonBlockable
            | EventKind::HungTask => format!("{} ({name})", event.kind.meaning()),
        }
    }
}
