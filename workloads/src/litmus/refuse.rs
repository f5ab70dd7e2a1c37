//! Names in the front matter that nothing answers to.

use std::path::Path;

use cache_model::event::EventKind;
use cache_model::part::Part;
use svm_model::spec::Assumptions;
use svm_model::text::{KERNELS, POLICIES};
use toml::Spanned;

use super::expect::{ExpectFront, Expected};
use super::front::{Front, Names};
use super::variant::{check_defines, check_set};
use super::{Fail, LitmusError};
use crate::near::nearest;

/// Whether a name is meant as a file's: what stands there is seen when it is read.
fn is_path(name: &str) -> bool {
    name.contains('/') || name.ends_with(".c") || name.ends_with(".toml")
}

fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    let hint = nearest(name, known).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    format!("there is no {what} `{name}`{hint}\nknown: {}", known.join(", "))
}

/// Refuses a list with a name that is not known, or stands there twice.
fn listed(list: &Names, what: &str, known: &[&str], files: bool, fail: &Fail<'_>) -> Result<(), LitmusError> {
    for (i, name) in list.iter().enumerate() {
        let text = name.get_ref().as_str();
        if !(known.contains(&text) || files && is_path(text)) {
            return Err(fail(name.span().start, unknown(what, text, known)));
        }
        if list[..i].iter().any(|n| n.get_ref() == text) {
            return Err(fail(name.span().start, format!("the {what} `{text}` is named twice")));
        }
    }
    Ok(())
}

/// Everything of one kind that the file and its variants are about.
fn about<'f>(own: &'f Names, variants: impl Iterator<Item = Option<&'f Names>>) -> Vec<&'f str> {
    let lists = std::iter::once(own).chain(variants.flatten());
    lists.flatten().map(|n| n.get_ref().as_str()).collect()
}

/// Refuses an expectation for what the file is not about.
fn outside(list: &Names, what: &str, about: &[&str], fail: &Fail<'_>) -> Result<(), LitmusError> {
    match list.iter().find(|n| !about.contains(&n.get_ref().as_str())) {
        Some(name) => {
            let near = nearest(name.get_ref(), about);
            let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            let has = match about {
                [] => format!("it has no {what}"),
                _ => format!("it is about {}", about.join(", ")),
            };
            let message = format!(
                "an expectation for the {what} `{}`, which this file is not about{hint}\n{has}",
                name.get_ref()
            );
            Err(fail(name.span().start, message))
        }
        None => Ok(()),
    }
}

/// Refuses what nothing answers to.
pub(super) fn names(f: &Front, file: &Path, body: &str, fail: &Fail<'_>) -> Result<(), LitmusError> {
    let parts = Part::builtin_names();
    let kernels: Vec<&str> = KERNELS.iter().map(|k| k.name).collect();
    let policies: Vec<&str> = POLICIES.iter().map(|p| p.name).collect();
    let events: Vec<&str> = EventKind::ALL.iter().map(|k| k.name()).collect();
    listed(&f.parts, "part", &parts, true, fail)?;
    listed(&f.kernels, "kernel", &kernels, true, fail)?;
    listed(&f.events, "event", &events, false, fail)?;
    check_defines(&f.define, body, fail)?;
    check_set(&f.set, fail)?;
    if let Some(list) = &f.policies {
        listed(list, "policy", &policies, true, fail)?;
    }
    for (i, v) in f.variant.iter().enumerate() {
        let name = v.name.get_ref();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || !name.chars().all(plain) {
            let message = format!("a variant called `{name}`: expected letters, digits, `-`, `_` and `.`");
            return Err(fail(v.name.span().start, message));
        }
        if f.variant[..i].iter().any(|o| o.name.get_ref() == name) {
            return Err(fail(v.name.span().start, format!("two variants are called `{name}`")));
        }
        for (list, what, known) in
            [(&v.parts, "part", &parts), (&v.kernels, "kernel", &kernels), (&v.policies, "policy", &policies)]
        {
            if let Some(list) = list {
                if list.is_empty() {
                    let message =
                        format!("the variant `{name}` names no {what}: leave the key out, or name one");
                    return Err(fail(v.name.span().start, message));
                }
                listed(list, what, known, true, fail)?;
            }
        }
        if let Some(a) = v.assume.iter().flatten().find(|a| !Assumptions::NAMES.contains(&a.as_str())) {
            let message = unknown("assumption", a, &Assumptions::NAMES);
            return Err(fail(v.name.span().start, message));
        }
        if let Some((one, other)) = v.assume.as_deref().and_then(Assumptions::contradiction) {
            let message = format!("`{one}` and `{other}` cannot both be assumed");
            return Err(fail(v.name.span().start, message));
        }
        check_defines(&v.define, body, fail)?;
        check_set(&v.set, fail)?;
    }
    f.expect.iter().try_for_each(|e| expectation(f, file, e, &policies, &events, fail))
}

fn expectation(
    f: &Front,
    file: &Path,
    e: &ExpectFront,
    policies: &[&str],
    events: &[&str],
    fail: &Fail<'_>,
) -> Result<(), LitmusError> {
    let named: Names = e.policies.iter().filter(|p| p.get_ref() != "*").cloned().collect();
    listed(&named, "policy", policies, true, fail)?;
    let there = |name: &str| {
        !is_path(name) || [Path::new(name), &file.with_file_name(name)].iter().any(|p| p.exists())
    };
    if let Some(absent) = named.iter().find(|p| !there(p.get_ref())) {
        let message =
            format!("an expectation for the policy `{}`, and there is no such file", absent.get_ref());
        return Err(fail(absent.span().start, message));
    }
    if let Some(own) = &f.policies {
        let about = about(own, f.variant.iter().map(|v| v.policies.as_ref()));
        outside(&named, "policy", &about, fail)?;
    }
    outside(&e.parts, "part", &about(&f.parts, f.variant.iter().map(|v| v.parts.as_ref())), fail)?;
    outside(&e.kernels, "kernel", &about(&f.kernels, f.variant.iter().map(|v| v.kernels.as_ref())), fail)?;
    let variants: Vec<&str> = f.variant.iter().map(|v| v.name.get_ref().as_str()).collect();
    outside(&e.variants, "variant", &variants, fail)?;
    listed(&e.events, "event", events, false, fail)?;
    match e.events.first() {
        Some(event) if *e.verdict.get_ref() != Expected::Violated => {
            let message = format!("`{}` is expected of a verdict that is not \"violated\"", event.get_ref());
            Err(fail(event.span().start, message))
        }
        _ => match Spanned::get_ref(&e.verdict) {
            Expected::Holds | Expected::Violated | Expected::Refused if e.policies.is_empty() => {
                let message = "an expectation for no policy: name some, or `*` for all".to_owned();
                Err(fail(e.verdict.span().start, message))
            }
            Expected::Holds | Expected::Violated | Expected::Refused => Ok(()),
        },
    }
}
