//! A part (a processor model) as data: topology, caches, features, and every number with its range and source.
//!
//! *Promise*: a part file that loads is whole: no number without unit, source and confidence, no unknown key.
//! No floating point: decimals are read as thousandths from their digits.

mod param;
mod profile;
mod read;
mod timing;

use sev_arch::{CcxId, CoreId, PcpuId};

pub use param::{Confidence, Level, Levels, Number, Param, Quantity, Unit};
pub use profile::Measured;
pub use timing::Timing;

/// A part file that is wrong, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}{message}; {help}", self.place())]
pub struct PartError {
    /// The file's name, as given; empty when the error is not about a file.
    pub file: String,
    /// Line, from 1; 0 when the error is not about a place in a file.
    pub line: usize,
    /// Column in characters, from 1; 0 when the error is not about a place in a file.
    pub column: usize,
    /// What is wrong, naming the field.
    pub message: String,
    /// What was expected.
    pub help: String,
}

/// Which line of a full set makes room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Replacement {
    /// The line used longest ago.
    #[default]
    Lru,
    /// One bit a way, set when it is used; when all would be set, the others are cleared. The first way without
    /// its bit goes.
    PseudoLru,
    /// One of the half of the ways used longest ago, by a fixed pseudo-random sequence. With it, as on real parts,
    /// about one and a half times a set's ways are needed to push a line out reliably.
    OldHalf,
}

impl Replacement {
    /// Every rule, with its name in a part file.
    pub const ALL: [(Replacement, &str); 3] = [
        (Replacement::Lru, "lru"),
        (Replacement::PseudoLru, "pseudo-lru"),
        (Replacement::OldHalf, "old-half"),
    ];

    /// Its name in a part file.
    #[must_use]
    pub fn name(self) -> &'static str {
        Replacement::ALL.iter().find(|(r, _)| *r == self).map_or("", |(_, name)| name)
    }
}

/// Sets, ways and replacement of a cache of 64-byte lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheShape {
    /// Sets: a power of two, or three times one (an L3 with a stacked die).
    pub sets: u32,
    /// Ways, 1 to 16.
    pub ways: u16,
    /// Which line of a full set makes room.
    pub replacement: Replacement,
}

impl CacheShape {
    /// A cache with strict LRU.
    #[must_use]
    pub fn lru(sets: u32, ways: u16) -> CacheShape {
        CacheShape { sets, ways, replacement: Replacement::Lru }
    }

    /// Capacity in lines.
    #[must_use]
    pub fn lines(self) -> u64 {
        u64::from(self.sets) * u64::from(self.ways)
    }
}

/// What the L3 holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum L3Kind {
    /// L2 victims only (every EPYC: CPUID `8000_001D` says non-inclusive).
    Victim,
    /// Every line of the CCX's private caches too (no EPYC: the geometry of the speed comparison).
    Inclusive,
}

/// Sockets, CCXs, cores and pCPUs, and who belongs to whom.
///
/// Numbering: cores by CCX, CCXs by socket. pCPUs as Linux numbers them: first one thread of every core, then
/// the SMT siblings, so that pCPU `i` and pCPU `i + cores` share core `i`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Topology {
    pub(crate) sockets: u16,
    pub(crate) ccx_per_socket: u16,
    pub(crate) ccx_per_ccd: u16,
    pub(crate) cores_per_ccx: u16,
    pub(crate) threads_per_core: u16,
    pub(crate) dram_channels: u16,
    pub(crate) cores: u16,
    pub(crate) pcpus: u16,
}

impl Topology {
    /// Most CCXs a machine may have (a directory entry names a CCX in five bits).
    pub const MAX_CCXS: u16 = 32;

    /// Sockets that have a core.
    #[must_use]
    pub fn sockets(&self) -> u16 {
        self.ccxs().div_ceil(self.ccx_per_socket)
    }

    /// CCXs that have a core.
    #[must_use]
    pub fn ccxs(&self) -> u16 {
        self.cores.div_ceil(self.cores_per_ccx)
    }

    /// CCDs (each with one link to the fabric) that have a core.
    #[must_use]
    pub fn ccds(&self) -> u16 {
        self.ccxs().div_ceil(self.ccx_per_ccd)
    }

    /// Cores.
    #[must_use]
    pub fn cores(&self) -> u16 {
        self.cores
    }

    /// Hardware threads.
    #[must_use]
    pub fn pcpus(&self) -> u16 {
        self.pcpus
    }

    /// CCXs of a full socket.
    #[must_use]
    pub fn ccx_per_socket(&self) -> u16 {
        self.ccx_per_socket
    }

    /// CCXs of a CCD.
    #[must_use]
    pub fn ccx_per_ccd(&self) -> u16 {
        self.ccx_per_ccd
    }

    /// Hardware threads of a core.
    #[must_use]
    pub fn threads_per_core(&self) -> u16 {
        self.threads_per_core
    }

    /// DRAM channels of a socket.
    #[must_use]
    pub fn dram_channels(&self) -> u16 {
        self.dram_channels
    }

    /// Cores of a full CCX.
    #[must_use]
    pub fn cores_per_ccx(&self) -> u16 {
        self.cores_per_ccx
    }

