// SPDX-License-Identifier: GPL-2.0
/*
 * A policy that runs for real VMs. Where a vCPU is entered is known from KVM's own tracepoint kvm_entry, which fires
 * with interrupts off just before the guest runs; where it is loaded, from the scheduler's sched_switch. Both call the
 * policy's functions there. A thread says once which vCPU it is; nothing of KVM's structures is read.
 */
#include <linux/cpu.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/tracepoint.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <linux/wait.h>

#include "internal.h"
#include "calls.h"

/* Reclaims of a session that may run at once. */
#define FLUSHERS 16
/* Write-backs that one reclaim may execute on a pCPU, together no longer than stall_limit_us: one handler may do them all. */
#define FLUSHES_EACH 4
/*
 * How long a task may go round in loops of the policy's text, in us: a reclaim, or what starts or ends a session. Where nothing else can
 * have the pCPU it is stall_limit_us.
 */
#define LOOP_LIMIT_US 5000000

struct counts {
	u64 entries;
	u64 last_entry;
	u64 loads;
};

struct vm {
	struct kvm *kvm;
	struct counts __percpu *counts;
};

struct vcpu {
	struct task_struct *task;	/* NULL: not bound, or no more */
	struct kvm_vcpu *vcpu;
	u32 vm;
};

/* When a task's loops end. */
struct bounds {
	u64 until;
	u64 alone_until;	/* those in which it keeps the pCPU from all else; 0 before the first round of such a one */
};

/* A reclaim under way. */
struct sevsim_asked {
	struct task_struct *task;
	struct bounds loops;
	u32 each;			/* write-backs that a pCPU may execute; under asked_lock */
	u32 most;			/* what it can grow to */
	struct sevsim_session *session;
	atomic_t refused;
	cpumask_var_t targets;		/* of the call at hand */
	struct sevsim_reclaimed *cpus;	/* by number */
};

struct sevsim_session {
	const struct sevsim_policy *policy;
	u32 vms;
	struct vm vm[SEVSIM_VMS];
	struct mutex binding;
	u32 each;			/* write-backs that any reclaim has needed on a pCPU so far, at most; under asked_lock */
	u32 vcpus;
	struct vcpu vcpu[SEVSIM_VCPUS];
	struct tracepoint *entry;
	struct module *entry_owner;
	struct tracepoint *sched;
	bool entry_on;
	bool sched_on;
};

/* The policies' variables are the module's, so that there is one session at a time. */
static DEFINE_MUTEX(session_lock);
static struct sevsim_session *the_session;
/* SEVSIM_FLUSH under way, of any file; under session_lock. */
static unsigned int flushing;
/* A loop of the policy was ended: whatever it does from then on means nothing. */
static bool gave_up;
static DEFINE_SPINLOCK(asked_lock);
static struct sevsim_asked *asked[FLUSHERS];
static DECLARE_WAIT_QUEUE_HEAD(asked_over);
/* Of the task that starts or ends a session, which is no reclaim; under session_lock. */
static struct bounds life;
static DEFINE_PER_CPU(struct sevsim_asked *, asked_here);
static DEFINE_PER_CPU(struct kvm_vcpu *, running);
/* When loops of what runs here with interrupts off end; NOT_ASKED before its first round; 0 in a task. */
static DEFINE_PER_CPU(u64, until_here);
#define NOT_ASKED 1

/* ---- what the policies call: calls.h ---- */

static struct sevsim_asked *asked_by_current(void)
{
	struct sevsim_asked *found = NULL;
	unsigned long flags;
	int n;

	spin_lock_irqsave(&asked_lock, flags);
	for (n = 0; n < FLUSHERS; n++)
		if (asked[n] && asked[n]->task == current)
			found = asked[n];
	spin_unlock_irqrestore(&asked_lock, flags);
	return found;
}

/*
 * Whether a task keeps its pCPU from all else. A kernel that does not count how often preemption was switched off cannot tell that it holds
 * a spinlock: there it does.
 */
static bool alone(void)
{
	return irqs_disabled() || !IS_ENABLED(CONFIG_PREEMPT_COUNT) || in_atomic();
}

static struct bounds *bounds_of(struct sevsim_asked *by)
{
	return by ? &by->loops : &life;
}

