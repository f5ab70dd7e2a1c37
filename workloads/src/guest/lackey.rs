//! The text that valgrind's lackey tool prints, parsed byte by byte as it streams in.
//!
//! *Promise*: memory is constant (one unfinished line of at most [`LINE_KEPT`] bytes), any bytes at all are
//! accepted, each line is counted once, and how the text is cut into chunks makes no difference.

use super::error::Malformed;

/// How much of an unfinished line is kept; every line with a meaning is shorter.
pub const LINE_KEPT: usize = 256;
/// How much of the first malformed line is kept for the message.
pub const TEXT_KEPT: usize = 80;
/// The largest access accepted; lackey itself prints at most 512 bytes.
pub const SIZE_MAX: u32 = 4096;

/// What a line of the trace says happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordKind {
    /// `I`: an instruction was fetched.
    Instruction,
    /// `L`: data was read.
    Load,
    /// `S`: data was written.
    Store,
    /// `M`: data was read and then written.
    Modify,
}

/// One line of the trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// What happened.
    pub kind: RecordKind,
    /// The first byte's virtual address.
    pub address: u64,
    /// How many bytes; 1 to [`SIZE_MAX`], and not past the end of the address space.
    pub size: u32,
}

/// How many lines of each kind the text had.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct LineCounts {
    /// `I` lines.
    pub instructions: u64,
    /// `L` lines.
    pub loads: u64,
    /// `S` lines.
    pub stores: u64,
    /// `M` lines.
    pub modifies: u64,
    /// Valgrind's own lines (`==12==`, `--12--`, `**12**`) and blank ones.
    pub noise: u64,
    /// Everything else: output of the program itself, or damage.
    pub malformed: u64,
    /// The first of the malformed lines.
    pub first_malformed: Option<Malformed>,
}

impl LineCounts {
    /// All lines.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.instructions + self.loads + self.stores + self.modifies + self.noise + self.malformed
    }
}

/// The parser: text goes in by chunks, records come out through a closure.
#[derive(Clone, Default, Debug)]
pub struct LackeyParser {
    /// The beginning of the last line, which had no end yet.
    unfinished: Vec<u8>,
    counts: LineCounts,
}

impl LackeyParser {
    /// A parser at the beginning of a text.
    #[must_use]
    pub fn new() -> LackeyParser {
        LackeyParser::default()
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> &LineCounts {
        &self.counts
    }

    /// Takes the next piece of the text, of any length, and gives `sink` the records that it completes.
    pub fn feed(&mut self, mut chunk: &[u8], sink: &mut impl FnMut(Record)) {
        if !self.unfinished.is_empty() {
            let Some(end) = chunk.iter().position(|&b| b == b'\n') else {
                self.keep(chunk);
                return;
            };
            self.keep(&chunk[..end]);
            self.finish(sink);
            chunk = &chunk[end + 1..];
        }
        let whole = chunk.iter().rposition(|&b| b == b'\n').map_or(0, |last| last + 1);
        self.lines(&chunk[..whole], sink);
        self.keep(&chunk[whole..]);
    }

    /// Ends the text: a last line without a line feed counts as a line.
    pub fn finish(&mut self, sink: &mut impl FnMut(Record)) {
        if self.unfinished.is_empty() {
            return;
        }
        let mut line = std::mem::take(&mut self.unfinished);
        line.push(b'\n');
        self.lines(&line, sink);
        line.clear();
        self.unfinished = line;
    }

    fn keep(&mut self, tail: &[u8]) {
        let room = LINE_KEPT.saturating_sub(self.unfinished.len());
        self.unfinished.extend_from_slice(&tail[..tail.len().min(room)]);
    }

    /// Parses whole lines: `text` is empty or ends with a line feed.
    fn lines(&mut self, mut text: &[u8], sink: &mut impl FnMut(Record)) {
        while !text.is_empty() {
            if let Some((record, used)) = record(text) {
                match record.kind {
                    RecordKind::Instruction => self.counts.instructions += 1,
                    RecordKind::Load => self.counts.loads += 1,
                    RecordKind::Store => self.counts.stores += 1,
                    RecordKind::Modify => self.counts.modifies += 1,
                }
                sink(record);
                text = &text[used..];
            } else {
                let end = text.iter().position(|&b| b == b'\n').unwrap_or(text.len() - 1);
                self.other(&text[..end]);
                text = &text[end + 1..];
            }
        }
    }

    #[cold]
    fn other(&mut self, line: &[u8]) {
        if is_noise(line) {
            self.counts.noise += 1;
            return;
        }
        if self.counts.first_malformed.is_none() {
            let kept = &line[..line.len().min(TEXT_KEPT)];
            let text = String::from_utf8_lossy(kept).trim_end().to_owned();
            self.counts.first_malformed = Some(Malformed { line: self.counts.total() + 1, text });
        }
        self.counts.malformed += 1;
    }
}

/// Whether a line is blank or valgrind's own: two marks, the process number, the same two marks.
fn is_noise(line: &[u8]) -> bool {
    if line.iter().all(u8::is_ascii_whitespace) {
        // The part of an overlong line that is not kept is not known to be blank.
        return line.len() < LINE_KEPT;
    }
    let Some(mark) = [b"==", b"--", b"**"].into_iter().find(|&mark| line.starts_with(mark)) else {
        return false;
    };
    let digits = line[2..].iter().take_while(|b| b.is_ascii_digit()).count();
    (1..=20).contains(&digits) && line[2 + digits..].starts_with(mark)
}

/// The value of each byte as a hexadecimal digit, or 16 and more if it is none.
const HEX: [u8; 256] = {
    let mut table = [0xff; 256];
    let mut i = 0;
    while i < 10 {
        table[b'0' as usize + i] = i as u8;
        i += 1;
    }
    i = 0;
    while i < 6 {
        table[b'a' as usize + i] = 10 + i as u8;
        table[b'A' as usize + i] = 10 + i as u8;
        i += 1;
    }
    table
};

/// Parses the line at the beginning of `text` and says how many bytes it took; `None` if it is no record.
#[inline]
fn record(text: &[u8]) -> Option<(Record, usize)> {
    let (head, rest) = text.split_first_chunk::<3>()?;
    let kind = match head {
        b"I  " => RecordKind::Instruction,
        b" L " => RecordKind::Load,
        b" S " => RecordKind::Store,
        b" M " => RecordKind::Modify,
        _ => return None,
    };
    let mut address = 0u64;
    let mut digits = 0;
    loop {
        let byte = *rest.get(digits)?;
        let value = HEX[usize::from(byte)];
        if value > 15 {
            if byte != b',' || digits == 0 {
                return None;
            }
            break;
        }
        digits += 1;
        if digits > 16 {
            return None;
        }
        address = address << 4 | u64::from(value);
    }
    let mut at = digits + 1;
    let mut size = 0u32;
    loop {
        let byte = *rest.get(at)?;
        at += 1;
        match byte {
            b'0'..=b'9' => {
                size = size * 10 + u32::from(byte - b'0');
                if size > SIZE_MAX || at - digits > 6 {
                    return None;
                }
            }
            b'\n' => break,
            b'\r' if rest.get(at) == Some(&b'\n') => {
                at += 1;
                break;
            }
            _ => return None,
        }
    }
    if size == 0 {
        return None;
    }
    address.checked_add(u64::from(size) - 1)?;
    Some((Record { kind, address, size }, 3 + at))
}
