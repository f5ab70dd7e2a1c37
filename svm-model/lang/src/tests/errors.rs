//! What errors look like: each kind once, with its place, its mark and its help.

use std::fmt::Write as _;

use super::{config, golden};
use crate::{Diag, Role, Source, compile, no_includes};

const KERNEL: &str = "struct kvm { cpumask_t dirty; struct mutex lock; };\n\
    struct kvm_vcpu { int cpu; };\n\
    DEFINE_PER_CPU(int, seen);\n\
    void pre_sev_run(struct kvm_vcpu *vcpu, int cpu);\n\
    void sev_vcpu_put(struct kvm_vcpu *vcpu);\n\
    static void each(const struct cpumask *mask, smp_call_func_t fn, void *info) { call_single_queue(0, fn, info, true); }\n\
    void enter(struct kvm_vcpu *vcpu) { pre_sev_run(vcpu, 0); sev_vcpu_put(vcpu); }\n";

/// Errors of a policy against the small kernel above.
fn errors(policy: &str) -> Vec<Diag> {
    let sources = [
        Source { file: "kernel.c", text: KERNEL, role: Role::Kernel },
        Source { file: "policy.c", text: policy, role: Role::Policy },
    ];
    compile(&sources, &no_includes, &["enter"], &config(2, 64)).err().unwrap_or_default()
}

/// The first error of a policy, as it is shown.
pub(super) fn first(policy: &str) -> String {
    errors(policy).first().map_or(String::new(), ToString::to_string)
}

