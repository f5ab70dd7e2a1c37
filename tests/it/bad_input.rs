//! Wrong input of every kind: exit code 2, one clear message with the place, nothing on standard output, no panic.

use super::program::{Folder, sevsim, sevsim_in, sevsim_with};

/// A policy with `body` in the place of its writeback.
fn policy(body: &str) -> String {
    format!("void sev_writeback_caches(struct kvm *kvm)\n{{\n{body}\n}}\n")
}

#[test]
fn a_policy_that_is_wrong_is_shown_with_its_place() {
    let folder = Folder::new();
    let cases = [
        (
            "unknown function",
            policy("\twbinvd_on_all_cpu();"),
            "bad.c:3:2",
            "did you mean `wbinvd_on_all_cpus`?",
        ),
        ("missing semicolon", policy("\twbinvd_on_all_cpus()"), "bad.c:3:", "expected `;`"),
        ("wrong argument", policy("\twbinvd_on_all_cpus(1);"), "bad.c:3:2", "0 arguments expected"),
        ("wrong type", policy("\tcpumask_clear(kvm);"), "bad.c:3:", "expected"),
        ("recursion", policy("\tsev_writeback_caches(kvm);"), "bad.c:3:2", "calls itself"),
        ("endless loop", policy("\tint i = 0;\n\twhile (true)\n\t\ti = 1 - i;"), "bad.c:4:2", "endless loop"),
        ("no C at all", "the quick brown fox\n".to_owned(), "bad.c:1:", "expected"),
    ];
    for (what, text, place, said) in cases {
        folder.file("bad.c", text);
        let ran = sevsim_in(&folder, &["check", "reclaim-one-vcpu", "--policy", "bad.c"]);
        assert_eq!(ran.code, 2, "{what}\n{}\n{}", ran.out, ran.err);
        let ran = ran.ends(2).says(&[place, said]);
        assert!(ran.out.is_empty(), "{what}");
        assert_eq!(ran.err.matches(place).count(), 1, "said once, though there are two parts\n{}", ran.err);
        sevsim_in(&folder, &["run", "numa-churn", "--policy", "bad.c"]).ends(2).says(&[place, said]);
    }
    folder.file("bad.c", "int x = ;\n");
    sevsim_in(&folder, &["show", "ast", "bad.c"]).ends(2).says(&["bad.c:1:9"]);
}

#[test]
fn good_cases_are_reported_beside_a_bad_one() {
    let folder = Folder::new();
    folder.file("bad.c", policy("\tnonsense();"));
    let args = [
        "check",
        "reclaim-one-vcpu",
        "--part",
        "rome",
        "--policy",
        "bad.c",
        "--policy",
        "no-flush",
        "--format",
        "json",
    ];
    let ran = sevsim_in(&folder, &args).ends(2).says(&["bad.c:3"]);
    assert_eq!(ran.json().len(), 1);
}

#[test]
fn files_that_cannot_be_read_as_text() {
    let folder = Folder::new();
    folder.file("empty.c", "");
    folder.file("blank.c", " \n\n");
    folder.file("latin.c", b"ok\nno\xff\n");
    folder.file("binary.c", b"\0\0\0\0");
    std::fs::create_dir(folder.path.join("folder.c")).unwrap();
    let cases = [
        ("missing.c", "missing.c: cannot be read"),
        ("empty.c", "empty.c: the file is empty"),
        ("blank.c", "blank.c: the file is empty"),
        ("latin.c", "latin.c:2:3: not UTF-8"),
        ("folder.c", "folder.c: this is a directory"),
        ("binary.c", "binary.c:1:1"),
        ("/dev/zero", "/dev/zero: longer than"),
    ];
    for (file, said) in cases {
        for option in ["--policy", "--kernel", "--part"] {
            if file == "binary.c" && option != "--policy" {
                continue;
            }
            let ran = sevsim_in(&folder, &["check", "reclaim-one-vcpu", option, file]);
            assert!(ran.out.is_empty());
            ran.ends(2).says(&[said]);
        }
        sevsim_in(&folder, &["replay", file]).ends(2).says(&[file]);
    }
    let near = sevsim_in(&folder, &["check", "reclaim-one-vcpu", "--policy", "no-flush.c"]);
    near.ends(2).says(&["the built-in policy is called `no-flush`"]);
}

