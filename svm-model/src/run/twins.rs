//! Whether a step is one that a "sometimes" twin waits for. Nothing here changes what a step does; the slots that
//! are looked at for it are looked at only if whoever asked for the step wants to know.

use sim_core::choice::Chooser;
use sim_core::state::Store;

use super::Runner;
use crate::memory::Memory;
use crate::twin::Twin;

impl<S: Store, M: Memory<S>, C: Chooser> Runner<'_, S, M, C> {
    /// A page is taken away or flushed.
    pub(super) fn twin_dirty(&mut self, page: u32) {
        let per_page = self.machine.spec.lines_per_page;
        if self.notes.wants_twins {
            self.twin_dirty_lines(page * per_page..(page + 1) * per_page);
        }
    }

    /// A pCPU flushes its caches.
    pub(super) fn twin_flush(&mut self) {
        if self.notes.wants_twins {
            let pages = u32::try_from(self.machine.owners.len()).unwrap_or(0);
            self.twin_dirty_lines(0..pages * self.machine.spec.lines_per_page);
        }
    }

    fn twin_dirty_lines(&mut self, lines: std::ops::Range<u32>) {
        let mut tags = self.machine.spec.shape.all_tags().filter(|tag| tag.is_guest());
        let dirty = tags.any(|tag| lines.clone().any(|line| self.memory.dirty(self.store, line, tag)));
        if dirty {
            self.notes.twins |= Twin::DirtyReclaimed.bit();
        }
    }

    /// A call is sent to a pCPU.
    pub(super) fn twin_call(&mut self, pcpu: usize, callback: i64) {
        let machine = self.machine;
        let flushes = usize::try_from(callback).ok().and_then(|c| machine.twin_tables.flushing.get(c));
        if !self.notes.wants_twins || flushes != Some(&true) {
            return;
        }
        let current = usize::try_from(self.store.get(machine.pcpus[pcpu].current)).ok();
        let vcpu = current.and_then(|task| machine.tasks[task].vcpu.as_ref());
        if vcpu.is_some_and(|v| self.store.get(v.in_guest) != 0) {
            self.notes.twins |= Twin::IpiMetGuest.bit();
        }
    }

    /// A task begins to write back.
    pub(super) fn twin_writeback(&mut self) {
        let machine = self.machine;
        if !self.notes.wants_twins {
            return;
        }
        for (_, task) in machine.tasks.iter().enumerate().filter(|(t, _)| *t != self.task) {
            let at = task.main.at(self.store);
            if at.is_some_and(|pc| machine.twin_tables.writing[usize::from(pc)]) {
                self.notes.twins |= Twin::FlushersOverlapped.bit();
            }
        }
    }
}
