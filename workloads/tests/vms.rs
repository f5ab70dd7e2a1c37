//! VMs: kinds and ASIDs, mirrors, VMSA and shared pages, memory that a VMM reuses, pCPUs that go offline. The cases
//! are small enough to be counted by hand.

use cache_model::event::{EventKind, Victim};
use sim_core::choice::Scripted;
use sim_core::state::Plain;
use sim_explore::{Limits, Search};
use svm_model::explore::Explorer;
use svm_model::label::{Actor, Notes};

use svm_model::text::{POLICIES, default_kernel};
use svm_model::{MemoryKind, Stepped};
use workloads::check::{CheckCase, CheckReport, NamedText};
use workloads::litmus::Litmus;

fn text(t: &svm_model::text::Text) -> NamedText {
    NamedText { name: t.name.to_owned(), file: t.file.to_owned(), text: t.text.to_owned() }
}

/// Runs `f` over a test of a front matter and a body, under a policy.
fn with<T>(front: &str, body: &str, policy: &str, f: impl FnOnce(&CheckCase<'_>) -> T) -> T {
    // An RMP beside caches that are not coherent, so that its own part in what happens is seen.
    let assume = if front.contains("sev-snp") { "assume = [\"snp-on-any-part\"]\n" } else { "" };
    let text_of = format!(
        "+++\ndescription = \"x\"\nparts = [\"rome\"]\n{assume}{front}\n[[expect]]\nverdict = \"holds\"\npolicies = \
         [\"*\"]\n+++\n{body}"
    );
    let litmus = Litmus::parse("x.litmus", &text_of).unwrap_or_else(|e| panic!("{e}"));
    let policy = text(POLICIES.iter().find(|p| p.name == policy).unwrap());
    let kernel = text(default_kernel());
    let part = "rome";
    f(&CheckCase { litmus: &litmus, policy: &policy, kernel: &kernel, part, sme_coherent: false })
}

fn check(front: &str, body: &str) -> CheckReport {
    with(front, body, "no-flush", |case| {
        case.run(Limits::default(), None, None).unwrap_or_else(|e| panic!("{e}"))
    })
}

/// The events reached, each with its victim and the length of the shortest way there.
fn reached(report: &CheckReport) -> Vec<(EventKind, Victim, usize)> {
    report.events.iter().map(|e| (e.event, e.victim, e.schedule.len())).collect()
}

/// Runs one host task `t` to its end, and gives the value of the global `out` and the steps made.
fn out(front: &str, body: &str) -> (i64, usize) {
    with(front, body, "no-flush", |case| {
        let machine = case.machine(MemoryKind::Shadow).unwrap_or_else(|e| panic!("{e}"));
        let mut words = machine.layout().initial();
        let mut memory = machine.shadow().unwrap();
        let mut notes = Notes::default();
        let mut steps = 0;
        loop {
            let mut store = Plain { words: &mut words };
            match machine.step(&mut store, &mut memory, Actor::Task(0), &mut Scripted::new(&[]), &mut notes) {
                Stepped::Done => steps += 1,
                Stepped::Blocked(slot) => {
                    panic!("blocked on {}", machine.layout().slots()[slot.0 as usize].name)
                }
                Stepped::Idle => break,
            }
            assert!(steps < 100);
        }
        (words[machine.variable("out", 0, 0).unwrap().0 as usize], steps)
    })
}

const TASK: &str = "pcpus = 1\npages = [{ name = \"P\" }]\n[[task]]\nrun = \"t\"\npcpus = [0]\n";
const KINDS: &str = "[[vm]]\nkind = \"normal\"\n[[vm]]\n[[vm]]\nkind = \"sev-es\"\n[[vm]]\nkind = \"sev-snp\"\n\
                     [[vm]]\nkind = \"sev-es\"\nmirror_of = 2\n";

#[test]
fn kinds_and_asids_are_constants_and_cost_no_step() {
    let front = format!("{TASK}{KINDS}");
    // One step: the store.
    let types = "void t(void) { WRITE_ONCE(out, kvm_vm_type(vm0) + 4 * (kvm_vm_type(vm1) == KVM_X86_SEV_VM) + 8 * \
                 (kvm_vm_type(vm2) == KVM_X86_SEV_ES_VM) + 16 * (kvm_vm_type(vm3) == KVM_X86_SNP_VM)); }";
    assert_eq!(out(&front, &format!("u16 out;\n{types}")), (28, 1));
    let asids = "sev_get_asid(vm0) + 10 * sev_get_asid(vm1) + 100 * sev_get_asid(vm2) + 1000 * sev_get_asid(vm3) + \
                 10000 * sev_get_asid(vm4)";
    assert_eq!(out(&front, &format!("u16 out;\nvoid t(void) {{ WRITE_ONCE(out, {asids}); }}")), (23210, 1));
    // The same of a VM that is known only when it runs: a choice rests, and is no step.
    let some = "u16 out; u8 which;\nvoid t(void) { struct kvm *kvm = vm0; if (which == 0) kvm = vm3; \
                WRITE_ONCE(out, sev_get_asid(kvm) * 10 + kvm_vm_type(kvm)); }";
    assert_eq!(out(&front, some), (34, 2));
}

#[test]
fn an_asid_that_a_text_sets_is_shared_state() {
    let front = format!("{TASK}[[vm]]\n[[vm]]\nasid = 0\n");
    let body = "u16 out;\nvoid t(void) { sev_set_asid(vm1, sev_get_asid(vm0)); sev_set_asid(vm0, 0); \
                WRITE_ONCE(out, sev_get_asid(vm0) * 10 + sev_get_asid(vm1)); }";
    // Three reads, two writes, and the store.
    assert_eq!(out(&front, body), (1, 6));
    let report = check(&front, "void t(void) { sev_set_asid(vm0, 2); }");
    assert_eq!(reached(&report), [(EventKind::Tracking, Victim::Host, 1)]);
}

#[test]
fn the_vmsa_of_a_vcpu_is_a_constant_and_may_be_none() {
    let front = "pcpus = 2\npages = [{ name = \"P\" }, { name = \"V\", vmsa_of = 1 }]\n[[task]]\nrun = \"t\"\npcpus \
                 = [0]\n[[vm]]\nkind = \"sev-snp\"\n[[vcpu]]\nguest = \"g\"\npcpus = [1]\n[[vcpu]]\nguest = \
                 \"g\"\npcpus = [1]\n";
    let body = |of: &str| {
        format!(
            "u16 out;\nvoid g(void) {{}}\nvoid t(void) {{ WRITE_ONCE(out, vcpu_vmsa({of}) == NULL ? 2 : 1); }}"
        )
    };
    // The actors are in order: vCPUs come first, so the task is the third.
    let at = |of: &str| {
        with(front, &body(of), "no-flush", |case| {
            let machine = case.machine(MemoryKind::Shadow).unwrap_or_else(|e| panic!("{e}"));
            let (mut words, mut memory) = (machine.layout().initial(), machine.shadow().unwrap());
            let mut notes = Notes::default();
            let mut store = Plain { words: &mut words };
            let done =
                machine.step(&mut store, &mut memory, Actor::Task(2), &mut Scripted::new(&[]), &mut notes);
            assert_eq!(done, Stepped::Done);
            words[machine.variable("out", 0, 0).unwrap().0 as usize]
        })
    };
    assert_eq!((at("vcpu0"), at("vcpu1")), (2, 1));
}

/// One vCPU of a VM, and one task on a pCPU of its own.
fn pair(pages: &str, vms: &str, vm: u16) -> String {
    format!(
        "pcpus = 2\npages = [{pages}]\n[[vcpu]]\nvm = {vm}\nguest = \"g\"\npcpus = [0]\n[[task]]\nrun = \"t\"\npcpus \
         = [1]\n{vms}"
    )
}

/// Steps of a vCPU's thread from its start to VMRUN (load 2; request; mode; two checks; VMRUN), and from a #VMEXIT to
/// its end (#VMEXIT, mode, put).
const ENTRY: usize = 7;
const EXIT: usize = 3;

#[test]
fn each_exit_writes_the_vmsa_until_it_is_freed() {
    let front = pair("{ name = \"V\", vmsa_of = 0 }", "[[vm]]\nkind = \"sev-es\"\n", 0);
    let after = check(&front, "void g(void) {}\nvoid t(void) { vcpu_thread_join(vcpu0); free_page(V); }");
    // The join and the free.
    assert_eq!(reached(&after)[0], (EventKind::Latent, Victim::Host, ENTRY + EXIT + 2));
    // Then the next owner's write, and three moves that bring the dirty line to memory.
    assert_eq!(reached(&after)[1], (EventKind::Clobber, Victim::Host, ENTRY + EXIT + 2 + 4));
    // Without the join the first exit is enough: enter, leave, free.
    let body = "void g(void) {}\nvoid t(void) { free_page(V); }";
    assert_eq!(reached(&check(&front, body))[0], (EventKind::Latent, Victim::Host, ENTRY + 1 + 1));
    // Freed before the first exit, nothing is dirty, and what comes later is not written: only what was dirty when it
    // was freed is ever written over the next owner's data.
    let clobber = reached(&check(&front, body))[1];
    assert_eq!(clobber, (EventKind::Clobber, Victim::Host, ENTRY + 1 + 1 + 4));
}

#[test]
fn a_plain_sev_vcpu_writes_no_vmsa_and_a_normal_vm_no_guest_line() {
    let body = "void g(void) { guest_write(P); }\nvoid t(void) { madvise_dontneed(vm0, P); }";
    let page = "{ name = \"P\", mapped = true }";
    assert!(!check(&pair(page, "[[vm]]\n", 0), body).events.is_empty());
    assert!(check(&pair(page, "[[vm]]\nkind = \"normal\"\n", 0), body).events.is_empty());
    let shared = "{ name = \"P\", mapped = true, shared = true }";
    assert!(check(&pair(shared, "[[vm]]\n", 0), body).events.is_empty());
}

#[test]
fn mirrors_share_a_key_and_other_vms_do_not() {
    // VM 0's vCPU writes P; VM 1's reads it afterwards, on the same pCPU.
    let front = |vms: &str| {
        format!(
            "pcpus = 2\nevents = [\"garbage\", \"stale\"]\npages = [{{ name = \"P\", mapped = true }}]\n[[vcpu]]\n\
             vm = 0\nguest = \"w\"\npcpus = [0]\n[[vcpu]]\nvm = 1\nguest = \"r\"\npcpus = [1]\n{vms}"
        )
    };
    let body = "void w(void) { guest_write(P); }\nvoid r(void) { guest_write(P); guest_read(P); }";
    let mirror = check(&front("[[vm]]\n[[vm]]\nmirror_of = 0\n"), body);
    assert_eq!(reached(&mirror), []);
    // A stranger's write is not the page's owner's: its line stays dirty under a tag that does not own the page.
    // It has no mapping of the page by itself.
    assert_eq!(reached(&check(&front("[[vm]]\n[[vm]]\n"), body)), []);
    let maps = front("[[vm]]\n[[vm]]\n").replace("guest = \"r\"", "guest = \"r\"\nthread = \"maps\"");
    let thread = "void maps(struct kvm_vcpu *vcpu) { install_spte(vm1, P); vcpu_thread(vcpu); }";
    let stranger = check(&maps, &format!("{body}\n{thread}"));
    assert_eq!(reached(&stranger)[0].0, EventKind::Latent);
    assert_eq!(reached(&stranger)[0].1, Victim::Vm);
}

#[test]
fn a_vmm_that_reuses_memory_hurts_itself_only() {
    let front = pair("{ name = \"P\", mapped = true }", "", 0);
    let body = |end: &str| {
        format!(
            "void g(void) {{ guest_write(P); }}\nvoid t(void) {{ vcpu_thread_join(vcpu0); user_reuse_page(P); {end} }}"
        )
    };
    let report = check(&front, &body(""));
    let told = reached(&report);
    // Enter, write, leave, join, reuse; then a write by the VMM and three moves; then a read.
    let latent = ENTRY + 1 + EXIT + 2;
    assert_eq!(
        told,
        [
            (EventKind::Latent, Victim::Myself, latent),
            (EventKind::Clobber, Victim::Myself, latent + 4),
            (EventKind::Garbage, Victim::Myself, latent + 5)
        ]
    );
    // Freed to the kernel afterwards, the line is everybody's problem: both are judged, the first first.
    let freed = check(&front, &body("free_page(P);"));
    assert_eq!(reached(&freed)[0], (EventKind::Latent, Victim::Myself, latent));
    // What no VM has cannot be reused.
    let twice = check(&front, &body("user_reuse_page(P);"));
    assert!(twice.events.iter().any(|e| e.event == EventKind::Tracking));
}

#[test]
fn pages_that_move_belong_to_the_destination() {
    // After the move P is VM 1's, and the ASID too: its guest's write is its own, and VM 0's would be a stranger's.
    let front = "pcpus = 2\npages = [{ name = \"P\", mapped = true }]\n[[vcpu]]\nvm = 0\nguest = \"g\"\npcpus = [0]\n\
                 [[task]]\nrun = \"t\"\npcpus = [1]\n[[vm]]\n[[vm]]\n";
    let body = "void g(void) { guest_write(P); }\nvoid t(void) { move_pages_owner(vm0, vm1); }";
    let told = reached(&check(front, body));
    // VM 0 keeps its ASID and writes into what is VM 1's: the move, then enter and write.
    assert_eq!(told[0], (EventKind::Latent, Victim::Vm, 1 + ENTRY + 1));
    let with_asid = "void g(void) { guest_write(P); }\nvoid t(void) { sev_set_asid(vm1, 1); move_pages_owner(vm0, vm1); }";
    assert_eq!(reached(&check(front, with_asid)), [], "the key is shared");
}

/// Of every state of a test in which the bit of pCPU 0 is off: where the vCPU's thread is, and in how many of them it
/// is on pCPU 0, could be moved, and so does nothing but leave.
fn once_offline(front: &str, body: &str) -> (Vec<i64>, usize) {
    with(front, body, "all-wbinvd", |case| {
        let machine = case.machine(MemoryKind::Shadow).unwrap_or_else(|e| panic!("{e}"));
        let slot = |name: &str| machine.layout().slots().iter().position(|s| s.name == name).unwrap();
        let (online, on, running) = (slot("cpu_online_mask"), slot("vcpu0.on"), slot("vcpu0.pc"));
        let windows =
            ["pcpu0.preempt_count", "pcpu0.irq_off", "pcpu0.handling", "vcpu0.in_guest", "vcpu0.sched.pc"];
        let windows = windows.map(slot);
        let mut explorer = Explorer::new(&machine).unwrap();
        let explored = explorer.run(Search::default()).unwrap_or_else(|words| panic!("{words} words"));
        let deadlock = svm_model::explore::goal_of(EventKind::Deadlock);
        assert!(explored.reached.iter().all(|r| r.goal != deadlock));
        let (positions, _) = machine.layout().pack();
        let (mut places, mut leave) = (Vec::new(), 0);
        for state in explored.ids().map(|i| explored.state(i)) {
            let value = |p: &sim_core::state::Position| {
                (state[p.word as usize] >> p.shift & p.mask()).cast_signed() + p.low
            };
            let mut words: Vec<i64> = positions.iter().map(value).collect();
            if words[online] & 1 == 1 {
                continue;
            }
            places.push(words[on]);
            if words[on] != 0 || words[running] == 0 || windows.iter().any(|w| words[*w] != 0) {
                continue;
            }
            leave += 1;
            let mut step = |actor: Actor| {
                let (mut memory, mut notes) = (machine.shadow().unwrap(), Notes::default());
                let mut store = Plain { words: &mut words };
                machine.step(&mut store, &mut memory, actor, &mut Scripted::new(&[]), &mut notes)
            };
            assert!(matches!(step(Actor::Task(0)), Stepped::Blocked(_)));
            assert_eq!(step(Actor::Preempt(0)), Stepped::Done);
        }
        places.sort_unstable();
        places.dedup();
        (places, leave)
    })
}

#[test]
fn nothing_runs_on_an_offline_pcpu_but_what_is_bound_to_it() {
    let front = |dies: u16| {
        format!(
            "pcpus = 2\npages = [{{ name = \"P\", mapped = true }}]\n[[vcpu]]\nguest = \"g\"\npcpus = \
             [0]\n[[task]]\nrun = \"t\"\npcpus = [{dies}]\n"
        )
    };
    let body = "cpumask_t cpu_online_mask;\nvoid g(void) { guest_write(P); }\nvoid t(void) { set_cpu_online(0, \
                false); wbinvd(); }";
    // The task bound to pCPU 0 takes it offline itself: no vCPU is there then, and it ends on pCPU 1, which is not
    // its own, or waits.
    assert_eq!(once_offline(&front(0), body), (vec![-1, 1], 0));
    // Another pCPU does: the vCPU is still there, in the guest or in a section that cannot be left, and goes then.
    let (places, leave) = once_offline(&front(1), body);
    assert_eq!(places, [-1, 0, 1]);
    assert!(leave > 0);
}
