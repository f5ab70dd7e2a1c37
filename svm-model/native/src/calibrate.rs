//! The calibration: its steps in order, what it keeps after each, and what it says when it cannot.

use std::path::Path;
use std::sync::atomic::AtomicBool;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use std::sync::atomic::Ordering;

use crate::noise::Counts;
use crate::probe::{Place, Report};
use crate::profile::{Profile, now};
use crate::safety::{OtherVms, could_set_governor, governor, other_vms};

/// One step of a calibration.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// A word.
    pub name: &'static str,
    /// The level that it needs.
    pub level: u8,
    /// What it does to the host.
    pub does: &'static str,
    /// Whether whole caches are flushed, which others on the host notice.
    pub flushes: bool,
}

/// The steps in their order.
pub const STEPS: [Step; 13] = [
    Step { name: "clock", level: 0, does: "runs additions on one pCPU", flushes: false },
    Step {
        name: "write-backs",
        level: 2,
        does: "executes WBINVD and WBNOINVD on one pCPU, and WBINVD on all of an L3 and on one of each L3 at once, with lines of its \
               own made dirty; sends IPIs to all pCPUs",
        flushes: true,
    },
    Step { name: "atomics", level: 0, does: "runs locked additions on one pCPU", flushes: false },
    Step {
        name: "ladder",
        level: 0,
        does: "reads memory of its own in random order on one pCPU, after CLFLUSH or reading other memory of its own",
        flushes: false,
    },
    Step {
        name: "core-to-core",
        level: 0,
        does: "sends a line to and fro between two pCPUs of each distance",
        flushes: false,
    },
    Step {
        name: "flush",
        level: 0,
        does: "does CLFLUSH, CLFLUSHOPT and CLWB on lines of its own, on one pCPU",
        flushes: false,
    },
    Step {
        name: "write-back",
        level: 0,
        does: "writes back lines of its own, on one core and on all cores of an L3 at once",
        flushes: false,
    },
    Step {
        name: "dirty",
        level: 0,
        does: "dirties up to the L3's size of its own memory, on one pCPU and on another, and does CLFLUSH on it",
        flushes: false,
    },
    Step { name: "syscall", level: 0, does: "makes empty system calls", flushes: false },
    Step {
        name: "locks",
        level: 0,
        does: "lets two threads wake each other, on two pCPUs and on one",
        flushes: false,
    },
    Step { name: "ipi", level: 0, does: "sends IPIs to a thread of its own by membarrier", flushes: false },
    Step {
        name: "guests",
        level: 1,
        does: "makes a VM of one vCPU, runs it, moves it, takes its memory",
        flushes: false,
    },
    Step {
        name: "sev",
        level: 3,
        does: "launches SEV, SEV-ES and SEV-SNP guests, takes their memory, destroys them, and others until ASIDs are \
               recycled: the kernel flushes the caches of all pCPUs about a hundred times",
        flushes: true,
    },
];

/// What no version measures without the helper module or SEV.
const NEEDS_MORE: [(&str, &str); 7] = [
    ("flush.wbinvd_fixed", "WBINVD is privileged: needs the helper module (L2)"),
    ("flush.wbinvd_walk", "WBINVD is privileged: needs the helper module (L2)"),
    ("flush.wbnoinvd_factor", "WBNOINVD is privileged: needs the helper module (L2)"),
    ("latency.sev_extra", "needs a clock inside an encrypted guest (L3): not measured by this version"),
    (
        "vm.sev_factor",
        "an encrypted guest (L3) shows the whole way to KVM_RUN and back (sev.*_run), not VMRUN alone",
    ),
    (
        "vm.sev_es_factor",
        "an encrypted guest (L3) shows the whole way to KVM_RUN and back (sev.*_run), not VMRUN alone",
    ),
    (
        "vm.snp_run_exit",
        "an encrypted guest (L3) shows the whole way to KVM_RUN and back (sev.*_run), not VMRUN alone",
    ),
];

/// How a calibration is to be done.
#[derive(Debug)]
pub struct Options<'a> {
    /// Fewer samples.
    pub quick: bool,
    /// Set when somebody wants an end.
    pub stop: &'a AtomicBool,
    /// Whole caches may be flushed although other users' VMs run, or may run, here.
    pub yes_flush: bool,
    /// The governor of the clocks meanwhile.
    pub governor: Option<&'a str>,
}

