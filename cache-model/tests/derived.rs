//! The figures that can be derived from published facts, beside what the simulation says; and where a whole-cache flush
//! becomes faster than one line by line. Written into docs/FIGURES.md; `SNAPSHOTS=overwrite` rewrites it.

mod common;

use std::fmt::Write as _;

use cache_model::hierarchy::{FlushWork, Hierarchy, LineRef};
use cache_model::part::{Level, Levels, Param, Part, Timing};
use common::{LATER, caches, fill, flush, line, share, stream, with};
use sev_arch::{Access, CcxId, CoreId, FlushOp};

/// Dirty MiB that a CCX holds at most, the derived milliseconds for one CCX at 26 GB/s and for a socket at 55 percent
/// of its DRAM's peak (0: not derived), each as it was rounded, in hundredths.
const WORST: [(&str, u64, u64, u64); 7] = [
    ("naples", 10, 40, 90),
    ("rome", 18, 70, 270),
    ("milan", 36, 150, 270),
    ("genoa", 40, 160, 200),
    ("bergamo", 24, 100, 0),
    ("turin", 40, 160, 210),
    ("turin-dense", 48, 190, 0),
];

fn ns(t: &Timing, cycles: u64) -> u64 {
    t.ns_of_cycles(cycles)
}

/// A time in ns, in the unit and with the figures that one reads.
fn shown(ns: u64) -> String {
    let (unit, name) = if ns >= 1_000_000 { (1_000_000, "ms") } else { (1_000, "us") };
    let hundredths = (ns * 100 + unit / 2) / unit;
    match hundredths {
        0..1_000 => format!("{}.{:02} {name}", hundredths / 100, hundredths % 100),
        1_000..10_000 => format!("{}.{} {name}", (hundredths + 5) / 100, (hundredths + 5) / 10 % 10),
        _ => format!("{} {name}", (hundredths + 50) / 100),
    }
}

/// Cores of the first CCX, or of the first socket.
fn cores(part: &Part, ccx_only: bool) -> Vec<CoreId> {
    let t = part.topology();
    let n = if ccx_only { t.cores_per_ccx() } else { t.cores() };
    (0..n).map(CoreId).collect()
}

/// Full, dirty caches of these cores, flushed by all of them at once: the time in ns, and the bytes written.
fn worst(part: &Part, cores: &[CoreId]) -> (u64, u64) {
    worst_at(part, &part.timing(Level::Typical), cores)
}

fn worst_at(part: &Part, t: &Timing, cores: &[CoreId]) -> (u64, u64) {
    let mut h = Hierarchy::with(part, t, LineRef::PHYS_LIMIT);
    // A fourth more than fits, so that every set is full whichever lines its rule keeps.
    fill(&mut h, cores.iter().copied(), share(part) / 4 * 5);
    let (cycles, lines) = flush(&mut h, cores, FlushOp::Wbinvd, LATER);
    (ns(t, cycles), 64 * lines)
}

/// One CCX, and a socket: as derived, as simulated under the derivation's premises, as simulated.
fn worst_cases(out: &mut String) {
    out.push_str(
        "| part | dirty | one CCX: derived | same premises | simulated | a socket: derived | same premises | simulated |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for (name, mib, ccx, socket) in WORST {
        let own = Part::builtin(name).and_then(|p| p.with_sockets(1)).expect("a part");
        let [fixed, walk] = [("flush.wbinvd_fixed", "0.001"), ("flush.wbinvd_walk", "0.001")];
        let bandwidths = [("write_back.core", "26"), ("write_back.ccd", "26"), ("write_back.socket", "9000")];
        let at_26 =
            with(name, &[&bandwidths[..], &[fixed, walk]].concat()).with_sockets(1).expect("one socket");
        let (same_ccx, bytes) = worst(&at_26, &cores(&at_26, true));
        assert_eq!(bytes, mib << 20, "{name}: what a CCX holds");
        // 10^9 bytes a second are a byte a nanosecond.
        let exact = bytes * 10 / 260;
        assert!(same_ccx.abs_diff(exact) * 100 <= exact, "{name}: {same_ccx} ns, {exact} derived");
        assert!(exact.abs_diff(ccx * 10_000) <= 50_000, "{name}: {exact} ns is no {ccx} hundredths of a ms");
        let (own_ccx, _) = worst(&own, &cores(&own, true));

        let free = with(name, &[("write_back.core", "9000"), ("write_back.ccd", "9000"), fixed, walk]);
        let free = free.with_sockets(1).expect("one socket");
        let (same_socket, bytes) = worst(&free, &cores(&free, false));
        let rate = own.number(Param::WriteBackSocket).typical;
        let exact = bytes * 1000 / rate;
        assert!(same_socket.abs_diff(exact) * 100 <= exact, "{name}: {same_socket} ns, {exact} derived");
        assert!(
            socket == 0 || exact.abs_diff(socket * 10_000) <= 50_000,
            "{name}: {exact} ns, {socket} hundredths of a ms"
        );
        let (own_socket, _) = worst(&own, &cores(&own, false));
        let tenths = |hundredths: u64| match hundredths {
            0 => "-".to_owned(),
            _ => format!("{}.{} ms", hundredths / 100, hundredths / 10 % 10),
        };
        let _ = writeln!(
            out,
            "| `{name}` | {mib} MiB | {} | {} | {} | {} | {} | {} |",
            tenths(ccx),
            shown(same_ccx),
            shown(own_ccx),
            tenths(socket),
            shown(same_socket),
            shown(own_socket),
        );
    }
}

