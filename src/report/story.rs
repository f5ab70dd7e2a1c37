//! A story as kernel developers draw races: time goes down, a column for each pCPU and who runs on it, each step in its
//! column under the function that it stands in; where damage is done, a mark across all; then what went wrong.
//!
//! *Promise*: each step is told once, under its number; no line is wider than the terminal or 100 columns.

use std::collections::BTreeMap;

use cache_model::event::Victim;
use svm_model::lang::Role;
use svm_model::story::StoryStep;

use super::style;
use super::table::{pad, styled, wrap};
use cell::{Above, Line, file_name};
use lanes::Lanes;

mod cell;
mod lanes;

/// Columns at most: a mail's.
const MAIL: usize = 100;
/// What a mark or a sentence needs at least.
const LEAST: usize = 28;
/// Between the numbers and the columns.
const GAP: usize = 2;
/// From this many steps on, what a statement of the kernel did stands for the statement.
const LONG: usize = 60;
/// Stands for a space at which no line ends.
const JOINED: char = '\u{e000}';
/// After so many steps of others, a function is named again.
const FAR: usize = 8;

/// How a story is laid out.
#[derive(Debug)]
struct Layout {
    width: usize,
    number: usize,
    lanes: Lanes,
}

impl Layout {
    /// Of the steps of a story from the one with index `from` on.
    fn of(story: &[StoryStep], from: usize, width: usize) -> Layout {
        let width = width.min(MAIL);
        let number = story.iter().map(|s| s.step.to_string().len()).max().unwrap_or(0).max(2);
        let lanes = Lanes::of(story, from, width.saturating_sub(number + GAP));
        Layout { width, number, lanes }
    }

    /// A row: a step's number or none, and a line in one of the columns.
    fn push_row(&self, number: &str, lane: usize, (line, look): &Line, text: &mut String) {
        text.push_str(&pad(number, self.number, true));
        text.push_str(&" ".repeat(GAP));
        let last = self.lanes.list.len().saturating_sub(1);
        for (i, column) in self.lanes.list.iter().enumerate() {
            let said = if i == lane { styled(line, *look) } else { String::new() };
            match i == last {
                true => text.push_str(&said),
                false => {
                    text.push_str(&pad(&said, column.width, false));
                    text.push_str(&bar());
                }
            }
        }
        end_row(text);
    }

    /// The columns' names.
    fn push_titles(&self, text: &mut String) {
        if self.lanes.is_list() {
            return;
        }
        let rows: Vec<Vec<String>> =
            self.lanes.list.iter().map(|l| cell::folded(&l.title, l.width, 2)).collect();
        for row in 0..rows.iter().map(Vec::len).max().unwrap_or(0) {
            let cells = rows.iter().zip(&self.lanes.list).map(|(lines, lane)| {
                let line = lines.get(row).map_or("", String::as_str);
                pad(
                    &styled(line, if line.is_empty() { owo_colors::Style::new() } else { style::strong() }),
                    lane.width,
                    false,
                )
            });
            let cells: Vec<String> = cells.collect();
            text.push_str(&" ".repeat(self.number + GAP));
            text.push_str(&cells.join(&bar()));
            end_row(text);
        }
    }

    /// A sentence across all columns, its first word in a style.
    fn push_across(&self, mark: &str, look: owo_colors::Style, said: &str, text: &mut String) {
        // A step's number stays beside the word.
        let said = said.trim().replace("(step ", &format!("(step{JOINED}"));
        let line = wrap(&format!("{mark} {said}"), self.width.max(LEAST), 4).replace(JOINED, " ");
        text.push_str(&line.replacen(mark, &styled(mark, look), 1));
        text.push('\n');
    }
}

/// What stands between two columns.
fn bar() -> String {
    format!(" {} ", styled("|", style::aside()))
}

/// Ends a row without spaces at its end.
fn end_row(text: &mut String) {
    while text.ends_with(' ') {
        text.pop();
    }
    text.push('\n');
}

