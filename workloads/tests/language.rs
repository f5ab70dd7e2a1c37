//! What texts do wrong is an event of the run: each kind by a text of two tasks, over every order of their steps.

use cache_model::event::EventKind;
use sim_explore::Limits;
use svm_model::text::{KERNELS, POLICIES};
use workloads::check::{CheckCase, NamedText};
use workloads::litmus::Litmus;

fn built_in(texts: &[svm_model::text::Text], name: &str) -> NamedText {
    let found = texts.iter().find(|t| t.name == name).expect("a built-in text");
    NamedText { name: name.to_owned(), file: found.file.to_owned(), text: found.text.to_owned() }
}

/// Every event that tasks `a` (on pCPU 0) and `b` (on pCPU 1) of a body can reach, in the order of their names.
fn events_under(assume: &str, body: &str) -> Vec<&'static str> {
    // No text here meets an RMP: the search goes through the whole space.
    let front = format!(
        "+++\ndescription = \"\"\nparts = [\"rome\"]\npcpus = 2\nevents = [\"rmp-fault\"]\nassume = [{assume}]\n\
         pages = [{{ name = \"P\" }}]\n[[task]]\nrun = \"a\"\npcpus = [0]\n[[task]]\nrun = \"b\"\npcpus = [1]\n[[expect]]\nverdict = \"holds\"\npolicies = [\"*\"]\n+++\n"
    );
    checked(&format!("{front}{body}"))
}

/// Every event that a litmus test can reach under 6.17 without a flush, in the order of their names.
fn checked(text: &str) -> Vec<&'static str> {
    let litmus = Litmus::parse("test.litmus", text).expect("a litmus test");
    let (policy, kernel) = (built_in(POLICIES, "no-flush"), built_in(KERNELS, "linux-6.17"));
    let case =
        CheckCase { litmus: &litmus, policy: &policy, kernel: &kernel, part: "rome", sme_coherent: false };
    let report = case.run(Limits::default(), None, None).unwrap_or_else(|e| panic!("{text}\n{e}"));
    let mut events: Vec<&str> = report.events.iter().map(|c| c.event.name()).collect();
    events.sort_unstable();
    assert!(events.iter().all(|e| EventKind::from_name(e).is_some()));
    events
}

fn events(body: &str) -> Vec<&'static str> {
    events_under("", body)
}

const IDLE: &str = "void b(void) { }";
const MASK: &str = "struct kvm { cpumask_var_t m; struct mutex l; struct rw_semaphore rw; struct completion c; };\n\
    DEFINE_SPINLOCK(s); static void spin(void *info) { spin_lock(&s); spin_unlock(&s); }\n\
    static void sleeper(void *info) { down_read(&vm0->rw); up_read(&vm0->rw); }\n";

fn one(body: &str) -> Vec<&'static str> {
    events(&format!("{MASK}void a(void) {{ {body} }}\n{IDLE}"))
}

fn two(a: &str, b: &str) -> Vec<&'static str> {
    events(&format!("{MASK}void a(void) {{ {a} }}\nvoid b(void) {{ {b} }}"))
}

const NONE: [&str; 0] = [];

#[test]
fn masks_that_are_null_freed_or_leaked_are_tracking() {
    let alloc = "if (!zalloc_cpumask_var(&vm0->m, GFP_KERNEL)) return;";
    let fine =
        format!("{alloc} cpumask_set_cpu(1, vm0->m); cpumask_clear(vm0->m); free_cpumask_var(vm0->m);");
    assert_eq!(one(&fine), NONE);
    assert_eq!(one(&format!("{fine} kvm_arch_free_vm(vm0);")), NONE);
    assert_eq!(one(&format!("{alloc} free_cpumask_var(vm0->m); free_cpumask_var(vm0->m);")), ["tracking"]);
    assert_eq!(one(&format!("{alloc} free_cpumask_var(vm0->m); cpumask_test_cpu(0, vm0->m);")), ["tracking"]);
    assert_eq!(one(&format!("{alloc} kvm_arch_free_vm(vm0);")), ["tracking"], "leaked");
    assert_eq!(
        one(&format!("{alloc} {alloc} free_cpumask_var(vm0->m);")),
        ["tracking"],
        "the first one leaks"
    );
    assert_eq!(one(&format!("cpumask_set_cpu(0, vm0->m); {alloc} free_cpumask_var(vm0->m);")), ["tracking"]);
    assert_eq!(one(&format!("free_cpumask_var(vm0->m); {alloc} free_cpumask_var(vm0->m);")), NONE);
    let ask = "if (cpumask_available(vm0->m)) cpumask_set_cpu(0, vm0->m);";
    assert_eq!(one(&format!("{ask} {alloc} {ask} free_cpumask_var(vm0->m);")), NONE);
}

