//! The host's side of a scenario: who decides where vCPUs run, what reclaims, which devices load the memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cache_model::part::Timing;
use serde::Deserialize;
use sev_arch::PcpuId;
use svm_model::timed::{DeviceLoad, Placement, Point, Scheduler};

use super::{Bandwidth, Duration, Every, Prepared, Scenario, ScenarioError, place};
use crate::guest::LINES_PER_PAGE;

/// Who decides where vCPUs run.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum SchedulerFront {
    /// As each VM says: pinned one to one, or floating over its pCPUs with `migrate_every`.
    #[default]
    Floating,
    /// All pinned, vCPU n to the n-th pCPU of its VM.
    Pinned,
    /// As the kernel's fair scheduler: pCPUs shared out by slices, and balanced.
    Fair {
        /// How long a vCPU may have a pCPU while another waits for it.
        slice: Duration,
    },
    /// As a file says.
    Recorded {
        /// Lines of `at,vcpu,pcpu`.
        file: PathBuf,
    },
}

impl SchedulerFront {
    /// Whether vCPUs can share a pCPU.
    pub(super) fn shares(&self) -> bool {
        matches!(self, SchedulerFront::Fair { .. } | SchedulerFront::Recorded { .. })
    }

    pub(super) fn plan(&self, timing: &Timing, schedule: &[Vec<Placement>]) -> Scheduler {
        match self {
            SchedulerFront::Floating | SchedulerFront::Pinned => Scheduler::Floating,
            SchedulerFront::Fair { slice } => Scheduler::Fair { slice: timing.cycles_of_ns(slice.ns).max(1) },
            SchedulerFront::Recorded { .. } => Scheduler::Recorded(schedule.to_vec()),
        }
    }
}

/// What calls the MMU notifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ReclaimSource {
    /// The VMM gives the page back: madvise(MADV_DONTNEED), a balloon.
    Madvise,
    /// NUMA balancing makes the page inaccessible, to see who touches it; nothing is freed.
    NumaBalancing,
    /// KSM write-protects the page, then puts another in its place, and the page is freed.
    Ksm,
}

impl ReclaimSource {
    /// The function of the kernel text.
    pub(super) const fn function(self) -> &'static str {
        match self {
            ReclaimSource::Madvise => "madvise_dontneed",
            ReclaimSource::NumaBalancing => "numa_hint",
            ReclaimSource::Ksm => "ksm_merge",
        }
    }
}

/// A device that reads and writes buffers of the host's by DMA, all the time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeviceFront {
    pub(super) name: String,
    pub(super) bandwidth: Bandwidth,
    #[serde(default = "super::half")]
    pub(super) write_percent: u8,
    /// Pages of its buffers.
    #[serde(default = "buffers")]
    pub(super) pages: u32,
}

fn buffers() -> u32 {
    256
}

