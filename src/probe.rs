//! `sevsim probe`: what this host offers for measuring, a level a line.

use serde::Serialize;
use svm_native::cpuid::Cpuid;
use svm_native::probe::{Host, Place, Report};

use crate::args::{Format, ProbeArgs};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::report::number::size;
use crate::report::table::{pad, styled, wrap};
use crate::report::{json, style, verdicts};

/// Where the words after a level's name begin.
const INDENT: usize = 27;

/// Does it.
pub(crate) fn probe(args: &ProbeArgs, out: &mut Output) -> Result<Exit, Failure> {
    let place = match &args.root {
        None => Place::here(),
        Some(root) => Place::scripted(root).map_err(Failure::input)?,
    };
    let report = place.probe();
    match args.format.format {
        Format::Table => out.print(&text(&report, out.width())),
        Format::Json => out.print(&json::line(&Probe::of(&report))),
        Format::Csv => {
            out.print("level,name,have,why,how\n");
            for l in &report.levels {
                let have = if l.have { "true" } else { "false" };
                let row = [
                    format!("L{}", l.level),
                    l.name.to_owned(),
                    have.to_owned(),
                    l.why.clone(),
                    l.how.clone(),
                ];
                out.print(&verdicts::csv_line(&row));
            }
        }
    }
    Ok(Exit::Done)
}

fn text(report: &Report, width: usize) -> String {
    let topology = &report.topology;
    let mut text = String::new();
    let mut say = |head: &str, said: &str| {
        let said =
            wrap(said, width.saturating_sub(INDENT), 0).replace('\n', &format!("\n{}", " ".repeat(INDENT)));
        text.push_str(&format!("{}{said}\n", pad(head, INDENT, false)));
    };
    let host = &report.host;
    say("host", &format!("{}, Linux {}, microcode {}", host.name, host.kernel, host.microcode));
    say("processor", &format!("{} ({})", host.cpu, host.family));
    let (cores, l3s, sockets) = (topology.cores(), topology.l3s(), topology.sockets());
    say("topology", &format!("pCPUs {}, cores {cores}, L3 {l3s}, sockets {sockets}", topology.pcpus.len()));
    if report.allowed.len() < topology.pcpus.len() {
        let these: Vec<String> = report.allowed.iter().map(ToString::to_string).collect();
        say("this process", &format!("may use {} of them: {}", these.len(), these.join(" ")));
    }
    for (head, said) in leaves(&report.cpuid) {
        say(head, &said);
    }
    for level in &report.levels {
        let (mark, word) = if level.have { (style::good(), "have") } else { (style::bad(), "have not") };
        let head = pad(&format!("L{} {}", level.level, level.name), INDENT - 10, false);
        let mut said = level.why.clone();
        if !level.how.is_empty() {
            said.push_str(&format!("; to get it: {}", level.how));
        }
        let head = format!("{head}{}", styled(&pad(word, 10, false), mark));
        let said =
            wrap(&said, width.saturating_sub(INDENT), 0).replace('\n', &format!("\n{}", " ".repeat(INDENT)));
        text.push_str(&format!("{head}{said}\n"));
    }
    if let Some(name) = &report.host.hypervisor {
        text.push_str(&format!(
            "\n{} this is a VM ({name}). Whatever is measured here is a guest's number.\n",
            styled("IN A VM:", style::unsure())
        ));
    }
    text
}

