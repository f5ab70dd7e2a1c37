//! The RMP, the PSP, VM_PAGE_FLUSH, INVD and the firmware as texts meet them. The cases are small enough to be counted
//! by hand.

use cache_model::event::EventKind;
use sim_explore::Limits;
use svm_model::text::{POLICIES, default_kernel};
use workloads::check::{CheckCase, CheckReport, NamedText};
use workloads::litmus::Litmus;

fn text(t: &svm_model::text::Text) -> NamedText {
    NamedText { name: t.name.to_owned(), file: t.file.to_owned(), text: t.text.to_owned() }
}

fn check_on(front: &str, body: &str, sme_coherent: bool) -> CheckReport {
    // An RMP beside caches that are not coherent, so that its own part in what happens is seen.
    let assume = if front.contains("sev-snp") { "assume = [\"snp-on-any-part\"]\n" } else { "" };
    let text_of = format!(
        "+++\ndescription = \"x\"\nparts = [\"rome\"]\n{assume}{front}\n[[expect]]\nverdict = \"holds\"\npolicies = \
         [\"*\"]\n+++\n{body}"
    );
    let litmus = Litmus::parse("x.litmus", &text_of).unwrap_or_else(|e| panic!("{e}"));
    let policy = text(POLICIES.iter().find(|p| p.name == "no-flush").unwrap());
    let kernel = text(default_kernel());
    let case = CheckCase { litmus: &litmus, policy: &policy, kernel: &kernel, part: "rome", sme_coherent };
    case.run(Limits::default(), None, None).unwrap_or_else(|e| panic!("{e}"))
}

fn check(front: &str, body: &str) -> CheckReport {
    check_on(front, body, false)
}

/// The events reached, each with the length of the shortest way there.
fn reached(report: &CheckReport) -> Vec<(EventKind, usize)> {
    report.events.iter().map(|e| (e.event, e.schedule.len())).collect()
}

/// Whether a program that reports `tracking` where its condition does not hold runs through.
fn holds(front: &str, body: &str) -> bool {
    let front = format!("events = [\"tracking\"]\n{front}");
    let body = format!(
        "static void check(bool ok) {{ if (!ok) zap_user_pte(NULL); }}\n{}",
        body.replace("CHECK(", "check(")
    );
    let report = check(&front, &body);
    !report.events.iter().any(|e| e.event == EventKind::Tracking)
}

const TASK: &str = "pcpus = 1\n[[task]]\nrun = \"t\"\npcpus = [0]\n";
const SNP: &str = "[[vm]]\nkind = \"sev-snp\"\n";

fn alone(pages: &str, rest: &str) -> String {
    format!("pages = [{pages}]\n{TASK}{rest}")
}

/// One vCPU, and one task on a pCPU of its own.
fn pair(pages: &str, rest: &str) -> String {
    format!(
        "pcpus = 2\npages = [{pages}]\n{}[[vcpu]]\nguest = \"g\"\npcpus = [0]\n[[task]]\nrun = \"t\"\npcpus = [1]\n{}",
        rest.split("|").next().unwrap_or(""),
        rest.split("|").nth(1).unwrap_or("")
    )
}

/// Steps of a vCPU's thread from its start to VMRUN, and from a #VMEXIT to its end.
const ENTRY: usize = 7;
const EXIT: usize = 3;

#[test]
fn the_rmp_stops_the_hosts_writes_and_devices_but_not_reads_and_write_backs() {
    let p = "{ name = \"P\" }";
    let events = "events = [\"rmp-fault\"]\n";
    let told = |body: &str, rest: &str| {
        reached(&check(&format!("{events}{}", alone(p, rest)), &format!("void t(void) {{ {body} }}")))
    };
    for body in ["host_write(P);", "dma_write(P);", "dma_read(P);"] {
        assert_eq!(told(body, SNP), [(EventKind::RmpFault, 1)], "{body}");
        assert_eq!(told(body, "[[vm]]\nkind = \"sev\"\n"), [], "{body}: no RMP without an SNP VM");
        assert_eq!(told(&format!("rmp_make_shared(P); {body}"), SNP), [], "{body}, made shared");
        let back = format!("rmp_make_shared(P); rmp_make_private(P, vm0); {body}");
        assert_eq!(told(&back, SNP), [(EventKind::RmpFault, 3)]);
    }
    assert_eq!(told("host_read(P); clflush_page(P);", SNP), []);
    // A shared page is the hypervisor's from the start.
    let front = format!("{events}{}", alone("{ name = \"P\", shared = true }", SNP));
    assert_eq!(reached(&check(&front, "void t(void) { host_write(P); dma_write(P); }")), []);
    // Freed while it is assigned, its next owner is stopped.
    let freed = told("free_page(P);", SNP);
    assert_eq!(freed, [(EventKind::RmpFault, 2)]);
}

