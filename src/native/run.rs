//! Running policies through the helper module, and what is said of each.

use std::path::Path;

use serde::Serialize;
use svm_native::helper::{Helper, Instruction, Loaded};
use svm_native::live::{self, Held, Live, Plan};
use svm_native::module_file::loadable;
use svm_native::probe::{Place, caveat, emulated};
use svm_native::program::Shape;
use svm_native::safety::other_vms;
use svm_native::stats::{Samples, Spread};
use svm_native::topology::Topology;
use workloads::check::NamedText;

use super::program::{Policy, policy};
use crate::args::{Format, NativeArgs};
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::names;
use crate::output::Output;
use crate::report::table::styled;
use crate::report::{json, style, verdicts};

fn unable(message: String) -> Failure {
    Failure { exit: Exit::Unable, message }
}

/// Does it.
pub(crate) fn native(args: &NativeArgs, out: &mut Output) -> Result<Exit, Failure> {
    let place = Place::here();
    let shape = shape(&place.topology(), args).map_err(unable)?;
    // A policy that cannot run is refused before anything is loaded.
    let named: Vec<NamedText> =
        if args.policies.is_empty() { Vec::new() } else { names::policies(&args.policies)? };
    let mut policies = named.iter().map(|text| policy(text, &shape)).collect::<Result<Vec<_>, _>>()?;
    if args.dry_run {
        out.print(&plan_text(args, &shape, &place));
        return Ok(Exit::Done);
    }
    if let Some(path) = &args.load_module {
        loadable(path).map_err(Failure::module)?;
    }
    let allowed = place.allowed().len();
    if allowed < shape.pcpus() {
        out.log(&format!(
            "this process may use {allowed} of the host's {} pCPUs: vCPUs and flushers stay on those",
            shape.pcpus()
        ));
    }
    other_vms(Path::new("/"), std::process::id())
        .may_flush(args.yes_flush_this_host)
        .map_err(|why| unable(format!("refused: {why}")))?;
    let loaded = match &args.load_module {
        Some(path) => Some(Loaded::load(path).map_err(unable)?),
        None => None,
    };
    if loaded.as_ref().is_some_and(|l| !l.ours()) {
        out.log("a helper module is loaded already: that one is used, and stays");
    }
    // After the module, before the device: the device is closed before the module is unloaded.
    let texts = Helper::open().map_err(unable)?.policies().map_err(|e| unable(format!("the module: {e}")))?;
    if policies.is_empty() {
        for (name, text) in &texts {
            let text = NamedText { name: name.clone(), file: name.clone(), text: text.clone() };
            policies.push(policy(&text, &shape)?);
        }
    }
    let hypervisor = place.host().hypervisor;
    if let Some(name) = &hypervisor {
        out.log(&format!("{}; a hypervisor may make a write-back into nothing", caveat(name)));
    }
    let emulated = hypervisor.is_some_and(|name| emulated(&name));
    if args.format.format == Format::Csv {
        out.print(CSV);
    }
    let plan = Plan {
        vms: args.vms,
        vcpus: args.vcpus,
        held: args.held,
        moves: args.moves,
        moving: args.moving,
        flushers: args.flushers,
        lines: usize::try_from(args.lines).unwrap_or(1),
        seed: args.seed,
    };
    let mut exit = Exit::Done;
    for policy in &policies {
        let number = number_of(&texts, policy)?;
        // A session ends with its file.
        let helper = Helper::open().map_err(unable)?;
        let live =
            live::run(&helper, number, &policy.program, &shape, &plan, interrupt::flag()).map_err(unable)?;
        drop(helper);
        let said = Said { policy, live: &live, emulated };
        if let Some(why) = said.refused() {
            out.log(&why);
        }
        match args.format.format {
            Format::Table => out.print(&said.text()),
            Format::Json => said.lines().iter().for_each(|line| out.print(line)),
            Format::Csv => said.csv().iter().for_each(|line| out.print(line)),
        }
        exit = exit.worse(said.exit());
        if interrupt::asked() {
            out.log("interrupted; what was done is printed");
            exit = exit.worse(Exit::Saved);
            break;
        }
    }
    Ok(exit)
}

