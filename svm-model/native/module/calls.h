/* SPDX-License-Identifier: GPL-2.0 */
/* What a policy's text calls in the place of the kernel's own, so that each write-back is known with who asked for it. */
#ifndef SEVSIM_CALLS_H
#define SEVSIM_CALLS_H

#include <linux/cpumask.h>
#include <linux/types.h>

struct kvm_vcpu;

/* fn(info) on each pCPU of the mask, waited for; on the caller's own too if `self` says so. */
void sevsim_call_mask(const struct cpumask *mask, bool self, void (*fn)(void *info), void *info);
void sevsim_call_one(int cpu, void (*fn)(void *info), void *info);
void sevsim_write_back(u32 op);
/* Asked in each round of a loop that the text has: false ends it. */
bool sevsim_goes_on(void);
struct kvm_vcpu *sevsim_running_vcpu(void);

#endif
