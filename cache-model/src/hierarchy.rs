//! The timed caches: private L1D and L2 of every core, an L3 for every CCX, a directory, write-back bandwidth.
//!
//! *Promise*: copies under one tag obey MOESI with dirty sharing, and move as [`crate::lattice`] says; copies
//! under different tags are unrelated, except that on an SME_COHERENT part a CPU access that misses first writes
//! back and invalidates the other tags' copies. A flush costs the host time in proportion to the dirty lines.
//!
//! The L2 includes the L1D. A victim L3 is filled by what its L2s push out, clean or dirty; a hit moves the line
//! back to the requester, with its state. What an L3 pushes out goes to DRAM if it is dirty: evictions load the CCD's
//! link and the home's channel, and delay others, but nobody waits for them. Until its channel has accepted it, such a line
//! is in flight, in no cache and not in DRAM yet (`flights.rs`). Each cache replaces its lines as its part says. Requests queue at their L3, their CCD's link, between the sockets and
//! at the DRAM channels (`traffic.rs`). The home of a line alternates between the sockets every 2 MiB.
//!
//! A miss is a *refill* if a flush took the line out of the requester's L2 or its CCX's L3, where it would still be
//! for all that has come since: what a flush takes stays in its way as a ghost until something replaces it.
//!
//! Host memory: 128 bytes a set of an L3, 64 a set of a private cache (128 if it has more than 12 ways, or 16 without
//! pseudo-LRU), 4 a line of memory that is used (two Genoa sockets: 126 MB and the directory), about 80 a line that
//! several CCXs share.

mod bank;
mod batch;
mod check;
mod directory;
mod fetch;
mod flights;
mod flush;
mod force;
mod inclusive;
mod machine;
mod order;
mod pages;
mod set;
mod traffic;
mod turns;
mod words;

use sev_arch::{Access, CcxId, CoreId, FlushOp, Tag};

use crate::lattice::{Held, Move, Place};
use crate::part::{Level, Part, Timing, Topology};
use machine::{Machine, Request};
pub use words::{Cause, DirtyHolders, FlushWork, Found, LineRef, Served, Source, Stats, Step};

/// The caches of a machine.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    ways: Ways,
}

/// Machines by the layout of their private caches' sets, which makes no difference but of time.
#[derive(Clone, Debug)]
enum Ways {
    Eight(Box<Machine<8, 8, 8, 8>>),
    /// Up to twelve ways in the L1 and sixteen in the L2, a set still one line of the host's cache.
    Packed(Box<Machine<8, 12, 8, 16>>),
    Sixteen(Box<Machine<16, 16, 16, 16>>),
}

macro_rules! each {
    ($self:ident, $m:ident => $body:expr) => {
        match &$self.ways {
            Ways::Eight($m) => $body,
            Ways::Packed($m) => $body,
            Ways::Sixteen($m) => $body,
        }
    };
    (mut $self:ident, $m:ident => $body:expr) => {
        match &mut $self.ways {
            Ways::Eight($m) => $body,
            Ways::Packed($m) => $body,
            Ways::Sixteen($m) => $body,
        }
    };
}

impl Hierarchy {
    /// Empty caches of a part, at typical times, over 4 GiB of memory (host memory is taken as it is used).
    #[must_use]
    pub fn new(part: &Part) -> Hierarchy {
        Hierarchy::with(part, &part.timing(Level::Typical), LineRef::PHYS_LIMIT)
    }

    /// Empty caches of a part with these times, over this many lines of memory.
    ///
    /// # Panics
    /// More than [`LineRef::PHYS_LIMIT`] lines; an inclusive L3 on a part of several CCXs.
    #[must_use]
    pub fn with(part: &Part, timing: &Timing, memory_lines: u32) -> Hierarchy {
        let ways = if set::has_room::<8, 8>(part.l1d()) && set::has_room::<8, 8>(part.l2()) {
            Ways::Eight(Box::new(Machine::new(part, timing, memory_lines)))
        } else if set::has_room::<8, 12>(part.l1d()) && set::has_room::<8, 16>(part.l2()) {
            Ways::Packed(Box::new(Machine::new(part, timing, memory_lines)))
        } else {
            Ways::Sixteen(Box::new(Machine::new(part, timing, memory_lines)))
        };
        Hierarchy { ways }
    }

    /// An access that the core's own L1 or L2 satisfies, with the right to write if it is a store: its cycles.
    /// `None` changes nothing: ask [`Hierarchy::access`] at the right time.
    ///
    /// No other core can tell that it happened, but by what it later finds Modified instead of Exclusive.
    #[inline]
    pub fn try_hit(&mut self, core: CoreId, line: LineRef, access: Access) -> Option<u32> {
        let (core, key) = (core.index(), line.key());
        each!(mut self, m => m.hit(core, key, access)).map(|served| served.cycles)
    }