#[test]
fn a_mask_that_nobody_allocates_is_there() {
    assert_eq!(one("cpumask_set_cpu(1, vm0->m);"), NONE);
    assert_eq!(one("cpumask_set_cpu(1, vm0->m); free_cpumask_var(vm0->m);"), NONE);
    assert_eq!(one("free_cpumask_var(vm0->m); cpumask_set_cpu(1, vm0->m);"), ["tracking"]);
    assert_eq!(two("free_cpumask_var(vm0->m);", "cpumask_set_cpu(1, vm0->m);"), ["tracking"], "in one order");
    let locked = "mutex_lock(&vm0->l); if (cpumask_available(vm0->m)) cpumask_set_cpu(1, vm0->m); mutex_unlock(&vm0->l);";
    assert_eq!(two("cpumask_clear(vm0->m);", locked), NONE);
}

#[test]
fn an_allocation_may_fail_unless_that_is_assumed_away() {
    let body = format!(
        "{MASK}void a(void) {{ zalloc_cpumask_var(&vm0->m, GFP_KERNEL); cpumask_set_cpu(0, vm0->m); }}\n{IDLE}"
    );
    assert_eq!(events(&body), ["tracking"]);
    assert_eq!(events_under("\"no-alloc-failure\"", &body), NONE);
}

#[test]
fn who_must_not_sleep_and_does_is_told() {
    for sleep in [
        "mutex_lock(&vm0->l); mutex_unlock(&vm0->l);",
        "down_read(&vm0->rw); up_read(&vm0->rw);",
        "down_write(&vm0->rw); up_write(&vm0->rw);",
        "complete(&vm0->c); wait_for_completion(&vm0->c);",
        "might_sleep();",
        "zalloc_cpumask_var(&vm0->m, GFP_KERNEL);",
    ] {
        assert_eq!(one(sleep), NONE, "{sleep}");
        assert_eq!(
            one(&format!("preempt_disable(); {sleep} preempt_enable();")),
            ["sleep-in-atomic"],
            "{sleep}"
        );
        assert_eq!(
            one(&format!("local_irq_disable(); {sleep} local_irq_enable();")),
            ["sleep-in-atomic"],
            "{sleep}"
        );
        assert_eq!(one(&format!("spin_lock(&s); {sleep} spin_unlock(&s);")), ["sleep-in-atomic"], "{sleep}");
        assert_eq!(
            one(&format!("non_block_start(); {sleep} non_block_end();")),
            ["sleep-non-blockable"],
            "{sleep}"
        );
        assert_eq!(one(&format!("non_block_start(); non_block_end(); {sleep}")), NONE, "{sleep}");
    }
    let atomic = "preempt_disable(); if (mutex_trylock(&vm0->l)) mutex_unlock(&vm0->l); zalloc_cpumask_var(&vm0->m, GFP_ATOMIC); preempt_enable();";
    assert_eq!(one(atomic), NONE);
    assert_eq!(one("smp_call_function_single(1, sleeper, NULL, true);"), ["sleep-in-atomic"], "in a handler");
}

#[test]
fn who_cannot_go_on_is_told() {
    let pair = |x: &str, y: &str| {
        format!(
            "mutex_lock(&vm{x}->l); mutex_lock(&vm{y}->l); mutex_unlock(&vm{y}->l); mutex_unlock(&vm{x}->l);"
        )
    };
    assert_eq!(two(&pair("0", "0"), ""), ["deadlock", "tracking"], "with itself");
    let crossed =
        two("mutex_lock(&vm0->l); down_write(&vm0->rw);", "down_write(&vm0->rw); mutex_lock(&vm0->l);");
    assert_eq!(crossed, ["deadlock", "tracking"], "and where they do not meet, the locks are left");
    assert_eq!(two("wait_for_completion(&vm0->c);", "complete(&vm0->c);"), NONE);
    assert_eq!(two("wait_for_completion(&vm0->c);", ""), ["deadlock"]);
    let handler = two("spin_lock(&s); spin_unlock(&s);", "smp_call_function_single(0, spin, NULL, true);");
    assert_eq!(handler.first(), Some(&"deadlock"), "a handler waits for the task under it");
    let irqs =
        two("spin_lock_irq(&s); spin_unlock_irq(&s);", "smp_call_function_single(0, spin, NULL, true);");
    assert_eq!(irqs, NONE);
}

