/* SPDX-License-Identifier: GPL-2.0 */
/* What the files of the module share. */
#ifndef SEVSIM_INTERNAL_H
#define SEVSIM_INTERNAL_H

#include <linux/cpumask.h>
#include <linux/types.h>

#include "sevsim_flush.h"

struct kvm;
struct kvm_vcpu;

/* A policy's functions, of its own types; those that its text leaves out are NULL. Generated with the text. */
struct sevsim_policy {
	const char *name;
	const char *text;
	size_t text_len;
	size_t kvm_size;
	size_t vcpu_size;
	void (*reset)(void);
	void (*init_kvm)(struct kvm *kvm);
	void (*init_vcpu)(struct kvm_vcpu *vcpu, struct kvm *kvm, int idx);
	void (*sev_vcpu_load_prepare)(struct kvm_vcpu *vcpu, int cpu);
	void (*sev_vcpu_load)(struct kvm_vcpu *vcpu, int cpu);
	void (*sev_vcpu_put)(struct kvm_vcpu *vcpu);
	void (*pre_sev_run)(struct kvm_vcpu *vcpu, int cpu);
	bool (*sev_notifier_skips)(struct kvm *kvm, int event);
	void (*sev_writeback_caches)(struct kvm *kvm);
	int (*sev_alloc_tracking)(struct kvm *kvm);
	void (*sev_free_tracking)(struct kvm *kvm);
};

extern const struct sevsim_policy *const sevsim_policies[];
extern const unsigned int sevsim_nr_policies;

/* cpu.c */
u64 sevsim_tsc(void);
u64 sevsim_us(u64 cycles);
u64 sevsim_cycles(u64 us);
bool sevsim_has_wbnoinvd(void);
bool sevsim_sme_coherent(void);
u32 sevsim_execute(u32 op, u32 sharers, u64 *in, u64 *out);
u64 sevsim_stall_us(void);
u64 sevsim_stall_seen_us(void);
u64 sevsim_one_us(void);
u64 sevsim_write_back_us(u32 sharers);
u32 sevsim_sharers(const struct cpumask *mask);
u64 sevsim_flushes(void);
u64 sevsim_last_flush(int cpu);
const struct cpumask *sevsim_llc_mask(int cpu);
void sevsim_set_llc(const u32 *llc, u32 len);
int sevsim_cpu_init(void);
void sevsim_cpu_exit(void);

/* main.c */
u64 sevsim_stall_limit_us(void);
int sevsim_take_turn(void);
void sevsim_turn_over(u64 cycles);

struct sevsim_session;

/* flush.c */
long sevsim_flush(const struct sevsim_session *own, struct sevsim_flush __user *to);

/* session.c */
int sevsim_flush_begin(const struct sevsim_session *own);
void sevsim_flush_end(void);
bool sevsim_kvm_entry_found(void);
bool sevsim_in_session(void);
int sevsim_session_start(const struct sevsim_start *start, const u32 *llc, struct sevsim_session **session);
void sevsim_session_end(struct sevsim_session *session);
int sevsim_session_bind(struct sevsim_session *session, const struct sevsim_bind *bind);
int sevsim_session_unbind(struct sevsim_session *session);
long sevsim_session_reclaim(struct sevsim_session *session, struct sevsim_reclaim __user *to);

#endif
