//! Symmetry and partial order against the search without them: over the corpus, over models made to be symmetric, and
//! over random programs.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sim_explore::{Explored, Limits, Search};
use svm_model::explore::{Explorer, Reductions};
use svm_model::lang::{Role, Source};
use svm_model::spec::MemoryModel;
use svm_model::text::{KERNELS, POLICIES, Text};
use svm_model::{Machine, MemoryKind};
use workloads::check::{CheckCase, NamedText};
use workloads::litmus::{BUILTIN, Litmus};

const SYMMETRY: Reductions = Reductions { symmetry: true, partial_order: false };
const PARTIAL_ORDER: Reductions = Reductions { symmetry: false, partial_order: true };
const BOTH: Reductions = Reductions { symmetry: true, partial_order: true };

/// The goals that are twins, not events.
const TWINS: u32 = 32;

fn named(t: &Text) -> NamedText {
    NamedText { name: t.name.into(), file: t.file.into(), text: t.text.into() }
}

/// A small kernel: entry, run, exit; a flush by mask. Its texts take pCPUs in no order, so that they are alike.
const KERNEL: &str = "
struct kvm { cpumask_t mask; };
void sev_writeback_caches(struct kvm *kvm);
static void __wbinvd(void *dummy) { wbinvd(); }
static void flush_mask(const struct cpumask *mask)
{
	cpumask_var_t targets;
	cpumask_var_t unsent;
	int cpu;
	int me = get_cpu();
	bool local = cpumask_test_cpu(me, mask);

	cpumask_copy(targets, mask);
	__cpumask_clear_cpu(me, targets);
	cpumask_copy(unsent, targets);
	while (!cpumask_empty(unsent)) {
		cpu = cpumask_any(unsent);
		__cpumask_clear_cpu(cpu, unsent);
		call_single_queue(cpu, __wbinvd, NULL, true);
	}
	if (local) {
		local_irq_disable();
		wbinvd();
		local_irq_enable();
	}
	if (!cpumask_empty(targets))
		csd_lock_wait_mask(targets);
	put_cpu();
}
void vcpu_sched_out(struct kvm_vcpu *vcpu) { vcpu_sched_park(); }
void vcpu_sched_in(struct kvm_vcpu *vcpu) { }
void vcpu_thread(struct kvm_vcpu *vcpu)
{
	int exit;

	for (;;) {
		local_irq_disable();
		cpumask_set_cpu(smp_processor_id(), &vcpu->kvm->mask);
		exit = vmrun(vcpu);
		local_irq_enable();
		if (exit == 1)
			break;
	}
}
void reclaim(struct kvm *kvm, struct page *page)
{
	zap_spte(kvm, page);
	sev_writeback_caches(kvm);
	free_page(page);
}
";

/// Never clears.
const STICKY: &str = "
void sev_writeback_caches(struct kvm *kvm)
{
	cpumask_var_t flush;

	cpumask_copy(flush, &kvm->mask);
	flush_mask(flush);
}
";

/// Clears what another flusher may not have flushed yet: violated.
const CLEARING: &str = "
void sev_writeback_caches(struct kvm *kvm)
{
	cpumask_var_t flush;

	cpumask_copy(flush, &kvm->mask);
	cpumask_clear(&kvm->mask);
	flush_mask(flush);
}
";

