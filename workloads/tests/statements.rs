//! Every statement of a policy that is called safe is killed by some litmus test when it is removed, or is dead for
//! safety with a reason (`docs/POLICIES.md`).

use sim_explore::Limits;
use svm_model::text::{POLICIES, default_kernel};
use workloads::check::{CheckCase, NamedText, Verdict};
use workloads::litmus::{BUILTIN, Litmus};

/// Policy, the statement, what takes its place, and the litmus test that kills the mutant (none: it holds in
/// `reclaim-one-vcpu` and only costs more).
const MUTANTS: &[(&str, &str, &str, Option<&str>)] = &[
    ("all-wbinvd", "wbinvd_on_all_cpus();", ";", Some("reclaim-one-vcpu")),
    ("all-wbnoinvd", "wbnoinvd_on_all_cpus();", ";", Some("reclaim-one-vcpu")),
    ("sticky-wbinvd", "if (!cpumask_test_cpu(cpu, vcpu->kvm->have_run_cpus))", "if (true)", None),
    ("sticky-wbinvd", "cpumask_set_cpu(cpu, vcpu->kvm->have_run_cpus);", ";", Some("reclaim-one-vcpu")),
    ("sticky-wbinvd", "wbinvd_on_cpus_mask(kvm->have_run_cpus);", ";", Some("reclaim-one-vcpu")),
    ("sticky-wbnoinvd", "if (!cpumask_test_cpu(cpu, vcpu->kvm->have_run_cpus))", "if (true)", None),
    ("sticky-wbnoinvd", "cpumask_set_cpu(cpu, vcpu->kvm->have_run_cpus);", ";", Some("reclaim-one-vcpu")),
    (
        "sticky-wbnoinvd",
        "\t\tcpumask_set_cpu(cpu",
        "\t\t__cpumask_set_cpu(cpu",
        Some("two-vcpus-first-entry"),
    ),
    ("sticky-wbnoinvd", "wbnoinvd_on_cpus_mask(kvm->have_run_cpus);", ";", Some("reclaim-one-vcpu")),
    ("sticky-vcpu-load", "cpumask_set_cpu(cpu, vcpu->kvm->dirty_cpus);", ";", Some("reclaim-one-vcpu")),
    ("sticky-vcpu-load", "wbinvd_on_cpus_mask(kvm->dirty_cpus);", ";", Some("reclaim-one-vcpu")),
    ("clear-remark-mutex", "\twbnoinvd();", "\t;", Some("reclaim-one-vcpu")),
    ("clear-remark-mutex", "vcpu = kvm_get_running_vcpu();", "vcpu = NULL;", Some("reclaim-while-running")),
    ("clear-remark-mutex", "if (vcpu && vcpu->kvm == kvm)", "if (true)", None),
    (
        "clear-remark-mutex",
        "cpumask_set_cpu(smp_processor_id(), kvm->dirty_cpus);",
        ";",
        Some("reclaim-while-running"),
    ),
    ("clear-remark-mutex", "cpumask_set_cpu(cpu, vcpu->kvm->dirty_cpus);", ";", Some("reclaim-one-vcpu")),
    ("clear-remark-mutex", "mutex_lock(&kvm->flush_lock);", ";", Some("reclaim-one-vcpu")),
    ("clear-remark-mutex", "mutex_unlock(&kvm->flush_lock);", ";", Some("reclaim-one-vcpu")),
    ("clear-remark-mutex", "if (cpumask_test_and_clear_cpu(cpu, kvm->dirty_cpus))", "if (true)", None),
    ("clear-remark-mutex", "__cpumask_set_cpu(cpu, flush);", ";", Some("reclaim-one-vcpu")),
    (
        "clear-remark-mutex",
        "on_each_cpu_mask(flush, flush_and_remark, kvm, true);",
        ";",
        Some("reclaim-one-vcpu"),
    ),
    ("clear-in-handler", "\twbnoinvd();", "\t;", Some("reclaim-one-vcpu")),
    ("clear-in-handler", "cpumask_clear_cpu(smp_processor_id(), kvm->dirty_cpus);", ";", None),
    ("clear-in-handler", "cpumask_set_cpu(cpu, vcpu->kvm->dirty_cpus);", ";", Some("reclaim-one-vcpu")),
    (
        "clear-in-handler",
        "on_each_cpu_mask(kvm->dirty_cpus, flush_and_clear, kvm, true);",
        ";",
        Some("reclaim-one-vcpu"),
    ),
    ("clear-remark-trylock", "\t\twbnoinvd_on_cpus_mask(kvm->dirty_cpus);", "\t\t;", Some("two-flushers")),
    (
        "clear-remark-trylock",
        "\t\twbnoinvd_on_cpus_mask(kvm->flushing);\n\t\treturn;",
        "\t\treturn;",
        Some("two-flushers"),
    ),
    (
        "clear-remark-trylock",
        "wbnoinvd_on_cpus_mask(kvm->dirty_cpus);\n\t\twbnoinvd_on_cpus_mask(kvm->flushing);",
        "wbnoinvd_on_cpus_mask(kvm->flushing);\n\t\twbnoinvd_on_cpus_mask(kvm->dirty_cpus);",
        Some("two-flushers"),
    ),
    ("clear-remark-trylock", "cpumask_copy(kvm->flushing, kvm->dirty_cpus);", ";", Some("reclaim-one-vcpu")),
    ("clear-remark-trylock", "cpumask_clear_cpu(cpu, kvm->dirty_cpus);", ";", None),
    ("clear-remark-trylock", "cpumask_clear(kvm->flushing);", ";", None),
    (
        "clear-remark-trylock",
        "\twbnoinvd_on_cpus_mask(kvm->flushing);\n\tcpumask_clear(",
        "\tcpumask_clear(",
        Some("reclaim-one-vcpu"),
    ),
    (
        "clear-remark-trylock",
        "\t\tcpumask_set_cpu(cpu, vcpu->kvm->dirty_cpus);",
        "\t\t;",
        Some("reclaim-one-vcpu"),
    ),
    ("clear-remark-trylock", "mutex_unlock(&kvm->flush_lock);", ";", Some("reclaim-one-vcpu")),
    (
        "clear-remark-trylock",
        "if (!mutex_trylock(&kvm->flush_lock)) {",
        "if (false) {",
        Some("reclaim-one-vcpu"),
    ),
    ("apic-map", "atomic_set(&kvm->flush_state, FLUSH_DIRTY);", ";", Some("reclaim-one-vcpu")),
    ("apic-map", "\tmutex_lock(&kvm->flush_lock);", "\t;", Some("reclaim-one-vcpu")),
    ("apic-map", "\twbnoinvd_on_cpus_mask(kvm->have_run_cpus);", "\t;", Some("reclaim-one-vcpu")),
    ("apic-map", "\tatomic_cmpxchg(&kvm->flush_state, FLUSH_IN_PROGRESS, FLUSH_CLEAN);", "\t;", None),
    (
        "apic-map",
        "atomic_cmpxchg(&kvm->flush_state, FLUSH_IN_PROGRESS, FLUSH_CLEAN);",
        "atomic_set(&kvm->flush_state, FLUSH_CLEAN);",
        Some("two-flushers"),
    ),
    ("apic-map", "\t\tmutex_unlock(&kvm->flush_lock);\n\t\treturn;", "\t\treturn;", None),
    ("apic-map", "\t\tcpumask_set_cpu(cpu, vcpu->kvm->have_run_cpus);", "\t\t;", Some("reclaim-one-vcpu")),
    ("page-flush-msr", "if (vm_page_flush(kvm, page))", "if (false)", Some("reclaim-one-vcpu")),
    ("page-flush-msr", "wbnoinvd_on_cpus_mask(kvm->have_run_cpus);", ";", None),
    ("event-filter", "\twbnoinvd_on_cpus_mask(kvm->have_run_cpus);", "\t;", Some("reclaim-one-vcpu")),
    ("event-filter", "return !(SEV_FLUSH_EVENTS & (1 << event));", "return true;", Some("reclaim-one-vcpu")),
];

#[test]
fn each_statement_of_a_safe_policy_is_killed_or_dead() {
    let kernel = default_kernel();
    let kernel = NamedText { name: kernel.name.into(), file: kernel.file.into(), text: kernel.text.into() };
    for (name, statement, instead, killer) in MUTANTS {
        let original = POLICIES.iter().find(|p| p.name == *name).unwrap();
        assert_eq!(original.text.matches(statement).count(), 1, "{name}: `{statement}`");
        let text = original.text.replace(statement, instead);
        let policy = NamedText { name: (*name).into(), file: original.file.into(), text };
        let test = killer.unwrap_or("reclaim-one-vcpu");
        let (_, file, body) = BUILTIN.iter().find(|b| b.0 == test).unwrap();
        let litmus = Litmus::parse(file, body).unwrap();
        let case = CheckCase {
            litmus: &litmus,
            policy: &policy,
            kernel: &kernel,
            part: "rome",
            sme_coherent: false,
        };
        let report = case.run(Limits::default(), None, None).unwrap_or_else(|e| panic!("{name}: {e}"));
        let expected = if killer.is_some() { Verdict::Violated } else { Verdict::Holds };
        assert_eq!(report.verdict, expected, "{name} with `{instead}` for `{statement}` in {test}");
    }
}
