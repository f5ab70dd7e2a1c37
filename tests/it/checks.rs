//! `check`, `test` and `replay`: verdicts, exit codes, JSON, schedules.

use serde_json::Value;

use super::program::{Folder, command, finish, sevsim, sevsim_in, sevsim_with};

/// A case small enough to be explored in no time.
const SMALL: [&str; 4] = ["check", "reclaim-one-vcpu", "--part", "rome"];

fn small<'a>(more: &[&'a str]) -> Vec<&'a str> {
    SMALL.iter().copied().chain(more.iter().copied()).collect()
}

#[test]
fn verdicts_decide_the_exit_code() {
    sevsim(&small(&["--policy", "all-wbinvd"])).ends(0);
    sevsim(&small(&["--policy", "no-flush"])).ends(3);
    sevsim(&small(&["--policy", "all-wbinvd", "--depth", "2"])).ends(5);
    sevsim(&small(&["--policy", "all-wbinvd", "--states", "20"])).ends(5);
    sevsim(&small(&["--policy", "all-wbinvd", "--memory", "1B"])).ends(5);
}

#[test]
fn expecting_a_violation_swaps_holds_and_violated_only() {
    let expect = ["--expect", "violated", "--policy"];
    sevsim(&small(&[&expect[..], &["all-wbinvd"]].concat())).ends(3);
    sevsim(&small(&[&expect[..], &["no-flush"]].concat())).ends(0);
    sevsim(&small(&[&expect[..], &["all-wbinvd", "--depth", "2"]].concat())).ends(5);
}

#[test]
fn of_several_cases_the_worst_counts() {
    let both = small(&["--policy", "all-wbinvd", "--policy", "no-flush"]);
    sevsim(&both).ends(3);
    sevsim(&small(&["--policy", "all-wbinvd", "--policy", "sticky-wbinvd"])).ends(0);
    let deep = small(&["--policy", "no-flush", "--policy", "all-wbinvd", "--states", "100"]);
    let codes = sevsim(&[&deep[..], &["--format", "json"]].concat());
    let verdicts: Vec<Value> = codes.json().iter().map(|l| l["verdict"].clone()).collect();
    assert!(verdicts.contains(&Value::from("bounded")));
    assert_eq!(codes.code, if verdicts.contains(&Value::from("violated")) { 3 } else { 5 });
}

#[test]
fn the_second_flusher_of_clear_remark_is_told() {
    let ran = sevsim(&["check", "two-flushers", "--policy", "clear-remark"]).ends(3);
    for word in [
        "VIOLATED",
        "latent",
        "reclaim_p",
        "reclaim_q",
        "cpumask_test_and_",
        "free_page",
        "CPU0 (vcpu0) ",
        "| CPU1 (reclaim_p) ",
        "clear-remark.c:37",
        "0 was clear ",
        "in short: the second flusher found the mask empty",
        ">>> latent: page P is free, but vm0's dirty line of it is still in core0",
    ] {
        assert!(ran.out.contains(word), "no {word} in\n{}", ran.out);
    }
    assert!(ran.out.lines().all(|l| l.chars().count() <= 100), "{}", ran.out);
    sevsim(&["check", "two-flushers", "--policy", "clear-remark-mutex"]).ends(0);
}

#[test]
fn each_access_of_a_story_says_what_was_read_or_written() {
    let args = ["check", "reclaim-while-running", "--policy", "clear-remark-mutex-copy", "--part", "rome"];
    let json = sevsim(&[&args[..], &["--format", "json"]].concat()).ends(3).json();
    let trace = json[0]["trace"].as_array().unwrap();
    for step in trace {
        assert_eq!(
            step["file"].is_string(),
            step["function"].is_string() && step["column"].is_u64(),
            "{step}"
        );
        let hardware = step["file"] == Value::Null || step["text"] == "vcpu_sched_park();";
        assert!(hardware || step["effect"] != "", "{step}");
    }
    let last = trace.last().unwrap();
    assert_eq!(last["function"], "madvise_dontneed");
    assert_eq!(last["events"][0]["event"], "latent");
    assert!(last["cause"].as_str().unwrap().starts_with("a mark was lost"), "{last}");
}

