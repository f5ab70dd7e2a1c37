//! How fast the timed caches are on this host: accesses in turn on a few patterns, or a recorded trace.
//!
//! `hier_speed [--part NAME] [--pcpus N] [--accesses N] [TRACE]`; a trace is little-endian words of 64 bits: bit 63
//! write, bits 48 to 55 core, bits 0 to 47 byte address.
#![allow(clippy::print_stdout, reason = "an example prints its result")]

use std::time::Instant;

use cache_model::hierarchy::{Hierarchy, LineRef, Source, Step};
use cache_model::part::{Level, Part};
use sev_arch::{Access, CcxId, CoreId, FlushOp, Tag};

/// Lines of the region that all cores share: 64 MiB.
const REGION: u32 = 1 << 20;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u32) -> u32 {
        u32::try_from((u128::from(self.next()) * u128::from(n)) >> 64).unwrap_or(0)
    }

    /// A rank whose chance falls about as its inverse: each power of two is as likely as the next.
    fn rank(&mut self, bits: u32) -> u32 {
        let width = self.below(bits + 1);
        self.below(1 << width)
    }
}

fn pattern(kind: &str, cores: u16, n: u32) -> Vec<Step> {
    let mut r = Random(42);
    let slice = REGION / u32::from(cores);
    let slice_bits = slice.ilog2();
    (0..n)
        .map(|i| {
            let core = u16::try_from(i % u32::from(cores)).unwrap_or(0);
            let private = REGION + u32::from(core) * slice;
            let turn = i / u32::from(cores);
            let phys = match kind {
                "l1-hits" => private + turn % 64,
                "uniform" => r.below(REGION),
                "private" => private + r.below(slice),
                "zipf" if r.below(10) < 7 => private + (r.rank(slice_bits).wrapping_mul(0x9E37_79B1) % slice),
                "zipf" => r.rank(20).wrapping_mul(0x9E37_79B1) % REGION,
                "stream" => private + (turn / 8) % slice,
                "local" => match r.below(100) {
                    0 => r.below(REGION),
                    1..10 => private + r.below(4096),
                    _ => private + r.below(256),
                },
                _ => r.below(64),
            };
            let share = if kind == "pingpong" { 5 } else { 3 };
            let access = if r.below(10) < share { Access::Write } else { Access::Read };
            Step::new(CoreId(core), LineRef { phys, tag: Tag(1) }, access)
        })
        .collect()
}

/// The two 64 MiB regions of a trace, at 4 and 8 GiB, side by side.
fn trace(path: &str, n: u32) -> Vec<Step> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let word = |c: &[u8]| u64::from_le_bytes(c.try_into().unwrap_or([0; 8]));
    let step = |word: u64| {
        let line = (word & 0xFFFF_FFFF_FFFF) >> 6;
        let phys = u32::try_from((line & 0xFFFFF) | (line >> 7 & 1 << 20)).unwrap_or(0);
        let access = if word >> 63 == 1 { Access::Write } else { Access::Read };
        let core = CoreId(u16::try_from(word >> 48 & 0xFF).unwrap_or(0));
        Step::new(core, LineRef { phys, tag: Tag(1) }, access)
    };
    bytes.chunks_exact(8).take(n as usize).map(|c| step(word(c))).collect()
}

fn measure(name: &str, part: &Part, steps: &[Step]) {
    let mut h = Hierarchy::with(part, &part.timing(Level::Typical), 1 << 22);
    let (first, second) = steps.split_at(steps.len() / 2);
    let mut clocks = vec![0u64; usize::from(part.topology().cores())];
    let mut run = |steps: &[Step]| {
        let start = Instant::now();
        h.in_turn(steps, &mut clocks);
        start.elapsed().as_nanos()
    };
    run(first);
    let ns = run(second);
    let n = second.len() as u128;
    let stats = *h.stats();
    let cycles: u64 = clocks.iter().sum();
    let per_10k = |x: u64| x * 10_000 / steps.len() as u64;
    println!(
        "{name:>9}: {:>4}.{} ns/access, {:>6} k/s | per 10,000: L2 miss {:>5}, DRAM {:>5} | misses {} from L3 {} \
         from cores {} DRAM {} invalidated {:?} written back {:?} cycles {cycles}",
        ns / n,
        ns * 10 / n % 10,
        n * 1_000_000 / ns.max(1),
        per_10k(stats.l2_misses()),
        per_10k(stats.dram_reads()),
        stats.l2_misses(),
        stats.misses[Source::L3 as usize],
        stats.misses[Source::OtherCoreSameCcx as usize],
        stats.dram_reads(),
        stats.invalidated_private,
        stats.written_back,
    );
}

/// Host time of flushing every cache of a warm machine, dirty and clean.
fn flushes(part: &Part) {
    let mut h = Hierarchy::with(part, &part.timing(Level::Typical), 1 << 22);
    let topology = *part.topology();
    h.in_turn(&pattern("uniform", topology.cores().min(16), 4_000_000), &mut [0; 512]);
    for op in [FlushOp::Wbnoinvd, FlushOp::Wbinvd, FlushOp::Wbinvd] {
        let start = Instant::now();
        let mut lines = (0, 0);
        for core in (0..topology.cores()).map(CoreId) {
            let work = h.flush_private(core, op);
            lines = (lines.0 + work.lines_written_back(), lines.1 + work.invalidated);
        }
        for ccx in (0..topology.ccxs()).map(CcxId) {
            let work = h.flush_l3(ccx, op);
            lines = (lines.0 + work.lines_written_back(), lines.1 + work.invalidated);
        }
        let us = start.elapsed().as_micros();
        println!(
            "{op:>9} of all caches: {us} us of host time, {} written back, {} invalidated",
            lines.0, lines.1
        );
    }
}

fn main() {
    let (mut name, mut pcpus, mut accesses, mut path) = ("bars-16".to_owned(), 16, 8_000_000, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_default();
        match arg.as_str() {
            "--part" => name = value(),
            "--pcpus" => pcpus = value().parse().unwrap_or(16),
            "--accesses" => accesses = value().parse().unwrap_or(8_000_000),
            _ => path = Some(arg),
        }
    }
    let part = Part::builtin(&name).and_then(|p| p.with_pcpus(pcpus)).unwrap_or_else(|e| panic!("{e}"));
    if let Some(path) = path {
        measure("trace", &part, &trace(&path, accesses));
        return;
    }
    for kind in ["l1-hits", "local", "stream", "zipf", "private", "uniform", "pingpong"] {
        measure(kind, &part, &pattern(kind, part.topology().cores(), accesses));
    }
    flushes(&part);
}
