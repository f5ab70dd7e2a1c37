//! The one step function, for the explorer and the timed run alike.

use cache_model::event::{Event, EventKind};
use sev_arch::{Access, CoreId, PcpuId, Tag, VmId};
use sim_core::choice::Chooser;
use sim_core::state::{SlotId, Store};
use svm_policy::{Context, Outcome, Pc, Platform as _};

use crate::context::ContextSlots;
use crate::label::{Actor, Broken, NewOwner, Notes, What};
use crate::machine::{Machine, Owner, TaskSlots};
use crate::memory::{Effects, Memory};

mod buffer;
mod calls;
mod firmware;
mod guest;
mod hardware;
mod masks;
mod memory;
mod objects;
mod platform;
mod tasks;
mod twins;
mod vm;

pub(crate) use vm::UNWRITTEN;

/// What asking an actor for a step came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stepped {
    /// It made a step.
    Done,
    /// It cannot before the slot changes. The store may have been written, but holds what it held.
    Blocked(SlotId),
    /// It has nothing to do: a task that has ended, caches with nothing to move.
    Idle,
}

/// Which context runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    Task,
    Sched,
    Guest,
    Handler,
}

/// The platform that programs run on in the model.
struct Runner<'a, S, M, C> {
    machine: &'a Machine,
    store: &'a mut S,
    memory: &'a mut M,
    chooser: &'a mut C,
    notes: &'a mut Notes,
    who: Who,
    task: usize,
    pcpu: i64,
    irq_off: i64,
    preempt: i64,
    parked: bool,
    /// The operation at hand, if it may be against the rules.
    at: Option<Pc>,
    /// The caches' and the open world's steps may be asked for one line or page at a time.
    within: Option<u32>,
}

impl Machine {
    /// Lets an actor make one step over a store and a memory; whatever can go more than one way is asked of
    /// the chooser. The notes say what was done.
    pub fn step<S: Store, M: Memory<S>, C: Chooser>(
        &self,
        store: &mut S,
        memory: &mut M,
        actor: Actor,
        chooser: &mut C,
        notes: &mut Notes,
    ) -> Stepped {
        self.step_within(store, memory, actor, None, chooser, notes)
    }

    /// The same, where the caches move copies of one line only, or the world takes one page only. The choices of
    /// all lines or pages one after the other are those of [`Machine::step`], in its order.
    pub(crate) fn step_within<S: Store, M: Memory<S>, C: Chooser>(
        &self,
        store: &mut S,
        memory: &mut M,
        actor: Actor,
        within: Option<u32>,
        chooser: &mut C,
        notes: &mut Notes,
    ) -> Stepped {
        notes.clear();
        let mut runner = Runner {
            machine: self,
            store,
            memory,
            chooser,
            notes,
            who: Who::Task,
            task: 0,
            pcpu: -1,
            irq_off: 0,
            preempt: 0,
            parked: false,
            at: None,
            within,
        };
        match actor {
            Actor::Task(t) => runner.task_step(usize::from(t)),
            Actor::Preempt(t) => runner.preempt_step(usize::from(t)),
            Actor::Irq(p) => runner.irq_step(usize::from(p)),
            Actor::Buffer(p) => runner.drain_step(usize::from(p)),
            Actor::Cache => runner.cache_step(),
            Actor::World => runner.world_step(),
        }
    }

    /// Whether every task has ended.
    pub fn finished<S: Store>(&self, store: &S) -> bool {
        self.tasks.iter().all(|t| t.repeats.is_some() || t.main.idle(store))
    }

    /// Whether every task that comes to an end by itself has: vCPUs run as long as their guests do.
    pub fn returned<S: Store>(&self, store: &S) -> bool {
        self.hanging(store).next().is_none()
    }

    /// The tasks that should come to an end by themselves and have not.
    pub(crate) fn hanging<S: Store>(&self, store: &S) -> impl Iterator<Item = u16> {
        let left = |t: &TaskSlots| t.comes_to_an_end() && !t.main.idle(store);
        (0u16..).zip(&self.tasks).filter(move |(_, t)| left(t)).map(|(number, _)| number)
    }

