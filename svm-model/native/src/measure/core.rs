//! The core: its clock, and a locked addition.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Alone, Bench, narrow};
use crate::cpu;
use crate::profile::Unit;

/// Times twenty additions of a sample.
const ROUNDS: u64 = 20_000;

/// The clock right now, in MHz: whether it stays the same is worth knowing. 0 if the thread cannot be pinned.
#[must_use]
pub fn clock_now(bench: &Bench<'_>) -> u64 {
    let Ok(_pinned) = bench.home() else { return 0 };
    // Short ones, of which one at least is not interrupted.
    const SHORT: u64 = ROUNDS / 20;
    let fastest = (0..50).map(|_| {
        let begin = cpu::begin();
        cpu::twenty_adds(SHORT);
        bench.ps(cpu::end() - begin, 1)
    });
    narrow(u128::from(20 * SHORT) * 1_000_000 / u128::from(fastest.min().unwrap_or(1).max(1)))
}

/// `core.clock`: additions that wait for each other, against the TSC.
///
/// # Errors
/// The thread cannot be pinned.
pub fn clock(bench: &mut Bench<'_>) -> Result<(), String> {
    let _pinned = bench.home()?;
    cpu::twenty_adds(50 * ROUNDS);
    let times = bench.sample(100, 1, || {
        let begin = cpu::begin();
        cpu::twenty_adds(ROUNDS);
        cpu::end() - begin
    });
    // Picoseconds of all of it, turned into MHz.
    let samples = times.map(|ps| narrow(u128::from(20 * ROUNDS) * 1_000_000 / u128::from(ps.max(1))));
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
