//! `sevsim assume`: takes the guarantees of hardware and kernel away, one by one and together, and says which of them
//! a policy leans on.

use sim_explore::{Limits, Search};
use workloads::assume::{Guarantee, check_without, given, minimal_sets};
use workloads::check::{CheckCase, CheckReport, Counterexample, Verdict};

use crate::args::{AssumeArgs, Format, Stories};
use crate::cases::{Cases, bound_name};
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::output::Output;
use crate::progress::Progress;
use crate::report::assume as report;
use crate::report::json;

/// A guarantee without which something breaks, and what.
#[derive(Debug)]
pub(crate) struct Necessary {
    /// The guarantee.
    pub(crate) guarantee: Guarantee,
    /// The test in which it breaks.
    pub(crate) litmus: String,
    /// The shortest way to the first event.
    pub(crate) broken: Counterexample,
}

/// What a policy leans on in one kernel on one part.
#[derive(Debug)]
pub(crate) struct Assumed {
    /// The policy.
    pub(crate) policy: String,
    /// The tests.
    pub(crate) litmus: Vec<String>,
    /// The kernel.
    pub(crate) kernel: String,
    /// The part.
    pub(crate) part: String,
    /// The verdict with every guarantee.
    pub(crate) verdict: Verdict,
    /// The test that did not hold with every guarantee.
    pub(crate) open: Option<String>,
    /// Guarantees that the tests have, each in some.
    pub(crate) given: Vec<Guarantee>,
    /// Those without which alone something breaks.
    pub(crate) necessary: Vec<Necessary>,
    /// Sets that suffice beside the necessary ones, none of which can do with less.
    pub(crate) minimal: Vec<Vec<Guarantee>>,
    /// Guarantees, and a bound that a search without them met: nothing is known there.
    pub(crate) bounded: Option<(Vec<Guarantee>, String)>,
    /// Combinations that were checked.
    pub(crate) combinations: usize,
}

/// What checking all tests without some guarantees came to.
enum Came {
    Holds,
    Broken { litmus: String, first: Box<Counterexample> },
    Open { litmus: String, verdict: Verdict, bound: String },
}

/// Runs checks without guarantees.
struct Runner<'r> {
    cases: Vec<CheckCase<'r>>,
    limits: Limits,
    progress: &'r Progress,
    combinations: usize,
}

impl Runner<'_> {
    fn without(&mut self, taken: &[Guarantee]) -> Result<Came, Failure> {
        self.combinations += 1;
        for case in &self.cases {
            if interrupt::asked() {
                return Err(Failure::interrupted());
            }
            let report = self.one(case, taken)?;
            let litmus = case.litmus.name.clone();
            match (report.verdict, report.events.into_iter().next()) {
                (Verdict::Holds, _) => {}
                (Verdict::Violated, Some(first)) => {
                    return Ok(Came::Broken { litmus, first: Box::new(first) });
                }
                (verdict, _) => {
                    let bound = report.bound.map_or_else(|| verdict.name().to_owned(), bound_name);
                    return Ok(Came::Open { litmus, verdict, bound });
                }
            }
        }
        Ok(Came::Holds)
    }

    fn one(&self, case: &CheckCase<'_>, taken: &[Guarantee]) -> Result<CheckReport, Failure> {
        let mut tell = |p: sim_explore::Progress| {
            self.progress.tell(0, u64::from(p.states), &format!(", {} combinations", self.combinations));
        };
        let (interrupted, progress) = (Some(interrupt::flag()), Some(&mut tell as &mut dyn FnMut(_)));
        let search = Search { limits: self.limits, interrupted, progress, ..Search::default() };
        let report = check_without(case, taken, search).map_err(Failure::check)?;
        if report.bound == Some(sim_explore::Bound::Interrupted) {
            return Err(Failure::interrupted());
        }
        Ok(report)
    }
}