/// A part's times where what decides about a flush is at the end that makes it fast, or slow: the widths of the paths
/// at one end of their ranges, the times at the other.
fn extreme(part: &Part, fast: bool) -> Timing {
    let (wide, short) = if fast { (Level::High, Level::Low) } else { (Level::Low, Level::High) };
    let widths = [Param::WriteBackCore, Param::WriteBackCcd, Param::WriteBackSocket, Param::BandwidthCcdRead];
    let times = [
        Param::WbinvdFixed,
        Param::WbinvdWalk,
        Param::ClflushAbsent,
        Param::ClflushClean,
        Param::ClflushDirty,
        Param::ClflushDrain,
        Param::DramLocal,
    ];
    let exceptions = widths.map(|p| (p, wide)).into_iter().chain(times.map(|p| (p, short))).collect();
    part.timing(Levels { all: Level::Typical, exceptions })
}

/// The same at both ends of what is known of a part.
fn ranges(out: &mut String) {
    out.push_str(
        "| part | one CCX: at the fast end | typical | at the slow end | a socket: derived at 80 %, 35 % | at the fast end \
         | typical | at the slow end |\n|---|---|---|---|---|---|---|---|\n",
    );
    for (name, _, _, socket) in WORST {
        let part = Part::builtin(name).and_then(|p| p.with_sockets(1)).expect("a part");
        let at = |ccx_only: bool| {
            let cores = cores(&part, ccx_only);
            let timings = [extreme(&part, true), part.timing(Level::Typical), extreme(&part, false)];
            timings.map(|t| worst_at(&part, &t, &cores))
        };
        let (ccx, whole) = (at(true), at(false));
        // Megabytes a second are bytes a microsecond.
        let bytes = whole[0].1 * 1000;
        let (ccx, whole) = (ccx.map(|w| w.0), whole.map(|w| w.0));
        assert!(ccx.is_sorted() && whole.is_sorted(), "{name}: {ccx:?} {whole:?}");
        let rate = part.number(Param::WriteBackSocket);
        let (fast, slow) = (bytes / rate.high, bytes / rate.low);
        if socket != 0 {
            assert!((550_000..1_850_000).contains(&fast), "{name}: {fast} ns is not within 0.6 to 1.8 ms");
            assert!((1_350_000..4_250_000).contains(&slow), "{name}: {slow} ns is not within 1.4 to 4.2 ms");
            // Nothing beats the DRAM; at the slow end the CCDs' links are no narrower than it by much.
            assert!(whole[0] * 100 >= fast * 98, "{name}: {} ns, {fast} derived", whole[0]);
            assert!(whole[2] * 100 >= slow * 98, "{name}: {} ns, {slow} derived", whole[2]);
        }
        let ends = if socket == 0 { "-".to_owned() } else { format!("{}, {}", shown(fast), shown(slow)) };
        let [ccx, whole] = [ccx, whole].map(|v| v.map(shown).join(" | "));
        let _ = writeln!(out, "| `{name}` | {ccx} | {ends} | {whole} |");
    }
}

