// SPDX-License-Identifier: GPL-2.0
/* The instructions, the clock, what is known of each pCPU's write-backs, and who shares an L3. */
#include <linux/log2.h>
#include <linux/percpu.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <asm/cpufeature.h>
#include <asm/processor.h>
#include <asm/tsc.h>

#include "internal.h"

/*
 * What one L3's caches are taken to write back at least, MB a second: no figure is published. A fifth of what one core
 * of a Zen 4 writes back by CLFLUSH.
 */
#define WORST_MB_S 4000

/* The latest write-back of a pCPU that is over: when it began; and how many there were. */
struct done {
	u64 in;
	u64 count;
};

static DEFINE_PER_CPU(struct done, sevsim_done);
static DEFINE_PER_CPU(struct cpumask *, sevsim_llc);
/* The L3 of a pCPU, as a number; of one that was offline when the module was loaded it is not known. */
#define NO_L3 U32_MAX
static DEFINE_PER_CPU(u32, sevsim_l3) = NO_L3;
static unsigned int l3_shift;
static u64 longest;
static u64 all_caches_bytes;

/* Own inlines: the kernel moves its own from header to header. */
u64 sevsim_tsc(void)
{
	u32 low, high;

	asm volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
	return (u64)high << 32 | low;
}

static void cpuid_leaf(u32 leaf, u32 sub, u32 *a, u32 *b, u32 *c, u32 *d)
{
	asm volatile("cpuid" : "=a"(*a), "=b"(*b), "=c"(*c), "=d"(*d) : "0"(leaf), "2"(sub));
}

u64 sevsim_us(u64 cycles)
{
	return div_u64(cycles * 1000, tsc_khz ? tsc_khz : 1);
}

u64 sevsim_cycles(u64 us)
{
	return div_u64(us * (tsc_khz ? tsc_khz : 1), 1000);
}

bool sevsim_has_wbnoinvd(void)
{
	return boot_cpu_has(X86_FEATURE_WBNOINVD);
}

bool sevsim_sme_coherent(void)
{
	return boot_cpu_has(X86_FEATURE_SME_COHERENT);
}

/* Executes on this pCPU, preemption off, as so many at once under an L3; gives what was executed. */
u32 sevsim_execute(u32 op, u32 sharers, u64 *in, u64 *out)
{
	struct done *done;
	u64 each;

	if (op == SEVSIM_WBNOINVD && !sevsim_has_wbnoinvd())
		op = SEVSIM_WBINVD;
	*in = sevsim_tsc();
	switch (op) {
	case SEVSIM_WBINVD:
		asm volatile("wbinvd" : : : "memory");
		break;
	case SEVSIM_WBNOINVD:
		asm volatile(".byte 0xf3, 0x0f, 0x09" : : : "memory");
		break;
	}
	mb();
	*out = sevsim_tsc();
	if (op == SEVSIM_NOP)
		return op;
	done = this_cpu_ptr(&sevsim_done);
	WRITE_ONCE(done->in, *in);
	WRITE_ONCE(done->count, done->count + 1);
	/* A lost update of two at once only keeps the second longest. */
	each = div_u64(*out - *in, sharers);
	if (each > READ_ONCE(longest))
		WRITE_ONCE(longest, each);
	return op;
}

u64 sevsim_stall_us(void)
{
	return div_u64(all_caches_bytes, WORST_MB_S);
}

u64 sevsim_stall_seen_us(void)
{
	return sevsim_us(READ_ONCE(longest));
}

/* What one write-back is taken to last: the worst of what the caches' size says and what was seen. */
u64 sevsim_one_us(void)
{
	return max3(sevsim_stall_us(), sevsim_stall_seen_us(), 1ULL);
}

/*
 * The same of so many at once under one L3. What lies dirty there is written back once, however many ask for it, and the caches' size
 * counts all of it; but each of them looks through the L3, and how long they keep each other is known from what was seen only.
 * Before anything was, each counts as if all of it were dirty for it alone.
 */
u64 sevsim_write_back_us(u32 sharers)
{
	u64 seen = sevsim_stall_seen_us();

	return seen ? max3(sevsim_stall_us(), sharers * seen, 1ULL) : sharers * sevsim_one_us();
}

