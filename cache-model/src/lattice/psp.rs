//! Accesses of the PSP under a guest's key, and a guest's own eviction of the host's copies.

use sev_arch::{Access, Tag};

use super::{Copy, Dram, Held, Lines, Shape};
use crate::event::Event;

impl Shape {
    /// The PSP reads or writes a line under a tag's key, straight from or to memory. It sees no cache; which copies
    /// it has written back and invalidated first is [`Shape::psp`]. `owner` says whether it does so for the page's
    /// owner: a write is the truth then, and every copy that is left is older.
    pub fn psp<L: Lines>(
        &self,
        lines: &mut L,
        line: u32,
        tag: Tag,
        access: Access,
        owner: bool,
        events: &mut Vec<Event>,
    ) {
        if self.psp.evicts_own_tag {
            self.evict_tag(lines, line, tag, events);
        }
        if self.psp.evicts_host_lines && tag.is_guest() {
            self.evict_tag(lines, line, Tag::HOST, events);
        }
        match access {
            Access::Read if owner => {
                self.read_dram(lines, line, tag, events);
            }
            Access::Read => {}
            Access::Write if owner => {
                self.becomes_truth(lines, line, tag);
                for place in self.places() {
                    let copy = lines.copy(line, place, tag);
                    if copy.held != Held::Absent && !copy.old {
                        lines.set_copy(line, place, tag, Copy { old: true, ..copy });
                    }
                }
                lines.set_dram(line, Dram::new(tag, false));
            }
            Access::Write => self.overwritten(lines, line, tag),
        }
    }

    /// A guest evicts the other tags' copies of a line by touching it in the way that its kernel does when
    /// it validates a page (arch/x86/coco/sev: the first and the last byte).
    pub fn guest_evicts<L: Lines>(&self, lines: &mut L, line: u32, tag: Tag, events: &mut Vec<Event>) {
        for other in self.all_tags().filter(|t| *t != tag) {
            self.evict_tag(lines, line, other, events);
        }
    }
}
