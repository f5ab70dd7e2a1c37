//! Bandwidth: a server with a queue for each L3, each direction of each CCD's link, each direction between the sockets, and
//! each DRAM channel. A line on its way takes its share of every server it passes, and waits for the longest queue.
//!
//! Requests arrive nearly in order of time; one that is late finds the queue as the last one left it.

use sev_arch::{Access, FlushOp};

use super::words::FlushWork;
use crate::part::{Timing, Topology};

/// When one server will have done what it has to do, in thousandths of a cycle.
#[derive(Clone, Copy, Default, Debug)]
struct Server {
    /// The latest arrival.
    at: u64,
    free: u64,
}

impl Server {
    /// Work arrives: how long it waits for what came before. All in thousandths of a cycle.
    #[inline(always)]
    fn take(&mut self, now: u64, work: u64) -> u64 {
        self.at = self.at.max(now);
        let start = self.at.max(self.free);
        self.free = start + work;
        start - self.at
    }
}

/// An instant in cycles in thousandths of one.
#[inline(always)]
fn milli(now: u64) -> u64 {
    now.wrapping_mul(1000)
}

/// The servers of a machine.
#[derive(Clone, Default, Debug)]
pub(super) struct Traffic {
    l3s: Vec<Server>,
    /// By CCD: into it, out of it.
    links: Vec<[Server; 2]>,
    /// By socket: into it.
    between: [Server; 2],
    /// By socket, then channel.
    channels: Vec<Server>,
    channels_each: u32,
    costs: Costs,
}

/// Thousandths of a cycle that a line takes of each kind of server.
#[derive(Clone, Copy, Default, Debug)]
struct Costs {
    l3: u64,
    ccd_read: u64,
    ccd_write: u64,
    between: u64,
    channel_read: u64,
    channel_write: u64,
}

/// The way of a line between a CCX and a DRAM or another CCX.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// The CCD at the near end, and its socket.
    pub(super) ccd: u16,
    pub(super) socket: u16,
    /// The socket at the far end.
    pub(super) far: u16,
}

impl Traffic {
    pub(super) fn new(timing: &Timing, topology: &Topology) -> Traffic {
        Traffic {
            l3s: vec![Server::default(); usize::from(topology.ccxs())],
            links: vec![[Server::default(); 2]; usize::from(topology.ccds())],
            between: [Server::default(); 2],
            channels: vec![Server::default(); usize::from(topology.sockets() * topology.dram_channels())],
            channels_each: u32::from(topology.dram_channels()),
            costs: Costs {
                l3: timing.l3_milli,
                ccd_read: timing.ccd_read_milli,
                ccd_write: timing.write_back_ccd_milli,
                between: timing.socket_link_milli,
                channel_read: timing.channel_read_milli,
                channel_write: timing.channel_write_milli,
            },
        }
    }

    /// The channel of a line: four lines in a row share one, the next four are anywhere.
    #[inline(always)]
    fn channel(&self, socket: u16, phys: u32) -> usize {
        let mixed = u64::from((phys >> 2).wrapping_mul(0x9E37_79B1));
        let channel = (mixed * u64::from(self.channels_each)) >> 32;
        usize::from(socket) * self.channels_each as usize + channel as usize
    }

    /// A line comes out of the L3 of its CCX, or of a neighbour through it: cycles of waiting.
    #[inline(always)]
    pub(super) fn near(&mut self, ccx: usize, now: u64) -> u32 {
        cycles(self.l3s[ccx].take(milli(now), self.costs.l3))
    }

    /// A line comes from another CCX: cycles of waiting.
    #[inline(always)]
    pub(super) fn far(&mut self, way: Way, now: u64) -> u32 {
        cycles(self.arrive(way, milli(now)))
    }

