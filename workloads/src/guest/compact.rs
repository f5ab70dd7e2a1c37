//! A trace held in memory as packed words, decoded once and shared by the vCPUs that play it.

use std::sync::Arc;

use super::trace::TraceStats;
use super::{GuestAccess, words};

/// The accesses of one pass, packed.
#[derive(Debug)]
pub struct CompactTrace {
    /// Never empty.
    words: Vec<u32>,
    stats: TraceStats,
}

impl CompactTrace {
    /// `words` must hold at least one access.
    pub(super) fn new(words: Vec<u32>, stats: TraceStats) -> CompactTrace {
        assert!(!words.is_empty(), "a trace without accesses is an error of its reader");
        CompactTrace { words, stats }
    }

    /// What one pass holds.
    #[must_use]
    pub fn stats(&self) -> &TraceStats {
        &self.stats
    }

    /// How much memory the accesses take, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.words.len() * size_of::<u32>()
    }
}

/// One player of a [`CompactTrace`]: a place in it, and where in guest memory it plays.
#[derive(Clone, Debug)]
pub struct CompactCursor {
    trace: Arc<CompactTrace>,
    at: usize,
    first_line: u32,
    loops: u64,
}

impl CompactCursor {
    /// A player at the beginning, whose line 0 is guest line `first_line`.
    #[must_use]
    pub fn new(trace: Arc<CompactTrace>, first_line: u32) -> CompactCursor {
        CompactCursor { trace, at: 0, first_line, loops: 0 }
    }

    /// The next access; after the last comes the first again.
    #[inline]
    pub fn next_access(&mut self) -> GuestAccess {
        if self.at >= self.trace.words.len() {
            self.at = 0;
            self.loops += 1;
        }
        let access = words::take(&self.trace.words, &mut self.at);
        GuestAccess { line: access.line + self.first_line, ..access }
    }

    /// Fills `into` with the next accesses.
    pub fn fill(&mut self, into: &mut [GuestAccess]) {
        // The words are borrowed once for all, which the compiler cannot see to be allowed in `next_access`.
        let words = self.trace.words.as_slice();
        let (mut at, mut loops) = (self.at, self.loops);
        for slot in into {
            if at >= words.len() {
                at = 0;
                loops += 1;
            }
            let access = words::take(words, &mut at);
            *slot = GuestAccess { line: access.line + self.first_line, ..access };
        }
        (self.at, self.loops) = (at, loops);
    }

    /// How often the trace began again.
    #[must_use]
    pub fn loops(&self) -> u64 {
        self.loops
    }
}
