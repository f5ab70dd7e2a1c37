//! The calibration: its steps in order, what it keeps after each, and what it says when it cannot.

use std::fs;
use std::sync::atomic::AtomicBool;

use crate::probe::Place;
use crate::profile::{Noise, Profile, now};

/// One step of a calibration.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// A word.
    pub name: &'static str,
    /// The level that it needs.
    pub level: u8,
    /// What it does to the host.
    pub does: &'static str,
}

/// The steps in their order.
pub const STEPS: [Step; 11] = [
    Step { name: "clock", level: 0, does: "runs additions on one pCPU" },
    Step {
        name: "write-backs",
        level: 2,
        does: "executes WBINVD and WBNOINVD on one pCPU, and on all of an L3, with lines of its own made dirty",
    },
    Step { name: "atomics", level: 0, does: "runs locked additions on one pCPU" },
    Step {
        name: "ladder",
        level: 0,
        does: "maps four times the L3's size and reads it in random order on one pCPU",
    },
    Step {
        name: "core-to-core",
        level: 0,
        does: "sends a line to and fro between two pCPUs of each distance",
    },
    Step {
        name: "flush",
        level: 0,
        does: "does CLFLUSH, CLFLUSHOPT and CLWB on lines of its own, on one pCPU",
    },
    Step {
        name: "write-back",
        level: 0,
        does: "writes back lines of its own, on one core and on all cores of an L3 at once",
    },
    Step { name: "syscall", level: 0, does: "makes empty system calls" },
    Step { name: "locks", level: 0, does: "lets two threads wake each other, on two pCPUs and on one" },
    Step { name: "ipi", level: 0, does: "sends IPIs to a thread of its own by membarrier" },
    Step { name: "guests", level: 1, does: "makes a VM of one vCPU, runs it, moves it, takes its memory" },
];

/// What no version measures without the helper module or SEV.
const NEEDS_MORE: [(&str, &str); 7] = [
    ("flush.wbinvd_fixed", "WBINVD is privileged: needs the helper module (L2)"),
    ("flush.wbinvd_walk", "WBINVD is privileged: needs the helper module (L2)"),
    ("flush.wbnoinvd_factor", "WBNOINVD is privileged: needs the helper module (L2)"),
    ("latency.sev_extra", "needs an encrypted guest (L3)"),
    ("vm.sev_factor", "needs an encrypted guest (L3)"),
    ("vm.sev_es_factor", "needs an encrypted guest (L3)"),
    ("vm.snp_run_exit", "needs an encrypted guest (L3)"),
];

/// Milliseconds that the hypervisor has taken from all pCPUs so far.
fn steal_ms() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = text.lines().next().and_then(|l| l.split_whitespace().nth(8)?.parse::<u64>().ok());
    // The kernel's tick for user space is a hundredth of a second.
    ticks.unwrap_or(0) * 10
}

/// Does all steps; `tell` hears each step's name before it, `keep` gets what there is after it.
///
/// # Errors
/// This host cannot do even the first level; the reason.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub fn calibrate(
    quick: bool,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(&Step),
    keep: &mut dyn FnMut(&Profile) -> Result<(), String>,
) -> Result<Profile, String> {
    use crate::measure::{self, Bench};

    let report = Place::here().probe();
    let user = &report.levels[0];
    if !user.have {
        return Err(format!("{}; {}", user.why, user.how));
    }
    let steal = steal_ms();
    let mut bench = Bench::new(report.topology, report.cpuid, quick, stop)?;
    bench.missing = NEEDS_MORE.iter().map(|(name, why)| ((*name).to_owned(), (*why).to_owned())).collect();
    let mut profile = Profile {
        host: report.host,
        date: now(),
        tsc_khz: bench.tsc_khz,
        overhead: bench.overhead,
        kind: if quick { "quick" } else { "full" },
        complete: false,
        noise: Noise::default(),
        levels: report.levels.to_vec(),
        readings: Vec::new(),
        held_out: Vec::new(),
        missing: Vec::new(),
    };
    for (n, step) in STEPS.iter().enumerate() {
        if bench.stopped() {
            break;
        }
        tell(step);
        let done = match step.name {
            "clock" => measure::clock(&mut bench),
            "write-backs" => crate::flushes::measure(&mut bench),
            "atomics" => measure::atomics(&mut bench),
            "ladder" => measure::ladder(&mut bench),
            "core-to-core" => measure::core_to_core(&mut bench),
            "flush" => measure::flush(&mut bench),
            "write-back" => measure::write_back(&mut bench),
            "syscall" => measure::syscall(&mut bench),
            "locks" => measure::locks(&mut bench),
            "ipi" => measure::ipi(&mut bench),
            _ => measure::guests(&mut bench),
        };
        if let Err(why) = done {
            bench.missing.push((format!("step {}", step.name), why));
        }
        profile.complete = n + 1 == STEPS.len() && !bench.stopped();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        profile.noise = Noise { steal_ms: steal_ms().saturating_sub(steal), load: load.trim().to_owned() };
        profile.readings.clone_from(&bench.readings);
        profile.held_out.clone_from(&bench.held_out);
        profile.missing.clone_from(&bench.missing);
        keep(&profile)?;
    }
    Ok(profile)
}

/// Says that this build cannot.
///
/// # Errors
/// Always.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub fn calibrate(
    _quick: bool,
    _stop: &AtomicBool,
    _tell: &mut dyn FnMut(&Step),
    _keep: &mut dyn FnMut(&Profile) -> Result<(), String>,
) -> Result<Profile, String> {
    Err(crate::UNSUPPORTED.to_owned())
}
