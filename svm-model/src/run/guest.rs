//! A vCPU in guest mode: VMRUN, its accesses, #VMEXIT.

use cache_model::event::{Event, EventKind};
use sev_arch::{Access, Tag};
use sim_core::choice::Chooser;
use sim_core::state::Store;
use svm_policy::{Answer, Outcome};

use super::firmware::EXIT_ERR;
use super::{Runner, Who};
use crate::context::ContextSlots;
use crate::label::What;
use crate::machine::VcpuSlots;
use crate::memory::{Effects, Memory};

impl<S: Store, M: Memory<S>, C: Chooser> Runner<'_, S, M, C> {
    /// A guest's access to a line, under its VM's tag as the page says, or `plain`, through C=0; `false` if the page
    /// is not mapped.
    pub(super) fn guest_access(&mut self, line: u32, access: Access, plain: bool) -> bool {
        let machine = self.machine;
        let Some(vcpu) = &machine.tasks[self.task].vcpu else { return true };
        let page = machine.page_of(line) as usize;
        let pages = machine.owners.len();
        let (tlb, bit) = machine.tlb(vcpu.vcpu.index(), page);
        let cached = self.store.get(tlb);
        if cached & bit == 0 {
            if self.store.get(machine.sptes[vcpu.vm.index() * pages + page]) == 0 {
                return false;
            }
            if !machine.spec.assumptions.no_tlb {
                self.store.set(tlb, cached | bit);
            }
        }
        let page = machine.page_of(line);
        let tag = if plain { Tag::HOST } else { machine.guest_tag(self.store, vcpu.vm, page) };
        if !machine.rmp_allows(self.store, vcpu.vm, page, tag) {
            return false;
        }
        let owner = machine.owner(self.store, page);
        let owns = machine.owns(self.store, vcpu.vm, owner);
        let mut fx = Effects::default();
        let by = (self.core(), tag);
        self.memory.cpu(self.store, line, by, access, owns, &mut fx);
        if access == Access::Write && !owns {
            let mut event = Event::at(EventKind::Latent, line, by.1);
            machine.blame(self.store, &mut event);
            self.judge_latent(line, by.1, event.victim);
        }
        self.take_effects(fx);
        self.notes.what = Some(What::Guest { line, access, plain, pc: None });
        true
    }

    /// One step of a guest: its next access, or a #VMEXIT.
    pub(super) fn guest_step(&mut self, vcpu: &VcpuSlots) -> Answer {
        let machine = self.machine;
        let spec = &machine.spec;
        let Some(slots) = &vcpu.guest else {
            match self.ask(3) {
                0 => {}
                1 => return self.exit(vcpu, What::Exit, 0),
                _ => return self.exit(vcpu, What::Halted, 1),
            }
            let own = &machine.vm_pages[vcpu.vm.index()];
            let page = own[self.ask(own.len())];
            let within = u32::try_from(self.ask(spec.lines_per_page as usize)).unwrap_or(0);
            let access = if self.ask(2) == 0 { Access::Read } else { Access::Write };
            let line = page * spec.lines_per_page + within;
            if self.guest_access(line, access, false) {
                return Answer::Stay;
            }
            return self.exit(vcpu, What::Fault { page }, 2 + i64::from(page));
        };
        let mut context = ContextSlots::blank();
        if !slots.load(self.store, &mut context) {
            return self.exit(vcpu, What::Halted, 1);
        }
        if self.ask(2) == 1 {
            return self.exit(vcpu, What::Exit, 0);
        }
        let outer = std::mem::replace(&mut self.who, Who::Guest);
        let outcome = svm_policy::step(&machine.code.ops, &mut context, self);
        self.who = outer;
        if let Some(What::Fault { page }) = self.notes.what {
            return self.exit(vcpu, What::Fault { page }, 2 + i64::from(page));
        }
        if let Outcome::Runaway { at } = outcome {
            self.notes.runaway = Some(at);
        }
        if let (Some(What::Guest { pc, .. }), Outcome::Ran { at }) = (&mut self.notes.what, outcome) {
            *pc = Some(at);
        }
        let ended = matches!(machine.code.ops[usize::from(context.pc)], svm_policy::Op::Halt);
        slots.save(self.store, (!ended).then_some(&context));
        if ended && self.notes.what.is_none() {
            return self.exit(vcpu, What::Halted, 1);
        }
        Answer::Stay
    }

    pub(super) fn exit(&mut self, vcpu: &VcpuSlots, what: What, reason: i64) -> Answer {
        self.store.set(vcpu.in_guest, 0);
        self.vmsa(vcpu, Access::Write);
        self.notes.what = Some(what);
        Answer::Done(reason)
    }

    pub(super) fn vmrun(&mut self) -> Answer {
        let machine = self.machine;
        let Some(vcpu) = &machine.tasks[self.task].vcpu else { return Answer::Done(1) };
        if self.store.get(vcpu.in_guest) == 0 {
            if let Some(on) = self.unseen_here() {
                return Answer::Blocked(on);
            }
            if !self.may_run(vcpu) {
                return Answer::Done(EXIT_ERR);
            }
            self.store.set(vcpu.in_guest, 1);
            self.vmsa(vcpu, Access::Read);
            return Answer::Stay;
        }
        self.guest_step(vcpu)
    }
}
