//! What became of a policy's mutants, for reading, as JSON and as CSV.

use serde::Serialize;
use workloads::mutate::Mutant;

use super::number::plural;
use super::style;
use super::table::{styled, wrap};
use super::verdicts::csv_line;
use crate::mutate::Fate;

/// What the mutants were tried in.
#[derive(Debug)]
pub(crate) struct Tests<'t> {
    /// The policy.
    pub(crate) policy: &'t str,
    /// Its file.
    pub(crate) file: &'t str,
    /// Cases in which the original holds.
    pub(crate) corpus: usize,
}

fn change(mutant: &Mutant) -> String {
    match mutant.is.as_str() {
        ";" => format!("`{}` {}", mutant.was, mutant.change.name()),
        is => format!("`{}` {}: {is}", mutant.was, mutant.change.name()),
    }
}

/// For reading: the mutants that nothing kills, or all of them.
pub(crate) fn table(tests: &Tests<'_>, found: &[(&Mutant, Fate)], all: bool, width: usize) -> String {
    let count = |name: &str| found.iter().filter(|f| f.1.name() == name).count();
    let cases = plural(tests.corpus, "case");
    let mut text = format!(
        "{}: {} in {cases} of litmus tests in which it holds\n",
        styled(tests.policy, style::strong()),
        plural(found.len(), "mutant"),
    );
    let mut said: Vec<String> = Vec::new();
    for (name, words) in [
        ("killed", "killed"),
        ("survives", "nothing kills"),
        ("bounded", "not decided"),
        ("same", "the same program"),
        ("invalid", "no text of the language"),
    ] {
        if count(name) > 0 {
            said.push(format!("{} {words}", count(name)));
        }
    }
    text.push_str(&format!("{}\n", said.join(", ")));
    let mut list = |title: &str, name: &str, style: owo_colors::Style| {
        if count(name) == 0 {
            return;
        }
        text.push_str(&format!("\n{}\n", styled(title, style)));
        for (mutant, fate) in found.iter().filter(|f| f.1.name() == name) {
            let why = match fate {
                Fate::Killed { by, event, steps: 0 } => format!(" - {event}, in {}", by[0]),
                Fate::Killed { by, event, steps } => {
                    format!(" - {event} in {}, in {} on {}", plural(*steps, "step"), by[0], by[2])
                }
                Fate::Open(bound) => format!(" - a search met its bound: {bound}"),
                Fate::Survives | Fate::Invalid | Fate::Same => String::new(),
            };
            let line = format!("{}:{}: {}{why}", tests.file, mutant.line, change(mutant));
            text.push_str(&format!("  {}\n", wrap(&line, width.saturating_sub(2), 6)));
        }
    };
    if all {
        list("Killed:", "killed", style::good());
        list("The same program:", "same", style::aside());
        list("No text of the language:", "invalid", style::aside());
    }
    list("Not decided:", "bounded", style::unsure());
    list("Nothing kills (not needed, or a litmus test is missing):", "survives", style::bad());
    text
}

/// `sevsim.mutate/1`.
#[derive(Debug, Serialize)]
pub(crate) struct Json<'a> {
    schema: &'static str,
    policy: &'a str,
    line: usize,
    change: &'static str,
    was: &'a str,
    is: &'a str,
    fate: &'static str,
    litmus: Option<&'a str>,
    kernel: Option<&'a str>,
    part: Option<&'a str>,
    event: Option<&'a str>,
    steps: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bound: Option<&'a str>,
}

impl<'a> Json<'a> {
    /// One mutant.
    pub(crate) fn of(tests: &Tests<'a>, (mutant, fate): &'a (&Mutant, Fate)) -> Json<'a> {
        let (by, event, steps) = match fate {
            Fate::Killed { by, event, steps } => (Some(by), Some(event.as_str()), Some(*steps)),
            Fate::Survives | Fate::Invalid | Fate::Same | Fate::Open(_) => (None, None, None),
        };
        let name = |i: usize| by.map(|by| by[i].as_str());
        Json {
            schema: "sevsim.mutate/1",
            policy: tests.policy,
            line: mutant.line,
            change: mutant.change.name(),
            was: &mutant.was,
            is: &mutant.is,
            fate: fate.name(),
            litmus: name(0),
            kernel: name(1),
            part: name(2),
            event,
            steps,
            bound: if let Fate::Open(bound) = fate { Some(bound) } else { None },
        }
    }
}

/// A line for each mutant, and a head.
pub(crate) fn csv(tests: &Tests<'_>, found: &[(&Mutant, Fate)]) -> String {
    let mut text = "policy,line,change,was,is,fate,litmus,event,steps\n".to_owned();
    for f in found {
        let json = Json::of(tests, f);
        text.push_str(&csv_line(&[
            json.policy.to_owned(),
            json.line.to_string(),
            json.change.to_owned(),
            json.was.to_owned(),
            json.is.to_owned(),
            json.fate.to_owned(),
            json.litmus.unwrap_or_default().to_owned(),
            json.event.unwrap_or_default().to_owned(),
            json.steps.map_or(String::new(), |s| s.to_string()),
        ]));
    }
    text
}
