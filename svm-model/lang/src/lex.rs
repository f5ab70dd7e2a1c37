//! Text to tokens.

use crate::ast::Span;
use crate::diag::Fault;
use crate::kernel::instead_of;

/// Bytes in a name.
const NAME: usize = 255;

/// A token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tok<'a> {
    Word(&'a str),
    Int(i64),
    Punct(&'static str),
    /// What stands between the quotes of an `#include`.
    Str(&'a str),
    End,
}

/// A token and where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) tok: Tok<'a>,
    pub(crate) span: Span,
    /// Whether it is the first of its line: that ends a `#define`.
    pub(crate) first: bool,
}

/// Longest first, so that the first that fits is the right one.
const PUNCTS: [&str; 46] = [
    "<<=", ">>=", "...", "->", "++", "--", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "+=", "-=", "*=",
    "/=", "%=", "&=", "|=", "^=", "(", ")", "{", "}", "[", "]", ";", ",", ":", "?", "=", "<", ">", "+", "-",
    "*", "/", "%", "&", "|", "^", "~", "!", "#",
];

/// A dot is a token only to be refused with a helpful message.
const DOT: &str = ".";

/// Splits a text; what cannot be a token is reported and passed over.
pub(crate) fn lex<'a>(text: &'a str, file: u16, faults: &mut Vec<Fault>) -> Vec<Token<'a>> {
    let span = |start: usize, end: usize| Span {
        file,
        start: u32::try_from(start).unwrap_or(u32::MAX),
        end: u32::try_from(end).unwrap_or(u32::MAX),
    };
    let mut tokens = Vec::new();
    let mut first = true;
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if c == '\n' {
            first = true;
            at += 1;
            continue;
        }
        // A byte order mark is no part of a text.
        if c.is_whitespace() || c == '\u{feff}' && at == 0 {
            at += c.len_utf8();
            continue;
        }
        if rest.starts_with("\\\n") || rest.starts_with("\\\r\n") {
            at += if rest.starts_with("\\\n") { 2 } else { 3 };
            continue;
        }
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        if let Some(comment) = rest.strip_prefix("/*") {
            match comment.find("*/") {
                Some(end) => {
                    first |= rest[..end + 4].contains('\n');
                    at += end + 4;
                }
                None => {
                    faults.push(
                        Fault::at(span(at, at + 2), "comment without an end").expected("no `*/` follows"),
                    );
                    at = text.len();
                }
            }
            continue;
        }
        let (tok, len) = if c.is_ascii_alphabetic() || c == '_' {
            let len = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            if len > NAME {
                let fault = Fault::at(span(at, at + len), format!("a name of {len} characters"));
                faults.push(fault.expected(format!("expected at most {NAME}")));
            }
            (Some(Tok::Word(&rest[..len.min(NAME)])), len)
        } else if c.is_ascii_digit() {
            let len = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            match number(&rest[..len]) {
                Some(n) => (Some(Tok::Int(n)), len),
                None => {
                    faults.push(
                        Fault::at(
                            span(at, at + len),
                            format!("`{}` is not a number", &rest[..len.min(NAME)]),
                        )
                        .expected("expected a decimal, hexadecimal or octal number of at most 63 bits"),
                    );
                    (Some(Tok::Int(0)), len)
                }
            }
        } else if let Some(p) = PUNCTS.iter().find(|p| rest.starts_with(**p)) {
            (Some(Tok::Punct(p)), p.len())
        } else if c == '.' {
            (Some(Tok::Punct(DOT)), 1)
        } else if let Some(name) = included(&tokens, rest) {
            (Some(Tok::Str(name)), name.len() + 2)
        } else {
            (None, c.len_utf8())
        };
        match tok {
            Some(tok) => {
                tokens.push(Token { tok, span: span(at, at + len), first });
                first = false;
            }
            None => {
                let what = match c {
                    '"' | '\'' => "strings and characters are not part of the language".to_owned(),
                    c => format!("unknown character `{}`", c.escape_default()),
                };
                let fault = Fault::at(span(at, at + len), what);
                let call = match &tokens[..] {
                    [.., word, open] if open.tok == Tok::Punct("(") => Some(word.tok),
                    _ => None,
                };
                faults.push(match call {
                    Some(Tok::Word(word)) => fault.help_if(instead_of(word)),
                    _ => fault,
                });
                if c == '"' || c == '\'' {
                    // Something stands there, so that this is the only error.
                    tokens.push(Token { tok: Tok::Int(0), span: span(at, at + len), first });
                    let line = &rest[1..rest.find('\n').unwrap_or(rest.len()).max(1)];
                    at += line.find(c).map_or(0, |n| n + 1);
                }
            }
        }
        at += len;
    }
    tokens.push(Token { tok: Tok::End, span: span(text.len(), text.len()), first: true });
    tokens
}

/// The quoted name behind `#include`; quotes mean nothing anywhere else.
fn included<'a>(tokens: &[Token<'_>], rest: &'a str) -> Option<&'a str> {
    let [.., hash, word] = tokens else { return None };
    if (hash.tok, word.tok) != (Tok::Punct("#"), Tok::Word("include")) {
        return None;
    }
    let name = rest.strip_prefix('"')?;
    let end = name.find(['"', '\n'])?;
    name[end..].starts_with('"').then_some(&name[..end])
}

/// A C integer literal.
fn number(text: &str) -> Option<i64> {
    let digits = text.trim_end_matches(['u', 'U', 'l', 'L']);
    if text.len() - digits.len() > 3 {
        return None;
    }
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        return i64::from_str_radix(hex, 16).ok();
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return i64::from_str_radix(digits, 8).ok();
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toks(text: &str) -> Vec<Tok<'_>> {
        let mut faults = Vec::new();
        let tokens = lex(text, 0, &mut faults);
        assert!(faults.is_empty(), "{faults:?}");
        tokens.iter().map(|t| t.tok).collect()
    }

    #[test]
    fn words_numbers_and_operators() {
        assert_eq!(
            toks("a->b <<= 0x1fUL // no\n/* nor */ 010 1"),
            [
                Tok::Word("a"),
                Tok::Punct("->"),
                Tok::Word("b"),
                Tok::Punct("<<="),
                Tok::Int(31),
                Tok::Int(8),
                Tok::Int(1),
                Tok::End
            ]
        );
    }

    #[test]
    fn what_is_no_token_is_reported_once() {
        let mut faults = Vec::new();
        lex("a @ 09 \"str\" é /* open", 0, &mut faults);
        let messages: Vec<_> = faults.iter().map(|f| f.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "unknown character `@`",
                "`09` is not a number",
                "strings and characters are not part of the language",
                "unknown character `\\u{e9}`",
                "comment without an end"
            ]
        );
    }
}
