//! Lays the slots of a model out: names, domains and classes in, positions in packed words out.

use sim_state::{Class, Domain, Position, SlotId};

/// One declared slot.
#[derive(Clone, Debug)]
pub struct SlotSpec {
    /// Name for stories and errors, such as `vm0.have_run_cpus`.
    pub name: String,
    /// What it may hold.
    pub domain: Domain,
    /// Whose it is.
    pub class: Class,
    /// What it holds at first.
    pub init: i64,
}

/// Words up to which each owner's slots lie apart from those of others.
const LOOSE: usize = 16;

/// The slots of a model, in order of declaration.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    slots: Vec<SlotSpec>,
}

impl Layout {
    /// Declares a slot.
    ///
    /// # Panics
    ///
    /// If the initial value lies outside the domain, which is an error of the model's author.
    pub fn slot(&mut self, name: String, domain: Domain, class: Class, init: i64) -> SlotId {
        assert!(domain.holds(init), "{name} cannot start as {init}");
        let id = SlotId(u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        self.slots.push(SlotSpec { name, domain, class, init });
        id
    }

    /// Changes what a slot holds at first; says whether its domain has the value.
    pub fn start_as(&mut self, slot: SlotId, init: i64) -> bool {
        let found = self.slots.get_mut(slot.0 as usize).filter(|s| s.domain.holds(init));
        found.map(|s| s.init = init).is_some()
    }

    /// Every slot, by number.
    #[must_use]
    pub fn slots(&self) -> &[SlotSpec] {
        &self.slots
    }

    /// The first values, one word a slot.
    #[must_use]
    pub fn initial(&self) -> Vec<i64> {
        self.slots.iter().map(|s| s.init).collect()
    }

    /// Packs the slots into 64-bit words, none across a border; returns the positions and the number of words (at
    /// least 1).
    ///
    /// Those of one owner (what the name says up to its first dot) lie together, in half words of their own, for what
    /// somebody does depends on few others. Where that would take more than 16 words, they lie as close as they
    /// can.
    #[must_use]
    pub fn pack(&self) -> (Vec<Position>, usize) {
        let loose = self.pack_by(|spec| spec.name.split('.').next().unwrap_or(""), 32);
        if loose.1 <= LOOSE { loose } else { self.pack_by(|_| "", 64) }
    }

    /// Packs the slots of each owner into pieces of so many bits, 32 or 64.
    fn pack_by<'s>(&'s self, owner: impl Fn(&'s SlotSpec) -> &'s str, piece: u32) -> (Vec<Position>, usize) {
        let mut owners: Vec<&str> = Vec::new();
        // Whose a piece is, and how many of its bits are used.
        let mut pieces: Vec<(usize, u32)> = Vec::new();
        let mut positions = vec![Position { word: 0, shift: 0, width: 0, low: 0 }; self.slots.len()];
        let mut order: Vec<usize> = (0..self.slots.len()).collect();
        order.sort_by_key(|i| core::cmp::Reverse(self.slots[*i].domain.width()));
        for i in order {
            let (domain, name) = (self.slots[i].domain, owner(&self.slots[i]));
            let width = domain.width();
            positions[i].low = domain.low();
            if width == 0 {
                continue;
            }
            let known = owners.iter().position(|o| *o == name);
            let whose = known.unwrap_or_else(|| {
                owners.push(name);
                owners.len() - 1
            });
            let fits = |(_, (of, used)): &(usize, &(usize, u32))| *of == whose && used + width <= piece;
            let at = pieces.iter().enumerate().find(fits).map(|p| p.0).unwrap_or_else(|| {
                // What is wider than a piece takes a whole word.
                if width > piece && pieces.len() % 2 == 1 {
                    pieces.push((usize::MAX, piece));
                }
                pieces.push((whose, 0));
                pieces.len() - 1
            });
            let bit = at * piece as usize + pieces[at].1 as usize;
            pieces[at].1 += width;
            if width > piece {
                pieces.push((usize::MAX, piece));
            }
            positions[i].word = u32::try_from(bit / 64).unwrap_or(u32::MAX);
            positions[i].shift = u8::try_from(bit % 64).unwrap_or(0);
            positions[i].width = u8::try_from(width).unwrap_or(64);
        }
        let words = (pieces.len() * piece as usize).div_ceil(64).max(1);
        (positions, words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sim_state::{Packed, Store};

    #[test]
    fn packed_slots_hold_what_plain_slots_hold() {
        let mut layout = Layout::default();
        let domains = [
            Domain::Range { lo: -1, hi: 6 },
            Domain::Mask { bits: 63 },
            Domain::BOOL,
            Domain::Range { lo: 5, hi: 5 },
            Domain::Mask { bits: 64 },
            Domain::Range { lo: 0, hi: 255 },
        ];
        let ids: Vec<SlotId> = domains
            .iter()
            .enumerate()
            .map(|(i, d)| layout.slot(format!("s{i}"), *d, Class::Shared, d.low()))
            .collect();
        let (positions, words) = layout.pack();
        let mut state = vec![0; words];
        let mut store = Packed { words: &mut state, layout: &positions };
        let values = [6, (1 << 62) | 1, 1, 5, -1, 255];
        for (id, v) in ids.iter().zip(values) {
            store.set(*id, v);
        }
        for (id, v) in ids.iter().zip(values) {
            assert_eq!(store.get(*id), v);
        }
    }
}
