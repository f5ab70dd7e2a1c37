//! System calls: affinity, membarrier, futex, and what the kernel counts about this thread.
#![allow(unsafe_code, reason = "system calls; each block says why it is sound")]

use std::io;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// A set of pCPUs of any size.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuSet(Vec<u64>);

impl CpuSet {
    /// The set of one.
    #[must_use]
    pub fn one(cpu: usize) -> CpuSet {
        let mut words = vec![0; cpu / 64 + 1];
        words[cpu / 64] = 1 << (cpu % 64);
        CpuSet(words)
    }

    /// Its members.
    #[must_use]
    pub fn members(&self) -> Vec<usize> {
        (0..self.0.len() * 64).filter(|cpu| self.0[cpu / 64] >> (cpu % 64) & 1 == 1).collect()
    }
}

fn result(value: libc::c_long) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::Error::last_os_error())
}

/// Where the calling thread may run.
///
/// # Errors
/// The kernel's.
pub fn affinity() -> io::Result<CpuSet> {
    let mut words = vec![0_u64; 16];
    loop {
        let bytes = words.len() * 8;
        // SAFETY: the kernel writes at most `bytes` bytes to the vector, which has that many.
        let got = result(unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, bytes, words.as_mut_ptr()) });
        match got {
            Ok(bytes) => {
                words.truncate(bytes / 8);
                return Ok(CpuSet(words));
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && words.len() < 1 << 14 => {
                words.resize(words.len() * 2, 0);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Lets the calling thread run on these pCPUs only, and returns once it does.
///
/// # Errors
/// The kernel's: no such pCPU, or not for this process.
pub fn set_affinity(set: &CpuSet) -> io::Result<()> {
    set_affinity_of(0, set)
}

/// Lets a thread of this process run on these pCPUs only; 0 is the calling one.
///
/// # Errors
/// The kernel's: no such pCPU, or not for this process.
pub fn set_affinity_of(thread: i32, set: &CpuSet) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as the vector has.
    let done = unsafe { libc::syscall(libc::SYS_sched_setaffinity, thread, set.0.len() * 8, set.0.as_ptr()) };
    result(done).map(drop)
}

/// The kernel's number of the calling thread.
#[must_use]
pub fn thread_id() -> i32 {
    // SAFETY: reads a number, no arguments.
    unsafe { libc::gettid() }
}

/// What a thread of this process is doing, by the kernel's letter: `R` runs or may, `S` sleeps.
#[must_use]
pub fn thread_state(thread: i32) -> Option<char> {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?;
    // The name before it may hold anything, a bracket too.
    text.rsplit_once(") ")?.1.chars().next()
}

/// The calling thread kept on one pCPU; where it was allowed before is restored at the end of this value.
#[derive(Debug)]
pub struct Pinned(CpuSet);

impl Pinned {
    /// Moves the thread there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn to(cpu: usize) -> io::Result<Pinned> {
        let before = affinity()?;
        set_affinity(&CpuSet::one(cpu))?;
        Ok(Pinned(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Nothing is left to do if the kernel refuses what it allowed before.
        drop(set_affinity(&self.0));
    }
}

/// The pCPU that the thread runs on.
#[must_use]
pub fn this_cpu() -> usize {
    // SAFETY: reads a number, no arguments.
    usize::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(0)
}

/// The cheapest system call that is really made.
#[inline(always)]
pub fn null_syscall() {
    // SAFETY: getppid takes nothing and changes nothing.
    unsafe { libc::syscall(libc::SYS_getppid) };
}

/// Registers the process for [`membarrier`].
///
/// # Errors
/// The kernel has no such command.
pub fn membarrier_register() -> io::Result<()> {
    // SAFETY: a command and two zeros; it changes how this process is treated, not its memory.
    result(unsafe {
        libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0)
    })
    .map(drop)
}

/// An IPI to each pCPU that runs a thread of this process right now, waited for.
#[inline(always)]
pub fn membarrier() {
    // SAFETY: as above; the call orders memory and changes none.
    unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) };
}

/// Sleeps while `*word == value`, a limited time.
pub fn futex_wait(word: &AtomicU32, value: u32, limit: Duration) {
    let limit =
        libc::timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: i64::from(limit.subsec_nanos()) };
    // SAFETY: the word and the time live until the call returns; the kernel only reads them.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            value,
            &raw const limit,
        )
    };
}

/// Wakes one sleeper of [`futex_wait`].
pub fn futex_wake(word: &AtomicU32) {
    // SAFETY: the kernel takes the address as a name; it does not write there.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1) };
}

fn usage(whose: libc::c_int) -> libc::rusage {
    // SAFETY: all zeros is a value of this plain structure.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `rusage` to the one given.
    unsafe { libc::getrusage(whose, &raw mut usage) };
    usage
}

/// How often the calling thread was switched away so far without having asked for it.
#[must_use]
pub fn preemptions() -> u64 {
    u64::try_from(usage(libc::RUSAGE_THREAD).ru_nivcsw).unwrap_or(0)
}

/// Time on pCPUs that this process has used so far.
#[must_use]
pub fn own_time() -> Duration {
    let usage = usage(libc::RUSAGE_SELF);
    let time = |t: libc::timeval| {
        let (s, us) = (u64::try_from(t.tv_sec).unwrap_or(0), u64::try_from(t.tv_usec).unwrap_or(0));
        Duration::from_secs(s) + Duration::from_micros(us)
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Whether the process may do everything: its effective user is root.
#[must_use]
pub fn is_root() -> bool {
    // SAFETY: takes nothing, changes nothing.
    unsafe { libc::geteuid() == 0 }
}

/// Lets the pages of `memory` come from one NUMA node only; for memory that nobody has touched.
///
/// # Errors
/// The kernel's: no such node, or no NUMA.
pub fn bind_to_node(memory: &mut [u8], node: usize) -> io::Result<()> {
    const BIND: libc::c_long = 2;
    let mut words = vec![0_u64; node / 64 + 1];
    words[node / 64] = 1 << (node % 64);
    let bits = words.len() * 64 + 1;
    // SAFETY: the range is a slice, so it is mapped; the call decides where its pages will lie, not what they hold. The
    // kernel reads `bits - 1` bits of the node mask, which has as many.
    let done = unsafe {
        libc::syscall(libc::SYS_mbind, memory.as_mut_ptr(), memory.len(), BIND, words.as_ptr(), bits, 0)
    };
    result(done).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affinity_comes_back() {
        let before = affinity().unwrap();
        let last = *before.members().last().unwrap();
        let pinned = Pinned::to(last).unwrap();
        assert_eq!((affinity().unwrap().members(), this_cpu()), (vec![last], last));
        drop(pinned);
        assert_eq!(affinity().unwrap(), before);
        assert!(Pinned::to(100_000).is_err());
        assert_eq!(affinity().unwrap(), before);
    }
}
