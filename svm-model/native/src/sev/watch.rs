//! The kernel's own flushes as tracefs shows them: who flushed, when, how long; and the commands that the PSP was given.
//!
//! An own trace instance with the TSC as its clock, so that its times and the caller's are the same. Probes that a kernel has
//! no function for are left out, and said. Attaching probes sends IPIs itself: that is over before anything is watched.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::safety::{Undo, change};

/// Functions on whose entry and return a probe is put: name of the probe, function, arguments of the entry, of the return.
const PROBES: [(&str, &str, &str, &str); 8] = [
    ("all_wbinvd", "wbinvd_on_all_cpus", "", ""),
    ("all_wbnoinvd", "wbnoinvd_on_all_cpus", "", ""),
    ("mask_wbinvd", "wbinvd_on_cpus_mask", "", ""),
    ("mask_wbnoinvd", "wbnoinvd_on_cpus_mask", "", ""),
    ("one_wbinvd", "__wbinvd", "", ""),
    ("one_wbnoinvd", "__wbnoinvd", "", ""),
    ("reclaimed", "sev_guest_memory_reclaimed", "", ""),
    ("psp", "__sev_do_cmd_locked", " cmd=%di:s32", " ret=$retval:s32"),
];

/// Tracepoints that show the same where kprobes cannot be had.
const TRACEPOINTS: [&str; 3] = ["csd/csd_function_entry", "csd/csd_function_exit", "kvm/kvm_unmap_hva_range"];

/// The firmware's commands (linux/psp-sev.h).
const PSP: [(i64, &str); 12] = [
    (0x0a, "DF_FLUSH"),
    (0x20, "DECOMMISSION"),
    (0x21, "ACTIVATE"),
    (0x22, "DEACTIVATE"),
    (0x30, "LAUNCH_START"),
    (0x31, "LAUNCH_UPDATE_DATA"),
    (0x32, "LAUNCH_UPDATE_VMSA"),
    (0x33, "LAUNCH_MEASURE"),
    (0x35, "LAUNCH_FINISH"),
    (0x84, "SNP_DF_FLUSH"),
    (0x90, "SNP_DECOMMISSION"),
    (0x91, "SNP_ACTIVATE"),
];

/// Something that began and ended on a pCPU, in ticks of the TSC.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Stretch {
    /// When.
    pub begin: u64,
    /// How long.
    pub took: u64,
    /// Where.
    pub pcpu: usize,
    /// The probe's name; of a PSP command its name.
    pub what: String,
}

/// What was seen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// In the order of their begin.
    pub stretches: Vec<Stretch>,
    /// MMU notifier events.
    pub notifiers: usize,
}

/// One flush of several pCPUs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flush {
    /// The call that waited for all of them.
    pub call: Stretch,
    /// Each pCPU that executed the instruction meanwhile.
    pub pcpus: Vec<Stretch>,
}

impl Seen {
    /// What of these names was seen.
    pub fn of<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Stretch> {
        self.stretches.iter().filter(move |s| s.what.starts_with(prefix))
    }

    /// The flushes: calls for all pCPUs or a mask, each with the pCPUs that flushed while it lasted.
    #[must_use]
    pub fn flushes(&self) -> Vec<Flush> {
        let calls =
            self.stretches.iter().filter(|s| s.what.starts_with("all_") || s.what.starts_with("mask_"));
        let during = |call: &Stretch| {
            let end = call.begin + call.took;
            self.of("one_").filter(|s| call.begin <= s.begin && s.begin + s.took <= end).cloned().collect()
        };
        calls.map(|call| Flush { call: call.clone(), pcpus: during(call) }).collect()
    }
}

/// A line of a trace: pCPU, time, event, the rest.
fn line(text: &str) -> Option<(usize, u64, &str, &str)> {
    // `  comm-123   [003] d..1. 1234567: event: rest`; the command's name may hold anything, a bracket too.
    let (at, pcpu) = text.match_indices('[').find_map(|(at, _)| {
        let digits = text.get(at + 1..at + 4)?;
        (text.get(at + 4..at + 6)? == "] ").then(|| digits.parse().ok()).flatten().map(|n| (at, n))
    })?;
    let mut rest = text[at + 6..].trim_start().splitn(2, ' ');
    let (_flags, rest) = (rest.next()?, rest.next()?.trim_start());
    let (time, rest) = rest.split_once(": ")?;
    let (event, rest) = rest.split_once(':')?;
    Some((pcpu, time.trim().parse().ok()?, event, rest.trim()))
}

