//! How results look: tables, stories, JSON and CSV.

pub(crate) mod assume;
pub(crate) mod check;
pub(crate) mod costs;
pub(crate) mod json;
pub(crate) mod mutate;
pub(crate) mod number;
pub(crate) mod part;
pub(crate) mod run;
pub(crate) mod scale;
pub(crate) mod sites;
pub(crate) mod story;
pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod verdicts;
