//! A schedule as one number: of each state's transitions, which one was made.

use crate::explore::{Explorer, ScheduledStep};

/// A whole number of any size, least significant limb first.
#[derive(Clone, Debug, Default)]
struct Large(Vec<u32>);

impl Large {
    /// Becomes itself times `factor` plus `add`.
    fn grow(&mut self, factor: u32, add: u32) {
        let mut carry = u64::from(add);
        for limb in &mut self.0 {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = low(carry);
            carry >>= 32;
        }
        if carry > 0 {
            self.0.push(low(carry));
        }
    }

    /// Becomes itself divided by `divisor`; the remainder.
    fn shrink(&mut self, divisor: u32) -> u32 {
        let mut rest = 0u64;
        for limb in self.0.iter_mut().rev() {
            let value = rest << 32 | u64::from(*limb);
            *limb = low(value / u64::from(divisor));
            rest = value % u64::from(divisor);
        }
        low(rest)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.0.iter().flat_map(|limb| limb.to_le_bytes()).collect();
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        bytes
    }

    fn of(bytes: &[u8]) -> Large {
        let limb = |chunk: &[u8]| {
            let mut whole = [0; 4];
            whole[..chunk.len()].copy_from_slice(chunk);
            u32::from_le_bytes(whole)
        };
        Large(bytes.chunks(4).map(limb).collect())
    }
}

/// The low half.
#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
const fn low(value: u64) -> u32 {
    value as u32
}

impl Explorer<'_> {
    /// A schedule as a number in few bytes; `None` if it does not fit the machine.
    #[must_use]
    pub fn packed(&mut self, steps: &[ScheduledStep]) -> Option<Vec<u8>> {
        let mut state = self.start();
        let mut picks: Vec<(u32, u32)> = Vec::new();
        for step in steps {
            let (mut count, mut found) = (0u32, None);
            self.each(&state, |actor, odometer, next, _| {
                if actor == step.actor && odometer.answers().eq(step.answers.iter().copied()) {
                    found = Some((count, next.to_vec()));
                }
                count += 1;
            });
            let (number, next) = found?;
            picks.push((number, count));
            state = next;
        }
        let mut large = Large::default();
        for (number, count) in picks.iter().rev() {
            large.grow(*count, *number);
        }
        Some(large.bytes())
    }

    /// The schedule of so many steps that a number stands for; `None` if the machine stops before.
    #[must_use]
    pub fn unpacked(&mut self, bytes: &[u8], steps: usize) -> Option<Vec<ScheduledStep>> {
        let mut large = Large::of(bytes);
        let mut state = self.start();
        let mut schedule = Vec::new();
        for _ in 0..steps {
            let mut all = Vec::new();
            self.each(&state, |actor, odometer, next, _| {
                all.push((ScheduledStep { actor, answers: odometer.answers().collect() }, next.to_vec()));
            });
            let count = u32::try_from(all.len()).ok().filter(|n| *n > 0)?;
            let (step, next) = all.swap_remove(large.shrink(count) as usize);
            schedule.push(step);
            state = next;
        }
        large.0.iter().all(|limb| *limb == 0).then_some(schedule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_come_back_in_their_order() {
        let picks: Vec<(u32, u32)> = (0..200u32).map(|i| (i * 7919 % (i % 13 + 1), i % 13 + 1)).collect();
        let mut large = Large::default();
        for (number, count) in picks.iter().rev() {
            large.grow(*count, *number);
        }
        let mut back = Large::of(&large.bytes());
        for (number, count) in picks {
            assert_eq!(back.shrink(count), number);
        }
        assert!(back.bytes().is_empty());
    }
}
