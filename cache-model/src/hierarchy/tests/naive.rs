//! A reference for the timed caches: the same rules over plain lists, every cache asked, nothing clever.

use sev_arch::{Access, CcxId, CoreId, FlushOp};

use crate::hierarchy::{LineRef, Source};
use crate::lattice::{Held, Place};
use crate::part::{CacheShape, L3Kind, Part, Topology};

#[derive(Clone, Copy, Debug)]
struct Line {
    line: LineRef,
    dirty: bool,
    writable: bool,
}

/// Sets of lines, most recently used first.
#[derive(Clone, Debug)]
struct Lists {
    sets: Vec<Vec<Line>>,
    ways: usize,
}

impl Lists {
    fn new(shape: CacheShape) -> Lists {
        Lists { sets: vec![Vec::new(); shape.sets as usize], ways: usize::from(shape.ways) }
    }

    fn set(&mut self, line: LineRef) -> &mut Vec<Line> {
        let sets = self.sets.len();
        &mut self.sets[line.phys as usize % sets]
    }

    fn get(&mut self, line: LineRef) -> Option<&mut Line> {
        self.set(line).iter_mut().find(|l| l.line == line)
    }

    fn take(&mut self, line: LineRef) -> Option<Line> {
        let set = self.set(line);
        let at = set.iter().position(|l| l.line == line)?;
        Some(set.remove(at))
    }

    /// Moves a line to the front.
    fn touch(&mut self, line: LineRef) {
        if let Some(found) = self.take(line) {
            self.set(line).insert(0, found);
        }
    }

    /// The line that would have to go for this one to come.
    fn last(&mut self, line: LineRef) -> Option<Line> {
        let ways = self.ways;
        let set = self.set(line);
        if set.len() == ways { set.last().copied() } else { None }
    }

    fn put(&mut self, line: Line) -> Option<Line> {
        let ways = self.ways;
        let set = self.set(line.line);
        set.insert(0, line);
        if set.len() > ways { set.pop() } else { None }
    }

    fn all(&self) -> impl Iterator<Item = &Line> {
        self.sets.iter().flatten()
    }
}

/// The reference, and what it counted.
#[derive(Clone, Debug)]
pub(super) struct Naive {
    l1: Vec<Lists>,
    l2: Vec<Lists>,
    l3: Vec<Lists>,
    topology: Topology,
    coherent: bool,
    inclusive: bool,
    /// Private copies invalidated by stores and other tags; by an inclusive L3 that ran out of room.
    pub(super) invalidated: [u64; 2],
    /// Lines written to DRAM: evictions, flushes, other tags and DMA.
    pub(super) written_back: [u64; 3],
    pub(super) misses: u64,
    pub(super) l2_hits: u64,
    pub(super) upgrades: u64,
}

impl Naive {
    pub(super) fn new(part: &Part) -> Naive {
        let topology = *part.topology();
        let copies = |shape, n: u16| vec![Lists::new(shape); usize::from(n)];
        Naive {
            l1: copies(part.l1d(), topology.cores()),
            l2: copies(part.l2(), topology.cores()),
            l3: copies(part.l3(), topology.ccxs()),
            topology,
            coherent: part.sme_coherent(),
            inclusive: part.l3_kind() == L3Kind::Inclusive,
            invalidated: [0; 2],
            written_back: [0; 3],
            misses: 0,
            l2_hits: 0,
            upgrades: 0,
        }
    }

    fn ccx(&self, core: usize) -> usize {
        self.topology.ccx_of(CoreId(u16::try_from(core).expect("small"))).index()
    }

    fn far(&self, core: usize, ccx: usize) -> Source {
        let own = self.ccx(core);
        let id = |n: usize| CcxId(u16::try_from(n).expect("small"));
        if own == ccx {
            Source::OtherCoreSameCcx
        } else if self.topology.socket_of(id(own)) == self.topology.socket_of(id(ccx)) {
            Source::OtherCcx
        } else {
            Source::OtherSocket
        }
    }

