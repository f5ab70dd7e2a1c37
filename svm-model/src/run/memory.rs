//! What touches lines and pages: caches that move them, the open world, accesses, owners, flushes.

use cache_model::event::{Event, EventKind, Victim};
use sev_arch::{Access, FlushOp, Tag, VmId};
use sim_core::choice::Chooser;
use sim_core::state::{SlotId, Store};
use svm_policy::{Answer, Prim};

use super::{Runner, Stepped};
use crate::label::{Broken, NewOwner, What};
use crate::machine::Owner;
use crate::memory::{Effects, Memory};
use crate::spec::VmKind;

impl<S: Store, M: Memory<S>, C: Chooser> Runner<'_, S, M, C> {
    pub(super) fn cache_step(&mut self) -> Stepped {
        let mut moves = std::mem::take(&mut self.notes.moves);
        moves.clear();
        self.memory.each_move(self.store, self.within, &mut |m| moves.push(m));
        if moves.is_empty() {
            self.notes.moves = moves;
            return Stepped::Idle;
        }
        let pick = self.ask(moves.len());
        let m = moves[pick];
        self.notes.moves = moves;
        let mut fx = Effects::default();
        self.memory.make_move(self.store, m, &mut fx);
        self.take_effects(fx);
        self.notes.what = Some(What::Move(m));
        Stepped::Done
    }

    pub(super) fn world_step(&mut self) -> Stepped {
        let options = self.machine.world_options(self.store, self.memory, self.within);
        if options.is_empty() {
            return Stepped::Idle;
        }
        let (page, by, access) = options[self.ask(options.len())];
        let machine = self.machine;
        let owner_slot = machine.owners[page as usize];
        let lines = page * machine.spec.lines_per_page..(page + 1) * machine.spec.lines_per_page;
        let mut fx = Effects::default();
        let stopped = match by {
            NewOwner::Host(_) => self.rmp_stops(page, access, false),
            NewOwner::Device => self.rmp_stops(page, access, true),
            NewOwner::Vm => false,
        };
        if stopped {
            self.notes.what = Some(What::Reuse { page, by, access });
            return Stepped::Done;
        }
        match access {
            Access::Write => {
                let owner = match (machine.owner(self.store, page), by) {
                    (Owner::User(vm), _) => Owner::User(vm),
                    (_, NewOwner::Host(_)) => Owner::Host,
                    (_, NewOwner::Device) => Owner::Device,
                    (_, NewOwner::Vm) => Owner::Vm(machine.spec.pages[page as usize].1),
                };
                self.store.set(owner_slot, machine.owner_code(owner));
                self.store.set(machine.used[page as usize], 0);
                if by == NewOwner::Vm {
                    // As for memory that is registered with a VM: the host's own lines go first.
                    self.store.set(machine.user_ptes[page as usize], 1);
                    for line in lines.clone() {
                        self.memory.clflush(self.store, line, &mut fx);
                        self.memory.change_owner(self.store, line);
                    }
                }
            }
            Access::Read => self.store.set(machine.used[page as usize], 1),
        }
        for line in lines {
            match by {
                NewOwner::Host(p) => {
                    let core = machine.spec.core_of[p.index()];
                    self.memory.cpu(self.store, line, (core, Tag::HOST), access, true, &mut fx);
                }
                NewOwner::Device => self.memory.dma(self.store, line, access, true, &mut fx),
                NewOwner::Vm => {}
            }
        }
        self.take_effects(fx);
        self.notes.what = Some(What::Reuse { page, by, access });
        Stepped::Done
    }

    /// The line-by-line access of a whole page by the host or a device.
    pub(super) fn page_access(&mut self, page: i64, access: Access, device: bool) -> Answer {
        let machine = self.machine;
        let Some(page) = self.page(page) else { return Answer::Done(0) };
        if self.rmp_stops(page, access, device) {
            return Answer::Done(0);
        }
        let owner = machine.owner(self.store, page);
        // A VMM and its devices own what their guest shares with them, and so does the host what the RMP assigns to no guest any more.
        let shared_again =
            |vm: VmId| machine.spec.vm(vm).kind == VmKind::SevSnp && machine.rmp_asid(self.store, page) == 0;
        let owns = match owner {
            Owner::Host | Owner::Device | Owner::User(_) => true,
            Owner::Vm(vm) => {
                machine.guest_tag(self.store, vm, page) == Tag::HOST
                    || access == Access::Write && shared_again(vm)
            }
            Owner::Free => false,
        };
        let core = self.core();
        let mut fx = Effects::default();
        for line in page * machine.spec.lines_per_page..(page + 1) * machine.spec.lines_per_page {
            if device {
                self.memory.dma(self.store, line, access, owns, &mut fx);
            } else {
                self.memory.cpu(self.store, line, (core, Tag::HOST), access, owns, &mut fx);
            }
        }
        self.take_effects(fx);
        Answer::Done(0)
    }

    /// A dirty line under a tag that does not own its page: the judge of `latent`.
    pub(super) fn judge_latent(&mut self, line: u32, tag: Tag, victim: Victim) {
        let spec = &self.machine.spec;
        let met = tag.is_guest() && (!spec.shape.sme_coherent || !spec.assumptions.no_dma);
        if met && self.memory.dirty(self.store, line, tag) {
            self.notes.events.push(Event { victim, ..Event::at(EventKind::Latent, line, tag) });
        }
    }

    pub(super) fn free_page(&mut self, page: i64) -> Answer {
        let machine = self.machine;
        let Some(page) = self.page(page) else { return Answer::Done(0) };
        let owner = machine.owner(self.store, page);
        if owner == Owner::Free {
            self.broke(Broken::PageFreedTwice(page));
            return Answer::Done(0);
        }
        if let Owner::Vm(_) | Owner::User(_) = owner {
            self.judge_page(page, Victim::Host);
        }
        for line in page * machine.spec.lines_per_page..(page + 1) * machine.spec.lines_per_page {
            self.memory.change_owner(self.store, line);
        }
        self.store.set(machine.owners[page as usize], machine.owner_code(Owner::Free));
        Answer::Done(0)
    }

    pub(super) fn alloc_page(&mut self, page: i64, vm: i64) -> Answer {
        let machine = self.machine;
        let Some(page) = self.page(page) else { return Answer::Done(0) };
        let slot = machine.owners[page as usize];
        match machine.owner(self.store, page) {
            Owner::Free => {}
            // The open world may have got it first, but never what somebody has.
            Owner::Vm(_) | Owner::User(_) if !machine.spec.reuse.vm => {
                self.broke(Broken::PageTaken(page));
                return Answer::Done(0);
            }
            Owner::Vm(_) | Owner::User(_) | Owner::Host | Owner::Device => return Answer::Done(0),
        }
        let owner = match u16::try_from(vm) {
            Ok(vm) => {
                self.store.set(machine.user_ptes[page as usize], 1);
                Owner::Vm(sev_arch::VmId(vm))
            }
            Err(_) => Owner::Host,
        };
        self.store.set(slot, machine.owner_code(owner));
        Answer::Done(1)
    }

    pub(super) fn flush(&mut self, prim: Prim, kind: i64) -> Answer {
        let op = if kind == 0 { FlushOp::Wbinvd } else { FlushOp::Wbnoinvd };
        let core = self.core();
        let mut fx = Effects::default();
        if prim == Prim::FlushEnd {
            if let Some(slot) = self.memory.flush_waits(self.store, core) {
                return Answer::Blocked(slot);
            }
            if op == FlushOp::Wbinvd {
                self.wbinvd_done();
            }
        } else if prim == Prim::FlushPrivate {
            // Only this pCPU can bring lines into its core's caches, and it is busy here.
            let alone = self.machine.spec.core_of.iter().filter(|c| **c == core).count() == 1;
            if self.machine.own_flushes && alone && self.memory.private_empty(self.store, core) {
                return Answer::Own(0);
            }
            self.twin_flush();
            self.memory.flush_private(self.store, core, op, &mut fx);
        } else if prim == Prim::FlushShared {
            self.twin_flush();
            self.memory.flush_shared(self.store, core, op, &mut fx);
        } else if self.machine.spec.shape.flat {
            self.twin_flush();
            self.memory.flush_private(self.store, core, op, &mut fx);
            if op == FlushOp::Wbinvd {
                self.wbinvd_done();
            }
        } else {
            self.memory.flush_begin(self.store, core, op, &mut fx);
        }
        self.take_effects(fx);
        Answer::Done(0)
    }

    /// CLFLUSH of a page's lines, or (`keeps`) CLWB, and the fence behind them.
    pub(super) fn clflush_page(&mut self, page: i64, keeps: bool) -> Answer {
        let Some(page) = self.page(page) else { return Answer::Done(0) };
        self.twin_dirty(page);
        let per_page = self.machine.spec.lines_per_page;
        let mut fx = Effects::default();
        for line in page * per_page..(page + 1) * per_page {
            if keeps {
                self.memory.clwb(self.store, line, &mut fx);
            } else {
                self.memory.clflush(self.store, line, &mut fx);
            }
        }
        self.take_effects(fx);
        Answer::Done(0)
    }

    pub(super) fn spte(&mut self, vm: i64, page: i64) -> Option<SlotId> {
        let page = self.page(page)? as usize;
        let vm = usize::try_from(vm).ok().filter(|v| *v < usize::from(self.machine.spec.vms));
        if vm.is_none() {
            self.broke(Broken::NoSuch);
        }
        vm.map(|v| self.machine.sptes[v * self.machine.owners.len() + page])
    }
}