/// Wrong texts, each with what it shows.
const WRONG: &[(&str, &str)] = &[
    ("a forgotten semicolon", "static void f(void)\n{\n\tint x = 1\n\tx++;\n}\n"),
    ("no hook of that name", "void pre_sev_runn(struct kvm_vcpu *vcpu, int cpu)\n{\n}\n"),
    ("a hook with other parameters", "void pre_sev_run(struct kvm_vcpu *vcpu)\n{\n}\n"),
    ("a static hook", "static void sev_vcpu_put(struct kvm_vcpu *vcpu) { }\n"),
    ("an unknown field", "void sev_vcpu_put(struct kvm_vcpu *vcpu) { vcpu->kvm->dirt = 1; }\n"),
    ("an unknown name", "void sev_vcpu_put(struct kvm_vcpu *vcpu) { vcpux->cpu = 1; }\n"),
    (
        "an unknown function",
        "void sev_vcpu_put(struct kvm_vcpu *vcpu) { cpumask_set(1, &vcpu->kvm->dirty); }\n",
    ),
    (
        "too few arguments",
        "void sev_vcpu_put(struct kvm_vcpu *vcpu) { cpumask_set_cpu(&vcpu->kvm->dirty); }\n",
    ),
    (
        "a mask without &",
        "void sev_vcpu_put(struct kvm_vcpu *vcpu) { cpumask_set_cpu(1, vcpu->kvm->dirty); }\n",
    ),
    (
        "a wrong argument",
        "static void f(struct kvm *kvm) { }\nvoid sev_vcpu_put(struct kvm_vcpu *vcpu) { f(vcpu); }\n",
    ),
    (
        "recursion",
        "static void f(int n);\nstatic void g(int n) { f(n - 1); }\nstatic void f(int n) { if (n) g(n); }\n",
    ),
    ("an endless loop", "static void f(bool ready)\n{\n\twhile (!ready)\n\t\tbarrier();\n}\n"),
    ("a field twice", "struct kvm {\n\tint dirty;\n};\n"),
    ("a number that does not fit", "int budget = 1000;\nstatic void f(void) { int n = 300; }\n"),
    (
        "a number for a truth value",
        "bool flag;\nstatic void f(void) { bool one = 1, set = !2; flag = 77; flag = 6 & 4; }\n",
    ),
    (
        "a shared mask where a local one is needed",
        "static void f(struct kvm *kvm) { csd_lock_wait_mask(&kvm->dirty); }\n",
    ),
    (
        "a handler of another shape",
        "static void f(struct kvm *kvm) { }\nstatic void g(struct kvm *kvm) { each(&kvm->dirty, f, kvm); }\n",
    ),
    ("a guest's access in a policy", "static void f(struct page *page) { guest_write(page); }\n"),
    (
        "a goto past a guard",
        "static void f(struct kvm *kvm)\n{\n\tgoto out;\n\tguard(mutex)(&kvm->lock);\nout:\n\tbarrier();\n}\n",
    ),
    ("a per-CPU variable by its name", "static int f(void) { return seen; }\n"),
    ("0 for the null reference", "static bool f(struct kvm *kvm) { return kvm == 0; }\n"),
    (
        "a VM's structure of KVM's own",
        "static void f(struct kvm *kvm) { struct kvm_sev_info *sev = to_kvm_sev_info(kvm); }\n",
    ),
    (
        "a vCPU's structure of KVM's own",
        "static void f(struct kvm_vcpu *vcpu) { int n = to_svm(vcpu)->vcpu; }\n",
    ),
    ("a field behind arch", "static void f(struct kvm_vcpu *vcpu) { vcpu->arch.cpu = 1; }\n"),
    ("a lock of another kind", "static void f(void) { rcu_read_lock(); rcu_read_unlock(); }\n"),
    ("a message", "static void f(int n) { if (n) pr_warn_once(\"n is %d\\n\", n); }\n"),
    (
        "a handler that sends IPIs",
        "static void g(void *u) { }\nstatic void h(void *u) { send(g); }\nstatic void send(smp_call_func_t fn) { call_single_queue(1, fn, NULL, true); fn(NULL); }\nstatic void f(void) { send(h); }\n",
    ),
    ("a class", "static void f(void) { CLASS(cpumask, m)(GFP_KERNEL); }\n"),
    (
        "a list",
        "static void f(struct kvm *kvm) { list_for_each_entry(pos, &kvm->list, node) { barrier(); } }\n",
    ),
    ("a loop over bits", "static void f(void) { int n; for_each_set_bit(n, bits, 4) barrier(); }\n"),
    (
        "a type of the kernel's",
        "atomic64_t n;\nstruct kvm { wait_queue_head_t wq; };\nstatic void f(void) { seqcount_t seq; }\n",
    ),
    ("a bitmap", "struct kvm { DECLARE_BITMAP(bits, 4); };\n"),
    (
        "calls of the kernel's",
        "static void f(struct kvm *kvm, struct kvm_vcpu *vcpu) { smp_call_function_any(&kvm->dirty, f, kvm, 1); kvm_make_request(1, vcpu); on_each_cpu_cond(f, f, kvm, 1); read_seqcount_begin(&kvm->dirty); }\n",
    ),
    ("the preprocessor", "#include <linux/kvm_host.h>\nint x;\n"),
    (
        "several errors at once",
        "static int f(int a) { return b; }\nstatic void g(void) { int x = c; y = 1; f(); }\n",
    ),
];

#[test]
fn errors_point_at_the_source_and_say_what_would_be_right() {
    let mut out = String::new();
    for (what, policy) in WRONG {
        let _ = writeln!(out, "--- {what}\n");
        let found = errors(policy);
        assert!(!found.is_empty(), "{what}");
        for diag in found {
            assert!(diag.line > 0 && diag.column > 0 && !diag.source_line.is_empty(), "{what}");
            let _ = writeln!(out, "{diag}\n");
        }
    }
    golden::compare("errors.txt", &out);
}

/// Some of the above, for the documentation.
pub(super) fn examples() -> String {
    let mut out = String::new();
    for wanted in ["no hook of that name", "a mask without &", "an endless loop", "recursion"] {
        let (_, policy) = WRONG.iter().find(|(what, _)| *what == wanted).expect("an example");
        for diag in errors(policy) {
            let _ = writeln!(out, "```text\n{diag}\n```\n");
        }
    }
    out
}