/* A call to other pCPUs, which none with interrupts off makes: what was kept before is over. */
static void called_by(struct sevsim_asked *by)
{
	if (!this_cpu_read(until_here) && !irqs_disabled())
		bounds_of(by)->alone_until = 0;
}

struct call {
	void (*fn)(void *info);
	void *info;
	struct sevsim_asked *asked;
};

/* On a pCPU that was asked, interrupts off. */
static void answer_call(void *arg)
{
	struct call *call = arg;
	struct sevsim_asked *before = this_cpu_read(asked_here);
	u64 until = this_cpu_read(until_here);

	this_cpu_write(asked_here, call->asked);
	this_cpu_write(until_here, NOT_ASKED);
	if (call->asked)
		call->asked->cpus[smp_processor_id()].asked++;
	call->fn(call->info);
	this_cpu_write(until_here, until);
	this_cpu_write(asked_here, before);
}

void sevsim_call_mask(const struct cpumask *mask, bool self, void (*fn)(void *info), void *info)
{
	struct call call = { .fn = fn, .info = info, .asked = asked_by_current() };
	const struct cpumask *targets = mask;

	called_by(call.asked);
	preempt_disable();
	if (call.asked) {
		/* The mask may change while the kernel reads it: what is asked is what is read here. */
		cpumask_copy(call.asked->targets, mask);
		targets = call.asked->targets;
	}
	if (self)
		on_each_cpu_mask(targets, answer_call, &call, true);
	else
		smp_call_function_many(targets, answer_call, &call, true);
	preempt_enable();
}

void sevsim_call_one(int cpu, void (*fn)(void *info), void *info)
{
	struct call call = { .fn = fn, .info = info, .asked = asked_by_current() };

	called_by(call.asked);
	if (cpu >= 0 && cpu < nr_cpu_ids)
		smp_call_function_single(cpu, answer_call, &call, true);
}

/* Write-backs that all reclaims under way may execute on a pCPU, one after the other; under asked_lock. */
static u64 all_under_way(void)
{
	u64 sum = 0;
	int n;

	for (n = 0; n < FLUSHERS; n++)
		sum += asked[n] ? asked[n]->each : 0;
	return sum;
}

/* As many as keep a pCPU no longer than it may be kept. */
static u64 room(void)
{
	return div64_u64(sevsim_stall_limit_us(), sevsim_one_us());
}

/* Whether a reclaim may execute more on a pCPU than `flushed`: what it was admitted with, or what the others leave. */
static bool may_execute(struct sevsim_asked *by, u32 flushed)
{
	unsigned long flags;
	bool may;

	spin_lock_irqsave(&asked_lock, flags);
	if (flushed >= by->each && flushed < by->most && all_under_way() < room()) {
		by->each++;
		/* Those that come are admitted with as many. */
		by->session->each = max(by->session->each, by->each);
	}
	may = flushed < by->each;
	spin_unlock_irqrestore(&asked_lock, flags);
	return may;
}

void sevsim_write_back(u32 op)
{
	struct sevsim_asked *by;
	struct sevsim_reclaimed *result;

	preempt_disable();
	by = this_cpu_read(asked_here);
	if (!by)
		by = asked_by_current();
	/* Only this pCPU writes its own result, the caller or its handler, which the caller waits for. */
	result = by ? &by->cpus[smp_processor_id()] : NULL;
	if (result && may_execute(by, result->flushed)) {
		result->op = sevsim_execute(op, 1, &result->tsc_in, &result->tsc_out);
		result->flushed++;
	} else if (by) {
		atomic_inc(&by->refused);
	}
	preempt_enable();
}

/*
 * A text may wait in a loop for what another does, and may wait in vain. It then goes on as if its condition were met, which is
 * wrong but ends; the reclaim says so.
 */
