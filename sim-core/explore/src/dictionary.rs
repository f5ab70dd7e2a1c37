//! States as numbers: which values each half word of the states has had.
//!
//! The words of a model's states take few values: a program counter with its registers some thousands, a lock two. A
//! state is kept as the numbers of its half words' values, each as wide as the values so far need, in one or two
//! words instead of ten. That is exact: from the numbers the state comes back bit by bit.
//!
//! Values get their numbers in the order in which the search meets them, which does not depend on the threads. How
//! wide the numbers are ([`Plan`]) changes as values are added; the numbers do not.

use crate::table::SHARD_BITS;

/// Values of each half word.
#[derive(Debug)]
pub(crate) struct Dictionary<const W: usize> {
    units: [[Unit; 2]; W],
}

/// The values of one half word, found by open addressing.
#[derive(Debug, Default)]
struct Unit {
    values: Vec<u32>,
    slots: Vec<u32>,
}

const EMPTY: u32 = u32::MAX;

/// The low half of a word.
#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
#[inline]
pub(crate) const fn low(word: u64) -> u32 {
    word as u32
}

/// The high half of a word.
#[inline]
pub(crate) const fn high(word: u64) -> u32 {
    low(word >> 32)
}

/// What a half word's value adds to a state's shard: the shard of a state is all of these, combined by exclusive or.
#[inline]
pub(crate) fn zobrist(half: usize, value: u32) -> usize {
    let mixed =
        (u64::from(value) + 1).wrapping_mul((2 * half as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    ((mixed ^ mixed >> 29).wrapping_mul(0xd6e8_feb8_6659_fd93) >> (64 - SHARD_BITS)) as usize
}

/// A half of a word: 0 the low one, 1 the high one.
#[inline]
const fn half(word: u64, which: usize) -> u32 {
    if which == 0 { low(word) } else { high(word) }
}

impl Unit {
    #[inline]
    fn place(&self, value: u32) -> usize {
        // At least two slots, at most 2^31: the shift is in range.
        let shift = self.slots.len().leading_zeros().saturating_sub(31) & 31;
        (value.wrapping_mul(0x9e37_79b1) >> shift) as usize
    }

    #[inline]
    fn find(&self, value: u32) -> Option<u32> {
        let last = self.slots.len().checked_sub(1)?;
        let mut at = self.place(value);
        loop {
            let number = self.slots[at];
            if number == EMPTY {
                return None;
            }
            if self.values[number as usize] == value {
                return Some(number);
            }
            at = (at + 1) & last;
        }
    }

    fn add(&mut self, value: u32) {
        if self.find(value).is_some() {
            return;
        }
        let size = self.slots_for(1);
        if size > self.slots.len() {
            // The old ones are given back first.
            self.slots = Vec::new();
            self.slots = vec![EMPTY; size];
            for number in 0..self.values.len() {
                self.put(number);
            }
        }
        self.values.push(value);
        self.put(self.values.len() - 1);
    }

    /// Slots once there are so many more values.
    fn slots_for(&self, more: usize) -> usize {
        let least = ((self.values.len() + more) * 2).next_power_of_two().max(8);
        if more == 0 { self.slots.len() } else { least.max(self.slots.len()) }
    }

    /// Bytes that it takes once it has room for so many more values.
    fn bytes_with(&self, more: usize) -> u64 {
        let values = self.values.len() + more;
        let room =
            if values > self.values.capacity() { values.next_power_of_two() } else { self.values.capacity() };
        4 * (room + self.slots_for(more)) as u64
    }

    fn put(&mut self, number: usize) {
        let last = self.slots.len() - 1;
        let mut at = self.place(self.values[number]);
        while self.slots[at] != EMPTY {
            at = (at + 1) & last;
        }
        self.slots[at] = u32::try_from(number).unwrap_or(EMPTY);
    }
}

impl<const W: usize> Dictionary<W> {
    pub(crate) fn new() -> Self {
        Dictionary { units: std::array::from_fn(|_| [Unit::default(), Unit::default()]) }
    }

    /// Gives a number to each value of a state that has none.
    pub(crate) fn add(&mut self, state: &[u64; W]) {
        (0..2 * W).for_each(|at| self.add_half(at, state));
    }

    /// Gives a number to the value of a half word of a state if it has none.
    pub(crate) fn add_half(&mut self, at: usize, state: &[u64; W]) {
        self.units[at / 2][at % 2].add(half(state[at / 2], at % 2));
    }

    /// How many values each half word has had.
    fn counts(&self) -> impl Iterator<Item = [usize; 2]> + '_ {
        self.units.iter().map(|u| [u[0].values.len(), u[1].values.len()])
    }

    /// The values of each half word, in the order of their numbers.
    pub(crate) fn values(&self) -> impl Iterator<Item = &[u32]> {
        self.units.iter().flatten().map(|u| &u.values[..])
    }

    /// A dictionary of values that were given.
    pub(crate) fn of(values: &[Vec<u32>]) -> Self {
        let mut dictionary = Dictionary::new();
        for (unit, values) in dictionary.units.iter_mut().flatten().zip(values) {
            values.iter().for_each(|v| unit.add(*v));
        }
        dictionary
    }

    /// Bytes that it takes once each half word that has many values has so many more of them.
    pub(crate) fn bytes_with(&self, more: usize) -> u64 {
        let more = |unit: &Unit| more.min(unit.values.len());
        self.units.iter().flatten().map(|unit| unit.bytes_with(more(unit))).sum()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes_with(0)
    }
}

/// Where each half word's number lies in a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan<const W: usize> {
    fields: [[Field; 2]; W],
    /// Words of a key.
    pub(crate) words: usize,
    /// Keys are the states themselves.
    raw: bool,
}

