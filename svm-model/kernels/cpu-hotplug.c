/*
 * CPU hotplug, in the kernel's order (kernel/cpu.c, arch/x86/kernel/smpboot.c): a litmus test that includes this text has
 * a cpu_online_mask that changes.
 */
cpumask_t cpu_online_mask;

DECLARE_RWSEM(cpu_hotplug_lock);

static void cpus_read_lock(void)
{
	down_read(&cpu_hotplug_lock);
}

static void cpus_read_unlock(void)
{
	up_read(&cpu_hotplug_lock);
}

/* Runs on the pCPU that goes. It leaves the mask of those that IPIs are sent to; only later, in mwait_play_dead() or
 * hlt_play_dead(), it writes its caches back. */
void cpu_play_dead(void)
{
	local_irq_disable();
	set_cpu_online(smp_processor_id(), false);
	wbinvd();
	local_irq_enable();
}
