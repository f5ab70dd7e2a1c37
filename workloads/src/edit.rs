//! Changes to a text by its syntax tree: each keeps the other lines where they are as far as it can.

use svm_lang::ast::{Ast, Block, Decl, Expr, ExprKind, ItemKind, Span, Stmt, StmtKind};
use svm_lang::{Role, Source};

/// The tree of a text; none if it is not of the language, which whoever compiles it says.
pub(crate) fn tree(text: &str, role: Role) -> Option<Ast> {
    svm_lang::parse(&Source { file: "", text, role }).ok()
}

/// A piece of the text, and what stands there instead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Edit {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) with: String,
}

impl Edit {
    /// Of what a span covers.
    pub(crate) fn of(span: Span, with: impl Into<String>) -> Edit {
        Edit { start: span.start as usize, end: span.end as usize, with: with.into() }
    }
}

/// The text with the edits made, which must not overlap.
pub(crate) fn apply(text: &str, edits: &[Edit]) -> String {
    let mut edits: Vec<&Edit> = edits.iter().collect();
    edits.sort_by_key(|e| e.start);
    let (mut new, mut at) = (String::with_capacity(text.len()), 0);
    for edit in edits.into_iter() {
        let Some(before) = text.get(at..edit.start) else { continue };
        new.push_str(before);
        new.push_str(&edit.with);
        at = edit.end;
    }
    new.push_str(text.get(at..).unwrap_or_default());
    new
}

/// What a span covers.
pub(crate) fn covered(text: &str, span: Span) -> &str {
    text.get(span.start as usize..span.end as usize).unwrap_or_default()
}

/// The text's line of an offset, from 1.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|b| **b == b'\n').count() + 1
}

/// Calls `f` with each block and the function that it stands in, outer ones first.
pub(crate) fn blocks<'a>(ast: &'a Ast, f: &mut dyn FnMut(&'a str, &'a Block)) {
    for item in &ast.items {
        if let ItemKind::Function(function) = &item.kind
            && let Some(body) = &function.body
        {
            block(body, &function.name.name, f);
        }
    }
}

fn block<'a>(body: &'a Block, function: &'a str, f: &mut dyn FnMut(&'a str, &'a Block)) {
    f(function, body);
    for stmt in &body.stmts {
        for inner in stmt.kind.blocks() {
            block(inner, function, f);
        }
    }
}

/// Calls `f` with each statement and the function that it stands in.
pub(crate) fn stmts<'a>(ast: &'a Ast, f: &mut dyn FnMut(&'a str, &'a Stmt)) {
    blocks(ast, &mut |function, body| body.stmts.iter().for_each(|stmt| f(function, stmt)));
}

/// Calls `f` with each expression in a function, outer ones first.
pub(crate) fn exprs<'a>(ast: &'a Ast, f: &mut dyn FnMut(&'a str, &'a Expr)) {
    stmts(ast, &mut |function, stmt| {
        for e in own_exprs(stmt) {
            expr(e, function, f);
        }
    });
}

/// The expressions right below a statement.
fn own_exprs(stmt: &Stmt) -> Vec<&Expr> {
    fn of_decl(decl: &Decl) -> Vec<&Expr> {
        decl.init.iter().collect()
    }
    match &stmt.kind {
        StmtKind::Expr(e) | StmtKind::Case(e) | StmtKind::Return(Some(e)) => vec![e],
        StmtKind::Decl(decl) => of_decl(decl),
        StmtKind::If { cond, .. } | StmtKind::While { cond, .. } | StmtKind::DoWhile { cond, .. } => {
            vec![cond]
        }
        StmtKind::Switch { on, .. } => vec![on],
        StmtKind::Guard { lock, .. } => vec![lock],
        StmtKind::For { init, cond, step, .. } => {
            let init = init.as_deref().map_or(Vec::new(), own_exprs);
            init.into_iter().chain(cond).chain(step).collect()
        }
        StmtKind::ForEachCpu { mask, filter, .. } => {
            std::iter::once(mask).chain(filter.as_ref().map(|(_, other)| other)).collect()
        }
        StmtKind::ForEachVcpu { vm, .. } => vec![vm],
        StmtKind::ForEachPossibleCpu { .. }
        | StmtKind::ForEachOnlineCpu { .. }
        | StmtKind::Block(_)
        | StmtKind::Empty
        | StmtKind::Default
        | StmtKind::Break
        | StmtKind::Continue
        | StmtKind::Fallthrough
        | StmtKind::Goto(_)
        | StmtKind::Label(_)
        | StmtKind::Return(None) => Vec::new(),
    }
}

