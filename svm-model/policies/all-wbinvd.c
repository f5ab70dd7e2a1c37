/*
 * Rule:  every reclaim executes WBINVD on every online CPU and waits (Linux 5.18 to 6.16).
 * Cost:  every CPU of the machine stops and refills its caches, whoever's lines they held.
 * Holds: no state to get wrong; the CPUs flushed include every CPU that can hold a dirty line, and the zap and the
 *        TLB acknowledgement come before.
 */

void sev_writeback_caches(struct kvm *kvm)
{
	wbinvd_on_all_cpus();
}
