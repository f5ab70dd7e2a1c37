//! The event loop: who is next, and what becomes of each actor after its step.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::atomic::{AtomicBool, Ordering};

use cache_model::part::{Timing, Topology};
use sev_arch::{Access as Kind, PcpuId};
use sim_core::choice::Chooser;
use sim_core::random::Stream;
use sim_core::state::{SlotId, Store as _};
use svm_policy::Op;

use super::guest::Vcpu;
use super::memory::TimedMemory;
use super::plan::{Finished, GuestStream, Plan, Recorded, TimedError};
use super::reclaim::Reclaimer;
use super::stats::Outcome;
use super::store::Watched;
use crate::explore::ScheduledStep;
use crate::label::{Actor, Notes, What};
use crate::machine::Machine;
use crate::run::Stepped;
use crate::spec::TaskKind;

/// Events without an access of any guest after which a run is given up.
const STALLED: u64 = 50_000_000;

/// Answers the machine's questions in the timed run: the kernel's own choices are fixed, the engine gives the
/// others in advance.
#[derive(Debug, Default)]
pub(super) struct Answers {
    given: Vec<u32>,
    asked: Vec<u32>,
}

impl Chooser for Answers {
    fn choose(&mut self, options: u32) -> u32 {
        let answer = match self.given.get(self.asked.len()) {
            Some(a) => (*a).min(options - 1),
            // An exit that is not the fast path's; the last pCPU of a set.
            None => options - 1,
        };
        self.asked.push(answer);
        answer
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agent {
    Task(u16),
    Irq(u16),
    World,
}

/// One timed run.
pub struct Run<'a, G> {
    pub(super) machine: &'a Machine,
    pub(super) store: Watched,
    pub(super) memory: TimedMemory,
    pub(super) timing: Timing,
    pub(super) topology: Topology,
    pub(super) plan: Plan,
    pub(super) queue: BinaryHeap<Reverse<(u64, u32, u64)>>,
    pub(super) counts: Vec<u64>,
    pub(super) agents: Vec<Agent>,
    pub(super) vcpus: Vec<Option<Vcpu<G>>>,
    pub(super) reclaimers: Vec<Option<Reclaimer>>,
    pub(super) lock_since: Vec<Option<u64>>,
    pub(super) taken_at: Vec<(u64, bool)>,
    pub(super) ipi_at: Vec<u64>,
    pub(super) sender: Option<u16>,
    pub(super) frames: Vec<Vec<Option<u32>>>,
    pub(super) spare: Vec<Vec<u32>>,
    pub(super) world: Vec<(u64, u32, Option<Kind>)>,
    pub(super) world_stream: Stream,
    pub(super) slot_kinds: Vec<SlotKind>,
    pub(super) last_writer: Vec<u16>,
    pub(super) notes: Notes,
    pub(super) answers: Answers,
    pub(super) out: Outcome,
    pub(super) recorded: Vec<Recorded>,
    pub(super) own_counts: BTreeMap<Actor, u32>,
    pub(super) error: Option<TimedError>,
    pub(super) running: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SlotKind {
    Other,
    Pending(u16),
    Call,
    Lock,
}

impl<G> std::fmt::Debug for Run<'_, G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("plan", &self.plan).field("out", &self.out).finish_non_exhaustive()
    }
}

