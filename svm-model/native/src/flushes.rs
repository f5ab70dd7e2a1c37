//! What writing back whole caches costs on this host, through the helper module: WBINVD and WBNOINVD on clean caches and
//! with dirty lines in them, alone and together, what the lines cost again afterwards, and the IPI alone.
//!
//! Times are between two time stamps of the pCPU that executes, taken with interrupts off; the IPI's are the caller's.
//! WBINVD before each sample leaves nothing dirty but what the sample dirties itself.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use crate::helper::{Ask, Flushed, Helper, Instruction};
use crate::measure::{Bench, counts, per_line};
use crate::os::Pinned;
use crate::profile::{Experiment, Reading, Unit};
use crate::stats::Samples;
use crate::topology::Distance;

/// Dirty lines of a sample, in eighths of the L2 and of the L3.
const EIGHTHS_L2: [u64; 4] = [1, 2, 4, 8];
const EIGHTHS_L3: [u64; 3] = [1, 2, 4];
const LINE: u64 = 64;

/// What is asked of the module again and again.
struct Module<'a, 'b> {
    helper: &'a Helper,
    bench: &'a Bench<'b>,
}

impl Module<'_, '_> {
    fn ps(&self, cycles: u64) -> u64 {
        let ps = u128::from(cycles) * 1_000_000_000 / u128::from(self.bench.tsc_khz.max(1));
        u64::try_from(ps).unwrap_or(u64::MAX)
    }

    /// So many samples of an ask, by what is read of each answer, in picoseconds.
    fn sample(
        &self,
        ask: &Ask,
        count: usize,
        read: impl Fn(&Flushed) -> Vec<u64>,
    ) -> Result<Samples, String> {
        self.sample_after(None, ask, count, read)
    }

    /// The same with another ask before each sample, of which nothing is read.
    fn sample_after(
        &self,
        before: Option<&Ask>,
        ask: &Ask,
        count: usize,
        read: impl Fn(&Flushed) -> Vec<u64>,
    ) -> Result<Samples, String> {
        let mut samples = Samples::default();
        for _ in 0..if self.bench.quick { count } else { count * 5 } {
            if self.bench.stopped() {
                break;
            }
            if let Some(before) = before {
                self.helper.flush(before).map_err(|e| self.refused(before, &e))?;
            }
            let disturbances = self.bench.disturbances();
            let answer = self.helper.flush(ask).map_err(|e| self.refused(ask, &e))?;
            // The IPI alone is the caller's time. An instruction's is taken where interrupts are off: nothing but the hypervisor can come
            // between.
            let disturbed = ask.instruction == Instruction::Nop && self.bench.disturbances() != disturbances;
            for cycles in read(&answer) {
                samples.add(self.ps(cycles), disturbed);
            }
        }
        self.bench.tagged.fetch_add(samples.tagged(), Ordering::Relaxed);
        Ok(samples)
    }

    fn refused(&self, ask: &Ask, error: &std::io::Error) -> String {
        let what = format!("{} with {} dirty lines", ask.instruction.name(), ask.dirty_lines);
        match error.raw_os_error() {
            Some(libc::ETIME) => match self.helper.info() {
                Ok(info) => format!("{what}: {}", info.too_long()),
                Err(e) => format!("{what}: {error} ({e})"),
            },
            Some(libc::ENOMEM) => {
                format!(
                    "{what}: no memory on that node in contiguous pieces (2 MiB each, or all of it if that is less)"
                )
            }
            Some(libc::EBUSY) => format!("{what}: another process runs a policy through the module"),
            _ => format!("{what}: {error}"),
        }
    }
}

/// Of each pCPU, from before the instruction to after it.
fn instruction(answer: &Flushed) -> Vec<u64> {
    answer.pcpus.iter().map(|p| p.tsc_out - p.tsc_in).collect()
}

