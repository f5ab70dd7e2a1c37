//! SEV, SEV-ES and SEV-SNP guests through the kernel's own interface, step by step and timed.
//!
//! [`Kernel`] is that interface. [`real`] asks the kernel that runs here; [`played::Played`] answers from the text of an
//! exchange, and [`played::Recorded`] writes one. Launches follow Documentation/virt/kvm/x86/amd-memory-encryption.rst.
//!
//! *Not tried on hardware*: only refusals were met so far, on a host without SEV. The exchanges of the tests were written from
//! the documentation, and say so.

use std::fmt;

pub mod played;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod real;
pub mod trigger;
pub mod watch;

/// A kind of guest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Not encrypted: what the others are compared with.
    Plain,
    /// Memory encrypted.
    Sev,
    /// Registers too.
    SevEs,
    /// Memory's owner checked too.
    SevSnp,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Plain, Kind::Sev, Kind::SevEs, Kind::SevSnp];

    /// A word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Plain => "plain",
            Kind::Sev => "sev",
            Kind::SevEs => "sev-es",
            Kind::SevSnp => "sev-snp",
        }
    }

    /// KVM's number of this type of VM, as a bit of `KVM_CAP_VM_TYPES` and an argument of `KVM_CREATE_VM`.
    #[must_use]
    pub const fn vm_type(self) -> u64 {
        match self {
            Kind::Plain => 0,
            Kind::Sev => 2,
            Kind::SevEs => 3,
            Kind::SevSnp => 4,
        }
    }
}

/// A command of `KVM_MEMORY_ENCRYPT_OP`, with what decides its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// `KVM_SEV_INIT`, before Linux 6.9.
    Init,
    /// `KVM_SEV_ES_INIT`, before Linux 6.9.
    EsInit,
    /// `KVM_SEV_INIT2`: allocates an ASID.
    Init2,
    /// `KVM_SEV_LAUNCH_START`: makes a key and ACTIVATEs it on the ASID. The argument is the guest's policy.
    LaunchStart(u32),
    /// `KVM_SEV_LAUNCH_UPDATE_DATA`: encrypts in place. Bytes from the start of the guest's memory on.
    LaunchUpdateData(u32),
    /// `KVM_SEV_LAUNCH_UPDATE_VMSA`: encrypts the registers.
    LaunchUpdateVmsa,
    /// `KVM_SEV_LAUNCH_MEASURE`.
    LaunchMeasure,
    /// `KVM_SEV_LAUNCH_FINISH`.
    LaunchFinish,
    /// `KVM_SEV_GUEST_STATUS`.
    GuestStatus,
    /// `KVM_SEV_SNP_LAUNCH_START`. The argument is the guest's policy.
    SnpLaunchStart(u64),
    /// `KVM_SEV_SNP_LAUNCH_UPDATE`: copies and encrypts so many bytes.
    SnpLaunchUpdate(u32),
    /// `KVM_SEV_SNP_LAUNCH_FINISH`.
    SnpLaunchFinish,
}

impl fmt::Display for Command {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Init => write!(out, "INIT"),
            Command::EsInit => write!(out, "ES_INIT"),
            Command::Init2 => write!(out, "INIT2"),
            Command::LaunchStart(policy) => write!(out, "LAUNCH_START policy={policy:#x}"),
            Command::LaunchUpdateData(bytes) => write!(out, "LAUNCH_UPDATE_DATA bytes={bytes}"),
            Command::LaunchUpdateVmsa => write!(out, "LAUNCH_UPDATE_VMSA"),
            Command::LaunchMeasure => write!(out, "LAUNCH_MEASURE"),
            Command::LaunchFinish => write!(out, "LAUNCH_FINISH"),
            Command::GuestStatus => write!(out, "GUEST_STATUS"),
            Command::SnpLaunchStart(policy) => write!(out, "SNP_LAUNCH_START policy={policy:#x}"),
            Command::SnpLaunchUpdate(bytes) => write!(out, "SNP_LAUNCH_UPDATE bytes={bytes}"),
            Command::SnpLaunchFinish => write!(out, "SNP_LAUNCH_FINISH"),
        }
    }
}

