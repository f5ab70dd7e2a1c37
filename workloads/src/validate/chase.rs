//! Pointer chases on the simulated caches, with a TLB before them.
//!
//! The timed run has no TLB: guests' pages are large there. A calibration's chase meets one, the more so in a VM, where a page
//! is 4 KiB to the hardware if the hypervisor has mapped it so; and then its lines spread over a cache's sets by chance.

use cache_model::hierarchy::{Hierarchy, LineRef};
use cache_model::part::{CacheShape, Level, Part, Replacement};
use sev_arch::{Access, CoreId, Tag};
use sim_core::random::Stream;

use super::{Experiment, Translation, picoseconds};

/// Loads of a simulated chase: after one pass over the working set, at least this many.
const LOADS: usize = 20_000;
/// Placements of the pages, of which the mean is taken.
const PLACES: u64 = 4;
/// Lines of the smallest page.
const PAGE_LINES: u64 = 64;
/// Lines of a page of 2 MiB.
const HUGE_LINES: u64 = 32_768;

/// What the translation of addresses costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tlb {
    /// Lines of a page.
    page_lines: u64,
    /// Pages whose translation costs nothing; the one used longest ago makes room.
    entries: usize,
    /// What any other page costs, in picoseconds.
    miss: u64,
}

impl Tlb {
    /// From a profile; one that says nothing of it means pages of 2 MiB.
    pub(super) fn of(found: Option<&Translation>) -> Result<Tlb, String> {
        let huge = Tlb { page_lines: HUGE_LINES, entries: usize::MAX, miss: 0 };
        let Some(found) = found else { return Ok(huge) };
        match (found.page.value.to_bits(), &found.entries, &found.miss) {
            (page, Some(entries), Some(miss)) if page == 4.0_f64.to_bits() => {
                // A number of things reads like a time: thousandths of it.
                let entries = picoseconds(entries.value)
                    .map_err(|_| "translation.entries: expected 1 or more".to_owned())?;
                let entries = usize::try_from(entries / 1000).unwrap_or(0).max(1);
                Ok(Tlb { page_lines: PAGE_LINES, entries, miss: picoseconds(miss.value)? })
            }
            (page, ..) if page == 2048.0_f64.to_bits() => Ok(huge),
            _ => {
                Err("translation: expected a page of 2048 KiB, or of 4 KiB with `entries` and `miss`"
                    .to_owned())
            }
        }
    }

    /// In words.
    pub(super) fn said(&self) -> String {
        if self.miss == 0 {
            return "pages of 2 MiB".to_owned();
        }
        let (ns, ps) = (self.miss / 1000, self.miss % 1000);
        format!(
            "pages of 4 KiB at random places, a TLB of {} pages and {ns}.{ps:03} ns for any other (measured)",
            self.entries
        )
    }
}

fn shuffle<T>(items: &mut [T], random: &mut Stream) {
    for last in (1..items.len()).rev() {
        let other = random.below(last as u64 + 1);
        items.swap(last, usize::try_from(other).unwrap_or(last));
    }
}

/// Lines of the memory that its pages are taken from: enough of it for chance, and no more than must be simulated.
fn memory_lines(kib: u64) -> u64 {
    (kib * 16 * 4).max(8 * HUGE_LINES).next_multiple_of(HUGE_LINES).min(u64::from(LineRef::PHYS_LIMIT))
}

/// The lines of a working set, each with its page, in the order of a chase.
fn order(kib: u64, page_lines: u64, place: u64) -> Vec<(u32, LineRef)> {
    let mut random = Stream::new(3, 1, place);
    let lines = kib * 16;
    let frames = memory_lines(kib) / page_lines;
    let mut taken = std::collections::BTreeSet::new();
    let mut frame = || {
        loop {
            let frame = random.below(frames);
            if taken.insert(frame) {
                return frame;
            }
        }
    };
    let pages: Vec<u64> = (0..lines.div_ceil(page_lines)).map(|_| frame()).collect();
    let line = |n: u64| {
        let page = n / page_lines;
        let phys =
            pages.get(usize::try_from(page).unwrap_or(0)).map_or(0, |f| f * page_lines + n % page_lines);
        let phys = u32::try_from(phys).unwrap_or(0);
        (u32::try_from(page).unwrap_or(0), LineRef { phys, tag: Tag::HOST })
    };
    let mut order: Vec<_> = (0..lines).map(line).collect();
    shuffle(&mut order, &mut random);
    order
}

