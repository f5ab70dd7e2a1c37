//! A VM of one vCPU with its memory, as KVM makes it, plain or encrypted: its guest dirties lines and leaves, again and again.
//!
//! 64-bit, identity mapped. It leaves by a port write, at privilege 3 with IOPL 3: some nested KVMs interpret privilege 0
//! instruction by instruction, and the loop is to run at the hardware's speed everywhere. Guests whose registers the host may not
//! see ask to leave instead, at privilege 0, since they write an MSR for it.
#![allow(unsafe_code, reason = "a guest's memory and descriptors; each block says why it is sound")]

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _};

use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, KVM_MEM_GUEST_MEMFD, KVM_MEMORY_ATTRIBUTE_PRIVATE, kvm_create_guest_memfd,
    kvm_memory_attributes, kvm_segment, kvm_userspace_memory_region, kvm_userspace_memory_region2,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use crate::buffer::Buffer;

/// Where the code lies, and its page tables, one page each level.
const CODE_AT: usize = 0x1000;
const TABLES_AT: usize = 0x2000;
/// Where the lines that it dirties begin.
pub const DATA_AT: usize = 2 << 20;
/// The most memory that the page tables reach.
pub const MOST: usize = 1 << 30;
const PORT: u16 = 0xf4;
/// What it writes into each line.
const MARK: u64 = 0x5a;
/// Bytes of a page.
pub const PAGE: usize = 4096;

/// Dirties lines; what follows leaves.
#[rustfmt::skip]
const DIRTY: [u8; 22] = [
    0x4c, 0x89, 0xc7,       // again: mov rdi, r8      where the lines begin
    0x4c, 0x89, 0xc9,       //        mov rcx, r9      how many
    0x48, 0x85, 0xc9,       // next:  test rcx, rcx
    0x74, 0x0b,             //        jz leave
    0x88, 0x07,             //        mov [rdi], al
    0x48, 0x83, 0xc7, 0x40, //        add rdi, 64
    0x48, 0xff, 0xc9,       //        dec rcx
    0xeb, 0xf0,             //        jmp next
];

#[rustfmt::skip]
const BY_PORT: [u8; 4] = [
    0xe6, 0xf4,             // leave: out PORT, al
    0xeb, 0xe6,             //        jmp again
];

/// A termination request by the GHCB's MSR, without a GHCB.
#[rustfmt::skip]
const BY_REQUEST: [u8; 18] = [
    0xb9, 0x30, 0x01, 0x01, 0xc0, // leave: mov ecx, 0xc0010130   the GHCB MSR
    0xb8, 0x00, 0x01, 0x00, 0x00, //        mov eax, 0x100        terminate
    0x31, 0xd2,                   //        xor edx, edx
    0x0f, 0x30,                   //        wrmsr
    0xf3, 0x0f, 0x01, 0xd9,       //        rep vmmcall           VMGEXIT; what follows is not reached
];

/// How a guest leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaves {
    /// By a port write: its registers are the host's to see.
    ByPort,
    /// By asking for its end: they are not.
    ByRequest,
}

/// How a guest left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Exit {
    /// By its own way out.
    Own(Leaves),
    /// Otherwise, and how.
    Other(String),
}

/// A call that KVM refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failed {
    /// The call.
    pub call: &'static str,
    /// How.
    pub error: kvm_ioctls::Error,
}

impl fmt::Display for Failed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.call, self.error)
    }
}

fn failed(call: &'static str) -> impl Fn(kvm_ioctls::Error) -> Failed {
    move |error| Failed { call, error }
}

/// Opens `/dev/kvm`.
///
/// # Errors
/// Says what is missing.
pub fn open() -> Result<Kvm, String> {
    Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT => "there is no /dev/kvm".to_owned(),
        libc::EACCES | libc::EPERM => "no right to open /dev/kvm".to_owned(),
        _ => format!("/dev/kvm: {error}"),
    })
}

/// The CPUID leaves that KVM can give a guest.
///
/// # Errors
/// KVM's.
pub fn supported(kvm: &Kvm) -> Result<CpuId, Failed> {
    kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(failed("KVM_GET_SUPPORTED_CPUID"))
}

/// A VM with all that belongs to it. Fields drop in order: the memory last.
#[derive(Debug)]
pub struct Vm {
    vcpu: Option<VcpuFd>,
    vm: VmFd,
    private: Option<File>,
    memory: Option<Buffer>,
}

impl Vm {
    /// Makes it, without memory and without a vCPU. `kind` is KVM's type of VM, 0 a plain one.
    ///
    /// # Errors
    /// KVM's.
    pub fn new(kvm: &Kvm, kind: u64) -> Result<Vm, Failed> {
        let vm = kvm.create_vm_with_type(kind).map_err(failed("KVM_CREATE_VM"))?;
        Ok(Vm { vcpu: None, vm, private: None, memory: None })
    }

