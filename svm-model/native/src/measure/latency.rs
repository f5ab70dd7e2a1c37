//! Latencies: what a load takes that is served by each level, what a page's translation adds, a line's way from core to
//! core.
//!
//! A level is reached by putting the lines there, not by a working set of a size that should not fit elsewhere: such a
//! set meets TLB misses, and neighbours in a shared L3.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{Alone, Bench, beside};
use crate::buffer::{Buffer, LINE};
use crate::cpu::{self, LineOp};
use crate::profile::{Experiment, HeldOut, HeldOutWork, Unit};
use crate::stats::{Random, Samples};
use crate::topology::Distance;

/// Loads in a sample of a chase that goes round.
const STEPS: usize = 4096;
/// Lines of a working set that is put into a level before each sample.
const PLACED: u32 = 1024;
/// They are this many lines apart, so that nothing next to one is of use: 64 pages of 4 KiB, which a TLB holds.
const APART: u32 = 4;
/// Lines of a page of 4 KiB.
const PAGE_LINES: u32 = 64;

fn lines(bytes: usize) -> Vec<u32> {
    (0..u32::try_from(bytes / LINE).unwrap_or(u32::MAX)).collect()
}

/// Samples of a chase round and round through lines that are linked already.
fn round(bench: &Bench<'_>, buffer: &Buffer, from: u32, lines: usize, count: usize) -> Samples {
    let mut at = buffer.chase(from, 2 * lines);
    let samples = bench.sample(count, STEPS as u64, || {
        let begin = cpu::begin();
        at = buffer.chase(at, STEPS);
        cpu::end() - begin
    });
    std::hint::black_box(at);
    samples
}

/// Samples of one pass through the placed lines, after `place`.
fn once(bench: &Bench<'_>, buffer: &Buffer, count: usize, place: impl Fn()) -> Samples {
    bench.sample(count, u64::from(PLACED), || {
        place();
        cpu::fence();
        let begin = cpu::begin();
        std::hint::black_box(buffer.chase(0, PLACED as usize));
        cpu::end() - begin
    })
}

/// A buffer whose first lines are linked, [`APART`] apart.
fn placed(buffer: &mut Buffer, random: &mut Random) {
    let lines: Vec<u32> = (0..PLACED).map(|n| n * APART).collect();
    buffer.link(&lines, random);
}

/// `latency.*` of the levels, `translation.*`, and chases that are held out.
///
/// # Errors
/// No memory, or the thread cannot be pinned.
pub fn ladder(bench: &mut Bench<'_>) -> Result<(), String> {
    let _pinned = bench.home()?;
    let (l1, l2) = (bench.cache(1, 32 << 10), bench.cache(2, 512 << 10));
    let mut random = Random::new(7);
    let mut buffer = Buffer::new((32 << 20).max(8 * l2)).map_err(|e| format!("memory: {e}"))?;
    for (name, bytes) in [("latency.l1_hit", l1 / 2), ("latency.l2_hit", l2 / 8)] {
        let all = lines(bytes);
        buffer.link(&all, &mut random);
        let samples = round(bench, &buffer, 0, all.len(), 200);
        let method = format!("random pointer chase over {} KiB, mean of {STEPS} loads", bytes >> 10);
        bench.keep(name, Unit::Ns, &samples, method);
    }
    if bench.stopped() {
        return Ok(());
    }
    placed(&mut buffer, &mut random);
    let span = (PLACED * APART) as usize * LINE;
    let pusher = Buffer::new(4 * l2).map_err(|e| format!("memory: {e}"))?;
    let samples = once(bench, &buffer, 200, || {
        buffer.read(span);
        pusher.read(4 * l2);
    });
    let method = format!(
        "random pointer chase once through {PLACED} lines, {APART} apart, that reading {} KiB had pushed out of the L2",
        (4 * l2) >> 10
    );
    bench.keep("latency.l3_hit", Unit::Ns, &samples, method);
    let flushed = |buffer: &Buffer| cpu::flush_lines(LineOp::Clflush, &buffer.bytes()[..span]);
    let samples = once(bench, &buffer, 200, || flushed(&buffer));
    let method =
        format!("random pointer chase once through {PLACED} lines, {APART} apart, after CLFLUSH of them");
    bench.keep("latency.dram_local", Unit::Ns, &samples, method.clone());
    match bench.topology.remote_node(bench.home_cpu()) {
        None => {
            bench.miss("latency.dram_remote", "needs a NUMA node on another socket, and this host shows none")
        }
        Some(node) => {
            let mut far =
                Buffer::on_node(node, span).map_err(|e| format!("memory of NUMA node {node}: {e}"))?;
            placed(&mut far, &mut random);
            let samples = once(bench, &far, 200, || flushed(&far));
            bench.keep(
                "latency.dram_remote",
                Unit::Ns,
                &samples,
                format!("{method}; memory of NUMA node {node}"),
            );
        }
    }
    translation(bench, &mut buffer, &mut random);
    overflow(bench, &mut buffer, &mut random);
    hold_out(bench, &mut buffer, &mut random);
    Ok(())
}