impl<'a, G: GuestStream> Run<'a, G> {
    /// Prepares a run; `guests` gives the source of each vCPU, by task.
    pub fn new(
        machine: &'a Machine,
        memory: TimedMemory,
        plan: Plan,
        mut guests: impl FnMut(u16) -> G,
    ) -> Self {
        let spec = machine.spec();
        let timing = memory.caches.timing().clone();
        let topology = *memory.caches.topology();
        let tasks = spec.tasks.len();
        let mut agents: Vec<Agent> = (0..spec.pcpus()).map(Agent::Irq).collect();
        agents.extend((0u16..).take(tasks).map(Agent::Task));
        agents.push(Agent::World);
        let mut slot_kinds = vec![SlotKind::Other; machine.layout().slots().len()];
        for (p, slots) in (0u16..).zip(&machine.pcpus) {
            slot_kinds[slots.pending.0 as usize] = SlotKind::Pending(p);
        }
        for call in &machine.calls {
            slot_kinds[call.0 as usize] = SlotKind::Call;
        }
        for (var, decl) in machine.vars.iter().zip(&machine.code().vars) {
            let lock = matches!(
                decl.kind,
                svm_lang::VarKind::Mutex | svm_lang::VarKind::Spin | svm_lang::VarKind::Rwlock
            );
            if lock {
                for i in 0..var.instances * var.words {
                    slot_kinds[(var.base + i) as usize] = SlotKind::Lock;
                }
            }
        }
        let (mut frames, mut spare) = (Vec::new(), Vec::new());
        for (vm, count) in plan.guest_pages.iter().enumerate() {
            let pages = &machine.vm_pages[vm];
            let mapped = pages.len().min(*count as usize);
            frames.push(pages[..mapped].iter().map(|p| Some(*p)).collect());
            spare.push(pages[mapped..].iter().rev().copied().collect());
        }
        let mut vcpus = Vec::new();
        let mut reclaimers = Vec::new();
        for (t, task) in (0u16..).zip(&spec.tasks) {
            let vcpu = matches!(task.kind, TaskKind::Vcpu { .. }).then(|| {
                let mut moves = Stream::new(plan.seed, u64::from(t), 1);
                let move_at = span(&mut moves, plan.migrate_every);
                Vcpu {
                    source: guests(t),
                    pending: None,
                    left: plan.accesses,
                    move_at: if task.pcpus.len() > 1 { move_at } else { u64::MAX },
                    misses: vec![0; timing.outstanding_misses as usize],
                    next_miss: 0,
                    milli: 0,
                    moves,
                    halted_at: None,
                }
            });
            vcpus.push(vcpu);
            let reclaimer = matches!(task.kind, TaskKind::Reclaimer { .. }).then(|| {
                let mut stream = Stream::new(plan.seed, u64::from(t), 2);
                let next_at = span(&mut stream, plan.reclaim_every) / 2;
                let next_at = if plan.reclaim_every == 0 { u64::MAX } else { next_at };
                Reclaimer { next_at, stream, writeback_since: None, page: 0 }
            });
            reclaimers.push(reclaimer);
        }
        let running = vcpus.iter().flatten().count();
        let store = Watched::new(machine.layout().initial());
        let pcpus = usize::from(spec.pcpus());
        let mut run = Run {
            machine,
            timing,
            topology,
            queue: BinaryHeap::new(),
            counts: vec![0; agents.len()],
            vcpus,
            reclaimers,
            lock_since: vec![None; tasks],
            taken_at: vec![(0, false); pcpus],
            ipi_at: vec![u64::MAX; pcpus],
            sender: None,
            frames,
            spare,
            world: Vec::new(),
            world_stream: Stream::new(plan.seed, 0, 3),
            last_writer: vec![u16::MAX; slot_kinds.len()],
            slot_kinds,
            notes: Notes::default(),
            answers: Answers::default(),
            out: Outcome::default(),
            recorded: Vec::new(),
            own_counts: BTreeMap::new(),
            error: None,
            running,
            store,
            memory,
            plan,
            agents,
        };
        for agent in 0..run.agents.len() {
            match run.agents[agent] {
                Agent::Task(t) => {
                    let at = run.reclaimers[usize::from(t)].as_ref().map_or(0, |r| r.next_at);
                    if at != u64::MAX {
                        run.schedule(agent, at);
                    }
                }
                Agent::Irq(p) => {
                    let slot = machine.pcpus[usize::from(p)].pending;
                    run.store.wait(slot, u32::try_from(agent).unwrap_or(u32::MAX));
                }
                Agent::World => {}
            }
        }
        run
    }

