//! What a timed run counts.

use std::collections::BTreeMap;

use cache_model::event::EventKind;

use super::lost::{Lost, Met, Ran, Victim};

/// Costs, in the units their names say; the fields of the report.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// Times that the policy's writeback was called.
    pub flush_calls: u64,
    /// pCPUs that executed a whole-cache flush, summed over the calls.
    pub pcpus_flushed: u64,
    /// IPIs sent, whatever for.
    pub ipis: u64,
    /// Each call's latency, in cycles, in the order in which the calls ended.
    pub flush_latency_cycles: Vec<u64>,
    /// Cycles that vCPUs lost to IPIs: from the forced #VMEXIT to the end of the next VMRUN, or the handler alone if
    /// their thread was in the host and waited for no lock.
    pub stolen_cycles: u64,
    /// Lines that the policy's flushes wrote back.
    pub lines_written_back: u64,
    /// Lines that the policy's flushes invalidated.
    pub lines_invalidated: u64,
    /// Lines that CLFLUSH found in a cache when pages were handed back to a VM: the same under every policy but
    /// for timing, and no policy's doing.
    pub lines_clflushed_at_hand_back: u64,
    /// Misses of lines that a flush had taken out of a cache.
    pub refill_misses: u64,
    /// Bytes written to DRAM, whatever for.
    pub dram_bytes_written: u64,
    /// Cycles that tasks waited for locks.
    pub lock_wait_cycles: u64,
    /// #VMEXITs.
    pub guest_exits: u64,
}

/// Bytes between the caches, or devices, and DRAM, by cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Dram {
    /// Read by misses that no flush caused.
    pub read_demand: u64,
    /// Read by misses of lines that a flush had taken.
    pub read_refill: u64,
    /// Read by devices.
    pub read_dma: u64,
    /// Written because a cache needed room.
    pub written_eviction: u64,
    /// Written by WBINVD, WBNOINVD, CLFLUSH, VM_PAGE_FLUSH.
    pub written_flush: u64,
    /// Written because another tag accessed the line (SME_COHERENT), or a device.
    pub written_coherence: u64,
    /// Written by devices.
    pub written_dma: u64,
}

/// Whose data a clobber overwrote: who had the page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Newer {
    /// Stored by a host CPU: an SME_COHERENT part does not let that happen.
    Cpu,
    /// Written by a device, which no EPYC keeps coherent with guests' lines.
    Dma,
    /// A VM's.
    Vm,
}

impl Newer {
    /// Its name in JSON and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Newer::Cpu => "cpu",
            Newer::Dma => "dma",
            Newer::Vm => "vm",
        }
    }
}

/// What a timed run came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// When the last vCPU had finished.
    pub cycles: u64,
    /// Sum over the vCPUs of the time each needed.
    pub vcpu_cycles: u64,
    /// The same by VM.
    pub vcpu_cycles_by_vm: Vec<u64>,
    /// Accesses that the guests made.
    pub guest_accesses: u64,
    /// Reclaims that were begun.
    pub reclaims: u64,
    /// Events, by kind.
    pub events: BTreeMap<EventKind, u64>,
    /// Clobbers by whose newer data was overwritten.
    pub clobbered: BTreeMap<Newer, u64>,
    /// Costs.
    pub cost: Cost,
    /// DRAM traffic by cause.
    pub dram: Dram,
    /// Who lost cycles to what, by pCPU.
    pub lost: BTreeMap<(u16, Victim), Lost>,
    /// Flushes by pCPUs of reclaim, by how long ago the pCPU ran the VM, and what they met.
    pub met: BTreeMap<Ran, Met>,
    /// Cycles of flushes on pCPUs that had nobody to lose them.
    pub idle_flush_cycles: u64,
    /// Requests by what served them: own L1, own L2, L3, another core of the CCX, another CCX, the other socket, DRAM
    /// local, DRAM remote. All of the guests', and the host's to pages that changed hands.
    pub served: [u64; 8],
    /// Whether it was stopped before its end.
    pub interrupted: bool,
}
