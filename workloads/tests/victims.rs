//! Who pays for flushing: cases small enough to be counted by hand, and books that balance on random scenarios.

use std::path::Path;

use cache_model::part::{Level, Part};
use proptest::prelude::*;
use svm_model::text::{POLICIES, Text, default_kernel};
use svm_model::timed::{Cause, Lost, Outcome, Ran, Victim};
use workloads::check::NamedText;
use workloads::scenario::{Changes, Scenario};

fn named(t: &Text) -> NamedText {
    NamedText { name: t.name.to_owned(), file: t.file.to_owned(), text: t.text.to_owned() }
}

fn run(text: &str, policy: &str) -> Outcome {
    run_text(text, &named(POLICIES.iter().find(|p| p.name == policy).unwrap()))
}

fn run_text(text: &str, policy: &NamedText) -> Outcome {
    let scenario = Scenario::parse("test.toml", text).unwrap_or_else(|e| panic!("{e}"));
    let part = Part::builtin(scenario.part()).unwrap();
    let prepared =
        scenario.prepare(&part, &Changes::default(), Path::new(".")).unwrap_or_else(|e| panic!("{e}"));
    prepared
        .run(policy, &named(default_kernel()), 1, None, &mut |_| {})
        .unwrap_or_else(|e| panic!("{e}"))
        .outcome
}

/// One vCPU on pCPU 0 of a socket of Genoa, whose VMM gives one page back; the reclaimer is on `reclaimer`.
fn one_reclaim(kind: &str, reclaimer: u16, pcpus: u16) -> String {
    format!(
        r#"
description = "One page is given back under a running vCPU"
part = "genoa"
pcpus = {pcpus}

[[vm]]
name = "guest"
kind = "{kind}"
vcpus = 1
pcpus = [0]
accesses = 15000
guest = {{ uniform = {{ pages = 4, write_percent = 100 }} }}

[[reclaim]]
vm = 0
entry = "madvise_dontneed"
pcpus = [{reclaimer}]
every = "20000 accesses"

[reuse]
after = "5us"
"#
    )
}

fn of_guest(outcome: &Outcome) -> Lost {
    let mut sum = Lost::default();
    for ((pcpu, victim), lost) in &outcome.lost {
        if *victim != Victim::Host {
            assert_eq!(*pcpu, 0, "the vCPU is pinned");
            sum.merge(lost);
        }
    }
    sum
}

#[test]
fn an_ipi_costs_the_exit_the_flush_and_the_way_back_by_the_kind_of_guest() {
    let part = Part::builtin("genoa").unwrap();
    let t = part.timing(Level::Typical);
    // The L2 of a core and the L3 of its CCX are walked, whatever is dirty in them.
    let lines = part.l2().lines() + part.l3().lines();
    let walk = lines * t.wbinvd_walk_milli / 1000;
    let mut before = 0;
    for (kind, run_exit) in [("sev", t.vm_run_exit_sev), ("sev-es", t.vm_run_exit_sev_es)] {
        // So many pages that the guest does not miss the one that is gone: it is in its guest when the IPI comes.
        let text = one_reclaim(kind, 8, 16).replace("pages = 4,", "pages = 1024,");
        let outcome = run(&text, "all-wbinvd");
        assert_eq!(outcome.cost.flush_calls, 1);
        let lost = of_guest(&outcome);
        assert_eq!(lost.to(Cause::Flush).count(), 1, "one pCPU that runs a guest was flushed");
        let flush = lost.to(Cause::Flush).sum();
        assert!(flush >= t.wbinvd_fixed + walk, "{flush}");
        // No more lines than accesses, and they go at the core's rate.
        assert!(flush <= t.wbinvd_fixed + walk + 15_000 * t.write_back_core_milli / 1000, "{flush}");
        // #VMEXIT and VMRUN, the handler's two steps, five statements on the way back.
        let entry = lost.to(Cause::IpiEntry).sum();
        assert!((run_exit..run_exit + 500).contains(&entry), "{kind}: {entry} for {run_exit}");
        assert!(entry > before, "{kind} exits are dearer");
        before = entry;
        // Under WBINVD the guest waits for its lines again.
        assert!(lost.to(Cause::Refill).sum() > 0);
        assert_eq!(outcome.cost.stolen_cycles, {
            [Cause::IpiEntry, Cause::Flush, Cause::IrqsOffWait, Cause::Kick]
                .iter()
                .map(|c| lost.to(*c).sum())
                .sum::<u64>()
        });
    }
    let outcome = run(&one_reclaim("sev", 8, 16), "all-wbnoinvd");
    assert_eq!(of_guest(&outcome).to(Cause::Refill).sum(), 0, "WBNOINVD takes no line");
    let outcome = run(&one_reclaim("sev", 8, 16), "no-flush");
    let lost = of_guest(&outcome);
    assert_eq!(lost.to(Cause::Flush).count() + lost.to(Cause::IpiEntry).count(), 0);
    // The remote TLB flush took the guest out all the same.
    assert_eq!(lost.to(Cause::Kick).count(), 1);
    assert!(lost.to(Cause::Kick).sum() >= t.vm_run_exit_sev);
}

