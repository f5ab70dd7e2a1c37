//! Who gets a lock in time: whoever has waited longest, and a waiting writer before any new reader, as the kernel's
//! queued locks do. The machine itself lets any waiter be next; without an order, vCPUs that fault again and again
//! hold `mmu_lock` for reading in turns and keep a reclaimer out for ever.

use sim_core::state::SlotId;
use svm_policy::{Lock, Op, Operand};

use super::engine::{Run, SlotKind};
use super::plan::GuestStream;
use crate::context::ContextSlots;

/// A task's wait for a lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct LockWait {
    since: u64,
    /// The lock, if it is wanted for writing.
    writes: Option<SlotId>,
    /// Whether it sleeps meanwhile.
    sleeps: bool,
}

impl<G: GuestStream> Run<'_, G> {
    /// The lock that a task would take next, and how.
    fn next_lock(&self, task: usize) -> Option<(SlotId, Lock)> {
        let slots = &self.machine.tasks[task];
        let sched = slots.vcpu.as_ref().map(|v| &v.sched);
        let mut context = ContextSlots::blank();
        let running = sched.is_some_and(|s| s.load(&self.store, &mut context))
            || slots.main.load(&self.store, &mut context);
        let Op::Lock { kind, place } = self.machine.code().ops[usize::from(context.pc)] else { return None };
        let value = |operand| match operand {
            Operand::Const(c) => c,
            Operand::Reg(r) => context.regs[usize::from(r)],
        };
        let slot = self.machine.var_slot(place.var, value(place.instance), value(place.word))?;
        running.then_some((slot, kind))
    }

    /// Whether a task must let a writer go first; then it waits.
    pub(super) fn queues_behind_a_writer(&mut self, agent: usize, task: usize, now: u64) -> bool {
        if self.waits.iter().flatten().all(|w| w.writes.is_none()) {
            return false;
        }
        let Some((slot, kind @ (Lock::Read | Lock::DownRead))) = self.next_lock(task) else { return false };
        let behind = self.waits.iter().flatten().any(|w| w.writes == Some(slot));
        if behind {
            let sleeps = kind.sleeps();
            self.waits[task].get_or_insert(LockWait { since: now, writes: None, sleeps });
            self.store.wait(slot, u32::try_from(agent).unwrap_or(u32::MAX));
        }
        behind
    }

    /// A task cannot go on before a slot changes.
    pub(super) fn blocked(&mut self, agent: usize, task: usize, slot: SlotId, now: u64) {
        if self.slot_kinds[slot.0 as usize] == SlotKind::Lock {
            let kind = self.next_lock(task).map(|lock| lock.1);
            let writes = matches!(kind, Some(Lock::Write | Lock::DownWrite)).then_some(slot);
            let sleeps = kind.is_some_and(Lock::sleeps);
            self.waits[task].get_or_insert(LockWait { since: now, writes, sleeps });
        }
        self.store.wait(slot, u32::try_from(agent).unwrap_or(u32::MAX));
    }

    /// Cycles of a hand-over, if the task's step took the lock that it waited for: the wake-up of one that slept. One
    /// that span waits for the lock's line only, which its step pays for.
    pub(super) fn took_lock(&mut self, task: usize, now: u64) -> u64 {
        let Some(wait) = self.waits[task].take() else { return 0 };
        let handed = if wait.sleeps { self.timing.mutex_hand_off } else { 0 };
        self.out.cost.lock_wait_cycles += now - wait.since + handed;
        self.lost_to_lock(u16::try_from(task).unwrap_or(u16::MAX), wait.since, now + handed);
        handed
    }
}