/// The number that the kernel gave a VM's turn in this exchange: 0, 1, ...
pub type Vm = u64;

/// What the kernel is asked. Its text is a line of an exchange up to the arrow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// `KVM_CAP_VM_TYPES`. Gives `types`.
    VmTypes,
    /// `KVM_CREATE_VM`. Gives `vm`.
    CreateVm(Kind),
    /// `KVM_CREATE_VCPU`, and registers that make it run the guest's code.
    CreateVcpu(Vm),
    /// Memory: a slot of so many bytes; guest_memfd and private attributes for SEV-SNP.
    Memory(Vm, u32),
    /// `KVM_MEMORY_ENCRYPT_OP`. Some give `handle`, `state`.
    Sev(Vm, Command),
    /// `KVM_MEMORY_ENCRYPT_REG_REGION` of the first so many bytes.
    Register(Vm, u32),
    /// `KVM_MEMORY_ENCRYPT_UNREG_REGION` of the same.
    Unregister(Vm, u32),
    /// `madvise(MADV_DONTNEED)` of the slot's last page, which nobody ever touched.
    Discard(Vm),
    /// `fallocate(PUNCH_HOLE)` of the last page of a guest_memfd.
    Punch(Vm),
    /// Deletes the slot.
    DeleteSlot(Vm),
    /// `KVM_RUN`. Gives `exit`: 0 the guest's own way out, 1 anything else.
    Run(Vm),
    /// Closes the VM and all that belongs to it.
    Close(Vm),
}

impl fmt::Display for Call {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::VmTypes => write!(out, "vm-types"),
            Call::CreateVm(kind) => write!(out, "create-vm {}", kind.name()),
            Call::CreateVcpu(vm) => write!(out, "create-vcpu {vm}"),
            Call::Memory(vm, bytes) => write!(out, "memory {vm} bytes={bytes}"),
            Call::Sev(vm, command) => write!(out, "sev {vm} {command}"),
            Call::Register(vm, bytes) => write!(out, "register {vm} bytes={bytes}"),
            Call::Unregister(vm, bytes) => write!(out, "unregister {vm} bytes={bytes}"),
            Call::Discard(vm) => write!(out, "discard {vm}"),
            Call::Punch(vm) => write!(out, "punch {vm}"),
            Call::DeleteSlot(vm) => write!(out, "delete-slot {vm}"),
            Call::Run(vm) => write!(out, "run {vm}"),
            Call::Close(vm) => write!(out, "close {vm}"),
        }
    }
}

/// What the kernel said to a call.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answer {
    /// Cycles of the TSC that the call took.
    pub took: u64,
    /// What it gave, by name.
    pub gave: Vec<(&'static str, u64)>,
}

impl Answer {
    /// A number that it gave; 0 if it gave none of this name.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        self.gave.iter().find(|(key, _)| *key == name).map_or(0, |(_, n)| *n)
    }
}

/// A call that the kernel refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The call.
    pub call: String,
    /// The error's number; 0 if the call was never made.
    pub errno: i32,
    /// What the firmware said, if it was asked.
    pub firmware: Option<u32>,
    /// More than the number says, if anything is known.
    pub why: String,
}

/// Names of errors that the kernel's SEV code gives.
const ERRNO: [(i32, &str, &str); 14] = [
    (1, "EPERM", "no right to"),
    (2, "ENOENT", "it is not there"),
    (5, "EIO", "the firmware refused"),
    (9, "EBADF", "/dev/sev is not open"),
    (11, "EAGAIN", "try again"),
    (12, "ENOMEM", "no memory, or more than may be locked (ulimit -l)"),
    (13, "EACCES", "no right to open it"),
    (14, "EFAULT", "a bad address"),
    (16, "EBUSY", "no ASID is free, or the device is in use"),
    (19, "ENODEV", "no PSP"),
    (22, "EINVAL", "this KVM has no such type of VM, or not in this state"),
    (25, "ENOTTY", "this KVM knows no SEV"),
    (28, "ENOSPC", "no room"),
    (95, "EOPNOTSUPP", "not supported"),
];

