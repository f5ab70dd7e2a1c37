//! A calibration's result, and its text: TOML in the schema of a part file, plus whose numbers they are.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::noise::{self, Noise};
use crate::probe::{Host, Level, caveat};
use crate::stats::{Fit, Samples, Spread, fit};

/// The unit of a reading; values are in thousandths of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Nanoseconds: values are picoseconds.
    Ns,
    /// 10^9 bytes a second: values are MB/s.
    GbPerS,
    /// Clock: values are MHz.
    Ghz,
    /// Percent: values are thousandths of one.
    Percent,
    /// Things.
    Count,
    /// 1024 bytes.
    KiB,
}

impl Unit {
    /// As part files spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Unit::Ns => "ns",
            Unit::GbPerS => "GB/s",
            Unit::Ghz => "GHz",
            Unit::Percent => "percent",
            Unit::Count => "count",
            Unit::KiB => "KiB",
        }
    }
}

/// A number that was measured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reading {
    /// `SECTION.KEY` of a part file; `other.KEY` if a part has no such number.
    pub name: String,
    /// What `spread` is in thousandths of.
    pub unit: Unit,
    /// The value is the median; low and high are the percentiles 10 and 90.
    pub spread: Spread,
    /// How many samples.
    pub samples: usize,
    /// How many of them were disturbed.
    pub tagged: usize,
    /// How it was measured.
    pub method: String,
    /// Not measured: it follows from how another number is taken.
    pub derived: bool,
}

impl Reading {
    /// A reading of samples; nothing if there are none.
    #[must_use]
    pub fn of(name: &str, unit: Unit, samples: &Samples, method: impl Into<String>) -> Option<Reading> {
        let (spread, method) = (samples.spread()?, method.into());
        Some(Reading {
            name: name.to_owned(),
            unit,
            spread,
            samples: samples.len(),
            tagged: samples.tagged(),
            method,
            derived: false,
        })
    }

    /// What follows from how another number is taken, as the reason says.
    #[must_use]
    pub fn derived(name: &str, unit: Unit, value: u64, why: String) -> Reading {
        let spread = Spread { p10: value, p50: value, p90: value, p99: value };
        Reading { name: name.to_owned(), unit, spread, samples: 0, tagged: 0, method: why, derived: true }
    }
}

/// What was measured and held out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeldOutWork {
    /// CLFLUSH over this many lines of each state, which take turns, and a fence: the time of all of it.
    Clflush {
        /// Dirty lines.
        dirty: u64,
        /// Clean ones.
        clean: u64,
        /// Lines in no cache.
        absent: u64,
    },
    /// A random pointer chase: the time of a load.
    Chase {
        /// KiB of the working set.
        kib: u64,
    },
}

/// A measurement that no number of the profile was taken from: what a simulation must predict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldOut {
    /// What was measured.
    pub work: HeldOutWork,
    /// In picoseconds.
    pub spread: Spread,
    /// How many samples.
    pub samples: usize,
}

/// Points of an experiment, and the line through their medians.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Experiment {
    /// A word.
    pub name: String,
    /// What was done.
    pub method: String,
    /// What x counts.
    pub x: &'static str,
    /// x, percentiles in picoseconds, samples, disturbed samples.
    pub points: Vec<(u64, Spread, usize, usize)>,
    /// None with fewer than three points.
    pub fit: Option<Fit>,
}

impl Experiment {
    /// Fits the medians.
    #[must_use]
    pub fn of(name: &str, method: String, x: &'static str, points: &[(u64, Samples)]) -> Experiment {
        let point = |(x, s): &(u64, Samples)| Some((*x, s.spread()?, s.len(), s.tagged()));
        let points: Vec<_> = points.iter().filter_map(point).collect();
        let medians: Vec<(u64, u64)> = points.iter().map(|p| (p.0, p.1.p50)).collect();
        Experiment { name: name.to_owned(), method, x, fit: fit(&medians), points }
    }
}

