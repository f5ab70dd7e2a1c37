/*
 * Linux 6.11 to 6.16: as 6.17, but that VM destroy writes back (7e00013bd339 took it away), and that a VM's vCPUs,
 * and with them their VMSA pages, are freed after its ASID is. SNP memory lives in guest_memfd, and reclaim leaves it
 * out (ea262f8a7c36). What is written back, and where, is the policy's: these kernels had all-wbinvd.
 *
 * The order of vCPUs and VM before 6.15 is from general knowledge, not read in the tree.
 */
#include "linux-6.17.c"

#define FLUSH_ON_DESTROY 1
/* These kernels had no mask; a policy that keeps one needs it until the last of the VM's flushes. */
#define FREE_TRACKING_FIRST 0

void kvm_destroy_vm(struct kvm *kvm)
{
	struct kvm_vcpu *vcpu;
	int i;

	kvm_mmu_notifier_release(kvm);
	sev_vm_destroy(kvm);
	kvm_for_each_vcpu(i, vcpu, kvm) {
		if (!vcpu->absent)
			sev_free_vcpu(vcpu);
	}
	sev_free_tracking(kvm);
	kvm_arch_free_vm(kvm);
}
