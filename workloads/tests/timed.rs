//! Timed runs of several policies are about the same work, the oracle is their floor, and every run ends.

use std::path::Path;

use cache_model::part::Part;
use svm_model::text::{POLICIES, Text, default_kernel};
use svm_model::timed::{Cause, Outcome, Victim};
use workloads::check::NamedText;
use workloads::scenario::{Changes, RunReport, Scenario, ScenarioError};

const TWO: &str = r#"
description = "A guest under reclaim beside one that is not"
part = "genoa"
pcpus = 16

[[vm]]
name = "guest"
vcpus = 3
pcpus = [0, 1, 2, 8, 9]
accesses = 150000
spare_pages = 32
migrate_every = "20000 accesses"
guest = { zipf = { pages = 192, write_percent = 40 } }

[[vm]]
name = "neighbour"
vcpus = 2
pcpus = [3, 4]
accesses = 100000
guest = { uniform = { pages = 128 } }

[[reclaim]]
vm = 0
entry = "madvise_dontneed"
pcpus = [15]
every = "15000 accesses"

[reuse]
after = "5us"
"#;

/// Policies that no litmus test breaks.
const SAFE: &[&str] = &[
    "all-wbinvd",
    "all-wbnoinvd",
    "sticky-wbinvd",
    "sticky-wbnoinvd",
    "sticky-vcpu-load",
    "clear-remark-mutex",
    "clear-in-handler",
];

fn named(t: &Text) -> NamedText {
    NamedText { name: t.name.to_owned(), file: t.file.to_owned(), text: t.text.to_owned() }
}

fn run(text: &str, policy: &str, seed: u64) -> Result<RunReport, ScenarioError> {
    let scenario = Scenario::parse("test.toml", text).unwrap();
    let part = Part::builtin(scenario.part()).unwrap();
    let prepared = scenario.prepare(&part, &Changes::default(), Path::new("."))?;
    let policy = named(POLICIES.iter().find(|p| p.name == policy).unwrap());
    prepared.run(&policy, &named(default_kernel()), seed, None, &mut |_| {})
}

#[test]
fn every_policy_meets_the_same_work() {
    let baseline = run(TWO, "no-flush", 1).unwrap().outcome;
    assert_eq!(baseline.guest_accesses, 3 * 150_000 + 2 * 100_000);
    assert!((28..=32).contains(&baseline.reclaims), "{}", baseline.reclaims);
    for policy in ["all-wbinvd", "sticky-wbnoinvd", "clear-remark", "oracle"] {
        let outcome = run(TWO, policy, 1).unwrap().outcome;
        assert_eq!(outcome.guest_accesses, baseline.guest_accesses, "{policy}");
        assert_eq!((outcome.reclaims, outcome.cost.flush_calls), (baseline.reclaims, baseline.reclaims));
    }
}

#[test]
fn the_oracle_is_the_floor_of_the_policies_that_hold() {
    // Runs drift apart once their flushes take different times, so it is a floor of some runs together, and but for effects
    // of a fifth: docs/MODEL.md, "What is compared".
    let all =
        |policy: &str| -> Vec<_> { (1..=3).map(|seed| run(TWO, policy, seed).unwrap().outcome).collect() };
    let (floor, none) = (all("oracle"), all("no-flush"));
    assert!(floor.iter().zip(&none).all(|(floor, none)| floor.vcpu_cycles > none.vcpu_cycles));
    for policy in SAFE {
        let other = all(policy);
        for (a, b) in floor.iter().zip(&other) {
            assert_eq!(a.cost.flush_calls, b.cost.flush_calls, "{policy}");
        }
        let near = |what: &str, of: fn(&Outcome) -> u64| {
            let (a, b) = (floor.iter().map(of).sum::<u64>(), other.iter().map(of).sum::<u64>());
            assert!(a <= b + b / 5, "{policy}: {what}: {a}, not {b}");
        };
        near("pCPUs flushed", |o| o.cost.pcpus_flushed);
        near("stolen cycles", |o| o.cost.stolen_cycles);
        near("lines written back", |o| o.cost.lines_written_back);
        near("vCPU cycles", |o| o.vcpu_cycles);
    }
}

