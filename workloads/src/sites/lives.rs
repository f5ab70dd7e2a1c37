//! A VM's whole life, for each site that writes caches back, class of pages and kind of guest: the guest writes a page of the
//! class, and the site runs, with its flush and without.

use sim_explore::Limits;
use svm_model::MemoryKind;

use crate::check::{CheckCase, CheckError, NamedText};
use crate::litmus::Litmus;
use crate::schedule::program_digest;

/// Places that write caches back, and their switches.
pub const SITES: [(&str, &str); 5] = [
    ("notifier release", "FLUSH_ON_RELEASE"),
    ("unregister region", "FLUSH_ON_UNREGISTER"),
    ("VM destroy", "FLUSH_ON_DESTROY"),
    ("guest_memfd free", "FLUSH_ON_GMEM_FREE"),
    ("VMSA free", "FLUSH_ON_VMSA_FREE"),
];

/// Classes of pages.
pub const PAGES: [&str; 5] = ["pinned", "unpinned", "guest_memfd", "VMSA", "firmware"];

/// Kinds of guests, and whether there are any where the part has no RMP.
pub const GUESTS: [(&str, bool); 3] = [("sev", true), ("sev-es", true), ("sev-snp", false)];

/// What a site without its flush comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ComesTo {
    /// Site, pages and guest do not go together, and why.
    NoSense(&'static str),
    /// The kernel's site has no flush to drop.
    None,
    /// All still holds: another site flushes the page.
    Redundant,
    /// A run leads to this event.
    Needed(&'static str),
    /// With its flush, too.
    Anyway(&'static str),
}

/// Why a site, a class of pages and a kind of guest do not go together, if they do not.
#[must_use]
pub fn no_sense(site: &str, pages: &str, guest: &str) -> Option<&'static str> {
    match (site, pages, guest) {
        (_, "firmware", _) => Some(
            "no guest writes a page that is the firmware's, and the PSP's accesses leave no line in a cache",
        ),
        (_, "VMSA", "sev") => Some("a plain SEV guest has no VMSA page"),
        (_, "guest_memfd", "sev" | "sev-es") => {
            Some("guest_memfd has private memory of SEV-SNP guests alone")
        }
        (_, "pinned" | "unpinned", "sev-snp") => Some(
            "private memory of an SEV-SNP guest is in guest_memfd alone, and the RMP keeps C=1 stores to it",
        ),
        ("unregister region", "unpinned" | "guest_memfd" | "VMSA", _) => {
            Some("the site is about an encrypted region, and its pages are pinned user memory")
        }
        ("guest_memfd free", "pinned" | "unpinned" | "VMSA", _) => {
            Some("the site flushes the page of guest_memfd that it frees, and no other")
        }
        ("VMSA free", "pinned" | "unpinned" | "guest_memfd", _) => {
            Some("the site flushes the VMSA page that it frees, and no other")
        }
        _ => None,
    }
}

/// A VM's life in which the site runs and a page of the class that the guest has written changes hands; several where the
/// order is user space's. A VM's process goes first, then its file descriptors.
fn lives(site: &str, pages: &str) -> &'static [&'static str] {
    match (site, pages) {
        ("unregister region", _) => &["sev_mem_enc_register_region(vm0, P);
	vcpu_thread(vcpu);
	sev_mem_enc_unregister_region(vm0, P);
	user_reuse_page(P);"],
        (_, "pinned") => &["sev_mem_enc_register_region(vm0, P);
	vcpu_thread(vcpu);
	kvm_mmu_notifier_release(vm0);
	exit_mmap_page(P);
	kvm_destroy_vm(vm0);"],
        (_, "unpinned") => &["vcpu_thread(vcpu);
	kvm_mmu_notifier_release(vm0);
	exit_mmap_page(P);
	kvm_destroy_vm(vm0);"],
        (_, "guest_memfd") => &[
            "vcpu_thread(vcpu);
	kvm_gmem_punch_hole(vm0, P);
	kvm_destroy_vm(vm0);",
            "vcpu_thread(vcpu);
	kvm_destroy_vm(vm0);
	zap_user_pte(P);
	sev_gmem_invalidate(P);
	free_page(P);",
        ],
        _ => &["vcpu_thread(vcpu);
	kvm_destroy_vm(vm0);"],
    }
}

/// A litmus test of a life.
fn life_test(guest: &str, pages: &str, life: &str) -> Litmus {
    let page = if pages == "VMSA" { "" } else { "{ name = \"P\", mapped = true }, " };
    let vmsa = if guest == "sev" { "" } else { "{ name = \"V\", vmsa_of = 0 }" };
    let store = if pages == "VMSA" { "" } else { "guest_write(P);" };
    let text = format!(
        r#"+++
description = "A VM's life"
parts = ["genoa"]
pcpus = 2
pages = [{page}{vmsa}]
assume = ["no-alloc-failure"]
expect = [{{ verdict = "holds", policies = ["*"] }}]

[[vm]]
kind = "{guest}"

[[vcpu]]
guest = "guest"
thread = "vmm"
pcpus = [0, 1]
+++
void guest(void)
{{
	{store}
}}

void vmm(struct kvm_vcpu *vcpu)
{{
	{life}
}}
"#
    );
    Litmus::parse("life.litmus", &text).expect("the text is a litmus test")
}

/// What a kernel's site comes to without its flush, under these policies and on these parts, each with whether it is SME_COHERENT.
///
/// # Errors
///
/// Errors in the texts.
pub fn without_flush(
    (site, switch): (&str, &str),
    pages: &str,
    (guest, anywhere): (&str, bool),
    kernel: &NamedText,
    (policies, parts): (&[NamedText], &[(&str, bool)]),
) -> Result<ComesTo, CheckError> {
    if let Some(why) = no_sense(site, pages, guest) {
        return Ok(ComesTo::NoSense(why));
    }
    let (mut there, mut missed) = (false, None);
    for life in lives(site, pages) {
        let kept = life_test(guest, pages, life);
        let dropped = kept.clone().with_define(switch, 0);
        for policy in policies {
            for (part, sme_coherent) in parts.iter().copied().filter(|part| anywhere || part.1) {
                let case = |litmus| CheckCase { litmus, policy, kernel, part, sme_coherent };
                let machine = |litmus| case(litmus).machine(MemoryKind::Shadow);
                let as_it_is = case(&kept).run(Limits::default(), None, None)?;
                if let Some(event) = as_it_is.events.first() {
                    return Ok(ComesTo::Anyway(event.event.name()));
                }
                if program_digest(&machine(&kept)?) == program_digest(&machine(&dropped)?) {
                    continue;
                }
                there = true;
                let report = case(&dropped).run(Limits::default(), None, None)?;
                missed = missed.or(report.events.first().map(|e| e.event.name()));
            }
        }
    }
    Ok(match (there, missed) {
        (false, _) => ComesTo::None,
        (true, None) => ComesTo::Redundant,
        (true, Some(event)) => ComesTo::Needed(event),
    })
}
