//! VMs: their kinds, their ASIDs, and pages of a special kind.

use sev_arch::{VcpuId, VmId};

use super::ModelSpec;

/// What a VM is, as `kvm->arch.vm_type` says (arch/x86/include/uapi/asm/kvm.h).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum VmKind {
    /// Without memory encryption: all its accesses are C=0.
    Normal,
    /// SEV: memory encrypted, registers not.
    #[default]
    Sev,
    /// SEV-ES: registers too, in a VMSA page of each vCPU.
    SevEs,
    /// SEV-SNP: and the RMP keeps the host from writing its pages.
    SevSnp,
}

impl VmKind {
    /// Every kind.
    pub const ALL: [VmKind; 4] = [VmKind::Normal, VmKind::Sev, VmKind::SevEs, VmKind::SevSnp];

    /// The name in litmus files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            VmKind::Normal => "normal",
            VmKind::Sev => "sev",
            VmKind::SevEs => "sev-es",
            VmKind::SevSnp => "sev-snp",
        }
    }

    /// The kind of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<VmKind> {
        VmKind::ALL.into_iter().find(|k| k.name() == name)
    }

    /// What `kvm_vm_type()` gives: `KVM_X86_DEFAULT_VM` 0, `KVM_X86_SEV_VM` 2, `KVM_X86_SEV_ES_VM` 3,
    /// `KVM_X86_SNP_VM` 4.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            VmKind::Normal => 0,
            VmKind::Sev => 2,
            VmKind::SevEs => 3,
            VmKind::SevSnp => 4,
        }
    }

    /// Whether its vCPUs' registers are kept in VMSA pages.
    #[must_use]
    pub const fn has_vmsa(self) -> bool {
        matches!(self, VmKind::SevEs | VmKind::SevSnp)
    }
}

/// One VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VmSpec {
    /// What it is.
    pub kind: VmKind,
    /// Its ASID at first; 0: none yet, so that its accesses are the host's. VMs with the same one are mirrors of each
    /// other: they share the key, and the tag.
    pub asid: u16,
}

/// What is said of VMs and pages. Empty: each VM is a plain SEV one, and VM n has ASID n + 1.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Guests {
    /// VMs, in order; those that are left out are as above.
    pub vms: Vec<VmSpec>,
    /// ASIDs that there are, the host's 0 included; 0: as many as the VMs have at first.
    pub asids: u16,
    /// Pages that are C=0 for the guest too, in ascending order.
    pub shared: Vec<u32>,
    /// Pages that are a vCPU's VMSA.
    pub vmsa: Vec<(u32, VcpuId)>,
}

impl ModelSpec {
    /// Whether a page is C=0 for the guest too.
    #[must_use]
    pub fn is_shared(&self, page: u32) -> bool {
        self.guests.shared.binary_search(&page).is_ok()
    }

    /// A VM.
    #[must_use]
    pub fn vm(&self, vm: VmId) -> VmSpec {
        let plain = VmSpec { kind: VmKind::Sev, asid: vm.0.saturating_add(1) };
        self.guests.vms.get(vm.index()).copied().unwrap_or(plain)
    }

    /// ASIDs, the host's 0 included: as many as tags.
    #[must_use]
    pub fn asids(&self) -> u16 {
        let highest = (0..self.vms).map(|vm| self.vm(VmId(vm)).asid).max().unwrap_or(0);
        highest.saturating_add(1).max(self.guests.asids)
    }

    /// The page that is a vCPU's VMSA.
    #[must_use]
    pub fn vmsa_of(&self, vcpu: VcpuId) -> Option<u32> {
        self.guests.vmsa.iter().find(|(_, of)| *of == vcpu).map(|(page, _)| *page)
    }

    /// Whether a page is some vCPU's VMSA.
    #[must_use]
    pub fn is_vmsa(&self, page: u32) -> bool {
        self.guests.vmsa.iter().any(|(vmsa, _)| *vmsa == page)
    }
}
