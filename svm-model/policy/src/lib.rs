//! The policy core: a small flat program form ([`Op`]) and its stepper ([`step()`]) over a [`Platform`].
//!
//! Kernel paths, policies and the bodies of litmus tests are all programs of this form. One call of [`step()`]
//! does at most one access to shared state, so whatever may happen between two accesses can happen between
//! two calls. What touches only the context's own registers costs no step.
//!
//! A context *rests* just before an access to shared state, before a choice, and before it closes a window
//! (`local_irq_disable`, `preempt_disable`): there, and only there, may others run.
//!
//! *Promise*: `no_std`, no allocation, no unsafe. The same stepper runs in the explorer, in the timed run and
//! on hardware; only the [`Platform`] differs.
#![no_std]
#![forbid(unsafe_code)]

mod command;
mod op;
mod step;

pub use command::Command;
pub use op::{
    BinOp, Expr, Lock, Op, Operand, Pc, Place, Prim, Reg, RmwOp, Scope, Shared, UnOp, VarId, Window,
};
pub use step::{Answer, Context, LockEvent, Outcome, Platform, REGS, settle, step};
