/*
 * Linux 6.17: guest entry, the MMU notifier, the fault path, remote TLB flush, the IPI call and reclaim of
 * guest memory, as far as cache maintenance depends on them. Written for this model after arch/x86/kvm,
 * virt/kvm and kernel/smp.c of that release; names are the kernel's. What the machine itself does (VMRUN,
 * translations, IPI delivery, WBINVD, the page allocator) is built in: docs/LANGUAGE.md.
 *
 * Where this text is narrower than the kernel: docs/DEVIATIONS.md. The other places that maintain caches: sev-6.17.c.
 */
#include "sev-6.17.c"

enum vcpu_mode { OUTSIDE_GUEST_MODE, IN_GUEST_MODE, EXITING_GUEST_MODE };

/* Why the notifier is called; numbered as in 20231110003734.1014084-5. */
enum mmu_notifier_event {
	MMU_NOTIFY_UNMAP, MMU_NOTIFY_CLEAR, MMU_NOTIFY_RELEASE = 6, MMU_NOTIFY_MIGRATE, MMU_NOTIFY_EXCLUSIVE
};

/* What vmrun() returns; from EXIT_NPF on, a nested page fault of page (exit - EXIT_NPF). */
enum { EXIT_ERR = -1, EXIT_INTR, EXIT_HLT, EXIT_NPF };

struct kvm {
	rwlock_t mmu_lock;
	/* Both change under mmu_lock only, so that each change is one step. */
	atomic_t mmu_invalidate_seq;
	atomic_t mmu_invalidate_in_progress;
};

struct kvm_vcpu {
	enum vcpu_mode mode;
	bool request_tlb_flush;
	int cpu = -1;
};

DEFINE_PER_CPU(struct kvm_vcpu *, kvm_running_vcpu);

/* The policy's functions; a policy that leaves one out has an empty one. */
void sev_vcpu_load_prepare(struct kvm_vcpu *vcpu, int cpu);
void sev_vcpu_load(struct kvm_vcpu *vcpu, int cpu);
void sev_vcpu_put(struct kvm_vcpu *vcpu);
void pre_sev_run(struct kvm_vcpu *vcpu, int cpu);
void sev_vcpu_exit(struct kvm_vcpu *vcpu, int cpu);
void sev_writeback_caches(struct kvm *kvm);
void sev_writeback_page(struct kvm *kvm, struct page *page);
bool sev_notifier_skips(struct kvm *kvm, int event);

/* ---- kernel/smp.c ---- */

/* Preemption is off. The order in which the IPIs leave is not promised. */
static void smp_call_function_many_cond(const struct cpumask *mask, smp_call_func_t func, void *info,
					bool wait, bool run_local)
{
	cpumask_var_t targets;
	cpumask_var_t unsent;
	int this_cpu = smp_processor_id();
	unsigned long flags;
	bool local = false;
	int cpu;

	/* Who waits with interrupts off keeps others' calls waiting: it can deadlock. */
	WARN_ON(irqs_disabled());
	if (run_local)
		local = cpumask_test_cpu(this_cpu, mask);
	cpumask_and(targets, mask, cpu_online_mask);
	__cpumask_clear_cpu(this_cpu, targets);

	cpumask_copy(unsent, targets);
	while (!cpumask_empty(unsent)) {
		cpu = cpumask_any(unsent);
		__cpumask_clear_cpu(cpu, unsent);
		call_single_queue(cpu, func, info, wait);
	}

	if (local) {
		local_irq_save(flags);
		func(info);
		local_irq_restore(flags);
	}

	if (wait && !cpumask_empty(targets))
		csd_lock_wait_mask(targets);
}

static void smp_call_function_many(const struct cpumask *mask, smp_call_func_t func, void *info, bool wait)
{
	smp_call_function_many_cond(mask, func, info, wait, false);
}

static void on_each_cpu_mask(const struct cpumask *mask, smp_call_func_t func, void *info, bool wait)
{
	preempt_disable();
	smp_call_function_many_cond(mask, func, info, wait, true);
	preempt_enable();
}

static void on_each_cpu(smp_call_func_t func, void *info, bool wait)
{
	on_each_cpu_mask(cpu_online_mask, func, info, wait);
}

static void smp_call_function_single(int cpu, smp_call_func_t func, void *info, bool wait)
{
	cpumask_var_t target;
	unsigned long flags;
	int this_cpu = get_cpu();

	WARN_ON(irqs_disabled());
	if (cpu == this_cpu) {
		local_irq_save(flags);
		func(info);
		local_irq_restore(flags);
	} else if (cpu_online(cpu)) {
		call_single_queue(cpu, func, info, wait);
		__cpumask_set_cpu(cpu, target);
		if (wait)
			csd_lock_wait_mask(target);
	}
	put_cpu();
}

/* ---- arch/x86/lib/cache-smp.c ---- */

static void __wbinvd(void *dummy)
{
	wbinvd();
}