/// What a calibration gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The profile.
    pub profile: Profile,
    /// The exchange with the kernel about encrypted guests, as text that can be played back.
    pub exchange: String,
}

/// Why a step is not done, if it is not.
fn not_done(step: &Step, report: &Report, others: &OtherVms, yes_flush: bool) -> Option<String> {
    let level = &report.levels[usize::from(step.level)];
    if !level.have {
        return Some(format!("HERE NOT: {}", level.why));
    }
    let refused = if step.flushes { others.may_flush(yes_flush).err() } else { None };
    refused.map(|why| format!("REFUSED: {why}"))
}

/// What a calibration would do here that it may not, or what it changes: a line each. `module` says whether it would load the helper
/// module before.
#[must_use]
pub fn plan(options: &Options<'_>, module: bool) -> Vec<String> {
    plan_at(Place::here().probe(), &other_vms(Path::new("/"), std::process::id()), options, module)
}

/// The same where all is known.
fn plan_at(mut report: Report, others: &OtherVms, options: &Options<'_>, module: bool) -> Vec<String> {
    report.levels[2].have |= module;
    let mut plan = Vec::new();
    for step in &STEPS {
        let not = not_done(step, &report, others, options.yes_flush);
        let not = not.map_or(String::new(), |why| format!("; {why}"));
        plan.push(format!("L{} {:13}{}{not}", step.level, step.name, step.does));
    }
    let affinity = "moves its threads from pCPU to pCPU; its own affinity is given back after each step";
    plan.push(format!("affinity        {affinity}"));
    if let (allowed, there) = (report.allowed.len(), report.topology.pcpus.len())
        && allowed < there
    {
        plan.push(format!(
            "pCPUs           {allowed} of the host's {there}, which this process may use; IPIs and write-backs of L2 and L3 reach \
             others, too"
        ));
    }
    let home = report.allowed.last().copied().unwrap_or(0);
    let now = governor(Path::new("/"), home);
    plan.push(match (options.governor, now) {
        (None, Some(now)) => format!("governor        stays {now}; --governor performance sets it meanwhile"),
        (None, None) => "governor        none to set".to_owned(),
        (Some(wanted), now) => match could_set_governor(Path::new("/"), &report.allowed, wanted) {
            Ok(()) => {
                let now = now.unwrap_or_default();
                format!("governor        {now} becomes {wanted}, and {now} again in the end")
            }
            Err(why) => format!("governor        HERE NOT: {why}"),
        },
    });
    plan
}

