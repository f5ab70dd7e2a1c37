//! A machine as the explorer sees it: packed states, every actor, every choice.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use cache_model::event::{Event, EventKind};
use sim_core::choice::{Chooser, Odometer, Scripted};
use sim_core::state::{Packed, Position, SlotId, Store};
use sim_explore::{Explored, Model, Outcome, Search, Ways};
use svm_policy::Pc;

use crate::ground::{Ground, Recorder, Room, Teacher, ways};
use crate::label::{Actor, Notes, What};
use crate::machine::Machine;
use crate::memory::ShadowMemory;
use crate::partial_order::PartialOrder;
use crate::run::Stepped;
use crate::switches::{Rule, Switching};
use crate::symmetry::witness::{Who, Witness};
use crate::symmetry::{Scratch, Symmetry};
use crate::twin::Twin;
use crate::walk::{Draw, Walk, Walked, Walks, spread};

mod reduce;

pub use reduce::Reductions;

/// Evaluates an expression for the least width that takes so many words, or gives the words back.
macro_rules! in_width {
    ($words:expr, $w:ident => $run:expr) => { in_width!($words, $w => $run; 1 2 3 4 5 6 8 12 16 32 64) };
    // For what is rare, or not hurried: each width is compiled for itself.
    (seldom $words:expr, $w:ident => $run:expr) => { in_width!($words, $w => $run; 2 4 8 16 64) };
    ($words:expr, $w:ident => $run:expr; $($width:literal)*) => {
        match $words {
            $(0..=$width => { const $w: usize = $width; Ok($run) })*
            words => Err(words),
        }
    };
}

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

/// The bit of a twin among the goals of a search: above those of the events.
#[must_use]
pub fn goal_of_twin(twin: Twin) -> u32 {
    TWINS + twin.bit().trailing_zeros()
}

/// The first goal that is a twin.
const TWINS: u32 = 32;

/// Explores a machine over shadow caches.
#[derive(Debug)]
pub struct Explorer<'a> {
    student: Student<'a>,
    positions: Vec<Position>,
    words: usize,
    /// How many switches searches allow.
    switches: Option<Switches>,
    /// Symmetries that searches use.
    symmetry: Option<Symmetry>,
    /// Whether searches use partial order.
    partial_order: bool,
}

/// A limit of switches, and whether it left an order of steps out.
#[derive(Clone, Copy, Debug)]
struct Switches {
    most: u16,
    cut: bool,
}

/// Notes that are asked for the twins, too.
fn asked() -> Notes {
    Notes { wants_twins: true, ..Notes::default() }
}

/// What a step was, and its events.
type Told = (Option<What>, Vec<Event>);

/// Runs the one step function.
#[derive(Debug)]
struct Student<'a> {
    machine: &'a Machine,
    memory: ShadowMemory,
    notes: Notes,
    /// What was met in any step.
    met: Met,
}

/// What a search says of the model beside its events.
#[derive(Clone, Copy, Default, Debug)]
struct Met {
    /// A text that loops without an access; the first of several.
    runaway: Option<Pc>,
    /// Whether a store waited for room in a full store buffer.
    full_buffer: bool,
}

impl Met {
    fn and(self, other: Met) -> Met {
        let first = |a: Option<Pc>, b: Option<Pc>| a.into_iter().chain(b).min();
        Met {
            runaway: first(self.runaway, other.runaway),
            full_buffer: self.full_buffer || other.full_buffer,
        }
    }
}

impl Student<'_> {
    fn step<S: Store, C: Chooser>(
        &mut self,
        store: &mut S,
        chooser: &mut C,
        actor: Actor,
        within: Option<u32>,
    ) -> Stepped {
        let Student { machine, memory, notes, met } = self;
        let done = machine.step_within(store, memory, actor, within, chooser, notes);
        *met = met.and(Met { runaway: notes.runaway, full_buffer: notes.full_buffer });
        done
    }
}

impl<'a> Explorer<'a> {
    /// For a machine; `None` if it was built for the timed caches.
    #[must_use]
    pub fn new(machine: &'a Machine) -> Option<Self> {
        let (positions, words) = machine.layout().pack();
        let memory = machine.shadow()?;
        let student = Student { machine, memory, notes: asked(), met: Met::default() };
        Some(Explorer { student, positions, words, switches: None, symmetry: None, partial_order: false })
    }

