//! Which policies can run for real: what their programs do must exist outside of a model, and where they do it.
//!
//! Functions that run at a guest's entry, at a switch of threads or in an IPI may not wait; the writeback may.

use std::collections::BTreeSet;

use svm_policy::{Lock, Op, Operand, Pc, Prim};

use crate::primitive::{Does, does};
use crate::program::Program;

/// Where a function runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Where {
    /// With interrupts off: at entry, at a switch, in an IPI; else in a task that may sleep.
    atomic: bool,
    /// For a reclaim: by its task, or in an IPI that the task sends.
    reclaim: bool,
}

/// At a guest's entry, or at a switch of threads.
const HOOK: Where = Where { atomic: true, reclaim: false };
/// In the flusher's task.
const FLUSHER: Where = Where { atomic: false, reclaim: true };
/// When a VM comes and goes.
const LIFE: Where = Where { atomic: false, reclaim: false };

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

/// Everything that keeps a program from running for real, in the order of its operations; nothing if it can.
#[must_use]
pub fn refusals(program: &Program) -> Vec<Refusal> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut todo: Vec<(Pc, Where, &str)> = HOOKS
        .iter()
        .filter_map(|(name, place)| program.entry(name).map(|e| (e.start, *place, *name)))
        .collect();
    while let Some((at, place, hook)) = todo.pop() {
        if !seen.insert((at, place)) {
            continue;
        }
        let Some(op) = program.ops.get(usize::from(at)).copied() else { continue };
        let own = program.own.get(usize::from(at)).copied().unwrap_or(true);
        if let Some(why) = refusal(op, place, own) {
            found.insert(Refusal { at, hook: hook.to_owned(), why });
        }
        match op {
            Op::Jump(to) => todo.push((to, place, hook)),
            Op::Branch { then, otherwise, .. } => {
                todo.extend([(then, place, hook), (otherwise, place, hook)]);
            }
            Op::Halt => {}
            Op::Prim { prim: Prim::SendCall, args, .. } => {
                todo.push((at + 1, place, hook));
                // A function that is chosen while running is one of all that are ever sent.
                let known = if let Operand::Const(n) = args[1] { program.callback(n) } else { None };
                let all = program.callbacks.iter().filter_map(|e| program.entries.get(usize::from(*e)));
                let sent: Vec<_> = known.map_or_else(|| all.collect(), |one| vec![one]);
                let there = Where { atomic: true, ..place };
                todo.extend(sent.into_iter().map(|e| (e.start, there, hook)));
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
            | Op::Prim { .. } => todo.push((at + 1, place, hook)),
        }
    }
    found.into_iter().collect()
}

fn refusal(op: Op, place: Where, own: bool) -> Option<String> {
    let atomic = place.atomic;
    match op {
        Op::Lock { kind: Lock::Completion | Lock::CompleteAll, .. } => {
            Some("a completion that the policy waits for has no end outside of the model's tasks".to_owned())
        }
        Op::Lock { kind, .. } if atomic && kind.sleeps() => {
            Some("it may sleep here, where interrupts are off".to_owned())
        }
        Op::Choose { .. } | Op::ChooseBit { .. } if own => {
            Some("a choice of any way belongs to the model; real code takes one".to_owned())
        }
        Op::Prim { prim, args, .. } => primitive(prim, args, place),
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
        | Op::Halt => None,
    }
}

fn primitive(prim: Prim, args: [Operand; 4], place: Where) -> Option<String> {
    let atomic = place.atomic;
    let why = match does(prim) {
        Err(why) | Ok(Does::KernelsNote(why)) => why,
        Ok(Does::WriteBack) if !place.reclaim => {
            "it writes back outside of a reclaim: the helper module does so for a reclaim only, whose pauses and bounds it keeps, \
             and which it can say it of"
        }
        Ok(Does::Call) if args[3] == Operand::Const(0) => {
            "a call that is not waited for: the helper module waits for every call, since it must say what was flushed"
        }
        Ok(Does::Call | Does::Wait) if atomic => {
            "it waits for other pCPUs here, where interrupts are off: two that do so wait for each other for ever"
        }
        Ok(Does::AllocMask) if atomic => "it may sleep here, where interrupts are off",
        Ok(
            Does::WriteBack
            | Does::Nothing
            | Does::Call
            | Does::Wait
            | Does::AllocMask
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
