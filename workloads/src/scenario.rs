//! Scenarios: guests, reclaim and reuse on a part, run in time under one policy or several.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use cache_model::hierarchy::{Hierarchy, LineRef};
use cache_model::lattice::{Psp, Shape};
use cache_model::part::{Level, Part, PartError, Timing};
use serde::Deserialize;
use sev_arch::{Access as AccessKind, PcpuId, VcpuId, VmId, WbinvdScope};
use svm_model::lang::{Diag, Role, Source};
use svm_model::spec::{
    Assumptions, Guest as GuestKind, Guests, ModelSpec, Reuse, TaskKind, TaskSpec, VCPU_THREAD, VmKind,
    VmSpec,
};
use svm_model::timed::{
    Access, Finished, GuestStream, Outcome, Pace, Placement, Plan, Run, TimedError, TimedMemory,
};
use svm_model::{Machine, MemoryKind};

use crate::check::NamedText;
use crate::guest::{Guest, GuestError, GuestSource, GuestSpec, LINES_PER_PAGE};
pub use amount::{Bandwidth, Duration, Every};
use host::{DeviceFront, ReclaimSource, SchedulerFront};

mod amount;
mod host;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Front {
    description: String,
    part: String,
    pcpus: u16,
    /// Which caches WBINVD and WBNOINVD act on: `core`, `core+ccx-l3` (if it is left out), `ccx`, `package`.
    wbinvd_scope: Option<String>,
    vm: Vec<VmFront>,
    #[serde(default)]
    reclaim: Vec<ReclaimFront>,
    /// Who decides where vCPUs run; as each VM's `migrate_every` says if it is left out.
    #[serde(default)]
    scheduler: SchedulerFront,
    #[serde(default)]
    device: Vec<DeviceFront>,
    reuse: ReuseFront,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VmFront {
    name: String,
    vcpus: u16,
    pcpus: Vec<u16>,
    accesses: u64,
    #[serde(default = "spare_pages")]
    spare_pages: u32,
    migrate_every: Option<Every>,
    /// What the VM is: `normal`, `sev`, `sev-es` or `sev-snp`.
    #[serde(default)]
    kind: Kind,
    /// Its pages are shared with the host: C=0 for the guest too.
    #[serde(default)]
    shared: bool,
    guest: GuestSpec,
}

/// A VM's kind, by its name.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(try_from = "String")]
struct Kind(VmKind);

impl TryFrom<String> for Kind {
    type Error = String;

