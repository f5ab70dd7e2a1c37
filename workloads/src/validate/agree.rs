//! How far two calibrations of one host, or of two like it, agree.

use toml::Table;

/// Percent by which the median number of two calibrations of a quiet host may differ.
pub const AGREE_PERCENT: u64 = 5;

/// Percent by which a number of two calibrations may differ before it is counted as far off: a median hides the worst.
pub const FAR_PERCENT: u64 = 25;

/// Tables of a profile that hold no numbers.
const OTHERS: [&str; 4] = ["host", "noise", "levels", "missing"];

/// A number of both calibrations, in thousandths of its unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    /// `SECTION.KEY`.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// In the first.
    pub first: u64,
    /// In the second.
    pub second: u64,
}

impl Pair {
    /// By how much the second is larger than the first, in tenths of a percent.
    #[must_use]
    pub fn difference_permille(&self) -> i64 {
        let (a, b) = (i128::from(self.first), i128::from(self.second));
        i64::try_from((b - a) * 1000 / a.max(1)).unwrap_or(i64::MAX)
    }
}

/// Two calibrations compared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Agreement {
    /// What both have.
    pub pairs: Vec<Pair>,
    /// The median of the differences without their signs, in tenths of a percent.
    pub median_permille: u64,
    /// How quiet each host was, in its own words.
    pub said: [String; 2],
    /// Whether both were quiet.
    pub quiet: bool,
}

#[expect(
    clippy::float_arithmetic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "checked"
)]
fn thousandths(value: &toml::Value) -> Option<u64> {
    let value = value.as_float().or_else(|| value.as_integer().map(|n| n as f64))?;
    (value.is_finite() && (0.0..1e15).contains(&value)).then(|| (value * 1000.0).round() as u64)
}

/// Compares the numbers of two profiles; the names are for error messages.
///
/// # Errors
/// A text is no profile, or they have no number in common.
pub fn agree(first: (&str, &str), second: (&str, &str)) -> Result<Agreement, String> {
    let read = |(file, text): (&str, &str)| -> Result<Table, String> {
        let table: Table = toml::from_str(text).map_err(|e| format!("{file}: {}", e.message()))?;
        let schema = table.get("schema").and_then(|s| s.as_str()).unwrap_or_default();
        if schema == "sevsim.profile/1" {
            Ok(table)
        } else {
            Err(format!(
                "{file}: `schema` is \"{schema}\"; expected \"sevsim.profile/1\", as sevsim calibrate writes it"
            ))
        }
    };
    let (a, b) = (read(first)?, read(second)?);
    let mut pairs = Vec::new();
    for (section, numbers) in a.iter().filter(|(s, _)| !OTHERS.contains(&s.as_str())) {
        let Some(numbers) = numbers.as_table() else { continue };
        for (key, number) in numbers {
            // What was not measured agrees with itself.
            let of = |number: &toml::Value| {
                if number.get("derived").and_then(toml::Value::as_bool) == Some(true) {
                    return None;
                }
                Some((thousandths(number.get("value")?)?, number.get("unit")?.as_str()?.to_owned()))
            };
            let other = b.get(section).and_then(|s| s.get(key)).and_then(of);
            let (Some((first, unit)), Some((second, other))) = (of(number), other) else { continue };
            if unit == other {
                pairs.push(Pair { name: format!("{section}.{key}"), unit, first, second });
            }
        }
    }
    if pairs.is_empty() {
        return Err(format!("{} and {}: they have no number in common", first.0, second.0));
    }
    let mut all: Vec<u64> = pairs.iter().map(|p| p.difference_permille().unsigned_abs()).collect();
    all.sort_unstable();
    let noise = |table: &Table, key: &str| table.get("noise").and_then(|n| n.get(key)).cloned();
    let said = [&a, &b].map(|t| {
        let said = noise(t, "said");
        said.as_ref().and_then(|s| s.as_str()).unwrap_or("unknown").to_owned()
    });
    let quiet = [&a, &b].iter().all(|t| noise(t, "quiet").and_then(|q| q.as_bool()) == Some(true));
    Ok(Agreement { median_permille: all[all.len() / 2], pairs, said, quiet })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(quiet: bool, a: &str, b: &str, c: &str) -> String {
        format!(
            "schema = \"sevsim.profile/1\"\n[host]\ntimer = {{ value = 52, unit = \"cycles\" }}\n[noise]\nquiet = {quiet}\nsaid = \"x\"\n\
             [latency]\na = {{ value = {a}, unit = \"ns\" }}\nb = {{ value = {b}, unit = \"ns\" }}\nc = {{ value = {c}, unit = \"ns\" }}\n"
        )
    }

    #[test]
    fn the_median_of_the_differences_decides() {
        let (one, two) = (profile(true, "10", "20.0", "5"), profile(true, "10.3", "10.0", "5.1"));
        let found = agree(("one", &one), ("two", &two)).unwrap();
        let differences: Vec<i64> = found.pairs.iter().map(Pair::difference_permille).collect();
        assert_eq!((differences, found.median_permille, found.quiet), (vec![30, -500, 20], 30, true));
        let derived =
            |text: &str| text.replace("c = {", "d = { value = 0, unit = \"ns\", derived = true }\nc = {");
        let with = agree(("one", &derived(&one)), ("two", &derived(&two))).unwrap();
        assert_eq!((with.pairs.len(), with.median_permille), (3, 30), "what was not measured does not count");
        let noisy = agree(("one", &one), ("two", &profile(false, "1", "1", "1"))).unwrap();
        assert!(!noisy.quiet && noisy.pairs.len() == 3, "a host's timer is no number of the part");
    }

    #[test]
    fn what_is_no_profile_is_named() {
        let one = profile(true, "1", "1", "1");
        assert!(agree(("one", &one), ("two", "x = 1")).unwrap_err().starts_with("two: `schema` is \"\""));
        assert!(agree(("one", "= ="), ("two", &one)).unwrap_err().starts_with("one: "));
        let none = "schema = \"sevsim.profile/1\"";
        assert!(agree(("one", &one), ("two", none)).unwrap_err().contains("no number in common"));
    }
}
