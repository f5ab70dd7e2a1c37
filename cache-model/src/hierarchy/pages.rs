//! Big zeroed tables in huge pages: a miss of the simulated caches touches several of them at random, and with
//! small pages the host would spend most of its time on address translation.

use std::fmt;
use std::marker::PhantomData;

use bytemuck::Pod;
use memmap2::MmapMut;

/// The size a huge page has, and is aligned to.
const HUGE: usize = 2 << 20;
/// Tables from here on get huge pages of their own.
const SMALL: usize = 256 << 10;

/// A table of `T`, all zero at first. Host memory is taken as it is touched.
pub(super) struct Pages<T> {
    map: MmapMut,
    start: usize,
    bytes: usize,
    of: PhantomData<T>,
}

impl<T: Pod> Pages<T> {
    /// # Panics
    /// The host has no address space left.
    pub(super) fn new(len: usize) -> Pages<T> {
        let bytes = len * size_of::<T>();
        let huge = bytes >= SMALL;
        let room = if huge { bytes.next_multiple_of(HUGE) + HUGE } else { bytes.max(1) };
        let map =
            MmapMut::map_anon(room).unwrap_or_else(|e| panic!("no room for a table of {bytes} bytes: {e}"));
        let start = if huge { map.as_ptr().align_offset(HUGE) } else { 0 };
        #[cfg(target_os = "linux")]
        if huge {
            // advice only: without huge pages everything is the same, but slower
            let _ = map.advise_range(memmap2::Advice::HugePage, start, bytes.next_multiple_of(HUGE));
        }
        Pages { map, start, bytes, of: PhantomData }
    }
}

/// A table as the model works on it: owned, or lent for a while, which makes it cheaper to index.
pub(super) trait Table<T> {
    /// All entries.
    fn get(&self) -> &[T];

    /// All entries, to be changed.
    fn get_mut(&mut self) -> &mut [T];

    /// One entry.
    #[inline(always)]
    fn at(&self, index: usize) -> &T {
        &self.get()[index]
    }

    /// One entry, to be changed.
    #[inline(always)]
    fn at_mut(&mut self, index: usize) -> &mut T {
        &mut self.get_mut()[index]
    }
}

/// The tables of a machine whose sets have `W1` words in the L1s, `W2` in the L2s, and 16 in the L3s.
pub(super) trait Tables<const W1: usize, const W2: usize> {
    type L1: Table<[u64; W1]>;
    type L2: Table<[u64; W2]>;
    type L3: Table<[u64; 16]>;
    type Directory: Table<u32>;
}

/// Tables of the machine's own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owned;

impl<const W1: usize, const W2: usize> Tables<W1, W2> for Owned {
    type L1 = Pages<[u64; W1]>;
    type L2 = Pages<[u64; W2]>;
    type L3 = Pages<[u64; 16]>;
    type Directory = Pages<u32>;
}

/// Tables that are lent for a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lent<'a>(PhantomData<&'a mut ()>);

impl<'a, const W1: usize, const W2: usize> Tables<W1, W2> for Lent<'a> {
    type L1 = &'a mut [[u64; W1]];
    type L2 = &'a mut [[u64; W2]];
    type L3 = &'a mut [[u64; 16]];
    type Directory = &'a mut [u32];
}

impl<T> Table<T> for &mut [T] {
    #[inline(always)]
    fn get(&self) -> &[T] {
        self
    }

    #[inline(always)]
    fn get_mut(&mut self) -> &mut [T] {
        self
    }
}

impl<T: Pod> Table<T> for Pages<T> {
    #[inline(always)]
    fn get(&self) -> &[T] {
        bytemuck::cast_slice(&self.map[self.start..self.start + self.bytes])
    }

    #[inline(always)]
    fn get_mut(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.map[self.start..self.start + self.bytes])
    }

    // cheaper than indexing the whole table, whose bounds and alignment would be checked first
    #[inline(always)]
    fn at(&self, index: usize) -> &T {
        let first = self.start + index * size_of::<T>();
        bytemuck::from_bytes(&self.map[first..first + size_of::<T>()])
    }

    #[inline(always)]
    fn at_mut(&mut self, index: usize) -> &mut T {
        let first = self.start + index * size_of::<T>();
        bytemuck::from_bytes_mut(&mut self.map[first..first + size_of::<T>()])
    }
}

impl<T: Pod> Clone for Pages<T> {
    fn clone(&self) -> Pages<T> {
        let mut new = Pages::new(self.get().len());
        new.get_mut().copy_from_slice(self.get());
        new
    }
}

impl<T> fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("bytes", &self.bytes).finish()
    }
}
