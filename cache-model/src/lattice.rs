//! The one lattice of line copies: who may hold what of a line, what each access and move does to it, and the
//! judge of the events.
//!
//! A line's state is its copies (place x tag, each absent, clean or dirty, and whether it is older than the
//! truth), what DRAM holds (under which key, and whether that is older than the truth), and whether there is a
//! truth at all: it starts with the owner's first write and ends when the page changes hands. Version numbers
//! would be unbounded; one bit "older than the truth" is enough to judge every event.
//!
//! *Promise*: the explorer's `Shadow` and the timed run's tracked lines are both this code over a [`Lines`]; no
//! other code judges an event.
//!
//! Rules and sources: `docs/MODEL.md`. Within a tag all copies are coherent (MOESI, dirty sharing); across tags
//! nothing is, except that on an SME_COHERENT part a CPU access first evicts the other tags' copies.

use sev_arch::{Access, CcxId, CoreId, FlushOp, Tag, WbinvdScope};

use crate::event::{Event, EventKind};

/// Where a copy of a line can be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// A core's private caches (L1 and L2 as one).
    Private(CoreId),
    /// The L3 of a CCX.
    L3(CcxId),
    /// Evicted from the L3 of a CCX, not yet in DRAM.
    Flight(CcxId),
}

/// What a place holds of a line under one tag.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Held {
    /// Nothing.
    #[default]
    Absent,
    /// Valid, not the last copy (E or S).
    Clean,
    /// Valid, must be written back (M or O).
    Dirty,
}

/// A copy of a line under one tag in one place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Copy {
    /// Whether it is there, and whether it must be written back.
    pub held: Held,
    /// Whether it is older than the truth.
    pub old: bool,
}

impl Copy {
    /// No copy.
    pub const ABSENT: Copy = Copy { held: Held::Absent, old: false };

    /// As a slot's value, 0 to 4.
    #[must_use]
    pub const fn code(self) -> i64 {
        match (self.held, self.old) {
            (Held::Absent, _) => 0,
            (Held::Clean, false) => 1,
            (Held::Clean, true) => 2,
            (Held::Dirty, false) => 3,
            (Held::Dirty, true) => 4,
        }
    }

    /// From a slot's value.
    #[must_use]
    pub const fn from_code(code: i64) -> Copy {
        match code {
            1 => Copy { held: Held::Clean, old: false },
            2 => Copy { held: Held::Clean, old: true },
            3 => Copy { held: Held::Dirty, old: false },
            4 => Copy { held: Held::Dirty, old: true },
            _ => Copy::ABSENT,
        }
    }
}

/// What DRAM holds of a line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Dram {
    /// The tag whose key it is encrypted under.
    pub key: Tag,
    /// Whether it is older than the truth.
    pub old: bool,
}

impl Dram {
    /// What DRAM is said to hold while there is no truth: nobody can tell, so one value stands for all.
    pub const UNTOLD: Dram = Dram { key: Tag::HOST, old: false };
}

/// Storage of line states: slots for the explorer, a table of tracked lines for the timed run.
pub trait Lines {
    /// The copy of a line under a tag in a place.
    fn copy(&self, line: u32, place: Place, tag: Tag) -> Copy;
    /// Replaces it.
    fn set_copy(&mut self, line: u32, place: Place, tag: Tag, copy: Copy);
    /// What DRAM holds.
    fn dram(&self, line: u32) -> Dram;
    /// Replaces it.
    fn set_dram(&mut self, line: u32, dram: Dram);
    /// Whether the owner has written the line.
    fn truth(&self, line: u32) -> bool;
    /// Replaces it.
    fn set_truth(&mut self, line: u32, truth: bool);
}

