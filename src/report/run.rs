//! What timed runs cost, for reading: one row per policy, what went wrong, and how far the numbers can be trusted.

use cache_model::event::EventKind;
use cache_model::part::{Confidence, Measured, Param, Part};
use svm_model::timed::{Cause, Newer};
use workloads::guest::builtin::BUILTIN_TRACES;
use workloads::guest::{Guest, GuestSpec};
use workloads::scenario::{Prepared, RunReport};

use super::costs::DRAM;
use super::number::{grouped, mean, over, percent, plural, short, thousandths, time};
use super::style;
use super::table::{Cell, Head, styled, table, wrap};
use super::verdicts::csv_line;
use crate::compare::Timed;

/// A policy's runs, by seed.
#[derive(Clone, Debug)]
pub(crate) struct Row<'a> {
    /// The policy.
    pub(crate) policy: &'a str,
    /// Its runs; at least one.
    pub(crate) runs: Vec<Timed>,
}

/// Everything that the table tells.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    /// Scenario, kernel, part.
    pub(crate) names: [&'a str; 3],
    /// The scenario, ready.
    pub(crate) prepared: &'a Prepared,
    /// The first seed, and how many.
    pub(crate) seeds: (u64, usize),
    /// The policies.
    pub(crate) rows: &'a [Row<'a>],
}

/// A column: its head, what it counts, and how that is written.
struct Column {
    head: Head,
    value: fn(&RunReport) -> u64,
    show: fn(u64) -> String,
}

/// Parts per million of `part` in `whole`.
fn ppm(part: u64, whole: u64) -> u64 {
    let ppm = (u128::from(part) * 1_000_000).checked_div(u128::from(whole)).unwrap_or(0);
    u64::try_from(ppm).unwrap_or(u64::MAX)
}

const COLUMNS: &[Column] = &[
    Column {
        head: Head::right("slow-", "down"),
        value: |r| r.slowdown_ppm,
        show: |n| if n == 0 { "-".to_owned() } else { over(n) },
    },
    Column { head: Head::right("bad", "evts"), value: |r| r.outcome.events.values().sum(), show: short },
    Column { head: Head::right("flush", "calls"), value: |r| r.outcome.cost.flush_calls, show: short },
    Column {
        head: Head::right("pCPUs", "a call"),
        value: |r| {
            let cost = &r.outcome.cost;
            (cost.pcpus_flushed * 10 + cost.flush_calls / 2).checked_div(cost.flush_calls).unwrap_or(0)
        },
        show: |n| mean(n, 10),
    },
    Column { head: Head::right("flush", "p50"), value: |r| r.flush_latency.p50, show: time },
    Column { head: Head::right("time", "p99"), value: |r| r.flush_latency.p99, show: time },
    Column { head: Head::right("", "IPIs"), value: |r| r.outcome.cost.ipis, show: short },
    Column {
        head: Head::right("stolen", "time"),
        value: |r| ppm(r.outcome.cost.stolen_cycles, r.outcome.vcpu_cycles),
        show: |n| percent(n, 1_000_000),
    },
    Column { head: Head::right("lines", "wrote"), value: |r| r.outcome.cost.lines_written_back, show: short },
    Column { head: Head::right("lines", "inval."), value: |r| r.outcome.cost.lines_invalidated, show: short },
    Column { head: Head::right("re-", "fills"), value: |r| r.outcome.cost.refill_misses, show: short },
    Column { head: Head::right("lock", "wait"), value: |r| r.lock_wait_ns, show: time },
    Column { head: Head::right("", "exits"), value: |r| r.outcome.cost.guest_exits, show: short },
];

/// The median (of an even number, the lower of the two in the middle), the least and the most.
fn spread(runs: &[Timed], value: fn(&RunReport) -> u64) -> [u64; 3] {
    let mut values: Vec<u64> = runs.iter().map(|t| value(&t.report)).collect();
    values.sort_unstable();
    let at = |i: usize| values.get(i).copied().unwrap_or(0);
    [at((values.len().max(1) - 1) / 2), at(0), at(values.len().max(1) - 1)]
}

