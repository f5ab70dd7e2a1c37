//! The stepper's own cost on real memory: the hooks of policies over atomics. The goal is below 100 ns an operation.
//!
//! It is the thread's own time that is measured, not what others took of the machine meanwhile.

mod clock;

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use svm_model::lang::{Config, Features, Role, Source, VmTables, compile};
use svm_model::text;
use svm_native::program::{Program, Shape};
use svm_native::stepper::{Delivery, Host};

const PCPUS: u16 = 192;

/// What the thread has used of a pCPU's time.
#[derive(Debug)]
struct OwnTime;

impl Measurement for OwnTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        clock::now()
    }

    fn end(&self, begin: Duration) -> Duration {
        clock::now().saturating_sub(begin)
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn program(policy: &str) -> Program {
    let config = Config {
        pcpus: PCPUS,
        vms: 1,
        asids: 2,
        tables: VmTables::default(),
        features: Features::default(),
        vcpu_vm: vec![0],
        pages: 1,
        word_bits: 64,
        store_buffers: false,
        guests: None,
        constants: Vec::new(),
        defines: Vec::new(),
    };
    let policy = text::POLICIES.iter().find(|t| t.name == policy).expect("built in");
    let kernel = text::default_kernel();
    let sources = [
        Source { file: kernel.file, text: kernel.text, role: Role::Kernel },
        Source { file: policy.file, text: policy.text, role: Role::Policy },
    ];
    let hooks = ["pre_sev_run", "sev_writeback_caches"];
    let code = compile(&sources, &text::find, &hooks, &config).expect("compiles");
    Program::of(&code, PCPUS)
}

fn stepper(c: &mut Criterion<OwnTime>) {
    let shape = Shape {
        core: (0..u32::from(PCPUS)).collect(),
        llc: (0..u32::from(PCPUS)).map(|p| p / 8).collect(),
        vms: 1,
        vcpu_vm: vec![0],
    };
    let mut group = c.benchmark_group("stepper");
    // At each entry: one load if the mark is there; one locked OR always. Up to the first end all operations are run, but for
    // those between a branch and its target.
    for policy in ["sticky-wbnoinvd", "clear-in-handler"] {
        let program = program(policy);
        let host = Host::new(&program, &shape, Delivery::Inline);
        let entry = program.entry("pre_sev_run").expect("a hook");
        let mut actor = host.actor(5, 0);
        actor.call(entry, &[0, 5]);
        let ops = program
            .ops
            .iter()
            .skip(usize::from(entry.start))
            .take_while(|op| format!("{op:?}") != "Halt")
            .count()
            + 1;
        group.throughput(Throughput::Elements(ops as u64));
        group.bench_function(format!("{policy}/pre_sev_run of {ops} operations"), |b| {
            b.iter(|| actor.call(black_box(entry), black_box(&[0, 5])));
        });
    }
    // A reclaim with every pCPU marked. Elements are steps, each with the own operations before it: 3 loads of the mask's
    // words, for each of 191 others the call and the write-back's three, those of the own pCPU, and the wait.
    let program = program("sticky-wbnoinvd");
    let host = Host::new(&program, &shape, Delivery::Inline);
    let mark = program.entry("pre_sev_run").expect("a hook");
    for pcpu in 0..usize::from(PCPUS) {
        host.actor(pcpu, 0).call(mark, &[0, i64::try_from(pcpu).unwrap_or(0)]);
    }
    let entry = program.entry("sev_writeback_caches").expect("a hook");
    let mut actor = host.actor(0, 1);
    group.throughput(Throughput::Elements(3 + 191 * 4 + 3 + 1));
    group.bench_function("sticky-wbnoinvd/sev_writeback_caches", |b| {
        b.iter(|| {
            actor.call(entry, &[0]);
            black_box(actor.take_flushes())
        });
    });
    group.finish();
}

criterion_group!(name = benches; config = Criterion::default().with_measurement(OwnTime); targets = stepper);
criterion_main!(benches);