/// Bits of a key; none for a half word that has had one value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Field {
    word: u8,
    shift: u8,
    width: u8,
}

impl Field {
    #[inline]
    const fn mask(self) -> u64 {
        (1 << self.width) - 1
    }
}

/// A number's way from a place in a key to another one: word and shift.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    from: (usize, u32),
    mask: u64,
    to: (usize, u32),
}

/// Adds the key that turns make of another one.
pub(crate) fn turn(turns: &[Turn], key: &[u64], words: usize, keys: &mut Vec<u64>) {
    let start = keys.len();
    keys.resize(start + words, 0);
    for Turn { from, mask, to } in turns {
        keys[start + to.0] |= (key[from.0] >> from.1 & mask) << to.1;
    }
}

/// Bits that so many values need.
const fn bits(values: usize) -> u32 {
    if values < 2 { 0 } else { usize::BITS - (values - 1).leading_zeros() }
}

impl<const W: usize> Plan<W> {
    /// A plan for what a dictionary has, with room for more values as far as the words of a key have any.
    pub(crate) fn of(dictionary: &Dictionary<W>) -> Self {
        let mut fields = [[Field::default(); 2]; W];
        let needs: Vec<u32> = dictionary.counts().flatten().map(bits).collect();
        for words in 1..=W {
            if let Some(fit) = fit(&needs, words) {
                for (field, fit) in fields.iter_mut().flatten().zip(fit) {
                    *field = fit;
                }
                return Plan { fields, words, raw: false };
            }
        }
        Plan { fields, words: W, raw: true }
    }

    /// The plan as numbers.
    pub(crate) fn written(&self) -> Vec<u64> {
        let field = |f: &Field| u64::from(f.word) << 16 | u64::from(f.shift) << 8 | u64::from(f.width);
        let fields = self.fields.iter().flatten().map(field);
        [self.words as u64, u64::from(self.raw)].into_iter().chain(fields).collect()
    }

    /// The plan that these numbers are, if they are one.
    pub(crate) fn of_written(numbers: &[u64]) -> Option<Self> {
        let [words, raw, given @ ..] = numbers else { return None };
        let words = usize::try_from(*words).ok().filter(|w| (1..=W).contains(w))?;
        let mut fields = [[Field::default(); 2]; W];
        if given.len() != 2 * W || *raw > 1 || *raw == 1 && words != W {
            return None;
        }
        for (field, number) in fields.iter_mut().flatten().zip(given) {
            let [width, shift, word, 0, 0, 0, 0, 0] = number.to_le_bytes() else { return None };
            if usize::from(word) >= words || width > 32 || u32::from(shift) + u32::from(width) > 64 {
                return None;
            }
            *field = Field { word, shift: shift.min(63), width };
        }
        Some(Plan { fields, words, raw: *raw == 1 })
    }

    /// Whether keys are made of numbers, rather than being the states themselves.
    pub(crate) fn is_numbers(&self) -> bool {
        !self.raw
    }

    /// Where a half word's number lies in a key: the word, the shift, and the mask before the shift.
    pub(crate) fn place(&self, half: usize) -> (usize, usize, u64) {
        let field = self.fields[half / 2][half % 2];
        (field.word.into(), field.shift.into(), field.mask())
    }

