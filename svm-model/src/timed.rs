//! The timed run: the same machine over the timed caches, earliest event first, in integer cycles.
//!
//! *Promise*: total order (time, agent, the agent's own count); equal inputs and seed give equal results on any
//! host. The engine decides when; what a step does is decided by [`crate::Machine::step`] alone.

mod accept;
mod engine;
mod memory;
mod stats;
mod store;

pub use accept::{Rejected, accept};
pub use engine::{Access, Finished, GuestStream, Plan, Recorded, Run, TimedError, replay_timed};
pub use memory::TimedMemory;
pub use stats::{Cost, Outcome};
pub use store::Watched;
