//! `export`: SPIN and Rumur find the verdicts and count the states that sevsim does.
//!
//! Both are Debian packages (`spin`, `rumur`). Where they are not installed these tests say so and pass; `.ci/run` installs
//! them and sets `SEVSIM_SECOND_OPINION`, with which they fail instead.

use std::path::Path;
use std::process::Command;

use super::program::{Folder, Ran, ran, sevsim, sevsim_in};

/// Takes two mutexes in opposite orders: a deadlock in two steps.
const LOCK_ORDER: &str = r#"+++
description = "Two tasks take two mutexes in opposite orders."
parts = ["rome"]
policies = ["no-flush"]
pcpus = 2
pages = [{ name = "P" }]
events = ["deadlock"]

[[task]]
run = "left"
pcpus = [0]

[[task]]
run = "right"
pcpus = [1]

[[expect]]
verdict = "violated"
policies = ["*"]
+++
DEFINE_MUTEX(a);
DEFINE_MUTEX(b);

void left(void)
{
	mutex_lock(&a);
	mutex_lock(&b);
	mutex_unlock(&b);
	mutex_unlock(&a);
}

void right(void)
{
	mutex_lock(&b);
	mutex_lock(&a);
	mutex_unlock(&a);
	mutex_unlock(&b);
}
"#;

/// Whether another checker and a C compiler are here.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn here(checker: &str) -> bool {
    let there = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
    let all = there(checker) && there("gcc");
    if !all {
        let asked = std::env::var_os("SEVSIM_SECOND_OPINION").is_some();
        assert!(!asked, "{checker} or gcc is not installed: apt-get install {checker} gcc");
        eprintln!("skipped: {checker} or gcc is not installed (apt-get install {checker} gcc)");
    }
    all
}

fn run(folder: &Folder, program: &str, args: &[&str]) -> Ran {
    // A path as it is, for a program that the test made.
    let made = folder.path.join(program);
    let mut command = if made.exists() { Command::new(made) } else { Command::new(program) };
    ran(command.args(args).current_dir(&folder.path).output().expect("the program starts"))
}

/// The number before a word.
#[track_caller]
fn number_before(text: &str, word: &str) -> u64 {
    let before = text.split_once(word).unwrap_or_else(|| panic!("no `{word}` in\n{text}")).0;
    let digits = before.trim_end().rsplit(|c: char| !c.is_ascii_digit() && c != ',').next().unwrap_or("");
    digits.replace(',', "").parse().unwrap_or_else(|e| panic!("{e}: `{word}` in\n{text}"))
}

/// What a checker found: states, transitions, and what was wrong.
#[derive(PartialEq, Eq, Debug)]
struct Found {
    states: u64,
    transitions: u64,
    wrong: Option<String>,
}

/// Asks SPIN, with more options for it and for gcc.
#[track_caller]
fn spin(folder: &Folder, model: &str, options: &[&str], compile: &[&str]) -> Found {
    folder.file("m.pml", model);
    run(folder, "spin", &[&["-a"], options, &["m.pml"]].concat()).ends(0);
    let pan = ["-O1", "-w", "-DSAFETY", "-DNOREDUCE", "-o", "pan", "pan.c"];
    run(folder, "gcc", &[compile, &pan].concat()).ends(0);
    let out = run(folder, "pan", &["-m1000000"]).out;
    assert!(!out.contains("max search depth too small"), "{out}");
    let wrong = out.split_once("assertion violated ").map(|w| w.1.lines().next().unwrap_or("").to_owned());
    let states = number_before(&out, "states, stored");
    // SPIN counts the first state as a transition.
    let transitions = number_before(&out, "transitions (= stored+matched)") - 1;
    assert_eq!(wrong.is_none(), out.contains("errors: 0"), "{out}");
    Found { states, transitions, wrong }
}

/// Asks Rumur.
#[track_caller]
fn rumur(folder: &Folder, model: &str) -> Found {
    folder.file("m.m", model);
    run(folder, "rumur", &["--deadlock-detection", "off", "--output", "m.c", "m.m"]).ends(0);
    run(folder, "gcc", &["-std=c11", "-O1", "-w", "-march=native", "-o", "m", "m.c", "-lpthread"]).ends(0);
    let out = run(folder, "m", &[]).out;
    let explored = out.split_once("State Space Explored:").unwrap_or_else(|| panic!("{out}")).1;
    let wrong = (!out.contains("No error found.")).then(|| {
        let told = out.split_once("error trace for the error:").unwrap_or_else(|| panic!("{out}")).1;
        told.lines().find(|l| !l.trim().is_empty()).unwrap_or("").trim().to_owned()
    });
    let (states, transitions) = (number_before(explored, "states,"), number_before(explored, "rules fired"));
    Found { states, transitions, wrong }
}

/// A folder with the flush model and a deadlock.
fn models() -> Folder {
    let folder = Folder::new();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/flush-model");
    for name in ["flush-2.litmus", "flush-model.c", "copy-and-clear.c", "flush-model.pml"] {
        folder.file(name, std::fs::read(from.join(name)).expect("it is there"));
    }
    folder.file("lock-order.litmus", LOCK_ORDER);
    folder
}

/// Litmus test, policy, and the events that there are.
const CASES: [(&str, &str, &[&str]); 6] = [
    ("reclaim-one-vcpu", "sticky-wbinvd", &[]),
    ("reclaim-one-vcpu", "no-flush", &["latent", "clobber", "garbage"]),
    ("store-buffering", "no-flush", &["tracking"]),
    ("store-buffering-fenced", "no-flush", &[]),
    ("lock-order.litmus", "no-flush", &["deadlock"]),
    ("flush-2.litmus", "sticky-wbinvd", &[]),
];

