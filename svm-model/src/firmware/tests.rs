//! Each command, each refusal, as the published SEV firmware (Genoa, 1.55.25) has them, counted by hand. Two CCXs of two
//! threads each, three ASIDs.

use sim_core::layout::Layout;
use sim_core::state::Plain;
use svm_policy::Command as C;

use super::{Firmware, Initial, Outcome, Shape, Status, Use};

struct Rig {
    fw: Firmware,
    words: Vec<i64>,
    snp: bool,
    /// ASIDs that the RMP has pages of.
    assigned: Vec<u16>,
}

impl Rig {
    /// VMs with these ASIDs; threads 0 and 1 are on CCX 0, 2 and 3 on CCX 1; each thread is a core of its own.
    fn new(initial: Initial, vm_asids: &[u16], partial_ccx: bool) -> Rig {
        let mut layout = Layout::default();
        let shape = Shape {
            ccx_of: vec![0, 0, 1, 1],
            core_of: vec![0, 1, 2, 3],
            ccxs: 2,
            asids: 4,
            vm_asids,
            initial,
            partial_ccx,
        };
        let fw = Firmware::declare(&mut layout, shape);
        Rig { fw, words: layout.initial(), snp: false, assigned: Vec::new() }
    }

    fn outcome(&mut self, command: C, vm: i64, asid: i64, cpu: i64) -> Outcome {
        let Rig { fw, words, snp, assigned } = self;
        let mut store = Plain { words };
        let before: Vec<i64> = store.words.to_vec();
        let outcome = fw.command(&mut store, command, (vm, asid, cpu), *snp, &|_, a| assigned.contains(&a));
        if outcome.status != Status::Success && command != C::DfFlush {
            assert_eq!(words, &before, "a refused {command:?} changes nothing");
        }
        outcome
    }

    fn give(&mut self, command: C, vm: i64, asid: i64) -> Status {
        self.outcome(command, vm, asid, 0).status
    }

    fn wbinvd(&mut self, threads: &[usize]) {
        for thread in threads {
            self.fw.wbinvd_done(&mut Plain { words: &mut self.words }, *thread);
        }
    }

    /// Use of each (ASID, CCX), ASID by ASID.
    fn uses(&mut self) -> Vec<Use> {
        let store = Plain { words: &mut self.words };
        (1..4).flat_map(|a| [self.fw.used(&store, a, 0), self.fw.used(&store, a, 1)]).collect()
    }

    fn done(&mut self) -> Vec<bool> {
        let store = Plain { words: &mut self.words };
        (0..4).map(|t| self.fw.is_done(&store, t)).collect()
    }

    fn runnable(&mut self, asid: u16) -> Vec<bool> {
        let store = Plain { words: &mut self.words };
        (0..4).map(|t| self.fw.runnable(&store, asid, t)).collect()
    }
}

const ALL: [usize; 4] = [0, 1, 2, 3];
use Use::{Allocated as A, Clean as K, Dirty as D, InUse as U};

#[test]
fn init_makes_everything_dirty_and_forgets_every_wbinvd() {
    let mut rig = Rig::new(Initial::Fresh, &[0, 0], false);
    for command in [C::Activate, C::ActivateEx, C::LaunchFinish, C::Deactivate, C::Decommission, C::DfFlush] {
        assert_eq!(rig.give(command, 0, 1), Status::InvalidPlatformState, "{command:?} before INIT");
    }
    assert_eq!(rig.give(C::SnpShutdown, 0, 0), Status::InvalidPlatformState);
    rig.wbinvd(&ALL);
    assert_eq!(rig.give(C::SnpInit, 0, 0), Status::Success);
    assert_eq!(rig.done(), [false; 4], "INIT: WBINVD_DONE = 0");
    assert_eq!(rig.uses(), [D; 6], "INIT: every (ASID, CCX) is dirty");
    assert_eq!(rig.runnable(1), [false; 4], "INIT: ASID_INVALID = 1");
    assert_eq!(rig.give(C::SnpInit, 0, 0), Status::InvalidPlatformState);
    // SEV's INIT comes on top, and forgets again.
    rig.wbinvd(&ALL);
    assert_eq!(rig.give(C::SevInit, 0, 0), Status::Success);
    assert_eq!(rig.done(), [false; 4]);
    assert_eq!(rig.give(C::SevInit, 0, 0), Status::InvalidPlatformState);
}

