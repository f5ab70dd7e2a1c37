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

    /// Packs the slots into 64-bit words, none across a border, wide ones first; returns the positions and the
    /// number of words (at least 1).
    #[must_use]
    pub fn pack(&self) -> (Vec<Position>, usize) {
        let mut order: Vec<usize> = (0..self.slots.len()).collect();
        order.sort_by_key(|i| core::cmp::Reverse(self.slots[*i].domain.width()));
        let mut used: Vec<u32> = vec![0];
        let mut positions = vec![Position { word: 0, shift: 0, width: 0, low: 0 }; self.slots.len()];
        for i in order {
            let domain = self.slots[i].domain;
            let width = domain.width();
            let word = match used.iter().position(|u| u + width <= 64) {
                Some(word) => word,
                None => {
                    used.push(0);
                    used.len() - 1
                }
            };
            positions[i] = Position {
                word: u32::try_from(word).unwrap_or(u32::MAX),
                shift: u8::try_from(if width == 0 { 0 } else { used[word] }).unwrap_or(0),
                width: u8::try_from(width).unwrap_or(64),
                low: domain.low(),
            };
            used[word] += width;
        }
        (positions, used.len())
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