/// When something began, and its name if the entry says more than the probe's.
type Begun = (u64, Option<String>);

fn value<'a>(rest: &'a str, key: &str) -> Option<&'a str> {
    rest.split_whitespace().find_map(|w| w.strip_prefix(key)?.strip_prefix('='))
}

/// Reads a trace.
#[must_use]
pub fn parse(text: &str) -> Seen {
    let mut seen = Seen::default();
    // What has begun on a pCPU and not ended; calls nest, so the last begun ends first.
    let mut open: BTreeMap<(usize, String), Vec<Begun>> = BTreeMap::new();
    for (pcpu, time, event, rest) in text.lines().filter_map(line) {
        let callback = || match value(rest, "func")? {
            f if f.starts_with("__wbinvd") => Some("one_wbinvd"),
            f if f.starts_with("__wbnoinvd") => Some("one_wbnoinvd"),
            _ => None,
        };
        let (what, begins) = match event {
            "kvm_unmap_hva_range" => {
                seen.notifiers += 1;
                continue;
            }
            "csd_function_entry" => (callback(), true),
            "csd_function_exit" => (callback(), false),
            _ => match (event.strip_suffix("_in"), event.strip_suffix("_out")) {
                (Some(what), _) => (Some(what), true),
                (_, Some(what)) => (Some(what), false),
                _ => (None, false),
            },
        };
        let Some(what) = what else { continue };
        // The PSP is waited for, and the thread may come back on another pCPU; there is one command at a time.
        let place = if what == "psp" { usize::MAX } else { pcpu };
        let stack = open.entry((place, what.to_owned())).or_default();
        if begins {
            let command = value(rest, "cmd").and_then(|c| c.parse::<i64>().ok()).map(|c| {
                PSP.iter()
                    .find(|p| p.0 == c)
                    .map_or_else(|| format!("psp {c:#x}"), |p| format!("psp {}", p.1))
            });
            stack.push((time, command));
        } else if let Some((begin, command)) = stack.pop() {
            let what = command.unwrap_or_else(|| what.to_owned());
            seen.stretches.push(Stretch { begin, took: time.saturating_sub(begin), pcpu, what });
        }
    }
    seen.stretches.sort();
    // With kprobes and tracepoints both, a callback shows twice: the inner one is kept.
    let all = seen.stretches.clone();
    seen.stretches.retain(|s| {
        let inside = |t: &Stretch| {
            t != s
                && t.what == s.what
                && t.pcpu == s.pcpu
                && s.begin <= t.begin
                && t.begin + t.took <= s.begin + s.took
        };
        !s.what.starts_with("one_") || !all.iter().any(inside)
    });
    seen
}

/// Whoever watches.
pub trait Watch {
    /// Forgets what was seen.
    fn start(&mut self);
    /// What was seen since.
    fn stop(&mut self) -> Seen;
}

/// Nobody watches, for this reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Blind(pub String);

impl Watch for Blind {
    fn start(&mut self) {}

    fn stop(&mut self) -> Seen {
        Seen::default()
    }
}

/// An own trace instance; it and its probes are taken away at the end of this value.
#[derive(Debug)]
pub struct Tracefs {
    instance: PathBuf,
    /// What could be watched, and what not and why.
    pub said: Vec<String>,
    /// In the order in which they are undone.
    _undo: Vec<Undo>,
}

fn put(path: &Path, text: &str) -> io::Result<()> {
    fs::OpenOptions::new().append(true).open(path)?.write_all(text.as_bytes())
}

fn said(path: &Path) -> impl Fn(io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

/// Where functions of a name begin in the kernel itself: some names are several functions'.
fn addresses(symbols: &str, function: &str) -> Vec<String> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        let (address, _kind, name) = (words.next()?, words.next()?, words.next()?);
        // A module's name follows. Zeros are what somebody gets who may not know.
        let wanted = name == function && words.next().is_none() && address.bytes().any(|b| b != b'0');
        wanted.then(|| format!("0x{address}"))
    };
    symbols.lines().filter_map(address).collect()
}