/// The kernel's file that most lines are of: what is of another one says so.
fn kernel_file(steps: &[StoryStep]) -> Option<String> {
    let of_kernel = steps.iter().filter(|s| s.role == Some(Role::Kernel));
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for file in of_kernel.filter_map(|s| s.file.as_deref().map(file_name)) {
        *lines.entry(file).or_default() += 1;
    }
    lines.into_iter().max_by_key(|(_, count)| *count).map(|(file, _)| file)
}

/// Tells the steps from the one with index `from` on.
pub(crate) fn tell(story: &[StoryStep], from: usize, width: usize) -> String {
    let steps = story.get(from..).unwrap_or_default();
    let layout = Layout::of(story, from, width);
    let mut text = String::new();
    let aside = |said: &str| format!("{}\n", styled(&wrap(said, layout.width.max(LEAST), 4), style::aside()));
    if from > 0 {
        text.push_str(&aside(&format!("steps 1 to {from} as above")));
    }
    let kernel = kernel_file(steps);
    if let Some(file) = &kernel {
        text.push_str(&aside(&format!("lines without a file are of {file}")));
    }
    layout.push_titles(&mut text);
    let list = layout.lanes.is_list();
    let mut above: Vec<(Above, usize)> = vec![(Above::default(), 0); layout.lanes.list.len()];
    for (i, (step, lane)) in steps.iter().zip(&layout.lanes.of).enumerate() {
        let (Some(column), Some((above, seen))) = (layout.lanes.list.get(*lane), above.get_mut(*lane)) else {
            continue;
        };
        if i > *seen + FAR {
            *above = Above::default();
        }
        *seen = i;
        for line in cell::head(step, above, (column.actor.as_deref(), kernel.as_deref()), list, column.width)
        {
            layout.push_row("", *lane, &line, &mut text);
        }
        let body = cell::body(step, above, column.width, steps.len() > LONG);
        let number = step.step.to_string();
        if body.is_empty() {
            layout.push_row(&number, *lane, &(String::new(), owo_colors::Style::new()), &mut text);
        }
        for (i, line) in body.iter().enumerate() {
            layout.push_row(if i == 0 { &number } else { "" }, *lane, line, &mut text);
        }
        for (event, said) in &step.events {
            // That it is the host whom it hits is the rule, and goes without saying.
            let victim = match event.victim {
                Victim::Host => String::new(),
                Victim::Vm | Victim::Myself => format!(", victim {}", event.victim.name()),
            };
            let mark = format!(">>> {}{victim}:", event.kind.name());
            layout.push_across(&mark, style::bad(), said, &mut text);
        }
    }
    if let Some(cause) = cause(steps) {
        text.push('\n');
        layout.push_across("in short:", style::strong(), cause, &mut text);
    }
    text
}

/// What went wrong in general, where the steps show it.
pub(crate) fn cause(story: &[StoryStep]) -> Option<&str> {
    story.last().and_then(|s| s.cause.as_deref())
}

/// The line for an event that is a state rather than a step.
pub(crate) fn state_event(name: &str, meaning: &str, story: &[StoryStep], width: usize) -> String {
    let mut text = String::new();
    Layout::of(story, 0, width).push_across(&format!(">>> {name}:"), style::bad(), meaning, &mut text);
    text
}

/// What makes two stories the same but for details: who did what.
pub(crate) fn signature(story: &[StoryStep]) -> Vec<(String, String)> {
    story.iter().map(|s| (s.actor.clone(), s.text.clone())).collect()
}

/// How many steps two stories have in common before they part.
pub(crate) fn common(a: &[StoryStep], b: &[StoryStep]) -> usize {
    let same =
        |(x, y): &(&StoryStep, &StoryStep)| x.actor == y.actor && x.text == y.text && x.effect == y.effect;
    a.iter().zip(b).take_while(same).count()
}

#[cfg(test)]
mod tests;