#[test]
fn the_rmp_calls_give_what_the_kernels_give() {
    let two = format!("{SNP}[[vm]]\nkind = \"sev-snp\"\nasid = 0\n");
    let front = alone("{ name = \"P\" }, { name = \"S\", shared = true }", &two);
    assert!(holds(&front, "void t(void) { CHECK(rmp_assigned(P)); CHECK(!rmp_assigned(S)); }"));
    assert!(!holds(&front, "void t(void) { CHECK(rmp_assigned(S)); }"), "the check itself");
    assert!(holds(&front, "void t(void) { CHECK(rmp_make_shared(P) == 0); CHECK(!rmp_assigned(P)); }"));
    assert!(holds(&front, "void t(void) { CHECK(rmp_make_private(S, vm0) == 0); CHECK(rmp_assigned(S)); }"));
    assert!(holds(&front, "void t(void) { CHECK(rmp_make_private(S, vm1) == -EINVAL); }"), "no ASID");
    let plain = alone("{ name = \"P\" }", "");
    assert!(holds(&plain, "void t(void) { CHECK(rmp_make_shared(P) == -EINVAL); CHECK(!rmp_assigned(P)); }"));
}

#[test]
fn a_guest_faults_on_a_page_that_is_not_assigned_to_it() {
    let front = pair("{ name = \"P\", mapped = true }", &format!("|{SNP}"));
    // With the page made shared the guest never writes: nothing can be latent.
    let body = "void g(void) { guest_write(P); }\nvoid t(void) { rmp_make_shared(P); free_page(P); }";
    // It can write before: enter, write, make shared, free.
    let report = check(&front, body);
    assert_eq!(reached(&report)[0], (EventKind::Latent, ENTRY + 1 + 2));
    let waits = "bool done;\nvoid g(void) { while (!READ_ONCE(done)) ; guest_write(P); }\n\
                 void t(void) { rmp_make_shared(P); WRITE_ONCE(done, true); free_page(P); }";
    assert_eq!(reached(&check(&front, waits)), []);
}

#[test]
fn the_psp_does_not_evict_the_hosts_lines_unless_it_is_said_to() {
    // The host's plaintext is dirty; the PSP encrypts in place; the line is evicted over it: C23, C03.
    let body = "void t(void) { host_write(P); psp_write(P, vm0); }";
    let front = |assume: &str| {
        format!("events = [\"host-dirty\"]\nassume = [{assume}]\n{}", alone("{ name = \"P\" }", ""))
    };
    for coherent in [false, true] {
        let told = reached(&check_on(&front(""), body, coherent));
        // Two steps, then the three moves to memory; the first two of them can come before.
        assert_eq!(told, [(EventKind::HostDirty, 5)], "SME_COHERENT {coherent} does not cover the PSP");
        assert_eq!(reached(&check_on(&front("\"psp-evicts-host-lines\""), body, coherent)), []);
    }
    // The kernel's CLFLUSH before the command is what makes it safe.
    let flushed = "void t(void) { host_write(P); clflush_page(P); psp_write(P, vm0); }";
    assert_eq!(reached(&check(&front(""), flushed)), []);
}