    /// Any access, carried out as a whole at this instant (`now` in cycles): fill, evictions, probes.
    #[inline]
    pub fn access(&mut self, core: CoreId, line: LineRef, access: Access, now: u64) -> Served {
        let request = Request { core: core.index(), key: line.key(), access, now };
        each!(mut self, m => m.access(request))
    }

    /// Carries out accesses in the order given, each at its core's clock (cycles), and moves the clock on by what
    /// the access took. The order is the caller's, whoever's clock is ahead: to be compared with an untimed
    /// simulator, which knows no other.
    ///
    /// # Panics
    /// A core that the part does not have; fewer clocks than cores.
    pub fn in_turn(&mut self, steps: &[Step], clocks: &mut [u64]) {
        each!(mut self, m => m.in_turn(steps, clocks));
    }

    /// Carries out each core's accesses, cores by number, one after the other at its clock (cycles), which moves on by
    /// what an access took; those of different cores in order of time, and of the core's number among equals. Hits
    /// in a core's own caches, which nobody else can tell, may come up to the latency of an L3 hit before their turn.
    /// `done` is told every access in the order in which they were carried out.
    ///
    /// # Panics
    /// An access by another core than its program's; fewer clocks than programs; more programs than cores; clocks
    /// 2^48 cycles apart.
    pub fn in_time_order(&mut self, programs: &[&[Step]], clocks: &mut [u64], mut done: impl FnMut(Step)) {
        each!(mut self, m => m.in_time_order(programs, clocks, &mut done));
    }

    /// Brings what [`Hierarchy::access`] will need into the host's caches; changes nothing. Called for the next
    /// dozen or so accesses before the first of them, it lets their host cache misses overlap.
    #[inline]
    pub fn read_ahead(&self, core: CoreId, line: LineRef) {
        let (core, key) = (core.index(), line.key());
        each!(self, m => m.read_ahead(core, key));
    }

    /// A device reads or writes a whole line at C=0: coherent with the host's copies, blind to every guest's.
    /// A write invalidates the host's copies after writing them back; a read takes dirty data from them and
    /// changes nothing. Tells what it met.
    pub fn dma(&mut self, phys: u32, access: Access, now: u64) -> Found {
        self.dma_timed(phys, access, now).0
    }

    /// The same, with the cycles for which the line waits at its DRAM channel. Devices are at the first socket.
    pub fn dma_timed(&mut self, phys: u32, access: Access, now: u64) -> (Found, u32) {
        each!(mut self, m => m.dma(phys, access, now))
    }

    /// Flushes the L1 and L2 of a core, of every tag, at this instant. Not told as moves.
    ///
    /// WBNOINVD on a part without it is WBINVD.
    pub fn flush_private(&mut self, core: CoreId, op: FlushOp) -> FlushWork {
        each!(mut self, m => m.flush_private(core.index(), op))
    }

    /// Flushes the L3 of a CCX, of every tag, at this instant. Not told as moves. An inclusive L3 that is
    /// invalidated takes its private caches along.
    pub fn flush_l3(&mut self, ccx: CcxId, op: FlushOp) -> FlushWork {
        each!(mut self, m => m.flush_l3(ccx.index(), op))
    }

    /// Cycles of the part of a WBINVD or WBNOINVD that is always there.
    #[must_use]
    pub fn flush_fixed_cycles(&self, op: FlushOp) -> u64 {
        each!(self, m => traffic::fixed(&m.timing, m.effective(op)))
    }

    /// Cycles that a pCPU of this CCX spends on a piece of work that it begins at `now`: the tag walk, then the
    /// dirty lines at the rate of the slowest of core, CCD link and DRAM, behind what these have to do already.
    /// The work is theirs to do from now on.
    ///
    /// A whole flush is the fixed part, then the private part's work, then the shared part's, each begun when
    /// the one before has ended.
    pub fn flush_cycles(&mut self, ccx: CcxId, op: FlushOp, work: &FlushWork, now: u64) -> u64 {
        each!(mut self, m => {
            let start = now + traffic::walk(&m.timing, m.effective(op), work.lines_walked);
            let ends = (m.topology.ccd_of(ccx), m.topology.socket_of(ccx));
            let end = m.traffic.drain(&m.timing, ends, work, start);
            m.flights.wave(now, start, end);
            end - now
        })
    }

    /// Writes one line back and invalidates it, in every cache; under every tag on an SME_COHERENT part, under
    /// the tag of the mapping elsewhere. Not told as a move.
    pub fn clflush(&mut self, line: LineRef, now: u64) -> Found {
        each!(mut self, m => m.clflush(line, now))
    }

    /// Writes one line back, if it is dirty, and leaves it clean where it is: under every tag on an SME_COHERENT part,
    /// under the tag of the mapping elsewhere. Not told as a move.
    pub fn clwb(&mut self, line: LineRef, now: u64) -> Found {
        each!(mut self, m => m.clwb(line, now))
    }

