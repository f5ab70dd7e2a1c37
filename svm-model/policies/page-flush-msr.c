/*
 * Rule:  the page that is handed back is flushed by the VM_PAGE_FLUSH MSR under the guest's ASID; where that faults, every
 *        CPU that ran the VM writes back.
 * Cost:  one MSR write a page, which exists on Naples to Genoa; marks for the case that it faults.
 * Holds: where the page is named, for reclaim: a memslot that is deleted, a region that is unregistered and a VM that is
 *        destroyed name none. The MSR reaches the lines of that page and ASID in all caches. KVM uses it for VMSA pages only: it needs a kernel
 *        address, and the walk may fault.
 */

struct kvm {
	cpumask_var_t have_run_cpus;
};

void pre_sev_run(struct kvm_vcpu *vcpu, int cpu)
{
	if (!cpumask_test_cpu(cpu, vcpu->kvm->have_run_cpus))
		cpumask_set_cpu(cpu, vcpu->kvm->have_run_cpus);
}

void sev_writeback_page(struct kvm *kvm, struct page *page)
{
	if (vm_page_flush(kvm, page))
		wbnoinvd_on_cpus_mask(kvm->have_run_cpus);
}
