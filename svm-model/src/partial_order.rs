//! Partial order: where one task's next step commutes with all that others can do before it, only that step is made.
//!
//! *The rule*: in a state, a task `t` goes alone if
//!
//! 1. its step is enabled, and the scheduler cannot take its pCPU away: it is not preemptible, or preemption or
//!    interrupts are off on its pCPU, or its guest runs;
//! 2. every way that the step can go reads only `t`'s own slots, the windows and the handler flags of pCPUs, and
//!    variables that no other task can ever touch again, and changes only the first and the last of these;
//! 3. every way leads forward: to a later rest of its text, into the guest, or to a later rest of a preempt notifier.
//!
//! What others can ever touch is read off their texts: the variables of all operations that can be reached from where they
//! rest, those of their guests and preempt notifiers, and those of every function that is sent to pCPUs.
//!
//! *Why no event is lost*: take any way from the state to an event that begins with steps of others, `u1 ... un`. None of
//! them reads or writes what `t`'s step writes, or writes what it reads, but for the handler flag of its pCPU, which only
//! tells whether `t` must wait. So `t`'s step, made first, does what it would have done later, and each `ui` does after it
//! what it did without it, with the same events. If `t`'s step comes up in the way, it is moved to the front; if it does
//! not, it is put there. A deadlock stays one: `t`'s step does not end the task, and only a handler that never returns can
//! keep `t` from it. Rule 3 sees to it that this cannot go on for ever: along a cycle of states, some step leads back, and
//! the state that it leaves was expanded in full (Valmari, *Stubborn sets for reduced state space generation*, 1991;
//! Peled, *All from one, one for all*, CAV 1993, for the proviso).
//!
//! A state in which a task goes alone is not even stored: the search goes on from what its step leads to.
//!
//! What does not hold with partial order: that the first way found is a shortest one, and that a twin which was not seen
//! never happens. Stories and twins come from the search without it.

use sim_core::state::{Position, SlotId};
use svm_policy::{Op, Operand, Pc, Place, Prim};

use crate::context::ContextSlots;
use crate::machine::Machine;
use crate::spec::{Guest, TaskKind};
use sim_explore::Ways;

/// A slot's place in the packed words.
#[derive(Clone, Copy, Debug)]
struct Field {
    word: usize,
    shift: u8,
    mask: u64,
}

impl Field {
    fn of<const W: usize>(self, state: &[u64; W]) -> u64 {
        state[self.word] >> self.shift & self.mask
    }
}

fn field(p: Position) -> Field {
    Field { word: p.word as usize, shift: p.shift, mask: if p.width == 0 { 0 } else { p.mask() } }
}

/// What is known of a task before the search.
#[derive(Debug)]
struct Task<const W: usize> {
    preemptible: bool,
    /// Its pCPU, as its slot packs it; and the number that packs as 0. None of a device.
    on: Option<(Field, i64)>,
    pc: Field,
    in_guest: Option<Field>,
    sched: Option<Field>,
    /// Slots that no other task's step reads or writes.
    own: [u64; W],
    /// By the packed program counter: the variables that it can touch from there on.
    touches: Vec<[u64; W]>,
}

/// The rule, for one machine.
#[derive(Debug)]
pub(crate) struct PartialOrder<const W: usize> {
    tasks: Vec<Task<W>>,
    /// By pCPU: interrupts off, preemption off.
    windows: Vec<[Field; 2]>,
    /// Windows and handler flags.
    flags: [u64; W],
    vars: [u64; W],
    /// Variables that a handler can touch.
    handlers: [u64; W],
}

fn or<const W: usize>(a: [u64; W], b: [u64; W]) -> [u64; W] {
    std::array::from_fn(|w| a[w] | b[w])
}

/// Whether some primitive looks at what the rule takes for a task's own, or at variables that its arguments do not name.
fn sees_more(machine: &Machine) -> bool {
    let prim = |op: &Op| {
        matches!(
            op,
            Op::Prim {
                prim: Prim::JoinVcpu
                    | Prim::OracleUpdate
                    | Prim::ZallocMask
                    | Prim::FreeMask
                    | Prim::AllocObject
                    | Prim::FreeObject
                    | Prim::FreeVm
                    | Prim::FreeVcpu
                    | Prim::Firmware(_),
                ..
            }
        )
    };
    machine.online.is_some() || !machine.buffers.of_pcpu.is_empty() || machine.code().ops.iter().any(prim)
}

