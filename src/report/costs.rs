//! Who pays for flushing: cycles lost by VM, pCPU and cause, DRAM traffic by cause, flushes that met nothing.

use std::collections::BTreeMap;

use cache_model::part::{Level, Timing};
use svm_model::timed::{Cause, Dram, Lost, Met, Outcome, Ran, Victim};
use workloads::scenario::{Prepared, RunReport};

use super::number::{bytes, percent, plural, short, time};
use super::run::Row;
use super::style;
use super::table::{Cell, Head, styled, table, wrap};
use super::verdicts::csv_line;

/// Policies up to which each cause's percentiles, and the pCPUs, are shown.
const IN_DETAIL: usize = 2;
/// pCPUs that are listed.
const PCPUS: usize = 12;

/// What `--costs` adds.
#[derive(Debug)]
pub(crate) struct Costs<'a> {
    /// The scenario, ready.
    pub(crate) prepared: &'a Prepared,
    /// The policies.
    pub(crate) rows: &'a [Row<'a>],
}

/// What victims lost, added up as the key says.
fn added<K: Ord>(outcomes: &[&Outcome], key: impl Fn(u16, Victim) -> K) -> BTreeMap<K, Lost> {
    let mut sums: BTreeMap<K, Lost> = BTreeMap::new();
    for ((pcpu, victim), lost) in outcomes.iter().flat_map(|o| &o.lost) {
        sums.entry(key(*pcpu, *victim)).or_default().merge(lost);
    }
    sums
}

/// A victim's name.
fn name(prepared: &Prepared, victim: Victim) -> &str {
    match victim {
        Victim::Vm(vm) => prepared.vm_names().nth(vm.index()).unwrap_or("?"),
        Victim::Host => "(host)",
    }
}

const fn head(cause: Cause) -> Head {
    match cause {
        Cause::IpiEntry => Head::right("IPI", "entry"),
        Cause::Flush => Head::right("", "flush"),
        Cause::IrqsOffWait => Head::right("IRQs", "off"),
        Cause::Refill => Head::right("re-", "fill"),
        Cause::LockWait => Head::right("lock", "wait"),
        Cause::Kick => Head::right("TLB", "kicks"),
    }
}

