//! The table at the end of `docs/VERDICTS.md`: every case of the corpus with its events, the states that were searched and
//! its story. `SNAPSHOTS=overwrite cargo test --test it` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::program::optimised;

/// Policies of one row up to which each is named.
const NAMED: usize = 8;

/// What stands above the table.
const MARK: &str = "<!-- every case -->\n";

/// Cases that came to the same, in one kernel.
struct Row {
    litmus: String,
    kernel: String,
    parts: Vec<String>,
    policies: Vec<String>,
    came_to: String,
    states: (u64, u64),
}

fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn came_to(case: &Value) -> String {
    let odd = if case["met"] == Value::Bool(false) { " (not as expected)" } else { "" };
    let events = case["events"].as_array().map_or(&[][..], Vec::as_slice);
    let events: Vec<&str> = events.iter().filter_map(Value::as_str).collect();
    match case["verdict"].as_str() {
        Some("violated") => format!("**{}**{odd}", events.join(", ")),
        other => format!("{}{odd}", other.unwrap_or("?")),
    }
}

/// The rows, in the order of the cases. Of a test, kernel and part, the policies that came to the same share a row;
/// then parts with the same policies do.
fn rows(cases: &[Value]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for case in cases {
        let word = |key: &str| case[key].as_str().expect("a name").to_owned();
        let states = case["states"].as_u64().unwrap_or(0);
        let (litmus, kernel, part, came_to) = (word("litmus"), word("kernel"), word("part"), came_to(case));
        let same = |r: &&mut Row| {
            (&r.litmus, &r.kernel, &r.parts[0], &r.came_to) == (&litmus, &kernel, &part, &came_to)
        };
        if let Some(row) = rows.iter_mut().find(same) {
            row.policies.push(word("policy"));
            row.states = (row.states.0.min(states), row.states.1.max(states));
        } else {
            let policies = vec![word("policy")];
            rows.push(Row { litmus, kernel, parts: vec![part], policies, came_to, states: (states, states) });
        }
    }
    let mut merged: Vec<Row> = Vec::new();
    for row in rows {
        let key = |r: &Row| (r.litmus.clone(), r.kernel.clone(), r.policies.clone(), r.came_to.clone());
        match merged.iter_mut().find(|m| key(m) == key(&row)) {
            Some(m) => {
                m.parts.extend(row.parts);
                m.states = (m.states.0.min(row.states.0), m.states.1.max(row.states.1));
            }
            None => merged.push(row),
        }
    }
    merged
}

/// The policies of a row, each with a link to its story if that is kept.
fn policies(row: &Row, root: &Path) -> String {
    let told = |policy: &str| {
        let file = format!("{}--{policy}--{}.txt", row.litmus.replace(':', "."), row.kernel);
        let story = std::fs::read_to_string(root.join("tests/it/golden/stories").join(&file)).ok();
        let story = story.filter(|_| row.came_to.starts_with("**"))?;
        // "VIOLATED  two-flushers, policy no-flush, on linux-6.17 and rome"
        let part =
            story.split_whitespace().skip_while(|w| *w != "and").nth(1).expect("a story names its part");
        let of = if row.parts.iter().any(|p| p == part) { String::new() } else { format!(" (on {part})") };
        Some(format!("[{policy}](../tests/it/golden/stories/{file}){of}"))
    };
    if row.policies.len() <= NAMED {
        let name = |p: &String| told(p).unwrap_or_else(|| p.clone());
        return row.policies.iter().map(name).collect::<Vec<_>>().join(", ");
    }
    let stories: Vec<String> = row.policies.iter().filter_map(|p| told(p)).collect();
    let stories = if stories.is_empty() { String::new() } else { format!(": {}", stories.join(", ")) };
    format!("{} policies{stories}", row.policies.len())
}

fn table(cases: &[Value], root: &Path) -> String {
    let mut text =
        "| litmus test | kernel | parts | policies | came to | states |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for row in rows(cases) {
        let (least, most) = (grouped(row.states.0), grouped(row.states.1));
        let states = if least == most { most } else { format!("{least} to {most}") };
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {states} |",
            row.litmus,
            row.kernel,
            row.parts.join(", "),
            policies(&row, root),
            row.came_to
        )
        .expect("a string takes all");
    }
    text
}

/// The text of `docs/VERDICTS.md` with its table made anew.
pub(crate) fn with_every_case(text: &str, root: &Path) -> String {
    let (above, _) = text.split_once(MARK).expect("a mark above the table");
    let cases = optimised(&["test", "--all", "--format", "json"]).json();
    format!("{above}{MARK}{}", table(&cases, root))
}
