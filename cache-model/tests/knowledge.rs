//! The timed caches against what is known of the machine: latencies, bandwidths, and bounds that no flush can beat.

mod common;

use cache_model::hierarchy::{Hierarchy, LineRef, Source};
use cache_model::part::{Level, Part};
use common::{LATER, PARTS, caches, fill, flush, line, share, stream};
use proptest::prelude::*;
use sev_arch::{Access, CoreId, FlushOp};

/// Whether `got` is within so many thousandths of `want`.
fn near(got: u64, want: u64, per_mille: u64) -> bool {
    got.abs_diff(want) * 1000 <= want * per_mille
}

/// A chain of dependent loads by one core: thousandths of a cycle a load.
fn chase(h: &mut Hierarchy, core: CoreId, lines: &[LineRef], now: u64) -> u64 {
    let mut clock = now;
    for at in lines {
        clock += u64::from(h.access(core, *at, Access::Read, clock).cycles);
    }
    (clock - now) * 1000 / lines.len() as u64
}

/// A fixed order of `n` lines from `first` that jumps about: steps of a number without a common divisor.
fn order(first: u32, n: u32) -> Vec<LineRef> {
    let step = (n * 5 / 13) | 1;
    let n = if n.is_multiple_of(step) { n - 1 } else { n };
    (0..n).map(|i| line(first + i.wrapping_mul(step) % n)).collect()
}

/// Lines of memory whose home is this socket, of the blocks of 2 MiB from `block` on: sockets take turns.
fn at_home(socket: u32, block: u32, n: u32) -> Vec<LineRef> {
    (0..n).map(|i| line(((2 * (block + (i >> 15)) + socket) << 15) + (i & 0x7fff))).collect()
}

#[test]
fn the_ladder_of_latencies_is_that_of_the_part() {
    for name in PARTS {
        let part = Part::builtin(name).unwrap();
        let t = part.timing(Level::Typical);
        let mut h = caches(&part);
        let topology = *part.topology();
        let core = CoreId(0);
        let l1 = u32::try_from(part.l1d().lines()).unwrap();
        let l2 = u32::try_from(part.l2().lines()).unwrap();
        let mut now = 0;
        let mut climb = |what: &str, h: &mut Hierarchy, lines: &[LineRef], want: u32| {
            now += LATER;
            let got = chase(h, core, lines, now);
            assert!(near(got, 1000 * u64::from(want), 30), "{name}, {what}: {got} for {want} cycles");
        };
        // Half the L1; the lines of the L2 that the L1 has lost again; lines that only the L3 has.
        let small = order(0, l1 / 2);
        chase(&mut h, core, &small, 0);
        climb("L1", &mut h, &small, t.l1_hit);
        let middle = order(0, l2 * 3 / 4);
        chase(&mut h, core, &middle, 0);
        let outside: Vec<LineRef> = middle[..middle.len() - 2 * l1 as usize].to_vec();
        climb("L2", &mut h, &outside, t.l2_hit);
        let large: Vec<LineRef> = (0..3 * l2).map(line).collect();
        chase(&mut h, core, &large, 0);
        let outside: Vec<LineRef> = large[..l2 as usize].to_vec();
        climb("L3", &mut h, &outside, t.l3_hit);
        // Memory that nobody has touched.
        let sev = t.sev_extra;
        climb("DRAM", &mut h, &at_home(0, 100, 10_000), t.dram_local + sev);
        climb("the other socket's DRAM", &mut h, &at_home(1, 100, 10_000), t.dram_remote + sev);
        // Lines that another core has written.
        let others = [
            ("a core of the CCX", 1, t.same_ccx),
            ("another CCX", topology.cores_per_ccx(), t.other_ccx),
            ("the other socket", topology.cores() - 1, t.other_socket),
        ];
        for (block, (what, other, want)) in (200u32..).step_by(10).zip(others) {
            let written = at_home(0, block, l1 / 2);
            for at in &written {
                h.access(CoreId(other), *at, Access::Write, 0);
            }
            climb(what, &mut h, &written, want);
        }
    }
}

#[test]
fn the_ladder_says_where_the_data_came_from() {
    let part = Part::builtin("genoa").unwrap();
    let mut h = caches(&part);
    let mut seen = Vec::new();
    for (writer, at) in
        [(None, line(0)), (None, line(1 << 15)), (Some(1), line(1)), (Some(8), line(2)), (Some(191), line(3))]
    {
        if let Some(core) = writer {
            h.access(CoreId(core), at, Access::Write, 0);
        }
        seen.push(h.access(CoreId(0), at, Access::Read, 0).source);
    }
    use Source::{DramLocal, DramRemote, OtherCcx, OtherCoreSameCcx, OtherSocket};
    assert_eq!(seen, [DramLocal, DramRemote, OtherCoreSameCcx, OtherCcx, OtherSocket]);
}