/// The fixed part: which places and tags there are, and what the hardware promises.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    /// CCX of each core.
    pub ccx_of_core: Vec<CcxId>,
    /// CCXs.
    pub ccxs: u16,
    /// Tags, the host's included.
    pub tags: u8,
    /// Whether a CPU access under one tag evicts the other tags' copies first (CPUID `8000_001F` EAX\[10\]).
    pub sme_coherent: bool,
    /// On an SME_COHERENT part, whether a read, too, evicts clean copies under other tags. Not known; the
    /// default is yes.
    pub evict_clean_on_read: bool,
    /// Which caches a whole-cache flush acts on.
    pub scope: WbinvdScope,
    /// Whether clean copies are kept apart from absent ones. They matter only where a page can come back to a
    /// tag that it had before: elsewhere no clean copy is ever older than the truth, and one may be dropped at
    /// any moment, so nothing is reachable with them that is not reachable without.
    pub keep_clean: bool,
}

/// A spontaneous move of one copy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MoveKind {
    /// A private copy is evicted into the L3 of its CCX, dirty or clean.
    PrivateToL3(CoreId),
    /// A clean private copy is dropped.
    PrivateDrop(CoreId),
    /// A dirty L3 copy is evicted and on its way to DRAM.
    L3ToFlight(CcxId),
    /// A clean L3 copy is dropped.
    L3Drop(CcxId),
    /// An eviction arrives in DRAM.
    FlightToDram(CcxId),
}

/// A spontaneous move: which line, under which tag, from where to where.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Move {
    /// The line.
    pub line: u32,
    /// The copy's tag.
    pub tag: Tag,
    /// From where to where.
    pub kind: MoveKind,
}

impl Shape {
    /// Cores.
    #[must_use]
    pub fn cores(&self) -> u16 {
        u16::try_from(self.ccx_of_core.len()).unwrap_or(u16::MAX)
    }

    /// Every place, private caches first, then L3s, then flights.
    pub fn places(&self) -> impl Iterator<Item = Place> + use<> {
        let ccxs = self.ccxs;
        (0..self.cores())
            .map(|c| Place::Private(CoreId(c)))
            .chain((0..ccxs).map(|x| Place::L3(CcxId(x))))
            .chain((0..ccxs).map(|x| Place::Flight(CcxId(x))))
    }

    /// Dense number of a place.
    #[must_use]
    pub fn place_index(&self, place: Place) -> usize {
        match place {
            Place::Private(c) => c.index(),
            Place::L3(x) => self.ccx_of_core.len() + x.index(),
            Place::Flight(x) => self.ccx_of_core.len() + usize::from(self.ccxs) + x.index(),
        }
    }

    /// How many places.
    #[must_use]
    pub fn place_count(&self) -> usize {
        self.ccx_of_core.len() + 2 * usize::from(self.ccxs)
    }

    /// Every tag.
    pub fn all_tags(&self) -> impl Iterator<Item = Tag> + use<> {
        (0..self.tags).map(Tag)
    }

