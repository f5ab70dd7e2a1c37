//! Tasks: they go on, get a pCPU, lose it.

use sev_arch::PcpuId;
use sim_core::choice::Chooser;
use sim_core::state::{SlotId, Store};

use super::{Runner, Stepped, Who};
use crate::context::ContextSlots;
use crate::label::{Broken, What};
use crate::machine::VcpuSlots;
use crate::memory::Memory;
use crate::spec::TaskKind;

impl<S: Store, M: Memory<S>, C: Chooser> Runner<'_, S, M, C> {
    pub(super) fn task_step(&mut self, t: usize) -> Stepped {
        let machine = self.machine;
        let task = &machine.tasks[t];
        self.task = t;
        let Some(on) = task.on else {
            let mut context = ContextSlots::blank();
            if !task.main.load(self.store, &mut context) {
                return Stepped::Idle;
            }
            return self.advance(&task.main, &mut context, false);
        };
        let sched = task.vcpu.as_ref().map(|v| &v.sched);
        if let Some(entry) = &task.repeats
            && task.main.idle(self.store)
        {
            return self.start_reclaim(t, on, entry);
        }
        if task.main.idle(self.store) && sched.is_none_or(|s| s.idle(self.store)) {
            return Stepped::Idle;
        }
        self.pcpu = self.store.get(on);
        let Ok(p) = usize::try_from(self.pcpu) else { return self.place(t, on) };
        if self.store.get(machine.pcpus[p].handling) != 0 {
            return Stepped::Blocked(machine.pcpus[p].handling);
        }
        self.read_windows();
        if machine.online.is_some()
            && let Some(slot) = self.away_from(t, p)
        {
            return Stepped::Blocked(slot);
        }
        let mut context = ContextSlots::blank();
        if let Some(slots) = sched
            && slots.load(self.store, &mut context)
        {
            self.who = Who::Sched;
            let done = self.advance(slots, &mut context, false);
            if done == Stepped::Done && slots.idle(self.store) && !self.parked {
                // The scheduler lets go: as after finish_task_switch.
                if self.preempt != 1 || self.irq_off != 0 {
                    self.broke(Broken::LeftOff);
                }
                self.preempt = 0;
                self.irq_off = 0;
                self.write_windows();
            }
            return done;
        }
        if !task.main.load(self.store, &mut context) {
            return Stepped::Idle;
        }
        let done = self.advance(&task.main, &mut context, false);
        if done == Stepped::Done && task.main.idle(self.store) && task.repeats.is_none() {
            self.leave(p, on);
        }
        done
    }

    /// A task on a pCPU that went offline under it does no more there once it can be moved: what it waits for.
    fn away_from(&self, t: usize, p: usize) -> Option<SlotId> {
        let machine = self.machine;
        let busy = |v: &VcpuSlots| self.store.get(v.in_guest) != 0 || !v.sched.idle(self.store);
        let stays = self.preempt != 0
            || self.irq_off != 0
            || machine.tasks[t].vcpu.as_ref().is_some_and(busy)
            || !machine.must_leave(self.store, t, p);
        if stays { None } else { machine.online_word(PcpuId(u16::try_from(p).unwrap_or(0))) }
    }

    /// A reclaimer begins on any page that its VM's owner still maps.
    pub(super) fn start_reclaim(&mut self, t: usize, on: SlotId, entry: &svm_lang::Entry) -> Stepped {
        let machine = self.machine;
        let TaskKind::Reclaimer { vm, .. } = &machine.spec.tasks[t].kind else { return Stepped::Idle };
        self.pcpu = self.store.get(on);
        let Ok(p) = usize::try_from(self.pcpu) else { return self.place(t, on) };
        if self.store.get(machine.pcpus[p].handling) != 0 {
            return Stepped::Blocked(machine.pcpus[p].handling);
        }
        let pages = machine.reclaimable(self.store, *vm);
        if pages.is_empty() {
            return Stepped::Idle;
        }
        let page = pages[self.ask(pages.len())];
        self.read_windows();
        let mut context = ContextSlots::start(entry, &[i64::from(vm.0), i64::from(page)]);
        self.notes.what = Some(What::Started { page });
        self.advance(&machine.tasks[t].main, &mut context, true)
    }

    /// A task that has ended or lost its pCPU leaves it with windows open.
    pub(super) fn leave(&mut self, p: usize, on: SlotId) {
        self.store.set(on, -1);
        self.store.set(self.machine.pcpus[p].current, -1);
        self.store.set(self.machine.pcpus[p].irq_off, 0);
        self.store.set(self.machine.pcpus[p].preempt, 0);
    }

    /// A task without a pCPU gets one that is free, any of those it may run on.
    pub(super) fn place(&mut self, t: usize, on: SlotId) -> Stepped {
        let machine = self.machine;
        let free = machine.placements(self.store, u16::try_from(t).unwrap_or(u16::MAX));
        if free.is_empty() {
            let allowed = machine.allowed(self.store, t);
            let slot = allowed.first().map_or(on, |p| machine.pcpus[p.index()].current);
            return Stepped::Blocked(slot);
        }
        let pcpu = free[self.ask(free.len())];
        let slots = &machine.pcpus[pcpu.index()];
        self.store.set(on, i64::from(pcpu.0));
        self.store.set(slots.current, i64::try_from(t).unwrap_or(0));
        self.pcpu = i64::from(pcpu.0);
        self.notes.what = Some(What::Placed { pcpu });
        if let Some(vcpu) = &machine.tasks[t].vcpu
            && self.store.get(vcpu.loaded) != 0
        {
            // Preempt notifiers run with interrupts on and preemption off (finish_task_switch).
            self.preempt = 1;
            self.irq_off = 0;
            return self.begin_sched(vcpu, &machine.sched_in);
        }
        Stepped::Done
    }

    pub(super) fn begin_sched(&mut self, vcpu: &VcpuSlots, entry: &svm_lang::Entry) -> Stepped {
        let mut context = ContextSlots::start(entry, &[i64::from(vcpu.vcpu.0)]);
        self.who = Who::Sched;
        self.advance(&vcpu.sched, &mut context, true)
    }

    pub(super) fn preempt_step(&mut self, t: usize) -> Stepped {
        let machine = self.machine;
        let task = &machine.tasks[t];
        self.task = t;
        let Some(on) = task.on else { return Stepped::Idle };
        self.pcpu = self.store.get(on);
        let Ok(p) = usize::try_from(self.pcpu) else { return Stepped::Blocked(on) };
        if task.main.idle(self.store) {
            return Stepped::Idle;
        }
        let here = &machine.pcpus[p];
        for slot in [here.preempt, here.irq_off, here.handling] {
            if self.store.get(slot) != 0 {
                return Stepped::Blocked(slot);
            }
        }
        if let Some(on) = self.unseen_here() {
            return Stepped::Blocked(on);
        }
        if let Some(vcpu) = &task.vcpu {
            if self.store.get(vcpu.in_guest) != 0 || !vcpu.sched.idle(self.store) {
                return Stepped::Blocked(vcpu.in_guest);
            }
            if self.store.get(vcpu.loaded) != 0 {
                // The scheduler switches with interrupts off (prepare_task_switch).
                self.notes.what = Some(What::Preempted);
                self.preempt = 1;
                self.irq_off = 1;
                return self.begin_sched(vcpu, &machine.sched_out);
            }
        }
        let mut others = machine.spec.tasks.iter().enumerate().filter(|(o, _)| *o != t);
        let wanted = others.any(|(_, other)| other.pcpus.iter().any(|q| usize::from(q.0) == p));
        let alone = machine.spec.tasks[t].pcpus.len() < 2 && task.vcpu.is_some() && !wanted;
        if alone && !machine.must_leave(self.store, t, p) {
            // Losing a pCPU and getting the same one back changes nothing before vcpu_load.
            return Stepped::Blocked(on);
        }
        self.notes.what = Some(What::Preempted);
        self.leave(p, on);
        Stepped::Done
    }
}
