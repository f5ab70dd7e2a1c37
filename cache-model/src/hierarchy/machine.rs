//! The caches of a machine and the path of an access through them, except what happens at the directory.

use sev_arch::{Access, CcxId, CoreId};

use super::bank::Bank;
use super::directory::{Directory, PHYS_BITS};
use super::flights::Flights;
use super::pages::{Lent, Owned, Tables};
use super::set::{Pushed, State, Victim};
use super::traffic::{Traffic, Way};
use super::words::{Cause, LineRef, Served, Source, Stats};
use crate::lattice::{Move, MoveKind};
use crate::part::{L3Kind, Part, Timing, Topology};

const NO_TAG: u32 = u32::MAX;
const NO_LINE: u64 = u64::MAX;

/// The caches of a machine: sets of `W1` words with room for `K1` ways in the L1s, of `W2` words and `K2` ways in the L2s.
#[derive(Clone, Debug)]
pub(super) struct Machine<
    const W1: usize,
    const K1: usize,
    const W2: usize,
    const K2: usize,
    T: Tables<W1, W2> = Owned,
> {
    pub(super) l1: Bank<W1, K1, false, T::L1>,
    pub(super) l2: Bank<W2, K2, false, T::L2>,
    pub(super) l3: Bank<16, 16, true, T::L3>,
    pub(super) directory: Directory<T::Directory>,
    pub(super) topology: Topology,
    pub(super) places: Vec<CorePlace>,
    pub(super) timing: Timing,
    pub(super) traffic: Traffic,
    pub(super) stats: Stats,
    pub(super) moves: Vec<Move>,
    pub(super) flights: Flights,
    tracked: Tracked,
    latency: [u32; 8],
    /// Of a read and of a store that the L1 satisfies.
    l1_cycles: [u32; 2],
    /// By core: the line that it read and the line that it stored to last, if another such access would change
    /// nothing: its L1 satisfied it, and nothing has happened to that L1 since. [`NO_LINE`] otherwise.
    last: Vec<[u64; 2]>,
    /// 1 with two sockets: the bit that tells their homes apart.
    far_home: u16,
    pub(super) coherent_tags: bool,
    pub(super) wbnoinvd: bool,
    pub(super) inclusive: bool,
    /// A flush has invalidated something: directory entries may name caches in vain.
    pub(super) hints: bool,
    /// The tag of the first miss, [`NO_TAG`] before it, and whether another one has missed since.
    first_tag: u32,
    pub(super) several_tags: bool,
}

/// Where a core is.
#[derive(Clone, Copy, Debug)]
pub(super) struct CorePlace {
    pub(super) ccx: u16,
    /// Its bit among the cores of the CCX.
    pub(super) bit: u16,
    pub(super) socket: u16,
    pub(super) ccd: u16,
}

/// The lines whose copies' moves are told.
#[derive(Clone, Default, Debug)]
struct Tracked {
    lines: Vec<u64>,
    count: u32,
}

/// A request on its way: who wants what, when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) core: usize,
    pub(super) key: u32,
    pub(super) access: Access,
    pub(super) now: u64,
}

/// What a request found outside the core's private caches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetched {
    pub(super) source: Source,
    /// The state the line is put into the private caches with, before a store.
    pub(super) state: State,
}

impl<const W1: usize, const K1: usize, const W2: usize, const K2: usize> Machine<W1, K1, W2, K2> {
    pub(super) fn new(part: &Part, timing: &Timing, memory_lines: u32) -> Machine<W1, K1, W2, K2> {
        let topology = *part.topology();
        let inclusive = part.l3_kind() == L3Kind::Inclusive;
        assert!(!inclusive || topology.ccxs() == 1, "an inclusive L3 is modelled for one CCX only");
        let places = (0..topology.cores())
            .map(|core| {
                let ccx = topology.ccx_of(CoreId(core));
                CorePlace {
                    ccx: ccx.0,
                    bit: 1 << (core % topology.cores_per_ccx()),
                    socket: topology.socket_of(ccx),
                    ccd: topology.ccd_of(ccx),
                }
            })
            .collect();
        Machine {
            l1: Bank::new(part.l1d(), topology.cores()),
            l2: Bank::new(part.l2(), topology.cores()),
            l3: Bank::new(part.l3(), topology.ccxs()),
            directory: Directory::new(memory_lines),
            topology,
            places,
            traffic: Traffic::new(timing, &topology),
            stats: Stats::default(),
            moves: Vec::new(),
            flights: Flights::default(),
            tracked: Tracked { lines: vec![0; (memory_lines as usize).div_ceil(64)], count: 0 },
            latency: [
                timing.l1_hit,
                timing.l2_hit,
                timing.l3_hit,
                timing.same_ccx,
                timing.other_ccx,
                timing.other_socket,
                timing.dram_local,
                timing.dram_remote,
            ],
            last: vec![[NO_LINE; 2]; usize::from(topology.cores())],
            l1_cycles: [timing.l1_hit, timing.l1_hit + timing.store],
            timing: timing.clone(),
            far_home: topology.sockets() - 1,
            coherent_tags: part.sme_coherent(),
            wbnoinvd: part.wbnoinvd(),
            inclusive,
            hints: false,
            first_tag: NO_TAG,
            several_tags: false,
        }
    }

