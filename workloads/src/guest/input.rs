//! Opens a trace: plain, gzip or zstd, told apart by the first bytes, from a file or from standard input.
//!
//! *Promise*: data that ends in the middle is told from data that is damaged; several gzip members or zstd
//! frames after one another are one text; checksums are verified.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::error::TraceError;

const BUFFER: usize = 1 << 16;
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X'];
const BZIP2: &[u8] = b"BZh";

/// The bytes as they are stored, which remember whether someone asked for more than there is.
struct Stored {
    bytes: BufReader<Box<dyn Read + Send>>,
    asked_past_end: bool,
}

impl Read for Stored {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read(into)?;
        self.asked_past_end |= count == 0 && !into.is_empty();
        Ok(count)
    }
}

impl BufRead for Stored {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let bytes = self.bytes.fill_buf()?;
        self.asked_past_end |= bytes.is_empty();
        Ok(bytes)
    }

    fn consume(&mut self, count: usize) {
        self.bytes.consume(count);
    }
}

/// zstd frames, one after the other.
struct ZstdFrames {
    stored: Stored,
    decoder: Box<FrameDecoder>,
}

impl ZstdFrames {
    /// Begins the next frame; false at the end of the data.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            if self.stored.bytes.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.init(&mut self.stored) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    if io::copy(&mut (&mut self.stored).take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

impl Read for ZstdFrames {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            let count = self.decoder.read(into)?;
            if count > 0 {
                return Ok(count);
            }
            if self.decoder.is_finished() {
                let stored = self.decoder.get_checksum_from_data();
                if stored.is_some() && stored != self.decoder.get_calculated_checksum() {
                    return Err(io::Error::other("the checksum does not match"));
                }
                if !self.next_frame()? {
                    return Ok(0);
                }
            }
            let strategy = BlockDecodingStrategy::UptoBytes(into.len());
            self.decoder.decode_blocks(&mut self.stored, strategy).map_err(io::Error::other)?;
        }
    }
}

enum Bytes {
    Plain(Stored),
    Gzip(MultiGzDecoder<Stored>),
    Zstd(ZstdFrames),
}

/// The text of a trace, unpacked as it is read.
pub struct TraceInput {
    name: String,
    bytes: Bytes,
}

impl fmt::Debug for TraceInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceInput").field("name", &self.name).finish_non_exhaustive()
    }
}

impl TraceInput {
    /// Opens a file.
    ///
    /// # Errors
    /// The file cannot be opened or begun, or it is packed in a way that is not read here.
    pub fn open(path: &Path) -> Result<TraceInput, TraceError> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| TraceError::Open {
            name: name.clone(),
            reason: error.to_string(),
            hint: hint(error.kind()),
        })?;
        TraceInput::from_reader(name, Box::new(file))
    }

    /// Takes standard input.
    ///
    /// # Errors
    /// As [`TraceInput::open`].
    pub fn standard_input() -> Result<TraceInput, TraceError> {
        TraceInput::from_reader("standard input".to_owned(), Box::new(io::stdin()))
    }

    /// Takes any bytes; `name` is what messages call them.
    ///
    /// # Errors
    /// As [`TraceInput::open`].
    pub fn from_reader(name: String, mut bytes: Box<dyn Read + Send>) -> Result<TraceInput, TraceError> {
        let mut magic = Vec::with_capacity(4);
        if let Err(error) = (&mut bytes).take(4).read_to_end(&mut magic) {
            return Err(TraceError::Read { name, reason: error.to_string(), hint: hint(error.kind()) });
        }
        let unsupported = |format, unpack| TraceError::Unsupported { name: name.clone(), format, unpack };
        if magic == XZ {
            return Err(unsupported("xz", "xz -dk FILE"));
        }
        if magic.starts_with(BZIP2) {
            return Err(unsupported("bzip2", "bzip2 -dk FILE"));
        }
        let gzip = magic.starts_with(GZIP);
        let zstd = magic == ZSTD || is_skippable_frame(&magic);
        let all: Box<dyn Read + Send> = Box::new(Cursor::new(magic).chain(bytes));
        let stored = Stored { bytes: BufReader::with_capacity(BUFFER, all), asked_past_end: false };
        let bytes = if gzip {
            Bytes::Gzip(MultiGzDecoder::new(stored))
        } else if zstd {
            Bytes::Zstd(ZstdFrames { stored, decoder: Box::new(FrameDecoder::new()) })
        } else {
            Bytes::Plain(stored)
        };
        Ok(TraceInput { name, bytes })
    }

    /// What messages call this trace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads text into `into`; 0 is the end.
    ///
    /// # Errors
    /// Reading fails, or the packed data is cut off or damaged; `accesses` is what the message says was read.
    pub fn read(&mut self, into: &mut [u8], accesses: u64) -> Result<usize, TraceError> {
        loop {
            let result = match &mut self.bytes {
                Bytes::Plain(stored) => stored.read(into),
                Bytes::Gzip(decoder) => decoder.read(into),
                Bytes::Zstd(frames) => frames.read(into),
            };
            match result {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(&error, accesses)),
            }
        }
    }

    fn failed(&self, error: &io::Error, accesses: u64) -> TraceError {
        let name = self.name.clone();
        let reason = error.to_string();
        let (format, stored) = match &self.bytes {
            Bytes::Plain(_) => return TraceError::Read { name, reason, hint: hint(error.kind()) },
            Bytes::Gzip(decoder) => ("gzip", decoder.get_ref()),
            Bytes::Zstd(frames) => ("zstd", &frames.stored),
        };
        // An error of the system below, not of the packed data.
        if error.raw_os_error().is_some() {
            return TraceError::Read { name, reason, hint: hint(error.kind()) };
        }
        if stored.asked_past_end {
            return TraceError::Truncated { name, format, accesses };
        }
        TraceError::Corrupt { name, format, accesses, reason }
    }
}

/// zstd frames without content, which some tools put first.
fn is_skippable_frame(magic: &[u8]) -> bool {
    matches!(magic, [0x50..=0x5f, 0x2a, 0x4d, 0x18])
}

fn hint(kind: io::ErrorKind) -> &'static str {
    if kind == io::ErrorKind::NotFound {
        "check the name (a relative one starts at the file that names it)"
    } else if kind == io::ErrorKind::PermissionDenied {
        "allow reading it with `chmod u+r`"
    } else if kind == io::ErrorKind::IsADirectory {
        "it is a directory; name a file in it"
    } else {
        "check that the file can be read with `head -c 100`"
    }
}
