//! The timed caches behind the machine's interface, with the lattice kept for the lines that events can concern.

use std::collections::{BTreeMap, BTreeSet};

use cache_model::event::Event;
use cache_model::hierarchy::{FlushWork, Found, Hierarchy, LineRef, Served, Source};
use cache_model::lattice::{Copy, Dram, Held, Lines, Move, MoveKind, Place, Shape};
use sev_arch::{Access, CcxId, CoreId, FlushOp, Tag};
use sim_core::state::{SlotId, Store};

use crate::memory::{Effects, Memory};

/// A tracked line's state in the lattice.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Record {
    copies: BTreeMap<(Place, Tag), Copy>,
    dram: Dram,
    truth: bool,
}

impl Default for Record {
    fn default() -> Self {
        Record { copies: BTreeMap::new(), dram: Dram::UNTOLD, truth: false }
    }
}

/// The records as the lattice sees them. A line without a record holds nothing.
#[derive(Clone, Debug, Default)]
struct Records(BTreeMap<u32, Record>);

impl Lines for Records {
    fn copy(&self, line: u32, place: Place, tag: Tag) -> Copy {
        self.0.get(&line).and_then(|r| r.copies.get(&(place, tag))).copied().unwrap_or_default()
    }

    fn set_copy(&mut self, line: u32, place: Place, tag: Tag, copy: Copy) {
        let copies = &mut self.0.entry(line).or_default().copies;
        if copy.held == Held::Absent {
            copies.remove(&(place, tag));
        } else {
            copies.insert((place, tag), copy);
        }
    }

    fn dram(&self, line: u32) -> Dram {
        self.0.get(&line).map_or(Dram::UNTOLD, |r| r.dram)
    }

    fn set_dram(&mut self, line: u32, dram: Dram) {
        self.0.entry(line).or_default().dram = dram;
    }

    fn truth(&self, line: u32) -> bool {
        self.0.get(&line).is_some_and(|r| r.truth)
    }

    fn set_truth(&mut self, line: u32, truth: bool) {
        self.0.entry(line).or_default().truth = truth;
    }
}

/// The timed caches, and the lattice for tracked lines.
#[derive(Clone, Debug)]
pub struct TimedMemory {
    /// The caches.
    pub caches: Hierarchy,
    shape: Shape,
    records: Records,
    /// Line-granular tracking: a line of a page is tracked once its page has changed hands with a copy left.
    track_all: bool,
    /// Lines that there are.
    lines: u32,
    /// The instant of the step at hand.
    pub now: u64,
    /// The instant for which the step at hand has waited: what arrives by then is there for what follows in the step.
    waited: u64,
    /// Until when the end of a flush by a core waits for what had left when it was first come to.
    ending: BTreeMap<CoreId, u64>,
    /// When to try again a step that only waits for time to pass.
    pub(super) wake_at: Option<u64>,
    /// Tracked lines' write-backs that are under way: when each arrives, of which line, under which tag, out of which CCX.
    flying: BTreeSet<(u64, u32, Tag, CcxId)>,
    /// Moves of tracked lines that the accesses made room by, for the trace.
    pub moved: Vec<(Move, Vec<Event>)>,
    /// Whether the step at hand gives a page to its next owner: its CLFLUSHes are no policy's.
    pub handing_on: bool,
    /// Lines that the texts' flushes wrote back.
    pub flushed_lines: u64,
    /// Lines that they invalidated.
    pub invalidated_lines: u64,
    /// Lines that CLFLUSH found when pages were handed on.
    pub handed_on_lines: u64,
    /// The tags of the lines that the last part of a whole-cache flush wrote back, one bit each.
    pub flushed_tags: u64,
    /// Misses of lines that a flush had taken.
    pub refills: u64,
    /// Of them, those that DRAM served.
    pub refills_of_dram: u64,
    /// Requests that left a core or may have, by what served them (indexed by [`Source`]).
    pub served: [u64; 8],
    /// Thousandths of a cycle of CLFLUSHes that have not made a whole one yet.
    milli: u64,
    /// Lines that devices wrote.
    pub dma_writes: u64,
    /// Lines that devices read from DRAM.
    pub dma_reads: u64,
}