/// Bytes that go through in thousandths of a GB/s, of lines of 64 bytes in so many cycles.
fn rate(lines: u64, cycles: u64, mhz: u64) -> u64 {
    // bytes a cycle x MHz = MB/s
    64 * lines * mhz / cycles.max(1)
}

/// The bandwidth of 1, 2, 4... cores never falls, ends at the ceiling, and never is above it.
fn saturates(what: &str, ceiling: u64, curve: &[u64]) {
    for pair in curve.windows(2) {
        assert!(pair[1] * 1000 >= pair[0] * 990, "{what}: more cores get less: {curve:?}");
    }
    assert!(curve.iter().all(|r| *r <= ceiling + ceiling / 100), "{what}: above {ceiling}: {curve:?}");
    let last = *curve.last().unwrap();
    assert!(near(last, ceiling, 30), "{what}: {curve:?} does not end at {ceiling}");
}

#[test]
fn bandwidth_saturates_at_the_ceilings_of_the_part() {
    const LINES: u32 = 12_000;
    // As many misses outstanding as a core can have: fewer need not fill the links.
    const OUTSTANDING: usize = 40;
    for name in PARTS {
        let part = Part::builtin(name).and_then(|p| p.with_sockets(1)).unwrap();
        let t = part.timing(Level::Typical);
        let topology = *part.topology();
        let mhz = t.clock_mhz;
        let of = |milli: u64| 64_000 * mhz / milli;
        let reading = |cores: &[u16], first: u32| -> u64 {
            let mut h = caches(&part);
            let streams: Vec<_> = cores
                .iter()
                .map(|c| {
                    let from = first + u32::from(*c) * LINES;
                    (CoreId(*c), (from..from + LINES).map(line).collect::<Vec<_>>())
                })
                .collect();
            let cycles = stream(&mut h, &streams, Access::Read, OUTSTANDING, 0);
            rate(u64::from(LINES) * cores.len() as u64, cycles, mhz)
        };
        // The cores of one CCD.
        let in_ccd = topology.cores_per_ccx() * topology.ccx_per_ccd();
        let ccd: Vec<u16> = (0..in_ccd).collect();
        let curve: Vec<u64> = [1, 2, usize::from(in_ccd)].iter().map(|n| reading(&ccd[..*n], 0)).collect();
        saturates(&format!("{name}, a CCD's link in"), of(t.ccd_read_milli), &curve);
        // One core of each CCD, then two.
        let ccds = topology.cores() / in_ccd;
        let one: Vec<u16> = (0..ccds).map(|c| c * in_ccd).collect();
        let most: Vec<u16> =
            (0..ccds).flat_map(|c| (0..in_ccd.min(3)).map(move |i| c * in_ccd + i)).collect();
        let curve = [reading(&one[..1], 0), reading(&one[..one.len() / 2], 0), reading(&most, 0)];
        let dram = of(t.channel_read_milli) * u64::from(topology.dram_channels());
        let links = of(t.ccd_read_milli) * u64::from(ccds);
        saturates(&format!("{name}, a socket's DRAM"), dram.min(links), &curve);
        // Lines that the L3 holds, which the cores of the CCX wrote and lost.
        let l2 = u32::try_from(part.l2().lines()).unwrap();
        let cores: Vec<u16> = (0..topology.cores_per_ccx()).collect();
        let mut h = caches(&part);
        let each = ((share(&part) - l2) / 2).min(2 * l2);
        fill(&mut h, cores.iter().map(|c| CoreId(*c)), l2 + each);
        let streams: Vec<_> = cores
            .iter()
            .map(|c| {
                let from = u32::from(*c) * (l2 + each);
                (CoreId(*c), (from..from + each.min(LINES)).map(line).collect::<Vec<_>>())
            })
            .collect();
        let cycles = stream(&mut h, &streams, Access::Read, OUTSTANDING, LATER);
        let got = rate(u64::from(each.min(LINES)) * cores.len() as u64, cycles, mhz);
        assert!(near(got, of(t.l3_milli), 30), "{name}, the L3: {got} for {}", of(t.l3_milli));
    }
}

