//! Ground transition tables: what a step does, looked up by the slots that it reads.
//!
//! The interpreter of the texts is exact and slow. What a step does depends on nothing but the slots that it
//! reads and the answers that it is given. So each actor gets a table per value of its program counter: the bits
//! of the state that its steps there have read so far are the key, what they write and which goals they reach is
//! the entry. A key that is missing is learned by running the one step function under a recorder, once for each
//! way the step can go; from then on the step costs a lookup. A step that reads a bit which the table's keys do
//! not have yet makes them longer, and the table begins anew. So do all tables when their room is used up, for a model
//! whose steps read everything must not fill the memory.
//!
//! *Promise*: the successors are those of [`Machine::step`](crate::Machine::step), in the same order. Tests
//! compare the two.

use std::cell::{Cell, RefCell};

use sim_core::choice::Odometer;
use sim_core::state::{Packed, Position, SlotId, Store};
use sim_explore::{Outcome, Ways};

/// What runs the step function under a recorder: whether a step was made, and the goals that it reached.
pub(crate) trait Teacher<const W: usize> {
    fn teach(&mut self, store: &mut Recorder<'_>, chooser: &mut Odometer) -> Option<u64>;
    /// Told what was learned at a state; may add bits to those that were read, so that the entry is for fewer states.
    fn learned(&mut self, _state: &[u64; W], _read: &mut [u64; W], _outcomes: &[Outcome<W>]) {}
}

/// The tables of one actor.
#[derive(Debug)]
pub(crate) struct Ground<const W: usize> {
    /// The slot whose value picks the table.
    by: Option<Position>,
    tables: Vec<Table>,
    outcomes: Vec<Outcome<W>>,
    /// The half words, and bits of these, that the lessons read.
    orders: Vec<(u8, u32)>,
    lessons: Vec<Lesson<W>>,
    /// The last one after which the actor could not step: states that follow each other in a search are alike.
    last: Reason,
}

/// What was learned at a state, and holds for all that are alike in what was read.
#[derive(Debug)]
struct Lesson<const W: usize> {
    /// Outcomes: the first, and the one after the last.
    outcomes: (u32, u32),
    /// The bits that were read, and what else it is for.
    read: [u64; W],
    /// Where their order is.
    order: (u32, u32),
    /// Why the actor cannot step, if it cannot, as far as that is short to say.
    reason: Reason,
}

/// Bits of at most two words, and the values of them with which an actor cannot step.
#[derive(Clone, Copy, Debug)]
struct Reason {
    lesson: u32,
    words: [u8; 2],
    mask: [u64; 2],
    value: [u64; 2],
}

impl Reason {
    /// No reason.
    const NONE: Reason = Reason { lesson: 0, words: [0; 2], mask: [0; 2], value: [1; 2] };

    /// The bits that were read, of a state in which an actor cannot step; none if they are of more words.
    fn of(lesson: u32, read: &[u64], state: &[u64]) -> Reason {
        let mut reason = Reason { lesson, value: [0; 2], ..Reason::NONE };
        let words: Vec<usize> = (0..read.len()).filter(|w| read[*w] != 0).collect();
        if words.len() > 2 {
            return Reason::NONE;
        }
        for (at, w) in words.into_iter().enumerate() {
            reason.words[at] = u8::try_from(w).unwrap_or(0);
            (reason.mask[at], reason.value[at]) = (read[w], state[w] & read[w]);
        }
        reason
    }

