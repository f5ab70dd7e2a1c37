//! What the timed caches are asked and what they answer.

use sev_arch::{Access, CcxId, CoreId, Tag};

use super::directory::{PHYS_BITS, PHYS_LIMIT};

/// A line as a cache names it: address and tag.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LineRef {
    /// The line of simulated memory: frame x 64 + line in the page. Below [`LineRef::PHYS_LIMIT`].
    pub phys: u32,
    /// The tag. Below [`LineRef::TAG_LIMIT`].
    pub tag: Tag,
}

impl LineRef {
    /// Lines of memory that can be named: 2^26, that is 4 GiB.
    pub const PHYS_LIMIT: u32 = PHYS_LIMIT;
    /// Tags that can be named: the host's and 63 guests'.
    pub const TAG_LIMIT: u8 = 64;

    /// As one word: the tag above the address.
    #[inline(always)]
    pub(super) fn key(self) -> u32 {
        assert!(
            self.phys < Self::PHYS_LIMIT && self.tag.0 < Self::TAG_LIMIT,
            "line {} under {:?} is beyond 4 GiB or 64 tags",
            self.phys,
            self.tag
        );
        u32::from(self.tag.0) << PHYS_BITS | self.phys
    }

    pub(super) fn of_key(key: u32) -> LineRef {
        let tag = u8::try_from(key >> PHYS_BITS).unwrap_or(u8::MAX);
        LineRef { phys: key & (PHYS_LIMIT - 1), tag: Tag(tag) }
    }
}

/// Where the data of an access came from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Source {
    /// The core's own L1D.
    L1,
    /// The core's own L2.
    L2,
    /// The L3 of its CCX; also the right to write a line that nobody else turned out to hold.
    L3,
    /// A private cache of its CCX.
    OtherCoreSameCcx,
    /// A cache of another CCX of its socket.
    OtherCcx,
    /// A cache of the other socket.
    OtherSocket,
    /// DRAM of its socket.
    DramLocal,
    /// DRAM of the other socket.
    DramRemote,
}

impl Source {
    /// Every source, nearest first.
    pub const ALL: [Source; 8] = [
        Source::L1,
        Source::L2,
        Source::L3,
        Source::OtherCoreSameCcx,
        Source::OtherCcx,
        Source::OtherSocket,
        Source::DramLocal,
        Source::DramRemote,
    ];
}

/// An access of a batch, see [`super::Hierarchy::in_turn`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    pub(super) key: u32,
    pub(super) core: u16,
    pub(super) write: bool,
}

impl Step {
    /// An access by a core.
    #[must_use]
    pub fn new(core: CoreId, line: LineRef, access: Access) -> Step {
        Step { key: line.key(), core: core.0, write: access == Access::Write }
    }

    /// The core.
    #[must_use]
    pub fn core(self) -> CoreId {
        CoreId(self.core)
    }

    /// The line.
    #[must_use]
    pub fn line(self) -> LineRef {
        LineRef::of_key(self.key)
    }

    /// Read or write.
    #[inline(always)]
    #[must_use]
    pub fn access(self) -> Access {
        if self.write { Access::Write } else { Access::Read }
    }
}

/// An access that was carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Served {
    /// Cycles of the core clock until the data is there (and others' copies gone, for a store).
    pub cycles: u32,
    /// Where the data came from; for a store to a line that was held read-only, the farthest copy taken away.
    pub source: Source,
}

/// What a flush of a cache, or of several, did: the part of its cost that depends on their content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlushWork {
    /// Lines of capacity whose tags were walked (the private part walks the L2: it includes the L1).
    pub lines_walked: u64,
    /// Dirty lines written back, by the socket of their memory.
    pub written_back: [u64; 2],
    /// Lines invalidated.
    pub invalidated: u64,
    /// The tags of the lines written back, one bit each.
    pub tags: u64,
}

impl FlushWork {
    /// Dirty lines written back, in all.
    #[must_use]
    pub fn lines_written_back(&self) -> u64 {
        self.written_back.iter().sum()
    }

    /// Adds another cache's work.
    pub fn add(&mut self, other: &FlushWork) {
        self.lines_walked += other.lines_walked;
        for (sum, n) in self.written_back.iter_mut().zip(other.written_back) {
            *sum += n;
        }
        self.invalidated += other.invalidated;
        self.tags |= other.tags;
    }
}

/// What a CLFLUSH found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Found {
    /// No cache held the line.
    Absent,
    /// Clean copies only.
    Clean,
    /// A copy that had to be written back.
    Dirty,
}

/// Where the dirty lines of one tag are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DirtyHolders {
    /// Cores whose private caches hold dirty lines, and how many, in order.
    pub cores: Vec<(CoreId, u64)>,
    /// CCXs whose L3 holds dirty lines, and how many, in order.
    pub l3s: Vec<(CcxId, u64)>,
}

/// Why a line was written back or invalidated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cause {
    /// Room was needed.
    Eviction,
    /// WBINVD, WBNOINVD or CLFLUSH.
    Flush,
    /// Another core's store, another tag's access on an SME_COHERENT part, or DMA.
    Coherence,
}

/// Counts since the caches were made. Hits in the L1 are not counted: they take no shared path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Accesses that missed the L1 and hit the own L2.
    pub l2_hits: u64,
    /// Accesses that missed the own L2, by source (indexed by [`Source`]; the first two are 0).
    pub misses: [u64; 8],
    /// Stores to lines held without the right to write.
    pub upgrades: u64,
    /// Those of them whose line the L2 held and the L1 did not.
    pub upgrades_in_l2: u64,
    /// Misses of lines that a flush had taken out of the core's L2 or its CCX's L3.
    pub refill_misses: u64,
    /// Lines written to DRAM, by cause (indexed by [`Cause`]).
    pub written_back: [u64; 3],
    /// Private copies invalidated, by cause. Eviction: an inclusive L3 ran out of room.
    pub invalidated_private: [u64; 3],
    /// L3 copies invalidated, by cause; moves to a requester and evictions are not invalidations.
    pub invalidated_l3: [u64; 3],
    /// Bytes written to DRAM, DMA included.
    pub dram_bytes_written: u64,
    /// Bytes read from DRAM, DMA included.
    pub dram_bytes_read: u64,
}

impl Stats {
    /// Accesses that missed the own L1.
    #[must_use]
    pub fn l1_misses(&self) -> u64 {
        self.l2_hits + self.upgrades_in_l2 + self.l2_misses()
    }

    /// Accesses that missed the own L2.
    #[must_use]
    pub fn l2_misses(&self) -> u64 {
        self.misses.iter().sum()
    }

    /// Accesses that went to DRAM.
    #[must_use]
    pub fn dram_reads(&self) -> u64 {
        self.misses[Source::DramLocal as usize] + self.misses[Source::DramRemote as usize]
    }
}
