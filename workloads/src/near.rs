//! The nearest of the names that there are, for messages about one that there is not.

/// The name most like `name`, if one is like it at all.
#[must_use]
pub fn nearest<'n>(name: &str, names: &[&'n str]) -> Option<&'n str> {
    let near = names.iter().map(|n| (strsim::damerau_levenshtein(name, n), *n)).min()?;
    let like = near.0 <= (name.chars().count() / 2).max(2) || near.1.contains(name) && name.len() > 2;
    like.then_some(near.1)
}