#[test]
fn litmus_files_that_are_wrong() {
    let good = sevsim(&["show", "litmus", "reclaim-one-vcpu"]).ends(0).out;
    let folder = Folder::new();
    let cases = [
        ("no front matter", "void guest(void) {}\n".to_owned(), ":1:1"),
        ("unknown key", good.replace("pcpus = 2", "pcpu = 2"), ":4:1"),
        ("no pCPU", good.replace("pcpus = 2", "pcpus = 0"), "expected 1 to 16"),
        ("too many pCPUs", good.replace("pcpus = 2", "pcpus = 17"), "expected 1 to 16"),
        ("a pCPU that is not there", good.replace("pcpus = [1]", "pcpus = [7]"), ":13:9: pCPU 7 of 0 to 1"),
        ("a core too many", good.replace("pcpus = 2", "pcpus = 2\ncores = [0, 65535]"), ":5:1: core 65535"),
        ("a CCX too many", good.replace("pcpus = 2", "pcpus = 2\nccxs = [0, 65535]"), ":5:1: CCX 65535"),
        (
            "a huge number",
            good.replace("pcpus = 2", "pcpus = 99999999999"),
            "expected a whole number from 0 to",
        ),
        ("a negative number", good.replace("pcpus = [1]", "pcpus = [-1]"), ":13:10"),
        ("a pCPU twice", good.replace("pcpus = [1]", "pcpus = [1, 1]"), ":13:9: pCPU 1 is named twice"),
        ("a VM that is not there", good.replace("guest = ", "vm = 3\nguest = "), ":8:6: vm 3 of 0 to 0"),
        (
            "the VM of a page that is not there",
            good.replace("name = \"P\"", "name = \"P\", vm = 2"),
            ":5:29: vm 2 of 0 to 0",
        ),
        ("a page without a C name", good.replace("\"P\"", "\"P-1\""), "`P-1`: expected a name as in C"),
        (
            "a page called as a keyword",
            good.replace("name = \"P\"", "name = \"while\""),
            ":5:19: a page called `while`: the texts' language has a meaning for this word",
        ),
        (
            "a page called as a built-in call",
            good.replace("name = \"P\"", "name = \"wbinvd\""),
            ":5:19: a page called `wbinvd`",
        ),
        (
            "more pages than a state has room for",
            good.replace(
                "pages = [",
                &format!(
                    "pages = [{}",
                    (0..300).fold(String::new(), |all, i| all + &format!("{{ name = \"P{i}\" }}, "))
                ),
            ),
            "bad.litmus: a state of this model takes",
        ),
        (
            "a page twice",
            good.replace("pages = [", "pages = [{ name = \"P\" }, "),
            ":5:35: two pages are called `P`",
        ),
        (
            "an actor with parameters",
            good.replace("run = \"reclaim\"", "run = \"vcpu_thread\""),
            "bad.litmus:12:7",
        ),
        ("unknown part", good.replace("\"rome\", \"genoa\"", "\"rom\""), "did you mean `rome`?"),
        (
            "an actor without its function",
            good.replace("run = \"reclaim\"", "run = \"reclam\""),
            "bad.litmus:12:7",
        ),
        ("an error in the body", good.replace("guest_write(P)", "guest_wrote(P)"), "guest_wrote"),
        (
            "a guest's access in a task",
            good.replace("madvise_dontneed(vm0, P)", "guest_write(P)"),
            "only a guest can call `guest_write`",
        ),
        (
            "a kernel's function in a guest",
            good.replace("guest_write(P)", "madvise_dontneed(vm0, P)"),
            "a guest cannot call `madvise_dontneed`",
        ),
        (
            "assumptions that contradict each other",
            good.replace(
                "pcpus = 2",
                "pcpus = 2\nassume = [\"psp-evicts-own-tag\", \"no-psp-evicts-own-tag\"]",
            ),
            ":5:1: `psp-evicts-own-tag` and `no-psp-evicts-own-tag` cannot both be assumed",
        ),
        (
            "a define that nobody uses",
            good.replace("void reclaim", "#define FLUSH_ON_RECLAM 0\nvoid reclaim"),
            "no text uses `FLUSH_ON_RECLAM`",
        ),
        ("a page that is not there", good.replace("guest_write(P)", "guest_write(R)"), "R"),
        (
            "an expectation for a file that is not there",
            good.replacen("policies = [\"*\"", "policies = [\"./none.c\", \"*\"", 1),
            "`./none.c`, and there is no such file",
        ),
        (
            "a number for a flag",
            good.replace("pages = [", "set = { \"vm0->released\" = 77 }\npages = ["),
            "77 does not fit: a `bool` is `true` or `false`\n --> bad.litmus:5:10",
        ),
        (
            "a number for an enumeration",
            good.replace("pages = [", "set = { \"vcpu0->mode\" = 77 }\npages = ["),
            "77 is none of OUTSIDE_GUEST_MODE, IN_GUEST_MODE, EXITING_GUEST_MODE\n --> bad.litmus:5:10",
        ),
        ("a closing line that is missing", good.replace("\n+++\n", "\n"), ":1:1"),
        ("a front matter with nothing in it", "+++\n+++\n".to_owned(), "the front matter is empty"),
        ("a byte order mark", format!("\u{feff}{good}"), "a byte order mark"),
    ];
    for (what, text, said) in cases {
        assert_ne!(text, good, "{what}: the litmus file has changed, and so must this test");
        folder.file("bad.litmus", text);
        for command in ["check", "test"] {
            let ran = sevsim_in(&folder, &[command, "bad.litmus", "--policy", "no-flush"]);
            assert_eq!(ran.code, 2, "{what}\n{}\n{}", ran.out, ran.err);
            ran.ends(2).says(&["bad.litmus", said]);
        }
    }
}

