//! Profiles of `sevsim calibrate`: measured numbers in the place of a part's.

use super::param::{Confidence, Param};
use super::read::{Section, document};
use super::{Level, Part, PartError};

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
    /// Numbers that were not measured, but follow from how the others are taken.
    pub derived: Vec<Param>,
    /// Whether all was measured that was to be.
    pub complete: bool,
    /// What disturbed it, if the host was not quiet.
    pub noise: Option<String>,
    /// Levels of memory that are out of order with them, each with the next: no host is like that.
    pub out_of_order: Vec<(Param, Param)>,
}

/// The levels of memory, each of which takes no longer than the next.
const LEVELS: [Param; 4] = [Param::L1Hit, Param::L2Hit, Param::L3Hit, Param::DramLocal];

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
        let complete = root.boolean("complete")?;
        let mut noise = None;
        if root.find("noise").is_some() {
            let mut found = root.section("noise")?;
            if !found.boolean("quiet")? {
                noise = Some(found.string("said", "what disturbed it")?.0.to_owned());
            }
        }
        let mut host = root.section("host")?;
        let mut word = |key, expected| host.string(key, expected).map(|found| found.0.to_owned());
        let (name, cpu) = (word("name", "the host's name")?, word("cpu", "the processor's name")?);
        let (kernel, date) = (word("kernel", "the host's kernel")?, word("date", "when it was measured")?);
        let hypervisor = Some(word("under_hypervisor", "a hypervisor's name, or \"none\"")?);
        let source = format!("{file}: {name}, {kernel}, {date}");
        let mut part = self.clone();
        let (mut params, mut derived) = (Vec::new(), Vec::new());
        for group in Param::ALL.chunk_by(|a, b| a.section() == b.section()) {
            if root.find(group[0].section()).is_none() {
                continue;
            }
            let mut section = root.section(group[0].section())?;
            for param in group {
                if let Some(number) = section.measured(*param, &source)? {
                    let list = if number.confidence == Confidence::M { &mut params } else { &mut derived };
                    list.push(*param);
                    part.numbers[*param as usize] = number;
                }
            }
            section.finish()?;
        }
        if params.is_empty() {
            let help = "a calibration that was interrupted early has none: measure again";
            return Err(root.error(span, "this profile has no number of a part".to_owned(), help.to_owned()));
        }
        let hypervisor = hypervisor.filter(|name| name != "none");
        let out_of_order = part.out_of_order(&params);
        let file = file.to_owned();
        part.profile = Some(Measured {
            file,
            host: name,
            cpu,
            date,
            hypervisor,
            params,
            derived,
            complete,
            noise,
            out_of_order,
        });
        Ok(part)
    }

    /// Neighbours among the levels of which a measured one makes the nearer take longer.
    fn out_of_order(&self, measured: &[Param]) -> Vec<(Param, Param)> {
        let t = self.timing(Level::Typical);
        let cycles = [t.l1_hit, t.l2_hit, t.l3_hit, t.dram_local];
        let pairs = LEVELS.windows(2).zip(cycles.windows(2));
        let wrong = pairs.filter(|(levels, cycles)| {
            cycles[0] > cycles[1] && levels.iter().any(|level| measured.contains(level))
        });
        wrong.map(|(levels, _)| (levels[0], levels[1])).collect()
    }
}
