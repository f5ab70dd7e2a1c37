//! The cases of a check: litmus test by policy by kernel by part; run on all cores, reported in order.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Instant;

use cache_model::event::EventKind;
use cache_model::part::Part;
use rayon::prelude::*;
use sim_explore::{Bound, Limits, Search};
use svm_model::MemoryKind;
use svm_model::spec::MemoryModel;
use svm_model::walk::Walks;
use workloads::assume::check_without;
use workloads::check::{CheckCase, CheckReport, NamedText, Verdict};
use workloads::litmus::{Expectation, Expected, Litmus};
use workloads::schedule::schedule_text;

use crate::args::{AboutArgs, CaseArgs};
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::names::{self, Kind};
use crate::output::Output;
use crate::progress::Progress;
use crate::report::number::{duration, grouped, plural, short, size};
use crate::token::Token;

/// A part as a case needs it.
#[derive(Clone, Debug)]
struct PartOf {
    /// As the user calls it, so that a schedule finds it again.
    label: String,
    part: Part,
}

/// Everything that the cases are made of.
#[derive(Debug)]
pub(crate) struct Cases {
    litmus: Vec<Litmus>,
    /// In the order in which they were first named.
    policies: Vec<NamedText>,
    kernels: BTreeMap<String, NamedText>,
    parts: BTreeMap<String, PartOf>,
    /// Litmus test, policy, kernel, part.
    list: Vec<(usize, usize, String, String)>,
    limits: Limits,
    way: Way,
    /// Whether the user named policies.
    named: bool,
    /// Whether the tests are all that there are: some of them go with no kernel, policy or part that the user named.
    sweep: bool,
    /// The options that a command line needs to be about the same.
    options: String,
}

/// How the orders of steps are tried.
#[derive(Clone, Debug, Default)]
pub(crate) enum Way {
    /// All of them.
    #[default]
    Search,
    /// All of them, with a folder for states and checkpoints.
    OnDisk {
        /// The folder; each case has its own in it.
        dir: PathBuf,
        /// Whether to go on from the checkpoints there.
        resume: bool,
    },
    /// Those with at most so many switches.
    Switches(u16),
    /// Some, at random.
    Walks(Walks),
}

/// One case, and what it came to.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Name of the litmus test, with its variant.
    pub(crate) litmus: String,
    /// The variant, if its file has some.
    pub(crate) variant: Option<String>,
    /// What it is about.
    pub(crate) description: String,
    /// Name of the policy.
    pub(crate) policy: String,
    /// Name of the kernel.
    pub(crate) kernel: String,
    /// Name of the part.
    pub(crate) part: String,
    /// What the file expects.
    pub(crate) expected: Option<Expectation>,
    /// What came out.
    pub(crate) report: CheckReport,
    /// Of each event, its schedule as text.
    pub(crate) schedules: Vec<String>,
    /// Values of `#define`s that were given on the command line.
    pub(crate) defines: Vec<(String, i64)>,
    /// The first event's schedule in one word.
    pub(crate) token: Option<String>,
}

impl Checked {
    /// Name of the litmus file, without a variant.
    pub(crate) fn of_file(&self) -> &str {
        let ending = self.variant.as_ref().map_or(0, |v| v.len() + 1);
        &self.litmus[..self.litmus.len() - ending]
    }

    /// How a program that found only this ends.
    pub(crate) fn exit(&self) -> Exit {
        match self.report.verdict {
            Verdict::Holds => Exit::Done,
            Verdict::Violated => Exit::Violated,
            Verdict::Bounded | Verdict::Vacuous | Verdict::NotExhaustive => Exit::Inconclusive,
            Verdict::Refused => Exit::Usage,
        }
    }

    /// Whether the verdict is the expected one, with each expected event; `None` if the file expects nothing.
    pub(crate) fn met(&self) -> Option<bool> {
        let expected = self.expected.as_ref()?;
        let verdict = match self.report.verdict {
            Verdict::Holds => expected.verdict == Expected::Holds,
            Verdict::Violated => expected.verdict == Expected::Violated,
            Verdict::Refused => expected.verdict == Expected::Refused,
            Verdict::Bounded | Verdict::Vacuous | Verdict::NotExhaustive => false,
        };
        Some(verdict && self.unreached().is_empty())
    }

    /// Whether test, policy, kernel and part do not belong together, and the file does not say so.
    pub(crate) fn out_of_place(&self) -> bool {
        self.report.verdict == Verdict::Refused && self.expected.is_none()
    }