#[test]
fn local_masks_that_are_null_freed_or_leaked_are_tracking() {
    let local = |body: &str| one(&format!("cpumask_var_t m; {body}"));
    let alloc = "if (!zalloc_cpumask_var(&m, GFP_KERNEL)) return;";
    assert_eq!(local(&format!("{alloc} cpumask_set_cpu(1, m); free_cpumask_var(m);")), NONE);
    assert_eq!(local("cpumask_set_cpu(1, m);"), NONE, "nobody allocates it");
    for wrong in ["", "free_cpumask_var(m); free_cpumask_var(m);", "free_cpumask_var(m); cpumask_clear(m);"] {
        assert_eq!(local(&format!("{alloc} {wrong}")), ["tracking"], "{wrong}");
    }
    let unchecked = "zalloc_cpumask_var(&m, GFP_KERNEL); cpumask_set_cpu(1, m); free_cpumask_var(m);";
    assert_eq!(local(unchecked), ["tracking"]);
    let body = format!("{MASK}void a(void) {{ cpumask_var_t m; {unchecked} }}\n{IDLE}");
    assert_eq!(events_under("\"no-alloc-failure\"", &body), NONE);
}

#[test]
fn objects_that_nothing_refers_to_any_more_have_leaked() {
    let objects =
        "struct r { int x; struct r *next; }; DEFINE_OBJECTS(struct r, 2); struct r *list; void *opaque;\n";
    let alloc = "struct r *p = kzalloc(sizeof(*p), GFP_KERNEL); if (!p) return;";
    let run = |a: &str, b: &str| {
        events(&format!("{objects}void a(void) {{ {alloc} {a} }}\nvoid b(void) {{ {b} }}"))
    };
    assert_eq!(run("kfree(p);", ""), NONE);
    assert_eq!(run("p->x = 1;", ""), ["tracking"]);
    assert_eq!(run("list = p;", ""), NONE, "a variable refers to it");
    assert_eq!(run("opaque = p;", ""), NONE, "and so may a void *");
    assert_eq!(run("list = p; list = NULL;", ""), ["tracking"], "lost");
    assert_eq!(run("list = p;", "struct r *q = xchg(&list, NULL); kfree(q);"), NONE, "handed over");
    assert_eq!(run("list = p;", "xchg(&list, NULL);"), ["tracking"], "and lost there");
    let two = "struct r *q = kzalloc(sizeof(*q), GFP_KERNEL); if (!q) { kfree(p); return; } p->next = q;";
    assert_eq!(run(&format!("{two} list = p;"), ""), NONE, "an object refers to it");
    assert_eq!(run(&format!("{two} kfree(p);"), ""), ["tracking"], "until that is freed");
}

#[test]
fn who_spins_with_interrupts_off_takes_no_ipi_meanwhile() {
    // `a` holds the lock and waits for `b`'s pCPU, whose interrupts `b` may have turned off before it waits for the lock.
    let noop = "static void noop(void *info) { }\n";
    let spins = |b: &str| {
        let a = "spin_lock(&s); smp_call_function_single(1, noop, NULL, true); spin_unlock(&s);";
        events(&format!(
            "{MASK}{noop}int probe;\nvoid a(void) {{ {a} }}\nvoid b(void) {{ unsigned long f; {b} }}"
        ))
    };
    assert_eq!(spins("spin_lock(&s); spin_unlock(&s);"), NONE);
    assert_eq!(spins("preempt_disable(); spin_lock(&s); spin_unlock(&s); preempt_enable();"), NONE);
    for b in [
        "spin_lock_irq(&s); spin_unlock_irq(&s);",
        "spin_lock_irqsave(&s, f); spin_unlock_irqrestore(&s, f);",
        "guard(spinlock_irq)(&s);",
        "local_irq_disable(); spin_lock(&s); spin_unlock(&s); local_irq_enable();",
        "local_irq_save(f); READ_ONCE(probe); spin_lock(&s); spin_unlock(&s); local_irq_restore(f);",
        "preempt_disable(); spin_lock_irq(&s); spin_unlock_irq(&s); preempt_enable();",
    ] {
        assert_eq!(spins(b), ["deadlock"], "{b}");
    }
    assert_eq!(
        spins("local_irq_disable(); local_irq_enable(); spin_lock(&s); spin_unlock(&s);"),
        NONE,
        "on again"
    );
    assert_eq!(
        spins("local_irq_disable(); if (spin_trylock(&s)) spin_unlock(&s); local_irq_enable();"),
        NONE,
        "it does not wait"
    );
}

