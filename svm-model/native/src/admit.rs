//! Which policies can run for real: what their programs do must exist outside of a model, and where they do it.
//!
//! Functions that run at a guest's entry, at a switch of threads or in an IPI may not wait; the writeback may, but not where it has
//! interrupts off or holds a spinlock. Every path is followed with what it has switched off and taken: what the explorer would find to
//! stand still for ever stands still in a kernel, too.

use std::collections::{BTreeMap, BTreeSet};

use svm_policy::{BinOp, Expr, Lock, Op, Operand, Pc, Prim, Reg, RmwOp, UnOp, VarId, Window};

use crate::primitive::{Does, does};
use crate::program::Program;

/// Where a function runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Where {
    /// With interrupts off: at entry, at a switch, in an IPI; else in a task that may sleep.
    atomic: bool,
    /// For a reclaim: by its task, or in an IPI that the task sends.
    reclaim: bool,
    /// In an IPI, which can come wherever interrupts are on.
    handler: bool,
}

/// At a guest's entry, or at a switch of threads.
const HOOK: Where = Where { atomic: true, reclaim: false, handler: false };
/// In the flusher's task.
const FLUSHER: Where = Where { atomic: false, reclaim: true, handler: false };
/// When a VM comes and goes.
const LIFE: Where = Where { atomic: false, reclaim: false, handler: false };

/// The hooks that can be called for real, and where they run.
const HOOKS: [(&str, Where); 8] = [
    ("sev_vcpu_load_prepare", HOOK),
    ("sev_vcpu_load", HOOK),
    ("sev_vcpu_put", HOOK),
    ("pre_sev_run", HOOK),
    ("sev_notifier_skips", FLUSHER),
    ("sev_writeback_caches", FLUSHER),
    ("sev_alloc_tracking", LIFE),
    ("sev_free_tracking", LIFE),
];

/// The hooks that cannot, and why.
const HOOKLESS: [(&str, &str); 2] = [
    ("sev_vcpu_exit", "no kernel tells a module of a guest's exit while interrupts are still off"),
    (
        "sev_writeback_page",
        "the helper module flushes caches, not a page: it does not know the page's address",
    ),
];

/// The names of the hooks that can be called for real.
pub fn hooks() -> impl Iterator<Item = &'static str> {
    HOOKS.iter().map(|h| h.0)
}

/// Why a policy that defines a hook of this name cannot run, if that is so.
#[must_use]
pub fn hookless(name: &str) -> Option<&'static str> {
    HOOKLESS.iter().find(|h| h.0 == name).map(|h| h.1)
}

/// Why a policy cannot run for real.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Refusal {
    /// The operation.
    pub at: Pc,
    /// The hook that leads there.
    pub hook: String,
    /// The reason.
    pub why: String,
}

/// How often something can be off or held at once before it is not counted any further.
const DEEPEST: u8 = 8;

/// What a register keeps of a path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kept {
    /// Something that is known: not 0, or 0. Whether interrupts were off, for one.
    Known(bool),
    /// Whether a lock that was tried was got: what anything but 0 says of that, if it is known.
    Tried(Option<bool>),
}

impl Kept {
    /// `!x`, `x == 0`.
    fn not(self) -> Kept {
        match self {
            Kept::Known(known) => Kept::Known(!known),
            Kept::Tried(says) => Kept::Tried(says.map(|got| !got)),
        }
    }
}

/// What a path has done so far.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Path {
    place: Where,
    /// Interrupts are off.
    off: bool,
    /// How often preemption was switched off.
    preempt: u8,
    /// Spinlocks that it holds.
    spins: u8,
    /// What registers keep of it.
    kept: BTreeMap<Reg, Kept>,
}

impl Path {
    const fn at(place: Where) -> Path {
        Path { place, off: place.atomic, preempt: 0, spins: 0, kept: BTreeMap::new() }
    }

