//! The closed list of operations of a policy program.

use crate::command::Command;

/// Index of an operation in its program.
pub type Pc = u16;
/// A register of a context; at most [`crate::REGS`].
pub type Reg = u8;

/// A declared variable of the texts that a program was compiled from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VarId(pub u16);

/// How many instances a variable has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// One.
    Global,
    /// One a VM: a field of `struct kvm`.
    PerVm,
    /// One a vCPU: a field of `struct kvm_vcpu`.
    PerVcpu,
    /// One a pCPU: `DEFINE_PER_CPU`.
    PerCpu,
    /// One a page.
    PerPage,
    /// One an ASID, the host's 0 included: `DEFINE_PER_ASID`.
    PerAsid,
    /// One an object of a declared structure: `DEFINE_OBJECTS`. Which structure.
    PerObject(u8),
}

/// A value that needs no access to shared state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operand {
    /// A number. References count from 0; null is -1.
    Const(i64),
    /// A register.
    Reg(Reg),
}

/// A shared variable's slot: `var[instance].word`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The variable.
    pub var: VarId,
    /// Which VM, vCPU, pCPU or page; 0 for a global.
    pub instance: Operand,
    /// Word of a mask, or element of an array; 0 for a scalar.
    pub word: Operand,
}

/// Arithmetic and comparison; comparisons give 0 or 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the operators of C")]
pub enum BinOp {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    And,
    Or,
    Xor,
    Shl,
    Shr,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// One operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnOp {
    /// Arithmetic negation.
    Neg,
    /// Bitwise complement.
    Not,
    /// `!x`: 1 if x is 0, else 0.
    IsZero,
    /// Number of bits set.
    Weight,
    /// Index of the lowest bit set; 64 if none.
    LowestBit,
}

/// What pCPUs share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Shared {
    /// A core: its threads.
    Core,
    /// The last-level cache of a CCX.
    Llc,
}

/// What an own computation gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expr {
    /// The operand itself.
    Use(Operand),
    /// One operand.
    Un(UnOp, Operand),
    /// Two operands, wrapping at 64 bits; a division by zero gives 0.
    Bin(BinOp, Operand, Operand),
    /// `smp_processor_id()`.
    ThisCpu,
    /// `vcpu->kvm`: fixed when the vCPU is made, so it is no access.
    VmOf(Operand),
    /// Word `word` of the mask of the pCPUs that share something with a pCPU, itself included.
    Siblings {
        /// What they share.
        shared: Shared,
        /// The pCPU asked for.
        cpu: Operand,
        /// Which word.
        word: u8,
    },
    /// Bit `bit` of the local mask in registers `base..base + words`.
    MaskTest {
        /// First register.
        base: Reg,
        /// Registers.
        words: u8,
        /// The pCPU asked for.
        bit: Operand,
    },
    /// The lowest set bit above `after` (-1 to begin) in a local mask; the number of pCPUs if none.
    MaskNext {
        /// First register.
        base: Reg,
        /// Registers.
        words: u8,
        /// Bits up to and including this one are passed over.
        after: Operand,
    },
    /// Number of bits set in a local mask.
    MaskWeight {
        /// First register.
        base: Reg,
        /// Registers.
        words: u8,
    },
}

/// An indivisible read-modify-write; the old value is its result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RmwOp {
    /// `old | operand`: `set_bit`, `test_and_set_bit`.
    Or,
    /// `old & !operand`: `clear_bit`, `test_and_clear_bit`.
    AndNot,
    /// `old & operand`.
    And,
    /// `old + operand`: `atomic_inc`, `atomic_dec`, `atomic_add`.
    Add,
    /// `operand`.
    Xchg,
    /// `operand` if old equals the expected value, else unchanged.
    CmpXchg,
    /// `old + operand` unless old equals the expected value: `atomic_add_unless`.
    AddUnless,
    /// Takes the lock if it is free ([`Lock`]), and waits for nobody; no operand.
    TryLock(Lock),
}

/// Kinds of lock. The slot holds 0 when free. An exclusive kind holds who has it ([`crate::Platform::holder`]); a
/// read-write kind holds twice the number of its readers, and one more once a writer waits for them, or minus the holder
/// under a writer. A completion counts what is done, and is negative once all is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lock {
    /// `struct mutex`: sleeps.
    Mutex,
    /// `spinlock_t`: spins with preemption off (the program turns it off before).
    Spin,
    /// `rwlock_t` for reading.
    Read,
    /// `rwlock_t` for writing.
    Write,
    /// `struct rw_semaphore` for reading: sleeps.
    DownRead,
    /// `struct rw_semaphore` for writing: sleeps.
    DownWrite,
    /// `struct completion`: taking it waits, giving it back is `complete`.
    Completion,
    /// `struct completion`: giving it back is `complete_all`.
    CompleteAll,
    /// `struct rw_semaphore`: giving it back is `downgrade_write`, which keeps it for reading.
    Downgrade,
}

