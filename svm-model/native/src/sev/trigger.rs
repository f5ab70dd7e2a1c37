//! The kernel's own flush sites, each triggered from user space and timed: what is given back, unregistered, destroyed,
//! recycled.
//!
//! Of SEV and SEV-ES guests each of these ends in a flush of whole caches (SEV-SNP: of lines); of a plain guest in none, so
//! that the difference is the flush.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::watch::{Seen, Watch};
use super::{Call, Kernel, Kind, LAUNCHED, Refusal, begin, launch};

/// How often each is triggered.
const DISCARDS: usize = 20;
const RUNS: usize = 10;
const UNREGISTERS: usize = 3;

/// A site, what it took each time, in ticks of the TSC, and what was seen meanwhile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Site {
    /// The guest's kind.
    pub kind: Kind,
    /// A word: that of the call, or of the firmware's command.
    pub name: String,
    /// Each time.
    pub took: Vec<u64>,
    /// By whoever watched.
    pub seen: Seen,
}

/// A word for a call, without its VM and sizes.
#[must_use]
pub fn word(call: &Call) -> String {
    let text = call.to_string();
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or_default();
    let word = if first == "sev" { words.nth(1).unwrap_or_default() } else { first };
    word.to_lowercase().replace('-', "_")
}

/// Launches a guest of this kind, triggers each site that it has, and destroys it. The steps of the launch come first.
///
/// # Errors
/// The first call that the kernel refused. What was found before it is in `sites` all the same.
pub fn sites(
    kernel: &mut dyn Kernel,
    watch: &mut dyn Watch,
    kind: Kind,
    stop: &AtomicBool,
    sites: &mut Vec<Site>,
) -> Result<(), Refusal> {
    watch.start();
    let launched = launch(kernel, kind)?;
    let vm = launched.vm;
    let seen = watch.stop();
    for (n, (call, took)) in launched.steps.iter().enumerate() {
        let seen = if n == 0 { seen.clone() } else { Seen::default() };
        sites.push(Site { kind, name: word(call), took: vec![*took], seen });
    }
    let mut closed = false;
    let mut all = || -> Result<(), Refusal> {
        let mut site = |calls: &[Call], times: usize| -> Result<(), Refusal> {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let mut took: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            watch.start();
            for _ in 0..times {
                for call in calls {
                    closed |= matches!(call, Call::Close(_));
                    took.entry(word(call)).or_default().push(kernel.call(*call)?.took);
                }
            }
            let mut seen = watch.stop();
            // The first call of a group is the one that flushes.
            let first = calls.first().map(word);
            for (name, took) in took {
                let seen =
                    if Some(&name) == first.as_ref() { std::mem::take(&mut seen) } else { Seen::default() };
                sites.push(Site { kind, name, took, seen });
            }
            Ok(())
        };
        site(&[Call::Discard(vm)], DISCARDS)?;
        site(&[Call::Run(vm)], RUNS)?;
        match kind {
            Kind::Plain => {}
            Kind::Sev | Kind::SevEs => {
                site(&[Call::Unregister(vm, LAUNCHED), Call::Register(vm, LAUNCHED)], UNREGISTERS)?;
                site(&[Call::DeleteSlot(vm)], 1)?;
            }
            Kind::SevSnp => {
                site(&[Call::Punch(vm)], 1)?;
                site(&[Call::DeleteSlot(vm)], 1)?;
            }
        }
        site(&[Call::Close(vm)], 1)
    };
    let result = all();
    if !closed {
        drop(kernel.call(Call::Close(vm)));
    }
    result
}

/// Makes and destroys VMs until every ASID of the kind was used once, so that the kernel has to recycle them: WBINVD on every
/// pCPU and DF_FLUSH. The first site is of all initialisations, the second of those among them that took longest, as many as
/// DF_FLUSH commands were seen, or one. `enough` is asked before each VM.
///
/// # Errors
/// The first call that the kernel refused.
pub fn recycle(
    kernel: &mut dyn Kernel,
    watch: &mut dyn Watch,
    kind: Kind,
    asids: u32,
    enough: &dyn Fn() -> bool,
) -> Result<Vec<Site>, Refusal> {
    let mut took = Vec::new();
    watch.start();
    for _ in 0..=asids {
        if enough() {
            break;
        }
        let made = begin(kernel, kind)?;
        took.extend(
            made.steps.iter().filter(|(call, _)| matches!(call, Call::Sev(..))).map(|(_, took)| *took),
        );
        kernel.call(Call::Close(made.vm))?;
    }
    let seen = watch.stop();
    let flushes = seen.of("psp DF_FLUSH").count().max(1);
    let mut slowest = took.clone();
    slowest.sort_unstable_by(|a, b| b.cmp(a));
    slowest.truncate(flushes);
    Ok(vec![
        Site { kind, name: "init".to_owned(), took, seen },
        Site { kind, name: "init_with_recycling".to_owned(), took: slowest, seen: Seen::default() },
    ])
}