    /// Writes back and invalidates a line under one tag in every cache, whatever the part says of other tags. Not
    /// told as a move.
    pub fn flush_tag(&mut self, line: LineRef, now: u64) -> Found {
        each!(mut self, m => m.flush_tag(line, now))
    }

    /// The dirty lines in a core's private caches or in a CCX's L3. In time of the dirty lines.
    #[must_use]
    pub fn dirty_in(&self, place: Place) -> Vec<LineRef> {
        each!(self, m => m.dirty_in(place))
    }

    /// A core's private caches, or a CCX's L3, lose every line, and nothing is written back. Not told as moves.
    pub fn drop_all(&mut self, place: Place) {
        each!(mut self, m => m.drop_all(place));
    }

    /// Thousandths of a cycle that a CLFLUSH takes which found this.
    #[must_use]
    pub fn clflush_cycles_milli(&self, found: Found) -> u64 {
        let timing = self.timing();
        match found {
            Found::Absent => timing.clflush_absent_milli,
            Found::Clean => timing.clflush_clean_milli,
            Found::Dirty => timing.clflush_dirty_milli,
        }
    }

    /// Whether the moves of a line's copies are told, under whatever tag. Off at first.
    pub fn set_tracked(&mut self, phys: u32, on: bool) {
        each!(mut self, m => m.set_tracked(phys, on));
    }

    /// From now on, write-backs are in flight until their DRAM channel has accepted them, as
    /// [`Hierarchy::in_flight`] says, and the move of a tracked line that leaves an L3 ends there. Whoever flushes
    /// whole caches must then ask [`Hierarchy::flush_cycles`] for what each part takes.
    pub fn keep_flights(&mut self) {
        each!(mut self, m => {
            let lines = m.directory.memory_lines();
            m.flights.keep(lines);
        });
    }

    /// The write-backs of a line that are under way at `now`: under which tag, out of which CCX, and when its DRAM
    /// channel accepts each. What a probe or a device's write takes out of the caches is none of them: whoever wants
    /// that waits for it.
    #[must_use]
    pub fn in_flight(&self, phys: u32, now: u64) -> Vec<(Tag, CcxId, u64)> {
        each!(self, m => m.flights.of(phys, now))
    }

    /// When the last write-back out of a CCX arrives that is under way at `now`; `now` if none is.
    #[must_use]
    pub fn flights_end(&self, ccx: CcxId, now: u64) -> u64 {
        each!(self, m => m.flights.end(ccx.index(), now))
    }

    /// The moves of tracked lines' copies, in order, since the list was last emptied: what room was made for.
    /// What an access, a flush, a CLFLUSH or a DMA does to the line it is about is not among them. Exact with
    /// victim L3s; an inclusive L3's copies are no copies of the lattice.
    pub fn moves(&mut self) -> &mut Vec<Move> {
        each!(mut self, m => &mut m.moves)
    }

    /// Who holds a line, exactly: cores in order, then L3s.
    #[must_use]
    pub fn holders(&self, line: LineRef) -> Vec<(Place, Held)> {
        each!(self, m => m.holders(line))
    }

    /// Which private caches and L3s hold dirty lines of a tag, and how many. In time of all dirty lines.
    #[must_use]
    pub fn dirty_holders_of_tag(&self, tag: Tag) -> DirtyHolders {
        each!(self, m => m.dirty_holders(tag))
    }

    /// Dirty lines of a tag, in all caches. In time of all dirty lines.
    #[must_use]
    pub fn dirty_lines_of_tag(&self, tag: Tag) -> u64 {
        let holders = self.dirty_holders_of_tag(tag);
        let cores: u64 = holders.cores.iter().map(|(_, n)| n).sum();
        let l3s: u64 = holders.l3s.iter().map(|(_, n)| n).sum();
        cores + l3s
    }

    /// Lines of capacity whose tags a flush by a core walks: its L2 and its CCX's L3.
    #[must_use]
    pub fn walked_lines(&self) -> u64 {
        each!(self, m => m.l2.shape().lines() + m.l3.shape().lines())
    }

    /// Counts since the caches were made.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        each!(self, m => &m.stats)
    }

    /// Whether the L3 includes its private caches, so that its copies are none of the lattice.
    #[must_use]
    pub fn inclusive(&self) -> bool {
        each!(self, m => m.inclusive)
    }

    /// The part's times.
    #[must_use]
    pub fn timing(&self) -> &Timing {
        each!(self, m => &m.timing)
    }

    /// The part's topology.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        each!(self, m => &m.topology)
    }

    /// The cycles of a source, without what a store or encryption adds.
    #[must_use]
    pub fn latency(&self, source: Source) -> u32 {
        each!(self, m => m.latency(source))
    }

    /// Checks everything that must hold of the caches, in time of all lines held: for tests.
    ///
    /// # Panics
    /// Something does not hold; the message names the line and the rule.
    pub fn check_invariants(&self) {
        each!(self, m => m.check_invariants());
    }
}

#[cfg(test)]
mod tests;
