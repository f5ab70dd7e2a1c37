//! States a second of the explorer, on one thread, from policy text.
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sim_explore::{Limits, Search};
use svm_model::explore::Explorer;
use svm_model::text::{POLICIES, default_kernel};
use svm_model::{MemoryKind, sim_explore};
use workloads::check::{CheckCase, NamedText};
use workloads::litmus::{BUILTIN, Litmus};

fn explore(c: &mut Criterion) {
    let text = |t: &svm_model::text::Text| NamedText {
        name: t.name.to_owned(),
        file: t.file.to_owned(),
        text: t.text.to_owned(),
    };
    let kernel = text(default_kernel());
    let mut group = c.benchmark_group("explore");
    group.sample_size(10);
    for (test, policy) in
        [("two-flushers", "clear-remark-mutex"), ("reclaim-while-running", "sticky-wbnoinvd")]
    {
        let Some((_, file, body)) = BUILTIN.iter().find(|b| b.0 == test) else { continue };
        let Ok(litmus) = Litmus::parse(file, body) else { continue };
        let Some(policy) = POLICIES.iter().find(|p| p.name == policy) else { continue };
        let policy = text(policy);
        let case = CheckCase {
            litmus: &litmus,
            policy: &policy,
            kernel: &kernel,
            part: "rome",
            sme_coherent: false,
        };
        let Ok(machine) = case.machine(MemoryKind::Shadow) else { continue };
        let limits = Limits { states: 200_000, ..Limits::default() };
        let states = || {
            let search = Search { limits, ..Search::default() };
            Explorer::new(&machine).and_then(|mut e| e.run(search).ok()).map_or(0, |e| e.states())
        };
        group.throughput(Throughput::Elements(u64::from(states())));
        group.bench_function(format!("{test}/{}", policy.name), |b| b.iter(states));
    }
    group.finish();
}

criterion_group!(benches, explore);
criterion_main!(benches);
