//! Probe and calibration: scripted hosts for every level, and whatever host this runs on.

use std::process::{Command, Stdio};

use crate::program::{Folder, command, ran, sevsim, sevsim_in};

/// CPUID of a Milan part without a hypervisor.
const MILAN: &str = "
    00000000 0 10 68747541 444d4163 69746e65
    00000001 0 00a00f11 0 0 0
    80000000 0 80000023 0 0 0
    80000001 0 0 0 4 8000000
    80000007 0 0 0 0 100
    80000008 0 3030 2200 0 0
    8000001d 0 121 1c0003f 3f 0
    8000001f 0 101fd3f 4173 1fd 1
";

fn host(cpuid: &str, files: &[(&str, &str)]) -> Folder {
    let folder = Folder::new();
    folder.file("cpuid", cpuid);
    for (path, text) in files {
        let path = folder.path.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("can be made");
        std::fs::write(path, text).expect("can be written");
    }
    folder
}

/// What is said of a level: whether it is there, why, and how to get it.
fn level(folder: &Folder, n: usize) -> (bool, String, String) {
    let ran = sevsim_in(folder, &["probe", "--root", ".", "--format", "json"]).ends(0);
    let level = &ran.json()[0]["levels"][n];
    let text = |key: &str| level[key].as_str().expect("a text").to_owned();
    (level["have"].as_bool().expect("a truth"), text("why"), text("how"))
}

const ONLINE: (&str, &str) = ("sys/devices/system/cpu/online", "0-1\n");
const KVM: (&str, &str) = ("dev/kvm", "vm_types 1d\nencrypt ok\n");
const PARAMETER: (&str, &str) = ("sys/module/kvm_amd/parameters/sev", "Y\n");
const SEV: (&str, &str) = ("dev/sev", "");

#[test]
fn a_host_with_everything_has_every_level() {
    let host = host(MILAN, &[ONLINE, KVM, PARAMETER, SEV, ("dev/sevsim_flush", "")]);
    for n in 0..4 {
        let (have, why, how) = level(&host, n);
        assert!(have && how.is_empty(), "L{n}: {why}; {how}");
    }
    assert_eq!(level(&host, 3).1, "SEV, SEV-ES, SEV-SNP, 509 ASIDs, /dev/sev opens");
}

#[test]
fn the_first_missing_link_of_sev_is_named() {
    let why = |cpuid: &str, files: &[(&str, &str)], said: &str| {
        let (have, why, how) = level(&host(cpuid, files), 3);
        assert!(!have && why.contains(said) && !how.is_empty(), "{why}; {how}");
    };
    why(&MILAN.replace("80000023", "8000000a"), &[], "above the maximum 8000000a");
    why(&MILAN.replace("101fd3f", "0"), &[], "EAX is 00000000: no SEV");
    why(&MILAN.replace("1fd 1", "0 0"), &[], "ECX is 0");
    why(MILAN, &[], "kvm_amd is not loaded");
    why(MILAN, &[(PARAMETER.0, "N\n")], "kvm_amd runs with sev=N");
    why(MILAN, &[PARAMETER], "there is no /dev/sev");
    why(MILAN, &[PARAMETER, SEV], "there is no /dev/kvm");
    let plain = ("dev/kvm", "vm_types 1\nencrypt Inappropriate ioctl\n");
    why(MILAN, &[PARAMETER, SEV, plain], "VM types 0x1; a SEV command gives: Inappropriate ioctl");
    let old = ("dev/kvm", "vm_types 0\nencrypt ok\n");
    assert!(level(&host(MILAN, &[PARAMETER, SEV, old]), 3).0);
}

