//! Write-backs in flight: what a device finds in DRAM while a line is on its way, and when it is there.

use cache_model::event::EventKind;
use cache_model::lattice::Psp;
use cache_model::part::{CacheShape, L3Kind, Level, Part};
use sev_arch::WbinvdScope;
use sim_core::state::Plain;

use super::*;

const GUEST: Tag = Tag(1);
const CORE: CoreId = CoreId(0);
/// The line that the tests are about.
const LINE: u32 = 7;

struct Bed {
    memory: TimedMemory,
    now: u64,
    told: Vec<EventKind>,
}

impl Bed {
    fn new(part: &Part) -> Bed {
        let topology = part.topology();
        let shape = Shape {
            ccx_of_core: (0..topology.cores()).map(|c| topology.ccx_of(CoreId(c))).collect(),
            ccxs: topology.ccxs(),
            tags: 2,
            sme_coherent: part.sme_coherent(),
            evict_clean_on_read: true,
            scope: WbinvdScope::CoreAndL3,
            keep_clean: true,
            psp: Psp::default(),
            keys_change: false,
            drops: false,
            guest_must_evict: false,
            dma_snoops: true,
            socket_of_ccx: (0..topology.ccxs()).map(|x| topology.socket_of(CcxId(x))).collect(),
            flushes_fly: false,
            flat: false,
        };
        let caches = Hierarchy::with(part, &part.timing(Level::Typical), 1 << 20);
        Bed { memory: TimedMemory::new(caches, shape, false, 1 << 20), now: 0, told: Vec::new() }
    }

    fn genoa() -> Bed {
        Bed::new(&Part::builtin("genoa").unwrap())
    }

