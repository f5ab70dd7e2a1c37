//! Variants of a litmus test, and initial values: what changes in the body.

use serde::Deserialize;
use svm_model::lang::Diag;
use toml::{Spanned, Value};

use super::Fail;
use super::front::{Names, is_name};

/// The function that holds the initial values, as assignments.
pub(super) const INITIAL: &str = "litmus_initial";

/// What a variant has in the place of the file's own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VariantFront {
    pub(super) name: Spanned<String>,
    pub(super) description: Option<String>,
    /// Values of the body's `#define`s.
    #[serde(default)]
    pub(super) define: Values,
    /// Initial values, beside the file's.
    #[serde(default)]
    pub(super) set: Values,
    pub(super) parts: Option<Names>,
    pub(super) kernels: Option<Names>,
    pub(super) policies: Option<Names>,
    pub(super) assume: Option<Vec<String>>,
    pub(super) wbinvd_scope: Option<Spanned<String>>,
}

/// Names with values, each with its place.
pub(super) type Values = std::collections::BTreeMap<Spanned<String>, Spanned<Value>>;

/// Values in the order of the file.
fn in_order(values: &Values) -> Vec<(&Spanned<String>, &Spanned<Value>)> {
    let mut list: Vec<_> = values.iter().collect();
    list.sort_by_key(|(key, _)| key.span().start);
    list
}

/// A value as C has it: a number, a truth value, or the name of a constant.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Integer(n) => Some(n.to_string()),
        Value::Boolean(b) => Some(b.to_string()),
        Value::String(name) if is_name(name) => Some(name.clone()),
        Value::String(_) | Value::Float(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}

/// Where a line of the body defines `name`: the line's number from 0.
fn defined_at(body: &str, name: &str) -> Option<usize> {
    body.lines().position(|line| defines(line) == Some(name))
}

/// The name that a line defines.
fn defines(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("define")?;
    let name = rest.strip_prefix([' ', '\t'])?.split_whitespace().next()?;
    is_name(name).then_some(name)
}

/// Refuses values that no `#define` can have. Whether a text has that `#define` shows when it is compiled.
pub(super) fn check_defines(define: &Values, body: &str, fail: &Fail<'_>) -> Result<(), super::LitmusError> {
    for (name, value) in in_order(define) {
        let expected = match defined_at(body, name.get_ref()) {
            Some(_) if scalar(value.get_ref()).is_none() => {
                "expected a whole number, true, false, or the name of a constant"
            }
            None if switch(value.get_ref()).is_none() => {
                "the body has no such `#define`, and that of another text becomes a whole number, true or false"
            }
            Some(_) | None => continue,
        };
        return Err(fail(value.span().start, format!("{}: {expected}", name.get_ref())));
    }
    Ok(())
}

/// A value as a kernel's switch has it.
fn switch(value: &Value) -> Option<i64> {
    value.as_integer().or_else(|| value.as_bool().map(i64::from))
}

/// The values of `#define`s that other texts than the body have: the kernel's switches. Later ones count.
pub(super) fn switches(defines: &[&Values], body: &str) -> Vec<(String, i64)> {
    let all = defines.iter().flat_map(|d| in_order(d));
    let others = all.filter(|(name, _)| defined_at(body, name.get_ref()).is_none());
    others.filter_map(|(name, value)| Some((name.get_ref().clone(), switch(value.get_ref())?))).collect()
}

/// Refuses what is no assignment.
pub(super) fn check_set(set: &Values, fail: &Fail<'_>) -> Result<(), super::LitmusError> {
    for (name, value) in in_order(set) {
        let place = |c: char| c.is_ascii_alphanumeric() || "_->[](), ".contains(c);
        let mask = value.get_ref().is_array();
        let variable = name.get_ref().strip_prefix('&').filter(|_| mask).unwrap_or(name.get_ref());
        let starts = variable.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts || !variable.chars().all(place) {
            let message = format!(
                "`{}`: expected a variable of the texts, such as `vm0->flag`, `counter` or `per_cpu(n, 1)`",
                name.get_ref()
            );
            return Err(fail(name.span().start, message));
        }
        let fits = match value.get_ref().as_array() {
            Some(bits) => bits.iter().all(|b| b.as_integer().is_some_and(|n| n >= 0)),
            None => scalar(value.get_ref()).is_some(),
        };
        if !fits {
            let message = "expected a whole number, true, false, the name of a constant, or a mask as a list of pCPUs such as [0, 2]";
            return Err(fail(value.span().start, message.to_owned()));
        }
    }
    Ok(())
}

