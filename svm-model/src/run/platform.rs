//! The platform that the policy core's programs run on.

use cache_model::event::EventKind;
use sev_arch::{Access, VmId};
use sim_core::choice::Chooser;
use sim_core::state::{Domain, SlotId, Store};
use svm_lang::Warning;
use svm_policy::{Answer, Lock, LockEvent, Pc, Place, Platform, Prim, REGS, Shared, Window};

use super::{Runner, Who};
use crate::label::{Broken, What};
use crate::memory::Memory;

impl<S: Store, M: Memory<S>, C: Chooser> Platform for Runner<'_, S, M, C> {
    fn load(&mut self, place: Place, instance: i64, word: i64) -> i64 {
        if self.mask_is_gone(place, instance) {
            return 0;
        }
        match self.machine.var_slot(place.var, instance, word) {
            Some(slot) => self.store.get(slot),
            None => {
                self.broke(Broken::NoSuch);
                0
            }
        }
    }

    fn load_plain(&mut self, place: Place, instance: i64, word: i64) -> i64 {
        let slot = self.machine.var_slot(place.var, instance, word);
        match slot.and_then(|slot| self.forwarded(slot)) {
            Some(own) if !self.mask_is_gone(place, instance) => own,
            Some(_) => 0,
            None => self.load(place, instance, word),
        }
    }

    fn store_plain(&mut self, place: Place, instance: i64, word: i64, value: i64) -> Option<SlotId> {
        let (slot, value) = self.written(place, instance, word, value)?;
        match self.put_off(slot, value) {
            None => self.store.set(slot, value),
            Some(Ok(())) => {}
            Some(Err(full)) => {
                self.notes.full_buffer = true;
                return Some(full);
            }
        }
        None
    }

    fn unseen(&self) -> Option<SlotId> {
        self.unseen_here()
    }

    fn store(&mut self, place: Place, instance: i64, word: i64, value: i64) {
        if let Some((slot, value)) = self.written(place, instance, word, value) {
            self.store.set(slot, value);
        }
    }

    fn slot(&self, place: Place, instance: i64, word: i64) -> SlotId {
        self.machine.var_slot(place.var, instance, word).unwrap_or(SlotId(0))
    }

    fn holder(&self) -> i64 {
        let holder = match self.who {
            Who::Handler => self.machine.tasks.len() + usize::try_from(self.pcpu).unwrap_or(0),
            Who::Task | Who::Sched | Who::Guest => self.task,
        };
        i64::try_from(holder).unwrap_or(0) + 1
    }

    fn in_handler(&self) -> bool {
        self.who == Who::Handler
    }

    fn lock_event(&mut self, kind: Lock, event: LockEvent) {
        match event {
            LockEvent::Taken if kind.sleeps() => self.may_sleep(),
            LockEvent::Taken => {}
            LockEvent::NotHeld => self.broke(Broken::NotHeld),
            LockEvent::Vain => self.report(EventKind::Deadlock),
        }
    }

    fn waits_in_vain(&self, holder: i64) -> bool {
        let Ok(p) = usize::try_from(self.pcpu) else { return holder == self.holder() };
        let under = self.who == Who::Handler && holder == self.store.get(self.machine.pcpus[p].current) + 1;
        holder == self.holder() || under && holder > 0
    }

    fn this_cpu(&self) -> i64 {
        self.pcpu
    }

    fn vm_of(&self, vcpu: i64) -> i64 {
        usize::try_from(vcpu)
            .ok()
            .and_then(|v| self.machine.spec.vcpu_vm.get(v))
            .map_or(-1, |vm| i64::from(vm.0))
    }

    fn siblings(&self, shared: Shared, cpu: i64, word: i64) -> i64 {
        let spec = &self.machine.spec;
        let group = |p: usize| {
            let core = spec.core_of[p];
            match shared {
                Shared::Core => core.0,
                Shared::Llc => spec.shape.ccx_of_core[core.index()].0,
            }
        };
        let bits = usize::from(spec.assumptions.word_bits);
        let Some(mine) = usize::try_from(cpu).ok().filter(|p| *p < spec.core_of.len()).map(group) else {
            return 0;
        };
        let first = usize::try_from(word).unwrap_or(0) * bits;
        let last = (first + bits).min(spec.core_of.len());
        (first..last).filter(|p| group(*p) == mine).fold(0, |mask, p| mask | 1i64 << (p - first))
    }

    fn pcpus(&self) -> i64 {
        i64::try_from(self.machine.pcpus.len()).unwrap_or(0)
    }

    fn word_bits(&self) -> i64 {
        i64::from(self.machine.spec.assumptions.word_bits)
    }

    fn reach(&mut self, pc: Pc) {
        self.at = Some(pc);
    }

    fn window(&mut self, window: Window) {
        match window {
            Window::IrqDisable => self.irq_off = 1,
            Window::IrqEnable => self.irq_off = 0,
            Window::PreemptDisable => self.preempt += 1,
            // What a handler or a device turns off is not kept from step to step.
            Window::PreemptEnable if self.preempt == 0 && self.who != Who::Handler && self.pcpu >= 0 => {
                self.broke(Broken::NotOff);
            }
            Window::PreemptEnable => self.preempt -= 1,
        }
    }

    fn shut(&self) -> bool {
        let Some(here) = usize::try_from(self.pcpu).ok().map(|p| &self.machine.pcpus[p]) else {
            return false;
        };
        let (was_off, stayed) = (self.store.get(here.irq_off), self.store.get(here.preempt));
        // Interrupts are off in a handler. A store buffer drains in any case, and only then is it known who waits.
        self.who != Who::Handler
            && self.unseen_here().is_none()
            && (self.irq_off > was_off
                || self.preempt > 0 && stayed == 0 && self.machine.tasks[self.task].preemptible)
    }

    fn choose(&mut self, options: i64) -> i64 {
        i64::try_from(self.ask(usize::try_from(options).unwrap_or(1))).unwrap_or(0)
    }

    fn primitive(&mut self, prim: Prim, args: [i64; 4], regs: &[i64; REGS]) -> Answer {
        let machine = self.machine;
        if prim.orders()
            && let Some(on) = self.unseen_here()
        {
            return Answer::Blocked(on);
        }
        match prim {
            Prim::VmRun => self.vmrun(),
            Prim::GuestRead | Prim::GuestWrite | Prim::GuestReadShared | Prim::GuestWriteShared => {
                let reads = matches!(prim, Prim::GuestRead | Prim::GuestReadShared);
                let access = if reads { Access::Read } else { Access::Write };
                let plain = matches!(prim, Prim::GuestReadShared | Prim::GuestWriteShared);
                let Some(page) = self.page(args[0]) else { return Answer::Done(0) };
                if self.guest_access(page * machine.spec.lines_per_page, access, plain) {
                    Answer::Done(0)
                } else {
                    self.notes.what = Some(What::Fault { page });
                    Answer::Stay
                }
            }
            Prim::VcpuFlushTlb => {
                let Ok(v) = usize::try_from(args[0]) else {
                    self.broke(Broken::NoSuch);
                    return Answer::Done(0);
                };
                for tlb in machine.tlb_of(v) {
                    self.store.set(*tlb, 0);
                }
                Answer::Done(0)
            }
            Prim::FaultPage => Answer::Done(args[0] - 2),
            Prim::ZapSpte => match self.spte(args[0], args[1]) {
                Some(slot) => {
                    let was = self.store.get(slot);
                    if let (true, Ok(page)) = (was != 0, u32::try_from(args[1])) {
                        self.twin_dirty(page);
                    }
                    self.store.set(slot, 0);
                    Answer::Done(was)
                }
                None => Answer::Done(0),
            },
            Prim::InstallSpte => {
                if let Some(slot) = self.spte(args[0], args[1]) {
                    self.store.set(slot, 1);
                }
                Answer::Done(0)
            }
            Prim::UserPtePresent => {
                let Some(page) = self.page(args[0]) else { return Answer::Done(0) };
                let present = match &machine.tasks[self.task].vcpu {
                    Some(vcpu) => machine.user_maps(self.store, vcpu.vm, page),
                    None => self.store.get(machine.user_ptes[page as usize]) != 0,
                };
                Answer::Done(i64::from(present))
            }
            Prim::PageMapped => {
                let mapped =
                    self.page(args[0]).is_some_and(|p| self.store.get(machine.user_ptes[p as usize]) != 0);
                Answer::Done(i64::from(mapped))
            }
            Prim::ZapUserPte => {
                if let Some(page) = self.page(args[0]) {
                    self.store.set(machine.user_ptes[page as usize], 0);
                }
                Answer::Done(0)
            }
            Prim::FreePage => self.free_page(args[0]),
            Prim::AllocPage => self.alloc_page(args[0], args[1]),
            Prim::HostRead => self.page_access(args[0], Access::Read, false),
            Prim::HostWrite => self.page_access(args[0], Access::Write, false),
            Prim::DmaRead => self.page_access(args[0], Access::Read, true),
            Prim::DmaWrite => self.page_access(args[0], Access::Write, true),
            Prim::FlushBegin | Prim::FlushPrivate | Prim::FlushShared | Prim::FlushEnd => {
                self.flush(prim, args[0])
            }
            Prim::ClflushPage => self.clflush_page(args[0], false),
            Prim::ClwbPage => self.clflush_page(args[0], true),
            Prim::SendCall => self.send_call(args),
            Prim::WaitCalls => self.wait_calls(args[0], args[1], regs),
            Prim::SchedPark => {
                if let (Some(on), Ok(p)) = (machine.tasks[self.task].on, usize::try_from(self.pcpu)) {
                    self.leave(p, on);
                    self.parked = true;
                }
                Answer::Done(0)
            }
            Prim::ZallocMask => self.zalloc_mask(args),
            Prim::FreeMask => self.free_mask(args[0], args[1]),
            Prim::MaskAvailable => self.mask_available(args[0], args[1]),
            Prim::FreeVm => self.free_vm(args[0]),
            Prim::GetAsid => self.get_asid(args[0]),
            Prim::SetAsid => self.set_asid(args[0], args[1]),
            Prim::MovePages => self.move_pages(args[0], args[1]),
            Prim::UserReuse => self.user_reuse(args[0]),
            Prim::RmpMakePrivate => self.rmp_make_private(args[0], args[1]),
            Prim::RmpMakeShared => self.rmp_make_shared(args[0]),
            Prim::RmpAssigned => self.rmp_assigned(args[0]),
            Prim::PspWrite => self.psp(args[0], args[1], Access::Write),
            Prim::PspRead => self.psp(args[0], args[1], Access::Read),
            Prim::VmPageFlush => self.vm_page_flush(args[0], args[1]),
            Prim::Invd => self.invd(),
            Prim::GuestEvict => {
                let Some(page) = self.page(args[0]) else { return Answer::Done(0) };
                if self.guest_access(page * machine.spec.lines_per_page, Access::Read, false) {
                    self.guest_evict(page);
                    return Answer::Done(0);
                }
                self.notes.what = Some(What::Fault { page });
                Answer::Stay
            }
            Prim::Firmware(command) => self.firmware(command, args),
            Prim::JoinVcpu => self.join_vcpu(args[0]),
            Prim::MightSleep => {
                self.may_sleep();
                Answer::Own(0)
            }
            Prim::NonBlock => {
                if self.who != Who::Handler {
                    self.store.set(machine.tasks[self.task].non_block, args[0]);
                }
                Answer::Own(0)
            }
            Prim::IrqsDisabled => Answer::Own(i64::from(self.irq_off != 0 || self.who == Who::Handler)),
            Prim::InAtomic => Answer::Own(i64::from(self.preempt > 0 || self.who == Who::Handler)),
            Prim::InInterrupt => Answer::Own(i64::from(self.in_handler())),
            Prim::TraceWriteback => {
                self.notes.writeback = Some(args[0] != 0);
                if args[0] != 0 {
                    self.twin_writeback();
                }
                Answer::Done(0)
            }
            Prim::OracleUpdate => {
                let Ok(vm) = u16::try_from(args[0]) else { return Answer::Done(0) };
                let mut busy = vec![false; machine.spec.shape.ccx_of_core.len()];
                for (pcpu, core) in machine.pcpus.iter().zip(&machine.spec.core_of) {
                    let task = usize::try_from(self.store.get(pcpu.current));
                    busy[core.index()] |= task.is_ok_and(|t| machine.tasks[t].vcpu.is_some());
                }
                let tag = machine.tag_of_vm(self.store, VmId(vm));
                let cores = self.memory.cover(self.store, tag, &busy);
                let bits = usize::from(machine.spec.assumptions.word_bits);
                for word in 0..machine.spec.core_of.len().div_ceil(bits) {
                    let mut mask = 0i64;
                    for core in &cores {
                        let first = machine.spec.core_of.iter().position(|c| c == core).unwrap_or(0);
                        if first / bits == word {
                            mask |= 1 << (first % bits);
                        }
                    }
                    let word = i64::try_from(word).unwrap_or(0);
                    if let Some(slot) = machine.variable("oracle_cpus", 0, word) {
                        self.store.set(slot, mask);
                    }
                }
                Answer::Done(0)
            }
            Prim::AllocObject => self.alloc_object(args),
            Prim::FreeObject => self.free_object(args[0], args[1]),
            Prim::FreeVcpu => self.free_vcpu(args[0]),
            Prim::LockHeld => self.lock_held(args),
            Prim::Fence => Answer::Own(0),
            Prim::Warn => {
                if args[0] != 0 {
                    self.broke(warned(args));
                }
                Answer::Own(0)
            }
            Prim::SetLoaded => {
                if let Some(vcpu) = &machine.tasks[self.task].vcpu {
                    self.store.set(vcpu.loaded, i64::from(args[1] != 0));
                }
                Answer::Done(0)
            }
        }
    }
}

