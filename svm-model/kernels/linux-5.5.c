/*
 * Linux 5.5, the broken window: WBINVD and DF_FLUSH moved from every guest's end to the recycling of ASIDs
 * (33af3a7ef9e6), and nothing was left where pages are handed back but CLFLUSH through the host's mapping, which does
 * not reach the guest's lines. Fixed by 2e2409afe5f0.
 */
#include "linux-5.17.c"

/* SEV-ES came with 5.11. */
#define KVM_LAST_VM_TYPE KVM_X86_SEV_VM
#define KVM_CAP_VM_COPY_ENC_CONTEXT_FROM 0
#define FLUSH_ON_DESTROY 0
#define FLUSH_ON_UNREGISTER 0

/* No SME_COHERENT check before e1ebb2b49048. */
static void sev_clflush_pages(struct page *page)
{
	clflush_page(page);
}

/* Before 19a23da53932 nobody but the caller knows the region yet when its pages are pinned and CLFLUSHed. */
int sev_mem_enc_register_region(struct kvm *kvm, struct page *page)
{
	struct enc_region *region;

	if (!sev_guest(kvm))
		return -ENOTTY;
	region = kzalloc(sizeof(*region), GFP_KERNEL_ACCOUNT);
	if (!region)
		return -ENOMEM;
	if (!pin_user_page(page)) {
		kfree(region);
		return -EFAULT;
	}
	region->page = page;
	if (FLUSH_ON_REGISTER)
		sev_clflush_pages(region->page);
	mutex_lock(&kvm->lock);
	region->next = kvm->regions_list;
	kvm->regions_list = region;
	mutex_unlock(&kvm->lock);
	return 0;
}

static void __unregister_enc_region_locked(struct kvm *kvm, struct enc_region *region)
{
	sev_clflush_pages(region->page);
	unpin_user_page(region->page);
	list_del_region(kvm, region);
	kfree(region);
}

int sev_vm_copy_enc_context_from(struct kvm *kvm, struct kvm *source)
{
	BUILD_BUG(); /* Mirrors came with 5.13. */
}

int sev_vm_move_enc_context_from(struct kvm *kvm, struct kvm *source)
{
	BUILD_BUG(); /* Intra-host migration came with 5.16. */
}

/* No site of this kernel asks for it: a policy has nothing to say here. */
void sev_writeback_caches(struct kvm *kvm)
{
}