/// Whether an actor gets a pCPU, others moving to another of theirs where they can: a way to a larger matching.
fn takes_one<'a>(
    actor: usize,
    actors: &[(String, &'a [u16], usize)],
    owner: &mut BTreeMap<u16, usize>,
    asked: &mut BTreeSet<u16>,
) -> bool {
    let pcpus: &'a [u16] = actors[actor].1;
    pcpus.iter().any(|p| {
        let free = asked.insert(*p)
            && owner.get(p).copied().is_none_or(|other| takes_one(other, actors, owner, asked));
        if free {
            owner.insert(*p, actor);
        }
        free
    })
}

impl Scenario {
    /// What must hold of the host's side.
    pub(super) fn validate_host(&self) -> Result<(), ScenarioError> {
        let f = &self.front;
        let moving = f.vm.iter().find(|vm| vm.migrate_every.is_some());
        if let (Some(vm), false) = (moving, matches!(f.scheduler, SchedulerFront::Floating)) {
            let message = format!(
                "VM {} says how often its vCPUs move, and `scheduler` says it too: leave one of them out",
                vm.name
            );
            return Err(self.fail("migrate_every", message));
        }
        if let SchedulerFront::Fair { slice: Duration { ns: 0 } } = f.scheduler {
            return Err(self.fail("slice", "slice: expected more than 0".to_owned()));
        }
        for r in &f.reclaim {
            match (&r.entry, r.source) {
                (Some(_), None) | (None, Some(_)) => {}
                (Some(entry), Some(_)) => {
                    let message =
                        format!("[[reclaim]] has a source and the entry {entry}: expected one of them");
                    return Err(self.fail("[[reclaim]]", message));
                }
                (None, None) => {
                    let message =
                        "[[reclaim]] has no source: expected source = \"madvise\", \"numa-balancing\" or \
                                   \"ksm\", or entry = a function of the kernel text"
                            .to_owned();
                    return Err(self.fail("[[reclaim]]", message));
                }
            }
            if !(1..=1_000_000).contains(&r.pages) {
                let message = format!("pages = {}: expected from 1 to 1000000", r.pages);
                return Err(self.fail("pages", message));
            }
            let taken = |p: &&u16| f.scheduler.shares() && f.vm.iter().any(|vm| vm.pcpus.contains(p));
            if let Some(p) = r.pcpus.iter().find(taken) {
                let message = format!(
                    "reclaim runs on pCPU {p}, which `scheduler` shares out to vCPUs: give it one of its own"
                );
                return Err(self.fail("[[reclaim]]", message));
            }
        }
        self.each_has_a_pcpu()?;
        for d in &f.device {
            let key = format!("\"{}\"", d.name);
            if d.write_percent > 100 {
                return Err(self.fail("write_percent", "write_percent: expected 0 to 100".to_owned()));
            }
            if d.pages == 0 {
                return Err(self.fail(&key, format!("device {} has no pages", d.name)));
            }
        }
        Ok(())
    }

    /// Refuses actors that cannot each have a pCPU of their own, where no scheduler shares pCPUs out: one of them would wait for ever.
    fn each_has_a_pcpu(&self) -> Result<(), ScenarioError> {
        let f = &self.front;
        let mut actors: Vec<(String, &[u16], usize)> = Vec::new();
        if !f.scheduler.shares() {
            for (nth, vm) in f.vm.iter().enumerate() {
                for i in 0..usize::from(vm.vcpus) {
                    // As in the model: pinned one to one unless they float.
                    let own = if vm.migrate_every.is_some() { 0..vm.pcpus.len() } else { i..i + 1 };
                    let pcpus = vm.pcpus.get(own).unwrap_or_default();
                    actors.push((format!("{}.vcpu{i}", vm.name), pcpus, self.list_in("[[vm]]", nth)));
                }
            }
        }
        for (nth, r) in f.reclaim.iter().enumerate() {
            actors.push((format!("reclaim{nth}"), &r.pcpus, self.list_in("[[reclaim]]", nth)));
        }
        let mut owner = BTreeMap::new();
        for (i, (name, pcpus, at)) in actors.iter().enumerate() {
            // That a list is empty is said where it is read.
            if !pcpus.is_empty() && !takes_one(i, &actors, &mut owner, &mut BTreeSet::new()) {
                let others = pcpus.iter().filter_map(|p| owner.get(p)).map(|o| actors[*o].0.as_str());
                let others: Vec<&str> = others.collect::<BTreeSet<_>>().into_iter().collect();
                let message = format!(
                    "{name} has no pCPU of its own: {pcpus:?} is taken by {}. Actors share one only if `scheduler` shares it out",
                    others.join(", ")
                );
                return Err(place(&self.file, &self.text, *at, message));
            }
        }
        Ok(())
    }

    /// Where the list of pCPUs stands in a table of the file, counted from 0.
    pub(super) fn list_in(&self, table: &str, nth: usize) -> usize {
        let begin = self.text.match_indices(table).nth(nth).map_or(0, |(at, _)| at);
        begin + self.text[begin..].find("pcpus = [").unwrap_or(0)
    }

    /// Reads a recorded schedule: the placements of each vCPU, in order.
    pub(super) fn schedule(
        &self,
        base: &Path,
        timing: &Timing,
    ) -> Result<Vec<Vec<Placement>>, ScenarioError> {
        let SchedulerFront::Recorded { file } = &self.front.scheduler else { return Ok(Vec::new()) };
        let path = base.join(file);
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path)
            .map_err(|e| self.fail("recorded", format!("cannot read the schedule {name}: {e}")))?;
        let mut vcpus: Vec<(String, &[u16], Vec<Placement>)> = Vec::new();
        for vm in &self.front.vm {
            let names = (0..vm.vcpus).map(|i| format!("{}.vcpu{i}", vm.name));
            vcpus.extend(names.map(|name| (name, vm.pcpus.as_slice(), Vec::new())));
        }
        let wrong = |line: usize, message: String| ScenarioError::File {
            file: name.clone(),
            line,
            column: 1,
            message,
        };
        for (n, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() || n == 1 && line.replace(' ', "") == "at,vcpu,pcpu" {
                continue;
            }
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            let [at, vcpu, pcpu] = fields[..] else {
                let message = format!("'{line}': expected `at,vcpu,pcpu`, such as 250us,guest.vcpu0,3");
                return Err(wrong(n, message));
            };
            let at = match at {
                "0" => Point::Cycles(0),
                at => Every::try_from(at.to_owned()).map_err(|m| wrong(n, m))?.point(timing),
            };
            let known: Vec<String> = vcpus.iter().map(|v| v.0.clone()).collect();
            let Some(found) = vcpus.iter_mut().find(|v| v.0 == vcpu) else {
                let near: Vec<&str> = known.iter().take(4).map(String::as_str).collect();
                let message = format!("there is no vCPU {vcpu}: expected e.g. {}", near.join(", "));
                return Err(wrong(n, message));
            };
            let pcpu = pcpu.parse::<u16>().ok().filter(|p| found.1.contains(p)).ok_or_else(|| {
                wrong(
                    n,
                    format!("'{pcpu}' is none of the pCPUs of {vcpu}'s VM: expected one of {:?}", found.1),
                )
            })?;
            let back = match (found.2.last().map(|p: &Placement| p.at), at) {
                (Some(Point::Cycles(a)), Point::Cycles(b))
                | (Some(Point::Accesses(a)), Point::Accesses(b)) => b <= a,
                _ => false,
            };
            if back {
                return Err(wrong(
                    n,
                    format!("{vcpu} goes back in time: expected later entries after earlier ones"),
                ));
            }
            found.2.push(Placement { at, pcpu: PcpuId(pcpu) });
        }
        if let Some((vcpu, ..)) = vcpus.iter().find(|v| v.2.is_empty()) {
            let message = format!("{vcpu} is nowhere: expected a line such as 0,{vcpu},3");
            return Err(wrong(text.lines().count().max(1), message));
        }
        Ok(vcpus.into_iter().map(|v| v.2).collect())
    }
}

