//! What a model is made of: the machine, the VMs, the tasks, and what is taken as given.

use cache_model::lattice::{Psp, Shape};
use sev_arch::{CoreId, PcpuId, VcpuId, VmId};

use crate::firmware::Initial;

pub use vm::{Guests, VmKind, VmSpec};

mod vm;

/// Guarantees taken as given and knobs of the model, in one place, so that they can be taken away one by one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Assumptions {
    /// No device ever touches a freed page (`no-dma` in a litmus file).
    pub no_dma: bool,
    /// Allocations always find memory (`no-alloc-failure` in a litmus file).
    pub no_alloc_failure: bool,
    /// The part has no WBNOINVD, and executes it as WBINVD (`no-wbnoinvd`).
    pub no_wbnoinvd: bool,
    /// What the PSP's accesses evict (`no-psp-evicts-own-tag`, `psp-evicts-host-lines`).
    pub psp: Psp,
    /// The firmware's DF_FLUSH takes a CCX for flushed once its first core is (`fw-partial-ccx`).
    pub fw_partial_ccx: bool,
    /// Guests' accesses do not evict the host's lines, so that guests must (`guest-must-evict`).
    pub guest_must_evict: bool,
    /// Guests look translations up at each access, so that unmapping a page is seen at once (`no-tlb`).
    pub no_tlb: bool,
    /// Each core's caches are one that evicts straight to memory, and a flush of it happens in the step that
    /// comes to it (`flat-caches`).
    pub flat_caches: bool,
    /// Each page's owner has written it before: there is a truth from the start, and memory has it (`pages-written`).
    pub pages_written: bool,
    /// SEV-SNP guests on a part that has no RMP: a thought experiment (`snp-on-any-part`).
    pub snp_on_any_part: bool,
    /// How the firmware is at first.
    pub firmware: Initial,
    /// Bits of a cpumask that share a word, 1 to 64; 1 puts any two pCPUs into two words.
    pub word_bits: u8,
    /// Entries of each pCPU's store buffer (TSO); 0 is sequential consistency. A store that finds the buffer full
    /// waits, so that orders of steps with more stores unseen at once are not tried.
    pub store_buffer: u8,
}

impl Default for Assumptions {
    fn default() -> Self {
        Assumptions {
            no_dma: false,
            no_alloc_failure: false,
            no_wbnoinvd: false,
            psp: Psp::default(),
            fw_partial_ccx: false,
            guest_must_evict: false,
            no_tlb: false,
            flat_caches: false,
            pages_written: false,
            snp_on_any_part: false,
            firmware: Initial::default(),
            word_bits: 64,
            store_buffer: 0,
        }
    }
}

/// Entries of each pCPU's store buffer that are tried in turn, until no store finds the buffer full: then no order of steps
/// is left out. (Cores have some 48 to 64: Software Optimization Guides; texts fence sooner.)
pub const STORE_BUFFERS: [u8; 4] = [2, 4, 8, 16];

/// Entries of a store buffer at first.
pub const STORE_BUFFER: u8 = STORE_BUFFERS[0];

/// The order in which a pCPU's accesses are seen by others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum MemoryModel {
    /// Sequential consistency: as the texts have it.
    #[default]
    Sc,
    /// x86-TSO: stores wait in a buffer, at first of [`STORE_BUFFER`] entries.
    Tso,
}

impl MemoryModel {
    /// Both.
    pub const ALL: [MemoryModel; 2] = [MemoryModel::Sc, MemoryModel::Tso];

    /// As on the command line, in litmus files, schedules and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            MemoryModel::Sc => "sc",
            MemoryModel::Tso => "tso",
        }
    }

    /// The model of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<MemoryModel> {
        MemoryModel::ALL.into_iter().find(|m| m.name() == name)
    }

    /// Entries of each store buffer.
    #[must_use]
    pub const fn store_buffer(self) -> u8 {
        match self {
            MemoryModel::Sc => 0,
            MemoryModel::Tso => STORE_BUFFER,
        }
    }
}

impl Assumptions {
    /// The order in which a pCPU's accesses are seen by others.
    #[must_use]
    pub const fn memory_model(&self) -> MemoryModel {
        if self.store_buffer == 0 { MemoryModel::Sc } else { MemoryModel::Tso }
    }

    /// What a litmus file can take as given.
    pub const NAMES: [&'static str; 12] = [
        "no-dma",
        "no-alloc-failure",
        "no-wbnoinvd",
        "psp-evicts-own-tag",
        "no-psp-evicts-own-tag",
        "psp-evicts-host-lines",
        "fw-partial-ccx",
        "guest-must-evict",
        "no-tlb",
        "flat-caches",
        "pages-written",
        "snp-on-any-part",
    ];