impl Lock {
    /// Whether who must wait for it sleeps.
    #[must_use]
    pub const fn sleeps(self) -> bool {
        match self {
            Lock::Mutex
            | Lock::DownRead
            | Lock::DownWrite
            | Lock::Completion
            | Lock::CompleteAll
            | Lock::Downgrade => true,
            Lock::Spin | Lock::Read | Lock::Write => false,
        }
    }

    /// Whether it is given back by a plain store, which x86 does not order before later loads.
    #[must_use]
    pub const fn given_plainly(self) -> bool {
        matches!(self, Lock::Spin | Lock::Write)
    }
}

/// Windows in which others can get at the pCPU; counted or saved by the platform, each an own effect.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Window {
    /// `local_irq_disable`.
    IrqDisable,
    /// `local_irq_enable`.
    IrqEnable,
    /// `preempt_disable`.
    PreemptDisable,
    /// `preempt_enable`.
    PreemptEnable,
}

impl Window {
    /// Whether the operation closes a window, so that the context rests before it.
    #[must_use]
    pub const fn closes(self) -> bool {
        matches!(self, Window::IrqDisable | Window::PreemptDisable)
    }
}

/// What only the platform can do: the hardware, the scheduler and the page allocator. Each is one step.
///
/// Arguments are in the order of the language's call (`docs/LANGUAGE.md`); pages, VMs, vCPUs and pCPUs are
/// their numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Prim {
    /// `vmrun(vcpu)`: enter the guest; returns the exit reason. The context stays here while the guest runs.
    VmRun,
    /// `guest_read(page)`, in a guest's program.
    GuestRead,
    /// `guest_write(page)`, in a guest's program.
    GuestWrite,
    /// `guest_read_shared(page)`: through a C=0 mapping, whatever the page is.
    GuestReadShared,
    /// `guest_write_shared(page)`.
    GuestWriteShared,
    /// `vcpu_flush_tlb(vcpu)`: forget every cached translation of the vCPU.
    VcpuFlushTlb,
    /// `vcpu_fault_page(exit)`: the page of the nested page fault that `vmrun` returned. An own step.
    FaultPage,
    /// `zap_spte(kvm, page)`: clear the nested page table entry; returns whether it was present.
    ZapSpte,
    /// `install_spte(kvm, page)`.
    InstallSpte,
    /// `user_pte_present(page)`: whether the VMM's own mapping still has the page (`hva_to_pfn` succeeds).
    UserPtePresent,
    /// `page_mapped(page)`: whether any user space maps the page.
    PageMapped,
    /// `zap_user_pte(page)`: the mm core clears the VMM's own mapping.
    ZapUserPte,
    /// `free_page(page)`: back to the allocator; anybody may own it next.
    FreePage,
    /// `host_read(page)` through the host's C=0 mapping.
    HostRead,
    /// `host_write(page)` through the host's C=0 mapping.
    HostWrite,
    /// `dma_read(page)` by a device.
    DmaRead,
    /// `dma_write(page)` by a device.
    DmaWrite,
    /// `alloc_page(page, kvm)`: a freed page gets a new owner: a VM, or the host if `kvm` is null.
    AllocPage,
    /// First of the four steps of a WBINVD (argument 0) or WBNOINVD (argument 1): the walk begins. An own step; the
    /// only one, and the whole flush, where the model has flat caches.
    FlushBegin,
    /// The core's private caches are written back. Argument as for `FlushBegin`.
    FlushPrivate,
    /// The L3 is written back. Argument as for `FlushBegin`.
    FlushShared,
    /// Waits until what is in flight has arrived in memory.
    FlushEnd,
    /// `clflush_page(page)`: CLFLUSH of each line through the host's mapping.
    ClflushPage,
    /// CLWB of each line of a page through the host's mapping, and the fence that completes it.
    ClwbPage,
    /// `call_single_queue(cpu, fn, info, wait)`: queue a function call and send the IPI; waits while an
    /// earlier call of this sender to that pCPU has not been taken.
    SendCall,
    /// `csd_lock_wait_mask(mask)`: wait until every call sent to the pCPUs of the local mask is done.
    /// Arguments: first register and words of the mask.
    WaitCalls,
    /// `vcpu_sched_park()`: the last step of being scheduled out; the pCPU is free afterwards.
    SchedPark,
    /// `vcpu_set_loaded(vcpu, bool)`: register or unregister the preempt notifier. An own step.
    SetLoaded,
    /// `zalloc_cpumask_var(&mask, gfp)`: arguments are the variable (-1 for a local), its instance and the flags;
    /// returns whether there was memory, which is a choice.
    ZallocMask,
    /// `free_cpumask_var(mask)`: arguments are the variable and its instance.
    FreeMask,
    /// `cpumask_available(mask)`: arguments are the variable and its instance.
    MaskAvailable,
    /// `kvm_arch_free_vm(kvm)`: the VM's structure is freed; allocated masks that are still there leak.
    FreeVm,
    /// `might_sleep()`: reports a context that must not. An own step.
    MightSleep,
    /// `non_block_start()` (1) and `non_block_end()` (0): the task may not sleep between. An own step.
    NonBlock,
    /// `irqs_disabled()`. An own step.
    IrqsDisabled,
    /// `in_atomic()`: preemption is off. An own step.
    InAtomic,
    /// `in_interrupt()`: in the handler of an IPI. An own step.
    InInterrupt,
    /// `trace_sev_writeback(begin)`: a tracepoint around the policy's writeback, for the flush latency: 1 where it
    /// begins, 0 where it ends. An own step.
    TraceWriteback,
    /// `oracle_update(kvm)`: writes the cheapest set of pCPUs whose flush scope covers every dirty line of the VM
    /// into the global cpumask `oracle_cpus`, in no time. No kernel can; it is the floor for comparisons.
    OracleUpdate,
    /// `sev_get_asid(kvm)` where a text sets ASIDs; elsewhere it is a constant.
    GetAsid,
    /// `sev_set_asid(kvm, asid)`.
    SetAsid,
    /// `move_pages_owner(src, dst)`: all pages of one VM belong to another from here on.
    MovePages,
    /// `user_reuse_page(page)`: the VMM itself uses the memory from here on.
    UserReuse,
    /// `vcpu_thread_join(vcpu)`: waits until the vCPU's thread has ended.
    JoinVcpu,
    /// `smp_mb()`: waits until every store of the pCPU is seen by all, and is an own step then. Only where stores can
    /// be unseen (TSO): compilers leave it out elsewhere.
    Fence,
    /// `kzalloc(sizeof(struct ...), gfp)`: arguments are the variable that says which objects are there, how many
    /// there are, and the flags; returns the object, or null if there is no memory, which is a choice.
    AllocObject,
    /// `kfree(object)`: arguments are the variable that says which objects are there, and the object.
    FreeObject,
    /// `kvm_arch_vcpu_free(vcpu)`: the vCPU's structure is freed.
    FreeVcpu,
    /// `lockdep_assert_held(lock)` and its kin: arguments are the variable, its instance, its word, and what to look
    /// for: 0 any hold, 1 for writing, 2 for reading, 3 none of this context's. An own step.
    LockHeld,
    /// `WARN_ON(condition)`, and what the compiler finds out by itself: reports what argument 1 says if argument 0 is not 0
    /// (`svm_lang::Warning`). An own step.
    Warn,
    /// `rmp_make_private(page, kvm)`: RMPUPDATE; returns 0 or an error.
    RmpMakePrivate,
    /// `rmp_make_shared(page)`: RMPUPDATE; returns 0.
    RmpMakeShared,
    /// `rmp_assigned(page)`.
    RmpAssigned,
    /// `psp_write(page, kvm)`: the PSP writes the page under the VM's key, past the caches.
    PspWrite,
    /// `psp_read(page, kvm)`.
    PspRead,
    /// `vm_page_flush(kvm, page)`: the VM_PAGE_FLUSH MSR; returns 0, or not if the address is not mapped.
    VmPageFlush,
    /// `invd()`: this pCPU's caches lose what they hold.
    Invd,
    /// `guest_evict(page)`, in a guest's program: it touches the page so that the host's lines of it are evicted.
    GuestEvict,
    /// A command of the firmware; arguments are the VM, the ASID and the pCPU. Returns 0 or `SEV_RET_*`.
    Firmware(Command),
}

