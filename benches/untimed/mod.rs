//! What the timed caches are compared with: an untimed simulator of the same geometry, and the accesses.
//!
//! The simulator keeps tags and MOESI states only: sixteen cores with 32 KiB of L1D (8 ways) and 512 KiB of L2 (8
//! ways, inclusive), over 32 MiB of inclusive L3 (16 ways) that is their directory; LRU by moving to the front. It
//! shares no code with `cache-model`.
#![allow(clippy::float_arithmetic, reason = "the chances of a workload, not of the model")]
#![allow(dead_code, reason = "a bench and a test use different halves of it")]

use bytemuck::{Pod, Zeroable};
use memmap2::MmapMut;
use sev_arch::{Access, CoreId, Tag};
use wide::i32x4;

use cache_model::hierarchy::{LineRef, Stats, Step};

/// Cores of the comparison.
pub(crate) const CORES: usize = 16;
const L1_SETS: u32 = 64;
const L2_SETS: u32 = 1024;
const L3_SETS: u32 = 32_768;

/// One access: a line of memory (64 bytes), a core, whether it writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct One {
    pub(crate) line: u32,
    pub(crate) core: u16,
    pub(crate) write: bool,
}

impl One {
    /// The same access for the timed caches, by a guest.
    pub(crate) fn step(self) -> Step {
        let access = if self.write { Access::Write } else { Access::Read };
        Step::new(CoreId(self.core), LineRef { phys: self.line, tag: Tag(1) }, access)
    }

    pub(crate) fn of(step: Step) -> One {
        let write = step.access() == Access::Write;
        One { line: step.line().phys, core: step.core().0, write }
    }
}

/// Each core's accesses.
pub(crate) fn by_core(all: &[One]) -> Vec<Vec<Step>> {
    let mut programs = vec![Vec::new(); CORES];
    for one in all {
        programs[usize::from(one.core)].push(one.step());
    }
    programs
}

/// What both must agree on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) l1_misses: u64,
    pub(crate) l2_misses: u64,
    pub(crate) l3_misses: u64,
    /// Private copies invalidated, by stores of others or because the L3 ran out of room.
    pub(crate) invalidated: u64,
    pub(crate) written_back: u64,
}

impl Counts {
    /// Those of the timed caches.
    pub(crate) fn of(stats: &Stats) -> Counts {
        Counts {
            l1_misses: stats.l1_misses(),
            l2_misses: stats.l2_misses(),
            l3_misses: stats.dram_reads(),
            invalidated: stats.invalidated_private.iter().sum(),
            written_back: stats.written_back.iter().sum(),
        }
    }
}

/// The rights of a private copy, in the low bits of its word. A word of 0 is no copy: line 0 is never used.
const SHARED: u32 = 0;
const EXCLUSIVE: u32 = 1;
const MODIFIED: u32 = 2;

/// A directory word: the cores in the low half, the owner's number and one above them, dirty on top.
const DIRTY: u32 = 1 << 31;
const SHARERS: u32 = 0xFFFF;

fn owned_by(core: u32) -> u32 {
    (core + 1) << 16 | 1 << core
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
struct Private([u32; 8]);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Shared {
    lines: [u32; 16],
    words: [u32; 16],
}

/// The place of the first word equal to this one, all compared at once; `W` if there is none.
#[inline(always)]
fn position<const W: usize>(words: &[u32; W], shift: u32, wanted: u32) -> usize {
    let wanted = i32x4::splat(wanted.cast_signed());
    let mut mask = 1 << W;
    for (i, four) in words.as_chunks::<4>().0.iter().enumerate() {
        let four: i32x4 = bytemuck::cast(*four);
        mask |= (four >> shift).simd_eq(wanted).to_bitmask() << (4 * i);
    }
    mask.trailing_zeros() as usize
}

/// Puts a word first, in the place of the one at `way`.
#[inline(always)]
fn to_front<const W: usize>(words: &mut [u32; W], way: usize, word: u32) {
    let before = *words;
    *words = std::array::from_fn(|i| {
        let shifted = if i == 0 { word } else { before[i - 1] };
        if i <= way { shifted } else { before[i] }
    });
}

impl Private {
    #[inline(always)]
    fn find(&self, line: u32) -> Option<usize> {
        let way = position(&self.0, 2, line);
        (way < 8).then_some(way)
    }

    /// Removes a line; its word, or 0.
    fn take(&mut self, line: u32) -> u32 {
        let Some(way) = self.find(line) else { return 0 };
        let word = self.0[way];
        self.0.copy_within(way + 1.., way);
        self.0[7] = 0;
        word
    }
}

/// A zeroed table in huge pages, as the timed caches have. Lives as long as the program.
fn table<T: Pod>(len: u32) -> &'static mut [T] {
    const HUGE: usize = 2 << 20;
    let bytes = (len as usize * size_of::<T>()).next_multiple_of(HUGE);
    let map = MmapMut::map_anon(bytes + HUGE).unwrap_or_else(|e| panic!("no room for a table: {e}"));
    let start = map.as_ptr().align_offset(HUGE);
    #[cfg(target_os = "linux")]
    let _ = map.advise_range(memmap2::Advice::HugePage, start, bytes);
    let map = Box::leak(Box::new(map));
    &mut bytemuck::cast_slice_mut(&mut map[start..start + bytes])[..len as usize]
}

