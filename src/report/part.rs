//! A part as a sheet for reading: a picture of the topology, what follows from the numbers, the numbers.

use cache_model::part::{CacheShape, L3Kind, Level, Measured, Number, Param, Part};

use super::number::{grouped, size, time};
use super::style;
use super::table::{Cell, Head, pad, styled, table, wrap};

/// Columns of a CCD's box inside its frame.
const BOX: usize = 15;

/// The sheet.
pub(crate) fn sheet(part: &Part, label: &str, width: usize) -> String {
    let mut text = String::new();
    text.push_str(&styled(&wrap(&format!("{label}: {}", part.description), width, 2), style::strong()));
    text.push('\n');
    text.push_str(&wrap(&shape(part), width, 2));
    text.push_str("\n\n");
    text.push_str(&picture(part, width));
    text.push('\n');
    text.push_str(&derived(part));
    text.push('\n');
    text.push_str(&numbers(part, width));
    if let Some(m) = part.measured() {
        text.push_str(&wrap(&measured(m), width, 0));
        text.push('\n');
    }
    text
}

/// Counts and features, in a sentence.
fn shape(part: &Part) -> String {
    let t = part.topology();
    let several = |n: u16, one: &str| if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") };
    let kind = match part.l3_kind() {
        L3Kind::Victim => "filled by what the L2s push out",
        L3Kind::Inclusive => "including its L2s",
    };
    let has = |on: bool, name: &str| if on { name.to_owned() } else { format!("no {name}") };
    format!(
        "{} of {} x {} x {}: {}, {}. L1D {}, L2 {} a core, L3 {} a CCX, {kind}. {}, {}.",
        several(t.sockets(), "socket"),
        several(t.ccx_per_socket(), "CCX"),
        several(t.cores_per_ccx(), "core"),
        several(t.threads_per_core(), "thread"),
        several(t.cores(), "core"),
        several(t.pcpus(), "pCPU"),
        cache(part.l1d()),
        cache(part.l2()),
        cache(part.l3()),
        has(part.sme_coherent(), "SME_COHERENT"),
        has(part.wbnoinvd(), "WBNOINVD"),
    )
}

fn cache(shape: CacheShape) -> String {
    format!("{} {}-way {}", size(shape.lines() * 64), shape.ways, shape.replacement.name())
}

/// The CCDs of each socket as boxes, with the links between them.
fn picture(part: &Part, width: usize) -> String {
    let t = part.topology();
    let ccds_of_socket = t.ccx_per_socket().div_ceil(t.ccx_per_ccd());
    let per_row = (width / (BOX + 3)).clamp(1, 8);
    let mut text = String::new();
    for socket in 0..t.sockets() {
        if socket > 0 {
            let link = typical(part, Param::BandwidthSocketLink);
            text.push_str(&format!("  ==== link between the sockets, {link} each way ====\n"));
        }
        let first = socket * ccds_of_socket;
        let ccds: Vec<u16> = (first..(first + ccds_of_socket).min(t.ccds())).collect();
        for row in ccds.chunks(per_row) {
            for line in 0..t.ccx_per_ccd() + 2 {
                let cells: Vec<String> = row.iter().map(|ccd| boxed(part, *ccd, line)).collect();
                text.push_str(cells.join(" ").trim_end());
                text.push('\n');
            }
        }
        let line = format!(
            "  socket {socket}: a CCD reads {}, writes {}; {} DRAM channels read {}, write {}",
            typical(part, Param::BandwidthCcdRead),
            typical(part, Param::WriteBackCcd),
            t.dram_channels(),
            typical(part, Param::BandwidthDramRead),
            typical(part, Param::WriteBackSocket),
        );
        text.push_str(&format!("  {}\n", wrap(&line, width.saturating_sub(2), 4)));
    }
    text
}

/// A line of a CCD's box: its name, its CCXs, its end.
fn boxed(part: &Part, ccd: u16, line: u16) -> String {
    let t = part.topology();
    if line == 0 {
        let title = format!(" ccd{ccd} ");
        return format!("+{title}{}+", "-".repeat(BOX - title.len()));
    }
    if line > t.ccx_per_ccd() {
        return format!("+{}+", "-".repeat(BOX));
    }
    let ccx = ccd * t.ccx_per_ccd() + line - 1;
    let mut cores = t.cores_of(sev_arch::CcxId(ccx));
    let content = match (cores.next(), cores.last()) {
        (Some(first), Some(last)) => format!("{}-{}", first.0, last.0),
        (Some(only), None) => only.0.to_string(),
        (None, _) => return format!("|{}|", " ".repeat(BOX)),
    };
    let l3 = size(part.l3().lines() * 64);
    format!("| {}{} |", pad(&content, BOX - 2 - l3.len(), false), l3)
}

/// A number's typical value with its unit.
fn typical(part: &Part, param: Param) -> String {
    let number = part.number(param);
    format!("{} {}", decimal(number.typical), number.unit.name())
}

