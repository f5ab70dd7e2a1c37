//! Errors that point at the source.

use std::collections::BTreeSet;
use std::fmt;

use annotate_snippets::{AnnotationKind, Element, Level, Origin, Renderer, Snippet};

use crate::ast::Span;

/// Bytes of a line that is shown; of a longer one only its place is.
const WIDTH: usize = 1_000;

/// Errors shown at most; a text with more is told so.
const SHOWN: usize = 50;

/// An error in a text. Prints with its place, the source line, a mark under the place, and what would be right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diag {
    /// The file's name as given in [`crate::Source`].
    pub file: String,
    /// Line, from 1; 0 if the error has no place in a text.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Characters marked, at least 1.
    pub len: u32,
    /// What is wrong.
    pub message: String,
    /// The line.
    pub source_line: String,
    /// What was expected there.
    pub expected: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
}

/// How it is said that a kernel does not have what an actor calls.
pub(crate) const NO_FUNCTION: &str = "this kernel has no `";

/// What is said of a policy's function that the kernel defines itself.
pub(crate) const NO_HOOK: &str = "is no hook of this kernel";

/// What is said of a `#define` that is given a value and that no text has.
pub(crate) const NO_DEFINE: &str = "no text has `#define ";

impl Diag {
    /// The `#define` that was given a value and that no text has, if it says that.
    #[must_use]
    pub fn lacks_define(&self) -> Option<&str> {
        self.message.split_once(NO_DEFINE)?.1.strip_suffix('`')
    }

    /// Whether it says that a kernel does not have a function that an actor calls, rather than that a text is wrong.
    #[must_use]
    pub fn lacks_function(&self) -> bool {
        self.message.starts_with(NO_FUNCTION)
    }

    /// Whether it says that the policy has no place in the kernel, rather than that a text is wrong.
    #[must_use]
    pub fn refuses_policy(&self) -> bool {
        self.message.contains(NO_HOOK)
    }
}

impl fmt::Display for Diag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut group = Level::ERROR.primary_title(self.message.as_str()).elements(Vec::<Element<'_>>::new());
        if self.line > 0 {
            let line = usize::try_from(self.line).unwrap_or(1);
            if self.source_line.len() > WIDTH {
                let column = usize::try_from(self.column).unwrap_or(1);
                group = group.element(Origin::path(self.file.as_str()).line(line).char_column(column));
                if let Some(expected) = &self.expected {
                    group = group.element(Level::NOTE.message(expected.as_str()));
                }
            } else {
                let start = byte_of(&self.source_line, self.column.saturating_sub(1));
                let end = byte_of(&self.source_line, self.column.saturating_sub(1) + self.len).max(start);
                let mut mark = AnnotationKind::Primary.span(start..end);
                if let Some(expected) = &self.expected {
                    mark = mark.label(expected.as_str());
                }
                let source = Snippet::source(self.source_line.as_str()).path(self.file.as_str());
                group = group.element(source.line_start(line).annotation(mark));
            }
        } else if let Some(expected) = &self.expected {
            group = group.element(Level::NOTE.message(expected.as_str()));
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        f.write_str(&Renderer::plain().render(&[group]))
    }
}

impl std::error::Error for Diag {}

/// Byte offset of the `n`-th character of a line.
fn byte_of(line: &str, n: u32) -> usize {
    line.char_indices().nth(usize::try_from(n).unwrap_or(usize::MAX)).map_or(line.len(), |(at, _)| at)
}

/// An error before its place has been looked up.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) span: Option<Span>,
    pub(crate) message: String,
    pub(crate) expected: Option<String>,
    pub(crate) help: Option<String>,
    /// The tree says what was meant all the same, so that what else is wrong can be told, too.
    pub(crate) understood: bool,
}

impl Fault {
    pub(crate) fn at(span: Span, message: impl Into<String>) -> Fault {
        Fault { span: Some(span), ..Fault::nowhere(message) }
    }

    pub(crate) fn nowhere(message: impl Into<String>) -> Fault {
        Fault { span: None, message: message.into(), expected: None, help: None, understood: false }
    }

