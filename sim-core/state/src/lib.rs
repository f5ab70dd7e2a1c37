//! Slots, domains and stores: where the state of a model lives.
#![forbid(unsafe_code)]
