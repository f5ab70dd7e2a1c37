//! The reference of built-in calls, as it stands in `docs/LANGUAGE.md`.

use std::fmt::Write as _;

use crate::builtin::{Builtin, Group, TABLE};

/// Every built-in call with what it means, costs, waits for and reports, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut out = String::new();
    for group in Group::ALL {
        let _ = writeln!(out, "### {}\n", group.title());
        out.push_str("| call | means | steps | waits while | reports |\n|---|---|---|---|---|\n");
        for b in TABLE.iter().filter(|b| b.group == group) {
            let litmus = if b.litmus { " (litmus texts only)" } else { "" };
            let Builtin { meaning, steps, waits, reports, .. } = b;
            let _ =
                writeln!(out, "| `{}` | {meaning}{litmus} | {steps} | {waits} | {reports} |", b.signature());
        }
        out.push('\n');
    }
    out
}
