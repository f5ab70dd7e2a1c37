//! Litmus tests, scenarios, guest access patterns and trace import.
#![forbid(unsafe_code)]

pub mod assume;
pub mod check;
mod edit;
pub mod guest;
pub mod include;
pub mod litmus;
pub mod mutate;
mod near;
pub mod scenario;
pub mod schedule;
pub mod sites;
pub mod validate;

pub use near::nearest;
