//! VMs: under which tag their guests access memory, who owns what, and what a vCPU's exits write.

use cache_model::event::{Event, Victim};
use sev_arch::{Access, Asid, CBit, PcpuId, Tag, VmId};
use sim_core::choice::Chooser;
use sim_core::state::{SlotId, Store};
use svm_policy::Answer;

use super::Runner;
use crate::label::Broken;
use crate::machine::{Machine, Owner, VcpuSlots};
use crate::memory::{Effects, Memory};

/// Of a page that its VMM uses itself: nobody has written it since. Other pages hold 0 and 1 there.
pub(crate) const UNWRITTEN: i64 = 2;

impl Machine {
    /// The tag of a VM's C=1 accesses: its ASID's; the host's while it has none. VMs with the same ASID share it.
    pub fn tag_of_vm<S: Store>(&self, store: &S, vm: VmId) -> Tag {
        let asid = self.asids.get(vm.index()).map_or(0, |slot| store.get(*slot));
        Tag::select(Asid(u16::try_from(asid).unwrap_or(0)), CBit::Set)
    }

    /// The tag under which a VM's guest accesses a page: the host's if the page is shared.
    pub fn guest_tag<S: Store>(&self, store: &S, vm: VmId, page: u32) -> Tag {
        if self.spec.is_shared(page) { Tag::HOST } else { self.tag_of_vm(store, vm) }
    }

    /// Whether what a VM writes into a page is its own: the page is its, or of a VM with the same key.
    pub(crate) fn owns<S: Store>(&self, store: &S, vm: VmId, owner: Owner) -> bool {
        let Owner::Vm(of) = owner else { return false };
        let tag = self.tag_of_vm(store, vm);
        of == vm || tag.is_guest() && self.tag_of_vm(store, of) == tag
    }

    /// Whether the VMM of a VM maps a page. The mapping is of the page's VM: one that had the page before, and has another
    /// key, does not get it back with the next VM's.
    pub(crate) fn user_maps<S: Store>(&self, store: &S, vm: VmId, page: u32) -> bool {
        store.get(self.user_ptes[page as usize]) != 0
            && (self.spec.vms < 2
                || match self.owner(store, page) {
                    Owner::Vm(of) | Owner::User(of) => self.owns(store, vm, Owner::Vm(of)),
                    Owner::Free | Owner::Host | Owner::Device => true,
                })
    }

    /// A tag in stories: the VM's whose it is, or the ASID where that is not one VM's for good.
    #[must_use]
    pub fn tag_name(&self, tag: Tag) -> String {
        if !tag.is_guest() {
            return tag.to_string();
        }
        let mut vms = (0..self.spec.vms).map(VmId).filter(|vm| self.spec.vm(*vm).asid == u16::from(tag.0));
        match (vms.next(), vms.next()) {
            (Some(vm), None) if !self.sets_asids => vm.to_string(),
            _ => format!("asid{}", tag.0),
        }
    }

    /// Says whose loss an event is: that of the page's owner at this moment.
    pub(crate) fn blame<S: Store>(&self, store: &S, event: &mut Event) {
        let (Some(line), Some(tag)) = (event.line, event.tag) else { return };
        event.victim = match self.owner(store, self.page_of(line)) {
            Owner::Vm(_) => Victim::Vm,
            Owner::User(vm) if !tag.is_guest() || tag == self.tag_of_vm(store, vm) => Victim::Myself,
            Owner::User(_) | Owner::Free | Owner::Host | Owner::Device => Victim::Host,
        };
    }

    /// Whether a pCPU is in `cpu_online_mask`; all are where no text declares it.
    pub(crate) fn online<S: Store>(&self, store: &S, pcpu: PcpuId) -> bool {
        let Some(slot) = self.online_word(pcpu) else { return true };
        store.get(slot) >> (pcpu.0 % u16::from(self.spec.assumptions.word_bits)) & 1 == 1
    }

    /// The word of the declared `cpu_online_mask` that has a pCPU's bit.
    pub(crate) fn online_word(&self, pcpu: PcpuId) -> Option<SlotId> {
        let word = pcpu.0 / u16::from(self.spec.assumptions.word_bits);
        self.var_slot(self.online?, 0, i64::from(word))
    }

    /// pCPUs that a task may be put on now. The kernel runs nothing on an offline one but the threads that are bound
    /// to it, such as that of CPU hotplug (kernel/sched/core.c: `is_cpu_allowed`), and takes any other where none of
    /// a task's own is online (`select_fallback_rq`). A host task with one pCPU counts as bound.
    pub(crate) fn allowed<S: Store>(&self, store: &S, task: usize) -> Vec<PcpuId> {
        let own = &self.spec.tasks[task].pcpus;
        if self.online.is_none() || self.bound(task) {
            return own.clone();
        }
        let online = |p: &PcpuId| self.online(store, *p);
        let left: Vec<PcpuId> = own.iter().copied().filter(online).collect();
        if left.is_empty() { (0..self.spec.pcpus()).map(PcpuId).filter(online).collect() } else { left }
    }