    fn try_from(text: String) -> Result<Kind, String> {
        VmKind::from_name(&text).map(Kind).ok_or_else(|| {
            let names = VmKind::ALL.map(VmKind::name).join(", ");
            format!("no kind of VM is called '{text}': expected one of {names}")
        })
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReclaimFront {
    vm: u16,
    /// What calls the notifier, or the kernel text's function for it.
    source: Option<ReclaimSource>,
    entry: Option<String>,
    pcpus: Vec<u16>,
    every: Every,
    /// Pages in a row, each time.
    #[serde(default = "one")]
    pages: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReuseFront {
    after: Duration,
    #[serde(default = "half")]
    device_percent: u8,
}

fn spare_pages() -> u32 {
    64
}

fn half() -> u8 {
    50
}

fn one() -> u64 {
    1
}

impl ReclaimFront {
    /// The function of the kernel text that it runs.
    fn function(&self) -> &str {
        match (&self.entry, self.source) {
            (Some(entry), _) => entry,
            (None, Some(source)) => source.function(),
            (None, None) => "",
        }
    }
}

/// A scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name: that of the file without its ending.
    pub name: String,
    file: String,
    text: String,
    front: Front,
}

/// Why a scenario cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file is wrong.
    #[error("{file}:{line}:{column}: {message}")]
    File {
        /// The file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong, and what was expected.
        message: String,
    },
    /// The part is wrong.
    #[error(transparent)]
    Part(#[from] PartError),
    /// A guest cannot be loaded.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The texts are wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Text(Vec<Diag>),
    /// The run could not be finished.
    #[error("{0}")]
    Run(String),
    /// An error of this program.
    #[error("internal error: {0}")]
    Internal(String),
    /// The run was given up: its guests hardly get on.
    #[error("{0}")]
    GivenUp(String),
}

/// What is replaced in a scenario from the command line.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// A trace that every guest plays, whatever it does in the file.
    pub guest_trace: Option<std::path::PathBuf>,
    /// Another number of pCPUs.
    pub pcpus: Option<u16>,
    /// Another number of accesses of each vCPU.
    pub accesses: Option<u64>,
}

/// The built-in scenarios: name, file, text.
pub const BUILTIN: &[(&str, &str, &str)] = &[
    ("numa-churn", "scenarios/numa-churn.toml", include_str!("../scenarios/numa-churn.toml")),
    ("page-reuse", "scenarios/page-reuse.toml", include_str!("../scenarios/page-reuse.toml")),
    ("shared-host", "scenarios/shared-host.toml", include_str!("../scenarios/shared-host.toml")),
];

/// The scenario of the built-in experiment.
pub const DEFAULT: &str = "numa-churn";

/// The policies of the built-in experiment, in order.
pub const DEFAULT_POLICIES: &[&str] = &[
    "no-flush",
    "all-wbinvd",
    "all-wbnoinvd",
    "sticky-wbinvd",
    "sticky-wbnoinvd",
    "flush-then-clear",
    "clear-remark",
    "clear-remark-mutex",
    "oracle",
];

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    ///
    /// What is wrong in the file, with its place.
    pub fn parse(file: &str, text: &str) -> Result<Scenario, ScenarioError> {
        let name = Path::new(file).file_stem().and_then(|s| s.to_str()).unwrap_or(file).to_owned();
        let front: Front = toml::from_str(text).map_err(|e| {
            let offset = e.span().map_or(0, |s| s.start);
            let said = crate::litmus::in_words(e.message());
            // The texts that a number could stand for here are all amounts.
            let number = said.starts_with("invalid type: integer") && said.ends_with("expected a string");
            let unit = "expected an amount with its unit, such as \"300000 accesses\" or \"5us\"";
            let said = if number { said.replace("expected a string", unit) } else { said };
            let bare = said.contains("unit variant, expected struct variant");
            let settings = "a scheduler by its name alone: expected its settings too, such as scheduler = { fair = { slice = \"3ms\" } }";
            let said = if bare { settings.to_owned() } else { said };
            place(file, text, offset, said)
        })?;
        let scenario = Scenario { name, file: file.to_owned(), text: text.to_owned(), front };
        scenario.validate()?;
        Ok(scenario)
    }

    fn fail(&self, key: &str, message: String) -> ScenarioError {
        place(&self.file, &self.text, self.text.find(key).unwrap_or(0), message)
    }

    /// What is wrong with the guest of a VM, counted from 0, at its place.
    fn guest_error(&self, nth: usize, error: &GuestError) -> ScenarioError {
        let find = |from: usize, key: &str| self.text[from..].find(key).map(|at| from + at);
        let table = self.text.match_indices("[[vm]]").nth(nth).map_or(0, |(at, _)| at);
        let guest = ["guest =", "guest=", "[vm.guest"].iter().filter_map(|key| find(table, key)).min();
        let guest = guest.unwrap_or(table);
        let field = if let GuestError::Range { field, .. } = error { find(guest, field) } else { None };
        place(&self.file, &self.text, field.unwrap_or(guest), error.to_string())
    }

    /// A mistake in what names the part, at its place.
    #[must_use]
    pub fn part_error(&self, message: String) -> ScenarioError {
        let line_begins = |at: usize| self.text[..at].chars().next_back().is_none_or(|c| c == '\n');
        let part = self.text.match_indices("part").map(|(at, _)| at).find(|at| line_begins(*at));
        place(&self.file, &self.text, part.unwrap_or(0), message)
    }

