//! The stepper over atomics: nothing is lost between threads, locks exclude, calls arrive where they are sent, and programs
//! ask for what one works out by hand.

use std::sync::atomic::AtomicU32;

use svm_lang::{Config, Features, Included, Role, Source, VmTables, compile};

use super::*;

const KERNEL: &str = include_str!("../../../kernels/linux-6.17.c");
const SEV: &str = include_str!("../../../kernels/sev-6.17.c");
const STICKY: &str = include_str!("../../../policies/sticky-wbnoinvd.c");
const CLEARING: &str = include_str!("../../../policies/clear-in-handler.c");
const MUTEX: &str = include_str!("../../../policies/clear-remark-mutex.c");

fn shape(pcpus: usize) -> Shape {
    Shape { core: (0..).take(pcpus).collect(), llc: vec![0; pcpus], vms: 2, vcpu_vm: vec![0, 1] }
}

fn program(role: Role, text: &str, entries: &[&str], pcpus: usize) -> Program {
    let pcpus = u16::try_from(pcpus).unwrap();
    let config = Config {
        pcpus,
        vms: 2,
        asids: 3,
        tables: VmTables::default(),
        features: Features::default(),
        vcpu_vm: vec![0, 1],
        pages: 1,
        word_bits: 64,
        store_buffers: false,
        guests: None,
        constants: Vec::new(),
        defines: Vec::new(),
    };
    let kernel = Source { file: "kernel.c", text: KERNEL, role: Role::Kernel };
    let find = |_: &str, _: &str| Ok(Included { file: "sev.c".to_owned(), text: SEV.to_owned() });
    let code = compile(&[kernel, Source { file: "test.c", text, role }], &find, entries, &config);
    let said = |diags: Vec<svm_lang::Diag>| diags.iter().map(|d| format!("{d}\n")).collect::<String>();
    Program::of(&code.map_err(said).unwrap(), pcpus)
}

const HOOKS: [&str; 4] = ["pre_sev_run", "sev_writeback_caches", "vcpu_sched_in", "vcpu_sched_out"];

/// The pCPUs that a reclaim of a VM asks for, from pCPU 0.
fn reclaim(host: &Host<'_>, program: &Program, vm: i64) -> Vec<usize> {
    let mut actor = host.actor(0, 9);
    actor.call(program.entry("sev_writeback_caches").unwrap(), &[vm]);
    assert_eq!(actor.take_wrong(), []);
    let mut pcpus: Vec<usize> = actor.take_flushes().iter().map(|f| f.pcpu).collect();
    pcpus.sort_unstable();
    pcpus
}

fn visit(host: &Host<'_>, program: &Program, vcpu: i64, pcpu: usize) {
    let mut actor = host.actor(pcpu, 1);
    for (name, args) in [
        ("vcpu_sched_in", vec![vcpu]),
        ("pre_sev_run", vec![vcpu, i64::try_from(pcpu).unwrap()]),
        ("vcpu_sched_out", vec![vcpu]),
    ] {
        if let Some(entry) = program.entry(name) {
            actor.call(entry, &args);
        }
    }
    assert_eq!(actor.take_wrong(), []);
}

#[test]
fn a_reclaim_asks_where_its_vm_was_and_nowhere_else() {
    let shape = shape(70);
    let sticky = program(Role::Policy, STICKY, &HOOKS, 70);
    let host = Host::new(&sticky, &shape, Delivery::Inline);
    assert_eq!(reclaim(&host, &sticky, 0), [0; 0]);
    for pcpu in [3, 69, 64] {
        visit(&host, &sticky, 0, pcpu);
    }
    visit(&host, &sticky, 1, 5);
    assert_eq!(reclaim(&host, &sticky, 0), [3, 64, 69]);
    // Bits never disappear.
    assert_eq!(reclaim(&host, &sticky, 0), [3, 64, 69]);
    assert_eq!(reclaim(&host, &sticky, 1), [5]);
    let mut actor = host.actor(3, 9);
    actor.call(sticky.entry("sev_writeback_caches").unwrap(), &[0]);
    assert!(actor.take_flushes().iter().all(|f| f.keeps), "WBNOINVD");
}

#[test]
fn handlers_clear_their_own_bits() {
    let shape = shape(4);
    let clearing = program(Role::Policy, CLEARING, &HOOKS, 4);
    let host = Host::new(&clearing, &shape, Delivery::Inline);
    visit(&host, &clearing, 0, 2);
    visit(&host, &clearing, 0, 0);
    assert_eq!(reclaim(&host, &clearing, 0), [0, 2]);
    assert_eq!(reclaim(&host, &clearing, 0), [0; 0]);
    visit(&host, &clearing, 0, 2);
    assert_eq!(reclaim(&host, &clearing, 0), [2]);
}