impl TimedMemory {
    /// The caches of a part; with `track_all`, every line is tracked from the start.
    #[must_use]
    pub fn new(mut caches: Hierarchy, shape: Shape, track_all: bool, lines: u32) -> TimedMemory {
        caches.keep_flights();
        let shape = Shape { flushes_fly: true, ..shape };
        let mut memory = TimedMemory {
            caches,
            shape,
            records: Records::default(),
            track_all,
            lines,
            now: 0,
            waited: 0,
            ending: BTreeMap::new(),
            wake_at: None,
            flying: BTreeSet::new(),
            moved: Vec::new(),
            handing_on: false,
            flushed_lines: 0,
            invalidated_lines: 0,
            handed_on_lines: 0,
            flushed_tags: 0,
            refills: 0,
            refills_of_dram: 0,
            served: [0; 8],
            milli: 0,
            dma_writes: 0,
            dma_reads: 0,
        };
        if track_all {
            for line in 0..lines {
                memory.caches.set_tracked(line, true);
                memory.records.0.insert(line, Record::default());
            }
        }
        memory
    }

    /// From now on, write-backs of flushes arrive at once, and others when a schedule says so.
    pub(super) fn time_no_flights(&mut self) {
        self.shape.flushes_fly = false;
    }

    /// A step begins at `now`: what has arrived in DRAM by then is there.
    pub(super) fn begin(&mut self, now: u64) {
        (self.now, self.waited) = (now, now);
        while let Some(first) = self.flying.first().copied().filter(|first| first.0 <= now) {
            self.arrive(first);
        }
    }

    /// A write-back of a tracked line arrives, unless an access of its tag has waited for it before.
    fn arrive(&mut self, flight: (u64, u32, Tag, CcxId)) {
        self.flying.remove(&flight);
        let (_, line, tag, ccx) = flight;
        let m = Move { line, tag, kind: MoveKind::FlightToDram(ccx) };
        if self.tracked(line) && self.shape.can_move(&self.records, m) {
            let mut events = Vec::new();
            self.shape.make_move(&mut self.records, m, &mut events);
            self.moved.push((m, events));
        }
    }

    /// A tracked line's write-backs may have left: notes when they arrive. One that has left no trace has arrived by now.
    fn follow_flights(&mut self, line: u32) {
        let Some(record) = self.records.0.get(&line) else { return };
        let flights: Vec<(Tag, CcxId)> = record
            .copies
            .keys()
            .filter_map(|(place, tag)| if let Place::Flight(ccx) = place { Some((*tag, *ccx)) } else { None })
            .collect();
        if flights.is_empty() || !self.shape.flushes_fly {
            return;
        }
        let under_way = self.caches.in_flight(line, self.now);
        for (tag, ccx) in flights {
            let noted = self.flying.iter().find(|f| (f.1, f.2, f.3) == (line, tag, ccx)).copied();
            let at = under_way.iter().find(|f| (f.0, f.1) == (tag, ccx)).map(|f| f.2);
            if let (Some(old), Some(_)) = (noted, at) {
                self.flying.remove(&old);
            }
            if noted.is_none() || at.is_some() {
                self.flying.insert((at.unwrap_or(self.now), line, tag, ccx));
            }
        }
    }

    /// The copies of a line that are in caches, and, where write-backs take time, those on their way out.
    fn copies(&self, line: u32) -> Vec<(Place, Tag, Held)> {
        let mut copies = Vec::new();
        for tag in self.shape.all_tags() {
            let holders = self.caches.holders(LineRef { phys: line, tag });
            copies.extend(holders.into_iter().map(|(place, held)| (place, tag, held)));
        }
        if self.shape.flushes_fly {
            for (tag, ccx, _) in self.caches.in_flight(line, self.waited) {
                // who made the line dirty again has waited for it
                if !copies.iter().any(|copy| copy.1 == tag && copy.2 == Held::Dirty) {
                    copies.push((Place::Flight(ccx), tag, Held::Dirty));
                }
            }
        }
        copies
    }