/// `translation.*`: lines that all fit the L1D, one a page of 4 KiB. If more than so many pages cost more, then a
/// page is 4 KiB to the hardware, whatever the kernel promised: in a VM the hypervisor has the last word.
fn translation(bench: &mut Bench<'_>, buffer: &mut Buffer, random: &mut Random) {
    // Each at another offset in its page, so that they spread over the L1D's sets.
    let mut spread = |pages: u32, count: usize| {
        let lines: Vec<u32> = (0..pages).map(|p| p * PAGE_LINES + p % PAGE_LINES).collect();
        buffer.link(&lines, random);
        round(bench, buffer, 0, lines.len(), count)
    };
    let median = |samples: &Samples| samples.spread().map_or(0, |s| s.p50);
    let (few, many) = (spread(16, 100), spread(384, 100));
    let (base, plateau) = (median(&few), median(&many));
    if base == 0 || bench.stopped() {
        return;
    }
    let method = "random pointer chase over lines that fit the L1D, one a page of 4 KiB";
    let of = |value: u64, unit: u64| {
        let mut samples = Samples::default();
        samples.add(value * unit, false);
        samples
    };
    if plateau * 100 < base * 120 {
        let said = format!("{method}: 384 pages cost as 16 do, so pages are larger");
        bench.keep("translation.page", Unit::KiB, &of(2048, 1000), said);
        return;
    }
    // The largest number of pages that costs less than half way up.
    let (mut fits, mut over) = (16, 384);
    while over - fits > 4 && !bench.stopped() {
        let middle = u32::midpoint(fits, over);
        if median(&spread(middle, 40)) < u64::midpoint(base, plateau) { fits = middle } else { over = middle }
    }
    if bench.stopped() {
        // Cut short, the search has found nothing.
        return;
    }
    let extra = many.map(|ps| ps.saturating_sub(base));
    let said = format!("{method}: 384 pages cost more than 16, so a page is 4 KiB to the hardware");
    bench.keep("translation.page", Unit::KiB, &of(4, 1000), said);
    bench.keep(
        "translation.entries",
        Unit::Count,
        &of(u64::from(fits), 1000),
        format!("{method}: how many fit"),
    );
    bench.keep("translation.miss", Unit::Ns, &extra, format!("{method}: 384 pages against 16"));
}

/// Parts of the buffer that a chase goes to in turn, so that not one placement of pages decides.
const PLACES: usize = 8;