/// Does all steps; `tell` hears what each does before it, or why it does not; `keep` gets what there is after it.
///
/// # Errors
/// This host cannot do even the first level, or may not do what was asked for; the reason.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub fn calibrate(
    options: &Options<'_>,
    tell: &mut dyn FnMut(&str),
    keep: &mut dyn FnMut(&Profile) -> Result<(), String>,
) -> Result<Outcome, String> {
    use crate::measure::{self, Bench};
    use crate::{os, safety};

    let root = Path::new("/");
    let report = Place::here().probe();
    let user = &report.levels[0];
    if !user.have {
        return Err(format!("{}; {}", user.why, user.how));
    }
    let title = format!("{}, Linux {}, {}", report.host.cpu, report.host.kernel, now());
    let sev_there = report.levels[3].have;
    let (topology, cpuid) = (report.topology.clone(), report.cpuid.clone());
    let mut bench = Bench::new(topology, cpuid, options.quick, options.stop)?;
    let _governor = match options.governor {
        Some(wanted) => safety::set_governor(root, &bench.allowed, wanted)?,
        None => vec![],
    };
    bench.missing = NEEDS_MORE.iter().map(|(name, why)| ((*name).to_owned(), (*why).to_owned())).collect();
    if let Err(why) = &bench.interrupts {
        let why =
            format!("{why}; samples are tagged by context switches only, interrupts are counted by step");
        bench.missing.push(("interrupts of each sample".to_owned(), why));
    }
    let mut profile = Profile {
        host: report.host.clone(),
        date: now(),
        tsc_khz: bench.tsc_khz,
        overhead: bench.overhead,
        governor: safety::governor(root, bench.home_cpu()),
        kind: if options.quick { "quick" } else { "full" },
        complete: false,
        noise: Vec::new(),
        levels: report.levels.to_vec(),
        readings: Vec::new(),
        experiments: Vec::new(),
        held_out: Vec::new(),
        missing: Vec::new(),
    };
    let mut exchange = String::new();
    for (n, step) in STEPS.iter().enumerate() {
        if bench.stopped() {
            break;
        }
        let others = other_vms(root, std::process::id());
        let not = not_done(step, &report, &others, options.yes_flush);
        tell(&format!("{}: {}", step.name, not.unwrap_or_else(|| step.does.to_owned())));
        let may_flush = others.may_flush_unnamed(options.yes_flush).map_err(|why| format!("refused: {why}"));
        let (before, tagged) = (Counts::now(os::own_time()), bench.tagged.load(Ordering::Relaxed));
        let done = match step.name {
            "clock" => measure::clock(&mut bench),
            "write-backs" => may_flush.and_then(|()| crate::flushes::measure(&mut bench)),
            "atomics" => measure::atomics(&mut bench),
            "ladder" => measure::ladder(&mut bench),
            "core-to-core" => measure::core_to_core(&mut bench),
            "flush" => measure::flush(&mut bench),
            "write-back" => measure::write_back(&mut bench),
            "dirty" => measure::dirty(&mut bench),
            "syscall" => measure::syscall(&mut bench),
            "locks" => measure::locks(&mut bench),
            "ipi" => measure::ipi(&mut bench),
            "guests" => measure::guests(&mut bench),
            _ => measure::sev(&mut bench, sev_there, may_flush, &title).map(|text| exchange = text),
        };
        if let Err(why) = done {
            bench.missing.push((format!("step {}", step.name), why));
        }
        if bench.is_late() {
            let why = "began or ended when the time was over: few samples".to_owned();
            bench.missing.push((format!("samples of step {}", step.name), why));
        }
        profile.complete = n + 1 == STEPS.len() && !bench.stopped();
        let tagged = bench.tagged.load(Ordering::Relaxed) - tagged;
        let clock = measure::clock_now(&bench);
        profile.noise.push(before.until(&Counts::now(os::own_time()), step.name, tagged, clock));
        profile.readings.clone_from(&bench.readings);
        profile.experiments.clone_from(&bench.experiments);
        profile.held_out.clone_from(&bench.held_out);
        profile.missing.clone_from(&bench.missing);
        keep(&profile)?;
    }
    Ok(Outcome { profile, exchange })
}

/// Says that this build cannot.
///
/// # Errors
/// Always.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub fn calibrate(
    _options: &Options<'_>,
    _tell: &mut dyn FnMut(&str),
    _keep: &mut dyn FnMut(&Profile) -> Result<(), String>,
) -> Result<Outcome, String> {
    Err(crate::UNSUPPORTED.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_would_be_loaded_counts_and_so_do_others_vms() {
        let folder = std::env::temp_dir().join(format!("sevsim-plan-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("sys/devices/system/cpu")).unwrap();
        std::fs::write(folder.join("cpuid"), "00000000 0 10 68747541 444d4163 69746e65\n").unwrap();
        std::fs::write(folder.join("sys/devices/system/cpu/online"), "0-3\n").unwrap();
        let report = Place::scripted(&folder).unwrap().probe();
        std::fs::remove_dir_all(&folder).unwrap();
        let stop = AtomicBool::new(false);
        let options = Options { quick: true, stop: &stop, yes_flush: false, governor: None };
        let others = OtherVms { holders: vec![(7, "qemu".to_owned())], ..OtherVms::default() };
        let line = |others: &OtherVms, module| {
            let plan = plan_at(report.clone(), others, &options, module);
            plan.into_iter().find(|l| l.starts_with("L2 write-backs")).unwrap()
        };
        let none = OtherVms::default();
        assert!(line(&none, false).contains("HERE NOT: there is no /dev/sevsim_flush"));
        assert!(line(&none, true).ends_with("to all pCPUs"));
        assert!(line(&others, true).contains("REFUSED: VMs of other processes run here (1: qemu (7)"));
        let mut fewer = report.clone();
        fewer.allowed = vec![1, 2];
        assert!(
            plan_at(fewer, &none, &options, false).iter().any(|l| l.contains("2 of the host's 4, which"))
        );
    }
}
