//! The helper module: asking it. `svm-model/native/module/sevsim_flush.h` is the other side.
#![allow(unsafe_code, reason = "ioctls; each block says why it is sound")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;

use crate::probe::HELPER_DEVICE;

mod load;

pub use load::Loaded;

const ABI: u32 = 2;
const MASK_WORDS: usize = 128;
/// The largest pCPU that a request can name, and one.
pub const PCPUS: usize = MASK_WORDS * 64;
/// The most VMs of a session.
pub const VMS: u32 = 16;

/// What is executed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Instruction {
    /// Nothing: the IPI alone.
    Nop,
    /// WBINVD.
    Wbinvd,
    /// WBNOINVD; a CPU without it executes WBINVD.
    Wbnoinvd,
}

impl Instruction {
    /// All of them.
    pub const ALL: [Instruction; 3] = [Instruction::Nop, Instruction::Wbinvd, Instruction::Wbnoinvd];

    /// Its mnemonic.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Instruction::Nop => "NOP",
            Instruction::Wbinvd => "WBINVD",
            Instruction::Wbnoinvd => "WBNOINVD",
        }
    }

    const fn number(self) -> u32 {
        match self {
            Instruction::Nop => 0,
            Instruction::Wbinvd => 1,
            Instruction::Wbnoinvd => 2,
        }
    }

    fn of(number: u32) -> Instruction {
        Instruction::ALL.into_iter().find(|i| i.number() == number).unwrap_or(Instruction::Nop)
    }
}

/// What the module says of itself and the host.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Info {
    size: u32,
    abi: u32,
    /// pCPUs that the kernel has numbers for.
    pub nr_cpu_ids: u32,
    has_wbnoinvd: u32,
    sme_coherent: u32,
    policies: u32,
    kvm_entry: u32,
    in_session: u32,
    /// Microseconds that a write-back of all caches below one L3 is taken to last at most.
    pub stall_us: u64,
    /// The longest write-back that the module saw, in microseconds; of several at once under an L3, what each adds.
    pub stall_seen_us: u64,
    /// Microseconds; requests that may keep a pCPU from all else for longer are refused.
    pub stall_limit_us: u64,
    /// Write-backs executed since the module was loaded, on all pCPUs.
    pub flushes: u64,
}

impl Info {
    /// Whether the CPU has WBNOINVD.
    #[must_use]
    pub const fn has_wbnoinvd(&self) -> bool {
        self.has_wbnoinvd != 0
    }

    /// Whether KVM's tracepoint for entries was found: not before KVM is loaded.
    #[must_use]
    pub const fn kvm_entry(&self) -> bool {
        self.kvm_entry != 0
    }

    /// Why the module refuses with `ETIME`, and what to do: the figures that it compares.
    #[must_use]
    pub fn too_long(&self) -> String {
        let (size, seen, limit) = (self.stall_us, self.stall_seen_us, self.stall_limit_us);
        let one = if seen > size {
            format!(
                "{seen} us, the longest that it saw since it was loaded (by its caches' size it would be {size} us; rmmod \
                 sevsim_flush, and loading it again, forgets it)"
            )
        } else {
            format!("{size} us, by its caches' size (the longest that it saw: {seen} us)")
        };
        format!(
            "the module refuses what may stop a pCPU for longer than its parameter stall_limit_us, {limit} us, where one \
             write-back counts as {one}"
        )
    }

    /// Whether some process runs a policy.
    #[must_use]
    pub const fn in_session(&self) -> bool {
        self.in_session != 0
    }
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct RawCpu {
    cpu: u32,
    order: u32,
    tsc_in: u64,
    tsc_out: u64,
    refill: u64,
}

#[repr(C)]
struct RawFlush {
    size: u32,
    op: u32,
    how: u32,
    flags: u32,
    mask: [u64; MASK_WORDS],
    dirty_lines: u64,
    dirty_by: i32,
    dirty_node: i32,
    results: u64,
    results_max: u32,
    results_len: u32,
    op_used: u32,
    caller_cpu: u32,
    tsc_begin: u64,
    tsc_end: u64,
}

#[repr(C)]
struct RawPolicy {
    size: u32,
    index: u32,
    name: [u8; 64],
    text: u64,
    text_max: u32,
    text_len: u32,
}

#[repr(C)]
struct RawStart {
    size: u32,
    policy: u32,
    vms: u32,
    llc_len: u32,
    llc: u64,
}

#[repr(C)]
struct RawBind {
    size: u32,
    vm: u32,
    vcpu: u32,
    pad: u32,
}

/// What a pCPU had to do with a reclaim; times are of its own TSC.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reclaimed {
    /// Which.
    pub cpu: u32,
    /// Calls that the policy asked of it.
    pub asked: u32,
    /// Write-backs that it executed for this reclaim.
    pub flushed: u32,
    op: u32,
    /// Around the last of them.
    pub tsc_in: u64,
    /// Around the last of them.
    pub tsc_out: u64,
    /// Times that the VM was entered here before the policy was asked.
    pub entries_before: u64,
    /// The last of them, or the one before; 0 if there was none.
    pub last_entry: u64,
    /// Times that the VM was entered here when the policy had answered.
    pub entries_after: u64,
    /// Times that a vCPU of the VM was loaded here before the policy was asked.
    pub loads_before: u64,
    /// The same when it had answered.
    pub loads_after: u64,
    /// When the latest write-back began that was over when the policy had answered, whoever asked for it.
    pub flush_in: u64,
}

