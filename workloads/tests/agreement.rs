//! The two ways agree: recorded timed runs are paths of the machine over shadow caches, tampered ones are not, and
//! each counterexample of the explorer shows the same events over the timed caches.

use cache_model::event::{Event, EventKind};
use cache_model::hierarchy::Hierarchy;
use cache_model::lattice::{Move, MoveKind, Psp, Shape};
use cache_model::part::{CacheShape, L3Kind, Level, Part};
use proptest::prelude::*;
use sev_arch::{Access as Kind, CoreId, PcpuId, Tag, VcpuId, VmId, WbinvdScope};
use sim_core::random::Stream;
use sim_explore::Limits;
use svm_model::lang::{Role, Source};
use svm_model::spec::{Assumptions, Guest, Guests, ModelSpec, Reuse, TaskKind, TaskSpec, VCPU_THREAD};
use svm_model::text::{POLICIES, default_kernel};
use svm_model::timed::{
    Access, Finished, GuestStream, Pace, Plan, Recorded, Run, Scheduler, TimedMemory, accept, replay_timed,
};
use svm_model::{Machine, MemoryKind};
use workloads::check::{CheckCase, NamedText};
use workloads::litmus::{BUILTIN, Litmus};

struct Random {
    stream: Stream,
    pages: u64,
}

impl GuestStream for Random {
    fn next_access(&mut self) -> Access {
        let gfn = u32::try_from(self.stream.below(self.pages)).unwrap();
        let kind = if self.stream.percent(60) { Kind::Write } else { Kind::Read };
        Access { gfn, line: 0, kind, instructions: u32::try_from(self.stream.below(400)).unwrap() }
    }
}

#[derive(Clone, Debug)]
struct Case {
    policy: usize,
    part: &'static str,
    seed: u64,
    pages: u32,
    spare: u32,
    reclaim: Pace,
    migrate: Pace,
    word_bits: u8,
}

fn case() -> impl Strategy<Value = Case> {
    let policy = 0..=POLICIES.len();
    let part = prop_oneof![Just("rome"), Just("genoa")];
    let pace = |cycles: std::ops::Range<u64>, accesses: std::ops::Range<u64>| {
        prop_oneof![cycles.prop_map(Pace::Cycles), accesses.prop_map(Pace::Accesses)]
    };
    let (reclaim, migrate) = (pace(4_000..60_000, 5..60), pace(8_000..90_000, 5..60));
    let rest = (any::<u64>(), 1u32..5, 1u32..4, reclaim, migrate, 1u8..3);
    (policy, part, rest).prop_map(|(policy, part, (seed, pages, spare, reclaim, migrate, word_bits))| Case {
        policy,
        part,
        seed,
        pages,
        spare,
        reclaim,
        migrate,
        word_bits,
    })
}

fn spec(part: &Part, case: &Case) -> ModelSpec {
    let topology = part.topology();
    let all = |list: &[u16]| list.iter().map(|p| PcpuId(*p)).collect::<Vec<_>>();
    let vcpu = |i: u16| TaskSpec {
        name: format!("vcpu{i}"),
        kind: TaskKind::Vcpu { vcpu: VcpuId(i), thread: VCPU_THREAD.to_owned(), guest: Guest::Any },
        pcpus: all(&[0, 1, 2]),
    };
    let reclaim = |name: &str, p: u16| TaskSpec {
        name: name.to_owned(),
        kind: TaskKind::Reclaimer { entry: "madvise_dontneed".to_owned(), vm: VmId(0) },
        pcpus: all(&[p]),
    };
    ModelSpec {
        core_of: (0..topology.pcpus()).map(|p| topology.core_of(PcpuId(p))).collect(),
        shape: Shape {
            ccx_of_core: (0..topology.cores()).map(|c| topology.ccx_of(CoreId(c))).collect(),
            ccxs: topology.ccxs(),
            tags: 2,
            sme_coherent: part.sme_coherent(),
            evict_clean_on_read: true,
            scope: WbinvdScope::default(),
            keep_clean: true,
            psp: Psp::default(),
            keys_change: false,
            drops: false,
            flat: false,
            guest_must_evict: false,
            dma_snoops: true,
            socket_of_ccx: Vec::new(),
            flushes_fly: false,
        },
        vms: 1,
        vcpu_vm: vec![VmId(0), VmId(0)],
        pages: (0..case.pages + case.spare).map(|i| (format!("page{i}"), VmId(0))).collect(),
        mapped: Vec::new(),
        lines_per_page: 1,
        tasks: vec![vcpu(0), vcpu(1), reclaim("reclaim0", 3), reclaim("reclaim1", 4)],
        assumptions: Assumptions { word_bits: case.word_bits, ..Assumptions::default() },
        reuse: Reuse { host: true, dma: true, read: true, vm: true },
        defines: Vec::new(),
        guests: Guests::default(),
        initial: None,
    }
}

