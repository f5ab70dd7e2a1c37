//! What a litmus test expects: a verdict, of which policies, where.

use serde::Deserialize;

/// What a check can come to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// No event is reachable.
    Holds,
    /// An event is reachable.
    Violated,
}

impl Expected {
    /// As in JSON and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Expected::Holds => "holds",
            Expected::Violated => "violated",
        }
    }
}

/// Which verdict is expected, for which policies, on which parts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectFront {
    pub(super) verdict: Expected,
    pub(super) policies: Vec<String>,
    #[serde(default)]
    pub(super) parts: Vec<String>,
}
