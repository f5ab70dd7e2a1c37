//! Litmus tests, scenarios, guest access patterns and trace import.
#![forbid(unsafe_code)]