/// `flush.wbinvd_walk`, `flush.wbnoinvd_factor`, and beside a part's numbers what a dirty line and its refill cost, several
/// pCPUs at once, other cores' lines, lines of another node, and the IPI.
///
/// # Errors
/// The module is not there, or refuses all of it.
pub fn measure(bench: &mut Bench<'_>) -> Result<(), String> {
    let helper = Helper::open()?;
    let info = helper.info().map_err(|e| e.to_string())?;
    let home = bench.home_cpu();
    let found = {
        let _pinned = Pinned::to(home).map_err(|e| format!("sched_setaffinity to pCPU {home}: {e}"))?;
        let module = Module { helper: &helper, bench };
        let mut found = Found::default();
        found.ipis(&module, home)?;
        found.alone(&module, home, Instruction::Wbinvd)?;
        if info.has_wbnoinvd() {
            found.alone(&module, home, Instruction::Wbnoinvd)?;
            found.factor();
        } else {
            found.missing.push((
                "flush.wbnoinvd_factor".to_owned(),
                "this CPU has no WBNOINVD (CPUID 8000_0008 EBX[9] is 0), and executes it as WBINVD"
                    .to_owned(),
            ));
        }
        found.others(&module, home);
        found
    };
    let known: BTreeSet<String> =
        found.readings.iter().map(|r| r.0.clone()).chain(found.missing.iter().map(|m| m.0.clone())).collect();
    bench.missing.retain(|(name, _)| !known.contains(name));
    bench.missing.extend(found.missing);
    bench.experiments.extend(found.experiments);
    bench.readings.extend(found.fitted);
    for (name, unit, samples, method) in found.readings {
        bench.readings.extend(Reading::of(&name, unit, &samples, method));
    }
    Ok(())
}

/// What there is so far.
#[derive(Default)]
struct Found {
    readings: Vec<(String, Unit, Samples, String)>,
    fitted: Vec<Reading>,
    experiments: Vec<Experiment>,
    missing: Vec<(String, String)>,
    /// Of clean caches, by instruction.
    clean: Vec<(Instruction, Samples)>,
}

impl Found {
    fn keep(&mut self, name: &str, samples: Samples, method: impl Into<String>) {
        self.readings.push((name.to_owned(), Unit::Ns, samples, method.into()));
    }

    /// The IPI alone: to one pCPU of each distance, and to all.
    fn ipis(&mut self, module: &Module<'_, '_>, home: usize) -> Result<(), String> {
        let whole = |answer: &Flushed| vec![answer.end - answer.begin];
        let pcpus = &module.bench.topology.pcpus;
        let Some(here) = pcpus.iter().find(|p| p.id == home) else { return Ok(()) };
        let distances = [
            (Distance::Sibling, "sibling"),
            (Distance::SameCcx, "same_ccx"),
            (Distance::OtherCcx, "other_ccx"),
            (Distance::OtherSocket, "other_socket"),
        ];
        for (distance, name) in distances {
            let other = pcpus
                .iter()
                .find(|p| p.id != home && crate::topology::Topology::distance(here, p) == distance);
            let Some(other) = other else { continue };
            let samples = module.sample(&Ask::of(Instruction::Nop, &[other.id]), 200, whole)?;
            let method =
                format!("smp_call_function of nothing from pCPU {home} to {} and its answer", other.id);
            self.keep(&format!("other.ipi_round_trip_{name}"), samples, method);
        }
        let all: Vec<usize> = pcpus.iter().map(|p| p.id).collect();
        let samples = module.sample(&Ask::of(Instruction::Nop, &all), 200, whole)?;
        self.keep(
            "other.ipi_round_trip_all",
            samples,
            format!("the same to all {} pCPUs at once, its own included", all.len()),
        );
        Ok(())
    }

