//! What a policy leans on: the guarantees of hardware and kernel, each of which can be taken away, alone and together.
//!
//! *Promise*: taking a guarantee away changes the model or the texts, and nothing else; what changes no operation of
//! the program and nothing of the model is no guarantee of the case.

use std::collections::BTreeMap;

use sev_arch::WbinvdScope;
use sim_explore::Search;
use svm_lang::Role;
use svm_lang::ast::{Ast, Infix, StmtKind};
use svm_model::spec::ModelSpec;
use svm_model::{Machine, MemoryKind};

use crate::check::{Changes, CheckCase, CheckError, CheckReport, NamedText};
use crate::edit::{self, Edit};
use crate::schedule::program_digest;

/// Something that a policy may lean on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Guarantee {
    /// The part is SME_COHERENT.
    SmeCoherent,
    /// Devices' accesses are coherent with the host's cache lines.
    DmaSnoops,
    /// WBINVD and WBNOINVD reach the L3 of the CCX, not only the core's own caches.
    FlushReachesL3,
    /// The notifier takes the mapping away before it asks the policy to flush.
    ZapBeforeFlush,
    /// The remote TLB flush waits until every vCPU has left the guest.
    TlbAcknowledged,
    /// The fault path looks whether an invalidation came in between.
    SequenceCheck,
    /// The fault path looks whether an invalidation is under way.
    InProgressCheck,
    /// Interrupts are off while the mark before VMRUN is made.
    IrqsOffAroundMark,
    /// A flush waits for the pCPUs that it asked.
    IpisWaitedFor,
    /// Marks are set by an indivisible operation.
    AtomicMark,
    /// A lock of this name excludes.
    Lock(String),
}

