/*
 * Linux 6.17: every place where KVM's SEV code and the ccp driver maintain caches, beside reclaim of guest memory:
 * the notifier's release, memslots, encrypted regions, guest_memfd, VMSA pages, launch, ASIDs, the firmware's start
 * and end, SEV contexts that move between VMs. Written for this model after arch/x86/kvm/svm/sev.c, virt/kvm and
 * drivers/crypto/ccp/sev-dev.c of that release; names are the kernel's.
 *
 * Each site has a switch, so that one can ask what happens without its flush.
 */

/* The last kind of guest that KVM has: a litmus test with a later one is refused. */
#define KVM_LAST_VM_TYPE KVM_X86_SNP_VM
/* Whether a VM can mirror another: one that does from its test's start is refused, too. */
#define KVM_CAP_VM_COPY_ENC_CONTEXT_FROM 1
/* kvm_arch_guest_memory_reclaimed(), by who calls it. */
#define FLUSH_ON_RECLAIM 1
#define FLUSH_ON_RELEASE 1
#define FLUSH_ON_MEMSLOT_DELETE 1
/* sev_mem_enc_unregister_region(). */
#define FLUSH_ON_UNREGISTER 1
/* sev_vm_destroy(): until 6.16. */
#define FLUSH_ON_DESTROY 0
/* sev_flush_encrypted_page(), when a vCPU is freed. */
#define FLUSH_ON_VMSA_FREE 1
/* sev_gmem_invalidate(), after the RMP change. */
#define FLUSH_ON_GMEM_FREE 1
/* sev_clflush_pages(), before the firmware encrypts in place. */
#define FLUSH_ON_LAUNCH_UPDATE 1
/* sev_launch_update_vmsa(), whatever the CPU. */
#define FLUSH_ON_LAUNCH_UPDATE_VMSA 1
/* sev_mem_enc_register_region(): the host's lines of what the guest may write under its tag from then on. */
#define FLUSH_ON_REGISTER 1
/* sev_flush_asids(): WBINVD on every pCPU, and DF_FLUSH. */
#define FLUSH_ON_ASID_RECYCLE 1
#define DF_FLUSH_ON_ASID_RECYCLE 1
/* sev_flush_asids() keeps DEACTIVATE away (83af5e65a895). */
#define DEACTIVATE_LOCK 1
/* sev_hardware_unsetup(): the module goes, and what it knew of used ASIDs with it. */
#define FLUSH_ON_MODULE_UNLOAD 1
/* ccp driver: before SNP_INIT, after it, before SNP_SHUTDOWN, and around a live update of the firmware. */
#define FLUSH_AFTER_SEV_INIT 1
#define FLUSH_BEFORE_SNP_INIT 1
#define FLUSH_AFTER_SNP_INIT 1
#define FLUSH_BEFORE_SNP_SHUTDOWN 1
#define FLUSH_ON_FIRMWARE_UPDATE 1
/* sev_migrate_from(): from 7.3-rc5 the source's caches are written back (973ea70393e8). */
#define FLUSH_ON_MIGRATE 0
/* sev_migrate_from(): the destination gets a mask of its own (6f38f8c57464; d6581b6f2e26 forgot it). */
#define TRACKING_ON_MIGRATE 1
/* __sev_guest_init() says what went wrong, not what went well before (combined series, v2). */
#define INIT_RETURNS_ERROR 1
/* sev_vm_destroy() frees the tracking on every path, also of a mirror (6f38f8c57464), not where the rest went well. */
#define FREE_TRACKING_FIRST 1
#define FREE_TRACKING_LAST 0
/* From 7.3-rc5 on it frees it before all, also of a VM whose context has moved away (12c1f6e03f94, of which the title was read). */
#define FREE_TRACKING_ALWAYS 0
/* Whether SNP memory is left out of reclaim by host virtual address (ea262f8a7c36, 6.11). */
#define RECLAIM_SKIPS_SNP 1
/* sev_register_enc_region(): CLFLUSH under kvm->lock (5ef1d8c1ddbf). */
#define REGION_CLFLUSH_UNDER_LOCK 1
/* VMSA and CPUs with SME_COHERENT: CLFLUSH, not nothing (d45829b351ee). */
#define VMSA_CLFLUSH_IF_COHERENT 1
/* VM_PAGE_FLUSH that faults: everything is written back (4bbef7e8eb8c). */
#define VMSA_FLUSH_FALLBACK 1
/* X86_FEATURE_VM_PAGE_FLUSH: without it everything is written back. */
#define CPU_HAS_VM_PAGE_FLUSH 1