    /// Takes what has one of these names as given; whether it is one of them.
    pub fn take(&mut self, name: &str) -> bool {
        match name {
            "no-dma" => self.no_dma = true,
            "no-alloc-failure" => self.no_alloc_failure = true,
            "no-wbnoinvd" => self.no_wbnoinvd = true,
            "psp-evicts-own-tag" => self.psp.evicts_own_tag = true,
            "no-psp-evicts-own-tag" => self.psp.evicts_own_tag = false,
            "psp-evicts-host-lines" => self.psp.evicts_host_lines = true,
            "fw-partial-ccx" => self.fw_partial_ccx = true,
            "guest-must-evict" => self.guest_must_evict = true,
            "no-tlb" => self.no_tlb = true,
            "flat-caches" => self.flat_caches = true,
            "pages-written" => self.pages_written = true,
            "snp-on-any-part" => self.snp_on_any_part = true,
            _ => return false,
        }
        true
    }

    /// Two of these names that say the opposite of each other.
    #[must_use]
    pub fn contradiction(names: &[String]) -> Option<(&str, &str)> {
        let positive =
            |name: &&String| names.iter().any(|other| other.strip_prefix("no-") == Some(name.as_str()));
        let one = names.iter().find(positive)?;
        let other = names.iter().find(|other| other.strip_prefix("no-") == Some(one.as_str()))?;
        Some((one, other))
    }

    /// The names of what is taken as given, as the verdict prints them.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        let given = [
            self.no_dma,
            self.no_alloc_failure,
            self.no_wbnoinvd,
            false, // the default, and no assumption of the test's
            !self.psp.evicts_own_tag,
            self.psp.evicts_host_lines,
            self.fw_partial_ccx,
            self.guest_must_evict,
            self.no_tlb,
            self.flat_caches,
            self.pages_written,
            self.snp_on_any_part,
        ];
        Assumptions::NAMES.into_iter().zip(given).filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }
}

/// What a vCPU's guest does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Guest {
    /// The function of this name in the litmus body.
    Program(String),
    /// Any access to any line of its VM's pages at any time; what a timed run's guest is to the explorer.
    Any,
}

/// What a task runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TaskKind {
    /// A vCPU's thread.
    Vcpu {
        /// Which vCPU.
        vcpu: VcpuId,
        /// What the thread runs: a function of the vCPU. [`VCPU_THREAD`] of the kernel text, or one that calls it.
        thread: String,
        /// Its guest.
        guest: Guest,
    },
    /// A host task: the function of this name.
    Host {
        /// The function.
        entry: String,
    },
    /// A host task that runs a function of (kvm, page) again and again, on any page that the VM's owner still
    /// maps: the source of reclaim in timed runs.
    Reclaimer {
        /// The function.
        entry: String,
        /// Whose pages.
        vm: VmId,
    },
    /// A device: the function of this name; it needs no pCPU.
    Device {
        /// The function.
        entry: String,
    },
}

/// The kernel text's own function for a vCPU's thread.
pub const VCPU_THREAD: &str = "vcpu_thread";

/// A thread of control that the scheduler places, or a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaskSpec {
    /// Name in stories and schedules.
    pub name: String,
    /// What it runs.
    pub kind: TaskKind,
    /// Where it may run; empty for a device.
    pub pcpus: Vec<PcpuId>,
}

/// Who may own a freed page next, beside what the tasks do themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reuse {
    /// The host's CPUs write it.
    pub host: bool,
    /// A device writes it by DMA (not under `no-dma`).
    pub dma: bool,
    /// The new owner then reads it back.
    pub read: bool,
    /// A VM gets it back, to map it again (timed runs, whose guests go on).
    pub vm: bool,
}

/// A closed description of a model; the texts come beside it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelSpec {
    /// Core of each pCPU.
    pub core_of: Vec<CoreId>,
    /// The caches and what the hardware promises.
    pub shape: Shape,
    /// VMs.
    pub vms: u16,
    /// VM of each vCPU.
    pub vcpu_vm: Vec<VmId>,
    /// Name and first owner of each page.
    pub pages: Vec<(String, VmId)>,
    /// Pages that are mapped in their VM's nested page table from the start.
    pub mapped: Vec<u32>,
    /// Lines of a page that are told apart: 1 for the explorer, up to 64.
    pub lines_per_page: u32,
    /// Tasks and devices.
    pub tasks: Vec<TaskSpec>,
    /// What is taken as given.
    pub assumptions: Assumptions,
    /// What becomes of freed pages.
    pub reuse: Reuse,
    /// Values in the place of what the texts' `#define`s say ([`svm_lang::Config::defines`]).
    pub defines: Vec<(String, i64)>,
    /// What is said of the VMs and their pages beyond their number.
    pub guests: Guests,
    /// A function of the texts that nobody runs: the values that it assigns are the variables' initial ones.
    pub initial: Option<String>,
}

impl ModelSpec {
    /// pCPUs.
    #[must_use]
    pub fn pcpus(&self) -> u16 {
        u16::try_from(self.core_of.len()).unwrap_or(u16::MAX)
    }
}
