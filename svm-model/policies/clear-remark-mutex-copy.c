/*
 * Rule:   as clear-remark-mutex, but the mask is copied and then cleared as a whole: two steps.
 * Cost:   as clear-remark-mutex.
 * Broken: a mark set between the copy and the clearing is lost.
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

	mutex_lock(&kvm->flush_lock);
	cpumask_copy(flush, kvm->dirty_cpus);
	cpumask_clear(kvm->dirty_cpus);
	on_each_cpu_mask(flush, flush_and_remark, kvm, true);
	mutex_unlock(&kvm->flush_lock);
}