    /// An access carried out by the caches, and whether it is a refill: a miss of a line that a flush had taken.
    #[inline]
    pub fn request(&mut self, core: CoreId, line: LineRef, access: Access, now: u64) -> (Served, bool) {
        let before = self.caches.stats().refill_misses;
        let served = self.caches.access(core, line, access, now);
        let refill = self.caches.stats().refill_misses != before;
        self.served[served.source as usize] += 1;
        self.refills += u64::from(refill);
        self.refills_of_dram += u64::from(refill && served.source >= Source::DramLocal);
        (served, refill)
    }

    /// A device reads or writes lines of its own buffers: when the last of them is there.
    pub fn device(&mut self, lines: std::ops::Range<u32>, access: Access, now: u64) -> u64 {
        let mut last = now;
        for line in lines {
            let (found, wait) = self.caches.dma_timed(line, access, now);
            self.count_dma(found, access);
            last = last.max(now + u64::from(wait));
        }
        last
    }

    fn count_dma(&mut self, found: Found, access: Access) {
        match access {
            Access::Write => self.dma_writes += 1,
            Access::Read => self.dma_reads += u64::from(found != Found::Dirty),
        }
    }

    /// Whether an event can concern the line, so that its accesses must be steps.
    #[inline]
    #[must_use]
    pub fn tracked(&self, line: u32) -> bool {
        !self.records.0.is_empty() && self.records.0.contains_key(&line)
    }

    /// Whether no line at all is tracked.
    #[must_use]
    pub fn tracks_nothing(&self) -> bool {
        self.records.0.is_empty()
    }

    /// The copies of a tracked line, in a fixed order; for checks against the shadow.
    #[must_use]
    pub fn copy(&self, line: u32, place: Place, tag: Tag) -> Copy {
        self.records.copy(line, place, tag)
    }

    /// A digest of what the lattice holds of the first `count` lines.
    #[must_use]
    pub fn digest(&self, count: u32) -> u64 {
        self.shape.digest(&self.records, count)
    }

    /// What DRAM holds of a tracked line, and whether it has a truth.
    #[must_use]
    pub fn dram(&self, line: u32) -> (Dram, bool) {
        (self.records.dram(line), self.records.truth(line))
    }

    /// Lets the lattice follow the moves that the caches made on their own.
    pub fn follow_moves(&mut self) {
        if self.caches.moves().is_empty() {
            return;
        }
        for m in std::mem::take(self.caches.moves()) {
            if self.tracked(m.line) {
                debug_assert!(self.shape.can_move(&self.records, m), "the lattice cannot make {m:?}");
                let mut events = Vec::new();
                self.shape.make_move(&mut self.records, m, &mut events);
                self.moved.push((m, events));
                if matches!(m.kind, MoveKind::L3ToFlight(_)) {
                    self.follow_flights(m.line);
                }
            }
        }
    }

    /// Whether the caches and the lattice agree on who holds a tracked line.
    #[must_use]
    pub fn agrees(&self, line: u32) -> bool {
        self.shape.all_tags().all(|tag| {
            let mut holders = self.caches.holders(LineRef { phys: line, tag });
            holders.sort_unstable();
            let mut copies: Vec<(Place, Held)> = self
                .shape
                .places()
                .filter(|p| !matches!(p, Place::Flight(_)))
                .map(|p| (p, self.records.copy(line, p, tag).held))
                .filter(|c| c.1 != Held::Absent)
                .collect();
            copies.sort_unstable();
            holders == copies
        })
    }

    /// Begins to track a line that no event could concern so far: what is held of it is the truth.
    fn track(&mut self, line: u32) {
        if self.tracked(line) {
            return;
        }
        let mut record = Record { truth: true, ..Record::default() };
        for (place, tag, held) in self.copies(line) {
            record.copies.insert((place, tag), Copy::new(held, false));
            if held == Held::Dirty {
                record.dram = Dram::new(tag, true);
            } else if !record.dram.old {
                record.dram.key = tag;
            }
        }
        self.records.0.insert(line, record);
        self.caches.set_tracked(line, true);
        self.follow_flights(line);
    }

    /// Whether a line is held under a tag, or on its way out.
    fn held(&self, line: u32, tag: Tag) -> bool {
        self.copies(line).iter().any(|copy| copy.1 == tag)
    }

    fn evict(&mut self, line: u32, tag: Tag, fx: &mut Effects) {
        let found = self.caches.flush_tag(LineRef { phys: line, tag }, self.now + fx.cycles);
        self.take_clflush(found, fx);
        self.flushed_lines += u64::from(found == Found::Dirty);
        self.invalidated_lines += u64::from(found != Found::Absent);
    }