/// A calibration's result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    /// Whose numbers they are.
    pub host: Host,
    /// When, in UTC.
    pub date: String,
    /// Ticks of the TSC, thousands a second.
    pub tsc_khz: u64,
    /// Cycles that reading the clock takes; subtracted everywhere.
    pub overhead: u64,
    /// The governor of the clock of the pCPU that measures alone, if there is one.
    pub governor: Option<String>,
    /// `quick` or `full`.
    pub kind: &'static str,
    /// Whether every step was done.
    pub complete: bool,
    /// What disturbed each step.
    pub noise: Vec<Noise>,
    /// The levels of the host.
    pub levels: Vec<Level>,
    /// What was measured.
    pub readings: Vec<Reading>,
    /// Series of measurements, and the lines through them.
    pub experiments: Vec<Experiment>,
    /// Held back from the numbers.
    pub held_out: Vec<HeldOut>,
    /// What was not, and why.
    pub missing: Vec<(String, String)>,
}

/// A number in thousandths as a decimal.
fn decimal(thousandths: u64) -> String {
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}

/// The same of one that may be negative.
fn signed(thousandths: i64) -> String {
    let sign = if thousandths < 0 { "-" } else { "" };
    format!("{sign}{}", decimal(thousandths.unsigned_abs()))
}

/// A text as TOML has it.
fn quoted(text: &str) -> String {
    let escape = |c: char| match c {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        c if c.is_control() => " ".to_owned(),
        c => c.to_string(),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}

/// The time of day and the date, in UTC.
#[must_use]
pub fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    utc(seconds)
}

fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let leap = |y: u64| y.is_multiple_of(4) && !y.is_multiple_of(100) || y.is_multiple_of(400);
    let (mut year, mut day) = (1970, days);
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", month + 1, day + 1)
}

