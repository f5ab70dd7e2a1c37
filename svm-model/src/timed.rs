//! The timed run: the same machine over the timed caches, earliest event first, in integer cycles.
//!
//! *Promise*: total order (time, agent, the agent's own count); equal inputs and seed give equal results on any
//! host. The engine decides when; what a step does is decided by [`crate::Machine::step`] alone.

mod accept;
mod balance;
mod cost;
mod device;
mod engine;
mod guest;
mod locks;
mod lost;
mod memory;
mod plan;
mod reclaim;
mod replay;
mod sched;
mod stats;
mod store;

pub use accept::{Rejected, accept};
pub use engine::Run;
pub use lost::{Cause, Lost, Met, Ran, Victim};
pub use memory::TimedMemory;
pub use plan::{
    Access, DeviceLoad, Finished, GuestStream, Pace, Placement, Plan, Point, Recorded, Scheduler, TimedError,
};
pub use replay::replay_timed;
pub use stats::{Cost, Dram, Newer, Outcome};
pub use store::Watched;