/// Thousandths as a decimal without idle zeros.
fn decimal(thousandths: u64) -> String {
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Whose numbers a part has in the place of its own, in words.
pub(crate) fn measured(m: &Measured) -> String {
    let list = |params: &[Param]| params.iter().map(|p| p.name()).collect::<Vec<_>>().join(", ");
    let derived = match &m.derived[..] {
        [] => String::new(),
        some => format!(", and from how these are taken follow {}", list(some)),
    };
    let cut = if m.complete { "" } else { " INCOMPLETE: the calibration was interrupted." };
    let noise = m.noise.as_ref().map_or(String::new(), |said| format!(" The host was {said}."));
    let guest = match &m.hypervisor {
        Some(name) => format!(" {}.", svm_native::probe::caveat(name)),
        None => String::new(),
    };
    let wrong: Vec<String> =
        m.out_of_order.iter().map(|(near, far)| format!("{} is above {}", near.name(), far.name())).collect();
    let wrong = if wrong.is_empty() {
        String::new()
    } else {
        format!(" OUT OF ORDER: {}, which no host is: do not trust this profile.", wrong.join(", "))
    };
    format!(
        "Measured: {} of {} numbers are those of {} ({}, {}), by {}: {}{derived}. All others are the part's own.{cut}{noise}{guest}{wrong}",
        m.params.len(),
        Param::ALL.len(),
        m.host,
        m.cpu,
        m.date,
        m.file,
        list(&m.params)
    )
}

/// What follows from the numbers for a flush by one CCX.
fn derived(part: &Part) -> String {
    let t = part.topology();
    let cores = u64::from(t.cores_per_ccx());
    let dirty = match part.l3_kind() {
        L3Kind::Victim => cores * part.l2().lines() + part.l3().lines(),
        L3Kind::Inclusive => part.l3().lines(),
    };
    let walked = part.l2().lines() + part.l3().lines();
    let mut text = format!(
        "a CCX holds at most {} dirty ({} lines); WBINVD walks {} lines, one L2 and the L3\n",
        size(dirty * 64),
        grouped(dirty),
        grouped(walked)
    );
    let at = |level: Level| {
        let timing = part.timing(level);
        let fixed = timing.ns_of_cycles(timing.wbinvd_fixed);
        let walk = walked * timing.wbinvd_walk_ps / 1000;
        let line = timing.write_back_core_milli.max(timing.write_back_ccd_milli);
        let clean = fixed + walk;
        (clean, clean + timing.ns_of_cycles(dirty * line / 1000))
    };
    let (low, typical, high) = (at(Level::Low), at(Level::Typical), at(Level::High));
    text.push_str(&format!(
        "WBINVD of clean caches {} to {}, typically {}\n",
        time(low.0),
        time(high.0),
        time(typical.0),
    ));
    text.push_str(&format!(
        "with all of the CCX dirty, written back by one core, typically {}\n",
        time(typical.1)
    ));
    text
}

/// Every number with its range, and the sources below.
fn numbers(part: &Part, width: usize) -> String {
    let mut sources: Vec<&str> = Vec::new();
    let rows: Vec<Vec<Cell>> = Param::ALL
        .iter()
        .map(|param| {
            let Number { low, typical, high, unit, source, confidence } = part.number(*param);
            let index = sources.iter().position(|s| s == source).unwrap_or_else(|| {
                sources.push(source);
                sources.len() - 1
            });
            vec![
                param.name().into(),
                decimal(*low).into(),
                Cell::styled(decimal(*typical), style::strong()),
                decimal(*high).into(),
                unit.name().into(),
                confidence.letter().into(),
                format!("[{}]", index + 1).into(),
            ]
        })
        .collect();
    let heads = [
        Head::left("", "number"),
        Head::right("", "low"),
        Head::right("", "typical"),
        Head::right("", "high"),
        Head::left("", "unit"),
        Head::left("", "trust"),
        Head::right("", "source"),
    ];
    let mut text = table(&heads, &rows, width);
    text.push_str(
        "trust: A vendor text, B third party, C arithmetic from these, M measured by us, U a knob\n",
    );
    for (n, source) in sources.iter().enumerate() {
        text.push_str(&wrap(&format!("[{}] {source}", n + 1), width, 5));
        text.push('\n');
    }
    text.push_str("from:\n");
    for source in &part.sources {
        text.push_str(&format!("  {}\n", wrap(source, width.saturating_sub(2), 4)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet_of(name: &str) -> String {
        let part = Part::builtin(name).expect("built in");
        anstream::adapter::strip_str(&sheet(&part, name, 100)).to_string()
    }

    #[test]
    fn every_core_stands_in_one_box_and_every_number_in_one_row() {
        for name in Part::builtin_names() {
            let (text, part) = (sheet_of(name), Part::builtin(name).expect("built in"));
            let t = part.topology();
            for ccx in 0..t.ccxs() {
                let first = ccx * t.cores_per_ccx();
                let cores = format!("| {first}-{} ", first + t.cores_per_ccx() - 1);
                assert_eq!(text.matches(&cores).count(), 1, "{name}: {cores}");
            }
            for param in Param::ALL {
                assert_eq!(text.lines().filter(|l| l.starts_with(param.name())).count(), 1, "{name}");
            }
            let wide: Vec<&str> = text.lines().filter(|l| l.chars().count() > 100).collect();
            assert!(wide.is_empty(), "{name}: {wide:#?}");
        }
    }

    #[test]
    fn what_follows_is_the_arithmetic_of_the_numbers() {
        let text = sheet_of("genoa");
        // 8 x 1 MiB + 32 MiB; 16,384 + 524,288 lines at 0.25 ns and 1 us; 655,360 lines of 64 B at 26 GB/s
        assert!(text.contains("at most 40MiB dirty (655,360 lines)"), "{text}");
        assert!(text.contains("typically 136us\n"), "{text}");
        assert!(text.contains("typically 1.75ms\n"), "{text}");
    }
}
