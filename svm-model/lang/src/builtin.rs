//! Built-in calls: what each takes, gives, costs, reports, and how it is lowered.
//!
//! The section on built-in calls of `docs/LANGUAGE.md` is generated from the table.

mod table;

pub(crate) use table::TABLE;

use svm_policy::{Lock, Prim, RmwOp, Scope, Shared, Window};

use crate::ast::LockType;

/// What an argument must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Par {
    Number,
    Bool,
    Cpu,
    Vcpu,
    Vm,
    Page,
    Opaque,
    /// Whatever the variable at hand can hold.
    Value,
    Func,
    /// Any mask; it is read only.
    Mask,
    /// A mask that can be allocated.
    MaskVar,
    /// The address of a mask that can be allocated.
    MaskVarAddress,
    /// Any mask but a constant one.
    MaskOut,
    /// A mask that is a local variable.
    LocalMask,
    /// A local mask, or `NULL` for an empty one.
    LocalMaskOrNull,
    /// A variable or field.
    Place,
    /// The address of a shared number.
    Address,
    /// The address of a local number.
    LocalAddress,
    /// The name of a `DEFINE_PER_CPU` variable.
    PerCpu,
    /// The name of a `DEFINE_PER_ASID` variable.
    PerAsid,
    Lock(LockType),
    /// A lock of any kind.
    AnyLock,
    /// `sizeof(struct name)` of a declared structure.
    Size,
    /// An object of a declared structure.
    Object,
    /// A local variable that keeps whether interrupts were off.
    Flags,
    /// A constant from 1 to 255.
    Options,
}

impl Par {
    /// How a signature spells it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Par::Number => "long n",
            Par::Bool => "bool b",
            Par::Cpu => "int cpu",
            Par::Vcpu => "struct kvm_vcpu *vcpu",
            Par::Vm => "struct kvm *kvm",
            Par::Page => "struct page *page",
            Par::Opaque => "void *info",
            Par::Value => "value",
            Par::Func => "smp_call_func_t fn",
            Par::Mask => "const struct cpumask *mask",
            Par::MaskVar => "cpumask_var_t mask",
            Par::MaskVarAddress => "cpumask_var_t *mask",
            Par::MaskOut => "struct cpumask *mask",
            Par::LocalMask => "struct cpumask *local",
            Par::LocalMaskOrNull => "struct cpumask *local-or-NULL",
            Par::Place => "variable",
            Par::Address => "&variable",
            Par::LocalAddress => "&local",
            Par::PerCpu => "per-CPU variable",
            Par::PerAsid => "per-ASID variable",
            Par::Lock(LockType::Mutex) => "struct mutex *lock",
            Par::Lock(LockType::Spin) => "spinlock_t *lock",
            Par::Lock(LockType::Rwlock) => "rwlock_t *lock",
            Par::Lock(LockType::Rwsem) => "struct rw_semaphore *sem",
            Par::Lock(LockType::Completion) => "struct completion *x",
            Par::AnyLock => "&lock",
            Par::Size => "sizeof(struct name)",
            Par::Object => "struct name *object",
            Par::Flags => "flags",
            Par::Options => "constant n",
        }
    }
}

/// What a call gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gives {
    Nothing,
    Bool,
    Number,
    Cpu,
    Page,
    Object,
    Mask,
    /// A small number: see [`crate::EXIT_NPF`].
    Reason,
    /// What its first argument holds.
    Same,
}

