//! Tagged cache lines, the cache hierarchy, flush instructions and the oracle.
#![forbid(unsafe_code)]