static void __wbnoinvd(void *dummy)
{
	wbnoinvd();
}

static void wbinvd_on_cpu(int cpu)
{
	smp_call_function_single(cpu, __wbinvd, NULL, true);
}

static void wbnoinvd_on_cpu(int cpu)
{
	smp_call_function_single(cpu, __wbnoinvd, NULL, true);
}

static void wbinvd_on_all_cpus(void)
{
	on_each_cpu(__wbinvd, NULL, true);
}

static void wbnoinvd_on_all_cpus(void)
{
	on_each_cpu(__wbnoinvd, NULL, true);
}

static void wbinvd_on_cpus_mask(const struct cpumask *cpus)
{
	on_each_cpu_mask(cpus, __wbinvd, NULL, true);
}

static void wbnoinvd_on_cpus_mask(const struct cpumask *cpus)
{
	on_each_cpu_mask(cpus, __wbnoinvd, NULL, true);
}

/* ---- virt/kvm/kvm_main.c: the vCPU and its thread ---- */

static struct kvm_vcpu *kvm_get_running_vcpu(void)
{
	return this_cpu_read(kvm_running_vcpu);
}

static void kvm_arch_vcpu_load(struct kvm_vcpu *vcpu, int cpu)
{
	sev_vcpu_load(vcpu, cpu);
	WRITE_ONCE(vcpu->cpu, cpu);
}

static void vcpu_load(struct kvm_vcpu *vcpu)
{
	int cpu = get_cpu();

	sev_vcpu_load_prepare(vcpu, cpu);
	__this_cpu_write(kvm_running_vcpu, vcpu);
	vcpu_set_loaded(vcpu, true);
	kvm_arch_vcpu_load(vcpu, cpu);
	put_cpu();
}

static void vcpu_put(struct kvm_vcpu *vcpu)
{
	preempt_disable();
	sev_vcpu_put(vcpu);
	vcpu_set_loaded(vcpu, false);
	__this_cpu_write(kvm_running_vcpu, NULL);
	preempt_enable();
}

/* Preempt notifiers: run over the vCPU's thread when the scheduler takes its pCPU away and gives it one. */
void vcpu_sched_out(struct kvm_vcpu *vcpu)
{
	sev_vcpu_put(vcpu);
	__this_cpu_write(kvm_running_vcpu, NULL);
	vcpu_sched_park();
}

void vcpu_sched_in(struct kvm_vcpu *vcpu)
{
	int cpu = smp_processor_id();

	sev_vcpu_load_prepare(vcpu, cpu);
	__this_cpu_write(kvm_running_vcpu, vcpu);
	kvm_arch_vcpu_load(vcpu, cpu);
}

/* ---- virt/kvm/kvm_main.c: requests ---- */

static void ack_kick(void *unused)
{
}

#define KVM_REQ_TLB_FLUSH 0
/* Nothing to do at the next entry: the kick alone is meant. */
#define KVM_REQ_OUTSIDE_GUEST_MODE 1

/* Both requests wait: a vCPU that is in the guest is kicked until it has answered; another sees the request at its
 * next entry. */
static bool kvm_make_all_cpus_request(struct kvm *kvm, int req)
{
	cpumask_var_t cpus;
	struct kvm_vcpu *vcpu;
	int i;
	int cpu;
	int me = get_cpu();
	bool called = false;

	kvm_for_each_vcpu(i, vcpu, kvm) {
		if (req == KVM_REQ_TLB_FLUSH)
			WRITE_ONCE(vcpu->request_tlb_flush, true);
		smp_mb__after_atomic();
		if (cmpxchg(&vcpu->mode, IN_GUEST_MODE, EXITING_GUEST_MODE) != OUTSIDE_GUEST_MODE) {
			cpu = READ_ONCE(vcpu->cpu);
			if (cpu != -1 && cpu != me)
				__cpumask_set_cpu(cpu, cpus);
		}
	}
	if (!cpumask_empty(cpus)) {
		smp_call_function_many(cpus, ack_kick, NULL, true);
		called = true;
	}
	put_cpu();
	return called;
}

static void kvm_flush_remote_tlbs(struct kvm *kvm)
{
	kvm_make_all_cpus_request(kvm, KVM_REQ_TLB_FLUSH);
}

/* ---- arch/x86/kvm/mmu: the fault path ---- */

static int kvm_mmu_fault(struct kvm_vcpu *vcpu, struct page *page)
{
	struct kvm *kvm = vcpu->kvm;
	int seq = atomic_read(&kvm->mmu_invalidate_seq);

	smp_rmb();
	/* Gone from the VMM's mapping: the guest faults again until the VMM has another page for it. */
	if (!user_pte_present(page))
		return 1;

	read_lock(&kvm->mmu_lock);
	if (!atomic_read(&kvm->mmu_invalidate_in_progress) && atomic_read(&kvm->mmu_invalidate_seq) == seq &&
	    !kvm_memslot_invalid(kvm, page))
		install_spte(kvm, page);
	read_unlock(&kvm->mmu_lock);
	return 1;
}

