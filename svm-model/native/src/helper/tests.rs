//! Tests against the module itself: they run where it is loaded (`SEVSIM_MODULE` set: it must be), as in the emulated
//! machine of `module/emulate.sh`, and say elsewhere that they are left out.

use std::time::{Duration, Instant};

use super::*;

#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
fn module() -> Option<Helper> {
    match Helper::open() {
        Ok(helper) => Some(helper),
        Err(why) if std::env::var_os("SEVSIM_MODULE").is_some() => panic!("{why}"),
        Err(why) => {
            eprintln!("left out: {why}");
            None
        }
    }
}

fn online() -> Vec<usize> {
    crate::os::affinity().unwrap().members()
}

fn errno<T>(result: io::Result<T>) -> i32 {
    result.err().and_then(|e| e.raw_os_error()).unwrap_or(0)
}

#[test]
fn the_request_numbers_are_those_of_the_header() {
    // _IOWR('F', 0x61, struct sevsim_flush): 16 + 1,024 + 24 + 16 + 16 bytes, counted by hand.
    assert_eq!(size_of::<RawFlush>(), 1096);
    assert_eq!(request(BOTH, 0x61, size_of::<RawFlush>()), 0xc448_4661);
    let sizes = [
        size_of::<Info>(),
        size_of::<RawCpu>(),
        size_of::<RawPolicy>(),
        size_of::<RawStart>(),
        size_of::<RawBind>(),
        size_of::<Reclaimed>(),
        size_of::<RawReclaim>(),
    ];
    assert_eq!(sizes, [64, 32, 88, 24, 16, 80, 56]);
    assert_eq!(request(0, 0x65, 0), 0x4665);
}

#[test]
fn a_pcpu_is_missed_only_if_nothing_was_written_back_between_its_last_entry_and_the_end() {
    let on = |last_entry, flush_in| Reclaimed { last_entry, flush_in, ..Reclaimed::default() };
    assert!(!on(0, 0).missed(), "never entered");
    assert!(on(10, 0).missed(), "entered, never written back");
    assert!(on(10, 5).missed(), "written back before the entry");
    assert!(!on(10, 20).missed());
}

