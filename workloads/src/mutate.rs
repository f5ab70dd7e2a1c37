//! Mutants of a policy: each drops, weakens or reorders one statement of its text.
//!
//! *Promise*: the mutants of a text, their order and their descriptions depend on nothing but the text.

use svm_lang::Role;
use svm_lang::ast::{Ast, Block, Expr, ItemKind, Span, Stmt, StmtKind};

use crate::edit::{self, Edit};

/// What was done to a statement.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Change {
    /// It is gone.
    Dropped,
    /// A condition is always true, or never.
    Decided,
    /// An operation is a weaker one.
    Weakened,
    /// A lock is gone wherever it is taken and given.
    Unlocked,
    /// It stands behind the next one.
    Swapped,
    /// A hook's body is run at another hook.
    Moved,
}

impl Change {
    /// As in JSON and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Change::Dropped => "dropped",
            Change::Decided => "decided",
            Change::Weakened => "weakened",
            Change::Unlocked => "unlocked",
            Change::Swapped => "swapped",
            Change::Moved => "moved",
        }
    }
}

/// A changed text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mutant {
    /// What was done.
    pub change: Change,
    /// The line of the original, from 1.
    pub line: usize,
    /// What stood there, on one line.
    pub was: String,
    /// What stands there now.
    pub is: String,
    /// The whole text.
    pub text: String,
}

/// The text in the making.
struct Maker<'t> {
    text: &'t str,
    made: Vec<Mutant>,
}

/// On one line.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Maker<'_> {
    fn add(&mut self, change: Change, span: Span, edits: &[Edit], is: &str) {
        let was = flat(edit::covered(self.text, span));
        self.add_as(change, span, was, edits, is);
    }

    fn add_as(&mut self, change: Change, span: Span, was: String, edits: &[Edit], is: &str) {
        let text = edit::apply(self.text, edits);
        if text != self.text && self.made.iter().all(|m| m.text != text) {
            let line = edit::line_of(self.text, span.start as usize);
            self.made.push(Mutant { change, line, was, is: is.to_owned(), text });
        }
    }

    fn statement(&mut self, stmt: &Stmt) {
        match &stmt.kind {
            StmtKind::Expr(e) => {
                // The lock's other half left alone is a deadlock or a lock given back by who has it not.
                self.add(Change::Dropped, stmt.span, &[Edit::of(stmt.span, ";")], ";");
                self.weaker(e, true);
            }
            StmtKind::If { cond, .. } | StmtKind::While { cond, .. } => {
                for (value, said) in [("true", "always"), ("false", "never")] {
                    self.add(Change::Decided, cond.span, &[Edit::of(cond.span, value)], said);
                }
                self.weaker(cond, false);
            }
            StmtKind::Guard { .. } => self.add(Change::Dropped, stmt.span, &[Edit::of(stmt.span, ";")], ";"),
            StmtKind::Return(Some(value)) => self.weaker(value, false),
            StmtKind::Return(None) => self.add(Change::Dropped, stmt.span, &[Edit::of(stmt.span, ";")], ";"),
            StmtKind::Decl(decl) => {
                if let Some(init) = &decl.init {
                    self.weaker(init, false);
                }
            }
            StmtKind::Break | StmtKind::Continue | StmtKind::Goto(_) => {
                self.add(Change::Dropped, stmt.span, &[Edit::of(stmt.span, ";")], ";");
            }
            StmtKind::Empty
            | StmtKind::Block(_)
            | StmtKind::DoWhile { .. }
            | StmtKind::For { .. }
            | StmtKind::Switch { .. }
            | StmtKind::Case(_)
            | StmtKind::Default
            | StmtKind::Fallthrough
            | StmtKind::Label(_)
            | StmtKind::ForEachCpu { .. }
            | StmtKind::ForEachPossibleCpu { .. }
            | StmtKind::ForEachOnlineCpu { .. }
            | StmtKind::ForEachVcpu { .. } => {}
        }
    }

    /// Weaker forms of the calls in an expression, which is a statement if `alone`.
    fn weaker(&mut self, e: &Expr, alone: bool) {
        for call in calls(e) {
            let Some((name, args)) = edit::call(call) else { continue };
            let whole = alone && std::ptr::eq(call, e);
            for is in weaker_forms(name, args, self.text, whole) {
                self.add(Change::Weakened, call.span, &[Edit::of(call.span, is.clone())], &is);
            }
        }
    }

    /// Neighbours that are both plain statements change places.
    fn swaps(&mut self, block: &Block) {
        let plain = |s: &Stmt| matches!(s.kind, StmtKind::Expr(_));
        for pair in block.stmts.windows(2) {
            let (a, b) = (&pair[0], &pair[1]);
            if plain(a) && plain(b) {
                let (first, second) = (edit::covered(self.text, a.span), edit::covered(self.text, b.span));
                let edits = [Edit::of(a.span, second), Edit::of(b.span, first)];
                let is = format!("after {}", flat(second));
                self.add(Change::Swapped, a.span, &edits, &is);
            }
        }
    }

    fn locks(&mut self, ast: &Ast) {
        let mut locks: Vec<(String, Span)> = Vec::new();
        edit::exprs(ast, &mut |_, e| {
            let Some((name, [lock, ..])) = edit::call(e) else { return };
            let argument = edit::covered(self.text, lock.span);
            if edit::is_lock_call(name) && locks.iter().all(|l| l.0 != argument) {
                locks.push((argument.to_owned(), e.span));
            }
        });
        for (lock, span) in locks {
            let edits = edit::without_lock(self.text, ast, &|argument| argument == lock);
            self.add_as(Change::Unlocked, span, lock, &edits, "taken and given nowhere");
        }
    }

    /// A hook's body runs at another hook that the policy leaves empty.
    fn moves(&mut self, ast: &Ast) {
        let functions = || {
            ast.items.iter().filter_map(|i| {
                let ItemKind::Function(f) = &i.kind else { return None };
                f.body.is_some().then_some(&f.name)
            })
        };
        for (from, to) in MOVES {
            let Some(name) = functions().find(|f| f.name == *from) else { continue };
            if functions().all(|f| f.name != *to) {
                self.add(Change::Moved, name.span, &[Edit::of(name.span, *to)], to);
            }
        }
    }
}

