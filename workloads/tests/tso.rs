//! Store buffers: the classic tests, and random programs against x86-TSO written down a second time.

use std::collections::BTreeSet;

use proptest::prelude::*;
use sim_core::state::{Packed, Store as _};
use sim_explore::{Bound, Limits, Search};
use svm_model::explore::Explorer;
use svm_model::lang::{Role, Source};
use svm_model::spec::{MemoryModel, STORE_BUFFER};
use svm_model::text::{KERNELS, POLICIES, Text};
use svm_model::{Machine, MemoryKind};
use workloads::check::{CheckCase, NamedText, Verdict};
use workloads::litmus::Litmus;

fn text<'t>(texts: &'t [Text], name: &str) -> &'t Text {
    texts.iter().find(|t| t.name == name).expect("a built-in text")
}

/// The machine of tasks `t0`, `t1`, ... of a body, each on a pCPU of its own.
fn machine(body: &str, tasks: usize, entries: u8) -> Machine {
    let mut front = format!(
        "+++\ndescription = \"\"\nparts = [\"rome\"]\npcpus = {tasks}\npages = [{{ name = \"P\" }}]\nexpect = []\n"
    );
    for t in 0..tasks {
        front.push_str(&format!("[[task]]\nrun = \"t{t}\"\npcpus = [{t}]\n"));
    }
    let litmus = Litmus::parse("test.litmus", &format!("{front}+++\n{body}")).expect("a litmus test");
    build(&litmus, entries)
}

fn build(litmus: &Litmus, entries: u8) -> Machine {
    let (kernel, policy) = (text(KERNELS, "linux-6.17"), text(POLICIES, "no-flush"));
    let sources = [
        Source { file: kernel.file, text: kernel.text, role: Role::Kernel },
        Source { file: policy.file, text: policy.text, role: Role::Policy },
        Source { file: &litmus.file, text: &litmus.body, role: Role::Litmus },
    ];
    let mut spec = litmus.spec(false);
    spec.assumptions.store_buffer = entries;
    Machine::build(spec, &sources, MemoryKind::Shadow).unwrap_or_else(|e| panic!("{}\n{e:?}", litmus.body))
}

/// What the variables hold once `done` counts all tasks, over every order of steps.
fn outcomes(body: &str, tasks: usize, entries: u8, vars: &[String]) -> BTreeSet<Vec<i64>> {
    found_in(&machine(body, tasks, entries), tasks, vars)
}

fn found_in(machine: &Machine, tasks: usize, vars: &[String]) -> BTreeSet<Vec<i64>> {
    let mut explorer = Explorer::new(machine).expect("shadow caches");
    let explored = explorer.run(Search { limits: Limits::default(), ..Search::default() }).expect("narrow");
    assert_eq!(explored.bound, None);
    let (layout, _) = machine.layout().pack();
    let slot = |name: &str| machine.variable(name, 0, 0).expect("a variable");
    let mut found = BTreeSet::new();
    for id in explored.ids() {
        let mut words = explored.state(id).to_vec();
        let store = Packed { words: &mut words, layout: &layout };
        if store.get(slot("done")) == i64::try_from(tasks).expect("few") {
            found.insert(vars.iter().map(|v| store.get(slot(v))).collect());
        }
    }
    found
}

fn two(a: &str, b: &str, entries: u8) -> BTreeSet<Vec<i64>> {
    let body = format!(
        "int x; int y; int r1; int r2; atomic_t done; DEFINE_SPINLOCK(l);\n\
         void t0(void) {{ int r; {a} r1 = r; atomic_inc(&done); }}\n\
         void t1(void) {{ int r; {b} r2 = r; atomic_inc(&done); }}"
    );
    outcomes(&body, 2, entries, &["r1".to_owned(), "r2".to_owned()])
}

fn pairs(list: &[[i64; 2]]) -> BTreeSet<Vec<i64>> {
    list.iter().map(|p| p.to_vec()).collect()
}

