//! A guest's memory behaviour as a scenario file describes it, and the loading of it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::builtin;
use super::error::GuestError;
use super::loaded::Guest;
use super::trace::{Trace, TraceOptions};
use super::zipf::EXPONENT_PERCENT_MAX;
use super::{GUEST_PAGES_MAX, LINES_PER_PAGE, PAGES_MAX};

/// Pages of a chain of pointers at most: its table takes 256 bytes a page.
pub const CHASE_PAGES_MAX: u32 = 1 << 16;
/// Instructions before an access at most.
pub const INSTRUCTIONS_MAX: u32 = 1_000_000;

/// How the vCPUs of a VM access memory.
///
/// ```
/// use workloads::guest::GuestSpec;
/// # fn main() -> Result<(), toml::de::Error> {
/// #[derive(serde::Deserialize)]
/// struct File { guest: GuestSpec }
/// let file: File = toml::from_str("guest.zipf = { pages = 4096, write_percent = 30 }")?;
/// assert_eq!(file.guest.name(), "zipf");
/// # Ok(()) }
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum GuestSpec {
    /// A memory trace of a real program.
    Trace(TraceSpec),
    /// Every line equally likely.
    Uniform(UniformSpec),
    /// Pages by Zipf's law.
    Zipf(ZipfSpec),
    /// Lines one after the other.
    Stream(StreamSpec),
    /// A chain of pointers.
    Chase(ChaseSpec),
    /// A few lines that all vCPUs contend for.
    PingPong(PingPongSpec),
}

/// Whether each vCPU has pages of its own.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// Each vCPU has its own: vCPU i begins at page i * pages.
    #[default]
    Private,
    /// All vCPUs of the VM access the same.
    Shared,
}

/// `trace`: give `file` or `builtin`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceSpec {
    /// A file of lackey's text, plain, gzip or zstd; `-` is standard input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The name of a built-in trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builtin: Option<String>,
    /// Guest frames it may use; pages beyond wrap.
    #[serde(default = "pages_max")]
    pub max_pages: u32,
    /// Whether each vCPU plays it in pages of its own.
    #[serde(default)]
    pub sharing: Sharing,
}

impl GuestSpec {
    /// The trace of a file in place of this behaviour; a trace keeps what it says about pages.
    #[must_use]
    pub fn playing(&self, file: &Path) -> TraceSpec {
        let file = Some(file.to_owned());
        match self {
            GuestSpec::Trace(spec) => TraceSpec { file, builtin: None, ..spec.clone() },
            GuestSpec::Uniform(_)
            | GuestSpec::Zipf(_)
            | GuestSpec::Stream(_)
            | GuestSpec::Chase(_)
            | GuestSpec::PingPong(_) => {
                TraceSpec { file, builtin: None, max_pages: pages_max(), sharing: Sharing::Private }
            }
        }
    }
}

/// `uniform`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UniformSpec {
    /// Pages of 4 KiB.
    pub pages: u32,
    /// How many accesses in a hundred write.
    #[serde(default = "write_percent")]
    pub write_percent: u8,
    /// Instructions before each access.
    #[serde(default = "instructions")]
    pub instructions: u32,
    /// Whether each vCPU has pages of its own.
    #[serde(default)]
    pub sharing: Sharing,
}

/// `zipf`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZipfSpec {
    /// Pages of 4 KiB.
    pub pages: u32,
    /// The exponent in hundredths: 99 is 0.99.
    #[serde(default = "exponent_percent")]
    pub exponent_percent: u32,
    /// How many accesses in a hundred write.
    #[serde(default = "write_percent")]
    pub write_percent: u8,
    /// Instructions before each access.
    #[serde(default = "instructions")]
    pub instructions: u32,
    /// Whether each vCPU has pages of its own.
    #[serde(default)]
    pub sharing: Sharing,
}

/// `stream`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamSpec {
    /// Pages of 4 KiB.
    pub pages: u32,
    /// Every how many lines it accesses one.
    #[serde(default = "one")]
    pub stride_lines: u32,
    /// How many accesses in a hundred write.
    #[serde(default = "write_percent")]
    pub write_percent: u8,
    /// Instructions before each access.
    #[serde(default = "instructions")]
    pub instructions: u32,
    /// Whether each vCPU has pages of its own.
    #[serde(default)]
    pub sharing: Sharing,
}

/// `chase`: private to each vCPU.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChaseSpec {
    /// Pages of 4 KiB.
    pub pages: u32,
    /// How many accesses in a hundred write.
    #[serde(default = "write_percent")]
    pub write_percent: u8,
    /// Instructions before each access.
    #[serde(default = "instructions")]
    pub instructions: u32,
}

