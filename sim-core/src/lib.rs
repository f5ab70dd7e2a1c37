//! The engine: slots laid out, choice, random streams, schedules and statistics. It knows no caches.
//!
//! *Promise*: nothing here reads a clock, the environment or a hash map's order.
#![forbid(unsafe_code)]

pub mod choice;
pub mod histogram;
pub mod layout;
pub mod queue;
pub mod random;

pub use sim_state as state;
