//! Whole-cache flushes, CLFLUSH, DMA, and the questions of the oracle.
//!
//! A flush takes time in proportion to the dirty lines; invalidating takes none: the cache's epoch moves on, and
//! its sets notice when they are next looked at.

use sev_arch::{Access, CcxId, CoreId, FlushOp, Tag};

use super::directory::PHYS_BITS;
use super::machine::Machine;
use super::pages::Tables;
use super::set::bits;
use super::words::{Cause, DirtyHolders, FlushWork, Found, LineRef};
use crate::lattice::{Held, Place};

impl<const W1: usize, const K1: usize, const W2: usize, const K2: usize, T: Tables<W1, W2>>
    Machine<W1, K1, W2, K2, T>
{
    /// A part without WBNOINVD ignores the prefix: it is WBINVD.
    pub(super) fn effective(&self, op: FlushOp) -> FlushOp {
        if self.wbnoinvd { op } else { FlushOp::Wbinvd }
    }

    pub(super) fn flush_private(&mut self, core: usize, op: FlushOp) -> FlushWork {
        let mut work = FlushWork { lines_walked: self.l2.shape().lines(), ..FlushWork::default() };
        self.forget_last(core);
        let (l1, l2) = (&mut self.l1, &mut self.l2);
        l1.clean(core, |key| {
            let held = l2.soil(core, key);
            debug_assert!(held, "an L2 includes its L1");
        });
        let two = self.topology.sockets() > 1;
        let (flights, ccx) = (&mut self.flights, usize::from(self.places[core].ccx));
        l2.clean(core, |key| {
            flights.load(key, ccx);
            work.written_back[usize::from(two && key >> 15 & 1 != 0)] += 1;
            work.tags |= 1 << (key >> PHYS_BITS);
        });
        if self.effective(op) == FlushOp::Wbinvd {
            self.l1.wipe(core);
            work.invalidated = self.l2.invalidate_clean(core);
            self.stats.invalidated_private[Cause::Flush as usize] += work.invalidated;
            self.hints |= work.invalidated != 0;
        }
        self.count(&work);
        work
    }

    pub(super) fn flush_l3(&mut self, ccx: usize, op: FlushOp) -> FlushWork {
        let op = self.effective(op);
        let mut work = FlushWork::default();
        if self.inclusive && op == FlushOp::Wbinvd {
            // what the L3 loses, its private caches lose
            for core in 0..usize::from(self.topology.cores()) {
                let private = self.flush_private(core, op);
                work.add(&FlushWork { lines_walked: 0, ..private });
            }
        }
        let mut own = FlushWork { lines_walked: self.l3.shape().lines(), ..FlushWork::default() };
        let two = self.topology.sockets() > 1;
        let flights = &mut self.flights;
        self.l3.clean(ccx, |key| {
            flights.load(key, ccx);
            own.written_back[usize::from(two && key >> 15 & 1 != 0)] += 1;
            own.tags |= 1 << (key >> PHYS_BITS);
        });
        if op == FlushOp::Wbinvd {
            own.invalidated = self.l3.invalidate_clean(ccx);
            self.stats.invalidated_l3[Cause::Flush as usize] += own.invalidated;
            self.hints |= own.invalidated != 0;
        }
        self.count(&own);
        work.add(&own);
        work
    }

    fn count(&mut self, work: &FlushWork) {
        let lines = work.lines_written_back();
        self.stats.written_back[Cause::Flush as usize] += lines;
        self.stats.dram_bytes_written += 64 * lines;
    }

    pub(super) fn clflush(&mut self, line: LineRef, now: u64) -> Found {
        self.each_tag(line, |m, key| m.expel(key, None, Cause::Flush, now).0)
    }

    pub(super) fn clwb(&mut self, line: LineRef, now: u64) -> Found {
        self.each_tag(line, |m, key| m.clean_line(key, now))
    }

    /// Does something with a line under each tag that a CLFLUSH of it reaches; `f` says whether a copy was dirty, if
    /// there was one.
    fn each_tag(&mut self, line: LineRef, mut f: impl FnMut(&mut Self, u32) -> Option<bool>) -> Found {
        let mut tags = if self.coherent_tags {
            line.key();
            self.tags_of(line.phys)
        } else {
            1 << line.tag.0
        };
        let mut found = Found::Absent;
        while tags != 0 {
            let tag = Tag(u8::try_from(tags.trailing_zeros()).unwrap_or(u8::MAX));
            tags &= tags - 1;
            let one = match f(self, LineRef { tag, ..line }.key()) {
                None => Found::Absent,
                Some(false) => Found::Clean,
                Some(true) => Found::Dirty,
            };
            found = found.max(one);
        }
        found
    }

    /// Writes a line back under one tag and leaves every copy clean: whether one was dirty, if there was one.
    fn clean_line(&mut self, key: u32, now: u64) -> Option<bool> {
        let sharers = self.verified(key);
        let mut found = None;
        let mut ccxs = sharers.ccxs | sharers.l3s;
        while ccxs != 0 {
            let ccx = ccxs.trailing_zeros() as usize;
            ccxs &= ccxs - 1;
            let mut dirty = false;
            for local in bits(sharers.cores[ccx]) {
                let core = self.core_at(ccx, local);
                // the next store must be seen to make it dirty again
                self.forget_last(core);
                dirty |= self.l1.clean_line(core, key) | self.l2.clean_line(core, key);
            }
            if sharers.l3s >> ccx & 1 != 0 {
                dirty |= self.l3.clean_line(ccx, key);
            }
            if dirty {
                self.write_back(key, ccx, Cause::Flush, now);
            }
            found = Some(found.unwrap_or(false) | dirty);
        }
        found
    }

    /// Writes back and invalidates a line under one tag everywhere, whatever the part says of other tags.
    pub(super) fn flush_tag(&mut self, line: LineRef, now: u64) -> Found {
        match self.expel(line.key(), None, Cause::Flush, now).0 {
            None => Found::Absent,
            Some(false) => Found::Clean,
            Some(true) => Found::Dirty,
        }
    }

    /// The dirty lines of a core's private caches, or of a CCX's L3; a line that is dirty in both L1 and L2 twice.
    pub(super) fn dirty_in(&self, place: Place) -> Vec<LineRef> {
        let mut lines = Vec::new();
        let mut note = |key| lines.push(LineRef::of_key(key));
        match place {
            Place::Private(core) => {
                self.l1.each_dirty(core.index(), &mut note);
                self.l2.each_dirty(core.index(), note);
            }
            Place::L3(ccx) => self.l3.each_dirty(ccx.index(), note),
            Place::Flight(_) => {}
        }
        lines
    }

    /// INVD's part of one cache: everything is dropped, nothing is written back.
    pub(super) fn drop_all(&mut self, place: Place) {
        match place {
            Place::Private(core) => {
                let core = core.index();
                self.forget_last(core);
                self.l1.clean(core, |_| {});
                self.l2.clean(core, |_| {});
                self.l1.wipe(core);
                let invalidated = self.l2.invalidate_clean(core);
                self.stats.invalidated_private[Cause::Flush as usize] += invalidated;
                self.hints |= invalidated != 0;
            }
            Place::L3(ccx) => {
                if self.inclusive {
                    for core in 0..self.topology.cores() {
                        if self.topology.ccx_of(CoreId(core)) == ccx {
                            self.drop_all(Place::Private(CoreId(core)));
                        }
                    }
                }
                self.l3.clean(ccx.index(), |_| {});
                let invalidated = self.l3.invalidate_clean(ccx.index());
                self.stats.invalidated_l3[Cause::Flush as usize] += invalidated;
                self.hints |= invalidated != 0;
            }
            Place::Flight(_) => {}
        }
    }

    pub(super) fn dma(&mut self, phys: u32, access: Access, now: u64) -> (Found, u32) {
        let line = LineRef { phys, tag: Tag::HOST };
        let home = self.home(line.key());
        match access {
            Access::Read => {
                let found = self
                    .holders(line)
                    .into_iter()
                    .map(|(_, held)| if held == Held::Dirty { Found::Dirty } else { Found::Clean })
                    .max()
                    .unwrap_or(Found::Absent);
                if found == Found::Dirty {
                    return (found, 0);
                }
                self.stats.dram_bytes_read += 64;
                (found, self.traffic.device(home, phys, access, now))
            }
            Access::Write => {
                let found = match self.expel(line.key(), None, Cause::Coherence, now).0 {
                    None => Found::Absent,
                    Some(false) => Found::Clean,
                    Some(true) => Found::Dirty,
                };
                self.stats.dram_bytes_written += 64;
                (found, self.traffic.device(home, phys, access, now))
            }
        }
    }

    /// Who holds a line, exactly; cores first, in order, then L3s.
    pub(super) fn holders(&self, line: LineRef) -> Vec<(Place, Held)> {
        let key = line.key();
        let sharers = self.verified(key);
        let held = |dirty| if dirty { Held::Dirty } else { Held::Clean };
        let mut holders = Vec::new();
        let mut private_dirty = false;
        for core in 0..self.topology.cores() {
            let place = self.places[usize::from(core)];
            if sharers.cores[usize::from(place.ccx)] & place.bit != 0
                && let Some(state) = self.peek_private(usize::from(core), key)
            {
                private_dirty |= state.dirty();
                holders.push((Place::Private(CoreId(core)), held(state.dirty())));
            }
        }
        for ccx in 0..self.topology.ccxs() {
            if sharers.l3s >> ccx & 1 != 0
                && let Some(state) = self.l3.peek(usize::from(ccx), key)
                // an inclusive L3's copy is no copy while a private cache has a newer one
                && !(self.inclusive && private_dirty)
            {
                holders.push((Place::L3(CcxId(ccx)), held(state.dirty())));
            }
        }
        holders
    }

    /// Where the dirty lines of a tag are. In time of the dirty lines.
    pub(super) fn dirty_holders(&self, tag: Tag) -> DirtyHolders {
        let mut holders = DirtyHolders::default();
        let of_tag = |key| LineRef::of_key(key).tag == tag;
        for core in 0..self.topology.cores() {
            let index = usize::from(core);
            let mut lines = 0;
            self.l2.each_dirty(index, |key| lines += u64::from(of_tag(key)));
            self.l1.each_dirty(index, |key| {
                let twice = self.l2.peek(index, key).is_some_and(|state| state.dirty());
                lines += u64::from(of_tag(key) && !twice);
            });
            if lines != 0 {
                holders.cores.push((CoreId(core), lines));
            }
        }
        for ccx in 0..self.topology.ccxs() {
            let mut lines = 0;
            self.l3.each_dirty(usize::from(ccx), |key| lines += u64::from(of_tag(key)));
            if lines != 0 {
                holders.l3s.push((CcxId(ccx), lines));
            }
        }
        holders
    }
}
