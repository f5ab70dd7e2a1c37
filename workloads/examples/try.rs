//! scratch
use workloads::check::*;
use workloads::litmus::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let k = &svm_model::text::KERNELS[0];
    let nt = |t: &svm_model::text::Text| NamedText {
        name: t.name.into(),
        file: t.file.into(),
        text: t.text.into(),
    };
    let kernel = nt(k);
    for (n, f, t) in BUILTIN.iter().filter(|b| a[1] == "all" || b.0 == a[1]) {
        let l = Litmus::parse(f, t).unwrap();
        for p in svm_model::text::POLICIES.iter().filter(|p| a[2] == "all" || p.name == a[2]) {
            let policy = nt(p);
            for part in l.parts() {
                if a.len() > 3 && &a[3] != part {
                    continue;
                }
                let c = CheckCase {
                    litmus: &l,
                    policy: &policy,
                    kernel: &kernel,
                    part,
                    sme_coherent: part == "genoa",
                };
                let t0 = std::time::Instant::now();
                match c.run(sim_explore::Limits { states: 30_000_000, ..Default::default() }, None, None) {
                    Err(e) => println!("{n} {} {part}: ERROR {e}", p.name),
                    Ok(r) => {
                        let e = l.expected(p.name, part);
                        println!(
                            "{n} {} {part}: {} {} states {} trans {} depth {} bytes {} {:?} in {:?}",
                            p.name,
                            r.verdict.name(),
                            if Some(r.verdict.name()) == e.map(|e| e.name()) { "ok" } else { "UNMET" },
                            r.states,
                            r.transitions,
                            r.depth,
                            r.state_bytes,
                            r.events.iter().map(|e| (e.event.name(), e.schedule.len())).collect::<Vec<_>>(),
                            t0.elapsed()
                        );
                        if a.len() > 4 {
                            for ev in &r.events {
                                println!("--- {}", ev.event.name());
                                for s in &ev.story {
                                    println!(
                                        "{:3} {:14} {:?} {}:{} {} | {} {:?}",
                                        s.step,
                                        s.actor,
                                        s.pcpu,
                                        s.file.clone().unwrap_or_default(),
                                        s.line.unwrap_or(0),
                                        s.text,
                                        s.effect,
                                        s.events.iter().map(|e| e.1.clone()).collect::<Vec<_>>()
                                    );
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
