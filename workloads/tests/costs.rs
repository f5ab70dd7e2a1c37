//! Entries of the history that are about cost alone: what the counters of a timed run say of a kernel before and after.

use std::path::Path;

use cache_model::part::Part;
use sim_explore::Limits;
use svm_model::text::{KERNELS, POLICIES, Text, default_kernel};
use workloads::check::{CheckCase, NamedText};
use workloads::litmus::{BUILTIN, Litmus};
use workloads::scenario::{Changes, RunReport, Scenario};

fn named(t: &Text) -> NamedText {
    NamedText { name: t.name.to_owned(), file: t.file.to_owned(), text: t.text.to_owned() }
}

fn policy(name: &str) -> NamedText {
    named(POLICIES.iter().find(|p| p.name == name).expect("a built-in policy"))
}

fn run(text: &str, part: &Part, policy: &NamedText, kernel: &Text) -> RunReport {
    run_with(text, part, policy, kernel, 1)
}

fn run_with(text: &str, part: &Part, policy: &NamedText, kernel: &Text, seed: u64) -> RunReport {
    let scenario = Scenario::parse("test.toml", text).expect("a scenario");
    let prepared = scenario.prepare(part, &Changes::default(), Path::new(".")).expect("it fits");
    prepared.run(policy, &named(kernel), seed, None, &mut |_| {}).expect("it ends")
}

/// The VMM of a guest of `kind` gives back pages, one every 10,000 accesses.
fn shared_memory(kind: &str) -> String {
    format!(
        r#"
description = "A VMM gives back memory that it shares with its guest"
part = "genoa"
pcpus = 8

[[vm]]
name = "guest"
kind = "{kind}"
shared = true
vcpus = 2
pcpus = [0, 1]
accesses = 40000
spare_pages = 16
guest = {{ zipf = {{ pages = 32, write_percent = 30 }} }}

[[reclaim]]
vm = 0
entry = "madvise_dontneed"
pcpus = [7]
every = "10000 accesses"

[reuse]
after = "5us"
"#
    )
}

/// ea262f8a7c36 (6.11): an SNP guest's private memory is in guest_memfd, so what a notifier hands back is shared, and
/// until then every such event flushed all pCPUs.
#[test]
fn an_snp_guests_shared_memory_costs_no_flush_since_6_11() {
    let part = Part::builtin("genoa").expect("a part");
    let kernel = |name: &str| KERNELS.iter().find(|k| k.name == name).expect("a built-in kernel");
    let all = policy("all-wbinvd");
    let before = run(&shared_memory("sev-snp"), &part, &all, kernel("linux-6.1")).outcome;
    // One flush of all pCPUs for each event.
    assert!(before.reclaims > 4, "{before:?}");
    assert_eq!(before.cost.flush_calls, before.reclaims);
    assert_eq!(before.cost.pcpus_flushed, before.cost.flush_calls * 8);
    let punched = shared_memory("sev-snp").replace("shared = true", "shared = false");
    let punched = punched.replace("madvise_dontneed", "kvm_gmem_punch_hole");
    // The texts' fault path assigns no page anew: those of the holes do not come back within the run (docs/DEVIATIONS.md).
    let punched = punched.replace("after = \"5us\"", "after = \"1s\"");
    for name in ["linux-6.11", "linux-6.17", "linux-7.3"] {
        // Holes in guest_memfd flush the page, and no whole cache.
        let holes = run(&punched, &part, &all, kernel(name)).outcome;
        assert!(holes.reclaims > 4, "{name}: {holes:?}");
        assert_eq!((holes.cost.flush_calls, holes.cost.pcpus_flushed), (0, 0), "{name}");
        let after = run(&shared_memory("sev-snp"), &part, &all, kernel(name)).outcome;
        assert_eq!((after.cost.flush_calls, after.cost.pcpus_flushed), (0, 0), "{name}");
        assert_eq!(after.guest_accesses, before.guest_accesses);
        // Not because nobody reclaims: other guests still pay.
        let sev = run(&shared_memory("sev"), &part, &all, kernel(name)).outcome;
        assert!(sev.cost.flush_calls > 0, "{name}: {sev:?}");
    }
}

/// The flush of `sticky-wbnoinvd` with the look at the mask that 923fcb3dbc02 (August 2025) took out again.
fn looking_first() -> NamedText {
    let sticky = policy("sticky-wbnoinvd");
    let flush = "\twbnoinvd_on_cpus_mask(kvm->have_run_cpus);";
    let look = format!("\tif (cpumask_empty(kvm->have_run_cpus))\n\t\treturn;\n{flush}");
    assert!(sticky.text.contains(flush));
    let text = sticky.text.replace(flush, &look);
    NamedText { name: "looking-first".to_owned(), file: "looking-first.c".to_owned(), text }
}

/// What the first flushes of runs with several seeds take, in cycles, where a guest ran on the last of so many pCPUs.
fn latency(pcpus: u16, policy: &NamedText) -> u64 {
    let last = pcpus - 1;
    let text = format!(
        r#"
description = "One flush"
part = "genoa"
pcpus = {pcpus}

[[vm]]
name = "guest"
vcpus = 1
pcpus = [{last}]
accesses = 15000
guest = {{ uniform = {{ pages = 16 }} }}

[[reclaim]]
vm = 0
entry = "madvise_dontneed"
pcpus = [0]
every = "10000 accesses"

[reuse]
after = "5us"
"#
    );
    let part = Part::builtin("genoa").expect("a part");
    let first = |seed| {
        let outcome = run_with(&text, &part, policy, default_kernel(), seed).outcome;
        assert_eq!(outcome.cost.pcpus_flushed, outcome.cost.flush_calls, "{outcome:?}");
        outcome.cost.flush_latency_cycles[0]
    };
    (1..=SEEDS).map(first).sum()
}

