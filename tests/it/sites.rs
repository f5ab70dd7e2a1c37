//! The tables of `docs/SITES.md` that are made: each site without its flush, for each class of pages and kind of guest; each
//! switch of linux-6.17 that is on turned off, and each call that flushes deleted from the text, with the tests of the corpus
//! that object. `SNAPSHOTS=overwrite cargo test --test it` writes them anew.

use std::fmt::Write as _;

use cache_model::part::Part;
use sim_explore::Limits;
use svm_model::MemoryKind;
use svm_model::text::{self, KERNELS, POLICIES, Text};
use workloads::check::{CheckCase, NamedText, Verdict, program_digest};
use workloads::litmus::{BUILTIN, Expected, Litmus};

const KERNEL: &str = "linux-6.17";

/// What stands above the table of sites by pages and guests, and below it.
const PRODUCT: &str = "<!-- each site, class of pages and kind of guest -->\n";
const AFTER_PRODUCT: &str = "<!-- end of the sites -->\n";

/// What stands above the table of switches, and below it.
const MARK: &str = "<!-- each switch turned off -->\n";
const AFTER: &str = "<!-- end of the switches -->\n";

/// What stands above the table of calls.
const CALLS: &str = "<!-- each flush call deleted -->\n";

/// What flushes caches, takes translations away or flushes them, or has others do so. The calls that hand `__wbinvd()` to
/// pCPUs are those of its callers.
const FLUSHES: [&str; 16] = [
    "wbinvd",
    "wbnoinvd",
    "zap_spte",
    "vcpu_flush_tlb",
    "smp_call_function_many",
    "wbinvd_on_all_cpus",
    "clflush_page",
    "sev_clflush_pages",
    "vm_page_flush",
    "sev_flush_encrypted_page",
    "sev_writeback_caches",
    "sev_writeback_page",
    "sev_guest_memory_reclaimed",
    "sev_flush_asids",
    "sev_cmd_df_flush",
    "kvm_flush_remote_tlbs",
];

/// Policies under which the kernel as it is should be safe: what goes wrong without a flush is not theirs. A file that
/// is about neither is asked under its own.
const SAFE: [&str; 2] = ["sticky-wbnoinvd", "all-wbinvd"];

fn named(all: &[Text], name: &str) -> NamedText {
    let t = all.iter().find(|t| t.name == name).expect("a built-in text");
    NamedText { name: t.name.to_owned(), file: t.file.to_owned(), text: t.text.to_owned() }
}

/// The kernel's switches that are on, those of the text that it includes too.
fn switches() -> Vec<String> {
    let sites = text::find("sev-6.17", "").expect("the sites of 6.17").text;
    let on = |line: &str| {
        let (name, value) = line.strip_prefix("#define ")?.split_once(' ')?;
        // Without a rule that skips a flush there are only more of them; and a CPU without a feature is another CPU.
        let more = name.contains("_SKIPS_") || name.starts_with("CPU_HAS_");
        (value == "1" && !more).then(|| name.to_owned())
    };
    sites.lines().filter_map(on).collect()
}

/// A case that the corpus expects to hold.
struct Held {
    litmus: Litmus,
    policy: NamedText,
    part: String,
    sme_coherent: bool,
    program: u64,
}

impl Held {
    fn case<'a>(&'a self, litmus: &'a Litmus, kernel: &'a NamedText) -> CheckCase<'a> {
        CheckCase { litmus, policy: &self.policy, kernel, part: &self.part, sme_coherent: self.sme_coherent }
    }
}

