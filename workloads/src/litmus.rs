//! Litmus tests: TOML front matter between `+++` lines, then a C body with one function per actor.

use cache_model::event::EventKind;
use cache_model::lattice::{Psp, Shape};
use serde::Deserialize;
use sev_arch::{CcxId, CoreId, PcpuId, VcpuId, VmId, WbinvdScope};
use svm_model::firmware::Initial;
use svm_model::spec::{Assumptions, Guest, ModelSpec, Reuse, TaskKind, TaskSpec};

mod vm;

/// What a check can come to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// No event is reachable.
    Holds,
    /// An event is reachable.
    Violated,
}

impl Expected {
    /// As in JSON and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Expected::Holds => "holds",
            Expected::Violated => "violated",
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Front {
    description: String,
    /// Parts that the test is about.
    parts: Vec<String>,
    #[serde(default = "default_kernels")]
    kernels: Vec<String>,
    pcpus: u16,
    /// Core of each pCPU; each its own by default.
    cores: Option<Vec<u16>>,
    /// CCX of each core; one for all by default.
    ccxs: Option<Vec<u16>>,
    /// How many plain SEV VMs, where `[[vm]]` lists none; 1 by default.
    vms: Option<toml::Spanned<u16>>,
    #[serde(default)]
    vm: Vec<vm::VmFront>,
    /// ASIDs that there are, the host's not counted; as many as the VMs have by default.
    asids: Option<toml::Spanned<u16>>,
    pages: Vec<PageFront>,
    #[serde(default)]
    assume: Vec<String>,
    /// How the SEV firmware is at first: `fresh` or `running`.
    firmware: Option<String>,
    #[serde(default = "default_reuse")]
    reuse: Vec<String>,
    /// Events asked about: a search may end once each was reached. All that can follow a latent line by default.
    #[serde(default = "default_events")]
    events: Vec<String>,
    /// pCPUs whose bits share a word of a cpumask, 1 to 64.
    #[serde(default = "default_word")]
    mask_word_bits: u8,
    #[serde(default)]
    vcpu: Vec<VcpuFront>,
    #[serde(default)]
    task: Vec<TaskFront>,
    #[serde(default)]
    device: Vec<DeviceFront>,
    expect: Vec<ExpectFront>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PageFront {
    name: String,
    /// The first VM by default, or that of the vCPU whose VMSA it is.
    vm: Option<u16>,
    /// Whether the guest has touched it before: it is mapped from the start.
    #[serde(default)]
    mapped: bool,
    /// Whether the guest accesses it with C=0, as the host does.
    #[serde(default)]
    shared: bool,
    /// The vCPU whose VMSA it is.
    vmsa_of: Option<toml::Spanned<u16>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VcpuFront {
    #[serde(default)]
    vm: u16,
    guest: String,
    pcpus: Vec<u16>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskFront {
    run: String,
    pcpus: Vec<u16>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceFront {
    run: String,
}

/// Which verdict is expected, for which policies, on which parts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectFront {
    verdict: Expected,
    policies: Vec<String>,
    #[serde(default)]
    parts: Vec<String>,
}

fn default_word() -> u8 {
    64
}

fn default_kernels() -> Vec<String> {
    vec!["linux-6.17".to_owned()]
}

fn default_events() -> Vec<String> {
    vec!["latent".to_owned(), "clobber".to_owned(), "garbage".to_owned()]
}

fn default_reuse() -> Vec<String> {
    vec!["host".to_owned(), "dma".to_owned()]
}

/// How the firmware is at first, by its name in a file.
fn initial_firmware(name: &str) -> Option<Initial> {
    match name {
        "fresh" => Some(Initial::Fresh),
        "running" => Some(Initial::Running),
        _ => None,
    }
}

impl Front {
    /// What is taken as given.
    fn assumptions(&self) -> Assumptions {
        let firmware = self.firmware.as_deref().and_then(initial_firmware).unwrap_or_default();
        let mut given = Assumptions { firmware, word_bits: self.mask_word_bits, ..Assumptions::default() };
        for name in &self.assume {
            given.take(name);
        }
        given
    }
}

/// A litmus test.
#[derive(Clone, Debug)]
pub struct Litmus {
    /// What it is called: its built-in name, or the file as the user named it, so that a schedule finds it again.
    pub name: String,
    /// The file, for errors and stories.
    pub file: String,
    /// The C body, with the front matter blanked out, so that its line numbers are the file's.
    pub body: String,
    /// All of the file.
    text: String,
    front: Front,
}

/// What is wrong with a litmus file, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct LitmusError {
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong, and what was expected.
    pub message: String,
}

/// Line and column, from 1, of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
    (line, column)
}

/// What TOML's reader says, without the names of this program's types.
fn in_words(message: &str) -> String {
    let types = [("u16", "a whole number from 0 to 65535"), ("u8", "a whole number from 0 to 255")];
    types.iter().fold(message.to_owned(), |text, (name, words)| {
        text.replace(&format!("expected {name}"), &format!("expected {words}"))
    })
}

/// Whether a text is a name in C.
fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl Litmus {
    /// Reads a litmus test.
    ///
    /// # Errors
    ///
    /// What is wrong in the front matter, with its place. Errors in the body come when it is compiled.
    pub fn parse(file: &str, text: &str) -> Result<Litmus, LitmusError> {
        // Lines that end as on Windows have the same numbers.
        let unix = if text.contains('\r') { text.replace("\r\n", "\n") } else { String::new() };
        let text = if unix.is_empty() { text } else { &unix };
        let fail = |offset: usize, message: String| {
            let (line, column) = position(text, offset);
            LitmusError { file: file.to_owned(), line, column, message }
        };
        let builtin = BUILTIN.iter().find(|b| (b.1, b.2) == (file, text));
        let name = builtin.map_or(file, |b| b.0).to_owned();
        let Some(rest) = text.strip_prefix("+++\n") else {
            return Err(fail(
                0,
                "a litmus file begins with a line `+++`, TOML, and another `+++`".to_owned(),
            ));
        };
        let Some(end) = rest.find("\n+++\n") else {
            return Err(fail(0, "the front matter has no closing `+++` line".to_owned()));
        };
        let toml_text = &rest[..=end];
        let front: Front = toml::from_str(toml_text).map_err(|e| {
            let offset = e.span().map_or(0, |s| s.start) + 4;
            fail(offset, in_words(e.message()))
        })?;
        let body_start = 4 + end + 5;
        let newlines = text[..body_start].matches('\n').count();
        let body = format!("{}{}", "\n".repeat(newlines), &text[body_start..]);
        let litmus = Litmus { name, file: file.to_owned(), body, text: text.to_owned(), front };
        litmus.validate(text, &fail)?;
        Ok(litmus)
    }

    fn validate(&self, text: &str, fail: &dyn Fn(usize, String) -> LitmusError) -> Result<(), LitmusError> {
        let f = &self.front;
        let at = |key: &str| text.find(key).unwrap_or(0);
        if f.pcpus == 0 || f.pcpus > 16 {
            return Err(fail(at("pcpus"), format!("pcpus = {}: expected 1 to 16", f.pcpus)));
        }
        f.guests().map_err(|(place, message)| match place {
            // The TOML text begins after a line `+++`.
            vm::Place::Offset(offset) => fail(offset + 4, message),
            vm::Place::Key(key) => fail(at(key), message),
        })?;
        if f.mask_word_bits == 0 || f.mask_word_bits > 64 {
            let message = format!("mask_word_bits = {}: expected 1 to 64", f.mask_word_bits);
            return Err(fail(at("mask_word_bits"), message));
        }
        if let Some(cores) = &f.cores
            && cores.len() != usize::from(f.pcpus)
        {
            return Err(fail(at("cores"), format!("cores lists {} of {} pCPUs", cores.len(), f.pcpus)));
        }
        if let Some(core) = f.cores.iter().flatten().find(|c| **c >= f.pcpus) {
            return Err(fail(
                at("cores"),
                format!("core {core} of 0 to {}: there are no more cores than pCPUs", f.pcpus - 1),
            ));
        }
        let cores = f
            .cores
            .as_ref()
            .and_then(|c| c.iter().max())
            .map_or(usize::from(f.pcpus), |m| usize::from(*m) + 1);
        if let Some(ccxs) = &f.ccxs
            && ccxs.len() != cores
        {
            return Err(fail(at("ccxs"), format!("ccxs lists {} of {cores} cores", ccxs.len())));
        }
        if let Some(ccx) = f.ccxs.iter().flatten().find(|x| usize::from(**x) >= cores) {
            let last = cores - 1;
            return Err(fail(
                at("ccxs"),
                format!("CCX {ccx} of 0 to {last}: there are no more CCXs than cores"),
            ));
        }
        for (i, page) in f.pages.iter().enumerate() {
            let name = &page.name;
            let place = at("pages");
            if !is_name(name) {
                return Err(fail(place, format!("a page called `{name}`: expected a name as in C")));
            }
            if f.pages[..i].iter().any(|p| p.name == *name) {
                return Err(fail(place, format!("two pages are called `{name}`")));
            }
        }
        let places = f.vcpu.iter().map(|v| &v.pcpus).chain(f.task.iter().map(|t| &t.pcpus));
        for list in places {
            if list.is_empty() {
                return Err(fail(at("pcpus = ["), "an empty list of pCPUs: name at least one".to_owned()));
            }
            if let Some(p) = list.iter().find(|p| **p >= f.pcpus) {
                let last = f.pcpus - 1;
                return Err(fail(at("pcpus = ["), format!("pCPU {p} of 0 to {last}")));
            }
            if let Some((_, p)) = list.iter().enumerate().find(|(i, p)| list[..*i].contains(p)) {
                return Err(fail(at("pcpus = ["), format!("pCPU {p} is named twice")));
            }
        }
        if f.pages.is_empty() {
            return Err(fail(at("pages"), "no pages: a litmus test needs at least one".to_owned()));
        }
        let vms = f.vm_count();
        for vm in f.pages.iter().map(|p| f.page_vm(p)).chain(f.vcpu.iter().map(|v| v.vm)) {
            if vm >= vms {
                return Err(fail(at("vm ="), format!("vm {vm} of 0 to {}", vms.saturating_sub(1))));
            }
        }
        for a in &f.assume {
            if !Assumptions::default().take(a) {
                let known = Assumptions::NAMES.join(", ");
                return Err(fail(at("assume"), format!("unknown assumption '{a}': known are {known}")));
            }
        }
        if let Some(name) = f.firmware.as_deref().filter(|name| initial_firmware(name).is_none()) {
            return Err(fail(at("firmware"), format!("firmware = \"{name}\": expected fresh or running")));
        }
        if let Some(e) = f.events.iter().find(|e| EventKind::from_name(e).is_none()) {
            let known: Vec<&str> = EventKind::ALL.iter().map(|k| k.name()).collect();
            return Err(fail(at("events"), format!("unknown event '{e}': known are {}", known.join(", "))));
        }
        for r in &f.reuse {
            if r != "host" && r != "dma" {
                return Err(fail(at("reuse"), format!("unknown reuse '{r}': known are host, dma")));
            }
        }
        if f.vcpu.is_empty() && f.task.is_empty() && f.device.is_empty() {
            return Err(fail(0, "no actors: name a [[vcpu]], a [[task]] or a [[device]]".to_owned()));
        }
        Ok(())
    }

    /// Where the front matter names a function that the body should have: line and column from 1, and the line.
    pub(crate) fn names(&self, function: &str) -> Option<(u32, u32, &str)> {
        let quoted = format!("\"{function}\"");
        let (number, line, at) = (1u32..)
            .zip(self.text.lines())
            .filter(|(_, line)| {
                line.trim_start().starts_with("run") || line.trim_start().starts_with("guest")
            })
            .find_map(|(number, line)| Some((number, line, line.find(&quoted)?)))?;
        let column = line[..at].chars().count() + 1;
        Some((number, u32::try_from(column).unwrap_or(1), line))
    }

    /// What it is about, in a sentence.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.front.description
    }

    /// Parts that it is about.
    #[must_use]
    pub fn parts(&self) -> &[String] {
        &self.front.parts
    }

    /// Kernels that it is about.
    #[must_use]
    pub fn kernels(&self) -> &[String] {
        &self.front.kernels
    }

    /// The verdict expected of a policy on a part; the last rule that fits wins.
    #[must_use]
    pub fn expected(&self, policy: &str, part: &str) -> Option<Expected> {
        let fits = |e: &&ExpectFront| {
            (e.policies.iter().any(|p| p == policy || p == "*"))
                && (e.parts.is_empty() || e.parts.iter().any(|p| p == part))
        };
        self.front.expect.iter().rfind(fits).map(|e| e.verdict)
    }

    /// The model of the test on a part.
    #[must_use]
    pub fn spec(&self, sme_coherent: bool) -> ModelSpec {
        let f = &self.front;
        let core_of: Vec<CoreId> = match &f.cores {
            Some(cores) => cores.iter().map(|c| CoreId(*c)).collect(),
            None => (0..f.pcpus).map(CoreId).collect(),
        };
        let cores = core_of.iter().map(|c| c.index() + 1).max().unwrap_or(1);
        let ccx_of_core: Vec<CcxId> = match &f.ccxs {
            Some(ccxs) => ccxs.iter().map(|x| CcxId(*x)).collect(),
            None => vec![CcxId(0); cores],
        };
        let ccxs = ccx_of_core.iter().map(|x| x.0 + 1).max().unwrap_or(1);
        let mut tasks = Vec::new();
        for (i, v) in (0u16..).zip(&f.vcpu) {
            tasks.push(TaskSpec {
                name: format!("vcpu{i}"),
                kind: TaskKind::Vcpu { vcpu: VcpuId(i), guest: Guest::Program(v.guest.clone()) },
                pcpus: v.pcpus.iter().map(|p| PcpuId(*p)).collect(),
            });
        }
        let mut runs: Vec<&str> = Vec::new();
        let mut name = |run| {
            runs.push(run);
            match runs.iter().filter(|r| **r == run).count() {
                1 => run.to_owned(),
                n => format!("{run}#{n}"),
            }
        };
        for t in &f.task {
            tasks.push(TaskSpec {
                name: name(&t.run),
                kind: TaskKind::Host { entry: t.run.clone() },
                pcpus: t.pcpus.iter().map(|p| PcpuId(*p)).collect(),
            });
        }
        for d in &f.device {
            tasks.push(TaskSpec {
                name: name(&d.run),
                kind: TaskKind::Device { entry: d.run.clone() },
                pcpus: Vec::new(),
            });
        }
        // Checked when it was read.
        let guests = f.guests().unwrap_or_default();
        ModelSpec {
            core_of,
            shape: Shape {
                ccx_of_core,
                ccxs,
                tags: u8::try_from(guests.asids).unwrap_or(u8::MAX),
                sme_coherent,
                evict_clean_on_read: true,
                scope: WbinvdScope::default(),
                keep_clean: true,
                psp: Psp::default(),
                keys_change: false,
                drops: false,
                guest_must_evict: false,
            },
            vms: f.vm_count(),
            vcpu_vm: f.vcpu.iter().map(|v| VmId(v.vm)).collect(),
            pages: f.pages.iter().map(|p| (p.name.clone(), VmId(f.page_vm(p)))).collect(),
            mapped: (0u32..).zip(&f.pages).filter(|(_, p)| p.mapped).map(|(i, _)| i).collect(),
            lines_per_page: 1,
            tasks,
            assumptions: f.assumptions(),
            reuse: Reuse {
                host: f.reuse.iter().any(|r| r == "host"),
                dma: f.reuse.iter().any(|r| r == "dma"),
                read: true,
                vm: false,
            },
            guests,
        }
    }

    /// The events that the test asks about: a search goes on until each was reached or the space ends. Every
    /// event that is met on the way counts.
    #[must_use]
    pub fn events(&self) -> Vec<EventKind> {
        self.front.events.iter().filter_map(|e| EventKind::from_name(e)).collect()
    }
}

macro_rules! litmus {
    ($($name:literal),* $(,)?) => {
        &[$(($name, concat!("litmus/", $name, ".litmus"), include_str!(concat!("../litmus/", $name, ".litmus")))),*]
    };
}

/// The built-in litmus tests: name, file, text.
pub const BUILTIN: &[(&str, &str, &str)] = litmus!(
    "reclaim-one-vcpu",
    "reclaim-while-running",
    "two-flushers",
    "two-vcpus-first-entry",
    "dma-on-coherent-part",
    "no-dma-on-coherent-part",
    "snp-free-without-clflush",
    "snp-free-clflush",
    "dma-to-assigned-page",
    "df-flush-deactivate-race",
    "df-flush-deactivate-lock",
    "asid-recycle-wbnoinvd",
    "asid-recycle-partial-ccx",
    "asid-recycle-wbinvd",
    "psp-over-host-lines",
    "psp-after-clflush",
    "invd-loses-data",
    "snp-validate-without-evict",
    "snp-validate-evict",
    "vmsa-free",
    "vmsa-free-without-flush",
    "mirror-pair",
    "mirror-left-out",
    "user-reuse",
    "user-reuse-without-flush",
    "cpu-offline",
    "cpu-offline-flushed-first",
    "context-moves",
    "shared-page",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_tests_parse() {
        for (name, file, text) in BUILTIN {
            let litmus = Litmus::parse(file, text).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(litmus.name, *name);
            assert!(!litmus.parts().is_empty());
        }
    }

    #[test]
    fn errors_show_their_place() {
        let text =
            "+++\ndescription = \"x\"\nparts = []\npcpus = 0\npages = [{ name = \"P\" }]\nexpect = []\n+++\n";
        let e = Litmus::parse("x.litmus", text).unwrap_err();
        assert_eq!((e.line, e.column), (4, 1));
        let text = text.replace("pcpus = 0", "pcpu = 1");
        let e = Litmus::parse("x.litmus", &text).unwrap_err();
        assert_eq!(e.line, 4, "{e}");
        assert!(Litmus::parse("x", "").is_err());
    }
}
