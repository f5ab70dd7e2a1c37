//! `sevsim test`: the verdicts of litmus tests against what the files expect.

use crate::args::{Format, TestArgs};
use crate::cases::{Cases, Checked};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::report::{json, verdicts};
use crate::sites;

/// Does it.
pub(crate) fn test(args: &TestArgs, out: &mut Output) -> Result<Exit, Failure> {
    if args.sites {
        return sites::sites(args, out);
    }
    let litmus: &[String] = if args.all { &[] } else { &args.litmus };
    let named = (args.cases.search.about.kernel.is_some(), !args.cases.policies.is_empty());
    let cases = Cases::read(litmus, &args.cases)?.expecting_as(&args.expect_as, named)?;
    let mut exit = Exit::Done;
    let mut all: Vec<Checked> = Vec::new();
    let mut nothing = true;
    if args.cases.search.about.format.format == Format::Csv {
        out.print(&verdicts::csv_head(true));
    }
    let ran = cases.run(&mut |checked| {
        exit = exit.worse(judged(&checked));
        nothing &= checked.out_of_place();
        match args.cases.search.about.format.format {
            Format::Table => all.push(checked),
            Format::Json => out.print(&json::line(&json::Check::of(&checked, true))),
            Format::Csv => out.print(&verdicts::csv_row(&checked, true)),
        }
    });
    if !all.is_empty() {
        out.print(&verdicts::matrix(&all, out.width()));
    }
    if nothing && ran.done > 0 {
        out.log("nothing was checked: what was named goes with no test; `sevsim check` says why of each");
        exit = exit.worse(Exit::Usage);
    }
    Ok(cases.end(&ran, "test", exit, out))
}

/// How one verdict counts: as expected, not, or not known. Of what no rule speaks, only a bound counts.
fn judged(checked: &Checked) -> Exit {
    match (checked.exit(), checked.met()) {
        (Exit::Inconclusive, _) => Exit::Inconclusive,
        (_, Some(false)) => Exit::Violated,
        (_, Some(true) | None) => Exit::Done,
    }
}