bool sevsim_goes_on(void)
{
	u64 until, now = sevsim_tsc();
	bool on;

	if (READ_ONCE(gave_up))
		return false;
	until = this_cpu_read(until_here);
	if (until == NOT_ASKED) {
		until = now + sevsim_cycles(sevsim_stall_limit_us());
		this_cpu_write(until_here, until);
	}
	if (until) {
		on = now < until;
	} else {
		struct bounds *loops = bounds_of(asked_by_current());

		/* A process that exits gets no signal any more: time alone ends what it does then. */
		on = now < loops->until && !fatal_signal_pending(current);
		if (!alone()) {
			loops->alone_until = 0;
			cond_resched();
		} else if (!loops->alone_until) {
			loops->alone_until = now + sevsim_cycles(sevsim_stall_limit_us());
		} else {
			on = on && now < loops->alone_until;
		}
	}
	if (!on)
		WRITE_ONCE(gave_up, true);
	return on;
}

struct kvm_vcpu *sevsim_running_vcpu(void)
{
	return this_cpu_read(running);
}

/* ---- tracepoints ---- */

struct wanted {
	const char *name;
	struct tracepoint *found;
	struct module *owner;
};

static void look_at(struct tracepoint *tp, void *priv)
{
	struct wanted *wanted = priv;

	if (!strcmp(tp->name, wanted->name))
		wanted->found = tp;
}

#ifdef CONFIG_MODULES
static struct wanted *wanted_of_modules;

/* The kernel calls this for each module with tracepoints while the notifier is registered. */
static int look_at_module(struct notifier_block *nb, unsigned long event, void *data)
{
	struct tp_module *tp_mod = data;
	struct module *mod = tp_mod->mod;
	unsigned int n;

	if (event != MODULE_STATE_COMING || wanted_of_modules->found)
		return NOTIFY_OK;
	for (n = 0; n < mod->num_tracepoints; n++) {
		look_at(tracepoint_ptr_deref(&mod->tracepoints_ptrs[n]), wanted_of_modules);
		if (wanted_of_modules->found) {
			/* It must stay while a probe is there. */
			if (try_module_get(mod))
				wanted_of_modules->owner = mod;
			else
				wanted_of_modules->found = NULL;
			break;
		}
	}
	return NOTIFY_OK;
}

static struct notifier_block modules = { .notifier_call = look_at_module };

static void look_in_modules(struct wanted *wanted)
{
	wanted_of_modules = wanted;
	if (!register_tracepoint_module_notifier(&modules))
		unregister_tracepoint_module_notifier(&modules);
	wanted_of_modules = NULL;
}
#else
static void look_in_modules(struct wanted *wanted)
{
}
#endif

/* Under session_lock. The owner, if it is a module, is held. */
static void look_up(struct wanted *wanted)
{
	for_each_kernel_tracepoint(look_at, wanted);
	if (!wanted->found)
		look_in_modules(wanted);
}

bool sevsim_kvm_entry_found(void)
{
	struct wanted entry = { .name = "kvm_entry" };

	mutex_lock(&session_lock);
	look_up(&entry);
	mutex_unlock(&session_lock);
	module_put(entry.owner);
	return entry.found;
}

static struct vcpu *vcpu_of(struct sevsim_session *session, const struct task_struct *task)
{
	u32 n, vcpus = smp_load_acquire(&session->vcpus);

	for (n = 0; n < vcpus; n++)
		if (READ_ONCE(session->vcpu[n].task) == task)
			return &session->vcpu[n];
	return NULL;
}

static void load(struct sevsim_session *session, struct vcpu *vcpu)
{
	const struct sevsim_policy *policy = session->policy;
	int cpu = smp_processor_id();
	struct counts *counts = this_cpu_ptr(session->vm[vcpu->vm].counts);
	u64 until = this_cpu_read(until_here);

	this_cpu_write(until_here, NOT_ASKED);
	if (policy->sev_vcpu_load_prepare)
		policy->sev_vcpu_load_prepare(vcpu->vcpu, cpu);
	this_cpu_write(running, vcpu->vcpu);
	if (policy->sev_vcpu_load)
		policy->sev_vcpu_load(vcpu->vcpu, cpu);
	this_cpu_write(until_here, until);
	smp_store_release(&counts->loads, counts->loads + 1);
}