struct kvm {
	struct mutex lock;
	struct mutex slots_lock;
	/* The firmware's context, by the VM that brought it along; NULL: this VM's own. */
	struct kvm *handle;
	/* Of a mirror: the VM whose context it shares, and which it keeps alive. */
	struct kvm *enc_context_owner;
	/* A VM's mirrors, and the next in their owner's list. */
	struct kvm *mirror_vms;
	struct kvm *mirror_entry;
	/* References: user space's file, and a mirror each. */
	atomic_t users_count = 1;
	/* The mm's notifiers were told that it goes: once. */
	bool released;
	/* Its SEV context is on the move, or being shared. */
	atomic_t migration_in_progress;
	struct enc_region *regions_list;
	/* Pages whose memslot is invalid, and those whose memslot is gone since: a bit each. */
	unsigned long invalid_slots;
	unsigned long deleted_slots;
};

struct kvm_vcpu {
	struct mutex mutex;
	/* User space has not created it, or that failed. */
	bool absent;
};

struct page {
	/* References beside the user's mapping: of pin_user_pages(). */
	atomic_t pins;
};

/* Memory that user space has registered as one VM's, and that is pinned for it: of one page here. */
struct enc_region {
	struct enc_region *next;
	struct page *page;
};

DEFINE_OBJECTS(struct enc_region, 2);

DECLARE_RWSEM(sev_deactivate_lock);
DEFINE_MUTEX(sev_bitmap_lock);
/* sev_do_cmd(): the firmware gets one command at a time, and none within a sequence of the ccp driver's. */
DEFINE_MUTEX(sev_cmd_mutex);
DEFINE_PER_ASID(bool, sev_asid_bitmap);
DEFINE_PER_ASID(bool, sev_reclaim_asid_bitmap);

/* The policy's functions for what it allocates itself: a VM's mask. */
int sev_alloc_tracking(struct kvm *kvm);
void sev_free_tracking(struct kvm *kvm);

static bool sev_guest(struct kvm *kvm)
{
	return kvm_vm_type(kvm) >= KVM_X86_SEV_VM && sev_get_asid(kvm) != 0;
}

static bool sev_es_guest(struct kvm *kvm)
{
	return kvm_vm_type(kvm) >= KVM_X86_SEV_ES_VM && sev_get_asid(kvm) != 0;
}

static bool sev_snp_guest(struct kvm *kvm)
{
	return kvm_vm_type(kvm) == KVM_X86_SNP_VM && sev_get_asid(kvm) != 0;
}

static struct kvm *sev_handle(struct kvm *kvm)
{
	struct kvm *handle = kvm->handle;

	return handle ? handle : kvm;
}

static bool is_mirroring_enc_context(struct kvm *kvm)
{
	return kvm->enc_context_owner != NULL;
}

/* ---- reclaim ---- */

static void sev_guest_memory_reclaimed(struct kvm *kvm)
{
	/* SNP: private memory is in guest_memfd alone, and RMP checks keep C=1 accesses to it (ea262f8a7c36). */
	if (!sev_guest(kvm) || (RECLAIM_SKIPS_SNP && sev_snp_guest(kvm)))
		return;
	sev_writeback_caches(kvm);
}

/* ---- virt/kvm/kvm_main.c: the mm goes, a memslot goes ---- */

static void kvm_mmu_zap_all(struct kvm *kvm)
{
	bool flush = false;
	int pfn;

	write_lock(&kvm->mmu_lock);
	for (pfn = 0; pfn < nr_pages; pfn++) {
		if (zap_spte(kvm, pfn_to_page(pfn)))
			flush = true;
	}
	if (flush)
		kvm_flush_remote_tlbs(kvm);
	write_unlock(&kvm->mmu_lock);
}

/* mmu_notifier_release(): the process ends, or the VM's notifier is taken away. */
void kvm_mmu_notifier_release(struct kvm *kvm)
{
	if (kvm->released)
		return;
	kvm->released = true;
	kvm_mmu_zap_all(kvm);
	if (FLUSH_ON_RELEASE && !sev_notifier_skips(kvm, MMU_NOTIFY_RELEASE))
		sev_guest_memory_reclaimed(kvm);
}