impl Gives {
    /// How a signature spells it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Gives::Nothing => "void",
            Gives::Bool => "bool",
            Gives::Number | Gives::Cpu | Gives::Reason => "int",
            Gives::Page => "struct page *",
            Gives::Object => "struct name *",
            Gives::Mask => "const struct cpumask *",
            Gives::Same => "typeof(variable)",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bit {
    Set,
    Clear,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Combine {
    Or,
    And,
    AndNot,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Compare {
    Equal,
    Subset,
    Intersects,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sum {
    Nothing,
    Old,
    New,
    NewIsZero,
}

/// What CPUID says of the part; a constant of the model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Feature {
    SmeCoherent,
    Wbnoinvd,
}

/// What a lock does to interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Irqs {
    /// Nothing.
    Keep,
    /// Off while it is held, on afterwards.
    Off,
    /// Off while it is held, as before afterwards: the call's last argument keeps that.
    Save,
}

/// How a call is lowered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    MaskBit(Bit),
    MaskBitPlain(Bit),
    MaskTest,
    MaskCopy,
    MaskFill(bool),
    MaskCombine(Combine),
    MaskComplement,
    MaskCompare(Compare),
    MaskEmpty,
    MaskWeight,
    MaskFirst,
    MaskNext,
    MaskFirstAnd,
    MaskNextAnd,
    MaskAny,
    MaskXchg,
    /// Allocates a mask; `true`: its bits are whatever they were.
    Zalloc(bool),
    Kzalloc,
    Kfree,
    LockHeld(i64),
    /// Adds to a reference count, which is not to be (or become) 0: the number, and the least old value that is fine;
    /// `true` gives whether 0 is left.
    Refcount(i64, i64, bool),
    PerCpuMath(RmwOp, i64, Sum),
    PerCpuXchg,
    PerCpuCmpXchg,
    MaskAnyAnd,
    /// Frees a mask, or asks whether it is there.
    OfMaskVar(Prim),
    CpuOnline,
    NumOnline,
    Read,
    Write,
    /// A store that all see before what follows.
    StoreMb,
    /// Changes by its operand (or 1 if it takes none) times the sign.
    Math(RmwOp, i64, Sum),
    /// Adds its second argument unless its third is there; without them, 1 and 0.
    AddUnless,
    Xchg,
    CmpXchg,
    TryCmpXchg,
    Bit(Bit),
    BitPlain(Bit),
    BitTest,
    Barrier,
    /// CLFLUSHOPT or CLWB of a page: done by the next `sfence()` of the block, for all that it may do before caches may
    /// do on their own.
    Weak(Prim),
    /// `sfence()`.
    StoreFence,
    /// `smp_mb()`: an operation where stores are buffered.
    Fence,
    /// Reports its condition if it holds, and gives it.
    Warn,
    BuildBug,
    Lock(Lock, Irqs),
    Unlock(Lock, Irqs),
    TryLock(Lock),
    /// Takes a mutex, unless a signal comes.
    LockKillable,
    IsLocked,
    /// Reports interrupts that are not off (`true`) or not on.
    AssertIrqs(bool),
    /// `1 << n`.
    NumberOfBit,
    /// A lock is free from the start.
    LockInit,
    /// A completion has nothing done.
    Reinit,
    IrqSave,
    IrqRestore,
    /// `in_atomic() || irqs_disabled()`, negated.
    Preemptible,
    Windows(&'static [Window]),
    GetCpu,
    ThisCpu,
    /// `true`: with preemption off around it, as one step.
    PerCpuRead(bool),
    PerCpuWrite(bool),
    /// An instance, which can be written too.
    Per(Scope),
    AsidOf,
    VmType,
    /// What CPUID says of the part.
    Feature(Feature),
    Vmsa,
    Siblings(Shared),
    MaskOf,
    SetOnline,
    AnyOf,
    Maybe,
    Likely,
    Prim(Prim),
    NonBlock(i64),
    Flush(i64),
    SendCall,
    WaitCalls,
}

/// The groups of the table, in the order of the documentation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Group {
    Masks,
    Memory,
    Locks,
    Cpu,
    Choice,
    Flush,
    Ipi,
    Guest,
    Pages,
    Firmware,
}

impl Group {
    pub(crate) const ALL: [Group; 10] = [
        Group::Masks,
        Group::Memory,
        Group::Locks,
        Group::Cpu,
        Group::Choice,
        Group::Flush,
        Group::Ipi,
        Group::Guest,
        Group::Pages,
        Group::Firmware,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Group::Masks => "Masks of pCPUs",
            Group::Memory => "Memory",
            Group::Locks => "Locks",
            Group::Cpu => "Interrupts, preemption, the pCPU at hand",
            Group::Choice => "Choice",
            Group::Flush => "Cache flushes",
            Group::Ipi => "Calls to other pCPUs",
            Group::Guest => "Guests and vCPUs",
            Group::Pages => "Pages",
            Group::Firmware => "The firmware",
        }
    }
}

/// One built-in call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Builtin {
    pub(crate) group: Group,
    pub(crate) name: &'static str,
    pub(crate) pars: &'static [Par],
    pub(crate) gives: Gives,
    pub(crate) act: Act,
    pub(crate) meaning: &'static str,
    pub(crate) steps: &'static str,
    pub(crate) waits: &'static str,
    pub(crate) reports: &'static str,
    /// Whether only litmus texts may call it.
    pub(crate) litmus: bool,
}

impl Builtin {
    /// `int name(int cpu, ...)`.
    pub(crate) fn signature(&self) -> String {
        let pars: Vec<_> = self.pars.iter().map(|p| p.text()).collect();
        let gives = self.gives.text();
        let space = if gives.ends_with('*') { "" } else { " " };
        let pars = if pars.is_empty() { "void".to_owned() } else { pars.join(", ") };
        format!("{gives}{space}{}({pars})", self.name)
    }
}

/// The built-in call of this name.
pub(crate) fn find(name: &str) -> Option<&'static Builtin> {
    TABLE.iter().find(|b| b.name == name)
}
