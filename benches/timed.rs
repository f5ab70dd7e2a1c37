//! Guest accesses a second of a timed run, on one thread, on a 16-pCPU part.
use std::path::Path;

use cache_model::part::Part;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use svm_model::text::{POLICIES, default_kernel};
use workloads::check::NamedText;
use workloads::scenario::{BUILTIN, Changes, DEFAULT, Scenario};

fn timed(c: &mut Criterion) {
    let text = |t: &svm_model::text::Text| NamedText {
        name: t.name.to_owned(),
        file: t.file.to_owned(),
        text: t.text.to_owned(),
    };
    let kernel = text(default_kernel());
    let mut group = c.benchmark_group("timed");
    group.sample_size(10);
    let accesses = 50_000;
    for (name, file, body) in BUILTIN.iter().filter(|(name, ..)| *name == DEFAULT) {
        let Ok(scenario) = Scenario::parse(file, body) else { continue };
        let Ok(part) = Part::builtin(scenario.part()) else { continue };
        let changes = Changes { accesses: Some(accesses), ..Changes::default() };
        let Ok(prepared) = scenario.prepare(&part, &changes, Path::new(".")) else { continue };
        for policy in POLICIES.iter().filter(|p| ["no-flush", "sticky-wbnoinvd"].contains(&p.name)) {
            let policy = text(policy);
            group.throughput(Throughput::Elements(8 * accesses));
            group.bench_function(format!("{name}/{}", policy.name), |b| {
                b.iter(|| {
                    prepared
                        .run(&policy, &kernel, 1, None, &mut |_| {})
                        .map(|r| r.outcome.guest_accesses)
                        .unwrap_or(0)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, timed);
criterion_main!(benches);