    /// Its descriptor, for the calls that only encrypted guests have. Not for others: with it a vCPU could be made that outlives the borrow
    /// of the memory, and the guest run while somebody reads it.
    #[must_use]
    pub(crate) fn fd(&self) -> &VmFd {
        &self.vm
    }

    /// Takes over memory that is to be the guest's and writes code and page tables into it: one entry each at the two upper levels,
    /// then pages of 2 MiB, all of them with the bits of `encrypted`. The VM does not see it before [`Vm::attach`].
    ///
    /// # Errors
    /// It has memory already, which it may see.
    pub fn fill(&mut self, mut memory: Buffer, leaves: Leaves, encrypted: u64) -> Result<(), Failed> {
        if self.memory.is_some() {
            return Err(Failed {
                call: "it has memory already",
                error: kvm_ioctls::Error::new(libc::EEXIST),
            });
        }
        const USER: u64 = 7;
        let pages = memory.bytes().len().min(MOST) >> 21;
        let mut put = |at: usize, value: u64| {
            memory.bytes_mut()[at..at + 8].copy_from_slice(&(value | encrypted).to_le_bytes())
        };
        put(TABLES_AT, (TABLES_AT + PAGE) as u64 | USER);
        put(TABLES_AT + PAGE, (TABLES_AT + 2 * PAGE) as u64 | USER);
        for page in 0..pages {
            put(TABLES_AT + 2 * PAGE + 8 * page, (page as u64) << 21 | 1 << 7 | USER);
        }
        let leave: &[u8] = match leaves {
            Leaves::ByPort => &BY_PORT,
            Leaves::ByRequest => &BY_REQUEST,
        };
        let code = [&DIRTY, leave].concat();
        memory.bytes_mut()[CODE_AT..CODE_AT + code.len()].copy_from_slice(&code);
        self.memory = Some(memory);
        Ok(())
    }