fn expr<'a>(e: &'a Expr, function: &'a str, f: &mut dyn FnMut(&'a str, &'a Expr)) {
    f(function, e);
    match &e.kind {
        ExprKind::Int(_) | ExprKind::Bool(_) | ExprKind::Null | ExprKind::Name(_) => {}
        ExprKind::Prefix(_, of)
        | ExprKind::Step { of, .. }
        | ExprKind::Field(of, _)
        | ExprKind::Cast(_, of) => expr(of, function, f),
        ExprKind::Infix(_, a, b) | ExprKind::Assign(_, a, b) | ExprKind::Index(a, b) => {
            expr(a, function, f);
            expr(b, function, f);
        }
        ExprKind::Cond(a, b, c) => {
            for e in [a, b, c] {
                expr(e, function, f);
            }
        }
        ExprKind::Call { args, .. } => args.iter().for_each(|arg| expr(arg, function, f)),
    }
}

/// Calls `f` with an expression and each one in it, outer ones first.
pub(crate) fn within<'a>(e: &'a Expr, f: &mut dyn FnMut(&'a Expr)) {
    expr(e, "", &mut |_, inner| f(inner));
}

/// A call's name and arguments.
pub(crate) fn call(e: &Expr) -> Option<(&str, &[Expr])> {
    match &e.kind {
        ExprKind::Call { name, args } => Some((&name.name, args)),
        ExprKind::Int(_)
        | ExprKind::Bool(_)
        | ExprKind::Null
        | ExprKind::Name(_)
        | ExprKind::Prefix(..)
        | ExprKind::Infix(..)
        | ExprKind::Cond(..)
        | ExprKind::Assign(..)
        | ExprKind::Step { .. }
        | ExprKind::Field(..)
        | ExprKind::Index(..)
        | ExprKind::Cast(..) => None,
    }
}

/// Edits that take a lock away wherever the text takes or gives it: `is` says which argument means it. Trying to take
/// it succeeds.
pub(crate) fn without_lock(text: &str, ast: &Ast, is: &dyn Fn(&str) -> bool) -> Vec<Edit> {
    let mut edits = Vec::new();
    exprs(ast, &mut |_, e| {
        let Some((name, args)) = call(e) else { return };
        if is_lock_call(name) && args.first().is_some_and(|a| is(covered(text, a.span))) {
            let tried = name.contains("trylock");
            edits.push(Edit::of(e.span, if tried { "true" } else { "" }));
        }
    });
    stmts(ast, &mut |_, stmt| {
        if let StmtKind::Guard { lock, .. } = &stmt.kind
            && is(covered(text, lock.span))
        {
            edits.push(Edit::of(stmt.span, ";"));
        }
    });
    edits
}

/// Whether a call takes or gives a lock.
pub(crate) fn is_lock_call(name: &str) -> bool {
    const KINDS: [&str; 4] = ["mutex_", "spin_", "read_", "write_"];
    let plain = KINDS.iter().any(|k| name.starts_with(k)) && name.contains("lock");
    plain
        || ["down_read", "up_read", "down_write", "up_write", "down_read_trylock", "down_write_trylock"]
            .contains(&name)
}

/// The lock's own name in an argument such as `&kvm->flush_lock`.
pub(crate) fn lock_name(argument: &str) -> &str {
    argument.rsplit(['>', '&', ' ', '.', ')']).find(|word| !word.is_empty()).unwrap_or(argument)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "void f(struct kvm *kvm)\n{\n\tmutex_lock(&kvm->flush_lock);\n\tif (mutex_trylock(&kvm->other))\n\t\tg();\n\tmutex_unlock(&kvm->flush_lock);\n}\n";

    #[test]
    fn a_lock_is_taken_away_with_all_its_calls_and_no_other() {
        let ast = tree(TEXT, Role::Policy).unwrap();
        let edits = without_lock(TEXT, &ast, &|arg| lock_name(arg) == "flush_lock");
        let text = apply(TEXT, &edits);
        assert_eq!(text.lines().count(), TEXT.lines().count());
        assert!(!text.contains("flush_lock") && text.contains("mutex_trylock(&kvm->other)"), "{text}");
        let edits = without_lock(TEXT, &ast, &|arg| lock_name(arg) == "other");
        assert!(apply(TEXT, &edits).contains("if (true)"));
    }

    #[test]
    fn edits_are_made_in_the_order_of_the_text() {
        let edit = |start, end, with: &str| Edit { start, end, with: with.to_owned() };
        assert_eq!(apply("abcdef", &[edit(4, 5, "X"), edit(0, 2, "")]), "cdXf");
        assert_eq!(line_of("a\nb\nc", 4), 3);
    }
}
