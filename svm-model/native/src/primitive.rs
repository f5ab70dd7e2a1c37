//! What each primitive of the policy core is on a real host, or why it is nothing there: [`crate::admit`] refuses by it, the
//! stepper ([`crate::stepper`]) does by it.

use svm_policy::Prim;

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Does {
    /// A write-back of the pCPU's caches, with its first step. The others, and freeing a mask, are then nothing.
    WriteBack,
    /// Nothing more.
    Nothing,
    /// A call to another pCPU.
    Call,
    /// Waiting for calls.
    Wait,
    /// An empty mask, for which there is always memory.
    AllocMask,
    /// Whether a mask was allocated: always.
    MaskAvailable,
    /// Whether interrupts are off.
    IrqsDisabled,
    /// Whether preemption is off.
    InAtomic,
    /// Whether this is a handler of an IPI.
    InInterrupt,
    /// A memory fence.
    Fence,
    /// A report if something is so.
    Warn,
    /// A note to whoever checks the text; no step.
    Note,
    /// A note that the kernel's own functions make; a policy that makes it takes over what is not its own, as said.
    KernelsNote(&'static str),
}

/// What a primitive is.
///
/// # Errors
/// Why it is nothing that a policy can do on a host.
pub const fn does(prim: Prim) -> Result<Does, &'static str> {
    Ok(match prim {
        Prim::FlushBegin => Does::WriteBack,
        Prim::FlushPrivate | Prim::FlushShared | Prim::FlushEnd | Prim::FreeMask => Does::Nothing,
        Prim::SendCall => Does::Call,
        Prim::WaitCalls => Does::Wait,
        Prim::ZallocMask => Does::AllocMask,
        Prim::MaskAvailable => Does::MaskAvailable,
        Prim::IrqsDisabled => Does::IrqsDisabled,
        Prim::InAtomic => Does::InAtomic,
        Prim::InInterrupt => Does::InInterrupt,
        Prim::Fence => Does::Fence,
        Prim::Warn => Does::Warn,
        Prim::MightSleep | Prim::TraceWriteback | Prim::LockHeld => Does::Note,
        Prim::NonBlock => Does::KernelsNote("non_block_start() is the mm core's"),
        Prim::SchedPark | Prim::SetLoaded => {
            Does::KernelsNote("guests, threads and their lives are KVM's, not a policy's")
        }
        Prim::OracleUpdate => return Err("it asks for the set of dirty lines, which no hardware tells"),
        Prim::Invd => {
            return Err("INVD throws away what is dirty: other programs' and the kernel's data with it");
        }
        Prim::ClflushPage | Prim::ClwbPage | Prim::VmPageFlush => {
            return Err(
                "it flushes a page: the helper module flushes caches, and does not know the page's address",
            );
        }
        Prim::Firmware(_) | Prim::PspWrite | Prim::PspRead => {
            return Err("it gives commands to the firmware, which is KVM's");
        }
        Prim::GetAsid | Prim::SetAsid => return Err("ASIDs are KVM's, which does not tell"),
        Prim::AllocObject | Prim::FreeObject => {
            return Err("objects of its own (DEFINE_OBJECTS): not offered in the module");
        }
        Prim::RmpMakePrivate | Prim::RmpMakeShared | Prim::RmpAssigned => return Err("the RMP is KVM's"),
        Prim::VmRun
        | Prim::GuestRead
        | Prim::GuestWrite
        | Prim::GuestReadShared
        | Prim::GuestWriteShared
        | Prim::GuestEvict
        | Prim::VcpuFlushTlb
        | Prim::FaultPage
        | Prim::JoinVcpu
        | Prim::FreeVm
        | Prim::FreeVcpu => return Err("guests, threads and their lives are KVM's, not a policy's"),
        Prim::ZapSpte
        | Prim::InstallSpte
        | Prim::UserPtePresent
        | Prim::PageMapped
        | Prim::ZapUserPte
        | Prim::FreePage
        | Prim::AllocPage
        | Prim::HostRead
        | Prim::HostWrite
        | Prim::DmaRead
        | Prim::DmaWrite
        | Prim::MovePages
        | Prim::UserReuse => return Err("pages are the kernel's, not a policy's"),
    })
}