    fn validate(&self) -> Result<(), ScenarioError> {
        let f = &self.front;
        if f.pcpus == 0 {
            return Err(self.fail("pcpus", "pcpus = 0: expected at least 1".to_owned()));
        }
        if let Some(scope) = f.wbinvd_scope.as_deref().filter(|s| WbinvdScope::from_name(s).is_none()) {
            let message = format!("unknown scope `{scope}`: known are core, core+ccx-l3, ccx, package");
            return Err(self.fail("wbinvd_scope", message));
        }
        if f.vm.is_empty() {
            return Err(self.fail("vm", "no VMs: expected at least one [[vm]]".to_owned()));
        }
        for (i, vm) in f.vm.iter().enumerate() {
            if f.vm[..i].iter().any(|other| other.name == vm.name) {
                return Err(self.fail(&format!("\"{}\"", vm.name), format!("two VMs are called {}", vm.name)));
            }
            if vm.vcpus == 0 {
                return Err(self.fail("vcpus", format!("VM {} has no vCPUs", vm.name)));
            }
            if usize::from(vm.vcpus) > vm.pcpus.len() && !f.scheduler.shares() {
                let message = format!(
                    "VM {} has {} vCPUs on {} pCPUs: each needs one, unless a scheduler shares them out \
                     (scheduler = {{ fair = {{ slice = \"3ms\" }} }})",
                    vm.name,
                    vm.vcpus,
                    vm.pcpus.len()
                );
                return Err(place(&self.file, &self.text, self.list_in("[[vm]]", i), message));
            }
            if vm.accesses == 0 {
                return Err(self.fail("accesses", format!("VM {} makes no access", vm.name)));
            }
        }
        if let Some(r) = f.reclaim.iter().find(|r| usize::from(r.vm) >= f.vm.len()) {
            return Err(self.fail("[[reclaim]]", format!("reclaim of VM {} of {}", r.vm, f.vm.len())));
        }
        self.validate_host()?;
        if f.reuse.device_percent > 100 {
            return Err(self.fail("device_percent", "device_percent: expected 0 to 100".to_owned()));
        }
        Ok(())
    }

    /// What it is about, in a sentence.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.front.description
    }

    /// The part it is made for.
    #[must_use]
    pub fn part(&self) -> &str {
        &self.front.part
    }

    /// Loads the guests and fixes the machine; what is common to the runs of several policies.
    ///
    /// # Errors
    ///
    /// The part has too few pCPUs, or a guest cannot be loaded.
    pub fn prepare(&self, part: &Part, changes: &Changes, base: &Path) -> Result<Prepared, ScenarioError> {
        let pcpus = changes.pcpus.unwrap_or(self.front.pcpus);
        let part = part.with_pcpus(pcpus)?;
        let vms = self.front.vm.iter().enumerate().map(|(i, v)| ("[[vm]]", i, &v.pcpus));
        let reclaims = self.front.reclaim.iter().enumerate().map(|(i, r)| ("[[reclaim]]", i, &r.pcpus));
        for (table, nth, list) in vms.chain(reclaims) {
            let wrong =
                |message: String| Err(place(&self.file, &self.text, self.list_in(table, nth), message));
            if let Some(p) = list.iter().find(|p| **p >= pcpus) {
                let last = pcpus - 1;
                return wrong(format!("pCPU {p} of 0 to {last}: the machine has {pcpus}"));
            }
            if list.is_empty() {
                return wrong("an empty list of pCPUs: name at least one".to_owned());
            }
        }
        let snp = self.front.vm.iter().find(|vm| vm.kind.0 == VmKind::SevSnp);
        if let (Some(vm), false) = (snp, part.sme_coherent()) {
            let message = format!(
                "VM {} is sev-snp, and part {} has no SEV-SNP: it came with Milan, as SME_COHERENT did",
                vm.name, part.name
            );
            return Err(self.fail("\"sev-snp\"", message));
        }
        let schedule = self.schedule(base, &part.timing(Level::Typical))?;
        let mut guests = Vec::new();
        for (nth, vm) in self.front.vm.iter().enumerate() {
            let vcpus = u32::from(vm.vcpus);
            guests.push(match &changes.guest_trace {
                Some(file) => GuestSpec::Trace(vm.guest.playing(file)).load(base, vcpus)?,
                None => vm.guest.load(base, vcpus).map_err(|error| self.guest_error(nth, &error))?,
            });
        }
        let frames: u64 = guests
            .iter()
            .zip(&self.front.vm)
            .map(|(g, v)| u64::from(g.pages()) + u64::from(v.spare_pages))
            .chain(self.front.device.iter().map(|d| u64::from(d.pages)))
            .sum();
        if frames * u64::from(LINES_PER_PAGE) > u64::from(LineRef::PHYS_LIMIT) {
            let message = format!(
                "{frames} pages of guest memory and devices' buffers: expected at most 1048576 (4 GiB)"
            );
            return Err(self.fail("[[vm]]", message));
        }
        Ok(Prepared { scenario: self.clone(), part, guests, schedule, changes: changes.clone() })
    }
}

