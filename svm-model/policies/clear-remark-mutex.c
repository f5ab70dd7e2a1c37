/*
 * Rule:  as clear-remark, with a mutex around clearing, asking and waiting (3 Dec 2024, second half).
 * Cost:  flushers of one VM wait for each other; a flusher that may not sleep cannot use it.
 * Holds: what a flusher must flush was dirtied either before an earlier flusher's handler ran on that CPU, and
 *        was flushed by it, and waited for under the mutex; or after, and then its CPU was marked again, by the
 *        handler if the vCPU was loaded, by vcpu_load if not. Clearing bit by bit loses no mark in between.
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
	on_each_cpu_mask(flush, flush_and_remark, kvm, true);
	mutex_unlock(&kvm->flush_lock);
}
