//! From which state each state of a shard was first reached, in about two bytes each.
//!
//! The states that a search expands are counted as it goes: that is a state's rank. A shard takes its states nearly in
//! the order of the ranks of those that they were found from, so that the difference to the one before is small.

use crate::pages::{PER, Pages};
use crate::table::length;

/// Numbers that go up, or down by little, kept as their differences.
#[derive(Debug)]
pub(crate) struct Ranks {
    steps: Pages<u16>,
    /// Place and number of each whose difference does not fit.
    far: Vec<(u32, u64)>,
    /// The number at every so many places, to count from.
    marks: Vec<u64>,
    last: u64,
}

/// Places between two marks: those of a page.
const APART: u32 = PER as u32;

/// The step of a number that is written in full.
const FAR: u16 = u16::MAX;

/// By how much a number may be below the one before it and still be near.
pub(crate) const BELOW: u32 = 32;

impl Ranks {
    pub(crate) fn new() -> Self {
        Ranks { steps: Pages::new(1), far: Vec::new(), marks: Vec::new(), last: 0 }
    }

    #[inline]
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.steps.len()).unwrap_or(u32::MAX)
    }

    /// Adds a number, for which there is room.
    #[inline]
    pub(crate) fn push(&mut self, rank: u64) {
        let at = self.len();
        if at.is_multiple_of(APART) {
            self.marks.push(rank);
        }
        let above = (rank + u64::from(BELOW)).checked_sub(self.last);
        let step = above.and_then(|s| u16::try_from(s).ok()).filter(|s| *s != FAR);
        if step.is_none() {
            self.far.push((at, rank));
        }
        self.steps.push(&[step.unwrap_or(FAR)]);
        self.last = rank;
    }

    pub(crate) fn get(&self, at: u32) -> u64 {
        self.from(at).next().unwrap_or(0)
    }

    /// The numbers from a place on.
    pub(crate) fn from(&self, at: u32) -> impl Iterator<Item = u64> + '_ {
        let mark = (at / APART).min(length(&self.marks).saturating_sub(1));
        let mut far = self.far.partition_point(|(place, _)| *place < mark * APART);
        let mut rank = self.marks.get(mark as usize).copied().unwrap_or(0);
        let steps = self.steps.pages().skip(mark as usize).flatten();
        let all = steps.enumerate().map(move |(place, step)| {
            if *step == FAR {
                rank = self.far[far].1;
                far += 1;
            } else if place > 0 {
                rank = rank + u64::from(*step) - u64::from(BELOW);
            }
            rank
        });
        all.skip((at - mark * APART) as usize)
    }

    /// What gives the list again: its steps, and those that are far.
    pub(crate) fn written(&self) -> (impl Iterator<Item = u16>, &[(u32, u64)]) {
        (self.steps.pages().flatten().copied(), &self.far)
    }

    /// The list that was written so; `None` if the parts do not belong together.
    pub(crate) fn of_written(steps: &[u16], far: Vec<(u32, u64)>) -> Option<Ranks> {
        let mut ranks = Ranks::new();
        let mut far = far.into_iter();
        ranks.reserve(steps.len());
        for step in steps {
            let near = || (ranks.last + u64::from(*step)).checked_sub(u64::from(BELOW));
            let rank = if *step == FAR { far.next()?.1 } else { near()? };
            ranks.push(rank);
        }
        ranks.steps.pages().flatten().eq(steps).then_some(ranks)
    }

    /// Keeps the first so many.
    pub(crate) fn truncate(&mut self, len: u32) {
        if len >= self.len() {
            return;
        }
        self.last = len.checked_sub(1).map_or(0, |at| self.get(at));
        self.steps.truncate(len as usize);
        self.marks.truncate(len.div_ceil(APART) as usize);
        self.far.truncate(self.far.partition_point(|(place, _)| *place < len));
    }

    pub(crate) fn reserve(&mut self, more: usize) {
        self.steps.reserve(more);
    }

    /// Bytes that it takes once it has room for so many more, if all of these are near.
    pub(crate) fn bytes_with(&self, more: usize) -> u64 {
        self.steps.bytes_with(more) + (self.far.capacity() * 16 + self.marks.capacity() * 8) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(ranks: &Ranks) -> impl PartialEq + std::fmt::Debug {
        let steps: Vec<u16> = ranks.steps.pages().flatten().copied().collect();
        (steps, ranks.far.clone(), ranks.marks.clone(), ranks.last)
    }

    #[test]
    fn each_number_comes_back_and_a_shorter_list_is_the_same_list() {
        let mut rank = 0u64;
        let numbers: Vec<u64> = (0..5000u64)
            .map(|i| {
                rank += match i % 97 {
                    0 => 65_535 - u64::from(BELOW),
                    1 => 1 << 33,
                    2 => 65_534 - u64::from(BELOW),
                    3 => 40,
                    n => n % 3,
                };
                if i % 97 == 4 {
                    rank -= u64::from(BELOW) + i % 2;
                }
                rank
            })
            .collect();
        let mut ranks = Ranks::new();
        ranks.reserve(numbers.len());
        numbers.iter().for_each(|n| ranks.push(*n));
        for (at, number) in (0u32..).zip(&numbers) {
            assert_eq!(ranks.get(at), *number, "at {at}");
        }
        for at in [0, 1, 1023, 1024, 1025, 4999, 5000] {
            assert!(ranks.from(at).eq(numbers[at as usize..].iter().copied()), "from {at}");
        }
        let (steps, far) = ranks.written();
        let again = Ranks::of_written(&steps.collect::<Vec<_>>(), far.to_vec()).expect("it was written so");
        assert_eq!(parts(&again), parts(&ranks));
        for len in [4097, 1025, 1024, 98, 1, 0] {
            ranks.truncate(len);
            let mut again = Ranks::new();
            again.reserve(len as usize);
            numbers[..len as usize].iter().for_each(|n| again.push(*n));
            assert_eq!(parts(&ranks), parts(&again));
        }
    }
}
