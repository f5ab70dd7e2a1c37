//! The SEV firmware as a state machine: which ASIDs may be used on which CCX, and what must have been flushed first.
//!
//! Behaviour after AMD's published Genoa firmware 1.55.25, described in words (no code of it was used): per
//! (ASID, CCX) a [`Use`], per thread whether it has done WBINVD, per guest context what it is bound to. VMRUN works
//! where the CCX is [`Use::InUse`], which is when the firmware clears the thread's ASID_INVALID bit.
//!
//! *Promise*: no command panics, whatever its arguments; a refused one changes nothing, but DF_FLUSH, as below.

use sim_core::layout::Layout;
use sim_core::state::{Class, Domain, SlotId, Store};
use svm_policy::Command;

/// What an ASID is on a CCX.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Use {
    /// Lines of it may be cached there.
    Dirty,
    /// Flushed since: it can be activated.
    Clean,
    /// Activated for a guest that does not run yet.
    Allocated,
    /// A guest runs under it.
    InUse,
}

impl Use {
    const ALL: [Use; 4] = [Use::Dirty, Use::Clean, Use::Allocated, Use::InUse];

    /// In stories.
    #[must_use]
    pub fn name(value: i64) -> &'static str {
        ["dirty", "clean", "allocated", "in use"].get(usize::try_from(value).unwrap_or(4)).unwrap_or(&"?")
    }
}

/// What a command gives: the kernel's `SEV_RET_*` (include/uapi/linux/psp-sev.h).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Status {
    /// Done.
    Success = 0,
    /// The platform is not initialised for this kind of guest, or is already.
    InvalidPlatformState = 1,
    /// The guest does not run, or runs already.
    InvalidGuestState = 2,
    /// The guest's ASID is not active.
    Inactive = 8,
    /// Another guest has the ASID, or pages are assigned to it.
    AsidOwned = 0xc,
    /// There is no such ASID.
    InvalidAsid = 0xd,
    /// A thread has not done WBINVD since it had to.
    WbinvdRequired = 0xe,
    /// The ASID is dirty on a CCX.
    DfFlushRequired = 0xf,
    /// There is no such guest context, it was freed, or it is of another kind of guest.
    InvalidGuest = 0x10,
    /// The guest's ASID is active.
    Active = 0x12,
    /// There is no such thread.
    InvalidParam = 0x16,
}

impl Status {
    /// Every status, by its number.
    pub const ALL: [Status; 11] = [
        Status::Success,
        Status::InvalidPlatformState,
        Status::InvalidGuestState,
        Status::Inactive,
        Status::AsidOwned,
        Status::InvalidAsid,
        Status::WbinvdRequired,
        Status::DfFlushRequired,
        Status::InvalidGuest,
        Status::Active,
        Status::InvalidParam,
    ];

    /// The number that the command gives.
    #[must_use]
    pub const fn code(self) -> i64 {
        self as i64
    }

    /// The constant of the kernel.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Status::Success => "SEV_RET_SUCCESS",
            Status::InvalidPlatformState => "SEV_RET_INVALID_PLATFORM_STATE",
            Status::InvalidGuestState => "SEV_RET_INVALID_GUEST_STATE",
            Status::Inactive => "SEV_RET_INACTIVE",
            Status::AsidOwned => "SEV_RET_ASID_OWNED",
            Status::InvalidAsid => "SEV_RET_INVALID_ASID",
            Status::WbinvdRequired => "SEV_RET_WBINVD_REQUIRED",
            Status::DfFlushRequired => "SEV_RET_DFFLUSH_REQUIRED",
            Status::InvalidGuest => "SEV_RET_INVALID_GUEST",
            Status::Active => "SEV_RET_ACTIVE",
            Status::InvalidParam => "SEV_RET_INVALID_PARAM",
        }
    }
}

/// How the firmware is at first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Initial {
    /// Before INIT: everything dirty, no VM active.
    Fresh,
    /// After INIT, WBINVD everywhere and DF_FLUSH; VMs that have an ASID run under it on every CCX.
    #[default]
    Running,
}

/// INIT was given: SEV and SEV-ES guests.
const SEV: i64 = 1;
/// SNP_INIT was given.
const SNP: i64 = 2;

/// The slots of a guest's context.
#[derive(Clone, Copy, Debug)]
struct Guest {
    /// ASID that is active, 0 for none.
    asid: SlotId,
    /// LAUNCH_FINISH was given.
    launched: SlotId,
    /// Its key was installed.
    keyed: SlotId,
    /// DECOMMISSION freed it.
    gone: SlotId,
}

