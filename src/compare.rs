//! `sevsim compare` and `sevsim run`: policies run in time, and what each costs against no flushing at all.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use workloads::check::NamedText;
use workloads::scenario::{Changes, DEFAULT, DEFAULT_POLICIES, Prepared, RunReport, Scenario};

use crate::args::{CompareArgs, Format, RunArgs, TimedArgs};
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::names::{self, Kind};
use crate::output::Output;
use crate::progress::Progress;
use crate::report::costs::{self, Costs};
use crate::report::json;
use crate::report::number::plural;
use crate::report::run::{Row, Table, csv_head, csv_row};
use crate::spool::Spool;

/// What slowdowns are measured against.
const BASELINE: &str = "no-flush";

/// A run that was finished.
#[derive(Clone, Debug)]
pub(crate) struct Timed {
    /// What it came to.
    pub(crate) report: RunReport,
    /// How long it took on the host.
    pub(crate) wall_ms: u64,
}

/// Several policies.
pub(crate) fn compare(args: &CompareArgs, out: &mut Output) -> Result<Exit, Failure> {
    let scenario = args.scenario.as_deref().unwrap_or(DEFAULT);
    let chosen: Vec<String> = match args.options.policies.is_empty() {
        true => DEFAULT_POLICIES.iter().map(|p| (*p).to_owned()).collect(),
        false => args.options.policies.clone(),
    };
    let rerun = match args.scenario {
        Some(_) => format!("compare {scenario}"),
        None => "compare".to_owned(),
    };
    timed(scenario, &chosen, &args.options.timed, &rerun, out)
}

/// One policy.
pub(crate) fn run(args: RunArgs, out: &mut Output) -> Result<Exit, Failure> {
    let rerun = format!("compare {}", args.scenario);
    timed(&args.scenario, &[args.policy], &args.timed, &rerun, out)
}

/// A scenario made ready.
struct Experiment {
    name: String,
    prepared: Prepared,
    /// As the user calls it.
    part: String,
    kernel: NamedText,
    /// The policies to show, and the baseline after them if it is none of them.
    policies: Vec<NamedText>,
    shown: usize,
    seeds: Vec<u64>,
    /// Keeps standard input's copy until the runs are over.
    _spool: Option<Spool>,
}

fn timed(
    scenario: &str,
    policies: &[String],
    args: &TimedArgs,
    rerun: &str,
    out: &mut Output,
) -> Result<Exit, Failure> {
    let experiment = Experiment::read(scenario, policies, args)?;
    for (vm, guest) in experiment.prepared.guests().iter().enumerate() {
        let lines = guest.trace_stats().map(|s| &s.lines).filter(|l| l.malformed > 0);
        if let Some((lines, first)) = lines.and_then(|l| Some((l, l.first_malformed.as_ref()?))) {
            let n = plural(usize::try_from(lines.malformed).unwrap_or(usize::MAX), "malformed line");
            out.log(&format!(
                "warning: VM {vm}: {n} of the trace skipped; the first is line {}: {}",
                first.line, first.text
            ));
        }
    }
    let runs = experiment.run_all()?;
    let rows: Vec<Row<'_>> = experiment.rows(&runs);
    if rows.is_empty() {
        out.log("interrupted before a policy was done");
        return Err(Failure::interrupted());
    }
    let names = [experiment.name.as_str(), experiment.kernel.name.as_str(), experiment.part.as_str()];
    match args.format.format {
        Format::Table => {
            let seeds = (experiment.seeds[0], experiment.seeds.len());
            let table = Table { names, prepared: &experiment.prepared, seeds, rows: &rows };
            out.print(&table.results(out.width()));
            if args.costs {
                let costs = Costs { prepared: &experiment.prepared, rows: &rows };
                out.print(&costs.text(out.width()));
            }
            out.print(&table.remarks(out.width(), args.costs));
        }
        Format::Json => {
            let measured = experiment.prepared.part().measured();
            for t in rows.iter().flat_map(|r| &r.runs) {
                let vms = experiment.prepared.vm_names().collect::<Vec<_>>();
                let victims = args.costs.then_some(vms.as_slice());
                out.print(&json::line(&json::Run::of(names, measured, &t.report, t.wall_ms, victims)));
            }
        }
        Format::Csv if args.costs => {
            out.print(&costs::csv_head());
            for t in rows.iter().flat_map(|r| &r.runs) {
                out.print(&costs::csv_rows(names, &experiment.prepared, &t.report));
            }
        }
        Format::Csv => {
            out.print(&csv_head());
            for t in rows.iter().flat_map(|r| &r.runs) {
                out.print(&csv_row(names, experiment.prepared.part().measured(), &t.report));
            }
        }
    }
    let open: Vec<&str> = experiment.policies[..experiment.shown]
        .iter()
        .map(|p| p.name.as_str())
        .filter(|name| !rows.iter().any(|r| r.policy == *name))
        .collect();
    if open.is_empty() {
        return Ok(Exit::Done);
    }
    out.log(&format!("interrupted: {} of {} policies done; to go on:", rows.len(), experiment.shown));
    out.log(&format!("  sevsim {rerun} --policy {}{}", open.join(" --policy "), options(args)));
    Ok(Exit::Saved)
}