#[test]
fn the_other_levels_say_what_they_lack() {
    let lacks = |n: usize, cpuid: &str, files: &[(&str, &str)], said: &str, todo: &str| {
        let (have, why, how) = level(&host(cpuid, files), n);
        assert!(!have && why.contains(said) && how.contains(todo), "{why}; {how}");
    };
    lacks(0, &MILAN.replace("0 0 0 100", "0 0 0 0"), &[ONLINE], "8000_0007", "invariant TSC");
    lacks(0, &MILAN.replace("8000000\n", "0\n"), &[ONLINE], "no RDTSCP", "a CPU");
    lacks(1, MILAN, &[], "no /dev/kvm", "load kvm_amd");
    lacks(1, &MILAN.replace("80000001 0 0 0 4 8000000", ""), &[], "no /dev/kvm", "firmware's setup");
    let guest =
        MILAN.replace("00a00f11 0 0 0", "00a00f11 0 80000000 0").replace("80000001 0 0 0 4 8000000", "");
    lacks(1, &guest, &[], "no /dev/kvm", "let this VM nest");
    lacks(1, MILAN, &[("dev/kvm", "error no right to open /dev/kvm")], "no right", "group");
    lacks(2, MILAN, &[], "loads none", "CONFIG_MODULES");
    let modules = ("proc/modules", "");
    lacks(2, MILAN, &[modules], "not loaded", "insmod");
    let locked = ("sys/kernel/security/lockdown", "none [integrity] confidentiality");
    lacks(2, MILAN, &[modules, locked], "locked down", "sign it");
    let off = ("proc/sys/kernel/modules_disabled", "1\n");
    lacks(2, MILAN, &[modules, off], "modules_disabled is 1", "boot again");
    let signed = ("sys/module/module/parameters/sig_enforce", "Y\n");
    lacks(2, MILAN, &[modules, signed], "only signed modules load", "sign it");
    let intel = |vmx: &str| {
        let vendor = "00000000 0 10 756e6547 6c65746e 49656e69";
        MILAN
            .replace("00000000 0 10 68747541 444d4163 69746e65", vendor)
            .replace("00a00f11 0 0 0", &format!("000806f8 0 {vmx} 0"))
            .replace("80000001 0 0 0 4 8000000", "")
    };
    lacks(1, &intel("20"), &[], "no /dev/kvm", "load kvm_intel");
    lacks(1, &intel("0"), &[], "no /dev/kvm", "VMX on in the firmware");
    lacks(1, &intel("80000000"), &[], "no /dev/kvm", "let this VM nest (its CPUID 1 ECX[5], VMX");
}

#[test]
fn a_bad_tree_is_named() {
    let folder = Folder::new();
    sevsim_in(&folder, &["probe", "--root", "."]).ends(2).says(&["cpuid: cannot be read"]);
    folder.file("cpuid", "1 2 3\n");
    sevsim_in(&folder, &["probe", "--root", "."]).ends(2).says(&["line 1: expected LEAF"]);
}