/// `vms` VMs of a vCPU, a page and a flusher each, over all pCPUs.
fn alike(pcpus: usize, vms: usize, vcpus: bool) -> String {
    let all: Vec<String> = (0..pcpus).map(|p| p.to_string()).collect();
    let all = all.join(", ");
    let pages: Vec<String> =
        (0..vms).map(|vm| format!("{{ name = \"P{vm}\", vm = {vm}, mapped = true }}")).collect();
    let mut front = format!(
        "description = \"\"\nparts = [\"rome\"]\npcpus = {pcpus}\nvms = {vms}\npages = [{}]\nassume = [\"no-dma\"]\n\
         reuse = [\"host\"]\nexpect = []\n",
        pages.join(", ")
    );
    let mut body = String::new();
    for vm in 0..vms {
        if vcpus {
            front.push_str(&format!("[[vcpu]]\nvm = {vm}\nguest = \"g{vm}\"\npcpus = [{all}]\n"));
            body.push_str(&format!("void g{vm}(void) {{ guest_write(P{vm}); }}\n"));
        }
        front.push_str(&format!("[[task]]\nrun = \"f{vm}\"\npcpus = [{all}]\n"));
        body.push_str(&format!("void f{vm}(void) {{ reclaim(vm{vm}, P{vm}); }}\n"));
    }
    format!("+++\n{front}+++\n{body}")
}

/// The machine of a test over the small kernel, or over a built-in one.
fn machine(litmus: &str, kernel: &str, policy: &str) -> Machine {
    let litmus = Litmus::parse("test.litmus", litmus).unwrap_or_else(|e| panic!("{e}"));
    let sources = [
        Source { file: "kernel.c", text: kernel, role: Role::Kernel },
        Source { file: "policy.c", text: policy, role: Role::Policy },
        Source { file: "test.litmus", text: &litmus.body, role: Role::Litmus },
    ];
    Machine::build(litmus.spec(false), &sources, MemoryKind::Shadow).unwrap_or_else(|e| panic!("{e:?}"))
}

/// A search, and how many permutations it used.
fn searched(machine: &Machine, reductions: Reductions, states: u32) -> (Explored, usize) {
    let mut explorer = Explorer::new(machine).expect("shadow caches");
    explorer.reduce(reductions);
    let limits = Limits { states, ..Limits::default() };
    let explored = explorer.run(Search { limits, ..Search::default() }).expect("narrow");
    (explored, explorer.permutations())
}

/// Each goal and its least depth.
fn goals(explored: &Explored) -> BTreeMap<u32, u32> {
    explored.reached.iter().map(|r| (r.goal, r.depth)).collect()
}

/// The goals that are events.
fn events(explored: &Explored) -> BTreeSet<u32> {
    explored.reached.iter().map(|r| r.goal).filter(|g| *g < TWINS).collect()
}

/// Compares each reduction with the search without; whether the space was small enough to compare.
fn compare(what: &str, machine: &Machine, states: u32) -> Option<[u32; 4]> {
    let (all, _) = searched(machine, Reductions::NONE, states);
    if all.bound.is_some() {
        return None;
    }
    let (less, permutations) = searched(machine, SYMMETRY, states);
    assert_eq!(goals(&less), goals(&all), "{what}: symmetry changes what is reached, or how soon");
    assert_eq!(less.depth, all.depth, "{what}: symmetry changes the depth");
    let most = less.states() as usize * permutations;
    assert!(all.states() as usize <= most, "{what}: {most} states at most, and {}", all.states());
    let (ordered, _) = searched(machine, PARTIAL_ORDER, states);
    assert_eq!(events(&ordered), events(&all), "{what}: partial order changes the events");
    let (both, _) = searched(machine, BOTH, states);
    assert_eq!(events(&both), events(&all), "{what}: both change the events");
    for explored in [&ordered, &both] {
        let met = |g: &u32| goals(&all).contains_key(g);
        assert!(goals(explored).keys().all(met), "{what}: partial order meets what is not there");
    }
    // Each way that symmetry found is one that the machine can go.
    let mut explorer = Explorer::new(machine).expect("shadow caches");
    explorer.reduce(SYMMETRY);
    let again = explorer.run(Search::default()).expect("narrow");
    for reached in &again.reached {
        let steps = explorer.path(&again, reached).unwrap_or_else(|| panic!("{what}: no such run"));
        assert_eq!(steps.len(), reached.depth as usize, "{what}");
        assert!(reached.goal >= TWINS || machine.tell(&steps).is_ok(), "{what}: the story does not replay");
    }
    Some([all.states(), less.states(), ordered.states(), both.states()])
}