#[cfg(test)]
mod tests {
    use super::super::played::{Played, documented};
    use super::super::watch::{Blind, Stretch};
    use super::*;

    fn played(kind: Kind) -> (Vec<Site>, Played) {
        let mut kernel = Played::parse(documented(kind)).unwrap();
        let (mut found, stop) = (Vec::new(), AtomicBool::new(false));
        sites(&mut kernel, &mut Blind(String::new()), kind, &stop, &mut found).unwrap();
        (found, kernel)
    }

    #[test]
    fn every_site_of_every_kind_is_triggered_as_the_documentation_says() {
        let names = |kind| {
            let (found, kernel) = played(kind);
            assert!(kernel.left().is_empty(), "{:?}", kernel.left());
            assert!(found.iter().all(|s| s.kind == kind));
            found
                .into_iter()
                .skip_while(|s| s.name != "discard")
                .map(|s| (s.name, s.took.len()))
                .collect::<Vec<_>>()
        };
        let named =
            |list: &[(&str, usize)]| list.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect::<Vec<_>>();
        assert_eq!(names(Kind::Plain), named(&[("discard", 20), ("run", 10), ("close", 1)]));
        let flushing = [
            ("discard", 20),
            ("run", 10),
            ("register", 3),
            ("unregister", 3),
            ("delete_slot", 1),
            ("close", 1),
        ];
        assert_eq!(names(Kind::Sev), named(&flushing));
        assert_eq!(names(Kind::SevEs), named(&flushing));
        let snp = [("discard", 20), ("run", 10), ("punch", 1), ("delete_slot", 1), ("close", 1)];
        assert_eq!(names(Kind::SevSnp), named(&snp));
    }

    #[test]
    fn a_refusal_in_the_middle_keeps_what_there_is_and_closes_the_vm() {
        let text: String = documented(Kind::Sev)
            .lines()
            .map_while(|l| (!l.starts_with("unregister")).then(|| format!("{l}\n")))
            .collect();
        let mut kernel =
            Played::parse(&format!("{text}unregister 0 bytes=4194304 -> EINVAL\nclose 0 -> ok")).unwrap();
        let (mut found, stop) = (Vec::new(), AtomicBool::new(false));
        let refusal =
            sites(&mut kernel, &mut Blind(String::new()), Kind::Sev, &stop, &mut found).unwrap_err();
        assert!(refusal.to_string().starts_with("unregister 0 bytes=4194304: EINVAL"), "{refusal}");
        assert!(found.iter().any(|s| s.name == "discard") && kernel.left().is_empty());
    }

    #[test]
    fn somebody_who_asks_to_stop_gets_the_vm_closed() {
        let text: String = documented(Kind::Plain)
            .lines()
            .filter(|l| !l.starts_with("repeat"))
            .map(|l| format!("{l}\n"))
            .collect();
        let mut kernel = Played::parse(&text).unwrap();
        let (mut found, stop) = (Vec::new(), AtomicBool::new(true));
        sites(&mut kernel, &mut Blind(String::new()), Kind::Plain, &stop, &mut found).unwrap();
        assert!(kernel.left().is_empty());
    }

    /// Sees the same each time.
    struct Always(Seen);

    impl Watch for Always {
        fn start(&mut self) {}

        fn stop(&mut self) -> Seen {
            self.0.clone()
        }
    }

    #[test]
    fn the_initialisations_that_recycled_are_the_slowest_of_them() {
        let one = |n: u64, took: u64| {
            format!(
                "vm-types -> ok types=0x1d\ncreate-vm sev-es -> ok vm={n}\nsev {n} INIT2 -> ok took={took}\nclose {n} -> ok\n"
            )
        };
        let text: String = [10, 12, 900, 11].into_iter().zip(0..).map(|(took, n)| one(n, took)).collect();
        let mut kernel = Played::parse(&text).unwrap();
        let df_flush = Stretch { begin: 5, took: 700, pcpu: 0, what: "psp DF_FLUSH".to_owned() };
        let mut watch = Always(Seen { stretches: vec![df_flush], notifiers: 0 });
        let found = recycle(&mut kernel, &mut watch, Kind::SevEs, 3, &|| false).unwrap();
        assert_eq!(
            (found[0].took.as_slice(), found[1].took.as_slice()),
            (&[10, 12, 900, 11][..], &[900][..])
        );
        let none = recycle(&mut kernel, &mut watch, Kind::SevEs, 3, &|| true).unwrap();
        assert!(none[0].took.is_empty() && none[1].took.is_empty());
        assert!(kernel.left().is_empty());
    }
}
