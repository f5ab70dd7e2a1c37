//! What a timed run counts.

use std::collections::BTreeMap;

use cache_model::event::EventKind;

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
    /// Cycles that vCPUs lost to IPI handlers on their pCPU, the exit and re-entry included.
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

/// What a timed run came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// When the last vCPU had finished.
    pub cycles: u64,
    /// Sum over the vCPUs of the time each needed.
    pub vcpu_cycles: u64,
    /// Accesses that the guests made.
    pub guest_accesses: u64,
    /// Reclaims that were begun.
    pub reclaims: u64,
    /// Events, by kind.
    pub events: BTreeMap<EventKind, u64>,
    /// Costs.
    pub cost: Cost,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
}
