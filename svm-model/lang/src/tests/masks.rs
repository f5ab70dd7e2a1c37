//! Local masks that their function allocates: what each misuse reports.

use super::mock::Mock;
use super::{code, config};
use crate::Warning;

/// What `test` warns of whose body this is, with these answers of allocations and choices, in machines of one word and of three.
fn warnings(body: &str, answers: &[i64]) -> Vec<Warning> {
    let text = format!("int out; cpumask_t all;\nvoid test(void) {{ {body} }}");
    let mut found = [64, 1].map(|word_bits| {
        let config = config(3, word_bits);
        let code = code(&text, &["test"], &config);
        let run = Mock::new(&code, &config).choices(answers).run(&code.entries[0], &[]);
        let warned =
            run.log.iter().filter_map(|entry| entry.strip_prefix("Warn[")?.split(", ").nth(1)?.parse().ok());
        warned.map(Warning::of).collect::<Vec<_>>()
    });
    assert_eq!(found[0], found[1], "{body}");
    std::mem::take(&mut found[0])
}

const ALLOCATE: &str = "cpumask_var_t m; if (!zalloc_cpumask_var(&m, GFP_KERNEL)) return;";

#[test]
fn what_is_allocated_checked_and_freed_is_no_event() {
    let good = format!("{ALLOCATE} cpumask_set_cpu(1, m); out = cpumask_weight(m); free_cpumask_var(m);");
    assert_eq!(warnings(&good, &[1]), []);
    assert_eq!(warnings(&good, &[0]), []);
    let early = format!("{ALLOCATE} if (maybe()) {{ free_cpumask_var(m); return; }} free_cpumask_var(m);");
    assert_eq!(warnings(&early, &[1, 1]), []);
    let each = "int i; for (i = 0; i < 2; i++) { cpumask_var_t m; \
        if (!alloc_cpumask_var_node(&m, GFP_KERNEL, 0)) continue; free_cpumask_var(m); }";
    assert_eq!(warnings(each, &[1, 0, 0]), []);
    let only_freed = "cpumask_var_t m; zalloc_cpumask_var(&m, GFP_KERNEL); if (cpumask_available(m)) cpumask_clear(m); free_cpumask_var(m);";
    assert_eq!(warnings(only_freed, &[0]), [], "what is NULL may be freed");
}

#[test]
fn each_misuse_of_an_allocated_local_mask_is_reported() {
    let unchecked =
        "cpumask_var_t m; zalloc_cpumask_var(&m, GFP_KERNEL); cpumask_set_cpu(0, m); free_cpumask_var(m);";
    assert_eq!(warnings(unchecked, &[1]), []);
    assert_eq!(warnings(unchecked, &[0]), [Warning::MaskGone], "there was no memory");
    let early =
        "cpumask_var_t m; cpumask_set_cpu(0, m); zalloc_cpumask_var(&m, GFP_KERNEL); free_cpumask_var(m);";
    assert_eq!(warnings(early, &[1]), [Warning::MaskGone], "not allocated yet");
    assert_eq!(
        warnings(&format!("{ALLOCATE} free_cpumask_var(m); cpumask_set_cpu(0, m);"), &[1]),
        [Warning::MaskGone]
    );
    assert_eq!(
        warnings(&format!("{ALLOCATE} free_cpumask_var(m); free_cpumask_var(m);"), &[1]),
        [Warning::MaskFreedTwice]
    );
    let twice = format!("{ALLOCATE} zalloc_cpumask_var(&m, GFP_KERNEL); free_cpumask_var(m);");
    assert_eq!(warnings(&twice, &[1, 1]), [Warning::MaskAllocatedTwice]);
    assert_eq!(warnings(ALLOCATE, &[1]), [Warning::MaskLeaked]);
    assert_eq!(warnings(ALLOCATE, &[0]), []);
}

#[test]
fn an_allocated_local_mask_leaks_wherever_its_block_is_left() {
    for leave in ["return;", "goto out;", "break;", "continue;"] {
        let body = format!(
            "int i; for (i = 0; i < 1; i++) {{ cpumask_var_t m; zalloc_cpumask_var(&m, GFP_KERNEL); if (maybe()) {leave} \
             free_cpumask_var(m); }} out: barrier();"
        );
        assert_eq!(warnings(&body, &[1, 1]), [Warning::MaskLeaked], "{leave}");
        assert_eq!(warnings(&body, &[1, 0]), [], "{leave}");
    }
    // Forward past the declaration, and back before it.
    let past = "if (maybe()) goto out; cpumask_var_t m; zalloc_cpumask_var(&m, GFP_KERNEL); free_cpumask_var(m); out: barrier();";
    assert_eq!(warnings(past, &[1]), []);
    let back = "again: barrier(); cpumask_var_t m; zalloc_cpumask_var(&m, GFP_KERNEL); if (maybe()) goto again; free_cpumask_var(m);";
    assert_eq!(warnings(back, &[1, 1, 1, 0]), [Warning::MaskLeaked]);
    let label = format!("{ALLOCATE} again: barrier(); if (maybe()) goto again; free_cpumask_var(m);");
    assert_eq!(warnings(&label, &[1, 1, 0]), []);
}

#[test]
fn every_use_of_a_mask_that_is_not_there_is_one_and_finds_no_bits() {
    let uses = [
        "cpumask_clear_cpu(0, m);",
        "out = cpumask_test_cpu(0, m);",
        "cpumask_copy(m, &all);",
        "cpumask_copy(&all, m);",
        "out = cpumask_empty(m);",
        "out = cpumask_weight(m);",
        "out = cpumask_first(m);",
        "out = cpumask_any(m);",
        "cpumask_xchg(m, &all, NULL);",
        "csd_lock_wait_mask(m);",
        "struct cpumask *p = m; cpumask_set_cpu(1, p);",
        "int cpu; for_each_cpu(cpu, m) out++;",
    ];
    for used in uses {
        let body = format!("{ALLOCATE} free_cpumask_var(m); {used}");
        assert_eq!(warnings(&body, &[1]), [Warning::MaskGone], "{used}");
    }
    let lost = format!("{ALLOCATE} free_cpumask_var(m); cpumask_setall(m); WARN_ON(!cpumask_empty(m));");
    assert_eq!(warnings(&lost, &[1]), [Warning::MaskGone, Warning::MaskGone], "what is written is lost");
}

#[test]
fn a_local_mask_that_nobody_allocates_is_there() {
    assert_eq!(
        warnings(
            "cpumask_var_t m; cpumask_set_cpu(0, m); WARN_ON(cpumask_empty(m)); free_cpumask_var(m);",
            &[]
        ),
        []
    );
}
