//! What stands in a column: the heads of functions, and steps with the statement and what it did.

use std::path::Path;

use svm_model::lang::Role;
use svm_model::story::StoryStep;

use super::super::style;
use super::super::table::{columns, pad};

/// Lines that a statement takes at most.
const LINES: usize = 3;
/// Under a step's first line, and where there is little room.
const INDENT: usize = 4;
const LITTLE: usize = 2;
/// From this width on there is more.
const ROOMY: usize = 36;
/// From this width on, what a statement did stands beside it.
const BESIDE: usize = 62;

/// What stands above a step, to be said only once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Above {
    who: String,
    function: Option<String>,
    place: Option<(String, u32)>,
    text: String,
}

/// A line of a column, and how it looks.
pub(super) type Line = (String, owo_colors::Style);

/// A file's name without its folder.
pub(super) fn file_name(file: &str) -> String {
    Path::new(file).file_name().and_then(|n| n.to_str()).unwrap_or(file).to_owned()
}

/// A text in lines of at most `width` columns, all but the first with `indent` spaces; words that are too long are cut
/// in two.
pub(super) fn folded(text: &str, width: usize, indent: usize) -> Vec<String> {
    let width = width.max(indent + 4);
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    let mut bare = true;
    for word in text.split_whitespace() {
        let mut word: String = word.to_owned();
        if !bare && columns(&line) + 1 + columns(&word) <= width {
            line.push(' ');
        } else if !bare {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
        }
        while columns(&line) + columns(&word) > width {
            let fits = width - columns(&line);
            // Where an expression may be read apart.
            let cut = word
                .char_indices()
                .take(fits + 1)
                .filter(|(i, c)| {
                    *i > 0
                        && matches!(word[..*i].chars().next_back(), Some('(' | '>' | '.' | ',' | '_'))
                        && *c != ')'
                })
                .map(|(i, _)| i)
                .last();
            let cut = cut.or_else(|| word.char_indices().nth(fits).map(|(i, _)| i)).unwrap_or(word.len());
            let rest = word.split_off(cut);
            line.push_str(&word);
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            word = rest;
        }
        line.push_str(&word);
        bare = false;
    }
    if !bare {
        lines.push(line);
    }
    lines
}

/// A statement without what says least: `if`, `return`, the semicolon.
fn core(text: &str) -> &str {
    let text = text.strip_suffix(';').unwrap_or(text);
    let condition = ["if (", "while ("].iter().find_map(|head| text.strip_prefix(head)?.strip_suffix(')'));
    condition.or_else(|| text.strip_prefix("return ")).unwrap_or(text)
}

/// A statement in at most `LINES` lines of `width` columns.
fn statement(text: &str, width: usize) -> Vec<String> {
    if columns(text) <= width {
        return vec![text.to_owned()];
    }
    let mut lines = folded(core(text), width, 2);
    if lines.len() > LINES {
        lines.truncate(LINES);
        if let Some(last) = lines.last_mut() {
            let kept: String = last.chars().take(width.saturating_sub(2)).collect();
            *last = format!("{}..", kept.trim_end());
        }
    }
    lines
}

/// The parts of what a step did, each on a line of its own unless it fits beside the last.
fn effects(effect: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for piece in effect.split("; ").filter(|p| !p.is_empty()) {
        match lines.last_mut() {
            Some(last) if columns(last) + 2 + columns(piece) <= width => {
                last.push_str("; ");
                last.push_str(piece);
            }
            Some(_) | None => lines.extend(parted(piece, width)),
        }
    }
    lines
}

/// A part of what a step did; if it is too long, its subject stands above the rest, so that values stay together.
fn parted(piece: &str, width: usize) -> Vec<String> {
    if columns(piece) > width {
        for (between, keep) in [(": ", 1), (" is ", 0), (" stays ", 0), (" in ", 0)] {
            let Some(at) = piece.find(between) else { continue };
            let (subject, rest) = piece.split_at(at + keep);
            let rest = rest.trim_start();
            if columns(subject) <= width && columns(rest) + 2 <= width {
                return vec![subject.to_owned(), format!("  {rest}")];
            }
        }
    }
    folded(piece, width, 2)
}

/// Who is told apart in a head: a column's own actor need not be named.
fn who(step: &StoryStep, own: Option<&str>, list: bool) -> String {
    let actor = match step.actor.as_str() {
        "cache" if list => return String::new(),
        "world" if list => return String::new(),
        actor if Some(actor) == own || step.file.is_none() && !list => return String::new(),
        actor if actor.starts_with("irq:") && !list => return "IPI handler, ".to_owned(),
        actor => actor,
    };
    match (list, step.pcpu) {
        (true, Some(pcpu)) if !actor.starts_with("irq:") => format!("CPU{pcpu} {actor}, "),
        (_, _) => format!("{actor}, "),
    }
}