/// What the firmware's errors are called (uapi/linux/psp-sev.h).
const FIRMWARE: [&str; 0x18] = [
    "SUCCESS",
    "INVALID_PLATFORM_STATE",
    "INVALID_GUEST_STATE",
    "INVALID_CONFIG",
    "INVALID_LEN",
    "ALREADY_OWNED",
    "INVALID_CERTIFICATE",
    "POLICY_FAILURE",
    "INACTIVE",
    "INVALID_ADDRESS",
    "BAD_SIGNATURE",
    "BAD_MEASUREMENT",
    "ASID_OWNED",
    "INVALID_ASID",
    "WBINVD_REQUIRED",
    "DFFLUSH_REQUIRED",
    "INVALID_GUEST",
    "INVALID_COMMAND",
    "ACTIVE",
    "HWERROR_PLATFORM",
    "HWERROR_UNSAFE",
    "UNSUPPORTED",
    "INVALID_PARAM",
    "RESOURCE_LIMIT",
];

/// An error's name, as an exchange has it.
#[must_use]
pub fn errno_name(errno: i32) -> String {
    ERRNO.iter().find(|e| e.0 == errno).map_or_else(|| format!("errno{errno}"), |e| e.1.to_owned())
}

fn errno_from(name: &str) -> Option<i32> {
    let known = ERRNO.iter().find(|e| e.1 == name).map(|e| e.0);
    known.or_else(|| name.strip_prefix("errno")?.parse().ok())
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: ", self.call)?;
        if self.errno != 0 {
            write!(out, "{}", errno_name(self.errno))?;
            if let Some((.., means)) = ERRNO.iter().find(|e| e.0 == self.errno) {
                write!(out, " ({means})")?;
            }
        }
        if let Some(code) = self.firmware {
            let name = FIRMWARE.get(code as usize).copied().unwrap_or("unknown");
            write!(out, ", firmware error {code:#04x} {name}")?;
        }
        if !self.why.is_empty() {
            write!(out, "{}{}", if self.errno != 0 { "; " } else { "" }, self.why)?;
        }
        Ok(())
    }
}

/// The kernel's interface to guests, encrypted ones too.
pub trait Kernel {
    /// Makes a call and times it.
    ///
    /// # Errors
    /// What the kernel refused, and how.
    fn call(&mut self, call: Call) -> Result<Answer, Refusal>;
}

/// Bytes of a guest's memory that are encrypted at its launch: its code, its page tables, and lines to dirty.
pub const LAUNCHED: u32 = 4 << 20;
/// Bytes of its slot. Nobody touches the rest.
pub const SLOT: u32 = 6 << 20;

/// A guest that was launched and has run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Launched {
    /// Its VM.
    pub vm: Vm,
    /// Each call of the launch and the cycles it took.
    pub steps: Vec<(Call, u64)>,
}

/// SEV: no debugging. SEV-ES: and registers encrypted.
const POLICY: u32 = 1;
const POLICY_ES: u32 = 1 << 2;
/// SEV-SNP: the bit that must be one, and SMT allowed.
const POLICY_SNP: u64 = 1 << 17 | 1 << 16;

/// The state of a guest after its launch, as `KVM_SEV_GUEST_STATUS` has it.
const RUNNING: u64 = 3;