#[test]
fn a_call_to_oneself_leaves_interrupts_as_they_were() {
    let after = |call: &str| {
        let off = format!("local_irq_disable(); {call} WARN_ON(!irqs_disabled()); local_irq_enable();");
        let on = format!("{call} WARN_ON(irqs_disabled());");
        let noop = "static void noop(void *info) { WARN_ON(!irqs_disabled()); }";
        [off, on].map(|a| events(&format!("{MASK}{noop}\nvoid a(void) {{ {a} }}\n{IDLE}")))
    };
    for call in ["smp_call_function_single(0, noop, NULL, true);", "on_each_cpu(noop, NULL, true);"] {
        let [off, on] = after(call);
        // The kernel warns of each such call with interrupts off.
        assert_eq!(off, ["tracking"], "{call}");
        assert_eq!(on, NONE, "{call}");
    }
}

#[test]
fn who_waits_with_preemption_off_keeps_its_pcpu() {
    // `a` keeps the lock for good; the two pCPUs that `b` may run on do not make it go on.
    let b = |wait: &str| {
        let front = "+++\ndescription = \"\"\nparts = [\"rome\"]\npcpus = 2\nevents = [\"rmp-fault\"]\n\
            pages = [{ name = \"P\" }]\n[[task]]\nrun = \"a\"\npcpus = [0]\n[[task]]\nrun = \"b\"\npcpus = [0, 1]\n\
            [[expect]]\nverdict = \"holds\"\npolicies = [\"*\"]\n+++\n";
        checked(&format!(
            "{front}DEFINE_SPINLOCK(s);\nvoid a(void) {{ spin_lock(&s); preempt_enable(); }}\nvoid b(void) {{ {wait} }}"
        ))
    };
    assert!(b("spin_lock(&s); spin_unlock(&s);").contains(&"deadlock"));
    assert!(!b("preempt_disable(); preempt_enable();").contains(&"deadlock"));
}

#[test]
fn what_is_not_held_is_tracking_when_given_back() {
    assert_eq!(one("mutex_unlock(&vm0->l);"), ["tracking"]);
    assert_eq!(two("mutex_lock(&vm0->l);", "mutex_unlock(&vm0->l);"), ["tracking"], "by another");
    assert_eq!(one("down_read(&vm0->rw); up_write(&vm0->rw);"), ["tracking"]);
    assert_eq!(
        two("down_read(&vm0->rw); up_read(&vm0->rw);", "down_write(&vm0->rw); up_write(&vm0->rw);"),
        NONE
    );
    assert_eq!(
        one("struct kvm *none = NULL; cpumask_set_cpu(1, none->m);"),
        ["tracking"],
        "the null reference"
    );
}

#[test]
fn what_is_left_behind_is_tracking() {
    for left in [
        "spin_lock(&s);",
        "spin_lock_irq(&s); local_irq_enable(); preempt_enable();",
        "mutex_lock(&vm0->l);",
        "mutex_trylock(&vm0->l);",
        "down_write(&vm0->rw);",
        "preempt_disable();",
        "get_cpu();",
        "local_irq_disable();",
        "preempt_enable();",
        "preempt_disable(); preempt_enable(); put_cpu();",
        "smp_call_function_single(1, keeper, NULL, true);",
    ] {
        let keeper = "static void keeper(void *info) { spin_lock(&s); }";
        assert_eq!(
            events(&format!("{MASK}{keeper}\nvoid a(void) {{ {left} }}\n{IDLE}")),
            ["tracking"],
            "{left}"
        );
    }
    for fine in [
        "spin_lock_irq(&s); spin_unlock_irq(&s);",
        "preempt_disable(); preempt_disable(); preempt_enable(); preempt_enable();",
        "if (mutex_trylock(&vm0->l)) mutex_unlock(&vm0->l);",
        "down_write(&vm0->rw); downgrade_write(&vm0->rw); up_read(&vm0->rw);",
        "local_irq_disable(); local_irq_enable(); local_irq_enable();",
        "smp_call_function_single(1, spin, NULL, true);",
    ] {
        assert_eq!(one(fine), NONE, "{fine}");
    }
}