    /// From here on, [`Explorer::run`] tries only those orders of steps in which at most so many times an actor
    /// steps while the one that stepped last still could. Caches, store buffers and new owners step for nothing.
    pub fn limit_switches(&mut self, most: u16) {
        self.switches = Some(Switches { most, cut: false });
    }

    /// Whether searches have a limit of switches.
    #[must_use]
    pub fn limits_switches(&self) -> bool {
        self.switches.is_some()
    }

    /// Whether the limit of switches left out an order of steps in the last search.
    #[must_use]
    pub fn left_out(&self) -> bool {
        self.switches.is_some_and(|s| s.cut)
    }

    /// Bytes of a packed state.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        (self.words + usize::from(self.switches.is_some())) * 8
    }

    /// A text that loops without an access, met while exploring.
    #[must_use]
    pub fn runaway(&self) -> Option<Pc> {
        self.student.met.runaway
    }

    /// Whether a store waited for room in a full store buffer, so that orders of steps with more unseen stores were not tried.
    #[must_use]
    pub fn full_buffer(&self) -> bool {
        self.student.met.full_buffer
    }

    /// Runs a search over the machine's states.
    ///
    /// A state is as wide as the model needs, up to 6 words; above, the next width that there is.
    ///
    /// # Errors
    ///
    /// The number of words, if it is more than the widest, 64.
    pub fn run(&mut self, search: Search<'_>) -> Result<Explored, usize> {
        match self.switches {
            None => in_width!(self.words, W => self.run_in::<W>(search)),
            Some(Switches { most, .. }) => {
                in_width!(seldom self.words + 1, W => self.run_within::<W>(search, most))
            }
        }
    }

    fn run_in<const W: usize>(&mut self, mut search: Search<'_>) -> Explored {
        let threads = rayon::current_num_threads();
        let all = self.symmetry.clone();
        let parts = all.iter().flat_map(|all| [false, true].map(|pcpus| all.part(pcpus)));
        let mut smaller = parts.filter(|part| part.order() > 1);
        loop {
            let refuted = AtomicBool::new(false);
            let symmetric = self.symmetry.as_ref().map(|symmetry| Symmetric { symmetry, refuted: &refuted });
            let mut models: Vec<GroundModel<'_, W>> = (0..threads).map(|_| self.model(symmetric)).collect();
            let progress = search.progress.as_mut().map(|told| &mut **told as &mut dyn FnMut(_));
            let disk = search.disk.clone();
            let explored = Search { progress, disk, ..search }.run(&mut models);
            let met = models.iter().fold(Met::default(), |met, m| met.and(m.student.met));
            drop(models);
            if refuted.into_inner() {
                self.symmetry = smaller.next();
                continue;
            }
            self.student.met = self.student.met.and(met);
            return explored;
        }
    }

    fn run_within<const W: usize>(&mut self, search: Search<'_>, most: u16) -> Explored {
        let rule = Rule::new(self.student.machine.actors(), most);
        let threads = rayon::current_num_threads();
        let model = |_| Switching::<'_, W>::new(self.model(None), self.words, rule.clone());
        let mut models: Vec<_> = (0..threads).map(model).collect();
        let explored = search.run(&mut models);
        let met = models.iter().fold(Met::default(), |met, m| met.and(m.inner.student.met));
        let cut = models.iter().any(|m| m.cut);
        self.student.met = self.student.met.and(met);
        self.switches = Some(Switches { most, cut });
        explored
    }

    fn model<'s, const W: usize>(&'s self, symmetric: Option<Symmetric<'s>>) -> GroundModel<'s, W> {
        let mut initial = [0; W];
        self.write_initial(&mut initial);
        let Explorer { student, positions, .. } = self;
        let student = Student {
            machine: student.machine,
            memory: student.memory.clone(),
            notes: asked(),
            met: Met::default(),
        };
        let ground = |actor| Ground::new(student.machine.counter(actor).map(|s| positions[s.0 as usize]));
        let tables: Vec<_> = self.actors().into_iter().map(|who| (who, ground(who.0))).collect();
        let partial_order =
            if self.partial_order { PartialOrder::of(student.machine, positions) } else { None };
        let symmetric = symmetric.map(|s| {
            initial = s.symmetry.canonical(&initial, &mut Scratch::default());
            (s, Witness::new(s.symmetry, student.machine, tables.iter().map(|t| t.0).collect()))
        });
        GroundModel {
            open: Vec::new(),
            student,
            positions,
            initial,
            tables,
            symmetric,
            partial_order,
            scratch: Scratch::default(),
            room: Room::new(u64::MAX),
        }
    }

    /// Who can step: the caches line by line, the world page by page.
    fn actors(&self) -> Vec<Who> {
        let machine = self.student.machine;
        let pages = u32::try_from(machine.spec().pages.len()).unwrap_or(0);
        let each = |actor, count| (0..count).map(|n| (actor, Some(n))).collect();
        let of = |actor| match actor {
            Actor::Cache => each(actor, self.student.memory.slots.lines()),
            Actor::World => each(actor, pages),
            Actor::Task(_) | Actor::Preempt(_) | Actor::Irq(_) | Actor::Buffer(_) => vec![(actor, None)],
        };
        machine.actors().into_iter().flat_map(of).collect()
    }

    /// Walks at random, until all walks are made or each goal of `stop_at` was met.
    ///
    /// # Errors
    ///
    /// As [`Explorer::run`].
    pub fn walk(
        &mut self,
        walks: &Walks,
        stop_at: u64,
        interrupted: Option<&AtomicBool>,
    ) -> Result<Walked, usize> {
        in_width!(seldom self.words, W => {
            let threads = rayon::current_num_threads();
            let mut models: Vec<GroundModel<'_, W>> = (0..threads).map(|_| self.model(None)).collect();
            let walked = Walked::of(walks, stop_at, interrupted, |numbers, length| {
                spread(&mut models, &numbers, |model, number| {
                    let actors = model.tables.len();
                    model.walk(walks.steps, &mut Draw::new(walks, number, actors, length))
                })
            });
            let met = models.iter().fold(Met::default(), |met, m| met.and(m.student.met));
            self.student.met = self.student.met.and(met);
            walked
        })
    }

    /// The state after these steps and the goals that the last one reached; `None` if they do not fit.
    pub(crate) fn after(&mut self, from: &[u64], steps: &[ScheduledStep]) -> Option<(Vec<u64>, u64)> {
        let told = self.follow(from, steps)?;
        let (state, (_, events)) = told.last()?;
        Some((state.clone(), events.iter().fold(0, |g, e| g | 1 << goal_of(e.kind))))
    }

    /// The initial state.
    pub(crate) fn start(&self) -> Vec<u64> {
        let mut state = vec![0; self.words];
        self.write_initial(&mut state);
        state
    }

    fn write_initial(&self, state: &mut [u64]) {
        let mut store = Packed { words: state, layout: &self.positions };
        for (id, value) in (0u32..).zip(self.student.machine.layout().initial()) {
            store.set(SlotId(id), value);
        }
    }

    /// Enumerates the transitions of a state by the step function itself, without tables.
    pub(crate) fn each(&mut self, state: &[u64], mut f: impl FnMut(Actor, &Odometer, &[u64], &Notes)) {
        let mut odometer = Odometer::default();
        let mut next = state.to_vec();
        for actor in self.student.machine.actors() {
            odometer.reset();
            loop {
                next.copy_from_slice(state);
                let mut store = Packed { words: &mut next, layout: &self.positions };
                if self.student.step(&mut store, &mut odometer, actor, None) == Stepped::Done {
                    f(actor, &odometer, &next, &self.student.notes);
                }
                if !odometer.advance() {
                    break;
                }
            }
        }
    }

    /// Whether nobody can go on after these steps from the start, though some task has not ended. A schedule
    /// that does not fit leads nowhere.
    pub fn deadlocked_after(&mut self, steps: &[ScheduledStep]) -> bool {
        let mut state = vec![0; self.words];
        self.write_initial(&mut state);
        let Some(told) = self.follow(&state, steps) else { return false };
        if let Some((last, _)) = told.last() {
            state.clone_from(last);
        }
        let mut progress = false;
        self.each(&state, |actor, _, _, _| progress |= actor != Actor::World);
        let store = Packed { words: &mut state, layout: &self.positions };
        !progress && !self.student.machine.finished(&store)
    }

    /// What goes on for ever after some steps, each who can making one in turn, until a state comes back. None if every
    /// task ends meanwhile, or the steps do not fit.
    pub(crate) fn round_and_round(&mut self, steps: &[ScheduledStep]) -> Option<Vec<ScheduledStep>> {
        let mut state = self.start();
        if let Some((last, _)) = self.follow(&state, steps)?.pop() {
            state = last;
        }
        let (mut seen, mut made) = (BTreeSet::new(), Vec::new());
        while seen.insert(state.clone()) {
            let before = made.len();
            // What is on its way out of a cache moves only if nobody else does, and nothing is moved between pCPUs.
            for cache in [false, true] {
                if made.len() > before {
                    continue;
                }
                for actor in self.student.machine.actors() {
                    let moves = match actor {
                        Actor::Task(_) | Actor::Irq(_) | Actor::Buffer(_) => !cache,
                        Actor::Cache => cache,
                        Actor::Preempt(_) | Actor::World => false,
                    };
                    let mut odometer = Odometer::default();
                    let mut next = state.clone();
                    let mut store = Packed { words: &mut next, layout: &self.positions };
                    if moves && self.student.step(&mut store, &mut odometer, actor, None) == Stepped::Done {
                        made.push(ScheduledStep { actor, answers: odometer.answers().collect() });
                        state = next;
                    }
                }
            }
        }
        let store = Packed { words: &mut state, layout: &self.positions };
        (!self.student.machine.returned(&store)).then_some(made)
    }

    /// Searches as [`Explorer::run`] does, but asks the step function itself for every transition: slow, and what
    /// the ground tables are compared with.
    ///
    /// # Errors
    ///
    /// As [`Explorer::run`].
    pub fn run_without_tables(&mut self, search: Search<'_>) -> Result<Explored, usize> {
        // Of the same width as with tables: the order of states depends on it.
        in_width!(self.words, W => search.run(&mut [Direct::<W>::new(self)]))
    }

    /// Reorders a schedule so that actors take turns less often: a step moves ahead where nobody in between can
    /// tell. The length, the last step, every label and the final state stay.
    #[must_use]
    pub fn calm(&mut self, mut steps: Vec<ScheduledStep>) -> Vec<ScheduledStep> {
        let mut initial = vec![0; self.words];
        self.write_initial(&mut initial);
        let Some(mut told) = self.follow(&initial, &steps) else { return steps };
        for at in 1..steps.len().saturating_sub(1) {
            let before = steps[at - 1].actor;
            if steps[at].actor == before {
                continue;
            }
            let Some(from) = (at + 1..steps.len() - 1).find(|i| steps[*i].actor == before) else { continue };
            let (start, end) = (told[at - 1].0.clone(), told[from].0.clone());
            let mut moved = steps[at..=from].to_vec();
            moved.rotate_right(1);
            let mut labels: Vec<_> = told[at..=from].iter().map(|t| t.1.clone()).collect();
            labels.rotate_right(1);
            let Some(instead) = self.follow(&start, &moved) else { continue };
            let same = instead.iter().map(|t| &t.1).eq(&labels);
            if same && instead.last().is_some_and(|t| t.0 == end) {
                steps[at..=from].clone_from_slice(&moved);
                told[at..=from].clone_from_slice(&instead);
            }
        }
        steps
    }

    /// The state after each step, with what it was and the events; `None` if the steps do not fit.
    fn follow(&mut self, from: &[u64], steps: &[ScheduledStep]) -> Option<Vec<(Vec<u64>, Told)>> {
        let mut state = from.to_vec();
        let mut told = Vec::new();
        for step in steps {
            let mut chooser = Scripted::new(&step.answers);
            let mut store = Packed { words: &mut state, layout: &self.positions };
            let done = self.student.step(&mut store, &mut chooser, step.actor, None);
            if done != Stepped::Done || !chooser.fitted() {
                return None;
            }
            let notes = &self.student.notes;
            told.push((state.clone(), (notes.what, notes.events.clone())));
        }
        Some(told)
    }

    /// The step that transition `number` of a state is.
    pub(crate) fn transition(&mut self, state: &[u64], number: u32) -> Option<ScheduledStep> {
        Some(self.transitions(state)?.into_iter().nth(usize::try_from(number).ok()?)?.0)
    }

    /// The transitions of a stored state, in the order of the search: the step, and the state it leads to.
    fn transitions(&mut self, state: &[u64]) -> Option<Vec<(ScheduledStep, Vec<u64>)>> {
        let mut steps = Vec::new();
        self.each(&state[..self.words], |actor, odometer, next, _| {
            let mut padded = state.to_vec();
            padded[..next.len()].copy_from_slice(next);
            steps.push((ScheduledStep { actor, answers: odometer.answers().collect() }, padded));
        });
        if let Some(Switches { most, .. }) = self.switches {
            let rule = Rule::new(self.student.machine.actors(), most);
            let actors: Vec<Actor> = steps.iter().map(|s| s.0.actor).collect();
            let counts: Vec<Option<u64>> =
                rule.after(state.get(self.words).copied()?, actors.into_iter()).collect();
            for (step, count) in steps.iter_mut().zip(&counts) {
                step.1[self.words] = count.unwrap_or(0);
            }
            let mut counts = counts.into_iter();
            steps.retain(|_| counts.next().flatten().is_some());
        }
        Some(steps)
    }
}

