/*
 * Rule:   a CPU is marked when a vCPU's thread leaves it (put, or scheduled out), and never unmarked; a reclaim executes
 *         WBNOINVD on the marked CPUs.
 * Cost:   nothing on the way into the guest.
 * Broken: the zap waits until the vCPU has left the guest, not until its thread has left the CPU. A flusher that reads the
 *         mask in between finds no mark, and frees its page over the lines of that stay. A mark at the #VMEXIT, with
 *         interrupts still off (sev_vcpu_exit), would be early enough.
 */

struct kvm {
	cpumask_var_t have_run_cpus;
};

int sev_alloc_tracking(struct kvm *kvm)
{
	return zalloc_cpumask_var(&kvm->have_run_cpus, GFP_KERNEL) ? 0 : -ENOMEM;
}

void sev_free_tracking(struct kvm *kvm)
{
	free_cpumask_var(kvm->have_run_cpus);
}

void sev_vcpu_put(struct kvm_vcpu *vcpu)
{
	cpumask_set_cpu(smp_processor_id(), vcpu->kvm->have_run_cpus);
}

void sev_writeback_caches(struct kvm *kvm)
{
	wbnoinvd_on_cpus_mask(kvm->have_run_cpus);
}