#[test]
fn exactly_the_pcpus_asked_for_execute() {
    let Some(helper) = module() else { return };
    let pcpus = online();
    let last = pcpus[pcpus.len() - 1];
    let has = helper.info().unwrap().has_wbnoinvd();
    for instruction in Instruction::ALL {
        for serial in [false, true] {
            for set in [vec![pcpus[0]], vec![last], pcpus[..pcpus.len().min(2)].to_vec(), pcpus.clone()] {
                let ask = Ask { serial, dirty_lines: 64, refill: true, ..Ask::of(instruction, &set) };
                let flushed = helper.flush(&ask).unwrap();
                let mut did: Vec<usize> = flushed.pcpus.iter().map(|p| p.pcpu).collect();
                did.sort_unstable();
                assert_eq!(did, set, "{ask:?}");
                let mut orders: Vec<u32> = flushed.pcpus.iter().map(|p| p.order).collect();
                orders.sort_unstable();
                assert!(orders.into_iter().eq(1..=u32::try_from(set.len()).unwrap()));
                for p in &flushed.pcpus {
                    assert!(flushed.begin <= p.tsc_in && p.tsc_in <= p.tsc_out && p.tsc_out <= flushed.end);
                    assert!(p.refill > 0);
                }
                let falls_back = instruction == Instruction::Wbnoinvd && !has;
                assert_eq!(flushed.used, if falls_back { Instruction::Wbinvd } else { instruction });
            }
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let Some(helper) = module() else { return };
    let pcpus = online();
    let ask = Ask::of(Instruction::Wbinvd, &pcpus[..1]);
    let before = helper.info().unwrap().flushes;
    for set in [vec![], vec![4096], vec![pcpus[0], PCPUS - 1], vec![PCPUS]] {
        assert_eq!(errno(helper.flush(&Ask { pcpus: set.clone(), ..ask.clone() })), libc::EINVAL, "{set:?}");
    }
    let mut mask = [0; MASK_WORDS];
    mask[0] = 1;
    let plain = (0, -1, -1);
    assert_eq!(errno(helper.flush_raw(9, 0, 0, mask, plain)), libc::EINVAL, "an unknown instruction");
    assert_eq!(errno(helper.flush_raw(1, 2, 0, mask, plain)), libc::EINVAL, "an unknown way");
    assert_eq!(errno(helper.flush_raw(1, 0, 8, mask, plain)), libc::EINVAL, "an unknown flag");
    assert_eq!(errno(helper.flush_raw(1, 0, 0, mask, (0, -2, -1))), libc::EINVAL, "no pCPU");
    assert_eq!(errno(helper.flush_raw(1, 0, 0, mask, (0, -1, 4000))), libc::EINVAL, "no such node");
    assert_eq!(errno(helper.flush_raw(1, 0, 4, mask, plain)), libc::EINVAL, "nothing to read again");
    let by = Ask { dirty_by: Some(pcpus[0]), dirty_lines: 1, ..Ask::of(Instruction::Wbinvd, &pcpus) };
    assert_eq!(errno(helper.flush(&by)), libc::EINVAL, "one pCPU dirties for one only");
    let cleaned = Ask {
        dirty_by: Some(pcpus[0]),
        dirty_lines: 1,
        prewarm: true,
        ..Ask::of(Instruction::Wbinvd, &[pcpus[1]])
    };
    assert_eq!(
        errno(helper.flush(&cleaned)),
        libc::EINVAL,
        "what another dirtied is cleaned before it is timed"
    );
    let none = Ask { dirty_by: Some(pcpus[0]), ..ask.clone() };
    assert_eq!(errno(helper.flush(&none)), libc::EINVAL, "nothing for another to dirty");
    let most = Ask { dirty_lines: (256 << 20) / 64 + 1, ..ask.clone() };
    assert_eq!(errno(helper.flush(&most)), libc::E2BIG);
    // 25 ns a line, as flush.c says: 100 ms.
    let long = Ask { dirty_lines: 4_000_000, ..ask.clone() };
    assert_eq!(errno(helper.flush(&long)), libc::ETIME);
    if pcpus.len() > 1 {
        // 50 ms, which may be; but each may have to wait for the other.
        let both = Ask { dirty_lines: 2_000_000, ..Ask::of(Instruction::Nop, &pcpus[..2]) };
        assert_eq!(errno(helper.flush(&both)), libc::ETIME);
    }
    // 1.6 million lines are 40 ms of one pCPU's; those of four, 410 MB, take the memory longer.
    let wide = Ask { dirty_lines: 1_600_000, ..Ask::of(Instruction::Nop, &pcpus) };
    if pcpus.len() >= 4 {
        assert_eq!(errno(helper.flush(&wide)), libc::ETIME);
    }
    if !helper.info().unwrap().has_wbnoinvd() {
        let strict = Ask { strict: true, instruction: Instruction::Wbnoinvd, ..ask };
        assert_eq!(errno(helper.flush(&strict)), libc::EOPNOTSUPP);
    }
    assert_eq!(errno(helper.ask::<u64>(request(BOTH, 0x7f, 8), &mut 0)), libc::ENOTTY);
    assert_eq!(helper.info().unwrap().flushes, before, "nothing was executed");
}

/// Does something so many times; it takes a millisecond each at least, pause_us as it is by default, but for the first.
fn paused(what: &str, times: u32, does: impl FnOnce()) {
    let begin = Instant::now();
    does();
    assert!(begin.elapsed() >= Duration::from_millis(u64::from(times) - 1), "{what}: {:?}", begin.elapsed());
}

#[test]
fn write_backs_keep_their_pause() {
    let Some(helper) = module() else { return };
    let pcpus = online();
    let one = Ask::of(Instruction::Wbinvd, &pcpus[..1]);
    let flush = |ask: &Ask| drop(helper.flush(ask).unwrap());
    paused("one after the other", 20, || (0..20).for_each(|_| flush(&one)));
    let nop = Ask { dirty_lines: 64, refill: true, ..Ask::of(Instruction::Nop, &pcpus[..1]) };
    paused("lines dirtied", 20, || (0..20).for_each(|_| flush(&nop)));
    let all = Ask { serial: true, ..Ask::of(Instruction::Wbinvd, &pcpus) };
    let times = 5 * u32::try_from(pcpus.len()).unwrap();
    paused("pCPU after pCPU", times, || (0..5).for_each(|_| flush(&all)));
    paused("by several threads", 40, || {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10).for_each(|_| flush(&one)));
            }
        });
    });
}

