//! `sevsim mutate`: changes each statement of a policy and looks whether some litmus test notices.

use rayon::prelude::*;
use sim_explore::{Bound, Limits, Search};
use workloads::assume::check_without;
use workloads::check::{CheckCase, CheckError, NamedText};
use workloads::mutate::{Mutant, mutants};
use workloads::schedule::program_digest;

use crate::args::{Format, MutateArgs};
use crate::cases::{Cases, bound_name, holding};
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::output::Output;
use crate::progress::Progress;
use crate::report::{json, mutate as report};
use svm_model::MemoryKind;

/// What became of a mutant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// A test noticed.
    Killed {
        /// The test, with kernel and part.
        by: [String; 3],
        /// The event, or what else went wrong.
        event: String,
        /// The steps of the shortest way there.
        steps: usize,
    },
    /// No test did.
    Survives,
    /// It is no text of the language, or does not fit the kernel.
    Invalid,
    /// It is compiled to what the original is.
    Same,
    /// A search met this bound before any test noticed.
    Open(String),
}

impl Fate {
    /// As in JSON.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Fate::Killed { .. } => "killed",
            Fate::Survives => "survives",
            Fate::Invalid => "invalid",
            Fate::Same => "same",
            Fate::Open(_) => "bounded",
        }
    }
}

/// Does it.
pub(crate) fn mutate(args: &MutateArgs, out: &mut Output) -> Result<Exit, Failure> {
    let named = std::slice::from_ref(&args.policy);
    let cases = Cases::of(&args.litmus, named, &args.search.about)?;
    // Without a list, the tests that are about every policy, or about this one.
    let about = |c: &CheckCase<'_>| {
        !args.litmus.is_empty() || c.litmus.policies().is_none_or(|p| p.contains(&c.policy.name))
    };
    let all: Vec<CheckCase<'_>> = cases.each().filter(about).collect();
    let limits = args.search.limits();
    let corpus = holding(&all, limits)?;
    let Some(policy) = all.first().map(|c| c.policy) else {
        return Err(Failure::input("no litmus test is about this policy: name one"));
    };
    if corpus.is_empty() {
        out.log(&format!(
            "error: {} holds in none of these tests: there is nothing that a mutant could break",
            policy.name
        ));
        return Ok(Exit::Violated);
    }
    let made = mutants(&policy.text);
    let progress = Progress::new(made.len(), "states");
    let fates: Vec<Result<Fate, Failure>> = made
        .par_iter()
        .enumerate()
        .map(|(at, mutant)| {
            let fate = fate(mutant, &corpus, limits, &|states| progress.tell(at, states, ""));
            progress.done(at);
            fate
        })
        .collect();
    progress.clear();
    let fates = fates.into_iter().collect::<Result<Vec<Fate>, Failure>>()?;
    let found: Vec<(&Mutant, Fate)> = made.iter().zip(fates).collect();
    let tests = report::Tests { policy: &policy.name, file: &policy.file, corpus: corpus.len() };
    match args.search.about.format.format {
        Format::Table => out.print(&report::table(&tests, &found, args.all, out.width())),
        Format::Json => found.iter().for_each(|f| out.print(&json::line(&report::Json::of(&tests, f)))),
        Format::Csv => out.print(&report::csv(&tests, &found)),
    }
    let open = found.iter().any(|f| matches!(f.1, Fate::Open(_)));
    Ok(if open { Exit::Inconclusive } else { Exit::Done })
}

fn fate(
    mutant: &Mutant,
    corpus: &[CheckCase<'_>],
    limits: Limits,
    tell: &(dyn Fn(u64) + Sync),
) -> Result<Fate, Failure> {
    let (mut open, mut same) = (None, true);
    for case in corpus {
        let policy = NamedText { text: mutant.text.clone(), ..case.policy.clone() };
        let changed = CheckCase { policy: &policy, ..case.clone() };
        let digest = |case: &CheckCase<'_>| case.machine(MemoryKind::Shadow).map(|m| program_digest(&m));
        match (digest(&changed), digest(case)) {
            (Err(_), _) => return Ok(Fate::Invalid),
            (Ok(a), Ok(b)) if a == b => continue,
            (Ok(_), _) => same = false,
        }
        let by = [case.litmus.name.clone(), case.kernel.name.clone(), case.part.to_owned()];
        let mut told = |p: sim_explore::Progress| tell(u64::from(p.states));
        let progress = Some(&mut told as &mut dyn FnMut(_));
        let search = Search { limits, interrupted: Some(interrupt::flag()), progress, ..Search::default() };
        let report = match check_without(&changed, &[], search) {
            Ok(report) => report,
            Err(CheckError::Runaway { .. }) => {
                return Ok(Fate::Killed { by, event: "runs forever".to_owned(), steps: 0 });
            }
            Err(error) => return Err(Failure::check(error)),
        };
        if report.bound == Some(Bound::Interrupted) {
            return Err(Failure::interrupted());
        }
        match (report.events.first(), report.bound) {
            (Some(first), _) => {
                let event = first.event.name().to_owned();
                return Ok(Fate::Killed { by, event, steps: first.schedule.len() });
            }
            (None, Some(bound)) => open = Some(bound_name(bound)),
            (None, None) => {}
        }
    }
    Ok(match (open, same) {
        (Some(bound), _) => Fate::Open(bound),
        (None, true) => Fate::Same,
        (None, false) => Fate::Survives,
    })
}
