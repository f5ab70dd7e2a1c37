//! Programs do what C says, and cost the steps that the language promises.

use proptest::prelude::*;
use svm_policy::{BinOp, Context, Expr, Op, Operand, REGS, UnOp, step};

use super::mock::{Mock, Run, value};
use super::{code, config};
use crate::{Code, machine};

/// Runs `test` of a text; the first pCPU unless the text asks.
fn run_on(text: &str, pcpus: u16, word_bits: u8, prepare: impl Fn(Mock<'_>) -> Mock<'_>) -> (Code, Run) {
    let config = config(pcpus, word_bits);
    let code = code(text, &["test"], &config);
    let run = prepare(Mock::new(&code, &config)).run(&code.entries[0], &[]);
    (code, run)
}

fn results(text: &str) -> (Code, Run) {
    run_on(text, 3, 64, |m| m)
}

/// The value of `out` after `body` ran.
fn out(body: &str) -> i64 {
    let text =
        format!("int out; int x; bool b; unsigned int u; u8 small; s8 tiny;\nvoid test(void) {{ {body} }}");
    let (code, run) = results(&text);
    value(&code, &run, "out")
}

fn steps(declarations: &str, body: &str, pcpus: u16, word_bits: u8) -> usize {
    let text = format!("{declarations}\nvoid test(void) {{ {body} }}");
    run_on(&text, pcpus, word_bits, |m| m).1.steps
}

#[test]
fn arithmetic_is_that_of_c_in_small_integers() {
    assert_eq!(out("out = 7 / 2 * 3 - 10 % 4;"), 7);
    assert_eq!(out("x = -7; out = x >> 1;"), -4, "arithmetic shift");
    assert_eq!(out("u = 0; u--; out = u > 5;"), 1, "unsigned numbers wrap below 0");
    assert_eq!(out("u = 255; u++; out = u;"), 0, "and above 255");
    assert_eq!(out("x = 127; x++; out = x;"), -128);
    assert_eq!(out("int y = 127; y++; y++; out = y;"), -127, "locals too");
    assert_eq!(out("small = 250; small += 10; out = small;"), 4);
    assert_eq!(out("tiny = -128; tiny--; out = tiny;"), 127);
    assert_eq!(out("x = 3; b = x; out = b;"), 1, "a boolean is 0 or 1");
    assert_eq!(out("int y = -1; unsigned int z = 3; out = y < z;"), 0, "compared as unsigned");
    assert_eq!(out("out = 1 ? 2 : 3;"), 2);
    assert_eq!(out("int y = 5; out = y++ * 10 + y;"), 56);
    assert_eq!(out("int y = 5; out = ++y * 10 + y--;"), 66);
    assert_eq!(out("int y = 6; y <<= 2; y |= 1; y ^= 3; y &= 0x1b; out = y;"), 0x1a);
    assert_eq!(out("out = -(3) + ~0 + !5 + !0;"), -3);
    assert_eq!(out("out = (int)3 + (bool)7;"), 4);
    assert_eq!(out("out = 0 * u - 1;"), -1, "unsigned arithmetic that is known is cut, not refused");
}

#[test]
fn control_flow_is_that_of_c() {
    let switch = |n: i64| {
        out(&format!(
            "x = {n}; switch (x) {{ case 0: out += 1; fallthrough; case 1: out += 10; break; case 3: out = 3; \
             default: out += 100; }}"
        ))
    };
    assert_eq!((switch(0), switch(1), switch(2), switch(3)), (11, 10, 100, 103));
    assert_eq!(out("for (int i = 0; i < 10; i++) { if (i == 2) continue; if (i == 5) break; out += i; }"), 8);
    assert_eq!(out("int i = 0; do { out += 3; } while (++i < 3);"), 9);
    assert_eq!(out("int i = 3; while (i) { out += i--; }"), 6);
    assert_eq!(out("int i = 0; again: out += 2; if (++i < 4) goto again; goto end; out = 0; end: out++;"), 9);
    assert_eq!(out("int i; for (i = 0; i < 2; i++) { int j; j += i; out += j; }"), 1, "locals start at 0");
    assert_eq!(out("goto in; { int y = 5; in: out = y; }"), 0, "a declaration that is jumped over");
}

#[test]
fn the_second_side_is_only_evaluated_if_it_matters() {
    let decls = "int x; int y = 1; int out;";
    let test = |body: &str| {
        let text = format!("{decls}\nvoid test(void) {{ {body} }}");
        let (code, run) = run_on(&text, 2, 64, |m| m);
        (run.steps, value(&code, &run, "out"))
    };
    assert_eq!(test("if (x && y) out = 1;"), (1, 0));
    assert_eq!(test("if (y && x) out = 1;"), (2, 0));
    assert_eq!(test("if (y || x) out = 1;"), (2, 1));
    assert_eq!(test("out = x || y;"), (3, 1));
    assert_eq!(test("out = x && y;"), (2, 0));
    assert_eq!(test("out = x ? x : 7;"), (2, 7));
    assert_eq!(test("if (!(x && y) && !x) out = 2;"), (3, 2));
    assert_eq!(test("bool b = x || (y && !x); if (b) out = 4;"), (4, 4));
}

#[test]
fn functions_are_inlined_with_their_values() {
    let text = "int out; int x;\n\
        static int twice(int n) { n = n * 2; return n; }\n\
        static int pick(int a, int b) { if (a > b) return a; return b; }\n\
        static void add(int n) { if (!n) return; out += n; }\n\
        void test(void) { int n = 5; out = twice(n) + n; add(pick(3, twice(2))); add(0); }";
    let (code, run) = results(text);
    assert_eq!(value(&code, &run, "out"), 19);
    let hook = "int out; void test(void) { out = 3; }";
    let (code, run) = results(hook);
    assert_eq!((value(&code, &run, "out"), run.steps), (3, 1));
}

#[test]
fn guards_give_back_at_every_exit() {
    let text = |body: &str| {
        format!(
            "DEFINE_MUTEX(m); DEFINE_SPINLOCK(s); int out;\n\
             static int inner(int n) {{ guard(mutex)(&m); if (n == 1) return 5; out++; return 6; }}\n\
             void test(void) {{ {body} }}"
        )
    };
    let check = |body: &str, steps: usize, expected: i64| {
        let (code, run) = results(&text(body));
        assert_eq!(value(&code, &run, "m"), 0, "{body}");
        assert_eq!(value(&code, &run, "s"), 0, "{body}");
        assert_eq!(value(&code, &run, "out"), expected, "{body}");
        assert_eq!(run.steps, steps, "{body}\n{}", code.listing());
        let opens = run.log.iter().filter(|l| *l == "PreemptDisable").count();
        assert_eq!(opens, run.log.iter().filter(|l| *l == "PreemptEnable").count());
    };
    check("out = inner(1);", 3, 5);
    check("out = inner(2);", 5, 6);
    check(
        "for (int i = 0; i < 3; i++) { guard(mutex)(&m); if (i == 1) break; if (i == 0) continue; out = 9; }",
        4,
        0,
    );
    check("{ guard(mutex)(&m); guard(spinlock)(&s); goto end; } end: out = 2;", 5, 2);
    check("again: { guard(mutex)(&m); if (!out) { out = 1; goto again; } }", 7, 1);
    check("guard(mutex)(&m); goto end; { out = 4; } end: out = 2;", 3, 2);
    check("spin_lock_irq(&s); spin_unlock_irq(&s); out = 1;", 3, 1);
}

#[test]
fn masks_cost_a_step_a_word_where_they_are_shared() {
    let decls = "cpumask_t a; cpumask_t b; cpumask_var_t c; int out;";
    // Three pCPUs in words of two bits are two words.
    let two = |body: &str| steps(decls, body, 3, 2);
    assert_eq!(two("cpumask_copy(&a, &b);"), 4);
    assert_eq!(two("cpumask_clear(&a);"), 2);
    assert_eq!(two("cpumask_setall(c);"), 2);
    assert_eq!(two("cpumask_or(&a, &b, c);"), 6);
    assert_eq!(two("cpumask_t l; cpumask_copy(&l, &a);"), 2);
    assert_eq!(two("cpumask_t l; cpumask_copy(&a, &l);"), 2);
    assert_eq!(two("cpumask_t l; cpumask_andnot(&l, &a, cpu_possible_mask);"), 2);
    assert_eq!(two("cpumask_t l; cpumask_xchg(&l, &a, NULL);"), 2);
    assert_eq!(two("cpumask_set_cpu(2, &a);"), 1);
    assert_eq!(two("cpumask_test_and_clear_cpu(2, &a);"), 1);
    assert_eq!(two("__cpumask_set_cpu(2, &a);"), 2);
    assert_eq!(two("cpumask_test_cpu(2, &a);"), 1);
    assert_eq!(two("cpumask_weight(&a);"), 2);
    assert_eq!(two("cpumask_empty(&a);"), 2);
    assert_eq!(two("cpumask_set_cpu(0, &a); cpumask_empty(&a);"), 2, "the first word has one");
    assert_eq!(two("cpumask_first_and(&a, &b);"), 4, "a word of each, twice");
    assert_eq!(two("int cpu; for_each_cpu_and(cpu, &a, cpu_online_mask) out = 1;"), 2);
    assert_eq!(two("cpumask_set_cpu(0, &a); cpumask_first_and(&a, cpu_online_mask);"), 2);
    assert_eq!(two("cpumask_t l; cpumask_setall(&l); __cpumask_clear_cpu(1, &l); cpumask_weight(&l);"), 0);
    let one = |body: &str| steps(decls, body, 3, 64);
    assert_eq!(one("cpumask_copy(&a, &b);"), 2);
    assert_eq!(one("cpumask_clear(&a);"), 1);
}

#[test]
fn masks_hold_what_they_should() {
    for (pcpus, word_bits) in [(3, 64), (3, 2), (5, 1), (9, 4), (64, 64), (70, 32)] {
        let run = |body: &str| {
            let text = format!(
                "cpumask_t a; cpumask_t b; int out; int seen;\n\
                 static void fill(struct cpumask *m) {{ cpumask_set_cpu(0, m); __cpumask_set_cpu(2, m); }}\n\
                 void test(void) {{ cpumask_t l; int cpu; fill(&a); {body} }}"
            );
            let (code, run) = run_on(&text, pcpus, word_bits, |m| m.choices(&[1]));
            value(&code, &run, "out")
        };
        assert_eq!(
            run("out = cpumask_weight(&a) * 10 + cpumask_test_cpu(2, &a) - cpumask_test_cpu(1, &a);"),
            21
        );
        assert_eq!(run("cpumask_copy(&b, &a); __cpumask_clear_cpu(0, &b); out = cpumask_first(&b);"), 2);
        assert_eq!(run("cpumask_copy(&l, &a); out = cpumask_any(&l);"), 2);
        assert_eq!(run("out = cpumask_next(0, &a) * 10 + cpumask_next(-1, &a);"), 20);
        assert_eq!(run("out = cpumask_next(2, &a) == nr_cpu_ids;"), 1);
        assert_eq!(run("cpumask_copy(&l, &a); out = cpumask_next(0, &l) * 10 + cpumask_next(-1, &l);"), 20);
        assert_eq!(run("for_each_cpu(cpu, &a) { out = out * 10 + cpu + 1; }"), 13);
        assert_eq!(
            run("cpumask_copy(&l, &a); for_each_cpu(cpu, &l) out = out * 10 + cpu + 1; out += cpu * 0;"),
            13
        );
        assert_eq!(run("for_each_cpu(cpu, &a) { if (cpu == 0) continue; out += cpu; break; }"), 2);
        assert_eq!(run("unsigned int n = 0; for_each_possible_cpu(cpu) n++; out = n == nr_cpu_ids;"), 1);
        assert_eq!(run("for_each_online_cpu(cpu) { if (cpu > 1) break; out += 5; }"), 10);
        assert_eq!(run("cpumask_xchg(&l, &a, NULL); out = cpumask_empty(&a) * 10 + cpumask_weight(&l);"), 12);
        assert_eq!(run("cpumask_set_cpu(1, &b); cpumask_or(&b, &b, &a); out = cpumask_weight(&b);"), 3);
        assert_eq!(
            run(
                "cpumask_set_cpu(1, &b); cpumask_set_cpu(2, &b); for_each_cpu_and(cpu, &a, &b) out = out * 10 + cpu;"
            ),
            2
        );
        assert_eq!(
            run("cpumask_set_cpu(2, &b); for_each_cpu_andnot(cpu, &a, &b) out = out * 10 + cpu + 1;"),
            1
        );
        assert_eq!(run("for_each_cpu_and(cpu, &a, cpu_online_mask) out = out * 10 + cpu + 1;"), 13);
        assert_eq!(
            run("out = cpumask_first_and(&a, &a) * 10 + cpumask_next_and(0, &a, cpu_possible_mask);"),
            2
        );
        assert_eq!(
            run(
                "out = cpumask_first_and(&a, &b) == nr_cpu_ids && cpumask_next_and(2, &a, &a) == nr_cpu_ids;"
            ),
            1
        );
        assert_eq!(
            run("cpumask_set_cpu(2, &b); out = cpumask_and(&l, &a, &b) * 10 + cpumask_first(&l);"),
            12
        );
        assert_eq!(
            run("cpumask_set_cpu(2, &b); out = cpumask_andnot(&l, &a, &b) * 10 + cpumask_first(&l);"),
            10
        );
        assert_eq!(
            run("cpumask_copy(&b, &a); out = cpumask_equal(&a, &b) * 10 + cpumask_subset(&a, &b);"),
            11
        );
        assert_eq!(
            run("cpumask_set_cpu(2, &b); out = cpumask_equal(&a, &b) * 10 + cpumask_subset(&a, &b);"),
            0
        );
        assert_eq!(
            run("cpumask_set_cpu(2, &b); out = cpumask_subset(&b, &a) * 10 + cpumask_intersects(&b, &a);"),
            11
        );
        assert_eq!(run("out = cpumask_test_and_set_cpu(1, &a) * 10 + cpumask_test_and_clear_cpu(2, &a);"), 1);
        assert_eq!(
            run("cpumask_setall(&b); out = cpumask_weight(&b) == nr_cpu_ids && !cpumask_empty(&b);"),
            1
        );
        assert_eq!(
            run("__cpumask_set_cpu(1, &l); out = cpumask_test_cpu(1, &l) * 10 + cpumask_test_cpu(0, &l);"),
            10
        );
    }
}

#[test]
fn shared_reads_and_writes_are_single_steps() {
    let decls = "int x; atomic_t n; unsigned long word; bool b; int out; int list[3];";
    let count = |body: &str| steps(decls, body, 2, 64);
    assert_eq!(count("x = x + 1;"), 2);
    assert_eq!(count("x += 2;"), 2);
    assert_eq!(count("x++;"), 2);
    assert_eq!(count("WRITE_ONCE(x, READ_ONCE(x));"), 2);
    assert_eq!(count("smp_mb(); smp_wmb(); barrier();"), 0);
    assert_eq!(count("atomic_inc(&n); atomic_dec(&n); atomic_add(3, &n);"), 3);
    assert_eq!(count("list[1] = 4; list[list[1] - 2] = 5;"), 3);
    let text = |body: &str| {
        let (code, run) = run_on(&format!("{decls}\nvoid test(void) {{ {body} }}"), 2, 64, |m| m);
        value(&code, &run, "out")
    };
    assert_eq!(text("atomic_set(&n, 4); out = atomic_inc_return(&n) * 10 + atomic_read(&n);"), 55);
    assert_eq!(text("atomic_inc(&n); out = atomic_dec_and_test(&n);"), 1);
    assert_eq!(text("atomic_add(3, &n); atomic_sub(1, &n); out = atomic_dec_return(&n);"), 1);
    assert_eq!(text("x = 3; out = xchg(&x, 5) * 10 + x;"), 35);
    assert_eq!(text("x = 3; out = cmpxchg(&x, 3, 6) * 10 + cmpxchg(&x, 3, 7) + x;"), 42);
    assert_eq!(text("x = 3; int old = 2; out = try_cmpxchg(&x, &old, 5) * 100 + old * 10 + x;"), 33);
    assert_eq!(text("x = 3; int old = 3; out = try_cmpxchg(&x, &old, 5) * 50 + old * 10 + x;"), 85);
    assert_eq!(text("atomic_set(&n, 5); out = atomic_fetch_or(2, &n) * 10 + atomic_read(&n);"), 57);
    assert_eq!(
        text("atomic_set(&n, 5); out = atomic_fetch_andnot(1, &n) * 10 + atomic_fetch_and(6, &n);"),
        54
    );
    assert_eq!(text("atomic_set(&n, 5); out = atomic_fetch_sub(2, &n) * 10 + atomic_add_return(4, &n);"), 57);
    assert_eq!(
        text("atomic_set(&n, 2); out = atomic_sub_and_test(2, &n) * 10 + atomic_inc_and_test(&n);"),
        10
    );
    assert_eq!(text("atomic_set(&n, 7); out = atomic_xchg(&n, 1) * 10 + atomic_cmpxchg(&n, 1, 3);"), 71);
    assert_eq!(text("out = atomic_inc_not_zero(&n); atomic_inc(&n); out += atomic_inc_not_zero(&n) * 2;"), 2);
    assert_eq!(
        text("atomic_set(&n, 4); out = atomic_add_unless(&n, 3, 4) * 10 + atomic_add_unless(&n, 3, 5);"),
        1
    );
    assert_eq!(text("__set_bit(3, &word); __set_bit(1, &word); __clear_bit(3, &word); out = word;"), 2);
    assert_eq!(count("int old; try_cmpxchg(&x, &old, 5); atomic_fetch_or(1, &n); __set_bit(1, &word);"), 4);
    assert_eq!(
        text("set_bit(3, &word); out = test_and_set_bit(3, &word) * 10 + test_and_clear_bit(2, &word);"),
        10
    );
    assert_eq!(text("set_bit(3, &word); clear_bit(3, &word); out = test_bit(3, &word) + word;"), 0);
    assert_eq!(text("smp_store_release(&x, 4); out = smp_load_acquire(&x);"), 4);
    assert_eq!(text("list[2] = 7; int i = 2; out = list[i];"), 7);
}

#[test]
fn references_are_numbers_and_null_is_minus_one() {
    let text = "struct kvm { int x; struct kvm_vcpu *last; cpumask_t m; };\n\
        struct kvm_vcpu { int cpu = -1; bool b; };\n\
        struct page { int pins; };\n\
        int out;\n\
        static void see(void *info) { struct kvm *kvm = info; if (kvm && kvm == vm1) out += 100; }\n\
        static void count(struct kvm *kvm) { unsigned long i; struct kvm_vcpu *vcpu; \
          kvm_for_each_vcpu(i, vcpu, kvm) { vcpu->cpu = i; kvm->x = kvm->x * 10 + vcpu->vcpu_idx + 1; } }\n\
        void test(void) { struct kvm_vcpu *v = vm0->last; if (!v) out = 1; if (v == NULL) out += 2; \
          vm0->last = vcpu1; v = vm0->last; if (v && v->kvm == vm0) out += 4; see(vm1); see(vm0); \
          Q->pins++; count(vm0); count(vm1); see(NULL); cpumask_set_cpu(1, &vm1->m); }";
    let config = config(2, 64);
    let code = code(text, &["test"], &config);
    let run = Mock::new(&code, &config).run(&code.entries[0], &[]);
    assert_eq!(value(&code, &run, "out"), 107);
    let by_name = |name: &str| {
        let at = code.vars.iter().position(|v| v.name == name).expect("a variable");
        run.values[at].clone()
    };
    assert_eq!(by_name("x"), [12, 3]);
    assert_eq!(by_name("cpu"), [0, 1, 0]);
    assert_eq!(by_name("pins"), [0, 1]);
    assert_eq!(by_name("last"), [1, -1]);
    assert_eq!(by_name("m"), [0, 2]);
}

#[test]
fn per_cpu_variables_belong_to_the_pcpu_at_hand() {
    let text = "DEFINE_PER_CPU(int, v) = 7; int out;\n\
        void test(void) { this_cpu_write(v, this_cpu_read(v) + 1); per_cpu(v, 0) = 3; \
          out = __this_cpu_read(v) * 10 + smp_processor_id(); int c = get_cpu(); put_cpu(); out += c; }";
    let (code, run) = run_on(text, 3, 64, |mut m| {
        m.cpu = 2;
        m
    });
    assert_eq!(run.values[0], [3, 7, 8]);
    assert_eq!(value(&code, &run, "out"), 84);
    assert_eq!(run.log[..4], ["PreemptDisable", "PreemptEnable", "PreemptDisable", "PreemptEnable"]);
}

#[test]
fn primitives_are_called_with_their_arguments() {
    let text = "static void handler(void *info) { struct kvm *kvm = info; guest_write(P); alloc_page(Q, kvm); }\n\
        static void other(void *info) { wbinvd(); }\n\
        static void send(int cpu, smp_call_func_t fn, void *info) { call_single_queue(cpu, fn, info, true); fn(info); }\n\
        void test(void) { cpumask_t m; __cpumask_set_cpu(1, &m); send(1, other, NULL); send(0, handler, vm1); \
          csd_lock_wait_mask(&m); wbnoinvd(); if (zap_spte(vm0, Q)) install_spte(vm1, P); vmrun(vcpu1); \
          vcpu_set_loaded(vcpu1, true); free_page(vcpu_fault_page(3)); alloc_page(P, NULL); }";
    let config = config(2, 64);
    let code = code(text, &["test"], &config);
    let run = Mock::new(&code, &config).run(&code.entries[0], &[]);
    let expected = [
        "SendCall[1, 0, -1, 1]",
        "FlushBegin[0, 0, 0, 0]",
        "FlushPrivate[0, 0, 0, 0]",
        "FlushShared[0, 0, 0, 0]",
        "FlushEnd[0, 0, 0, 0]",
        "SendCall[0, 1, 1, 1]",
        "GuestWrite[0, 0, 0, 0]",
        "AllocPage[1, 1, 0, 0]",
        "WaitCalls[2]",
        "FlushBegin[1, 0, 0, 0]",
        "FlushPrivate[1, 0, 0, 0]",
        "FlushShared[1, 0, 0, 0]",
        "FlushEnd[1, 0, 0, 0]",
        "ZapSpte[0, 1, 0, 0]",
        "InstallSpte[1, 0, 0, 0]",
        "VmRun[1, 0, 0, 0]",
        "SetLoaded[1, 1, 0, 0]",
        "FaultPage[3, 0, 0, 0]",
        "FreePage[1, 0, 0, 0]",
        "AllocPage[0, -1, 0, 0]",
    ];
    assert_eq!(run.log, expected);
    let names: Vec<_> = code.callbacks.iter().map(|e| code.entries[usize::from(*e)].name.as_str()).collect();
    assert_eq!(names, ["other", "handler"]);
    let handler = code.entry("handler").expect("an entry");
    assert!(handler.regs[0].holds(1) && !handler.regs[0].holds(0), "only vm1 is ever sent to it");
    let other = code.entry("other").expect("an entry");
    assert!(other.regs[0].holds(-1) && !other.regs[0].holds(0), "only null is ever sent to it");
}

#[test]
fn locks_block_and_choices_are_asked_for() {
    let (_, run) =
        run_on("DEFINE_MUTEX(m); void test(void) { mutex_lock(&m); }", 2, 64, |m| m.set("m", 0, 9));
    assert_eq!(run.log, ["blocked"]);
    let text = "int out; void test(void) { out = any_of(5) * 10 + maybe(); }";
    let (code, run) = run_on(text, 2, 64, |m| m.choices(&[3, 1]));
    assert_eq!(value(&code, &run, "out"), 31);
    let text = "DEFINE_RWLOCK(r); int out; void test(void) { read_lock(&r); out = 1; read_unlock(&r); \
        write_lock(&r); out = 2; write_unlock(&r); }";
    let (code, run) = run_on(text, 2, 64, |m| m);
    assert_eq!((value(&code, &run, "r"), run.steps), (0, 6));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// What the compiler computes is what the stepper would.
    #[test]
    fn constants_are_folded_as_the_stepper_computes(
        a in prop_oneof![-70..70i64, any::<i64>()],
        b in prop_oneof![-70..70i64, any::<i64>()],
    ) {
        let (code, config) = (Code::default(), config(2, 64));
        let computed = |rhs| {
            let ops = [Op::Set { dst: 2, rhs }, Op::Halt];
            let mut context = Context { pc: 0, regs: [0; REGS] };
            (context.regs[0], context.regs[1]) = (a, b);
            step(&ops, &mut context, &mut Mock::new(&code, &config));
            context.regs[2]
        };
        for op in [
            BinOp::Add, BinOp::Sub, BinOp::Mul, BinOp::Div, BinOp::Rem, BinOp::And, BinOp::Or, BinOp::Xor,
            BinOp::Shl, BinOp::Shr, BinOp::Eq, BinOp::Ne, BinOp::Lt, BinOp::Le, BinOp::Gt, BinOp::Ge,
        ] {
            let found = computed(Expr::Bin(op, Operand::Reg(0), Operand::Reg(1)));
            prop_assert_eq!(found, machine::bin(op, a, b), "{} {:?} {}", a, op, b);
        }
        for op in [UnOp::Neg, UnOp::Not, UnOp::IsZero, UnOp::Weight, UnOp::LowestBit] {
            prop_assert_eq!(computed(Expr::Un(op, Operand::Reg(0))), machine::un(op, a), "{:?} {}", op, a);
        }
    }
}

#[test]
fn constants_cost_no_step() {
    let decls =
        "static const int LIMIT = 3; const bool ON = true; enum { A = LIMIT + 1 }; int list[LIMIT]; int out;";
    assert_eq!(steps(decls, "if (ON) out = LIMIT + A;", 2, 64), 1);
    assert_eq!(out("out = -EBUSY - (GFP_KERNEL != GFP_ATOMIC);"), -17);
    let own = "#define EBUSY 3\nint out;";
    let (code, run) = results(&format!("{own} void test(void) {{ out = EBUSY; }}"));
    assert_eq!(value(&code, &run, "out"), 3, "a text's own constant comes first");
}

#[test]
fn per_asid_variables_and_masks_of_the_topology() {
    let text = "DEFINE_PER_ASID(int, uses) = 2; DEFINE_PER_ASID(cpumask_t, ran); int out; int asids;\n\
        void test(void) { int asid = sev_get_asid(vm1); per_asid(uses, asid) += 5; asids = nr_asids; \
          cpumask_set_cpu(1, &per_asid(ran, asid)); out = per_asid(uses, 0) * 10 + cpumask_weight(&per_asid(ran, 2)); }";
    let (code, run) = results(text);
    assert_eq!((value(&code, &run, "out"), value(&code, &run, "asids")), (21, 3));
    assert_eq!(run.values[0], [2, 2, 7]);
    assert_eq!(run.values[1], [0, 0, 2]);
    assert_eq!(run.steps, 7);

    // Cores of two threads, CCXs of two cores.
    for word_bits in [64, 4, 1] {
        let of = |body: &str| {
            let text = format!("cpumask_t a; int out;\nvoid test(void) {{ int cpu; {body} }}");
            let (code, run) = run_on(&text, 6, word_bits, |m| m);
            (value(&code, &run, "out"), run.steps)
        };
        assert_eq!(of("out = cpumask_weight(cpu_llc_shared_mask(1));"), (4, 1));
        assert_eq!(of("out = cpumask_first(cpu_llc_shared_mask(5));"), (4, 1));
        assert_eq!(
            of("int n = 3; for_each_cpu(cpu, topology_sibling_cpumask(n)) out = out * 10 + cpu;").0,
            23
        );
        assert_eq!(
            of("out = cpumask_test_cpu(2, cpumask_of(2)) * 10 + cpumask_weight(cpumask_of(5));"),
            (11, 1)
        );
        assert_eq!(of("cpumask_copy(&a, cpu_llc_shared_mask(0)); out = cpumask_weight(&a);").0, 4);
        let online = "out = cpumask_weight(cpu_online_mask) * 10 + cpu_online(3);";
        assert_eq!(of(online), (61, 1));
        let text = format!(
            "cpumask_t cpu_online_mask; int out; void test(void) {{ set_cpu_online(3, false); set_cpu_online(1, true); {online} }}"
        );
        let (code, run) = run_on(&text, 6, word_bits, |m| m);
        assert_eq!(value(&code, &run, "out"), 50, "it starts full");
    }
}

#[test]
fn what_a_patch_has_is_accepted_where_it_means_the_same() {
    let text = "atomic_t n = ATOMIC_INIT(3); refcount_t r = REFCOUNT_INIT(1); enum { A = BIT(2) }; DEFINE_MUTEX(m); int out;
        static int __must_check __maybe_unused f(void) { return A; }
        static __init int g(int k) { return BIT(k); }
        void test(void) { mutex_lock_nested(&m, 1); out = atomic_read(&n) + f() + g(3) + refcount_read(&r); mutex_unlock(&m); }";
    let (code, run) = results(text);
    assert_eq!(value(&code, &run, "out"), 3 + 4 + 8 + 1);
}

#[test]
fn asserted_interrupts_are_those_at_hand() {
    for (body, wrong) in [
        ("lockdep_assert_irqs_disabled();", 1),
        ("lockdep_assert_irqs_enabled();", 0),
        ("local_irq_disable(); lockdep_assert_irqs_disabled(); local_irq_enable();", 0),
        ("local_irq_disable(); lockdep_assert_irqs_enabled(); local_irq_enable();", 1),
    ] {
        let (_, run) = results(&format!("void test(void) {{ {body} }}"));
        assert_eq!(run.log.iter().filter(|e| e.starts_with("Warn")).count(), wrong, "{body}");
    }
}
