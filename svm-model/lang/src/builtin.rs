//! The table of built-in calls: what each takes, gives, costs, and how it is lowered.
//!
//! The section on built-in calls of `docs/LANGUAGE.md` is generated from this table.

use svm_policy::{Lock, Prim, Window};

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
    /// The name of a `DEFINE_PER_CPU` variable.
    PerCpu,
    Mutex,
    Spin,
    Rwlock,
    /// A local variable that would keep the interrupt flags.
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
            Par::MaskOut => "struct cpumask *mask",
            Par::LocalMask => "struct cpumask *local",
            Par::LocalMaskOrNull => "struct cpumask *local-or-NULL",
            Par::Place => "variable",
            Par::Address => "&variable",
            Par::PerCpu => "per-CPU variable",
            Par::Mutex => "struct mutex *lock",
            Par::Spin => "spinlock_t *lock",
            Par::Rwlock => "rwlock_t *lock",
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
    /// The new value is not asked for.
    Nothing,
    New,
    NewIsZero,
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
    MaskCompare(Compare),
    MaskEmpty,
    MaskWeight,
    MaskFirst,
    MaskNext,
    MaskAny,
    MaskXchg,
    CpuOnline,
    Read,
    Write,
    /// Adds its operand (or 1 if it takes none) times the sign.
    Add(i64, Sum),
    Xchg,
    CmpXchg,
    Bit(Bit),
    BitTest,
    Barrier,
    Lock {
        kind: Lock,
        take: bool,
        irq: bool,
    },
    Windows(&'static [Window]),
    GetCpu,
    ThisCpu,
    /// `true`: with preemption off around it, as one step.
    PerCpuRead(bool),
    PerCpuWrite(bool),
    PerCpu,
    AnyOf,
    Maybe,
    Likely,
    Prim(Prim),
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
}