#[test]
fn marks_at_load_are_cleared_and_the_mutex_is_given_back() {
    let hooks = ["sev_writeback_caches", "vcpu_sched_in", "vcpu_sched_out"];
    let shape = shape(4);
    let mutex = program(Role::Policy, MUTEX, &hooks, 4);
    let host = Host::new(&mutex, &shape, Delivery::Inline);
    visit(&host, &mutex, 0, 1);
    // A vCPU that is loaded still marks its pCPU again.
    host.actor(3, 1).call(mutex.entry("vcpu_sched_in").unwrap(), &[0]);
    assert_eq!(reclaim(&host, &mutex, 0), [1, 3]);
    assert_eq!(reclaim(&host, &mutex, 0), [3]);
    host.actor(3, 1).call(mutex.entry("vcpu_sched_out").unwrap(), &[0]);
    assert_eq!(reclaim(&host, &mutex, 0), [3]);
    assert_eq!(reclaim(&host, &mutex, 0), [0; 0]);
}

const COUNTERS: &str = "
s32 counted;
s32 guarded;
DEFINE_MUTEX(lock);
void count(void) { atomic_fetch_add(1, &counted); }
void guard_it(void) { mutex_lock(&lock); guarded = guarded + 1; mutex_unlock(&lock); }
void all(void) { wbinvd_on_all_cpus(); }
";

#[test]
fn threads_lose_no_atomic_addition_and_a_mutex_excludes() {
    const EACH: i64 = 100_000;
    let together = std::sync::Barrier::new(4);
    let shape = shape(4);
    let counters = program(Role::Litmus, COUNTERS, &["count", "guard_it"], 4);
    let host = Host::new(&counters, &shape, Delivery::Threads);
    std::thread::scope(|scope| {
        for pcpu in 0..4 {
            let (host, counters, together) = (&host, &counters, &together);
            scope.spawn(move || {
                let mut actor = host.actor(pcpu, u16::try_from(pcpu).unwrap());
                together.wait();
                for _ in 0..EACH {
                    actor.call(counters.entry("count").unwrap(), &[]);
                    actor.call(counters.entry("guard_it").unwrap(), &[]);
                }
                assert_eq!(actor.take_wrong(), []);
            });
        }
    });
    let both = (0..counters.vars.len()).filter(|n| host.words(*n) == [4 * EACH]).count();
    assert_eq!(both, 2, "{:?}", (0..counters.vars.len()).map(|n| host.words(n)).collect::<Vec<_>>());
}

#[test]
fn calls_run_on_the_threads_of_the_pcpus_they_are_sent_to() {
    let shape = shape(4);
    let counters = program(Role::Litmus, COUNTERS, &["all"], 4);
    let host = Host::new(&counters, &shape, Delivery::Threads);
    let done = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let (host, counters, done) = (&host, &counters, &done);
        for pcpu in 0..4 {
            scope.spawn(move || {
                let mut actor = host.actor(pcpu, u16::try_from(pcpu).unwrap());
                // Two of them send at the same time, and serve each other while they wait.
                if pcpu < 2 {
                    for _ in 0..50 {
                        actor.call(counters.entry("all").unwrap(), &[]);
                    }
                    done.fetch_add(1, Ordering::Release);
                }
                while done.load(Ordering::Acquire) < 2 {
                    actor.serve();
                }
                let flushes = actor.take_flushes();
                assert_eq!(flushes.len(), 100, "pCPU {pcpu}");
                assert!(flushes.iter().all(|f| f.pcpu == pcpu && !f.keeps));
                assert_eq!(actor.take_wrong(), []);
            });
        }
    });
}

#[test]
fn what_is_not_there_is_reported() {
    let shape = shape(2);
    let sticky = program(Role::Policy, STICKY, &HOOKS, 2);
    let host = Host::new(&sticky, &shape, Delivery::Inline);
    let mut actor = host.actor(0, 0);
    actor.call(sticky.entry("sev_writeback_caches").unwrap(), &[7]);
    assert_eq!(actor.take_wrong().first(), Some(&Wrong::Tracking));
    let text = "DEFINE_MUTEX(lock);\nvoid twice(void) { mutex_lock(&lock); mutex_lock(&lock); }";
    let twice = program(Role::Litmus, text, &["twice"], 2);
    let host = Host::new(&twice, &shape, Delivery::Inline);
    let mut actor = host.actor(0, 0);
    actor.call(twice.entry("twice").unwrap(), &[]);
    assert_eq!(actor.take_wrong(), [Wrong::Deadlock]);
}
