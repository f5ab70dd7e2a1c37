//! A C subset compiled to policy programs, with errors that point at the source.
#![forbid(unsafe_code)]
