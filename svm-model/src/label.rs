//! The one alphabet of steps: what an actor did. Stories, traces and replay are made of labels.

use cache_model::event::Event;
use cache_model::lattice::Move;
use sev_arch::{Access, PcpuId};
use sim_core::state::SlotId;
use svm_policy::Pc;

use crate::firmware::Status;

/// Who makes a step.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Actor {
    /// A task or device goes on, or gets a pCPU.
    Task(u16),
    /// The scheduler takes the pCPU away from a task.
    Preempt(u16),
    /// A pCPU takes an IPI, or goes on in its handler.
    Irq(u16),
    /// A pCPU's oldest store that others do not see yet reaches memory (TSO).
    Buffer(u16),
    /// The caches move a copy of a line.
    Cache,
    /// A freed page gets a new owner, who writes it, then reads it.
    World,
}

/// What becomes of a freed page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NewOwner {
    /// The host; its CPU accesses the page.
    Host(PcpuId),
    /// A device.
    Device,
    /// The VM that had it.
    Vm,
}

/// What a step was.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum What {
    /// The access of a statement of the texts.
    Text {
        /// Which operation.
        pc: Pc,
    },
    /// The guest accessed a line.
    Guest {
        /// The line.
        line: u32,
        /// Read or write.
        access: Access,
        /// Through a C=0 mapping, whatever the page is.
        plain: bool,
        /// The statement of its program, if it has one.
        pc: Option<Pc>,
    },
    /// The guest met a page that is not mapped: #VMEXIT with a nested page fault.
    Fault {
        /// The page.
        page: u32,
    },
    /// #VMEXIT for an interrupt.
    Exit,
    /// The guest has finished: #VMEXIT for HLT.
    Halted,
    /// A reclaimer began on a page.
    Started {
        /// The page.
        page: u32,
    },
    /// The task got a pCPU.
    Placed {
        /// Which.
        pcpu: PcpuId,
    },
    /// The task lost its pCPU, or began to.
    Preempted,
    /// The pCPU took the IPI of a sender and entered the handler.
    Take {
        /// The task that sent it.
        sender: u16,
        /// The function it asked for.
        callback: u16,
    },
    /// A store left a pCPU's store buffer: all see it from here on.
    Drained {
        /// Whose buffer.
        pcpu: u16,
        /// The slot that was written.
        slot: SlotId,
    },
    /// A copy of a line moved.
    Move(Move),
    /// A freed page's new owner wrote it, or read it back.
    Reuse {
        /// The page.
        page: u32,
        /// The owner.
        by: NewOwner,
        /// Write first, read later.
        access: Access,
    },
}

/// How the bookkeeping broke (event `tracking`), and of what: the slot that says whether a mask or an object is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    /// A mask was used that is `NULL`.
    MaskNull(SlotId),
    /// A mask was used that was freed.
    MaskFreed(SlotId),
    /// The structure that a mask is in was freed, and the mask not.
    MaskLeaked(SlotId),
    /// A mask was allocated that was there.
    MaskAllocatedTwice(SlotId),
    /// A mask was freed again.
    MaskFreedTwice(SlotId),
    /// The same of a local mask, by its index in [`svm_lang::Code::masks`]: used while it is `NULL`.
    LocalMaskNull(u16),
    /// A local mask was used that was freed.
    LocalMaskFreed(u16),
    /// The scope of a local mask ended, and it had not been freed.
    LocalMaskLeaked(u16),
    /// A local mask was allocated that was there.
    LocalMaskAllocatedTwice(u16),
    /// A local mask was freed again.
    LocalMaskFreedTwice(u16),
    /// A field was used of what is not allocated, or was freed.
    ObjectGone(SlotId),
    /// An object or a structure was freed again, or before it was allocated.
    ObjectFreedTwice(SlotId),
    /// An object is there that nothing refers to any more, and the last that used objects has ended.
    ObjectLeaked(SlotId),
    /// A null reference, a page or an element that does not exist.
    NoSuch,
    /// A pCPU that does not exist was to be called.
    NoPcpu,
    /// A bit of a mask was meant that no pCPU has.
    NoBit,
    /// A VM was given an ASID that does not exist.
    NoAsid,
    /// A free page was freed.
    PageFreedTwice(u32),
    /// A page was allocated that a VM has.
    PageTaken(u32),
    /// The VMM reused a page that no VM of its has.
    PageNotVms(u32),
    /// A lock was given back by who does not hold it.
    NotHeld,
    /// Preemption was turned on where it was not off.
    NotOff,
    /// A context ended with interrupts or preemption off.
    LeftOff,
    /// A context ended that holds a lock.
    LeftHeld(SlotId),
    /// An assertion about a lock does not hold.
    LockAssertion,
    /// The condition of a `WARN_ON` holds.
    Warned,
    /// A reference count is, or became, 0 or less.
    Count,
    /// Interrupts are not off, or not on, as asserted.
    Irqs,
}

/// What one step did, for whoever records it.
#[derive(Debug, Default)]
pub struct Notes {
    /// What it was.
    pub what: Option<What>,
    /// Events judged.
    pub events: Vec<Event>,
    /// How the bookkeeping broke first, if it did, and at which operation of the texts.
    pub broken: Option<(Broken, Option<Pc>)>,
    /// Cycles that memory took, where time is kept.
    pub cycles: u64,
    /// Whether the step is asked for its twins.
    pub(crate) wants_twins: bool,
    /// The bits of the twins that the step is one of.
    pub(crate) twins: u8,
    /// The policy's writeback began (true) or ended (false).
    pub writeback: Option<bool>,
    /// The moves that the caches could choose from; kept for its memory.
    pub(crate) moves: Vec<Move>,
    /// What the firmware answered, if the step was a command to it.
    pub status: Option<Status>,
    /// A text that loops without an access: where.
    pub runaway: Option<Pc>,
    /// Whether a store waits for room in a full store buffer.
    pub(crate) full_buffer: bool,
}

impl Notes {
    /// Empties it for the next step.
    pub fn clear(&mut self) {
        self.what = None;
        self.events.clear();
        self.broken = None;
        self.cycles = 0;
        self.twins = 0;
        self.writeback = None;
        self.status = None;
        self.runaway = None;
        self.full_buffer = false;
    }
}
