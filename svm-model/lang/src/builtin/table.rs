//! The table of built-in calls.

use svm_policy::{Command as C, Lock, Prim, RmwOp, Scope, Shared, Window};

use super::{Act, Bit, Builtin, Combine, Compare, Feature, Gives, Group, Irqs, Par, Sum};
use crate::ast::LockType;

const fn row(
    group: Group,
    name: &'static str,
    pars: &'static [Par],
    gives: Gives,
    act: Act,
    meaning: &'static str,
    steps: &'static str,
) -> Builtin {
    Builtin { group, name, pars, gives, act, meaning, steps, waits: "", reports: "", litmus: false }
}

impl Builtin {
    /// What it waits for.
    const fn waits(self, waits: &'static str) -> Builtin {
        Builtin { waits, ..self }
    }

    /// The events that it can cause by itself.
    const fn reports(self, reports: &'static str) -> Builtin {
        Builtin { reports, ..self }
    }

    /// Only litmus texts may call it.
    const fn litmus(self) -> Builtin {
        Builtin { litmus: true, ..self }
    }
}

const VAIN: &str = "`deadlock` if this context has it, or the task that this handler interrupted";
const SLEEPS: &str =
    "`deadlock` as above; `sleep-in-atomic` if preemption or interrupts are off; `sleep-non-blockable`";
const SLEEPS_ONLY: &str = "`sleep-in-atomic` if preemption or interrupts are off; `sleep-non-blockable`";
const NOT_HELD: &str = "`tracking` if this context does not hold it";
const NO_READER: &str = "`tracking` if nobody holds it for reading";
const REFUSED: &str = "`firmware` if it is refused: what it gives is not 0";
const NO_CPU: &str = "`tracking` if there is no such pCPU";
const NOT_OFF: &str = "`tracking` if it is on";
const NONE: &str = "none";
const ONE: &str = "1";
const WORDS: &str = "1 a word of each shared mask";