/// What an operation of [`Prim::Warn`] reports whose condition holds.
fn warned([cond, what, _, mask]: [i64; 4]) -> Broken {
    let mask = u16::try_from(mask).unwrap_or(u16::MAX);
    match Warning::of(what) {
        Warning::Condition => Broken::Warned,
        Warning::NoCpu => Broken::NoBit,
        Warning::Count => Broken::Count,
        Warning::Irqs => Broken::Irqs,
        Warning::MaskGone if cond < 0 => Broken::LocalMaskNull(mask),
        Warning::MaskGone => Broken::LocalMaskFreed(mask),
        Warning::MaskAllocatedTwice => Broken::LocalMaskAllocatedTwice(mask),
        Warning::MaskFreedTwice => Broken::LocalMaskFreedTwice(mask),
        Warning::MaskLeaked => Broken::LocalMaskLeaked(mask),
    }
}

impl<S: Store, M: Memory<S>, C: Chooser> Runner<'_, S, M, C> {
    /// The slot that a store is to, and the value wrapped into its domain; none, and reported, if there is no such
    /// thing.
    fn written(&mut self, place: Place, instance: i64, word: i64, value: i64) -> Option<(SlotId, i64)> {
        if self.mask_is_gone(place, instance) {
            return None;
        }
        let Some(slot) = self.machine.var_slot(place.var, instance, word) else {
            self.broke(Broken::NoSuch);
            return None;
        };
        let domain = self.machine.vars[usize::from(place.var.0)].domain;
        let value = match domain {
            _ if domain.holds(value) => value,
            Domain::Mask { bits } => value & ((1 << bits) - 1),
            Domain::Range { lo, hi } => {
                let span = i128::from(hi) - i128::from(lo) + 1;
                let wrapped = i128::from(lo) + (i128::from(value) - i128::from(lo)).rem_euclid(span);
                i64::try_from(wrapped).unwrap_or(lo)
            }
        };
        Some((slot, value))
    }
}