    /// Events that are expected and were not reached.
    pub(crate) fn unreached(&self) -> Vec<EventKind> {
        let expected = self.expected.iter().flat_map(|e| &e.events).copied();
        expected.filter(|kind| self.report.events.iter().all(|e| e.event != *kind)).collect()
    }

    /// The command that checks this case alone.
    pub(crate) fn command(&self) -> String {
        let kernel = match self.kernel.as_str() {
            svm_model::text::DEFAULT_KERNEL => String::new(),
            other => format!(" --kernel {other}"),
        };
        let model = match self.report.memory_model {
            MemoryModel::Sc => "",
            MemoryModel::Tso => " --memory-model tso",
        };
        let defines = define_options(&self.defines);
        format!(
            "sevsim check {} --policy {} --part {}{kernel}{model}{defines}",
            self.litmus, self.policy, self.part
        )
    }
}

/// A bound in words, as JSON has it too.
pub(crate) fn bound_name(bound: Bound) -> String {
    match bound {
        Bound::States(n) => format!("{} states", grouped(u64::from(n))),
        Bound::Depth(n) => format!("{} steps", grouped(u64::from(n))),
        Bound::Memory(n) => format!("{} of memory", size(n)),
        Bound::Time(time) => format!("{} of time", duration(time)),
        Bound::Interrupted => "interrupted".to_owned(),
        Bound::Disk => "the disk".to_owned(),
        Bound::Model(what) => what.to_owned(),
    }
}

/// What running all cases came to.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Errors in the texts, each once.
    pub(crate) failures: Vec<Failure>,
    /// Cases that were done.
    pub(crate) done: usize,
    /// Numbers of the cases that an interruption left open.
    open: Vec<usize>,
    /// States that the interrupted case had got to, and steps.
    pub(crate) reached: Option<(u32, u32)>,
}

impl Cases {
    /// Reads everything that the arguments name.
    pub(crate) fn read(litmus: &[String], args: &CaseArgs) -> Result<Cases, Failure> {
        Cases::of(litmus, &args.policies, &args.search.about)
            .map(|cases| Cases { limits: args.search.limits(), ..cases })
    }

    /// The same cases, tried in a way.
    pub(crate) fn tried(self, way: Way) -> Cases {
        Cases { way, ..self }
    }

    /// The same cases, held to what the tests expect of other kernels and policies. Whether a kernel and a policy are
    /// named that can be.
    pub(crate) fn expecting_as(
        mut self,
        names: &[String],
        (kernel, policy): (bool, bool),
    ) -> Result<Cases, Failure> {
        let expected_as = names::expected_as(names)?;
        let lacking = [(&expected_as.kernel, kernel, "kernel"), (&expected_as.policy, policy, "policy")];
        if let Some((name, _, what)) = lacking.iter().find(|(name, named, _)| name.is_some() && !named) {
            return Err(Failure::input(format!(
                "--expect-as: `{}` is a {what}, and no --{what} names one that is to be held to what is expected of it",
                name.as_deref().unwrap_or_default()
            )));
        }
        for litmus in &mut self.litmus {
            *litmus = litmus.clone().with_expectations_of(expected_as.clone());
        }
        for name in names::once(names) {
            self.options.push_str(&format!(" --expect-as {name}"));
        }
        Ok(self)
    }

