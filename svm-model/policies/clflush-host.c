/*
 * Rule:   the page that is handed back is CLFLUSHed line by line through the host's mapping; no IPI, no mask.
 * Cost:   64 CLFLUSHes a page, and nobody else's caches suffer.
 * Holds:  where the part has SME_COHERENT (Milan and later) and the page is named: for reclaim.
 * Broken: elsewhere: the host's mapping names other lines than the guest's (2e2409afe5f0); and a memslot that is deleted, a
 *         region that is unregistered or a VM that is destroyed names no page. For reclaim by host
 *         virtual address it was judged impractical even where it works: the address may map nothing any more, and KVM's own
 *         zaps would all have to flush.
 */

void sev_writeback_page(struct kvm *kvm, struct page *page)
{
	clflush_page(page);
}