impl Tracefs {
    /// Puts probes into the kernel and watches them in an own instance of the tracefs at `root`.
    ///
    /// # Errors
    /// No instance can be made there, or nothing can be watched, and why.
    pub fn open(root: &Path) -> Result<Tracefs, String> {
        let own = format!("sevsim{}", std::process::id());
        let instance = root.join("instances").join(&own);
        let cannot = |e: io::Error| {
            let shown = instance.display();
            if e.kind() == std::io::ErrorKind::ReadOnlyFilesystem {
                format!("{shown}: tracefs is read-only here")
            } else if e.kind() == std::io::ErrorKind::PermissionDenied {
                format!("{shown}: no right to make it (be root)")
            } else {
                format!("{shown}: cannot be made: {e}")
            }
        };
        let gone = instance.clone();
        let back = move || fs::remove_dir(&gone).map_err(|e| e.to_string());
        let remove = format!("remove {}", instance.display());
        let ((), remove) = change((remove, back), || fs::create_dir(&instance)).map_err(cannot)?;
        let clock = instance.join("trace_clock");
        put(&clock, "x86-tsc").map_err(self::said(&clock))?;
        let (mut said, mut undo, mut enabled) = (Vec::new(), Vec::new(), 0);
        let mut enable = |event: &str, undo: &mut Vec<Undo>| {
            let switch = instance.join("events").join(event).join("enable");
            let off = switch.clone();
            let back = move || put(&off, "0").map_err(|e| e.to_string());
            undo.push(change((format!("disable {event}"), back), || put(&switch, "1"))?.1);
            enabled += 1;
            Ok(())
        };
        for event in TRACEPOINTS {
            let done: io::Result<()> = enable(event, &mut undo);
            said.push(match done {
                Ok(()) => format!("{event}: watched"),
                Err(_) if !instance.join("events").join(event).exists() => {
                    format!("{event}: not watched: this kernel has no such tracepoint")
                }
                Err(why) => format!("{event}: not watched: {why}"),
            });
        }
        let events = root.join("kprobe_events");
        let mut attach = |group: &str, (probe, entry, exit): (&str, &str, &str), place: &str| {
            for (kind, end, arguments) in [("p", "in", entry), ("r", "out", exit)] {
                let name = format!("{group}/{probe}_{end}");
                let probe = format!("{kind}:{name} {place}{arguments}\n");
                let (from, gone) = (events.clone(), name.clone());
                let back = move || put(&from, &format!("-:{gone}\n")).map_err(|e| e.to_string());
                let ((), remove) = change((format!("remove probe {name}"), back), || put(&events, &probe))?;
                let switched = enable(&name, &mut undo);
                // Disabled first, then removed.
                undo.push(remove);
                switched?;
            }
            io::Result::Ok(())
        };
        for (probe, function, entry, exit) in PROBES {
            let probe = (probe, entry, exit);
            let mut done = attach(&own, probe, function);
            if done.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::AddrNotAvailable) {
                // The name is several functions' (the helper module's policies have such names): the kernel's own, each in a group
                // of its own, since events have the probe's name.
                let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
                let places = addresses(&symbols, function);
                let mut each = places.iter().enumerate();
                done = match places.len() {
                    0 => Err(io::ErrorKind::NotFound.into()),
                    _ => each.try_for_each(|(n, place)| attach(&format!("{own}_{n}"), probe, place)),
                };
            }
            said.push(match done {
                Ok(()) => format!("{function}: watched"),
                Err(e) if e.kind() == io::ErrorKind::NotFound && events.exists() => {
                    format!("{function}: not watched: this kernel has no such function")
                }
                Err(e) => format!("{function}: not watched: {}: {e}", events.display()),
            });
        }
        undo.push(remove);
        if enabled == 0 {
            return Err(said.join("; "));
        }
        // What attaching the probes caused is over by then.
        std::thread::sleep(std::time::Duration::from_millis(50));
        Ok(Tracefs { instance, said, _undo: undo })
    }
}

impl Watch for Tracefs {
    fn start(&mut self) {
        // Truncating a trace empties it.
        drop(fs::write(self.instance.join("trace"), ""));
    }

