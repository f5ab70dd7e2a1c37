//! `sevsim scale`: makes a litmus test larger step by step, and says up to where a claim is exhaustive.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sim_explore::{Bound, Limits, Search};
use workloads::assume::check_without;
use workloads::check::{CheckCase, CheckReport, Verdict};
use workloads::litmus::{Growth, Size};

use crate::args::{Format, ScaleArgs};
use crate::cases::{Cases, bound_name};
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::output::Output;
use crate::progress::Progress;
use crate::report::{json, scale as report};

/// A size that was searched.
#[derive(Debug)]
pub(crate) struct Scaled {
    /// By how much the test was made larger.
    pub(crate) growth: Growth,
    /// How large it was.
    pub(crate) size: Size,
    /// What came out.
    pub(crate) report: CheckReport,
    /// How long that took.
    pub(crate) took: Duration,
}

/// What is told of one case.
#[derive(Debug)]
pub(crate) struct About<'c> {
    /// The case at its own size.
    pub(crate) case: &'c CheckCase<'c>,
    /// Sizes tried, in order.
    pub(crate) tried: Vec<Scaled>,
    /// Why the test cannot be made larger in some way.
    pub(crate) fixed: Vec<String>,
    /// Whether the time ended it, rather than that there was nothing left to try.
    pub(crate) late: bool,
}

/// Does it.
pub(crate) fn scale(args: &ScaleArgs, out: &mut Output) -> Result<Exit, Failure> {
    let litmus = std::slice::from_ref(&args.litmus);
    let cases = Cases::of(litmus, std::slice::from_ref(&args.policy), &args.about)?;
    let mut exit = Exit::Done;
    let format = args.about.format.format;
    if format == Format::Csv {
        out.print(&report::csv_head());
    }
    for (at, case) in cases.each().enumerate() {
        if format == Format::Table {
            out.print(&report::head(&case, at > 0));
        }
        let limits = args.about.limits(None);
        let about = grow(&case, limits, args.time, &mut |scaled| match format {
            Format::Table => out.print(&report::row(scaled)),
            Format::Json => out.print(&json::line(&report::Json::of(&case, scaled))),
            Format::Csv => out.print(&report::csv_row(&case, scaled)),
        })?;
        if format == Format::Table {
            out.print(&report::claim(&about, out.width()));
        }
        exit = exit.worse(judged(&about));
        if interrupt::asked() {
            return Ok(Exit::Saved);
        }
    }
    Ok(exit)
}

/// A claim that reaches as far as the file is a claim; beyond, only a violation changes that.
fn judged(about: &About<'_>) -> Exit {
    let verdicts = || about.tried.iter().map(|t| t.report.verdict);
    if verdicts().any(|v| v == Verdict::Violated) {
        return Exit::Violated;
    }
    match verdicts().next() {
        Some(Verdict::Holds) => Exit::Done,
        Some(_) | None => Exit::Inconclusive,
    }
}

/// Tries larger and larger sizes, always the one next that should take the least, until one is violated, none is
/// left or the time is over.
fn grow<'c>(
    case: &'c CheckCase<'c>,
    limits: Limits,
    time: Duration,
    told: &mut dyn FnMut(&Scaled),
) -> Result<About<'c>, Failure> {
    let end = Instant::now() + time;
    let mut about = About { case, tried: Vec::new(), fixed: Vec::new(), late: false };
    for growth in Growth::default().next() {
        if let Err(why) = case.litmus.grown(growth)
            && !about.fixed.contains(&why)
        {
            about.fixed.push(why);
        }
    }
    // Growths whose smaller neighbours all hold, with the states that they have at least.
    let mut open: BTreeMap<Growth, u32> = BTreeMap::from([(Growth::default(), 0)]);
    while let Some((growth, _)) = open.iter().map(|(g, states)| (*g, *states)).min_by_key(|(g, n)| (*n, *g)) {
        open.remove(&growth);
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || interrupt::asked() {
            about.late = true;
            break;
        }
        let litmus = match case.litmus.grown(growth) {
            Ok(litmus) => litmus,
            Err(why) => {
                if !about.fixed.contains(&why) {
                    about.fixed.push(why);
                }
                continue;
            }
        };
        let larger = CheckCase { litmus: &litmus, ..case.clone() };
        let began = Instant::now();
        // While there is something else to try, nothing gets more than half of what is left.
        let share = if open.is_empty() { left } else { left / 2 };
        let report = check(&larger, Limits { time: Some(share), ..limits })?;
        let took = began.elapsed();
        let scaled = Scaled { growth, size: litmus.size(), report, took };
        told(&scaled);
        let (verdict, states) = (scaled.report.verdict, scaled.report.states);
        about.late |= matches!(scaled.report.bound, Some(Bound::Time(_)));
        about.tried.push(scaled);
        if verdict == Verdict::Violated {
            break;
        }
        if verdict != Verdict::Holds {
            continue;
        }
        for next in growth.next() {
            let of =
                |g: Growth| about.tried.iter().find(|t| t.growth == g && t.report.verdict == Verdict::Holds);
            if next.previous().all(|g| of(g).is_some()) {
                let least = open.entry(next).or_insert(0);
                *least = states.max(*least);
            }
        }
    }
    Ok(about)
}

fn check(case: &CheckCase<'_>, limits: Limits) -> Result<CheckReport, Failure> {
    let progress = Progress::new(1, "states");
    let mut tell = |p: sim_explore::Progress| {
        progress.tell(0, u64::from(p.states), &format!(", {} steps deep", p.depth));
    };
    let told = Some(&mut tell as &mut dyn FnMut(_));
    let search = Search { limits, interrupted: Some(interrupt::flag()), progress: told, ..Search::default() };
    let report = check_without(case, &[], search);
    progress.clear();
    report.map_err(Failure::check)
}

/// How a search ended, in words.
pub(crate) fn ended(report: &CheckReport) -> String {
    match (report.verdict, report.bound) {
        (Verdict::Holds, _) => "holds".to_owned(),
        (Verdict::Violated, _) => "VIOLATED".to_owned(),
        (_, Some(Bound::Time(_))) => "bounded: no time left".to_owned(),
        (_, Some(bound)) => format!("bounded: {}", bound_name(bound)),
        (verdict, None) => verdict.name().to_owned(),
    }
}
