//! Who runs where: vCPUs that float as they like, as a fair scheduler says, or as a recorded schedule says.
//!
//! The fair scheduler is like the kernel's: a queue for each pCPU, the task that has run least goes next, for a slice;
//! a task that wakes looks for an idle pCPU near its last one; a pCPU without work pulls from the longest queue, of its
//! own CCX first; at the end of a slice a queue that is shorter by two takes one over. All tasks weigh the same. What a
//! thread waits for a lock it waits on its pCPU.

use sev_arch::PcpuId;
use sim_core::state::Store as _;

use super::engine::Run;
use super::plan::{GuestStream, Placement, Point, Scheduler};
use crate::label::Actor;

/// A vCPU's thread as the scheduler sees it.
#[derive(Clone, Copy, Debug, Default)]
struct Entity {
    /// Cycles that it has run.
    ran: u64,
    /// The pCPU that it is on, and since when.
    on: Option<(u16, u64)>,
    /// The pCPU that it may have now.
    granted: Option<u16>,
    /// Entries of the recorded schedule that have come true.
    entry: usize,
}

/// The scheduler's state.
#[derive(Debug, Default)]
pub(super) struct Sched {
    tasks: Vec<Entity>,
    /// Who waits for a pCPU, by pCPU.
    queues: Vec<Vec<u16>>,
    /// Who has a pCPU or is about to.
    taken: Vec<Option<u16>>,
}

impl Sched {
    pub(super) fn new(tasks: usize, pcpus: usize) -> Sched {
        Sched {
            tasks: vec![Entity::default(); tasks],
            queues: vec![Vec::new(); pcpus],
            taken: vec![None; pcpus],
        }
    }
}