#[rustfmt::skip]
pub(crate) const TABLE: &[Builtin] = {
    use Group as G;
    use Gives as R;
    use Par as P;
    use LockType as T;
    use Window as W;
    &[
    row(G::Masks, "cpumask_set_cpu", &[P::Cpu, P::MaskOut], R::Nothing, Act::MaskBit(Bit::Set), "sets the bit, atomically", ONE).reports(NO_CPU),
    row(G::Masks, "cpumask_clear_cpu", &[P::Cpu, P::MaskOut], R::Nothing, Act::MaskBit(Bit::Clear), "clears the bit, atomically", ONE).reports(NO_CPU),
    row(G::Masks, "cpumask_test_and_set_cpu", &[P::Cpu, P::MaskOut], R::Bool, Act::MaskBit(Bit::Set), "sets the bit, atomically; gives what it was", ONE).reports(NO_CPU),
    row(G::Masks, "cpumask_test_and_clear_cpu", &[P::Cpu, P::MaskOut], R::Bool, Act::MaskBit(Bit::Clear), "clears the bit, atomically; gives what it was", ONE).reports(NO_CPU),
    row(G::Masks, "cpumask_test_cpu", &[P::Cpu, P::Mask], R::Bool, Act::MaskTest, "whether the bit is set", ONE).reports(NO_CPU),
    row(G::Masks, "__cpumask_set_cpu", &[P::Cpu, P::MaskOut], R::Nothing, Act::MaskBitPlain(Bit::Set), "sets the bit by a load and a store of its word: marks made between are lost", "2").reports(NO_CPU),
    row(G::Masks, "__cpumask_clear_cpu", &[P::Cpu, P::MaskOut], R::Nothing, Act::MaskBitPlain(Bit::Clear), "clears the bit by a load and a store of its word", "2").reports(NO_CPU),
    row(G::Masks, "cpumask_copy", &[P::MaskOut, P::Mask], R::Nothing, Act::MaskCopy, "destination = source, word by word", WORDS),
    row(G::Masks, "cpumask_clear", &[P::MaskOut], R::Nothing, Act::MaskFill(false), "empties the mask, word by word", WORDS),
    row(G::Masks, "cpumask_setall", &[P::MaskOut], R::Nothing, Act::MaskFill(true), "sets every pCPU's bit, word by word", WORDS),
    row(G::Masks, "cpumask_or", &[P::MaskOut, P::Mask, P::Mask], R::Nothing, Act::MaskCombine(Combine::Or), "destination = first \\| second, word by word", WORDS),
    row(G::Masks, "cpumask_and", &[P::MaskOut, P::Mask, P::Mask], R::Bool, Act::MaskCombine(Combine::And), "destination = first & second, word by word; gives whether a bit is set in it", WORDS),
    row(G::Masks, "cpumask_andnot", &[P::MaskOut, P::Mask, P::Mask], R::Bool, Act::MaskCombine(Combine::AndNot), "destination = first & ~second, word by word; gives whether a bit is set in it", WORDS),
    row(G::Masks, "cpumask_complement", &[P::MaskOut, P::Mask], R::Nothing, Act::MaskComplement, "destination = every pCPU that is not in the source, word by word", WORDS),
    row(G::Masks, "cpumask_equal", &[P::Mask, P::Mask], R::Bool, Act::MaskCompare(Compare::Equal), "whether the masks are equal; stops at the first word that differs", WORDS),
    row(G::Masks, "cpumask_subset", &[P::Mask, P::Mask], R::Bool, Act::MaskCompare(Compare::Subset), "whether every bit of the first is set in the second; stops at the first word that has one more", WORDS),
    row(G::Masks, "cpumask_intersects", &[P::Mask, P::Mask], R::Bool, Act::MaskCompare(Compare::Intersects), "whether a bit is set in both; stops at the first word with one", WORDS),
    row(G::Masks, "cpumask_empty", &[P::Mask], R::Bool, Act::MaskEmpty, "whether no bit is set; stops at the first word with one", WORDS),
    row(G::Masks, "cpumask_weight", &[P::Mask], R::Cpu, Act::MaskWeight, "number of bits set", WORDS),
    row(G::Masks, "num_online_cpus", &[], R::Cpu, Act::NumOnline, "`cpumask_weight(cpu_online_mask)`", "1 a word of the mask if a text declares it"),
    row(G::Masks, "cpumask_first", &[P::Mask], R::Cpu, Act::MaskFirst, "the lowest bit set, `nr_cpu_ids` if none; stops at the first word with one", WORDS),
    row(G::Masks, "cpumask_next", &[P::Number, P::Mask], R::Cpu, Act::MaskNext, "the lowest bit set above the number, `nr_cpu_ids` if none; stops at the first word with one", WORDS),
    row(G::Masks, "cpumask_first_and", &[P::Mask, P::Mask], R::Cpu, Act::MaskFirstAnd, "the lowest bit set in both, `nr_cpu_ids` if none; stops at the first word with one", WORDS),
    row(G::Masks, "cpumask_next_and", &[P::Number, P::Mask, P::Mask], R::Cpu, Act::MaskNextAnd, "the lowest bit above the number set in both, `nr_cpu_ids` if none", WORDS),
    row(G::Masks, "cpumask_any", &[P::Mask], R::Cpu, Act::MaskAny, "any bit that is set: a choice; `nr_cpu_ids` if none", "1 a word of a shared mask; the context rests before the choice"),
    row(G::Masks, "cpumask_any_and", &[P::Mask, P::Mask], R::Cpu, Act::MaskAnyAnd, "any bit that is set in both: a choice; `nr_cpu_ids` if none", "1 a word of each shared mask; the context rests before the choice"),
    row(G::Masks, "cpumask_xchg", &[P::LocalMask, P::MaskOut, P::LocalMaskOrNull], R::Nothing, Act::MaskXchg, "local = shared and shared = third (empty if `NULL`), each word by one `xchg`", WORDS),
    row(G::Masks, "zalloc_cpumask_var", &[P::MaskVarAddress, P::Number], R::Bool, Act::Zalloc(false), "allocates the mask, empty; gives whether there was memory, which is a choice unless `no-alloc-failure` is assumed (if not, the mask is `NULL`)", ONE).reports("`tracking` if the mask was there, and so leaks; `sleep-in-atomic` with `GFP_KERNEL`; `sleep-non-blockable`"),
    row(G::Masks, "alloc_cpumask_var", &[P::MaskVarAddress, P::Number], R::Bool, Act::Zalloc(true), "as `zalloc_cpumask_var`, but nobody clears it: all bits clear or all set, a choice", ONE).reports("as `zalloc_cpumask_var`"),
    row(G::Masks, "zalloc_cpumask_var_node", &[P::MaskVarAddress, P::Number, P::Number], R::Bool, Act::Zalloc(false), "as `zalloc_cpumask_var`, on whichever node", ONE).reports("as `zalloc_cpumask_var`"),
    row(G::Masks, "alloc_cpumask_var_node", &[P::MaskVarAddress, P::Number, P::Number], R::Bool, Act::Zalloc(true), "as `alloc_cpumask_var`, on whichever node", ONE).reports("as `zalloc_cpumask_var`"),
    row(G::Masks, "free_cpumask_var", &[P::MaskVar], R::Nothing, Act::OfMaskVar(Prim::FreeMask), "frees the mask; nothing if it is `NULL`", ONE).reports("`tracking` if it was freed before"),
    row(G::Masks, "cpumask_available", &[P::MaskVar], R::Bool, Act::OfMaskVar(Prim::MaskAvailable), "whether the mask is not `NULL`; a freed one is not", ONE),
    row(G::Masks, "cpumask_of", &[P::Cpu], R::Mask, Act::MaskOf, "the mask of one pCPU", NONE).reports(NO_CPU),
    row(G::Masks, "cpu_llc_shared_mask", &[P::Cpu], R::Mask, Act::Siblings(Shared::Llc), "the pCPUs of its CCX", NONE),
    row(G::Masks, "topology_sibling_cpumask", &[P::Cpu], R::Mask, Act::Siblings(Shared::Core), "the threads of its core", NONE),
    row(G::Masks, "set_cpu_online", &[P::Cpu, P::Bool], R::Nothing, Act::SetOnline, "sets or clears the bit in `cpu_online_mask`, which a text declares", ONE),
    row(G::Masks, "cpu_online", &[P::Cpu], R::Bool, Act::CpuOnline, "`cpumask_test_cpu(cpu, cpu_online_mask)`", "1 if a text declares `cpu_online_mask`"),

    row(G::Memory, "READ_ONCE", &[P::Place], R::Same, Act::Read, "the value", ONE),
    row(G::Memory, "WRITE_ONCE", &[P::Place, P::Value], R::Nothing, Act::Write, "writes the value", ONE),
    row(G::Memory, "smp_load_acquire", &[P::Address], R::Same, Act::Read, "the value", ONE),
    row(G::Memory, "smp_store_release", &[P::Address, P::Value], R::Nothing, Act::Write, "writes the value", ONE),
    row(G::Memory, "smp_store_mb", &[P::Place, P::Value], R::Nothing, Act::StoreMb, "writes the value, and orders that before all that follows: x86 takes an `xchg` for it", ONE),
    row(G::Memory, "atomic_read", &[P::Address], R::Same, Act::Read, "the value", ONE),
    row(G::Memory, "atomic_set", &[P::Address, P::Number], R::Nothing, Act::Write, "writes the value", ONE),
    row(G::Memory, "atomic_inc", &[P::Address], R::Nothing, Act::Math(RmwOp::Add, 1, Sum::Nothing), "adds 1", ONE),
    row(G::Memory, "atomic_dec", &[P::Address], R::Nothing, Act::Math(RmwOp::Add, -1, Sum::Nothing), "subtracts 1", ONE),
    row(G::Memory, "atomic_add", &[P::Number, P::Address], R::Nothing, Act::Math(RmwOp::Add, 1, Sum::Nothing), "adds the number", ONE),
    row(G::Memory, "atomic_sub", &[P::Number, P::Address], R::Nothing, Act::Math(RmwOp::Add, -1, Sum::Nothing), "subtracts the number", ONE),
    row(G::Memory, "atomic_inc_return", &[P::Address], R::Same, Act::Math(RmwOp::Add, 1, Sum::New), "adds 1; gives the new value", ONE),
    row(G::Memory, "atomic_dec_return", &[P::Address], R::Same, Act::Math(RmwOp::Add, -1, Sum::New), "subtracts 1; gives the new value", ONE),
    row(G::Memory, "atomic_dec_and_test", &[P::Address], R::Bool, Act::Math(RmwOp::Add, -1, Sum::NewIsZero), "subtracts 1; gives whether 0 is left", ONE),
    row(G::Memory, "atomic_add_return", &[P::Number, P::Address], R::Same, Act::Math(RmwOp::Add, 1, Sum::New), "adds the number; gives the new value", ONE),
    row(G::Memory, "atomic_sub_return", &[P::Number, P::Address], R::Same, Act::Math(RmwOp::Add, -1, Sum::New), "subtracts the number; gives the new value", ONE),
    row(G::Memory, "atomic_sub_and_test", &[P::Number, P::Address], R::Bool, Act::Math(RmwOp::Add, -1, Sum::NewIsZero), "subtracts the number; gives whether 0 is left", ONE),
    row(G::Memory, "atomic_inc_and_test", &[P::Address], R::Bool, Act::Math(RmwOp::Add, 1, Sum::NewIsZero), "adds 1; gives whether that made 0", ONE),
    row(G::Memory, "atomic_fetch_add", &[P::Number, P::Address], R::Same, Act::Math(RmwOp::Add, 1, Sum::Old), "adds the number; gives the old value", ONE),
    row(G::Memory, "atomic_fetch_sub", &[P::Number, P::Address], R::Same, Act::Math(RmwOp::Add, -1, Sum::Old), "subtracts the number; gives the old value", ONE),
    row(G::Memory, "atomic_fetch_inc", &[P::Address], R::Same, Act::Math(RmwOp::Add, 1, Sum::Old), "adds 1; gives the old value", ONE),
    row(G::Memory, "atomic_fetch_dec", &[P::Address], R::Same, Act::Math(RmwOp::Add, -1, Sum::Old), "subtracts 1; gives the old value", ONE),
    row(G::Memory, "atomic_or", &[P::Number, P::Address], R::Nothing, Act::Math(RmwOp::Or, 1, Sum::Nothing), "sets the bits", ONE),
    row(G::Memory, "atomic_and", &[P::Number, P::Address], R::Nothing, Act::Math(RmwOp::And, 1, Sum::Nothing), "keeps those bits only", ONE),
    row(G::Memory, "atomic_andnot", &[P::Number, P::Address], R::Nothing, Act::Math(RmwOp::AndNot, 1, Sum::Nothing), "clears the bits", ONE),
    row(G::Memory, "atomic_fetch_or", &[P::Number, P::Address], R::Same, Act::Math(RmwOp::Or, 1, Sum::Old), "sets the bits; gives the old value", ONE),
    row(G::Memory, "atomic_fetch_and", &[P::Number, P::Address], R::Same, Act::Math(RmwOp::And, 1, Sum::Old), "keeps those bits only; gives the old value", ONE),
    row(G::Memory, "atomic_fetch_andnot", &[P::Number, P::Address], R::Same, Act::Math(RmwOp::AndNot, 1, Sum::Old), "clears the bits; gives the old value", ONE),
    row(G::Memory, "atomic_add_unless", &[P::Address, P::Number, P::Number], R::Bool, Act::AddUnless, "adds the first number unless the second is there; gives whether it did", ONE),
    row(G::Memory, "atomic_inc_not_zero", &[P::Address], R::Bool, Act::AddUnless, "adds 1 unless 0 is there; gives whether it did", ONE),
    row(G::Memory, "atomic_xchg", &[P::Address, P::Number], R::Same, Act::Xchg, "as `xchg`", ONE),
    row(G::Memory, "atomic_cmpxchg", &[P::Address, P::Number, P::Number], R::Same, Act::CmpXchg, "as `cmpxchg`", ONE),
    row(G::Memory, "atomic_cmpxchg_acquire", &[P::Address, P::Number, P::Number], R::Same, Act::CmpXchg, "as `cmpxchg`, which on x86 orders everything", ONE),
    row(G::Memory, "atomic_cmpxchg_release", &[P::Address, P::Number, P::Number], R::Same, Act::CmpXchg, "as `cmpxchg`, which on x86 orders everything", ONE),
    row(G::Memory, "atomic_try_cmpxchg", &[P::Address, P::LocalAddress, P::Number], R::Bool, Act::TryCmpXchg, "as `try_cmpxchg`", ONE),
    row(G::Memory, "atomic_read_acquire", &[P::Address], R::Same, Act::Read, "the value", ONE),
    row(G::Memory, "atomic_set_release", &[P::Address, P::Number], R::Nothing, Act::Write, "writes the value", ONE),
    row(G::Memory, "refcount_read", &[P::Address], R::Same, Act::Read, "the value", ONE),
    row(G::Memory, "refcount_set", &[P::Address, P::Number], R::Nothing, Act::Write, "writes the value", ONE),
    row(G::Memory, "refcount_inc", &[P::Address], R::Nothing, Act::Refcount(1, 1, false), "adds 1", ONE).reports("`tracking` if it is 0 or less already"),
    row(G::Memory, "refcount_inc_not_zero", &[P::Address], R::Bool, Act::AddUnless, "adds 1 unless 0 is there; gives whether it did", ONE),
    row(G::Memory, "refcount_dec", &[P::Address], R::Nothing, Act::Refcount(-1, 2, false), "subtracts 1", ONE).reports("`tracking` if 0 or less is left"),
    row(G::Memory, "refcount_dec_and_test", &[P::Address], R::Bool, Act::Refcount(-1, 1, true), "subtracts 1; gives whether 0 is left", ONE).reports("`tracking` if it is 0 or less already"),
    row(G::Memory, "xchg", &[P::Address, P::Value], R::Same, Act::Xchg, "writes the value; gives the old one", ONE),
    row(G::Memory, "cmpxchg", &[P::Address, P::Value, P::Value], R::Same, Act::CmpXchg, "writes the second value if the first is there; gives what was there", ONE),
    row(G::Memory, "cmpxchg_acquire", &[P::Address, P::Value, P::Value], R::Same, Act::CmpXchg, "as `cmpxchg`, which on x86 orders everything", ONE),
    row(G::Memory, "cmpxchg_release", &[P::Address, P::Value, P::Value], R::Same, Act::CmpXchg, "as `cmpxchg`, which on x86 orders everything", ONE),
    row(G::Memory, "try_cmpxchg", &[P::Address, P::LocalAddress, P::Value], R::Bool, Act::TryCmpXchg, "writes the value if what the local holds is there, and gives true; else false, and the local gets what was there", ONE),
    row(G::Memory, "set_bit", &[P::Number, P::Address], R::Nothing, Act::Bit(Bit::Set), "sets the bit of that number", ONE),
    row(G::Memory, "clear_bit", &[P::Number, P::Address], R::Nothing, Act::Bit(Bit::Clear), "clears the bit", ONE),
    row(G::Memory, "test_and_set_bit", &[P::Number, P::Address], R::Bool, Act::Bit(Bit::Set), "sets the bit; gives what it was", ONE),
    row(G::Memory, "test_and_clear_bit", &[P::Number, P::Address], R::Bool, Act::Bit(Bit::Clear), "clears the bit; gives what it was", ONE),
    row(G::Memory, "__set_bit", &[P::Number, P::Address], R::Nothing, Act::BitPlain(Bit::Set), "sets the bit by a load and a store", "2"),
    row(G::Memory, "__clear_bit", &[P::Number, P::Address], R::Nothing, Act::BitPlain(Bit::Clear), "clears the bit by a load and a store", "2"),
    row(G::Memory, "test_bit", &[P::Number, P::Address], R::Bool, Act::BitTest, "whether the bit is set", ONE),
    row(G::Memory, "smp_mb", &[], R::Nothing, Act::Fence, "nothing in sequential consistency; under `--memory-model tso`, orders what this pCPU stored before it before all that follows", NONE).waits("a store of this pCPU is not seen by all (`tso`)"),
    row(G::Memory, "smp_rmb", &[], R::Nothing, Act::Barrier, "nothing: x86 orders this by itself", NONE),
    row(G::Memory, "smp_wmb", &[], R::Nothing, Act::Barrier, "nothing: x86 orders this by itself", NONE),
    row(G::Memory, "smp_mb__before_atomic", &[], R::Nothing, Act::Barrier, "nothing: x86 orders this by itself", NONE),
    row(G::Memory, "smp_mb__after_atomic", &[], R::Nothing, Act::Barrier, "nothing: x86 orders this by itself", NONE),
    row(G::Memory, "barrier", &[], R::Nothing, Act::Barrier, "nothing: x86 orders this by itself", NONE),
    row(G::Memory, "cpu_relax", &[], R::Nothing, Act::Barrier, "nothing: a hint for the core", NONE),
    row(G::Memory, "kzalloc", &[P::Size, P::Number], R::Object, Act::Kzalloc, "an object of the structure that is not in use, the first, with each field as it starts; `NULL` if there is no memory, which is a choice unless `no-alloc-failure` is assumed, or if all are in use. `sizeof(*local)` will do too", ONE).reports("`sleep-in-atomic` with `GFP_KERNEL`; `sleep-non-blockable`"),
    row(G::Memory, "kfree", &[P::Object], R::Nothing, Act::Kfree, "frees the object; nothing if it is `NULL`", ONE).reports("`tracking` if it was freed before, and for an allocated mask in it that was not"),
    row(G::Memory, "WARN_ON", &[P::Bool], R::Bool, Act::Warn, "whether the condition holds, which it should not", NONE).reports("`tracking` if it does"),
    row(G::Memory, "WARN_ON_ONCE", &[P::Bool], R::Bool, Act::Warn, "as `WARN_ON`", NONE).reports("`tracking` if it does"),
    row(G::Memory, "BUG_ON", &[P::Bool], R::Nothing, Act::Warn, "as `WARN_ON`; the context goes on", NONE).reports("`tracking` if it does"),
    row(G::Memory, "BUILD_BUG", &[], R::Nothing, Act::BuildBug, "refuses the texts, with this line, where an actor's program can come here: what a kernel does not have", NONE),
    row(G::Memory, "BIT", &[P::Number], R::Number, Act::NumberOfBit, "`1 << n`; a constant if the number is one", NONE),
    row(G::Memory, "likely", &[P::Value], R::Same, Act::Likely, "its argument", NONE),
    row(G::Memory, "unlikely", &[P::Value], R::Same, Act::Likely, "its argument", NONE),

    row(G::Locks, "mutex_lock", &[P::Lock(T::Mutex)], R::Nothing, Act::Lock(Lock::Mutex, Irqs::Keep), "takes the mutex; `guard(mutex)(&m);` does, and gives it back at the end of the scope", ONE).waits("the mutex is held").reports(SLEEPS),
    row(G::Locks, "mutex_lock_nested", &[P::Lock(T::Mutex), P::Number], R::Nothing, Act::Lock(Lock::Mutex, Irqs::Keep), "as `mutex_lock`; the number is for lockdep", ONE).waits("the mutex is held").reports(SLEEPS),
    row(G::Locks, "mutex_trylock", &[P::Lock(T::Mutex)], R::Bool, Act::TryLock(Lock::Mutex), "takes the mutex if it is free; gives whether it did", ONE),
    row(G::Locks, "mutex_lock_killable", &[P::Lock(T::Mutex)], R::Number, Act::LockKillable, "takes the mutex and gives 0, or gives `-EINTR` and does not: a signal may come, which is a choice", "1, or none if a signal comes; the context rests before the choice").waits("the mutex is held").reports(SLEEPS),
    row(G::Locks, "mutex_lock_interruptible", &[P::Lock(T::Mutex)], R::Number, Act::LockKillable, "as `mutex_lock_killable`", "as `mutex_lock_killable`").waits("the mutex is held").reports(SLEEPS),
    row(G::Locks, "mutex_unlock", &[P::Lock(T::Mutex)], R::Nothing, Act::Unlock(Lock::Mutex, Irqs::Keep), "gives the mutex back", ONE).reports(NOT_HELD),
    row(G::Locks, "mutex_is_locked", &[P::Lock(T::Mutex)], R::Bool, Act::IsLocked, "whether anybody holds it", ONE),
    row(G::Locks, "mutex_init", &[P::Lock(T::Mutex)], R::Nothing, Act::LockInit, "nothing: locks start free", NONE),
    row(G::Locks, "spin_lock", &[P::Lock(T::Spin)], R::Nothing, Act::Lock(Lock::Spin, Irqs::Keep), "preemption off, takes the lock", ONE).waits("the lock is held").reports(VAIN),
    row(G::Locks, "spin_trylock", &[P::Lock(T::Spin)], R::Bool, Act::TryLock(Lock::Spin), "takes the lock if it is free, and leaves preemption off if it did; gives whether it did", ONE),
    row(G::Locks, "spin_unlock", &[P::Lock(T::Spin)], R::Nothing, Act::Unlock(Lock::Spin, Irqs::Keep), "gives the lock back, preemption on", ONE).reports(NOT_HELD),
    row(G::Locks, "spin_lock_irq", &[P::Lock(T::Spin)], R::Nothing, Act::Lock(Lock::Spin, Irqs::Off), "interrupts and preemption off, takes the lock", ONE).waits("the lock is held").reports(VAIN),
    row(G::Locks, "spin_unlock_irq", &[P::Lock(T::Spin)], R::Nothing, Act::Unlock(Lock::Spin, Irqs::Off), "gives the lock back, interrupts and preemption on", ONE).reports(NOT_HELD),
    row(G::Locks, "spin_lock_irqsave", &[P::Lock(T::Spin), P::Flags], R::Nothing, Act::Lock(Lock::Spin, Irqs::Save), "as `spin_lock_irq`; the flags keep whether interrupts were off", ONE).waits("the lock is held").reports(VAIN),
    row(G::Locks, "spin_unlock_irqrestore", &[P::Lock(T::Spin), P::Flags], R::Nothing, Act::Unlock(Lock::Spin, Irqs::Save), "gives the lock back, interrupts as the flags say, preemption on", ONE).reports(NOT_HELD),
    row(G::Locks, "spin_is_locked", &[P::Lock(T::Spin)], R::Bool, Act::IsLocked, "whether anybody holds it", ONE),
    row(G::Locks, "spin_lock_init", &[P::Lock(T::Spin)], R::Nothing, Act::LockInit, "nothing: locks start free", NONE),
    row(G::Locks, "read_lock", &[P::Lock(T::Rwlock)], R::Nothing, Act::Lock(Lock::Read, Irqs::Keep), "preemption off, takes the lock for reading", ONE).waits("a writer holds the lock").reports(VAIN),
    row(G::Locks, "read_trylock", &[P::Lock(T::Rwlock)], R::Bool, Act::TryLock(Lock::Read), "as `spin_trylock`, for reading", ONE),
    row(G::Locks, "read_unlock", &[P::Lock(T::Rwlock)], R::Nothing, Act::Unlock(Lock::Read, Irqs::Keep), "gives the lock back, preemption on", ONE).reports(NO_READER),
    row(G::Locks, "write_lock", &[P::Lock(T::Rwlock)], R::Nothing, Act::Lock(Lock::Write, Irqs::Keep), "preemption off, takes the lock for writing", ONE).waits("anybody holds the lock").reports(VAIN),
    row(G::Locks, "write_trylock", &[P::Lock(T::Rwlock)], R::Bool, Act::TryLock(Lock::Write), "as `spin_trylock`, for writing", ONE),
    row(G::Locks, "write_unlock", &[P::Lock(T::Rwlock)], R::Nothing, Act::Unlock(Lock::Write, Irqs::Keep), "gives the lock back, preemption on", ONE).reports(NOT_HELD),
    row(G::Locks, "rwlock_init", &[P::Lock(T::Rwlock)], R::Nothing, Act::LockInit, "nothing: locks start free", NONE),
    row(G::Locks, "down_read", &[P::Lock(T::Rwsem)], R::Nothing, Act::Lock(Lock::DownRead, Irqs::Keep), "takes the semaphore for reading", ONE).waits("a writer holds the semaphore").reports(SLEEPS),
    row(G::Locks, "down_read_trylock", &[P::Lock(T::Rwsem)], R::Bool, Act::TryLock(Lock::DownRead), "takes it for reading if no writer has it; gives whether it did", ONE),
    row(G::Locks, "up_read", &[P::Lock(T::Rwsem)], R::Nothing, Act::Unlock(Lock::DownRead, Irqs::Keep), "gives the semaphore back", ONE).reports(NO_READER),
    row(G::Locks, "down_write", &[P::Lock(T::Rwsem)], R::Nothing, Act::Lock(Lock::DownWrite, Irqs::Keep), "takes the semaphore for writing", ONE).waits("anybody holds the semaphore").reports(SLEEPS),
    row(G::Locks, "down_write_trylock", &[P::Lock(T::Rwsem)], R::Bool, Act::TryLock(Lock::DownWrite), "takes it for writing if it is free; gives whether it did", ONE),
    row(G::Locks, "up_write", &[P::Lock(T::Rwsem)], R::Nothing, Act::Unlock(Lock::DownWrite, Irqs::Keep), "gives the semaphore back", ONE).reports(NOT_HELD),
    row(G::Locks, "downgrade_write", &[P::Lock(T::Rwsem)], R::Nothing, Act::Unlock(Lock::Downgrade, Irqs::Keep), "keeps the semaphore for reading only", ONE).reports(NOT_HELD),
    row(G::Locks, "rwsem_is_locked", &[P::Lock(T::Rwsem)], R::Bool, Act::IsLocked, "whether anybody holds it", ONE),
    row(G::Locks, "init_rwsem", &[P::Lock(T::Rwsem)], R::Nothing, Act::LockInit, "nothing: locks start free", NONE),
    row(G::Locks, "wait_for_completion", &[P::Lock(T::Completion)], R::Nothing, Act::Lock(Lock::Completion, Irqs::Keep), "takes one `complete` away", ONE).waits("nothing is complete").reports(SLEEPS_ONLY),
    row(G::Locks, "try_wait_for_completion", &[P::Lock(T::Completion)], R::Bool, Act::TryLock(Lock::Completion), "takes one `complete` away if there is one; gives whether it did", ONE),
    row(G::Locks, "complete", &[P::Lock(T::Completion)], R::Nothing, Act::Unlock(Lock::Completion, Irqs::Keep), "lets one waiter go on, now or later", ONE),
    row(G::Locks, "complete_all", &[P::Lock(T::Completion)], R::Nothing, Act::Unlock(Lock::CompleteAll, Irqs::Keep), "lets all waiters go on, now and later", ONE),
    row(G::Locks, "completion_done", &[P::Lock(T::Completion)], R::Bool, Act::IsLocked, "whether a waiter could go on", ONE),
    row(G::Locks, "init_completion", &[P::Lock(T::Completion)], R::Nothing, Act::LockInit, "nothing: completions start with nothing done", NONE),
    row(G::Locks, "reinit_completion", &[P::Lock(T::Completion)], R::Nothing, Act::Reinit, "nothing is complete any more", ONE),

    row(G::Locks, "lockdep_assert_held", &[P::AnyLock], R::Nothing, Act::LockHeld(0), "asserts that the lock is held by this context, or by anybody for reading", NONE).reports("`tracking` if not"),
    row(G::Locks, "lockdep_assert_held_write", &[P::AnyLock], R::Nothing, Act::LockHeld(1), "asserts that this context holds the lock for writing", NONE).reports("`tracking` if not"),
    row(G::Locks, "lockdep_assert_held_read", &[P::AnyLock], R::Nothing, Act::LockHeld(2), "asserts that somebody holds the lock for reading", NONE).reports("`tracking` if not"),
    row(G::Locks, "lockdep_assert_not_held", &[P::AnyLock], R::Nothing, Act::LockHeld(3), "asserts that this context does not hold the lock, but perhaps for reading", NONE).reports("`tracking` if it does"),
    row(G::Cpu, "lockdep_assert_irqs_disabled", &[], R::Nothing, Act::AssertIrqs(true), "asserts that interrupts are off", NONE).reports("`tracking` if not"),
    row(G::Cpu, "lockdep_assert_irqs_enabled", &[], R::Nothing, Act::AssertIrqs(false), "asserts that interrupts are on", NONE).reports("`tracking` if not"),
    row(G::Cpu, "local_irq_disable", &[], R::Nothing, Act::Windows(&[W::IrqDisable]), "interrupts wait", "none, but the context rests before it"),
    row(G::Cpu, "local_irq_enable", &[], R::Nothing, Act::Windows(&[W::IrqEnable]), "interrupts are taken again", NONE),
    row(G::Cpu, "local_irq_save", &[P::Flags], R::Nothing, Act::IrqSave, "as `local_irq_disable`; the flags keep whether interrupts were off", "none, but the context rests before it"),
    row(G::Cpu, "local_irq_restore", &[P::Flags], R::Nothing, Act::IrqRestore, "interrupts as the flags say", NONE),
    row(G::Cpu, "irqs_disabled", &[], R::Bool, Act::Prim(Prim::IrqsDisabled), "whether interrupts wait", NONE),
    row(G::Cpu, "in_atomic", &[], R::Bool, Act::Prim(Prim::InAtomic), "whether preemption is off, as in a handler", NONE),
    row(G::Cpu, "in_interrupt", &[], R::Bool, Act::Prim(Prim::InInterrupt), "whether this is the handler of an IPI", NONE),
    row(G::Cpu, "preemptible", &[], R::Bool, Act::Preemptible, "`!in_atomic() && !irqs_disabled()`", NONE),
    row(G::Cpu, "might_sleep", &[], R::Nothing, Act::Prim(Prim::MightSleep), "nothing, where the task may sleep", NONE).reports(SLEEPS_ONLY),
    row(G::Cpu, "cond_resched", &[], R::Nothing, Act::Prim(Prim::MightSleep), "nothing: a task with preemption on may lose its pCPU anywhere", NONE).reports(SLEEPS_ONLY),
    row(G::Cpu, "non_block_start", &[], R::Nothing, Act::NonBlock(1), "the task may not sleep from here on (the OOM reaper)", NONE),
    row(G::Cpu, "non_block_end", &[], R::Nothing, Act::NonBlock(0), "it may again", NONE),
    row(G::Cpu, "preempt_disable", &[], R::Nothing, Act::Windows(&[W::PreemptDisable]), "the task stays on its pCPU, and no other runs there", "none, but the context rests before it"),
    row(G::Cpu, "preempt_enable", &[], R::Nothing, Act::Windows(&[W::PreemptEnable]), "other tasks may run again", NONE).reports(NOT_OFF),
    row(G::Cpu, "get_cpu", &[], R::Cpu, Act::GetCpu, "`preempt_disable()`; gives the pCPU", "none, but the context rests before it"),
    row(G::Cpu, "put_cpu", &[], R::Nothing, Act::Windows(&[W::PreemptEnable]), "`preempt_enable()`", NONE).reports(NOT_OFF),
    row(G::Cpu, "smp_processor_id", &[], R::Cpu, Act::ThisCpu, "the pCPU this runs on", NONE),
    row(G::Cpu, "raw_smp_processor_id", &[], R::Cpu, Act::ThisCpu, "the pCPU this runs on", NONE),
    row(G::Cpu, "this_cpu_read", &[P::PerCpu], R::Same, Act::PerCpuRead(true), "the pCPU's own instance; nobody moves the task meanwhile", ONE),
    row(G::Cpu, "this_cpu_write", &[P::PerCpu, P::Value], R::Nothing, Act::PerCpuWrite(true), "writes the pCPU's own instance; nobody moves the task meanwhile", ONE),
    row(G::Cpu, "__this_cpu_read", &[P::PerCpu], R::Same, Act::PerCpuRead(false), "the instance of the pCPU that the task was on when it came here", ONE),
    row(G::Cpu, "__this_cpu_write", &[P::PerCpu, P::Value], R::Nothing, Act::PerCpuWrite(false), "writes the instance of the pCPU that the task was on when it came here", ONE),
    row(G::Cpu, "this_cpu_inc", &[P::PerCpu], R::Nothing, Act::PerCpuMath(RmwOp::Add, 1, Sum::Nothing), "adds 1, on the pCPU's own instance, as one instruction", ONE),
    row(G::Cpu, "this_cpu_dec", &[P::PerCpu], R::Nothing, Act::PerCpuMath(RmwOp::Add, -1, Sum::Nothing), "subtracts 1, on the pCPU's own instance, as one instruction", ONE),
    row(G::Cpu, "this_cpu_add", &[P::PerCpu, P::Number], R::Nothing, Act::PerCpuMath(RmwOp::Add, 1, Sum::Nothing), "adds the number, on the pCPU's own instance, as one instruction", ONE),
    row(G::Cpu, "this_cpu_sub", &[P::PerCpu, P::Number], R::Nothing, Act::PerCpuMath(RmwOp::Add, -1, Sum::Nothing), "subtracts the number, on the pCPU's own instance, as one instruction", ONE),
    row(G::Cpu, "this_cpu_inc_return", &[P::PerCpu], R::Same, Act::PerCpuMath(RmwOp::Add, 1, Sum::New), "adds 1 and gives the new value, on the pCPU's own instance, as one instruction", ONE),
    row(G::Cpu, "this_cpu_xchg", &[P::PerCpu, P::Value], R::Same, Act::PerCpuXchg, "writes the value and gives the old one, on the pCPU's own instance, as one instruction", ONE),
    row(G::Cpu, "this_cpu_cmpxchg", &[P::PerCpu, P::Value, P::Value], R::Same, Act::PerCpuCmpXchg, "writes the second value if the first is there, and gives what was there, on the pCPU's own instance, as one instruction", ONE),
    row(G::Cpu, "per_cpu", &[P::PerCpu, P::Cpu], R::Same, Act::Per(Scope::PerCpu), "a pCPU's instance: can be read, written, and `&per_cpu(...)` taken", ONE),
    row(G::Cpu, "per_asid", &[P::PerAsid, P::Number], R::Same, Act::Per(Scope::PerAsid), "an ASID's instance, as `per_cpu`; `nr_asids` is the number of ASIDs, the host's 0 included", ONE),
    row(G::Cpu, "sev_get_asid", &[P::Vm], R::Number, Act::AsidOf, "the ASID of the VM, 0 while it has none", "1 if an actor calls `sev_set_asid`"),
    row(G::Cpu, "sev_set_asid", &[P::Vm, P::Number], R::Nothing, Act::Prim(Prim::SetAsid), "gives the VM that ASID, under which its guests' accesses are tagged from here on; 0 takes it away", ONE).reports("`tracking` if there is no such ASID"),

    row(G::Choice, "any_of", &[P::Options], R::Number, Act::AnyOf, "any number from 0 up to, not including, n", "none, but the context rests before it"),
    row(G::Choice, "maybe", &[], R::Bool, Act::Maybe, "false or true", "none, but the context rests before it"),

    row(G::Flush, "wbinvd", &[], R::Nothing, Act::Flush(0), "writes back and invalidates this pCPU's caches: begin (own), private caches, L3, end", "3; 2 if the pCPU is its core's only one and its private caches hold no line of the model, where no text has `alloc_page`, `psp_write` or an ACTIVATE; none with `flat-caches`").waits("at its end: write-backs are in flight"),
    row(G::Flush, "wbnoinvd", &[], R::Nothing, Act::Flush(1), "as `wbinvd`, and the lines stay valid", "as `wbinvd`").waits("at its end: write-backs are in flight"),
    row(G::Flush, "trace_sev_writeback", &[P::Bool], R::Nothing, Act::Prim(Prim::TraceWriteback), "a tracepoint around a policy's writeback, for the flush latency: true where it begins, false where it ends", NONE),
    row(G::Flush, "oracle_update", &[P::Vm], R::Nothing, Act::Prim(Prim::OracleUpdate), "writes the cheapest set of pCPUs whose flush scope covers every dirty line of the VM into the global mask `oracle_cpus`, in no time: no kernel can", ONE),
    row(G::Flush, "invd", &[], R::Nothing, Act::Prim(Prim::Invd), "INVD: this pCPU's private caches and its L3 lose every line, and nothing is written back", ONE),
    row(G::Flush, "vm_page_flush", &[P::Vm, P::Page], R::Number, Act::Prim(Prim::VmPageFlush), "VM_PAGE_FLUSH: writes back and invalidates the page's lines under the VM's tag, in all caches; gives 0, or `-EFAULT` and does nothing if the VMM's mapping of the page is gone", ONE),
    row(G::Flush, "sme_coherent", &[], R::Bool, Act::Feature(Feature::SmeCoherent), "whether the part is SME_COHERENT (`cpu_feature_enabled(X86_FEATURE_SME_COHERENT)`)", NONE),
    row(G::Flush, "has_wbnoinvd", &[], R::Bool, Act::Feature(Feature::Wbnoinvd), "whether the part has WBNOINVD; not under `no-wbnoinvd`, where `wbnoinvd()` is `wbinvd()`", NONE),
    row(G::Flush, "clflush_page", &[P::Page], R::Nothing, Act::Prim(Prim::ClflushPage), "CLFLUSH of each line of the page through the host's mapping", ONE),
    row(G::Flush, "clflush_cache_range", &[P::Page, P::Number], R::Nothing, Act::Prim(Prim::ClflushPage), "as `clflush_page`: the address is the page (`page_address(page)`), the size (`PAGE_SIZE`) is always a page's", ONE),
    row(G::Flush, "page_address", &[P::Page], R::Page, Act::Likely, "the page, whose address in the host's mapping is not told from it", NONE),

    row(G::Ipi, "call_single_queue", &[P::Cpu, P::Func, P::Opaque, P::Bool], R::Nothing, Act::SendCall, "queues `fn(info)` for the pCPU and sends the IPI; the last argument says whether the sender will wait", ONE).waits("an earlier call of this sender to that pCPU has not been taken"),
    row(G::Ipi, "csd_lock_wait_mask", &[P::LocalMask], R::Nothing, Act::WaitCalls, "until every call that this context sent to the pCPUs of the mask is done", ONE).waits("one of these calls is not done"),

    row(G::Guest, "vmrun", &[P::Vcpu], R::Reason, Act::Prim(Prim::VmRun), "enters the guest, gives the exit's reason (2 + n: a nested page fault of page n; -1: VMRUN failed, for the firmware has not activated the ASID on this CCX); the context stays here while the guest runs", "1 to enter, each of the guest's, 1 to exit"),
    row(G::Guest, "guest_read", &[P::Page], R::Nothing, Act::Prim(Prim::GuestRead), "the guest reads its page", ONE).litmus(),
    row(G::Guest, "guest_write", &[P::Page], R::Nothing, Act::Prim(Prim::GuestWrite), "the guest writes its page", ONE).litmus(),
    row(G::Guest, "guest_read_shared", &[P::Page], R::Nothing, Act::Prim(Prim::GuestReadShared), "the guest reads its page through a C=0 mapping, whatever the page is", ONE).litmus(),
    row(G::Guest, "guest_write_shared", &[P::Page], R::Nothing, Act::Prim(Prim::GuestWriteShared), "the guest writes its page through a C=0 mapping", ONE).litmus(),
    row(G::Guest, "guest_evict", &[P::Page], R::Nothing, Act::Prim(Prim::GuestEvict), "the guest touches its page so that every other tag's lines of it are written back and invalidated, as on validation", ONE).litmus(),
    row(G::Guest, "vcpu_flush_tlb", &[P::Vcpu], R::Nothing, Act::Prim(Prim::VcpuFlushTlb), "forgets every cached translation of the vCPU", ONE),
    row(G::Guest, "vcpu_fault_page", &[P::Number], R::Page, Act::Prim(Prim::FaultPage), "the page of the nested page fault that `vmrun` gave as its reason", NONE),
    row(G::Guest, "vcpu_sched_park", &[], R::Nothing, Act::Prim(Prim::SchedPark), "the last step of being scheduled out; the pCPU is free afterwards", ONE),
    row(G::Guest, "vcpu_set_loaded", &[P::Vcpu, P::Bool], R::Nothing, Act::Prim(Prim::SetLoaded), "registers or unregisters the preempt notifier", NONE),

    row(G::Guest, "kvm_vm_type", &[P::Vm], R::Number, Act::VmType, "what the VM is: `KVM_X86_DEFAULT_VM`, `KVM_X86_SEV_VM`, `KVM_X86_SEV_ES_VM`, `KVM_X86_SNP_VM`", NONE),
    row(G::Guest, "vcpu_vmsa", &[P::Vcpu], R::Page, Act::Vmsa, "the VMSA page of a vCPU of an SEV-ES or SEV-SNP VM, `NULL` if it has none", NONE),
    row(G::Guest, "vcpu_thread_join", &[P::Vcpu], R::Nothing, Act::Prim(Prim::JoinVcpu), "until the vCPU's thread has ended, as before the last file descriptor of a VM is closed", ONE).waits("the thread has not ended").reports(SLEEPS_ONLY),
    row(G::Guest, "kvm_arch_free_vm", &[P::Vm], R::Nothing, Act::Prim(Prim::FreeVm), "frees the VM's structure, its vCPUs' and all that only they refer to: whatever uses their fields later reports `tracking`", ONE).reports("`tracking` for an allocated mask of the VM that was not freed: a leak; for a VM that was freed before"),
    row(G::Guest, "kvm_arch_vcpu_free", &[P::Vcpu], R::Nothing, Act::Prim(Prim::FreeVcpu), "frees the vCPU's structure: whatever uses its fields later reports `tracking`", ONE).reports("`tracking` if it was freed before, and for an allocated mask in it that was not"),

    row(G::Pages, "zap_spte", &[P::Vm, P::Page], R::Bool, Act::Prim(Prim::ZapSpte), "clears the nested page table entry; gives whether it was present", ONE),
    row(G::Pages, "install_spte", &[P::Vm, P::Page], R::Nothing, Act::Prim(Prim::InstallSpte), "writes the nested page table entry", ONE),
    row(G::Pages, "user_pte_present", &[P::Page], R::Bool, Act::Prim(Prim::UserPtePresent), "whether the VMM's own mapping still has the page (`hva_to_pfn` succeeds): in a vCPU's thread, the mapping of that vCPU's VM, which a page that another VM owns by now has left", ONE),
    row(G::Pages, "zap_user_pte", &[P::Page], R::Nothing, Act::Prim(Prim::ZapUserPte), "the mm core clears the VMM's own mapping", ONE),
    row(G::Pages, "free_page", &[P::Page], R::Nothing, Act::Prim(Prim::FreePage), "back to the allocator; anybody may own it next", ONE).reports("`latent`; `tracking` if it is free"),
    row(G::Pages, "alloc_page", &[P::Page, P::Vm], R::Nothing, Act::Prim(Prim::AllocPage), "a freed page gets a new owner: a VM, or the host if `NULL`", ONE).reports("`tracking` if a VM has the page"),
    row(G::Pages, "user_reuse_page", &[P::Page], R::Nothing, Act::Prim(Prim::UserReuse), "the VMM uses the memory itself from here on, without freeing it: it, or a device for it, writes it next", ONE).reports("`latent`, victim `self`; `tracking` if no VM has the page"),
    row(G::Pages, "move_pages_owner", &[P::Vm, P::Vm], R::Nothing, Act::Prim(Prim::MovePages), "every page of the first VM belongs to the second from here on, as when an SEV context moves within a host", ONE),
    row(G::Pages, "rmp_make_private", &[P::Page, P::Vm], R::Number, Act::Prim(Prim::RmpMakePrivate), "RMPUPDATE: assigns the page to the VM's ASID; gives 0, or `-EINVAL` if the VM has none or there is no RMP", ONE),
    row(G::Pages, "rmp_make_shared", &[P::Page], R::Number, Act::Prim(Prim::RmpMakeShared), "RMPUPDATE: the page is the hypervisor's; gives 0, or `-EINVAL` if there is no RMP", ONE),
    row(G::Pages, "rmp_assigned", &[P::Page], R::Bool, Act::Prim(Prim::RmpAssigned), "whether the page is assigned to a guest", ONE),
    row(G::Pages, "psp_write", &[P::Page, P::Vm], R::Nothing, Act::Prim(Prim::PspWrite), "the PSP writes each line of the page under the VM's key straight to memory, as LAUNCH_UPDATE and RECEIVE_UPDATE do; `psp-evicts-own-tag` and `psp-evicts-host-lines` say which copies it evicts", ONE),
    row(G::Pages, "psp_read", &[P::Page, P::Vm], R::Nothing, Act::Prim(Prim::PspRead), "the PSP reads the page under the VM's key straight from memory", ONE),
    row(G::Pages, "host_read", &[P::Page], R::Nothing, Act::Prim(Prim::HostRead), "reads the page through the host's C=0 mapping", ONE),
    row(G::Pages, "host_write", &[P::Page], R::Nothing, Act::Prim(Prim::HostWrite), "writes the page through the host's C=0 mapping", ONE),
    row(G::Pages, "dma_read", &[P::Page], R::Nothing, Act::Prim(Prim::DmaRead), "a device reads the page", ONE),
    row(G::Pages, "dma_write", &[P::Page], R::Nothing, Act::Prim(Prim::DmaWrite), "a device writes the page", ONE),

    row(G::Firmware, "sev_cmd_init", &[], R::Number, Act::Prim(Prim::Firmware(C::SevInit)), "INIT: every (ASID, CCX) is dirty, no thread has done WBINVD", ONE),
    row(G::Firmware, "snp_cmd_init", &[], R::Number, Act::Prim(Prim::Firmware(C::SnpInit)), "SNP_INIT: as `sev_cmd_init`, of SNP", ONE),
    row(G::Firmware, "snp_cmd_shutdown", &[], R::Number, Act::Prim(Prim::Firmware(C::SnpShutdown)), "SNP_SHUTDOWN: refused unless every (ASID, CCX) is clean", ONE).reports(REFUSED),
    row(G::Firmware, "sev_cmd_activate", &[P::Vm, P::Number], R::Number, Act::Prim(Prim::Firmware(C::Activate)), "ACTIVATE, or SNP_ACTIVATE of an SNP VM: binds the guest to the ASID on every CCX; the first installs its key", ONE).reports(REFUSED),
    row(G::Firmware, "sev_cmd_activate_ex", &[P::Vm, P::Number, P::Cpu], R::Number, Act::Prim(Prim::Firmware(C::ActivateEx)), "ACTIVATE_EX: as `sev_cmd_activate`, on the CCX of one pCPU; CCXs are only ever added", ONE).reports(REFUSED),
    row(G::Firmware, "sev_cmd_launch_finish", &[P::Vm], R::Number, Act::Prim(Prim::Firmware(C::LaunchFinish)), "LAUNCH_FINISH: VMRUN works from here on", ONE),
    row(G::Firmware, "sev_cmd_deactivate", &[P::Vm], R::Number, Act::Prim(Prim::Firmware(C::Deactivate)), "DEACTIVATE: CCXs that the guest used are dirty, and the WBINVDs of all their threads are forgotten", ONE),
    row(G::Firmware, "sev_cmd_decommission", &[P::Vm], R::Number, Act::Prim(Prim::Firmware(C::Decommission)), "DECOMMISSION: frees the guest's context; refused while its ASID is active", ONE),
    row(G::Firmware, "snp_cmd_decommission", &[P::Vm], R::Number, Act::Prim(Prim::Firmware(C::SnpDecommission)), "SNP_DECOMMISSION: DEACTIVATE, then frees the context", ONE),
    row(G::Firmware, "sev_cmd_df_flush", &[], R::Number, Act::Prim(Prim::Firmware(C::DfFlush)), "DF_FLUSH, as SNP_DF_FLUSH: CCXs all of whose threads have done WBINVD are clean; refused unless all have", ONE).reports(REFUSED),
    ]
};
