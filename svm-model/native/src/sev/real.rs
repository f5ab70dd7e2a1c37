//! The kernel that runs here.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use kvm_bindings::{
    KVM_CAP_VM_TYPES, KVM_SEV_SNP_PAGE_TYPE_NORMAL, kvm_enc_region, kvm_sev_cmd, kvm_sev_guest_status,
    kvm_sev_init, kvm_sev_launch_measure, kvm_sev_launch_start, kvm_sev_launch_update_data,
    kvm_sev_snp_launch_finish, kvm_sev_snp_launch_start, kvm_sev_snp_launch_update,
    sev_cmd_id_KVM_SEV_ES_INIT, sev_cmd_id_KVM_SEV_GUEST_STATUS, sev_cmd_id_KVM_SEV_INIT,
    sev_cmd_id_KVM_SEV_INIT2, sev_cmd_id_KVM_SEV_LAUNCH_FINISH, sev_cmd_id_KVM_SEV_LAUNCH_MEASURE,
    sev_cmd_id_KVM_SEV_LAUNCH_START, sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_DATA,
    sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_VMSA, sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH,
    sev_cmd_id_KVM_SEV_SNP_LAUNCH_START, sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE,
};
use kvm_ioctls::Kvm;

use super::{Answer, Call, Command, Kernel, Kind, LAUNCHED, Refusal, SLOT, Vm};
use crate::buffer::Buffer;
use crate::cpu;
use crate::vm::{self, Exit, Failed, Leaves, PAGE, open};

/// Lines that a guest dirties each time it runs.
const LINES: usize = 1024;
/// Calls of one SNP_LAUNCH_UPDATE: it may do a page at a time, and be told to try again.
const MOST_TRIES: u32 = 10_000;

/// A VM, and what kind it is by now.
#[derive(Debug)]
struct Held {
    kind: Kind,
    vm: vm::Vm,
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

/// Of a call that is one of KVM's.
fn failed(call: &Call, failed: Failed) -> Refusal {
    refused(call, failed.error)
}

/// Of one that is several: which.
fn failed_in(call: &Call, failed: Failed) -> Refusal {
    Refusal { why: failed.call.to_owned(), ..refused(call, failed.error) }
}

/// Whether guests of this kind must ask to leave.
const fn leaves(kind: Kind) -> Leaves {
    match kind {
        Kind::Plain | Kind::Sev => Leaves::ByPort,
        Kind::SevEs | Kind::SevSnp => Leaves::ByRequest,
    }
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
        self.place(vm).and_then(Option::as_mut).ok_or_else(|| impossible(call, "there is no such VM"))
    }

    fn place(&mut self, vm: Vm) -> Option<&mut Option<Held>> {
        self.held.get_mut(usize::try_from(vm).ok()?)
    }

    fn create(&mut self, call: &Call, kind: Kind) -> Result<Answer, Refusal> {
        let begin = cpu::begin();
        let vm = vm::Vm::new(&self.kvm, kind.vm_type()).map_err(|f| failed(call, f))?;
        let took = cpu::end() - begin;
        self.held.push(Some(Held { kind, vm }));
        Ok(Answer { took, gave: vec![("vm", self.held.len() as u64 - 1)] })
    }

    fn memory(&mut self, call: &Call, vm: Vm, bytes: u32) -> Result<u64, Refusal> {
        let c_bit = self.c_bit;
        let Held { kind, vm } = self.held(call, vm)?;
        let bytes = bytes as usize;
        let memory = Buffer::untouched(bytes).map_err(|e| impossible(call, e.to_string()))?;
        let encrypted = if *kind == Kind::Plain { 0 } else { 1_u64 << (c_bit & 63) };
        vm.fill(memory, leaves(*kind), encrypted).map_err(|f| failed_in(call, f))?;
        let begin = cpu::begin();
        let attached = if *kind == Kind::SevSnp { vm.attach_private(bytes) } else { vm.attach(bytes) };
        let took = cpu::end() - begin;
        attached.map(|()| took).map_err(|f| failed_in(call, f))
    }

