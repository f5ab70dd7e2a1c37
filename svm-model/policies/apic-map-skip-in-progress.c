/*
 * Rule:   as apic-map, without the mutex: who finds a flush in progress takes it for its own, and returns.
 * Cost:   nobody waits for anybody.
 * Broken: the flush that is in progress is not done: its IPIs may still be on their way, and the flusher that relies on it
 *         frees its page under a dirty line, as with clear-remark.
 */

enum { FLUSH_CLEAN, FLUSH_IN_PROGRESS };

struct kvm {
	cpumask_var_t have_run_cpus;
	atomic_t flush_state;
};

void pre_sev_run(struct kvm_vcpu *vcpu, int cpu)
{
	if (!cpumask_test_cpu(cpu, vcpu->kvm->have_run_cpus))
		cpumask_set_cpu(cpu, vcpu->kvm->have_run_cpus);
}

void sev_writeback_caches(struct kvm *kvm)
{
	if (atomic_cmpxchg(&kvm->flush_state, FLUSH_CLEAN, FLUSH_IN_PROGRESS) == FLUSH_IN_PROGRESS)
		return;
	wbnoinvd_on_cpus_mask(kvm->have_run_cpus);
	atomic_set(&kvm->flush_state, FLUSH_CLEAN);
}
