//! The language of kernel paths, policies and litmus tests: a strict C subset with the kernel's own names,
//! compiled to programs of [`svm_policy::Op`].
//!
//! [`parse()`] gives a syntax tree that prints itself; [`compile()`] gives the operations of every entry, each
//! with its place in the text, and what the machine must know of variables and registers. Errors ([`Diag`])
//! point at the source. `docs/LANGUAGE.md` describes the language; its table of built-in calls is
//! generated from the one that the compiler works by ([`reference()`]).
//!
//! *Promise*: no input makes these functions panic, and equal inputs give equal outputs.
#![forbid(unsafe_code)]

pub mod ast;
mod builtin;
mod code;
mod compile;
mod constant;
mod decl;
mod diag;
mod include;
mod ir;
mod kernel;
mod lex;
mod live;
mod lower;
mod machine;
mod opt;
mod parse;
mod print;
mod range;
mod reference;
mod spin;

pub use ast::{Ast, Type};
pub use code::{Code, Entry, MASK_FREED, MASK_LIVE, MASK_NULL, Param, SrcPos, Var, VarKind, Warning};
pub use diag::Diag;
pub use include::{Find, Included, no_includes};
pub use kernel::kernel_names;
pub use reference::reference;

/// Whether a word means something in every text: a keyword, a type, a built-in call or mask.
#[must_use]
pub fn is_taken(word: &str) -> bool {
    parse::is_word(word)
        || builtin::find(word).is_some()
        || [decl::POSSIBLE_MASK, decl::ONLINE_MASK, "nr_cpu_ids", "nr_asids", "nr_pages"].contains(&word)
}

/// The reason of a nested page fault of page 0; that of page n is n more. Smaller reasons are no faults.
pub const EXIT_NPF: i64 = 2;

/// The largest `SEV_RET_*` that a firmware command gives (include/uapi/linux/psp-sev.h).
pub const SEV_RET_LAST: i64 = 0x16;

/// What a text is for, which decides what it may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// Kernel paths: its prototypes without a definition are the hooks.
    Kernel,
    /// A policy: defines hooks, and `static` functions of its own.
    Policy,
    /// A litmus test's actors; only here guests can be programmed.
    Litmus,
}

impl Role {
    /// How messages name a text of the role.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Kernel => "a kernel text",
            Role::Policy => "a policy",
            Role::Litmus => "a litmus test",
        }
    }
}

/// A text to compile.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its name in errors and positions.
    pub file: &'a str,
    /// The text.
    pub text: &'a str,
    /// What it is for.
    pub role: Role,
}

/// The machine that texts are compiled for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// pCPUs.
    pub pcpus: u16,
    /// VMs.
    pub vms: u16,
    /// ASIDs, the host's 0 included.
    pub asids: u16,
    /// What is constant of the VMs.
    pub tables: VmTables,
    /// What is constant of the part, and whether the firmware is modelled.
    pub features: Features,
    /// The VM of each vCPU.
    pub vcpu_vm: Vec<u16>,
    /// Pages.
    pub pages: u32,
    /// Bits of a mask that share a word, 1 to 64.
    pub word_bits: u8,
    /// Whether a pCPU's stores can be unseen by others for a while (TSO), so that fences matter.
    pub store_buffers: bool,
    /// The entries that are guests' programs and no other's: a guest accesses its pages, and others do not as a guest.
    /// `None` where that is not asked.
    pub guests: Option<Vec<String>>,
    /// Names that the texts can use: a page `P`, `vm0`, `vcpu1`.
    pub constants: Vec<(String, Type, i64)>,
    /// Values that stand in the place of what a text's `#define` of that name says: a kernel's switches. A name
    /// that no text defines is an error.
    pub defines: Vec<(String, i64)>,
}

/// What is constant of the part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// CPUID `8000_001F` EAX\[10\].
    pub sme_coherent: bool,
    /// CPUID `8000_0008` EBX\[9\]; without it WBNOINVD is executed as WBINVD.
    pub wbnoinvd: bool,
    /// Whether some actor gives commands to the firmware, so that VMRUN can fail.
    pub firmware: bool,
    /// Whether a flush is one own step, of caches that evict straight to memory.
    pub flat_caches: bool,
}

impl Default for Features {
    fn default() -> Self {
        Features { sme_coherent: false, wbnoinvd: true, firmware: false, flat_caches: false }
    }
}

/// What is constant of VMs and vCPUs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VmTables {
    /// What `kvm_vm_type()` gives of each VM, 0 to 4; a VM that is left out is `KVM_X86_SEV_VM`.
    pub types: Vec<u8>,
    /// The ASID of each VM at first, 0 for none; a VM n that is left out has n + 1.
    pub asids: Vec<u16>,
    /// Whether ASIDs are read from slots, because some actor sets one.
    pub asids_change: bool,
    /// The VMSA page of each vCPU; one that is left out has none.
    pub vmsa: Vec<Option<u16>>,
}

/// Parses one text.
///
/// # Errors
///
/// Whatever is not of the language, each with its place.
pub fn parse(source: &Source<'_>) -> Result<Ast, Vec<Diag>> {
    let (ast, faults) = parse::parse_text(source.text, 0);
    if faults.is_empty() { Ok(ast) } else { Err(diag::resolve(faults, &[(source.file, source.text)])) }
}

/// Compiles texts together; `entries` are the functions that contexts start with. `find` gives the texts that
/// an `#include` names: this crate reads no files.
///
/// # Errors
///
/// Whatever is not of the language, does not fit together, or is too large, each with its place.
pub fn compile(
    sources: &[Source<'_>],
    find: &Find<'_>,
    entries: &[&str],
    config: &Config,
) -> Result<Code, Vec<Diag>> {
    compile::compile_with(sources, find, entries, config, compile::Effort::FULL)
}

#[cfg(test)]
mod tests;