/// The body with another value of one of its `#define`s, if it has it.
pub(super) fn with_define(body: &str, name: &str, value: i64) -> Option<String> {
    defined_at(body, name)?;
    Some(with_values(body, &|of| (of == name).then(|| value.to_string())))
}

/// The body with a variant's values of its `#define`s.
pub(super) fn with_defines(body: &str, defines_of: &[&Values]) -> String {
    with_values(body, &|name| {
        let all = defines_of.iter().rev().flat_map(|values| values.iter());
        all.into_iter().find(|(key, _)| key.get_ref() == name).and_then(|(_, value)| scalar(value.get_ref()))
    })
}

fn with_values(body: &str, value: &dyn Fn(&str) -> Option<String>) -> String {
    let line = |line: &str| match defines(line).and_then(|name| Some((name, value(name)?))) {
        None => line.to_owned(),
        Some((name, value)) => {
            let rest = line.split_once(name).map_or("", |(_, rest)| rest);
            // A comment that goes on below stays.
            let open = rest.rfind("/*").filter(|at| !rest[*at..].contains("*/")).map_or("", |at| &rest[at..]);
            let gap = if open.is_empty() { "" } else { " " };
            format!("#define {name} {value}{gap}{open}")
        }
    };
    let mut text: String = body.split_inclusive('\n').fold(String::new(), |mut text, whole| {
        let end = if whole.ends_with('\n') { "\n" } else { "" };
        text.push_str(&line(whole.trim_end_matches('\n')));
        text.push_str(end);
        text
    });
    text.shrink_to_fit();
    text
}

/// One initial value: where the file says it, and where its assignment stands in the body.
#[derive(Clone, Debug)]
pub(super) struct Initial {
    /// Line, from 1.
    line: u32,
    /// Column and length of the name in the file, in characters, column from 1.
    name: (u32, u32),
    /// Columns of the assignment in the line of the body, from 1, the last one excluded.
    generated: (u32, u32),
}

fn count(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX)
}

/// Writes the initial values as a function into the blank lines above the body, each on the line where the file
/// says it, so that errors have its place. `text` is the whole file, `offset` what spans lack.
pub(super) fn with_initial(
    body: &str,
    text: &str,
    sets: &[&Values],
    offset: usize,
) -> (String, Vec<Initial>) {
    let mut all: Vec<_> = sets.iter().flat_map(|s| in_order(s)).collect();
    all.sort_by_key(|(key, _)| key.span().start);
    let mut lines: Vec<String> = body.split('\n').map(str::to_owned).collect();
    let mut initial = Vec::new();
    for (i, (key, value)) in all.iter().enumerate() {
        let start = key.span().start + offset;
        let (line, _) = super::position(text, start);
        let begin = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let head = if i == 0 { format!("void {INITIAL}(void) {{ ") } else { " ".to_owned() };
        let tail = if i + 1 == all.len() { " }" } else { "" };
        let name = key.get_ref();
        let assignment = match value.get_ref().as_array() {
            Some(bits) => {
                let bits = bits.iter().filter_map(Value::as_integer);
                bits.map(|bit| format!("cpumask_set_cpu({bit}, {name});")).collect::<Vec<_>>().join(" ")
            }
            None => format!("{name} = {};", scalar(value.get_ref()).unwrap_or_default()),
        };
        let Some(at) = lines.get_mut(line - 1) else { continue };
        at.push_str(&head);
        let from = count(at) + 1;
        at.push_str(&assignment);
        initial.push(Initial {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            name: (count(&text[begin..start]) + 1, count(name).max(1)),
            generated: (from, count(at) + 1),
        });
        at.push_str(tail);
    }
    (lines.join("\n"), initial)
}

/// An error in an assignment is about the value that the front matter gives.
pub(super) fn placed(diag: Diag, initial: &[Initial], text: &str) -> Diag {
    let on_line = || initial.iter().filter(|i| i.line == diag.line);
    let within = |i: &&Initial| (i.generated.0..i.generated.1).contains(&diag.column);
    let Some(found) = on_line().find(within).or_else(|| on_line().next()) else { return diag };
    let line = usize::try_from(found.line).unwrap_or(1);
    let source_line = text.lines().nth(line - 1).unwrap_or_default().to_owned();
    let (column, len) = found.name;
    // The name may stand in quotes.
    let quoted = source_line.chars().nth(usize::try_from(column).unwrap_or(1) - 1) == Some('"');
    Diag { column: column + u32::from(quoted), len, source_line, ..diag }
}
