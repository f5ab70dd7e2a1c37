//! A story: one line a step, in aligned columns; what a step changed stands beside it, or below it if it is long.
//!
//! Steps of one statement in a row, of which only the last changes anything (a load and its store, a mask tested bit
//! by bit), stand on one line.

use std::path::Path;

use svm_model::story::StoryStep;

use super::style;
use super::table::{columns, pad, styled, wrap};

/// The statement's column, in which shorter ones are filled up so that what they change is aligned.
const WHAT: usize = 40;
/// A place's column at most.
const PLACE: usize = 22;
/// What a line of text needs at least, however narrow the terminal.
const LEAST: usize = 28;
/// Before each line.
const MARGIN: usize = 1;
/// Between two columns.
const GAP: usize = 2;

/// Steps that stand on one line.
type Group<'s> = &'s [StoryStep];

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

/// The steps' numbers: `27`, or `27-28`.
fn numbers(group: Group<'_>) -> String {
    match group {
        [] => String::new(),
        [only] => only.step.to_string(),
        [first, .., last] => format!("{}-{}", first.step, last.step),
    }
}

/// Cuts a story into lines.
fn groups(story: &[StoryStep]) -> Vec<Group<'_>> {
    let joined = |a: &StoryStep, b: &StoryStep| {
        a.effect.is_empty()
            && a.events.is_empty()
            && a.line.is_some()
            && (&a.actor, a.pcpu, &a.file, a.line, &a.text) == (&b.actor, b.pcpu, &b.file, b.line, &b.text)
    };
    story.chunk_by(joined).collect()
}

impl Widths {
    fn of(groups: &[Group<'_>], all: usize) -> Widths {
        let longest = |f: &dyn Fn(&StoryStep) -> usize, least: usize| {
            groups.iter().filter_map(|g| g.last()).map(f).max().unwrap_or(0).max(least)
        };
        let step = groups.iter().map(|g| numbers(g).len()).max().unwrap_or(0).max(4);
        let actor = longest(&|s| columns(&s.actor), 3);
        let place = longest(&|s| columns(&place(s)), 5);
        let what = longest(&|s| columns(&s.text), 4).min(WHAT);
        Widths { step, actor, place, what, all }
    }

    /// Where the statement's column begins.
    fn indent(&self) -> usize {
        MARGIN + self.step + GAP + self.actor + GAP + 4 + GAP + self.place + GAP
    }

    /// Columns from there to the end.
    fn room(&self) -> usize {
        self.all.saturating_sub(self.indent()).max(LEAST)
    }
}

/// The columns' names.
fn head(w: &Widths) -> String {
    let line = format!(
        "{}{}  {}  pCPU  {}  {} | what it changed",
        " ".repeat(MARGIN),
        pad("step", w.step, true),
        pad("who", w.actor, false),
        pad("where", w.place, false),
        pad("what", w.what, false),
    );
    styled(&line, style::strong()) + "\n"
}

/// Tells the steps from the one with index `from` on.
pub(crate) fn tell(story: &[StoryStep], from: usize, width: usize) -> String {
    let groups = groups(story.get(from..).unwrap_or_default());
    let w = Widths::of(&groups, width);
    let mut text = head(&w);
    if from > 0 {
        let above = format!("steps 1 to {from} as above");
        text.push_str(&format!("{}{}\n", " ".repeat(w.indent()), styled(&above, style::aside())));
    }
    for group in groups {
        push_group(group, &w, &mut text);
    }
    text
}

fn push_group(group: Group<'_>, w: &Widths, text: &mut String) {
    let Some(step) = group.last() else { return };
    let beside = if step.effect.is_empty() && step.events.is_empty() {
        style::aside()
    } else {
        owo_colors::Style::new()
    };
    let pcpu = step.pcpu.map_or_else(|| "-".to_owned(), |p| p.to_string());
    text.push_str(&format!(
        "{}{}  {}  {}  {}  ",
        " ".repeat(MARGIN),
        pad(&numbers(group), w.step, true),
        pad(&step.actor, w.actor, false),
        pad(&pcpu, 4, true),
        styled(&pad(&place(step), w.place, false), style::aside()),
    ));
    let (indent, room) = (w.indent(), w.room());
    let filled = columns(&step.text).max(w.what);
    if step.effect.is_empty() {
        text.push_str(
            &styled(&wrap(&step.text, room, 4), beside).replace('\n', &format!("\n{}", " ".repeat(indent))),
        );
        text.push('\n');
    } else if filled + 3 + columns(&step.effect) <= room {
        text.push_str(&format!("{} | {}\n", pad(&step.text, filled, false), step.effect));
    } else {
        text.push_str(&wrap(&step.text, room, 4).replace('\n', &format!("\n{}", " ".repeat(indent))));
        text.push('\n');
        for line in pieces(&step.effect, room.saturating_sub(4)) {
            text.push_str(&format!("{}| {line}\n", " ".repeat(indent + 2)));
        }
    }
    for (event, said) in &step.events {
        let name = event.kind.name();
        push_event(name, said.strip_prefix(name).and_then(|s| s.strip_prefix(':')).unwrap_or(said), w, text);
    }
}

fn push_event(name: &str, said: &str, w: &Widths, text: &mut String) {
    let lead = MARGIN + w.step + GAP;
    let mark = format!(">>> {}:", name.to_uppercase());
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
    push_event(name, meaning, &Widths::of(&groups(story), width), &mut text);
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
    fn a_load_and_its_store_stand_on_one_line_and_two_stores_on_two() {
        let story = [step(1, "n++;", ""), step(2, "n++;", "n: 0 -> 1"), step(3, "n++;", "n: 1 -> 2")];
        let text = anstream::adapter::strip_str(&tell(&story, 0, 80)).to_string();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            ["  1-2  vcpu0     0  k.c:7  n++; | n: 0 -> 1", "    3  vcpu0     0  k.c:7  n++; | n: 1 -> 2"]
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_unless_one_word_is() {
        let long = "if (cmpxchg(&vcpu->mode, IN_GUEST_MODE, EXITING_GUEST_MODE) != OUTSIDE_GUEST_MODE)";
        let story = [step(1, long, "aaaa: 0 -> 1; bbbb: 0 -> 1; cccc: 0 -> 1; dddd: 0 -> 1")];
        for width in [60, 80, 120] {
            let text = anstream::adapter::strip_str(&tell(&story, 0, width)).to_string();
            assert!(text.lines().skip(1).all(|l| columns(l) <= width), "{width}\n{text}");
        }
    }
}
