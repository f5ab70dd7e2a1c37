//! Amounts with their units: times, progress, bandwidths.

use cache_model::part::Timing;
use serde::Deserialize;
use svm_model::timed::{Pace, Point};

/// A duration with its unit, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Duration {
    /// Nanoseconds.
    pub ns: u64,
}

impl TryFrom<String> for Duration {
    type Error = String;

    fn try_from(text: String) -> Result<Duration, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let scale = match unit.trim() {
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "" => return Err(format!("missing unit in '{text}': expected a time such as 200us or 5ms")),
            _ => return Err(format!("unknown unit in '{text}': expected ns, us, ms or s")),
        };
        let number: u64 = number.parse().map_err(|_| format!("'{text}' is no time: expected e.g. 200us"))?;
        let ns = number.checked_mul(scale).ok_or_else(|| format!("'{text}' is too long"))?;
        Ok(Duration { ns })
    }
}

/// How often something happens: a time such as `500us`, or guests' progress such as `50000 accesses`.
///
/// Runs of several policies do the same work only if it is paced by progress: a slower run meets more reclaims of
/// the clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub enum Every {
    /// By the clock.
    Time(Duration),
    /// By progress.
    Accesses(u64),
}

impl TryFrom<String> for Every {
    type Error = String;

    fn try_from(text: String) -> Result<Every, String> {
        let every = match text.strip_suffix("accesses") {
            Some(number) => {
                let wrong = |_| format!("'{text}' is no number of accesses: expected e.g. 50000 accesses");
                Every::Accesses(number.trim().parse().map_err(wrong)?)
            }
            None => {
                let more = |error| format!("{error}, or guests' progress such as 50000 accesses");
                Every::Time(Duration::try_from(text.clone()).map_err(more)?)
            }
        };
        match every {
            Every::Time(Duration { ns: 0 }) | Every::Accesses(0) => {
                Err(format!("'{text}': expected more than 0"))
            }
            Every::Time(_) | Every::Accesses(_) => Ok(every),
        }
    }
}

impl Every {
    pub(super) fn pace(self, timing: &Timing) -> Pace {
        match self {
            Every::Time(time) => Pace::Cycles(timing.cycles_of_ns(time.ns).max(1)),
            Every::Accesses(n) => Pace::Accesses(n),
        }
    }
}

impl Every {
    /// The same amount as a point: so long, or so many accesses, from the start.
    pub(super) fn point(self, timing: &Timing) -> Point {
        match self {
            Every::Time(time) => Point::Cycles(timing.cycles_of_ns(time.ns)),
            Every::Accesses(n) => Point::Accesses(n),
        }
    }
}

/// A bandwidth with its unit, in MB/s (10^6 bytes a second).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Bandwidth {
    /// MB/s.
    pub mb_s: u64,
}

impl TryFrom<String> for Bandwidth {
    type Error = String;

    fn try_from(text: String) -> Result<Bandwidth, String> {
        let wrong = || format!("'{text}' is no bandwidth: expected e.g. 12 GB/s or 800 MB/s");
        let (number, thousands) = match (text.strip_suffix("GB/s"), text.strip_suffix("MB/s")) {
            (Some(number), _) => (number.trim(), true),
            (None, Some(number)) => (number.trim(), false),
            (None, None) => return Err(wrong()),
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty()
            || !digits(whole)
            || !digits(part)
            || part.len() > 3
            || !part.is_empty() && !thousands
        {
            return Err(wrong());
        }
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        let part: u64 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
        let mb_s = if thousands { whole.saturating_mul(1000).saturating_add(part) } else { whole };
        match mb_s {
            1..=1_000_000 => Ok(Bandwidth { mb_s }),
            _ => Err(format!("'{text}': expected from 1 MB/s to 1000 GB/s")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidths_have_a_unit_and_a_range() {
        let read = |text: &str| Bandwidth::try_from(text.to_owned()).map(|b| b.mb_s);
        assert_eq!(read("12 GB/s"), Ok(12_000));
        assert_eq!(read("12.5GB/s"), Ok(12_500));
        assert_eq!(read("0.001 GB/s"), Ok(1));
        assert_eq!(read("800 MB/s"), Ok(800));
        for wrong in
            ["12", "GB/s", "-1 GB/s", "0 MB/s", "1.5 MB/s", "1.2345 GB/s", "1e3 MB/s", "9999999 GB/s"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
