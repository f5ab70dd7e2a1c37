//! The host's side of a timed run: who runs where, what reclaims, which devices load the memory.

use std::path::{Path, PathBuf};

use cache_model::part::{Level, Part};
use svm_model::text::{POLICIES, Text, default_kernel};
use svm_model::timed::{Newer, Outcome};
use workloads::check::NamedText;
use workloads::scenario::{BUILTIN, Changes, Scenario, ScenarioError};

fn named(t: &Text) -> NamedText {
    NamedText { name: t.name.to_owned(), file: t.file.to_owned(), text: t.text.to_owned() }
}

fn attempt(text: &str, part: &str, policy: &str, base: &Path) -> Result<Outcome, ScenarioError> {
    let scenario = Scenario::parse("test.toml", text)?;
    let part = Part::builtin(part).unwrap();
    let prepared = scenario.prepare(&part, &Changes::default(), base)?;
    let policy = named(POLICIES.iter().find(|p| p.name == policy).unwrap());
    Ok(prepared.run(&policy, &named(default_kernel()), 1, None, &mut |_| {})?.outcome)
}

fn run(text: &str, policy: &str) -> Outcome {
    attempt(text, "genoa", policy, Path::new(".")).unwrap_or_else(|e| panic!("{e}"))
}

/// vCPUs of one VM on these pCPUs, with more lines at the top, and at the end.
fn guests(vcpus: u16, pcpus: &str, top: &str, end: &str) -> String {
    format!(
        r#"
description = "Some vCPUs"
part = "genoa"
pcpus = 16
{top}

[[vm]]
name = "guest"
vcpus = {vcpus}
pcpus = {pcpus}
accesses = 60000
spare_pages = 32
guest = {{ uniform = {{ pages = 16, write_percent = 50 }} }}

{end}

[reuse]
after = "5us"
"#
    )
}

const FAIR: &str = "scheduler = { fair = { slice = \"20us\" } }";

/// Whether `a` is within so many percent of `b`.
fn near(a: u64, b: u64, percent: u64) -> bool {
    a.abs_diff(b) * 100 <= b * percent
}

#[test]
fn a_fair_scheduler_shares_a_pcpu_out_and_uses_those_that_are_idle() {
    // Long beside a slice and a switch.
    let guests = |vcpus, pcpus, top| guests(vcpus, pcpus, top, "").replace("60000", "300000");
    let alone = run(&guests(1, "[0]", ""), "no-flush").cycles;
    let two = run(&guests(2, "[0]", FAIR), "no-flush");
    assert!(near(two.cycles, 2 * alone, 25), "{} for twice {alone}", two.cycles);
    // Neither waits until the other has ended: both end near the end.
    assert!(two.vcpu_cycles > two.cycles * 18 / 10, "{two:?}");
    // Three on two: 1.5 times as long, which no fixed assignment gives.
    let three = run(&guests(3, "[0, 1]", FAIR), "no-flush").cycles;
    assert!(near(three, alone * 3 / 2, 25), "{three} for one and a half times {alone}");
    // As many as there are pCPUs: nobody waits for another, as if pinned.
    let four = run(&guests(4, "[0, 1, 2, 3]", FAIR), "no-flush").cycles;
    let pinned = run(&guests(4, "[0, 1, 2, 3]", "scheduler = \"pinned\""), "no-flush").cycles;
    assert!(near(four, pinned, 2), "{four} {pinned}");
}

/// Two pCPUs that are both busy, one with a longer queue: at the end of a slice the other takes one over.
#[test]
fn a_fair_scheduler_levels_queues_while_nobody_is_idle() {
    let short = "\n[[vm]]\nname = \"short\"\nvcpus = 3\npcpus = [1]\naccesses = 3000\nguest = { uniform = { pages = 16 } }\n";
    let text = guests(4, "[0, 1]", &format!("{FAIR}\n{short}"), "").replace("60000", "300000");
    let outcome = run(&text, "no-flush");
    // The short ones fill pCPU 1 first, so that the four begin on pCPU 0. Levelled out, they run two and two and end
    // together; if only an idle pCPU took one over, they would end at 1/2, 5/6, 1 and 1 of the time.
    let four = outcome.vcpu_cycles_by_vm[1];
    assert!(four > outcome.cycles * 4 * 95 / 100, "{four} of four times {}", outcome.cycles);
}

/// A folder of this test's own.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("sevsim-host-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

const RECLAIM: &str = "[[reclaim]]\nvm = 0\nsource = \"madvise\"\npcpus = [15]\nevery = \"50000 accesses\"\n";

