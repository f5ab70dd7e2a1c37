//! What a litmus test expects: a verdict, of which policies, where, and which events it is made of.

use cache_model::event::EventKind;
use serde::Deserialize;
use svm_model::text::POLICIES;
use toml::Spanned;

use super::front::Names;

/// What a check can come to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// No event is reachable.
    Holds,
    /// An event is reachable.
    Violated,
    /// The kernel does not ask the policy: there is nothing to check.
    Refused,
}

impl Expected {
    /// As in JSON and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Expected::Holds => "holds",
            Expected::Violated => "violated",
            Expected::Refused => "refused",
        }
    }
}

/// What is expected of one case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Expectation {
    /// The verdict.
    pub verdict: Expected,
    /// Events that must be reachable, each of them.
    pub events: Vec<EventKind>,
}

/// Which verdict is expected, for which policies, in which kernels and variants, on which parts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectFront {
    pub(super) verdict: Spanned<Expected>,
    /// `*` is every built-in policy: of a user's own nothing is expected unless it is named.
    pub(super) policies: Names,
    /// All if none is named; so for the other lists.
    #[serde(default)]
    pub(super) parts: Names,
    #[serde(default)]
    pub(super) kernels: Names,
    #[serde(default)]
    pub(super) variants: Names,
    #[serde(default)]
    pub(super) events: Names,
}

impl ExpectFront {
    /// Whether the rule speaks of a case.
    pub(super) fn fits(&self, policy: &str, kernel: &str, part: &str, variant: Option<&str>) -> bool {
        let has = |list: &Names, name: &str| list.iter().any(|n| n.get_ref() == name);
        let builtin = POLICIES.iter().any(|p| p.name == policy);
        (has(&self.policies, policy) || builtin && has(&self.policies, "*"))
            && (self.parts.is_empty() || has(&self.parts, part))
            && (self.kernels.is_empty() || has(&self.kernels, kernel))
            && (self.variants.is_empty() || variant.is_some_and(|v| has(&self.variants, v)))
    }

    /// What the rule expects.
    pub(super) fn expectation(&self) -> Expectation {
        let events = self.events.iter().filter_map(|e| EventKind::from_name(e.get_ref())).collect();
        Expectation { verdict: *self.verdict.get_ref(), events }
    }
}