#[test]
fn reads_from_the_other_socket_saturate_at_the_link() {
    for name in PARTS {
        let part = Part::builtin(name).unwrap();
        let t = part.timing(Level::Typical);
        let topology = *part.topology();
        let mhz = t.clock_mhz;
        let of = |milli: u64| 64_000 * mhz / milli;
        let in_ccd = topology.cores_per_ccx() * topology.ccx_per_ccd();
        let cores: Vec<u16> = (0..topology.cores() / 2).filter(|c| c % in_ccd < 3).collect();
        let mut h = caches(&part);
        const LINES: u32 = 6_000;
        let streams: Vec<_> = cores.iter().map(|c| (CoreId(*c), at_home(1, u32::from(*c), LINES))).collect();
        let cycles = stream(&mut h, &streams, Access::Read, 40, 0);
        let got = rate(u64::from(LINES) * cores.len() as u64, cycles, mhz);
        let ceilings = [
            of(t.socket_link_milli),
            of(t.channel_read_milli) * u64::from(topology.dram_channels()),
            of(t.ccd_read_milli) * u64::from(topology.cores() / 2 / in_ccd),
        ];
        let ceiling = *ceilings.iter().min().unwrap();
        assert!(near(got, ceiling, 30), "{name}: {got} for {ceilings:?}");
    }
}

#[test]
fn flushes_at_once_write_back_at_the_rate_of_the_link() {
    for name in PARTS {
        let part = Part::builtin(name).and_then(|p| p.with_sockets(1)).unwrap();
        let t = part.timing(Level::Typical);
        let topology = *part.topology();
        let of = |milli: u64| 64_000 * t.clock_mhz / milli;
        let mut h = caches(&part);
        let in_ccd = topology.cores_per_ccx() * topology.ccx_per_ccd();
        let cores: Vec<CoreId> = (0..in_ccd).map(CoreId).collect();
        let l2 = u32::try_from(part.l2().lines()).unwrap();
        fill(&mut h, cores.iter().copied(), l2);
        let clean = {
            let mut empty = caches(&part);
            flush(&mut empty, &cores, FlushOp::Wbnoinvd, LATER).0
        };
        let (cycles, lines) = flush(&mut h, &cores, FlushOp::Wbnoinvd, LATER);
        assert_eq!(lines, u64::from(l2) * u64::from(in_ccd), "{name}: the L2s were full of dirty lines");
        let got = rate(lines, cycles - clean, t.clock_mhz);
        let channels = of(t.channel_write_milli) * u64::from(topology.dram_channels());
        let ceiling = of(t.write_back_ccd_milli).min(channels);
        assert!(got <= ceiling + ceiling / 100, "{name}: {got} above {ceiling}");
        assert!(near(got, ceiling, 30), "{name}: {got} for {ceiling}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The bound that no machine beats: dirty bytes over the bandwidth between the caches and DRAM. And more dirty
    /// lines never take less time.
    #[test]
    fn no_flush_is_faster_than_its_dirty_bytes_or_faster_with_more_of_them(
        part in 0..PARTS.len(),
        cores in 1u16..4,
        lines in prop::collection::vec(0u32..60_000, 2..5),
        socket in 0u32..2,
        invalidates: bool,
    ) {
        let part = Part::builtin(PARTS[part]).unwrap();
        let t = part.timing(Level::Typical);
        let op = if invalidates { FlushOp::Wbinvd } else { FlushOp::Wbnoinvd };
        let mut amounts = lines;
        amounts.sort_unstable();
        let mut before = 0;
        for n in amounts {
            let mut h = caches(&part);
            for core in 0..cores {
                for at in at_home(socket, 40 * u32::from(core), n) {
                    h.access(CoreId(core), at, Access::Write, 0);
                }
            }
            let flushers: Vec<CoreId> = (0..cores).map(CoreId).collect();
            let dirty = h.dirty_lines_of_tag(common::GUEST);
            let (cycles, written) = flush(&mut h, &flushers, op, LATER);
            prop_assert_eq!(written, dirty);
            prop_assert_eq!(h.dirty_lines_of_tag(common::GUEST), 0);
            let channel = t.channel_write_milli / u64::from(part.topology().dram_channels());
            let slowest = t.write_back_ccd_milli.max(channel);
            let slowest = if socket == 1 { slowest.max(t.socket_link_milli) } else { slowest };
            prop_assert!(cycles * 1000 >= dirty * slowest, "{} lines in {} cycles", dirty, cycles);
            if cores == 1 {
                prop_assert!(cycles * 1000 >= dirty * t.write_back_core_milli);
            }
            prop_assert!(cycles >= before, "{} lines in {} cycles, fewer took {}", dirty, cycles, before);
            before = cycles;
        }
    }
}