impl Table<'_> {
    /// What was run, what it came to, and what went wrong, in `width` columns.
    pub(crate) fn results(&self, width: usize) -> String {
        let mut text = self.title(width);
        text.push('\n');
        let mut heads = vec![Head::left("", "policy")];
        heads.extend(COLUMNS.iter().map(|c| c.head));
        let mut rows = Vec::new();
        for row in self.rows {
            let spreads: Vec<[u64; 3]> = COLUMNS.iter().map(|c| spread(&row.runs, c.value)).collect();
            let lines: &[(usize, &str)] =
                if row.runs.len() > 1 { &[(0, ""), (1, "  min"), (2, "  max")] } else { &[(0, "")] };
            for (which, name) in lines {
                let plain = if *which == 0 { owo_colors::Style::new() } else { style::aside() };
                let name = if name.is_empty() { row.policy } else { name };
                let mut cells = vec![Cell::styled(name, if *which == 0 { style::strong() } else { plain })];
                for (i, (column, spread)) in COLUMNS.iter().zip(&spreads).enumerate() {
                    let bad = i == 1 && spread[*which] > 0;
                    let cell = (column.show)(spread[*which]);
                    cells.push(Cell::styled(cell, if bad { style::bad() } else { plain }));
                }
                rows.push(cells);
            }
        }
        text.push_str(&table(&heads, &rows, width));
        text.push('\n');
        text.push_str(&self.caution(width));
        text.push_str(&self.events(width));
        text
    }

    /// How far to trust it, and what to ask next.
    pub(crate) fn remarks(&self, width: usize, costs: bool) -> String {
        format!("{}{}", self.trust(width), self.next(costs))
    }

    /// What the table must not be taken for.
    fn caution(&self, width: usize) -> String {
        let reclaims = |r: &Row<'_>| r.runs.iter().map(|t| t.report.outcome.reclaims).sum::<u64>();
        let said = if self.rows.iter().all(|r| reclaims(r) == 0) {
            "No reclaim happened in these runs, so that they compare nothing: raise --accesses, or lower `every` under \
             [[reclaim]]."
        } else if self.rows.iter().any(|r| r.policy == "oracle") {
            "oracle asks the fewest pCPUs that hold a dirty line of the VM, call by call, as no kernel can: the floor of \
             what a safe policy does at each call, but not of slowdowns, since runs drift apart."
        } else {
            return String::new();
        };
        format!("{}\n", wrap(said, width, 0))
    }

    fn title(&self, width: usize) -> String {
        let [scenario, kernel, part] = self.names;
        let (first, count) = self.seeds;
        let seeds = match count {
            1 => format!("seed {first}"),
            n => format!("{n} runs each, seeds {first} to {}, medians", first + n as u64 - 1),
        };
        let topology = self.prepared.part().topology();
        let mut text = format!(
            "{} on {}, {}, {kernel}, {seeds}\n",
            styled(scenario, style::strong()),
            styled(part, style::strong()),
            plural(usize::from(topology.pcpus()), "pCPU"),
        );
        text.push_str(&format!("{}\n", wrap(self.prepared.scenario().description(), width, 0)));
        let accesses =
            self.rows.first().and_then(|r| r.runs.first()).map_or(0, |t| t.report.outcome.guest_accesses);
        let mut guests: Vec<(String, usize)> = Vec::new();
        for guest in self.prepared.guests() {
            let what = describe(guest);
            match guests.iter_mut().find(|g| g.0 == what) {
                Some(known) => known.1 += 1,
                None => guests.push((what, 1)),
            }
        }
        let guests: Vec<String> =
            guests.into_iter().map(|(what, n)| format!("{} of {what}", plural(n, "VM"))).collect();
        let line = format!("{} guest accesses; {}", grouped(accesses), guests.join("; "));
        text.push_str(&format!("{}\n", wrap(&line, width, 0)));
        let host = self.prepared.host();
        if !host.is_empty() {
            text.push_str(&format!("{}\n", wrap(&host, width, 0)));
        }
        text
    }

    /// Which bad events, and what a run without one says.
    fn events(&self, width: usize) -> String {
        let mut text = String::new();
        for row in self.rows {
            let mut kinds: Vec<String> = Vec::new();
            let mut total = std::collections::BTreeMap::new();
            let mut over = std::collections::BTreeMap::new();
            for (newer, n) in row.runs.iter().flat_map(|t| &t.report.outcome.clobbered) {
                *over.entry(*newer).or_insert(0u64) += n;
            }
            for (kind, n) in row.runs.iter().flat_map(|t| &t.report.outcome.events) {
                *total.entry(*kind).or_insert(0u64) += n;
            }
            for (kind, n) in total {
                let mut said = format!("{} {}", kind.name(), grouped(n));
                if kind == EventKind::Clobber && !over.is_empty() {
                    let of = |(newer, n): (&Newer, &u64)| match newer {
                        Newer::Cpu => format!("{} over a CPU's stores", grouped(*n)),
                        Newer::Dma => format!("{} over a device's", grouped(*n)),
                        Newer::Vm => format!("{} over a VM's", grouped(*n)),
                    };
                    said.push_str(&format!(" ({})", over.iter().map(of).collect::<Vec<_>>().join(", ")));
                }
                kinds.push(said);
            }
            if !kinds.is_empty() {
                let line = format!("{}: {}", row.policy, kinds.join(", "));
                text.push_str(&format!(
                    "{}  {}\n",
                    styled("bad events", style::bad()),
                    wrap(&line, width.saturating_sub(12), 12)
                ));
            }
        }
        let said = "A run without bad events proves nothing: a race needs its moment. `sevsim check` tries every order.";
        text.push_str(&format!("{}\n", wrap(said, width, 0)));
        text
    }

    /// How far the numbers can be trusted.
    fn trust(&self, width: usize) -> String {
        let part = self.prepared.part();
        let shaky = [Param::WbinvdFixed, Param::WbinvdWalk, Param::IpiSameSocket, Param::IpiOtherSocket];
        let ranges: Vec<String> = shaky.iter().map(|p| range(part, *p)).collect();
        let mut grades: Vec<Confidence> = shaky.iter().map(|p| part.number(*p).confidence).collect();
        grades.sort_unstable();
        grades.dedup();
        let grades: Vec<String> = grades.iter().map(|g| format!("{} {}", g.letter(), meaning(*g))).collect();
        let said = format!(
            "No flush time of EPYC is published. Slowdown, latencies and stolen time take the typical value of plausible \
             ranges (low..typical..high) and move with them: {}. Grades: {}. Sources: sevsim show part {}",
            ranges.join(", "),
            grades.join(", "),
            self.names[2],
        );
        let mut text = format!("{}\n", styled(&wrap(&said, width, 0), style::aside()));
        if let Some(measured) = part.measured() {
            text.push_str(&wrap(&super::part::measured(measured), width, 0));
            text.push('\n');
        }
        text
    }

    fn next(&self, costs: bool) -> String {
        let mut lines = Vec::new();
        if !costs {
            lines.push("the same with --costs: who loses how much to what".to_owned());
        }
        let broken = self.rows.iter().find(|r| r.runs.iter().any(|t| !t.report.outcome.events.is_empty()));
        if let Some(row) = broken {
            lines.push(format!("sevsim test --policy {}", row.policy));
        }
        if self.rows.iter().any(|r| r.policy == "clear-remark") {
            lines.push("sevsim check two-flushers --policy clear-remark".to_owned());
        }
        lines
            .push("sevsim show policy sticky-wbnoinvd > mine.c; sevsim compare --policy ./mine.c".to_owned());
        format!("\n{}  {}\n", styled("next:", style::strong()), lines.join("\n       "))
    }
}

