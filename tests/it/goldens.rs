//! Stories and tables as they look. A changed golden is a change of behaviour: read it before taking it over with
//! `SNAPSHOTS=overwrite cargo test --test it`.

use super::program::{command, optimised, sevsim};

fn golden(args: &[&str], file: &str) {
    let out = command(args).output().expect("the program starts").stdout;
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden").join(file);
    snapbox::Assert::new()
        .normalize_paths(false)
        .action_env("SNAPSHOTS")
        .eq(String::from_utf8(out).expect("text"), snapbox::Data::read_from(&path, None));
}

#[test]
fn the_story_of_no_flush() {
    let args = ["check", "reclaim-one-vcpu", "--part", "rome", "--policy", "no-flush", "--stories", "all"];
    golden(&args, "no-flush.txt");
}

#[test]
fn the_story_of_the_second_flusher() {
    golden(&["check", "two-flushers", "--part", "rome", "--policy", "clear-remark"], "clear-remark.txt");
}

/// Where the stories of the corpus are.
fn stories() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden/stories")
}

/// Every step has its number once, at the left, and no line is wider than a mail's.
fn reads_well(story: &str, about: &str) {
    assert!(story.lines().all(|l| l.chars().count() <= 100), "{about}\n{story}");
    let said =
        ["shortest way there: ", "no end is in reach: "].iter().find_map(|way| story.split(way).nth(1));
    let said = said.and_then(|s| s.split(' ').next());
    let steps: usize = said.and_then(|n| n.parse().ok()).expect("the number of steps");
    let told = story.split("\n\n").nth(1).expect("a story follows");
    let numbers: Vec<usize> = told
        .lines()
        .filter_map(|l| l.split(' ').find(|w| !w.is_empty()).filter(|w| l.find(w) < Some(3))?.parse().ok())
        .collect();
    // What goes round and round is told behind the steps that lead to it.
    let told = if story.contains("hung-task: ") { numbers.len().max(steps) } else { steps };
    assert_eq!(numbers, (1..=told).collect::<Vec<_>>(), "{about}\n{story}");
    assert!(story.contains("\nin short: "), "{about}: nothing says what went wrong in general\n{story}");
}

#[test]
fn each_story_of_the_corpus_is_kept() {
    let verdicts = optimised(&["test", "--all", "--format", "json"]).json();
    let of = |case: &serde_json::Value| {
        let word = |key: &str| case[key].as_str().expect("a name").to_owned();
        (word("verdict") == "violated")
            .then(|| ([word("litmus"), word("policy"), word("kernel")], word("part")))
    };
    let mut cases = std::collections::BTreeMap::<[String; 3], String>::new();
    for (case, part) in verdicts.iter().filter_map(of) {
        cases.entry(case).or_insert(part);
    }
    let mut kept: Vec<String> = Vec::new();
    for ([litmus, policy, kernel], part) in &cases {
        let out =
            optimised(&["check", litmus, "--policy", policy, "--kernel", kernel, "--part", part]).ends(3).out;
        // How much was searched is not of the story; nor is the token, which holds a digest of the texts.
        let told = |l: &&str| ["searched ", "again: "].iter().all(|aside| !l.trim_start().starts_with(aside));
        let story: String = out.lines().filter(told).map(|l| format!("{l}\n")).collect();
        reads_well(&out, &format!("{litmus} {policy} {kernel}"));
        let file = format!("{}--{policy}--{kernel}.txt", litmus.replace(':', "."));
        snapbox::Assert::new()
            .normalize_paths(false)
            .action_env("SNAPSHOTS")
            .eq(story, snapbox::Data::read_from(&stories().join(&file), None));
        kept.push(file);
    }
    let found = std::fs::read_dir(stories()).expect("the folder").map(|f| f.expect("a file").file_name());
    let mut found: Vec<String> = found.map(|f| f.into_string().expect("a name")).collect();
    kept.sort();
    found.sort();
    assert_eq!(found, kept, "a story that is told no more is to be deleted");
}

#[test]
fn a_verdict_without_a_story() {
    golden(&["check", "reclaim-one-vcpu", "--part", "rome", "--policy", "sticky-wbnoinvd"], "holds.txt");
}

#[test]
fn the_matrix() {
    golden(&["test", "reclaim-one-vcpu", "dma-on-coherent-part", "no-dma-on-coherent-part"], "matrix.txt");
}

#[test]
fn the_lists() {
    golden(&["list", "policies"], "policies.txt");
    golden(&["list", "litmus"], "litmus.txt");
}

#[test]
fn goldens_name_no_place_on_a_machine() {
    assert!(!sevsim(&["list", "policies", "--format", "json"]).out.contains(env!("CARGO_MANIFEST_DIR")));
}