static void put(struct sevsim_session *session, struct vcpu *vcpu)
{
	u64 until = this_cpu_read(until_here);

	this_cpu_write(until_here, NOT_ASKED);
	if (session->policy->sev_vcpu_put)
		session->policy->sev_vcpu_put(vcpu->vcpu);
	this_cpu_write(until_here, until);
	this_cpu_write(running, NULL);
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0)
static void on_kvm_entry(void *data, struct kvm_vcpu *unused, bool force_immediate_exit)
#else
static void on_kvm_entry(void *data, struct kvm_vcpu *unused)
#endif
{
	struct sevsim_session *session = data;
	struct vcpu *vcpu = vcpu_of(session, current);
	struct counts *counts;

	if (!vcpu)
		return;
	if (session->policy->pre_sev_run) {
		this_cpu_write(until_here, NOT_ASKED);
		session->policy->pre_sev_run(vcpu->vcpu, smp_processor_id());
		this_cpu_write(until_here, 0);
	}
	/* Noted after the policy's mark, so that whoever sees the note sees the mark; before the guest's first store. */
	counts = this_cpu_ptr(session->vm[vcpu->vm].counts);
	smp_store_release(&counts->last_entry, sevsim_tsc());
	smp_store_release(&counts->entries, counts->entries + 1);
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 18, 0)
static void on_sched_switch(void *data, bool preempt, struct task_struct *prev, struct task_struct *next,
			    unsigned int prev_state)
#else
static void on_sched_switch(void *data, bool preempt, struct task_struct *prev, struct task_struct *next)
#endif
{
	struct sevsim_session *session = data;
	struct vcpu *vcpu = vcpu_of(session, prev);

	if (vcpu)
		put(session, vcpu);
	vcpu = vcpu_of(session, next);
	if (vcpu)
		load(session, vcpu);
}

/* ---- a session's life ---- */

bool sevsim_in_session(void)
{
	return READ_ONCE(the_session);
}

/* A write-back that is asked for by hand would hide what a policy misses: not beside another file's session, and none starts. */
int sevsim_flush_begin(const struct sevsim_session *own)
{
	int ret = mutex_lock_interruptible(&session_lock);

	if (ret)
		return ret;
	if (the_session && the_session != own)
		ret = -EBUSY;
	else
		flushing++;
	mutex_unlock(&session_lock);
	return ret;
}

void sevsim_flush_end(void)
{
	mutex_lock(&session_lock);
	flushing--;
	mutex_unlock(&session_lock);
}

/* Before the policy's functions that start or end a session. */
static void begin_life(void)
{
	life.until = sevsim_tsc() + sevsim_cycles(LOOP_LIMIT_US);
	life.alone_until = 0;
}

static void end(struct sevsim_session *session)
{
	int cpu;
	u32 n;

	if (session->entry_on)
		tracepoint_probe_unregister(session->entry, on_kvm_entry, session);
	if (session->sched_on)
		tracepoint_probe_unregister(session->sched, on_sched_switch, session);
	tracepoint_synchronize_unregister();
	module_put(session->entry_owner);
	for_each_possible_cpu(cpu)
		per_cpu(running, cpu) = NULL;
	for (n = 0; n < session->vcpus; n++) {
		if (session->vcpu[n].task)
			put_task_struct(session->vcpu[n].task);
		kfree(session->vcpu[n].vcpu);
	}
	begin_life();
	for (n = 0; n < session->vms; n++) {
		if (session->vm[n].kvm && session->policy->sev_free_tracking)
			session->policy->sev_free_tracking(session->vm[n].kvm);
		kfree(session->vm[n].kvm);
		free_percpu(session->vm[n].counts);
	}
	kfree(session);
}