fn held(kernel: &NamedText) -> Vec<Held> {
    let mut all = Vec::new();
    for (_, file, text) in BUILTIN {
        for litmus in Litmus::parse(file, text).expect("a built-in test").variants() {
            if litmus.kernels().iter().all(|k| k != KERNEL) {
                continue;
            }
            let listed = |name: &&str| litmus.policies().is_none_or(|p| p.iter().any(|p| p == name));
            let mut policies: Vec<String> =
                SAFE.iter().filter(|p| listed(p)).map(|p| (*p).to_owned()).collect();
            if policies.is_empty() {
                policies = litmus.policies().unwrap_or_default().to_vec();
            }
            for part in litmus.parts().to_vec() {
                for name in &policies {
                    let expected = litmus.expected(name, KERNEL, &part);
                    if expected.is_none_or(|e| e.verdict != Expected::Holds) {
                        continue;
                    }
                    let sme_coherent = Part::builtin(&part).expect("a built-in part").sme_coherent();
                    let policy = named(POLICIES, name);
                    let mut held =
                        Held { litmus: litmus.clone(), policy, part: part.clone(), sme_coherent, program: 0 };
                    let machine = held.case(&held.litmus, kernel).machine(MemoryKind::Shadow);
                    held.program = program_digest(&machine.expect("it compiles"));
                    all.push(held);
                }
            }
        }
    }
    all
}

/// The files that object when a switch is off, each with its event, and how many were asked in whose program it is.
fn objections(held: &[Held], kernel: &NamedText, switch: &str) -> (Vec<String>, usize) {
    let (mut files, mut asked): (Vec<(String, String)>, Vec<String>) = (Vec::new(), Vec::new());
    for h in held {
        let file = h.litmus.name.split(':').next().unwrap_or_default().to_owned();
        if files.iter().any(|f| f.0 == file) {
            continue;
        }
        let without = h.litmus.clone().with_define(switch, 0);
        let case = h.case(&without, kernel);
        let machine = case.machine(MemoryKind::Shadow).expect("it compiles");
        if program_digest(&machine) == h.program {
            continue;
        }
        let report = case.run(Limits::default(), None, None).expect("it runs");
        assert_ne!(report.verdict, Verdict::Bounded, "{file}");
        if !asked.contains(&file) {
            asked.push(file.clone());
        }
        if let Some(first) = report.events.first() {
            files.push((file, first.event.name().to_owned()));
        }
    }
    (files.into_iter().map(|(file, event)| format!("`{file}` ({event})")).collect(), asked.len())
}

/// Places that write caches back, and their switches.
const SITES: [(&str, &str); 5] = [
    ("notifier release", "FLUSH_ON_RELEASE"),
    ("unregister region", "FLUSH_ON_UNREGISTER"),
    ("VM destroy", "FLUSH_ON_DESTROY"),
    ("guest_memfd free", "FLUSH_ON_GMEM_FREE"),
    ("VMSA free", "FLUSH_ON_VMSA_FREE"),
];

/// Classes of pages.
const PAGES: [&str; 5] = ["pinned", "unpinned", "guest_memfd", "VMSA", "firmware"];

/// Kinds of guests, and the parts on which there are any.
const GUESTS: [(&str, &[&str]); 3] =
    [("sev", &["rome", "genoa"]), ("sev-es", &["rome", "genoa"]), ("sev-snp", &["genoa"])];

/// Kernels with guest_memfd: with the flush at VM destroy, and without.
const ERAS: [&str; 2] = ["linux-6.11", "linux-6.17"];

/// Why a site, a class of pages and a kind of guest do not go together, if they do not.
fn no_sense(site: &str, pages: &str, guest: &str) -> Option<&'static str> {
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
    Litmus::parse("life.litmus", &text).expect("a litmus test")
}

/// What a kernel's site comes to without its flush. With it, all holds.
fn without_flush(
    (site, switch): (&str, &str),
    pages: &str,
    guest: (&str, &[&str]),
    kernel: &NamedText,
) -> String {
    let (mut there, mut missed) = (false, None);
    for life in lives(site, pages) {
        let kept = life_test(guest.0, pages, life);
        let dropped = kept.clone().with_define(switch, 0);
        for policy in SAFE.map(|name| named(POLICIES, name)) {
            for part in guest.1 {
                let sme_coherent = Part::builtin(part).expect("a built-in part").sme_coherent();
                let case = |litmus| CheckCase { litmus, policy: &policy, kernel, part, sme_coherent };
                let report = |litmus| case(litmus).run(Limits::default(), None, None).expect("it runs");
                let digest =
                    |litmus| program_digest(&case(litmus).machine(MemoryKind::Shadow).expect("it compiles"));
                let what =
                    format!("{site}, {pages}, {} in {} on {part}: {}", guest.0, kernel.name, policy.name);
                assert_eq!(report(&kept).verdict, Verdict::Holds, "{what}");
                if digest(&kept) == digest(&dropped) {
                    continue;
                }
                there = true;
                let report = report(&dropped);
                assert!(matches!(report.verdict, Verdict::Holds | Verdict::Violated), "{what}");
                missed = missed.or(report.events.first().map(|e| e.event.name()));
            }
        }
    }
    match (there, missed) {
        (false, _) => "has none".to_owned(),
        (true, None) => "redundant".to_owned(),
        (true, Some(event)) => format!("**needed** ({event})"),
    }
}