/// Line and column of an offset, as an error.
fn place(file: &str, text: &str, offset: usize, message: String) -> ScenarioError {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
    ScenarioError::File { file: file.to_owned(), line, column, message }
}

/// A scenario on its machine, guests loaded.
#[derive(Debug)]
pub struct Prepared {
    scenario: Scenario,
    part: Part,
    guests: Vec<Guest>,
    /// A recorded schedule, by vCPU.
    schedule: Vec<Vec<Placement>>,
    changes: Changes,
}

struct Stream(GuestSource);

impl GuestStream for Stream {
    #[inline]
    fn next_access(&mut self) -> Access {
        let a = self.0.next_access();
        Access {
            gfn: a.line / LINES_PER_PAGE,
            line: a.line % LINES_PER_PAGE,
            kind: if a.write { AccessKind::Write } else { AccessKind::Read },
            instructions: a.instructions,
        }
    }

    fn fault(&self) -> Option<String> {
        self.0.fault().map(ToString::to_string)
    }
}

/// Percentiles of a latency, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LatencyNs {
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Largest.
    pub max: u64,
    /// Mean, rounded.
    pub mean: u64,
}

/// A timed run's result.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// Name of the policy.
    pub policy: String,
    /// Seed.
    pub seed: u64,
    /// Counts.
    pub outcome: Outcome,
    /// Latency of the policy's writeback.
    pub flush_latency: LatencyNs,
    /// Cycles waited for locks, in nanoseconds.
    pub lock_wait_ns: u64,
    /// Sum of the vCPUs' times as a ratio against no flushing, in millionths; 0 before a baseline is known.
    pub slowdown_ppm: u64,
}

impl Prepared {
    /// The part, with the pCPUs enabled that the scenario asks for.
    #[must_use]
    pub fn part(&self) -> &Part {
        &self.part
    }

    /// The scenario.
    #[must_use]
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// The names of the VMs, in order.
    pub fn vm_names(&self) -> impl Iterator<Item = &str> {
        self.scenario.front.vm.iter().map(|vm| vm.name.as_str())
    }

    /// What the loading of traces noticed: malformed lines, by VM.
    #[must_use]
    pub fn guests(&self) -> &[Guest] {
        &self.guests
    }

