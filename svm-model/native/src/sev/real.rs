//! The kernel that runs here.
#![allow(unsafe_code, reason = "a guest's memory and descriptors; each block says why it is sound")]

use std::fs::File;
use std::os::fd::{AsRawFd as _, FromRawFd as _};

use kvm_bindings::{
    KVM_CAP_VM_TYPES, KVM_MAX_CPUID_ENTRIES, KVM_MEM_GUEST_MEMFD, KVM_MEMORY_ATTRIBUTE_PRIVATE,
    KVM_SEV_SNP_PAGE_TYPE_NORMAL, kvm_create_guest_memfd, kvm_enc_region, kvm_memory_attributes, kvm_segment,
    kvm_sev_cmd, kvm_sev_guest_status, kvm_sev_init, kvm_sev_launch_measure, kvm_sev_launch_start,
    kvm_sev_launch_update_data, kvm_sev_snp_launch_finish, kvm_sev_snp_launch_start,
    kvm_sev_snp_launch_update, kvm_userspace_memory_region, kvm_userspace_memory_region2,
    sev_cmd_id_KVM_SEV_ES_INIT, sev_cmd_id_KVM_SEV_GUEST_STATUS, sev_cmd_id_KVM_SEV_INIT,
    sev_cmd_id_KVM_SEV_INIT2, sev_cmd_id_KVM_SEV_LAUNCH_FINISH, sev_cmd_id_KVM_SEV_LAUNCH_MEASURE,
    sev_cmd_id_KVM_SEV_LAUNCH_START, sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_DATA,
    sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_VMSA, sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH,
    sev_cmd_id_KVM_SEV_SNP_LAUNCH_START, sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use super::{Answer, Call, Command, Kernel, Kind, LAUNCHED, Refusal, SLOT, Vm};
use crate::buffer::Buffer;
use crate::cpu;
use crate::guest::open;

/// Where the code lies, its page tables, and the lines that it dirties.
const CODE_AT: usize = 0x1000;
const TABLES_AT: usize = 0x2000;
const DATA_AT: u64 = 2 << 20;
const LINES: u64 = 1024;
const PORT: u16 = 0xf4;
const PAGE: usize = 4096;
/// Calls of one SNP_LAUNCH_UPDATE: it may do a page at a time, and be told to try again.
const MOST_TRIES: u32 = 10_000;

/// Dirties lines, then leaves by a port write: for guests whose registers the host may see.
#[rustfmt::skip]
const BY_PORT: [u8; 26] = [
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

/// The same for guests that must ask to leave: a termination request by the GHCB's MSR, without a GHCB.
#[rustfmt::skip]
const BY_REQUEST: [u8; 40] = [
    0x4c, 0x89, 0xc7,             // again: mov rdi, r8
    0x4c, 0x89, 0xc9,             //        mov rcx, r9
    0x48, 0x85, 0xc9,             // next:  test rcx, rcx
    0x74, 0x0b,                   //        jz leave
    0x88, 0x07,                   //        mov [rdi], al
    0x48, 0x83, 0xc7, 0x40,       //        add rdi, 64
    0x48, 0xff, 0xc9,             //        dec rcx
    0xeb, 0xf0,                   //        jmp next
    0xb9, 0x30, 0x01, 0x01, 0xc0, // leave: mov ecx, 0xc0010130   the GHCB MSR
    0xb8, 0x00, 0x01, 0x00, 0x00, //        mov eax, 0x100        terminate
    0x31, 0xd2,                   //        xor edx, edx
    0x0f, 0x30,                   //        wrmsr
    0xf3, 0x0f, 0x01, 0xd9,       //        rep vmmcall           VMGEXIT; what follows is not reached
];

/// A VM with all that belongs to it. Fields drop in order: the memory last.
#[derive(Debug)]
struct Held {
    kind: Kind,
    vcpu: Option<VcpuFd>,
    vm: VmFd,
    guest_memfd: Option<File>,
    memory: Option<Buffer>,
}

/// The kernel that runs here.
#[derive(Debug)]
pub struct Real {
    kvm: Kvm,
    /// `/dev/sev`, or why it cannot be opened: then the kernel refuses what needs it, and the refusal says both.
    sev: Result<File, String>,
    c_bit: u32,
    held: Vec<Option<Held>>,
}

fn refused(call: &Call, error: kvm_ioctls::Error) -> Refusal {
    Refusal { call: call.to_string(), errno: error.errno(), firmware: None, why: String::new() }
}

fn impossible(call: &Call, why: impl Into<String>) -> Refusal {
    Refusal { call: call.to_string(), errno: 0, firmware: None, why: why.into() }
}

fn last_error(call: &Call) -> Refusal {
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    Refusal { call: call.to_string(), errno, firmware: None, why: String::new() }
}

impl Real {
    /// Opens KVM, and `/dev/sev` if there is one. `c_bit` is CPUID 8000_001F EBX\[5:0\], 0 without SEV.
    ///
    /// # Errors
    /// KVM cannot be opened, and what to do about it.
    pub fn new(c_bit: u32) -> Result<Real, String> {
        let sev = File::options().read(true).write(true).open("/dev/sev");
        let sev = sev.map_err(|error| format!("/dev/sev cannot be opened: {error}"));
        Ok(Real { kvm: open()?, sev, c_bit, held: Vec::new() })
    }

    fn held(&mut self, call: &Call, vm: Vm) -> Result<&mut Held, Refusal> {
        let at = usize::try_from(vm).unwrap_or(usize::MAX);
        let held = self.held.get_mut(at).and_then(Option::as_mut);
        held.ok_or_else(|| impossible(call, "there is no such VM"))
    }

    fn create(&mut self, call: &Call, kind: Kind) -> Result<Answer, Refusal> {
        let begin = cpu::begin();
        let vm = self.kvm.create_vm_with_type(kind.vm_type()).map_err(|e| refused(call, e))?;
        let took = cpu::end() - begin;
        self.held.push(Some(Held { kind, vcpu: None, vm, guest_memfd: None, memory: None }));
        Ok(Answer { took, gave: vec![("vm", self.held.len() as u64 - 1)] })
    }

    fn memory(&mut self, call: &Call, vm: Vm, bytes: u32) -> Result<u64, Refusal> {
        let c_bit = self.c_bit;
        let held = self.held(call, vm)?;
        let mut memory = Buffer::untouched(bytes as usize).map_err(|e| impossible(call, e.to_string()))?;
        fill(&mut memory, held.kind, if held.kind == Kind::Plain { 0 } else { 1_u64 << (c_bit & 63) });
        let address = memory.bytes_mut().as_mut_ptr() as u64;
        held.memory = Some(memory);
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: u64::from(bytes),
            userspace_addr: address,
        };
        let begin = cpu::begin();
        if held.kind == Kind::SevSnp {
            let wanted = kvm_create_guest_memfd { size: u64::from(bytes), ..Default::default() };
            let fd = held.vm.create_guest_memfd(wanted).map_err(|e| refused(call, e))?;
            // SAFETY: the kernel has just given this descriptor, and nobody else has it.
            let file = unsafe { File::from_raw_fd(fd) };
            let region = kvm_userspace_memory_region2 {
                slot: 0,
                flags: KVM_MEM_GUEST_MEMFD,
                guest_phys_addr: 0,
                memory_size: u64::from(bytes),
                userspace_addr: address,
                guest_memfd: u32::try_from(fd).unwrap_or(0),
                ..Default::default()
            };
            // SAFETY: the range is this VM's own buffer, which is dropped after the VM; nothing borrows it while the guest
            // runs, because `Run` borrows the whole of `Real`.
            unsafe { held.vm.set_user_memory_region2(region) }.map_err(|e| refused(call, e))?;
            let private = kvm_memory_attributes {
                address: 0,
                size: u64::from(bytes),
                attributes: u64::from(KVM_MEMORY_ATTRIBUTE_PRIVATE),
                flags: 0,
            };
            held.vm.set_memory_attributes(private).map_err(|e| refused(call, e))?;
            held.guest_memfd = Some(file);
        } else {
            // SAFETY: as above.
            unsafe { held.vm.set_user_memory_region(region) }.map_err(|e| refused(call, e))?;
        }
        Ok(cpu::end() - begin)
    }

    fn vcpu(&mut self, call: &Call, vm: Vm) -> Result<u64, Refusal> {
        let supported = self.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(|e| refused(call, e))?;
        let held = self.held(call, vm)?;
        let begin = cpu::begin();
        let vcpu = held.vm.create_vcpu(0).map_err(|e| refused(call, e))?;
        let took = cpu::end() - begin;
        start(&vcpu, &supported, held.kind).map_err(|e| refused(call, e))?;
        held.vcpu = Some(vcpu);
        Ok(took)
    }

    fn sev(&mut self, call: &Call, vm: Vm, command: Command) -> Result<Answer, Refusal> {
        let sev_fd = self.sev.as_ref().map_or(u32::MAX, |f| u32::try_from(f.as_raw_fd()).unwrap_or(u32::MAX));
        let unopened = self.sev.as_ref().err().cloned().unwrap_or_default();
        let held = self.held(call, vm)?;
        let address = held.memory.as_mut().map_or(0, |m| m.bytes_mut().as_mut_ptr() as u64);
        // Each structure lives to the end of this function, and the kernel writes into none that is not there.
        let mut init = kvm_sev_init::default();
        let mut start = kvm_sev_launch_start::default();
        let mut update = kvm_sev_launch_update_data { uaddr: address, ..Default::default() };
        let mut blob = [0_u8; 48];
        let mut measure =
            kvm_sev_launch_measure { uaddr: blob.as_mut_ptr() as u64, len: 48, ..Default::default() };
        let mut status = kvm_sev_guest_status::default();
        let mut snp_start = kvm_sev_snp_launch_start::default();
        let mut snp_update = kvm_sev_snp_launch_update {
            uaddr: address,
            type_: u8::try_from(KVM_SEV_SNP_PAGE_TYPE_NORMAL).unwrap_or(1),
            ..Default::default()
        };
        let mut snp_finish = kvm_sev_snp_launch_finish::default();
        let (id, data) = match command {
            Command::Init => (sev_cmd_id_KVM_SEV_INIT, 0),
            Command::EsInit => (sev_cmd_id_KVM_SEV_ES_INIT, 0),
            Command::Init2 => (sev_cmd_id_KVM_SEV_INIT2, &raw mut init as u64),
            Command::LaunchStart(policy) => {
                start.policy = policy;
                (sev_cmd_id_KVM_SEV_LAUNCH_START, &raw mut start as u64)
            }
            Command::LaunchUpdateData(bytes) => {
                update.len = bytes.min(LAUNCHED);
                (sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_DATA, &raw mut update as u64)
            }
            Command::LaunchUpdateVmsa => (sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_VMSA, 0),
            Command::LaunchMeasure => (sev_cmd_id_KVM_SEV_LAUNCH_MEASURE, &raw mut measure as u64),
            Command::LaunchFinish => (sev_cmd_id_KVM_SEV_LAUNCH_FINISH, 0),
            Command::GuestStatus => (sev_cmd_id_KVM_SEV_GUEST_STATUS, &raw mut status as u64),
            Command::SnpLaunchStart(policy) => {
                snp_start.policy = policy;
                (sev_cmd_id_KVM_SEV_SNP_LAUNCH_START, &raw mut snp_start as u64)
            }
            Command::SnpLaunchUpdate(bytes) => {
                snp_update.len = u64::from(bytes.min(LAUNCHED));
                (sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE, &raw mut snp_update as u64)
            }
            Command::SnpLaunchFinish => (sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH, &raw mut snp_finish as u64),
        };
        let mut asked = kvm_sev_cmd { id, data, sev_fd, ..Default::default() };
        let mut tries = 0;
        let begin = cpu::begin();
        loop {
            let result = held.vm.encrypt_op_sev(&mut asked);
            tries += 1;
            // SNP_LAUNCH_UPDATE may do a part, say so by what it leaves, and want to be called again.
            let again =
                matches!(command, Command::SnpLaunchUpdate(_)) && snp_update.len > 0 && tries < MOST_TRIES;
            match result {
                Ok(()) if again => {}
                Ok(()) => break,
                Err(error) if again && error.errno() == libc::EAGAIN => {}
                Err(error) => {
                    let firmware = (error.errno() == libc::EIO).then_some(asked.error);
                    return Err(Refusal { firmware, why: unopened, ..refused(call, error) });
                }
            }
        }
        let took = cpu::end() - begin;
        // A VM of the old way is made plain, and becomes what it is here.
        if command == Command::Init {
            held.kind = Kind::Sev;
        } else if command == Command::EsInit {
            held.kind = Kind::SevEs;
        }
        let gave = if matches!(command, Command::LaunchStart(_)) {
            vec![("handle", u64::from(start.handle))]
        } else if command == Command::GuestStatus {
            vec![("handle", u64::from(status.handle)), ("state", u64::from(status.state))]
        } else {
            vec![]
        };
        Ok(Answer { took, gave })
    }

    fn region(&mut self, call: &Call, vm: Vm, bytes: u32, register: bool) -> Result<u64, Refusal> {
        let held = self.held(call, vm)?;
        let addr = held.memory.as_mut().map_or(0, |m| m.bytes_mut().as_mut_ptr() as u64);
        let region = kvm_enc_region { addr, size: u64::from(bytes.min(SLOT)) };
        let begin = cpu::begin();
        let done = if register {
            held.vm.register_enc_memory_region(&region)
        } else {
            held.vm.unregister_enc_memory_region(&region)
        };
        let took = cpu::end() - begin;
        done.map(|()| took).map_err(|e| refused(call, e))
    }

    fn last_page(&mut self, call: &Call, vm: Vm, punch: bool) -> Result<u64, Refusal> {
        let held = self.held(call, vm)?;
        let none = || impossible(call, "this VM has no such memory");
        let begin;
        let done = if punch {
            let file = held.guest_memfd.as_ref().ok_or_else(none)?.as_raw_fd();
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            let at = i64::from(LAUNCHED) - PAGE as i64;
            begin = cpu::begin();
            // SAFETY: numbers and an open descriptor; the page is the guest's alone, no mapping of this process shows it.
            unsafe { libc::fallocate(file, mode, at, PAGE as i64) }
        } else {
            let memory = held.memory.as_mut().ok_or_else(none)?.bytes_mut();
            let at = memory.len() - PAGE;
            let page = &mut memory[at..];
            begin = cpu::begin();
            // SAFETY: the range is a page of the own buffer, borrowed mutably; it reads as zeros afterwards, which are
            // valid bytes.
            unsafe { libc::madvise(page.as_mut_ptr().cast(), PAGE, libc::MADV_DONTNEED) }
        };
        let took = cpu::end() - begin;
        if done == 0 { Ok(took) } else { Err(last_error(call)) }
    }

    fn delete(&mut self, call: &Call, vm: Vm) -> Result<u64, Refusal> {
        let held = self.held(call, vm)?;
        let region = kvm_userspace_memory_region::default();
        let begin = cpu::begin();
        // SAFETY: a size of zero takes the slot away; the VM sees no memory of this process any more.
        let done = unsafe { held.vm.set_user_memory_region(region) };
        let took = cpu::end() - begin;
        done.map(|()| took).map_err(|e| refused(call, e))
    }

    fn run(&mut self, call: &Call, vm: Vm) -> Result<Answer, Refusal> {
        let held = self.held(call, vm)?;
        let vcpu = held.vcpu.as_mut().ok_or_else(|| impossible(call, "it has no vCPU"))?;
        let begin = cpu::begin();
        let exit = loop {
            match vcpu.run() {
                Ok(VcpuExit::IoOut(PORT, _) | VcpuExit::SystemEvent(..)) => break 0,
                Ok(_) => break 1,
                Err(error) if error.errno() == libc::EINTR => {}
                Err(error) => return Err(refused(call, error)),
            }
        };
        Ok(Answer { took: cpu::end() - begin, gave: vec![("exit", exit)] })
    }
}

/// Code and page tables: one entry each at the two upper levels, then pages of 2 MiB, all of them with the C-bit.
fn fill(memory: &mut Buffer, kind: Kind, encrypted: u64) {
    const USER: u64 = 7;
    let pages = memory.bytes().len() >> 21;
    let mut put = |at: usize, value: u64| {
        memory.bytes_mut()[at..at + 8].copy_from_slice(&(value | encrypted).to_le_bytes())
    };
    put(TABLES_AT, (TABLES_AT as u64 + 0x1000) | USER);
    put(TABLES_AT + 0x1000, (TABLES_AT as u64 + 0x2000) | USER);
    for page in 0..pages {
        put(TABLES_AT + 0x2000 + 8 * page, (page as u64) << 21 | 1 << 7 | USER);
    }
    let code: &[u8] = if asks_to_leave(kind) { &BY_REQUEST } else { &BY_PORT };
    memory.bytes_mut()[CODE_AT..CODE_AT + code.len()].copy_from_slice(code);
}

const fn asks_to_leave(kind: Kind) -> bool {
    matches!(kind, Kind::SevEs | Kind::SevSnp)
}

/// Registers: 64-bit mode; at privilege 3 with IOPL 3 for the port, at 0 where an MSR is written.
fn start(vcpu: &VcpuFd, cpuid: &kvm_bindings::CpuId, kind: Kind) -> Result<(), kvm_ioctls::Error> {
    vcpu.set_cpuid2(cpuid)?;
    let mut special = vcpu.get_sregs()?;
    let dpl = if asks_to_leave(kind) { 0 } else { 3 };
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
    vcpu.set_sregs(&special)?;
    let mut regs = vcpu.get_regs()?;
    regs.rip = CODE_AT as u64;
    regs.rflags = 3 << 12 | 2;
    regs.r8 = DATA_AT;
    regs.r9 = LINES;
    vcpu.set_regs(&regs)
}

impl Kernel for Real {
    fn call(&mut self, call: Call) -> Result<Answer, Refusal> {
        let took = |took| Answer { took, gave: vec![] };
        match call {
            Call::VmTypes => {
                let begin = cpu::begin();
                let types = self.kvm.check_extension_raw(u64::from(KVM_CAP_VM_TYPES));
                let took = cpu::end() - begin;
                Ok(Answer { took, gave: vec![("types", u64::try_from(types).unwrap_or(0))] })
            }
            Call::CreateVm(kind) => self.create(&call, kind),
            Call::CreateVcpu(vm) => self.vcpu(&call, vm).map(took),
            Call::Memory(vm, bytes) => self.memory(&call, vm, bytes).map(took),
            Call::Sev(vm, command) => self.sev(&call, vm, command),
            Call::Register(vm, bytes) => self.region(&call, vm, bytes, true).map(took),
            Call::Unregister(vm, bytes) => self.region(&call, vm, bytes, false).map(took),
            Call::Discard(vm) => self.last_page(&call, vm, false).map(took),
            Call::Punch(vm) => self.last_page(&call, vm, true).map(took),
            Call::DeleteSlot(vm) => self.delete(&call, vm).map(took),
            Call::Run(vm) => self.run(&call, vm),
            Call::Close(vm) => {
                self.held(&call, vm)?;
                let at = usize::try_from(vm).unwrap_or(usize::MAX);
                let held = self.held.get_mut(at).and_then(Option::take);
                let Some(Held { vcpu, vm, guest_memfd, memory, .. }) = held else {
                    return Ok(Answer::default());
                };
                let begin = cpu::begin();
                // The last descriptor destroys it.
                drop((vcpu, vm, guest_memfd));
                let closed = took(cpu::end() - begin);
                drop(memory);
                Ok(closed)
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::super::launch;
    use super::super::played::{Played, Recorded};
    use super::super::trigger::sites;
    use super::super::watch::{Blind, Tracefs, Watch};
    use super::*;
    use crate::cpuid::Cpuid;
    use crate::perf::tracefs;

    fn real() -> Option<Real> {
        Real::new(0).map_err(|why| eprintln!("skipped: {why}")).ok()
    }

    /// One test, because a trace instance is named after the process.
    #[test]
    fn a_plain_guest_goes_through_every_site_and_the_kernel_is_seen_to_take_its_page() {
        let Some(mut kernel) = real() else { return };
        let mut recorded = Recorded::new(&mut kernel, "a test");
        let traced = tracefs().and_then(|root| Tracefs::open(&root).map(|t| (root, t)));
        let (mut blind, mut root) = (Blind(String::new()), None);
        let mut found = Vec::new();
        let mut go = |watch: &mut dyn Watch| {
            sites(&mut recorded, watch, Kind::Plain, &AtomicBool::new(false), &mut found).unwrap();
        };
        match traced {
            Ok((at, mut traced)) => {
                go(&mut traced);
                root = Some(at);
            }
            Err(why) => {
                eprintln!("not watched: {why}");
                go(&mut blind);
            }
        }
        let discard = found.iter().find(|s| s.name == "discard").unwrap();
        assert!(discard.took.len() == 20 && discard.took.iter().all(|t| *t > 100), "{discard:?}");
        if let Some(root) = root {
            assert!(discard.seen.notifiers >= 20, "{:?}", discard.seen);
            let own = format!("sevsim{}", std::process::id());
            assert!(!root.join("instances").join(&own).exists(), "the instance is taken away");
            let probes = std::fs::read_to_string(root.join("kprobe_events")).unwrap_or_default();
            assert!(!probes.contains(&own), "{probes}");
        }
        // What was recorded can be played back.
        let text = recorded.text;
        let mut again = Vec::new();
        let mut played = Played::parse(&text).unwrap();
        sites(&mut played, &mut blind, Kind::Plain, &AtomicBool::new(false), &mut again).unwrap();
        assert!(again.iter().zip(&found).all(|(a, b)| a.took == b.took) && played.left().is_empty());
    }

    #[test]
    fn without_sev_each_kind_is_refused_by_the_kernel_itself() {
        let Some(mut kernel) = real() else { return };
        if Cpuid::Cpu.encryption().is_some_and(|e| e.sev) {
            eprintln!("skipped: this CPU has SEV");
            return;
        }
        for kind in [Kind::Sev, Kind::SevEs, Kind::SevSnp] {
            let refusal = launch(&mut kernel, kind).unwrap_err();
            assert!([libc::EINVAL, libc::ENOTTY].contains(&refusal.errno), "{refusal}");
            assert!(kernel.held.iter().all(Option::is_none), "every VM is closed");
        }
        // The commands themselves, on a VM that is not of that type.
        let vm = kernel.call(Call::CreateVm(Kind::Plain)).unwrap().number("vm");
        for command in
            [Command::Init2, Command::LaunchStart(1), Command::GuestStatus, Command::SnpLaunchStart(1 << 17)]
        {
            let refusal = kernel.call(Call::Sev(vm, command)).unwrap_err();
            assert_ne!(refusal.errno, 0, "{refusal}");
            let without = kernel.sev.is_err();
            assert_eq!(refusal.to_string().contains("/dev/sev cannot be opened"), without, "{refusal}");
        }
        for call in [Call::Register(vm, LAUNCHED), Call::Unregister(vm, LAUNCHED)] {
            assert_eq!(kernel.call(call).unwrap_err().errno, libc::ENOTTY);
        }
        assert!(kernel.call(Call::Punch(vm)).unwrap_err().to_string().contains("no such memory"));
        assert!(kernel.call(Call::Run(vm)).unwrap_err().to_string().contains("no vCPU"));
        kernel.call(Call::Close(vm)).unwrap();
        assert!(kernel.call(Call::Close(vm)).unwrap_err().to_string().contains("no such VM"));
    }
}