static unsigned long pfn_bit(void *page)
{
	int pfn = page;

	return 1 << pfn;
}

/* gfn_to_memslot(), under mmu_lock: the kernel reads it before, and deleting waits for such readers (SRCU). */
static bool kvm_memslot_invalid(struct kvm *kvm, struct page *page)
{
	return READ_ONCE(kvm->invalid_slots) & pfn_bit(page);
}

/* kvm_for_each_memslot_in_hva_range(): a slot that is invalid is still found, one that is gone is not. */
static bool kvm_memslot_found(struct kvm *kvm, struct page *page)
{
	return !(READ_ONCE(kvm->deleted_slots) & pfn_bit(page));
}

/* KVM_SET_USER_MEMORY_REGION that deletes or moves the slot of a page; no page is freed here. The slot is invalid before
 * the zap, so that no fault installs the page again; gone, for notifiers too, after the write-back. The kernel waits there
 * for notifiers that found it (mn_active_invalidate_count), which changes nothing for the page. */
void kvm_delete_memslot(struct kvm *kvm, struct page *page)
{
	mutex_lock(&kvm->slots_lock);
	kvm->invalid_slots |= pfn_bit(page);
	write_lock(&kvm->mmu_lock);
	if (zap_spte(kvm, page))
		kvm_flush_remote_tlbs(kvm);
	write_unlock(&kvm->mmu_lock);
	if (FLUSH_ON_MEMSLOT_DELETE)
		sev_guest_memory_reclaimed(kvm);
	kvm->deleted_slots |= pfn_bit(page);
	mutex_unlock(&kvm->slots_lock);
}

/* ---- pages that are pinned ---- */

static struct page *pfn_to_page(int pfn)
{
	return vcpu_fault_page(EXIT_NPF + pfn);
}

/* The kernel counts mappings and pins of a page in one word. Here they are two, and change together. */
DEFINE_SPINLOCK(page_refs);

/* pin_user_pages(): what is not mapped any more cannot be pinned. */
static bool pin_user_page(struct page *page)
{
	bool mapped;

	spin_lock(&page_refs);
	mapped = page_mapped(page);
	if (mapped)
		atomic_inc(&page->pins);
	spin_unlock(&page_refs);
	return mapped;
}

static void unpin_user_page(struct page *page)
{
	bool last;

	spin_lock(&page_refs);
	last = atomic_dec_and_test(&page->pins) && !page_mapped(page);
	spin_unlock(&page_refs);
	if (last)
		free_page(page);
}

/* Takes the mapping away; whether nobody is left who has a reference. */
static bool unmap_user_page(struct page *page)
{
	bool last;

	spin_lock(&page_refs);
	zap_user_pte(page);
	last = !atomic_read(&page->pins);
	spin_unlock(&page_refs);
	return last;
}

/* madvise(MADV_DONTNEED) on memory that may be pinned: who holds the last reference frees it. */
void madvise_dontneed_pinned(struct kvm *kvm, struct page *page)
{
	bool last;

	kvm_mmu_notifier_invalidate_range_start(kvm, page);
	last = unmap_user_page(page);
	kvm_mmu_notifier_invalidate_range_end(kvm, page);
	if (last)
		free_page(page);
}

/* exit_mmap() after the notifier's release. */
void exit_mmap_page(struct page *page)
{
	if (unmap_user_page(page))
		free_page(page);
}

/* ---- arch/x86/kvm/svm/sev.c: encrypted regions ---- */

static void sev_clflush_pages(struct page *page)
{
	if (sme_coherent())
		return;
	clflush_page(page);
}

int sev_mem_enc_register_region(struct kvm *kvm, struct page *page)
{
	struct enc_region *region;

	if (!sev_guest(kvm))
		return -ENOTTY;
	/* The owner answers for the memory. */
	if (is_mirroring_enc_context(kvm))
		return -EINVAL;
	region = kzalloc(sizeof(*region), GFP_KERNEL_ACCOUNT);
	if (!region)
		return -ENOMEM;
	mutex_lock(&kvm->lock);
	if (!pin_user_page(page)) {
		mutex_unlock(&kvm->lock);
		kfree(region);
		return -EFAULT;
	}
	region->page = page;
	region->next = kvm->regions_list;
	kvm->regions_list = region;
	/* The guest may write the page under its own tag from now on: no line of the host's may follow. */
	if (FLUSH_ON_REGISTER && REGION_CLFLUSH_UNDER_LOCK)
		sev_clflush_pages(region->page);
	mutex_unlock(&kvm->lock);
	if (FLUSH_ON_REGISTER && !REGION_CLFLUSH_UNDER_LOCK)
		sev_clflush_pages(region->page);
	return 0;
}

