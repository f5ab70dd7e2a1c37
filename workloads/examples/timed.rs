//! scratch
use std::path::Path;
use workloads::check::NamedText;
use workloads::scenario::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let nt = |t: &svm_model::text::Text| NamedText {
        name: t.name.into(),
        file: t.file.into(),
        text: t.text.into(),
    };
    let kernel = nt(&svm_model::text::KERNELS[0]);
    let (_, f, t) = BUILTIN[0];
    let s = Scenario::parse(f, t).unwrap();
    let part = cache_model::part::Part::builtin(s.part()).unwrap();
    let ch = Changes { accesses: Some(a[2].parse().unwrap()), ..Default::default() };
    let p = s.prepare(&part, &ch, Path::new(".")).unwrap();
    for t in svm_model::text::POLICIES.iter().filter(|p| a[1] == "all" || p.name == a[1]) {
        let t0 = std::time::Instant::now();
        match p.run(&nt(t), &kernel, 1, None, &mut |_| {}) {
            Ok(r) => {
                let el = t0.elapsed();
                let o = &r.outcome;
                println!(
                    "{:20} cyc {} vcyc {} acc {} ev {:?} calls {} pcpus {} ipis {} lat {:?} stolen {} wb {} inv {} refill {} dram {} lock {} exits {} in {:?} = {:.1} M/s",
                    t.name,
                    o.cycles,
                    o.vcpu_cycles,
                    o.guest_accesses,
                    o.events,
                    o.cost.flush_calls,
                    o.cost.pcpus_flushed,
                    o.cost.ipis,
                    r.flush_latency,
                    o.cost.stolen_cycles,
                    o.cost.lines_written_back,
                    o.cost.lines_invalidated,
                    o.cost.refill_misses,
                    o.cost.dram_bytes_written,
                    r.lock_wait_ns,
                    o.cost.guest_exits,
                    el,
                    o.guest_accesses as f64 / el.as_secs_f64() / 1e6
                )
            }
            Err(e) => println!("{} ERR {e}", t.name),
        }
    }
}
