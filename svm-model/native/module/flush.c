// SPDX-License-Identifier: GPL-2.0
/* SEVSIM_FLUSH: one write-back on a mask, after dirtying what the request says, timed on every pCPU. */
#include <linux/cpu.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/uaccess.h>

#include "internal.h"

#define LINE 64
#define LINES_MAX (256ULL << 20 >> 6)	/* of one pCPU's buffer: 256 MiB */
#define BYTES_MAX (1ULL << 30)		/* of all buffers of a request */
#define CHUNK_ORDER 9			/* 2 MiB, so that the direct map's large pages serve */
/* Dirtying a line and reading it again, each at most: in order, at 2.5 GB/s of one pCPU, and 8 GB/s of all together. */
#define LINE_NS 25
#define LINES_MB_S 8000
/* How much later than another a pCPU may come, that had interrupts off when it was asked. */
#define SKEW_US 1000

/* A pCPU's lines, in pieces that are contiguous. */
struct buffer {
	u64 lines;
	unsigned int order;
	unsigned int chunks;
	u8 *chunk[];
};

struct job {
	u32 op;
	u32 flags;
	atomic_t order;
	atomic_t missing;	/* pCPUs that have not dirtied their lines */
	u32 at_once;		/* pCPUs that are at it together */
	u32 sharers;		/* those of them under one L3, at most */
	u64 patience;		/* cycles after which a pCPU, since it came, waits for no other any more */
	bool dirty_here;	/* not by another pCPU before */
	struct sevsim_cpu *cpus;
	struct buffer **buffers;
};

static DEFINE_MUTEX(one_at_a_time);
static u64 sink;

static void free_buffer(struct buffer *buffer)
{
	unsigned int n;

	if (!buffer)
		return;
	for (n = 0; n < buffer->chunks; n++)
		free_pages((unsigned long)buffer->chunk[n], buffer->order);
	kfree(buffer);
}

/* Beside a pCPU if it can be, or on the node that was asked for and nowhere else. */
static struct buffer *new_buffer(u64 lines, int node, gfp_t only)
{
	u64 bytes = lines * LINE;
	unsigned int order = min_t(unsigned int, get_order(bytes), CHUNK_ORDER);
	u64 chunk = PAGE_SIZE << order;
	unsigned int chunks = div64_u64(bytes + chunk - 1, chunk);
	struct buffer *buffer = kzalloc(struct_size(buffer, chunk, chunks), GFP_KERNEL);

	if (!buffer)
		return NULL;
	buffer->lines = lines;
	buffer->order = order;
	for (; buffer->chunks < chunks; buffer->chunks++) {
		struct page *page = alloc_pages_node(node, GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN | only, order);

		if (!page) {
			free_buffer(buffer);
			return NULL;
		}
		buffer->chunk[buffer->chunks] = page_address(page);
	}
	return buffer;
}

static u8 *line_of(const struct buffer *buffer, u64 n)
{
	u64 at = n * LINE;

	return buffer->chunk[at >> (PAGE_SHIFT + buffer->order)] + (at & ((PAGE_SIZE << buffer->order) - 1));
}

static void dirty(struct buffer *buffer)
{
	u64 n;

	for (n = 0; n < buffer->lines; n++)
		WRITE_ONCE(*line_of(buffer, n), (u8)n);
	mb();
}

static void dirty_for_another(void *arg)
{
	dirty(arg);
}

static u64 refill(const struct buffer *buffer)
{
	u64 n, sum = 0, begin = sevsim_tsc();

	for (n = 0; n < buffer->lines; n++)
		sum += READ_ONCE(*line_of(buffer, n));
	WRITE_ONCE(sink, sum);
	return sevsim_tsc() - begin;
}

/* On each pCPU of the mask, interrupts off. */
static void flush_here(void *arg)
{
	struct job *job = arg;
	int cpu = smp_processor_id();
	struct sevsim_cpu *result = &job->cpus[cpu];
	struct buffer *buffer = job->buffers ? job->buffers[cpu] : NULL;
	u64 in, out, begin = sevsim_tsc();

	if (job->flags & SEVSIM_PREWARM)
		sevsim_execute(SEVSIM_WBINVD, job->sharers, &in, &out);
	if (buffer && job->dirty_here)
		dirty(buffer);
	/* All begin together, so that they load the memory together. */
	atomic_dec(&job->missing);
	while (atomic_read(&job->missing) > 0 && sevsim_tsc() - begin < job->patience)
		cpu_relax();

	sevsim_execute(job->op, job->sharers, &result->tsc_in, &result->tsc_out);
	if (buffer && job->flags & SEVSIM_REFILL)
		result->refill = refill(buffer);
	result->cpu = cpu;
	result->order = atomic_inc_return(&job->order);
}

