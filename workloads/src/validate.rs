//! What the simulated caches predict of a calibration's held-out measurements.
//!
//! The numbers of a profile come from some measurements; others were held out of every fit. The same work is done on the
//! simulated caches of a part that has the profile's numbers, and the times are compared.

pub mod agree;
mod chase;

use cache_model::hierarchy::{Hierarchy, LineRef};
use cache_model::part::{Level, Part};
use chase::Tlb;
use serde::Deserialize;
use sev_arch::{Access, CoreId, Tag};

/// The levels that are predicted with: the middle one is the prediction, the others its range.
const LEVELS: [Level; 3] = [Level::Low, Level::Typical, Level::High];

/// The series from which the L2's rule of replacement is chosen.
const OVERFLOW: &str = "l2-overflow";

/// Percent of the median between low and high beyond which a measurement is too noisy to judge a prediction by.
pub const NOISY_PERCENT: u64 = 15;

/// Percent that a prediction may be off.
pub const BOUND_PERCENT: u64 = 15;

/// The part of a profile's file that is read here.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    held_out: Vec<HeldOut>,
    #[serde(default)]
    experiment: Vec<Experiment>,
    translation: Option<Translation>,
    noise: Option<Noise>,
}

/// How quiet the host was while it was measured.
#[derive(Deserialize)]
struct Noise {
    quiet: bool,
}

/// A series of measurements.
#[derive(Deserialize)]
struct Experiment {
    name: String,
    #[serde(default)]
    points: Vec<Point>,
}

#[derive(Deserialize)]
struct Point {
    x: u64,
    value: f64,
}

/// What the translation of addresses was found to cost.
#[derive(Deserialize)]
struct Translation {
    page: Value,
    entries: Option<Value>,
    miss: Option<Value>,
}

#[derive(Deserialize)]
struct Value {
    value: f64,
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
    /// The numbers that it is predicted from are too uncertain to say.
    Unsure,
}

/// A measurement and what was predicted of it, in picoseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prediction {
    /// What was measured, in words.
    pub what: String,
    /// Whether it is a pointer chase.
    pub is_chase: bool,
    /// What the simulation says with the profile's medians.
    pub predicted: u64,
    /// What it says with the low and with the high values of the profile.
    pub range: (u64, u64),
    /// The median.
    pub measured: u64,
    /// Percentiles 10 and 90.
    pub spread: (u64, u64),
    /// Whether the host was quiet.
    pub quiet: bool,
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
        let bound = |ps: u64, percent: u64| ps * percent / 100;
        let low = bound(self.range.0, 100 - BOUND_PERCENT);
        let high = bound(self.range.1, 100 + BOUND_PERCENT);
        if (self.spread.1 - self.spread.0) * 100 > self.measured * NOISY_PERCENT {
            Outcome::Noisy
        } else if self.error_permille().unsigned_abs() <= BOUND_PERCENT * 10 {
            Outcome::Met
        } else if (low..=high).contains(&self.measured) {
            Outcome::Unsure
        } else if self.quiet {
            Outcome::Missed
        } else {
            // What others on the host do shifts a median as well as it spreads the samples.
            Outcome::Noisy
        }
    }
}

/// All predictions, and what was chosen to make them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Validation {
    /// One of each held-out measurement.
    pub predictions: Vec<Prediction>,
    /// What the caches are simulated with that no part's number says: pages, TLB, the L2's replacement.
    pub with: Vec<String>,
}