#[test]
fn the_kernels_own_order_brings_a_guest_up() {
    let mut rig = Rig::new(Initial::Fresh, &[0, 0], false);
    assert_eq!(rig.give(C::SevInit, 0, 0), Status::Success);
    assert_eq!(rig.give(C::Activate, 0, 1), Status::DfFlushRequired, "a CCX is dirty: 0x0F");
    assert_eq!(rig.give(C::DfFlush, 0, 0), Status::WbinvdRequired, "no thread has done WBINVD: 0x0E");
    rig.wbinvd(&ALL);
    let flushed = rig.outcome(C::DfFlush, 0, 0, 0);
    assert_eq!((flushed.status, flushed.fabric), (Status::Success, true));
    assert_eq!(rig.uses(), [K; 6], "DF_FLUSH: dirty -> clean, of all ASIDs");
    assert_eq!(rig.done(), [true; 4], "DF_FLUSH leaves the flags");
    let activated = rig.outcome(C::Activate, 0, 2, 0);
    assert_eq!((activated.status, activated.installed), (Status::Success, Some(2)), "the key, once");
    assert_eq!(rig.uses(), [K, K, A, A, K, K], "not launched: allocated");
    assert_eq!(rig.runnable(2), [false; 4]);
    assert_eq!(rig.give(C::LaunchFinish, 0, 0), Status::Success);
    assert_eq!(rig.uses(), [K, K, U, U, K, K]);
    assert_eq!(rig.runnable(2), [true; 4]);
    assert_eq!(rig.give(C::LaunchFinish, 0, 0), Status::InvalidGuestState);
}

#[test]
fn activate_refuses_with_the_right_code() {
    // VM 0 runs under ASID 1, VM 1 has none.
    let mut rig = Rig::new(Initial::Running, &[1, 0], false);
    assert_eq!(rig.uses(), [U, U, K, K, K, K]);
    assert_eq!(rig.done(), [true; 4]);
    for asid in [0, 4, -1, i64::MAX] {
        assert_eq!(rig.give(C::Activate, 1, asid), Status::InvalidAsid, "0x0D for {asid}");
    }
    assert_eq!(rig.give(C::Activate, 1, 1), Status::AsidOwned, "0x0C: in use");
    assert_eq!(rig.give(C::Activate, 0, 2), Status::Active, "0x12");
    for vm in [2, -1, i64::MAX] {
        assert_eq!(rig.give(C::Activate, vm, 2), Status::InvalidGuest);
    }
    assert_eq!(rig.give(C::Activate, 1, 2), Status::Success);
    assert_eq!(rig.uses(), [U, U, A, A, K, K]);
    assert_eq!(rig.give(C::Decommission, 0, 0), Status::Active, "DECOMMISSION while active");
    assert_eq!(rig.give(C::Activate, 1, 2), Status::AsidOwned, "0x0C: allocated, even by itself");
    assert_eq!(
        [Status::AsidOwned, Status::InvalidAsid, Status::WbinvdRequired, Status::DfFlushRequired]
            .map(Status::code),
        [0x0c, 0x0d, 0x0e, 0x0f]
    );
    assert_eq!(Status::Active.code(), 0x12);
}

#[test]
fn snp_activate_counts_the_pages_of_the_asid() {
    let mut rig = Rig::new(Initial::Running, &[1, 0], false);
    (rig.snp, rig.assigned) = (true, vec![2]);
    assert_eq!(rig.give(C::Activate, 1, 2), Status::AsidOwned);
    assert_eq!(rig.give(C::Activate, 1, 3), Status::Success);
}

#[test]
fn the_key_is_installed_once_for_a_guest() {
    let mut rig = Rig::new(Initial::Running, &[1, 0], false);
    assert_eq!(rig.outcome(C::Activate, 1, 2, 0).installed, Some(2));
    assert_eq!(rig.give(C::Deactivate, 1, 0), Status::Success);
    assert_eq!(rig.uses(), [U, U, K, K, K, K], "allocated only: clean, no flush needed");
    assert_eq!(rig.done(), [true; 4]);
    assert_eq!(rig.outcome(C::Activate, 1, 2, 0), Outcome::only(Status::Success), "again: no key");
    // A guest that runs already is in use at once.
    assert_eq!(rig.give(C::LaunchFinish, 1, 0), Status::Success);
    assert_eq!(rig.give(C::Deactivate, 1, 0), Status::Success);
    rig.wbinvd(&ALL);
    assert_eq!(rig.give(C::DfFlush, 0, 0), Status::Success);
    assert_eq!(rig.give(C::Activate, 1, 3), Status::Success);
    assert_eq!(rig.uses(), [U, U, K, K, U, U]);
}