    #[inline]
    fn holds<const W: usize>(&self, state: &[u64; W]) -> bool {
        let differs = |at: usize| state[usize::from(self.words[at])] & self.mask[at] ^ self.value[at];
        differs(0) | differs(1) == 0
    }
}

/// What a step was found to read.
#[derive(Clone, Debug)]
pub(crate) struct Read<const W: usize> {
    /// The bits.
    pub(crate) bits: [u64; W],
    /// Their half words and the bits of these, in the order in which they were read.
    pub(crate) order: Vec<(u8, u32)>,
}

/// Every way a step can go at a state, in the order of the answers, and what was read.
pub(crate) fn ways<const W: usize>(
    state: &[u64; W],
    layout: &[Position],
    mut teach: impl FnMut(&mut Recorder<'_>, &mut Odometer) -> Option<u64>,
) -> (Vec<Outcome<W>>, Read<W>) {
    let read = [const { Cell::new(0) }; W];
    let order = RefCell::new(Vec::new());
    let mut outcomes = Vec::new();
    let mut odometer = Odometer::default();
    loop {
        let (mut next, mut written) = (*state, [0; W]);
        let words = Packed { words: &mut next, layout };
        let mut store = Recorder { state: words, written: &mut written, read: &read, order: &order };
        if let Some(goals) = teach(&mut store, &mut odometer) {
            let keep = written.map(|w| !w);
            let set = std::array::from_fn(|w| next[w] & written[w]);
            outcomes.push(Outcome { keep, set, goals });
        }
        if !odometer.advance() {
            break;
        }
    }
    (outcomes, Read { bits: read.map(|r| r.get()), order: order.into_inner() })
}

/// Keys and what their steps do, by open addressing.
#[derive(Clone, Debug, Default)]
struct Table {
    /// The bits of a state that are its key.
    mask: Vec<u64>,
    /// How the key is gathered from them.
    pieces: Vec<Piece>,
    /// Words of a key.
    words: usize,
    /// Keys, each followed by the number of its lesson.
    entries: Vec<u64>,
    count: usize,
}

/// Some bits of a word of the state, turned to where they lie in a word of the key.
#[derive(Clone, Copy, Debug)]
struct Piece {
    from: u8,
    to: u8,
    turn: u8,
    mask: u64,
}

/// In the place of a lesson: no entry.
const VACANT: u64 = u64::MAX;

/// Bytes that what was learned may take, and what of them is left.
#[derive(Debug)]
pub(crate) struct Room {
    most: u64,
    left: u64,
}

impl Room {
    pub(crate) fn new(most: u64) -> Self {
        Room { most, left: most }
    }

    /// Whether there is none left; if so, all of it is there again, for tables that begin anew.
    pub(crate) fn is_used_up(&mut self) -> bool {
        let used_up = self.left == 0;
        if used_up {
            self.left = self.most;
        }
        used_up
    }

    fn take(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes as u64);
    }
}

impl<const W: usize> Ground<W> {
    /// Tables for an actor whose steps differ most by the value of one slot, its program counter.
    pub(crate) fn new(by: Option<Position>) -> Self {
        let by = by.filter(|p| p.width > 0 && p.width <= 12);
        let count = by.map_or(1, |p| 1 << p.width);
        Ground {
            by,
            tables: vec![Table::default(); count],
            outcomes: Vec::new(),
            orders: Vec::new(),
            lessons: Vec::new(),
            last: Reason::NONE,
        }
    }

    /// Forgets what was learned.
    pub(crate) fn forget(&mut self) {
        *self = Ground::new(self.by);
    }

    /// Calls `emit` with each successor of a state, in the order of the answers, and the goals reached.
    #[inline]
    pub(crate) fn each(
        &mut self,
        state: &[u64; W],
        layout: &[Position],
        teacher: &mut impl Teacher<W>,
        room: &mut Room,
        mut emit: impl FnMut(&[u64; W], u64),
    ) {
        for outcome in self.ways(state, layout, teacher, room).outcomes {
            emit(&outcome.of(state), outcome.goals);
        }
    }

    /// Every way that the step can go at a state, in the order of the answers.
    #[inline]
    pub(crate) fn ways(
        &mut self,
        state: &[u64; W],
        layout: &[Position],
        teacher: &mut impl Teacher<W>,
        room: &mut Room,
    ) -> Ways<'_, W> {
        if self.last.holds(state) {
            return self.told(self.last.lesson);
        }
        let table = self.by.map_or(0, |p| index(state[p.word as usize] >> p.shift & p.mask()));
        let lesson = match self.tables[table].find(state) {
            Some(found) => found,
            None => self.learn(table, state, layout, teacher, room),
        };
        let told = &self.lessons[lesson as usize];
        if told.outcomes.0 == told.outcomes.1 {
            self.last = told.reason;
        }
        self.told(lesson)
    }

