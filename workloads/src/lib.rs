//! Litmus tests, scenarios, guest access patterns and trace import.
#![forbid(unsafe_code)]

pub mod check;
pub mod guest;
pub mod include;
pub mod litmus;
pub mod scenario;
