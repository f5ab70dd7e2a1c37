//! Listings of small functions, by which the lowering and the optimiser can be read.

use std::fmt::Write as _;

use super::{code, config, golden};

/// Each with what it shows.
const SHOWN: &[(&str, &str, u16, u8)] = &[
    (
        "a mask is copied and cleared word by word",
        "cpumask_t m; void test(void) { cpumask_t l; cpumask_copy(&l, &m); cpumask_clear(&m); csd_lock_wait_mask(&l); }",
        3,
        2,
    ),
    (
        "a guard gives back at each return",
        "DEFINE_MUTEX(m); int x; int test(void) { guard(mutex)(&m); if (x) return 1; x = 2; return 0; }",
        2,
        64,
    ),
    (
        "constants and copies vanish",
        "#define ON 1\nint x; static int id(int n) { int k = n; return k; } void test(void) { int a = id(3); if (ON) x = a + id(4); else x = 9; }",
        2,
        64,
    ),
    (
        "a shared mask is read again for each pCPU",
        "cpumask_t m; void test(void) { int cpu; for_each_cpu(cpu, &m) cpumask_clear_cpu(cpu, &m); }",
        2,
        64,
    ),
    (
        "loops over vCPUs",
        "struct kvm_vcpu { bool request; }; void test(struct kvm *kvm) { int i; struct kvm_vcpu *v; kvm_for_each_vcpu(i, v, kvm) WRITE_ONCE(v->request, true); }",
        2,
        64,
    ),
    (
        "a parameter that changes, and one that does not",
        "int x; void test(int n, struct page *page) { while (n > 0) { host_read(page); n--; } }",
        2,
        64,
    ),
    (
        "a handler and who sends it",
        "static void handler(void *info) { struct kvm *kvm = info; if (kvm == vm1) wbinvd(); } void test(void) { call_single_queue(1, handler, vm0, true); call_single_queue(0, handler, vm1, false); }",
        2,
        64,
    ),
    (
        "a spinlock closes windows",
        "DEFINE_SPINLOCK(s); DEFINE_PER_CPU(int, v); void test(void) { spin_lock_irq(&s); __this_cpu_write(v, this_cpu_read(v) + 1); spin_unlock_irq(&s); }",
        2,
        64,
    ),
];

#[test]
fn small_functions_compile_to_what_is_expected() {
    let mut out = String::new();
    for (what, text, pcpus, word_bits) in SHOWN {
        let code = code(text, &["test"], &config(*pcpus, *word_bits));
        let _ = writeln!(out, "--- {what}\n\n{text}\n\n{}", code.listing());
    }
    golden::compare("listings.txt", &out);
}

#[test]
fn every_operation_has_its_place_in_the_text() {
    let text = "int x;\nstatic void inner(void)\n{\n\tx =\n\t\tx + 1;\n}\nvoid test(void)\n{\n\tif (x == 3)\n\t\tinner();\n}\n";
    let code = code(text, &["test"], &config(2, 64));
    assert_eq!(code.places.len(), code.ops.len());
    let shown: Vec<String> = code
        .places
        .iter()
        .zip(&code.ops)
        .filter(|(_, op)| op.is_rest())
        .map(|(p, op)| {
            let text = &code.texts[usize::try_from(p.text).expect("small")];
            format!("{}:{}:{} {text} | {}", code.files[usize::from(p.file)], p.line, p.column, code.show(*op))
        })
        .collect();
    assert_eq!(
        shown,
        [
            "test.c:9:6 if (x == 3) | r0 = load x",
            "test.c:5:3 x = x + 1; | r0 = load x",
            "test.c:4:2 x = x + 1; | store x = r0",
            "test.c:11:1 } | halt",
        ]
    );
}

#[test]
fn equal_inputs_give_equal_programs() {
    let kernel = super::texts::kernel();
    let build = || {
        let source = crate::Source { file: "k.c", text: &kernel, role: crate::Role::Kernel };
        crate::compile(&[source], &super::texts::find, &["vcpu_thread", "madvise_dontneed"], &config(4, 2))
            .expect("compiles")
    };
    assert_eq!(build(), build());
}