/// A machine's transitions by ground tables.
pub(crate) struct GroundModel<'s, const W: usize> {
    student: Student<'s>,
    positions: &'s [Position],
    initial: [u64; W],
    /// Who can step, and its tables: the caches line by line, the world page by page.
    tables: Vec<(Who, Ground<W>)>,
    /// What successors are renamed by, and the check that this is sound.
    symmetric: Option<(Symmetric<'s>, Witness<W>)>,
    partial_order: Option<PartialOrder<W>>,
    scratch: Scratch,
    /// Successors that a task may have to go on from alone.
    open: Vec<([u64; W], u64)>,
    room: Room,
}

/// A search's symmetries.
#[derive(Clone, Copy)]
struct Symmetric<'s> {
    symmetry: &'s Symmetry,
    /// Whether they are none.
    refuted: &'s AtomicBool,
}

/// The goals of a step's events, and its twins.
fn goals_of(notes: &Notes) -> u64 {
    notes.events.iter().fold(u64::from(notes.twins) << TWINS, |g, e| g | 1 << goal_of(e.kind))
}

/// A lesson about one actor.
struct Lesson<'s, 'a, const W: usize> {
    student: &'s mut Student<'a>,
    layout: &'s [Position],
    who: Who,
    table: usize,
    symmetric: Option<&'s mut (Symmetric<'a>, Witness<W>)>,
}

