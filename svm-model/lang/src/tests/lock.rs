//! Locks, semaphores, completions, and what they do to interrupts and preemption.

use super::mock::{Mock, Run, value};
use super::{code, config};
use crate::Code;

const LOCKS: &str = "DEFINE_MUTEX(m); DEFINE_SPINLOCK(s); DEFINE_RWLOCK(r); DECLARE_RWSEM(rw); DECLARE_COMPLETION(c); \
    struct kvm { struct rw_semaphore sem; struct completion done; }; int out;";

/// Runs a body whose locks are held as told.
fn run(body: &str, held: &[(&str, i64)]) -> (Code, Run) {
    let text = format!("{LOCKS}\nvoid test(void) {{ {body} }}");
    let config = config(2, 64);
    let code = code(&text, &["test"], &config);
    let mut mock = Mock::new(&code, &config);
    for (name, value) in held {
        mock = mock.set(name, 0, *value);
    }
    let run = mock.run(&code.entries[0], &[]);
    (code, run)
}

/// What `out` is, and how many steps it took.
fn out(body: &str, held: &[(&str, i64)]) -> (i64, usize) {
    let (code, run) = run(body, held);
    (value(&code, &run, "out"), run.steps)
}

fn log(body: &str, held: &[(&str, i64)]) -> Vec<String> {
    run(body, held).1.log
}

/// The context that the mock runs.
const ME: i64 = 5;

#[test]
fn trying_takes_one_step_and_never_waits() {
    for (lock, name, others) in [
        ("mutex_trylock(&m)", "m", 3),
        ("spin_trylock(&s)", "s", 3),
        ("write_trylock(&r)", "r", 2),
        ("read_trylock(&r)", "r", -3),
        ("down_read_trylock(&rw)", "rw", -3),
        ("down_write_trylock(&rw)", "rw", 1),
    ] {
        let body = format!("if ({lock}) out = 1; else out = 2;");
        assert_eq!(out(&body, &[]), (1, 2), "{lock}");
        assert_eq!(out(&body, &[(name, others)]), (2, 2), "{lock}");
        let (code, after) = run(&body, &[(name, others)]);
        assert_eq!(value(&code, &after, name), others, "{lock} leaves the others' lock alone");
    }
    assert_eq!(out("out = read_trylock(&r) + down_read_trylock(&rw);", &[("r", 2), ("rw", 4)]), (2, 3));
    // A writer waits for the readers: no further one gets it.
    assert_eq!(out("out = read_trylock(&r) + down_read_trylock(&rw);", &[("r", 3), ("rw", 5)]), (0, 3));
    assert_eq!(out("out = try_wait_for_completion(&c);", &[]), (0, 2));
    assert_eq!(out("out = try_wait_for_completion(&c) + completion_done(&c);", &[("c", 1)]), (1, 3));
}

#[test]
fn a_spinlock_that_was_refused_leaves_preemption_on() {
    assert_eq!(log("spin_trylock(&s);", &[("s", 2)]), ["PreemptDisable", "PreemptEnable"]);
    assert_eq!(log("spin_trylock(&s);", &[]), ["PreemptDisable"]);
    assert_eq!(log("mutex_trylock(&m);", &[("m", 2)]), [""; 0]);
}

#[test]
fn semaphores_let_readers_share_and_writers_exclude() {
    let after = |body: &str, held: i64| {
        let (code, run) = run(body, &[("rw", held)]);
        (value(&code, &run, "rw"), run.steps, run.log)
    };
    assert_eq!(after("down_read(&rw);", 2), (4, 1, vec![]));
    assert_eq!(after("down_write(&rw);", 0), (-ME, 1, vec![]));
    assert_eq!(after("down_write(&rw); up_write(&rw);", 0), (0, 2, vec![]));
    assert_eq!(after("down_read(&rw); up_read(&rw);", 0), (0, 2, vec![]));
    assert_eq!(after("down_read(&rw);", -2), (-2, 0, vec!["blocked".to_owned()]));
    assert_eq!(after("down_write(&rw);", 3), (3, 0, vec!["blocked".to_owned()]));
    assert_eq!(after("{ guard(rwsem_read)(&rw); out = 1; }", 0), (0, 3, vec![]));
    assert_eq!(after("{ guard(rwsem_write)(&rw); out = 1; }", 0), (0, 3, vec![]));
    assert_eq!(out("down_write(&vm1->sem); out = rwsem_is_locked(&vm1->sem);", &[]), (1, 3));
}

