//! Exploration of every interleaving, breadth-first by levels.
#![forbid(unsafe_code)]
