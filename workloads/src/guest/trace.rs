//! A trace as accesses: text in, packed words out; held in memory if it fits, else read again on each pass.

use std::path::Path;
use std::sync::Arc;

use super::compact::CompactTrace;
use super::error::TraceError;
use super::input::TraceInput;
use super::lackey::{LackeyParser, LineCounts, Record, RecordKind};
use super::pages::PageMap;
use super::streamed::StreamedTrace;
use super::words;
use super::{GuestAccess, LINES_PER_PAGE, PAGES_MAX};

/// Bytes of text parsed at a time.
const CHUNK: usize = 1 << 18;
const LINE_BYTES_LOG2: u32 = 6;
const PAGE_BYTES_LOG2: u32 = 12;

/// How a trace is read. What is read (the accesses) depends on `max_pages` only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceOptions {
    /// Guest frames the trace may use; the page after the last takes frame 0 again, and so on round.
    pub max_pages: u32,
    /// Words of 4 bytes up to which a trace is held in memory; a longer file is read again on each pass.
    pub words_max: usize,
}

impl Default for TraceOptions {
    fn default() -> TraceOptions {
        TraceOptions { max_pages: PAGES_MAX, words_max: 1 << 26 }
    }
}

/// What one pass over a trace holds.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct TraceStats {
    /// Accesses to lines, after M became two and straddling ones were split.
    pub accesses: u64,
    /// How many of them write.
    pub writes: u64,
    /// Accesses of the program that touched more than one line.
    pub straddling: u64,
    /// Different virtual pages touched.
    pub pages_touched: u64,
    /// Guest frames in use: the same, unless `max_pages` is less.
    pub pages: u32,
    /// The lines of the text.
    pub lines: LineCounts,
}

/// A trace, checked by one whole pass and ready to be played any number of times.
#[derive(Clone, Debug)]
pub enum Trace {
    /// Held in memory, decoded.
    Compact(Arc<CompactTrace>),
    /// Too long for that: each player reads the file.
    Streamed(Arc<StreamedTrace>),
}

impl Trace {
    /// Loads a trace from a file, or from standard input if the path is `-`.
    ///
    /// # Errors
    /// It cannot be read, it is cut off or damaged, it holds no data access; or standard input holds more than
    /// `words_max` words.
    pub fn load(path: &Path, options: TraceOptions) -> Result<Trace, TraceError> {
        if path.as_os_str() == "-" {
            return Trace::from_input(TraceInput::standard_input()?, options);
        }
        let mut reader = TraceReader::new(TraceInput::open(path)?, options);
        if let Some(words) = reader.read_all(options.words_max)? {
            return Ok(Trace::Compact(Arc::new(CompactTrace::new(words, reader.stats()))));
        }
        let stats = reader.stats();
        Ok(Trace::Streamed(Arc::new(StreamedTrace::new(path.to_owned(), options, stats))))
    }

    /// Loads a trace that can be read only once.
    ///
    /// # Errors
    /// As [`Trace::load`].
    pub fn from_input(input: TraceInput, options: TraceOptions) -> Result<Trace, TraceError> {
        let mut reader = TraceReader::new(input, options);
        match reader.read_all_or_stop(options.words_max)? {
            Some(words) => Ok(Trace::Compact(Arc::new(CompactTrace::new(words, reader.stats())))),
            None => Err(TraceError::TooLongForInput {
                limit: options.words_max,
                accesses: reader.assembler.accesses,
            }),
        }
    }

    /// What one pass holds.
    #[must_use]
    pub fn stats(&self) -> &TraceStats {
        match self {
            Trace::Compact(trace) => trace.stats(),
            Trace::Streamed(trace) => trace.stats(),
        }
    }
}

/// Reads a trace once, as packed accesses.
#[derive(Debug)]
pub(super) struct TraceReader {
    input: TraceInput,
    parser: LackeyParser,
    assembler: Assembler,
    chunk: Vec<u8>,
}

impl TraceReader {
    pub(super) fn new(input: TraceInput, options: TraceOptions) -> TraceReader {
        TraceReader {
            input,
            parser: LackeyParser::new(),
            assembler: Assembler::new(options.max_pages),
            chunk: vec![0; CHUNK],
        }
    }