/* Of this VM's list: another VM's region of the same page is its own affair. */
static struct enc_region *find_enc_region(struct kvm *kvm, struct page *page)
{
	struct enc_region *region;

	for (region = kvm->regions_list; region; region = region->next) {
		if (region->page == page)
			return region;
	}
	return NULL;
}

static void list_del_region(struct kvm *kvm, struct enc_region *region)
{
	struct enc_region *before = kvm->regions_list;

	if (before == region) {
		kvm->regions_list = region->next;
		return;
	}
	while (before->next != region)
		before = before->next;
	before->next = region->next;
}

static void __unregister_enc_region_locked(struct kvm *kvm, struct enc_region *region)
{
	unpin_user_page(region->page);
	list_del_region(kvm, region);
	kfree(region);
}

/* Nothing stops the vCPUs: user space says that it does not need the memory any more. */
int sev_mem_enc_unregister_region(struct kvm *kvm, struct page *page)
{
	struct enc_region *region;

	if (is_mirroring_enc_context(kvm))
		return -EINVAL;
	mutex_lock(&kvm->lock);
	region = find_enc_region(kvm, page);
	if (!region) {
		mutex_unlock(&kvm->lock);
		return -EINVAL;
	}
	if (FLUSH_ON_UNREGISTER)
		sev_writeback_caches(kvm);
	__unregister_enc_region_locked(kvm, region);
	mutex_unlock(&kvm->lock);
	return 0;
}

/* ---- ASIDs ---- */

/* WBINVD, not WBNOINVD, and on every CPU: the ASIDs of many VMs are recycled together, lines that stay valid would
 * be hit by the next guest of the ASID, and the firmware counts threads. */
static int sev_flush_asids(void)
{
	int ret = 0;

	if (DEACTIVATE_LOCK)
		down_write(&sev_deactivate_lock);
	if (FLUSH_ON_ASID_RECYCLE)
		wbinvd_on_all_cpus();
	if (DF_FLUSH_ON_ASID_RECYCLE) {
		scoped_guard(mutex, &sev_cmd_mutex)
			ret = sev_cmd_df_flush();
	}
	if (DEACTIVATE_LOCK)
		up_write(&sev_deactivate_lock);
	return ret;
}

static bool __sev_recycle_asids(void)
{
	bool any = false;
	int asid;

	for (asid = 1; asid < nr_asids; asid++) {
		if (per_asid(sev_reclaim_asid_bitmap, asid))
			any = true;
	}
	if (!any || sev_flush_asids())
		return false;
	for (asid = 1; asid < nr_asids; asid++) {
		if (per_asid(sev_reclaim_asid_bitmap, asid)) {
			per_asid(sev_reclaim_asid_bitmap, asid) = false;
			per_asid(sev_asid_bitmap, asid) = false;
		}
	}
	return true;
}

/* 0 if there is none. */
static int sev_asid_new(void)
{
	bool retry = true;
	int asid;

	mutex_lock(&sev_bitmap_lock);
again:
	for (asid = 1; asid < nr_asids; asid++) {
		if (!per_asid(sev_asid_bitmap, asid)) {
			per_asid(sev_asid_bitmap, asid) = true;
			mutex_unlock(&sev_bitmap_lock);
			return asid;
		}
	}
	if (retry && __sev_recycle_asids()) {
		retry = false;
		goto again;
	}
	mutex_unlock(&sev_bitmap_lock);
	return 0;
}

/* The module goes, and sev_reclaim_asid_bitmap with it: the next one finds every ASID free. */
void sev_hardware_unsetup(void)
{
	int asid;

	if (FLUSH_ON_MODULE_UNLOAD)
		sev_flush_asids();
	for (asid = 1; asid < nr_asids; asid++) {
		per_asid(sev_reclaim_asid_bitmap, asid) = false;
		per_asid(sev_asid_bitmap, asid) = false;
	}
}