/// No policy, but the hardware that no policy uses: the PSP under a guest's key, VM_PAGE_FLUSH, INVD.
const HARDWARE: &str = "void sev_writeback_caches(struct kvm *kvm) { vm_page_flush(kvm, page0); psp_read(page0, kvm); \
                        invd(); psp_write(page0, kvm); wbnoinvd_on_all_cpus(); }\n\
                        void pre_sev_run(struct kvm_vcpu *vcpu, int cpu) { if (maybe()) invd(); }";

fn sources(policy: usize) -> [Source<'static>; 2] {
    let kernel = default_kernel();
    let (file, text) = POLICIES.get(policy).map_or(("hardware.c", HARDWARE), |p| (p.file, p.text));
    [
        Source { file: kernel.file, text: kernel.text, role: Role::Kernel },
        Source { file, text, role: Role::Policy },
    ]
}

/// A timed run on caches so small that lines are pushed out all the time.
fn run(case: &Case) -> Option<(Machine, Finished)> {
    let small = |sets, ways| CacheShape::lru(sets, ways);
    let part = Part::builtin(case.part).unwrap().with_pcpus(6).unwrap();
    let part = part.with_caches(small(1, 1), small(1, 2), small(1, 2), L3Kind::Victim);
    let spec = spec(&part, case);
    let machine = Machine::build(spec.clone(), &sources(case.policy), MemoryKind::Timed)
        .unwrap_or_else(|e| panic!("{}", e[0]));
    let lines = case.pages + case.spare;
    let caches = Hierarchy::with(&part, &part.timing(Level::Typical), lines);
    let memory = TimedMemory::new(caches, machine.spec().shape.clone(), true, lines);
    let plan = Plan {
        seed: case.seed,
        accesses: vec![60],
        guest_pages: vec![case.pages],
        reclaim: vec![case.reclaim; 2],
        migrate: vec![case.migrate],
        burst: vec![1; 2],
        scheduler: Scheduler::Floating,
        devices: Vec::new(),
        device_percent: 50,
        reuse_after: 3_000,
        record: true,
    };
    let guests =
        |t: u16| Random { stream: Stream::new(case.seed, u64::from(t), 9), pages: u64::from(case.pages) };
    // A run that reclaim starves is given up.
    let finished = Run::new(&machine, memory, plan, guests).run(None, &mut |_| {}).ok()?;
    drop(machine);
    let shadow = Machine::build(spec, &sources(case.policy), MemoryKind::Shadow).unwrap();
    Some((shadow, finished))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn timed_runs_are_paths_of_the_explorers_machine(case in case()) {
        let Some((shadow, finished)) = run(&case) else { return Err(TestCaseError::reject("given up")) };
        prop_assert!(finished.outcome.guest_accesses >= 60);
        if let Err(e) = accept(&shadow, &finished.recorded, &finished.memory) {
            return Err(TestCaseError::fail(format!(
                "{} of {}: {}\nbefore: {:#?}",
                e.entry,
                finished.recorded.len(),
                e.reason,
                finished.recorded.get(e.entry)
            )));
        }
    }

    #[test]
    fn tampered_runs_are_rejected(case in case(), pick in any::<prop::sample::Index>(), how in 0..3u8) {
        let Some((shadow, finished)) = run(&case) else { return Err(TestCaseError::reject("given up")) };
        let mut trace = finished.recorded;
        let at = pick.index(trace.len() - 1);
        match how {
            0 => {
                // The last step of an actor, and the last moves of a run, have nothing after them that counts them.
                let same = |e: &Recorded| match (e, &trace[at]) {
                    (Recorded::Step { step: a, .. }, Recorded::Step { step: b, .. }) => a.actor == b.actor,
                    (Recorded::Step { .. }, Recorded::Move(..)) => true,
                    (Recorded::Move(..), _) => false,
                };
                prop_assume!(trace[at + 1..].iter().any(same));
                trace.remove(at);
            }
            1 => {
                // Two steps, or a step and a move, that are not the same.
                let moves = matches!((&trace[at], &trace[at + 1]), (Recorded::Move(..), Recorded::Move(..)));
                prop_assume!(!moves);
                // Two accesses that change no slot can be a path in either order.
                let idle = match (&trace[at], &trace[at + 1]) {
                    (Recorded::Step { slots: a, .. }, Recorded::Step { slots: b, .. }) => a == b,
                    _ => false,
                };
                prop_assume!(!idle);
                trace.swap(at, at + 1);
            }
            _ => {
                let m = Move { line: 0, tag: Tag(1), kind: MoveKind::PrivateToL3(CoreId(0)) };
                trace.insert(at, Recorded::Move(m, Vec::new()));
            }
        }
        prop_assert!(accept(&shadow, &trace, &finished.memory).is_err());
    }
}