/// Seeds whose flushes are added up: when the guest takes an IPI depends on where it is between two accesses.
const SEEDS: u64 = 8;

/// The look reads every word up to the first mark: what it costs grows with the machine, in the common case for nothing.
/// The guest takes the IPI between two accesses, so that a few cycles more or less before it may not show.
#[test]
fn to_ask_whether_the_mask_is_empty_costs_more_on_larger_machines() {
    // The last pCPU is in another CCX of the reclaimer's socket, whatever the size: 1, 2, 4 and 5 words before it.
    let costs = [64, 96, 224, 288].map(|pcpus| {
        let (looking, not) = (latency(pcpus, &looking_first()), latency(pcpus, &policy("sticky-wbnoinvd")));
        looking.checked_sub(not).expect("a look makes nothing faster")
    });
    assert!(costs.is_sorted(), "{costs:?}");
    assert!(costs[0] < costs[3], "{costs:?}");
}

/// And a mask of one word is one step more.
#[test]
fn to_ask_whether_the_mask_is_empty_is_one_step_a_word() {
    let (_, file, text) =
        BUILTIN.iter().find(|(name, ..)| *name == "reclaim-one-vcpu").expect("of the corpus");
    let litmus = Litmus::parse(file, text).expect("a litmus test");
    let kernel = named(default_kernel());
    let depth = |policy: &NamedText| {
        let case = CheckCase { litmus: &litmus, policy, kernel: &kernel, part: "genoa", sme_coherent: true };
        case.run(Limits::default(), None, None).expect("it runs").depth
    };
    assert_eq!(depth(&looking_first()), depth(&policy("sticky-wbnoinvd")) + 1);
}

/// Two reclaimers, one of NUMA hints and one of the VMM's own madvise.
const MIX: &str = r#"
description = "NUMA hints beside madvise"
part = "genoa"
pcpus = 8

[[vm]]
name = "guest"
vcpus = 2
pcpus = [0, 1]
accesses = 40000
spare_pages = 16
guest = { zipf = { pages = 32, write_percent = 30 } }

[[reclaim]]
vm = 0
entry = "numa_hint"
pcpus = [6]
every = "5000 accesses"

[[reclaim]]
vm = 0
entry = "madvise_dontneed"
pcpus = [7]
every = "10000 accesses"

[reuse]
after = "5us"
"#;

/// 20231110003734.1014084-5: what the filter leaves out is not what happens. A filter without CLEAR would save all of
/// it, and is unsafe (`event-filter-off-by-one`).
#[test]
fn an_event_filter_saves_nothing_of_numa_hints() {
    let part = Part::builtin("genoa").expect("a part");
    let plain = run(MIX, &part, &policy("sticky-wbnoinvd"), default_kernel()).outcome;
    let filtered = run(MIX, &part, &policy("event-filter"), default_kernel()).outcome;
    assert!(plain.cost.flush_calls > 16, "both kinds of events came: {plain:?}");
    assert_eq!(filtered.cost.flush_calls, plain.cost.flush_calls);
    assert_eq!(filtered.guest_accesses, plain.guest_accesses);
}

/// A kernel whose reclaim hands a page back through KVM's page-flush helper, after user space has taken its mapping away: the
/// helper's VM_PAGE_FLUSH faults each time.
fn flushing_what_is_not_mapped(kernel: &str) -> NamedText {
    let kernel = named(KERNELS.iter().find(|k| k.name == kernel).expect("a built-in kernel"));
    let hand_back = "
void flush_unmapped(struct kvm *kvm, struct page *page)
{
	write_lock(&kvm->mmu_lock);
	if (zap_spte(kvm, page))
		kvm_flush_remote_tlbs(kvm);
	write_unlock(&kvm->mmu_lock);
	zap_user_pte(page);
	trace_sev_writeback(true);
	sev_flush_encrypted_page(kvm, page);
	trace_sev_writeback(false);
	free_page(page);
}
";
    NamedText { text: format!("{}{hand_back}", kernel.text), ..kernel }
}

/// 4bbef7e8eb8c (5.18). Derived first: a page flush that faults wrote nothing back before; since then it is followed by one
/// full write-back, so that with all-wbinvd each page costs a WBINVD of each of the 8 pCPUs, once.
#[test]
fn a_page_flush_that_faults_costs_one_full_writeback_since_5_18() {
    let part = Part::builtin("rome").expect("a part");
    let text = shared_memory("sev")
        .replacen("\"genoa\"", "\"rome\"", 1)
        .replacen("shared = true\n", "", 1)
        .replacen("madvise_dontneed", "flush_unmapped", 1);
    let cost = |kernel: &str| {
        let scenario = Scenario::parse("test.toml", &text).expect("a scenario");
        let prepared = scenario.prepare(&part, &Changes::default(), Path::new(".")).expect("it fits");
        let kernel = flushing_what_is_not_mapped(kernel);
        prepared.run(&policy("all-wbinvd"), &kernel, 1, None, &mut |_| {}).expect("it ends").outcome.cost
    };
    let before = cost("linux-5.17");
    assert!(before.flush_calls > 0, "{before:?}");
    assert_eq!((before.pcpus_flushed, before.lines_written_back), (0, 0));
    for name in ["linux-6.1", "linux-6.17"] {
        let after = cost(name);
        assert!(after.flush_calls > 0 && after.lines_written_back > 0, "{name}: {after:?}");
        assert_eq!(after.pcpus_flushed, after.flush_calls * 8, "{name}");
    }
}
