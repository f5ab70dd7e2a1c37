//! Tokens to a syntax tree: the top level, types, and what all of the parser shares.
//!
//! After an error the parser goes on behind the next `;` or the matching `}`, so that one run shows as many
//! errors as make sense. Nesting is bounded: text that is too deep is refused, never followed.

mod expr;
mod stmt;
mod types;

pub(crate) use types::STRUCTS;

pub(crate) use expr::INFIX;

use crate::ast::{
    Ast, Decl, Each, Expr, ExprKind, Function, Ident, Item, ItemKind, LockType, Object, Span, Type,
};
use crate::diag::Fault;
use crate::kernel::instead_of;
use crate::lex::{Tok, Token, lex};

/// How deep statements and parentheses may nest.
const DEPTH: u32 = 48;
/// Operators in one expression.
const OPERATORS: u32 = 200;
/// Bytes in one text.
const BYTES: usize = 1 << 20;
/// Errors after which the parser gives up.
const FAULTS: usize = 60;

/// An error has been reported; the caller passes it on until somebody can go on.
pub(crate) struct Reported;

pub(crate) type Parsed<T> = Result<T, Reported>;

pub(crate) struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    /// Where a `#define` ends, while one is being read.
    end: Option<usize>,
    faults: Vec<Fault>,
    depth: u32,
    operators: u32,
}

/// Words that cannot be names.
const RESERVED: [&str; 47] = [
    "void",
    "bool",
    "_Bool",
    "int",
    "unsigned",
    "signed",
    "long",
    "short",
    "char",
    "struct",
    "enum",
    "const",
    "static",
    "inline",
    "if",
    "else",
    "while",
    "do",
    "for",
    "switch",
    "case",
    "default",
    "break",
    "continue",
    "goto",
    "return",
    "fallthrough",
    "guard",
    "true",
    "false",
    "NULL",
    "sizeof",
    "typedef",
    "union",
    "extern",
    "register",
    "volatile",
    "float",
    "double",
    "for_each_cpu",
    "for_each_cpu_and",
    "for_each_cpu_andnot",
    "for_each_possible_cpu",
    "for_each_online_cpu",
    "kvm_for_each_vcpu",
    "DEFINE_PER_CPU",
    "DEFINE_PER_ASID",
];

/// Whether a word is the language's own.
pub(crate) fn is_word(word: &str) -> bool {
    [&RESERVED[..], &types::TYPE_WORDS, &stmt::LOOPS].iter().any(|words| words.contains(&word))
}

/// Parses one text.
pub(crate) fn parse_text(text: &str, file: u16) -> (Ast, Vec<Fault>) {
    let mut faults = Vec::new();
    if text.len() > BYTES {
        faults.push(Fault::nowhere("the text is longer than a megabyte"));
        return (Ast::default(), faults);
    }
    let tokens = lex(text, file, &mut faults);
    let mut parser = Parser { tokens, at: 0, end: None, faults, depth: 0, operators: 0 };
    let ast = parser.text();
    (ast, parser.faults)
}

impl<'a> Parser<'a> {
    fn token(&self) -> Token<'a> {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> Token<'a> {
        let last = self.tokens.len() - 1;
        let at = (self.at + ahead).min(last);
        let token = self.tokens[at];
        match self.end {
            Some(end) if at >= end => Token { tok: Tok::End, ..token },
            Some(_) | None => token,
        }
    }

