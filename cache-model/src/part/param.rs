//! The uncertain numbers of a part: their names, what they measure, and their three levels.

use std::collections::BTreeMap;

/// What kind of quantity a number is; decides which units it may carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quantity {
    /// A time: `cycles` (of the core clock), `ps`, `ns`, `us` or `ms`.
    Time,
    /// A bandwidth: `GB/s` (10^9 bytes a second).
    Rate,
    /// A clock: `GHz`.
    Clock,
    /// A ratio: `percent`.
    Ratio,
    /// A plain number of things: `count`.
    Count,
}

impl Quantity {
    /// The units a number of this kind may carry, for error messages.
    #[must_use]
    pub fn expected(self) -> &'static str {
        match self {
            Quantity::Time => "a time: \"cycles\", \"ps\", \"ns\", \"us\" or \"ms\"",
            Quantity::Rate => "a bandwidth: \"GB/s\"",
            Quantity::Clock => "a clock: \"GHz\"",
            Quantity::Ratio => "a ratio: \"percent\"",
            Quantity::Count => "a number of things: \"count\"",
        }
    }

    /// The largest value that is not absurd, in thousandths of the kind's base unit (ps, MB/s, MHz, ...).
    pub(super) fn ceiling(self) -> u64 {
        match self {
            Quantity::Time => 1_000_000_000_000,
            Quantity::Rate => 10_000_000,
            Quantity::Clock => 10_000,
            Quantity::Ratio => 10_000_000,
            Quantity::Count => 1_024_000,
        }
    }
}

/// The unit a number was given in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Cycles of the core clock.
    Cycles,
    /// 10^-12 s.
    Picoseconds,
    /// 10^-9 s.
    Nanoseconds,
    /// 10^-6 s.
    Microseconds,
    /// 10^-3 s.
    Milliseconds,
    /// 10^9 bytes a second.
    GigabytesPerSecond,
    /// 10^9 cycles a second.
    Gigahertz,
    /// Hundredths.
    Percent,
    /// Things.
    Count,
}

impl Unit {
    /// The unit as part files spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Unit::Cycles => "cycles",
            Unit::Picoseconds => "ps",
            Unit::Nanoseconds => "ns",
            Unit::Microseconds => "us",
            Unit::Milliseconds => "ms",
            Unit::GigabytesPerSecond => "GB/s",
            Unit::Gigahertz => "GHz",
            Unit::Percent => "percent",
            Unit::Count => "count",
        }
    }

    /// The unit with this spelling.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Unit> {
        [
            Unit::Cycles,
            Unit::Picoseconds,
            Unit::Nanoseconds,
            Unit::Microseconds,
            Unit::Milliseconds,
            Unit::GigabytesPerSecond,
            Unit::Gigahertz,
            Unit::Percent,
            Unit::Count,
        ]
        .into_iter()
        .find(|u| u.name() == name)
    }

    /// What the unit measures.
    #[must_use]
    pub fn quantity(self) -> Quantity {
        match self {
            Unit::Cycles
            | Unit::Picoseconds
            | Unit::Nanoseconds
            | Unit::Microseconds
            | Unit::Milliseconds => Quantity::Time,
            Unit::GigabytesPerSecond => Quantity::Rate,
            Unit::Gigahertz => Quantity::Clock,
            Unit::Percent => Quantity::Ratio,
            Unit::Count => Quantity::Count,
        }
    }
}

/// How far a number can be trusted (the tags of the hardware facts).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Confidence {
    /// Vendor text, vendor firmware or merged kernel code.
    A,
    /// A vendor engineer or maintainer on a list, or a third party's measurement.
    B,
    /// Arithmetic from facts of kind A and B.
    C,
    /// Measured by us, on a busy guest.
    M,
    /// Unverified: a knob, not a fact.
    U,
}

impl Confidence {
    /// The letter as part files spell it.
    #[must_use]
    pub fn letter(self) -> &'static str {
        match self {
            Confidence::A => "A",
            Confidence::B => "B",
            Confidence::C => "C",
            Confidence::M => "M",
            Confidence::U => "U",
        }
    }

    /// The confidence with this letter.
    #[must_use]
    pub fn from_letter(letter: &str) -> Option<Confidence> {
        [Confidence::A, Confidence::B, Confidence::C, Confidence::M, Confidence::U]
            .into_iter()
            .find(|c| c.letter() == letter)
    }
}

/// Which of a number's three values is meant. Low and high are values, not "good" and "bad".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Level {
    /// The lowest plausible value.
    Low,
    /// The value to use when nothing else is said.
    #[default]
    Typical,
    /// The highest plausible value.
    High,
}

/// A number with its plausible range, unit and origin. Values are in thousandths of the unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Number {
    /// Lowest plausible value, thousandths of `unit`.
    pub low: u64,
    /// Typical value, thousandths of `unit`.
    pub typical: u64,
    /// Highest plausible value, thousandths of `unit`.
    pub high: u64,
    /// The unit it was given in.
    pub unit: Unit,
    /// Where it comes from.
    pub source: String,
    /// How far it can be trusted.
    pub confidence: Confidence,
}

impl Number {
    /// The value at a level, in thousandths of the unit.
    #[must_use]
    pub fn at(&self, level: Level) -> u64 {
        match level {
            Level::Low => self.low,
            Level::Typical => self.typical,
            Level::High => self.high,
        }
    }
}

