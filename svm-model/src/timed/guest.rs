//! The guests' fast path: hits take no event, and only accesses that an event can concern are steps.

use cache_model::hierarchy::LineRef;
use sev_arch::{Access as Kind, PcpuId, Tag};
use sim_core::random::Stream;

use super::engine::{Run, span};
use super::lost::Episode;
use super::plan::{Access, GuestStream, Pace};
use crate::label::{Actor, What};

/// Accesses that a guest may make in one go before the queue is looked at again.
const BATCH: u32 = 4096;

/// An outstanding miss.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Miss {
    served_at: u64,
    /// Of a line that a flush had taken.
    refill: bool,
}

/// A guest's running state.
pub(super) struct Vcpu<G> {
    pub(super) source: G,
    pub(super) pending: Option<Access>,
    pub(super) left: u64,
    /// When it is to move, by the clock.
    pub(super) move_at: u64,
    /// It stops with this many accesses left, to move or because it has made them all.
    pub(super) stop: u64,
    /// When each outstanding miss is served; a ring.
    pub(super) misses: Vec<Miss>,
    pub(super) next_miss: usize,
    pub(super) milli: u64,
    pub(super) moves: Stream,
    pub(super) halted_at: Option<u64>,
    /// An IPI has taken it out of its guest.
    pub(super) episode: Option<Episode>,
    /// The flush call since which it has waited for refills, and where, and for how long.
    pub(super) refilling: (u64, u16),
    pub(super) refilled: u64,
}

impl<G> Vcpu<G> {
    /// Draws when it moves next.
    pub(super) fn plan_move(&mut self, pace: Pace, now: u64) {
        (self.move_at, self.stop) = match pace {
            Pace::Never => (u64::MAX, 0),
            Pace::Cycles(mean) => (now + span(&mut self.moves, mean), 0),
            Pace::Accesses(mean) => (u64::MAX, self.left.saturating_sub(span(&mut self.moves, mean))),
        };
    }

    /// Whether it is time to move.
    pub(super) fn moves(&self, now: u64) -> bool {
        now >= self.move_at || self.left != 0 && self.left <= self.stop
    }
}

impl<G: GuestStream> Run<'_, G> {
    /// Runs a guest until something else must happen first.
    pub(super) fn guest(&mut self, agent: usize, t: u16, pcpu: PcpuId, now: u64) {
        let left = |run: &Self| run.vcpus[usize::from(t)].as_ref().map_or(0, |v| v.left);
        let before = left(self);
        let at = self.guest_batch(agent, t, pcpu, now);
        let made = before - left(self);
        if made != 0 {
            self.out.guest_accesses += made;
            self.progress(t, made, at);
        }
    }

    /// Up to as many accesses as may be made before a reclaim comes due; when the last of them was made.
    fn guest_batch(&mut self, agent: usize, t: u16, pcpu: PcpuId, now: u64) -> u64 {
        let index = usize::from(t);
        let machine = self.machine;
        let Some(slots) = &machine.tasks[index].vcpu else { return now };
        let core = self.topology.core_of(pcpu);
        let private = machine.tag_of_vm(&self.store, slots.vm);
        let horizon = self.queue.next_time().unwrap_or(u64::MAX);
        // Hits disturb nobody before the smallest request could arrive.
        let ahead = horizon.saturating_add(u64::from(self.timing.l3_hit));
        let mut at = now;
        for _ in 0..BATCH.min(self.due[slots.vm.index()].until()) {
            let Some(vcpu) = self.vcpus[index].as_mut() else { return at };
            let moves = vcpu.moves(at);
            if moves && self.ipi_at[pcpu.index()] > at && !self.must_leave(t, pcpu, at) {
                continue;
            }
            let Some(vcpu) = self.vcpus[index].as_mut() else { return at };
            if self.ipi_at[pcpu.index()] <= at || moves || vcpu.left <= vcpu.stop {
                let forced = self.ipi_at[pcpu.index()] <= at;
                let halt = vcpu.left == 0 && !forced;
                let drained = vcpu.misses.iter().map(|m| m.served_at).max().unwrap_or(0).max(at);
                match self.step(Actor::Task(t), drained, &[if halt { 2 } else { 1 }]) {
                    Ok(cycles) => {
                        self.left_guest(t, (drained, drained + cycles), forced);
                        self.after_task(agent, t, drained, cycles);
                    }
                    Err(_) => self.schedule(agent, drained + 1),
                }
                return at;
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
            let (tlb, bit) = machine.tlb(slots.vcpu.index(), page as usize);
            let tag = if machine.spec().is_shared(page) { Tag::HOST } else { private };
            let mapped = self.store.words[tlb.0 as usize] & bit != 0
                && machine.rmp_allows(&self.store, slots.vm, page, tag);
            if !mapped || self.memory.tracked(line) {
                if at > horizon {
                    break;
                }
                let rank = machine.vm_pages[slots.vm.index()].binary_search(&page).unwrap_or(0);
                match self.tracked_access(agent, t, at, (rank, access)) {
                    Some(next) => at = next,
                    None => return at,
                }
                continue;
            }
            let request = LineRef { phys: line, tag };
            if let Some(cycles) = self.memory.caches.try_hit(core, request, access.kind) {
                self.fast_hits[usize::from(cycles >= self.timing.l2_hit)] += 1;
                // A hit's latency is hidden, but for the time to issue it.
                at += u64::from(cycles > self.timing.l1_hit);
                vcpu.pending = None;
                vcpu.left -= 1;
                if at > ahead {
                    break;
                }
                continue;
            }
            if at > horizon {
                break;
            }
            let slot = &mut vcpu.misses[vcpu.next_miss];
            let waited = if slot.refill { slot.served_at.saturating_sub(at) } else { 0 };
            at = at.max(slot.served_at);
            let (served, refill) = self.memory.request(core, request, access.kind, at);
            self.guest_requests += 1;
            *slot = Miss { served_at: at + u64::from(served.cycles), refill };
            vcpu.next_miss = (vcpu.next_miss + 1) % vcpu.misses.len();
            vcpu.pending = None;
            vcpu.left -= 1;
            at += 1;
            if waited != 0 {
                self.lost_to_refill(t, pcpu, waited);
            }
            if !self.memory.tracks_nothing() {
                self.memory.follow_moves();
                self.book_moves();
            }
        }
        self.schedule(agent, at);
        at
    }

    /// An access that must be a step of the machine: its page is not in the TLB, or events can concern its line.
    /// Returns when the guest goes on, or `None` if it has left guest mode.
    fn tracked_access(
        &mut self,
        agent: usize,
        t: u16,
        at: u64,
        (rank, access): (usize, Access),
    ) -> Option<u64> {
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
        let refills = self.memory.refills;
        match self.step(Actor::Task(t), at, &given) {
            Ok(cycles) => {
                let pcpu = self.machine.pcpu_of(&self.store, Actor::Task(t));
                if let Some(pcpu) = pcpu.filter(|_| self.memory.refills != refills) {
                    self.lost_to_refill(t, pcpu, self.notes.cycles);
                }
                if matches!(self.notes.what, Some(What::Guest { .. })) {
                    self.guest_steps += 1;
                    if let Some(vcpu) = self.vcpus[usize::from(t)].as_mut() {
                        vcpu.pending = None;
                        vcpu.left -= 1;
                    }
                    return Some(at + cycles);
                }
                self.left_guest(t, (at, at + cycles), false);
                self.after_task(agent, t, at, cycles);
                None
            }
            Err(_) => Some(at + 1),
        }
    }
}