    fn tok(&self) -> Tok<'a> {
        self.token().tok
    }

    fn span(&self) -> Span {
        self.token().span
    }

    /// The place of the token before.
    fn behind(&self) -> Span {
        self.tokens[self.at.saturating_sub(1)].span
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.token();
        if token.tok != Tok::End {
            self.at += 1;
        }
        token
    }

    fn is(&self, punct: &str) -> bool {
        matches!(self.tok(), Tok::Punct(p) if p == punct)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.tok(), Tok::Word(w) if w == word)
    }

    fn eat(&mut self, punct: &str) -> bool {
        let found = self.is(punct);
        if found {
            self.at += 1;
        }
        found
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.at += 1;
        }
        found
    }

    fn fail<T>(&mut self, fault: Fault) -> Parsed<T> {
        self.report(fault);
        Err(Reported)
    }

    /// Reports what the parser can go on after.
    fn report(&mut self, fault: Fault) {
        if self.faults.len() < FAULTS {
            self.faults.push(fault);
        }
    }

    /// What stands here, for a message.
    fn found(&self) -> String {
        match self.tok() {
            Tok::Word(w) => format!("`{w}`"),
            Tok::Int(n) => format!("`{n}`"),
            Tok::Punct(p) => format!("`{p}`"),
            Tok::Str(name) => format!("`\"{name}\"`"),
            Tok::End => match self.end {
                Some(_) => "the end of the line".to_owned(),
                None => "the end of the text".to_owned(),
            },
        }
    }

    fn unexpected<T>(&mut self, expected: &str) -> Parsed<T> {
        let fault = Fault::at(self.span(), format!("unexpected {}", self.found()))
            .expected(format!("expected {expected}"));
        self.fail(fault)
    }

    fn need(&mut self, punct: &str) -> Parsed<Span> {
        if self.is(punct) {
            return Ok(self.next().span);
        }
        // A forgotten `;` is shown behind what it should have ended, not at the next line's beginning.
        if punct == ";" && self.at > 0 {
            let behind = self.behind();
            let fault = Fault::at(
                Span { start: behind.end.saturating_sub(1), ..behind },
                format!("`;` is missing before {}", self.found()),
            );
            return self.fail(fault.expected("expected `;` after this"));
        }
        self.unexpected(&format!("`{punct}`"))
    }

    fn ident(&mut self, what: &str) -> Parsed<Ident> {
        match self.tok() {
            Tok::Word(w) if !RESERVED.contains(&w) => {
                let span = self.next().span;
                Ok(Ident { name: w.to_owned(), span })
            }
            Tok::Word(_) | Tok::Int(_) | Tok::Punct(_) | Tok::Str(_) | Tok::End => self.unexpected(what),
        }
    }

    /// One level deeper, or refused.
    fn deeper<T>(&mut self, f: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= DEPTH {
            let fault = Fault::at(self.span(), "nested too deeply")
                .expected(format!("more than {DEPTH} levels deep here"));
            // Nothing sensible can follow.
            let failed = self.fail(fault);
            self.at = self.tokens.len() - 1;
            return failed;
        }
        self.depth += 1;
        let result = f(self);
        self.depth -= 1;
        result
    }

    /// Goes on behind the next `;` of this level, or before a `}` that closes the level around.
    fn recover(&mut self) {
        let mut open = 0u32;
        loop {
            match self.tok() {
                Tok::End => return,
                Tok::Punct("{") => open += 1,
                Tok::Punct("}") => {
                    if open == 0 {
                        return;
                    }
                    open -= 1;
                    if open == 0 {
                        self.next();
                        return;
                    }
                }
                Tok::Punct(";") if open == 0 => {
                    self.next();
                    return;
                }
                Tok::Punct(_) | Tok::Word(_) | Tok::Int(_) | Tok::Str(_) => {}
            }
            self.next();
        }
    }

    fn text(&mut self) -> Ast {
        let mut items = Vec::new();
        while self.tok() != Tok::End && self.faults.len() < FAULTS {
            let before = self.at;
            if self.item(&mut items).is_err() {
                self.end = None;
                if self.at > before && matches!(self.tokens[self.at - 1].tok, Tok::Punct(";")) {
                    continue;
                }
                if self.at == before {
                    self.next();
                }
                self.recover();
                if self.is("}") {
                    self.next();
                    self.eat(";");
                }
            }
        }
        Ast { items }
    }

    fn item(&mut self, items: &mut Vec<Item>) -> Parsed<()> {
        let start = self.span();
        if self.eat(";") {
            return Ok(());
        }
        let first = items.len();
        if self.is("#") {
            if let Some(kind) = self.directive() {
                items.push(Item { kind, span: start });
            }
        } else {
            self.declaration(items)?;
        }
        let end = self.behind();
        for item in &mut items[first..] {
            item.span = start.to(end);
        }
        Ok(())
    }

    /// `#define NAME value` or `#include "name"`; nothing if the line was reported and passed over.
    fn directive(&mut self) -> Option<ItemKind> {
        let hash = self.next().span;
        let last = self.tokens.len() - 1;
        let end = (self.at..last).find(|&i| self.tokens[i].first).unwrap_or(last);
        self.end = Some(end);
        let item = self.directive_line(hash).ok();
        self.end = None;
        self.at = end;
        item
    }

    fn directive_line(&mut self, hash: Span) -> Parsed<ItemKind> {
        if self.eat_word("include") {
            return self.include_line();
        }
        if !self.eat_word("define") {
            let word = self.found();
            let fault = Fault::at(
                hash.to(self.span()),
                format!("`#` with {word} is not part of the language"),
            )
            .expected("only `#define NAME value` and `#include \"text.c\"` are")
            .help("there is no preprocessor: include a text and redefine its functions instead of `#ifdef`");
            return self.fail(fault);
        }
        let name = self.ident("a name")?;
        if self.is("(") && self.span().start == name.span.end {
            let fault = Fault::at(self.span(), "macros with arguments are not part of the language");
            return self.fail(fault.help("write a `static inline` function: calls are inlined"));
        }
        let value = self.expr()?;
        if self.tok() != Tok::End {
            return self.unexpected("the end of the line");
        }
        Ok(ItemKind::Define { name, value })
    }

    fn include_line(&mut self) -> Parsed<ItemKind> {
        let Token { tok: Tok::Str(name), span, .. } = self.token() else {
            let mut fault = Fault::at(self.span(), format!("unexpected {}", self.found()))
                .expected("expected the name of a text in quotes")
                .help("what the kernel's headers declare is built in: leave `#include <...>` out");
            fault.understood = self.is("<");
            return self.fail(fault);
        };
        self.next();
        if self.tok() != Tok::End {
            return self.unexpected("the end of the line");
        }
        Ok(ItemKind::Include(Ident { name: name.to_owned(), span }))
    }

    fn declaration(&mut self, items: &mut Vec<Item>) -> Parsed<()> {
        let start = self.span();
        let (mut is_static, mut is_inline) = (false, false);
        loop {
            if self.eat_word("static") {
                is_static = true;
            } else if self.eat_word("inline") || self.eat_word("__always_inline") || self.eat_word("noinline")
            {
                is_inline = true;
            } else {
                break;
            }
        }
        if let Tok::Word(word) = self.tok() {
            if let Some((_, kind)) = LockType::DEFINED.into_iter().find(|(define, _)| *define == word) {
                self.next();
                self.need("(")?;
                let name = self.ident("the lock's name")?;
                self.need(")")?;
                self.need(";")?;
                items.push(Item { kind: ItemKind::Lock { kind, name }, span: start });
                return Ok(());
            }
            if let Some((_, each)) = Each::DEFINED.into_iter().find(|(define, _)| *define == word) {
                self.next();
                self.need("(")?;
                let ty = self.ty()?;
                self.need(",")?;
                let name = self.ident("the variable's name")?;
                self.need(")")?;
                let init = if self.eat("=") { Some(self.expr()?) } else { None };
                self.need(";")?;
                let decl = Decl { ty, name, array: None, bits: None, init };
                items.push(Item { kind: ItemKind::Per { each, decl }, span: start });
                return Ok(());
            }
            if word == "DEFINE_OBJECTS" {
                self.next();
                self.need("(")?;
                if !self.eat_word("struct") {
                    return self.unexpected("`struct`");
                }
                let name = self.ident("the structure's name")?;
                self.need(",")?;
                let count = self.expr()?;
                self.need(")")?;
                self.need(";")?;
                items.push(Item { kind: ItemKind::Objects { name, count }, span: start });
                return Ok(());
            }
            if word == "struct"
                && let (Tok::Word(_), Tok::Punct("{")) = (self.peek_at(1).tok, self.peek_at(2).tok)
            {
                let kind = self.structure()?;
                items.push(Item { kind, span: start });
                return Ok(());
            }
            if word == "enum" {
                let named = matches!(self.peek_at(1).tok, Tok::Word(_));
                if matches!(self.peek_at(1 + usize::from(named)).tok, Tok::Punct("{")) {
                    let kind = self.enumeration(named)?;
                    items.push(Item { kind, span: start });
                    return Ok(());
                }
            }
        }
        if !self.type_starts() {
            let word = self.tok();
            let mut fault = Fault::at(self.span(), format!("unexpected {}", self.found())).expected(
                "expected a function, a variable, `struct`, `enum`, `#define`, `DEFINE_PER_CPU` or `DEFINE_MUTEX`",
            );
            if let Tok::Word(word) = word {
                let help = instead_of(word).or_else(|| crate::diag::nearest(word, types::TYPE_WORDS));
                fault = fault.help_if(help);
            }
            return self.fail(fault);
        }
        let is_const = self.is_word("const");
        let ty = self.ty()?;
        // A pointer to what is constant is no constant.
        let is_const = is_const && matches!(ty, Type::Bool | Type::Int(_) | Type::Enum(_));
        let name = self.ident("a name")?;
        if self.is("(") {
            let function = self.function(is_static, is_inline, ty, name)?;
            items.push(Item { kind: ItemKind::Function(function), span: start });
            return Ok(());
        }
        self.declarators(ty, name, false, &mut |decl| {
            items.push(Item { kind: ItemKind::Global { is_static, is_const, decl }, span: start });
        })
    }

    /// The declarators of one declaration, from behind the first name to behind the `;`.
    fn declarators(&mut self, ty: Type, name: Ident, fields: bool, sink: &mut dyn FnMut(Decl)) -> Parsed<()> {
        let mut name = name;
        loop {
            let array = if self.eat("[") {
                let len = self.expr()?;
                self.need("]")?;
                Some(len)
            } else {
                None
            };
            let bits = if fields && self.eat(":") { Some(self.binary_only()?) } else { None };
            let init = if self.eat("=") { Some(self.expr()?) } else { None };
            sink(Decl { ty: ty.clone(), name, array, bits, init });
            if !self.eat(",") {
                break;
            }
            name = self.declarator_name(&ty)?;
        }
        self.need(";")?;
        Ok(())
    }

    /// The name of a further declarator; a pointer's star belongs to the name.
    fn declarator_name(&mut self, ty: &Type) -> Parsed<Ident> {
        let pointer = matches!(ty, Type::Ref(_) | Type::MaskPtr | Type::LockPtr(_) | Type::Opaque);
        let star = self.span();
        if pointer != self.eat("*") {
            let fault = Fault::at(star, "pointers and other variables in one declaration")
                .expected(if pointer { "expected `*`" } else { "unexpected `*`" })
                .help("declare them one by one");
            return self.fail(fault);
        }
        self.ident("a name")
    }

    fn structure(&mut self) -> Parsed<ItemKind> {
        self.next();
        let tag = self.ident("the name of a structure")?;
        let object = match tag.name.as_str() {
            "kvm" => Object::Vm,
            "kvm_vcpu" => Object::Vcpu,
            "page" => Object::Page,
            other if types::STRUCTS.contains(&other) => {
                let fault = Fault::at(tag.span, format!("`struct {other}` cannot be declared"))
                    .expected("it is built in, and has no fields");
                return self.fail(fault);
            }
            other => Object::Pool(other.to_owned()),
        };
        self.need("{")?;
        let mut fields = Vec::new();
        while !self.is("}") {
            if !self.type_starts() {
                let mut fault = Fault::at(self.span(), format!("unexpected {}", self.found()))
                    .expected("expected a field or `}`");
                if let Tok::Word(word) = self.tok() {
                    let help = instead_of(word).or_else(|| crate::diag::nearest(word, types::TYPE_WORDS));
                    fault = fault.help_if(help);
                }
                return self.fail(fault);
            }
            let ty = self.ty()?;
            let name = self.ident("the field's name")?;
            self.declarators(ty, name, true, &mut |decl| fields.push(decl))?;
        }
        self.need("}")?;
        self.need(";")?;
        Ok(ItemKind::Struct { object, fields })
    }

    fn enumeration(&mut self, named: bool) -> Parsed<ItemKind> {
        self.next();
        let name = if named { Some(self.ident("the name of the enumeration")?) } else { None };
        self.need("{")?;
        let mut values = Vec::new();
        while !self.is("}") {
            let constant = self.ident("a constant's name")?;
            let value = if self.eat("=") { Some(self.expr()?) } else { None };
            values.push((constant, value));
            if !self.eat(",") {
                break;
            }
        }
        self.need("}")?;
        self.need(";")?;
        Ok(ItemKind::Enum { name, values })
    }

    fn function(&mut self, is_static: bool, is_inline: bool, result: Type, name: Ident) -> Parsed<Function> {
        self.need("(")?;
        let mut params = Vec::new();
        let no_params = self.is_word("void") && matches!(self.peek_at(1).tok, Tok::Punct(")"));
        if no_params {
            self.next();
        } else if !self.is(")") {
            loop {
                params.push(self.param()?);
                if !self.eat(",") {
                    break;
                }
            }
        }
        self.need(")")?;
        self.qualifiers();
        let body = if self.eat(";") { None } else { Some(self.block()?) };
        Ok(Function { is_static, is_inline, result, name, params, body })
    }

    fn param(&mut self) -> Parsed<Decl> {
        if !self.type_starts() {
            return self.unexpected("a parameter's type");
        }
        let start = self.span();
        let ty = self.ty()?;
        if ty == Type::Void && self.is("(") {
            self.next();
            self.need("*")?;
            let name =
                if self.is(")") { Ident { name: String::new(), span: start } } else { self.ident("a name")? };
            self.need(")")?;
            self.need("(")?;
            let of = self.span();
            if self.ty()? != Type::Opaque {
                return self.fail(
                    Fault::at(of, "functions that are passed on take a `void *`")
                        .expected("expected `void *`"),
                );
            }
            if !self.is(")") {
                self.ident("`)`")?;
            }
            self.need(")")?;
            return Ok(Decl { ty: Type::Func, name, array: None, bits: None, init: None });
        }
        let name = match self.tok() {
            Tok::Word(_) => self.ident("a name")?,
            Tok::Int(_) | Tok::Punct(_) | Tok::Str(_) | Tok::End => {
                Ident { name: String::new(), span: start }
            }
        };
        Ok(Decl { ty, name, array: None, bits: None, init: None })
    }

    /// A constant of a bit-field or the like: no assignment, no `?:`.
    fn binary_only(&mut self) -> Parsed<Expr> {
        self.operators = 0;
        self.binary(0)
    }

    fn name_expr(ident: Ident) -> Expr {
        Expr { kind: ExprKind::Name(ident.name), span: ident.span }
    }
}