/// The leaves that decide what flushing means here.
fn leaves(cpuid: &Cpuid) -> Vec<(&'static str, String)> {
    let yes = |b: bool| if b { "yes" } else { "no" };
    let mut lines = vec![(
        "CPUID 8000_0008",
        match cpuid.leaf(0x8000_0008, 0) {
            Some(_) => {
                format!("WBNOINVD {}, interruptible {}", yes(cpuid.wbnoinvd()), yes(cpuid.int_wbinvd()))
            }
            None => "absent".to_owned(),
        },
    )];
    let caches = cpuid.caches();
    if caches.is_empty() {
        lines.push(("CPUID 8000_001D", "absent".to_owned()));
    }
    for cache in caches.iter().filter(|c| c.data) {
        let scope = if cache.wbinvd_own_core_only { "not promised" } else { "yes" };
        lines.push((
            "CPUID 8000_001D",
            format!(
                "L{} {}, {} ways, shared by {} at most, inclusive {}, WBINVD covers the sharers' lower caches: {scope}",
                cache.level,
                size(cache.bytes),
                cache.ways,
                cache.sharers,
                yes(cache.inclusive)
            ),
        ));
    }
    lines.push((
        "CPUID 8000_001F",
        match cpuid.encryption() {
            None => "absent".to_owned(),
            Some(e) => format!(
                "SEV {}, SEV-ES {}, SEV-SNP {}, coherent {}, C-bit {}, ASIDs {}",
                yes(e.sev),
                yes(e.sev_es),
                yes(e.sev_snp),
                yes(e.sme_coherent),
                e.c_bit,
                e.asids
            ),
        },
    ));
    lines
}

/// `sevsim.probe/1`.
#[derive(Debug, Serialize)]
struct Probe<'a> {
    schema: &'static str,
    levels: Vec<Level<'a>>,
    wbnoinvd: bool,
    int_wbinvd: bool,
    caches: Vec<Cache>,
    encryption: Option<Encryption>,
    pcpus: usize,
    /// Those that this process may use.
    usable_pcpus: usize,
    cores: usize,
    l3s: usize,
    sockets: usize,
    in_a_vm: bool,
    /// Differs from host to host.
    provenance: Provenance<'a>,
}

#[derive(Debug, Serialize)]
struct Level<'a> {
    level: String,
    name: &'a str,
    have: bool,
    why: &'a str,
    how: &'a str,
}

#[derive(Debug, Serialize)]
struct Cache {
    level: u32,
    bytes: u64,
    ways: u32,
    sharers: u32,
    inclusive: bool,
    wbinvd_covers_sharers: bool,
}

#[derive(Debug, Serialize)]
struct Encryption {
    sev: bool,
    sev_es: bool,
    sev_snp: bool,
    sme_coherent: bool,
    c_bit: u32,
    asids: u32,
}

#[derive(Debug, Serialize)]
struct Provenance<'a> {
    host: &'a str,
    kernel: &'a str,
    cpu: &'a str,
    family: &'a str,
    microcode: &'a str,
    hypervisor: Option<&'a str>,
}

impl<'a> Provenance<'a> {
    fn of(host: &'a Host) -> Provenance<'a> {
        Provenance {
            host: &host.name,
            kernel: &host.kernel,
            cpu: &host.cpu,
            family: &host.family,
            microcode: &host.microcode,
            hypervisor: host.hypervisor.as_deref(),
        }
    }
}

impl<'a> Probe<'a> {
    fn of(report: &'a Report) -> Probe<'a> {
        let cpuid = &report.cpuid;
        let level = |l: &'a svm_native::probe::Level| Level {
            level: format!("L{}", l.level),
            name: l.name,
            have: l.have,
            why: &l.why,
            how: &l.how,
        };
        let cache = |c: svm_native::cpuid::CacheLeaf| Cache {
            level: c.level,
            bytes: c.bytes,
            ways: c.ways,
            sharers: c.sharers,
            inclusive: c.inclusive,
            wbinvd_covers_sharers: !c.wbinvd_own_core_only,
        };
        Probe {
            schema: "sevsim.probe/1",
            levels: report.levels.iter().map(level).collect(),
            wbnoinvd: cpuid.wbnoinvd(),
            int_wbinvd: cpuid.int_wbinvd(),
            caches: cpuid.caches().into_iter().filter(|c| c.data).map(cache).collect(),
            encryption: cpuid.encryption().map(|e| Encryption {
                sev: e.sev,
                sev_es: e.sev_es,
                sev_snp: e.sev_snp,
                sme_coherent: e.sme_coherent,
                c_bit: e.c_bit,
                asids: e.asids,
            }),
            pcpus: report.topology.pcpus.len(),
            usable_pcpus: report.allowed.len(),
            cores: report.topology.cores(),
            l3s: report.topology.l3s(),
            sockets: report.topology.sockets(),
            in_a_vm: report.host.hypervisor.is_some(),
            provenance: Provenance::of(&report.host),
        }
    }
}
