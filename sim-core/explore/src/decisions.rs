//! Decision trees: what each actor does, looked up in the key of a state.
//!
//! Most steps depend on little of a state. An actor's tree asks for the bits that the step itself read when it was made
//! for the first time, in the same order, and ends at what the step writes. Both are looked up by the numbers that
//! make a key: what follows a question, by the number of the half word that it is about; what a write makes of a half
//! word, by the number that this had. So from a key its successors follow without the state that it stands for. What
//! is not known is asked of the model once, and its answer becomes a part of the tree.
//!
//! *Why that is exact*: a step depends on nothing but the bits that it reads, and each of these is asked for on the path
//! to its leaf. A half word's bits follow from its number, before the step and after it. Trees are of one [`Plan`]; when
//! there is another, they are told where numbers lie now, or begin anew.

use rustc_hash::FxHashMap;

use crate::Ways;
use crate::dictionary::{Dictionary, Plan, low, zobrist};
use crate::expand::BLOCK;

/// Words of a key up to which trees are kept.
pub(crate) const WIDEST: usize = 4;

/// Trees that lead from keys of some words to what can be done there.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    /// Where each actor's tree begins.
    roots: Vec<Place>,
    nodes: Vec<Node>,
    /// What follows each number at a node, as far as it was looked up.
    kids: Vec<Place>,
    /// What follows each value of a node's bits.
    known: FxHashMap<(u32, u32), Place>,
    /// Where the trees begin to ask: half words, and for each of their numbers the actors that may step.
    gates: Vec<Field>,
    open: Vec<u64>,
    /// Which steps a leaf has. The first has none.
    leaves: Vec<(u32, u32)>,
    steps: Vec<Step>,
    /// The writes of the steps.
    written: Vec<u32>,
    writes: Vec<Write>,
    /// What a write makes of each number, as far as it was looked up.
    made: Vec<Made>,
    /// The writes by half word, the bits that they keep and those that they set.
    known_writes: FxHashMap<(u8, u32, u32), u32>,
    /// The plan that the trees are of, counted.
    of_plan: Option<u32>,
    /// The half words that had more than one value when they were planted.
    varied: Vec<bool>,
    /// Bytes that the trees may take.
    room: u64,
    /// How often the room was used up.
    outgrown: u32,
}

/// A node, doubled, or a leaf, doubled and one; 0 is unknown.
type Place = u32;

/// The place of what is not known.
const NOT_KNOWN: Place = u32::MAX;

/// No leaf: what is done is not known.
pub(crate) const NOWHERE: u32 = NOT_KNOWN >> 1;

/// A leaf without steps.
pub(crate) const NOTHING: u32 = 0;

/// A half word's number in a key, and a list with something for each number from 0 on.
#[derive(Clone, Copy, Debug)]
struct Field {
    /// Which half word, the low one of the first word being 0.
    half: u8,
    word: u8,
    shift: u8,
    mask: u32,
    from: u32,
    count: u32,
}

/// Asks for some bits of a half word.
#[derive(Clone, Copy, Debug)]
struct Node {
    field: Field,
    bits: u32,
}

/// Changes a half word.
#[derive(Clone, Copy, Debug)]
struct Write {
    field: Field,
    keep: u32,
    set: u32,
}

/// What a write makes of a number.
#[derive(Clone, Copy, Debug)]
struct Made {
    /// The new number, where it lies in a key; [`UNKNOWN`] if it was not looked up.
    bits: u64,
    /// By which bits that changes the shard.
    turned: usize,
}

/// One way of an actor's step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// Its writes.
    from: u32,
    to: u32,
    pub(crate) goals: u64,
}

/// No number lies so in a key, for numbers are of 32 bits at most.
const UNKNOWN: u64 = u64::MAX;

/// Times that trees may outgrow their room before no more are made: then too much depends on too much.
const MOST_OUTGROWN: u32 = 4;

fn node(at: usize) -> Place {
    length(at) << 1
}

fn leaf(at: usize) -> Place {
    length(at) << 1 | 1
}