#[test]
fn a_lock_whose_return_is_not_seen_yet_is_given_back() {
    let under_tso = |a: &str| {
        let front = "+++\ndescription = \"\"\nparts = [\"rome\"]\npcpus = 2\nevents = [\"rmp-fault\"]\nmemory_model = \"tso\"\n\
            pages = [{ name = \"P\" }]\n[[task]]\nrun = \"a\"\npcpus = [0]\n[[task]]\nrun = \"b\"\npcpus = [1]\n\
            [[expect]]\nverdict = \"holds\"\npolicies = [\"*\"]\n+++\n";
        checked(&format!("{front}{MASK}void a(void) {{ {a} }}\n{IDLE}"))
    };
    assert_eq!(under_tso("spin_lock(&s); spin_unlock(&s);"), NONE);
    assert_eq!(under_tso("smp_call_function_single(1, spin, NULL, true);"), NONE);
    assert_eq!(under_tso("spin_lock(&s);"), ["tracking"]);
}

#[test]
fn a_number_that_is_no_pcpus_is_tracking() {
    for wrong in [
        "cpumask_set_cpu(2, vm0->m);",
        "cpumask_clear_cpu(100, vm0->m);",
        "cpumask_set_cpu(-1, vm0->m);",
        "__cpumask_set_cpu(2, vm0->m);",
        "WARN_ON(cpumask_test_cpu(2, vm0->m));",
        "int i = any_of(3); cpumask_set_cpu(i, vm0->m);",
        "int i = -1; if (maybe()) i = 0; cpumask_test_and_set_cpu(i, vm0->m);",
        "cpumask_var_t mine; cpumask_set_cpu(nr_cpu_ids, mine);",
        "cpumask_copy(vm0->m, cpumask_of(2));",
    ] {
        assert_eq!(one(wrong), ["tracking"], "{wrong}");
    }
    for fine in [
        "cpumask_set_cpu(1, vm0->m); cpumask_clear_cpu(0, vm0->m);",
        "int i = any_of(2); cpumask_set_cpu(i, vm0->m); cpumask_copy(vm0->m, cpumask_of(i));",
        "int i; for_each_cpu(i, vm0->m) cpumask_clear_cpu(i, vm0->m);",
        "int i = any_of(5); if (i < nr_cpu_ids) cpumask_set_cpu(i, vm0->m);",
    ] {
        assert_eq!(one(fine), NONE, "{fine}");
    }
}

#[test]
fn a_page_that_a_vm_has_is_not_allocated() {
    assert_eq!(one("free_page(P); alloc_page(P, vm0);"), NONE);
    assert_eq!(one("alloc_page(P, vm0);"), ["tracking"]);
    assert_eq!(one("free_page(P); alloc_page(P, vm0); alloc_page(P, NULL);"), ["tracking"]);
}

#[test]
fn what_a_pasted_patch_may_call() {
    let r = |a: &str| one(a);
    let mask = "cpumask_setall(vm0->m); cpumask_clear_cpu(0, vm0->m); cpumask_complement(vm0->m, vm0->m);";
    assert_eq!(
        r(&format!("{mask} WARN_ON(!cpumask_test_cpu(0, vm0->m) || cpumask_test_cpu(1, vm0->m));")),
        NONE
    );
    assert_eq!(r("WARN_ON(num_online_cpus() != 2);"), NONE);
    assert_eq!(r("preempt_disable(); cond_resched(); preempt_enable();"), ["sleep-in-atomic"]);
    assert_eq!(r("cond_resched(); clflush_cache_range(page_address(P), PAGE_SIZE);"), NONE);
    let killable = "int r = mutex_lock_killable(&vm0->l); if (!r) mutex_unlock(&vm0->l);";
    assert_eq!(r(&format!("{killable} WARN_ON(r != 0 && r != -EINTR);")), NONE);
    assert_eq!(r(&format!("{killable} WARN_ON(r == -EINTR);")), ["tracking"], "a signal may come");
    assert_eq!(r(&format!("{killable} WARN_ON(r == 0);")), ["tracking"], "it need not");
    let word = |a: &str| events(&format!("int word;\natomic_t count;\nvoid a(void) {{ {a} }}\n{IDLE}"));
    assert_eq!(
        word(
            "smp_store_mb(word, 3); WARN_ON(cmpxchg_acquire(&word, 3, 4) != 3 || cmpxchg_release(&word, 4, 5) != 4);"
        ),
        NONE
    );
    assert_eq!(word("int mine; smp_store_mb(mine, 3); WARN_ON(mine != 3);"), NONE);
    assert_eq!(
        word(
            "WARN_ON(atomic_cmpxchg_acquire(&count, 0, 2) != 0 || atomic_cmpxchg_release(&count, 2, 1) != 2);"
        ),
        NONE
    );
}