    pub(super) fn schedule(&mut self, agent: usize, at: u64) {
        self.counts[agent] += 1;
        let id = u32::try_from(agent).unwrap_or(u32::MAX);
        self.queue.push(Reverse((at, id, self.counts[agent])));
    }

    /// Runs to the end.
    ///
    /// # Errors
    ///
    /// A deadlock, or a text that loops forever.
    pub fn run(
        mut self,
        interrupted: Option<&AtomicBool>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Finished, TimedError> {
        let mut events = 0u64;
        let mut progressed = (0u64, 0u64);
        let mut woken = Vec::new();
        while self.running > 0 {
            let Some(Reverse((now, id, count))) = self.queue.pop() else {
                return Err(TimedError::Deadlock { at: self.out.cycles, waiting: self.who_waits() });
            };
            let agent = id as usize;
            if count != self.counts[agent] {
                continue;
            }
            events += 1;
            if self.out.guest_accesses != progressed.0 {
                progressed = (self.out.guest_accesses, events);
            } else if events - progressed.1 > STALLED {
                return Err(TimedError::Deadlock { at: now, waiting: self.who_waits() });
            }
            if events & 0xfff == 0 {
                progress(self.out.guest_accesses);
                if interrupted.is_some_and(|i| i.load(Ordering::Relaxed)) {
                    self.out.interrupted = true;
                    break;
                }
            }
            match self.agents[agent] {
                Agent::Task(t) => self.task(agent, t, now),
                Agent::Irq(p) => self.irq(agent, p, now),
                Agent::World => self.world(agent, now),
            }
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            self.wake(now, &mut woken);
        }
        if let Some(fault) = self.vcpus.iter().flatten().find_map(|v| v.source.fault()) {
            return Err(TimedError::Source(fault));
        }
        let stats = self.memory.caches.stats();
        self.out.cost.refill_misses = stats.refill_misses;
        self.out.cost.dram_bytes_written = stats.dram_bytes_written;
        self.out.cost.lines_written_back = self.memory.flushed_lines;
        self.out.cost.lines_invalidated = self.memory.invalidated_lines;
        Ok(Finished { outcome: self.out, recorded: self.recorded, memory: self.memory })
    }

    fn who_waits(&self) -> String {
        let tasks = &self.machine.spec().tasks;
        let waiting: Vec<&str> = (0u16..)
            .zip(tasks)
            .filter(|(t, _)| !self.machine.tasks[usize::from(*t)].main.idle(&self.store))
            .map(|(_, task)| task.name.as_str())
            .collect();
        waiting.join(", ")
    }

    /// Agents that waited for what was just written go on.
    fn wake(&mut self, now: u64, woken: &mut Vec<(SlotId, u32)>) {
        self.store.take_woken(woken);
        for (slot, id) in woken.drain(..) {
            let delay = match self.slot_kinds[slot.0 as usize] {
                SlotKind::Pending(p) => {
                    let to = self.topology.ccx_of(self.topology.core_of(PcpuId(p)));
                    let from = self.sender.and_then(|t| {
                        let pcpu = self.machine.pcpu_of(&self.store, Actor::Task(t))?;
                        Some(self.topology.ccx_of(self.topology.core_of(pcpu)))
                    });
                    let near = from.is_none_or(|f| self.topology.socket_of(f) == self.topology.socket_of(to));
                    let flight =
                        if near { self.timing.ipi_same_socket } else { self.timing.ipi_other_socket };
                    self.ipi_at[usize::from(p)] = self.ipi_at[usize::from(p)].min(now + flight);
                    flight
                }
                SlotKind::Call => u64::from(self.timing.other_ccx),
                SlotKind::Lock => self.timing.mutex_hand_off,
                SlotKind::Other => 0,
            };
            self.schedule(id as usize, now + delay);
        }
    }

    /// Makes a step of the machine and books it; the step's cycles if it was made.
    pub(super) fn step(&mut self, actor: Actor, now: u64, given: &[u32]) -> Result<u64, Stepped> {
        self.answers.given.clear();
        self.answers.given.extend_from_slice(given);
        self.answers.asked.clear();
        self.memory.now = now;
        let pcpu = self.machine.pcpu_of(&self.store, actor);
        let done =
            self.machine.step(&mut self.store, &mut self.memory, actor, &mut self.answers, &mut self.notes);
        if let Some(pc) = self.notes.runaway {
            self.error = Some(TimedError::Runaway(pc));
        }
        if done != Stepped::Done {
            return Err(done);
        }
        let what = self.notes.what.unwrap_or(What::Exit);
        self.book_moves();
        for event in &self.notes.events {
            *self.out.events.entry(event.kind).or_insert(0) += 1;
        }
        if self.plan.record {
            self.recorded.push(Recorded::Step {
                step: ScheduledStep { actor, answers: self.answers.asked.clone() },
                what,
                events: self.notes.events.clone(),
                slots: self.store.words.clone(),
                count: {
                    let count = self.own_counts.entry(actor).or_insert(0);
                    *count += 1;
                    *count
                },
                moves: u32::try_from(
                    self.recorded.iter().rev().take_while(|r| matches!(r, Recorded::Move(..))).count(),
                )
                .unwrap_or(u32::MAX),
                copies: {
                    let spec = self.machine.spec();
                    let pages = u32::try_from(spec.pages.len()).unwrap_or(u32::MAX);
                    self.memory.digest(pages * spec.lines_per_page)
                },
            });
        }
        let cycles = self.cost(actor, what, pcpu) + self.notes.cycles;
        Ok(cycles)
    }

    pub(super) fn book_moves(&mut self) {
        if self.memory.moved.is_empty() {
            return;
        }
        for (m, events) in self.memory.moved.drain(..) {
            for event in &events {
                *self.out.events.entry(event.kind).or_insert(0) += 1;
            }
            if self.plan.record {
                self.recorded.push(Recorded::Move(m, events));
            }
        }
    }

    /// Cycles of a step apart from what memory took, and the counters it moves.
    fn task(&mut self, agent: usize, t: u16, now: u64) {
        let index = usize::from(t);
        if self.machine.in_guest(&self.store, t)
            && let Some(pcpu) = self.machine.pcpu_of(&self.store, Actor::Task(t))
            && self.store.get(self.machine.pcpus[pcpu.index()].handling) == 0
        {
            self.guest(agent, t, pcpu, now);
            return;
        }
        if let Some(vcpu) = &self.vcpus[index]
            && now >= vcpu.move_at
            && let Ok(cycles) = self.step(Actor::Preempt(t), now, &[])
        {
            self.schedule(agent, now + cycles);
            return;
        }
        let given = self.given(t, now);
        let Some(given) = given else {
            // Nothing that the guest has mapped: try again later.
            self.schedule(agent, now + self.plan.reclaim_every.max(1));
            return;
        };
        match self.step(Actor::Task(t), now, &given) {
            Ok(cycles) => {
                if let Some(since) = self.lock_since[index].take() {
                    self.out.cost.lock_wait_cycles += now - since;
                }
                self.after_task(agent, t, now, cycles);
            }
            Err(Stepped::Blocked(slot)) => {
                if self.slot_kinds[slot.0 as usize] == SlotKind::Lock {
                    self.lock_since[index].get_or_insert(now);
                }
                self.store.wait(slot, u32::try_from(agent).unwrap_or(u32::MAX));
            }
            Err(_) => {
                // A reclaimer with nothing to reclaim tries again later.
                if self.reclaimers[index].is_some() {
                    self.schedule(agent, now + self.plan.reclaim_every.max(1));
                }
            }
        }
    }

    /// The answers that a task's step will be asked for; `None` if it must wait for its time.
    fn given(&mut self, t: u16, now: u64) -> Option<Vec<u32>> {
        let index = usize::from(t);
        let task = &self.machine.tasks[index];
        let off = task.on.is_some_and(|on| self.store.get(on) < 0);
        if off {
            let places = self.machine.placements(&self.store, t);
            let pick = self.vcpus[index]
                .as_mut()
                .map_or(0, |v| v.moves.below(u64::try_from(places.len().max(1)).unwrap_or(1)));
            return Some(vec![u32::try_from(pick).unwrap_or(0)]);
        }
        if let (Some(reclaimer), true) = (&mut self.reclaimers[index], task.main.idle(&self.store)) {
            debug_assert!(now >= reclaimer.next_at);
            let TaskKind::Reclaimer { vm, .. } = &self.machine.spec().tasks[index].kind else { return None };
            // Only pages that the guest has mapped are worth reclaiming; spare ones hold nothing.
            let options = self.machine.reclaimable(&self.store, *vm);
            let frames = &self.frames[vm.index()];
            let mapped: Vec<u32> =
                (0u32..).zip(&options).filter(|(_, p)| frames.contains(&Some(**p))).map(|(i, _)| i).collect();
            if mapped.is_empty() {
                return None;
            }
            let pick = reclaimer.stream.below(u64::try_from(mapped.len()).unwrap_or(1));
            return Some(vec![mapped[usize::try_from(pick).unwrap_or(0)]]);
        }
        Some(Vec::new())
    }

    pub(super) fn after_task(&mut self, agent: usize, t: u16, now: u64, cycles: u64) {
        let index = usize::from(t);
        let mut next = now + cycles;
        if let Some(reclaimer) = &mut self.reclaimers[index] {
            if let Some(What::Started { page }) = self.notes.what {
                reclaimer.page = page;
                next += self.timing.syscall;
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
            let reclaimer = self.reclaimers[index].as_mut().filter(|_| {
                self.machine.tasks[index].main.idle(&self.store)
                    && !matches!(self.notes.what, Some(What::Placed { .. }))
            });
            if let Some(reclaimer) = reclaimer {
                let gap = span(&mut reclaimer.stream, self.plan.reclaim_every);
                reclaimer.next_at = next.max(reclaimer.next_at + gap);
                next = reclaimer.next_at;
            }
        }
        if let Some(vcpu) = &mut self.vcpus[index] {
            if let Some(What::Placed { .. }) = self.notes.what {
                vcpu.move_at =
                    if self.plan.migrate_every == 0 || self.machine.spec().tasks[index].pcpus.len() < 2 {
                        u64::MAX
                    } else {
                        now + span(&mut vcpu.moves, self.plan.migrate_every)
                    };
            }
            if self.machine.tasks[index].main.idle(&self.store) {
                if vcpu.halted_at.is_none() {
                    vcpu.halted_at = Some(next);
                    self.running -= 1;
                    self.out.cycles = self.out.cycles.max(next);
                    self.out.vcpu_cycles += next;
                }
                return;
            }
        }
        self.schedule(agent, next);
    }

    fn irq(&mut self, agent: usize, p: u16, now: u64) {
        let index = usize::from(p);
        let handling = self.machine.pcpus[index].handling;
        let fresh = self.store.get(handling) == 0;
        match self.step(Actor::Irq(p), now, &[]) {
            Ok(cycles) => {
                if fresh {
                    let task = self.machine.current(&self.store, PcpuId(p));
                    let stolen = task.is_some_and(|t| self.vcpus[usize::from(t)].is_some());
                    self.taken_at[index] = (now, stolen);
                    self.ipi_at[index] = u64::MAX;
                }
                if self.store.get(handling) == 0 {
                    let (since, stolen) = self.taken_at[index];
                    if stolen {
                        self.out.cost.stolen_cycles += now + cycles - since + self.timing.vm_run_exit_sev;
                    }
                }
                self.schedule(agent, now + cycles);
            }
            Err(Stepped::Blocked(slot)) => {
                self.store.wait(slot, u32::try_from(agent).unwrap_or(u32::MAX));
            }
            Err(_) => {}
        }
    }
}

/// A time around `mean`, from half of it to one and a half.
pub(super) fn span(stream: &mut Stream, mean: u64) -> u64 {
    if mean == 0 { u64::MAX } else { mean / 2 + stream.below(mean) }
}
