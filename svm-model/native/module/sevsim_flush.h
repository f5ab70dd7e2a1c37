/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/*
 * What /dev/sevsim_flush understands. Fixed-width fields only; every request says its own size, so that a program and
 * a module of different versions refuse each other. CAP_SYS_RAWIO is needed to open the device.
 */
#ifndef SEVSIM_FLUSH_H
#define SEVSIM_FLUSH_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define SEVSIM_ABI 2

/* The largest pCPU that a mask can name is 8191. */
#define SEVSIM_MASK_WORDS 128
#define SEVSIM_NAME 64
#define SEVSIM_VMS 16
#define SEVSIM_VCPUS 64

enum sevsim_op {
	SEVSIM_NOP,		/* the IPI alone */
	SEVSIM_WBINVD,
	SEVSIM_WBNOINVD,	/* a CPU without it executes WBINVD: `op_used` says so */
};

enum sevsim_how {
	SEVSIM_PARALLEL,	/* one call to all of the mask, waited for */
	SEVSIM_SERIAL,		/* one pCPU after the other */
};

/* Refuse WBNOINVD where it would be WBINVD. */
#define SEVSIM_STRICT	(1u << 0)
/* WBINVD first, so that nothing but what is dirtied here is dirty: not with `dirty_by`, whose lines it would write back. */
#define SEVSIM_PREWARM	(1u << 1)
/* Read the dirtied lines again afterwards, timed. */
#define SEVSIM_REFILL	(1u << 2)

struct sevsim_info {
	__u32 size;
	__u32 abi;
	__u32 nr_cpu_ids;
	__u32 has_wbnoinvd;
	__u32 sme_coherent;
	__u32 policies;		/* compiled into this module */
	__u32 kvm_entry;	/* 1 if KVM's tracepoint was found */
	__u32 in_session;	/* 1 if some process runs a policy */
	__u64 stall_us;		/* what a write-back of all caches below one L3 is taken to last at most */
	__u64 stall_seen_us;	/* the longest that was seen; of several at once under an L3, what each adds */
	__u64 stall_limit_us;	/* requests that may last longer are refused */
	__u64 flushes;		/* executed since the module was loaded, on all pCPUs */
};

struct sevsim_cpu {
	__u32 cpu;
	__u32 order;		/* of completion, from 1 */
	__u64 tsc_in;		/* before the instruction */
	__u64 tsc_out;		/* after it, fenced */
	__u64 refill;		/* cycles to read the dirtied lines again */
};

struct sevsim_flush {
	__u32 size;
	__u32 op;
	__u32 how;
	__u32 flags;
	__u64 mask[SEVSIM_MASK_WORDS];
	__u64 dirty_lines;	/* that each pCPU dirties before, of its own buffer */
	__s32 dirty_by;		/* who dirties them: -1 each pCPU itself, else this pCPU, of a mask of one */
	__s32 dirty_node;	/* where the buffers lie: -1 beside the pCPU */
	__u64 results;		/* struct sevsim_cpu[] */
	__u32 results_max;
	__u32 results_len;	/* out, as all below */
	__u32 op_used;
	__u32 caller_cpu;
	__u64 tsc_begin;	/* before the first IPI */
	__u64 tsc_end;		/* after the last pCPU has answered */
};

/* A policy that was compiled in: its name and its text as it was given. */
struct sevsim_policy_text {
	__u32 size;
	__u32 index;
	char name[SEVSIM_NAME];
	__u64 text;		/* char[] */
	__u32 text_max;
	__u32 text_len;		/* out: all of it, however much was copied */
};

/* A policy takes over VMs 0 .. vms - 1 of the calling process until the file is closed. */
struct sevsim_start {
	__u32 size;
	__u32 policy;
	__u32 vms;
	__u32 llc_len;
	__u64 llc;		/* __u32[]: the L3 of each pCPU, as a number; pCPUs beyond llc_len have one each */
};

/* The calling thread is this vCPU of this VM. */
struct sevsim_bind {
	__u32 size;
	__u32 vm;
	__u32 vcpu;
	__u32 pad;
};

/* What a pCPU had to do with a reclaim. */
struct sevsim_reclaimed {
	__u32 cpu;
	__u32 asked;		/* calls that the policy asked of it */
	__u32 flushed;		/* write-backs that it executed for this reclaim */
	__u32 op;		/* the last of them */
	__u64 tsc_in;
	__u64 tsc_out;
	__u64 entries_before;	/* times that the VM was entered here before the policy was asked */
	__u64 last_entry;	/* the last of them, or the one before; 0 if there was none */
	__u64 entries_after;	/* the same when it had answered */
	__u64 loads_before;	/* times that a vCPU of the VM was loaded here before the policy was asked */
	__u64 loads_after;
	__u64 flush_in;		/* before the latest write-back that was over when the policy had answered, whoever asked for it */
};

struct sevsim_reclaim {
	__u32 size;
	__u32 vm;
	__u32 event;		/* as MMU notifiers number them */
	__u32 results_max;
	__u64 results;		/* struct sevsim_reclaimed[], one a possible pCPU */
	__u32 results_len;	/* out, as all below */
	__u32 skipped;		/* the policy says that this event needs no write-back */
	__u32 refused;		/* write-backs beyond what one reclaim may execute on a pCPU */
	__u32 caller_cpu;
	__u64 tsc_begin;
	__u64 tsc_end;
};

#define SEVSIM_INFO	_IOWR('F', 0x60, struct sevsim_info)
#define SEVSIM_FLUSH	_IOWR('F', 0x61, struct sevsim_flush)
#define SEVSIM_POLICY	_IOWR('F', 0x62, struct sevsim_policy_text)
#define SEVSIM_START	_IOW('F', 0x63, struct sevsim_start)
#define SEVSIM_BIND	_IOW('F', 0x64, struct sevsim_bind)
#define SEVSIM_UNBIND	_IO('F', 0x65)
#define SEVSIM_RECLAIM	_IOWR('F', 0x66, struct sevsim_reclaim)

#endif
