//! Many accesses at once, over tables that are borrowed once: in turn, and in order of time.

use super::machine::{Machine, Request};
use super::pages::Tables;
use super::turns::Turns;
use super::words::Step;

/// Accesses that are looked at before the first of them is carried out.
const AHEAD: usize = 16;
/// Accesses of a program that share a line of the host's cache.
const LINE: usize = 64 / size_of::<Step>();
/// So many cores have more sets than the host's caches hold from one turn of a core to its next.
const MANY: usize = 32;
/// Accesses of a turn without misses, about: the latency of an L3 hit over that of an L1 hit.
const TURN: usize = 12;
/// Misses among so many accesses that are few.
const FEW: usize = 2;

impl<const W1: usize, const K1: usize, const W2: usize, const K2: usize> Machine<W1, K1, W2, K2> {
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

impl<const W1: usize, const K1: usize, const W2: usize, const K2: usize, T: Tables<W1, W2>>
    Machine<W1, K1, W2, K2, T>
{
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

    /// Reads ahead of the next access of each of these cores, of its next turn if there are many.
    #[inline(never)]
    fn look_ahead(&self, unseen: &mut Vec<u16>, runs: &mut [Run<'_>], beyond_l1: &mut Vec<(u16, u32)>) {
        let many = runs.len() >= MANY;
        let mut seen = 0;
        for core in unseen.iter().copied().map(usize::from) {
            // as many programs as cores are more than the host notices to be read in order
            for at in (AHEAD..).step_by(LINE).take(1 + usize::from(many)) {
                seen ^= runs[core].left.get(at).map_or(0, |step| step.key);
            }
        }
        std::hint::black_box(seen);
        if many {
            self.look_at_turns(unseen, runs, beyond_l1);
        }
        for core in unseen.drain(..).map(usize::from) {
            let run = &mut runs[core];
            run.seen = true;
            match run.left.first() {
                Some(step) if run.missed => {
                    self.read_ahead_of_l1_victim(core, step.key);
                    self.read_ahead_of_miss(core, step.key);
                }
                Some(step) => self.read_ahead(core, step.key),
                None => {}
            }
        }
    }

    /// Reads the sets that the next turns of these cores begin with, all of one table before the next table, and with no
    /// branch that depends on what was read: so many loads overlap as the host can have under way.
    fn look_at_turns(&self, unseen: &[u16], runs: &mut [Run<'_>], beyond_l1: &mut Vec<(u16, u32)>) {
        let mut seen = 0;
        for core in unseen.iter().copied().map(usize::from) {
            for step in runs[core].unseen() {
                seen ^= self.l1.glimpse(core, step.key);
            }
        }
        let mut absent = 0;
        for core in unseen.iter().copied() {
            let run = &mut runs[usize::from(core)];
            let next = run.unseen();
            run.rest = run.rest.min(run.left.len()) - next.len();
            for step in next {
                if absent == beyond_l1.len() {
                    beyond_l1.push((0, 0));
                }
                beyond_l1[absent] = (core, step.key);
                absent += usize::from(!self.l1.peek_key(usize::from(core), step.key));
            }
        }
        for (core, key) in &beyond_l1[..absent] {
            seen ^= self.l2.glimpse(usize::from(*core), *key);
        }
        std::hint::black_box(seen);
    }

    /// A turn for each miss, in order of (time, core); a core's hits run ahead of the others' misses only as far as the
    /// smallest request could not yet have arrived.
    fn each_in_time_order(&mut self, programs: &[&[Step]], clocks: &mut [u64], done: &mut impl FnMut(Step)) {
        // turns are counted from the earliest clock
        let start = clocks.iter().take(programs.len()).copied().min().unwrap_or(0);
        let mut turns = Turns::new(programs.len());
        let mut runs: Vec<Run<'_>> = Vec::with_capacity(programs.len());
        for ((core, program), clock) in (0u16..).zip(programs).zip(clocks.iter()) {
            turns.wait(core, clock - start);
            runs.push(Run { left: program, seen: true, missed: false, rest: program.len() });
        }
        let ahead = u64::from(self.timing.l3_hit);
        // cores whose next access nobody has looked at: looked at together, so that the host's misses overlap
        let mut unseen: Vec<u16> = Vec::with_capacity(programs.len());
        let mut beyond_l1 = Vec::new();
        while let Some((now, core, horizon)) = turns.take() {
            let index = usize::from(core);
            if !runs[index].seen {
                self.look_ahead(&mut unseen, &mut runs, &mut beyond_l1);
            }
            let run = &mut runs[index];
            let mut missed = std::mem::take(&mut run.missed);
            let mut clock = now;
            // whatever comes before others' turns, and the first access, can be carried out; after that only a hit
            let (turn_ends, hits_end) = (horizon.max(now + 1), horizon.saturating_add(ahead));
            while let Some((step, left)) = run.left.split_first() {
                assert!(step.core == core, "an access by core{} in the program of core{core}", step.core);
                let access = step.access();
                let hit =
                    if missed || clock > hits_end { None } else { self.hit_l1(index, step.key, access) };
                let cycles = if let Some(cycles) = hit {
                    cycles
                } else if clock < turn_ends {
                    missed = false;
                    self.access_l2(Request { core: index, key: step.key, access, now: start + clock }).cycles
                } else if clock <= hits_end
                    && let Some(served) = self.hit_l2(index, step.key, access)
                {
                    served.cycles
                } else {
                    // nobody else can make a hit of a miss
                    (run.seen, run.missed) = (false, clock <= hits_end);
                    unseen.push(core);
                    turns.wait(core, clock);
                    break;
                };
                clock += u64::from(cycles);
                run.left = left;
                done(*step);
            }
            clocks[index] = start + clock;
        }
    }
}

/// A core's program in order of time.
struct Run<'a> {
    /// The accesses that are still to come.
    left: &'a [Step],
    /// Whether the host has been told what the next one will need.
    seen: bool,
    /// Whether the next one is known to miss the private caches, or to lack the right to write.
    missed: bool,
    /// How many of them, the last ones, nobody has looked at: many cores' turns are looked at as wholes.
    rest: usize,
}

impl<'a> Run<'a> {
    /// What nobody has looked at of the next turn. One that begins with a miss hardly ever has more to it.
    fn unseen(&self) -> &'a [Step] {
        let turn = if self.missed { 0 } else { TURN };
        let next = &self.left[..turn.min(self.left.len())];
        let looked_at = self.left.len().saturating_sub(self.rest);
        next.get(looked_at..).unwrap_or_default()
    }
}
