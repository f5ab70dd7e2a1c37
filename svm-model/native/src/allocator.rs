//! What becomes of memory that the program frees.
#![allow(unsafe_code, reason = "the C library's setting; the block says why it is sound")]

/// Bytes from which on a block of memory is mapped for itself.
#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
const LARGE: libc::c_int = 64 << 10;

/// Has large blocks of memory go back to the system as soon as they are freed, so that the process takes what it has
/// in use and little more.
///
/// The GNU C library maps such blocks for themselves only until the first of them is freed: from then on blocks of that
/// size come from its heap (mallopt(3), `M_MMAP_THRESHOLD`), and tables that grow by turns leave holes there, a
/// third of the memory of a large search. To set the threshold is to keep it. Other libraries are left as they are.
pub fn give_back_large_blocks() {
    #[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` takes two numbers and the allocator's own lock; the threshold is within its limits. It changes
    // where later blocks come from, not those that there are.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}