    #[inline]
    fn told(&self, lesson: u32) -> Ways<'_, W> {
        let Lesson { outcomes, read, order, .. } = &self.lessons[lesson as usize];
        Ways {
            outcomes: &self.outcomes[outcomes.0 as usize..outcomes.1 as usize],
            read,
            order: &self.orders[order.0 as usize..order.1 as usize],
        }
    }

    /// Runs the step in every way it can go, and notes what it does.
    #[cold]
    fn learn(
        &mut self,
        table: usize,
        state: &[u64; W],
        layout: &[Position],
        teacher: &mut impl Teacher<W>,
        room: &mut Room,
    ) -> u32 {
        let (found, read) = ways(state, layout, |store, chooser| teacher.teach(store, chooser));
        let Read { bits: mut read, order } = read;
        if let Some(p) = self.by {
            read[p.word as usize] |= p.mask() << p.shift;
        }
        teacher.learned(state, &mut read, &found);
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (from, first) = (number(self.outcomes.len()), number(self.orders.len()));
        let lesson = number(self.lessons.len());
        let reason = if found.is_empty() { Reason::of(lesson, &read, state) } else { Reason::NONE };
        let before = self.bytes(table);
        self.tables[table].learn(&read, state, lesson);
        self.outcomes.extend(found);
        self.orders.extend(order);
        let (outcomes, order) = ((from, number(self.outcomes.len())), (first, number(self.orders.len())));
        self.lessons.push(Lesson { outcomes, read, order, reason });
        room.take(self.bytes(table).saturating_sub(before));
        lesson
    }

    /// Bytes of what was learned, and of one table.
    fn bytes(&self, table: usize) -> usize {
        self.outcomes.capacity() * size_of::<Outcome<W>>()
            + self.orders.capacity() * size_of::<(u8, u32)>()
            + self.lessons.capacity() * size_of::<Lesson<W>>()
            + self.tables[table].entries.capacity() * size_of::<u64>()
    }
}

impl Table {
    /// Gathers the key of a state whose keys have one word.
    #[inline]
    fn narrow<const W: usize>(&self, state: &[u64; W]) -> u64 {
        let bits = |p: &Piece| (state[usize::from(p.from)] & p.mask).rotate_left(u32::from(p.turn));
        self.pieces.iter().fold(0, |key, piece| key | bits(piece))
    }

    fn wide<const W: usize>(&self, state: &[u64; W]) -> [u64; W] {
        let mut key = [0; W];
        for p in &self.pieces {
            key[usize::from(p.to)] |= (state[usize::from(p.from)] & p.mask).rotate_left(u32::from(p.turn));
        }
        key
    }

    /// The lesson of a state's key, if there is one.
    #[inline]
    fn find<const W: usize>(&self, state: &[u64; W]) -> Option<u32> {
        if self.words != 1 {
            return self.find_wide(state);
        }
        let last = (self.entries.len() / 2).checked_sub(1)?;
        let key = self.narrow(state);
        let mut at = hash(key) & last;
        loop {
            let entry = &self.entries[at * 2..at * 2 + 2];
            if entry[1] == VACANT {
                return None;
            }
            if entry[0] == key {
                return lesson_of(entry[1]);
            }
            at = (at + 1) & last;
        }
    }

    fn find_wide<const W: usize>(&self, state: &[u64; W]) -> Option<u32> {
        let key = self.wide(state);
        let entry = self.entries.chunks_exact(self.words + 1).nth(self.place(&key[..self.words])?)?;
        lesson_of(entry[self.words])
    }

    /// Where a key is, or would be.
    fn place(&self, key: &[u64]) -> Option<usize> {
        let stride = self.words + 1;
        let last = (self.entries.len() / stride).checked_sub(1)?;
        let mut at = key.iter().fold(0, |h: usize, word| h.rotate_left(7) ^ hash(*word)) & last;
        loop {
            let entry = &self.entries[at * stride..][..stride];
            if entry[self.words] == VACANT || entry[..self.words] == *key {
                return Some(at);
            }
            at = (at + 1) & last;
        }
    }

    /// Notes the lesson of a state whose steps have read these bits.
    fn learn<const W: usize>(&mut self, read: &[u64; W], state: &[u64; W], lesson: u32) {
        self.mask.resize(W, 0);
        if self.entries.is_empty() || self.mask.iter().zip(read).any(|(mask, read)| read & !mask != 0) {
            self.mask.iter_mut().zip(read).for_each(|(mask, read)| *mask |= read);
            (self.pieces, self.words) = gather(&self.mask);
            self.entries = self.vacant(16);
            self.count = 0;
        }
        let stride = self.words + 1;
        if (self.count + 1) * 2 > self.entries.len() / stride {
            let more = self.vacant(self.entries.len() / stride * 2);
            let old = std::mem::replace(&mut self.entries, more);
            for entry in old.chunks_exact(stride).filter(|e| e.last() != Some(&VACANT)) {
                self.put(entry);
            }
        }
        let mut entry = self.wide(state)[..self.words].to_vec();
        entry.push(u64::from(lesson));
        self.put(&entry);
        self.count += 1;
    }