impl<const W: usize> PartialOrder<W> {
    /// For a machine whose slots lie so; `None` if the rule does not speak of such machines.
    pub(crate) fn of(machine: &Machine, positions: &[Position]) -> Option<Self> {
        if sees_more(machine) {
            return None;
        }
        let texts = Texts { machine, positions };
        let at = |slot: SlotId| positions[slot.0 as usize];
        let start = |name: &str| machine.code().entries.iter().find(|e| e.name == name).map(|e| e.start);
        let handlers = machine.code().callbacks.iter().map(|c| machine.code().entries[usize::from(*c)].start);
        let handlers = texts.touched(&handlers.collect::<Vec<_>>());
        let mut tasks = Vec::new();
        for (slots, spec) in machine.tasks.iter().zip(&machine.spec().tasks) {
            let mut beside = Vec::new();
            let mut own = [0; W];
            texts.context(&mut own, &slots.main);
            texts.add(&mut own, slots.non_block);
            slots.on.iter().for_each(|on| texts.add(&mut own, *on));
            if let Some(vcpu) = &slots.vcpu {
                texts.context(&mut own, &vcpu.sched);
                vcpu.guest.iter().for_each(|guest| texts.context(&mut own, guest));
                texts.add(&mut own, vcpu.in_guest);
                texts.add(&mut own, vcpu.loaded);
                beside.extend([machine.sched_out.start, machine.sched_in.start]);
            }
            if let TaskKind::Vcpu { guest: Guest::Program(name), .. } = &spec.kind {
                beside.extend(start(name));
            }
            let idle = slots.repeats.as_ref().map(|entry| entry.start);
            let pc = at(slots.main.pc);
            let mut touches = Vec::new();
            for raw in 0..=field(pc).mask {
                let rest = usize::try_from(raw).ok().and_then(|r| r.checked_sub(1));
                let from = match rest {
                    Some(rest) => slots.main.rests.get(rest).map(|r| r.0),
                    None => idle,
                };
                let mut starts: Vec<Pc> = from.into_iter().collect();
                if !starts.is_empty() {
                    starts.extend(&beside);
                }
                // A reclaimer begins again.
                starts.extend(idle);
                touches.push(texts.touched(&starts));
            }
            tasks.push(Task {
                preemptible: slots.preemptible,
                on: slots.on.map(|on| (field(at(on)), at(on).low)),
                pc: field(pc),
                in_guest: slots.vcpu.as_ref().map(|v| field(at(v.in_guest))),
                sched: slots.vcpu.as_ref().map(|v| field(at(v.sched.pc))),
                own,
                touches,
            });
        }
        let (mut flags, mut vars) = ([0; W], [0; W]);
        for pcpu in &machine.pcpus {
            [pcpu.irq_off, pcpu.preempt, pcpu.handling].iter().for_each(|slot| texts.add(&mut flags, *slot));
        }
        for var in &machine.vars {
            (var.base..var.base + var.words * var.instances)
                .for_each(|slot| texts.add(&mut vars, SlotId(slot)));
        }
        let windows = machine.pcpus.iter().map(|p| [field(at(p.irq_off)), field(at(p.preempt))]).collect();
        Some(PartialOrder { tasks, windows, flags, vars, handlers })
    }

    /// How many tasks there are: the first actors of a machine.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// What the other tasks can touch from a state on.
    fn others(&self, state: &[u64; W], t: usize) -> [u64; W] {
        let others = self.tasks.iter().enumerate().filter(|(o, _)| *o != t);
        others.fold(self.handlers, |all, (_, task)| {
            let raw = usize::try_from(task.pc.of(state)).unwrap_or(0);
            task.touches.get(raw).map_or(all, |touched| or(all, *touched))
        })
    }

    /// Whether the scheduler must leave a task its pCPU (rule 1).
    pub(crate) fn keeps_pcpu(&self, state: &[u64; W], t: usize) -> bool {
        let task = &self.tasks[t];
        let Some((on, low)) = task.on else { return true };
        if !task.preemptible || task.in_guest.is_some_and(|g| g.of(state) != 0) {
            return true;
        }
        let pcpu = on.of(state).cast_signed().wrapping_add(low);
        let windows = usize::try_from(pcpu).ok().and_then(|p| self.windows.get(p));
        windows.is_some_and(|windows| windows.iter().any(|w| w.of(state) != 0))
    }