impl Group {
    pub(crate) const ALL: [Group; 9] = [
        Group::Masks,
        Group::Memory,
        Group::Locks,
        Group::Cpu,
        Group::Choice,
        Group::Flush,
        Group::Ipi,
        Group::Guest,
        Group::Pages,
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

const fn row(
    group: Group,
    name: &'static str,
    pars: &'static [Par],
    gives: Gives,
    act: Act,
    meaning: &'static str,
    steps: &'static str,
) -> Builtin {
    Builtin { group, name, pars, gives, act, meaning, steps, waits: "", litmus: false }
}

const fn waits(row: Builtin, waits: &'static str) -> Builtin {
    Builtin { waits, ..row }
}

const fn litmus(row: Builtin) -> Builtin {
    Builtin { litmus: true, ..row }
}

const NONE: &str = "none";
const ONE: &str = "1";
const WORDS: &str = "1 a word of each shared mask";

#[rustfmt::skip]
pub(crate) const TABLE: &[Builtin] = {
    use Group as G;
    use Gives as R;
    use Par as P;
    use Window as W;
    &[
    row(G::Masks, "cpumask_set_cpu", &[P::Cpu, P::MaskOut], R::Nothing, Act::MaskBit(Bit::Set), "sets the bit, atomically", ONE),
    row(G::Masks, "cpumask_clear_cpu", &[P::Cpu, P::MaskOut], R::Nothing, Act::MaskBit(Bit::Clear), "clears the bit, atomically", ONE),
    row(G::Masks, "cpumask_test_and_set_cpu", &[P::Cpu, P::MaskOut], R::Bool, Act::MaskBit(Bit::Set), "sets the bit, atomically; gives what it was", ONE),
    row(G::Masks, "cpumask_test_and_clear_cpu", &[P::Cpu, P::MaskOut], R::Bool, Act::MaskBit(Bit::Clear), "clears the bit, atomically; gives what it was", ONE),
    row(G::Masks, "cpumask_test_cpu", &[P::Cpu, P::Mask], R::Bool, Act::MaskTest, "whether the bit is set", ONE),
    row(G::Masks, "__cpumask_set_cpu", &[P::Cpu, P::MaskOut], R::Nothing, Act::MaskBitPlain(Bit::Set), "sets the bit by a load and a store of its word: marks made between are lost", "2"),
    row(G::Masks, "__cpumask_clear_cpu", &[P::Cpu, P::MaskOut], R::Nothing, Act::MaskBitPlain(Bit::Clear), "clears the bit by a load and a store of its word", "2"),
    row(G::Masks, "cpumask_copy", &[P::MaskOut, P::Mask], R::Nothing, Act::MaskCopy, "destination = source, word by word", WORDS),
    row(G::Masks, "cpumask_clear", &[P::MaskOut], R::Nothing, Act::MaskFill(false), "empties the mask, word by word", WORDS),
    row(G::Masks, "cpumask_setall", &[P::MaskOut], R::Nothing, Act::MaskFill(true), "sets every pCPU's bit, word by word", WORDS),
    row(G::Masks, "cpumask_or", &[P::MaskOut, P::Mask, P::Mask], R::Nothing, Act::MaskCombine(Combine::Or), "destination = first \\| second, word by word", WORDS),
    row(G::Masks, "cpumask_and", &[P::MaskOut, P::Mask, P::Mask], R::Bool, Act::MaskCombine(Combine::And), "destination = first & second, word by word; gives whether a bit is set in it", WORDS),
    row(G::Masks, "cpumask_andnot", &[P::MaskOut, P::Mask, P::Mask], R::Bool, Act::MaskCombine(Combine::AndNot), "destination = first & ~second, word by word; gives whether a bit is set in it", WORDS),
    row(G::Masks, "cpumask_equal", &[P::Mask, P::Mask], R::Bool, Act::MaskCompare(Compare::Equal), "whether the masks are equal; stops at the first word that differs", WORDS),
    row(G::Masks, "cpumask_subset", &[P::Mask, P::Mask], R::Bool, Act::MaskCompare(Compare::Subset), "whether every bit of the first is set in the second; stops at the first word that has one more", WORDS),
    row(G::Masks, "cpumask_intersects", &[P::Mask, P::Mask], R::Bool, Act::MaskCompare(Compare::Intersects), "whether a bit is set in both; stops at the first word with one", WORDS),
    row(G::Masks, "cpumask_empty", &[P::Mask], R::Bool, Act::MaskEmpty, "whether no bit is set; stops at the first word with one", WORDS),
    row(G::Masks, "cpumask_weight", &[P::Mask], R::Cpu, Act::MaskWeight, "number of bits set", WORDS),
    row(G::Masks, "cpumask_first", &[P::Mask], R::Cpu, Act::MaskFirst, "the lowest bit set, `nr_cpu_ids` if none; stops at the first word with one", WORDS),
    row(G::Masks, "cpumask_next", &[P::Number, P::Mask], R::Cpu, Act::MaskNext, "the lowest bit set above the number, `nr_cpu_ids` if none; stops at the first word with one", WORDS),
    row(G::Masks, "cpumask_any", &[P::LocalMask], R::Cpu, Act::MaskAny, "any bit that is set: a choice; the mask must not be empty", "none, but the context rests before it"),
    row(G::Masks, "cpumask_xchg", &[P::LocalMask, P::MaskOut, P::LocalMaskOrNull], R::Nothing, Act::MaskXchg, "local = shared and shared = third (empty if `NULL`), each word by one `xchg`", WORDS),
    row(G::Masks, "cpu_online", &[P::Cpu], R::Bool, Act::CpuOnline, "`cpumask_test_cpu(cpu, cpu_online_mask)`", "1 if a text declares `cpu_online_mask`"),

    row(G::Memory, "READ_ONCE", &[P::Place], R::Same, Act::Read, "the value", ONE),
    row(G::Memory, "WRITE_ONCE", &[P::Place, P::Value], R::Nothing, Act::Write, "writes the value", ONE),
    row(G::Memory, "smp_load_acquire", &[P::Address], R::Same, Act::Read, "the value", ONE),
    row(G::Memory, "smp_store_release", &[P::Address, P::Value], R::Nothing, Act::Write, "writes the value", ONE),
    row(G::Memory, "atomic_read", &[P::Address], R::Same, Act::Read, "the value", ONE),
    row(G::Memory, "atomic_set", &[P::Address, P::Number], R::Nothing, Act::Write, "writes the value", ONE),
    row(G::Memory, "atomic_inc", &[P::Address], R::Nothing, Act::Add(1, Sum::Nothing), "adds 1", ONE),
    row(G::Memory, "atomic_dec", &[P::Address], R::Nothing, Act::Add(-1, Sum::Nothing), "subtracts 1", ONE),
    row(G::Memory, "atomic_add", &[P::Number, P::Address], R::Nothing, Act::Add(1, Sum::Nothing), "adds the number", ONE),
    row(G::Memory, "atomic_sub", &[P::Number, P::Address], R::Nothing, Act::Add(-1, Sum::Nothing), "subtracts the number", ONE),
    row(G::Memory, "atomic_inc_return", &[P::Address], R::Same, Act::Add(1, Sum::New), "adds 1; gives the new value", ONE),
    row(G::Memory, "atomic_dec_return", &[P::Address], R::Same, Act::Add(-1, Sum::New), "subtracts 1; gives the new value", ONE),
    row(G::Memory, "atomic_dec_and_test", &[P::Address], R::Bool, Act::Add(-1, Sum::NewIsZero), "subtracts 1; gives whether 0 is left", ONE),
    row(G::Memory, "xchg", &[P::Address, P::Value], R::Same, Act::Xchg, "writes the value; gives the old one", ONE),
    row(G::Memory, "cmpxchg", &[P::Address, P::Value, P::Value], R::Same, Act::CmpXchg, "writes the second value if the first is there; gives what was there", ONE),
    row(G::Memory, "set_bit", &[P::Number, P::Address], R::Nothing, Act::Bit(Bit::Set), "sets the bit of that number", ONE),
    row(G::Memory, "clear_bit", &[P::Number, P::Address], R::Nothing, Act::Bit(Bit::Clear), "clears the bit", ONE),
    row(G::Memory, "test_and_set_bit", &[P::Number, P::Address], R::Bool, Act::Bit(Bit::Set), "sets the bit; gives what it was", ONE),
    row(G::Memory, "test_and_clear_bit", &[P::Number, P::Address], R::Bool, Act::Bit(Bit::Clear), "clears the bit; gives what it was", ONE),
    row(G::Memory, "test_bit", &[P::Number, P::Address], R::Bool, Act::BitTest, "whether the bit is set", ONE),
    row(G::Memory, "smp_mb", &[], R::Nothing, Act::Barrier, "nothing: memory is sequentially consistent", NONE),
    row(G::Memory, "smp_rmb", &[], R::Nothing, Act::Barrier, "nothing, as `smp_mb`", NONE),
    row(G::Memory, "smp_wmb", &[], R::Nothing, Act::Barrier, "nothing, as `smp_mb`", NONE),
    row(G::Memory, "smp_mb__before_atomic", &[], R::Nothing, Act::Barrier, "nothing, as `smp_mb`", NONE),
    row(G::Memory, "smp_mb__after_atomic", &[], R::Nothing, Act::Barrier, "nothing, as `smp_mb`", NONE),
    row(G::Memory, "barrier", &[], R::Nothing, Act::Barrier, "nothing, as `smp_mb`", NONE),
    row(G::Memory, "likely", &[P::Value], R::Same, Act::Likely, "its argument", NONE),
    row(G::Memory, "unlikely", &[P::Value], R::Same, Act::Likely, "its argument", NONE),

    waits(row(G::Locks, "mutex_lock", &[P::Mutex], R::Nothing, Act::Lock { kind: Lock::Mutex, take: true, irq: false }, "takes the mutex; `guard(mutex)(&m);` does, and gives it back at the end of the scope", ONE), "the mutex is held"),
    row(G::Locks, "mutex_unlock", &[P::Mutex], R::Nothing, Act::Lock { kind: Lock::Mutex, take: false, irq: false }, "gives the mutex back", ONE),
    waits(row(G::Locks, "spin_lock", &[P::Spin], R::Nothing, Act::Lock { kind: Lock::Spin, take: true, irq: false }, "preemption off, takes the lock", ONE), "the lock is held"),
    row(G::Locks, "spin_unlock", &[P::Spin], R::Nothing, Act::Lock { kind: Lock::Spin, take: false, irq: false }, "gives the lock back, preemption on", ONE),
    waits(row(G::Locks, "spin_lock_irq", &[P::Spin], R::Nothing, Act::Lock { kind: Lock::Spin, take: true, irq: true }, "interrupts and preemption off, takes the lock", ONE), "the lock is held"),
    row(G::Locks, "spin_unlock_irq", &[P::Spin], R::Nothing, Act::Lock { kind: Lock::Spin, take: false, irq: true }, "gives the lock back, interrupts and preemption on", ONE),
    waits(row(G::Locks, "spin_lock_irqsave", &[P::Spin, P::Flags], R::Nothing, Act::Lock { kind: Lock::Spin, take: true, irq: true }, "as `spin_lock_irq`; the flags are not used, interrupts-off nests by count", ONE), "the lock is held"),
    row(G::Locks, "spin_unlock_irqrestore", &[P::Spin, P::Flags], R::Nothing, Act::Lock { kind: Lock::Spin, take: false, irq: true }, "as `spin_unlock_irq`", ONE),
    waits(row(G::Locks, "read_lock", &[P::Rwlock], R::Nothing, Act::Lock { kind: Lock::Read, take: true, irq: false }, "preemption off, takes the lock for reading", ONE), "a writer holds the lock"),
    row(G::Locks, "read_unlock", &[P::Rwlock], R::Nothing, Act::Lock { kind: Lock::Read, take: false, irq: false }, "gives the lock back, preemption on", ONE),
    waits(row(G::Locks, "write_lock", &[P::Rwlock], R::Nothing, Act::Lock { kind: Lock::Write, take: true, irq: false }, "preemption off, takes the lock for writing", ONE), "anybody holds the lock"),
    row(G::Locks, "write_unlock", &[P::Rwlock], R::Nothing, Act::Lock { kind: Lock::Write, take: false, irq: false }, "gives the lock back, preemption on", ONE),

    row(G::Cpu, "local_irq_disable", &[], R::Nothing, Act::Windows(&[W::IrqDisable]), "interrupts wait", "none, but the context rests before it"),
    row(G::Cpu, "local_irq_enable", &[], R::Nothing, Act::Windows(&[W::IrqEnable]), "interrupts are taken again", NONE),
    row(G::Cpu, "local_irq_save", &[P::Flags], R::Nothing, Act::Windows(&[W::IrqDisable]), "as `local_irq_disable`; the flags are not used, interrupts-off nests by count", "none, but the context rests before it"),
    row(G::Cpu, "local_irq_restore", &[P::Flags], R::Nothing, Act::Windows(&[W::IrqEnable]), "as `local_irq_enable`", NONE),
    row(G::Cpu, "preempt_disable", &[], R::Nothing, Act::Windows(&[W::PreemptDisable]), "the task stays on its pCPU, and no other runs there", "none, but the context rests before it"),
    row(G::Cpu, "preempt_enable", &[], R::Nothing, Act::Windows(&[W::PreemptEnable]), "other tasks may run again", NONE),
    row(G::Cpu, "get_cpu", &[], R::Cpu, Act::GetCpu, "`preempt_disable()`; gives the pCPU", "none, but the context rests before it"),
    row(G::Cpu, "put_cpu", &[], R::Nothing, Act::Windows(&[W::PreemptEnable]), "`preempt_enable()`", NONE),
    row(G::Cpu, "smp_processor_id", &[], R::Cpu, Act::ThisCpu, "the pCPU this runs on", NONE),
    row(G::Cpu, "raw_smp_processor_id", &[], R::Cpu, Act::ThisCpu, "the pCPU this runs on", NONE),
    row(G::Cpu, "this_cpu_read", &[P::PerCpu], R::Same, Act::PerCpuRead(true), "the pCPU's own instance; nobody moves the task meanwhile", ONE),
    row(G::Cpu, "this_cpu_write", &[P::PerCpu, P::Value], R::Nothing, Act::PerCpuWrite(true), "writes the pCPU's own instance; nobody moves the task meanwhile", ONE),
    row(G::Cpu, "__this_cpu_read", &[P::PerCpu], R::Same, Act::PerCpuRead(false), "the instance of the pCPU that the task was on when it came here", ONE),
    row(G::Cpu, "__this_cpu_write", &[P::PerCpu, P::Value], R::Nothing, Act::PerCpuWrite(false), "writes the instance of the pCPU that the task was on when it came here", ONE),
    row(G::Cpu, "per_cpu", &[P::PerCpu, P::Cpu], R::Same, Act::PerCpu, "a pCPU's instance: can be read, written, and `&per_cpu(...)` taken", ONE),

    row(G::Choice, "any_of", &[P::Options], R::Number, Act::AnyOf, "any number from 0 up to, not including, n", "none, but the context rests before it"),
    row(G::Choice, "maybe", &[], R::Bool, Act::Maybe, "false or true", "none, but the context rests before it"),

    waits(row(G::Flush, "wbinvd", &[], R::Nothing, Act::Flush(0), "writes back and invalidates this pCPU's caches: begin (own), private caches, L3, end", "3"), "at its end: write-backs are in flight"),
    waits(row(G::Flush, "wbnoinvd", &[], R::Nothing, Act::Flush(1), "as `wbinvd`, and the lines stay valid", "3"), "at its end: write-backs are in flight"),
    row(G::Flush, "trace_sev_writeback", &[P::Bool], R::Nothing, Act::Prim(Prim::TraceWriteback), "a tracepoint around a policy's writeback, for the flush latency: true where it begins, false where it ends", NONE),
    row(G::Flush, "oracle_update", &[P::Vm], R::Nothing, Act::Prim(Prim::OracleUpdate), "writes the cheapest set of pCPUs whose flush scope covers every dirty line of the VM into the global mask `oracle_cpus`, in no time: no kernel can", ONE),
    row(G::Flush, "clflush_page", &[P::Page], R::Nothing, Act::Prim(Prim::ClflushPage), "CLFLUSH of each line of the page through the host's mapping", ONE),

    waits(row(G::Ipi, "call_single_queue", &[P::Cpu, P::Func, P::Opaque, P::Bool], R::Nothing, Act::SendCall, "queues `fn(info)` for the pCPU and sends the IPI; the last argument says whether the sender will wait", ONE), "an earlier call of this sender to that pCPU has not been taken"),
    waits(row(G::Ipi, "csd_lock_wait_mask", &[P::LocalMask], R::Nothing, Act::WaitCalls, "until every call that this context sent to the pCPUs of the mask is done", ONE), "one of these calls is not done"),

    row(G::Guest, "vmrun", &[P::Vcpu], R::Reason, Act::Prim(Prim::VmRun), "enters the guest, gives the exit's reason (2 + n: a nested page fault of page n); the context stays here while the guest runs", "1 to enter, each of the guest's, 1 to exit"),
    litmus(row(G::Guest, "guest_read", &[P::Page], R::Nothing, Act::Prim(Prim::GuestRead), "the guest reads its page", ONE)),
    litmus(row(G::Guest, "guest_write", &[P::Page], R::Nothing, Act::Prim(Prim::GuestWrite), "the guest writes its page", ONE)),
    row(G::Guest, "vcpu_flush_tlb", &[P::Vcpu], R::Nothing, Act::Prim(Prim::VcpuFlushTlb), "forgets every cached translation of the vCPU", ONE),
    row(G::Guest, "vcpu_fault_page", &[P::Number], R::Page, Act::Prim(Prim::FaultPage), "the page of the nested page fault that `vmrun` gave as its reason", NONE),
    row(G::Guest, "vcpu_sched_park", &[], R::Nothing, Act::Prim(Prim::SchedPark), "the last step of being scheduled out; the pCPU is free afterwards", ONE),
    row(G::Guest, "vcpu_set_loaded", &[P::Vcpu, P::Bool], R::Nothing, Act::Prim(Prim::SetLoaded), "registers or unregisters the preempt notifier", NONE),

    row(G::Pages, "zap_spte", &[P::Vm, P::Page], R::Bool, Act::Prim(Prim::ZapSpte), "clears the nested page table entry; gives whether it was present", ONE),
    row(G::Pages, "install_spte", &[P::Vm, P::Page], R::Nothing, Act::Prim(Prim::InstallSpte), "writes the nested page table entry", ONE),
    row(G::Pages, "user_pte_present", &[P::Page], R::Bool, Act::Prim(Prim::UserPtePresent), "whether the VMM's own mapping still has the page (`hva_to_pfn` succeeds)", ONE),
    row(G::Pages, "zap_user_pte", &[P::Page], R::Nothing, Act::Prim(Prim::ZapUserPte), "the mm core clears the VMM's own mapping", ONE),
    row(G::Pages, "free_page", &[P::Page], R::Nothing, Act::Prim(Prim::FreePage), "back to the allocator; anybody may own it next", ONE),
    row(G::Pages, "alloc_page", &[P::Page, P::Vm], R::Nothing, Act::Prim(Prim::AllocPage), "a freed page gets a new owner: a VM, or the host if `NULL`", ONE),
    row(G::Pages, "host_read", &[P::Page], R::Nothing, Act::Prim(Prim::HostRead), "reads the page through the host's C=0 mapping", ONE),
    row(G::Pages, "host_write", &[P::Page], R::Nothing, Act::Prim(Prim::HostWrite), "writes the page through the host's C=0 mapping", ONE),
    row(G::Pages, "dma_read", &[P::Page], R::Nothing, Act::Prim(Prim::DmaRead), "a device reads the page", ONE),
    row(G::Pages, "dma_write", &[P::Page], R::Nothing, Act::Prim(Prim::DmaWrite), "a device writes the page", ONE),
    ]
};