#[test]
fn this_host_is_probed_without_failing() {
    let ran = sevsim(&["probe"]).ends(0);
    for level in ["L0 user space", "L1 KVM", "L2 helper module", "L3 SEV"] {
        assert!(ran.out.contains(level), "{}", ran.out);
    }
    let json = sevsim(&["probe", "--format", "json"]).ends(0).json();
    assert_eq!(json[0]["schema"], "sevsim.probe/1");
    assert_eq!(json[0]["in_a_vm"].as_bool(), Some(ran.out.contains("IN A VM")));
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_that_may_not_use_all_pcpus_says_so() {
    let all = sevsim(&["probe", "--format", "json"]).ends(0).json()[0]["pcpus"].as_u64().expect("a number");
    let first = |args: &[&str]| {
        let mut command = Command::new("taskset");
        command.args(["-c", "0", env!("CARGO_BIN_EXE_sevsim")]).args(args);
        ran(command.output().expect("taskset runs")).ends(0)
    };
    let json = &first(&["probe", "--format", "json"]).json()[0];
    assert_eq!((json["pcpus"].as_u64(), json["usable_pcpus"].as_u64()), (Some(all), Some(1)));
    if all > 1 {
        let out = first(&["probe"]).out;
        assert!(
            out.contains("may use 1 of them: 0") && out.contains("of which this process may use 1"),
            "{out}"
        );
        let dry = first(&["native", "--dry-run", "--policy", "no-flush"]).out;
        assert!(dry.contains(&format!("the 1 of the host's {all} pCPUs that this process may use")), "{dry}");
    }
}

const PROFILE: &str = r#"schema = "sevsim.profile/1"
kind = "quick"
complete = true

[host]
name = "bench7"
kernel = "6.12"
cpu = "AMD EPYC 9654"
date = "2026-11-24T12:00:00Z"
under_hypervisor = "none"

[flush]
clflush_dirty = { value = 3.5, low = 3, high = 4.25, unit = "ns", samples = 300, tagged = 2, method = "a loop" }

[other]
clwb_dirty = { value = 2, low = 2, high = 2, unit = "ns", samples = 1, tagged = 0, method = "a loop" }
"#;

#[test]
fn a_profile_takes_the_place_of_a_parts_numbers() {
    let folder = Folder::new();
    folder.file("p.toml", PROFILE);
    let sheet = sevsim_in(&folder, &["show", "part", "genoa", "--profile", "p.toml"]).ends(0).out;
    let row = sheet.lines().find(|l| l.starts_with("flush.clflush_dirty ")).expect("its row");
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..6], ["flush.clflush_dirty", "3", "3.5", "4.25", "ns", "M"]);
    assert!(sheet.contains("Measured: 1 of 39 numbers"), "{sheet}");
    assert!(!["IN A VM", "INCOMPLETE", "QUIET"].iter().any(|said| sheet.contains(said)), "{sheet}");
    // One that was cut short, on a host that was not quiet, with a number that was not measured.
    let derived = "\nwbinvd_fixed = { value = 0, low = 0, high = 0, unit = \"ns\", samples = 0, tagged = 0, derived = true, \
                   method = \"x\" }\n\n[other]";
    let noise = "[noise]\nquiet = false\nsaid = \"NOT QUIET, others\"\n\n[flush]";
    let cut = PROFILE
        .replace("complete = true", "complete = false")
        .replace("[flush]", noise)
        .replace("\n[other]", derived);
    folder.file("cut.toml", cut);
    let sheet = sevsim_in(&folder, &["show", "part", "genoa", "--profile", "cut.toml"])
        .ends(0)
        .out
        .replace('\n', " ");
    for said in [
        "Measured: 1 of 39 numbers",
        "and from how these are taken follow flush.wbinvd_fixed",
        "INCOMPLETE: the calibration was interrupted.",
        "The host was NOT QUIET, others.",
    ] {
        assert!(sheet.contains(said), "{said}: {sheet}");
    }

    let args = ["compare", "--accesses", "2000", "--policy", "no-flush", "--part", "genoa"];
    let with = [&args[..], &["--profile", "p.toml"]].concat();
    let out = sevsim_in(&folder, &with).ends(0).out;
    assert!(out.contains("Measured: 1 of 39 numbers are those of bench7"), "{out}");
    let json = sevsim_in(&folder, &[&with[..], &["--format", "json"]].concat()).ends(0).json();
    assert_eq!(json[0]["measured"]["numbers"][0], "flush.clflush_dirty");
    assert_eq!(json[0]["measured"]["hypervisor"], serde_json::Value::Null);
    assert!(sevsim(&[&args[..], &["--format", "json"]].concat()).json()[0].get("measured").is_none());

    // It is calculated with them: an IPI that takes 100 us makes a flush of all pCPUs take longer.
    let slow = "\n[ipi]\nsame_socket = { value = 100000, low = 100000, high = 100000, unit = \"ns\", samples = 1, tagged = 0, \
                method = \"a loop\" }\n";
    folder.file("slow.toml", format!("{PROFILE}{slow}"));
    let run = "run numa-churn --policy all-wbinvd --part genoa --accesses 100000 --format json --profile";
    let latency = |profile: &str| {
        let args: Vec<&str> = run.split(' ').chain([profile]).collect();
        let json = sevsim_in(&folder, &args).ends(0).json();
        json[0]["cost"]["flush_latency_ns"]["p50"].as_u64().expect("a time")
    };
    let (quick, slow) = (latency("p.toml"), latency("slow.toml"));
    assert!(quick > 0 && slow > quick + 90_000, "{quick} {slow}");

    let csv = |profile: &[&str]| {
        let args = [&args[..], profile, &["--format", "csv"]].concat();
        let out = sevsim_in(&folder, &args).ends(0).out;
        assert!(out.lines().next().is_some_and(|head| head.ends_with(",measured_numbers,emulated")), "{out}");
        out.lines()
            .nth(1)
            .map(|row| row.rsplitn(3, ',').take(2).collect::<Vec<_>>().join(","))
            .expect("a row")
    };
    assert_eq!(csv(&[]), "false,0");
    assert_eq!(csv(&["--profile", "p.toml"]), "false,1");
    folder.file("tcg.toml", PROFILE.replace("\"none\"", "\"TCGTCGTCGTCG\""));
    assert_eq!(csv(&["--profile", "tcg.toml"]), "true,1");

    // Levels that no host has in this order: an L3 nearer than the L2, and farther than the memory.
    let level = |ns: &str| {
        let l3 = format!(
            "\n[latency]\nl3_hit = {{ value = {ns}, low = {ns}, high = {ns}, unit = \"ns\", samples = 9, tagged = 0, \
             method = \"a chase\" }}\n"
        );
        folder.file("l3.toml", format!("{PROFILE}{l3}"));
        sevsim_in(&folder, &["show", "part", "genoa", "--profile", "l3.toml"]).ends(0).out.replace('\n', " ")
    };
    assert!(!level("14").contains("OUT OF ORDER"));
    assert!(level("1").contains("OUT OF ORDER: latency.l2_hit is above latency.l3_hit,"));
    assert!(level("500").contains("OUT OF ORDER: latency.l3_hit is above latency.dram_local,"));

    folder.file("vm.toml", PROFILE.replace("\"none\"", "\"KVMKVMKVM\""));
    let sheet = sevsim_in(&folder, &["show", "part", "genoa", "--profile", "vm.toml"]).ends(0).out;
    assert!(sheet.contains("IN A VM (KVMKVMKVM)"), "{sheet}");
}

