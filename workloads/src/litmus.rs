//! Litmus tests: TOML front matter between `+++` lines, then a C body with one function per actor.

mod builtin;
mod expect;
mod front;
mod grow;
mod refuse;
mod variant;
mod vm;

use cache_model::event::EventKind;

pub use builtin::BUILTIN;
pub use expect::{Expectation, Expected};
use front::{Front, Names};
pub use grow::{Growth, Size};
use svm_model::explore::Reductions;
use svm_model::lang::Diag;
use svm_model::spec::MemoryModel;
use variant::{Initial, Values, VariantFront};

/// Bytes of the opening line: what is read begins after it.
const OPENING: usize = 4;

/// Makes an error of an offset and a message.
type Fail<'a> = dyn Fn(usize, String) -> LitmusError + 'a;

/// A litmus test.
#[derive(Clone, Debug)]
pub struct Litmus {
    /// What it is called: its built-in name, or the file as the user named it, so that a schedule finds it again.
    pub name: String,
    /// The file, for errors and stories.
    pub file: String,
    /// The C body, with the front matter blanked out, so that its line numbers are the file's.
    pub body: String,
    /// All of the file.
    text: String,
    front: Front,
    /// What it is called among the file's variants, if it is one of them.
    variant: Option<String>,
    parts: Vec<String>,
    kernels: Vec<String>,
    policies: Option<Vec<String>>,
    initial: Vec<Initial>,
    /// What [`Litmus::with_define`] was told.
    defined: Vec<(String, i64)>,
    /// Values of `#define`s that other texts have.
    switches: Vec<(String, i64)>,
    /// What searches of it leave out.
    reductions: Reductions,
    /// Whose expectations count in the place of their own.
    expected_as: ExpectedAs,
}

/// The kernel and the policy whose expectations count for any kernel and any policy.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ExpectedAs {
    /// Name of the kernel.
    pub kernel: Option<String>,
    /// Name of the policy.
    pub policy: Option<String>,
}

/// What is wrong with a litmus file, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct LitmusError {
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong, and what was expected.
    pub message: String,
}

/// The names alone.
fn names(list: &Names) -> Vec<String> {
    list.iter().map(|n| n.get_ref().clone()).collect()
}

/// Line and column, from 1, of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
    (line, column)
}

/// What TOML's reader says, without the names of this program's types.
pub(crate) fn in_words(message: &str) -> String {
    let types = [
        ("u16", "a whole number from 0 to 65535"),
        ("u8", "a whole number from 0 to 255"),
        ("u32", "a whole number from 0 to 4294967295"),
        ("u64", "a whole number"),
    ];
    types.iter().fold(message.to_owned(), |text, (name, words)| {
        text.replace(&format!("expected {name}"), &format!("expected {words}"))
    })
}

impl Litmus {
    /// Reads a litmus test.
    ///
    /// # Errors
    ///
    /// What is wrong in the front matter, with its place. Errors in the body come when it is compiled.
    pub fn parse(file: &str, text: &str) -> Result<Litmus, LitmusError> {
        // Lines that end as on Windows have the same numbers.
        let unix = if text.contains('\r') { text.replace("\r\n", "\n") } else { String::new() };
        let text = if unix.is_empty() { text } else { &unix };
        let fail = |offset: usize, message: String| {
            let (line, column) = position(text, offset);
            LitmusError { file: file.to_owned(), line, column, message }
        };
        let builtin = BUILTIN.iter().find(|b| (b.1, b.2) == (file, text));
        let name = builtin.map_or(file, |b| b.0).to_owned();
        let Some(rest) = text.strip_prefix("+++\n") else {
            let message = if text.starts_with('\u{feff}') {
                "the file begins with a byte order mark: save it as UTF-8 without one"
            } else {
                "a litmus file begins with a line `+++`, TOML, and another `+++`"
            };
            return Err(fail(0, message.to_owned()));
        };
        if rest.starts_with("+++\n") || rest == "+++" {
            return Err(fail(4, "the front matter is empty: expected at least a description".to_owned()));
        }
        let Some(end) = rest.find("\n+++\n") else {
            return Err(fail(0, "the front matter has no closing `+++` line".to_owned()));
        };
        let toml_text = &rest[..=end];
        let front: Front = toml::from_str(toml_text).map_err(|e| {
            let offset = e.span().map_or(0, |s| s.start) + 4;
            fail(offset, in_words(e.message()))
        })?;
        let body_start = 4 + end + 5;
        let newlines = text[..body_start].matches('\n').count();
        let body = format!("{}{}", "\n".repeat(newlines), &text[body_start..]);
        let mut litmus = Litmus {
            name,
            file: file.to_owned(),
            body,
            text: text.to_owned(),
            variant: None,
            parts: names(&front.parts),
            kernels: names(&front.kernels),
            policies: front.policies.as_ref().map(names),
            initial: Vec::new(),
            switches: Vec::new(),
            reductions: Reductions::default(),
            expected_as: ExpectedAs::default(),
            defined: Vec::new(),
            front,
        };
        litmus.validate(text, &fail)?;
        litmus.switches = variant::switches(&[&litmus.front.define], litmus.plain_body());
        litmus.body = variant::with_defines(&litmus.body, &[&litmus.front.define]);
        litmus.initialise(&[]);
        Ok(litmus)
    }

