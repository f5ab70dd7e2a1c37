//! The kernel: system calls, mutexes, context switches, IPIs.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::lines::per_line;
use super::{Alone, Bench, beside, beside_all};
use crate::profile::{Experiment, Unit};
use crate::stats::Samples;
use crate::topology::Distance;
use crate::{cpu, os};

/// `os.syscall`.
///
/// # Errors
/// The thread cannot be pinned.
pub fn syscall(bench: &mut Bench<'_>) -> Result<(), String> {
    const OPS: u64 = 100;
    let _pinned = bench.home()?;
    let samples = bench.sample(500, OPS, || {
        let begin = cpu::begin();
        (0..OPS).for_each(|_| os::null_syscall());
        cpu::end() - begin
    });
    bench.keep("os.syscall", Unit::Ns, &samples, "getppid in a loop, mean of 100");
    Ok(())
}

/// `os.mutex_uncontended`, `os.mutex_hand_off`, `os.context_switch`.
///
/// # Errors
/// A thread cannot be pinned.
pub fn locks(bench: &mut Bench<'_>) -> Result<(), String> {
    const OPS: u64 = 1000;
    {
        let _pinned = bench.home()?;
        let mutex = Mutex::new(0_u64);
        let samples = bench.sample(300, OPS, || {
            let begin = cpu::begin();
            for _ in 0..OPS {
                if let Ok(mut n) = mutex.lock() {
                    *n += 1;
                }
            }
            cpu::end() - begin
        });
        let method = "a mutex in user space taken and released in a loop, mean of 1000";
        bench.keep("os.mutex_uncontended", Unit::Ns, &samples, method);
    }
    let far = [Distance::SameCcx, Distance::OtherCcx, Distance::OtherSocket, Distance::Sibling];
    match far.into_iter().find_map(|d| bench.topology.pair(d, &bench.allowed)) {
        None => bench.miss("os.mutex_hand_off", "needs two pCPUs"),
        Some((a, b)) => {
            let samples = hand_over(bench, a, b)?;
            let method =
                format!("half a round trip of futex wake and wait between pCPUs {a} and {b}, both sleeping");
            bench.keep("os.mutex_hand_off", Unit::Ns, &samples, method);
        }
    }
    let home = bench.home_cpu();
    let samples = hand_over(bench, home, home)?;
    let method =
        "half a round trip of futex wake and wait between two threads on one pCPU, system calls included";
    bench.keep("os.context_switch", Unit::Ns, &samples, method);
    Ok(())
}

/// Two threads that wake each other by turns.
fn hand_over(bench: &Bench<'_>, a: usize, b: usize) -> Result<Samples, String> {
    const TRIPS: u64 = 10;
    const LIMIT: Duration = Duration::from_millis(20);
    let turn = AtomicU32::new(0);
    let answer = |done: &AtomicBool| {
        while !done.load(Ordering::Relaxed) {
            if turn.load(Ordering::Acquire) == 1 {
                turn.store(0, Ordering::Release);
                os::futex_wake(&turn);
            } else {
                os::futex_wait(&turn, 0, LIMIT);
            }
        }
    };
    let (samples, ()) = beside(b, a, answer, || {
        bench.sample(300, 2 * TRIPS, || {
            let begin = cpu::begin();
            for _ in 0..TRIPS {
                turn.store(1, Ordering::Release);
                os::futex_wake(&turn);
                while turn.load(Ordering::Acquire) == 1 {
                    os::futex_wait(&turn, 1, LIMIT);
                }
            }
            cpu::end() - begin
        })
    })?;
    // To be switched away is what is measured here.
    Ok(samples.untagged())
}

/// Cycles without a look at the clock that count as an interruption of the victim.
const INTERRUPTED: u64 = 1000;
/// The victim shows that it runs every so many looks.
const BEAT: u32 = 32;
/// Cycles after a sign of life in which the victim still counts as running.
const FRESH: u64 = 5000;

/// One call of the sender.
#[derive(Clone, Copy, Debug)]
struct Call {
    begin: u64,
    end: u64,
    disturbed: bool,
}

/// Begin and end of a time in which the victim could not look at its clock.
type Gap = (u64, u64);

