//! What the emulated machine printed (`svm-model/native/module/emulate.sh`), held against what it must have: shape, the
//! pCPUs flushed against those that the program asks for, refusals, and what is left after a kill.
//!
//! `SEVSIM_EMULATED` names the folder; `.ci/run` fills it and sets that. Without it these tests say that they are left out.

use std::collections::BTreeMap;

use serde_json::Value;

/// A case: what it printed, and how it ended.
#[derive(Debug)]
struct Case {
    out: String,
    err: String,
    exit: i32,
}

impl Case {
    fn json(&self) -> Vec<Value> {
        let lines = self.out.lines().filter(|l| l.starts_with('{'));
        lines.map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
    }

    fn says(&self, texts: &[&str]) {
        for text in texts {
            assert!(self.err.contains(text) || self.out.contains(text), "`{text}` is not in {self:#?}");
        }
    }
}

#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
fn cases(results: &str) -> Option<BTreeMap<String, Case>> {
    let Some(folder) = std::env::var_os("SEVSIM_EMULATED") else {
        eprintln!(
            "left out: SEVSIM_EMULATED names no results; svm-model/native/module/emulate.sh makes them"
        );
        return None;
    };
    let bytes = std::fs::read(std::path::Path::new(&folder).join(results)).expect("the results can be read");
    let text = String::from_utf8_lossy(&bytes).replace('\r', "");
    assert!(text.ends_with("\nEND\n"), "the emulated machine did not come to its end");
    let mut cases = BTreeMap::new();
    let mut now: Option<(String, Case)> = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("BEGIN ") {
            assert!(now.is_none(), "{name} begins in another case");
            now = Some((name.to_owned(), Case { out: String::new(), err: String::new(), exit: -1 }));
        } else if let Some((name, case)) = now.as_mut() {
            if let Some(code) = line.strip_prefix("EXIT ") {
                case.exit = code.parse().expect("a number");
                let (name, case) = (name.clone(), now.take().expect("a case").1);
                assert!(cases.insert(name.clone(), case).is_none(), "{name} twice");
            } else if let Some(err) = line.strip_prefix("! ") {
                case.err.push_str(err);
                case.err.push('\n');
            } else {
                case.out.push_str(line);
                case.out.push('\n');
            }
        }
    }
    Some(cases)
}

fn set(value: &Value) -> Vec<u64> {
    value.as_array().expect("a list").iter().map(|v| v.as_u64().expect("a pCPU")).collect()
}

/// Of a run of one policy: its reclaims while all stood still, and the line about those while all moved.
fn split(lines: &[Value]) -> (Vec<&Value>, &Value) {
    for line in lines {
        assert_eq!(line["schema"], "sevsim.native/1");
        assert_eq!(line["emulated"], true, "its times mean nothing, and it must say so");
    }
    let (last, held) = lines.split_last().expect("lines");
    assert_eq!(last["phase"], "moving");
    assert!(held.iter().all(|l| l["phase"] == "held"));
    (held.iter().collect(), last)
}

/// What holds of every policy: the module did what its program asks for, and saw each entry that the kernel counted.
fn as_asked(lines: &[Value]) {
    let (held, moving) = split(lines);
    for line in held {
        assert_eq!(line["flushed"], line["predicted"], "{line}");
        assert_eq!(line["flushed"], line["asked"], "{line}");
        assert_eq!(line["probed"], line["entered"], "{line}");
    }
    assert_eq!(moving["entries_probed"], moving["entries_counted_by_kernel"], "{moving}");
    assert_eq!(
        (&moving["asked_not_flushed"], &moving["refused"]),
        (&Value::from(0), &Value::from(0)),
        "{moving}"
    );
    assert_eq!(
        (&moving["as_asked"], &moving["complete"]),
        (&Value::from(true), &Value::from(true)),
        "{moving}"
    );
}

fn instruction_is(lines: &[Value], name: &str) {
    let flushing = |l: &&Value| l["phase"] == "held" && l["flushed"] != Value::Array(vec![]);
    assert!(lines.iter().filter(flushing).all(|l| l["instruction"] == name), "{lines:#?}");
}