impl Guarantee {
    /// As in JSON and tables.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Guarantee::SmeCoherent => "sme-coherent",
            Guarantee::DmaSnoops => "dma-snoops",
            Guarantee::FlushReachesL3 => "flush-reaches-l3",
            Guarantee::ZapBeforeFlush => "zap-before-flush",
            Guarantee::TlbAcknowledged => "tlb-acknowledged",
            Guarantee::SequenceCheck => "sequence-check",
            Guarantee::InProgressCheck => "in-progress-check",
            Guarantee::IrqsOffAroundMark => "irqs-off-around-mark",
            Guarantee::IpisWaitedFor => "ipis-waited-for",
            Guarantee::AtomicMark => "atomic-mark",
            Guarantee::Lock(name) => return format!("lock:{name}"),
        }
        .to_owned()
    }

    /// What it says.
    #[must_use]
    pub fn meaning(&self) -> String {
        match self {
            Guarantee::SmeCoherent => "a CPU access under one tag evicts the other tags' lines",
            Guarantee::DmaSnoops => "devices' accesses are coherent with the host's lines",
            Guarantee::FlushReachesL3 => "WBINVD and WBNOINVD reach the L3 of the CCX",
            Guarantee::ZapBeforeFlush => "the notifier unmaps before it flushes",
            Guarantee::TlbAcknowledged => "the remote TLB flush is waited for",
            Guarantee::SequenceCheck => "a fault retries if an invalidation came in between",
            Guarantee::InProgressCheck => "a fault retries while an invalidation is under way",
            Guarantee::IrqsOffAroundMark => "interrupts are off while the mark before VMRUN is made",
            Guarantee::IpisWaitedFor => "a flush waits for the pCPUs that it asked",
            Guarantee::AtomicMark => "marks are set indivisibly",
            Guarantee::Lock(name) => return format!("{name} excludes others"),
        }
        .to_owned()
    }

    /// The policy's text without it.
    fn without_in_policy(&self, text: &str) -> String {
        let Some(ast) = edit::tree(text, Role::Policy) else { return text.to_owned() };
        match self {
            Guarantee::AtomicMark => edit::apply(text, &plain_marks(text, &ast)),
            Guarantee::Lock(lock) => without_lock(text, &ast, lock),
            Guarantee::SmeCoherent
            | Guarantee::DmaSnoops
            | Guarantee::FlushReachesL3
            | Guarantee::ZapBeforeFlush
            | Guarantee::TlbAcknowledged
            | Guarantee::SequenceCheck
            | Guarantee::InProgressCheck
            | Guarantee::IrqsOffAroundMark
            | Guarantee::IpisWaitedFor => text.to_owned(),
        }
    }

    /// A kernel's text without it.
    fn without_in_kernel(&self, text: &str) -> String {
        let Some(ast) = edit::tree(text, Role::Kernel) else { return text.to_owned() };
        let edits = match self {
            Guarantee::Lock(lock) => return without_lock(text, &ast, lock),
            Guarantee::ZapBeforeFlush => flush_first(text, &ast),
            Guarantee::TlbAcknowledged => {
                argument(&ast, "kvm_make_all_cpus_request", "smp_call_function_many", 3, "false")
            }
            Guarantee::IpisWaitedFor => {
                let mut edits = argument(&ast, "on_each_cpu_mask", "smp_call_function_many_cond", 3, "false");
                edits.extend(argument(&ast, "smp_call_function_single", "call_single_queue", 3, "false"));
                edits.extend(never_waits(text, &ast));
                edits
            }
            Guarantee::SequenceCheck => always(text, &ast, "mmu_invalidate_seq", Some(Infix::Eq)),
            Guarantee::InProgressCheck => always(text, &ast, "mmu_invalidate_in_progress", None),
            Guarantee::IrqsOffAroundMark => marks_with_irqs_on(text, &ast),
            Guarantee::SmeCoherent
            | Guarantee::DmaSnoops
            | Guarantee::FlushReachesL3
            | Guarantee::AtomicMark => Vec::new(),
        };
        edit::apply(text, &edits)
    }

    /// The model without it.
    fn without_in_spec(&self, spec: &mut ModelSpec) {
        match self {
            Guarantee::SmeCoherent => spec.shape.sme_coherent = false,
            Guarantee::DmaSnoops => spec.shape.dma_snoops = false,
            Guarantee::FlushReachesL3 => spec.shape.scope = WbinvdScope::Core,
            Guarantee::ZapBeforeFlush
            | Guarantee::TlbAcknowledged
            | Guarantee::SequenceCheck
            | Guarantee::InProgressCheck
            | Guarantee::IrqsOffAroundMark
            | Guarantee::IpisWaitedFor
            | Guarantee::AtomicMark
            | Guarantee::Lock(_) => {}
        }
    }
}

fn without_lock(text: &str, ast: &Ast, lock: &str) -> String {
    edit::apply(text, &edit::without_lock(text, ast, &|argument| edit::lock_name(argument) == lock))
}

/// Marks set by plain stores.
fn plain_marks(text: &str, ast: &Ast) -> Vec<Edit> {
    let mut edits = Vec::new();
    edit::exprs(ast, &mut |_, e| {
        if let Some(("cpumask_set_cpu", _)) = edit::call(e) {
            edits.push(Edit::of(e.span, format!("__{}", edit::covered(text, e.span))));
        }
    });
    edits
}

/// An argument of each call to `name` in a function, counted from 0.
fn argument(ast: &Ast, function: &str, name: &str, at: usize, with: &str) -> Vec<Edit> {
    let mut edits = Vec::new();
    edit::exprs(ast, &mut |within, e| {
        if let Some((called, args)) = edit::call(e)
            && within == function
            && called == name
            && let Some(argument) = args.get(at)
        {
            edits.push(Edit::of(argument.span, with));
        }
    });
    edits
}

/// `if (wait)` in the call of one pCPU.
fn never_waits(text: &str, ast: &Ast) -> Vec<Edit> {
    let mut edits = Vec::new();
    edit::stmts(ast, &mut |within, stmt| {
        if let StmtKind::If { cond, .. } = &stmt.kind
            && within == "smp_call_function_single"
            && edit::covered(text, cond.span) == "wait"
        {
            edits.push(Edit::of(cond.span, "false"));
        }
    });
    edits
}