#[test]
fn counterexamples_show_the_same_events_over_the_timed_caches() {
    let text = |t: &svm_model::text::Text| NamedText {
        name: t.name.to_owned(),
        file: t.file.to_owned(),
        text: t.text.to_owned(),
    };
    let kernel = text(default_kernel());
    let mut replayed = 0;
    for (_, file, body) in BUILTIN {
        let litmus = Litmus::parse(file, body).unwrap();
        for part_name in litmus.parts() {
            for name in ["no-flush", "flush-then-clear", "clear-remark"] {
                let policy = text(POLICIES.iter().find(|p| p.name == name).unwrap());
                let part = Part::builtin(part_name).unwrap();
                let case = CheckCase {
                    litmus: &litmus,
                    policy: &policy,
                    kernel: &kernel,
                    part: part_name,
                    sme_coherent: part.sme_coherent(),
                };
                let report = case.run(Limits::default(), None, None).unwrap();
                let machine = case.machine(MemoryKind::Timed).unwrap();
                let pcpus = u16::try_from(machine.spec().core_of.len()).unwrap();
                let part = part.with_pcpus(pcpus).unwrap();
                for example in &report.events {
                    let lines = u32::try_from(machine.spec().pages.len()).unwrap();
                    let caches = Hierarchy::with(&part, &part.timing(Level::Typical), lines);
                    let shape = machine.spec().shape.clone();
                    let mut memory = TimedMemory::new(caches, shape, true, lines);
                    let events = replay_timed(&machine, &mut memory, &example.schedule)
                        .unwrap_or_else(|(step, why)| panic!("{file} {name} step {step}: {why}"));
                    for (told, timed) in example.story.iter().zip(&events) {
                        let of_a_step = |e: &Event| e.kind != EventKind::HungTask;
                        let told: Vec<_> = told.events.iter().map(|e| e.0).filter(of_a_step).collect();
                        assert_eq!(&told, timed, "{file} {name} step {}", replayed);
                    }
                    // Where a task can go on no more, the state is the event, not a step.
                    let of_a_state = matches!(example.event, EventKind::Deadlock | EventKind::HungTask);
                    assert!(of_a_state || events.last().unwrap().iter().any(|e| e.kind == example.event));
                    replayed += 1;
                }
            }
        }
    }
    assert!(replayed > 10, "{replayed}");
}