    fn spec(&self) -> ModelSpec {
        let front = &self.scenario.front;
        let topology = self.part.topology();
        let mut pages = Vec::new();
        let mut guests = Guests::default();
        for (vm, (guest, vm_front)) in (0u16..).zip(self.guests.iter().zip(&front.vm)) {
            guests.vms.push(VmSpec { kind: vm_front.kind.0, asid: vm + 1 });
            for i in 0..guest.pages() + vm_front.spare_pages {
                if vm_front.shared {
                    guests.shared.push(u32::try_from(pages.len()).unwrap_or(u32::MAX));
                }
                pages.push((format!("{}.page{i}", vm_front.name), VmId(vm)));
            }
        }
        let mut tasks = Vec::new();
        let mut vcpu_vm = Vec::new();
        let mut next = 0u16;
        for (vm, v) in (0u16..).zip(&front.vm) {
            for i in 0..v.vcpus {
                // Pinned one to one unless the VM's vCPUs float over its pCPUs.
                let pcpus = if v.migrate_every.is_some() || front.scheduler.shares() {
                    v.pcpus.iter().map(|p| PcpuId(*p)).collect()
                } else {
                    vec![PcpuId(v.pcpus[usize::from(i)])]
                };
                tasks.push(TaskSpec {
                    name: format!("{}.vcpu{i}", v.name),
                    kind: TaskKind::Vcpu {
                        vcpu: VcpuId(next),
                        thread: VCPU_THREAD.to_owned(),
                        guest: GuestKind::Any,
                    },
                    pcpus,
                });
                vcpu_vm.push(VmId(vm));
                next += 1;
            }
        }
        for (i, r) in front.reclaim.iter().enumerate() {
            tasks.push(TaskSpec {
                name: format!("reclaim{i}"),
                kind: TaskKind::Reclaimer { entry: r.function().to_owned(), vm: VmId(r.vm) },
                pcpus: r.pcpus.iter().map(|p| PcpuId(*p)).collect(),
            });
        }
        let cores = topology.cores();
        ModelSpec {
            core_of: (0..topology.pcpus()).map(|p| topology.core_of(PcpuId(p))).collect(),
            shape: Shape {
                ccx_of_core: (0..cores).map(|c| topology.ccx_of(sev_arch::CoreId(c))).collect(),
                ccxs: topology.ccxs(),
                tags: u8::try_from(front.vm.len() + 1).unwrap_or(u8::MAX),
                sme_coherent: self.part.sme_coherent(),
                evict_clean_on_read: true,
                scope: front.wbinvd_scope.as_deref().and_then(WbinvdScope::from_name).unwrap_or_default(),
                keep_clean: true,
                psp: Psp::default(),
                keys_change: false,
                drops: false,
                flat: false,
                guest_must_evict: false,
                dma_snoops: true,
                socket_of_ccx: (0..topology.ccxs()).map(|x| topology.socket_of(sev_arch::CcxId(x))).collect(),
                flushes_fly: false,
            },
            vms: u16::try_from(front.vm.len()).unwrap_or(u16::MAX),
            vcpu_vm,
            pages,
            mapped: Vec::new(),
            lines_per_page: LINES_PER_PAGE,
            tasks,
            assumptions: Assumptions::default(),
            reuse: Reuse { host: true, dma: true, read: true, vm: true },
            defines: Vec::new(),
            guests,
            initial: None,
        }
    }

    fn plan(&self, seed: u64, timing: &Timing) -> Plan {
        let front = &self.scenario.front;
        let pace = |every: Option<Every>| every.map_or(Pace::Never, |e| e.pace(timing));
        Plan {
            seed,
            accesses: front.vm.iter().map(|v| self.changes.accesses.unwrap_or(v.accesses)).collect(),
            guest_pages: self.guests.iter().map(Guest::pages).collect(),
            reclaim: front.reclaim.iter().map(|r| r.every.pace(timing)).collect(),
            migrate: front.vm.iter().map(|v| pace(v.migrate_every)).collect(),
            burst: front.reclaim.iter().map(|r| r.pages).collect(),
            scheduler: front.scheduler.plan(timing, &self.schedule),
            devices: self.devices(timing),
            device_percent: u64::from(front.reuse.device_percent),
            reuse_after: timing.cycles_of_ns(front.reuse.after.ns),
            record: false,
        }
    }