    /// After an operation.
    fn after(mut self, op: Op) -> Path {
        match op {
            Op::Window(Window::IrqDisable) => self.off = true,
            Op::Window(Window::IrqEnable) => self.off = false,
            Op::Window(Window::PreemptDisable) => self.preempt = (self.preempt + 1).min(DEEPEST),
            Op::Window(Window::PreemptEnable) => {
                self.preempt = self.preempt.saturating_sub(1);
                // A lock that was tried, and is not held.
                self.spins = self.spins.min(self.preempt);
            }
            Op::Lock { kind, .. } if !kind.sleeps() => self.spins = (self.spins + 1).min(DEEPEST),
            Op::Rmw { op: RmwOp::TryLock(kind), .. } if !kind.sleeps() => {
                self.spins = (self.spins + 1).min(DEEPEST);
            }
            Op::Unlock { kind, .. } if !kind.sleeps() => self.spins = self.spins.saturating_sub(1),
            Op::Set { .. }
            | Op::MaskPut { .. }
            | Op::Jump(_)
            | Op::Branch { .. }
            | Op::Choose { .. }
            | Op::ChooseBit { .. }
            | Op::Load { .. }
            | Op::Store { .. }
            | Op::Rmw { .. }
            | Op::Lock { .. }
            | Op::Unlock { .. }
            | Op::Prim { .. }
            | Op::Halt => {}
        }
        let (dst, kept) = match op {
            Op::Prim { prim: Prim::IrqsDisabled, dst, .. } => (Some(dst), Some(Kept::Known(self.off))),
            Op::Rmw { dst, op: RmwOp::TryLock(kind), .. } if !kind.sleeps() => {
                // One at a time.
                self.kept.retain(|_, kept| matches!(kept, Kept::Known(_)));
                // Who reads finds readers, and may get it all the same.
                (Some(dst), Some(Kept::Tried((kind != Lock::Read).then_some(false))))
            }
            Op::Set { dst, rhs } => (Some(dst), self.follows(rhs)),
            Op::Prim { dst, .. }
            | Op::Choose { dst, .. }
            | Op::ChooseBit { dst, .. }
            | Op::Load { dst, .. }
            | Op::Rmw { dst, .. } => (Some(dst), None),
            Op::MaskPut { base, words, .. } => {
                self.kept.retain(|reg, _| !(base..base.saturating_add(words)).contains(reg));
                (None, None)
            }
            Op::Jump(_)
            | Op::Branch { .. }
            | Op::Window(_)
            | Op::Store { .. }
            | Op::Lock { .. }
            | Op::Unlock { .. }
            | Op::Halt => (None, None),
        };
        if let Some(dst) = dst {
            self.kept.remove(&dst);
            self.kept.extend(kept.map(|what| (dst, what)));
        }
        self
    }

    /// What a computation of what is kept gives.
    fn follows(&self, rhs: Expr) -> Option<Kept> {
        let of = |operand| if let Operand::Reg(reg) = operand { self.kept.get(&reg).copied() } else { None };
        let zero = Operand::Const(0);
        match rhs {
            Expr::Use(what) => of(what),
            Expr::Un(UnOp::IsZero, what) => of(what).map(Kept::not),
            Expr::Bin(BinOp::Eq, what, with) if with == zero => of(what).map(Kept::not),
            Expr::Bin(BinOp::Ne, what, with) if with == zero => of(what),
            Expr::Bin(_, one, other) => {
                let tried = |operand| matches!(of(operand), Some(Kept::Tried(_)));
                (tried(one) || tried(other)).then_some(Kept::Tried(None))
            }
            Expr::Un(..)
            | Expr::ThisCpu
            | Expr::VmOf(_)
            | Expr::Siblings { .. }
            | Expr::MaskTest { .. }
            | Expr::MaskNext { .. }
            | Expr::MaskWeight { .. } => None,
        }
    }

    /// The path on one side of a branch; none if it does not go there.
    fn taking(mut self, cond: Operand, side: bool) -> Option<Path> {
        let Operand::Reg(reg) = cond else { return Some(self) };
        match self.kept.get(&reg).copied() {
            Some(Kept::Known(known)) if known != side => return None,
            Some(Kept::Tried(Some(says))) => {
                let got = says == side;
                for kept in self.kept.values_mut() {
                    if let Kept::Tried(Some(says)) = *kept {
                        *kept = Kept::Known(says == got);
                    }
                }
            }
            Some(Kept::Tried(None)) => {
                self.kept.insert(reg, Kept::Known(side));
            }
            Some(Kept::Known(_)) | None => {}
        }
        Some(self)
    }
}

/// A spinlock that is taken somewhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Taken<'p> {
    lock: VarId,
    reads: bool,
    at: Pc,
    hook: &'p str,
}