    /// Writes the initial values into the body, which has none yet.
    fn initialise(&mut self, of_variant: &[&Values]) {
        let sets: Vec<&Values> = std::iter::once(&self.front.set).chain(of_variant.iter().copied()).collect();
        if sets.iter().any(|s| !s.is_empty()) {
            (self.body, self.initial) = variant::with_initial(&self.body, &self.text, &sets, OPENING);
        }
    }

    /// The tests that the file holds: one for each variant, named `file:variant`; itself if it has none.
    #[must_use]
    pub fn variants(&self) -> Vec<Litmus> {
        if self.front.variant.is_empty() || self.variant.is_some() {
            return vec![self.clone()];
        }
        self.front.variant.iter().map(|v| self.as_variant(v)).collect()
    }

    /// The names of the file's variants.
    #[must_use]
    pub fn variant_names(&self) -> Vec<&str> {
        self.front.variant.iter().map(|v| v.name.get_ref().as_str()).collect()
    }

    /// The variant that this is, if the file has some and one was chosen.
    #[must_use]
    pub fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    fn as_variant(&self, v: &VariantFront) -> Litmus {
        let mut front = self.front.clone();
        front.description = v.description.clone().unwrap_or(front.description);
        front.assume = v.assume.clone().unwrap_or(front.assume);
        front.wbinvd_scope = v.wbinvd_scope.clone().or(front.wbinvd_scope);
        // Without the file's initial values, which come anew with the variant's.
        let newlines = self.text.len() - self.plain_body().len();
        let above = "\n".repeat(self.text[..newlines].matches('\n').count());
        let body =
            variant::with_defines(&format!("{above}{}", self.plain_body()), &[&front.define, &v.define]);
        let switches = variant::switches(&[&front.define, &v.define], self.plain_body());
        let own = |names_of: &Option<Names>, else_: &[String]| {
            names_of.as_ref().map_or_else(|| else_.to_vec(), names)
        };
        let mut litmus = Litmus {
            name: format!("{}:{}", self.name, v.name.get_ref()),
            file: self.file.clone(),
            body,
            text: self.text.clone(),
            variant: Some(v.name.get_ref().clone()),
            parts: own(&v.parts, &self.parts),
            kernels: own(&v.kernels, &self.kernels),
            policies: v.policies.as_ref().map(names).or_else(|| self.policies.clone()),
            initial: Vec::new(),
            switches,
            reductions: self.reductions,
            expected_as: self.expected_as.clone(),
            defined: self.defined.clone(),
            front,
        };
        litmus.initialise(&[&v.set]);
        litmus
    }

    /// What follows the front matter.
    fn plain_body(&self) -> &str {
        self.text.split_once("\n+++\n").map_or("", |(_, body)| body)
    }

    /// The file as its author wrote it, but with the variant's `#define`s.
    #[must_use]
    pub fn shown(&self) -> String {
        let find = |v: &&VariantFront| Some(v.name.get_ref()) == self.variant.as_ref();
        let Some(v) = self.front.variant.iter().find(find) else { return self.text.clone() };
        let head = &self.text[..self.text.len() - self.plain_body().len()];
        format!("{head}{}", variant::with_defines(self.plain_body(), &[&self.front.define, &v.define]))
    }

    /// An error in what the front matter says of the texts' variables has its place there.
    pub(crate) fn in_front(&self, diag: Diag) -> Diag {
        if diag.file == self.file { variant::placed(diag, &self.initial, &self.text) } else { diag }
    }

    /// Where the front matter names a function that the body should have: line and column from 1, and the line.
    pub(crate) fn names(&self, function: &str) -> Option<(u32, u32, &str)> {
        if let Some(define) = function.strip_prefix("#define ") {
            let all = self.front.variant.iter().map(|v| &v.define).chain([&self.front.define]);
            let at = all.flat_map(|d| d.keys()).find(|key| key.get_ref() == define)?.span().start + OPENING;
            let (line, column) = position(&self.text, at);
            let number = |n| u32::try_from(n).unwrap_or(1);
            return Some((number(line), number(column), self.text.lines().nth(line - 1)?));
        }
        let quoted = format!("\"{function}\"");
        let (number, line, at) = (1u32..)
            .zip(self.text.lines())
            .filter(|(_, line)| {
                ["run", "guest", "thread"].iter().any(|key| line.trim_start().starts_with(key))
            })
            .find_map(|(number, line)| Some((number, line, line.find(&quoted)?)))?;
        let column = line[..at].chars().count() + 1;
        Some((number, u32::try_from(column).unwrap_or(1), line))
    }

