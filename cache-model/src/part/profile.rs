//! Profiles of `sevsim calibrate`: measured numbers in the place of a part's.

use super::param::Param;
use super::read::{Section, document};
use super::{Part, PartError};

/// What every profile says that it is.
const SCHEMA: &str = "sevsim.profile/1";

/// Whose numbers a part has in the place of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Measured {
    /// The profile's file.
    pub file: String,
    /// The host that was measured.
    pub host: String,
    /// Its processor.
    pub cpu: String,
    /// When, in UTC.
    pub date: String,
    /// The hypervisor that it ran under, if any: then the numbers are a guest's.
    pub hypervisor: Option<String>,
    /// Which numbers.
    pub params: Vec<Param>,
}

impl Part {
    /// The part with the numbers that a profile has; `file` is for error messages. Everything else stays as it is, the
    /// topology and the sizes of the caches too.
    ///
    /// # Errors
    /// Names the line, the column, the field and what was expected of it.
    pub fn with_profile(&self, file: &str, text: &str) -> Result<Part, PartError> {
        document(file, text, |root| self.overlaid(file, root))
    }

    /// Whose numbers it has in the place of its own.
    #[must_use]
    pub fn measured(&self) -> Option<&Measured> {
        self.profile.as_ref()
    }

    fn overlaid(&self, file: &str, mut root: Section<'_>) -> Result<Part, PartError> {
        let (schema, span) = root.string("schema", SCHEMA)?;
        if schema != SCHEMA {
            let help =
                format!("expected `schema = \"{SCHEMA}\"`, as `sevsim calibrate --out FILE` writes it");
            return Err(root.error(span, format!("`schema` is \"{schema}\""), help));
        }
        let mut host = root.section("host")?;
        let mut word = |key, expected| host.string(key, expected).map(|found| found.0.to_owned());
        let (name, cpu) = (word("name", "the host's name")?, word("cpu", "the processor's name")?);
        let (kernel, date) = (word("kernel", "the host's kernel")?, word("date", "when it was measured")?);
        let hypervisor = Some(word("under_hypervisor", "a hypervisor's name, or \"none\"")?);
        let source = format!("{file}: {name}, {kernel}, {date}");
        let mut part = self.clone();
        let mut params = Vec::new();
        for group in Param::ALL.chunk_by(|a, b| a.section() == b.section()) {
            if root.find(group[0].section()).is_none() {
                continue;
            }
            let mut section = root.section(group[0].section())?;
            for param in group {
                if let Some(number) = section.measured(*param, &source)? {
                    part.numbers[*param as usize] = number;
                    params.push(*param);
                }
            }
            section.finish()?;
        }
        let hypervisor = hypervisor.filter(|name| name != "none");
        part.profile = Some(Measured { file: file.to_owned(), host: name, cpu, date, hypervisor, params });
        Ok(part)
    }
}