static void sev_asid_free(int asid)
{
	mutex_lock(&sev_bitmap_lock);
	per_asid(sev_reclaim_asid_bitmap, asid) = true;
	mutex_unlock(&sev_bitmap_lock);
}

static void sev_unbind_asid(struct kvm *kvm)
{
	struct kvm *handle = sev_handle(kvm);

	/* DEACTIVATE takes the threads' flags back; it must not do so between WBINVD and DF_FLUSH. */
	if (DEACTIVATE_LOCK)
		down_read(&sev_deactivate_lock);
	scoped_guard(mutex, &sev_cmd_mutex)
		sev_cmd_deactivate(handle);
	if (DEACTIVATE_LOCK)
		up_read(&sev_deactivate_lock);
	scoped_guard(mutex, &sev_cmd_mutex)
		sev_cmd_decommission(handle);
}

static int snp_decommission_context(struct kvm *kvm)
{
	struct kvm *handle = sev_handle(kvm);
	int ret;

	/* SNP_DECOMMISSION deactivates too. */
	if (DEACTIVATE_LOCK)
		down_write(&sev_deactivate_lock);
	scoped_guard(mutex, &sev_cmd_mutex)
		ret = snp_cmd_decommission(handle);
	if (DEACTIVATE_LOCK)
		up_write(&sev_deactivate_lock);
	return ret;
}

/* ---- a VM's life ---- */

/* KVM_SEV_INIT. */
int sev_guest_init(struct kvm *kvm)
{
	int asid;
	int ret;

	mutex_lock(&kvm->lock);
	if (sev_guest(kvm)) {
		mutex_unlock(&kvm->lock);
		return -EINVAL;
	}
	asid = sev_asid_new();
	if (!asid) {
		mutex_unlock(&kvm->lock);
		return -EBUSY;
	}
	sev_set_asid(kvm, asid);
	ret = 0;
	if (sev_alloc_tracking(kvm)) {
		if (INIT_RETURNS_ERROR)
			ret = -ENOMEM;
		sev_asid_free(asid);
		sev_set_asid(kvm, 0);
	}
	mutex_unlock(&kvm->lock);
	return ret;
}

/* A mirror's context was launched by its owner: is_cmd_allowed_from_mirror() knows LAUNCH_UPDATE_VMSA alone of the commands
 * below. */

/* KVM_SEV_LAUNCH_START: binds the ASID. */
int sev_launch_start(struct kvm *kvm)
{
	struct kvm *handle = sev_handle(kvm);
	int asid = sev_get_asid(kvm);

	if (is_mirroring_enc_context(kvm))
		return -EINVAL;
	guard(mutex)(&sev_cmd_mutex);
	return sev_cmd_activate(handle, asid) ? -EIO : 0;
}

/* KVM_SEV_LAUNCH_UPDATE_DATA, and KVM_SEV_RECEIVE_UPDATE_DATA: the firmware encrypts in place. */
int sev_launch_update_data(struct kvm *kvm, struct page *page)
{
	if (is_mirroring_enc_context(kvm))
		return -EINVAL;
	mutex_lock(&kvm->lock);
	if (!pin_user_page(page)) {
		mutex_unlock(&kvm->lock);
		return -EFAULT;
	}
	if (FLUSH_ON_LAUNCH_UPDATE)
		sev_clflush_pages(page);
	scoped_guard(mutex, &sev_cmd_mutex)
		psp_write(page, kvm);
	unpin_user_page(page);
	mutex_unlock(&kvm->lock);
	return 0;
}

/* KVM_SEV_LAUNCH_UPDATE_VMSA, of one vCPU. */
int sev_launch_update_vmsa(struct kvm_vcpu *vcpu)
{
	mutex_lock(&vcpu->mutex);
	/* The host wrote the page in its own mapping; CLFLUSH whatever the CPU, since the firmware is not coherent. */
	if (FLUSH_ON_LAUNCH_UPDATE_VMSA)
		clflush_page(vcpu_vmsa(vcpu));
	scoped_guard(mutex, &sev_cmd_mutex)
		psp_write(vcpu_vmsa(vcpu), vcpu->kvm);
	mutex_unlock(&vcpu->mutex);
	return 0;
}

