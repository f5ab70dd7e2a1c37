//! Synthetic guests: each pattern gives accesses for ever, from integers and a random stream of its own.

use std::sync::Arc;

use super::random::{Chance, RandomStream};
use super::zipf::ZipfTable;
use super::{GuestAccess, LINES_PER_PAGE};

/// What every pattern has: where it lies, how often it writes, and how much it computes in between.
#[derive(Clone, Debug)]
pub struct Manner {
    /// The guest line at which its memory begins.
    pub first_line: u32,
    /// How often an access is a write.
    pub write: Chance,
    /// Instructions executed before each access.
    pub instructions: u32,
    /// The random numbers.
    pub random: RandomStream,
}

impl Manner {
    #[inline]
    fn access(&self, line: u32, write_bits: u32) -> GuestAccess {
        GuestAccess {
            line: self.first_line + line,
            write: self.write.hits(write_bits),
            instructions: self.instructions,
        }
    }
}

/// Every line equally likely.
#[derive(Clone, Debug)]
pub struct Uniform {
    manner: Manner,
    lines: u32,
}

impl Uniform {
    /// Over `pages` pages.
    #[must_use]
    pub fn new(manner: Manner, pages: u32) -> Uniform {
        Uniform { manner, lines: pages * LINES_PER_PAGE }
    }

    /// The next access.
    #[inline]
    pub fn next_access(&mut self) -> GuestAccess {
        let (line, bits) = self.manner.random.below_and_bits(self.lines);
        self.manner.access(line, bits)
    }
}

/// Pages drawn by Zipf's law, lines within a page equally likely.
#[derive(Clone, Debug)]
pub struct Zipf {
    manner: Manner,
    table: Arc<ZipfTable>,
    /// The page of each rank: popular pages are not neighbours.
    page_of_rank: Arc<[u32]>,
}

impl Zipf {
    /// Over as many pages as `table` has ranks; `page_of_rank` must be as long.
    #[must_use]
    pub fn new(manner: Manner, table: Arc<ZipfTable>, page_of_rank: Arc<[u32]>) -> Zipf {
        assert_eq!(table.ranks() as usize, page_of_rank.len(), "a page for each rank");
        Zipf { manner, table, page_of_rank }
    }

    /// The next access.
    #[inline]
    pub fn next_access(&mut self) -> GuestAccess {
        let (rank, bits) = self.table.draw(&mut self.manner.random);
        // The upper 6 bits choose among the 64 lines, the others decide about the write.
        let line = self.page_of_rank[rank as usize] * LINES_PER_PAGE + (bits >> 26);
        self.manner.access(line, bits << 6)
    }
}

/// One line after the other, again and again.
#[derive(Clone, Debug)]
pub struct Streaming {
    manner: Manner,
    lines: u32,
    stride: u32,
    at: u32,
    loops: u64,
}

impl Streaming {
    /// Over `pages` pages, every `stride`-th line.
    #[must_use]
    pub fn new(manner: Manner, pages: u32, stride: u32) -> Streaming {
        Streaming { manner, lines: pages * LINES_PER_PAGE, stride: stride.max(1), at: 0, loops: 0 }
    }

    /// The next access.
    #[inline]
    pub fn next_access(&mut self) -> GuestAccess {
        if self.at >= self.lines {
            self.at = 0;
            self.loops += 1;
        }
        let bits = (self.manner.random.bits() >> 32) as u32;
        let access = self.manner.access(self.at, bits);
        self.at += self.stride;
        access
    }

    /// How often it began again.
    #[must_use]
    pub fn loops(&self) -> u64 {
        self.loops
    }
}

/// A chain of pointers through every line, in an order that no prefetcher guesses.
#[derive(Clone, Debug)]
pub struct Chase {
    manner: Manner,
    /// The line that each line points to; one single cycle.
    next: Arc<[u32]>,
    start: u32,
    at: u32,
    loops: u64,
    begun: bool,
}

impl Chase {
    /// Along `next`, which must be one single cycle, from line `start` (taken modulo its length).
    #[must_use]
    pub fn new(manner: Manner, next: Arc<[u32]>, start: u32) -> Chase {
        assert!(!next.is_empty(), "a chain has at least one line");
        let start = start % u32::try_from(next.len()).unwrap_or(u32::MAX);
        Chase { manner, next, start, at: start, loops: 0, begun: false }
    }

    /// The next access.
    #[inline]
    pub fn next_access(&mut self) -> GuestAccess {
        self.loops += u64::from(self.begun && self.at == self.start);
        self.begun = true;
        let bits = (self.manner.random.bits() >> 32) as u32;
        let access = self.manner.access(self.at, bits);
        self.at = self.next[self.at as usize];
        access
    }

    /// How often it began again.
    #[must_use]
    pub fn loops(&self) -> u64 {
        self.loops
    }
}

/// A few lines that all vCPUs of a VM contend for: they bounce between the cores' caches.
#[derive(Clone, Debug)]
pub struct PingPong {
    manner: Manner,
    pages: u32,
    lines_per_page: u32,
    at: (u32, u32),
    loops: u64,
}

impl PingPong {
    /// Over the first `lines_per_page` lines of each of `pages` pages, in turn.
    #[must_use]
    pub fn new(manner: Manner, pages: u32, lines_per_page: u32) -> PingPong {
        let lines_per_page = lines_per_page.clamp(1, LINES_PER_PAGE);
        PingPong { manner, pages: pages.max(1), lines_per_page, at: (0, 0), loops: 0 }
    }

    /// The next access.
    #[inline]
    pub fn next_access(&mut self) -> GuestAccess {
        if self.at.0 >= self.pages {
            self.at.0 = 0;
            self.loops += 1;
        }
        let (page, line) = self.at;
        self.at = if line + 1 < self.lines_per_page { (page, line + 1) } else { (page + 1, 0) };
        let bits = (self.manner.random.bits() >> 32) as u32;
        self.manner.access(page * LINES_PER_PAGE + line, bits)
    }

    /// How often it began again.
    #[must_use]
    pub fn loops(&self) -> u64 {
        self.loops
    }
}
