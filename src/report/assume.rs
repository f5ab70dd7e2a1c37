//! What a policy leans on, for reading, as JSON and as CSV.

use serde::Serialize;
use workloads::assume::Guarantee;
use workloads::check::Verdict;

use super::json::Step;
use super::number::plural;
use super::table::{columns, pad, styled, wrap};
use super::verdicts::csv_line;
use super::{story, style};
use crate::args::Stories;
use crate::assume::Assumed;

fn names(guarantees: &[Guarantee]) -> Vec<String> {
    guarantees.iter().map(Guarantee::name).collect()
}

/// Those that can be taken away alone.
fn spare(found: &Assumed) -> Vec<&Guarantee> {
    found.given.iter().filter(|g| found.necessary.iter().all(|n| n.guarantee != **g)).collect()
}

/// For reading.
pub(crate) fn table(found: &Assumed, stories: Stories, width: usize) -> String {
    let litmus = found.litmus.join(", ");
    let policy = styled(&found.policy, style::strong());
    let mut text =
        wrap(&format!("{policy} in {litmus}, on {} and {}", found.kernel, found.part), width, 2) + "\n\n";
    match (&found.open, &found.bounded) {
        (Some(test), bounded) => {
            let why = match (found.verdict, bounded) {
                (Verdict::Bounded, Some((_, bound))) => format!("the search met its bound: {bound}"),
                (verdict, _) => format!("its verdict is \"{}\"", verdict.name()),
            };
            text.push_str(&wrap(
                &format!("With every guarantee, {why} in {test}: there is nothing to lean on."),
                width,
                2,
            ));
            text.push('\n');
            return text;
        }
        (None, Some((taken, bound))) => {
            let taken = names(taken).join(" and ");
            text.push_str(&wrap(
                &format!("BOUNDED: without {taken}, a search met its bound: {bound}."),
                width,
                2,
            ));
            text.push_str("\n\n");
        }
        (None, None) => {}
    }
    if !found.necessary.is_empty() {
        text.push_str(&styled("It needs each of these:\n", style::strong()));
        let wide = found.necessary.iter().map(|n| columns(&n.guarantee.name())).max().unwrap_or(0);
        for n in &found.necessary {
            let (name, steps) = (n.guarantee.name(), plural(n.broken.schedule.len(), "step"));
            text.push_str(&format!("  {}  {}\n", pad(&name, wide, false), n.guarantee.meaning()));
            let broken = format!("else {} in {steps}, in {}", n.broken.event.name(), n.litmus);
            text.push_str(&format!("  {}  {broken}\n", " ".repeat(wide)));
        }
        text.push('\n');
    }
    let spare = spare(found);
    if !spare.is_empty() && found.bounded.is_none() {
        text.push_str(&styled("It holds without any one of these:\n", style::strong()));
        let wide = spare.iter().map(|g| columns(&g.name())).max().unwrap_or(0);
        for g in &spare {
            text.push_str(&format!("  {}  {}\n", pad(&g.name(), wide, false), g.meaning()));
        }
        text.push('\n');
    }
    if found.bounded.is_none() {
        text.push_str(&wrap(&suffices(found), width, 2));
        text.push('\n');
    }
    let told = match stories {
        Stories::All => found.necessary.len(),
        Stories::First => 1,
        Stories::None => 0,
    };
    for n in found.necessary.iter().take(told) {
        let head = format!("Without {}, in {}:", n.guarantee.name(), n.litmus);
        text.push_str(&format!(
            "\n{}\n{}",
            styled(&head, style::strong()),
            story::tell(&n.broken.story, 0, width)
        ));
    }
    text
}

/// The minimal sets in words.
fn suffices(found: &Assumed) -> String {
    let needed = if found.necessary.is_empty() { "" } else { "those it needs and " };
    let sets: Vec<String> = found.minimal.iter().map(|set| names(set).join(" with ")).collect();
    let said = match found.minimal.as_slice() {
        [] => "no set of guarantees that could be tried suffices".to_owned(),
        [only] if only.is_empty() && found.necessary.is_empty() => "it holds without all of them".to_owned(),
        [only] if only.is_empty() => "those it needs suffice: it holds without all the others".to_owned(),
        _ => format!("it holds with {needed}any of: {}", sets.join("; ")),
    };
    format!("Together: {said}. {} checked.", plural(found.combinations, "combination"))
}

#[derive(Debug, Serialize)]
struct Broken<'a> {
    guarantee: String,
    litmus: &'a str,
    event: &'static str,
    steps: usize,
    trace: Vec<Step<'a>>,
}

/// `sevsim.assume/1`.
#[derive(Debug, Serialize)]
pub(crate) struct Json<'a> {
    schema: &'static str,
    policy: &'a str,
    litmus: &'a [String],
    kernel: &'a str,
    part: &'a str,
    /// With every guarantee.
    verdict: &'static str,
    given: Vec<String>,
    necessary: Vec<Broken<'a>>,
    /// Sets that suffice, none of which can do with less.
    minimal: Vec<Vec<String>>,
    combinations: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    bound: Option<&'a str>,
}

impl<'a> Json<'a> {
    /// One case; with the steps of each story if they are asked for.
    pub(crate) fn of(found: &'a Assumed, traces: bool) -> Json<'a> {
        let needed = || found.necessary.iter().map(|n| n.guarantee.name());
        Json {
            schema: "sevsim.assume/1",
            policy: &found.policy,
            litmus: &found.litmus,
            kernel: &found.kernel,
            part: &found.part,
            verdict: found.verdict.name(),
            given: names(&found.given),
            necessary: found
                .necessary
                .iter()
                .map(|n| Broken {
                    guarantee: n.guarantee.name(),
                    litmus: &n.litmus,
                    event: n.broken.event.name(),
                    steps: n.broken.schedule.len(),
                    trace: if traces { n.broken.story.iter().map(Step::of).collect() } else { Vec::new() },
                })
                .collect(),
            minimal: found.minimal.iter().map(|set| needed().chain(names(set)).collect()).collect(),
            combinations: found.combinations,
            bound: found.bounded.as_ref().map(|b| b.1.as_str()),
        }
    }
}

/// The names of the CSV columns.
pub(crate) fn csv_head() -> String {
    "policy,kernel,part,guarantee,necessary,litmus,event,steps\n".to_owned()
}

/// A line for each guarantee.
pub(crate) fn csv(found: &Assumed) -> String {
    let mut text = String::new();
    for guarantee in &found.given {
        let needed = found.necessary.iter().find(|n| n.guarantee == *guarantee);
        text.push_str(&csv_line(&[
            found.policy.clone(),
            found.kernel.clone(),
            found.part.clone(),
            guarantee.name(),
            needed.is_some().to_string(),
            needed.map_or(String::new(), |n| n.litmus.clone()),
            needed.map_or(String::new(), |n| n.broken.event.name().to_owned()),
            needed.map_or(String::new(), |n| n.broken.schedule.len().to_string()),
        ]));
    }
    text
}