impl Field {
    fn of<const W: usize>(half: u8, plan: &Plan<W>) -> Field {
        let (word, shift, mask) = plan.place(half.into());
        let byte = |n: usize| u8::try_from(n).unwrap_or(0);
        let mask = u32::try_from(mask).unwrap_or(u32::MAX);
        Field { half, word: byte(word), shift: byte(shift), mask, from: 0, count: 0 }
    }

    /// Where another plan has the numbers.
    fn move_to<const W: usize>(&mut self, plan: &Plan<W>) {
        let Field { from, count, .. } = *self;
        *self = Field { from, count, ..Field::of(self.half, plan) };
    }

    #[inline]
    fn number<const K: usize>(&self, key: &[u64; K]) -> u32 {
        low(key[self.word as usize % K] >> (self.shift % 64)) & self.mask
    }

    /// Makes room in a list for a number.
    fn grow<T: Copy>(&mut self, number: u32, vacant: T, list: &mut Vec<T>) {
        if number >= self.count {
            let (from, count) = (self.from as usize, self.count as usize);
            self.count = (number + 1).next_power_of_two();
            self.from = length(list.len());
            list.extend_from_within(from..from + count);
            list.resize((self.from + self.count) as usize, vacant);
        }
    }
}

impl Decisions {
    pub(crate) fn new(room: u64) -> Self {
        Decisions { room, ..Decisions::default() }
    }

    /// Gets ready for keys of a plan. Numbers are the same in each plan, so that trees stay as they are, but for where they
    /// find them, unless a half word has more than one value now that had only one.
    pub(crate) fn begin<const W: usize>(&mut self, actors: usize, of_plan: u32, plan: &Plan<W>) {
        if self.of_plan != Some(of_plan) || self.roots.len() != actors {
            let varied: Vec<bool> = (0..2 * W).map(|half| plan.varies(half)).collect();
            if self.roots.len() == actors && self.varied == varied && plan.is_numbers() {
                self.move_to(plan);
            } else {
                self.forget(actors);
                self.varied = varied;
            }
            self.of_plan = Some(of_plan);
        } else if self.bytes() > self.room {
            self.outgrown += 1;
            self.forget(actors);
        }
    }

    /// Finds numbers where another plan has them.
    fn move_to<const W: usize>(&mut self, plan: &Plan<W>) {
        for write in &mut self.writes {
            let old = write.field;
            write.field.move_to(plan);
            for made in &mut self.made[old.from as usize..(old.from + old.count) as usize] {
                if made.bits != UNKNOWN {
                    made.bits = made.bits >> old.shift << write.field.shift;
                }
            }
        }
        // The first node asks nothing.
        self.nodes.iter_mut().skip(1).for_each(|node| node.field.move_to(plan));
        self.gates.iter_mut().for_each(|gate| gate.move_to(plan));
    }

    fn forget(&mut self, actors: usize) {
        let Decisions { of_plan, room, outgrown, .. } = *self;
        let varied = std::mem::take(&mut self.varied);
        *self = Decisions { of_plan, room, outgrown, varied, ..Decisions::default() };
        self.roots.resize(actors, 0);
        // Place 0 is a node that knows nothing.
        let field = Field { half: 0, word: 0, shift: 0, mask: 0, from: 0, count: 0 };
        self.nodes.push(Node { field, bits: 0 });
        self.leaves.push((0, 0));
    }

    /// Whether there is room for lists with so many numbers.
    fn has_room(&self, number: u32) -> bool {
        self.bytes() + u64::from(number) * 2 * size_of::<Made>() as u64 <= self.room
    }

    /// Bytes in use, about.
    pub(crate) fn bytes(&self) -> u64 {
        let nodes =
            self.nodes.capacity() * size_of::<Node>() + self.known.len() * 24 + self.kids.capacity() * 4;
        let writes =
            self.writes.capacity() * (size_of::<Write>() + 32) + self.made.capacity() * size_of::<Made>();
        let steps = self.steps.capacity() * size_of::<Step>()
            + self.leaves.capacity() * 8
            + self.written.capacity() * 4;
        (nodes + writes + steps) as u64
    }