/// `ping_pong`: shared by the VM's vCPUs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PingPongSpec {
    /// Pages of 4 KiB.
    #[serde(default = "one")]
    pub pages: u32,
    /// How many lines of each page are contended for.
    #[serde(default = "one")]
    pub lines_per_page: u32,
    /// How many accesses in a hundred write.
    #[serde(default = "half")]
    pub write_percent: u8,
    /// Instructions before each access.
    #[serde(default = "instructions")]
    pub instructions: u32,
}

fn pages_max() -> u32 {
    PAGES_MAX
}
fn one() -> u32 {
    1
}
fn half() -> u8 {
    50
}
/// About what the shipped trace of sqlite3 has.
fn write_percent() -> u8 {
    30
}
fn instructions() -> u32 {
    3
}
fn exponent_percent() -> u32 {
    99
}

impl GuestSpec {
    /// The pattern's name, as files write it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            GuestSpec::Trace(_) => "trace",
            GuestSpec::Uniform(_) => "uniform",
            GuestSpec::Zipf(_) => "zipf",
            GuestSpec::Stream(_) => "stream",
            GuestSpec::Chase(_) => "chase",
            GuestSpec::PingPong(_) => "ping_pong",
        }
    }

    /// Checks the description and loads what it names, for a VM of `vcpus` vCPUs (0 counts as 1). A relative
    /// file name starts at `directory`, where the file stands that holds the description.
    ///
    /// # Errors
    /// A number is out of range, the trace cannot be used, or there is too much memory.
    pub fn load(&self, directory: &Path, vcpus: u32) -> Result<Guest, GuestError> {
        self.check()?;
        let trace = match self {
            GuestSpec::Trace(spec) => Some(spec.load(directory)?),
            GuestSpec::Uniform(_)
            | GuestSpec::Zipf(_)
            | GuestSpec::Stream(_)
            | GuestSpec::Chase(_)
            | GuestSpec::PingPong(_) => None,
        };
        let guest = Guest::new(self.clone(), trace, vcpus.max(1));
        if guest.pages_of_all() > u64::from(GUEST_PAGES_MAX) {
            return Err(GuestError::Memory {
                pattern: self.name(),
                pages: guest.pages_of_one(),
                vcpus,
                most: GUEST_PAGES_MAX,
            });
        }
        Ok(guest)
    }

    /// Whether the vCPUs have pages of their own.
    #[must_use]
    pub fn sharing(&self) -> Sharing {
        match self {
            GuestSpec::Trace(spec) => spec.sharing,
            GuestSpec::Uniform(spec) => spec.sharing,
            GuestSpec::Zipf(spec) => spec.sharing,
            GuestSpec::Stream(spec) => spec.sharing,
            GuestSpec::Chase(_) => Sharing::Private,
            GuestSpec::PingPong(_) => Sharing::Shared,
        }
    }

    fn check(&self) -> Result<(), GuestError> {
        let pattern = self.name();
        let range = |field, value: u32, least: u32, most: u32| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            let (value, least, most) = (u64::from(value), u64::from(least), u64::from(most));
            Err(GuestError::Range { pattern, field, value, least, most })
        };
        let (pages, most, write_percent, instructions) = match self {
            GuestSpec::Trace(spec) => return range("max_pages", spec.max_pages, 1, PAGES_MAX),
            GuestSpec::Uniform(s) => (s.pages, PAGES_MAX, s.write_percent, s.instructions),
            GuestSpec::Zipf(s) => {
                range("exponent_percent", s.exponent_percent, 0, EXPONENT_PERCENT_MAX)?;
                (s.pages, PAGES_MAX, s.write_percent, s.instructions)
            }
            GuestSpec::Stream(s) => {
                range("stride_lines", s.stride_lines, 1, PAGES_MAX)?;
                (s.pages, PAGES_MAX, s.write_percent, s.instructions)
            }
            GuestSpec::Chase(s) => (s.pages, CHASE_PAGES_MAX, s.write_percent, s.instructions),
            GuestSpec::PingPong(s) => {
                range("lines_per_page", s.lines_per_page, 1, LINES_PER_PAGE)?;
                (s.pages, PAGES_MAX, s.write_percent, s.instructions)
            }
        };
        range("pages", pages, 1, most)?;
        range("write_percent", u32::from(write_percent), 0, 100)?;
        range("instructions", instructions, 0, INSTRUCTIONS_MAX)
    }
}

impl TraceSpec {
    fn load(&self, directory: &Path) -> Result<Trace, GuestError> {
        let options = TraceOptions { max_pages: self.max_pages, ..TraceOptions::default() };
        match (&self.file, &self.builtin) {
            (Some(file), None) if file.as_os_str() == "-" => Ok(Trace::load(file, options)?),
            (Some(file), None) => Ok(Trace::load(&directory.join(file), options)?),
            (None, Some(name)) => Ok(builtin::load(name, options)?),
            (None, None) => Err(GuestError::TraceName { both: "" }),
            (Some(_), Some(_)) => Err(GuestError::TraceName { both: ", not both" }),
        }
    }
}