int sevsim_session_start(const struct sevsim_start *start, const u32 *llc, struct sevsim_session **to)
{
	struct wanted entry = { .name = "kvm_entry" };
	struct wanted sched = { .name = "sched_switch" };
	struct sevsim_session *session;
	int ret;

	ret = mutex_lock_interruptible(&session_lock);
	if (ret)
		return ret;
	ret = -EBUSY;
	if (the_session || flushing)
		goto unlock;
	gave_up = false;
	ret = -ENOMEM;
	session = kzalloc(sizeof(*session), GFP_KERNEL);
	if (!session)
		goto unlock;
	session->policy = sevsim_policies[start->policy];
	mutex_init(&session->binding);
	session->policy->reset();
	sevsim_set_llc(llc, start->llc_len);
	session->each = 1;
	begin_life();
	for (; session->vms < start->vms; session->vms++) {
		struct vm *vm = &session->vm[session->vms];

		vm->counts = alloc_percpu(struct counts);
		vm->kvm = vm->counts ? kzalloc(session->policy->kvm_size, GFP_KERNEL) : NULL;
		if (!vm->kvm) {
			session->vms++;
			goto fail;
		}
		session->policy->init_kvm(vm->kvm);
		if (session->policy->sev_alloc_tracking && session->policy->sev_alloc_tracking(vm->kvm)) {
			session->vms++;
			goto fail;
		}
	}
	ret = -EDEADLK;
	if (READ_ONCE(gave_up))
		goto fail;
	ret = -ENODEV;
	look_up(&entry);
	session->entry = entry.found;
	session->entry_owner = entry.owner;
	look_up(&sched);
	session->sched = sched.found;
	if (!session->entry || !session->sched)
		goto fail;
	ret = tracepoint_probe_register(session->sched, on_sched_switch, session);
	if (ret)
		goto fail;
	session->sched_on = true;
	ret = tracepoint_probe_register(session->entry, on_kvm_entry, session);
	if (ret)
		goto fail;
	session->entry_on = true;
	WRITE_ONCE(the_session, session);
	*to = session;
	goto unlock;
fail:
	end(session);
unlock:
	mutex_unlock(&session_lock);
	return ret;
}

void sevsim_session_end(struct sevsim_session *session)
{
	mutex_lock(&session_lock);
	end(session);
	WRITE_ONCE(the_session, NULL);
	mutex_unlock(&session_lock);
}

int sevsim_session_bind(struct sevsim_session *session, const struct sevsim_bind *bind)
{
	struct vcpu *vcpu;
	int ret = 0;
	u32 n;

	if (bind->vm >= session->vms || bind->vcpu >= SEVSIM_VCPUS)
		return -EINVAL;
	mutex_lock(&session->binding);
	if (vcpu_of(session, current)) {
		ret = -EBUSY;
		goto unlock;
	}
	/* A place that was left, or the next. */
	for (n = 0; n < session->vcpus && session->vcpu[n].task; n++)
		;
	if (n == SEVSIM_VCPUS) {
		ret = -ENOSPC;
		goto unlock;
	}
	vcpu = &session->vcpu[n];
	/* The policy may have kept the address of one that left: it stays as long as the session. */
	if (vcpu->vcpu)
		memset(vcpu->vcpu, 0, session->policy->vcpu_size);
	else
		vcpu->vcpu = kzalloc(session->policy->vcpu_size, GFP_KERNEL);
	if (!vcpu->vcpu) {
		ret = -ENOMEM;
		goto unlock;
	}
	session->policy->init_vcpu(vcpu->vcpu, session->vm[bind->vm].kvm, bind->vcpu);
	vcpu->vm = bind->vm;
	get_task_struct(current);
	/* As vcpu_load(): nobody switches in between, and the probes see the vCPU from here on. */
	preempt_disable();
	WRITE_ONCE(vcpu->task, current);
	if (n == session->vcpus)
		smp_store_release(&session->vcpus, n + 1);
	load(session, vcpu);
	preempt_enable();
unlock:
	mutex_unlock(&session->binding);
	return ret;
}

int sevsim_session_unbind(struct sevsim_session *session)
{
	struct vcpu *vcpu;

	mutex_lock(&session->binding);
	vcpu = vcpu_of(session, current);
	if (vcpu) {
		preempt_disable();
		put(session, vcpu);
		WRITE_ONCE(vcpu->task, NULL);
		preempt_enable();
		put_task_struct(current);
	}
	mutex_unlock(&session->binding);
	return vcpu ? 0 : -ENOENT;
}

/* ---- reclaim ---- */

/*
 * If there is room beside all that are under way, whose IPIs a pCPU may find in a row. Also where there never will be: `each` is 0 then.
 */
static bool enlist(struct sevsim_asked *by)
{
	unsigned long flags;
	bool done = false;
	int n;

	spin_lock_irqsave(&asked_lock, flags);
	by->most = min_t(u64, FLUSHES_EACH, room());
	by->each = min(by->session->each, by->most);
	done = !by->each;
	for (n = 0; n < FLUSHERS && !done; n++) {
		if (!asked[n] && all_under_way() + by->each <= room()) {
			asked[n] = by;
			done = true;
		}
	}
	spin_unlock_irqrestore(&asked_lock, flags);
	return done;
}

