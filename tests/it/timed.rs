//! `compare` and `run`: JSON, determinism, traces from files and standard input.

use serde_json::Value;

use super::program::{Folder, Ran, sevsim, sevsim_in, sevsim_with};

/// One small VM under reclaim.
const SMALL: &str = r#"
description = "One small guest under reclaim"
part = "rome"
pcpus = 4

[[vm]]
name = "guest"
vcpus = 2
pcpus = [0, 1]
accesses = 200000
spare_pages = 8
guest = { zipf = { pages = 16, write_percent = 50 } }

[[reclaim]]
vm = 0
entry = "madvise_dontneed"
pcpus = [3]
every = "200us"

[reuse]
after = "2us"
"#;

/// The same with a trace.
fn traced() -> String {
    let guest = "guest = { trace = { builtin = \"sqlite3-insert-select\", max_pages = 16 } }";
    SMALL.lines().map(|l| if l.starts_with("guest = ") { guest } else { l }).collect::<Vec<_>>().join("\n")
}

fn folder() -> Folder {
    let folder = Folder::new();
    folder.file("small.toml", SMALL);
    folder.file("traced.toml", traced());
    folder
}

/// JSON lines without what depends on host and clock.
fn timeless(ran: &Ran) -> Vec<Value> {
    let mut lines = ran.json();
    for line in &mut lines {
        let provenance = line.as_object_mut().unwrap().remove("provenance").unwrap();
        assert!(provenance["version"].is_string() && provenance["wall_ms"].is_u64());
    }
    lines
}

#[test]
fn json_of_a_run_has_the_fixed_fields() {
    let ran =
        sevsim_in(&folder(), &["run", "small.toml", "--policy", "all-wbinvd", "--format", "json"]).ends(0);
    let lines = ran.json();
    assert_eq!(lines.len(), 1);
    let run = &lines[0];
    assert_eq!(run["schema"], "sevsim.run/1");
    for (field, value) in
        [("scenario", "small"), ("policy", "all-wbinvd"), ("kernel", "linux-6.17"), ("part", "rome")]
    {
        assert_eq!(run[field], value);
    }
    assert_eq!(run["seed"], 1);
    assert!(run["cycles"].as_u64().unwrap() > 0);
    assert_eq!(run["guest_accesses"], 400_000);
    assert!(run["events"].is_object());
    let cost = &run["cost"];
    for field in [
        "flush_calls",
        "pcpus_flushed",
        "ipis",
        "stolen_cycles",
        "lines_written_back",
        "lines_invalidated",
        "lines_clflushed_at_hand_back",
        "refill_misses",
        "dram_bytes_written",
        "lock_wait_ns",
        "guest_exits",
    ] {
        assert!(cost[field].is_u64(), "{field}: {}", cost[field]);
    }
    for field in ["p50", "p90", "p99", "max", "mean"] {
        assert!(cost["flush_latency_ns"][field].is_u64(), "{field}");
    }
    assert!(cost["flush_calls"].as_u64().unwrap() > 0);
    assert!(cost["guest_slowdown"].as_f64().unwrap() >= 0.5);
}

#[test]
fn the_baseline_has_no_slowdown_and_is_run_without_being_listed() {
    let folder = folder();
    let args =
        ["compare", "small.toml", "--policy", "no-flush", "--policy", "all-wbinvd", "--format", "json"];
    let both = timeless(&sevsim_in(&folder, &args).ends(0));
    assert_eq!(both.len(), 2);
    assert_eq!(both[0]["cost"]["guest_slowdown"], 1.0);
    let alone =
        timeless(&sevsim_in(&folder, &["run", "small.toml", "--policy", "all-wbinvd", "--format", "json"]));
    assert_eq!(alone[0], both[1]);
}