    /// How a key of an earlier plan of the same dictionary becomes one of this plan, which has room for every number that
    /// there is; none if one of them has no numbers.
    pub(crate) fn turns_from(&self, old: &Plan<W>) -> Option<Vec<Turn>> {
        if self.raw || old.raw {
            return None;
        }
        let fields = old.fields.iter().flatten().zip(self.fields.iter().flatten());
        let turns = fields.filter(|(old, _)| old.width > 0).map(|(old, new)| Turn {
            from: (old.word.into(), old.shift.into()),
            mask: old.mask(),
            to: (new.word.into(), new.shift.into()),
        });
        Some(turns.collect())
    }

    /// Whether keys have room for more than one value of a half word.
    pub(crate) fn varies(&self, half: usize) -> bool {
        self.fields[half / 2][half % 2].width > 0
    }

    /// The number of a half word's value; none if it has none that fits.
    pub(crate) fn number(&self, dictionary: &Dictionary<W>, half: usize, value: u32) -> Option<u32> {
        let number = dictionary.units[half / 2][half % 2].find(value)?;
        (u64::from(number) <= self.place(half).2).then_some(number)
    }

    /// Whether each value of the dictionary still has room.
    pub(crate) fn holds(&self, dictionary: &Dictionary<W>) -> bool {
        let fits = |(f, n): (&Field, usize)| bits(n) <= u32::from(f.width);
        self.raw || self.fields.iter().flatten().zip(dictionary.counts().flatten()).all(fits)
    }

    /// The key of a state; `None` if some value has no number that fits.
    pub(crate) fn encode(&self, dictionary: &Dictionary<W>, state: &[u64; W]) -> Option<[u64; W]> {
        if self.raw {
            return Some(*state);
        }
        let mut key = [0; W];
        for (w, word) in state.iter().enumerate() {
            for h in 0..2 {
                let (field, number) = (self.fields[w][h], dictionary.units[w][h].find(half(*word, h))?);
                if u64::from(number) > field.mask() {
                    return None;
                }
                key[field.word as usize] |= u64::from(number) << field.shift;
            }
        }
        Some(key)
    }

    /// The state of a key.
    #[expect(clippy::needless_range_loop, reason = "three arrays of one length: no iterator is as fast")]
    #[inline]
    pub(crate) fn decode(&self, dictionary: &Dictionary<W>, key: &[u64]) -> [u64; W] {
        let mut state = [0; W];
        if self.raw {
            state.copy_from_slice(&key[..W]);
            return state;
        }
        for w in 0..W {
            for h in 0..2 {
                let field = self.fields[w][h];
                let number = key[field.word as usize] >> field.shift & field.mask();
                state[w] |= u64::from(dictionary.units[w][h].values[low(number) as usize]) << (32 * h);
            }
        }
        state
    }

    /// The key of a state that is reached from another one, and the half words of it whose values have no number that
    /// fits, a bit each: what they had is still in the key.
    #[inline]
    pub(crate) fn encode_from(
        &self,
        dictionary: &Dictionary<W>,
        from: (&[u64; W], &[u64; W]),
        next: &[u64; W],
    ) -> ([u64; W], u128) {
        if self.raw {
            return (*next, 0);
        }
        let (state, mut key) = (from.0, *from.1);
        let mut missing = 0;
        for w in 0..W {
            let changed = state[w] ^ next[w];
            for h in 0..2 {
                if half(changed, h) != 0 && !self.put(dictionary, 2 * w + h, half(next[w], h), &mut key) {
                    missing |= 1 << (2 * w + h);
                }
            }
        }
        (key, missing)
    }

    /// Puts the number of a half word's value into a key; false if it has none that fits.
    #[inline]
    pub(crate) fn put(&self, dictionary: &Dictionary<W>, half: usize, value: u32, key: &mut [u64]) -> bool {
        let Some(number) = self.number(dictionary, half, value) else { return false };
        let (word, shift, mask) = self.place(half);
        key[word] = key[word] & !(mask << shift) | u64::from(number) << shift;
        true
    }
}

