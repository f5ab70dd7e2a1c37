//! Write-back bandwidth: one server for each CCD's link and each socket's DRAM, loaded by evictions and flushes.

use sev_arch::FlushOp;

use super::words::FlushWork;
use crate::part::Timing;

/// When each server has worked off what it was given, in thousandths of a cycle.
#[derive(Clone, Default, Debug)]
pub(super) struct Traffic {
    links: Vec<u64>,
    sockets: Vec<u64>,
    link_milli: u64,
    socket_milli: u64,
}

impl Traffic {
    pub(super) fn new(timing: &Timing, ccds: u16, sockets: u16) -> Traffic {
        Traffic {
            links: vec![0; usize::from(ccds)],
            sockets: vec![0; usize::from(sockets)],
            link_milli: timing.write_back_ccd_milli,
            socket_milli: timing.write_back_socket_milli,
        }
    }

    /// One line leaves: nobody waits for it, but it takes its share.
    #[inline(always)]
    pub(super) fn write_back(&mut self, ccd: usize, home: usize, now: u64) {
        let now = now.saturating_mul(1000);
        let link = &mut self.links[ccd];
        *link = now.max(*link) + self.link_milli;
        let socket = &mut self.sockets[home];
        *socket = now.max(*socket) + self.socket_milli;
    }

    /// Lines of a flush leave from time `now` (cycles) on; when the last one has (cycles).
    pub(super) fn drain(&mut self, timing: &Timing, ccd: usize, work: &FlushWork, now: u64) -> u64 {
        let lines = work.lines_written_back();
        if lines == 0 {
            return now;
        }
        let start = now.saturating_mul(1000);
        let mut end = start + lines * timing.write_back_core_milli;
        let link = &mut self.links[ccd];
        *link = start.max(*link) + lines * self.link_milli;
        end = end.max(*link);
        for (socket, lines) in self.sockets.iter_mut().zip(work.written_back) {
            if lines != 0 {
                *socket = start.max(*socket) + lines * self.socket_milli;
                end = end.max(*socket);
            }
        }
        end.div_ceil(1000)
    }
}

/// Cycles of the tag walk of a flush.
pub(super) fn walk(timing: &Timing, op: FlushOp, lines: u64) -> u64 {
    scale(timing, op, lines * timing.wbinvd_walk_milli).div_ceil(1000)
}

/// Cycles of the part of a flush that is always there.
pub(super) fn fixed(timing: &Timing, op: FlushOp) -> u64 {
    scale(timing, op, timing.wbinvd_fixed)
}

fn scale(timing: &Timing, op: FlushOp, time: u64) -> u64 {
    match op {
        FlushOp::Wbinvd => time,
        FlushOp::Wbnoinvd => time * timing.wbnoinvd_permille / 1000,
    }
}