    /// Which of the first 64 actors may step at a key, by the first half word that their trees ask about, for each
    /// of some keys.
    #[inline]
    pub(crate) fn may_step<const K: usize>(&self, keys: &[[u64; K]], may: &mut [u64]) {
        may.fill(u64::MAX);
        for gate in &self.gates {
            let open = &self.open[gate.from as usize..(gate.from + gate.count) as usize];
            for (key, may) in keys.iter().zip(&mut *may) {
                *may &= open.get(gate.number(key) as usize).copied().unwrap_or(u64::MAX);
            }
        }
    }

    /// Notes that an actor has nothing to do at a number of the half word that its tree begins with.
    fn close(&mut self, actor: usize, first: Field, number: u32) {
        if actor >= 64 || !self.has_room(number) {
            return;
        }
        let known = self.gates.iter().position(|gate| gate.half == first.half);
        let at = known.unwrap_or_else(|| {
            self.gates.push(Field { from: 0, count: 0, ..first });
            self.gates.len() - 1
        });
        let gate = &mut self.gates[at];
        gate.grow(number, u64::MAX, &mut self.open);
        self.open[(gate.from + number) as usize] &= !(1 << actor);
    }

    /// The leaves of what an actor does at those of some keys that are named; [`NOWHERE`] where that is not known. All
    /// are looked up together, question by question, so that one need not wait for what another one waits for.
    #[inline]
    pub(crate) fn find_all<const K: usize>(
        &self,
        actor: usize,
        keys: &[[u64; K]; BLOCK],
        these: &[u8],
        leaves: &mut [u32; BLOCK],
    ) {
        let mut asking = [0u8; BLOCK];
        asking[..these.len()].copy_from_slice(these);
        let mut left = if self.roots[actor] & 1 == 0 { these.len() } else { 0 };
        leaves.fill(self.roots[actor]);
        while left > 0 {
            let mut still = 0;
            for number in 0..left {
                let at = usize::from(asking[number]) % BLOCK;
                let place = &mut leaves[at];
                let field = &self.nodes[(*place >> 1) as usize].field;
                let number = field.number(&keys[at]);
                *place =
                    if number < field.count { self.kids[(field.from + number) as usize] } else { NOT_KNOWN };
                asking[still] = byte(at);
                still += usize::from(*place & 1 == 0);
            }
            left = still;
        }
        leaves.iter_mut().for_each(|place| *place >>= 1);
    }

    /// The leaf of what an actor does at a key of which some number is met at a question for the first time; none if
    /// nothing is known of its bits.
    #[cold]
    pub(crate) fn find_anew<const K: usize, const W: usize>(
        &mut self,
        actor: usize,
        (state, key): (&[u64; W], &[u64; K]),
    ) -> Option<u32> {
        let mut place = self.roots[actor];
        while place & 1 == 0 && place != 0 {
            let next = self.follow(place, state, key)?;
            if next == leaf(NOTHING as usize) && place == self.roots[actor] {
                let first = self.nodes[(place >> 1) as usize].field;
                self.close(actor, first, first.number(key));
            }
            place = next;
        }
        (place != 0).then_some(place >> 1)
    }

    /// What follows a state at a node, if that is known; further questions about the same half word are answered at once.
    fn follow<const K: usize, const W: usize>(
        &mut self,
        place: Place,
        state: &[u64; W],
        key: &[u64; K],
    ) -> Option<Place> {
        let asks = |place: Place| (place & 1 == 0).then(|| self.nodes[(place >> 1) as usize]);
        let Node { mut field, .. } = asks(place)?;
        let mut next = place;
        while let Some(node) = asks(next).filter(|node| node.field.half == field.half) {
            next = *self.known.get(&(next >> 1, half(state, field.half.into()) & node.bits))?;
        }
        let number = field.number(key);
        if number < field.count || self.has_room(number) {
            field.grow(number, 0, &mut self.kids);
            self.kids[(field.from + number) as usize] = next;
            self.nodes[(place >> 1) as usize].field = field;
        }
        Some(next)
    }

    /// The steps of a leaf, by their numbers.
    #[inline]
    pub(crate) fn steps(&self, leaf: u32) -> std::ops::Range<u32> {
        let (from, to) = self.leaves[leaf as usize];
        from..to
    }

    #[inline]
    pub(crate) fn step(&self, step: u32) -> Step {
        self.steps[step as usize]
    }