/// Predicts each held-out measurement of a profile with the caches of `part`, which has the profile's numbers.
///
/// # Errors
/// What is wrong with the file's held-out measurements.
pub fn validate(part: &Part, file: &str, text: &str) -> Result<Validation, String> {
    let wrong = |message: String| format!("{file}: held_out: {message}");
    let file: File = toml::from_str(text).map_err(|e| wrong(e.message().to_owned()))?;
    let one = part.with_pcpus(1).map_err(|e| e.to_string())?;
    let tlb = Tlb::of(file.translation.as_ref()).map_err(wrong)?;
    let mut with = vec![tlb.said()];
    let one = match file.experiment.iter().find(|e| e.name == OVERFLOW && !e.points.is_empty()) {
        None => one,
        Some(measured) => {
            let (chosen, said) = chase::fitting(&one, &tlb, measured).map_err(wrong)?;
            with.push(said);
            chosen
        }
    };
    let predictions = file
        .held_out
        .iter()
        .map(|held| predict(&one, &tlb, held, file.noise.as_ref().is_none_or(|n| n.quiet)).map_err(wrong))
        .collect::<Result<_, _>>()?;
    Ok(Validation { predictions, with })
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

fn predict(part: &Part, tlb: &Tlb, held: &HeldOut, quiet: bool) -> Result<Prediction, String> {
    if held.unit != "ns" {
        return Err(format!("unit = \"{}\": expected \"ns\"", held.unit));
    }
    let spread = (picoseconds(held.low)?, picoseconds(held.high)?);
    let measured = picoseconds(held.value)?;
    if !(spread.0 <= measured && measured <= spread.1) {
        return Err("expected low <= value <= high".to_owned());
    }
    let (what, predicted) = match held.chase_kib {
        Some(kib) => {
            if kib == 0 || kib > 1 << 20 {
                return Err(format!("chase_kib = {kib}: expected 1 to 1048576"));
            }
            (
                format!("a load of a pointer chase over {kib} KiB"),
                LEVELS.map(|level| chase::chase(part, tlb, kib, level)),
            )
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
            (what, LEVELS.map(|level| clflush(part, lines.map(|(n, _)| n), level)))
        }
    };
    let [low, predicted, high] = predicted;
    let range = (low.min(predicted), high.max(predicted));
    Ok(Prediction { what, is_chase: held.chase_kib.is_some(), predicted, range, measured, spread, quiet })
}

/// Picoseconds that CLFLUSH of lines takes, dirty, clean and absent ones by turns, and its fence.
fn clflush(part: &Part, mut left: [u64; 3], level: Level) -> u64 {
    let timing = part.timing(level);
    let count = u32::try_from(left.iter().sum::<u64>()).unwrap_or(LineRef::PHYS_LIMIT);
    let mut caches = Hierarchy::with(part, &timing, count.next_power_of_two().max(1 << 15));
    let set: Vec<LineRef> = (0..count).map(|phys| LineRef { phys, tag: Tag::HOST }).collect();
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
    let mut milli = timing.clflush_drain * 1000;
    for line in set {
        let found = caches.clflush(line, now + milli / 1000);
        milli += caches.clflush_cycles_milli(found);
    }
    timing.ps_of_cycles_milli(milli)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prediction(predicted: u64, range: (u64, u64), spread: (u64, u64)) -> Outcome {
        on(true, predicted, range, spread)
    }

    fn on(quiet: bool, predicted: u64, range: (u64, u64), spread: (u64, u64)) -> Outcome {
        let what = String::new();
        Prediction { what, is_chase: false, predicted, range, measured: 1000, spread, quiet }.outcome()
    }

    #[test]
    fn outcomes_say_whether_the_measurement_or_the_prediction_is_to_blame() {
        assert_eq!(prediction(1150, (1150, 1150), (1000, 1150)), Outcome::Met);
        assert_eq!(
            prediction(1151, (1151, 1151), (1000, 1150)),
            Outcome::Unsure,
            "the range counts as wide as the bound"
        );
        assert_eq!(prediction(1300, (1300, 1300), (1000, 1150)), Outcome::Missed);
        assert_eq!(prediction(1300, (900, 1400), (1000, 1150)), Outcome::Unsure);
        assert_eq!(prediction(1000, (1000, 1000), (1000, 1151)), Outcome::Noisy);
        assert_eq!(on(false, 1300, (1300, 1300), (1000, 1150)), Outcome::Noisy, "the host was not quiet");
        assert_eq!(on(false, 1150, (1150, 1150), (1000, 1150)), Outcome::Met);
    }
}
