//! The front matter: its keys, what is refused, and the model it describes.

use std::collections::BTreeSet;

use cache_model::lattice::{Psp, Shape};
use serde::Deserialize;
use sev_arch::{CcxId, CoreId, PcpuId, VcpuId, VmId, WbinvdScope};
use svm_model::firmware::Initial;
use svm_model::spec::{Assumptions, Guest, MemoryModel, ModelSpec, Reuse, TaskKind, TaskSpec, VCPU_THREAD};

use toml::Spanned;

use super::expect::ExpectFront;
use super::variant::{INITIAL, Values, VariantFront};
use super::vm::{self, VmFront};
use super::{Litmus, LitmusError, refuse};

/// Names, each with its place.
pub(super) type Names = Vec<Spanned<String>>;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Front {
    pub(super) description: String,
    /// Parts that the test is about.
    pub(super) parts: Names,
    #[serde(default = "default_kernels")]
    pub(super) kernels: Names,
    /// Policies that it is about; every built-in one that a kernel could have by default.
    pub(super) policies: Option<Names>,
    pub(super) pcpus: u16,
    /// Core of each pCPU; each its own by default.
    pub(super) cores: Option<Vec<u16>>,
    /// CCX of each core; one for all by default.
    pub(super) ccxs: Option<Vec<u16>>,
    /// How many plain SEV VMs, where `[[vm]]` lists none; 1 by default.
    pub(super) vms: Option<toml::Spanned<u16>>,
    #[serde(default)]
    pub(super) vm: Vec<VmFront>,
    /// ASIDs that there are, the host's not counted; as many as the VMs have by default.
    pub(super) asids: Option<toml::Spanned<u16>>,
    pub(super) pages: Vec<PageFront>,
    #[serde(default)]
    pub(super) assume: Vec<String>,
    #[serde(default = "default_reuse")]
    pub(super) reuse: Vec<String>,
    /// Events asked about: a search may end once each was reached. All that can follow a latent line by default.
    #[serde(default = "default_events")]
    pub(super) events: Names,
    /// Values of the texts' `#define`s, such as a kernel's switches.
    #[serde(default)]
    pub(super) define: Values,
    /// Initial values of the texts' variables.
    #[serde(default)]
    pub(super) set: Values,
    #[serde(default)]
    pub(super) variant: Vec<VariantFront>,
    /// pCPUs whose bits share a word of a cpumask, 1 to 64.
    #[serde(default = "default_word")]
    pub(super) mask_word_bits: u8,
    /// Caches that WBINVD and WBNOINVD act on: `core`, `core+ccx-l3`, `ccx` or `package`.
    pub(super) wbinvd_scope: Option<Spanned<String>>,
    /// How the SEV firmware is at first: `fresh` or `running`.
    pub(super) firmware: Option<String>,
    /// `sc` or `tso`.
    #[serde(default = "default_memory_model")]
    pub(super) memory_model: String,
    #[serde(default)]
    pub(super) vcpu: Vec<VcpuFront>,
    #[serde(default)]
    pub(super) task: Vec<TaskFront>,
    #[serde(default)]
    pub(super) device: Vec<DeviceFront>,
    pub(super) expect: Vec<ExpectFront>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageFront {
    pub(super) name: Spanned<String>,
    /// The first VM by default, or that of the vCPU whose VMSA it is.
    pub(super) vm: Option<Spanned<u16>>,
    /// Whether the guest has touched it before: it is mapped from the start.
    #[serde(default)]
    pub(super) mapped: bool,
    /// Whether the guest accesses it with C=0, as the host does.
    #[serde(default)]
    pub(super) shared: bool,
    /// The vCPU whose VMSA it is.
    pub(super) vmsa_of: Option<toml::Spanned<u16>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VcpuFront {
    /// The first VM by default.
    pub(super) vm: Option<Spanned<u16>>,
    pub(super) guest: String,
    /// What its thread runs in the place of `vcpu_thread`: a function of the body that gets the vCPU.
    pub(super) thread: Option<String>,
    pub(super) pcpus: Spanned<Vec<u16>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskFront {
    pub(super) run: String,
    pub(super) pcpus: Spanned<Vec<u16>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeviceFront {
    pub(super) run: String,
}

impl VcpuFront {
    /// The VM that it is of.
    pub(super) fn vm(&self) -> u16 {
        self.vm.as_ref().map_or(0, |vm| *vm.get_ref())
    }
}

impl PageFront {
    pub(super) fn name(&self) -> &str {
        self.name.get_ref()
    }
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

fn default_memory_model() -> String {
    MemoryModel::Sc.name().to_owned()
}

fn default_word() -> u8 {
    64
}

/// Names that stand nowhere.
fn implied(names: &[&str]) -> Names {
    names.iter().map(|name| Spanned::new(0..0, (*name).to_owned())).collect()
}

fn default_kernels() -> Names {
    implied(&["linux-6.17"])
}

fn default_events() -> Names {
    implied(&["latent", "clobber", "garbage"])
}

fn default_reuse() -> Vec<String> {
    vec!["host".to_owned(), "dma".to_owned()]
}

/// Whether a text is a name in C.
pub(super) fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl Litmus {
    pub(super) fn validate(
        &self,
        text: &str,
        fail: &dyn Fn(usize, String) -> LitmusError,
    ) -> Result<(), LitmusError> {
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
        let scopes = f.variant.iter().map(|v| &v.wbinvd_scope).chain([&f.wbinvd_scope]).flatten();
        let known = |s: &&Spanned<String>| WbinvdScope::from_name(s.get_ref()).is_some();
        if let Some(scope) = scopes.into_iter().find(|s| !known(s)) {
            let message =
                format!("unknown scope `{}`: known are core, core+ccx-l3, ccx, package", scope.get_ref());
            return Err(fail(scope.span().start + 4, message));
        }
        if let Some(name) = f.firmware.as_deref().filter(|name| initial_firmware(name).is_none()) {
            return Err(fail(at("firmware"), format!("firmware = \"{name}\": expected fresh or running")));
        }
        if MemoryModel::from_name(&f.memory_model).is_none() {
            let message = format!("unknown memory model '{}': known are sc, tso", f.memory_model);
            return Err(fail(at("memory_model"), message));
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
            let name = page.name();
            let place = page.name.span().start + super::OPENING;
            if !is_name(name) {
                return Err(fail(place, format!("a page called `{name}`: expected a name as in C")));
            }
            if svm_lang::is_taken(name) {
                let message =
                    format!("a page called `{name}`: the texts' language has a meaning for this word");
                return Err(fail(place, message));
            }
            if f.pages[..i].iter().any(|p| p.name() == name) {
                return Err(fail(place, format!("two pages are called `{name}`")));
            }
        }
        for spanned in f.vcpu.iter().map(|v| &v.pcpus).chain(f.task.iter().map(|t| &t.pcpus)) {
            let (list, place) = (spanned.get_ref(), spanned.span().start + super::OPENING);
            if list.is_empty() {
                return Err(fail(place, "an empty list of pCPUs: name at least one".to_owned()));
            }
            if let Some(p) = list.iter().find(|p| **p >= f.pcpus) {
                let last = f.pcpus - 1;
                return Err(fail(place, format!("pCPU {p} of 0 to {last}")));
            }
            if let Some((_, p)) = list.iter().enumerate().find(|(i, p)| list[..*i].contains(p)) {
                return Err(fail(place, format!("pCPU {p} is named twice")));
            }
        }
        if f.pages.is_empty() {
            return Err(fail(at("pages"), "no pages: a litmus test needs at least one".to_owned()));
        }
        let vms = f.vm_count();
        for spanned in f.pages.iter().map(|p| &p.vm).chain(f.vcpu.iter().map(|v| &v.vm)).flatten() {
            let (vm, place) = (spanned.get_ref(), spanned.span().start + super::OPENING);
            if *vm >= vms {
                return Err(fail(place, format!("vm {vm} of 0 to {}", vms.saturating_sub(1))));
            }
        }
        let mut assumed = BTreeSet::new();
        for a in &f.assume {
            if !assumed.insert(a) {
                return Err(fail(at("assume"), format!("'{a}' is named twice")));
            }
            if !Assumptions::NAMES.contains(&a.as_str()) {
                let known = Assumptions::NAMES.join(", ");
                return Err(fail(at("assume"), format!("unknown assumption '{a}': known are {known}")));
            }
        }
        if let Some((one, other)) = Assumptions::contradiction(&f.assume) {
            return Err(fail(at("assume"), format!("`{one}` and `{other}` cannot both be assumed")));
        }
        for r in &f.reuse {
            if r != "host" && r != "dma" {
                return Err(fail(at("reuse"), format!("unknown reuse '{r}': known are host, dma")));
            }
        }
        if f.vcpu.is_empty() && f.task.is_empty() && f.device.is_empty() {
            return Err(fail(0, "no actors: name a [[vcpu]], a [[task]] or a [[device]]".to_owned()));
        }
        refuse::names(f, self.file.as_ref(), &self.body, &|at, message| fail(at + super::OPENING, message))
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
                kind: TaskKind::Vcpu {
                    vcpu: VcpuId(i),
                    thread: v.thread.clone().unwrap_or_else(|| VCPU_THREAD.to_owned()),
                    guest: Guest::Program(v.guest.clone()),
                },
                pcpus: v.pcpus.get_ref().iter().map(|p| PcpuId(*p)).collect(),
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
                pcpus: t.pcpus.get_ref().iter().map(|p| PcpuId(*p)).collect(),
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
                scope: f
                    .wbinvd_scope
                    .as_ref()
                    .and_then(|s| WbinvdScope::from_name(s.get_ref()))
                    .unwrap_or_default(),
                keep_clean: true,
                psp: Psp::default(),
                keys_change: false,
                guest_must_evict: false,
                dma_snoops: true,
                socket_of_ccx: Vec::new(),
                flushes_fly: false,
                drops: false,
                flat: false,
            },
            vms: f.vm_count(),
            vcpu_vm: f.vcpu.iter().map(|v| VmId(v.vm())).collect(),
            pages: f.pages.iter().map(|p| (p.name().to_owned(), VmId(f.page_vm(p)))).collect(),
            mapped: (0u32..).zip(&f.pages).filter(|(_, p)| p.mapped).map(|(i, _)| i).collect(),
            lines_per_page: 1,
            tasks,
            assumptions: Assumptions { store_buffer: self.memory_model().store_buffer(), ..f.assumptions() },
            initial: (!self.initial.is_empty()).then(|| INITIAL.to_owned()),
            reuse: Reuse {
                host: f.reuse.iter().any(|r| r == "host"),
                dma: f.reuse.iter().any(|r| r == "dma"),
                read: true,
                vm: false,
            },
            defines: self.switches.clone(),
            guests,
        }
    }
}
