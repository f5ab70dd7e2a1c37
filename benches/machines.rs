//! Whole machines: `cargo bench --bench machines`.
//!
//! * The cost of an access on `genoa` and `turin-dense` by the number of pCPUs, in time order: each core makes 90 %
//!   of its accesses in 16 KiB and 9 % in 256 KiB of its own, 1 % in 64 MiB that all share; 30 % are writes. Its own
//!   lines are in its L2 from the start, so that machines of every size meet the same share of misses.
//! * Setting up two sockets of Turin Dense, and the memory it takes once every line of memory has been in a cache.
//! * WBINVD by every pCPU of two sockets of Genoa with full caches: all clean, and with dirty lines.
//!
//! Times are this thread's processor time.
#![allow(clippy::print_stdout, reason = "a bench prints its figures")]
#![allow(clippy::float_arithmetic, reason = "times of the host")]

mod clock;

use cache_model::hierarchy::{Hierarchy, LineRef, Step};
use cache_model::part::{Level, Part};
use clock::{median, timed, tiny};
use sev_arch::{Access, CoreId, FlushOp, PcpuId, Tag};

/// Lines of the region that all share: 64 MiB; behind it, 256 KiB for each core.
const REGION: u32 = 1 << 20;
const OWN: u32 = 4096;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((self.0 >> 32) * u64::from(n)) >> 32) as u32
    }
}

fn part(name: &str, sockets: u16, pcpus: Option<u16>) -> Part {
    let part = Part::builtin(name).and_then(|p| p.with_sockets(sockets));
    part.and_then(|p| pcpus.map_or(Ok(p.clone()), |n| p.with_pcpus(n))).unwrap_or_else(|e| panic!("{e}"))
}

fn local(core: u16, count: usize, random: &mut Random) -> Vec<Step> {
    let own = REGION + u32::from(core) * OWN;
    let step = |_| {
        let phys = match random.below(100) {
            0..90 => own + random.below(256),
            90..99 => own + random.below(OWN),
            _ => random.below(REGION),
        };
        let access = if random.below(10) < 3 { Access::Write } else { Access::Read };
        Step::new(CoreId(core), LineRef { phys, tag: Tag(1) }, access)
    };
    (0..count).map(step).collect()
}

/// A core's own 256 KiB, once.
fn own(core: u16) -> Vec<Step> {
    let line = |phys| LineRef { phys, tag: Tag(1) };
    let first = REGION + u32::from(core) * OWN;
    (first..first + OWN).rev().map(|phys| Step::new(CoreId(core), line(phys), Access::Read)).collect()
}

/// ns per access, and the share of accesses that miss their core's L2.
fn cost(part: &Part) -> (f64, f64) {
    let cores = part.topology().cores();
    let (rounds, total) = if tiny() { (2, 40_000) } else { (9, 4_000_000) };
    let memory = REGION + u32::from(cores) * OWN;
    let mut caches = Hierarchy::with(part, &part.timing(Level::Typical), memory);
    let mut clocks = vec![0; usize::from(cores)];
    let mut random = Random(1);
    let each = total / usize::from(cores);
    let mut run = |programs: Vec<Vec<Step>>| {
        let programs: Vec<&[Step]> = programs.iter().map(Vec::as_slice).collect();
        timed(|| caches.in_time_order(&programs, &mut clocks, |_| {})).0
    };
    run((0..cores).map(own).collect());
    let mut times = Vec::new();
    for _ in 0..rounds {
        let ns = run((0..cores).map(|core| local(core, each, &mut random)).collect());
        times.push(ns / (each * usize::from(cores)) as f64);
    }
    let accesses = rounds * each * usize::from(cores);
    let misses = caches.stats().l2_misses() - u64::from(cores) * u64::from(OWN);
    (median(times.split_off(rounds / 3)), misses as f64 / accesses as f64)
}