/// Texts that are wrong in one way each, and a word of the error.
#[test]
fn what_is_not_of_the_language_is_refused() {
    let cases = [
        ("int f(void) { return 1; } int f(void) { return 2; }", "defined twice"),
        ("int x; int x;", "declared twice"),
        ("int nr_cpu_ids;", "declared twice"),
        ("void READ_ONCE(int x) { }", "built in"),
        ("int a[0];", "0 elements"),
        ("int a[2]; void f(void) { a[2] = 1; }", "no element 2"),
        ("int a[2]; void f(void) { a = 1; }", "array cannot be assigned"),
        ("cpumask_t m; void f(void) { m = 1; }", "not assigned"),
        ("void f(void) { int x; int x; }", "twice in this block"),
        ("void f(void) { break; }", "outside of a loop"),
        ("void f(void) { continue; }", "outside of a loop"),
        ("void f(void) { fallthrough; }", "does not fall"),
        ("void f(int x) { switch (x) { case 1: case 1: ; } }", "this label already"),
        ("void f(int x) { switch (x) { { case 1: ; } } }", "not directly"),
        ("void f(int x) { switch (x) { case x: ; } }", "not a constant"),
        ("void f(void) { goto nowhere; }", "no label"),
        ("void f(void) { a: ; a: ; }", "stands twice"),
        ("int f(void) { return; }", "returns a `int`"),
        ("void f(void) { return 1; }", "returns `void`"),
        ("struct foo { int x; };", "says how many `struct foo` there can be"),
        ("DEFINE_OBJECTS(struct foo, 65);", "expected 1 to 64"),
        ("DEFINE_OBJECTS(struct page, 2);", "is built in"),
        ("DEFINE_OBJECTS(struct foo, 2); DEFINE_OBJECTS(struct foo, 2);", "declared twice"),
        ("void f(struct foo *p) { }", "unknown `struct foo`"),
        ("struct foo *p;", "unknown `struct foo`"),
        ("void f(void) { kzalloc(sizeof(struct kvm), GFP_KERNEL); }", "not the size"),
        ("void f(void) { kfree(vm0); }", "expected a `struct name *object`"),
        ("cpumask_var_t m[2];", "array of `cpumask_t`"),
        ("struct kvm k;", "only referred to"),
        ("void f(struct kvm **k) { }", "no such pointer"),
        ("float x;", "not a type"),
        ("void f(cpumask_t m) { }", "parameter cannot be"),
        ("cpumask_t f(void) { }", "cannot return"),
        ("enum e x;", "unknown `enum e`"),
        ("int x : 3;", "`;` is missing"),
        ("struct kvm { int x : 99; };", "99 bits"),
        ("cpumask_t m = 1;", "start empty"),
        ("struct kvm *k = 1;", "cannot start"),
        ("void f(void) { int x = 1; xchg(&x, 2); }", "local variable"),
        ("void f(void) { int c; for_each_possible_cpu(c) { c = 1; } }", "moved by the loop"),
        ("int c; void f(void) { for_each_possible_cpu(c) { } }", "cannot be the loop's variable"),
        ("void f(void) { for (;;) { } }", "endless"),
        ("void f(void) { a: goto a; }", "endless"),
        ("void f(bool b) { while (1) { if (b) break; } }", "endless"),
        ("void f(void) { while (1) { bool x = true; if (x) continue; } }", "endless"),
        ("void f(void) { any_of(0); }", "`0` is no number of ways to choose from"),
        ("void f(int n) { any_of(n); }", "expected a `constant n` from 1 to 255"),
        ("void f(void) { any_of(256); }", "expected a `constant n` from 1 to 255"),
        ("void f(struct kvm *k) { k.x = 1; }", "no `.`"),
        ("void f(struct kvm *k) { *k = 1; }", "not followed"),
        ("void f(struct kvm *k) { k->x = 1; }", "no field"),
        ("void f(void *p) { p->x = 1; }", "no fields"),
        ("void f(struct kvm *k, struct page *p) { if (k == p) ; }", "no such operation"),
        ("void f(struct kvm *k) { k + 1; }", "no such operation"),
        ("void f(int x) { x(); }", "not a function"),
        ("void f(void) { mutex_trylok(1); }", "did you mean `mutex_trylock`?"),
        ("void f(void) { set_cpu_online(1, false); }", "declare `cpumask_t cpu_online_mask;`"),
        ("void f(void) { cpumask_clear(cpumask_of(1)); }", "struct cpumask *mask"),
        ("DEFINE_PER_ASID(int, x); int f(void) { return x; }", "per_asid(x, asid)"),
        ("DEFINE_PER_ASID(int, x); int f(void) { return per_cpu(x, 1); }", "not a per-CPU variable"),
        (
            "struct kvm { cpumask_t m; }; void f(struct kvm *k) { zalloc_cpumask_var(&k->m, 0); }",
            "cpumask_var_t",
        ),
        ("int g; void f(void) { try_cmpxchg(&g, &g, 1); }", "address of a local number"),
        ("const int n;", "is constant"),
        ("void f(void) { mutex_trylock(1); }", "struct mutex *lock"),
        ("struct rw_semaphore s; void f(void) { mutex_lock(&s); }", "struct mutex *lock"),
        ("struct rwsem s;", "rw_semaphore"),
        ("DECLARE_RWSEM(s); void f(void) { guard(rwsem)(&s); }", "did you mean `rwsem_read`?"),
        ("DEFINE_SPINLOCK(s); int g; void f(void) { spin_lock_irqsave(&s, g); }", "kept in a local"),
        ("void g(void); void f(void) { g(); }", "never defined"),
        ("#define A(x) x", "macros with arguments"),
        ("#define A 1 2", "end of the line"),
        ("int x = y;", "unknown constant"),
        ("char *s = \"x\";", "strings"),
        ("DEFINE_MUTEX(m); void f(void) { mutex_lock(m); }", "take its address"),
        ("DEFINE_MUTEX(m); void f(void) { guard(mutex)(m); }", "pointer to a `struct mutex`"),
        ("void f(void) { cpumask_set_cpu(1, cpu_possible_mask); }", "struct cpumask *mask"),
        ("int f(void) { } void g(void) { case 1: ; }", "not directly"),
        ("void f(void) { if (1) int x; }", "whole body"),
        ("void f(void) { else ; }", "without an `if`"),
        ("void f(void) {", "never closed"),
        ("void f(int a, int b) { } void g(void) { f(1); }", "2 arguments expected, 1 given"),
    ];
    for (text, word) in cases {
        let found = compile(&[super::litmus(text)], &no_includes, &[], &config(2, 64));
        let text_of = |diags: &[Diag]| diags.iter().map(|d| format!("{d}\n")).collect::<String>();
        let shown = found.err().map(|d| text_of(&d)).unwrap_or_default();
        assert!(shown.contains(word), "{text}\nwanted: {word}\n{shown}");
    }
}