    /// Where the front matter names a kind of VM: line and column from 1, and the line.
    pub(crate) fn kind_at(&self, word: &str) -> Option<(u32, u32, &str)> {
        let quoted = format!("\"{word}\"");
        let lines = (1u32..).zip(self.text.lines()).filter(|(_, line)| line.contains("kind"));
        let (number, line, at) =
            lines.into_iter().find_map(|(number, line)| Some((number, line, line.find(&quoted)?)))?;
        Some((number, u32::try_from(line[..at].chars().count() + 1).unwrap_or(1), line))
    }

    /// Where the front matter makes a VM a mirror, if it does: line, column, text of the line.
    pub(crate) fn mirror_at(&self) -> Option<(u32, u32, &str)> {
        (1u32..).zip(self.text.lines()).find_map(|(number, line)| {
            let key = line.trim_start();
            let at = line.len() - key.len();
            key.starts_with("mirror_of").then(|| (number, u32::try_from(at + 1).unwrap_or(1), line))
        })
    }

    /// What it is about, in a sentence.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.front.description
    }

    /// The order in which accesses are seen.
    #[must_use]
    pub fn memory_model(&self) -> MemoryModel {
        MemoryModel::from_name(&self.front.memory_model).unwrap_or_default()
    }

    /// The same test in another memory model.
    #[must_use]
    pub fn with_memory_model(mut self, model: MemoryModel) -> Litmus {
        model.name().clone_into(&mut self.front.memory_model);
        self
    }

    /// What searches of it leave out.
    #[must_use]
    pub fn reductions(&self) -> Reductions {
        self.reductions
    }

    /// The same test, whose searches leave out other things.
    #[must_use]
    pub fn with_reductions(self, reductions: Reductions) -> Litmus {
        Litmus { reductions, ..self }
    }

    /// The same test, whose expectations of a kernel and of a policy are held against whichever is asked about.
    #[must_use]
    pub fn with_expectations_of(self, expected_as: ExpectedAs) -> Litmus {
        Litmus { expected_as, ..self }
    }

    /// The same test with another value of a `#define` of the body's or of another text's. Whether some text has that
    /// `#define` shows when it is compiled.
    #[must_use]
    pub fn with_define(mut self, name: &str, value: i64) -> Litmus {
        match variant::with_define(&self.body, name, value) {
            Some(body) => self.body = body,
            None => self.switches.push((name.to_owned(), value)),
        }
        self.defined.push((name.to_owned(), value));
        self
    }

    /// What [`Litmus::with_define`] was told.
    #[must_use]
    pub fn defined(&self) -> &[(String, i64)] {
        &self.defined
    }

    /// Parts that it is about.
    #[must_use]
    pub fn parts(&self) -> &[String] {
        &self.parts
    }

    /// Kernels that it is about.
    #[must_use]
    pub fn kernels(&self) -> &[String] {
        &self.kernels
    }

    /// Policies that it is about, if it names any.
    #[must_use]
    pub fn policies(&self) -> Option<&[String]> {
        self.policies.as_deref()
    }

    /// What is expected of a policy in a kernel on a part; the last rule that fits wins. Of a kernel or a policy that the
    /// test is not about nothing is expected.
    #[must_use]
    pub fn expected(&self, policy: &str, kernel: &str, part: &str) -> Option<Expectation> {
        let kernel = self.expected_as.kernel.as_deref().unwrap_or(kernel);
        let policy = self.expected_as.policy.as_deref().unwrap_or(policy);
        let listed = self.policies.as_ref().is_none_or(|p| p.iter().any(|p| p == policy));
        let about = listed && self.kernels.iter().any(|k| k == kernel);
        let rules = &self.front.expect;
        let found = rules.iter().rfind(|e| e.fits(policy, kernel, part, self.variant.as_deref()));
        found.filter(|_| about).map(expect::ExpectFront::expectation)
    }

    /// The events that the test asks about: a search goes on until each was reached or the space ends. Every
    /// event that is met on the way counts.
    #[must_use]
    pub fn events(&self) -> Vec<EventKind> {
        self.front.events.iter().filter_map(|e| EventKind::from_name(e.get_ref())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_tests_parse() {
        for (name, file, text) in BUILTIN {
            let litmus = Litmus::parse(file, text).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(litmus.name, *name);
            assert!(!litmus.parts().is_empty());
        }
    }

    #[test]
    fn errors_show_their_place() {
        let text =
            "+++\ndescription = \"x\"\nparts = []\npcpus = 0\npages = [{ name = \"P\" }]\nexpect = []\n+++\n";
        let e = Litmus::parse("x.litmus", text).unwrap_err();
        assert_eq!((e.line, e.column), (4, 1));
        let text = text.replace("pcpus = 0", "pcpu = 1");
        let e = Litmus::parse("x.litmus", &text).unwrap_err();
        assert_eq!(e.line, 4, "{e}");
        assert!(Litmus::parse("x", "").is_err());
    }
}