    fn vacant(&self, entries: usize) -> Vec<u64> {
        vec![VACANT; entries * (self.words + 1)]
    }

    fn put(&mut self, entry: &[u64]) {
        if let Some(at) = self.place(&entry[..self.words]) {
            self.entries[at * entry.len()..][..entry.len()].copy_from_slice(entry);
        }
    }
}

/// How to gather the bits of a mask into as few words as take them, and how many these are, one at least.
fn gather(mask: &[u64]) -> (Vec<Piece>, usize) {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut at = 0u32;
    for (from, word) in (0u8..).zip(mask) {
        let mut left = *word;
        while left != 0 {
            // A run of bits, as far as there is room in the word of the key.
            let low = left.trailing_zeros();
            let length = (!(left >> low)).trailing_zeros().min(64 - low).min(64 - at % 64);
            let bits = (u64::MAX >> (64 - length)) << low;
            let byte = |n: u32| u8::try_from(n).unwrap_or(0);
            let (to, turn) = (byte(at / 64), byte((at % 64 + 64 - low) % 64));
            match pieces.last_mut().filter(|p| (p.from, p.to, p.turn) == (from, to, turn)) {
                Some(same) => same.mask |= bits,
                None => pieces.push(Piece { from, to, turn, mask: bits }),
            }
            at += length;
            left &= !bits;
        }
    }
    // One word takes several words' bits with fewer turns where they do not lie in each other's way.
    if let Some(few) = together(mask) {
        return (few, 1);
    }
    (pieces, at.div_ceil(64).max(1) as usize)
}

/// A single turn for each word of a mask, if one word takes all their bits so.
fn together(mask: &[u64]) -> Option<Vec<Piece>> {
    let (mut pieces, mut taken) = (Vec::new(), 0u64);
    for (from, word) in (0u8..).zip(mask).filter(|(_, word)| **word != 0) {
        let turn = (0u8..64).find(|turn| word.rotate_left(u32::from(*turn)) & taken == 0)?;
        taken |= word.rotate_left(u32::from(turn));
        pieces.push(Piece { from, to: 0, turn, mask: *word });
    }
    Some(pieces)
}

/// The lesson of an entry; none if it is vacant.
#[inline]
fn lesson_of(entry: u64) -> Option<u32> {
    u32::try_from(entry).ok()
}

#[inline]
fn hash(key: u64) -> usize {
    index((key ^ key >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32)
}

#[inline]
fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// The low half of a word.
const LOW: u64 = u32::MAX as u64;

/// A store over a packed state that notes which bits are read before they are written, and which are written.
#[derive(Debug)]
pub(crate) struct Recorder<'a> {
    state: Packed<'a>,
    written: &'a mut [u64],
    read: &'a [Cell<u64>],
    order: &'a RefCell<Vec<(u8, u32)>>,
}

impl Store for Recorder<'_> {
    fn get(&self, slot: SlotId) -> i64 {
        let p = self.state.layout[slot.0 as usize];
        let (word, here) = (p.word as usize, p.mask() << p.shift);
        if self.written[word] & here == 0 {
            let fresh = here & !self.read[word].get();
            self.read[word].set(self.read[word].get() | here);
            let mut order = self.order.borrow_mut();
            for (half, bits) in (2 * word..).zip([fresh & LOW, fresh >> 32]).filter(|(_, bits)| *bits != 0) {
                let (half, bits) = (u8::try_from(half).unwrap_or(u8::MAX), u32::try_from(bits).unwrap_or(0));
                order.push((half, bits));
            }
        }
        self.state.get(slot)
    }

    fn set(&mut self, slot: SlotId, value: i64) {
        let p = self.state.layout[slot.0 as usize];
        self.written[p.word as usize] |= p.mask() << p.shift;
        self.state.set(slot, value);
    }
}