/// Hooks with the same parameters: where a mark is made too early, and too late.
const MOVES: &[(&str, &str)] = &[
    ("pre_sev_run", "sev_vcpu_exit"),
    ("pre_sev_run", "sev_vcpu_load"),
    ("sev_vcpu_load", "sev_vcpu_exit"),
    ("sev_vcpu_load", "sev_vcpu_load_prepare"),
];

/// Every call in an expression, outer ones first.
fn calls(e: &Expr) -> Vec<&Expr> {
    let mut found = Vec::new();
    edit::within(e, &mut |inner| {
        if edit::call(inner).is_some() {
            found.push(inner);
        }
    });
    found
}

/// What may stand in a call's place and promises less; `whole` if nobody looks at its value.
fn weaker_forms(name: &str, args: &[Expr], text: &str, whole: bool) -> Vec<String> {
    let arg = |i: usize| args.get(i).map_or("", |a: &Expr| edit::covered(text, a.span));
    let all = args.iter().map(|a| edit::covered(text, a.span)).collect::<Vec<_>>().join(", ");
    let mut forms = Vec::new();
    match name {
        "cpumask_set_cpu" | "cpumask_clear_cpu" => forms.push(format!("__{name}({all})")),
        "cpumask_test_and_set_cpu" | "cpumask_test_and_clear_cpu" => {
            forms.push(format!("cpumask_test_cpu({all})"));
        }
        "on_each_cpu_mask" if arg(3) == "true" => {
            forms.push(format!("{name}({}, {}, {}, false)", arg(0), arg(1), arg(2)));
        }
        "smp_call_function_single" if arg(3) == "true" => {
            forms.push(format!("{name}({}, {}, {}, false)", arg(0), arg(1), arg(2)));
        }
        "on_each_cpu" if arg(2) == "true" => forms.push(format!("{name}({}, {}, false)", arg(0), arg(1))),
        "wbinvd" => forms.push("wbnoinvd()".to_owned()),
        "wbinvd_on_all_cpus" => forms.push("wbnoinvd_on_all_cpus()".to_owned()),
        "wbinvd_on_cpus_mask" => forms.push(format!("wbnoinvd_on_cpus_mask({all})")),
        "atomic_cmpxchg" if whole => forms.push(format!("atomic_set({}, {})", arg(0), arg(2))),
        "xchg" if whole => forms.push(format!("WRITE_ONCE({}, {})", arg(0), arg(1))),
        "smp_load_acquire" => forms.push(format!("READ_ONCE({})", arg(0).trim_start_matches('&'))),
        "smp_store_release" if whole => {
            forms.push(format!("WRITE_ONCE({}, {})", arg(0).trim_start_matches('&'), arg(1)));
        }
        _ => {}
    }
    forms
}