    /// The key that a step leads to and the bits by which it changes the shard; none if that is not known.
    #[inline]
    pub(crate) fn make<const K: usize>(&self, step: Step, key: &[u64; K]) -> Option<([u64; K], usize)> {
        let (mut next, mut turned) = (*key, 0);
        for write in &self.written[step.from as usize..step.to as usize] {
            let Field { word, shift, mask, from, count, .. } = self.writes[*write as usize].field;
            let word = word as usize % K;
            let number = low(key[word] >> (shift % 64)) & mask;
            if number >= count {
                return None;
            }
            let made = &self.made[(from + number) as usize];
            if made.bits == UNKNOWN {
                return None;
            }
            next[word] = next[word] & !(u64::from(mask) << (shift % 64)) | made.bits;
            turned ^= made.turned;
        }
        Some((next, turned))
    }

    /// The state that a step leads to. What its writes make of the numbers of the key is known from then on, unless it
    /// has no number yet.
    #[cold]
    pub(crate) fn make_anew<const K: usize, const W: usize>(
        &mut self,
        step: Step,
        (state, key): (&[u64; W], &[u64; K]),
        plan: &Plan<W>,
        dictionary: &Dictionary<W>,
    ) -> [u64; W] {
        let mut next = *state;
        let bytes = self.bytes();
        for write in &self.written[step.from as usize..step.to as usize] {
            let Write { field, keep, set } = &mut self.writes[*write as usize];
            let at = usize::from(field.half);
            let value = half(state, at) & *keep | *set;
            let shift = 32 * (at % 2);
            next[at / 2] = next[at / 2] & !(u64::from(u32::MAX) << shift) | u64::from(value) << shift;
            if let Some(made) = plan.number(dictionary, at, value) {
                let number = field.number(key);
                let more = u64::from(number) * 2 * size_of::<Made>() as u64;
                if number >= field.count && bytes + more > self.room {
                    continue;
                }
                field.grow(number, Made { bits: UNKNOWN, turned: 0 }, &mut self.made);
                self.made[(field.from + number) as usize] = Made {
                    bits: u64::from(made) << field.shift,
                    turned: zobrist(at, value) ^ zobrist(at, half(state, at)),
                };
            }
        }
        next
    }

    /// Notes what an actor does at a state.
    #[cold]
    pub(crate) fn learn<const W: usize>(
        &mut self,
        actor: usize,
        state: &[u64; W],
        ways: &Ways<'_, W>,
        plan: &Plan<W>,
    ) {
        if self.outgrown >= MOST_OUTGROWN || !self.has_room(0) {
            return;
        }
        let mut end = leaf(NOTHING as usize);
        if !ways.outcomes.is_empty() {
            let first = length(self.steps.len());
            for outcome in ways.outcomes {
                let from = length(self.written.len());
                let next = outcome.of(state);
                // What has had one value so far may be given another one here, for the first time.
                let changes = |at: &usize| plan.varies(*at) || half(&next, *at) != half(state, *at);
                let written = |at: &usize| half(&outcome.keep, *at) != u32::MAX;
                for at in (0..2 * W).filter(written).filter(changes) {
                    let write = (byte(at), half(&outcome.keep, at), half(&outcome.set, at));
                    let number = *self.known_writes.entry(write).or_insert_with(|| {
                        let field = Field::of(write.0, plan);
                        self.writes.push(Write { field, keep: write.1, set: write.2 });
                        length(self.writes.len() - 1)
                    });
                    self.written.push(number);
                }
                self.steps.push(Step { from, to: length(self.written.len()), goals: outcome.goals });
            }
            self.leaves.push((first, length(self.steps.len())));
            end = leaf(self.leaves.len() - 1);
        }
        self.plant(actor, state, ways, plan, end);
    }

