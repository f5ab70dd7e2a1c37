//! Tagged cache lines, the cache hierarchy, flush instructions and the oracle.
#![forbid(unsafe_code)]
pub mod event;
pub mod hierarchy;
pub mod lattice;
pub mod part;
pub mod shadow;
