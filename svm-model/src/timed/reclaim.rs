//! Reclaim and reuse in time: when a page goes, which one, and who gets it next.

use sev_arch::{Access as Kind, VmId};
use sim_core::random::Stream;
use sim_core::state::Store as _;
use svm_policy::{Op, Prim};

use super::engine::{Run, span};
use super::plan::{GuestStream, Pace};
use crate::label::{Actor, NewOwner, What};
use crate::spec::TaskKind;

/// Cycles after which a reclaimer that found nothing looks again, at least.
const LOOK_AGAIN: u64 = 1_000;

/// A reclaimer's running state. What it takes and when have streams of their own, so that neither depends on how
/// far the other has come.
pub(super) struct Reclaimer {
    vm: VmId,
    pace: Pace,
    /// Pages that it takes in a row, and how many of them are left.
    burst: u64,
    left: u64,
    /// When it reclaims next: in cycles, or in accesses of its VM.
    next: u64,
    /// Reclaims that have come due by progress and are not done.
    due: u64,
    /// Whether it waits for its VM's progress.
    parked: bool,
    spans: Stream,
    frames: Stream,
    writeback_since: Option<u64>,
    page: u32,
}

impl Reclaimer {
    pub(super) fn new(seed: u64, task: u16, vm: VmId, (pace, burst): (Pace, u64)) -> Reclaimer {
        let mut spans = Stream::new(seed, u64::from(task), 4);
        let (next, parked) = match pace {
            Pace::Never => (u64::MAX, true),
            Pace::Cycles(mean) => (span(&mut spans, mean) / 2, false),
            Pace::Accesses(mean) => ((span(&mut spans, mean) / 2).max(1), true),
        };
        let frames = Stream::new(seed, u64::from(task), 2);
        let burst = burst.max(1);
        Reclaimer {
            vm,
            pace,
            burst,
            left: burst,
            next,
            due: 0,
            parked,
            spans,
            frames,
            writeback_since: None,
            page: 0,
        }
    }

    /// When it begins, if no guest must get on first.
    pub(super) fn first_at(&self) -> Option<u64> {
        (!self.parked).then_some(self.next)
    }
}

/// A VM's progress, and at which its next reclaim comes due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    made: u64,
    next: u64,
}

impl Due {
    pub(super) fn by_vm(vms: u16, reclaimers: &[Option<Reclaimer>]) -> Vec<Due> {
        (0..vms).map(|vm| Due { made: 0, next: Due::next(VmId(vm), reclaimers) }).collect()
    }

    fn next(vm: VmId, reclaimers: &[Option<Reclaimer>]) -> u64 {
        let by_progress = |r: &&Reclaimer| r.vm == vm && matches!(r.pace, Pace::Accesses(_));
        reclaimers.iter().flatten().filter(by_progress).map(|r| r.next).min().unwrap_or(u64::MAX)
    }

    /// Accesses that may be made before a reclaim comes due.
    pub(super) fn until(self) -> u32 {
        u32::try_from(self.next - self.made).unwrap_or(u32::MAX)
    }
}

