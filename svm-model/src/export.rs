//! A model's whole step relation as decision trees over its slots, for other checkers.
//!
//! Every reachable state is visited breadth-first, and for each actor the one step function is run under a recorder
//! unless the slots that it would read have been seen with these values: the order in which a step reads its slots
//! gives the tree. So the relation is exact on every state that is reached, by construction, and it says where it ends: a
//! state in which a slot has a value that its tree does not know is one that this search has never met. Nothing here
//! uses the explorer, its tables or its packing of visited states; the step function is shared.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use cache_model::event::EventKind;
use sim_core::choice::Odometer;
use sim_core::state::{Domain, Packed, Position, SlotId, Store};

use crate::label::{Actor, Notes};
use crate::machine::Machine;
use crate::memory::ShadowMemory;
use crate::run::Stepped;

pub mod murphi;
pub mod promela;

/// How large an exported model may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// States.
    pub states: usize,
    /// Rules: ways to step, each with its guard.
    pub rules: usize,
}

impl Default for Size {
    /// What the other checkers can read and compile within a minute or two.
    fn default() -> Self {
        Size { states: 1_000_000, rules: 20_000 }
    }
}

/// Why a model is not exported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ExportError {
    /// It has more states than [`Size::states`].
    States(usize),
    /// It has more rules than [`Size::rules`].
    Rules(usize),
    /// A slot has values that the other checkers' numbers do not hold.
    Wide(String),
    /// A text loops without an access.
    Runaway,
    /// The machine was built for the timed caches.
    Timed,
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExportError::States(most) => write!(f, "too large to be exported: more than {most} states"),
            ExportError::Rules(most) => write!(f, "too large to be exported: more than {most} rules"),
            ExportError::Wide(slot) => write!(f, "cannot be exported: `{slot}` has more than 31 bits"),
            ExportError::Runaway => {
                write!(f, "cannot be exported: a text loops without an access to shared state")
            }
            ExportError::Timed => write!(f, "cannot be exported: the model has timed caches"),
        }
    }
}

impl std::error::Error for ExportError {}

/// A slot that changes. Values are told from its domain's smallest on, as 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Variable {
    /// Its name in the model.
    pub name: String,
    /// Its largest value.
    pub most: u64,
    /// Its first value.
    pub first: u64,
    /// What 0 stands for.
    pub low: i64,
}

/// One way to step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Way {
    /// Variables and their new values.
    pub writes: Vec<(usize, u64)>,
    /// Events that the step is.
    pub events: Vec<EventKind>,
}

/// A decision tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tree {
    /// What follows depends on a variable; values that are not listed were never met here.
    Ask {
        /// The variable.
        variable: usize,
        /// By its value, in order.
        cases: Vec<(u64, Tree)>,
    },
    /// The ways to step, none if the actor cannot.
    Do(Vec<Way>),
}

/// What one actor does; the caches line by line, the world page by page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ActorTree {
    /// Its name.
    pub name: String,
    /// Whether a state in which only such actors can step is a deadlock all the same.
    pub world: bool,
    /// What it does.
    pub tree: Tree,
}

/// A model's step relation, and what a plain search over it found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relation {
    /// The slots that change.
    pub variables: Vec<Variable>,
    /// Who can step.
    pub actors: Vec<ActorTree>,
    /// Variables that are all 0 where every task has ended; `None` if some task never ends.
    pub ended: Option<Vec<usize>>,
    /// Reachable states, events or not.
    pub states: usize,
    /// Transitions between them.
    pub transitions: u64,
    /// Events that can be reached, a deadlock included.
    pub events: Vec<EventKind>,
}

impl Relation {
    /// Learns the relation of a machine over shadow caches.
    ///
    /// # Errors
    ///
    /// The model is too large, or not one of an explorer.
    pub fn of(machine: &Machine, size: Size) -> Result<Relation, ExportError> {
        let mut learner = Learner::new(machine)?;
        learner.search(size)?;
        learner.relation(size)
    }

    /// Rules: the ways to step, of all actors.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.actors.iter().map(|a| a.tree.ways()).sum()
    }
}

/// A name for each variable that both languages take.
fn names(relation: &Relation) -> Vec<String> {
    let tame = |name: &str| name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let all: Vec<String> = relation.variables.iter().map(|v| tame(&v.name)).collect();
    // The number makes them differ from each other and from every keyword.
    all.iter().enumerate().map(|(number, name)| format!("v{number}_{name}")).collect()
}

