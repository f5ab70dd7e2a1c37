//! Tests of the timed caches: cases counted by hand, and random programs against two references: plain lists
//! (every hit, miss, holder and count) and the lattice (every copy after every access and move).

mod naive;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::lattice::{Copy, Dram, Lines, Shape};
use crate::part::{CacheShape, L3Kind};
use naive::Naive;

const HOST: Tag = Tag::HOST;
const READ: Access = Access::Read;
const WRITE: Access = Access::Write;

fn tiny(cores: u16, kind: L3Kind, coherent: bool) -> Part {
    let name = if kind == L3Kind::Inclusive { "bars-16" } else { "rome" };
    let shape = |sets, ways| CacheShape::lru(sets, ways);
    Part::builtin(name)
        .and_then(|p| p.with_pcpus(cores))
        .expect("fits")
        .with_caches(shape(1, 2), shape(2, 2), shape(2, 4), kind)
        .with_sme_coherent(coherent)
}

fn hierarchy(part: &Part) -> Hierarchy {
    Hierarchy::with(part, &part.timing(Level::Typical), 1 << 16)
}

fn line(phys: u32, tag: u8) -> LineRef {
    LineRef { phys, tag: Tag(tag) }
}

fn core(n: u16) -> CoreId {
    CoreId(n)
}

fn private(n: u16, held: Held) -> (Place, Held) {
    (Place::Private(CoreId(n)), held)
}

#[test]
fn a_line_goes_through_the_states_of_moesi() {
    let mut h = hierarchy(&tiny(8, L3Kind::Victim, false));
    let a = line(4, 0);
    assert_eq!(h.try_hit(core(0), a, READ), None);
    let served = h.access(core(0), a, READ, 0);
    assert_eq!((served.source, served.cycles), (Source::DramLocal, h.latency(Source::DramLocal)));
    // Exclusive: a store needs nobody
    assert_eq!(h.try_hit(core(0), a, WRITE), Some(h.timing().l1_hit + h.timing().store));
    assert_eq!(h.holders(a), [private(0, Held::Dirty)]);
    // Modified becomes Owned, the reader in the same CCX gets Shared, DRAM is not written
    assert_eq!(h.access(core(1), a, READ, 0).source, Source::OtherCoreSameCcx);
    assert_eq!(h.holders(a), [private(0, Held::Dirty), private(1, Held::Clean)]);
    // a reader in another CCX is served by the owner
    assert_eq!(h.access(core(4), a, READ, 0).source, Source::OtherCcx);
    assert_eq!(h.try_hit(core(1), a, WRITE), None);
    // Shared becomes Modified: the farthest copy is in the other CCX
    let served = h.access(core(1), a, WRITE, 0);
    assert_eq!((served.source, h.holders(a)), (Source::OtherCcx, vec![private(1, Held::Dirty)]));
    assert_eq!(h.stats().upgrades, 1);
    assert_eq!(h.stats().invalidated_private, [0, 0, 2]);
    assert_eq!(h.stats().written_back, [0, 0, 0]);
    assert_eq!(h.stats().dram_bytes_read, 64);
    h.check_invariants();
}

#[test]
fn victims_fill_the_l3_and_come_back() {
    // L1 2 lines, L2 2 sets of 2, L3 2 sets of 4: even lines share a set
    let mut h = hierarchy(&tiny(4, L3Kind::Victim, false));
    for phys in [0, 2, 4] {
        h.set_tracked(phys, true);
        h.access(core(0), line(phys, 0), WRITE, 0);
    }
    assert_eq!(h.holders(line(0, 0)), [(Place::L3(CcxId(0)), Held::Dirty)]);
    let to_l3 = |phys| Move { line: phys, tag: HOST, kind: crate::lattice::MoveKind::PrivateToL3(core(0)) };
    assert_eq!(std::mem::take(h.moves()), [to_l3(0)]);
    assert_eq!(h.access(core(1), line(0, 0), READ, 0).source, Source::L3);
    assert_eq!(h.holders(line(0, 0)), [private(1, Held::Dirty)]);
    // with its state: core 1 may write without asking
    assert!(h.try_hit(core(1), line(0, 0), WRITE).is_some());
    assert!(h.moves().is_empty());
    // six more even lines push 2 and 4 out of the L2, then line 2 out of the L3
    for phys in [6, 8, 10, 12, 14, 16] {
        h.access(core(0), line(phys, 0), WRITE, 0);
    }
    use crate::lattice::MoveKind::{FlightToDram, L3ToFlight};
    let moves: Vec<_> = std::mem::take(h.moves()).iter().map(|m| (m.line, m.kind)).collect();
    assert_eq!(
        moves,
        [
            (2, to_l3(2).kind),
            (4, to_l3(4).kind),
            (2, L3ToFlight(CcxId(0))),
            (2, FlightToDram(CcxId(0))),
            (4, L3ToFlight(CcxId(0))),
            (4, FlightToDram(CcxId(0))),
        ]
    );
    assert_eq!(h.stats().written_back, [2, 0, 0]);
    h.check_invariants();
}

