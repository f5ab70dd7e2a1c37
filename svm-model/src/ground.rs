//! Ground transition tables: what a step does, looked up by the slots that it reads.
//!
//! The interpreter of the texts is exact and slow. What a step does depends on nothing but the slots that it
//! reads and the answers that it is given. So each actor gets a table per value of its program counter: the bits
//! of the state that its steps there have read so far are the key, what they write and which goals they reach is
//! the entry. A key that is missing is learned by running the one step function under a recorder, once for each
//! way the step can go; from then on the step costs a lookup. A step that reads a bit which the table's keys do
//! not have yet makes them longer, and the table begins anew.
//!
//! *Promise*: the successors are those of [`Machine::step`](crate::Machine::step), in the same order. Tests
//! compare the two.

use std::cell::Cell;

use sim_core::choice::Odometer;
use sim_core::state::{Packed, Position, SlotId, Store};

/// What runs the step function under a recorder: whether a step was made, and the goals that it reached.
pub(crate) trait Teacher {
    fn teach(&mut self, store: &mut Recorder<'_>, chooser: &mut Odometer) -> Option<u64>;
}

/// The tables of one actor.
#[derive(Debug)]
pub(crate) struct Ground<const W: usize> {
    /// The slot whose value picks the table.
    by: Option<Position>,
    tables: Vec<Table<W>>,
    outcomes: Vec<Outcome<W>>,
}

/// What one way of a step does.
#[derive(Debug)]
struct Outcome<const W: usize> {
    /// The bits that it does not write.
    keep: [u64; W],
    /// Those that it sets.
    set: [u64; W],
    goals: u64,
}

/// Keys and what their steps do, by open addressing.
#[derive(Clone, Debug)]
struct Table<const W: usize> {
    /// The bits of a state that are its key.
    mask: [u64; W],
    entries: Vec<Entry<W>>,
    count: usize,
}

/// A key and the range of its outcomes, which may be empty: the actor cannot step.
#[derive(Clone, Copy, Debug)]
struct Entry<const W: usize> {
    key: [u64; W],
    outcomes: (u32, u32),
}

impl<const W: usize> Entry<W> {
    /// No entry.
    const VACANT: Self = Entry { key: [0; W], outcomes: (u32::MAX, 0) };

    const fn is_vacant(&self) -> bool {
        self.outcomes.0 == u32::MAX
    }
}

/// Entries at which a table begins anew, so that a model whose steps read everything cannot fill the memory.
const MOST: usize = 1 << 20;

impl<const W: usize> Ground<W> {
    /// Tables for an actor whose steps differ most by the value of one slot, its program counter.
    pub(crate) fn new(by: Option<Position>) -> Self {
        let by = by.filter(|p| p.width > 0 && p.width <= 12);
        let count = by.map_or(1, |p| 1 << p.width);
        let table = Table { mask: [0; W], entries: Vec::new(), count: 0 };
        Ground { by, tables: vec![table; count], outcomes: Vec::new() }
    }

    /// Calls `emit` with each successor of a state, in the order of the answers, and the goals reached.
    #[inline]
    pub(crate) fn each(
        &mut self,
        state: &[u64; W],
        layout: &[Position],
        teacher: &mut impl Teacher,
        mut emit: impl FnMut(&[u64; W], u64),
    ) {
        let table = self.by.map_or(0, |p| index(state[p.word as usize] >> p.shift & p.mask()));
        let (from, to) = match self.tables[table].find(state) {
            Some(found) => found,
            None => self.learn(table, state, layout, teacher),
        };
        for outcome in &self.outcomes[from as usize..to as usize] {
            let next = std::array::from_fn(|w| state[w] & outcome.keep[w] | outcome.set[w]);
            emit(&next, outcome.goals);
        }
    }