/// This host, with the VMs of the plan.
fn shape(topology: &Topology, args: &NativeArgs) -> Result<Shape, String> {
    let first = |set: &std::collections::BTreeSet<usize>| {
        set.first().and_then(|p| u32::try_from(*p).ok()).unwrap_or(0)
    };
    if topology.pcpus.iter().enumerate().any(|(n, p)| n != p.id) {
        return Err("some pCPU between the others is offline: bring it online first".to_owned());
    }
    Ok(Shape {
        core: topology.pcpus.iter().map(|p| first(&p.core)).collect(),
        llc: topology.pcpus.iter().map(|p| first(&p.l3)).collect(),
        vms: args.vms,
        vcpu_vm: (0..args.vms * args.vcpus).map(|v| v / args.vcpus).collect(),
    })
}

/// What would be done, and what of it this host cannot, or may not.
fn plan_text(args: &NativeArgs, shape: &Shape, place: &Place) -> String {
    let mut cannot = String::new();
    let levels = place.probe().levels;
    for level in levels.iter().filter(|l| !l.have) {
        if level.level == 1 || level.level == 2 && args.load_module.is_none() {
            cannot.push_str(&format!("HERE NOT: {}; to get it: {}\n", level.why, level.how));
        }
    }
    if let Some(Err(why)) = args.load_module.as_deref().map(loadable) {
        cannot.push_str(&format!("HERE NOT: {}\n", why.why()));
    }
    if let Err(why) = other_vms(Path::new("/"), std::process::id()).may_flush(args.yes_flush_this_host) {
        cannot.push_str(&format!("REFUSED: {why}\n"));
    }
    let module = match &args.load_module {
        Some(path) => format!("loads {} into the kernel, and unloads it at the end\n", path.display()),
        None if levels[2].have => "uses the helper module that is loaded\n".to_owned(),
        None => "needs the helper module, which it does not load by itself (--load-module FILE)\n".to_owned(),
    };
    let pcpus = match (place.allowed().len(), shape.pcpus()) {
        (allowed, all) if allowed < all => {
            format!("the {allowed} of the host's {all} pCPUs that this process may use")
        }
        (_, all) => format!("{all} pCPUs"),
    };
    let policies = if args.policies.is_empty() {
        "each policy that the module has".to_owned()
    } else {
        args.policies.join(", ")
    };
    format!(
        "{module}for {policies}: makes {} VMs of {} vCPUs on {pcpus}, each dirtying {} lines a run;\n  {} reclaims while all \
         stand still, {} while all run and move, by {} threads;\n  each executes WBINVD or WBNOINVD on the pCPUs that the \
         policy asks for, which stop for milliseconds\nthreads' affinity is their own and ends with them; nothing else is \
         changed\n{cannot}",
        args.vms, args.vcpus, args.lines, args.held, args.moving, args.flushers
    )
}

/// The number in the module of the policy whose text this is.
fn number_of(texts: &[(String, String)], policy: &Policy) -> Result<u32, Failure> {
    let same = texts.iter().position(|(_, text)| *text == policy.text.text);
    if let Some(number) = same.and_then(|n| u32::try_from(n).ok()) {
        return Ok(number);
    }
    let name = &policy.text.name;
    let known: Vec<&str> = texts.iter().map(|t| t.0.as_str()).collect();
    let why = if known.contains(&name.as_str()) { "another text of that name" } else { "no such text" };
    Err(unable(format!(
        "the module that is loaded was built with {why} as `{name}` (it has: {}); build it again: sevsim module DIR --policy \
         {name}",
        known.join(", ")
    )))
}

/// A policy and what it came to.
struct Said<'a> {
    policy: &'a Policy,
    live: &'a Live,
    emulated: bool,
}

