//! Texts and what they include: each is read once, and its items stand where the first `#include` of it stands.

use std::collections::BTreeMap;

use crate::ast::{Ast, Ident, Item, ItemKind};
use crate::diag::Fault;
use crate::lex::{Tok, lex};
use crate::parse::parse_text;
use crate::{Role, Source};

/// A text that an `#include` names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Included {
    /// Its name in errors and positions. Two texts of one name are one text.
    pub file: String,
    /// The text.
    pub text: String,
}

/// Finds the text that `#include "name"` means: is called with the name and with the [`Source::file`] of the
/// text that includes it. An error says why there is none.
pub type Find<'f> = dyn Fn(&str, &str) -> Result<Included, String> + 'f;

/// Finds nothing: for texts that stand alone.
///
/// # Errors
///
/// Always.
pub fn no_includes(_: &str, _: &str) -> Result<Included, String> {
    Err("there are no texts to include here".to_owned())
}

/// Texts that one program may be made of.
const TEXTS: usize = 64;

/// A text and its tree.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) file: String,
    pub(crate) text: String,
    pub(crate) role: Role,
    ast: Ast,
    /// The text of each `#include` among its items, in order; none if it was not found.
    includes: Vec<Option<usize>>,
}

/// All texts of a program: those given, in their order, then those included.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    pub(crate) list: Vec<Text>,
    /// By text, the texts that it includes, itself or through others.
    within: Vec<Vec<bool>>,
}

/// Reads the texts and what they include.
pub(crate) fn read(sources: &[Source<'_>], find: &Find<'_>, faults: &mut Vec<Fault>) -> Texts {
    let mut texts = Texts::default();
    for source in sources {
        texts.add(source.file.to_owned(), source.text.to_owned(), source.role, faults);
    }
    let mut next = 0;
    while next < texts.list.len() {
        let names: Vec<Ident> = texts.list[next].ast.includes().cloned().collect();
        for name in names {
            let found = texts.include(next, &name, find, faults);
            texts.list[next].includes.push(found);
        }
        next += 1;
    }
    texts.close(faults);
    texts
}

impl Texts {
    fn add(&mut self, file: String, text: String, role: Role, faults: &mut Vec<Fault>) {
        let index = u16::try_from(self.list.len()).unwrap_or(u16::MAX);
        let (ast, found) = parse_text(&text, index);
        faults.extend(found);
        self.list.push(Text { file, text, role, ast, includes: Vec::new() });
    }

    /// The text that an `#include` of text `by` names; it is read if it has not been.
    fn include(
        &mut self,
        by: usize,
        name: &Ident,
        find: &Find<'_>,
        faults: &mut Vec<Fault>,
    ) -> Option<usize> {
        let (from, role) = (&self.list[by].file, self.list[by].role);
        let Included { file, text } = match find(&name.name, from) {
            Ok(found) => found,
            Err(why) => {
                let fault = Fault::at(name.span, format!("there is no text `{}` to include", name.name));
                faults.push(fault.expected("expected a built-in text or a file beside this one").help(why));
                return None;
            }
        };
        if let Some(known) = self.list.iter().position(|t| t.file == file) {
            let other = self.list[known].role;
            if other != role {
                let fault = Fault::at(name.span, format!("`{file}` is {} here", other.name()))
                    .expected(format!("this is {}", role.name()))
                    .help("a text is read once, in one role: include it where texts of its role include");
                faults.push(fault);
                return None;
            }
            return Some(known);
        }
        if self.list.len() >= TEXTS {
            faults.push(
                Fault::at(name.span, "too many texts").expected(format!("more than {TEXTS} texts here")),
            );
            return None;
        }
        self.add(file, text, role, faults);
        Some(self.list.len() - 1)
    }

    /// Finds who includes whom, and refuses cycles.
    fn close(&mut self, faults: &mut Vec<Fault>) {
        let count = self.list.len();
        self.within = vec![vec![false; count]; count];
        for text in 0..count {
            let mut way = vec![text];
            let mut told = false;
            self.descend(&mut way, &mut told, faults);
        }
    }

    /// Walks all that the last text of the way includes.
    fn descend(&mut self, way: &mut Vec<usize>, told: &mut bool, faults: &mut Vec<Fault>) {
        let (Some(&first), Some(&last)) = (way.first(), way.last()) else { return };
        let targets: Vec<(Ident, Option<usize>)> =
            self.list[last].ast.includes().cloned().zip(self.list[last].includes.clone()).collect();
        for (name, target) in targets {
            let Some(target) = target else { continue };
            // Each cycle is told once: by the text of it that was read first.
            if target == first && way.iter().all(|t| *t >= first) && !*told {
                *told = true;
                let names = way.iter().chain([&first]).map(|t| self.list[*t].file.as_str());
                let names: Vec<&str> = names.collect();
                let fault = Fault::at(name.span, format!("`{}` includes itself", self.list[first].file));
                faults.push(fault.expected(names.join(" -> ")));
            }
            if target != first && !self.within[first][target] {
                self.within[first][target] = true;
                way.push(target);
                self.descend(way, told, faults);
                way.pop();
            }
        }
    }

    /// Every item with the role of its text, in the order in which a reader meets them.
    pub(crate) fn items(&self) -> Vec<(&Item, Role)> {
        let mut out = Vec::new();
        let mut seen = vec![false; self.list.len()];
        for text in 0..self.list.len() {
            self.items_of(text, &mut seen, &mut out);
        }
        out
    }

    fn items_of<'t>(&'t self, text: usize, seen: &mut [bool], out: &mut Vec<(&'t Item, Role)>) {
        if std::mem::replace(&mut seen[text], true) {
            return;
        }
        let Text { ast, includes, role, .. } = &self.list[text];
        let mut targets = includes.iter();
        for item in &ast.items {
            if let ItemKind::Include(_) = item.kind {
                if let Some(Some(target)) = targets.next() {
                    self.items_of(*target, seen, out);
                }
            } else {
                out.push((item, *role));
            }
        }
    }

    /// Of several definitions of one name, by their texts: the one whose text includes all the others' texts.
    pub(crate) fn outermost(&self, files: impl Iterator<Item = u16> + Clone) -> Option<usize> {
        files.clone().enumerate().map(|(at, file)| (at, usize::from(file))).find_map(|(at, file)| {
            let mut others = files.clone().enumerate().filter(|(other, _)| *other != at);
            others.all(|(_, other)| self.within[file][usize::from(other)]).then_some(at)
        })
    }

    /// How often the texts have each word, also where they define it.
    pub(crate) fn words(&self) -> BTreeMap<&str, usize> {
        let mut words = BTreeMap::new();
        for text in &self.list {
            for token in lex(&text.text, 0, &mut Vec::new()) {
                if let Tok::Word(word) = token.tok {
                    *words.entry(word).or_default() += 1;
                }
            }
        }
        words
    }

    /// Names and texts, for positions.
    pub(crate) fn named(&self) -> Vec<(&str, &str)> {
        self.list.iter().map(|t| (t.file.as_str(), t.text.as_str())).collect()
    }
}

impl Ast {
    fn includes(&self) -> impl Iterator<Item = &Ident> {
        self.items.iter().filter_map(|item| match &item.kind {
            ItemKind::Include(name) => Some(name),
            ItemKind::Define { .. }
            | ItemKind::Enum { .. }
            | ItemKind::Struct { .. }
            | ItemKind::Per { .. }
            | ItemKind::Global { .. }
            | ItemKind::Lock { .. }
            | ItemKind::Objects { .. }
            | ItemKind::Function(_) => None,
        })
    }
}
