//! Instructions that only assembly reaches: time stamps, fences, flushes of a line, and counted work.
#![allow(unsafe_code, reason = "instructions; each block says why it is sound")]

use std::arch::asm;

/// Time stamp at the start of a measured stretch: everything before it is done, stores included.
#[inline(always)]
#[must_use]
pub fn begin() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads the time-stamp counter into two declared registers; no memory, no stack. The fences only order.
    unsafe {
        asm!("mfence", "lfence", "rdtsc", "lfence", out("eax") low, out("edx") high, options(nostack));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Time stamp at the end of a measured stretch: earlier instructions are done, earlier stores may still drain.
#[inline(always)]
#[must_use]
pub fn end() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: as in `begin`; RDTSCP writes ECX as well, which is declared.
    unsafe {
        asm!("rdtscp", "lfence", out("eax") low, out("edx") high, out("ecx") _, options(nostack));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Time stamp without order: for a loop that watches for gaps in its own time.
#[inline(always)]
#[must_use]
pub fn now() -> u64 {
    // SAFETY: RDTSC exists on every x86-64 and touches nothing.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Waits until stores and flushes are done.
#[inline(always)]
pub fn fence() {
    // SAFETY: a fence only orders; SSE2 belongs to x86-64.
    unsafe { core::arch::x86_64::_mm_mfence() };
}

/// A flush of one line that user space may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LineOp {
    /// CLFLUSH: write back and drop, in all caches.
    Clflush,
    /// CLFLUSHOPT: the same, less ordered.
    Clflushopt,
    /// CLWB: write back, may stay.
    Clwb,
}

impl LineOp {
    /// Its mnemonic.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            LineOp::Clflush => "CLFLUSH",
            LineOp::Clflushopt => "CLFLUSHOPT",
            LineOp::Clwb => "CLWB",
        }
    }
}

/// Does `op` on each 64-byte line of `bytes`. On a CPU without the instruction the process dies of SIGILL, so ask
/// CPUID first.
#[inline(always)]
pub fn flush_lines(op: LineOp, bytes: &[u8]) {
    let first = bytes.as_ptr();
    let mut at = 0;
    while at < bytes.len() {
        // SAFETY: `at` is below the length, so the address is inside the slice.
        let line = unsafe { first.add(at) };
        // SAFETY: the instructions change no memory that Rust can see, and the address is mapped: it is a slice's.
        unsafe {
            match op {
                LineOp::Clflush => asm!("clflush [{0}]", in(reg) line, options(nostack, preserves_flags)),
                LineOp::Clflushopt => {
                    asm!("clflushopt [{0}]", in(reg) line, options(nostack, preserves_flags))
                }
                LineOp::Clwb => asm!("clwb [{0}]", in(reg) line, options(nostack, preserves_flags)),
            }
        }
        at += 64;
    }
}

/// `rounds` times twenty additions that wait for each other: twenty cycles of the core's clock a round.
#[inline(always)]
pub fn twenty_adds(rounds: u64) {
    // SAFETY: register arithmetic on declared registers only.
    unsafe {
        asm!(
            "2:",
            ".rept 20",
            "add {x}, {y}",
            ".endr",
            "dec {n}",
            "jnz 2b",
            x = inout(reg) 1_u64 => _,
            y = in(reg) 3_u64,
            n = inout(reg) rounds.max(1) => _,
            options(nomem, nostack),
        );
    }
}