const REGION: &str = "struct test_region { struct page *page; refcount_t refs; }; DEFINE_OBJECTS(struct test_region, 2);\n\
    struct kvm { struct test_region *region; int n; cpumask_t sets[2]; spinlock_t locks[2]; };\n\
    struct kvm_vcpu { int state; }; DEFINE_PER_CPU(int, count);\n";

fn region(assume: &str, a: &str, b: &str) -> Vec<&'static str> {
    events_under(assume, &format!("{REGION}void a(void) {{ {a} }}\nvoid b(void) {{ {b} }}"))
}

const SURE: &str = "\"no-alloc-failure\"";

#[test]
fn a_region_is_flushed_after_it_was_freed() {
    // The registering task goes on with the region after it has dropped the lock.
    let register = |flush_inside: bool| {
        let (inside, outside) =
            if flush_inside { ("clflush_page(r->page);", "") } else { ("", "clflush_page(r->page);") };
        format!(
            "struct test_region *r = kzalloc(sizeof(*r), GFP_KERNEL_ACCOUNT); if (!r) return;\n\
             r->page = P; mutex_lock(&vm0->lock); vm0->region = r; {inside} mutex_unlock(&vm0->lock); {outside}"
        )
    };
    let unregister = "mutex_lock(&vm0->lock); struct test_region *r = vm0->region; vm0->region = NULL; kfree(r); mutex_unlock(&vm0->lock);";
    assert_eq!(region("", &register(false), unregister), ["tracking"]);
    assert_eq!(region("", &register(true), unregister), NONE);
}

#[test]
fn objects_are_allocated_freed_and_used() {
    let two = "struct test_region *r = kzalloc(sizeof(struct test_region), GFP_KERNEL); struct test_region *q = kzalloc(sizeof(*q), GFP_KERNEL);";
    let sure = |a: &str| region(SURE, &format!("{two} {a}"), "");
    assert_eq!(sure("WARN_ON(!r || !q || r == q); r->page = P; WARN_ON(q->page); kfree(r); kfree(q);"), NONE);
    assert_eq!(sure("kfree(r); kfree(r); kfree(q);"), ["tracking"], "twice");
    assert_eq!(sure("kfree(r); r->page = P; kfree(q);"), ["tracking"], "after it was freed");
    assert_eq!(
        sure(
            "r->page = P; kfree(r); r = kzalloc(sizeof(*r), GFP_KERNEL); WARN_ON(r->page); kfree(r); kfree(q);"
        ),
        NONE,
        "as it starts"
    );
    assert_eq!(sure("WARN_ON(kzalloc(sizeof(*r), GFP_KERNEL)); kfree(r); kfree(q);"), NONE, "there are two");
    assert_eq!(region("", &format!("{two} r->page = P; kfree(r); kfree(q);"), ""), ["tracking"], "null");
    let locked = |flags: &str| {
        sure(&format!(
            "kfree(r); spin_lock(&vm0->locks[0]); r = kzalloc(sizeof(*r), {flags}); spin_unlock(&vm0->locks[0]); kfree(r); kfree(q);"
        ))
    };
    assert_eq!(locked("GFP_KERNEL"), ["sleep-in-atomic"]);
    assert_eq!(locked("GFP_ATOMIC"), NONE);
}

#[test]
fn structures_are_not_used_after_they_were_freed() {
    let r = |a: &str| region(SURE, a, "");
    assert_eq!(r("vm0->n = 1; kvm_arch_free_vm(vm0);"), NONE);
    assert_eq!(r("kvm_arch_free_vm(vm0); vm0->n = 1;"), ["tracking"]);
    assert_eq!(r("kvm_arch_free_vm(vm0); WARN_ON(vm0->n > 5);"), ["tracking"]);
    assert_eq!(r("mutex_lock(&vm0->lock); kvm_arch_free_vm(vm0); mutex_unlock(&vm0->lock);"), ["tracking"]);
    assert_eq!(r("kvm_arch_free_vm(vm0); kvm_arch_free_vm(vm0);"), ["tracking"]);
    assert_eq!(region(SURE, "kvm_arch_free_vm(vm0);", "vm0->n = 1;"), ["tracking"]);
}

