//! What happens at the directory: who supplies a line, who loses it, and in which state the requester gets it.
//!
//! Rules (one tag; other tags are met first):
//! * A request looks in the own L3, then in the private caches of the own CCX, then in other CCXs' caches for a
//!   copy that is dirty or exclusive, then in DRAM. Clean shared copies of other CCXs do not answer.
//! * A line found in the own (victim) L3 moves to the requester, with its state.
//! * A read leaves the supplier its copy: Modified becomes Owned, Exclusive becomes Shared; the requester's copy
//!   is Shared, or Exclusive if nobody has one.
//! * A store takes every other copy away; dirty data moves to the requester, DRAM is not written.

use sev_arch::Access;

use super::directory::{Glance, PHYS_BITS, Sharers};
use super::machine::{Fetched, Machine, Request};
use super::pages::Tables;
use super::set::{State, bits};
use super::words::{Cause, LineRef, Served, Source};

/// What the own CCX had to say to a request.
#[derive(Clone, Copy, Debug)]
struct Near {
    found: Option<Fetched>,
    /// The other cores of the CCX that hold the line afterwards.
    left: u16,
    /// Cycles until the private copies that a store takes are gone.
    wait: u32,
}

impl<const W1: usize, const K1: usize, const W2: usize, const K2: usize, T: Tables<W1, W2>>
    Machine<W1, K1, W2, K2, T>
{
    /// A line that the private caches do not hold: where it comes from, and what else must be waited for.
    /// The directory names the requester afterwards.
    #[inline]
    pub(super) fn fetch(&mut self, request: Request) -> (Fetched, u32) {
        let Request { core, key, .. } = request;
        if self.inclusive {
            return self.fetch_inclusive(request);
        }
        let place = self.places[core];
        let ccx = usize::from(place.ccx);
        let mut wait = 0;
        let mut glance = self.directory.glance(key, ccx);
        if glance == Glance::OtherTags {
            wait = self.meet_other_tags(request);
            glance = self.directory.glance(key, ccx);
        }
        match glance {
            Glance::Nowhere => {
                self.directory.set_here(key, ccx, place.bit, false);
                (Fetched { source: self.dram(core, key), state: State::EXCLUSIVE }, wait)
            }
            Glance::Here { cores, l3 } => {
                let (fetched, near) = self.fetch_near(request, cores, l3);
                self.directory.set_here(key, ccx, near.left | place.bit, false);
                (fetched, wait.max(near.wait))
            }
            Glance::Spread | Glance::OtherTags => {
                let mut sharers = self.directory.load(key);
                let (fetched, far) = self.fetch_spread(request, &mut sharers);
                sharers.set_cores(ccx, sharers.cores[ccx] | place.bit);
                self.directory.store(key, &sharers);
                (fetched, wait.max(far))
            }
        }
    }

    /// A line that only the own CCX may hold.
    #[inline]
    fn fetch_near(&mut self, request: Request, cores: u16, l3: bool) -> (Fetched, Near) {
        let Request { core, key, access, .. } = request;
        let near = self.ask_own_ccx(request, cores, l3);
        let fetched = near.found.unwrap_or_else(|| Fetched {
            source: self.dram(core, key),
            state: if access == Access::Write { State::MODIFIED } else { State::EXCLUSIVE },
        });
        (fetched, near)
    }

    /// Asks the L3 and the other private caches of the own CCX. A store takes all their copies, a read the L3's
    /// only.
    fn ask_own_ccx(&mut self, request: Request, cores: u16, l3: bool) -> Near {
        let Request { core, key, access, .. } = request;
        let place = self.places[core];
        let ccx = usize::from(place.ccx);
        let mut left = cores & !place.bit;
        let mut found = None;
        if l3 && let Some(state) = self.l3.take(ccx, key) {
            found = Some(Fetched { source: Source::L3, state });
        }
        match access {
            Access::Read if found.is_some() => Near { found, left, wait: 0 },
            Access::Read => {
                while left != 0 {
                    let peer = self.core_at(ccx, left.trailing_zeros());
                    if self.share_private(peer, key).is_some() {
                        found = Some(Fetched { source: Source::OtherCoreSameCcx, state: State::SHARED });
                        break;
                    }
                    left &= left - 1;
                }
                Near { found, left, wait: 0 }
            }
            Access::Write => {
                let mut wait = 0;
                for local in bits(left) {
                    let peer = self.core_at(ccx, local);
                    if self.take_private(peer, key).is_some() {
                        self.stats.invalidated_private[Cause::Coherence as usize] += 1;
                        let source = Source::OtherCoreSameCcx;
                        wait = self.latency(source);
                        found = found.or(Some(Fetched { source, state: State::MODIFIED }));
                    }
                }
                Near { found, left: 0, wait }
            }
        }
    }

    /// A line that several CCXs may hold; brings its directory entry up to date, without the requester.
    fn fetch_spread(&mut self, request: Request, sharers: &mut Sharers) -> (Fetched, u32) {
        let Request { core, key, access, .. } = request;
        let ccx = usize::from(self.places[core].ccx);
        let (own_cores, own_l3) = (sharers.cores[ccx], sharers.l3s >> ccx & 1 != 0);
        let near = self.ask_own_ccx(request, own_cores, own_l3);
        sharers.set_cores(ccx, near.left);
        sharers.set_l3(ccx, false);
        if let (Some(fetched), Access::Read) = (near.found, access) {
            return (fetched, 0);
        }
        let mut supplier: Option<Source> = None;
        let mut farthest = near.wait;
        let mut held = false;
        let mut ccxs = (sharers.ccxs | sharers.l3s) & !(1 << ccx);
        while ccxs != 0 {
            let other = ccxs.trailing_zeros() as usize;
            ccxs &= ccxs - 1;
            let source = self.elsewhere(core, other);
            let (state, any) = match access {
                Access::Read => self.share_in(key, other, sharers),
                Access::Write => self.take_in(key, other, sharers, Cause::Coherence),
            };
            if !any {
                continue;
            }
            held = true;
            farthest = farthest.max(self.latency(source));
            if state.dirty() || state.writable() {
                supplier = Some(supplier.map_or(source, |s| s.min(source)));
                if access == Access::Read {
                    break;
                }
            }
        }
        let dram = self.dram(core, key);
        match access {
            Access::Read => {
                let state = if held { State::SHARED } else { State::EXCLUSIVE };
                (Fetched { source: supplier.unwrap_or(dram), state }, 0)
            }
            Access::Write => {
                let source = near.found.map(|f| f.source).or(supplier).unwrap_or(dram);
                (Fetched { source, state: State::MODIFIED }, farthest)
            }
        }
    }

    /// Takes the right to write away from every copy in a CCX: what they amounted to, and whether there was one.
    fn share_in(&mut self, key: u32, ccx: usize, sharers: &mut Sharers) -> (State, bool) {
        let (mut sum, mut any) = (State::SHARED, false);
        if sharers.l3s >> ccx & 1 != 0 {
            match self.l3.share(ccx, key) {
                Some(state) => (sum, any) = (state, true),
                None => sharers.set_l3(ccx, false),
            }
        }
        let mut left = sharers.cores[ccx];
        for local in bits(sharers.cores[ccx]) {
            match self.share_private(self.core_at(ccx, local), key) {
                Some(state) => {
                    any = true;
                    sum = sum.and(state);
                }
                None => left &= !(1 << local),
            }
        }
        sharers.set_cores(ccx, left);
        (sum, any)
    }

    /// Takes every copy in a CCX away: what they amounted to, and whether there was one.
    pub(super) fn take_in(
        &mut self,
        key: u32,
        ccx: usize,
        sharers: &mut Sharers,
        cause: Cause,
    ) -> (State, bool) {
        let (mut sum, mut any) = (State::SHARED, false);
        if sharers.l3s >> ccx & 1 != 0
            && let Some(state) = self.l3.take(ccx, key)
        {
            self.stats.invalidated_l3[cause as usize] += 1;
            (sum, any) = (state, true);
        }
        for local in bits(sharers.cores[ccx]) {
            if let Some(state) = self.take_private(self.core_at(ccx, local), key) {
                self.stats.invalidated_private[cause as usize] += 1;
                any = true;
                sum = sum.and(state);
            }
        }
        sharers.set_l3(ccx, false);
        sharers.set_cores(ccx, 0);
        (sum, any)
    }

    /// A store to a line that the core holds read-only: every other copy goes.
    pub(super) fn upgrade(&mut self, request: Request) -> Served {
        let Request { core, key, .. } = request;
        self.stats.upgrades += 1;
        let place = self.places[core];
        let ccx = usize::from(place.ccx);
        let mut source = Source::L3;
        if self.inclusive {
            source = self.upgrade_inclusive(request);
            self.grant(core, key);
            return Served { cycles: self.latency(source) + self.timing.store, source };
        }
        match self.directory.glance(key, ccx) {
            Glance::Here { cores, l3 } => {
                source = source.max(self.upgrade_own_ccx(request, cores, l3));
                self.directory.set_here(key, ccx, place.bit, false);
            }
            Glance::Spread | Glance::OtherTags | Glance::Nowhere => {
                let mut sharers = self.directory.load(key);
                let l3 = sharers.l3s >> ccx & 1 != 0;
                source = source.max(self.upgrade_own_ccx(request, sharers.cores[ccx], l3));
                let mut ccxs = (sharers.ccxs | sharers.l3s) & !(1 << ccx);
                while ccxs != 0 {
                    let other = ccxs.trailing_zeros() as usize;
                    ccxs &= ccxs - 1;
                    if self.take_in(key, other, &mut sharers, Cause::Coherence).1 {
                        source = source.max(self.elsewhere(core, other));
                    }
                }
                sharers.set_cores(ccx, place.bit);
                sharers.set_l3(ccx, false);
                self.directory.store(key, &sharers);
            }
        }
        self.grant(core, key);
        debug_assert!(self.obeys_moesi(key), "after a probe by core{core}: {:?}", LineRef::of_key(key));
        Served { cycles: self.latency(source) + self.timing.store, source }
    }

    /// The own CCX's part of an upgrade: the farthest copy taken, or the L3, which is always asked.
    fn upgrade_own_ccx(&mut self, request: Request, cores: u16, l3: bool) -> Source {
        let near = self.ask_own_ccx(request, cores, l3);
        let taken = near.found.is_some_and(|f| f.source == Source::L3);
        self.stats.invalidated_l3[Cause::Coherence as usize] += u64::from(taken);
        if near.wait != 0 { Source::OtherCoreSameCcx } else { Source::L3 }
    }

    /// Other tags hold the line. On an SME_COHERENT part their copies are written back and invalidated, and the
    /// request waits for that; elsewhere they stay, and only what a flush dropped is forgotten.
    pub(super) fn meet_other_tags(&mut self, request: Request) -> u32 {
        let Request { core, key, now, .. } = request;
        let line = LineRef::of_key(key);
        let mut tags = self.tags_of(line.phys) & !(1 << line.tag.0);
        let mut wait = 0;
        while tags != 0 {
            let other = tags.trailing_zeros() << PHYS_BITS | line.phys;
            tags &= tags - 1;
            if !self.coherent_tags {
                if self.hints && !self.inclusive {
                    let sharers = self.verified(other);
                    self.directory.store(other, &sharers);
                }
                continue;
            }
            wait = wait.max(self.expel(other, Some(core), Cause::Coherence, now).1);
        }
        wait
    }

    /// Takes every copy of a line under one tag away, writing it back if dirty: whether that was needed (if any
    /// was there), and how long a core waits for the farthest.
    pub(super) fn expel(
        &mut self,
        key: u32,
        core: Option<usize>,
        cause: Cause,
        now: u64,
    ) -> (Option<bool>, u32) {
        let mut sharers = self.sharers(key);
        let (mut found, mut wait) = (None, 0);
        let mut ccxs = sharers.ccxs | sharers.l3s;
        while ccxs != 0 {
            let ccx = ccxs.trailing_zeros() as usize;
            ccxs &= ccxs - 1;
            let (state, any) = self.take_in(key, ccx, &mut sharers, cause);
            if any {
                found = Some(found.unwrap_or(false) | state.dirty());
                wait = wait.max(core.map_or(0, |c| self.latency(self.elsewhere(c, ccx))));
            }
            if state.dirty() {
                self.write_back(key, ccx, cause, now);
            }
        }
        if !self.inclusive {
            self.directory.store(key, &sharers);
        }
        debug_assert!(self.verified(key).is_empty(), "after a probe that expels: {:?}", LineRef::of_key(key));
        (found, wait)
    }

    /// The directory entry of a key without the caches that do not hold it any more.
    pub(super) fn verified(&self, key: u32) -> Sharers {
        let mut sharers = self.sharers(key);
        let mut ccxs = sharers.ccxs | sharers.l3s;
        while ccxs != 0 {
            let ccx = ccxs.trailing_zeros() as usize;
            ccxs &= ccxs - 1;
            let held = |local: &u32| self.peek_private(self.core_at(ccx, *local), key).is_some();
            let cores = bits(sharers.cores[ccx]).filter(held).fold(0, |mask, local| mask | 1 << local);
            sharers.set_cores(ccx, cores);
            let l3 = sharers.l3s >> ccx & 1 != 0 && self.l3.peek(ccx, key).is_some();
            sharers.set_l3(ccx, l3);
        }
        sharers
    }

    /// What is recorded of who holds a line: by the directory, or by an inclusive L3.
    pub(super) fn sharers(&self, key: u32) -> Sharers {
        if self.inclusive { self.sharers_inclusive(key) } else { self.directory.load(key) }
    }

    /// The tags under which a line may be held, one bit each.
    pub(super) fn tags_of(&self, phys: u32) -> u64 {
        if self.inclusive { self.tags_inclusive(phys) } else { self.directory.tags_of(phys) }
    }
}
