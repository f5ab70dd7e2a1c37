//! A real guest through `/dev/kvm`: dirties a number of lines and leaves by a port write, again and again.
//!
//! 64-bit, identity mapped, at privilege 3 with IOPL 3: some nested KVMs interpret privilege 0 instruction by
//! instruction, and the loop is to run at the hardware's speed everywhere.
#![allow(unsafe_code, reason = "a guest's memory; each block says why it is sound")]

use kvm_bindings::{
    KVM_CAP_VM_TYPES, KVM_MAX_CPUID_ENTRIES, kvm_segment, kvm_sev_cmd, kvm_userspace_memory_region,
    sev_cmd_id_KVM_SEV_GUEST_STATUS,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use crate::buffer::{Buffer, LINE};

/// Where the guest's code lies.
const CODE_AT: usize = 0x1000;
/// Its page tables, one page each level.
const TABLES_AT: usize = 0x2000;
/// Where the lines that it dirties begin.
pub const DATA_AT: usize = 2 << 20;
const PORT: u16 = 0xf4;
/// What it writes.
const MARK: u64 = 0x5a;

#[rustfmt::skip]
const CODE: [u8; 26] = [
    0x4c, 0x89, 0xc7,       // again: mov rdi, r8      where the lines begin
    0x4c, 0x89, 0xc9,       //        mov rcx, r9      how many
    0x48, 0x85, 0xc9,       // next:  test rcx, rcx
    0x74, 0x0b,             //        jz leave
    0x88, 0x07,             //        mov [rdi], al
    0x48, 0x83, 0xc7, 0x40, //        add rdi, 64
    0x48, 0xff, 0xc9,       //        dec rcx
    0xeb, 0xf0,             //        jmp next
    0xe6, 0xf4,             // leave: out PORT, al
    0xeb, 0xe6,             //        jmp again
];

/// A VM of one vCPU with its memory.
#[derive(Debug)]
pub struct Guest {
    vcpu: VcpuFd,
    vm: VmFd,
    /// Dropped after the VM that uses it.
    memory: Buffer,
}

fn said(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> String {
    move |error| format!("{what}: {error}")
}

impl Guest {
    /// Makes it, with room for so many lines.
    ///
    /// # Errors
    /// Which call failed, and how.
    pub fn new(kvm: &Kvm, lines: usize) -> Result<Guest, String> {
        let memory = Buffer::new(DATA_AT + lines * LINE).map_err(|e| format!("memory of the guest: {e}"))?;
        if memory.bytes().len() > 1 << 30 {
            return Err("the guest's page tables reach 1 GiB only".to_owned());
        }
        let vm = kvm.create_vm().map_err(said("KVM_CREATE_VM"))?;
        let vcpu = vm.create_vcpu(0).map_err(said("KVM_CREATE_VCPU"))?;
        let mut guest = Guest { vcpu, vm, memory };
        guest.fill();
        guest.attach()?;
        let supported =
            kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(said("KVM_GET_SUPPORTED_CPUID"))?;
        guest.vcpu.set_cpuid2(&supported).map_err(said("KVM_SET_CPUID2"))?;
        let mut special = guest.vcpu.get_sregs().map_err(said("KVM_GET_SREGS"))?;
        let code = kvm_segment {
            limit: u32::MAX,
            selector: 0x1b,
            type_: 11,
            present: 1,
            dpl: 3,
            s: 1,
            l: 1,
            g: 1,
            ..Default::default()
        };
        let data = kvm_segment { selector: 0x23, type_: 3, l: 0, db: 1, ..code };
        special.cs = code;
        [special.ds, special.es, special.ss, special.fs, special.gs] = [data; 5];
        special.cr0 = 1 << 31 | 1 << 16 | 1 << 5 | 1 << 4 | 1 << 1 | 1;
        special.cr3 = TABLES_AT as u64;
        special.cr4 = 1 << 5;
        special.efer = 1 << 10 | 1 << 8;
        guest.vcpu.set_sregs(&special).map_err(said("KVM_SET_SREGS"))?;
        let mut regs = guest.vcpu.get_regs().map_err(said("KVM_GET_REGS"))?;
        regs.rip = CODE_AT as u64;
        regs.rflags = 3 << 12 | 2;
        regs.r8 = DATA_AT as u64;
        regs.r9 = 0;
        regs.rax = MARK;
        guest.vcpu.set_regs(&regs).map_err(said("KVM_SET_REGS"))?;
        Ok(guest)
    }

    /// Code and page tables: one entry each at the two upper levels, then pages of 2 MiB.
    fn fill(&mut self) {
        self.memory.bytes_mut().fill(0);
        const USER: u64 = 7;
        let pages = self.memory.bytes().len() >> 21;
        let mut put =
            |at: usize, value: u64| self.memory.bytes_mut()[at..at + 8].copy_from_slice(&value.to_le_bytes());
        put(TABLES_AT, (TABLES_AT as u64 + 0x1000) | USER);
        put(TABLES_AT + 0x1000, (TABLES_AT as u64 + 0x2000) | USER);
        for page in 0..pages {
            put(TABLES_AT + 0x2000 + 8 * page, (page as u64) << 21 | 1 << 7 | USER);
        }
        self.memory.bytes_mut()[CODE_AT..CODE_AT + CODE.len()].copy_from_slice(&CODE);
    }

    fn region(&mut self, bytes: usize) -> Result<(), String> {
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: bytes as u64,
            userspace_addr: self.memory.bytes_mut().as_mut_ptr() as u64,
        };
        // SAFETY: the range is this guest's own buffer, which outlives the VM (fields drop in order); the guest runs
        // only inside `run`, which borrows the whole guest mutably, so no reference to the memory is alive then.
        unsafe { self.vm.set_user_memory_region(region) }.map_err(said("KVM_SET_USER_MEMORY_REGION"))
    }

    /// Gives the VM its memory.
    ///
    /// # Errors
    /// KVM's.
    pub fn attach(&mut self) -> Result<(), String> {
        self.region(self.memory.bytes().len())
    }

    /// Takes the memory back: deletes the memory slot.
    ///
    /// # Errors
    /// KVM's.
    pub fn detach(&mut self) -> Result<(), String> {
        self.region(0)
    }

    /// Sets how many lines each run dirties.
    ///
    /// # Errors
    /// KVM's.
    pub fn set_lines(&mut self, lines: usize) -> Result<(), String> {
        let room = (self.memory.bytes().len() - DATA_AT) / LINE;
        let mut regs = self.vcpu.get_regs().map_err(said("KVM_GET_REGS"))?;
        regs.r9 = lines.min(room) as u64;
        self.vcpu.set_regs(&regs).map_err(said("KVM_SET_REGS"))
    }

    /// Lets it run to its port write.
    ///
    /// # Errors
    /// It stopped for another reason.
    pub fn run(&mut self) -> Result<(), String> {
        loop {
            match self.vcpu.run() {
                Ok(VcpuExit::IoOut(PORT, _)) => return Ok(()),
                Ok(other) => return Err(format!("the guest did not reach its port write: {other:?}")),
                Err(error) if error.errno() == libc::EINTR => {}
                Err(error) => return Err(format!("KVM_RUN: {error}")),
            }
        }
    }

    /// Whether the guest wrote the `n`th of its lines since the host zeroed it; zeroes it again.
    pub fn take_mark(&mut self, n: usize) -> bool {
        let byte = &mut self.memory.bytes_mut()[DATA_AT + n * LINE];
        std::mem::take(byte) != 0
    }

    /// Gives the page at `at` of the guest's memory back to the kernel, as reclaim does.
    ///
    /// # Errors
    /// The kernel's.
    pub fn drop_page(&mut self, at: usize) -> Result<(), String> {
        let page = &mut self.memory.bytes_mut()[at..at + 4096];
        // SAFETY: the range is a page of the own buffer, borrowed mutably; it reads as zeros afterwards, which are
        // valid bytes.
        match unsafe { libc::madvise(page.as_mut_ptr().cast(), page.len(), libc::MADV_DONTNEED) } {
            0 => Ok(()),
            _ => Err(format!("madvise: {}", std::io::Error::last_os_error())),
        }
    }
}

/// What KVM answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// `KVM_CAP_VM_TYPES`, a bit a type.
    pub vm_types: u32,
    /// What a SEV command came to on a plain VM.
    pub encrypt: Result<(), String>,
}

