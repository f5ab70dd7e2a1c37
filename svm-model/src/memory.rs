//! What the machine asks of memory: one interface, behind it line copies in slots or the timed caches.

use cache_model::event::Event;
use cache_model::lattice::{Held, Lines as _, Move, Place, Shape};
use cache_model::shadow::{LineSlots, Shadow};
use sev_arch::{Access, CoreId, FlushOp, Tag};
use sim_core::state::{SlotId, Store};

/// What an action of memory came to.
#[derive(Debug, Default)]
pub struct Effects {
    /// Events judged.
    pub events: Vec<Event>,
    /// Cycles it took, where time is kept; else 0.
    pub cycles: u64,
}

/// Memory as the machine sees it. Lines are numbered page by page.
pub trait Memory<S: Store> {
    /// A load or store of a CPU; `owner` says whether the accessor owns the page.
    fn cpu(
        &mut self,
        store: &mut S,
        line: u32,
        by: (CoreId, Tag),
        access: Access,
        owner: bool,
        fx: &mut Effects,
    );
    /// A device's access.
    fn dma(&mut self, store: &mut S, line: u32, access: Access, owner: bool, fx: &mut Effects);
    /// The walk of a flush begins.
    fn flush_begin(&mut self, store: &mut S, core: CoreId, op: FlushOp, fx: &mut Effects);
    /// Whether the private part of a flush by a core would find nothing, and nobody else could change that.
    fn private_empty(&self, store: &mut S, core: CoreId) -> bool;
    /// The private part of a flush takes effect.
    fn flush_private(&mut self, store: &mut S, core: CoreId, op: FlushOp, fx: &mut Effects);
    /// The shared part of a flush takes effect.
    fn flush_shared(&mut self, store: &mut S, core: CoreId, op: FlushOp, fx: &mut Effects);
    /// What the end of a flush still waits for.
    fn flush_waits(&mut self, store: &mut S, core: CoreId) -> Option<SlotId>;
    /// CLFLUSH through the host's mapping.
    fn clflush(&mut self, store: &mut S, line: u32, fx: &mut Effects);
    /// CLWB through the host's mapping.
    fn clwb(&mut self, store: &mut S, line: u32, fx: &mut Effects);
    /// The PSP reads or writes a line under a tag's key; `owner` says whether for the page's owner.
    fn psp(&mut self, store: &mut S, line: u32, tag: Tag, access: Access, owner: bool, fx: &mut Effects);
    /// VM_PAGE_FLUSH of a line: every cache's copy under one tag.
    fn flush_tag(&mut self, store: &mut S, line: u32, tag: Tag, fx: &mut Effects);
    /// A guest evicts the copies of a line under other tags than its own.
    fn guest_evicts(&mut self, store: &mut S, line: u32, tag: Tag, fx: &mut Effects);
    /// INVD by a core.
    fn invd(&mut self, store: &mut S, core: CoreId, fx: &mut Effects);
    /// A new key is installed for a tag.
    fn new_key(&mut self, store: &mut S, tag: Tag);
    /// What is on its way arrives in memory.
    fn fabric_flush(&mut self, store: &mut S, fx: &mut Effects);
    /// Whether a dirty copy under a tag is in any cache or on its way out.
    fn dirty(&self, store: &mut S, line: u32, tag: Tag) -> bool;
    /// Whether an event can still concern a line whose page belongs to a tag.
    fn concerns(&self, store: &mut S, line: u32, owner: Tag) -> bool;
    /// The cheapest set of cores whose flushes cover every dirty line of a tag; `busy` says of each core whether a
    /// vCPU is on it.
    fn cover(&self, store: &mut S, tag: Tag, busy: &[bool]) -> Vec<CoreId>;
    /// The line's page changes hands.
    fn change_owner(&mut self, store: &mut S, line: u32);
    /// Calls `f` with each spontaneous move possible now, of one line or of all, in the order of the lines.
    fn each_move(&self, store: &mut S, of: Option<u32>, f: &mut dyn FnMut(Move));
    /// Makes such a move.
    fn make_move(&mut self, store: &mut S, m: Move, fx: &mut Effects);
}

/// Line copies in slots: the explorer's memory.
#[derive(Clone, Debug)]
pub struct ShadowMemory {
    /// Places, tags and promises.
    pub shape: Shape,
    /// Where the copies are among the slots.
    pub slots: LineSlots,
    /// Whether the step at hand gives a page to its next owner: where flushes take time, its CLFLUSHes end within it.
    pub handing_on: bool,
}

impl ShadowMemory {
    fn view<'a, S: Store>(&'a self, store: &'a mut S) -> Shadow<'a, S> {
        Shadow { slots: &self.slots, store }
    }
}

impl<S: Store> Memory<S> for ShadowMemory {
    fn cpu(
        &mut self,
        store: &mut S,
        line: u32,
        by: (CoreId, Tag),
        access: Access,
        owner: bool,
        fx: &mut Effects,
    ) {
        self.shape.cpu_access(&mut self.view(store), line, by, access, owner, &mut fx.events);
    }

