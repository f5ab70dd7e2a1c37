//! The measurements: each a function of a [`Bench`] that gives readings or says why not.
//!
//! *Promise*: the timer's own cost is subtracted; a sample in which the thread was switched away, or took an interrupt if
//! that can be counted, is tagged, not dropped; a request to stop is honoured within a sample.

mod core;
mod dirty;
mod guests;
mod latency;
mod lines;
mod sev;
mod system;
mod write_back;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::cpuid::Cpuid;
use crate::perf::Counter;
use crate::profile::{Experiment, HeldOut, Reading, Unit};
use crate::stats::Samples;
use crate::topology::Topology;
use crate::{cpu, os};

pub use self::core::{atomics, clock, clock_now};
pub use dirty::dirty;
pub use guests::guests;
pub use latency::{core_to_core, ladder};
pub use lines::{flush, per_line};
pub use sev::sev;
pub use system::{ipi, locks, syscall};
pub use write_back::{counts, write_back};

/// A word on a line of its own.
#[repr(align(128))]
struct Alone<T>(T);

/// Samples of a series that begins when the time is over.
const FEW: usize = 5;

/// Interrupts, as the kernel's tracepoints name them.
const INTERRUPTS: [&str; 5] = [
    "irq_vectors/local_timer_entry",
    "irq_vectors/reschedule_entry",
    "irq_vectors/call_function_entry",
    "irq_vectors/call_function_single_entry",
    "irq/irq_handler_entry",
];

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
    /// Interrupts of the thread that measures, or why they cannot be counted.
    pub interrupts: Result<Counter, String>,
    /// When it began.
    pub began: Instant,
    /// Samples tagged so far.
    pub tagged: AtomicUsize,
    /// What was found.
    pub readings: Vec<Reading>,
    /// Series.
    pub experiments: Vec<Experiment>,
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
            interrupts: Counter::of(&INTERRUPTS),
            began: Instant::now(),
            tagged: AtomicUsize::new(0),
            readings: Vec::new(),
            experiments: Vec::new(),
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

    /// Bytes of the data cache of a level.
    fn cache(&self, level: u32, default: u64) -> usize {
        let caches = self.cpuid.caches();
        let bytes = caches.iter().find(|c| c.level == level && c.data).map_or(default, |c| c.bytes);
        usize::try_from(bytes).unwrap_or(0)
    }

    /// What has disturbed this thread so far.
    pub(crate) fn disturbances(&self) -> u64 {
        os::preemptions() + self.interrupts.as_ref().map_or(0, Counter::get)
    }

    fn home(&self) -> Result<os::Pinned, String> {
        pin(self.home_cpu())
    }

    /// Whether somebody wants an end.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether the time for all of it is over: under 60 seconds in a hurry, 15 minutes otherwise, with some left for an end.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.began.elapsed() > Duration::from_secs(if self.quick { 45 } else { 12 * 60 })
    }

    /// `n` samples when in a hurry, twenty times as many otherwise, and a few when the time is over.
    fn count(&self, n: usize) -> usize {
        if self.is_late() {
            n.min(FEW)
        } else if self.quick {
            n
        } else {
            n * 20
        }
    }

    /// Picoseconds of `cycles` of the TSC, the timer's own subtracted, over `ops`.
    fn ps(&self, cycles: u64, ops: u64) -> u64 {
        let cycles = u128::from(cycles.saturating_sub(self.overhead));
        narrow(cycles * 1_000_000_000 / u128::from(self.tsc_khz) / u128::from(ops.max(1)))
    }

    /// Takes samples of a function that gives cycles, of `ops` operations each; at most two seconds (ten if not in
    /// a hurry, a fifth of one when the time is over).
    fn sample(&self, count: usize, ops: u64, mut one: impl FnMut() -> u64) -> Samples {
        let limit = match (self.is_late(), self.quick) {
            (true, _) => Duration::from_millis(200),
            (_, true) => Duration::from_secs(2),
            _ => Duration::from_secs(10),
        };
        let begin = Instant::now();
        let mut samples = Samples::default();
        for _ in 0..self.count(count) {
            if self.stopped() || begin.elapsed() > limit {
                break;
            }
            let before = self.disturbances();
            let cycles = one();
            samples.add(self.ps(cycles, ops), self.disturbances() != before);
        }
        self.tagged.fetch_add(samples.tagged(), Ordering::Relaxed);
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
    work: impl Fn(&AtomicBool) -> W + Sync,
    meanwhile: impl FnOnce() -> R,
) -> Result<(R, W), String> {
    let (result, mut all) = beside_all(&[other], here, |_, done| work(done), meanwhile)?;
    let work = all.pop().ok_or("a measuring thread is missing")?;
    Ok((result, work))
}

/// The same with a thread on each of several pCPUs, each told which of them it is.
fn beside_all<W: Send, R>(
    others: &[usize],
    here: usize,
    work: impl Fn(usize, &AtomicBool) -> W + Sync,
    meanwhile: impl FnOnce() -> R,
) -> Result<(R, Vec<W>), String> {
    let (done, ready) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let (done, ready, work) = (&done, &ready, &work);
        let thread = |(n, cpu): (usize, &usize)| {
            let cpu = *cpu;
            scope.spawn(move || {
                let pinned = pin(cpu);
                ready.fetch_add(1, Ordering::Release);
                pinned.map(|_pinned| work(n, done))
            })
        };
        let threads: Vec<_> = others.iter().enumerate().map(thread).collect();
        let pinned = pin(here);
        while ready.load(Ordering::Acquire) < others.len() {
            std::thread::yield_now();
        }
        let result = pinned.map(|_pinned| meanwhile());
        done.store(true, Ordering::Release);
        let joined =
            threads.into_iter().map(|t| t.join().map_err(|_| "a measuring thread died".to_owned())?);
        let all: Vec<W> = joined.collect::<Result<_, _>>()?;
        Ok((result?, all))
    })
}
