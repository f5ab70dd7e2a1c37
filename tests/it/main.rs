//! Tests of the built program: what it prints, how it ends, and that no input makes it panic.

mod bad_input;
mod checks;
mod docs;
mod goldens;
#[cfg(target_os = "linux")]
mod memory;
mod module;
mod names;
mod native;
mod output;
mod program;
mod questions;
mod second_opinion;
mod sites;
mod timed;
mod untimed;
#[path = "../../benches/untimed/mod.rs"]
mod untimed_reference;
mod verdicts;
