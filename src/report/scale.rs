//! How far a claim reaches, for reading, as JSON and as CSV.

use serde::Serialize;
use workloads::check::{CheckCase, Verdict};
use workloads::litmus::Size;

use super::number::{grouped, plural, time};
use super::table::{pad, styled, wrap};
use super::verdicts::csv_line;
use super::{story, style};
use crate::scale::{About, Scaled, ended};

/// Heads and widths of the columns, which are known before the first row is.
const COLUMNS: [(&str, usize); 7] =
    [("pCPUs", 5), ("vCPUs", 5), ("pages", 5), ("tasks", 5), ("states", 13), ("steps", 5), ("time", 7)];

fn line(cells: &[String], last: &str) -> String {
    let cells = cells.iter().zip(COLUMNS).map(|(cell, (_, width))| pad(cell, width, true));
    format!("{}  {last}\n", cells.collect::<Vec<_>>().join("  "))
}

/// What stands above the rows.
pub(crate) fn head(case: &CheckCase<'_>, follows: bool) -> String {
    let heads: Vec<String> = COLUMNS.iter().map(|(name, _)| (*name).to_owned()).collect();
    format!(
        "{}{} in {}, on {} and {}\n\n{}",
        if follows { "\n" } else { "" },
        styled(&case.policy.name, style::strong()),
        styled(&case.litmus.name, style::strong()),
        case.kernel.name,
        case.part,
        line(&heads, "verdict")
    )
}

fn nanos(scaled: &Scaled) -> u64 {
    u64::try_from(scaled.took.as_nanos()).unwrap_or(u64::MAX)
}

/// One size.
pub(crate) fn row(scaled: &Scaled) -> String {
    let (size, report) = (scaled.size, &scaled.report);
    let cells = [
        size.pcpus.to_string(),
        size.vcpus.to_string(),
        size.pages.to_string(),
        size.tasks.to_string(),
        grouped(u64::from(report.states)),
        report.depth.to_string(),
        time(nanos(scaled)),
    ];
    let style = match report.verdict {
        Verdict::Holds => style::good(),
        Verdict::Violated => style::bad(),
        Verdict::Bounded | Verdict::Vacuous | Verdict::NotExhaustive | Verdict::Refused => style::unsure(),
    };
    line(&cells, &styled(&ended(report), style))
}

fn words(size: Size) -> String {
    let count = |n: usize, word: &str| plural(n, word);
    [
        count(usize::from(size.pcpus), "pCPU"),
        count(size.vcpus, "vCPU"),
        count(size.pages, "page"),
        count(size.tasks, "task"),
    ]
    .join(", ")
}

/// Up to where the claim is exhaustive, and what ended the growth.
pub(crate) fn claim(about: &About<'_>, width: usize) -> String {
    let holds = |t: &&Scaled| t.report.verdict == Verdict::Holds;
    let largest = about.tried.iter().filter(holds).filter(|t| {
        let above = |o: &Scaled| o.growth != t.growth && t.growth.within(o.growth);
        !about.tried.iter().filter(holds).any(above)
    });
    let largest: Vec<String> = largest.map(|t| words(t.size)).collect();
    let mut text = "\n".to_owned();
    // A line, or one that is indented.
    let mut say = |said: &str, indent: usize| {
        let said = wrap(said, width.saturating_sub(indent), indent + 2);
        text.push_str(&format!("{}{said}\n", " ".repeat(indent)));
    };
    if largest.is_empty() {
        say("It holds at no size that was searched to the end.", 0);
    } else {
        say(
            "It holds, and every order of steps was tried, up to each of these sizes and in all below them:",
            0,
        );
        for size in &largest {
            say(size, 2);
        }
        if !about.case.litmus.spec(false).assumptions.names().is_empty() {
            let given = about.case.litmus.spec(false).assumptions.names().join(", ");
            say(&format!("taken as given: {given}"), 2);
        }
    }
    for open in about.tried.iter().filter(|t| t.report.verdict != Verdict::Holds) {
        say(&format!("{}: {}.", words(open.size), ended(&open.report)), 0);
    }
    if about.late {
        say("Nothing is claimed of larger sizes; --time lets it go on for longer.", 0);
    }
    for why in &about.fixed {
        say(&format!("Not made larger: {why}."), 0);
    }
    if let Some(first) = about.tried.iter().find_map(|t| t.report.events.first()) {
        text.push_str(&format!("\n{}", story::tell(&first.story, 0, width)));
    }
    text
}

/// What depends on the host and the clock.
#[derive(Debug, Serialize)]
struct Provenance {
    wall_ms: u64,
}

/// `sevsim.scale/1`.
#[derive(Debug, Serialize)]
pub(crate) struct Json<'a> {
    schema: &'static str,
    litmus: &'a str,
    policy: &'a str,
    kernel: &'a str,
    part: &'a str,
    pcpus: u16,
    vcpus: usize,
    pages: usize,
    tasks: usize,
    verdict: &'static str,
    events: Vec<&'static str>,
    states: u32,
    transitions: u64,
    depth: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    bound: Option<String>,
    provenance: Provenance,
}

impl<'a> Json<'a> {
    /// One size.
    pub(crate) fn of(case: &'a CheckCase<'_>, scaled: &'a Scaled) -> Json<'a> {
        let (size, report) = (scaled.size, &scaled.report);
        Json {
            schema: "sevsim.scale/1",
            litmus: &case.litmus.name,
            policy: &case.policy.name,
            kernel: &case.kernel.name,
            part: case.part,
            pcpus: size.pcpus,
            vcpus: size.vcpus,
            pages: size.pages,
            tasks: size.tasks,
            verdict: report.verdict.name(),
            events: report.events.iter().map(|e| e.event.name()).collect(),
            states: report.states,
            transitions: report.transitions,
            depth: report.depth,
            bound: report.bound.map(|_| ended(report)),
            provenance: Provenance { wall_ms: nanos(scaled) / 1_000_000 },
        }
    }
}

/// The names of the CSV columns.
pub(crate) fn csv_head() -> String {
    "litmus,policy,kernel,part,pcpus,vcpus,pages,tasks,verdict,states,transitions,depth\n".to_owned()
}

/// One size.
pub(crate) fn csv_row(case: &CheckCase<'_>, scaled: &Scaled) -> String {
    let (size, report) = (scaled.size, &scaled.report);
    csv_line(&[
        case.litmus.name.clone(),
        case.policy.name.clone(),
        case.kernel.name.clone(),
        case.part.to_owned(),
        size.pcpus.to_string(),
        size.vcpus.to_string(),
        size.pages.to_string(),
        size.tasks.to_string(),
        report.verdict.name().to_owned(),
        report.states.to_string(),
        report.transitions.to_string(),
        report.depth.to_string(),
    ])
}
