//! The JSON lines. Field names are fixed: scripts rely on them.

use std::collections::BTreeMap;

use cache_model::part::Measured;
use serde::Serialize;
use svm_model::story::StoryStep;
use svm_model::timed::{Cause, Lost, Outcome, Victim};
use workloads::scenario::RunReport;

use super::costs;
use crate::cases::{Checked, bound_name};

/// A value as one line.
pub(crate) fn line(value: &impl Serialize) -> String {
    // Only maps with keys that are no strings fail, and there are none.
    serde_json::to_string(value).map_or_else(|e| format!("{{\"error\":\"{e}\"}}\n"), |text| text + "\n")
}

/// One step of a trace.
#[derive(Debug, Serialize)]
pub(crate) struct Step<'a> {
    step: usize,
    actor: &'a str,
    pcpu: Option<u16>,
    file: Option<&'a str>,
    line: Option<u32>,
    column: Option<u32>,
    /// The function that the statement stands in.
    function: Option<&'a str>,
    text: &'a str,
    effect: &'a str,
    events: Vec<StepEvent<'a>>,
    /// What went wrong in general; only at a step with an event, where the steps show it.
    cause: Option<&'a str>,
}

/// The moment of damage.
#[derive(Debug, Serialize)]
struct StepEvent<'a> {
    event: &'static str,
    victim: &'static str,
    text: &'a str,
}

impl<'a> Step<'a> {
    /// A step of a story.
    pub(crate) fn of(step: &'a StoryStep) -> Step<'a> {
        Step {
            step: step.step,
            actor: &step.actor,
            pcpu: step.pcpu,
            file: step.file.as_deref(),
            line: step.line,
            column: step.column,
            function: step.function.as_deref(),
            text: &step.text,
            effect: &step.effect,
            events: step
                .events
                .iter()
                .map(|(e, text)| StepEvent { event: e.kind.name(), victim: e.victim.name(), text })
                .collect(),
            cause: step.cause.as_deref(),
        }
    }
}

/// `sevsim.check/1`.
#[derive(Debug, Serialize)]
pub(crate) struct Check<'a> {
    schema: &'static str,
    litmus: &'a str,
    policy: &'a str,
    kernel: &'a str,
    part: &'a str,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<Option<&'static str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<Option<bool>>,
    events: Vec<&'static str>,
    /// Whose loss each event is.
    victims: BTreeMap<&'static str, &'static str>,
    stories: BTreeMap<&'static str, Vec<Step<'a>>>,
    states: u32,
    transitions: u64,
    depth: u32,
    /// Bytes of the states and of the lists of what a round finds, at the end, which is the most.
    memory: u64,
    /// Whether these are all states that can be reached.
    whole: bool,
    /// Whether it was asked if each task can always end.
    asked_ends: bool,
    /// States that differ by one of these count as one.
    #[serde(skip_serializing_if = "Option::is_none")]
    permutations: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bound: Option<String>,
    /// What should happen on some way, and the steps of the shortest way there.
    sometimes: BTreeMap<&'static str, Option<u32>>,
    assumptions: &'a [&'static str],
    memory_model: &'static str,
    /// Entries of each pCPU's store buffer, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    store_buffer: Option<u8>,
    /// Values of `#define`s that were given on the command line.
    defines: BTreeMap<&'a str, i64>,
    schedule: Option<&'a str>,
    /// For `sevsim replay`.
    token: Option<&'a str>,
    /// Random walks that were made in the place of a search: not exhaustive.
    #[serde(skip_serializing_if = "Option::is_none")]
    random_walks: Option<u64>,
    /// The search was made within a number of switches.
    #[serde(skip_serializing_if = "Option::is_none")]
    switches: Option<Within<'a>>,
    trace: Vec<Step<'a>>,
}

/// Searches within 0, 1, ... switches.
#[derive(Debug, Serialize)]
struct Within<'a> {
    asked: u16,
    states: &'a [u32],
    exhaustive: bool,
}