/// A number's range, as `wbinvd_fixed 0.2..1..5 us (U)`.
fn range(part: &Part, param: Param) -> String {
    let n = part.number(param);
    let confidence: Confidence = n.confidence;
    format!(
        "{} {}..{}..{} {} ({})",
        param.name(),
        thousandths(n.low),
        thousandths(n.typical),
        thousandths(n.high),
        n.unit.name(),
        confidence.letter()
    )
}

/// What a grade of confidence means.
fn meaning(grade: Confidence) -> &'static str {
    match grade {
        Confidence::A => "from the vendor",
        Confidence::B => "from an engineer or a third party",
        Confidence::C => "computed from published facts",
        Confidence::M => "measured by us",
        Confidence::U => "unverified",
    }
}

/// What a guest does, in words.
fn describe(guest: &Guest) -> String {
    let pages = plural(usize::try_from(guest.pages()).unwrap_or(usize::MAX), "page");
    match guest.spec() {
        GuestSpec::Trace(spec) => {
            let about = spec.builtin.as_ref().and_then(|name| BUILTIN_TRACES.iter().find(|t| t.name == name));
            let what = match (&spec.builtin, &spec.file, about) {
                (Some(name), _, Some(trace)) => format!("trace {name} ({})", trace.about),
                (Some(name), _, None) => format!("trace {name}"),
                (None, Some(file), _) => format!("trace {}", file.display()),
                (None, None, _) => "trace".to_owned(),
            };
            let stats = guest.trace_stats();
            let accesses = stats.map_or(0, |s| s.accesses);
            let writes = stats.map_or(0, |s| s.writes);
            format!(
                "{what}: {} accesses a pass, {} of them writes, {pages}",
                grouped(accesses),
                percent(writes, accesses)
            )
        }
        GuestSpec::Uniform(_)
        | GuestSpec::Zipf(_)
        | GuestSpec::Stream(_)
        | GuestSpec::Chase(_)
        | GuestSpec::PingPong(_) => format!("pattern {}, {pages}", guest.spec().name()),
    }
}