#[test]
fn guests_that_a_part_or_a_kernel_cannot_have_and_policies_that_nobody_asks() {
    let folder = Folder::new();
    let good = sevsim(&["show", "litmus", "reclaim-one-vcpu"]).ends(0).out;
    for (kind, kernel, part, said) in [
        ("sev-snp", "linux-6.17", "rome", "rome has no RMP"),
        ("sev-snp", "linux-5.17", "genoa", "linux-5.17 has no guests of this kind"),
        ("sev-es", "linux-5.5", "genoa", "linux-5.5 has no guests of this kind"),
    ] {
        folder.file(
            "kind.litmus",
            good.replacen("[[vcpu]]", &format!("[[vm]]\nkind = \"{kind}\"\n\n[[vcpu]]"), 1),
        );
        let args = ["check", "kind.litmus", "--policy", "no-flush", "--kernel", kernel, "--part", part];
        sevsim_in(&folder, &args).ends(2).says(&["kind.litmus:", said]);
    }
    let pair = sevsim(&["show", "litmus", "mirror-pair"]).ends(0).out;
    folder.file(
        "mirror.litmus",
        pair.replace("\tfree_page(P);\n", "\tfree_page(P);\n\tkvm_destroy_vm(vm1);\n"),
    );
    let args = ["check", "mirror.litmus", "--policy", "no-flush", "--part", "rome"];
    sevsim_in(&folder, &args).ends(2).says(&["mirror.litmus:", "mirror_of", "does not know"]);
    let args = ["check", "mirror-pair", "--policy", "no-flush", "--kernel", "linux-5.5", "--part", "rome"];
    sevsim(&args).ends(2).says(&["mirror-pair.litmus:", "mirror_of", "linux-5.5 has no mirror VMs"]);
    for (litmus, kernel, function) in [
        ("gmem-freed-without-clflush:kept", "linux-6.1", "kvm_gmem_punch_hole"),
        ("mirror-leaks-mask:fixed", "linux-5.5", "sev_vm_copy_enc_context_from"),
        ("migration-without-mask:fixed", "linux-5.5", "sev_vm_move_enc_context_from"),
    ] {
        let args = ["check", litmus, "--policy", "no-flush", "--kernel", kernel];
        let said = format!("this kernel has no `{function}`");
        sevsim(&args).ends(2).says(&[&said, &format!("kernels/{kernel}.c"), "BUILD_BUG(); /*"]);
    }
    for (policy, kernel) in [
        ("page-flush-msr", "linux-5.5"),
        ("clflush-host", "linux-5.5"),
        ("all-wbinvd", "linux-5.5"),
        ("page-flush-msr", "linux-5.17"),
        ("event-filter", "linux-5.17"),
    ] {
        let args = ["check", "reclaim-one-vcpu", "--part", "rome", "--policy", policy, "--kernel", kernel];
        sevsim(&args).ends(2).says(&[policy]);
    }
}

