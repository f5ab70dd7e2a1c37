//! Litmus tests: TOML front matter between `+++` lines, then a C body with one function per actor.

mod builtin;
mod expect;
mod front;
mod vm;

use cache_model::event::EventKind;

pub use builtin::BUILTIN;
use expect::ExpectFront;
pub use expect::Expected;
use front::Front;

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

/// Line and column, from 1, of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
    (line, column)
}

/// What TOML's reader says, without the names of this program's types.
fn in_words(message: &str) -> String {
    let types = [("u16", "a whole number from 0 to 65535"), ("u8", "a whole number from 0 to 255")];
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
            return Err(fail(
                0,
                "a litmus file begins with a line `+++`, TOML, and another `+++`".to_owned(),
            ));
        };
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
        let litmus = Litmus { name, file: file.to_owned(), body, text: text.to_owned(), front };
        litmus.validate(text, &fail)?;
        Ok(litmus)
    }

    /// Where the front matter names a function that the body should have: line and column from 1, and the line.
    pub(crate) fn names(&self, function: &str) -> Option<(u32, u32, &str)> {
        let quoted = format!("\"{function}\"");
        let (number, line, at) = (1u32..)
            .zip(self.text.lines())
            .filter(|(_, line)| {
                line.trim_start().starts_with("run") || line.trim_start().starts_with("guest")
            })
            .find_map(|(number, line)| Some((number, line, line.find(&quoted)?)))?;
        let column = line[..at].chars().count() + 1;
        Some((number, u32::try_from(column).unwrap_or(1), line))
    }

    /// What it is about, in a sentence.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.front.description
    }

    /// Parts that it is about.
    #[must_use]
    pub fn parts(&self) -> &[String] {
        &self.front.parts
    }

    /// Kernels that it is about.
    #[must_use]
    pub fn kernels(&self) -> &[String] {
        &self.front.kernels
    }

    /// The verdict expected of a policy on a part; the last rule that fits wins.
    #[must_use]
    pub fn expected(&self, policy: &str, part: &str) -> Option<Expected> {
        let fits = |e: &&ExpectFront| {
            (e.policies.iter().any(|p| p == policy || p == "*"))
                && (e.parts.is_empty() || e.parts.iter().any(|p| p == part))
        };
        self.front.expect.iter().rfind(fits).map(|e| e.verdict)
    }

    /// The events that the test asks about: a search goes on until each was reached or the space ends. Every
    /// event that is met on the way counts.
    #[must_use]
    pub fn events(&self) -> Vec<EventKind> {
        self.front.events.iter().filter_map(|e| EventKind::from_name(e)).collect()
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
