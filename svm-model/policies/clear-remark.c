/*
 * Rule:   a CPU is marked at vcpu_load, after the running vCPU is published there; a reclaim tests and clears each
 *         CPU's bit, then asks the CPUs that were marked for WBNOINVD and waits; a CPU on which a vCPU of this VM
 *         is loaded marks itself again (Sean Christopherson, 3 Dec 2024, first half).
 * Cost:   only CPUs that ran the VM since the last reclaim are flushed.
 * Broken: a second flusher finds the mask empty while the first one's IPIs are still on their way, returns, and
 *         frees its page under a dirty line (Z0-h73xBQgGuAI3H says it of v2 and v3 of March 2024).
 */

struct kvm {
	cpumask_var_t dirty_cpus;
};

/* On each CPU asked: a vCPU of this VM that is loaded here will run on, so its CPU stays marked. */
static void flush_and_remark(void *info)
{
	struct kvm *kvm = info;
	struct kvm_vcpu *vcpu;

	wbnoinvd();
	vcpu = kvm_get_running_vcpu();
	if (vcpu && vcpu->kvm == kvm)
		cpumask_set_cpu(smp_processor_id(), kvm->dirty_cpus);
}

void sev_vcpu_load(struct kvm_vcpu *vcpu, int cpu)
{
	cpumask_set_cpu(cpu, vcpu->kvm->dirty_cpus);
}

void sev_writeback_caches(struct kvm *kvm)
{
	cpumask_var_t flush;
	int cpu;

	for_each_possible_cpu(cpu) {
		if (cpumask_test_and_clear_cpu(cpu, kvm->dirty_cpus))
			__cpumask_set_cpu(cpu, flush);
	}
	on_each_cpu_mask(flush, flush_and_remark, kvm, true);
}
