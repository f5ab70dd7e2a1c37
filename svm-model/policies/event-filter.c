/*
 * Rule:   as sticky-wbnoinvd, but only notifier events whose bit is in a mask flush: unmap, clear, release, migrate by default
 *         (20231110003734.1014084-5, not merged).
 * Cost:   little less than sticky-wbnoinvd: NUMA balancing, KSM and madvise all arrive as MMU_NOTIFY_CLEAR.
 * Holds:  events that are left out free no page. That user space chooses the mask is what it was refused for: the help text
 *         of its parameter was off by one bit (litmus test event-filter-off-by-one).
 */

#define SEV_FLUSH_EVENTS ((1 << MMU_NOTIFY_UNMAP) | (1 << MMU_NOTIFY_CLEAR) | (1 << MMU_NOTIFY_RELEASE) | (1 << MMU_NOTIFY_MIGRATE))

struct kvm {
	cpumask_var_t have_run_cpus;
};

bool sev_notifier_skips(struct kvm *kvm, int event)
{
	return !(SEV_FLUSH_EVENTS & (1 << event));
}

void pre_sev_run(struct kvm_vcpu *vcpu, int cpu)
{
	if (!cpumask_test_cpu(cpu, vcpu->kvm->have_run_cpus))
		cpumask_set_cpu(cpu, vcpu->kvm->have_run_cpus);
}

void sev_writeback_caches(struct kvm *kvm)
{
	wbnoinvd_on_cpus_mask(kvm->have_run_cpus);
}