/// The head of a step's function, if it is not above already; the column's own actor and the file that lines are of if
/// nothing is said go without saying.
pub(super) fn head(
    step: &StoryStep,
    above: &mut Above,
    (own, kernel): (Option<&str>, Option<&str>),
    list: bool,
    width: usize,
) -> Vec<Line> {
    let who = who(step, own, list);
    // What is no statement ends no function, and has none.
    if step.function.is_none() && (!list || above.who == who) {
        above.place = None;
        above.function = None;
        return Vec::new();
    }
    if above.function == step.function && above.who == who {
        return Vec::new();
    }
    *above = Above { who: who.clone(), function: step.function.clone(), ..Above::default() };
    let name = match (&step.function, step.role) {
        (Some(name), Some(Role::Litmus)) => format!("{who}{name}(), of the test:"),
        (Some(name), Some(Role::Kernel)) => {
            let file = step.file.as_deref().map(file_name).filter(|file| Some(file.as_str()) != kernel);
            format!("{who}{name}(){}:", file.map_or_else(String::new, |file| format!(", of {file}")))
        }
        (Some(name), _) => format!("{who}{name}():"),
        (None, _) => format!("{}:", who.trim_end_matches(", ")),
    };
    if name == ":" {
        return Vec::new();
    }
    let colour = match step.role {
        Some(Role::Policy) => style::strong(),
        _ => style::aside(),
    };
    folded(&name, width, 2).into_iter().map(|line| (line, colour)).collect()
}

/// A step: the place and the statement, unless they stand above, and what it did.
pub(super) fn body(step: &StoryStep, above: &mut Above, width: usize, terse: bool) -> Vec<Line> {
    let plain = owo_colors::Style::new();
    let (Some(file), Some(line)) = (&step.file, step.line) else {
        let mut lines: Vec<Line> = folded(&step.text, width, 2).into_iter().map(|l| (l, plain)).collect();
        push_effect(step, &mut lines, width, INDENT);
        return lines;
    };
    let policy = step.role == Some(Role::Policy);
    let place = Some((file.clone(), line));
    let again = above.place == place && above.text == step.text;
    (above.place, above.text) = (place, step.text.clone());
    let mut lines: Vec<Line> = Vec::new();
    let number = if policy { format!("{}:{line}", file_name(file)) } else { pad(&line.to_string(), 3, true) };
    let room = width.saturating_sub(columns(&number) + 1);
    let whole = effects(&step.effect, room).len();
    if again && !step.effect.is_empty() {
        let number = if policy { format!(":{line}") } else { number };
        let room = width.saturating_sub(columns(&number) + 1);
        for (i, part) in effects(&step.effect, room).into_iter().enumerate() {
            lines.push((format!("{}{part}", lead(&number, i)), plain));
        }
        return lines;
    }
    let style = if policy { style::strong() } else { plain };
    let short = if columns(&step.text) <= room { step.text.as_str() } else { core(&step.text) };
    if width >= BESIDE {
        let half = room / 2;
        let said = if columns(short) <= half { short.to_owned() } else { cut(short, half) };
        let beside = effects(&step.effect, room - half - 3);
        if beside.is_empty() {
            for (i, part) in statement(&step.text, room).into_iter().enumerate() {
                lines.push((format!("{}{part}", lead(&number, i)), style));
            }
        }
        let many = beside.iter().any(|l| l.starts_with("  "));
        if many {
            lines.push((format!("{}{}", lead(&number, 0), statement(short, room)[0]), style));
            push_effect(step, &mut lines, width, INDENT);
            return lines;
        }
        for (i, part) in beside.into_iter().enumerate() {
            let said = if i == 0 { said.as_str() } else { "" };
            lines.push((format!("{}{} | {part}", lead(&number, i), pad(said, half, false)), style));
        }
        return lines;
    }
    if policy {
        if columns(short) <= room {
            lines.push((format!("{number} {short}"), style));
        } else {
            lines.extend(folded(&number, width, 0).into_iter().map(|l| (l, style)));
            for part in statement(&step.text, width.saturating_sub(2)) {
                lines.push((format!("  {part}"), style));
            }
        }
        push_effect(step, &mut lines, width, INDENT);
        return lines;
    }
    let fits = columns(short) <= room;
    if fits && !step.effect.is_empty() && columns(short) + 2 + columns(&step.effect) <= room {
        lines.push((format!("{number} {short}  {}", step.effect), plain));
        return lines;
    }
    if !step.effect.is_empty() && whole == 1 && (!fits || terse && step.role == Some(Role::Kernel)) {
        // What it did says more than a statement that is cut.
        lines.push((format!("{number} {}", step.effect), plain));
        return lines;
    }
    if fits || step.effect.is_empty() {
        for (i, part) in statement(short, room).into_iter().enumerate() {
            lines.push((format!("{}{part}", lead(&number, i)), plain));
        }
        push_effect(step, &mut lines, width, if width < ROOMY { LITTLE } else { INDENT });
        return lines;
    }
    for (i, part) in effects(&step.effect, room).into_iter().enumerate() {
        lines.push((format!("{}{part}", lead(&number, i)), plain));
    }
    lines
}

/// A number before the first line, room for it before the others.
fn lead(number: &str, line: usize) -> String {
    if line == 0 { format!("{number} ") } else { " ".repeat(columns(number) + 1) }
}

/// A text cut to `width` columns.
fn cut(text: &str, width: usize) -> String {
    let kept: String = text.chars().take(width.saturating_sub(2)).collect();
    format!("{}..", kept.trim_end())
}

fn push_effect(step: &StoryStep, lines: &mut Vec<Line>, width: usize, indent: usize) {
    for part in effects(&step.effect, width.saturating_sub(indent)) {
        lines.push((format!("{}{part}", " ".repeat(indent)), owo_colors::Style::new()));
    }
}
