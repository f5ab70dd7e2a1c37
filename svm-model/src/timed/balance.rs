//! The end of a run: what was counted in two ways must agree.

use cache_model::hierarchy::Source;

use super::engine::Run;
use super::lost::Cause;
use super::plan::{GuestStream, TimedError};
use super::stats::Dram;

/// Bytes of a line.
const LINE: u64 = 64;

impl<G: GuestStream> Run<'_, G> {
    /// Takes the counts of the caches and the books over, and sees to it that they balance.
    pub(super) fn settle(&mut self) -> Result<(), TimedError> {
        let stats = *self.memory.caches.stats();
        let [eviction, flush, coherence] = stats.written_back;
        let refill = LINE * self.memory.refills_of_dram;
        self.out.dram = Dram {
            read_demand: (LINE * stats.dram_reads()).saturating_sub(refill),
            read_refill: refill,
            read_dma: LINE * self.memory.dma_reads,
            written_eviction: LINE * eviction,
            written_flush: LINE * flush,
            written_coherence: LINE * coherence,
            written_dma: LINE * self.memory.dma_writes,
        };
        let cost = &mut self.out.cost;
        cost.refill_misses = stats.refill_misses;
        cost.dram_bytes_written = stats.dram_bytes_written;
        cost.lines_written_back = self.memory.flushed_lines;
        cost.lines_invalidated = self.memory.invalidated_lines;
        cost.lines_clflushed_at_hand_back = self.memory.handed_on_lines;
        cost.stolen_cycles = self.books.stolen;
        self.out.served = self.memory.served;
        if self.out.interrupted {
            return Ok(());
        }
        let cost = &self.out.cost;
        let dram = &self.out.dram;
        let of_vms = |cause| self.books.of_vms(cause);
        let stolen = [Cause::IpiEntry, Cause::Flush, Cause::IrqsOffWait, Cause::Kick].map(of_vms);
        let waited: u64 = self.books.lost.values().map(|lost| lost.to(Cause::LockWait).sum()).sum();
        let served = &self.out.served;
        let out: u64 = served[Source::L3 as usize..].iter().sum();
        let equal = [
            (
                "bytes written to DRAM",
                cost.dram_bytes_written,
                dram.written_eviction + dram.written_flush + dram.written_coherence + dram.written_dma,
            ),
            (
                "bytes read from DRAM",
                stats.dram_bytes_read,
                dram.read_demand + dram.read_refill + dram.read_dma,
            ),
            ("cycles stolen by IPIs", cost.stolen_cycles, stolen.iter().sum()),
            ("cycles waited for locks", cost.lock_wait_cycles, waited),
            ("requests to the L3 and beyond", out, stats.l2_misses() + stats.upgrades),
            ("refills", self.memory.refills, stats.refill_misses),
            (
                "guest accesses",
                self.out.guest_accesses,
                self.fast_hits.iter().sum::<u64>() + self.guest_requests + self.guest_steps,
            ),
        ];
        for (what, counted, summed) in equal {
            if counted != summed {
                let said = format!("{what}: {counted} counted, {summed} summed over their causes");
                return Err(TimedError::Unbalanced(said));
            }
        }
        for (served, hits) in self.out.served.iter_mut().zip(self.fast_hits) {
            *served += hits;
        }
        self.out.lost = std::mem::take(&mut self.books.lost);
        self.out.met = std::mem::take(&mut self.books.met);
        self.out.idle_flush_cycles = self.books.idle_flush_cycles;
        Ok(())
    }
}