#[test]
fn reductions_and_the_whole_search_agree_over_the_corpus() {
    let (mut compared, mut fewer) = (0, [0; 3]);
    let most = if cfg!(debug_assertions) { 2_000 } else { 50_000 };
    for (_, file, body) in BUILTIN {
        for model in MemoryModel::ALL {
            for litmus in Litmus::parse(file, body).unwrap().variants() {
                let litmus = &litmus.with_memory_model(model);
                for kernel in KERNELS.iter().filter(|k| litmus.kernels().iter().any(|n| n == k.name)) {
                    let asked = |p: &&Text| litmus.policies().is_none_or(|n| n.iter().any(|n| n == p.name));
                    for policy in POLICIES.iter().filter(asked) {
                        let (kernel, policy) = (named(kernel), named(policy));
                        let sme_coherent = compared % 2 == 1;
                        let part = if sme_coherent { "genoa" } else { "rome" };
                        let case = CheckCase { litmus, policy: &policy, kernel: &kernel, part, sme_coherent };
                        let Ok(machine) = case.machine(MemoryKind::Shadow) else { continue };
                        let what = format!("{} {} {} {part}", litmus.name, model.name(), policy.name);
                        let Some([all, less @ ..]) = compare(&what, &machine, most) else { continue };
                        compared += 1;
                        for (fewer, less) in fewer.iter_mut().zip(less) {
                            *fewer += i32::from(less < all);
                        }
                    }
                }
            }
        }
    }
    assert!(compared > 100, "only {compared} models compared");
    assert!(fewer.iter().all(|n| *n > 5), "hardly anything reduced: {fewer:?} of {compared}");
}

#[test]
fn classes_are_the_orbits_counted_by_hand() {
    // A host task that ends, on one of n pCPUs: it waits, it is on one of them, it has ended.
    let free = |n: usize| {
        let all: Vec<String> = (0..n).map(|p| p.to_string()).collect();
        format!(
            "+++\ndescription = \"\"\nparts = [\"rome\"]\npcpus = {n}\npages = [{{ name = \"P\" }}]\nexpect = []\n\
             [[task]]\nrun = \"t\"\npcpus = [{}]\n+++\nint x;\nvoid t(void) {{ WRITE_ONCE(x, 1); }}\n",
            all.join(", ")
        )
    };
    for n in 2..=4u32 {
        let machine = machine(&free(n as usize), KERNEL, STICKY);
        let (all, _) = searched(&machine, Reductions::NONE, 1_000);
        let (less, permutations) = searched(&machine, SYMMETRY, 1_000);
        assert_eq!((all.states(), less.states()), (n + 2, 3), "{n} pCPUs");
        assert_eq!(permutations, (1..=n as usize).product(), "{n} pCPUs");
    }
}

#[test]
fn least_images_are_one_a_class() {
    for (pcpus, vms, vcpus) in [(2, 1, true), (3, 1, false), (2, 2, false)] {
        let machine = machine(&alike(pcpus, vms, vcpus), KERNEL, CLEARING);
        let (all, _) = searched(&machine, Reductions::NONE, 400_000);
        let (less, _) = searched(&machine, SYMMETRY, 400_000);
        assert_eq!((all.bound, less.bound), (None, None));
        let mut explorer = Explorer::new(&machine).unwrap();
        explorer.reduce(SYMMETRY);
        let mut classes = BTreeSet::new();
        for id in all.ids() {
            let state = all.state(id);
            let least = explorer.least_image(&state);
            if id % 7 == 0 {
                assert_eq!(explorer.least_image(&least), least, "not idempotent");
                let images = explorer.images(&state);
                assert!(images.contains(&least), "no image");
                for image in images {
                    assert_eq!(explorer.least_image(&image), least, "an image has another least image");
                }
            }
            classes.insert(least);
        }
        assert_eq!(classes.len(), less.states() as usize, "{pcpus} pCPUs, {vms} VMs");
        // The same classes without least images: each state with all of its images.
        let states: BTreeSet<Vec<u64>> = all.ids().map(|id| all.state(id).to_vec()).collect();
        let (mut seen, mut orbits) = (BTreeSet::new(), 0);
        for state in &states {
            if !seen.contains(state) {
                orbits += 1;
                seen.extend(explorer.images(state));
            }
        }
        assert_eq!(orbits, less.states(), "{pcpus} pCPUs, {vms} VMs");
    }
}