#[test]
fn json_of_a_check_has_the_fixed_fields() {
    let ran = sevsim(&small(&["--policy", "no-flush", "--policy", "all-wbinvd", "--format", "json"])).ends(3);
    let lines = ran.json();
    assert_eq!(lines.len(), 2);
    let fields = [
        "schema",
        "litmus",
        "policy",
        "kernel",
        "part",
        "verdict",
        "events",
        "stories",
        "states",
        "transitions",
        "depth",
        "whole",
        "memory",
        "asked_ends",
        "assumptions",
        "sometimes",
        "memory_model",
        "victims",
        "defines",
        "schedule",
        "token",
        "trace",
    ];
    for line in &lines {
        let line = line.as_object().unwrap();
        let mut have: Vec<&str> = line.keys().map(String::as_str).collect();
        let mut want = fields.to_vec();
        have.sort_unstable();
        want.sort_unstable();
        assert_eq!(have, want);
        assert_eq!(line["schema"], "sevsim.check/1");
        assert!(line["states"].as_u64().unwrap() > 10);
    }
    let (violated, holds) = (&lines[0], &lines[1]);
    assert_eq!(violated["verdict"], "violated");
    let events: Vec<&str> =
        violated["events"].as_array().unwrap().iter().map(|e| e.as_str().unwrap()).collect();
    assert_eq!(events[0], "latent");
    for event in &events {
        assert!(!violated["stories"][event].as_array().unwrap().is_empty());
    }
    assert_eq!(violated["trace"], violated["stories"][events[0]]);
    for (i, step) in violated["trace"].as_array().unwrap().iter().enumerate() {
        let mut keys: Vec<&str> = step.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        let named = [
            "actor", "cause", "column", "effect", "events", "file", "function", "line", "pcpu", "step",
            "text",
        ];
        assert_eq!(keys, named);
        assert_eq!(step["step"], i + 1);
    }
    assert!(violated["schedule"].as_str().unwrap().starts_with("sevsim-schedule 1\n"));
    assert_eq!(holds["verdict"], "holds");
    assert_eq!(holds["events"], Value::Array(Vec::new()));
    assert_eq!(holds["schedule"], Value::Null);
}

#[test]
fn a_bound_is_named() {
    let ran = sevsim(&small(&["--policy", "all-wbinvd", "--depth", "2", "--format", "json"])).ends(5);
    assert_eq!(ran.json()[0]["bound"], "2 steps");
    assert_eq!(ran.json()[0]["verdict"], "bounded");
    let ran = sevsim(&small(&["--policy", "all-wbinvd", "--depth", "2"])).ends(5);
    assert!(ran.out.contains("BOUNDED") && ran.out.contains("2 steps"), "{}", ran.out);
}

#[test]
fn assumptions_are_named() {
    let args = ["check", "no-dma-on-coherent-part", "--policy", "no-flush"];
    assert!(sevsim(&args).ends(0).out.contains("taken as given: no-dma"));
    let json = sevsim(&[&args[..], &["--format", "json"]].concat()).json();
    assert_eq!(json[0]["assumptions"], serde_json::json!(["no-dma"]));
}

#[test]
fn csv_has_one_line_per_case_and_a_header() {
    let ran = sevsim(&small(&["--policy", "no-flush", "--policy", "all-wbinvd", "--format", "csv"])).ends(3);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines.len(), 3);
    let columns = lines[0].split(',').count();
    assert!(lines.iter().all(|l| l.split(',').count() == columns));
    assert!(lines[1].starts_with("reclaim-one-vcpu,no-flush,linux-6.17,rome,violated,latent"));
}

#[test]
fn a_saved_schedule_replays_and_so_does_a_line_of_json() {
    let folder = Folder::new();
    let ran = sevsim_in(&folder, &small(&["--policy", "no-flush", "--save-schedule", "race.sched"])).ends(3);
    assert!(ran.out.contains("sevsim replay race.sched"));
    let words = sevsim_in(&folder, &["replay", "race.sched"]).ends(0);
    assert!(words.out.contains(">>> latent") && words.out.contains("the schedule shows latent"));
    let told = sevsim_in(&folder, &["replay", "race.sched", "--format", "json"]).ends(0).json();
    assert_eq!(told[0]["schema"], "sevsim.replay/1");
    assert_eq!(told[0]["shown"], true);
    let line = sevsim(&small(&["--policy", "no-flush", "--format", "json"])).ends(3);
    assert_eq!(told[0]["trace"], line.json()[0]["trace"]);
    let again = sevsim_with(line.out.as_bytes(), &["replay", "-", "--format", "json"]).ends(0).json();
    assert_eq!(again, told);
    let csv = sevsim_in(&folder, &["replay", "race.sched", "--format", "csv"]).ends(0);
    assert_eq!(csv.out.lines().count(), told[0]["trace"].as_array().unwrap().len() + 1);
}

