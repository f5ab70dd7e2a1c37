//! The event loop: who is next, what each step costs, and the guests' fast path.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::atomic::{AtomicBool, Ordering};

use cache_model::event::Event;
use cache_model::hierarchy::LineRef;
use cache_model::lattice::Move;
use cache_model::part::{Timing, Topology};
use sev_arch::{Access as Kind, CoreId, PcpuId, Tag};
use sim_core::choice::{Chooser, Scripted};
use sim_core::random::Stream;
use sim_core::state::{SlotId, Store as _};
use svm_policy::{Op, Pc, Prim};

use super::memory::TimedMemory;
use super::stats::Outcome;
use super::store::Watched;
use crate::explore::ScheduledStep;
use crate::label::{Actor, NewOwner, Notes, What};
use crate::machine::Machine;
use crate::run::Stepped;
use crate::spec::TaskKind;

/// One access of a guest, by guest page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Guest frame number, dense from 0.
    pub gfn: u32,
    /// Line within the page, 0 to 63.
    pub line: u32,
    /// Read or write.
    pub kind: Kind,
    /// Instructions before it.
    pub instructions: u32,
}

/// Where a guest's accesses come from.
pub trait GuestStream {
    /// The next access; never ends.
    fn next_access(&mut self) -> Access;

    /// What went wrong at the source while it was read, if anything.
    fn fault(&self) -> Option<String> {
        None
    }
}

/// What a timed run does beside the machine's own description.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Root of every random stream.
    pub seed: u64,
    /// Accesses that each vCPU makes before it halts.
    pub accesses: u64,
    /// Guest frames of each VM.
    pub guest_pages: Vec<u32>,
    /// Cycles between two reclaims of a reclaimer, on average; the first after half of it. 0: none.
    pub reclaim_every: u64,
    /// Cycles after which a vCPU moves to another of its pCPUs, on average. 0: never.
    pub migrate_every: u64,
    /// Of a hundred freed pages, how many go to a device; the others go to the host.
    pub device_percent: u64,
    /// Cycles from a page's release to its new owner's first write.
    pub reuse_after: u64,
    /// Whether each step is recorded, for the check against the explorer's machine.
    pub record: bool,
}

/// One entry of a recorded run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Recorded {
    /// A step, with what it was, its events, and a digest of the slots after it.
    Step {
        /// Who, and which choices.
        step: ScheduledStep,
        /// What it was.
        what: What,
        /// Events judged.
        events: Vec<Event>,
        /// The slots after it.
        slots: Vec<i64>,
        /// A digest of the lines' copies after it.
        copies: u64,
        /// The actor's own count of its steps, from 1.
        count: u32,
        /// Moves of copies since the step before.
        moves: u32,
    },
    /// A move of a copy that the caches made on their own.
    Move(Move, Vec<Event>),
}

/// Why a timed run stopped before its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TimedError {
    /// Nobody can go on, and a vCPU has not finished.
    Deadlock {
        /// When, in cycles.
        at: u64,
        /// Who waits for what.
        waiting: String,
    },
    /// A text loops without an access.
    Runaway(Pc),
    /// A guest's source failed.
    Source(String),
}

/// Cycles of a statement's own work and of a hit; the policy's instructions are few beside what they wait for.
const STEP: u64 = 6;
/// Accesses that a guest may make in one go before the queue is looked at again.
const BATCH: u32 = 4096;

/// Events without an access of any guest after which a run is given up.
const STALLED: u64 = 50_000_000;

