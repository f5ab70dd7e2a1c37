//! The RMP, the PSP's accesses, VM_PAGE_FLUSH, INVD, and a guest's own evictions.

use cache_model::event::{Event, EventKind};
use sev_arch::{Access, Tag, VmId};
use sim_core::choice::Chooser;
use sim_core::state::{SlotId, Store};
use svm_policy::Answer;

use super::Runner;
use crate::machine::Machine;
use crate::memory::{Effects, Memory};

const EFAULT: i64 = 14;
const EINVAL: i64 = 22;

impl Machine {
    /// The slot of the ASID that a page is assigned to, 0 for none; only where there is an SNP VM.
    fn rmp_slot(&self, page: u32) -> Option<SlotId> {
        self.rmp.get(page as usize).copied().flatten()
    }

    /// The ASID that a page is assigned to, 0 for none.
    pub fn rmp_asid<S: Store>(&self, store: &S, page: u32) -> i64 {
        self.rmp_slot(page).map_or(0, |slot| store.get(slot))
    }

    /// Whether the RMP lets a guest access a page under a tag: one that is assigned is its own ASID's only, and an
    /// SNP guest's C=1 accesses go to assigned pages only (APM vol. 2, 15.36; the fault is a nested page fault).
    pub(crate) fn rmp_allows<S: Store>(&self, store: &S, vm: VmId, page: u32, tag: Tag) -> bool {
        let Some(slot) = self.rmp_slot(page) else { return true };
        let asid = store.get(slot);
        let snp = self.spec.vm(vm).kind == crate::spec::VmKind::SevSnp;
        if snp && tag.is_guest() { asid == i64::from(tag.0) } else { asid == 0 }
    }
}

impl<S: Store, M: Memory<S>, C: Chooser> Runner<'_, S, M, C> {
    fn lines_of(&self, page: u32) -> std::ops::Range<u32> {
        let per_page = self.machine.spec.lines_per_page;
        page * per_page..(page + 1) * per_page
    }

    /// Whether the RMP stops a host CPU's or a device's access to a page; then the event is reported. The host's
    /// reads are not checked. What is written back is not checked either.
    pub(super) fn rmp_stops(&mut self, page: u32, access: Access, device: bool) -> bool {
        let checked = device || access == Access::Write;
        let stopped = checked && self.machine.rmp_asid(self.store, page) != 0;
        if stopped {
            let line = self.lines_of(page).start;
            let mut event = Event::at(EventKind::RmpFault, line, Tag::HOST);
            self.machine.blame(self.store, &mut event);
            self.notes.events.push(event);
        }
        stopped
    }

    pub(super) fn rmp_make_private(&mut self, page: i64, vm: i64) -> Answer {
        let (Some(page), Some(vm)) = (self.page(page), self.vm(vm)) else { return Answer::Done(-EINVAL) };
        let tag = self.machine.tag_of_vm(self.store, vm);
        match self.machine.rmp_slot(page) {
            Some(slot) if tag.is_guest() => {
                // What the host has written is no truth of the guest's: it validates the page, and writes it first.
                if self.store.get(slot) == 0 {
                    for line in self.lines_of(page) {
                        self.memory.change_owner(self.store, line);
                    }
                }
                self.store.set(slot, i64::from(tag.0));
                Answer::Done(0)
            }
            Some(_) | None => Answer::Done(-EINVAL),
        }
    }

    pub(super) fn rmp_make_shared(&mut self, page: i64) -> Answer {
        let Some(page) = self.page(page) else { return Answer::Done(-EINVAL) };
        let Some(slot) = self.machine.rmp_slot(page) else { return Answer::Done(-EINVAL) };
        self.store.set(slot, 0);
        Answer::Done(0)
    }

    pub(super) fn rmp_assigned(&mut self, page: i64) -> Answer {
        let Some(page) = self.page(page) else { return Answer::Done(0) };
        Answer::Done(i64::from(self.machine.rmp_asid(self.store, page) != 0))
    }

    /// The PSP accesses a page under a VM's key, for the VM.
    pub(super) fn psp(&mut self, page: i64, vm: i64, access: Access) -> Answer {
        let machine = self.machine;
        let (Some(page), Some(vm)) = (self.page(page), self.vm(vm)) else { return Answer::Done(0) };
        let tag = machine.tag_of_vm(self.store, vm);
        let owns = machine.owns(self.store, vm, machine.owner(self.store, page));
        let mut fx = Effects::default();
        for line in self.lines_of(page) {
            self.memory.psp(self.store, line, tag, access, owns, &mut fx);
        }
        self.take_effects(fx);
        Answer::Done(0)
    }

    pub(super) fn vm_page_flush(&mut self, vm: i64, page: i64) -> Answer {
        let machine = self.machine;
        let (Some(page), Some(vm)) = (self.page(page), self.vm(vm)) else { return Answer::Done(-EFAULT) };
        // The kernel's own mapping of its own pages is always there.
        if !machine.spec.is_vmsa(page) && !machine.user_maps(self.store, vm, page) {
            return Answer::Done(-EFAULT);
        }
        let tag = machine.tag_of_vm(self.store, vm);
        self.twin_dirty(page);
        let mut fx = Effects::default();
        for line in self.lines_of(page) {
            self.memory.flush_tag(self.store, line, tag, &mut fx);
        }
        self.take_effects(fx);
        Answer::Done(0)
    }

    pub(super) fn invd(&mut self) -> Answer {
        let mut fx = Effects::default();
        self.memory.invd(self.store, self.core(), &mut fx);
        self.take_effects(fx);
        Answer::Done(0)
    }

    /// A guest evicts the other tags' copies of its page; a page that it cannot access is a fault.
    pub(super) fn guest_evict(&mut self, page: u32) {
        let machine = self.machine;
        let Some(vcpu) = &machine.tasks[self.task].vcpu else { return };
        let tag = machine.guest_tag(self.store, vcpu.vm, page);
        let mut fx = Effects::default();
        for line in self.lines_of(page) {
            self.memory.guest_evicts(self.store, line, tag, &mut fx);
        }
        self.take_effects(fx);
    }
}
