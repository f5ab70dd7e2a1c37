//! The command line of sevsim.
fn main() {}
