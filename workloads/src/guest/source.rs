//! Where a vCPU's accesses come from, behind one enum: no dynamic dispatch in the hot path.

use super::GuestAccess;
use super::compact::CompactCursor;
use super::error::TraceError;
use super::pattern::{Chase, PingPong, Streaming, Uniform, Zipf};
use super::streamed::StreamedCursor;

/// A source of accesses that never ends.
#[derive(Debug)]
pub enum GuestSource {
    /// A trace held in memory.
    Compact(CompactCursor),
    /// A trace read as it is played.
    Streamed(Box<StreamedCursor>),
    /// Every line equally likely.
    Uniform(Uniform),
    /// Pages by Zipf's law.
    Zipf(Zipf),
    /// Lines one after the other.
    Stream(Streaming),
    /// A chain of pointers.
    Chase(Chase),
    /// A few lines that all vCPUs contend for.
    PingPong(PingPong),
}

impl GuestSource {
    /// The next access.
    #[inline]
    pub fn next_access(&mut self) -> GuestAccess {
        match self {
            GuestSource::Compact(source) => source.next_access(),
            GuestSource::Streamed(source) => source.next_access(),
            GuestSource::Uniform(source) => source.next_access(),
            GuestSource::Zipf(source) => source.next_access(),
            GuestSource::Stream(source) => source.next_access(),
            GuestSource::Chase(source) => source.next_access(),
            GuestSource::PingPong(source) => source.next_access(),
        }
    }

    /// Fills `into` with the next accesses: the same as asking one by one, but decided once which source it is.
    pub fn fill(&mut self, into: &mut [GuestAccess]) {
        match self {
            GuestSource::Compact(source) => source.fill(into),
            GuestSource::Streamed(source) => into.fill_with(|| source.next_access()),
            GuestSource::Uniform(source) => into.fill_with(|| source.next_access()),
            GuestSource::Zipf(source) => into.fill_with(|| source.next_access()),
            GuestSource::Stream(source) => into.fill_with(|| source.next_access()),
            GuestSource::Chase(source) => into.fill_with(|| source.next_access()),
            GuestSource::PingPong(source) => into.fill_with(|| source.next_access()),
        }
    }

    /// Moves on by `count` accesses, by taking them.
    pub fn skip(&mut self, count: u64) {
        for _ in 0..count {
            self.next_access();
        }
    }

    /// How often it came to its end and began again; 0 for the patterns that have no end.
    #[must_use]
    pub fn loops(&self) -> u64 {
        match self {
            GuestSource::Compact(source) => source.loops(),
            GuestSource::Streamed(source) => source.loops(),
            GuestSource::Uniform(_) | GuestSource::Zipf(_) => 0,
            GuestSource::Stream(source) => source.loops(),
            GuestSource::Chase(source) => source.loops(),
            GuestSource::PingPong(source) => source.loops(),
        }
    }

    /// What went wrong while the guest ran: its file changed or went away. A run must look at its end, and fail.
    #[must_use]
    pub fn fault(&self) -> Option<&TraceError> {
        match self {
            GuestSource::Streamed(source) => source.fault(),
            GuestSource::Compact(_)
            | GuestSource::Uniform(_)
            | GuestSource::Zipf(_)
            | GuestSource::Stream(_)
            | GuestSource::Chase(_)
            | GuestSource::PingPong(_) => None,
        }
    }
}
