/*
 * Rule:  every reclaim executes WBNOINVD on every online CPU and waits (proposed alone, Dec 2024 to Jan 2025).
 * Cost:  every CPU of the machine stops; lines stay valid, so nobody refills.
 * Holds: as all-wbinvd. Reclaim needs dirty lines written back, not dropped; ASID recycling is another matter.
 */

void sev_writeback_caches(struct kvm *kvm)
{
	wbnoinvd_on_all_cpus();
}