#[test]
fn the_psp_evicts_its_own_tag_unless_it_is_said_not_to() {
    // The guest has written the page; the PSP writes it anew; the guest reads it.
    let body = "bool wrote, put;\n\
                void g(void) { guest_write(P); WRITE_ONCE(wrote, true); while (!READ_ONCE(put)) ; guest_read(P); }\n\
                void t(void) { while (!READ_ONCE(wrote)) ; psp_write(P, vm0); WRITE_ONCE(put, true); }";
    let front = |assume: &str| {
        format!(
            "events = [\"stale\", \"clobber\"]\n{}",
            pair("{ name = \"P\", mapped = true }", &format!("assume = [{assume}]\n|"))
        )
    };
    assert_eq!(reached(&check(&front(""), body)), []);
    let told = reached(&check(&front("\"no-psp-evicts-own-tag\""), body));
    // Entry, write, flag, look, PSP; the write-back's three moves are two after it... the first two come before.
    assert!(told.contains(&(EventKind::Clobber, ENTRY + 2 + 2 + 3)), "{told:?}");
    // Entry, write, flag, look, PSP, flag, look, read.
    assert!(told.contains(&(EventKind::Stale, ENTRY + 2 + 2 + 3)), "{told:?}");
    // A read by the PSP past the guest's dirty line.
    let reads = "bool wrote;\nvoid g(void) { guest_write(P); WRITE_ONCE(wrote, true); }\n\
                 void t(void) { while (!READ_ONCE(wrote)) ; psp_read(P, vm0); }";
    let told = reached(&check(&front("\"no-psp-evicts-own-tag\""), reads));
    assert!(told.iter().any(|t| matches!(t.0, EventKind::Stale | EventKind::Garbage)), "{told:?}");
    assert_eq!(reached(&check(&front(""), reads)), []);
}

#[test]
fn vm_page_flush_reaches_the_guests_tag_where_clflush_does_not() {
    let front = pair("{ name = \"P\", mapped = true }", "|");
    let with = |flush: &str| {
        let body = format!(
            "void g(void) {{ guest_write(P); }}\nvoid t(void) {{ vcpu_thread_join(vcpu0); {flush} free_page(P); }}"
        );
        check(&front, &body)
    };
    let latent = ENTRY + 1 + EXIT + 3;
    assert_eq!(reached(&with("clflush_page(P);"))[0], (EventKind::Latent, latent));
    assert_eq!(reached(&with("vm_page_flush(vm0, P);")), []);
    // Without the mapping it faults, and nothing is flushed.
    let told = reached(&with("zap_user_pte(P); vm_page_flush(vm0, P);"));
    assert_eq!(told[0], (EventKind::Latent, latent + 1));
    let body = "void t(void) { CHECK(vm_page_flush(vm0, P) == 0); zap_user_pte(P); CHECK(vm_page_flush(vm0, P) == \
                -EFAULT); }";
    assert!(holds(&alone("{ name = \"P\" }", ""), body));
}

#[test]
fn clflushopt_and_clwb_are_done_by_the_next_fence() {
    let front = pair("{ name = \"P\", mapped = true }", "|");
    let with = |flush: &str, coherent: bool| {
        let body = format!(
            "void g(void) {{ guest_write(P); }}\nvoid t(void) {{ vcpu_thread_join(vcpu0); {flush} free_page(P); }}"
        );
        reached(&check_on(&front, &body, coherent))
    };
    let latent = ENTRY + 1 + EXIT + 2;
    for weak in ["clflushopt_page(P);", "clwb_page(P);"] {
        for fence in ["sfence();", "wmb();"] {
            assert_eq!(with(&format!("{weak} {fence}"), true), [], "{weak} {fence}");
            // The host's mapping does not reach the guest's tag there.
            assert_eq!(with(&format!("{weak} {fence}"), false)[0], (EventKind::Latent, latent + 1), "{weak}");
            // A fence before it, in a block that need not be come to, or behind a label promises nothing.
            assert_eq!(with(&format!("{fence} {weak}"), true)[0], (EventKind::Latent, latent), "{weak}");
            assert_eq!(with(&format!("{weak} if (maybe()) {{ {fence} }}"), true)[0].0, EventKind::Latent);
            assert_eq!(
                with(&format!("{weak} again: {fence} if (maybe()) goto again;"), true)[0].0,
                EventKind::Latent
            );
        }
        assert_eq!(with(weak, true)[0], (EventKind::Latent, latent), "{weak}");
        // Other stores do not make it come sooner, and each page has its own.
        assert_eq!(with(&format!("{weak} smp_wmb(); {weak} sfence(); {weak}"), true), []);
    }
    assert_eq!(with("clflush_page(P);", true), []);
}

#[test]
fn clwb_keeps_the_line_and_clflushopt_does_not() {
    // The host's plaintext is clean in its cache, the PSP encrypts in place, and the host hits its line: C05, C23.
    let front = format!("events = [\"stale\"]\n{}", alone("{ name = \"P\" }", ""));
    let told = |flush: &str| {
        reached(&check(
            &front,
            &format!("void t(void) {{ host_write(P); {flush} psp_write(P, vm0); host_read(P); }}"),
        ))
    };
    assert_eq!(told("clwb_page(P); sfence();"), [(EventKind::Stale, 4)]);
    assert_eq!(told("clflushopt_page(P); sfence();"), []);
}

