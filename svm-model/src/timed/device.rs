//! Devices with a bandwidth: they go round their buffers page by page, and slow down when DRAM cannot follow.

use sev_arch::Access as Kind;
use sim_core::random::Stream;

use super::engine::Run;
use super::plan::{DeviceLoad, GuestStream};

/// Lines of a page.
const LINES: u32 = 64;

/// A device's running state.
#[derive(Clone, Debug)]
pub(super) struct Device {
    load: DeviceLoad,
    page: u32,
    stream: Stream,
    milli: u64,
}

impl Device {
    pub(super) fn new(seed: u64, number: u64, load: DeviceLoad) -> Device {
        Device { load, page: 0, stream: Stream::new(seed, number, 5), milli: 0 }
    }
}

impl<G: GuestStream> Run<'_, G> {
    /// A device transfers its next page.
    pub(super) fn device(&mut self, agent: usize, number: u16, now: u64) {
        let device = &mut self.devices[usize::from(number)];
        let first = device.load.first_line + device.page * LINES;
        device.page = (device.page + 1) % device.load.pages.max(1);
        let kind = if device.stream.percent(device.load.write_percent) { Kind::Write } else { Kind::Read };
        device.milli += device.load.page_milli;
        let due = now + device.milli / 1000;
        device.milli %= 1000;
        let served = self.memory.device(first..first + LINES, kind, now);
        self.schedule(agent, due.max(served).max(now + 1));
    }
}