#[test]
fn profiles_that_are_wrong() {
    let folder = Folder::new();
    for (text, said) in [
        (PROFILE.replace("profile/1", "profile/9"), "bad.toml:1:10: `schema` is \"sevsim.profile/9\""),
        (PROFILE.replace("clflush_dirty", "clflush_wet"), "bad.toml:13:1: `flush.clflush_wet` is not a key"),
        (
            PROFILE.replace("value = 3.5", "value = 5"),
            "bad.toml:13:17: `flush.clflush_dirty` is out of order",
        ),
        (PROFILE.replace("unit = \"ns\"", "unit = \"GHz\""), "bad.toml:13:"),
        (PROFILE.replace("[host]", "[guest]"), "`host` is missing"),
        (PROFILE.replace("complete = true", "complete = \"no\""), "`complete` is a string"),
        (PROFILE.replace("complete = true\n", ""), "`complete` is missing"),
        (
            PROFILE[..PROFILE.find("[flush]").expect("there")].to_owned(),
            "this profile has no number of a part",
        ),
        ("= =".to_owned(), "bad.toml:1:"),
        (String::new(), "the file is empty"),
    ] {
        folder.file("bad.toml", text);
        let ran = sevsim_in(&folder, &["compare", "--accesses", "2000", "--profile", "bad.toml"]);
        ran.ends(2).says(&[said]);
    }
    sevsim_in(&folder, &["compare", "--profile", "none.toml"]).ends(2).says(&["none.toml"]);
    folder.file("p.toml", PROFILE);
    sevsim_in(&folder, &["show", "policy", "no-flush", "--profile", "p.toml"]).ends(2).says(&["--profile"]);
    sevsim_in(&folder, &["show", "part", "rome", "--text", "--profile", "p.toml"]).ends(2);
}

/// A profile whose held-out measurements the model meets, misses, and cannot judge.
const HELD_OUT: &str = r#"
[[held_out]]
dirty = 100
clean = 0
absent = 0
value = 450
low = 440
high = 460
unit = "ns"

[[held_out]]
dirty = 100
clean = 0
absent = 0
value = 4500
low = 4400
high = 4600
unit = "ns"

[[held_out]]
chase_kib = 8
value = 1
low = 0.5
high = 2
unit = "ns"
"#;