#[test]
fn a_flush_reaches_the_caches_of_its_scope_and_no_others() {
    // The guest's dirty line is in the private caches of its core, or has been evicted to the L3 of its CCX.
    let safe = |scope: &str, places: &str| {
        let cores = format!("wbinvd_scope = \"{scope}\"\n{places}\n|");
        let body = "void g(void) { guest_write(P); }\n\
                    void t(void) { vcpu_thread_join(vcpu0); wbinvd(); free_page(P); }";
        let told = reached(&check(&pair("{ name = \"P\", mapped = true }", &cores), body));
        !told.iter().any(|t| t.0 == EventKind::Latent)
    };
    let places = ["cores = [0, 0]", "", "ccxs = [0, 1]"];
    for (scope, reaches) in [
        ("core", [false, false, false]),
        ("core+ccx-l3", [true, false, false]),
        ("ccx", [true, true, false]),
        ("package", [true, true, true]),
    ] {
        assert_eq!(places.map(|place| safe(scope, place)), reaches, "{scope}: same core, same CCX, another");
    }
}

#[test]
fn invd_loses_what_the_guest_wrote() {
    let front =
        |cores: &str| format!("events = [\"stale\"]\n{}", pair("{ name = \"P\", mapped = true }", cores));
    let body = |drop: &str| {
        format!(
            "bool wrote, put;\n\
             void g(void) {{ guest_write(P); WRITE_ONCE(wrote, true); while (!READ_ONCE(put)) ; guest_read(P); }}\n\
             void t(void) {{ while (!READ_ONCE(wrote)) ; {drop} WRITE_ONCE(put, true); }}"
        )
    };
    // The guest's line is in its own core's caches until it is evicted to the L3 that the other core drops:
    // entry, write, flag, the eviction, look, INVD, flag, look, read.
    let told = reached(&check(&front("|"), &body("invd();")));
    assert_eq!(told, [(EventKind::Stale, ENTRY + 2 + 1 + 3 + 2)]);
    // On the same core it needs no eviction.
    let told = reached(&check(&front("cores = [0, 0]\n|"), &body("invd();")));
    assert_eq!(told, [(EventKind::Stale, ENTRY + 2 + 3 + 2)]);
    // Another CCX is out of its reach; WBINVD loses nothing.
    assert_eq!(reached(&check(&front("ccxs = [0, 1]\n|"), &body("invd();"))), []);
    assert_eq!(reached(&check(&front("cores = [0, 0]\n|"), &body("wbinvd();"))), []);
}

#[test]
fn cpuid_is_a_constant() {
    let front = format!("events = [\"tracking\"]\n{}", alone("{ name = \"P\" }", ""));
    let body = "void t(void) { if (sme_coherent()) zap_user_pte(NULL); }";
    assert_eq!(reached(&check_on(&front, body, false)), []);
    assert_eq!(reached(&check_on(&front, body, true)), [(EventKind::Tracking, 1)]);
    let plain = alone("{ name = \"P\" }", "");
    assert!(holds(&plain, "void t(void) { CHECK(has_wbnoinvd()); }"));
    let without = format!("assume = [\"no-wbnoinvd\"]\n{plain}");
    assert!(holds(&without, "void t(void) { CHECK(!has_wbnoinvd()); }"));
}

