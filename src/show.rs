//! `sevsim show`, `completions` and `man`: texts as they are.

use svm_model::lang::{self, Role, Source};
use svm_model::text::PARTS;

use crate::args::{Cli, CompletionsArgs, Format, ShowArgs, ShowWhat};
use crate::exit::{Exit, Failure};
use crate::names::{self, Kind};
use crate::output::Output;
use crate::report::{self, json};

/// Prints a text.
pub(crate) fn show(args: &ShowArgs, out: &mut Output) -> Result<Exit, Failure> {
    if args.format == Format::Csv {
        return Err(Failure::input(
            "--format csv: a text has no rows; `show` knows table (as it is) and json",
        ));
    }
    if args.profile.is_some() && (args.what != ShowWhat::Part || args.format != Format::Table) {
        return Err(Failure::input("--profile: only `show part NAME` has numbers to show, as a sheet"));
    }
    let kind = match args.what {
        ShowWhat::Policy | ShowWhat::Ast => Kind::Policy,
        ShowWhat::Kernel => Kind::Kernel,
        ShowWhat::Part => Kind::Part,
        ShowWhat::Litmus => Kind::Litmus,
        ShowWhat::Scenario => Kind::Scenario,
    };
    if args.what == ShowWhat::Litmus {
        let litmus = names::litmus_file(&args.name)?;
        print(args, kind, &litmus.name, &litmus.file, &litmus.shown(), out);
        return Ok(Exit::Done);
    }
    if args.what == ShowWhat::Part && args.format == Format::Table && !args.text {
        let part = names::measured_part(&args.name, args.profile.as_deref())?;
        out.print(&report::part::sheet(&part, &args.name, out.width()));
        return Ok(Exit::Done);
    }
    let part_of_kernels = PARTS.iter().find(|t| kind == Kind::Kernel && t.name == args.name);
    if let Some(t) = part_of_kernels {
        print(args, kind, t.name, t.file, t.text, out);
        return Ok(Exit::Done);
    }
    let found = names::find(kind, &args.name)?;
    let text = if args.what == ShowWhat::Ast {
        let source = Source { file: &found.file, text: &found.text, role: Role::Policy };
        let tree = lang::parse(&source).map_err(|diags| Failure::diags(&diags, &found.file))?;
        tree.to_string()
    } else {
        found.text
    };
    print(args, kind, &found.name, &found.file, &text, out);
    Ok(Exit::Done)
}

fn print(args: &ShowArgs, kind: Kind, name: &str, file: &str, text: &str, out: &mut Output) {
    match args.format {
        Format::Table | Format::Csv => out.print(text),
        Format::Json => out.print(&json::line(&json::Shown {
            schema: "sevsim.show/1",
            kind: if args.what == ShowWhat::Ast { "ast" } else { kind.plural() },
            name,
            file,
            text,
        })),
    }
}

/// Prints a shell's completion script.
pub(crate) fn completions(args: &CompletionsArgs, out: &mut Output) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::described(), "sevsim", &mut script);
    out.print(&String::from_utf8_lossy(&script));
    Exit::Done
}

/// Prints the manual page.
pub(crate) fn man(out: &mut Output) -> Result<Exit, Failure> {
    let mut page = Vec::new();
    let failed = |e: std::io::Error| Failure::internal(format!("the manual page cannot be made: {e}"));
    clap_mangen::Man::new(Cli::described()).render(&mut page).map_err(failed)?;
    out.print(&String::from_utf8_lossy(&page));
    Ok(Exit::Done)
}
