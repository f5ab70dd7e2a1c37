/*
 * Linux 7.3: as 6.17, but that moving a VM's SEV context writes back the source's caches too (973ea70393e8, from
 * 7.3-rc5 on), and that a VM whose context has moved away leaks no mask. The guest_memfd hooks got other names
 * (make_private, make_shared) and do the same.
 */
#include "linux-6.17.c"

#define FLUSH_ON_MIGRATE 1
#define FREE_TRACKING_FIRST 0
#define FREE_TRACKING_ALWAYS 1