#[test]
fn a_recorded_schedule_says_where_vcpus_run() {
    let folder = Folder::new("schedule");
    let text = guests(2, "[0, 1, 2, 9]", "scheduler = { recorded = { file = \"moves.csv\" } }", RECLAIM);
    let with = |moves: &str| {
        std::fs::write(folder.0.join("moves.csv"), moves).unwrap();
        attempt(&text, "genoa", "sticky-wbnoinvd", &folder.0)
    };
    let flushed = |moves: &str| {
        let outcome = with(moves).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(outcome.guest_accesses, 120_000);
        assert!(outcome.cost.flush_calls > 0);
        // Every mark is set once and stays: what the last call flushed is where vCPUs were.
        (outcome.cost.flush_calls, outcome.cost.pcpus_flushed)
    };
    let (calls, stay) = flushed("at,vcpu,pcpu\n0,guest.vcpu0,0\n0,guest.vcpu1,9\n");
    assert_eq!(stay, 2 * calls);
    // One moves before the first reclaim, by progress; one by the clock; the two swap at the end.
    let early = "0,guest.vcpu0,0\n0,guest.vcpu1,9 # far away\n1000 accesses,guest.vcpu0,1\n";
    let (calls, moved) = flushed(early);
    assert_eq!(moved, 3 * calls);
    let (calls, both) = flushed(&format!("{early}5us,guest.vcpu1,2\n"));
    assert_eq!(both, 4 * calls);
    let swap = "0,guest.vcpu0,0\n0,guest.vcpu1,1\n2000 accesses,guest.vcpu0,1\n2000 accesses,guest.vcpu1,0\n";
    let (calls, swapped) = flushed(swap);
    assert_eq!(swapped, 2 * calls);

    for (moves, line, said) in [
        ("0,guest.vcpu0,0\n", 1, "guest.vcpu1 is nowhere"),
        ("0,guest.vcpu0,0\n0,guest.vcpu2,0\n", 2, "no vCPU guest.vcpu2"),
        ("0,guest.vcpu0,3\n", 1, "none of the pCPUs"),
        ("0,guest.vcpu0,x\n", 1, "none of the pCPUs"),
        ("0,guest.vcpu0\n", 1, "at,vcpu,pcpu"),
        ("5,guest.vcpu0,0\n", 1, "missing unit"),
        ("9us,guest.vcpu0,0\n8us,guest.vcpu0,1\n", 2, "back in time"),
    ] {
        match with(moves) {
            Err(ScenarioError::File { file, line: at, message, .. }) => {
                assert!(file.ends_with("moves.csv"), "{file}");
                assert_eq!(at, line, "{moves}");
                assert!(message.contains(said), "{message}");
            }
            other => panic!("{moves}: {other:?}"),
        }
    }
    std::fs::remove_file(folder.0.join("moves.csv")).unwrap();
    let missing = attempt(&text, "genoa", "no-flush", &folder.0);
    assert!(missing.is_err_and(|e| e.to_string().contains("cannot read the schedule")));
}

#[test]
fn each_source_of_reclaim_calls_the_notifier_as_the_kernel_does() {
    let with = |source: &str, pages: u32| {
        let reclaim = RECLAIM.replace("madvise", source).replace("every", &format!("pages = {pages}\nevery"));
        run(&guests(2, "[0, 1]", "", &reclaim), "no-flush")
    };
    let calls = |source: &str, pages: u32| {
        let reclaim = RECLAIM.replace("madvise", source).replace("every", &format!("pages = {pages}\nevery"));
        let outcome = run(&guests(2, "[0, 1]", "", &reclaim), "sticky-wbnoinvd");
        (outcome.reclaims, outcome.cost.flush_calls)
    };
    assert_eq!(calls("madvise", 1), (2, 2));
    assert_eq!(calls("numa-balancing", 1), (2, 2));
    // Write-protected first, replaced then.
    assert_eq!(calls("ksm", 1), (2, 4));
    assert_eq!(calls("madvise", 3), (6, 6));
    // Nothing is freed, so that nobody can meet what was left behind.
    assert_eq!(with("numa-balancing", 2).events, std::collections::BTreeMap::new());
    assert!(!with("madvise", 2).events.is_empty());
    assert!(!with("ksm", 2).events.is_empty());
}