/// Has a checker judge every case, once as it is, and once with events that are no errors, to count all states.
fn judged(language: &str, judge: &dyn Fn(&Folder, &str, bool) -> Found) {
    let folder = models();
    for (litmus, policy, events) in CASES {
        let args = [litmus, "--policy", policy, "--part", "rome"];
        let model = sevsim_in(&folder, &[&["export"], &args[..], &["--to", language]].concat()).ends(0).out;
        let code = if events.is_empty() { 0 } else { 3 };
        let checked = sevsim_in(&folder, &[&["check"], &args[..], &["--format", "json"]].concat()).ends(code);
        let checked = &checked.json()[0];
        let first = judge(&folder, &model, false);
        let all = judge(&folder, &model, true);
        let said = format!("{language}, {litmus}, {policy}");
        // What stands above the model is true.
        let states = number_before(&model, " states, ");
        let transitions = number_before(&model, " transitions, ");
        assert_eq!(all, Found { states, transitions, wrong: None }, "{said}");
        match &first.wrong {
            None => {
                assert!(events.is_empty(), "{said}: it holds");
                assert_eq!(first, all, "{said}");
                assert_eq!(checked["states"], states, "{said}");
                assert_eq!(checked["transitions"], transitions, "{said}");
            }
            Some(wrong) => {
                let named = |event: &&&str| wrong.contains(**event);
                assert!(events.iter().find(named).is_some(), "{said}: {wrong}");
            }
        }
        let reachable = model.split_once("events: ").expect("its head").1.lines().next().unwrap_or("");
        let expected = if events.is_empty() { "none".to_owned() } else { events.join(", ") };
        assert_eq!(reachable, expected, "{said}");
    }
}

#[test]
fn spin_agrees() {
    if here("spin") {
        judged("promela", &|folder, model, all| {
            spin(folder, model, if all { &["-DALL_STATES"] } else { &[] }, &[])
        });
    }
}

#[test]
fn rumur_agrees() {
    if here("rumur") {
        judged("murphi", &|folder, model, all| {
            let count = model.replace("events: 1;", "events: 0;");
            assert_ne!(model, count);
            rumur(folder, if all { &count } else { model })
        });
    }
}

#[test]
fn a_state_that_sevsim_had_not_met_would_be_found() {
    let args = ["export", "reclaim-one-vcpu", "--policy", "sticky-wbinvd", "--part", "rome", "--to"];
    if here("spin") {
        // A store writes another value than the step function did.
        let model = sevsim(&[&args[..], &["promela"]].concat()).ends(0).out;
        let write = "_mmu_lock = ";
        let rules = model.find("d_step").expect("a rule");
        let first = rules + model[rules..].find(write).expect("a lock is taken") + write.len();
        let mut wrong = model.clone();
        wrong.replace_range(first..first + 1, "7");
        let found = spin(&Folder::new(), &wrong, &["-DALL_STATES"], &[]);
        assert!(found.wrong.is_some_and(|w| w.contains("met_before")));
    }
    if here("rumur") {
        let model = sevsim(&[&args[..], &["murphi"]].concat()).ends(0).out;
        let rules = model.find("\nrule ").expect("a rule");
        let write = "_mmu_lock := ";
        let first = rules + model[rules..].find(write).expect("a lock is taken") + write.len();
        let mut wrong = model.clone();
        wrong.replace_range(first..first + 1, "7");
        let found = rumur(&Folder::new(), &wrong.replace("events: 1;", "events: 0;"));
        assert!(found.wrong.is_some_and(|w| w.contains("met before")));
    }
}

#[test]
fn the_flush_model_written_by_hand_has_as_many_states() {
    if !here("spin") {
        return;
    }
    let folder = models();
    let by_hand = folder.read("flush-model.pml");
    let found = spin(&folder, &by_hand, &["-DP=2"], &[]);
    let ours =
        sevsim_in(&folder, &["check", "flush-2.litmus", "--policy", "sticky-wbinvd", "--format", "json"]);
    let ours = &ours.ends(0).json()[0];
    assert_eq!((found.wrong, &ours["states"]), (None, &found.states.into()));
    let found = spin(&folder, &by_hand, &["-DP=2", "-DCLEAR"], &["-DBFS"]);
    let ours =
        sevsim_in(&folder, &["check", "flush-2.litmus", "--policy", "copy-and-clear.c", "--format", "json"]);
    let ours = &ours.ends(3).json()[0];
    assert_eq!(ours["stories"]["latent"].as_array().expect("a story").len(), 11);
    // SPIN counts from 0.
    assert!(found.wrong.is_some_and(|w| w.ends_with("(at depth 10)")));
}

#[test]
fn what_is_no_single_model_or_too_large_is_refused() {
    let args = ["export", "reclaim-one-vcpu", "--policy", "no-flush", "--to", "murphi"];
    sevsim(&args).ends(2).says(&["2 cases", "--part"]);
    sevsim(&["export", "reclaim-one-vcpu", "--policy", "no-flush", "--part", "rome"]).ends(2).says(&["--to"]);
    let large =
        ["export", "three-flushers", "--policy", "clear-remark-trylock", "--part", "rome", "--to", "promela"];
    let refused = sevsim(&large).ends(5).says(&["too large to be exported: more than 1000000 states"]);
    assert_eq!(refused.out, "");
}
