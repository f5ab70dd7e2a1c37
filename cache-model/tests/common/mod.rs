//! What the checks against published figures share: caches filled with dirty lines, and flushes by many cores at once.

#![allow(dead_code, reason = "each test file uses what it needs")]

use cache_model::hierarchy::{Hierarchy, LineRef, Step};
use cache_model::part::{Level, Part};
use sev_arch::{Access, CcxId, CoreId, FlushOp, Tag};

/// The EPYC parts: all but the geometry of the speed comparison.
pub(crate) const PARTS: [&str; 9] =
    ["naples", "rome", "milan", "milan-x", "genoa", "genoa-x", "bergamo", "turin", "turin-dense"];

/// The guest's tag.
pub(crate) const GUEST: Tag = Tag(1);

pub(crate) fn line(phys: u32) -> LineRef {
    LineRef { phys, tag: GUEST }
}

/// A part with one number replaced at all its levels, as a user's own file could.
pub(crate) fn with(name: &str, numbers: &[(&str, &str)]) -> Part {
    let mut text = Part::builtin_text(name).expect("a built-in part").to_owned();
    for (key, value) in numbers {
        let (section, key) = key.split_once('.').expect("section.key");
        let start = text.find(&format!("[{section}]")).expect("the section");
        let at = start + text[start..].find(&format!("\n{key} = ")).expect("the key") + 1;
        let end = at + text[at..].find('\n').expect("a line");
        let unit = text[at..end].find("unit = ").map(|i| text[at + i..end].to_owned()).expect("a unit");
        text.replace_range(
            at..end,
            &format!("{key} = {{ low = {value}, typical = {value}, high = {value}, {unit}"),
        );
    }
    Part::from_toml("test.toml", &text).expect("still a part")
}

pub(crate) fn caches(part: &Part) -> Hierarchy {
    Hierarchy::with(part, &part.timing(Level::Typical), LineRef::PHYS_LIMIT)
}

/// Lines that a core's L2 and its share of its CCX's L3 hold.
pub(crate) fn share(part: &Part) -> u32 {
    let l3 = part.l3().lines() / u64::from(part.topology().cores_per_ccx());
    u32::try_from(part.l2().lines() + l3).expect("small")
}

/// Each of these cores writes so many lines of its own, so that they fill its L2 first and then its share of the L3.
pub(crate) fn fill(h: &mut Hierarchy, cores: impl Iterator<Item = CoreId>, lines: u32) {
    let mut clocks = vec![0; usize::from(h.topology().cores())];
    for core in cores {
        let first = u32::from(core.0) * lines;
        let steps: Vec<Step> =
            (first..first + lines).map(|phys| Step::new(core, line(phys), Access::Write)).collect();
        h.in_turn(&steps, &mut clocks);
    }
}

/// Waits until the links and channels have nothing left to do.
pub(crate) const LATER: u64 = 1 << 40;

/// These cores flush at the same instant; when the last one has ended, counted from then on, and the lines that were
/// written back.
pub(crate) fn flush(h: &mut Hierarchy, cores: &[CoreId], op: FlushOp, now: u64) -> (u64, u64) {
    let start = now + h.flush_fixed_cycles(op);
    let mut lines = 0;
    let mut ends = Vec::new();
    for core in cores {
        let work = h.flush_private(*core, op);
        lines += work.lines_written_back();
        let ccx = h.topology().ccx_of(*core);
        ends.push((start + h.flush_cycles(ccx, op, &work, start), core.0, ccx));
    }
    ends.sort_unstable();
    let mut last = start;
    for (at, _, ccx) in ends {
        let work = h.flush_l3(CcxId(ccx.0), op);
        lines += work.lines_written_back();
        last = last.max(at + h.flush_cycles(ccx, op, &work, at));
    }
    (last - now, lines)
}

/// Cores that read or write a stream of lines each, in order, with so many misses outstanding: the cycles from the
/// first request to the last answer.
pub(crate) fn stream(
    h: &mut Hierarchy,
    streams: &[(CoreId, Vec<LineRef>)],
    access: Access,
    outstanding: usize,
    now: u64,
) -> u64 {
    let mut at: Vec<(u64, usize, Vec<u64>)> =
        streams.iter().map(|_| (now, 0, vec![now; outstanding])).collect();
    let mut last = now;
    // Who is earliest goes on.
    while let Some(next) = (0..at.len()).filter(|i| at[*i].1 < streams[*i].1.len()).min_by_key(|i| at[*i].0) {
        let (core, lines) = &streams[next];
        let (clock, done, slots) = &mut at[next];
        let slot = *done % outstanding;
        *clock = (*clock).max(slots[slot]);
        let served = h.access(*core, lines[*done], access, *clock);
        slots[slot] = *clock + u64::from(served.cycles);
        last = last.max(slots[slot]);
        *clock += 1;
        *done += 1;
        // The slot that is needed next decides when this core can go on.
        let due = slots[*done % outstanding];
        *clock = (*clock).max(due);
    }
    last - now
}