impl Student<'_> {
    fn teach(&mut self, who: Who, store: &mut Recorder<'_>, chooser: &mut Odometer) -> Option<u64> {
        let done = self.step(store, chooser, who.0, who.1);
        (done == Stepped::Done).then(|| goals_of(&self.notes))
    }
}

impl<const W: usize> Teacher<W> for Lesson<'_, '_, W> {
    fn teach(&mut self, store: &mut Recorder<'_>, chooser: &mut Odometer) -> Option<u64> {
        self.student.teach(self.who, store, chooser)
    }

    fn learned(&mut self, state: &[u64; W], read: &mut [u64; W], outcomes: &[Outcome<W>]) {
        let Lesson { student, layout, table, symmetric: Some((symmetric, witness)), .. } = self else {
            return;
        };
        witness.compare(symmetric.symmetry, *table, state, read, outcomes, |who, image| {
            ways(image, layout, |store, chooser| student.teach(who, store, chooser))
        });
        if witness.refuted {
            symmetric.refuted.store(true, Ordering::Relaxed);
        }
    }
}

impl<const W: usize> GroundModel<'_, W> {
    /// Calls `f` with each transition out of a state: who, the successor, the goals reached. Returns the goals that
    /// the state itself reaches. Without reductions.
    #[inline]
    pub(crate) fn each(&mut self, state: &[u64; W], mut f: impl FnMut(Actor, &[u64; W], u64)) -> u64 {
        self.keep_room();
        // The caches count as progress: a flush waits for what they have on its way.
        let mut progress = false;
        for (table, (who, ground)) in self.tables.iter_mut().enumerate() {
            let (student, layout) = (&mut self.student, self.positions);
            let mut lesson = Lesson { student, layout, who: *who, table, symmetric: None };
            ground.each(state, self.positions, &mut lesson, &mut self.room, |next, goals| {
                progress |= who.0 != Actor::World;
                f(who.0, next, goals);
            });
        }
        if progress { 0 } else { self.stuck(state) }
    }

    /// Tables begin anew when their room is used up.
    fn keep_room(&mut self) {
        if self.room.is_used_up() {
            self.tables.iter_mut().for_each(|t| t.1.forget());
        }
    }

    /// The task that goes alone, if one does: tasks are the first actors, so it is its table, too.
    fn alone(&mut self, state: &[u64; W]) -> Option<usize> {
        let order = self.partial_order.as_ref()?;
        for table in 0..order.tasks() {
            if !order.keeps_pcpu(state, table) {
                continue;
            }
            let (who, ground) = &mut self.tables[table];
            let (student, symmetric) = (&mut self.student, self.symmetric.as_mut());
            let mut lesson = Lesson { student, layout: self.positions, who: *who, table, symmetric };
            if order.goes_alone(state, table, ground.ways(state, self.positions, &mut lesson, &mut self.room))
            {
                return Some(table);
            }
        }
        None
    }

    /// Walks until nobody can go on, or so many steps.
    fn walk(&mut self, steps: u32, draw: &mut Draw) -> Walk {
        let mut state = self.initial;
        let mut walk = Walk { numbers: Vec::new(), met: Vec::new(), ended: false };
        let mut seen = 0u64;
        let (mut actors, mut next) = (Vec::new(), Vec::new());
        for at in 0..steps {
            actors.clear();
            next.clear();
            let mut progress = false;
            for (n, (who, ground)) in self.tables.iter_mut().enumerate() {
                let student = &mut self.student;
                let layout = self.positions;
                let mut lesson = Lesson { student, layout, who: *who, table: n, symmetric: None };
                ground.each(&state, self.positions, &mut lesson, &mut self.room, |after, goals| {
                    progress |= who.0 != Actor::World;
                    actors.push(n);
                    next.push((*after, goals));
                });
            }
            if !progress {
                let store = Packed { words: &mut state.clone(), layout: self.positions };
                if !self.student.machine.finished(&store) {
                    walk.met.push((goal_of(EventKind::Deadlock), at));
                }
            }
            if actors.is_empty() {
                walk.ended = true;
                break;
            }
            let chosen = draw.next(at, &actors);
            walk.numbers.push(u32::try_from(chosen).unwrap_or(u32::MAX));
            let goals = next[chosen].1 & !seen;
            state = next[chosen].0;
            seen |= goals;
            walk.met.extend((0..64).filter(|g| goals >> g & 1 == 1).map(|g| (g, at + 1)));
        }
        walk
    }
}

