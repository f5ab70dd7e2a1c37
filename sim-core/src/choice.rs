//! The one door through which everything that may go more than one way is decided.

/// Decides what may go more than one way: the explorer tries every answer, the timed run draws or computes
/// one, a replay reads it from a schedule.
pub trait Chooser {
    /// One of `options` (at least 1) ways, from 0.
    fn choose(&mut self, options: u32) -> u32;
}

/// Tries every sequence of answers, like an odometer: run with it, then [`Odometer::advance`], until that says
/// there are no more.
#[derive(Clone, Debug, Default)]
pub struct Odometer {
    digits: Vec<(u32, u32)>,
    next: usize,
}

impl Odometer {
    /// The next sequence of answers; `false` once all were tried.
    pub fn advance(&mut self) -> bool {
        self.digits.truncate(self.next);
        self.next = 0;
        while let Some((answer, options)) = self.digits.pop() {
            if answer + 1 < options {
                self.digits.push((answer + 1, options));
                return true;
            }
        }
        false
    }

    /// Forgets everything, to begin with the first sequence again.
    pub fn reset(&mut self) {
        self.digits.clear();
        self.next = 0;
    }

    /// The answers given since the last `advance` or `reset`.
    pub fn answers(&self) -> impl Iterator<Item = u32> + '_ {
        self.digits[..self.next].iter().map(|d| d.0)
    }
}

impl Chooser for Odometer {
    fn choose(&mut self, options: u32) -> u32 {
        if self.next == self.digits.len() {
            self.digits.push((0, options.max(1)));
        }
        let answer = self.digits[self.next].0;
        self.next += 1;
        answer
    }
}

/// Gives the answers of a schedule in order; an answer that is missing or too large is remembered as a fault.
#[derive(Clone, Debug)]
pub struct Scripted<'a> {
    answers: &'a [u32],
    /// Answers used so far.
    pub used: usize,
    /// Whether the schedule had no fitting answer to a question.
    pub failed: bool,
}

impl<'a> Scripted<'a> {
    /// A chooser that gives `answers`.
    #[must_use]
    pub fn new(answers: &'a [u32]) -> Self {
        Scripted { answers, used: 0, failed: false }
    }

    /// Whether every answer was used, and each fitted.
    #[must_use]
    pub fn fitted(&self) -> bool {
        !self.failed && self.used == self.answers.len()
    }
}

impl Chooser for Scripted<'_> {
    fn choose(&mut self, options: u32) -> u32 {
        let answer = self.answers.get(self.used).copied();
        self.used += 1;
        match answer {
            Some(a) if a < options => a,
            _ => {
                self.failed = true;
                0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odometer_tries_every_sequence_once() {
        let mut odometer = Odometer::default();
        let mut seen = Vec::new();
        loop {
            let a = odometer.choose(2);
            let b = if a == 1 { odometer.choose(3) } else { 9 };
            seen.push((a, b));
            if !odometer.advance() {
                break;
            }
        }
        assert_eq!(seen, [(0, 9), (1, 0), (1, 1), (1, 2)]);
    }
}