    /// Whether a task should come to an end by itself.
    pub(crate) fn comes_to_an_end(&self, task: u16) -> bool {
        self.tasks.get(usize::from(task)).is_some_and(TaskSlots::comes_to_an_end)
    }

    /// The task that runs on a pCPU.
    pub fn current<S: Store>(&self, store: &S, pcpu: PcpuId) -> Option<u16> {
        u16::try_from(store.get(self.pcpus[pcpu.index()].current)).ok()
    }

    /// The pCPU that an actor's step happens on.
    pub fn pcpu_of<S: Store>(&self, store: &S, actor: Actor) -> Option<PcpuId> {
        match actor {
            Actor::Task(t) | Actor::Preempt(t) => {
                let on = self.tasks[usize::from(t)].on?;
                u16::try_from(store.get(on)).ok().map(PcpuId)
            }
            Actor::Irq(p) | Actor::Buffer(p) => Some(PcpuId(p)),
            Actor::Cache | Actor::World => None,
        }
    }

    /// Whether a vCPU's thread is in guest mode.
    pub fn in_guest<S: Store>(&self, store: &S, task: u16) -> bool {
        self.tasks[usize::from(task)].vcpu.as_ref().is_some_and(|v| store.get(v.in_guest) != 0)
    }

    /// Pages that a VM's owner still maps, in order: what can be reclaimed.
    pub fn reclaimable<S: Store>(&self, store: &S, vm: VmId) -> Vec<u32> {
        let mapped =
            |p: &u32| store.get(self.user_ptes[*p as usize]) != 0 && self.owner(store, *p) == Owner::Vm(vm);
        self.vm_pages[vm.index()].iter().copied().filter(mapped).collect()
    }

    /// pCPUs that a task without one could get now, in the order in which the choice counts them.
    pub fn placements<S: Store>(&self, store: &S, task: u16) -> Vec<PcpuId> {
        let free = |p: &PcpuId| {
            store.get(self.pcpus[p.index()].current) < 0 && self.unseen_of(store, p.index()).is_none()
        };
        let mut places = self.allowed(store, usize::from(task));
        places.retain(free);
        places
    }

    /// The owner of a page.
    pub fn owner<S: Store>(&self, store: &S, page: u32) -> Owner {
        self.owner_of_code(store.get(self.owners[page as usize]))
    }
}

impl Machine {
    /// What may become of freed pages (one or all) now, in the order in which the choice counts them: the page, who gets it
    /// or has it, and whether they write it first or read it back.
    ///
    /// A page that no event can concern any more, and that cannot come back to a VM, has left the model.
    pub fn world_options<S: Store, M: Memory<S>>(
        &self,
        store: &mut S,
        memory: &M,
        of: Option<u32>,
    ) -> Vec<(u32, NewOwner, Access)> {
        let reuse = self.spec.reuse;
        let dma = reuse.dma && !self.spec.assumptions.no_dma;
        let mut options = Vec::new();
        for (page, owner) in (0u32..).zip(&self.owners).filter(|(p, _)| of.is_none_or(|of| of == *p)) {
            let owner = self.owner_of_code(store.get(*owner));
            let access = match owner {
                Owner::Vm(_) => continue,
                Owner::Free => Some(Access::Write),
                Owner::User(_) if store.get(self.used[page as usize]) == UNWRITTEN => Some(Access::Write),
                Owner::Host | Owner::Device | Owner::User(_) => {
                    (reuse.read && store.get(self.used[page as usize]) == 0).then_some(Access::Read)
                }
            };
            let per_page = self.spec.lines_per_page;
            let gone = !self.returns
                && self.rmp_asid(store, page) == 0
                && !(page * per_page..(page + 1) * per_page).any(|l| memory.concerns(store, l, Tag::HOST));
            if gone {
                continue;
            }
            if let Some(access) = access {
                if reuse.host {
                    // Any pCPU can; one a core is enough to meet every cache.
                    for (p, core) in (0u16..).zip(&self.spec.core_of) {
                        if !self.spec.core_of[..usize::from(p)].contains(core) {
                            options.push((page, NewOwner::Host(PcpuId(p)), access));
                        }
                    }
                }
                if dma {
                    options.push((page, NewOwner::Device, access));
                }
            }
            if reuse.vm && !matches!(owner, Owner::User(_)) {
                options.push((page, NewOwner::Vm, Access::Write));
            }
        }
        options
    }
}

