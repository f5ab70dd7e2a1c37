//! `sevsim validate`: what the simulation predicts of measurements that no number of a profile was taken from.

use serde::Serialize;
use workloads::validate::{BOUND_PERCENT, NOISY_PERCENT, Outcome, Prediction, validate as predictions};

use crate::args::{Format, ValidateArgs};
use crate::exit::{Exit, Failure};
use crate::names;
use crate::output::Output;
use crate::report::number::thousandths;
use crate::report::table::{Cell, Head, styled, table, wrap};
use crate::report::verdicts::csv_line;
use crate::report::{json, part, style};

/// `sevsim.validate/1`.
#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    profile: &'a str,
    part: &'a str,
    what: &'a str,
    predicted_ps: u64,
    measured_ps: u64,
    low_ps: u64,
    high_ps: u64,
    error_permille: i64,
    outcome: &'static str,
}

const fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Met => "met",
        Outcome::Missed => "missed",
        Outcome::Noisy => "noisy",
    }
}

/// Does it.
pub(crate) fn validate(args: &ValidateArgs, out: &mut Output) -> Result<Exit, Failure> {
    let measured = names::measured_part(&args.part, Some(&args.profile))?;
    let text = names::read(&args.profile).map_err(Failure::input)?;
    let all = predictions(&measured, &args.profile, &text).map_err(Failure::input)?;
    if all.is_empty() {
        return Err(Failure::input(format!(
            "{}: it has no held-out measurements; `sevsim calibrate` writes them",
            args.profile
        )));
    }
    match args.format.format {
        Format::Table => {
            out.print(&in_words(&all, out.width()));
            if let Some(m) = measured.measured() {
                out.print(&format!(
                    "{}\n",
                    styled(&wrap(&part::measured(m), out.width(), 0), style::aside())
                ));
            }
        }
        Format::Json => all.iter().for_each(|p| out.print(&json::line(&line(args, p)))),
        Format::Csv => {
            let heads =
                ["what", "predicted_ps", "measured_ps", "low_ps", "high_ps", "error_permille", "outcome"];
            out.print(&csv_line(&heads.map(str::to_owned)));
            for p in &all {
                let numbers = [p.predicted, p.measured, p.spread.0, p.spread.1].map(|n| n.to_string());
                let [predicted, measured, low, high] = numbers;
                let (error, outcome) = (p.error_permille().to_string(), name(p.outcome()).to_owned());
                out.print(&csv_line(&[p.what.clone(), predicted, measured, low, high, error, outcome]));
            }
        }
    }
    let any = |outcome| all.iter().any(|p| p.outcome() == outcome);
    Ok(if any(Outcome::Missed) {
        Exit::Violated
    } else if any(Outcome::Met) {
        Exit::Done
    } else {
        Exit::Inconclusive
    })
}

fn line<'a>(args: &'a ValidateArgs, p: &'a Prediction) -> Line<'a> {
    Line {
        schema: "sevsim.validate/1",
        profile: &args.profile,
        part: &args.part,
        what: &p.what,
        predicted_ps: p.predicted,
        measured_ps: p.measured,
        low_ps: p.spread.0,
        high_ps: p.spread.1,
        error_permille: p.error_permille(),
        outcome: name(p.outcome()),
    }
}

fn in_words(all: &[Prediction], width: usize) -> String {
    let heads = [
        Head::left("", "held out"),
        Head::right("predicted", "ns"),
        Head::right("measured", "ns"),
        Head::right("", "p10"),
        Head::right("", "p90"),
        Head::right("", "error"),
        Head::left("", "so"),
    ];
    let rows: Vec<Vec<Cell>> = all
        .iter()
        .map(|p| {
            let permille = p.error_permille();
            let sign = if permille < 0 { "-" } else { "+" };
            let tenths = permille.unsigned_abs();
            let (colour, said) = match p.outcome() {
                Outcome::Met => (style::good(), "met"),
                Outcome::Missed => (style::bad(), "MISSED"),
                Outcome::Noisy => (style::unsure(), "too noisy to say"),
            };
            vec![
                Cell::from(p.what.as_str()),
                Cell::from(thousandths(p.predicted)),
                Cell::from(thousandths(p.measured)),
                Cell::from(thousandths(p.spread.0)),
                Cell::from(thousandths(p.spread.1)),
                Cell::from(format!("{sign}{}.{}%", tenths / 10, tenths % 10)),
                Cell::styled(said, colour),
            ]
        })
        .collect();
    let mut text = table(&heads, &rows, width);
    let said = format!(
        "met: within {BOUND_PERCENT} % of the median; too noisy to say: more than {NOISY_PERCENT} % of it between p10 and p90"
    );
    text.push_str(&format!("{}\n", wrap(&said, width, 0)));
    if all.iter().any(|p| p.is_chase && p.outcome() == Outcome::Missed && p.error_permille() < 0) {
        let said = "The model has no TLB. A chase that took longer than predicted may have been slowed by its misses, \
                    the more so in a VM, where a page can be 4 KiB to the host whatever the guest makes of it.";
        text.push_str(&format!("{}\n", wrap(said, width, 0)));
    }
    text
}