#[test]
fn activate_ex_only_ever_adds_ccxs() {
    let mut rig = Rig::new(Initial::Running, &[1, 0], false);
    assert_eq!(rig.outcome(C::ActivateEx, 1, 2, 4).status, Status::InvalidParam);
    assert_eq!(rig.outcome(C::ActivateEx, 1, 2, -1).status, Status::InvalidParam);
    let first = rig.outcome(C::ActivateEx, 1, 2, 3);
    assert_eq!((first.status, first.installed), (Status::Success, Some(2)));
    assert_eq!(rig.uses(), [U, U, K, A, K, K], "thread 3 is on CCX 1");
    assert_eq!(rig.give(C::LaunchFinish, 1, 0), Status::Success);
    assert_eq!(rig.runnable(2), [false, false, true, true], "VMRUN works on CCX 1 only");
    assert_eq!(rig.outcome(C::ActivateEx, 1, 3, 0).status, Status::Active, "another ASID");
    let more = rig.outcome(C::ActivateEx, 1, 2, 0);
    assert_eq!(more, Outcome::only(Status::Success), "more CCXs, no key");
    assert_eq!(rig.uses(), [U, U, U, U, K, K]);
    assert_eq!(rig.outcome(C::ActivateEx, 0, 2, 0).status, Status::AsidOwned, "not its own");
    assert_eq!(rig.outcome(C::ActivateEx, 1, 2, 2), Outcome::only(Status::Success), "twice is nothing");
}

#[test]
fn deactivate_clears_the_flags_of_the_ccxs_that_the_guest_used() {
    let mut rig = Rig::new(Initial::Running, &[1, 0], false);
    assert_eq!(rig.outcome(C::ActivateEx, 1, 2, 3).status, Status::Success);
    assert_eq!(rig.give(C::LaunchFinish, 1, 0), Status::Success);
    assert_eq!(rig.give(C::Deactivate, 1, 0), Status::Success);
    assert_eq!(rig.done(), [true, true, false, false]);
    assert_eq!(rig.uses(), [U, U, K, D, K, K]);
    assert_eq!(rig.give(C::Deactivate, 1, 0), Status::Inactive);
    assert_eq!(rig.give(C::Activate, 1, 2), Status::DfFlushRequired);
    // One thread short: refused, and the CCX stays dirty. CCX 0 was seen done, and had nothing dirty.
    rig.wbinvd(&[2]);
    assert_eq!(rig.give(C::DfFlush, 0, 0), Status::WbinvdRequired);
    assert_eq!(rig.uses(), [U, U, K, D, K, K]);
    rig.wbinvd(&[3]);
    assert_eq!(rig.give(C::DfFlush, 0, 0), Status::Success);
    assert_eq!(rig.uses(), [U, U, K, K, K, K]);
}

#[test]
fn a_deactivate_between_wbinvd_and_df_flush_makes_it_fail() {
    let mut rig = Rig::new(Initial::Running, &[1, 2], false);
    assert_eq!(rig.give(C::Deactivate, 0, 0), Status::Success);
    rig.wbinvd(&ALL);
    assert_eq!(rig.give(C::Deactivate, 1, 0), Status::Success);
    assert_eq!(rig.give(C::DfFlush, 0, 0), Status::WbinvdRequired);
    assert_eq!(rig.give(C::Activate, 0, 1), Status::DfFlushRequired);
}

#[test]
fn decommission_frees_the_context() {
    let mut rig = Rig::new(Initial::Running, &[1, 2], false);
    assert_eq!(rig.give(C::Deactivate, 0, 0), Status::Success);
    assert_eq!(rig.give(C::Decommission, 0, 0), Status::Success);
    for command in [C::Activate, C::LaunchFinish, C::Deactivate, C::Decommission, C::SnpDecommission] {
        assert_eq!(rig.give(command, 0, 3), Status::InvalidGuest);
    }
    // SNP's implies DEACTIVATE.
    rig.wbinvd(&ALL);
    rig.snp = true;
    assert_eq!(rig.give(C::SnpDecommission, 1, 0), Status::Success);
    assert_eq!(rig.uses(), [D, D, D, D, K, K]);
    assert_eq!(rig.done(), [false; 4]);
    assert_eq!(rig.give(C::SnpDecommission, 1, 0), Status::InvalidGuest);
}

