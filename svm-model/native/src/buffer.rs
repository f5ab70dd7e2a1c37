//! Memory to measure on: page-aligned, touched, in huge pages if the kernel gives them.
#![allow(unsafe_code, reason = "mapped memory; each block says why it is sound")]

use std::io;
use std::ptr::NonNull;

use crate::stats::Random;

/// Bytes of a line.
pub const LINE: usize = 64;
/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

/// A private mapping of whole huge pages, zeroed and touched.
#[derive(Debug)]
pub struct Buffer {
    map: NonNull<u8>,
    mapped: usize,
    offset: usize,
    bytes: usize,
}

// SAFETY: the mapping belongs to the buffer alone; nothing about it is tied to a thread.
unsafe impl Send for Buffer {}

impl Buffer {
    /// Maps and touches `bytes`, rounded up to huge pages.
    ///
    /// # Errors
    /// The kernel has no memory for it.
    pub fn new(bytes: usize) -> io::Result<Buffer> {
        let bytes = bytes.max(1).next_multiple_of(HUGE);
        let mapped = bytes + HUGE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping at a place of the kernel's choice; no existing memory is touched.
        let map = unsafe {
            libc::mmap(std::ptr::null_mut(), mapped, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = NonNull::new(map.cast::<u8>()).ok_or_else(|| io::Error::other("mapped at null"))?;
        let offset = map.as_ptr().align_offset(HUGE);
        let mut buffer = Buffer { map, mapped, offset, bytes };
        // SAFETY: the range lies in the mapping just made; the call only advises.
        unsafe { libc::madvise(buffer.bytes_mut().as_mut_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        for page in buffer.bytes_mut().chunks_mut(4096) {
            page[0] = 1;
        }
        Ok(buffer)
    }

    /// The memory.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: offset + bytes <= mapped; anonymous memory is initialised; the borrow of self rules out writers.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(self.offset), self.bytes) }
    }

    /// The memory, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and the mutable borrow makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_ptr().add(self.offset), self.bytes) }
    }

    /// Writes one byte of each line of the first `bytes`, and waits until all are written.
    pub fn dirty(&mut self, bytes: usize, value: u8) {
        for line in self.bytes_mut()[..bytes].chunks_mut(LINE) {
            // SAFETY: a reference to a byte is valid to write; volatile, so that it is not left out.
            unsafe { std::ptr::write_volatile(&raw mut line[8], value) };
        }
        crate::cpu::fence();
    }

    /// Reads one byte of each line of the first `bytes`.
    pub fn read(&self, bytes: usize) {
        for line in self.bytes()[..bytes].chunks(LINE) {
            // SAFETY: a reference to a byte is valid to read; volatile, so that it is not left out.
            unsafe { std::ptr::read_volatile(&raw const line[8]) };
        }
        crate::cpu::fence();
    }

    /// Writes (if `write`) or else reads (if `read`) line `n`.
    #[inline(always)]
    pub fn touch(&mut self, n: usize, write: bool, read: bool) {
        let byte = &mut self.bytes_mut()[n * LINE + 8];
        if write {
            // SAFETY: a reference to a byte is valid to write; volatile, so that it is not left out.
            unsafe { std::ptr::write_volatile(byte, 7) };
        } else if read {
            // SAFETY: a reference to a byte is valid to read; volatile, so that it is not left out.
            unsafe { std::ptr::read_volatile(byte) };
        }
    }

    /// Links the first `bytes` into one random cycle of lines, each holding the next one's offset.
    pub fn link(&mut self, bytes: usize, random: &mut Random) {
        let lines = bytes / LINE;
        let mut order: Vec<u32> = (0..u32::try_from(lines).unwrap_or(u32::MAX)).collect();
        // Sattolo: one cycle through all.
        for i in (1..order.len()).rev() {
            order.swap(i, random.below(i));
        }
        let memory = self.bytes_mut();
        for (line, next) in order.iter().enumerate() {
            let at = line * LINE;
            memory[at..at + 4].copy_from_slice(&next.to_ne_bytes());
        }
    }

    /// Follows the links `steps` times from line `from`; where it ends.
    #[inline(always)]
    #[must_use]
    pub fn chase(&self, from: u32, steps: usize) -> u32 {
        let base = self.bytes().as_ptr();
        let lines = u32::try_from(self.bytes / LINE).unwrap_or(u32::MAX);
        let mut line = from.min(lines - 1);
        for _ in 0..steps {
            // SAFETY: `line` is below the number of lines: at first by `min`, then because `link` wrote only such
            // numbers and nothing else writes bytes 0 to 3 of a line (unlinked lines hold 0 or 1). Lines are aligned.
            line = unsafe { std::ptr::read_volatile(base.add(line as usize * LINE).cast::<u32>()) };
        }
        line
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped, and no borrow of it can be alive.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.mapped) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_make_one_cycle_through_every_line() {
        let mut buffer = Buffer::new(HUGE).unwrap();
        let lines = 1000;
        buffer.link(lines * LINE, &mut Random::new(1));
        for steps in 1..lines {
            assert_ne!(buffer.chase(0, steps), 0, "back after {steps}");
        }
        assert_eq!(buffer.chase(0, lines), 0);
    }
}
