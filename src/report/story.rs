//! A story: one line a step, in aligned columns: who, on which pCPU, the statement, and what it did.
//!
//! A statement that is too long for what stands beside it is cut: its place says where to read it. What a step did is
//! never cut; if it is too long even so, it goes on below.

use std::path::Path;

use svm_model::story::StoryStep;

use super::style;
use super::table::{columns, pad, styled, wrap};

/// The statement's column at most; shorter ones are filled up so that what they did is aligned.
const WHAT: usize = 64;
/// What is left of a statement at least.
const SHORT: usize = 12;
/// A place's column at most.
const PLACE: usize = 18;
/// What a line of text needs at least, however narrow the terminal.
const LEAST: usize = 28;
/// Before each line.
const MARGIN: usize = 1;
/// Between two columns.
const GAP: usize = 2;
/// Between a statement and what it did.
const BAR: &str = " | ";

/// The columns' widths.
#[derive(Debug)]
struct Widths {
    step: usize,
    actor: usize,
    place: usize,
    what: usize,
    all: usize,
}

/// The statement's place, without its folder, and with a `~` in a name that is too long for its column.
fn place(step: &StoryStep) -> String {
    let Some(file) = &step.file else { return String::new() };
    let path = Path::new(file);
    let part = |name: Option<&std::ffi::OsStr>| name.and_then(|n| n.to_str()).unwrap_or("").to_owned();
    let (mut stem, ending) = (part(path.file_stem()), part(path.extension()));
    let dot = if ending.is_empty() { "" } else { "." };
    let rest = step.line.map_or(String::new(), |line| format!(":{line}"));
    let room = PLACE.saturating_sub(columns(dot) + columns(&ending) + columns(&rest));
    if columns(&stem) > room {
        stem = stem.chars().take(room.saturating_sub(1)).chain(['~']).collect();
    }
    format!("{stem}{dot}{ending}{rest}")
}

/// A statement in at most `width` columns.
fn clip(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    // The condition matters more than that it is one.
    let condition = ["if (", "while ("].iter().find_map(|head| text.strip_prefix(head)?.strip_suffix(')'));
    let text = condition.or_else(|| text.strip_prefix("return ")).unwrap_or(text);
    if columns(text) <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(2)).collect();
    format!("{}..", kept.trim_end())
}

impl Widths {
    fn of(steps: &[StoryStep], all: usize) -> Widths {
        let longest =
            |f: &dyn Fn(&StoryStep) -> usize, least: usize| steps.iter().map(f).max().unwrap_or(0).max(least);
        let step = longest(&|s| s.step.to_string().len(), 4);
        let actor = longest(&|s| columns(&s.actor), 3);
        let placed = steps.iter().any(|s| s.file.is_some());
        let place = longest(&|s| columns(&place(s)), if placed { 5 } else { 0 });
        let mut w = Widths { step, actor, place, what: WHAT, all };
        // As wide as the statements are, but most of what they did finds its room beside them.
        let taken = |s: &StoryStep| if s.file.is_some() || !placed { 0 } else { place + GAP };
        let what = longest(&|s| columns(&s.text).saturating_sub(taken(s)), SHORT);
        let mut effects: Vec<usize> =
            steps.iter().map(|s| s.effect.split("; ").map(columns).max().unwrap_or(0)).collect();
        effects.sort_unstable();
        let effect = effects.get(effects.len() * 2 / 3).copied().unwrap_or(0);
        w.what = w.room().saturating_sub(columns(BAR) + effect).clamp(SHORT, what.clamp(SHORT, WHAT));
        w
    }

    /// Where the column of places begins.
    fn before_place(&self) -> usize {
        MARGIN + self.step + GAP + self.actor + GAP + 4 + GAP
    }

    /// Where the statement's column begins.
    fn indent(&self) -> usize {
        self.before_place() + if self.place > 0 { self.place + GAP } else { 0 }
    }

    /// Columns from there to the end.
    fn room(&self) -> usize {
        self.all.saturating_sub(self.indent()).max(LEAST)
    }
}

/// The columns' names.
fn head(w: &Widths) -> String {
    let place = if w.place > 0 { pad("where", w.place + GAP, false) } else { String::new() };
    let line = format!(
        "{}{}  {}  pCPU  {place}{}{BAR}what it did",
        " ".repeat(MARGIN),
        pad("step", w.step, true),
        pad("who", w.actor, false),
        pad("what", w.what, false),
    );
    styled(&line, style::strong()) + "\n"
}

/// Tells the steps from the one with index `from` on.
pub(crate) fn tell(story: &[StoryStep], from: usize, width: usize) -> String {
    let steps = story.get(from..).unwrap_or_default();
    let w = Widths::of(steps, width);
    let mut text = head(&w);
    if from > 0 {
        let above = format!("steps 1 to {from} as above");
        text.push_str(&format!("{}{}\n", " ".repeat(w.before_place()), styled(&above, style::aside())));
    }
    for step in steps {
        push_step(step, &w, &mut text);
    }
    text
}