impl<'a> Check<'a> {
    /// A case; with what was expected if it is one of `test`'s.
    pub(crate) fn of(checked: &'a Checked, test: bool) -> Check<'a> {
        let report = &checked.report;
        let steps = |e: &'a workloads::check::Counterexample| {
            let mut steps: Vec<Step<'_>> = e.story.iter().map(Step::of).collect();
            // Of a deadlock the state is the event, not a step; and a task may be hung from the start.
            let told = e.story.iter().flat_map(|s| &s.events).any(|(told, _)| told.kind == e.event);
            if let Some(last) = steps.last_mut().filter(|_| !told) {
                let (event, victim) = (e.event.name(), e.victim.name());
                last.events.push(StepEvent { event, victim, text: e.event.meaning() });
            }
            steps
        };
        Check {
            schema: "sevsim.check/1",
            litmus: &checked.litmus,
            policy: &checked.policy,
            kernel: &checked.kernel,
            part: &checked.part,
            verdict: report.verdict.name(),
            expected: test.then(|| checked.expected.as_ref().map(|e| e.verdict.name())),
            met: test.then(|| checked.met()),
            events: report.events.iter().map(|e| e.event.name()).collect(),
            victims: report.events.iter().map(|e| (e.event.name(), e.victim.name())).collect(),
            stories: report.events.iter().map(|e| (e.event.name(), steps(e))).collect(),
            states: report.states,
            transitions: report.transitions,
            depth: report.depth,
            memory: report.memory,
            whole: report.whole,
            asked_ends: report.asked_ends,
            permutations: Some(report.permutations).filter(|n| *n > 1),
            bound: report.bound.map(bound_name),
            sometimes: report.sometimes.iter().map(|(twin, at)| (twin.name(), *at)).collect(),
            assumptions: &report.assumptions,
            memory_model: report.memory_model.name(),
            store_buffer: Some(report.store_buffer).filter(|n| *n > 0),
            defines: checked.defines.iter().map(|(name, value)| (name.as_str(), *value)).collect(),
            schedule: checked.schedules.first().map(String::as_str),
            token: checked.token.as_deref(),
            random_walks: report.walked.as_ref().map(|w| w.walks),
            switches: report.switches.as_ref().map(|s| Within {
                asked: s.asked,
                states: &s.states,
                exhaustive: s.all,
            }),
            trace: report.events.first().map_or(Vec::new(), steps),
        }
    }
}

/// `sevsim.replay/1`.
#[derive(Debug, Serialize)]
pub(crate) struct Replay<'a> {
    pub(crate) schema: &'static str,
    pub(crate) litmus: &'a str,
    pub(crate) policy: &'a str,
    pub(crate) kernel: &'a str,
    pub(crate) part: &'a str,
    /// The event that the schedule claims.
    pub(crate) event: &'static str,
    /// Whether it came.
    pub(crate) shown: bool,
    /// Every event on the way.
    pub(crate) events: Vec<&'static str>,
    pub(crate) trace: Vec<Step<'a>>,
}

/// `sevsim.list/1`.
#[derive(Debug, Serialize)]
pub(crate) struct Listed<'a> {
    pub(crate) schema: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) name: &'a str,
    pub(crate) file: &'a str,
    pub(crate) summary: &'a str,
}

/// `sevsim.show/1`.
#[derive(Debug, Serialize)]
pub(crate) struct Shown<'a> {
    pub(crate) schema: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) name: &'a str,
    pub(crate) file: &'a str,
    pub(crate) text: &'a str,
}

/// Percentiles of the flush latency.
#[derive(Debug, Serialize)]
struct Latency {
    p50: u64,
    p90: u64,
    p99: u64,
    max: u64,
    mean: u64,
}

