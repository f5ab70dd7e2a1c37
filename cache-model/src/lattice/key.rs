//! Keys that are replaced: what was written or cached under the tag before.

use sev_arch::Tag;

use super::{Copy, Dram, Held, Lines, Past, Shape};
use crate::event::{Event, EventKind};

impl Shape {
    /// A new key is installed for a tag's ASID. What memory holds of the line under the old one is garbage from here
    /// on; copies are plaintext, and stay: hit by the tag's next guest, or written back under its key and read, they
    /// leak.
    pub fn new_key<L: Lines>(&self, lines: &mut L, line: u32, tag: Tag) {
        let dram = lines.dram(line);
        if dram.key == tag && dram.past != Past::Lost {
            let lost = Dram { past: Past::Lost, ..dram };
            lines.set_dram(line, if lines.truth(line) { lost } else { Dram::UNTOLD });
        }
        for place in self.places() {
            let copy = lines.copy(line, place, tag);
            if copy.held != Held::Absent && !copy.foreign {
                lines.set_copy(line, place, tag, Copy { foreign: true, ..copy });
            }
        }
    }

    /// Whether a read by a tag finds another guest's plaintext in memory, decrypted. The judge of `leak` for memory.
    pub(super) fn judge_foreign<L: Lines>(
        &self,
        lines: &L,
        line: u32,
        tag: Tag,
        events: &mut Vec<Event>,
    ) -> bool {
        let dram = lines.dram(line);
        let leaks = dram.key == tag && dram.past == Past::Foreign;
        if leaks {
            events.push(Event::at(EventKind::Leak, line, tag));
        }
        leaks
    }
}