#[test]
fn leftovers_of_the_language() {
    let r = |a: &str| region(SURE, a, "");
    assert_eq!(
        r(
            "cpumask_set_cpu(1, &vm0->sets[1]); WARN_ON(!cpumask_empty(&vm0->sets[0])); WARN_ON(cpumask_first(&vm0->sets[1]) != 1);"
        ),
        NONE
    );
    assert_eq!(
        r(
            "int i = 1; cpumask_setall(&vm0->sets[i]); WARN_ON(cpumask_weight(&vm0->sets[1]) != 2 || cpumask_test_cpu(0, &vm0->sets[0]));"
        ),
        NONE
    );
    assert_eq!(
        r("int i = 2; if (maybe()) i = 1; cpumask_setall(&vm0->sets[i]);"),
        ["tracking"],
        "no such element"
    );
    assert_eq!(
        r(
            "spin_lock(&vm0->locks[0]); spin_lock(&vm0->locks[1]); spin_unlock(&vm0->locks[1]); spin_unlock(&vm0->locks[0]);"
        ),
        NONE
    );
    assert_eq!(r("spin_lock(&vm0->locks[1]); spin_unlock(&vm0->locks[0]);"), ["tracking"]);
    assert_eq!(r("WARN_ON(cpumask_any(&vm0->sets[0]) != nr_cpu_ids);"), NONE);
    assert_eq!(
        r("cpumask_setall(&vm0->sets[0]); WARN_ON(cpumask_any(&vm0->sets[0]) == 1);"),
        ["tracking"],
        "any"
    );
    assert_eq!(
        r(
            "cpumask_setall(&vm0->sets[0]); cpumask_set_cpu(1, &vm0->sets[1]); WARN_ON(cpumask_any_and(&vm0->sets[0], &vm0->sets[1]) != 1);"
        ),
        NONE
    );
    assert_eq!(
        r(
            "scoped_guard(mutex, &vm0->lock) { vm0->n = 1; lockdep_assert_held(&vm0->lock); } lockdep_assert_not_held(&vm0->lock);"
        ),
        NONE
    );
    assert_eq!(
        r(
            "scoped_guard(mutex, &vm0->lock) { if (maybe()) break; vm0->n = 1; } WARN_ON(mutex_is_locked(&vm0->lock));"
        ),
        NONE
    );
    assert_eq!(r("lockdep_assert_held(&vm0->lock);"), ["tracking"]);
    assert_eq!(
        region("", "mutex_lock(&vm0->lock); mutex_unlock(&vm0->lock);", "lockdep_assert_held(&vm0->lock);"),
        ["tracking"],
        "somebody else's"
    );
    assert_eq!(
        r(
            "this_cpu_inc(count); this_cpu_add(count, 3); this_cpu_dec(count); WARN_ON(this_cpu_read(count) != 3 || this_cpu_xchg(count, 9) != 3 || this_cpu_cmpxchg(count, 9, 1) != 9 || this_cpu_inc_return(count) != 2);"
        ),
        NONE
    );
    let rw = |a: &str| one(a);
    assert_eq!(
        rw(
            "down_write(&vm0->rw); lockdep_assert_held_write(&vm0->rw); downgrade_write(&vm0->rw); lockdep_assert_held_read(&vm0->rw); up_read(&vm0->rw); WARN_ON(rwsem_is_locked(&vm0->rw));"
        ),
        NONE
    );
    assert_eq!(rw("down_read(&vm0->rw); downgrade_write(&vm0->rw);"), ["tracking"]);
    assert_eq!(
        rw(
            "if (alloc_cpumask_var(&vm0->m, GFP_KERNEL)) { WARN_ON(cpumask_weight(vm0->m) == 1); free_cpumask_var(vm0->m); }"
        ),
        NONE
    );
    assert_eq!(
        rw(
            "if (alloc_cpumask_var(&vm0->m, GFP_KERNEL)) { WARN_ON(!cpumask_empty(vm0->m)); free_cpumask_var(vm0->m); }"
        ),
        ["tracking"],
        "not cleared"
    );
    let refs = "struct test_region *r = kzalloc(sizeof(*r), GFP_KERNEL);";
    assert_eq!(
        r(&format!(
            "{refs} refcount_set(&r->refs, 1); refcount_inc(&r->refs); WARN_ON(refcount_dec_and_test(&r->refs)); WARN_ON(!refcount_dec_and_test(&r->refs)); kfree(r);"
        )),
        NONE
    );
    assert_eq!(r(&format!("{refs} refcount_inc(&r->refs); kfree(r);")), ["tracking"], "from 0");
    assert_eq!(
        r(&format!("{refs} refcount_set(&r->refs, 1); refcount_dec(&r->refs); kfree(r);")),
        ["tracking"],
        "to 0"
    );
    assert_eq!(r("BUG_ON(vm0->n == 0);"), ["tracking"]);
}