    /// The core a pCPU is a thread of.
    #[must_use]
    pub fn core_of(&self, pcpu: PcpuId) -> CoreId {
        CoreId(pcpu.0 % self.cores)
    }

    /// The other thread of a pCPU's core, if it is there.
    #[must_use]
    pub fn sibling_of(&self, pcpu: PcpuId) -> Option<PcpuId> {
        let other = if pcpu.0 < self.cores { pcpu.0 + self.cores } else { pcpu.0 - self.cores };
        (other < self.pcpus).then_some(PcpuId(other))
    }

    /// The CCX of a core.
    #[must_use]
    pub fn ccx_of(&self, core: CoreId) -> CcxId {
        CcxId(core.0 / self.cores_per_ccx)
    }

    /// The socket of a CCX.
    #[must_use]
    pub fn socket_of(&self, ccx: CcxId) -> u16 {
        ccx.0 / self.ccx_per_socket
    }

    /// The CCD of a CCX.
    #[must_use]
    pub fn ccd_of(&self, ccx: CcxId) -> u16 {
        ccx.0 / self.ccx_per_ccd
    }

    /// The cores of a CCX, in order.
    pub fn cores_of(&self, ccx: CcxId) -> impl Iterator<Item = CoreId> + use<> {
        let first = ccx.0 * self.cores_per_ccx;
        (first..(first + self.cores_per_ccx).min(self.cores)).map(CoreId)
    }
}

/// A processor model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// Its name, as `genoa`.
    pub name: String,
    /// One sentence about it.
    pub description: String,
    /// Where its numbers come from.
    pub sources: Vec<String>,
    topology: Topology,
    l1d: CacheShape,
    l2: CacheShape,
    l3: CacheShape,
    l3_kind: L3Kind,
    sme_coherent: bool,
    wbnoinvd: bool,
    numbers: Vec<Number>,
    profile: Option<Measured>,
}

const BUILTIN: [(&str, &str, &str); 10] = [
    ("bars-16", "bars-16.toml", include_str!("../parts/bars-16.toml")),
    ("bergamo", "bergamo.toml", include_str!("../parts/bergamo.toml")),
    ("genoa", "genoa.toml", include_str!("../parts/genoa.toml")),
    ("genoa-x", "genoa-x.toml", include_str!("../parts/genoa-x.toml")),
    ("milan", "milan.toml", include_str!("../parts/milan.toml")),
    ("milan-x", "milan-x.toml", include_str!("../parts/milan-x.toml")),
    ("naples", "naples.toml", include_str!("../parts/naples.toml")),
    ("rome", "rome.toml", include_str!("../parts/rome.toml")),
    ("turin", "turin.toml", include_str!("../parts/turin.toml")),
    ("turin-dense", "turin-dense.toml", include_str!("../parts/turin-dense.toml")),
];

