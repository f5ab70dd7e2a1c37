/*
 * Rule:   a CPU is marked before each VMRUN; a reclaim copies the mask, clears it, and asks the CPUs of the copy.
 * Cost:   two accesses to the mask per reclaim.
 * Broken: naive clearing. A second flusher finds the mask empty while the first one's write-backs are still outstanding,
 *         and frees its page under a dirty line.
 */

struct kvm {
	cpumask_t dirty_cpus;
};

void pre_sev_run(struct kvm_vcpu *vcpu, int cpu)
{
	if (!cpumask_test_cpu(cpu, &vcpu->kvm->dirty_cpus))
		cpumask_set_cpu(cpu, &vcpu->kvm->dirty_cpus);
}

void sev_writeback_caches(struct kvm *kvm)
{
	cpumask_var_t flush;

	cpumask_copy(flush, &kvm->dirty_cpus);
	if (!cpumask_empty(flush)) {
		cpumask_clear(&kvm->dirty_cpus);
		wbinvd_on_cpus_mask(flush);
	}
}
