//! `sevsim list`: what is built in, a line each.

use svm_model::text;

use crate::args::{Format, ListArgs};
use crate::exit::{Exit, Failure};
use crate::names::{self, Kind};
use crate::output::Output;
use crate::report::json::{self, Listed};
use crate::report::number::plural;
use crate::report::table::{columns, pad, styled, wrap};
use crate::report::{style, verdicts};

/// Does it.
pub(crate) fn list(args: &ListArgs, out: &mut Output) -> Result<Exit, Failure> {
    let kind = args.what.kind();
    let mut rows = Vec::new();
    for (name, file, _) in kind.builtin() {
        rows.push((name, file, summary(kind, name)?));
    }
    match args.format.format {
        Format::Table => {
            let name = rows.iter().map(|r| columns(r.0)).max().unwrap_or(0);
            for row in &rows {
                let text = wrap(&row.2, out.width().saturating_sub(name + 2), 0);
                let text = text.replace('\n', &format!("\n{}", " ".repeat(name + 2)));
                out.print(&format!("{}  {text}\n", styled(&pad(row.0, name, false), style::strong())));
            }
            let show = kind.singular().split(' ').next().unwrap_or_default();
            let example = rows.first().map_or("", |r| r.0);
            out.print(&format!("\n{}  sevsim show {show} {example}\n", styled("next:", style::strong())));
        }
        Format::Json => {
            for (name, file, summary) in &rows {
                let kind = kind.plural();
                out.print(&json::line(&Listed { schema: "sevsim.list/1", kind, name, file, summary }));
            }
        }
        Format::Csv => {
            out.print("kind,name,file,summary\n");
            for (name, file, summary) in rows {
                out.print(&verdicts::csv_line(&[kind.plural().to_owned(), name.to_owned(), file, summary]));
            }
        }
    }
    Ok(Exit::Done)
}

/// What a built-in text is, in a sentence.
fn summary(kind: Kind, name: &str) -> Result<String, Failure> {
    let of_text = |texts: &[text::Text]| {
        texts.iter().find(|t| t.name == name).map_or(String::new(), text::Text::summary)
    };
    Ok(match kind {
        Kind::Policy => of_text(text::POLICIES),
        Kind::Kernel => of_text(text::KERNELS),
        Kind::Part => {
            let part = names::part(name)?;
            let coherent = if part.sme_coherent() { "SME_COHERENT" } else { "not SME_COHERENT" };
            let pcpus = plural(usize::from(part.topology().pcpus()), "pCPU");
            format!("{}; {pcpus}; {coherent}", part.description)
        }
        Kind::Litmus => {
            let litmus = names::litmus_file(name)?;
            let variants = match litmus.variant_names().as_slice() {
                [] => String::new(),
                names => format!("; variants {}", names.join(", ")),
            };
            format!("{} ({}{variants})", litmus.description(), litmus.parts().join(", "))
        }
        Kind::Scenario => {
            let scenario = names::scenario(name)?;
            format!("{} ({})", scenario.description(), scenario.part())
        }
    })
}