    fn stop(&mut self) -> Seen {
        parse(&fs::read_to_string(self.instance.join("trace")).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "\
# tracer: nop
           <...>-812     [000] d..1.  1000: reclaimed_in: (sev_guest_memory_reclaimed+0x0/0x60)
           <...>-812     [000] d..1.  1010: mask_wbnoinvd_in: (wbnoinvd_on_cpus_mask+0x0/0x30)
          <idle>-0       [001] d.h1.  1100: csd_function_entry: func=__wbnoinvd csd=0000000012345678
          <idle>-0       [001] d.h1.  1110: one_wbnoinvd_in: (__wbnoinvd+0x0/0x10)
 kworker/[7] x-9         [002] d.h1.  1120: one_wbnoinvd_in: (__wbnoinvd+0x0/0x10)
          <idle>-0       [001] d.h1.  1610: one_wbnoinvd_out: (__wbnoinvd+0x0/0x10 <- x)
          <idle>-0       [001] d.h1.  1650: csd_function_exit: func=__wbnoinvd csd=0000000012345678
 kworker/[7] x-9         [002] d.h1.  1700: one_wbnoinvd_out: (__wbnoinvd+0x0/0x10 <- x)
           <...>-812     [000] d..1.  1800: mask_wbnoinvd_out: (sev_guest_memory_reclaimed+0x30/0x60 <- wbnoinvd_on_cpus_mask)
           <...>-812     [000] d..1.  1810: reclaimed_out: (x <- y)
           <...>-812     [000] d..1.  1811: kvm_unmap_hva_range: mmu notifier unmap range: 0x1 -- 0x2
             cpu-900     [003] .....  5000: psp_in: (__sev_do_cmd_locked+0x0/0x4) cmd=10
             cpu-900     [001] .....  9000: psp_out: (sev_do_cmd+0x1/0x2 <- __sev_do_cmd_locked) ret=0
             cpu-900     [001] .....  9500: psp_in: (__sev_do_cmd_locked+0x0/0x4) cmd=33
             cpu-900     [001] .....  9900: psp_out: (sev_do_cmd+0x1/0x2 <- __sev_do_cmd_locked) ret=0
           <...>-812     [000] d..1.  9990: all_wbinvd_in: (unfinished)
";

    #[test]
    fn who_flushed_when_and_how_long() {
        let seen = parse(TRACE);
        assert_eq!(seen.notifiers, 1);
        let flushes = seen.flushes();
        assert_eq!(flushes.len(), 1);
        assert_eq!((flushes[0].call.begin, flushes[0].call.took, flushes[0].call.pcpu), (1010, 790, 0));
        let pcpus: Vec<_> = flushes[0].pcpus.iter().map(|s| (s.pcpu, s.begin, s.took)).collect();
        assert_eq!(
            pcpus,
            [(1, 1110, 500), (2, 1120, 580)],
            "the tracepoint around the first is the same flush"
        );
        let psp: Vec<_> = seen.of("psp").map(|s| (s.what.as_str(), s.took)).collect();
        assert_eq!(psp, [("psp DF_FLUSH", 4000), ("psp ACTIVATE", 400)]);
        assert_eq!(parse("nonsense\n[00 x"), Seen::default());
    }

    #[test]
    fn a_name_of_several_functions_has_several_addresses() {
        let symbols = "ffffffff81000010 t __wbinvd\nffffffff81000020 T wbinvd_on_all_cpus\n\
                       ffffffff81000030 t __wbinvd\nffffffffc0000000 t __wbinvd\t[module]\n0000000000000000 t __wbinvd\n";
        assert_eq!(addresses(symbols, "__wbinvd"), ["0xffffffff81000010", "0xffffffff81000030"]);
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("sevsim-watch-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(folder.join("instances")).unwrap();
        folder
    }

    #[test]
    fn a_tracefs_that_cannot_be_written_says_so_and_leaves_nothing() {
        let root = folder("bare");
        // An instance in a real tracefs has its files at once; here there are none, so nothing can be watched.
        let error = Tracefs::open(&root).unwrap_err();
        assert!(error.contains("trace_clock"), "{error}");
        assert_eq!(fs::read_dir(root.join("instances")).unwrap().count(), 0);
        let error = Tracefs::open(&root.join("none")).unwrap_err();
        assert!(error.contains("cannot be made"), "{error}");
        fs::remove_dir_all(&root).unwrap();
    }
}