static void strike(struct sevsim_asked *by)
{
	unsigned long flags;
	int n;

	spin_lock_irqsave(&asked_lock, flags);
	for (n = 0; n < FLUSHERS; n++)
		if (asked[n] == by)
			asked[n] = NULL;
	spin_unlock_irqrestore(&asked_lock, flags);
	wake_up_all(&asked_over);
}

static void reclaim(struct sevsim_session *session, struct sevsim_reclaim *ask, struct sevsim_asked *by)
{
	const struct sevsim_policy *policy = session->policy;
	struct vm *vm = &session->vm[ask->vm];
	int cpu;

	for_each_possible_cpu(cpu) {
		struct counts *counts = per_cpu_ptr(vm->counts, cpu);
		struct sevsim_reclaimed *result = &by->cpus[cpu];

		result->cpu = cpu;
		/* The time first: an entry that comes in between is counted, but not asked for. */
		result->last_entry = smp_load_acquire(&counts->last_entry);
		result->entries_before = smp_load_acquire(&counts->entries);
		result->loads_before = smp_load_acquire(&counts->loads);
	}
	ask->caller_cpu = raw_smp_processor_id();
	ask->tsc_begin = sevsim_tsc();
	ask->skipped = policy->sev_notifier_skips && policy->sev_notifier_skips(vm->kvm, ask->event);
	if (!ask->skipped && policy->sev_writeback_caches)
		policy->sev_writeback_caches(vm->kvm);
	ask->tsc_end = sevsim_tsc();
	for_each_possible_cpu(cpu) {
		struct counts *counts = per_cpu_ptr(vm->counts, cpu);
		struct sevsim_reclaimed *result = &by->cpus[cpu];

		result->entries_after = smp_load_acquire(&counts->entries);
		result->loads_after = smp_load_acquire(&counts->loads);
		/* What another reclaim has had written back by now counts: it is over, and this one has not returned. */
		result->flush_in = sevsim_last_flush(cpu);
	}
	ask->refused = atomic_read(&by->refused);
}

static long answer(struct sevsim_reclaim __user *to, struct sevsim_reclaim *ask, const struct sevsim_asked *by)
{
	struct sevsim_reclaimed __user *results = u64_to_user_ptr(ask->results);
	int cpu;

	ask->results_len = 0;
	for_each_possible_cpu(cpu) {
		if (ask->results_len >= ask->results_max)
			break;
		if (copy_to_user(&results[ask->results_len++], &by->cpus[cpu], sizeof(*results)))
			return -EFAULT;
	}
	return copy_to_user(to, ask, sizeof(*ask)) ? -EFAULT : 0;
}

long sevsim_session_reclaim(struct sevsim_session *session, struct sevsim_reclaim __user *to)
{
	struct sevsim_reclaim ask;
	struct sevsim_asked by = { .task = current, .session = session };
	u64 begin;
	long ret;

	if (copy_from_user(&ask, to, sizeof(ask)))
		return -EFAULT;
	if (ask.size != sizeof(ask) || ask.vm >= session->vms)
		return -EINVAL;
	if (!zalloc_cpumask_var(&by.targets, GFP_KERNEL))
		return -ENOMEM;
	ret = -ENOMEM;
	by.cpus = kvcalloc(nr_cpu_ids, sizeof(*by.cpus), GFP_KERNEL);
	if (!by.cpus)
		goto free;
	if (wait_event_interruptible(asked_over, enlist(&by))) {
		ret = -EINTR;
		goto free;
	}
	ret = -ETIME;
	if (!by.each)
		goto free;
	ret = sevsim_take_turn();
	if (ret)
		goto strike;
	begin = sevsim_tsc();
	by.loops.until = begin + sevsim_cycles(LOOP_LIMIT_US);
	reclaim(session, &ask, &by);
	sevsim_turn_over(sevsim_tsc() - begin);
strike:
	strike(&by);
	if (!ret)
		ret = READ_ONCE(gave_up) ? -EDEADLK : answer(to, &ask, &by);
free:
	kvfree(by.cpus);
	free_cpumask_var(by.targets);
	return ret;
}
