//! What a NAME on the command line means: a built-in text, or a file of the user's.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use cache_model::part::Part;
use svm_model::text;
use workloads::check::NamedText;
use workloads::litmus::{ExpectedAs, Litmus};
use workloads::nearest;
use workloads::scenario::Scenario;
use workloads::{litmus, scenario};

use crate::exit::Failure;

/// Bytes of a text at most: no policy is that long, and no device file ends.
const BYTES: u64 = 16 << 20;

/// Policies that only a timed run is compared with: they ask the model what no kernel can know.
const TIMED_ONLY: &[&str] = &["oracle"];

/// What a name is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Kind {
    /// A flush policy.
    Policy,
    /// The flush sites of a kernel.
    Kernel,
    /// A processor model.
    Part,
    /// A litmus test.
    Litmus,
    /// A scenario of the timed run.
    Scenario,
}

impl Kind {
    /// Every kind.
    pub(crate) const ALL: [Kind; 5] = [Kind::Policy, Kind::Kernel, Kind::Part, Kind::Litmus, Kind::Scenario];

    /// In the singular.
    pub(crate) const fn singular(self) -> &'static str {
        match self {
            Kind::Policy => "policy",
            Kind::Kernel => "kernel",
            Kind::Part => "part",
            Kind::Litmus => "litmus test",
            Kind::Scenario => "scenario",
        }
    }

    /// As `list` calls it.
    pub(crate) const fn plural(self) -> &'static str {
        match self {
            Kind::Policy => "policies",
            Kind::Kernel => "kernels",
            Kind::Part => "parts",
            Kind::Litmus => "litmus",
            Kind::Scenario => "scenarios",
        }
    }

    /// Name, file and text of what is built in, in the order in which reports list it.
    pub(crate) fn builtin(self) -> Vec<(&'static str, String, &'static str)> {
        let owned = |list: &'static [(&'static str, &'static str, &'static str)]| {
            list.iter().map(|(name, file, text)| (*name, (*file).to_owned(), *text)).collect()
        };
        let texts =
            |list: &'static [text::Text]| list.iter().map(|t| (t.name, t.file.to_owned(), t.text)).collect();
        match self {
            Kind::Policy => texts(text::POLICIES),
            Kind::Kernel => texts(text::KERNELS),
            Kind::Litmus => owned(litmus::BUILTIN),
            Kind::Scenario => owned(scenario::BUILTIN),
            Kind::Part => Part::builtin_names()
                .into_iter()
                .filter_map(|name| Some((name, format!("parts/{name}.toml"), Part::builtin_text(name)?)))
                .collect(),
        }
    }

    fn names(self) -> Vec<&'static str> {
        self.builtin().into_iter().map(|b| b.0).collect()
    }
}

/// Reads what a name means.
pub(crate) fn find(kind: Kind, name: &str) -> Result<NamedText, Failure> {
    if let Some((_, file, text)) = kind.builtin().into_iter().find(|b| b.0 == name) {
        return Ok(NamedText { name: name.to_owned(), file, text: text.to_owned() });
    }
    if is_path(name) {
        let text = read(name).map_err(|why| match unknown_if_bare(kind, name) {
            Some(unknown) => Failure::input(format!("{why}\n{unknown}")),
            None => Failure::input(why),
        })?;
        return Ok(NamedText { name: name.to_owned(), file: name.to_owned(), text });
    }
    Err(Failure::input(unknown(kind, name)))
}

/// Whether a name is meant as a file's.
fn is_path(name: &str) -> bool {
    name.contains('/')
        || [".c", ".toml", ".litmus"].iter().any(|end| name.ends_with(end))
        || Path::new(name).is_file()
}

/// For a bare file name, which may be a built-in name with an ending too many.
fn unknown_if_bare(kind: Kind, name: &str) -> Option<String> {
    let stem = Path::new(name).file_stem()?.to_str()?;
    let known = kind.names().contains(&stem);
    known.then(|| format!("the built-in {} is called `{stem}`", kind.singular()))
}