#[test]
fn predictions_are_compared_with_what_was_held_out() {
    let folder = Folder::new();
    folder.file("p.toml", format!("{PROFILE}{HELD_OUT}"));
    let json = sevsim_in(&folder, &["validate", "p.toml", "--format", "json"]).ends(3).json();
    let outcomes: Vec<&str> = json.iter().map(|l| l["outcome"].as_str().expect("a word")).collect();
    assert_eq!(outcomes, ["met", "missed", "noisy"]);
    // 100 lines at 3.5 ns, and genoa's own 100 to 200 ns for the fence.
    let predicted = json[0]["predicted_ps"].as_u64().expect("a time");
    assert!((450_000..560_000).contains(&predicted), "{predicted}");
    let out = sevsim_in(&folder, &["validate", "p.toml"]).ends(3).out;
    assert!(out.contains("MISSED") && out.contains("too noisy to say"), "{out}");
    assert_eq!(sevsim_in(&folder, &["validate", "p.toml", "--format", "csv"]).ends(3).out.lines().count(), 4);

    // A host that was not quiet says nothing of a miss.
    let noise = "\n[noise]\nquiet = false\nsaid = \"NOT QUIET, others\"\n";
    folder.file("noisy.toml", format!("{PROFILE}{noise}{HELD_OUT}"));
    let ran = sevsim_in(&folder, &["validate", "noisy.toml"]).ends(0);
    assert!(!ran.out.contains("MISSED") && ran.out.contains("The host was NOT QUIET, others"), "{}", ran.out);

    folder.file("none.toml", PROFILE);
    sevsim_in(&folder, &["validate", "none.toml"]).ends(2).says(&["no held-out measurements"]);
    for (bad, said) in [
        (HELD_OUT.replace("chase_kib = 8", "chase_kib = 0"), "chase_kib = 0"),
        (HELD_OUT.replace("value = 450\n", "value = 4\n"), "low <= value <= high"),
        (HELD_OUT.replace("unit = \"ns\"", "unit = \"s\""), "expected \"ns\""),
        (HELD_OUT.replace("dirty = 100", "dirty = 99999999"), "at most 1048576"),
        (HELD_OUT.replace("value = 450\n", ""), "value"),
    ] {
        folder.file("bad.toml", format!("{PROFILE}{bad}"));
        sevsim_in(&folder, &["validate", "bad.toml"]).ends(2).says(&["bad.toml", said]);
    }
}

#[test]
fn a_dry_run_says_what_is_done_what_is_not_and_why_and_measures_nothing() {
    let folder = Folder::new();
    let ran = sevsim_in(&folder, &["calibrate", "--dry-run", "--out", "p.toml"]).ends(0);
    for said in ["L0 clock", "L1 guests", "L3 sev", "affinity ", "governor ", "profile to p.toml"] {
        assert!(ran.out.contains(said), "{}", ran.out);
    }
    // A level that the probe does not find is said not to be there, with the probe's words.
    let probe = sevsim(&["probe", "--format", "json"]).ends(0).json();
    let level = &probe[0]["levels"][3];
    let sev = ran.out.lines().find(|l| l.starts_with("L3 sev")).expect("its line");
    let why = level["why"].as_str().expect("a text");
    assert_eq!(sev.contains(&format!("HERE NOT: {why}")), level["have"] == false, "{sev}");
    assert!(!folder.path.join("p.toml").exists());
    // So is what was asked for: a module, a place, a clock.
    folder.file("x.ko", "no module");
    let args =
        ["--load-module", "x.ko", "--out", "/proc/none/p.toml", "--record-sev", ".", "--governor", "no-such"];
    let ran = sevsim_in(&folder, &[&["calibrate", "--dry-run"], &args[..]].concat()).ends(0);
    for said in ["--out /proc/none/p.toml: cannot", "--record-sev .: this is a dir", "--governor"] {
        assert!(ran.out.contains(&format!("HERE NOT: {said}")), "{said}: {}", ran.out);
    }
    if !std::path::Path::new("/dev/sevsim_flush").exists() {
        for command in ["calibrate", "native"] {
            let ran = sevsim_in(&folder, &[command, "--dry-run", "--load-module", "x.ko"]).ends(0);
            let said = "HERE NOT: --load-module x.ko: this is no module of a kernel";
            assert!(ran.out.contains(said), "{}", ran.out);
        }
    }
}