/// What of the fault path's condition is about a counter becomes true: the comparison with it, or its negation.
fn always(text: &str, ast: &Ast, counter: &str, compared: Option<Infix>) -> Vec<Edit> {
    use svm_lang::ast::{ExprKind, Prefix};
    let mut edits = Vec::new();
    edit::exprs(ast, &mut |within, e| {
        let wanted = match (&e.kind, compared) {
            (ExprKind::Infix(op, ..), Some(wanted)) => *op == wanted,
            (ExprKind::Prefix(Prefix::Not, _), None) => true,
            (_, _) => false,
        };
        if within == "kvm_mmu_fault" && wanted && edit::covered(text, e.span).contains(counter) {
            edits.push(Edit::of(e.span, "true"));
        }
    });
    edits
}

/// The mark before VMRUN with interrupts on.
fn marks_with_irqs_on(text: &str, ast: &Ast) -> Vec<Edit> {
    let mut edits = Vec::new();
    edit::stmts(ast, &mut |within, stmt| {
        if let StmtKind::Expr(e) = &stmt.kind
            && within == "svm_vcpu_run"
            && edit::call(e).is_some_and(|(name, _)| name == "pre_sev_run")
        {
            let call = edit::covered(text, stmt.span);
            edits.push(Edit::of(stmt.span, format!("{{ local_irq_enable(); {call} local_irq_disable(); }}")));
        }
    });
    edits
}

/// The notifier's last statement, which flushes, before all others.
fn flush_first(text: &str, ast: &Ast) -> Vec<Edit> {
    let mut edits = Vec::new();
    edit::blocks(ast, &mut |within, block| {
        let whole = edit::covered(text, block.span).starts_with('{') && block.stmts.len() > 1;
        let first = block.stmts.iter().find(|s| !matches!(s.kind, StmtKind::Decl(_)));
        let (Some(first), Some(last)) = (first, block.stmts.last()) else { return };
        let StmtKind::If { cond, .. } = &last.kind else { return };
        if within == "kvm_mmu_notifier_start" && whole && edit::covered(text, cond.span).contains("FLUSH_ON")
        {
            let (start, middle) = (first.span.start as usize, last.span.start as usize);
            let end = block.span.end as usize - 1;
            let (zap, flush) = (&text[start..middle], &text[middle..end]);
            edits.push(Edit { start, end, with: format!("{flush}\t{zap}\n") });
        }
    });
    edits
}

/// A case with some guarantees taken away.
struct Without<'w> {
    taken: &'w [Guarantee],
    policy: NamedText,
}

impl<'w> Without<'w> {
    fn new(case: &CheckCase<'_>, taken: &'w [Guarantee]) -> Self {
        let text = taken.iter().fold(case.policy.text.clone(), |text, g| g.without_in_policy(&text));
        Without { taken, policy: NamedText { text, ..case.policy.clone() } }
    }