    /// Runs the step in every way it can go, and notes what it does.
    #[cold]
    fn learn(
        &mut self,
        table: usize,
        state: &[u64; W],
        layout: &[Position],
        teacher: &mut impl Teacher,
    ) -> (u32, u32) {
        let read = [const { Cell::new(0) }; W];
        if let Some(p) = self.by {
            read[p.word as usize].set(p.mask() << p.shift);
        }
        let from = self.outcomes.len();
        let mut odometer = Odometer::default();
        loop {
            let (mut next, mut written) = (*state, [0; W]);
            let words = Packed { words: &mut next, layout };
            let mut store = Recorder { state: words, written: &mut written, read: &read };
            if let Some(goals) = teacher.teach(&mut store, &mut odometer) {
                let keep = written.map(|w| !w);
                let set = std::array::from_fn(|w| next[w] & written[w]);
                self.outcomes.push(Outcome { keep, set, goals });
            }
            if !odometer.advance() {
                break;
            }
        }
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let outcomes = (number(from), number(self.outcomes.len()));
        self.tables[table].learn(&read, state, outcomes);
        outcomes
    }
}

impl<const W: usize> Table<W> {
    fn key(&self, state: &[u64; W]) -> [u64; W] {
        std::array::from_fn(|w| state[w] & self.mask[w])
    }

    /// The outcomes of a state's key, if they are known.
    #[inline]
    fn find(&self, state: &[u64; W]) -> Option<(u32, u32)> {
        let last = self.entries.len().checked_sub(1)?;
        let key = self.key(state);
        let mut at = hash(&key) & last;
        loop {
            let entry = &self.entries[at];
            if entry.is_vacant() {
                return None;
            }
            if entry.key == key {
                return Some(entry.outcomes);
            }
            at = (at + 1) & last;
        }
    }

    /// Notes the outcomes of a state whose steps have read these bits.
    fn learn(&mut self, read: &[Cell<u64>; W], state: &[u64; W], outcomes: (u32, u32)) {
        let longer = self.mask.iter().zip(read).any(|(mask, read)| read.get() & !mask != 0);
        if longer || self.count >= MOST || self.entries.is_empty() {
            for (mask, read) in self.mask.iter_mut().zip(read) {
                *mask |= read.get();
            }
            self.entries.clear();
            self.entries.resize(16, Entry::VACANT);
            self.count = 0;
        }
        if (self.count + 1) * 2 > self.entries.len() {
            let size = self.entries.len() * 2;
            let old = std::mem::replace(&mut self.entries, vec![Entry::VACANT; size]);
            for entry in old.into_iter().filter(|e| !e.is_vacant()) {
                self.put(entry);
            }
        }
        self.put(Entry { key: self.key(state), outcomes });
        self.count += 1;
    }

    fn put(&mut self, entry: Entry<W>) {
        let last = self.entries.len() - 1;
        let mut at = hash(&entry.key) & last;
        while !self.entries[at].is_vacant() {
            at = (at + 1) & last;
        }
        self.entries[at] = entry;
    }
}

#[inline]
fn hash<const W: usize>(key: &[u64; W]) -> usize {
    let mut h = 0u64;
    for word in key {
        h = (h.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    index(h >> 32)
}

fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A store over a packed state that notes which bits are read before they are written, and which are written.
#[derive(Debug)]
pub(crate) struct Recorder<'a> {
    state: Packed<'a>,
    written: &'a mut [u64],
    read: &'a [Cell<u64>],
}

impl Store for Recorder<'_> {
    fn get(&self, slot: SlotId) -> i64 {
        let p = self.state.layout[slot.0 as usize];
        let (word, here) = (p.word as usize, p.mask() << p.shift);
        if self.written[word] & here == 0 {
            self.read[word].set(self.read[word].get() | here);
        }
        self.state.get(slot)
    }

    fn set(&mut self, slot: SlotId, value: i64) {
        let p = self.state.layout[slot.0 as usize];
        self.written[p.word as usize] |= p.mask() << p.shift;
        self.state.set(slot, value);
    }
}