    /// One pCPU alone: clean caches, then more and more dirty lines of its own.
    fn alone(&mut self, module: &Module<'_, '_>, home: usize, op: Instruction) -> Result<(), String> {
        let name = op.name().to_ascii_lowercase();
        let ask = Ask { prewarm: true, ..Ask::of(op, &[home]) };
        let clean = module.sample(&ask, 30, instruction)?;
        self.keep(
            &format!("other.{name}_clean"),
            clean.clone(),
            format!("{} on caches that a WBINVD has just cleaned, interrupts off", op.name()),
        );
        if op == Instruction::Wbinvd {
            self.walk(&clean, capacity(module.bench));
        }
        let mut points = vec![(0, clean.clone())];
        self.clean.push((op, clean));
        let mut refill = Samples::default();
        for lines in sizes(module.bench) {
            let ask = Ask { dirty_lines: lines, refill: true, ..ask.clone() };
            let again = std::cell::RefCell::new(Samples::default());
            let samples = module.sample(&ask, 10, |answer| {
                for p in &answer.pcpus {
                    again.borrow_mut().add(module.ps(p.refill) / lines, false);
                }
                instruction(answer)
            });
            match samples {
                Ok(samples) => {
                    points.push((lines, samples.clone()));
                    refill = again.into_inner();
                    self.keep(
                        &format!("other.{name}_dirty_{lines}"),
                        samples,
                        format!("{} after {lines} lines were dirtied", op.name()),
                    );
                }
                Err(why) => self.missing.push((format!("other.{name}_dirty_{lines}"), why)),
            }
        }
        let method = format!("{} on one pCPU, with lines of its own dirty", op.name());
        let experiment = Experiment::of(&format!("{name}-dirty"), method, "lines", &points);
        self.fitted.extend(per_line(&format!("other.{name}_dirty_line"), &experiment));
        self.experiments.push(experiment);
        if !refill.is_empty() {
            let method = format!("reading a line again after {}, the largest set, in order", op.name());
            self.keep(&format!("other.{name}_refill_line"), refill, method);
        }
        Ok(())
    }

    /// On one host, whose caches have one size, what is fixed cannot be told from the walk over the lines: all of it is taken
    /// as walk, so that a simulation adds nothing of its own.
    fn walk(&mut self, clean: &Samples, lines: u64) {
        if lines == 0 {
            let why = "CPUID does not tell how many lines WBINVD walks; the whole is other.wbinvd_clean";
            self.missing.push(("flush.wbinvd_walk".to_owned(), why.to_owned()));
            return;
        }
        let walk = clean.map(|ps| ps / lines);
        let method =
            format!("other.wbinvd_clean over the {lines} lines of one L2 and the L3, what is fixed included");
        self.keep("flush.wbinvd_walk", walk, method);
        let why = "it cannot be told from the walk on one host, and is in flush.wbinvd_walk";
        self.missing
            .push(("flush.wbinvd_fixed".to_owned(), format!("{why}; the 0 of the profile is derived")));
        self.fitted.push(Reading::derived("flush.wbinvd_fixed", Unit::Ns, 0, format!("not measured: {why}")));
    }

    /// What of WBINVD's time WBNOINVD takes, on clean caches.
    fn factor(&mut self) {
        let median = |op| self.clean.iter().find(|c| c.0 == op).and_then(|c| c.1.spread()).map(|s| s.p50);
        let (Some(all), Some((_, keeps))) = (
            median(Instruction::Wbinvd).filter(|n| *n > 0),
            self.clean.iter().find(|c| c.0 == Instruction::Wbnoinvd),
        ) else {
            return;
        };
        let mut factor = Samples::default();
        for ps in keeps.clone().sorted() {
            factor.add(u64::try_from(u128::from(ps) * 100_000 / u128::from(all)).unwrap_or(u64::MAX), false);
        }
        let method = "WBNOINVD against the median of WBINVD, both on clean caches".to_owned();
        self.readings.push(("flush.wbnoinvd_factor".to_owned(), Unit::Percent, factor, method));
    }