/// Where the firmware's state lies among the slots, and what of the machine it knows.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// CCX of each thread, in the order in which it scans them.
    ccx_of: Vec<u16>,
    /// Core of each thread.
    core_of: Vec<u16>,
    ccxs: u16,
    asids: u16,
    /// Context of each VM: mirrors have the handle of the VM that they mirror.
    context_of: Vec<usize>,
    /// A CCX counts as done once the first of its cores that is scanned is (`fw-partial-ccx`).
    partial_ccx: bool,
    /// Whether it is initialised: [`SEV`], [`SNP`], or both.
    up: SlotId,
    done: Vec<SlotId>,
    uses: Vec<SlotId>,
    guests: Vec<Guest>,
}

/// What the firmware is declared for.
#[derive(Debug)]
pub struct Shape<'a> {
    /// CCX of each thread.
    pub ccx_of: Vec<u16>,
    /// Core of each thread.
    pub core_of: Vec<u16>,
    /// CCXs.
    pub ccxs: u16,
    /// ASIDs, the host's 0 included.
    pub asids: u16,
    /// ASID of each VM at first, 0 for none.
    pub vm_asids: &'a [u16],
    /// How it is at first.
    pub initial: Initial,
    /// Whether it has the quirk `fw-partial-ccx`.
    pub partial_ccx: bool,
}

/// What a command came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// What it gives.
    pub status: Status,
    /// The ASID whose key it installed.
    pub installed: Option<u16>,
    /// Whether it pushed what is on its way into memory.
    pub fabric: bool,
}

impl Outcome {
    const fn only(status: Status) -> Outcome {
        Outcome { status, installed: None, fabric: false }
    }
}

impl Firmware {
    /// Declares the slots.
    pub fn declare(layout: &mut Layout, shape: Shape<'_>) -> Firmware {
        let Shape { ccx_of, core_of, ccxs, asids, vm_asids, initial, partial_ccx } = shape;
        let running = initial == Initial::Running;
        let active = |asid: u16| running && asid != 0;
        let mut slot = |name: String, hi: i64, init: i64| {
            layout.slot(name, Domain::Range { lo: 0, hi }, Class::Shared, init)
        };
        let up = slot("fw.up".to_owned(), SEV | SNP, if running { SEV | SNP } else { 0 });
        let done = (0..ccx_of.len())
            .map(|p| slot(format!("fw.wbinvd_done.pcpu{p}"), 1, i64::from(running)))
            .collect();
        let mut uses = Vec::new();
        for asid in 1..asids {
            let taken = vm_asids.contains(&asid);
            let first = match (running, taken) {
                (false, _) => Use::Dirty,
                (true, false) => Use::Clean,
                (true, true) => Use::InUse,
            };
            for ccx in 0..ccxs {
                uses.push(slot(format!("fw.asid{asid}.ccx{ccx}"), 3, first as i64));
            }
        }
        let mut guests = Vec::new();
        for (vm, asid) in vm_asids.iter().enumerate() {
            let on = i64::from(active(*asid));
            guests.push(Guest {
                asid: slot(format!("fw.vm{vm}.active"), i64::from(asids) - 1, on * i64::from(*asid)),
                launched: slot(format!("fw.vm{vm}.launched"), 1, on),
                keyed: slot(format!("fw.vm{vm}.keyed"), 1, on),
                gone: slot(format!("fw.vm{vm}.decommissioned"), 1, 0),
            });
        }
        let same = |vm: usize| vm_asids.iter().position(|a| *a != 0 && *a == vm_asids[vm]).unwrap_or(vm);
        let context_of = (0..vm_asids.len()).map(same).collect();
        Firmware { ccx_of, core_of, ccxs, asids, context_of, partial_ccx, up, done, uses, guests }
    }

    fn use_slot(&self, asid: u16, ccx: u16) -> SlotId {
        self.uses[usize::from(asid - 1) * usize::from(self.ccxs) + usize::from(ccx)]
    }

    /// What an ASID, from 1, is on a CCX.
    pub fn used<S: Store>(&self, store: &S, asid: u16, ccx: u16) -> Use {
        let value = usize::try_from(store.get(self.use_slot(asid, ccx))).unwrap_or(0);
        Use::ALL.get(value).copied().unwrap_or(Use::Dirty)
    }

    fn set_used<S: Store>(&self, store: &mut S, asid: u16, ccx: u16, to: Use) {
        store.set(self.use_slot(asid, ccx), to as i64);
    }

    /// Whether the slot is one of an (ASID, CCX).
    #[must_use]
    pub fn is_use(&self, slot: SlotId) -> bool {
        self.uses.contains(&slot)
    }

