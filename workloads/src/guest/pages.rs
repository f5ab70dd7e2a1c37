//! Virtual pages to dense guest frame numbers, in order of first touch.
//!
//! *Promise*: the mapping depends on the order of touches only. Memory is some 24 bytes for each distinct page.

use rustc_hash::FxHashMap;

use super::PAGES_MAX;

/// Slots of the small direct-mapped table in front of the map.
const RECENT: usize = 256;

/// The mapping so far.
#[derive(Clone, Debug)]
pub struct PageMap {
    /// Never iterated: the order of a hash map is nobody's business.
    frames: FxHashMap<u64, u32>,
    /// (page, frame) last seen in each slot; no page has the number `u64::MAX`, since pages have 52 bits.
    recent: Vec<(u64, u32)>,
    max_pages: u32,
}

impl PageMap {
    /// An empty mapping; the page after the `max_pages`-th takes frame 0 again, and so on round.
    #[must_use]
    pub fn new(max_pages: u32) -> PageMap {
        let max_pages = max_pages.clamp(1, PAGES_MAX);
        PageMap { frames: FxHashMap::default(), recent: vec![(u64::MAX, 0); RECENT], max_pages }
    }

    /// The guest frame number of a virtual page number (the address over 4096).
    #[inline]
    pub fn frame(&mut self, page: u64) -> u32 {
        let slot = (page % RECENT as u64) as usize;
        let (known, frame) = self.recent[slot];
        if known == page {
            return frame;
        }
        let next = self.frames.len() as u64 % u64::from(self.max_pages);
        let frame = *self.frames.entry(page).or_insert(next as u32);
        self.recent[slot] = (page, frame);
        frame
    }

    /// How many different virtual pages were touched.
    #[must_use]
    pub fn pages_touched(&self) -> u64 {
        self.frames.len() as u64
    }

    /// How many guest frames are in use: the pages touched, or the limit if that is less.
    #[must_use]
    pub fn frames_used(&self) -> u32 {
        u32::try_from(self.pages_touched()).unwrap_or(u32::MAX).min(self.max_pages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_dense_in_order_of_first_touch() {
        let mut map = PageMap::new(PAGES_MAX);
        let touched = [0x1_ffef_feff, 7, 7, 7 + RECENT as u64, 0x1_ffef_feff, 7, 9];
        let frames: Vec<u32> = touched.iter().map(|&page| map.frame(page)).collect();
        assert_eq!(frames, [0, 1, 1, 2, 0, 1, 3]);
        assert_eq!((map.pages_touched(), map.frames_used()), (4, 4));
    }

    #[test]
    fn pages_beyond_the_limit_wrap_and_stay_where_they_are() {
        let mut map = PageMap::new(3);
        let frames: Vec<u32> = (100..108).map(|page| map.frame(page)).collect();
        assert_eq!(frames, [0, 1, 2, 0, 1, 2, 0, 1]);
        assert_eq!(map.frame(105), 2);
        assert_eq!((map.pages_touched(), map.frames_used()), (8, 3));
    }
}