    /// Puts a leaf at the end of a state's path.
    fn plant<const W: usize>(
        &mut self,
        actor: usize,
        state: &[u64; W],
        ways: &Ways<'_, W>,
        plan: &Plan<W>,
        end: Place,
    ) {
        // What is still to be asked for: the bits of each half word.
        let mut left: [[u32; 2]; W] = std::array::from_fn(|w| [low(ways.read[w]), low(ways.read[w] >> 32)]);
        let mut questions =
            ways.order.iter().map(|(at, bits)| (*at, *bits)).chain((0..2 * W).map(|at| (byte(at), u32::MAX)));
        let mut before: Option<(u32, u32)> = None;
        let mut place = self.roots[actor];
        loop {
            if place == 0 {
                let next = questions.find_map(|(at, bits)| {
                    let bits = bits & left[usize::from(at) / 2][usize::from(at) % 2];
                    (bits != 0 && plan.varies(at.into())).then_some((at, bits))
                });
                place = match next {
                    Some((at, bits)) => {
                        self.nodes.push(Node { field: Field::of(at, plan), bits });
                        node(self.nodes.len() - 1)
                    }
                    None => end,
                };
                match before {
                    Some(before) => {
                        self.known.insert(before, place);
                    }
                    None => self.roots[actor] = place,
                }
            }
            if place & 1 == 1 {
                return;
            }
            let Node { field, bits } = self.nodes[(place >> 1) as usize];
            let at = usize::from(field.half);
            left[at / 2][at % 2] &= !bits;
            let answer = (place >> 1, half(state, at) & bits);
            before = Some(answer);
            place = self.known.get(&answer).copied().unwrap_or(0);
        }
    }
}

/// A half word of a state, the low one of the first word being 0.
#[inline]
fn half<const W: usize>(state: &[u64; W], half: usize) -> u32 {
    low(state[half / 2] >> (32 * (half % 2)))
}

fn byte(n: usize) -> u8 {
    u8::try_from(n).unwrap_or(u8::MAX)
}

fn length(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use crate::{Model, Outcome, Search, Ways};

    /// One actor counts up in the first half word, another sets all 15 others or clears them: what these take in a key
    /// leaves few bits for the count, so that numbers are moved again and again.
    struct Crowded {
        told: bool,
        outcomes: Vec<Outcome<8>>,
        read: [u64; 8],
        order: Vec<(u8, u32)>,
    }

    const MOST: u64 = 300;

    impl Model<8> for Crowded {
        fn initial(&self) -> [u64; 8] {
            [0; 8]
        }
        fn expand(&mut self, state: &[u64; 8], mut emit: impl FnMut(&[u64; 8], u64)) -> u64 {
            for actor in 0..2 {
                self.ways(actor, state).outcomes.iter().for_each(|o| emit(&o.of(state), o.goals));
            }
            0
        }
        fn actors(&self) -> usize {
            if self.told { 2 } else { 0 }
        }
        fn ways(&mut self, actor: usize, state: &[u64; 8]) -> Ways<'_, 8> {
            let (low, high) = (u64::from(u32::MAX), u64::from(u32::MAX) << 32);
            let mut outcome = Outcome { keep: [u64::MAX; 8], set: [0; 8], goals: 0 };
            (self.outcomes, self.read) = (Vec::new(), [0; 8]);
            if actor == 0 {
                (self.read[0], self.order) = (low, vec![(0, u32::MAX)]);
                (outcome.keep[0], outcome.set[0]) = (high, (state[0] & low) + 1);
                self.outcomes.extend((state[0] & low < MOST).then_some(outcome));
            } else {
                (self.read[0], self.order) = (1 << 32, vec![(1, 1)]);
                let bit = !(state[0] >> 32) & 1;
                (outcome.keep, outcome.set) = ([0; 8], [bit << 32 | bit; 8]);
                (outcome.keep[0], outcome.set[0]) = (low, bit << 32);
                self.outcomes.push(outcome);
            }
            Ways { outcomes: &self.outcomes, read: &self.read, order: &self.order }
        }
    }

    #[test]
    fn trees_find_numbers_where_a_new_plan_has_them() {
        let run = |told| {
            let model = Crowded { told, outcomes: Vec::new(), read: [0; 8], order: Vec::new() };
            Search::default().run(&mut [model])
        };
        let (told, asked) = (run(true), run(false));
        assert_eq!((asked.states(), asked.transitions), (2 * (MOST as u32 + 1), 4 * MOST + 2));
        assert_eq!(
            (told.states(), told.transitions, told.depth),
            (asked.states(), asked.transitions, asked.depth)
        );
        assert!(told.ids().all(|id| told.state(id) == asked.state(id)));
    }
}
