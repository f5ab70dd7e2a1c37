//! `sevsim validate`: what the simulation predicts of measurements that no number of a profile was taken from.

use serde::Serialize;
use workloads::validate::agree::{AGREE_PERCENT, FAR_PERCENT, Pair, agree};
use workloads::validate::{
    BOUND_PERCENT, NOISY_PERCENT, Outcome, Prediction, Validation, validate as predictions,
};

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
    predicted_low_ps: u64,
    predicted_high_ps: u64,
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
        Outcome::Unsure => "unsure",
    }
}

/// Does it.
pub(crate) fn validate(args: &ValidateArgs, out: &mut Output) -> Result<Exit, Failure> {
    if let Some(other) = &args.against {
        return agreement(args, other, out);
    }
    let measured = names::measured_part(&args.part, Some(&args.profile))?;
    let text = names::read(&args.profile).map_err(Failure::input)?;
    let Validation { predictions: all, with } =
        predictions(&measured, &args.profile, &text).map_err(Failure::input)?;
    if all.is_empty() {
        return Err(Failure::input(format!(
            "{}: it has no held-out measurements; `sevsim calibrate` writes them",
            args.profile
        )));
    }
    match args.format.format {
        Format::Table => {
            out.print(&in_words(&all, out.width()));
            out.print(&format!(
                "{}\n",
                wrap(&format!("Simulated with {}.", with.join("; ")), out.width(), 0)
            ));
            if let Some(m) = measured.measured() {
                out.print(&format!(
                    "{}\n",
                    styled(&wrap(&part::measured(m), out.width(), 0), style::aside())
                ));
            }
        }
        Format::Json => all.iter().for_each(|p| out.print(&json::line(&line(args, p)))),
        Format::Csv => {
            let heads = [
                "what",
                "predicted_ps",
                "predicted_low_ps",
                "predicted_high_ps",
                "measured_ps",
                "low_ps",
                "high_ps",
                "error_permille",
                "outcome",
            ];
            out.print(&csv_line(&heads.map(str::to_owned)));
            for p in &all {
                let numbers = [p.predicted, p.range.0, p.range.1, p.measured, p.spread.0, p.spread.1];
                let mut row = vec![p.what.clone()];
                row.extend(numbers.map(|n| n.to_string()));
                row.extend([p.error_permille().to_string(), name(p.outcome()).to_owned()]);
                out.print(&csv_line(&row));
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
        predicted_low_ps: p.range.0,
        predicted_high_ps: p.range.1,
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
                Outcome::Unsure => (style::unsure(), "profile too unsure to say"),
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
        "met: within {BOUND_PERCENT} % of the median; too noisy to say: more than {NOISY_PERCENT} % of it between p10 and p90, \
         or the host was not quiet and more than {BOUND_PERCENT} % off; \
         profile too unsure to say: within {BOUND_PERCENT} % of what the low and high values of the profile give"
    );
    text.push_str(&format!("{}\n", wrap(&said, width, 0)));
    text
}

/// `sevsim.agree/1`.
#[derive(Serialize)]
struct PairLine<'a> {
    schema: &'static str,
    name: &'a str,
    unit: &'a str,
    first_thousandths: u64,
    second_thousandths: u64,
    difference_permille: i64,
}

/// How far two calibrations agree.
fn agreement(args: &ValidateArgs, other: &str, out: &mut Output) -> Result<Exit, Failure> {
    let read = |file: &str| names::read(file).map_err(Failure::input);
    let (first, second) = (read(&args.profile)?, read(other)?);
    let found = agree((&args.profile, &first), (other, &second)).map_err(Failure::input)?;
    let signed = |permille: i64| {
        let sign = if permille < 0 { "-" } else { "+" };
        format!("{sign}{}.{}%", permille.unsigned_abs() / 10, permille.unsigned_abs() % 10)
    };
    match args.format.format {
        Format::Table => {
            let heads = [
                Head::left("", "number"),
                Head::right("", "first"),
                Head::right("", "second"),
                Head::left("", "unit"),
                Head::right("", "difference"),
            ];
            let row = |p: &Pair| {
                let (first, second) = (thousandths(p.first), thousandths(p.second));
                [p.name.clone(), first, second, p.unit.clone(), signed(p.difference_permille())]
                    .map(Cell::from)
                    .to_vec()
            };
            let rows: Vec<Vec<Cell>> = found.pairs.iter().map(row).collect();
            out.print(&table(&heads, &rows, out.width()));
            let median = found.median_permille;
            let far = found
                .pairs
                .iter()
                .filter(|p| p.difference_permille().unsigned_abs() > FAR_PERCENT * 10)
                .count();
            let said = format!(
                "median difference {}.{} %, of {} numbers; {far} of them differ by more than {FAR_PERCENT} %",
                median / 10,
                median % 10,
                found.pairs.len()
            );
            out.print(&format!("{}\n", styled(&said, style::strong())));
            for (which, said) in ["first", "second"].iter().zip(&found.said) {
                out.print(&format!("{}\n", wrap(&format!("{which}: {said}"), out.width(), 0)));
            }
        }
        Format::Json => {
            for p in &found.pairs {
                out.print(&json::line(&PairLine {
                    schema: "sevsim.agree/1",
                    name: &p.name,
                    unit: &p.unit,
                    first_thousandths: p.first,
                    second_thousandths: p.second,
                    difference_permille: p.difference_permille(),
                }));
            }
        }
        Format::Csv => {
            out.print("name,unit,first,second,difference_permille\n");
            for p in &found.pairs {
                let (first, second) = (thousandths(p.first), thousandths(p.second));
                out.print(&csv_line(&[
                    p.name.clone(),
                    p.unit.clone(),
                    first,
                    second,
                    p.difference_permille().to_string(),
                ]));
            }
        }
    }
    Ok(if found.median_permille <= AGREE_PERCENT * 10 {
        Exit::Done
    } else if found.quiet {
        Exit::Violated
    } else {
        // Of hosts that were not quiet nothing follows.
        Exit::Inconclusive
    })
}
