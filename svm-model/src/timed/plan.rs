//! What a timed run is given, beside the machine, and what it comes to.

use cache_model::event::Event;
use cache_model::lattice::Move;
use sev_arch::{Access as Kind, PcpuId};
use svm_policy::Pc;

use super::memory::TimedMemory;
use super::stats::Outcome;
use crate::explore::ScheduledStep;
use crate::label::What;

/// One access of a guest, by guest page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Guest frame number, dense from 0.
    pub gfn: u32,
    /// Line within the page, 0 to 63.
    pub line: u32,
    /// Read or write.
    pub kind: Kind,
    /// Instructions before it.
    pub instructions: u32,
}

/// Where a guest's accesses come from.
pub trait GuestStream {
    /// The next access; never ends.
    fn next_access(&mut self) -> Access;

    /// What went wrong at the source while it was read, if anything.
    fn fault(&self) -> Option<String> {
        None
    }
}

/// How often something happens, on average.
///
/// What a guest's progress paces happens equally often under every policy, and at the same places of the guest's
/// work: reclaims that come due while one is under way are made after it, and the run ends when all are made. What
/// the clock paces happens more often in a run that is slower.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Pace {
    /// Never.
    #[default]
    Never,
    /// By the clock: cycles.
    Cycles(u64),
    /// By progress: accesses that guests have made.
    Accesses(u64),
}

/// When something happens: at a time, or at a place of a vCPU's own progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// A time in cycles.
    Cycles(u64),
    /// When the vCPU has made so many accesses.
    Accesses(u64),
}

/// From when on a vCPU is on which pCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    /// When; of the first one it does not matter.
    pub at: Point,
    /// Where.
    pub pcpu: PcpuId,
}

/// Who decides where vCPUs run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Scheduler {
    /// Each vCPU takes any free pCPU that it may have, and moves as its VM's [`Plan::migrate`] says; one that may have
    /// one only is pinned.
    #[default]
    Floating,
    /// A fair scheduler with balancing, as the kernel's.
    Fair {
        /// Cycles that a vCPU may have a pCPU while another waits for it.
        slice: u64,
    },
    /// A recorded schedule, by task; each vCPU's placements in order.
    Recorded(Vec<Vec<Placement>>),
}

/// A device that reads and writes buffers of the host by DMA, one page after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceLoad {
    /// The first line of its buffers, beyond the machine's pages.
    pub first_line: u32,
    /// Pages of 64 lines that it goes round.
    pub pages: u32,
    /// Thousandths of a cycle that a page takes at its bandwidth.
    pub page_milli: u64,
    /// Of a hundred pages, how many it writes; it reads the others.
    pub write_percent: u64,
}

/// What a timed run does beside the machine's own description.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Root of every random stream.
    pub seed: u64,
    /// Accesses that each vCPU makes before it halts, by VM.
    pub accesses: Vec<u64>,
    /// Guest frames of each VM.
    pub guest_pages: Vec<u32>,
    /// From one reclaim to the next, for each reclaimer in the order of the tasks; the first comes after half of
    /// it. Accesses are those of all vCPUs of its VM.
    pub reclaim: Vec<Pace>,
    /// From one move of a vCPU to another of its pCPUs to the next, by VM. Accesses are the vCPU's own.
    pub migrate: Vec<Pace>,
    /// Pages that each reclaimer takes in a row, each time that one comes due; at least 1.
    pub burst: Vec<u64>,
    /// Who decides where vCPUs run.
    pub scheduler: Scheduler,
    /// Devices that load the fabric and the DRAM.
    pub devices: Vec<DeviceLoad>,
    /// Of a hundred freed pages, how many go to a device; the others go to the host.
    pub device_percent: u64,
    /// Cycles from a page's release to its new owner's first write.
    pub reuse_after: u64,
    /// Whether each step is recorded, for the check against the explorer's machine.
    pub record: bool,
}

/// One entry of a recorded run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Recorded {
    /// A step, with what it was, its events, and a digest of the slots after it.
    Step {
        /// Who, and which choices.
        step: ScheduledStep,
        /// What it was.
        what: What,
        /// Events judged.
        events: Vec<Event>,
        /// The slots after it.
        slots: Vec<i64>,
        /// A digest of the lines' copies after it.
        copies: u64,
        /// The actor's own count of its steps, from 1.
        count: u32,
        /// Moves of copies since the step before.
        moves: u32,
    },
    /// A move of a copy that the caches made on their own.
    Move(Move, Vec<Event>),
}

/// Why a timed run stopped before its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TimedError {
    /// Nobody can go on, and a vCPU has not finished.
    Deadlock {
        /// When, in cycles.
        at: u64,
        /// Who waits for what.
        waiting: String,
    },
    /// A text loops without an access.
    Runaway(Pc),
    /// The books do not balance: an error of this program.
    Unbalanced(String),
    /// A guest's source failed.
    Source(String),
    /// The guests hardly get on, or not at all.
    Starved {
        /// When the run was given up, in cycles.
        at: u64,
        /// When a guest last made an access, in cycles.
        since: u64,
        /// Accesses made.
        accesses: u64,
        /// Accesses to be made.
        of: u64,
    },
}

/// A run that has ended.
#[derive(Debug)]
pub struct Finished {
    /// What it counted.
    pub outcome: Outcome,
    /// Its steps, if they were recorded.
    pub recorded: Vec<Recorded>,
    /// The caches as they were left.
    pub memory: TimedMemory,
}
