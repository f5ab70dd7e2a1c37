//! What patches name and texts here do not: what to write instead. "Pasting a patch" of `docs/LANGUAGE.md` is generated from
//! the table, and errors consult it.

use std::fmt::Write as _;

/// Names of the kernel's that stand for the same thing here.
struct Name {
    /// The functions, types and fields; one that ends with `*` begins with what is before it.
    names: &'static [&'static str],
    /// As a patch has it.
    kernel: &'static str,
    /// What to write here.
    here: &'static str,
}

const fn name(names: &'static [&'static str], kernel: &'static str, here: &'static str) -> Name {
    Name { names, kernel, here }
}

#[rustfmt::skip]
const TABLE: &[Name] = &[
    name(&["vcpu_svm", "to_svm", "svm"], "`struct vcpu_svm *svm`, `to_svm(vcpu)`, `svm->vcpu`", "`struct kvm_vcpu *vcpu`"),
    name(&["arch"], "`vcpu->arch.field`, `svm->vcpu.kvm`", "`vcpu->field`, `vcpu->kvm`: structures are not nested"),
    name(&["kvm_sev_info", "to_kvm_sev_info", "kvm_svm", "to_kvm_svm", "sev_info"], "`struct kvm_sev_info *sev = to_kvm_sev_info(kvm)`, `sev->have_run_cpus`", "`kvm->have_run_cpus`, a field that the policy adds to `struct kvm`"),
    name(&["svm_cpu_data", "svm_data", "per_cpu_ptr", "this_cpu_ptr", "get_cpu_ptr", "put_cpu_ptr"], "`per_cpu_ptr(&svm_data, cpu)->field`, `this_cpu_ptr(...)`", "`per_cpu(field, cpu)`, `this_cpu_read(field)` of a `DEFINE_PER_CPU(type, field)`"),
    name(&[], "`int pre_sev_run(...)` that returns an error", "`void pre_sev_run(struct kvm_vcpu *vcpu, int cpu)`"),
    name(&[], "`kvm_make_all_cpus_request(kvm, req)`", "the kernel text's own, for `KVM_REQ_TLB_FLUSH` and, to kick alone, `KVM_REQ_OUTSIDE_GUEST_MODE`"),
    name(&["kvm_make_request", "kvm_check_request", "kvm_test_request", "kvm_clear_request", "kvm_request_pending"], "`kvm_make_request(req, vcpu)`, `kvm_check_request(req, vcpu)`", "a `bool` that the policy adds to `struct kvm_vcpu`: `WRITE_ONCE()`, and `xchg()` in `pre_sev_run()`"),
    name(&[], "`clflush_cache_range(page_address(page), PAGE_SIZE)`", "the same; the page is told from its address"),
    name(&["CLASS", "__free", "DEFINE_FREE"], "`CLASS(...)`, `__free(...)`", "declare the local, and free it where its block ends: `cpumask_var_t m;`, `zalloc_cpumask_var(&m, GFP_KERNEL)`, `free_cpumask_var(m)`"),
    name(&["list_for_each*", "hlist_for_each*", "list_add*", "list_del*", "list_head", "xa_for_each", "idr_for_each*"], "`list_for_each_entry(...)` and lists", "a `for` over the numbers of an array, `kvm_for_each_vcpu(i, vcpu, kvm)`: there are no lists"),
    name(&["for_each_set_bit*", "for_each_clear_bit*", "find_first_bit", "find_next_bit"], "`for_each_set_bit(cpu, bits, n)`", "`for_each_cpu(cpu, mask)` of a mask, or a `for` with `test_bit()`"),
    name(&["DECLARE_BITMAP", "bitmap_*"], "`DECLARE_BITMAP(name, n)`", "`cpumask_t name;` where the bits are pCPUs, else a `u32` with `set_bit()`"),
    name(&["atomic64_t", "atomic_long_t", "atomic64_*", "atomic_long_*"], "`atomic64_t`, `atomic64_inc()`", "`atomic_t`, `atomic_inc()`"),
    name(&["seqcount_t", "seqlock_t", "read_seq*", "write_seq*", "raw_read_seq*"], "`read_seqcount_begin()`, `read_seqcount_retry()`", "an `unsigned int` that the writer increments before and after, and a loop of the reader over `READ_ONCE()`"),
    name(&["wait_queue_head_t", "wait_event*", "wake_up*", "init_waitqueue_head", "DECLARE_WAIT_QUEUE_HEAD", "swait*", "rcuwait*"], "`wait_queue_head_t`, `wait_event()`, `wake_up()`", "a `struct completion`, or `while (!READ_ONCE(done)) cpu_relax();`"),
    name(&["rcu_*", "synchronize_rcu*", "call_rcu", "srcu_*", "synchronize_srcu*"], "`rcu_read_lock()`, `synchronize_rcu()`", "leave the readers' out where nothing they see is freed; else a lock, or a count of readers that the writer waits for: there is no RCU"),
    name(&["smp_call_function_any"], "`smp_call_function_any(mask, fn, info, wait)`", "`smp_call_function_single(cpumask_any(mask), fn, info, wait)`"),
    name(&["on_each_cpu_cond*"], "`on_each_cpu_cond(cond, fn, info, wait)`", "a local mask, filled in a `for_each_online_cpu(cpu)` with the condition, and `on_each_cpu_mask(mask, fn, info, wait)`"),
    name(&["cpu_feature_enabled", "boot_cpu_has", "static_cpu_has", "cpu_feature*"], "`cpu_feature_enabled(X86_FEATURE_SME_COHERENT)`", "`sme_coherent()`; of WBNOINVD `has_wbnoinvd()`"),
    name(&["kmalloc*", "kvzalloc*", "kcalloc", "kvmalloc*", "vzalloc", "__get_free_page*"], "`kmalloc(...)`, `kcalloc(...)`", "`kzalloc(sizeof(struct name), GFP_KERNEL)` of a structure of `DEFINE_OBJECTS`"),
    name(&["WARN", "WARN_ONCE", "KVM_BUG_ON", "KVM_BUG"], "`WARN(condition, ...)`, `KVM_BUG_ON(condition, kvm)`", "`WARN_ON(condition)`"),
    name(&["pr_warn*", "pr_info*", "pr_err*", "pr_debug*", "pr_notice*", "printk*", "dev_warn*", "dev_info*", "dev_err*", "trace_*", "EXPORT_SYMBOL*", "MODULE_*", "module_param*"], "`#include <linux/...>`, `EXPORT_SYMBOL`, `pr_info`, `pr_warn`, `pr_err`", "leave out"),
];