impl Tree {
    fn ways(&self) -> usize {
        match self {
            Tree::Ask { cases, .. } => cases.iter().map(|c| c.1.ways()).sum(),
            Tree::Do(ways) => ways.len(),
        }
    }

    /// Calls `f` with the path to each end and its ways, and `unknown` with each path and the values that are known
    /// where others are not.
    fn walk(&self, most: &dyn Fn(usize) -> u64, path: &mut Vec<(usize, u64)>, f: &mut Visit<'_>) {
        match self {
            Tree::Do(ways) => f(path, Part::Ways(ways)),
            Tree::Ask { variable, cases } => {
                for (value, tree) in cases {
                    path.push((*variable, *value));
                    tree.walk(most, path, f);
                    path.pop();
                }
                if (cases.len() as u64) <= most(*variable) {
                    f(path, Part::Unknown { variable: *variable, cases });
                }
            }
        }
    }
}

/// Gets a path, and the end that it leads to.
type Visit<'v> = dyn FnMut(&[(usize, u64)], Part<'_>) + 'v;

/// An end of a tree.
#[derive(Clone, Copy, Debug)]
enum Part<'t> {
    /// Ways to step.
    Ways(&'t [Way]),
    /// A variable that has none of these values.
    Unknown { variable: usize, cases: &'t [(u64, Tree)] },
}

/// A node of a tree that grows. Values are those of slots.
#[derive(Debug)]
enum Node {
    Ask { slot: SlotId, cases: BTreeMap<i64, usize> },
    Do(Vec<Learned>),
}

/// A way to step: slots and their new values, and the events' bits.
#[derive(Debug)]
struct Learned {
    writes: Vec<(SlotId, i64)>,
    events: Vec<EventKind>,
}

/// An actor, and its tree: node 0 is the root once there is one.
#[derive(Debug)]
struct Pupil {
    actor: Actor,
    within: Option<u32>,
    nodes: Vec<Node>,
}

struct Learner<'m> {
    machine: &'m Machine,
    memory: ShadowMemory,
    notes: Notes,
    positions: Vec<Position>,
    words: usize,
    pupils: Vec<Pupil>,
    rules: usize,
    states: usize,
    transitions: u64,
    events: u64,
}

impl<'m> Learner<'m> {
    fn new(machine: &'m Machine) -> Result<Self, ExportError> {
        let memory = machine.shadow().ok_or(ExportError::Timed)?;
        let (positions, words) = machine.layout().pack();
        let pages = u32::try_from(machine.spec().pages.len()).unwrap_or(0);
        let mut pupils = Vec::new();
        for actor in machine.actors() {
            let parts: Vec<Option<u32>> = match actor {
                Actor::Cache => (0..memory.slots.lines()).map(Some).collect(),
                Actor::World => (0..pages).map(Some).collect(),
                Actor::Task(_) | Actor::Preempt(_) | Actor::Irq(_) | Actor::Buffer(_) => vec![None],
            };
            pupils.extend(parts.into_iter().map(|within| Pupil { actor, within, nodes: Vec::new() }));
        }
        let notes = Notes::default();
        Ok(Learner {
            machine,
            memory,
            notes,
            positions,
            words,
            pupils,
            rules: 0,
            states: 0,
            transitions: 0,
            events: 0,
        })
    }

    /// Visits every reachable state.
    fn search(&mut self, size: Size) -> Result<(), ExportError> {
        let mut first = vec![0; self.words];
        let mut store = Packed { words: &mut first, layout: &self.positions };
        for (id, value) in (0u32..).zip(self.machine.layout().initial()) {
            store.set(SlotId(id), value);
        }
        let mut known = BTreeSet::from([first.clone()]);
        let mut level = vec![first];
        while !level.is_empty() {
            let mut next = Vec::new();
            for state in &level {
                let mut progress = false;
                for at in 0..self.pupils.len() {
                    let end = match self.end_of(at, state) {
                        Some(end) => end,
                        None => self.learn(at, state)?,
                    };
                    let Node::Do(ways) = &self.pupils[at].nodes[end] else { continue };
                    progress |= !ways.is_empty() && self.pupils[at].actor != Actor::World;
                    for way in ways {
                        self.transitions += 1;
                        let mut after = state.clone();
                        let mut store = Packed { words: &mut after, layout: &self.positions };
                        for (slot, value) in &way.writes {
                            store.set(*slot, *value);
                        }
                        for kind in &way.events {
                            self.events |= 1 << *kind as u32;
                        }
                        if !known.contains(&after) {
                            known.insert(after.clone());
                            next.push(after);
                        }
                    }
                }
                let mut state = state.clone();
                let store = Packed { words: &mut state, layout: &self.positions };
                if !progress && !self.machine.finished(&store) {
                    self.events |= 1 << EventKind::Deadlock as u32;
                }
                if self.rules > size.rules {
                    return Err(ExportError::Rules(size.rules));
                }
            }
            if known.len() > size.states {
                return Err(ExportError::States(size.states));
            }
            level = next;
        }
        self.states = known.len();
        Ok(())
    }

