//! `assume`, `mutate` and `scale`: what a policy leans on, which of its statements are needed, how far a claim reaches.

use serde_json::Value;

use super::program::{Folder, sevsim, sevsim_in};

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|v| v.as_str().expect("a text")).collect()
}

#[test]
fn assume_sorts_the_guarantees_out_and_tells_what_breaks() {
    let args = ["assume", "sticky-wbnoinvd", "reclaim-one-vcpu", "two-vcpus-first-entry", "--part", "rome"];
    let json = sevsim(&[&args[..], &["--format", "json"]].concat()).ends(0).json();
    let found = &json[0];
    assert_eq!(
        (json.len(), &found["schema"], &found["verdict"]),
        (1, &"sevsim.assume/1".into(), &"holds".into())
    );
    let necessary = found["necessary"].as_array().unwrap();
    let of = |name: &str| necessary.iter().find(|n| n["guarantee"] == name);
    for name in
        ["zap-before-flush", "sequence-check", "in-progress-check", "ipis-waited-for", "lock:mmu_lock"]
    {
        let broken = of(name).unwrap_or_else(|| panic!("{name} is not needed"));
        assert_eq!(broken["event"], "latent");
        let trace = broken["trace"].as_array().unwrap();
        assert_eq!(trace.len() as u64, broken["steps"].as_u64().unwrap());
        assert_eq!(trace.last().unwrap()["events"][0]["event"], "latent", "{name}");
    }
    // Two vCPUs lose each other's bits; one cannot.
    assert_eq!(of("atomic-mark").unwrap()["litmus"], "two-vcpus-first-entry");
    assert!(texts(&found["given"]).contains(&"tlb-acknowledged"));
    assert!(of("tlb-acknowledged").is_none());
    // What is needed alone suffices together.
    let minimal = found["minimal"].as_array().unwrap();
    assert_eq!(minimal.len(), 1);
    assert_eq!(texts(&minimal[0]).len(), necessary.len());
    // The host is no SME_COHERENT part.
    assert!(!texts(&found["given"]).contains(&"sme-coherent"));
}

#[test]
fn assume_reads_well() {
    let args = ["assume", "sticky-wbnoinvd", "reclaim-one-vcpu", "--part", "genoa", "--stories", "first"];
    let out = sevsim(&args).ends(0).out;
    for said in [
        "It needs each of these:",
        "the notifier unmaps before it flushes",
        "else latent in ",
        "It holds without any one of these:",
        "sme-coherent",
        "Together: those it needs suffice",
        "Without flush-reaches-l3, in reclaim-one-vcpu:",
        ">>> latent",
    ] {
        assert!(out.contains(said), "no {said} in\n{out}");
    }
    assert_eq!(out.matches("Without ").count(), 1);
    assert!(out.lines().all(|l| l.chars().count() <= 100), "{out}");
    let none = sevsim(&["assume", "sticky-wbnoinvd", "reclaim-one-vcpu", "--stories", "none"]).ends(0).out;
    assert!(!none.contains(">>>"), "{none}");
}

#[test]
fn assume_says_what_it_cannot_know() {
    let broken = sevsim(&["assume", "no-flush", "reclaim-one-vcpu", "--part", "rome"]).ends(3).out;
    assert!(broken.contains("there is nothing to lean on"), "{broken}");
    let bounded = ["assume", "sticky-wbnoinvd", "reclaim-one-vcpu", "--part", "rome", "--states", "100"];
    let out = sevsim(&bounded).ends(5).out;
    assert!(out.contains("the search met its bound: 100 states"), "{out}");
    // Enough for the policy itself, and not for what it leads to without a guarantee.
    let bounded = ["assume", "sticky-wbnoinvd", "reclaim-one-vcpu", "--part", "rome", "--states", "3000"];
    let out = sevsim(&bounded).ends(5).out;
    assert!(out.contains("BOUNDED: without "), "{out}");
    assert!(!out.contains("It holds without any one of these"), "{out}");
}

