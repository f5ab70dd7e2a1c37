//! A trace too long for memory: each player reads the file piece by piece, and opens it again at the end.
//!
//! *Promise*: memory is constant (one piece of text and its accesses, and the map of pages), and the accesses
//! are those that the same trace held in memory would give. The file was read through once before, so an error
//! now means that it changed; the player then repeats its last piece and says so in [`StreamedCursor::fault`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::TraceError;
use super::input::TraceInput;
use super::trace::{TraceOptions, TraceReader, TraceStats};
use super::{GuestAccess, words};

/// A file that holds a trace, checked by one pass.
#[derive(Debug)]
pub struct StreamedTrace {
    path: PathBuf,
    options: TraceOptions,
    stats: TraceStats,
}

impl StreamedTrace {
    pub(super) fn new(path: PathBuf, options: TraceOptions, stats: TraceStats) -> StreamedTrace {
        StreamedTrace { path, options, stats }
    }

    /// What one pass holds.
    #[must_use]
    pub fn stats(&self) -> &TraceStats {
        &self.stats
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> Result<TraceReader, TraceError> {
        Ok(TraceReader::new(TraceInput::open(&self.path)?, self.options))
    }
}

/// One player of a [`StreamedTrace`].
#[derive(Debug)]
pub struct StreamedCursor {
    trace: Arc<StreamedTrace>,
    reader: Option<TraceReader>,
    /// The accesses of the piece being played.
    words: Vec<u32>,
    at: usize,
    first_line: u32,
    /// How often the file was opened.
    passes: u64,
    fault: Option<TraceError>,
}

impl StreamedCursor {
    /// A player at the beginning, whose line 0 is guest line `first_line`. The file is opened at the first access.
    #[must_use]
    pub fn new(trace: Arc<StreamedTrace>, first_line: u32) -> StreamedCursor {
        StreamedCursor { trace, reader: None, words: Vec::new(), at: 0, first_line, passes: 0, fault: None }
    }

    /// The next access; after the last comes the first again.
    #[inline]
    pub fn next_access(&mut self) -> GuestAccess {
        if self.at >= self.words.len() {
            self.refill();
        }
        let access = words::take(&self.words, &mut self.at);
        GuestAccess { line: access.line.wrapping_add(self.first_line), ..access }
    }

    /// How often the trace began again.
    #[must_use]
    pub fn loops(&self) -> u64 {
        self.passes.saturating_sub(1)
    }

    /// What went wrong since the trace was loaded, if anything; what was played after that is not the trace.
    #[must_use]
    pub fn fault(&self) -> Option<&TraceError> {
        self.fault.as_ref()
    }

    #[cold]
    fn refill(&mut self) {
        self.at = 0;
        if self.fault.is_some() {
            return;
        }
        let mut next = Vec::with_capacity(self.words.capacity());
        match self.read_piece(&mut next) {
            Ok(()) => self.words = next,
            Err(error) => {
                self.fault = Some(error);
                if self.words.is_empty() {
                    words::push(&mut self.words, GuestAccess { line: 0, write: false, instructions: 1 });
                }
            }
        }
    }

    /// Reads until there is an access.
    fn read_piece(&mut self, words: &mut Vec<u32>) -> Result<(), TraceError> {
        while words.is_empty() {
            let reader = match &mut self.reader {
                Some(reader) => reader,
                none => {
                    self.passes += 1;
                    none.insert(self.trace.open()?)
                }
            };
            if !reader.read_some(words)? {
                self.reader = None;
            }
        }
        Ok(())
    }
}
