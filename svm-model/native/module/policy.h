/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a policy's text finds: the kernel's own masks, atomics and locks, and calls to other pCPUs that go through
 * calls.h. Included before the text, which is compiled as it is but for what `sevsim module` says above it.
 */
#ifndef SEVSIM_POLICY_H
#define SEVSIM_POLICY_H

#include <linux/atomic.h>
#include <linux/bitops.h>
#include <linux/bug.h>
#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/irqflags.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/preempt.h>
#include <linux/rwsem.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/string.h>

#include "calls.h"
#include "internal.h"

/* The name of a policy's own function or variable in the module. */
#define SEVSIM_OF(number, name) sevsim_ ## number ## _ ## name

/*
 * The language's masks are there from the start. As arrays they are, also where the kernel keeps its own off the stack;
 * the compiler empties those of functions (-ftrivial-auto-var-init=zero).
 */
typedef struct cpumask sevsim_mask_t[1];
#define cpumask_var_t sevsim_mask_t

#undef zalloc_cpumask_var
#undef alloc_cpumask_var
#undef free_cpumask_var
#undef cpumask_available
#define zalloc_cpumask_var(mask, flags) (cpumask_clear(*(mask)), true)
#define alloc_cpumask_var(mask, flags) zalloc_cpumask_var(mask, flags)
#define free_cpumask_var(mask) ((void)(mask))
#define cpumask_available(mask) true

/* local = shared, shared = other or empty, each word by one xchg. */
static inline __maybe_unused void cpumask_xchg(struct cpumask *local, struct cpumask *shared, const struct cpumask *other)
{
	unsigned int word;

	for (word = 0; word < BITS_TO_LONGS(nr_cpu_ids); word++)
		cpumask_bits(local)[word] = xchg(&cpumask_bits(shared)[word], other ? cpumask_bits(other)[word] : 0);
}

#define kvm_get_running_vcpu() sevsim_running_vcpu()
#define cpu_llc_shared_mask(cpu) sevsim_llc_mask(cpu)
#define sme_coherent() sevsim_sme_coherent()
#define has_wbnoinvd() sevsim_has_wbnoinvd()
#define trace_sev_writeback(begins) ((void)(begins))

#define wbinvd() sevsim_write_back(SEVSIM_WBINVD)
#define wbnoinvd() sevsim_write_back(SEVSIM_WBNOINVD)

static inline __maybe_unused void __wbinvd(void *unused)
{
	wbinvd();
}

static inline __maybe_unused void __wbnoinvd(void *unused)
{
	wbnoinvd();
}

/* `sevsim module` refuses texts that do not wait. */
#define on_each_cpu_mask(mask, fn, info, wait) sevsim_call_mask(mask, true, fn, info)
#define on_each_cpu(fn, info, wait) sevsim_call_mask(cpu_online_mask, true, fn, info)
#define smp_call_function_many(mask, fn, info, wait) sevsim_call_mask(mask, false, fn, info)
#define smp_call_function_single(cpu, fn, info, wait) sevsim_call_one(cpu, fn, info)

#define wbinvd_on_cpu(cpu) sevsim_call_one(cpu, __wbinvd, NULL)
#define wbnoinvd_on_cpu(cpu) sevsim_call_one(cpu, __wbnoinvd, NULL)
#define wbinvd_on_all_cpus() sevsim_call_mask(cpu_online_mask, true, __wbinvd, NULL)
#define wbnoinvd_on_all_cpus() sevsim_call_mask(cpu_online_mask, true, __wbnoinvd, NULL)
#define wbinvd_on_cpus_mask(mask) sevsim_call_mask(mask, true, __wbinvd, NULL)
#define wbnoinvd_on_cpus_mask(mask) sevsim_call_mask(mask, true, __wbnoinvd, NULL)

enum mmu_notifier_event_numbers {
	MMU_NOTIFY_UNMAP, MMU_NOTIFY_CLEAR, MMU_NOTIFY_RELEASE = 6, MMU_NOTIFY_MIGRATE, MMU_NOTIFY_EXCLUSIVE
};

#endif
