//! Expressions, by precedence climbing.

use super::{OPERATORS, Parsed, Parser};
use crate::ast::{Expr, ExprKind, Ident, Infix, Prefix};
use crate::diag::Fault;
use crate::lex::Tok;

/// Infix operators and how tightly they bind.
pub(crate) const INFIX: [(&str, Infix, u8); 18] = [
    ("||", Infix::Or, 1),
    ("&&", Infix::And, 2),
    ("|", Infix::BitOr, 3),
    ("^", Infix::BitXor, 4),
    ("&", Infix::BitAnd, 5),
    ("==", Infix::Eq, 6),
    ("!=", Infix::Ne, 6),
    ("<", Infix::Lt, 7),
    ("<=", Infix::Le, 7),
    (">", Infix::Gt, 7),
    (">=", Infix::Ge, 7),
    ("<<", Infix::Shl, 8),
    (">>", Infix::Shr, 8),
    ("+", Infix::Add, 9),
    ("-", Infix::Sub, 9),
    ("*", Infix::Mul, 10),
    ("/", Infix::Div, 10),
    ("%", Infix::Rem, 10),
];

/// Assignment operators.
const ASSIGN: [(&str, Option<Infix>); 11] = [
    ("=", None),
    ("+=", Some(Infix::Add)),
    ("-=", Some(Infix::Sub)),
    ("*=", Some(Infix::Mul)),
    ("/=", Some(Infix::Div)),
    ("%=", Some(Infix::Rem)),
    ("&=", Some(Infix::BitAnd)),
    ("|=", Some(Infix::BitOr)),
    ("^=", Some(Infix::BitXor)),
    ("<<=", Some(Infix::Shl)),
    (">>=", Some(Infix::Shr)),
];

