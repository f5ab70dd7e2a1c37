//! Built-in names and paths; `list` and `show`.

use super::program::{Folder, sevsim, sevsim_in};

const KINDS: [(&str, &str); 5] = [
    ("policies", "policy"),
    ("kernels", "kernel"),
    ("parts", "part"),
    ("litmus", "litmus"),
    ("scenarios", "scenario"),
];

#[test]
fn everything_listed_can_be_shown() {
    for (plural, singular) in KINDS {
        let listed = sevsim(&["list", plural, "--format", "json"]).ends(0).json();
        assert!(!listed.is_empty(), "{plural}");
        for row in listed {
            assert_eq!(row["schema"], "sevsim.list/1");
            assert_eq!(row["kind"], plural);
            let name = row["name"].as_str().unwrap();
            assert!(!row["summary"].as_str().unwrap().is_empty(), "{name}");
            let shown = sevsim(&["show", singular, name]).ends(0);
            assert!(shown.out.ends_with('\n'), "{name}");
        }
    }
}

#[test]
fn a_text_is_shown_as_it_is_or_in_json_and_has_no_csv() {
    for args in [
        &["show", "policy", "no-flush"][..],
        &["show", "part", "rome", "--text"],
        &["show", "ast", "clear-remark"],
    ] {
        let plain = sevsim(args).ends(0).out;
        let json = sevsim(&[args, &["--format", "json"]].concat()).ends(0).json();
        assert_eq!(json[0]["schema"], "sevsim.show/1");
        assert_eq!(json[0]["text"], plain);
        let ran = sevsim(&[args, &["--format", "csv"]].concat()).ends(2).says(&["has no rows"]);
        assert!(ran.out.is_empty());
    }
}

#[test]
fn lists_agree_in_every_format() {
    for (plural, _) in KINDS {
        let json = sevsim(&["list", plural, "--format", "json"]).ends(0);
        let csv = sevsim(&["list", plural, "--format", "csv"]).ends(0);
        let table = sevsim(&["list", plural]).ends(0);
        assert_eq!(csv.out.lines().count(), json.json().len() + 1);
        for row in json.json() {
            assert!(table.out.contains(row["name"].as_str().unwrap()));
        }
    }
}

#[test]
fn an_unknown_name_says_which_exist_and_the_nearest() {
    let cases: [(&[&str], &str, &str); 6] = [
        (&["check", "two-flushers", "--policy", "clear-remrk"], "clear-remark", "sticky-wbnoinvd"),
        (&["check", "two-flushers", "--part", "genua"], "genoa", "rome"),
        (&["check", "two-flusher"], "two-flushers", "reclaim-one-vcpu"),
        (&["check", "two-flushers", "--kernel", "linux-7.33"], "linux-7.3", "linux-6.17"),
        (&["compare", "numa-chrun"], "numa-churn", "numa-churn"),
        (&["show", "policy", "nofush"], "no-flush", "oracle"),
    ];
    for (args, near, other) in cases {
        let ran = sevsim(args).ends(2).says(&[&format!("did you mean `{near}`?"), other]);
        assert!(ran.out.is_empty());
    }
}

#[test]
fn a_name_of_another_kind_is_called_what_it_is() {
    sevsim(&["check", "clear-remark"]).ends(2).says(&["`clear-remark` is a policy"]);
}

#[test]
fn a_copy_of_a_policy_works_wherever_its_name_does() {
    let folder = Folder::new();
    folder.file("mine.c", sevsim(&["show", "policy", "no-flush"]).out);
    for name in ["mine.c", "./mine.c"] {
        let args = ["check", "reclaim-one-vcpu", "--part", "rome", "--policy", name, "--format", "json"];
        let found = sevsim_in(&folder, &args).ends(3).json();
        assert_eq!(found[0]["policy"], name);
        let place = found[0]["stories"].to_string();
        assert!(!place.contains(folder.path.to_str().unwrap()), "paths are as the user gave them");
    }
    folder.file("bare", sevsim(&["show", "policy", "no-flush"]).out);
    sevsim_in(&folder, &["check", "reclaim-one-vcpu", "--part", "rome", "--policy", "bare"]).ends(3);
}

#[test]
fn a_syntax_tree_prints_as_text_that_gives_the_same_tree() {
    let folder = Folder::new();
    for row in sevsim(&["list", "policies", "--format", "json"]).json() {
        let name = row["name"].as_str().unwrap();
        let once = sevsim(&["show", "ast", name]).ends(0).out;
        folder.file("again.c", &once);
        let twice = sevsim_in(&folder, &["show", "ast", "again.c"]).ends(0).out;
        assert_eq!(once, twice, "{name}");
    }
}

#[test]
fn completions_and_the_manual_page_are_made() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(sevsim(&["completions", shell]).ends(0).out.contains("sevsim"));
    }
    assert!(sevsim(&["man"]).ends(0).out.contains(".TH sevsim 1"));
    sevsim(&["completions", "tcsh"]).ends(2);
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in [
        "compare",
        "run",
        "check",
        "test",
        "assume",
        "mutate",
        "scale",
        "probe",
        "calibrate",
        "validate",
        "replay",
        "list",
        "show",
        "completions",
    ] {
        let help = sevsim(&[command, "--help"]).ends(0).out;
        assert!(help.contains("Example"), "{command}");
        assert!(help.contains(&format!("  sevsim {command}")), "{command}");
    }
    assert!(sevsim(&["--help"]).ends(0).out.contains("Examples:"));
    assert!(sevsim(&["--version"]).ends(0).out.starts_with("sevsim "));
}
