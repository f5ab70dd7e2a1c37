//! The outputs shown in README.md and docs/: each stands below a comment that says how it is made,
//!
//! ```text
//! <!-- sevsim check two-flushers --policy clear-remark -->
//! <!-- sevsim check two-flushers --policy clear-remark | 1-8 24-36 -->
//! ```
//!
//! the second of which shows some of its lines, with `[...]` for the others. `SNAPSHOTS=overwrite cargo test --test it`
//! writes them anew.

use std::path::Path;

use super::program::{optimised, sevsim};
use super::sites::with_each_switch;
use super::verdicts::with_every_case;

/// The lines of `out` that `ranges` (`1-8 24-36`) name.
fn excerpt(out: &str, ranges: &str) -> String {
    let lines: Vec<&str> = out.lines().collect();
    let mut text = String::new();
    let mut shown = 0;
    for range in ranges.split_whitespace() {
        let (from, to) = range.split_once('-').expect("FROM-TO");
        let from: usize = from.parse().expect("a line's number");
        let to: usize = if to.is_empty() { lines.len() } else { to.parse().expect("a line's number") };
        if from > shown + 1 {
            text.push_str("[...]\n");
        }
        for line in &lines[from - 1..to.min(lines.len())] {
            text.push_str(line);
            text.push('\n');
        }
        shown = to;
    }
    if shown < lines.len() {
        text.push_str("[...]\n");
    }
    text
}

/// The text with each output made anew, and how many there were.
fn made_anew(text: &str) -> (String, usize) {
    let (mut new, mut rest, mut count) = (String::new(), text, 0);
    while let Some(at) = rest.find("<!-- sevsim") {
        let comment = &rest[at + "<!-- sevsim".len()..];
        let (said, after) = comment.split_once(" -->\n```text\n").expect("a block of text follows at once");
        let (_, after) = after.split_once("```\n").expect("the block ends");
        let (args, ranges) = said.split_once('|').unwrap_or((said, ""));
        let args: Vec<&str> = args.split_whitespace().collect();
        let out = optimised(&args).out;
        let out = if ranges.is_empty() { out } else { excerpt(&out, ranges) };
        new.push_str(&rest[..at]);
        new.push_str(&format!("<!-- sevsim{said} -->\n```text\n{out}```\n"));
        rest = after;
        count += 1;
    }
    new.push_str(rest);
    (new, count)
}

/// Compares a page with what comes out now, or writes it.
#[track_caller]
fn shows_what_is_printed(file: &str, least: usize, tables: &dyn Fn(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let old = std::fs::read_to_string(&path).expect("it is there");
    let (new, count) = made_anew(&old);
    let new = tables(&new);
    assert!(count >= least, "{file} shows {count} outputs");
    // Not by snapbox, which takes every backslash for a path's.
    if std::env::var("SNAPSHOTS").is_ok_and(|s| s == "overwrite") {
        std::fs::write(&path, new).expect("it can be written");
    } else {
        assert!(
            new == old,
            "{file} shows what is no longer printed: SNAPSHOTS=overwrite cargo test --test it"
        );
    }
}

#[test]
fn outputs_shown_in_the_documentation_are_what_the_program_prints() {
    for (file, least) in
        [("README.md", 2), ("docs/POLICIES.md", 1), ("docs/TRACES.md", 1), ("docs/EXPLORER.md", 1)]
    {
        shows_what_is_printed(file, least, &str::to_owned);
    }
}

#[test]
fn the_page_of_the_sites_is_what_comes_out() {
    shows_what_is_printed("docs/SITES.md", 4, &with_each_switch);
}

#[test]
fn the_page_of_the_verdicts_is_what_comes_out() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    shows_what_is_printed("docs/VERDICTS.md", 1, &|text| with_every_case(text, root));
}

#[test]
fn the_corpus_page_names_every_test_and_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/CORPUS.md")).expect("it is there");
    let tests = sevsim(&["list", "litmus", "--format", "json"]).json();
    let names: Vec<&str> = tests.iter().map(|t| t["name"].as_str().expect("a name")).collect();
    let word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let named: Vec<&str> = page.split('`').skip(1).step_by(2).collect();
    for name in &names {
        let files = |n: &&str| n.split(':').next() == Some(name);
        assert!(named.iter().any(files), "docs/CORPUS.md does not name {name}");
    }
    // What looks like the name of a test is one.
    for n in
        named.iter().filter(|n| n.contains(':') && n.split(':').all(|p| !p.is_empty() && p.chars().all(word)))
    {
        let (file, variant) = n.split_once(':').expect("a variant");
        assert!(names.contains(&file), "docs/CORPUS.md names {n}");
        let shown = sevsim(&["show", "litmus", n]);
        assert_eq!(shown.code, 0, "docs/CORPUS.md names {n}, and {file} has no variant {variant}");
    }
}
