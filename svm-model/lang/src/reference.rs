//! The reference of built-in calls, as it stands in `docs/LANGUAGE.md`.

use std::fmt::Write as _;

use crate::builtin::{Group, TABLE};

/// Every built-in call with what it means, costs and waits for, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut out = String::new();
    for group in Group::ALL {
        let _ = writeln!(out, "### {}\n", group.title());
        out.push_str("| call | means | steps | waits while |\n|---|---|---|---|\n");
        for b in TABLE.iter().filter(|b| b.group == group) {
            let litmus = if b.litmus { " (litmus texts only)" } else { "" };
            let _ =
                writeln!(out, "| `{}` | {}{litmus} | {} | {} |", b.signature(), b.meaning, b.steps, b.waits);
        }
        out.push('\n');
    }
    out
}