#[test]
fn the_emulated_run() {
    let Some(cases) = cases("results") else { return };
    let case = |name: &str| cases.get(name).unwrap_or_else(|| panic!("no case {name} in the results"));
    let native = |name: &str, exit: i32| {
        let case = case(name);
        assert_eq!(case.exit, exit, "{case:#?}");
        case.json()
    };

    // The levels, before and after the modules.
    let probe = |name: &str| case(name).json()[0]["levels"].as_array().expect("levels").clone();
    assert_eq!(probe("probe-bare")[1]["have"], false);
    assert_eq!(probe("probe-bare")[2]["have"], false);
    let levels = probe("probe");
    assert!((0..3).all(|n| levels[n]["have"] == true) && levels[3]["have"] == false, "{levels:#?}");
    let wbnoinvd = case("probe").json()[0]["wbnoinvd"] == true;
    let keeping = if wbnoinvd { "WBNOINVD" } else { "WBINVD" };

    // The marks of VMRUN: exactly the pCPUs on which the VM was entered, by the kernel's count, are flushed.
    let sticky = native("native-sticky-wbnoinvd", 0);
    as_asked(&sticky);
    instruction_is(&sticky, keeping);
    let (held, moving) = split(&sticky);
    assert_eq!(held.len(), 20);
    for line in &held {
        assert_eq!(line["flushed"], line["entered"], "{line}");
    }
    // The first reclaims are of VMs that were not everywhere yet.
    assert!(held.iter().any(|l| set(&l["flushed"]).len() < 4), "every reclaim flushed everything");
    assert!(held.iter().any(|l| set(&l["flushed"]).len() > 1));
    assert_eq!((&moving["reclaims"], &moving["reclaims_that_missed"]), (&Value::from(200), &Value::from(0)));

    // Marks that handlers clear: less than ever entered, and yet nothing missed.
    let clearing = native("native-clear-in-handler", 0);
    as_asked(&clearing);
    instruction_is(&clearing, keeping);
    let (held, moving) = split(&clearing);
    assert!(held.iter().any(|l| set(&l["flushed"]).len() < set(&l["entered"]).len()));
    assert!(held.iter().all(|l| l["missed"] == Value::Array(vec![])));
    assert_eq!(moving["reclaims_that_missed"], 0);

    // No marks: every pCPU, by WBINVD.
    let all = native("native-all-wbinvd", 0);
    as_asked(&all);
    instruction_is(&all, "WBINVD");
    assert!(split(&all).0.iter().all(|l| set(&l["flushed"]) == [0, 1, 2, 3]));

    // Nothing: every pCPU that was entered is missed.
    let none = native("native-no-flush", 3);
    as_asked(&none);
    for line in split(&none).0 {
        assert_eq!((set(&line["flushed"]).len(), &line["missed"]), (0, &line["entered"]), "{line}");
    }

    // Every policy that can run does what its program asks for; some are broken, so the exit is 3.
    let every = native("native-every", 3);
    let mut policies: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in every {
        policies.entry(line["policy"].as_str().expect("a name").to_owned()).or_default().push(line);
    }
    assert!(policies.len() > 20, "{:?}", policies.keys());
    policies.values().for_each(|lines| as_asked(lines));

    // Refusals: no module, another text of the name, what no hardware can, not root.
    for (name, exit, said) in [
        ("native-absent", 6, "the helper module is not loaded"),
        ("native-other-text", 6, "build it again"),
        ("native-oracle", 2, "it asks for the set of dirty lines, which no hardware tells"),
        ("not-root", 6, "only root (CAP_SYS_RAWIO) may"),
        ("not-root-open-device", 6, "only root (CAP_SYS_RAWIO) may"),
    ] {
        assert_eq!(case(name).exit, exit, "{:#?}", case(name));
        case(name).says(&[said]);
    }
    case("not-root").says(&["Permission denied"]);
    case("not-root-open-device").says(&["Operation not permitted"]);
    // Bad masks, an unknown instruction and its like: the package's own tests, in there.
    assert_eq!(case("selftest").exit, 0, "{:#?}", case("selftest"));
    case("selftest")
        .says(&["what_makes_no_sense_is_refused ... ok", "exactly_the_pcpus_asked_for_execute ... ok"]);

    // So do those of encrypted guests: nothing of them is skipped here, where there are KVM, tracefs and kprobes.
    let sev = case("selftest-sev");
    assert_eq!(sev.exit, 0, "{sev:#?}");
    assert!(!sev.err.contains("skipped") && !sev.out.contains("skipped"), "{sev:#?}");
    sev.says(&[
        "wbinvd_on_all_cpus: watched",
        "__wbinvd: watched",
        "sev_guest_memory_reclaimed: watched",
        "wbnoinvd_on_cpus_mask: not watched: this kernel has no such function",
        "__wbnoinvd: not watched: this kernel has no such function",
    ]);

    // The calibration measures write-backs, and says what they are worth. On a slow machine its time runs out: then it is
    // interrupted, and keeps what it has.
    let complete = match case("calibrate").exit {
        0 => "complete = true",
        75 => "complete = false",
        _ => panic!("{:#?}", case("calibrate")),
    };
    case("profile").says(&[
        complete,
        "wbinvd_clean = {",
        "wbinvd_walk = {",
        "wbinvd_fixed = { value = 0.000, low = 0.000, high = 0.000, unit = \"ns\", samples = 0, tagged = 0, derived = true",
        "\"flush.wbinvd_fixed\" = \"it cannot be told from the walk on one host",
        "wbinvd_other_cores_lines = {",
        "wbinvd_ccx_at_once = {",
        "wbinvd_refill_line = {",
        "ipi_round_trip_all = {",
        "under_hypervisor = \"TCGTCGTCGTCG\"",
        "EMULATED (TCGTCGTCGTCG): this processor is software; its times mean nothing",
    ]);

    // Killed and interrupted in the middle: the module is free again, does its work, and can be unloaded.
    case("killed").says(&["ended with 137"]);
    case("interrupted").says(&["ended with 75", "interrupted; what was done is printed"]);
    as_asked(&native("native-after-kill", 0));
    let loaded = |name: &str| case(name).out.contains("sevsim_flush ");
    assert!(!loaded("modules-after"), "what the program loaded, it unloads");
    assert!(loaded("modules"));
    assert_eq!(case("unload").exit, 0, "{:#?}", case("unload"));
    assert!(!loaded("modules-end"));

    // Loops of a policy's text end: in time, at a kill, and with four write-backs a pCPU.
    assert_eq!(case("native-spin").exit, 6, "{:#?}", case("native-spin"));
    case("native-spin").says(&["a loop of the policy's text did not end by itself"]);
    for name in ["killed-in-loop", "killed-into-loop"] {
        case(name).says(&["ended with 137 after", "unloaded: 0 left"]);
    }
    // Its own time ends the latter, not the kill.
    let seconds = case("killed-into-loop").out.split_once("after ").and_then(|t| t.1.split(' ').next());
    assert!(seconds.and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| n > 2), "{seconds:?}");
    assert_eq!(case("selftest-loops").exit, 0, "{:#?}", case("selftest-loops"));
    case("selftest-loops").says(&["4 passed"]);
    let many = native("native-many", 1);
    let (reclaims, refused) = (&many[0]["reclaims"], many[0]["refused"].as_u64().expect("a number"));
    // Of 40 each; fewer than four where one was seen to last long.
    assert!(*reclaims == 3 && (3 * 36..3 * 40).contains(&refused), "{many:#?}");
    case("native-many").says(&["refused"]);
    assert_eq!(case("kernel-log").out, "", "the kernel complains");
}