impl<const W: usize> Model<W> for GroundModel<'_, W> {
    fn initial(&self) -> [u64; W] {
        self.initial
    }

    #[inline]
    fn expand(&mut self, state: &[u64; W], mut emit: impl FnMut(&[u64; W], u64)) -> u64 {
        if self.symmetric.is_none() && self.partial_order.is_none() {
            return self.each(state, |_, next, goals| emit(next, goals));
        }
        self.keep_room();
        // The caches count as progress: a flush waits for what they have on its way.
        let mut progress = false;
        let symmetry = self.symmetric.as_ref().map(|(s, _)| *s);
        if symmetry.is_some_and(|s| s.refuted.load(Ordering::Relaxed)) {
            return 0;
        }
        let ordered = self.partial_order.is_some();
        let mut open = std::mem::take(&mut self.open);
        let alone = self.alone(state);
        for (table, (who, ground)) in self.tables.iter_mut().enumerate() {
            if alone.is_some_and(|alone| alone != table) {
                continue;
            }
            let (student, symmetric) = (&mut self.student, self.symmetric.as_mut());
            let mut lesson = Lesson { student, layout: self.positions, who: *who, table, symmetric };
            ground.each(state, self.positions, &mut lesson, &mut self.room, |next, goals| {
                progress |= who.0 != Actor::World;
                match symmetry {
                    _ if ordered => open.push((*next, goals)),
                    Some(s) => emit(&s.symmetry.canonical(next, &mut self.scratch), goals),
                    None => emit(next, goals),
                }
            });
        }
        // A state in which a task goes alone is passed through and never stored: its steps lead forward, so this ends.
        while let Some((next, goals)) = open.pop() {
            if let Some(table) = self.alone(&next) {
                let (who, ground) = &mut self.tables[table];
                let (student, symmetric) = (&mut self.student, self.symmetric.as_mut());
                let mut lesson = Lesson { student, layout: self.positions, who: *who, table, symmetric };
                ground.each(&next, self.positions, &mut lesson, &mut self.room, |after, more| {
                    open.push((*after, goals | more))
                });
                continue;
            }
            match symmetry {
                Some(s) => emit(&s.symmetry.canonical(&next, &mut self.scratch), goals),
                None => emit(&next, goals),
            }
        }
        self.open = open;
        if progress { 0 } else { self.stuck(state) }
    }

    fn actors(&self) -> usize {
        if self.symmetric.is_none() && self.partial_order.is_none() { self.tables.len() } else { 0 }
    }

    fn ways(&mut self, actor: usize, state: &[u64; W]) -> Ways<'_, W> {
        self.keep_room();
        let (who, ground) = &mut self.tables[actor];
        let (student, layout) = (&mut self.student, self.positions);
        let mut lesson = Lesson { student, layout, who: *who, table: actor, symmetric: None };
        ground.ways(state, self.positions, &mut lesson, &mut self.room)
    }

    fn is_progress(&self, actor: usize) -> bool {
        self.tables[actor].0.0 != Actor::World
    }

    fn is_towards_end(&self, actor: usize) -> bool {
        let comes_to_an_end = |task: u16| self.student.machine.comes_to_an_end(task);
        matches!(self.tables[actor].0.0, Actor::Task(task) if comes_to_an_end(task))
    }

    fn stuck(&self, state: &[u64; W]) -> u64 {
        let mut state = *state;
        let store = Packed { words: &mut state, layout: self.positions };
        if self.student.machine.finished(&store) { 0 } else { 1 << goal_of(EventKind::Deadlock) }
    }

    fn is_end(&self, state: &[u64; W]) -> bool {
        let mut state = *state;
        self.student.machine.returned(&Packed { words: &mut state, layout: self.positions })
    }

    fn keep_within(&mut self, bytes: u64) {
        self.room = Room::new(bytes);
    }
}