#[test]
fn every_event_has_a_schedule_of_its_own_that_shows_it() {
    let folder = Folder::new();
    let json = sevsim(&small(&["--policy", "no-flush", "--format", "json"])).json();
    let schedule = json[0]["schedule"].as_str().unwrap();
    // The same steps cannot show an event that needs more of them.
    folder.file("other.sched", schedule.replace("event latent", "event clobber"));
    let ran = sevsim_in(&folder, &["replay", "other.sched"]).ends(3);
    assert!(ran.out.contains("does not show clobber"), "{}", ran.out);
}

#[test]
fn schedules_of_users_files_find_them_again() {
    let folder = Folder::new();
    folder.file("p.c", sevsim(&["show", "policy", "no-flush"]).out);
    folder.file("l.litmus", sevsim(&["show", "litmus", "reclaim-one-vcpu"]).out);
    folder.file("part.toml", sevsim(&["show", "part", "rome", "--text"]).out);
    folder.file("k.c", sevsim(&["show", "kernel", "linux-6.17"]).out);
    let args = [
        "check",
        "l.litmus",
        "--policy",
        "p.c",
        "--part",
        "part.toml",
        "--kernel",
        "k.c",
        "--save-schedule",
        "s",
    ];
    sevsim_in(&folder, &args).ends(3);
    sevsim_in(&folder, &["replay", "s"]).ends(0);
}

#[test]
fn nothing_is_saved_where_nothing_is_violated() {
    let folder = Folder::new();
    let ran = sevsim_in(&folder, &small(&["--policy", "all-wbinvd", "--save-schedule", "s"])).ends(0);
    ran.says(&["no schedule saved"]);
    assert!(!folder.path.join("s").exists());
}

#[test]
fn a_story_is_not_told_twice_and_all_are_told_if_asked_for() {
    let both = ["check", "reclaim-one-vcpu", "--policy", "no-flush", "--part", "rome"];
    let first = sevsim(&both).ends(3).out;
    assert_eq!(first.matches(">>> latent").count(), 1);
    assert_eq!(first.matches(">>> clobber").count(), 0);
    let all = sevsim(&[&both[..], &["--stories", "all"]].concat()).ends(3).out;
    assert!(all.contains(">>> clobber") && all.contains("as above"), "{all}");
    let none = sevsim(&[&both[..], &["--stories", "none"]].concat()).ends(3).out;
    assert!(!none.contains(">>>"));
}

#[test]
fn test_compares_with_the_files_expectations() {
    let ran = sevsim(&["test", "reclaim-one-vcpu", "--format", "json"]).ends(0);
    let lines = ran.json();
    assert!(lines.len() > 20);
    for line in &lines {
        assert_eq!(line["met"], true, "{line}");
        assert_eq!(line["expected"], line["verdict"]);
    }
    let table = sevsim(&["test", "reclaim-one-vcpu"]).ends(0).out;
    assert!(table.contains(&format!("{} checks: {} as expected", lines.len(), lines.len())), "{table}");
}

#[test]
fn an_expectation_that_is_missed_is_told_with_its_reason() {
    let folder = Folder::new();
    let text = sevsim(&["show", "litmus", "reclaim-one-vcpu"]).out;
    let wrong = text.replacen("policies = [\"no-flush\", ", "policies = [\"all-wbinvd\", ", 1);
    assert_ne!(wrong, text, "the litmus file has changed, and so must this test");
    folder.file("wrong.litmus", wrong);
    let args = ["test", "wrong.litmus", "--part", "rome", "--policy", "no-flush", "--policy", "all-wbinvd"];
    let ran = sevsim_in(&folder, &args).ends(3);
    assert_eq!(ran.out.matches("NOT AS EXPECTED").count(), 2, "{}", ran.out);
    assert!(ran.out.contains("sevsim check wrong.litmus --policy no-flush --part rome"), "{}", ran.out);
    assert!(ran.out.contains("2 checks: 0 as expected, 2 not as expected"), "{}", ran.out);
    let bounded = sevsim_in(&folder, &[&args[..], &["--depth", "2"]].concat()).ends(5);
    assert!(bounded.out.contains("2 bounded"), "{}", bounded.out);
}