    /// A step so many cycles after the beginning of the last one: its cycles, and what arrived before it.
    fn step(
        &mut self,
        later: u64,
        f: impl FnOnce(&mut TimedMemory, &mut Plain<'_>, &mut Effects),
    ) -> (u64, Vec<MoveKind>) {
        self.now += later;
        self.memory.begin(self.now);
        let mut fx = Effects::default();
        f(&mut self.memory, &mut Plain { words: &mut [] }, &mut fx);
        let moved = std::mem::take(&mut self.memory.moved);
        self.told.extend(moved.iter().flat_map(|m| &m.1).chain(&fx.events).map(|event| event.kind));
        (fx.cycles, moved.into_iter().map(|m| m.0.kind).collect())
    }

    fn write(&mut self, line: u32) {
        self.step(0, |memory, store, fx| memory.cpu(store, line, (CORE, GUEST), Access::Write, true, fx));
    }

    /// The page of the line is freed, and a device gets it and writes it.
    fn device_gets(&mut self, later: u64) {
        self.step(later, |memory, store, fx| {
            memory.change_owner(store, LINE);
            memory.dma(store, LINE, Access::Write, true, fx);
        });
    }

    fn flush(&mut self, op: FlushOp) -> u64 {
        self.step(1000, |memory, store, fx| memory.flush_private(store, CORE, op, fx)).0
    }
}

const ARRIVED: [MoveKind; 1] = [MoveKind::FlightToDram(CcxId(0))];

#[test]
fn what_a_flush_writes_back_lands_on_a_devices_data_if_the_page_is_reused_before_it_arrives() {
    for op in [FlushOp::Wbinvd, FlushOp::Wbnoinvd] {
        let mut bed = Bed::genoa();
        bed.write(LINE);
        let takes = bed.flush(op);
        bed.device_gets(1);
        assert_eq!(bed.told, [], "{op:?}: on its way");
        let (_, moved) = bed.step(takes, |_, _, _| {});
        assert_eq!((moved, &bed.told[..]), (ARRIVED.to_vec(), &[EventKind::Clobber][..]), "{op:?}");
        // A policy that waits for the flush's end loses nothing.
        let mut bed = Bed::genoa();
        bed.write(LINE);
        let takes = bed.flush(op);
        bed.device_gets(takes);
        bed.step(1_000_000, |_, _, _| {});
        assert_eq!(bed.told, [], "{op:?}");
    }
}

#[test]
fn a_device_reads_what_dram_held_while_the_line_is_on_its_way() {
    let mut bed = Bed::genoa();
    bed.write(LINE);
    bed.memory.track(LINE);
    let takes = bed.flush(FlushOp::Wbinvd);
    assert_eq!(bed.memory.copy(LINE, Place::Private(CORE), GUEST), Copy::ABSENT);
    assert!(bed.memory.dram(LINE).0.old, "not in DRAM yet");
    assert!(Memory::<Plain<'_>>::dirty(&bed.memory, &mut Plain { words: &mut [] }, LINE, GUEST));
    bed.step(takes - 1, |_, _, _| {});
    assert!(bed.memory.dram(LINE).0.old, "not yet");
    bed.step(1, |_, _, _| {});
    assert!(!bed.memory.dram(LINE).0.old, "there");
    assert!(!Memory::<Plain<'_>>::dirty(&bed.memory, &mut Plain { words: &mut [] }, LINE, GUEST));
}

#[test]
fn the_lines_of_a_flush_arrive_one_after_the_other() {
    let mut bed = Bed::genoa();
    let lines = 0..100;
    for line in lines.clone() {
        bed.write(line);
        bed.memory.track(line);
    }
    let takes = bed.flush(FlushOp::Wbinvd);
    let core_milli = bed.memory.caches.timing().write_back_core_milli;
    bed.step(takes - 100 * core_milli / 2000, |_, _, _| {});
    let there = lines.filter(|line| !bed.memory.dram(*line).0.old).count();
    assert!((40..60).contains(&there), "{there} of 100 halfway through the write-backs");
}

#[test]
fn an_eviction_is_in_flight_until_its_channel_accepts_it_and_the_end_of_a_flush_waits_for_it() {
    let small = |sets, ways| CacheShape::lru(sets, ways);
    let part = Part::builtin("genoa").unwrap();
    let part = part.with_caches(small(1, 1), small(1, 1), small(1, 1), L3Kind::Victim);
    let mut bed = Bed::new(&part);
    bed.write(LINE);
    bed.memory.track(LINE);
    // Two other lines push it into the L3 and out of it.
    bed.write(LINE + 1);
    bed.write(LINE + 2);
    let flight = Place::Flight(CcxId(0));
    assert_eq!(bed.memory.copy(LINE, flight, GUEST).held, Held::Dirty);
    assert!(bed.memory.dram(LINE).0.old);
    let due = bed.memory.flying.first().unwrap().0;
    assert!(due > bed.now, "it takes its time");
    let end = |bed: &mut Bed, later: u64, core: CoreId| {
        let mut done = false;
        let (_, moved) = bed.step(later, |memory, store, _| done = memory.flush_waits(store, core).is_none());
        (done, bed.memory.wake_at.take(), moved)
    };
    assert_eq!(end(&mut bed, 0, CORE), (false, Some(due), Vec::new()));
    // What leaves in the meantime is not waited for.
    bed.write(LINE + 3);
    let later = due - bed.now;
    let (done, wake_at, moved) = end(&mut bed, later, CORE);
    assert_eq!((done, wake_at), (true, None));
    assert!(moved.starts_with(&ARRIVED) && bed.memory.flying.is_empty(), "{moved:?}");
    assert!(!bed.memory.dram(LINE).0.old);
    // A flush on another CCX waits for nothing of it.
    let mut bed = Bed::new(&part);
    for line in LINE..LINE + 3 {
        bed.write(line);
    }
    let other = CoreId(part.topology().cores_per_ccx());
    assert_eq!(end(&mut bed, 0, other), (true, None, Vec::new()));
}

#[test]
fn an_access_of_the_same_tag_waits_for_the_write_back() {
    let mut bed = Bed::genoa();
    bed.write(LINE);
    bed.memory.track(LINE);
    let takes = bed.flush(FlushOp::Wbinvd);
    bed.step(1, |memory, store, fx| memory.cpu(store, LINE, (CORE, GUEST), Access::Read, true, fx));
    assert!(!bed.memory.dram(LINE).0.old);
    bed.write(LINE);
    let (_, moved) = bed.step(takes, |_, _, _| {});
    assert_eq!((moved, &bed.told[..]), (Vec::new(), &[][..]), "it has arrived before, and is dirty again");
    assert!(bed.memory.dram(LINE).0.old);
}

#[test]
fn clflush_ends_when_its_line_has_arrived() {
    let mut bed = Bed::genoa();
    let alone = {
        bed.write(LINE);
        bed.step(1000, |memory, store, fx| memory.clflush(store, LINE, fx)).0
    };
    // Another core of the CCD has the link write back a megabyte.
    let neighbour = CoreId(1);
    for line in 100..16_000 {
        bed.step(0, |memory, store, fx| memory.cpu(store, line, (neighbour, GUEST), Access::Write, true, fx));
    }
    bed.write(LINE);
    bed.step(100_000, |memory, store, fx| memory.flush_private(store, neighbour, FlushOp::Wbnoinvd, fx));
    let (takes, _) = bed.step(100_000, |memory, store, fx| memory.clflush(store, LINE, fx));
    assert!(takes > 10 * alone, "{takes} cycles behind a flush, {alone} without");
    bed.step(takes - 1, |memory, store, _| memory.change_owner(store, LINE));
    assert!(bed.memory.tracked(LINE), "still on its way");
    bed.step(1, |memory, store, _| memory.change_owner(store, LINE));
    assert!(!bed.memory.tracked(LINE), "arrived");
}

#[test]
fn what_a_page_is_cleared_of_before_it_changes_hands_has_arrived_by_then() {
    for handing_on in [true, false] {
        let mut bed = Bed::genoa();
        bed.write(LINE);
        bed.device_gets(1);
        bed.memory.handing_on = handing_on;
        bed.step(1_000_000, |memory, store, fx| memory.clflush(store, LINE, fx));
        let told: &[EventKind] = if handing_on { &[EventKind::Clobber] } else { &[] };
        assert_eq!(bed.told, told, "handing on: {handing_on}");
        bed.step(1_000_000, |_, _, _| {});
        assert_eq!(bed.told, [EventKind::Clobber], "it arrives once");
    }
}

#[test]
fn who_asks_for_no_flights_gets_none() {
    let mut bed = Bed::genoa();
    bed.memory.time_no_flights();
    bed.write(LINE);
    bed.flush(FlushOp::Wbinvd);
    bed.device_gets(1);
    bed.step(1_000_000, |_, _, _| {});
    assert_eq!(bed.told, []);
}

#[test]
fn a_flush_reaches_the_caches_of_its_scope_and_no_others() {
    let small = |sets, ways| CacheShape::lru(sets, ways);
    let part = Part::builtin("genoa").unwrap();
    let part = part.with_caches(small(1, 1), small(1, 1), small(1, 2), L3Kind::Victim);
    let topology = *part.topology();
    let (ccx, half) = (topology.cores_per_ccx(), topology.cores() / 2);
    for (scope, reaches) in [
        (WbinvdScope::Core, [true, false, false, false, false, false]),
        (WbinvdScope::CoreAndL3, [true, true, false, false, false, false]),
        (WbinvdScope::Ccx, [true, true, true, false, false, false]),
        (WbinvdScope::Package, [true, true, true, true, true, false]),
    ] {
        let mut bed = Bed::new(&part);
        bed.memory.shape.scope = scope;
        // The second line of a core pushes the first into its L3.
        for (line, core) in [(0, 0), (1, 0), (2, 1), (3, ccx), (4, ccx), (5, half)] {
            let by = (CoreId(core), GUEST);
            bed.step(0, |memory, store, fx| memory.cpu(store, line, by, Access::Write, true, fx));
        }
        // Own core, own L3, another core of the CCX, another CCX's core and L3, the other socket.
        let lines = [1, 0, 2, 4, 3, 5];
        bed.step(1000, |memory, store, fx| memory.flush_private(store, CORE, FlushOp::Wbinvd, fx));
        bed.step(1000, |memory, store, fx| memory.flush_shared(store, CORE, FlushOp::Wbinvd, fx));
        let left = lines.map(|phys| bed.memory.caches.holders(LineRef { phys, tag: GUEST }));
        assert_eq!(left.map(|holders| holders.is_empty()), reaches, "{scope:?}");
    }
}

#[test]
fn ccxs_that_flush_for_one_pcpu_do_it_at_the_same_time() {
    let takes = |scope, core: CoreId| {
        let mut bed = Bed::genoa();
        bed.memory.shape.scope = scope;
        for line in 0..10_000 {
            bed.step(0, |memory, store, fx| memory.cpu(store, line, (core, GUEST), Access::Write, true, fx));
        }
        let whole =
            bed.step(100_000, |memory, store, fx| memory.flush_shared(store, CORE, FlushOp::Wbinvd, fx)).0;
        let own =
            bed.step(1_000_000, |memory, store, fx| memory.flush_private(store, core, FlushOp::Wbinvd, fx)).0;
        (whole, own)
    };
    let (one, _) = takes(WbinvdScope::CoreAndL3, CORE);
    let (all, _) = takes(WbinvdScope::Package, CORE);
    assert_eq!(one, all, "the other L3s hold nothing, and are walked meanwhile");
}