#[test]
fn wbinvd_empties_and_wbnoinvd_cleans_only_its_own_caches() {
    let mut h = hierarchy(&tiny(8, L3Kind::Victim, false));
    for (c, phys) in [(0, 0), (0, 1), (0, 2), (0, 4), (1, 3), (4, 5)] {
        h.access(core(c), line(phys, 1), WRITE, 0);
    }
    let dirty = |h: &Hierarchy| h.dirty_holders_of_tag(Tag(1));
    assert_eq!(dirty(&h).cores, [(core(0), 3), (core(1), 1), (core(4), 1)]);
    assert_eq!(dirty(&h).l3s, [(CcxId(0), 1)]);
    assert_eq!(h.dirty_lines_of_tag(Tag(1)), 6);
    assert_eq!(h.dirty_lines_of_tag(HOST), 0);

    let work = h.flush_private(core(0), FlushOp::Wbnoinvd);
    assert_eq!((work.lines_written_back(), work.invalidated, work.lines_walked), (3, 0, 4));
    assert_eq!(h.holders(line(1, 1)), [private(0, Held::Clean)]);
    // still exclusive: the next store needs nobody
    assert!(h.try_hit(core(0), line(1, 1), WRITE).is_some());

    let work = h.flush_private(core(0), FlushOp::Wbinvd);
    assert_eq!((work.lines_written_back(), work.invalidated), (1, 3));
    let work = h.flush_l3(CcxId(0), FlushOp::Wbinvd);
    assert_eq!((work.lines_written_back(), work.invalidated, work.lines_walked), (1, 1, 8));
    // the neighbour in the CCX and the other CCX keep theirs
    assert_eq!(dirty(&h).cores, [(core(1), 1), (core(4), 1)]);
    assert!(h.holders(line(0, 1)).is_empty());
    h.check_invariants();

    // three lines come back, each a refill; a line that was never there is not
    for phys in [0, 1, 2, 6] {
        assert_eq!(h.access(core(0), line(phys, 1), READ, 0).source, Source::DramLocal);
    }
    assert_eq!(h.stats().refill_misses, 3);
    assert!(
        h.try_hit(core(0), line(6, 1), WRITE).is_some(),
        "nobody else has it, whatever the directory thought"
    );
    assert_eq!(h.stats().written_back, [0, 5, 0]);
    h.check_invariants();
}

#[test]
fn tags_are_unrelated_without_sme_coherent_and_exclude_each_other_with_it() {
    let (guest, host) = (line(7, 1), line(7, 0));
    let mut h = hierarchy(&tiny(8, L3Kind::Victim, false));
    h.access(core(0), guest, WRITE, 0);
    h.access(core(0), host, WRITE, 0);
    assert_eq!(h.holders(guest), [private(0, Held::Dirty)]);
    assert_eq!(h.holders(host), [private(0, Held::Dirty)]);
    assert_eq!(h.clflush(host, 0), Found::Dirty);
    assert_eq!((h.holders(guest).len(), h.holders(host).len()), (1, 0));
    assert_eq!(h.dma(7, WRITE, 0), Found::Absent);
    assert_eq!(h.holders(guest), [private(0, Held::Dirty)]);
    h.check_invariants();

    let mut h = hierarchy(&tiny(8, L3Kind::Victim, true));
    h.access(core(0), guest, WRITE, 0);
    let served = h.access(core(4), host, READ, 0);
    assert_eq!(served.source, Source::DramLocal);
    assert!(h.holders(guest).is_empty());
    assert_eq!(h.stats().written_back, [0, 0, 1]);
    assert_eq!(h.dma(7, READ, 0), Found::Clean);
    h.access(core(0), guest, WRITE, 0);
    // DMA is not coherent with a guest's lines even here; CLFLUSH of the host's mapping is
    assert_eq!(h.dma(7, WRITE, 0), Found::Absent);
    assert_eq!(h.clflush(host, 0), Found::Dirty);
    assert!(h.holders(guest).is_empty());
    h.check_invariants();
}