/// The table of the sites by pages and guests, and below it why some do not go together.
fn product() -> String {
    let mut whys: Vec<&str> = Vec::new();
    let mut table = "| site | pages | SEV | SEV-ES | SEV-SNP |\n|---|---|---|---|---|\n".to_owned();
    for site in SITES {
        for pages in PAGES {
            write!(table, "| {} | {pages} |", site.0).expect("a string takes all");
            for guest in GUESTS {
                let cell = match no_sense(site.0, pages, guest.0) {
                    Some(why) => {
                        let known = whys.iter().position(|w| *w == why);
                        let n = known.unwrap_or_else(|| {
                            whys.push(why);
                            whys.len() - 1
                        });
                        format!("no sense: {}", char::from(b"abcdefghijklmnopqrstuvwxyz"[n]))
                    }
                    None => {
                        let came = ERAS.map(|k| without_flush(site, pages, guest, &named(KERNELS, k)));
                        if came[0] == came[1] {
                            came[0].clone()
                        } else {
                            let each =
                                ERAS.iter().zip(&came).map(|(k, c)| format!("{}: {c}", &k["linux-".len()..]));
                            each.collect::<Vec<_>>().join("; ")
                        }
                    }
                };
                write!(table, " {cell} |").expect("a string takes all");
            }
            table.push('\n');
        }
    }
    table.push('\n');
    for (why, letter) in whys.iter().zip('a'..) {
        writeln!(table, "* {letter}: {why}.").expect("a string takes all");
    }
    table
}

/// A call that flushes: the function that it is in, what it says, and the text without it.
struct Call {
    function: String,
    text: String,
    without: String,
}