/// The options that a command line needs to be about the same.
fn options(args: &TimedArgs) -> String {
    let mut text = String::new();
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            text.push_str(&format!(" --{name} {value}"));
        }
    };
    add("kernel", (args.kernel != svm_model::text::DEFAULT_KERNEL).then(|| args.kernel.clone()));
    add("part", args.part.clone());
    add("profile", args.profile.clone());
    add("runs", (args.runs != 1).then(|| args.runs.to_string()));
    add("seed", (args.seed != 1).then(|| args.seed.to_string()));
    add("guest-trace", args.guest_trace.as_ref().map(|p| p.display().to_string()));
    add("pcpus", args.pcpus.map(|n| n.to_string()));
    add("accesses", args.accesses.map(|n| n.to_string()));
    add("format", args.format.name().map(str::to_owned));
    if args.costs {
        text.push_str(" --costs");
    }
    text
}

impl Experiment {
    fn read(scenario: &str, policies: &[String], args: &TimedArgs) -> Result<Experiment, Failure> {
        let Some(last) = args.seed.checked_add(u64::from(args.runs) - 1) else {
            let message =
                format!("--seed {} with --runs {}: there are not that many seeds", args.seed, args.runs);
            return Err(Failure::input(message));
        };
        let found: Scenario = names::scenario(scenario)?;
        let part_name = args.part.clone().unwrap_or_else(|| found.part().to_owned());
        let part =
            names::measured_part(&part_name, args.profile.as_deref()).map_err(|failure| match args.part {
                None if args.profile.is_some() => failure,
                Some(_) => failure,
                None => Failure { message: found.part_error(failure.message).to_string(), ..failure },
            })?;
        let kernel = names::find(Kind::Kernel, &args.kernel)?;
        let mut texts = names::policies(policies)?;
        let shown = texts.len();
        if !texts.iter().any(|p| p.name == BASELINE) {
            texts.push(names::find(Kind::Policy, BASELINE)?);
        }
        let mut changes =
            Changes { guest_trace: args.guest_trace.clone(), pcpus: args.pcpus, accesses: args.accesses };
        let spool = match &args.guest_trace {
            Some(path) if path.as_os_str() == "-" => Some(Spool::standard_input()?),
            _ => None,
        };
        if let Some(spool) = &spool {
            changes.guest_trace = Some(spool.path().to_owned());
        }
        // Traces that the file names lie beside it; one from the command line, where the user is.
        let base = match (&args.guest_trace, Path::new(scenario).parent()) {
            (None, Some(folder)) if scenario.contains('/') => folder.to_owned(),
            _ => PathBuf::new(),
        };
        let wrong = |error| {
            let failure = Failure::scenario(error, scenario);
            let copy = spool.as_ref().map_or_else(String::new, |s| s.path().display().to_string());
            match copy.is_empty() {
                true => failure,
                false => Failure { message: failure.message.replace(&copy, "standard input"), ..failure },
            }
        };
        let prepared = found.prepare(&part, &changes, &base).map_err(wrong)?;
        for policy in &texts {
            prepared.machine(policy, &kernel).map_err(wrong)?;
        }
        Ok(Experiment {
            name: if scenario.contains('/') { scenario.to_owned() } else { found.name.clone() },
            prepared,
            part: part_name,
            kernel,
            policies: texts,
            shown,
            seeds: (args.seed..=last).collect(),
            _spool: spool,
        })
    }

