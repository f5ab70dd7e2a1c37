//! Many verdicts at once: the matrix of `test`, and CSV.

use workloads::check::Verdict;

use super::number::plural;
use super::style;
use super::table::{columns, pad, styled, wrap};
use crate::cases::{Checked, bound_name};

/// Columns of a policy's mark.
const MARK: usize = 3;

/// The mark of a verdict, with `!` if it is not the expected one.
fn mark(checked: &Checked) -> (String, owo_colors::Style) {
    let sign = match checked.report.verdict {
        Verdict::Holds => "-",
        Verdict::Violated => "V",
        Verdict::Bounded => "?",
    };
    match (checked.met(), checked.report.verdict) {
        (Some(false), Verdict::Bounded) => (sign.to_owned(), style::unsure()),
        (Some(false), _) => (format!("{sign}!"), style::bad()),
        (_, Verdict::Violated) => (sign.to_owned(), style::strong()),
        (_, _) => (sign.to_owned(), owo_colors::Style::new()),
    }
}

/// One row per litmus test and part (and kernel), one column per policy; the columns' names stand on a
/// staircase. Below, whatever did not come as expected.
pub(crate) fn matrix(all: &[Checked], width: usize) -> String {
    let mut policies: Vec<&str> = Vec::new();
    let mut rows: Vec<[&str; 3]> = Vec::new();
    for c in all {
        if !policies.contains(&c.policy.as_str()) {
            policies.push(&c.policy);
        }
        let row = [c.litmus.as_str(), c.kernel.as_str(), c.part.as_str()];
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    let longest = |i: usize| rows.iter().map(|r| columns(r[i])).max().unwrap_or(0);
    let kernels = rows.iter().any(|r| r[1] != rows[0][1]);
    let label = |row: &[&str; 3]| {
        let kernel = if kernels { format!("  {}", pad(row[1], longest(1), false)) } else { String::new() };
        format!("{}{kernel}  {}", pad(row[0], longest(0), false), pad(row[2], longest(2), false))
    };
    let indent = rows.first().map_or(0, |r| columns(&label(r))) + 2;
    let mut text = String::new();
    for (i, policy) in policies.iter().enumerate() {
        let bars = format!("|{}", " ".repeat(MARK - 1)).repeat(i);
        text.push_str(&format!(
            "{}{}{}\n",
            " ".repeat(indent),
            styled(&bars, style::aside()),
            styled(policy, style::strong())
        ));
    }
    for row in &rows {
        let mut line = format!("{}  ", label(row));
        for policy in &policies {
            let found = all
                .iter()
                .find(|c| c.policy == *policy && [&*c.litmus, &*c.kernel, &*c.part] == *row)
                .map_or((" ".to_owned(), owo_colors::Style::new()), mark);
            line.push_str(&styled(&found.0, found.1));
            line.push_str(&" ".repeat(MARK.saturating_sub(columns(&found.0))));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push_str("\n- holds   V violated   ? bounded   ! not as expected\n");
    if !kernels && let Some(row) = rows.first() {
        text.push_str(&format!("kernel {}\n", row[1]));
    }
    text.push_str(&summary(all, width));
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
            (Some(false), Verdict::Holds | Verdict::Violated) => ("NOT AS EXPECTED", style::bad()),
            (Some(true) | None, Verdict::Holds | Verdict::Violated) => continue,
        };
        let why = match (c.report.verdict, c.report.events.first(), c.report.bound) {
            (Verdict::Violated, Some(first), _) => {
                let steps = plural(first.story.len(), "step");
                format!("violated: {} in {steps}: {}", first.event.name(), first.event.meaning())
            }
            (Verdict::Bounded, _, Some(bound)) => format!("the search met its bound: {}", bound_name(bound)),
            (Verdict::Holds, _, _) => "holds: no order of steps leads to an event".to_owned(),
            (_, _, _) => c.report.verdict.name().to_owned(),
        };
        let about = |c: &Checked| (c.litmus.clone(), c.policy.clone(), c.kernel.clone(), c.expected);
        match list.iter_mut().find(|o| about(o.first) == about(c) && o.why == why) {
            Some(known) => known.parts.push(&c.part),
            None => list.push(Odd { first: c, parts: vec![&c.part], word, colour, why }),
        }
    }
    list
}

fn summary(all: &[Checked], width: usize) -> String {
    let mut text = String::new();
    for o in odd(all) {
        let line = format!(
            "{}  {}, policy {}, on {}: expected {}; {}",
            o.word,
            o.first.litmus,
            o.first.policy,
            o.parts.join(" and "),
            o.first.expected.map_or("nothing", |e| e.name()),
            o.why
        );
        let line = wrap(&line, width, 4).replacen(o.word, &styled(o.word, o.colour), 1);
        text.push_str(&format!("\n{line}\n    {}\n", o.first.command()));
    }
    let count = |f: &dyn Fn(&Checked) -> bool| all.iter().filter(|c| f(c)).count();
    let met = count(&|c| c.met() == Some(true));
    let missed = count(&|c| c.met() == Some(false) && c.report.verdict != Verdict::Bounded);
    let bounded = count(&|c| c.report.verdict == Verdict::Bounded);
    let free = count(&|c| c.expected.is_none() && c.report.verdict != Verdict::Bounded);
    let mut said = vec![format!("{met} as expected")];
    let others = [(missed, "not as expected"), (bounded, "bounded"), (free, "without an expectation")];
    said.extend(others.iter().filter(|o| o.0 > 0).map(|(n, what)| format!("{n} {what}")));
    let colour = if missed > 0 {
        style::bad()
    } else if bounded > 0 {
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
        fields.push(checked.expected.map_or(String::new(), |e| e.name().to_owned()));
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
