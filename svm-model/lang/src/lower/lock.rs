//! Locks, guards, and the windows that they close.

use svm_policy::{BinOp, Lock, Prim, RmwOp, UnOp, Window};

use super::call::Arg;
use super::{Lower, Lowered, Value};
use crate::Warning;
use crate::ast::{Expr, GuardKind, IntType, LockType, Span, Type};
use crate::builtin::{Act, Irqs};
use crate::diag::Fault;
use crate::ir::{Inst, Slot, V, Val};

/// What a wait gives that a signal ended.
const EINTR: i64 = 4;

/// A lock as it is taken and given back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    kind: Lock,
    slot: Slot,
    irqs: Irqs,
    /// What keeps whether interrupts were off, for [`Irqs::Save`].
    flags: V,
}

impl<'p> Lower<'p, '_, '_> {
    /// Carries a built-in call on locks, interrupts or preemption out; none if it is another's.
    pub(super) fn lock_act(&mut self, act: Act, args: &[Arg; 4], span: Span) -> Option<Value> {
        let truth = |v: Val| Value::Num(v, Type::Bool);
        Some(match (act, args) {
            (Act::Lock(kind, irqs), [Arg::Lock(slot), flags, ..]) => {
                self.take(Held { kind, slot: *slot, irqs, flags: flags.reg() }, span);
                Value::Nothing
            }
            (Act::Unlock(kind, irqs), [Arg::Lock(slot), flags, ..]) => {
                self.give_back(Held { kind, slot: *slot, irqs, flags: flags.reg() }, span);
                Value::Nothing
            }
            (Act::LockKillable, [Arg::Lock(slot), ..]) => {
                let (signal, lock, after) = (self.new_block(), self.new_block(), self.new_block());
                let result = self.new_reg();
                let comes = self.option(2, span);
                self.branch(comes, signal, lock, signal, span);
                self.set(result, Val::Const(-EINTR), span);
                self.jump(after, lock, span);
                self.take(Held { kind: Lock::Mutex, slot: *slot, irqs: Irqs::Keep, flags: 0 }, span);
                self.set(result, Val::Const(0), span);
                self.jump(after, after, span);
                Value::Num(Val::Reg(result), Type::Int(IntType::Int))
            }
            (Act::TryLock(kind), [Arg::Lock(slot), ..]) => truth(self.try_lock(kind, *slot, span)),
            (Act::IsLocked, [Arg::Lock(slot), ..]) => {
                let held = self.load(*slot, span);
                truth(self.bin(BinOp::Ne, held, Val::Const(0), span))
            }
            (Act::LockInit, _) => Value::Nothing,
            (Act::Reinit, [Arg::Lock(slot), ..]) => {
                self.push(Inst::Store { slot: *slot, src: Val::Const(0) }, span);
                Value::Nothing
            }
            (Act::IrqSave, [flags, ..]) => {
                self.irq_save(flags.reg(), span);
                Value::Nothing
            }
            (Act::IrqRestore, [flags, ..]) => {
                self.irq_restore(flags.reg(), span);
                Value::Nothing
            }
            (Act::Windows(list), _) => {
                for window in list {
                    self.push(Inst::Window(*window), span);
                }
                Value::Nothing
            }
            (Act::AssertIrqs(off), _) => {
                let mut wrong = self.ask(Prim::IrqsDisabled, span);
                if off {
                    wrong = self.un(UnOp::IsZero, wrong, span);
                }
                let args = [wrong, Val::Const(Warning::Irqs.number()), Val::Const(0), Val::Const(0)];
                self.prim(Prim::Warn, args, None, span);
                Value::Nothing
            }
            (Act::Preemptible, _) => {
                let atomic = self.ask(Prim::InAtomic, span);
                let off = self.ask(Prim::IrqsDisabled, span);
                let any = self.bin(BinOp::Or, atomic, off, span);
                truth(self.bin(BinOp::Eq, any, Val::Const(0), span))
            }
            _ => return None,
        })
    }

    fn ask(&mut self, prim: Prim, span: Span) -> Val {
        self.prim(prim, [Val::Const(0); 4], None, span)
    }

    fn take(&mut self, held: Held, span: Span) {
        match held.irqs {
            Irqs::Keep => {}
            Irqs::Off => self.push(Inst::Window(Window::IrqDisable), span),
            Irqs::Save => self.irq_save(held.flags, span),
        }
        if !held.kind.sleeps() {
            self.push(Inst::Window(Window::PreemptDisable), span);
        }
        self.push(Inst::Lock { kind: held.kind, slot: held.slot }, span);
    }

