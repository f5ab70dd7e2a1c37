/*
 * Rule:  a CPU is marked whenever a vCPU is loaded on it and never unmarked; a reclaim executes WBINVD on the marked
 *        CPUs and waits (the reviewed v4 of April 2024).
 * Cost:  marks also CPUs on which the vCPU was loaded and did not run; the mask only grows.
 * Holds: every VMRUN on a CPU comes after a load there, and bits never disappear.
 */

struct kvm {
	cpumask_var_t dirty_cpus;
};

void sev_vcpu_load(struct kvm_vcpu *vcpu, int cpu)
{
	cpumask_set_cpu(cpu, vcpu->kvm->dirty_cpus);
}

void sev_writeback_caches(struct kvm *kvm)
{
	wbinvd_on_cpus_mask(kvm->dirty_cpus);
}
