//! The explorer's caches: line copies kept in slots of the model's state.

use sev_arch::Tag;
use sim_core::layout::Layout;
use sim_core::state::{Class, Domain, SlotId, Store};

use crate::lattice::{Copy, Dram, Lines, Place, Shape};

/// Where the copies of each line lie among the slots.
#[derive(Clone, Debug)]
pub struct LineSlots {
    shape: Shape,
    first: u32,
    stride: u32,
    lines: u32,
}

impl LineSlots {
    /// Declares the slots of `lines` lines.
    pub fn declare(
        layout: &mut Layout,
        shape: &Shape,
        lines: u32,
        name: &dyn Fn(u32) -> String,
    ) -> LineSlots {
        let mut first = None;
        for line in 0..lines {
            let line = name(line);
            let copies = |tag: Tag| match (tag, shape.keys_change) {
                (Tag::HOST, _) => 6,
                (_, false) => 4,
                (_, true) => 10,
            };
            for place in shape.places() {
                let gone = shape.flat && !matches!(place, Place::Private(_));
                for tag in shape.all_tags() {
                    let copy = Domain::Range { lo: 0, hi: if gone { 0 } else { copies(tag) } };
                    let name = format!("{line}.{place:?}.{tag}");
                    let id = layout.slot(name, copy, Class::Hardware, 0);
                    first.get_or_insert(id.0);
                }
            }
            let pasts = if shape.keys_change { 3 } else { 1 };
            let key = Domain::Range { lo: 0, hi: pasts * i64::from(shape.tags) - 1 };
            layout.slot(format!("{line}.dram.key"), key, Class::Hardware, 0);
            layout.slot(format!("{line}.dram.old"), Domain::BOOL, Class::Ghost, 0);
            layout.slot(format!("{line}.truth"), Domain::BOOL, Class::Ghost, 0);
        }
        let cells = shape.place_count() * usize::from(shape.tags);
        let stride = u32::try_from(cells).unwrap_or(u32::MAX - 3) + 3;
        LineSlots { shape: shape.clone(), first: first.unwrap_or(0), stride, lines }
    }

    /// Lines declared.
    #[must_use]
    pub fn lines(&self) -> u32 {
        self.lines
    }

    /// The slot of one copy.
    #[must_use]
    pub fn cell(&self, line: u32, place: Place, tag: Tag) -> SlotId {
        let cell = self.shape.place_index(place) * usize::from(self.shape.tags) + usize::from(tag.0);
        SlotId(self.first + line * self.stride + u32::try_from(cell).unwrap_or(0))
    }

    /// Lets a line start as the owner of a tag has written it, with no copy left in any cache.
    pub fn start_written(&self, layout: &mut Layout, line: u32, tag: Tag) {
        let dram = Dram::new(tag, false);
        layout.start_as(self.ghost(line, 0), dram.code(self.shape.tags));
        layout.start_as(self.ghost(line, 2), 1);
    }

    /// The slots of what DRAM holds of a line: whose key, whether it is older than the truth; and whether there is a
    /// truth.
    #[must_use]
    pub fn memory(&self, line: u32) -> [SlotId; 3] {
        [0, 1, 2].map(|which| self.ghost(line, which))
    }

    fn ghost(&self, line: u32, which: u32) -> SlotId {
        SlotId(self.first + (line + 1) * self.stride - 3 + which)
    }
}

/// A view of a store's slots as line states.
#[derive(Debug)]
pub struct Shadow<'a, S> {
    /// Where the slots are.
    pub slots: &'a LineSlots,
    /// The store.
    pub store: &'a mut S,
}

impl<S: Store> Lines for Shadow<'_, S> {
    #[inline]
    fn copy(&self, line: u32, place: Place, tag: Tag) -> Copy {
        Copy::from_code(self.store.get(self.slots.cell(line, place, tag)))
    }

    #[inline]
    fn set_copy(&mut self, line: u32, place: Place, tag: Tag, copy: Copy) {
        self.store.set(self.slots.cell(line, place, tag), copy.code());
    }

    fn dram(&self, line: u32) -> Dram {
        let key = self.store.get(self.slots.ghost(line, 0));
        Dram::from_code(key, self.slots.shape.tags, self.store.get(self.slots.ghost(line, 1)) != 0)
    }

    fn set_dram(&mut self, line: u32, dram: Dram) {
        self.store.set(self.slots.ghost(line, 0), dram.code(self.slots.shape.tags));
        self.store.set(self.slots.ghost(line, 1), i64::from(dram.old));
    }

    fn truth(&self, line: u32) -> bool {
        self.store.get(self.slots.ghost(line, 2)) != 0
    }

    fn set_truth(&mut self, line: u32, truth: bool) {
        self.store.set(self.slots.ghost(line, 2), i64::from(truth));
    }
}