/// A machine's transitions by the step function itself.
struct Direct<'e, 'a, const W: usize> {
    explorer: &'e mut Explorer<'a>,
    actors: Vec<Who>,
    outcomes: Vec<Outcome<W>>,
}

impl<'e, 'a, const W: usize> Direct<'e, 'a, W> {
    fn new(explorer: &'e mut Explorer<'a>) -> Self {
        Direct { actors: explorer.actors(), explorer, outcomes: Vec::new() }
    }
}

impl<const W: usize> Model<W> for Direct<'_, '_, W> {
    fn initial(&self) -> [u64; W] {
        let mut state = [0; W];
        self.explorer.write_initial(&mut state);
        state
    }

    fn expand(&mut self, state: &[u64; W], mut emit: impl FnMut(&[u64; W], u64)) -> u64 {
        let mut progress = false;
        for actor in 0..self.actors.len() {
            progress |= self.is_progress(actor) && !self.ways(actor, state).outcomes.is_empty();
            self.outcomes.iter().for_each(|outcome| emit(&outcome.of(state), outcome.goals));
        }
        if progress { 0 } else { self.stuck(state) }
    }

    fn actors(&self) -> usize {
        self.actors.len()
    }

    fn is_learned(&self) -> bool {
        false
    }

    fn ways(&mut self, actor: usize, state: &[u64; W]) -> Ways<'_, W> {
        let Explorer { student, positions, .. } = &mut *self.explorer;
        let who = self.actors[actor];
        self.outcomes = ways(state, positions, |store, chooser| student.teach(who, store, chooser)).0;
        Ways { outcomes: &self.outcomes, read: &[u64::MAX; W], order: &[] }
    }

    fn is_progress(&self, actor: usize) -> bool {
        self.actors[actor].0 != Actor::World
    }

    fn stuck(&self, state: &[u64; W]) -> u64 {
        let store = Packed { words: &mut state.clone(), layout: &self.explorer.positions };
        if self.explorer.student.machine.finished(&store) { 0 } else { 1 << goal_of(EventKind::Deadlock) }
    }

    fn is_end(&self, state: &[u64; W]) -> bool {
        let store = Packed { words: &mut state.clone(), layout: &self.explorer.positions };
        self.explorer.student.machine.returned(&store)
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
        for twin in Twin::ALL {
            assert_eq!(seen & 1 << goal_of_twin(twin), 0);
            seen |= 1 << goal_of_twin(twin);
        }
    }
}