impl Profile {
    /// As text.
    #[must_use]
    pub fn toml(&self) -> String {
        self.to_string()
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = &self.host;
        writeln!(out, "# Measured by sevsim calibrate; give it to --profile.")?;
        if let Some(name) = &host.hypervisor {
            writeln!(out, "# {}.", caveat(name))?;
        }
        writeln!(
            out,
            "schema = \"sevsim.profile/1\"\nkind = {}\ncomplete = {}",
            quoted(self.kind),
            self.complete
        )?;
        writeln!(out, "\n[host]")?;
        let hypervisor = host.hypervisor.as_deref().unwrap_or("none");
        for (key, value) in [
            ("name", host.name.as_str()),
            ("kernel", &host.kernel),
            ("cpu", &host.cpu),
            ("family", &host.family),
            ("microcode", &host.microcode),
            ("date", &self.date),
            ("under_hypervisor", hypervisor),
            ("governor", self.governor.as_deref().unwrap_or("none")),
        ] {
            writeln!(out, "{key} = {}", quoted(value))?;
        }
        writeln!(out, "tsc = {{ value = {}, unit = \"MHz\" }}", decimal(self.tsc_khz))?;
        let overhead = "a fenced pair of time stamps with nothing between; subtracted from every sample";
        writeln!(out, "timer = {{ value = {}, unit = \"cycles\", method = \"{overhead}\" }}", self.overhead)?;
        let all = noise::sum(&self.noise);
        writeln!(out, "\n[noise]\nquiet = {}\nsaid = {}", all.quiet().is_ok(), quoted(&all.said()))?;
        for step in &self.noise {
            let Noise { step, wall_ms, steal_ms, others_ms, interrupts, tagged, load, clock_mhz, .. } = step;
            let clock = clock_mhz.map_or(0, |c| c.0);
            writeln!(
                out,
                "step.{step} = {{ wall_ms = {wall_ms}, steal_ms = {steal_ms}, others_ms = {others_ms}, interrupts = \
                 {interrupts}, tagged = {tagged}, clock_mhz = {clock}, load = {} }}",
                quoted(load)
            )?;
        }
        writeln!(out, "\n[levels]")?;
        for level in &self.levels {
            let have = if level.have { "have" } else { "have not" };
            writeln!(out, "l{} = {}", level.level, quoted(&format!("{have}: {}", level.why)))?;
        }
        let mut sections: BTreeMap<&str, Vec<(&str, &Reading)>> = BTreeMap::new();
        for reading in &self.readings {
            let (section, key) = reading.name.split_once('.').unwrap_or(("other", &reading.name));
            sections.entry(section).or_default().push((key, reading));
        }
        for (section, readings) in sections {
            writeln!(out, "\n[{section}]")?;
            for (key, r) in readings {
                writeln!(
                    out,
                    "{key} = {{ value = {}, low = {}, high = {}, unit = \"{}\", samples = {}, tagged = {}{}, method = {} }}",
                    decimal(r.spread.p50),
                    decimal(r.spread.p10),
                    decimal(r.spread.p90),
                    r.unit.name(),
                    r.samples,
                    r.tagged,
                    if r.derived { ", derived = true" } else { "" },
                    quoted(&r.method)
                )?;
            }
        }
        if !self.missing.is_empty() {
            writeln!(out, "\n[missing]")?;
        }
        for (name, why) in &self.missing {
            writeln!(out, "{} = {}", quoted(name), quoted(why))?;
        }
        for experiment in &self.experiments {
            write!(out, "{experiment}")?;
        }
        for held in &self.held_out {
            let HeldOut { work, spread, samples } = held;
            writeln!(out, "\n[[held_out]]")?;
            match work {
                HeldOutWork::Clflush { dirty, clean, absent } => {
                    writeln!(out, "dirty = {dirty}\nclean = {clean}\nabsent = {absent}")?;
                }
                HeldOutWork::Chase { kib } => writeln!(out, "chase_kib = {kib}")?,
            }
            let (p50, p10, p90) = (decimal(spread.p50), decimal(spread.p10), decimal(spread.p90));
            writeln!(out, "value = {p50}\nlow = {p10}\nhigh = {p90}\nunit = \"ns\"\nsamples = {samples}")?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Experiment {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Experiment { name, method, x, points, fit } = self;
        writeln!(out, "\n[[experiment]]\nname = {}\nmethod = {}", quoted(name), quoted(method))?;
        writeln!(out, "x = \"{x}\"\nunit = \"ns\"")?;
        if let Some(fit) = fit {
            let (fixed, fixed_error) = (signed(fit.fixed), signed(fit.fixed_error));
            writeln!(out, "fixed = {{ value = {fixed}, error = {fixed_error} }}")?;
            let (slope, error) = (signed(fit.slope_milli / 1000), signed(fit.slope_error_milli / 1000));
            writeln!(out, "slope = {{ value = {slope}, error = {error} }}")?;
        }
        writeln!(out, "points = [")?;
        for (x, spread, samples, tagged) in points {
            let [p50, p10, p90] = [spread.p50, spread.p10, spread.p90].map(decimal);
            let residual =
                fit.map_or(String::new(), |f| format!(", residual = {}", signed(f.residual(*x, spread.p50))));
            writeln!(
                out,
                "  {{ x = {x}, value = {p50}, low = {p10}, high = {p90}, samples = {samples}, tagged = {tagged}{residual} }},"
            )?;
        }
        writeln!(out, "]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(utc(4_102_444_799), "2099-12-31T23:59:59Z");
    }

    #[test]
    fn texts_are_quoted() {
        assert_eq!(quoted("a \"b\"\\\n"), r#""a \"b\"\\ ""#);
        assert_eq!(decimal(12_005), "12.005");
        assert_eq!((signed(-5), signed(1200)), ("-0.005".to_owned(), "1.200".to_owned()));
    }
}