impl Prim {
    /// Whether it waits until every store of the pCPU is seen by all: what others could see of it would come before
    /// them else. Those that only read, or touch nothing but the pCPU's own, do not.
    #[must_use]
    pub const fn orders(self) -> bool {
        !self.is_own()
            && !matches!(
                self,
                Prim::VmRun
                    | Prim::GuestRead
                    | Prim::GuestWrite
                    | Prim::GuestReadShared
                    | Prim::GuestWriteShared
                    | Prim::VcpuFlushTlb
                    | Prim::UserPtePresent
                    | Prim::PageMapped
                    | Prim::MaskAvailable
                    | Prim::HostRead
                    | Prim::FlushShared
                    | Prim::FlushEnd
                    | Prim::WaitCalls
                    | Prim::OracleUpdate
            )
    }

    /// Whether nobody else can see the primitive, so that it costs no step.
    #[must_use]
    pub const fn is_own(self) -> bool {
        matches!(
            self,
            Prim::FlushBegin
                | Prim::SetLoaded
                | Prim::FaultPage
                | Prim::MightSleep
                | Prim::NonBlock
                | Prim::IrqsDisabled
                | Prim::InAtomic
                | Prim::InInterrupt
                | Prim::TraceWriteback
                | Prim::Warn
                | Prim::LockHeld
        )
    }
}