/* What a pCPU's lines take: its own at its own worst, or those of all that are at it with the memory between them. */
static u64 lines_us(const struct sevsim_flush *ask, const struct job *job)
{
	u64 all = ask->dirty_lines * LINE * job->at_once;

	return max(div_u64(ask->dirty_lines * LINE_NS, 1000), div_u64(all, LINES_MB_S));
}

/* After how long a pCPU has prepared itself at its worst, and so have the others that it waits for, in us. */
static u64 prepared_us(const struct sevsim_flush *ask, const struct job *job)
{
	u64 us = lines_us(ask, job);

	if (ask->flags & SEVSIM_PREWARM)
		us += sevsim_write_back_us(job->sharers);
	return job->at_once > 1 ? us + SKEW_US : us;
}

/* How long a pCPU may be kept from all else, in us: what the request asks for, each part at its worst. */
static u64 stall_of(const struct sevsim_flush *ask, const struct job *job)
{
	u64 us = prepared_us(ask, job);

	if (ask->op != SEVSIM_NOP)
		us += sevsim_write_back_us(job->sharers);
	if (ask->flags & SEVSIM_REFILL)
		us += lines_us(ask, job);
	return us;
}

static int check(const struct sevsim_flush *ask)
{
	if (ask->size != sizeof(*ask) || ask->op > SEVSIM_WBNOINVD || ask->how > SEVSIM_SERIAL)
		return -EINVAL;
	if (ask->flags & ~(SEVSIM_STRICT | SEVSIM_PREWARM | SEVSIM_REFILL))
		return -EINVAL;
	if (ask->dirty_by < -1 || ask->dirty_node < -1)
		return -EINVAL;
	/* Nothing to read again, and nothing that another could dirty. */
	if (!ask->dirty_lines && (ask->flags & SEVSIM_REFILL || ask->dirty_by >= 0))
		return -EINVAL;
	/* It would write back what the other has just dirtied. */
	if (ask->flags & SEVSIM_PREWARM && ask->dirty_by >= 0)
		return -EINVAL;
	if (ask->op == SEVSIM_WBNOINVD && ask->flags & SEVSIM_STRICT && !sevsim_has_wbnoinvd())
		return -EOPNOTSUPP;
	if (ask->dirty_lines > LINES_MAX)
		return -E2BIG;
	return 0;
}

/* The pCPUs asked for; every one must be there, and none may be kept for too long. */
static int mask_of(const struct sevsim_flush *ask, struct cpumask *mask, struct job *job)
{
	unsigned int bit;

	for (bit = 0; bit < SEVSIM_MASK_WORDS * 64; bit++) {
		if (!(ask->mask[bit / 64] >> (bit % 64) & 1))
			continue;
		if (bit >= nr_cpu_ids || !cpu_online(bit))
			return -EINVAL;
		cpumask_set_cpu(bit, mask);
	}
	if (cpumask_empty(mask))
		return -EINVAL;
	if (ask->dirty_by >= 0 &&
	    (cpumask_weight(mask) != 1 || ask->dirty_by >= nr_cpu_ids || !cpu_online(ask->dirty_by)))
		return -EINVAL;
	if (ask->dirty_node >= 0 && (ask->dirty_node >= nr_node_ids || !node_online(ask->dirty_node)))
		return -EINVAL;
	if (ask->dirty_lines * LINE * cpumask_weight(mask) > BYTES_MAX)
		return -E2BIG;
	job->at_once = ask->how == SEVSIM_PARALLEL ? cpumask_weight(mask) : 1;
	job->sharers = ask->how == SEVSIM_PARALLEL ? sevsim_sharers(mask) : 1;
	if (stall_of(ask, job) > sevsim_stall_limit_us())
		return -ETIME;
	return 0;
}

static int make_buffers(const struct sevsim_flush *ask, const struct cpumask *mask, struct job *job)
{
	int cpu;

	if (!ask->dirty_lines)
		return 0;
	job->buffers = kvcalloc(nr_cpu_ids, sizeof(*job->buffers), GFP_KERNEL);
	if (!job->buffers)
		return -ENOMEM;
	for_each_cpu(cpu, mask) {
		int node = ask->dirty_node >= 0 ? ask->dirty_node : cpu_to_node(cpu);

		job->buffers[cpu] = new_buffer(ask->dirty_lines, node, ask->dirty_node >= 0 ? __GFP_THISNODE : 0);
		if (!job->buffers[cpu])
			return -ENOMEM;
		if (fatal_signal_pending(current))
			return -EINTR;
	}
	return 0;
}

static int dirty_before(const struct sevsim_flush *ask, const struct cpumask *mask, const struct job *job)
{
	if (job->dirty_here)
		return 0;
	return smp_call_function_single(ask->dirty_by, dirty_for_another, job->buffers[cpumask_first(mask)], true);
}