#[test]
fn only_a_complete_wbinvd_counts_for_df_flush() {
    let front = |assume: &str| {
        format!(
            "firmware = \"fresh\"\nassume = [{assume}]\n{}",
            alone("{ name = \"P\" }", "[[vm]]\nasid = 0\n")
        )
    };
    let body = |flush: &str, want: &str| {
        format!("void t(void) {{ CHECK(sev_cmd_init() == 0); {flush} CHECK(sev_cmd_df_flush() == {want}); }}")
    };
    assert!(holds(&front(""), &body("", "SEV_RET_WBINVD_REQUIRED")));
    assert!(holds(&front(""), &body("wbnoinvd();", "SEV_RET_WBINVD_REQUIRED")));
    assert!(holds(&front(""), &body("wbinvd();", "SEV_RET_SUCCESS")));
    // Where WBNOINVD is executed as WBINVD it counts.
    assert!(holds(&front("\"no-wbnoinvd\""), &body("wbnoinvd();", "SEV_RET_SUCCESS")));
    // The refusal is an event: init, then DF_FLUSH.
    let front = format!("events = [\"firmware\"]\n{}", front(""));
    let told = reached(&check(&front, "void t(void) { sev_cmd_init(); sev_cmd_df_flush(); }"));
    assert_eq!(told, [(EventKind::Firmware, 2)]);
    // Bad arguments are refused, not fatal.
    let bad = "void t(void) { sev_cmd_init(); sev_cmd_activate(vm0, 100); sev_cmd_activate_ex(vm0, 1, 9); \
               sev_cmd_deactivate(NULL); sev_cmd_decommission(vm0); snp_cmd_shutdown(); }";
    assert_eq!(reached(&check(&front, bad)), [(EventKind::Firmware, 2)]);
}

#[test]
fn vmrun_fails_until_the_guest_is_activated_and_launched() {
    let front = format!(
        "firmware = \"fresh\"\n{}",
        pair("{ name = \"P\", mapped = true }", "events = [\"latent\"]\n|")
    );
    // Whatever the order, a guest that was not launched writes nothing.
    let up = "sev_cmd_init(); wbinvd_on_all_cpus(); sev_cmd_df_flush(); sev_cmd_activate(vm0, 1);";
    let body = |more: &str| {
        format!(
            "void g(void) {{ guest_write(P); }}\nvoid t(void) {{ {up} {more} vcpu_thread_join(vcpu0); free_page(P); }}"
        )
    };
    assert_eq!(reached(&check(&front, &body(""))), []);
    let told = reached(&check(&front, &body("sev_cmd_launch_finish(vm0);")));
    assert_eq!(told.first().map(|t| t.0), Some(EventKind::Latent));
}

#[test]
fn a_new_key_turns_what_is_left_into_a_leak() {
    // The PSP has written the page under the first key; after the second guest's ACTIVATE it is garbage in memory.
    let vms = "[[vm]]\n[[vm]]\nasid = 0\n";
    let front = |events: &str| format!("events = [\"{events}\"]\n{}", alone("{ name = \"P\" }", vms));
    let recycle = "sev_cmd_deactivate(vm0); sev_cmd_decommission(vm0); wbinvd(); sev_cmd_df_flush();";
    let body = |end: &str| {
        format!("void t(void) {{ psp_write(P, vm0); {recycle} sev_cmd_activate(vm1, 1); {end} }}")
    };
    assert_eq!(reached(&check(&front("garbage"), &body("psp_read(P, vm0);"))).len(), 1);
    let before = format!("void t(void) {{ psp_write(P, vm0); {recycle} psp_read(P, vm0); }}");
    assert_eq!(reached(&check(&front("garbage"), &before)), [], "DEACTIVATE leaves the key");
    // A second ACTIVATE of the same guest installs none.
    let again = "void t(void) { psp_write(P, vm0); sev_cmd_deactivate(vm0); wbinvd(); sev_cmd_df_flush(); \
                 sev_cmd_activate(vm0, 1); psp_read(P, vm0); }";
    assert_eq!(reached(&check(&front("garbage"), again)), []);
}

#[test]
fn a_guest_that_must_evict_is_overwritten_if_it_does_not() {
    // The host's line of the page is dirty when the guest takes it: CVE-2024-36331. Only SME_COHERENT hides it.
    let body = |evict: &str| {
        format!(
            "bool wrote;\nvoid g(void) {{ while (!READ_ONCE(wrote)) ; {evict} guest_write(P); }}\n\
             void t(void) {{ host_write(P); WRITE_ONCE(wrote, true); }}"
        )
    };
    let front = |assume: &str| {
        let rest = format!("events = [\"host-dirty\"]\nassume = [{assume}]\n|");
        pair("{ name = \"P\", mapped = true }", &rest)
    };
    let told = |assume: &str, evict: &str, coherent: bool| {
        reached(&check_on(&front(assume), &body(evict), coherent)).iter().any(|t| t.0 == EventKind::HostDirty)
    };
    assert!(!told("", "", true));
    assert!(told("\"guest-must-evict\"", "", true));
    assert!(!told("\"guest-must-evict\"", "guest_evict(P);", true));
    assert!(told("", "", false), "without SME_COHERENT it is there anyway");
}
