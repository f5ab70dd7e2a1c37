//! Caches: clock, latency ladder, atomics, core to core, flushes of lines, write-back bandwidth.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::{Bench, beside, narrow, pin};
use crate::buffer::{Buffer, LINE};
use crate::cpu::{self, LineOp};
use crate::os;
use crate::profile::{HeldOut, HeldOutWork, Unit};
use crate::stats::{Fit, Random, Samples, fit};
use crate::topology::Distance;

/// A word on a line of its own.
#[repr(align(128))]
struct Alone<T>(T);

/// `core.clock`: additions that wait for each other, against the TSC.
///
/// # Errors
/// The thread cannot be pinned.
pub fn clock(bench: &mut Bench<'_>) -> Result<(), String> {
    const ROUNDS: u64 = 20_000;
    let _pinned = bench.home()?;
    cpu::twenty_adds(50 * ROUNDS);
    let mut samples = Samples::default();
    // Picoseconds of all of it, turned into MHz.
    for ps in bench
        .sample(100, 1, || {
            let begin = cpu::begin();
            cpu::twenty_adds(ROUNDS);
            cpu::end() - begin
        })
        .sorted()
    {
        samples.add(narrow(u128::from(20 * ROUNDS) * 1_000_000 / u128::from(ps.max(1))), false);
    }
    bench.keep(
        "core.clock",
        Unit::Ghz,
        &samples,
        "chain of dependent additions, one cycle each, against the TSC",
    );
    Ok(())
}

/// `core.atomic_rmw`: a locked addition to an owned line.
///
/// # Errors
/// The thread cannot be pinned.
pub fn atomics(bench: &mut Bench<'_>) -> Result<(), String> {
    const OPS: u64 = 1000;
    let _pinned = bench.home()?;
    let word = Alone(AtomicU64::new(0));
    let samples = bench.sample(300, OPS, || {
        let begin = cpu::begin();
        for _ in 0..OPS {
            std::hint::black_box(word.0.fetch_add(1, Ordering::SeqCst));
        }
        cpu::end() - begin
    });
    bench.keep("core.atomic_rmw", Unit::Ns, &samples, "LOCK XADD on one line in a loop, mean of 1000");
    Ok(())
}

/// `latency.*`: a pointer chase in working sets that fit each level.
///
/// # Errors
/// No memory, or the thread cannot be pinned.
pub fn ladder(bench: &mut Bench<'_>) -> Result<(), String> {
    const STEPS: usize = 4096;
    let _pinned = bench.home()?;
    let size = |level: u32, default: u64| {
        let caches = bench.cpuid.caches();
        let bytes = caches.iter().find(|c| c.level == level && c.data).map_or(default, |c| c.bytes);
        usize::try_from(bytes).unwrap_or(0)
    };
    let (l1, l2, l3) = (size(1, 32 << 10), size(2, 512 << 10), size(3, 16 << 20));
    let large = (4 * l3).clamp(64 << 20, 512 << 20);
    let mut buffer = Buffer::new(large).map_err(|e| format!("{} MiB of memory: {e}", large >> 20))?;
    let mut random = Random::new(7);
    let levels = [
        ("latency.l1_hit", l1 / 2, 200),
        // As small as will do: with larger ones TLB misses may be in it, the more so in a VM.
        ("latency.l2_hit", l2 / 4, 200),
        ("latency.l3_hit", (l3 / 8).max(2 * l2), 200),
        ("latency.dram_local", large, 200),
    ];
    let mut chase = |bench: &mut Bench<'_>, bytes: usize, count: usize| {
        buffer.link(bytes, &mut random);
        let mut at = buffer.chase(0, bytes / LINE);
        let samples = bench.sample(count, STEPS as u64, || {
            let begin = cpu::begin();
            at = buffer.chase(at, STEPS);
            cpu::end() - begin
        });
        std::hint::black_box(at);
        samples
    };
    for (name, bytes, count) in levels {
        if bench.stopped() {
            return Ok(());
        }
        let samples = chase(bench, bytes, count);
        let method = format!("random pointer chase over {} KiB, mean of {STEPS} loads", bytes >> 10);
        bench.keep(name, Unit::Ns, &samples, method);
    }
    // Within a level elsewhere than where it was fitted, and across two.
    for bytes in [l1 / 4, l2 / 8, l2 / 2, l2 + l2 / 2] {
        if bench.stopped() {
            return Ok(());
        }
        let samples = chase(bench, bytes, 100);
        let work = HeldOutWork::Chase { kib: bytes as u64 >> 10 };
        if let Some(spread) = samples.spread() {
            bench.held_out.push(HeldOut { work, spread, samples: samples.len() });
        }
    }
    let why = "needs memory homed on another socket: not measured by this version";
    bench.miss("latency.dram_remote", why);
    Ok(())
}

