//! What the simulated caches predict of a calibration's held-out measurements.
//!
//! The numbers of a profile come from some measurements; others were held out of every fit. The same work is done on the
//! simulated caches of a part that has the profile's numbers, and the times are compared.

use cache_model::hierarchy::{Hierarchy, LineRef};
use cache_model::part::Part;
use serde::Deserialize;
use sev_arch::{Access, CoreId, Tag};
use sim_core::random::Stream;

/// Loads of a simulated chase: after one pass over the working set, at least this many.
const LOADS: u64 = 20_000;

/// Percent of the median between low and high beyond which a measurement is too noisy to judge a prediction by.
pub const NOISY_PERCENT: u64 = 15;

/// Percent that a prediction may be off.
pub const BOUND_PERCENT: u64 = 15;

/// The part of a profile's file that is read here.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    held_out: Vec<HeldOut>,
}

#[derive(Deserialize)]
struct HeldOut {
    #[serde(default)]
    dirty: u64,
    #[serde(default)]
    clean: u64,
    #[serde(default)]
    absent: u64,
    chase_kib: Option<u64>,
    value: f64,
    low: f64,
    high: f64,
    unit: String,
}

/// How a prediction came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Within [`BOUND_PERCENT`].
    Met,
    /// Beyond it.
    Missed,
    /// The measurement is too noisy to say.
    Noisy,
}

/// A measurement and what was predicted of it, in picoseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prediction {
    /// What was measured, in words.
    pub what: String,
    /// Whether it is a pointer chase.
    pub is_chase: bool,
    /// What the simulation says.
    pub predicted: u64,
    /// The median.
    pub measured: u64,
    /// Percentiles 10 and 90.
    pub spread: (u64, u64),
}

impl Prediction {
    /// By how much the prediction is larger than the measurement, in tenths of a percent.
    #[must_use]
    pub fn error_permille(&self) -> i64 {
        let (p, m) = (i128::from(self.predicted), i128::from(self.measured));
        i64::try_from((p - m) * 1000 / m.max(1)).unwrap_or(i64::MAX)
    }

    /// How it came out.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if (self.spread.1 - self.spread.0) * 100 > self.measured * NOISY_PERCENT {
            Outcome::Noisy
        } else if self.error_permille().unsigned_abs() <= BOUND_PERCENT * 10 {
            Outcome::Met
        } else {
            Outcome::Missed
        }
    }
}

/// Predicts each held-out measurement of a profile with the caches of `part`, which has the profile's numbers.
///
/// # Errors
/// What is wrong with the file's held-out measurements.
pub fn validate(part: &Part, file: &str, text: &str) -> Result<Vec<Prediction>, String> {
    let wrong = |message: String| format!("{file}: held_out: {message}");
    let held: File = toml::from_str(text).map_err(|e| wrong(e.message().to_owned()))?;
    let one = part.with_pcpus(1).map_err(|e| e.to_string())?;
    held.held_out.iter().map(|held| predict(&one, held).map_err(wrong)).collect()
}

/// A time in nanoseconds, with at most three decimals, in picoseconds.
#[expect(
    clippy::float_arithmetic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked"
)]
fn picoseconds(ns: f64) -> Result<u64, String> {
    if ns.is_finite() && (0.001..1e9).contains(&ns) {
        Ok((ns * 1000.0).round() as u64)
    } else {
        Err(format!("{ns} is no time in ns"))
    }
}

fn predict(part: &Part, held: &HeldOut) -> Result<Prediction, String> {
    if held.unit != "ns" {
        return Err(format!("unit = \"{}\": expected \"ns\"", held.unit));
    }
    let spread = (picoseconds(held.low)?, picoseconds(held.high)?);
    let measured = picoseconds(held.value)?;
    if !(spread.0 <= measured && measured <= spread.1) {
        return Err("expected low <= value <= high".to_owned());
    }
    let (what, milli) = match held.chase_kib {
        Some(kib) => {
            if kib == 0 || kib > 1 << 20 {
                return Err(format!("chase_kib = {kib}: expected 1 to 1048576"));
            }
            (format!("a load of a pointer chase over {kib} KiB"), chase(part, kib))
        }
        None => {
            let lines = [(held.dirty, "dirty"), (held.clean, "clean"), (held.absent, "absent")];
            let all: u64 = lines.iter().map(|(n, _)| n).sum();
            if all == 0 || lines.iter().any(|(n, _)| *n > 1 << 20) {
                return Err(
                    "expected `chase_kib`, or `dirty`, `clean` and `absent` of at most 1048576 lines"
                        .to_owned(),
                );
            }
            let some = lines.iter().filter(|(n, _)| *n > 0).map(|(n, state)| format!("{n} {state}"));
            let what = format!("CLFLUSH of {} lines", some.collect::<Vec<_>>().join(", "));
            (what, clflush(part, lines.map(|(n, _)| n)))
        }
    };
    let timing = part.timing(cache_model::part::Level::Typical);
    let predicted = timing.ps_of_cycles_milli(milli);
    Ok(Prediction { what, is_chase: held.chase_kib.is_some(), predicted, measured, spread })
}

/// The lines of a working set in huge pages, as the calibration's are.
fn lines(count: u64) -> Vec<LineRef> {
    let count = u32::try_from(count).unwrap_or(LineRef::PHYS_LIMIT).min(LineRef::PHYS_LIMIT);
    (0..count).map(|phys| LineRef { phys, tag: Tag::HOST }).collect()
}

fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut random = Stream::new(seed, 1, 0);
    for last in (1..items.len()).rev() {
        let other = random.below(last as u64 + 1);
        items.swap(last, usize::try_from(other).unwrap_or(last));
    }
}

/// Thousandths of a cycle that CLFLUSH of lines takes, dirty, clean and absent ones by turns, and its fence.
fn clflush(part: &Part, mut left: [u64; 3]) -> u64 {
    let mut caches = Hierarchy::new(part);
    let set = lines(left.iter().sum());
    let mut next = set.iter();
    let mut now = 0;
    while left.iter().any(|n| *n > 0) {
        for (state, n) in left.iter_mut().enumerate().filter(|(_, n)| **n > 0) {
            *n -= 1;
            let access = if state == 0 { Access::Write } else { Access::Read };
            if let Some(line) = next.next().filter(|_| state < 2) {
                now += u64::from(caches.access(CoreId(0), *line, access, now).cycles);
            }
        }
    }
    let timing = part.timing(cache_model::part::Level::Typical);
    let mut milli = timing.clflush_drain * 1000;
    for line in set {
        let found = caches.clflush(line, now + milli / 1000);
        milli += caches.clflush_cycles_milli(found);
    }
    milli
}

/// Thousandths of a cycle that a load of a chase takes, once the working set has been gone over.
fn chase(part: &Part, kib: u64) -> u64 {
    let mut caches = Hierarchy::new(part);
    let mut order = lines(kib * 16);
    shuffle(&mut order, 3);
    let mut now = 0;
    let mut load = |line: &LineRef| {
        let cycles = u64::from(caches.access(CoreId(0), *line, Access::Read, now).cycles);
        now += cycles;
        cycles
    };
    for line in &order {
        load(line);
    }
    let loads = LOADS.max(order.len() as u64);
    let cycles: u64 = order.iter().cycle().take(usize::try_from(loads).unwrap_or(usize::MAX)).map(load).sum();
    cycles * 1000 / loads
}
