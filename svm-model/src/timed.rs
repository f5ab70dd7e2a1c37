//! The timed run: the same machine over the timed caches, earliest event first, in integer cycles.
//!
//! *Promise*: total order (time, agent, the agent's own count); equal inputs and seed give equal results on any
//! host. The engine decides when; what a step does is decided by [`crate::Machine::step`] alone.

mod accept;
mod cost;
mod engine;
mod guest;
mod locks;
mod memory;
mod plan;
mod reclaim;
mod replay;
mod stats;
mod store;

pub use accept::{Rejected, accept};
pub use engine::Run;
pub use memory::TimedMemory;
pub use plan::{Access, Finished, GuestStream, Pace, Plan, Recorded, TimedError};
pub use replay::replay_timed;
pub use stats::{Cost, Outcome};
pub use store::Watched;
