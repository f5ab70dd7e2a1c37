//! Many verdicts at once: the matrix of `test`, and CSV.

use std::collections::BTreeMap;

use cache_model::event::EventKind;
use svm_model::twin::Twin;
use workloads::check::Verdict;

use super::number::plural;
use super::style;
use super::table::{columns, pad, styled, wrap};
use crate::cases::{Checked, bound_name};

/// Columns of a policy's mark, where there is room.
const MARK: usize = 3;
/// Policies of a file up to which it takes no row of the matrix, if that has more columns than [`NARROW`].
const FEW: usize = 2;
/// Columns up to which every file has a row of the matrix.
const NARROW: usize = 4;

/// The mark of a verdict, with `!` if it is not the expected one.
fn mark(checked: &Checked) -> (String, owo_colors::Style) {
    let sign = match checked.report.verdict {
        Verdict::Holds => "-",
        Verdict::Violated => "V",
        Verdict::Bounded | Verdict::NotExhaustive => "?",
        Verdict::Vacuous => "o",
        Verdict::Refused => "x",
    };
    match (checked.met(), checked.report.verdict) {
        (Some(false), Verdict::Bounded | Verdict::Vacuous | Verdict::NotExhaustive) => {
            (sign.to_owned(), style::unsure())
        }
        (Some(false), _) => (format!("{sign}!"), style::bad()),
        (_, Verdict::Violated) => (sign.to_owned(), style::strong()),
        (_, _) => (sign.to_owned(), owo_colors::Style::new()),
    }
}

/// What stands before the marks of a line, and the marks: of each its column and its case.
struct Line<'a> {
    name: &'a str,
    kernel: &'a str,
    parts: Vec<&'a str>,
    cells: Vec<(&'a str, &'a Checked)>,
}