/// What is said of a name that nobody knows: which there are, and the nearest.
fn unknown(kind: Kind, name: &str) -> String {
    let names = kind.names();
    let mut message = format!("there is no {} `{name}`", kind.singular());
    if let Some(other) = Kind::ALL.into_iter().find(|k| *k != kind && k.names().contains(&name)) {
        message.push_str(&format!("; `{name}` is a {}", other.singular()));
    } else if let Some(near) = nearest(name, &names) {
        message.push_str(&format!("; did you mean `{near}`?"));
    }
    message.push_str(&format!("\nknown: {}", names.join(", ")));
    message.push_str("\na file of your own: give its path (with a `/`, or ending in .c, .toml or .litmus)");
    message
}

/// Reads a file that must hold text.
pub(crate) fn read(path: &str) -> Result<String, String> {
    let wrong = |e: std::io::Error| format!("{path}: cannot be read: {e}");
    let mut file = File::open(path).map_err(wrong)?;
    if file.metadata().map_err(wrong)?.is_dir() {
        return Err(format!("{path}: this is a directory; name a file in it"));
    }
    let mut bytes = Vec::new();
    std::io::Read::by_ref(&mut file).take(BYTES + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() as u64 > BYTES {
        return Err(format!("{path}: longer than {} MiB: this cannot be meant", BYTES >> 20));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let before = &e.as_bytes()[..at];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
        format!("{path}:{line}:{column}: not UTF-8 text (byte 0x{:02x})", e.as_bytes()[at])
    })?;
    if text.trim().is_empty() {
        return Err(format!("{path}: the file is empty"));
    }
    Ok(text)
}

/// Splits `file:variant`, unless all of it is a name or a file.
fn split_variant(name: &str) -> (&str, Option<&str>) {
    if Kind::Litmus.names().contains(&name) || Path::new(name).exists() {
        return (name, None);
    }
    match name.rsplit_once(':') {
        Some((file, variant)) if !file.is_empty() => (file, Some(variant)),
        _ => (name, None),
    }
}

/// The litmus tests of a name: all variants of a file, or the one named.
pub(crate) fn litmus(name: &str) -> Result<Vec<Litmus>, Failure> {
    let (file, variant) = split_variant(name);
    let found = find(Kind::Litmus, file)?;
    let litmus = Litmus::parse(&found.file, &found.text)?;
    let variants = litmus.variants();
    let Some(variant) = variant else { return Ok(variants) };
    let names = litmus.variant_names();
    if let Some(one) = variants.into_iter().find(|l| l.variant() == Some(variant)) {
        return Ok(vec![one]);
    }
    let known = match names.as_slice() {
        [] => "it has none".to_owned(),
        names => {
            let near = nearest(variant, names).map_or(String::new(), |n| format!("did you mean `{n}`? "));
            format!("{near}it has {}", names.join(", "))
        }
    };
    Err(Failure::input(format!("the litmus test `{file}` has no variant `{variant}`; {known}")))
}

/// The litmus file of a name, with the variant if one is named.
pub(crate) fn litmus_file(name: &str) -> Result<Litmus, Failure> {
    let (file, variant) = split_variant(name);
    if variant.is_none() {
        let found = find(Kind::Litmus, file)?;
        return Ok(Litmus::parse(&found.file, &found.text)?);
    }
    // The one that was named is the only one.
    litmus(name)?.pop().ok_or_else(|| Failure::input(unknown(Kind::Litmus, name)))
}

/// The one litmus test of a name: a file with variants needs one named.
pub(crate) fn litmus_one(name: &str) -> Result<Litmus, Failure> {
    let mut found = litmus(name)?;
    match (found.pop(), found.len()) {
        (Some(one), 0) => Ok(one),
        (Some(other), _) => {
            let mut names: Vec<String> = found.into_iter().map(|l| l.name).collect();
            names.push(other.name);
            let known = names.join(", ");
            Err(Failure::input(format!("the litmus test `{name}` has variants: name one of {known}")))
        }
        (None, _) => Err(Failure::input(unknown(Kind::Litmus, name))),
    }
}