#[test]
fn mutants_are_killed_or_listed() {
    let args = ["mutate", "clear-in-handler", "reclaim-one-vcpu", "reclaim-while-running", "--part", "rome"];
    let json = sevsim(&[&args[..], &["--format", "json"]].concat()).ends(0).json();
    let fate = |change: &str, was: &str| {
        let found =
            json.iter().find(|m| m["change"] == change && m["was"].as_str().unwrap().starts_with(was));
        found.unwrap_or_else(|| panic!("no mutant {change} {was}"))
    };
    assert_eq!(fate("dropped", "wbnoinvd();")["fate"], "killed");
    assert_eq!(fate("dropped", "wbnoinvd();")["event"], "latent");
    assert_eq!(fate("dropped", "wbnoinvd();")["line"], 18);
    // Without clearing, the policy is the sticky one.
    assert_eq!(fate("dropped", "cpumask_clear_cpu")["fate"], "survives");
    assert_eq!(fate("weakened", "cpumask_clear_cpu")["fate"], "killed");
    let out = sevsim(&args).ends(0).out;
    let listed = out.split("Nothing kills").nth(1).expect("some survive");
    assert!(listed.contains("`cpumask_clear_cpu(smp_processor_id(), kvm->dirty_cpus);` dropped"), "{out}");
    assert!(!out.contains("Killed:"), "{out}");
    assert!(sevsim(&[&args[..], &["--all"]].concat()).ends(0).out.contains("Killed:"));
}

#[test]
fn mutants_of_a_file_of_ones_own_and_of_what_holds_nowhere() {
    let folder = Folder::new();
    let text = sevsim(&["show", "policy", "all-wbinvd"]).ends(0).out;
    folder.file("mine.c", text);
    let json =
        sevsim_in(&folder, &["mutate", "mine.c", "reclaim-one-vcpu", "--format", "json"]).ends(0).json();
    assert!(json.iter().any(|m| m["fate"] == "killed" && m["policy"] == "mine.c"));
    sevsim(&["mutate", "no-flush", "reclaim-one-vcpu", "--part", "rome"]).ends(3).says(&["holds in none"]);
    sevsim(&["mutate", "nothing"]).ends(2).says(&["there is no policy `nothing`"]);
}

#[test]
fn scale_goes_on_until_it_may_not_and_claims_no_more() {
    let args = ["scale", "sticky-wbnoinvd", "reclaim-one-vcpu", "--part", "rome", "--states", "30000"];
    let ran = sevsim(&[&args[..], &["--time", "10min", "--format", "json"]].concat()).ends(0);
    let sizes = ran.json();
    let verdict = |pcpus: u64, vcpus: u64, pages: u64, tasks: u64| {
        let found = sizes.iter().find(|s| {
            (s["pcpus"].as_u64(), s["vcpus"].as_u64()) == (Some(pcpus), Some(vcpus))
                && (s["pages"].as_u64(), s["tasks"].as_u64()) == (Some(pages), Some(tasks))
        });
        found.map(|s| s["verdict"].as_str().expect("a verdict").to_owned())
    };
    assert_eq!(verdict(2, 1, 1, 1).as_deref(), Some("holds"));
    assert_eq!(verdict(2, 1, 2, 1).as_deref(), Some("holds"));
    assert_eq!(verdict(3, 1, 2, 2).as_deref(), Some("bounded"));
    // Nothing above what was bounded is tried.
    assert_eq!(verdict(4, 1, 3, 3), None);
    let out = sevsim(&args).ends(0).out;
    assert!(out.contains("  2 pCPUs, 1 vCPU, 2 pages, 1 task\n"), "{out}");
    assert!(out.contains("3 pCPUs, 1 vCPU, 2 pages, 2 tasks: bounded: 30,000 states."), "{out}");
    sevsim(&[&args[..5], &["--states", "100"]].concat()).ends(5);
}

#[test]
fn scale_finds_what_only_a_larger_test_shows() {
    // One flusher at a time is safe; a second one finds the mask empty.
    let args = ["scale", "clear-remark", "reclaim-one-vcpu", "--part", "rome", "--time", "10min"];
    let out = sevsim(&args).ends(3).out;
    let rows: Vec<&str> =
        out.lines().filter(|l| l.ends_with("  holds") || l.ends_with("  VIOLATED")).collect();
    assert!(rows.first().is_some_and(|r| r.ends_with("holds")), "{out}");
    assert!(rows.last().is_some_and(|r| r.ends_with("VIOLATED")), "{out}");
    assert!(out.contains(">>> latent"), "{out}");
    assert!(out.contains("madvise_dontneed(vm0, P_2)") || out.contains("reclaim_P_2"), "{out}");
}

