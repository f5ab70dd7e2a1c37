//! A calibration's result, and its text: TOML in the schema of a part file, plus whose numbers they are.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::probe::{Host, Level};
use crate::stats::{Samples, Spread};

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
    /// How many of them were disturbed by a context switch.
    pub tagged: usize,
    /// How it was measured.
    pub method: String,
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
        })
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

/// What disturbed the calibration.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Noise {
    /// Milliseconds that the hypervisor took from the pCPUs meanwhile.
    pub steal_ms: u64,
    /// Load average at the end, as the kernel prints it.
    pub load: String,
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
    /// `quick` or `full`.
    pub kind: &'static str,
    /// Whether every step was done.
    pub complete: bool,
    /// What disturbed it.
    pub noise: Noise,
    /// The levels of the host.
    pub levels: Vec<Level>,
    /// What was measured.
    pub readings: Vec<Reading>,
    /// Held back from the numbers.
    pub held_out: Vec<HeldOut>,
    /// What was not, and why.
    pub missing: Vec<(String, String)>,
}

/// A number in thousandths as a decimal.
fn decimal(thousandths: u64) -> String {
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
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
            writeln!(out, "# IN A VM ({name}): these are a guest's numbers, not the processor's.")?;
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
        ] {
            writeln!(out, "{key} = {}", quoted(value))?;
        }
        writeln!(out, "tsc = {{ value = {}, unit = \"MHz\" }}", decimal(self.tsc_khz))?;
        let overhead = "a fenced pair of time stamps with nothing between; subtracted from every sample";
        writeln!(out, "timer = {{ value = {}, unit = \"cycles\", method = \"{overhead}\" }}", self.overhead)?;
        writeln!(out, "\n[noise]\nsteal_ms = {}\nload = {}", self.noise.steal_ms, quoted(&self.noise.load))?;
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
                    "{key} = {{ value = {}, low = {}, high = {}, unit = \"{}\", samples = {}, tagged = {}, method = {} }}",
                    decimal(r.spread.p50),
                    decimal(r.spread.p10),
                    decimal(r.spread.p90),
                    r.unit.name(),
                    r.samples,
                    r.tagged,
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
    }
}