#[test]
fn the_same_comes_twice_and_with_any_number_of_threads() {
    let folder = folder();
    let args = [
        "compare",
        "small.toml",
        "--policy",
        "clear-remark",
        "--policy",
        "all-wbinvd",
        "--runs",
        "2",
        "--format",
        "json",
    ];
    let first = timeless(&sevsim_in(&folder, &args).ends(0));
    assert_eq!(first.len(), 4);
    assert_eq!((&first[0]["seed"], &first[1]["seed"]), (&Value::from(1), &Value::from(2)));
    for threads in ["1", "2", "7"] {
        let mut again = super::program::command(&args);
        again.current_dir(&folder.path).env("RAYON_NUM_THREADS", threads);
        assert_eq!(timeless(&super::program::finish(again).ends(0)), first);
    }
    let table = sevsim_in(&folder, &args[..args.len() - 2]).ends(0);
    assert_eq!(sevsim_in(&folder, &args[..args.len() - 2]).out, table.out);
    assert!(table.out.contains("  min") && table.out.contains("medians"), "{}", table.out);
}

#[test]
fn csv_has_one_line_per_run_and_a_header() {
    let folder = folder();
    let args = ["compare", "small.toml", "--policy", "all-wbinvd", "--runs", "3", "--format", "csv"];
    let ran = sevsim_in(&folder, &args).ends(0);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines.len(), 4);
    let columns = lines[0].split(',').count();
    assert!(lines.iter().all(|l| l.split(',').count() == columns), "{}", ran.out);
}

#[test]
fn a_trace_plays_from_a_file_and_from_standard_input() {
    let folder = folder();
    let trace = " L 1000,8\n S 1040,8\n M 2000,4\nI  400000,3\nwhat is this\n";
    folder.file("t.lackey", trace);
    let args = ["run", "traced.toml", "--policy", "no-flush", "--format", "json", "--guest-trace"];
    let file = sevsim_in(&folder, &[&args[..], &["t.lackey"]].concat()).ends(0);
    let file = file.says(&["1 malformed line", "line 5", "what is this"]);
    let path = folder.path.join("traced.toml");
    let mut piped = args;
    piped[1] = path.to_str().unwrap();
    let input = sevsim_with(trace.as_bytes(), &[&piped[..], &["-"]].concat()).ends(0);
    let (mut a, mut b) = (timeless(&file), timeless(&input));
    for line in a.iter_mut().chain(&mut b) {
        line.as_object_mut().unwrap().remove("scenario");
    }
    assert_eq!(a, b);
}

#[test]
fn a_trace_replaces_what_every_guest_does() {
    let folder = folder();
    folder.file("t.lackey", " L 1000,8\n");
    let args = ["run", "small.toml", "--policy", "no-flush", "--guest-trace", "t.lackey"];
    let ran = sevsim_in(&folder, &args).ends(0);
    assert!(ran.out.contains("1 VM of trace t.lackey: 1 accesses a pass"), "{}", ran.out);
}

#[test]
fn options_change_the_run() {
    let folder = folder();
    let args = ["run", "small.toml", "--policy", "no-flush", "--format", "json"];
    let plain = timeless(&sevsim_in(&folder, &args).ends(0));
    for option in [["--seed", "2"], ["--accesses", "50000"], ["--part", "genoa"]] {
        let other = timeless(&sevsim_in(&folder, &[&args[..], &option].concat()).ends(0));
        assert_ne!(plain[0]["cycles"], other[0]["cycles"], "{option:?}");
    }
    sevsim_in(&folder, &[&args[..], &["--pcpus", "8"]].concat()).ends(0);
}

#[test]
fn the_table_says_what_was_run_and_how_far_to_trust_it() {
    let folder = folder();
    let ran =
        sevsim_in(&folder, &["compare", "small.toml", "--policy", "all-wbinvd", "--policy", "no-flush"])
            .ends(0);
    for word in
        ["small on rome", "400,000 guest accesses", "pattern zipf", "slow-", "wbinvd_fixed", "(U)", "next:"]
    {
        assert!(ran.out.contains(word), "no `{word}` in\n{}", ran.out);
    }
    assert!(ran.out.lines().all(|l| l.chars().count() <= 100), "{}", ran.out);
}

#[test]
fn without_a_command_it_compares_and_takes_the_options_of_compare() {
    let short = ["--accesses", "200", "--format", "json"];
    let bare = sevsim(&short).ends(0);
    let compare = sevsim(&[&["compare"][..], &short].concat()).ends(0);
    assert_eq!(timeless(&bare), timeless(&compare));
    let policies: Vec<Value> = bare.json().iter().map(|l| l["policy"].clone()).collect();
    assert_eq!(policies.len(), 9);
    assert_eq!(policies[0], "no-flush");
}

