//! What a flush of lines takes by how many are dirty and where they lie: parts of the L2 and of the L3, dirtied by the own
//! core or another, or homed on the other socket.
//!
//! CLFLUSH here; with the helper module the same is done with WBINVD and WBNOINVD.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::lines::timed;
use super::{Alone, Bench, beside};
use crate::buffer::{Buffer, LINE};
use crate::cpu::LineOp;
use crate::profile::Experiment;
use crate::stats::Samples;
use crate::topology::{Distance, Topology};

/// Parts of a cache, in eighths.
const EIGHTHS: [usize; 5] = [1, 2, 4, 6, 8];

/// The experiments on dirty lines.
///
/// # Errors
/// No memory, or a thread cannot be pinned.
pub fn dirty(bench: &mut Bench<'_>) -> Result<(), String> {
    let (l2, l3) = (bench.cache(2, 512 << 10), bench.cache(3, 16 << 20));
    let what = "CLFLUSH and a fence over lines";
    {
        let _pinned = bench.home()?;
        let mut buffer = Buffer::new(l3).map_err(|e| format!("{} MiB of memory: {e}", l3 >> 20))?;
        series(
            bench,
            "dirty-own-l2",
            &format!("{what} just dirtied by the own core, eighths of the L2"),
            l2,
            |bytes| {
                buffer.dirty(bytes, 3);
                timed(LineOp::Clflush, &buffer, bytes / LINE)
            },
        );
        let pusher = Buffer::new(4 * l2).map_err(|e| e.to_string())?;
        let method =
            format!("{what} dirtied by the own core and pushed into the L3 by reading, eighths of the L3");
        series(bench, "dirty-own-l3", &method, l3, |bytes| {
            buffer.dirty(bytes, 3);
            pusher.read(4 * l2);
            timed(LineOp::Clflush, &buffer, bytes / LINE)
        });
        match bench.topology.remote_node(bench.home_cpu()) {
            None => bench.miss(
                "experiment dirty-remote",
                "needs a NUMA node on another socket, and this host shows none",
            ),
            Some(node) => {
                let mut far =
                    Buffer::on_node(node, l2).map_err(|e| format!("memory of NUMA node {node}: {e}"))?;
                let method = format!(
                    "{what} just dirtied by the own core, homed on NUMA node {node}, eighths of the L2"
                );
                series(bench, "dirty-remote", &method, l2, |bytes| {
                    far.dirty(bytes, 3);
                    timed(LineOp::Clflush, &far, bytes / LINE)
                });
            }
        }
    }
    for (name, distance, said) in [
        ("dirty-other-core", Distance::SameCcx, "another core of the CCX"),
        ("dirty-other-ccx", Distance::OtherCcx, "a core of another CCX"),
        ("dirty-other-socket", Distance::OtherSocket, "a core of the other socket"),
    ] {
        let home = bench.home_cpu();
        let Some(other) = partner(&bench.topology, home, distance, &bench.allowed) else {
            bench.miss(
                &format!("experiment {name}"),
                format!("needs {said}, and this host shows none to this process"),
            );
            continue;
        };
        let mut buffer = Buffer::new(l2).map_err(|e| e.to_string())?;
        let shared = Mutex::new(&mut buffer);
        let wanted = Alone(AtomicU32::new(0));
        let work = |done: &AtomicBool| {
            while !done.load(Ordering::Relaxed) {
                let lines = wanted.0.load(Ordering::Acquire) as usize;
                if lines > 0
                    && let Ok(mut buffer) = shared.lock()
                {
                    buffer.dirty(lines * LINE, 4);
                    wanted.0.store(0, Ordering::Release);
                }
            }
        };
        let method = format!("{what} just dirtied by {said} (pCPU {other}), eighths of the L2");
        beside(other, home, work, || {
            series(bench, name, &method, l2, |bytes| {
                wanted.0.store(u32::try_from(bytes / LINE).unwrap_or(u32::MAX), Ordering::Release);
                while wanted.0.load(Ordering::Acquire) > 0 {
                    std::hint::spin_loop();
                }
                shared.lock().map_or(0, |buffer| timed(LineOp::Clflush, &buffer, bytes / LINE))
            });
        })?;
    }
    Ok(())
}

/// A pCPU at this distance from `home`.
fn partner(topology: &Topology, home: usize, distance: Distance, allowed: &[usize]) -> Option<usize> {
    let own = topology.pcpu(home)?;
    let far = |p: &&crate::topology::Pcpu| {
        p.id != home && allowed.contains(&p.id) && Topology::distance(own, p) == distance
    };
    topology.pcpus.iter().find(far).map(|p| p.id)
}

fn series(bench: &mut Bench<'_>, name: &str, method: &str, cache: usize, mut one: impl FnMut(usize) -> u64) {
    let mut points: Vec<(u64, Samples)> = Vec::new();
    for eighths in EIGHTHS {
        if bench.stopped() {
            return;
        }
        let bytes = cache / 8 * eighths;
        // The first warms up: the memory's first touch, and the flush's.
        one(bytes);
        points.push(((bytes / LINE) as u64, bench.sample(30, 1, || one(bytes))));
    }
    bench.experiments.push(Experiment::of(name, method.to_owned(), "lines", &points));
}
