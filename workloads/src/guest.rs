//! How guests access memory: traces of real programs, and patterns made from integers.
//!
//! *Promise*: what a guest does depends on its description and (seed, actor), never on the policy, the machine it
//! is simulated on, or the host; no float is involved. *Not here*: where guest frames lie in host memory.
//!
//! A [`GuestSpec`] is what a scenario file says. Loading it gives a [`Guest`], which gives each run one
//! [`GuestSource`] for each vCPU:
//!
//! ```
//! use std::path::Path;
//! use workloads::guest::{GuestSpec, Sharing, TraceSpec};
//!
//! let builtin = Some("sqlite3-insert-select".to_owned());
//! let spec = GuestSpec::Trace(TraceSpec { file: None, builtin, max_pages: 4096, sharing: Sharing::Private });
//! let guest = spec.load(Path::new("."), 2)?;
//! let mut sources = guest.sources(1, 0);
//! let first = sources[0].next_access();
//! let other = sources[1].next_access();
//! assert_eq!(first.line + guest.pages_of_one() * 64, other.line);
//! # Ok::<(), workloads::guest::GuestError>(())
//! ```

pub mod builtin;
mod compact;
mod error;
mod input;
pub mod lackey;
mod loaded;
pub mod pages;
pub mod pattern;
pub mod random;
mod source;
mod spec;
mod streamed;
mod trace;
mod words;
pub mod zipf;

pub use compact::{CompactCursor, CompactTrace};
pub use error::{CAPTURE_COMMAND, GuestError, Malformed, TraceError};
pub use input::TraceInput;
pub use loaded::Guest;
pub use source::GuestSource;
pub use spec::{
    CHASE_PAGES_MAX, ChaseSpec, GuestSpec, INSTRUCTIONS_MAX, PingPongSpec, Sharing, StreamSpec, TraceSpec,
    UniformSpec, ZipfSpec,
};
pub use streamed::{StreamedCursor, StreamedTrace};
pub use trace::{Trace, TraceOptions, TraceStats};

/// Lines of 64 bytes in a page of 4 KiB.
pub const LINES_PER_PAGE: u32 = 64;
/// Pages that one vCPU may access at most: 16 GiB.
pub const PAGES_MAX: u32 = 1 << 22;
/// Pages that a VM may access at most: as many as 32-bit line numbers can name.
pub const GUEST_PAGES_MAX: u32 = 1 << 26;

/// One access of a guest to one line.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct GuestAccess {
    /// The guest line: guest frame number * 64 + line within the page. Frames are dense, from 0.
    pub line: u32,
    /// Whether it writes.
    pub write: bool,
    /// Instructions executed since the previous access, the accessing one included.
    pub instructions: u32,
}