    fn dma(&mut self, store: &mut S, line: u32, access: Access, owner: bool, fx: &mut Effects) {
        self.shape.dma(&mut self.view(store), line, access, owner, &mut fx.events);
    }

    fn flush_begin(&mut self, _: &mut S, _: CoreId, _: FlushOp, _: &mut Effects) {}

    fn private_empty(&self, store: &mut S, core: CoreId) -> bool {
        let mut cores = self.shape.flushed_cores(core);
        if cores.next() != Some(core) || cores.next().is_some() {
            return false;
        }
        let view = self.view(store);
        let empty = |line, tag| view.copy(line, Place::Private(core), tag).held == Held::Absent;
        (0..self.slots.lines()).all(|line| self.shape.all_tags().all(|tag| empty(line, tag)))
    }

    fn flush_private(&mut self, store: &mut S, core: CoreId, op: FlushOp, fx: &mut Effects) {
        for line in 0..self.slots.lines() {
            self.shape.flush_private(&mut self.view(store), line, core, op, &mut fx.events);
        }
    }

    fn flush_shared(&mut self, store: &mut S, core: CoreId, op: FlushOp, fx: &mut Effects) {
        for line in 0..self.slots.lines() {
            self.shape.flush_shared(&mut self.view(store), line, core, op, &mut fx.events);
        }
    }

    fn flush_waits(&mut self, store: &mut S, core: CoreId) -> Option<SlotId> {
        for line in 0..self.slots.lines() {
            if let Some((place, tag)) = self.shape.first_in_flight(&self.view(store), line, core) {
                return Some(self.slots.cell(line, place, tag));
            }
        }
        None
    }

    fn clflush(&mut self, store: &mut S, line: u32, fx: &mut Effects) {
        self.shape.clflush(&mut self.view(store), line, &mut fx.events);
        if self.handing_on && self.shape.flushes_fly {
            self.shape.land(&mut self.view(store), line, &mut fx.events);
        }
    }

    fn clwb(&mut self, store: &mut S, line: u32, fx: &mut Effects) {
        self.shape.clwb(&mut self.view(store), line, &mut fx.events);
    }

    fn psp(&mut self, store: &mut S, line: u32, tag: Tag, access: Access, owner: bool, fx: &mut Effects) {
        self.shape.psp(&mut self.view(store), line, tag, access, owner, &mut fx.events);
    }

    fn flush_tag(&mut self, store: &mut S, line: u32, tag: Tag, fx: &mut Effects) {
        self.shape.flush_tag(&mut self.view(store), line, tag, &mut fx.events);
    }

    fn guest_evicts(&mut self, store: &mut S, line: u32, tag: Tag, fx: &mut Effects) {
        self.shape.guest_evicts(&mut self.view(store), line, tag, &mut fx.events);
    }

    fn invd(&mut self, store: &mut S, core: CoreId, _: &mut Effects) {
        for line in 0..self.slots.lines() {
            self.shape.invd(&mut self.view(store), line, core);
        }
    }

    fn new_key(&mut self, store: &mut S, tag: Tag) {
        for line in 0..self.slots.lines() {
            self.shape.new_key(&mut self.view(store), line, tag);
        }
    }

    fn fabric_flush(&mut self, store: &mut S, fx: &mut Effects) {
        for line in 0..self.slots.lines() {
            self.shape.fabric_flush(&mut self.view(store), line, &mut fx.events);
        }
    }

    fn dirty(&self, store: &mut S, line: u32, tag: Tag) -> bool {
        self.shape.dirty_anywhere(&self.view(store), line, tag)
    }

    fn concerns(&self, store: &mut S, line: u32, owner: Tag) -> bool {
        self.shape.concerns(&self.view(store), line, owner)
    }

    fn cover(&self, store: &mut S, tag: Tag, busy: &[bool]) -> Vec<CoreId> {
        let (mut private, mut shared) = (Vec::new(), Vec::new());
        for line in 0..self.slots.lines() {
            let view = self.view(store);
            for place in self.shape.places() {
                if view.copy(line, place, tag).held == Held::Dirty {
                    match place {
                        Place::Private(c) => private.push(c),
                        Place::L3(x) | Place::Flight(x) => shared.push(x),
                    }
                }
            }
        }
        self.shape.cover(&private, &shared, busy)
    }

    fn change_owner(&mut self, store: &mut S, line: u32) {
        self.shape.change_owner(&mut self.view(store), line);
    }

    fn each_move(&self, store: &mut S, of: Option<u32>, f: &mut dyn FnMut(Move)) {
        for line in of.map_or(0..self.slots.lines(), |l| l..l + 1) {
            self.shape.each_move(&self.view(store), line, f);
        }
    }

    fn make_move(&mut self, store: &mut S, m: Move, fx: &mut Effects) {
        self.shape.make_move(&mut self.view(store), m, &mut fx.events);
    }
}
