//! What a timed run is given, beside the machine, and what it comes to.

use cache_model::event::Event;
use cache_model::lattice::Move;
use sev_arch::Access as Kind;
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

/// What a timed run does beside the machine's own description.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Root of every random stream.
    pub seed: u64,
    /// Accesses that each vCPU makes before it halts.
    pub accesses: u64,
    /// Guest frames of each VM.
    pub guest_pages: Vec<u32>,
    /// Cycles between two reclaims of a reclaimer, on average; the first after half of it. 0: none.
    pub reclaim_every: u64,
    /// Cycles after which a vCPU moves to another of its pCPUs, on average. 0: never.
    pub migrate_every: u64,
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
    /// A guest's source failed.
    Source(String),
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