/// One operation of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Own: `dst = rhs`.
    Set {
        /// Register written.
        dst: Reg,
        /// What it gets.
        rhs: Expr,
    },
    /// Own: sets or clears a bit of the local mask in registers `base..base + words`.
    MaskPut {
        /// First register.
        base: Reg,
        /// Registers.
        words: u8,
        /// The pCPU.
        bit: Operand,
        /// 0 clears, anything else sets.
        on: Operand,
    },
    /// Own: go on elsewhere.
    Jump(Pc),
    /// Own: go to `then` if the operand is not 0, else to `otherwise`.
    Branch {
        /// The condition.
        cond: Operand,
        /// Where to go if it is not 0.
        then: Pc,
        /// Where to go if it is 0.
        otherwise: Pc,
    },
    /// Own: interrupts or preemption on or off; the context rests before one that turns off, and behind it if it must
    /// wait there.
    Window(Window),
    /// Something that may go more than one way; the platform's chooser decides. Own otherwise.
    Choose {
        /// Register for the answer, `0..options`.
        dst: Reg,
        /// How many ways, at least 1.
        options: u8,
    },
    /// Picks any bit of a local mask (the chooser decides which); own otherwise. The mask must not be empty.
    ChooseBit {
        /// Register for the bit.
        dst: Reg,
        /// First register of the mask.
        base: Reg,
        /// Registers of the mask.
        words: u8,
    },
    /// One step: `dst = place`.
    Load {
        /// Register written.
        dst: Reg,
        /// What is read.
        place: Place,
    },
    /// One step: `place = src`.
    Store {
        /// What is written.
        place: Place,
        /// The value, wrapped into the variable's domain.
        src: Operand,
    },
    /// One step: read, compute, write, indivisibly; `dst` gets the old value.
    Rmw {
        /// Register for the old value.
        dst: Reg,
        /// What is changed.
        place: Place,
        /// How.
        op: RmwOp,
        /// Its operand.
        src: Operand,
        /// What [`RmwOp::CmpXchg`] expects; else unused.
        expected: Operand,
    },
    /// One step, blocked while somebody else's hold excludes it.
    Lock {
        /// Kind of lock.
        kind: Lock,
        /// Where it is.
        place: Place,
    },
    /// One step.
    Unlock {
        /// Kind of lock.
        kind: Lock,
        /// Where it is.
        place: Place,
    },
    /// One step of the platform's (or an own one, see [`Prim::is_own`]).
    Prim {
        /// Which.
        prim: Prim,
        /// Register for its result.
        dst: Reg,
        /// Its arguments; unused ones are `Const(0)`.
        args: [Operand; 4],
    },
    /// The context has ended.
    Halt,
}

impl Op {
    /// Whether it is a store that others may see later.
    #[must_use]
    pub const fn is_plain_store(self) -> bool {
        if let Op::Unlock { kind, .. } = self {
            kind.given_plainly()
        } else {
            matches!(self, Op::Store { .. })
        }
    }

    /// Whether executing the operation uses up the step.
    #[must_use]
    pub const fn is_shared(self) -> bool {
        match self {
            Op::Load { .. } | Op::Store { .. } | Op::Rmw { .. } | Op::Lock { .. } | Op::Unlock { .. } => true,
            Op::Prim { prim, .. } => !prim.is_own(),
            Op::Set { .. }
            | Op::MaskPut { .. }
            | Op::Jump(_)
            | Op::Branch { .. }
            | Op::Window(_)
            | Op::Choose { .. }
            | Op::ChooseBit { .. }
            | Op::Halt => false,
        }
    }

    /// Whether a context that has used up its step rests here.
    #[must_use]
    pub const fn is_rest(self) -> bool {
        match self {
            Op::Choose { .. } | Op::ChooseBit { .. } | Op::Halt => true,
            Op::Window(w) => w.closes(),
            Op::Set { .. }
            | Op::MaskPut { .. }
            | Op::Jump(_)
            | Op::Branch { .. }
            | Op::Load { .. }
            | Op::Store { .. }
            | Op::Rmw { .. }
            | Op::Lock { .. }
            | Op::Unlock { .. }
            | Op::Prim { .. } => self.is_shared(),
        }
    }
}
