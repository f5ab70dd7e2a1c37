//! What this host offers, in four levels, each with its reason.
//!
//! *Promise*: a probe changes nothing and never fails: what cannot be had is said in its line.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cpuid::Cpuid;
use crate::topology::Topology;
use crate::{SUPPORTED, UNSUPPORTED};

/// The helper module's device.
pub const HELPER_DEVICE: &str = "dev/sevsim_flush";

/// Types of VM that are SEV, SEV-ES and SEV-SNP, as bits of `KVM_CAP_VM_TYPES`.
const SEV_TYPES: u32 = 0b1_1100;

/// A level and what there is to say of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Level {
    /// 0 to 3.
    pub level: u8,
    /// In a word or two.
    pub name: &'static str,
    /// Whether this host has it.
    pub have: bool,
    /// Why, or why not: the first thing missing.
    pub why: String,
    /// How to get it; empty if it is there.
    pub how: String,
}

/// All that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// L0 to L3.
    pub levels: [Level; 4],
    /// The leaves.
    pub cpuid: Cpuid,
    /// Who shares what.
    pub topology: Topology,
    /// The pCPUs that this process may use; of a scripted host all.
    pub allowed: Vec<usize>,
    /// Whose the numbers would be.
    pub host: Host,
}

/// Whose numbers they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// The host's name.
    pub name: String,
    /// The kernel's release.
    pub kernel: String,
    /// The processor's name.
    pub cpu: String,
    /// Family, model and stepping.
    pub family: String,
    /// The microcode's revision.
    pub microcode: String,
    /// The hypervisor this runs under, if it says so.
    pub hypervisor: Option<String>,
}

/// What must be said of numbers that were measured under this hypervisor.
#[must_use]
pub fn caveat(hypervisor: &str) -> String {
    if emulated(hypervisor) {
        format!("EMULATED ({hypervisor}): this processor is software; its times mean nothing")
    } else {
        format!("IN A VM ({hypervisor}): these are a guest's numbers, not the processor's")
    }
}

/// Whether this is the signature of QEMU's emulation.
#[must_use]
pub fn emulated(hypervisor: &str) -> bool {
    hypervisor.contains("TCG")
}

/// Where a probe looks.
#[derive(Clone, Debug)]
pub struct Place {
    root: PathBuf,
    cpuid: Cpuid,
    scripted: bool,
}

impl Place {
    /// The host that this runs on.
    #[must_use]
    pub fn here() -> Place {
        Place { root: PathBuf::from("/"), cpuid: Cpuid::Cpu, scripted: false }
    }

    /// A tree of files that says what a host would: `sys`, `proc` and `dev`, and the leaves in `cpuid`. A device
    /// there is a text: `dev/kvm` says `vm_types 1d` and what a SEV command gives (`encrypt ok`), or `error WHY`.
    ///
    /// # Errors
    /// The leaves cannot be read.
    pub fn scripted(root: &Path) -> Result<Place, String> {
        let path = root.join("cpuid");
        let text =
            fs::read_to_string(&path).map_err(|e| format!("{}: cannot be read: {e}", path.display()))?;
        let cpuid = Cpuid::parse(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Place { root: root.to_owned(), cpuid, scripted: true })
    }

    /// Its leaves.
    #[must_use]
    pub fn cpuid(&self) -> &Cpuid {
        &self.cpuid
    }

    /// Who shares what.
    #[must_use]
    pub fn topology(&self) -> Topology {
        Topology::read(&self.root)
    }

