//! Statements.

use super::types::TYPE_WORDS;
use super::{Parsed, Parser, Reported};
use crate::ast::{Block, Decl, Expr, ExprKind, Filter, GuardKind, Ident, Span, Stmt, StmtKind};
use crate::diag::{Fault, nearest};
use crate::kernel::instead_of;
use crate::lex::Tok;

/// Statements that look like calls.
pub(super) const LOOPS: [&str; 8] = [
    "guard",
    "scoped_guard",
    "for_each_cpu",
    "for_each_cpu_and",
    "for_each_cpu_andnot",
    "for_each_possible_cpu",
    "for_each_online_cpu",
    "kvm_for_each_vcpu",
];

impl Parser<'_> {
    pub(super) fn block(&mut self) -> Parsed<Block> {
        let start = self.need("{")?;
        self.deeper(|p| {
            let mut stmts = Vec::new();
            let mut failed = false;
            while !p.is("}") && p.tok() != Tok::End {
                let before = p.at;
                if p.stmt(&mut stmts).is_err() {
                    failed = true;
                    if p.faults.len() >= super::FAULTS {
                        return Err(Reported);
                    }
                    let behind = p.at > before && matches!(p.tokens[p.at - 1].tok, Tok::Punct(";"));
                    if !behind {
                        p.recover();
                    }
                    if p.at == before && !p.is("}") {
                        p.next();
                    }
                }
            }
            if p.tok() == Tok::End && failed {
                return Err(Reported);
            }
            let end = if p.is("}") {
                p.next().span
            } else {
                let fault = Fault::at(start, "this `{` is never closed").expected("no `}` for it");
                return p.fail(fault);
            };
            Ok(Block { stmts, span: start.to(end) })
        })
    }

    /// The body of an `if` or a loop, which is always a block in the tree.
    fn body(&mut self) -> Parsed<Block> {
        if self.is("{") {
            return self.block();
        }
        let start = self.span();
        let label = matches!((self.tok(), self.peek_at(1).tok), (Tok::Word(w), Tok::Punct(":")) if w != "default")
            || self.is_word("case")
            || self.is_word("default");
        if label || self.type_starts() || self.is_word("guard") {
            let what = if label { "a label" } else { "a declaration" };
            let fault = Fault::at(start, format!("{what} cannot be a whole body"))
                .expected("expected a statement or `{`");
            return self.fail(fault);
        }
        self.deeper(|p| {
            let mut stmts = Vec::new();
            p.stmt(&mut stmts)?;
            Ok(Block { stmts, span: start.to(p.behind()) })
        })
    }

    fn stmt(&mut self, out: &mut Vec<Stmt>) -> Parsed<()> {
        let start = self.span();
        let Tok::Word(word) = self.tok() else {
            if self.is("{") {
                let block = self.block()?;
                out.push(Stmt { kind: StmtKind::Block(block), span: start });
                return Ok(());
            }
            if self.eat(";") {
                out.push(Stmt { kind: StmtKind::Empty, span: start });
                return Ok(());
            }
            return self.expr_stmt(start, out);
        };
        if self.type_starts() {
            return self.local(start, out);
        }
        let label_follows = matches!(self.peek_at(1).tok, Tok::Punct(":"));
        let kind = match word {
            "if" => return self.if_stmt(start, out),
            "while" => {
                self.next();
                self.need("(")?;
                let cond = self.expr()?;
                let span = start.to(self.need(")")?);
                let body = self.body()?;
                out.push(Stmt { kind: StmtKind::While { cond, body }, span });
                return Ok(());
            }
            "do" => {
                self.next();
                let body = self.body()?;
                let at = self.span();
                if !self.eat_word("while") {
                    return self.unexpected("`while`");
                }
                self.need("(")?;
                let cond = self.expr()?;
                let span = at.to(self.need(")")?);
                self.need(";")?;
                out.push(Stmt { kind: StmtKind::DoWhile { body, cond }, span });
                return Ok(());
            }
            "for" => return self.for_stmt(start, out),
            "switch" => {
                self.next();
                self.need("(")?;
                let on = self.expr()?;
                let span = start.to(self.need(")")?);
                let body = self.block()?;
                out.push(Stmt { kind: StmtKind::Switch { on, body }, span });
                return Ok(());
            }
            "case" => {
                self.next();
                let value = self.expr()?;
                let span = start.to(self.need(":")?);
                out.push(Stmt { kind: StmtKind::Case(value), span });
                return Ok(());
            }
            "default" => {
                self.next();
                let span = start.to(self.need(":")?);
                out.push(Stmt { kind: StmtKind::Default, span });
                return Ok(());
            }
            "break" => self.word_stmt(StmtKind::Break),
            "continue" => self.word_stmt(StmtKind::Continue),
            "fallthrough" => self.word_stmt(StmtKind::Fallthrough),
            "goto" => {
                self.next();
                StmtKind::Goto(self.ident("a label")?)
            }
            "return" => {
                self.next();
                StmtKind::Return(if self.is(";") { None } else { Some(self.expr()?) })
            }
            "guard" => self.guard()?,
            "scoped_guard" => return self.scoped_guard(start, out),
            "for_each_cpu"
            | "for_each_cpu_and"
            | "for_each_cpu_andnot"
            | "for_each_possible_cpu"
            | "for_each_online_cpu"
            | "kvm_for_each_vcpu" => {
                return self.for_each(word, start, out);
            }
            "else" => {
                let fault = Fault::at(start, "`else` without an `if`")
                    .expected("the `if` before ended with its statement");
                return self.fail(fault);
            }
            _ if label_follows => {
                let label = self.ident("a label")?;
                let span = start.to(self.need(":")?);
                out.push(Stmt { kind: StmtKind::Label(label), span });
                return Ok(());
            }
            _ => return self.expr_stmt(start, out),
        };
        let span = start.to(self.need(";")?);
        out.push(Stmt { kind, span });
        Ok(())
    }

    fn word_stmt(&mut self, kind: StmtKind) -> StmtKind {
        self.next();
        kind
    }

    fn expr_stmt(&mut self, start: Span, out: &mut Vec<Stmt>) -> Parsed<()> {
        let expr = self.expr()?;
        self.no_statement(&expr)?;
        let span = start.to(self.need(";")?);
        out.push(Stmt { kind: StmtKind::Expr(expr), span });
        Ok(())
    }

    /// Refuses what looks like a statement or a declaration of the kernel's, where a `;` would not help.
    fn no_statement(&mut self, expr: &Expr) -> Parsed<()> {
        let next = self.token();
        let word = matches!(next.tok, Tok::Word(_)) && !next.first;
        let (name, what) = if let ExprKind::Name(name) = &expr.kind
            && word
        {
            (name.as_str(), "type")
        } else if let ExprKind::Call { name, .. } = &expr.kind
            && (word || matches!(next.tok, Tok::Punct("(" | "{")))
        {
            (name.name.as_str(), "statement")
        } else {
            return Ok(());
        };
        let fault = Fault::at(expr.span, format!("`{name}` is no {what} that is known here"));
        let like: &[&str] = if what == "type" { &TYPE_WORDS } else { &LOOPS };
        let help = instead_of(name).or_else(|| nearest(name, like));
        self.fail(fault.help_if(help))
    }

    fn local(&mut self, start: Span, out: &mut Vec<Stmt>) -> Parsed<()> {
        let ty = self.ty()?;
        let name = self.ident("a name")?;
        let first = out.len();
        self.declarators(ty, name, false, &mut |decl| {
            out.push(Stmt { kind: StmtKind::Decl(decl), span: start });
        })?;
        let end = self.behind();
        for stmt in &mut out[first..] {
            stmt.span = start.to(end);
        }
        Ok(())
    }

    fn if_stmt(&mut self, start: Span, out: &mut Vec<Stmt>) -> Parsed<()> {
        self.next();
        self.need("(")?;
        let cond = self.expr()?;
        let span = start.to(self.need(")")?);
        let then = self.body()?;
        let otherwise = if self.eat_word("else") { Some(self.body()?) } else { None };
        out.push(Stmt { kind: StmtKind::If { cond, then, otherwise }, span });
        Ok(())
    }

    fn for_stmt(&mut self, start: Span, out: &mut Vec<Stmt>) -> Parsed<()> {
        self.next();
        self.need("(")?;
        let at = self.span();
        let init = if self.eat(";") {
            None
        } else if self.type_starts() {
            let ty = self.ty()?;
            let name = self.ident("a name")?;
            self.need("=")?;
            let init = Some(self.expr()?);
            let span = at.to(self.need(";")?);
            let decl = Decl { ty, name, array: None, bits: None, init };
            Some(Box::new(Stmt { kind: StmtKind::Decl(decl), span }))
        } else {
            let expr = self.expr()?;
            let span = at.to(self.need(";")?);
            Some(Box::new(Stmt { kind: StmtKind::Expr(expr), span }))
        };
        let cond = if self.is(";") { None } else { Some(self.expr()?) };
        self.need(";")?;
        let step = if self.is(")") { None } else { Some(self.expr()?) };
        let span = start.to(self.need(")")?);
        let body = self.body()?;
        out.push(Stmt { kind: StmtKind::For { init, cond, step, body }, span });
        Ok(())
    }

    /// `scoped_guard(kind, lock) statement`: as the kernel's, a loop that runs once, so that `break` gives the lock back.
    fn scoped_guard(&mut self, start: Span, out: &mut Vec<Stmt>) -> Parsed<()> {
        self.next();
        self.need("(")?;
        let guard = self.guard_kind()?;
        self.need(",")?;
        let lock = self.expr()?;
        let span = start.to(self.need(")")?);
        let body = self.body()?;
        let around = Span { start: start.start, ..body.span };
        let held = Stmt { kind: StmtKind::Guard { kind: guard, lock }, span };
        let inner = Stmt { span: body.span, kind: StmtKind::Block(body) };
        let body = Block { stmts: vec![held, inner], span: around };
        let cond = Expr { kind: ExprKind::Int(0), span };
        out.push(Stmt { kind: StmtKind::DoWhile { body, cond }, span });
        Ok(())
    }

    fn guard(&mut self) -> Parsed<StmtKind> {
        self.next();
        self.need("(")?;
        let guard = self.guard_kind()?;
        self.need(")")?;
        self.need("(")?;
        let lock = self.expr()?;
        self.need(")")?;
        Ok(StmtKind::Guard { kind: guard, lock })
    }

    fn guard_kind(&mut self) -> Parsed<GuardKind> {
        let kind: Ident = self.ident("a kind of guard")?;
        let Some((_, guard)) = GuardKind::ALL.into_iter().find(|(word, _)| *word == kind.name) else {
            let words = GuardKind::ALL.map(|(word, _)| word);
            let fault = Fault::at(kind.span, format!("there is no `guard({})`", kind.name))
                .expected(format!("expected one of {}", words.join(", ")))
                .help_if(nearest(&kind.name, words));
            return self.fail(fault);
        };
        Ok(guard)
    }

    fn for_each(&mut self, word: &str, start: Span, out: &mut Vec<Stmt>) -> Parsed<()> {
        self.next();
        self.need("(")?;
        let cpu = self.expr()?;
        let filter = Filter::LOOPS.into_iter().find(|(name, _)| *name == word).map(|(_, filter)| filter);
        let second = if filter.is_some() || matches!(word, "for_each_cpu" | "kvm_for_each_vcpu") {
            self.need(",")?;
            Some(self.expr()?)
        } else {
            None
        };
        let third = if filter.is_some() || word == "kvm_for_each_vcpu" {
            self.need(",")?;
            Some(self.expr()?)
        } else {
            None
        };
        let span = start.to(self.need(")")?);
        let body = self.body()?;
        let kind = match (second, third) {
            (Some(mask), Some(other)) if filter.is_some() => {
                StmtKind::ForEachCpu { cpu, mask, filter: filter.map(|f| (f, other)), body }
            }
            (Some(vcpu), Some(vm)) => StmtKind::ForEachVcpu { index: cpu, vcpu, vm, body },
            (Some(mask), None) => StmtKind::ForEachCpu { cpu, mask, filter: None, body },
            (None, _) if word == "for_each_online_cpu" => StmtKind::ForEachOnlineCpu { cpu, body },
            (None, _) => StmtKind::ForEachPossibleCpu { cpu, body },
        };
        out.push(Stmt { kind, span });
        Ok(())
    }
}