#[test]
fn completions_count_what_is_done() {
    let after = |body: &str, held: i64| {
        let (code, run) = run(body, &[("c", held)]);
        (value(&code, &run, "c"), run.steps, run.log.len())
    };
    assert_eq!(after("complete(&c); complete(&c);", 0), (2, 2, 0));
    assert_eq!(after("wait_for_completion(&c);", 2), (1, 1, 0));
    assert_eq!(after("wait_for_completion(&c);", 0), (0, 0, 1), "it waits");
    assert_eq!(after("complete_all(&c); wait_for_completion(&c); wait_for_completion(&c);", 0), (-1, 3, 0));
    assert_eq!(after("complete_all(&c); complete(&c); reinit_completion(&c);", 0), (0, 3, 0));
    assert_eq!(after("init_completion(&c); mutex_init(&m); spin_lock_init(&s);", 0), (0, 0, 0));
}

#[test]
fn what_is_not_held_cannot_be_given_back() {
    let not_held =
        |body: &str, held: &[(&str, i64)]| log(body, held).iter().filter(|l| l.ends_with("NotHeld")).count();
    assert_eq!(not_held("mutex_unlock(&m);", &[]), 1);
    assert_eq!(not_held("mutex_unlock(&m);", &[("m", 3)]), 1, "another context's");
    assert_eq!(not_held("mutex_lock(&m); mutex_unlock(&m); mutex_unlock(&m);", &[]), 1);
    assert_eq!(not_held("write_unlock(&r);", &[("r", -3)]), 1, "another writer's");
    assert_eq!(not_held("read_unlock(&r);", &[]), 1);
    assert_eq!(not_held("up_write(&rw);", &[("rw", 2)]), 1);
    assert_eq!(not_held("up_read(&rw);", &[("rw", -ME)]), 1);
    assert_eq!(not_held("up_read(&rw);", &[("rw", 2)]), 0);
}

#[test]
fn who_waits_for_itself_is_told() {
    for body in [
        "mutex_lock(&m); mutex_lock(&m);",
        "spin_lock(&s); spin_lock(&s);",
        "write_lock(&r); read_lock(&r);",
        "down_write(&rw); down_write(&rw);",
    ] {
        let told = log(body, &[]).iter().filter(|l| l.ends_with("Vain")).count();
        assert_eq!(told, 1, "{body}");
    }
    assert_eq!(log("mutex_lock(&m);", &[("m", 2)]), ["blocked"]);
}

#[test]
fn flags_keep_what_interrupts_were() {
    let irqs =
        |body: &str| -> Vec<String> { log(body, &[]).into_iter().filter(|l| l.starts_with("Irq")).collect() };
    let nested = "unsigned long f; unsigned long g; local_irq_save(f); local_irq_save(g); local_irq_restore(g); \
        out = irqs_disabled(); local_irq_restore(f);";
    assert_eq!(irqs(nested), ["IrqDisable", "IrqDisable", "IrqEnable"]);
    assert_eq!(out(nested, &[]), (1, 1));
    let plain = "unsigned long f; spin_lock_irqsave(&s, f); spin_unlock_irqrestore(&s, f);";
    assert_eq!(irqs(plain), ["IrqDisable", "IrqEnable"]);
    let inside =
        "unsigned long f; local_irq_disable(); spin_lock_irqsave(&s, f); spin_unlock_irqrestore(&s, f);";
    assert_eq!(irqs(inside), ["IrqDisable", "IrqDisable"]);
    assert_eq!(irqs("local_irq_disable(); { guard(spinlock_irqsave)(&s); }"), ["IrqDisable", "IrqDisable"]);
    assert_eq!(irqs("local_irq_disable(); { guard(spinlock_irq)(&s); }").len(), 3, "this one turns them on");
}

#[test]
fn a_context_can_ask_where_it_is() {
    let ask = "out = irqs_disabled() * 100 + in_atomic() * 10 + preemptible();";
    assert_eq!(out(ask, &[]), (1, 1));
    assert_eq!(out(&format!("local_irq_disable(); {ask}"), &[]), (100, 1));
    assert_eq!(out(&format!("preempt_disable(); {ask}"), &[]), (10, 1));
    assert_eq!(out(&format!("spin_lock_irq(&s); {ask}"), &[]), (110, 2));
    assert_eq!(out("might_sleep(); non_block_start(); non_block_end(); out = in_interrupt();", &[]), (0, 1));
}