#[test]
fn who_is_called_from_the_other_socket_waits_longer_for_its_ipi_and_its_answer_takes_longer() {
    let latency = |reclaimer| {
        let outcome = run(&one_reclaim("sev", reclaimer, 192), "sticky-wbnoinvd");
        assert_eq!(outcome.cost.pcpus_flushed, 1);
        outcome.cost.flush_latency_cycles[0]
    };
    let t = Part::builtin("genoa").unwrap().timing(Level::Typical);
    let (near, far) = (latency(8), latency(96));
    let ipi = t.ipi_other_socket - t.ipi_same_socket;
    let answer = u64::from(t.other_socket - t.other_ccx);
    // The guest takes the IPI between two accesses, and some variables come from the other socket too.
    assert!(far >= near + ipi + answer - 50, "{near} {far}");
    assert!(far <= near + ipi + 20 * answer, "{near} {far}");
    // One call of an idle pCPU, and no variable between: the IPI's way there and the answer's way back, no more.
    let text = "static void flush(void *info) { wbnoinvd(); }\n\
                void sev_writeback_caches(struct kvm *kvm) { smp_call_function_single(4, flush, NULL, true); }";
    let policy = NamedText { name: "one".to_owned(), file: "one.c".to_owned(), text: text.to_owned() };
    let call =
        |reclaimer| run_text(&one_reclaim("sev", reclaimer, 192), &policy).cost.flush_latency_cycles[0];
    let (next_door, near_by, far_away) = (call(5), call(8), call(96));
    assert_eq!(far_away - near_by, ipi + answer);
    assert_eq!(near_by - next_door, u64::from(t.other_ccx - t.same_ccx));
    // The answer comes from next door in the same CCX.
    assert!(latency(1) < near);
}

#[test]
fn a_flush_that_meets_nothing_is_told_by_how_long_ago_the_pcpu_ran_the_vm() {
    let outcome = run(&one_reclaim("sev", 8, 16), "all-wbinvd");
    let met = &outcome.met;
    assert_eq!(met.values().map(|m| m.flushes).sum::<u64>(), 16);
    assert_eq!((met[&Ran::Now].flushes, met[&Ran::Now].private), (1, 1));
    // pCPUs 1 to 7 share the L3 of pCPU 0, from whose L2 nothing was pushed out.
    assert_eq!((met[&Ran::Never].flushes, met[&Ran::Never].nothing()), (15, 15));
    let sticky = run(&one_reclaim("sev", 8, 16), "sticky-wbinvd");
    assert_eq!(sticky.met.values().map(|m| m.flushes).sum::<u64>(), 1);
    assert_eq!(sticky.met.values().map(|m| m.nothing()).sum::<u64>(), 0);
}

#[test]
fn two_flushes_at_once_make_the_second_ipi_wait_for_the_first() {
    let text = one_reclaim("sev", 8, 16).replace("accesses = 15000", "accesses = 60000");
    let second = "[[reclaim]]\nvm = 0\nentry = \"madvise_dontneed\"\npcpus = [9]\nevery = \"10000 accesses\"\n\n[reuse]";
    let outcome =
        run(&text.replace("[reuse]", second).replace("20000 accesses", "10000 accesses"), "all-wbinvd");
    let waits: u64 = outcome
        .lost
        .iter()
        .filter(|((_, victim), _)| *victim == Victim::Host)
        .map(|(_, lost)| lost.to(Cause::IrqsOffWait).max())
        .max()
        .unwrap_or(0);
    let t = Part::builtin("genoa").unwrap().timing(Level::Typical);
    assert!(t.ns_of_cycles(waits) > 50_000, "no IPI waited for a flush of 136 us: {waits}");
    // One at most is before it.
    assert!(t.ns_of_cycles(waits) < 200_000, "an IPI waited for longer than a flush takes: {waits}");
}