const CSV: &str = "policy,phase,round,vm,entered,asked,flushed,predicted,missed,instruction,cycles\n";

/// `sevsim.native/1`, a reclaim while all stood still.
#[derive(Debug, Serialize)]
struct HeldLine<'a> {
    schema: &'static str,
    phase: &'static str,
    policy: &'a str,
    round: usize,
    vm: u16,
    /// By the kernel's own counters of kvm_entry.
    entered: &'a [usize],
    /// By the module's probe.
    probed: &'a [usize],
    asked: &'a [usize],
    flushed: &'a [usize],
    /// By the stepper.
    predicted: Option<&'a [usize]>,
    missed: &'a [usize],
    /// Write-backs that the module did not execute, since there were too many.
    refused: u32,
    instruction: &'static str,
    cycles: u64,
    emulated: bool,
}

/// `sevsim.native/1`, the reclaims while all ran, and the whole.
#[derive(Debug, Serialize)]
struct MovingLine<'a> {
    schema: &'static str,
    phase: &'static str,
    policy: &'a str,
    complete: bool,
    reclaims: u64,
    reclaims_that_missed: u64,
    pcpus_flushed: u64,
    asked_not_flushed: u64,
    refused: u64,
    moves: u64,
    entries_counted_by_kernel: u64,
    entries_probed: u64,
    reclaim_cycles: Option<Percentiles>,
    write_back_cycles: Option<Percentiles>,
    /// The rule held, and the module did what the program asks for.
    as_asked: bool,
    emulated: bool,
}

#[derive(Debug, Serialize)]
struct Percentiles {
    samples: usize,
    p10: u64,
    p50: u64,
    p90: u64,
    p99: u64,
}

impl Percentiles {
    fn of(samples: &Samples) -> Option<Percentiles> {
        let Spread { p10, p50, p90, p99 } = samples.spread()?;
        Some(Percentiles { samples: samples.len(), p10, p50, p90, p99 })
    }
}

