/*
 * Linux 5.18 to 6.10: as 6.11, without guest_memfd. Reclaim writes back for every SEV guest (683412ccf612), of
 * SEV-SNP too in the trees that had it before 6.11. The VMSA page is flushed on every CPU and falls back where the
 * page flush faults (d45829b351ee, 4bbef7e8eb8c). A region that is registered is CLFLUSHed after kvm->lock is given
 * back, when another thread may have freed it: fixed in February 2024 (5ef1d8c1ddbf), so that the last kernels of
 * this era are better than this text.
 */
#include "linux-6.11.c"

#define RECLAIM_SKIPS_SNP 0
#define REGION_CLFLUSH_UNDER_LOCK 0

void kvm_gmem_punch_hole(struct kvm *kvm, struct page *page)
{
	BUILD_BUG(); /* guest_memfd has had SEV-SNP guests' memory since 6.11. */
}