    /// Calls `f` with the case and its machine.
    fn with<T>(
        &self,
        case: &CheckCase<'_>,
        f: impl FnOnce(&CheckCase<'_>, &Machine) -> Result<T, CheckError>,
    ) -> Result<T, CheckError> {
        let case = CheckCase { policy: &self.policy, ..case.clone() };
        let spec = |spec: &mut ModelSpec| self.taken.iter().for_each(|g| g.without_in_spec(spec));
        let kernel =
            |text: &str| self.taken.iter().fold(text.to_owned(), |text, g| g.without_in_kernel(&text));
        let machine = case.machine_with(MemoryKind::Shadow, &Changes { spec: &spec, kernel: &kernel })?;
        f(&case, &machine)
    }
}

/// The guarantees that a case has: those without which its program or its model is another one.
///
/// # Errors
///
/// Errors in the texts.
pub fn given(case: &CheckCase<'_>) -> Result<Vec<Guarantee>, CheckError> {
    let machine = case.machine(MemoryKind::Shadow)?;
    let digest = program_digest(&machine);
    let spec = machine.spec();
    let mut candidates = vec![
        Guarantee::ZapBeforeFlush,
        Guarantee::TlbAcknowledged,
        Guarantee::SequenceCheck,
        Guarantee::InProgressCheck,
        Guarantee::IrqsOffAroundMark,
        Guarantee::AtomicMark,
        Guarantee::IpisWaitedFor,
    ];
    for var in machine.locks() {
        candidates.push(Guarantee::Lock(var));
    }
    let mut given = Vec::new();
    if spec.shape.sme_coherent {
        given.push(Guarantee::SmeCoherent);
    }
    if spec.reuse.dma && !spec.assumptions.no_dma {
        given.push(Guarantee::DmaSnoops);
    }
    if spec.shape.scope != WbinvdScope::Core && machine.flushes() {
        given.push(Guarantee::FlushReachesL3);
    }
    for guarantee in candidates {
        let taken = [guarantee.clone()];
        let changed = Without::new(case, &taken).with(case, |_, machine| Ok(program_digest(machine)));
        // What does not compile without it cannot be taken away.
        if changed.is_ok_and(|changed| changed != digest) {
            given.push(guarantee);
        }
    }
    Ok(given)
}

/// Checks a case with some guarantees taken away, until any event is met.
///
/// # Errors
///
/// Errors in the texts.
pub fn check_without(
    case: &CheckCase<'_>,
    taken: &[Guarantee],
    search: Search<'_>,
) -> Result<CheckReport, CheckError> {
    Without::new(case, taken).with(case, |case, machine| case.explore(machine, search, true))
}

/// Finds the minimal sets of items, numbered from 0 to `count`, that must be kept beside what is always kept:
/// `holds` of a set says whether it suffices. It is asked for as few sets as follows from: more kept is never worse.
/// `None` of it ends the search, and so does a count above 20.
pub fn minimal_sets(
    count: usize,
    mut holds: impl FnMut(&[usize]) -> Option<bool>,
) -> Option<Vec<Vec<usize>>> {
    if count > 20 {
        return None;
    }
    let items = |set: u32| -> Vec<usize> { (0..count).filter(|i| set >> i & 1 == 1).collect() };
    let mut known: BTreeMap<u32, bool> = BTreeMap::new();
    let mut ask = |set: u32| -> Option<bool> {
        let implied = known
            .iter()
            .find(|(other, holds)| if **holds { *other & set == **other } else { *other | set == **other });
        if let Some((_, holds)) = implied {
            return Some(*holds);
        }
        let answer = holds(&items(set))?;
        known.insert(set, answer);
        Some(answer)
    };
    let mut minimal: Vec<u32> = Vec::new();
    let mut sets: Vec<u32> = (0..1u32 << count).collect();
    sets.sort_by_key(|set| (set.count_ones(), *set));
    for set in sets {
        if minimal.iter().any(|m| m & set == *m) {
            continue;
        }
        if ask(set)? {
            minimal.push(set);
            continue;
        }
        // The largest set above that does not suffice either spares the questions for all between.
        let mut larger = set;
        for item in (0..count).map(|i| 1u32 << i) {
            if larger & item == 0 && !ask(larger | item)? {
                larger |= item;
            }
        }
    }
    Some(minimal.into_iter().map(items).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minimal_sets_are_found_and_few_questions_asked() {
        let mut asked = 0;
        let sets = minimal_sets(5, |kept| {
            asked += 1;
            Some(kept.contains(&1) && (kept.contains(&0) || kept.contains(&3) && kept.contains(&4)))
        });
        assert_eq!(sets, Some(vec![vec![0, 1], vec![1, 3, 4]]));
        assert!(asked < 32, "{asked}");
        assert_eq!(minimal_sets(3, |_| Some(true)), Some(vec![vec![]]));
        assert_eq!(minimal_sets(2, |_| Some(false)), Some(vec![]));
        assert_eq!(minimal_sets(2, |_| None), None);
    }
}
