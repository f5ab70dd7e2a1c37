//! Counters of the kernel's tracepoints for the calling thread.
#![allow(unsafe_code, reason = "perf_event_open and its reads; each block says why it is sound")]

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// Where the kernel's tracing may be mounted.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The mounted tracing directory.
///
/// # Errors
/// It is not mounted, or not for this user.
pub fn tracefs() -> Result<PathBuf, String> {
    let found = TRACEFS.iter().map(Path::new).find(|p| p.join("events").is_dir());
    found.map(Path::to_owned).ok_or_else(|| {
        if crate::os::is_root() {
            "tracefs is not mounted: mount -t tracefs nodev /sys/kernel/tracing".to_owned()
        } else {
            "tracefs is not to be seen by this user (be root)".to_owned()
        }
    })
}

/// Tracepoints counted together.
#[derive(Debug)]
pub struct Counter {
    leader: fs::File,
    /// Kept open: closing one ends its counting.
    _members: Vec<OwnedFd>,
    events: usize,
}

impl Counter {
    /// Counts these tracepoints (`SYSTEM/EVENT`) for the calling thread; those that the kernel lacks are left out.
    ///
    /// # Errors
    /// None of them can be counted, and why.
    pub fn of(events: &[&str]) -> Result<Counter, String> {
        let root = tracefs()?;
        let mut open: Vec<OwnedFd> = Vec::new();
        let mut why = "this kernel has none of these tracepoints".to_owned();
        for event in events {
            let Ok(id) = fs::read_to_string(root.join("events").join(event).join("id")) else { continue };
            let Ok(id) = id.trim().parse() else { continue };
            match tracepoint(id, open.first()) {
                Ok(fd) => open.push(fd),
                Err(error) => why = format!("perf_event_open of {event}: {error}"),
            }
        }
        let events = open.len();
        let mut open = open.into_iter();
        let leader = open.next().ok_or(why)?;
        Ok(Counter { leader: leader.into(), _members: open.collect(), events })
    }

    /// How many of them are counted.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events
    }

    /// How often any of them was passed so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        // The number of counters, then each.
        let mut bytes = [0_u8; 8 * 17];
        let read = (&self.leader).read(&mut bytes).unwrap_or(0);
        let words = bytes[..read].chunks_exact(8).skip(1);
        words.map(|w| u64::from_ne_bytes(w.try_into().unwrap_or_default())).sum()
    }
}

fn tracepoint(id: u64, group: Option<&OwnedFd>) -> io::Result<OwnedFd> {
    const TRACEPOINT: u64 = 2;
    const GROUP: u64 = 1 << 3;
    // struct perf_event_attr of its first version, 64 bytes: type and size, config, period, sample type, read format.
    let mut attr = [0_u64; 8];
    attr[0] = TRACEPOINT | (size_of_val(&attr) as u64) << 32;
    attr[1] = id;
    attr[4] = GROUP;
    let group = group.map_or(-1, |fd| fd.as_raw_fd());
    // SAFETY: the kernel reads as many bytes of the array as its first word says that it has.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), 0, -1, group, 0) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just given this descriptor, and nobody else has it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn system_calls_are_counted() {
        match Counter::of(&["raw_syscalls/sys_enter", "no/such"]) {
            Err(why) => eprintln!("skipped: {why}"),
            Ok(counter) => {
                let before = counter.get();
                (0..10).for_each(|_| crate::os::null_syscall());
                let passed = counter.get() - before;
                assert!((10..20).contains(&passed), "{passed}");
            }
        }
        assert!(Counter::of(&["no/such"]).is_err());
    }
}
