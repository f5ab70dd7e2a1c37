//! Memory to measure on: page-aligned, touched, in huge pages if the kernel gives them.
#![allow(unsafe_code, reason = "mapped memory; each block says why it is sound")]

use std::io;
use std::ptr::NonNull;

use crate::stats::Random;

/// Bytes of a line.
pub const LINE: usize = 64;
/// Bytes of a huge page.
const HUGE: usize = 2 << 20;
const _: () = assert!(HUGE >= 2 * LINE, "a buffer has two lines to chase at least");

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
        Buffer::on(None, bytes)
    }

    /// The same on one NUMA node.
    ///
    /// # Errors
    /// The kernel has no such node, or no memory there.
    pub fn on_node(node: usize, bytes: usize) -> io::Result<Buffer> {
        Buffer::on(Some(node), bytes)
    }

    fn on(node: Option<usize>, bytes: usize) -> io::Result<Buffer> {
        let mut buffer = Buffer::mapped(bytes)?;
        let memory = buffer.bytes_mut();
        // SAFETY: the range lies in the mapping just made; the call only advises.
        unsafe { libc::madvise(memory.as_mut_ptr().cast(), memory.len(), libc::MADV_HUGEPAGE) };
        if let Some(node) = node {
            crate::os::bind_to_node(memory, node)?;
        }
        // Not its first bytes: those are links.
        for page in memory.chunks_mut(4096) {
            page[8] = 1;
        }
        Ok(buffer)
    }

    /// Maps `bytes`, rounded up to 2 MiB, in small pages of which none is there before it is touched.
    ///
    /// # Errors
    /// The kernel has no room for it.
    pub fn untouched(bytes: usize) -> io::Result<Buffer> {
        let mut buffer = Buffer::mapped(bytes)?;
        let memory = buffer.bytes_mut();
        // SAFETY: as above.
        unsafe { libc::madvise(memory.as_mut_ptr().cast(), memory.len(), libc::MADV_NOHUGEPAGE) };
        Ok(buffer)
    }

    fn mapped(bytes: usize) -> io::Result<Buffer> {
        let bytes = bytes.max(1).checked_next_multiple_of(HUGE).filter(|b| u32::try_from(*b).is_ok());
        let bytes = bytes.ok_or_else(|| io::Error::other("more than a link of four bytes can reach"))?;
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
        Ok(Buffer { map, mapped, offset, bytes })
    }

    /// The memory.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: offset + bytes <= mapped; anonymous memory is initialised; the borrow of self rules out writers.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(self.offset), self.bytes) }
    }

    /// The memory, to write: not bytes 0 to 3 of a line of a buffer that is chased, which are links ([`Buffer::chase`]).
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and the mutable borrow makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_ptr().add(self.offset), self.bytes) }
    }

    /// Gives `bytes` at `at`, whole pages, back to the kernel, as reclaim does; they read as zeros then.
    ///
    /// # Errors
    /// The kernel's.
    pub fn discard(&mut self, at: usize, bytes: usize) -> io::Result<()> {
        let pages = &mut self.bytes_mut()[at..at + bytes];
        // SAFETY: the range lies in the own mapping and is borrowed mutably; zeros are valid bytes.
        match unsafe { libc::madvise(pages.as_mut_ptr().cast(), pages.len(), libc::MADV_DONTNEED) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
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

    /// Links lines into one random cycle, each holding where the next one begins; none may be named twice.
    ///
    /// # Panics
    /// A line lies outside of the buffer; nothing was linked then.
    pub fn link(&mut self, lines: &[u32], random: &mut Random) {
        let all = self.bytes / LINE;
        assert!(lines.iter().all(|line| (*line as usize) < all), "a line outside of the buffer's {all}");
        let mut order = lines.to_vec();
        for last in (1..order.len()).rev() {
            order.swap(last, random.below(last + 1));
        }
        let memory = self.bytes_mut();
        for (line, next) in order.iter().zip(order.iter().cycle().skip(1)) {
            let at = *line as usize * LINE;
            memory[at..at + 4].copy_from_slice(&(next * LINE as u32).to_ne_bytes());
        }
    }

    /// Follows the links `steps` times from line `from`; where it ends.
    #[inline(always)]
    #[must_use]
    pub fn chase(&self, from: u32, steps: usize) -> u32 {
        let base = self.bytes().as_ptr();
        let lines = u32::try_from(self.bytes / LINE).unwrap_or(u32::MAX);
        let mut at = from.min(lines - 1) * LINE as u32;
        for _ in 0..steps {
            // SAFETY: `at` is where a line of the buffer begins: at first by `min`; then because bytes 0 to 3 of a line are zero,
            // as the kernel gave them or `discard` left them, or what `link` wrote, which has looked at every line before. This
            // module writes byte 8 of lines else, and `bytes_mut`, which only this crate can call, is called by `vm` only, on
            // guests' memory, which nobody chases. Lines are aligned.
            at = unsafe { std::ptr::read_volatile(base.add(at as usize).cast::<u32>()) };
        }
        at / LINE as u32
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
        let lines: Vec<u32> = (0..1000).map(|n| 7 + 3 * n).collect();
        buffer.link(&lines, &mut Random::new(1));
        for steps in 1..lines.len() {
            assert_ne!(buffer.chase(7, steps), 7, "back after {steps}");
        }
        assert_eq!(buffer.chase(7, lines.len()), 7);
    }

    #[test]
    fn no_link_leads_out_of_the_buffer() {
        let mut buffer = Buffer::new(1).unwrap();
        let lines = u32::try_from(HUGE / LINE).unwrap();
        for outside in [lines, u32::MAX, u32::MAX / 64 + 1] {
            let all: Vec<u32> = (0..64).chain([outside]).collect();
            let linked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                buffer.link(&all, &mut Random::new(1));
            }));
            assert!(linked.is_err());
            assert!(buffer.bytes().chunks(LINE).all(|line| line[..4] == [0; 4]), "no store before the look");
        }
        assert!(Buffer::new(usize::MAX).is_err());
        assert!(buffer.chase(u32::MAX, 1) == 0, "the last line, which holds no link");
    }
}