#[test]
fn scale_says_what_cannot_be_made_larger() {
    let args = ["scale", "all-wbinvd", "shared-page", "--part", "rome", "--states", "2000"];
    let out = sevsim(&args).out;
    assert!(
        out.contains("Not made larger: litmus/shared-page.litmus: no task on the host names a page"),
        "{out}"
    );
    sevsim(&["scale", "all-wbinvd", "two-flushers", "--time", "5"]).ends(2).says(&["a time with its unit"]);
}

#[test]
fn random_walks_find_what_a_search_finds_and_never_prove() {
    let base = ["check", "two-flushers", "--part", "rome", "--random", "20k", "--pct", "3", "--seed", "7"];
    let broken = [&base[..], &["--policy", "clear-remark", "--format", "json"]].concat();
    let json = sevsim(&broken).ends(3).json();
    assert_eq!(json[0]["verdict"], "violated");
    assert!(json[0]["random_walks"].as_u64().expect("a number") <= 20_000);
    // The steps that it does not need are left out: nearly a shortest way, which has 33.
    let steps = json[0]["trace"].as_array().expect("a list").len();
    assert!((33..60).contains(&steps), "{steps}");
    let token = json[0]["token"].as_str().expect("a token");
    assert_eq!(sevsim(&["replay", token, "--format", "json"]).ends(0).json()[0]["trace"], json[0]["trace"]);
    // The same on any number of threads.
    let mut one = super::program::command(&broken);
    let one = one.env("RAYON_NUM_THREADS", "1").output().expect("it starts").stdout;
    assert_eq!(one, sevsim(&broken).out.into_bytes());

    let safe = ["--policy", "sticky-wbnoinvd"];
    let out = sevsim(&[&base[..], &safe].concat()).ends(5).out;
    assert!(out.contains("Not exhaustive"), "{out}");
    let out = sevsim(&[&base[..4], &["--random", "1000"], &safe[..]].concat()).ends(5).out;
    assert!(out.contains("1,000 random walks"), "{out}");

    sevsim(&["check", "two-flushers", "--seed", "7"]).ends(2).says(&["--random"]);
    sevsim(&["check", "two-flushers", "--pct", "3"]).ends(2).says(&["--random"]);
    sevsim(&["check", "two-flushers", "--random", "10", "--states", "10"]).ends(2).says(&["--states"]);
    sevsim(&["check", "two-flushers", "--random", "0"]).ends(2).says(&["a number of walks"]);
}

#[test]
fn a_task_that_can_never_end_is_told_and_replayed() {
    let base = ["check", "trylock-spun-for:irqs-off", "--policy", "no-flush", "--part", "rome"];
    let text = sevsim(&base).ends(3).out;
    assert!(text.contains(">>> hung-task") && text.contains("sleeps and spins can never end"), "{text}");
    let json = sevsim(&[&base[..], &["--format", "json"]].concat()).ends(3).json();
    assert_eq!((&json[0]["whole"], &json[0]["asked_ends"]), (&true.into(), &true.into()));
    let trace = json[0]["trace"].as_array().expect("a list");
    // After two steps no end is in reach; what comes then goes round.
    assert!(trace.len() > 2, "{json:?}");
    assert_eq!(trace[1]["events"][0]["event"], "hung-task");
    let token = json[0]["token"].as_str().expect("a token");
    let again = sevsim(&["replay", token]).ends(0).out;
    assert!(again.contains("sleeps and spins can never end"), "{again}");
    sevsim(&[&["check", "trylock-spun-for:irqs-on"], &base[2..]].concat()).ends(0);
}

#[test]
fn few_switches_find_what_a_search_finds_and_prove_only_when_nothing_was_left_out() {
    let base = ["check", "two-flushers", "--part", "rome", "--format", "json"];
    let broken = [&base[..], &["--policy", "clear-remark", "--switches", "2"]].concat();
    let json = sevsim(&broken).ends(3).json();
    assert_eq!(json[0]["verdict"], "violated");
    // Without a switch each flusher runs until it waits: five steps more than the shortest story of all.
    assert_eq!(json[0]["switches"]["states"].as_array().expect("a list").len(), 1);
    assert_eq!(json[0]["trace"].as_array().expect("a list").len(), 40);
    let token = json[0]["token"].as_str().expect("a token");
    assert_eq!(sevsim(&["replay", token, "--format", "json"]).ends(0).json()[0]["trace"], json[0]["trace"]);

    let safe = ["--policy", "clear-remark-mutex", "--switches", "1"];
    let json = sevsim(&[&base[..], &safe].concat()).ends(5).json();
    assert_eq!(
        (&json[0]["verdict"], &json[0]["switches"]["exhaustive"]),
        (&"not-exhaustive".into(), &false.into())
    );
    assert!(sevsim(&[&base[..4], &safe].concat()).ends(5).out.contains("Not exhaustive"));

    // What is left out may be how a task ends: that is not asked.
    let ends = ["check", "reclaim-one-vcpu", "--part", "rome", "--policy", "all-wbinvd", "--switches", "3"];
    sevsim(&ends).ends(5).says(&[]);

    // With enough of them nothing is left out, and the answer is the search's.
    let args = ["check", "store-buffering-fenced", "--switches", "60000", "--format", "json"];
    let json = sevsim(&args).json();
    assert_eq!(json[0]["switches"]["exhaustive"], true);
    assert_eq!(json[0]["verdict"], sevsim(&[&args[..2], &args[4..]].concat()).json()[0]["verdict"]);
    sevsim(&[&args[..4], &["--random", "10"]].concat()).ends(2).says(&["--random"]);
}