/// Whoever is taken out by an IPI and then waits for a lock on its way back loses that time to the lock alone: a run
/// whose causes do not add up to what was stolen is refused at its end.
#[test]
fn a_lock_on_the_way_back_into_the_guest_is_no_part_of_what_the_ipi_stole() {
    let text = "static DEFINE_SPINLOCK(l);\n\
                void pre_sev_run(struct kvm_vcpu *vcpu, int cpu) { spin_lock(&l); spin_unlock(&l); }\n\
                void sev_writeback_caches(struct kvm *kvm) { wbnoinvd_on_all_cpus(); spin_lock(&l); wbnoinvd(); \
                spin_unlock(&l); }";
    let policy = NamedText { name: "locked".to_owned(), file: "locked.c".to_owned(), text: text.to_owned() };
    let second = "[[reclaim]]\nvm = 0\nentry = \"madvise_dontneed\"\npcpus = [9]\nevery = \"10000 accesses\"\n\n[reuse]";
    let two = one_reclaim("sev", 8, 16).replace("accesses = 15000", "accesses = 60000");
    let two = two.replace("[reuse]", second).replace("20000 accesses", "10000 accesses");
    let outcome = run_text(&two, &policy);
    let lost = of_guest(&outcome);
    let t = Part::builtin("genoa").unwrap().timing(Level::Typical);
    assert!(t.ns_of_cycles(lost.to(Cause::LockWait).max()) > 50_000, "it waited for a flush under the lock");
    let causes = [Cause::IpiEntry, Cause::Flush, Cause::IrqsOffWait, Cause::Kick];
    assert_eq!(outcome.cost.stolen_cycles, causes.iter().map(|c| lost.to(*c).sum()).sum::<u64>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// The run itself refuses to end with books that do not balance.
    #[test]
    fn the_books_balance(
        seed in 1u64..1000,
        policy in 0..POLICIES.len(),
        part in prop_oneof![Just("rome"), Just("genoa"), Just("naples")],
        kind in prop_oneof![Just("normal"), Just("sev"), Just("sev-es")],
        every in 500u32..5000,
        moves in 1000u32..9000,
    ) {
        let text = format!(
            r#"
description = "Two VMs, one under reclaim by two tasks"
part = "{part}"
pcpus = 16

[[vm]]
name = "guest"
kind = "{kind}"
vcpus = 3
pcpus = [0, 1, 2, 8, 9]
accesses = 12000
spare_pages = 16
migrate_every = "{moves} accesses"
guest = {{ zipf = {{ pages = 48, write_percent = 50 }} }}

[[vm]]
name = "neighbour"
vcpus = 2
pcpus = [3, 4]
accesses = 9000
guest = {{ uniform = {{ pages = 32 }} }}

[[reclaim]]
vm = 0
entry = "madvise_dontneed"
pcpus = [14]
every = "{every} accesses"

[[reclaim]]
vm = 0
entry = "numa_hint"
pcpus = [15]
every = "{every} accesses"

[reuse]
after = "5us"
"#
        );
        let scenario = Scenario::parse("test.toml", &text).unwrap();
        let part = Part::builtin(scenario.part()).unwrap();
        let prepared = scenario.prepare(&part, &Changes::default(), Path::new(".")).unwrap();
        let policy = named(&POLICIES[policy]);
        match prepared.run(&policy, &named(default_kernel()), seed, None, &mut |_| {}) {
            Ok(report) => {
                let o = report.outcome;
                prop_assert_eq!(o.guest_accesses, 3 * 12_000 + 2 * 9_000);
                let served: u64 = o.served.iter().sum();
                prop_assert!(served >= o.guest_accesses);
                prop_assert_eq!(o.vcpu_cycles, o.vcpu_cycles_by_vm.iter().sum::<u64>());
                for ((_, victim), lost) in &o.lost {
                    // Nobody loses more than the run.
                    if *victim != Victim::Host {
                        prop_assert!(lost.cycles() <= o.cycles, "{:?} {:?}", victim, o.cycles);
                    }
                }
            }
            Err(error) => prop_assert!(matches!(error, workloads::scenario::ScenarioError::GivenUp(_)), "{error}"),
        }
    }
}