/// `latency.same_ccx` and its kin: one line sent to and fro between two pCPUs.
///
/// # Errors
/// A thread cannot be pinned.
pub fn core_to_core(bench: &mut Bench<'_>) -> Result<(), String> {
    const TRIPS: u64 = 100;
    for (name, distance, lacks) in [
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
        let method = format!("half a round trip of one line between pCPUs {a} and {b}, mean of {TRIPS}");
        bench.keep(name, Unit::Ns, &samples, method);
    }
    Ok(())
}

/// The state that lines are put into before a flush.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Absent,
    Clean,
    Dirty,
}

impl State {
    const ALL: [State; 3] = [State::Absent, State::Clean, State::Dirty];

    const fn name(self) -> &'static str {
        match self {
            State::Absent => "absent",
            State::Clean => "clean",
            State::Dirty => "dirty",
        }
    }
}

/// Puts `lines` lines of the buffer from line 0 on into a state, the rest being absent.
fn prepare(buffer: &mut Buffer, lines: usize, state: State) {
    let bytes = lines * LINE;
    cpu::flush_lines(LineOp::Clflush, &buffer.bytes()[..bytes]);
    cpu::fence();
    match state {
        State::Absent => {}
        State::Clean => buffer.read(bytes),
        State::Dirty => buffer.dirty(bytes, 3),
    }
}

/// Cycles of `op` over the first `lines` lines, with the fence that waits for them.
#[inline(always)]
fn timed(op: LineOp, buffer: &Buffer, lines: usize) -> u64 {
    let bytes = &buffer.bytes()[..lines * LINE];
    let begin = cpu::begin();
    cpu::flush_lines(op, bytes);
    cpu::fence();
    cpu::end() - begin
}

/// Lines that the fits are made from.
const FITTED: [usize; 5] = [64, 512, 1024, 2048, 4096];

/// `flush.clflush_*`: CLFLUSH over lines that are absent, clean and dirty, fitted; its kin as `other`.
///
/// # Errors
/// No memory, or the thread cannot be pinned.
pub fn flush(bench: &mut Bench<'_>) -> Result<(), String> {
    let _pinned = bench.home()?;
    let mut buffer = Buffer::new(2 << 20).map_err(|e| e.to_string())?;
    let mut fixed = Vec::new();
    for (op, there) in [
        (LineOp::Clflush, true),
        (LineOp::Clflushopt, bench.cpuid.clflushopt()),
        (LineOp::Clwb, bench.cpuid.clwb()),
    ] {
        for state in State::ALL {
            let key = format!("{}_{}", op.name().to_lowercase(), state.name());
            let section = if op == LineOp::Clflush { "flush" } else { "other" };
            let name = format!("{section}.{key}");
            if !there {
                bench.miss(&name, format!("this CPU has no {}", op.name()));
                continue;
            }
            let mut points = Vec::new();
            let mut last = Samples::default();
            for lines in FITTED {
                let samples = bench.sample(60, 1, || {
                    prepare(&mut buffer, lines, state);
                    timed(op, &buffer, lines)
                });
                points.extend(samples.spread().map(|s| (lines as u64, s.p50)));
                last = samples;
            }
            let (Some(line), Some(spread)) = (fit(&points), last.spread()) else { continue };
            keep_fit(bench, &name, op, state, line, spread.map(|ps| ps / FITTED[4] as u64), &last);
            if op == LineOp::Clflush {
                fixed.push(line.fixed);
            }
        }
    }
    drain(bench, &mut buffer, &fixed);
    hold_out(bench, &mut buffer);
    Ok(())
}

