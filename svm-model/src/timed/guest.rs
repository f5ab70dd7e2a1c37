//! The guests' fast path: hits take no event, and only accesses that an event can concern are steps.

use cache_model::hierarchy::LineRef;
use sev_arch::{Access as Kind, PcpuId, Tag};
use sim_core::random::Stream;

use super::engine::Run;
use super::plan::{Access, GuestStream};
use crate::label::{Actor, What};

/// Accesses that a guest may make in one go before the queue is looked at again.
const BATCH: u32 = 4096;

/// A guest's running state.
pub(super) struct Vcpu<G> {
    pub(super) source: G,
    pub(super) pending: Option<Access>,
    pub(super) left: u64,
    pub(super) move_at: u64,
    /// When each outstanding miss is served; a ring.
    pub(super) misses: Vec<u64>,
    pub(super) next_miss: usize,
    pub(super) milli: u64,
    pub(super) moves: Stream,
    pub(super) halted_at: Option<u64>,
}

impl<G: GuestStream> Run<'_, G> {
    /// Runs a guest until something else must happen first.
    pub(super) fn guest(&mut self, agent: usize, t: u16, pcpu: PcpuId, now: u64) {
        let index = usize::from(t);
        let machine = self.machine;
        let Some(slots) = &machine.tasks[index].vcpu else { return };
        let core = self.topology.core_of(pcpu);
        let tag = Tag::of_vm(slots.vm);
        let pages = machine.spec().pages.len();
        let tlb = slots.vcpu.index() * pages;
        let horizon = self.queue.peek().map_or(u64::MAX, |r| r.0.0);
        // Hits disturb nobody before the smallest request could arrive.
        let ahead = horizon.saturating_add(u64::from(self.timing.l3_hit));
        let mut at = now;
        for _ in 0..BATCH {
            let Some(vcpu) = self.vcpus[index].as_mut() else { return };
            if self.ipi_at[pcpu.index()] <= at || at >= vcpu.move_at || vcpu.left == 0 {
                let halt = vcpu.left == 0 && self.ipi_at[pcpu.index()] > at;
                let drained = vcpu.misses.iter().copied().max().unwrap_or(0).max(at);
                match self.step(Actor::Task(t), drained, &[if halt { 2 } else { 1 }]) {
                    Ok(cycles) => self.after_task(agent, t, drained, cycles),
                    Err(_) => self.schedule(agent, drained + 1),
                }
                return;
            }
            let access = match vcpu.pending {
                Some(access) => access,
                None => {
                    let access = vcpu.source.next_access();
                    vcpu.milli += u64::from(access.instructions) * self.timing.per_instruction_milli;
                    at += vcpu.milli / 1000;
                    vcpu.milli %= 1000;
                    vcpu.pending = Some(access);
                    access
                }
            };
            let frames = &self.frames[slots.vm.index()];
            let gfn = access.gfn as usize % frames.len().max(1);
            let Some(page) = frames[gfn] else {
                // The VMM maps a fresh page when the guest first touches it.
                if at > horizon {
                    break;
                }
                match self.spare[slots.vm.index()].pop() {
                    Some(page) => self.frames[slots.vm.index()][gfn] = Some(page),
                    None => at += self.plan.reuse_after.max(1),
                }
                continue;
            };
            let line = page * machine.spec().lines_per_page + access.line % machine.spec().lines_per_page;
            let mapped = self.store.words[machine.tlbs[tlb + page as usize].0 as usize] != 0;
            if !mapped || self.memory.tracked(line) {
                if at > horizon {
                    break;
                }
                let rank = machine.vm_pages[slots.vm.index()].binary_search(&page).unwrap_or(0);
                at = self.tracked_access(agent, t, at, (rank, access));
                if at == u64::MAX {
                    return;
                }
                continue;
            }
            let request = LineRef { phys: line, tag };
            if let Some(cycles) = self.memory.caches.try_hit(core, request, access.kind) {
                // A hit's latency is hidden, but for the time to issue it.
                at += u64::from(cycles > self.timing.l1_hit);
                vcpu.pending = None;
                vcpu.left -= 1;
                self.out.guest_accesses += 1;
                if at > ahead {
                    break;
                }
                continue;
            }
            if at > horizon {
                break;
            }
            let slot = &mut vcpu.misses[vcpu.next_miss];
            at = at.max(*slot);
            let served = self.memory.caches.access(core, request, access.kind, at);
            *slot = at + u64::from(served.cycles);
            vcpu.next_miss = (vcpu.next_miss + 1) % vcpu.misses.len();
            vcpu.pending = None;
            vcpu.left -= 1;
            self.out.guest_accesses += 1;
            at += 1;
            if !self.memory.tracks_nothing() {
                self.memory.follow_moves();
                self.book_moves();
            }
        }
        self.schedule(agent, at);
    }

    /// An access that must be a step of the machine: its page is not in the TLB, or events can concern its line.
    /// Returns when the guest goes on, or `u64::MAX` if it has left guest mode.
    fn tracked_access(&mut self, agent: usize, t: u16, at: u64, (rank, access): (usize, Access)) -> u64 {
        let per_page = self.machine.spec().lines_per_page;
        let count = self.machine.tasks[usize::from(t)]
            .vcpu
            .as_ref()
            .map_or(1, |v| self.machine.vm_pages[v.vm.index()].len());
        let mut given = vec![0];
        if count > 1 {
            given.push(u32::try_from(rank).unwrap_or(0));
        }
        if per_page > 1 {
            given.push(access.line % per_page);
        }
        given.push(u32::from(access.kind == Kind::Write));
        match self.step(Actor::Task(t), at, &given) {
            Ok(cycles) => {
                if matches!(self.notes.what, Some(What::Guest { .. })) {
                    if let Some(vcpu) = self.vcpus[usize::from(t)].as_mut() {
                        vcpu.pending = None;
                        vcpu.left -= 1;
                    }
                    self.out.guest_accesses += 1;
                    return at + cycles;
                }
                self.after_task(agent, t, at, cycles);
                u64::MAX
            }
            Err(_) => at + 1,
        }
    }
}