/// CLFLUSH of so many lines of memory one after the other, with the fence after them, in ns.
fn clflushed(h: &mut Hierarchy, lines: std::ops::Range<u32>) -> u64 {
    let t = h.timing().clone();
    let milli: u64 = lines
        .map(|phys| {
            let found = h.clflush(line(phys), LATER);
            h.clflush_cycles_milli(found)
        })
        .sum();
    ns(&t, milli.div_ceil(1000) + t.clflush_drain)
}

/// A machine in which core 0 has just read or written these lines.
fn touched(part: &Part, lines: u32, write: bool) -> Hierarchy {
    touched_at(part, &part.timing(Level::Typical), lines, write)
}

fn touched_at(part: &Part, t: &Timing, lines: u32, write: bool) -> Hierarchy {
    let mut h = Hierarchy::with(part, t, LineRef::PHYS_LIMIT);
    for phys in 0..lines {
        let access = if write { Access::Write } else { Access::Read };
        h.access(CoreId(0), line(phys), access, 0);
    }
    h
}

/// Fences out of it: what a run of CLFLUSHes took by itself.
fn without_fence(t: &Timing, ns_all: u64) -> u64 {
    ns_all - ns(t, t.clflush_drain)
}

fn line_by_line(out: &mut String) {
    let part = Part::builtin("genoa").expect("a part");
    let t = part.timing(Level::Typical);
    let page = clflushed(&mut touched(&part, 64, true), 0..64);
    let huge = clflushed(&mut touched(&part, 32_768, true), 0..32_768);
    let clean = clflushed(&mut touched(&part, 16_384, false), 0..16_384);
    let dirty = clflushed(&mut touched(&part, 16_384, true), 0..16_384);
    let half = {
        let mut h = touched(&part, 16_384, false);
        for phys in (0..16_384).step_by(2) {
            h.access(CoreId(0), line(phys), Access::Write, 0);
        }
        clflushed(&mut h, 0..16_384)
    };
    let straight = (clean + dirty) / 2;
    assert!(half.abs_diff(straight) * 100 <= straight, "{half} is not between {clean} and {dirty}");
    let within =
        |got: u64, low: u64, high: u64| assert!((low..=high).contains(&got), "{got}: {low} to {high}");
    within(page, 320, 600);
    within(huge, 60_000, 100_000);
    within(without_fence(&t, clean), 26_600, 30_000);
    within(without_fence(&t, dirty), 39_000, 43_000);

    // The walk of a CCX's tags: all its L2s and its L3.
    let cores = cores(&part, true);
    let l2s = part.l2().lines() * cores.len() as u64;
    let lines = l2s + part.l3().lines();
    assert_eq!(lines, 655_360);
    let walk = |level| {
        let levels = Levels { all: Level::Typical, exceptions: [(Param::WbinvdWalk, level)].into() };
        let mut h = Hierarchy::with(&part, &part.timing(levels), 1 << 16);
        let work = FlushWork { lines_walked: lines, ..FlushWork::default() };
        let whole = ns(&t, h.flush_cycles(CcxId(0), FlushOp::Wbinvd, &work, 0));
        // What one pCPU walks: its own L2 and the L3.
        let work = FlushWork { lines_walked: h.walked_lines(), ..FlushWork::default() };
        (whole, ns(&t, h.flush_cycles(CcxId(0), FlushOp::Wbinvd, &work, LATER)))
    };
    let walks = [Level::Low, Level::Typical, Level::High].map(walk);
    within(walks[0].0, 39_000, 41_000);
    within(walks[1].0, 158_000, 166_000);
    within(walks[2].0, 635_000, 660_000);
    let each = walks.map(|w| shown(w.1)).join(", ");
    let whole = walks.map(|w| shown(w.0)).join(", ");

    // A CCX's caches come back after WBINVD.
    let full = u32::try_from(lines).expect("small");
    let own = |n: u16| -> Vec<(CoreId, Vec<_>)> {
        let per = full / u32::from(n);
        (0..n)
            .map(|c| (CoreId(c), (u32::from(c) * per..u32::from(c + 1) * per).map(line).collect()))
            .collect()
    };
    let refill = |n: u16, outstanding: usize| {
        let one = part.with_sockets(1).expect("a socket");
        let mut h = caches(&one);
        ns(&t, stream(&mut h, &own(n), Access::Read, outstanding, 0))
    };
    let (wide, slow, fast) = (refill(8, 10), refill(1, 10), refill(1, 40));
    // 40 MiB over the CCD's link.
    let link = 64 * u64::from(full) * 1000 / part.number(Param::BandwidthCcdRead).typical;
    within(wide, link, link * 3 / 2);
    within(slow, 7_500_000, 8_600_000);
    within(fast, 1_900_000, 2_300_000);

    // Both ends of what was measured.
    let ends = |lines: u32, write: bool| {
        [true, false].map(|fast| {
            let t = extreme(&part, fast);
            clflushed(&mut touched_at(&part, &t, lines, write), 0..lines)
        })
    };
    let (pages, huges) = (ends(64, true), ends(32_768, true));
    let (cleans, dirties) = (ends(16_384, false), ends(16_384, true));
    assert!(pages[0] <= page && page <= pages[1] && huges[0] <= huge && huge <= huges[1]);
    let ends = |ends: [u64; 2]| ends.map(shown).join(", ");
    let refill_at = |fast: bool, n: u16, outstanding: usize| {
        let one = part.with_sockets(1).expect("a socket");
        let t = extreme(&part, fast);
        let mut h = Hierarchy::with(&one, &t, LineRef::PHYS_LIMIT);
        ns(&t, stream(&mut h, &own(n), Access::Read, outstanding, 0))
    };
    let wides = [refill_at(true, 8, 10), refill_at(false, 8, 10)];
    let narrows = [refill_at(true, 1, 40), refill_at(false, 1, 10)];
    assert!(wides[0] <= wide && wide <= wides[1] && narrows[0] <= fast && slow <= narrows[1]);

    let (shown_page, shown_huge) = (shown(page), shown(huge));
    let _ = write!(
        out,
        "| figure, `genoa` | derived or measured | simulated | remark |\n|---|---|---|---|\n\
         | CLFLUSH of a 4 KiB page, all dirty | 0.32 to 0.6, typically 0.36 us | {shown_page} | with the fence |\n\
         | CLFLUSH of 2 MiB, all dirty | 60 to 100, typically 80 us | {shown_huge} | |\n\
         | CLFLUSH of 1 MiB: clean, half dirty, all dirty | 28 us, between, 41 us; a straight line | {}, {}, {} | |\n\
         | walk over a CCX's 655,360 lines, low, typical, high | 40, 160, 640 us | {whole} | as one walk |\n\
         | the same, by the pCPUs of the CCX at once | - | {each} | each walks its own L2 and the L3 |\n\
         | refill of a CCX, bounded by bandwidth | 0.8 ms at 50 GB/s | {} | 8 cores, over a link of 57.6 GB/s |\n\
         | refill of a CCX, bounded by latency | 2 to 8 ms | {} to {} | one core, 40 to 10 misses outstanding |\n\n\
         | figure, `genoa` | derived or measured: low, high | simulated at the fast end, at the slow end |\n|---|---|---|\n\
         | CLFLUSH of a 4 KiB page, all dirty | 0.32, 0.6 us | {} |\n\
         | CLFLUSH of 2 MiB, all dirty | 60, 100 us | {} |\n\
         | CLFLUSH of 1 MiB, clean | 0.9 to 2.3 ns a line | {} |\n\
         | CLFLUSH of 1 MiB, all dirty | 2.0, 3.0 ns a line | {} |\n\
         | refill of a CCX, bounded by bandwidth | 0.5 ms | {} |\n\
         | refill of a CCX, bounded by latency | 2, 6 to 8 ms | {} |\n\n\
         All numbers stand at their ends at once there, the fence's and DRAM's latency too, so that the simulated ends can lie \
         outside of the derived ones.\n",
        shown(clean),
        shown(half),
        shown(dirty),
        shown(wide),
        shown(fast),
        shown(slow),
        ends(pages),
        ends(huges),
        ends(cleans),
        ends(dirties),
        ends(wides),
        ends(narrows),
    );
}

