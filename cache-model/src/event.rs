//! The events a verdict is made of: each kind defined once, with its reason.

use sev_arch::Tag;

/// What went wrong. The wording of each kind is its definition; `docs/MODEL.md` has the sources.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EventKind {
    /// A page was freed or handed on while a dirty line of it under the old owner's tag was still in a cache
    /// or on its way out, and some access possible in the assumed world is not coherent with that tag.
    /// It needs no later luck, so it is the safety property.
    Latent,
    /// Such a line was written back over newer data of the new owner.
    Clobber,
    /// The reverse: a dirty host line was written back over data stored under C=1.
    HostDirty,
    /// A reader hit a valid line, or read memory, that is older than the truth.
    Stale,
    /// A reader decrypted under another key than the writer's.
    Garbage,
    /// A VM read another VM's plaintext.
    Leak,
    /// The bookkeeping broke: null mask, use after free, double free, a lock given back by who does not hold it.
    Tracking,
    /// The firmware refused DF_FLUSH or ACTIVATE.
    Firmware,
    /// SNP stopped the access: loud, not corruption.
    RmpFault,
    /// Nobody can go on, and somebody has not finished.
    Deadlock,
    /// A sleeping lock was taken with preemption or interrupts off.
    SleepInAtomic,
    /// A flusher that may not sleep slept.
    SleepNonBlockable,
    /// A task can never end any more, whatever the order of steps: it spins, or waits for what never comes, though others
    /// may go on.
    HungTask,
}

impl EventKind {
    /// Every kind, in the order in which reports list them.
    pub const ALL: [EventKind; 13] = [
        EventKind::Latent,
        EventKind::Clobber,
        EventKind::HostDirty,
        EventKind::Stale,
        EventKind::Garbage,
        EventKind::Leak,
        EventKind::Tracking,
        EventKind::Firmware,
        EventKind::RmpFault,
        EventKind::Deadlock,
        EventKind::SleepInAtomic,
        EventKind::SleepNonBlockable,
        EventKind::HungTask,
    ];

    /// The name used on the command line, in litmus files and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            EventKind::Latent => "latent",
            EventKind::Clobber => "clobber",
            EventKind::HostDirty => "host-dirty",
            EventKind::Stale => "stale",
            EventKind::Garbage => "garbage",
            EventKind::Leak => "leak",
            EventKind::Tracking => "tracking",
            EventKind::Firmware => "firmware",
            EventKind::RmpFault => "rmp-fault",
            EventKind::Deadlock => "deadlock",
            EventKind::SleepInAtomic => "sleep-in-atomic",
            EventKind::SleepNonBlockable => "sleep-non-blockable",
            EventKind::HungTask => "hung-task",
        }
    }

    /// The kind of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<EventKind> {
        EventKind::ALL.into_iter().find(|k| k.name() == name)
    }

    /// One sentence for reports.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            EventKind::Latent => {
                "the page changed hands while a dirty line of its old owner was still in a cache"
            }
            EventKind::Clobber => "the old owner's dirty line was written back over the new owner's data",
            EventKind::HostDirty => "a dirty host line was written back over data stored under C=1",
            EventKind::Stale => "a reader got data older than the truth",
            EventKind::Garbage => "a reader decrypted under another key than the writer's",
            EventKind::Leak => "a VM read another VM's plaintext",
            EventKind::Tracking => "the bookkeeping broke",
            EventKind::Firmware => "the firmware refused",
            EventKind::RmpFault => "the RMP check stopped the access",
            EventKind::Deadlock => "nobody can go on, and somebody has not finished",
            EventKind::SleepInAtomic => "a sleeping lock was taken with preemption or interrupts off",
            EventKind::SleepNonBlockable => "a flusher that may not sleep slept",
            EventKind::HungTask => "a task can never end any more",
        }
    }
}

/// Whose loss an event is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Victim {
    /// The host: its kernel, or whoever owns the memory next.
    #[default]
    Host,
    /// A VM: its data, or what it reads.
    Vm,
    /// The VMM that did it to itself: memory that it uses on its own, damaged by its own guest
    /// (20231110003734.1014084-2: a region that is unregistered without a write-back; a VMM that pulls memory from under
    /// its own running guest). Nobody else is hurt.
    Myself,
}

impl Victim {
    /// The name used in stories and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Victim::Host => "host",
            Victim::Vm => "vm",
            Victim::Myself => "self",
        }
    }
}

/// Something that went wrong, and where.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// The line, if it is about one (line number in the model).
    pub line: Option<u32>,
    /// The tag of the copy that did it, if it is about one.
    pub tag: Option<Tag>,
    /// Whose loss it is. Who judges from lines alone says the host; the machine, which knows the page's owner, says
    /// better.
    pub victim: Victim,
}

impl Event {
    /// An event that is about no line.
    #[must_use]
    pub const fn plain(kind: EventKind) -> Event {
        Event { kind, line: None, tag: None, victim: Victim::Host }
    }

    /// An event about a copy of a line.
    #[must_use]
    pub const fn at(kind: EventKind, line: u32, tag: Tag) -> Event {
        Event { kind, line: Some(line), tag: Some(tag), victim: Victim::Host }
    }
}