    fn bound(&self, task: usize) -> bool {
        self.tasks[task].vcpu.is_none() && self.spec.tasks[task].pcpus.len() == 1
    }

    /// Whether the scheduler moves a task away from a pCPU as soon as it can.
    pub(crate) fn must_leave<S: Store>(&self, store: &S, task: usize, pcpu: usize) -> bool {
        let pcpu = PcpuId(u16::try_from(pcpu).unwrap_or(u16::MAX));
        self.online.is_some() && !self.bound(task) && !self.online(store, pcpu)
    }
}

impl<S: Store, M: Memory<S>, C: Chooser> Runner<'_, S, M, C> {
    /// A VM by its number; one that does not exist is reported.
    pub(super) fn vm(&mut self, vm: i64) -> Option<VmId> {
        let found = u16::try_from(vm).ok().filter(|vm| *vm < self.machine.spec.vms);
        if found.is_none() {
            self.broke(Broken::NoSuch);
        }
        found.map(VmId)
    }

    pub(super) fn get_asid(&mut self, vm: i64) -> Answer {
        Answer::Done(self.vm(vm).map_or(0, |vm| self.store.get(self.machine.asids[vm.index()])))
    }

    pub(super) fn set_asid(&mut self, vm: i64, asid: i64) -> Answer {
        let machine = self.machine;
        if let Some(vm) = self.vm(vm) {
            if (0..i64::from(machine.spec.asids())).contains(&asid) {
                self.store.set(machine.asids[vm.index()], asid);
            } else {
                self.broke(Broken::NoAsid);
            }
        }
        Answer::Done(0)
    }

    pub(super) fn move_pages(&mut self, from: i64, to: i64) -> Answer {
        let machine = self.machine;
        if let (Some(from), Some(to)) = (self.vm(from), self.vm(to)) {
            for slot in &machine.owners {
                if machine.owner_of_code(self.store.get(*slot)) == Owner::Vm(from) {
                    self.store.set(*slot, machine.owner_code(Owner::Vm(to)));
                }
            }
        }
        Answer::Done(0)
    }

    /// Judges the dirty lines of a page that leaves its VM: under any guest's tag, for the VM may have lost its ASID.
    pub(super) fn judge_page(&mut self, page: u32, victim: Victim) {
        self.twin_dirty(page);
        let per_page = self.machine.spec.lines_per_page;
        for line in page * per_page..(page + 1) * per_page {
            for tag in self.machine.spec.shape.all_tags() {
                self.judge_latent(line, tag, victim);
            }
        }
    }

    pub(super) fn user_reuse(&mut self, page: i64) -> Answer {
        let machine = self.machine;
        let Some(page) = self.page(page) else { return Answer::Done(0) };
        let Owner::Vm(vm) = machine.owner(self.store, page) else {
            self.broke(Broken::PageNotVms(page));
            return Answer::Done(0);
        };
        self.judge_page(page, Victim::Myself);
        let per_page = machine.spec.lines_per_page;
        for line in page * per_page..(page + 1) * per_page {
            self.memory.change_owner(self.store, line);
        }
        self.store.set(machine.owners[page as usize], machine.owner_code(Owner::User(vm)));
        self.store.set(machine.used[page as usize], UNWRITTEN);
        Answer::Done(0)
    }

    pub(super) fn join_vcpu(&mut self, vcpu: i64) -> Answer {
        let of =
            |t: &&crate::machine::TaskSlots| t.vcpu.as_ref().is_some_and(|v| i64::from(v.vcpu.0) == vcpu);
        let Some(task) = self.machine.tasks.iter().find(of) else {
            self.broke(Broken::NoSuch);
            return Answer::Done(0);
        };
        if !task.main.idle(self.store) {
            return Answer::Blocked(task.main.pc);
        }
        self.may_sleep();
        Answer::Done(0)
    }

    /// A guest's registers go to, or come from, its VMSA page under the guest's tag: APM vol. 2, 15.35. A page that
    /// was freed is its VMSA no more.
    pub(super) fn vmsa(&mut self, vcpu: &VcpuSlots, access: Access) {
        let machine = self.machine;
        let Some(page) = machine.spec.vmsa_of(vcpu.vcpu) else { return };
        let owner = machine.owner(self.store, page);
        if !machine.owns(self.store, vcpu.vm, owner) {
            return;
        }
        let mut fx = Effects::default();
        let by = (self.core(), machine.tag_of_vm(self.store, vcpu.vm));
        let line = page * machine.spec.lines_per_page;
        self.memory.cpu(self.store, line, by, access, true, &mut fx);
        self.take_effects(fx);
    }
}