/// Picoseconds that a load of a chase takes, once the working set has been gone over.
pub(super) fn chase(part: &Part, tlb: &Tlb, kib: u64, level: Level) -> u64 {
    let timing = part.timing(level);
    let all: u64 = (0..PLACES)
        .map(|place| {
            let order = order(kib, tlb.page_lines, place);
            let memory = u32::try_from(memory_lines(kib)).unwrap_or(LineRef::PHYS_LIMIT);
            let mut caches = Hierarchy::with(part, &timing, memory);
            let mut now = 0;
            let mut held: Vec<u32> = Vec::new();
            let mut misses = 0;
            let mut load = |(page, line): &(u32, LineRef)| {
                if let Some(at) = held.iter().position(|p| p == page) {
                    held[..=at].rotate_right(1);
                } else {
                    misses += 1;
                    if held.len() == tlb.entries {
                        held.pop();
                    }
                    held.insert(0, *page);
                }
                let cycles = u64::from(caches.access(CoreId(0), *line, Access::Read, now).cycles);
                now += cycles;
                (cycles, misses)
            };
            let before = order.iter().map(&mut load).last().map_or(0, |l| l.1);
            let loads = LOADS.max(order.len());
            let (mut cycles, mut after) = (0, before);
            for line in order.iter().cycle().take(loads) {
                let (took, misses) = load(line);
                cycles += took;
                after = misses;
            }
            let loads = loads as u64;
            timing.ps_of_cycles_milli(cycles * 1000 / loads) + (after - before) * tlb.miss / loads
        })
        .sum();
    all / PLACES
}

/// The part with that rule of replacement in its L2 that comes nearest to the measured series, and why.
pub(super) fn fitting(part: &Part, tlb: &Tlb, measured: &Experiment) -> Result<(Part, String), String> {
    let mut points = Vec::new();
    for point in &measured.points {
        if point.x == 0 || point.x > 1 << 16 {
            return Err(format!("{}: x = {}: expected 1 to 65536 KiB", measured.name, point.x));
        }
        points.push((point.x, picoseconds(point.value)?));
    }
    let with = |replacement: Replacement| {
        let l2 = CacheShape { replacement, ..part.l2() };
        part.with_caches(part.l1d(), l2, part.l3(), part.l3_kind())
    };
    // The mean of the relative errors, in thousandths.
    let error = |part: &Part| {
        let one = |(kib, ps): &(u64, u64)| chase(part, tlb, *kib, Level::Typical).abs_diff(*ps) * 1000 / ps;
        points.iter().map(one).sum::<u64>() / points.len() as u64
    };
    let all: Vec<(u64, Replacement, &str)> =
        Replacement::ALL.iter().map(|(rule, name)| (error(&with(*rule)), *rule, *name)).collect();
    let best = all.iter().min_by_key(|(error, ..)| *error).copied().ok_or("no rule of replacement")?;
    let said: Vec<String> =
        all.iter().map(|(error, _, name)| format!("{name} {}.{} %", error / 10, error % 10)).collect();
    let own =
        Replacement::ALL.iter().find(|(rule, _)| *rule == part.l2().replacement).map_or("unknown", |r| r.1);
    let said = format!(
        "an L2 that replaces by {} (the part says {own}): mean error over the {} measurements of {}, which are not held out: {}",
        best.2,
        points.len(),
        measured.name,
        said.join(", ")
    );
    Ok((with(best.1), said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn genoa() -> Part {
        Part::builtin("genoa").unwrap().with_pcpus(1).unwrap()
    }

    #[test]
    fn a_tlb_costs_by_the_pages_that_do_not_fit() {
        let huge = Tlb::of(None).unwrap();
        let small = Tlb { page_lines: PAGE_LINES, entries: 64, miss: 10_000 };
        let time = |tlb: &Tlb, kib| chase(&genoa(), tlb, kib, Level::Typical);
        // 16 KiB: 4 pages, all held.
        assert_eq!(time(&small, 16), time(&huge, 16));
        // 512 KiB: 128 pages in random order, of which LRU holds half: about 5 ns of 10.
        let extra = time(&small, 512) - time(&huge, 512);
        assert!((4000..7000).contains(&extra), "{extra}");
    }

    #[test]
    fn the_rule_that_made_a_series_is_found_in_it() {
        let tlb = Tlb { page_lines: PAGE_LINES, entries: 72, miss: 1900 };
        for (rule, name) in Replacement::ALL {
            let part = genoa();
            let l2 = CacheShape { replacement: rule, ..part.l2() };
            let real = part.with_caches(part.l1d(), l2, part.l3(), part.l3_kind());
            let point = |kib| {
                let value = chase(&real, &tlb, kib, Level::Typical) as f64 / 1000.0;
                crate::validate::Point { x: kib, value }
            };
            let series = Experiment { name: "x".to_owned(), points: Vec::from([1152, 1408].map(point)) };
            let (found, said) = fitting(&genoa(), &tlb, &series).unwrap();
            assert_eq!(found.l2().replacement, rule, "{said}");
            assert!(said.contains(&format!("{name} 0.0 %")), "{said}");
        }
    }
}
