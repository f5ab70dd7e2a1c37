//! Reads a part file, and says exactly where and how it is wrong.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::param::{Confidence, Number, Param, Quantity, Unit};
use super::{CacheShape, L3Kind, Part, PartError, Replacement, Topology};

/// The file being read, for error places.
#[derive(Clone, Copy)]
pub(super) struct Text<'t> {
    file: &'t str,
    text: &'t str,
}

impl Text<'_> {
    fn error(self, span: Range<usize>, message: String, help: impl Into<String>) -> PartError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        PartError { file: self.file.to_owned(), line, column, message, help: help.into() }
    }
}

/// A table of the file, and which of its keys were asked for.
pub(super) struct Section<'t> {
    text: Text<'t>,
    path: String,
    span: Range<usize>,
    table: &'t DeTable<'t>,
    asked: Vec<&'static str>,
}

impl<'t> Section<'t> {
    /// An error at a place of the file.
    pub(super) fn error(&self, span: Range<usize>, message: String, help: String) -> PartError {
        self.text.error(span, message, help)
    }

    fn full(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn find(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.asked.push(key);
        self.table.iter().find(|(k, _)| k.get_ref() == key).map(|(_, v)| v)
    }

    fn get(&mut self, key: &'static str, expected: &str) -> Result<&'t Spanned<DeValue<'t>>, PartError> {
        self.find(key).ok_or_else(|| {
            let message = format!("`{}` is missing", self.full(key));
            self.text.error(self.span.clone(), message, format!("add `{key}`: {expected}"))
        })
    }

    fn wrong(&self, key: &str, value: &Spanned<DeValue<'_>>, found: &str, expected: &str) -> PartError {
        let message = format!("`{}` is {found}", self.full(key));
        self.text.error(value.span(), message, format!("expected {expected}"))
    }

    fn mistyped(&self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) -> PartError {
        let kind = value.get_ref().type_str();
        let article = if kind.starts_with(['a', 'i']) { "an" } else { "a" };
        self.wrong(key, value, &format!("{article} {kind}"), expected)
    }

    pub(super) fn section(&mut self, key: &'static str) -> Result<Section<'t>, PartError> {
        let value = self.get(key, "a table")?;
        self.as_section(key, value, "a table")
    }

    fn as_section(
        &self,
        key: &str,
        value: &'t Spanned<DeValue<'t>>,
        expected: &str,
    ) -> Result<Section<'t>, PartError> {
        let table = value.get_ref().as_table().ok_or_else(|| self.mistyped(key, value, expected))?;
        let path = self.full(key);
        Ok(Section { text: self.text, path, span: value.span(), table, asked: Vec::new() })
    }

    pub(super) fn string(
        &mut self,
        key: &'static str,
        expected: &str,
    ) -> Result<(&'t str, Range<usize>), PartError> {
        let value = self.get(key, expected)?;
        let text = value.get_ref().as_str().ok_or_else(|| self.mistyped(key, value, expected))?;
        if text.trim().is_empty() {
            return Err(self.wrong(key, value, "empty", expected));
        }
        Ok((text, value.span()))
    }

    fn strings(&mut self, key: &'static str, expected: &str) -> Result<Vec<String>, PartError> {
        let value = self.get(key, expected)?;
        let array = value.get_ref().as_array().ok_or_else(|| self.mistyped(key, value, expected))?;
        let one = |v: &Spanned<DeValue<'_>>| {
            v.get_ref().as_str().map(str::to_owned).ok_or_else(|| self.mistyped(key, v, expected))
        };
        array.iter().map(one).collect()
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Result<bool, PartError> {
        let value = self.get(key, "true or false")?;
        value.get_ref().as_bool().ok_or_else(|| self.mistyped(key, value, "true or false"))
    }

    fn count(&mut self, key: &'static str, range: Range<u16>) -> Result<u16, PartError> {
        let expected = format!("a whole number from {} to {}", range.start, range.end - 1);
        let value = self.get(key, &expected)?;
        let number = value.get_ref().as_integer().ok_or_else(|| self.mistyped(key, value, &expected))?;
        match u16::from_str_radix(number.as_str(), number.radix()) {
            Ok(n) if range.contains(&n) => Ok(n),
            Ok(_) | Err(_) => Err(self.wrong(key, value, &number.to_string(), &expected)),
        }
    }

    /// `{ size = "512 KiB", ways = 8 }`, and `kind` for the L3.
    fn cache(
        &mut self,
        key: &'static str,
        max_bytes: u64,
    ) -> Result<(CacheShape, Option<L3Kind>), PartError> {
        const EXPECTED: &str = "a size with its unit, as \"32 KiB\" or \"16 MiB\"";
        let mut inner = self.section(key)?;
        let (text, span) = inner.string("size", EXPECTED)?;
        let bytes = text.split_once(' ').and_then(|(n, unit)| {
            let scale = match unit {
                "KiB" => 1 << 10,
                "MiB" => 1 << 20,
                // Far too much, and said so below.
                "GiB" | "TiB" => 1 << 30,
                _ => return None,
            };
            Some(n.parse::<u64>().ok()?.saturating_mul(scale))
        });
        let name = inner.full("size");
        let Some(bytes) = bytes else {
            return Err(self.text.error(
                span,
                format!("`{name}` is \"{text}\""),
                format!("expected {EXPECTED}"),
            ));
        };
        let ways = inner.count("ways", 1..17)?;
        let replacement = inner.replacement()?;
        let kind = if key == "l3" { Some(inner.l3_kind()?) } else { None };
        inner.finish()?;
        let sets = bytes / (64 * u64::from(ways));
        let whole = sets.is_power_of_two() || key == "l3" && sets % 3 == 0 && (sets / 3).is_power_of_two();
        if bytes == 0 || bytes > max_bytes || sets * 64 * u64::from(ways) != bytes || !whole {
            let message =
                format!("`{name}` is \"{text}\", which {ways} ways of 64-byte lines cannot make up");
            let help =
                format!("expected ways x 64 bytes x a power of two, at most {} MiB here", max_bytes >> 20);
            return Err(self.text.error(span, message, help));
        }
        let sets = u32::try_from(sets).unwrap_or(u32::MAX);
        Ok((CacheShape { sets, ways, replacement }, kind))
    }

    fn replacement(&mut self) -> Result<Replacement, PartError> {
        const EXPECTED: &str = "\"lru\", \"pseudo-lru\" or \"old-half\"";
        let (text, span) = self.string("replacement", EXPECTED)?;
        let found = Replacement::ALL.iter().find(|(_, name)| *name == text);
        found.map(|(rule, _)| *rule).ok_or_else(|| {
            let message = format!("`{}` is \"{text}\"", self.full("replacement"));
            self.text.error(span, message, format!("expected {EXPECTED}"))
        })
    }

    fn l3_kind(&mut self) -> Result<L3Kind, PartError> {
        const EXPECTED: &str = "\"victim\" or \"inclusive\"";
        let (text, span) = self.string("kind", EXPECTED)?;
        match text {
            "victim" => Ok(L3Kind::Victim),
            "inclusive" => Ok(L3Kind::Inclusive),
            _ => {
                let message = format!("`{}` is \"{text}\"", self.full("kind"));
                Err(self.text.error(span, message, format!("expected {EXPECTED}")))
            }
        }
    }

    fn number(&mut self, param: Param) -> Result<Number, PartError> {
        let expected = format!(
            "a table {{ low, typical, high, unit, source, confidence }} whose unit is {}",
            param.quantity().expected()
        );
        let value = self.get(param.key(), &expected)?;
        if value.get_ref().is_integer() || value.get_ref().is_float() {
            return Err(self.wrong(param.key(), value, "a number without unit and source", &expected));
        }
        let mut inner = self.as_section(param.key(), value, &expected)?;
        let number = inner.levels(param, "typical", value.span())?;
        let source = inner.string("source", "where the number comes from")?.0.to_owned();
        const LETTERS: &str =
            "\"A\" (vendor), \"B\" (third party), \"C\" (arithmetic), \"M\" (ours) or \"U\" (knob)";
        let (letter, span) = inner.string("confidence", LETTERS)?;
        let confidence = Confidence::from_letter(letter).ok_or_else(|| {
            let message = format!("`{}` is \"{letter}\"", inner.full("confidence"));
            self.text.error(span, message, format!("expected {LETTERS}"))
        })?;
        inner.finish()?;
        Ok(Number { source, confidence, ..number })
    }

    /// A number of a profile; `None` if it has none of that name.
    pub(super) fn measured(&mut self, param: Param, source: &str) -> Result<Option<Number>, PartError> {
        let Some(value) = self.find(param.key()) else { return Ok(None) };
        let expected = "a table { value, low, high, unit, samples, tagged, method }";
        let mut inner = self.as_section(param.key(), value, expected)?;
        let number = inner.levels(param, "value", value.span())?;
        let method = inner.string("method", "how it was measured")?.0;
        inner.asked.extend(["samples", "tagged"]);
        let derived = inner.find("derived").is_some() && inner.boolean("derived")?;
        inner.finish()?;
        let confidence = if derived { Confidence::C } else { Confidence::M };
        Ok(Some(Number { source: format!("{source}: {method}"), confidence, ..number }))
    }

    /// The three levels of a number and their unit; the middle one is called `middle`.
    fn levels(
        &mut self,
        param: Param,
        middle: &'static str,
        place: Range<usize>,
    ) -> Result<Number, PartError> {
        let inner = self;
        let (unit_text, span) = inner.string("unit", param.quantity().expected())?;
        let unit =
            Unit::from_name(unit_text).filter(|u| u.quantity() == param.quantity()).ok_or_else(|| {
                let message = format!("`{}` is \"{unit_text}\"", inner.full("unit"));
                inner.text.error(span, message, format!("expected {}", param.quantity().expected()))
            })?;
        let low = inner.decimal("low", unit)?;
        let typical = inner.decimal(middle, unit)?;
        let high = inner.decimal("high", unit)?;
        if !(low <= typical && typical <= high) {
            let message = format!("`{}` is out of order", inner.path);
            return Err(inner.text.error(place, message, format!("expected low <= {middle} <= high")));
        }
        let may_be_zero = param.quantity() == Quantity::Time;
        if low == 0 && !may_be_zero || typical == 0 && param == Param::L1Hit {
            let message = format!("`{}` is zero", inner.path);
            return Err(inner.text.error(place, message, "expected a value above zero"));
        }
        Ok(Number { low, typical, high, unit, source: String::new(), confidence: Confidence::U })
    }

    /// A decimal in thousandths, read from its digits: no floating point.
    fn decimal(&mut self, key: &'static str, unit: Unit) -> Result<u64, PartError> {
        const EXPECTED: &str = "a number, 0 or more, with at most three decimals";
        let value = self.get(key, EXPECTED)?;
        let (digits, radix) = match value.get_ref() {
            DeValue::Integer(n) => (n.as_str(), n.radix()),
            DeValue::Float(n) => (n.as_str(), 10),
            DeValue::String(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => return Err(self.mistyped(key, value, EXPECTED)),
        };
        let thousandths = if radix == 10 { thousandths(digits) } else { None };
        let Some(n) = thousandths else {
            return Err(self.wrong(key, value, digits, EXPECTED));
        };
        let scale = match unit {
            Unit::Milliseconds => 1_000_000,
            Unit::Microseconds => 1_000,
            Unit::Cycles
            | Unit::Picoseconds
            | Unit::Nanoseconds
            | Unit::GigabytesPerSecond
            | Unit::Gigahertz
            | Unit::Percent
            | Unit::Count => 1,
        };
        if n.saturating_mul(scale) > unit.quantity().ceiling() {
            let expected = format!("a plausible value: {} {digits} is not", unit.name());
            return Err(self.wrong(key, value, digits, &expected));
        }
        Ok(n)
    }

    /// Refuses keys nobody asked for.
    pub(super) fn finish(self) -> Result<(), PartError> {
        let Some((key, _)) = self.table.iter().find(|(k, _)| !self.asked.contains(&k.get_ref().as_ref()))
        else {
            return Ok(());
        };
        let message = format!("`{}` is not a key of a part file", self.full(key.get_ref()));
        Err(self.text.error(key.span(), message, format!("known here: {}", self.asked.join(", "))))
    }
}

/// `12.5` as 12500; nothing that is negative, has an exponent, or needs a fourth decimal.
fn thousandths(digits: &str) -> Option<u64> {
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(fraction) || fraction.len() > 3 {
        return None;
    }
    let fraction = format!("{fraction:0<3}").parse::<u64>().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(fraction)
}

/// Reads a file's text by its outermost table.
pub(super) fn document<R>(
    file: &str,
    text: &str,
    f: impl FnOnce(Section<'_>) -> Result<R, PartError>,
) -> Result<R, PartError> {
    let at = Text { file, text };
    let document = DeTable::parse(text).map_err(|e| {
        at.error(e.span().unwrap_or(0..0), format!("not TOML: {}", e.message()), "expected a TOML document")
    })?;
    let table = document.get_ref();
    f(Section { text: at, path: String::new(), span: 0..0, table, asked: Vec::new() })
}

pub(super) fn read(file: &str, text: &str) -> Result<Part, PartError> {
    document(file, text, part)
}

fn part(mut root: Section<'_>) -> Result<Part, PartError> {
    let at = root.text;
    let name = root.string("name", "the part's name, as \"genoa\"")?.0.to_owned();
    let description = root.string("description", "one sentence")?.0.to_owned();
    let sources = root.strings("sources", "a list of where the numbers come from")?;
    let topology = topology(&mut root)?;

    let mut caches = root.section("caches")?;
    let line_bytes = caches.count("line_bytes", 1..4096)?;
    if line_bytes != 64 {
        let message = format!("`caches.line_bytes` is {line_bytes}");
        return Err(at.error(caches.span.clone(), message, "expected 64: every EPYC has 64-byte lines"));
    }
    let (l1d, _) = caches.cache("l1d", 1 << 20)?;
    let (l2, _) = caches.cache("l2", 16 << 20)?;
    let (l3, kind) = caches.cache("l3", 1 << 30)?;
    if l1d.lines() > l2.lines() || l1d.sets > l2.sets {
        let message = "`caches.l2` cannot include `caches.l1d`".to_owned();
        return Err(at.error(
            caches.span,
            message,
            "expected an L2 with at least as many sets and lines as the L1D",
        ));
    }
    let ccxs = topology.ccxs();
    if kind == Some(L3Kind::Inclusive) && ccxs > 1 {
        let message = format!("`caches.l3.kind` is \"inclusive\" on a part of {ccxs} CCXs");
        return Err(at.error(caches.span, message, "expected \"victim\", or one CCX"));
    }
    caches.finish()?;

    let mut features = root.section("features")?;
    let sme_coherent = features.boolean("sme_coherent")?;
    let wbnoinvd = features.boolean("wbnoinvd")?;
    features.finish()?;

    let mut numbers = Vec::with_capacity(Param::ALL.len());
    for group in Param::ALL.chunk_by(|a, b| a.section() == b.section()) {
        let mut section = root.section(group[0].section())?;
        for param in group {
            numbers.push(section.number(*param)?);
        }
        section.finish()?;
    }
    root.finish()?;
    Ok(Part {
        name,
        description,
        sources,
        topology,
        l1d,
        l2,
        l3,
        l3_kind: kind.unwrap_or(L3Kind::Victim),
        sme_coherent,
        wbnoinvd,
        numbers,
        profile: None,
    })
}

fn topology(root: &mut Section<'_>) -> Result<Topology, PartError> {
    let mut t = root.section("topology")?;
    let sockets = t.count("sockets", 1..3)?;
    let ccx_per_socket = t.count("ccx_per_socket", 1..33)?;
    let ccx_per_ccd = t.count("ccx_per_ccd", 1..5)?;
    let cores_per_ccx = t.count("cores_per_ccx", 1..17)?;
    let threads_per_core = t.count("threads_per_core", 1..3)?;
    let dram_channels = t.count("dram_channels", 1..33)?;
    let (text, span) = (t.text, t.span.clone());
    t.finish()?;
    if sockets * ccx_per_socket > Topology::MAX_CCXS {
        let message = format!("`topology` makes {} CCXs", sockets * ccx_per_socket);
        return Err(text.error(span, message, format!("expected at most {} in all", Topology::MAX_CCXS)));
    }
    if !ccx_per_socket.is_multiple_of(ccx_per_ccd) {
        let message = format!("`topology.ccx_per_socket` is {ccx_per_socket}, not a multiple of ccx_per_ccd");
        return Err(text.error(span, message, "expected whole CCDs"));
    }
    let cores = sockets * ccx_per_socket * cores_per_ccx;
    Ok(Topology {
        sockets,
        ccx_per_socket,
        ccx_per_ccd,
        cores_per_ccx,
        threads_per_core,
        dram_channels,
        cores,
        pcpus: cores * threads_per_core,
    })
}
