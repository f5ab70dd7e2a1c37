//! Copies of a line, and what memory holds of it.

use sev_arch::{CcxId, CoreId, Tag};

/// Where a copy of a line can be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// A core's private caches (L1 and L2 as one).
    Private(CoreId),
    /// The L3 of a CCX.
    L3(CcxId),
    /// Evicted from the L3 of a CCX, not yet in DRAM.
    Flight(CcxId),
}

/// What a place holds of a line under one tag.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Held {
    /// Nothing.
    #[default]
    Absent,
    /// Valid, not the last copy (E or S).
    Clean,
    /// Valid, must be written back (M or O).
    Dirty,
}

/// A copy of a line under one tag in one place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Copy {
    /// Whether it is there, and whether it must be written back.
    pub held: Held,
    /// Whether it is older than the truth.
    pub old: bool,
    /// Whether it was older than the truth already when it got there: what a host that does not own the page read from
    /// memory or wrote, and not plaintext that the owner's first write has made old. Of the host's tag only: no other
    /// stranger's reads are judged.
    pub came_old: bool,
    /// Whether it is plaintext of a guest that had the tag's ASID before its key was replaced. Only where keys
    /// change ([`crate::lattice::Shape::keys_change`]).
    pub foreign: bool,
}

impl Copy {
    /// No copy.
    pub const ABSENT: Copy = Copy { held: Held::Absent, old: false, came_old: false, foreign: false };

    /// A copy of the tag's present guest.
    #[must_use]
    pub const fn new(held: Held, old: bool) -> Copy {
        Copy { held, old, came_old: false, foreign: false }
    }

    /// A copy that gets to a cache now.
    #[must_use]
    pub fn arriving(held: Held, old: bool, tag: Tag) -> Copy {
        Copy { came_old: old && tag == Tag::HOST, ..Copy::new(held, old) }
    }

    /// As a slot's value: 0 to 4; 5 and 6 for what came old, under the host's tag; 7 to 10 for a guest's before.
    #[must_use]
    pub const fn code(self) -> i64 {
        let own = match (self.held, self.old) {
            (Held::Absent, _) => return 0,
            (Held::Clean, false) => 1,
            (Held::Clean, true) => 2,
            (Held::Dirty, false) => 3,
            (Held::Dirty, true) => 4,
        };
        match (self.foreign, self.came_old, self.held) {
            (true, ..) => own + 6,
            (false, true, Held::Clean) => 5,
            (false, true, _) => 6,
            (false, false, _) => own,
        }
    }

    /// From a slot's value.
    #[must_use]
    pub const fn from_code(code: i64) -> Copy {
        let (held, old) = match code {
            1 | 7 => (Held::Clean, false),
            2 | 5 | 8 => (Held::Clean, true),
            3 | 9 => (Held::Dirty, false),
            4 | 6 | 10 => (Held::Dirty, true),
            _ => return Copy::ABSENT,
        };
        Copy { held, old, came_old: matches!(code, 5 | 6), foreign: code > 6 }
    }
}

/// Under which of a tag's keys DRAM holds a line, and whose data. Anything but [`Past::No`] only where keys change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Past {
    /// Under the key that the tag has now, and of whoever has the tag now.
    #[default]
    No,
    /// Under a key that the tag had before: garbage for everybody.
    Lost,
    /// Under the tag's present key, but plaintext of a guest that had the tag before: written back too late.
    Foreign,
}

/// What DRAM holds of a line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Dram {
    /// The tag whose key it is encrypted under.
    pub key: Tag,
    /// Whether it is older than the truth.
    pub old: bool,
    /// Whether the tag's key was replaced since.
    pub past: Past,
}

impl Dram {
    /// What DRAM is said to hold while there is no truth: nobody can tell, so one value stands for all.
    pub const UNTOLD: Dram = Dram::new(Tag::HOST, false);

    /// Data under the present key of a tag.
    #[must_use]
    pub const fn new(key: Tag, old: bool) -> Dram {
        Dram { key, old, past: Past::No }
    }

    /// The key and its past as a slot's value, of a model with so many tags; below `tags` where no key changes.
    #[must_use]
    pub fn code(self, tags: u8) -> i64 {
        let past = match self.past {
            Past::No => 0,
            Past::Lost => 1,
            Past::Foreign => 2,
        };
        i64::from(self.key.0) + past * i64::from(tags)
    }

    /// From such a value.
    #[must_use]
    pub fn from_code(code: i64, tags: u8, old: bool) -> Dram {
        let tags = i64::from(tags.max(1));
        let past = match code / tags {
            1 => Past::Lost,
            2 => Past::Foreign,
            _ => Past::No,
        };
        Dram { key: Tag(u8::try_from(code % tags).unwrap_or(0)), old, past }
    }
}
