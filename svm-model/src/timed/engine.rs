//! The event loop: who is next, and what becomes of each actor after its step.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use cache_model::event::{Event, EventKind};
use cache_model::part::{Timing, Topology};
use sev_arch::{Access as Kind, PcpuId, VmId};
use sim_core::choice::Chooser;
use sim_core::queue::Queue;
use sim_core::random::Stream;
use sim_core::state::{SlotId, Store as _};
use svm_lang::VarKind;

use super::device::Device;
use super::guest::{Miss, Vcpu};
use super::locks::LockWait;
use super::lost::Books;
use super::memory::TimedMemory;
use super::plan::{Finished, GuestStream, Plan, Recorded, TimedError};
use super::reclaim::{Due, Reclaimer};
use super::sched::Sched;
use super::stats::{Newer, Outcome};
use super::store::Watched;
use crate::explore::ScheduledStep;
use crate::label::{Actor, NewOwner, Notes, What};
use crate::machine::Machine;
use crate::run::Stepped;
use crate::spec::{TaskKind, VmKind};

/// Nanoseconds without an access of any guest after which a run is given up.
const STARVED_NS: u64 = 200_000_000;
/// Among so many events, guests that get on make so many accesses at least; else the run is given up. An access
/// is one event at most, a flush by one pCPU some thirty.
const WINDOW: (u64, u64) = (4_000_000, 250_000);

