//! The inclusive L3 of the speed comparison: one CCX, the L3 has a copy of whatever its private caches have, and
//! is their directory: each way says which cores may hold its line.
//!
//! The writable plane of such an L3 says that a private cache may hold the line Exclusive or Modified. Its copy
//! is then older than that one; dirty data read by another core is put down in the L3.

use sev_arch::{Access, CcxId, CoreId};

use super::directory::{PHYS_LIMIT, Sharers};
use super::machine::{Fetched, Machine, Request};
use super::pages::Tables;
use super::set::{State, Victim, bits};
use super::words::{Cause, LineRef, Source};
use crate::lattice::MoveKind;

impl<const W1: usize, const K1: usize, const W2: usize, const K2: usize, T: Tables<W1, W2>>
    Machine<W1, K1, W2, K2, T>
{
    /// A line that the private caches of the requester do not hold, and what else must be waited for.
    #[inline]
    pub(super) fn fetch_inclusive(&mut self, request: Request) -> (Fetched, u32) {
        let Request { core, key, access, .. } = request;
        let own = self.places[core].bit;
        let mut set = self.l3.set(0, key);
        let bit = set.find(key);
        if bit == 0 {
            let other_tags = self.several_tags && set.of_phys(LineRef::of_key(key).phys, PHYS_LIMIT - 1) != 0;
            let wait = if other_tags { self.meet_other_tags(request) } else { 0 };
            // makes room, which takes every private copy of the old line along
            if let Some((old, cores)) = self.l3.fill_held(0, key, State::EXCLUSIVE, own) {
                self.expel_inclusive(old, cores, request.now);
            }
            let state = if access == Access::Write { State::MODIFIED } else { State::EXCLUSIVE };
            return (Fetched { source: self.dram(core, key), state }, wait);
        }
        set.touch(bit);
        let owned = set.state(bit).writable();
        let mut others = set.sharers(bit) & !own;
        if others == 0 {
            // E, or M: nobody else is concerned
            set.grant(bit);
            set.set_sharers(bit, own);
            return (Fetched { source: Source::L3, state: State::EXCLUSIVE }, 0);
        }
        let mut dirty = false;
        match access {
            Access::Read => {
                if owned || self.hints {
                    for local in bits(others) {
                        match self.demote_private(local as usize, key) {
                            Some(soiled) => dirty |= soiled,
                            None => others &= !(1 << local),
                        }
                    }
                }
            }
            Access::Write => {
                dirty = self.take_others(others, key);
                others = 0;
            }
        }
        let mut set = self.l3.set_unaged(0, key);
        set.set_sharers(bit, others | own);
        if dirty {
            set.soil(bit);
        }
        let state = if others == 0 {
            set.grant(bit);
            State::EXCLUSIVE
        } else {
            set.share(bit);
            State::SHARED
        };
        if dirty {
            self.l3.mark_dirty(0, key);
        }
        (Fetched { source: if dirty { Source::OtherCoreSameCcx } else { Source::L3 }, state }, 0)
    }

    /// Makes a core's private copy one to read, its dirty data to be put down in the L3: whether there was any, if
    /// there was a copy.
    #[inline(always)]
    fn demote_private(&mut self, core: usize, key: u32) -> Option<bool> {
        let mut set = self.l2.set(core, key);
        let bit = set.find(key);
        if bit == 0 {
            return None;
        }
        let soiled = set.demote(bit);
        self.forget_last(core);
        let mut set = self.l1.set_unaged(core, key);
        let bit = set.find(key);
        Some(set.demote(bit) | soiled)
    }

    /// The other private copies of a line that a store upgrades go: the farthest of them, or the L3.
    pub(super) fn upgrade_inclusive(&mut self, request: Request) -> Source {
        let Request { core, key, .. } = request;
        let own = self.places[core].bit;
        let mut set = self.l3.set(0, key);
        let bit = set.find(key);
        debug_assert_ne!(bit, 0, "an inclusive L3 includes its L2s");
        let others = set.sharers(bit) & !own;
        set.set_sharers(bit, own);
        set.grant(bit);
        set.touch(bit);
        let before = self.stats.invalidated_private[Cause::Coherence as usize];
        if self.take_others(others, key) {
            self.l3.soil(0, key);
        }
        let taken = self.stats.invalidated_private[Cause::Coherence as usize] != before;
        if taken { Source::OtherCoreSameCcx } else { Source::L3 }
    }

    /// A line has been pushed out of a core's private caches.
    #[inline]
    pub(super) fn spill_inclusive(&mut self, core: usize, victim: Victim) {
        let Victim { key, state } = victim;
        let own = self.places[core].bit;
        let mut set = self.l3.set(0, key);
        let bit = set.find(key);
        debug_assert_ne!(bit, 0, "an inclusive L3 includes its L2s");
        let others = set.sharers(bit) & !own;
        set.set_sharers(bit, others);
        if state.dirty() {
            set.soil(bit);
            self.l3.mark_dirty(0, key);
        }
        if self.is_tracked(key) {
            let core = CoreId(u16::try_from(core).unwrap_or(u16::MAX));
            let kind = if state.dirty() { MoveKind::PrivateToL3(core) } else { MoveKind::PrivateDrop(core) };
            self.tell(key, kind);
        }
    }

    /// Takes private copies away; whether one was dirty, which the L3 then has to be.
    #[inline]
    fn take_others(&mut self, cores: u16, key: u32) -> bool {
        let mut dirty = false;
        for local in bits(cores) {
            if let Some(state) = self.take_private(local as usize, key) {
                self.stats.invalidated_private[Cause::Coherence as usize] += 1;
                dirty |= state.dirty();
            }
        }
        dirty
    }

    /// A line loses its place in the L3, and with it every private copy.
    fn expel_inclusive(&mut self, old: Victim, cores: u16, now: u64) {
        let Victim { key, mut state } = old;
        for local in bits(cores) {
            let core = local as usize;
            let Some(inner) = self.take_private(core, key) else { continue };
            self.stats.invalidated_private[Cause::Eviction as usize] += 1;
            state = state.soiled_by(inner);
            if self.is_tracked(key) {
                let core = CoreId(u16::try_from(core).unwrap_or(u16::MAX));
                let kind =
                    if inner.dirty() { MoveKind::PrivateToL3(core) } else { MoveKind::PrivateDrop(core) };
                self.tell(key, kind);
            }
        }
        if state.dirty() {
            self.write_back(key, 0, Cause::Eviction, now);
        }
        self.tell_l3_left(CcxId(0), Victim { key, state });
    }

    /// Who holds a line, as its way in the L3 says.
    pub(super) fn sharers_inclusive(&self, key: u32) -> Sharers {
        self.l3.look(0, key, |set| {
            let mut sharers = Sharers::NONE;
            let bit = set.find(key);
            if bit != 0 {
                sharers.set_l3(0, true);
                sharers.set_cores(0, set.sharers(bit));
            }
            sharers
        })
    }

    /// The tags under which the L3 holds a line: they are all in one set.
    pub(super) fn tags_inclusive(&self, phys: u32) -> u64 {
        self.l3.look(0, phys, |set| {
            let ways = bits(set.of_phys(phys, PHYS_LIMIT - 1));
            ways.fold(0, |tags, way| tags | 1 << LineRef::of_key(set.key(way)).tag.0)
        })
    }
}