#[test]
fn a_guest_needs_the_platform_of_its_kind_and_knows_its_own_commands_only() {
    for (init, snp) in [(C::SevInit, true), (C::SnpInit, false)] {
        let mut rig = Rig::new(Initial::Fresh, &[0], false);
        rig.snp = snp;
        assert_eq!(rig.give(init, 0, 0), Status::Success);
        rig.wbinvd(&ALL);
        assert_eq!(rig.give(C::DfFlush, 0, 0), Status::Success);
        for command in [C::Activate, C::ActivateEx, C::LaunchFinish] {
            assert_eq!(rig.give(command, 0, 1), Status::InvalidPlatformState, "{command:?} after {init:?}");
        }
        rig.snp = !snp;
        assert_eq!(rig.give(C::Activate, 0, 1), Status::Success, "after {init:?}");
    }
    for (snp, others) in [(true, &[C::Deactivate, C::Decommission][..]), (false, &[C::SnpDecommission])] {
        let mut rig = Rig::new(Initial::Running, &[1], false);
        rig.snp = snp;
        for command in others {
            assert_eq!(rig.give(*command, 0, 0), Status::InvalidGuest, "{command:?}");
        }
    }
}

#[test]
fn shutdown_wants_every_asid_clean_everywhere() {
    let mut rig = Rig::new(Initial::Running, &[1, 0], false);
    rig.snp = true;
    assert_eq!(rig.give(C::SnpShutdown, 0, 0), Status::DfFlushRequired, "in use");
    assert_eq!(rig.give(C::SnpDecommission, 0, 0), Status::Success);
    assert_eq!(rig.give(C::SnpShutdown, 0, 0), Status::DfFlushRequired, "dirty");
    rig.wbinvd(&ALL);
    assert_eq!(rig.give(C::SnpShutdown, 0, 0), Status::DfFlushRequired, "WBINVD alone is not enough");
    assert_eq!(rig.give(C::DfFlush, 0, 0), Status::Success);
    assert_eq!(rig.give(C::SnpShutdown, 0, 0), Status::Success);
    assert_eq!(rig.give(C::SnpShutdown, 0, 0), Status::InvalidPlatformState);
}

#[test]
fn a_refused_df_flush_cleans_the_ccxs_that_it_saw_done() {
    // CCX 0 is done, CCX 1 is not: it is seen done before the scan stops.
    let mut rig = Rig::new(Initial::Running, &[1, 0], false);
    assert_eq!(rig.give(C::Deactivate, 0, 0), Status::Success);
    rig.wbinvd(&[0, 1]);
    let refused = rig.outcome(C::DfFlush, 0, 0, 0);
    assert_eq!((refused.status, refused.fabric), (Status::WbinvdRequired, false), "no fabric flush");
    assert_eq!(rig.uses()[..2], [K, D]);
    // CCX 1 is done, CCX 0 is not: the scan never gets to it.
    let mut rig = Rig::new(Initial::Running, &[1, 0], false);
    assert_eq!(rig.give(C::Deactivate, 0, 0), Status::Success);
    rig.wbinvd(&[2, 3]);
    assert_eq!(rig.give(C::DfFlush, 0, 0), Status::WbinvdRequired);
    assert_eq!(rig.uses()[..2], [D, D]);
}

#[test]
fn with_the_quirk_the_first_core_of_a_ccx_is_enough() {
    for (quirk, flushed, want) in [
        (false, &[0usize][..], [D, D]),
        (true, &[0], [K, D]),
        (true, &[1], [D, D]),
        (true, &[0, 2], [K, D]),
        (false, &[0, 1, 2], [K, D]),
        (true, &[0, 1, 2], [K, K]),
        (true, &[0, 1, 3], [K, D]),
    ] {
        let mut rig = Rig::new(Initial::Running, &[1, 0], quirk);
        assert_eq!(rig.give(C::Deactivate, 0, 0), Status::Success);
        rig.wbinvd(flushed);
        assert_eq!(rig.give(C::DfFlush, 0, 0), Status::WbinvdRequired);
        assert_eq!(rig.uses()[..2], want, "quirk {quirk}, flushed {flushed:?}");
    }
}

#[test]
fn mirrors_have_the_context_of_the_vm_that_they_mirror() {
    let mut rig = Rig::new(Initial::Running, &[1, 1], false);
    assert_eq!(rig.give(C::Deactivate, 1, 0), Status::Success);
    assert_eq!(rig.give(C::Deactivate, 0, 0), Status::Inactive);
}

#[test]
fn statuses_have_the_numbers_of_the_kernel_and_names_of_their_own() {
    let mut codes: Vec<i64> = Status::ALL.map(Status::code).to_vec();
    assert_eq!(codes, [0, 1, 2, 8, 0xc, 0xd, 0xe, 0xf, 0x10, 0x12, 0x16]);
    codes.dedup();
    assert_eq!(codes.len(), Status::ALL.len());
    assert!(codes.iter().all(|c| (0..=svm_lang::SEV_RET_LAST).contains(c)));
}