#[test]
fn a_flush_costs_its_walk_and_its_dirty_lines_behind_the_evictions() {
    let part = Part::builtin("genoa").and_then(|p| p.with_pcpus(16)).expect("fits");
    let mut h = Hierarchy::new(&part);
    let t = h.timing().clone();
    // 16,384 lines of L2 and 524,288 of L3 at 0.25 ns are 135,168 ns at 3.5 GHz
    assert_eq!(h.walked_lines(), 540_672);
    let walk = FlushWork { lines_walked: h.walked_lines(), ..FlushWork::default() };
    assert_eq!(h.flush_cycles(CcxId(0), FlushOp::Wbinvd, &walk, 10), 473_088);
    assert_eq!(h.flush_fixed_cycles(FlushOp::Wbinvd), 3500);
    // one core drains at its own rate
    let dirty = FlushWork { written_back: [1000, 0], ..FlushWork::default() };
    assert_eq!(h.flush_cycles(CcxId(0), FlushOp::Wbinvd, &dirty, 0), t.write_back_core_milli);
    // two at once share the CCD's link, another CCD has its own
    let both = (2000 * t.write_back_ccd_milli).div_ceil(1000);
    assert_eq!(h.flush_cycles(CcxId(0), FlushOp::Wbnoinvd, &dirty, 0), both);
    assert_eq!(h.flush_cycles(CcxId(1), FlushOp::Wbinvd, &dirty, 0), t.write_back_core_milli);
}

/// Many cores in order of time, whose turns are looked at ahead as wholes: each core's accesses in their order, and the
/// same caches and clocks as by single accesses in the order that came out.
#[test]
fn many_cores_in_order_of_time_are_their_accesses_one_by_one() {
    let part = Part::builtin("genoa").and_then(|p| p.with_pcpus(40)).expect("fits");
    let mut x = 1u64;
    let mut below = |n: u64| {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((x >> 33) % n).expect("small")
    };
    let mut step = |core: u16| {
        // mostly its own lines, sometimes everybody's
        let phys = if below(8) != 0 { 4096 + 1024 * u32::from(core) + below(600) } else { below(512) };
        super::Step::new(CoreId(core), line(phys, 0), if below(3) == 0 { WRITE } else { READ })
    };
    let programs: Vec<Vec<super::Step>> =
        (0..40u16).map(|core| (0..700 + core).map(|_| step(core)).collect()).collect();
    let slices: Vec<&[super::Step]> = programs.iter().map(Vec::as_slice).collect();
    let (mut ours, mut clocks, mut log) = (hierarchy(&part), [0; 40], Vec::new());
    ours.in_time_order(&slices, &mut clocks, |step| log.push(step));
    for (core, program) in (0u16..).zip(&programs) {
        let own: Vec<_> = log.iter().copied().filter(|step| step.core() == CoreId(core)).collect();
        assert_eq!(own, *program, "core{core}");
    }
    let (mut single, mut times) = (hierarchy(&part), [0u64; 40]);
    for step in log {
        let now = &mut times[step.core().index()];
        *now += u64::from(single.access(step.core(), step.line(), step.access(), *now).cycles);
    }
    assert_eq!(clocks, times);
    assert_eq!(ours.stats(), single.stats());
    ours.check_invariants();
}

#[test]
#[should_panic(expected = "beyond 4 GiB or 64 tags")]
fn a_line_beyond_the_limits_is_refused() {
    let mut h = hierarchy(&tiny(1, L3Kind::Victim, false));
    h.try_hit(core(0), line(1 << 26, 0), READ);
}

/// One step of a random program.
#[derive(Clone, Copy, Debug)]
enum Step {
    Access(u16, u32, u8, Access),
    FlushPrivate(u16, FlushOp),
    FlushL3(u16, FlushOp),
    Clflush(u32, u8),
    Clwb(u32, u8),
    Dma(u32, Access),
}