#[test]
fn what_a_calibration_may_not_do_ends_it_before_it_begins() {
    let folder = Folder::new();
    let refused = |args: &[&str], code: i32, said: &str| {
        let ran = sevsim_in(&folder, &[&["calibrate", "--quick"], args].concat());
        ran.ends(code).says(&[said]);
    };
    refused(&["--governor", "no-such-governor"], 6, "--governor");
    refused(&["--out", "."], 2, "--out .: this is a directory");
    refused(&["--out", "none/p.toml"], 2, "--out none/p.toml: cannot be written");
    refused(&["--record-sev", "."], 2, "--record-sev .: this is a directory");
    if !std::path::Path::new("/dev/sevsim_flush").exists() {
        folder.file("x.ko", "no module");
        refused(&["--load-module", "none.ko"], 2, "--load-module none.ko: No such file");
        refused(&["--load-module", "x.ko"], 2, "x.ko: this is no module of a kernel");
        let native = ["native", "--policy", "no-flush", "--load-module", "x.ko"];
        sevsim_in(&folder, &native).ends(2).says(&["x.ko: this is no module of a kernel"]);
    }
}

#[test]
fn calibrations_are_compared_with_each_other() {
    let folder = Folder::new();
    let profile = |quiet: bool, dirty: &str| {
        let noise = format!("[noise]\nquiet = {quiet}\nsaid = \"as it was\"\n\n[flush]");
        PROFILE.replace("[flush]", &noise).replace("value = 3.5", &format!("value = {dirty}"))
    };
    folder.file("a.toml", profile(true, "3.5"));
    folder.file("near.toml", profile(true, "3.6"));
    folder.file("far.toml", profile(true, "4.2").replace("value = 2, low", "value = 1, low"));
    folder.file("noisy.toml", profile(false, "4.2").replace("value = 2, low", "value = 1, low"));
    let against = |other: &str, code: i32| {
        sevsim_in(&folder, &["validate", "a.toml", "--against", other]).ends(code).out
    };
    let near = against("near.toml", 0);
    assert!(
        near.contains("median difference 2.8 %, of 2 numbers; 0 of them differ by more than 25 %"),
        "{near}"
    );
    let far = against("far.toml", 3);
    assert!(far.contains("1 of them differ by more than 25 %"), "{far}");
    assert!(far.contains("+20.0%") && far.contains("-50.0%") && far.contains("second: as it was"), "{far}");
    against("noisy.toml", 5);
    let args = ["validate", "a.toml", "--against", "near.toml", "--format", "json"];
    let json = sevsim_in(&folder, &args).ends(0).json();
    assert_eq!((&json[0]["schema"], &json[0]["difference_permille"]), (&"sevsim.agree/1".into(), &28.into()));
    assert_eq!(sevsim_in(&folder, &[&args[..5], &["csv"]].concat()).ends(0).out.lines().count(), 3);
    folder.file("other.toml", "schema = \"x\"");
    sevsim_in(&folder, &["validate", "a.toml", "--against", "other.toml"])
        .ends(2)
        .says(&["other.toml", "sevsim.profile/1"]);
}

#[test]
fn a_profile_that_does_not_know_its_numbers_well_is_unsure_and_not_wrong() {
    let folder = Folder::new();
    let held = "\n[[held_out]]\ndirty = 4000\nvalue = 20000\nlow = 19900\nhigh = 20100\nunit = \"ns\"\n";
    let wide = PROFILE.replace("high = 4.25", "high = 5.25");
    let outcome = |text: String, code: i32| {
        folder.file("p.toml", text);
        sevsim_in(&folder, &["validate", "p.toml", "--format", "json"]).ends(code).json()[0]["outcome"]
            .clone()
    };
    // 4000 lines at 3.5 ns are 14 us, at 5.25 ns 21 us.
    assert_eq!(outcome(format!("{PROFILE}{held}"), 3), "missed");
    assert_eq!(outcome(format!("{wide}{held}"), 5), "unsure");
}

