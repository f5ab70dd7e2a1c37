//! The kernel's own count of a tracepoint, for one thread on one pCPU.
#![allow(unsafe_code, reason = "two system calls; each block says why it is sound")]

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::FromRawFd as _;

/// A counter that runs.
#[derive(Debug)]
pub struct Counter(File);

/// `PERF_TYPE_TRACEPOINT`, and the size of what is handed over, in the first word of `struct perf_event_attr`.
const TRACEPOINT: u64 = 2 | 64 << 32;

/// Where tracefs is mounted, as a rule.
const ROOTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

impl Counter {
    /// Counts a tracepoint (`kvm/kvm_entry`) in a thread while it is on a pCPU.
    ///
    /// # Errors
    /// There is no tracefs or no such tracepoint, or the kernel refuses.
    pub fn tracepoint(name: &str, thread: i32, pcpu: usize) -> io::Result<Counter> {
        let read = |root: &&str| std::fs::read_to_string(format!("{root}/events/{name}/id"));
        let id = ROOTS[1..].iter().fold(read(&ROOTS[0]), |found, root| found.or_else(|_| read(root)))?;
        let id: u64 = id.trim().parse().map_err(io::Error::other)?;
        let pcpu = i32::try_from(pcpu).map_err(io::Error::other)?;
        // The first version of the structure: type and size, which event, and nothing else asked for.
        let attr = [TRACEPOINT, id, 0, 0, 0, 0, 0, 0];
        // SAFETY: the kernel reads the 64 bytes that the structure says it has.
        let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), thread, pcpu, -1, 8) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: the call has just opened it, and nobody else has it.
        Ok(Counter(unsafe { File::from_raw_fd(fd) }))
    }

    /// How often so far.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        (&self.0).read_exact(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}
