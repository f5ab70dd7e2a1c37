/*
 * A kernel with nothing in it but what a flush protocol needs: guest entry, the IPI call one CPU after the other, and a
 * reclaim that unmaps, asks the policy, and frees. For measuring the explorer beside other checkers on a model that can
 * be written by hand in their languages, step for step (flush-model.pml). No claim about any Linux follows from it.
 *
 * Interrupts stay on: a CPU takes an IPI wherever it is, over the guest, too.
 */

#define IN_ORDER 1

/* The policy's functions; the tracking ones are declared for policies that have them, and never called. */
void pre_sev_run(struct kvm_vcpu *vcpu, int cpu);
void sev_writeback_caches(struct kvm *kvm);
int sev_alloc_tracking(struct kvm *kvm);
void sev_free_tracking(struct kvm *kvm);

static void __wbinvd(void *dummy)
{
	wbinvd();
}

/* The caller is on none of these CPUs. IPIs leave in the order of the CPUs' numbers, or in any. */
static void wbinvd_on_cpus_mask(const struct cpumask *cpus)
{
	cpumask_var_t unsent;
	cpumask_var_t every;
	int cpu;

	cpumask_copy(unsent, cpus);
	if (cpumask_empty(unsent))
		return;
	while (!cpumask_empty(unsent)) {
		cpu = IN_ORDER ? cpumask_first(unsent) : cpumask_any(unsent);
		__cpumask_clear_cpu(cpu, unsent);
		/* 0, not NULL: what is passed is then the same whether a call is under way or not. */
		call_single_queue(cpu, __wbinvd, 0, true);
	}
	/* Those that were not asked have nothing to be waited for. */
	cpumask_setall(every);
	csd_lock_wait_mask(every);
}

/* No vCPU is ever registered with the scheduler as loaded: these are not called. */
void vcpu_sched_out(struct kvm_vcpu *vcpu)
{
}

void vcpu_sched_in(struct kvm_vcpu *vcpu)
{
}

/* Between two stays in the guest the scheduler may move the thread. */
void vcpu_thread(struct kvm_vcpu *vcpu)
{
	for (;;) {
		preempt_disable();
		pre_sev_run(vcpu, smp_processor_id());
		vmrun(vcpu);
		preempt_enable();
	}
}

void reclaim(struct kvm *kvm, struct page *page)
{
	zap_spte(kvm, page);
	sev_writeback_caches(kvm);
	free_page(page);
}