impl Parser<'_> {
    /// A whole expression.
    pub(super) fn expr(&mut self) -> Parsed<Expr> {
        self.operators = 0;
        self.assignment()
    }

    /// Counts an operator, so that no tree becomes deeper than can be walked.
    fn operator(&mut self) -> Parsed<()> {
        self.operators += 1;
        if self.operators > OPERATORS {
            let fault = Fault::at(self.span(), "the expression is too long")
                .expected(format!("more than {OPERATORS} operators"))
                .help("use a local variable for a part of it");
            return self.fail(fault);
        }
        Ok(())
    }

    fn assignment(&mut self) -> Parsed<Expr> {
        self.deeper(|p| {
            let lhs = p.conditional()?;
            let Tok::Punct(punct) = p.tok() else { return Ok(lhs) };
            let Some(&(_, op)) = ASSIGN.iter().find(|(text, _)| *text == punct) else { return Ok(lhs) };
            p.operator()?;
            p.next();
            let rhs = p.assignment()?;
            let span = lhs.span.to(rhs.span);
            Ok(Expr { kind: ExprKind::Assign(op, Box::new(lhs), Box::new(rhs)), span })
        })
    }

    fn conditional(&mut self) -> Parsed<Expr> {
        let cond = self.binary(0)?;
        if !self.is("?") {
            return Ok(cond);
        }
        self.operator()?;
        self.next();
        let then = self.assignment()?;
        self.need(":")?;
        let otherwise = self.deeper(Self::conditional)?;
        let span = cond.span.to(otherwise.span);
        Ok(Expr { kind: ExprKind::Cond(Box::new(cond), Box::new(then), Box::new(otherwise)), span })
    }

    pub(super) fn binary(&mut self, least: u8) -> Parsed<Expr> {
        let mut lhs = self.unary()?;
        while let Tok::Punct(punct) = self.tok() {
            let Some(&(_, op, binds)) = INFIX.iter().find(|(text, _, _)| *text == punct) else { break };
            if binds <= least {
                break;
            }
            self.operator()?;
            self.next();
            let rhs = self.deeper(|p| p.binary(binds))?;
            let span = lhs.span.to(rhs.span);
            lhs = Expr { kind: ExprKind::Infix(op, Box::new(lhs), Box::new(rhs)), span };
        }
        Ok(lhs)
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let start = self.span();
        let prefix = match self.tok() {
            Tok::Punct("-") => Prefix::Neg,
            Tok::Punct("~") => Prefix::BitNot,
            Tok::Punct("!") => Prefix::Not,
            Tok::Punct("&") => Prefix::AddressOf,
            Tok::Punct("+") => {
                self.next();
                return self.deeper(Self::unary);
            }
            Tok::Punct(step @ ("++" | "--")) => {
                self.operator()?;
                self.next();
                let of = self.deeper(Self::unary)?;
                let span = start.to(of.span);
                return Ok(Expr {
                    kind: ExprKind::Step { up: step == "++", prefix: true, of: Box::new(of) },
                    span,
                });
            }
            Tok::Punct("*") => {
                let fault = Fault::at(start, "pointers are not followed with `*`")
                    .help("`->` reads a field; a mask or lock is passed on as it is");
                return self.fail(fault);
            }
            Tok::Punct(_) | Tok::Word(_) | Tok::Int(_) | Tok::Str(_) | Tok::End => return self.postfix(),
        };
        self.operator()?;
        self.next();
        let of = self.deeper(Self::unary)?;
        let span = start.to(of.span);
        Ok(Expr { kind: ExprKind::Prefix(prefix, Box::new(of)), span })
    }

    fn postfix(&mut self) -> Parsed<Expr> {
        let mut of = self.primary()?;
        loop {
            let start = of.span;
            if self.is("->") || self.is(".") {
                if self.is(".") {
                    let fault = Fault::at(self.span(), "objects are only referred to: there is no `.`")
                        .expected("expected `->`");
                    self.report(fault.understood());
                }
                self.operator()?;
                self.next();
                let field = self.ident("a field's name")?;
                let span = start.to(field.span);
                of = Expr { kind: ExprKind::Field(Box::new(of), field), span };
            } else if self.is("[") {
                self.operator()?;
                self.next();
                let index = self.assignment()?;
                let span = start.to(self.need("]")?);
                of = Expr { kind: ExprKind::Index(Box::new(of), Box::new(index)), span };
            } else if self.is("++") || self.is("--") {
                self.operator()?;
                let up = self.is("++");
                let span = start.to(self.next().span);
                of = Expr { kind: ExprKind::Step { up, prefix: false, of: Box::new(of) }, span };
            } else {
                return Ok(of);
            }
        }
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let span = self.span();
        match self.tok() {
            Tok::Int(n) => {
                self.next();
                Ok(Expr { kind: ExprKind::Int(n), span })
            }
            Tok::Punct("(") => {
                self.next();
                if self.type_starts() {
                    let ty = self.ty()?;
                    self.need(")")?;
                    self.operator()?;
                    let of = self.deeper(Self::unary)?;
                    let span = span.to(of.span);
                    return Ok(Expr { kind: ExprKind::Cast(ty, Box::new(of)), span });
                }
                let mut inner = self.assignment()?;
                inner.span = span.to(self.need(")")?);
                Ok(inner)
            }
            Tok::Word("true") => {
                self.next();
                Ok(Expr { kind: ExprKind::Bool(true), span })
            }
            Tok::Word("false") => {
                self.next();
                Ok(Expr { kind: ExprKind::Bool(false), span })
            }
            Tok::Word("NULL") => {
                self.next();
                Ok(Expr { kind: ExprKind::Null, span })
            }
            Tok::Word("sizeof") => self.size_of(),
            Tok::Word(_) => {
                let name = self.ident("an expression")?;
                if !self.is("(") {
                    return Ok(Self::name_expr(name));
                }
                self.operator()?;
                self.next();
                let mut args = Vec::new();
                if !self.is(")") {
                    loop {
                        args.push(self.assignment()?);
                        if !self.eat(",") {
                            break;
                        }
                    }
                }
                let span = span.to(self.need(")")?);
                Ok(Expr { kind: ExprKind::Call { name, args }, span })
            }
            Tok::Punct(_) | Tok::Str(_) | Tok::End => self.unexpected("an expression"),
        }
    }

    /// `sizeof(struct name)` or `sizeof(*local)`, which only allocations ask for: a call with what it measures as a name.
    fn size_of(&mut self) -> Parsed<Expr> {
        let name = Ident { name: "sizeof".to_owned(), span: self.next().span };
        self.need("(")?;
        let start = self.span();
        let of = if self.eat("*") {
            format!("*{}", self.ident("a local variable")?.name)
        } else if self.eat_word("struct") {
            format!("struct {}", self.ident("the name of a structure")?.name)
        } else {
            return self.unexpected("`struct name` or `*local`");
        };
        let of = Expr { kind: ExprKind::Name(of), span: start.to(self.behind()) };
        let span = name.span.to(self.need(")")?);
        Ok(Expr { kind: ExprKind::Call { name, args: vec![of] }, span })
    }
}