/// One pCPU's WBINVD, in ns, with so many dirty lines in its caches.
fn wbinvd(part: &Part, t: &Timing, dirty: u32) -> u64 {
    let mut h = Hierarchy::with(part, t, 1 << 23);
    for phys in 0..dirty {
        h.access(CoreId(0), line(phys), Access::Write, 0);
    }
    ns(t, flush(&mut h, &[CoreId(0)], FlushOp::Wbinvd, LATER).0)
}

/// The first of the sizes, in KiB, at which the flush of everything is no slower than that of a range.
fn crossing(sizes: &[u32], range: &[u64], whole: &[u64]) -> String {
    let at = sizes.iter().zip(range.iter().zip(whole)).find(|(_, (r, w))| w <= r).map(|(size, _)| *size);
    at.map_or("not within 64 MiB".to_owned(), size)
}

fn size(kib: u32) -> String {
    if kib >= 1024 { format!("{} MiB", kib / 1024) } else { format!("{kib} KiB") }
}

fn crossover(out: &mut String) {
    let sizes: Vec<u32> = (2..=16).map(|power| 1 << power).collect();
    let part = Part::builtin("genoa").expect("a part");
    let t = part.timing(Level::Typical);
    let most = u32::try_from(part.l2().lines() + part.l3().lines()).expect("small");
    let absent: Vec<u64> = sizes.iter().map(|kib| clflushed(&mut caches(&part), 0..kib * 16)).collect();
    let held = |kib: u32| (kib * 16).min(most);
    let dirty: Vec<u64> =
        sizes.iter().map(|kib| clflushed(&mut touched(&part, held(*kib), true), 0..kib * 16)).collect();
    let whole: Vec<u64> = sizes.iter().map(|kib| wbinvd(&part, &t, held(*kib))).collect();
    let empty = vec![wbinvd(&part, &t, 0); sizes.len()];
    out.push_str("```text\n");
    plot(out, &sizes, &[('a', &absent), ('d', &dirty), ('W', &whole), ('w', &empty)]);
    out.push_str("```\n\n");
    out.push_str(
        "| range | a: CLFLUSH, nothing cached | d: CLFLUSH, dirty | w: WBINVD, nothing dirty | W: WBINVD, as much dirty |\n\
         |---|---|---|---|---|\n",
    );
    for (i, kib) in sizes.iter().enumerate() {
        let row = [&absent, &dirty, &empty, &whole].map(|v| shown(v[i]));
        let _ = writeln!(out, "| {} | {} |", size(*kib), row.join(" | "));
    }
    out.push_str(
        "\nFrom which size of the range on WBINVD by one pCPU is the faster, if no line of the range is cached, with the \
         walk at its low, typical and high value:\n\n| part | low | typical | high |\n|---|---|---|---|\n",
    );
    for name in ["naples", "rome", "milan", "genoa", "genoa-x", "bergamo", "turin", "turin-dense"] {
        let part = Part::builtin(name).expect("a part");
        let cells = [Level::Low, Level::Typical, Level::High].map(|level| {
            let levels = Levels { all: Level::Typical, exceptions: [(Param::WbinvdWalk, level)].into() };
            let t = part.timing(levels);
            let mut h = Hierarchy::with(&part, &t, 1 << 20);
            let found = h.clflush(line(0), 0);
            let milli = h.clflush_cycles_milli(found);
            let range: Vec<u64> = sizes
                .iter()
                .map(|kib| ns(&t, u64::from(kib * 16) * milli / 1000 + t.clflush_drain))
                .collect();
            crossing(&sizes, &range, &vec![wbinvd(&part, &t, 0); sizes.len()])
        });
        let _ = writeln!(out, "| `{name}` | {} |", cells.join(" | "));
    }
    let _ = write!(
        out,
        "\nWith dirty lines, from {} of `genoa` on: a dirty line takes about 2.5 ns either way, WBINVD walks all tags \
         beside, and CLFLUSH goes on over what the caches (33 MiB) do not hold, at 1 ns a line.\n",
        crossing(&sizes, &dirty, &whole),
    );
}