impl Costs<'_> {
    fn timing(&self) -> Timing {
        self.prepared.part().timing(Level::Typical)
    }

    /// All of it, in `width` columns.
    pub(crate) fn text(&self, width: usize) -> String {
        let mut text = String::new();
        let mut section = |title: &str, body: String, said: &str| {
            text.push_str(&format!("\n{}\n{body}", styled(title, style::strong())));
            text.push_str(&format!("{}\n", styled(&wrap(said, width, 0), style::aside())));
        };
        section(
            "time lost, by VM",
            self.by_vm(width),
            "Sums over all pCPUs and runs. IPI entry: the #VMEXIT that a flush's IPI forces, its handler without the \
             flush, and the way back to VMRUN. flush: WBINVD or WBNOINVD in the handler. IRQs off: from that #VMEXIT \
             until the host turns interrupts on. refill: waiting for lines that a flush took out of the caches, as \
             far as other misses do not hide it. lock wait: with the hand-over to who slept. TLB kicks: IPIs that \
             flush no cache, the same under every policy but for timing. of its time: of what the VM's vCPUs needed \
             from start to halt. (host): the tasks that reclaim; what they flush themselves is their work and not \
             counted.",
        );
        if self.rows.len() <= IN_DETAIL {
            section(
                "one at a time",
                self.each(width),
                "p50, p90, p99 and max of what was lost at once: by one IPI, for one lock, or to refills from one \
                 flush call to the next. Percentiles are exact to within 3%.",
            );
            section("time lost, by pCPU", self.by_pcpu(width), &self.others());
        }
        section(
            "bytes to and from DRAM, by cause",
            self.dram(width),
            "read: by guests' misses; by misses of lines that a flush had taken (refill); by devices. written: for \
             want of room in a cache; by flush instructions; because another tag or a device accessed the line; by \
             devices.",
        );
        section(
            "flushes by pCPUs, by how long ago the pCPU had run the VM",
            self.ages(width),
            "Each cell: flushes, and how many of them wrote back nothing of the VM's (false flushes). L3 only: what \
             they wrote back lay in the CCX's L3, not in the core. Of two pCPUs of a CCX that flush at once, the \
             second finds the L3 clean. idle: time that flushes took on pCPUs with nobody to lose it.",
        );
        text.push('\n');
        text
    }

    fn outcomes(row: &Row<'_>) -> Vec<Outcome> {
        row.runs.iter().map(|t| t.report.outcome.clone()).collect()
    }

    fn cells(&self, timing: &Timing, lost: &Lost) -> Vec<Cell> {
        let shown = |cycles| time(timing.ns_of_cycles(cycles));
        let mut cells: Vec<Cell> = Cause::ALL.iter().map(|c| shown(lost.to(*c).sum()).into()).collect();
        cells.push(shown(lost.cycles()).into());
        cells
    }

    fn by_vm(&self, width: usize) -> String {
        let timing = self.timing();
        let mut heads = vec![Head::left("", "policy"), Head::left("", "VM")];
        heads.extend(Cause::ALL.map(head));
        heads.extend([Head::right("", "sum"), Head::right("of its", "time")]);
        let mut rows = Vec::new();
        for row in self.rows {
            let outcomes: Vec<&Outcome> = row.runs.iter().map(|t| &t.report.outcome).collect();
            let sums = added(&outcomes, |_, victim| victim);
            let vms = (0u16..).zip(self.prepared.vm_names()).map(|(vm, _)| Victim::Vm(sev_arch::VmId(vm)));
            let mut first = true;
            for victim in vms.chain([Victim::Host]) {
                let none = Lost::default();
                let lost = sums.get(&victim).unwrap_or(&none);
                if victim == Victim::Host && lost.cycles() == 0 {
                    continue;
                }
                let policy = if std::mem::take(&mut first) { row.policy } else { "" };
                let mut cells =
                    vec![Cell::styled(policy, style::strong()), name(self.prepared, victim).into()];
                cells.extend(self.cells(&timing, lost));
                cells.push(match victim {
                    Victim::Vm(vm) => {
                        let whole = outcomes.iter().map(|o| o.vcpu_cycles_by_vm[vm.index()]).sum();
                        percent(lost.cycles(), whole).into()
                    }
                    Victim::Host => "".into(),
                });
                rows.push(cells);
            }
        }
        table(&heads, &rows, width)
    }

    fn each(&self, width: usize) -> String {
        let timing = self.timing();
        let shown = |cycles| Cell::from(time(timing.ns_of_cycles(cycles)));
        let mut heads = vec![Head::left("", "policy"), Head::left("", "VM"), Head::left("", "lost to")];
        heads.extend(["times", "p50", "p90", "p99", "max"].map(|word| Head::right("", word)));
        let mut rows = Vec::new();
        for row in self.rows {
            let outcomes: Vec<&Outcome> = row.runs.iter().map(|t| &t.report.outcome).collect();
            let mut policy = row.policy;
            for (victim, lost) in added(&outcomes, |_, victim| victim) {
                let mut of = name(self.prepared, victim);
                for cause in Cause::ALL {
                    let amounts = lost.to(cause);
                    if amounts.count() == 0 {
                        continue;
                    }
                    let words = [std::mem::take(&mut policy), std::mem::take(&mut of)];
                    let mut cells = vec![Cell::styled(words[0], style::strong()), words[1].into()];
                    cells.push(cause.name().replace('_', " ").into());
                    cells.push(short(amounts.count()).into());
                    cells.extend([500, 900, 990].map(|p| shown(amounts.per_mille(p))));
                    cells.push(shown(amounts.max()));
                    rows.push(cells);
                }
            }
        }
        table(&heads, &rows, width)
    }

    fn by_pcpu(&self, width: usize) -> String {
        let timing = self.timing();
        let mut heads = vec![Head::left("", "policy"), Head::left("", "pCPU"), Head::left("", "VM")];
        heads.extend(Cause::ALL.map(head));
        heads.push(Head::right("", "sum"));
        let mut rows = Vec::new();
        for row in self.rows {
            let outcomes: Vec<&Outcome> = row.runs.iter().map(|t| &t.report.outcome).collect();
            let mut policy = row.policy;
            for ((pcpu, victim), lost) in most(&outcomes).into_iter().take(PCPUS) {
                let mut cells = vec![Cell::styled(std::mem::take(&mut policy), style::strong())];
                cells.extend([format!("{pcpu}").into(), name(self.prepared, victim).into()]);
                cells.extend(self.cells(&timing, &lost));
                rows.push(cells);
            }
        }
        table(&heads, &rows, width)
    }

    /// What the pCPUs that are not listed lost.
    fn others(&self) -> String {
        let timing = self.timing();
        let mut said = vec!["Those that lost most.".to_owned()];
        for row in self.rows {
            let outcomes: Vec<&Outcome> = row.runs.iter().map(|t| &t.report.outcome).collect();
            let rest: Vec<u64> = most(&outcomes).into_iter().skip(PCPUS).map(|(_, l)| l.cycles()).collect();
            if !rest.is_empty() {
                let sum = time(timing.ns_of_cycles(rest.iter().sum()));
                said.push(format!("{}: {} more lost {sum}.", row.policy, plural(rest.len(), "row")));
            }
        }
        said.push("All of them: --format json or csv.".to_owned());
        said.join(" ")
    }

    fn dram(&self, width: usize) -> String {
        let heads = [
            Head::left("", "policy"),
            Head::right("read", "demand"),
            Head::right("read", "refill"),
            Head::right("read", "DMA"),
            Head::right("written", "room"),
            Head::right("written", "flush"),
            Head::right("written", "coher."),
            Head::right("written", "DMA"),
        ];
        let mut rows = Vec::new();
        for row in self.rows {
            let mut cells = vec![Cell::styled(row.policy, style::strong())];
            let outcomes = Self::outcomes(row);
            for (_, of) in DRAM {
                cells.push(bytes(outcomes.iter().map(|o| of(&o.dram)).sum()).into());
            }
            rows.push(cells);
        }
        table(&heads, &rows, width)
    }

    fn ages(&self, width: usize) -> String {
        let timing = self.timing();
        let mut heads = vec![Head::left("", "policy")];
        heads.extend(Ran::ALL.map(|ran| Head::right("", ran.name())));
        heads.extend([Head::right("", "all"), Head::right("L3", "only"), Head::right("", "idle")]);
        let mut rows = Vec::new();
        for row in self.rows {
            let outcomes = Self::outcomes(row);
            let met = |ran: &Ran| sum(outcomes.iter().filter_map(|o| o.met.get(ran).copied()));
            let show = |met: Met| match met.flushes {
                0 => "-".to_owned(),
                n => format!("{} ({})", short(n), short(met.nothing())),
            };
            let all: Vec<Met> = Ran::ALL.iter().map(met).collect();
            let mut cells = vec![Cell::styled(row.policy, style::strong())];
            cells.extend(all.iter().map(|m| Cell::from(show(*m))));
            let whole = sum(all.iter().copied());
            let idle = outcomes.iter().map(|o| o.idle_flush_cycles).sum();
            cells.push(show(whole).into());
            cells.push(short(whole.shared).into());
            cells.push(time(timing.ns_of_cycles(idle)).into());
            rows.push(cells);
        }
        table(&heads, &rows, width)
    }
}