#[test]
fn a_writer_that_waits_keeps_new_readers_out_but_no_handler() {
    let again = |read: &str, unlock: &str| format!("{read} {read} {unlock} {unlock}");
    let write = "down_write(&vm0->rw); up_write(&vm0->rw);";
    let sem = again("down_read(&vm0->rw);", "up_read(&vm0->rw);");
    assert_eq!(two(&sem, write), ["deadlock"], "a reader that reads again, behind a writer");
    assert_eq!(two(&sem, "down_read(&vm0->rw); up_read(&vm0->rw);"), NONE, "behind a reader");
    // It has to be the writer that waits: one that comes later is kept out itself.
    assert_eq!(two("down_read(&vm0->rw); up_read(&vm0->rw);", write), NONE);

    let lock = "DEFINE_RWLOCK(q); bool failed; \
                static void reads(void *info) { read_lock(&q); read_unlock(&q); }\n";
    let locks = |a: &str, b: &str| events(&format!("{lock}void a(void) {{ {a} }}\nvoid b(void) {{ {b} }}"));
    let write = "write_lock(&q); write_unlock(&q);";
    assert_eq!(locks(&again("read_lock(&q);", "read_unlock(&q);"), write), ["deadlock"]);
    // The reader of pCPU 0 is interrupted while the writer of pCPU 2 waits for it.
    let front = "+++\ndescription = \"\"\nparts = [\"rome\"]\npcpus = 3\nevents = [\"rmp-fault\"]\npages = [{ name = \"P\" }]\n";
    let task = |name: &str, pcpu: u8| format!("[[task]]\nrun = \"{name}\"\npcpus = [{pcpu}]\n");
    let tasks = task("a", 0) + &task("b", 1) + &task("c", 2);
    let expect = "[[expect]]\nverdict = \"holds\"\npolicies = [\"*\"]\n+++\n";
    let bodies = format!(
        "void a(void) {{ read_lock(&q); read_unlock(&q); }}\n\
         void b(void) {{ smp_call_function_single(0, reads, NULL, true); }}\nvoid c(void) {{ {write} }}\n"
    );
    assert_eq!(checked(&format!("{front}{tasks}{expect}{lock}{bodies}")), NONE, "a handler overtakes");
    let tries = "read_lock(&q); if (read_trylock(&q)) read_unlock(&q); else failed = true; read_unlock(&q); \
                 WARN_ON(READ_ONCE(failed));";
    assert_eq!(locks(tries, write), ["tracking"], "the second is not to be had once a writer waits");
    assert_eq!(locks(tries, "read_lock(&q); read_unlock(&q);"), NONE);
}

#[test]
fn threads_of_vcpus_that_share_a_pcpu_take_turns() {
    let front = "+++\ndescription = \"\"\nparts = [\"rome\"]\npcpus = 1\nevents = [\"rmp-fault\"]\npages = [{ name = \"P\" }]\n";
    let vcpu = |name: &str| format!("[[vcpu]]\nguest = \"guest\"\nthread = \"{name}\"\npcpus = [0]\n");
    let expect = "[[expect]]\nverdict = \"holds\"\npolicies = [\"*\"]\n+++\nvoid guest(void) { }\n";
    let vars = "int x; atomic_t ended; struct completion done;\n";
    let both = |a: &str, b: &str| {
        let bodies =
            format!("void a(struct kvm_vcpu *vcpu) {{ {a} }}\nvoid b(struct kvm_vcpu *vcpu) {{ {b} }}\n");
        checked(&format!("{front}{}{}{expect}{vars}{bodies}", vcpu("a"), vcpu("b")))
    };
    let adds = "int r = READ_ONCE(x); WRITE_ONCE(x, r + 1); \
                if (atomic_inc_return(&ended) == 2) WARN_ON(READ_ONCE(x) != 2);";
    assert_eq!(both(adds, adds), ["tracking"], "one loses its pCPU between its load and its store");
    assert_eq!(both("wait_for_completion(&done);", "complete(&done);"), NONE, "who sleeps gives its pCPU up");
}
