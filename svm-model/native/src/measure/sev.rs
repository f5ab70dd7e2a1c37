//! Encrypted guests: their launches, the kernel's flush sites, DF_FLUSH and ACTIVATE.

use super::Bench;
use crate::perf::tracefs;
use crate::profile::Unit;
use crate::sev::played::Recorded;
use crate::sev::real::Real;
use crate::sev::trigger::{Site, recycle, sites};
use crate::sev::watch::{Blind, Seen, Stretch, Tracefs, Watch};
use crate::sev::{Kind, launch};
use crate::stats::Samples;

/// `sev.*`. `may_flush` says whether whole caches may be flushed here, or why not: each site ends in such a flush. Without SEV
/// nothing is flushed: each kind is asked for until the kernel refuses, and the refusal is kept. Gives the exchange with
/// the kernel as text.
///
/// # Errors
/// There is no KVM, or whole caches may not be flushed here.
pub fn sev(
    bench: &mut Bench<'_>,
    have: bool,
    may_flush: Result<(), String>,
    title: &str,
) -> Result<String, String> {
    let leaf = bench.cpuid.encryption();
    let mut real = Real::new(leaf.map_or(0, |l| l.c_bit))?;
    let _home = bench.home()?;
    let mut kernel = Recorded::new(&mut real, title);
    // A CPU with SEV may have a kernel that launches such guests although the probe found something missing.
    if leaf.is_some_and(|l| l.sev) {
        may_flush?;
    }
    if !have {
        for kind in [Kind::Sev, Kind::SevEs, Kind::SevSnp] {
            match launch(&mut kernel, kind) {
                Err(refusal) => bench.miss(&format!("a guest of kind {}", kind.name()), refusal.to_string()),
                // The probe was wrong, which is worth knowing; nothing more is done to a host that seemed not to have it.
                Ok(launched) => {
                    bench.miss(
                        &format!("a guest of kind {}", kind.name()),
                        "launched, though the probe says there is no SEV",
                    );
                    drop(crate::sev::Kernel::call(&mut kernel, crate::sev::Call::Close(launched.vm)));
                }
            }
        }
        return Ok(kernel.text);
    }
    let mut watch: Box<dyn Watch> = match tracefs().and_then(|root| Tracefs::open(&root)) {
        Ok(traced) => {
            for said in traced.said.iter().filter(|s| s.contains("not watched")) {
                bench.miss("tracefs", said.clone());
            }
            Box::new(traced)
        }
        Err(why) => {
            bench.miss("who flushed, when and how long", why.clone());
            Box::new(Blind(why))
        }
    };
    let mut found: Vec<Site> = Vec::new();
    for kind in Kind::ALL {
        if let Err(refusal) = sites(&mut kernel, watch.as_mut(), kind, bench.stop, &mut found) {
            bench.miss(&format!("a guest of kind {}", kind.name()), refusal.to_string());
        }
    }
    // The kind with fewer ASIDs is through with them sooner.
    let leaf = leaf.filter(|l| l.asids > 0);
    let (es, sev) = leaf.map_or((0, 0), |l| {
        (l.first_sev_asid.saturating_sub(1), l.asids.saturating_sub(l.first_sev_asid) + 1)
    });
    let (kind, asids) = if es > 0 { (Kind::SevEs, es) } else { (Kind::Sev, sev) };
    let enough = || bench.stopped() || bench.is_late();
    let recycled = recycle(&mut kernel, watch.as_mut(), kind, asids, &enough);
    match recycled {
        Ok(more) => {
            let made = more.first().map_or(0, |s| s.took.len());
            if made <= asids as usize {
                bench.miss("ASID recycling", format!("the time was over after {made} of {asids} ASIDs"));
            }
            found.extend(more);
        }
        Err(refusal) => bench.miss("ASID recycling", refusal.to_string()),
    }
    keep(bench, &found);
    Ok(kernel.text)
}

fn keep(bench: &mut Bench<'_>, found: &[Site]) {
    let samples = |took: &[u64]| {
        let mut samples = Samples::default();
        took.iter().for_each(|ticks| samples.add(bench.ps(*ticks, 1), false));
        samples
    };
    let under = |name: &str| name.replace('-', "_");
    let plain = found
        .iter()
        .find(|s| s.kind == Kind::Plain && s.name == "discard")
        .and_then(|s| samples(&s.took).spread());
    let mut readings = Vec::new();
    for site in found {
        let name = format!("sev.{}_{}", under(site.kind.name()), under(&site.name));
        let taken = samples(&site.took);
        if let (true, Some(plain)) = (site.kind != Kind::Plain && site.name == "discard", plain) {
            let method =
                "madvise(DONTNEED) of one untouched page, the median of a plain guest subtracted".to_owned();
            readings.push((format!("{name}_flush"), taken.map(|ps| ps.saturating_sub(plain.p50)), method));
        }
        let method = format!("{} of a {} guest, as the caller sees it", site.name, site.kind.name());
        readings.push((name.clone(), taken, method));
        let flushes = site.seen.flushes();
        if !flushes.is_empty() {
            let ticks = |of: &mut dyn Iterator<Item = &Stretch>| of.map(|s| s.took).collect::<Vec<u64>>();
            let mut pcpus: Vec<usize> = flushes.iter().flat_map(|f| f.pcpus.iter().map(|s| s.pcpu)).collect();
            pcpus.sort_unstable();
            pcpus.dedup();
            let calls: std::collections::BTreeSet<&str> =
                flushes.iter().map(|f| f.call.what.as_str()).collect();
            let calls: Vec<&str> = calls.into_iter().collect();
            let method = format!(
                "by tracefs: {} flushes in {} of it, {}, on pCPUs {pcpus:?}",
                flushes.len(),
                site.took.len(),
                calls.join(" and ")
            );
            let whole = ticks(&mut flushes.iter().map(|f| &f.call));
            readings.push((format!("{name}_whole_flush"), samples(&whole), method.clone()));
            let each = ticks(&mut flushes.iter().flat_map(|f| &f.pcpus));
            readings.push((
                format!("{name}_pcpu_flush"),
                samples(&each),
                format!("{method}: each pCPU's part"),
            ));
        }
    }
    let all: Vec<&Seen> = found.iter().map(|s| &s.seen).collect();
    for (key, what) in
        [("df_flush", "psp DF_FLUSH"), ("activate", "psp ACTIVATE"), ("snp_activate", "psp SNP_ACTIVATE")]
    {
        let took: Vec<u64> =
            all.iter().flat_map(|s| s.of(what)).filter(|s| s.what == what).map(|s| s.took).collect();
        let method = format!("by a kprobe on __sev_do_cmd_locked: {}", what.trim_start_matches("psp "));
        readings.push((format!("sev.{key}"), samples(&took), method));
    }
    for (name, samples, method) in readings {
        if samples.is_empty() {
            bench.miss(&name, "not seen: needs kprobes, or ASID recycling");
        } else {
            bench.keep(&name, Unit::Ns, &samples, method);
        }
    }
}
