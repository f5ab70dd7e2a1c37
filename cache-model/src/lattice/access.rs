//! Loads and stores of CPUs, and devices' accesses.

use sev_arch::{Access, CoreId, Tag};

use super::{Copy, Dram, Held, Lines, Past, Place, Shape};
use crate::event::{Event, EventKind};

impl Shape {
    /// Whether who hits a copy gets data older than the truth. A host that does not own the page does, too, where its line was there
    /// before the truth; anything else that a stranger finds is junk to it.
    fn is_stale(tag: Tag, copy: Copy, owner: bool) -> bool {
        copy.old && (owner || tag == Tag::HOST && !copy.came_old)
    }

    /// The judge of `stale` and `leak` for a copy that was hit.
    fn judge_hit(&self, line: u32, tag: Tag, copy: Copy, owner: bool, events: &mut Vec<Event>) {
        if copy.foreign {
            events.push(Event::at(EventKind::Leak, line, tag));
        }
        if Shape::is_stale(tag, copy, owner) {
            events.push(Event::at(EventKind::Stale, line, tag));
        }
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
        if !self.sme_coherent || self.guest_must_evict && tag.is_guest() {
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
                    self.judge_hit(line, tag, held, owner, events);
                    return;
                }
                self.evict_other_tags(lines, line, tag, access, events);
                self.drain(lines, line, tag, events);
                let l3 = Place::L3(self.ccx_of_core[core.index()]);
                let in_l3 = lines.copy(line, l3, tag);
                if in_l3.held != Held::Absent {
                    lines.set_copy(line, l3, tag, Copy::ABSENT);
                    lines.set_copy(line, here, tag, in_l3);
                    self.judge_hit(line, tag, in_l3, owner, events);
                    return;
                }
                let holder = self.places().map(|p| lines.copy(line, p, tag)).find(|c| c.held != Held::Absent);
                let copy = match holder {
                    Some(copy) => {
                        self.judge_hit(line, tag, copy, owner, events);
                        Copy { held: Held::Clean, ..copy }
                    }
                    None => {
                        let dram = lines.dram(line);
                        let old = if owner {
                            self.read_dram(lines, line, tag, events)
                        } else {
                            lines.truth(line) && (dram.old || dram.key != tag || dram.past == Past::Lost)
                        };
                        let foreign = self.judge_foreign(lines, line, tag, events);
                        Copy { foreign, ..Copy::arriving(Held::Clean, old, tag) }
                    }
                };
                self.put(lines, line, here, tag, copy);
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
                    lines.set_copy(line, here, tag, Copy::new(Held::Dirty, false));
                    lines.set_dram(line, Dram { old: true, ..lines.dram(line) });
                } else {
                    lines.set_copy(line, here, tag, Copy::arriving(Held::Dirty, lines.truth(line), tag));
                }
            }
        }
    }

    /// Everything but what is about to be written becomes older than the truth.
    pub(super) fn becomes_truth<L: Lines>(&self, lines: &mut L, line: u32, tag: Tag) {
        if self.drops && !lines.truth(line) && lines.dram(line).past != Past::Foreign {
            lines.set_dram(line, Dram::new(tag, false));
        }
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
        if self.dma_snoops {
            self.drain(lines, line, Tag::HOST, events);
        }
        match access {
            Access::Read => {
                let holder = self
                    .places()
                    .filter(|_| self.dma_snoops)
                    .map(|p| lines.copy(line, p, Tag::HOST))
                    .filter(|c| c.held != Held::Absent)
                    .max_by_key(|c| c.held);
                match holder {
                    Some(copy) if Shape::is_stale(Tag::HOST, copy, owner) => {
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
                    let copy = lines.copy(line, place, Tag::HOST);
                    if copy.held != Held::Absent {
                        let left = Copy { old: copy.old || owner, ..copy };
                        let left = if self.dma_snoops { Copy::ABSENT } else { left };
                        lines.set_copy(line, place, Tag::HOST, left);
                    }
                }
                if owner {
                    self.becomes_truth(lines, line, Tag::HOST);
                    lines.set_dram(line, Dram::new(Tag::HOST, false));
                } else {
                    self.overwritten(lines, line, Tag::HOST);
                }
            }
        }
    }
}