#[test]
fn the_same_bytes_come_twice_and_with_any_number_of_threads() {
    let args = [
        "test",
        "reclaim-one-vcpu",
        "two-flushers",
        "--policy",
        "no-flush",
        "--policy",
        "clear-remark",
        "--format",
        "json",
    ];
    let first = sevsim(&args);
    assert!(!first.out.is_empty());
    for threads in ["1", "2", "7"] {
        let mut again = command(&args);
        again.env("RAYON_NUM_THREADS", threads);
        assert_eq!(finish(again).out, first.out);
    }
}

/// A reclaim of a page that its guest only reads.
const NEVER_DIRTY: &str = r#"+++
description = "Nobody writes the page that is reclaimed."
parts = ["rome"]
pcpus = 2
pages = [{ name = "P", mapped = true }]

[[vcpu]]
guest = "guest"
pcpus = [0]

[[task]]
run = "reclaim"
pcpus = [1]

[[expect]]
verdict = "holds"
policies = ["*"]
+++
void guest(void)
{
	guest_read(P);
}

void reclaim(void)
{
	madvise_dontneed(vm0, P);
}
"#;

#[test]
fn a_holds_in_which_nothing_was_ever_in_danger_is_vacuous() {
    let folder = Folder::new();
    folder.file("never.litmus", NEVER_DIRTY);
    let args = ["check", "never.litmus", "--policy", "all-wbinvd"];
    let ran = sevsim_in(&folder, &args).ends(5);
    assert!(ran.out.starts_with("VACUOUS "), "{}", ran.out);
    assert!(ran.out.contains("never happened on any way: a page was reclaimed"), "{}", ran.out);
    let json = sevsim_in(&folder, &[&args[..], &["--format", "json"]].concat()).ends(5).json();
    assert_eq!(json[0]["verdict"], "vacuous");
    assert_eq!(json[0]["sometimes"]["dirty-reclaimed"], Value::Null);
    assert!(json[0]["sometimes"]["ipi-met-guest"].as_u64().unwrap() > 3, "{}", json[0]["sometimes"]);
    sevsim_in(&folder, &["test", "never.litmus", "--policy", "all-wbinvd"]).ends(5);

    folder.file("dirty.litmus", NEVER_DIRTY.replace("guest_read", "guest_write"));
    let args = ["check", "dirty.litmus", "--policy", "all-wbinvd", "--format", "json"];
    let json = sevsim_in(&folder, &args).ends(0).json();
    assert!(json[0]["sometimes"]["dirty-reclaimed"].as_u64().unwrap() > 3);
}

#[test]
fn overlapping_flushers_are_seen_where_there_are_two() {
    let seen = |litmus: &str, policy: &str| {
        let args = ["check", litmus, "--policy", policy, "--part", "rome", "--format", "json"];
        sevsim(&args).json()[0]["sometimes"]["flushers-overlapped"].clone()
    };
    assert!(seen("two-flushers", "clear-remark-mutex").as_u64().unwrap() > 10);
    assert_eq!(seen("reclaim-one-vcpu", "clear-remark-mutex"), Value::Null);
    let args = ["check", "two-flushers", "--policy", "page-flush-msr", "--part", "rome"];
    let out = sevsim(&args).ends(0).out;
    assert!(out.contains("never happened on any way: the IPI of a flush was sent"), "{out}");
}

#[test]
fn a_token_tells_the_same_story_again() {
    let args = ["check", "two-flushers", "--policy", "clear-remark", "--part", "rome"];
    let checked = sevsim(&args).ends(3).out;
    let token =
        checked.lines().find_map(|l| l.trim().strip_prefix("again: sevsim replay ")).expect("a token");
    assert!(token.len() < 60, "{token}");
    let replayed = sevsim(&["replay", token]).ends(0).out;
    let steps = |out: &str| out.split("\n\n").nth(1).unwrap().to_owned();
    assert_eq!(steps(&checked), steps(&replayed));
    assert!(replayed.contains("two-flushers, policy clear-remark, on linux-6.17 and rome"), "{replayed}");
    let json = sevsim(&[&args[..], &["--format", "json"]].concat()).ends(3).json();
    assert_eq!(json[0]["token"], token);
    assert_eq!(
        sevsim(&["check", "two-flushers", "--policy", "apic-map", "--format", "json"]).json()[0]["token"],
        Value::Null
    );

    sevsim(&["replay", &token[..token.len() - 3]]).ends(2).says(&["checksum"]);
    sevsim(&["replay", token, "--memory-model", "tso"]).ends(2).says(&["--memory-model"]);
}