    /// The cycles of a CLFLUSH: most take a few and a fraction.
    fn take_clflush(&mut self, found: Found, fx: &mut Effects) {
        self.milli += self.caches.clflush_cycles_milli(found);
        fx.cycles += self.milli / 1000;
        self.milli %= 1000;
    }

    /// A CCX's share of a flush, begun at this instant: its cycles.
    fn flush_cost(&mut self, ccx: CcxId, op: FlushOp, work: &FlushWork, begun: u64) -> u64 {
        self.flushed_lines += work.lines_written_back();
        self.invalidated_lines += work.invalidated;
        self.flushed_tags |= work.tags;
        self.caches.flush_cycles(ccx, op, work, begun)
    }

    /// Begins to track a line if copies of it are left, and stops if there are none.
    fn retrack(&mut self, line: u32) {
        if self.track_all {
            return;
        }
        let mut record = Record::default();
        for (place, tag, held) in self.copies(line) {
            record.copies.insert((place, tag), Copy::new(held, false));
        }
        let held = !record.copies.is_empty();
        if held {
            self.records.0.insert(line, record);
        } else {
            self.records.0.remove(&line);
        }
        self.caches.set_tracked(line, held);
        if held {
            self.follow_flights(line);
        }
    }

    /// CLFLUSH ends with a fence: behind the last line's arrival.
    fn fence(&mut self, line: u32, fx: &mut Effects) {
        let flights = self.caches.in_flight(line, self.now);
        let last = flights.iter().map(|flight| flight.2 - self.now).max().unwrap_or(0);
        fx.cycles = fx.cycles.max(last);
        self.waited = self.waited.max(self.now + last);
        if self.tracked(line) {
            self.follow_flights(line);
        }
    }

    /// A move forced by a schedule: the caches make it as far as they know of it. Their L3s must be victims: what
    /// an inclusive one loses, its private caches lose, and that is no move of the lattice.
    pub fn force(&mut self, m: Move) {
        assert!(!self.caches.inclusive(), "forced moves need victim L3s, and this part's is inclusive");
        let line = LineRef { phys: m.line, tag: m.tag };
        match m.kind {
            MoveKind::PrivateToL3(c) | MoveKind::PrivateToDram(c) => self.caches.force_out(c, line, true),
            MoveKind::PrivateDrop(c) => self.caches.force_out(c, line, false),
            MoveKind::L3ToFlight(x) | MoveKind::L3Drop(x) => self.caches.force_out_l3(x, line),
            MoveKind::FlightToDram(_) => {}
        }
        self.caches.moves().clear();
    }
}

impl<S: Store> Memory<S> for TimedMemory {
    fn cpu(
        &mut self,
        _: &mut S,
        line: u32,
        (core, tag): (CoreId, Tag),
        access: Access,
        owner: bool,
        fx: &mut Effects,
    ) {
        let now = self.now + fx.cycles;
        let (served, _) = self.request(core, LineRef { phys: line, tag }, access, now);
        fx.cycles += u64::from(served.cycles);
        self.follow_moves();
        if self.tracked(line) {
            self.shape.cpu_access(&mut self.records, line, (core, tag), access, owner, &mut fx.events);
        }
    }

    fn dma(&mut self, _: &mut S, line: u32, access: Access, owner: bool, fx: &mut Effects) {
        let found = self.caches.dma(line, access, self.now);
        self.count_dma(found, access);
        self.follow_moves();
        if self.tracked(line) {
            self.shape.dma(&mut self.records, line, access, owner, &mut fx.events);
        }
    }

    fn flush_begin(&mut self, _: &mut S, _: CoreId, op: FlushOp, fx: &mut Effects) {
        fx.cycles += self.caches.flush_fixed_cycles(op);
    }

    fn private_empty(&self, _: &mut S, core: CoreId) -> bool {
        let mut cores = self.shape.flushed_cores(core);
        let alone = cores.next() == Some(core) && cores.next().is_none();
        let empty = |r: &Record| r.copies.keys().all(|k| k.0 != Place::Private(core));
        self.track_all && alone && self.records.0.values().all(empty)
    }

