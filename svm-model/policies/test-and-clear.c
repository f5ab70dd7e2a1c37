/*
 * Rule:   a CPU is marked at the end of pre_sev_run(), which returns early where the vCPU last ran here; a reclaim tests and clears the mark of each CPU in turn,
 *         and where it was set has that CPU execute WBINVD, one after the other (v2 and v3, 7 and 14 March 2024).
 * Cost:   a locked set per entry; the flushes of a reclaim do not overlap.
 * Broken: a vCPU that was asked to leave the guest re-enters without a new mark, so that a second reclaim skips its CPU (the
 *         author's own remark in v4 is near that); and a second flusher finds the mark gone while the first one's WBINVD is still
 *         outstanding, and frees its page.
 */

struct kvm {
	cpumask_var_t dirty_cpus;
};

struct kvm_vcpu {
	int last_vmentry_cpu = -1;
};

/* Which vCPU the CPU last entered; of one ASID here. */
DEFINE_PER_CPU(struct kvm_vcpu *, sev_vmcb);

void pre_sev_run(struct kvm_vcpu *vcpu, int cpu)
{
	/* Nothing to do for a vCPU that comes back to where it just was: the mark, below, is left out too. */
	if (__this_cpu_read(sev_vmcb) == vcpu && vcpu->last_vmentry_cpu == cpu)
		return;
	__this_cpu_write(sev_vmcb, vcpu);
	vcpu->last_vmentry_cpu = cpu;
	cpumask_set_cpu(cpu, vcpu->kvm->dirty_cpus);
}

void sev_writeback_caches(struct kvm *kvm)
{
	int cpu;

	for_each_possible_cpu(cpu) {
		if (cpumask_test_and_clear_cpu(cpu, kvm->dirty_cpus))
			wbinvd_on_cpu(cpu);
	}
}