impl Part {
    /// The names of the built-in parts, sorted.
    #[must_use]
    pub fn builtin_names() -> Vec<&'static str> {
        BUILTIN.iter().map(|(name, _, _)| *name).collect()
    }

    /// A built-in part.
    ///
    /// # Errors
    /// The name is not one of [`Part::builtin_names`].
    pub fn builtin(name: &str) -> Result<Part, PartError> {
        match BUILTIN.iter().find(|(n, _, _)| *n == name) {
            Some((_, file, text)) => Part::from_toml(file, text),
            None => Err(PartError::placeless(
                format!("there is no built-in part `{name}`"),
                format!("known: {}", Part::builtin_names().join(", ")),
            )),
        }
    }

    /// The text of a built-in part's file.
    #[must_use]
    pub fn builtin_text(name: &str) -> Option<&'static str> {
        BUILTIN.iter().find(|(n, _, _)| *n == name).map(|(_, _, text)| *text)
    }

    /// Reads a part file; `file_name` is for error messages.
    ///
    /// # Errors
    /// Names the line, the column, the field and what was expected of it.
    pub fn from_toml(file_name: &str, text: &str) -> Result<Part, PartError> {
        read::read(file_name, text)
    }

    /// The part with its first `n` pCPUs only: fewer cores first lose their SMT siblings, then themselves.
    ///
    /// # Errors
    /// Zero, or more than the part has.
    pub fn with_pcpus(&self, n: u16) -> Result<Part, PartError> {
        let full = self.topology;
        if n == 0 || n > full.pcpus {
            return Err(PartError::placeless(
                format!("part `{}` cannot run {n} pCPUs", self.name),
                format!("expected 1 to {}", full.pcpus),
            ));
        }
        let topology = Topology { cores: n.min(full.cores), pcpus: n, ..full };
        Ok(Part { topology, ..self.clone() })
    }

    /// The part with its first `n` sockets only.
    ///
    /// # Errors
    /// Zero, or more than the part has.
    pub fn with_sockets(&self, n: u16) -> Result<Part, PartError> {
        let full = self.topology;
        if n == 0 || n > full.sockets {
            return Err(PartError::placeless(
                format!("part `{}` cannot have {n} sockets", self.name),
                format!("expected 1 to {}", full.sockets),
            ));
        }
        let cores = full.cores.min(n * full.ccx_per_socket * full.cores_per_ccx);
        let pcpus = full.pcpus.min(cores * full.threads_per_core);
        let topology = Topology { sockets: n, cores, pcpus, ..full };
        Ok(Part { topology, ..self.clone() })
    }

    /// The part with fewer cores: `1s` keeps one socket, `4x` four CCXs of each socket, `2c` two cores of each CCX,
    /// `1t` one thread of each core, `48p` the first 48 pCPUs; several with commas between.
    ///
    /// # Errors
    /// Another form, zero, or more than the part has.
    pub fn variant(&self, spec: &str) -> Result<Part, PartError> {
        let mut part = self.clone();
        for word in spec.split(',') {
            let (digits, unit) =
                word.split_at(word.len() - word.chars().next_back().map_or(0, char::len_utf8));
            let n =
                if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse::<u16>().ok() } else { None };
            let t = &mut part.topology;
            let (whole, what) = match unit {
                "s" => (&mut t.sockets, "sockets"),
                "x" => (&mut t.ccx_per_socket, "CCXs of a socket"),
                "c" => (&mut t.cores_per_ccx, "cores of a CCX"),
                "t" => (&mut t.threads_per_core, "threads of a core"),
                "p" => (&mut t.pcpus, "pCPUs"),
                _ => (&mut t.sockets, ""),
            };
            let (Some(n), false) = (n, what.is_empty()) else {
                return Err(PartError::placeless(
                    format!("`{word}` is no variant of part `{}`", self.name),
                    "expected a number and s (sockets), x (CCXs of a socket), c (cores of a CCX), t (threads of a \
                     core) or p (pCPUs), as `1s` or `1s,4x,2c`"
                        .to_owned(),
                ));
            };
            if n == 0 || n > *whole {
                return Err(PartError::placeless(
                    format!("part `{}` has no {n} {what}", self.name),
                    format!("expected 1 to {whole}"),
                ));
            }
            if unit == "p" {
                part = part.with_pcpus(n)?;
                continue;
            }
            *whole = n;
            if unit == "x" && !n.is_multiple_of(t.ccx_per_ccd) {
                t.ccx_per_ccd = 1;
            }
            t.cores = t.sockets * t.ccx_per_socket * t.cores_per_ccx;
            t.pcpus = t.cores * t.threads_per_core;
        }
        Ok(part)
    }

    /// The part with other caches: for tests with caches small enough to count by hand.
    #[must_use]
    pub fn with_caches(&self, l1d: CacheShape, l2: CacheShape, l3: CacheShape, l3_kind: L3Kind) -> Part {
        for shape in [l1d, l2, l3] {
            assert!(
                shape.sets.is_power_of_two() && (1..=16).contains(&shape.ways),
                "impossible cache {shape:?}"
            );
        }
        assert!(l1d.sets <= l2.sets && l1d.lines() <= l2.lines(), "an L2 includes its L1D");
        Part { l1d, l2, l3, l3_kind, ..self.clone() }
    }

    /// The part with or without SME_COHERENT: the same machine on either side of the feature.
    #[must_use]
    pub fn with_sme_coherent(&self, sme_coherent: bool) -> Part {
        Part { sme_coherent, ..self.clone() }
    }

    /// Sockets, CCXs, cores, pCPUs.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The L1 data cache of a core.
    #[must_use]
    pub fn l1d(&self) -> CacheShape {
        self.l1d
    }

    /// The L2 of a core, inclusive of its L1D.
    #[must_use]
    pub fn l2(&self) -> CacheShape {
        self.l2
    }

    /// The L3 of a CCX.
    #[must_use]
    pub fn l3(&self) -> CacheShape {
        self.l3
    }

    /// What the L3 holds.
    #[must_use]
    pub fn l3_kind(&self) -> L3Kind {
        self.l3_kind
    }

    /// CPUID `8000_001F` EAX\[10\]: a CPU access under one tag evicts the other tags' copies.
    #[must_use]
    pub fn sme_coherent(&self) -> bool {
        self.sme_coherent
    }

    /// CPUID `8000_0008` EBX\[9\]; without it WBNOINVD is WBINVD.
    #[must_use]
    pub fn wbnoinvd(&self) -> bool {
        self.wbnoinvd
    }

    /// One of the part's uncertain numbers.
    #[must_use]
    pub fn number(&self, param: Param) -> &Number {
        &self.numbers[param as usize]
    }

    /// All times in cycles of the core clock, with every number at one level, or with exceptions.
    #[must_use]
    pub fn timing(&self, levels: impl Into<Levels>) -> Timing {
        Timing::of(self, &levels.into())
    }
}

impl PartError {
    fn placeless(message: String, help: String) -> PartError {
        PartError { file: String::new(), line: 0, column: 0, message, help }
    }

    /// `FILE:LINE:COLUMN: `, or nothing.
    fn place(&self) -> String {
        if self.line == 0 { String::new() } else { format!("{}:{}:{}: ", self.file, self.line, self.column) }
    }
}

#[cfg(test)]
mod tests;