    /// Whether VMRUN under an ASID works on a thread: its ASID_INVALID bit is clear.
    pub fn runnable<S: Store>(&self, store: &S, asid: u16, thread: usize) -> bool {
        let Some(ccx) = self.ccx_of.get(thread) else { return false };
        asid != 0 && asid < self.asids && self.used(store, asid, *ccx) == Use::InUse
    }

    /// A thread has completed a WBINVD. WBNOINVD has a flag of its own, which the firmware never looks at.
    pub fn wbinvd_done<S: Store>(&self, store: &mut S, thread: usize) {
        if let Some(slot) = self.done.get(thread) {
            store.set(*slot, 1);
        }
    }

    /// Whether a thread's flag is set.
    pub fn is_done<S: Store>(&self, store: &S, thread: usize) -> bool {
        self.done.get(thread).is_some_and(|slot| store.get(*slot) != 0)
    }

    /// The ASID that is active for a VM's context, 0 for none.
    pub fn active<S: Store>(&self, store: &S, vm: usize) -> u16 {
        let guest = self.context_of.get(vm).and_then(|context| self.guests.get(*context));
        guest.map_or(0, |g| u16::try_from(store.get(g.asid)).unwrap_or(0))
    }

    /// Carries a command out. `snp` says whether the VM is an SNP one; `assigned` whether the RMP has pages of an
    /// ASID.
    pub fn command<S: Store>(
        &self,
        store: &mut S,
        command: Command,
        (vm, asid, cpu): (i64, i64, i64),
        snp: bool,
        assigned: &dyn Fn(&S, u16) -> bool,
    ) -> Outcome {
        let up = store.get(self.up);
        match command {
            Command::SevInit => return self.init(store, SEV),
            Command::SnpInit => return self.init(store, SNP),
            Command::SnpShutdown if up & SNP == 0 => return Outcome::only(Status::InvalidPlatformState),
            _ if up == 0 => return Outcome::only(Status::InvalidPlatformState),
            Command::SnpShutdown => return self.shutdown(store),
            Command::DfFlush => return self.df_flush(store),
            Command::Activate
            | Command::ActivateEx
            | Command::LaunchFinish
            | Command::Deactivate
            | Command::Decommission
            | Command::SnpDecommission => {}
        }
        if up & if snp { SNP } else { SEV } == 0 {
            return Outcome::only(Status::InvalidPlatformState);
        }
        // SNP guests have a context page and no handle, others a handle and no page.
        let other_kind = if snp {
            matches!(command, Command::Deactivate | Command::Decommission)
        } else {
            command == Command::SnpDecommission
        };
        if other_kind {
            return Outcome::only(Status::InvalidGuest);
        }
        let context = usize::try_from(vm).ok().and_then(|vm| self.context_of.get(vm));
        let guest = context.map(|context| self.guests[*context]).filter(|g| store.get(g.gone) == 0);
        let Some(guest) = guest else { return Outcome::only(Status::InvalidGuest) };
        match command {
            Command::Activate => self.activate(store, guest, asid, None, snp, assigned),
            Command::ActivateEx => self.activate(store, guest, asid, Some(cpu), snp, assigned),
            Command::LaunchFinish => Outcome::only(self.launch_finish(store, guest)),
            Command::Deactivate => Outcome::only(self.deactivate(store, guest)),
            Command::Decommission if store.get(guest.asid) != 0 => Outcome::only(Status::Active),
            Command::Decommission | Command::SnpDecommission => {
                self.deactivate(store, guest);
                for slot in [guest.launched, guest.keyed] {
                    store.set(slot, 0);
                }
                store.set(guest.gone, 1);
                Outcome::only(Status::Success)
            }
            Command::SevInit | Command::SnpInit | Command::SnpShutdown | Command::DfFlush => {
                Outcome::only(Status::Success)
            }
        }
    }

    fn init<S: Store>(&self, store: &mut S, bit: i64) -> Outcome {
        let up = store.get(self.up);
        if up & bit != 0 {
            return Outcome::only(Status::InvalidPlatformState);
        }
        store.set(self.up, up | bit);
        for slot in self.done.iter().chain(&self.uses) {
            store.set(*slot, 0);
        }
        for guest in &self.guests {
            store.set(guest.asid, 0);
        }
        Outcome::only(Status::Success)
    }

    fn shutdown<S: Store>(&self, store: &mut S) -> Outcome {
        let clean = self.uses.iter().all(|slot| store.get(*slot) == Use::Clean as i64);
        if !clean {
            return Outcome::only(Status::DfFlushRequired);
        }
        store.set(self.up, store.get(self.up) & !SNP);
        Outcome::only(Status::Success)
    }