int sev_launch_finish(struct kvm *kvm)
{
	struct kvm *handle = sev_handle(kvm);

	if (is_mirroring_enc_context(kvm))
		return -EINVAL;
	guard(mutex)(&sev_cmd_mutex);
	return sev_cmd_launch_finish(handle) ? -EIO : 0;
}

/* ioctl(KVM_RUN): the vCPU's mutex is held for all of it. */
void kvm_vcpu_ioctl_run(struct kvm_vcpu *vcpu)
{
	mutex_lock(&vcpu->mutex);
	vcpu_thread(vcpu);
	mutex_unlock(&vcpu->mutex);
}

/* A page of the guest's that only the kernel maps: its VMSA. */
static void sev_flush_encrypted_page(struct kvm *kvm, struct page *page)
{
	if (sme_coherent()) {
		if (VMSA_CLFLUSH_IF_COHERENT)
			clflush_page(page);
		return;
	}
	if (!CPU_HAS_VM_PAGE_FLUSH || vm_page_flush(kvm, page) && VMSA_FLUSH_FALLBACK)
		sev_writeback_caches(kvm);
}

void sev_free_vcpu(struct kvm_vcpu *vcpu)
{
	struct kvm *kvm = vcpu->kvm;
	struct page *vmsa = vcpu_vmsa(vcpu);

	/* A test may leave the page out. */
	if (!sev_es_guest(kvm) || !vmsa)
		return;
	/* A page that cannot be made shared is leaked: nobody uses it again. */
	if (sev_snp_guest(kvm) && rmp_make_shared(vmsa))
		return;
	if (FLUSH_ON_VMSA_FREE)
		sev_flush_encrypted_page(kvm, vmsa);
	free_page(vmsa);
}

/* KVM_CREATE_VCPU: svm_vcpu_create() allocates the VMSA page of an SEV-ES or SEV-SNP guest, and where what comes after it
 * fails (the vCPU's file descriptor) the page goes back as at a vCPU's end. */
int kvm_vm_ioctl_create_vcpu(struct kvm_vcpu *vcpu)
{
	struct kvm *kvm = vcpu->kvm;
	int ret = 0;

	mutex_lock(&kvm->lock);
	if (maybe()) {
		ret = -ENOMEM;
	} else {
		if (vcpu_vmsa(vcpu))
			alloc_page(vcpu_vmsa(vcpu), kvm);
		if (maybe()) {
			sev_free_vcpu(vcpu);
			ret = -EIO;
		} else {
			vcpu->absent = false;
		}
	}
	mutex_unlock(&kvm->lock);
	return ret;
}

/* In the list of its owner's mirrors, another takes one's place; or, to delete it, the one behind it. */
static void list_replace_mirror(struct kvm *owner, struct kvm *mirror, struct kvm *by)
{
	struct kvm *before = owner->mirror_vms;

	if (before == mirror) {
		owner->mirror_vms = by;
		return;
	}
	while (before->mirror_entry != mirror)
		before = before->mirror_entry;
	before->mirror_entry = by;
}

void sev_vm_destroy(struct kvm *kvm)
{
	struct kvm *owner;

	if (FREE_TRACKING_ALWAYS)
		sev_free_tracking(kvm);
	if (!sev_guest(kvm))
		return;
	WARN_ON(kvm->mirror_vms != NULL);
	if (FLUSH_ON_DESTROY && !is_mirroring_enc_context(kvm))
		sev_writeback_caches(kvm);
	if (FREE_TRACKING_FIRST)
		sev_free_tracking(kvm);
	if (is_mirroring_enc_context(kvm)) {
		/* The context is the owner's, and goes on: kvm_put_kvm(). */
		owner = kvm->enc_context_owner;
		mutex_lock(&owner->lock);
		list_replace_mirror(owner, kvm, kvm->mirror_entry);
		mutex_unlock(&owner->lock);
		return;
	}

	while (kvm->regions_list)
		__unregister_enc_region_locked(kvm, kvm->regions_list);
	if (sev_snp_guest(kvm)) {
		/* An ASID that cannot be decommissioned is leaked. */
		if (snp_decommission_context(kvm))
			return;
	} else {
		sev_unbind_asid(kvm);
	}
	sev_asid_free(sev_get_asid(kvm));
	if (FREE_TRACKING_LAST)
		sev_free_tracking(kvm);
}