/// Numbers, with a blank between.
fn set(pcpus: &[usize]) -> String {
    if pcpus.is_empty() {
        return "none".to_owned();
    }
    pcpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

impl Said<'_> {
    /// Whether the module did in a round what the program asks for, and saw what the kernel counted.
    fn as_asked(held: &Held) -> bool {
        held.asked.iter().all(|p| held.flushed.contains(p))
            && held.predicted.as_ref().is_none_or(|p| *p == held.flushed)
            && held.probed == held.entered
            && held.refused == 0
            && (held.keeps || held.predicted.is_none() || held.instruction != Instruction::Wbnoinvd)
    }

    fn all_as_asked(&self) -> bool {
        let (kernel, probe) = self.live.entries;
        let moving = &self.live.moving;
        let counted = !self.live.complete || kernel == probe;
        self.live.held.iter().all(Said::as_asked) && counted && moving.unanswered == 0 && moving.refused == 0
    }

    /// What the module did not execute, and why the exit code is what it is.
    fn refused(&self) -> Option<String> {
        let held: u64 = self.live.held.iter().map(|h| u64::from(h.refused)).sum();
        let all = held + self.live.moving.refused;
        (all > 0).then(|| {
            format!(
                "{}: {all} write-backs were refused: one reclaim may execute four on a pCPU, together no longer than the module's \
                 stall_limit_us; so what was flushed is not what the program asks for",
                self.policy.text.name
            )
        })
    }

    fn missed(&self) -> bool {
        self.live.moving.missed > 0 || self.live.held.iter().any(|h| !h.missed.is_empty())
    }

    fn exit(&self) -> Exit {
        match () {
            () if !self.all_as_asked() => Exit::Internal,
            () if self.missed() => Exit::Violated,
            () => Exit::Done,
        }
    }

    fn lines(&self) -> Vec<String> {
        let policy = self.policy.text.name.as_str();
        let (schema, emulated) = ("sevsim.native/1", self.emulated);
        let held = self.live.held.iter().enumerate().map(|(round, h)| {
            json::line(&HeldLine {
                schema,
                phase: "held",
                policy,
                round,
                vm: h.vm,
                entered: &h.entered,
                probed: &h.probed,
                asked: &h.asked,
                flushed: &h.flushed,
                predicted: h.predicted.as_deref(),
                missed: &h.missed,
                refused: h.refused,
                instruction: h.instruction.name(),
                cycles: h.cycles,
                emulated,
            })
        });
        let moving = &self.live.moving;
        let whole = MovingLine {
            schema,
            phase: "moving",
            policy,
            complete: self.live.complete,
            reclaims: moving.reclaims,
            reclaims_that_missed: moving.missed,
            pcpus_flushed: moving.flushes,
            asked_not_flushed: moving.unanswered,
            refused: moving.refused,
            moves: moving.moves,
            entries_counted_by_kernel: self.live.entries.0,
            entries_probed: self.live.entries.1,
            reclaim_cycles: Percentiles::of(&moving.cycles),
            write_back_cycles: Percentiles::of(&moving.each),
            as_asked: self.all_as_asked(),
            emulated,
        };
        held.chain(std::iter::once(json::line(&whole))).collect()
    }

    fn csv(&self) -> Vec<String> {
        let row = |(round, h): (usize, &Held)| {
            let predicted = h.predicted.as_ref().map_or_else(String::new, |p| set(p));
            verdicts::csv_line(&[
                self.policy.text.name.clone(),
                "held".to_owned(),
                round.to_string(),
                h.vm.to_string(),
                set(&h.entered),
                set(&h.asked),
                set(&h.flushed),
                predicted,
                set(&h.missed),
                h.instruction.name().to_owned(),
                h.cycles.to_string(),
            ])
        };
        self.live.held.iter().enumerate().map(row).collect()
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", styled(&self.policy.text.name, style::strong()));
        for (round, h) in self.live.held.iter().enumerate() {
            let verdict = match () {
                () if h.refused > 0 => styled(&format!("REFUSED: {} write-backs", h.refused), style::bad()),
                () if !Said::as_asked(h) => {
                    let predicted = h.predicted.as_ref().map_or_else(|| "not known".to_owned(), |p| set(p));
                    styled(
                        &format!("NOT AS THE PROGRAM ASKS: {predicted}, called {}", set(&h.asked)),
                        style::bad(),
                    )
                }
                () if !h.missed.is_empty() => styled(&format!("missed: {}", set(&h.missed)), style::bad()),
                () => styled("as asked", style::good()),
            };
            text.push_str(&format!(
                "  {round:3}  vm{} entered on {:12} {} on {:12} {verdict}\n",
                h.vm,
                set(&h.entered),
                if h.instruction == Instruction::Nop { "nothing" } else { h.instruction.name() },
                set(&h.flushed)
            ));
        }
        let m = &self.live.moving;
        if m.reclaims > 0 {
            text.push_str(&format!(
                "  moving: {} reclaims, {} of them missed a pCPU; {} moves; {} write-backs on {} pCPUs a reclaim on average\n",
                m.reclaims,
                m.missed,
                m.moves,
                m.flushes,
                crate::report::number::mean(m.flushes, m.reclaims)
            ));
        }
        for (what, samples) in [("a reclaim", &m.cycles), ("a write-back", &m.each)] {
            if let Some(p) = Percentiles::of(samples) {
                let mark = if self.emulated { " (emulated: means nothing)" } else { "" };
                text.push_str(&format!(
                    "  {what}: cycles p10 {}, p50 {}, p90 {}, p99 {}{mark}\n",
                    p.p10, p.p50, p.p90, p.p99
                ));
            }
        }
        let (kernel, probe) = self.live.entries;
        text.push_str(&format!(
            "  entries: {kernel} by the kernel's counters, {probe} by the module's probe\n"
        ));
        text
    }
}
