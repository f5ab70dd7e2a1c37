//! Write-backs on their way: out of their cache, not yet accepted by their DRAM channel.
//!
//! No access waits for them; who asks is the oracle, which must know what a device would find in DRAM, and the end
//! of a whole-cache flush. They are kept once somebody says that he will ask ([`Flights::keep`]): it costs a few
//! nanoseconds of host time for each line.

use std::collections::VecDeque;

use sev_arch::{CcxId, Tag};

use super::words::LineRef;

/// A line that left the caches of a CCX by itself.
#[derive(Clone, Copy, Debug)]
struct Flight {
    key: u32,
    ccx: u16,
    arrives: u64,
}

/// What one part of a flush wrote back, in order of departure: its lines arrive one after the other, evenly.
#[derive(Clone, Debug)]
struct Wave {
    lines: Vec<(u32, u16)>,
    start: u64,
    end: u64,
}

impl Wave {
    /// When its line number `i` arrives; the last one at the end.
    fn arrival(&self, i: usize) -> u64 {
        let span = u128::from(self.end - self.start) * (i as u128 + 1);
        self.start + u64::try_from(span.div_ceil(self.lines.len() as u128)).unwrap_or(u64::MAX)
    }
}

/// The write-backs of a machine that may still be on their way.
#[derive(Clone, Default, Debug)]
pub(super) struct Flights {
    pub(super) kept: bool,
    single: VecDeque<Flight>,
    /// What the flush at hand has written back so far.
    loading: Vec<(u32, u16)>,
    waves: Vec<Wave>,
    /// One bit a line of memory, set if it is in a wave; it may be if it is set.
    marked: Vec<u64>,
}

impl Flights {
    /// From now on, write-backs are kept until they have arrived.
    pub(super) fn keep(&mut self, memory_lines: usize) {
        self.kept = true;
        self.marked = vec![0; memory_lines.div_ceil(64)];
    }

    /// A line leaves at `now` and arrives then (cycles).
    pub(super) fn depart(&mut self, key: u32, ccx: usize, arrives: u64, now: u64) {
        while self.single.front().is_some_and(|first| first.arrives <= now) {
            self.single.pop_front();
        }
        self.single.push_back(Flight { key, ccx: narrow(ccx), arrives });
    }

    /// A flush writes a line back; [`Flights::wave`] says when.
    #[inline]
    pub(super) fn load(&mut self, key: u32, ccx: usize) {
        if self.kept {
            mark(&mut self.marked, key);
            self.loading.push((key, narrow(ccx)));
        }
    }

    /// What a flush has written back leaves from `start` on; the last line arrives at `end`.
    pub(super) fn wave(&mut self, now: u64, start: u64, end: u64) {
        if self.waves.iter().any(|wave| wave.end <= now) {
            for wave in self.waves.extract_if(.., |wave| wave.end <= now) {
                for (key, _) in wave.lines {
                    let phys = LineRef::of_key(key).phys as usize;
                    self.marked[phys / 64] &= !(1 << (phys % 64));
                }
            }
            for (key, _) in self.waves.iter().flat_map(|wave| &wave.lines).chain(&self.loading) {
                mark(&mut self.marked, *key);
            }
        }
        if !self.loading.is_empty() {
            let lines = std::mem::take(&mut self.loading);
            self.waves.push(Wave { lines, start, end });
        }
    }

    /// The write-backs of a line that are under way at `now`: under which tag, out of which CCX, when each arrives.
    /// One for a tag, the newest: whoever made the line dirty again waited for the one before.
    pub(super) fn of(&self, phys: u32, now: u64) -> Vec<(Tag, CcxId, u64)> {
        let mut found: Vec<(Tag, CcxId, u64)> = Vec::new();
        let mut note = |key: u32, ccx: u16, arrives: u64| {
            let line = LineRef::of_key(key);
            if line.phys != phys || arrives <= now {
                return;
            }
            match found.iter_mut().find(|f| f.0 == line.tag) {
                Some(f) if f.2 >= arrives => {}
                Some(f) => *f = (line.tag, CcxId(ccx), arrives),
                None => found.push((line.tag, CcxId(ccx), arrives)),
            }
        };
        for flight in &self.single {
            note(flight.key, flight.ccx, flight.arrives);
        }
        if self.waves.iter().any(|wave| wave.end > now) && is_marked(&self.marked, phys) {
            for wave in self.waves.iter().filter(|wave| wave.end > now) {
                for (i, (key, ccx)) in wave.lines.iter().enumerate() {
                    if LineRef::of_key(*key).phys == phys {
                        note(*key, *ccx, wave.arrival(i));
                    }
                }
            }
        }
        found
    }

    /// When the last write-back out of a CCX that is under way at `now` arrives; `now` if none is.
    pub(super) fn end(&self, ccx: usize, now: u64) -> u64 {
        let ccx = narrow(ccx);
        let single = self.single.iter().filter(|f| f.ccx == ccx).map(|f| f.arrives);
        let of = |wave: &Wave| wave.lines.iter().rposition(|l| l.1 == ccx).map(|i| wave.arrival(i));
        let waves = self.waves.iter().filter(|wave| wave.end > now).filter_map(of);
        single.chain(waves).max().unwrap_or(now).max(now)
    }
}

fn narrow(ccx: usize) -> u16 {
    u16::try_from(ccx).unwrap_or(u16::MAX)
}

fn mark(marked: &mut [u64], key: u32) {
    let phys = LineRef::of_key(key).phys as usize;
    marked[phys / 64] |= 1 << (phys % 64);
}

fn is_marked(marked: &[u64], phys: u32) -> bool {
    marked.get(phys as usize / 64).is_some_and(|word| word >> (phys % 64) & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u32 = 7;

    fn kept() -> Flights {
        let mut flights = Flights::default();
        flights.keep(128);
        flights
    }

    #[test]
    fn a_line_is_under_way_until_it_arrives() {
        let mut flights = kept();
        flights.depart(KEY, 3, 100, 10);
        assert_eq!(flights.of(KEY, 99), [(Tag::HOST, CcxId(3), 100)]);
        assert_eq!(flights.of(KEY, 100), []);
        assert_eq!(flights.of(KEY + 1, 50), []);
        assert_eq!((flights.end(3, 50), flights.end(2, 50), flights.end(3, 100)), (100, 50, 100));
    }

    #[test]
    fn the_lines_of_a_flush_arrive_one_after_the_other_and_the_last_at_its_end() {
        let mut flights = kept();
        for key in 0..4 {
            flights.load(key, usize::from(key == 3));
        }
        flights.wave(0, 100, 180);
        let arrivals: Vec<u64> = (0..4).map(|phys| flights.of(phys, 0)[0].2).collect();
        assert_eq!(arrivals, [120, 140, 160, 180]);
        assert_eq!((flights.end(0, 0), flights.end(1, 0), flights.end(1, 200)), (160, 180, 200));
    }

    #[test]
    fn a_flush_that_is_over_is_forgotten_and_what_another_has_under_way_is_not() {
        let mut flights = kept();
        flights.load(KEY, 0);
        flights.wave(0, 0, 50);
        flights.load(KEY, 0);
        flights.wave(10, 10, 90);
        flights.load(KEY + 1, 0);
        flights.wave(60, 60, 70);
        assert_eq!(flights.waves.len(), 2);
        assert_eq!(flights.of(KEY, 60), [(Tag::HOST, CcxId(0), 90)]);
        flights.wave(100, 100, 100);
        assert!(flights.waves.is_empty() && flights.marked.iter().all(|word| *word == 0));
    }
}
