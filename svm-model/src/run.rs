//! The one step function, for the explorer and the timed run alike.

use cache_model::event::{Event, EventKind};
use sev_arch::{Access, CoreId, FlushOp, PcpuId, Tag, VmId};
use sim_core::choice::Chooser;
use sim_core::state::{Domain, SlotId, Store};
use svm_policy::{Answer, Context, Lock, Outcome, Pc, Place, Platform, Prim, REGS, Window};

use crate::context::ContextSlots;
use crate::label::{Actor, NewOwner, Notes, What};
use crate::machine::{Machine, Owner, VcpuSlots};
use crate::memory::{Effects, Memory};
use crate::spec::TaskKind;

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
        };
        match actor {
            Actor::Task(t) => runner.task_step(usize::from(t)),
            Actor::Preempt(t) => runner.preempt_step(usize::from(t)),
            Actor::Irq(p) => runner.irq_step(usize::from(p)),
            Actor::Cache => runner.cache_step(),
            Actor::World => runner.world_step(),
        }
    }

    /// Whether every task has ended.
    pub fn finished<S: Store>(&self, store: &S) -> bool {
        self.tasks.iter().all(|t| t.repeats.is_some() || t.main.idle(store))
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
            Actor::Irq(p) => Some(PcpuId(p)),
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
        let free = |p: &PcpuId| store.get(self.pcpus[p.index()].current) < 0;
        self.spec.tasks[usize::from(task)].pcpus.iter().copied().filter(free).collect()
    }

    /// The owner of a page.
    pub fn owner<S: Store>(&self, store: &S, page: u32) -> Owner {
        self.owner_of_code(store.get(self.owners[page as usize]))
    }
}

