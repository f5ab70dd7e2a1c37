/*
 * Rule:  a CPU is marked before each VMRUN, with interrupts off, and never unmarked; a reclaim executes
 *        WBNOINVD on the marked CPUs and waits (Linux 6.17, 6f38f8c57464).
 * Cost:  a bit test per entry, a locked set on the first; the mask only grows, so a VM that floats over the
 *        machine ends up flushing all of it.
 * Holds: a store through the old mapping needs a translation from before the TLB acknowledgement; the mark comes
 *        before that VMRUN, the flusher reads the mask after the acknowledgement, and bits never disappear.
 */

struct kvm {
	cpumask_var_t have_run_cpus;
};

/* KVM_SEV_INIT, and each VM that gets a SEV context from another. */
int sev_alloc_tracking(struct kvm *kvm)
{
	return zalloc_cpumask_var(&kvm->have_run_cpus, GFP_KERNEL) ? 0 : -ENOMEM;
}

void sev_free_tracking(struct kvm *kvm)
{
	free_cpumask_var(kvm->have_run_cpus);
}

void pre_sev_run(struct kvm_vcpu *vcpu, int cpu)
{
	if (!cpumask_test_cpu(cpu, vcpu->kvm->have_run_cpus))
		cpumask_set_cpu(cpu, vcpu->kvm->have_run_cpus);
}

void sev_writeback_caches(struct kvm *kvm)
{
	wbnoinvd_on_cpus_mask(kvm->have_run_cpus);
}
