//! Stores that wait in their pCPU's buffer, under TSO. Under sequential consistency there are no buffers.

use sim_core::choice::Chooser;
use sim_core::state::{SlotId, Store};

use super::{Runner, Stepped};
use crate::buffer::EntrySlots;
use crate::label::What;
use crate::machine::Machine;
use crate::memory::Memory;

impl Machine {
    /// The slot that holds a pCPU's oldest store that others do not see yet, if there is one.
    pub(crate) fn unseen_of<S: Store>(&self, store: &S, pcpu: usize) -> Option<SlotId> {
        let oldest = self.buffers.of_pcpu.get(pcpu)?.first()?.target;
        (store.get(oldest) != 0).then_some(oldest)
    }
}

impl<S: Store, M: Memory<S>, C: Chooser> Runner<'_, S, M, C> {
    /// The buffer of the pCPU at hand; empty if stores are seen at once, as a device's are.
    fn entries(&self) -> &[EntrySlots] {
        let buffers = &self.machine.buffers.of_pcpu;
        usize::try_from(self.pcpu).ok().and_then(|p| buffers.get(p)).map_or(&[], Vec::as_slice)
    }

    /// What fences of the pCPU at hand wait for.
    pub(super) fn unseen_here(&self) -> Option<SlotId> {
        self.machine.unseen_of(self.store, usize::try_from(self.pcpu).ok()?)
    }

    /// What the pCPU at hand reads of a slot because its own latest store to it is not seen by others yet.
    pub(super) fn forwarded(&self, slot: SlotId) -> Option<i64> {
        let entries = self.entries();
        let code = if entries.is_empty() { None } else { self.machine.buffers.code(slot) }?;
        let mut found = None;
        for entry in entries {
            match self.store.get(entry.target) {
                0 => break,
                c if c == code => found = Some(self.store.get(entry.value)),
                _ => {}
            }
        }
        found
    }

    /// Puts a store into the buffer of the pCPU at hand: `None` if it has none, so that the store is made at once, else
    /// whether there was room, or what must change first.
    pub(super) fn put_off(&mut self, slot: SlotId, value: i64) -> Option<Result<(), SlotId>> {
        let entries = self.entries();
        let (oldest, code) = (entries.first()?.target, self.machine.buffers.code(slot)?);
        let vacant = entries.iter().find(|e| self.store.get(e.target) == 0).copied();
        let Some(entry) = vacant else { return Some(Err(oldest)) };
        self.store.set(entry.target, code);
        self.store.set(entry.value, value);
        Some(Ok(()))
    }

    /// The oldest store of a pCPU's buffer reaches memory.
    pub(super) fn drain_step(&mut self, p: usize) -> Stepped {
        let machine = self.machine;
        self.pcpu = i64::try_from(p).unwrap_or(-1);
        let Some(entries) = machine.buffers.of_pcpu.get(p) else { return Stepped::Idle };
        let Some(oldest) = entries.first() else { return Stepped::Idle };
        let Some(slot) = machine.buffers.slot(self.store.get(oldest.target)) else { return Stepped::Idle };
        let value = self.store.get(oldest.value);
        for (to, from) in entries.iter().zip(&entries[1..]) {
            let (target, value) = (self.store.get(from.target), self.store.get(from.value));
            self.store.set(to.target, target);
            self.store.set(to.value, value);
        }
        if let Some(last) = entries.last() {
            self.store.set(last.target, 0);
            self.store.set(last.value, machine.buffers.resting);
        }
        self.write_slot(slot, value);
        self.notes.what = Some(What::Drained { pcpu: u16::try_from(p).unwrap_or(u16::MAX), slot });
        if self.store.get(machine.pcpus[p].handling) != 0 {
            // Stores reach memory in order: that the handler is done is seen after all that it wrote.
            self.finish_handler(p);
        }
        Stepped::Done
    }

    /// Writes the slot of a variable; what is written to a mask that has been freed meanwhile is lost.
    fn write_slot(&mut self, slot: SlotId, value: i64) {
        let within =
            |v: &crate::machine::VarSlots| (v.base..v.base + v.words * v.instances).contains(&slot.0);
        let var = self.machine.vars.iter().position(within);
        if let Some(at) = var.filter(|at| self.machine.vars[*at].state.is_some()) {
            let of = &self.machine.vars[at];
            let instance = i64::from((slot.0 - of.base) / of.words.max(1));
            let var = svm_policy::VarId(u16::try_from(at).unwrap_or(u16::MAX));
            let place = svm_policy::Place {
                var,
                instance: svm_policy::Operand::Const(instance),
                word: svm_policy::Operand::Const(0),
            };
            if self.mask_is_gone(place, instance) {
                return;
            }
        }
        self.store.set(slot, value);
    }
}
