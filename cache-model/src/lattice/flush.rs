//! Flushes: whole caches, single lines, and what they wait for.

use sev_arch::{CoreId, FlushOp, Tag};

use super::{Copy, Held, Lines, Place, Shape};
use crate::event::Event;

impl Shape {
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
                self.send(lines, line, place, tag, events);
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
            self.flush_tag(lines, line, tag, events);
        }
    }

    /// CLWB of one line through the host's mapping: as [`Shape::clflush`], and what was written back stays, clean.
    pub fn clwb<L: Lines>(&self, lines: &mut L, line: u32, events: &mut Vec<Event>) {
        for tag in self.all_tags().filter(|t| self.sme_coherent || *t == Tag::HOST) {
            self.drain(lines, line, tag, events);
            for place in self.places().filter(|p| !matches!(p, Place::Flight(_))) {
                let copy = lines.copy(line, place, tag);
                if copy.held == Held::Dirty {
                    self.send(lines, line, place, tag, events);
                    self.put(lines, line, place, tag, Copy { held: Held::Clean, ..copy });
                }
            }
        }
    }

    /// VM_PAGE_FLUSH of one line: every copy under one tag, in all caches, is written back and invalidated.
    pub fn flush_tag<L: Lines>(&self, lines: &mut L, line: u32, tag: Tag, events: &mut Vec<Event>) {
        self.drain(lines, line, tag, events);
        for place in self.places().filter(|p| !matches!(p, Place::Flight(_))) {
            match lines.copy(line, place, tag).held {
                Held::Absent => continue,
                Held::Clean => {}
                Held::Dirty => self.send(lines, line, place, tag, events),
            }
            lines.set_copy(line, place, tag, Copy::ABSENT);
        }
    }

    /// The same, and what was written back has arrived.
    pub(super) fn evict_tag<L: Lines>(&self, lines: &mut L, line: u32, tag: Tag, events: &mut Vec<Event>) {
        self.flush_tag(lines, line, tag, events);
        self.drain(lines, line, tag, events);
    }

    /// What a flush writes back leaves a cache: it is in memory, or on its way there.
    fn send<L: Lines>(&self, lines: &mut L, line: u32, from: Place, tag: Tag, events: &mut Vec<Event>) {
        let copy = lines.copy(line, from, tag);
        match from {
            Place::Private(_) | Place::L3(_) if !self.flushes_fly || self.flat => {
                self.write_back(lines, line, tag, copy, events);
            }
            Place::Private(core) => {
                lines.set_copy(line, Place::Flight(self.ccx_of_core[core.index()]), tag, copy);
            }
            Place::L3(ccx) => lines.set_copy(line, Place::Flight(ccx), tag, copy),
            Place::Flight(_) => {}
        }
    }

    /// INVD executed on `core`, for one line: the caches that a flush would write back lose what they hold. What is
    /// on its way to memory already arrives.
    pub fn invd<L: Lines>(&self, lines: &mut L, line: u32, core: CoreId) {
        let private = self.flushed_cores(core).map(Place::Private);
        for place in private.chain(self.flushed_l3s(core).map(Place::L3)) {
            for tag in self.all_tags() {
                if lines.copy(line, place, tag).held != Held::Absent {
                    lines.set_copy(line, place, tag, Copy::ABSENT);
                }
            }
        }
    }

    /// The fabric's part of DF_FLUSH, for one line: what is on its way arrives in memory.
    pub fn fabric_flush<L: Lines>(&self, lines: &mut L, line: u32, events: &mut Vec<Event>) {
        for tag in self.all_tags() {
            self.drain(lines, line, tag, events);
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
}