    fn vcpu(&mut self, call: &Call, vm: Vm) -> Result<u64, Refusal> {
        let supported = vm::supported(&self.kvm).map_err(|f| failed_in(call, f))?;
        let Held { kind, vm } = self.held(call, vm)?;
        let begin = cpu::begin();
        let added = vm.add_vcpu();
        let took = cpu::end() - begin;
        added.and_then(|()| vm.start(&supported, leaves(*kind), LINES)).map_err(|f| failed_in(call, f))?;
        Ok(took)
    }

    fn sev(&mut self, call: &Call, vm: Vm, command: Command) -> Result<Answer, Refusal> {
        let sev_fd = self.sev.as_ref().map_or(u32::MAX, |f| u32::try_from(f.as_raw_fd()).unwrap_or(u32::MAX));
        let unopened = self.sev.as_ref().err().cloned().unwrap_or_default();
        let held = self.held(call, vm)?;
        let (address, _) = held.vm.place(0);
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
            let result = held.vm.fd().encrypt_op_sev(&mut asked);
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
        let Held { vm, .. } = self.held(call, vm)?;
        let (addr, size) = vm.place(bytes.min(SLOT) as usize);
        let region = kvm_enc_region { addr, size };
        let begin = cpu::begin();
        let done = if register {
            vm.fd().register_enc_memory_region(&region)
        } else {
            vm.fd().unregister_enc_memory_region(&region)
        };
        let took = cpu::end() - begin;
        done.map(|()| took).map_err(|e| refused(call, e))
    }

    /// Gives a page back, of the slot or of the memory that the VM keeps for itself.
    fn page(&mut self, call: &Call, vm: Vm, punch: bool) -> Result<u64, Refusal> {
        let Held { vm, .. } = self.held(call, vm)?;
        let last = vm.bytes().len().saturating_sub(PAGE);
        let begin = cpu::begin();
        let done = if punch { vm.punch(LAUNCHED as usize - PAGE) } else { vm.discard(last) };
        let took = cpu::end() - begin;
        match done {
            None => Err(impossible(call, "this VM has no such memory")),
            Some(Ok(())) => Ok(took),
            Some(Err(error)) => {
                Err(Refusal { errno: error.raw_os_error().unwrap_or(0), ..impossible(call, String::new()) })
            }
        }
    }

    fn delete(&mut self, call: &Call, vm: Vm) -> Result<u64, Refusal> {
        let Held { vm, .. } = self.held(call, vm)?;
        let begin = cpu::begin();
        let done = vm.detach();
        let took = cpu::end() - begin;
        done.map(|()| took).map_err(|f| failed(call, f))
    }

    fn run(&mut self, call: &Call, vm: Vm) -> Result<Answer, Refusal> {
        let Held { vm, .. } = self.held(call, vm)?;
        let begin = cpu::begin();
        let left = vm.run();
        let took = cpu::end() - begin;
        let exit = match left.map_err(|f| failed_in(call, f))? {
            Exit::Own(_) => 0,
            Exit::Other(_) => 1,
        };
        Ok(Answer { took, gave: vec![("exit", exit)] })
    }

    fn close(&mut self, call: &Call, vm: Vm) -> Result<u64, Refusal> {
        let held = self.place(vm).and_then(Option::take);
        let Held { vm, .. } = held.ok_or_else(|| impossible(call, "there is no such VM"))?;
        let begin = cpu::begin();
        let memory = vm.close();
        let took = cpu::end() - begin;
        drop(memory);
        Ok(took)
    }
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
            Call::Discard(vm) => self.page(&call, vm, false).map(took),
            Call::Punch(vm) => self.page(&call, vm, true).map(took),
            Call::DeleteSlot(vm) => self.delete(&call, vm).map(took),
            Call::Run(vm) => self.run(&call, vm),
            Call::Close(vm) => self.close(&call, vm).map(took),
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
                traced.said.iter().for_each(|said| eprintln!("tracefs: {said}"));
                go(&mut traced);
                root = Some(at);
            }
            Err(why) => {
                eprintln!("skipped: nothing is watched: {why}");
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