#[test]
fn a_device_moves_its_bandwidth_and_slows_down_when_dram_cannot_follow() {
    let t = Part::builtin("genoa").unwrap().timing(Level::Typical);
    let moved = |bandwidth: &str| {
        let device = format!("[[device]]\nname = \"nic\"\nbandwidth = \"{bandwidth}\"\nwrite_percent = 50\n");
        let outcome = run(&guests(2, "[0, 1]", "", &device), "no-flush");
        let bytes = outcome.dram.read_dma + outcome.dram.written_dma;
        // Bytes a microsecond are MB/s.
        (bytes * 1000 / t.ns_of_cycles(outcome.cycles).max(1), outcome)
    };
    let (rate, outcome) = moved("10 GB/s");
    assert!(near(rate, 10_000, 5), "{rate} MB/s");
    assert!(near(outcome.dram.read_dma, outcome.dram.written_dma, 30), "{:?}", outcome.dram);
    let (faster, _) = moved("20 GB/s");
    assert!(near(faster, 20_000, 5), "{faster} MB/s");
    let (most, _) = moved("1000 GB/s");
    // Half of it reads, half writes, of both sockets' channels at most.
    let line = (t.channel_read_milli + t.channel_write_milli) / 2;
    let ceiling = 2 * 12 * 64_000 * t.clock_mhz / line;
    assert!(most <= ceiling + ceiling / 10 && most > 50_000, "{most} MB/s of {ceiling}");
}

#[test]
fn what_the_host_is_told_must_make_sense() {
    let second = "[[reclaim]]\nvm = 0\nsource = \"madvise\"\npcpus = [1]\nevery = \"5000 accesses\"\n";
    for (text, said) in [
        (guests(3, "[0, 1]", "", ""), "unless a scheduler shares them out"),
        (guests(2, "[0, 1]", "scheduler = \"fair\"", ""), "slice = \"3ms\""),
        (guests(2, "[0, 1]", "scheduler = { fair = { slice = \"0us\" } }", ""), "more than 0"),
        (guests(2, "[0, 1]", "scheduler = { fair = { slice = \"3\" } }", ""), "missing unit"),
        (guests(2, "[0, 1]", FAIR, second), "give it one of its own"),
        (
            guests(2, "[0, 1]", FAIR, "")
                .replace("accesses = 60000", "accesses = 60000\nmigrate_every = \"1us\""),
            "leave one",
        ),
        (
            guests(2, "[0, 1]", "", &RECLAIM.replace("source", "entry = \"x\"\nsource")),
            "expected one of them",
        ),
        (guests(2, "[0, 1]", "", &RECLAIM.replace("source = \"madvise\"\n", "")), "numa-balancing"),
        (guests(2, "[0, 1]", "", &RECLAIM.replace("madvise", "swap")), "numa-balancing"),
        (guests(2, "[0, 1]", "", &format!("{RECLAIM}pages = 0\n")), "from 1 to 1000000"),
        (guests(2, "[0, 1]", "", "[[device]]\nname = \"nic\"\nbandwidth = \"12\"\n"), "12 GB/s"),
        (
            guests(2, "[0, 1]", "", "[[device]]\nname = \"nic\"\nbandwidth = \"1 GB/s\"\npages = 0\n"),
            "no pages",
        ),
        (
            guests(
                2,
                "[0, 1]",
                "",
                "[[device]]\nname = \"nic\"\nbandwidth = \"1 GB/s\"\nwrite_percent = 101\n",
            ),
            "0 to 100",
        ),
    ] {
        match attempt(&text, "genoa", "no-flush", Path::new(".")) {
            Err(error) => assert!(error.to_string().contains(said), "{said}: {error}"),
            Ok(_) => panic!("accepted: {said}"),
        }
    }
    let snp = guests(2, "[0, 1]", "", "").replace("vcpus = 2", "vcpus = 2\nkind = \"sev-snp\"");
    let refused = attempt(&snp, "rome", "no-flush", Path::new("."));
    assert!(refused.is_err_and(|e| e.to_string().contains("part rome has no SEV-SNP")));
    assert!(attempt(&snp, "genoa", "no-flush", Path::new(".")).is_ok());
}

#[test]
fn rome_shows_what_genoa_hides() {
    let (_, file, text) = BUILTIN.iter().find(|b| b.0 == "page-reuse").unwrap();
    let text = text
        .replace("accesses = 300000", "accesses = 200000")
        .replace("accesses = 900000", "accesses = 600000");
    assert!(file.ends_with("page-reuse.toml"));
    let over = |part: &str, policy: &str| attempt(&text, part, policy, Path::new(".")).unwrap().clobbered;
    let rome = over("rome", "no-flush");
    assert!(rome.get(&Newer::Cpu).is_some_and(|n| *n > 10) && rome.contains_key(&Newer::Dma), "{rome:?}");
    let genoa = over("genoa", "no-flush");
    assert!(!genoa.contains_key(&Newer::Cpu) && genoa.contains_key(&Newer::Dma), "{genoa:?}");
    assert!(over("rome", "sticky-wbnoinvd").is_empty());
}