    fn dram(&self, core: usize, line: LineRef) -> Source {
        let home = if self.topology.sockets() == 1 { 0 } else { line.phys >> 15 & 1 };
        let ccx = CcxId(u16::try_from(self.ccx(core)).expect("small"));
        if u32::from(self.topology.socket_of(ccx)) == home { Source::DramLocal } else { Source::DramRemote }
    }

    fn take_private(&mut self, core: usize, line: LineRef) -> Option<Line> {
        let inner = self.l1[core].take(line);
        let mut outer = self.l2[core].take(line)?;
        outer.dirty |= inner.is_some_and(|l| l.dirty);
        Some(outer)
    }

    /// A private copy, L1 and L2 as one.
    fn private(&mut self, core: usize, line: LineRef) -> Option<Line> {
        let inner = self.l1[core].get(line).is_some_and(|l| l.dirty);
        let mut copy = *self.l2[core].get(line)?;
        copy.dirty |= inner;
        Some(copy)
    }

    fn share_private(&mut self, core: usize, line: LineRef) {
        for cache in [&mut self.l1[core], &mut self.l2[core]] {
            if let Some(copy) = cache.get(line) {
                copy.writable = false;
            }
        }
    }

    pub(super) fn access(&mut self, core: usize, line: LineRef, access: Access) -> Source {
        let write = access == Access::Write;
        if let Some(copy) = self.l1[core].get(line)
            && (copy.writable || !write)
        {
            copy.dirty |= write;
            self.l1[core].touch(line);
            return Source::L1;
        }
        let in_l1 = self.l1[core].get(line).is_some();
        if let Some(copy) = self.l2[core].get(line).copied() {
            if !in_l1 {
                self.l2[core].touch(line);
            }
            if copy.writable || !write {
                assert!(!in_l1, "the L1 has no less right than the L2");
                self.l2_hits += 1;
                self.put_l1(core, Line { dirty: write, ..copy });
                return Source::L2;
            }
            return self.upgrade(core, line);
        }
        self.misses += 1;
        if self.coherent {
            self.expel_other_tags(line);
        }
        let source = if self.inclusive {
            self.fetch_inclusive(core, line, write)
        } else {
            self.fetch(core, line, write)
        };
        let (source, writable, dirty) = source;
        let new = Line { line, dirty: dirty || write, writable: writable || write };
        if let Some(old) = self.l2[core].put(new) {
            self.spill(core, old);
        }
        self.put_l1(core, Line { dirty: false, ..new });
        source
    }

    fn put_l1(&mut self, core: usize, line: Line) {
        if let Some(old) = self.l1[core].put(line)
            && old.dirty
        {
            self.l2[core].get(old.line).expect("inclusive").dirty = true;
        }
    }

    fn spill(&mut self, core: usize, mut old: Line) {
        old.dirty |= self.l1[core].take(old.line).is_some_and(|l| l.dirty);
        let ccx = self.ccx(core);
        if let Some(copy) = self.l3[ccx].get(old.line) {
            copy.dirty |= old.dirty;
            if !self.inclusive {
                self.l3[ccx].touch(old.line);
            }
            return;
        }
        if let Some(gone) = self.l3[ccx].put(old) {
            self.written_back[0] += u64::from(gone.dirty);
        }
    }

    fn upgrade(&mut self, core: usize, line: LineRef) -> Source {
        self.upgrades += 1;
        let mut source = Source::L3;
        let mut dirty = false;
        for other in (0..self.l2.len()).filter(|o| *o != core) {
            if let Some(copy) = self.take_private(other, line) {
                self.invalidated[0] += 1;
                dirty |= copy.dirty;
                source = source.max(self.far(core, self.ccx(other)));
            }
        }
        for ccx in 0..self.l3.len() {
            if self.inclusive {
                self.l3[ccx].touch(line);
                self.l3[ccx].get(line).expect("inclusive").dirty |= dirty;
            } else if self.l3[ccx].take(line).is_some() && ccx != self.ccx(core) {
                source = source.max(self.far(core, ccx));
            }
        }
        self.l2[core].get(line).expect("it is there").writable = true;
        let new = Line { line, dirty: true, writable: true };
        if let Some(copy) = self.l1[core].get(line) {
            *copy = new;
            self.l1[core].touch(line);
        } else {
            self.put_l1(core, new);
        }
        source
    }