    /// The same, of policies.
    pub(crate) fn of(litmus: &[String], policies: &[String], args: &AboutArgs) -> Result<Cases, Failure> {
        let named = policies;
        let sweep = litmus.is_empty();
        let all: Vec<String>;
        let names = if litmus.is_empty() {
            all = Kind::Litmus.builtin().iter().map(|b| b.0.to_owned()).collect();
            &all
        } else {
            litmus
        };
        let mut litmus: Vec<Litmus> = Vec::new();
        for name in names::once(names) {
            for test in names::litmus(name)? {
                if litmus.iter().all(|known| known.name != test.name) {
                    let test = match args.memory_model {
                        Some(model) => test.with_memory_model(model.model()),
                        None => test,
                    };
                    let define = |test: Litmus, d: &(String, i64)| test.with_define(&d.0, d.1);
                    let test = test.with_reductions(args.reductions());
                    litmus.push(args.defines.iter().fold(test, define));
                }
            }
        }
        let every = names::every_policy();
        let mut cases = Cases {
            litmus: Vec::new(),
            policies: Vec::new(),
            kernels: BTreeMap::new(),
            parts: BTreeMap::new(),
            list: Vec::new(),
            limits: args.limits(None),
            way: Way::Search,
            named: !named.is_empty(),
            sweep,
            options: options(args),
        };
        for (l, test) in litmus.iter().enumerate() {
            let kernels = args.kernel.as_ref().map_or(test.kernels(), std::slice::from_ref);
            let parts = if args.parts.is_empty() { test.parts() } else { &args.parts };
            let of_file = test.policies().unwrap_or(&every);
            let policies = if named.is_empty() { of_file } else { named };
            let lists = [("kernels", kernels), ("parts", parts), ("policies", policies)];
            let empty = lists.iter().find(|(_, list)| list.is_empty()).map(|(what, _)| *what);
            if let Some(what) = empty {
                let option = if what == "policies" { "policy" } else { what.trim_end_matches('s') };
                return Err(Failure::input(format!(
                    "{}: `{what}` is empty: name one, or give --{option}",
                    test.file
                )));
            }
            // A name from the file is the file's mistake.
            let named_in = |key: &str, given: bool| {
                let file = if given { String::new() } else { format!("{}: {key}: ", test.file) };
                move |failure: Failure| Failure { message: format!("{file}{}", failure.message), ..failure }
            };
            for name in kernels {
                if !cases.kernels.contains_key(name) {
                    let found = names::find(Kind::Kernel, name);
                    let found = found.map_err(named_in("kernels", args.kernel.is_some()))?;
                    cases.kernels.insert(name.clone(), found);
                }
            }
            for name in parts {
                if !cases.parts.contains_key(name) {
                    let part = names::part(name).map_err(named_in("parts", !args.parts.is_empty()))?;
                    cases.parts.insert(name.clone(), PartOf { label: name.clone(), part });
                }
            }
            for policy in names::once(policies) {
                let p = match cases.policies.iter().position(|p| p.name == *policy) {
                    Some(known) => known,
                    None => {
                        let found = names::find(Kind::Policy, policy);
                        cases.policies.push(found.map_err(named_in("policies", !named.is_empty()))?);
                        cases.policies.len() - 1
                    }
                };
                for kernel in names::once(kernels) {
                    for part in names::once(parts) {
                        cases.list.push((l, p, kernel.clone(), part.clone()));
                    }
                }
            }
        }
        cases.litmus = litmus;
        Ok(cases)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Runs them on all cores; `report` gets each that was done, in order.
    pub(crate) fn run(&self, report: &mut dyn FnMut(Checked)) -> Ran {
        let progress = Progress::new(self.list.len(), "states");
        let mut ran = Ran { failures: Vec::new(), done: 0, open: Vec::new(), reached: None };
        let (sender, results) = mpsc::channel();
        rayon::in_place_scope(|scope| {
            for index in 0..self.list.len() {
                let (sender, progress) = (sender.clone(), &progress);
                scope.spawn(move |_| {
                    let result = if interrupt::asked() { None } else { Some(self.one(index, progress)) };
                    progress.done(index);
                    // The receiver outlives the scope.
                    drop(sender.send((index, result)));
                });
            }
            drop(sender);
            let mut waiting = BTreeMap::new();
            let mut next = 0;
            for (index, result) in results {
                waiting.insert(index, result);
                while let Some(result) = waiting.remove(&next) {
                    self.book(next, result, &mut ran, &mut |checked| progress.aside(|| report(checked)));
                    next += 1;
                }
            }
        });
        progress.clear();
        ran
    }

    fn book(
        &self,
        index: usize,
        result: Option<Result<Checked, Failure>>,
        ran: &mut Ran,
        report: &mut dyn FnMut(Checked),
    ) {
        match result {
            None => ran.open.push(index),
            Some(Err(failure)) if ran.failures.contains(&failure) => {}
            Some(Err(failure)) => ran.failures.push(failure),
            // What was found before the interruption stands; that nothing was found says nothing.
            Some(Ok(c))
                if c.report.bound == Some(Bound::Interrupted) && c.report.verdict != Verdict::Violated =>
            {
                ran.reached = ran.reached.max(Some((c.report.states, c.report.depth)));
                ran.open.push(index);
            }
            Some(Ok(checked)) => {
                ran.done += 1;
                report(checked);
            }
        }
    }

    /// The cases themselves, in order.
    pub(crate) fn each(&self) -> impl Iterator<Item = CheckCase<'_>> {
        (0..self.list.len()).map(|index| self.case(index).0)
    }

