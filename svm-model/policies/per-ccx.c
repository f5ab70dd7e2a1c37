/*
 * Rule:   as sticky-wbnoinvd, but of the marked CPUs that share an L3 only one is asked: what if WBNOINVD covered a CCX?
 * Cost:   an IPI per CCX that ran the VM.
 * Broken: on parts whose CPUID Fn8000_001D says that WBINVD on one thread need not reach the private caches of the other
 *         cores below the same L3 (EDX[0] = 1, as on every part here): their L1 and L2 keep dirty lines. It would hold if
 *         the scope were the CCX.
 */

struct kvm {
	cpumask_var_t have_run_cpus;
};

void pre_sev_run(struct kvm_vcpu *vcpu, int cpu)
{
	if (!cpumask_test_cpu(cpu, vcpu->kvm->have_run_cpus))
		cpumask_set_cpu(cpu, vcpu->kvm->have_run_cpus);
}

void sev_writeback_caches(struct kvm *kvm)
{
	cpumask_var_t left;
	cpumask_var_t flush;
	int cpu;

	cpumask_copy(left, kvm->have_run_cpus);
	for_each_possible_cpu(cpu) {
		if (cpumask_test_cpu(cpu, left)) {
			__cpumask_set_cpu(cpu, flush);
			cpumask_andnot(left, left, cpu_llc_shared_mask(cpu));
		}
	}
	wbnoinvd_on_cpus_mask(flush);
}