    /// Does something with the same machine, its tables borrowed, which makes them cheaper to reach.
    pub(super) fn lend(&mut self, f: impl FnOnce(&mut Machine<W1, K1, W2, K2, Lent<'_>>)) {
        let mut lent = Machine {
            l1: self.l1.lend(),
            l2: self.l2.lend(),
            l3: self.l3.lend(),
            directory: self.directory.lend(),
            topology: self.topology,
            places: std::mem::take(&mut self.places),
            timing: self.timing.clone(),
            traffic: std::mem::take(&mut self.traffic),
            stats: self.stats,
            moves: std::mem::take(&mut self.moves),
            flights: std::mem::take(&mut self.flights),
            tracked: std::mem::take(&mut self.tracked),
            latency: self.latency,
            l1_cycles: self.l1_cycles,
            last: std::mem::take(&mut self.last),
            far_home: self.far_home,
            coherent_tags: self.coherent_tags,
            wbnoinvd: self.wbnoinvd,
            inclusive: self.inclusive,
            hints: self.hints,
            first_tag: self.first_tag,
            several_tags: self.several_tags,
        };
        f(&mut lent);
        let Machine { l1, l2, l3, directory, places, last, traffic, stats, moves, flights, tracked, .. } =
            lent;
        (self.places, self.last, self.traffic, self.stats) = (places, last, traffic, stats);
        (self.moves, self.flights, self.tracked) = (moves, flights, tracked);
        (self.hints, self.first_tag, self.several_tags) = (lent.hints, lent.first_tag, lent.several_tags);
        let (l1, l2, l3) = (l1.into_parts(), l2.into_parts(), l3.into_parts());
        let directory = directory.into_parts();
        self.l1.give_back(l1);
        self.l2.give_back(l2);
        self.l3.give_back(l3);
        self.directory.give_back(directory);
    }
}

impl<const W1: usize, const K1: usize, const W2: usize, const K2: usize, T: Tables<W1, W2>>
    Machine<W1, K1, W2, K2, T>
{
    /// An access that the core's own caches satisfy: its latency and source; `None` changes nothing.
    #[inline(always)]
    pub(super) fn hit(&mut self, core: usize, key: u32, access: Access) -> Option<Served> {
        if let Some(cycles) = self.hit_l1(core, key, access) {
            return Some(Served { cycles, source: Source::L1 });
        }
        self.hit_l2(core, key, access)
    }

    #[inline]
    pub(super) fn hit_l2(&mut self, core: usize, key: u32, access: Access) -> Option<Served> {
        let mut set = self.l2.set(core, key);
        let bit = set.find(key);
        if bit == 0 {
            return None;
        }
        let state = set.state(bit);
        let write = access == Access::Write;
        if write && !state.writable() {
            return None;
        }
        set.touch(bit);
        self.stats.l2_hits += 1;
        // the L2 keeps its own dirty bit; the L1's says what was stored since
        self.fill_l1(core, key, state.with_dirty(write));
        let store = if write { self.timing.store } else { 0 };
        Some(Served { cycles: self.latency[1] + store, source: Source::L2 })
    }

    /// Any access, carried out at this instant.
    #[inline(always)]
    pub(super) fn access(&mut self, request: Request) -> Served {
        match self.hit_l1(request.core, request.key, request.access) {
            Some(cycles) => Served { cycles, source: Source::L1 },
            None => self.access_l2(request),
        }
    }

    /// An access that the L1 satisfies, and its cycles; `None` changes nothing. Reads and writes take the same
    /// branches: which it is, nobody could predict.
    #[inline(always)]
    pub(super) fn hit_l1(&mut self, core: usize, key: u32, access: Access) -> Option<u32> {
        let write = usize::from(access == Access::Write);
        let cycles = self.l1_cycles[write];
        let last = &mut self.last[core];
        if last[write] == u64::from(key) {
            return Some(cycles);
        }
        let (bit, soiled) = self.l1.set_unaged(core, key).hit(key, (write as u64).wrapping_neg());
        if bit == 0 {
            return None;
        }
        *last = [u64::from(key), u64::from(key) | (write as u64).wrapping_sub(1)];
        if soiled {
            self.l1.mark_dirty(core, key);
        }
        Some(cycles)
    }

    /// Something happens to a core's L1 that is no hit.
    #[inline(always)]
    pub(super) fn forget_last(&mut self, core: usize) {
        self.last[core] = [NO_LINE; 2];
    }

    /// The line of a core's last access, and whether it was a store, if a repetition needs no look at the L1.
    pub(super) fn last(&self, core: usize) -> Option<(u32, bool)> {
        let [read, stored] = self.last[core];
        u32::try_from(read).ok().map(|key| (key, stored == read))
    }

    /// An access that misses the L1.
    #[inline(never)]
    pub(super) fn access_l2(&mut self, request: Request) -> Served {
        let Request { core, key, access, .. } = request;
        let mut set = self.l2.set(core, key);
        let bit = set.find(key);
        if bit == 0 {
            return self.miss(request);
        }
        let state = set.state(bit);
        let write = access == Access::Write;
        if write && !state.writable() {
            return self.upgrade(request);
        }
        set.touch(bit);
        self.stats.l2_hits += 1;
        // the L2 keeps its own dirty bit; the L1's says what was stored since
        self.fill_l1(core, key, state.with_dirty(write));
        let store = if write { self.timing.store } else { 0 };
        Served { cycles: self.latency[1] + store, source: Source::L2 }
    }

    #[inline(always)]
    fn miss(&mut self, request: Request) -> Served {
        let Request { core, key, access, .. } = request;
        self.note_tag(key);
        if self.hints {
            self.note_refill(core, key);
        }
        let (fetched, wait) = self.fetch(request);
        self.stats.misses[fetched.source as usize & 7] += 1;
        let write = access == Access::Write;
        let mut cycles = self.latency[fetched.source as usize & 7].max(wait);
        cycles += self.queue(request, fetched.source);
        if write {
            cycles += self.timing.store;
        }
        let state = if write { State::MODIFIED } else { fetched.state };
        match self.l2.fill_aged(core, key, state).0 {
            Pushed::Nothing => {}
            Pushed::Line(victim) => self.spill(core, victim, request.now),
            // without the flush it would have been pushed into the L3
            Pushed::Ghost(old) => {
                if !self.inclusive {
                    self.l3.remember(usize::from(self.places[core].ccx), old);
                }
            }
        }
        self.fill_l1(core, key, state.with_dirty(false));
        debug_assert!(self.obeys_moesi(key), "after a fill by core{core}: {:?}", LineRef::of_key(key));
        Served { cycles, source: fetched.source }
    }

    /// Counts a miss of a line that a flush took away, and forgets that it did.
    #[inline(never)]
    fn note_refill(&mut self, core: usize, key: u32) {
        let ccx = usize::from(self.places[core].ccx);
        let mut refill = self.l2.has_ghosts(core) && self.l2.forget_ghost(core, key);
        refill |= self.l3.has_ghosts(ccx) && self.l3.forget_ghost(ccx, key);
        self.stats.refill_misses += u64::from(refill);
    }

    /// Loads the servers that a line from this source passes: cycles of waiting, and what decryption adds.
    #[inline(always)]
    fn queue(&mut self, request: Request, source: Source) -> u32 {
        let Request { core, key, now, .. } = request;
        let place = self.places[core];
        let way = |far| Way { ccd: place.ccd, socket: place.socket, far };
        match source {
            Source::L1 | Source::L2 => 0,
            Source::L3 | Source::OtherCoreSameCcx => self.traffic.near(usize::from(place.ccx), now),
            Source::OtherCcx => self.traffic.far(way(place.socket), now),
            Source::OtherSocket => self.traffic.far(way(1 - place.socket), now),
            Source::DramLocal | Source::DramRemote => {
                self.stats.dram_bytes_read += 64;
                let LineRef { phys, tag } = LineRef::of_key(key);
                let far = if source == Source::DramLocal { place.socket } else { 1 - place.socket };
                let extra = if tag.is_guest() { self.timing.sev_extra } else { 0 };
                extra + self.traffic.dram(way(far), phys, now)
            }
        }
    }

    /// Keeps in mind whether lines of more than one tag have been brought in.
    #[inline(always)]
    fn note_tag(&mut self, key: u32) {
        let tag = key >> PHYS_BITS;
        if self.first_tag != tag {
            self.several_tags = self.first_tag != NO_TAG;
            self.first_tag = if self.several_tags { self.first_tag } else { tag };
        }
    }

    /// Reads the words of the tables that a miss is going to need, all at once: otherwise each would be a miss of
    /// the host's caches that waits for the one before. Changes nothing.
    #[inline(always)]
    pub(super) fn read_ahead(&self, core: usize, key: u32) {
        let near = self.last[core][0] == u64::from(key)
            || self.l1.peek_key(core, key)
            || self.l2.peek_key(core, key);
        if !near {
            self.read_ahead_of_miss(core, key);
        }
    }

    /// The same for an access that is likely to miss.
    #[inline(always)]
    pub(super) fn read_ahead_of_miss(&self, core: usize, key: u32) {
        let ccx = usize::from(self.places[core].ccx);
        let mut seen = self.l3.glimpse(ccx, key);
        let old = self.l2.glimpse_victim(core, key);
        if let Some(old) = old {
            seen ^= self.l3.glimpse(ccx, old);
        }
        if !self.inclusive {
            seen ^= self.directory.glimpse(key);
            if let Some(old) = old {
                seen ^= self.directory.glimpse(old);
                if let Some(older) = self.l3.glimpse_victim(ccx, old) {
                    seen ^= self.directory.glimpse(older);
                }
            }
        }
        std::hint::black_box(seen);
    }

    /// The same for what the L1 is going to push out, which may have to make the L2's copy dirty.
    #[inline(always)]
    pub(super) fn read_ahead_of_l1_victim(&self, core: usize, key: u32) {
        if let Some(old) = self.l1.glimpse_victim(core, key) {
            std::hint::black_box(self.l2.glimpse(core, old));
        }
    }

    /// The right to write has been obtained for a line that the L2 holds. The L2 sees the store only if the L1
    /// does not hold the line.
    pub(super) fn grant(&mut self, core: usize, key: u32) {
        self.forget_last(core);
        let mut outer = self.l2.set(core, key);
        let outer_bit = outer.find(key);
        outer.grant(outer_bit);
        let mut set = self.l1.set_unaged(core, key);
        let bit = set.find(key);
        if bit == 0 {
            outer.touch(outer_bit);
            self.stats.upgrades_in_l2 += 1;
            self.fill_l1(core, key, State::MODIFIED);
            return;
        }
        set.grant(bit);
        set.soil(bit);
        set.touch(bit);
        self.l1.mark_dirty(core, key);
    }

    /// Puts a line that the L2 holds into the L1.
    #[inline(always)]
    fn fill_l1(&mut self, core: usize, key: u32, state: State) {
        self.last[core] = [u64::from(key), NO_LINE];
        if let Pushed::Line(victim) = self.l1.fill_aged(core, key, state).0
            && victim.state.dirty()
        {
            let held = self.l2.soil(core, victim.key);
            debug_assert!(held, "an L2 includes its L1");
        }
    }

    /// A line has been pushed out of an L2: it leaves the L1 too, for the L3.
    #[inline]
    pub(super) fn spill(&mut self, core: usize, victim: Victim, now: u64) {
        let Victim { key, mut state } = victim;
        self.forget_last(core);
        if let Some(inner) = self.l1.take(core, key) {
            state = state.soiled_by(inner);
        }
        let place = self.places[core];
        let ccx = usize::from(place.ccx);
        if self.inclusive {
            self.spill_inclusive(core, Victim { key, state });
            return;
        }
        let mut set = self.l3.set(ccx, key);
        let bit = set.find(key);
        if bit != 0 {
            // a sharer's copy came before: they are equal, and one of them may have to be written back
            set.touch(bit);
            if state.dirty() {
                self.l3.soil(ccx, key);
            }
        } else {
            if self.hints {
                self.l3.forget_ghost(ccx, key);
            }
            if let Pushed::Line(old) = self.l3.fill(ccx, key, state).0 {
                self.leave_l3(ccx, old, now);
            }
        }
        self.directory.leave_core(key, ccx, place.bit, true);
        if self.is_tracked(key) {
            self.tell(key, MoveKind::PrivateToL3(CoreId(u16::try_from(core).unwrap_or(u16::MAX))));
        }
    }

    /// A line has been pushed out of a victim L3.
    #[inline]
    fn leave_l3(&mut self, ccx: usize, old: Victim, now: u64) {
        self.directory.leave_l3(old.key, ccx);
        if old.state.dirty() {
            self.write_back(old.key, ccx, Cause::Eviction, now);
        }
        self.tell_l3_left(ccx_id(ccx), old);
    }

    /// Tells that a line left an L3 for want of room. Where flights are kept, who keeps them says when it arrives.
    pub(super) fn tell_l3_left(&mut self, ccx: CcxId, old: Victim) {
        if !self.is_tracked(old.key) {
            return;
        }
        if old.state.dirty() {
            self.tell(old.key, MoveKind::L3ToFlight(ccx));
            if !self.flights.kept {
                self.tell(old.key, MoveKind::FlightToDram(ccx));
            }
        } else {
            self.tell(old.key, MoveKind::L3Drop(ccx));
        }
    }

    /// One line goes to DRAM, from a cache of this CCX; flushes count and load the links themselves.
    pub(super) fn write_back(&mut self, key: u32, ccx: usize, cause: Cause, now: u64) {
        self.stats.written_back[cause as usize] += 1;
        self.stats.dram_bytes_written += 64;
        let CorePlace { ccd, socket, .. } = self.places[self.core_at(ccx, 0)];
        let far = self.home(key);
        let accepted = self.traffic.write_back(Way { ccd, socket, far }, LineRef::of_key(key).phys, now);
        // whoever takes a line away by a probe waits for it
        if self.flights.kept && cause != Cause::Coherence {
            self.flights.depart(key, ccx, accepted.div_ceil(1000), now);
        }
    }

    /// The socket whose DRAM holds a line: sockets take turns every 2 MiB.
    pub(super) fn home(&self, key: u32) -> u16 {
        (key >> 15) as u16 & self.far_home
    }

    /// DRAM as seen from a core.
    pub(super) fn dram(&self, core: usize, key: u32) -> Source {
        if self.home(key) == self.places[core].socket { Source::DramLocal } else { Source::DramRemote }
    }

    /// A cache of another CCX as seen from a core.
    pub(super) fn elsewhere(&self, core: usize, ccx: usize) -> Source {
        let own = self.places[core];
        if ccx == usize::from(own.ccx) {
            return Source::OtherCoreSameCcx;
        }
        if self.topology.socket_of(ccx_id(ccx)) == own.socket {
            Source::OtherCcx
        } else {
            Source::OtherSocket
        }
    }

    pub(super) fn latency(&self, source: Source) -> u32 {
        self.latency[source as usize]
    }

    /// Takes a line out of a core's private caches; the state it had, if it was there.
    pub(super) fn take_private(&mut self, core: usize, key: u32) -> Option<State> {
        let mut state = self.l2.take(core, key)?;
        self.forget_last(core);
        if let Some(inner) = self.l1.take(core, key) {
            state = state.soiled_by(inner);
        }
        Some(state)
    }

    /// Takes the right to write away from a core's private copy; the state it had, if it was there.
    pub(super) fn share_private(&mut self, core: usize, key: u32) -> Option<State> {
        let mut state = self.l2.share(core, key)?;
        self.forget_last(core);
        let mut set = self.l1.set_unaged(core, key);
        let bit = set.find(key);
        if bit != 0 {
            set.share(bit);
            state = state.soiled_by(set.state(bit));
        }
        Some(state)
    }

    /// The state of a core's private copy.
    pub(super) fn peek_private(&self, core: usize, key: u32) -> Option<State> {
        let mut state = self.l2.peek(core, key)?;
        if let Some(inner) = self.l1.peek(core, key) {
            state = state.soiled_by(inner);
        }
        Some(state)
    }

    /// The core of a CCX with this number within it.
    pub(super) fn core_at(&self, ccx: usize, local: u32) -> usize {
        ccx * usize::from(self.topology.cores_per_ccx()) + local as usize
    }

    /// One test when nothing is tracked, one bit otherwise.
    #[inline(always)]
    pub(super) fn is_tracked(&self, key: u32) -> bool {
        if self.tracked.count == 0 {
            return false;
        }
        let phys = LineRef::of_key(key).phys as usize;
        self.tracked.lines[phys / 64] >> (phys % 64) & 1 != 0
    }

    pub(super) fn set_tracked(&mut self, phys: u32, on: bool) {
        let (word, bit) = (phys as usize / 64, 1u64 << (phys % 64));
        let was = self.tracked.lines[word] & bit != 0;
        if was != on {
            self.tracked.lines[word] ^= bit;
            self.tracked.count = if on { self.tracked.count + 1 } else { self.tracked.count - 1 };
        }
    }

    #[cold]
    pub(super) fn tell(&mut self, key: u32, kind: MoveKind) {
        let LineRef { phys, tag } = LineRef::of_key(key);
        self.moves.push(Move { line: phys, tag, kind });
    }
}

fn ccx_id(ccx: usize) -> CcxId {
    CcxId(u16::try_from(ccx).unwrap_or(u16::MAX))
}
