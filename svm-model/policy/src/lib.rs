//! The policy core: a small program form and its stepper over slots.
#![forbid(unsafe_code)]