#[test]
fn a_token_of_ones_own_policy_needs_the_same_text() {
    let folder = Folder::new();
    let text = sevsim(&["show", "policy", "no-flush"]).ends(0).out;
    folder.file("mine.c", &text);
    let args =
        ["check", "reclaim-one-vcpu", "--policy", "./mine.c", "--part", "rome", "--memory-model", "tso"];
    let json = sevsim_in(&folder, &[&args[..], &["--format", "json"]].concat()).ends(3).json();
    let token = json[0]["token"].as_str().unwrap();
    let again = sevsim_in(&folder, &["replay", token, "--format", "json"]).ends(0).json();
    assert_eq!(again[0]["trace"], json[0]["trace"]);
    folder.file("mine.c", text + "\nvoid sev_vcpu_put(struct kvm_vcpu *vcpu) { vcpu->mode = 0; }\n");
    sevsim_in(&folder, &["replay", token]).ends(2).says(&["was made for another text"]);
    std::fs::remove_file(folder.path.join("mine.c")).unwrap();
    sevsim_in(&folder, &["replay", token]).ends(2).says(&["mine.c"]);
}

#[test]
fn a_switch_of_the_kernel_can_be_given_on_the_command_line() {
    let folder = Folder::new();
    let args = ["check", "unregister-and-reuse:kept", "--policy", "all-wbinvd", "--part", "rome"];
    sevsim(&args).ends(0);
    let off = [&args[..], &["-D", "FLUSH_ON_UNREGISTER=0", "--save-schedule", "s"]].concat();
    let out = sevsim_in(&folder, &off).ends(3).out;
    assert!(out.contains("on linux-6.17 and rome, FLUSH_ON_UNREGISTER = 0"), "{out}");
    assert!(!out.contains("sevsim replay sev1-"), "a token knows no switches: {out}");
    let schedule = std::fs::read_to_string(folder.path.join("s")).unwrap();
    assert!(schedule.contains("\ndefine FLUSH_ON_UNREGISTER 0\n"), "{schedule}");
    let replayed = sevsim_in(&folder, &["replay", "s"]).ends(0);
    assert!(!replayed.err.contains("warning"), "{}", replayed.err);
    let json = sevsim(&[&args[..], &["-D", "FLUSH_ON_UNREGISTER=0", "--format", "json"]].concat()).json();
    assert_eq!(json[0]["defines"]["FLUSH_ON_UNREGISTER"], 0);

    // A litmus test's own `#define` as well; the later value counts.
    let own = ["-D", "FREED=0", "-D", "FREED=1"];
    sevsim(
        &[&["check", "memslot-deleted:freed", "--policy", "all-wbinvd", "--kernel", "linux-6.1"], &own[..]]
            .concat(),
    )
    .ends(0);

    sevsim(&[&args[..], &["-D", "FLUSH_ON_UNREGISTRE=0"]].concat()).ends(2).says(&["FLUSH_ON_UNREGISTER"]);
    for bad in ["FLUSH", "=1", "FLUSH=yes", "A B=1"] {
        sevsim(&[&args[..], &["-D", bad]].concat()).ends(2).says(&["such as FLUSH_ON_RELEASE=0"]);
    }
}

#[test]
fn both_reductions_leave_a_small_part_of_the_flush_model_of_two_vms() {
    let folder = Folder::new();
    let from = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/flush-model");
    for name in ["two-vms-2.litmus", "flush-model.c"] {
        folder.file(name, std::fs::read(from.join(name)).expect("it is there"));
    }
    let states = |reductions: &[&str]| {
        let args = ["check", "two-vms-2.litmus", "--policy", "sticky-wbinvd", "--format", "json"];
        let checked = sevsim_in(&folder, &[&args[..], reductions].concat()).ends(0).json();
        checked[0]["states"].as_u64().expect("a number")
    };
    let few = states(&["--symmetry", "on", "--partial-order", "on"]);
    // The CPUs of the vCPUs are alike, and so are the VMs: four permutations; partial order does the rest.
    assert!(few * 6 < states(&[]), "{few}");
}