    /// The guest's memory; empty if it has none.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.memory.as_ref().map_or(&[], Buffer::bytes)
    }

    /// Gives the page at `at` of the memory back to the kernel, as reclaim does; `None` if there is none.
    pub fn discard(&mut self, at: usize) -> Option<io::Result<()>> {
        self.memory.as_mut().filter(|m| at + PAGE <= m.bytes().len()).map(|m| m.discard(at, PAGE))
    }

    /// Where the memory lies in this process, and how many of `bytes` there are of it; zeros if there is none.
    pub fn place(&mut self, bytes: usize) -> (u64, u64) {
        let Some(memory) = &mut self.memory else { return (0, 0) };
        let memory = memory.bytes_mut();
        (memory.as_mut_ptr() as u64, bytes.min(memory.len()) as u64)
    }

    fn region(&mut self, bytes: usize) -> Result<(), Failed> {
        let (userspace_addr, memory_size) = self.place(bytes);
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size,
            userspace_addr,
        };
        // SAFETY: the range is this VM's own buffer, which outlives it: fields drop in order, `close` does so too, and nothing else
        // takes the buffer away or another's place. The guest runs only inside `run`, which borrows all of this mutably, so no
        // reference to the memory is alive then. A size of zero takes the memory away.
        unsafe { self.vm.set_user_memory_region(region) }.map_err(failed("KVM_SET_USER_MEMORY_REGION"))
    }

    /// Lets the VM see the first `bytes` of its memory.
    ///
    /// # Errors
    /// KVM's.
    pub fn attach(&mut self, bytes: usize) -> Result<(), Failed> {
        self.region(bytes)
    }

    /// The same of a VM that keeps its memory for itself: a guest_memfd beside it, and all of it private.
    ///
    /// # Errors
    /// KVM's.
    pub fn attach_private(&mut self, bytes: usize) -> Result<(), Failed> {
        let (userspace_addr, memory_size) = self.place(bytes);
        let wanted = kvm_create_guest_memfd { size: memory_size, ..Default::default() };
        let fd = self.vm.create_guest_memfd(wanted).map_err(failed("KVM_CREATE_GUEST_MEMFD"))?;
        // SAFETY: the kernel has just given this descriptor, and nobody else has it.
        let private = unsafe { File::from_raw_fd(fd) };
        let region = kvm_userspace_memory_region2 {
            slot: 0,
            flags: KVM_MEM_GUEST_MEMFD,
            guest_phys_addr: 0,
            memory_size,
            userspace_addr,
            guest_memfd: u32::try_from(fd).unwrap_or(0),
            ..Default::default()
        };
        // SAFETY: as in `region`.
        unsafe { self.vm.set_user_memory_region2(region) }.map_err(failed("KVM_SET_USER_MEMORY_REGION2"))?;
        let all = kvm_memory_attributes {
            address: 0,
            size: memory_size,
            attributes: u64::from(KVM_MEMORY_ATTRIBUTE_PRIVATE),
            flags: 0,
        };
        self.vm.set_memory_attributes(all).map_err(failed("KVM_SET_MEMORY_ATTRIBUTES"))?;
        self.private = Some(private);
        Ok(())
    }

    /// Takes the memory out of the VM's sight: deletes the memory slot.
    ///
    /// # Errors
    /// KVM's.
    pub fn detach(&mut self) -> Result<(), Failed> {
        self.region(0)
    }

    /// Gives it its vCPU, which cannot run before [`Vm::start`].
    ///
    /// # Errors
    /// KVM's.
    pub fn add_vcpu(&mut self) -> Result<(), Failed> {
        self.vcpu = Some(self.vm.create_vcpu(0).map_err(failed("KVM_CREATE_VCPU"))?);
        Ok(())
    }

    fn vcpu(&mut self) -> Result<&mut VcpuFd, Failed> {
        let none = Failed { call: "it has no vCPU", error: kvm_ioctls::Error::new(libc::EINVAL) };
        self.vcpu.as_mut().ok_or(none)
    }

    /// Sets the vCPU's registers: at the code's begin, with so many lines to dirty.
    ///
    /// # Errors
    /// KVM's.
    pub fn start(&mut self, cpuid: &CpuId, leaves: Leaves, lines: usize) -> Result<(), Failed> {
        let vcpu = self.vcpu()?;
        vcpu.set_cpuid2(cpuid).map_err(failed("KVM_SET_CPUID2"))?;
        let mut special = vcpu.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
        let dpl = match leaves {
            Leaves::ByPort => 3,
            Leaves::ByRequest => 0,
        };
        let code = kvm_segment {
            limit: u32::MAX,
            selector: 0x18 | u16::from(dpl),
            type_: 11,
            present: 1,
            dpl,
            s: 1,
            l: 1,
            g: 1,
            ..Default::default()
        };
        let data = kvm_segment { selector: 0x20 | u16::from(dpl), type_: 3, l: 0, db: 1, ..code };
        special.cs = code;
        [special.ds, special.es, special.ss, special.fs, special.gs] = [data; 5];
        special.cr0 = 1 << 31 | 1 << 16 | 1 << 5 | 1 << 4 | 1 << 1 | 1;
        special.cr3 = TABLES_AT as u64;
        special.cr4 = 1 << 5;
        special.efer = 1 << 10 | 1 << 8;
        vcpu.set_sregs(&special).map_err(failed("KVM_SET_SREGS"))?;
        let mut regs = vcpu.get_regs().map_err(failed("KVM_GET_REGS"))?;
        regs.rip = CODE_AT as u64;
        regs.rflags = 3 << 12 | 2;
        regs.r8 = DATA_AT as u64;
        regs.r9 = lines as u64;
        regs.rax = MARK;
        vcpu.set_regs(&regs).map_err(failed("KVM_SET_REGS"))
    }

    /// Sets how many lines each run dirties; of a guest whose registers the host may see.
    ///
    /// # Errors
    /// KVM's.
    pub fn set_lines(&mut self, lines: usize) -> Result<(), Failed> {
        let vcpu = self.vcpu()?;
        let mut regs = vcpu.get_regs().map_err(failed("KVM_GET_REGS"))?;
        regs.r9 = lines as u64;
        vcpu.set_regs(&regs).map_err(failed("KVM_SET_REGS"))
    }

    /// Lets it run until it leaves.
    ///
    /// # Errors
    /// KVM's.
    pub fn run(&mut self) -> Result<Exit, Failed> {
        let vcpu = self.vcpu()?;
        loop {
            match vcpu.run() {
                Ok(VcpuExit::IoOut(PORT, _)) => return Ok(Exit::Own(Leaves::ByPort)),
                Ok(VcpuExit::SystemEvent(..)) => return Ok(Exit::Own(Leaves::ByRequest)),
                Ok(other) => return Ok(Exit::Other(format!("{other:?}"))),
                Err(error) if error.errno() == libc::EINTR => {}
                Err(error) => return Err(failed("KVM_RUN")(error)),
            }
        }
    }

    /// Takes a page out of the memory that it keeps for itself; `None` if it has none.
    pub fn punch(&mut self, at: usize) -> Option<io::Result<()>> {
        let file = self.private.as_ref()?.as_raw_fd();
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: numbers and an open descriptor; the page is the guest's alone, no mapping of this process shows it.
        let done = unsafe { libc::fallocate(file, mode, at as i64, PAGE as i64) };
        Some(if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) })
    }

    /// Destroys it, by closing its last descriptor, and gives the memory back.
    pub fn close(self) -> Option<Buffer> {
        let Vm { vcpu, vm, private, memory } = self;
        drop((vcpu, vm, private));
        memory
    }
}
