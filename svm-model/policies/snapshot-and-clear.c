/*
 * Rule:   a CPU is marked before each VMRUN; a reclaim exchanges the mask for an empty one, and asks the CPUs of the old one.
 *         What remains of the idea in the v5 to v7 patches if one ignores what their TODO itself demands: serialisation.
 * Cost:   one xchg per word of the mask and reclaim.
 * Broken: with two flushers, as test-and-clear: the second finds an empty mask while the first one's write-backs are still
 *         outstanding. One flusher alone is safe: an IPI ends the guest's stay, and the next VMRUN marks again.
 */

struct kvm {
	cpumask_var_t dirty_cpus;
};

void pre_sev_run(struct kvm_vcpu *vcpu, int cpu)
{
	if (!cpumask_test_cpu(cpu, vcpu->kvm->dirty_cpus))
		cpumask_set_cpu(cpu, vcpu->kvm->dirty_cpus);
}

void sev_writeback_caches(struct kvm *kvm)
{
	cpumask_var_t flush;

	cpumask_xchg(flush, kvm->dirty_cpus, NULL);
	wbnoinvd_on_cpus_mask(flush);
}