impl Reclaimed {
    /// What it executed last.
    #[must_use]
    pub fn instruction(&self) -> Instruction {
        Instruction::of(self.op)
    }

    /// Whether the VM was entered here before this reclaim, and no write-back came after that entry that was over in the end:
    /// what it left dirty can be in a cache still.
    #[must_use]
    pub const fn missed(&self) -> bool {
        self.last_entry != 0 && self.flush_in < self.last_entry
    }
}

#[repr(C)]
struct RawReclaim {
    size: u32,
    vm: u32,
    event: u32,
    results_max: u32,
    results: u64,
    results_len: u32,
    skipped: u32,
    refused: u32,
    caller_cpu: u32,
    tsc_begin: u64,
    tsc_end: u64,
}

/// Every request is `_IOWR` or `_IOW` of this letter.
const fn request(direction: u64, number: u64, size: usize) -> u64 {
    direction << 30 | (size as u64) << 16 | (b'F' as u64) << 8 | number
}

const WRITE: u64 = 1;
const BOTH: u64 = 3;

/// A write-back to be measured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    /// What is executed.
    pub instruction: Instruction,
    /// Where.
    pub pcpus: Vec<usize>,
    /// One pCPU after the other, not all at once.
    pub serial: bool,
    /// Refuse WBNOINVD where it would be WBINVD.
    pub strict: bool,
    /// WBINVD before, so that nothing but what is dirtied here is dirty; not with `dirty_by`, whose lines it would write back.
    pub prewarm: bool,
    /// Lines that each pCPU dirties first.
    pub dirty_lines: u64,
    /// Who dirties them, if not each pCPU itself; then of one pCPU only.
    pub dirty_by: Option<usize>,
    /// The node where the lines lie, if not each pCPU's own.
    pub dirty_node: Option<usize>,
    /// Read the lines again afterwards, timed.
    pub refill: bool,
}

impl Ask {
    /// An instruction on some pCPUs, with nothing made dirty.
    #[must_use]
    pub fn of(instruction: Instruction, pcpus: &[usize]) -> Ask {
        Ask {
            instruction,
            pcpus: pcpus.to_vec(),
            serial: false,
            strict: false,
            prewarm: false,
            dirty_lines: 0,
            dirty_by: None,
            dirty_node: None,
            refill: false,
        }
    }
}

/// What a pCPU did for an [`Ask`]; cycles of the TSC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OnPcpu {
    /// Which.
    pub pcpu: usize,
    /// The how-manieth it was to be done, from 1.
    pub order: u32,
    /// Before the instruction.
    pub tsc_in: u64,
    /// After it.
    pub tsc_out: u64,
    /// Cycles to read the dirtied lines again.
    pub refill: u64,
}

/// What an [`Ask`] came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flushed {
    /// What was really executed.
    pub used: Instruction,
    /// The caller's time stamps around all of it.
    pub begin: u64,
    /// The caller's time stamps around all of it.
    pub end: u64,
    /// Each pCPU that did it.
    pub pcpus: Vec<OnPcpu>,
}

/// What a reclaim came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reclaim {
    /// The caller's time stamps around the policy's functions.
    pub begin: u64,
    /// The caller's time stamps around the policy's functions.
    pub end: u64,
    /// Whether the policy said that the event needs no write-back.
    pub skipped: bool,
    /// Write-backs that were not executed, since the policy asked for too many.
    pub refused: u32,
    /// Each pCPU that the kernel has a number for.
    pub pcpus: Vec<Reclaimed>,
}