/// Of calls and of the victim's gaps, both in order: what belongs together. A call that met no gap sent no IPI,
/// because the victim was not running.
fn matched(calls: &[Call], gaps: &[Gap]) -> Vec<(Call, Gap)> {
    let mut found = Vec::new();
    let mut next = 0;
    for call in calls {
        while gaps.get(next).is_some_and(|g| g.0 < call.begin) {
            next += 1;
        }
        if let Some(gap) = gaps.get(next).filter(|g| g.0 <= call.end) {
            found.push((*call, *gap));
        }
    }
    found
}

/// How often a pCPU was called by an IPI so far.
fn calls_taken(cpu: usize) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/interrupts").ok()?;
    let mut lines = text.lines();
    let column = lines.next()?.split_whitespace().position(|c| c == format!("CPU{cpu}"))?;
    let line = lines.find_map(|l| l.trim_start().strip_prefix("CAL:"))?;
    line.split_whitespace().nth(column)?.parse().ok()
}

/// `ipi.*`: membarrier while a victim watches its own time, so that it is known which calls reached it.
///
/// # Errors
/// No membarrier, or a thread cannot be pinned.
pub fn ipi(bench: &mut Bench<'_>) -> Result<(), String> {
    os::membarrier_register().map_err(|e| format!("membarrier: {e}"))?;
    for (name, distances, lacks) in [
        (
            "ipi.same_socket",
            &[Distance::SameCcx, Distance::OtherCcx, Distance::Sibling][..],
            "two pCPUs in one socket",
        ),
        ("ipi.other_socket", &[Distance::OtherSocket][..], "two sockets"),
    ] {
        let Some((a, b)) = distances.iter().find_map(|d| bench.topology.pair(*d, &bench.allowed)) else {
            bench.miss(name, format!("needs {lacks}"));
            continue;
        };
        let taken = calls_taken(b);
        let beat = Alone(AtomicU64::new(0));
        let (calls, gaps) = beside(b, a, |done| watch(done, &beat.0), || send(bench, &[&beat.0]))?;
        let taken = calls_taken(b).zip(taken).map(|(after, before)| after - before);
        let found = matched(&calls, &gaps);
        let check = taken.map_or(String::new(), |n| format!("; /proc/interrupts counts {n} calls"));
        let sorted = format!("{} of {} calls reached pCPU {b} while it ran{check}", found.len(), calls.len());
        if found.len() < 20 {
            bench.miss(name, format!("too few samples: {sorted}"));
            continue;
        }
        let of = |f: &dyn Fn(&(Call, Gap)) -> u64| {
            let mut samples = Samples::default();
            found.iter().for_each(|one| samples.add(bench.ps(f(one), 1), one.0.disturbed));
            samples
        };
        let arrive = of(&|(call, gap)| gap.0 - call.begin);
        let trip = of(&|(call, _)| call.end - call.begin);
        let stolen = of(&|(_, gap)| gap.1 - gap.0);
        let method = |what: &str| format!("membarrier from pCPU {a}: {what}; {sorted}");
        bench.keep(
            name,
            Unit::Ns,
            &arrive,
            method("from the call to the victim's last look at its clock, system call included"),
        );
        let key = name.trim_start_matches("ipi.");
        bench.keep(&format!("other.ipi_round_trip_{key}"), Unit::Ns, &trip, method("the whole call"));
        bench.keep(&format!("other.ipi_stolen_{key}"), Unit::Ns, &stolen, method("what the victim lost"));
    }
    multicast(bench)
}

/// Most pCPUs that one call is sent to.
const MOST_VICTIMS: usize = 32;