/// Costs, with units in the names.
#[derive(Debug, Serialize)]
struct Cost {
    flush_calls: u64,
    pcpus_flushed: u64,
    ipis: u64,
    flush_latency_ns: Latency,
    stolen_cycles: u64,
    lines_written_back: u64,
    lines_invalidated: u64,
    lines_clflushed_at_hand_back: u64,
    refill_misses: u64,
    dram_bytes_written: u64,
    lock_wait_ns: u64,
    guest_exits: u64,
    guest_slowdown: Option<f64>,
    lost_cycles: BTreeMap<&'static str, u64>,
    dram_bytes: BTreeMap<&'static str, u64>,
    false_flushes: u64,
    idle_flush_cycles: u64,
    requests_served: BTreeMap<&'static str, u64>,
}

/// What depends on the host or the clock.
#[derive(Debug, Serialize)]
struct Provenance {
    version: &'static str,
    wall_ms: u64,
}

/// `sevsim.run/1`.
#[derive(Debug, Serialize)]
pub(crate) struct Run<'a> {
    schema: &'static str,
    scenario: &'a str,
    policy: &'a str,
    kernel: &'a str,
    part: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    measured: Option<MeasuredBy<'a>>,
    seed: u64,
    cycles: u64,
    guest_accesses: u64,
    vcpu_cycles: u64,
    events: BTreeMap<&'static str, u64>,
    clobbered: BTreeMap<&'static str, u64>,
    cost: Cost,
    #[serde(skip_serializing_if = "Option::is_none")]
    costs: Option<Detail<'a>>,
    provenance: Provenance,
}

/// Amounts of cycles that were lost at once.
#[derive(Debug, Serialize)]
struct Amounts {
    times: u64,
    sum: u64,
    p50: u64,
    p90: u64,
    p99: u64,
    max: u64,
}

/// What somebody lost on a pCPU; the host's tasks have no VM.
#[derive(Debug, Serialize)]
struct Loser<'a> {
    pcpu: u16,
    vm: Option<&'a str>,
    lost_cycles: BTreeMap<&'static str, Amounts>,
}

/// Flushes by pCPUs that had run the VM so long ago.
#[derive(Debug, Serialize)]
struct Age {
    ran: &'static str,
    flushes: u64,
    met_in_core: u64,
    met_in_l3_only: u64,
    met_nothing: u64,
}

/// What `--costs` adds.
#[derive(Debug, Serialize)]
struct Detail<'a> {
    victims: Vec<Loser<'a>>,
    vcpu_cycles_by_vm: BTreeMap<&'a str, u64>,
    flushes_by_age: Vec<Age>,
}

