//! The software side: pCPUs, vCPUs, VMs, IPIs and locks as one machine, and the kernels and policies that run
//! on it as text.
//!
//! *Promise*: [`Machine::step`] is the only step function. The explorer and the timed run call the same code; they
//! differ in who is asked for the next step and in what stands behind [`memory::Memory`].
#![forbid(unsafe_code)]

mod buffer;
mod context;
pub mod explore;
pub mod export;
pub mod firmware;
mod ground;
mod initial;
pub mod label;
pub mod machine;
pub mod memory;
mod objects;
mod partial_order;
mod run;
mod schedule;
pub mod spec;
pub mod story;
mod switches;
pub mod symmetry;
pub mod text;
pub mod timed;
pub mod twin;
pub mod walk;

pub use machine::{Machine, MemoryKind, Owner};
pub use run::Stepped;
pub use sim_explore;
pub use svm_lang as lang;
