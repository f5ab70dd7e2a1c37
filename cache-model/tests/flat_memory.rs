//! Random programs on the timed caches against a flat memory: no cache, no state, one value a line and a tag.
//!
//! The caches hold no data. Here each copy that they say they hold is given a value, by the simplest rules that move
//! data: a fill takes the value of whoever held the line dirty, or DRAM's; what is written back is what was dirty.
//! The value that a load then finds must be the flat memory's:
//!
//! * with tags that exclude each other (SME_COHERENT), the last value that any CPU stored, whatever the tag;
//! * with tags that are unrelated, the last value stored under the load's own tag, unless a write-back of another tag
//!   has come over it in DRAM: then what DRAM holds, and the flat memory of the tag is told so.

use std::collections::BTreeMap;

use cache_model::hierarchy::{Hierarchy, LineRef};
use cache_model::lattice::{Held, Place};
use cache_model::part::{CacheShape, L3Kind, Level, Part};
use proptest::prelude::*;
use sev_arch::{Access, CcxId, CoreId, FlushOp, Tag};

const LINES: u32 = 24;
const TAGS: u8 = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    Load(u16, u32, u8),
    Store(u16, u32, u8),
    Flush(u16, FlushOp),
    Clflush(u32),
    Dma(u32, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let op = prop_oneof![Just(FlushOp::Wbinvd), Just(FlushOp::Wbnoinvd)];
    let step = prop_oneof![
        12 => (0..8u16, 0..LINES, 0..TAGS).prop_map(|(c, l, t)| Step::Load(c, l, t)),
        12 => (0..8u16, 0..LINES, 0..TAGS).prop_map(|(c, l, t)| Step::Store(c, l, t)),
        1 => (0..8u16, op).prop_map(|(c, op)| Step::Flush(c, op)),
        1 => (0..LINES).prop_map(Step::Clflush),
        1 => (0..LINES, any::<bool>()).prop_map(|(l, write)| Step::Dma(l, write)),
    ];
    prop::collection::vec(step, 1..400)
}

/// Who holds a line under a tag.
type Holders = (u32, u8, Vec<(Place, Held)>);

/// Values by the simplest rules.
struct Values {
    caches: Hierarchy,
    copies: BTreeMap<(u32, u8, Place), u64>,
    dram: BTreeMap<u32, u64>,
    stored: u64,
}

impl Values {
    fn holders(&self, phys: u32, tag: u8) -> Vec<(Place, Held)> {
        self.caches.holders(LineRef { phys, tag: Tag(tag) })
    }

    fn dirty(&self, phys: u32, tag: u8) -> Option<Place> {
        self.holders(phys, tag).into_iter().find(|h| h.1 == Held::Dirty).map(|h| h.0)
    }

    /// Follows what an operation did to every line but `at`, and to that of other tags: copies that left, and what
    /// was written back.
    fn follow(&mut self, before: &[Holders], own: Option<(u32, u8)>) {
        for (phys, tag, old) in before {
            if own == Some((*phys, *tag)) {
                continue;
            }
            let now = self.holders(*phys, *tag);
            let was_dirty = old.iter().find(|h| h.1 == Held::Dirty).map(|h| h.0);
            let value = was_dirty.map(|place| self.copies[&(*phys, *tag, place)]);
            let any = old.first().map(|h| self.copies[&(*phys, *tag, h.0)]);
            // A move within a CCX carries the value along: all copies of a tag are equal.
            for (place, _) in old {
                self.copies.remove(&(*phys, *tag, *place));
            }
            for (place, _) in &now {
                let value = value.or(any).expect("a copy comes from a copy");
                self.copies.insert((*phys, *tag, *place), value);
            }
            if let Some(value) = value.filter(|_| !now.iter().any(|h| h.1 == Held::Dirty)) {
                self.dram.insert(*phys, value);
            }
        }
    }

    fn all(&self) -> Vec<Holders> {
        (0..LINES)
            .flat_map(|phys| (0..TAGS).map(move |tag| (phys, tag)))
            .map(|(p, t)| (p, t, self.holders(p, t)))
            .collect()
    }

    /// An access, and the value that a load finds.
    fn access(&mut self, core: u16, phys: u32, tag: u8, write: bool) -> u64 {
        let before = self.all();
        let access = if write { Access::Write } else { Access::Read };
        let own = self.holders(phys, tag);
        let source = own.iter().find(|h| h.1 == Held::Dirty).or(own.first()).map(|h| h.0);
        let at = LineRef { phys, tag: Tag(tag) };
        if self.caches.try_hit(CoreId(core), at, access).is_none() {
            self.caches.access(CoreId(core), at, access, 0);
        }
        // Others first: a copy under another tag may have had to be written back for this one.
        self.follow(&before, Some((phys, tag)));
        let found = match source {
            Some(place) => self.copies[&(phys, tag, place)],
            None => self.dram.get(&phys).copied().unwrap_or(0),
        };
        if write {
            self.stored += 1;
        }
        let value = if write { self.stored } else { found };
        for (place, _) in own {
            self.copies.remove(&(phys, tag, place));
        }
        let now = self.holders(phys, tag);
        assert!(now.contains(&(
            Place::Private(CoreId(core)),
            if write { Held::Dirty } else { now_held(&now, core) }
        )));
        for (place, _) in now {
            self.copies.insert((phys, tag, place), value);
        }
        found
    }
}

