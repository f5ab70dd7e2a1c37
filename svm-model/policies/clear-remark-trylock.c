/*
 * Rule:  as snapshot-and-clear, flushers serialised by a mutex; who finds it taken does not wait, but asks the CPUs that are
 *        marked or on which a write-back is still outstanding. A mark is cleared only once its CPU is in that second mask, and
 *        leaves it only after the write-back was waited for.
 * Cost:  a flusher that meets another one repeats its work instead of waiting for it, in two rounds: more IPIs under
 *        contention, none otherwise. May be used where sleeping is not allowed, by the OOM reaper, whose notifier must not
 *        block: it allocates nothing, and needs no mask on the stack.
 * Holds: a CPU that may hold dirty lines is in one of the two masks at any moment: it is put into `flushing` before its mark
 *        is cleared, and stays there until its caches are clean. Whoever cannot get the mutex reads the marks first and
 *        `flushing` after: a CPU that moved in between is found in the second. An earlier flush that it could rely on
 *        instead is none of its business: it flushes by itself and waits for its own IPIs.
 */

struct kvm {
	cpumask_var_t dirty_cpus;
	cpumask_var_t flushing;
	struct mutex flush_lock;
};

void pre_sev_run(struct kvm_vcpu *vcpu, int cpu)
{
	if (!cpumask_test_cpu(cpu, vcpu->kvm->dirty_cpus))
		cpumask_set_cpu(cpu, vcpu->kvm->dirty_cpus);
}

void sev_writeback_caches(struct kvm *kvm)
{
	int cpu;

	if (!mutex_trylock(&kvm->flush_lock)) {
		/* In this order: a CPU that moves meanwhile is in the second mask. */
		wbnoinvd_on_cpus_mask(kvm->dirty_cpus);
		wbnoinvd_on_cpus_mask(kvm->flushing);
		return;
	}
	cpumask_copy(kvm->flushing, kvm->dirty_cpus);
	/* Only these: a CPU that is marked since the copy keeps its mark. */
	for_each_cpu(cpu, kvm->flushing)
		cpumask_clear_cpu(cpu, kvm->dirty_cpus);
	wbnoinvd_on_cpus_mask(kvm->flushing);
	cpumask_clear(kvm->flushing);
	mutex_unlock(&kvm->flush_lock);
}
