//! A part's times in cycles of its core clock, computed once with integers only.

use super::{Levels, Param, Part, Quantity, Unit};

/// Times in cycles of the core clock at one choice of levels. Fields ending in `_milli` are thousandths of a
/// cycle; they are too short to round.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Timing {
    /// Core clock, MHz.
    pub clock_mhz: u64,
    /// Misses a core keeps outstanding.
    pub outstanding_misses: u32,
    /// Each instruction of a guest that is not waiting, thousandths of a cycle.
    pub per_instruction_milli: u64,
    /// A store that hits a writable line, beyond the access.
    pub store: u32,
    /// A locked read-modify-write of an owned line.
    pub atomic_rmw: u32,
    /// L1D hit.
    pub l1_hit: u32,
    /// L2 hit.
    pub l2_hit: u32,
    /// Hit in the own CCX's L3.
    pub l3_hit: u32,
    /// From another core of the CCX.
    pub same_ccx: u32,
    /// From another CCX of the socket.
    pub other_ccx: u32,
    /// From the other socket.
    pub other_socket: u32,
    /// From DRAM of the own socket.
    pub dram_local: u32,
    /// From DRAM of the other socket.
    pub dram_remote: u32,
    /// Added to a DRAM access under a guest's tag.
    pub sev_extra: u32,
    /// One line written back by one core, thousandths of a cycle.
    pub write_back_core_milli: u64,
    /// One line through a CCD's link, thousandths of a cycle.
    pub write_back_ccd_milli: u64,
    /// One line into a socket's DRAM, thousandths of a cycle.
    pub write_back_socket_milli: u64,
    /// One line out of an L3, thousandths of a cycle.
    pub l3_milli: u64,
    /// One line over a CCD's link into the CCD, thousandths of a cycle.
    pub ccd_read_milli: u64,
    /// One line between the sockets, thousandths of a cycle.
    pub socket_link_milli: u64,
    /// One line out of one DRAM channel, thousandths of a cycle.
    pub channel_read_milli: u64,
    /// One line into one DRAM channel, thousandths of a cycle.
    pub channel_write_milli: u64,
    /// WBINVD without walk and write-backs.
    pub wbinvd_fixed: u64,
    /// WBINVD's walk per line of capacity, thousandths of a cycle.
    pub wbinvd_walk_milli: u64,
    /// WBINVD's walk per line of capacity, picoseconds.
    pub wbinvd_walk_ps: u64,
    /// WBNOINVD's fixed part and walk, thousandths of WBINVD's.
    pub wbnoinvd_permille: u64,
    /// CLFLUSH of an absent line, thousandths of a cycle.
    pub clflush_absent_milli: u64,
    /// CLFLUSH of a clean line, thousandths of a cycle.
    pub clflush_clean_milli: u64,
    /// CLFLUSH of a dirty line, thousandths of a cycle.
    pub clflush_dirty_milli: u64,
    /// Fence after a run of CLFLUSHes.
    pub clflush_drain: u64,
    /// IPI, send to handler, same socket.
    pub ipi_same_socket: u64,
    /// IPI, send to handler, other socket.
    pub ipi_other_socket: u64,
    /// Each further pCPU of a multicast.
    pub ipi_per_pcpu: u64,
    /// VMRUN and #VMEXIT, plain guest.
    pub vm_run_exit: u64,
    /// VMRUN and #VMEXIT, SEV guest.
    pub vm_run_exit_sev: u64,
    /// VMRUN and #VMEXIT, SEV-ES guest.
    pub vm_run_exit_sev_es: u64,
    /// VMRUN and #VMEXIT, SEV-SNP guest.
    pub vm_run_exit_snp: u64,
    /// Mutex taken and released, uncontended.
    pub mutex_uncontended: u64,
    /// Mutex handed to a sleeper.
    pub mutex_hand_off: u64,
    /// Context switch.
    pub context_switch: u64,
    /// Empty system call.
    pub syscall: u64,
}

impl Timing {
    /// Cycles of a duration in nanoseconds, rounded to the nearest.
    #[must_use]
    pub fn cycles_of_ns(&self, ns: u64) -> u64 {
        narrow((u128::from(ns) * u128::from(self.clock_mhz) + 500) / 1000)
    }

    /// Nanoseconds of a number of cycles, rounded to the nearest.
    #[must_use]
    pub fn ns_of_cycles(&self, cycles: u64) -> u64 {
        let mhz = u128::from(self.clock_mhz);
        narrow((u128::from(cycles) * 1000 + mhz / 2) / mhz)
    }

    /// Picoseconds of thousandths of a cycle, rounded to the nearest.
    #[must_use]
    pub fn ps_of_cycles_milli(&self, milli: u64) -> u64 {
        let mhz = u128::from(self.clock_mhz);
        narrow((u128::from(milli) * 1000 + mhz / 2) / mhz)
    }