#[test]
fn a_search_on_the_disk_goes_on_after_a_bound_and_comes_to_the_same() {
    let dir = std::env::temp_dir().join(format!("sevsim-disk-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let place = dir.to_str().expect("a plain path");
    let base =
        ["check", "three-flushers", "--policy", "clear-remark-mutex", "--part", "rome", "--depth", "40"];
    let whole = sevsim(&[&base[..], &["--format", "json"]].concat()).ends(5).json();
    let small = ["--memory", "3MiB", "--disk", place, "--format", "json"];
    let first = sevsim(&[&base[..], &small[..], &["--states", "20k"]].concat()).ends(5).json();
    assert_eq!(first[0]["bound"], "20,000 states");
    // Another policy's search has another folder, and another program's checkpoint is refused.
    let other = [&base[..], &["-D", "FLUSH_ON_RELEASE=0", "--disk", place, "--resume"]].concat();
    sevsim(&other).ends(2).says(&["--disk", "of another search"]);
    let rest = sevsim(&[&base[..], &small[..], &["--resume"]].concat()).ends(5).json();
    for key in ["verdict", "states", "transitions", "depth", "bound", "sometimes"] {
        assert_eq!(rest[0][key], whole[0][key], "{key}");
    }
    sevsim(&[&base[..], &["--resume"]].concat()).ends(2).says(&["--disk"]);
    sevsim(&["check", "two-flushers", "--disk", place, "--switches", "2"]).ends(2).says(&["--switches"]);
    std::fs::remove_dir_all(&dir).expect("it is ours");
}

#[test]
fn reductions_change_what_is_searched_and_no_verdict() {
    let safe = ["check", "migration-leaves-lines:destination", "--part", "rome", "--policy", "all-wbinvd"];
    let broken =
        ["check", "event-filter-off-by-one:as-documented", "--part", "rome", "--policy", "event-filter"];
    let json = |base: &[&str], more: &[&str], exit| {
        sevsim(&[base, &["--kernel", "linux-6.17", "--format", "json"], more].concat()).ends(exit).json()[0]
            .clone()
    };
    for (base, exit) in [(&safe, 0), (&broken, 3)] {
        let whole = json(base, &[], exit);
        for options in [&["--symmetry", "on"][..], &["--symmetry", "on", "--partial-order", "on"]] {
            let less = json(base, options, exit);
            for same in ["verdict", "events"] {
                assert_eq!(less[same], whole[same], "{same} with {options:?}");
            }
            let never = |of: &serde_json::Value| {
                let twins = of["sometimes"].as_object().expect("an object");
                twins.iter().map(|(twin, at)| (twin.clone(), at.is_null())).collect::<Vec<_>>()
            };
            assert_eq!(never(&less), never(&whole), "{options:?}");
            assert!(less["states"].as_u64() < whole["states"].as_u64(), "{options:?}");
            assert_eq!(less["permutations"], 2, "{options:?}");
        }
        let steps = |of: &serde_json::Value| of["trace"].as_array().expect("a list").len();
        assert_eq!(steps(&json(base, &["--symmetry", "on"], exit)), steps(&whole), "a story as short");
    }
    let token = json(&broken, &["--symmetry", "on"], 3)["token"].as_str().expect("a token").to_owned();
    sevsim(&["replay", &token]).ends(0);
    for option in ["--symmetry", "--partial-order"] {
        sevsim(&["check", "two-flushers", "--random", "10", option, "on"]).ends(2).says(&[option]);
    }
}