    fn activate<S: Store>(
        &self,
        store: &mut S,
        guest: Guest,
        asid: i64,
        cpu: Option<i64>,
        snp: bool,
        assigned: &dyn Fn(&S, u16) -> bool,
    ) -> Outcome {
        let asid = match u16::try_from(asid) {
            Ok(asid) if (1..self.asids).contains(&asid) => asid,
            _ => return Outcome::only(Status::InvalidAsid),
        };
        let ccxs = match cpu {
            None => 0..self.ccxs,
            Some(cpu) => match usize::try_from(cpu).ok().and_then(|p| self.ccx_of.get(p)) {
                Some(ccx) => *ccx..ccx + 1,
                None => return Outcome::only(Status::InvalidParam),
            },
        };
        let active = store.get(guest.asid);
        let adds = cpu.is_some() && active == i64::from(asid);
        let taken = |ccx: u16| matches!(self.used(store, asid, ccx), Use::InUse | Use::Allocated);
        if !adds && (0..self.ccxs).any(taken) {
            return Outcome::only(Status::AsidOwned);
        }
        if !adds && active != 0 {
            return Outcome::only(Status::Active);
        }
        if ccxs.clone().any(|ccx| self.used(store, asid, ccx) == Use::Dirty) {
            return Outcome::only(Status::DfFlushRequired);
        }
        if !adds && snp && assigned(store, asid) {
            return Outcome::only(Status::AsidOwned);
        }
        let keyed = store.get(guest.keyed) != 0;
        let to = if store.get(guest.launched) != 0 { Use::InUse } else { Use::Allocated };
        for ccx in ccxs {
            if self.used(store, asid, ccx) == Use::Clean {
                self.set_used(store, asid, ccx, to);
            }
        }
        store.set(guest.asid, i64::from(asid));
        store.set(guest.keyed, 1);
        Outcome { installed: (!keyed).then_some(asid), ..Outcome::only(Status::Success) }
    }

    fn launch_finish<S: Store>(&self, store: &mut S, guest: Guest) -> Status {
        if store.get(guest.launched) != 0 {
            return Status::InvalidGuestState;
        }
        store.set(guest.launched, 1);
        if let Some(asid) = self.asid_of(store, guest) {
            for ccx in 0..self.ccxs {
                if self.used(store, asid, ccx) == Use::Allocated {
                    self.set_used(store, asid, ccx, Use::InUse);
                }
            }
        }
        Status::Success
    }

    fn asid_of<S: Store>(&self, store: &S, guest: Guest) -> Option<u16> {
        u16::try_from(store.get(guest.asid)).ok().filter(|asid| *asid != 0)
    }

    fn deactivate<S: Store>(&self, store: &mut S, guest: Guest) -> Status {
        let Some(asid) = self.asid_of(store, guest) else { return Status::Inactive };
        for ccx in 0..self.ccxs {
            match self.used(store, asid, ccx) {
                Use::Dirty | Use::Clean => {}
                Use::Allocated => self.set_used(store, asid, ccx, Use::Clean),
                Use::InUse => {
                    self.set_used(store, asid, ccx, Use::Dirty);
                    for (slot, _) in self.done.iter().zip(&self.ccx_of).filter(|(_, of)| **of == ccx) {
                        store.set(*slot, 0);
                    }
                }
            }
        }
        store.set(guest.asid, 0);
        Status::Success
    }

    /// Threads are scanned in their order until one has not done WBINVD. A CCX that was seen done becomes clean for
    /// every ASID, even if the command is then refused: seen done is one all of whose threads were scanned; with the
    /// quirk, one whose first core was.
    fn df_flush<S: Store>(&self, store: &mut S) -> Outcome {
        let threads = self.done.len();
        let scanned = (0..threads).find(|t| !self.is_done(store, *t)).unwrap_or(threads);
        for ccx in 0..self.ccxs {
            let first = (0..threads).find(|t| self.ccx_of[*t] == ccx).map(|t| self.core_of[t]);
            let asked = |t: &usize| {
                let here = self.ccx_of[*t] == ccx;
                here && (!self.partial_ccx || first == self.core_of.get(*t).copied())
            };
            let seen = (0..threads).filter(asked).all(|t| t < scanned);
            for asid in (1..self.asids).filter(|_| seen) {
                if self.used(store, asid, ccx) == Use::Dirty {
                    self.set_used(store, asid, ccx, Use::Clean);
                }
            }
        }
        if scanned < threads {
            return Outcome::only(Status::WbinvdRequired);
        }
        Outcome { fabric: true, ..Outcome::only(Status::Success) }
    }
}

#[cfg(test)]
mod tests;