    /// Appends the accesses of the next piece of text to `words`; false at the end.
    pub(super) fn read_some(&mut self, words: &mut Vec<u32>) -> Result<bool, TraceError> {
        let TraceReader { input, parser, assembler, chunk } = self;
        let count = input.read(chunk, assembler.accesses)?;
        let mut sink = |record| assembler.take(record, words);
        if count > 0 {
            parser.feed(&chunk[..count], &mut sink);
            return Ok(true);
        }
        parser.finish(&mut sink);
        if assembler.accesses == 0 {
            return Err(empty(input.name(), parser.counts()));
        }
        Ok(false)
    }

    /// Reads to the end; `None` if that is more than `words_max` words, after a whole pass all the same.
    fn read_all(&mut self, words_max: usize) -> Result<Option<Vec<u32>>, TraceError> {
        let Some(words) = self.read_all_or_stop(words_max)? else {
            let mut scratch = Vec::new();
            while self.read_some(&mut scratch)? {
                scratch.clear();
            }
            return Ok(None);
        };
        Ok(Some(words))
    }

    /// Reads to the end, or until there are more than `words_max` words.
    fn read_all_or_stop(&mut self, words_max: usize) -> Result<Option<Vec<u32>>, TraceError> {
        let mut words = Vec::new();
        loop {
            let more = self.read_some(&mut words)?;
            if words.len() > words_max {
                return Ok(None);
            }
            if !more {
                words.shrink_to_fit();
                return Ok(Some(words));
            }
        }
    }

    fn stats(&self) -> TraceStats {
        TraceStats {
            accesses: self.assembler.accesses,
            writes: self.assembler.writes,
            straddling: self.assembler.straddling,
            pages_touched: self.assembler.pages.pages_touched(),
            pages: self.assembler.pages.frames_used(),
            lines: self.parser.counts().clone(),
        }
    }
}

fn empty(name: &str, counts: &LineCounts) -> TraceError {
    let odd = match &counts.first_malformed {
        Some(malformed) => format!("; line {} is {:?}", malformed.line, malformed.text),
        None => String::new(),
    };
    TraceError::Empty { name: name.to_owned(), lines: counts.total(), instructions: counts.instructions, odd }
}

/// Turns records into accesses to guest lines.
#[derive(Debug)]
struct Assembler {
    pages: PageMap,
    /// Instructions since the last access.
    instructions: u32,
    accesses: u64,
    writes: u64,
    straddling: u64,
}

impl Assembler {
    fn new(max_pages: u32) -> Assembler {
        Assembler { pages: PageMap::new(max_pages), instructions: 0, accesses: 0, writes: 0, straddling: 0 }
    }

    fn take(&mut self, record: Record, words: &mut Vec<u32>) {
        match record.kind {
            RecordKind::Instruction => self.instructions = self.instructions.saturating_add(1),
            RecordKind::Load => self.access(record, false, words),
            RecordKind::Store => self.access(record, true, words),
            RecordKind::Modify => {
                self.access(record, false, words);
                self.access(record, true, words);
            }
        }
        let straddles = record.address % 64 + u64::from(record.size) > 64;
        self.straddling += u64::from(straddles && record.kind != RecordKind::Instruction);
    }

    /// One access for each line that the bytes lie in (two if they straddle a border).
    fn access(&mut self, record: Record, write: bool, words: &mut Vec<u32>) {
        let first = record.address >> LINE_BYTES_LOG2;
        let last = (record.address + u64::from(record.size - 1)) >> LINE_BYTES_LOG2;
        for line in first..=last {
            let frame = self.pages.frame(line >> (PAGE_BYTES_LOG2 - LINE_BYTES_LOG2));
            let line = frame * LINES_PER_PAGE + (line % u64::from(LINES_PER_PAGE)) as u32;
            words::push(
                words,
                GuestAccess { line, write, instructions: std::mem::take(&mut self.instructions) },
            );
            self.accesses += 1;
            self.writes += u64::from(write);
        }
    }
}
