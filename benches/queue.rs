//! The event queue beside std's BinaryHeap on PHOLD, in one run: `cargo bench --bench queue`.
//!
//! 4,096 processes with 4 events each; handling an event draws a delay (exponential) and schedules one event, 90 % at the
//! same process, 10 % at another. *dense*: mean delay 1,000 ticks; *sparse*: 100,000; *small*: 256 processes, one
//! event each, mean 50. Both queues must handle the same events in the same order; the digests say so. The last
//! lines are medians of interleaved rounds, in processor time of this thread.
#![allow(clippy::print_stdout, reason = "a bench prints its ratios")]
#![allow(clippy::float_arithmetic, reason = "delays of the workload, not of the model")]

mod clock;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use sim_core::queue::Queue;

#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    processes: u32,
    each: u32,
    mean: f64,
}

const SHAPES: [Shape; 3] = [
    Shape { name: "dense", processes: 4096, each: 4, mean: 1_000.0 },
    Shape { name: "sparse", processes: 4096, each: 4, mean: 100_000.0 },
    Shape { name: "small", processes: 256, each: 1, mean: 50.0 },
];

const EVENTS: u64 = 2_000_000;
const ROUNDS: usize = 7;

struct Random(u64);

impl Random {
    #[inline(always)]
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// The processes: who is scheduled next, and after how long.
struct Phold {
    random: Random,
    delays: Vec<u32>,
    counts: Vec<u32>,
}

impl Phold {
    fn new(shape: Shape) -> Phold {
        let mut random = Random(0x1234_5678_9ABC_DEF1);
        let mut delay = || {
            let unit = ((random.next() >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
            ((-unit.ln() * shape.mean).round() as u32).max(1)
        };
        let delays = (0..65_536).map(|_| delay()).collect();
        Phold { random: Random(0xDEAD_BEEF_CAFE_F00D), delays, counts: vec![0; shape.processes as usize] }
    }

    #[inline(always)]
    fn handle(&mut self, process: u32) -> (u64, u32) {
        let x = self.random.next();
        self.counts[process as usize] += 1;
        let delay = u64::from(self.delays[(x & 0xFFFF) as usize]);
        let elsewhere = (x >> 16 & 0xFFFF) < 6554;
        let last = self.counts.len() as u32 - 1;
        (delay, if elsewhere { (x >> 32) as u32 & last } else { process })
    }

    fn digest(&self) -> u64 {
        let mix = |h: u64, n: &u32| (h ^ u64::from(*n)).wrapping_mul(0x100_0000_01B3).rotate_left(7);
        self.counts.iter().fold(0, mix)
    }
}

fn heap(shape: Shape, events: u64) -> (Duration, u64) {
    let mut phold = Phold::new(shape);
    let mut heap = BinaryHeap::with_capacity((shape.processes * shape.each) as usize);
    let mut count = 0u64;
    for process in (0..shape.processes).flat_map(|p| (0..shape.each).map(move |_| p)) {
        heap.push(Reverse((phold.handle(process).0, count, process)));
        count += 1;
    }
    let start = clock::now();
    for _ in 0..events {
        let Some(Reverse((now, _, process))) = heap.pop() else { break };
        let (delay, to) = phold.handle(process);
        heap.push(Reverse((now + delay, count, to)));
        count += 1;
    }
    (clock::now() - start, phold.digest())
}

fn ours(shape: Shape, events: u64) -> (Duration, u64) {
    let mut phold = Phold::new(shape);
    let mut queue = Queue::new();
    let mut count = 0u64;
    for process in (0..shape.processes).flat_map(|p| (0..shape.each).map(move |_| p)) {
        queue.push(phold.handle(process).0, count, process);
        count += 1;
    }
    let start = clock::now();
    for _ in 0..events {
        let Some((now, process)) = queue.pop() else { break };
        let (delay, to) = phold.handle(process);
        queue.push(now + delay, count, to);
        count += 1;
    }
    (clock::now() - start, phold.digest())
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args().sample_size(10);
    let mut group = criterion.benchmark_group("phold");
    for shape in SHAPES {
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("queue", shape.name), |b| {
            b.iter_custom(|n| black_box(ours(shape, n)).0);
        });
        group.bench_function(BenchmarkId::new("BinaryHeap", shape.name), |b| {
            b.iter_custom(|n| black_box(heap(shape, n)).0);
        });
    }
    group.finish();
    let events = if clock::tiny() { 20_000 } else { EVENTS };
    for shape in SHAPES {
        let rounds: Vec<_> = (0..ROUNDS).map(|_| (ours(shape, events), heap(shape, events))).collect();
        assert!(rounds.iter().all(|(a, b)| a.1 == b.1), "{}: another order than BinaryHeap's", shape.name);
        let ns = |time: Duration| time.as_secs_f64() * 1e9 / events as f64;
        let ratio = clock::median(rounds.iter().map(|(a, b)| ns(b.0) / ns(a.0)).collect());
        let ours = clock::median(rounds.iter().map(|r| ns(r.0.0)).collect());
        let heap = clock::median(rounds.iter().map(|r| ns(r.1.0)).collect());
        println!(
            "{:>6}: queue {ours:.1} ns/event, BinaryHeap {heap:.1} ns/event, ratio {ratio:.1}",
            shape.name
        );
    }
    criterion.final_summary();
}