#[test]
fn of_a_kernel_of_the_users_nothing_is_expected() {
    let folder = Folder::new();
    folder.file("mine.c", sevsim(&["show", "kernel", "linux-6.17"]).ends(0).out);
    let args =
        ["test", "unpinned-reclaim:dma", "--kernel", "mine.c", "--policy", "no-flush", "--format", "json"];
    let cases = sevsim_in(&folder, &args).json();
    assert!(cases.iter().all(|c| c["verdict"] == "violated" && c["met"].is_null()), "{cases:?}");
}

#[test]
fn a_kernel_and_a_policy_of_the_users_are_held_to_what_is_expected_of_built_in_ones() {
    let folder = Folder::new();
    for text in ["linux-6.17", "sev-6.17"] {
        folder.file(&format!("{text}.c"), sevsim(&["show", "kernel", text]).ends(0).out);
    }
    let test = ["test", "memslot-deleted:freed", "--kernel", "linux-6.17.c"];
    let with = |more: &[&str]| sevsim_in(&folder, &[&test[..], more].concat());
    with(&["--expect-as", "linux-6.17"]).ends(0);
    let sites = sevsim(&["show", "kernel", "sev-6.17"]).ends(0).out;
    let flush = "\tif (FLUSH_ON_MEMSLOT_DELETE)\n\t\tsev_guest_memory_reclaimed(kvm);\n";
    assert!(sites.contains(flush), "the flush is there to be taken out");
    folder.file("sev-6.17.c", sites.replace(flush, ""));
    with(&[]).ends(0);
    with(&["--expect-as", "linux-6.17"]).ends(3);
    // A kernel that the test is not about.
    with(&["--expect-as", "linux-5.5"]).ends(0);

    folder.file("mine.c", sevsim(&["show", "policy", "no-flush"]).ends(0).out);
    let test = ["test", "reclaim-one-vcpu", "--part", "rome", "--policy", "mine.c"];
    let with = |more: &[&str]| sevsim_in(&folder, &[&test[..], more].concat());
    with(&["--expect-as", "no-flush"]).ends(0);
    with(&["--expect-as", "all-wbinvd"]).ends(3);
    with(&["--expect-as", "all-wbinvd", "--expect-as", "no-flush"]).ends(2).says(&["are alike"]);
    with(&["--expect-as", "no-flsh"]).ends(2).says(&["--expect-as", "did you mean `no-flush`?"]);
    for (name, what) in [("linux-6.17", "--kernel"), ("no-flush", "--policy")] {
        sevsim(&["test", "two-flushers", "--expect-as", name]).ends(2).says(&[name, what]);
    }
}

#[test]
fn what_a_test_is_not_about_is_not_expected() {
    // It is about 5.5 and 5.17, and violated there on a part where 6.17 holds.
    let args = ["test", "host-mapped-clflush", "--kernel", "linux-6.17", "--format", "json"];
    let cases = sevsim(&args).ends(0).json();
    assert!(cases.iter().all(|c| c["met"].is_null()), "{cases:?}");
    // It is about one policy, and sets a `#define` that no other has.
    let args = ["test", "event-filter-off-by-one", "--policy", "all-wbinvd"];
    sevsim(&args).ends(2).says(&["event-filter-off-by-one.litmus:16:12", "SEV_FLUSH_EVENTS"]);
}

