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
    let most = Ask { dirty_lines: (256 << 20) / 64 + 1, ..ask.clone() };
    assert_eq!(errno(helper.flush(&most)), libc::E2BIG);
    // 25 ns a line, as flush.c says: 100 ms.
    let long = Ask { dirty_lines: 4_000_000, ..ask.clone() };
    assert_eq!(errno(helper.flush(&long)), libc::ETIME);
    if !helper.info().unwrap().has_wbnoinvd() {
        let strict = Ask { strict: true, instruction: Instruction::Wbnoinvd, ..ask };
        assert_eq!(errno(helper.flush(&strict)), libc::EOPNOTSUPP);
    }
    assert_eq!(errno(helper.ask::<u64>(request(BOTH, 0x7f, 8), &mut 0)), libc::ENOTTY);
    assert_eq!(helper.info().unwrap().flushes, before, "nothing was executed");
}

#[test]
fn write_backs_keep_their_pause() {
    let Some(helper) = module() else { return };
    let ask = Ask::of(Instruction::Wbinvd, &online()[..1]);
    let begin = Instant::now();
    for _ in 0..20 {
        helper.flush(&ask).unwrap();
    }
    // The first may begin at once.
    assert!(begin.elapsed() >= Duration::from_millis(19), "{:?}", begin.elapsed());
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