impl<S: Store, M: Memory<S>, C: Chooser> Runner<'_, S, M, C> {
    fn ask(&mut self, options: usize) -> usize {
        let options = u32::try_from(options).unwrap_or(u32::MAX);
        if options <= 1 { 0 } else { self.chooser.choose(options) as usize }
    }

    fn read_windows(&mut self) {
        if let Ok(p) = usize::try_from(self.pcpu) {
            self.irq_off = self.store.get(self.machine.pcpus[p].irq_off);
            self.preempt = self.store.get(self.machine.pcpus[p].preempt);
        }
    }

    fn write_windows(&mut self) {
        if let Ok(p) = usize::try_from(self.pcpu) {
            self.store.set(self.machine.pcpus[p].irq_off, self.irq_off);
            self.store.set(self.machine.pcpus[p].preempt, self.preempt.clamp(0, 7));
        }
    }

    /// Runs a context one step and saves it, unless it is blocked.
    fn advance(&mut self, slots: &ContextSlots, context: &mut Context, settle: bool) -> Stepped {
        let ops = &self.machine.code.ops;
        let outcome = if settle {
            svm_policy::settle(ops, context, self)
        } else {
            svm_policy::step(ops, context, self)
        };
        match outcome {
            Outcome::Ran { at } => {
                self.notes.what.get_or_insert(What::Text { pc: at });
                let ended = matches!(ops[usize::from(context.pc)], svm_policy::Op::Halt);
                if ended {
                    self.at = None;
                    self.judge_end();
                }
                slots.save(self.store, (!ended).then_some(context));
                if !self.parked && self.who != Who::Handler {
                    self.write_windows();
                }
                Stepped::Done
            }
            Outcome::Blocked { on, .. } => Stepped::Blocked(on),
            Outcome::Runaway { at } => {
                self.notes.runaway = Some(at);
                Stepped::Idle
            }
        }
    }

    /// A task that ends, or a handler that returns, leaves nothing behind: no lock that it holds, and a task interrupts and
    /// preemption on.
    fn judge_end(&mut self) {
        if !matches!(self.who, Who::Task | Who::Handler) {
            return;
        }
        let me = self.holder();
        // What it has given back may not be seen by others yet.
        let held = self.machine.lock_slots.iter().find(|(slot, shared)| {
            let holds = self.forwarded(*slot).unwrap_or_else(|| self.store.get(*slot));
            holds == if *shared { -me } else { me }
        });
        if let Some((slot, _)) = held {
            self.broke(Broken::LeftHeld(*slot));
        } else if self.who == Who::Task && (self.irq_off != 0 || self.preempt > 0) {
            self.broke(Broken::LeftOff);
        }
        if self.who == Who::Task {
            self.judge_objects();
        }
    }

    fn take_effects(&mut self, mut fx: Effects) {
        for event in &mut fx.events {
            self.machine.blame(self.store, event);
        }
        self.notes.events.extend(fx.events);
        self.notes.cycles += fx.cycles;
    }

    fn report(&mut self, kind: EventKind) {
        let event = Event::plain(kind);
        if !self.notes.events.contains(&event) {
            self.notes.events.push(event);
        }
    }

    /// Reports that the bookkeeping broke.
    fn broke(&mut self, how: Broken) {
        self.notes.broken.get_or_insert((how, self.at));
        self.report(EventKind::Tracking);
    }

    /// Reports a context that is about to sleep where it must not.
    fn may_sleep(&mut self) {
        if self.preempt > 0 || self.irq_off != 0 || self.who == Who::Handler {
            self.report(EventKind::SleepInAtomic);
        } else if self.store.get(self.machine.tasks[self.task].non_block) != 0 {
            self.report(EventKind::SleepNonBlockable);
        }
    }

    fn core(&self) -> CoreId {
        let p = usize::try_from(self.pcpu).unwrap_or(0);
        self.machine.spec.core_of[p]
    }

    fn page(&mut self, page: i64) -> Option<u32> {
        let found = u32::try_from(page).ok().filter(|p| (*p as usize) < self.machine.owners.len());
        if found.is_none() {
            self.broke(Broken::NoSuch);
        }
        found
    }
}