/// Bits of an agent's own count of its turns: more than a run has events.
const COUNT_BITS: u32 = 48;

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
    Device(u16),
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
    /// Who goes on when: the agent above, its own count below [`COUNT_BITS`].
    pub(super) queue: Queue<u64>,
    pub(super) counts: Vec<u64>,
    pub(super) agents: Vec<Agent>,
    pub(super) vcpus: Vec<Option<Vcpu<G>>>,
    pub(super) reclaimers: Vec<Option<Reclaimer>>,
    pub(super) waits: Vec<Option<LockWait>>,
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
    /// vCPUs that have not halted.
    pub(super) running: usize,
    /// When reclaims of a VM come due by its progress, by VM.
    pub(super) due: Vec<Due>,
    /// Reclaims that have come due by progress and are not done.
    pub(super) backlog: u64,
    /// Whose cycles were lost to what.
    pub(super) books: Books,
    pub(super) devices: Vec<Device>,
    /// Freed pages that somebody else has filled since.
    pub(super) filled: BTreeMap<u32, Newer>,
    pub(super) sched: Sched,
    /// Accesses that a core's own L1 and L2 served without an event.
    pub(super) fast_hits: [u64; 2],
    /// Accesses of guests that were requests to the caches, and those that were steps of the machine.
    pub(super) guest_requests: u64,
    pub(super) guest_steps: u64,
    /// VMRUN and #VMEXIT together, by VM.
    pub(super) run_exit: Vec<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SlotKind {
    Other,
    Pending(u16),
    /// A call to this pCPU.
    Call(u16),
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
        let devices: Vec<Device> =
            (0u64..).zip(&plan.devices).map(|(i, load)| Device::new(plan.seed, i, *load)).collect();
        agents.extend((0u16..).take(devices.len()).map(Agent::Device));
        // The last one: `schedule_world` counts on it.
        agents.push(Agent::World);
        let mut slot_kinds = vec![SlotKind::Other; machine.layout().slots().len()];
        for (p, slots) in (0u16..).zip(&machine.pcpus) {
            slot_kinds[slots.pending.0 as usize] = SlotKind::Pending(p);
        }
        for calls in machine.calls.chunks(usize::from(spec.pcpus()).max(1)) {
            for (p, call) in (0u16..).zip(calls) {
                slot_kinds[call.0 as usize] = SlotKind::Call(p);
            }
        }
        for (var, decl) in machine.vars.iter().zip(&machine.code().vars) {
            let lock = match decl.kind {
                VarKind::Mutex | VarKind::Spin | VarKind::Rwlock | VarKind::Rwsem | VarKind::Completion => {
                    true
                }
                VarKind::Int | VarKind::Bool | VarKind::Ref(_) | VarKind::Mask => false,
            };
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
        let mut reclaimers: Vec<Option<Reclaimer>> = Vec::new();
        let mut paces = plan.reclaim.iter();
        let mut bursts = plan.burst.iter();
        for (t, task) in (0u16..).zip(&spec.tasks) {
            let vcpu = matches!(task.kind, TaskKind::Vcpu { .. }).then(|| {
                let vm = machine.tasks[usize::from(t)].vcpu.as_ref().map_or(0, |v| v.vm.index());
                Vcpu {
                    source: guests(t),
                    pending: None,
                    left: plan.accesses.get(vm).copied().unwrap_or(0),
                    move_at: u64::MAX,
                    stop: 0,
                    misses: vec![Miss::default(); timing.outstanding_misses as usize],
                    next_miss: 0,
                    milli: 0,
                    moves: Stream::new(plan.seed, u64::from(t), 1),
                    halted_at: None,
                    episode: None,
                    refilling: (0, 0),
                    refilled: 0,
                }
            });
            vcpus.push(vcpu);
            reclaimers.push(match task.kind {
                TaskKind::Reclaimer { vm, .. } => {
                    let pace = paces.next().copied().unwrap_or_default();
                    let burst = bursts.next().copied().unwrap_or(1);
                    Some(Reclaimer::new(plan.seed, t, vm, (pace, burst)))
                }
                TaskKind::Vcpu { .. } | TaskKind::Host { .. } | TaskKind::Device { .. } => None,
            });
        }
        let running = vcpus.iter().flatten().count();
        let due = Due::by_vm(spec.vms, &reclaimers);
        let store = Watched::new(machine.layout().initial());
        let pcpus = usize::from(spec.pcpus());
        let run_exit = (0..spec.vms).map(|vm| run_exit(&timing, spec.vm(VmId(vm)).kind)).collect();
        let mut run = Run {
            machine,
            books: Books::new(pcpus, usize::from(spec.vms), tasks),
            run_exit,
            devices,
            filled: BTreeMap::new(),
            sched: Sched::new(tasks, pcpus),
            fast_hits: [0; 2],
            guest_requests: 0,
            guest_steps: 0,
            timing,
            topology,
            queue: Queue::new(),
            counts: vec![0; agents.len()],
            vcpus,
            reclaimers,
            waits: vec![None; tasks],
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
            out: Outcome { vcpu_cycles_by_vm: vec![0; usize::from(spec.vms)], ..Outcome::default() },
            recorded: Vec::new(),
            own_counts: BTreeMap::new(),
            error: None,
            running,
            due,
            backlog: 0,
            store,
            memory,
            plan,
            agents,
        };
        for agent in 0..run.agents.len() {
            match run.agents[agent] {
                Agent::Task(t) => {
                    let reclaimer = run.reclaimers[usize::from(t)].as_ref();
                    if let Some(at) = reclaimer.map_or(Some(0), Reclaimer::first_at) {
                        run.schedule(agent, at);
                    }
                }
                Agent::Irq(p) => {
                    let slot = machine.pcpus[usize::from(p)].pending;
                    run.store.wait(slot, u32::try_from(agent).unwrap_or(u32::MAX));
                }
                Agent::Device(_) => run.schedule(agent, 0),
                Agent::World => {}
            }
        }
        run
    }

    pub(super) fn schedule(&mut self, agent: usize, at: u64) {
        self.counts[agent] += 1;
        let turn = (agent as u64) << COUNT_BITS | self.counts[agent];
        self.queue.push(at, turn, turn);
    }

    /// Runs to the end.
    ///
    /// # Errors
    ///
    /// A deadlock, a text that loops forever, guests that do not get on.
    pub fn run(
        mut self,
        interrupted: Option<&AtomicBool>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Finished, TimedError> {
        let mut events = 0u64;
        let of = self.vcpus.iter().flatten().fold(0u64, |sum, v| sum.saturating_add(v.left));
        let starved = self.timing.cycles_of_ns(STARVED_NS);
        let mut progressed = (0u64, 0u64);
        let mut window = (0u64, 0u64);
        let mut woken = Vec::new();
        while self.running > 0 || self.backlog > 0 {
            let Some((now, turn)) = self.queue.pop() else {
                return Err(TimedError::Deadlock { at: self.out.cycles, waiting: self.who_waits() });
            };
            let agent = (turn >> COUNT_BITS) as usize;
            if turn & ((1 << COUNT_BITS) - 1) != self.counts[agent] {
                continue;
            }
            events += 1;
            let (accesses, since) = progressed;
            if self.out.guest_accesses != accesses || self.running == 0 {
                progressed = (self.out.guest_accesses, now);
            } else if now - since > starved {
                return Err(TimedError::Starved { at: now, since, accesses, of });
            }
            if events.is_multiple_of(WINDOW.0) {
                let slow = self.out.guest_accesses - window.0 < WINDOW.1;
                let done = self.running == 0 && self.backlog != window.1;
                if slow && !done {
                    return Err(TimedError::Starved { at: now, since, accesses, of });
                }
                window = (self.out.guest_accesses, self.backlog);
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
                Agent::Device(d) => self.device(agent, d, now),
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
        self.close_refills();
        self.settle()?;
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
        for (turn, (slot, id)) in (0u64..).zip(woken.drain(..)) {
            let delay = match self.slot_kinds[slot.0 as usize] {
                SlotKind::Pending(p) => {
                    let from = self.sender.and_then(|t| self.machine.pcpu_of(&self.store, Actor::Task(t)));
                    let flight = self.ipi_flight(from.unwrap_or(PcpuId(p)), PcpuId(p));
                    self.ipi_at[usize::from(p)] = self.ipi_at[usize::from(p)].min(now + flight);
                    flight
                }
                SlotKind::Call(p) => self.acknowledges(p, id as usize),
                // Who has waited longest goes first; the step that takes the lock pays for the hand-over.
                SlotKind::Lock => turn,
                SlotKind::Other => 0,
            };
            self.schedule(id as usize, now + delay);
        }
        self.sender = None;
    }

    /// What is on its way to DRAM and has arrived by now is there.
    pub(super) fn arrivals(&mut self, now: u64) {
        self.memory.begin(now);
        self.book_moves();
    }

    /// Makes a step of the machine and books it; the step's cycles if it was made.
    pub(super) fn step(&mut self, actor: Actor, now: u64, given: &[u32]) -> Result<u64, Stepped> {
        self.answers.given.clear();
        self.answers.given.extend_from_slice(given);
        self.answers.asked.clear();
        self.arrivals(now);
        self.memory.handing_on = actor == Actor::World;
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
        let reused =
            if let What::Reuse { page, by, access } = what { Some((page, by, access)) } else { None };
        if let Some((page, by, Kind::Write)) = reused {
            let newer = match by {
                NewOwner::Host(_) => Some(Newer::Cpu),
                NewOwner::Device => Some(Newer::Dma),
                NewOwner::Vm => None,
            };
            if let Some(newer) = newer {
                self.filled.insert(page, newer);
            }
        }
        for i in 0..self.notes.events.len() {
            let event = self.notes.events[i];
            self.count_event(&event);
        }
        if let Some((page, NewOwner::Vm, _)) = reused {
            self.filled.remove(&page);
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

    fn count_event(&mut self, event: &Event) {
        *self.out.events.entry(event.kind).or_insert(0) += 1;
        if let (EventKind::Clobber, Some(line)) = (event.kind, event.line) {
            // A page on its way back to its VM still holds what its last owner wrote.
            let page = self.machine.page_of(line);
            let newer = self.filled.get(&page).copied().unwrap_or(Newer::Vm);
            *self.out.clobbered.entry(newer).or_insert(0) += 1;
        }
    }

    pub(super) fn book_moves(&mut self) {
        if self.memory.moved.is_empty() {
            return;
        }
        for (m, mut events) in std::mem::take(&mut self.memory.moved) {
            for event in &mut events {
                self.machine.blame(&self.store, event);
            }
            for event in &events {
                self.count_event(event);
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
        if self.vcpus[index].as_ref().is_some_and(|vcpu| vcpu.moves(now))
            && let Some(pcpu) = self.pcpu_of_vcpu(t)
            && self.must_leave(t, pcpu, now)
            && let Ok(cycles) = self.step(Actor::Preempt(t), now, &[])
        {
            self.leaves(t);
            self.close_episode(t, now);
            self.schedule(agent, now + cycles);
            return;
        }
        if self.queues_behind_a_writer(agent, index, now) {
            return;
        }
        if self.wants_pcpu(t) && !self.may_place(agent, t, now) {
            return;
        }
        let given = self.given(t);
        let Some(given) = given else {
            self.nothing_to_reclaim(agent, index, now);
            return;
        };
        match self.step(Actor::Task(t), now, &given) {
            Ok(cycles) => {
                let handed = self.took_lock(index, now);
                let cycles = cycles + handed;
                if let Some(pcpu) = self.machine.pcpu_of(&self.store, Actor::Task(t)) {
                    self.flushes(Actor::Task(t), pcpu.0, (now, cycles));
                }
                if self.sender == Some(t) {
                    self.sent(t, now);
                }
                if self.machine.in_guest(&self.store, t) {
                    self.close_episode(t, now + cycles);
                }
                self.after_task(agent, t, now, cycles);
            }
            Err(Stepped::Blocked(slot)) => {
                let pcpu = self.machine.pcpu_of(&self.store, Actor::Task(t));
                if !self.waits_for_flights(agent, pcpu, now) {
                    self.blocked(agent, index, slot, now);
                }
            }
            Err(_) => {
                if self.reclaimers[index].is_some() {
                    self.nothing_to_reclaim(agent, index, now);
                }
            }
        }
    }

    /// Whether a step that could not be made waits for write-backs to arrive: then it is tried again when they have, and
    /// the time is the flush's.
    fn waits_for_flights(&mut self, agent: usize, pcpu: Option<PcpuId>, now: u64) -> bool {
        let Some(at) = self.memory.wake_at.take() else { return false };
        if let Some(pcpu) = pcpu {
            self.flush_waits(pcpu.0, at - now);
        }
        self.schedule(agent, at);
        true
    }

    pub(super) fn after_task(&mut self, agent: usize, t: u16, now: u64, cycles: u64) {
        let index = usize::from(t);
        let mut next = now + cycles;
        if self.reclaimers[index].is_some() {
            match self.after_reclaimer(index, next) {
                Some(at) => next = at,
                None => return,
            }
        }
        if let (Some(What::Placed { pcpu }), true) = (self.notes.what, self.vcpus[index].is_some()) {
            self.placed(t, pcpu, now);
        }
        let idle = self.machine.tasks[index].main.idle(&self.store);
        if let (Some(vcpu), true) = (&mut self.vcpus[index], idle) {
            if vcpu.halted_at.is_none() {
                vcpu.halted_at = Some(next);
                self.running -= 1;
                self.out.cycles = self.out.cycles.max(next);
                self.out.vcpu_cycles += next;
                let vm = self.machine.tasks[index].vcpu.as_ref().map_or(0, |v| v.vm.index());
                self.out.vcpu_cycles_by_vm[vm] += next;
                self.sched_halted(t, next);
            }
            return;
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
                    self.handler_begins(p, now);
                    self.ipi_at[index] = u64::MAX;
                }
                self.flushes(Actor::Irq(p), p, (now, cycles));
                if self.store.get(handling) == 0 {
                    self.handler_ends(p, now + cycles);
                }
                self.schedule(agent, now + cycles);
            }
            Err(Stepped::Blocked(slot)) => {
                if !self.waits_for_flights(agent, Some(PcpuId(p)), now) {
                    self.store.wait(slot, u32::try_from(agent).unwrap_or(u32::MAX));
                }
            }
            Err(_) => {}
        }
    }
}

/// VMRUN and #VMEXIT of a VM's vCPU together.
fn run_exit(timing: &Timing, kind: VmKind) -> u64 {
    match kind {
        VmKind::Normal => timing.vm_run_exit,
        VmKind::Sev => timing.vm_run_exit_sev,
        VmKind::SevEs => timing.vm_run_exit_sev_es,
        VmKind::SevSnp => timing.vm_run_exit_snp,
    }
}

/// A span around `mean`, from half of it to one and a half; at least 1.
pub(super) fn span(stream: &mut Stream, mean: u64) -> u64 {
    (mean / 2 + stream.below(mean)).max(1)
}
