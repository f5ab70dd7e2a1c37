//! The measurements: each a function of a [`Bench`] that gives readings or says why not.
//!
//! *Promise*: the timer's own cost is subtracted; a sample in which the thread was switched away is tagged, not
//! dropped; a request to stop is honoured within a sample.

mod caches;
mod guests;
mod system;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::cpuid::Cpuid;
use crate::profile::{HeldOut, Reading, Unit};
use crate::stats::Samples;
use crate::topology::Topology;
use crate::{cpu, os};

pub use caches::{atomics, clock, core_to_core, flush, ladder, write_back};
pub use guests::guests;
pub use system::{ipi, locks, syscall};

/// What a measurement works with.
#[derive(Debug)]
pub struct Bench<'a> {
    /// Ticks of the TSC, thousands a second.
    pub tsc_khz: u64,
    /// Cycles of the timer itself.
    pub overhead: u64,
    /// pCPUs that this process may use.
    pub allowed: Vec<usize>,
    /// Who shares what.
    pub topology: Topology,
    /// What the CPU can.
    pub cpuid: Cpuid,
    /// Whether to hurry.
    pub quick: bool,
    /// Set when somebody wants an end.
    pub stop: &'a AtomicBool,
    /// What was found.
    pub readings: Vec<Reading>,
    /// What was found and not used.
    pub held_out: Vec<HeldOut>,
    /// What was not found, and why.
    pub missing: Vec<(String, String)>,
}

impl<'a> Bench<'a> {
    /// Measures the clock itself.
    ///
    /// # Errors
    /// The process may not ask where it may run.
    pub fn new(
        topology: Topology,
        cpuid: Cpuid,
        quick: bool,
        stop: &'a AtomicBool,
    ) -> Result<Bench<'a>, String> {
        let allowed = os::affinity().map_err(|e| format!("sched_getaffinity: {e}"))?.members();
        let mut bench = Bench {
            tsc_khz: tsc_khz(),
            overhead: 0,
            allowed,
            topology,
            cpuid,
            quick,
            stop,
            readings: Vec::new(),
            held_out: Vec::new(),
            missing: Vec::new(),
        };
        let _pinned = bench.home()?;
        let mut samples = Samples::default();
        for _ in 0..2000 {
            let begin = cpu::begin();
            samples.add(cpu::end() - begin, false);
        }
        bench.overhead = samples.spread().map_or(0, |s| s.p50);
        Ok(bench)
    }

    /// The pCPU that a single thread is measured on: the last allowed one, which interrupts like least.
    #[must_use]
    pub fn home_cpu(&self) -> usize {
        self.allowed.last().copied().unwrap_or(0)
    }

    fn home(&self) -> Result<os::Pinned, String> {
        pin(self.home_cpu())
    }

    /// Whether somebody wants an end.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// `n` samples when in a hurry, five times as many otherwise.
    fn count(&self, n: usize) -> usize {
        if self.quick { n } else { n * 5 }
    }

    /// Picoseconds of `cycles` of the TSC, the timer's own subtracted, over `ops`.
    fn ps(&self, cycles: u64, ops: u64) -> u64 {
        let cycles = u128::from(cycles.saturating_sub(self.overhead));
        narrow(cycles * 1_000_000_000 / u128::from(self.tsc_khz) / u128::from(ops.max(1)))
    }

    /// Takes samples of a function that gives cycles, of `ops` operations each; at most two seconds (ten if not in
    /// a hurry).
    fn sample(&self, count: usize, ops: u64, mut one: impl FnMut() -> u64) -> Samples {
        let limit = Duration::from_secs(if self.quick { 2 } else { 10 });
        let begin = Instant::now();
        let mut samples = Samples::default();
        for _ in 0..self.count(count) {
            if self.stopped() || begin.elapsed() > limit {
                break;
            }
            let before = os::switches();
            let cycles = one();
            samples.add(self.ps(cycles, ops), os::switches() != before);
        }
        samples
    }

    /// Keeps a reading, if there are samples.
    fn keep(&mut self, name: &str, unit: Unit, samples: &Samples, method: impl Into<String>) {
        self.readings.extend(Reading::of(name, unit, samples, method));
    }

    /// Notes why there is none.
    fn miss(&mut self, name: &str, why: impl Into<String>) {
        self.missing.push((name.to_owned(), why.into()));
    }
}

fn pin(cpu: usize) -> Result<os::Pinned, String> {
    os::Pinned::to(cpu).map_err(|e| format!("sched_setaffinity to pCPU {cpu}: {e}"))
}

fn narrow(n: u128) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// The TSC's rate against the monotonic clock.
fn tsc_khz() -> u64 {
    let (begin, time) = (cpu::begin(), Instant::now());
    while time.elapsed() < Duration::from_millis(50) {
        std::hint::spin_loop();
    }
    let (end, time) = (cpu::end(), time.elapsed());
    narrow(u128::from(end - begin) * 1_000_000 / time.as_nanos().max(1))
}

/// Runs `work` on a thread of its own on a pCPU while `meanwhile` runs here on another; `work` must end when told.
fn beside<W: Send, R>(
    other: usize,
    here: usize,
    work: impl FnOnce(&AtomicBool) -> W + Send,
    meanwhile: impl FnOnce() -> R,
) -> Result<(R, W), String> {
    let (done, ready) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let pinned = pin(other);
            ready.store(true, Ordering::Release);
            pinned.map(|_pinned| work(&done))
        });
        let pinned = pin(here);
        while !ready.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        let result = pinned.map(|_pinned| meanwhile());
        done.store(true, Ordering::Release);
        let work = thread.join().map_err(|_| "a measuring thread died".to_owned())??;
        Ok((result?, work))
    })
}
