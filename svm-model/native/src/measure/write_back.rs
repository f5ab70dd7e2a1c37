//! Write-back bandwidth: one core, the cores of an L3, one core of every L3, a socket.

use std::sync::Barrier;
use std::sync::atomic::Ordering;

use super::lines::timed;
use super::{Bench, narrow, pin};
use crate::buffer::{Buffer, LINE};
use crate::cpu::{self, LineOp};
use crate::os;
use crate::profile::{Experiment, Unit};
use crate::stats::Samples;

/// Dirty bytes of each core.
const BYTES: usize = 2 << 20;

/// Rounds in which all ran that make a number.
const ENOUGH: usize = 10;

/// MB/s.
fn rates(times: &Samples, bytes: usize) -> Samples {
    times.map(|ps| narrow(bytes as u128 * 1_000_000 / u128::from(ps.max(1))))
}

/// `write_back.*`, and how the time grows with the pCPUs that write back together.
///
/// # Errors
/// No memory, or a thread cannot be pinned.
pub fn write_back(bench: &mut Bench<'_>) -> Result<(), String> {
    let op = if bench.cpuid.clflushopt() { LineOp::Clflushopt } else { LineOp::Clflush };
    let what = format!("{} over {} KiB of dirty lines with a fence", op.name(), BYTES >> 10);
    {
        let _pinned = bench.home()?;
        let mut buffer = Buffer::new(BYTES).map_err(|e| e.to_string())?;
        let times = bench.sample(200, 1, || {
            buffer.dirty(BYTES, 5);
            timed(op, &buffer, BYTES / LINE)
        });
        bench.keep("write_back.core", Unit::GbPerS, &rates(&times, BYTES), format!("{what}, one core alone"));
    }
    let Some(home) = bench.topology.pcpu(bench.home_cpu()).cloned() else { return Ok(()) };
    let (topology, allowed) = (&bench.topology, &bench.allowed);
    let of_l3 = topology.one_a_core(allowed, |p| p.l3 == home.l3);
    let of_socket = topology.one_a_core(allowed, |p| p.package == home.package);
    let mut seen = std::collections::BTreeSet::new();
    let mut one_a_ccx = of_socket.clone();
    one_a_ccx.retain(|id| topology.pcpu(*id).is_some_and(|p| seen.insert(p.l3.clone())));
    for (name, cores, lacks) in [
        ("write_back.ccd", &of_l3, "two cores that share an L3"),
        ("write_back.socket", &of_socket, "two L3 caches in one socket"),
    ] {
        let enough = if name == "write_back.socket" { one_a_ccx.len() } else { cores.len() };
        if enough < 2 {
            bench.miss(name, format!("needs {lacks}, and this host shows none to this process"));
            continue;
        }
        let (times, rounds) = together(bench, cores, op, bench.count(100))?;
        let ran = format!("{} of {rounds} rounds in which all of them ran", times.len());
        if times.len() < ENOUGH {
            bench.miss(name, format!("too few samples: {ran}"));
            continue;
        }
        let n = cores.len();
        let method = format!("{what}, on {n} cores at once, all bytes over the longest time; {ran}");
        bench.keep(name, Unit::GbPerS, &rates(&times, BYTES * n), method);
    }
    for (name, cores, said) in [
        ("pcpus-of-a-ccx", of_l3, "cores of one CCX"),
        ("one-pcpu-per-ccx", one_a_ccx, "CCXs, one core of each"),
    ] {
        if cores.len() < 2 {
            bench.miss(&format!("experiment {name}"), format!("needs two {said}, and this host shows fewer"));
            continue;
        }
        let mut points = Vec::new();
        for k in counts(cores.len()) {
            let (times, _) = together(bench, &cores[..k], op, bench.count(30))?;
            points.push((k as u64, times));
        }
        let method =
            format!("{what} of its own on each of x {said}, at once: the time until the last is done");
        bench.experiments.push(Experiment::of(name, method, "pCPUs", &points));
    }
    Ok(())
}

/// 1, 2, 3, 4, 6, 9, 13, ... up to all of them.
pub fn counts(all: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1), move |k| (*k < all).then(|| (k + (k / 2).max(1)).min(all)))
}

/// Begin, end, and whether the thread was switched away.
type Run = (u64, u64, bool);

/// Samples of the rounds in which all cores ran at once, and how many rounds there were.
fn together(
    bench: &Bench<'_>,
    cores: &[usize],
    op: LineOp,
    rounds: usize,
) -> Result<(Samples, usize), String> {
    let bytes = BYTES;
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
                let before = os::preemptions();
                let begin = cpu::begin();
                cpu::flush_lines(op, &buffer.bytes()[..bytes]);
                cpu::fence();
                times.push((begin, cpu::end(), os::preemptions() != before));
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
    let rounds = all.iter().map(Vec::len).min().unwrap_or(0);
    for round in 0..rounds {
        let each = || all.iter().map(|times| times[round]);
        let (begin, end) = (each().map(|t| t.0).min(), each().map(|t| t.1).max());
        if let (Some(begin), Some(end)) = (begin, end) {
            let (whole, last) = (end.saturating_sub(begin), each().map(|t| t.0).max().unwrap_or(begin));
            // If one began when a tenth of the time was over, or was switched away, they did not all run: that is no sample.
            if (last - begin) * 10 <= whole && !each().any(|t| t.2) {
                samples.add(bench.ps(whole, 1), false);
            }
        }
    }
    Ok((samples, rounds))
}

#[cfg(test)]
mod tests {
    use super::counts;

    #[test]
    fn pcpus_grow_by_half_up_to_all_of_them() {
        let of = |all| counts(all).collect::<Vec<_>>();
        assert_eq!((of(1), of(2)), (vec![1], vec![1, 2]));
        assert_eq!(of(8), [1, 2, 3, 4, 6, 8]);
        assert_eq!(of(13), [1, 2, 3, 4, 6, 9, 13]);
    }
}
