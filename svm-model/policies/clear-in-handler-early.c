/*
 * Rule:   as clear-in-handler, but the CPU clears its bit before its write-back.
 * Cost:   as clear-in-handler.
 * Broken: a second flusher sees the bit clear while the write-back has not happened, returns, and frees its page.
 */

struct kvm {
	cpumask_var_t dirty_cpus;
};

static void flush_and_clear(void *info)
{
	struct kvm *kvm = info;

	cpumask_clear_cpu(smp_processor_id(), kvm->dirty_cpus);
	wbnoinvd();
}

void pre_sev_run(struct kvm_vcpu *vcpu, int cpu)
{
	cpumask_set_cpu(cpu, vcpu->kvm->dirty_cpus);
}

void sev_writeback_caches(struct kvm *kvm)
{
	on_each_cpu_mask(kvm->dirty_cpus, flush_and_clear, kvm, true);
}
