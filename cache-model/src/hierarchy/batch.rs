//! Many accesses at once, over tables that are borrowed once: in turn, and in order of time.

use sim_core::queue::Queue;

use super::machine::{Machine, Request};
use super::pages::Table;
use super::words::Step;

/// Accesses that are looked at before the first of them is carried out.
const AHEAD: usize = 16;
/// Misses among so many accesses that are few.
const FEW: usize = 2;

impl<const P: usize> Machine<P> {
    /// Accesses carried out in turn, each at its core's clock, which then moves on by what the access took.
    pub(super) fn in_turn(&mut self, steps: &[Step], clocks: &mut [u64]) {
        self.lend(|lent| lent.each_in_turn(steps, clocks));
    }

    /// Accesses carried out in order of time.
    pub(super) fn in_time_order(
        &mut self,
        programs: &[&[Step]],
        clocks: &mut [u64],
        done: &mut impl FnMut(Step),
    ) {
        self.lend(|lent| lent.each_in_time_order(programs, clocks, done));
    }
}

impl<const P: usize, A: Table<[u64; P]>, B: Table<[u64; 16]>, D: Table<u32>> Machine<P, A, B, D> {
    fn each_in_turn(&mut self, steps: &[Step], clocks: &mut [u64]) {
        let mut missed = 0;
        for block in steps.chunks(AHEAD) {
            let mut look = true;
            let before = std::mem::take(&mut missed);
            for (at, step) in block.iter().enumerate() {
                let core = usize::from(step.core);
                let clock = &mut clocks[core];
                let access = step.access();
                let cycles = match self.hit_l1(core, step.key, access) {
                    Some(cycles) => cycles,
                    None => {
                        // where misses are rare, there is nothing for them to overlap with
                        if look && before + missed > FEW {
                            look = false;
                            for next in &block[at..] {
                                self.read_ahead_of_miss(usize::from(next.core), next.key);
                            }
                        }
                        missed += 1;
                        self.access_l2(Request { core, key: step.key, access, now: *clock }).cycles
                    }
                };
                *clock += u64::from(cycles);
            }
        }
    }

    /// An event for each miss, ordered by (time, core); a core's hits run ahead of the others' misses only as far as
    /// the smallest request could not yet have arrived.
    fn each_in_time_order(&mut self, programs: &[&[Step]], clocks: &mut [u64], done: &mut impl FnMut(Step)) {
        // times are counted from the earliest clock: the queue is made for what is near
        let start = clocks.iter().copied().min().unwrap_or(0);
        let mut queue = Queue::new();
        let mut next = vec![0; programs.len()];
        for (core, clock) in (0u16..).zip(clocks.iter()).take(programs.len()) {
            queue.push(clock - start, u64::from(core), core);
        }
        let ahead = u64::from(self.timing.l3_hit);
        // cores whose next access nobody has looked at: looked at together, so that the host's misses overlap
        let mut unseen: Vec<u16> = Vec::new();
        let mut seen = vec![true; programs.len()];
        while let Some((now, core)) = queue.pop() {
            let index = usize::from(core);
            if !seen[index] {
                for other in unseen.drain(..) {
                    let other = usize::from(other);
                    seen[other] = true;
                    if let Some(step) = programs[other].get(next[other]) {
                        self.read_ahead(other, step.key);
                    }
                }
            }
            let (program, at) = (programs[index], &mut next[index]);
            let horizon = queue.next_time().unwrap_or(u64::MAX);
            let mut clock = now;
            while let Some(step) = program.get(*at) {
                let access = step.access();
                let hit = if clock <= horizon.saturating_add(ahead) {
                    self.hit(index, step.key, access)
                } else {
                    None
                };
                let served = match hit {
                    Some(served) => served,
                    None if clock == now || clock < horizon => {
                        self.access_l2(Request { core: index, key: step.key, access, now: start + clock })
                    }
                    None => {
                        seen[index] = false;
                        unseen.push(core);
                        queue.push(clock, u64::from(core), core);
                        break;
                    }
                };
                clock += u64::from(served.cycles);
                *at += 1;
                done(*step);
            }
            clocks[index] = start + clock;
        }
    }
}