    /// The end of a pupil's tree that a state leads to, if it is known.
    fn end_of(&self, at: usize, state: &[u64]) -> Option<usize> {
        let nodes = &self.pupils[at].nodes;
        let mut node = 0;
        loop {
            match nodes.get(node)? {
                Node::Do(_) => return Some(node),
                Node::Ask { slot, cases } => node = *cases.get(&value(state, &self.positions, *slot))?,
            }
        }
    }

    /// Runs a pupil's step in every way it can go, and puts what it does into the tree; gives the end.
    fn learn(&mut self, at: usize, state: &[u64]) -> Result<usize, ExportError> {
        let reads = RefCell::new(Vec::new());
        let mut ways = Vec::new();
        let mut odometer = Odometer::default();
        let Pupil { actor, within, .. } = self.pupils[at];
        loop {
            let mut next = state.to_vec();
            let packed = Packed { words: &mut next, layout: &self.positions };
            let mut store = Ordered { packed, reads: &reads, written: Vec::new() };
            let Learner { machine, memory, notes, .. } = self;
            let done = machine.step_within(&mut store, memory, actor, within, &mut odometer, notes);
            let mut written = store.written;
            if notes.runaway.is_some() {
                return Err(ExportError::Runaway);
            }
            if done == Stepped::Done {
                written.sort_unstable();
                written.dedup();
                let writes = written.into_iter().map(|s| (s, value(&next, &self.positions, s))).collect();
                let mut events: Vec<EventKind> = self.notes.events.iter().map(|e| e.kind).collect();
                events.sort_unstable();
                events.dedup();
                ways.push(Learned { writes, events });
            }
            if !odometer.advance() {
                break;
            }
        }
        self.rules += ways.len();
        Ok(self.put(at, state, &reads.into_inner(), ways))
    }

    /// Puts ways under the path of a state through these slots.
    fn put(&mut self, at: usize, state: &[u64], path: &[SlotId], ways: Vec<Learned>) -> usize {
        let nodes = &mut self.pupils[at].nodes;
        let new = |nodes: &mut Vec<Node>, rest: &[SlotId]| {
            let at = nodes.len();
            nodes.push(match rest.first() {
                Some(slot) => Node::Ask { slot: *slot, cases: BTreeMap::new() },
                None => Node::Do(Vec::new()),
            });
            at
        };
        let mut node = 0;
        if nodes.is_empty() {
            new(nodes, path);
        }
        for (depth, slot) in path.iter().enumerate() {
            let value = value(state, &self.positions, *slot);
            let known = match &nodes[node] {
                Node::Ask { slot: asked, cases } => {
                    debug_assert_eq!(asked, slot, "steps that read the same differ in what they read next");
                    cases.get(&value).copied()
                }
                Node::Do(_) => None,
            };
            let next = known.unwrap_or_else(|| new(nodes, &path[depth + 1..]));
            if let Node::Ask { cases, .. } = &mut nodes[node] {
                cases.insert(value, next);
            }
            node = next;
        }
        nodes[node] = Node::Do(ways);
        node
    }
}