#[test]
fn four_pcpus_and_two_vms_are_forty_eight_permutations() {
    let (explored, permutations) = searched(&machine(&alike(4, 2, true), KERNEL, STICKY), SYMMETRY, 2_000);
    assert_eq!(permutations, 24 * 2);
    assert!(explored.bound.is_some());
}

#[test]
fn reductions_agree_on_models_made_to_be_symmetric() {
    for (pcpus, vms, vcpus, policy) in [
        (2, 1, true, STICKY),
        (2, 1, true, CLEARING),
        (3, 2, false, CLEARING),
        (2, 2, false, STICKY),
        (3, 1, true, STICKY),
    ] {
        let machine = machine(&alike(pcpus, vms, vcpus), KERNEL, policy);
        let what = format!("{pcpus} pCPUs, {vms} VMs, vCPUs: {vcpus}");
        let counts = compare(&what, &machine, 400_000).unwrap_or_else(|| panic!("{what}: too large"));
        assert!(counts[1] * 3 < counts[0] * 2, "{what}: {counts:?}");
    }
}

#[test]
fn a_kernels_order_over_pcpus_tells_them_apart() {
    // The IPIs leave in the order of the pCPUs.
    let ordered = KERNEL.replace("cpu = cpumask_any(unsent);", "cpu = cpumask_first(unsent);");
    assert_ne!(ordered, KERNEL);
    let (_, permutations) = searched(&machine(&alike(3, 1, true), &ordered, STICKY), SYMMETRY, 300_000);
    assert_eq!(permutations, 1);
    // A loop over all pCPUs by number, which only the check finds out.
    let (_, file, body) = BUILTIN.iter().find(|b| b.0 == "reclaim-while-running").unwrap();
    let text = |texts: &[Text], name: &str| named(texts.iter().find(|t| t.name == name).unwrap());
    let (kernel, policy) = (text(KERNELS, "linux-6.17"), text(POLICIES, "clear-remark"));
    let litmus = &Litmus::parse(file, body).unwrap();
    let case = CheckCase { litmus, policy: &policy, kernel: &kernel, part: "rome", sme_coherent: false };
    let machine = case.machine(MemoryKind::Shadow).unwrap();
    let mut explorer = Explorer::new(&machine).unwrap();
    explorer.reduce(SYMMETRY);
    assert_eq!(explorer.permutations(), 2, "a candidate");
    explorer
        .run(Search { limits: Limits { states: 30_000, ..Limits::default() }, ..Search::default() })
        .unwrap();
    assert_eq!(explorer.permutations(), 1, "and refuted");
}

#[test]
fn what_a_guest_does_in_turn_tells_pages_apart() {
    let front = "description = \"\"\nparts = [\"rome\"]\npcpus = 1\n\
                 pages = [{ name = \"P\", mapped = true }, { name = \"Q\", mapped = true }]\nexpect = []\n\
                 [[vcpu]]\nguest = \"g\"\npcpus = [0]\n";
    let of = |body: &str| {
        searched(&machine(&format!("+++\n{front}+++\n{body}"), KERNEL, STICKY), SYMMETRY, 1_000).1
    };
    assert_eq!(of("void g(void) { guest_write(P); guest_write(Q); }"), 1);
    assert_eq!(of("void g(void) { }"), 2, "nobody tells them apart");
    assert_eq!(
        of("void g(void) { for (;;) { if (maybe()) guest_write(P); else guest_write(Q); } }"),
        2,
        "a choice"
    );
    assert_eq!(of("void g(void) { if (maybe()) guest_write(P); guest_write(Q); }"), 1, "no choice of either");
}