    fn case(&self, index: usize) -> (CheckCase<'_>, &PartOf) {
        let (litmus, policy, kernel, part) = &self.list[index];
        let part = &self.parts[part];
        let case = CheckCase {
            litmus: &self.litmus[*litmus],
            policy: &self.policies[*policy],
            kernel: &self.kernels[kernel],
            part: &part.label,
            sme_coherent: part.part.sme_coherent(),
        };
        (case, part)
    }

    /// What to type for the cases that are open: a command for each set of policies.
    fn commands(&self, open: &[usize], command: &str) -> Vec<String> {
        let mut sets: Vec<(Vec<usize>, Vec<usize>)> = Vec::new();
        for litmus in 0..self.litmus.len() {
            let distinct = |cases: &mut dyn Iterator<Item = &(usize, usize, String, String)>| {
                let mut policies: Vec<usize> = cases.filter(|c| c.0 == litmus).map(|c| c.1).collect();
                policies.dedup();
                policies
            };
            let all = distinct(&mut self.list.iter());
            let mut policies = distinct(&mut open.iter().map(|i| &self.list[*i]));
            if policies.is_empty() {
                continue;
            }
            if policies == all && !self.named {
                // Those that the file is about need no naming.
                policies.clear();
            }
            match sets.iter_mut().find(|s| s.1 == policies) {
                Some(set) => set.0.push(litmus),
                None => sets.push((vec![litmus], policies)),
            }
        }
        let names = |(litmus, policies): &(Vec<usize>, Vec<usize>)| {
            let mut text = format!("sevsim {command}");
            for l in litmus {
                text.push_str(&format!(" {}", self.litmus[*l].name));
            }
            for p in policies {
                text.push_str(&format!(" --policy {}", self.policies[*p].name));
            }
            text.push_str(&self.options);
            if let Way::OnDisk { dir, .. } = &self.way {
                let (states, memory) = (self.limits.states, self.limits.memory.div_ceil(1 << 20));
                let bounds = format!(" --states {states} --memory {memory}MiB");
                text.push_str(&format!("{bounds} --disk {} --resume", dir.display()));
            }
            text
        };
        sets.iter().map(names).collect()
    }

    fn one(&self, index: usize, progress: &Progress) -> Result<Checked, Failure> {
        let (case, part) = self.case(index);
        let begun = Instant::now();
        let mut tell =
            |p: sim_explore::Progress| progress.tell(index, u64::from(p.states), &how_far(&p, begun));
        let expected = case.litmus.expected(&case.policy.name, &case.kernel.name, &part.part.name);
        let foreseen = expected.as_ref().is_some_and(|e| e.verdict == Expected::Refused);
        let flag = Some(interrupt::flag());
        let ran = match &self.way {
            Way::Search => case.run(self.limits, flag, Some(&mut tell)),
            Way::OnDisk { dir, resume } => {
                let dir = dir.join(folder_of(&case));
                case.run_on_disk(self.limits, (dir, *resume), flag, Some(&mut tell))
            }
            Way::Switches(most) => case.run_within_switches(self.limits, *most, flag, &mut tell),
            Way::Walks(walks) => case.walk(walks, flag),
        };
        let report = match ran {
            Err(error)
                if foreseen && error.refuses_policy()
                    || self.sweep && expected.is_none() && case.refused_by(&error) =>
            {
                CheckReport::refused(case.litmus.memory_model())
            }
            other => other.map_err(Failure::check)?,
        };
        let schedules = if report.events.is_empty() {
            Vec::new()
        } else {
            let machine = case.machine(MemoryKind::Shadow).map_err(Failure::check)?;
            report.events.iter().map(|e| schedule_text(&case, &machine, e.event, &e.schedule)).collect()
        };
        Ok(Checked {
            litmus: case.litmus.name.clone(),
            variant: case.litmus.variant().map(str::to_owned),
            description: case.litmus.description().to_owned(),
            policy: case.policy.name.clone(),
            kernel: case.kernel.name.clone(),
            part: case.part.to_owned(),
            expected,
            defines: case.litmus.defined().to_vec(),
            token: report
                .events
                .first()
                .and_then(|e| Token::of(&case, e.event, &e.schedule))
                .map(|t| t.text()),
            report,
            schedules,
        })
    }
}

