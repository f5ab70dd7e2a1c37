//! Commands of the SEV firmware that texts can give.

/// A command to the firmware. What each does: `svm-model/src/firmware.rs`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Command {
    /// INIT: SEV and SEV-ES.
    SevInit,
    /// SNP_INIT.
    SnpInit,
    /// SNP_SHUTDOWN.
    SnpShutdown,
    /// ACTIVATE, and SNP_ACTIVATE of an SNP VM: (kvm, asid).
    Activate,
    /// ACTIVATE_EX: (kvm, asid, cpu), on the CCX of one pCPU.
    ActivateEx,
    /// LAUNCH_FINISH: (kvm).
    LaunchFinish,
    /// DEACTIVATE: (kvm).
    Deactivate,
    /// DECOMMISSION of SEV: (kvm).
    Decommission,
    /// SNP_DECOMMISSION: (kvm); implies DEACTIVATE.
    SnpDecommission,
    /// DF_FLUSH and SNP_DF_FLUSH, which are the same code.
    DfFlush,
}

impl Command {
    /// Whether a refusal is an event: what the hypervisor cannot start a guest, or go down, without.
    #[must_use]
    pub const fn guards(self) -> bool {
        match self {
            Command::SnpShutdown | Command::Activate | Command::ActivateEx | Command::DfFlush => true,
            Command::SevInit
            | Command::SnpInit
            | Command::LaunchFinish
            | Command::Deactivate
            | Command::Decommission
            | Command::SnpDecommission => false,
        }
    }
}
