//! Moves forced from outside: a schedule of the explorer made over the timed caches.

use sev_arch::{CcxId, CoreId};

use super::machine::Machine;
use super::pages::Tables;
use super::set::Victim;
use super::words::{Cause, LineRef};
use super::{Hierarchy, Ways};

impl<const W1: usize, const K1: usize, const W2: usize, const K2: usize, T: Tables<W1, W2>>
    Machine<W1, K1, W2, K2, T>
{
    fn force_out(&mut self, core: usize, line: LineRef, to_l3: bool) {
        let key = line.key();
        if to_l3 {
            if let Some(state) = self.l2.take(core, key) {
                self.spill(core, Victim { key, state }, 0);
            }
        } else if self.take_private(core, key).is_some() {
            let place = self.places[core];
            self.directory.leave_core(key, usize::from(place.ccx), place.bit, false);
        }
    }

    fn force_out_l3(&mut self, ccx: usize, line: LineRef) {
        let key = line.key();
        let Some(state) = self.l3.take(ccx, key) else { return };
        self.directory.leave_l3(key, ccx);
        if state.dirty() {
            self.write_back(key, ccx, Cause::Eviction, 0);
        }
    }
}

impl Hierarchy {
    /// Pushes a line out of a core's private caches, into its L3 or (if it is clean) away. Not told as a move; a
    /// line that the L3 loses for it is.
    pub fn force_out(&mut self, core: CoreId, line: LineRef, to_l3: bool) {
        match &mut self.ways {
            Ways::Eight(m) => m.force_out(core.index(), line, to_l3),
            Ways::Packed(m) => m.force_out(core.index(), line, to_l3),
            Ways::Sixteen(m) => m.force_out(core.index(), line, to_l3),
        }
    }

    /// Pushes a line out of an L3, to DRAM if it is dirty. Not told as a move.
    pub fn force_out_l3(&mut self, ccx: CcxId, line: LineRef) {
        match &mut self.ways {
            Ways::Eight(m) => m.force_out_l3(ccx.index(), line),
            Ways::Packed(m) => m.force_out_l3(ccx.index(), line),
            Ways::Sixteen(m) => m.force_out_l3(ccx.index(), line),
        }
    }
}
