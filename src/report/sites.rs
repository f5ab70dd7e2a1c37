//! May a site drop its flush: the answers for reading, as JSON and as CSV.

use serde::Serialize;
use workloads::sites::lives::ComesTo;
use workloads::sites::{Asked, Flush};

use super::number::plural;
use super::style;
use super::table::{Cell, Head, styled, table as columns, wrap};
use super::verdicts::csv_line;
use crate::sites::{Answers, Life};

/// A flush in words.
pub(crate) fn name(flush: &Flush) -> String {
    match flush {
        Flush::Switch(name) => name.clone(),
        Flush::Call { function, text } => format!("{text} in {function}()"),
        Flush::Order(function) => format!("the order of RMP change and CLFLUSH in {function}()"),
    }
}

/// What a life comes to: a word, and the event or the reason.
fn comes_to(life: &Life) -> (&'static str, Option<&'static str>) {
    match life.comes_to {
        ComesTo::NoSense(why) => ("no-sense", Some(why)),
        ComesTo::None => ("none", None),
        ComesTo::Redundant => ("redundant", None),
        ComesTo::Needed(event) => ("needed", Some(event)),
        ComesTo::Anyway(event) => ("violated-with-it", Some(event)),
    }
}

/// For reading.
pub(crate) fn table(answers: &Answers, width: usize) -> String {
    let mut text = format!("{}\n\n", styled("In a VM's whole life", style::strong()));
    let heads = [
        Head::left("", "site"),
        Head::left("", "pages"),
        Head::left("", "guest"),
        Head::left("", "kernel"),
        Head::left("without", "its flush"),
    ];
    let told = answers.lives.iter().filter(|life| !matches!(life.comes_to, ComesTo::NoSense(_)));
    let row = |life: &Life| {
        let (word, event) = comes_to(life);
        let words = match word {
            "none" => "has none to drop".to_owned(),
            "violated-with-it" => format!("violated with it, too: {}", event.unwrap_or_default()),
            _ => event.map_or(word.to_owned(), |event| format!("{word}: {event}")),
        };
        let look = if word == "needed" { style::bad() } else { style::good() };
        let names = [life.site, life.pages, life.guest, life.kernel.as_str()].map(Cell::from);
        names.into_iter().chain([Cell::styled(words, look)]).collect::<Vec<_>>()
    };
    text.push_str(&columns(&heads, &told.map(row).collect::<Vec<_>>(), width));
    let title = format!("{} without one of its flushes: who objects", answers.kernel);
    text.push_str(&format!("\n{}\n\n", styled(&title, style::strong())));
    for (flush, asked) in &answers.flushes {
        let line = format!("{}: {}", name(flush), said(flush, asked));
        text.push_str(&wrap(&line, width, 4));
        text.push('\n');
    }
    text
}

/// Who objects, in words.
fn said(flush: &Flush, asked: &Asked) -> String {
    let objections: Vec<String> =
        asked.objections.iter().map(|o| format!("{} ({})", o.litmus, o.event)).collect();
    let whole = matches!(flush, Flush::Switch(_));
    match (objections.is_empty(), asked.open.is_empty()) {
        (false, _) if whole => format!("{} of {}", objections.join(", "), plural(asked.files.len(), "file")),
        (false, _) => objections.join(", "),
        (true, true) => format!("nobody, of {} in whose program it is", plural(asked.files.len(), "file")),
        (true, false) => format!("not decided: a search met a bound in {}", asked.open.join(", ")),
    }
}

/// `sevsim.sites/1`.
#[derive(Debug, Serialize)]
#[serde(tag = "table", rename_all = "kebab-case")]
pub(crate) enum Row<'a> {
    /// A VM's life.
    Life {
        schema: &'static str,
        site: &'a str,
        pages: &'a str,
        guest: &'a str,
        kernel: &'a str,
        comes_to: &'static str,
        event: Option<&'a str>,
        why: Option<&'a str>,
    },
    /// A kernel without a flush.
    Without {
        schema: &'static str,
        kernel: &'a str,
        kind: &'static str,
        function: Option<&'a str>,
        text: &'a str,
        files: &'a [String],
        objections: Vec<Objection<'a>>,
        open: &'a [String],
    },
}

/// A case that objects.
#[derive(Debug, Serialize)]
pub(crate) struct Objection<'a> {
    litmus: &'a str,
    event: &'a str,
}

const SCHEMA: &str = "sevsim.sites/1";

/// Kind, function and text of a flush.
fn parts(flush: &Flush) -> (&'static str, Option<&str>, &str) {
    match flush {
        Flush::Switch(name) => ("switch", None, name),
        Flush::Call { function, text } => ("call", Some(function), text),
        Flush::Order(function) => ("order", Some(function), "CLFLUSH before the RMP change"),
    }
}

/// One row each.
pub(crate) fn json(answers: &Answers) -> Vec<Row<'_>> {
    let lives = answers.lives.iter().map(|life| {
        let (word, said) = comes_to(life);
        let (event, why) = if word == "no-sense" { (None, said) } else { (said, None) };
        let (site, pages, guest, kernel) = (life.site, life.pages, life.guest, life.kernel.as_str());
        Row::Life { schema: SCHEMA, site, pages, guest, kernel, comes_to: word, event, why }
    });
    let flushes = answers.flushes.iter().map(|(flush, asked)| {
        let (kind, function, text) = parts(flush);
        let objections =
            asked.objections.iter().map(|o| Objection { litmus: &o.litmus, event: o.event }).collect();
        let (files, open) = (&asked.files[..], &asked.open[..]);
        Row::Without {
            schema: SCHEMA,
            kernel: &answers.kernel,
            kind,
            function,
            text,
            files,
            objections,
            open,
        }
    });
    lives.chain(flushes).collect()
}

/// The same rows with the same columns for both kinds.
pub(crate) fn csv(answers: &Answers) -> String {
    let mut text = "table,kernel,site,pages,guest,kind,function,text,comes_to,event,litmus\n".to_owned();
    for life in &answers.lives {
        let (word, said) = comes_to(life);
        let cells = [
            "life",
            &life.kernel,
            life.site,
            life.pages,
            life.guest,
            "",
            "",
            "",
            word,
            said.unwrap_or_default(),
            "",
        ];
        text.push_str(&csv_line(&cells.map(str::to_owned)));
    }
    for (flush, asked) in &answers.flushes {
        let (kind, function, said) = parts(flush);
        let word = match (asked.objections.is_empty(), asked.open.is_empty()) {
            (false, _) => "needed",
            (true, true) => "redundant",
            (true, false) => "bounded",
        };
        let list = |of: &dyn Fn(&workloads::sites::Objection) -> String| {
            asked.objections.iter().map(of).collect::<Vec<_>>().join(" ")
        };
        let (events, litmus) = (list(&|o| o.event.to_owned()), list(&|o| o.litmus.clone()));
        let head = ["without", &answers.kernel, "", "", "", kind, function.unwrap_or_default(), said, word];
        let cells: Vec<String> = head.map(str::to_owned).into_iter().chain([events, litmus]).collect();
        text.push_str(&csv_line(&cells));
    }
    text
}
