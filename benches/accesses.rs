//! Guest accesses through the timed caches beside an untimed simulator, in one run: `cargo bench --bench accesses`.
//!
//! Part `bars-16`, six workloads. *In turn*: both carry out the same accesses in the same order. *In time order*:
//! each core goes its own way by its clock, and the order that this gives is fed to the simulator. Rounds alternate,
//! so that both meet the same noise; times are this thread's processor time, the medians those of the second half
//! of the rounds, when the caches are warm. Both must count the same misses, invalidations and write-backs.
#![allow(clippy::print_stdout, reason = "a bench prints its ratios")]
#![allow(clippy::float_arithmetic, reason = "times of the host")]

mod clock;
mod untimed;

use cache_model::hierarchy::{Hierarchy, Step};
use cache_model::part::{Level, Part};
use clock::{median, timed, tiny};
use untimed::{CORES, Counts, One, Untimed, WORKLOADS, accesses};

/// Lines of memory: the shared region and the cores' own.
const MEMORY: u32 = 1 << 22;

fn caches() -> Hierarchy {
    let part = Part::builtin("bars-16").unwrap_or_else(|e| panic!("{e}"));
    Hierarchy::with(&part, &part.timing(Level::Typical), MEMORY)
}

/// ns per access of the simulator and of the timed caches, by round.
type Times = Vec<(f64, f64)>;

fn in_turn(workload: &str, all: &[One], round: usize) -> Times {
    let (mut reference, mut ours) = (Untimed::new(), caches());
    let mut clocks = [0; CORES];
    let mut times = Vec::new();
    for all in all.chunks(round) {
        let steps: Vec<Step> = all.iter().map(|one| one.step()).collect();
        let (theirs, ()) = timed(|| reference.run(all));
        let (own, ()) = timed(|| ours.in_turn(&steps, &mut clocks));
        times.push((theirs / all.len() as f64, own / all.len() as f64));
    }
    assert_eq!(Counts::of(ours.stats()), reference.counts(), "{workload}, in turn: unequal counts");
    times
}

fn in_time_order(workload: &str, all: &[One], round: usize) -> Times {
    let (mut reference, mut ours) = (Untimed::new(), caches());
    let mut clocks = [0; CORES];
    let mut times = Vec::new();
    // one log for all rounds, its memory touched: the host's page faults are not the caches' time
    let mut log = all.iter().take(round).map(|one| one.step()).collect::<Vec<Step>>();
    for all in all.chunks(round) {
        let programs = untimed::by_core(all);
        let programs: Vec<&[Step]> = programs.iter().map(Vec::as_slice).collect();
        log.clear();
        let (own, ()) = timed(|| ours.in_time_order(&programs, &mut clocks, |step| log.push(step)));
        let carried_out: Vec<One> = log.iter().copied().map(One::of).collect();
        let (theirs, ()) = timed(|| reference.run(&carried_out));
        times.push((theirs / all.len() as f64, own / all.len() as f64));
    }
    assert_eq!(Counts::of(ours.stats()), reference.counts(), "{workload}, in time order: unequal counts");
    times
}

fn main() {
    let (rounds, round) = if tiny() { (2, 4_000) } else { (24, 500_000) };
    println!("ns per access, medians of {} rounds of {round} accesses", rounds / 2);
    println!("{:>9} {:>8} {:>8} {:>6} {:>8} {:>6}", "", "untimed", "in turn", "ratio", "in time", "ratio");
    for workload in WORKLOADS {
        let all = accesses(workload, rounds * round);
        let turn = in_turn(workload, &all, round);
        let time = in_time_order(workload, &all, round);
        let warm =
            |times: &Times, of: fn(&(f64, f64)) -> f64| median(times[rounds / 2..].iter().map(of).collect());
        println!(
            "{workload:>9} {:>8.1} {:>8.1} {:>6.2} {:>8.1} {:>6.2}",
            warm(&turn, |t| t.0),
            warm(&turn, |t| t.1),
            warm(&turn, |t| t.1 / t.0),
            warm(&time, |t| t.1),
            warm(&time, |t| t.1 / t.0),
        );
    }
}
