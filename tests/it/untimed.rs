//! The timed caches against the untimed simulator of the benches: on `bars-16` they must count the same misses,
//! invalidations and write-backs, whether accesses are made in turn or in order of time.

use cache_model::hierarchy::{Hierarchy, Step};
use cache_model::part::{Level, Part};

use crate::untimed_reference::{CORES, Counts, One, Untimed, WORKLOADS, accesses, by_core};

fn caches() -> Hierarchy {
    let part = Part::builtin("bars-16").expect("a built-in part");
    Hierarchy::with(&part, &part.timing(Level::Typical), 1 << 22)
}

/// Accesses of each workload: enough that the L3 overflows where the workload can make it.
const COUNT: usize = 1_600_000;

#[test]
fn misses_invalidations_and_write_backs_equal_those_of_the_untimed_simulator() {
    for workload in WORKLOADS {
        let all = accesses(workload, COUNT);
        let (mut reference, mut ours) = (Untimed::new(), caches());
        reference.run(&all);
        let steps: Vec<Step> = all.iter().map(|one| one.step()).collect();
        ours.in_turn(&steps, &mut [0; CORES]);
        assert_eq!(Counts::of(ours.stats()), reference.counts(), "{workload} in turn");

        let (mut reference, mut ours) = (Untimed::new(), caches());
        let programs = by_core(&all);
        let programs: Vec<&[Step]> = programs.iter().map(Vec::as_slice).collect();
        let mut log = Vec::new();
        ours.in_time_order(&programs, &mut [0; CORES], |step| log.push(One::of(step)));
        assert_eq!(log.len(), all.len(), "{workload}: every access is made");
        reference.run(&log);
        assert_eq!(Counts::of(ours.stats()), reference.counts(), "{workload} in time order");
    }
}

/// Accesses one by one, in batches of any size and with read-ahead: the same caches and the same clocks.
#[test]
fn a_batch_is_its_accesses_one_by_one() {
    for workload in ["local", "zipf", "pingpong"] {
        let all = accesses(workload, 60_000);
        let steps: Vec<Step> = all.iter().map(|one| one.step()).collect();
        let (mut batched, mut clocks) = (caches(), [0; CORES]);
        let mut size = 1;
        let mut rest = steps.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(size.min(rest.len()));
            batched.in_turn(now, &mut clocks);
            (rest, size) = (later, size * 3 % 1009);
        }
        let (mut single, mut times) = (caches(), [0u64; CORES]);
        for step in steps {
            let now = &mut times[step.core().index()];
            *now += u64::from(single.access(step.core(), step.line(), step.access(), *now).cycles);
        }
        assert_eq!(clocks, times, "{workload}");
        assert_eq!(batched.stats(), single.stats(), "{workload}");
        batched.check_invariants();
    }
}