impl<G: GuestStream> Run<'_, G> {
    /// The guest of a vCPU has made accesses, the last of them now: reclaims may come due.
    pub(super) fn progress(&mut self, t: u16, made: u64, now: u64) {
        let Some(vcpu) = &self.machine.tasks[usize::from(t)].vcpu else { return };
        let vm = vcpu.vm;
        let due = &mut self.due[vm.index()];
        due.made += made;
        if due.made < due.next {
            return;
        }
        let made = due.made;
        for task in 0..self.reclaimers.len() {
            let Some(r) = &mut self.reclaimers[task] else { continue };
            let Pace::Accesses(mean) = r.pace else { continue };
            while r.vm == vm && r.next <= made {
                r.next += span(&mut r.spans, mean);
                r.due += r.burst;
                self.backlog += r.burst;
            }
            if r.due > 0 && std::mem::take(&mut r.parked) {
                self.schedule(self.machine.pcpus.len() + task, now);
            }
        }
        self.due[vm.index()].next = Due::next(vm, &self.reclaimers);
    }

    /// The answers that a task's step will be asked for; `None` if a reclaimer finds nothing worth it.
    pub(super) fn given(&mut self, t: u16) -> Option<Vec<u32>> {
        let index = usize::from(t);
        let task = &self.machine.tasks[index];
        let spec = &self.machine.spec().tasks[index];
        if task.on.is_some_and(|on| self.store.get(on) < 0) {
            // The first free one from a place drawn, so that the draw is the same however many are free.
            let places = self.machine.placements(&self.store, t);
            if places.is_empty() {
                return Some(Vec::new());
            }
            if let Some(pick) = self.granted_among(t, &places) {
                return Some(vec![u32::try_from(pick).unwrap_or(0)]);
            }
            let count = spec.pcpus.len();
            let drawn = self.vcpus[index].as_mut().map_or(0, |v| v.moves.below(count as u64));
            let from = usize::try_from(drawn).unwrap_or(0);
            let order = (from..count).chain(0..from);
            let pick = order.filter_map(|i| places.iter().position(|p| *p == spec.pcpus[i])).next();
            return Some(vec![u32::try_from(pick.unwrap_or(0)).unwrap_or(0)]);
        }
        if let (Some(reclaimer), true) = (&mut self.reclaimers[index], task.main.idle(&self.store)) {
            let TaskKind::Reclaimer { vm, .. } = spec.kind else { return None };
            // Only pages in the nested page table are worth reclaiming: others hold nothing, and taking one from
            // under a guest that is about to map it can go on for ever. The first such from a guest frame drawn.
            let options = self.machine.reclaimable(&self.store, vm);
            let frames = &self.frames[vm.index()];
            let from = usize::try_from(reclaimer.frames.below(frames.len() as u64)).unwrap_or(0);
            let mut order = frames.get(from..)?.iter().chain(&frames[..from]).flatten();
            let sptes = &self.machine.sptes[vm.index() * self.machine.owners.len()..];
            let mapped = |page: &&u32| self.store.get(sptes[**page as usize]) != 0;
            let found = order.find_map(|p| options.binary_search(Some(p).filter(mapped)?).ok())?;
            return Some(vec![u32::try_from(found).unwrap_or(0)]);
        }
        Some(Vec::new())
    }

    /// A reclaimer that found nothing looks again later, unless no guest is left to map anything.
    pub(super) fn nothing_to_reclaim(&mut self, agent: usize, index: usize, now: u64) {
        let Some(reclaimer) = &mut self.reclaimers[index] else { return };
        if self.running == 0 {
            self.backlog -= std::mem::take(&mut reclaimer.due);
            return;
        }
        let wait = match reclaimer.pace {
            Pace::Cycles(mean) => mean,
            Pace::Never | Pace::Accesses(_) => self.plan.reuse_after,
        };
        self.schedule(agent, now + wait.max(LOOK_AGAIN));
    }

    /// Books a reclaimer's step that ends at `next`: when it makes the one after, or `None` if it waits for its
    /// VM's progress.
    pub(super) fn after_reclaimer(&mut self, index: usize, mut next: u64) -> Option<u64> {
        let reclaimer = self.reclaimers[index].as_mut()?;
        if let Some(What::Started { page }) = self.notes.what {
            reclaimer.page = page;
            next += self.timing.syscall;
            self.out.reclaims += 1;
        }
        if let Some(begins) = self.notes.writeback {
            if begins {
                reclaimer.writeback_since = Some(next);
                self.out.cost.flush_calls += 1;
            } else if let Some(since) = reclaimer.writeback_since.take() {
                self.out.cost.flush_latency_cycles.push(next.saturating_sub(since));
            }
        }
        let page = reclaimer.page;
        if let Some(What::Text { pc }) = self.notes.what
            && let Op::Prim { prim, .. } = self.machine.code().ops[usize::from(pc)]
        {
            self.page_life(prim, page, next);
        }
        let ended = self.machine.tasks[index].main.idle(&self.store)
            && !matches!(self.notes.what, Some(What::Placed { .. }));
        let reclaimer = self.reclaimers[index].as_mut().filter(|_| ended);
        let Some(reclaimer) = reclaimer else { return Some(next) };
        match reclaimer.pace {
            Pace::Never => None,
            Pace::Cycles(_) if reclaimer.left > 1 => {
                reclaimer.left -= 1;
                Some(next)
            }
            Pace::Cycles(mean) => {
                reclaimer.left = reclaimer.burst;
                reclaimer.next = next.max(reclaimer.next + span(&mut reclaimer.spans, mean));
                Some(reclaimer.next)
            }
            Pace::Accesses(_) => {
                reclaimer.due -= 1;
                self.backlog -= 1;
                reclaimer.parked = reclaimer.due == 0;
                (!reclaimer.parked).then_some(next)
            }
        }
    }

    /// The VMM's mapping and the allocator follow the reclaim.
    pub(super) fn page_life(&mut self, prim: Prim, page: u32, next: u64) {
        if prim == Prim::ZapUserPte {
            for frames in &mut self.frames {
                for frame in frames.iter_mut().filter(|f| **f == Some(page)) {
                    *frame = None;
                }
            }
        }
        if prim == Prim::FreePage {
            self.world.push((next + self.plan.reuse_after, page, Some(Kind::Write)));
            self.world.sort_unstable_by(|a, b| b.cmp(a));
            self.schedule_world();
        }
    }

    fn schedule_world(&mut self) {
        if let Some((at, _, _)) = self.world.last() {
            let at = *at;
            self.schedule(self.agents.len() - 1, at);
        }
    }

    /// A freed page's new owner writes it, then reads it, then gives it back.
    pub(super) fn world(&mut self, _: usize, now: u64) {
        while let Some((at, page, access)) = self.world.last().copied() {
            if at > now {
                break;
            }
            self.world.pop();
            // what arrives in DRAM by now may end an option
            self.arrivals(now);
            let options = self.machine.world_options(&mut self.store, &self.memory, None);
            let device = self.world_stream.percent(self.plan.device_percent);
            let wanted = |o: &(u32, NewOwner, Kind)| {
                o.0 == page
                    && match (access, o.1) {
                        (None, by) => by == NewOwner::Vm,
                        (Some(a), NewOwner::Device) => device && o.2 == a,
                        (Some(a), NewOwner::Host(_)) => !device && o.2 == a,
                        (Some(_), NewOwner::Vm) => false,
                    }
            };
            let fits: Vec<usize> =
                options.iter().enumerate().filter(|(_, o)| wanted(o)).map(|(i, _)| i).collect();
            let pick = self.world_stream.below(u64::try_from(fits.len().max(1)).unwrap_or(1));
            if let Some(choice) = fits.get(usize::try_from(pick).unwrap_or(0)) {
                let choice = u32::try_from(*choice).unwrap_or(0);
                if self.step(Actor::World, now, &[choice]).is_err() {
                    continue;
                }
            }
            let later = now + self.plan.reuse_after.max(1);
            match access {
                Some(Kind::Write) => self.world.push((later, page, Some(Kind::Read))),
                Some(Kind::Read) => self.world.push((later, page, None)),
                None => {
                    let vm = self.machine.spec().pages[page as usize].1;
                    self.spare[vm.index()].push(page);
                }
            }
            self.world.sort_unstable_by(|a, b| b.cmp(a));
        }
        self.schedule_world();
    }
}