/// Adds flushes up.
pub(crate) fn sum(all: impl Iterator<Item = Met>) -> Met {
    all.fold(Met::default(), |sum, met| Met {
        flushes: sum.flushes + met.flushes,
        private: sum.private + met.private,
        shared: sum.shared + met.shared,
    })
}

/// Cycles that the vCPUs of all VMs lost to a cause.
pub(crate) fn lost_by_vms(outcome: &Outcome, cause: Cause) -> u64 {
    let vms = outcome.lost.iter().filter(|((_, victim), _)| *victim != Victim::Host);
    vms.map(|(_, lost)| lost.to(cause).sum()).sum()
}

/// Victims, who lost most first.
fn most(outcomes: &[&Outcome]) -> Vec<((u16, Victim), Lost)> {
    let mut victims: Vec<_> = added(outcomes, |pcpu, victim| (pcpu, victim)).into_iter().collect();
    victims.sort_by_key(|(key, lost)| (std::cmp::Reverse(lost.cycles()), *key));
    victims
}

/// A cause of DRAM traffic: its name in JSON and CSV, and its bytes.
type OfDram = (&'static str, fn(&Dram) -> u64);

/// The causes of DRAM traffic.
pub(crate) const DRAM: [OfDram; 7] = [
    ("read_demand", |d| d.read_demand),
    ("read_refill", |d| d.read_refill),
    ("read_dma", |d| d.read_dma),
    ("written_eviction", |d| d.written_eviction),
    ("written_flush", |d| d.written_flush),
    ("written_coherence", |d| d.written_coherence),
    ("written_dma", |d| d.written_dma),
];

/// The names of the CSV columns of `--costs`.
pub(crate) fn csv_head() -> String {
    "scenario,policy,kernel,part,seed,pcpu,vm,cause,times,sum_cycles,p50_cycles,p90_cycles,p99_cycles,max_cycles\n"
        .to_owned()
}

/// What each victim of a run lost to each cause: a line of CSV each. The host has no VM.
pub(crate) fn csv_rows(names: [&str; 3], prepared: &Prepared, report: &RunReport) -> String {
    let [scenario, kernel, part] = names;
    let mut text = String::new();
    for ((pcpu, victim), lost) in &report.outcome.lost {
        for cause in Cause::ALL.into_iter().filter(|c| lost.to(*c).count() > 0) {
            let vm = if *victim == Victim::Host { "" } else { name(prepared, *victim) };
            let mut fields = [scenario, &report.policy, kernel, part].map(str::to_owned).to_vec();
            fields.extend([
                report.seed.to_string(),
                pcpu.to_string(),
                vm.to_owned(),
                cause.name().to_owned(),
            ]);
            let amounts = lost.to(cause);
            let percentiles = [500, 900, 990].map(|p| amounts.per_mille(p));
            let numbers = [amounts.count(), amounts.sum()].into_iter().chain(percentiles);
            fields.extend(numbers.chain([amounts.max()]).map(|n| n.to_string()));
            text.push_str(&csv_line(&fields));
        }
    }
    text
}