    pub(super) fn of(part: &Part, levels: &Levels) -> Timing {
        let at = Scale {
            part,
            levels,
            // thousandths of a GHz are MHz
            mhz: part.number(Param::CoreClock).at(levels.of(Param::CoreClock)),
        };
        let channels = u64::from(part.topology().dram_channels());
        let run_exit_milli = at.milli(Param::VmRunExit);
        let factor = |param| narrow(u128::from(run_exit_milli) * u128::from(at.raw(param)) / 100_000_000);
        Timing {
            clock_mhz: at.mhz,
            outstanding_misses: short(at.raw(Param::OutstandingMisses) / 1000).max(1),
            per_instruction_milli: at.milli(Param::PerInstruction),
            store: at.short(Param::Store),
            atomic_rmw: at.short(Param::AtomicRmw),
            l1_hit: at.short(Param::L1Hit),
            l2_hit: at.short(Param::L2Hit),
            l3_hit: at.short(Param::L3Hit),
            same_ccx: at.short(Param::SameCcx),
            other_ccx: at.short(Param::OtherCcx),
            other_socket: at.short(Param::OtherSocket),
            dram_local: at.short(Param::DramLocal),
            dram_remote: at.short(Param::DramRemote),
            sev_extra: at.short(Param::SevExtra),
            write_back_core_milli: at.line_milli(Param::WriteBackCore),
            write_back_ccd_milli: at.line_milli(Param::WriteBackCcd),
            write_back_socket_milli: at.line_milli(Param::WriteBackSocket),
            l3_milli: at.line_milli(Param::BandwidthL3),
            ccd_read_milli: at.line_milli(Param::BandwidthCcdRead),
            socket_link_milli: at.line_milli(Param::BandwidthSocketLink),
            channel_read_milli: at.line_milli(Param::BandwidthDramRead) * channels,
            channel_write_milli: at.line_milli(Param::WriteBackSocket) * channels,
            wbinvd_fixed: at.cycles(Param::WbinvdFixed),
            wbinvd_walk_milli: at.milli(Param::WbinvdWalk),
            wbinvd_walk_ps: at.ps(Param::WbinvdWalk),
            wbnoinvd_permille: at.raw(Param::WbnoinvdFactor) / 100,
            clflush_absent_milli: at.milli(Param::ClflushAbsent),
            clflush_clean_milli: at.milli(Param::ClflushClean),
            clflush_dirty_milli: at.milli(Param::ClflushDirty),
            clflush_drain: at.cycles(Param::ClflushDrain),
            ipi_same_socket: at.cycles(Param::IpiSameSocket),
            ipi_other_socket: at.cycles(Param::IpiOtherSocket),
            ipi_per_pcpu: at.cycles(Param::IpiPerPcpu),
            vm_run_exit: at.cycles(Param::VmRunExit),
            vm_run_exit_sev: factor(Param::VmSevFactor),
            vm_run_exit_sev_es: factor(Param::VmSevEsFactor),
            vm_run_exit_snp: at.cycles(Param::VmSnpRunExit),
            mutex_uncontended: at.cycles(Param::MutexUncontended),
            mutex_hand_off: at.cycles(Param::MutexHandOff),
            context_switch: at.cycles(Param::ContextSwitch),
            syscall: at.cycles(Param::Syscall),
        }
    }
}

struct Scale<'a> {
    part: &'a Part,
    levels: &'a Levels,
    mhz: u64,
}

impl Scale<'_> {
    /// Thousandths of the unit the number was given in.
    fn raw(&self, param: Param) -> u64 {
        self.part.number(param).at(self.levels.of(param))
    }

    /// Picoseconds of a time.
    fn ps(&self, param: Param) -> u64 {
        let raw = u128::from(self.raw(param));
        debug_assert_eq!(param.quantity(), Quantity::Time, "{param:?}");
        narrow(match self.part.number(param).unit {
            // a cycle takes 10^6 / MHz ps
            Unit::Cycles => raw * 1000 / u128::from(self.mhz),
            Unit::Picoseconds => raw / 1000,
            Unit::Nanoseconds => raw,
            Unit::Microseconds => raw * 1000,
            Unit::Milliseconds => raw * 1_000_000,
            Unit::GigabytesPerSecond | Unit::Gigahertz | Unit::Percent | Unit::Count => 0,
        })
    }

    /// Thousandths of a cycle of a time.
    fn milli(&self, param: Param) -> u64 {
        if self.part.number(param).unit == Unit::Cycles {
            return self.raw(param);
        }
        narrow((u128::from(self.ps(param)) * u128::from(self.mhz) + 500) / 1000)
    }

    /// Cycles of a time, to the nearest.
    fn cycles(&self, param: Param) -> u64 {
        (self.milli(param) + 500) / 1000
    }

    fn short(&self, param: Param) -> u32 {
        short(self.cycles(param))
    }

    /// Thousandths of a cycle that 64 bytes take at a rate: 64 B / (raw MB/s) = 64 / raw us = 64 x MHz / raw cycles.
    fn line_milli(&self, param: Param) -> u64 {
        narrow((64_000 * u128::from(self.mhz)).div_ceil(u128::from(self.raw(param))))
    }
}

fn narrow(n: u128) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn short(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