impl Learner<'_> {
    /// What was learned, over the slots that change.
    fn relation(self, size: Size) -> Result<Relation, ExportError> {
        if self.rules > size.rules {
            return Err(ExportError::Rules(size.rules));
        }
        let slots = self.machine.layout().slots();
        let mut changes = vec![false; slots.len()];
        for node in self.pupils.iter().flat_map(|p| &p.nodes) {
            let Node::Do(ways) = node else { continue };
            for (slot, value) in ways.iter().flat_map(|w| &w.writes) {
                changes[slot.0 as usize] |= slots[slot.0 as usize].init != *value;
            }
        }
        let (mut variables, mut numbers) = (Vec::new(), vec![None; slots.len()]);
        for (at, slot) in slots.iter().enumerate().filter(|(at, _)| changes[*at]) {
            let low = slot.domain.low();
            let most = match slot.domain {
                Domain::Range { hi, .. } => hi.wrapping_sub(low).cast_unsigned(),
                Domain::Mask { bits } => u64::MAX >> (64 - u32::from(bits.clamp(1, 64))),
            };
            if most >> 31 != 0 {
                return Err(ExportError::Wide(slot.name.clone()));
            }
            numbers[at] = Some(variables.len());
            let first = slot.init.wrapping_sub(low).cast_unsigned();
            variables.push(Variable { name: slot.name.clone(), most, first, low });
        }
        let over = Over { numbers: &numbers, variables: &variables };
        let mut actors = Vec::new();
        for pupil in &self.pupils {
            let Some(tree) = over.tree(&pupil.nodes, 0) else { continue };
            let name = self.machine.actor_name(pupil.actor);
            let name = match (pupil.actor, pupil.within) {
                (Actor::Cache, Some(line)) => format!("{name} {}", self.machine.line_name(line)),
                (_, Some(page)) => format!("{name} {}", self.machine.spec().pages[page as usize].0),
                (_, None) => name,
            };
            if tree.ways() > 0 {
                actors.push(ActorTree { name, world: pupil.actor == Actor::World, tree });
            }
        }
        let counters = self.machine.tasks.iter().filter(|t| t.repeats.is_none()).map(|t| t.main.pc);
        let mut ended = Some(Vec::new());
        for pc in counters {
            match (numbers[pc.0 as usize], &mut ended) {
                (Some(variable), Some(list)) => list.push(variable),
                (None, _) if slots[pc.0 as usize].init != 0 => ended = None,
                _ => {}
            }
        }
        let events = EventKind::ALL.into_iter().filter(|k| self.events >> *k as u32 & 1 == 1).collect();
        let (states, transitions) = (self.states, self.transitions);
        Ok(Relation { variables, actors, ended, states, transitions, events })
    }
}

/// Slots as variables.
struct Over<'l> {
    numbers: &'l [Option<usize>],
    variables: &'l [Variable],
}

impl Over<'_> {
    fn write(&self, slot: SlotId, value: i64) -> Option<(usize, u64)> {
        let variable = self.numbers[slot.0 as usize]?;
        Some((variable, value.wrapping_sub(self.variables[variable].low).cast_unsigned()))
    }

    /// A tree that asks nothing about what never changes.
    fn tree(&self, nodes: &[Node], at: usize) -> Option<Tree> {
        Some(match nodes.get(at)? {
            Node::Do(ways) => Tree::Do(
                ways.iter()
                    .map(|way| Way {
                        writes: way.writes.iter().filter_map(|(s, v)| self.write(*s, *v)).collect(),
                        events: way.events.clone(),
                    })
                    .collect(),
            ),
            Node::Ask { slot, cases } => match self.numbers[slot.0 as usize] {
                None => self.tree(nodes, *cases.values().next()?)?,
                Some(variable) => {
                    let case = |(value, next): (&i64, &usize)| {
                        Some((self.write(*slot, *value)?.1, self.tree(nodes, *next)?))
                    };
                    Tree::Ask { variable, cases: cases.iter().filter_map(case).collect() }
                }
            },
        })
    }
}

/// The value of a slot in a packed state.
fn value(state: &[u64], positions: &[Position], slot: SlotId) -> i64 {
    let p = positions[slot.0 as usize];
    if p.width == 0 {
        return p.low;
    }
    (state[p.word as usize] >> p.shift & p.mask()).cast_signed().wrapping_add(p.low)
}

/// A store that notes the slots that are read before they are written, in order, and those that are written.
struct Ordered<'a> {
    packed: Packed<'a>,
    reads: &'a RefCell<Vec<SlotId>>,
    written: Vec<SlotId>,
}

impl Store for Ordered<'_> {
    fn get(&self, slot: SlotId) -> i64 {
        let mut reads = self.reads.borrow_mut();
        if self.packed.layout[slot.0 as usize].width > 0
            && !self.written.contains(&slot)
            && !reads.contains(&slot)
        {
            reads.push(slot);
        }
        self.packed.get(slot)
    }

    fn set(&mut self, slot: SlotId, value: i64) {
        if self.packed.layout[slot.0 as usize].width > 0 {
            self.written.push(slot);
        }
        self.packed.set(slot, value);
    }
}
