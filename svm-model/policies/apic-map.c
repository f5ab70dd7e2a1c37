/*
 * Rule:   a flusher says that it needs a flush (dirty), then takes a mutex. If nobody has served it meanwhile, it takes the
 *         request on (in progress), asks every CPU that ever ran the VM, and says that it is done (clean), unless somebody
 *         has asked anew since. Who finds its request served returns: one flush may serve many. The model is
 *         kvm_recalculate_apic_map() (3 December 2024).
 * Cost:   as sticky-wbnoinvd, less what is shared; flushers wait for each other, and may sleep.
 * Holds:  a request is made after the page was zapped and the TLBs acknowledged. A flusher finds it served only if a flush
 *         began after it, since beginning is what takes it on, and is over, since the mutex was held until then.
 */

enum { FLUSH_CLEAN, FLUSH_IN_PROGRESS, FLUSH_DIRTY };

struct kvm {
	cpumask_var_t have_run_cpus;
	atomic_t flush_state;
	struct mutex flush_lock;
};

void pre_sev_run(struct kvm_vcpu *vcpu, int cpu)
{
	if (!cpumask_test_cpu(cpu, vcpu->kvm->have_run_cpus))
		cpumask_set_cpu(cpu, vcpu->kvm->have_run_cpus);
}

void sev_writeback_caches(struct kvm *kvm)
{
	atomic_set(&kvm->flush_state, FLUSH_DIRTY);
	mutex_lock(&kvm->flush_lock);
	if (atomic_cmpxchg(&kvm->flush_state, FLUSH_DIRTY, FLUSH_IN_PROGRESS) == FLUSH_CLEAN) {
		mutex_unlock(&kvm->flush_lock);
		return;
	}
	wbnoinvd_on_cpus_mask(kvm->have_run_cpus);
	atomic_cmpxchg(&kvm->flush_state, FLUSH_IN_PROGRESS, FLUSH_CLEAN);
	mutex_unlock(&kvm->flush_lock);
}
