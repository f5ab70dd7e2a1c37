/*
 * Rule:   a CPU is marked before each VMRUN; a reclaim executes WBINVD on the marked CPUs, waits, then clears the mask
 *         (v1 of March 2024).
 * Cost:   the least that a mask can cost.
 * Broken: a vCPU that runs between the write-back on its CPU and the clearing loses its mark (ZeYK-hNDQz5cFhre); after it has
 *         moved, the next reclaim passes its old CPU by.
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
	wbinvd_on_cpus_mask(kvm->dirty_cpus);
	cpumask_clear(kvm->dirty_cpus);
}