/// Opens KVM, runs a guest, and asks what a probe needs.
///
/// # Errors
/// What is missing.
pub fn facts() -> Result<Facts, String> {
    let kvm = open()?;
    Guest::new(&kvm, 1)?.run()?;
    let vm_types = u32::try_from(kvm.check_extension_raw(u64::from(KVM_CAP_VM_TYPES))).unwrap_or(0);
    let vm = kvm.create_vm().map_err(said("KVM_CREATE_VM"))?;
    let mut command = kvm_sev_cmd { id: sev_cmd_id_KVM_SEV_GUEST_STATUS, ..Default::default() };
    let encrypt = vm.encrypt_op_sev(&mut command).map_err(|e| e.to_string());
    Ok(Facts { vm_types, encrypt })
}

/// Opens `/dev/kvm`.
///
/// # Errors
/// Says what to do about it.
pub fn open() -> Result<Kvm, String> {
    Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT => "there is no /dev/kvm".to_owned(),
        libc::EACCES | libc::EPERM => "no right to open /dev/kvm".to_owned(),
        _ => format!("/dev/kvm: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn a_guest_runs_and_dirties_what_it_is_told() {
        let kvm = match open() {
            Ok(kvm) => kvm,
            Err(why) => {
                eprintln!("skipped: {why}");
                return;
            }
        };
        let mut guest = Guest::new(&kvm, 64).unwrap();
        guest.run().unwrap();
        guest.set_lines(5).unwrap();
        guest.run().unwrap();
        assert!((0..5).all(|n| guest.take_mark(n)));
        assert!((0..64).all(|n| !guest.take_mark(n)));
    }
}