    /// Cores whose private caches a flush by `core` acts on.
    pub fn flushed_cores(&self, core: CoreId) -> impl Iterator<Item = CoreId> + '_ {
        let own = self.ccx_of_core[core.index()];
        let scope = self.scope;
        (0..self.cores()).map(CoreId).filter(move |c| match scope {
            WbinvdScope::Core | WbinvdScope::CoreAndL3 => *c == core,
            WbinvdScope::Ccx => self.ccx_of_core[c.index()] == own,
            WbinvdScope::Package => true,
        })
    }

    /// L3s that a flush by `core` acts on.
    pub fn flushed_l3s(&self, core: CoreId) -> impl Iterator<Item = CcxId> + '_ {
        let own = self.ccx_of_core[core.index()];
        let scope = self.scope;
        (0..self.ccxs).map(CcxId).filter(move |x| match scope {
            WbinvdScope::Core => false,
            WbinvdScope::CoreAndL3 | WbinvdScope::Ccx => *x == own,
            WbinvdScope::Package => true,
        })
    }

    /// The cheapest set of cores whose flushes act on these private caches and these L3s, in order. `busy` says
    /// of each core whether interrupting it costs a guest time.
    #[must_use]
    pub fn cover(&self, private: &[CoreId], shared: &[CcxId], busy: &[bool]) -> Vec<CoreId> {
        let is_busy = |core: &usize| busy.get(*core).copied().unwrap_or(false);
        let mut cover: Vec<CoreId> = Vec::new();
        for core in private {
            if !cover.iter().any(|c| self.flushed_cores(*c).any(|f| f == *core)) {
                cover.push(*core);
            }
        }
        for ccx in shared {
            if !cover.iter().any(|c| self.flushed_l3s(*c).any(|f| f == *ccx))
                && let Some(core) =
                    (0..self.ccx_of_core.len()).filter(|c| self.ccx_of_core[*c] == *ccx).min_by_key(is_busy)
            {
                cover.push(CoreId(u16::try_from(core).unwrap_or(u16::MAX)));
            }
        }
        cover.sort_unstable();
        cover
    }

    /// A digest of every copy, of DRAM and of the truth of the first `count` lines.
    #[must_use]
    pub fn digest<L: Lines>(&self, lines: &L, count: u32) -> u64 {
        let mut digest = 0xcbf2_9ce4_8422_2325u64;
        let mut mix =
            |value: u64| digest = (digest ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        for line in 0..count {
            for tag in self.all_tags() {
                for place in self.places() {
                    mix(lines.copy(line, place, tag).code().cast_unsigned());
                }
            }
            let dram = lines.dram(line);
            mix(u64::from(dram.key.0) << 2 | u64::from(dram.old) << 1 | u64::from(lines.truth(line)));
        }
        digest
    }

    /// Stores a copy; a clean one only where clean copies are kept.
    fn put<L: Lines>(&self, lines: &mut L, line: u32, place: Place, tag: Tag, copy: Copy) {
        let kept = copy.held == Held::Dirty || self.keep_clean;
        lines.set_copy(line, place, tag, if kept { copy } else { Copy::ABSENT });
    }

    /// Whether an event can still concern the line of a page that belongs to a tag: a dirty copy under another
    /// tag is left, or DRAM is older than the truth.
    #[must_use]
    pub fn concerns<L: Lines>(&self, lines: &L, line: u32, owner: Tag) -> bool {
        lines.truth(line) && lines.dram(line).old
            || self.all_tags().any(|t| t != owner && self.dirty_anywhere(lines, line, t))
    }

    /// A copy reaches DRAM. The judge of `clobber` and `host-dirty`: an old copy that overwrites the truth.
    fn write_back<L: Lines>(&self, lines: &mut L, line: u32, tag: Tag, old: bool, events: &mut Vec<Event>) {
        if !lines.truth(line) {
            return;
        }
        let dram = lines.dram(line);
        if old && !dram.old {
            let kind = if tag.is_guest() { EventKind::Clobber } else { EventKind::HostDirty };
            events.push(Event::at(kind, line, tag));
        }
        lines.set_dram(line, Dram { key: tag, old });
    }

    /// Takes a copy away, writing it back first if it is dirty.
    fn expel<L: Lines>(&self, lines: &mut L, line: u32, place: Place, tag: Tag, events: &mut Vec<Event>) {
        let copy = lines.copy(line, place, tag);
        if copy.held == Held::Dirty {
            self.write_back(lines, line, tag, copy.old, events);
        }
        if copy.held != Held::Absent {
            lines.set_copy(line, place, tag, Copy::ABSENT);
        }
    }

    /// Evictions in flight under a tag arrive: a later request of the same tag is ordered behind them.
    fn drain<L: Lines>(&self, lines: &mut L, line: u32, tag: Tag, events: &mut Vec<Event>) {
        for x in 0..self.ccxs {
            self.expel(lines, line, Place::Flight(CcxId(x)), tag, events);
        }
    }

    /// What a read by `tag` finds in DRAM. The judge of `stale` and `garbage` for memory.
    fn read_dram<L: Lines>(&self, lines: &L, line: u32, tag: Tag, events: &mut Vec<Event>) -> bool {
        if !lines.truth(line) {
            return false;
        }
        let dram = lines.dram(line);
        if dram.key != tag {
            events.push(Event::at(EventKind::Garbage, line, tag));
            return true;
        }
        if dram.old {
            events.push(Event::at(EventKind::Stale, line, tag));
        }
        dram.old
    }

    /// Before a CPU access on an SME_COHERENT part: the other tags' copies are written back and invalidated.
    fn evict_other_tags<L: Lines>(
        &self,
        lines: &mut L,
        line: u32,
        tag: Tag,
        access: Access,
        events: &mut Vec<Event>,
    ) {
        if !self.sme_coherent {
            return;
        }
        let spare_clean = access == Access::Read && !self.evict_clean_on_read;
        for other in self.all_tags().filter(|t| *t != tag) {
            for place in self.places() {
                if spare_clean && lines.copy(line, place, other).held == Held::Clean {
                    continue;
                }
                self.expel(lines, line, place, other, events);
            }
        }
    }

    /// A load or store of a CPU. `owner` says whether the accessor owns the page: only an owner's store makes
    /// truth; a stranger's store is newer than nothing.
    pub fn cpu_access<L: Lines>(
        &self,
        lines: &mut L,
        line: u32,
        (core, tag): (CoreId, Tag),
        access: Access,
        owner: bool,
        events: &mut Vec<Event>,
    ) {
        let here = Place::Private(core);
        let held = lines.copy(line, here, tag);
        match access {
            Access::Read => {
                if held.held != Held::Absent {
                    if held.old && owner {
                        events.push(Event::at(EventKind::Stale, line, tag));
                    }
                    return;
                }
                self.evict_other_tags(lines, line, tag, access, events);
                self.drain(lines, line, tag, events);
                let l3 = Place::L3(self.ccx_of_core[core.index()]);
                let in_l3 = lines.copy(line, l3, tag);
                if in_l3.held != Held::Absent {
                    lines.set_copy(line, l3, tag, Copy::ABSENT);
                    lines.set_copy(line, here, tag, in_l3);
                    if in_l3.old && owner {
                        events.push(Event::at(EventKind::Stale, line, tag));
                    }
                    return;
                }
                let holder = self.places().map(|p| lines.copy(line, p, tag)).find(|c| c.held != Held::Absent);
                let old = match holder {
                    Some(copy) => {
                        if copy.old && owner {
                            events.push(Event::at(EventKind::Stale, line, tag));
                        }
                        copy.old
                    }
                    None if owner => self.read_dram(lines, line, tag, events),
                    None => lines.truth(line) && (lines.dram(line).old || lines.dram(line).key != tag),
                };
                self.put(lines, line, here, tag, Copy { held: Held::Clean, old });
            }
            Access::Write => {
                if held.held != Held::Dirty {
                    self.evict_other_tags(lines, line, tag, access, events);
                }
                self.drain(lines, line, tag, events);
                for place in self.places().filter(|p| *p != here) {
                    if lines.copy(line, place, tag).held != Held::Absent {
                        lines.set_copy(line, place, tag, Copy::ABSENT);
                    }
                }
                if owner {
                    self.becomes_truth(lines, line, tag);
                    lines.set_copy(line, here, tag, Copy { held: Held::Dirty, old: false });
                    lines.set_dram(line, Dram { key: lines.dram(line).key, old: true });
                } else {
                    lines.set_copy(line, here, tag, Copy { held: Held::Dirty, old: lines.truth(line) });
                }
            }
        }
    }

    /// Everything but what is about to be written becomes older than the truth.
    fn becomes_truth<L: Lines>(&self, lines: &mut L, line: u32, tag: Tag) {
        lines.set_truth(line, true);
        for other in self.all_tags().filter(|t| *t != tag) {
            for place in self.places() {
                let copy = lines.copy(line, place, other);
                if copy.held != Held::Absent && !copy.old {
                    lines.set_copy(line, place, other, Copy { old: true, ..copy });
                }
            }
        }
    }

    /// A device reads or writes, under C=0: coherent with the host's copies, blind to every guest's.
    pub fn dma<L: Lines>(
        &self,
        lines: &mut L,
        line: u32,
        access: Access,
        owner: bool,
        events: &mut Vec<Event>,
    ) {
        self.drain(lines, line, Tag::HOST, events);
        match access {
            Access::Read => {
                let holder = self
                    .places()
                    .map(|p| lines.copy(line, p, Tag::HOST))
                    .filter(|c| c.held != Held::Absent)
                    .max_by_key(|c| c.held);
                match holder {
                    Some(copy) if copy.old && owner => {
                        events.push(Event::at(EventKind::Stale, line, Tag::HOST));
                    }
                    Some(_) => {}
                    None if owner => {
                        self.read_dram(lines, line, Tag::HOST, events);
                    }
                    None => {}
                }
            }
            Access::Write => {
                for place in self.places() {
                    if lines.copy(line, place, Tag::HOST).held != Held::Absent {
                        lines.set_copy(line, place, Tag::HOST, Copy::ABSENT);
                    }
                }
                if owner {
                    self.becomes_truth(lines, line, Tag::HOST);
                    lines.set_dram(line, Dram { key: Tag::HOST, old: false });
                } else if lines.truth(line) {
                    lines.set_dram(line, Dram { key: Tag::HOST, old: true });
                }
            }
        }
    }

    /// Whether a move is possible now.
    #[must_use]
    pub fn can_move<L: Lines>(&self, lines: &L, m: Move) -> bool {
        let held = |p| lines.copy(m.line, p, m.tag).held;
        match m.kind {
            MoveKind::PrivateToL3(c) => held(Place::Private(c)) != Held::Absent,
            MoveKind::PrivateDrop(c) => held(Place::Private(c)) == Held::Clean,
            MoveKind::L3ToFlight(x) => {
                held(Place::L3(x)) == Held::Dirty && held(Place::Flight(x)) == Held::Absent
            }
            MoveKind::L3Drop(x) => held(Place::L3(x)) == Held::Clean,
            MoveKind::FlightToDram(x) => held(Place::Flight(x)) != Held::Absent,
        }
    }

    /// Makes a move that [`Shape::can_move`] allows.
    pub fn make_move<L: Lines>(&self, lines: &mut L, m: Move, events: &mut Vec<Event>) {
        let Move { line, tag, kind } = m;
        match kind {
            MoveKind::PrivateToL3(c) => {
                let copy = lines.copy(line, Place::Private(c), tag);
                let l3 = Place::L3(self.ccx_of_core[c.index()]);
                let there = lines.copy(line, l3, tag);
                lines.set_copy(line, Place::Private(c), tag, Copy::ABSENT);
                let held = copy.held.max(there.held);
                lines.set_copy(line, l3, tag, Copy { held, old: copy.old });
            }
            MoveKind::PrivateDrop(c) => lines.set_copy(line, Place::Private(c), tag, Copy::ABSENT),
            MoveKind::L3ToFlight(x) => {
                let copy = lines.copy(line, Place::L3(x), tag);
                lines.set_copy(line, Place::L3(x), tag, Copy::ABSENT);
                lines.set_copy(line, Place::Flight(x), tag, copy);
            }
            MoveKind::L3Drop(x) => lines.set_copy(line, Place::L3(x), tag, Copy::ABSENT),
            MoveKind::FlightToDram(x) => self.expel(lines, line, Place::Flight(x), tag, events),
        }
    }

    /// Calls `f` with each move possible on a line, in a fixed order.
    pub fn each_move<L: Lines>(&self, lines: &L, line: u32, f: &mut dyn FnMut(Move)) {
        for tag in self.all_tags() {
            for c in (0..self.cores()).map(CoreId) {
                match lines.copy(line, Place::Private(c), tag).held {
                    Held::Absent => {}
                    Held::Clean => {
                        f(Move { line, tag, kind: MoveKind::PrivateToL3(c) });
                        f(Move { line, tag, kind: MoveKind::PrivateDrop(c) });
                    }
                    Held::Dirty => f(Move { line, tag, kind: MoveKind::PrivateToL3(c) }),
                }
            }
            for x in (0..self.ccxs).map(CcxId) {
                let flight = lines.copy(line, Place::Flight(x), tag).held;
                match lines.copy(line, Place::L3(x), tag).held {
                    Held::Absent => {}
                    Held::Clean => f(Move { line, tag, kind: MoveKind::L3Drop(x) }),
                    Held::Dirty if flight == Held::Absent => {
                        f(Move { line, tag, kind: MoveKind::L3ToFlight(x) });
                    }
                    Held::Dirty => {}
                }
                if flight != Held::Absent {
                    f(Move { line, tag, kind: MoveKind::FlightToDram(x) });
                }
            }
        }
    }

    /// Writes one place's copies of a line back, whatever their tag; WBINVD drops them, WBNOINVD leaves them
    /// clean. An older eviction in flight arrives first.
    fn flush_place<L: Lines>(
        &self,
        lines: &mut L,
        line: u32,
        place: Place,
        op: FlushOp,
        events: &mut Vec<Event>,
    ) {
        for tag in self.all_tags() {
            let copy = lines.copy(line, place, tag);
            if copy.held == Held::Dirty {
                self.drain(lines, line, tag, events);
                self.write_back(lines, line, tag, copy.old, events);
            }
            match (copy.held, op) {
                (Held::Absent, _) | (Held::Clean, FlushOp::Wbnoinvd) => {}
                (_, FlushOp::Wbinvd) => lines.set_copy(line, place, tag, Copy::ABSENT),
                (Held::Dirty, FlushOp::Wbnoinvd) => {
                    self.put(lines, line, place, tag, Copy { held: Held::Clean, ..copy });
                }
            }
        }
    }

    /// The private part of a WBINVD or WBNOINVD executed on `core`, for one line.
    pub fn flush_private<L: Lines>(
        &self,
        lines: &mut L,
        line: u32,
        core: CoreId,
        op: FlushOp,
        events: &mut Vec<Event>,
    ) {
        for c in self.flushed_cores(core) {
            self.flush_place(lines, line, Place::Private(c), op, events);
        }
    }

    /// The shared part of a WBINVD or WBNOINVD executed on `core`, for one line.
    pub fn flush_shared<L: Lines>(
        &self,
        lines: &mut L,
        line: u32,
        core: CoreId,
        op: FlushOp,
        events: &mut Vec<Event>,
    ) {
        for x in self.flushed_l3s(core) {
            self.flush_place(lines, line, Place::L3(x), op, events);
        }
    }

    /// CLFLUSH of one line through the host's mapping: every cache; every tag on an SME_COHERENT part, the
    /// host's only elsewhere.
    pub fn clflush<L: Lines>(&self, lines: &mut L, line: u32, events: &mut Vec<Event>) {
        for tag in self.all_tags().filter(|t| self.sme_coherent || *t == Tag::HOST) {
            self.drain(lines, line, tag, events);
            for place in self.places() {
                self.expel(lines, line, place, tag, events);
            }
        }
    }

    /// An eviction of a line, out of a CCX that `core` flushes, that has not arrived yet.
    #[must_use]
    pub fn first_in_flight<L: Lines>(&self, lines: &L, line: u32, core: CoreId) -> Option<(Place, Tag)> {
        for x in self.flushed_l3s(core) {
            for tag in self.all_tags() {
                if lines.copy(line, Place::Flight(x), tag).held != Held::Absent {
                    return Some((Place::Flight(x), tag));
                }
            }
        }
        None
    }

    /// Whether a dirty copy of a line under a tag is in any cache or in flight. The judge of `latent`.
    #[must_use]
    pub fn dirty_anywhere<L: Lines>(&self, lines: &L, line: u32, tag: Tag) -> bool {
        self.places().any(|p| lines.copy(line, p, tag).held == Held::Dirty)
    }

    /// The page changes hands: the old truth ends, and until the new owner's first write nobody can tell what
    /// is old.
    pub fn change_owner<L: Lines>(&self, lines: &mut L, line: u32) {
        lines.set_truth(line, false);
        lines.set_dram(line, Dram::UNTOLD);
        for place in self.places() {
            for tag in self.all_tags() {
                let copy = lines.copy(line, place, tag);
                if copy.old {
                    lines.set_copy(line, place, tag, Copy { old: false, ..copy });
                }
            }
        }
    }
}