/// A part, or a variant of it with fewer cores: `genoa`, `./mine.toml`, `genoa:1s,4x`.
pub(crate) fn part(name: &str) -> Result<Part, Failure> {
    let (file, variant) = if Kind::Part.names().contains(&name) || Path::new(name).exists() {
        (name, None)
    } else {
        name.rsplit_once(':').map_or((name, None), |(file, variant)| (file, Some(variant)))
    };
    let found = find(Kind::Part, file)?;
    let part = Part::from_toml(&found.file, &found.text)?;
    Ok(match variant {
        Some(variant) => part.variant(variant)?,
        None => part,
    })
}

/// A part, with a profile's numbers in the place of its own.
pub(crate) fn measured_part(name: &str, profile: Option<&str>) -> Result<Part, Failure> {
    let part = part(name)?;
    let Some(file) = profile else { return Ok(part) };
    Ok(part.with_profile(file, &read(file).map_err(Failure::input)?)?)
}

/// A scenario.
pub(crate) fn scenario(name: &str) -> Result<Scenario, Failure> {
    let found = find(Kind::Scenario, name)?;
    Scenario::parse(&found.file, &found.text).map_err(|e| Failure::scenario(e, &found.file))
}

/// The built-in kernel and the built-in policy of these names, one of each at most.
pub(crate) fn expected_as(names: &[String]) -> Result<ExpectedAs, Failure> {
    let mut found = ExpectedAs::default();
    for name in names {
        let place = if Kind::Kernel.names().contains(&name.as_str()) {
            &mut found.kernel
        } else if Kind::Policy.names().contains(&name.as_str()) {
            &mut found.policy
        } else {
            let known = [Kind::Kernel.names(), Kind::Policy.names()].concat();
            let near =
                nearest(name, &known).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            let message = format!("--expect-as: there is no built-in kernel or policy `{name}`{near}");
            return Err(Failure::input(format!("{message}\nknown: {}", known.join(", "))));
        };
        if let Some(before) = place.replace(name.clone()).filter(|before| before != name) {
            let message = format!(
                "--expect-as: `{before}` and `{name}` are alike: name one kernel, one policy or both"
            );
            return Err(Failure::input(message));
        }
    }
    Ok(found)
}

/// The policies named, each once; if none is named, every built-in one that a kernel could have.
pub(crate) fn policies(names: &[String]) -> Result<Vec<NamedText>, Failure> {
    let every = every_policy();
    let names = if names.is_empty() { &every } else { names };
    once(names).map(|name| find(Kind::Policy, name)).collect()
}

/// The names of every built-in policy that a kernel could have.
pub(crate) fn every_policy() -> Vec<String> {
    let all = Kind::Policy.names().into_iter().filter(|n| !TIMED_ONLY.contains(n));
    all.map(str::to_owned).collect()
}

/// Each name once, where it comes first.
pub(crate) fn once(names: &[String]) -> impl Iterator<Item = &String> {
    names.iter().enumerate().filter(|(i, name)| !names[..*i].contains(name)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_name_is_found_and_is_of_one_kind() {
        for kind in Kind::ALL {
            for name in kind.names() {
                assert!(!find(kind, name).unwrap().text.is_empty());
                assert_eq!(Kind::ALL.iter().filter(|k| k.names().contains(&name)).count(), 1, "{name}");
            }
        }
    }

    #[test]
    fn the_nearest_name_is_offered_only_if_it_is_near() {
        let names = Kind::Policy.names();
        assert_eq!(nearest("clear-remrk", &names), Some("clear-remark"));
        assert_eq!(nearest("xyzzyplugh", &["genoa", "rome"]), None);
    }
}
