//! Numbers for reading: three figures and a scale, in integers only.

use std::time::Duration;

/// Digits in groups of three: `12,345,678`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `value` / `unit`, rounded to three figures: 1234 / 1000 is `1.23`.
fn three(value: u64, unit: u64) -> String {
    let (value, unit) = (u128::from(value), u128::from(unit));
    let rounded = |decimals: u128| (value * decimals + unit / 2) / unit;
    if rounded(100) < 1000 && unit > 1 {
        let n = rounded(100);
        format!("{}.{:02}", n / 100, n % 100)
    } else if rounded(10) < 1000 && unit > 1 {
        let n = rounded(10);
        format!("{}.{}", n / 10, n % 10)
    } else {
        rounded(1).to_string()
    }
}

/// A count in at most five characters or so: `950`, `12.3k`, `4.56M`.
pub(crate) fn short(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..999_500 => format!("{}k", three(n, 1_000)),
        999_500..999_500_000 => format!("{}M", three(n, 1_000_000)),
        _ => format!("{}G", three(n, 1_000_000_000)),
    }
}

/// A time given in nanoseconds: `950ns`, `12.3us`.
pub(crate) fn time(ns: u64) -> String {
    match ns {
        0 => "0".to_owned(),
        1..1_000 => format!("{ns}ns"),
        1_000..999_500 => format!("{}us", three(ns, 1_000)),
        999_500..999_500_000 => format!("{}ms", three(ns, 1_000_000)),
        _ => format!("{}s", three(ns, 1_000_000_000)),
    }
}

/// A size in bytes: `512MiB` if that is exact.
pub(crate) fn size(bytes: u64) -> String {
    let units = [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// An amount of bytes: `950B`, `12.3kB`, `4.56MB`.
pub(crate) fn bytes(n: u64) -> String {
    match n {
        0 => "0".to_owned(),
        1..1_000 => format!("{n}B"),
        1_000..999_500 => format!("{}kB", three(n, 1_000)),
        999_500..999_500_000 => format!("{}MB", three(n, 1_000_000)),
        _ => format!("{}GB", three(n, 1_000_000_000)),
    }
}

/// A time as it was given: `10min`, `90s`, `250ms`.
pub(crate) fn duration(time: Duration) -> String {
    let ms = time.as_millis();
    let units = [(3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    match units.iter().find(|(unit, _)| ms >= *unit && ms.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
}

/// `part` of `whole` in percent, with the tenths where they matter: `4.2%`, `37%`.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if part == 0 {
        return "0".to_owned();
    }
    let Some(tenths) = (u128::from(part) * 1000 + u128::from(whole) / 2).checked_div(u128::from(whole))
    else {
        return "-".to_owned();
    };
    match tenths {
        0 => "<0.1%".to_owned(),
        1..100 => format!("{}.{}%", tenths / 10, tenths % 10),
        _ => format!("{}%", (tenths + 5) / 10),
    }
}

/// What a ratio given in millionths adds to one: `+3.7%`, `-0.2%`, `+154%`.
pub(crate) fn over(ppm: u64) -> String {
    let tenths = (ppm.abs_diff(1_000_000) + 500) / 1000;
    let sign = if tenths == 0 {
        ""
    } else if ppm < 1_000_000 {
        "-"
    } else {
        "+"
    };
    match tenths {
        0..1000 => format!("{sign}{}.{}%", tenths / 10, tenths % 10),
        _ => format!("{sign}{}%", (tenths + 5) / 10),
    }
}

/// `sum` / `count`, with a tenth unless it is whole.
pub(crate) fn mean(sum: u64, count: u64) -> String {
    let Some(tenths) = (sum * 10 + count / 2).checked_div(count) else { return "-".to_owned() };
    if tenths % 10 == 0 { (tenths / 10).to_string() } else { format!("{}.{}", tenths / 10, tenths % 10) }
}

/// Thousandths as a decimal number without trailing noughts: 800 is `0.8`.
pub(crate) fn thousandths(n: u64) -> String {
    let text = format!("{}.{:03}", n / 1000, n % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A count and its word, in the plural unless it is one.
pub(crate) fn plural(n: usize, word: &str) -> String {
    format!("{} {word}{}", grouped(n as u64), if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_three_figures_and_never_to_four() {
        let cases = [(0, "0"), (9_999, "9999"), (10_000, "10.0k"), (99_949, "99.9k"), (99_950, "100k")];
        for (n, text) in cases {
            assert_eq!(short(n), text);
        }
        assert_eq!(short(999_499), "999k");
        assert_eq!(short(999_500), "1.00M");
        assert_eq!(short(615_174_000), "615M");
        assert_eq!(time(999), "999ns");
        assert_eq!(time(1_235), "1.24us");
        assert_eq!(time(999_499), "999us");
        assert_eq!(time(1_000_000), "1.00ms");
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn ratios() {
        assert_eq!(percent(0, 5), "0");
        assert_eq!(percent(1, 100_000), "<0.1%");
        assert_eq!(percent(42, 1000), "4.2%");
        assert_eq!(percent(370, 1000), "37%");
        assert_eq!(percent(1, 0), "-");
        assert_eq!(over(1_000_000), "0.0%");
        assert_eq!(over(1_000_400), "0.0%");
        assert_eq!(over(998_000), "-0.2%");
        assert_eq!(over(1_363_000), "+36.3%");
        assert_eq!(over(3_538_000), "+254%");
        assert_eq!(mean(7, 2), "3.5");
        assert_eq!(mean(16, 1), "16");
        assert_eq!(mean(1, 0), "-");
        assert_eq!(thousandths(28_800), "28.8");
        assert_eq!(thousandths(1_000), "1");
        assert_eq!(duration(Duration::from_secs(90)), "90s");
        assert_eq!(duration(Duration::from_secs(7200)), "2h");
        assert_eq!(duration(Duration::from_millis(1500)), "1500ms");
        assert_eq!(size(8 << 30), "8GiB");
        assert_eq!(size(1000), "1000B");
    }
}
