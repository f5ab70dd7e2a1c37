//! Structures that texts free, and objects that they allocate: use after free, double free.

use sim_core::choice::Chooser;
use sim_core::state::{SlotId, Store};
use svm_lang::{MASK_FREED, MASK_LIVE, MASK_NULL};
use svm_policy::{Answer, Place, Platform as _, Scope, VarId};

use super::Runner;
use crate::label::Broken;
use crate::memory::Memory;

impl<S: Store, M: Memory<S>, C: Chooser> Runner<'_, S, M, C> {
    /// Reports the use of a field of an object that is not there; what is read of it is 0, what is written is lost.
    pub(super) fn object_is_gone(&mut self, var: VarId, instance: i64) -> bool {
        let Some(state) = self.machine.vars[usize::from(var.0)].object else { return false };
        let Some(slot) = self.machine.var_slot(VarId(state), instance, 0) else { return false };
        let gone = self.store.get(slot) != MASK_LIVE;
        if gone {
            self.broke(Broken::ObjectGone(slot));
        }
        gone
    }

    /// The slot that says whether an object is there; one that does not exist is reported.
    fn object(&mut self, state: i64, instance: i64) -> Option<SlotId> {
        let found = u16::try_from(state).ok().and_then(|s| self.machine.var_slot(VarId(s), instance, 0));
        if found.is_none() {
            self.broke(Broken::NoSuch);
        }
        found
    }

    /// An object that is not in use, the first; it holds what it starts with.
    pub(super) fn alloc_object(&mut self, [state, count, may_sleep, _]: [i64; 4]) -> Answer {
        if may_sleep != 0 {
            self.may_sleep();
        }
        if !self.machine.spec.assumptions.no_alloc_failure && self.ask(2) == 0 {
            return Answer::Done(-1);
        }
        for instance in 0..count {
            let Some(slot) = self.object(state, instance) else { break };
            if self.store.get(slot) != MASK_LIVE {
                self.store.set(slot, MASK_LIVE);
                self.reset_fields(|object, of| object == Some(state) && of == instance, false);
                return Answer::Done(instance);
            }
        }
        Answer::Done(-1)
    }

    pub(super) fn free_object(&mut self, state: i64, instance: i64) -> Answer {
        if instance < 0 {
            return Answer::Done(0);
        }
        let Some(slot) = self.object(state, instance) else { return Answer::Done(0) };
        if self.store.get(slot) == MASK_LIVE {
            self.store.set(slot, MASK_FREED);
            self.reset_fields(|object, of| object == Some(state) && of == instance, true);
        } else {
            self.broke(Broken::ObjectFreedTwice(slot));
        }
        Answer::Done(0)
    }

    /// A task ends. If it is the last that can free objects, those have leaked that no variable refers to.
    pub(super) fn judge_objects(&mut self) {
        let machine = self.machine;
        let objects = &machine.objects;
        let uses = |task: usize| objects.users.get(task) == Some(&true);
        // What is in a store buffer may still become a reference.
        if objects.pools.is_empty() || !uses(self.task) || !machine.buffers.of_pcpu.is_empty() {
            return;
        }
        let mut others = machine.tasks.iter().enumerate().filter(|(task, _)| uses(*task));
        let idle = others.all(|(task, slots)| {
            let scheduled = slots.vcpu.as_ref().is_none_or(|vcpu| vcpu.sched.idle(self.store));
            scheduled && (task == self.task || slots.main.idle(self.store))
        });
        let mut pcpus = machine.pcpus.iter();
        let called = objects.in_handlers
            && pcpus.any(|p| self.store.get(p.pending) != 0 || self.store.get(p.handling) != 0);
        if !idle || called {
            return;
        }
        for pool in &objects.pools {
            for instance in 0..i64::from(machine.vars[usize::from(pool.state)].instances) {
                let Some(slot) = machine.var_slot(VarId(pool.state), instance, 0) else { continue };
                if self.store.get(slot) == MASK_LIVE && !self.is_referred_to(&pool.names, instance) {
                    self.broke(Broken::ObjectLeaked(slot));
                }
            }
        }
    }

    /// Whether one of these variables holds the number of an object.
    fn is_referred_to(&self, names: &[u16], object: i64) -> bool {
        let slots = names.iter().flat_map(|var| {
            let lies = &self.machine.vars[usize::from(*var)];
            lies.base..lies.base + lies.words * lies.instances
        });
        slots.map(SlotId).any(|slot| self.store.get(slot) == object)
    }

    /// The structures of a VM and of its vCPUs are freed: what only they pointed at is lost.
    pub(super) fn free_vm(&mut self, vm: i64) -> Answer {
        let meant = |scope: Scope, instance: i64, vm_of: i64| {
            scope == Scope::PerVm && instance == vm || scope == Scope::PerVcpu && vm_of == vm
        };
        self.free_structures(meant, Scope::PerVm);
        Answer::Done(0)
    }

    pub(super) fn free_vcpu(&mut self, vcpu: i64) -> Answer {
        self.free_structures(
            |scope, instance, _| scope == Scope::PerVcpu && instance == vcpu,
            Scope::PerVcpu,
        );
        Answer::Done(0)
    }

    /// Frees all structures that are meant (by scope, instance, and a vCPU's VM); one of `once` that was freed before
    /// is reported.
    fn free_structures(&mut self, meant: impl Fn(Scope, i64, i64) -> bool, once: Scope) {
        let machine = self.machine;
        let mut states: Vec<u16> = machine.vars.iter().filter_map(|v| v.object).collect();
        states.sort_unstable();
        states.dedup();
        for (at, var) in machine.vars.iter().enumerate() {
            for instance in 0..i64::from(var.instances) {
                if !meant(var.scope, instance, self.vm_of(instance)) {
                    continue;
                }
                let id = u16::try_from(at).unwrap_or(u16::MAX);
                let Some(slot) = machine.var_slot(VarId(id), instance, 0) else { continue };
                if states.contains(&id) {
                    if self.store.get(slot) != MASK_LIVE && var.scope == once {
                        self.broke(Broken::ObjectFreedTwice(slot));
                    }
                    self.store.set(slot, MASK_FREED);
                } else {
                    self.reset(id, instance, true);
                }
            }
        }
    }

    /// Every field of the objects meant holds what it starts with: equal states are equal words.
    fn reset_fields(&mut self, meant: impl Fn(Option<i64>, i64) -> bool, freed: bool) {
        let machine = self.machine;
        for (at, var) in machine.vars.iter().enumerate() {
            for instance in 0..i64::from(var.instances) {
                if meant(var.object.map(i64::from), instance) {
                    self.reset(u16::try_from(at).unwrap_or(u16::MAX), instance, freed);
                }
            }
        }
    }

    fn reset(&mut self, var: u16, instance: i64, freed: bool) {
        let machine = self.machine;
        if let Some(state) = machine.mask_state(VarId(var), instance) {
            if freed && self.store.get(state) == MASK_LIVE {
                // Nobody can free it any more.
                self.broke(Broken::MaskLeaked(state));
            }
            self.store.set(state, if freed { MASK_FREED } else { MASK_NULL });
            self.empty_mask(i64::from(var), instance);
            return;
        }
        // The state of a mask goes with the mask.
        if machine.vars.iter().any(|v| v.state == Some(var)) {
            return;
        }
        for word in 0..i64::from(machine.vars[usize::from(var)].words) {
            if let Some(slot) = machine.var_slot(VarId(var), instance, word) {
                self.store.set(slot, machine.layout.slots()[slot.0 as usize].init);
            }
        }
    }

    /// `lockdep_assert_held()` and its kin.
    pub(super) fn lock_held(&mut self, [var, instance, word, how]: [i64; 4]) -> Answer {
        let Ok(id) = u16::try_from(var) else { return Answer::Own(0) };
        let place = Place {
            var: VarId(id),
            instance: svm_policy::Operand::Const(instance),
            word: svm_policy::Operand::Const(word),
        };
        let (held, me) = (self.load_plain(place, instance, word), self.holder());
        let kind = &self.machine.code.vars[usize::from(id)].kind;
        let counted = matches!(kind, svm_lang::VarKind::Rwlock | svm_lang::VarKind::Rwsem);
        let (writes, reads) = (held == if counted { -me } else { me }, counted && held > 0);
        let fine = match how {
            0 => writes || reads,
            1 => writes,
            2 => reads,
            _ => !writes,
        };
        if !fine {
            self.broke(Broken::LockAssertion);
        }
        Answer::Own(0)
    }
}