/// Curves over sizes that double, both axes logarithmic; where two meet, the later one is drawn.
fn plot(out: &mut String, sizes: &[u32], curves: &[(char, &Vec<u64>)]) {
    const WIDE: usize = 5;
    // Half powers of two, from 2^8 ns on.
    let height = |ns: u64| {
        let power = ns.max(256).ilog2();
        let half = u32::from(u128::from(ns) * u128::from(ns) >= 1u128 << (2 * power + 1));
        usize::try_from(2 * (power - 8) + half).expect("small")
    };
    let top = curves.iter().flat_map(|(_, v)| v.iter()).map(|n| height(*n)).max().unwrap_or(0);
    for row in (0..=top).rev() {
        let mut cells = vec![' '; WIDE * sizes.len()];
        for (mark, values) in curves {
            for (i, value) in values.iter().enumerate() {
                if height(*value) == row {
                    cells[WIDE * i + 2] = *mark;
                }
            }
        }
        let label = if row % 2 == 0 { shown(1 << (row / 2 + 8)) } else { String::new() };
        let line: String = cells.into_iter().collect();
        let _ = writeln!(out, "{}", format!("{label:>8} | {line}").trim_end());
    }
    let _ = writeln!(out, "{:>8} +-{}", "", "-".repeat(WIDE * sizes.len()));
    let short = |kib: &u32| if *kib >= 1024 { format!("{}M", kib / 1024) } else { format!("{kib}k") };
    let labels: String = sizes.iter().map(|kib| format!("{:^WIDE$}", short(kib))).collect();
    let _ = writeln!(out, "{}", format!("{:>8}   {labels}", "").trim_end());
}