/* The last reference to the VM is gone: its notifier first, then its vCPUs, then the rest. */
void kvm_destroy_vm(struct kvm *kvm)
{
	struct kvm_vcpu *vcpu;
	int i;

	kvm_mmu_notifier_release(kvm);
	kvm_for_each_vcpu(i, vcpu, kvm) {
		if (!vcpu->absent)
			sev_free_vcpu(vcpu);
	}
	sev_vm_destroy(kvm);
	kvm_arch_free_vm(kvm);
}

/* close() of the VM's file. Who holds the last reference destroys the VM; a mirror then gives its owner's back. */
void kvm_put_kvm(struct kvm *kvm)
{
	struct kvm *owner;

	while (kvm && atomic_dec_and_test(&kvm->users_count)) {
		owner = kvm->enc_context_owner;
		kvm_destroy_vm(kvm);
		kvm = owner;
	}
}

/* ---- guest_memfd ---- */

/* make_shared in later kernels: the RMP entry first, so that no vCPU can write the page any more. */
static void sev_gmem_invalidate(struct page *page)
{
	if (!rmp_assigned(page))
		return;
	/* The folio is freed all the same, with the guest's RMP entry: whoever writes it next faults. */
	if (rmp_make_shared(page))
		return;
	if (FLUSH_ON_GMEM_FREE)
		clflush_page(page);
}

/* fallocate(PUNCH_HOLE), and the end of the file: the folio is freed. */
void kvm_gmem_punch_hole(struct kvm *kvm, struct page *page)
{
	write_lock(&kvm->mmu_lock);
	atomic_inc(&kvm->mmu_invalidate_in_progress);
	if (zap_spte(kvm, page))
		kvm_flush_remote_tlbs(kvm);
	write_unlock(&kvm->mmu_lock);

	zap_user_pte(page);
	sev_gmem_invalidate(page);
	free_page(page);
	kvm_mmu_notifier_invalidate_range_end(kvm, page);
}

/* ---- SEV contexts that move or are shared ---- */

/* Two that move each other's context at once: one of them is told to try again. */
static int sev_lock_two_vms(struct kvm *kvm, struct kvm *source)
{
	if (kvm == source)
		return -EINVAL;
	if (atomic_cmpxchg(&kvm->migration_in_progress, 0, 1))
		return -EBUSY;
	if (atomic_cmpxchg(&source->migration_in_progress, 0, 1)) {
		atomic_set(&kvm->migration_in_progress, 0);
		return -EBUSY;
	}
	mutex_lock(&kvm->lock);
	mutex_lock(&source->lock);
	return 0;
}

static void sev_unlock_two_vms(struct kvm *kvm, struct kvm *source)
{
	mutex_unlock(&kvm->lock);
	mutex_unlock(&source->lock);
	atomic_set(&kvm->migration_in_progress, 0);
	atomic_set(&source->migration_in_progress, 0);
}

/* KVM_CAP_VM_COPY_ENC_CONTEXT_FROM: a mirror gets the ASID, and a mask of its own. */
int sev_vm_copy_enc_context_from(struct kvm *kvm, struct kvm *source)
{
	int ret = sev_lock_two_vms(kvm, source);

	if (ret)
		return ret;
	if (sev_guest(kvm) || !sev_guest(source) || is_mirroring_enc_context(source)) {
		ret = -EINVAL;
	} else if (sev_alloc_tracking(kvm)) {
		ret = -ENOMEM;
	} else {
		atomic_inc(&source->users_count);
		kvm->enc_context_owner = source;
		kvm->mirror_entry = source->mirror_vms;
		source->mirror_vms = kvm;
		kvm->handle = sev_handle(source);
		sev_set_asid(kvm, sev_get_asid(source));
	}
	sev_unlock_two_vms(kvm, source);
	return ret;
}