macro_rules! params {
    ($($(#[$doc:meta])* $name:ident = $section:literal . $key:literal : $quantity:ident,)*) => {
        /// One uncertain number of a part.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Param { $($(#[$doc])* $name,)* }

        impl Param {
            /// Every number, in the order of a part file.
            pub const ALL: &'static [Param] = &[$(Param::$name,)*];

            /// The table of the part file it stands in.
            #[must_use]
            pub fn section(self) -> &'static str {
                match self { $(Param::$name => $section,)* }
            }

            /// Its key in that table.
            #[must_use]
            pub fn key(self) -> &'static str {
                match self { $(Param::$name => $key,)* }
            }

            /// Its full name, as `latency.l3_hit`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Param::$name => concat!($section, ".", $key),)* }
            }

            /// What kind of quantity it is.
            #[must_use]
            pub fn quantity(self) -> Quantity {
                match self { $(Param::$name => Quantity::$quantity,)* }
            }
        }
    };
}

params! {
    /// Clock of a core.
    CoreClock = "core"."clock": Clock,
    /// Misses a core keeps outstanding.
    OutstandingMisses = "core"."outstanding_misses": Count,
    /// Time between two accesses of a guest that is not waiting for memory.
    PerInstruction = "core"."per_instruction": Time,
    /// A store that hits a writable line, beyond the access itself.
    Store = "core"."store": Time,
    /// A locked read-modify-write of an owned line.
    AtomicRmw = "core"."atomic_rmw": Time,
    /// Load that hits the L1D.
    L1Hit = "latency"."l1_hit": Time,
    /// Load that hits the L2.
    L2Hit = "latency"."l2_hit": Time,
    /// Load that hits the L3 of the own CCX.
    L3Hit = "latency"."l3_hit": Time,
    /// Line fetched from another core of the CCX, one way.
    SameCcx = "latency"."same_ccx": Time,
    /// Line fetched from another CCX of the socket, one way.
    OtherCcx = "latency"."other_ccx": Time,
    /// Line fetched from the other socket, one way.
    OtherSocket = "latency"."other_socket": Time,
    /// Line fetched from DRAM of the own socket.
    DramLocal = "latency"."dram_local": Time,
    /// Line fetched from DRAM of the other socket.
    DramRemote = "latency"."dram_remote": Time,
    /// What encryption adds to a DRAM access under a guest's tag.
    SevExtra = "latency"."sev_extra": Time,
    /// One core's own write-back bandwidth.
    WriteBackCore = "write_back"."core": Rate,
    /// Write bandwidth of a CCD's link to the fabric.
    WriteBackCcd = "write_back"."ccd": Rate,
    /// Write bandwidth of a socket's DRAM.
    WriteBackSocket = "write_back"."socket": Rate,
    /// What an L3 gives its cores, all of them together.
    BandwidthL3 = "bandwidth"."l3": Rate,
    /// Read bandwidth of a CCD's link to the fabric.
    BandwidthCcdRead = "bandwidth"."ccd_read": Rate,
    /// Bandwidth between the sockets, each way.
    BandwidthSocketLink = "bandwidth"."socket_link": Rate,
    /// Read bandwidth of a socket's DRAM, all channels together.
    BandwidthDramRead = "bandwidth"."dram_read": Rate,
    /// WBINVD on empty caches, without the walk.
    WbinvdFixed = "flush"."wbinvd_fixed": Time,
    /// WBINVD's walk over the tags, per line of capacity.
    WbinvdWalk = "flush"."wbinvd_walk": Time,
    /// WBNOINVD's fixed part and walk, of WBINVD's.
    WbnoinvdFactor = "flush"."wbnoinvd_factor": Ratio,
    /// CLFLUSH of a line that is in no cache.
    ClflushAbsent = "flush"."clflush_absent": Time,
    /// CLFLUSH of a clean line.
    ClflushClean = "flush"."clflush_clean": Time,
    /// CLFLUSH of a dirty line.
    ClflushDirty = "flush"."clflush_dirty": Time,
    /// Fence after a run of CLFLUSHes.
    ClflushDrain = "flush"."clflush_drain": Time,
    /// IPI from the send to the handler, same socket.
    IpiSameSocket = "ipi"."same_socket": Time,
    /// IPI from the send to the handler, other socket.
    IpiOtherSocket = "ipi"."other_socket": Time,
    /// What each further pCPU adds to a multicast that is waited for.
    IpiPerPcpu = "ipi"."per_pcpu": Time,
    /// VMRUN and #VMEXIT of a plain guest.
    VmRunExit = "vm"."run_exit": Time,
    /// The same of a SEV guest, of the plain one's.
    VmSevFactor = "vm"."sev_factor": Ratio,
    /// The same of a SEV-ES guest, of the plain one's.
    VmSevEsFactor = "vm"."sev_es_factor": Ratio,
    /// VMRUN and #VMEXIT of a SEV-SNP guest.
    VmSnpRunExit = "vm"."snp_run_exit": Time,
    /// Mutex taken and released, nobody else there.
    MutexUncontended = "os"."mutex_uncontended": Time,
    /// Mutex handed to a sleeping waiter.
    MutexHandOff = "os"."mutex_hand_off": Time,
    /// Context switch.
    ContextSwitch = "os"."context_switch": Time,
    /// System call, empty.
    Syscall = "os"."syscall": Time,
}

impl Param {
    /// The number with this full name (`latency.l3_hit`).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Param> {
        Param::ALL.iter().copied().find(|p| p.name() == name)
    }
}

/// A level for every number: one for all, and exceptions (sweeps vary one number at a time).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Levels {
    /// The level of every number not named in `exceptions`.
    pub all: Level,
    /// Numbers at another level.
    pub exceptions: BTreeMap<Param, Level>,
}

impl Levels {
    /// The level of one number.
    #[must_use]
    pub fn of(&self, param: Param) -> Level {
        self.exceptions.get(&param).copied().unwrap_or(self.all)
    }
}

impl From<Level> for Levels {
    fn from(all: Level) -> Levels {
        Levels { all, exceptions: BTreeMap::new() }
    }
}