fn steps(cores: u16, ccxs: u16, tags: u8, flushes: bool) -> impl Strategy<Value = Vec<Step>> {
    let access = prop_oneof![Just(READ), Just(WRITE)];
    let op = prop_oneof![Just(FlushOp::Wbinvd), Just(FlushOp::Wbnoinvd)];
    // lines of two sets, and two of the other socket's memory
    let phys = prop_oneof![8 => 0u32..24, 1 => Just(1u32 << 15), 1 => Just((1u32 << 15) + 1)];
    let weight = u32::from(flushes);
    let step = prop_oneof![
        40 => (0..cores, phys.clone(), 0..tags, access.clone()).prop_map(|(c, p, t, a)| Step::Access(c, p, t, a)),
        weight => (0..cores, op.clone()).prop_map(|(c, op)| Step::FlushPrivate(c, op)),
        weight => (0..ccxs, op).prop_map(|(x, op)| Step::FlushL3(x, op)),
        weight => (phys.clone(), 0..tags).prop_map(|(p, t)| Step::Clflush(p, t)),
        weight => (phys.clone(), 0..tags).prop_map(|(p, t)| Step::Clwb(p, t)),
        weight => (phys, access).prop_map(|(p, a)| Step::Dma(p, a)),
    ];
    prop::collection::vec(step, 1..300)
}

fn all_lines(tags: u8) -> impl Iterator<Item = LineRef> {
    (0..24).chain([1 << 15, (1 << 15) + 1]).flat_map(move |phys| (0..tags).map(move |tag| line(phys, tag)))
}

/// Runs a program on the caches and on the lists; every answer, holder and count must agree.
fn agree_with_lists(part: &Part, tags: u8, program: &[Step]) {
    let mut h = hierarchy(part);
    let mut naive = Naive::new(part);
    for (n, step) in program.iter().enumerate() {
        match *step {
            Step::Access(c, phys, tag, access) => {
                let at = line(phys, tag);
                let want = naive.access(usize::from(c), at, access);
                if n % 2 == 0
                    && let Some(cycles) = h.try_hit(core(c), at, access)
                {
                    let store = if access == WRITE { h.timing().store } else { 0 };
                    assert!(want <= Source::L2, "step {n}: {step:?}");
                    assert_eq!(cycles, h.latency(want) + store, "step {n}: {step:?}");
                } else {
                    let served = h.access(core(c), at, access, n as u64);
                    assert_eq!(served.source, want, "step {n}: {step:?}");
                    assert!(n % 2 == 1 || want > Source::L2, "step {n}: {step:?}");
                }
            }
            Step::FlushPrivate(c, op) => {
                let before = naive.written_back[1];
                let work = h.flush_private(core(c), op);
                naive.flush_private(usize::from(c), op);
                assert_eq!(work.lines_written_back(), naive.written_back[1] - before, "step {n}: {step:?}");
            }
            Step::FlushL3(x, op) => {
                h.flush_l3(CcxId(x), op);
                naive.flush_l3(usize::from(x), op);
            }
            Step::Clflush(phys, tag) => {
                h.clflush(line(phys, tag), 0);
                naive.clflush(line(phys, tag));
            }
            Step::Clwb(phys, tag) => {
                h.clwb(line(phys, tag), 0);
                naive.clwb(line(phys, tag));
            }
            Step::Dma(phys, access) => {
                h.dma(phys, access, 0);
                if access == WRITE {
                    naive.dma_write(phys);
                }
            }
        }
        for at in all_lines(tags) {
            assert_eq!(h.holders(at), naive.holders(at), "{at:?} after step {n}: {step:?}");
        }
        h.check_invariants();
    }
    let s = h.stats();
    assert_eq!((s.l2_misses(), s.l2_hits, s.upgrades), (naive.misses, naive.l2_hits, naive.upgrades));
    assert_eq!(s.written_back, naive.written_back);
    let private = s.invalidated_private;
    assert_eq!([private[Cause::Coherence as usize], private[Cause::Eviction as usize]], naive.invalidated);
}

/// The lattice's lines in a map.
#[derive(Default)]
struct Map {
    copies: BTreeMap<(u32, Place, Tag), Copy>,
    dram: BTreeMap<u32, Dram>,
    truth: BTreeMap<u32, bool>,
}

impl Lines for Map {
    fn copy(&self, line: u32, place: Place, tag: Tag) -> Copy {
        self.copies.get(&(line, place, tag)).copied().unwrap_or(Copy::ABSENT)
    }

    fn set_copy(&mut self, line: u32, place: Place, tag: Tag, copy: Copy) {
        self.copies.insert((line, place, tag), copy);
    }

    fn dram(&self, line: u32) -> Dram {
        self.dram.get(&line).copied().unwrap_or(Dram::UNTOLD)
    }

    fn set_dram(&mut self, line: u32, dram: Dram) {
        self.dram.insert(line, dram);
    }