/// Prose in lines of at most 120 columns; tables and drawings as they are.
fn wrapped(text: &str) -> String {
    let mut out = String::new();
    let mut drawing = false;
    for line in text.lines() {
        drawing ^= line.starts_with("```");
        if drawing || line.starts_with(['|', '#', '`']) {
            out.push_str(line);
        } else {
            let mut width = 0;
            for word in line.split(' ') {
                if width != 0 && width + 1 + word.len() > 120 {
                    out.push('\n');
                    width = 0;
                } else if width != 0 {
                    out.push(' ');
                    width += 1;
                }
                out.push_str(word);
                width += word.len();
            }
        }
        out.push('\n');
    }
    out
}

#[test]
fn the_derived_figures_are_reproduced_and_written_down() {
    let mut text = String::from(
        "# Derived figures, and what the simulation says\n\n\
         Written by `SNAPSHOTS=overwrite cargo test -p cache-model --test derived`, and compared by the test without it.\n\
         No flush time of any EPYC is published. What can be derived is dirty bytes over a bandwidth: here it stands \
         beside the simulation, first under the same premises (one bandwidth, no walk, nothing fixed), where both must \
         agree within 1 %, then with the part's own numbers at their typical values. The derivations take 26 GB/s for a \
         core's write-back (measured over CLFLUSHOPT), and 55 % of the peak of a socket's DRAM.\n\n\
         ## WBINVD by all pCPUs at once, all caches full of dirty lines\n\n",
    );
    worst_cases(&mut text);
    text.push_str(
        "\nWith a part's own numbers one CCX's flush has the fixed part and the walk on top (34 to 135 us), and its \
         dirty lines leave over the CCD's link, which is slower than 26 GB/s on Naples, Rome and Milan and faster on \
         later parts; the L3 goes with the pCPU that comes to it first, at a core's 26 GB/s. In a socket, both CCXs of a \
         CCD share the link, where the part has two. One socket; with two, half of the lines go over the link between \
         them.\n\nEvery number of a part has a low, a typical and a high value. At the *fast end*, write-back bandwidths are at \
         their high values, and the fixed part and the walk at their low ones; at the *slow end* the other way round:\n\n",
    );
    ranges(&mut text);
    text.push_str(
        "\nA socket's DRAM takes writes at 80 % of its peak at best and 35 % at worst. Where the simulation is slower than \
         that, the CCDs' links or the walk are in the way.\n\n## Line by line, the walk, and the way back\n\n",
    );
    line_by_line(&mut text);
    text.push_str(
        "\n## From when on a whole-cache flush is faster than one line by line\n\n\
         One pCPU of `genoa` flushes a range of memory: by CLFLUSH and a fence, or by WBINVD. What WBINVD then costs \
         those whose lines it takes, and the IPIs that a policy needs for every other core, are not in these curves: \
         `sevsim compare --costs` has them.\n\n",
    );
    crossover(&mut text);
    let text = wrapped(&text);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/FIGURES.md");
    if std::env::var_os("SNAPSHOTS").is_some_and(|v| v == "overwrite") {
        std::fs::write(path, &text).expect("docs/ is there");
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        there == text,
        "docs/FIGURES.md is not what the simulation says: SNAPSHOTS=overwrite rewrites it\n{text}"
    );
}
