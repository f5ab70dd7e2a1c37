/*
 * Linux 5.6 to 5.17: unregistering a region and VM destroy write back (2e2409afe5f0), the notifier does not: KVM took
 * guest memory for pinned. The VMSA page is flushed only on CPUs without SME_COHERENT, by a page flush that may fault
 * and then does nothing. A region that is registered is CLFLUSHed after kvm->lock is given back, since 19a23da53932.
 */
#include "linux-6.1.c"

#define KVM_LAST_VM_TYPE KVM_X86_SEV_ES_VM
#define FLUSH_ON_RECLAIM 0
#define FLUSH_ON_RELEASE 0
#define FLUSH_ON_MEMSLOT_DELETE 0
#define VMSA_CLFLUSH_IF_COHERENT 0
#define VMSA_FLUSH_FALLBACK 0

/* The notifier has no hook: nobody is asked about an event, or for a page. */
bool sev_notifier_skips(struct kvm *kvm, int event)
{
	return true;
}

void sev_writeback_page(struct kvm *kvm, struct page *page)
{
}

int sev_snp_init(void)
{
	BUILD_BUG(); /* SEV-SNP came later. */
}

int sev_snp_shutdown(void)
{
	BUILD_BUG(); /* SEV-SNP came later. */
}

int sev_update_firmware(void)
{
	BUILD_BUG(); /* Live updates came with SEV-SNP. */
}
