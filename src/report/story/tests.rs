use svm_model::lang::Role;

use super::*;
use crate::report::table::columns;

fn step(n: usize, actor: &str, pcpu: Option<u16>, text: &str, effect: &str) -> StoryStep {
    StoryStep {
        step: n,
        actor: actor.to_owned(),
        pcpu,
        file: Some("kernels/k.c".to_owned()),
        line: Some(7),
        column: Some(2),
        function: Some("kvm_flush".to_owned()),
        role: Some(Role::Kernel),
        near: None,
        text: text.to_owned(),
        effect: effect.to_owned(),
        events: Vec::new(),
        cause: None,
    }
}

fn plain(story: &[StoryStep], from: usize, width: usize) -> String {
    anstream::adapter::strip_str(&tell(story, from, width)).to_string()
}

#[test]
fn each_actor_has_a_column_and_functions_are_named_once() {
    let mut policy = step(3, "vcpu0", Some(0), "wbnoinvd();", "nothing to write back");
    (policy.role, policy.file, policy.function) =
        (Some(Role::Policy), Some("p/mine.c".to_owned()), Some("mark".to_owned()));
    let story = [
        step(1, "vcpu0", Some(0), "n++;", "n: 0 -> 1"),
        step(2, "vcpu0", Some(0), "m++;", "m: 0 -> 1"),
        policy,
        step(4, "reclaim", Some(1), "WRITE_ONCE(vcpu->request_tlb_flush, true);", "vcpu0.request: 0 -> 1"),
    ];
    let lines = [
        "lines without a file are of k.c",
        "    CPU0 (vcpu0)              | CPU1 (reclaim)",
        "    kvm_flush():              |",
        " 1    7 n++;  n: 0 -> 1       |",
        " 2    7 m++;  m: 0 -> 1       |",
        "    mark():                   |",
        " 3  mine.c:7 wbnoinvd();      |",
        "        nothing to write back |",
        "                              | kvm_flush():",
        " 4                            |   7 vcpu0.request: 0 -> 1",
    ];
    let told = plain(&story, 0, 58);
    let told: Vec<&str> = told.lines().collect();
    assert_eq!(told, lines);
}

#[test]
fn no_step_is_lost_and_no_line_too_wide() {
    let long = "if (cmpxchg(&vcpu->mode, IN_GUEST_MODE, EXITING_GUEST_MODE) != OUTSIDE_GUEST_MODE)";
    let texts = ["n++;", long, "WRITE_ONCE(vcpu->mode, IN_GUEST_MODE);"];
    let effects = ["", "n: 0 -> 1", "aaaa: 0 -> 1; bbbb: 0 -> 1; vm0.mmu_invalidate_in_progress: 0 -> 1"];
    let actors = [
        "vcpu0",
        "reclaim_a_page",
        "irq:pcpu0",
        "preempt:vcpu0",
        "cache",
        "world",
        "a_task_with_a_name_too_long",
    ];
    // A fixed sequence of numbers.
    let mut state = 12345u64;
    let mut next = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0) % n
    };
    for round in 0..300 {
        let count = 1 + next(90);
        let story: Vec<StoryStep> = (1..=count)
            .map(|n| {
                let actor = actors[next(1 + round % actors.len())];
                let hardware = matches!(actor, "cache" | "world");
                let pcpu = (!hardware).then(|| u16::try_from(next(1 + round % 5)).unwrap_or(0));
                let mut step = step(n, actor, pcpu, texts[next(texts.len())], effects[next(effects.len())]);
                if hardware || next(4) == 0 {
                    (step.file, step.line, step.function, step.role) = (None, None, None, None);
                } else if next(3) == 0 {
                    step.role = Some(Role::Policy);
                    step.function = Some("kvm_arch_guest_memory_reclaimed_by_a_very_long_name".to_owned());
                }
                step.near = (hardware && next(2) == 0).then_some(0);
                step
            })
            .collect();
        for width in [40, 60, 80, 100, 140] {
            let from = if round % 7 == 0 { count / 2 } else { 0 };
            let text = plain(&story, from, width);
            assert!(
                text.lines().all(|l| columns(l) <= width.min(100) && l.trim_end() == l),
                "{width}\n{text}"
            );
            let digits = count.to_string().len().max(2);
            let number = |l: &str| l.get(..digits).and_then(|n| n.trim().parse::<usize>().ok());
            let numbers: Vec<usize> = text.lines().filter_map(number).collect();
            assert_eq!(numbers, (from + 1..=count).collect::<Vec<_>>(), "{width}\n{text}");
        }
    }
}