/// `ipi.per_pcpu`: calls that reached 1, 2, 4, ... pCPUs of the own socket at once, waited for.
fn multicast(bench: &mut Bench<'_>) -> Result<(), String> {
    let home = bench.home_cpu();
    let package = bench.topology.pcpu(home).map_or(0, |p| p.package);
    let mut victims =
        bench.topology.one_a_core(&bench.allowed, |p| p.package == package && !p.core.contains(&home));
    victims.truncate(MOST_VICTIMS);
    if victims.len() < 3 {
        bench.miss(
            "ipi.per_pcpu",
            format!("needs four cores in one socket, and this process may use {}", victims.len() + 1),
        );
        return Ok(());
    }
    let sizes = [1, 2, 4, 8, 16, MOST_VICTIMS].into_iter().filter(|n| *n <= victims.len());
    let mut points = Vec::new();
    for n in sizes {
        let beats: Vec<Alone<AtomicU64>> = (0..n).map(|_| Alone(AtomicU64::new(0))).collect();
        let seen: Vec<&AtomicU64> = beats.iter().map(|b| &b.0).collect();
        let (calls, gaps) =
            beside_all(&victims[..n], home, |k, done| watch(done, &beats[k].0), || send(bench, &seen))?;
        let mut samples = Samples::default();
        for call in reached_all(&calls, &gaps) {
            samples.add(bench.ps(call.end - call.begin, 1), call.disturbed);
        }
        if samples.len() >= 20 {
            points.push((n as u64, samples));
        }
    }
    let method = format!(
        "membarrier from pCPU {home} to x others that run: the whole call, of calls that reached all of them"
    );
    let experiment = Experiment::of("ipi-multicast", method, "pCPUs", &points);
    match per_line("ipi.per_pcpu", &experiment) {
        Some(reading) => bench.readings.push(reading),
        None => bench.miss("ipi.per_pcpu", "too few calls reached all pCPUs while they ran"),
    }
    bench.experiments.push(experiment);
    Ok(())
}

/// The calls that made a gap with each victim.
fn reached_all(calls: &[Call], gaps: &[Vec<Gap>]) -> Vec<Call> {
    let mut left = calls.to_vec();
    for gaps in gaps {
        left = matched(&left, gaps).into_iter().map(|(call, _)| call).collect();
    }
    left
}

/// Looks at the clock all the time, notes where it was kept from it, and shows that it runs.
fn watch(done: &AtomicBool, beat: &AtomicU64) -> Vec<Gap> {
    let mut gaps = Vec::with_capacity(1 << 16);
    let mut last = cpu::now();
    let mut looks = 0;
    while !done.load(Ordering::Relaxed) {
        looks += 1;
        if looks == BEAT {
            looks = 0;
            beat.store(last, Ordering::Relaxed);
            // The line may have been with the sender: that was no interruption.
            last = cpu::now();
        }
        let now = cpu::now();
        if now - last > INTERRUPTED && gaps.len() < gaps.capacity() {
            gaps.push((last, now));
            last = cpu::now();
        } else {
            last = now;
        }
    }
    gaps
}

/// Calls while the victims run, with pauses of their own length, so that two do not run into one gap.
fn send(bench: &Bench<'_>, beats: &[&AtomicU64]) -> Vec<Call> {
    let limit = Duration::from_millis(if bench.quick || bench.is_late() { 3000 } else { 20_000 });
    let mut calls = Vec::new();
    let start = Instant::now();
    while start.elapsed() < limit && calls.len() < bench.count(1000) && !bench.stopped() {
        if beats.iter().any(|beat| cpu::now().saturating_sub(beat.load(Ordering::Relaxed)) > FRESH) {
            std::hint::spin_loop();
            continue;
        }
        let before = bench.disturbances();
        let begin = cpu::begin();
        os::membarrier();
        let end = cpu::end();
        calls.push(Call { begin, end, disturbed: bench.disturbances() != before });
        let pause = (end - begin).min(100_000);
        while cpu::now() < end + pause {
            std::hint::spin_loop();
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_matched_with_the_gaps_that_they_made() {
        let call = |begin, end| Call { begin, end, disturbed: false };
        let calls = [call(100, 200), call(300, 310), call(400, 500)];
        let gaps = [(50, 90), (150, 180), (250, 290), (450, 520)];
        let found = matched(&calls, &gaps);
        let pairs: Vec<_> = found.iter().map(|(c, g)| (c.begin, g.0)).collect();
        assert_eq!(pairs, [(100, 150), (400, 450)], "the call at 300 reached nobody");
        let both = reached_all(&calls, &[gaps.to_vec(), vec![(160, 170), (305, 308)]]);
        assert_eq!(both.iter().map(|c| c.begin).collect::<Vec<_>>(), [100], "the others missed one victim");
    }
}