/// A chase over so many bytes, in several places.
fn sized(bench: &Bench<'_>, buffer: &mut Buffer, random: &mut Random, bytes: usize) -> Samples {
    let all = lines(bytes);
    let room = lines(buffer.bytes().len()).len() - all.len();
    let mut samples = Samples::default();
    for place in 0..PLACES {
        if bench.stopped() {
            break;
        }
        let first = (room * place / PLACES) & !(PAGE_LINES as usize - 1);
        let first = u32::try_from(first).unwrap_or(0);
        let here: Vec<u32> = all.iter().map(|line| line + first).collect();
        buffer.link(&here, random);
        samples.extend(&round(bench, buffer, first, here.len(), 20));
    }
    samples
}

/// How much of a set that does not fit the L2 it keeps: from this a rule of replacement is chosen.
fn overflow(bench: &mut Bench<'_>, buffer: &mut Buffer, random: &mut Random) {
    let l2 = bench.cache(2, 512 << 10);
    let sizes = [l2 / 8 * 7, l2 / 8 * 9, l2 / 8 * 11, l2 / 4 * 7];
    let points: Vec<_> =
        sizes.map(|bytes| (bytes as u64 >> 10, sized(bench, buffer, random, bytes))).to_vec();
    let method = format!("a load of a random pointer chase over x KiB, in {PLACES} places");
    bench.experiments.push(Experiment::of("l2-overflow", method, "KiB", &points));
}

/// Chases within a level elsewhere than where it was measured, and across two: nothing is taken from them.
fn hold_out(bench: &mut Bench<'_>, buffer: &mut Buffer, random: &mut Random) {
    let (l1, l2) = (bench.cache(1, 32 << 10), bench.cache(2, 512 << 10));
    let sizes = [l1 / 4, l2 / 4, l2 / 8 * 3, l2 / 2, l2 / 4 * 3, l2, l2 / 4 * 5, l2 / 2 * 3, 2 * l2, 3 * l2];
    for bytes in sizes {
        let samples = sized(bench, buffer, random, bytes);
        let work = HeldOutWork::Chase { kib: bytes as u64 >> 10 };
        if let Some(spread) = samples.spread() {
            bench.held_out.push(HeldOut { work, spread, samples: samples.len() });
        }
    }
}

/// `latency.same_ccx` and its kin: one line sent to and fro between two pCPUs.
///
/// # Errors
/// A thread cannot be pinned.
pub fn core_to_core(bench: &mut Bench<'_>) -> Result<(), String> {
    const TRIPS: u64 = 100;
    for (name, distance, lacks) in [
        ("other.smt_sibling", Distance::Sibling, "two threads of a core"),
        ("latency.same_ccx", Distance::SameCcx, "two cores that share an L3"),
        ("latency.other_ccx", Distance::OtherCcx, "two L3 caches in one socket"),
        ("latency.other_socket", Distance::OtherSocket, "two sockets"),
    ] {
        let Some((a, b)) = bench.topology.pair(distance, &bench.allowed) else {
            bench.miss(name, format!("needs {lacks}, and this host shows none to this process"));
            continue;
        };
        let turn = Alone(AtomicU32::new(0));
        let answer = |done: &std::sync::atomic::AtomicBool| {
            while !done.load(Ordering::Relaxed) {
                if turn.0.load(Ordering::Acquire) == 1 {
                    turn.0.store(0, Ordering::Release);
                }
            }
        };
        let (samples, ()) = beside(b, a, answer, || {
            bench.sample(1000, 2 * TRIPS, || {
                let begin = cpu::begin();
                for _ in 0..TRIPS {
                    turn.0.store(1, Ordering::Release);
                    while turn.0.load(Ordering::Acquire) == 1 {}
                }
                cpu::end() - begin
            })
        })?;
        let vm = bench.cpuid.hypervisor().map_or("", |_| "; in a VM, where the two may lie anywhere");
        let method = format!("half a round trip of one line between pCPUs {a} and {b}, mean of {TRIPS}{vm}");
        bench.keep(name, Unit::Ns, &samples, method);
    }
    Ok(())
}