    fn flush_private(&mut self, _: &mut S, core: CoreId, op: FlushOp, fx: &mut Effects) {
        // Where the scope has several CCXs, each does its share at the same time, over its own link.
        let mut shares: BTreeMap<CcxId, Vec<CoreId>> = BTreeMap::new();
        for c in self.shape.flushed_cores(core) {
            shares.entry(self.shape.ccx_of_core[c.index()]).or_default().push(c);
        }
        let (begun, mut longest) = (self.now + fx.cycles, 0);
        self.flushed_tags = 0;
        for (ccx, cores) in shares {
            let mut work = FlushWork::default();
            for c in cores {
                work.add(&self.caches.flush_private(c, op));
            }
            longest = longest.max(self.flush_cost(ccx, op, &work, begun));
        }
        fx.cycles += longest;
        for line in self.records.0.keys().copied().collect::<Vec<u32>>() {
            self.shape.flush_private(&mut self.records, line, core, op, &mut fx.events);
            self.follow_flights(line);
        }
    }

    fn flush_shared(&mut self, _: &mut S, core: CoreId, op: FlushOp, fx: &mut Effects) {
        let (begun, mut longest) = (self.now + fx.cycles, 0);
        self.flushed_tags = 0;
        for x in self.shape.flushed_l3s(core).collect::<Vec<CcxId>>() {
            let work = self.caches.flush_l3(x, op);
            longest = longest.max(self.flush_cost(x, op, &work, begun));
        }
        fx.cycles += longest;
        for line in self.records.0.keys().copied().collect::<Vec<u32>>() {
            self.shape.flush_shared(&mut self.records, line, core, op, &mut fx.events);
            self.follow_flights(line);
        }
    }

    fn flush_waits(&mut self, _: &mut S, core: CoreId) -> Option<SlotId> {
        if self.shape.flushes_fly {
            let ccxs: Vec<CcxId> = self.shape.flushed_l3s(core).collect();
            let last =
                || ccxs.iter().map(|x| self.caches.flights_end(*x, self.now)).max().unwrap_or(self.now);
            let until = self.ending.remove(&core).unwrap_or_else(last);
            if until > self.now {
                self.ending.insert(core, until);
                self.wake_at = Some(until);
                return Some(SlotId(0));
            }
            // What has left since has not been waited for, and makes no difference here: it is in memory.
            let due: Vec<_> = self.flying.iter().filter(|f| ccxs.contains(&f.3)).copied().collect();
            for flight in due {
                self.arrive(flight);
            }
        }
        // Otherwise only a schedule leaves a line in flight, and only it lets the line arrive.
        let waits = self
            .records
            .0
            .keys()
            .any(|line| self.shape.first_in_flight(&self.records, *line, core).is_some());
        waits.then_some(SlotId(0))
    }

    fn clflush(&mut self, _: &mut S, line: u32, fx: &mut Effects) {
        let found = self.caches.clflush(LineRef { phys: line, tag: Tag::HOST }, self.now);
        self.take_clflush(found, fx);
        if self.handing_on {
            self.handed_on_lines += u64::from(found != Found::Absent);
        } else {
            self.flushed_lines += u64::from(found == Found::Dirty);
            self.invalidated_lines += u64::from(found != Found::Absent);
        }
        if self.tracked(line) {
            self.shape.clflush(&mut self.records, line, &mut fx.events);
            if self.handing_on && self.shape.flushes_fly {
                // The page changes hands within the step, behind the wait.
                self.flying.retain(|flight| flight.1 != line);
                self.shape.land(&mut self.records, line, &mut fx.events);
            }
        }
        self.fence(line, fx);
    }

    fn clwb(&mut self, _: &mut S, line: u32, fx: &mut Effects) {
        let found = self.caches.clwb(LineRef { phys: line, tag: Tag::HOST }, self.now);
        self.take_clflush(found, fx);
        self.flushed_lines += u64::from(found == Found::Dirty);
        if self.tracked(line) {
            self.shape.clwb(&mut self.records, line, &mut fx.events);
        }
        self.fence(line, fx);
    }