#[test]
fn the_emulated_run_with_two_sockets() {
    let Some(cases) = cases("results-sockets") else { return };
    let case = |name: &str| cases.get(name).unwrap_or_else(|| panic!("no case {name} in the results"));
    let probe = &case("probe").json()[0];
    assert_eq!(
        [&probe["pcpus"], &probe["l3s"], &probe["sockets"], &probe["wbnoinvd"]],
        [&Value::from(8), &Value::from(4), &Value::from(2), &Value::from(false)]
    );

    // Without WBNOINVD the policy that asks for it gets WBINVD, on the same pCPUs.
    let sticky = case("native-sticky-wbnoinvd").json();
    as_asked(&sticky);
    instruction_is(&sticky, "WBINVD");
    let (held, _) = split(&sticky);
    for line in &held {
        assert_eq!(line["flushed"], line["entered"], "{line}");
    }
    assert!(held.iter().any(|l| set(&l["flushed"]).iter().any(|p| *p > 3)), "none on the second socket");

    // What needs another L3, another socket or another node is measured. How many pCPUs an emulation runs at once is up to its
    // host, so what needs all of them at once may have too few samples.
    let complete = match case("calibrate").exit {
        0 => "complete = true",
        75 => "complete = false",
        _ => panic!("{:#?}", case("calibrate")),
    };
    case("profile").says(&[
        complete,
        "governor = \"performance\"",
        "\nother_ccx = {",
        "\nother_socket = {",
        "\ndram_remote = {",
        "\nipi_round_trip_other_ccx = {",
        "\nipi_round_trip_other_socket = {",
        "\nwbinvd_ccx_at_once = {",
        "\nwbinvd_one_per_ccx_at_once = {",
        "\nwbinvd_other_cores_lines = {",
        "\nwbinvd_remote_lines = {",
        "name = \"one-pcpu-per-ccx\"",
        "name = \"dirty-other-core\"",
        "name = \"dirty-other-ccx\"",
        "name = \"dirty-other-socket\"",
        "name = \"dirty-remote\"",
    ]);

    // Put back in the end, and when somebody does not wait for it.
    assert_eq!(case("governors-after").out, "governors schedutil schedutil\n");
    assert!(!case("modules-after").out.contains("sevsim_flush "));
    for name in ["interrupted-twice", "ended-twice"] {
        assert_eq!(
            case(name).out,
            "meanwhile: governors performance performance, modules 1\n\
             ended with 130\n\
             then: governors schedutil schedutil, modules 0\n"
        );
    }
    assert_eq!(case("kernel-log").out, "", "the kernel complains");
}
