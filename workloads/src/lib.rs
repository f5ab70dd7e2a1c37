//! Litmus tests, scenarios, guest access patterns and trace import.
#![forbid(unsafe_code)]

pub mod check;
pub mod guest;
pub mod include;
pub mod litmus;
mod near;
pub mod scenario;

pub use near::nearest;