#[test]
fn store_buffering_differs_and_fences_stop_it() {
    let sc = pairs(&[[0, 1], [1, 0], [1, 1]]);
    let tso = pairs(&[[0, 0], [0, 1], [1, 0], [1, 1]]);
    let (a, b) = ("WRITE_ONCE(x, 1); r = READ_ONCE(y);", "WRITE_ONCE(y, 1); r = READ_ONCE(x);");
    assert_eq!(two(a, b, 0), sc);
    for entries in 1..=4 {
        assert_eq!(two(a, b, entries), tso, "{entries} entries");
    }
    let between = |what: &str| {
        let (a, b) = (a.replace("; r", &format!("; {what} r")), b.replace("; r", &format!("; {what} r")));
        two(&a, &b, 2)
    };
    for fence in [
        "smp_mb();",
        "atomic_inc(&vm0->n);",
        "xchg(&vm0->n, 1);",
        "cmpxchg(&vm0->n, 5, 1);",
        "mutex_lock(&vm0->m); mutex_unlock(&vm0->m);",
        "spin_lock(&l);",
        "wbinvd();",
        "wbnoinvd();",
        "smp_call_function_single(1 - smp_processor_id(), nothing, NULL, true);",
    ] {
        let fence = fence.to_owned();
        let body = format!(
            "struct kvm {{ int n; struct mutex m; }};\nDEFINE_SPINLOCK(l0); DEFINE_SPINLOCK(l1);\n\
             static void nothing(void *info) {{ }}\n\
             int x; int y; int r1; int r2; atomic_t done;\n\
             void t0(void) {{ WRITE_ONCE(x, 1); {} r1 = READ_ONCE(y); atomic_inc(&done); }}\n\
             void t1(void) {{ WRITE_ONCE(y, 1); {} r2 = READ_ONCE(x); atomic_inc(&done); }}",
            fence.replace("&l)", "&l0)"),
            fence.replace("&l)", "&l1)"),
        );
        let found = outcomes(&body, 2, 2, &["r1".to_owned(), "r2".to_owned()]);
        assert_eq!(found, sc, "{fence}");
    }
    // What does not order a store before later loads.
    for none in ["smp_wmb();", "smp_rmb();", "barrier();", "preempt_disable(); preempt_enable();"] {
        assert_eq!(between(none), tso, "{none}");
    }
    let release = "spin_lock(&vm0->s); WRITE_ONCE(x, 1); spin_unlock(&vm0->s); r1 = READ_ONCE(y);";
    let body = format!(
        "struct kvm {{ spinlock_t s; }};\nint x; int y; int r1; int r2; atomic_t done;\n\
         void t0(void) {{ {release} atomic_inc(&done); }}\n\
         void t1(void) {{ WRITE_ONCE(y, 1); smp_mb(); r2 = READ_ONCE(x); atomic_inc(&done); }}"
    );
    let found = outcomes(&body, 2, 2, &["r1".to_owned(), "r2".to_owned()]);
    assert_eq!(found, tso, "giving a spinlock back is a plain store");
}

#[test]
fn message_passing_never_breaks() {
    let (a, b) = ("x = 1; y = 1; r = 0;", "r = READ_ONCE(y); r = r * 2 + READ_ONCE(x);");
    for entries in 0..=3 {
        assert_eq!(two(a, b, entries), pairs(&[[0, 0], [0, 1], [0, 3]]), "{entries} entries");
    }
}

#[test]
fn a_pcpu_sees_its_own_stores_at_once_and_migration_takes_them_along() {
    assert_eq!(two("x = 1; x = 2; r = x;", "r = 0;", 2), pairs(&[[2, 0]]));
    // A single task that may move between two pCPUs at any time.
    let body = "int x; int r1; atomic_t done; void t0(void) { x = 1; r1 = x; atomic_inc(&done); }";
    let front = "+++\ndescription = \"\"\nparts = [\"rome\"]\npcpus = 2\nmemory_model = \"tso\"\nexpect = []\n\
        pages = [{ name = \"P\" }]\n[[task]]\nrun = \"t0\"\npcpus = [0, 1]\n+++\n";
    let litmus = Litmus::parse("test.litmus", &format!("{front}{body}")).expect("a litmus test");
    assert_eq!(litmus.memory_model(), MemoryModel::Tso);
    assert_eq!(found_in(&build(&litmus, STORE_BUFFER), 1, &["r1".to_owned()]), [vec![1]].into());
}