    /// More and more pCPUs of one L3 at once, and of one a L3; another core's lines; lines of another socket.
    fn others(&mut self, module: &Module<'_, '_>, home: usize) {
        let topology = &module.bench.topology;
        let Some(here) = topology.pcpu(home) else { return };
        let lines = sizes(module.bench).first().copied().unwrap_or(64);
        let base = Ask { prewarm: true, dirty_lines: lines, ..Ask::of(Instruction::Wbinvd, &[home]) };
        let firsts: BTreeSet<usize> = topology.pcpus.iter().filter_map(|p| p.l3.first().copied()).collect();
        let near = here.l3.iter().find(|p| !here.core.contains(p)).copied();
        let far = topology.remote_node(home);
        for (name, said, pcpus) in [
            ("ccx", "pCPUs of one CCX", here.l3.iter().copied().collect::<Vec<_>>()),
            ("one_per_ccx", "CCXs, one pCPU of each", firsts.into_iter().collect()),
        ] {
            let what = format!("WBINVD on x {said}, each with {lines} dirty lines of its own");
            self.together(module, &format!("wbinvd_{name}_at_once"), &what, &pcpus, &base);
        }
        let what = format!("WBINVD on one pCPU after {lines} lines were dirtied");
        match near {
            None => self.lacks("other.wbinvd_other_cores_lines", "another core of the L3"),
            Some(near) => {
                // Cleaned by a request before: in the same one it would write back what the other has just dirtied.
                let clean = Ask { prewarm: true, ..Ask::of(Instruction::Nop, &[home, near]) };
                let ask = Ask { prewarm: false, dirty_by: Some(near), ..base.clone() };
                let method = format!("{what} by pCPU {near}, and before that WBINVD on both");
                self.one(module, "other.wbinvd_other_cores_lines", Some(&clean), &ask, method);
            }
        }
        match far {
            None => self.lacks("other.wbinvd_remote_lines", "a NUMA node on another socket"),
            Some(node) => {
                let ask = Ask { dirty_node: Some(node), ..base };
                self.one(
                    module,
                    "other.wbinvd_remote_lines",
                    None,
                    &ask,
                    format!("{what}, homed on NUMA node {node}"),
                );
            }
        }
    }

    fn lacks(&mut self, name: &str, what: &str) {
        self.missing.push((name.to_owned(), format!("needs {what}, and this host shows none")));
    }

    fn one(&mut self, module: &Module<'_, '_>, name: &str, before: Option<&Ask>, ask: &Ask, method: String) {
        match module.sample_after(before, ask, 10, instruction) {
            Ok(samples) => self.keep(name, samples, method),
            Err(why) => self.missing.push((name.to_owned(), why)),
        }
    }

    /// More and more of these pCPUs, up to all of them; all are a reading, too.
    fn together(&mut self, module: &Module<'_, '_>, name: &str, what: &str, pcpus: &[usize], base: &Ask) {
        let reading = format!("other.{name}");
        if pcpus.len() < 2 {
            self.lacks(&reading, "two of them");
            return;
        }
        let (mut points, mut all) = (Vec::new(), Samples::default());
        for k in counts(pcpus.len()) {
            let ask = Ask { pcpus: pcpus[..k].to_vec(), ..base.clone() };
            match module.sample(&ask, 10, instruction) {
                Ok(samples) => {
                    points.push((k as u64, samples.clone()));
                    all = samples;
                }
                Err(why) => {
                    self.missing.push((reading.clone(), why));
                    break;
                }
            }
        }
        if points.last().is_some_and(|p| p.0 == pcpus.len() as u64) {
            self.keep(&reading, all, format!("{what}, x being {}: each pCPU's own time", pcpus.len()));
        }
        let method = format!("{what}, at once: each pCPU's own time");
        self.experiments.push(Experiment::of(&name.replace('_', "-"), method, "pCPUs", &points));
    }
}

fn cache_lines(bench: &Bench<'_>, level: u32) -> u64 {
    bench.cpuid.caches().iter().find(|c| c.level == level && c.data).map_or(0, |c| c.bytes / LINE)
}

/// Lines of one L2 and the L3.
fn capacity(bench: &Bench<'_>) -> u64 {
    cache_lines(bench, 2) + cache_lines(bench, 3)
}

/// Dirty lines of the samples: parts of the L2, then of the L3.
fn sizes(bench: &Bench<'_>) -> Vec<u64> {
    let of = |lines: u64, eighths: &[u64]| eighths.iter().map(|n| lines * n / 8).collect::<Vec<_>>();
    let mut sizes = of(cache_lines(bench, 2), &EIGHTHS_L2);
    sizes.extend(of(cache_lines(bench, 3), &EIGHTHS_L3));
    sizes.retain(|n| *n > 0);
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}