    /// Source, and whether the requester's copy is writable, and dirty.
    fn fetch(&mut self, core: usize, line: LineRef, write: bool) -> (Source, bool, bool) {
        let own = self.ccx(core);
        let mut found: Option<(Source, bool, bool)> = None;
        if let Some(copy) = self.l3[own].take(line) {
            found = Some((Source::L3, copy.writable, copy.dirty));
        }
        if let (Some(found), false) = (found, write) {
            return found;
        }
        let peers: Vec<usize> = (0..self.l2.len()).filter(|o| *o != core && self.ccx(*o) == own).collect();
        for peer in peers {
            if self.private(peer, line).is_none() {
                continue;
            }
            found = found.or(Some((Source::OtherCoreSameCcx, false, false)));
            if !write {
                self.share_private(peer, line);
                return found.expect("just set");
            }
            self.take_private(peer, line);
            self.invalidated[0] += 1;
        }
        let mut held = false;
        for ccx in (0..self.l3.len()).filter(|x| *x != own) {
            let mut answers = false;
            if let Some(copy) = self.l3[ccx].get(line) {
                held = true;
                answers |= copy.dirty || copy.writable;
                copy.writable = false;
            }
            if write {
                self.l3[ccx].take(line);
            }
            for other in 0..self.l2.len() {
                let Some(copy) = (if self.ccx(other) == ccx { self.private(other, line) } else { None })
                else {
                    continue;
                };
                held = true;
                answers |= copy.dirty || copy.writable;
                self.share_private(other, line);
                if write {
                    self.take_private(other, line);
                    self.invalidated[0] += 1;
                }
            }
            if answers && found.is_none() {
                found = Some((self.far(core, ccx), false, false));
            }
        }
        found.unwrap_or((self.dram(core, line), !held, false))
    }

    fn fetch_inclusive(&mut self, core: usize, line: LineRef, write: bool) -> (Source, bool, bool) {
        if self.l3[0].get(line).is_none() {
            if let Some(old) = self.l3[0].last(line) {
                let mut dirty = old.dirty;
                for other in 0..self.l2.len() {
                    if let Some(copy) = self.take_private(other, old.line) {
                        self.invalidated[1] += 1;
                        dirty |= copy.dirty;
                    }
                }
                self.written_back[0] += u64::from(dirty);
            }
            self.l3[0].put(Line { line, dirty: false, writable: false });
            return (self.dram(core, line), true, false);
        }
        self.l3[0].touch(line);
        let (mut alone, mut dirty) = (true, false);
        for other in 0..self.l2.len() {
            let Some(copy) = self.private(other, line) else { continue };
            alone = false;
            dirty |= copy.dirty;
            if write {
                self.take_private(other, line);
                self.invalidated[0] += 1;
                continue;
            }
            self.share_private(other, line);
            for cache in [&mut self.l1[other], &mut self.l2[other]] {
                if let Some(copy) = cache.get(line) {
                    copy.dirty = false;
                }
            }
        }
        self.l3[0].get(line).expect("just found").dirty |= dirty;
        (if dirty { Source::OtherCoreSameCcx } else { Source::L3 }, alone, false)
    }

    /// Takes every copy of a line under its tag: `None` if there was none, else whether it was dirty.
    fn expel(&mut self, line: LineRef) -> Option<bool> {
        let private = (0..self.l2.len()).filter_map(|c| self.take_private(c, line)).collect::<Vec<_>>();
        let l3 = self.l3.iter_mut().filter_map(|l3| l3.take(line)).collect::<Vec<_>>();
        if private.is_empty() && l3.is_empty() {
            return None;
        }
        Some(private.iter().chain(&l3).any(|copy| copy.dirty))
    }