/// What a check says of two tasks under store buffers: the verdict, the events' names and the buffers' entries.
fn checked(a: &str, b: &str) -> (Verdict, Vec<&'static str>, u8, Option<Bound>) {
    let front = "+++\ndescription = \"\"\nparts = [\"rome\"]\npcpus = 2\nmemory_model = \"tso\"\nevents = [\"tracking\"]\n\
        pages = [{ name = \"P\" }]\nexpect = []\n[[task]]\nrun = \"t0\"\npcpus = [0]\n[[task]]\nrun = \"t1\"\npcpus = [1]\n+++\n";
    let body = format!(
        "int x; int y; int p; int r1; int r2; atomic_t done;\n\
         static void finish(void) {{ if (atomic_inc_return(&done) == 2) WARN_ON(!r1 && !r2); }}\n\
         void t0(void) {{ {a} finish(); }}\nvoid t1(void) {{ {b} finish(); }}"
    );
    let litmus = Litmus::parse("test.litmus", &format!("{front}{body}")).expect("a litmus test");
    let named = |t: &Text| NamedText { name: t.name.into(), file: t.file.into(), text: t.text.into() };
    let (kernel, policy) = (named(text(KERNELS, "linux-6.17")), named(text(POLICIES, "no-flush")));
    let case =
        CheckCase { litmus: &litmus, policy: &policy, kernel: &kernel, part: "rome", sme_coherent: false };
    let report = case.run(Limits::default(), None, None).expect("it runs");
    let events: Vec<&str> = report.events.iter().map(|e| e.event.name()).collect();
    for event in &report.events {
        // Whatever the size that it was found with.
        let machine = case.machine_to_replay().expect("it compiles");
        let told = machine.tell_of(event.event, &event.schedule).expect("its schedule can be followed");
        assert!(told.iter().flat_map(|s| &s.events).any(|e| e.0.kind == event.event));
    }
    (report.verdict, events, report.store_buffer, report.bound)
}

#[test]
fn buffers_grow_until_no_store_waits_for_room() {
    let first = |stores: &str| checked(&format!("x = 1; {stores} r1 = y;"), "y = 1; smp_mb(); r2 = x;");
    assert_eq!(first(""), (Verdict::Violated, vec!["tracking"], 2, None));
    // The load passes all of them.
    assert_eq!(first("p = 1; p = 2;"), (Verdict::Violated, vec!["tracking"], 4, None));
    assert_eq!(first("p = 1; p = 2; p = 3; p = 4;"), (Verdict::Violated, vec!["tracking"], 8, None));
    assert_eq!(first("p = 1; p = 2; smp_mb();"), (Verdict::Holds, vec![], 4, None), "three, and a fence");
    // More than there can be: nothing is claimed.
    let many = "p = 1; ".repeat(17);
    let (verdict, events, entries, bound) = first(&format!("{many} smp_mb();"));
    assert_eq!((verdict, events, entries), (Verdict::Bounded, vec![], 16));
    assert!(matches!(bound, Some(Bound::Model(_))), "{bound:?}");
}

/// One operation of a random program.
#[derive(Clone, Copy, Debug)]
enum Step {
    Store(usize, i64),
    Load(usize),
    Fence,
    Xchg(usize, i64),
    Add(usize),
}