#[test]
fn calls_that_multiply_are_refused_even_if_they_come_to_nothing() {
    // Each function calls the next twice: 2^40 calls.
    let mut text = "static void f0(void) { barrier(); }\n".to_owned();
    for n in 1..=40 {
        let _ = writeln!(text, "static void f{n}(void) {{ f{0}(); f{0}(); }}", n - 1);
    }
    let found = compile(
        &[super::litmus(&format!("{text}void f(void) {{ f40(); }}"))],
        &no_includes,
        &["f"],
        &config(2, 64),
    );
    let shown: String = found.unwrap_err().iter().map(|d| format!("{d}\n")).collect();
    assert!(shown.contains("`f` is too large once its calls are inlined"), "{shown}");
}

#[test]
fn a_wrong_number_of_objects_is_said_once() {
    let text = "struct foo { int x; }; DEFINE_OBJECTS(struct foo, 65); struct foo *p;";
    let found = compile(&[super::litmus(text)], &no_includes, &[], &config(2, 64)).unwrap_err();
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn guests_and_others_are_told_apart() {
    let text = "int word; static void helper(void) { guest_read(P); }\n\
        void guest(void) { guest_write(P); if (maybe()) helper(); WRITE_ONCE(word, 1); }\n\
        void wrong_guest(void) { zap_spte(vm0, P); }\nvoid task(void) { helper(); }\nvoid fine(void) { free_page(P); }";
    let asked = |entries: &[&str]| {
        let guests = Some(vec!["guest".to_owned(), "wrong_guest".to_owned()]);
        let found = compile(
            &[super::litmus(text)],
            &no_includes,
            entries,
            &crate::Config { guests, ..config(2, 64) },
        );
        found.err().unwrap_or_default().iter().map(|d| format!("{d}\n")).collect::<String>()
    };
    assert_eq!(asked(&["guest", "fine"]), "");
    assert!(asked(&["wrong_guest"]).contains("a guest cannot call `zap_spte`"));
    assert!(asked(&["task"]).contains("only a guest can call `guest_read`"));
}

#[test]
fn what_is_of_the_language_is_not_refused() {
    let fine = [
        "void f(int x) { while (x) { x--; } }",
        "void f(bool b) { while (b) { b = false; } }",
        "int g; void f(void) { while (!g) barrier(); }",
        "void f(void) { while (maybe()) ; }",
        "void f(void) { for (int i = 0; i < 4; i++) ; }",
        "void f(void) { int c; for_each_possible_cpu(c) ; }",
        "void f(int n) { again: if (n-- > 0) goto again; }",
        "static inline bool g(const struct cpumask *m) { return cpumask_empty(m); } void f(void) { g(cpu_online_mask); }",
        "cpumask_t cpu_online_mask; void f(void) { int c; for_each_online_cpu(c) cpu_online(c); }",
        "enum mode { A, B = 5, C, }; enum mode m; void f(void) { m = C; switch (m) { case A: case B: break; } }",
        "#define N (1 << 3) /* a\n comment */\n#define M N + 1 // two\nint a[N]; int x = M;",
        "void g(void (*fn)(void *), void *info) { fn(info); } void h(void *info) { } void f(void) { g(h, NULL); }",
        "static DEFINE_PER_CPU(struct kvm_vcpu *, p); void f(void) { struct kvm_vcpu *v = this_cpu_read(p); }",
        "void f(struct mutex *m) { guard(mutex)(m); }",
        "int f(void) { return 1; } bool g(void) { return f(); } void h(void) { return; }",
        "void f(struct kvm *k) { struct kvm *other = k ? k : NULL; other = vm0; }",
        "void f(void *info) { struct page *p = info; long n = (long)p; p = (struct page *)n; }",
        "struct kvm { cpumask_var_t m; }; void f(struct kvm *k) { struct cpumask *m = k->m; cpumask_clear(m); }",
        "void f(unsigned long flags) { local_irq_save(flags); local_irq_restore(flags); }",
    ];
    for text in fine {
        if let Err(diags) = compile(&[super::litmus(text)], &no_includes, &[], &config(2, 64)) {
            panic!("{text}\n{}", diags.iter().map(|d| format!("{d}\n")).collect::<String>());
        }
    }
}

#[test]
fn what_a_kernel_does_not_have_is_refused_where_an_actor_comes_to_it() {
    let found = |body: &str| {
        let text =
            format!("#define OLD 0\nint g;\nvoid gone(void) {{ BUILD_BUG(); }}\nvoid t(void) {{ {body} }}\n");
        let diags = compile(&[super::litmus(&text)], &no_includes, &["t"], &config(2, 64)).err();
        diags.unwrap_or_default().iter().map(|d| (d.line, d.column, d.message.clone())).collect::<Vec<_>>()
    };
    for fine in ["g = 1;", "if (OLD) gone(); g = 1;", "return; gone();"] {
        assert!(found(fine).is_empty(), "{fine}");
    }
    for refused in ["gone();", "if (g) gone(); else gone();", "if (!OLD) gone();"] {
        let said = "this kernel has no `gone`, which `t` calls".to_owned();
        assert_eq!(found(refused), [(3, 19, said)], "{refused}");
    }
}

#[test]
fn errors_without_a_place_are_shown_too() {
    let found = compile(&[super::litmus("void guest(void) { }")], &no_includes, &["gest"], &config(2, 64))
        .unwrap_err();
    let shown: String = found.iter().map(|d| format!("{d}\n")).collect();
    assert!(shown.contains("no function `gest`") && shown.contains("did you mean `guest`?"), "{shown}");
}