/// Words that say something to the kernel's compiler and linker, and nothing here.
pub(crate) const ATTRIBUTES: [&str; 9] = [
    "__must_check",
    "__maybe_unused",
    "__always_unused",
    "__init",
    "__exit",
    "__cold",
    "__read_mostly",
    "__ro_after_init",
    "asmlinkage",
];

/// What to write here for a name of the kernel's.
pub(crate) fn instead_of(word: &str) -> Option<String> {
    let fits = |pattern: &&str| match pattern.strip_suffix('*') {
        Some(begin) => word.starts_with(begin),
        None => *pattern == word,
    };
    let found = TABLE.iter().find(|row| row.names.iter().any(fits))?;
    Some(if found.here == "leave out" {
        format!("leave `{word}` out")
    } else {
        format!("here: {}", found.here)
    })
}

/// What patches name and texts here do not, and what to write instead, in Markdown.
#[must_use]
pub fn kernel_names() -> String {
    let mut out = "| in the kernel | here |\n|---|---|\n".to_owned();
    for Name { kernel, here, .. } in TABLE {
        let _ = writeln!(out, "| {kernel} | {here} |");
    }
    let attributes: Vec<_> = ATTRIBUTES.iter().map(|a| format!("`{a}`")).collect();
    let _ = writeln!(out, "| {} | the same: they mean nothing |", attributes.join(", "));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;

    #[test]
    fn nothing_that_is_built_in_is_to_be_written_otherwise() {
        for b in builtin::TABLE {
            assert_eq!(instead_of(b.name).filter(|_| !b.name.starts_with("trace_")), None, "{}", b.name);
        }
    }
}
