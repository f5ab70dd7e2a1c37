//! Real guests: what leaving one costs, what moving one costs, what taking its memory costs.

use super::{Bench, pin};
use crate::guest::Guest;
use crate::profile::Unit;
use crate::stats::Samples;
use crate::topology::Distance;
use crate::vm::{DATA_AT, PAGE, open};
use crate::{cpu, os};

/// `other.kvm_*`; a host without KVM says so.
///
/// # Errors
/// KVM's, or a thread cannot be pinned.
pub fn guests(bench: &mut Bench<'_>) -> Result<(), String> {
    let why = "user space sees the whole way to KVM_RUN and back (other.kvm_round_trip), not VMRUN alone";
    bench.miss("vm.run_exit", why);
    let kvm = open()?;
    const LINES: usize = 16_384;
    let mut guest = Guest::new(&kvm, LINES)?;
    let home = bench.home()?;
    for _ in 0..100 {
        guest.run()?;
    }
    let mut failed = Ok(());
    let mut run = |guest: &mut Guest| {
        let begin = cpu::begin();
        let result = guest.run();
        let cycles = cpu::end() - begin;
        failed = std::mem::replace(&mut failed, Ok(())).and(result);
        cycles
    };
    let trip = bench.sample(2000, 1, || run(&mut guest));
    bench.keep(
        "other.kvm_round_trip",
        Unit::Ns,
        &trip,
        "KVM_RUN of a guest that leaves by a port write at once",
    );

    guest.set_lines(LINES)?;
    let dirtied = bench.sample(50, LINES as u64, || run(&mut guest));
    let method = "a line that a guest at privilege 3 dirties, over 1 MiB, the way in and out included";
    bench.keep("other.guest_dirties_line", Unit::Ns, &dirtied, method);
    guest.set_lines(0)?;
    drop(home);

    let far = [Distance::SameCcx, Distance::OtherCcx, Distance::OtherSocket, Distance::Sibling];
    match far.into_iter().find_map(|d| bench.topology.pair(d, &bench.allowed)) {
        None => bench.miss("other.kvm_after_move", "needs two pCPUs"),
        Some((a, b)) => {
            let mut moved = Samples::default();
            let restore = pin(a)?;
            for n in 0..bench.count(300) {
                if bench.stopped() {
                    break;
                }
                let to = if n % 2 == 0 { b } else { a };
                // The move may wait for its turn on a busy pCPU; only the run after it is timed.
                os::set_affinity(&os::CpuSet::one(to)).map_err(|e| e.to_string())?;
                let before = os::preemptions();
                let cycles = run(&mut guest);
                moved.add(bench.ps(cycles, 1), os::preemptions() != before);
                run(&mut guest);
            }
            drop(restore);
            let method = format!("the first KVM_RUN after the thread moved between pCPUs {a} and {b}");
            bench.keep("other.kvm_after_move", Unit::Ns, &moved, method);
        }
    }
    failed?;
    reclaim(bench, &mut guest)
}

/// Memory taken from a guest in two ways that end in KVM's flush sites when the guest is encrypted.
fn reclaim(bench: &mut Bench<'_>, guest: &mut Guest) -> Result<(), String> {
    let _pinned = bench.home()?;
    let mut failed = Ok(());
    let mut note = |result: Result<(), String>| failed = std::mem::replace(&mut failed, Ok(())).and(result);
    let page = DATA_AT + (1 << 20) - PAGE;
    let advised = bench.sample(500, 1, || {
        let begin = cpu::begin();
        let result = guest.drop_page(page);
        let cycles = cpu::end() - begin;
        note(result);
        cycles
    });
    let method = "madvise(DONTNEED) of one page in a memory slot, mostly untouched: one notifier, no flush on a plain guest";
    bench.keep("other.madvise_page", Unit::Ns, &advised, method);
    let deleted = bench.sample(200, 1, || {
        let begin = cpu::begin();
        let result = guest.detach();
        let cycles = cpu::end() - begin;
        note(result);
        note(guest.attach());
        cycles
    });
    bench.keep(
        "other.memslot_delete",
        Unit::Ns,
        &deleted,
        "KVM_SET_USER_MEMORY_REGION with size 0, no flush on a plain guest",
    );
    failed
}
