//! Slots, domains and stores: where the state of a model lives.
//!
//! A model's whole state is a row of numbered slots. What a slot may hold is its [`Domain`], whose it is
//! its [`Class`]. The same step function runs over any [`Store`]: packed words for the explorer
//! ([`Packed`]), plain words for the timed run ([`Plain`]), atomics on hardware.
//!
//! *Promise*: `no_std`, no allocation, no dependency.
#![no_std]
#![forbid(unsafe_code)]

/// A slot's number in its model, dense from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlotId(pub u32);

/// What a slot may hold; its width in a packed state comes from here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Domain {
    /// A whole number from `lo` to `hi`, both included. Booleans, enums and references are ranges;
    /// a reference that may be null counts -1 in.
    Range {
        /// Smallest value.
        lo: i64,
        /// Largest value.
        hi: i64,
    },
    /// A word of a mask: `bits` independent bits, 1 to 64.
    Mask {
        /// How many bits.
        bits: u8,
    },
}

impl Domain {
    /// Two values, 0 and 1.
    pub const BOOL: Domain = Domain::Range { lo: 0, hi: 1 };

    /// How many bits the domain takes in a packed word, 0 to 64; 0 for a domain of one value.
    #[must_use]
    pub const fn width(self) -> u32 {
        match self {
            Domain::Range { lo, hi } => 64 - hi.wrapping_sub(lo).cast_unsigned().leading_zeros(),
            Domain::Mask { bits } => bits as u32,
        }
    }

    /// The smallest value, which packs as 0.
    #[must_use]
    pub const fn low(self) -> i64 {
        match self {
            Domain::Range { lo, .. } => lo,
            Domain::Mask { .. } => 0,
        }
    }

    /// Whether a value lies in the domain.
    #[must_use]
    pub const fn holds(self, value: i64) -> bool {
        match self {
            Domain::Range { lo, hi } => lo <= value && value <= hi,
            Domain::Mask { bits } => bits >= 64 || value.cast_unsigned() >> bits == 0,
        }
    }
}

/// Whose a slot is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// One actor's own: nobody else reads or writes it, so touching it costs no step.
    Own,
    /// Memory that several actors share.
    Shared,
    /// State of the hardware: caches, TLBs, interrupts.
    Hardware,
    /// Known to the oracle only; no actor's behaviour depends on it.
    Ghost,
}

/// Where slots are read and written.
pub trait Store {
    /// The value of a slot.
    fn get(&self, slot: SlotId) -> i64;
    /// Writes a slot. The value must lie in the slot's domain.
    fn set(&mut self, slot: SlotId, value: i64);
    /// Replaces a slot's value by `f` of it in one indivisible step; returns the old value.
    fn rmw(&mut self, slot: SlotId, f: &mut dyn FnMut(i64) -> i64) -> i64 {
        let old = self.get(slot);
        self.set(slot, f(old));
        old
    }
}

/// Where a slot lies in a packed state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// Index of the 64-bit word.
    pub word: u32,
    /// Lowest bit.
    pub shift: u8,
    /// Width in bits, 0 to 64; a slot of width 0 is a constant.
    pub width: u8,
    /// The value that packs as 0.
    pub low: i64,
}

impl Position {
    /// The slot's bits, right-aligned.
    #[must_use]
    pub const fn mask(self) -> u64 {
        if self.width == 64 { u64::MAX } else { (1 << self.width) - 1 }
    }
}

/// A store of packed words; the explorer's states are exactly these words.
#[derive(Debug)]
pub struct Packed<'a> {
    /// The state's words.
    pub words: &'a mut [u64],
    /// Position of each slot, by slot number.
    pub layout: &'a [Position],
}

impl Store for Packed<'_> {
    #[inline]
    fn get(&self, slot: SlotId) -> i64 {
        let p = self.layout[slot.0 as usize];
        if p.width == 0 {
            return p.low;
        }
        let raw = self.words[p.word as usize] >> p.shift & p.mask();
        raw.cast_signed().wrapping_add(p.low)
    }

    #[inline]
    fn set(&mut self, slot: SlotId, value: i64) {
        let p = self.layout[slot.0 as usize];
        let raw = value.wrapping_sub(p.low).cast_unsigned();
        debug_assert!(raw & !p.mask() == 0, "slot {} cannot hold {value}", slot.0);
        if p.width == 0 {
            return;
        }
        let word = &mut self.words[p.word as usize];
        *word = *word & !(p.mask() << p.shift) | (raw & p.mask()) << p.shift;
    }
}

/// A store of one 64-bit word a slot.
#[derive(Debug)]
pub struct Plain<'a> {
    /// The values, by slot number.
    pub words: &'a mut [i64],
}

impl Store for Plain<'_> {
    #[inline]
    fn get(&self, slot: SlotId) -> i64 {
        self.words[slot.0 as usize]
    }

    #[inline]
    fn set(&mut self, slot: SlotId, value: i64) {
        self.words[slot.0 as usize] = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_come_from_domains() {
        assert_eq!(Domain::BOOL.width(), 1);
        assert_eq!(Domain::Range { lo: 3, hi: 3 }.width(), 0);
        assert_eq!(Domain::Range { lo: -1, hi: 2 }.width(), 2);
        assert_eq!(Domain::Range { lo: -1, hi: 3 }.width(), 3);
        assert_eq!(Domain::Range { lo: i64::MIN, hi: i64::MAX }.width(), 64);
        assert_eq!(Domain::Mask { bits: 64 }.width(), 64);
    }

    #[test]
    fn packed_slots_do_not_touch_each_other() {
        let layout = [
            Position { word: 0, shift: 0, width: 3, low: -1 },
            Position { word: 0, shift: 3, width: 0, low: 7 },
            Position { word: 0, shift: 3, width: 61, low: 0 },
            Position { word: 1, shift: 0, width: 64, low: 0 },
        ];
        let mut words = [0; 2];
        let mut store = Packed { words: &mut words, layout: &layout };
        store.set(SlotId(0), 3);
        store.set(SlotId(2), (1 << 61) - 1);
        store.set(SlotId(3), -1);
        store.set(SlotId(0), -1);
        assert_eq!(store.get(SlotId(0)), -1);
        assert_eq!(store.get(SlotId(1)), 7);
        assert_eq!(store.get(SlotId(2)), (1 << 61) - 1);
        assert_eq!(store.get(SlotId(3)), -1);
    }
}
