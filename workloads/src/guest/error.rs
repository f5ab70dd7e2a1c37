//! What can be wrong with a guest's description or its trace, in words that say what to do next.

use thiserror::Error;

/// How one makes a trace; part of several messages.
pub const CAPTURE_COMMAND: &str =
    "valgrind --tool=lackey --trace-mem=yes --log-file=trace.lackey PROGRAM [ARGUMENT]...";

/// The first line of a trace that was neither an access, nor an instruction, nor valgrind's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// Its number in the text, from 1.
    pub line: u64,
    /// Its beginning, at most [`super::lackey::TEXT_KEPT`] bytes.
    pub text: String,
}

/// Why a trace cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum TraceError {
    /// The file cannot be opened.
    #[error("cannot open the trace {name}: {reason}; {hint}")]
    Open {
        /// The trace, as the user named it.
        name: String,
        /// What the system said.
        reason: String,
        /// What to try.
        hint: &'static str,
    },
    /// The file opened, but reading failed.
    #[error("cannot read the trace {name}: {reason}; {hint}")]
    Read {
        /// The trace, as the user named it.
        name: String,
        /// What the system said.
        reason: String,
        /// What to try.
        hint: &'static str,
    },
    /// Compressed data that ends in the middle.
    #[error(
        "the trace {name} is cut off: its {format} data ends in the middle, after {accesses} accesses (an \
         interrupted copy or capture?); check it with `{format} -t`, then copy or capture it again"
    )]
    Truncated {
        /// The trace, as the user named it.
        name: String,
        /// `gzip` or `zstd`.
        format: &'static str,
        /// How many accesses were read before.
        accesses: u64,
    },
    /// Compressed data that is not what it should be.
    #[error(
        "the trace {name} is damaged: its {format} data cannot be decoded after {accesses} accesses ({reason}); \
         check it with `{format} -t`, then copy or capture it again"
    )]
    Corrupt {
        /// The trace, as the user named it.
        name: String,
        /// `gzip` or `zstd`.
        format: &'static str,
        /// How many accesses were read before.
        accesses: u64,
        /// What the decoder said.
        reason: String,
    },
    /// Compressed in a way that is not read here.
    #[error(
        "the trace {name} is compressed with {format}, which is not read here; unpack it (`{unpack}`), or pack \
         it with gzip or zstd"
    )]
    Unsupported {
        /// The trace, as the user named it.
        name: String,
        /// The name of the format.
        format: &'static str,
        /// The command that unpacks it.
        unpack: &'static str,
    },
    /// Text without a single data access.
    #[error(
        "the trace {name} holds no data access ({lines} lines, of them {instructions} instructions{odd}); a \
         trace is made with: {CAPTURE_COMMAND}"
    )]
    Empty {
        /// The trace, as the user named it.
        name: String,
        /// Lines of text in all.
        lines: u64,
        /// Lines that were instructions.
        instructions: u64,
        /// What the first line was that was not understood, ready to print; empty if there was none.
        odd: String,
    },
    /// Standard input is longer than can be kept to be played again.
    #[error(
        "the trace on standard input is longer than {limit} words in memory ({accesses} accesses so far), and \
         standard input cannot be read twice; save it to a file and give the file's name"
    )]
    TooLongForInput {
        /// The limit, in words of 4 bytes.
        limit: usize,
        /// How many accesses were read before.
        accesses: u64,
    },
    /// No built-in trace of that name.
    #[error("there is no built-in trace {name:?}; built in: {known} (for a file, write `file = \"...\"`)")]
    UnknownBuiltin {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
}

/// Why a guest's description cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum GuestError {
    /// Its trace cannot be used.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A number is out of its range.
    #[error("guest {pattern}: {field} = {value} is out of range; it must be {least} to {most}")]
    Range {
        /// The pattern's name in the file.
        pattern: &'static str,
        /// The field's name in the file.
        field: &'static str,
        /// What it says.
        value: u64,
        /// The least that is allowed.
        least: u64,
        /// The most that is allowed.
        most: u64,
    },
    /// Both or neither of `file` and `builtin` are given.
    #[error("guest trace: give either `file = \"PATH\"` or `builtin = \"NAME\"`{both}")]
    TraceName {
        /// `, not both` if both are given.
        both: &'static str,
    },
    /// All vCPUs together need more memory than guest line numbers can name.
    #[error(
        "guest {pattern}: {pages} pages for each of {vcpus} vCPUs are more than {most} in all; use fewer pages \
         or `sharing = \"shared\"`"
    )]
    Memory {
        /// The pattern's name in the file.
        pattern: &'static str,
        /// Pages of one vCPU.
        pages: u32,
        /// The number of vCPUs.
        vcpus: u32,
        /// The most there may be in all.
        most: u32,
    },
}