    /// Runs each policy with each seed, on all cores; runs that were interrupted are missing.
    fn run_all(&self) -> Result<Vec<Option<Timed>>, Failure> {
        let count = self.policies.len() * self.seeds.len();
        let progress = Progress::new(count, "guest accesses");
        let results: Vec<Mutex<Option<Result<Timed, Failure>>>> =
            (0..count).map(|_| Mutex::new(None)).collect();
        rayon::scope(|scope| {
            // The baseline first: without it no other run has a slowdown.
            let baseline = self.policies.iter().position(|p| p.name == BASELINE).unwrap_or(0);
            let mut order: Vec<usize> = (0..self.policies.len()).collect();
            order.sort_by_key(|p| (*p != baseline, *p));
            for policy in order {
                for seed in 0..self.seeds.len() {
                    let index = policy * self.seeds.len() + seed;
                    let (progress, slot) = (&progress, &results[index]);
                    scope.spawn(move |_| {
                        let result = self.one(policy, seed, index, progress);
                        progress.done(index);
                        if let Ok(mut slot) = slot.lock() {
                            *slot = result;
                        }
                    });
                }
            }
        });
        progress.clear();
        results.into_iter().map(|slot| slot.into_inner().ok().flatten().transpose()).collect()
    }

    fn one(
        &self,
        policy: usize,
        seed: usize,
        index: usize,
        progress: &Progress,
    ) -> Option<Result<Timed, Failure>> {
        if interrupt::asked() {
            return None;
        }
        let begin = Instant::now();
        let mut tell = |accesses: u64| progress.tell(index, accesses, "");
        let policy = &self.policies[policy];
        let ran =
            self.prepared.run(policy, &self.kernel, self.seeds[seed], Some(interrupt::flag()), &mut tell);
        match ran {
            Ok(report) if report.outcome.interrupted => None,
            Ok(report) => {
                let wall_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
                Some(Ok(Timed { report, wall_ms }))
            }
            Err(error) => {
                let failure = Failure::scenario(error, &self.name);
                Some(Err(Failure {
                    message: format!("policy {}: {}", policy.name, failure.message),
                    ..failure
                }))
            }
        }
    }

    /// The policies of which every run was finished, with their slowdowns.
    fn rows(&self, runs: &[Option<Timed>]) -> Vec<Row<'_>> {
        let n = self.seeds.len();
        let baseline = self.policies.iter().position(|p| p.name == BASELINE);
        let mut rows = Vec::new();
        for (p, policy) in self.policies[..self.shown].iter().enumerate() {
            let done: Option<Vec<Timed>> = runs[p * n..][..n].iter().cloned().collect();
            let Some(mut done) = done else { continue };
            for (seed, timed) in done.iter_mut().enumerate() {
                let against = baseline.and_then(|b| runs[b * n + seed].as_ref());
                timed.report.slowdown_ppm = against.map_or(0, |b| slowdown_ppm(&timed.report, &b.report));
            }
            rows.push(Row { policy: &policy.name, runs: done });
        }
        rows
    }
}

/// What a run's vCPUs needed against what they needed without flushing, in millionths.
fn slowdown_ppm(run: &RunReport, baseline: &RunReport) -> u64 {
    let ppm = u128::from(run.outcome.vcpu_cycles) * 1_000_000;
    let ratio = ppm.checked_div(u128::from(baseline.outcome.vcpu_cycles)).unwrap_or(0);
    u64::try_from(ratio).unwrap_or(u64::MAX)
}