/* All that belongs to the context moves; the source's mask, which nobody looks at any more, stays. */
static void sev_migrate_from(struct kvm *kvm, struct kvm *source)
{
	struct kvm *handle = sev_handle(source);
	struct kvm *owner = source->enc_context_owner;
	struct kvm *mirror;

	if (FLUSH_ON_MIGRATE)
		sev_writeback_caches(source);
	kvm->regions_list = source->regions_list;
	source->regions_list = NULL;
	sev_set_asid(kvm, sev_get_asid(source));
	sev_set_asid(source, 0);
	move_pages_owner(source, kvm);
	/* LAUNCH_START makes contexts in the kernel, here each VM comes with one: the source gets the destination's for later. */
	source->handle = sev_handle(kvm);
	kvm->handle = handle;

	/* Mirrors hold the destination from here on. */
	kvm->mirror_vms = source->mirror_vms;
	source->mirror_vms = NULL;
	for (mirror = kvm->mirror_vms; mirror; mirror = mirror->mirror_entry) {
		atomic_inc(&kvm->users_count);
		atomic_dec(&source->users_count);
		mirror->enc_context_owner = kvm;
	}

	/* A mirror's context moves: the destination is the mirror now. */
	if (owner) {
		kvm->enc_context_owner = owner;
		source->enc_context_owner = NULL;
		kvm->mirror_entry = source->mirror_entry;
		source->mirror_entry = NULL;
		list_replace_mirror(owner, source, kvm);
	}
}

/* KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM: intra-host migration. No vCPU of either VM can run: all their mutexes are held. SNP
 * sources are refused, as 7.3 does for certain; the trees before it were not read for that. */
int sev_vm_move_enc_context_from(struct kvm *kvm, struct kvm *source)
{
	struct kvm_vcpu *vcpu;
	int ret = sev_lock_two_vms(kvm, source);
	int i;

	if (ret)
		return ret;
	if (sev_guest(kvm) || !sev_guest(source) || sev_snp_guest(source)) {
		sev_unlock_two_vms(kvm, source);
		return -EINVAL;
	}
	kvm_for_each_vcpu(i, vcpu, source)
		mutex_lock(&vcpu->mutex);
	kvm_for_each_vcpu(i, vcpu, kvm)
		mutex_lock(&vcpu->mutex);

	if (TRACKING_ON_MIGRATE && sev_alloc_tracking(kvm)) {
		ret = -ENOMEM;
	} else {
		sev_migrate_from(kvm, source);
	}

	kvm_for_each_vcpu(i, vcpu, kvm)
		mutex_unlock(&vcpu->mutex);
	kvm_for_each_vcpu(i, vcpu, source)
		mutex_unlock(&vcpu->mutex);
	sev_unlock_two_vms(kvm, source);
	return ret;
}

/* ---- drivers/crypto/ccp/sev-dev.c ---- */

/* __sev_platform_init_locked(): INIT, and all made ready for the first guest's ACTIVATE. */
int sev_platform_init(void)
{
	int ret;

	mutex_lock(&sev_cmd_mutex);
	ret = sev_cmd_init();
	if (!ret) {
		/* INIT takes every thread's flag away. */
		if (FLUSH_AFTER_SEV_INIT)
			wbinvd_on_all_cpus();
		ret = sev_cmd_df_flush();
	}
	mutex_unlock(&sev_cmd_mutex);
	return ret ? -EIO : 0;
}

int sev_snp_init(void)
{
	int ret;

	mutex_lock(&sev_cmd_mutex);
	if (FLUSH_BEFORE_SNP_INIT)
		wbinvd_on_all_cpus();
	ret = snp_cmd_init();
	if (!ret) {
		/* SNP_INIT takes every thread's flag away: again, for DF_FLUSH. */
		if (FLUSH_AFTER_SNP_INIT)
			wbinvd_on_all_cpus();
		ret = sev_cmd_df_flush();
	}
	mutex_unlock(&sev_cmd_mutex);
	return ret ? -EIO : 0;
}

int sev_snp_shutdown(void)
{
	int ret;

	mutex_lock(&sev_cmd_mutex);
	/* Every ASID must be clean. */
	if (FLUSH_BEFORE_SNP_SHUTDOWN)
		wbinvd_on_all_cpus();
	ret = sev_cmd_df_flush();
	if (!ret)
		ret = snp_cmd_shutdown();
	mutex_unlock(&sev_cmd_mutex);
	return ret ? -EIO : 0;
}

/* DOWNLOAD_FIRMWARE_EX while guests run. The firmware's own state goes on: only the flush is modelled. */
int sev_update_firmware(void)
{
	int ret;

	mutex_lock(&sev_cmd_mutex);
	if (FLUSH_ON_FIRMWARE_UPDATE)
		wbinvd_on_all_cpus();
	ret = sev_cmd_df_flush();
	mutex_unlock(&sev_cmd_mutex);
	return ret ? -EIO : 0;
}