    /// Whether a task whose step can go these ways goes alone (rules 2 and 3).
    pub(crate) fn goes_alone(&self, state: &[u64; W], t: usize, ways: Ways<'_, W>) -> bool {
        let Ways { outcomes, read, .. } = ways;
        if outcomes.is_empty() {
            return false;
        }
        let task = &self.tasks[t];
        let others = self.others(state, t);
        outcomes.iter().all(|way| {
            let next = way.of(state);
            let harmless = (0..W).all(|w| {
                let free = task.own[w] | self.vars[w] & !others[w];
                // What is written as it was read, and is nobody else's to write, is not changed.
                let changed = (state[w] ^ next[w]) | !way.keep[w] & !read[w];
                read[w] & !(free | self.flags[w]) == 0 && changed & !free == 0
            });
            harmless && task.forward(state, &next)
        })
    }
}

impl<const W: usize> Task<W> {
    fn forward(&self, from: &[u64; W], to: &[u64; W]) -> bool {
        let rank = |state: &[u64; W]| {
            let of = |f: Option<Field>| f.map_or(0, |f| f.of(state));
            (self.pc.of(state), of(self.in_guest), of(self.sched))
        };
        // A task that ends, or whose notifier does, goes to rest 0.
        rank(to) > rank(from)
    }
}

/// The texts, and where their variables lie.
struct Texts<'m> {
    machine: &'m Machine,
    positions: &'m [Position],
}

impl Texts<'_> {
    fn add<const W: usize>(&self, bits: &mut [u64; W], slot: SlotId) {
        let p = self.positions[slot.0 as usize];
        if p.width > 0 {
            bits[p.word as usize] |= p.mask() << p.shift;
        }
    }

    fn context<const W: usize>(&self, bits: &mut [u64; W], context: &ContextSlots) {
        self.add(bits, context.pc);
        context.regs.iter().for_each(|slot| self.add(bits, *slot));
    }

    /// The variables of all operations that can be reached from some.
    fn touched<const W: usize>(&self, from: &[Pc]) -> [u64; W] {
        let ops = &self.machine.code().ops;
        let mut bits = [0; W];
        let mut seen = vec![false; ops.len()];
        let mut open: Vec<usize> = from.iter().map(|pc| usize::from(*pc)).collect();
        while let Some(at) = open.pop() {
            let Some(op) = ops.get(at) else { continue };
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            match *op {
                Op::Jump(to) => open.push(usize::from(to)),
                Op::Branch { then, otherwise, .. } => {
                    open.extend([usize::from(then), usize::from(otherwise)]);
                }
                Op::Halt => {}
                Op::Load { place, .. }
                | Op::Store { place, .. }
                | Op::Rmw { place, .. }
                | Op::Lock { place, .. }
                | Op::Unlock { place, .. } => {
                    self.place(&mut bits, place);
                    open.push(at + 1);
                }
                Op::Prim { prim: Prim::LockHeld | Prim::MaskAvailable, args, .. } => {
                    if let Operand::Const(var) = args[0] {
                        self.variable(&mut bits, usize::try_from(var).unwrap_or(usize::MAX), None);
                    }
                    open.push(at + 1);
                }
                Op::Set { .. }
                | Op::MaskPut { .. }
                | Op::Window(_)
                | Op::Choose { .. }
                | Op::ChooseBit { .. }
                | Op::Prim { .. } => open.push(at + 1),
            }
        }
        bits
    }

    fn place<const W: usize>(&self, bits: &mut [u64; W], place: Place) {
        let instance = match place.instance {
            Operand::Const(i) => u32::try_from(i).ok(),
            Operand::Reg(_) => None,
        };
        self.variable(bits, usize::from(place.var.0), instance);
    }

    /// A variable's instance, or all of them; with what says whether it is there.
    fn variable<const W: usize>(&self, bits: &mut [u64; W], var: usize, instance: Option<u32>) {
        let Some(slots) = self.machine.vars.get(var) else { return };
        let (from, to) = match instance.filter(|i| *i < slots.instances) {
            Some(i) => (i, i + 1),
            None => (0, slots.instances),
        };
        (slots.base + from * slots.words..slots.base + to * slots.words)
            .for_each(|slot| self.add(bits, SlotId(slot)));
        for beside in [slots.state, slots.object].into_iter().flatten() {
            self.variable(bits, usize::from(beside), None);
        }
    }
}