impl<'a> Detail<'a> {
    fn of(outcome: &Outcome, vms: &[&'a str]) -> Detail<'a> {
        let loser = |(key, lost): (&(u16, Victim), &Lost)| Loser {
            pcpu: key.0,
            vm: match key.1 {
                Victim::Vm(vm) => vms.get(vm.index()).copied(),
                Victim::Host => None,
            },
            lost_cycles: Cause::ALL
                .into_iter()
                .map(|cause| (cause.name(), lost.to(cause)))
                .filter(|(_, amounts)| amounts.count() > 0)
                .map(|(name, a)| {
                    let [p50, p90, p99] = [500, 900, 990].map(|p| a.per_mille(p));
                    (name, Amounts { times: a.count(), sum: a.sum(), p50, p90, p99, max: a.max() })
                })
                .collect(),
        };
        Detail {
            victims: outcome.lost.iter().map(loser).collect(),
            vcpu_cycles_by_vm: vms.iter().copied().zip(outcome.vcpu_cycles_by_vm.iter().copied()).collect(),
            flushes_by_age: outcome
                .met
                .iter()
                .map(|(ran, met)| Age {
                    ran: ran.name(),
                    flushes: met.flushes,
                    met_in_core: met.private,
                    met_in_l3_only: met.shared,
                    met_nothing: met.nothing(),
                })
                .collect(),
        }
    }
}

/// Which of the part's numbers a profile gave.
#[derive(Debug, Serialize)]
struct MeasuredBy<'a> {
    profile: &'a str,
    host: &'a str,
    cpu: &'a str,
    date: &'a str,
    hypervisor: Option<&'a str>,
    /// Whether the calibration came to its end.
    complete: bool,
    /// What disturbed it, if the host was not quiet.
    noise: Option<&'a str>,
    numbers: Vec<&'static str>,
}

impl<'a> MeasuredBy<'a> {
    fn of(m: &'a Measured) -> MeasuredBy<'a> {
        MeasuredBy {
            profile: &m.file,
            host: &m.host,
            cpu: &m.cpu,
            date: &m.date,
            hypervisor: m.hypervisor.as_deref(),
            complete: m.complete,
            noise: m.noise.as_deref(),
            numbers: m.params.iter().map(|p| p.name()).collect(),
        }
    }
}

/// A ratio in millionths as a number.
#[expect(clippy::float_arithmetic, reason = "JSON has one kind of number; nothing is computed with this one")]
fn ratio(ppm: u64) -> f64 {
    f64::from(u32::try_from(ppm).unwrap_or(u32::MAX)) / 1e6
}

/// What serves a request, in the order of its counts.
const SERVED: [&str; 8] =
    ["l1", "l2", "l3", "other_core_same_ccx", "other_ccx", "other_socket", "dram_local", "dram_remote"];

impl<'a> Run<'a> {
    /// A run in a scenario under a kernel on a part, of which some numbers may be measured; with who lost what, if the
    /// VMs' names are given.
    pub(crate) fn of(
        names: [&'a str; 3],
        measured: Option<&'a Measured>,
        report: &'a RunReport,
        wall_ms: u64,
        victims: Option<&[&'a str]>,
    ) -> Run<'a> {
        let [scenario, kernel, part] = names;
        let (outcome, cost, latency) = (&report.outcome, &report.outcome.cost, report.flush_latency);
        Run {
            schema: "sevsim.run/1",
            scenario,
            policy: &report.policy,
            kernel,
            part,
            measured: measured.map(MeasuredBy::of),
            seed: report.seed,
            cycles: outcome.cycles,
            guest_accesses: outcome.guest_accesses,
            vcpu_cycles: outcome.vcpu_cycles,
            events: outcome.events.iter().map(|(kind, n)| (kind.name(), *n)).collect(),
            clobbered: outcome.clobbered.iter().map(|(newer, n)| (newer.name(), *n)).collect(),
            cost: Cost {
                flush_calls: cost.flush_calls,
                pcpus_flushed: cost.pcpus_flushed,
                ipis: cost.ipis,
                flush_latency_ns: Latency {
                    p50: latency.p50,
                    p90: latency.p90,
                    p99: latency.p99,
                    max: latency.max,
                    mean: latency.mean,
                },
                stolen_cycles: cost.stolen_cycles,
                lines_written_back: cost.lines_written_back,
                lines_invalidated: cost.lines_invalidated,
                lines_clflushed_at_hand_back: cost.lines_clflushed_at_hand_back,
                refill_misses: cost.refill_misses,
                dram_bytes_written: cost.dram_bytes_written,
                lock_wait_ns: report.lock_wait_ns,
                guest_exits: cost.guest_exits,
                guest_slowdown: (report.slowdown_ppm > 0).then(|| ratio(report.slowdown_ppm)),
                lost_cycles: Cause::ALL
                    .map(|cause| (cause.name(), costs::lost_by_vms(outcome, cause)))
                    .into(),
                dram_bytes: costs::DRAM.map(|(name, of)| (name, of(&outcome.dram))).into(),
                false_flushes: costs::sum(outcome.met.values().copied()).nothing(),
                idle_flush_cycles: outcome.idle_flush_cycles,
                requests_served: SERVED.into_iter().zip(outcome.served).collect(),
            },
            costs: victims.map(|vms| Detail::of(outcome, vms)),
            provenance: Provenance { version: env!("CARGO_PKG_VERSION"), wall_ms },
        }
    }
}
