/*
 * Linux 5.18 to 6.10: as 6.11, without guest_memfd. Reclaim writes back for every SEV guest (683412ccf612), the VMSA
 * page is flushed on every CPU and falls back where the page flush faults (d45829b351ee, 4bbef7e8eb8c); a region that
 * is registered is CLFLUSHed after kvm->lock is given back, until 6.8 (5ef1d8c1ddbf).
 */
#include "linux-6.11.c"

#define RECLAIM_SKIPS_SNP 0
#define FLUSH_ON_GMEM_FREE 0
#define REGION_CLFLUSH_UNDER_LOCK 0