    pub(crate) fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok().map(|t| t.trim().to_owned())
    }

    fn there(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// Who it is.
    #[must_use]
    pub fn host(&self) -> Host {
        let known = |path: &str| self.text(path).unwrap_or_else(|| "unknown".to_owned());
        let info = self.text("proc/cpuinfo").unwrap_or_default();
        let microcode = info.lines().find_map(|l| l.strip_prefix("microcode")?.split_once(':'));
        let (family, model, stepping) = self.cpuid.family();
        Host {
            name: known("proc/sys/kernel/hostname"),
            kernel: known("proc/sys/kernel/osrelease"),
            cpu: self.cpuid.brand(),
            family: format!("{} family {family} model {model} stepping {stepping}", self.cpuid.vendor()),
            microcode: microcode.map_or_else(|| "unknown".to_owned(), |(_, v)| v.trim().to_owned()),
            hypervisor: self.cpuid.hypervisor(),
        }
    }

    fn kvm(&self) -> Result<(u32, Result<(), String>), String> {
        if self.scripted {
            let text = self.text("dev/kvm").ok_or("there is no /dev/kvm")?;
            let value =
                |key: &str| text.lines().find_map(|l| l.strip_prefix(key)).map(|v| v.trim().to_owned());
            if let Some(error) = value("error") {
                return Err(error);
            }
            let types = value("vm_types").and_then(|v| u32::from_str_radix(&v, 16).ok()).unwrap_or(0);
            return match value("encrypt").as_deref() {
                None | Some("ok") => Ok((types, Ok(()))),
                Some(error) => Ok((types, Err(error.to_owned()))),
            };
        }
        real_kvm()
    }

    /// Opens a device for reading and writing, or says why not.
    fn opens(&self, path: &str) -> Result<(), String> {
        let opened = fs::OpenOptions::new().read(true).write(true).open(self.root.join(path));
        opened.map(drop).map_err(|e| format!("/{path}: {e}"))
    }

    /// Finds everything out.
    #[must_use]
    pub fn probe(&self) -> Report {
        let kvm = self.kvm();
        Report {
            levels: [self.user(), self.guests(&kvm), self.helper(), self.sev(&kvm)],
            cpuid: self.cpuid.clone(),
            topology: self.topology(),
            allowed: self.allowed(),
            host: self.host(),
        }
    }

    /// The pCPUs that this process may use: `taskset`, a cpuset or a job's share may leave it fewer than the host has.
    #[must_use]
    pub fn allowed(&self) -> Vec<usize> {
        let all = || self.topology().pcpus.iter().map(|p| p.id).collect();
        if self.scripted { all() } else { real_allowed().unwrap_or_else(all) }
    }

    fn user(&self) -> Level {
        let level = |have, why: String, how: &str| Level {
            level: 0,
            name: "user space",
            have,
            why,
            how: how.to_owned(),
        };
        if !SUPPORTED {
            return level(false, UNSUPPORTED.to_owned(), "build it on x86-64 Linux");
        }
        let topology = self.topology();
        // QEMU's emulation does not say so, but its TSC is the clock of the machine below.
        let emulated = self.cpuid.hypervisor().is_some_and(|name| emulated(&name));
        if !self.cpuid.invariant_tsc() && !emulated {
            let why = "the TSC does not run at one rate (CPUID 8000_0007 EDX[8] is 0)".to_owned();
            return level(false, why, "a host, or a VM type, with an invariant TSC");
        }
        let clock = if emulated { "EMULATED: its times mean nothing" } else { "invariant TSC" };
        if !self.cpuid.rdtscp() {
            let why = "this CPU has no RDTSCP (CPUID 8000_0001 EDX[27] is 0)".to_owned();
            return level(false, why, "a CPU, or a model of one, from 2007 on");
        }
        let (there, allowed) = (topology.pcpus.len(), self.allowed().len());
        let mut why = format!("x86-64 Linux, {clock}, pCPUs {there}");
        if allowed < there {
            why.push_str(&format!(", of which this process may use {allowed}"));
        }
        if let Some(name) = self.cpuid.hypervisor() {
            why.push_str(&format!("; in a VM ({name}): its numbers are a guest's"));
        }
        if allowed < 2 {
            why.push_str("; nothing between pCPUs can be measured on one");
        }
        level(true, why, "")
    }

    fn guests(&self, kvm: &Result<(u32, Result<(), String>), String>) -> Level {
        let level =
            |have, why: String, how: &str| Level { level: 1, name: "KVM", have, why, how: how.to_owned() };
        match kvm {
            Ok((types, _)) => {
                let module = ["kvm_amd", "kvm_intel", "kvm_pvm"];
                let module = module.iter().find(|m| self.there(&format!("sys/module/{m}")));
                let module = module.map_or_else(|| "an unknown KVM".to_owned(), |m| (*m).to_owned());
                let software =
                    if module == "kvm_pvm" { "; without SVM: exits cost more than on hardware" } else { "" };
                level(
                    true,
                    format!("a guest ran through /dev/kvm ({module}, VM types {types:#x}{software})"),
                    "",
                )
            }
            Err(why) => {
                let how = if !SUPPORTED {
                    "build it on x86-64 Linux"
                } else if why.contains("no right") {
                    "join the group of /dev/kvm (usually kvm), or be root"
                } else if self.cpuid.svm() {
                    "load kvm_amd"
                } else if self.cpuid.vmx() {
                    "load kvm_intel"
                } else if self.cpuid.vendor() == "GenuineIntel" && self.cpuid.hypervisor().is_some() {
                    "let this VM nest (its CPUID 1 ECX[5], VMX, is 0), or use a bare-metal host"
                } else if self.cpuid.vendor() == "GenuineIntel" {
                    "switch VMX on in the firmware's setup (CPUID 1 ECX[5] is 0)"
                } else if self.cpuid.hypervisor().is_some() {
                    "let this VM nest (its CPUID 8000_0001 ECX[2], SVM, is 0), or use a bare-metal host"
                } else {
                    "switch SVM on in the firmware's setup (CPUID 8000_0001 ECX[2] is 0)"
                };
                level(false, why.clone(), how)
            }
        }
    }

    fn helper(&self) -> Level {
        let level = |have, why: String, how: &str| Level {
            level: 2,
            name: "helper module",
            have,
            why,
            how: how.to_owned(),
        };
        if self.there(HELPER_DEVICE) {
            let opened = if self.scripted { self.opens(HELPER_DEVICE) } else { real_helper() };
            return match opened {
                Ok(()) => level(true, format!("/{HELPER_DEVICE} opens, and answers as this version's"), ""),
                Err(why) if why.contains("another version") => level(
                    false,
                    why,
                    "rmmod sevsim_flush, and load the module that this program's `sevsim module` writes",
                ),
                Err(why) => level(false, why, "be root (CAP_SYS_RAWIO)"),
            };
        }
        let why = format!("there is no /{HELPER_DEVICE}: the module is not loaded");
        if let Err((more, how)) = self.loads_modules(false) {
            return level(false, format!("{why}, and {more}"), how);
        }
        level(
            false,
            why,
            "`sevsim module DIR`, `sh DIR/build.sh`, then --load-module DIR/sevsim_flush.ko or insmod, as root",
        )
    }

    /// Whether this kernel loads modules, and if only signed ones, whether one is.
    ///
    /// # Errors
    /// Why not, and how to get it.
    pub(crate) fn loads_modules(&self, signed: bool) -> Result<(), (String, &'static str)> {
        let no = |why: &str, how| Err((why.to_owned(), how));
        if !self.there("proc/modules") {
            return no("this kernel loads none (no /proc/modules)", "a kernel with CONFIG_MODULES");
        }
        if self.text("proc/sys/kernel/modules_disabled").as_deref() == Some("1") {
            return no(
                "this kernel loads no more (kernel.modules_disabled is 1)",
                "boot again, and load it before kernel.modules_disabled is set",
            );
        }
        let enforced = self.text("sys/module/module/parameters/sig_enforce");
        if !signed && matches!(enforced.as_deref(), Some("Y" | "1")) {
            return no(
                "only signed modules load (module.sig_enforce)",
                "sign it with a key that the kernel trusts, or boot without module.sig_enforce=1",
            );
        }
        if let Some(lock) =
            self.text("sys/kernel/security/lockdown").filter(|lock| !signed && !lock.contains("[none]"))
        {
            return no(
                &format!("the kernel is locked down ({lock}): only signed modules load"),
                "sign it with a key that the kernel trusts, or boot without lockdown",
            );
        }
        Ok(())
    }

    /// The first missing link of the chain that an encrypted guest hangs on.
    fn sev(&self, kvm: &Result<(u32, Result<(), String>), String>) -> Level {
        let level =
            |have, why: String, how: &str| Level { level: 3, name: "SEV", have, why, how: how.to_owned() };
        let hidden = match self.cpuid.hypervisor() {
            Some(_) => "a bare-metal EPYC: a hypervisor does not pass SEV on",
            None => "an EPYC, with SME and SEV switched on in the firmware's setup",
        };
        let Some(leaf) = self.cpuid.encryption() else {
            let max = self.cpuid.max(0x8000_0000);
            return level(false, format!("CPUID 8000_001F is above the maximum {max:08x}"), hidden);
        };
        if !leaf.sev {
            let why = format!("CPUID 8000_001F EAX is {:08x}: no SEV", leaf.eax);
            return level(false, why, hidden);
        }
        if leaf.asids == 0 {
            return level(
                false,
                "CPUID 8000_001F ECX is 0: no ASID for an encrypted guest".to_owned(),
                hidden,
            );
        }
        match self.text("sys/module/kvm_amd/parameters/sev").as_deref() {
            Some("Y" | "1") => {}
            Some(other) => {
                let why = format!("kvm_amd runs with sev={other}");
                return level(false, why, "load ccp, then kvm_amd with sev=1; see what dmesg says of SEV");
            }
            None => return level(false, "kvm_amd is not loaded".to_owned(), "load kvm_amd with sev=1"),
        }
        if !self.there("dev/sev") {
            return level(false, "there is no /dev/sev: the PSP's driver found none".to_owned(), "load ccp");
        }
        if let Err(why) = self.opens("dev/sev") {
            return level(false, why, "be root, or join the group of /dev/sev");
        }
        match kvm {
            Err(why) => level(false, why.clone(), "get L1 first"),
            // From 6.9 on the types say it; before, only that a SEV command is known.
            Ok((types, _)) if types & SEV_TYPES != 0 => {
                let kinds = ["SEV", "SEV-ES", "SEV-SNP"];
                let kinds: Vec<&str> = kinds
                    .into_iter()
                    .enumerate()
                    .filter(|(n, _)| types >> (n + 2) & 1 == 1)
                    .map(|k| k.1)
                    .collect();
                level(true, format!("{}, {} ASIDs, /dev/sev opens", kinds.join(", "), leaf.asids), "")
            }
            Ok((_, Ok(()))) => {
                level(true, format!("SEV by KVM_SEV_INIT, {} ASIDs, /dev/sev opens", leaf.asids), "")
            }
            Ok((types, Err(error))) => {
                let why = format!(
                    "KVM offers no type of SEV guest (VM types {types:#x}; a SEV command gives: {error})"
                );
                level(false, why, "a kernel with CONFIG_KVM_AMD_SEV")
            }
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn real_allowed() -> Option<Vec<usize>> {
    crate::os::affinity().ok().map(|set| set.members())
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn real_allowed() -> Option<Vec<usize>> {
    None
}

/// Asks the module as every command does that uses it.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn real_helper() -> Result<(), String> {
    crate::helper::Helper::open().map(drop)
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn real_helper() -> Result<(), String> {
    Err(UNSUPPORTED.to_owned())
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn real_kvm() -> Result<(u32, Result<(), String>), String> {
    crate::guest::facts().map(|facts| (facts.vm_types, facts.encrypt))
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn real_kvm() -> Result<(u32, Result<(), String>), String> {
    Err(UNSUPPORTED.to_owned())
}
