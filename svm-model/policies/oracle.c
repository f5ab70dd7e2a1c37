/*
 * Rule:  a reclaim executes WBNOINVD on the cheapest set of CPUs whose flush scope covers every dirty line of the VM at
 *        that moment, and waits. It asks the model for that set, which no kernel can.
 * Cost:  the fewest CPUs interrupted: the floor that every policy is compared with.
 * Holds: only lines that are dirty need writing back, and after the zap and the TLB acknowledgement no line of the
 *        page becomes dirty; it reads the truth, so there is nothing to lose.
 */

cpumask_var_t oracle_cpus;

DEFINE_MUTEX(oracle_lock);

void sev_writeback_caches(struct kvm *kvm)
{
	mutex_lock(&oracle_lock);
	oracle_update(kvm);
	wbnoinvd_on_cpus_mask(oracle_cpus);
	mutex_unlock(&oracle_lock);
}