/// A session of a policy.
fn session(helper: &Helper, policy: &str) -> bool {
    let number = helper.policies().unwrap().iter().position(|(name, _)| name == policy);
    let Some(number) = number.filter(|_| helper.info().unwrap().kvm_entry()) else { return false };
    helper.start(u32::try_from(number).unwrap(), 1, &[]).unwrap();
    true
}

#[test]
fn reclaims_keep_their_pause_too() {
    let Some(helper) = module() else { return };
    if !session(&helper, "all-wbinvd") {
        return;
    }
    let before = helper.info().unwrap().flushes;
    paused("by several threads", 400, || {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..50).for_each(|_| drop(helper.reclaim(0, 1).unwrap())));
            }
        });
    });
    let reclaims = helper.info().unwrap().flushes - before;
    assert_eq!(reclaims, 400 * online().len() as u64, "each is one write-back on every pCPU");
}

#[test]
fn nobody_flushes_beside_anothers_session() {
    let Some(helper) = module() else { return };
    if !session(&helper, "no-flush") {
        return;
    }
    let other = Helper::open().unwrap();
    let ask = Ask::of(Instruction::Wbinvd, &online()[..1]);
    let before = helper.info().unwrap().flushes;
    assert_eq!(errno(other.flush(&ask)), libc::EBUSY);
    assert_eq!(helper.info().unwrap().flushes, before);
    helper.flush(&ask).unwrap();
    drop(helper);
    other.flush(&ask).unwrap();
    // A session does not begin while somebody flushes: one that lasts, pCPU after pCPU, and again.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let all = Ask { serial: true, ..Ask::of(Instruction::Wbinvd, &online()) };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                drop(other.flush(&all));
            }
        });
        let begin = Instant::now();
        let mut met = false;
        while !met && begin.elapsed() < Duration::from_secs(5) {
            // While a session is there the other is turned away: it needs a while to be at it again.
            std::thread::sleep(Duration::from_millis(20));
            let late = Helper::open().unwrap();
            met = errno(late.start(0, 1, &[])) == libc::EBUSY;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(met, "every start found nobody flushing");
    });
}

#[test]
fn a_thread_that_leaves_makes_room() {
    let Some(helper) = module() else { return };
    if !session(&helper, "sticky-wbnoinvd") {
        return;
    }
    assert_eq!(errno(helper.bind(0, u32::MAX)), libc::EINVAL, "no such vCPU");
    assert_eq!(errno(helper.bind(0, 64)), libc::EINVAL, "no such vCPU");
    for _ in 0..200 {
        helper.bind(0, 63).unwrap();
        helper.unbind().unwrap();
    }
}

#[test]
fn sessions_are_one_at_a_time_and_end_with_their_file() {
    let Some(helper) = module() else { return };
    let other = Helper::open().unwrap();
    assert_eq!(errno(helper.bind(0, 0)), libc::ENOENT);
    assert_eq!(errno(helper.unbind()), libc::ENOENT);
    assert_eq!(errno(helper.reclaim(0, 1)), libc::ENOENT);
    assert_eq!(errno(helper.start(u32::MAX, 1, &[])), libc::EINVAL);
    assert_eq!(errno(helper.start(0, 0, &[])), libc::EINVAL);
    assert_eq!(errno(helper.start(0, VMS + 1, &[])), libc::EINVAL);
    if !helper.info().unwrap().kvm_entry() {
        assert_eq!(errno(helper.start(0, 1, &[])), libc::ENODEV);
        return;
    }
    helper.start(0, 1, &[]).unwrap();
    assert!(helper.info().unwrap().in_session());
    assert_eq!(errno(helper.start(0, 1, &[])), libc::EBUSY);
    assert_eq!(errno(other.start(0, 1, &[])), libc::EBUSY);
    assert_eq!(errno(helper.bind(1, 0)), libc::EINVAL);
    helper.bind(0, 0).unwrap();
    assert_eq!(errno(helper.bind(0, 1)), libc::EBUSY);
    assert_eq!(errno(helper.reclaim(1, 1)), libc::EINVAL);
    helper.reclaim(0, 1).unwrap();
    // Ended with a thread still bound.
    drop(helper);
    other.start(0, 1, &[]).unwrap();
    other.bind(0, 0).unwrap();
    other.unbind().unwrap();
}