/// Cases as lines: those of one name and kernel stand on one line, and so do parts on which all came out alike.
fn lines<'a>(
    cases: &[&'a Checked],
    name: &dyn Fn(&'a Checked) -> (&'a str, &'a str),
    column: &dyn Fn(&'a Checked) -> &'a str,
) -> Vec<Line<'a>> {
    let mut list: Vec<(&str, Line<'a>)> = Vec::new();
    for c in cases {
        let (first, more) = name(c);
        let same = |l: &&mut (&str, Line<'a>)| {
            l.0 == more && l.1.name == first && l.1.kernel == c.kernel && l.1.parts == [c.part.as_str()]
        };
        match list.iter_mut().find(same) {
            Some(line) => line.1.cells.push((column(c), c)),
            None => {
                let (kernel, parts) = (c.kernel.as_str(), vec![c.part.as_str()]);
                list.push((more, Line { name: first, kernel, parts, cells: vec![(column(c), c)] }));
            }
        }
    }
    let mut merged: Vec<(&str, Line<'a>)> = Vec::new();
    let marks = |l: &Line<'a>| -> Vec<(&'a str, String)> {
        l.cells.iter().map(|(column, c)| (*column, mark(c).0)).collect()
    };
    for (more, line) in list {
        let same = |l: &&mut (&str, Line<'a>)| {
            l.0 == more && l.1.name == line.name && l.1.kernel == line.kernel && marks(&l.1) == marks(&line)
        };
        match merged.iter_mut().find(same) {
            Some(known) => known.1.parts.extend(line.parts),
            None => merged.push((more, line)),
        }
    }
    merged.into_iter().map(|(_, line)| line).collect()
}

/// The lines' labels, alike in width; a name that the line before has is not said again.
fn labels(lines: &[Line<'_>], kernels: bool) -> Vec<String> {
    let parts: Vec<String> = lines.iter().map(|l| l.parts.join(" ")).collect();
    let name = lines.iter().map(|l| columns(l.name)).max().unwrap_or(0);
    let kernel = lines.iter().map(|l| columns(l.kernel)).max().unwrap_or(0);
    let part = parts.iter().map(|p| columns(p)).max().unwrap_or(0);
    let label = |(line, parts): (&Line<'_>, &String)| {
        let kernel = if kernels { format!("  {}", pad(line.kernel, kernel, false)) } else { String::new() };
        format!("{}{kernel}  {}", pad(line.name, name, false), pad(parts, part, false))
    };
    lines.iter().zip(&parts).map(label).collect()
}

/// Litmus tests against policies: a row per test (and kernel), a column per policy; tests that are about few
/// policies stand below, a line each, with their variants side by side. Then whatever did not come as expected.
pub(crate) fn matrix(all: &[Checked], width: usize) -> String {
    let mut every: Vec<&str> = Vec::new();
    let mut of_file: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for c in all {
        let list = of_file.entry(c.of_file()).or_default();
        for known in [&mut every, list] {
            if !known.contains(&c.policy.as_str()) {
                known.push(&c.policy);
            }
        }
    }
    let few = |c: &&Checked| every.len() > NARROW && of_file[c.of_file()].len() <= FEW;
    let (narrow, wide): (Vec<&Checked>, Vec<&Checked>) = all.iter().partition(few);
    let kernels = all.iter().any(|c| c.kernel != all[0].kernel);
    let mut text = String::new();
    if !wide.is_empty() {
        text.push_str(&policies(&wide, &every, kernels, width));
    }
    if !narrow.is_empty() {
        if !wide.is_empty() {
            text.push('\n');
        }
        text.push_str(&variants(&narrow, kernels, width));
    }
    text.push_str("\n- holds   V violated   ? bounded   x refused: the kernel does not ask the policy   ! not as expected\n");
    if all.iter().any(|c| c.report.verdict == Verdict::Vacuous) {
        text.push_str("o vacuous: what the property is about never happened\n");
    }
    if all.iter().any(Checked::out_of_place) {
        text.push_str("x too where kernel, part or policy go with no such test: `sevsim check` says why\n");
    }
    if !kernels && let Some(first) = all.first() {
        text.push_str(&format!("kernel {}\n", first.kernel));
    }
    text.push_str(&summary(all, width));
    text
}

/// The rows with a column per policy. The columns' names stand on a staircase, or, where that is too wide, below.
fn policies(cases: &[&Checked], every: &[&str], kernels: bool, width: usize) -> String {
    let shown: Vec<&str> = every.iter().copied().filter(|p| cases.iter().any(|c| c.policy == **p)).collect();
    let lines = lines(cases, &|c| (&c.litmus, ""), &|c| &c.policy);
    let labels = labels(&lines, kernels);
    let indent = labels.first().map_or(0, |l| columns(l)) + 2;
    let room = width.saturating_sub(indent);
    let step = if shown.len() * MARK <= room { MARK } else { MARK - 1 };
    let stairs = |i: usize, name: &str| i * step + columns(name) <= room;
    let staircase = shown.iter().enumerate().all(|(i, p)| stairs(i, p));
    let letter = |i: usize| char::from(b"abcdefghijklmnopqrstuvwxyz"[i % 26]);
    let mut text = String::new();
    if staircase {
        for (i, policy) in shown.iter().enumerate() {
            let bars = format!("|{}", " ".repeat(step - 1)).repeat(i);
            let bars = styled(&bars, style::aside());
            text.push_str(&format!("{}{bars}{}\n", " ".repeat(indent), styled(policy, style::strong())));
        }
    } else {
        // Twenty-six letters are enough for what one line can hold.
        let legend = shown.iter().enumerate().map(|(i, p)| format!("{}\u{a0}{p}", letter(i)));
        let legend = wrap(&legend.collect::<Vec<_>>().join("   "), width, 0).replace('\u{a0}', " ");
        let heads: String =
            (0..shown.len()).map(|i| format!("{}{}", letter(i), " ".repeat(step - 1))).collect();
        text.push_str(&format!(
            "{legend}\n\n{}{}\n",
            " ".repeat(indent),
            styled(heads.trim_end(), style::strong())
        ));
    }
    for (line, label) in lines.iter().zip(labels) {
        let mut row = format!("{label}  ");
        for policy in &shown {
            let found = line.cells.iter().find(|(column, _)| column == policy);
            let found = found.map_or((" ".to_owned(), owo_colors::Style::new()), |(_, c)| mark(c));
            row.push_str(&styled(&found.0, found.1));
            row.push_str(&" ".repeat(step.saturating_sub(columns(&found.0))));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// The lines of tests that are about few policies: the variants of one policy side by side.
fn variants(cases: &[&Checked], kernels: bool, width: usize) -> String {
    let lines = lines(cases, &|c| (c.of_file(), &c.policy), &|c| c.variant.as_deref().unwrap_or(""));
    let labels = labels(&lines, kernels);
    let policy = lines.iter().flat_map(|l| &l.cells).map(|(_, c)| columns(&c.policy)).max().unwrap_or(0);
    let mut text = String::new();
    for (line, label) in lines.iter().zip(labels) {
        let of = line.cells.first().map_or("", |(_, c)| &c.policy);
        let head = format!("{label}  {}  ", pad(of, policy, false));
        let (indent, mut used) = (columns(&head), columns(&head));
        text.push_str(&head);
        for (i, (variant, c)) in line.cells.iter().enumerate() {
            let (sign, style) = mark(c);
            let said = if variant.is_empty() { String::new() } else { format!("{variant} ") };
            let wide = columns(&said) + columns(&sign) + 2;
            if i > 0 && used + wide > width {
                text.push_str(&format!("\n{}", " ".repeat(indent)));
                used = indent;
            } else if i > 0 {
                text.push_str("  ");
            }
            used += wide;
            text.push_str(&format!("{said}{}", styled(&sign, style)));
        }
        text.push('\n');
    }
    text
}

/// Cases that came out alike on several parts.
struct Odd<'a> {
    first: &'a Checked,
    parts: Vec<&'a str>,
    word: &'static str,
    colour: owo_colors::Style,
    why: String,
}

/// What did not come as expected, and what is not known.
fn odd(all: &[Checked]) -> Vec<Odd<'_>> {
    let mut list: Vec<Odd<'_>> = Vec::new();
    for c in all {
        let (word, colour) = match (c.met(), c.report.verdict) {
            (_, Verdict::Bounded) => ("BOUNDED", style::unsure()),
            (_, Verdict::NotExhaustive) => ("NOT EXHAUSTIVE", style::unsure()),
            (_, Verdict::Vacuous) => ("VACUOUS", style::unsure()),
            (Some(false), Verdict::Holds | Verdict::Violated | Verdict::Refused) => {
                ("NOT AS EXPECTED", style::bad())
            }
            (Some(true) | None, Verdict::Holds | Verdict::Violated | Verdict::Refused) => continue,
        };
        let why = match (c.report.verdict, c.report.events.first(), c.report.bound) {
            (Verdict::Violated, Some(first), _) => {
                let steps = plural(first.schedule.len(), "step");
                format!("violated: {} in {steps}: {}", first.event.name(), first.event.meaning())
            }
            (Verdict::Bounded, _, Some(bound)) => format!("the search met its bound: {}", bound_name(bound)),
            (Verdict::Vacuous, _, _) => {
                format!("vacuous: no event, but it never happened that {}", Twin::DirtyReclaimed.meaning())
            }
            (Verdict::Refused, _, _) => "refused: the kernel does not ask the policy".to_owned(),
            (Verdict::Holds, _, _) => "holds: no order of steps leads to an event".to_owned(),
            (_, _, _) => c.report.verdict.name().to_owned(),
        };
        let about = |c: &Checked| (c.litmus.clone(), c.policy.clone(), c.kernel.clone(), c.expected.clone());
        match list.iter_mut().find(|o| about(o.first) == about(c) && o.why == why) {
            Some(known) => known.parts.push(&c.part),
            None => list.push(Odd { first: c, parts: vec![&c.part], word, colour, why }),
        }
    }
    list
}

/// The kernel, where there are several.
fn kernel(checked: &Checked) -> String {
    format!("{} and ", checked.kernel)
}

/// What was expected, in words; of events, those that were not reached.
fn expected(checked: &Checked) -> String {
    let Some(expected) = &checked.expected else { return "nothing".to_owned() };
    let names = |list: &[EventKind]| list.iter().map(|e| e.name()).collect::<Vec<_>>().join(" and ");
    let events = match expected.events.as_slice() {
        [] => String::new(),
        events => format!(" with {}", names(events)),
    };
    let missing = match (checked.report.verdict, checked.unreached().as_slice()) {
        (Verdict::Violated, missing @ [_, ..]) => format!(" ({} is not reachable)", names(missing)),
        (
            Verdict::Violated
            | Verdict::Holds
            | Verdict::Vacuous
            | Verdict::Bounded
            | Verdict::NotExhaustive
            | Verdict::Refused,
            _,
        ) => String::new(),
    };
    format!("{}{events}{missing}", expected.verdict.name())
}

fn summary(all: &[Checked], width: usize) -> String {
    let mut text = String::new();
    for o in odd(all) {
        let line = format!(
            "{}  {}, policy {}, on {}{}: expected {}; {}",
            o.word,
            o.first.litmus,
            o.first.policy,
            kernel(o.first),
            o.parts.join(" and "),
            expected(o.first),
            o.why
        );
        let line = wrap(&line, width, 4).replacen(o.word, &styled(o.word, o.colour), 1);
        text.push_str(&format!("\n{line}\n    {}\n", o.first.command()));
    }
    let count = |f: &dyn Fn(&Checked) -> bool| all.iter().filter(|c| f(c)).count();
    let met = count(&|c| c.met() == Some(true));
    let open = |c: &Checked| {
        matches!(c.report.verdict, Verdict::Bounded | Verdict::Vacuous | Verdict::NotExhaustive)
    };
    let missed = count(&|c| c.met() == Some(false) && !open(c));
    let bounded = count(&|c| c.report.verdict == Verdict::Bounded);
    let vacuous = count(&|c| c.report.verdict == Verdict::Vacuous);
    let free = count(&|c| c.expected.is_none() && !open(c));
    let mut said = vec![format!("{met} as expected")];
    let others = [
        (missed, "not as expected"),
        (bounded, "bounded"),
        (vacuous, "vacuous"),
        (free, "without an expectation"),
    ];
    said.extend(others.iter().filter(|o| o.0 > 0).map(|(n, what)| format!("{n} {what}")));
    let colour = if missed > 0 {
        style::bad()
    } else if bounded + vacuous > 0 {
        style::unsure()
    } else {
        style::good()
    };
    let line = format!("{}: {}", plural(all.len(), "check"), said.join(", "));
    text.push_str(&format!("\n{}\n", styled(&line, colour)));
    text
}

/// The names of the CSV columns.
pub(crate) fn csv_head(test: bool) -> String {
    let head = "litmus,policy,kernel,part,verdict,events,states,transitions,depth,bound,assumptions";
    if test { format!("{head},expected,met\n") } else { format!("{head}\n") }
}

/// A case as a line of CSV; lists are joined by spaces.
pub(crate) fn csv_row(checked: &Checked, test: bool) -> String {
    let report = &checked.report;
    let events: Vec<&str> = report.events.iter().map(|e| e.event.name()).collect();
    let mut fields = vec![
        checked.litmus.clone(),
        checked.policy.clone(),
        checked.kernel.clone(),
        checked.part.clone(),
        report.verdict.name().to_owned(),
        events.join(" "),
        report.states.to_string(),
        report.transitions.to_string(),
        report.depth.to_string(),
        report.bound.map_or(String::new(), bound_name),
        report.assumptions.join(" "),
    ];
    if test {
        fields.push(checked.expected.as_ref().map_or(String::new(), |e| e.verdict.name().to_owned()));
        fields.push(checked.met().map_or(String::new(), |m| m.to_string()));
    }
    csv_line(&fields)
}

/// Fields as one line of CSV.
pub(crate) fn csv_line(fields: &[String]) -> String {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    // Writing to memory cannot fail.
    drop(writer.write_record(fields));
    writer.into_inner().ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}
