//! Time as the benches measure it: what this thread got of a processor, not what others took meanwhile.
#![allow(clippy::float_arithmetic, reason = "times of the host")]
#![allow(dead_code, reason = "not every bench uses all of it")]

use std::time::Duration;

/// Processor time of this thread.
#[cfg(unix)]
pub(crate) fn now() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec.unsigned_abs(), u32::try_from(t.tv_nsec).unwrap_or(0))
}

#[cfg(not(unix))]
pub(crate) fn now() -> Duration {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// The time that something takes, in ns, and its result.
pub(crate) fn timed<R>(f: impl FnOnce() -> R) -> (f64, R) {
    let start = now();
    let result = f();
    ((now() - start).as_secs_f64() * 1e9, result)
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Whether the bench is only to be tried, at a tiny size: `cargo bench -- --test`.
pub(crate) fn tiny() -> bool {
    std::env::args().any(|arg| arg == "--test")
}