/* The most pCPUs of a mask that share an L3. */
u32 sevsim_sharers(const struct cpumask *mask)
{
	u32 most = 1;
	int cpu, other;

	for_each_cpu(cpu, mask) {
		u32 mine = per_cpu(sevsim_l3, cpu), share = 0;

		for_each_cpu(other, mask) {
			u32 theirs = per_cpu(sevsim_l3, other);

			share += mine == theirs || mine == NO_L3 || theirs == NO_L3;
		}
		most = max(most, share);
	}
	return most;
}

u64 sevsim_flushes(void)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu(sevsim_done, cpu).count);
	return sum;
}

u64 sevsim_last_flush(int cpu)
{
	return READ_ONCE(per_cpu(sevsim_done, cpu).in);
}

const struct cpumask *sevsim_llc_mask(int cpu)
{
	return per_cpu(sevsim_llc, cpu);
}

/* Who shares an L3 with whom, by a number for each pCPU: the kernel's own masks are not for modules. */
void sevsim_set_llc(const u32 *llc, u32 len)
{
	int cpu, other;

	for_each_possible_cpu(cpu) {
		struct cpumask *mask = per_cpu(sevsim_llc, cpu);

		cpumask_clear(mask);
		cpumask_set_cpu(cpu, mask);
		for_each_possible_cpu(other)
			if (cpu < len && other < len && llc[cpu] == llc[other])
				cpumask_set_cpu(other, mask);
	}
}

/* The bytes of one L3 and of all caches below it. */
static u64 caches_bytes(void)
{
	bool amd = boot_cpu_data.x86_vendor == X86_VENDOR_AMD || boot_cpu_data.x86_vendor == X86_VENDOR_HYGON;
	u32 a, b, c, d, max, ext, leaf, sub;
	u64 bytes = 0;

	cpuid_leaf(0, 0, &max, &b, &c, &d);
	cpuid_leaf(0x80000000, 0, &ext, &b, &c, &d);
	leaf = amd ? (ext >= 0x8000001d ? 0x8000001d : 0) : (max >= 4 ? 4 : 0);
	for (sub = 0; leaf && sub < 8; sub++) {
		u64 size;

		cpuid_leaf(leaf, sub, &a, &b, &c, &d);
		if (!(a & 31))
			break;
		if ((a & 31) == 2)
			continue;
		size = (u64)((b >> 22) + 1) * ((b >> 12 & 0x3ff) + 1) * ((b & 0xfff) + 1) * (c + 1);
		if ((a >> 5 & 7) >= 3)
			l3_shift = order_base_2((a >> 14 & 0xfff) + 1);
		/* Below an L3 there are as many lower caches as it has sharers, at most. */
		bytes = (a >> 5 & 7) < 3 ? bytes + size : bytes * ((a >> 14 & 0xfff) + 1) + size;
	}
	/* A CPU that does not tell: as large as any. */
	return bytes ? bytes : 128ULL << 20;
}

/* On each pCPU. */
static void note_l3(void *unused)
{
	u32 a, b, c, d, max, id;

	cpuid_leaf(0, 0, &max, &b, &c, &d);
	cpuid_leaf(1, 0, &a, &b, &c, &d);
	id = b >> 24;
	if (max >= 0xb) {
		cpuid_leaf(0xb, 0, &a, &b, &c, &d);
		/* The leaf is there: it names threads. */
		if (b)
			id = d;
	}
	/* A CPU that tells of no L3: they may all share one. */
	this_cpu_write(sevsim_l3, l3_shift ? id >> l3_shift : 0);
}

int sevsim_cpu_init(void)
{
	int cpu;

	for_each_possible_cpu(cpu) {
		per_cpu(sevsim_llc, cpu) = kzalloc(cpumask_size(), GFP_KERNEL);
		if (!per_cpu(sevsim_llc, cpu)) {
			sevsim_cpu_exit();
			return -ENOMEM;
		}
	}
	sevsim_set_llc(NULL, 0);
	all_caches_bytes = caches_bytes();
	on_each_cpu(note_l3, NULL, true);
	return 0;
}

void sevsim_cpu_exit(void)
{
	int cpu;

	for_each_possible_cpu(cpu) {
		kfree(per_cpu(sevsim_llc, cpu));
		per_cpu(sevsim_llc, cpu) = NULL;
	}
}