fn push_step(step: &StoryStep, w: &Widths, text: &mut String) {
    let pcpu = step.pcpu.map_or_else(|| "-".to_owned(), |p| p.to_string());
    text.push_str(&format!(
        "{}{}  {}  {}  ",
        " ".repeat(MARGIN),
        pad(&step.step.to_string(), w.step, true),
        pad(&step.actor, w.actor, false),
        pad(&pcpu, 4, true),
    ));
    // What is no statement has no place, and takes its column too.
    if step.file.is_some() {
        text.push_str(&styled(&pad(&place(step), w.place, false), style::aside()));
        text.push_str("  ");
    }
    // What is no statement can be read nowhere else: it is not cut if that helps.
    let whole = columns(&step.text).saturating_sub(if w.place > 0 { w.place + GAP } else { 0 });
    let kept = if step.file.is_some() { SHORT } else { whole.clamp(SHORT, w.what.max(SHORT)) };
    let room = w.all.saturating_sub(w.indent() + kept + columns(BAR)).max(LEAST);
    let lines = pieces(&step.effect, room);
    // What it did begins further left if it needs to; a statement that did nothing may go on.
    let wide = lines.iter().map(|l| columns(l)).max().unwrap_or(0);
    let end = w.all.saturating_sub(w.indent() + columns(BAR) + wide).clamp(SHORT, w.what.max(SHORT));
    let column = if step.file.is_some() { end } else { end + w.indent() - w.before_place() };
    let free = if lines.is_empty() { column + w.room().saturating_sub(end) } else { column };
    let said = clip(&step.text, free);
    let indent = w.indent() + end;
    if lines.is_empty() {
        text.push_str(&said);
        text.push('\n');
    }
    for (i, line) in lines.iter().enumerate() {
        match i {
            0 => text.push_str(&pad(&said, column, false)),
            _ => text.push_str(&" ".repeat(indent)),
        }
        text.push_str(&format!("{BAR}{line}\n"));
    }
    for (event, said) in &step.events {
        let name = event.kind.name().to_uppercase();
        let about = event.line.map_or(String::new(), |_| format!(", victim {}", event.victim.name()));
        push_event(&format!("{name}{about}"), said, w, text);
    }
}

fn push_event(name: &str, said: &str, w: &Widths, text: &mut String) {
    let lead = MARGIN + w.step + GAP;
    let mark = format!(">>> {name}:");
    let line = wrap(&format!("{mark} {}", said.trim()), w.all.saturating_sub(lead).max(LEAST), 4);
    let line = line.replacen(&mark, &styled(&mark, style::bad()), 1);
    text.push_str(&format!(
        "{}{}\n",
        " ".repeat(lead),
        line.replace('\n', &format!("\n{}", " ".repeat(lead)))
    ));
}

/// The line for an event that is a state rather than a step.
pub(crate) fn state_event(name: &str, meaning: &str, story: &[StoryStep], width: usize) -> String {
    let mut text = String::new();
    push_event(&name.to_uppercase(), meaning, &Widths::of(story, width), &mut text);
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    fn step(n: usize, text: &str, effect: &str) -> StoryStep {
        StoryStep {
            step: n,
            actor: "vcpu0".to_owned(),
            pcpu: Some(0),
            file: Some("kernels/k.c".to_owned()),
            line: Some(7),
            text: text.to_owned(),
            effect: effect.to_owned(),
            events: Vec::new(),
        }
    }

    #[test]
    fn each_step_has_one_line_and_long_statements_give_way_to_what_they_did() {
        let long = "if (cmpxchg(&vcpu->mode, IN_GUEST_MODE, EXITING_GUEST_MODE) != OUTSIDE_GUEST_MODE)";
        let story = [step(1, "n++;", "n is 0"), step(2, long, "vcpu0.mode is 0, not 1"), step(3, long, "")];
        let text = anstream::adapter::strip_str(&tell(&story, 0, 80)).to_string();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "    1  vcpu0     0  k.c:7  n++;                         | n is 0",
                "    2  vcpu0     0  k.c:7  cmpxchg(&vcpu->mode, IN_GU.. | vcpu0.mode is 0, not 1",
                "    3  vcpu0     0  k.c:7  cmpxchg(&vcpu->mode, IN_GUEST_MODE, EXITING_GUEST_M.."
            ]
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_unless_one_word_is() {
        let long = "if (cmpxchg(&vcpu->mode, IN_GUEST_MODE, EXITING_GUEST_MODE) != OUTSIDE_GUEST_MODE)";
        let story = [step(1, long, "aaaa: 0 -> 1; bbbb: 0 -> 1; cccc: 0 -> 1; dddd: 0 -> 1")];
        for width in [72, 80, 100, 120] {
            let text = anstream::adapter::strip_str(&tell(&story, 0, width)).to_string();
            assert!(text.lines().skip(1).all(|l| columns(l) <= width), "{width}\n{text}");
        }
    }
}