impl Reclaim {
    /// The pCPUs that satisfy something.
    pub fn where_(&self, holds: impl Fn(&Reclaimed) -> bool) -> Vec<usize> {
        self.pcpus.iter().filter(|p| holds(p)).map(|p| p.cpu as usize).collect()
    }
}

/// The opened device.
#[derive(Debug)]
pub struct Helper {
    file: File,
}

impl Helper {
    /// Opens the device.
    ///
    /// # Errors
    /// It is not there, may not be opened, or is of another version; what to do about it.
    pub fn open() -> Result<Helper, String> {
        let path = format!("/{HELPER_DEVICE}");
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(|e| match e.raw_os_error() {
            Some(libc::ENOENT) => format!(
                "there is no {path}: the helper module is not loaded. Build it (`sevsim module DIR`, then \
                 `sh DIR/build.sh`), and give its file to --load-module"
            ),
            Some(libc::EACCES | libc::EPERM) => format!("{path}: {e}: only root (CAP_SYS_RAWIO) may"),
            _ => format!("{path}: {e}"),
        })?;
        let helper = Helper { file };
        let other =
            "the module that is loaded is of another version of sevsim: unload it (rmmod sevsim_flush)";
        match helper.info() {
            Ok(info) if info.abi == ABI => Ok(helper),
            Ok(_) => Err(other.to_owned()),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)) => Err(other.to_owned()),
            Err(e) => Err(format!("{path}: {e}")),
        }
    }

    fn ask<T>(&self, request: u64, with: &mut T) -> io::Result<()> {
        // SAFETY: the module copies at most the number of bytes that the request says, which is the size of `T`, from and
        // to `with`; what its fields point at is the callers', who keep it alive and say its length.
        let done = unsafe { libc::ioctl(self.file.as_raw_fd(), request as _, std::ptr::from_mut(with)) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// What the module says of itself and the host.
    ///
    /// # Errors
    /// The module's: not root any more, another version.
    pub fn info(&self) -> io::Result<Info> {
        let mut info = Info { size: size_of_u32::<Info>(), ..Info::default() };
        self.ask(request(BOTH, 0x60, size_of::<Info>()), &mut info)?;
        Ok(info)
    }

    /// Name and text of each policy that is compiled into the module.
    ///
    /// # Errors
    /// The module's.
    pub fn policies(&self) -> io::Result<Vec<(String, String)>> {
        (0..self.info()?.policies)
            .map(|index| {
                let first = self.policy(index, &mut [])?;
                let mut text = vec![0; first.text_len as usize];
                let second = self.policy(index, &mut text)?;
                let end = second.name.iter().position(|b| *b == 0).unwrap_or(second.name.len());
                let string = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                Ok((string(&second.name[..end]), string(&text)))
            })
            .collect()
    }

    fn policy(&self, index: u32, text: &mut [u8]) -> io::Result<RawPolicy> {
        let mut raw = RawPolicy {
            size: size_of_u32::<RawPolicy>(),
            index,
            name: [0; 64],
            text: text.as_mut_ptr() as u64,
            text_max: u32::try_from(text.len()).unwrap_or(u32::MAX),
            text_len: 0,
        };
        self.ask(request(BOTH, 0x62, size_of::<RawPolicy>()), &mut raw)?;
        Ok(raw)
    }

    /// Executes and times a write-back.
    ///
    /// # Errors
    /// `EINVAL`: a pCPU that is not there, no pCPU, or what makes no sense; `ENXIO`: a pCPU has gone meanwhile; `ETIME`: it
    /// may keep a pCPU from all else for too long; `E2BIG`: more lines than the module prepares; `EOPNOTSUPP`: no WBNOINVD, and
    /// `strict`; `EBUSY`: another file's policy runs; `EINTR`.
    pub fn flush(&self, ask: &Ask) -> io::Result<Flushed> {
        let absent = || io::Error::from_raw_os_error(libc::EINVAL);
        let mut mask = [0; MASK_WORDS];
        for pcpu in &ask.pcpus {
            *mask.get_mut(pcpu / 64).ok_or_else(absent)? |= 1 << (pcpu % 64);
        }
        let number = |n: Option<usize>| n.map_or(Ok(-1), |n| i32::try_from(n).map_err(|_| absent()));
        let flag = |on: bool, bit: u32| u32::from(on) << bit;
        self.flush_raw(
            ask.instruction.number(),
            u32::from(ask.serial),
            flag(ask.strict, 0) | flag(ask.prewarm, 1) | flag(ask.refill, 2),
            mask,
            (ask.dirty_lines, number(ask.dirty_by)?, number(ask.dirty_node)?),
        )
    }

    fn flush_raw(
        &self,
        op: u32,
        how: u32,
        flags: u32,
        mask: [u64; MASK_WORDS],
        (dirty_lines, dirty_by, dirty_node): (u64, i32, i32),
    ) -> io::Result<Flushed> {
        let wanted = mask.iter().map(|w| w.count_ones() as usize).sum();
        let mut cpus = vec![RawCpu::default(); wanted];
        let mut raw = RawFlush {
            size: size_of_u32::<RawFlush>(),
            op,
            how,
            flags,
            mask,
            dirty_lines,
            dirty_by,
            dirty_node,
            results: cpus.as_mut_ptr() as u64,
            results_max: u32::try_from(cpus.len()).unwrap_or(u32::MAX),
            results_len: 0,
            op_used: 0,
            caller_cpu: 0,
            tsc_begin: 0,
            tsc_end: 0,
        };
        self.ask(request(BOTH, 0x61, size_of::<RawFlush>()), &mut raw)?;
        cpus.truncate(raw.results_len as usize);
        let on = |c: &RawCpu| OnPcpu {
            pcpu: c.cpu as usize,
            order: c.order,
            tsc_in: c.tsc_in,
            tsc_out: c.tsc_out,
            refill: c.refill,
        };
        Ok(Flushed {
            used: Instruction::of(raw.op_used),
            begin: raw.tsc_begin,
            end: raw.tsc_end,
            pcpus: cpus.iter().map(on).collect(),
        })
    }

    /// Lets a policy take over this process's VMs 0 .. `vms`, until the device is closed. `llc` says which L3 each pCPU has.
    ///
    /// # Errors
    /// `EBUSY`: another process runs one, or flushes; `ENODEV`: KVM is not loaded, or has no tracepoint `kvm_entry`;
    /// `EDEADLK`: a loop of the policy's text was ended, since it did not end by itself; `EINVAL`.
    pub fn start(&self, policy: u32, vms: u32, llc: &[u32]) -> io::Result<()> {
        let mut raw = RawStart {
            size: size_of_u32::<RawStart>(),
            policy,
            vms,
            llc_len: u32::try_from(llc.len()).unwrap_or(u32::MAX),
            llc: llc.as_ptr() as u64,
        };
        self.ask(request(WRITE, 0x63, size_of::<RawStart>()), &mut raw)
    }

    /// The calling thread is this vCPU from here on.
    ///
    /// # Errors
    /// `EINVAL`: no such VM, or no such vCPU; `EBUSY`: it is one already; `ENOSPC`: too many.
    pub fn bind(&self, vm: u32, vcpu: u32) -> io::Result<()> {
        let mut raw = RawBind { size: size_of_u32::<RawBind>(), vm, vcpu, pad: 0 };
        self.ask(request(WRITE, 0x64, size_of::<RawBind>()), &mut raw)
    }

    /// The calling thread is no vCPU any more.
    ///
    /// # Errors
    /// `ENOENT`: it was none.
    pub fn unbind(&self) -> io::Result<()> {
        let mut nothing = ();
        self.ask(request(0, 0x65, 0), &mut nothing)
    }

    /// Lets the policy write back for a VM, as reclaim of its memory does.
    ///
    /// # Errors
    /// `EINVAL`: no such VM; `ETIME`: a write-back may last too long on this host; `EDEADLK`: a loop of the policy's text was
    /// ended, since it did not end by itself, and the session's reclaims mean nothing any more; `EINTR`.
    pub fn reclaim(&self, vm: u32, event: u32) -> io::Result<Reclaim> {
        let mut pcpus = vec![Reclaimed::default(); self.info()?.nr_cpu_ids as usize];
        let mut raw = RawReclaim {
            size: size_of_u32::<RawReclaim>(),
            vm,
            event,
            results_max: u32::try_from(pcpus.len()).unwrap_or(u32::MAX),
            results: pcpus.as_mut_ptr() as u64,
            results_len: 0,
            skipped: 0,
            refused: 0,
            caller_cpu: 0,
            tsc_begin: 0,
            tsc_end: 0,
        };
        self.ask(request(BOTH, 0x66, size_of::<RawReclaim>()), &mut raw)?;
        pcpus.truncate(raw.results_len as usize);
        Ok(Reclaim {
            begin: raw.tsc_begin,
            end: raw.tsc_end,
            skipped: raw.skipped != 0,
            refused: raw.refused,
            pcpus,
        })
    }
}

fn size_of_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
