/*
 * Rule:   as clear-remark-mutex, but the CPU is marked before the running vCPU is published.
 * Cost:   as clear-remark-mutex.
 * Broken: a flusher clears the mark, and its handler runs before the vCPU is published: it sees nobody and does
 *         not mark again, and the vCPU enters the guest unmarked.
 */

struct kvm {
	cpumask_var_t dirty_cpus;
	struct mutex flush_lock;
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

void sev_vcpu_load_prepare(struct kvm_vcpu *vcpu, int cpu)
{
	cpumask_set_cpu(cpu, vcpu->kvm->dirty_cpus);
}

void sev_writeback_caches(struct kvm *kvm)
{
	cpumask_var_t flush;
	int cpu;

	mutex_lock(&kvm->flush_lock);
	for_each_possible_cpu(cpu) {
		if (cpumask_test_and_clear_cpu(cpu, kvm->dirty_cpus))
			__cpumask_set_cpu(cpu, flush);
	}
	on_each_cpu_mask(flush, flush_and_remark, kvm, true);
	mutex_unlock(&kvm->flush_lock);
}
