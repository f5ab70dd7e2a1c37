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

use sev_arch::{CcxId, Tag};

use crate::event::{Event, EventKind};

pub use copy::{Copy, Dram, Held, Past, Place};
pub use moves::{Move, MoveKind};
pub use shape::{Psp, Shape};

mod access;
mod copy;
mod flush;
mod key;
mod moves;
mod psp;
mod shape;

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

impl Shape {
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
    fn write_back<L: Lines>(&self, lines: &mut L, line: u32, tag: Tag, copy: Copy, events: &mut Vec<Event>) {
        let past = if copy.foreign { Past::Foreign } else { Past::No };
        if !lines.truth(line) {
            if self.keys_change {
                let told = Dram { key: tag, old: false, past };
                lines.set_dram(line, if copy.foreign { told } else { Dram::UNTOLD });
            }
            return;
        }
        let dram = lines.dram(line);
        if copy.old && !dram.old {
            let kind = if tag.is_guest() { EventKind::Clobber } else { EventKind::HostDirty };
            events.push(Event::at(kind, line, tag));
        }
        lines.set_dram(line, Dram { key: tag, old: copy.old, past });
    }

    /// Takes a copy away, writing it back first if it is dirty.
    fn expel<L: Lines>(&self, lines: &mut L, line: u32, place: Place, tag: Tag, events: &mut Vec<Event>) {
        let copy = lines.copy(line, place, tag);
        if copy.held == Held::Dirty {
            self.write_back(lines, line, tag, copy, events);
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

    /// Memory was written past the caches, under a tag's key, by who does not own the page.
    fn overwritten<L: Lines>(&self, lines: &mut L, line: u32, key: Tag) {
        if lines.truth(line) {
            lines.set_dram(line, Dram::new(key, true));
        } else if self.keys_change {
            lines.set_dram(line, Dram::UNTOLD);
        }
    }

    /// What a read by `tag` finds in DRAM. The judge of `stale` and `garbage` for memory.
    fn read_dram<L: Lines>(&self, lines: &L, line: u32, tag: Tag, events: &mut Vec<Event>) -> bool {
        if !lines.truth(line) {
            return false;
        }
        let dram = lines.dram(line);
        if dram.key != tag || dram.past == Past::Lost {
            events.push(Event::at(EventKind::Garbage, line, tag));
            return true;
        }
        if dram.old {
            events.push(Event::at(EventKind::Stale, line, tag));
        }
        dram.old
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
        let dram = lines.dram(line);
        let foreign = self.keys_change && dram.past == Past::Foreign;
        lines.set_dram(line, if foreign { Dram { old: false, ..dram } } else { Dram::UNTOLD });
        for place in self.places() {
            for tag in self.all_tags() {
                let copy = lines.copy(line, place, tag);
                if copy.old {
                    lines.set_copy(line, place, tag, Copy { old: false, came_old: false, ..copy });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