/// Lays fields of these widths into words, and gives them what room is left; `None` if they do not fit.
fn fit(needs: &[u32], words: usize) -> Option<Vec<Field>> {
    let mut widest: Vec<usize> = (0..needs.len()).filter(|i| needs[*i] > 0).collect();
    widest.sort_by_key(|i| std::cmp::Reverse(needs[*i]));
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); words];
    let mut used = vec![0u32; words];
    for i in widest {
        // The emptiest word, so that each has room to grow.
        let word = (0..words).min_by_key(|w| used[*w])?;
        used[word] += needs[i];
        members[word].push(i);
    }
    if used.iter().any(|bits| *bits > 64) {
        return None;
    }
    let mut widths = needs.to_vec();
    for (members, used) in members.iter().zip(&mut used) {
        // One bit more for each in turn: for those that had few values, too, since they are the first to double.
        let growing: Vec<usize> = members.iter().copied().filter(|i| needs[*i] < 32).collect();
        for i in growing.iter().cycle().take(growing.len() * 64) {
            if *used < 64 && widths[*i] < 32 {
                widths[*i] += 1;
                *used += 1;
            }
        }
    }
    let mut fields = vec![Field::default(); needs.len()];
    for (word, members) in members.iter().enumerate() {
        let mut shift = 0;
        for i in members {
            let byte = |n: u32| u8::try_from(n).unwrap_or(0);
            fields[*i] =
                Field { word: u8::try_from(word).ok()?, shift: byte(shift), width: byte(widths[*i]) };
            shift += widths[*i];
        }
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// States whose half words have few values, some of them many, and some all 32 bits.
        #[test]
        fn a_state_comes_back_from_its_key_whatever_the_plan(
            states in prop::collection::vec(
                (0u64..3, 0u64..2000, any::<u64>(), prop::bool::ANY).prop_map(|(a, b, c, wide)| {
                    [a | b << 32, if wide { c } else { 5 }, b >> 3]
                }),
                1..300,
            )
        ) {
            let mut dictionary = Dictionary::<3>::new();
            dictionary.add(&states[0]);
            let mut plan = Plan::of(&dictionary);
            let mut known: Vec<[u64; 3]> = Vec::new();
            for state in &states {
                let old = plan.clone();
                let before = known.last().map(|from| (*from, plan.encode(&dictionary, from).expect("known")));
                let at_once = before.map(|(from, key)| plan.encode_from(&dictionary, (&from, &key), state));
                // Without a number for each value there is no key, from wherever.
                let whole = at_once.filter(|(_, missing)| *missing == 0).map(|(key, _)| key);
                prop_assert!(whole == plan.encode(&dictionary, state) || at_once.is_none());
                dictionary.add(state);
                if !plan.holds(&dictionary) {
                    plan = Plan::of(&dictionary);
                }
                known.push(*state);
                let from = known[known.len() / 2];
                let key = plan.encode(&dictionary, &from).expect("known");
                let next = plan.encode_from(&dictionary, (&from, &key), state);
                prop_assert_eq!(Some(next), plan.encode(&dictionary, state).map(|key| (key, 0)));
                // A key turns into one of the new plan, and what was missing is put into it.
                if let Some((key, missing)) = at_once {
                    let mut turned = Vec::new();
                    match plan.turns_from(&old) {
                        Some(turns) => turn(&turns, &key, plan.words, &mut turned),
                        None => turned.extend(
                            plan.encode(&dictionary, &old.decode(&dictionary, &key)).expect("known"),
                        ),
                    }
                    turned.resize(3, 0);
                    for at in (0..6).filter(|at| missing >> at & 1 == 1) {
                        prop_assert!(plan.put(&dictionary, at, half(state[at / 2], at % 2), &mut turned));
                    }
                    let whole = plan.encode(&dictionary, state).map(|key| key.to_vec());
                    prop_assert_eq!(Some(turned), whole);
                }
            }
            prop_assert_eq!(Plan::of_written(&plan.written()), Some(plan.clone()));
            let values: Vec<Vec<u32>> = dictionary.values().map(<[u32]>::to_vec).collect();
            let again = Dictionary::of(&values);
            for state in &known {
                let key = plan.encode(&dictionary, state).expect("known");
                prop_assert!(key[plan.words..].iter().all(|w| *w == 0));
                prop_assert_eq!(plan.decode(&again, &key[..plan.words]), *state);
            }
        }

        #[test]
        fn numbers_that_are_no_plan_are_refused(
            mut numbers in prop::collection::vec(0u64..70, 8), far in any::<u64>(), at in 0usize..8,
        ) {
            numbers[at] = far;
            if let Some(plan) = Plan::<3>::of_written(&numbers) {
                prop_assert_eq!(plan.written(), numbers);
            }
        }
    }
}