#[test]
fn what_another_task_can_see_is_not_passed_over() {
    // Neither task can lose its pCPU; only the state between the two stores is the bad one.
    let of = |seen: &str| {
        format!(
            "+++\ndescription = \"\"\nparts = [\"rome\"]\npcpus = 2\npages = [{{ name = \"P\" }}]\nexpect = []\n\
             [[task]]\nrun = \"a\"\npcpus = [0]\n[[task]]\nrun = \"b\"\npcpus = [1]\n+++\nint x; int y;\n\
             void a(void) {{ WRITE_ONCE(x, 1); WRITE_ONCE(x, 0); WRITE_ONCE(y, 1); }}\n\
             void b(void) {{ WARN_ON(READ_ONCE({seen})); }}\n"
        )
    };
    for seen in ["x", "y"] {
        assert!(compare(seen, &machine(&of(seen), KERNEL, STICKY), 1_000).is_some());
    }
    let (all, _) = searched(&machine(&of("x"), KERNEL, STICKY), Reductions::NONE, 1_000);
    assert_eq!(events(&all).len(), 1);
}

/// One statement of a random task over two per-CPU variables, two global ones, and a mask.
fn statement() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("WRITE_ONCE(x, 1);".to_owned()),
        Just("WRITE_ONCE(x, 0);".to_owned()),
        Just("if (READ_ONCE(x)) WRITE_ONCE(y, 1);".to_owned()),
        Just("atomic_inc(&n);".to_owned()),
        Just("cpumask_set_cpu(smp_processor_id(), &m);".to_owned()),
        Just("cpumask_clear(&m);".to_owned()),
        Just("mutex_lock(&l); WRITE_ONCE(y, 0); mutex_unlock(&l);".to_owned()),
        Just("{ int me = get_cpu(); this_cpu_write(c, READ_ONCE(x)); if (cpumask_test_cpu(me, &m)) this_cpu_write(c, 0); put_cpu(); }".to_owned()),
        Just("{ local_irq_disable(); if (this_cpu_read(c)) WRITE_ONCE(x, 1); local_irq_enable(); }".to_owned()),
        Just("host_write(P);".to_owned()),
        Just("WARN_ON(READ_ONCE(y) && !READ_ONCE(x));".to_owned()),
        Just("mutex_lock(&k); mutex_lock(&l); mutex_unlock(&l); mutex_unlock(&k);".to_owned()),
        Just("mutex_lock(&l); mutex_lock(&k); mutex_unlock(&k); mutex_unlock(&l);".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(debug_assertions) { 24 } else { 200 }, ..ProptestConfig::default() })]

    #[test]
    fn reductions_agree_over_random_programs(
        bodies in prop::collection::vec(prop::collection::vec(statement(), 1..4), 1..3),
        twice in any::<bool>(),
        pinned in any::<bool>(),
        pcpus in 2usize..4,
    ) {
        let all: Vec<String> = (0..pcpus).map(|p| p.to_string()).collect();
        let mut front = format!(
            "description = \"\"\nparts = [\"rome\"]\npcpus = {pcpus}\npages = [{{ name = \"P\" }}]\nexpect = []\n"
        );
        let mut body = "int x; int y; atomic_t n; struct mutex l; struct mutex k; cpumask_t m; DEFINE_PER_CPU(int, c);\n".to_owned();
        for (t, statements) in bodies.iter().enumerate() {
            body.push_str(&format!("void t{t}(void) {{ {} }}\n", statements.join(" ")));
            // The same function twice: tasks that are alike.
            for _ in 0..if twice && t == 0 { 2 } else { 1 } {
                let here = if pinned { all[t % pcpus].clone() } else { all.join(", ") };
                front.push_str(&format!("[[task]]\nrun = \"t{t}\"\npcpus = [{here}]\n"));
            }
        }
        let machine = machine(&format!("+++\n{front}+++\n{body}"), KERNEL, STICKY);
        compare(&body, &machine, 20_000);
    }
}