/// The names of the CSV columns.
pub(crate) fn csv_head() -> String {
    "scenario,policy,kernel,part,seed,cycles,guest_accesses,vcpu_cycles,events,flush_calls,pcpus_flushed,ipis,\
     flush_latency_p50_ns,flush_latency_p90_ns,flush_latency_p99_ns,flush_latency_max_ns,flush_latency_mean_ns,\
     stolen_cycles,lines_written_back,lines_invalidated,lines_clflushed_at_hand_back,refill_misses,dram_bytes_written,lock_wait_ns,guest_exits,\
     guest_slowdown,"
        .to_owned()
        + &Cause::ALL.map(|cause| format!("lost_{}_cycles,", cause.name())).concat()
        + &DRAM.map(|(name, _)| format!("dram_{name}_bytes,")).concat()
        + "false_flushes,idle_flush_cycles,measured_numbers,emulated\n"
}

/// A run as a line of CSV; events are joined by spaces. Of the part's numbers so many are measured, and by a profile of an emulated
/// host if that is so.
pub(crate) fn csv_row(names: [&str; 3], measured: Option<&Measured>, report: &RunReport) -> String {
    let [scenario, kernel, part] = names;
    let (outcome, cost, latency) = (&report.outcome, &report.outcome.cost, report.flush_latency);
    let events: Vec<String> = outcome.events.iter().map(|(kind, n)| format!("{}={n}", kind.name())).collect();
    let mut fields = [scenario, &report.policy, kernel, part].map(str::to_owned).to_vec();
    let number = |fields: &mut Vec<String>, n: u64| fields.push(n.to_string());
    for n in [report.seed, outcome.cycles, outcome.guest_accesses, outcome.vcpu_cycles] {
        number(&mut fields, n);
    }
    fields.push(events.join(" "));
    for n in [
        cost.flush_calls,
        cost.pcpus_flushed,
        cost.ipis,
        latency.p50,
        latency.p90,
        latency.p99,
        latency.max,
        latency.mean,
        cost.stolen_cycles,
        cost.lines_written_back,
        cost.lines_invalidated,
        cost.lines_clflushed_at_hand_back,
        cost.refill_misses,
        cost.dram_bytes_written,
        report.lock_wait_ns,
        cost.guest_exits,
    ] {
        number(&mut fields, n);
    }
    let ppm = report.slowdown_ppm;
    fields.push(if ppm == 0 { String::new() } else { format!("{}.{:06}", ppm / 1_000_000, ppm % 1_000_000) });
    for cause in Cause::ALL {
        number(&mut fields, super::costs::lost_by_vms(outcome, cause));
    }
    for (_, of) in DRAM {
        number(&mut fields, of(&outcome.dram));
    }
    number(&mut fields, super::costs::sum(outcome.met.values().copied()).nothing());
    number(&mut fields, outcome.idle_flush_cycles);
    number(&mut fields, measured.map_or(0, |m| m.params.len() as u64));
    let hypervisor = measured.and_then(|m| m.hypervisor.as_deref());
    fields.push(hypervisor.is_some_and(svm_native::probe::emulated).to_string());
    csv_line(&fields)
}