#[test]
fn an_interrupted_calibration_keeps_what_it_has_and_can_be_read() {
    if sevsim(&["probe", "--format", "json"]).ends(0).json()[0]["levels"][0]["have"] == false {
        return;
    }
    let folder = Folder::new();
    // An older recording, which nothing takes the place of.
    folder.file("sev.txt", "old");
    let options = ["calibrate", "--record-sev", "sev.txt", "--yes-flush-this-host", "--out", "p.toml"];
    let mut command = command(&options);
    command.current_dir(&folder.path).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the program starts");
    // The profile is written after the first step; a full calibration goes on for minutes.
    for _ in 0..600 {
        if folder.path.join("p.toml").exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
    let ran = ran(child.wait_with_output().expect("the program ends")).ends(75).says(&[
        "interrupted; what was measured is kept in ",
        "sevsim calibrate --yes-flush-this-host --record-sev sev.txt --out p.toml",
    ]);
    assert_eq!(folder.read("sev.txt"), "old");
    assert!(ran.out.contains("core.clock"), "{}", ran.out);
    let text = folder.read("p.toml");
    assert!(text.contains("complete = false") && text.contains("[core]") && !text.contains("[os]"), "{text}");
    assert_eq!(
        std::fs::read_dir(&folder.path).expect("can be listed").count(),
        2,
        "nothing is left beside it"
    );
    let sheet = sevsim_in(&folder, &["show", "part", "genoa", "--profile", "p.toml"]).ends(0).out;
    assert!(sheet.contains("INCOMPLETE"), "{sheet}");
}

#[test]
fn a_second_interrupt_does_not_wait_for_a_calibration_that_is_stuck() {
    if sevsim(&["probe", "--format", "json"]).ends(0).json()[0]["levels"][0]["have"] == false {
        return;
    }
    let folder = Folder::new();
    // Standard error is a pipe that is full, and that nobody reads: the calibration waits at its first word.
    let script = "mkfifo pipe && exec 3<>pipe && head -c 65536 /dev/zero >&3 && exec \"$@\" 2>pipe";
    let mut stuck = Command::new("bash");
    stuck.args([
        "-c",
        script,
        "bash",
        env!("CARGO_BIN_EXE_sevsim"),
        "calibrate",
        "--quick",
        "--out",
        "p.toml",
    ]);
    let mut child = stuck.current_dir(&folder.path).stdout(Stdio::null()).spawn().expect("bash starts");
    let wait = |ms: u64| std::thread::sleep(std::time::Duration::from_millis(ms));
    let runs = format!("/proc/{}/comm", child.id());
    while std::fs::read_to_string(&runs).is_ok_and(|comm| comm.trim() != "sevsim") {
        wait(10);
    }
    wait(500);
    let interrupt = |child: &std::process::Child| {
        let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    };
    interrupt(&child);
    wait(500);
    assert_eq!(child.try_wait().expect("can be asked"), None, "the first is a wish");
    interrupt(&child);
    for _ in 0..100 {
        if child.try_wait().expect("can be asked").is_some() {
            break;
        }
        wait(100);
    }
    let ended = child.try_wait().expect("can be asked");
    drop(child.kill());
    assert_eq!(ended.and_then(|status| status.code()), Some(130));
    let left = std::fs::read_dir(&folder.path).expect("can be listed").flatten().map(|f| f.file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["pipe"]);
}

/// A program that stands for sevsim: `calibrate` writes a profile to `--out` and ends with $CODE.
const STAND_IN: &str = r#"#!/bin/sh
echo "ran $*"
[ "$1" = calibrate ] || exit 0
while [ $# -gt 0 ]; do
    if [ "$1" = --dry-run ]; then exit 0; fi
    if [ "$1" = --out ]; then printf 'quiet = true\ncomplete = true\n' > "$2"; fi
    shift
done
exit "${CODE:-0}"
"#;

/// A file that can be run.
fn program(folder: &Folder, name: &str, text: &str) -> std::path::PathBuf {
    folder.file(name, text);
    let path = folder.path.join(name);
    assert!(Command::new("chmod").arg("+x").arg(&path).status().expect("chmod runs").success());
    path
}

/// Where the jobs are.
const JOBS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/jobs");

#[test]
fn the_job_of_a_host_delivers_what_there_is_and_ends_as_the_calibration_did() {
    let folder = Folder::new();
    let stand_in = program(&folder, "sevsim", STAND_IN);
    let job = format!("{JOBS}/calibrate-host.sh");
    let host = |into: &str, code: &str| {
        let mut command = Command::new("bash");
        command
            .args([&job, into, "--quick"])
            .current_dir(&folder.path)
            .env("SEVSIM", &stand_in)
            .env("CODE", code);
        let ran = ran(command.output().expect("bash runs"));
        let listed = std::fs::read_dir(folder.path.join(into)).into_iter().flatten().flatten();
        let mut kinds: Vec<String> = listed
            .map(|f| {
                f.file_name().to_string_lossy().split_once("Z.").map_or_else(String::new, |n| n.1.to_owned())
            })
            .collect();
        kinds.sort();
        (ran, kinds)
    };
    for into in ["all", "cut", "cannot", "stopped"] {
        std::fs::create_dir(folder.path.join(into)).expect("a folder");
    }
    let (ran, kinds) = host("all", "0");
    ran.ends(0);
    // Whoever may read a file that is made here may read what is delivered.
    folder.file("plain", "");
    let mode = |path: &std::path::Path| {
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).expect("is there").permissions())
    };
    let delivered = std::fs::read_dir(folder.path.join("all")).expect("can be listed").flatten();
    for file in delivered {
        assert_eq!(mode(&file.path()), mode(&folder.path.join("plain")), "{file:?}");
    }
    assert_eq!(kinds, ["again.toml", "log", "probe.json", "toml"]);
    // Interrupted: what there is, and no second one.
    let (ran, kinds) = host("cut", "75");
    ran.ends(75);
    assert_eq!(kinds, ["log", "probe.json", "toml"]);
    let (ran, _) = host("cannot", "6");
    ran.ends(6);
    // Stopped while it only looks: no calibration begins.
    let stopped =
        STAND_IN.replace("exit 0\nwhile", "{ [ \"$*\" != probe ] || kill -INT $PPID; exit 0; }\nwhile");
    program(&folder, "sevsim", &stopped);
    let (ran, kinds) = host("stopped", "0");
    ran.ends(75);
    assert_eq!(kinds, ["log", "probe.json"]);
    let (ran, kinds) = host("none", "0");
    ran.ends(2).says(&["usage"]);
    assert!(kinds.is_empty());
}