#[test]
fn what_goes_with_no_kernel_policy_or_part_that_was_named_is_left_out_of_a_sweep() {
    // Nothing that 5.5 has asks this policy: not even the test that expects that of another.
    let args = ["test", "--kernel", "linux-5.5", "--policy", "page-flush-msr", "--format", "json"];
    let cases = sevsim(&args).ends(2).says(&["nothing was checked"]).json();
    assert!(cases.len() > 200 && cases.iter().all(|c| c["verdict"] == "refused" && c["met"].is_null()));
    // A value that was given for nothing is no test's mistake.
    let args = ["test", "--kernel", "linux-5.5", "--policy", "no-flush", "-D", "NO_SUCH=0"];
    sevsim(&args).ends(2).says(&["--define: no text has `#define NO_SUCH`"]);
    let args = ["check", "two-flushers", "--part", "rome", "--policy", "no-flush", "-D", "NO_SUCH=0"];
    let said = sevsim(&args).ends(2).err;
    assert!(said.starts_with("error: --define: no text has `#define NO_SUCH`"), "{said}");
    assert!(!said.contains("litmus"), "{said}");
}

#[test]
fn a_litmus_file_may_have_the_line_ends_of_windows() {
    let folder = Folder::new();
    let good = sevsim(&["show", "litmus", "reclaim-one-vcpu"]).ends(0).out;
    folder.file("dos.litmus", good.replace('\n', "\r\n"));
    sevsim_in(&folder, &["check", "dos.litmus", "--part", "rome", "--policy", "no-flush"]).ends(3);
}

#[test]
fn nothing_but_a_policy_is_read_where_a_policy_should_be() {
    let folder = Folder::new();
    folder.file("deep.c", policy(&"(".repeat(5000)));
    folder.file("elf.c", b"\x7fELF\x01\x02\0\0");
    folder.file("comment.c", "void sev_vcpu_put(struct kvm_vcpu *v) {} /* never ends");
    folder.file("huge.c", "int x = 99999999999999999999999999;\n");
    for (name, said) in [
        ("deep.c", "deep.c:3:48"),
        ("elf.c", "elf.c:1:1"),
        ("comment.c", "comment.c:1:42"),
        ("huge.c", "huge.c:1:9"),
        ("/dev/null", "the file is empty"),
        ("-", "there is no policy `-`"),
        ("", "there is no policy ``"),
    ] {
        let ran = sevsim_in(&folder, &["check", "reclaim-one-vcpu", "--part", "rome", "--policy", name]);
        assert!(ran.out.is_empty(), "{name}");
        ran.ends(2).says(&[said]);
    }
    let twice =
        ["check", "reclaim-one-vcpu", "--part", "rome", "--policy", "no-flush", "--policy", "no-flush"];
    assert_eq!(sevsim(&twice).ends(3).out.matches("VIOLATED").count(), 1);
}

#[test]
fn parts_that_are_wrong() {
    let good = sevsim(&["show", "part", "rome", "--text"]).ends(0).out;
    let folder = Folder::new();
    let without_unit = good.replacen(", unit = \"GHz\"", "", 1);
    for (what, text) in [
        ("an unknown key", good.replacen("[topology]", "[topology]\ncolour = 1", 1)),
        ("a number without unit", without_unit),
        ("a wrong unit", good.replacen("unit = \"GHz\"", "unit = \"parsec\"", 1)),
        ("no TOML", "= = =\n".to_owned()),
    ] {
        assert_ne!(text, good, "{what}");
        folder.file("bad.toml", text);
        let ran = sevsim_in(&folder, &["check", "reclaim-one-vcpu", "--part", "bad.toml"]);
        assert_eq!(ran.code, 2, "{what}\n{}", ran.err);
        ran.ends(2).says(&["bad.toml:"]);
        sevsim_in(&folder, &["compare", "--part", "bad.toml"]).ends(2).says(&["bad.toml:"]);
    }
}

