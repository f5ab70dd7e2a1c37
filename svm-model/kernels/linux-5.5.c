/*
 * Linux 5.5, the broken window: WBINVD and DF_FLUSH moved from every guest's end to the recycling of ASIDs
 * (33af3a7ef9e6), and nothing was left where pages are handed back but CLFLUSH through the host's mapping, which does
 * not reach the guest's lines. Fixed by 2e2409afe5f0.
 */
#include "linux-5.17.c"

#define FLUSH_ON_DESTROY 0
#define FLUSH_ON_UNREGISTER 0

/* No SME_COHERENT check before e1ebb2b49048. */
static void sev_clflush_pages(struct page *page)
{
	clflush_page(page);
}

static void __unregister_enc_region_locked(struct kvm *kvm, struct page *page)
{
	sev_clflush_pages(page);
	page->registered = false;
	unpin_user_page(page);
}

/* No site of this kernel asks for it: a policy has nothing to say here. */
void sev_writeback_caches(struct kvm *kvm)
{
}