/// The mutants of a policy's text, in the order of its lines; none of a text that is not of the language.
#[must_use]
pub fn mutants(text: &str) -> Vec<Mutant> {
    let Some(ast) = edit::tree(text, Role::Policy) else { return Vec::new() };
    let mut maker = Maker { text, made: Vec::new() };
    let mut blocks: Vec<&Block> = Vec::new();
    edit::blocks(&ast, &mut |_, block| blocks.push(block));
    for block in blocks {
        block.stmts.iter().for_each(|stmt| maker.statement(stmt));
        maker.swaps(block);
    }
    maker.locks(&ast);
    maker.moves(&ast);
    maker.made.sort_by_key(|m| m.line);
    maker.made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(policy: &str) -> Vec<Mutant> {
        let policy = svm_model::text::POLICIES.iter().find(|p| p.name == policy).unwrap();
        mutants(policy.text)
    }

    #[test]
    fn every_kind_of_change_is_made_and_each_text_is_of_the_language() {
        let all: Vec<Mutant> = svm_model::text::POLICIES.iter().flat_map(|p| mutants(p.text)).collect();
        for mutant in &all {
            assert!(edit::tree(&mutant.text, Role::Policy).is_some(), "{}\n{}", mutant.was, mutant.text);
        }
        for change in [
            Change::Dropped,
            Change::Decided,
            Change::Weakened,
            Change::Unlocked,
            Change::Swapped,
            Change::Moved,
        ] {
            assert!(all.iter().any(|m| m.change == change), "{}", change.name());
        }
        assert!(all.len() > 200, "{}", all.len());
    }

    #[test]
    fn the_mutants_of_the_mutex_policy() {
        let made = of("clear-remark-mutex");
        let has = |change: Change, was: &str, is: &str| {
            made.iter().any(|m| m.change == change && m.was == was && m.is == is)
        };
        assert!(has(Change::Unlocked, "&kvm->flush_lock", "taken and given nowhere"));
        assert!(has(Change::Decided, "vcpu && vcpu->kvm == kvm", "never"));
        assert!(has(
            Change::Weakened,
            "cpumask_test_and_clear_cpu(cpu, kvm->dirty_cpus)",
            "cpumask_test_cpu(cpu, kvm->dirty_cpus)"
        ));
        assert!(has(
            Change::Weakened,
            "on_each_cpu_mask(flush, flush_and_remark, kvm, true)",
            "on_each_cpu_mask(flush, flush_and_remark, kvm, false)"
        ));
        assert!(has(Change::Swapped, "wbnoinvd();", "after vcpu = kvm_get_running_vcpu();"));
        assert!(has(Change::Moved, "sev_vcpu_load", "sev_vcpu_exit"));
        assert!(made.windows(2).all(|m| m[0].line <= m[1].line));
    }
}
