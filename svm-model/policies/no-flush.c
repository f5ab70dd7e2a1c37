/*
 * Rule:   nothing is written back when guest memory is reclaimed.
 * Cost:   none.
 * Broken: a dirty line of the guest stays in some cache and overwrites the page's next owner (683412ccf612,
 *         CVE-2022-0171, Linux 5.17 and before for unpinned memory). The yardstick that every check must catch.
 */

/* Nothing is marked, and sev_writeback_caches() is left to the kernel's empty hook. */
void pre_sev_run(struct kvm_vcpu *vcpu, int cpu)
{
}