/// The untimed simulator.
pub(crate) struct Untimed {
    l1: &'static mut [Private],
    l2: &'static mut [Private],
    l3: &'static mut [Shared],
    counts: Counts,
}

fn at1(core: u32, line: u32) -> usize {
    (core * L1_SETS + line % L1_SETS) as usize
}

fn at2(core: u32, line: u32) -> usize {
    (core * L2_SETS + line % L2_SETS) as usize
}

fn dirty(word: u32) -> bool {
    word & 3 == MODIFIED
}

impl Untimed {
    pub(crate) fn new() -> Untimed {
        let cores = CORES as u32;
        Untimed {
            l1: table(cores * L1_SETS),
            l2: table(cores * L2_SETS),
            l3: table(L3_SETS),
            counts: Counts::default(),
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn run(&mut self, accesses: &[One]) {
        for one in accesses {
            self.access(u32::from(one.core), one.line, one.write);
        }
    }

    #[inline(always)]
    fn access(&mut self, core: u32, line: u32, write: bool) {
        let set = &mut self.l1[at1(core, line)];
        let Some(way) = set.find(line) else { return self.miss(core, line, write) };
        let word = set.0[way];
        if !write || dirty(word) {
            if way != 0 {
                to_front(&mut set.0, way, word);
            }
            return;
        }
        if word & 3 == SHARED {
            self.upgrade(core, line);
        }
        to_front(&mut self.l1[at1(core, line)].0, way, line << 2 | MODIFIED);
    }

    #[inline(always)]
    fn l3_way(&mut self, line: u32) -> (&mut Shared, Option<usize>) {
        let set = &mut self.l3[(line % L3_SETS) as usize];
        let way = position(&set.lines, 0, line);
        (set, (way < 16).then_some(way))
    }

    /// Takes the private copies of these cores; whether one was dirty.
    fn invalidate(&mut self, line: u32, mut cores: u32) -> bool {
        let mut any = false;
        while cores != 0 {
            let core = cores.trailing_zeros();
            cores &= cores - 1;
            self.counts.invalidated += 1;
            any |= dirty(self.l1[at1(core, line)].take(line));
            any |= dirty(self.l2[at2(core, line)].take(line));
        }
        any
    }

    #[inline(never)]
    fn upgrade(&mut self, core: u32, line: u32) {
        let (set, Some(way)) = self.l3_way(line) else { unreachable!("the L3 is inclusive") };
        let word = set.words[way];
        let soiled = self.invalidate(line, word & SHARERS & !(1 << core));
        self.front_l3(line, way, word & DIRTY | u32::from(soiled) << 31 | owned_by(core));
    }

    #[inline(always)]
    fn front_l3(&mut self, line: u32, way: usize, word: u32) {
        let set = &mut self.l3[(line % L3_SETS) as usize];
        to_front(&mut set.lines, way, line);
        to_front(&mut set.words, way, word);
    }

    #[inline(never)]
    fn miss(&mut self, core: u32, line: u32, write: bool) {
        self.counts.l1_misses += 1;
        let at = at2(core, line);
        let right = if let Some(way) = self.l2[at].find(line) {
            let right = self.l2[at].0[way] & 3;
            if write && right == SHARED {
                self.upgrade(core, line);
            }
            let right = if write { MODIFIED } else { right };
            to_front(&mut self.l2[at].0, way, line << 2 | right);
            right
        } else {
            self.counts.l2_misses += 1;
            let right = self.fetch(core, line, write);
            let old = self.l2[at].0[7];
            if old != 0 {
                self.leave(core, old);
            }
            to_front(&mut self.l2[at].0, 7, line << 2 | right);
            right
        };
        let old = self.l1[at1(core, line)].0[7];
        if dirty(old) {
            let set = &mut self.l2[at2(core, old >> 2)];
            if let Some(way) = set.find(old >> 2) {
                set.0[way] = old;
            }
        }
        to_front(&mut self.l1[at1(core, line)].0, 7, line << 2 | right);
    }

    /// A line leaves a core's private caches.
    fn leave(&mut self, core: u32, word: u32) {
        let line = word >> 2;
        let soiled = dirty(word) | dirty(self.l1[at1(core, line)].take(line));
        let (set, Some(way)) = self.l3_way(line) else { unreachable!("the L3 is inclusive") };
        let mut word = set.words[way] & !(1 << core);
        if word >> 16 & 31 == core + 1 {
            word &= !(31 << 16);
        }
        set.words[way] = word | u32::from(soiled) << 31;
    }

    #[inline(always)]
    fn fetch(&mut self, core: u32, line: u32, write: bool) -> u32 {
        let (set, way) = self.l3_way(line);
        let Some(way) = way else {
            let (old, word) = (set.lines[15], set.words[15]);
            self.counts.l3_misses += 1;
            if old != 0 {
                let soiled = self.invalidate(old, word & SHARERS);
                self.counts.written_back += u64::from(soiled || word & DIRTY != 0);
            }
            self.front_l3(line, 15, owned_by(core));
            return if write { MODIFIED } else { EXCLUSIVE };
        };
        let word = set.words[way];
        let others = word & SHARERS & !(1 << core);
        let mut keep = word & DIRTY;
        if write {
            keep |= u32::from(self.invalidate(line, others)) << 31;
            self.front_l3(line, way, keep | owned_by(core));
            return MODIFIED;
        }
        let owner = word >> 16 & 31;
        if owner != 0 && owner != core + 1 {
            // its dirty data is put down in the L3; it keeps a copy to read
            for set in [&mut self.l1[at1(owner - 1, line)], &mut self.l2[at2(owner - 1, line)]] {
                if let Some(way) = set.find(line) {
                    keep |= u32::from(dirty(set.0[way])) << 31;
                    set.0[way] = line << 2 | SHARED;
                }
            }
        }
        if others == 0 {
            self.front_l3(line, way, keep | owned_by(core));
            EXCLUSIVE
        } else {
            self.front_l3(line, way, keep | others | 1 << core);
            SHARED
        }
    }
}

/// The workloads: what sixteen cores do, in turn, an access each, in 8-byte words of 64-byte lines.
///
/// * `uniform`: all over one shared region of 64 MiB, 30 % writes
/// * `private`: each all over its own 4 MiB, 30 % writes
/// * `zipf`: 70 % in the own 4 MiB, the rest in the shared region, Zipf (0.99) over scattered lines, 30 % writes
/// * `local`: 90 % in 16 KiB and 9 % in 256 KiB of its own, 1 % in the shared region, 30 % writes
/// * `stream`: each walks through its own 4 MiB word by word, every third access is a write
/// * `pingpong`: 64 shared lines, half of the accesses are writes
pub(crate) const WORKLOADS: [&str; 6] = ["uniform", "private", "zipf", "local", "stream", "pingpong"];

const REGION: u32 = 1 << 20;
const SLICE: u32 = REGION / CORES as u32;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u32
    }
}