fn costs() {
    for (name, sizes) in [("genoa", [8, 32, 128, 384]), ("turin-dense", [8, 32, 128, 384])] {
        let sockets = |pcpus| if pcpus > 128 { 2 } else { 1 };
        let costs = sizes.map(|pcpus| {
            let part = part(name, sockets(pcpus), Some(pcpus));
            (part.topology().cores(), cost(&part))
        });
        let list: Vec<String> = sizes
            .iter()
            .zip(costs)
            .map(|(pcpus, (cores, (ns, missed)))| {
                format!("{pcpus} pCPUs ({cores} cores, {:.2} % missed) {ns:.1}", 100.0 * missed)
            })
            .collect();
        println!("{name}: ns per access: {}; growth {:.2}", list.join(", "), costs[3].1.0 / costs[0].1.0);
    }
}

/// The most memory that this process has had, MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Every line of a range is accessed, each core a share of it: the caches are as full as can be.
fn sweep(caches: &mut Hierarchy, lines: std::ops::Range<u32>, access: Access) {
    let cores = caches.topology().cores();
    let mut clocks = vec![0; usize::from(cores)];
    let share = lines.len() as u32 / u32::from(cores);
    for turn in 0..share {
        let step = |core: u16| {
            let phys = lines.start + u32::from(core) * share + turn;
            Step::new(CoreId(core), LineRef { phys, tag: Tag(1) }, access)
        };
        let steps: Vec<Step> = (0..cores).map(step).collect();
        caches.in_turn(&steps, &mut clocks);
    }
}

fn turin_dense() {
    let part = part("turin-dense", 2, None);
    let (ns, mut caches) = timed(|| Hierarchy::new(&part));
    let lines = if tiny() { 1 << 16 } else { LineRef::PHYS_LIMIT };
    sweep(&mut caches, 0..lines, Access::Write);
    println!(
        "two sockets of turin-dense, {} cores: set-up {:.1} ms; {} MiB after {} MiB of memory were written",
        part.topology().cores(),
        ns / 1e6,
        peak_mib(),
        lines / 16_384,
    );
}

/// Every pCPU executes WBINVD: ns of host time, lines written back and invalidated.
fn wbinvd(caches: &mut Hierarchy) -> (f64, u64, u64) {
    let topology = *caches.topology();
    let (mut written, mut invalidated) = (0, 0);
    let (ns, ()) = timed(|| {
        for core in (0..topology.pcpus()).map(|p| topology.core_of(PcpuId(p))) {
            let mut work = caches.flush_private(core, FlushOp::Wbinvd);
            work.add(&caches.flush_l3(topology.ccx_of(core), FlushOp::Wbinvd));
            written += work.lines_written_back();
            invalidated += work.invalidated;
        }
    });
    (ns, written, invalidated)
}

fn flushes() {
    let part = part("genoa", 2, None);
    let mut clean = Hierarchy::with(&part, &part.timing(Level::Typical), 1 << 25);
    let lines = if tiny() { 1 << 16 } else { 1 << 24 };
    sweep(&mut clean, 0..lines, Access::Read);
    let mut dirty = clean.clone();
    sweep(&mut dirty, 0..lines / 16, Access::Write);
    let runs = |caches: &Hierarchy| {
        let runs: Vec<_> = (0..5).map(|_| wbinvd(&mut caches.clone())).collect();
        (median(runs.iter().map(|r| r.0).collect()), runs[0].1, runs[0].2)
    };
    let (base, _, invalidated) = runs(&clean);
    let (ns, written, _) = runs(&dirty);
    println!(
        "WBINVD by all {} pCPUs of two sockets of genoa: {invalidated} clean lines in {:.3} ms; {written} dirty \
         lines in {:.2} ms, {:.1} ns each",
        part.topology().pcpus(),
        base / 1e6,
        ns / 1e6,
        (ns - base) / written.max(1) as f64,
    );
}

fn main() {
    flushes();
    turin_dense();
    costs();
}