impl<G: GuestStream> Run<'_, G> {
    /// Whether a vCPU has its pCPU given by a scheduler, and none now.
    pub(super) fn wants_pcpu(&self, t: u16) -> bool {
        let floats = matches!(self.plan.scheduler, Scheduler::Floating);
        !floats && self.vcpus[usize::from(t)].is_some() && {
            let on = self.machine.tasks[usize::from(t)].on;
            on.is_some_and(|on| self.store.get(on) < 0)
        }
    }

    /// Whether such a vCPU may take a pCPU now; else it is told when.
    pub(super) fn may_place(&mut self, agent: usize, t: u16, now: u64) -> bool {
        let index = usize::from(t);
        if let Scheduler::Recorded(schedule) = &self.plan.scheduler {
            let entity = &mut self.sched.tasks[index];
            let Some(Placement { pcpu, .. }) = schedule[index].get(entity.entry).copied() else {
                return false;
            };
            let current = self.machine.pcpus[pcpu.index()].current;
            if self.store.get(current) < 0 {
                entity.granted = Some(pcpu.0);
                return true;
            }
            self.store.wait(current, u32::try_from(agent).unwrap_or(u32::MAX));
            return false;
        }
        if self.sched.tasks[index].granted.is_some() {
            return true;
        }
        let home = match self.sched.tasks[index].on.take() {
            Some((p, since)) => {
                self.sched.tasks[index].ran += now.saturating_sub(since);
                self.sched.taken[usize::from(p)] = None;
                self.enqueue(t, p, p, now);
                self.dispatch(p, now);
                return false;
            }
            None => self.least_loaded(t),
        };
        let to = self.idle_near(t, home).unwrap_or(home);
        self.enqueue(t, home, to, now);
        false
    }

    /// The pCPU granted, among those that are free: its number there.
    pub(super) fn granted_among(&self, t: u16, free: &[PcpuId]) -> Option<usize> {
        let granted = self.sched.tasks[usize::from(t)].granted?;
        free.iter().position(|p| p.0 == granted)
    }

    /// A vCPU has got a pCPU.
    pub(super) fn placed(&mut self, t: u16, p: PcpuId, now: u64) {
        let index = usize::from(t);
        let entity = &mut self.sched.tasks[index];
        entity.granted = None;
        entity.on = Some((p.0, now));
        let vm = self.machine.tasks[index].vcpu.as_ref().map_or(0, |v| v.vm.index());
        let floats = self.machine.spec().tasks[index].pcpus.len() > 1;
        let Some(vcpu) = &mut self.vcpus[index] else { return };
        match &self.plan.scheduler {
            Scheduler::Floating if floats => {
                vcpu.plan_move(self.plan.migrate.get(vm).copied().unwrap_or_default(), now);
            }
            Scheduler::Floating => {}
            Scheduler::Fair { slice } => vcpu.move_at = now + slice,
            Scheduler::Recorded(schedule) => {
                let accesses = self.plan.accesses.get(vm).copied().unwrap_or(0);
                let next = schedule[index].get(entity.entry + 1);
                (vcpu.move_at, vcpu.stop) = match next.map(|p| p.at) {
                    None => (u64::MAX, 0),
                    Some(Point::Cycles(at)) => (at.max(now), 0),
                    Some(Point::Accesses(n)) => (u64::MAX, accesses.saturating_sub(n)),
                };
            }
        }
    }

    /// Whether a vCPU whose time on its pCPU is over must leave it; else it may go on there.
    pub(super) fn must_leave(&mut self, t: u16, p: PcpuId, now: u64) -> bool {
        let index = usize::from(t);
        match &self.plan.scheduler {
            Scheduler::Floating => true,
            Scheduler::Fair { slice } => {
                let slice = *slice;
                self.level(p.0);
                let waited_for = !self.sched.queues[p.index()].is_empty();
                if let (false, Some(vcpu)) = (waited_for, &mut self.vcpus[index]) {
                    vcpu.move_at = now + slice;
                }
                waited_for
            }
            Scheduler::Recorded(schedule) => {
                let entry = self.sched.tasks[index].entry + 1;
                let stays = schedule[index].get(entry).is_none_or(|next| next.pcpu == p);
                if stays {
                    self.sched.tasks[index].entry = entry;
                    self.placed(t, p, now);
                }
                !stays
            }
        }
    }

    /// A vCPU is on its way from its pCPU.
    pub(super) fn leaves(&mut self, t: u16) {
        if let Scheduler::Recorded(_) = self.plan.scheduler {
            self.sched.tasks[usize::from(t)].entry += 1;
        }
        if let Some(vcpu) = &mut self.vcpus[usize::from(t)] {
            (vcpu.move_at, vcpu.stop) = (u64::MAX, 0);
        }
    }

    /// A vCPU has halted: its pCPU is for others.
    pub(super) fn sched_halted(&mut self, t: u16, now: u64) {
        if let Scheduler::Fair { .. } = self.plan.scheduler
            && let Some((p, _)) = self.sched.tasks[usize::from(t)].on.take()
        {
            self.sched.taken[usize::from(p)] = None;
            self.dispatch(p, now);
        }
    }

    fn allowed(&self, t: u16) -> &[PcpuId] {
        &self.machine.spec().tasks[usize::from(t)].pcpus
    }

    fn load(&self, p: u16) -> usize {
        let p = usize::from(p);
        self.sched.queues[p].len() + usize::from(self.sched.taken[p].is_some())
    }

    fn least_loaded(&self, t: u16) -> u16 {
        self.allowed(t).iter().map(|p| p.0).min_by_key(|p| (self.load(*p), *p)).unwrap_or(0)
    }

    /// 0 in the same CCX, 1 in the same socket, 2 elsewhere.
    fn apart(&self, a: u16, b: u16) -> u8 {
        let ccx = |p| self.topology.ccx_of(self.topology.core_of(PcpuId(p)));
        let (a, b) = (ccx(a), ccx(b));
        u8::from(a != b) + u8::from(self.topology.socket_of(a) != self.topology.socket_of(b))
    }

    /// An idle pCPU for a task, its own first, then near ones.
    fn idle_near(&self, t: u16, home: u16) -> Option<u16> {
        let idle = self.allowed(t).iter().map(|p| p.0).filter(|p| self.load(*p) == 0);
        idle.min_by_key(|p| (*p != home, self.apart(*p, home), *p))
    }

    /// Puts a task into a queue; `home` is where it was last.
    fn enqueue(&mut self, t: u16, home: u16, to: u16, now: u64) {
        let to = if self.load(to) == 0 { to } else { self.idle_near(t, home).unwrap_or(to) };
        self.sched.queues[usize::from(to)].push(t);
        self.dispatch(to, now);
    }

    /// If a pCPU has nobody, who has run least of those that wait for it may have it.
    fn dispatch(&mut self, p: u16, now: u64) {
        if self.sched.taken[usize::from(p)].is_some() {
            return;
        }
        if self.sched.queues[usize::from(p)].is_empty() {
            self.pull(p, 1);
        }
        let queue = &self.sched.queues[usize::from(p)];
        let Some(least) =
            (0..queue.len()).min_by_key(|i| (self.sched.tasks[usize::from(queue[*i])].ran, queue[*i]))
        else {
            return;
        };
        let t = self.sched.queues[usize::from(p)].remove(least);
        self.sched.taken[usize::from(p)] = Some(t);
        self.sched.tasks[usize::from(t)].granted = Some(p);
        self.schedule(self.machine.pcpus.len() + usize::from(t), now);
    }

    /// Takes one task over from a queue that is longer by so many at least: from the longest, of those the nearest.
    fn pull(&mut self, p: u16, longer_by: usize) {
        let own = self.sched.queues[usize::from(p)].len();
        let pcpus = u16::try_from(self.sched.queues.len()).unwrap_or(u16::MAX);
        let may = |run: &Self, t: u16| run.allowed(t).contains(&PcpuId(p));
        let from = (0..pcpus)
            .filter(|q| *q != p && self.sched.queues[usize::from(*q)].len() >= own + longer_by)
            .filter(|q| self.sched.queues[usize::from(*q)].iter().any(|t| may(self, *t)))
            .min_by_key(|q| {
                (self.apart(*q, p), std::cmp::Reverse(self.sched.queues[usize::from(*q)].len()), *q)
            });
        let Some(q) = from else { return };
        let queue = &self.sched.queues[usize::from(q)];
        // Who has run most is the last whose turn it would be there.
        let most = (0..queue.len())
            .filter(|i| may(self, queue[*i]))
            .max_by_key(|i| (self.sched.tasks[usize::from(queue[*i])].ran, queue[*i]));
        if let Some(most) = most {
            let t = self.sched.queues[usize::from(q)].remove(most);
            self.sched.queues[usize::from(p)].push(t);
        }
    }

    /// The end of a slice is when queues are levelled.
    fn level(&mut self, p: u16) {
        self.pull(p, 2);
    }

    /// The pCPU of a vCPU.
    pub(super) fn pcpu_of_vcpu(&self, t: u16) -> Option<PcpuId> {
        self.machine.pcpu_of(&self.store, Actor::Task(t))
    }
}