/// Answers the machine's questions in the timed run: the kernel's own choices are fixed, the engine gives the
/// others in advance.
#[derive(Debug, Default)]
struct Answers {
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
enum Agent {
    Task(u16),
    Irq(u16),
    World,
}

/// A guest's running state.
struct Vcpu<G> {
    source: G,
    pending: Option<Access>,
    left: u64,
    move_at: u64,
    /// When each outstanding miss is served; a ring.
    misses: Vec<u64>,
    next_miss: usize,
    milli: u64,
    moves: Stream,
    halted_at: Option<u64>,
}

struct Reclaimer {
    next_at: u64,
    stream: Stream,
    writeback_since: Option<u64>,
    page: u32,
}

/// One timed run.
pub struct Run<'a, G> {
    machine: &'a Machine,
    store: Watched,
    memory: TimedMemory,
    timing: Timing,
    topology: Topology,
    plan: Plan,
    queue: BinaryHeap<Reverse<(u64, u32, u64)>>,
    counts: Vec<u64>,
    agents: Vec<Agent>,
    vcpus: Vec<Option<Vcpu<G>>>,
    reclaimers: Vec<Option<Reclaimer>>,
    lock_since: Vec<Option<u64>>,
    taken_at: Vec<(u64, bool)>,
    ipi_at: Vec<u64>,
    sender: Option<u16>,
    frames: Vec<Vec<Option<u32>>>,
    spare: Vec<Vec<u32>>,
    world: Vec<(u64, u32, Option<Kind>)>,
    world_stream: Stream,
    slot_kinds: Vec<SlotKind>,
    last_writer: Vec<u16>,
    notes: Notes,
    answers: Answers,
    out: Outcome,
    recorded: Vec<Recorded>,
    own_counts: BTreeMap<Actor, u32>,
    error: Option<TimedError>,
    running: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SlotKind {
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

    fn schedule(&mut self, agent: usize, at: u64) {
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
    fn step(&mut self, actor: Actor, now: u64, given: &[u32]) -> Result<u64, Stepped> {
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

    fn book_moves(&mut self) {
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
    fn cost(&mut self, actor: Actor, what: What, pcpu: Option<PcpuId>) -> u64 {
        match what {
            What::Text { pc } => {
                let op = self.machine.code().ops[usize::from(pc)];
                self.text_cost(actor, op, pcpu)
            }
            What::Guest { .. } | What::Reuse { .. } | What::Move(_) | What::Started { .. } => 0,
            What::Fault { .. } | What::Exit | What::Halted => {
                self.out.cost.guest_exits += 1;
                self.timing.vm_run_exit_sev / 2
            }
            What::Placed { .. } | What::Preempted => self.timing.context_switch / 2,
            What::Take { .. } => STEP,
        }
    }

    fn text_cost(&mut self, actor: Actor, op: Op, pcpu: Option<PcpuId>) -> u64 {
        let place = match op {
            Op::Load { place, .. } | Op::Store { place, .. } => Some((place, 0)),
            Op::Rmw { place, .. } | Op::Lock { place, .. } | Op::Unlock { place, .. } => {
                Some((place, u64::from(self.timing.atomic_rmw)))
            }
            Op::Prim { prim, .. } => {
                if prim == Prim::SendCall {
                    self.out.cost.ipis += 1;
                    if let Actor::Task(t) = actor {
                        self.sender = Some(t);
                    }
                    return self.timing.ipi_per_pcpu;
                }
                if prim == Prim::FlushPrivate {
                    self.out.cost.pcpus_flushed += 1;
                }
                return if prim == Prim::VmRun { self.timing.vm_run_exit_sev / 2 } else { STEP };
            }
            Op::Set { .. }
            | Op::MaskPut { .. }
            | Op::Jump(_)
            | Op::Branch { .. }
            | Op::Window(_)
            | Op::Choose { .. }
            | Op::ChooseBit { .. }
            | Op::Halt => None,
        };
        let Some((place, locked)) = place else { return STEP };
        // Where the variable's line was last written decides how far it comes.
        let var = &self.machine.vars[usize::from(place.var.0)];
        let core = pcpu.map_or(0, |p| self.topology.core_of(p).0);
        let last = &mut self.last_writer[var.base as usize];
        let far = if *last == u16::MAX || *last == core {
            0
        } else {
            let (a, b) = (self.topology.ccx_of(CoreId(*last)), self.topology.ccx_of(CoreId(core)));
            let latency = if a == b {
                self.timing.same_ccx
            } else if self.topology.socket_of(a) == self.topology.socket_of(b) {
                self.timing.other_ccx
            } else {
                self.timing.other_socket
            };
            u64::from(latency)
        };
        if !matches!(op, Op::Load { .. }) {
            *last = core;
        }
        STEP + far + locked
    }

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

    fn after_task(&mut self, agent: usize, t: u16, now: u64, cycles: u64) {
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

    /// The VMM's mapping and the allocator follow the reclaim.
    fn page_life(&mut self, prim: Prim, page: u32, next: u64) {
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
    fn world(&mut self, _: usize, now: u64) {
        while let Some((at, page, access)) = self.world.last().copied() {
            if at > now {
                break;
            }
            self.world.pop();
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

    /// Runs a guest until something else must happen first.
    fn guest(&mut self, agent: usize, t: u16, pcpu: PcpuId, now: u64) {
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

/// A time around `mean`, from half of it to one and a half.
fn span(stream: &mut Stream, mean: u64) -> u64 {
    if mean == 0 { u64::MAX } else { mean / 2 + stream.below(mean) }
}

/// A run that has ended.
#[derive(Debug)]
pub struct Finished {
    /// What it counted.
    pub outcome: Outcome,
    /// Its steps, if they were recorded.
    pub recorded: Vec<Recorded>,
    /// The caches as they were left.
    pub memory: TimedMemory,
}

/// Replays a schedule of the explorer over the timed caches, one step after the other, and returns the events of
/// each step.
///
/// # Errors
///
/// The first step, from 1, that could not be made as scheduled, and why.
pub fn replay_timed(
    machine: &Machine,
    memory: &mut TimedMemory,
    schedule: &[ScheduledStep],
) -> Result<Vec<Vec<Event>>, (usize, String)> {
    let mut store = Watched::new(machine.layout().initial());
    let mut notes = Notes::default();
    let mut events = Vec::new();
    let mut now = 0u64;
    for (i, step) in schedule.iter().enumerate() {
        memory.now = now;
        let mut chooser = Scripted::new(&step.answers);
        let done = machine.step(&mut store, memory, step.actor, &mut chooser, &mut notes);
        if done != Stepped::Done || !chooser.fitted() {
            return Err((i + 1, format!("{} {done:?}", machine.actor_name(step.actor))));
        }
        if !memory.moved.is_empty() {
            return Err((i + 1, "the caches moved a line on their own".to_owned()));
        }
        now += 1 + notes.cycles;
        events.push(notes.events.clone());
    }
    Ok(events)
}