/// The commands of a launch, from before there is a vCPU.
fn commands(kind: Kind, init2: bool) -> (Option<Command>, Vec<Command>) {
    let first = match kind {
        Kind::Plain => None,
        Kind::Sev if !init2 => Some(Command::Init),
        Kind::SevEs if !init2 => Some(Command::EsInit),
        Kind::Sev | Kind::SevEs | Kind::SevSnp => Some(Command::Init2),
    };
    let rest = match kind {
        Kind::Plain => vec![],
        Kind::Sev => vec![
            Command::LaunchStart(POLICY),
            Command::LaunchUpdateData(LAUNCHED),
            Command::LaunchMeasure,
            Command::LaunchFinish,
            Command::GuestStatus,
        ],
        Kind::SevEs => vec![
            Command::LaunchStart(POLICY | POLICY_ES),
            Command::LaunchUpdateData(LAUNCHED),
            Command::LaunchUpdateVmsa,
            Command::LaunchMeasure,
            Command::LaunchFinish,
            Command::GuestStatus,
        ],
        Kind::SevSnp => vec![
            Command::SnpLaunchStart(POLICY_SNP),
            Command::SnpLaunchUpdate(LAUNCHED),
            Command::SnpLaunchFinish,
        ],
    };
    (first, rest)
}

/// Whether this KVM has the kind as a type of VM, and whether it must be made in the way of before Linux 6.9.
fn init2(kernel: &mut dyn Kernel, kind: Kind) -> Result<bool, Refusal> {
    let types = kernel.call(Call::VmTypes)?.number("types");
    // Without such types an old kernel may still have SEV; SEV-SNP came after them.
    Ok(kind == Kind::SevSnp || types >> Kind::Sev.vm_type() & 7 != 0)
}

/// Makes a VM of this kind, up to the allocation of its ASID.
///
/// # Errors
/// The first call that the kernel refused; the VM is closed then.
pub fn begin(kernel: &mut dyn Kernel, kind: Kind) -> Result<Launched, Refusal> {
    let init2 = init2(kernel, kind)?;
    let made = if init2 { kind } else { Kind::Plain };
    let create = Call::CreateVm(made);
    let answer = kernel.call(create)?;
    let mut launched = Launched { vm: answer.number("vm"), steps: vec![(create, answer.took)] };
    if let (Some(first), _) = commands(kind, init2) {
        launched.step(kernel, Call::Sev(launched.vm, first))?;
    }
    Ok(launched)
}

impl Launched {
    fn step(&mut self, kernel: &mut dyn Kernel, call: Call) -> Result<Answer, Refusal> {
        let answer = kernel.call(call);
        match &answer {
            Ok(answer) => self.steps.push((call, answer.took)),
            // The refusal is what is told; that of closing would hide it.
            Err(_) => drop(kernel.call(Call::Close(self.vm))),
        }
        answer
    }
}

/// Launches a guest of this kind and runs it once.
///
/// # Errors
/// The first call that the kernel refused; the VM is closed then.
pub fn launch(kernel: &mut dyn Kernel, kind: Kind) -> Result<Launched, Refusal> {
    let mut launched = begin(kernel, kind)?;
    let vm = launched.vm;
    launched.step(kernel, Call::Memory(vm, SLOT))?;
    launched.step(kernel, Call::CreateVcpu(vm))?;
    if matches!(kind, Kind::Sev | Kind::SevEs) {
        launched.step(kernel, Call::Register(vm, LAUNCHED))?;
    }
    for command in commands(kind, true).1 {
        let call = Call::Sev(vm, command);
        let answer = launched.step(kernel, call)?;
        if command == Command::GuestStatus && answer.number("state") != RUNNING {
            let why = format!("the guest is in state {}, not {RUNNING} (running)", answer.number("state"));
            drop(kernel.call(Call::Close(vm)));
            return Err(Refusal { call: call.to_string(), errno: 0, firmware: None, why });
        }
    }
    let run = Call::Run(vm);
    if launched.step(kernel, run)?.number("exit") != 0 {
        drop(kernel.call(Call::Close(vm)));
        let why = "the guest was launched, and left otherwise than by its own way out".to_owned();
        return Err(Refusal { call: run.to_string(), errno: 0, firmware: None, why });
    }
    Ok(launched)
}
