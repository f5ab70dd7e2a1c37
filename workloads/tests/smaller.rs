//! Assumptions that make a protocol's model smaller: `flat-caches`, `no-tlb`, `pages-written`. The cases are small enough to be
//! counted by hand.

use cache_model::event::EventKind;
use sim_explore::Limits;
use svm_model::text::{POLICIES, default_kernel};
use workloads::check::{CheckCase, CheckReport, NamedText};
use workloads::litmus::Litmus;

fn text(t: &svm_model::text::Text) -> NamedText {
    NamedText { name: t.name.to_owned(), file: t.file.to_owned(), text: t.text.to_owned() }
}

fn check(front: &str, body: &str) -> CheckReport {
    let text_of = format!(
        "+++\ndescription = \"x\"\nparts = [\"rome\"]\n{front}\n[[expect]]\nverdict = \"holds\"\npolicies = \
         [\"*\"]\n+++\n{body}"
    );
    let litmus = Litmus::parse("x.litmus", &text_of).unwrap_or_else(|e| panic!("{e}"));
    let policy = text(POLICIES.iter().find(|p| p.name == "no-flush").unwrap());
    let kernel = text(default_kernel());
    let case =
        CheckCase { litmus: &litmus, policy: &policy, kernel: &kernel, part: "rome", sme_coherent: false };
    case.run(Limits::default(), None, None).unwrap_or_else(|e| panic!("{e}"))
}

/// The events reached, each with the length of the shortest way there.
fn reached(report: &CheckReport) -> Vec<(EventKind, usize)> {
    report.events.iter().map(|e| (e.event, e.schedule.len())).collect()
}

/// A task alone, which is no owner of the page.
fn alone(assume: &str, body: &str) -> CheckReport {
    let front = format!(
        "events = [\"latent\", \"host-dirty\"]\nassume = [{assume}]\npcpus = 1\npages = [{{ name = \"P\" }}]\n\
         [[task]]\nrun = \"t\"\npcpus = [0]\n"
    );
    check(&front, &format!("void t(void) {{ {body} }}"))
}

#[test]
fn a_line_leaves_flat_caches_in_one_step_and_is_flushed_in_none() {
    // Before the write; in the core's caches; in the L3; on its way; in memory.
    assert_eq!(alone("", "host_write(P);").states, 5);
    // Before the write; in the core's caches; in memory.
    assert_eq!(alone("\"flat-caches\"", "host_write(P);").states, 3);
    // The write and the flush are one step.
    assert_eq!(alone("\"flat-caches\"", "host_write(P); wbinvd();").states, 2);
    assert_eq!(alone("\"flat-caches\"", "host_write(P); wbnoinvd();").states, 2);
}

#[test]
fn a_page_that_was_written_has_a_truth_from_the_start() {
    // The host's line is written back over what the owner wrote: after the write and the eviction.
    let both = "\"flat-caches\", \"pages-written\"";
    assert_eq!(reached(&alone(both, "host_write(P);")), [(EventKind::HostDirty, 2)]);
    assert_eq!(reached(&alone("\"flat-caches\"", "host_write(P);")), []);
    // Its step is then one of the L3's: to the L3, on its way, in memory.
    assert_eq!(reached(&alone("\"pages-written\"", "host_write(P);")), [(EventKind::HostDirty, 4)]);
}

#[test]
fn without_a_tlb_a_guest_has_no_translation_left_once_its_page_is_unmapped() {
    let told = |assume: &str| {
        let front = format!(
            "events = [\"tracking\"]\nassume = [{assume}]\npcpus = 2\npages = [{{ name = \"P\", mapped = true }}]\n\
             [[vcpu]]\nguest = \"g\"\npcpus = [0]\n[[task]]\nrun = \"t\"\npcpus = [1]\n"
        );
        let body = "bool wrote;\nbool zapped;\n\
            void g(void) { guest_write(P); WRITE_ONCE(wrote, true); while (!READ_ONCE(zapped)) ; \
            guest_write(P); WARN_ON(true); }\n\
            void t(void) { while (!READ_ONCE(wrote)) ; zap_user_pte(P); zap_spte(vm0, P); \
            WRITE_ONCE(zapped, true); }";
        !reached(&check(&front, body)).is_empty()
    };
    assert!(told(""), "the translation outlives the entry");
    assert!(!told("\"no-tlb\""));
}

#[test]
fn what_is_taken_as_given_is_told() {
    let all = "\"flat-caches\", \"no-tlb\", \"pages-written\"";
    let report = alone(all, "host_read(P);");
    assert_eq!(report.assumptions, ["no-tlb", "flat-caches", "pages-written"]);
}