/* All at once. pCPUs may have gone while nobody held them: those are not there any more. */
static int run_together(struct sevsim_flush *ask, const struct cpumask *mask, struct job *job)
{
	int ret = -ENXIO;

	cpus_read_lock();
	if (cpumask_subset(mask, cpu_online_mask))
		ret = dirty_before(ask, mask, job);
	if (!ret) {
		atomic_set(&job->missing, cpumask_weight(mask));
		preempt_disable();
		ask->caller_cpu = smp_processor_id();
		ask->tsc_begin = sevsim_tsc();
		on_each_cpu_mask(mask, flush_here, job, true);
		ask->tsc_end = sevsim_tsc();
		preempt_enable();
	}
	cpus_read_unlock();
	return ret;
}

/* Whatever keeps a pCPU for long takes a turn; an IPI alone does not. */
static int run(struct sevsim_flush *ask, const struct cpumask *mask, struct job *job)
{
	bool turns = ask->op != SEVSIM_NOP || ask->flags & SEVSIM_PREWARM || ask->dirty_lines;
	u64 begin;
	int cpu, ret;

	job->patience = sevsim_cycles(prepared_us(ask, job));
	if (ask->how == SEVSIM_PARALLEL) {
		ret = turns ? sevsim_take_turn() : 0;
		if (ret)
			return ret;
		begin = sevsim_tsc();
		ret = run_together(ask, mask, job);
		if (turns)
			sevsim_turn_over(sevsim_tsc() - begin);
		return ret;
	}
	ask->caller_cpu = raw_smp_processor_id();
	ask->tsc_begin = sevsim_tsc();
	for_each_cpu(cpu, mask) {
		ret = turns ? sevsim_take_turn() : 0;
		if (ret)
			return ret;
		if (signal_pending(current))
			return -EINTR;
		begin = sevsim_tsc();
		atomic_set(&job->missing, 1);
		ret = dirty_before(ask, mask, job);
		if (!ret)
			ret = smp_call_function_single(cpu, flush_here, job, true);
		if (turns)
			sevsim_turn_over(sevsim_tsc() - begin);
		if (ret)
			return ret;
		cond_resched();
	}
	ask->tsc_end = sevsim_tsc();
	return 0;
}

static long answer(struct sevsim_flush __user *to, struct sevsim_flush *ask, const struct cpumask *mask,
		   const struct job *job)
{
	struct sevsim_cpu __user *results = u64_to_user_ptr(ask->results);
	int cpu;

	ask->results_len = 0;
	for_each_cpu(cpu, mask) {
		if (ask->results_len >= ask->results_max)
			break;
		if (copy_to_user(&results[ask->results_len++], &job->cpus[cpu], sizeof(*results)))
			return -EFAULT;
	}
	return copy_to_user(to, ask, sizeof(*ask)) ? -EFAULT : 0;
}

long sevsim_flush(const struct sevsim_session *own, struct sevsim_flush __user *to)
{
	struct sevsim_flush *ask = memdup_user(to, sizeof(*ask));
	struct job job = { };
	cpumask_var_t mask;
	long ret;
	int cpu;

	if (IS_ERR(ask))
		return PTR_ERR(ask);
	ret = -ENOMEM;
	if (!zalloc_cpumask_var(&mask, GFP_KERNEL))
		goto free_ask;
	ret = check(ask);
	if (ret)
		goto free_mask;
	cpus_read_lock();
	ret = mask_of(ask, mask, &job);
	cpus_read_unlock();
	if (ret)
		goto free_mask;
	ret = sevsim_flush_begin(own);
	if (ret)
		goto free_mask;
	ret = mutex_lock_interruptible(&one_at_a_time);
	if (ret)
		goto end;
	ret = -ENOMEM;
	job.cpus = kvcalloc(nr_cpu_ids, sizeof(*job.cpus), GFP_KERNEL);
	if (!job.cpus)
		goto unlock;
	job.op = ask->op;
	job.flags = ask->flags;
	job.dirty_here = ask->dirty_by < 0;
	ret = make_buffers(ask, mask, &job);
	if (!ret)
		ret = run(ask, mask, &job);
unlock:
	mutex_unlock(&one_at_a_time);
end:
	sevsim_flush_end();
	/* Written where the caller wants it when nobody waits for it any more: its memory may be slow to come. */
	if (!ret) {
		ask->op_used = ask->op == SEVSIM_WBNOINVD && !sevsim_has_wbnoinvd() ? SEVSIM_WBINVD : ask->op;
		ret = answer(to, ask, mask, &job);
	}
	if (job.buffers)
		for_each_possible_cpu(cpu)
			free_buffer(job.buffers[cpu]);
	kvfree(job.buffers);
	kvfree(job.cpus);
free_mask:
	free_cpumask_var(mask);
free_ask:
	kfree(ask);
	return ret;
}