#[test]
fn a_scenario_says_what_a_flush_acts_on() {
    let with = |scope: &str| {
        let text = TWO.replace("pcpus = 16", &format!("pcpus = 16\nwbinvd_scope = \"{scope}\""));
        run(&text, "all-wbinvd", 1)
    };
    let cost = |scope: &str| with(scope).unwrap().outcome.cost;
    let (core, l3, ccx) = (cost("core"), cost("core+ccx-l3"), cost("ccx"));
    assert_eq!(l3, run(TWO, "all-wbinvd", 1).unwrap().outcome.cost, "the default");
    let each = |c: &svm_model::timed::Cost| c.flush_latency_cycles.iter().sum::<u64>() / c.flush_calls;
    assert!(each(&core) < each(&l3), "no L3 to walk: {core:?} {l3:?}");
    assert!(each(&ccx) > each(&l3), "the tags of eight L2s: {ccx:?} {l3:?}");
    match Scenario::parse("test.toml", &TWO.replace("pcpus = 16", "pcpus = 16\nwbinvd_scope = \"socket\"")) {
        Err(ScenarioError::File { message, .. }) => assert!(message.contains("core+ccx-l3"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_a_flush_no_line_is_written_back_by_one() {
    let cost = run(TWO, "no-flush", 1).unwrap().outcome.cost;
    assert_eq!((cost.flush_calls, cost.lines_written_back, cost.lines_invalidated), (0, 0, 0));
    assert!(cost.lines_clflushed_at_hand_back > 0);
}

#[test]
fn a_guest_that_reclaim_leaves_no_time_is_given_up() {
    let reclaim = TWO.replace("15000 accesses", "5us").replace("pcpus = [15]", "pcpus = [14]");
    let second =
        "[[reclaim]]\nvm = 0\nentry = \"madvise_dontneed\"\npcpus = [15]\nevery = \"5us\"\n\n[reuse]";
    let fast = reclaim.replace("[reuse]", second);
    for policy in ["all-wbinvd", "clear-remark", "flush-then-clear"] {
        match run(&fast, policy, 1) {
            Err(ScenarioError::GivenUp(said)) => assert!(said.contains("`every`"), "{said}"),
            other => panic!("{policy}: {other:?}"),
        }
    }
}

#[test]
fn each_vm_and_each_reclaimer_has_its_own_pace() {
    let second = "[[reclaim]]\nvm = 1\nentry = \"madvise_dontneed\"\npcpus = [14]\nevery = \"50000 accesses\"\n\n[reuse]";
    let text = TWO.replace("[reuse]", second);
    let one = run(TWO, "sticky-wbnoinvd", 1).unwrap().outcome;
    let both = run(&text, "sticky-wbnoinvd", 1).unwrap().outcome;
    assert!((3..=5).contains(&(both.reclaims - one.reclaims)), "{} {}", both.reclaims, one.reclaims);
}

#[test]
fn a_pace_says_what_it_counts() {
    for (wrong, said) in [
        ("15000", "50000 accesses"),
        ("0 accesses", "more than 0"),
        ("0us", "more than 0"),
        ("x accesses", "number"),
    ] {
        match Scenario::parse("test.toml", &TWO.replace("15000 accesses", wrong)) {
            Err(ScenarioError::File { message, .. }) => assert!(message.contains(said), "{message}"),
            other => panic!("{wrong}: {other:?}"),
        }
    }
}

/// A policy that includes the file beside it and keeps flushers apart by the lock that `take` and `give` name.
fn locked(folder: &Path, name: &str, lock: &str, take: &str, give: &str) -> NamedText {
    std::fs::write(folder.join("flush.c"), "static void flush(void) { wbnoinvd_on_all_cpus(); }\n").unwrap();
    let text = format!(
        "#include \"flush.c\"\n{lock}(flushing);\nvoid sev_writeback_caches(struct kvm *kvm)\n{{\n\
         {take}(&flushing);\n\tflush();\n{give}(&flushing);\n}}\n"
    );
    NamedText { name: name.to_owned(), file: folder.join(name).display().to_string(), text }
}

#[test]
fn a_policy_may_include_its_neighbour_and_who_waits_for_a_semaphore_waits_in_time() {
    let folder = std::env::temp_dir().join(format!("sevsim-timed-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let second = "[[reclaim]]\nvm = 1\nentry = \"madvise_dontneed\"\npcpus = [14]\nevery = \"15000 accesses\"\n\n[reuse]";
    let text = TWO.replace("[reuse]", second);
    let scenario = Scenario::parse("test.toml", &text).unwrap();
    let part = Part::builtin(scenario.part()).unwrap();
    let prepared = scenario.prepare(&part, &Changes::default(), Path::new(".")).unwrap();
    let waited = |policy: &NamedText| {
        let run = prepared.run(policy, &named(default_kernel()), 1, None, &mut |_| {});
        let lost = run.unwrap().outcome.lost;
        // Of who flushes, for two VMs, so that they have no other lock together.
        let host = lost.iter().filter(|((_, victim), _)| *victim == Victim::Host);
        host.map(|(_, lost)| lost.to(Cause::LockWait).sum()).sum::<u64>()
    };
    let mutex = waited(&locked(&folder, "mutex.c", "DEFINE_MUTEX", "mutex_lock", "mutex_unlock"));
    let write = waited(&locked(&folder, "write.c", "DECLARE_RWSEM", "down_write", "up_write"));
    let read = waited(&locked(&folder, "read.c", "DECLARE_RWSEM", "down_read", "up_read"));
    std::fs::remove_dir_all(&folder).unwrap();
    // A writer's semaphore is a mutex, to the cycle; readers do not wait for each other.
    assert_eq!(mutex, write);
    assert!(read < mutex, "{read} {mutex}");
}

#[test]
fn an_amount_without_its_unit_and_a_name_twice_are_refused() {
    for (text, said) in [
        (TWO.replace("\"15000 accesses\"", "15000"), "with its unit"),
        (TWO.replace("\"neighbour\"", "\"guest\""), "two VMs are called guest"),
        (TWO.replace("spare_pages = 32", "spare_pages = 99999999999"), "from 0 to 4294967295"),
    ] {
        match Scenario::parse("test.toml", &text) {
            Err(ScenarioError::File { message, .. }) => assert!(message.contains(said), "{message}"),
            other => panic!("{said}: {other:?}"),
        }
    }
}