    fn psp(&mut self, _: &mut S, line: u32, tag: Tag, access: Access, owner: bool, fx: &mut Effects) {
        let psp = self.shape.psp;
        let evicts = |t: Tag| t == tag && psp.evicts_own_tag || t == Tag::HOST && psp.evicts_host_lines;
        if self.shape.all_tags().any(|t| !evicts(t) && self.held(line, t)) {
            self.track(line);
        }
        for t in self.shape.all_tags().filter(|t| evicts(*t)) {
            self.caches.flush_tag(LineRef { phys: line, tag: t }, self.now);
        }
        if self.tracked(line) {
            self.shape.psp(&mut self.records, line, tag, access, owner, &mut fx.events);
        }
    }

    fn flush_tag(&mut self, _: &mut S, line: u32, tag: Tag, fx: &mut Effects) {
        self.evict(line, tag, fx);
        if self.tracked(line) {
            self.shape.flush_tag(&mut self.records, line, tag, &mut fx.events);
        }
        self.fence(line, fx);
    }

    fn guest_evicts(&mut self, _: &mut S, line: u32, tag: Tag, fx: &mut Effects) {
        for other in self.shape.all_tags().filter(|t| *t != tag) {
            self.evict(line, other, fx);
        }
        if self.tracked(line) {
            self.shape.guest_evicts(&mut self.records, line, tag, &mut fx.events);
        }
    }

    fn invd(&mut self, _: &mut S, core: CoreId, fx: &mut Effects) {
        let private = self.shape.flushed_cores(core).map(Place::Private);
        let places: Vec<Place> = private.chain(self.shape.flushed_l3s(core).map(Place::L3)).collect();
        for place in &places {
            for lost in self.caches.dirty_in(*place) {
                self.track(lost.phys);
            }
        }
        for place in &places {
            self.caches.drop_all(*place);
        }
        fx.cycles += self.caches.flush_fixed_cycles(FlushOp::Wbinvd);
        for line in self.records.0.keys().copied().collect::<Vec<u32>>() {
            self.shape.invd(&mut self.records, line, core);
        }
    }

    fn new_key(&mut self, _: &mut S, tag: Tag) {
        for line in 0..self.lines {
            if self.held(line, tag) {
                self.track(line);
            }
        }
        for line in self.records.0.keys().copied().collect::<Vec<u32>>() {
            self.shape.new_key(&mut self.records, line, tag);
        }
    }

    fn fabric_flush(&mut self, _: &mut S, fx: &mut Effects) {
        for line in self.records.0.keys().copied().collect::<Vec<u32>>() {
            self.shape.fabric_flush(&mut self.records, line, &mut fx.events);
        }
    }

    fn dirty(&self, _: &mut S, line: u32, tag: Tag) -> bool {
        if self.tracked(line) {
            return self.shape.dirty_anywhere(&self.records, line, tag);
        }
        self.copies(line).iter().any(|copy| copy.1 == tag && copy.2 == Held::Dirty)
    }

    fn concerns(&self, store: &mut S, line: u32, owner: Tag) -> bool {
        if self.tracked(line) {
            return self.shape.concerns(&self.records, line, owner);
        }
        self.shape.all_tags().any(|t| t != owner && Memory::dirty(self, store, line, t))
    }

    fn cover(&self, _: &mut S, tag: Tag, busy: &[bool]) -> Vec<CoreId> {
        let holders = self.caches.dirty_holders_of_tag(tag);
        let private: Vec<CoreId> = holders.cores.iter().map(|c| c.0).collect();
        let shared: Vec<CcxId> = holders.l3s.iter().map(|x| x.0).collect();
        self.shape.cover(&private, &shared, busy)
    }

    fn change_owner(&mut self, _: &mut S, line: u32) {
        self.retrack(line);
        if self.tracked(line) {
            self.shape.change_owner(&mut self.records, line);
        }
    }

    fn each_move(&self, _: &mut S, of: Option<u32>, f: &mut dyn FnMut(Move)) {
        for line in self.records.0.keys().filter(|l| of.is_none_or(|of| of == **l)) {
            self.shape.each_move(&self.records, *line, f);
        }
    }

    fn make_move(&mut self, _: &mut S, m: Move, fx: &mut Effects) {
        self.force(m);
        self.shape.make_move(&mut self.records, m, &mut fx.events);
    }
}

#[cfg(test)]
mod tests;