#[test]
fn costs_say_who_lost_what_and_the_parts_add_up() {
    let folder = folder();
    let args = ["run", "small.toml", "--policy", "all-wbinvd", "--costs", "--format", "json"];
    let run = &timeless(&sevsim_in(&folder, &args).ends(0))[0];
    let cost = &run["cost"];
    let n = |value: &Value| value.as_u64().unwrap();
    let lost = &cost["lost_cycles"];
    let stolen: u64 = ["ipi_entry", "flush", "irqs_off_wait", "kick"].iter().map(|c| n(&lost[c])).sum();
    assert_eq!(n(&cost["stolen_cycles"]), stolen);
    let dram = cost["dram_bytes"].as_object().unwrap();
    let written: u64 = dram.iter().filter(|(k, _)| k.starts_with("written")).map(|(_, v)| n(v)).sum();
    assert_eq!(n(&cost["dram_bytes_written"]), written);
    let victims = run["costs"]["victims"].as_array().unwrap();
    for cause in ["ipi_entry", "flush", "refill", "lock_wait"] {
        let of_guest =
            victims.iter().filter(|v| v["vm"] == "guest").map(|v| v["lost_cycles"][cause]["sum"].as_u64());
        assert_eq!(of_guest.flatten().sum::<u64>(), n(&lost[cause]), "{cause}");
    }
    for amounts in victims.iter().flat_map(|v| v["lost_cycles"].as_object().unwrap().values()) {
        let [p50, p90, p99, max] = ["p50", "p90", "p99", "max"].map(|p| n(&amounts[p]));
        assert!(p50 <= p90 && p90 <= p99 && p99 <= max && max <= n(&amounts["sum"]), "{amounts}");
        assert!(n(&amounts["times"]) > 0);
    }
    let ages = run["costs"]["flushes_by_age"].as_array().unwrap();
    let flushes: u64 = ages.iter().map(|a| n(&a["flushes"])).sum();
    assert_eq!(flushes, n(&cost["pcpus_flushed"]));
    let nothing: u64 = ages.iter().map(|a| n(&a["met_nothing"])).sum();
    assert_eq!(nothing, n(&cost["false_flushes"]));
    assert!(nothing > 0, "all-wbinvd flushes pCPUs that never ran the VM");
    let served: u64 = cost["requests_served"].as_object().unwrap().values().map(n).sum();
    assert!(served >= n(&run["guest_accesses"]));
    // Without the option the sums are there, and no list.
    let plain =
        timeless(&sevsim_in(&folder, &["run", "small.toml", "--policy", "all-wbinvd", "--format", "json"]));
    assert!(plain[0].get("costs").is_none());
    assert_eq!(&plain[0]["cost"], cost);
}

#[test]
fn costs_as_a_table_are_explained_and_as_csv_are_rows() {
    let folder = folder();
    let args = ["run", "small.toml", "--policy", "all-wbinvd", "--costs"];
    let table = sevsim_in(&folder, &args).ends(0).out;
    for word in [
        "time lost, by VM",
        "one at a time",
        "time lost, by pCPU",
        "bytes to and from DRAM, by cause",
        "how long ago the pCPU had run the VM",
        "IRQs off: from that #VMEXIT",
        "false flushes",
    ] {
        assert!(table.replace('\n', " ").contains(word), "no `{word}` in\n{table}");
    }
    assert!(table.lines().all(|l| l.chars().count() <= 100), "{table}");
    // Several policies: the sums of each, and no list of pCPUs.
    let several =
        ["compare", "small.toml", "--policy", "all-wbinvd", "--policy", "no-flush", "--policy", "oracle"];
    let table = sevsim_in(&folder, &[&several[..], &["--costs"]].concat()).ends(0).out;
    assert!(table.contains("time lost, by VM") && !table.contains("time lost, by pCPU"), "{table}");

    let csv = sevsim_in(&folder, &[&args[..], &["--format", "csv"]].concat()).ends(0).out;
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[0].starts_with("scenario,policy,kernel,part,seed,pcpu,vm,cause,times,sum_cycles"));
    let columns = lines[0].split(',').count();
    assert!(lines.len() > 4 && lines.iter().all(|l| l.split(',').count() == columns), "{csv}");
}
