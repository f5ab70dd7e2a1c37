//! The engine: time, event queue, choice, schedules and statistics.
#![forbid(unsafe_code)]