fn now_held(now: &[(Place, Held)], core: u16) -> Held {
    now.iter().find(|h| h.0 == Place::Private(CoreId(core))).map_or(Held::Absent, |h| h.1)
}

fn part(coherent: bool) -> Part {
    let shape = CacheShape::lru;
    Part::builtin("rome")
        .and_then(|p| p.with_pcpus(8))
        .expect("fits")
        .with_caches(shape(1, 2), shape(2, 2), shape(2, 4), L3Kind::Victim)
        .with_sme_coherent(coherent)
}

fn run(program: &[Step], coherent: bool) {
    let part = part(coherent);
    let caches = Hierarchy::with(&part, &part.timing(Level::Typical), LINES);
    let mut v = Values { caches, copies: BTreeMap::new(), dram: BTreeMap::new(), stored: 0 };
    // The flat memory: of all CPUs together, or of each tag.
    let mut flat: BTreeMap<(u32, u8), u64> = BTreeMap::new();
    let cell = |phys: u32, tag: u8| (phys, if coherent { 0 } else { tag });
    for (n, step) in program.iter().enumerate() {
        match *step {
            Step::Load(c, phys, tag) => {
                let cached = !v.holders(phys, tag).is_empty();
                let found = v.access(c, phys, tag, false);
                let key = cell(phys, tag);
                if !coherent && !cached {
                    // What DRAM holds is this tag's truth from now on, whoever put it there.
                    flat.insert(key, v.dram.get(&phys).copied().unwrap_or(0));
                }
                assert_eq!(found, flat.get(&key).copied().unwrap_or(0), "step {n}: {step:?}");
            }
            Step::Store(c, phys, tag) => {
                v.access(c, phys, tag, true);
                flat.insert(cell(phys, tag), v.stored);
            }
            Step::Flush(c, op) => {
                let before = v.all();
                v.caches.flush_private(CoreId(c), op);
                v.caches.flush_l3(CcxId(c / 4), op);
                v.follow(&before, None);
                for tag in 0..TAGS {
                    for phys in 0..LINES {
                        let here = |h: &(Place, Held)| {
                            h.0 == Place::Private(CoreId(c)) || h.0 == Place::L3(CcxId(c / 4))
                        };
                        let left: Vec<_> = v.holders(phys, tag).into_iter().filter(here).collect();
                        assert!(
                            left.iter().all(|h| h.1 == Held::Clean && op == FlushOp::Wbnoinvd),
                            "{left:?}"
                        );
                    }
                }
            }
            Step::Clflush(phys) => {
                let before = v.all();
                v.caches.clflush(LineRef { phys, tag: Tag::HOST }, 0);
                v.follow(&before, None);
                let tags = if coherent { 0..TAGS } else { 0..1 };
                assert!(tags.into_iter().all(|tag| v.holders(phys, tag).is_empty()));
            }
            Step::Dma(phys, write) => {
                let before = v.all();
                let dirty = v.dirty(phys, 0).map(|place| v.copies[&(phys, 0, place)]);
                let access = if write { Access::Write } else { Access::Read };
                v.caches.dma(phys, access, 0);
                v.follow(&before, None);
                if write {
                    v.stored += 1;
                    v.dram.insert(phys, v.stored);
                    // The host's copies are gone. A guest's are older from now on: no CPU is told.
                    assert!(v.holders(phys, 0).is_empty());
                    let held = (1..TAGS).any(|tag| !v.holders(phys, tag).is_empty());
                    if !coherent || !held {
                        flat.insert((phys, 0), v.stored);
                    }
                } else if !v.holders(phys, 0).is_empty() {
                    // Coherent with the host's copies.
                    let seen = dirty.unwrap_or_else(|| v.dram.get(&phys).copied().unwrap_or(0));
                    let of_host = v.holders(phys, 0)[0].0;
                    // Clean copies do not answer a device: another tag's write-back may have come over them in DRAM.
                    if coherent || dirty.is_some() {
                        assert_eq!(
                            seen,
                            v.copies[&(phys, 0, of_host)],
                            "step {n}: a device reads an old value"
                        );
                    }
                }
            }
        }
        v.caches.check_invariants();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn coherent_tags_are_one_flat_memory(program in steps()) {
        // A device's write beside a guest's copy is what SME_COHERENT does not cover.
        let program: Vec<Step> = program.into_iter().filter(|s| !matches!(s, Step::Dma(_, true))).collect();
        run(&program, true);
    }

    #[test]
    fn coherent_tags_with_devices_for_the_host_only(program in steps()) {
        let program: Vec<Step> = program
            .into_iter()
            .map(|s| match s {
                Step::Load(c, p, _) => Step::Load(c, p, 0),
                Step::Store(c, p, _) => Step::Store(c, p, 0),
                Step::Flush(..) | Step::Clflush(_) | Step::Dma(..) => s,
            })
            .collect();
        run(&program, true);
    }

    #[test]
    fn unrelated_tags_are_a_flat_memory_each_over_one_dram(program in steps()) {
        run(&program, false);
    }
}