impl Prepared {
    /// The host's side in words, where it is not the plain one: who places vCPUs, and devices. Empty else.
    #[must_use]
    pub fn host(&self) -> String {
        let front = &self.scenario.front;
        let mut said = Vec::new();
        match &front.scheduler {
            SchedulerFront::Floating | SchedulerFront::Pinned => {}
            SchedulerFront::Fair { slice } => {
                said.push(format!(
                    "vCPUs share pCPUs under a fair scheduler, slices of {} us",
                    slice.ns / 1000
                ));
            }
            SchedulerFront::Recorded { file } => said.push(format!("vCPUs move as {} says", file.display())),
        }
        for d in &front.device {
            let (whole, part) = (d.bandwidth.mb_s / 1000, d.bandwidth.mb_s % 1000);
            let part = format!("{part:03}");
            let part = part.trim_end_matches('0');
            let point = if part.is_empty() { "" } else { "." };
            let writes = d.write_percent;
            said.push(format!("device {} moves {whole}{point}{part} GB/s by DMA, {writes}% writes", d.name));
        }
        said.join("; ")
    }

    /// The devices, with their buffers one after the other behind the VMs' pages.
    pub(super) fn devices(&self, timing: &Timing) -> Vec<DeviceLoad> {
        let front = &self.scenario.front;
        let vms = self.guests.iter().zip(&front.vm).map(|(g, v)| g.pages() + v.spare_pages);
        let mut page: u32 = vms.sum();
        let mut devices = Vec::new();
        for d in &front.device {
            devices.push(DeviceLoad {
                first_line: page * LINES_PER_PAGE,
                pages: d.pages,
                // A page's bytes over MB/s are microseconds; times MHz, cycles.
                page_milli: 4096 * timing.clock_mhz * 1000 / d.bandwidth.mb_s,
                write_percent: u64::from(d.write_percent),
            });
            page += d.pages;
        }
        devices
    }
}