/// A VM beside those of a scenario, without what its guest does.
const VM: &str = "\n[[vm]]\nname = \"third\"\nvcpus = 1\npcpus = [10]\naccesses = 1000\n";

#[test]
fn scenarios_that_are_wrong() {
    let good = sevsim(&["show", "scenario", "numa-churn"]).ends(0).out;
    let folder = Folder::new();
    for (what, text, said) in [
        ("an unknown key", good.replacen("pcpus = 16", "pcpus = 16\ncolour = 1", 1), "bad.toml:"),
        ("a time without unit", good.replacen("after = \"5us\"", "after = \"5\"", 1), "missing unit"),
        ("no pCPU", good.replacen("pcpus = 16", "pcpus = 0", 1), "expected at least 1"),
        ("too many pCPUs", good.replacen("pcpus = 16", "pcpus = 9999", 1), "expected 1 to 384"),
        ("too few pCPUs", good.replacen("pcpus = 16", "pcpus = 2", 1), "of 0 to 1"),
        (
            "two reclaimers on one pCPU",
            good.replacen("pcpus = [15]", "pcpus = [14]", 1),
            "bad.toml:31:1: reclaim1 has no pCPU of its own: [14] is taken by reclaim0",
        ),
        (
            "a vCPU and a reclaimer on one pCPU",
            good.replacen("pcpus = [6, 7, 8, 9]", "pcpus = [6, 7, 8, 15]", 1),
            "bad.toml:31:1: reclaim1 has no pCPU of its own: [15] is taken by neighbour.vcpu3",
        ),
        (
            "a pCPU twice, with a vCPU on each",
            good.replacen("pcpus = [6, 7, 8, 9]", "pcpus = [6, 7, 8, 8]", 1),
            "bad.toml:17:1: neighbour.vcpu3 has no pCPU of its own: [8] is taken by neighbour.vcpu2",
        ),
        (
            "an unknown part",
            good.replacen("part = \"genoa\"", "part = \"genua\"", 1),
            "did you mean `genoa`?",
        ),
        (
            "an unknown part, its place",
            good.replacen("part = \"genoa\"", "part = \"genua\"", 1),
            "bad.toml:2:1:",
        ),
        (
            "a guest without pages",
            format!("{good}{VM}guest = {{ uniform = {{ pages = 0, write_percent = 50 }} }}\n"),
            "bad.toml:43:23: guest uniform: pages = 0 is out of range",
        ),
        (
            "a percentage beyond 100",
            format!("{good}{VM}guest = {{ uniform = {{ pages = 10, write_percent = 150 }} }}\n"),
            "bad.toml:43:35: guest uniform: write_percent = 150 is out of range",
        ),
        (
            "a pCPU that is not there",
            good.replacen("pcpus = [15]", "pcpus = [99]", 1),
            "bad.toml:31:1: pCPU 99 of 0 to 15",
        ),
        ("an unknown trace", good.replacen("sqlite3-insert-select", "sqlite4", 1), "sqlite3-insert-select"),
        ("an unknown entry", good.replacen("madvise_dontneed", "madvise_dontned", 1), "madvise_dontned"),
    ] {
        assert_ne!(text, good, "{what}: the scenario has changed, and so must this test");
        folder.file("bad.toml", text);
        let ran = sevsim_in(&folder, &["compare", "bad.toml", "--policy", "no-flush"]);
        assert_eq!(ran.code, 2, "{what}\n{}\n{}", ran.out, ran.err);
        ran.ends(2).says(&[said]);
    }
}