/// Where a call in a line ends: behind its closing parenthesis.
fn call_end(line: &str, from: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in line.char_indices().skip_while(|(at, _)| *at < from) {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return Some(at + 1),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Every call that flushes in a kernel's text, found in the text itself.
fn calls(text: &str) -> Vec<Call> {
    let mut found = Vec::new();
    let mut function = "";
    for (n, line) in text.lines().enumerate() {
        if !line.starts_with(['\t', ' ', '{', '}', '#', '/']) && line.ends_with(')') {
            function = line.split('(').next().and_then(|l| l.rsplit([' ', '*']).next()).unwrap_or("");
        }
        for name in FLUSHES.iter().filter(|_| line.starts_with('\t')) {
            let word = |at: usize| !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            let Some(at) = line.find(&format!("{name}(")).filter(|at| word(*at)) else { continue };
            let end = call_end(line, at).expect("a call on one line");
            // A statement goes; what a condition or an assignment asks for says that all is well.
            let alone = line[..at].trim().is_empty();
            let new = format!("{}{}{}", &line[..at], if alone { "" } else { "0" }, &line[end..]);
            let lines = text.lines().enumerate().map(|(i, l)| if i == n { new.as_str() } else { l });
            let without = lines.map(|l| format!("{l}\n")).collect();
            found.push(Call { function: function.to_owned(), text: line[at..end].to_owned(), without });
        }
    }
    found
}

/// The changes of order: the CLFLUSH of a page that an SNP guest gives back, before its RMP entry is changed.
fn swapped(text: &str) -> Vec<Call> {
    let swap = |function: &str, from: &str, to: &str| {
        assert_eq!(text.matches(from).count(), 1, "{function}");
        let text_of = "CLFLUSH before the RMP change".to_owned();
        Call { function: function.to_owned(), text: text_of, without: text.replacen(from, to, 1) }
    };
    vec![
        swap(
            "sev_gmem_invalidate",
            "	if (rmp_make_shared(page))
		return;
	if (FLUSH_ON_GMEM_FREE)
		clflush_page(page);
",
            "	if (FLUSH_ON_GMEM_FREE)
		clflush_page(page);
	if (rmp_make_shared(page))
		return;
",
        ),
        swap(
            "sev_free_vcpu",
            "	if (sev_snp_guest(kvm) && rmp_make_shared(vmsa))
		return;
	if (FLUSH_ON_VMSA_FREE)
		sev_flush_encrypted_page(kvm, vmsa);
",
            "	if (FLUSH_ON_VMSA_FREE)
		sev_flush_encrypted_page(kvm, vmsa);
	if (sev_snp_guest(kvm) && rmp_make_shared(vmsa))
		return;
",
        ),
    ]
}

/// The first file that objects to a kernel's text, with its event, and how many files have another program in it.
fn first_objection(held: &[Held], kernel: &NamedText) -> (Option<String>, usize) {
    let mut asked: Vec<String> = Vec::new();
    for h in held {
        let case = h.case(&h.litmus, kernel);
        let machine = case.machine(MemoryKind::Shadow).expect("it compiles");
        if program_digest(&machine) == h.program {
            continue;
        }
        let file = h.litmus.name.split(':').next().unwrap_or_default().to_owned();
        if !asked.contains(&file) {
            asked.push(file.clone());
        }
        let report = case.run(Limits::default(), None, None).expect("it runs");
        assert_ne!(report.verdict, Verdict::Bounded, "{file}");
        if let Some(first) = report.events.first() {
            return (Some(format!("`{}` ({})", h.litmus.name, first.event.name())), asked.len());
        }
    }
    (None, asked.len())
}

/// The table of the calls.
fn each_call(above: &str, held: &[Held], kernel: &NamedText) -> String {
    let sites = text::find("sev-6.17", "").expect("the sites of 6.17").text;
    let include = "#include \"sev-6.17.c\"\n";
    assert!(kernel.text.contains(include), "the kernel includes its sites");
    // Digests of programs do not depend on how the texts are cut into files, but on their places: anew.
    let whole =
        |own: &str, sites: &str| NamedText { text: own.replacen(include, sites, 1), ..kernel.clone() };
    let base = whole(&kernel.text, &sites);
    let mut own: Vec<Held> = Vec::new();
    for h in held {
        let machine = h.case(&h.litmus, &base).machine(MemoryKind::Shadow).expect("it compiles");
        own.push(Held {
            program: program_digest(&machine),
            litmus: h.litmus.clone(),
            policy: h.policy.clone(),
            part: h.part.clone(),
            ..*h
        });
    }
    let in_sites =
        calls(&sites).into_iter().chain(swapped(&sites)).map(|c| (whole(&kernel.text, &c.without), c));
    let in_own = calls(&kernel.text).into_iter().map(|c| (whole(&c.without, &sites), c));
    let mut table = "| in | call | an objection |\n|---|---|---|\n".to_owned();
    for (changed, call) in in_sites.chain(in_own) {
        let (file, asked) = first_objection(&own, &changed);
        let said = file.unwrap_or_else(|| {
            let key = format!("`{}`: `{}`", call.function, call.text);
            let why = above.lines().find(|l| l.contains(&key) && l.contains("redundant"));
            assert!(
                why.is_some(),
                "no file objects when {key} is deleted ({asked} asked), and SITES.md does not say why"
            );
            "none: see above".to_owned()
        });
        writeln!(table, "| `{}` | `{}` | {said} |", call.function, call.text).expect("a string takes all");
    }
    table
}

/// The text of `docs/SITES.md` with its tables made anew.
pub(crate) fn with_each_switch(text: &str) -> String {
    let (top, rest) = text.split_once(PRODUCT).expect("a mark above the sites");
    let (_, middle) = rest.split_once(AFTER_PRODUCT).expect("a mark below them");
    let text = format!("{top}{PRODUCT}{}{AFTER_PRODUCT}{middle}", product());
    let (above, rest) = text.split_once(MARK).expect("a mark above the table");
    let (between, _) =
        rest.split_once(AFTER).expect("a mark below it").1.split_once(CALLS).expect("another table");
    let kernel = named(KERNELS, KERNEL);
    let held = held(&kernel);
    let mut table =
        "| switch | files in whose program it is | files that object to its absence |\n|---|---|---|\n"
            .to_owned();
    for switch in switches() {
        let (files, asked) = objections(&held, &kernel, &switch);
        let files = if files.is_empty() {
            // The tables above have to say why.
            let why = above.lines().find(|l| l.contains(&format!("`{switch}`")) && l.contains("redundant"));
            assert!(why.is_some(), "no file objects when {switch} is off, and SITES.md does not say why");
            "none: see above".to_owned()
        } else {
            files.join(", ")
        };
        writeln!(table, "| `{switch}` | {asked} | {files} |").expect("a string takes all");
    }
    let calls = each_call(&format!("{above}{between}"), &held, &kernel);
    format!("{above}{MARK}{table}{AFTER}{between}{CALLS}{calls}")
}

#[test]
fn zap_and_order_cover_for_each_other_where_guest_memfd_frees_a_page() {
    let sites = text::find("sev-6.17", "").expect("the sites of 6.17").text;
    let zap = calls(&sites).into_iter().find(|c| c.function == "kvm_gmem_punch_hole").expect("a zap");
    assert_eq!(zap.text, "zap_spte(kvm, page)");
    let order = |text: &str| swapped(text).swap_remove(0).without;
    let kernel = named(KERNELS, KERNEL);
    let include = "#include \"sev-6.17.c\"\n";
    let (_, file, text) =
        BUILTIN.iter().find(|t| t.0 == "gmem-freed-without-clflush").expect("a built-in test");
    let variants = Litmus::parse(file, text).expect("a built-in test").variants();
    let litmus = variants.iter().find(|l| l.variant() == Some("kept")).expect("a variant");
    let verdict = |sites: &str| {
        let kernel = &NamedText { text: kernel.text.replacen(include, sites, 1), ..kernel.clone() };
        let policy = &named(POLICIES, "sticky-wbnoinvd");
        let case = CheckCase { litmus, policy, kernel, part: "genoa", sme_coherent: true };
        case.run(Limits::default(), None, None).expect("it runs").verdict
    };
    let came = [&sites, &zap.without, &order(&sites), &order(&zap.without)].map(|s| verdict(s));
    assert_eq!(came, [Verdict::Holds, Verdict::Holds, Verdict::Holds, Verdict::Violated]);
}

#[test]
fn the_lock_of_the_asids_is_missed_in_each_race_that_it_excludes() {
    let calls = ["\tmutex_lock(&sev_bitmap_lock);\n", "mutex_unlock(&sev_bitmap_lock);\n"];
    let sites = text::find("sev-6.17", "").expect("the sites of 6.17").text;
    let unlocked = calls.iter().fold(sites.clone(), |text, call| text.replace(call, "\n"));
    assert_eq!(unlocked.matches("sev_bitmap_lock").count(), 1, "its definition alone is left");
    let kernel = named(KERNELS, KERNEL);
    let include = "#include \"sev-6.17.c\"\n";
    let whole = |sites: &str| NamedText { text: kernel.text.replacen(include, sites, 1), ..kernel.clone() };
    let (right, wrong) = (whole(&sites), whole(&unlocked));
    let (_, file, text) = BUILTIN.iter().find(|t| t.0 == "asid-bitmap").expect("a built-in test");
    let policy = named(POLICIES, "no-flush");
    for litmus in Litmus::parse(file, text).expect("a built-in test").variants() {
        let verdict = |kernel: &NamedText| {
            let case =
                CheckCase { litmus: &litmus, policy: &policy, kernel, part: "rome", sme_coherent: false };
            case.run(Limits::default(), None, None).expect("it runs").verdict
        };
        assert_eq!(
            (verdict(&right), verdict(&wrong)),
            (Verdict::Holds, Verdict::Violated),
            "{}",
            litmus.name
        );
    }
}