    pub(super) fn give_back(&mut self, held: Held, span: Span) {
        self.push(Inst::Unlock { kind: held.kind, slot: held.slot }, span);
        match held.irqs {
            Irqs::Keep => {}
            Irqs::Off => self.push(Inst::Window(Window::IrqEnable), span),
            Irqs::Save => self.irq_restore(held.flags, span),
        }
        if !held.kind.sleeps() {
            self.push(Inst::Window(Window::PreemptEnable), span);
        }
    }

    /// Takes a lock if it is free, in one step; gives whether it did.
    fn try_lock(&mut self, kind: Lock, slot: Slot, span: Span) -> Val {
        if !kind.sleeps() {
            self.push(Inst::Window(Window::PreemptDisable), span);
        }
        let was = self.new_reg();
        let (src, expected) = (Val::Const(0), Val::Const(0));
        self.push(Inst::Rmw { dst: was, slot, op: RmwOp::TryLock(kind), src, expected }, span);
        let was = Val::Reg(was);
        let took = match kind {
            Lock::Mutex | Lock::Spin | Lock::Write | Lock::DownWrite | Lock::Downgrade => {
                self.bin(BinOp::Eq, was, Val::Const(0), span)
            }
            // Not where a writer waits for the readers, which makes the number odd.
            Lock::Read | Lock::DownRead => {
                let read = self.bin(BinOp::Ge, was, Val::Const(0), span);
                let queued = self.bin(BinOp::And, was, Val::Const(1), span);
                self.bin(BinOp::Gt, read, queued, span)
            }
            Lock::Completion | Lock::CompleteAll => self.bin(BinOp::Ne, was, Val::Const(0), span),
        };
        if !kind.sleeps() {
            let (refused, after) = (self.new_block(), self.new_block());
            self.branch(took, after, refused, refused, span);
            self.push(Inst::Window(Window::PreemptEnable), span);
            self.jump(after, after, span);
        }
        took
    }

    fn irq_save(&mut self, flags: V, span: Span) {
        let off = self.ask(Prim::IrqsDisabled, span);
        self.set(flags, off, span);
        self.push(Inst::Window(Window::IrqDisable), span);
    }

    fn irq_restore(&mut self, flags: V, span: Span) {
        let (on, after) = (self.new_block(), self.new_block());
        self.branch(Val::Reg(flags), after, on, on, span);
        self.push(Inst::Window(Window::IrqEnable), span);
        self.jump(after, after, span);
    }

    /// `guard(kind)(lock);`: holds it until the end of the scope.
    pub(super) fn guard(&mut self, kind: GuardKind, lock: &'p Expr, span: Span) -> Lowered<()> {
        let (ty, kind, irqs) = match kind {
            GuardKind::Mutex => (LockType::Mutex, Lock::Mutex, Irqs::Keep),
            GuardKind::Spin => (LockType::Spin, Lock::Spin, Irqs::Keep),
            GuardKind::SpinIrq => (LockType::Spin, Lock::Spin, Irqs::Off),
            GuardKind::SpinIrqSave => (LockType::Spin, Lock::Spin, Irqs::Save),
            GuardKind::Read => (LockType::Rwlock, Lock::Read, Irqs::Keep),
            GuardKind::Write => (LockType::Rwlock, Lock::Write, Irqs::Keep),
            GuardKind::DownRead => (LockType::Rwsem, Lock::DownRead, Irqs::Keep),
            GuardKind::DownWrite => (LockType::Rwsem, Lock::DownWrite, Irqs::Keep),
        };
        self.by_actor("guard", false, true, span)?;
        let value = self.value(lock)?;
        let slot = match value {
            Value::Lock(slot, found, true) if found == ty => slot,
            Value::Num(..) | Value::Mask(..) | Value::Lock(..) | Value::Func(_) | Value::Nothing => {
                let fault = Fault::at(lock.span, format!("expected a pointer to a `{ty}`"));
                return self.fail(fault.expected(format!("this is {}", super::expr::what(&value))));
            }
        };
        let flags = if irqs == Irqs::Save { self.new_reg() } else { 0 };
        let held = Held { kind, slot: self.keep_slot(slot, span), irqs, flags };
        self.take(held, span);
        if let Some(scope) = self.scopes.last_mut() {
            scope.cleanups.push((held, span));
        }
        Ok(())
    }
}
