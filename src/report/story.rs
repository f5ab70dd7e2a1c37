//! A story: one line a step, in aligned columns; what a step changed stands beside it, or below it if it is long.

use std::path::Path;

use svm_model::story::StoryStep;

use super::style;
use super::table::{columns, pad, styled, wrap};

/// What the statement's column is given at most, so that most effects have room beside it.
const WHAT: usize = 52;
/// What an effect needs at least to stand beside its statement.
const EFFECT: usize = 28;
/// Before each line.
const MARGIN: usize = 1;
/// Between two columns.
const GAP: usize = 2;

/// The columns' widths.
#[derive(Debug)]
struct Widths {
    step: usize,
    actor: usize,
    place: usize,
    what: usize,
    all: usize,
}

/// The statement's place, without its folder.
fn place(step: &StoryStep) -> String {
    let Some(file) = &step.file else { return String::new() };
    let name = Path::new(file).file_name().and_then(|n| n.to_str()).unwrap_or(file);
    step.line.map_or(name.to_owned(), |line| format!("{name}:{line}"))
}

fn pcpu(step: &StoryStep) -> String {
    step.pcpu.map_or_else(|| "-".to_owned(), |p| p.to_string())
}

impl Widths {
    fn of(story: &[StoryStep], all: usize) -> Widths {
        let longest =
            |f: &dyn Fn(&StoryStep) -> usize, least: usize| story.iter().map(f).max().unwrap_or(0).max(least);
        let step = longest(&|s| s.step.to_string().len(), 4);
        let actor = longest(&|s| columns(&s.actor), 3);
        let place = longest(&|s| columns(&place(s)), 5);
        let what = longest(&|s| columns(&s.text).min(WHAT), 4);
        Widths { step, actor, place, what, all }
    }

    /// Where the statement's column begins.
    fn indent(&self) -> usize {
        MARGIN + self.step + GAP + self.actor + GAP + 4 + GAP + self.place + GAP
    }
}

/// The columns' names.
fn head(w: &Widths) -> String {
    let line = format!(
        "{}{}  {}  pCPU  {}  what | what it changed",
        " ".repeat(MARGIN),
        pad("step", w.step, true),
        pad("who", w.actor, false),
        pad("where", w.place, false)
    );
    styled(&line, style::strong()) + "\n"
}

/// Tells the steps from the one with index `from` on.
pub(crate) fn tell(story: &[StoryStep], from: usize, width: usize) -> String {
    let w = Widths::of(story, width);
    let mut text = head(&w);
    if from > 0 {
        let above = format!("steps 1 to {from} as above");
        text.push_str(&format!("{}{}\n", " ".repeat(w.indent()), styled(&above, style::aside())));
    }
    for step in story.iter().skip(from) {
        push_step(step, &w, &mut text);
    }
    text
}

fn push_step(step: &StoryStep, w: &Widths, text: &mut String) {
    let margin = " ".repeat(MARGIN);
    text.push_str(&format!(
        "{margin}{}  {}  {}  {}  ",
        pad(&step.step.to_string(), w.step, true),
        pad(&step.actor, w.actor, false),
        pad(&pcpu(step), 4, true),
        styled(&pad(&place(step), w.place, false), style::aside()),
    ));
    let indent = w.indent();
    let room = w.all.saturating_sub(indent + w.what + 3);
    let beside = !step.effect.is_empty() && columns(&step.text) <= w.what && room >= EFFECT;
    let lines = if step.effect.is_empty() {
        Vec::new()
    } else {
        pieces(&step.effect, if beside { room } else { w.all.saturating_sub(indent + 4).max(EFFECT) })
    };
    if beside && lines.len() <= 2 {
        text.push_str(&pad(&step.text, w.what, false));
        for (i, line) in lines.iter().enumerate() {
            let lead = if i == 0 { " ".to_owned() } else { " ".repeat(indent + w.what + 1) };
            text.push_str(&format!("{lead}| {line}\n"));
        }
    } else {
        text.push_str(
            &wrap(&step.text, w.all.saturating_sub(indent).max(EFFECT), 0)
                .replace('\n', &format!("\n{}", " ".repeat(indent + 4))),
        );
        text.push('\n');
        let lines = pieces(&step.effect, w.all.saturating_sub(indent + 4).max(EFFECT));
        for line in lines {
            text.push_str(&format!("{}| {line}\n", " ".repeat(indent + 2)));
        }
    }
    for (event, said) in &step.events {
        let name = event.kind.name();
        let rest = said.strip_prefix(name).unwrap_or(said);
        let mark = format!(">>> {}", name.to_uppercase());
        let room = w.all.saturating_sub(MARGIN + 5).max(EFFECT);
        let rest = wrap(rest, room.saturating_sub(columns(&mark)), 0);
        let rest = rest.replace('\n', &format!("\n{}", " ".repeat(MARGIN + w.step + GAP + 4)));
        let lead = " ".repeat(MARGIN + w.step + GAP);
        text.push_str(&format!("{lead}{}{rest}\n", styled(&mark, style::bad())));
    }
}

/// The parts of an effect, in as few lines of `width` as they fit in.
fn pieces(effect: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for piece in effect.split("; ").filter(|p| !p.is_empty()) {
        match lines.last_mut() {
            Some(last) if columns(last) + 2 + columns(piece) <= width => {
                last.push_str("; ");
                last.push_str(piece);
            }
            Some(_) | None => lines.push(piece.to_owned()),
        }
    }
    lines
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
