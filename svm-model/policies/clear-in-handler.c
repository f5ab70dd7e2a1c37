/*
 * Rule:  a CPU is marked before each VMRUN; a reclaim asks the marked CPUs for WBNOINVD and waits; each CPU
 *        clears its own bit after its write-back.
 * Cost:  a locked set per entry after each flush; no lock: flushers that meet flush twice.
 * Holds: a bit is cleared only on its own CPU, out of the guest, with interrupts off and nothing dirty left; the
 *        next VMRUN there marks again. A flusher that still sees the bit asks and waits itself; one that does not
 *        see it comes after the write-back.
 */

struct kvm {
	cpumask_var_t dirty_cpus;
};

static void flush_and_clear(void *info)
{
	struct kvm *kvm = info;

	wbnoinvd();
	cpumask_clear_cpu(smp_processor_id(), kvm->dirty_cpus);
}

void pre_sev_run(struct kvm_vcpu *vcpu, int cpu)
{
	cpumask_set_cpu(cpu, vcpu->kvm->dirty_cpus);
}

void sev_writeback_caches(struct kvm *kvm)
{
	on_each_cpu_mask(kvm->dirty_cpus, flush_and_clear, kvm, true);
}