    /// Compiles a policy over a kernel for this machine.
    ///
    /// # Errors
    ///
    /// What the compiler says.
    pub fn machine(&self, policy: &NamedText, kernel: &NamedText) -> Result<Machine, ScenarioError> {
        let sources = [
            Source { file: &kernel.file, text: &kernel.text, role: Role::Kernel },
            Source { file: &policy.file, text: &policy.text, role: Role::Policy },
        ];
        Machine::build_with(self.spec(), &sources, &crate::include::find, MemoryKind::Timed)
            .map_err(ScenarioError::Text)
    }

    /// One timed run.
    ///
    /// # Errors
    ///
    /// Errors in the texts; a run that cannot end.
    pub fn run(
        &self,
        policy: &NamedText,
        kernel: &NamedText,
        seed: u64,
        interrupted: Option<&AtomicBool>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<RunReport, ScenarioError> {
        let machine = self.machine(policy, kernel)?;
        let timing = self.part.timing(Level::Typical);
        let spec = machine.spec();
        let lines = u32::try_from(spec.pages.len()).unwrap_or(0) * LINES_PER_PAGE;
        let buffers: u32 = self.scenario.front.device.iter().map(|d| d.pages * LINES_PER_PAGE).sum();
        let caches = Hierarchy::with(&self.part, &timing, lines + buffers);
        let memory = TimedMemory::new(caches, spec.shape.clone(), false, lines);
        let mut sources: BTreeMap<u16, GuestSource> = BTreeMap::new();
        let mut first = 0u16;
        for (guest, vm) in self.guests.iter().zip(&self.scenario.front.vm) {
            let made = guest.sources(seed, u32::from(first));
            sources.extend((first..).zip(made));
            first += vm.vcpus;
        }
        let plan = self.plan(seed, &timing);
        let next = |t: u16| match sources.remove(&t) {
            Some(source) => Stream(source),
            None => unreachable!("every vCPU task has its source"),
        };
        let run = Run::new(&machine, memory, plan, next);
        let finished: Finished = run.run(interrupted, progress).map_err(|e| match e {
            TimedError::Deadlock { at, waiting } => {
                ScenarioError::Run(format!("deadlock at cycle {at}: {waiting} wait for each other"))
            }
            TimedError::Unbalanced(said) => ScenarioError::Internal(said),
            TimedError::Source(fault) => ScenarioError::Run(fault),
            TimedError::Starved { at, since, accesses, of } => {
                let us = |cycles| timing.ns_of_cycles(cycles) / 1_000;
                ScenarioError::GivenUp(format!(
                    "given up after {} us of simulated time: the guests made {accesses} of {of} accesses, the last at \
                     {} us; reclaim and its flushes leave them no time: raise `every` under [[reclaim]]",
                    us(at),
                    us(since)
                ))
            }
            TimedError::Runaway(pc) => ScenarioError::Run(format!(
                "this runs forever without an access to shared state: `{}`",
                machine.statement(pc)
            )),
        })?;
        let outcome = finished.outcome;
        let mut latencies = outcome.cost.flush_latency_cycles.clone();
        latencies.sort_unstable();
        let at = |per_mille: usize| {
            let index = (latencies.len() * per_mille).div_ceil(1000).saturating_sub(1);
            latencies.get(index).copied().map_or(0, |c| timing.ns_of_cycles(c))
        };
        let count = u64::try_from(latencies.len()).unwrap_or(0);
        let mean = latencies.iter().sum::<u64>().checked_div(count).unwrap_or(0);
        Ok(RunReport {
            policy: policy.name.clone(),
            seed,
            flush_latency: LatencyNs {
                p50: at(500),
                p90: at(900),
                p99: at(990),
                max: at(1000),
                mean: timing.ns_of_cycles(mean),
            },
            lock_wait_ns: timing.ns_of_cycles(outcome.cost.lock_wait_cycles),
            slowdown_ppm: 0,
            outcome,
        })
    }
}