    fn expel_other_tags(&mut self, line: LineRef) {
        for tag in (0..LineRef::TAG_LIMIT).filter(|t| *t != line.tag.0) {
            let other = LineRef { tag: sev_arch::Tag(tag), ..line };
            let held = (0..self.l2.len()).filter(|c| self.l2[*c].get(other).is_some()).count();
            self.invalidated[0] += held as u64;
            self.written_back[2] += u64::from(self.expel(other) == Some(true));
        }
    }

    pub(super) fn clflush(&mut self, line: LineRef) {
        for tag in 0..LineRef::TAG_LIMIT {
            if tag == line.tag.0 || self.coherent {
                let dirty = self.expel(LineRef { tag: sev_arch::Tag(tag), ..line }) == Some(true);
                self.written_back[1] += u64::from(dirty);
            }
        }
    }

    pub(super) fn clwb(&mut self, line: LineRef) {
        for tag in (0..LineRef::TAG_LIMIT).filter(|t| *t == line.tag.0 || self.coherent).collect::<Vec<u8>>()
        {
            let line = LineRef { tag: sev_arch::Tag(tag), ..line };
            let mut dirty = false;
            for cache in self.l1.iter_mut().chain(&mut self.l2).chain(&mut self.l3) {
                if let Some(copy) = cache.get(line) {
                    dirty |= std::mem::take(&mut copy.dirty);
                }
            }
            self.written_back[1] += u64::from(dirty);
        }
    }

    pub(super) fn dma_write(&mut self, phys: u32) {
        let line = LineRef { phys, tag: sev_arch::Tag::HOST };
        let held = (0..self.l2.len()).filter(|c| self.l2[*c].get(line).is_some()).count();
        self.invalidated[0] += held as u64;
        self.written_back[2] += u64::from(self.expel(line) == Some(true));
    }

    pub(super) fn flush_private(&mut self, core: usize, op: FlushOp) {
        let lines: Vec<LineRef> = self.l2[core].all().map(|l| l.line).collect();
        for line in lines {
            self.written_back[1] += u64::from(self.private(core, line).is_some_and(|l| l.dirty));
            for cache in [&mut self.l1[core], &mut self.l2[core]] {
                match op {
                    FlushOp::Wbinvd => {
                        cache.take(line);
                    }
                    FlushOp::Wbnoinvd => {
                        if let Some(copy) = cache.get(line) {
                            copy.dirty = false;
                        }
                    }
                }
            }
        }
    }

    pub(super) fn flush_l3(&mut self, ccx: usize, op: FlushOp) {
        if self.inclusive && op == FlushOp::Wbinvd {
            for core in 0..self.l2.len() {
                self.flush_private(core, op);
            }
        }
        for set in &mut self.l3[ccx].sets {
            self.written_back[1] += set.iter().filter(|l| l.dirty).count() as u64;
            set.iter_mut().for_each(|l| l.dirty = false);
            if op == FlushOp::Wbinvd {
                set.clear();
            }
        }
    }

    pub(super) fn holders(&mut self, line: LineRef) -> Vec<(Place, Held)> {
        let held = |dirty| if dirty { Held::Dirty } else { Held::Clean };
        let mut holders = Vec::new();
        for core in 0..self.l2.len() {
            if let Some(copy) = self.private(core, line) {
                holders.push((Place::Private(CoreId(u16::try_from(core).expect("small"))), held(copy.dirty)));
            }
        }
        let newer = self.inclusive && holders.iter().any(|(_, held)| *held == Held::Dirty);
        for ccx in 0..self.l3.len() {
            if let (Some(copy), false) = (self.l3[ccx].get(line), newer) {
                holders.push((Place::L3(CcxId(u16::try_from(ccx).expect("small"))), held(copy.dirty)));
            }
        }
        holders
    }
}