fn keep_fit(
    bench: &mut Bench<'_>,
    name: &str,
    op: LineOp,
    state: State,
    line: Fit,
    mut spread: crate::stats::Spread,
    last: &Samples,
) {
    let slope = u64::try_from(line.slope_milli / 1000).unwrap_or(0);
    let (p10, p90) = (spread.p10.min(slope), spread.p90.max(slope));
    spread = crate::stats::Spread { p10, p50: slope, p90, p99: spread.p99 };
    let method = format!(
        "{} over 64 to 4096 {} lines with a fence, medians fitted: slope {slope} ps a line (standard error {}), fixed {} ns, \
         largest residual {} ns; low and high are percentiles at 4096 lines",
        op.name(),
        state.name(),
        line.slope_error_milli / 1000,
        line.fixed / 1000,
        line.residual / 1000
    );
    bench.readings.push(crate::profile::Reading {
        name: name.to_owned(),
        unit: Unit::Ns,
        spread,
        samples: last.len() * FITTED.len(),
        tagged: last.tagged(),
        method,
    });
}

/// `flush.clflush_drain`: one dirty line and the fence, without what a line costs anyway.
fn drain(bench: &mut Bench<'_>, buffer: &mut Buffer, fixed: &[i64]) {
    let dirty = bench.readings.iter().find(|r| r.name == "flush.clflush_dirty").map_or(0, |r| r.spread.p50);
    let one = bench.sample(300, 1, || {
        prepare(buffer, 1, State::Dirty);
        timed(LineOp::Clflush, buffer, 1)
    });
    let mut samples = Samples::default();
    for ps in one.sorted() {
        samples.add(ps.saturating_sub(dirty), false);
    }
    let fixed: Vec<String> = fixed.iter().map(|ps| (ps / 1000).to_string()).collect();
    let method = format!(
        "CLFLUSH of one dirty line and MFENCE, a line's slope subtracted (fixed parts of the fits: {} ns)",
        fixed.join(", ")
    );
    bench.keep("flush.clflush_drain", Unit::Ns, &samples, method);
}

/// Mixtures and sizes that nothing was fitted to.
fn hold_out(bench: &mut Bench<'_>, buffer: &mut Buffer) {
    for (dirty, clean, absent) in
        [(768, 0, 0), (3072, 0, 0), (0, 3072, 0), (0, 0, 3072), (1024, 3072, 0), (1024, 1024, 1024)]
    {
        let lines = dirty + clean + absent;
        let samples = bench.sample(60, 1, || {
            prepare(buffer, lines, State::Absent);
            // Dirty and clean ones take turns as long as both last, so that the order is no help.
            for (n, line) in order(dirty, clean, absent).into_iter().enumerate() {
                buffer.touch(n, line == State::Dirty, line != State::Absent);
            }
            cpu::fence();
            timed(LineOp::Clflush, buffer, lines)
        });
        let Some(spread) = samples.spread() else { return };
        let (dirty, clean, absent) = (dirty as u64, clean as u64, absent as u64);
        let work = HeldOutWork::Clflush { dirty, clean, absent };
        bench.held_out.push(HeldOut { work, spread, samples: samples.len() });
    }
}

fn order(dirty: usize, clean: usize, absent: usize) -> Vec<State> {
    let mut left = [(State::Dirty, dirty), (State::Clean, clean), (State::Absent, absent)];
    let mut order = Vec::with_capacity(dirty + clean + absent);
    while left.iter().any(|(_, n)| *n > 0) {
        for (state, n) in &mut left {
            if *n > 0 {
                *n -= 1;
                order.push(*state);
            }
        }
    }
    order
}