/// A program that stands for srun: runs the command once for each of two nodes, and ends as the worst of them. The options are those
/// that the job gives.
const SRUN: &str = r#"#!/bin/sh
[ "$1 $2" = "--kill-on-bad-exit=0 --wait=0" ] || exit 99
shift 2
worst=0
for node in node7 node8; do
    NODE=$node CODE=$(if [ $node = node8 ]; then echo "$OF_NODE8"; fi) "$@" || worst=$?
done
exit $worst
"#;

#[test]
fn the_job_of_a_rack_collects_what_each_node_delivers() {
    let folder = Folder::new();
    program(&folder, "sevsim", STAND_IN);
    program(&folder, "srun", SRUN);
    program(&folder, "uname", "#!/bin/sh\necho \"$NODE\"\n");
    let path = format!("{}:{}", folder.path.display(), std::env::var("PATH").expect("there is one"));
    let rack = |args: &[&str], of_node8: &str| {
        let mut job = Command::new("bash");
        job.arg(format!("{JOBS}/sevsim-calibrate.slurm")).args(args).current_dir(&folder.path);
        job.env("PATH", &path).env("CALIBRATE_HOST", format!("{JOBS}/calibrate-host.sh"));
        ran(job.env("OF_NODE8", of_node8).output().expect("bash runs"))
    };
    let both = rack(&["shared/all", "--quick"], "0").ends(0).out;
    let named = |out: &str, node: &str| {
        out.lines().any(|l| l.starts_with(&format!("  {node}-")) && l.ends_with("complete true, quiet true"))
    };
    assert!(named(&both, "node7") && named(&both, "node8"), "{both}");
    assert_eq!(both.lines().count(), 3, "those of the second round are not listed: {both}");
    // A node that cannot does not keep the other from being collected.
    let one = rack(&["shared/one"], "6").ends(6).out;
    assert!(named(&one, "node7"), "{one}");
    rack(&[], "0").ends(2).says(&["usage: sbatch"]);
}
