//! Spontaneous moves of copies: evictions and drops.

use sev_arch::{CcxId, CoreId, Tag};

use super::{Copy, Held, Lines, Place, Shape};
use crate::event::Event;

/// A spontaneous move of one copy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MoveKind {
    /// A private copy is evicted into the L3 of its CCX, dirty or clean.
    PrivateToL3(CoreId),
    /// A dirty private copy is written back to DRAM at once ([`Shape::flat`]).
    PrivateToDram(CoreId),
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
    /// Whether a move is possible now.
    #[must_use]
    pub fn can_move<L: Lines>(&self, lines: &L, m: Move) -> bool {
        let held = |p| lines.copy(m.line, p, m.tag).held;
        match m.kind {
            MoveKind::PrivateToL3(c) => !self.flat && held(Place::Private(c)) != Held::Absent,
            MoveKind::PrivateToDram(c) => self.flat && held(Place::Private(c)) == Held::Dirty,
            MoveKind::PrivateDrop(c) => held(Place::Private(c)) == Held::Clean,
            MoveKind::L3ToFlight(x) => {
                held(Place::L3(x)) == Held::Dirty && held(Place::Flight(x)) == Held::Absent
            }
            MoveKind::L3Drop(x) => held(Place::L3(x)) == Held::Clean,
            MoveKind::FlightToDram(x) => held(Place::Flight(x)) != Held::Absent,
        }
    }

    /// All that is in flight of a line arrives, CCX by CCX.
    pub fn land<L: Lines>(&self, lines: &mut L, line: u32, events: &mut Vec<Event>) {
        for ccx in (0..self.ccxs).map(CcxId) {
            for tag in self.all_tags() {
                let m = Move { line, tag, kind: MoveKind::FlightToDram(ccx) };
                if self.can_move(lines, m) {
                    self.make_move(lines, m, events);
                }
            }
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
                lines.set_copy(line, l3, tag, Copy { held, ..copy });
            }
            MoveKind::PrivateToDram(c) => self.expel(lines, line, Place::Private(c), tag, events),
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
                    Held::Clean if self.flat => f(Move { line, tag, kind: MoveKind::PrivateDrop(c) }),
                    Held::Dirty if self.flat => f(Move { line, tag, kind: MoveKind::PrivateToDram(c) }),
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
}