/// So many reclaims at once by a policy of `loops/` (`module/emulate.sh`), if the module has it: how long each took, and what came of it.
fn reclaims(policy: &str, threads: usize) -> Option<Vec<(Duration, io::Result<Reclaim>)>> {
    let helper = module()?;
    if !session(&helper, policy) {
        return None;
    }
    // The pause after what came before is over then.
    helper.flush(&Ask::of(Instruction::Wbinvd, &online()[..1])).unwrap();
    let one = || {
        let begin = Instant::now();
        let done = helper.reclaim(0, 1);
        (begin.elapsed(), done)
    };
    Some(std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    }))
}

#[test]
fn a_loop_that_keeps_its_pcpu_ends_when_a_pcpu_may_be_kept_no_longer() {
    for policy in ["loops/off.c", "loops/held.c"] {
        let Some(mut done) = reclaims(policy, 1) else { return };
        let (took, done) = done.remove(0);
        assert_eq!(errno(done), libc::EDEADLK, "{policy}");
        // 50 ms; a loop that lets others run goes on for 5 s.
        assert!(took < Duration::from_secs(2), "{policy}: {took:?}");
    }
}

#[test]
fn a_loop_that_does_not_keep_its_pcpu_lets_others_run() {
    let stop = std::sync::atomic::AtomicBool::new(false);
    let home = online()[0];
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let _pinned = crate::os::Pinned::to(home).unwrap();
            let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            longest
        });
        let _pinned = crate::os::Pinned::to(home).unwrap();
        let done = spin();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let longest = beside.join().unwrap();
        if let Some((took, how)) = done {
            assert_eq!(how, libc::EDEADLK);
            assert!(
                took >= Duration::from_secs(5) && longest < Duration::from_secs(2),
                "{took:?}, {longest:?}"
            );
        }
    });
}

/// A reclaim by this very thread, of a policy whose loop waits for what never comes.
fn spin() -> Option<(Duration, i32)> {
    let helper = module()?;
    if !session(&helper, "loops/spin.c") {
        return None;
    }
    let begin = Instant::now();
    let how = errno(helper.reclaim(0, 1));
    Some((begin.elapsed(), how))
}

#[test]
fn loops_of_a_sessions_begin_and_end_end_too() {
    let Some(helper) = module() else { return };
    let number = |policy: &str| {
        let at = helper.policies().unwrap().iter().position(|(name, _)| name == policy)?;
        u32::try_from(at).ok()
    };
    let (Some(alloc), Some(free)) = (number("loops/alloc.c"), number("loops/free.c")) else { return };
    assert_eq!(errno(helper.start(alloc, 2, &[])), libc::EDEADLK);
    helper.start(free, 2, &[]).unwrap();
    let begin = Instant::now();
    drop(helper);
    let took = begin.elapsed();
    assert!(took >= Duration::from_secs(4) && took < Duration::from_secs(9), "{took:?}");
    assert!(session(&Helper::open().unwrap(), "loops/free.c"), "it is free again");
}

#[test]
fn reclaims_under_way_keep_no_pcpu_for_longer_than_one_may() {
    let Some(helper) = module() else { return };
    let info = helper.info().unwrap();
    drop(helper);
    // Each is one write-back on every pCPU, and goes on for a while: all of them would be under way at once.
    let Some(done) = reclaims("loops/slow.c", 16) else { return };
    let room = info.stall_limit_us / info.stall_us.max(info.stall_seen_us).max(1);
    let done: Vec<Reclaim> = done.into_iter().map(|d| d.1.unwrap()).collect();
    assert!(done.iter().all(|r| r.refused == 0 && r.pcpus.iter().all(|p| p.flushed == 1)));
    let at_once = |r: &Reclaim| done.iter().filter(|o| o.begin <= r.begin && r.begin < o.end).count();
    let most = done.iter().map(at_once).max().unwrap();
    assert!(most > 1 && most as u64 <= room, "{most} at once, where {room} are as long as one may be");
}
