//! The invariants of the caches, checked from outside: for tests, in time of all lines held.

use std::collections::BTreeMap;

use super::directory::Sharers;
use super::machine::Machine;
use super::pages::Tables;
use super::set::State;
use super::words::LineRef;

/// A copy that was found.
#[derive(Clone, Copy, Debug)]
struct Copy {
    private: bool,
    state: State,
}

impl<const W1: usize, const K1: usize, const W2: usize, const K2: usize, T: Tables<W1, W2>>
    Machine<W1, K1, W2, K2, T>
{
    /// Panics with the line and the rule if something is broken.
    pub(super) fn check_invariants(&self) {
        let mut copies: BTreeMap<u32, Vec<Copy>> = BTreeMap::new();
        let mut held: BTreeMap<u32, Sharers> = BTreeMap::new();
        for (core, place) in self.places.iter().enumerate() {
            let mut valid = 0;
            self.l2.each_valid(core, |key, mut state, marked| {
                valid += 1;
                assert!(marked || !state.dirty(), "L2 of core{core}: the dirty summary misses {key:#x}");
                if let Some(inner) = self.l1.peek(core, key) {
                    assert!(
                        state.writable() || !inner.writable(),
                        "core{core}: the L1 may write {key:#x}, the L2 not"
                    );
                    state = state.soiled_by(inner);
                }
                copies.entry(key).or_default().push(Copy { private: true, state });
                let sharers = held.entry(key).or_insert(Sharers::NONE);
                let ccx = usize::from(place.ccx);
                sharers.set_cores(ccx, sharers.cores[ccx] | place.bit);
            });
            assert_eq!(valid, self.l2.valid(core), "L2 of core{core}: count of valid lines");
            let (counted, kept) = self.l2.count_ghosts(core);
            assert_eq!(counted, kept, "L2 of core{core}: count of ghosts");
            if let Some((key, stored)) = self.last(core) {
                let state = self.l1.peek(core, key);
                let same = state.is_some_and(|s| !stored || s.dirty() && s.writable());
                assert!(same, "core{core}: its last access was to {key:#x}, which is {state:?} in the L1");
                assert!(self.l1.is_newest(core, key), "core{core}: {key:#x} is not what its L1 used last");
            }
            self.l1.each_valid(core, |key, state, marked| {
                assert!(marked || !state.dirty(), "L1 of core{core}: the dirty summary misses {key:#x}");
                assert!(
                    self.l2.peek(core, key).is_some(),
                    "core{core}: {key:#x} is in the L1, not in the L2"
                );
            });
        }
        for ccx in 0..self.l3.caches() {
            let mut valid = 0;
            self.l3.each_valid(ccx, |key, state, marked| {
                valid += 1;
                assert!(marked || !state.dirty(), "L3 of ccx{ccx}: the dirty summary misses {key:#x}");
                copies.entry(key).or_default().push(Copy { private: false, state });
                held.entry(key).or_insert(Sharers::NONE).set_l3(ccx, true);
            });
            assert_eq!(valid, self.l3.valid(ccx), "L3 of ccx{ccx}: count of valid lines");
            let (counted, kept) = self.l3.count_ghosts(ccx);
            assert_eq!(counted, kept, "L3 of ccx{ccx}: count of ghosts");
        }
        self.check_copies(&copies);
        self.check_directory(&held);
    }

    /// Whether the copies of a line under one tag obey MOESI: one owner of dirty data at most, and who may write is
    /// alone. Asserted after each fill and each probe, where debug assertions are on. An inclusive L3's copies are
    /// stand-ins, and not looked at.
    pub(super) fn obeys_moesi(&self, key: u32) -> bool {
        if self.inclusive {
            return true;
        }
        let sharers = self.sharers(key);
        let (mut copies, mut dirty, mut writable) = (0, 0, 0);
        let mut ccxs = sharers.ccxs | sharers.l3s;
        while ccxs != 0 {
            let ccx = ccxs.trailing_zeros() as usize;
            ccxs &= ccxs - 1;
            let cores = super::set::bits(sharers.cores[ccx]);
            let private = cores.filter_map(|local| self.peek_private(self.core_at(ccx, local), key));
            let shared = if sharers.l3s >> ccx & 1 != 0 { self.l3.peek(ccx, key) } else { None };
            for state in private.chain(shared) {
                copies += 1;
                dirty += u32::from(state.dirty());
                writable += u32::from(state.writable());
            }
        }
        dirty <= 1 && (writable == 0 || copies == 1)
    }

    fn check_copies(&self, copies: &BTreeMap<u32, Vec<Copy>>) {
        let mut tags: BTreeMap<u32, u64> = BTreeMap::new();
        for (key, copies) in copies {
            let line = LineRef::of_key(*key);
            // an inclusive L3's copy is a stand-in: its planes have another meaning
            let real = |c: &&Copy| c.private || !self.inclusive;
            let count = copies.iter().filter(real).count();
            let dirty = copies.iter().filter(real).filter(|c| c.state.dirty()).count();
            let writable = copies.iter().filter(real).filter(|c| c.state.writable()).count();
            assert!(dirty <= 1, "{line:?} is dirty in {dirty} places");
            assert!(writable == 0 || count == 1, "{line:?} is writable beside {} other copies", count - 1);
            *tags.entry(line.phys).or_default() |= 1 << line.tag.0;
        }
        if self.coherent_tags {
            for (phys, tags) in tags {
                assert_eq!(tags.count_ones(), 1, "line {phys} is cached under several tags: {tags:#b}");
            }
        }
        if self.inclusive {
            for (key, copies) in copies {
                let line = LineRef::of_key(*key);
                assert!(copies.iter().any(|c| !c.private), "{line:?} is not in the inclusive L3");
            }
        }
    }

    fn check_directory(&self, held: &BTreeMap<u32, Sharers>) {
        for (key, sharers) in held {
            assert_eq!(
                self.verified(*key),
                *sharers,
                "the directory misses a holder of {:?}",
                LineRef::of_key(*key)
            );
        }
        for phys in 0..u32::try_from(self.directory.memory_lines()).unwrap_or(u32::MAX) {
            let mut tags = self.directory.tags_of(phys);
            while tags != 0 {
                let tag = u8::try_from(tags.trailing_zeros()).unwrap_or(u8::MAX);
                tags &= tags - 1;
                let key = LineRef { phys, tag: sev_arch::Tag(tag) }.key();
                let listed = self.directory.load(key);
                assert!(!listed.is_empty(), "line {phys}: an empty entry under tag {tag}");
                let real = held.get(&key).copied().unwrap_or(Sharers::NONE);
                assert!(
                    self.hints || listed == real,
                    "without an invalidating flush the directory lists nobody in vain: line {phys} tag {tag}"
                );
            }
        }
    }
}