#[test]
fn numbers_that_are_wrong() {
    let cases: [&[&str]; 17] = [
        &["compare", "--runs", "0"],
        &["compare", "--runs", "-1"],
        &["compare", "--runs", "many"],
        &["compare", "--seed", "-1"],
        &["compare", "--seed", "18446744073709551615", "--runs", "2"],
        &["compare", "--accesses", "0"],
        &["compare", "--pcpus", "0"],
        &["compare", "--pcpus", "1"],
        &["compare", "--pcpus", "385"],
        &["compare", "--pcpus", "70000"],
        &["check", "reclaim-one-vcpu", "--states", "0"],
        &["check", "reclaim-one-vcpu", "--depth", "0"],
        &["check", "reclaim-one-vcpu", "--memory", "8"],
        &["check", "reclaim-one-vcpu", "--memory", "8 parsecs"],
        &["check", "reclaim-one-vcpu", "--format", "xml"],
        &["check"],
        &["run", "numa-churn"],
    ];
    for args in cases {
        let ran = sevsim(args);
        assert!(ran.out.is_empty(), "{args:?}");
        assert!(ran.err.starts_with("error:"), "{args:?}\n{}", ran.err);
        ran.ends(2);
    }
}

#[test]
fn traces_that_cannot_be_used() {
    let folder = Folder::new();
    folder.file("empty.lackey", "");
    folder.file("prose.lackey", "It was a dark and stormy night.\n");
    folder.file("cut.zst", [0x28, 0xb5, 0x2f, 0xfd, 0x24]);
    for file in ["missing.lackey", "empty.lackey", "prose.lackey", "cut.zst", "."] {
        let args = ["run", "numa-churn", "--policy", "no-flush", "--guest-trace", file];
        let ran = sevsim_in(&folder, &args);
        assert!(ran.out.is_empty());
        ran.ends(2).says(&[file]);
    }
    sevsim_with(b"", &["run", "numa-churn", "--policy", "no-flush", "--guest-trace", "-"]).ends(2);
}

/// Each way round such a loop is a step: one step has not as many outcomes as there are ways to go round.
#[test]
fn a_loop_of_choices_is_searched_like_any_other() {
    let folder = Folder::new();
    let body = "\tfor (;;) {\n\t\tif (maybe())\n\t\t\tn = n + 1;\n\t}";
    folder.file("loop.c", format!("u8 n;\n{}", policy(body)));
    let args = ["check", "reclaim-one-vcpu", "--part", "rome", "--policy", "loop.c", "--states", "50k"];
    let ran = sevsim_in(&folder, &args);
    assert!([0, 5].contains(&ran.code), "{}\n{}", ran.out, ran.err);
}

#[test]
fn schedules_that_are_wrong() {
    let folder = Folder::new();
    let args =
        ["check", "reclaim-one-vcpu", "--policy", "no-flush", "--part", "rome", "--save-schedule", "good"];
    sevsim_in(&folder, &args).ends(3);
    let good = folder.read("good");
    let last = good.lines().last().unwrap().to_owned();
    for (what, text, said) in [
        ("another file", "hello\n".to_owned(), "bad:1"),
        ("a field missing", good.replacen("policy ", "policies ", 1), "bad:3"),
        (
            "an unknown policy",
            good.replacen("policy no-flush", "policy no-flash", 1),
            "did you mean `no-flush`?",
        ),
        ("an unknown event", good.replacen("event latent", "event laten", 1), "unknown event"),
        ("an unknown actor", good.replacen("vcpu0", "vcpu7", 1), "no actor `vcpu7`"),
        ("a choice that is no number", good.replacen("steps\n", "steps\nvcpu0 x\n", 1), "not a number"),
        ("a step too many", format!("{good}{last}\n{last}\n"), "bad:"),
        (
            "choices too many",
            format!("{}{} 0 0 0 0\n", good.strip_suffix(&format!("{last}\n")).unwrap(), last),
            "bad:",
        ),
        ("JSON of something else", "{\"a\": 1}\n".to_owned(), "no line has a schedule"),
        ("broken JSON", "{\"schedule\": \n".to_owned(), "bad:1"),
    ] {
        folder.file("bad", text);
        let ran = sevsim_in(&folder, &["replay", "bad"]);
        assert_eq!(ran.code, 2, "{what}\n{}\n{}", ran.out, ran.err);
        ran.ends(2).says(&[said]);
    }
}