/// How far a search is.
fn how_far(p: &sim_explore::Progress, begun: Instant) -> String {
    let rate = u128::from(p.fresh) * 1000 / begun.elapsed().as_millis().max(1);
    let rate = short(u64::try_from(rate).unwrap_or(u64::MAX));
    let left = short(u64::from(p.states.saturating_sub(p.expanded)));
    // Levels that shrink by a ratio leave a geometric series; what they will really do, nobody knows.
    let (before, level) = (u64::from(p.levels[0]), u64::from(p.levels[1]));
    let guess = match level < before && p.depth > 1 {
        true => format!(
            "{} states in all, if the levels go on shrinking so",
            short(u64::from(p.states) + level * level / (before - level))
        ),
        false => "no end in sight: the levels still grow".to_owned(),
    };
    let depth = p.depth;
    format!(", {rate}/s, {depth} steps deep, {left} to expand, {}; {guess}", size(p.memory))
}

/// The folder of a case: a name that says which it is.
fn folder_of(case: &CheckCase<'_>) -> String {
    let variant = case.litmus.variant().unwrap_or_default();
    let names = [&case.litmus.name, variant, &case.policy.name, &case.kernel.name, case.part];
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    names
        .into_iter()
        .filter(|n| !n.is_empty())
        .map(|n| n.replace(|c| plain(c) != c, "-"))
        .collect::<Vec<_>>()
        .join("+")
}

fn define_options(defines: &[(String, i64)]) -> String {
    defines.iter().map(|(name, value)| format!(" -D {name}={value}")).collect()
}

fn options(args: &AboutArgs) -> String {
    let mut text = String::new();
    let values = args.kernel.iter().map(|k| ("kernel", k)).chain(args.parts.iter().map(|p| ("part", p)));
    for (name, value) in values {
        text.push_str(&format!(" --{name} {value}"));
    }
    if let Some(model) = args.memory_model {
        text.push_str(&format!(" --memory-model {}", model.model().name()));
    }
    text.push_str(&define_options(&args.defines));
    let reductions = args.reductions();
    if reductions.symmetry {
        text.push_str(" --symmetry on");
    }
    if reductions.partial_order {
        text.push_str(" --partial-order on");
    }
    text
}

/// Those of the cases that hold, the ones first that are explored soonest. Cases that do not belong together are left out.
pub(crate) fn holding<'c>(all: &[CheckCase<'c>], limits: Limits) -> Result<Vec<CheckCase<'c>>, Failure> {
    let progress = Progress::new(all.len(), "states");
    let reports: Vec<_> = all
        .par_iter()
        .enumerate()
        .map(|(at, case)| {
            let mut tell = |p: sim_explore::Progress| progress.tell(at, u64::from(p.states), "");
            let told = Some(&mut tell as &mut dyn FnMut(_));
            let search =
                Search { limits, interrupted: Some(interrupt::flag()), progress: told, ..Search::default() };
            let report = check_without(case, &[], search);
            progress.done(at);
            report
        })
        .collect();
    progress.clear();
    let mut kept = Vec::new();
    for (case, report) in all.iter().zip(reports) {
        match report {
            Err(error) if case.refused_by(&error) => {}
            Err(error) => return Err(Failure::check(error)),
            Ok(report) if report.bound == Some(Bound::Interrupted) => return Err(Failure::interrupted()),
            Ok(report) if report.verdict == Verdict::Holds => kept.push((report.states, case.clone())),
            Ok(_) => {}
        }
    }
    kept.sort_by_key(|(states, _)| *states);
    Ok(kept.into_iter().map(|(_, case)| case).collect())
}

impl Cases {
    /// Says what went wrong beside the results of `command`, and how the program ends.
    pub(crate) fn end(&self, ran: &Ran, command: &str, found: Exit, out: &Output) -> Exit {
        let exit = ran.failures.iter().fold(found, |exit, failure| failure.report(out).worse(exit));
        if ran.open.is_empty() {
            return exit;
        }
        let mut said = format!("interrupted: {} of {} done", ran.done, plural(self.list.len(), "case"));
        if let Some((states, depth)) = ran.reached {
            let states = grouped(u64::from(states));
            said.push_str(&format!(
                "; no event so far in {states} states, {depth} steps deep, of an open one"
            ));
        }
        out.log(&said);
        let on_disk = matches!(self.way, Way::OnDisk { .. });
        if ran.done == 0 && !on_disk {
            return Exit::Interrupted;
        }
        out.log("to go on:");
        for line in self.commands(&ran.open, command) {
            out.log(&format!("  {line}"));
        }
        Exit::Saved
    }
}