/// Does it.
pub(crate) fn assume(args: &AssumeArgs, out: &mut Output) -> Result<Exit, Failure> {
    let cases = Cases::of(&args.litmus, std::slice::from_ref(&args.policy), &args.search.about)?;
    let mut groups: Vec<Vec<CheckCase<'_>>> = Vec::new();
    for case in cases.each() {
        let same =
            |g: &&mut Vec<CheckCase<'_>>| (&g[0].kernel.name, g[0].part) == (&case.kernel.name, case.part);
        match groups.iter_mut().find(same) {
            Some(group) => group.push(case),
            None => groups.push(vec![case]),
        }
    }
    let mut exit = Exit::Done;
    if args.search.about.format.format == Format::Csv {
        out.print(&report::csv_head());
    }
    for (at, group) in groups.into_iter().enumerate() {
        let progress = Progress::new(1, "states");
        let found = sort_out(group, args.search.limits(), &progress);
        progress.clear();
        let found = found?;
        exit = exit.worse(match (found.verdict, &found.bounded) {
            (Verdict::Holds, None) => Exit::Done,
            (Verdict::Violated, _) => Exit::Violated,
            (
                Verdict::Holds
                | Verdict::Vacuous
                | Verdict::Bounded
                | Verdict::NotExhaustive
                | Verdict::Refused,
                _,
            ) => Exit::Inconclusive,
        });
        match args.search.about.format.format {
            Format::Table => {
                if at > 0 {
                    out.print("\n");
                }
                out.print(&report::table(&found, args.stories, out.width()));
            }
            Format::Json => out.print(&json::line(&report::Json::of(&found, args.stories != Stories::None))),
            Format::Csv => out.print(&report::csv(&found)),
        }
    }
    Ok(exit)
}

/// Sorts the guarantees of cases out that have kernel and part in common.
fn sort_out(cases: Vec<CheckCase<'_>>, limits: Limits, progress: &Progress) -> Result<Assumed, Failure> {
    let Some(first) = cases.first() else { return Err(Failure::internal("no case")) };
    let mut found = Assumed {
        policy: first.policy.name.clone(),
        litmus: cases.iter().map(|c| c.litmus.name.clone()).collect(),
        kernel: first.kernel.name.clone(),
        part: first.part.to_owned(),
        verdict: Verdict::Holds,
        open: None,
        given: Vec::new(),
        necessary: Vec::new(),
        minimal: Vec::new(),
        bounded: None,
        combinations: 0,
    };
    for case in &cases {
        for guarantee in given(case).map_err(Failure::check)? {
            if !found.given.contains(&guarantee) {
                found.given.push(guarantee);
            }
        }
    }
    let mut runner = Runner { cases, limits, progress, combinations: 0 };
    match runner.without(&[])? {
        Came::Holds => sort(&mut runner, &mut found)?,
        Came::Broken { litmus, .. } => (found.verdict, found.open) = (Verdict::Violated, Some(litmus)),
        Came::Open { litmus, verdict, bound } => {
            (found.verdict, found.open) = (verdict, Some(litmus));
            found.bounded = Some((Vec::new(), bound));
        }
    }
    found.combinations = runner.combinations;
    Ok(found)
}

fn sort(runner: &mut Runner<'_>, found: &mut Assumed) -> Result<(), Failure> {
    let mut others: Vec<Guarantee> = Vec::new();
    for guarantee in &found.given {
        match runner.without(std::slice::from_ref(guarantee))? {
            Came::Holds => others.push(guarantee.clone()),
            Came::Broken { litmus, first } => {
                found.necessary.push(Necessary { guarantee: guarantee.clone(), litmus, broken: *first });
            }
            Came::Open { bound, .. } => {
                found.bounded.get_or_insert((vec![guarantee.clone()], bound));
            }
        }
    }
    if found.bounded.is_some() {
        return Ok(());
    }
    let mut failed: Result<(), Failure> = Ok(());
    let sets = minimal_sets(others.len(), |kept| {
        let taken: Vec<Guarantee> =
            (0..others.len()).filter(|i| !kept.contains(i)).map(|i| others[i].clone()).collect();
        match runner.without(&taken) {
            Ok(Came::Holds) => Some(true),
            Ok(Came::Broken { .. }) => Some(false),
            Ok(Came::Open { bound, .. }) => {
                found.bounded = Some((taken, bound));
                None
            }
            Err(failure) => {
                failed = Err(failure);
                None
            }
        }
    });
    failed?;
    let named = |set: Vec<usize>| set.into_iter().map(|i| others[i].clone()).collect();
    found.minimal = sets.unwrap_or_default().into_iter().map(named).collect();
    Ok(())
}