/* ---- arch/x86/kvm: guest entry ---- */

static bool kvm_vcpu_exit_request(struct kvm_vcpu *vcpu)
{
	return READ_ONCE(vcpu->mode) == EXITING_GUEST_MODE || READ_ONCE(vcpu->request_tlb_flush);
}

static int svm_vcpu_run(struct kvm_vcpu *vcpu)
{
	int cpu = smp_processor_id();
	int exit;

	if (sev_guest(vcpu->kvm))
		pre_sev_run(vcpu, cpu);
	exit = vmrun(vcpu);
	if (sev_guest(vcpu->kvm))
		sev_vcpu_exit(vcpu, cpu);
	return exit;
}

static int vcpu_enter_guest(struct kvm_vcpu *vcpu)
{
	int exit = EXIT_INTR;

	if (READ_ONCE(vcpu->request_tlb_flush)) {
		WRITE_ONCE(vcpu->request_tlb_flush, false);
		vcpu_flush_tlb(vcpu);
	}

	preempt_disable();
	local_irq_disable();
	WRITE_ONCE(vcpu->mode, IN_GUEST_MODE);
	smp_mb();
	if (!kvm_vcpu_exit_request(vcpu)) {
		for (;;) {
			exit = svm_vcpu_run(vcpu);
			/* Exits that the fast path handles go straight back, with interrupts still off. */
			if (exit != EXIT_INTR || maybe())
				break;
			if (kvm_vcpu_exit_request(vcpu))
				break;
		}
	}
	WRITE_ONCE(vcpu->mode, OUTSIDE_GUEST_MODE);
	smp_wmb();
	local_irq_enable();
	preempt_enable();

	if (exit == EXIT_HLT || exit == EXIT_ERR)
		return 0;
	if (exit >= EXIT_NPF)
		return kvm_mmu_fault(vcpu, vcpu_fault_page(exit));
	return 1;
}

/* ioctl(KVM_RUN) until the guest halts. */
void vcpu_thread(struct kvm_vcpu *vcpu)
{
	int r = 1;

	vcpu_load(vcpu);
	while (r > 0)
		r = vcpu_enter_guest(vcpu);
	vcpu_put(vcpu);
}

/* ---- the MMU notifier ---- */

static void kvm_mmu_notifier_start(struct kvm *kvm, struct page *page, int event)
{
	/* The slots are walked under SRCU; mmu_lock is taken at the first one found. */
	bool found = kvm_memslot_found(kvm, page);

	write_lock(&kvm->mmu_lock);
	atomic_inc(&kvm->mmu_invalidate_in_progress);
	if (found && zap_spte(kvm, page))
		kvm_flush_remote_tlbs(kvm);
	write_unlock(&kvm->mmu_lock);

	/* kvm_arch_guest_memory_reclaimed(), if there is guest memory at the address. */
	if (found && FLUSH_ON_RECLAIM && !sev_notifier_skips(kvm, event)) {
		trace_sev_writeback(true);
		sev_guest_memory_reclaimed(kvm);
		sev_writeback_page(kvm, page);
		trace_sev_writeback(false);
	}
}

static void kvm_mmu_notifier_invalidate_range_start(struct kvm *kvm, struct page *page)
{
	kvm_mmu_notifier_start(kvm, page, MMU_NOTIFY_CLEAR);
}

static void kvm_mmu_notifier_invalidate_range_end(struct kvm *kvm, struct page *page)
{
	write_lock(&kvm->mmu_lock);
	atomic_inc(&kvm->mmu_invalidate_seq);
	smp_wmb();
	atomic_dec(&kvm->mmu_invalidate_in_progress);
	write_unlock(&kvm->mmu_lock);
}

/* madvise(MADV_DONTNEED) and its like: the page leaves the VM and goes back to the allocator. */
void madvise_dontneed(struct kvm *kvm, struct page *page)
{
	kvm_mmu_notifier_invalidate_range_start(kvm, page);
	zap_user_pte(page);
	kvm_mmu_notifier_invalidate_range_end(kvm, page);
	free_page(page);
}

/* NUMA balancing and KSM call the notifier and free nothing. */
void numa_hint(struct kvm *kvm, struct page *page)
{
	kvm_mmu_notifier_invalidate_range_start(kvm, page);
	kvm_mmu_notifier_invalidate_range_end(kvm, page);
}

/* mm/ksm.c: write_protect_page() and replace_page() of one that has a twin, each between its own pair of calls; then
 * nobody maps the page any more. */
void ksm_merge(struct kvm *kvm, struct page *page)
{
	kvm_mmu_notifier_invalidate_range_start(kvm, page);
	kvm_mmu_notifier_invalidate_range_end(kvm, page);

	kvm_mmu_notifier_invalidate_range_start(kvm, page);
	zap_user_pte(page);
	kvm_mmu_notifier_invalidate_range_end(kvm, page);
	free_page(page);
}
