/*
 * Rule:   as clear-remark-mutex, but the handler does not mark again.
 * Cost:   as clear-remark-mutex.
 * Broken: a vCPU that is loaded once and runs on after the first flush is not marked any more.
 */

struct kvm {
	cpumask_var_t dirty_cpus;
	struct mutex flush_lock;
};

void sev_vcpu_load(struct kvm_vcpu *vcpu, int cpu)
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
	on_each_cpu_mask(flush, __wbnoinvd, NULL, true);
	mutex_unlock(&kvm->flush_lock);
}