/// Everything that keeps a program from running for real, in the order of its operations; nothing if it can.
#[must_use]
pub fn refusals(program: &Program) -> Vec<Refusal> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let (mut by_handlers, mut interruptible) = (BTreeSet::new(), BTreeSet::new());
    let mut todo: Vec<(Pc, Path, &str)> = HOOKS
        .iter()
        .filter_map(|(name, place)| program.entry(name).map(|e| (e.start, Path::at(*place), *name)))
        .collect();
    while let Some((at, path, hook)) = todo.pop() {
        if !seen.insert((at, path.clone())) {
            continue;
        }
        let Some(op) = program.ops.get(usize::from(at)).copied() else { continue };
        let own = program.own.get(usize::from(at)).copied().unwrap_or(true);
        if let Some(why) = refusal(op, &path, own) {
            found.insert(Refusal { at, hook: hook.to_owned(), why });
        }
        if let Op::Lock { kind, place } = op
            && !kind.sleeps()
        {
            let taken = Taken { lock: place.var, reads: kind == Lock::Read, at, hook };
            if path.place.handler {
                by_handlers.insert(taken);
            } else if !path.off {
                interruptible.insert(taken);
            }
        }
        match op {
            Op::Halt => {}
            Op::Jump(to) => todo.push((to, path, hook)),
            Op::Branch { cond, then, otherwise } => {
                todo.extend(path.clone().taking(cond, true).map(|path| (then, path, hook)));
                todo.extend(path.taking(cond, false).map(|path| (otherwise, path, hook)));
            }
            Op::Set { .. }
            | Op::MaskPut { .. }
            | Op::Window(_)
            | Op::Choose { .. }
            | Op::ChooseBit { .. }
            | Op::Load { .. }
            | Op::Store { .. }
            | Op::Rmw { .. }
            | Op::Lock { .. }
            | Op::Unlock { .. }
            | Op::Prim { .. } => {
                if let Op::Prim { prim: Prim::SendCall, args, .. } = op {
                    // A function that is chosen while running is one of all that are ever sent.
                    let known = if let Operand::Const(n) = args[1] { program.callback(n) } else { None };
                    let all = program.callbacks.iter().filter_map(|e| program.entries.get(usize::from(*e)));
                    let sent: Vec<_> = known.map_or_else(|| all.collect(), |one| vec![one]);
                    let there = Where { atomic: true, handler: true, ..path.place };
                    todo.extend(sent.into_iter().map(|e| (e.start, Path::at(there), hook)));
                }
                todo.push((at + 1, path.after(op), hook));
            }
        }
    }
    for Taken { lock, reads, at, hook } in interruptible {
        if by_handlers.iter().any(|t: &Taken<'_>| t.lock == lock && !(t.reads && reads)) {
            let why = "a handler of an IPI takes this lock, too, and may come while it is held here: it must be taken with interrupts off";
            found.insert(Refusal { at, hook: hook.to_owned(), why: why.to_owned() });
        }
    }
    found.into_iter().collect()
}

fn refusal(op: Op, path: &Path, own: bool) -> Option<String> {
    let why = match op {
        Op::Lock { kind: Lock::Completion | Lock::CompleteAll, .. } => {
            "a completion that the policy waits for has no end outside of the model's tasks"
        }
        Op::Lock { kind, .. } if kind.sleeps() => return path.sleeps(),
        Op::Choose { .. } | Op::ChooseBit { .. } if own => {
            "a choice of any way belongs to the model; real code takes one"
        }
        Op::Window(Window::IrqEnable) if path.place.atomic => {
            "it switches interrupts on, where the kernel has switched them off and counts on it"
        }
        Op::Halt if path.off != path.place.atomic => "it returns with interrupts off",
        Op::Halt if path.spins > 0 => "it returns with a spinlock held",
        Op::Halt if path.preempt > 0 => "it returns with preemption off",
        Op::Prim { prim, args, .. } => return primitive(prim, args, path),
        Op::Set { .. }
        | Op::MaskPut { .. }
        | Op::Jump(_)
        | Op::Branch { .. }
        | Op::Window(_)
        | Op::Choose { .. }
        | Op::ChooseBit { .. }
        | Op::Load { .. }
        | Op::Store { .. }
        | Op::Rmw { .. }
        | Op::Lock { .. }
        | Op::Unlock { .. }
        | Op::Halt => return None,
    };
    Some(why.to_owned())
}

impl Path {
    /// Why it may not sleep, if so.
    fn sleeps(&self) -> Option<String> {
        let why = match () {
            () if self.off => "interrupts are off",
            () if self.spins > 0 => "a spinlock is held",
            () if self.preempt > 0 => "preemption is off",
            () => return None,
        };
        Some(format!("it may sleep here, where {why}"))
    }

    /// Why it may not wait for other pCPUs, if so.
    fn waits(&self) -> Option<String> {
        let why = match () {
            () if self.off => "interrupts are off: two that do so wait for each other for ever",
            () if self.spins > 0 => {
                "a spinlock is held: a pCPU that waits for it with interrupts off, as in a handler, never answers"
            }
            () => return None,
        };
        Some(format!("it waits for other pCPUs here, where {why}"))
    }
}

fn primitive(prim: Prim, args: [Operand; 4], path: &Path) -> Option<String> {
    let why = match does(prim) {
        Err(why) | Ok(Does::KernelsNote(why)) => why,
        Ok(Does::WriteBack) if !path.place.reclaim => {
            "it writes back outside of a reclaim: the helper module does so for a reclaim only, whose pauses and bounds it keeps, \
             and which it can say it of"
        }
        Ok(Does::Call) if args[3] == Operand::Const(0) => {
            "a call that is not waited for: the helper module waits for every call, since it must say what was flushed"
        }
        Ok(Does::Call | Does::Wait) => return path.waits(),
        Ok(Does::AllocMask) => return path.sleeps(),
        Ok(
            Does::WriteBack
            | Does::Nothing
            | Does::MaskAvailable
            | Does::IrqsDisabled
            | Does::InAtomic
            | Does::InInterrupt
            | Does::Fence
            | Does::Warn
            | Does::Note,
        ) => return None,
    };
    Some(why.to_owned())
}