/// `write_back.*`: CLFLUSHOPT over dirty lines, on one core and on all cores of an L3 together.
///
/// # Errors
/// No memory, or a thread cannot be pinned.
pub fn write_back(bench: &mut Bench<'_>) -> Result<(), String> {
    const BYTES: usize = 2 << 20;
    let op = if bench.cpuid.clflushopt() { LineOp::Clflushopt } else { LineOp::Clflush };
    let rate = |ps: u64, bytes: usize| narrow(bytes as u128 * 1_000_000 / u128::from(ps.max(1)));
    let rates = |times: Samples, bytes: usize| {
        let mut samples = Samples::default();
        let tagged = times.tagged();
        for (n, ps) in times.sorted().into_iter().enumerate() {
            samples.add(rate(ps, bytes), n < tagged);
        }
        samples
    };
    {
        let _pinned = bench.home()?;
        let mut buffer = Buffer::new(BYTES).map_err(|e| e.to_string())?;
        let times = bench.sample(200, 1, || {
            buffer.dirty(BYTES, 5);
            timed(op, &buffer, BYTES / LINE)
        });
        let method =
            format!("{} over {} KiB of dirty lines with a fence, one core alone", op.name(), BYTES >> 10);
        bench.keep("write_back.core", Unit::GbPerS, &rates(times, BYTES), method);
    }
    let home = bench.home_cpu();
    let Some(home) = bench.topology.pcpus.iter().find(|p| p.id == home) else { return Ok(()) };
    // One thread a core: the first of each.
    let firsts = home.l3.iter().filter(|id| {
        let pcpu = bench.topology.pcpus.iter().find(|p| p.id == **id);
        bench.allowed.contains(id) && pcpu.is_some_and(|p| p.core.first() == Some(*id))
    });
    let cores: Vec<usize> = firsts.copied().collect();
    if cores.len() < 2 {
        bench.miss("write_back.ccd", "needs two cores that share an L3");
    } else {
        let times = together(bench, &cores, op, BYTES)?;
        let method =
            format!("the same on {} cores of one L3 at once, all bytes over the longest time", cores.len());
        bench.keep("write_back.ccd", Unit::GbPerS, &rates(times, BYTES * cores.len()), method);
    }
    bench.miss("write_back.socket", "needs every L3 of a socket at once: not measured by this version");
    Ok(())
}

/// Begin, end, and whether the thread was switched away.
type Run = (u64, u64, bool);

fn together(bench: &Bench<'_>, cores: &[usize], op: LineOp, bytes: usize) -> Result<Samples, String> {
    let rounds = bench.count(100);
    let barrier = Barrier::new(cores.len());
    // Nobody may leave while others wait: the first thread decides for all, between two barriers.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let run = |n: usize, cpu: usize| -> Result<Vec<Run>, String> {
        let made = pin(cpu).and_then(|p| Buffer::new(bytes).map(|b| (p, b)).map_err(|e| e.to_string()));
        if made.is_err() {
            stop.store(true, Ordering::SeqCst);
        }
        let mut times = Vec::new();
        let mut made = made;
        for _ in 0..rounds {
            if let Ok((_, buffer)) = &mut made {
                buffer.dirty(bytes, 9);
            }
            if n == 0 && bench.stopped() {
                stop.store(true, Ordering::SeqCst);
            }
            barrier.wait();
            let leave = stop.load(Ordering::SeqCst);
            if let Ok((_, buffer)) = &made
                && !leave
            {
                let before = os::switches();
                let begin = cpu::begin();
                cpu::flush_lines(op, &buffer.bytes()[..bytes]);
                cpu::fence();
                times.push((begin, cpu::end(), os::switches() != before));
            }
            barrier.wait();
            if leave {
                break;
            }
        }
        made.map(|_| times)
    };
    let all: Vec<Result<Vec<Run>, String>> = std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> =
            cores.iter().enumerate().map(|(n, cpu)| scope.spawn(move || run(n, *cpu))).collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|_| Err("a measuring thread died".to_owned())))
            .collect()
    });
    let all: Vec<Vec<Run>> = all.into_iter().collect::<Result<_, _>>()?;
    let mut samples = Samples::default();
    for round in 0..all.iter().map(Vec::len).min().unwrap_or(0) {
        let each = || all.iter().map(|times| times[round]);
        let (begin, end) = (each().map(|t| t.0).min(), each().map(|t| t.1).max());
        if let (Some(begin), Some(end)) = (begin, end) {
            samples.add(bench.ps(end.saturating_sub(begin), 1), each().any(|t| t.2));
        }
    }
    Ok(samples)
}