/// The chance of each rank and all before it, as a 64-bit fraction.
fn zipf(n: u32) -> Vec<u64> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=n)
        .map(|rank| {
            sum += f64::from(rank).powf(-0.99);
            sum
        })
        .collect();
    sums.iter().map(|s| (s / sum * u64::MAX as f64) as u64).collect()
}

/// A line by its rank, the ranks scattered over `n` lines.
fn ranked(chances: &[u64], random: &mut Random) -> u32 {
    let at = random.next();
    let rank = chances.partition_point(|c| *c < at).min(chances.len() - 1) as u32;
    rank.wrapping_mul(0x9E37_79B1) % chances.len() as u32
}

/// The first accesses of a workload.
pub(crate) fn accesses(workload: &str, count: usize) -> Vec<One> {
    let mut random = Random(42);
    let (all, own) = if workload == "zipf" { (zipf(REGION), zipf(SLICE)) } else { (Vec::new(), Vec::new()) };
    (0..count)
        .map(|i| {
            let core = (i % CORES) as u32;
            let private = 2 * REGION + core * SLICE;
            let turn = (i / CORES) as u32;
            let r = &mut random;
            let line = match workload {
                "uniform" => REGION + r.below(REGION),
                "private" => private + r.below(SLICE),
                "zipf" if r.below(10) < 7 => private + ranked(&own, r),
                "zipf" => REGION + ranked(&all, r),
                "local" => match r.below(100) {
                    0..90 => private + r.below(256),
                    90..99 => private + r.below(4096),
                    _ => REGION + r.below(REGION),
                },
                "stream" => private + turn / 8 % SLICE,
                _ => REGION + r.below(64),
            };
            let write = match workload {
                "stream" => turn % 3 == 2,
                "pingpong" => r.below(10) < 5,
                _ => r.below(10) < 3,
            };
            One { line, core: core as u16, write }
        })
        .collect()
}