impl Step {
    fn c(self, result: &str) -> String {
        let var = |v: usize| ["x", "y"][v];
        match self {
            Step::Store(v, n) => format!("WRITE_ONCE({}, {n});", var(v)),
            Step::Load(v) => format!("{result} = READ_ONCE({});", var(v)),
            Step::Fence => "smp_mb();".to_owned(),
            Step::Xchg(v, n) => format!("{result} = xchg(&{}, {n});", var(v)),
            Step::Add(v) => format!("{result} = atomic_inc_return(&{});", var(v)),
        }
    }

    const fn gives(self) -> bool {
        matches!(self, Step::Load(_) | Step::Xchg(..) | Step::Add(_))
    }
}

/// x86-TSO by its abstract machine, with buffers without bound: every outcome of the loads.
fn oracle(programs: &[Vec<Step>]) -> BTreeSet<Vec<i64>> {
    type State = ([i64; 2], Vec<usize>, Vec<Vec<(usize, i64)>>, Vec<Vec<i64>>);
    let start: State =
        ([0; 2], vec![0; programs.len()], vec![Vec::new(); programs.len()], vec![Vec::new(); programs.len()]);
    let (mut open, mut seen, mut found) = (vec![start.clone()], BTreeSet::from([start]), BTreeSet::new());
    while let Some(state) = open.pop() {
        let mut next = Vec::new();
        for (t, program) in programs.iter().enumerate() {
            let mut s = state.clone();
            if !s.2[t].is_empty() {
                let mut s = state.clone();
                let (v, n) = s.2[t].remove(0);
                s.0[v] = n;
                next.push(s);
            }
            let Some(step) = program.get(s.1[t]) else { continue };
            s.1[t] += 1;
            let empty = s.2[t].is_empty();
            match *step {
                Step::Store(v, n) => s.2[t].push((v, n)),
                Step::Load(v) => {
                    let own = s.2[t].iter().rev().find(|e| e.0 == v).map(|e| e.1);
                    let value = own.unwrap_or(s.0[v]);
                    s.3[t].push(value);
                }
                Step::Fence | Step::Xchg(..) | Step::Add(_) if !empty => continue,
                Step::Fence => {}
                Step::Xchg(v, n) => {
                    s.3[t].push(s.0[v]);
                    s.0[v] = n;
                }
                Step::Add(v) => {
                    s.0[v] += 1;
                    s.3[t].push(s.0[v]);
                }
            }
            next.push(s);
        }
        if next.is_empty() {
            found.insert(state.3.concat());
        }
        for s in next {
            if seen.insert(s.clone()) {
                open.push(s);
            }
        }
    }
    found
}

fn program() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..2usize, 1..4i64).prop_map(|(v, n)| Step::Store(v, n)),
        4 => (0..2usize).prop_map(Step::Load),
        1 => Just(Step::Fence),
        1 => (0..2usize, 1..4i64).prop_map(|(v, n)| Step::Xchg(v, n)),
        1 => (0..2usize).prop_map(Step::Add),
    ];
    prop::collection::vec(step, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_programs_have_the_outcomes_of_x86_tso(programs in prop::collection::vec(program(), 2..4)) {
        let mut body = "int x; int y; atomic_t done;\n".to_owned();
        let mut vars = Vec::new();
        for (t, program) in programs.iter().enumerate() {
            let (mut code, mut after) = (String::new(), String::new());
            for (i, step) in program.iter().enumerate() {
                let local = format!("l{i}");
                if step.gives() {
                    let var = format!("r{t}_{i}");
                    body.push_str(&format!("int {var};\n"));
                    code.push_str(&format!("int {local} = 0; "));
                    after.push_str(&format!("{var} = {local}; "));
                    vars.push(var);
                }
                code.push_str(&format!("{} ", step.c(&local)));
            }
            // A buffer of four entries holds all that a program of four operations stores.
            body.push_str(&format!("void t{t}(void) {{ {code}smp_mb(); {after}atomic_inc(&done); }}\n"));
        }
        prop_assert_eq!(outcomes(&body, programs.len(), 4, &vars), oracle(&programs), "{}", body);
    }
}