impl Machine {
    /// What may become of freed pages now, in the order in which the choice counts them: the page, who gets it
    /// or has it, and whether they write it first or read it back.
    ///
    /// A page that no event can concern any more, and that cannot come back to a VM, has left the model.
    pub fn world_options<S: Store, M: Memory<S>>(
        &self,
        store: &mut S,
        memory: &M,
    ) -> Vec<(u32, NewOwner, Access)> {
        let reuse = self.spec.reuse;
        let dma = reuse.dma && !self.spec.assumptions.no_dma;
        let mut options = Vec::new();
        for (page, owner) in (0u32..).zip(&self.owners) {
            let access = match self.owner_of_code(store.get(*owner)) {
                Owner::Vm(_) => continue,
                Owner::Free => Some(Access::Write),
                Owner::Host | Owner::Device => {
                    (reuse.read && store.get(self.used[page as usize]) == 0).then_some(Access::Read)
                }
            };
            let per_page = self.spec.lines_per_page;
            let gone = !self.returns
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
            if reuse.vm {
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

    fn task_step(&mut self, t: usize) -> Stepped {
        let machine = self.machine;
        let task = &machine.tasks[t];
        self.task = t;
        let Some(on) = task.on else {
            let mut context = ContextSlots::blank();
            if !task.main.load(self.store, &mut context) {
                return Stepped::Idle;
            }
            return self.advance(&task.main, &mut context, false);
        };
        let sched = task.vcpu.as_ref().map(|v| &v.sched);
        if let Some(entry) = &task.repeats
            && task.main.idle(self.store)
        {
            return self.start_reclaim(t, on, entry);
        }
        if task.main.idle(self.store) && sched.is_none_or(|s| s.idle(self.store)) {
            return Stepped::Idle;
        }
        self.pcpu = self.store.get(on);
        let Ok(p) = usize::try_from(self.pcpu) else { return self.place(t, on) };
        if self.store.get(machine.pcpus[p].handling) != 0 {
            return Stepped::Blocked(machine.pcpus[p].handling);
        }
        self.read_windows();
        let mut context = ContextSlots::blank();
        if let Some(slots) = sched
            && slots.load(self.store, &mut context)
        {
            self.who = Who::Sched;
            let done = self.advance(slots, &mut context, false);
            if done == Stepped::Done && slots.idle(self.store) && !self.parked {
                // The scheduler lets go: as after finish_task_switch.
                self.preempt = 0;
                self.irq_off = 0;
                self.write_windows();
            }
            return done;
        }
        if !task.main.load(self.store, &mut context) {
            return Stepped::Idle;
        }
        let done = self.advance(&task.main, &mut context, false);
        if done == Stepped::Done && task.main.idle(self.store) && task.repeats.is_none() {
            self.leave(p, on);
        }
        done
    }

    /// A reclaimer begins on any page that its VM's owner still maps.
    fn start_reclaim(&mut self, t: usize, on: SlotId, entry: &svm_lang::Entry) -> Stepped {
        let machine = self.machine;
        let TaskKind::Reclaimer { vm, .. } = &machine.spec.tasks[t].kind else { return Stepped::Idle };
        self.pcpu = self.store.get(on);
        let Ok(p) = usize::try_from(self.pcpu) else { return self.place(t, on) };
        if self.store.get(machine.pcpus[p].handling) != 0 {
            return Stepped::Blocked(machine.pcpus[p].handling);
        }
        let pages = machine.reclaimable(self.store, *vm);
        if pages.is_empty() {
            return Stepped::Idle;
        }
        let page = pages[self.ask(pages.len())];
        self.read_windows();
        let mut context = ContextSlots::start(entry, &[i64::from(vm.0), i64::from(page)]);
        self.notes.what = Some(What::Started { page });
        self.advance(&machine.tasks[t].main, &mut context, true)
    }

    /// A task that has ended or lost its pCPU leaves it with windows open.
    fn leave(&mut self, p: usize, on: SlotId) {
        self.store.set(on, -1);
        self.store.set(self.machine.pcpus[p].current, -1);
        self.store.set(self.machine.pcpus[p].irq_off, 0);
        self.store.set(self.machine.pcpus[p].preempt, 0);
    }

    /// A task without a pCPU gets one that is free, any of those it may run on.
    fn place(&mut self, t: usize, on: SlotId) -> Stepped {
        let machine = self.machine;
        let allowed = &machine.spec.tasks[t].pcpus;
        let free = machine.placements(self.store, u16::try_from(t).unwrap_or(u16::MAX));
        if free.is_empty() {
            let slot = allowed.first().map_or(on, |p| machine.pcpus[p.index()].current);
            return Stepped::Blocked(slot);
        }
        let pcpu = free[self.ask(free.len())];
        let slots = &machine.pcpus[pcpu.index()];
        self.store.set(on, i64::from(pcpu.0));
        self.store.set(slots.current, i64::try_from(t).unwrap_or(0));
        self.pcpu = i64::from(pcpu.0);
        self.notes.what = Some(What::Placed { pcpu });
        if let Some(vcpu) = &machine.tasks[t].vcpu
            && self.store.get(vcpu.loaded) != 0
        {
            // Preempt notifiers run with interrupts on and preemption off (finish_task_switch).
            self.preempt = 1;
            self.irq_off = 0;
            return self.begin_sched(vcpu, &machine.sched_in);
        }
        Stepped::Done
    }

    fn begin_sched(&mut self, vcpu: &VcpuSlots, entry: &svm_lang::Entry) -> Stepped {
        let mut context = ContextSlots::start(entry, &[i64::from(vcpu.vcpu.0)]);
        self.who = Who::Sched;
        self.advance(&vcpu.sched, &mut context, true)
    }

    fn preempt_step(&mut self, t: usize) -> Stepped {
        let machine = self.machine;
        let task = &machine.tasks[t];
        self.task = t;
        let Some(on) = task.on else { return Stepped::Idle };
        self.pcpu = self.store.get(on);
        let Ok(p) = usize::try_from(self.pcpu) else { return Stepped::Blocked(on) };
        if task.main.idle(self.store) {
            return Stepped::Idle;
        }
        let here = &machine.pcpus[p];
        for slot in [here.preempt, here.irq_off, here.handling] {
            if self.store.get(slot) != 0 {
                return Stepped::Blocked(slot);
            }
        }
        if let Some(vcpu) = &task.vcpu {
            if self.store.get(vcpu.in_guest) != 0 || !vcpu.sched.idle(self.store) {
                return Stepped::Blocked(vcpu.in_guest);
            }
            if self.store.get(vcpu.loaded) != 0 {
                // The scheduler switches with interrupts off (prepare_task_switch).
                self.notes.what = Some(What::Preempted);
                self.preempt = 1;
                self.irq_off = 1;
                return self.begin_sched(vcpu, &machine.sched_out);
            }
        }
        if machine.spec.tasks[t].pcpus.len() < 2 && task.vcpu.is_some() {
            // Losing a pCPU and getting the same one back changes nothing before vcpu_load.
            return Stepped::Blocked(on);
        }
        self.notes.what = Some(What::Preempted);
        self.leave(p, on);
        Stepped::Done
    }

    fn call_slot(&self, sender: usize, pcpu: usize) -> (SlotId, SlotId) {
        let at = sender * self.machine.pcpus.len() + pcpu;
        (self.machine.calls[at], self.machine.infos[at])
    }

    fn irq_step(&mut self, p: usize) -> Stepped {
        let machine = self.machine;
        let here = &machine.pcpus[p];
        self.pcpu = i64::try_from(p).unwrap_or(-1);
        self.who = Who::Handler;
        let handling = self.store.get(here.handling);
        if handling == 0 {
            if self.store.get(here.pending) == 0 {
                return Stepped::Blocked(here.pending);
            }
            if self.store.get(here.irq_off) != 0 {
                return Stepped::Blocked(here.irq_off);
            }
            let senders: Vec<usize> =
                (0..machine.tasks.len()).filter(|s| self.store.get(self.call_slot(*s, p).0) != 0).collect();
            if senders.is_empty() {
                return Stepped::Blocked(here.pending);
            }
            let sender = senders[self.ask(senders.len())];
            self.task = sender;
            let (call, info) = self.call_slot(sender, p);
            let code = self.store.get(call);
            let callback = usize::try_from((code - 1) / 2).unwrap_or(0);
            let waited = (code - 1) % 2 == 1;
            let argument = self.store.get(info);
            let pending = self.store.get(here.pending);
            self.store.set(here.pending, pending - 1);
            let handling = 1 + 2 * i64::try_from(sender).unwrap_or(0) + i64::from(waited);
            self.store.set(here.handling, handling);
            if !waited {
                self.store.set(call, 0);
                self.store.set(info, 0);
            }
            self.notes.what = Some(What::Take {
                sender: u16::try_from(sender).unwrap_or(0),
                callback: u16::try_from(callback).unwrap_or(0),
            });
            let entry = &machine.code.entries[usize::from(machine.code.callbacks[callback])];
            let mut context = ContextSlots::start(entry, &[argument]);
            let done = self.advance(&here.handler, &mut context, true);
            self.finish_handler(p);
            return done;
        }
        self.task = usize::try_from((handling - 1) / 2).unwrap_or(0);
        let mut context = ContextSlots::blank();
        if !here.handler.load(self.store, &mut context) {
            return Stepped::Idle;
        }
        let done = self.advance(&here.handler, &mut context, false);
        if done == Stepped::Done {
            self.finish_handler(p);
        }
        done
    }

    /// If the handler has returned, its pCPU goes on, and a sender that waits is told.
    fn finish_handler(&mut self, p: usize) {
        let here = &self.machine.pcpus[p];
        if here.handler.idle(self.store) {
            let code = self.store.get(here.handling) - 1;
            self.store.set(here.handling, 0);
            if code % 2 == 1 {
                let (call, info) = self.call_slot(usize::try_from(code / 2).unwrap_or(0), p);
                self.store.set(call, 0);
                self.store.set(info, 0);
            }
        }
    }

    fn cache_step(&mut self) -> Stepped {
        let mut moves = std::mem::take(&mut self.notes.moves);
        moves.clear();
        self.memory.each_move(self.store, &mut |m| moves.push(m));
        if moves.is_empty() {
            self.notes.moves = moves;
            return Stepped::Idle;
        }
        let pick = self.ask(moves.len());
        let m = moves[pick];
        self.notes.moves = moves;
        let mut fx = Effects::default();
        self.memory.make_move(self.store, m, &mut fx);
        self.take_effects(fx);
        self.notes.what = Some(What::Move(m));
        Stepped::Done
    }

    fn world_step(&mut self) -> Stepped {
        let options = self.machine.world_options(self.store, self.memory);
        if options.is_empty() {
            return Stepped::Idle;
        }
        let (page, by, access) = options[self.ask(options.len())];
        let machine = self.machine;
        let owner_slot = machine.owners[page as usize];
        let lines = page * machine.spec.lines_per_page..(page + 1) * machine.spec.lines_per_page;
        let mut fx = Effects::default();
        match access {
            Access::Write => {
                let owner = match by {
                    NewOwner::Host(_) => Owner::Host,
                    NewOwner::Device => Owner::Device,
                    NewOwner::Vm => Owner::Vm(machine.spec.pages[page as usize].1),
                };
                self.store.set(owner_slot, machine.owner_code(owner));
                self.store.set(machine.used[page as usize], 0);
                if by == NewOwner::Vm {
                    // As for memory that is registered with a VM: the host's own lines go first.
                    self.store.set(machine.user_ptes[page as usize], 1);
                    for line in lines.clone() {
                        self.memory.clflush(self.store, line, &mut fx);
                        self.memory.change_owner(self.store, line);
                    }
                }
            }
            Access::Read => self.store.set(machine.used[page as usize], 1),
        }
        for line in lines {
            match by {
                NewOwner::Host(p) => {
                    let core = machine.spec.core_of[p.index()];
                    self.memory.cpu(self.store, line, (core, Tag::HOST), access, true, &mut fx);
                }
                NewOwner::Device => self.memory.dma(self.store, line, access, true, &mut fx),
                NewOwner::Vm => {}
            }
        }
        self.take_effects(fx);
        self.notes.what = Some(What::Reuse { page, by, access });
        Stepped::Done
    }

    fn take_effects(&mut self, fx: Effects) {
        self.notes.events.extend(fx.events);
        self.notes.cycles += fx.cycles;
    }

    fn report(&mut self, kind: EventKind) {
        self.notes.events.push(Event::plain(kind));
    }

    fn core(&self) -> CoreId {
        let p = usize::try_from(self.pcpu).unwrap_or(0);
        self.machine.spec.core_of[p]
    }

    /// The line-by-line access of a whole page by the host or a device.
    fn page_access(&mut self, page: i64, access: Access, device: bool) -> Answer {
        let machine = self.machine;
        let Some(page) = self.page(page) else { return Answer::Done(0) };
        let owner = machine.owner(self.store, page);
        let owns = matches!(owner, Owner::Host | Owner::Device);
        let core = self.core();
        let mut fx = Effects::default();
        for line in page * machine.spec.lines_per_page..(page + 1) * machine.spec.lines_per_page {
            if device {
                self.memory.dma(self.store, line, access, owns, &mut fx);
            } else {
                self.memory.cpu(self.store, line, (core, Tag::HOST), access, owns, &mut fx);
            }
        }
        self.take_effects(fx);
        Answer::Done(0)
    }

    fn page(&mut self, page: i64) -> Option<u32> {
        let found = u32::try_from(page).ok().filter(|p| (*p as usize) < self.machine.owners.len());
        if found.is_none() {
            self.report(EventKind::Tracking);
        }
        found
    }

    /// A guest's access to a line; `false` if the page is not mapped.
    fn guest_access(&mut self, line: u32, access: Access, pc: Option<Pc>) -> bool {
        let machine = self.machine;
        let Some(vcpu) = &machine.tasks[self.task].vcpu else { return true };
        let page = machine.page_of(line) as usize;
        let pages = machine.owners.len();
        let tlb = machine.tlbs[vcpu.vcpu.index() * pages + page];
        if self.store.get(tlb) == 0 {
            if self.store.get(machine.sptes[vcpu.vm.index() * pages + page]) == 0 {
                return false;
            }
            self.store.set(tlb, 1);
        }
        let owner = machine.owner(self.store, machine.page_of(line));
        let mut fx = Effects::default();
        let by = (self.core(), Tag::of_vm(vcpu.vm));
        self.memory.cpu(self.store, line, by, access, owner == Owner::Vm(vcpu.vm), &mut fx);
        if access == Access::Write && owner != Owner::Vm(vcpu.vm) {
            self.judge_latent(line, by.1);
        }
        self.take_effects(fx);
        self.notes.what = Some(What::Guest { line, access, pc });
        true
    }

    /// A dirty line under a tag that does not own its page: the judge of `latent`.
    fn judge_latent(&mut self, line: u32, tag: Tag) {
        let spec = &self.machine.spec;
        let met = !spec.shape.sme_coherent || !spec.assumptions.no_dma;
        if met && self.memory.dirty(self.store, line, tag) {
            self.notes.events.push(Event::at(EventKind::Latent, line, tag));
        }
    }

    /// One step of a guest: its next access, or a #VMEXIT.
    fn guest_step(&mut self, vcpu: &VcpuSlots) -> Answer {
        let machine = self.machine;
        let spec = &machine.spec;
        let Some(slots) = &vcpu.guest else {
            match self.ask(3) {
                0 => {}
                1 => return self.exit(vcpu, What::Exit, 0),
                _ => return self.exit(vcpu, What::Halted, 1),
            }
            let own = &machine.vm_pages[vcpu.vm.index()];
            let page = own[self.ask(own.len())];
            let within = u32::try_from(self.ask(spec.lines_per_page as usize)).unwrap_or(0);
            let access = if self.ask(2) == 0 { Access::Read } else { Access::Write };
            let line = page * spec.lines_per_page + within;
            if self.guest_access(line, access, None) {
                return Answer::Stay;
            }
            return self.exit(vcpu, What::Fault { page }, 2 + i64::from(page));
        };
        let mut context = ContextSlots::blank();
        if !slots.load(self.store, &mut context) {
            return self.exit(vcpu, What::Halted, 1);
        }
        if self.ask(2) == 1 {
            return self.exit(vcpu, What::Exit, 0);
        }
        let outer = std::mem::replace(&mut self.who, Who::Guest);
        let outcome = svm_policy::step(&machine.code.ops, &mut context, self);
        self.who = outer;
        if let Some(What::Fault { page }) = self.notes.what {
            return self.exit(vcpu, What::Fault { page }, 2 + i64::from(page));
        }
        if let Outcome::Runaway { at } = outcome {
            self.notes.runaway = Some(at);
        }
        if let (Some(What::Guest { pc, .. }), Outcome::Ran { at }) = (&mut self.notes.what, outcome) {
            *pc = Some(at);
        }
        let ended = matches!(machine.code.ops[usize::from(context.pc)], svm_policy::Op::Halt);
        slots.save(self.store, (!ended).then_some(&context));
        if ended && self.notes.what.is_none() {
            return self.exit(vcpu, What::Halted, 1);
        }
        Answer::Stay
    }

    fn exit(&mut self, vcpu: &VcpuSlots, what: What, reason: i64) -> Answer {
        self.store.set(vcpu.in_guest, 0);
        self.notes.what = Some(what);
        Answer::Done(reason)
    }

    fn vmrun(&mut self) -> Answer {
        let machine = self.machine;
        let Some(vcpu) = &machine.tasks[self.task].vcpu else { return Answer::Done(1) };
        if self.store.get(vcpu.in_guest) == 0 {
            self.store.set(vcpu.in_guest, 1);
            return Answer::Stay;
        }
        self.guest_step(vcpu)
    }

    fn send_call(&mut self, args: [i64; 4]) -> Answer {
        let [cpu, callback, info, wait] = args;
        let Some(p) = usize::try_from(cpu).ok().filter(|p| *p < self.machine.pcpus.len()) else {
            self.report(EventKind::Tracking);
            return Answer::Done(0);
        };
        let (call, info_slot) = self.call_slot(self.task, p);
        if self.store.get(call) != 0 {
            return Answer::Blocked(call);
        }
        self.store.set(call, 1 + 2 * callback + i64::from(wait != 0));
        self.store.set(info_slot, info);
        let pending = self.machine.pcpus[p].pending;
        self.store.set(pending, self.store.get(pending) + 1);
        Answer::Done(0)
    }

    fn wait_calls(&self, base: i64, words: i64, regs: &[i64; REGS]) -> Answer {
        let bits = i64::from(self.machine.spec.assumptions.word_bits);
        for p in 0..self.machine.pcpus.len() {
            let cpu = i64::try_from(p).unwrap_or(0);
            let word = cpu / bits;
            let held = usize::try_from(base + word).ok().and_then(|r| regs.get(r)).copied().unwrap_or(0);
            if word < words && held >> (cpu % bits) & 1 == 1 {
                let call = self.call_slot(self.task, p).0;
                if self.store.get(call) != 0 {
                    return Answer::Blocked(call);
                }
            }
        }
        Answer::Done(0)
    }

    fn free_page(&mut self, page: i64) -> Answer {
        let machine = self.machine;
        let Some(page) = self.page(page) else { return Answer::Done(0) };
        let owner = machine.owner(self.store, page);
        if owner == Owner::Free {
            self.report(EventKind::Tracking);
            return Answer::Done(0);
        }
        for line in page * machine.spec.lines_per_page..(page + 1) * machine.spec.lines_per_page {
            if let Owner::Vm(vm) = owner {
                self.judge_latent(line, Tag::of_vm(vm));
            }
            self.memory.change_owner(self.store, line);
        }
        self.store.set(machine.owners[page as usize], machine.owner_code(Owner::Free));
        Answer::Done(0)
    }

    fn alloc_page(&mut self, page: i64, vm: i64) -> Answer {
        let machine = self.machine;
        let Some(page) = self.page(page) else { return Answer::Done(0) };
        let slot = machine.owners[page as usize];
        if machine.owner(self.store, page) != Owner::Free {
            return Answer::Done(0);
        }
        let owner = match u16::try_from(vm) {
            Ok(vm) => {
                self.store.set(machine.user_ptes[page as usize], 1);
                Owner::Vm(sev_arch::VmId(vm))
            }
            Err(_) => Owner::Host,
        };
        self.store.set(slot, machine.owner_code(owner));
        Answer::Done(1)
    }

    fn flush(&mut self, prim: Prim, kind: i64) -> Answer {
        let op = if kind == 0 { FlushOp::Wbinvd } else { FlushOp::Wbnoinvd };
        let core = self.core();
        let mut fx = Effects::default();
        if prim == Prim::FlushEnd {
            if let Some(slot) = self.memory.flush_waits(self.store, core) {
                return Answer::Blocked(slot);
            }
        } else if prim == Prim::FlushPrivate {
            // Only this pCPU can bring lines into its core's caches, and it is busy here.
            let alone = self.machine.spec.core_of.iter().filter(|c| **c == core).count() == 1;
            if self.machine.own_flushes && alone && self.memory.private_empty(self.store, core) {
                return Answer::Own(0);
            }
            self.memory.flush_private(self.store, core, op, &mut fx);
        } else if prim == Prim::FlushShared {
            self.memory.flush_shared(self.store, core, op, &mut fx);
        } else {
            self.memory.flush_begin(self.store, core, op, &mut fx);
        }
        self.take_effects(fx);
        Answer::Done(0)
    }

    fn clflush_page(&mut self, page: i64) -> Answer {
        let Some(page) = self.page(page) else { return Answer::Done(0) };
        let per_page = self.machine.spec.lines_per_page;
        let mut fx = Effects::default();
        for line in page * per_page..(page + 1) * per_page {
            self.memory.clflush(self.store, line, &mut fx);
        }
        self.take_effects(fx);
        Answer::Done(0)
    }

    fn spte(&mut self, vm: i64, page: i64) -> Option<SlotId> {
        let page = self.page(page)? as usize;
        let vm = usize::try_from(vm).ok().filter(|v| *v < usize::from(self.machine.spec.vms));
        if vm.is_none() {
            self.report(EventKind::Tracking);
        }
        vm.map(|v| self.machine.sptes[v * self.machine.owners.len() + page])
    }
}

impl<S: Store, M: Memory<S>, C: Chooser> Platform for Runner<'_, S, M, C> {
    fn load(&mut self, place: Place, instance: i64, word: i64) -> i64 {
        match self.machine.var_slot(place.var, instance, word) {
            Some(slot) => self.store.get(slot),
            None => {
                self.report(EventKind::Tracking);
                0
            }
        }
    }

    fn store(&mut self, place: Place, instance: i64, word: i64, value: i64) {
        let Some(slot) = self.machine.var_slot(place.var, instance, word) else {
            self.report(EventKind::Tracking);
            return;
        };
        let domain = self.machine.vars[usize::from(place.var.0)].domain;
        let value = match domain {
            _ if domain.holds(value) => value,
            Domain::Mask { bits } => value & ((1 << bits) - 1),
            Domain::Range { lo, hi } => {
                let span = i128::from(hi) - i128::from(lo) + 1;
                let wrapped = i128::from(lo) + (i128::from(value) - i128::from(lo)).rem_euclid(span);
                i64::try_from(wrapped).unwrap_or(lo)
            }
        };
        self.store.set(slot, value);
    }

    fn slot(&self, place: Place, instance: i64, word: i64) -> SlotId {
        self.machine.var_slot(place.var, instance, word).unwrap_or(SlotId(0))
    }

    fn holder(&self) -> i64 {
        let holder = match self.who {
            Who::Handler => self.machine.tasks.len() + usize::try_from(self.pcpu).unwrap_or(0),
            Who::Task | Who::Sched | Who::Guest => self.task,
        };
        i64::try_from(holder).unwrap_or(0) + 1
    }

    fn lock_event(&mut self, kind: Lock, taken: bool, held_by: i64) {
        let atomic = self.preempt > 0 || self.irq_off != 0 || self.who == Who::Handler;
        if kind == Lock::Mutex && taken && atomic {
            self.report(EventKind::SleepInAtomic);
        }
        if !taken && held_by == 0 {
            self.report(EventKind::Tracking);
        }
    }

    fn this_cpu(&self) -> i64 {
        self.pcpu
    }

    fn vm_of(&self, vcpu: i64) -> i64 {
        usize::try_from(vcpu)
            .ok()
            .and_then(|v| self.machine.spec.vcpu_vm.get(v))
            .map_or(-1, |vm| i64::from(vm.0))
    }

    fn pcpus(&self) -> i64 {
        i64::try_from(self.machine.pcpus.len()).unwrap_or(0)
    }

    fn word_bits(&self) -> i64 {
        i64::from(self.machine.spec.assumptions.word_bits)
    }

    fn window(&mut self, window: Window) {
        match window {
            Window::IrqDisable => self.irq_off = 1,
            Window::IrqEnable => self.irq_off = 0,
            Window::PreemptDisable => self.preempt += 1,
            Window::PreemptEnable => self.preempt -= 1,
        }
    }

    fn choose(&mut self, options: i64) -> i64 {
        i64::try_from(self.ask(usize::try_from(options).unwrap_or(1))).unwrap_or(0)
    }

    fn primitive(&mut self, prim: Prim, args: [i64; 4], regs: &[i64; REGS]) -> Answer {
        let machine = self.machine;
        match prim {
            Prim::VmRun => self.vmrun(),
            Prim::GuestRead | Prim::GuestWrite => {
                let access = if prim == Prim::GuestRead { Access::Read } else { Access::Write };
                let Some(page) = self.page(args[0]) else { return Answer::Done(0) };
                if self.guest_access(page * machine.spec.lines_per_page, access, None) {
                    Answer::Done(0)
                } else {
                    self.notes.what = Some(What::Fault { page });
                    Answer::Stay
                }
            }
            Prim::VcpuFlushTlb => {
                let pages = machine.owners.len();
                let Ok(v) = usize::try_from(args[0]) else {
                    self.report(EventKind::Tracking);
                    return Answer::Done(0);
                };
                for page in 0..pages {
                    self.store.set(machine.tlbs[v * pages + page], 0);
                }
                Answer::Done(0)
            }
            Prim::FaultPage => Answer::Done(args[0] - 2),
            Prim::ZapSpte => match self.spte(args[0], args[1]) {
                Some(slot) => {
                    let was = self.store.get(slot);
                    self.store.set(slot, 0);
                    Answer::Done(was)
                }
                None => Answer::Done(0),
            },
            Prim::InstallSpte => {
                if let Some(slot) = self.spte(args[0], args[1]) {
                    self.store.set(slot, 1);
                }
                Answer::Done(0)
            }
            Prim::UserPtePresent => {
                let Some(page) = self.page(args[0]) else { return Answer::Done(0) };
                Answer::Done(self.store.get(machine.user_ptes[page as usize]))
            }
            Prim::ZapUserPte => {
                if let Some(page) = self.page(args[0]) {
                    self.store.set(machine.user_ptes[page as usize], 0);
                }
                Answer::Done(0)
            }
            Prim::FreePage => self.free_page(args[0]),
            Prim::AllocPage => self.alloc_page(args[0], args[1]),
            Prim::HostRead => self.page_access(args[0], Access::Read, false),
            Prim::HostWrite => self.page_access(args[0], Access::Write, false),
            Prim::DmaRead => self.page_access(args[0], Access::Read, true),
            Prim::DmaWrite => self.page_access(args[0], Access::Write, true),
            Prim::FlushBegin | Prim::FlushPrivate | Prim::FlushShared | Prim::FlushEnd => {
                self.flush(prim, args[0])
            }
            Prim::ClflushPage => self.clflush_page(args[0]),
            Prim::SendCall => self.send_call(args),
            Prim::WaitCalls => self.wait_calls(args[0], args[1], regs),
            Prim::SchedPark => {
                if let (Some(on), Ok(p)) = (machine.tasks[self.task].on, usize::try_from(self.pcpu)) {
                    self.leave(p, on);
                    self.parked = true;
                }
                Answer::Done(0)
            }
            Prim::TraceWriteback => {
                self.notes.writeback = Some(args[0] != 0);
                Answer::Done(0)
            }
            Prim::OracleUpdate => {
                let Ok(vm) = u16::try_from(args[0]) else { return Answer::Done(0) };
                let cores = self.memory.cover(self.store, Tag::of_vm(VmId(vm)));
                let bits = usize::from(machine.spec.assumptions.word_bits);
                for word in 0..machine.spec.core_of.len().div_ceil(bits) {
                    let mut mask = 0i64;
                    for core in &cores {
                        let first = machine.spec.core_of.iter().position(|c| c == core).unwrap_or(0);
                        if first / bits == word {
                            mask |= 1 << (first % bits);
                        }
                    }
                    let word = i64::try_from(word).unwrap_or(0);
                    if let Some(slot) = machine.variable("oracle_cpus", 0, word) {
                        self.store.set(slot, mask);
                    }
                }
                Answer::Done(0)
            }
            Prim::SetLoaded => {
                if let Some(vcpu) = &machine.tasks[self.task].vcpu {
                    self.store.set(vcpu.loaded, i64::from(args[1] != 0));
                }
                Answer::Done(0)
            }
        }
    }
}