    /// The same in thousandths of a cycle.
    #[inline(always)]
    fn arrive(&mut self, way: Way, now: u64) -> u64 {
        let wait = self.links[usize::from(way.ccd)][0].take(now, self.costs.ccd_read);
        if way.far == way.socket {
            return wait;
        }
        wait.max(self.between[usize::from(way.socket & 1)].take(now, self.costs.between))
    }

    /// A line comes from DRAM: cycles of waiting.
    #[inline(always)]
    pub(super) fn dram(&mut self, way: Way, phys: u32, now: u64) -> u32 {
        let (channel, now) = (self.channel(way.far, phys), milli(now));
        let wait = self.channels[channel].take(now, self.costs.channel_read);
        cycles(wait.max(self.arrive(way, now)))
    }

    /// A line leaves for DRAM: nobody waits for it, but it takes its share. When all have done with it, in
    /// thousandths of a cycle.
    #[inline(always)]
    pub(super) fn write_back(&mut self, way: Way, phys: u32, now: u64) -> u64 {
        let (channel, now) = (self.channel(way.far, phys), milli(now));
        let Costs { ccd_write, channel_write, between, .. } = self.costs;
        let link = self.links[usize::from(way.ccd)][1].take(now, ccd_write) + ccd_write;
        let channel = self.channels[channel].take(now, channel_write) + channel_write;
        let mut took = link.max(channel);
        if way.far != way.socket {
            took = took.max(self.between[usize::from(way.far & 1)].take(now, between) + between);
        }
        now + took
    }

    /// A line goes between a device at the first socket and DRAM: cycles of waiting.
    pub(super) fn device(&mut self, home: u16, phys: u32, access: Access, now: u64) -> u32 {
        let (cost, into) = match access {
            Access::Read => (self.costs.channel_read, 0),
            Access::Write => (self.costs.channel_write, home),
        };
        let (channel, now) = (self.channel(home, phys), milli(now));
        let mut wait = self.channels[channel].take(now, cost);
        if home != 0 {
            wait = wait.max(self.between[usize::from(into & 1)].take(now, self.costs.between));
        }
        cycles(wait)
    }

    /// Lines of a flush leave from time `now` (cycles) on, spread over the channels; when the last one has (cycles).
    pub(super) fn drain(
        &mut self,
        timing: &Timing,
        (ccd, socket): (u16, u16),
        work: &FlushWork,
        now: u64,
    ) -> u64 {
        let lines = work.lines_written_back();
        if lines == 0 {
            return now;
        }
        let from = milli(now);
        let mut took = lines * timing.write_back_core_milli;
        let share = lines * self.costs.ccd_write;
        took = took.max(self.links[usize::from(ccd)][1].take(from, share) + share);
        for (home, lines) in (0u16..).zip(work.written_back) {
            if lines == 0 {
                continue;
            }
            if home != socket {
                let share = lines * self.costs.between;
                took = took.max(self.between[usize::from(home & 1)].take(from, share) + share);
            }
            let share = lines * self.costs.channel_write / u64::from(self.channels_each);
            let first = usize::from(home) * self.channels_each as usize;
            for channel in &mut self.channels[first..first + self.channels_each as usize] {
                took = took.max(channel.take(from, share) + share);
            }
        }
        now + took.div_ceil(1000)
    }
}

/// Thousandths of a cycle as cycles; a wait of less than one is none.
#[inline(always)]
fn cycles(milli: u64) -> u32 {
    u32::try_from(milli / 1000).unwrap_or(u32::MAX)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_works_off_its_backlog_and_a_late_request_changes_no_clock() {
        let mut server = Server::default();
        assert_eq!(server.take(10_000, 3_000), 0);
        assert_eq!(server.take(11_000, 3_000), 2_000, "one of three cycles has passed");
        assert_eq!(server.take(5_000, 1_000), 5_000, "late: the queue as it was left");
        assert_eq!(server.take(15_000, 0), 2_000);
        assert_eq!(server.take(100_000, 0), 0);
    }
}