    pub(crate) fn understood(mut self) -> Fault {
        self.understood = true;
        self
    }

    pub(crate) fn expected(mut self, what: impl Into<String>) -> Fault {
        self.expected = Some(what.into());
        self
    }

    pub(crate) fn help(mut self, what: impl Into<String>) -> Fault {
        self.help = Some(what.into());
        self
    }

    pub(crate) fn help_if(mut self, what: Option<String>) -> Fault {
        if what.is_some() {
            self.help = what;
        }
        self
    }
}

/// Line and column, both from 1, of a byte of a text, and the line itself.
pub(crate) fn line_of(text: &str, at: u32) -> (u32, u32, &str) {
    let mut at = usize::try_from(at).unwrap_or(usize::MAX).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let begin = text[..at].rfind('\n').map_or(0, |n| n + 1);
    let end = text[at..].find('\n').map_or(text.len(), |n| at + n);
    let line = text[..begin].bytes().filter(|&b| b == b'\n').count() + 1;
    let column = text[begin..at].chars().count() + 1;
    (saturate(line), saturate(column), text[begin..end].trim_end_matches('\r'))
}

fn saturate(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Looks the places of errors up, drops repetitions (a function inlined twice is checked twice).
pub(crate) fn resolve(faults: Vec<Fault>, sources: &[(&str, &str)]) -> Vec<Diag> {
    let mut told = BTreeSet::new();
    let mut diags: Vec<Diag> = Vec::new();
    for fault in faults {
        let place_of = fault.span.map(|span| (span.file, span.start, span.end));
        if told.insert((place_of, fault.message.clone())) && diags.len() < SHOWN {
            diags.push(place(fault, sources));
        }
    }
    let more = told.len() - diags.len();
    diags.sort_by_key(|d| {
        let file = sources.iter().position(|(name, _)| *name == d.file).unwrap_or(usize::MAX);
        (file, d.line, d.column)
    });
    if more > 0
        && let Some(last) = diags.last_mut()
    {
        let help = last.help.take().map_or(String::new(), |h| format!("{h}; "));
        last.help = Some(format!("{help}{more} more errors are not shown"));
    }
    diags
}

fn place(fault: Fault, sources: &[(&str, &str)]) -> Diag {
    let Fault { span, message, expected, help, .. } = fault;
    let Some((span, &(file, text))) =
        span.and_then(|span| sources.get(usize::from(span.file)).map(|source| (span, source)))
    else {
        return Diag {
            file: String::new(),
            line: 0,
            column: 0,
            len: 0,
            message,
            source_line: String::new(),
            expected,
            help,
        };
    };
    let (line, column, source_line) = line_of(text, span.start);
    let start = usize::try_from(span.start).unwrap_or(0).min(text.len());
    let end = usize::try_from(span.end).unwrap_or(0).clamp(start, text.len());
    let chars = text.get(start..end).map_or(1, |t| t.lines().next().unwrap_or("").trim_end().chars().count());
    Diag {
        file: file.to_owned(),
        line,
        column,
        len: saturate(chars).max(1),
        message,
        source_line: source_line.to_owned(),
        expected,
        help,
    }
}

/// The name most like `name`, if one is like it.
pub(crate) fn nearest<S: AsRef<str>>(name: &str, among: impl IntoIterator<Item = S>) -> Option<String> {
    let len = name.chars().count();
    let limit = if len < 3 { 0 } else { (len / 3).max(1) };
    let mut best: Option<(usize, String)> = None;
    for other in among {
        let other = other.as_ref();
        let begins = len > 3 && other.starts_with(name);
        if !begins && other.chars().count().abs_diff(len) > limit {
            continue;
        }
        let distance = if begins { 1 } else { strsim::damerau_levenshtein(name, other) };
        if !other.is_empty()
            && other != name
            && distance <= limit
            && best.as_ref().is_none_or(|(d, o)| (distance, other) < (*d, o))
        {
            best = Some((distance, other.to_owned()));
        }
    }
    best.map(|(_, other)| format!("did you mean `{other}`?"))
}