    fn truth(&self, line: u32) -> bool {
        self.truth.get(&line).copied().unwrap_or(false)
    }

    fn set_truth(&mut self, line: u32, truth: bool) {
        self.truth.insert(line, truth);
    }
}

/// Runs a program on the caches; the lattice, given the accesses and the moves that were told, must hold the same
/// copies after each step. With one tag, nothing may go wrong.
fn agree_with_lattice(part: &Part, tags: u8, program: &[Step]) {
    let mut h = hierarchy(part);
    let t = *part.topology();
    let shape = Shape {
        ccx_of_core: (0..t.cores()).map(|c| t.ccx_of(CoreId(c))).collect(),
        ccxs: t.ccxs(),
        tags,
        sme_coherent: part.sme_coherent(),
        evict_clean_on_read: true,
        scope: sev_arch::WbinvdScope::CoreAndL3,
        keep_clean: true,
        psp: crate::lattice::Psp::default(),
        keys_change: false,
        drops: false,
        flat: false,
        guest_must_evict: false,
        dma_snoops: true,
        socket_of_ccx: Vec::new(),
        flushes_fly: false,
    };
    let mut map = Map::default();
    let mut events = Vec::new();
    for at in all_lines(1) {
        h.set_tracked(at.phys, true);
    }
    for (n, step) in program.iter().enumerate() {
        match *step {
            Step::Access(c, phys, tag, access) => {
                h.access(core(c), line(phys, tag), access, 0);
                shape.cpu_access(&mut map, phys, (core(c), Tag(tag)), access, true, &mut events);
            }
            Step::FlushPrivate(c, op) => {
                h.flush_private(core(c), op);
                for at in all_lines(1) {
                    shape.flush_private(&mut map, at.phys, core(c), op, &mut events);
                }
            }
            Step::FlushL3(x, op) => {
                h.flush_l3(CcxId(x), op);
                let first = t.cores_of(CcxId(x)).next().expect("a CCX has a core");
                for at in all_lines(1) {
                    shape.flush_shared(&mut map, at.phys, first, op, &mut events);
                }
            }
            Step::Clflush(phys, _) => {
                h.clflush(line(phys, 0), 0);
                shape.clflush(&mut map, phys, &mut events);
            }
            Step::Clwb(phys, _) => {
                h.clwb(line(phys, 0), 0);
                shape.clwb(&mut map, phys, &mut events);
            }
            Step::Dma(phys, access) => {
                h.dma(phys, access, 0);
                shape.dma(&mut map, phys, access, true, &mut events);
            }
        }
        for told in std::mem::take(h.moves()) {
            assert!(shape.can_move(&map, told), "step {n}: {step:?} told {told:?}");
            shape.make_move(&mut map, told, &mut events);
        }
        for at in all_lines(tags) {
            let want: Vec<_> = shape
                .places()
                .map(|p| (p, map.copy(at.phys, p, at.tag).held))
                .filter(|(_, held)| *held != Held::Absent)
                .collect();
            assert_eq!(h.holders(at), want, "{at:?} after step {n}: {step:?}");
        }
        if tags == 1 {
            assert_eq!(events, [], "step {n}: {step:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn victim_l3_equals_lists(program in steps(8, 2, 3, true), coherent: bool) {
        agree_with_lists(&tiny(8, L3Kind::Victim, coherent), 3, &program);
    }

    #[test]
    fn two_sockets_equal_lists(program in steps(68, 17, 2, true), coherent: bool) {
        agree_with_lists(&tiny(68, L3Kind::Victim, coherent), 2, &program);
    }

    #[test]
    fn inclusive_l3_equals_lists(program in steps(6, 1, 2, true), coherent: bool) {
        agree_with_lists(&tiny(6, L3Kind::Inclusive, coherent), 2, &program);
    }

    #[test]
    fn inclusive_l3_without_flushes_equals_lists(program in steps(6, 1, 1, false)) {
        agree_with_lists(&tiny(6, L3Kind::Inclusive, true), 1, &program);
    }

    #[test]
    fn copies_move_as_the_lattice_says(program in steps(8, 2, 3, true), coherent: bool) {
        agree_with_lattice(&tiny(8, L3Kind::Victim, coherent), 3, &program);
    }

    #[test]
    fn nothing_goes_wrong_within_a_tag(program in steps(8, 2, 1, true)) {
        agree_with_lattice(&tiny(8, L3Kind::Victim, false), 1, &program);
    }
}
